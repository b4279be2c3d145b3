"""Bilateral netting: what two participants owe each other is set off, pair by pair.

Lives here: the net of every unordered pair, what is set off each way, and what each obligation loses by it.
May not live here: set-off along longer circles (setoff); this never runs silently before it, since it lowers
what can be set off there.
Invariants kept: both sides of a pair lose the same, the lesser of what they owe each other; no obligation loses
more than its amount; earlier obligations of the same debtor to the same creditor lose first.

How it is done: each row gets the number of its cell; cells 2k and 2k+1 are the two directions of pair k. Where
participants are few the cell follows from the two numbers (a table); else two counting sorts find the pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.netting import wide
from clearing.netting.columns import AssetColumns, Ids, Tier, check_rows, gross_of, tier_of
from clearing.netting.engine import DEFAULT, Engine, jit
from clearing.netting.gridlock import queue_order
from clearing.netting.limbs import add_int192, subtract_int192
from clearing.netting.limits import minimum

U64: TypeAlias = NDArray[np.uint64]
U32: TypeAlias = NDArray[np.uint32]
I64: TypeAlias = NDArray[np.int64]

_ZERO: Final = np.uint64(0)
_ONE: Final = np.uint64(1)
_TWO: Final = np.uint64(2)
_THREE: Final = np.uint64(3)
_HALF: Final = np.uint64(32)
_LOW_HALF: Final = np.uint64(2**32 - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """The unordered pairs that have obligations, by lesser and then greater participant number.

    debtor, creditor: uint32[k], who owes the net to whom; the lesser number is the debtor of a net of zero.
    net_cells, set_off_cells: uint64[k, tier], little-endian limbs; set_off is what each of the two loses.
    """

    debtor: U32
    creditor: U32
    net_cells: U64
    set_off_cells: U64

    @property
    def net(self) -> U64:
        """The nets as a wide array, none negative."""
        return wide.extend(self.net_cells)

    @property
    def set_off(self) -> U64:
        """What is set off each way, as a wide array."""
        return wide.extend(self.set_off_cells)


@dataclass(frozen=True, slots=True, eq=False)
class Bilateral:
    """The pairs, and what each obligation loses: discharged_lo, discharged_hi, uint64[rows]; hi may be None."""

    pairs: Pairs
    discharged_lo: U64
    discharged_hi: U64 | None

    def value(self) -> int:
        """Sum what all obligations lose."""
        return 2 * wide.total(self.pairs.set_off)


def bilateral(columns: AssetColumns, participants: int, *, engine: Engine = DEFAULT) -> Bilateral:
    """Net every pair of participants.

    columns: obligations in row order, higher priority first where priorities differ.

    Returns: pairs, and the discharge of each row.
    Raises: InvalidRow: the first bad row. InvalidColumns: `participants` out of range.
    """
    check_rows(columns, participants, engine=engine)
    order = queue_order(columns)
    rows = columns if order is None else columns.take(order)
    run = engine.choose(_bilateral_compiled, _bilateral_numpy)
    result = run(rows, participants)
    if order is None:
        return result
    lo, hi = result.discharged_lo, result.discharged_hi
    return Bilateral(
        result.pairs, _put_back(lo, order), None if hi is None else _put_back(hi, order)
    )


def _put_back(column: U64, order: I64) -> U64:
    answer = np.empty_like(column)
    answer[order] = column
    return answer


def _bilateral_numpy(rows: AssetColumns, participants: int) -> Bilateral:
    """Net with whole arrays: sort by cell, sum, and cut each cell's running total at its set-off."""
    debtor, creditor = rows.debtor.astype(np.int64), rows.creditor.astype(np.int64)
    keys = np.minimum(debtor, creditor) * participants + np.maximum(debtor, creditor)
    pair_keys, pair = np.unique(keys, return_inverse=True)
    cell = 2 * pair + (debtor > creditor)
    sums = np.zeros((4, 2 * pair_keys.shape[0]), np.int64)
    places = wide.to_places(rows.lo, rows.hi)
    for column, words in zip(sums, places, strict=True):
        np.add.at(column, cell, words)
    owed = wide.from_places(sums)
    set_off = minimum(owed[0::2], owed[1::2])
    order = np.argsort(cell, kind="stable")
    running = np.cumsum(places[:, order], axis=1)
    first = np.searchsorted(cell[order], cell[order])
    before = np.concatenate([np.zeros((4, 1), np.int64), running], axis=1)[:, first]
    amount = wide.from_places(places[:, order])
    earlier = wide.subtract(wide.from_places(running - before), amount)
    left = wide.subtract(set_off[pair[order]], earlier)
    left[wide.sign(left) < 0] = 0
    discharged = np.empty_like(amount)
    discharged[order] = minimum(left, amount)
    back = wide.compare(owed[0::2], owed[1::2]) < 0
    lesser = (pair_keys // max(participants, 1)).astype(np.uint32)
    greater = (pair_keys % max(participants, 1)).astype(np.uint32)
    net = wide.subtract(owed[0::2], owed[1::2])
    net[back] = wide.negate(net[back])
    pairs = Pairs(np.where(back, greater, lesser), np.where(back, lesser, greater), net, set_off)
    lo, hi = (np.ascontiguousarray(discharged[:, limb]) for limb in range(2))
    return Bilateral(pairs, lo, None if rows.hi is None else hi)


def _bilateral_compiled(rows: AssetColumns, participants: int) -> Bilateral:
    cell = np.empty(rows.rows, np.uint32)
    if participants * participants <= rows.rows:
        _table_cells(rows.debtor, rows.creditor, participants, cell)
        pairs = participants * (participants - 1) // 2
        keys = None
    else:
        keys = _sorted_cells(rows.debtor, rows.creditor, participants, cell)
        pairs = keys.shape[0]
    lo, hi = np.empty(rows.rows, np.uint64), None
    if tier_of(gross_of(rows)) is Tier.INT64:
        sums = np.zeros(2 * pairs, np.uint64)
        _sum_int64(cell, rows.lo, sums)
        number, side, net, set_off = _settle_int64(sums)
        _discharge_int64(cell, rows.lo, sums, lo)
    else:
        high = np.zeros(rows.rows, np.uint64) if rows.hi is None else rows.hi
        hi = np.empty(rows.rows, np.uint64)
        sums = np.zeros(6 * pairs, np.uint64)
        _sum_int192(cell, rows.lo, high, sums)
        number, side, net, set_off = _settle_int192(sums)
        _discharge_int192(cell, rows.lo, high, sums, lo, hi)
    lesser, greater = _table_pairs(number, participants) if keys is None else _unpack(keys[number])
    ends = np.where(side, greater, lesser), np.where(side, lesser, greater)
    return Bilateral(Pairs(*ends, net, set_off), lo, None if rows.hi is None else hi)


def _unpack(keys: U64) -> tuple[U32, U32]:
    return (keys >> _HALF).astype(np.uint32), (keys & _LOW_HALF).astype(np.uint32)


@jit
def _table_cells(debtor: Ids, creditor: Ids, participants: int, cell: U32) -> None:
    """Number the cells by the pair's place in the upper triangle of a table, line by line."""
    for row in range(cell.shape[0]):
        payer, payee = np.int64(debtor[row]), np.int64(creditor[row])
        lesser = min(payer, payee)
        line = lesser * (2 * participants - lesser - 3) // 2 - 1
        cell[row] = np.uint32(2 * (line + max(payer, payee)) + np.int64(payer > payee))


@jit
def _table_pairs(number: I64, participants: int) -> tuple[U32, U32]:
    """Give the lesser and the greater participant of places in the table, which ascend."""
    lesser = np.empty(number.shape[0], np.uint32)
    greater = np.empty(number.shape[0], np.uint32)
    line, begin = 0, 0
    for place in range(number.shape[0]):
        while number[place] >= begin + participants - 1 - line:
            begin += participants - 1 - line
            line += 1
        lesser[place] = line
        greater[place] = line + 1 + number[place] - begin
    return lesser, greater


@jit
def _sorted_cells(debtor: Ids, creditor: Ids, participants: int, cell: U32) -> U64:
    """Number the cells by the pairs that occur, after two counting sorts: by greater, then by lesser number.

    The sorts move a participant and the row, with its direction, in one word, so that they read in order.

    Returns: uint64[pairs], lesser * 2^32 + greater, ascending.
    """
    rows = cell.shape[0]
    free_greater = np.zeros(participants + 1, np.int64)
    free_lesser = np.zeros(participants + 1, np.int64)
    for row in range(rows):
        payer, payee = np.int64(debtor[row]), np.int64(creditor[row])
        free_greater[max(payer, payee) + 1] += 1
        free_lesser[min(payer, payee) + 1] += 1
    for number in range(participants):
        free_greater[number + 1] += free_greater[number]
        free_lesser[number + 1] += free_lesser[number]
    by_greater = np.empty(rows, np.uint64)
    for row in range(rows):
        payer, payee = np.int64(debtor[row]), np.int64(creditor[row])
        greater, lesser = max(payer, payee), min(payer, payee)
        tag = np.uint64(row) << _ONE | np.uint64(payer > payee)
        by_greater[free_greater[greater]] = np.uint64(lesser) << _HALF | tag
        free_greater[greater] += 1
    by_both = np.empty(rows, np.uint64)
    place = 0
    for number in range(participants):
        while place < free_greater[number]:  # each has moved on to where the next one began
            lesser = np.int64(by_greater[place] >> _HALF)
            tag = by_greater[place] & _LOW_HALF
            by_both[free_lesser[lesser]] = np.uint64(number) << _HALF | tag
            free_lesser[lesser] += 1
            place += 1
    keys = by_greater
    pairs, place = 0, 0
    for number in range(participants):
        begin = place
        while place < free_lesser[number]:
            other = by_both[place] >> _HALF
            if place == begin or other != by_both[place - 1] >> _HALF:
                keys[pairs] = np.uint64(number) << _HALF | other
                pairs += 1
            tag = by_both[place] & _LOW_HALF
            cell[tag >> _ONE] = np.uint32(2 * (pairs - 1)) + np.uint32(tag & _ONE)
            place += 1
    return keys[:pairs].copy()


@jit
def _sum_int64(cell: U32, lo: U64, sums: U64) -> None:
    for row in range(cell.shape[0]):
        sums[cell[row]] += lo[row]


@jit
def _sum_int192(cell: U32, lo: U64, hi: U64, sums: U64) -> None:
    for row in range(cell.shape[0]):
        add_int192(sums, np.uint64(cell[row]), lo[row], hi[row])


@jit
def _settle_int64(sums: U64) -> tuple[I64, NDArray[np.bool_], U64, U64]:
    """Give the pairs that have obligations, and leave in both their cells what is set off.

    Returns: (pair number, whether the greater participant owes the net, net, set-off).
    """
    found = 0
    for pair in range(sums.shape[0] // 2):
        if sums[2 * pair] | sums[2 * pair + 1] != _ZERO:
            found += 1
    number = np.empty(found, np.int64)
    side = np.empty(found, np.bool_)
    net = np.empty(found, np.uint64)
    set_off = np.empty(found, np.uint64)
    found = 0
    for pair in range(sums.shape[0] // 2):
        there, back = sums[2 * pair], sums[2 * pair + 1]
        if there | back != _ZERO:
            number[found] = pair
            side[found] = there < back
            set_off[found] = min(there, back)
            net[found] = max(there, back) - min(there, back)
            sums[2 * pair] = set_off[found]
            sums[2 * pair + 1] = set_off[found]
            found += 1
    return number, side, net.reshape(-1, 1), set_off.reshape(-1, 1)


@jit
def _settle_int192(sums: U64) -> tuple[I64, NDArray[np.bool_], U64, U64]:
    found = 0
    for at in range(0, sums.shape[0], 6):
        if not _is_empty(sums, at):
            found += 1
    number = np.empty(found, np.int64)
    side = np.empty(found, np.bool_)
    net = np.empty((found, 3), np.uint64)
    set_off = np.empty((found, 3), np.uint64)
    found = 0
    for at in range(0, sums.shape[0], 6):
        if _is_empty(sums, at):
            continue
        back_owes = _is_less(sums, at, at + 3)
        small, great = (at, at + 3) if back_owes else (at + 3, at)
        number[found] = at // 6
        side[found] = back_owes
        borrow = _ZERO
        for limb in range(3):
            less, more = sums[small + limb], sums[great + limb]
            set_off[found, limb] = less
            net[found, limb] = more - less - borrow
            borrow = np.uint64(more < less) | (np.uint64(more == less) & borrow)
            sums[great + limb] = less
        found += 1
    return number, side, net, set_off


@jit
def _is_empty(sums: U64, at: int) -> bool:
    words = sums[at] | sums[at + 1] | sums[at + 2] | sums[at + 3] | sums[at + 4] | sums[at + 5]
    return bool(words == _ZERO)


@jit
def _is_less(sums: U64, left: int, right: int) -> bool:
    """Compare two cells of three limbs, neither negative."""
    for limb in range(2, -1, -1):
        if sums[left + limb] != sums[right + limb]:
            return bool(sums[left + limb] < sums[right + limb])
    return False


@jit
def _discharge_int64(cell: U32, lo: U64, sums: U64, discharged: U64) -> None:
    for row in range(cell.shape[0]):
        left = sums[cell[row]]
        taken = min(left, lo[row])
        sums[cell[row]] = left - taken
        discharged[row] = taken


@jit
def _discharge_int192(
    cell: U32, lo: U64, hi: U64, sums: U64, discharged_lo: U64, discharged_hi: U64
) -> None:
    for row in range(cell.shape[0]):
        at = np.uint64(cell[row]) * _THREE
        low, high, top = sums[at], sums[at + _ONE], sums[at + _TWO]
        enough = top != _ZERO or high > hi[row] or (high == hi[row] and low >= lo[row])
        discharged_lo[row] = lo[row] if enough else low
        discharged_hi[row] = hi[row] if enough else high
        subtract_int192(sums, np.uint64(cell[row]), discharged_lo[row], discharged_hi[row])
