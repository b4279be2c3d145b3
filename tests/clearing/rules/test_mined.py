"""Batches, draws, months and reports of mined coin."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError, InvariantViolation
from clearing.rules.bitcoin_terms import TaxRule
from clearing.rules.mined import Batch, BatchState, Draw, MonthRow, draw, month_of, report


def batch(amount: int, used: int = 0, counted_ms: int = 1) -> Batch:
    """Return a counted batch."""
    return Batch(BatchState.COUNTED, 1, amount, used, 1, counted_ms, 7, bytes(36))


@given(st.integers(0, 253_402_300_799_999))
def test_months_are_those_of_the_calendar(time_ms: int) -> None:
    shown = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=time_ms)
    assert month_of(time_ms) == shown.year * 100 + shown.month


@given(st.lists(st.integers(1, 50), max_size=6), st.integers(1, 200))
def test_draws_take_the_first_first_and_exactly_the_amount(sizes: list[int], amount: int) -> None:
    batches = [(at, batch(size)) for at, size in enumerate(sizes)]
    found = draw(batches, amount)
    if sum(sizes) < amount:
        assert found is None
        return
    assert found is not None
    parts, changed = found
    assert sum(part for _, part in parts) == amount
    for at, part in parts[:-1]:
        assert part == sizes[at] == changed[at].used_units
    assert [at for at, _ in parts] == list(range(len(parts)))


def test_rows_travel_and_bad_ones_are_refused() -> None:
    row = batch(5, 2)
    assert Batch.decode(row.encode()) == row
    one = Draw(3, 1, 0, ((7, 5), (8, 1)))
    assert Draw.decode(one.encode()) == one
    for bad in (row.encode()[:-1], b"\x09" + row.encode()[1:]):
        with pytest.raises(DecodeError):
            Batch.decode(bad)
    with pytest.raises(DecodeError):
        Draw.decode(one.encode()[:-1])
    with pytest.raises(InvariantViolation, match="more than its amount"):
        batch(5, 6).encode()


def test_a_report_counts_by_month_and_what_is_over_stays() -> None:
    june, july = 1_781_000_000_000, 1_784_000_000_000
    assert (month_of(june), month_of(july)) == (202606, 202607)
    batches = [(4, batch(100, 0, june)), (4, batch(50, 0, july)), (5, batch(9, 0, june))]
    draws = [Draw(4, june, july, ((1, 30),)), Draw(4, july, 0, ((1, 40),))]
    tax = TaxRule(500_000, 100_000)
    assert report(batches, draws, tax) == (
        MonthRow(4, 202606, 100, 30, 70, 35 + 3),
        MonthRow(4, 202607, 50, 10, 110, 20 + 1),
        MonthRow(5, 202606, 9, 0, 9, 4),
    )
    assert report(batches, draws[:1], tax)[0] == report(batches, draws, tax)[0]
    void = Batch(BatchState.VOID, 1, 5, 0, 1, 0, 7, bytes(36))
    assert report([(4, void)], [], tax) == ()
