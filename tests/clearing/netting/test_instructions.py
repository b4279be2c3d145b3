"""What the compiler makes of the instructions is what they say outside compiled code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clearing.netting.engine import jit
from clearing.netting.instructions import PLACES, ROWS, U64, Ids, move_rows, prefetch
from tests.clearing.netting.netting_kit import EDGES

CELLS = 5


@jit
def _fetch_and_sum(column: NDArray[np.uint64], place: np.uint64) -> int:
    prefetch(column, place)
    return int(column.sum())


@jit
def _move(
    row: np.uint64, payers: Ids, payees: Ids, lo: U64, hi: U64, sums: U64, gross: U64
) -> np.uint64:
    return move_rows(row, payers, payees, lo, hi, sums, gross)


@pytest.mark.parametrize("place", [0, 3, 4, 1 << 40])
def test_a_fetch_ahead_changes_nothing_and_may_lie_beyond_the_end(place: int) -> None:
    column = np.arange(4, dtype=np.uint64)
    prefetch(column, place)
    assert _fetch_and_sum(column, np.uint64(place)) == 6
    assert column.tolist() == [0, 1, 2, 3]


def ints(sums: NDArray[np.uint64]) -> list[int]:
    """Return what the cells say, with all that their places carry."""
    places = sums.view(np.int64).reshape(-1, PLACES).tolist()
    return [sum(value << (32 * place) for place, value in enumerate(cell)) for cell in places]


AMOUNTS = st.one_of(st.integers(0, 2**128 - 1), st.sampled_from([0, 1, *EDGES]))
PARTIES = st.integers(0, CELLS - 1)
MOVES = st.lists(st.tuples(PARTIES, PARTIES, AMOUNTS), min_size=ROWS, max_size=ROWS)


def split(amount: int) -> tuple[int, int]:
    return amount % 2**64, amount >> 64


def columns(
    moves: list[tuple[int, int, int]], dtype: type, before: int
) -> tuple[Ids, Ids, U64, U64]:
    """Return the moves as columns, after some rows of others."""
    rows = [(9, 9, 2**128 - 1)] * before + moves
    payers, payees, amounts = zip(*rows, strict=True)
    lo, hi = (np.array(limbs, np.uint64) for limbs in zip(*map(split, amounts), strict=True))
    return np.array(payers, dtype), np.array(payees, dtype), lo, hi


@given(MOVES, st.sampled_from([np.uint16, np.uint32]), st.integers(0, 5))
def test_rows_add_up_compiled_and_not(
    moves: list[tuple[int, int, int]], dtype: type, before: int
) -> None:
    book = columns(moves, dtype, before)
    expected = [0] * CELLS
    for payer, payee, amount in moves:
        expected[payer] -= amount
        expected[payee] += amount
    has_zero = any(amount == 0 for _, _, amount in moves)
    for move in (_move, move_rows):
        sums, gross = np.zeros(PLACES * CELLS, np.uint64), np.ones(PLACES, np.uint64)
        assert (move(np.uint64(before), *book, sums, gross) != 0) == has_zero
        assert ints(sums) == expected
        assert ints(gross - 1) == [sum(amount for _, _, amount in moves)]


@pytest.mark.parametrize("offset", range(PLACES))
def test_sums_may_stand_at_any_address(offset: int) -> None:
    whole = np.zeros(PLACES * 2 + PLACES, np.uint64)
    sums, gross = whole[offset : offset + PLACES * 2], np.zeros(PLACES, np.uint64)
    amounts = [amount for amount in EDGES if 0 < amount < 2**128]
    moves = [(0, 1, amounts[row % len(amounts)]) for row in range(ROWS)]
    assert _move(np.uint64(0), *columns(moves, np.uint16, 0), sums, gross) == 0
    total = sum(amount for _, _, amount in moves)
    assert ints(sums) == [-total, total]
    assert ints(gross) == [total]
    untouched = [*whole[:offset].tolist(), *whole[offset + PLACES * 2 :].tolist()]
    assert not any(untouched)


@pytest.mark.parametrize("row", range(ROWS))
def test_a_zero_is_seen_wherever_it_stands(row: int) -> None:
    moves = [(0, 1, 2 ** (at % 128)) for at in range(ROWS)]
    moves[row] = (0, 1, 0)
    sums, gross = np.zeros(PLACES * 2, np.uint64), np.zeros(PLACES, np.uint64)
    assert _move(np.uint64(0), *columns(moves, np.uint32, 0), sums, gross) != 0
