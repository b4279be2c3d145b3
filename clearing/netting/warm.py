"""Compile every kernel of this package into the on-disk cache: `python -m clearing.netting.warm`.

Lives here: one small call of each kernel for each tier and each width of participant numbers, so that nobody
waits for a compiler on the first real call; `make install` runs it, by way of node/netting/warm.py. May not live
here: anything that a result depends on.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from clearing.netting.bilateral import bilateral
from clearing.netting.bypass import bypass
from clearing.netting.columns import AssetColumns, Tier, group_by_asset
from clearing.netting.gridlock import gridlock, unsettled
from clearing.netting.limits import Limits
from clearing.netting.pairs import pair_totals, spread_pairs
from clearing.netting.positions import net_positions
from clearing.netting.setoff import Route, set_off
from clearing.netting.transfers import pairwise

PARTICIPANTS: Final = 7


def example(tier: Tier, rows: int = 130) -> AssetColumns:
    """Return a few obligations whose gross total needs exactly `tier`; participants owe unequal sums."""
    amount = {Tier.INT64: 1, Tier.INT128: 1 << 64, Tier.INT192: (1 << 128) - 1}[tier]
    debtors = [row % PARTICIPANTS for row in range(rows)]
    creditors = [(row % PARTICIPANTS + 1 + row % 5) % PARTICIPANTS for row in range(rows)]
    return AssetColumns.of(debtors, creditors, [amount] * rows)


def warm() -> None:
    """Run every kernel once; where numba is missing this does next to nothing."""
    limits = Limits.of(PARTICIPANTS, {})
    set_off(AssetColumns.of([0, 1, 2], [1, 2, 0], [1, 1, 1]), 3)  # merged by sorting, and thin
    dense = example(Tier.INT64, 1_000)
    set_off(dense, PARTICIPANTS)
    debtor, creditor = dense.debtor.astype(np.uint16), dense.creditor.astype(np.uint16)
    set_off(AssetColumns(debtor, creditor, dense.lo), PARTICIPANTS)
    for tier in Tier:
        wide_ids = example(tier)
        narrow_ids = AssetColumns(
            wide_ids.debtor.astype(np.uint16),
            wide_ids.creditor.astype(np.uint16),
            wide_ids.lo,
            wide_ids.hi,
        )
        for columns in (wide_ids, narrow_ids):
            positions = net_positions(columns, PARTICIPANTS)
            pairwise(positions.net)
            group_by_asset(columns.debtor, columns, PARTICIPANTS)
            bypass(columns, limits)
            unsettled(columns, limits, gridlock(columns, limits))
            bilateral(columns, PARTICIPANTS)  # in a table
            bilateral(columns, columns.rows)  # by sorting
            spread_pairs(columns, pair_totals(columns, columns.lo, columns.hi))
            for route in (Route.PUSH, Route.SIMPLEX):  # merged in a table
                set_off(columns, PARTICIPANTS, limits.liquidity, route=route)


if __name__ == "__main__":
    warm()
