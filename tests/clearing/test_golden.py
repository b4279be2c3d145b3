"""A fixed scenario has the pinned roots after every block: the same bytes on every machine and in every later version.

It writes every kind of leaf and of row. A root that differs is a change of format or of behaviour: then
params.RULES_VERSION must rise, and ledgers that exist must keep the rules they were made under.
"""

from __future__ import annotations

from clearing.params import RULES_VERSION
from clearing.records.instruction import APPROVAL_LAYOUT, LIQUIDITY_LAYOUT, InstructionKind
from clearing.records.leaves import LeafKind, leaf_kind
from clearing.rows import Table, key_u32
from clearing.rules.governance import encode_actions
from clearing.rules.registry import Action, ActionKind, Cap
from clearing.rules.settlement import SettlementInstruction
from clearing.types import NettingMethod, SettlementKind
from tests.clearing.bitcoin_net import Bitcoin
from tests.clearing.records.vectors import VECTORS
from tests.ledger_kit import (
    BTC,
    CB,
    ETH,
    GENESIS_MS,
    MINISTRY,
    P01,
    P02,
    P03,
    P04,
    USDT,
    Net,
    item,
)

PINNED = VECTORS["scenario"]
ANCHORS = {Table.ANCHORS}
"""Written only where a node reports anchors: tests/clearing/handlers/test_anchors.py."""

ENGINES = {LeafKind.VALIDATORS, LeafKind.MISBEHAVIOUR}
"""Written only where a consensus engine orders: tests/clearing/handlers/test_validators.py."""
ANCHORS = {Table.ANCHORS}
"""Written only where checkpoints are anchored: tests/clearing/rules/test_anchors.py."""


def run_scenario() -> Net:
    """Three cycles: one settled, one failed after a pay-in, one by other methods; and what comes between."""
    net = Net()
    cap = encode_actions([Action(ActionKind.SET_CAP, Cap(P01, BTC, (1 << 128) - 1))])
    proposal = net.one(net.instruction(InstructionKind.PROPOSE, MINISTRY, cap)).index
    approval = APPROVAL_LAYOUT.encode(proposal=proposal)
    net.one(net.instruction(InstructionKind.APPROVE, CB, approval))
    pledge = LIQUIDITY_LAYOUT.encode(participant=P02, asset=ETH, amount_units=10**18)
    net.one(net.instruction(InstructionKind.SET_LIQUIDITY, CB, pledge))
    first = net.submit(
        P01,
        item(P01, P02, 100_000_000),
        item(P02, P01, 30_000_000, priority=9),
        item(P03, P01, (1 << 128) - 1, ETH),
        item(P01, P03, 5, ETH, due_ms=GENESIS_MS + 60_000),
        item(P01, P02, 7),
    )
    net.select(InstructionKind.REJECT, P02, first, (4, 4))
    net.affirm(P02, first)
    net.affirm(P03, first, (2, 2))
    second = net.submit(P02, item(P02, P03, 11), item(P03, P02, 4), item(P02, P01, 1))
    net.affirm(P03, second)
    net.select(InstructionKind.RESCIND, P02, second, (1, 1))
    net.time_ms = GENESIS_MS + 60_000
    net.run_cycle()
    net.settle(1)
    third = net.submit(P03, item(P03, P01, 50), item(P01, P03, 20, ETH))
    net.affirm(P01, third)
    net.run_cycle()
    net.settlement(InstructionKind.EVIDENCE, P03, 2, 1)
    net.settlement(InstructionKind.CONFIRM, CB, 2, 1)
    net.settlement(InstructionKind.FAIL, P01, 2, 2)
    _run_other_methods(net)
    _run_bitcoin(net)
    return net


def _run_other_methods(net: Net) -> None:
    """Run a third cycle: USDT by gridlock, ETH by set-off with a part of one obligation left over."""
    net.set_node_key()
    net.set_method(USDT, NettingMethod.GRIDLOCK)
    net.set_method(ETH, NettingMethod.SETOFF)
    fourth = net.submit(
        P01,
        item(P01, P02, 10**20, ETH),
        item(P02, P01, 3 * 10**19, ETH),
        item(P01, P02, 6, USDT),
        item(P02, P01, 5, USDT),
        item(P02, P01, 1, USDT),
        item(P01, P03, 1, USDT),
    )
    net.affirm(P02, fourth)
    net.affirm(P03, fourth)
    net.run_cycle()
    net.solve()
    net.settle(3)


def _run_bitcoin(net: Net) -> None:
    """A chain is followed; a leg is offered; a mined coin is declared, counted, and drawn on."""
    bitcoin = Bitcoin(net)
    for payee in (P01, P02, P03):
        bitcoin.ok(bitcoin.script(payee))
    index = net.submit(P01, item(P01, P03, 90_000))
    bitcoin.ok(net.affirm(P03, index))
    bitcoin.ok(net.run_cycle())
    net.solve()
    for key, row in list(net.store.scan(Table.SETTLEMENTS, key_u32(4))):
        one, number = SettlementInstruction.decode(row), int.from_bytes(key[4:], "big")
        if one.kind is SettlementKind.PAY_IN and one.asset == BTC:
            bitcoin.ok(bitcoin.coins(one.participant, 4))
        elif one.kind is SettlementKind.PAY_IN:
            bitcoin.ok(net.settlement(InstructionKind.EVIDENCE, CB, 4, number))
            bitcoin.ok(net.settlement(InstructionKind.CONFIRM, CB, 4, number))
    bitcoin.ok(bitcoin.offer(4))
    bitcoin.counted(5_000)
    flagged = net.submit(P04, item(P04, P01, 4_000, flags=1))
    bitcoin.ok(net.affirm(P01, flagged))


def test_the_scenario_writes_every_kind_of_leaf_and_of_row() -> None:
    net = run_scenario()
    leaves = [entry.leaf for result in net.results for entry in result.entries]
    assert {leaf_kind(leaf) for leaf in leaves} == set(LeafKind) - ENGINES
    written = {row.table for result in net.results for row in result.delta.rows}
    assert written == set(Table) - ANCHORS


def test_genesis_has_the_pinned_network_id() -> None:
    assert RULES_VERSION == PINNED["rules_version"] == 1
    assert Net().state.network_id.hex() == PINNED["network_id"]


def test_every_block_has_the_pinned_roots() -> None:
    blocks = [
        {
            "height": result.height,
            "log_size": result.log_size,
            "log_root": result.log_root.hex(),
            "state_root": result.state_root.hex(),
        }
        for result in run_scenario().results
    ]
    assert blocks == PINNED["blocks"]
