"""Books with many obligations between the same few parties: set off by pair, in two passes over the rows.

Lives here: from obligations to one row a pair, and from what a pair loses to its obligations. May not live here: any search.
Invariant kept: the pairs are those that merging finds, in the same order, so that the answer is the same with or without.

One pass checks, sums and merges at once. The rows may be cut into runs, each with a table of its own: what a pair loses
goes to the run that comes first, as far as that run owes it, and so on.
Source: own design.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.netting.columns import AssetColumns, runs_of
from clearing.netting.engine import Engine, Runner, jit, room

I64: TypeAlias = NDArray[np.int64]
U32: TypeAlias = NDArray[np.uint32]
U64: TypeAlias = NDArray[np.uint64]

_ROWS_A_CELL: Final = 4


def totals(
    columns: AssetColumns,
    participants: int,
    gross_max: int,
    engine: Engine,
    runner: Runner,
    pieces: int,
) -> I64 | None:
    """Sum what each participant owes each other, in as many runs of rows.

    Returns: int64[runs, participants, participants]; None where a table would not be small beside the rows, the engine is
    not compiled, a row is no obligation, or the amounts sum to nearly `gross_max`, at most 2^62, or more.
    """
    few = 0 < _ROWS_A_CELL * participants <= columns.rows // max(1, participants)
    if engine is not Engine.COMPILED or columns.hi is not None or not few:
        return None
    runs = runs_of(columns.rows, pieces)
    tables = np.zeros((len(runs), participants, participants), np.int64)

    def sum_run(place: int) -> int:
        rows = columns.between(*runs[place])
        return _totals(rows.debtor, rows.creditor, rows.lo.view(np.int64), tables[place])

    gross = [int(units) for units in runner(sum_run, range(len(runs)))]
    # Each total is rounded down.
    fits = min(gross) >= 0 and sum(gross) + len(runs) <= gross_max >> 32
    return tables if fits else None


@jit
def _totals(debtor: NDArray[Any], creditor: NDArray[Any], amount: I64, table: I64) -> int:
    """Add every row to the table; return the sum of the amounts in units of 2^32, or -1 where a row is no obligation."""
    participants = table.shape[0]
    high = low = np.int64(0)
    for row in range(amount.shape[0]):
        payer, payee = np.int64(debtor[row]), np.int64(creditor[row])
        full = amount[row]
        if (payer >= participants) | (payee >= participants) | (payer == payee) | (full <= 0):
            return -1
        table[payer, payee] += full
        high += full >> 32
        low += full & 0xFFFFFFFF
    return int(high + (low >> 32))


def pairs_of(tables: I64) -> AssetColumns:
    """Return one obligation for each pair that owes something, by debtor and then creditor."""
    cells = tables[0].size
    debtor, creditor = (np.empty(cells, np.uint32) for _ in range(2))
    amount = np.empty(cells, np.uint64)
    count = int(_pairs(tables, debtor, creditor, amount))
    return AssetColumns(debtor[:count], creditor[:count], amount[:count])


@jit
def _pairs(tables: I64, debtor: U32, creditor: U32, amount: U64) -> int:
    count = 0
    for payer in range(tables.shape[1]):
        for payee in range(tables.shape[2]):
            total = tables[0, payer, payee]
            for run in range(1, tables.shape[0]):
                total += tables[run, payer, payee]
            if total != 0:
                debtor[count], creditor[count], amount[count] = payer, payee, total
                count += 1
    return count


def hand_out(
    columns: AssetColumns, pairs: AssetColumns, loses: U64, tables: I64, runner: Runner
) -> U64:
    """Give what each pair loses to its obligations, earlier rows first.

    columns: those of `totals`. loses: uint64[pairs]. tables: int64[runs, participants, participants], used up.

    Returns: uint64[rows].
    """
    left = np.zeros_like(tables[0])
    left[pairs.debtor, pairs.creditor] = loses.view(np.int64)
    for table in tables:
        np.minimum(table, left, out=table)
        left -= table
    runs = runs_of(columns.rows, len(tables))
    given: I64 = room(columns.rows, np.int64)

    def give_run(place: int) -> None:
        rows, part = columns.between(*runs[place]), given[slice(*runs[place])]
        _hand_out(rows.debtor, rows.creditor, rows.lo.view(np.int64), tables[place], part)

    list(runner(give_run, range(len(runs))))
    return given.view(np.uint64)


@jit
def _hand_out(
    debtor: NDArray[Any], creditor: NDArray[Any], amount: I64, left: I64, given: I64
) -> None:
    for row in range(amount.shape[0]):
        payer, payee = np.int64(debtor[row]), np.int64(creditor[row])
        part = min(amount[row], left[payer, payee])
        left[payer, payee] -= part
        given[row] = part
