"""Cosignatures of both types: published lines, our own, and mutations."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearing.errors import DecodeError, VerificationError
from clearing.log.checkpoint import Checkpoint
from clearing.log.cosignature import encode_blob, signed_message, split_blob, verify_blob
from clearing.log.keys import SignatureType, VerifierKey
from clearing.log.note import Note, Signature
from tests.clearing.log.support import (
    VECTORS,
    log_signer,
    pq_witness_signer,
    unb64,
    witness_signer,
)

TEXT = Checkpoint("ledger.example/clearing", 3, bytes(range(32))).text
SIGNERS = [log_signer(), witness_signer(), pq_witness_signer(1)]


def blob_of(signer, timestamp_s: int | None) -> bytes:
    message = signed_message(signer.key, TEXT, timestamp_s)
    return encode_blob(signer.key, signer.sign(message), timestamp_s)


@pytest.mark.parametrize("case", VECTORS["cosignatures"], ids=lambda case: case["desc"])
def test_cosignature_vector(case):
    note = Note(case["body"], (Signature.parse(case["line"]),))
    key = VerifierKey.parse(case["vkey"])
    assert key.type == case["type"]
    if case["valid"]:
        (verified,) = note.verified_by([key])
        assert verified.timestamp_s == case["timestamp"]
        assert verified.key == key
    else:
        with pytest.raises(VerificationError):
            note.verified_by([key])


@pytest.mark.parametrize("case", VECTORS["cosignature_parse"], ids=lambda case: case["desc"])
def test_cosignature_parse_vector(case):
    if "line" in case:
        signature = Signature.parse(case["line"])
        assert signature.line == case["line"]
        key_id, blob = signature.key_id, signature.blob
    else:
        data = unb64(case["line_b64"])
        key_id, blob = data[:4], data[4:]
    assert key_id.hex() == case["key_id"]
    timestamp_s, signature_bytes = split_blob(SignatureType.COSIGNATURE_ED25519, blob)
    assert timestamp_s == case["timestamp"]
    assert len(signature_bytes) == 64


def test_the_signed_messages_are_those_of_the_specification():
    time_s = 1679315147
    root = unb64("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")
    text = Checkpoint("example.com/behind-the-sofa", 20852163, root).text
    ed25519 = signed_message(witness_signer().key, text, time_s)
    assert ed25519 == (
        b"cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\n"
        b"CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    )
    assert signed_message(log_signer().key, text, None) == text.encode()
    ml_dsa = signed_message(pq_witness_signer(1).key, text, time_s)
    assert ml_dsa == (
        b"subtree/v1\n\x00"
        b"\x13witness.example/pq1"
        + time_s.to_bytes(8, "big")
        + b"\x1bexample.com/behind-the-sofa"
        + (0).to_bytes(8, "big")
        + (20852163).to_bytes(8, "big")
        + root
    )


@settings(max_examples=30)
@given(st.sampled_from(SIGNERS[1:]), st.integers(0, (1 << 63) - 1))
def test_cosignatures_carry_their_time(signer, timestamp_s):
    blob = blob_of(signer, timestamp_s)
    verify_blob(signer.key, TEXT, blob)
    assert split_blob(signer.key.type, blob)[0] == timestamp_s
    other = timestamp_s ^ 1
    with pytest.raises(VerificationError):
        verify_blob(signer.key, TEXT, other.to_bytes(8, "big") + blob[8:])


@settings(max_examples=60)
@given(st.sampled_from(SIGNERS), st.data())
def test_signatures_reject_every_flipped_bit(signer, data):
    blob = blob_of(signer, None if signer is SIGNERS[0] else 1700000000)
    bit = data.draw(st.integers(0, 8 * len(blob) - 1))
    changed = (int.from_bytes(blob, "big") ^ (1 << bit)).to_bytes(len(blob), "big")
    with pytest.raises(VerificationError):
        verify_blob(signer.key, TEXT, changed)


@pytest.mark.parametrize("signer", SIGNERS, ids=lambda signer: signer.key.name)
def test_signatures_reject_other_lengths_texts_and_keys(signer):
    blob = blob_of(signer, None if signer is SIGNERS[0] else 1700000000)
    for changed in (b"", blob[:-1], blob + b"\0", blob[8:], bytes(8) + blob):
        with pytest.raises(VerificationError):
            verify_blob(signer.key, TEXT, changed)
    for text in (TEXT.replace("\n3\n", "\n4\n"), TEXT.replace("ledger", "Ledger")):
        with pytest.raises(VerificationError):
            verify_blob(signer.key, text, blob)
    stranger = VerifierKey(signer.key.name, signer.key.type, bytes(len(signer.key.public_key)))
    with pytest.raises(VerificationError):
        verify_blob(stranger, TEXT, blob)


def test_only_ml_dsa_leaves_extension_lines_unsigned_and_commits_to_the_name():
    extended = TEXT + "extension\n"
    ed25519, ml_dsa = SIGNERS[1], SIGNERS[2]
    with pytest.raises(VerificationError):
        verify_blob(ed25519.key, extended, blob_of(ed25519, 5))
    verify_blob(ml_dsa.key, extended, blob_of(ml_dsa, 5))
    renamed = [
        VerifierKey("other", signer.key.type, signer.key.public_key) for signer in SIGNERS[1:]
    ]
    verify_blob(renamed[0], TEXT, blob_of(ed25519, 5))
    with pytest.raises(VerificationError):
        verify_blob(renamed[1], TEXT, blob_of(ml_dsa, 5))


@pytest.mark.parametrize("key", [bytes(32), b"\xff" * 32, bytes([1]) + bytes(31)])
def test_degenerate_public_keys_verify_nothing_of_ours(key):
    weak = VerifierKey("ledger.example/clearing", SignatureType.ED25519, key)
    with pytest.raises(VerificationError):
        verify_blob(weak, TEXT, blob_of(SIGNERS[0], None))


def test_a_cosignature_stands_only_under_a_checkpoint():
    for signer in SIGNERS[1:]:
        with pytest.raises(DecodeError):
            signed_message(signer.key, "no checkpoint\n", 5)
        with pytest.raises(VerificationError):
            verify_blob(signer.key, "no checkpoint\n", blob_of(signer, 5))


@pytest.mark.parametrize("timestamp_s", [None, -1, 1 << 63])
def test_a_cosignature_has_a_time_in_range(timestamp_s):
    with pytest.raises(DecodeError):
        signed_message(SIGNERS[1].key, TEXT, timestamp_s)
    if timestamp_s is not None and timestamp_s > 0:
        blob = timestamp_s.to_bytes(8, "big") + bytes(64)
        with pytest.raises(DecodeError):
            split_blob(SignatureType.COSIGNATURE_ED25519, blob)
        with pytest.raises(VerificationError):
            verify_blob(SIGNERS[1].key, TEXT, blob)


def test_a_log_signature_has_no_time():
    with pytest.raises(DecodeError):
        signed_message(SIGNERS[0].key, TEXT, 5)


def test_a_signature_of_another_length_is_not_encoded():
    with pytest.raises(DecodeError):
        encode_blob(SIGNERS[0].key, bytes(63), None)


@pytest.mark.parametrize("origin", ["x" * 256, "\u4e2d" * 86])
def test_ml_dsa_cannot_sign_names_longer_than_255_bytes(origin):
    text = Checkpoint(origin, 0, bytes(32)).text
    with pytest.raises(DecodeError):
        signed_message(SIGNERS[2].key, text, 5)
