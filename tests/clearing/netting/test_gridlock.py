"""Gridlock resolution against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.netting import wide
from clearing.netting.bypass import bypass
from clearing.netting.columns import InvalidColumns, InvalidRow
from clearing.netting.engine import Engine
from clearing.netting.gridlock import Settlement, gridlock, queue_order, unsettled
from clearing.netting.limits import Limits, Reason
from tests.clearing.netting import netting_kit as kit
from tests.clearing.netting.netting_kit import (
    ENGINES,
    NO_CAP,
    Row,
    Table,
    columns_of,
    narrow,
    tables,
)

EACH_ENGINE = pytest.mark.parametrize("engine", ENGINES)


def settled_rows(settlement: Settlement) -> set[int]:
    return set(np.flatnonzero(settlement.settled).tolist())


@given(table=tables(rows_max=7, participants_max=3))
def test_the_set_is_the_union_of_all_feasible_sets(table: Table) -> None:
    greatest = kit.gridlock_by_definition(table)
    assert kit.feasible((table.rows[place] for place in greatest), table.allowed)
    for engine in ENGINES:
        assert settled_rows(gridlock(table.columns, table.limits, engine=engine)) == greatest


@EACH_ENGINE
@given(table=tables(rows_max=60, participants_max=6))
def test_the_set_and_the_movements_are_those_of_the_naive_procedure(
    engine: Engine, table: Table
) -> None:
    expected = kit.gridlock(table, table.allowed, kit.queue_order(table.rows))
    for columns in (table.columns, narrow(table.columns)):
        settlement = gridlock(columns, table.limits, engine=engine)
        assert settled_rows(settlement) == expected
        rows = [table.rows[place] for place in sorted(expected)]
        assert wide.to_ints(settlement.movements) == kit.net(rows, table.participants)
        assert settlement.value(columns) == sum(row.amount for row in rows)


@EACH_ENGINE
@given(table=tables(rows_max=40, participants_max=6), data=st.data())
def test_the_set_is_the_same_from_any_starting_order(
    engine: Engine, table: Table, data: st.DataObject
) -> None:
    """Payers under other numbers are looked at in another order, and their queues may stand mixed in any way."""
    number = data.draw(st.permutations(range(table.participants)))
    place_of = {new: old for old, new in enumerate(number)}
    queues = [
        [place for place, row in enumerate(table.rows) if row.debtor == payer]
        for payer in range(table.participants)
    ]
    mixed = data.draw(st.permutations([row.debtor for row in table.rows]))
    order = [queues[payer].pop(0) for payer in mixed]
    rows = tuple(
        Row(number[row.debtor], number[row.creditor], row.amount, row.priority)
        for row in (table.rows[place] for place in order)
    )
    other = Table(
        table.participants,
        rows,
        tuple(table.liquidity[place_of[n]] for n in range(table.participants)),
        tuple(table.caps[place_of[n]] for n in range(table.participants)),
    )
    first = settled_rows(gridlock(table.columns, table.limits, engine=engine))
    again = settled_rows(gridlock(other.columns, other.limits, engine=engine))
    assert {order[place] for place in again} == first


@EACH_ENGINE
@given(table=tables(rows_max=40))
def test_more_liquidity_never_unsettles(engine: Engine, table: Table) -> None:
    before = settled_rows(gridlock(table.columns, table.limits, engine=engine))
    more = tuple(min(2 * amount + 1, 2**128 - 1) for amount in table.liquidity)
    richer = Table(table.participants, table.rows, more, table.caps)
    assert before <= settled_rows(gridlock(richer.columns, richer.limits, engine=engine))


@EACH_ENGINE
@given(table=tables(rows_max=40))
def test_after_bypass_the_rest_is_resolved_and_nothing_is_undone(
    engine: Engine, table: Table
) -> None:
    before = bypass(table.columns, table.limits, engine=engine)
    after = gridlock(table.columns, table.limits, before=before, engine=engine)
    first, left = kit.bypass(table, 256)
    queued = [place for place in kit.queue_order(table.rows) if place not in first]
    assert settled_rows(after) == first | kit.gridlock(table, left, queued)
    rows = [table.rows[place] for place in settled_rows(after)]
    assert wide.to_ints(after.movements) == kit.net(rows, table.participants)
    assert kit.feasible(rows, table.allowed)


@EACH_ENGINE
@given(table=tables(rows_max=40))
def test_the_reason_is_the_payers_lesser_limit_and_what_it_lacks(
    engine: Engine, table: Table
) -> None:
    settlement = gridlock(table.columns, table.limits, engine=engine)
    why = unsettled(table.columns, table.limits, settlement, engine=engine)
    moved = wide.to_ints(settlement.movements)
    waiting = [0] * table.participants
    expected = {}
    for place in kit.queue_order(table.rows):
        row = table.rows[place]
        if not settlement.settled[place]:
            waiting[row.debtor] += row.amount
            limit = table.allowed[row.debtor]
            short = waiting[row.debtor] - moved[row.debtor] - limit
            assert short > 0
            capped = table.caps[row.debtor] < table.liquidity[row.debtor]
            expected[place] = (Reason.CAP if capped else Reason.LIQUIDITY, row.debtor, short)
    columns = why.row.tolist(), why.reason.tolist(), why.participant.tolist()
    assert list(zip(*columns, wide.to_ints(why.short), strict=True)) == [
        (place, *expected[place]) for place in sorted(expected)
    ]


@EACH_ENGINE
@given(table=tables(rows_max=12))
def test_what_is_said_to_be_missing_is_enough(engine: Engine, table: Table) -> None:
    settlement = gridlock(table.columns, table.limits, engine=engine)
    why = unsettled(table.columns, table.limits, settlement, engine=engine)
    shorts = wide.to_ints(why.short)
    for row, payer, short in zip(why.row.tolist(), why.participant.tolist(), shorts, strict=True):
        raised = table.allowed[payer] + short
        if raised >= 2**128:
            continue
        liquidity, caps = list(table.liquidity), list(table.caps)
        liquidity[payer] = max(raised, liquidity[payer])
        caps[payer] = max(raised, caps[payer])
        richer = Table(table.participants, table.rows, tuple(liquidity), tuple(caps))
        assert gridlock(richer.columns, richer.limits, engine=engine).settled[row]


@EACH_ENGINE
def test_the_classic_gridlock_settles_without_any_money(engine: Engine) -> None:
    ring = [Row(number, (number + 1) % 3, 10) for number in range(3)]
    settlement = gridlock(columns_of(ring), Limits.of(3, {}), engine=engine)
    assert settlement.settled.all()
    assert wide.to_ints(settlement.movements) == [0, 0, 0]
    assert not bypass(columns_of(ring), Limits.of(3, {}), engine=engine).settled.any()


@EACH_ENGINE
def test_a_long_chain_unravels_whole(engine: Engine) -> None:
    chain = columns_of(Row(number, number + 1, 1) for number in range(3000))
    assert not gridlock(chain, Limits.of(3001, {}), engine=engine).settled.any()
    assert gridlock(chain, Limits.of(3001, {0: 1}), engine=engine).settled.all()


@pytest.mark.slow
@pytest.mark.parametrize("amount", [2**20, 2**100])
def test_queues_that_reach_over_many_windows(amount: int) -> None:
    random = np.random.default_rng(4)
    rows = [
        Row(debtor, (debtor + step) % 50, amount + extra)
        for debtor, step, extra in zip(
            random.integers(0, 50, 200_000).tolist(),
            random.integers(1, 50, 200_000).tolist(),
            random.integers(1, 2**19, 200_000).tolist(),
            strict=True,
        )
    ]
    columns, limits = columns_of(rows), Limits.of(50, dict.fromkeys(range(50), 3 * amount))
    settlements = [gridlock(columns, limits, engine=engine) for engine in ENGINES]
    assert {settlement.settled.tobytes() for settlement in settlements} == {
        settlements[0].settled.tobytes()
    }
    assert 0 < settlements[0].settled.sum() < len(rows)


def test_queue_order_is_priority_then_row() -> None:
    rows = [Row(0, 1, 1, priority) for priority in (0, 2, 1, 2)]
    order = queue_order(columns_of(rows))
    assert order is not None
    assert order.tolist() == [1, 3, 2, 0]
    assert queue_order(columns_of(Row(0, 1, 1, 3) for _ in range(3))) is None
    assert queue_order(columns_of([])) is None


@EACH_ENGINE
def test_bad_input_is_refused(engine: Engine) -> None:
    with pytest.raises(InvalidRow, match="row 1"):
        gridlock(columns_of([Row(0, 1, 1), Row(1, 1, 1)]), Limits.of(2, {}), engine=engine)
    urgent_last = [Row(0, 1, 1), Row(1, 1, 1), Row(0, 1, 1, 9)]
    with pytest.raises(InvalidRow, match="row 1"):
        gridlock(columns_of(urgent_last), Limits.of(2, {}), engine=engine)
    other = gridlock(columns_of([Row(0, 1, 1)]), Limits.of(2, {}), engine=engine)
    with pytest.raises(InvalidColumns, match="1 rows settled before: give 2"):
        gridlock(columns_of([Row(0, 1, 1)] * 2), Limits.of(2, {}), before=other, engine=engine)


@EACH_ENGINE
def test_an_empty_queue_settles(engine: Engine) -> None:
    table = Table(2, (), (0, 0), (NO_CAP, 0))
    settlement = gridlock(table.columns, table.limits, engine=engine)
    assert settlement.settled.shape == (0,)
    assert unsettled(table.columns, table.limits, settlement, engine=engine).row.shape == (0,)
