"""Mutual TLS as it runs: a grpc.aio server on loopback, and every wrong certificate against it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from node.errors import PassingError, SetupError
from node.files import PRIVATE_MODE, PUBLIC_MODE, replace_file
from node.identity import Identity, IdentityKind, node_server_name, peer_identity
from node.pki import Authority, Validity
from node.tls import TlsFiles

NETWORK = "clearing.example"
LEI = "7ZW8QJWVPR4P1S5PX088"
PARTICIPANT = Identity(NETWORK, IdentityKind.PARTICIPANT, LEI)
NODE = Identity(NETWORK, IdentityKind.NODE, "central-bank")
NOW = datetime.now(UTC)
GOOD = Validity(NOW - timedelta(days=1), NOW + timedelta(days=10))
EXPIRED = Validity(NOW - timedelta(days=9), NOW - timedelta(days=1))
NOT_YET = Validity(NOW + timedelta(days=1), NOW + timedelta(days=2))
DEADLINE_S = 20


class Network:
    """An authority in a directory, and certificates that it issued."""

    def __init__(self, directory: Path, network: str = NETWORK) -> None:
        directory.mkdir()
        self.directory = directory
        self.authority = Authority.create(
            directory, network, Validity(GOOD.not_before, NOW + timedelta(days=100))
        )

    def files(
        self, identity: Identity, validity: Validity = GOOD, hosts: tuple[str, ...] = ()
    ) -> TlsFiles:
        directory = self.directory / f"issued-{len(list(self.directory.iterdir()))}"
        directory.mkdir()
        self.authority.issue(identity, validity, hosts).write(directory)
        return TlsFiles(self.directory / "ca.pem", directory / "cert.pem", directory / "key.pem")


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path / "ca")


async def who(_request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    return peer_identity(context.auth_context(), NETWORK).uri.encode()


@asynccontextmanager
async def serving(files: TlsFiles, troubles: list[SetupError]) -> AsyncIterator[int]:
    """Serve `who` over mutual TLS and yield the port."""
    server = grpc.aio.server()
    handlers = {"Who": grpc.unary_unary_rpc_method_handler(who)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Who", handlers),))
    port = server.add_secure_port("127.0.0.1:0", files.server_credentials(troubles.append))
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


async def ask(port: int, credentials: grpc.ChannelCredentials, name: str = "127.0.0.1") -> str:
    """Return the identity that the server saw."""
    options = [] if name == "127.0.0.1" else [("grpc.ssl_target_name_override", name)]
    async with grpc.aio.secure_channel(
        f"127.0.0.1:{port}", credentials, options=options
    ) as channel:
        answer = await channel.unary_unary("/test.Who/Who")(b"", timeout=DEADLINE_S)
    return bytes(answer).decode()


async def refused(port: int, credentials: grpc.ChannelCredentials, name: str = "127.0.0.1") -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(port, credentials, name)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_handshake_admits_the_right_certificates_only(tmp_path: Path, network: Network) -> None:
    async def run() -> None:
        server = network.files(NODE, hosts=("127.0.0.1",))
        client = network.files(PARTICIPANT)
        stranger = Network(tmp_path / "stranger").files(PARTICIPANT)
        async with serving(server, []) as port:
            assert await ask(port, client.channel_credentials()) == PARTICIPANT.uri
            assert await ask(port, network.files(NODE).channel_credentials()) == NODE.uri
            # The node's name instead of its address: whoever else answers there is refused.
            right = node_server_name(NETWORK, "central-bank")
            assert await ask(port, client.channel_credentials(), right) == PARTICIPANT.uri
            await refused(port, client.channel_credentials(), node_server_name(NETWORK, "ministry"))
            # No client certificate.
            await refused(port, grpc.ssl_channel_credentials(server.authority.read_bytes()))
            # Expired, or not valid yet.
            await refused(port, network.files(PARTICIPANT, EXPIRED).channel_credentials())
            await refused(port, network.files(PARTICIPANT, NOT_YET).channel_credentials())
            # Another authority of the same network's name: the client trusts ours, or its own.
            mixed = TlsFiles(server.authority, stranger.certificate, stranger.key)
            await refused(port, mixed.channel_credentials())
            await refused(port, stranger.channel_credentials())
            # Still serving.
            assert await ask(port, client.channel_credentials()) == PARTICIPANT.uri

    asyncio.run(run())


def test_client_refuses_a_participant_that_serves(tmp_path: Path, network: Network) -> None:
    async def run() -> None:
        client = network.files(PARTICIPANT)
        async with serving(network.files(PARTICIPANT), []) as port:
            await refused(port, client.channel_credentials())
            await refused(port, client.channel_credentials(), LEI)

    asyncio.run(run())


def test_client_refuses_an_expired_server(network: Network) -> None:
    async def run() -> None:
        client = network.files(PARTICIPANT)
        async with serving(network.files(NODE, EXPIRED, ("127.0.0.1",)), []) as port:
            await refused(port, client.channel_credentials())

    asyncio.run(run())


def test_identity_of_another_network_is_no_identity_here(tmp_path: Path, network: Network) -> None:
    """Both networks' authorities are trusted by the handshake; the identity is refused after it."""

    async def run() -> None:
        other = Network(tmp_path / "other", "other.example")
        stranger = other.files(Identity("other.example", IdentityKind.PARTICIPANT, LEI))
        both = tmp_path / "both.pem"
        both.write_bytes(network.authority.certificate_pem + other.authority.certificate_pem)
        server = network.files(NODE, hosts=("127.0.0.1",))
        async with serving(TlsFiles(both, server.certificate, server.key), []) as port:
            files = TlsFiles(both, stranger.certificate, stranger.key)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(port, files.channel_credentials())
            assert caught.value.code() is grpc.StatusCode.UNKNOWN
            assert "other.example" in (caught.value.details() or "")

    asyncio.run(run())


