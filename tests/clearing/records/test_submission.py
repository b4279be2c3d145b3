"""Submissions: pinned bytes, signature, commitment; every altered byte is noticed."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clearing.errors import DecodeError, VerificationError
from clearing.params import ITEMS_PER_SUBMISSION_MAX
from clearing.records.obligation import ITEM_BYTES, SECRET_BYTES
from clearing.records.submission import LEAF_BYTES, Submission, make_submission
from tests.clearing.records.vectors import VECTORS

SIGNED = VECTORS["signed"]
NETWORK_ID = bytes.fromhex(SIGNED["network_id"])
KEY = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(SIGNED["seed"]))
PUBLIC_KEY = bytes.fromhex(SIGNED["public_key"])
PINNED = {
    name: bytes.fromhex(value)
    for name, value in SIGNED["submission"].items()
    if isinstance(value, str)
}
RECORDS = b"".join(map(bytes.fromhex, SIGNED["submission"]["records"]))
WHOLE = PINNED["leaf"] + PINNED["secret"] + RECORDS


def test_making_one_gives_the_pinned_bytes() -> None:
    made = make_submission(
        network_id=NETWORK_ID,
        submitter=2,
        client_id=PINNED["client_id"],
        secret=PINNED["secret"],
        records=RECORDS,
        sign=KEY.sign,
    )
    assert made.encode() == WHOLE
    assert made == Submission.decode(WHOLE)


def test_parsing_gives_what_stands_in_it() -> None:
    parsed = Submission.decode(WHOLE)
    assert (parsed.count, parsed.submitter) == (3, 2)
    assert parsed.client_id == PINNED["client_id"]
    assert parsed.commitment_root == PINNED["commitment_root"]
    assert parsed.secret == PINNED["secret"]
    assert bytes(parsed.records) == RECORDS
    assert parsed.items()["priority"].tolist() == [0, 7, 255]
    parsed.verify_signature(NETWORK_ID, PUBLIC_KEY)
    parsed.verify_commitment()


def test_a_leaf_alone_parses_without_its_body() -> None:
    parsed = Submission.of_leaf(PINNED["leaf"])
    assert parsed.body == b""
    parsed.verify_signature(NETWORK_ID, PUBLIC_KEY)


def test_every_bit_is_signed_or_committed_to() -> None:
    for offset in range(len(WHOLE)):
        changed = bytearray(WHOLE)
        changed[offset] ^= 1 << offset % 8
        try:
            parsed = Submission.decode(bytes(changed))
        except DecodeError:
            assert offset < LEAF_BYTES
            continue
        if offset < LEAF_BYTES:
            with pytest.raises(VerificationError, match="signature does not verify"):
                parsed.verify_signature(NETWORK_ID, PUBLIC_KEY)
        else:
            with pytest.raises(VerificationError, match=r"do(es)? not match the signed commitment"):
                parsed.verify_commitment()


def test_a_signature_is_for_one_network_one_key_and_one_kind_of_record() -> None:
    parsed = Submission.decode(WHOLE)
    other = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
    for network_id, public_key in (
        (bytes(32), PUBLIC_KEY),
        (NETWORK_ID, other),
        (NETWORK_ID, b"\xff" * 32),
        (NETWORK_ID, b""),
    ):
        with pytest.raises(VerificationError, match="signature does not verify"):
            parsed.verify_signature(network_id, public_key)
    instruction = bytes.fromhex(SIGNED["instruction"]["leaf"])
    moved = Submission.of_leaf(PINNED["leaf"][:64] + instruction[64:])
    with pytest.raises(VerificationError):
        moved.verify_signature(NETWORK_ID, PUBLIC_KEY)


@pytest.mark.parametrize("length", [0, 1, 127, 128, 129, 160, len(WHOLE) - 1, len(WHOLE) + 1])
def test_another_length_than_announced_is_refused(length: int) -> None:
    with pytest.raises(DecodeError):
        Submission.decode((WHOLE + b"\0")[:length])


@pytest.mark.parametrize("count", [0, ITEMS_PER_SUBMISSION_MAX + 1, (1 << 32) - 1])
def test_a_count_outside_its_range_is_refused(count: int) -> None:
    leaf = PINNED["leaf"][:4] + count.to_bytes(4, "little") + PINNED["leaf"][8:]
    with pytest.raises(DecodeError, match="1 to 50000 obligations"):
        Submission.of_leaf(leaf)


@pytest.mark.parametrize(("offset", "value"), [(0, 0), (0, 2), (1, 1), (1, 3), (1, 7)])
def test_another_version_or_kind_is_refused(offset: int, value: int) -> None:
    changed = bytearray(WHOLE)
    changed[offset] = value
    with pytest.raises(DecodeError, match="not a submission leaf"):
        Submission.decode(bytes(changed))


@pytest.mark.parametrize("records", [b"", RECORDS[:-1], bytes(ITEM_BYTES * 50_001)])
def test_nothing_too_much_or_a_fraction_cannot_be_signed(records: bytes) -> None:
    with pytest.raises(DecodeError):
        make_submission(
            network_id=NETWORK_ID,
            submitter=2,
            client_id=bytes(16),
            secret=bytes(SECRET_BYTES),
            records=records,
            sign=KEY.sign,
        )
