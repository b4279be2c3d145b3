"""The small readers: one spelling for each value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError
from clearing.log.text import (
    decode_base64,
    decode_decimal,
    decode_fields,
    decode_hash,
    decode_utf8,
    encode_base64,
    encode_fields,
)


@given(st.binary(max_size=100))
def test_base64_round_trips(data):
    assert decode_base64(encode_base64(data), "value") == data


@given(st.text(alphabet="AQgw=+/-_ \n", max_size=8))
def test_base64_that_is_read_is_written_alike(text):
    try:
        data = decode_base64(text, "value")
    except DecodeError:
        return
    assert encode_base64(data) == text


@pytest.mark.parametrize(
    "text", ["A", "AA", "AAA", "AB==", "AAA=\n", "A-A=", " AAA=", "AA==AAAA", "\u00e9"]
)
def test_base64_has_one_spelling(text):
    with pytest.raises(DecodeError, match="value"):
        decode_base64(text, "value")


@given(st.integers(0, (1 << 64) - 1))
def test_decimals_round_trip(value):
    assert decode_decimal(str(value), "size") == value


@pytest.mark.parametrize(
    "text",
    ["", "00", "01", "-1", "+1", " 1", "1\n", "1_0", "1.0", "\u0661", str(1 << 64), "9" * 5000],
)
def test_decimals_have_one_spelling(text):
    with pytest.raises(DecodeError, match="size"):
        decode_decimal(text, "size")


def test_hashes_are_32_bytes():
    assert decode_hash(encode_base64(bytes(32)), "root") == bytes(32)
    for length in (0, 31, 33):
        with pytest.raises(DecodeError, match="root"):
            decode_hash(encode_base64(bytes(length)), "root")


@pytest.mark.parametrize("data", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80"])
def test_utf8_is_strict(data):
    with pytest.raises(DecodeError, match="note"):
        decode_utf8(data, "note")


def test_heads_of_lines_have_one_spelling():
    head = encode_fields("format@v1", {"one": "1", "two": ""})
    assert head == b"format@v1\none 1\ntwo \n\n"
    names = ("one", "two")
    assert decode_fields(head[:-2], "format@v1", names, "a head") == ["1", ""]
    for wrong in (
        b"",
        b"format@v2\none 1\ntwo ",
        b"format@v1\ntwo \none 1",
        b"format@v1\none 1",
        b"format@v1\none 1\ntwo \nthree 3",
        b"format@v1\none1\ntwo ",
        b"format@v1\none 1\ntwo",
        b"format@v1\none 1\r\ntwo ",
        b"format@v1\none \xff\ntwo ",
    ):
        try:
            found = decode_fields(wrong, "format@v1", names, "a head")
        except DecodeError:
            continue
        # What stands in a value is its reader's to judge.
        assert encode_fields("format@v1", dict(zip(names, found, strict=True)))[:-2] == wrong
    with pytest.raises(DecodeError, match="a head"):
        decode_fields(b"format@v1\none 1", "format@v1", names, "a head")
