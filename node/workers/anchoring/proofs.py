"""What is anchored of a note, and the .ots of every note of an anchor from where it was mined.

Lives here: the way from the worker's records to the core's proofs. May not live here: proofs' bytes (clearing/bitcoin/ots.py).
"""

from __future__ import annotations

import hashlib

from clearing.bitcoin.ots import make_proofs
from clearing.bitcoin.transaction import Transaction, TransactionProof
from node.workers.anchoring.book import Anchor, Place


def digest_of(note: bytes) -> bytes:
    """Return what is anchored of a checkpoint: the SHA-256 of its note as it is kept and exported."""
    return hashlib.sha256(note).digest()


def evidence_of(place: Place) -> TransactionProof:
    """Return the proof that the block of `place` holds the anchor's transaction. Raises: DecodeError: it is no transaction."""
    transaction = Transaction.decode(place.transaction)
    return TransactionProof(place.block_hash, place.position, place.branch, transaction)


def proofs_of(anchor: Anchor) -> list[bytes]:
    """Return the .ots files of an anchor's notes, in order; none while no block holds it."""
    if anchor.place is None:
        return []
    return list(make_proofs(anchor.digests, evidence_of(anchor.place), anchor.place.height))
