"""What the compiler makes of the instructions is what they say outside compiled code."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from clearing.netting.engine import jit
from clearing.netting.instructions import PLACES, move_places, prefetch
from tests.clearing.netting.netting_kit import EDGES

CELLS = 5


@jit
def _fetch_and_sum(column: NDArray[np.uint64], place: np.uint64) -> int:
    prefetch(column, place)
    return int(column.sum())


@jit
def _move(
    sums: NDArray[np.uint64], payer: np.uint64, payee: np.uint64, lo: np.uint64, hi: np.uint64
) -> None:
    move_places(sums, payer, payee, lo, hi)


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


Move = tuple[int, int, int]
MOVES = st.lists(
    st.tuples(st.integers(0, CELLS - 1), st.integers(0, CELLS - 1), st.integers(0, 2**128 - 1)),
    max_size=30,
)


@given(MOVES)
def test_places_add_up_to_the_sums_compiled_and_not(moves: list[Move]) -> None:
    compiled, plain = (np.zeros(PLACES * CELLS, np.uint64) for _ in range(2))
    expected = [0] * CELLS
    for payer, payee, amount in moves:
        words = (
            np.uint64(payer),
            np.uint64(payee),
            np.uint64(amount % 2**64),
            np.uint64(amount >> 64),
        )
        _move(compiled, *words)
        move_places(plain, *words)
        expected[payer] -= amount
        expected[payee] += amount
    assert compiled.tolist() == plain.tolist()
    assert ints(compiled) == expected


@pytest.mark.parametrize("offset", range(PLACES))
def test_sums_may_stand_at_any_address(offset: int) -> None:
    whole = np.zeros(PLACES * 2 + PLACES, np.uint64)
    sums = whole[offset : offset + PLACES * 2]
    for lo, hi in itertools.product(EDGES, EDGES):
        before = ints(sums)
        amount = (lo % 2**64) + ((hi % 2**64) << 64)
        _move(sums, np.uint64(0), np.uint64(1), np.uint64(lo % 2**64), np.uint64(hi % 2**64))
        assert ints(sums) == [before[0] - amount, before[1] + amount]
    untouched = [*whole[:offset].tolist(), *whole[offset + PLACES * 2 :].tolist()]
    assert not any(untouched)
