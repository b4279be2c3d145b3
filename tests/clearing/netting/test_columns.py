"""The shape of the input, grouping by asset, validation, and the choice of the tier."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.netting.columns import (
    AssetColumns,
    Book,
    InvalidColumns,
    InvalidRow,
    RowFault,
    Tier,
    check_participants,
    check_rows,
    concatenate,
    gross_of,
    group_by_asset,
    tier_of,
)
from clearing.netting.engine import Engine
from tests.clearing.netting.netting_kit import EDGES, ENGINES, narrow

TABLE = AssetColumns.of([0, 1, 2, 0], [1, 2, 0, 2], [1, 2**64, 2**128 - 1, 5], [0, 1, 2, 3])


def test_a_table_keeps_what_it_is_given() -> None:
    assert TABLE.rows == 4
    assert TABLE.amounts() == [1, 2**64, 2**128 - 1, 5]
    assert TABLE.take(np.array([2, 0])).amounts() == [2**128 - 1, 1]
    assert TABLE.take(np.array([False, True, False, True])).amounts() == [2**64, 5]
    assert TABLE.between(1, 3).amounts() == [2**64, 2**128 - 1]
    assert gross_of(TABLE) == sum(TABLE.amounts())


@pytest.mark.parametrize(
    ("column", "wrong", "why"),
    [
        ("debtor", np.zeros(4, np.int64), "debtor is int64"),
        ("creditor", np.zeros(4, np.uint16), "creditor is uint16"),
        ("creditor", np.zeros(3, np.uint32), "creditor has shape"),
        ("lo", np.zeros(4, np.int64), "lo is int64"),
        ("lo", np.zeros(8, np.uint64)[::2], "lo is strided"),
        ("hi", np.zeros((4, 1), np.uint64), "hi has shape"),
        ("priority", np.zeros(4, np.uint16), "priority is uint16"),
        ("debtor", [0, 1, 2, 0], "debtor is list"),
        ("hi", (0, 1, 1, 0), "hi is tuple"),
    ],
)
def test_a_column_of_another_shape_is_refused(column: str, wrong: np.ndarray, why: str) -> None:
    given_columns = {
        name: getattr(TABLE, name) for name in ("debtor", "creditor", "lo", "hi", "priority")
    }
    with pytest.raises(InvalidColumns, match=why):
        AssetColumns(**{**given_columns, column: wrong})


def test_columns_are_built_of_arrays_of_any_integers() -> None:
    table = AssetColumns.of(
        np.array([0, 1]), np.array([1, 2], np.int8), np.array([2**64 - 1, 1], np.uint64), (255, 0)
    )
    assert (table.debtor.tolist(), table.creditor.tolist()) == ([0, 1], [1, 2])
    assert (table.amounts(), table.priority.tolist()) == ([2**64 - 1, 1], [255, 0])
    assert AssetColumns.of([0], [1], np.array([2**70], object)).amounts() == [2**70]


@pytest.mark.parametrize(
    ("column", "wrong"),
    [
        ("debtor", np.array([2**32, 0])),
        ("debtor", np.array([0, -1])),
        ("debtor", [0, -1]),
        ("creditor", [1, 0.7]),
        ("creditor", np.array([1.0, 2.0])),
        ("creditor", ["p01", "p02"]),
        ("amounts", [5, -1]),
        ("amounts", np.array([5, -1])),
        ("amounts", [5, 1.5]),
        ("amounts", [5, 2**128]),
        ("priority", np.array([0, 256])),
        ("priority", [0, -1]),
    ],
)
def test_what_no_column_holds_is_refused_and_not_cut(column: str, wrong: Any) -> None:
    good = {"debtor": [0, 1], "creditor": [1, 2], "amounts": [5, 6], "priority": [0, 0]}
    with pytest.raises(InvalidColumns, match=f"^{column}: .*give integers from 0 to "):
        AssetColumns.of(**good | {column: wrong})


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ((3, 3, 0), RowFault.DEBTOR_UNKNOWN),
        ((1, 3, 0), RowFault.CREDITOR_UNKNOWN),
        ((1, 1, 0), RowFault.SAME_PARTY),
        ((1, 0, 0), RowFault.AMOUNT_ZERO),
        ((2**32 - 1, 0, 1), RowFault.DEBTOR_UNKNOWN),
    ],
)
def test_the_first_bad_row_is_named_with_its_first_fault(
    engine: Engine, row: tuple[int, int, int], fault: RowFault
) -> None:
    debtor, creditor, amount = row
    table = AssetColumns.of([0, debtor, 5], [1, creditor, 5], [2**70, amount, 0])
    with pytest.raises(InvalidRow, match="row 1: ") as caught:
        check_rows(table, 3, engine=engine)
    assert (caught.value.row, caught.value.fault) == (1, fault)
    check_rows(table.between(0, 1), 3, engine=engine)


@pytest.mark.parametrize("participants", [-1, 2**31 + 1])
def test_a_number_of_participants_has_bounds(participants: int) -> None:
    with pytest.raises(InvalidColumns, match="participants"):
        check_participants(participants)


@pytest.mark.parametrize("engine", ENGINES)
@given(data=st.data())
def test_grouping_is_stable_and_loses_nothing(engine: Engine, data: st.DataObject) -> None:
    assets = data.draw(st.integers(1, 4))
    asset = data.draw(st.lists(st.integers(0, assets - 1), max_size=30))
    amounts = [data.draw(st.sampled_from(EDGES)) for _ in asset]
    table = AssetColumns.of([0] * len(asset), [1] * len(asset), amounts)
    for dtype in (np.uint16, np.uint32):
        book = group_by_asset(np.array(asset, dtype), table, assets, engine=engine)
        assert book.assets == assets
        for number in range(assets):
            rows = [row for row, owner in enumerate(asset) if owner == number]
            assert book.asset(number).amounts() == [amounts[row] for row in rows]
            begin, end = book.start[number], book.start[number + 1]
            assert book.source is not None
            assert book.source[begin:end].tolist() == rows


def test_an_asset_number_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidColumns, match="asset number 2"):
        group_by_asset(np.array([0, 1, 2, 0], np.uint16), TABLE, 2)
    with pytest.raises(InvalidColumns, match="asset is int64"):
        group_by_asset(np.zeros(4, np.int64), TABLE, 2)
    with pytest.raises(InvalidColumns, match="asset has shape"):
        group_by_asset(np.zeros(3, np.uint16), TABLE, 2)


def test_chunks_join_whatever_columns_they_have() -> None:
    plain = AssetColumns.of([0], [1], [7])
    joined = concatenate([TABLE, plain, narrow(plain)])
    assert joined.amounts() == [*TABLE.amounts(), 7, 7]
    assert joined.priority is not None
    assert joined.priority.tolist() == [0, 1, 2, 3, 0, 0]
    assert concatenate([narrow(plain), narrow(plain)]).debtor.dtype == np.uint16
    assert concatenate([]).rows == 0
    assert concatenate([plain]) is plain
    book = Book.of([plain, TABLE])
    assert [book.asset(number).amounts() for number in range(2)] == [[7], TABLE.amounts()]


@pytest.mark.parametrize(
    ("gross", "tier"),
    [
        (0, Tier.INT64),
        (2**63 - 1, Tier.INT64),
        (2**63, Tier.INT128),
        (2**127 - 1, Tier.INT128),
        (2**127, Tier.INT192),
        (2**159, Tier.INT192),
    ],
)
def test_the_tier_is_the_narrowest_that_holds_the_gross_total(gross: int, tier: Tier) -> None:
    assert tier_of(gross) is tier
