"""Layouts: one encoding a value, and decoding accepts nothing else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.codec import Kind, Layout, raw, reserved, sint, split_records, text, uint
from clearing.errors import DecodeError, InvariantViolation

EXAMPLE = Layout(
    "example", uint("count", 2), reserved(3), sint("net", 4), raw("hash", 2), text("name", 6)
)
VALUES = {"count": 0x0102, "net": -2, "hash": b"\xaa\xbb", "name": "ab"}
ENCODED = bytes.fromhex("0201 000000 feffffff aabb 616200000000")


def _naive_encode(layout: Layout, values: dict[str, object]) -> bytes:
    """Encode field by field with nothing but shifts: what the README's table says, read by hand."""
    out = []
    for field in layout.fields:
        value = values.get(field.name)
        if field.kind in (Kind.UINT, Kind.INT):
            number = value % (1 << 8 * field.width)
            out += [(number >> 8 * i) & 0xFF for i in range(field.width)]
        elif field.kind is Kind.TEXT:
            out += list(value.encode()) + [0] * (field.width - len(value.encode()))
        else:
            out += list(value) if field.kind is Kind.BYTES else [0] * field.width
    return bytes(out)


@st.composite
def _layout_and_values(draw: st.DrawFn) -> tuple[Layout, dict[str, object]]:
    fields, values = [], {}
    for number in range(draw(st.integers(1, 6))):
        kind, width, name = draw(st.sampled_from(Kind)), draw(st.integers(1, 24)), f"f{number}"
        if kind is Kind.UINT:
            fields.append(uint(name, width))
            values[name] = draw(st.integers(0, (1 << 8 * width) - 1))
        elif kind is Kind.INT:
            fields.append(sint(name, width))
            values[name] = draw(st.integers(-(1 << 8 * width - 1), (1 << 8 * width - 1) - 1))
        elif kind is Kind.BYTES:
            fields.append(raw(name, width))
            values[name] = draw(st.binary(min_size=width, max_size=width))
        elif kind is Kind.TEXT:
            fields.append(text(name, width))
            characters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
            drawn = draw(st.text(characters, max_size=width))
            while len(drawn.encode()) > width:
                drawn = drawn[:-1]
            values[name] = drawn
        else:
            fields.append(reserved(width))
    return Layout("drawn", *fields), values


def test_the_example_has_these_bytes() -> None:
    assert EXAMPLE.width == 17
    assert EXAMPLE.encode(**VALUES) == ENCODED
    assert EXAMPLE.decode(ENCODED) == VALUES
    assert [start for _, start in EXAMPLE.offsets()] == [0, 2, 5, 9, 11]


@given(_layout_and_values())
def test_a_value_has_the_bytes_its_table_says_and_comes_back(
    drawn: tuple[Layout, dict[str, object]],
) -> None:
    layout, values = drawn
    data = layout.encode(**values)
    assert data == _naive_encode(layout, values)
    assert len(data) == layout.width
    assert layout.decode(data) == values


@given(_layout_and_values(), st.data())
def test_bytes_that_decode_are_the_bytes_that_their_values_encode_to(
    drawn: tuple[Layout, dict[str, object]], data: st.DataObject
) -> None:
    layout, _ = drawn
    arbitrary = data.draw(st.binary(min_size=layout.width, max_size=layout.width))
    try:
        values = layout.decode(arbitrary)
    except DecodeError:
        return
    assert layout.encode(**values) == arbitrary


@pytest.mark.parametrize("length", [0, 1, 16, 18, 34])
def test_any_other_length_is_refused(length: int) -> None:
    with pytest.raises(DecodeError, match=f"example is 17 bytes, got {length}"):
        EXAMPLE.decode((ENCODED * 2)[:length])


@pytest.mark.parametrize(
    ("offset", "value", "why"),
    [
        (2, 1, "reserved bytes are not zero"),
        (4, 0x80, "reserved bytes are not zero"),
        (11, 0, "name holds a zero character"),
        (16, 0x62, "name holds a zero character"),
        (11, 0xFF, "name is not UTF-8"),
        (12, 0xC3, "name is not UTF-8"),
    ],
)
def test_bytes_that_no_value_has_are_refused(offset: int, value: int, why: str) -> None:
    changed = bytearray(ENCODED)
    changed[offset] = value
    with pytest.raises(DecodeError, match=why):
        EXAMPLE.decode(bytes(changed))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"count": 1 << 16}, "count = 65536 does not fit 2 bytes"),
        ({"count": -1}, "count = -1 does not fit 2 bytes"),
        ({"net": 1 << 31}, "net = 2147483648 does not fit 4 bytes"),
        ({"net": -(1 << 31) - 1}, "net = -2147483649 does not fit 4 bytes"),
        ({"count": 1.5}, "count must be an integer, got 1.5"),
        ({"count": "7"}, "count must be an integer, got '7'"),
        ({"hash": "aa"}, "hash must be 2 bytes, got 'aa'"),
        ({"hash": [1, 2]}, "hash must be 2 bytes, got [1, 2]"),
        ({"hash": b"\xaa"}, "hash must be 2 bytes, got 1"),
        ({"hash": b"\xaa" * 3}, "hash must be 2 bytes, got 3"),
        ({"name": "seven 7"}, "name must be at most 6 bytes of UTF-8"),
        ({"name": "ééé!"}, "name must be at most 6 bytes of UTF-8"),
        ({"name": "a\0b"}, "without zero characters"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(change: dict[str, object], why: str) -> None:
    with pytest.raises(DecodeError, match=re.escape(why)):
        EXAMPLE.encode(**VALUES | change)


def test_a_missing_or_unknown_field_is_our_own_defect() -> None:
    with pytest.raises(InvariantViolation, match=r"example\.count is missing"):
        EXAMPLE.encode(**{name: value for name, value in VALUES.items() if name != "count"})
    with pytest.raises(InvariantViolation, match=re.escape("has no fields ['other']")):
        EXAMPLE.encode(**VALUES, other=1)


def test_a_layout_names_each_field_once() -> None:
    with pytest.raises(InvariantViolation, match="names a field twice"):
        Layout("twice", uint("a", 1), uint("a", 2))
    assert Layout("gaps", reserved(1), uint("a", 1), reserved(2)).width == 4


def test_records_are_split_at_their_width() -> None:
    assert split_records(b"aabbcc", 2, 3, "pairs") == [b"aa", b"bb", b"cc"]
    assert split_records(b"", 2, 0, "pairs") == []
    for data, count in ((b"aabbc", 3), (b"aabbcc", 2), (b"", 1), (b"a", 0)):
        with pytest.raises(DecodeError, match=f"{count} pairs take {2 * count} bytes"):
            split_records(data, 2, count, "pairs")
