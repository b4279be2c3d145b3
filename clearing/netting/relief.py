"""The cheapest change that would settle a payment: whose liquidity or cap would have to grow, and by how much.

Lives here: the search for it, by gridlock and by set-off. May not live here: the methods whose answers it compares.
Invariant kept: the change is computed, not estimated: with it the payment settles, with one unit less, and by gridlock
with as little for any other single participant, it does not.

Why a search by halves is exact: a greater limit never unsettles a payment, since the greatest set only grows. And
a participant whose payments all settle is limited by nothing, so more liquidity for it changes nothing. By set-off: let
every greatest one discharge a debtor's payment, and take a greatest one with one unit more liquidity for that debtor.
Where the two differ they differ by circles, and one that took the payment back would enter the debtor by it, so not by
the new unit: it could have been taken before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

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
    row: the payment's number in `columns`. Costs two set-offs for each bit of what the debtor owes.

    Returns: the change; None where every greatest set-off discharges the payment without any, or where no limit below
    2^128 is enough.
    """
    debtor = int(columns.debtor[row])
    allowed = limits.allowed()
    less = _one_unit_less(columns, row)

    def is_sure(more: int) -> bool:
        liquidity = _raised(allowed, debtor, more)
        whole, short = (
            set_off(table, limits.participants, liquidity, engine=engine).value
            for table in (columns, less)
        )
        return short < whole

    # Who may pay all that it owes pays it: whatever it left would add to the value.
    owed = columns.take(np.flatnonzero(columns.debtor == debtor))
    most = min(gross_of(owed), (1 << 128) - 1) - wide.to_ints(allowed[debtor][np.newaxis])[0]
    if is_sure(0) or most <= 0 or not is_sure(most):
        return None
    too_little, enough = 0, most
    while enough - too_little > 1:
        middle = (too_little + enough) // 2
        if is_sure(middle):
            enough = middle
        else:
            too_little = middle
    return _change(limits, debtor, enough)


def _one_unit_less(columns: AssetColumns, row: int) -> AssetColumns:
    """Return the obligations with one unit less between two parties than discharges `row` wholly.

    Parallel obligations lose in queue order, so those that wait behind `row` are left out.
    """
    order = queue_order(columns)
    place = np.arange(columns.rows)
    if order is not None:
        place[order] = np.arange(columns.rows)
    debtor, creditor = columns.debtor, columns.creditor
    parallel = (debtor == debtor[row]) & (creditor == creditor[row])
    keep = ~parallel | (place <= place[row])
    lo = columns.lo.copy()
    hi = None if columns.hi is None else columns.hi.copy()
    if hi is not None and not lo[row]:
        hi[row] -= np.uint64(1)
    lo[row : row + 1] -= np.uint64(1)
    keep[row] = bool(lo[row]) or (hi is not None and bool(hi[row]))
    return replace(columns, lo=lo, hi=hi).take(np.flatnonzero(keep))


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
