"""Making a block: coinbase, Merkle roots, time, and a nonce that regtest's target lets one find at once.

Lives here: the bytes of a new block. May not live here: which transactions, whether it is accepted.
Source: BIP 34 (height), BIP 141 (witness commitment); Bitcoin Core src/kernel/chainparams.cpp CRegTestParams.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass

from bitcoin.core import CBlock, COutPoint, CTransaction, CTxIn, CTxInWitness, CTxOut, CTxWitness
from bitcoin.core.script import OP_RETURN, CScript, CScriptWitness

BITS = 0x207FFFFF
TARGET = 0x7FFFFF << (8 * (0x20 - 3))
VERSION = 0x20000000
HALVING_BLOCKS = 150
SUBSIDY_SAT = 50 * 100_000_000
HEADER_BYTES = 80
MEDIAN_BLOCKS = 11

_RESERVED = bytes(32)
_COMMITMENT = b"\xaa\x21\xa9\xed"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a block goes: hash of the block before, its own height, and its time in seconds since 1970."""

    previous: bytes
    height: int
    time_s: int


def sha256d(data: bytes) -> bytes:
    """Return SHA-256 of SHA-256."""
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def subsidy_sat(height: int) -> int:
    """Return what a regtest block at `height` may create."""
    return SUBSIDY_SAT >> (height // HALVING_BLOCKS)


def block_time(median_s: int, now_s: int) -> int:
    """Return a time that the rules allow: now, but later than the median of the eleven blocks before."""
    return max(median_s + 1, now_s)


def make_block(
    place: Place, script: bytes, transactions: Sequence[CTransaction], fees_sat: int
) -> bytes:
    """Return a block with these transactions whose coinbase pays subsidy and fees to `script`.

    Eight random bytes in the coinbase make two blocks in one place differ.
    """
    stamp = CScript([place.height, os.urandom(8)])
    outputs = [CTxOut(subsidy_sat(place.height) + fees_sat, CScript(script))]
    blank = CTransaction([CTxIn(COutPoint(), stamp)], outputs, nVersion=2)
    witness = CTxWitness([CTxInWitness(CScriptWitness([_RESERVED]))])
    if any(one.has_witness() for one in transactions):
        # The coinbase counts as 32 zero bytes in the witness tree, so a blank one serves to compute the root.
        root = CBlock(vtx=[blank, *transactions]).calc_witness_merkle_root()
        commitment = sha256d(root + _RESERVED)
        outputs.append(CTxOut(0, CScript([OP_RETURN, _COMMITMENT + commitment])))
        coinbase = CTransaction([CTxIn(COutPoint(), stamp)], outputs, nVersion=2, witness=witness)
    else:
        coinbase = blank
    block = CBlock(
        VERSION, place.previous, bytes(32), place.time_s, BITS, 0, [coinbase, *transactions]
    )
    data = bytearray(block.serialize())
    data[36:68] = block.calc_merkle_root()
    return _grind(data)


def _grind(data: bytearray) -> bytes:
    for nonce in range(1 << 32):
        data[76:80] = nonce.to_bytes(4, "little")
        if int.from_bytes(sha256d(bytes(data[:HEADER_BYTES])), "little") <= TARGET:
            break
    return bytes(data)
