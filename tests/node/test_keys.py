"""Sealed keys open with their secret alone, show nothing, and every altered byte is found."""

from __future__ import annotations

import copy
import json
import os
import pickle
import traceback
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from clearing.errors import DecodeError
from clearing.log.note import Note, sign
from node.errors import SetupError
from node.keys import (
    CosignerSigner,
    KeyFile,
    LogSigner,
    Passphrase,
    SigningKey,
    create_key_file,
)

PASSPHRASE = Passphrase("correct horse battery")
COST = 4
"""scrypt's cost in tests: 16 rounds, so that thousands of openings take seconds."""


@pytest.fixture
def key_file(tmp_path: Path) -> KeyFile:
    return create_key_file(tmp_path / "unseal.key")


def test_rfc_8032_vectors() -> None:
    """Source: RFC 8032 section 7.1, TEST 1 and TEST 2."""
    key = SigningKey.from_seed(
        bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    )
    assert (
        key.public_key.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    )
    assert key.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    key = SigningKey.from_seed(
        bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    )
    assert key.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_seed_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(SetupError, match="32 bytes"):
        SigningKey.from_seed(bytes(length))


def test_created_key_is_loaded_by_its_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    created = SigningKey.create(path, PASSPHRASE)
    loaded = SigningKey.load(path, PASSPHRASE)
    assert loaded.public_key == created.public_key
    Ed25519PublicKey.from_public_bytes(created.public_key).verify(loaded.sign(b"m"), b"m")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size == 124


def test_created_key_is_loaded_by_its_key_file(tmp_path: Path, key_file: KeyFile) -> None:
    created = SigningKey.create(tmp_path / "signing.key", key_file)
    assert SigningKey.load(tmp_path / "signing.key", key_file).public_key == created.public_key


