"""Whole networks in one process, over real sockets: agreement, restarts, liars, old backups, named refusals."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from clearing.errors import InvariantViolation
from clearing.log.note import Note
from clearing.log.policy import Policy
from clearing.records.instruction import InstructionKind, ItemSelection, make_instruction
from clearing.records.leaves import LeafKind, leaf_kind
from clearing.records.redacted import RedactedSubmission
from clearing.records.submission import Submission
from node import runtime as runtime_module
from node.errors import SetupError
from node.files import PUBLIC_MODE, replace_file
from node.replication.divergence import REPORT_NAME, parse_report
from node.replication.leader import Leader
from node.replication.source import BlockSource, Rights
from node.rpc_errors import decode_details
from node.runtime import Runtime
from node.sequencer import driver
from node.sequencer.clock import DOWNTIME_MS_MAX, BlockClock, wall_ms
from node.services.facade import (
    BlockPart,
    NodeCondition,
    NotServingError,
    OutcomeUnknownError,
)
from node.store import Store, StoreLockedError, StoreSchemaError
from node.store.heads import HEADS_FILE
from node.testnet.layout import LocalNetwork
from node.testnet.plan import LEADER, NODES, WITNESSES
from tests.ledger_kit import item
from tests.node import network_kit as kit

MINISTRY = "ministry"
Nodes = dict[str, Runtime]


@pytest.fixture
def network(tmp_path: Path) -> LocalNetwork:
    return kit.new_network(tmp_path / "network")


def on(network: LocalNetwork, *names: str) -> Callable[[Callable[[Nodes], Awaitable[None]]], None]:
    """Run a coroutine with nodes running; all of them unless named."""

    def run(work: Callable[[Nodes], Awaitable[None]]) -> None:
        async def main() -> None:
            async with kit.running(network, *names) as nodes:
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

    await kit.until("equal and final", equal)


async def record(nodes: Nodes, party: kit.Party, count: int, creditor: int = 4) -> list[int]:
    """Submit single obligations to the leader once it serves, one after the other, and return their indices."""
    leader = nodes[LEADER].member
    await kit.until("serves", lambda: condition(nodes[LEADER]) is NodeCondition.SERVING)
    return [(await leader.submit(party.owes(creditor, 1 + n))).index for n in range(count)]


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

    @on(network)
    async def run(nodes: Nodes) -> None:
        leader = nodes[LEADER].member
        mixed = p01.submission(item(p01.number, p02.number, 5), item(p01.number, 5, 6))
        first = (await leader.submit(mixed)).index
        affirm = instruct(p02, InstructionKind.AFFIRM, ItemSelection(first).encode())
        assert (await leader.submit(affirm)).code == 0
        assert (await leader.submit(instruct(bank, InstructionKind.RUN_CYCLE, b""))).code == 0
        await asyncio.wait_for(leader.final_beyond(first + 3), 60)
        await converge(nodes)
        assert {condition(node) for node in nodes.values()} == {NodeCondition.SERVING}
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

    @on(network)
    async def run(nodes: Nodes) -> None:
        await record(nodes, p01, 5)
        await converge(nodes)
        for node in nodes.values():
            size, note = node.member.final
            quorum = policy.check(Note.parse(note))
            assert quorum.checkpoint.size == size == node.member.status().log_size
            assert {LEADER, MINISTRY} < set(quorum.cosignatures)


def test_a_follower_refuses_writes_and_names_the_leader(network: LocalNetwork) -> None:
    p01 = kit.Party(network, "p01", kit.network_id(network))

    @on(network, LEADER, "p01")
    async def run(nodes: Nodes) -> None:
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

    @on(network)
    async def run(nodes: Nodes) -> None:
        await record(nodes, p01, 3)
        for _ in range(2):
            await nodes.pop(LEADER).stop()
            await kit.until(
                "noticed", lambda: condition(nodes[MINISTRY]) is NodeCondition.CATCHING_UP
            )
            nodes[LEADER] = await Runtime.start(kit.config_of(network, LEADER))
            await record(nodes, p01, 3)
            await converge(nodes)
        await kit.until(
            "all serve", lambda: {condition(n) for n in nodes.values()} == {NodeCondition.SERVING}
        )


def test_a_restarted_leader_waits_for_the_quorums_heads(network: LocalNetwork) -> None:
    p01 = kit.Party(network, "p01", kit.network_id(network))

    @on(network)
    async def before(nodes: Nodes) -> None:
        await record(nodes, p01, 2)
        await converge(nodes)

    @on(network, LEADER)
    async def run(nodes: Nodes) -> None:
        leader = nodes[LEADER].member
        before = leader.status()
        for name in (None, "p02", MINISTRY):
            assert condition(nodes[LEADER]) is NodeCondition.WAITING_FOR_REPLICAS
            with pytest.raises(NotServingError):
                await leader.submit(p01.owes(4, 1))
            assert leader.status().final_size == before.final_size == before.log_size
            if name:
                nodes[name] = await Runtime.start(kit.config_of(network, name))
                await kit.until("connected", lambda name=name: is_connected(leader, name))
        await record(nodes, p01, 1)
        await converge(nodes)


def is_connected(leader: Any, name: str) -> bool:
    return any(r.connected for r in leader.status().replicas if r.name == name)


def test_an_acknowledged_block_that_was_not_final_becomes_final_after_a_restart(
    network: LocalNetwork,
) -> None:
    p01 = kit.Party(network, "p01", kit.network_id(network))

    @on(network, LEADER)
    async def alone(nodes: Nodes) -> None:
        await record(nodes, p01, 3)
        await kit.until("signed", lambda: nodes[LEADER].member.latest_note() is not None)
        assert nodes[LEADER].member.final is None

    @on(network)
    async def run(nodes: Nodes) -> None:
        await converge(nodes)
        assert nodes[LEADER].member.status().final_size == 8


def test_a_follower_catches_up_from_any_size(network: LocalNetwork) -> None:
    p01 = kit.Party(network, "p01", kit.network_id(network))

    @on(network, LEADER, MINISTRY, "p01")
    async def run(nodes: Nodes) -> None:
        await record(nodes, p01, 4)
        for joins, leaves in (("p02", MINISTRY), (MINISTRY, "p02"), ("p03", "p01"), ("p02", "p03")):
            await nodes.pop(leaves).stop()
            await record(nodes, p01, 4)
            nodes[joins] = await Runtime.start(kit.config_of(network, joins))
            await kit.until(
                "caught up",
                lambda joins=joins: (
                    nodes[joins].member.status().log_size == nodes[LEADER].member.status().log_size
                ),
            )
        nodes["p01"] = await Runtime.start(kit.config_of(network, "p01"))
        nodes["p03"] = await Runtime.start(kit.config_of(network, "p03"))
        await converge(nodes)


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

        @on(network)
        async def run(nodes: Nodes) -> None:
            await converge(nodes)
            await record(nodes, p01, 1)
            await kit.until(
                "diverged", lambda: condition(nodes[MINISTRY]) is NodeCondition.DIVERGED
            )
            ministry = nodes[MINISTRY].member
            check_report(ministry.status().divergence_report)
            assert report_path.read_bytes() == ministry.status().divergence_report
            # It keeps serving what it holds, takes nothing more, and nothing becomes final without it.
            with ministry.snapshot() as view:
                assert view.tip.log_size == 2
            await record(nodes, p01, 1)
            await kit.until("p02 has it", lambda: nodes["p02"].member.status().log_size == 6)
            assert ministry.status().log_size == 2
            assert nodes[LEADER].member.status().final_size == 2

    # Restarted it stays diverged, also beside an honest leader, until the operator has seen to it.
    @on(network)
    async def sticky(nodes: Nodes) -> None:
        assert condition(nodes[MINISTRY]) is NodeCondition.DIVERGED
        check_report(nodes[MINISTRY].member.status().divergence_report)

    report_path.unlink()

    @on(network)
    async def healed(nodes: Nodes) -> None:
        await converge(nodes)
        assert condition(nodes[MINISTRY]) is NodeCondition.SERVING


# -- old backups


def back_up(network: LocalNetwork, node: str, name: str) -> Path:
    target = network.path.parent / name
    shutil.copytree(kit.config_of(network, node).data_dir, target)
    return target


def restore(network: LocalNetwork, node: str, backup: Path) -> None:
    data = kit.config_of(network, node).data_dir
    shutil.rmtree(data)
    shutil.copytree(backup, data)


def with_old_backup(network: LocalNetwork, node: str) -> kit.Party:
    """Leave the directory of `node` as it was some blocks ago."""
    p01 = kit.Party(network, "p01", kit.network_id(network))

    @on(network)
    async def first(nodes: Nodes) -> None:
        await record(nodes, p01, 2)
        await converge(nodes)

    backup = back_up(network, node, "backup")

    @on(network)
    async def second(nodes: Nodes) -> None:
        await record(nodes, p01, 2)
        await converge(nodes)

    restore(network, node, backup)
    return p01


def test_a_leader_from_an_old_backup_signs_and_writes_nothing(network: LocalNetwork) -> None:
    p01 = with_old_backup(network, LEADER)

    @on(network)
    async def run(nodes: Nodes) -> None:
        leader = nodes[LEADER].member
        await kit.until(
            "rollback detected", lambda: condition(nodes[LEADER]) is NodeCondition.ROLLBACK_DETECTED
        )
        with pytest.raises(NotServingError) as refused:
            await leader.submit(p01.owes(4, 1))
        assert refused.value.condition is NodeCondition.ROLLBACK_DETECTED
        before = leader.latest_note()
        await asyncio.sleep(0.5)
        assert leader.latest_note() == before
        assert leader.status().log_size == 6
        # Reads go on, and the followers keep what they have.
        with leader.snapshot() as view:
            assert view.latest_checkpoint()[0] == 6
        assert nodes[MINISTRY].member.status().log_size == 10


def test_a_leaders_old_database_beside_its_newer_heads_file_is_found_at_once(
    network: LocalNetwork,
) -> None:
    data = kit.config_of(network, LEADER).data_dir
    kept = network.path.parent / "heads"
    p01 = kit.Party(network, "p01", kit.network_id(network))

    @on(network)
    async def first(nodes: Nodes) -> None:
        await record(nodes, p01, 1)
        await converge(nodes)

    backup = back_up(network, LEADER, "backup")

    @on(network)
    async def second(nodes: Nodes) -> None:
        await record(nodes, p01, 1)
        await converge(nodes)

    shutil.copy(data / HEADS_FILE, kept)
    restore(network, LEADER, backup)
    shutil.copy(kept, data / HEADS_FILE)

    @on(network, LEADER)
    async def run(nodes: Nodes) -> None:
        assert condition(nodes[LEADER]) is NodeCondition.ROLLBACK_DETECTED
        with pytest.raises(NotServingError):
            await nodes[LEADER].member.submit(p01.owes(4, 1))


def test_the_ministrys_copy_heals_the_leader(network: LocalNetwork) -> None:
    p01 = with_old_backup(network, LEADER)
    leader_data = kit.config_of(network, LEADER).data_dir
    ministry_data = kit.config_of(network, MINISTRY).data_dir
    shutil.copy(ministry_data / "data.mdb", leader_data / "data.mdb")

    @on(network)
    async def run(nodes: Nodes) -> None:
        await record(nodes, p01, 2)
        await converge(nodes)
        assert nodes[LEADER].member.status().log_size == 14


def test_a_follower_from_an_old_backup_cosigns_again_once_it_has_caught_up(
    network: LocalNetwork,
) -> None:
    data = kit.config_of(network, MINISTRY).data_dir
    kept = network.path.parent / "heads"
    p01 = kit.Party(network, "p01", kit.network_id(network))

    @on(network)
    async def first(nodes: Nodes) -> None:
        await converge(nodes)

    backup = back_up(network, MINISTRY, "backup")

    @on(network)
    async def second(nodes: Nodes) -> None:
        await record(nodes, p01, 3)
        await converge(nodes)

    shutil.copy(data / HEADS_FILE, kept)
    restore(network, MINISTRY, backup)
    shutil.copy(kept, data / HEADS_FILE)

    @on(network)
    async def run(nodes: Nodes) -> None:
        await record(nodes, p01, 1)
        await converge(nodes)
        assert condition(nodes[MINISTRY]) is NodeCondition.SERVING


def test_a_follower_that_cannot_know_what_it_signed_cosigns_nothing(network: LocalNetwork) -> None:
    p01 = kit.Party(network, "p01", kit.network_id(network))

    @on(network)
    async def first(nodes: Nodes) -> None:
        await record(nodes, p01, 1)
        await converge(nodes)

    (kit.config_of(network, MINISTRY).data_dir / HEADS_FILE).unlink()

    @on(network)
    async def run(nodes: Nodes) -> None:
        await record(nodes, p01, 1)
        await kit.until("follows", lambda: nodes[MINISTRY].member.status().log_size == 6)
        assert condition(nodes[MINISTRY]) is NodeCondition.ROLLBACK_DETECTED
        await asyncio.sleep(0.3)
        assert nodes[LEADER].member.status().final_size == 4


# -- clock, defects, files that do not fit


def test_a_node_started_after_a_clock_jump_waits_for_confirmation(
    network: LocalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    p01 = kit.Party(network, "p01", kit.network_id(network))
    later = functools.partial(BlockClock, wall=lambda: wall_ms() + 2 * DOWNTIME_MS_MAX)
    monkeypatch.setattr(runtime_module, "BlockClock", later)

    async def main() -> None:
        config = kit.config_of(network, LEADER)
        node = await Runtime.start(config)
        assert condition(node) is NodeCondition.CLOCK_AHEAD
        with pytest.raises(NotServingError, match="--confirm-time"):
            await node.member.submit(p01.owes(4, 1))
        assert node.member.status().log_size == 2
        await node.stop()
        node = await Runtime.start(config, confirm_time=True)
        assert (await node.member.submit(p01.owes(4, 1))).code == 0
        await node.stop()

    asyncio.run(main())


def test_a_defect_stops_the_node_and_the_next_start_goes_on(
    network: LocalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    p01 = kit.Party(network, "p01", kit.network_id(network))

    def defective(*_: object) -> None:
        raise InvariantViolation("a contradiction")

    with monkeypatch.context() as patched:

        @on(network, LEADER)
        async def run(nodes: Nodes) -> None:
            patched.setattr(driver.ledger, "apply", defective)
            with pytest.raises((NotServingError, OutcomeUnknownError)):
                await nodes[LEADER].member.submit(p01.owes(4, 1))
            await asyncio.wait_for(nodes[LEADER].halted.wait(), 30)
            assert nodes[LEADER].halt_reason == "InvariantViolation: a contradiction"
            assert condition(nodes[LEADER]) is NodeCondition.HALTED

    assert (kit.config_of(network, LEADER).data_dir / "halt.json").exists()

    @on(network, LEADER)
    async def again(nodes: Nodes) -> None:
        assert await record(nodes, p01, 1) == [2]


def test_two_nodes_on_one_directory_are_refused(network: LocalNetwork) -> None:
    @on(network, LEADER)
    async def run(nodes: Nodes) -> None:
        with pytest.raises(StoreLockedError):
            await Runtime.start(kit.config_of(network, LEADER))
        assert condition(nodes[LEADER]) is NodeCondition.SERVING


def start_fails(network: LocalNetwork, node: str, **changes: object) -> str:
    config = dataclasses.replace(kit.config_of(network, node), **changes)

    async def main() -> str:
        with pytest.raises((SetupError, StoreSchemaError)) as refused:
            await Runtime.start(config)
        return str(refused.value)

    return asyncio.run(main())


def test_files_that_do_not_fit_each_other_are_refused_by_name(network: LocalNetwork) -> None:
    leader, p01 = (kit.config_of(network, name) for name in (LEADER, "p01"))
    text = start_fails(
        network, "p02", signing_key_path=p01.signing_key_path, key_file_path=p01.key_file_path
    )
    assert "is not the key of p02" in text
    text = start_fails(network, LEADER, log_key_path=leader.signing_key_path)
    assert "is not the log's key" in text
    assert "passphrase" in start_fails(network, "p02", key_file_path=None)
    empty = network.path / "empty"
    Store.open(empty).close()
    assert "holds no ledger" in start_fails(network, LEADER, data_dir=empty)
    assert "holds no store" in start_fails(network, LEADER, data_dir=network.path / "nothing")
    policy = Policy.parse(network.policy_path.read_bytes())
    without = network.path / "policy-of-log"
    replace_file(without, Policy.of_log(policy.logs[0].key).encode(), PUBLIC_MODE)
    assert "no witness p02" in start_fails(network, "p02", policy_path=without)


def test_a_taken_port_is_refused_by_name_and_leaves_nothing_open(network: LocalNetwork) -> None:
    @on(network, LEADER)
    async def run(nodes: Nodes) -> None:
        taken = dataclasses.replace(kit.config_of(network, "p01"), listen=network.endpoint(LEADER))
        with pytest.raises(SetupError, match="listen"):
            await Runtime.start(taken)
        nodes["p01"] = await Runtime.start(kit.config_of(network, "p01"))
