"""What a cut-off takes out of the open book, and what of it each asset's method discharges at once.

Lives here: the selection of obligations, their columns by asset with the way back to submissions, the limits that stand
against a participant's debit, and netting an asset by positions or gridlock. May not live here: a cycle's life
(cycles.py), set-off, which waits for a proposer (solutions.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from clearing.netting import wide
from clearing.netting.columns import AssetColumns, concatenate
from clearing.netting.engine import DEFAULT, Engine
from clearing.netting.gridlock import Unsettled, gridlock, unsettled
from clearing.netting.limits import Limits
from clearing.rules.obligations import LIFECYCLE, U64, Mask, Numbers
from clearing.rules.results import KERNEL_ROWS_MIN, AssetResult, result_rows, with_kept
from clearing.state import Draft, OpenSubmission
from clearing.types import NettingMethod, ObligationState, ResultOutcome


@dataclass(frozen=True, slots=True)
class Part:
    """The obligations of one submission in one asset: their item numbers, and their columns in that order."""

    submission: int
    items: Numbers
    columns: AssetColumns


@dataclass(frozen=True, slots=True)
class AssetTaken:
    """What a cut-off takes of one asset, in order of log index and item.

    columns: the parts' rows, one after the other.
    """

    asset: int
    parts: tuple[Part, ...]
    columns: AssetColumns

    @classmethod
    def of(cls, asset: int, parts: list[Part]) -> AssetTaken:
        """Join the parts of one asset."""
        return cls(asset, tuple(parts), concatenate([part.columns for part in parts]))

    def split(self) -> Iterator[tuple[Part, slice]]:
        """Yield each part with the place of its rows in `columns`."""
        start = 0
        for part in self.parts:
            yield part, slice(start, start + len(part.items))
            start += len(part.items)


def cut_off(draft: Draft, left_out: frozenset[int] = frozenset()) -> tuple[AssetTaken, ...]:
    """Select every obligation that waits for a cycle and whose parties are both in licence, ascending by asset.

    left_out: participants whose obligations are left out too.
    """
    licensed = draft.licensed()
    if left_out:
        licensed = licensed.copy()
        licensed[sorted(left_out)] = False
    all_licensed = bool(licensed.all())
    by_asset: dict[int, list[Part]] = {}
    for submission in draft.waiting_submissions():
        items = np.flatnonzero(LIFECYCLE.mask_of(submission.states.states, ObligationState.LOCKED))
        if not all_licensed:
            items = items[submission.chunk.both(licensed, items)]
        if len(items):
            _add_parts(by_asset, submission, items)
    return tuple(AssetTaken.of(asset, by_asset[asset]) for asset in sorted(by_asset))


def locked(members: Iterator[OpenSubmission], number: int, asset: int) -> AssetTaken:
    """Return what a cycle that is running holds of one asset; `members` ascending by log index."""
    by_asset: dict[int, list[Part]] = {asset: []}
    for submission in members:
        _add_parts(by_asset, submission, submission.states.held_by(number))
    return AssetTaken.of(asset, by_asset[asset])


def _add_parts(by_asset: dict[int, list[Part]], submission: OpenSubmission, items: Numbers) -> None:
    for asset, numbers, columns in submission.chunk.numbered(items):
        by_asset.setdefault(asset, []).append(Part(submission.index, numbers, columns))


def limits_of(draft: Draft, asset: int, columns: AssetColumns) -> Limits:
    """Return the most that each debtor in `columns` may owe net in one more cycle.

    Pledged liquidity and net debit cap each hold over all unsettled cycles together: what those take is not there
    again, while what they are to bring is no money yet.
    """
    liquidity: dict[int, int] = {}
    caps: dict[int, int] = {}
    for participant in np.unique(columns.debtor).tolist():
        position = draft.position(participant, asset)
        committed = max(0, -position.locked_net)
        liquidity[participant] = max(0, position.liquidity - committed)
        if position.cap is not None:
            caps[participant] = max(0, position.cap - committed)
    return Limits.of(len(draft.registry.participants), liquidity, caps)


def engine_for(columns: AssetColumns) -> Engine:
    """Return what runs the kernels: compiled ones where there are rows enough to pay for it; the bits are the same."""
    return DEFAULT if columns.rows >= KERNEL_ROWS_MIN else Engine.PORTABLE


@dataclass(frozen=True, slots=True)
class Netted:
    """What netting an asset at its cut-off came to.

    locks: bool[rows] of the asset's columns: what the cycle holds from here on. unsettled: why the others stay.
    """

    result: AssetResult
    locks: Mask
    unsettled: Unsettled | None = None


def net_asset(draft: Draft, taken: AssetTaken) -> Netted:
    """Net one asset by the method that governs it; a set-off is held whole until a proposer has solved it."""
    columns = taken.columns
    participants = len(draft.registry.participants)
    method = draft.registry.assets[taken.asset].method
    rows = result_rows(columns, participants)
    everything = np.ones(columns.rows, np.bool_)
    if method is NettingMethod.POSITIONS:
        return Netted(AssetResult(taken.asset, method, columns.rows, rows), everything)
    if method is NettingMethod.SETOFF:
        held = with_kept(rows, rows)
        awaited = AssetResult(taken.asset, method, columns.rows, held, ResultOutcome.AWAITING)
        return Netted(awaited, everything)
    engine = engine_for(columns)
    limits = limits_of(draft, taken.asset, columns)
    settlement = gridlock(columns, limits, engine=engine)
    why = unsettled(columns, limits, settlement, engine=engine)
    kept = result_rows(columns.take(~settlement.settled), participants)
    result = AssetResult(taken.asset, method, columns.rows, with_kept(rows, kept))
    return Netted(result, settlement.settled, why)


def kept_rows(taken: AssetTaken, lo: U64, hi: U64) -> tuple[Mask, AssetColumns, U64]:
    """Return what is left after each row was discharged by lo + hi * 2^64.

    Returns: bool[rows], which keep something; those rows with what they keep as amounts; the same as a wide array.
    """
    columns = taken.columns
    own_hi = np.zeros_like(columns.lo) if columns.hi is None else columns.hi
    zero = np.zeros_like(columns.lo)
    own = np.stack([columns.lo, own_hi, zero], axis=1)
    left = wide.subtract(own, np.stack([lo, hi, zero], axis=1))
    keeps = np.asarray(left.any(axis=1))
    kept = left[keeps]
    rows = columns.take(keeps)
    rest = AssetColumns(
        rows.debtor,
        rows.creditor,
        np.ascontiguousarray(kept[:, 0]),
        None if columns.hi is None else np.ascontiguousarray(kept[:, 1]),
    )
    return keeps, rest, kept
