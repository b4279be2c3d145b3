"""A submission as a counterparty's node may keep it: all commitments, and its own items.

Lives here: the bytes of a redacted submission body, how it is cut from a whole body, and its
verification against the signed leaf. May not live here: who may see what (node/replication),
transport.

Layout, little-endian: the header, then `count` commitments of 32 bytes in item order, then the
openings in ascending item order, each `item u32 || salt (16) || record`. Whoever holds it can prove
each opened item against the log, and can learn nothing of the others: their salts are missing.
Invariant: a decoded value re-encodes to the same bytes.
Source: own design (README, decision 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from clearing.codec import Layout, raw, reserved, split_records, uint
from clearing.errors import DecodeError, VerificationError
from clearing.log import merkle
from clearing.params import ITEMS_PER_SUBMISSION_MAX
from clearing.records.obligation import ITEM_BYTES, SALT_BYTES, commitments_of, salts_of
from clearing.records.submission import Submission

REDACTED_VERSION = 1
HEADER_LAYOUT = Layout(
    "redacted submission",
    uint("version", 1),
    reserved(3),
    uint("count", 4),
    uint("openings", 4),
    reserved(4),
)
OPENING_LAYOUT = Layout(
    "opened item", uint("item", 4), raw("salt", SALT_BYTES), raw("record", ITEM_BYTES)
)


@dataclass(frozen=True, slots=True)
class RedactedSubmission:
    """All commitments, packed, 32 bytes each; (item, salt || record) of opened items, ascending."""

    commitments: bytes
    openings: tuple[tuple[int, bytes], ...]

    @classmethod
    def of(cls, submission: Submission, participant: int, commitments: bytes | None = None) -> Self:
        """Cut from a whole submission what `participant`, as debtor or creditor of items, may see.

        `commitments` are those of the submission, packed, where the caller has them at hand: they
        cost a hash an item. Caller's duty: the submission carries its body.
        """
        items = submission.items()
        own = np.flatnonzero((items["debtor"] == participant) | (items["creditor"] == participant))
        salts = salts_of(submission.secret, submission.count)
        records = submission.records
        openings = []
        for item in own.tolist():
            salt = salts[item * SALT_BYTES : (item + 1) * SALT_BYTES]
            openings.append((item, salt + records[item * ITEM_BYTES : (item + 1) * ITEM_BYTES]))
        if commitments is None:
            commitments = commitments_of(submission.secret, records)
        return cls(commitments, tuple(openings))

    @property
    def count(self) -> int:
        """Number of items of the submission."""
        return len(self.commitments) // merkle.HASH_BYTES

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        head = HEADER_LAYOUT.encode(
            version=REDACTED_VERSION, count=self.count, openings=len(self.openings)
        )
        opened = (item.to_bytes(4, "little") + opening for item, opening in self.openings)
        return b"".join((head, self.commitments, *opened))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length or version, too many items, or openings that do not ascend
        below the count.
        """
        head = HEADER_LAYOUT.decode(data[: HEADER_LAYOUT.width])
        if head["version"] != REDACTED_VERSION:
            raise DecodeError("not a redacted submission of version 1")
        count = head["count"]
        if not 0 < count <= ITEMS_PER_SUBMISSION_MAX:
            raise DecodeError(
                f"a submission holds 1 to {ITEMS_PER_SUBMISSION_MAX} obligations, got {count}"
            )
        end = HEADER_LAYOUT.width + count * merkle.HASH_BYTES
        if len(data) < end:
            raise DecodeError(f"{count} commitments take {end - HEADER_LAYOUT.width} bytes")
        rows = split_records(data[end:], OPENING_LAYOUT.width, head["openings"], "opened items")
        openings = tuple((int.from_bytes(row[:4], "little"), row[4:]) for row in rows)
        floor = -1
        for item, _ in openings:
            if not floor < item < count:
                raise DecodeError("opened items must ascend and lie below the submission's count")
            floor = item
        return cls(data[HEADER_LAYOUT.width : end], openings)

    def verify(self, leaf: Submission) -> None:
        """Check that this is a redaction of the submission with this signed leaf.

        Raises: VerificationError: another number of items, commitments that do not lead to the
        signed root, or an opening that does not open its commitment.
        """
        if self.count != leaf.count:
            raise VerificationError(f"the leaf has {leaf.count} items, the redaction {self.count}")
        if merkle.root_of(self.commitments) != leaf.commitment_root:
            raise VerificationError("the commitments do not match the signed commitment root")
        for item, opening in self.openings:
            commitment = self.commitments[item * merkle.HASH_BYTES : (item + 1) * merkle.HASH_BYTES]
            if merkle.leaf_hash(opening) != commitment:
                raise VerificationError(f"item {item} does not open its commitment")
