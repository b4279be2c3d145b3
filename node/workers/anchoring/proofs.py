"""OpenTimestamps proofs of anchored notes, complete: no calendar is ever asked.

Lives here: the bytes of a commitment and of .ots files, by the library that stock `ots` reads them with. May not live here:
verifying them (clearing/bitcoin), when an anchor has a place.

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

from clearing.errors import invariant
from node.workers.anchoring.book import Anchor, Place


def digest_of(note: bytes) -> bytes:
    """Return what is anchored of a checkpoint: the SHA-256 of its note as it is kept and exported."""
    return hashlib.sha256(note).digest()


def commitment_of(digests: Sequence[bytes]) -> bytes:
    """Return the 32 bytes that anchor these digests: the root of OpenTimestamps' Merkle tree over them, in order."""
    return bytes(make_merkle_tree([Timestamp(digest) for digest in digests]).msg)


def proof_of(anchor: Anchor, position: int) -> bytes:
    """Return the .ots file for the anchor's note number `position`.

    Caller's duty: the anchor has a place.
    """
    invariant(anchor.place is not None, "an anchor that is in no block proves nothing")
    stamps = [Timestamp(digest) for digest in anchor.digests]
    root = make_merkle_tree(list(stamps))
    invariant(bytes(root.msg) == anchor.commitment, "an anchor's commitment is that of its digests")
    if anchor.place is not None:
        _lead_to_header(root, anchor.place)
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
