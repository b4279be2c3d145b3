"""An identity directory opens whole and of one party, or is refused by name."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from node.errors import SetupError
from node.keys import Passphrase, create_key_file
from node.pki import Authority, Validity
from node.profile import IdentityDirectory, Profile

NETWORK = "clearing.example"
LEI = "7ZW8QJWVPR4P1S5PX088"
OTHER_LEI = "7H6GLXDRUGQFU57RNE97"
PASSPHRASE = Passphrase("correct horse battery")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "ca").mkdir()
    return Authority.create(tmp_path / "ca", NETWORK, Validity.days_from_now(400))


def profile(key_file_path: Path | None = None, lei: str = LEI) -> Profile:
    return Profile(
        network=NETWORK,
        name="p01",
        lei=lei,
        endpoints=("127.0.0.1:7400", "[::1]:7401"),
        key_file_path=key_file_path,
    )


def test_created_directory_opens_and_signs(tmp_path: Path, authority: Authority) -> None:
    key_file = create_key_file(tmp_path / "unseal.key")
    wanted = profile(key_file.path)
    created, key = IdentityDirectory.create(
        tmp_path / "p01", wanted, authority, Validity.days_from_now(365)
    )
    opened = IdentityDirectory.open(tmp_path / "p01")
    assert opened == created
    assert opened.profile == wanted
    assert opened.signing_key().sign(b"m") == key.sign(b"m")
    opened.tls.check(datetime.now(UTC))
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "p01").iterdir()}
    assert modes == {
        "ca.pem": 0o644, "cert.pem": 0o644, "profile.toml": 0o644, "key.pem": 0o600, "signing.key": 0o600,
    }  # fmt: skip
    assert (tmp_path / "p01").stat().st_mode & 0o777 == 0o700


def test_directory_sealed_by_a_passphrase(tmp_path: Path, authority: Authority) -> None:
    opened, key = IdentityDirectory.create(
        tmp_path / "p01", profile(), authority, Validity.days_from_now(365), PASSPHRASE
    )
    assert opened.signing_key(PASSPHRASE).public_key == key.public_key
    with pytest.raises(SetupError, match="needs a passphrase"):
        opened.signing_key()


def test_nothing_is_made_without_a_secret(tmp_path: Path, authority: Authority) -> None:
    with pytest.raises(SetupError, match="passphrase or a key file"):
        IdentityDirectory.create(
            tmp_path / "p01", profile(), authority, Validity.days_from_now(365)
        )
    assert not (tmp_path / "p01").exists()


def test_existing_identity_is_not_overwritten(tmp_path: Path, authority: Authority) -> None:
    key_file = create_key_file(tmp_path / "unseal.key")
    arguments = (tmp_path / "p01", profile(key_file.path), authority, Validity.days_from_now(365))
    _, key = IdentityDirectory.create(*arguments)
    with pytest.raises(SetupError, match="not overwritten"):
        IdentityDirectory.create(*arguments)
    assert IdentityDirectory.open(tmp_path / "p01").signing_key().public_key == key.public_key


def test_certificate_of_another_party_is_refused(tmp_path: Path, authority: Authority) -> None:
    key_file = create_key_file(tmp_path / "unseal.key")
    for name, lei in (("p01", LEI), ("p02", OTHER_LEI)):
        IdentityDirectory.create(
            tmp_path / name, profile(key_file.path, lei), authority, Validity.days_from_now(365)
        )
    shutil.copy(tmp_path / "p02" / "cert.pem", tmp_path / "p01" / "cert.pem")
    with pytest.raises(
        SetupError, match=f"participant/{LEI}, the certificate beside it .*{OTHER_LEI}"
    ):
        IdentityDirectory.open(tmp_path / "p01")


@pytest.mark.parametrize("name", ["profile.toml", "cert.pem"])
def test_missing_file_is_named(tmp_path: Path, authority: Authority, name: str) -> None:
    IdentityDirectory.create(
        tmp_path / "p01", profile(), authority, Validity.days_from_now(365), PASSPHRASE
    )
    (tmp_path / "p01" / name).unlink()
    with pytest.raises(SetupError, match=f"{name} does not exist"):
        IdentityDirectory.open(tmp_path / "p01")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"lei": LEI[:-1] + "9"}, "lei: the check digits"),
        ({"endpoints": ()}, "endpoints: name at least one"),
        ({"endpoints": ("127.0.0.1",)}, "endpoints: must be host:port"),
        ({"name": "P 01"}, "name: a node's name"),
    ],
)
def test_unfit_profiles_are_refused_by_key(changes: dict[str, object], complaint: str) -> None:
    values = {"network": NETWORK, "name": "p01", "lei": LEI, "endpoints": ("a:1",), **changes}
    with pytest.raises(SetupError, match=complaint):
        Profile(**values)
