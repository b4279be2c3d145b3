"""The records in a proof's extra: one encoding each, and every field that contradicts another is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError
from clearing.records.receipt import (
    ITEM_PATH_HASHES_MAX,
    LOG_PATH_HASHES_MAX,
    POSITION_LAYOUT,
    RECEIPT_LAYOUT,
    REGISTER_PATH_HASHES_MAX,
    Opened,
    PositionRecord,
    ReceiptRecord,
    RecordKind,
    record_kind,
)

HASHES = st.binary(min_size=32, max_size=32)
U32 = st.integers(0, (1 << 32) - 1)


def paths(hashes_max: int) -> st.SearchStrategy[tuple[bytes, ...]]:
    return st.lists(HASHES, max_size=hashes_max).map(tuple)


@st.composite
def receipts(draw: st.DrawFn) -> ReceiptRecord:
    opened = draw(st.sampled_from(Opened))
    opening = b"" if opened is Opened.NOTHING else draw(st.binary(min_size=1, max_size=300))
    is_item = opened is Opened.ITEM
    return ReceiptRecord(
        draw(HASHES),
        draw(st.binary(max_size=300)),
        draw(paths(LOG_PATH_HASHES_MAX)),
        opened,
        opening,
        draw(U32) if is_item else 0,
        draw(paths(ITEM_PATH_HASHES_MAX)) if is_item else (),
    )


@st.composite
def positions(draw: st.DrawFn) -> PositionRecord:
    has_positions = draw(st.booleans())
    return PositionRecord(
        draw(HASHES),
        draw(st.binary(max_size=300)),
        draw(paths(LOG_PATH_HASHES_MAX)),
        draw(U32),
        draw(st.integers(0, (1 << 16) - 1)),
        draw(st.binary(max_size=300)) if has_positions else b"",
        has_positions,
        draw(paths(REGISTER_PATH_HASHES_MAX)) if has_positions else (),
        draw(paths(REGISTER_PATH_HASHES_MAX)),
    )


@given(receipts())
def test_receipt_round_trip(record: ReceiptRecord) -> None:
    data = record.encode()
    assert ReceiptRecord.decode(data) == record
    assert record_kind(data) is RecordKind.RECEIPT
    with pytest.raises(DecodeError):
        PositionRecord.decode(data)


@given(positions())
def test_position_round_trip(record: PositionRecord) -> None:
    data = record.encode()
    assert PositionRecord.decode(data) == record
    assert record_kind(data) is RecordKind.POSITION
    with pytest.raises(DecodeError):
        ReceiptRecord.decode(data)


@given(st.binary(max_size=400), st.sampled_from([ReceiptRecord, PositionRecord]))
def test_whatever_decodes_encodes_to_the_same_bytes(
    data: bytes, kind: type[ReceiptRecord | PositionRecord]
) -> None:
    start = bytes([1, RecordKind.RECEIPT if kind is ReceiptRecord else RecordKind.POSITION])
    try:
        record = kind.decode(start + data)
    except DecodeError:
        return
    assert record.encode() == start + data


def head(**changes: int | bytes) -> bytes:
    values: dict[str, int | bytes] = {
        "version": 1, "kind": 1, "opened": 0, "genesis_path_hashes": 0, "item_path_hashes": 0,
        "leaf_bytes": 0, "opening_bytes": 0, "item": 0, "network_id": bytes(32),
    }  # fmt: skip
    return RECEIPT_LAYOUT.encode(**(values | changes))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        head(version=2),
        head(kind=2),
        head(opened=3),
        head(item=1),
        head(item_path_hashes=1) + bytes(32),
        head(opened=1),
        head(opening_bytes=1) + b"x",
        head(opened=2, opening_bytes=1, item=1) + b"x",
        head(genesis_path_hashes=65) + bytes(65 * 32),
        head(opened=1, opening_bytes=1, item_path_hashes=17) + b"x" + bytes(17 * 32),
        head(leaf_bytes=65_536) + bytes(65_536),
        head(opened=2, opening_bytes=40_000) + bytes(40_000),
        head(genesis_path_hashes=1) + bytes(31),
        head() + b"\0",
    ],
)
def test_receipts_that_contradict_themselves_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        ReceiptRecord.decode(data)


def position_head(**changes: int | bytes) -> bytes:
    values: dict[str, int | bytes] = {
        "version": 1, "kind": 2, "has_positions": 0, "genesis_path_hashes": 0,
        "inner_path_hashes": 0, "outer_path_hashes": 0, "asset": 0, "participant": 0,
        "leaf_bytes": 0, "position_bytes": 0, "network_id": bytes(32),
    }  # fmt: skip
    return POSITION_LAYOUT.encode(**(values | changes))


@pytest.mark.parametrize(
    "data",
    [
        position_head(has_positions=2),
        position_head(position_bytes=1) + b"x",
        position_head(inner_path_hashes=1) + bytes(32),
        position_head(outer_path_hashes=33) + bytes(33 * 32),
        position_head(leaf_bytes=65_536) + bytes(65_536),
        position_head() + b"\0",
    ],
)
def test_positions_that_contradict_themselves_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        PositionRecord.decode(data)


def test_hashes_have_32_bytes() -> None:
    with pytest.raises(DecodeError):
        ReceiptRecord(bytes(32), b"", (b"short",))
    with pytest.raises(DecodeError):
        PositionRecord(bytes(32), b"", (), 0, 0, b"", False, (), (b"short",))


@pytest.mark.parametrize("data", [b"\x01", b"\x02\x01", b"\x01\x03"])
def test_other_bytes_are_no_record(data: bytes) -> None:
    with pytest.raises(DecodeError):
        record_kind(data)
