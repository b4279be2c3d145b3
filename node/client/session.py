"""What a sync and an async client have in common: how one is made from an identity directory, and its channels.

Lives here: Session, channel options, the choice of endpoint. May not live here: waiting, sending.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import grpc

from clearing.errors import DecodeError
from clearing.log.policy import Policy
from node.client.anchored import Anchored
from node.client.commits import Commits
from node.client.memory import CheckpointMemory
from node.client.outbox import OUTBOX_NAME, Outbox
from node.client.reads import Reader
from node.client.trust import Trust
from node.client.writes import MessageSigner, Writer
from node.errors import SetupError
from node.files import read_public
from node.profile import IdentityDirectory
from node.services.server import MESSAGE_OPTIONS
from node.settings import check_dialled_endpoint
from node.tls import TlsFiles

STATE_NAME = "client"
"""Directory below an identity's own in which its client remembers."""

TIMEOUT_S = 30.0

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    *MESSAGE_OPTIONS,
    # A node that restarts is back within seconds: gRPC's own back-off starts at one and doubles.
    ("grpc.initial_reconnect_backoff_ms", 100),
    # The time one attempt to connect may take, TLS included, whatever its name: a busy node needs a second.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


def sync_channel(tls: TlsFiles, endpoint: str) -> grpc.Channel:
    """Return a channel to a node, mutually authenticated; it connects at the first call.

    Raises: SetupError: a file is missing, malformed or reached by others.
    """
    return grpc.secure_channel(endpoint, tls.channel_credentials(), options=CHANNEL_OPTIONS)


def aio_channel(tls: TlsFiles, endpoint: str) -> grpc.aio.Channel:
    """Return a channel to a node, mutually authenticated, for the running event loop.

    Raises: SetupError: a file is missing, malformed or reached by others.
    """
    return grpc.aio.secure_channel(endpoint, tls.channel_credentials(), options=CHANNEL_OPTIONS)


class Session:
    """One identity's means to talk to its network: what it trusts, how it writes and reads, and where."""

    def __init__(
        self,
        identity: IdentityDirectory,
        *,
        endpoints: Sequence[str] = (),
        signer: Callable[[], MessageSigner] | None = None,
        state_dir: Path | None = None,
    ) -> None:
        """Prepare for `identity`; nothing is sent.

        endpoints: host:port in order of preference, the profile's where none is given. signer: opens the signing key
        when it is first needed; by default with the profile's key file. state_dir: where checkpoint, evidence and
        outbox are kept, by default below the identity's directory.
        Raises: SetupError: a file is not as it must be, or the certificate is not in date; DecodeError: no endpoint.
        """
        # Made here, a failure has a name instead of "failed to connect".
        identity.tls.check(datetime.now(UTC))
        directory = state_dir or identity.path / STATE_NAME
        self.tls = identity.tls
        self._endpoints = tuple(endpoints) or identity.profile.endpoints
        for endpoint in self._endpoints:
            check_dialled_endpoint(endpoint)
        self.target = self._endpoints[0]
        self.trust = Trust(CheckpointMemory(directory, _policy_of(identity)))
        outbox = Outbox(directory / OUTBOX_NAME)
        opened: Callable[[], MessageSigner] = cache(signer or identity.signing_key)
        self.writer = Writer(self.trust, identity.profile.lei, outbox, opened)
        self.reader = Reader(self.trust)
        self.anchored = Anchored(self.trust, self.reader)
        self.commits = Commits(self.trust, self.reader)

    def move_on(self, endpoint: str, *, rotate: bool) -> None:
        """Choose where the next attempt goes: to `endpoint` if one is named, else to the next one known, or stay."""
        if endpoint:
            self.target = endpoint
        elif rotate:
            known = self._endpoints
            at = known.index(self.target) + 1 if self.target in known else 0
            self.target = known[at % len(known)]


def _policy_of(identity: IdentityDirectory) -> Policy:
    path = identity.profile.policy_path
    if path is None:
        raise SetupError(
            f"{identity.path} names no policy_path: a client believes no node without its network's policy"
        )
    try:
        return Policy.parse(read_public(path))
    except DecodeError as error:
        raise SetupError(f"{path} is no policy: {error}") from error
