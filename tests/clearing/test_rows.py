"""Keys of the tables: byte order is numeric order, and no two things share a key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.memory import MemoryRows
from clearing.rows import (
    NoRows,
    Row,
    Table,
    key_party,
    key_position,
    key_request,
    key_result,
    key_u32,
    key_u64,
)

U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))


def test_keys_have_these_bytes() -> None:
    assert key_u32(1, 0x01020304).hex() == "0000000101020304"
    assert key_u64(0x0102).hex() == "0000000000000102"
    assert key_position(1, 2).hex() == "000000010002"
    assert key_party(1, 2).hex() == "000000010000000000000002"
    assert key_request(3, b"\xaa" * 16).hex() == "00000003" + "aa" * 16
    assert key_result(4, 5).hex() == "000000040005"


@given(st.lists(st.tuples(U32, U16)), st.lists(st.tuples(U32, U64)), st.lists(U64))
def test_byte_order_of_keys_is_numeric_order(
    pairs: list[tuple[int, int]], parties: list[tuple[int, int]], indexes: list[int]
) -> None:
    assert sorted(key_position(*pair) for pair in pairs) == [
        key_position(*p) for p in sorted(pairs)
    ]
    assert sorted(key_result(*pair) for pair in pairs) == [key_result(*p) for p in sorted(pairs)]
    assert sorted(key_party(*pair) for pair in parties) == [key_party(*p) for p in sorted(parties)]
    assert sorted(map(key_u64, indexes)) == list(map(key_u64, sorted(indexes)))


def test_a_number_that_does_not_fit_its_key_is_refused() -> None:
    for make in (
        lambda: key_u32(1 << 32),
        lambda: key_u64(1 << 64),
        lambda: key_position(0, 1 << 16),
        lambda: key_position(-1, 0),
    ):
        with pytest.raises(OverflowError):
            make()


def test_the_empty_store_has_nothing() -> None:
    rows = NoRows()
    assert rows.get(Table.META, b"head") is None
    assert list(rows.scan(Table.POSITIONS)) == []
    assert rows.body(0) is None
    with pytest.raises(KeyError):
        rows.leaf(0)


@given(
    st.lists(st.tuples(st.binary(max_size=3), st.one_of(st.none(), st.binary(max_size=2)))),
    st.binary(max_size=2),
    st.binary(max_size=3),
)
def test_rows_in_memory_read_like_a_sorted_dictionary(
    writes: list[tuple[bytes, bytes | None]], prefix: bytes, start: bytes
) -> None:
    rows, naive = MemoryRows(), dict(writes)
    rows.apply_rows(Row(Table.OPEN, key, value) for key, value in writes)
    kept = sorted((key, value) for key, value in naive.items() if value is not None)
    assert list(rows.scan(Table.OPEN)) == kept
    assert list(rows.scan(Table.OPEN, prefix, start)) == [
        (key, value) for key, value in kept if key.startswith(prefix) and key >= start
    ]
    assert rows.count(Table.OPEN) == len(kept)
    assert rows.count(Table.PARTIES) == 0
    assert {key: rows.get(Table.OPEN, key) for key in naive} == naive
