"""Obligations as columns grouped by asset: what every netting method reads.

Lives here: the shape of the input, grouping by asset, validation of rows, the gross total and the arithmetic
tier that follows from it. May not live here: any method of netting.
Invariants kept: grouping is stable, so file order survives within an asset; the tier is chosen from the exact
gross total, so no cell of a sum can overflow in it.

Amounts are unsigned 128-bit integers of the asset's smallest unit, split into two columns of 64 bits:
amount = hi * 2^64 + lo. Participants are numbers 0..participants-1.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.errors import ClearingError
from clearing.netting import wide
from clearing.netting.engine import DEFAULT, Engine, jit

Ids: TypeAlias = NDArray[np.uint16] | NDArray[np.uint32]
U64: TypeAlias = NDArray[np.uint64]
U8: TypeAlias = NDArray[np.uint8]
I64: TypeAlias = NDArray[np.int64]
Integers: TypeAlias = Sequence[int] | NDArray[np.integer]

NO_ROW: Final = -1
PARTICIPANTS_MAX: Final = 2**31
ROWS_MAX: Final = 2**31
_NO_HIGH: Final = np.zeros(0, np.uint64)


class InvalidColumns(ClearingError, ValueError):  # noqa: N818 - the name says what happened
    """The columns do not form a table: lengths, types or sizes differ from what is documented."""


class RowFault(enum.IntEnum):
    """Why a row is no obligation; where several apply, the lowest is reported."""

    DEBTOR_UNKNOWN = 1
    CREDITOR_UNKNOWN = 2
    SAME_PARTY = 3
    AMOUNT_ZERO = 4


_REMEDY: Final = {
    RowFault.DEBTOR_UNKNOWN: "debtor is no participant number: number participants from 0",
    RowFault.CREDITOR_UNKNOWN: "creditor is no participant number: number participants from 0",
    RowFault.SAME_PARTY: "debtor and creditor are the same: leave the row out",
    RowFault.AMOUNT_ZERO: "amount is zero: leave the row out",
}


class InvalidRow(InvalidColumns):
    """One row is no obligation: `row` is its index in the columns given, `fault` says why."""

    def __init__(self, row: int, fault: RowFault) -> None:
        """Name the row and the fault; the text carries the remedy."""
        super().__init__(f"row {row}: {_REMEDY[fault]}")
        self.row = row
        self.fault = fault


class Tier(enum.IntEnum):
    """Limbs of 64 bits in which every partial sum of a table fits as a signed number."""

    INT64 = 1
    INT128 = 2
    INT192 = 3


def tier_of(gross: int) -> Tier:
    """Choose the narrowest arithmetic in which no sum over rows with this gross total can overflow."""
    if gross < 1 << 63:
        return Tier.INT64
    return Tier.INT128 if gross < 1 << 127 else Tier.INT192


@dataclass(frozen=True, slots=True, eq=False)
class AssetColumns:
    """The obligations of one asset, row by row.

    debtor, creditor: uint32[n] or uint16[n] (both the same; half the bytes where numbers fit).
    lo, hi: uint64[n], the amount in smallest units; hi is None when every amount is below 2^64.
    priority: uint8[n], higher is paid first, or None when all are equal.
    All contiguous. The arrays are shared, not copied: the caller does not change them.

    Raises: InvalidColumns: a length, type or layout differs. Rows themselves are checked by the methods.
    """

    debtor: Ids
    creditor: Ids
    lo: U64
    hi: U64 | None = None
    priority: U8 | None = None

    def __post_init__(self) -> None:
        """Check the shape of the table, in constant time."""
        for name in ("debtor", "creditor", "lo", "hi", "priority"):
            column = getattr(self, name)
            if column is not None and not isinstance(column, np.ndarray):
                found = type(column).__name__
                raise InvalidColumns(f"{name} is {found}: give an array, or use AssetColumns.of")
        if self.debtor.dtype not in (np.dtype(np.uint16), np.dtype(np.uint32)):
            raise InvalidColumns(
                f"debtor is {self.debtor.dtype}: give uint16 or uint32, or use AssetColumns.of"
            )
        _check_column("creditor", self.creditor, self.debtor.dtype, self.rows)
        _check_column("debtor", self.debtor, self.debtor.dtype, self.rows)
        _check_column("lo", self.lo, np.dtype(np.uint64), self.rows)
        if self.hi is not None:
            _check_column("hi", self.hi, np.dtype(np.uint64), self.rows)
        if self.priority is not None:
            _check_column("priority", self.priority, np.dtype(np.uint8), self.rows)
        if self.rows >= ROWS_MAX:
            raise InvalidColumns(f"{self.rows} rows: at most {ROWS_MAX - 1} in one table")

    @property
    def rows(self) -> int:
        """Number of obligations."""
        return int(self.debtor.shape[0])

    @classmethod
    def of(
        cls,
        debtor: Integers,
        creditor: Integers,
        amounts: Integers,
        priority: Integers | None = None,
    ) -> AssetColumns:
        """Build columns from integers: lists of Python's, or arrays of any integer type.

        Raises: InvalidColumns: lengths differ, or something is no integer that fits its column.
        """
        try:
            lo, hi = wide.split_amounts(amounts)
        except (OverflowError, TypeError) as error:
            raise InvalidColumns(f"amounts: {error}: give integers from 0 to 2^128-1") from error
        return cls(
            _fitting("debtor", debtor, np.dtype(np.uint32)),
            _fitting("creditor", creditor, np.dtype(np.uint32)),
            lo,
            hi,
            None if priority is None else _fitting("priority", priority, np.dtype(np.uint8)),
        )

    def amounts(self) -> list[int]:
        """Give the amounts as Python integers, in row order."""
        return wide.join_amounts(self.lo, self.hi)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> AssetColumns:
        """Copy the rows with these indexes, in their order, or those where a bool[n] mask is true."""
        return AssetColumns(
            self.debtor[rows],
            self.creditor[rows],
            self.lo[rows],
            None if self.hi is None else self.hi[rows],
            None if self.priority is None else self.priority[rows],
        )

    def between(self, start: int, stop: int) -> AssetColumns:
        """View the rows start..stop-1 without copying."""
        return AssetColumns(
            self.debtor[start:stop],
            self.creditor[start:stop],
            self.lo[start:stop],
            None if self.hi is None else self.hi[start:stop],
            None if self.priority is None else self.priority[start:stop],
        )


def _fitting(name: str, values: Integers, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return integers as a column of unsigned `dtype`; numpy alone would cut what does not fit. Raises: InvalidColumns."""
    given = np.asarray(values)
    greatest = int(np.iinfo(dtype).max)
    fits = given.size == 0 or (
        given.dtype.kind in "iu" and int(given.min()) >= 0 and int(given.max()) <= greatest
    )
    if not fits:
        raise InvalidColumns(f"{name}: give integers from 0 to {greatest}")
    return np.ascontiguousarray(given, dtype)


