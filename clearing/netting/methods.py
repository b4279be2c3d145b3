"""One asset in, one result out: each method of the package run to a complete `NettingResult`.

Lives here: putting together what the methods compute. May not live here: any computation of its own.
Invariant kept: positions are over all rows whatever the method, so that results of two methods can be compared.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.netting import wide
from clearing.netting.bilateral import Pairs, bilateral
from clearing.netting.bypass import bypass
from clearing.netting.columns import AssetColumns, gross_of
from clearing.netting.engine import DEFAULT, Engine
from clearing.netting.gridlock import Settlement, Unsettled, gridlock, unsettled
from clearing.netting.limits import Limits, Reason
from clearing.netting.positions import turnover
from clearing.netting.result import Certificate, Method, NettingResult
from clearing.netting.transfers import Transfers, pairwise, through_agent

U64: TypeAlias = NDArray[np.uint64]
Mask: TypeAlias = NDArray[np.bool_]


class TransferStyle(enum.Enum):
    """Who pays whom when movements are settled."""

    NONE = "none"
    AGENT = "agent"
    PAIRWISE = "pairwise"


def by_positions(
    columns: AssetColumns,
    participants: int,
    *,
    style: TransferStyle = TransferStyle.NONE,
    engine: Engine = DEFAULT,
) -> NettingResult:
    """Net everything: all obligations settle, each participant pays or receives its position.

    Raises: InvalidRow: the first bad row. InvalidColumns: `participants` out of range.
    """
    positions, touched = _positions(columns, participants, engine)
    gross = gross_of(columns)
    return NettingResult(
        method=Method.POSITIONS,
        rows=columns.rows,
        gross=gross,
        positions=positions,
        touched=touched,
        movements=positions,
        settled=np.ones(columns.rows, np.bool_),
        unsettled=_nothing_unsettled(),
        value=gross,
        transfers=_transfers(positions, style, engine),
    )


def by_gridlock(
    columns: AssetColumns,
    limits: Limits,
    *,
    bypass_first: bool = False,
    style: TransferStyle = TransferStyle.NONE,
    engine: Engine = DEFAULT,
) -> tuple[NettingResult, Settlement | None]:
    """Settle the greatest set of payments within liquidity and caps; see `gridlock`.

    bypass_first: run FIFO with bypass before it, so that gridlock resolution works on what that leaves.

    Returns: (the result, what bypass alone had settled); the second is None without it.
    Raises: InvalidRow: the first bad row.
    """
    positions, touched = _positions(columns, limits.participants, engine)
    before = bypass(columns, limits, engine=engine) if bypass_first else None
    settlement = gridlock(columns, limits, before=before, engine=engine)
    result = NettingResult(
        method=Method.GRIDLOCK,
        rows=columns.rows,
        gross=gross_of(columns),
        positions=positions,
        touched=touched,
        movements=settlement.movements,
        settled=settlement.settled,
        unsettled=unsettled(columns, limits, settlement, engine=engine),
        value=settlement.value(columns),
        transfers=_transfers(settlement.movements, style, engine),
    )
    return result, before


def by_bilateral(
    columns: AssetColumns, participants: int, *, engine: Engine = DEFAULT
) -> NettingResult:
    """Set off what each pair owes each other; nothing is paid, so there are no movements.

    Raises: InvalidRow: the first bad row. InvalidColumns: `participants` out of range.
    """
    netted = bilateral(columns, participants, engine=engine)
    return by_discharge(
        Method.BILATERAL,
        columns,
        participants,
        netted.discharged_lo,
        netted.discharged_hi,
        pairs=netted.pairs,
        engine=engine,
    )


def by_discharge(
    method: Method,
    columns: AssetColumns,
    participants: int,
    discharged_lo: U64,
    discharged_hi: U64 | None,
    *,
    movements: U64 | None = None,
    pairs: Pairs | None = None,
    certificate: Certificate | None = None,
    style: TransferStyle = TransferStyle.NONE,
    engine: Engine = DEFAULT,
) -> NettingResult:
    """Put together the result of a method that discharges obligations in part: bilateral or setoff.

    discharged_lo, discharged_hi: uint64[rows], what each row loses, at most its amount. movements: wide, None for
    no movement.

    Returns: the result; an obligation that keeps a rest is unsettled by that rest, by the creditor that owes
    too little back (COUNTERCLAIM) or, for setoff, by its debtor (CYCLE).
    """
    positions, touched = _positions(columns, participants, engine)
    zero = np.zeros_like(columns.lo)
    amount = _wide(columns.lo, zero if columns.hi is None else columns.hi)
    rest = wide.subtract(
        amount, _wide(discharged_lo, zero if discharged_hi is None else discharged_hi)
    )
    row = np.flatnonzero(rest.any(axis=1))
    pairwise_only = method is Method.BILATERAL
    reason = Reason.COUNTERCLAIM if pairwise_only else Reason.CYCLE
    ids = columns.creditor if pairwise_only else columns.debtor
    settled = np.ones(columns.rows, np.bool_)
    settled[row] = False
    high = 0 if discharged_hi is None else wide.total_unsigned(discharged_hi)
    moves = wide.zeros(participants) if movements is None else movements
    return NettingResult(
        method=method,
        rows=columns.rows,
        gross=gross_of(columns),
        positions=positions,
        touched=touched,
        movements=moves,
        settled=settled,
        unsettled=Unsettled(
            row, np.full(row.shape[0], reason, np.uint8), ids[row].astype(np.int64), rest[row]
        ),
        value=(high << 64) + wide.total_unsigned(discharged_lo),
        discharged_lo=discharged_lo,
        discharged_hi=discharged_hi,
        pairs=pairs,
        transfers=_transfers(moves, style, engine),
        certificate=certificate,
    )


def _positions(columns: AssetColumns, participants: int, engine: Engine) -> tuple[U64, Mask]:
    debit, credit = turnover(columns, participants, engine=engine)
    return wide.subtract(credit, debit), (wide.sign(debit) | wide.sign(credit)) != 0


def _wide(lo: U64, hi: U64) -> U64:
    return np.stack([lo, hi, np.zeros_like(lo)], axis=1)


def _nothing_unsettled() -> Unsettled:
    none = np.empty(0, np.int64)
    return Unsettled(none, np.empty(0, np.uint8), none, wide.zeros(0))


def _transfers(movements: U64, style: TransferStyle, engine: Engine) -> Transfers | None:
    if style is TransferStyle.NONE:
        return None
    if style is TransferStyle.AGENT:
        return through_agent(movements)
    return pairwise(movements, engine=engine)
