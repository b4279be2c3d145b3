"""Many obligations between few parties: the pass over a table changes nothing but the time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearing.netting import setoff_dense, wide
from clearing.netting.columns import AssetColumns, InvalidRow, RowFault
from clearing.netting.engine import HAS_NUMBA, Engine, in_turn
from clearing.netting.setoff import set_off

pytestmark = pytest.mark.skipif(not HAS_NUMBA, reason="the table is for compiled kernels")

PARTIES = 3
ROWS = st.lists(
    st.tuples(
        st.integers(0, PARTIES - 1),
        st.integers(1, PARTIES - 1),
        st.integers(1, 9) | st.integers(1, 1 << 52),
        st.integers(0, 2),
    ),
    min_size=4 * PARTIES * PARTIES,
    max_size=60,
)


def columns_of(rows: list[tuple[int, int, int, int]]) -> AssetColumns:
    debtors, steps, amounts, priorities = zip(*rows, strict=True)
    creditors = [(debtor + step) % PARTIES for debtor, step in zip(debtors, steps, strict=True)]
    return AssetColumns.of(debtors, creditors, amounts, priorities)


def totals(
    columns: AssetColumns, participants: int, engine: Engine, pieces: int = 1
) -> np.ndarray | None:
    return setoff_dense.totals(columns, participants, 1 << 59, engine, in_turn, pieces)


@given(rows=ROWS, balances=st.lists(st.integers(0, 20), min_size=PARTIES, max_size=PARTIES))
@settings(max_examples=60)
def test_every_obligation_loses_what_it_does_without_a_table(
    rows: list[tuple[int, int, int, int]], balances: list[int]
) -> None:
    columns = columns_of(rows)
    assert totals(columns, PARTIES, Engine.COMPILED) is not None
    assert totals(columns, PARTIES, Engine.PORTABLE) is None
    for liquidity in (None, wide.from_ints(balances)):
        with_table, without = (
            set_off(columns, PARTIES, liquidity, engine=engine)
            for engine in (Engine.COMPILED, Engine.PORTABLE)
        )
        assert with_table.discharged() == without.discharged()
        assert with_table.potentials.tolist() == without.potentials.tolist()
        assert with_table.value == without.value == sum(with_table.discharged())


@given(rows=ROWS)
def test_the_table_holds_what_each_owes_each(rows: list[tuple[int, int, int, int]]) -> None:
    columns = columns_of(rows)
    naive = np.zeros((PARTIES, PARTIES), object)
    for debtor, creditor, amount in zip(
        columns.debtor, columns.creditor, columns.amounts(), strict=True
    ):
        naive[debtor, creditor] += amount
    for pieces in (1, 2, 5):
        tables = totals(columns, PARTIES, Engine.COMPILED, pieces)
        assert tables is not None
        assert len(tables) == pieces
        assert tables.sum(axis=0).tolist() == naive.tolist()


@given(rows=ROWS, pieces=st.integers(2, 80))
@settings(max_examples=60)
def test_rows_in_pieces_and_in_threads_lose_the_same(
    rows: list[tuple[int, int, int, int]], pieces: int
) -> None:
    columns = columns_of(rows)
    whole = set_off(columns, PARTIES)
    with ThreadPoolExecutor(2) as pool:
        for runner in (in_turn, pool.map):
            cut = set_off(columns, PARTIES, runner=runner, pieces=pieces)
            assert cut.discharged() == whole.discharged()
            assert cut.potentials.tolist() == whole.potentials.tolist()


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ((3, 0, 5), RowFault.DEBTOR_UNKNOWN),
        ((0, 3, 5), RowFault.CREDITOR_UNKNOWN),
        ((1, 1, 5), RowFault.SAME_PARTY),
        ((0, 1, 0), RowFault.AMOUNT_ZERO),
    ],
)
def test_a_bad_row_among_many_is_told(row: tuple[int, int, int], fault: RowFault) -> None:
    rows = [(0, 1, 5)] * 50
    rows[37] = row
    with pytest.raises(InvalidRow) as told:
        set_off(AssetColumns.of(*zip(*rows, strict=True)), PARTIES, engine=Engine.COMPILED)
    assert (told.value.row, told.value.fault) == (37, fault)


@pytest.mark.parametrize("amount", [1 << 54, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_sums_beyond_the_table_go_another_way(amount: int) -> None:
    columns = AssetColumns.of([0, 1] * 25, [1, 0] * 25, [amount] * 50)
    assert totals(columns, 2, Engine.COMPILED) is None
    assert set_off(columns, 2).value == 50 * amount
