"""The cheapest change that would settle a payment: whose liquidity or cap would have to grow, and by how much.

Lives here: the search for it. May not live here: the method whose answers it compares (gridlock).
Invariant kept: the change is computed, not estimated: with it the payment settles, with one unit less, and with as
little for any other single participant, it does not.

Why a search by halves is exact: a greater limit never unsettles a payment, since the greatest set only grows. And
a participant whose payments all settle is limited by nothing, so more liquidity for it changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.netting import wide
from clearing.netting.columns import AssetColumns
from clearing.netting.engine import DEFAULT, Engine
from clearing.netting.gridlock import Settlement, gridlock, unsettled
from clearing.netting.limits import Limits

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
    limit, liquidity, cap = (
        wide.to_ints(column[best][np.newaxis])[0]
        for column in (_raised(allowed, best, enough), limits.liquidity, limits.cap)
    )
    return Change(best, max(0, limit - liquidity), max(0, limit - cap))


def _raised(allowed: U64, participant: int, more: int) -> U64:
    raised = allowed.copy()
    one = slice(participant, participant + 1)
    raised[one] = wide.add(raised[one], wide.from_ints([more]))
    return raised
