"""Set-off of amounts above 64 bits: rounds of the 64-bit solver, each of which adds some bits.

Lives here: the rounds. May not live here: how one round is solved.
Invariant kept: the flow of every round is the greatest one for the amounts cut to its bits, so that of the last
round, which cuts nothing, is the greatest one.

How many bits a round may add: let f be the greatest flow for amounts of which s bits are cut off, and let d < s bits
be given back. Doubling f and the amounts d times leaves it greatest, and then each arc's amount grows by less
than 2^d. Among the greatest flows for the new amounts take the one nearest to f * 2^d: the difference is made of
circles, each gains, or the flow would not be nearest, and so each passes an arc beyond its old amount, since f was
greatest. All of them together carry less than m * 2^d over m arcs. So the new flow lies in a box of that
size around the old one, and with m * m * 2^d < 2^60 the box is a problem for 64 bits.

Source: own design after capacity scaling (Edmonds and Karp, Journal of the ACM 19, 1972).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.netting import wide
from clearing.netting.limits import minimum
from clearing.netting.setoff_core import Core

I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]
Round: TypeAlias = Callable[[I64, I64], tuple[I64, I64]]

_BITS: Final = 60


def solve_rounds(capacity: U64, solve: Round) -> tuple[U64, I64]:
    """Find the greatest flow within capacities of any size.

    capacity: wide array[m], not negative, summing to less than 2^190. solve: finds the greatest balanced change of
    flow between two bounds, int64[m] each, of which the first is not positive and the second not negative.

    Returns: the flow, a wide array[m], and the potentials of the last round.
    """
    arcs = capacity.shape[0]
    step = max(1, _BITS - 2 * arcs.bit_length())
    cut = max(0, wide.total(capacity).bit_length() - _BITS)
    flow = wide.zeros(arcs)
    change, potential = solve(
        np.zeros(arcs, np.int64), _narrow(_shift_right(capacity, cut), 1 << 62)
    )
    flow = wide.from_signed(change)
    while cut:
        added = min(step, cut)
        cut -= added
        flow = _shift_left(flow, added)
        box = arcs << added
        room = wide.subtract(_shift_right(capacity, cut), flow)
        change, potential = solve(-_narrow(flow, box), _narrow(room, box))
        flow = wide.add(flow, wide.from_signed(change))
    return flow, potential


def total_by_arc(core: Core, places: I64) -> U64:
    """Sum the amounts of the rows of each arc.

    places: int64[4, k], the amounts of the first k rows as `wide.to_places` gives them.

    Returns: wide array[m].
    """
    inside = np.flatnonzero(core.arc[: places.shape[1]] >= 0)
    sums = np.zeros((places.shape[0], core.arcs), np.int64)
    for column, words in zip(sums, places, strict=True):
        np.add.at(column, core.arc[inside], words[inside])
    return wide.from_places(sums)


def spread(core: Core, places: I64, flow: U64) -> U64:
    """Give the flow of each arc to its rows, earlier rows first.

    places: int64[4, k], the amounts of the first k rows. flow: wide array[m], no more than `total_by_arc`.

    Returns: wide array[k].
    """
    given = wide.zeros(places.shape[1])
    inside = np.flatnonzero(core.arc[: places.shape[1]] >= 0)
    rows = inside[np.argsort(core.arc[inside], kind="stable")]
    arc = core.arc[rows]
    amount = wide.from_places(places[:, rows])
    before = np.zeros((places.shape[0], rows.shape[0] + 1), np.int64)
    np.cumsum(places[:, rows], axis=1, out=before[:, 1:])
    of_earlier = before[:, :-1] - before[:, np.searchsorted(arc, arc)]
    left = wide.subtract(flow[arc], wide.from_places(of_earlier))
    left[wide.sign(left) < 0] = 0
    given[rows] = minimum(left, amount)
    return given


def _narrow(values: U64, most: int) -> I64:
    """Cut wide entries, none negative, to at most `most`, which is below 2^63."""
    fits = wide.fits_int64(values)
    return np.where(fits, np.minimum(values[:, 0].view(np.int64), most), most)


def _shift_left(values: U64, bits: int) -> U64:
    """Multiply wide entries by 2^bits, bits below 64, modulo 2^192."""
    if bits == 0:
        return values
    shifted = values << np.uint64(bits)
    shifted[:, 1:] |= values[:, :-1] >> np.uint64(64 - bits)
    return shifted


def _shift_right(values: U64, bits: int) -> U64:
    """Divide wide entries, none negative, by 2^bits, dropping the remainder."""
    limbs, bits = divmod(bits, 64)
    whole = np.zeros_like(values)
    whole[:, : wide.LIMBS - limbs] = values[:, limbs:]
    if bits == 0:
        return whole
    shifted = whole >> np.uint64(bits)
    shifted[:, :-1] |= whole[:, 1:] << np.uint64(64 - bits)
    return shifted
