"""Cycles block by block: cut-off, netting, settlement, failure, time-out and the timetable."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearing import ledger
from clearing.errors import RejectCode
from clearing.log import merkle
from clearing.params import DAY_S, Parameters
from clearing.records.instruction import ItemSelection
from clearing.records.leaves import CycleEndedLeaf, CycleNettedLeaf, LeafKind, leaf_kind
from clearing.rules.registry import Action, ActionKind
from clearing.rules.results import ResultRow, cycle_secret, result_commitments
from clearing.types import (
    AMOUNT_MAX,
    CycleState,
    InstructionState,
    LicenceStatus,
    ObligationState,
    SettlementKind,
)
from tests.clearing.core_kit import Core, Kind
from tests.ledger_kit import BTC, CB, ETH, GENESIS_MS, P01, P02, P03, P04, USDT, item

AFFIRMED, LOCKED, SETTLED = (
    ObligationState.AFFIRMED,
    ObligationState.LOCKED,
    ObligationState.SETTLED,
)
PENDING, EVIDENCED, CONFIRMED, FAILED, SUPERSEDED = InstructionState
TIMEOUT_MS = Parameters().settlement_timeout_ms
DAY_MS = DAY_S * 1000


def _netted() -> Core:
    """P01 pays in 70, P02 gets 50, P03 gets 20; instructions 0, 1, 2 in this order."""
    net = Core()
    index = net.submit(P01, item(P01, P02, 100), item(P02, P01, 50), item(P01, P03, 20))
    net.affirm(P02, index)
    net.affirm(P03, index)
    assert net.run_cycle().code is RejectCode.OK
    return net


SUBMISSION = 2


def _assert_balanced(net: Core) -> None:
    """Per asset, what is owed is owed to somebody, and provisional nets sum to zero."""
    for asset in range(3):
        positions = [each for each in net.positions() if each.asset == asset]
        assert sum(each.payable for each in positions) == sum(each.receivable for each in positions)
        assert sum(each.locked_net for each in positions) == 0


def test_a_cycle_is_cut_off_netted_and_instructed_in_one_block() -> None:
    net = _netted()
    cycle = net.cycle(1)
    assert (cycle.state, cycle.netted_ms) == (CycleState.NETTED, net.time_ms)
    assert (cycle.obligations, cycle.instructions, cycle.pay_ins, cycle.pay_outs) == (3, 3, 1, 2)
    assert net.states(SUBMISSION) == [LOCKED] * 3
    assert net.item_states(SUBMISSION).cycles.tolist() == [1] * 3
    (result,) = net.results_of(1)
    assert result.rows == (ResultRow(P01, 120, 50), ResultRow(P02, 50, 100), ResultRow(P03, 0, 20))
    assert (result.gross, result.net, result.obligations) == (170, 70, 3)
    instructions = [
        (each.participant, each.kind.name, each.amount_units) for each in net.instructions(1)
    ]
    assert instructions == [(P01, "PAY_IN", 70), (P02, "PAY_OUT", 50), (P03, "PAY_OUT", 20)]
    assert [net.position(each).locked_net for each in (P01, P02, P03)] == [-70, 50, 20]
    assert [net.position(each).payable for each in (P01, P02, P03)] == [120, 50, 0]
    _assert_balanced(net)


def test_the_leaf_commits_to_the_results_under_the_submissions_secrets() -> None:
    net = _netted()
    leaf = CycleNettedLeaf.decode(net.store.leaf(net.cycle(1).netted_index))
    secrets = [net.store.body(SUBMISSION)[:32]]
    commitments = result_commitments(cycle_secret(1, secrets), net.results_of(1))
    assert leaf == CycleNettedLeaf(1, 3, 3, merkle.root_of(commitments))
    assert net.cycle(1).result_root == leaf.result_root


def test_a_settled_cycle_discharges_its_obligations_for_good() -> None:
    net = _netted()
    net.settlement(Kind.EVIDENCE, P01, 1, 0)
    assert net.settlement(Kind.CONFIRM, CB, 1, 0).code is RejectCode.OK
    assert net.cycle(1).state is CycleState.FUNDED
    assert net.states(SUBMISSION) == [LOCKED] * 3
    net.settle(1)
    cycle = net.cycle(1)
    assert (cycle.state, cycle.pay_ins, cycle.pay_outs) == (CycleState.SETTLED, 0, 0)
    assert net.states(SUBMISSION) == [SETTLED] * 3
    assert net.item_states(SUBMISSION).cycles.tolist() == [1] * 3
    leaf = CycleEndedLeaf.decode(net.store.leaf(cycle.ended_index))
    assert leaf == CycleEndedLeaf(1, CycleState.SETTLED, cycle.result_root)
    for position in net.positions():
        assert (position.payable, position.receivable, position.locked_net) == (0, 0, 0)
    assert [net.position(each).paid for each in (P01, P02, P03)] == [70, 0, 0]
    assert [net.position(each).received for each in (P01, P02, P03)] == [0, 50, 20]
    assert (net.state.cycles, net.state.open, net.state.open_items) == ({}, {}, 0)


def test_a_cycle_whose_nets_are_all_zero_settles_in_its_own_block() -> None:
    net = Core()
    index = net.affirmed(P01, P02, item(P01, P02, 5), item(P02, P01, 5))
    net.run_cycle()
    assert net.cycle(1).state is CycleState.SETTLED
    assert net.instructions(1) == []
    assert net.states(index) == [SETTLED] * 2
    assert net.leaves()[-3:] == [LeafKind.INSTRUCTION, LeafKind.CYCLE_NETTED, LeafKind.CYCLE_ENDED]
    assert net.state.cycles == {}


def test_assets_are_netted_apart_and_instructions_follow_asset_then_participant() -> None:
    net = Core()
    net.affirmed(P02, P01, item(P02, P01, 9, USDT), item(P01, P02, 4, BTC), item(P01, P02, 1, ETH))
    net.run_cycle()
    made = [(each.asset, each.participant, each.kind.name) for each in net.instructions(1)]
    assert made == [
        (BTC, P01, "PAY_IN"),
        (BTC, P02, "PAY_OUT"),
        (ETH, P01, "PAY_IN"),
        (ETH, P02, "PAY_OUT"),
        (USDT, P01, "PAY_OUT"),
        (USDT, P02, "PAY_IN"),
    ]
    assert [result.asset for result in net.results_of(1)] == [BTC, ETH, USDT]


OBLIGATIONS = st.lists(
    st.tuples(
        st.sampled_from([P01, P02, P03, P04, CB]),
        st.sampled_from([P01, P02, P03, P04, CB]),
        st.sampled_from([BTC, ETH]),
        st.one_of(st.integers(1, 9), st.integers(1, AMOUNT_MAX), st.just(AMOUNT_MAX)),
    ).filter(lambda row: row[0] != row[1]),
    min_size=1,
    max_size=12,
)


@given(OBLIGATIONS, st.sampled_from(["settle", "fail", "time out"]))
@settings(max_examples=25)
def test_value_is_conserved_whatever_becomes_of_a_cycle(rows, end: str) -> None:
    net = Core()
    for debtor, creditor, asset, amount in rows:
        net.affirmed(debtor, creditor, item(debtor, creditor, amount, asset))
    before = [(p.participant, p.asset, p.payable, p.receivable) for p in net.positions()]
    net.run_cycle()
    _assert_balanced(net)
    for asset in (BTC, ETH):
        nets = [row.net for r in net.results_of(1) if r.asset == asset for row in r.rows]
        assert sum(nets) == 0
        kinds = dict.fromkeys(SettlementKind, 0)
        for each in net.instructions(1):
            kinds[each.kind] += each.amount_units if each.asset == asset else 0
        assert (
            kinds[SettlementKind.PAY_IN]
            == kinds[SettlementKind.PAY_OUT]
            == sum(map(abs, nets)) // 2
        )
    if net.cycle(1).state is CycleState.SETTLED:  # everybody's net was zero
        return
    if end == "settle":
        net.settle(1)
        assert all(p.payable == p.receivable == p.locked_net == 0 for p in net.positions())
        for asset in (BTC, ETH):
            held = [p for p in net.positions() if p.asset == asset]
            assert sum(p.paid for p in held) == sum(p.received for p in held)
        return
    if end == "fail":
        number = next(
            at for at, i in enumerate(net.instructions(1)) if i.kind is SettlementKind.PAY_IN
        )
        net.settlement(Kind.FAIL, CB, 1, number)
    else:
        net.block(after_ms=TIMEOUT_MS)
    assert net.cycle(1).state is CycleState.FAILED
    after = [(p.participant, p.asset, p.payable, p.receivable) for p in net.positions()]
    assert after == before
    assert all(p.locked_net == p.paid == p.received == 0 for p in net.positions())


@pytest.mark.parametrize("actor", [P01, CB])
def test_a_pay_in_that_fails_fails_the_cycle_and_opens_its_obligations(actor: int) -> None:
    net = _netted()
    assert net.settlement(Kind.FAIL, actor, 1, 0).code is RejectCode.OK
    cycle = net.cycle(1)
    assert (cycle.state, cycle.pay_ins, cycle.pay_outs) == (CycleState.FAILED, 0, 0)
    assert [each.state for each in net.instructions(1)] == [FAILED, SUPERSEDED, SUPERSEDED]
    assert net.states(SUBMISSION) == [AFFIRMED] * 3
    assert net.item_states(SUBMISSION).cycles.tolist() == [0] * 3
    assert net.leaves()[-2:] == [LeafKind.INSTRUCTION, LeafKind.CYCLE_ENDED]
    assert net.state.cycles == {}
    _assert_balanced(net)


def test_what_a_failed_cycle_held_is_netted_again() -> None:
    net = _netted()
    net.settlement(Kind.FAIL, P01, 1, 0)
    assert net.run_cycle().code is RejectCode.OK
    assert [r.rows for r in net.results_of(2)] == [r.rows for r in net.results_of(1)]
    assert net.cycle(2).result_root != net.cycle(1).result_root
    net.settle(2)
    assert net.states(SUBMISSION) == [SETTLED] * 3
    assert net.item_states(SUBMISSION).cycles.tolist() == [2] * 3


def test_a_rescinded_item_stays_out_of_the_next_cycle() -> None:
    net = _netted()
    net.settlement(Kind.FAIL, P01, 1, 0)
    net.select(Kind.RESCIND, P01, SUBMISSION, (0, 0))
    net.run_cycle()
    (result,) = net.results_of(2)
    assert result.rows == (ResultRow(P01, 20, 50), ResultRow(P02, 50, 0), ResultRow(P03, 0, 20))


def _two_pay_ins() -> Core:
    """P01 and P02 pay in 5 each, P03 gets 10; instructions 0, 1, 2."""
    net = Core()
    index = net.submit(P03, item(P01, P03, 5), item(P02, P03, 5))
    net.affirm(P01, index)
    net.affirm(P02, index)
    net.run_cycle()
    return net


def test_a_confirmed_pay_in_of_a_failed_cycle_is_refunded() -> None:
    net = _two_pay_ins()
    net.settlement(Kind.EVIDENCE, P01, 1, 0)
    net.settlement(Kind.CONFIRM, CB, 1, 0)
    assert net.position(P01).paid == 5
    net.settlement(Kind.FAIL, P02, 1, 1)
    refund = net.instructions(1)[3]
    assert (refund.participant, refund.kind, refund.state) == (P01, SettlementKind.REFUND, PENDING)
    assert (refund.amount_units, refund.evidence_hash, refund.moved_ms) == (
        5,
        bytes(32),
        net.time_ms,
    )
    assert (net.cycle(1).instructions, net.cycle(1).pay_outs) == (4, 1)
    assert list(net.state.cycles) == [1], "the refund is still owed"
    net.reload()
    assert net.settlement(Kind.EVIDENCE, CB, 1, 3).code is RejectCode.OK
    assert net.settlement(Kind.CONFIRM, P01, 1, 3).code is RejectCode.OK
    assert (net.position(P01).paid, net.cycle(1).pay_outs) == (0, 0)
    assert net.state.cycles == {}


def test_an_evidenced_pay_in_outlives_the_failure_and_is_refunded_when_confirmed() -> None:
    net = _two_pay_ins()
    net.settlement(Kind.EVIDENCE, P01, 1, 0)
    net.settlement(Kind.FAIL, P02, 1, 1)
    assert [each.state for each in net.instructions(1)] == [EVIDENCED, FAILED, SUPERSEDED]
    assert (net.cycle(1).pay_ins, list(net.state.cycles)) == (1, [1])
    assert net.settlement(Kind.CONFIRM, CB, 1, 0).code is RejectCode.OK
    assert (net.cycle(1).pay_ins, net.cycle(1).pay_outs, net.position(P01).paid) == (0, 1, 5)
    net.settle(1)
    assert [each.state for each in net.instructions(1)] == [
        CONFIRMED,
        FAILED,
        SUPERSEDED,
        CONFIRMED,
    ]
    assert (net.position(P01).paid, net.state.cycles) == (0, {})
    assert net.cycle(1).state is CycleState.FAILED


def test_evidence_found_void_after_the_failure_ends_the_matter() -> None:
    net = _two_pay_ins()
    net.settlement(Kind.EVIDENCE, P01, 1, 0)
    net.settlement(Kind.FAIL, P02, 1, 1)
    assert net.settlement(Kind.FAIL, CB, 1, 0).code is RejectCode.OK
    assert (net.cycle(1).pay_ins, net.state.cycles) == (0, {})
    assert len(net.instructions(1)) == 3
    assert net.position(P01).paid == 0


def test_a_cycle_times_out_at_its_time_and_not_before() -> None:
    net = _two_pay_ins()
    net.settlement(Kind.EVIDENCE, P01, 1, 0)
    net.settlement(Kind.CONFIRM, CB, 1, 0)
    netted_ms = net.cycle(1).netted_ms
    net.time_ms = netted_ms + TIMEOUT_MS - 1
    assert net.block(after_ms=0).entries == ()
    assert ledger.next_deadline_ms(net.state, net.time_ms) == netted_ms + TIMEOUT_MS
    result = net.block(after_ms=1)
    assert [leaf_kind(entry.leaf) for entry in result.entries] == [
        LeafKind.CYCLE_ENDED,
        LeafKind.SEAL,
    ]
    assert net.cycle(1).state is CycleState.FAILED
    assert [each.kind for each in net.instructions(1)][3] is SettlementKind.REFUND
    _assert_balanced(net)


def test_a_funded_cycle_neither_fails_nor_times_out() -> None:
    net = _netted()
    net.settlement(Kind.EVIDENCE, P01, 1, 0)
    net.settlement(Kind.CONFIRM, CB, 1, 0)
    for actor in (P01, CB):
        assert net.settlement(Kind.FAIL, actor, 1, 0).code is not RejectCode.OK
    assert net.block(after_ms=10 * TIMEOUT_MS).entries == ()
    assert ledger.next_deadline_ms(net.state, net.time_ms) is None
    assert net.cycle(1).state is CycleState.FUNDED
    net.settle(1)
    assert net.cycle(1).state is CycleState.SETTLED


def test_cycles_run_side_by_side_and_no_obligation_is_in_two() -> None:
    net = _netted()
    more = net.affirmed(P02, P01, item(P02, P01, 7))
    net.run_cycle()
    assert net.item_states(SUBMISSION).cycles.tolist() == [1] * 3
    assert net.item_states(more).cycles.tolist() == [2]
    assert [net.position(each).locked_net for each in (P01, P02, P03)] == [-63, 43, 20]
    assert net.run_cycle().code is RejectCode.NOTHING_TO_NET
    net.settle(2)
    assert [net.position(each).locked_net for each in (P01, P02, P03)] == [-70, 50, 20]
    assert (net.position(P02).payable, net.position(P01).payable) == (50, 120)
    net.settlement(Kind.FAIL, CB, 1, 0)
    assert all(each.locked_net == 0 for each in net.positions())
    _assert_balanced(net)


def test_part_of_a_submission_in_one_cycle_and_part_in_the_next() -> None:
    net = Core()
    index = net.submit(P01, item(P01, P02, 5), item(P01, P02, 7), item(P01, P02, 9))
    net.affirm(P02, index, (1, 1))
    net.run_cycle()
    net.affirm(P02, index, (0, 0))
    net.run_cycle()
    assert net.item_states(index).cycles.tolist() == [2, 1, 0]
    net.settle(2)
    net.reload()
    net.settle(1)
    assert net.states(index) == [SETTLED, SETTLED, ObligationState.PROPOSED]
    assert (net.state.open_items, list(net.state.open)) == (3, [index])


def test_parties_out_of_licence_stay_out_of_the_cut_off_and_come_back() -> None:
    net = Core()
    index = net.submit(P01, item(P01, P02, 5), item(P01, P03, 7), item(P03, P01, 2))
    net.affirm(P02, index)
    net.affirm(P03, index)
    net.suspend(P03)
    net.run_cycle()
    assert net.states(index) == [LOCKED, AFFIRMED, AFFIRMED]
    assert net.cycle(1).obligations == 1
    net.set_licence(P03, LicenceStatus.ACTIVE)
    net.run_cycle()
    assert net.item_states(index).cycles.tolist() == [1, 2, 2]


def test_a_licence_that_expires_by_the_cut_off_is_out() -> None:
    net = Core()
    expiry_ms = GENESIS_MS + 60_000
    index = net.affirmed(P01, P02, item(P01, P02, 5))
    net.set_licence(P02, LicenceStatus.ACTIVE, expiry_ms)
    net.time_ms = expiry_ms - 1_000
    assert net.run_cycle().code is RejectCode.NOTHING_TO_NET
    assert net.states(index) == [AFFIRMED]


def test_the_settlement_agent_can_be_a_party_itself() -> None:
    net = Core()
    net.affirmed(CB, P01, item(CB, P01, 5))
    net.run_cycle()
    assert [(each.participant, each.kind.name) for each in net.instructions(1)] == [
        (CB, "PAY_IN"),
        (P01, "PAY_OUT"),
    ]
    net.settle(1)
    assert (net.cycle(1).state, net.position(CB).paid) == (CycleState.SETTLED, 5)


# the timetable: genesis is at 22:13:20 UTC

EVENING_S, NIGHT_S, MORNING_S = 23 * 3600, 1 * 3600, 9 * 3600
MIDNIGHT_MS = GENESIS_MS - GENESIS_MS % DAY_MS


def _timetabled(*cut_offs_s: int) -> tuple[Core, int]:
    net = Core(cut_offs_s=cut_offs_s)
    return net, net.affirmed(P01, P02, item(P01, P02, 5))


def _block_at(net: Core, time_ms: int) -> ledger.BlockResult:
    return net.block(after_ms=time_ms - net.time_ms)


def test_the_timetable_cuts_off_in_the_first_block_at_or_after_its_time() -> None:
    net, index = _timetabled(EVENING_S)
    cut_off_ms = MIDNIGHT_MS + EVENING_S * 1000
    assert ledger.next_deadline_ms(net.state, net.time_ms) == cut_off_ms
    assert _block_at(net, cut_off_ms - 1).entries == ()
    result = _block_at(net, cut_off_ms)
    assert [leaf_kind(entry.leaf) for entry in result.entries] == [
        LeafKind.CYCLE_NETTED,
        LeafKind.SEAL,
    ]
    assert net.states(index) == [LOCKED]
    assert net.cycle(1).netted_ms == cut_off_ms


def test_blocks_of_one_millisecond_cut_off_once() -> None:
    net, index = _timetabled(EVENING_S)
    cut_off_ms = MIDNIGHT_MS + EVENING_S * 1000
    _block_at(net, cut_off_ms)
    late = net.submission(P01, item(P01, P02, 3))
    late_index = net.one(late, after_ms=0).index
    affirmation = net.instruction(Kind.AFFIRM, P02, ItemSelection(late_index).encode())
    assert net.one(affirmation, after_ms=0).code is RejectCode.OK
    assert net.block(after_ms=0).entries == ()
    assert net.time_ms == cut_off_ms
    assert (net.states(index), net.states(late_index)) == ([LOCKED], [AFFIRMED])
    _block_at(net, cut_off_ms + DAY_MS)
    assert net.item_states(late_index).cycles.tolist() == [2]


def test_several_missed_cut_offs_are_one() -> None:
    net, _ = _timetabled(NIGHT_S, MORNING_S, EVENING_S)
    _block_at(net, MIDNIGHT_MS + 5 * DAY_MS + 1)
    assert (net.state.last_cycle, net.cycle(1).obligations) == (1, 1)
    # what is affirmed after it waits for the next one
    later = net.affirmed(P01, P02, item(P01, P02, 5))
    next_ms = MIDNIGHT_MS + 5 * DAY_MS + NIGHT_S * 1000
    assert ledger.next_deadline_ms(net.state, net.time_ms) == next_ms
    _block_at(net, next_ms)
    assert net.item_states(later).cycles.tolist() == [2]


def test_a_cut_off_over_nothing_leaves_no_trace_and_a_later_affirmation_waits() -> None:
    net = Core(cut_offs_s=(EVENING_S,))
    index = net.submit(P01, item(P01, P02, 5))
    cut_off_ms = MIDNIGHT_MS + EVENING_S * 1000
    assert ledger.next_deadline_ms(net.state, net.time_ms) is None
    assert _block_at(net, cut_off_ms + 60_000).entries == ()
    net.affirm(P02, index)
    assert net.state.last_cycle == 0
    assert ledger.next_deadline_ms(net.state, net.time_ms) == cut_off_ms + DAY_MS


def test_what_is_affirmed_in_the_block_of_the_cut_off_waits_for_the_next() -> None:
    net, _ = _timetabled(EVENING_S)
    late = net.submit(P02, item(P02, P01, 3))
    net.time_ms = MIDNIGHT_MS + EVENING_S * 1000 - 1_000
    net.affirm(P01, late)
    assert net.cycle(1).obligations == 1
    assert net.states(late) == [AFFIRMED]


def test_governance_sets_the_timetable_and_takes_it_away() -> None:
    net, index = _timetabled()
    assert ledger.next_deadline_ms(net.state, net.time_ms) is None
    net.enact(Action(ActionKind.SET_TIMETABLE, (EVENING_S,)))
    assert ledger.next_deadline_ms(net.state, net.time_ms) == MIDNIGHT_MS + EVENING_S * 1000
    net.enact(Action(ActionKind.SET_TIMETABLE, ()))
    assert _block_at(net, MIDNIGHT_MS + 3 * DAY_MS).entries == ()
    assert net.states(index) == [AFFIRMED]


def test_the_next_deadline_is_the_earliest_of_all_kinds() -> None:
    net, _ = _timetabled(MORNING_S)
    net.run_cycle()
    timeout_ms = net.cycle(1).netted_ms + TIMEOUT_MS
    assert ledger.next_deadline_ms(net.state, net.time_ms) == timeout_ms
    net.affirmed(P01, P02, item(P01, P02, 5))
    cut_off_ms = MIDNIGHT_MS + DAY_MS + MORNING_S * 1000
    assert ledger.next_deadline_ms(net.state, net.time_ms) == cut_off_ms
    due_ms = net.time_ms + 90_000
    net.submit(P01, item(P01, P02, 5, due_ms=due_ms))
    assert ledger.next_deadline_ms(net.state, net.time_ms) == due_ms
    # a deadline that was tried in vain is not named again
    net.state.expiries.clear()
    assert ledger.next_deadline_ms(net.state, due_ms) == cut_off_ms
    assert ledger.next_deadline_ms(net.state, cut_off_ms) == timeout_ms
    assert ledger.next_deadline_ms(net.state, timeout_ms) == cut_off_ms + DAY_MS
    # nor is a cut-off before the last block
    net.time_ms = cut_off_ms
    net.pledge(P01, 1)
    assert ledger.next_deadline_ms(net.state, 0) == timeout_ms


def test_what_falls_due_together_falls_in_this_order() -> None:
    net = Core(cut_offs_s=(EVENING_S,), parameters=Parameters(settlement_timeout_ms=1_000))
    first = net.affirmed(P01, P02, item(P01, P02, 5))
    net.run_cycle()
    cut_off_ms = MIDNIGHT_MS + EVENING_S * 1000
    net.one(net.submission(P01, item(P01, P02, 5, due_ms=cut_off_ms)), after_ms=500)
    result = _block_at(net, cut_off_ms)
    kinds = [leaf_kind(entry.leaf).name for entry in result.entries]
    assert kinds == ["EXPIRED", "CYCLE_ENDED", "CYCLE_NETTED", "SEAL"]
    # so what a cycle that timed out gave back is in the cut-off of the same block
    assert net.item_states(first).cycles.tolist() == [2]
