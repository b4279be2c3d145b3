"""Kills nodes with SIGKILL at random, leader and followers, while clients submit and others watch.

Lives here: the run and the check of what it left, for test_kill.py and for `python -m benchmarks kills`.

What must hold: nothing acknowledged is lost, nothing is recorded twice, no two heads of one size are ever signed,
all replicas end with the same bytes, and these are what a replay of the log gives.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from clearing.log.policy import Policy
from clearing.records.instruction import InstructionKind, ItemSelection
from clearing.records.submission import Submission
from node.config import NodeConfig
from node.identity import node_server_name
from node.replication.link import Link
from node.replication.replica import ReceivedBlock
from node.services.facade import FinalNote, Handshake, NodeKind
from node.store.fsck import check_directory
from node.store.tables import Database, number_of
from node.store.view import View
from node.testnet.plan import LEADER, NODES, WITNESSES
from tests.node import network_kit as kit
from tests.node.nursery import ForkedNode, Nursery

CLIENTS = 3
CONVERGE_S = 60


@dataclass
class Client(threading.Thread):
    """Submits one obligation after the other; each is sent again until it is acknowledged."""

    network: kit.LocalNetwork
    party: kit.Party
    ends: threading.Event
    sent: list[Submission] = field(default_factory=list)
    acknowledged: dict[bytes, int] = field(default_factory=dict)
    repeats: int = 0

    def __post_init__(self) -> None:
        super().__init__(name=f"client {self.party.number}")

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        with self.party.channel(self.network, LEADER) as channel:
            while not self.ends.is_set():
                submission = self.party.owes(0, 1 + len(self.sent))
                self.sent.append(submission)
                index = self._until_acknowledged(channel, submission)
                self.acknowledged[submission.client_id] = index
                time.sleep(0.01)

    def _until_acknowledged(self, channel: grpc.Channel, submission: Submission) -> int:
        while True:
            try:
                return kit.submit(channel, submission, timeout_s=3)
            except grpc.RpcError:
                self.repeats += 1
                time.sleep(0.05)


RETRIED = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
)


class Banker(threading.Thread):
    """Affirms what the clients submit, as their creditor, and nets a cycle now and then, until `ends` is set."""

    def __init__(
        self,
        network: kit.LocalNetwork,
        party: kit.Party,
        clients: list[Client],
        ends: threading.Event,
    ) -> None:
        super().__init__(name="banker")
        self.affirmed = 0
        self.cycles = 0
        self._network, self._party, self._clients, self._ends = network, party, clients, ends

    def run(self) -> None:
        seen: set[bytes] = set()
        with self._party.channel(self._network, LEADER) as channel:
            while not self._ends.is_set():
                for client in self._clients:
                    for client_id, index in list(client.acknowledged.items()):
                        if client_id not in seen:
                            seen.add(client_id)
                            payload = ItemSelection(index).encode()
                            self.affirmed += self._give(channel, InstructionKind.AFFIRM, payload)
                self.cycles += self._give(channel, InstructionKind.RUN_CYCLE, b"")
                self._ends.wait(1)

    def _give(self, channel: grpc.Channel, kind: InstructionKind, payload: bytes) -> bool:
        """Give an instruction until it is answered or the end has come; whether it was accepted."""
        instruction = self._party.instruction(kind, payload)
        while not self._ends.is_set():
            try:
                kit.instruct(channel, instruction, timeout_s=3)
            except grpc.RpcError as error:
                if error.code() not in RETRIED:
                    return False
                time.sleep(0.05)
            else:
                return True
        return False


class Tap:
    """Receives what the leader streams to a witness, for ever, and keeps every note that it shows."""

    def __init__(self, config: NodeConfig) -> None:
        self.notes: set[bytes] = set()
        self._config = config
        self._policy = Policy.parse(config.policy_path.read_bytes())
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        config, policy = self._config, self._policy
        origin = policy.logs[0].key.name
        server_name = node_server_name(config.network, config.leader_name)
        from_index = 0
        while True:
            handshake = Handshake(config.node_name, NodeKind.WITNESS_REPLICA, from_index, b"", b"")
            try:
                async with Link(
                    config.leader_endpoint, server_name, config.tls, policy=policy, origin=origin
                ) as link:
                    async for received in link.receive(handshake):
                        self.notes.add(received.note)
                        if isinstance(received, ReceivedBlock):
                            from_index = received.end
                        if isinstance(received, FinalNote):
                            policy.check(kit.Note.parse(received.note))
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)


class Watcher(threading.Thread):
    """Reads the final checkpoints that a node streams to participants and keeps each note, until its node is stopped for good."""

    def __init__(
        self, network: kit.LocalNetwork, party: kit.Party, node: str, ends: threading.Event
    ) -> None:
        super().__init__(name=f"watcher {node}", daemon=True)
        self.notes: set[bytes] = set()
        self.ends = ends
        self._network, self._party, self._node = network, party, node

    def run(self) -> None:
        while not self.ends.is_set():
            with self._party.channel(self._network, self._node) as channel:
                try:
                    for note in kit.watch(channel):
                        self.notes.add(note)
                except grpc.RpcError:
                    time.sleep(0.1)


@dataclass
class Killer:
    """Kills and restarts nodes, the leader most often: some while they start, some two at a time, most under load."""

    nodes: list[ForkedNode]
    clients: list[Client]
    source: random.Random
    killed: int = 0

    def run(self, kills: int) -> None:
        weights = [3] + [1] * (len(self.nodes) - 1)
        while self.killed < kills:
            for node in self.source.choices(self.nodes, weights, k=self.source.choice((1, 1, 2))):
                self.killed += node.runs
                node.kill()
            time.sleep(self.source.choice((0, 0.05, 0.2)))
            for node in self.nodes:
                node.start()
            # Mostly clients get somewhere in between; else the network is killed while it recovers.
            if self.source.random() < 0.7:
                before = self.acknowledged()
                wait_for(
                    "the network takes submissions",
                    lambda floor=before: self.acknowledged() > floor,
                    60,
                )
            time.sleep(self.source.uniform(0, 0.6))

    def acknowledged(self) -> int:
        return sum(len(client.acknowledged) for client in self.clients)


def wait_for(what: str, condition: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"timed out: {what}"
        time.sleep(0.1)


def kept_checkpoints(view: View) -> Iterator[tuple[int, bytes]]:
    """Yield size and note of each final checkpoint that a store keeps."""
    for key, _ in view.items(Database.CHECKPOINTS):
        note = view.checkpoint(number_of(key))
        assert note is not None
        yield number_of(key), note


def standings(network: kit.LocalNetwork, supervisor: kit.Party) -> dict[str, tuple[int, int, str]]:
    """Return what each node that answers says it has: log size, final size, root of the log."""
    found = {}
    for node in NODES:
        with supervisor.channel(network, node) as channel, contextlib.suppress(grpc.RpcError):
            told = kit.status(channel)
            found[node] = (told.log_size, told.final_size, told.log_root.hex())
    return found


def wait_until_equal(network: kit.LocalNetwork, supervisor: kit.Party) -> None:
    """Wait until all nodes have the same log, all of it final."""
    until = time.monotonic() + CONVERGE_S
    while True:
        found = standings(network, supervisor)
        is_final = all(size == final for size, final, _ in found.values())
        if is_final and len(found) == len(NODES) and len(set(found.values())) == 1:
            return
        assert time.monotonic() < until, f"replicas are not equal: {found}"
        time.sleep(0.1)


async def run_network(
    network: kit.LocalNetwork, nursery: Nursery, kills: int, seed: int
) -> tuple[list[Client], set[bytes], int]:
    """Run the network under load and kills until it has converged again; return clients, all notes seen, and kills."""
    network_id = kit.network_id(network)
    supervisor = kit.Party(network, "central-bank", network_id)
    nodes = [nursery.node(network, name) for name in NODES]
    ends = threading.Event()
    parties = [kit.Party(network, f"p0{number}", network_id) for number in range(1, CLIENTS + 1)]
    clients = [Client(network, party, ends) for party in parties]
    stopped = threading.Event()
    watchers = [Watcher(network, supervisor, node, stopped) for node in NODES]
    tap = Tap(kit.config_of(network, "p03"))
    banker = Banker(network, supervisor, clients, ends)
    killer = Killer(nodes, clients, random.Random(seed))
    for node in nodes:
        node.start()
    for thread in (*clients, banker, *watchers):
        thread.start()
    tapping = asyncio.create_task(tap.run())
    try:
        await asyncio.to_thread(killer.run, kills)
        ends.set()
        for client in clients:
            await asyncio.to_thread(client.join, CONVERGE_S)
            assert not client.is_alive()
        await asyncio.to_thread(banker.join, CONVERGE_S)
        assert not banker.is_alive()
        assert banker.affirmed > 0
        assert banker.cycles > 0
        await asyncio.to_thread(wait_until_equal, network, supervisor)
        await asyncio.sleep(0.5)
    finally:
        ends.set()
        tapping.cancel()
        await asyncio.gather(tapping, return_exceptions=True)
        stopped.set()
        for node in nodes:
            await asyncio.to_thread(node.stop)
        # They read the network's files, which whoever asked for it removes.
        for watcher in watchers:
            await asyncio.to_thread(watcher.join)
    return clients, tap.notes.union(*(watcher.notes for watcher in watchers)), killer.killed


@dataclass(frozen=True, slots=True)
class Survived:
    """What a run of kills came through with: counts, all at least 1."""

    kills: int
    submissions: int
    repeats: int
    heads: int
    seed: int


def kill_and_check(path: Path, kills: int, seed: int) -> Survived:
    """Run a network in the new directory `path`, kill its nodes `kills` times at least, and check what it holds."""
    network = kit.new_network(path)
    with Nursery() as nursery:
        clients, notes, killed = asyncio.run(run_network(network, nursery, kills, seed))
    heads = check_stores(network, clients, notes)
    # Enough heads were seen that a second one of some size would have shown.
    assert heads > kills // 4
    # And a replay of each gives what is stored.
    policy = Policy.parse(network.policy_path.read_bytes())
    for node in NODES:
        findings = check_directory(kit.config_of(network, node).data_dir, policy)
        assert [str(finding) for finding in findings if finding.is_damage] == []
    submissions = sum(len(client.sent) for client in clients)
    return Survived(killed, submissions, sum(c.repeats for c in clients), heads, seed)


def check_stores(network: kit.LocalNetwork, clients: list[Client], notes: set[bytes]) -> int:
    """Check that nothing is lost or recorded twice, that there is one head a size, and that replicas are equal.

    Returns: the number of sizes that a head was seen of.
    """
    stores = {node: kit.open_store(network, node) for node in NODES}
    try:
        # Nothing acknowledged is lost, nothing is recorded twice.
        leader = stores[LEADER]
        with leader.snapshot() as view:
            leaves = [view.leaf(index) for index in range(view.tip.log_size)]
        times_recorded = Counter(leaves)
        for client in clients:
            assert len(client.acknowledged) == len(client.sent) > 0
            for submission in client.sent:
                assert leaves[client.acknowledged[submission.client_id]] == submission.leaf
                assert times_recorded[submission.leaf] == 1
        # One head a size, of all that anybody ever saw or keeps.
        for store in stores.values():
            with store.snapshot() as view:
                notes |= {note for _, note in kept_checkpoints(view)}
        texts = kit.texts_by_size(notes)
        assert [size for size, seen in texts.items() if len(seen) > 1] == []
        # Replicas are equal.
        expected = kit.contents(leader)
        assert kit.contents(stores["ministry"]) == expected
        for node in WITNESSES:
            assert kit.log_contents(stores[node]) == kit.log_contents(leader)
    finally:
        for store in stores.values():
            store.close()
    return len(texts)
