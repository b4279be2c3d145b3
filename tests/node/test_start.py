"""What a node checks when it starts and stops for: clock, defects, files that do not fit, a taken port."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from pathlib import Path

import pytest

from clearing.errors import InvariantViolation
from clearing.log.policy import Policy
from node import runtime as runtime_module
from node.errors import SetupError
from node.files import PUBLIC_MODE, replace_file
from node.runtime import Runtime
from node.sequencer import driver
from node.sequencer.clock import DOWNTIME_MS_MAX, BlockClock, wall_ms
from node.services.facade import (
    NodeCondition,
    NotServingError,
    OutcomeUnknownError,
)
from node.store import Store, StoreBusyError, StoreLockedError, StoreSchemaError
from node.testnet.layout import LocalNetwork
from node.testnet.plan import LEADER
from tests.node import network_kit as kit

MINISTRY = "ministry"


@pytest.fixture
def network(tmp_path: Path) -> LocalNetwork:
    return kit.new_network(tmp_path / "network")


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
        assert kit.condition(node) is NodeCondition.CLOCK_AHEAD
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

        @kit.on(network, LEADER)
        async def run(nodes: kit.Nodes) -> None:
            patched.setattr(driver.ledger, "apply", defective)
            with pytest.raises((NotServingError, OutcomeUnknownError)):
                await nodes[LEADER].member.submit(p01.owes(4, 1))
            await asyncio.wait_for(nodes[LEADER].halted.wait(), 30)
            assert nodes[LEADER].halt_reason == "InvariantViolation: a contradiction"
            assert kit.condition(nodes[LEADER]) is NodeCondition.HALTED

    assert (kit.config_of(network, LEADER).data_dir / "halt.json").exists()

    @kit.on(network, LEADER)
    async def again(nodes: kit.Nodes) -> None:
        assert await kit.record(nodes, p01, 1) == [2]


def test_work_beside_the_ledger_that_fails_begins_anew(
    network: LocalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_module, "BEGIN_ANEW_S_MIN", 0.01)
    looked: list[int] = []

    def busy_once(_: driver.Machine) -> list[object]:
        looked.append(len(looked))
        if len(looked) == 1:
            raise StoreBusyError("more than 1024 reads at once")
        return []

    monkeypatch.setattr(driver.Machine, "set_offs_awaited", busy_once)

    @kit.on(network, LEADER)
    async def run(nodes: kit.Nodes) -> None:
        await kit.until("the proposer looked again", lambda: len(looked) > 1)
        assert kit.condition(nodes[LEADER]) is NodeCondition.SERVING


def test_two_nodes_on_one_directory_are_refused(network: LocalNetwork) -> None:
    @kit.on(network, LEADER)
    async def run(nodes: kit.Nodes) -> None:
        with pytest.raises(StoreLockedError):
            await Runtime.start(kit.config_of(network, LEADER))
        assert kit.condition(nodes[LEADER]) is NodeCondition.SERVING


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
    @kit.on(network, LEADER)
    async def run(nodes: kit.Nodes) -> None:
        taken = dataclasses.replace(kit.config_of(network, "p01"), listen=network.endpoint(LEADER))
        with pytest.raises(SetupError, match="listen"):
            await Runtime.start(taken)
        nodes["p01"] = await Runtime.start(kit.config_of(network, "p01"))
