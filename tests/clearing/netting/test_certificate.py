"""Certificates of set-off: what holds, what does not, and exact gaps, whatever is claimed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import VerificationError
from clearing.netting import wide
from clearing.netting.certificate import movements, verify
from clearing.netting.columns import AssetColumns, InvalidColumns, InvalidRow
from clearing.netting.engine import Engine
from clearing.netting.setoff import SetOff, set_off
from tests.clearing.netting import netting_kit as kit
from tests.clearing.netting import setoff_kit
from tests.clearing.netting.netting_kit import ENGINES, Row, Table, narrow, tables
from tests.clearing.netting.setoff_kit import table_of, wide_liquidity

EACH_ENGINE = pytest.mark.parametrize("engine", ENGINES)

HOSTILE = [0, 1, -1, 2**31, 2**61, 2**61 + 1, 2**62, 2**63 - 1, -(2**63), 2**64, 2**127, -(10**100)]


def gap_by_definition(
    table: Table, lost: list[int], q: list[int], liquidity: list[int] | None
) -> int:
    bound = sum(row.amount * max(0, 1 - q[row.debtor] + q[row.creditor]) for row in table.rows)
    if liquidity is not None:
        bound += sum(price * balance for price, balance in zip(q, liquidity, strict=True))
    return bound - sum(lost)


def columns_of_loss(table: Table, lost: list[int]) -> tuple[np.ndarray, np.ndarray | None]:
    lo, hi = wide.split_amounts(lost)
    return lo, np.zeros_like(lo) if hi is None and table.columns.hi is not None else hi


def optimum(table: Table, liquidity: np.ndarray | None = None) -> SetOff:
    return set_off(table.columns, table.participants, liquidity)


@EACH_ENGINE
@given(table=tables(), data=st.data())
def test_any_potentials_bound_any_discharge_exactly(
    engine: Engine, table: Table, data: st.DataObject
) -> None:
    sizes = {"min_size": table.participants, "max_size": table.participants}
    q = data.draw(st.lists(st.sampled_from(HOSTILE) | st.integers(-3, 3), **sizes))
    best = optimum(table)
    for lost in ([0] * len(table.rows), best.discharged()):
        gap = verify(table.columns, *columns_of_loss(table, lost), q, engine=engine)
        assert gap == gap_by_definition(table, lost, q, None)
        assert gap == verify(
            table.columns, *columns_of_loss(table, lost), q, engine=engine, pieces=3
        )
        assert gap >= best.value - sum(lost)
    if all(-(2**63) <= price < 2**63 for price in q):
        array = np.array(q, np.int64)
        assert gap == verify(
            narrow(table.columns), best.discharged_lo, best.discharged_hi, array, engine=engine
        )


@EACH_ENGINE
@given(table=tables(), data=st.data())
def test_with_liquidity_any_potentials_from_zero_up_bound_any_discharge_exactly(
    engine: Engine, table: Table, data: st.DataObject
) -> None:
    sizes = {"min_size": table.participants, "max_size": table.participants}
    prices = st.sampled_from([q for q in HOSTILE if q >= 0]) | st.integers(0, 3)
    q = data.draw(st.lists(prices, **sizes))
    liquidity = wide_liquidity(table.liquidity)
    best = optimum(table, liquidity)
    for lost in ([0] * len(table.rows), best.discharged()):
        loss = columns_of_loss(table, lost)
        gap = verify(table.columns, *loss, q, liquidity, engine=engine)
        assert gap == gap_by_definition(table, lost, q, list(table.liquidity))
        assert gap >= best.value - sum(lost)


@EACH_ENGINE
@given(table=tables())
def test_the_potentials_of_the_optimum_say_how_much_nothing_misses(
    engine: Engine, table: Table
) -> None:
    best = optimum(table)
    loss = columns_of_loss(table, [0] * len(table.rows))
    assert verify(table.columns, *loss, best.potentials, engine=engine) == best.value


@EACH_ENGINE
@given(table=tables().filter(lambda table: table.rows), data=st.data())
def test_a_changed_discharge_is_refused(engine: Engine, table: Table, data: st.DataObject) -> None:
    best = optimum(table)
    lost = best.discharged()
    place = data.draw(st.integers(0, len(lost) - 1))
    change = data.draw(st.sampled_from([-1, 1, 2**64]))
    lost[place] = min(max(lost[place] + change, 0), 2**128 - 1)
    if lost != best.discharged():
        loss = columns_of_loss(table, lost)
        told = set()
        for pieces in (1, 2):
            with pytest.raises(VerificationError, match=r"loses more|does not receive") as refused:
                verify(table.columns, *loss, best.potentials, engine=engine, pieces=pieces)
            told.add(str(refused.value))
        assert len(told) == 1


@EACH_ENGINE
@given(table=tables())
def test_money_that_is_not_there_is_refused(engine: Engine, table: Table) -> None:
    liquidity = wide_liquidity(table.liquidity)
    best = optimum(table, liquidity)
    loss = best.discharged_lo, best.discharged_hi
    moved = movements(table.columns, *loss, table.participants)
    for number, change in enumerate(wide.to_ints(moved)):
        if change < 0:
            short = list(table.liquidity)
            short[number] = -change - 1
            with pytest.raises(VerificationError, match=f"participant {number}: pays more"):
                verify(table.columns, *loss, best.potentials, wide_liquidity(short), engine=engine)


@given(table=tables())
def test_movements_are_the_positions_of_what_is_discharged(table: Table) -> None:
    best = optimum(table, wide_liquidity(table.liquidity))
    discharged = [
        Row(row.debtor, row.creditor, gone)
        for row, gone in zip(table.rows, best.discharged(), strict=True)
    ]
    moved = movements(table.columns, best.discharged_lo, best.discharged_hi, table.participants)
    assert wide.to_ints(moved) == kit.net(discharged, table.participants)


@EACH_ENGINE
def test_what_does_not_fit_the_table_is_refused(engine: Engine) -> None:
    table = table_of(3, [(0, 1, 10), (1, 2, 10), (2, 0, 10)])
    best = optimum(table)
    lo, q = best.discharged_lo, best.potentials
    columns = table.columns
    for bad_lo, bad_hi, bad_q, message in (
        (lo[:2], None, q, "discharged_lo is uint64"),
        (lo.astype(np.int64), None, q, "discharged_lo is int64"),
        (lo, lo[:1], q, "discharged_hi is uint64"),
        (lo, None, q.astype(np.int32), "potentials are int32"),
        (lo, lo, q, "row 0: the obligation loses more"),
        (lo + np.uint64(1), None, q, "row 0: the obligation loses more"),
        (lo | np.uint64(1 << 63), None, q, "row 0: the obligation loses more"),
    ):
        with pytest.raises(VerificationError, match=message):
            verify(columns, bad_lo, bad_hi, bad_q, engine=engine)
    with pytest.raises(VerificationError, match="participant 0: does not receive"):
        verify(columns, np.array([9, 10, 10], np.uint64), None, q, engine=engine)
    with pytest.raises(VerificationError, match="negative: with liquidity"):
        verify(columns, lo, None, q - 9, wide_liquidity([0, 0, 0]), engine=engine)
    with pytest.raises(InvalidColumns, match="liquidity has shape"):
        verify(columns, lo, None, q, wide_liquidity([0, 0]), engine=engine)
    with pytest.raises(InvalidRow, match="row 1: creditor is no participant"):
        verify(columns, lo, None, q[:2], engine=engine)


@EACH_ENGINE
@pytest.mark.parametrize("amount", [2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
def test_sums_across_the_signed_boundary_are_exact(engine: Engine, amount: int) -> None:
    columns = AssetColumns.of([0, 1, 2, 0], [1, 2, 0, 2], [amount] * 4)
    lo = np.array([amount, amount, amount, 0], np.uint64)
    assert verify(columns, lo, None, [0, 0, 0], engine=engine) == amount
    assert verify(columns, lo, None, [2, 1, 0], engine=engine) == 0
    assert verify(columns, lo, None, [0, 5, 0], engine=engine) == 5 * amount
    with pytest.raises(VerificationError):
        verify(columns, np.array([amount] * 4, np.uint64), None, [0, 0, 0], engine=engine)


def test_the_certificate_is_one_for_the_dual_of_plain_python() -> None:
    table = setoff_kit.scale_free(20, 80, seed=21)
    best = optimum(table)
    assert gap_by_definition(table, best.discharged(), best.potentials.tolist(), None) == 0
