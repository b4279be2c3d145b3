"""Mutual TLS of nodes and clients: three files become gRPC credentials.

Lives here: reading the files, checking that they belong together, credentials for both ends. May
not live here: issuing certificates (pki.py), reading the peer's identity (identity.py).
Invariant: there is no way here to serve or connect without a certificate on both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from node.errors import PassingError, SetupError
from node.files import read_private, read_public
from node.identity import Identity
from node.pki import certificate_identity, load_certificate, load_certificates, load_tls_key


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the trusted authorities, this end's certificate, and its key (mode 0600)."""

    authority: Path
    certificate: Path
    key: Path

    def identity(self) -> Identity:
        """Return the identity that the certificate names.

        Raises: SetupError: the file is missing or malformed, or the certificate names none.
        """
        return certificate_identity(load_certificate(self.certificate))

    def check(self, now: datetime) -> datetime:
        """Check at `now` that the three files hold together; return when the certificate ends.

        Peers make the same checks; made here first, a failure has a name instead of "failed to
        connect".
        Raises: SetupError: a file is missing, malformed or reached by others; the key is another's;
        no trusted
            authority issued the certificate; it is no more valid. PassingError: it is not yet.
        """
        certificate = self.check_together()
        # The clock must be inside the validity.
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now < start:
            raise PassingError(
                f"{self.certificate} is valid from {start:%Y-%m-%d %H:%M} UTC, now it is {now:%Y-%m-%d %H:%M}: "
                "set the clock"
            )
        if now > end:
            raise SetupError(
                f"{self.certificate} expired on {end:%Y-%m-%d %H:%M} UTC: have a new one issued"
            )
        return end

    def check_together(self) -> x509.Certificate:
        """Return the certificate, once its key and authority are checked, but not its time.

        Raises: SetupError: a file is missing, malformed or reached by others, or they do not belong
        together.
        """
        certificate = load_certificate(self.certificate)
        # The key must be the certificate's.
        if load_tls_key(self.key).public_key() != certificate.public_key():
            raise SetupError(
                f"{self.key} is not the key of {self.certificate}: restore the pair, or have it issued anew"
            )
        # A trusted authority must have signed it.
        if not any(
            _issued(authority, certificate) for authority in load_certificates(self.authority)
        ):
            raise SetupError(
                f"no authority in {self.authority} issued {self.certificate}: give both of one network"
            )
        return certificate

    def server_credentials(
        self, on_trouble: Callable[[SetupError], None]
    ) -> grpc.ServerCredentials:
        """Return credentials for a server that demands a client certificate of a trusted authority.

        Renewed files are used from the next handshake on, without a restart, once they belong
        together again; until then the old ones stay and `on_trouble` is told why, from a thread of
        gRPC's.
        Raises: SetupError: now, a file is missing, malformed or reached by others, or they do not
        belong together.
        """
        renewal = _Renewal(self, on_trouble)
        return grpc.dynamic_ssl_server_credentials(
            renewal.first,
            renewal.fetch,  # type: ignore[arg-type]  # the stubs lack None, by which gRPC keeps what it has
            require_client_authentication=True,
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return credentials for a client that trusts the authority alone.

        Raises: SetupError: a file is missing, or the key is reached by others.
        """
        return grpc.ssl_channel_credentials(
            root_certificates=read_public(self.authority),
            private_key=read_private(self.key),
            certificate_chain=read_public(self.certificate),
        )


class _Renewal:
    """Hands gRPC the server's certificate at each handshake, anew when its files changed."""

    def __init__(self, files: TlsFiles, on_trouble: Callable[[SetupError], None]) -> None:
        self._files = files
        self._on_trouble = on_trouble
        self._seen = self._state()
        self.first = self._read()

    def _state(self) -> tuple[tuple[int, int], ...]:
        """Return inode and time of change of each file; nothing where one is missing."""
        try:
            status = [
                path.stat()
                for path in (self._files.authority, self._files.certificate, self._files.key)
            ]
        except OSError:
            return ()
        return tuple((one.st_ino, one.st_mtime_ns) for one in status)

    def _read(self) -> grpc.ServerCertificateConfiguration:
        files = self._files
        files.check_together()
        pair = (read_private(files.key), read_public(files.certificate))
        return grpc.ssl_server_certificate_configuration(
            [pair], root_certificates=read_public(files.authority)
        )

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the new configuration; None where nothing changed or the files are unfit."""
        state = self._state()
        if state == self._seen:
            return None
        # Remembered before the reading: a change during it is seen next time, and a trouble is told
        # once.
        self._seen = state
        try:
            return self._read()
        except SetupError as error:
            self._on_trouble(error)
            return None


def _issued(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
