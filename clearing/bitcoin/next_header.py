"""Whether a block header follows another: proof of work, difficulty, time.

Lives here: the rules for one header on its parent, and the work it stands for. May not live here: which chain is best and
what it means (handlers/chain.py).

Caller's duty: the first header known of a network that retargets has a height that is a multiple of 2,016, so that every later
retarget finds the first header of its period. Until eleven ancestors are known the median of their times is not
asked. Source: Bitcoin Core src/pow.cpp and ContextualCheckBlockHeader in src/validation.cpp; BIP 94; rules by btclib.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from btclib.block.block_header import BlockHeader
from btclib.block.header_context import median_time_past, next_bits_required
from btclib.block.proof_of_work import block_work
from btclib.consensus import CONSENSUS_PARAMS, ConsensusParams
from btclib.exceptions import BTClibException

from clearing.bitcoin.transaction import sha256d
from clearing.errors import VerificationError

HEADER_BYTES = 80
RETARGET_BLOCKS = 2016
MEDIAN_BLOCKS = 11


class BitcoinNetwork(enum.IntEnum):
    """A Bitcoin network, by number in records."""

    MAIN = 1
    TESTNET4 = 2
    SIGNET = 3
    REGTEST = 4


_PARAMETERS = {
    BitcoinNetwork.MAIN: "mainnet",
    BitcoinNetwork.TESTNET4: "testnet4",
    BitcoinNetwork.SIGNET: "signet",
    BitcoinNetwork.REGTEST: "regtest",
}


def consensus_of(network: BitcoinNetwork) -> ConsensusParams:
    """Return a network's consensus parameters."""
    return CONSENSUS_PARAMS[_PARAMETERS[network]]


def parent_of(header: bytes) -> bytes:
    """Return the hash (internal order) of the header before."""
    return header[4:36]


def time_s_of(header: bytes) -> int:
    """Return a header's time, seconds since 1970."""
    return int.from_bytes(header[68:72], "little")


def work_of(header: bytes) -> int:
    """Return the work a header stands for: the expected number of hashes."""
    return int(block_work(header[72:76][::-1]))


def is_pinnable(network: BitcoinNetwork, height: int) -> bool:
    """Return whether a chain may begin at this height: see the caller's duty above."""
    return network is BitcoinNetwork.REGTEST or height % RETARGET_BLOCKS == 0


def verify_work(network: BitcoinNetwork, header: bytes) -> None:
    """Check a header's proof of work alone.

    Raises: VerificationError: it has none, or its target is easier than the network's easiest.
    """
    try:
        BlockHeader.parse(header).assert_valid_pow(consensus_of(network).pow_limit_bits)
    except BTClibException as error:
        raise VerificationError(f"header without proof of work: {error}") from error


def verify_next(
    network: BitcoinNetwork,
    header: bytes,
    parent_height: int,
    first_height: int,
    ancestor: Callable[[bytes], bytes],
) -> None:
    """Check that a header may follow its parent, at `parent_height`.

    first_height: of the first header known. ancestor: returns a known header by its hash.
    Raises: VerificationError: no proof of work, not the difficulty that is due, or a time that is not allowed.
    """
    verify_work(network, header)
    consensus = consensus_of(network)
    parsed = BlockHeader.parse(header)

    def before(one: BlockHeader) -> BlockHeader:
        return BlockHeader.parse(ancestor(bytes(one.previous_block_hash[::-1])))

    parent = before(parsed)
    try:
        due = next_bits_required(parsed, parent, parent_height, before, consensus)
        known = parent_height - first_height + 1
        if known >= MEDIAN_BLOCKS and time_s_of(header) <= median_time_past(
            parent, parent_height, before
        ):
            raise VerificationError("header earlier than the median of the eleven before it")
    except BTClibException as error:
        raise VerificationError(f"header against the rules: {error}") from error
    if parsed.bits != due:
        raise VerificationError(
            f"header with difficulty {parsed.bits.hex()}, where {bytes(due).hex()} is due"
        )


def header_hash(header: bytes) -> bytes:
    """Return a header's hash (internal order)."""
    return sha256d(header)
