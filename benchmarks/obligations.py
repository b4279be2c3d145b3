"""Synthetic obligations for the netting benchmarks: seeded, grouped by asset, the same in every run.

Lives here: sizes, distributions, columns. May not live here: timing, methods.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clearing.netting.columns import AssetColumns, Book, gross_of

SEED = 20_261_123


@dataclass(frozen=True, slots=True)
class Shape:
    """What obligations look like.

    bits: amounts are 1 to 2^bits - 1. skew: exponent of a Zipf distribution of both parties, 0 for uniform.
    hot_pair: all rows are between two participants.
    """

    rows: int = 10_000_000
    participants: int = 1_000
    assets: int = 32
    bits: int = 39
    skew: float = 0.0
    hot_pair: bool = False
    seed: int = SEED

    @property
    def name(self) -> str:
        """Say the shape in one line."""
        skew = f", Zipf {self.skew}" if self.skew else ""
        pair = ", one pair" if self.hot_pair else ""
        size = f"{self.rows:,} rows, {self.participants:,}x{self.assets:,}"
        return f"{size}, {self.bits} bits{skew}{pair}"

    def facts(self) -> dict[str, Any]:
        """Return the shape as plain values, with its name."""
        return {"name": self.name, **asdict(self)}


def amounts(
    rng: np.random.Generator, rows: int, bits: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64] | None]:
    """Draw amounts of 1 to 2^bits - 1, as low and high 64 bits."""
    low = rng.integers(1, 1 << min(bits, 64), rows, np.uint64)
    high = rng.integers(0, 1 << (bits - 64), rows, np.uint64) if bits > 64 else None
    return low, high


def parties(rng: np.random.Generator, shape: Shape, rows: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw debtors and creditors, never equal in a row."""
    count = shape.participants
    kind = np.uint16 if count <= 1 << 15 else np.uint32
    if shape.hot_pair:
        debtor = rng.integers(0, 2, rows, kind)
        return debtor, (1 - debtor).astype(kind)
    if shape.skew:
        weights = np.arange(1, count + 1, dtype=np.float64) ** -shape.skew
        steps = np.cumsum(weights) / weights.sum()
        debtor, creditor = (
            np.minimum(np.searchsorted(steps, rng.random(rows)), count - 1) for _ in range(2)
        )
        creditor = np.where(debtor == creditor, (creditor + 1) % count, creditor)
        return debtor.astype(kind), creditor.astype(kind)
    debtor = rng.integers(0, count, rows, kind)
    away = rng.integers(1, count, rows, np.int64)
    return debtor, ((debtor + away) % count).astype(kind)


def book_of(shape: Shape) -> Book:
    """Make the obligations of a shape, spread evenly over the assets."""
    rng = np.random.default_rng(shape.seed)
    ends = [shape.rows * number // shape.assets for number in range(shape.assets + 1)]
    tables = []
    for begin, end in pairwise(ends):
        debtor, creditor = parties(rng, shape, end - begin)
        tables.append(AssetColumns(debtor, creditor, *amounts(rng, end - begin, shape.bits)))
    return Book.of(tables)


def bits_of_sums(book: Book) -> int:
    """Return the bits of the greatest gross total of an asset: no sum over rows of one asset has more."""
    return max((gross_of(book.asset(n)).bit_length() for n in range(book.assets)), default=0)


def bytes_of(book: Book) -> int:
    """Return the bytes a pass over all rows has to read."""
    columns = (book.columns.debtor, book.columns.creditor, book.columns.lo, book.columns.hi)
    return sum(column.nbytes for column in columns if column is not None)
