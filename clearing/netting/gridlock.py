"""Gridlock resolution: the greatest set of payments that settle at once within liquidity and caps.

Lives here: the method of Bech and Soramaki. May not live here: rules that let a payment overtake (bypass).
Invariants kept: each payer's queue keeps its order (what does not settle is a tail of it); no participant's net
debit passes its limit; the set is the greatest of all such sets, and so the only one: it contains them all.

Why it is unique: the union of two feasible sets that are heads of queues is one too, since each payer's longer
head was affordable with the income of its own set. So payments may be taken out in any order: take the last of
any overdrawn payer's queue until nobody is overdrawn; no feasible set contains a payment that was taken out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.errors import invariant
from clearing.netting import wide
from clearing.netting.columns import (
    AssetColumns,
    Ids,
    InvalidColumns,
    Tier,
    check_rows,
    counting_order,
    tier_of,
)
from clearing.netting.engine import DEFAULT, Engine, jit
from clearing.netting.limbs import is_negative, move_int192
from clearing.netting.limits import Limits, minimum
from clearing.netting.positions import net_positions

U64: TypeAlias = NDArray[np.uint64]
I64: TypeAlias = NDArray[np.int64]
I32: TypeAlias = NDArray[np.int32]
U8: TypeAlias = NDArray[np.uint8]
Mask: TypeAlias = NDArray[np.bool_]

_WINDOW_MIN: Final = 1 << 16
_THREE: Final = np.uint64(3)


@dataclass(frozen=True, slots=True, eq=False)
class Settlement:
    """Which payments settle: `settled` is bool[rows], `movements` their net by participant, a wide array."""

    settled: Mask
    movements: U64

    def value(self, columns: AssetColumns) -> int:
        """Sum the amounts that settle."""
        hi = 0 if columns.hi is None else wide.total_unsigned(columns.hi[self.settled])
        return (hi << 64) + wide.total_unsigned(columns.lo[self.settled])


def queue_order(columns: AssetColumns) -> I64 | None:
    """Order the rows as every payer's queue does: higher priority first, then row order.

    Returns: int64[rows], the row at each place; None when that is row order.
    """
    priority = columns.priority
    if priority is None or columns.rows == 0 or (priority == priority[0]).all():
        return None
    return np.argsort(np.uint8(255) - priority, kind="stable")


def gridlock(
    columns: AssetColumns,
    limits: Limits,
    *,
    before: Settlement | None = None,
    engine: Engine = DEFAULT,
) -> Settlement:
    """Find the greatest set of payments that settle simultaneously.

    columns: queues in row order, higher priority first where priorities differ; ids below
    limits.participants. before: what has settled already (see bypass); it stays settled, counts against the
    limits, and only the other rows are queued.

    Returns: the set, with what was settled before, and its net movements.
    Raises: InvalidRow: the first bad row. InvalidColumns: `before` is of another table.
    Source: Bech and Soramaki, Gridlock Resolution in Interbank Payment Systems, Bank of Finland DP 9/2001.
    """
    participants = limits.participants
    settled = np.ones(columns.rows, np.bool_)
    opening = wide.zeros(participants)
    queued: NDArray[np.integer[Any]] | None = queue_order(columns)
    if before is not None:
        if before.settled.shape != settled.shape:
            raise InvalidColumns(
                f"{before.settled.shape[0]} rows settled before: give {columns.rows}"
            )
        opening = before.movements
        order = np.arange(columns.rows) if queued is None else queued
        queued = order[~before.settled[order]]
    if queued is None:
        rows = columns
    else:
        check_rows(
            columns, participants, engine=engine
        )  # names a bad row by its place in `columns`
        rows = columns.take(queued)
    everything = net_positions(rows, participants, engine=engine)
    # Nobody can owe more than the gross total, so a greater limit means no more than that.
    bound = (
        1
        + everything.gross
        + wide.total(np.where(wide.sign(opening)[:, np.newaxis] > 0, opening, 0))
    )
    limit = minimum(limits.allowed(), wide.from_ints([bound]))
    balance = wide.add(wide.add(limit, opening), everything.net)
    stays = np.ones(rows.rows, np.bool_)
    if (wide.sign(balance) < 0).any():
        remove = engine.choose(_remove_compiled, _remove_python)
        balance = remove(rows, balance, stays, tier_of(4 * bound))
    invariant(bool((wide.sign(balance) >= 0).all()), "gridlock left a participant overdrawn")
    if queued is None:
        settled = stays
    else:
        settled[queued] = stays
    return Settlement(settled, wide.subtract(balance, limit))


@dataclass(frozen=True, slots=True, eq=False)
class Unsettled:
    """What did not settle and why, in row order.

    row: int64[k]. reason: uint8[k], Reason numbers. participant: int64[k], whose limit or claim binds.
    short: wide array of what is missing.
    """

    row: I64
    reason: U8
    participant: I64
    short: U64


def unsettled(
    columns: AssetColumns, limits: Limits, settlement: Settlement, *, engine: Engine = DEFAULT
) -> Unsettled:
    """Say for each payment that does not settle whose limit stands against it and how much is missing.

    A payment waits for those before it in its payer's queue; `short` is by how much the payer's lesser limit
    would have to grow for all of them, and itself, to settle beside what settles already. Less can be enough,
    where what settles then brings the payer more income, and others can help (see relief).

    Returns: the reasons, LIQUIDITY or CAP, with the payer as participant.
    """
    order = queue_order(columns)
    waiting = np.arange(columns.rows) if order is None else order
    waiting = waiting[~settlement.settled[waiting]]
    by_payer, start = counting_order(columns.debtor[waiting], limits.participants, engine=engine)
    waiting = waiting[by_payer]
    rows = columns.take(waiting)
    places = np.cumsum(wide.to_places(rows.lo, rows.hi), axis=1)
    before = np.concatenate([np.zeros((4, 1), np.int64), places], axis=1)[:, start[:-1]]
    payer = rows.debtor.astype(np.int64)
    queued = wide.from_places(places - before[:, payer])
    debit = wide.subtract(queued, settlement.movements[payer])
    reason, short = limits.short(payer, debit)
    back = np.argsort(waiting)
    return Unsettled(waiting[back], reason[back], payer[back], short[back])


def _remove_python(rows: AssetColumns, balance: U64, stays: Mask, _tier: Tier) -> U64:
    """Clear `stays` for what cannot settle, with Python integers.

    Returns: the balances that are left.
    """
    left = wide.to_ints(balance)
    amounts = rows.amounts()
    creditors = rows.creditor.tolist()
    queues: list[list[int]] = [[] for _ in left]
    for row, payer in enumerate(rows.debtor.tolist()):
        queues[payer].append(row)
    overdrawn = [number for number, amount in enumerate(left) if amount < 0]
    removed = []
    while overdrawn:
        payer = overdrawn.pop()
        while left[payer] < 0:
            row = queues[payer].pop()
            removed.append(row)
            left[payer] += amounts[row]
            payee = creditors[row]
            if left[payee] >= 0 > left[payee] - amounts[row]:
                overdrawn.append(payee)
            left[payee] -= amounts[row]
    stays[removed] = False
    return wide.from_ints(left)


def _remove_compiled(rows: AssetColumns, balance: U64, stays: Mask, tier: Tier) -> U64:
    """Clear `stays` for what cannot settle.

    Returns: the balances that are left.
    """
    if tier is Tier.INT64:
        narrow = np.ascontiguousarray(balance[:, 0]).view(np.int64)
        _remove_int64(rows.debtor, rows.creditor, rows.lo.view(np.int64), narrow, stays)
        return wide.from_signed(narrow)
    hi = np.zeros(rows.rows, np.uint64) if rows.hi is None else rows.hi
    flat = balance.reshape(-1)
    _remove_int192(rows.debtor, rows.creditor, rows.lo, hi, flat, stays)
    return flat.reshape(-1, wide.LIMBS)


@jit
def _sort_window(debtor: Ids, begin: int, end: int, heads: I32, order: I32) -> None:
    """Sort the rows begin..end-1 by payer, stably, into order[begin:end].

    heads: zeros int32[participants + 1]; comes back with the place where each payer's rows begin, then `end`.
    """
    for row in range(begin, end):
        heads[debtor[row]] += 1
    place = begin
    for payer in range(heads.shape[0]):
        place += heads[payer]
        heads[payer] = place
    for row in range(end - 1, begin - 1, -1):
        heads[debtor[row]] -= 1
        order[heads[debtor[row]]] = row


@jit
def _enter_window(
    debtor: Ids, payer: np.integer[Any], heads: I32, order: I32, tails: I32, ready: I32
) -> bool:
    """Move a payer whose rows in one window are used up to the next window before it.

    Queues are cut from the end of the table in windows, and a window is sorted when the first payer enters it:
    most tails are short, so most of the table is never sorted. heads: int32[windows, participants + 1], row k
    for the window that ends k windows before the end. tails: int32[participants, 3], the payer's window, where
    its rows begin there and one past its last row. ready: int32[2], windows sorted and rows in a window.

    Returns: whether there was one; its part may be empty.
    """
    number = tails[payer, 0] + 1
    if number == heads.shape[0]:
        return False
    if number == ready[0]:
        end = debtor.shape[0] - number * ready[1]
        _sort_window(debtor, max(0, end - ready[1]), end, heads[number], order)
        ready[0] += 1
    tails[payer, 0] = number
    tails[payer, 1] = heads[number, payer]
    tails[payer, 2] = heads[number, payer + 1]
    return True


@jit
def _remove_int64(debtor: Ids, creditor: Ids, amount: I64, balance: I64, stays: Mask) -> None:
    rows, participants = debtor.shape[0], balance.shape[0]
    window = max(_WINDOW_MIN, 4 * participants)
    heads = np.zeros(((rows + window - 1) // window, participants + 1), np.int32)
    order = np.empty(rows, np.int32)
    tails = np.zeros((participants, 3), np.int32)
    tails[:, 0] = -1
    ready = np.array([0, window], np.int32)
    waiting = np.empty(participants, np.int32)
    waits = np.zeros(participants, np.bool_)
    first, count = 0, 0
    for number in range(participants):
        if balance[number] < 0:
            waiting[count] = number
            waits[number] = True
            count += 1
    while count > 0:
        payer = np.int64(waiting[first])
        first = first + 1 if first + 1 < participants else 0
        count -= 1
        waits[payer] = False
        while balance[payer] < 0:
            begin = np.int64(tails[payer, 1])
            place = np.int64(tails[payer, 2])
            if place == begin:
                if not _enter_window(debtor, payer, heads, order, tails, ready):
                    return
                continue
            left = balance[payer]
            while left < 0 and place > begin:
                place -= 1
                row = np.int64(order[place])
                stays[row] = False
                left += amount[row]
                payee = np.int64(creditor[row])
                balance[payee] -= amount[row]
                if balance[payee] < 0 and not waits[payee]:
                    free = first + count
                    waiting[free if free < participants else free - participants] = payee
                    waits[payee] = True
                    count += 1
            balance[payer] = left
            tails[payer, 2] = place


@jit
def _remove_int192(debtor: Ids, creditor: Ids, lo: U64, hi: U64, balance: U64, stays: Mask) -> None:
    rows, participants = debtor.shape[0], balance.shape[0] // 3
    window = max(_WINDOW_MIN, 4 * participants)
    heads = np.zeros(((rows + window - 1) // window, participants + 1), np.int32)
    order = np.empty(rows, np.int32)
    tails = np.zeros((participants, 3), np.int32)
    tails[:, 0] = -1
    ready = np.array([0, window], np.int32)
    waiting = np.empty(participants, np.int32)
    waits = np.zeros(participants, np.bool_)
    first, count = 0, 0
    for number in range(participants):
        if is_negative(balance, np.uint64(number), _THREE):
            waiting[count] = number
            waits[number] = True
            count += 1
    while count > 0:
        payer = np.uint64(waiting[first])
        first = first + 1 if first + 1 < participants else 0
        count -= 1
        waits[payer] = False
        while is_negative(balance, payer, _THREE):
            place = np.int64(tails[payer, 2])
            if place == tails[payer, 1]:
                if not _enter_window(debtor, payer, heads, order, tails, ready):
                    return
                continue
            row = np.int64(order[place - 1])
            tails[payer, 2] = place - 1
            stays[row] = False
            payee = np.uint64(creditor[row])
            move_int192(balance, payee, payer, lo[row], hi[row])
            if is_negative(balance, payee, _THREE) and not waits[payee]:
                free = first + count
                waiting[free if free < participants else free - participants] = payee
                waits[payee] = True
                count += 1
