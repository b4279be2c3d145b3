"""`clearing audit verify --consensus`: the validators' signatures, held against the log.

Lives here: which blocks are checked and in what order. May not live here: signatures and hashes (clearing.consensus),
fetching the log (audit.py).

The log says by itself who the validators are: genesis registers them, and each later set is a VALIDATORS leaf with the
hash that the engine's headers carry. So from genesis on each change of the set is checked to be in a block that the
set before it has signed, and last the newest block: its header carries size and root of the log, and with them
everything before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clearing.consensus.commit import app_hash, chain_id, verify_signed_header
from clearing.errors import VerificationError
from clearing.log import merkle
from clearing.records.leaves import LeafKind, ValidatorsLeaf, leaf_kind
from node.services.facade import BlockCommit

EFFECTIVE_AFTER = 2
"""A set counts for the engine's blocks from two after the one that changed it."""

Fetch = Callable[[int], BlockCommit]
"""Returns for a block's height what its validators have signed."""


@dataclass(frozen=True, slots=True)
class ConsensusFacts:
    """What was verified: blocks checked, sets of validators, and power that signed the newest block of the total."""

    blocks_checked: int
    sets: int
    engine_height: int
    power: int
    total_power: int


@dataclass(frozen=True, slots=True)
class _Block:
    height: int
    size: int
    root: bytes
    new_set: ValidatorsLeaf | None


def verify_consensus(leaves: Sequence[bytes], network_id: bytes, fetch: Fetch) -> ConsensusFacts:
    """Check the validators' signatures over the log, from genesis to its last leaf, the end of a block.

    Raises: VerificationError: a signature, set or app hash is not what it must be, or the log names no validators.
    """
    blocks = _blocks(leaves)
    first = blocks[0].new_set
    if first is None:
        raise VerificationError("the log names no validators: one operator orders this network")
    chain = chain_id(network_id)
    # (engine height from which a set signs, hash of the set), ascending
    sets = [(1, first.validators_hash)]
    checked = [block for block in blocks[1:] if block.new_set or block is blocks[-1]] or blocks[:1]
    facts = ConsensusFacts(0, 0, 0, 0, 0)
    for count, block in enumerate(checked, 1):
        found = fetch(block.height)
        power = verify_signed_header(found.signed, chain)
        header = found.signed.header
        if header.height != found.engine_height + 1:
            raise VerificationError(f"the commit of block {block.height} is of another block")
        if header.app_hash != app_hash(block.size, block.root):
            raise VerificationError(
                f"the validators have signed another log than this one at block {block.height}"
            )
        expected = [named for start, named in sets if start <= header.height][-1]
        if header.validators_hash != expected:
            raise VerificationError(
                f"block {block.height} is signed by another set of validators than the log names"
            )
        if block.new_set is not None:
            sets.append((found.engine_height + EFFECTIVE_AFTER, block.new_set.validators_hash))
        total = sum(validator.power for validator in found.signed.validators)
        facts = ConsensusFacts(count, len(sets), header.height, power, total)
    return facts


def _blocks(leaves: Sequence[bytes]) -> list[_Block]:
    """Return the end of each block: size and root of the log, and the set of validators it brought."""
    blocks: list[_Block] = []
    log, hashes, new_set = merkle.CompactRange(), [], None
    for leaf in leaves:
        kind = leaf_kind(leaf)
        hashes.append(merkle.leaf_hash(leaf))
        if kind is LeafKind.VALIDATORS:
            new_set = ValidatorsLeaf.decode(leaf)
        elif kind is LeafKind.SEAL:
            log, _ = log.append_many(hashes)
            blocks.append(_Block(len(blocks), log.size, log.root, new_set))
            hashes, new_set = [], None
    if hashes or not blocks:
        raise VerificationError("the log ends within a block")
    return blocks