def _check_column(
    name: str, column: NDArray[np.generic], dtype: np.dtype[np.generic], rows: int
) -> None:
    if column.dtype != dtype:
        raise InvalidColumns(f"{name} is {column.dtype}: give {dtype}")
    if column.shape != (rows,):
        raise InvalidColumns(f"{name} has shape {column.shape}: give ({rows},)")
    if not column.flags.c_contiguous:
        raise InvalidColumns(f"{name} is strided: give a contiguous array")


def check_participants(participants: int) -> None:
    """Refuse a number of participants outside 0..2^31.

    Raises: InvalidColumns.
    """
    if not 0 <= participants <= PARTICIPANTS_MAX:
        raise InvalidColumns(f"{participants} participants: give 0 to {PARTICIPANTS_MAX}")


def runs_of(rows: int, pieces: int) -> list[tuple[int, int]]:
    """Cut rows into runs of about equal length for a `Runner`.

    Returns: where each begins and ends; as many as `pieces` or, where there are fewer rows, fewer; at least one.
    """
    ends = [rows * piece // pieces for piece in range(pieces + 1)]
    return [(start, stop) for start, stop in pairwise(ends) if start < stop] or [(0, 0)]


def concatenate(chunks: Sequence[AssetColumns]) -> AssetColumns:
    """Join the tables of one asset, in order, with one copy.

    A missing hi counts as zeros and a missing priority as 0 where another chunk has one; ids become uint32
    unless all are uint16.
    """
    if len(chunks) == 1:
        return chunks[0]
    if not chunks:
        return AssetColumns.of([], [], [])
    narrow = all(chunk.debtor.dtype == np.uint16 for chunk in chunks)
    ids = np.dtype(np.uint16 if narrow else np.uint32)
    has_hi = any(chunk.hi is not None for chunk in chunks)
    has_priority = any(chunk.priority is not None for chunk in chunks)
    return AssetColumns(
        np.concatenate([chunk.debtor for chunk in chunks], dtype=ids),
        np.concatenate([chunk.creditor for chunk in chunks], dtype=ids),
        np.concatenate([chunk.lo for chunk in chunks]),
        np.concatenate([_or_zeros(c.hi, c.rows, np.uint64) for c in chunks]) if has_hi else None,
        np.concatenate([_or_zeros(c.priority, c.rows, np.uint8) for c in chunks])
        if has_priority
        else None,
    )


def _or_zeros(column: NDArray[Any] | None, rows: int, dtype: type[np.generic]) -> NDArray[Any]:
    return np.zeros(rows, dtype) if column is None else column


@dataclass(frozen=True, slots=True, eq=False)
class Book:
    """The obligations of many assets, grouped: asset k owns rows start[k]..start[k+1]-1 of `columns`.

    columns: all rows, asset by asset.
    start: int64[assets + 1], non-decreasing, from 0 to the number of rows.
    source: int64[n], the row of the ungrouped table each row came from; None when it was filled grouped.
    """

    columns: AssetColumns
    start: I64
    source: I64 | None = None

    @property
    def assets(self) -> int:
        """Number of assets, empty ones included."""
        return int(self.start.shape[0]) - 1

    def asset(self, number: int) -> AssetColumns:
        """View the rows of one asset without copying."""
        return self.columns.between(int(self.start[number]), int(self.start[number + 1]))

    @classmethod
    def of(cls, assets: Sequence[AssetColumns]) -> Book:
        """Join tables that are grouped already, one an asset, with one copy."""
        start = np.zeros(len(assets) + 1, np.int64)
        np.cumsum([columns.rows for columns in assets], out=start[1:])
        return cls(concatenate(assets), start)


def group_by_asset(
    asset: NDArray[np.uint16] | NDArray[np.uint32],
    columns: AssetColumns,
    assets: int,
    *,
    engine: Engine = DEFAULT,
) -> Book:
    """Group a table of rows by asset with a stable counting sort.

    asset: uint16[n] or uint32[n], the asset number of each row, 0..assets-1.

    Returns: the book, with `source` filled; rows of one asset keep their order.
    Raises: InvalidColumns: lengths differ or an asset number is not below `assets`.
    """
    if asset.dtype not in (np.dtype(np.uint16), np.dtype(np.uint32)):
        raise InvalidColumns(f"asset is {asset.dtype}: give uint16 or uint32")
    _check_column("asset", asset, asset.dtype, columns.rows)
    if columns.rows and int(asset.max()) >= assets:
        raise InvalidColumns(f"asset number {int(asset.max())}: give numbers below {assets}")
    order, start = counting_order(asset, assets, engine=engine)
    return Book(columns.take(order), start, order)


def counting_order(keys: Ids, limit: int, *, engine: Engine = DEFAULT) -> tuple[I64, I64]:
    """Sort numbers below `limit` stably, in linear time.

    Returns: (order, start): int64[n], the row at each place, and int64[limit + 1], where each number begins.
    """
    return engine.choose(_counting_order, _counting_order_numpy)(keys, limit)


@jit
def _counting_order(keys: Ids, limit: int) -> tuple[I64, I64]:
    start = np.zeros(limit + 1, np.int64)
    for row in range(keys.shape[0]):
        start[np.int64(keys[row]) + 1] += 1
    for number in range(limit):
        start[number + 1] += start[number]
    free = start.copy()
    order = np.empty(keys.shape[0], np.int64)
    for row in range(keys.shape[0]):
        owner = np.int64(keys[row])
        order[free[owner]] = row
        free[owner] += 1
    return order, start


def _counting_order_numpy(keys: Ids, limit: int) -> tuple[I64, I64]:
    start = np.zeros(limit + 1, np.int64)
    np.cumsum(np.bincount(keys, minlength=limit), out=start[1:])
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False), start


