"""Bilateral netting: what two participants owe each other is set off, pair by pair.

Lives here: the net of every unordered pair, what is set off each way, and what each obligation loses by it.
May not live here: set-off along longer circles (setoff); this never runs silently before it, since it lowers
what can be set off there.
Invariants kept: both sides of a pair lose the same, the lesser of what they owe each other; no obligation loses
more than its amount; earlier obligations of the same debtor to the same creditor lose first.

How it is done: where participants are few, in a table of what each owes each; else two counting sorts bring
the rows of each pair together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.netting import wide
from clearing.netting.columns import AssetColumns, Book, Ids, Tier, check_rows, gross_of, tier_of
from clearing.netting.engine import DEFAULT, Engine, jit
from clearing.netting.gridlock import queue_order
from clearing.netting.limits import minimum

U64: TypeAlias = NDArray[np.uint64]
U32: TypeAlias = NDArray[np.uint32]
I64: TypeAlias = NDArray[np.int64]
Limbs: TypeAlias = tuple[np.uint64, np.uint64, np.uint64]

_ZERO: Final = np.uint64(0)
_ONE: Final = np.uint64(1)
_TWO: Final = np.uint64(2)
_THREE: Final = np.uint64(3)
_HALF: Final = np.uint64(32)
_LOW_HALF: Final = np.uint64(2**32 - 1)
_ALL_ONES: Final = np.uint64(2**64 - 1)


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
    """Net every pair of participants in one asset.

    columns: obligations in row order, higher priority first where priorities differ.

    Returns: pairs, and the discharge of each row.
    Raises: InvalidRow: the first bad row. InvalidColumns: `participants` out of range.
    """
    return _bilateral(columns, participants, np.empty(0, np.uint64), engine)


def bilateral_book(
    book: Book, participants: int, *, engine: Engine = DEFAULT
) -> Iterator[Bilateral]:
    """Net every pair of participants in each asset, in order; as `bilateral`, with one working memory for all.

    Yields: pairs and discharges; rows are counted within their asset.
    """
    sizes = np.diff(book.start)
    largest = book.asset(int(sizes.argmax())) if book.assets else book.columns
    scratch = np.empty(_scratch_words(largest.rows, participants), np.uint64)
    for number in range(book.assets):
        yield _bilateral(book.asset(number), participants, scratch, engine)


def _bilateral(columns: AssetColumns, participants: int, scratch: U64, engine: Engine) -> Bilateral:
    check_rows(columns, participants, engine=engine)
    order = queue_order(columns)
    rows = columns if order is None else columns.take(order)
    run = engine.choose(_bilateral_compiled, _bilateral_numpy)
    result = run(rows, participants, scratch)
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


def _bilateral_numpy(rows: AssetColumns, participants: int, _scratch: U64) -> Bilateral:
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


def _pairs_max(rows: int, participants: int) -> int:
    every = participants * (participants - 1) // 2
    return every if participants * participants <= rows else min(every, rows)


def _scratch_words(rows: int, participants: int) -> int:
    return 2 * rows + 7 * _pairs_max(rows, participants)


def _bilateral_compiled(rows: AssetColumns, participants: int, scratch: U64) -> Bilateral:
    limbs = 1 if tier_of(gross_of(rows)) is Tier.INT64 else wide.LIMBS
    # In one piece: the system hands out large memory in large pages, and small pages cost more than the work.
    if scratch.shape[0] < _scratch_words(rows.rows, participants):
        scratch = np.empty(_scratch_words(rows.rows, participants), np.uint64)
    words, rest = scratch[: 2 * rows.rows], scratch[2 * rows.rows :]
    keys, rest = np.split(rest, [_pairs_max(rows.rows, participants)])
    fill = _table_words if participants * participants <= rows.rows else _sorted_words
    keys = keys[: fill(rows.debtor, rows.creditor, participants, words, keys)]
    words, sums = words[: rows.rows], rest[: 2 * limbs * keys.shape[0]]
    sums[:] = 0
    hi = np.zeros_like(rows.lo) if limbs > 1 and rows.hi is None else rows.hi
    if limbs == 1 or hi is None:
        found = _sum_int64(words, rows.lo, sums)
    else:
        found = _sum_int192(words, rows.lo, hi, sums)
    net, set_off = np.empty((2, found, limbs), np.uint64)
    ends = np.empty((2, found), np.uint32)
    lost = np.empty((1 if hi is None else 2, rows.rows), np.uint64)
    if limbs == 1 or hi is None:
        _settle_int64(sums, keys, ends, net, set_off)
        _discharge_int64(words, rows.lo, sums, lost[0])
        lost[1:] = 0
    else:
        _settle_int192(sums, keys, ends, net, set_off)
        _discharge_int192(words, rows.lo, hi, sums, lost)
    pairs = Pairs(ends[0], ends[1], net, set_off)
    return Bilateral(pairs, lost[0], None if rows.hi is None else lost[1])


@jit
def _table_words(debtor: Ids, creditor: Ids, participants: int, words: U64, keys: U64) -> int:
    """Write for each row, in row order: its pair * 2^32 + row * 2 + (debtor > creditor).

    Pairs are numbered as in the upper triangle of a table, line by line, whether they occur or not.

    Returns: the number of pairs; keys[pair] = lesser * 2^32 + greater, ascending.
    """
    pairs = 0
    for lesser in range(participants):
        for greater in range(lesser + 1, participants):
            keys[pairs] = np.uint64(lesser) << _HALF | np.uint64(greater)
            pairs += 1
    for row in range(debtor.shape[0]):
        payer, payee = np.int64(debtor[row]), np.int64(creditor[row])
        line = min(payer, payee)
        pair = line * (2 * participants - line - 3) // 2 + max(payer, payee) - 1
        words[row] = np.uint64(pair) << _HALF | np.uint64(row) << _ONE | np.uint64(payer > payee)
    return pairs


@jit
def _sorted_words(debtor: Ids, creditor: Ids, participants: int, words: U64, keys: U64) -> int:
    """Write what `_table_words` does, but sorted by pair, and number only the pairs that occur.

    Two counting sorts, by greater and then by lesser participant; each moves the other participant, the row and
    its direction in one word, so that it reads in order. words: uint64[2 * rows], the second half is spare.

    Returns: as `_table_words`.
    """
    rows = debtor.shape[0]
    until_greater = np.zeros(participants + 1, np.int64)
    until_lesser = np.zeros(participants + 1, np.int64)
    for row in range(rows):
        payer, payee = np.int64(debtor[row]), np.int64(creditor[row])
        until_greater[max(payer, payee) + 1] += 1
        until_lesser[min(payer, payee) + 1] += 1
    until_greater[0] = rows
    for number in range(participants):
        until_greater[number + 1] += until_greater[number]
        until_lesser[number + 1] += until_lesser[number]
    for row in range(rows):
        payer, payee = np.int64(debtor[row]), np.int64(creditor[row])
        greater, lesser = max(payer, payee), min(payer, payee)
        tag = np.uint64(row) << _ONE | np.uint64(payer > payee)
        words[until_greater[greater]] = np.uint64(lesser) << _HALF | tag
        until_greater[greater] += 1
    place = rows
    for number in range(participants):
        while place < until_greater[number]:
            lesser = np.int64(words[place] >> _HALF)
            words[until_lesser[lesser]] = np.uint64(number) << _HALF | (words[place] & _LOW_HALF)
            until_lesser[lesser] += 1
            place += 1
    pairs, place = 0, 0
    for number in range(participants):
        last = _ALL_ONES
        while place < until_lesser[number]:
            other = words[place] >> _HALF
            keys[pairs] = np.uint64(number) << _HALF | other
            pairs += 1 if other != last else 0
            last = other
            words[place] = np.uint64(pairs - 1) << _HALF | (words[place] & _LOW_HALF)
            place += 1
    return pairs


@jit
def _sum_int64(words: U64, lo: U64, sums: U64) -> int:
    """Sum what is owed each way: sums[2 * pair] and sums[2 * pair + 1].

    Returns: the number of pairs that owe anything.
    """
    for place in range(words.shape[0]):
        word = words[place]
        sums[(word >> _HALF << _ONE) + (word & _ONE)] += lo[(word & _LOW_HALF) >> _ONE]
    found = 0
    for at in range(0, sums.shape[0], 2):
        found += 1 if sums[at] | sums[at + 1] != _ZERO else 0
    return found


@jit
def _sum_int192(words: U64, lo: U64, hi: U64, sums: U64) -> int:
    for place in range(words.shape[0]):
        word = words[place]
        at = ((word >> _HALF << _ONE) + (word & _ONE)) * _THREE
        row = (word & _LOW_HALF) >> _ONE
        _store(sums, at, _plus(_load(sums, at), lo[row], hi[row]))
    found = 0
    for at in range(0, sums.shape[0], 6):
        there, back = (
            sums[at] | sums[at + 1] | sums[at + 2],
            sums[at + 3] | sums[at + 4] | sums[at + 5],
        )
        found += 1 if there | back != _ZERO else 0
    return found


@jit
def _settle_int64(sums: U64, keys: U64, ends: U32, net: U64, set_off: U64) -> None:
    """Write the pairs that owe anything, debtor and creditor in `ends`, and leave the set-off in both sums."""
    found = 0
    for pair in range(keys.shape[0]):
        there, back = sums[2 * pair], sums[2 * pair + 1]
        if there | back != _ZERO:
            lesser, greater = np.uint32(keys[pair] >> _HALF), np.uint32(keys[pair] & _LOW_HALF)
            ends[0, found] = greater if there < back else lesser
            ends[1, found] = lesser if there < back else greater
            both = min(there, back)
            net[found, 0] = max(there, back) - both
            set_off[found, 0] = both
            sums[2 * pair] = both
            sums[2 * pair + 1] = both
            found += 1


@jit
def _settle_int192(sums: U64, keys: U64, ends: U32, net: U64, set_off: U64) -> None:
    found = 0
    for pair in range(keys.shape[0]):
        at = np.uint64(6 * pair)
        there, back = _load(sums, at), _load(sums, at + _THREE)
        turned = _less(there, back)
        more, both = (back, there) if turned else (there, back)
        if more[0] | more[1] | more[2] != _ZERO:
            lesser, greater = np.uint32(keys[pair] >> _HALF), np.uint32(keys[pair] & _LOW_HALF)
            ends[0, found] = greater if turned else lesser
            ends[1, found] = lesser if turned else greater
            over = _difference(more, both)
            for limb in range(3):
                net[found, limb] = over[limb]
                set_off[found, limb] = both[limb]
            _store(sums, at, both)
            _store(sums, at + _THREE, both)
            found += 1


@jit
def _discharge_int64(words: U64, lo: U64, sums: U64, discharged: U64) -> None:
    """Give what is set off to the rows of each pair and direction, in row order."""
    for place in range(words.shape[0]):
        word = words[place]
        cell = (word >> _HALF << _ONE) + (word & _ONE)
        row = (word & _LOW_HALF) >> _ONE
        taken = min(sums[cell], lo[row])
        sums[cell] -= taken
        discharged[row] = taken


@jit
def _discharge_int192(words: U64, lo: U64, hi: U64, sums: U64, discharged: U64) -> None:
    for place in range(words.shape[0]):
        word = words[place]
        at = ((word >> _HALF << _ONE) + (word & _ONE)) * _THREE
        row = (word & _LOW_HALF) >> _ONE
        left, amount = _load(sums, at), (lo[row], hi[row], _ZERO)
        taken = left if _less(left, amount) else amount
        _store(sums, at, _difference(left, taken))
        discharged[0, row] = taken[0]
        discharged[1, row] = taken[1]


@jit
def _load(cells: U64, at: np.uint64) -> Limbs:
    return cells[at], cells[at + _ONE], cells[at + _TWO]


@jit
def _store(cells: U64, at: np.uint64, value: Limbs) -> None:
    cells[at], cells[at + _ONE], cells[at + _TWO] = value


@jit
def _plus(value: Limbs, lo: np.uint64, hi: np.uint64) -> Limbs:
    low = value[0] + lo
    carry = np.uint64(low < lo)
    middle = value[1] + hi
    over = np.uint64(middle < hi) + np.uint64(middle + carry < carry)
    return low, middle + carry, value[2] + over


@jit
def _difference(more: Limbs, less: Limbs) -> Limbs:
    borrow = np.uint64(more[0] < less[0])
    middle = more[1] - less[1]
    under = np.uint64(more[1] < less[1]) + np.uint64(middle < borrow)
    return more[0] - less[0], middle - borrow, more[2] - less[2] - under


@jit
def _less(a: Limbs, b: Limbs) -> bool:
    """Compare numbers of three limbs, neither negative."""
    if a[2] != b[2]:
        return bool(a[2] < b[2])
    if a[1] != b[1]:
        return bool(a[1] < b[1])
    return bool(a[0] < b[0])
