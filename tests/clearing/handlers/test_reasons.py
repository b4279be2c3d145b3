"""Why an obligation is left, and that the change named discharges it: what is said is then done on the ledger."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearing.errors import RejectCode
from clearing.handlers.reasons import Explanation, answer, ask
from clearing.netting.limits import Reason
from clearing.netting.relief import Change
from clearing.rules.registry import Action, ActionKind, Cap
from clearing.types import CycleState, NettingMethod, ObligationState
from tests.clearing.core_kit import Core
from tests.ledger_kit import BTC, P01, P02, P03, P04, item

PARTIES = (P01, P02, P03, P04)


def netting_by(method: NettingMethod) -> Core:
    net = Core()
    net.set_node_key()
    net.set_method(BTC, method)
    return net


def owed(net: Core, submitter: int, *records: bytes) -> int:
    index = net.submit(submitter, *records)
    for party in PARTIES:
        if party != submitter:
            net.affirm(party, index)
    return index


def why(net: Core, index: int, number: int = 0) -> Explanation:
    question = ask(net.state, index, number)
    assert question is not None
    return answer(question)


def cycle(net: Core) -> None:
    """Cut off, solve what waits, and settle."""
    assert net.run_cycle().code is RejectCode.OK
    number = net.state.last_cycle
    if net.cycle(number).state is CycleState.CUT_OFF:
        assert net.solve().code is RejectCode.OK
    net.settle(number)


def grant(net: Core, change: Change) -> None:
    """Give a participant what a change says it needs more."""
    before = net.position(change.participant)
    if change.liquidity:
        net.pledge(change.participant, before.liquidity + change.liquidity)
    if change.cap:
        assert before.cap is not None
        cap = Cap(change.participant, BTC, before.cap + change.cap)
        net.enact(Action(ActionKind.SET_CAP, cap))


def test_positions_discharge_everything() -> None:
    net = netting_by(NettingMethod.POSITIONS)
    assert why(net, owed(net, P01, item(P01, P02, 5))).settles


def test_nobody_asks_about_what_is_not_there() -> None:
    net = netting_by(NettingMethod.GRIDLOCK)
    index = owed(net, P01, item(P01, P02, 5))
    for submission, number in ((index, 1), (index, -1), (index + 1, 0), (0, 0), (10**9, 0)):
        assert ask(net.state, submission, number) is None


def test_a_state_that_waits_for_no_cycle_says_all() -> None:
    net = netting_by(NettingMethod.GRIDLOCK)
    index = net.submit(P01, item(P01, P02, 5))
    assert why(net, index) == Explanation(ObligationState.PROPOSED, BTC, NettingMethod.GRIDLOCK)


def test_a_licence_that_is_not_in_force_is_the_reason() -> None:
    net = netting_by(NettingMethod.GRIDLOCK)
    index = owed(net, P01, item(P01, P02, 5))
    net.suspend(P02)
    told = why(net, index)
    assert (told.settles, told.reason, told.participant) == (False, Reason.EXCLUDED, P02)
    assert told.change is None


def test_what_runs_in_other_cycles_is_counted() -> None:
    net = netting_by(NettingMethod.GRIDLOCK)
    net.pledge(P01, 10)
    owed(net, P01, item(P01, P02, 7))
    net.run_cycle()
    told = why(net, owed(net, P01, item(P01, P02, 5)))
    assert (told.reason, told.short_units) == (Reason.LIQUIDITY, 2)
    assert told.change == Change(P01, 2, 0)


def test_money_pledged_for_a_set_off_goes_where_it_discharges_more() -> None:
    """The rest of the obligation alone is not enough: it would pay two others, one after the other."""
    net = netting_by(NettingMethod.SETOFF)
    index = owed(net, P01, item(P01, P02, 5), item(P01, P03, 5))
    owed(net, P03, item(P03, P04, 5))
    told = why(net, index)
    assert (told.reason, told.participant, told.short_units) == (Reason.CYCLE, P01, 5)
    assert told.change == Change(P01, 10, 0)
    net.pledge(P01, 9)
    assert not why(net, index).settles
    net.pledge(P01, 10)
    assert why(net, index).settles
    cycle(net)
    assert net.states(index)[0] is ObligationState.SETTLED


ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 9), st.integers(0, 1)),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize("method", [NettingMethod.GRIDLOCK, NettingMethod.SETOFF])
@settings(max_examples=25)
@given(
    rows=ROWS,
    pledges=st.lists(st.integers(0, 6), min_size=4, max_size=4),
    caps=st.lists(st.none() | st.integers(0, 6), min_size=4, max_size=4),
    data=st.data(),
)
def test_what_is_said_to_help_helps_and_what_is_said_to_settle_settles(
    method: NettingMethod,
    rows: list[tuple[int, int, int, int]],
    pledges: list[int],
    caps: list[int | None],
    data: st.DataObject,
) -> None:
    net = netting_by(method)
    for party, pledge, cap in zip(PARTIES, pledges, caps, strict=True):
        net.pledge(party, pledge)
        if cap is not None:
            net.enact(Action(ActionKind.SET_CAP, Cap(party, BTC, cap)))
    indexes = [
        owed(
            net,
            PARTIES[debtor],
            item(PARTIES[debtor], PARTIES[(debtor + step) % 4], amount, priority=priority),
        )
        for debtor, step, amount, priority in rows
    ]
    asked = data.draw(st.sampled_from(indexes))
    told = why(net, asked)
    if not told.settles:
        assert told.change is not None
        grant(net, told.change)
        assert why(net, asked).settles
    cycle(net)
    assert net.states(asked) == [ObligationState.SETTLED]