def test_renewed_certificate_is_served_without_a_restart(tmp_path: Path, network: Network) -> None:
    async def run() -> None:
        served = network.files(NODE, hosts=("127.0.0.1",))
        client = network.files(PARTICIPANT)
        renewed = network.authority.issue(Identity(NETWORK, IdentityKind.NODE, "ministry"), GOOD)
        old, new = (node_server_name(NETWORK, name) for name in ("central-bank", "ministry"))
        troubles: list[SetupError] = []
        async with serving(served, troubles) as port:
            assert await ask(port, client.channel_credentials(), old) == PARTICIPANT.uri
            # Half renewed: the old pair stays, and the trouble is told once.
            replace_file(served.key, renewed.key_pem, PRIVATE_MODE)
            assert await ask(port, client.channel_credentials(), old) == PARTICIPANT.uri
            assert await ask(port, client.channel_credentials(), old) == PARTICIPANT.uri
            assert len(troubles) == 1
            assert "is not the key of" in str(troubles[0])
            # Whole: new connections see the new one.
            replace_file(served.certificate, renewed.certificate_pem, PUBLIC_MODE)
            assert await ask(port, client.channel_credentials(), new) == PARTICIPANT.uri
            await refused(port, client.channel_credentials(), old)
            # A file that went away is told too, and takes nothing down.
            served.certificate.unlink()
            assert await ask(port, client.channel_credentials(), new) == PARTICIPANT.uri
            assert "does not exist" in str(troubles[1])
            assert len(troubles) == 2

    asyncio.run(run())


def test_check_names_what_is_wrong(tmp_path: Path, network: Network) -> None:
    files = network.files(NODE)
    assert files.check(NOW) == GOOD.not_after.replace(microsecond=0)
    assert files.identity() == NODE
    with pytest.raises(PassingError, match=r"is valid from .* set the clock"):
        files.check(NOW - timedelta(days=2))
    with pytest.raises(SetupError, match="expired on"):
        files.check(NOW + timedelta(days=11))
    other = network.files(NODE)
    with pytest.raises(SetupError, match="is not the key of"):
        TlsFiles(files.authority, files.certificate, other.key).check(NOW)
    stranger = Network(tmp_path / "stranger").files(NODE)
    with pytest.raises(SetupError, match="no authority in"):
        TlsFiles(files.authority, stranger.certificate, stranger.key).check(NOW)
    files.key.chmod(0o640)
    with pytest.raises(SetupError, match=r"key\.pem has mode 0640"):
        files.check(NOW)
    with pytest.raises(SetupError, match=r"key\.pem has mode 0640"):
        files.channel_credentials()
    with pytest.raises(SetupError, match=r"key\.pem has mode 0640"):
        files.server_credentials([].append)


def test_several_authorities_may_be_trusted_while_one_is_renewed(
    tmp_path: Path, network: Network
) -> None:
    files = network.files(NODE)
    other = Network(tmp_path / "other")
    both = tmp_path / "both.pem"
    both.write_bytes(other.authority.certificate_pem + network.authority.certificate_pem)
    TlsFiles(both, files.certificate, files.key).check(NOW)
