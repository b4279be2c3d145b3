"""Books with many obligations between the same few parties: set off by pair, in two passes over the rows.

Lives here: from obligations to one row a pair, and from what a pair loses to its obligations. May not live here: any search.
Invariant kept: the pairs are those that merging finds, in the same order, so that the answer is the same with or without.

What a pass over a million rows costs is memory, not arithmetic, so one pass checks, sums and merges at once.
Source: own design.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.netting.columns import AssetColumns
from clearing.netting.engine import Engine, jit, room

I64: TypeAlias = NDArray[np.int64]
U64: TypeAlias = NDArray[np.uint64]

_ROWS_A_CELL: Final = 4


def totals(columns: AssetColumns, participants: int, gross_max: int, engine: Engine) -> I64 | None:
    """Sum what each participant owes each other.

    Returns: int64[participants, participants]; None where the table would not be small beside the rows, the engine is not
    compiled, a row is no obligation, or the amounts sum to `gross_max`, at most 2^62, or more.
    """
    few = 0 < _ROWS_A_CELL * participants <= columns.rows // max(1, participants)
    if engine is not Engine.COMPILED or columns.hi is not None or not few:
        return None
    table = np.zeros((participants, participants), np.int64)
    amount = columns.lo.view(np.int64)
    fits = _totals(columns.debtor, columns.creditor, amount, table, gross_max)
    return table if fits else None


@jit
def _totals(
    debtor: NDArray[Any], creditor: NDArray[Any], amount: I64, table: I64, gross_max: int
) -> bool:
    participants = table.shape[0]
    high = low = np.int64(0)
    for row in range(amount.shape[0]):
        payer, payee = np.int64(debtor[row]), np.int64(creditor[row])
        full = amount[row]
        if (payer >= participants) | (payee >= participants) | (payer == payee) | (full <= 0):
            return False
        table[payer, payee] += full
        high += full >> 32
        low += full & 0xFFFFFFFF
    high += low >> 32
    return bool(high < gross_max >> 32)


def pairs_of(table: I64) -> AssetColumns:
    """Return one obligation for each pair that owes something, by debtor and then creditor."""
    debtor, creditor = np.nonzero(table)
    amount = table[debtor, creditor].view(np.uint64)
    return AssetColumns(debtor.astype(np.uint32), creditor.astype(np.uint32), amount)


def hand_out(columns: AssetColumns, pairs: AssetColumns, loses: U64, table: I64) -> U64:
    """Give what each pair loses to its obligations, earlier rows first.

    loses: uint64[pairs]. table: int64[participants, participants], used up.

    Returns: uint64[rows].
    """
    table[:] = 0
    table[pairs.debtor, pairs.creditor] = loses.view(np.int64)
    given: I64 = room(columns.rows, np.int64)
    _hand_out(columns.debtor, columns.creditor, columns.lo.view(np.int64), table, given)
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
