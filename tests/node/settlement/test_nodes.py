"""Cycles settled over independent nodes, btcd and Bitcoin Core: their own rules take the transaction, their network reorganises it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from embit import script

from clearing.bitcoin import psbt
from clearing.bitcoin.settlement import Coin, Payee, Payer, make_template
from clearing.bitcoin.transaction import Outpoint
from clearing.rules.legs import LegCause, LegState
from clearing.types import CycleState, InstructionState
from node import queries_bitcoin
from node.settlement.blocks import proof_of
from node.settlement.coordinator import gather
from node.settlement.signer import load_keys, sign
from tests.clearing.bitcoin.bitcoin_kit import key, taproot, wpkh
from tests.ledger_kit import P02
from tests.node.settlement.settlement_kit import offered, theft_of
from tests.node.workers.anchoring.nodes_kit import KINDS, NodeProcess

pytestmark = pytest.mark.slow

REWARDS = wpkh("rewards")
COIN_SAT = 20 * 10**8
FEE_MAX_SAT = 9_000


class Nodes:
    """Two connected nodes; coins come from the first one's rewards."""

    def __init__(self, first: NodeProcess, second: NodeProcess) -> None:
        self.first, self.second = first, second
        self.rpc = first.rpc
        self._used = 0

    def pay(self, payees: list[Payee]) -> bytes:
        """Pay from the next reward that can be spent, in a block of its own; returns the txid."""
        self._used += 1
        block_hash = self.rpc.block_hash(self._used)
        assert block_hash is not None
        reward = proof_of(self.rpc.block(block_hash), 0).transaction
        coin = Coin(Outpoint(reward.txid, 0), reward.outputs[0].amount_sat, REWARDS)
        owed = sum(payee.amount_sat for payee in payees)
        template = make_template([Payer(1, owed, (coin,), REWARDS)], payees, 2_000)
        unsigned = psbt.read_psbt(psbt.make_psbt(template))
        answer = sign(unsigned, load_keys(key("rewards").wif()), owed, FEE_MAX_SAT)
        assert self.rpc.send(gather([answer.b64encode()], template).raw) == ""
        self.first.mine(1)
        return template.transaction.txid

    def coin(self, paid: bytes) -> Coin:
        """Mine a coin to a script."""
        txid = self.pay([Payee(2, COIN_SAT, paid)])
        found = self.rpc.output(txid, 0)
        assert found is not None
        assert (found.amount_sat, found.script) == (COIN_SAT, paid)
        return Coin(Outpoint(txid, 0), COIN_SAT, paid)

    def mature(self) -> None:
        """Nothing to do: what pays the coins was mature."""


@pytest.fixture(params=KINDS)
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Nodes]:
    """Two nodes, connected, 110 blocks high."""
    address = str(script.Script(REWARDS).address({"bech32": "bcrt"}))
    made: list[NodeProcess] = []
    try:
        made.extend(request.param(tmp_path / name, address) for name in ("a", "b"))
        first, second = made
        first.mine(110)
        second.connect(first)
        second.wait_same_tip(first)
        yield Nodes(first, second)
    finally:
        for node in made:
            node.stop()


def test_three_pay_three_by_the_nodes_own_rules(nodes: Nodes) -> None:
    names = {1: wpkh("first"), 2: taproot("second"), 3: wpkh("third")}
    coins = {number: nodes.coin(paid) for number, paid in names.items()}
    payers = [Payer(number, 10**9 + number, (coin,), coin.script) for number, coin in coins.items()]
    nets = [10**9, 10**9 + 2, 10**9 + 4]
    payees = [Payee(10 + at, net, taproot(f"payee {at}")) for at, net in enumerate(nets)]
    template = make_template(payers, payees, 3_000)
    unsigned = psbt.make_psbt(template)
    answers = [
        sign(
            psbt.read_psbt(unsigned), load_keys(key(name).wif()), payer.debit_sat, FEE_MAX_SAT
        ).b64encode()
        for name, payer in zip(("first", "second", "third"), payers, strict=True)
    ]
    assert nodes.rpc.send(gather(answers, template).raw) == ""
    nodes.first.mine(1)
    # The other node has taken the block, and says the same of it.
    nodes.second.wait_same_tip(nodes.first)
    for rpc in (nodes.rpc, nodes.second.rpc):
        for at, net in enumerate(nets):
            found = rpc.output(template.transaction.txid, at)
            assert found is not None
            assert (found.amount_sat, found.script) == (net, taproot(f"payee {at}"))


def test_a_cycle_settles_and_is_told_of(nodes: Nodes) -> None:
    all_told, raw = offered(nodes)
    assert nodes.rpc.send(raw) == ""
    nodes.first.mine(1)
    all_told.round()
    assert all_told.bitcoin.leg(1).state is LegState.MINED
    nodes.first.mine(2)
    all_told.round()
    assert all_told.net.cycle(1).state is CycleState.SETTLED


def test_a_payer_that_double_spends_on_the_other_side_of_a_cut_is_named(nodes: Nodes) -> None:
    all_told, raw = offered(nodes)
    row = queries_bitcoin.leg(all_told.net.store, 1)
    assert row is not None
    nodes.second.wait_same_tip(nodes.first)
    nodes.second.cut()
    assert nodes.rpc.send(raw) == ""
    nodes.first.mine(1)
    all_told.round()
    assert all_told.bitcoin.leg(1).state is LegState.MINED
    assert nodes.second.rpc.send(theft_of(P02, "p02", row)) == ""
    nodes.second.mine(2)
    nodes.second.connect(nodes.first)
    nodes.first.wait_same_tip(nodes.second)
    all_told.round()
    states = {one.state for one in all_told.net.instructions(1)}
    assert all_told.bitcoin.leg(1).state is LegState.BROADCAST
    assert states == {InstructionState.PENDING}
    nodes.second.mine(1)
    nodes.first.wait_same_tip(nodes.second)
    all_told.round()
    leg = all_told.bitcoin.leg(1)
    assert (leg.state, leg.cause, leg.culprit) == (LegState.FAILED, LegCause.SPENT, P02)
    assert all_told.net.cycle(1).state is CycleState.FAILED
