"""A submission: up to 50,000 obligations under one signature.

Lives here: the bytes of a submission (leaf and body), its signature, its commitment root. May not live here: whether
its items are acceptable (rules/obligations.py).

A transaction is `leaf || body`. The leaf (128 bytes) goes into the log; the body, `secret (32) || records`, is kept
apart and may be withheld or lawfully erased while every proof keeps verifying.
Source: own design (README, decision 2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from clearing.codec import Layout, raw, reserved, uint
from clearing.errors import DecodeError, VerificationError
from clearing.log import merkle
from clearing.params import ITEMS_PER_SUBMISSION_MAX
from clearing.records.leaves import LEAF_VERSION, LeafKind
from clearing.records.obligation import (
    ITEM_BYTES,
    SECRET_BYTES,
    Items,
    commitments_of,
    items_view,
)

LAYOUT = Layout(
    "submission leaf",
    uint("version", 1),
    uint("kind", 1),
    reserved(2),
    uint("count", 4),
    uint("submitter", 4),
    reserved(4),
    raw("client_id", 16),
    raw("commitment_root", 32),
    raw("signature", 64),
)
LEAF_BYTES = LAYOUT.width
SIGNATURE_BYTES = 64
_DOMAIN = b"clearing/submission/v1\0"


@dataclass(frozen=True, slots=True)
class Submission:
    """A parsed submission; equal bytes give equal values and back.

    client_id: 16 bytes chosen by the client, unique for the submitter; network_id stands in the signed bytes only.
    """

    leaf: bytes
    body: bytes
    count: int
    submitter: int
    client_id: bytes
    commitment_root: bytes

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse `leaf || body`.

        Raises: DecodeError: not exactly a leaf and a body of `count` records.
        """
        leaf = data[:LEAF_BYTES]
        body = data[LEAF_BYTES:]
        submission = cls.of_leaf(leaf, body)
        # The count in the leaf is signed; the body must be as long as it says.
        if len(body) != SECRET_BYTES + submission.count * ITEM_BYTES:
            raise DecodeError(
                f"a body of {submission.count} obligations takes "
                f"{SECRET_BYTES + submission.count * ITEM_BYTES} bytes, got {len(body)}"
            )
        return submission

    @classmethod
    def of_leaf(cls, leaf: bytes, body: bytes = b"") -> Self:
        """Parse a leaf from the log, where the body may be withheld (empty).

        Raises: DecodeError: not a submission leaf.
        """
        values = LAYOUT.decode(leaf)
        if values["version"] != LEAF_VERSION or values["kind"] != LeafKind.SUBMISSION:
            raise DecodeError("not a submission leaf of version 1")
        if not 0 < values["count"] <= ITEMS_PER_SUBMISSION_MAX:
            raise DecodeError(
                f"a submission holds 1 to {ITEMS_PER_SUBMISSION_MAX} obligations, got {values['count']}"
            )
        return cls(
            leaf=leaf,
            body=body,
            count=values["count"],
            submitter=values["submitter"],
            client_id=values["client_id"],
            commitment_root=values["commitment_root"],
        )

    def encode(self) -> bytes:
        """Return `leaf || body`."""
        return self.leaf + self.body

    @property
    def secret(self) -> bytes:
        """The secret from which the items' salts are made."""
        return self.body[:SECRET_BYTES]

    @property
    def records(self) -> memoryview:
        """The obligation records, ITEM_BYTES each."""
        return memoryview(self.body)[SECRET_BYTES:]

    def items(self) -> Items:
        """Return the records as a structured array (records/obligation.py)."""
        return items_view(self.records)

    def verify_signature(self, network_id: bytes, public_key: bytes) -> None:
        """Check the submitter's Ed25519 signature.

        Raises: VerificationError: the signature is not by `public_key` for this network.
        """
        verify_leaf_signature(_DOMAIN, network_id, self.leaf, public_key)

    def verify_commitment(self) -> None:
        """Recompute the commitment root from the body: two hashes an item, the ingest limit.

        Raises: VerificationError: the body is not what was signed.
        """
        root = merkle.root_of(commitments_of(self.secret, self.records))
        if root != self.commitment_root:
            raise VerificationError("the obligations do not match the signed commitment root")


def verify_leaf_signature(domain: bytes, network_id: bytes, leaf: bytes, public_key: bytes) -> None:
    """Check the Ed25519 signature that ends `leaf` over `domain || network_id || rest of the leaf`.

    Raises: VerificationError: it does not verify. Source: RFC 8032.
    """
    signed = domain + network_id + leaf[:-SIGNATURE_BYTES]
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(leaf[-SIGNATURE_BYTES:], signed)
    except (InvalidSignature, ValueError) as error:
        raise VerificationError("the signature does not verify") from error


def make_submission(
    *,
    network_id: bytes,
    submitter: int,
    client_id: bytes,
    secret: bytes,
    records: bytes,
    sign: Callable[[bytes], bytes],
) -> Submission:
    """Sign `records` (ITEM_BYTES each) as one submission.

    Caller's duties: `client_id` (16 bytes) and `secret` (32 bytes) are random and new for each submission;
    `sign` makes an Ed25519 signature with the submitter's registered key.
    Raises: DecodeError: no items, too many, or a broken length.
    """
    count = len(items_view(records))
    root = merkle.root_of(commitments_of(secret, records))
    unsigned = LAYOUT.encode(
        version=LEAF_VERSION,
        kind=LeafKind.SUBMISSION,
        count=count,
        submitter=submitter,
        client_id=client_id,
        commitment_root=root,
        signature=bytes(SIGNATURE_BYTES),
    )[:-SIGNATURE_BYTES]
    leaf = unsigned + sign(_DOMAIN + network_id + unsigned)
    return Submission.decode(leaf + secret + records)
