"""Bilateral netting against plain Python."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.netting import wide
from clearing.netting.bilateral import Bilateral, bilateral, bilateral_book
from clearing.netting.columns import Book, InvalidRow
from clearing.netting.engine import Engine
from clearing.netting.positions import net_positions
from tests.clearing.netting import netting_kit as kit
from tests.clearing.netting.netting_kit import (
    EDGES,
    ENGINES,
    Row,
    Table,
    columns_of,
    narrow,
    tables,
)

EACH_ENGINE = pytest.mark.parametrize("engine", ENGINES)


def lists(netted: Bilateral) -> tuple[list[tuple[int, int, int, int]], list[int]]:
    pairs = netted.pairs
    ends = pairs.debtor.tolist(), pairs.creditor.tolist()
    amounts = wide.to_ints(pairs.net), wide.to_ints(pairs.set_off)
    lost = wide.join_amounts(netted.discharged_lo, netted.discharged_hi)
    return list(zip(*ends, *amounts, strict=True)), lost


@EACH_ENGINE
@pytest.mark.parametrize("strangers", [0, 1000], ids=["table", "sorted"])
@given(table=tables(rows_max=60))
def test_pairs_and_discharges_are_those_of_plain_python(
    engine: Engine, strangers: int, table: Table
) -> None:
    expected = kit.bilateral(table)
    for columns in (table.columns, narrow(table.columns)):
        netted = bilateral(columns, table.participants + strangers, engine=engine)
        assert lists(netted) == expected
        assert netted.value() == sum(expected[1])


@EACH_ENGINE
@given(table=tables(rows_max=40))
def test_no_position_changes_and_a_second_run_finds_nothing(engine: Engine, table: Table) -> None:
    _, lost = lists(bilateral(table.columns, table.participants, engine=engine))
    rest = [
        Row(row.debtor, row.creditor, row.amount - gone)
        for row, gone in zip(table.rows, lost, strict=True)
        if row.amount > gone
    ]
    before = net_positions(table.columns, table.participants, engine=engine)
    after = net_positions(columns_of(rest), table.participants, engine=engine)
    assert after.ints() == before.ints()
    assert after.gross == before.gross - sum(lost)
    assert bilateral(columns_of(rest), table.participants, engine=engine).value() == 0


@EACH_ENGINE
@pytest.mark.parametrize("participants", [2, 500])
@pytest.mark.parametrize("amount", EDGES)
def test_edge_amounts_both_ways(engine: Engine, participants: int, amount: int) -> None:
    rows = [Row(1, 0, amount)] * 3 + [Row(0, 1, 1)] * 2
    pairs, lost = lists(bilateral(columns_of(rows), participants, engine=engine))
    back = min(2, 3 * amount)
    assert pairs == [(1, 0, 3 * amount - 2, back)]
    assert lost == [min(2, amount), min(2 - min(2, amount), amount), 0, 1, 1]


@EACH_ENGINE
def test_a_net_of_zero_lists_the_lesser_number_as_debtor(engine: Engine) -> None:
    rows = [Row(1, 0, 4), Row(0, 1, 4)]
    assert lists(bilateral(columns_of(rows), 2, engine=engine))[0] == [(0, 1, 0, 4)]


@EACH_ENGINE
@given(
    sizes=st.lists(st.integers(0, 90), max_size=4),
    amount=st.sampled_from([1, 2**63, 2**127]),
)
def test_a_book_shares_one_working_memory(engine: Engine, sizes: list[int], amount: int) -> None:
    assets = [
        columns_of(Row(n % 7, (n + 1 + n % 3) % 7, amount + n) for n in range(size))
        for size in sizes
    ]
    book = Book.of(assets)
    for participants in (7, 700):
        together = [lists(one) for one in bilateral_book(book, participants, engine=engine)]
        assert together == [
            lists(bilateral(columns, participants, engine=engine)) for columns in assets
        ]


@EACH_ENGINE
def test_a_bad_row_is_refused(engine: Engine) -> None:
    with pytest.raises(InvalidRow, match="row 1"):
        bilateral(columns_of([Row(0, 1, 1), Row(0, 1, 0)]), 2, engine=engine)
