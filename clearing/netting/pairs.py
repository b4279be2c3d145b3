"""Discharge by pair: what each debtor's obligations to each creditor lose together, and what each of them loses.

Lives here: the way from rows to pairs and back, which is how a set-off is told in few bytes. May not live here: any
search, and whether a discharge is allowed (certificate).
Invariant kept: within a pair the obligations lose in queue order (priority, then row), each wholly before the next
loses anything, so that pairs say all there is to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.errors import VerificationError
from clearing.netting import wide
from clearing.netting.columns import AssetColumns
from clearing.netting.gridlock import queue_order
from clearing.netting.limits import minimum

U64: TypeAlias = NDArray[np.uint64]
U32: TypeAlias = NDArray[np.uint32]
I64: TypeAlias = NDArray[np.int64]

_HALF = np.uint64(32)


@dataclass(frozen=True, slots=True, eq=False)
class PairTotals:
    """What pairs lose: ascending by (debtor, creditor), each once, each amount above zero.

    debtor, creditor: uint32[k]. amount: wide array of k sums.
    """

    debtor: U32
    creditor: U32
    amount: U64

    @property
    def keys(self) -> U64:
        """One number a pair, in its order."""
        return _keys(self.debtor, self.creditor)


def pair_totals(columns: AssetColumns, discharged_lo: U64, discharged_hi: U64 | None) -> PairTotals:
    """Sum a discharge by pair; pairs that lose nothing are left out.

    discharged_lo, discharged_hi: uint64[rows], hi None for zeros.
    """
    keys = _keys(columns.debtor, columns.creditor)
    pairs, place = np.unique(keys, return_inverse=True)
    sums = np.zeros((4, len(pairs)), np.int64)
    for column, words in zip(sums, wide.to_places(discharged_lo, discharged_hi), strict=True):
        np.add.at(column, place, words)
    amount = wide.from_places(sums)
    loses = wide.sign(amount) > 0
    kept = pairs[loses]
    return PairTotals(
        (kept >> _HALF).astype(np.uint32),
        kept.astype(np.uint32),
        np.ascontiguousarray(amount[loses]),
    )


def spread_pairs(columns: AssetColumns, pairs: PairTotals) -> tuple[U64, U64]:
    """Say what each obligation loses, given what its pair does.

    Returns: (lo, hi), uint64[rows].
    Raises: VerificationError: a pair owes nothing, or less than it is said to lose.
    """
    keys = _keys(columns.debtor, columns.creditor)
    queued = queue_order(columns)
    order = (
        np.argsort(keys, kind="stable")
        if queued is None
        else queued[np.argsort(keys[queued], kind="stable")]
    )
    rows = columns.take(order)
    owed, start = np.unique(keys[order], return_index=True)
    place = np.searchsorted(owed, pairs.keys)
    # A pair without an obligation has nothing to lose.
    if len(place) and (place == len(owed)).any():
        raise VerificationError("a pair that owes nothing is said to lose")
    if not np.array_equal(owed[place], pairs.keys):
        raise VerificationError("a pair that owes nothing is said to lose")
    loses = wide.zeros(len(owed))
    loses[place] = pairs.amount
    size = np.diff(start, append=rows.rows)
    places = np.cumsum(wide.to_places(rows.lo, rows.hi), axis=1)
    through = np.concatenate([np.zeros((4, 1), np.int64), places], axis=1)
    base = np.repeat(through[:, start], size, axis=1)
    before = wide.from_places(through[:, :-1] - base)
    after = wide.from_places(places - base)
    wanted = np.repeat(loses, size, axis=0)
    # No pair loses more than all of its obligations.
    if (wide.compare(loses, after[start + size - 1]) > 0).any():
        raise VerificationError("a pair loses more than it owes")
    taken = wide.subtract(minimum(wanted, after), minimum(wanted, before))
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return np.ascontiguousarray(taken[back, 0]), np.ascontiguousarray(taken[back, 1])


def _keys(debtor: NDArray[np.generic], creditor: NDArray[np.generic]) -> U64:
    return (debtor.astype(np.uint64) << _HALF) | creditor.astype(np.uint64)
