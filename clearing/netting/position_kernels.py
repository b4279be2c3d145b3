"""The loops that sum obligations into positions, for one limb and for more, compiled and in numpy.

Lives here: what `positions` runs. May not live here: anything that reads or makes a `Positions`.
Invariants kept: the ids of a row are validated before it is added; where a row is bad, the sums of its segment mean nothing.

How they are fast: one asset at a time, so that its sums stay in the nearest caches; rows in groups of 128, whose ids are
validated with a few vector instructions; while a group is added, rows that come later are fetched, since the
processor's own look-ahead stops while a group is added and would make each validation wait for memory. What is left is two
stores a row, of which a core commits one a cycle. In one limb the ids are read a 64-bit word at a time (2 or 4 of them,
lowest row in the lowest bits: numba runs on little-endian machines only), which halves the loads. Beyond one limb an amount is
four places of 32 bits, each with a sum of its own, and what they carry is carried once, at the end: a row is then two
additions of vectors, `move_rows`, which checks amounts and totals them in the same pass.

A kernel takes (debtor, creditor, lo, hi, bounds, cells, gross, state): rows bounds[k]..bounds[k+1]-1 are
segment k, at most 2^31, and it writes cells[k], uint64[participants, limbs]; gross[k], the gross total in four 32-bit places,
the last one as large as it gets; and state[k] = TOO_WIDE when that total does not fit the tier, or the first bad
row, where it stops. gross comes as zeros and state as NO_ROW.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.netting import wide
from clearing.netting.columns import (
    NO_ROW,
    AssetColumns,
    Ids,
    Tier,
    find_bad_row,
    gross_of,
    tier_of,
)
from clearing.netting.engine import Engine, jit
from clearing.netting.instructions import (
    PLACES,
    ROWS,
    move_rows,
    prefetch,
)
from clearing.netting.limbs import move_int64

U64: TypeAlias = NDArray[np.uint64]
I64: TypeAlias = NDArray[np.int64]
Kernel: TypeAlias = Callable[[Ids, Ids, U64, U64, I64, U64, U64, I64], None]

GROUP: Final = 128
TOO_WIDE: Final = -2
# Rows from the one that is added to the one that is fetched, and the words that one fetch brings.
_AHEAD: Final = 512
_LINE: Final = 8
_BLOCK: Final = 1 << 16
_ZERO: Final = np.uint64(0)
_ONE: Final = np.uint64(1)
_HALF: Final = np.uint64(32)
_LOW_HALF: Final = np.uint64(2**32 - 1)
_ALL_ONES: Final = np.uint64(2**64 - 1)
# 128 numbers up to 2^56 sum to 2^63 at most.
_GROUP_SAFE: Final = np.uint64(56)
_SIGN_OF_HALF: Final = np.uint64(31)


@jit
def _id_limits(
    bits: np.uint64, participants: int
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Prepare `_id_faults` for words whose lanes have so many bits.

    Returns: the mask of one lane; and in each lane a 1; the top bit, which no id has; that bit and the greatest id
    below it.
    """
    mask = (_ONE << bits) - _ONE
    lanes = _ALL_ONES // mask
    tops = lanes << (bits - _ONE)
    return mask, lanes, tops, tops | (np.uint64(participants - 1) * lanes)


@jit
def _id_faults(
    payers: U64, payees: U64, start: np.uint64, words: int, lanes: np.uint64, limit: np.uint64
) -> np.uint64:
    """Check words of ids, 2 or 4 to a word, without unpacking them.

    lanes, limit: as `_id_limits` prepares them. The top bit of a lane of limit - ids is clear when an id is too
    great; that of (t - lanes) & ~t is set when a lane of t is zero, and never when none is.

    Returns: a word whose top bits of lanes are all clear when every row is good; other bits mean nothing.
    """
    faults = _ZERO
    for place in range(words):
        payer = payers[start + np.uint64(place)]
        payee = payees[start + np.uint64(place)]
        apart = payer ^ payee
        faults |= payer | payee | ((apart - lanes) & ~apart)
        faults |= ~((limit - payer) & (limit - payee))
    return faults


@jit
def _total_narrow(lo: U64, start: np.uint64, halves: U64) -> bool:
    """Add a group of amounts up to 2^56 to the gross total.

    Returns: whether every amount is in 1..2^56; if not, nothing was added.
    """
    seen = _ZERO
    total = _ZERO
    for place in range(GROUP):
        amount = lo[start + np.uint64(place)]
        total += amount
        seen |= amount - _ONE  # zero becomes the greatest number
    if seen >> _GROUP_SAFE != _ZERO:
        return False
    halves[0] += total & _LOW_HALF
    halves[1] += total >> _HALF
    return True


