"""What tests of whole networks share: a network's files, nodes in this process or their own, clients, taps.

Everything is real: files as `testnet` makes them, mutual TLS over loopback sockets, LMDB on disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note
from clearing.records.instruction import Instruction, InstructionKind, make_instruction
from clearing.records.submission import Submission, make_submission
from clearing.rows import Table
from node.config import NodeConfig, load_config
from node.identity import node_server_name
from node.pb.v1 import (
    operator_pb2,
    operator_pb2_grpc,
    participant_pb2,
    participant_pb2_grpc,
)
from node.profile import IdentityDirectory
from node.runtime import Runtime
from node.services.facade import NodeCondition
from node.store import Store, StoreSettings
from node.store.tables import Database
from node.testnet.layout import LocalNetwork
from node.testnet.make import make_network
from node.testnet.plan import LEADER, NETWORK_NAME, NODES, numbered_parties
from tests.ledger_kit import item

FULL = ("central-bank", "ministry")


def new_network(path: Path, participants: int = 6) -> LocalNetwork:
    """Make a network's files in the new directory `path`; who starts its nodes starts no chain beside them."""
    return make_network(path, numbered_parties(participants), has_chain=False)


def config_of(network: LocalNetwork, node: str) -> NodeConfig:
    """Return a node's configuration."""
    return load_config(network.node_path(node) / "node.toml")


@asynccontextmanager
async def running(network: LocalNetwork, *names: str) -> AsyncIterator[dict[str, Runtime]]:
    """Run nodes in this process, all of them unless named; whatever is in the dictionary at the end is stopped."""
    nodes: dict[str, Runtime] = {}
    try:
        for name in names or NODES:
            nodes[name] = await Runtime.start(config_of(network, name))
        yield nodes
    finally:
        for name in reversed(list(nodes)):
            await nodes[name].stop()


async def until(what: str, condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"timed out: {what}"
        await asyncio.sleep(0.01)


class Party:
    """A participant that makes signed submissions; numbers as in the register of a test network."""

    def __init__(self, network: LocalNetwork, name: str, network_id: bytes) -> None:
        """Open the identity of `name`."""
        self.identity = IdentityDirectory.open(network.identity_path(name))
        self.key = self.identity.signing_key()
        self.number = [party.name for party in network.parties].index(name)
        self.network_id = network_id

    def submission(self, *records: bytes) -> Submission:
        """Sign records as one submission."""
        return make_submission(
            network_id=self.network_id,
            submitter=self.number,
            client_id=secrets.token_bytes(16),
            secret=secrets.token_bytes(32),
            records=b"".join(records),
            sign=self.key.sign,
        )

    def owes(self, creditor: int, amount: int) -> Submission:
        """Sign one obligation to `creditor`."""
        return self.submission(item(self.number, creditor, amount))

    def instruction(self, kind: InstructionKind, payload: bytes = b"") -> Instruction:
        """Sign one instruction."""
        return make_instruction(
            network_id=self.network_id,
            kind=kind,
            actor=self.number,
            client_id=secrets.token_bytes(16),
            salt=secrets.token_bytes(16),
            payload=payload,
            sign=self.key.sign,
        )

    def channel(self, network: LocalNetwork, node: str) -> grpc.Channel:
        """Connect to a node as this participant."""
        return grpc.secure_channel(
            network.endpoint(node),
            self.identity.tls.channel_credentials(),
            options=(
                ("grpc.ssl_target_name_override", node_server_name(NETWORK_NAME, node)),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.min_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 200),
            ),
        )


def submit(channel: grpc.Channel, submission: Submission, timeout_s: float = 5) -> int:
    """Submit once and return the log index."""
    stub = participant_pb2_grpc.ParticipantServiceStub(channel)
    request = participant_pb2.SubmitRequest(transaction=submission.encode())
    return int(stub.Submit(request, timeout=timeout_s).receipt.log_index)


