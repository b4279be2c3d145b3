"""`clearing audit verify --consensus` and `audit commit`: the validators' signatures, held against the log.

Lives here: which blocks are checked and in what order. May not live here: signatures and hashes (clearing.consensus),
fetching the log (audit.py).

The log says by itself who the validators are: genesis registers them, and each later set is a VALIDATORS leaf with the
hash that the engine's headers carry. So from genesis on each change of the set is checked to be in a block that the
set before it has signed, and last the newest block: its header carries size and root of the log, and with them
everything before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from clearing.consensus.commit import SignedHeader, app_hash, chain_id, verify_signed_header
from clearing.errors import DecodeError, VerificationError
from clearing.log import merkle
from clearing.records.leaves import LeafKind, ValidatorsLeaf, leaf_kind
from node.sequencer.cometbft.headers import signed_header_of

EFFECTIVE_AFTER = 2
"""A set counts for the engine's blocks from two after the one that changed it."""

Fetch = Callable[[int], tuple[int, str]]
"""Returns for a block's height the engine's height and its evidence, see GetBlockCommit."""


@dataclass(frozen=True, slots=True)
class ConsensusFacts:
    """What was verified: blocks checked, sets of validators, and power that signed the newest block of the total."""

    blocks_checked: int
    sets: int
    engine_height: int
    power: int
    total_power: int


def commit_facts(
    evidence: str, network_id: bytes, size: int, root: bytes, validators_hash: str = ""
) -> dict[str, Any]:
    """Return what a commit proves of the log of `size` leaves and `root`, ready for JSON; needs nothing else.

    validators_hash: hex of the set that is trusted, as a VALIDATORS leaf names it; "" leaves that to the reader.
    Raises: VerificationError: it does not hold, or is another set's; DecodeError: evidence that is none.
    """
    signed = _signed(evidence)
    power = verify_signed_header(signed, chain_id(network_id))
    if signed.header.app_hash != app_hash(size, root):
        raise VerificationError(f"the commit is of another log than this one of {size} leaves")
    found = signed.header.validators_hash.hex()
    if validators_hash and found != validators_hash.lower():
        raise VerificationError(f"the commit is of the set {found}, not of {validators_hash}")
    return {
        "engine_height": signed.header.height,
        "time_s": signed.header.time.seconds,
        "validators_hash": found,
        "power": power,
        "total_power": sum(validator.power for validator in signed.validators),
    }


@dataclass(frozen=True, slots=True)
class _Block:
    height: int
    size: int
    root: bytes
    new_set: ValidatorsLeaf | None


def verify_consensus(leaves: Sequence[bytes], network_id: bytes, fetch: Fetch) -> ConsensusFacts:
    """Check the validators' signatures over the log, from genesis to its last leaf, the end of a block.

    Raises: VerificationError: a signature, set or app hash is not what it must be, or the log names no validators;
        DecodeError: evidence that is none.
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
        engine_height, evidence = fetch(block.height)
        signed = _signed(evidence)
        power = verify_signed_header(signed, chain)
        header = signed.header
        if header.height != engine_height + 1:
            raise VerificationError(f"the commit of block {block.height} is of another block")
        if header.app_hash != app_hash(block.size, block.root):
            raise VerificationError(
                f"the validators have signed another log than this one at block {block.height}"
            )
        expected = [found for start, found in sets if start <= header.height][-1]
        if header.validators_hash != expected:
            raise VerificationError(
                f"block {block.height} is signed by another set of validators than the log names"
            )
        if block.new_set is not None:
            sets.append((engine_height + EFFECTIVE_AFTER, block.new_set.validators_hash))
        total = sum(validator.power for validator in signed.validators)
        facts = ConsensusFacts(count, len(sets), header.height, power, total)
    return facts


def _signed(evidence: str) -> SignedHeader:
    try:
        found = json.loads(evidence)
        return signed_header_of(found["signed_header"], found["validators"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DecodeError(f"the evidence is not a signed header: {error!r}") from error


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