def gross_of(columns: AssetColumns) -> int:
    """Sum the amounts of all rows exactly.

    Returns: a Python integer below 2^159.
    """
    high = 0 if columns.hi is None else wide.total_unsigned(columns.hi)
    return (high << 64) + wide.total_unsigned(columns.lo)


def check_rows(columns: AssetColumns, participants: int, *, engine: Engine = DEFAULT) -> None:
    """Check every row: both ids below `participants`, debtor not creditor, amount above zero.

    The netting methods check for themselves in the pass they make anyway; this is for callers that need the
    answer before they begin.

    Raises: InvalidRow: the first bad row. InvalidColumns: `participants` out of range.
    """
    check_participants(participants)
    row = find_bad_row(columns, participants, engine=engine)
    if row != NO_ROW:
        raise invalid_row(columns, row, participants)


def find_bad_row(columns: AssetColumns, participants: int, *, engine: Engine = DEFAULT) -> int:
    """Find the first row that is no obligation.

    Returns: its index, or NO_ROW.
    """
    find = engine.choose(_first_bad_row, _first_bad_row_numpy)
    hi = _NO_HIGH if columns.hi is None else columns.hi
    return int(find(columns.debtor, columns.creditor, columns.lo, hi, participants))


def invalid_row(columns: AssetColumns, row: int, participants: int) -> InvalidRow:
    """Make the exception for a row that a kernel found bad."""
    debtor, creditor = int(columns.debtor[row]), int(columns.creditor[row])
    if debtor >= participants:
        return InvalidRow(row, RowFault.DEBTOR_UNKNOWN)
    if creditor >= participants:
        return InvalidRow(row, RowFault.CREDITOR_UNKNOWN)
    return InvalidRow(row, RowFault.SAME_PARTY if debtor == creditor else RowFault.AMOUNT_ZERO)


@jit
def _first_bad_row(
    debtor: NDArray[Any], creditor: NDArray[Any], lo: U64, hi: U64, participants: int
) -> int:
    wide_amounts = hi.shape[0] > 0
    for row in range(debtor.shape[0]):
        payer, payee = np.int64(debtor[row]), np.int64(creditor[row])
        zero = lo[row] == 0 and (not wide_amounts or hi[row] == 0)
        if payer >= participants or payee >= participants or payer == payee or zero:
            return row
    return -1


def _first_bad_row_numpy(
    debtor: NDArray[Any], creditor: NDArray[Any], lo: U64, hi: U64, participants: int
) -> int:
    bad = (debtor >= participants) | (creditor >= participants) | (debtor == creditor)
    bad |= (lo == 0) if hi.shape[0] == 0 else (lo == 0) & (hi == 0)
    return int(bad.argmax()) if bad.any() else NO_ROW
