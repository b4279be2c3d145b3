"""OpenTimestamps proofs of anchored notes, complete: no calendar is ever asked.

Lives here: the bytes of .ots files, by the library that stock `ots` reads them with. May not live here: what is
committed to (clearing/bitcoin/anchor.py), when an anchor has a place.

    SHA-256 of the note -> Merkle tree over all notes of the anchor -> OP_RETURN of its transaction
    -> txid -> Merkle root of the block at `height`

An .ots names a height, not a block: after a reorganisation it is simply wrong, and is made anew from the anchor's new place.
Source: opentimestamps 0.4.5; https://opentimestamps.org.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

from opentimestamps.core.notary import BitcoinBlockHeaderAttestation
from opentimestamps.core.op import OpAppend, OpPrepend, OpSHA256
from opentimestamps.core.serialize import StreamSerializationContext
from opentimestamps.core.timestamp import DetachedTimestampFile, Timestamp, make_merkle_tree

from clearing.bitcoin.anchor import commitment_of
from clearing.errors import DecodeError, invariant
from clearing.rules.anchors import AnchorReport
from node.workers.anchoring.book import Place


def digest_of(note: bytes) -> bytes:
    """Return what is anchored of a checkpoint: the SHA-256 of its note as it is kept and exported."""
    return hashlib.sha256(note).digest()


def place_of(evidence: AnchorReport) -> Place:
    """Return where the anchor of a report with evidence is."""
    proof = evidence.proof
    if proof is None:
        raise DecodeError("only a report of a mined anchor holds a place")
    return Place(
        height=evidence.height,
        block_hash=proof.block_hash,
        header=evidence.header,
        transaction=proof.transaction.raw,
        txid=proof.transaction.txid,
        position=proof.position,
        branch=proof.branch,
    )


def proof_of(digests: Sequence[bytes], position: int, place: Place) -> bytes:
    """Return the .ots file for note number `position` of the anchor over `digests` that was mined at `place`."""
    stamps = [Timestamp(digest) for digest in digests]
    root = make_merkle_tree(list(stamps))
    invariant(bytes(root.msg) == commitment_of(digests), "both trees over the digests agree")
    _lead_to_header(root, place)
    stream = io.BytesIO()
    file = DetachedTimestampFile(OpSHA256(), stamps[position])
    file.serialize(StreamSerializationContext(stream))
    return stream.getvalue()


def _lead_to_header(stamp: Timestamp, place: Place) -> None:
    """Add to `stamp`, whose message is the commitment, the way to the block header of `place`."""
    before, commitment, after = place.transaction.partition(bytes(stamp.msg))
    invariant(bytes(commitment) == bytes(stamp.msg), "an anchor's transaction holds its commitment")
    found = _sha256d(stamp.ops.add(OpPrepend(before)).ops.add(OpAppend(after)))
    invariant(bytes(found.msg) == place.txid, "an anchor's transaction has its txid")
    position = place.position
    for sibling in place.branch:
        joined = OpPrepend(sibling) if position & 1 else OpAppend(sibling)
        found = _sha256d(found.ops.add(joined))
        position //= 2
    invariant(
        bytes(found.msg) == place.header[36:68],
        "an anchor's branch leads to its block's Merkle root",
    )
    found.attestations.add(BitcoinBlockHeaderAttestation(place.height))


def _sha256d(stamp: Timestamp) -> Timestamp:
    return stamp.ops.add(OpSHA256()).ops.add(OpSHA256())
