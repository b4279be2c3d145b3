"""Discharge by pair: what each debtor's obligations to each creditor lose together, and what each of them loses.

Lives here: the way from rows to pairs and back, which is how a set-off is told in few bytes. May not live here: any
search, and whether a discharge is allowed (certificate).
Invariant kept: within a pair the obligations lose in queue order (priority, then row), each wholly before the next
loses anything, so that pairs say all there is to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.errors import VerificationError
from clearing.netting import wide
from clearing.netting.columns import AssetColumns, counting_order, gross_of
from clearing.netting.engine import DEFAULT, Engine, jit, room
from clearing.netting.gridlock import queue_order
from clearing.netting.limits import minimum

U64: TypeAlias = NDArray[np.uint64]
U32: TypeAlias = NDArray[np.uint32]
I64: TypeAlias = NDArray[np.int64]

_HALF = np.uint64(32)
_EVERYTHING: Final = (1 << 63) - 1
_UNKNOWN: Final = 1
_TOO_MUCH: Final = 2
_OWES_NOTHING: Final = "a pair that owes nothing is said to lose"
_LOSES_MORE: Final = "a pair loses more than it owes"


@dataclass(frozen=True, slots=True, eq=False)
class PairTotals:
    """What pairs lose: ascending by (debtor, creditor), each once, none negative.

    debtor, creditor: uint32[k]. amount: wide array of k sums; where it is told to others (`stated`), zero says that the pair
    loses all that it owes.
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


def stated(columns: AssetColumns, pairs: PairTotals) -> PairTotals:
    """Return the same with an amount of zero where a pair loses all that it owes; pairs: as `pair_totals` gives them."""
    owed = pair_totals(columns, columns.lo, columns.hi)
    place = np.searchsorted(owed.keys, pairs.keys)
    whole = (owed.amount[place] == pairs.amount).all(axis=1)
    amount = pairs.amount.copy()
    amount[whole] = 0
    return PairTotals(pairs.debtor, pairs.creditor, amount)


def spread_pairs(
    columns: AssetColumns, pairs: PairTotals, *, engine: Engine = DEFAULT
) -> tuple[U64, U64]:
    """Say what each obligation loses, given what its pair does; an amount of zero: all that it owes.

    Returns: (lo, hi), uint64[rows].
    Raises: VerificationError: a pair owes nothing, or less than it is said to lose.
    """
    narrow = columns.hi is None and gross_of(columns) < 1 << 63
    if engine is Engine.PORTABLE or not narrow:
        return _spread_numpy(columns, pairs)
    vertices = 1 + int(max(side.max(initial=0) for side in (columns.debtor, columns.creditor)))
    if len(pairs.debtor) and max(int(pairs.debtor.max()), int(pairs.creditor.max())) >= vertices:
        raise VerificationError(_OWES_NOTHING)
    queued = queue_order(columns)
    debtor = columns.debtor if queued is None else columns.debtor[queued]
    order, start = counting_order(debtor, vertices, engine=engine)
    if queued is not None:
        order = queued[order]
    first = np.searchsorted(pairs.debtor, np.arange(vertices + 1))
    limbs = pairs.amount
    left = np.minimum(limbs[:, 0], np.uint64(_EVERYTHING - 1)).view(np.int64)
    # More than anybody owes is one unit less than everything.
    left[limbs[:, 1:].any(axis=1)] = _EVERYTHING - 1
    left[~limbs.any(axis=1)] = _EVERYTHING
    given: I64 = room(columns.rows, np.int64)
    amount = columns.lo.view(np.int64)
    fault = _spread(columns.creditor, amount, order, start, first, pairs.creditor, left, given)
    if fault:
        raise VerificationError(_OWES_NOTHING if fault == _UNKNOWN else _LOSES_MORE)
    return given.view(np.uint64), np.zeros(columns.rows, np.uint64)


@jit
def _spread(
    creditor: NDArray[Any],
    amount: I64,
    order: I64,
    start: I64,
    first: I64,
    payee: U32,
    left: I64,
    given: I64,
) -> int:
    """Give what each pair loses to its rows, earlier ones in `order` first; left: what it has to give, used up.

    order, start: the rows by debtor. first: where the pairs of each debtor begin. given: int64[rows], filled.

    Returns: 0, _UNKNOWN for a pair without a row, or _TOO_MUCH for one that owes less.
    """
    vertices = start.shape[0] - 1
    place = np.zeros(vertices, np.int64)  # by creditor, its pair with the debtor at hand
    met = np.zeros(left.shape[0], np.bool_)
    for owner in range(vertices):
        begin, end = first[owner], first[owner + 1]
        for pair in range(begin, end):
            place[payee[pair]] = pair
        for index in range(start[owner], start[owner + 1]):
            row = order[index]
            to = np.int64(creditor[row])
            pair = place[to]
            part = np.int64(0)
            if begin <= pair < end and np.int64(payee[pair]) == to:
                met[pair] = True
                part = amount[row]
                if left[pair] != _EVERYTHING:
                    part = min(part, left[pair])
                    left[pair] -= part
            given[row] = part
    for pair in range(left.shape[0]):
        if not met[pair]:
            return _UNKNOWN
    for pair in range(left.shape[0]):
        if 0 < left[pair] < _EVERYTHING:
            return _TOO_MUCH
    return 0


def _spread_numpy(columns: AssetColumns, pairs: PairTotals) -> tuple[U64, U64]:
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
        raise VerificationError(_OWES_NOTHING)
    if not np.array_equal(owed[place], pairs.keys):
        raise VerificationError(_OWES_NOTHING)
    size = np.diff(start, append=rows.rows)
    places = np.cumsum(wide.to_places(rows.lo, rows.hi), axis=1)
    through = np.concatenate([np.zeros((4, 1), np.int64), places], axis=1)
    base = np.repeat(through[:, start], size, axis=1)
    before = wide.from_places(through[:, :-1] - base)
    after = wide.from_places(places - base)
    totals = after[start + size - 1]
    loses = wide.zeros(len(owed))
    whole = np.logical_not(pairs.amount.any(axis=1))
    loses[place] = np.where(whole.reshape(-1, 1), totals[place], pairs.amount)
    wanted = np.repeat(loses, size, axis=0)
    # No pair loses more than all of its obligations.
    if (wide.compare(loses, totals) > 0).any():
        raise VerificationError(_LOSES_MORE)
    taken = wide.subtract(minimum(wanted, after), minimum(wanted, before))
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return np.ascontiguousarray(taken[back, 0]), np.ascontiguousarray(taken[back, 1])


def _keys(debtor: NDArray[np.generic], creditor: NDArray[np.generic]) -> U64:
    return (debtor.astype(np.uint64) << _HALF) | creditor.astype(np.uint64)
