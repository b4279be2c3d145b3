"""A follower goes on after whatever passes, and stops at what does not."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import grpc
import pytest

from clearing.log.note import Note
from clearing.log.policy import Log, Policy
from node.files import PUBLIC_MODE, replace_file
from node.replication.link import Link
from node.replication.replica import ReceivedBlock, WitnessReplica
from node.runtime import Runtime
from node.services.facade import (
    Handshake,
    NodeCondition,
    NodeKind,
    NotHeldError,
    NotLeaderError,
    NotServingError,
)
from node.store import Store, StoreBusyError, StoreFullError
from node.store.tables import Database, number_of
from node.testnet.layout import LocalNetwork
from node.testnet.plan import LEADER
from tests.clearing.log.support import log_signer
from tests.node import network_kit as kit

TRIO = (LEADER, "ministry", "p01")


@pytest.fixture
def network(tmp_path: Path) -> LocalNetwork:
    return kit.new_network(tmp_path / "network")


@pytest.mark.parametrize("error", [StoreFullError("the disk is nearly full"), StoreBusyError("x")])
def test_a_full_disk_is_waited_out(
    network: LocalNetwork, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [error, error]
    real = Store.append

    def append(self: Store, *blocks: Any) -> None:
        if failures:
            raise failures.pop()
        real(self, *blocks)

    monkeypatch.setattr(Store, "append", append)

    @kit.on(network, *TRIO)
    async def run(nodes: kit.Nodes) -> None:
        await kit.converge(nodes)
        assert failures == []
        assert kit.condition(nodes["p01"]) is NodeCondition.SERVING


def test_while_the_disk_is_full_it_says_so(
    network: LocalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def append(self: Store, *blocks: Any) -> None:
        raise StoreFullError("the disk is nearly full; free some")

    monkeypatch.setattr(Store, "append", append)

    @kit.on(network, LEADER, "p01")
    async def run(nodes: kit.Nodes) -> None:
        await kit.until("says so", lambda: kit.condition(nodes["p01"]) is NodeCondition.DISK_FULL)
        assert "free some" in nodes["p01"].member.standing()[1]


def test_a_defect_stops_the_follower(
    network: LocalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take(self: WitnessReplica, block: ReceivedBlock) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(WitnessReplica, "take", take)

    @kit.on(network, LEADER, "p01")
    async def run(nodes: kit.Nodes) -> None:
        await asyncio.wait_for(nodes["p01"].halted.wait(), 60)
        assert nodes["p01"].halt_reason == "RuntimeError: a defect"
        assert kit.condition(nodes["p01"]) is NodeCondition.HALTED


def test_a_leader_whose_key_the_policy_does_not_list_is_not_followed(
    network: LocalNetwork,
) -> None:
    policy = Policy.parse(network.policy_path.read_bytes())
    stranger = dataclasses.replace(log_signer().key, name=policy.logs[0].key.name)
    other = dataclasses.replace(policy, logs=(Log(stranger),))
    replace_file(kit.config_of(network, "p01").policy_path, other.encode(), PUBLIC_MODE)

    @kit.on(network, LEADER, "p01")
    async def run(nodes: kit.Nodes) -> None:
        await kit.until("refused", lambda: "not the protocol" in nodes["p01"].member.standing()[1])
        assert kit.condition(nodes["p01"]) is NodeCondition.CATCHING_UP
        assert nodes["p01"].member.status().log_size == 0


def test_two_networks_do_not_mix(network: LocalNetwork, tmp_path: Path) -> None:
    """A witness of one network is started with the database of another."""
    other = kit.new_network(tmp_path / "other")

    @kit.on(other, LEADER, "p01")
    async def fill(nodes: kit.Nodes) -> None:
        await kit.until("has block 0", lambda: nodes["p01"].member.status().log_size == 2)

    foreign = dataclasses.replace(
        kit.config_of(network, "p01"), data_dir=kit.config_of(other, "p01").data_dir
    )

    async def main() -> None:
        async with kit.running(network, LEADER) as nodes:
            nodes["p01"] = await Runtime.start(foreign)
            await kit.until(
                "refused", lambda: "FAILED_PRECONDITION" in nodes["p01"].member.standing()[1]
            )
            assert not any(r.connected for r in nodes[LEADER].member.status().replicas)

    asyncio.run(main())


def test_a_follower_answers_what_it_can_and_names_the_leader_for_the_rest(
    network: LocalNetwork,
) -> None:
    @kit.on(network)
    async def run(nodes: kit.Nodes) -> None:
        await kit.converge(nodes)
        witness, full = nodes["p01"].member, nodes["ministry"].member
        with pytest.raises(NotHeldError):
            witness.position_proof(0, 0)
        assert full.position_proof(0, 0) == nodes[LEADER].member.position_proof(0, 0)
        endpoint = network.endpoint(LEADER)
        handshake = Handshake("p02", NodeKind.WITNESS_REPLICA, 0, b"", b"")
        for member in (witness, full):
            with pytest.raises(NotLeaderError) as refused:
                await anext(member.stream(handshake))
            assert refused.value.endpoint == endpoint
            with pytest.raises(NotLeaderError):
                await member.add_cosignature("p02", b"")
            with pytest.raises(NotLeaderError):
                await member.submit(None)
            policy = Policy.parse(network.policy_path.read_bytes())
            keys = {w.name: w.key for w in policy.witnesses}
            name = member.status().name
            await kit.until("cosigned", lambda member=member: member.head().note)
            head = Note.parse(member.head().note)
            assert [s.key for s in head.verified_by([keys[name]])] == [keys[name]]
            head.verified_by([log.key for log in policy.logs])


def test_final_beyond_waits_and_ends_with_the_node(network: LocalNetwork) -> None:
    p01 = kit.Party(network, "p01", kit.network_id(network))

    @kit.on(network)
    async def run(nodes: kit.Nodes) -> None:
        await kit.converge(nodes)
        size = nodes["p01"].member.status().final_size
        for name in (LEADER, "p01", "ministry"):
            await asyncio.wait_for(nodes[name].member.final_beyond(size - 1), 30)
        waits = [asyncio.create_task(n.member.final_beyond(size)) for n in nodes.values()]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in waits)
        await kit.record(nodes, p01, 1)
        await asyncio.wait_for(asyncio.gather(*waits), 60)
        last = asyncio.create_task(nodes["p01"].member.final_beyond(1000))
        await asyncio.sleep(0)
        await nodes.pop("p01").stop()
        with pytest.raises(NotServingError):
            await last


def test_a_cosignature_the_leader_does_not_take_changes_nothing(
    network: LocalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(self: Any, note: bytes) -> int:
        raise grpc.aio.AioRpcError(
            grpc.StatusCode.INVALID_ARGUMENT, grpc.aio.Metadata(), grpc.aio.Metadata(), "no"
        )

    monkeypatch.setattr("node.replication.link.Link.add_cosignature", refuse)
    p01 = kit.Party(network, "p01", kit.network_id(network))

    @kit.on(network)
    async def run(nodes: kit.Nodes) -> None:
        await kit.record(nodes, p01, 2)
        await kit.until(
            "all have it", lambda: {n.member.status().log_size for n in nodes.values()} == {6}
        )
        assert nodes[LEADER].member.final is None
        assert kit.condition(nodes["ministry"]) is NodeCondition.SERVING


def test_a_cosignature_that_was_lost_on_its_way_is_sent_again(
    network: LocalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: set[bytes] = set()
    real = Link.add_cosignature

    async def lose_once(self: Link, note: bytes) -> int:
        if note not in lost:
            lost.add(note)
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.DEADLINE_EXCEEDED, grpc.aio.Metadata(), grpc.aio.Metadata(), "late"
            )
        return await real(self, note)

    monkeypatch.setattr(Link, "add_cosignature", lose_once)
    p01 = kit.Party(network, "p01", kit.network_id(network))

    @kit.on(network, *TRIO)
    async def run(nodes: kit.Nodes) -> None:
        await kit.record(nodes, p01, 1)
        # No other block comes whose head would cover this one.
        await kit.converge(nodes)
        assert lost
        assert nodes[LEADER].member.final is not None


def test_signature_lines_of_older_heads_are_dropped(
    network: LocalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.replication.follower.DROP_EVERY", 4)
    p01 = kit.Party(network, "p01", kit.network_id(network))

    @kit.on(network, *TRIO)
    async def run(nodes: kit.Nodes) -> None:
        for _ in range(9):
            await kit.record(nodes, p01, 1)
            await kit.converge(nodes)

    with kit.open_store(network, "ministry") as store, store.snapshot() as view:
        sizes = [number_of(key[:8]) for key, _ in view.items(Database.COSIGNATURES)]
        assert 1 <= len(sizes) <= 4
        assert max(sizes) == view.tip.log_size
