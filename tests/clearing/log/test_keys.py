"""Verifier keys: published ones, refused ones, and names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError
from clearing.log.keys import SignatureType, VerifierKey, check_key_name
from tests.clearing.log.support import GOLDEN, VECTORS, log_signer, witness_signer


@pytest.mark.parametrize(
    "case", VECTORS["vkeys"], ids=lambda case: f"{case['vkey'][:30]} {case['why'][:40]}"
)
def test_vkey_vector(case):
    if case["valid"]:
        assert VerifierKey.parse(case["vkey"]).vkey == case["vkey"]
    else:
        with pytest.raises(DecodeError):
            VerifierKey.parse(case["vkey"])


def test_golden_keys_come_from_their_seeds():
    assert log_signer().key.vkey == GOLDEN["log_vkey"]
    assert witness_signer().key.vkey == GOLDEN["witness_vkey"]


@given(st.sampled_from(list(SignatureType)), st.data())
def test_vkeys_round_trip_and_tell_types_apart(key_type, data):
    name = data.draw(
        st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=20)
    )
    length = 1312 if key_type is SignatureType.COSIGNATURE_ML_DSA_44 else 32
    public_key = data.draw(st.binary(min_size=length, max_size=length))
    key = VerifierKey(name, key_type, public_key)
    assert VerifierKey.parse(key.vkey) == key
    if length == 32:
        others = {VerifierKey(name, other, public_key).key_id for other in (1, 4)}
        assert len(others) == 2


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "a+b",
        "a\tb",
        "a\nb",
        "\x00",
        "a\u00a0b",
        "\u2003",
        "\u3000a",
        "a\u0085",
        "\u2028",
        "\ud800",
    ],
)
def test_names_that_could_break_a_line_are_refused(name):
    with pytest.raises(DecodeError):
        check_key_name(name)


@pytest.mark.parametrize("name", ["example.com/log", "\u00e8-\u4e2d", "oid/1.3.6.1", "a\u200bb"])
def test_other_names_are_allowed(name):
    check_key_name(name)


@pytest.mark.parametrize("length", [0, 31, 33, 1312])
def test_keys_of_another_length_are_refused(length):
    with pytest.raises(DecodeError):
        VerifierKey("a", SignatureType.ED25519, bytes(length))