def instruct(channel: grpc.Channel, instruction: Instruction, timeout_s: float = 5) -> int:
    """Give an instruction once and return the log index."""
    stub = participant_pb2_grpc.ParticipantServiceStub(channel)
    request = participant_pb2.InstructRequest(transaction=instruction.encode())
    return int(stub.Instruct(request, timeout=timeout_s).receipt.log_index)


def watch(channel: grpc.Channel) -> Iterator[bytes]:
    """Yield every final checkpoint note that a node streams."""
    stub = participant_pb2_grpc.ParticipantServiceStub(channel)
    for response in stub.WatchCheckpoints(participant_pb2.WatchCheckpointsRequest()):
        yield response.checkpoint.note.encode()


def status(channel: grpc.Channel) -> operator_pb2.GetStatusResponse:
    """Return how a node says it stands."""
    stub = operator_pb2_grpc.OperatorServiceStub(channel)
    return stub.GetStatus(operator_pb2.GetStatusRequest(), timeout=5)


def network_id(network: LocalNetwork) -> bytes:
    """Return the network's id; no node may be running."""
    with open_store(network, LEADER) as store:
        return store.node(0, 0)


def texts_by_size(notes: set[bytes]) -> dict[int, set[str]]:
    """Return the different checkpoint texts at each size; more than one is a split view."""
    texts: dict[int, set[str]] = {}
    for data in notes:
        text = Note.parse(data).text
        texts.setdefault(Checkpoint.parse(text).size, set()).add(text)
    return texts


def open_store(network: LocalNetwork, node: str) -> Store:
    """Open the store of a node that does not run."""
    return Store.open(config_of(network, node).data_dir, StoreSettings(free_bytes_min=0))


def contents(store: Store) -> dict[str, str]:
    """Return a digest of each table that all full replicas must share byte for byte."""
    shared = (
        *Table,
        Database.LEAVES,
        Database.NODES,
        Database.BODIES,
        Database.PUBLIC,
        Database.SEALS,
    )
    digests = {}
    with store.snapshot() as view:
        for name in shared:
            digest = hashlib.sha256()
            for key, value in view.items(name):
                digest.update(len(key).to_bytes(4, "big") + key)
                digest.update(len(value).to_bytes(4, "big") + value)
            digests[str(name)] = digest.hexdigest()
    return digests


def log_contents(store: Store) -> dict[str, str]:
    """Return the digests of what witnesses share too."""
    digests = contents(store)
    return {name: digests[name] for name in ("leaves", "nodes", "public", "seals")}


Nodes = dict[str, Runtime]


def on(network: LocalNetwork, *names: str) -> Callable[[Callable[[Nodes], Awaitable[None]]], None]:
    """Run a coroutine with nodes running; all of them unless named."""

    def run(work: Callable[[Nodes], Awaitable[None]]) -> None:
        async def main() -> None:
            async with running(network, *names) as nodes:
                await work(nodes)

        asyncio.run(main())

    return run


def condition(node: Runtime) -> NodeCondition:
    return node.member.standing()[0]


def sizes(nodes: Nodes) -> set[tuple[int, int]]:
    return {(n.member.status().log_size, n.member.status().final_size) for n in nodes.values()}


async def converge(nodes: Nodes) -> None:
    """Wait until all logs are equally long and wholly final."""

    def equal() -> bool:
        found = sizes(nodes)
        return len(found) == 1 and len(set(*found)) == 1

    await until("equal and final", equal)


async def record(nodes: Nodes, party: Party, count: int, creditor: int = 4) -> list[int]:
    """Submit single obligations to the leader once it serves, one after the other, and return their indices."""
    leader = nodes[LEADER].member
    await until("serves", lambda: condition(nodes[LEADER]) is NodeCondition.SERVING)
    return [(await leader.submit(party.owes(creditor, 1 + n))).index for n in range(count)]
