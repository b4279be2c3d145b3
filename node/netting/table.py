"""The rows of an obligation file as columns, with the names behind the numbers.

Lives here: the shape that every netting command works on. May not live here: reading files, netting.
Invariants kept: participants and assets are numbered by the code point order of their names, so that equal files give
equal numbers whatever the order of their rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clearing.errors import InvariantViolation
from clearing.netting.columns import AssetColumns, group_by_asset
from node.netting.texts import Texts

AGENT_NAME: Final = "settlement agent"
"""What transfers call the settlement agent; no participant may have this name."""


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


@dataclass(frozen=True, slots=True, eq=False)
class AssetTable:
    """The obligations of one asset, in file order, with numbers of their own for the participants in it.

    rows: int64[k], rows of the whole table. parties: int64[p], the participants in this asset as numbers of the whole
    table, ascending; debtor and creditor in `columns` are places in it.
    """

    name: str
    rows: NDArray[np.int64]
    parties: NDArray[np.int64]
    columns: AssetColumns

    @property
    def participants(self) -> int:
        """Number of participants in this asset."""
        return int(self.parties.shape[0])


def by_asset(table: ObligationTable) -> Iterator[AssetTable]:
    """Yield the obligations asset by asset, in the order of `table.assets`."""
    book = group_by_asset(table.asset, table.columns, len(table.assets))
    if book.source is None:
        raise InvariantViolation("grouping keeps no rows")
    for number, name in enumerate(table.assets):
        columns = book.asset(number)
        parties, debtor, creditor = _renumbered(columns, len(table.parties))
        own = AssetColumns(debtor, creditor, columns.lo, columns.hi, columns.priority)
        begin, end = int(book.start[number]), int(book.start[number + 1])
        yield AssetTable(name, book.source[begin:end], parties, own)


def _renumbered(columns: AssetColumns, parties: int) -> tuple[NDArray[np.int64], Any, Any]:
    """Return the participants that occur, ascending, and debtor and creditor as places among them."""
    if columns.rows < parties >> 3:
        both = np.concatenate([columns.debtor, columns.creditor])
        occurring, places = np.unique(both, return_inverse=True)
        places = places.astype(ids_dtype(len(occurring)))
        return occurring.astype(np.int64), places[: columns.rows], places[columns.rows :]
    occurs = np.zeros(parties, np.bool_)
    occurs[columns.debtor] = True
    occurs[columns.creditor] = True
    occurring = np.flatnonzero(occurs)
    place = np.zeros(parties, ids_dtype(len(occurring)))
    place[occurring] = np.arange(len(occurring))
    return occurring, place[columns.debtor], place[columns.creditor]
