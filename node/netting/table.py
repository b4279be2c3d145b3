"""The rows of an obligation file as columns, with the names behind the numbers.

Lives here: the shape that every netting command works on. May not live here: reading files, netting.
Invariants kept: participants and assets are numbered by the code point order of their names, so that equal files give
equal numbers whatever the order of their rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clearing.netting.columns import AssetColumns


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Many short UTF-8 texts in one buffer: text n is the size[n] bytes of `data` from start[n] on."""

    data: bytes
    start: NDArray[np.int64]
    size: NDArray[np.int32]

    def __len__(self) -> int:
        """Return the number of texts."""
        return int(self.start.shape[0])

    def raw(self, numbers: NDArray[np.integer] | None = None) -> list[bytes]:
        """Return the bytes of the texts with these numbers, or of all, in that order."""
        start = self.start if numbers is None else self.start[numbers]
        size = self.size if numbers is None else self.size[numbers]
        data = self.data
        return [data[a:b] for a, b in zip(start.tolist(), (start + size).tolist(), strict=True)]

    def take(self, numbers: NDArray[np.integer] | None = None) -> list[str]:
        """Return the texts with these numbers, or all, in that order."""
        return [text.decode() for text in self.raw(numbers)]


@dataclass(frozen=True, slots=True, eq=False)
class ObligationTable:
    """A file without faults, rows in file order.

    ids: unique. parties, assets: different names in code point order. asset: uint16[n] or uint32[n], asset numbers.
    columns: debtor and creditor are numbers of parties. ignored: names of columns that mean nothing here.
    """

    ids: Texts
    parties: Sequence[str]
    assets: Sequence[str]
    asset: NDArray[np.uint16] | NDArray[np.uint32]
    columns: AssetColumns
    ignored: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of obligations."""
        return self.columns.rows


def ids_dtype(count: int) -> type[np.uint16 | np.uint32]:
    """Return the narrowest type of numbers below `count` that the kernels of netting read."""
    return np.uint16 if count <= 1 << 15 else np.uint32


def code_point_ranks(names: Iterable[bytes]) -> tuple[list[str], NDArray[np.uint32]]:
    """Sort different names given as UTF-8.

    Returns: the names in code point order, which is the order of their bytes, and for each name given its place there.
    """
    given = list(names)
    order = sorted(range(len(given)), key=given.__getitem__)
    ranks = np.empty(len(given), np.uint32)
    ranks[order] = np.arange(len(given), dtype=np.uint32)
    return [given[number].decode() for number in order], ranks