def test_two_keys_differ_in_every_random_part(tmp_path: Path, key_file: KeyFile) -> None:
    SigningKey.create(tmp_path / "a", key_file)
    SigningKey.create(tmp_path / "b", key_file)
    a, b = (tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()
    for start, end in ((16, 32), (32, 44), (44, 76), (76, 124)):
        assert a[start:end] != b[start:end]


def test_existing_key_is_never_overwritten(tmp_path: Path, key_file: KeyFile) -> None:
    path = tmp_path / "signing.key"
    first = SigningKey.create(path, key_file)
    with pytest.raises(SetupError, match="not overwritten"):
        SigningKey.create(path, key_file)
    with pytest.raises(SetupError, match="not overwritten"):
        create_key_file(key_file.path)
    assert SigningKey.load(path, key_file).public_key == first.public_key


def test_wrong_secret_is_refused(tmp_path: Path, key_file: KeyFile) -> None:
    by_passphrase, by_file = tmp_path / "a", tmp_path / "b"
    SigningKey.create(by_passphrase, PASSPHRASE, scrypt_log2_n=COST)
    SigningKey.create(by_file, key_file)
    with pytest.raises(SetupError, match="passphrase is not the one"):
        SigningKey.load(by_passphrase, Passphrase("correct horse batterY"))
    with pytest.raises(SetupError, match="key file is not the one"):
        SigningKey.load(by_file, create_key_file(tmp_path / "other"))
    with pytest.raises(SetupError, match="sealed by a passphrase"):
        SigningKey.load(by_passphrase, key_file)
    with pytest.raises(SetupError, match="sealed by a key file"):
        SigningKey.load(by_file, PASSPHRASE)


def test_one_passphrase_in_two_unicode_spellings_opens(tmp_path: Path) -> None:
    composed, decomposed = Passphrase("Zürich-Genève"), Passphrase("Zu\u0308rich-Gene\u0300ve")
    created = SigningKey.create(tmp_path / "k", composed, scrypt_log2_n=COST)
    assert SigningKey.load(tmp_path / "k", decomposed).public_key == created.public_key


def test_passphrase_of_undecodable_terminal_input_is_used(tmp_path: Path) -> None:
    odd = Passphrase("\udcff" * 12)
    created = SigningKey.create(tmp_path / "k", odd, scrypt_log2_n=COST)
    assert SigningKey.load(tmp_path / "k", odd).public_key == created.public_key


def test_short_passphrase_makes_no_key(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="at least 12 characters"):
        SigningKey.create(tmp_path / "k", Passphrase("short"))
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize("length", [0, 31, 33])
def test_unfit_key_file_makes_no_key(tmp_path: Path, length: int) -> None:
    path = tmp_path / "unseal.key"
    path.write_bytes(bytes(length))
    path.chmod(0o600)
    with pytest.raises(SetupError, match="must be 32"):
        SigningKey.create(tmp_path / "k", KeyFile(path))
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize("which", ["signing.key", "unseal.key"])
def test_key_readable_to_others_is_refused_by_name(
    tmp_path: Path, key_file: KeyFile, which: str
) -> None:
    SigningKey.create(tmp_path / "signing.key", key_file)
    (tmp_path / which).chmod(0o640)
    with pytest.raises(SetupError, match=rf"{which} has mode 0640"):
        SigningKey.load(tmp_path / "signing.key", key_file)


@pytest.mark.parametrize("kind", ["passphrase", "key file"])
def test_every_altered_byte_is_found(tmp_path: Path, key_file: KeyFile, kind: str) -> None:
    secret = PASSPHRASE if kind == "passphrase" else key_file
    path = tmp_path / "signing.key"
    SigningKey.create(path, secret, scrypt_log2_n=COST)
    good = path.read_bytes()
    for position in range(len(good)):
        for change in (0x01, 0x80):
            bad = bytearray(good)
            bad[position] ^= change
            path.write_bytes(bad)
            with pytest.raises(SetupError, match=r"signing\.key"):
                SigningKey.load(path, secret)
    path.write_bytes(good)
    SigningKey.load(path, secret)


def test_every_truncation_and_any_tail_is_found(tmp_path: Path, key_file: KeyFile) -> None:
    path = tmp_path / "signing.key"
    SigningKey.create(path, key_file)
    good = path.read_bytes()
    for bad in [good[:length] for length in range(len(good))] + [good + b"\0", good * 2]:
        path.write_bytes(bad)
        with pytest.raises(SetupError, match=r"signing\.key"):
            SigningKey.load(path, key_file)


def test_forged_cost_does_not_exhaust_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    SigningKey.create(path, PASSPHRASE, scrypt_log2_n=COST)
    bad = bytearray(path.read_bytes())
    for cost in (0, 21, 63, 255):
        bad[11] = cost
        path.write_bytes(bad)
        with pytest.raises(SetupError, match="no known derivation"):
            SigningKey.load(path, PASSPHRASE)


def test_newer_version_is_named(tmp_path: Path, key_file: KeyFile) -> None:
    path = tmp_path / "signing.key"
    SigningKey.create(path, key_file)
    bad = bytearray(path.read_bytes())
    bad[8] = 2
    path.write_bytes(bad)
    with pytest.raises(SetupError, match="format version 2"):
        SigningKey.load(path, key_file)


def test_seed_is_in_no_representation(tmp_path: Path, key_file: KeyFile) -> None:
    seed = os.urandom(32)
    key = SigningKey.from_seed(seed)
    shown = repr(key) + str(key) + f"{key}" + repr(LogSigner(key, "log.example")) + repr([key])
    assert key.public_key.hex() in shown
    assert seed.hex() not in shown
    assert repr(seed) not in shown
    assert PASSPHRASE.text not in repr(PASSPHRASE) + str(PASSPHRASE) + repr({"secret": PASSPHRASE})
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither pickled nor copied"):
            leak(key)
    with pytest.raises(TypeError):
        json.dumps(key)
    with pytest.raises(TypeError):
        vars(key)


def test_passphrase_is_in_no_traceback(tmp_path: Path) -> None:
    SigningKey.create(tmp_path / "k", PASSPHRASE, scrypt_log2_n=COST)
    wrong = "this is the wrong passphrase"
    try:
        SigningKey.load(tmp_path / "k", Passphrase(wrong))
    except SetupError as error:
        # Without this test's own frame, which knows it.
        inner = error.with_traceback(error.__traceback__.tb_next if error.__traceback__ else None)
        told = traceback.TracebackException.from_exception(inner, capture_locals=True)
        cause = traceback.TracebackException.from_exception(error.__cause__, capture_locals=True)
        text = "".join(told.format(chain=False)) + "".join(cause.format(chain=False))
        assert "Passphrase(hidden)" in text
        assert wrong not in text
    else:
        pytest.fail("a wrong passphrase opened the key")


def test_note_signers_sign_what_the_note_module_verifies() -> None:
    """Source: reference/transparency-log.md 1.5, golden vector (seeds 00..1f and 20..3f)."""
    log = LogSigner(SigningKey.from_seed(bytes(range(32))), "ledger.example/clearing")
    witness = CosignerSigner(SigningKey.from_seed(bytes(range(32, 64))), "witness.example/w1")
    assert log.key.vkey == (
        "ledger.example/clearing+bb4de0a3+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
    )
    assert (
        witness.key.vkey
        == "witness.example/w1+20324abe+BCmsuuFBvMrwsi4alNNNC8c2HlJtC/4SyJeUvJMilm3X"
    )
    text = "ledger.example/clearing\n3\nOF2jDzkXKCyJOd/4UZV+UZqxhGsTUaFMCts7EWMnQqo=\n"
    note = Note(text).with_signatures(
        sign(text, log), sign(text, witness, timestamp_s=1_700_000_000)
    )
    assert note.encode().decode().splitlines()[4:] == [
        "\u2014 ledger.example/clearing u03go2e0gl8hOeNb/AmoRgL9p1uHrT3uPGiT5ba3HwXgOga7GhZ7YevhrY5ZCD4r1fphCuS8DEjh8D9+bPucVjqpAQw=",
        "\u2014 witness.example/w1 IDJKvgAAAABlU/EA7oLcSLT67yOWe9xCv4uwvPTNJkDJC1KJ8I1O9QfKjA64m/o6pxUrpM/LQhap0mFSN2YUlW8nzslYhZYyuPCZBw==",
    ]
    assert len(note.verified_by([log.key, witness.key])) == 2


def test_note_signer_of_an_invalid_name_is_refused() -> None:
    with pytest.raises(DecodeError):
        LogSigner(SigningKey.from_seed(bytes(32)), "two words")
