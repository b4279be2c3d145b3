"""A network of one node, in this process, over real mTLS, store and sequencer: for tests of services and clients.

Lives here: OneNode, which makes authority, keys, genesis and identities in a directory and runs the node's runtime on
an event loop of its own thread, so that tests may block.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import grpc

from clearing.identifiers import make_lei
from clearing.log.keys import VerifierKey
from clearing.log.policy import Log, Policy, Witness
from clearing.params import Parameters
from clearing.rules.registry import Action, ActionKind, Asset, Participant
from clearing.types import LicenceStatus, NettingMethod, Role
from node.client import AsyncClient, Client
from node.client.session import CHANNEL_OPTIONS, sync_channel
from node.config import ReplicaRole
from node.identity import Identity, IdentityKind
from node.keys import create_key_file
from node.pki import Authority, Validity
from node.profile import IdentityDirectory, Profile
from node.provision import POLICY_NAME, NodePlace, make_node, node_config, write_genesis
from node.runtime import Runtime

T = TypeVar("T")

NETWORK = "clearing.test"
LEADER = "central-bank"
GENESIS_MS = 1_700_000_000_000
SUSPENDED, EXPIRED, SUSPENDED_REGULATOR = "p05", "p06", "regulator-2"
"""Who loses the licence when a test calls `retire`."""
PARTIES: tuple[tuple[str, Role], ...] = (
    (LEADER, Role.CENTRAL_BANK),
    ("ministry", Role.MINISTRY),
    ("p01", Role.BANK),
    ("p02", Role.BANK),
    ("p03", Role.EXCHANGE),
    ("p04", Role.MINER),
    (SUSPENDED, Role.BANK),
    (EXPIRED, Role.EXCHANGE),
    ("regulator", Role.REGULATOR),
    ("operator", Role.OPERATOR),
    (SUSPENDED_REGULATOR, Role.REGULATOR),
)
NUMBERS = {name: number for number, (name, _) in enumerate(PARTIES)}
ASSETS = (
    Asset("BTC", "bip122:000000000019d6689c085ae165831e93/slip44:0", "4H95J0R2X", 8, NettingMethod.POSITIONS),
    Asset("ETH", "eip155:1/slip44:60", "X9J9K872S", 18, NettingMethod.POSITIONS),
)  # fmt: skip


IDENTITIES = "identities"


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def lei_of(name: str) -> str:
    """Return the LEI that a party of the tests always has."""
    return make_lei(f"TEST{NUMBERS[name]:014d}")


def _registered(name: str, role: Role, public_key: bytes) -> Participant:
    return Participant(
        name=name,
        lei=lei_of(name),
        role=role,
        status=LicenceStatus.ACTIVE,
        public_key=public_key,
        licence_no=f"L-{NUMBERS[name]:04d}",
        licence_expiry_ms=0,
    )


class OneNode:
    """The network; `with OneNode(tmp_path) as network` runs it."""

    def __init__(self, directory: Path) -> None:
        """Make all files below `directory`."""
        self.directory = directory
        validity = Validity.days_from_now(30)
        (directory / "ca").mkdir()
        self.authority = Authority.create(directory / "ca", NETWORK, Validity.days_from_now(60))
        self.node_dir = directory / "node"
        self.endpoint = f"127.0.0.1:{free_port()}"
        place = NodePlace(NETWORK, LEADER, ReplicaRole.LEADER, self.endpoint)
        keys = make_node(self.node_dir, place, self.authority, validity, hosts=("127.0.0.1",))
        self.policy = self._policy(keys.log, keys.cosigner)
        self.policy_path = self.node_dir / POLICY_NAME
        self.policy_path.write_bytes(self.policy.encode())
        self.key_file = create_key_file(directory / "parties.key").path
        actions = [
            Action(ActionKind.ADD_PARTICIPANT, _registered(name, role, self._make_party(name, validity)))
            for name, role in PARTIES
        ]  # fmt: skip
        actions += [Action(ActionKind.ADD_ASSET, asset) for asset in ASSETS]
        actions += [
            Action(ActionKind.SET_PARAMETERS, Parameters()),
            Action(ActionKind.SET_TIMETABLE, ()),
        ]
        self.config = node_config(self.node_dir, place, with_key_file=True)
        self.network_id = write_genesis(self.config.data_dir, GENESIS_MS, actions)
        self.runtime: Runtime
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="node", daemon=True)

    @staticmethod
    def _policy(log: VerifierKey | None, cosigner: VerifierKey) -> Policy:
        assert log is not None
        return Policy((Log(log),), (Witness(LEADER, cosigner),), (), LEADER)

    def _make_party(self, name: str, validity: Validity) -> bytes:
        profile = Profile(
            network=NETWORK,
            name=name,
            lei=lei_of(name),
            endpoints=(self.endpoint,),
            key_file_path=self.key_file,
            policy_path=self.policy_path,
        )
        _, key = IdentityDirectory.create(
            self.identity_path(name), profile, self.authority, validity
        )
        return key.public_key

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the node's loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def start(self) -> None:
        """Start the node, at the endpoint that it always has."""
        self.runtime = self.run(Runtime.start(self.config, confirm_time=True))

    def stop(self) -> None:
        """Stop the node in order."""
        self.run(self.runtime.stop())

    def retire(self) -> None:
        """Suspend SUSPENDED and SUSPENDED_REGULATOR and let EXPIRED's licence lapse, by the vote of both governors."""
        changes = [
            (SUSPENDED, LicenceStatus.SUSPENDED, 0),
            (SUSPENDED_REGULATOR, LicenceStatus.SUSPENDED, 0),
            (EXPIRED, LicenceStatus.ACTIVE, GENESIS_MS),
        ]
        actions = [
            Action(
                ActionKind.SET_LICENCE,
                {
                    "participant": NUMBERS[name],
                    "status": status,
                    "licence_no": "changed",
                    "licence_expiry_ms": expiry_ms,
                },
            )
            for name, status, expiry_ms in changes
        ]
        with self.client("ministry") as ministry, self.client(LEADER) as central_bank:
            proposal = ministry.propose(actions)
            central_bank.approve(proposal.index)

    def identity_path(self, name: str) -> Path:
        """Return a party's identity directory."""
        return self.directory / IDENTITIES / name

    def identity(self, name: str) -> IdentityDirectory:
        """Open a party's identity directory."""
        return IdentityDirectory.open(self.identity_path(name))

    def client(self, name: str, **options: Any) -> Client:
        """Return a sync client of a party."""
        return Client(self.identity(name), **options)

    def async_client(self, name: str, **options: Any) -> AsyncClient:
        """Return an async client of a party; use it on the node's loop, by `run`."""
        return AsyncClient(self.identity(name), **options)

    def channel(self, name: str) -> grpc.Channel:
        """Return a bare channel with a party's certificate."""
        return sync_channel(self.identity(name).tls, self.endpoint)

    def channel_of(self, identity: Identity, *, hosts: Sequence[str] = ()) -> grpc.Channel:
        """Return a bare channel with a fresh certificate of the network's authority."""
        issued = self.authority.issue(identity, Validity.days_from_now(1), hosts)
        credentials = grpc.ssl_channel_credentials(
            self.authority.certificate_pem, issued.key_pem, issued.certificate_pem
        )
        return grpc.secure_channel(self.endpoint, credentials, options=CHANNEL_OPTIONS)

    def node_channel(self, name: str) -> grpc.Channel:
        """Return a bare channel with the certificate of a node called `name`."""
        return self.channel_of(Identity(NETWORK, IdentityKind.NODE, name))
