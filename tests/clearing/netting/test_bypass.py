"""First in, first out with bypass against plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.netting import wide
from clearing.netting.bypass import bypass
from clearing.netting.columns import InvalidRow
from clearing.netting.engine import Engine
from clearing.netting.limits import Limits
from tests.clearing.netting import netting_kit as kit
from tests.clearing.netting.netting_kit import ENGINES, Row, Table, columns_of, narrow, tables

EACH_ENGINE = pytest.mark.parametrize("engine", ENGINES)


@EACH_ENGINE
@given(table=tables(rows_max=60), passes_max=st.sampled_from([1, 2, 256]))
def test_what_settles_is_what_plain_python_settles(
    engine: Engine, table: Table, passes_max: int
) -> None:
    settled, left = kit.bypass(table, passes_max)
    for columns in (table.columns, narrow(table.columns)):
        settlement = bypass(columns, table.limits, passes_max=passes_max, engine=engine)
        assert set(np.flatnonzero(settlement.settled).tolist()) == settled
        moved = [after - before for after, before in zip(left, table.allowed, strict=True)]
        assert wide.to_ints(settlement.movements) == moved


@EACH_ENGINE
def test_a_payment_may_overtake_one_of_its_own_payer(engine: Engine) -> None:
    rows = [Row(0, 1, 10), Row(0, 1, 3)]
    settlement = bypass(columns_of(rows), Limits.of(2, {0: 5}), engine=engine)
    assert settlement.settled.tolist() == [False, True]


@EACH_ENGINE
def test_income_of_one_pass_pays_in_the_next_up_to_the_bound(engine: Engine) -> None:
    against_the_scan = columns_of(Row(number, number + 1, 1) for number in reversed(range(5)))
    limits = Limits.of(6, {0: 1})
    for passes_max in (1, 3, 5, 6):
        settlement = bypass(against_the_scan, limits, passes_max=passes_max, engine=engine)
        assert settlement.settled.sum() == min(passes_max, 5)


@EACH_ENGINE
def test_a_bad_row_is_refused(engine: Engine) -> None:
    with pytest.raises(InvalidRow, match="row 0"):
        bypass(columns_of([Row(0, 2, 1)]), Limits.of(2, {}), engine=engine)