@jit
def _exceeds(halves: U64, limbs: int) -> bool:
    """Say whether a gross total, in halves of 64 bits, passes what `limbs` limbs hold as a signed number."""
    carried = halves[1] + (halves[0] >> _HALF)
    if limbs == 1:
        return bool(carried >> _SIGN_OF_HALF != _ZERO)
    carried = halves[2] + (carried >> _HALF)
    carried = halves[3] + (carried >> _HALF)
    return bool(limbs == 2 and carried >> _SIGN_OF_HALF != _ZERO)


@jit
def _move_places(
    sums: U64, payer: np.uint64, payee: np.uint64, low: np.uint64, high: np.uint64
) -> None:
    """Take the places of one amount from the payer's four sums and add them to the payee's."""
    payer, payee = payer * np.uint64(PLACES), payee * np.uint64(PLACES)
    for limb in (low, high):
        for part in (limb & _LOW_HALF, limb >> _HALF):
            sums[payer] -= part
            sums[payee] += part
            payer += _ONE
            payee += _ONE


@jit
def _sum_row(
    debtor: Ids, creditor: Ids, lo: U64, hi: U64, row: int, sums: U64, halves: U64, words: int
) -> bool:
    """Validate one row and add it to the sums, of so many words each, and to the gross total.

    Returns: whether it was good; if not, nothing was added.
    """
    payer, payee = np.uint64(debtor[row]), np.uint64(creditor[row])
    low = lo[row]
    high = _ZERO if words == 1 else hi[row]
    participants = np.uint64(sums.shape[0] // words)
    if max(payer, payee) >= participants or payer == payee or (low | high) == _ZERO:
        return False
    if words == 1:
        move_int64(sums, payer, payee, low)
    else:
        _move_places(sums, payer, payee, low, high)
    halves[0] += low & _LOW_HALF
    halves[1] += low >> _HALF
    halves[2] += high & _LOW_HALF
    halves[3] += high >> _HALF
    return True


@jit
def _carry(sums: U64, net: U64) -> None:
    """Make numbers of two or three limbs out of sums of four places."""
    for cell in range(net.shape[0]):
        carried = np.int64(0)
        for place in range(PLACES):
            carried += np.int64(sums[PLACES * cell + place])
            word = np.uint64(carried) & _LOW_HALF
            if place & 1:
                net[cell, place >> 1] |= word << _HALF
            else:
                net[cell, place >> 1] = word
            carried >>= np.int64(32)
        if net.shape[1] > PLACES // 2:
            net[cell, PLACES // 2] = np.uint64(carried)


@jit
def _first_zero(lo: U64, hi: U64, row: int) -> int:
    """Return the first row from `row` on whose amount is zero; there is one."""
    while (lo[row] | hi[row]) != _ZERO:
        row += 1
    return row


@jit
def _sum_narrow(
    debtor: Ids, creditor: Ids, lo: U64, hi: U64, bounds: I64, cells: U64, gross: U64, state: I64
) -> None:
    """Sum in one limb; hi is not read."""
    participants = cells.shape[1]
    bits = np.uint64(np.iinfo(debtor.dtype).bits)
    mask, lanes, tops, limit = _id_limits(bits, participants)
    per_word = 64 // np.iinfo(debtor.dtype).bits
    words, whole = GROUP // per_word, debtor.shape[0] // per_word * per_word
    payers = debtor[:whole].view(np.uint64)
    payees = creditor[:whole].view(np.uint64)
    for segment in range(bounds.shape[0] - 1):
        sums = cells[segment].reshape(participants)
        sums[:] = _ZERO
        halves = gross[segment]
        row, end = bounds[segment], bounds[segment + 1]
        last = end - GROUP
        while row < end and not _exceeds(halves, 1):
            while row <= last and row & (per_word - 1) == 0 and not _exceeds(halves, 1):
                at = np.uint64(row)
                word = at // np.uint64(per_word)
                if _id_faults(payers, payees, word, words, lanes, limit) & tops != _ZERO:
                    break
                if not _total_narrow(lo, at, halves):
                    break
                for place in range(words):
                    if place % _LINE == 0:
                        prefetch(payers, word + np.uint64(place + _AHEAD // per_word))
                        prefetch(payees, word + np.uint64(place + _AHEAD // per_word))
                    if per_word * place % _LINE == 0:
                        prefetch(lo, at + np.uint64(per_word * place + _AHEAD))
                    payer = payers[word + np.uint64(place)]
                    payee = payees[word + np.uint64(place)]
                    for lane in range(per_word):
                        amount = lo[at + np.uint64(per_word * place + lane)]
                        move_int64(sums, payer & mask, payee & mask, amount)
                        payer >>= bits
                        payee >>= bits
                row += GROUP
            if row < end and not _exceeds(halves, 1):
                if not _sum_row(debtor, creditor, lo, hi, row, sums, halves, 1):
                    state[segment] = row
                    return
                row += 1
        if _exceeds(halves, 1):
            state[segment] = TOO_WIDE


@jit
def _sum_wide(
    debtor: Ids, creditor: Ids, lo: U64, hi: U64, bounds: I64, cells: U64, gross: U64, state: I64
) -> None:
    """Sum in two or three limbs, by way of places."""
    participants, limbs = cells.shape[1], cells.shape[2]
    sums = np.empty(PLACES * participants, np.uint64)
    bits = np.uint64(np.iinfo(debtor.dtype).bits)
    _, lanes, tops, limit = _id_limits(bits, participants)
    per_word = 64 // np.iinfo(debtor.dtype).bits
    words, whole = GROUP // per_word, debtor.shape[0] // per_word * per_word
    payers = debtor[:whole].view(np.uint64)
    payees = creditor[:whole].view(np.uint64)
    for segment in range(bounds.shape[0] - 1):
        sums[:] = _ZERO
        halves = gross[segment]
        row, end = bounds[segment], bounds[segment + 1]
        last = end - GROUP
        while row < end and not _exceeds(halves, limbs):
            while row <= last and row & (per_word - 1) == 0 and not _exceeds(halves, limbs):
                at = np.uint64(row)
                word = at // np.uint64(per_word)
                if _id_faults(payers, payees, word, words, lanes, limit) & tops != _ZERO:
                    break
                zeros = _ZERO
                for place in range(0, GROUP, ROWS):
                    first = at + np.uint64(place)
                    zeros |= move_rows(first, debtor, creditor, lo, hi, sums, halves)
                if zeros != _ZERO:
                    state[segment] = _first_zero(lo, hi, row)
                    return
                row += GROUP
            if row < end and not _exceeds(halves, limbs):
                if not _sum_row(debtor, creditor, lo, hi, row, sums, halves, PLACES):
                    state[segment] = row
                    return
                row += 1
        if _exceeds(halves, limbs):
            state[segment] = TOO_WIDE
        else:
            _carry(sums, cells[segment])


KERNELS: Final[dict[Tier, Kernel]] = {
    Tier.INT64: _sum_narrow,
    Tier.INT128: _sum_wide,
    Tier.INT192: _sum_wide,
}


def sum_numpy(
    debtor: Ids, creditor: Ids, lo: U64, hi: U64, bounds: I64, cells: U64, gross: U64, state: I64
) -> None:
    """Do what a kernel of the tier cells.shape[2] does, with whole arrays."""
    participants, limbs = cells.shape[1], cells.shape[2]
    for segment, (start, end) in enumerate(pairwise(bounds.tolist())):
        high = None if limbs == 1 else hi[start:end]
        rows = AssetColumns(debtor[start:end], creditor[start:end], lo[start:end], high)
        bad_row = find_bad_row(rows, participants, engine=Engine.PORTABLE)
        if bad_row != NO_ROW:
            state[segment] = start + bad_row
            return
        total = gross_of(rows)
        gross[segment, :3] = [(total >> (32 * place)) & (2**32 - 1) for place in range(3)]
        gross[segment, 3] = total >> 96
        if tier_of(total) > limbs:
            state[segment] = TOO_WIDE
        else:
            cells[segment] = _sum_halves(rows, participants)[:, :limbs]


def _sum_halves(rows: AssetColumns, participants: int) -> U64:
    """Sum validated rows in columns of 32 bits, which 2^31 rows cannot overflow, and carry at the end.

    Returns: a wide array by participant.
    """
    sums = np.zeros((4, participants), np.int64)
    for start in range(0, rows.rows, _BLOCK):
        block = rows.between(start, min(start + _BLOCK, rows.rows))
        payer, payee = block.debtor.astype(np.intp), block.creditor.astype(np.intp)
        for column, words in zip(sums, wide.to_places(block.lo, block.hi), strict=True):
            np.subtract.at(column, payer, words)
            np.add.at(column, payee, words)
    return wide.from_places(sums)
