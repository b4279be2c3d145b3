"""Proofs of transactions made from whole blocks.

Lives here: taking a block apart, and a transaction's branch in it. May not live here: fetching blocks, verifying proofs.
Source: Bitcoin's block and Merkle tree as in Bitcoin Core src/consensus/merkle.cpp; parsing by btclib.
"""

from __future__ import annotations

from btclib.block import Block
from btclib.exceptions import BTClibException
from btclib.tx import Tx

from clearing.bitcoin.transaction import Transaction, TransactionProof, sha256d
from clearing.errors import DecodeError

HEADER_BYTES = 80


def transactions_of(block: bytes) -> tuple[Tx, ...]:
    """Return a block's transactions in order.

    Raises: DecodeError: not a block.
    """
    try:
        return tuple(Block.parse(block, check_validity=False).transactions)
    except BTClibException as error:
        raise DecodeError(f"not a block: {error}") from error


def proof_of(block: bytes, position: int) -> TransactionProof:
    """Return the proof of the transaction at a place of a block. Caller: there is one.

    Raises: DecodeError: not a block.
    """
    found = transactions_of(block)
    row = [one.id[::-1] for one in found]
    branch, at = [], position
    while len(row) > 1:
        if len(row) % 2:
            row.append(row[-1])
        branch.append(row[at ^ 1])
        row = [sha256d(row[one] + row[one + 1]) for one in range(0, len(row), 2)]
        at //= 2
    raw = found[position].serialize(include_witness=False)
    return TransactionProof(
        sha256d(block[:HEADER_BYTES]), position, tuple(branch), Transaction.decode(raw)
    )
