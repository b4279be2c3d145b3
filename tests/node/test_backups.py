"""Old copies of a node's directory: nothing is signed from them, and what heals them does."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from node.runtime import Runtime
from node.services.facade import (
    NodeCondition,
    NotServingError,
)
from node.store import RollbackDetectedError
from node.store.heads import HEADS_FILE
from node.testnet.layout import LocalNetwork
from node.testnet.plan import LEADER
from tests.node import network_kit as kit

MINISTRY = "ministry"


@pytest.fixture
def network(tmp_path: Path) -> LocalNetwork:
    return kit.new_network(tmp_path / "network")


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

    @kit.on(network)
    async def first(nodes: kit.Nodes) -> None:
        await kit.record(nodes, p01, 2)
        await kit.converge(nodes)

    backup = back_up(network, node, "backup")

    @kit.on(network)
    async def second(nodes: kit.Nodes) -> None:
        await kit.record(nodes, p01, 2)
        await kit.converge(nodes)

    restore(network, node, backup)
    return p01


def test_a_leader_from_an_old_backup_signs_and_writes_nothing(network: LocalNetwork) -> None:
    p01 = with_old_backup(network, LEADER)

    @kit.on(network)
    async def run(nodes: kit.Nodes) -> None:
        leader = nodes[LEADER].member
        await kit.until(
            "rollback detected",
            lambda: kit.condition(nodes[LEADER]) is NodeCondition.ROLLBACK_DETECTED,
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


def test_one_follower_that_remembers_more_stops_a_leader_that_serves_already(
    network: LocalNetwork,
) -> None:
    p01 = kit.Party(network, "p01", kit.network_id(network))
    restored = (LEADER, MINISTRY, "p01")

    @kit.on(network)
    async def first(nodes: kit.Nodes) -> None:
        await kit.record(nodes, p01, 2)
        await kit.converge(nodes)

    backups = {node: back_up(network, node, f"backup-{node}") for node in restored}

    @kit.on(network)
    async def second(nodes: kit.Nodes) -> None:
        await kit.record(nodes, p01, 2)
        await kit.converge(nodes)

    for node, backup in backups.items():
        restore(network, node, backup)

    @kit.on(network, *restored)
    async def run(nodes: kit.Nodes) -> None:
        leader = nodes[LEADER].member
        await kit.until("serves", lambda: kit.condition(nodes[LEADER]) is NodeCondition.SERVING)
        nodes["p03"] = await Runtime.start(kit.config_of(network, "p03"))
        await kit.until(
            "found out",
            lambda: kit.condition(nodes[LEADER]) is NodeCondition.ROLLBACK_DETECTED,
        )
        with pytest.raises(NotServingError):
            await leader.submit(p01.owes(4, 1))
        assert leader.status().log_size == 6
        assert "p03" in leader.status().condition_detail


def test_a_leaders_old_database_beside_its_newer_heads_file_is_found_at_once(
    network: LocalNetwork,
) -> None:
    data = kit.config_of(network, LEADER).data_dir
    kept = network.path.parent / "heads"
    p01 = kit.Party(network, "p01", kit.network_id(network))

    @kit.on(network)
    async def first(nodes: kit.Nodes) -> None:
        await kit.record(nodes, p01, 1)
        await kit.converge(nodes)

    backup = back_up(network, LEADER, "backup")

    @kit.on(network)
    async def second(nodes: kit.Nodes) -> None:
        await kit.record(nodes, p01, 1)
        await kit.converge(nodes)

    shutil.copy(data / HEADS_FILE, kept)
    restore(network, LEADER, backup)
    shutil.copy(kept, data / HEADS_FILE)

    @kit.on(network, LEADER)
    async def run(nodes: kit.Nodes) -> None:
        assert kit.condition(nodes[LEADER]) is NodeCondition.ROLLBACK_DETECTED
        with pytest.raises(NotServingError):
            await nodes[LEADER].member.submit(p01.owes(4, 1))


def test_the_ministrys_copy_heals_the_leader(network: LocalNetwork) -> None:
    p01 = with_old_backup(network, LEADER)
    leader_data = kit.config_of(network, LEADER).data_dir
    ministry_data = kit.config_of(network, MINISTRY).data_dir
    shutil.copy(ministry_data / "data.mdb", leader_data / "data.mdb")

    @kit.on(network)
    async def run(nodes: kit.Nodes) -> None:
        await kit.record(nodes, p01, 2)
        await kit.converge(nodes)
        assert nodes[LEADER].member.status().log_size == 14


def test_a_follower_from_an_old_backup_cosigns_again_once_it_has_caught_up(
    network: LocalNetwork,
) -> None:
    data = kit.config_of(network, MINISTRY).data_dir
    kept = network.path.parent / "heads"
    p01 = kit.Party(network, "p01", kit.network_id(network))

    @kit.on(network)
    async def first(nodes: kit.Nodes) -> None:
        await kit.converge(nodes)

    backup = back_up(network, MINISTRY, "backup")

    @kit.on(network)
    async def second(nodes: kit.Nodes) -> None:
        await kit.record(nodes, p01, 3)
        await kit.converge(nodes)

    shutil.copy(data / HEADS_FILE, kept)
    restore(network, MINISTRY, backup)
    shutil.copy(kept, data / HEADS_FILE)

    @kit.on(network)
    async def run(nodes: kit.Nodes) -> None:
        await kit.record(nodes, p01, 1)
        await kit.converge(nodes)
        assert kit.condition(nodes[MINISTRY]) is NodeCondition.SERVING


def test_a_follower_that_cannot_know_what_it_signed_does_not_follow(
    network: LocalNetwork,
) -> None:
    p01 = kit.Party(network, "p01", kit.network_id(network))
    data = kit.config_of(network, MINISTRY).data_dir

    @kit.on(network)
    async def first(nodes: kit.Nodes) -> None:
        await kit.record(nodes, p01, 1)
        await kit.converge(nodes)

    (data / HEADS_FILE).unlink()

    async def start() -> None:
        with pytest.raises(RollbackDetectedError, match="is gone"):
            await Runtime.start(kit.config_of(network, MINISTRY))

    asyncio.run(start())
    # Made anew from its peers it follows and cosigns.
    shutil.rmtree(data)

    @kit.on(network)
    async def anew(nodes: kit.Nodes) -> None:
        await kit.record(nodes, p01, 1)
        await kit.converge(nodes)
        assert kit.condition(nodes[MINISTRY]) is NodeCondition.SERVING
