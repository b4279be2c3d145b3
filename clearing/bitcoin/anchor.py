"""What an anchor commits to and what shows that it was mined.

Lives here: an anchor's script, and the check of a mined anchor against one block header. May not live here: the tree over
the notes and their proofs (ots.py), whether that header counts (next_header.py, headers.py), what follows for the ledger (rules).

    SHA-256 of each note -> OpenTimestamps' Merkle tree -> OP_RETURN of 32 bytes -> transaction -> Merkle root of a block

Source: own design; the tree is OpenTimestamps' (ots.py).
"""

from __future__ import annotations

from clearing.bitcoin.next_header import BitcoinNetwork, header_hash, verify_work
from clearing.bitcoin.transaction import Transaction, TransactionProof
from clearing.errors import VerificationError

_ANCHOR_HEAD = b"\x6a\x20"


def anchor_script(commitment: bytes) -> bytes:
    """Return the script of an anchor's output: OP_RETURN and 32 bytes."""
    return _ANCHOR_HEAD + commitment


def carries(transaction: Transaction, commitment: bytes) -> bool:
    """Return whether an output of `transaction` is the anchor of `commitment`."""
    return any(output.script == anchor_script(commitment) for output in transaction.outputs)


def verify_mined(
    network: BitcoinNetwork, header: bytes, proof: TransactionProof, commitment: bytes
) -> None:
    """Check that a block with this header holds a transaction that anchors `commitment`.

    The header's own proof of work is checked, and nothing of the chain it stands in.
    Raises: VerificationError: it has no work, the proof is of another block or does not lead to it, or the transaction
    carries no such commitment.
    """
    verify_work(network, header)
    if header_hash(header) != proof.block_hash:
        raise VerificationError("the proof is of another block")
    proof.verify(header)
    if not carries(proof.transaction, commitment):
        raise VerificationError("the transaction does not carry the commitment")
