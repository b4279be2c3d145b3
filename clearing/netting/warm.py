"""Compile every kernel of this package into the on-disk cache: `python -m clearing.netting.warm`.

Lives here: one small call of each kernel in each tier, so that nobody waits for a compiler on the first real call;
`make install` runs it. May not live here: anything that a result depends on.
"""

from __future__ import annotations

from clearing.netting.columns import AssetColumns, Tier
from clearing.netting.positions import net_positions


def example(tier: Tier, rows: int = 130) -> AssetColumns:
    """Return a few obligations whose gross total needs exactly `tier`."""
    amount = {Tier.INT64: 1, Tier.INT128: 1 << 64, Tier.INT192: (1 << 128) - 1}[tier]
    debtors = [row % 7 for row in range(rows)]
    creditors = [(row % 7 + 1 + row % 5) % 7 for row in range(rows)]
    return AssetColumns.of(debtors, creditors, [amount] * rows)


def warm() -> None:
    """Run every kernel once; where numba is missing this does next to nothing."""
    for tier in Tier:
        net_positions(example(tier), 7)


if __name__ == "__main__":
    warm()
