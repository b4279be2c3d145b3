"""Batches, draws, months and reports of mined coin."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError, InvariantViolation
from clearing.rules.bitcoin_terms import TaxRule
from clearing.rules.mined import (
    Batch,
    BatchQueue,
    BatchState,
    Draw,
    MonthRow,
    Reserve,
    month_of,
    report,
)


def batch(amount: int, used: int = 0, counted_ms: int = 1) -> Batch:
    """Return a counted batch."""
    return Batch(BatchState.COUNTED, 1, amount, used, 1, counted_ms, 7, bytes(36))


@given(st.integers(0, 253_402_300_799_999))
def test_months_are_those_of_the_calendar(time_ms: int) -> None:
    shown = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=time_ms)
    assert month_of(time_ms) == shown.year * 100 + shown.month


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=6),
    st.lists(st.integers(1, 30), max_size=8),
)
def test_draws_take_the_first_first_and_exactly_the_amount(
    sizes: list[tuple[int, int]], amounts: list[int]
) -> None:
    """Against units drawn one by one."""
    batches = [(at, batch(used + left, used)) for at, (left, used) in enumerate(sizes)]
    units = [at for at, (left, _) in enumerate(sizes) for _ in range(left)]
    taken: Counter[int] = Counter()
    queue = BatchQueue(Reserve.of(batches))
    for amount in amounts:
        parts = queue.draw(amount)
        if amount > len(units):
            assert parts is None
            continue
        gone, units = Counter(units[:amount]), units[amount:]
        assert parts == tuple(sorted(gone.items()))
        taken += gone
    assert queue.drawn() == tuple(sorted(taken.items()))


def test_many_draws_on_many_batches_cost_what_they_empty() -> None:
    """A walk over all batches for each draw would take minutes here."""
    queue = BatchQueue(Reserve.of((at, batch(5, 5 * (at % 2))) for at in range(20_000)))
    assert all(queue.draw(1) == ((2 * (n // 5), 1),) for n in range(50_000))
    assert queue.draw(1) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(BatchState), st.integers(0, 3))))
def test_a_reserve_is_kept_up_to_date_as_if_it_were_read_anew(
    changes: list[tuple[int, BatchState, int]],
) -> None:
    batches: dict[int, Batch] = {2: batch(9, 4)}
    kept = Reserve.of(batches.items())
    before = kept.copy()
    for number, state, used in changes:
        batches[number] = replace(batch(3, used), state=state)
        kept.put(number, batches[number])
        anew = Reserve.of(sorted(batches.items()))
        assert (kept.numbers, kept.left, kept.left_units) == (
            anew.numbers,
            anew.left,
            anew.left_units,
        )
    assert (before.numbers, before.left, before.left_units) == ([2], {2: 5}, 5)


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
