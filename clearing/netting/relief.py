"""The cheapest change that would settle a payment: whose liquidity or cap would have to grow, and by how much.

Lives here: the search for it, by gridlock and by set-off. May not live here: the methods whose answers it compares.
Invariant kept: the change is computed, not estimated: with it the payment settles, with one unit less, and by gridlock
with as little for any other single participant, it does not.

Why a search by halves is exact: a greater limit never unsettles a payment, since the greatest set only grows. And
a participant whose payments all settle is limited by nothing, so more liquidity for it changes nothing.

By set-off: let every greatest one discharge a debtor's payment, and take a greatest one with one unit more liquidity for that
debtor. Where the two differ they differ by circles, and one that took the payment back would enter the debtor by it, so not by
the new unit: it could have been taken before. What is discharged grows with the debtor's liquidity evenly between bends, by
less after each; the least that is sure is at a bend, which is found where the bounds of two set-offs meet.
Source: strict complementarity of linear programming (Goldman and Tucker, 1956); the search is Eisner's and Severance's (1976).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.netting import wide
from clearing.netting.columns import AssetColumns, gross_of
from clearing.netting.engine import DEFAULT, Engine
from clearing.netting.gridlock import Settlement, gridlock, queue_order, unsettled
from clearing.netting.limits import Limits
from clearing.netting.setoff import set_off

U64: TypeAlias = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Change:
    """More liquidity, and more of its net debit cap, for one participant; at least one of them is not zero."""

    participant: int
    liquidity: int
    cap: int


def cheapest_change(
    columns: AssetColumns,
    limits: Limits,
    row: int,
    *,
    before: Settlement | None = None,
    engine: Engine = DEFAULT,
) -> Change | None:
    """Find the least that one participant's limits would have to grow for a payment to settle.

    row: its number in `columns`. before: as for `gridlock`. Costs a run of gridlock for each payer that has
    payments waiting, and a hundred or two for those that are cheaper than all before them.

    Returns: the change; the payer's own where others would need as much, else that of the least number; None when
    the payment settles without any.
    """
    settlement = gridlock(columns, limits, before=before, engine=engine)
    if settlement.settled[row]:
        return None
    why = unsettled(columns, limits, settlement, engine=engine)
    allowed = limits.allowed()
    payer = int(columns.debtor[row])
    enough = wide.to_ints(why.short[np.searchsorted(why.row, row)][np.newaxis])[0]

    def settles(participant: int, more: int) -> bool:
        raised = Limits(_raised(allowed, participant, more), wide.from_ints([wide.MAX]))
        return bool(gridlock(columns, raised, before=before, engine=engine).settled[row])

    best = payer
    others = np.unique(why.participant)
    for participant in [payer, *others[others != payer].tolist()]:
        if participant != payer and not settles(participant, enough - 1):
            continue
        too_little = 0
        best, enough = participant, enough - (participant != payer)
        while enough - too_little > 1:
            middle = (too_little + enough) // 2
            if settles(participant, middle):
                enough = middle
            else:
                too_little = middle
    return _change(limits, best, enough)


def sure_change(
    columns: AssetColumns, limits: Limits, row: int, *, engine: Engine = DEFAULT
) -> Change | None:
    """Find the least that a debtor's limits would have to grow for every greatest set-off to discharge its payment.

    There may be several greatest set-offs, so a payment that one of them discharges is not yet sure to be.
    row: the payment's number in `columns`. Costs one or two set-offs for each price that the debtor's liquidity has on the
    way, which are few: a price is the number of obligations that one unit more discharges.

    Returns: the change; None where every greatest set-off discharges the payment without any, or where no limit below
    2^128 is enough.
    """
    debtor = int(columns.debtor[row])
    allowed = limits.allowed()
    less, owed = _up_to(columns, row)

    def tried(more: int) -> _Trial:
        liquidity = _raised(allowed, debtor, more)
        return _try(owed, less, limits.participants, liquidity, engine)

    # Who may pay all that it owes pays it: whatever it left would add to the value.
    debts = gross_of(owed.take(np.flatnonzero(owed.debtor == debtor)))
    enough = min(debts, (1 << 128) - 1) - wide.to_ints(allowed[debtor][np.newaxis])[0]
    low = tried(0)
    if low.is_sure or enough <= 0:
        return None
    high = tried(enough)
    if not high.is_sure:
        return None
    too_little = 0
    while not _is_line(low, high, enough - too_little):
        more = too_little + _meeting(low, high, enough - too_little)
        between = tried(more)
        if between.is_sure:
            enough, high = more, between
        else:
            too_little, low = more, between
    return _change(limits, debtor, enough)


class _Trial(NamedTuple):
    """A greatest set-off with so much liquidity for the debtor.

    price: with d more the value is at most value + price * d, also for d below zero. is_sure: whether every other greatest
    one discharges the payment too.
    """

    value: int
    price: int
    is_sure: bool


def _is_line(low: _Trial, high: _Trial, apart: int) -> bool:
    """Say whether the greatest value grows evenly between two trials, of which only the second is sure: the least is there.

    The potentials that prove the value between two bends prove it at both of them, and a payment is sure exactly where
    some of them leave it no choice (strict complementarity). So what is not sure before a bend is not sure up to the next.
    """
    gained = high.value - low.value
    return apart == 1 or gained in (low.price * apart, high.price * apart)


def _meeting(low: _Trial, high: _Trial, apart: int) -> int:
    """Return where the bounds of two trials meet, rounded up, and at least one step from both."""
    gained = high.value - low.value
    meeting = -((high.price * apart - gained) // (low.price - high.price))
    return min(max(1, meeting), apart - 1)


def _try(
    owed: AssetColumns, less: AssetColumns, participants: int, liquidity: U64, engine: Engine
) -> _Trial:
    """Set off what is owed up to a payment, its last row, which is not sure where with one unit `less` as much is discharged."""
    found = set_off(owed, participants, liquidity, engine=engine)
    payer, payee = int(owed.debtor[-1]), int(owed.creditor[-1])
    price, other = int(found.potentials[payer]), int(found.potentials[payee])
    if owed.lo[-1] != found.discharged_lo[-1] or (
        owed.hi is not None
        and found.discharged_hi is not None
        and owed.hi[-1] != found.discharged_hi[-1]
    ):
        return _Trial(found.value, price, is_sure=False)
    # What the potentials leave no choice is full in every greatest set-off.
    if 1 - price + other > 0:
        return _Trial(found.value, price, is_sure=True)
    without = set_off(less, participants, liquidity, engine=engine)
    return _Trial(found.value, price, is_sure=without.value < found.value)


def _up_to(columns: AssetColumns, row: int) -> tuple[AssetColumns, AssetColumns]:
    """Return the obligations with one unit less between two parties than discharges `row` wholly, and with just as much.

    Parallel obligations lose in queue order, so those that wait behind `row` are left out: where they lose something in
    every greatest set-off, `row` loses all in every one without them. `row` is the last one.
    """
    order = queue_order(columns)
    place = np.arange(columns.rows)
    if order is not None:
        place[order] = np.arange(columns.rows)
    debtor, creditor = columns.debtor, columns.creditor
    parallel = (debtor == debtor[row]) & (creditor == creditor[row])
    others = np.flatnonzero(~parallel | (place < place[row]))
    owed = columns.take(np.append(others, row))
    lo = owed.lo.copy()
    hi = None if owed.hi is None else owed.hi.copy()
    if hi is not None and not lo[-1]:
        hi[-1] -= np.uint64(1)
    lo[-1:] -= np.uint64(1)
    kept = len(lo) - (not lo[-1] and (hi is None or not hi[-1]))
    return replace(owed, lo=lo, hi=hi).between(0, kept), owed


def _change(limits: Limits, participant: int, more: int) -> Change:
    """Say how much each of a participant's limits must grow for the lesser one to grow by `more`."""
    limit, liquidity, cap = (
        wide.to_ints(column[participant][np.newaxis])[0]
        for column in (
            _raised(limits.allowed(), participant, more),
            limits.liquidity,
            limits.cap,
        )
    )
    return Change(participant, max(0, limit - liquidity), max(0, limit - cap))


def _raised(allowed: U64, participant: int, more: int) -> U64:
    raised = allowed.copy()
    one = slice(participant, participant + 1)
    raised[one] = wide.add(raised[one], wide.from_ints([more]))
    return raised
