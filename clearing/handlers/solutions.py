"""Set-off in a cycle: what a proposer is asked, and whether its answer holds.

Lives here: the problem of one asset, the check of a solution, and giving up on one that does not come. May not live
here: any solver; a proposer is not trusted, and nothing it says is taken that its potentials do not prove.

The greatest discharge is not unique, so every replica takes the one that a proposer found, once it has checked in one
pass that no obligation loses more than it is, nobody pays more than it may, and the potentials prove that no other
discharge has a greater value. Which of several valid solutions is taken is the order of the block.
Source: netting/certificate.py; DESIGN section 7.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from clearing.errors import DecodeError, RejectCode, VerificationError
from clearing.handlers.answers import Outcome, recorded, refused
from clearing.handlers.cutoff import AssetTaken, engine_for, kept_rows, limits_of, locked
from clearing.handlers.cycles import complete, members, record_unsettled, results, set_result
from clearing.netting import certificate
from clearing.netting.columns import AssetColumns
from clearing.netting.gridlock import Unsettled
from clearing.netting.limits import Reason
from clearing.netting.pairs import spread_pairs
from clearing.records.instruction import Instruction
from clearing.records.solution import Solution
from clearing.rows import Table, key_result, key_u32, key_u64
from clearing.rules.obligations import U64, Remainders
from clearing.rules.results import AssetResult, result_rows, with_kept
from clearing.state import Draft, State
from clearing.types import CycleState, ResultOutcome


@dataclass(frozen=True, slots=True)
class Problem:
    """A set-off that a cycle waits for.

    columns: what may be discharged. liquidity: wide array by registry number, what each may pay on balance; None where
    nobody has pledged anything.
    """

    cycle: int
    asset: int
    columns: AssetColumns
    liquidity: U64 | None


def awaited(state: State) -> tuple[Problem, ...]:
    """Return the set-offs that cycles wait for at the newest block, ascending by cycle, then asset."""
    draft = Draft(state, state.height + 1, state.time_ms)
    return tuple(
        _problem(draft, number, _taken(draft, number, result.asset))
        for number in draft.running_cycles(CycleState.CUT_OFF)
        for result in results(draft, number)
        if result.outcome is ResultOutcome.AWAITING
    )


def _taken(draft: Draft, number: int, asset: int) -> AssetTaken:
    return locked(members(draft, number), number, asset)


def _problem(draft: Draft, number: int, taken: AssetTaken) -> Problem:
    allowed = limits_of(draft, taken.asset, taken.columns).allowed()
    liquidity = allowed if allowed.any() else None
    return Problem(number, taken.asset, taken.columns, liquidity)


def solve(draft: Draft, instruction: Instruction, solution: Solution) -> Outcome:
    """Take a proposer's solution of one set-off, or refuse it and change nothing."""
    number, asset = solution.cycle, solution.asset
    awaiting = _awaiting(draft, number, asset)
    # The cycle must wait for this set-off, and for no longer than until the first valid solution.
    if awaiting is None:
        return refused(RejectCode.NO_SOLUTION_AWAITED)
    taken = _taken(draft, number, asset)
    problem = _problem(draft, number, taken)
    try:
        potentials = solution.all_potentials(len(draft.registry.participants))
        engine = engine_for(problem.columns)
        lo, hi = spread_pairs(problem.columns, solution.pairs, engine=engine)
        gap = certificate.verify(
            problem.columns,
            lo,
            hi if problem.columns.hi is not None else None,
            potentials,
            problem.liquidity,
            engine=engine,
        )
    # Nobody may lose more than it owes, or pay more than it may.
    except (DecodeError, VerificationError):
        return refused(RejectCode.SOLUTION_INVALID)
    # The potentials must prove that no discharge is greater.
    if gap:
        return refused(RejectCode.SOLUTION_NOT_OPTIMAL)
    index = draft.record(instruction.leaf, instruction.body)
    _discharge(draft, number, taken, (lo, hi), replace(awaiting, solution_index=index))
    complete(draft, number)
    return recorded(index)


def _awaiting(draft: Draft, number: int, asset: int) -> AssetResult | None:
    """Return the result that waits for a solution, or None; of a cycle that waits for nothing no result is read."""
    cycle = draft.cycle(number)
    if cycle is None or cycle.state is not CycleState.CUT_OFF:
        return None
    row = draft.get(Table.CYCLE_RESULTS, key_result(number, asset))
    result = None if row is None else AssetResult.decode(row)
    return result if result is not None and result.outcome is ResultOutcome.AWAITING else None


def _discharge(
    draft: Draft, number: int, taken: AssetTaken, loses: tuple[U64, U64], awaiting: AssetResult
) -> None:
    """Write the result in the place of the one that waited, give back what loses nothing, and note what will be left of what loses a part."""
    columns, (lo, hi) = taken.columns, loses
    participants = len(draft.registry.participants)
    keeps, kept, short = kept_rows(taken, lo, hi)
    rows = with_kept(result_rows(columns, participants), result_rows(kept, participants))
    # The method is the one at the cut-off, whatever governs the asset by now.
    result = replace(awaiting, rows=rows, outcome=ResultOutcome.NETTED)
    set_result(draft, number, result)
    row = np.flatnonzero(keeps)
    why = Unsettled(
        row,
        np.full(len(row), Reason.CYCLE, np.uint8),
        columns.debtor[row].astype(np.int64),
        short,
    )
    record_unsettled(draft, number, taken, why)
    untouched = keeps & (lo == 0) & (hi == 0)
    left = np.zeros((columns.rows, 3), np.uint64)
    left[keeps] = short
    for part, place in taken.split():
        _release(draft, part.submission, part.items[untouched[place]])
        in_part = keeps[place] & ~untouched[place]
        if in_part.any():
            rest = left[place][in_part]
            _note(draft, number, part.submission, part.items[in_part], rest)


def _release(draft: Draft, submission_no: int, items: npt.NDArray[np.int64]) -> None:
    submission = draft.submission(submission_no)
    if len(items) and submission is not None:
        draft.set_states(submission, submission.states.released(items))


def _note(
    draft: Draft,
    number: int,
    submission_no: int,
    items: npt.NDArray[np.int64],
    rest: U64,
) -> None:
    key = key_u32(number) + key_u64(submission_no)
    row = draft.get(Table.CYCLE_REMAINDERS, key)
    known = Remainders.none() if row is None else Remainders.decode(row)
    noted = known.with_items(items, rest[:, 0], rest[:, 1])
    draft.put(Table.CYCLE_REMAINDERS, key, noted.encode())


def time_out(draft: Draft) -> None:
    """Give up every set-off that no proposer has solved in time: its obligations go back to the open book.

    Nothing else may be done to them: no rule that their parties agreed to discharges them in another way.
    """
    timeout_ms = draft.registry.parameters.solution_timeout_ms
    for number in draft.running_cycles(CycleState.CUT_OFF):
        cycle = draft.cycle(number)
        if cycle is None or draft.time_ms < cycle.cut_off_ms + timeout_ms:
            continue
        for result in list(results(draft, number)):
            if result.outcome is ResultOutcome.AWAITING:
                _give_up(draft, number, result)
        complete(draft, number)


def _give_up(draft: Draft, number: int, result: AssetResult) -> None:
    for part in _taken(draft, number, result.asset).parts:
        _release(draft, part.submission, part.items)
    set_result(draft, number, replace(result, outcome=ResultOutcome.UNSOLVED))
