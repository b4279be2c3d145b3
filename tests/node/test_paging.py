"""Page tokens come back as they went, and as nothing else."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError
from node.paging import TOKEN_CHARS_MAX, decode_token, encode_token

QUERY = b"clearing.v1.ListX 3 filter"


@given(st.binary(max_size=40), st.binary(min_size=1, max_size=12))
def test_round_trip(query: bytes, key: bytes) -> None:
    token = encode_token(query, key)
    assert decode_token(query, token, len(key)) == key
    assert token.isascii()
    assert len(token) <= TOKEN_CHARS_MAX


def test_no_token_is_the_first_page() -> None:
    assert decode_token(QUERY, "", 12) == b""


def test_no_altered_or_cut_token_passes() -> None:
    token = encode_token(QUERY, b"123456789012")
    for at, was in enumerate(token):
        for char in "A_B=é":
            if char != was:
                with pytest.raises(DecodeError):
                    decode_token(QUERY, token[:at] + char + token[at + 1 :], 12)
        if at:
            with pytest.raises(DecodeError):
                decode_token(QUERY, token[:at], 12)


@pytest.mark.parametrize("key_bytes", [11, 13])
def test_a_key_of_another_width_is_refused(key_bytes: int) -> None:
    with pytest.raises(DecodeError):
        decode_token(QUERY, encode_token(QUERY, b"123456789012"), key_bytes)


def test_a_token_of_another_query_is_refused() -> None:
    with pytest.raises(DecodeError):
        decode_token(QUERY + b"!", encode_token(QUERY, b"123456789012"), 12)


@given(st.text(min_size=1, max_size=300))
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        decode_token(QUERY, text, 12)


@given(st.binary(min_size=1, max_size=400))
def test_any_bytes_in_base64_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_token(QUERY, base64.urlsafe_b64encode(data).decode(), 12)
