"""A running network nets by methods that governance chose; nobody takes a wrong solution."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clearing.errors import RejectCode
from clearing.handlers.solutions import Problem
from clearing.netting import certificate, wide
from clearing.netting.pairs import PairTotals
from clearing.records.instruction import APPROVAL_LAYOUT, InstructionKind, ItemSelection
from clearing.records.solution import Solution
from clearing.rules.governance import encode_actions
from clearing.rules.registry import Action, ActionKind
from clearing.types import CycleState, NettingMethod, ResultOutcome
from node import queries
from node.replication.leader import Leader
from node.services.facade import NodeCondition
from node.testnet.layout import LocalNetwork
from node.testnet.plan import LEADER
from node.workers import proposer as proposer_module
from node.workers.clerk import Clerk
from node.workers.proposer import Proposer, solved
from tests.ledger_kit import item
from tests.node import network_kit as kit

BTC, ETH = 0, 1


@pytest.fixture
def network(tmp_path: Path) -> LocalNetwork:
    return kit.new_network(tmp_path / "network")


class Cast:
    """Who acts in these tests, and what they do on the leader."""

    def __init__(self, network: LocalNetwork) -> None:
        network_id = kit.network_id(network)
        names = ("p01", "p02", "central-bank", "ministry")
        self.p01, self.p02, self.bank, self.ministry = (
            kit.Party(network, name, network_id) for name in names
        )

    async def govern(self, leader: Any, *actions: Action) -> None:
        made = self.ministry.instruction(InstructionKind.PROPOSE, encode_actions(actions))
        proposal = await leader.submit(made)
        approval = APPROVAL_LAYOUT.encode(proposal=proposal.index)
        made = self.bank.instruction(InstructionKind.APPROVE, approval)
        assert (await leader.submit(made)).code is RejectCode.OK

    async def owe_in_a_circle(self, leader: Any, asset: int) -> int:
        """P01 owes 9, P02 owes 4; returns the log index."""
        records = (
            item(self.p01.number, self.p02.number, 9, asset),
            item(self.p02.number, self.p01.number, 4, asset),
        )
        first = await leader.submit(self.p01.submission(*records))
        affirm = self.p02.instruction(InstructionKind.AFFIRM, ItemSelection(first.index).encode())
        assert (await leader.submit(affirm)).code is RejectCode.OK
        return first.index

    async def cut_off(self, leader: Any) -> None:
        made = self.bank.instruction(InstructionKind.RUN_CYCLE)
        assert (await leader.submit(made)).code is RejectCode.OK


def method(asset: int, by: NettingMethod) -> Action:
    return Action(ActionKind.SET_METHOD, {"asset": asset, "method": by})


def cycle_of(leader: Any, number: int = 1) -> tuple[CycleState, list[queries.CycleAssetRow]]:
    with leader.snapshot() as view:
        found = queries.cycle(view, number, 0)
        assert found is not None
        return found.cycle.state, list(queries.cycle_results(view, number).rows)


def test_the_leader_solves_what_its_ledger_waits_for_and_all_replicas_agree(
    network: LocalNetwork,
) -> None:
    cast = Cast(network)

    @kit.on(network)
    async def run(nodes: kit.Nodes) -> None:
        leader = nodes[LEADER].member
        await cast.govern(
            leader, method(BTC, NettingMethod.SETOFF), method(ETH, NettingMethod.GRIDLOCK)
        )
        await cast.owe_in_a_circle(leader, BTC)
        await cast.owe_in_a_circle(leader, ETH)
        await cast.cut_off(leader)
        await kit.until("solved", lambda: cycle_of(leader)[0] is CycleState.SETTLED)
        _, (btc, eth) = cycle_of(leader)
        assert (btc.method, btc.outcome) == (NettingMethod.SETOFF, ResultOutcome.NETTED)
        assert (btc.value_units, btc.liquidity_used_units) == (8, 0)
        assert btc.solution_index > 0
        # P01 has pledged nothing, so neither of the two ETH payments can go first.
        assert (eth.method, eth.value_units) == (NettingMethod.GRIDLOCK, 0)
        await kit.converge(nodes)
        assert {kit.condition(node) for node in nodes.values()} == {NodeCondition.SERVING}


def test_a_lying_proposer_changes_nothing_and_an_honest_one_is_heard_after_it(
    network: LocalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader that solves worse than can be, or more than is owed, is refused by its own ledger and everybody's."""
    cast = Cast(network)
    lies: list[Solution] = []

    def lie(problem: Problem, participants: int) -> Solution:
        true = solved(problem, participants)
        if len(lies) >= 2:
            return true
        amount = wide.from_ints([3] if not lies else [5])
        pairs = PairTotals(true.pairs.debtor, true.pairs.creditor, np.repeat(amount, 2, axis=0))
        lies.append(dataclasses.replace(true, pairs=pairs))
        return lies[-1]

    def lying(leader: Leader, clerk: Clerk) -> Proposer:
        return Proposer(leader._machine, clerk, leader._broadcast, lie)

    monkeypatch.setattr(Leader, "proposer", lying)
    monkeypatch.setattr(proposer_module, "RETRY_S", 0.02)

    @kit.on(network)
    async def run(nodes: kit.Nodes) -> None:
        leader = nodes[LEADER].member
        await cast.govern(leader, method(BTC, NettingMethod.SETOFF))
        await cast.owe_in_a_circle(leader, BTC)
        await cast.cut_off(leader)
        await kit.until("solved", lambda: cycle_of(leader)[0] is CycleState.SETTLED)
        assert len(lies) == 2
        _, (btc,) = cycle_of(leader)
        assert btc.value_units == 8
        await kit.converge(nodes)


