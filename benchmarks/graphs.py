"""Debt graphs for the set-off benchmark: those of banks and firms, and those made to be hard. Seeded.

Lives here: who owes whom. May not live here: timing, methods. Every graph is one asset; amounts are drawn apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.obligations import SEED, amounts
from clearing.netting.columns import AssetColumns

Ends: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Debtors and creditors, row by row."""


def columns_of(ends: Ends, bits: int, seed: int = SEED) -> AssetColumns:
    """Give every arc of a graph an amount of 1 to 2^bits - 1, in an order that says nothing about the graph."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(ends[0]))
    debtor, creditor = (side[order].astype(np.uint32) for side in ends)
    return AssetColumns(debtor, creditor, *amounts(rng, len(order), bits))


def _apart(debtor: NDArray[Any], creditor: NDArray[Any]) -> Ends:
    keep = debtor != creditor
    return debtor[keep].astype(np.int64), creditor[keep].astype(np.int64)


def uniform(nodes: int, rows: int) -> Ends:
    """Everybody owes anybody."""
    rng = np.random.default_rng(SEED)
    debtor = rng.integers(0, nodes, rows)
    return _apart(debtor, (debtor + rng.integers(1, nodes, rows)) % nodes)


def scale_free(nodes: int, rows: int, exponent: float = 0.75) -> Ends:
    """Few are in most rows: both ends by weight, the k-th weighing k^-exponent, in two different orders."""
    rng = np.random.default_rng(SEED)
    steps = np.cumsum(np.arange(1, nodes + 1, dtype=np.float64) ** -exponent)
    names = [rng.permutation(nodes) for _ in range(2)]
    drawn = [np.searchsorted(steps, rng.random(rows) * steps[-1]) for _ in range(2)]
    debtor, creditor = (
        name[np.minimum(place, nodes - 1)] for name, place in zip(names, drawn, strict=True)
    )
    return _apart(debtor, creditor)


def preferential(nodes: int, degree: int) -> Ends:
    """Barabasi and Albert: each new node meets `degree` old ones, by how many they have met; directions are drawn."""
    rng = np.random.default_rng(SEED)
    met = np.empty(2 * nodes * degree, np.int64)
    met[: 2 * degree] = np.tile(np.arange(degree), 2)
    filled, pairs = 2 * degree, []
    for node in range(degree, nodes):
        olds = met[rng.integers(0, filled, degree)]
        pairs.append(np.stack([np.full(degree, node), olds]))
        met[filled : filled + degree] = olds
        met[filled + degree : filled + 2 * degree] = node
        filled += 2 * degree
    one, other = np.concatenate(pairs, axis=1)
    turned = rng.random(len(one)) < 0.5
    return _apart(np.where(turned, one, other), np.where(turned, other, one))


def ring(nodes: int, chords: int = 0) -> Ends:
    """Each owes both neighbours; `chords` more rows between any two."""
    rng = np.random.default_rng(SEED)
    here = np.arange(nodes)
    more = rng.integers(0, nodes, (2, chords))
    following = (here + 1) % nodes
    return _apart(
        np.concatenate([here, following, more[0]]), np.concatenate([following, here, more[1]])
    )


def torus(high: int, wide: int, *, both_ways: bool) -> Ends:
    """A grid closed in both directions; each owes the next to the right and below, or all four neighbours."""
    here = np.arange(high * wide)
    row, column = here // wide, here % wide
    right = row * wide + (column + 1) % wide
    below = (row + 1) % high * wide + column
    debtor, creditor = np.concatenate([here, here]), np.concatenate([right, below])
    if both_ways:
        return _apart(np.concatenate([debtor, creditor]), np.concatenate([creditor, debtor]))
    return _apart(debtor, creditor)


def small_world(nodes: int, neighbours: int) -> Ends:
    """Watts and Strogatz: a ring with `neighbours` rows from each node to the next ones, a tenth of them sent anywhere."""
    rng = np.random.default_rng(SEED)
    debtor = np.repeat(np.arange(nodes), neighbours)
    creditor = (debtor + np.tile(np.arange(1, neighbours + 1), nodes)) % nodes
    anywhere = rng.random(len(debtor)) < 0.1
    creditor = np.where(anywhere, rng.integers(0, nodes, len(debtor)), creditor)
    turned = rng.random(len(debtor)) < 0.5
    return _apart(np.where(turned, debtor, creditor), np.where(turned, creditor, debtor))


def nested(nodes: int) -> Ends:
    """A chain from the first to the last, and rows back from the k-th last to the k-th: intervals inside each other."""
    here = np.arange(nodes - 1)
    half = np.arange(nodes // 2)
    return _apart(np.concatenate([here, nodes - 1 - half]), np.concatenate([here + 1, half]))


GRAPHS: dict[str, Callable[[], Ends]] = {
    "200 banks, 1M rows": lambda: uniform(200, 1_000_000),
    "200 banks, 1M rows, scale-free": lambda: scale_free(200, 1_000_000),
    "scale-free 10k, 840k rows": lambda: scale_free(10_000, 840_000),
    "scale-free 10k, 840k rows, steeper": lambda: scale_free(10_000, 840_000, 1.0),
    "scale-free 10k, 95k rows": lambda: scale_free(10_000, 95_000),
    "scale-free 1k, 9k rows": lambda: scale_free(1_000, 9_000),
    "preferential 10k, 100k rows": lambda: preferential(10_000, 10),
    "uniform 2k, 1M rows": lambda: uniform(2_000, 1_000_000),
    "uniform 20k, 40k rows": lambda: uniform(20_000, 40_000),
    "ring 20k": lambda: ring(20_000),
    "ring 20k, 200 chords": lambda: ring(20_000, 200),
    "torus 141x141 one way": lambda: torus(141, 141, both_ways=False),
    "torus 141x141 both ways": lambda: torus(141, 141, both_ways=True),
    "torus 4x5000 both ways": lambda: torus(4, 5_000, both_ways=True),
    "small world 20k, 80k rows": lambda: small_world(20_000, 4),
    "nested intervals 20k, 30k rows": lambda: nested(20_000),
}
"""The graphs of the report, by name."""

MILLION: dict[str, Callable[[], Ends]] = {
    "ring, 1M rows": lambda: ring(500_000),
    "ring with chords, 1M rows": lambda: ring(490_000, 20_000),
    "torus one way, 1M rows": lambda: torus(707, 707, both_ways=False),
    "torus 4 wide, 1M rows": lambda: torus(4, 62_500, both_ways=True),
    "small world, 1M rows": lambda: small_world(250_000, 4),
    "uniform 500k, 1M rows": lambda: uniform(500_000, 1_000_000),
    "nested intervals, 1M rows": lambda: nested(666_666),
}
"""Sparse graphs of a million rows, which peers take minutes to hours for: ours alone."""

HARD = ("ring", "torus", "small world", "nested")
"""How the names of those begin that were made to be hard."""
