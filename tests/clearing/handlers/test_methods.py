"""Cycles by gridlock and by set-off, block by block, and that nothing is made or lost on the way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearing import ledger
from clearing.errors import RejectCode
from clearing.netting.limits import Reason
from clearing.params import Parameters
from clearing.records.instruction import InstructionKind
from clearing.records.leaves import LeafKind
from clearing.records.obligation import SECRET_BYTES, items_view
from clearing.rows import Table, key_result, key_u64
from clearing.rules.registry import Action, ActionKind, Cap
from clearing.rules.results import ResultRow, UnsettledItem, decode_unsettled
from clearing.state import State
from clearing.types import (
    CycleState,
    LicenceStatus,
    NettingMethod,
    ObligationState,
    ResultOutcome,
    SettlementKind,
)
from tests.clearing.core_kit import Core, licence
from tests.ledger_kit import BTC, CB, ETH, P01, P02, P03, P04, USDT, item

A, L, PD, S = (
    ObligationState.AFFIRMED,
    ObligationState.LOCKED,
    ObligationState.PARTLY_DISCHARGED,
    ObligationState.SETTLED,
)


def affirmed(net: Core, submitter: int, *records: bytes) -> int:
    """Submit, have everybody affirm, and return the log index."""
    index = net.submit(submitter, *records)
    for party in (P01, P02, P03, P04):
        if party != submitter:
            net.affirm(party, index)
    return index


def states(net: Core, index: int) -> list[ObligationState]:
    return net.states(index)


def unsettled(net: Core, cycle: int, asset: int, index: int) -> tuple[UnsettledItem, ...]:
    row = net.store.get(Table.CYCLE_UNSETTLED, key_result(cycle, asset) + key_u64(index))
    return () if row is None else decode_unsettled(row)


def gridlocked() -> Core:
    net = Core()
    net.set_method(BTC, NettingMethod.GRIDLOCK)
    return net


# gridlock


def test_payments_that_cover_each_other_settle_and_the_rest_stays_with_its_reason() -> None:
    net = gridlocked()
    index = affirmed(net, P01, item(P01, P02, 100), item(P01, P02, 60), item(P02, P01, 70))
    net.pledge(P01, 30)
    net.run_cycle()
    assert states(net, index) == [L, A, L]
    assert unsettled(net, 1, BTC, index) == (UnsettledItem(1, Reason.LIQUIDITY, P01, 60),)
    (result,) = net.results_of(1)
    assert result.method is NettingMethod.GRIDLOCK
    assert result.rows == (ResultRow(P01, 160, 70, 60, 0), ResultRow(P02, 70, 160, 0, 60))
    assert (result.gross, result.net, result.value, result.liquidity_used) == (230, 90, 170, 30)
    assert net.position(P01).locked_net == -30
    net.settle(1)
    assert states(net, index) == [S, A, S]
    assert (net.position(P01).payable, net.position(P01).receivable) == (60, 0)
    assert (net.position(P01).paid, net.position(P02).received) == (30, 30)
    assert net.position(P01).locked_net == 0


def test_a_cap_binds_apart_from_liquidity_and_says_so() -> None:
    net = gridlocked()
    net.enact(Action(ActionKind.SET_CAP, Cap(P01, BTC, 10)))
    net.pledge(P01, 1_000)
    index = affirmed(net, P01, item(P01, P02, 11), item(P01, P02, 5))
    net.run_cycle()
    assert unsettled(net, 1, BTC, index) == (
        UnsettledItem(0, Reason.CAP, P01, 1),
        UnsettledItem(1, Reason.CAP, P01, 6),
    )


def test_what_unsettled_cycles_take_is_not_there_again() -> None:
    net = gridlocked()
    net.pledge(P01, 100)
    first = affirmed(net, P01, item(P01, P02, 70))
    net.run_cycle()
    second = affirmed(net, P01, item(P01, P02, 40))
    net.run_cycle()
    assert (states(net, first), states(net, second)) == ([L], [A])
    assert unsettled(net, 2, BTC, second) == (UnsettledItem(0, Reason.LIQUIDITY, P01, 10),)
    assert net.cycle(2).state is CycleState.DEADLOCK
    net.settle(1)
    net.run_cycle()
    assert states(net, second) == [L]


def test_a_cap_holds_over_all_unsettled_cycles_together() -> None:
    net = gridlocked()
    net.enact(Action(ActionKind.SET_CAP, Cap(P01, BTC, 100)))
    net.pledge(P01, 1_000)
    affirmed(net, P01, item(P01, P02, 70))
    net.run_cycle()
    second = affirmed(net, P01, item(P01, P02, 40))
    net.run_cycle()
    assert states(net, second) == [A]
    assert unsettled(net, 2, BTC, second) == (UnsettledItem(0, Reason.CAP, P01, 10),)
    net.settle(1)
    net.run_cycle()
    assert states(net, second) == [L]


def test_a_cap_lowered_below_what_unsettled_cycles_take_leaves_no_room_and_undoes_nothing() -> None:
    net = gridlocked()
    net.pledge(P01, 1_000)
    affirmed(net, P01, item(P01, P02, 70))
    net.run_cycle()
    net.enact(Action(ActionKind.SET_CAP, Cap(P01, BTC, 50)))
    second = affirmed(net, P01, item(P01, P02, 1))
    net.run_cycle()
    assert unsettled(net, 2, BTC, second) == (UnsettledItem(0, Reason.CAP, P01, 1),)
    net.settle(1)
    assert net.cycle(1).state is CycleState.SETTLED
    net.run_cycle()
    assert states(net, second) == [L]


def test_a_party_suspended_while_a_set_off_is_awaited_stays_in_it() -> None:
    """What was cut off while its licence was in force goes on to its end."""
    net, index, second = awaiting()
    net.enact(licence(P01, LicenceStatus.SUSPENDED))
    assert net.solve().code is RejectCode.OK
    assert net.cycle(1).state is CycleState.SETTLED
    assert (states(net, index), states(net, second)) == ([S] * 4, [PD])


def test_a_solution_for_a_cycle_that_waits_for_none_costs_no_look_at_its_results() -> None:
    net, _, _ = awaiting()
    late = net.proposal_of(net.solution())
    assert net.solve().code is RejectCode.OK
    watched = net.watch()
    assert net.one(late).code is RejectCode.NO_SOLUTION_AWAITED
    assert watched.count(Table.CYCLE_RESULTS) == 0


def test_what_a_cycle_is_to_bring_is_no_money_yet() -> None:
    net = gridlocked()
    net.pledge(P02, 50)
    affirmed(net, P02, item(P02, P01, 50))
    net.run_cycle()
    assert net.position(P01).locked_net == 50
    index = affirmed(net, P01, item(P01, P03, 50))
    net.run_cycle()
    assert states(net, index) == [A]


def test_what_a_cycle_left_and_was_rescinded_since_is_counted_out_of_the_book_once() -> None:
    net = gridlocked()
    net.pledge(P01, 10)
    affirmed(net, P01, item(P01, P02, 10))
    stuck = affirmed(net, P03, item(P03, P02, 50), item(P03, P02, 60))
    other = affirmed(net, P02, item(P02, P01, 1), item(P02, P01, 99))
    net.run_cycle()
    assert net.select(InstructionKind.RESCIND, P03, stuck).code is RejectCode.OK
    open_items = net.state.open_items
    net.settle(1)
    assert states(net, other) == [S, A]
    # The first submission settled whole; of the third one item is open, and it counts whole.
    assert (open_items, net.state.open_items) == (3, 2)
    assert State.load(net.store).open_items == 2


def test_the_queue_is_priority_then_the_log() -> None:
    net = gridlocked()
    net.pledge(P01, 10)
    first = affirmed(net, P01, item(P01, P02, 10), item(P01, P02, 10, priority=3))
    second = affirmed(net, P01, item(P01, P02, 10, priority=9))
    net.run_cycle()
    assert (states(net, first), states(net, second)) == ([A, A], [L])


def test_nothing_that_can_settle_is_a_deadlock_that_moves_nothing() -> None:
    net = gridlocked()
    index = affirmed(net, P01, item(P01, P02, 1))
    before = net.position(P01)
    net.run_cycle()
    cycle = net.cycle(1)
    assert (cycle.state, cycle.obligations, cycle.instructions) == (CycleState.DEADLOCK, 1, 0)
    assert cycle.ended_index > cycle.netted_index > 0
    assert states(net, index) == [A]
    assert net.position(P01) == before
    assert not net.state.cycles


# set-off

EVENING_S = 86_399
DAY_MS = 86_400_000


def awaiting() -> tuple[Core, int, int]:
    """A circle of three with a bilateral pair, cut off; returns the ledger and both submissions."""
    net = Core()
    net.set_node_key()
    net.set_method(BTC, NettingMethod.SETOFF)
    index = affirmed(
        net, P01, item(P01, P02, 9), item(P03, P01, 6), item(P02, P01, 4), item(P01, P02, 1)
    )
    second = affirmed(net, P02, item(P02, P03, 7))
    net.run_cycle()
    return net, index, second


def test_a_set_off_waits_for_a_solution_and_then_ends_without_money() -> None:
    net, index, _ = awaiting()
    cycle = net.cycle(1)
    assert (cycle.state, cycle.netted_ms, cycle.instructions) == (CycleState.CUT_OFF, 0, 0)
    assert net.leaves()[-1] is LeafKind.CYCLE_CUT_OFF
    assert states(net, index) == [L] * 4
    (result,) = net.results_of(1)
    assert (result.outcome, result.value) == (ResultOutcome.AWAITING, 0)
    outcome = net.solve()
    assert outcome.code is RejectCode.OK
    (result,) = net.results_of(1)
    assert (result.outcome, result.solution_index) == (ResultOutcome.NETTED, outcome.index)
    assert (result.gross, result.value, result.liquidity_used) == (27, 26, 0)
    assert net.cycle(1).state is CycleState.SETTLED
    assert states(net, index) == [S, S, S, S]
    assert net.position(P02).payable == 1


def test_the_timetable_cuts_off_what_only_a_set_off_nets() -> None:
    """A cut-off without a leaf would be forgotten with its block."""
    net = Core(cut_offs_s=(EVENING_S,))
    net.set_node_key()
    net.set_method(BTC, NettingMethod.SETOFF)
    index = affirmed(net, P01, item(P01, P02, 9))
    net.time_ms = net.time_ms // DAY_MS * DAY_MS + EVENING_S * 1000
    net.block(after_ms=0)
    assert net.cycle(1).state is CycleState.CUT_OFF
    assert states(net, index) == [L]


def test_what_is_left_of_an_obligation_is_netted_in_a_later_cycle() -> None:
    net, _, second = awaiting()
    net.solve()
    assert states(net, second) == [PD]
    assert unsettled(net, 1, BTC, second) == (UnsettledItem(0, Reason.CYCLE, P02, 1),)
    left = net.state.open[second].states.remainders
    assert (left.items.tolist(), left.lo.tolist(), left.hi.tolist()) == ([0], [1], [0])
    # Nobody can rescind what a cycle has begun to discharge.
    refused = net.select(InstructionKind.RESCIND, P02, second)
    assert refused.code is RejectCode.NOTHING_SELECTED
    net.set_method(BTC, NettingMethod.POSITIONS)
    net.run_cycle()
    (result,) = net.results_of(2)
    assert result.rows == (ResultRow(P02, 1, 0), ResultRow(P03, 0, 1))
    net.settle(2)
    assert states(net, second) == [S]
    assert (net.position(P02).payable, net.position(P02).paid) == (0, 1)


def test_what_is_left_is_told_in_both_halves_of_an_amount() -> None:
    """A discharge of 2^64 units is none in the low half."""
    net = Core()
    net.set_node_key()
    net.set_method(BTC, NettingMethod.SETOFF)
    index = affirmed(net, P01, item(P01, P02, 3 << 64), item(P02, P01, 1 << 64))
    net.run_cycle()
    assert net.solve().code is RejectCode.OK
    assert states(net, index) == [PD, S]
    left = net.state.open[index].states.remainders
    assert (left.items.tolist(), left.lo.tolist(), left.hi.tolist()) == ([0], [0], [2])
    assert (net.position(P01).payable, net.position(P02).payable) == (2 << 64, 0)


def test_a_remainder_survives_a_failed_cycle_and_a_restart() -> None:
    net, _, second = awaiting()
    net.solve()
    net.set_method(BTC, NettingMethod.POSITIONS)
    net.run_cycle()
    net.settlement(InstructionKind.FAIL, CB, 2, 0)
    assert states(net, second) == [PD]
    again = State.load(net.store)
    chunk = again.open[second].chunk
    assert (chunk.lo.tolist(), again.open[second].states.remainders.lo.tolist()) == ([1], [1])


@pytest.mark.parametrize("later", [NettingMethod.POSITIONS, NettingMethod.GRIDLOCK])
def test_the_method_is_the_one_at_the_cut_off(later: NettingMethod) -> None:
    """Governed otherwise while a solution is awaited, the asset is still set off in this cycle, and says so."""
    net, _, _ = awaiting()
    net.set_method(BTC, later)
    assert net.solve().code is RejectCode.OK
    (result,) = net.results_of(1)
    assert (result.method, result.value) == (NettingMethod.SETOFF, 26)


def test_pledged_liquidity_is_money_that_set_off_may_use_within_cover() -> None:
    net = Core()
    net.set_node_key()
    net.set_method(BTC, NettingMethod.SETOFF)
    net.pledge(P01, 5)
    chain = affirmed(net, P01, item(P01, P02, 8))
    net.run_cycle()
    net.solve()
    (result,) = net.results_of(1)
    assert (result.value, result.liquidity_used) == (5, 5)
    assert net.cycle(1).state is CycleState.NETTED
    assert states(net, chain) == [L]
    net.settle(1)
    assert states(net, chain) == [PD]
    assert (net.position(P01).payable, net.position(P01).paid) == (3, 5)


def test_a_set_off_that_fails_gives_everything_back() -> None:
    net = Core()
    net.set_node_key()
    net.set_method(BTC, NettingMethod.SETOFF)
    net.pledge(P01, 5)
    chain = affirmed(net, P01, item(P01, P02, 8))
    before = net.position(P01)
    net.run_cycle()
    net.solve()
    net.settlement(InstructionKind.FAIL, CB, 1, 0)
    assert net.cycle(1).state is CycleState.FAILED
    assert states(net, chain) == [A]
    assert replace(net.position(P01), salt=before.salt) == before
    assert not list(net.store.scan(Table.CYCLE_REMAINDERS))


def test_without_a_solution_in_time_the_obligations_go_back() -> None:
    net, index, _ = awaiting()
    eth = affirmed(net, P01, item(P01, P02, 3, ETH))
    cut_off_ms = net.cycle(1).cut_off_ms
    due_ms = cut_off_ms + Parameters().solution_timeout_ms
    assert ledger.next_deadline_ms(net.state, net.time_ms) == due_ms
    net.time_ms = due_ms - 2
    net.block(after_ms=1)
    assert net.cycle(1).state is CycleState.CUT_OFF
    net.block(after_ms=1)
    assert net.cycle(1).state is CycleState.DEADLOCK
    (result,) = net.results_of(1)
    assert (result.outcome, result.value) == (ResultOutcome.UNSOLVED, 0)
    assert (states(net, index), states(net, eth)) == ([A] * 4, [A])


def test_a_cycle_of_several_methods_settles_as_one() -> None:
    net = Core()
    net.set_node_key()
    net.set_method(ETH, NettingMethod.SETOFF)
    net.set_method(USDT, NettingMethod.GRIDLOCK)
    index = affirmed(
        net,
        P01,
        item(P01, P02, 5),
        item(P01, P02, 9, ETH),
        item(P02, P01, 4, ETH),
        item(P01, P02, 2, USDT),
        item(P02, P01, 2, USDT),
    )
    net.run_cycle()
    assert net.cycle(1).state is CycleState.CUT_OFF
    assert states(net, index) == [L] * 5
    net.solve()
    assert net.cycle(1).state is CycleState.NETTED
    assert states(net, index) == [L] * 5
    net.settle(1)
    assert net.cycle(1).state is CycleState.SETTLED
    assert states(net, index) == [S, PD, S, S, S]


# laws


def _first_pay_in(net: Core, cycle: int) -> int:
    kinds = [one.kind for one in net.instructions(cycle)]
    return kinds.index(SettlementKind.PAY_IN)


AMOUNTS = st.one_of(st.integers(1, 20), st.sampled_from([2**64 - 1, 2**64, 2**127, 2**128 - 1]))
ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 3), AMOUNTS, st.integers(0, 2)),
    min_size=1,
    max_size=12,
)
PLEDGES = st.lists(st.integers(0, 30), min_size=4, max_size=4)
PARTIES = (P01, P02, P03, P04)


def left_of(net: Core, index: int) -> list[int]:
    """Return what is owed of each item of a submission, from its record and its remainders alone."""
    body = net.store.body(index)
    assert body is not None
    records = items_view(memoryview(body)[SECRET_BYTES:])
    amounts = [
        lo + (hi << 64)
        for lo, hi in zip(records["amount_lo"].tolist(), records["amount_hi"].tolist(), strict=True)
    ]
    items = net.item_states(index)
    for number, lo, hi in zip(
        items.remainders.items.tolist(), items.remainders.lo.tolist(), items.remainders.hi.tolist(),
        strict=True,
    ):  # fmt: skip
        amounts[number] = lo + (hi << 64)
    return [
        0 if ObligationState(state) is S else amount
        for state, amount in zip(items.states.tolist(), amounts, strict=True)
    ]


@settings(max_examples=60)
@given(
    rows=ROWS,
    pledges=PLEDGES,
    method=st.sampled_from(list(NettingMethod)),
    fails=st.booleans(),
    data=st.data(),
)
def test_positions_are_what_obligations_and_movements_say(
    rows: list[tuple[int, int, int, int]],
    pledges: list[int],
    method: NettingMethod,
    data: st.DataObject,
    *,
    fails: bool,
) -> None:
    """Through two cycles by any methods, settled or failed: per party, open claims and money add up."""
    net = Core()
    net.set_node_key()
    for party, amount in zip(PARTIES, pledges, strict=True):
        net.pledge(party, amount)
    indexes = []
    for debtor, step, amount, priority in rows:
        creditor = PARTIES[(debtor + step) % 4]
        record = item(PARTIES[debtor], creditor, amount, priority=priority)
        indexes.append(affirmed(net, PARTIES[debtor], record))
    owed = [amount for _, _, amount, _ in rows]
    for cycle, by in ((1, method), (2, data.draw(st.sampled_from(list(NettingMethod))))):
        net.set_method(BTC, by)
        if net.run_cycle().code is RejectCode.NOTHING_TO_NET:
            break
        if net.cycle(cycle).state is CycleState.CUT_OFF:
            assert net.solve().code is RejectCode.OK
        if net.cycle(cycle).state is CycleState.NETTED and fails and cycle == 1:
            net.settlement(InstructionKind.FAIL, CB, cycle, _first_pay_in(net, cycle))
        else:
            net.settle(cycle)
        assert net.cycle(cycle).state in (
            CycleState.SETTLED,
            CycleState.FAILED,
            CycleState.DEADLOCK,
        )
        left = [left_of(net, index)[0] for index in indexes]
        assert all(rest <= before for rest, before in zip(left, owed, strict=True))
        owed = left
        for place, party in enumerate(PARTIES):
            debts = sum(rest for rest, row in zip(left, rows, strict=True) if row[0] == place)
            claims = sum(
                rest for rest, row in zip(left, rows, strict=True) if (row[0] + row[1]) % 4 == place
            )
            position = net.position(party)
            assert (position.payable, position.receivable) == (debts, claims)
            assert position.locked_net == 0
            lost = sum(row[2] for row in rows if row[0] == place) - debts
            gained = sum(row[2] for row in rows if (row[0] + row[1]) % 4 == place) - claims
            assert position.received - position.paid == gained - lost
            if by is not NettingMethod.POSITIONS and cycle == 1 and not fails:
                assert position.paid <= pledges[place]


@pytest.mark.parametrize("method", [NettingMethod.GRIDLOCK, NettingMethod.SETOFF])
def test_a_reloaded_ledger_goes_on_to_the_same_roots(method: NettingMethod) -> None:
    net = Core()
    net.set_node_key()
    net.set_method(BTC, method)
    affirmed(net, P01, item(P01, P02, 9), item(P02, P01, 4), item(P03, P01, 2))
    net.run_cycle()
    again = State.load(net.store)
    block = ledger.Block(
        net.state.height + 1, net.time_ms + 5, (net.submission(P01, item(P01, P02, 1)),)
    )
    assert ledger.apply(again, block).log_root == ledger.apply(net.state, block).log_root
