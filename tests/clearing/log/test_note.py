"""Signed notes: published ones, round trips, and the rules of verification."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearing.errors import DecodeError, InvariantViolation, VerificationError
from clearing.log.checkpoint import Checkpoint
from clearing.log.keys import VerifierKey
from clearing.log.note import SIGNATURES_MAX, Note, Signature, sign
from tests.clearing.log.support import (
    GOLDEN,
    VECTORS,
    log_signer,
    pq_witness_signer,
    unb64,
    witness_signer,
)

TEXT = "This is an example message.\n"
LOG = log_signer()

NAMES = st.text(
    st.characters(codec="utf-8", categories=["L", "N", "Po", "So"]), min_size=1, max_size=12
).filter(lambda name: "+" not in name)
SIGNATURES = st.builds(
    Signature, NAMES, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=80)
)
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]) | st.just("\n"), max_size=60
).map(lambda text: text + "\n")


def note_bytes(case: dict[str, str]) -> bytes:
    return case["text"].encode() if case.get("text") is not None else unb64(case["text_b64"])


@pytest.mark.parametrize("case", VECTORS["notes"], ids=lambda case: case["desc"])
def test_note_vector(case):
    vkeys = [case["vkey"]] if case.get("vkey") else case["vkeys"]
    keys = [VerifierKey.parse(vkey) for vkey in vkeys]
    data = note_bytes(case)
    if case["error"] == "malformed":
        with pytest.raises(DecodeError):
            Note.parse(data)
        return
    note = Note.parse(data)
    assert note.encode() == data
    if case["valid"]:
        assert {verified.key for verified in note.verified_by(keys)} <= set(keys)
    else:
        reason = {"invalid_signature": "signature of", "no_known_key": "no signature of a known"}
        with pytest.raises(VerificationError, match=reason[case["error"]]):
            note.verified_by(keys)


@pytest.mark.parametrize("case", VECTORS["note_split"], ids=lambda case: case["desc"])
def test_note_split_vector(case):
    note = Note.parse(note_bytes(case))
    assert note.text == case["note_text"]
    assert [signature.name for signature in note.signatures] == case["signers"]
    assert [signature.key_id.hex() for signature in note.signatures] == case["key_ids"]


def test_the_golden_note_is_signed_byte_for_byte():
    text = GOLDEN["note"].rpartition("\n\n")[0] + "\n"
    witness = witness_signer()
    note = Note(text, (sign(text, LOG), sign(text, witness, GOLDEN["timestamp_s"])))
    assert note.encode().decode() == GOLDEN["note"]
    first, second = Note.parse(note.encode()).verified_by([witness.key, LOG.key])
    assert (first.key, first.timestamp_s) == (LOG.key, None)
    assert (second.key, second.timestamp_s) == (witness.key, GOLDEN["timestamp_s"])


@given(TEXTS, st.lists(SIGNATURES, min_size=1, max_size=5))
def test_notes_round_trip(text, signatures):
    note = Note(text, tuple(signatures))
    assert Note.parse(note.encode()) == note


@given(st.data())
def test_what_is_read_is_written_alike(data):
    good = GOLDEN["note"].encode()
    at = data.draw(st.integers(0, len(good)))
    width = data.draw(st.integers(0, 3))
    inserted = data.draw(
        st.sampled_from([b"", b"\n", b" ", b"\xe2\x80\x94 ", b"A", b"=", b"\n\n", b"\r", b"\xff"])
    )
    changed = good[:at] + inserted + good[at + width :]
    try:
        note = Note.parse(changed)
    except DecodeError:
        return
    assert note.encode() == changed


@settings(max_examples=200)
@given(st.integers(0, len(GOLDEN["note"].encode()) * 8 - 1))
def test_no_flipped_bit_of_a_note_passes_unseen(bit):
    good = GOLDEN["note"].encode()
    changed = (int.from_bytes(good, "big") ^ (1 << bit)).to_bytes(len(good), "big")
    keys = [LOG.key, witness_signer().key]
    with pytest.raises((DecodeError, VerificationError)):  # noqa: PT012 - either step may refuse
        verified = Note.parse(changed).verified_by(keys)
        if len(verified) < 2:  # a line made unknown is ignored: a quorum of both still refuses
            raise VerificationError("a signature is missing")


def test_unknown_keys_are_ignored_even_when_they_share_name_or_id():
    good = sign(TEXT, LOG)
    same_name = Signature(good.name, b"\0\0\0\0", b"x")
    same_id = Signature("other", good.key_id, b"x")
    note = Note(TEXT, (same_name, same_id, good))
    assert [verified.key for verified in note.verified_by([LOG.key])] == [LOG.key]
    with pytest.raises(VerificationError, match="no signature of a known key"):
        Note(TEXT, (same_name, same_id)).verified_by([LOG.key])
    with pytest.raises(VerificationError, match="no signature of a known key"):
        note.verified_by([])


def test_one_bad_signature_of_a_known_key_rejects_the_note():
    good = sign(TEXT, LOG)
    bad = Signature(good.name, good.key_id, bytes(64))
    for signatures in ((good, bad), (bad, good)):
        with pytest.raises(VerificationError, match="does not verify"):
            Note(TEXT, signatures).verified_by([LOG.key])


def test_two_known_keys_of_one_name_and_id_are_refused():
    class Colliding(VerifierKey):
        """A key whose 4-byte id collides with the log's, as an attacker could make one."""

        __slots__ = ()

        def __post_init__(self) -> None:
            object.__setattr__(self, "key_id", LOG.key.key_id)

    collision = Colliding(LOG.key.name, LOG.key.type, bytes(32))
    with pytest.raises(VerificationError, match="two different keys"):
        Note(TEXT, (sign(TEXT, LOG),)).verified_by([LOG.key, collision])


