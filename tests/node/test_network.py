"""Whole networks in one process, over real sockets: agreement, restarts, liars, old backups, named refusals."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import grpc
import pytest

from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note
from clearing.log.policy import Policy
from clearing.records.instruction import InstructionKind, ItemSelection, make_instruction
from clearing.records.leaves import LeafKind, leaf_kind
from clearing.records.redacted import RedactedSubmission
from clearing.records.submission import Submission
from node import runtime as runtime_module
from node.replication.divergence import REPORT_NAME, parse_report
from node.replication.handshake import HandshakeRule
from node.replication.leader import Leader
from node.replication.source import BlockSource, Rights
from node.rpc_errors import decode_details
from node.runtime import Runtime
from node.services.facade import (
    BlockPart,
    NodeCondition,
    NotServingError,
)
from node.testnet.layout import LocalNetwork
from node.testnet.plan import LEADER, NODES, WITNESSES
from tests.ledger_kit import item
from tests.node import network_kit as kit

MINISTRY = "ministry"


@pytest.fixture
def network(tmp_path: Path) -> LocalNetwork:
    return kit.new_network(tmp_path / "network")


# -- agreement


def test_five_nodes_reach_the_same_bytes_and_each_sees_what_it_may(network: LocalNetwork) -> None:
    p01 = kit.Party(network, "p01", kit.network_id(network))
    p02 = kit.Party(network, "p02", p01.network_id)
    bank = kit.Party(network, "central-bank", p01.network_id)

    def instruct(party: kit.Party, kind: InstructionKind, payload: bytes) -> Any:
        return make_instruction(
            network_id=party.network_id,
            kind=kind,
            actor=party.number,
            client_id=bytes(15) + bytes([kind]),
            salt=bytes(16),
            payload=payload,
            sign=party.key.sign,
        )

    @kit.on(network)
    async def run(nodes: kit.Nodes) -> None:
        leader = nodes[LEADER].member
        mixed = p01.submission(item(p01.number, p02.number, 5), item(p01.number, 5, 6))
        first = (await leader.submit(mixed)).index
        affirm = instruct(p02, InstructionKind.AFFIRM, ItemSelection(first).encode())
        assert (await leader.submit(affirm)).code == 0
        assert (await leader.submit(instruct(bank, InstructionKind.RUN_CYCLE, b""))).code == 0
        await asyncio.wait_for(leader.final_beyond(first + 3), 60)
        await kit.converge(nodes)
        assert {kit.condition(node) for node in nodes.values()} == {NodeCondition.SERVING}
        replicas = leader.status().replicas
        assert [replica.name for replica in replicas] == sorted(NODES[1:])
        await kit.until(
            "all cosign", lambda: all(r.cosigned_size for r in leader.status().replicas)
        )
        assert all(replica.connected for replica in replicas)
        registries = [node.member.registry for node in nodes.values()]
        assert all(registry == registries[0] for registry in registries)
        assert {node.member.network_id for node in nodes.values()} == {p01.network_id}

    stores = {node: kit.open_store(network, node) for node in NODES}
    assert kit.contents(stores[MINISTRY]) == kit.contents(stores[LEADER])
    held = {}
    for node in WITNESSES:
        assert kit.log_contents(stores[node]) == kit.log_contents(stores[LEADER])
        with stores[node].snapshot() as view:
            held[node] = view.records(2, 3)[0]
    assert leaf_kind(held["p01"].leaf) is LeafKind.SUBMISSION
    assert held["p01"].body
    assert not held["p01"].redacted
    for node, items in (("p02", [0]), ("p03", [1])):
        assert not held[node].body
        redacted = RedactedSubmission.decode(held[node].redacted)
        redacted.verify(Submission.of_leaf(held[node].leaf))
        assert [number for number, _ in redacted.openings] == items
    for store in stores.values():
        store.close()


def test_every_final_checkpoint_satisfies_the_policy_everywhere(network: LocalNetwork) -> None:
    p01 = kit.Party(network, "p01", kit.network_id(network))
    policy = Policy.parse(network.policy_path.read_bytes())

    @kit.on(network)
    async def run(nodes: kit.Nodes) -> None:
        await kit.record(nodes, p01, 5)
        await kit.converge(nodes)
        for node in nodes.values():
            size, note = node.member.final
            quorum = policy.check(Note.parse(note))
            assert quorum.checkpoint.size == size == node.member.status().log_size
            assert {LEADER, MINISTRY} < set(quorum.cosignatures)


def test_a_follower_refuses_writes_and_names_the_leader(network: LocalNetwork) -> None:
    p01 = kit.Party(network, "p01", kit.network_id(network))

    @kit.on(network, LEADER, "p01")
    async def run(nodes: kit.Nodes) -> None:
        await kit.until("registers are here", lambda: nodes["p01"].member.status().log_size == 2)
        with p01.channel(network, "p01") as channel, pytest.raises(grpc.RpcError) as refused:
            await asyncio.to_thread(kit.submit, channel, p01.owes(4, 1))
        error = refused.value
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        trailing = dict(error.trailing_metadata())
        details = decode_details(error.code(), error.details(), trailing["grpc-status-details-bin"])
        assert network.endpoint(LEADER) in str(details)


# -- restarts and catching up


def test_followers_survive_the_leaders_restart(network: LocalNetwork) -> None:
    p01 = kit.Party(network, "p01", kit.network_id(network))

    @kit.on(network)
    async def run(nodes: kit.Nodes) -> None:
        await kit.record(nodes, p01, 3)
        for _ in range(2):
            await nodes.pop(LEADER).stop()
            await kit.until(
                "noticed", lambda: kit.condition(nodes[MINISTRY]) is NodeCondition.CATCHING_UP
            )
            nodes[LEADER] = await Runtime.start(kit.config_of(network, LEADER))
            await kit.record(nodes, p01, 3)
            await kit.converge(nodes)
        await kit.until(
            "all serve",
            lambda: {kit.condition(n) for n in nodes.values()} == {NodeCondition.SERVING},
        )


def test_a_restarted_leader_waits_for_the_quorums_heads(network: LocalNetwork) -> None:
    p01 = kit.Party(network, "p01", kit.network_id(network))

    @kit.on(network)
    async def before(nodes: kit.Nodes) -> None:
        await kit.record(nodes, p01, 2)
        await kit.converge(nodes)

    @kit.on(network, LEADER)
    async def run(nodes: kit.Nodes) -> None:
        leader = nodes[LEADER].member
        before = leader.status()
        for name in (None, "p02", MINISTRY):
            assert kit.condition(nodes[LEADER]) is NodeCondition.WAITING_FOR_REPLICAS
            with pytest.raises(NotServingError):
                await leader.submit(p01.owes(4, 1))
            assert leader.status().final_size == before.final_size == before.log_size
            if name:
                nodes[name] = await Runtime.start(kit.config_of(network, name))
                await kit.until("connected", lambda name=name: is_connected(leader, name))
        await kit.record(nodes, p01, 1)
        await kit.converge(nodes)


def is_connected(leader: Any, name: str) -> bool:
    return any(r.connected for r in leader.status().replicas if r.name == name)


def test_an_acknowledged_block_that_was_not_final_becomes_final_after_a_restart(
    network: LocalNetwork,
) -> None:
    p01 = kit.Party(network, "p01", kit.network_id(network))

    @kit.on(network, LEADER)
    async def alone(nodes: kit.Nodes) -> None:
        await kit.record(nodes, p01, 3)
        await kit.until("signed", lambda: nodes[LEADER].member.latest_note() is not None)
        assert nodes[LEADER].member.final is None

    @kit.on(network)
    async def run(nodes: kit.Nodes) -> None:
        await kit.converge(nodes)
        assert nodes[LEADER].member.status().final_size == 8


def test_a_follower_catches_up_from_any_size(network: LocalNetwork) -> None:
    p01 = kit.Party(network, "p01", kit.network_id(network))

    @kit.on(network, LEADER, MINISTRY, "p01")
    async def run(nodes: kit.Nodes) -> None:
        await kit.record(nodes, p01, 4)
        for joins, leaves in (("p02", MINISTRY), (MINISTRY, "p02"), ("p03", "p01"), ("p02", "p03")):
            await nodes.pop(leaves).stop()
            await kit.record(nodes, p01, 4)
            nodes[joins] = await Runtime.start(kit.config_of(network, joins))
            await kit.until(
                "caught up",
                lambda joins=joins: (
                    nodes[joins].member.status().log_size == nodes[LEADER].member.status().log_size
                ),
            )
        nodes["p01"] = await Runtime.start(kit.config_of(network, "p01"))
        nodes["p03"] = await Runtime.start(kit.config_of(network, "p03"))
        await kit.converge(nodes)


# -- a lying leader


class Lie(BlockSource):
    """Shows full replicas a body that is not the one that was signed."""

    lies_to = "body"

    def parts(self, height: int, rights: Rights, note: bytes) -> list[BlockPart]:
        parts = super().parts(height, rights, note)
        return [self._bent(part) if rights.sees_all else part for part in parts]

    def _bent(self, part: BlockPart) -> BlockPart:
        entries = list(part.entries)
        for place, entry in enumerate(entries):
            if leaf_kind(entry.leaf) is LeafKind.SUBMISSION:
                entries[place] = self._lie(entry)
        return dataclasses.replace(part, entries=tuple(entries))

    @staticmethod
    def _lie(entry: Any) -> Any:
        return dataclasses.replace(entry, shown=entry.shown[:-1] + bytes([entry.shown[-1] ^ 1]))


class LeafLie(Lie):
    """Shows full replicas a leaf that is not the one that was signed."""

    @staticmethod
    def _lie(entry: Any) -> Any:
        return dataclasses.replace(entry, leaf=entry.leaf[:-1] + bytes([entry.leaf[-1] ^ 1]))


@pytest.mark.parametrize("lie", [Lie, LeafLie])
def test_a_lying_leader_is_found_out_and_reported(
    network: LocalNetwork, lie: type[BlockSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    class LyingLeader(Leader):
        def make_source(self) -> BlockSource:
            return lie(self._store)

    p01 = kit.Party(network, "p01", kit.network_id(network))
    policy = Policy.parse(network.policy_path.read_bytes())
    report_path = kit.config_of(network, MINISTRY).data_dir / REPORT_NAME

    def check_report(report: bytes) -> None:
        key = next(w.key for w in policy.witnesses if w.name == MINISTRY)
        Note.parse(report).verified_by([key])
        head, found, note = parse_report(report)
        assert (head.size, found.height) == (2, 1)
        assert found.leaf == 2
        assert found.received != found.computed
        assert Note.parse(note).verified_by([log.key for log in policy.logs])

    with monkeypatch.context() as patched:
        patched.setattr(runtime_module, "Leader", LyingLeader)

        @kit.on(network)
        async def run(nodes: kit.Nodes) -> None:
            await kit.converge(nodes)
            await kit.record(nodes, p01, 1)
            await kit.until(
                "diverged", lambda: kit.condition(nodes[MINISTRY]) is NodeCondition.DIVERGED
            )
            ministry = nodes[MINISTRY].member
            check_report(ministry.status().divergence_report)
            assert report_path.read_bytes() == ministry.status().divergence_report
            # It keeps serving what it holds, takes nothing more, and nothing becomes final without it.
            with ministry.snapshot() as view:
                assert view.tip.log_size == 2
            await kit.record(nodes, p01, 1)
            await kit.until("p02 has it", lambda: nodes["p02"].member.status().log_size == 6)
            assert ministry.status().log_size == 2
            assert nodes[LEADER].member.status().final_size == 2

    # Restarted it stays diverged, also beside an honest leader, until the operator has seen to it.
    @kit.on(network)
    async def sticky(nodes: kit.Nodes) -> None:
        assert kit.condition(nodes[MINISTRY]) is NodeCondition.DIVERGED
        check_report(nodes[MINISTRY].member.status().divergence_report)

    report_path.unlink()

    @kit.on(network)
    async def healed(nodes: kit.Nodes) -> None:
        await kit.converge(nodes)
        assert kit.condition(nodes[MINISTRY]) is NodeCondition.SERVING


# -- a log with two histories


def test_a_log_that_signs_a_second_history_is_found_out(
    network: LocalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader is put back by two blocks, asks nobody what they hold, and goes on otherwise."""
    p01 = kit.Party(network, "p01", kit.network_id(network))
    data = kit.config_of(network, LEADER).data_dir
    backup = network.path.parent / "backup"
    policy = Policy.parse(network.policy_path.read_bytes())

    @kit.on(network)
    async def first(nodes: kit.Nodes) -> None:
        await kit.record(nodes, p01, 2)
        await kit.converge(nodes)

    shutil.copytree(data, backup)

    @kit.on(network)
    async def second(nodes: kit.Nodes) -> None:
        await kit.record(nodes, p01, 2)
        await kit.converge(nodes)

    shutil.rmtree(data)
    shutil.copytree(backup, data)
    monkeypatch.setattr(HandshakeRule, "refusal", None)
    monkeypatch.setattr(HandshakeRule, "report", lambda *_: None)

    @kit.on(network, LEADER)
    async def forked(nodes: kit.Nodes) -> None:
        await kit.record(nodes, p01, 2)
        leader = nodes[LEADER].member
        await kit.until(
            "signed", lambda: Checkpoint.parse(Note.parse(leader.latest_note()).text).size == 10
        )
        for name in ("ministry", "p02"):
            nodes[name] = await Runtime.start(kit.config_of(network, name))
            await kit.until(
                "diverged",
                lambda name=name: kit.condition(nodes[name]) is NodeCondition.DIVERGED,
            )
            # Two notes that the log has signed over ten leaves, with different roots: the proof.
            head, found, note = parse_report(nodes[name].member.status().divergence_report)
            assert found.why == "the log has signed another history of 10 leaves"
            before = Note.parse(nodes[name].member.final[1])
            logs = [log.key for log in policy.logs]
            for signed in (before, Note.parse(note)):
                signed.verified_by(logs)
            heads = [Checkpoint.parse(one.text) for one in (before, Note.parse(note))]
            assert [one.size for one in heads] == [10, 10]
            assert heads[0].root == head.root != heads[1].root
        # Without them nothing of the second history becomes final.
        assert leader.status().final_size == 6
