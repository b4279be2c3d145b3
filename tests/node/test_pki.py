"""The authority's certificates, judged by an X.509 verifier that is not ours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from clearing.errors import DecodeError
from node.errors import SetupError
from node.identity import Identity, IdentityKind
from node.pki import (
    Authority,
    Validity,
    certificate_identity,
    load_certificate,
    load_certificates,
    load_tls_key,
)

NETWORK = "clearing.example"
LEI = "7ZW8QJWVPR4P1S5PX088"
PARTICIPANT = Identity(NETWORK, IdentityKind.PARTICIPANT, LEI)
NODE = Identity(NETWORK, IdentityKind.NODE, "central-bank")
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
YEAR = Validity(NOW - timedelta(days=1), NOW + timedelta(days=365))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(
        tmp_path, NETWORK, Validity(YEAR.not_before, NOW + timedelta(days=3650))
    )


def parsed(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def test_certificates_hold_for_another_verifier(authority: Authority) -> None:
    """Source: the path validation of RFC 5280 as pyca/cryptography implements it."""
    builder = PolicyBuilder().store(Store([authority.certificate])).time(NOW)
    for identity in (PARTICIPANT, NODE):
        leaf = parsed(authority.issue(identity, YEAR).certificate_pem)
        verified = builder.build_client_verifier().verify(leaf, [])
        uris = [name.value for name in verified.subjects or [] if name.value == identity.uri]
        assert uris == [identity.uri]
    node = parsed(authority.issue(NODE, YEAR, ["127.0.0.1", "node.example"]).certificate_pem)
    for name in (
        x509.DNSName("central-bank.node.clearing.example"),
        x509.DNSName("node.example"),
        x509.IPAddress(ip_address("127.0.0.1")),
    ):
        assert builder.build_server_verifier(name).verify(node, [])
    with pytest.raises(VerificationError):
        builder.build_server_verifier(x509.DNSName("ministry.node.clearing.example")).verify(
            node, []
        )


def test_a_participant_cannot_serve(authority: Authority) -> None:
    leaf = parsed(authority.issue(PARTICIPANT, YEAR).certificate_pem)
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    with pytest.raises(SetupError, match="serves no host"):
        authority.issue(PARTICIPANT, YEAR, ["127.0.0.1"])


def test_certificate_carries_one_identity_and_a_p256_key(authority: Authority) -> None:
    issued = authority.issue(NODE, YEAR, ["::1"])
    leaf = parsed(issued.certificate_pem)
    assert certificate_identity(leaf) == NODE
    key = leaf.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert leaf.not_valid_before_utc == YEAR.not_before
    assert leaf.not_valid_after_utc == YEAR.not_after
    assert leaf.serial_number != parsed(authority.issue(NODE, YEAR).certificate_pem).serial_number


def test_the_authority_vouches_for_its_network_within_its_time(authority: Authority) -> None:
    with pytest.raises(SetupError, match=r"not of other\.example"):
        authority.issue(Identity("other.example", IdentityKind.NODE, "a"), YEAR)
    with pytest.raises(SetupError, match="the authority ends on"):
        authority.issue(NODE, Validity(NOW, NOW + timedelta(days=3651)))


@pytest.mark.parametrize(
    "host", ["", "two words", "UPPER.example", "*.example", "127.0.0.1:443", "http://a"]
)
def test_what_is_no_host_is_refused(authority: Authority, host: str) -> None:
    with pytest.raises(SetupError, match="neither an IP address nor"):
        authority.issue(NODE, YEAR, [host])


def test_validity_needs_zone_and_order() -> None:
    with pytest.raises(SetupError, match="time zone"):
        Validity(NOW.replace(tzinfo=None), NOW)
    with pytest.raises(SetupError, match="end after it starts"):
        Validity(NOW, NOW)
    validity = Validity.days_from_now(1)
    assert validity.not_before < datetime.now(UTC) < validity.not_after


@pytest.mark.parametrize(
    "network", ["", "Upper.example", "a b", "a" * 64, "a..b", "-a", "a/b", "a\n"]
)
def test_authority_of_no_network_is_refused(tmp_path: Path, network: str) -> None:
    with pytest.raises(DecodeError):
        Authority.create(tmp_path, network, YEAR)
    assert not list(tmp_path.iterdir())


def test_files_are_private_and_never_overwritten(tmp_path: Path, authority: Authority) -> None:
    issued = authority.issue(NODE, YEAR)
    issued.write(tmp_path)
    for name, mode in (
        ("ca.key", 0o600),
        ("key.pem", 0o600),
        ("ca.pem", 0o644),
        ("cert.pem", 0o644),
    ):
        assert (tmp_path / name).stat().st_mode & 0o777 == mode
    with pytest.raises(SetupError, match="not overwritten"):
        issued.write(tmp_path)
    with pytest.raises(SetupError, match="not overwritten"):
        Authority.create(tmp_path, NETWORK, YEAR)
    assert "PRIVATE" not in repr(issued)
    assert (
        parsed((tmp_path / "cert.pem").read_bytes()).public_key()
        == load_tls_key(tmp_path / "key.pem").public_key()
    )


def test_loaded_authority_issues_like_the_created_one(tmp_path: Path, authority: Authority) -> None:
    loaded = Authority.load(tmp_path)
    assert loaded.network == NETWORK
    assert loaded.certificate_pem == authority.certificate_pem
    leaf = parsed(loaded.issue(NODE, YEAR).certificate_pem)
    leaf.verify_directly_issued_by(authority.certificate)


def test_unfit_authorities_are_named(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "ca.key").chmod(0o644)
    with pytest.raises(SetupError, match=r"ca\.key has mode 0644"):
        Authority.load(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    Authority.create(other, NETWORK, YEAR)
    (other / "ca.key").rename(tmp_path / "ca.key")
    with pytest.raises(SetupError, match="is not the key of the certificate"):
        Authority.load(tmp_path)
    # A leaf in the authority's place names a node, not a network.
    third = tmp_path / "third"
    third.mkdir()
    issued = authority.issue(NODE, YEAR)
    (third / "ca.pem").write_bytes(issued.certificate_pem)
    (third / "ca.key").write_bytes(issued.key_pem)
    (third / "ca.key").chmod(0o600)
    with pytest.raises(SetupError, match="is no network's authority"):
        Authority.load(third)


def test_unfit_pem_files_are_named(tmp_path: Path, authority: Authority) -> None:
    path = tmp_path / "some.pem"

    def put(data: bytes) -> None:
        path.write_bytes(data)
        path.chmod(0o600)

    for junk in (
        b"",
        b"junk",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        bytes(1000),
    ):
        put(junk)
        with pytest.raises(SetupError, match=r"some\.pem"):
            load_certificate(path)
        with pytest.raises(SetupError, match=r"some\.pem"):
            load_tls_key(path)
    put(authority.certificate_pem * 2)
    assert len(load_certificates(path)) == 2
    with pytest.raises(SetupError, match="holds 2 certificates"):
        load_certificate(path)
    key = ed25519.Ed25519PrivateKey.generate()
    put(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(SetupError, match="no ECDSA key"):
        load_tls_key(path)


def test_certificate_of_no_or_two_identities_is_refused(authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())

    def with_uris(*uris: str) -> x509.Certificate:
        builder = x509.CertificateBuilder(
            authority.certificate.subject, authority.certificate.subject, key.public_key(), 1
        )
        builder = builder.not_valid_before(NOW).not_valid_after(NOW + timedelta(days=1))
        if uris:
            names = x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier(uri) for uri in uris]
            )
            builder = builder.add_extension(names, critical=False)
        return builder.sign(key, SHA256())

    with pytest.raises(SetupError, match="names 0 identities"):
        certificate_identity(with_uris())
    with pytest.raises(SetupError, match="names 2 identities"):
        certificate_identity(with_uris(NODE.uri, PARTICIPANT.uri))
    with pytest.raises(SetupError, match="not of this ledger"):
        certificate_identity(with_uris("https://clearing.example"))