def test_a_key_may_cosign_twice_and_both_are_reported():
    text = Checkpoint("ledger.example/clearing", 0, bytes(32)).text
    for signer in (witness_signer(), pq_witness_signer(1)):
        note = Note(text, (sign(text, signer, 7), sign(text, signer, 5)))
        assert [verified.timestamp_s for verified in note.verified_by([signer.key])] == [7, 5]


def test_a_note_takes_100_signatures_and_no_more():
    signature = sign(TEXT, LOG)
    note = Note(TEXT, (signature,) * SIGNATURES_MAX)
    assert Note.parse(note.encode()) == note
    with pytest.raises(DecodeError):
        note.with_signatures(signature)
    with pytest.raises(DecodeError):
        Note.parse(note.encode() + signature.line.encode() + b"\n")


def test_signatures_are_added_at_the_end():
    first, second = sign(TEXT, LOG), Signature("other", b"1234", b"x")
    assert Note(TEXT, (first,)).with_signatures(second).signatures == (first, second)


def test_a_note_without_signatures_has_no_bytes():
    with pytest.raises(DecodeError):
        Note(TEXT).encode()


@pytest.mark.parametrize("text", ["", "no newline", "a\tb\n", "a\x00b\n", "\ud800\n", "a\r\n"])
def test_texts_that_no_note_carries_are_refused(text):
    with pytest.raises(DecodeError):
        Note(text)


def test_a_note_longer_than_a_megabyte_is_refused():
    text = "x" * 999_999 + "\n"
    with pytest.raises(DecodeError, match="longer"):
        Note.parse(text.encode() + b"\n")
    with pytest.raises(DecodeError, match="longer"):
        Note(text, (sign(text, LOG),)).encode()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "\u2014",
        "\u2014 ",
        "\u2014 name",
        "\u2014 name ",
        "\u2014 name AAAA",
        "\u2014 name AAAAAA==",
        "\u2014 name AAAAAAAA ",
        "\u2014  name AAAAAAAA",
        "\u2014 na me AAAAAAAA",
        "\u2014 na+me AAAAAAAA",
        "- name AAAAAAAA",
        "\u2014 name AAAAAAA",
        "\u2014 name AAAAAAB=",
        "\u2014\u00a0name AAAAAAAA",
    ],
)
def test_lines_that_are_no_signature_are_refused(line):
    with pytest.raises(DecodeError):
        Signature.parse(line)


def test_a_signer_that_returns_rubbish_is_our_own_defect():
    class Broken:
        key = LOG.key

        def sign(self, message: bytes) -> bytes:
            return bytes(64)

    with pytest.raises(InvariantViolation):
        sign(TEXT, Broken())
