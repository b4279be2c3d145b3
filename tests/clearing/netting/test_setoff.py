"""Set-off against plain Python, on every engine and by every route."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import InvariantViolation
from clearing.netting import certificate, setoff, setoff_push, wide
from clearing.netting.columns import AssetColumns, InvalidColumns, InvalidRow
from clearing.netting.engine import Engine
from clearing.netting.setoff import Route, SetOff, set_off
from clearing.netting.setoff_core import FlowProblem, FlowSolution
from tests.clearing.netting import setoff_kit
from tests.clearing.netting.netting_kit import ENGINES, Row, Table, columns_of, narrow, tables
from tests.clearing.netting.setoff_kit import check_discharge, table_of, wide_liquidity

EACH_ENGINE = pytest.mark.parametrize("engine", ENGINES)
EACH_ROUTE = pytest.mark.parametrize("route", Route)

SCALE_FREE_VALUE = 54034884
RING_VALUE = 6092156
"""Source: network_simplex of networkx 3.6.1 on the same rows, gains as negative weights."""


def check(table: Table, found: SetOff, liquidity: tuple[int, ...] | None = None) -> None:
    check_discharge(table, found.discharged(), liquidity)
    assert found.value == sum(found.discharged()) == setoff_kit.greatest(table, liquidity)
    gap = certificate.verify(
        table.columns,
        found.discharged_lo,
        found.discharged_hi,
        found.potentials,
        wide_liquidity(liquidity),
    )
    assert gap == 0


@EACH_ENGINE
@EACH_ROUTE
@given(table=tables())
def test_the_discharge_is_the_greatest(engine: Engine, route: Route, table: Table) -> None:
    check(table, set_off(table.columns, table.participants, route=route, engine=engine))


@EACH_ENGINE
@EACH_ROUTE
@given(table=tables())
def test_with_liquidity_the_discharge_is_the_greatest(
    engine: Engine, route: Route, table: Table
) -> None:
    liquidity = wide_liquidity(table.liquidity)
    found = set_off(table.columns, table.participants, liquidity, route=route, engine=engine)
    assert (found.potentials >= 0).all()
    check(table, found, table.liquidity)


@given(table=tables(rows_max=40), data=st.data(), with_money=st.booleans())
def test_neither_row_order_nor_engine_nor_width_of_ids_changes_a_pair(
    table: Table, data: st.DataObject, *, with_money: bool
) -> None:
    mixed = Table(
        table.participants,
        tuple(data.draw(st.permutations(table.rows))),
        table.liquidity,
        table.caps,
    )
    liquidity = wide_liquidity(table.liquidity) if with_money else None
    first = set_off(table.columns, table.participants, liquidity)
    expected = setoff_kit.totals(table, first.discharged())
    for engine in ENGINES:
        again = set_off(mixed.columns, table.participants, liquidity, engine=engine)
        assert setoff_kit.totals(mixed, again.discharged()) == expected
        assert again.potentials.tolist() == first.potentials.tolist()
        assert again.value == first.value
    same = set_off(narrow(table.columns), table.participants, liquidity)
    assert same.discharged() == first.discharged()


@pytest.mark.parametrize("bits", [0, 30, 60, 90, 110])
@EACH_ROUTE
def test_the_value_grows_with_the_amounts_at_any_size(bits: int, route: Route) -> None:
    table = setoff_kit.scale_free(25, 120, seed=5)
    rows = [Row(row.debtor, row.creditor, row.amount << bits) for row in table.rows]
    small = set_off(table.columns, 25)
    great = set_off(columns_of(rows), 25, route=route)
    assert small.value == setoff_kit.greatest(table)
    assert great.value == small.value << bits


@pytest.mark.parametrize("bits", [58, 59, 61, 64, 80, 127])
def test_amounts_with_bits_at_both_ends(bits: int) -> None:
    table = setoff_kit.scale_free(12, 80, seed=bits)
    rows = tuple(
        Row(row.debtor, row.creditor, row.amount | 1 << (bits - row.amount % 7))
        for row in table.rows
    )
    great = Table(12, rows, tuple(1 << (bits - 2) for _ in range(12)), table.caps)
    check(great, set_off(great.columns, 12))
    money = wide_liquidity(great.liquidity)
    check(great, set_off(great.columns, 12, money), great.liquidity)


def test_balances_of_any_size_do_not_widen_small_obligations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = setoff_kit.scale_free(30, 120, seed=3)
    everything = wide_liquidity([2**128 - 1] * 30)

    def refuse(*_: object) -> None:
        raise AssertionError("64 bits are enough")

    monkeypatch.setattr(setoff, "_wide", refuse)
    found = set_off(table.columns, 30, everything)
    assert found.discharged() == [row.amount for row in table.rows]


def test_a_circle_is_set_off_by_its_least_obligation() -> None:
    table = table_of(4, [(0, 1, 70), (1, 2, 50), (2, 0, 90), (2, 3, 1000)])
    found = set_off(table.columns, 4)
    assert found.discharged() == [50, 50, 50, 0]
    assert found.value == 150


def test_a_chain_needs_money_only_at_its_beginning() -> None:
    table = table_of(3, [(0, 1, 70), (1, 2, 70)])
    assert set_off(table.columns, 3).value == 0
    found = set_off(table.columns, 3, wide_liquidity([40, 0, 10**6]))
    assert found.discharged() == [40, 40]
    moved = certificate.movements(table.columns, found.discharged_lo, found.discharged_hi, 3)
    assert wide.to_ints(moved) == [-40, 0, 40]


def test_setting_off_pairs_first_would_lose_value() -> None:
    rows = [(0, 1, 10), (1, 0, 10), (1, 2, 10), (2, 3, 10), (3, 0, 10)]
    assert set_off(table_of(4, rows).columns, 4).value == 40


@EACH_ROUTE
def test_a_scale_free_graph_has_one_value_by_every_route(route: Route) -> None:
    table = setoff_kit.scale_free(2000, 12000, seed=1)
    assert set_off(table.columns, 2000, route=route).value == SCALE_FREE_VALUE


@EACH_ROUTE
def test_a_ring_has_one_value_by_every_route(route: Route) -> None:
    table = setoff_kit.ring(900)
    found = set_off(table.columns, 900, route=route)
    assert found.value == RING_VALUE


@pytest.mark.parametrize("route", [Route.AUTO, Route.SIMPLEX])
def test_circles_inside_circles_are_all_set_off(route: Route) -> None:
    table, value = setoff_kit.nested_circles(6000)
    assert set_off(table.columns, 6000, route=route).value == value


def test_a_thin_graph_is_not_pushed_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **_named: object) -> None:
        raise AssertionError("a spanning tree is nearly all of it")

    monkeypatch.setattr(setoff_push, "solve", refuse)
    assert set_off(setoff_kit.ring(900).columns, 900).value == RING_VALUE


def test_a_long_graph_with_many_circles_goes_to_the_network_simplex_method(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table, value = setoff_kit.nested_circles(6000)
    asked = []

    def give_up(_problem: FlowProblem, _engine: Engine, *, patient: bool) -> None:
        asked.append(patient)

    monkeypatch.setattr(setoff_push, "solve", give_up)
    assert set_off(table.columns, 6000).value == value
    assert asked == []
    # Where pushing was tried and gave up, it comes second.
    monkeypatch.setattr(setoff, "_is_thin", lambda *_: False)
    assert set_off(table.columns, 6000).value == value
    assert asked == [False]


@EACH_ENGINE
@EACH_ROUTE
def test_no_obligations_and_no_circles_are_valid(engine: Engine, route: Route) -> None:
    for participants, rows in ((0, []), (5, []), (5, [(0, 1, 2**128 - 1), (0, 2, 1)])):
        table = table_of(participants, rows)
        for liquidity in (None, wide_liquidity([0] * participants)):
            found = set_off(table.columns, participants, liquidity, route=route, engine=engine)
            assert found.value == 0
            assert found.potentials.shape == (participants,)


@EACH_ENGINE
def test_bad_rows_and_sizes_are_told(engine: Engine) -> None:
    good = AssetColumns.of([0, 1], [1, 0], [5, 5])
    with pytest.raises(InvalidRow, match="row 1: debtor is no participant"):
        set_off(AssetColumns.of([0, 2], [1, 0], [5, 5]), 2, engine=engine)
    with pytest.raises(InvalidRow, match="row 0: amount is zero"):
        set_off(AssetColumns.of([0, 1], [1, 0], [0, 5]), 2, engine=engine)
    with pytest.raises(InvalidColumns, match="fewer than"):
        set_off(good, 1 << 28, engine=engine)
    with pytest.raises(InvalidColumns, match="liquidity has shape"):
        set_off(good, 2, wide_liquidity([1]), engine=engine)
    with pytest.raises(InvalidColumns, match="not in 0"):
        set_off(good, 2, wide_liquidity([1, -1]), engine=engine)


def test_a_solver_that_is_wrong_gives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def lazy(problem: FlowProblem, engine: Engine, *, patient: bool) -> FlowSolution:
        return FlowSolution(problem.capacity, problem.excess * 0)

    monkeypatch.setattr(setoff_push, "solve", lazy)
    with pytest.raises(InvariantViolation, match="30 short"):
        set_off(AssetColumns.of([0, 1, 2], [1, 2, 0], [10, 10, 10]), 3, route=Route.PUSH)


def test_without_numba_the_discharge_is_the_same() -> None:
    table = setoff_kit.scale_free(30, 150, seed=8)
    nested, _ = setoff_kit.nested_circles(60)
    program = """
import sys
sys.modules["numba"] = None
from clearing.netting.engine import HAS_NUMBA
from clearing.netting.setoff import Route, set_off
from tests.clearing.netting import setoff_kit
assert not HAS_NUMBA
for table in (setoff_kit.scale_free(30, 150, seed=8), setoff_kit.nested_circles(60)[0]):
    for route in Route:
        print(set_off(table.columns, table.participants, route=route).discharged())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = [
        str(set_off(each.columns, each.participants, route=route).discharged())
        for each in (table, nested)
        for route in Route
    ]
    assert done.stdout.splitlines() == expected
