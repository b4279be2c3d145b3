"""Recast: net again without some participants, and see who falls short because of it, round by round.

Lives here: the rounds. May not live here: who has defaulted, and who bears a loss.
Invariants kept: a participant that is out is out with all its obligations, owed and owing; each round keeps a
part of what the round before kept, so there are at most as many rounds as participants; each round's positions
add up to zero.

A round nets what is left and finds the participants whose net debit passes their limits now; the next round is
without them too. The last round has none. Without limits there is one round.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.netting import wide
from clearing.netting.columns import AssetColumns, InvalidColumns, counting_order
from clearing.netting.engine import DEFAULT, Engine
from clearing.netting.limits import Limits
from clearing.netting.positions import net_positions

U64: TypeAlias = NDArray[np.uint64]
U8: TypeAlias = NDArray[np.uint8]
I64: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """One netting: who has dropped out before it, and who falls short in it.

    out: int64[j], the participants that this round is the first to be without. short: int64[k], by number, with
    reason uint8[k] and missing, a wide array: by how much the lesser limit would have to grow.
    """

    out: I64
    short: I64
    reason: U8
    missing: U64


@dataclass(frozen=True, slots=True, eq=False)
class Recast:
    """What is left after the last round: kept is bool[rows], net the wide positions by participant."""

    rounds: tuple[Round, ...]
    kept: Mask
    net: U64


def recast(
    columns: AssetColumns,
    participants: int,
    excluded: Iterable[int],
    limits: Limits | None = None,
    *,
    engine: Engine = DEFAULT,
) -> Recast:
    """Net without `excluded`, then without those who fall short, until nobody does.

    Returns: the rounds, the rows that are kept and their net positions.
    Raises: InvalidRow: the first bad row. InvalidColumns: an excluded number, or limits, of no participant.
    """
    if limits is not None and limits.participants != participants:
        raise InvalidColumns(f"limits of {limits.participants} participants: give {participants}")
    net = net_positions(columns, participants, engine=engine).net
    by_debtor, owes_from = counting_order(columns.debtor, participants, engine=engine)
    by_creditor, owed_from = counting_order(columns.creditor, participants, engine=engine)
    kept = np.ones(columns.rows, np.bool_)
    out = np.unique(np.array(list(excluded), np.int64))
    if out.shape[0] and not 0 <= out[0] <= out[-1] < participants:
        raise InvalidColumns(f"excluded {out[0]} to {out[-1]}: give numbers below {participants}")
    rounds: list[Round] = []
    while True:
        touched = [by_debtor[owes_from[number] : owes_from[number + 1]] for number in out]
        touched += [by_creditor[owed_from[number] : owed_from[number + 1]] for number in out]
        rows = np.unique(np.concatenate([np.empty(0, np.int64), *touched]))
        rows = rows[kept[rows]]
        kept[rows] = False
        gone = net_positions(columns.take(rows), participants, engine=engine)
        net = wide.subtract(net, gone.net)
        nobody = np.empty(0, np.int64), np.empty(0, np.uint8), wide.zeros(0)
        short, reason, missing = nobody if limits is None else limits.breached(net)
        rounds.append(Round(out, short, reason, missing))
        if short.shape[0] == 0:
            return Recast(tuple(rounds), kept, net)
        out = short