def test_a_full_replica_does_not_cosign_a_solution_that_its_leader_only_claims_to_have_checked(
    network: LocalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader's ledger is made to take any solution; the ministry's applies the same block, and diverges."""
    cast = Cast(network)

    def half(problem: Problem, participants: int) -> Solution:
        true = solved(problem, participants)
        pairs = dataclasses.replace(true.pairs, amount=np.repeat(wide.from_ints([2]), 2, axis=0))
        return dataclasses.replace(true, pairs=pairs)

    def proposer(leader: Leader, clerk: Clerk) -> Proposer:
        return Proposer(leader._machine, clerk, leader._broadcast, half)

    def blind(apply: Any) -> Any:
        def applied(block: Any) -> Any:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(certificate, "verify", lambda *_, **__: 0)
                return apply(block)

        return applied

    monkeypatch.setattr(Leader, "proposer", proposer)

    @kit.on(network)
    async def run(nodes: kit.Nodes) -> None:
        leader = nodes[LEADER].member
        await cast.govern(leader, method(BTC, NettingMethod.SETOFF))
        await cast.owe_in_a_circle(leader, BTC)
        await kit.converge(nodes)
        final = leader.status().final_size
        leader._machine.apply = blind(leader._machine.apply)
        await cast.cut_off(leader)
        await kit.until("taken", lambda: cycle_of(leader)[0] is CycleState.SETTLED)
        await kit.until(
            "diverged", lambda: kit.condition(nodes["ministry"]) is NodeCondition.DIVERGED
        )
        # The cut-off may have become final before the lie; what the lie brought never does.
        assert final <= leader.status().final_size < leader.status().log_size


def test_a_node_whose_key_is_not_registered_says_so_once_and_waits(network: LocalNetwork) -> None:
    cast = Cast(network)

    @kit.on(network)
    async def run(nodes: kit.Nodes) -> None:
        leader = nodes[LEADER].member
        other = {"participant": cast.bank.number, "node_key": b"\7" * 32}
        await cast.govern(
            leader, method(BTC, NettingMethod.SETOFF), Action(ActionKind.SET_NODE_KEY, other)
        )
        await cast.owe_in_a_circle(leader, BTC)
        await cast.cut_off(leader)
        await asyncio.sleep(0.5)
        assert cycle_of(leader)[0] is CycleState.CUT_OFF
