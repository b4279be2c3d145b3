"""A network's private certificate authority: ECDSA P-256 with SPIFFE identities.

Lives here: making the authority and issuing certificates. May not live here: using them in
connections (tls.py), ledger signing keys (keys.py).

Invariants: a certificate names one identity, in one URI; a participant's serves as TLS client alone
and carries no host name; a node's serves both ways; none outlives its authority; the key is fresh,
in a file of mode 0600. The curve is P-256 because grpcio refuses Ed25519 certificates
(NO_COMMON_SIGNATURE_ALGORITHMS, grpc/grpc#24252).
Source: RFC 5280; X.509-SVID 1.0 (spiffe.io): one URI, digitalSignature, the authority's URI is the
bare trust domain.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from clearing.errors import DecodeError
from node.errors import SetupError
from node.files import PRIVATE_MODE, PUBLIC_MODE, create_file, read_private, read_public
from node.identity import Identity, IdentityKind, check_network_name, node_server_name

AUTHORITY_CERTIFICATE_NAME = "ca.pem"
AUTHORITY_KEY_NAME = "ca.key"
CERTIFICATE_NAME = "cert.pem"
KEY_NAME = "key.pem"

CLOCK_SKEW = timedelta(minutes=5)
"""How long before its making a certificate is valid, for peers whose clocks are behind."""

_TRUST_DOMAIN = "spiffe://"


@dataclass(frozen=True, slots=True)
class Validity:
    """From when until when a certificate holds; both times carry a time zone.

    Raises: SetupError: a time without zone, or an end that is not after the start.
    """

    not_before: datetime
    not_after: datetime

    def __post_init__(self) -> None:
        """Check the times."""
        if self.not_before.tzinfo is None or self.not_after.tzinfo is None:
            raise SetupError("a certificate's times must carry a time zone: use UTC")
        if self.not_before >= self.not_after:
            raise SetupError("a certificate must end after it starts: give a later end")

    @classmethod
    def days_from_now(cls, days: int) -> Self:
        """Return a validity from CLOCK_SKEW ago until `days` from now."""
        now = datetime.now(UTC).replace(microsecond=0)
        return cls(now - CLOCK_SKEW, now + timedelta(days=days))


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate and its private key, both PEM; the key is shown in no repr."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)

    def write(self, directory: Path) -> None:
        """Create cert.pem and key.pem (0600) in `directory`, the key first.

        Raises: SetupError: one of them exists or cannot be written.
        """
        create_file(directory / KEY_NAME, self.key_pem, PRIVATE_MODE)
        create_file(directory / CERTIFICATE_NAME, self.certificate_pem, PUBLIC_MODE)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(network: str, name: str) -> x509.Name:
    """Return a subject for people to read; no program of ours reads it."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, network),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _host(text: str) -> x509.GeneralName:
    """Return `text`, an IP address or DNS name, as a subject alternative name.

    Raises: SetupError: neither.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        check_network_name(text)
    except DecodeError as error:
        raise SetupError(
            f"{text[:80]!r} is neither an IP address nor a lower-case DNS name"
        ) from error
    return x509.DNSName(text)


def _names(identity: Identity, hosts: Iterable[str]) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity.uri)]
    if identity.kind is IdentityKind.NODE:
        names.append(x509.DNSName(node_server_name(identity.network, identity.name)))
    elif tuple(hosts):
        raise SetupError("a participant's certificate serves no host: leave the host names out")
    names.extend(_host(host) for host in hosts)
    return x509.SubjectAlternativeName(names)


class Authority:
    """A network's certificate authority: its certificate, and its key, which is shown nowhere.

    `network` is the network it issues for, `certificate` its own certificate.
    """

    __slots__ = ("_key", "certificate", "network")

    def __init__(
        self, network: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> None:
        """Hold the parts; callers use `create` or `load`."""
        self.network = network
        self.certificate = certificate
        self._key = key

    @property
    def certificate_pem(self) -> bytes:
        """The authority's certificate, PEM: what every peer of the network trusts."""
        return self.certificate.public_bytes(Encoding.PEM)

    @classmethod
    def create(cls, directory: Path, network: str, validity: Validity) -> Self:
        """Make a new authority and create ca.pem and ca.key (0600) in `directory`.

        The key signs every identity of the network: on a real one `directory` is on a machine that
        no node runs on.
        Raises: SetupError: a file exists or cannot be written; DecodeError: not a network's name.
        """
        check_network_name(network)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(network, "certificate authority")
        certificate = (
            x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(validity.not_before)
            .not_valid_after(validity.not_after)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.UniformResourceIdentifier(_TRUST_DOMAIN + network)]
                ),
                critical=False,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, SHA256())
        )
        create_file(directory / AUTHORITY_KEY_NAME, _key_pem(key), PRIVATE_MODE)
        create_file(
            directory / AUTHORITY_CERTIFICATE_NAME,
            certificate.public_bytes(Encoding.PEM),
            PUBLIC_MODE,
        )
        return cls(network, certificate, key)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Open the authority in `directory`.

        Raises: SetupError: a file is missing, malformed or reached by others, or the two do not
        belong together.
        """
        key_path = directory / AUTHORITY_KEY_NAME
        certificate = load_certificate(directory / AUTHORITY_CERTIFICATE_NAME)
        key = load_tls_key(key_path)
        if key.public_key() != certificate.public_key():
            raise SetupError(
                f"{key_path} is not the key of the certificate beside it: restore the pair"
            )
        uris = certificate_uris(certificate)
        network = uris[0].removeprefix(_TRUST_DOMAIN) if len(uris) == 1 else ""
        try:
            check_network_name(network)
        except DecodeError as error:
            raise SetupError(
                f"the certificate beside {key_path} is no network's authority: give the directory of one"
            ) from error
        return cls(network, certificate, key)

    def issue(
        self, identity: Identity, validity: Validity, hosts: Iterable[str] = ()
    ) -> IssuedCertificate:
        """Issue a certificate with a fresh key.

        `hosts` are the IP addresses and DNS names under which a node is dialled; a participant has
        none. A node's certificate also carries `node_server_name`.
        Raises: SetupError: another network's identity, hosts that are none, or a validity beyond
        the authority's.
        """
        # Each network's authority vouches for its own.
        if identity.network != self.network:
            raise SetupError(
                f"this is the authority of {self.network}, not of {identity.network}: use that one's"
            )
        # A peer would refuse the chain on the day the authority ends.
        if validity.not_after > self.certificate.not_valid_after_utc:
            raise SetupError(
                f"the authority ends on {self.certificate.not_valid_after_utc:%Y-%m-%d}: give an earlier end, or renew it"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if identity.kind is IdentityKind.NODE:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        certificate = (
            x509.CertificateBuilder(
                self.certificate.subject,
                _subject(identity.network, identity.name),
                key.public_key(),
                x509.random_serial_number(),
            )
            .not_valid_before(validity.not_before)
            .not_valid_after(validity.not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(_names(identity, tuple(hosts)), critical=False)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, SHA256())
        )
        return IssuedCertificate(certificate.public_bytes(Encoding.PEM), _key_pem(key))


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_tls_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the ECDSA private key in the PEM file `path`, mode 0600.

    Raises: SetupError: missing, reached by others, not PEM, or no ECDSA key.
    """
    try:
        key = load_pem_private_key(read_private(path), password=None)
    except (ValueError, TypeError) as error:
        raise SetupError(
            f"{path} is not an unencrypted private key in PEM: give the key beside its certificate"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SetupError(
            f"{path} is no ECDSA key: gRPC's TLS needs ECDSA P-256; issue a new certificate"
        )
    return key


def load_certificate(path: Path) -> x509.Certificate:
    """Return the one certificate in the PEM file `path`.

    Raises: SetupError: missing, not PEM, or more than one certificate.
    """
    certificates = load_certificates(path)
    if len(certificates) != 1:
        raise SetupError(
            f"{path} holds {len(certificates)} certificates and must hold one: remove the others"
        )
    return certificates[0]


def load_certificates(path: Path) -> list[x509.Certificate]:
    """Return the certificates in a PEM file, at least one; two while an authority is renewed.

    Raises: SetupError: missing, not PEM, or without certificates.
    """
    try:
        return x509.load_pem_x509_certificates(read_public(path))
    except ValueError as error:
        raise SetupError(
            f"{path} is no certificate in PEM: give the file that the network's authority issued"
        ) from error


def certificate_uris(certificate: x509.Certificate) -> list[str]:
    """Return the URIs in the certificate's subject alternative name, in order."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def certificate_identity(certificate: x509.Certificate) -> Identity:
    """Return the identity that the certificate names.

    Raises: SetupError: it names none, or several.
    """
    uris = certificate_uris(certificate)
    if len(uris) != 1:
        raise SetupError(
            f"the certificate names {len(uris)} identities and must name one: issue another"
        )
    try:
        return Identity.parse(uris[0])
    except DecodeError as error:
        raise SetupError(f"the certificate is not of this ledger: {error}") from error
