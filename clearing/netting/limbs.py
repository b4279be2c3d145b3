"""Sums of 64 and 192 bits inside compiled loops.

Lives here: what more than one kernel file does to flat arrays of little-endian limbs. May not live here: loops.
A kernel is cached by its own file (see `engine`), so a change here needs the caches of its callers removed.

A cell of k limbs that belongs to participant p is net[k*p .. k*p+k-1], two's complement. An amount is lo and hi.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.netting.engine import jit

U64: TypeAlias = NDArray[np.uint64]

_ONE: Final = np.uint64(1)
_TWO: Final = np.uint64(2)
_THREE: Final = np.uint64(3)
_ALL_ONES: Final = np.uint64(2**64 - 1)
_TOP_BIT: Final = np.uint64(63)


@jit
def move_int64(net: U64, payer: np.uint64, payee: np.uint64, lo: np.uint64) -> None:
    """Take lo from the payer's cell and add it to the payee's, in one limb."""
    net[payer] -= lo
    net[payee] += lo


@jit
def move_int192(net: U64, payer: np.uint64, payee: np.uint64, lo: np.uint64, hi: np.uint64) -> None:
    """Take the amount from the payer's cell and add it to the payee's, in three limbs."""
    subtract_int192(net, payer, lo, hi)
    add_int192(net, payee, lo, hi)


@jit
def add_int192(net: U64, cell: np.uint64, lo: np.uint64, hi: np.uint64) -> None:
    """Add the amount to a cell of three limbs."""
    at = cell * _THREE
    low = net[at] + lo
    carry = np.uint64(low < lo)
    middle = net[at + _ONE] + hi
    net[at] = low
    net[at + _ONE] = middle + carry
    net[at + _TWO] += np.uint64(middle < hi) | (np.uint64(middle == _ALL_ONES) & carry)


@jit
def subtract_int192(net: U64, cell: np.uint64, lo: np.uint64, hi: np.uint64) -> None:
    """Take the amount from a cell of three limbs."""
    at = cell * _THREE
    low = net[at]
    middle = net[at + _ONE]
    borrow = np.uint64(low < lo)
    net[at] = low - lo
    net[at + _ONE] = middle - hi - borrow
    net[at + _TWO] -= np.uint64(middle < hi) | (np.uint64(middle == hi) & borrow)


@jit
def is_negative(net: U64, cell: np.uint64, limbs: np.uint64) -> bool:
    """Say whether a cell is below zero."""
    return bool(net[cell * limbs + limbs - _ONE] >> _TOP_BIT != np.uint64(0))
