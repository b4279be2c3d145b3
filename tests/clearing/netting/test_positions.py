"""Net positions against plain Python, and the laws they keep."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.netting import wide
from clearing.netting.columns import AssetColumns, Book, InvalidRow, RowFault, Tier, group_by_asset
from clearing.netting.engine import Engine
from clearing.netting.position_kernels import GROUP
from clearing.netting.positions import net_book, net_positions, turnover
from tests.clearing.netting.netting_kit import (
    EDGES,
    ENGINES,
    Row,
    Table,
    columns_of,
    narrow,
    net,
    tables,
)

EACH_ENGINE = pytest.mark.parametrize("engine", ENGINES)


@EACH_ENGINE
@given(table=tables())
def test_positions_are_what_python_sums(engine: Engine, table: Table) -> None:
    expected = net(table.rows, table.participants)
    for columns in (table.columns, narrow(table.columns)):
        for pieces in (1, 3):
            positions = net_positions(columns, table.participants, engine=engine, pieces=pieces)
            assert positions.ints() == expected
            assert positions.gross == sum(row.amount for row in table.rows)
            assert sum(positions.ints()) == 0


@EACH_ENGINE
@given(table=tables(), data=st.data())
def test_row_order_is_irrelevant(engine: Engine, table: Table, data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(table.rows))
    one = net_positions(table.columns, table.participants, engine=engine)
    other = net_positions(columns_of(shuffled), table.participants, engine=engine)
    assert wide.to_bytes(one.net) == wide.to_bytes(other.net)


@EACH_ENGINE
@given(table=tables(), factor=st.integers(1, 2**40))
def test_positions_scale(engine: Engine, table: Table, factor: int) -> None:
    small = [Row(row.debtor, row.creditor, row.amount % 2**80 + 1) for row in table.rows]
    large = [Row(row.debtor, row.creditor, row.amount * factor) for row in small]
    before = net_positions(columns_of(small), table.participants, engine=engine)
    after = net_positions(columns_of(large), table.participants, engine=engine)
    assert after.ints() == [position * factor for position in before.ints()]


@EACH_ENGINE
@given(table=tables())
def test_novation_to_a_central_account_leaves_it_at_zero(engine: Engine, table: Table) -> None:
    positions = net_positions(table.columns, table.participants, engine=engine)
    pay_in, pay_out = (wide.to_ints(side) for side in positions.novation())
    assert [out - paid for paid, out in zip(pay_in, pay_out, strict=True)] == positions.ints()
    assert all(paid == 0 or out == 0 for paid, out in zip(pay_in, pay_out, strict=True))
    assert min([*pay_in, *pay_out]) >= 0
    assert sum(pay_in) == sum(pay_out) == positions.net_total()


@EACH_ENGINE
@given(table=tables())
def test_turnover_is_what_each_owes_and_is_owed(engine: Engine, table: Table) -> None:
    debit, credit = turnover(table.columns, table.participants, engine=engine)
    for side, sums in (("debtor", debit), ("creditor", credit)):
        expected = [
            sum(row.amount for row in table.rows if getattr(row, side) == number)
            for number in range(table.participants)
        ]
        assert wide.to_ints(sums) == expected


@EACH_ENGINE
@pytest.mark.parametrize("amount", [*EDGES, 2**56, 2**56 + 1])
@pytest.mark.parametrize("rows", [1, 3, GROUP - 1, GROUP, GROUP + 1, 2 * GROUP + 1])
def test_one_hot_pair_of_edge_amounts(engine: Engine, amount: int, rows: int) -> None:
    columns = columns_of([Row(1, 0, amount)] * rows)
    positions = net_positions(columns, 3, engine=engine)
    assert positions.ints() == [rows * amount, -rows * amount, 0]
    assert positions.gross == rows * amount


@EACH_ENGINE
@pytest.mark.parametrize("boundary", [2**63, 2**127])
@pytest.mark.parametrize("step", [-1, 0, 1])
@pytest.mark.parametrize("place", [0, GROUP, GROUP + 65])
def test_gross_totals_that_cross_a_tier_in_one_row(
    engine: Engine, boundary: int, step: int, place: int
) -> None:
    amounts = [1] * (GROUP + 66)
    amounts[place] = boundary + step - (GROUP + 65)
    positions = net_positions(columns_of(Row(0, 1, a) for a in amounts), 2, engine=engine)
    assert positions.ints() == [-boundary - step, boundary + step]
    assert positions.tier == (
        {2**63: Tier.INT64, 2**127: Tier.INT128}[boundary]
        if step < 0
        else {2**63: Tier.INT128, 2**127: Tier.INT192}[boundary]
    )


@EACH_ENGINE
@pytest.mark.parametrize("tiers", ["122", "212", "221331", "3", "131", "113322311"])
def test_assets_of_all_tiers_in_one_book(engine: Engine, tiers: str) -> None:
    greatest = {"1": 2**40, "2": 2**100, "3": 2**127}
    rows = GROUP + 3
    tables = [
        [Row(n % 3, (n + 1 + n % 2) % 3, greatest[tier] - n) for n in range(rows)] for tier in tiers
    ]
    columns = columns_of(row for table in tables for row in table)
    book = Book(columns, np.arange(0, rows * len(tiers) + 1, rows, dtype=np.int64))
    for pieces in (1, 2):
        found = net_book(book, 3, engine=engine, pieces=pieces)
        assert [positions.ints() for positions in found] == [net(table, 3) for table in tables]
        assert [positions.tier for positions in found] == [Tier(int(tier)) for tier in tiers]


@EACH_ENGINE
@pytest.mark.parametrize("participants", [2, 3, 40_000, 70_000])
def test_every_number_of_participants_that_ids_allow(engine: Engine, participants: int) -> None:
    last = participants - 1
    columns = columns_of([Row(last, 0, 5), *[Row(0, last, 1)] * (GROUP + 6)])
    assert net_positions(columns, participants, engine=engine).ints()[last] == GROUP + 1
    if participants <= 1 << 16:
        assert net_positions(narrow(columns), participants, engine=engine).ints()[last] == GROUP + 1


@EACH_ENGINE
def test_empty_tables_and_books(engine: Engine) -> None:
    empty = AssetColumns.of([], [], [])
    assert net_positions(empty, 3, engine=engine).ints() == [0, 0, 0]
    assert net_positions(empty, 0, engine=engine).ints() == []
    assert net_book(Book(empty, np.zeros(1, np.int64)), 3, engine=engine) == []
    book = Book.of([empty, columns_of([Row(0, 1, 1)]), empty])
    assert [asset.ints() for asset in net_book(book, 2, engine=engine)] == [[0, 0], [-1, 1], [0, 0]]
    with pytest.raises(InvalidRow, match="row 0"):
        net_positions(columns_of([Row(0, 1, 1)]), 0, engine=engine)


@EACH_ENGINE
@given(table=tables(rows_max=40), data=st.data())
def test_a_book_is_netted_asset_by_asset_with_any_threads(
    engine: Engine, table: Table, data: st.DataObject
) -> None:
    owner = data.draw(
        st.lists(st.integers(0, 2), min_size=len(table.rows), max_size=len(table.rows))
    )
    book = group_by_asset(np.array(owner, np.uint16), table.columns, 3, engine=engine)
    expected = [
        net((row for row, asset in zip(table.rows, owner, strict=True) if asset == number), 5)
        for number in range(3)
    ]
    with ThreadPoolExecutor(3) as threads:
        for pieces in (1, 2, 7):
            netted = net_book(book, 5, engine=engine, runner=threads.map, pieces=pieces)
            assert [asset.ints() for asset in netted] == expected


BAD = [
    (Row(5, 1, 1), RowFault.DEBTOR_UNKNOWN),
    (Row(2**31, 1, 1), RowFault.DEBTOR_UNKNOWN),
    (Row(2**32 - 1, 1, 1), RowFault.DEBTOR_UNKNOWN),
    (Row(1, 5, 1), RowFault.CREDITOR_UNKNOWN),
    (Row(2, 2, 1), RowFault.SAME_PARTY),
    (Row(2, 1, 0), RowFault.AMOUNT_ZERO),
]


@EACH_ENGINE
@pytest.mark.parametrize(("bad", "fault"), BAD)
@pytest.mark.parametrize("place", [0, 1, GROUP - 1, GROUP, GROUP + 36, 3 * GROUP - 1])
@pytest.mark.parametrize("amount", [1, 2**62, 2**64, 2**128 - 1])
def test_the_first_bad_row_stops_it_in_every_tier(
    engine: Engine, bad: Row, fault: RowFault, place: int, amount: int
) -> None:
    rows = [Row(number % 5, (number + 1) % 5, amount) for number in range(3 * GROUP)]
    rows[-1] = Row(0, 0, 0)
    rows[place] = bad
    for pieces in (1, 2):
        with pytest.raises(InvalidRow) as caught:
            net_positions(columns_of(rows), 5, engine=engine, pieces=pieces)
        assert (caught.value.row, caught.value.fault) == (place, fault)


@EACH_ENGINE
@given(bad_at=st.integers(0, 255), top=st.integers(1, 2**15), over=st.integers(0, 2**15))
def test_validation_of_whole_words_finds_every_id(
    engine: Engine, bad_at: int, top: int, over: int
) -> None:
    ids = np.arange(256, dtype=np.uint16) % np.uint16(top)
    others = (ids + np.uint16(1)) % np.uint16(top + 1)
    one = np.ones(256, np.uint64)
    participants = min(top + 1, 2**15)
    good = AssetColumns(ids, np.minimum(others, participants - 1).astype(np.uint16), one)
    if participants == top + 1:
        assert sum(net_positions(good, participants, engine=engine).ints()) == 0
    ids = ids.copy()
    ids[bad_at] = min(participants + over, 2**16 - 1)
    with pytest.raises(InvalidRow):
        net_positions(AssetColumns(ids, good.creditor, one), participants, engine=engine)


@EACH_ENGINE
def test_views_at_odd_addresses_are_read_right(engine: Engine) -> None:
    columns = narrow(columns_of(Row(n % 5, (n + 1) % 5, n + 1) for n in range(300)))
    for start in range(9):
        view = columns.between(start, 300)
        rows = [Row(n % 5, (n + 1) % 5, n + 1) for n in range(start, 300)]
        assert net_positions(view, 5, engine=engine).ints() == net(rows, 5)
