"""Complete results: identities between the methods, and hashes that are equal on every path."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.netting import wide
from clearing.netting.columns import AssetColumns
from clearing.netting.limits import Limits, Reason
from clearing.netting.methods import (
    TransferStyle,
    by_bilateral,
    by_discharge,
    by_gridlock,
    by_positions,
)
from clearing.netting.result import Method
from tests.clearing.netting.netting_kit import ENGINES, Row, Table, columns_of, narrow, net, tables


@given(table=tables(), data=st.data())
def test_positions_hash_equal_on_every_path_and_in_every_order(
    table: Table, data: st.DataObject
) -> None:
    shuffled = columns_of(data.draw(st.permutations(table.rows)))
    for style in TransferStyle:
        hashes = {
            by_positions(columns, table.participants, style=style, engine=engine).hash()
            for columns in (table.columns, narrow(table.columns), shuffled)
            for engine in ENGINES
        }
        assert len(hashes) == 1


@pytest.mark.parametrize("first", [{}, {"bypass_first": True}], ids=["alone", "after bypass"])
@given(table=tables(rows_max=40))
def test_gridlock_and_bilateral_hash_equal_on_every_path(
    table: Table, first: dict[str, bool]
) -> None:
    paths = [
        (columns, engine)
        for columns in (table.columns, narrow(table.columns))
        for engine in ENGINES
    ]
    style = TransferStyle.PAIRWISE
    gridlocks = {
        by_gridlock(columns, table.limits, **first, style=style, engine=engine)[0].hash()
        for columns, engine in paths
    }
    pairs = {
        by_bilateral(columns, table.participants, engine=engine).hash() for columns, engine in paths
    }
    assert len(gridlocks) == len(pairs) == 1


@given(table=tables())
def test_every_method_tells_the_same_positions(table: Table) -> None:
    results = [
        by_positions(table.columns, table.participants, style=TransferStyle.AGENT),
        by_gridlock(table.columns, table.limits, style=TransferStyle.AGENT)[0],
        by_bilateral(table.columns, table.participants),
    ]
    expected = net(table.rows, table.participants)
    gross = sum(row.amount for row in table.rows)
    occurs = {number for row in table.rows for number in (row.debtor, row.creditor)}
    for result in results:
        assert wide.to_ints(result.positions) == expected
        assert (result.gross, result.rows) == (gross, len(table.rows))
        assert result.net == sum(position for position in expected if position > 0)
        assert np.flatnonzero(result.touched).tolist() == sorted(occurs)
        assert (~result.settled).nonzero()[0].tolist() == result.unsettled.row.tolist()
        assert result.liquidity_used == sum(max(0, -m) for m in wide.to_ints(result.movements))
        moved = [0] * table.participants
        if result.transfers is not None:
            for payer, payee, amount in zip(
                result.transfers.payer,
                result.transfers.payee,
                wide.to_ints(result.transfers.amount),
                strict=True,
            ):
                for end, sign in ((payer, -1), (payee, 1)):
                    if end >= 0:
                        moved[end] += sign * amount
        assert moved == wide.to_ints(result.movements)


@given(table=tables())
def test_gridlock_with_money_enough_is_positions(table: Table) -> None:
    plenty = Limits.of(table.participants, dict.fromkeys(range(table.participants), 2**128 - 1))
    if max([0, *(-position for position in net(table.rows, table.participants))]) >= 2**128:
        return
    everything = by_positions(table.columns, table.participants)
    settled, _ = by_gridlock(table.columns, plenty)
    assert settled.settled.all()
    assert settled.value == everything.value
    assert wide.to_bytes(settled.movements) == wide.to_bytes(everything.movements)


def test_what_gridlock_adds_to_bypass_is_told_apart() -> None:
    ring = [Row(number, (number + 1) % 3, 10) for number in range(3)]
    columns = columns_of([Row(0, 1, 4), *ring])
    result, before = by_gridlock(columns, Limits.of(3, {0: 4}), bypass_first=True)
    assert before is not None
    assert before.settled.tolist() == [True, False, False, False]
    assert result.settled.all()
    assert result.value == 34
    assert by_gridlock(columns, Limits.of(3, {}))[1] is None


@pytest.mark.parametrize(
    ("amounts", "ratio"),
    [
        ([], "0.000000"),
        ([(0, 1, 7)], "0.000000"),
        ([(0, 1, 5), (1, 0, 5)], "1.000000"),
        ([(0, 1, 2), (1, 0, 1)], "0.666666"),
        ([(0, 1, 2**128 - 1), (1, 0, 2**128 - 2)], "0.999999"),
    ],
)
def test_the_ratio_is_exact_and_rounded_down(
    amounts: list[tuple[int, int, int]], ratio: str
) -> None:
    assert by_positions(columns_of(Row(*row) for row in amounts), 2).ratio == ratio


def test_what_is_not_set_off_waits_for_a_counterclaim() -> None:
    result = by_bilateral(columns_of([Row(0, 1, 5), Row(1, 0, 3), Row(0, 1, 1)]), 2)
    assert result.settled.tolist() == [False, True, False]
    assert result.unsettled.reason.tolist() == [Reason.COUNTERCLAIM] * 2
    assert result.unsettled.participant.tolist() == [1, 1]
    assert wide.to_ints(result.unsettled.short) == [2, 1]
    assert result.value == 6


class Proof:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def to_bytes(self) -> bytes:
        return self.data


def test_setoff_carries_its_certificate_and_names_the_debtor() -> None:
    columns = columns_of([Row(0, 1, 5), Row(1, 2, 3), Row(2, 0, 4)])
    lost = np.array([3, 3, 3], np.uint64)
    hashes = set()
    for proof in (None, Proof(b"a"), Proof(b"b")):
        result = by_discharge(Method.SETOFF, columns, 3, lost, None, certificate=proof)
        hashes.add(result.hash())
    assert len(hashes) == 3
    assert result.unsettled.participant.tolist() == [0, 2]
    assert result.unsettled.reason.tolist() == [Reason.CYCLE] * 2
    assert result.value == 9
    assert wide.to_ints(result.movements) == [0, 0, 0]


def test_an_empty_asset_has_a_result_by_every_method() -> None:
    empty = AssetColumns.of([], [], [])
    results = [
        by_positions(empty, 2),
        by_gridlock(empty, Limits.of(2, {}), bypass_first=True)[0],
        by_bilateral(empty, 2),
    ]
    for result in results:
        assert (result.gross, result.net, result.value, result.ratio) == (0, 0, 0, "0.000000")
    assert len({result.hash() for result in results}) == 3
