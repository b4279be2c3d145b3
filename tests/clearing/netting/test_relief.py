"""The cheapest change against trying every one."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.netting.engine import Engine
from clearing.netting.gridlock import gridlock
from clearing.netting.limits import Limits
from clearing.netting.relief import Change, cheapest_change, sure_change
from clearing.netting.setoff import set_off
from tests.clearing.netting.netting_kit import (
    ENGINES,
    NO_CAP,
    Row,
    Table,
    columns_of,
    queue_order,
    tables,
)

EACH_ENGINE = pytest.mark.parametrize("engine", ENGINES)

SMALL = st.builds(
    lambda rows, liquidity, caps: Table(3, tuple(rows), tuple(liquidity), tuple(caps)),
    st.lists(
        st.builds(
            lambda debtor, step, amount: Row(debtor, (debtor + step) % 3, amount),
            st.integers(0, 2),
            st.integers(1, 2),
            st.integers(1, 6),
        ),
        min_size=1,
        max_size=8,
    ),
    st.lists(st.integers(0, 3), min_size=3, max_size=3),
    st.lists(st.just(NO_CAP) | st.integers(0, 3), min_size=3, max_size=3),
)


def settles_with(table: Table, participant: int, more: int, row: int) -> bool:
    allowed = table.allowed
    allowed[participant] += more
    limits = Limits.of(3, dict(enumerate(allowed)))
    return bool(gridlock(table.columns, limits, engine=Engine.PORTABLE).settled[row])


@EACH_ENGINE
@given(table=SMALL, data=st.data())
def test_no_single_participant_needs_less(
    engine: Engine, table: Table, data: st.DataObject
) -> None:
    row = data.draw(st.integers(0, len(table.rows) - 1))
    change = cheapest_change(table.columns, table.limits, row, engine=engine)
    if settles_with(table, 0, 0, row):
        assert change is None
        return
    payer = table.rows[row].debtor
    first = [payer, *(other for other in range(3) if other != payer)]
    for more in range(1, 60):
        helpers = [other for other in first if settles_with(table, other, more, row)]
        if helpers:
            break
    assert change is not None
    limit = table.allowed[helpers[0]] + more
    assert change == Change(
        helpers[0],
        max(0, limit - table.liquidity[helpers[0]]),
        max(0, limit - table.caps[helpers[0]]),
    )


@EACH_ENGINE
def test_another_participants_small_gap_can_be_the_cheapest(engine: Engine) -> None:
    rows = [Row(0, 1, 100), Row(1, 2, 100)]
    columns = columns_of(rows)
    limits = Limits.of(3, {0: 99})
    assert cheapest_change(columns, limits, 1, engine=engine) == Change(0, 1, 0)
    capped = Limits.of(3, {0: 100, 1: 0}, {0: 98})
    assert cheapest_change(columns, capped, 1, engine=engine) == Change(0, 0, 2)
    assert cheapest_change(columns, Limits.of(3, {0: 99}, {0: 98}), 0, engine=engine) == Change(
        0, 1, 2
    )


@EACH_ENGINE
def test_a_payers_own_change_may_be_less_than_what_it_lacks_now(engine: Engine) -> None:
    rows = [Row(0, 1, 4), Row(1, 0, 6)]
    assert cheapest_change(columns_of(rows), Limits.of(2, {}), 1, engine=engine) == Change(1, 2, 0)


# set-off

TINY = st.builds(
    lambda rows, liquidity, caps: Table(3, tuple(rows), tuple(liquidity), tuple(caps)),
    st.lists(
        st.builds(
            lambda debtor, step, amount, priority: Row(
                debtor, (debtor + step) % 3, amount, priority
            ),
            st.integers(0, 2),
            st.integers(1, 2),
            st.integers(1, 3),
            st.integers(0, 1),
        ),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.integers(0, 2), min_size=3, max_size=3),
    st.lists(st.just(NO_CAP) | st.integers(0, 2), min_size=3, max_size=3),
)


def is_sure(table: Table, row: int, more: int) -> bool:
    """Try every discharge: does each of the greatest value take the row wholly, in the queue of its pair?"""
    rows, wanted = table.rows, table.rows[row]
    allowed = table.allowed
    allowed[wanted.debtor] += more
    pair = [
        at
        for at, one in enumerate(rows)
        if (one.debtor, one.creditor) == (wanted.debtor, wanted.creditor)
    ]
    ahead = [at for at in pair if (-rows[at].priority, at) <= (-wanted.priority, row)]
    through = sum(rows[at].amount for at in ahead)
    best, least = -1, 0
    for lost in itertools.product(*(range(one.amount + 1) for one in rows)):
        paid = [0, 0, 0]
        for loss, one in zip(lost, rows, strict=True):
            paid[one.debtor] += loss
            paid[one.creditor] -= loss
        if any(paid[party] > allowed[party] for party in range(3)):
            continue
        of_pair = sum(lost[at] for at in pair)
        if sum(lost) > best:
            best, least = sum(lost), of_pair
        elif sum(lost) == best:
            least = min(least, of_pair)
    return least >= through


@given(table=TINY, data=st.data())
def test_with_less_some_greatest_set_off_leaves_the_payment(
    table: Table, data: st.DataObject
) -> None:
    row = data.draw(st.integers(0, len(table.rows) - 1))
    change = sure_change(table.columns, table.limits, row)
    debtor = table.rows[row].debtor
    sure = [is_sure(table, row, more) for more in range(14)]
    assert sure == sorted(sure)
    if sure[0]:
        assert change is None
        return
    limit = table.allowed[debtor] + sure.index(True)
    assert change == Change(
        debtor,
        max(0, limit - table.liquidity[debtor]),
        max(0, limit - table.caps[debtor]),
    )


def is_missed(table: Table, row: int, more: int) -> bool:
    """Is as much discharged when one unit less is owed than takes the row wholly? Then a greatest set-off leaves it."""
    rows, wanted = table.rows, table.rows[row]
    pair = [
        at
        for at in queue_order(rows)
        if (rows[at].debtor, rows[at].creditor) == (wanted.debtor, wanted.creditor)
    ]
    behind = pair[pair.index(row) + 1 :]
    less = [
        replace(one, amount=one.amount - (at == row))
        for at, one in enumerate(rows)
        if at not in behind and (at != row or one.amount > 1)
    ]
    allowed = table.allowed
    allowed[wanted.debtor] += more
    liquidity = Limits.of(table.participants, dict(enumerate(allowed))).allowed()
    values = {
        set_off(columns_of(owed), table.participants, liquidity).value for owed in (rows, less)
    }
    return len(values) == 1


@given(table=tables(rows_max=16).filter(lambda table: len(table.rows) > 0), data=st.data())
def test_the_least_that_is_sure_is_where_one_unit_less_begins_to_matter(
    table: Table, data: st.DataObject
) -> None:
    row = data.draw(st.integers(0, len(table.rows) - 1))
    debtor = table.rows[row].debtor
    change = sure_change(table.columns, table.limits, row)
    owed = sum(one.amount for one in table.rows if one.debtor == debtor)
    most = min(owed, 2**128 - 1) - table.allowed[debtor]
    if change is None:
        assert not is_missed(table, row, 0) or most <= 0 or is_missed(table, row, most)
        return
    liquidity, cap = table.liquidity[debtor], table.caps[debtor]
    limit = liquidity + change.liquidity if change.liquidity else cap + change.cap
    assert change == Change(debtor, max(0, limit - liquidity), max(0, limit - cap))
    more = limit - table.allowed[debtor]
    assert 0 < more <= most
    assert is_missed(table, row, more - 1)
    assert not is_missed(table, row, more)


@EACH_ENGINE
def test_money_that_goes_further_elsewhere_goes_there_first(engine: Engine) -> None:
    """What is pledged for 0 to 1 would pay two claims by way of 2, and does until both are paid."""
    columns = columns_of([Row(0, 1, 5), Row(0, 2, 5), Row(2, 3, 5)])
    assert sure_change(columns, Limits.of(4, {}), 0, engine=engine) == Change(0, 10, 0)
    assert sure_change(columns, Limits.of(4, {0: 5}), 0, engine=engine) == Change(0, 5, 0)
    assert sure_change(columns, Limits.of(4, {0: 9}, {0: 7}), 0, engine=engine) == Change(0, 1, 3)
    assert sure_change(columns, Limits.of(4, {}), 1, engine=engine) == Change(0, 5, 0)


@EACH_ENGINE
@pytest.mark.parametrize("amount", [1, (1 << 64) - 1, 1 << 64, (1 << 64) + 1, (1 << 128) - 1])
def test_payments_of_any_size(engine: Engine, amount: int) -> None:
    columns = columns_of([Row(0, 1, amount)])
    assert sure_change(columns, Limits.of(2, {}), 0, engine=engine) == Change(0, amount, 0)
    assert sure_change(columns, Limits.of(2, {0: amount}), 0, engine=engine) is None


@EACH_ENGINE
def test_no_pledge_is_large_enough_for_what_exceeds_every_pledge(engine: Engine) -> None:
    """The last of two payments, of more than 2^128 units together."""
    columns = columns_of([Row(0, 1, (1 << 128) - 1), Row(0, 1, 1)])
    assert sure_change(columns, Limits.of(2, {}), 1, engine=engine) is None
