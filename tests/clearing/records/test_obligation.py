"""Obligation records as columns, their salts and their commitments."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.codec import Kind
from clearing.errors import DecodeError
from clearing.params import ITEMS_PER_SUBMISSION_MAX
from clearing.records.obligation import (
    DTYPE,
    ITEM_BYTES,
    LAYOUT,
    SALT_BYTES,
    commitments_of,
    encode_item,
    items_view,
    opening_of,
    salts_of,
)
from tests.clearing.records.vectors import RECORDS, VECTORS

OBLIGATIONS = [record for record in RECORDS if record.record == "obligation"]
SIGNED = VECTORS["signed"]["submission"]
RFC8439_KEY_STREAM = (
    "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
    "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
    "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
)
"""Source: RFC 8439, appendix A.1, test vectors 1 and 2: key and nonce all zero, counters 0 and 1."""


def test_a_record_with_salt_and_padding_fills_exactly_two_sha256_blocks() -> None:
    # 0x00 || salt || record || 0x80 || length in 8 bytes
    assert 1 + SALT_BYTES + ITEM_BYTES + 1 + 8 == 2 * 64


def test_the_columns_are_the_layout() -> None:
    widths = {"amount_units": ("amount_lo", "amount_hi")}
    for field, start in LAYOUT.offsets():
        names = widths.get(field.name, (field.name,))
        offsets = [DTYPE.fields[name][1] for name in names]
        assert offsets[0] == start
        assert sum(DTYPE[name].itemsize for name in names) == field.width
        assert field.kind in (Kind.UINT, Kind.BYTES)
        assert all(DTYPE[name] == DTYPE[name].newbyteorder("<") for name in names)
    assert DTYPE.itemsize == ITEM_BYTES == LAYOUT.width == 102


def test_columns_hold_the_values_of_the_records() -> None:
    view = items_view(b"".join(record.data for record in OBLIGATIONS))
    for row, record in zip(view, OBLIGATIONS, strict=True):
        values = record.values()
        amount = int(row["amount_lo"]) + (int(row["amount_hi"]) << 64)
        assert amount == values["amount_units"]
        for name in (
            "version",
            "kind",
            "flags",
            "priority",
            "debtor",
            "creditor",
            "asset",
            "due_ms",
        ):
            assert int(row[name]) == values[name]
        for name in ("trade_ref_hash", "compliance_ref_hash"):
            assert row[name].tobytes() == values[name]
        assert encode_item(**values) == record.data


def test_a_view_cannot_be_written_to() -> None:
    view = items_view(OBLIGATIONS[0].data)
    with pytest.raises(ValueError, match="read-only"):
        view["amount_lo"][0] = 1


@pytest.mark.parametrize("length", [0, 1, ITEM_BYTES - 1, ITEM_BYTES + 1])
def test_records_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(DecodeError):
        items_view(bytes(length))


def test_the_number_of_records_is_limited() -> None:
    assert len(items_view(bytes(ITEM_BYTES * ITEMS_PER_SUBMISSION_MAX))) == 50_000
    with pytest.raises(DecodeError, match="1 to 50000 obligations, got 50001"):
        items_view(bytes(ITEM_BYTES * (ITEMS_PER_SUBMISSION_MAX + 1)))


def test_salts_are_the_key_stream_of_chacha20() -> None:
    assert salts_of(bytes(32), 8).hex() == RFC8439_KEY_STREAM
    assert salts_of(bytes.fromhex(SIGNED["secret"]), 3).hex() == SIGNED["salts"]
    assert salts_of(bytes(32), 0) == b""


@given(st.binary(min_size=32, max_size=32), st.integers(1, 40))
def test_salts_do_not_depend_on_how_many_are_asked_for(secret: bytes, count: int) -> None:
    assert salts_of(secret, count) == salts_of(secret, 41)[: count * SALT_BYTES]


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_secret_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(DecodeError, match="secret is 32 bytes"):
        salts_of(bytes(length), 1)


def test_commitments_are_the_pinned_ones() -> None:
    secret = bytes.fromhex(SIGNED["secret"])
    records = b"".join(map(bytes.fromhex, SIGNED["records"]))
    assert commitments_of(secret, records).hex() == "".join(SIGNED["commitments"])
    assert commitments_of(secret, memoryview(records)) == commitments_of(secret, records)


@given(st.binary(min_size=32, max_size=32), st.integers(1, 20), st.randoms(use_true_random=False))
def test_an_opening_opens_its_own_commitment_and_no_other(secret, count, random) -> None:
    records = random.randbytes(count * ITEM_BYTES)
    commitments = commitments_of(secret, records)
    for item in range(count):
        opening = opening_of(secret, records, item)
        naive = hashlib.sha256(b"\0" + opening).digest()
        places = [at for at in range(count) if commitments[32 * at : 32 * at + 32] == naive]
        assert places == [item]
        assert opening[SALT_BYTES:] == records[item * ITEM_BYTES : (item + 1) * ITEM_BYTES]


def test_two_equal_records_have_different_commitments() -> None:
    commitments = commitments_of(bytes(32), OBLIGATIONS[0].data * 2)
    assert commitments[:32] != commitments[32:]


def test_the_view_shares_the_bytes_it_was_given() -> None:
    data = OBLIGATIONS[0].data
    assert np.shares_memory(items_view(data), np.frombuffer(data, np.uint8))
