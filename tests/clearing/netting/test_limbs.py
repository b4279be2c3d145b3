"""The arithmetic inside compiled loops, limb by limb at the carries."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from clearing.netting import limbs, wide
from tests.clearing.netting.netting_kit import EDGES

STARTS = [0, 1, -1, 2**64 - 1, -(2**64), 2**128 - 1, -(2**128), 2**127, 2**190, -(2**190)]

# numpy warns when a scalar wraps, which is what limbs are for; compiled code does not.
WRAPS = pytest.mark.filterwarnings("ignore:overflow encountered")


def amount_words(amount: int) -> tuple[np.uint64, np.uint64]:
    return np.uint64(amount % 2**64), np.uint64(amount >> 64)


@WRAPS
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("amount", EDGES)
def test_three_limbs_add_and_subtract(start: int, amount: int) -> None:
    cells = wide.from_ints([7, start]).reshape(-1)
    limbs.add_int192(cells, np.uint64(1), *amount_words(amount))
    assert wide.to_ints(cells.reshape(-1, 3)) == [7, start + amount]
    limbs.subtract_int192(cells, np.uint64(1), *amount_words(amount))
    limbs.subtract_int192(cells, np.uint64(1), *amount_words(amount))
    assert wide.to_ints(cells.reshape(-1, 3)) == [7, start - amount]
    assert limbs.is_negative(cells, np.uint64(1), np.uint64(3)) == (start - amount < 0)


@WRAPS
def test_a_move_takes_and_gives_the_same() -> None:
    for start, amount in itertools.product(STARTS, EDGES):
        cells = wide.from_ints([start, -start]).reshape(-1)
        limbs.move_int192(cells, np.uint64(0), np.uint64(1), *amount_words(amount))
        assert wide.to_ints(cells.reshape(-1, 3)) == [start - amount, amount - start]


@WRAPS
def test_a_move_in_one_limb() -> None:
    cells = np.array([5, 0], np.uint64)
    limbs.move_int64(cells, np.uint64(0), np.uint64(1), np.uint64(9))
    assert cells.view(np.int64).tolist() == [-4, 9]
