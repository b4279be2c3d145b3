"""Results without some participants, said over all rows of the file: what was left out is unsettled, with the reason.

Lives here: putting the rows that were left out back into a result. May not live here: who is left out (recast), methods.
Invariant kept: positions are over all rows, everything else over those that were kept.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from clearing.netting import wide
from clearing.netting.columns import AssetColumns, gross_of
from clearing.netting.engine import Engine
from clearing.netting.gridlock import Settlement, Unsettled
from clearing.netting.limits import Reason
from clearing.netting.positions import net_positions
from clearing.netting.recast import Recast
from clearing.netting.result import NettingResult


def dropped_rows(columns: AssetColumns, without: Recast) -> Unsettled:
    """Say why each row was left out: the participant that was out first, the debtor where both were.

    Returns: EXCLUDED, short of nothing, for those who were to be left out; for those who fell short in a round the
    limit that binds and what is missing there.
    """
    participants = without.net.shape[0]
    never = len(without.rounds)
    out_in = np.full(participants, never, np.int64)
    reason = np.full(participants, Reason.EXCLUDED, np.uint8)
    missing = wide.zeros(participants)
    for number, entry in enumerate(without.rounds):
        out_in[entry.out] = number
        reason[entry.short] = entry.reason
        missing[entry.short] = entry.missing
    row = np.flatnonzero(~without.kept)
    debtor, creditor = (side[row].astype(np.int64) for side in (columns.debtor, columns.creditor))
    first = np.where(out_in[debtor] <= out_in[creditor], debtor, creditor)
    return Unsettled(row, reason[first], first, missing[first])


def _placed(
    column: NDArray[np.uint64] | None, kept: NDArray[np.int64], rows: int
) -> NDArray[np.uint64] | None:
    if column is None:
        return None
    placed = np.zeros(rows, np.uint64)
    placed[kept] = column
    return placed


def settled_over_all_rows(settlement: Settlement, without: Recast) -> Settlement:
    """Say what settled among the rows that were kept as a set of all rows."""
    settled = np.zeros(without.kept.shape[0], np.bool_)
    settled[without.kept] = settlement.settled
    return Settlement(settled, settlement.movements)


def over_all_rows(
    columns: AssetColumns, result: NettingResult, without: Recast, engine: Engine
) -> NettingResult:
    """Say the result of the rows that were kept as one of all rows.

    columns: all rows, of which `without` keeps those that `result` is of.
    """
    rows, kept = columns.rows, np.flatnonzero(without.kept)
    settled = np.zeros(rows, np.bool_)
    settled[kept] = result.settled
    some, dropped = result.unsettled, dropped_rows(columns, without)
    row = np.concatenate([kept[some.row], dropped.row])
    order = np.argsort(row)
    unsettled = Unsettled(
        row[order],
        np.concatenate([some.reason, dropped.reason])[order],
        np.concatenate([some.participant, dropped.participant])[order],
        np.concatenate([some.short, dropped.short])[order],
    )
    participants = result.positions.shape[0]
    return replace(
        result,
        rows=rows,
        gross=gross_of(columns),
        positions=net_positions(columns, participants, engine=engine).net,
        touched=np.ones(participants, np.bool_),
        settled=settled,
        unsettled=unsettled,
        discharged_lo=_placed(result.discharged_lo, kept, rows),
        discharged_hi=_placed(result.discharged_hi, kept, rows),
    )
