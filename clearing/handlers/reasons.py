"""Why an obligation is not discharged, and the cheapest change that would discharge it: what is computed for who asks.

Lives here: the question as columns taken out of a state, and its answer. May not live here: anything that apply() calls;
nothing here changes or decides anything.

The question is answered for a cycle that would be cut off now: what the last one left, and what has come since.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from clearing.handlers.cutoff import AssetTaken, cut_off, engine_for, limits_of
from clearing.netting import wide
from clearing.netting.engine import DEFAULT
from clearing.netting.gridlock import gridlock, unsettled
from clearing.netting.limits import Limits, Reason
from clearing.netting.relief import Change, cheapest_change, sure_change
from clearing.netting.setoff import set_off
from clearing.rules.obligations import LIFECYCLE
from clearing.state import Draft, OpenSubmission, State
from clearing.types import NettingMethod, ObligationState


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an obligation stands where it stands.

    asset, method: what is owed, and how it is netted. settles: whether a cycle cut off now would discharge it wholly.
    reason, participant, short_units: else what binds, whose it is and how much is missing; None and zeros where its
    state says all. change: the cheapest change that discharges it: by gridlock the least for any one participant; by
    set-off, whose optimum is not unique, the least for the debtor with which every greatest set-off discharges it.
    None where no change of liquidity or cap helps.
    """

    state: ObligationState
    asset: int
    method: NettingMethod
    settles: bool = False
    reason: Reason | None = None
    participant: int = 0
    short_units: int = 0
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What an answer needs, taken out of a state whole, so that it can be computed while the ledger goes on.

    row: the obligation's place in `taken`; None where it is in no cut-off.
    """

    asked: Explanation
    taken: AssetTaken | None = None
    limits: Limits | None = None
    row: int | None = None


def ask(state: State, submission_no: int, item: int) -> Question | None:
    """Return the question about one obligation at the newest block, or None where there is no such obligation."""
    draft = Draft(state, state.height + 1, state.time_ms)
    submission = draft.submission(submission_no)
    if submission is None or not 0 <= item < submission.states.count:
        return None
    ((asset, _, columns),) = submission.chunk.numbered(np.array([item], np.int64))
    stands = ObligationState(int(submission.states.states[item]))
    asked = Explanation(stands, asset, draft.registry.assets[asset].method)
    if not LIFECYCLE.allows(stands, ObligationState.LOCKED):
        return Question(asked)
    parties = (int(columns.debtor[0]), int(columns.creditor[0]))
    licensed = draft.licensed()
    for party in parties:
        if not licensed[party]:
            left_out = replace(asked, reason=Reason.EXCLUDED, participant=party)
            return Question(left_out)
    (taken,) = (one for one in cut_off(draft) if one.asset == asset)
    limits = limits_of(draft, asset, taken.columns)
    return Question(asked, taken, limits, _row_of(taken, submission, item))


def _row_of(taken: AssetTaken, submission: OpenSubmission, item: int) -> int:
    for part, place in taken.split():
        if part.submission == submission.index:
            return int(place.start) + int(np.searchsorted(part.items, item))
    raise LookupError("an obligation that waits for a cycle is in its cut-off")


def answer(question: Question) -> Explanation:
    """Compute the answer; it may take as long as some hundred runs of gridlock, or ten or twenty of set-off."""
    asked, taken, limits, row = question.asked, question.taken, question.limits, question.row
    if taken is None or limits is None or row is None:
        return asked
    if asked.method is NettingMethod.POSITIONS:
        return replace(asked, settles=True)
    if asked.method is NettingMethod.GRIDLOCK:
        return _by_gridlock(asked, taken, limits, row)
    return _by_setoff(asked, taken, limits, row)


def _by_gridlock(asked: Explanation, taken: AssetTaken, limits: Limits, row: int) -> Explanation:
    columns, engine = taken.columns, engine_for(taken.columns)
    settlement = gridlock(columns, limits, engine=engine)
    if settlement.settled[row]:
        return replace(asked, settles=True)
    why = unsettled(columns, limits, settlement, engine=engine)
    at = int(np.searchsorted(why.row, row))
    return replace(
        asked,
        reason=Reason(int(why.reason[at])),
        participant=int(why.participant[at]),
        short_units=wide.to_ints(why.short[at : at + 1])[0],
        change=cheapest_change(columns, limits, row, engine=engine),
    )


def _by_setoff(asked: Explanation, taken: AssetTaken, limits: Limits, row: int) -> Explanation:
    columns, engine = taken.columns, engine_for(taken.columns)
    allowed = limits.allowed()
    liquidity = allowed if allowed.any() else None
    found = set_off(columns, limits.participants, liquidity, engine=engine)
    one = slice(row, row + 1)
    amount = wide.join_amounts(columns.lo[one], None if columns.hi is None else columns.hi[one])[0]
    hi = found.discharged_hi
    lost = wide.join_amounts(found.discharged_lo[one], None if hi is None else hi[one])[0]
    rest = amount - lost
    if not rest:
        return replace(asked, settles=True)
    return replace(
        asked,
        reason=Reason.CYCLE,
        participant=int(columns.debtor[row]),
        short_units=rest,
        change=sure_change(columns, limits, row, engine=DEFAULT),
    )
