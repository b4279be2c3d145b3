"""The cheapest change against trying every one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.netting.engine import Engine
from clearing.netting.gridlock import gridlock
from clearing.netting.limits import Limits
from clearing.netting.relief import Change, cheapest_change
from tests.clearing.netting.netting_kit import ENGINES, NO_CAP, Row, Table, columns_of

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
