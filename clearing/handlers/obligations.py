"""Submissions and the instructions that move obligations: affirm, reject, rescind; expiry by block time.

Lives here: how the obligation rules change a draft, and what that does to positions. May not live here: signatures
and roles (ledger.py has checked them), cycles (cycles.py).
"""

from __future__ import annotations

import bisect
from collections.abc import Callable

import numpy as np

from clearing.errors import InvariantViolation, RejectCode
from clearing.handlers.answers import Outcome, recorded, refused
from clearing.handlers.mined import draw_for, give_back
from clearing.params import (
    EXPIRED_PER_BLOCK_MAX,
    OPEN_ITEMS_MAX,
    SUBMITTER_OPEN_SUBMISSIONS_MAX,
)
from clearing.records.instruction import Instruction, InstructionKind, ItemSelection
from clearing.records.leaves import ExpiredLeaf, body_hash
from clearing.records.submission import Submission
from clearing.rows import Table, key_party
from clearing.rules.obligations import (
    BAD_ITEMS_SHOWN,
    ItemStates,
    Mask,
    Numbers,
    bad_items,
    lowest_code,
    select_items,
    validate_items,
)
from clearing.state import Draft, OpenSubmission
from clearing.types import ObligationState

_PROPOSED, _AFFIRMED = ObligationState.PROPOSED, ObligationState.AFFIRMED

# A locked item returns to AFFIRMED when its cycle fails, and by nobody's affirmation: origins are named one by one.
_MOVES: dict[InstructionKind, tuple[tuple[ObligationState, ...], ObligationState]] = {
    InstructionKind.AFFIRM: ((_PROPOSED,), _AFFIRMED),
    InstructionKind.REJECT: ((_PROPOSED,), ObligationState.REJECTED),
    InstructionKind.RESCIND: ((_PROPOSED, _AFFIRMED), ObligationState.RESCINDED),
}


def submit(draft: Draft, submission: Submission) -> Outcome:
    """Take a submission into the open book, whole, or refuse it whole with a code for each bad item."""
    items = submission.items()
    codes = validate_items(
        items,
        submission.submitter,
        may_owe=draft.may_owe(),
        licensed=draft.licensed(),
        assets=len(draft.registry.assets),
        time_ms=draft.time_ms,
        mining=draft.mining(),
    )
    # Every item must be good: a submission is accepted whole or not at all.
    shown, count = bad_items(codes)
    if count:
        return refused(lowest_code(codes), shown, count)
    # The book has a limit, so that sums over it stay within 192 bits.
    if draft.open_items + submission.count > OPEN_ITEMS_MAX:
        return refused(RejectCode.BOOK_FULL)
    # So has each submitter's part of it, so that nobody takes the room of all others.
    held = draft.open_items_of(submission.submitter)
    if held + submission.count > draft.registry.parameters.submitter_open_items:
        return refused(RejectCode.SUBMITTER_BOOK_FULL)
    if draft.open_submissions_of(submission.submitter) >= SUBMITTER_OPEN_SUBMISSIONS_MAX:
        return refused(RejectCode.SUBMITTER_BOOK_FULL)
    index = draft.record(submission.leaf, submission.body)
    states = ItemStates.proposed(submission.submitter, submission.count)
    draft.add_submission(OpenSubmission.of_body(index, submission.body, states))
    return recorded(index)


def move_items(draft: Draft, instruction: Instruction, selection: ItemSelection) -> Outcome:
    """Affirm, reject or rescind items of one submission."""
    states = _states(draft, selection.submission)
    # The submission must exist.
    if states is None:
        return refused(RejectCode.UNKNOWN_SUBMISSION)
    origins, target = _MOVES[instruction.kind]
    may_move = _movable_by(draft, instruction, selection.submission, states)
    selected = select_items(selection, states, may_move, origins)
    # Every named item must be the actor's to move, and in a state from which it may.
    if selected.code is not RejectCode.OK:
        return refused(selected.code, selected.bad, selected.bad_items)
    items = selected.items
    submission = draft.open_submission(selection.submission)
    if submission is None:
        raise InvariantViolation("items of a submission that is closed may move")
    if target is _AFFIRMED:
        code, short = draw_for(draft, submission, items)
        if code is not RejectCode.OK:
            shown = tuple((item, code) for item in short[:BAD_ITEMS_SHOWN])
            return refused(code, shown, len(short))
        draft.count_open(submission.chunk.select(items), sign=1)
    else:
        counted = items[submission.states.states[items] == _AFFIRMED]
        code = give_back(draft, submission, counted)
        if code is not RejectCode.OK:
            return refused(code)
        draft.count_open(submission.chunk.select(counted), sign=-1)
    draft.set_states(submission, submission.states.moved(items, target))
    return recorded(draft.record(instruction.leaf, instruction.body))


def _states(draft: Draft, index: int) -> ItemStates | None:
    """Return where the items of a submission stand, or None; what is past its due time as lapsed, if only a later block says so."""
    states, submission = draft.item_states(index), draft.open_submission(index)
    expiry_ms = draft.state.expiry_of.get(index, 0)
    if states is None or submission is None or not 0 < expiry_ms <= draft.time_ms:
        return states
    return states.moved(submission.chunk.due_items(states, draft.time_ms), ObligationState.EXPIRED)


def _movable_by(
    draft: Draft, instruction: Instruction, index: int, states: ItemStates
) -> Callable[[Numbers], Mask]:
    """Return which of some items are the actor's to move: the submitter rescinds, the other side affirms or rejects.

    Anybody may ask that, as often as it likes, of anything that ever was. So of what is closed the body is not read,
    which may be long or erased: the items are taken for those of every party that the submission names.
    """
    is_submitter = instruction.actor == states.submitter
    if is_submitter or instruction.kind is InstructionKind.RESCIND:
        is_own = is_submitter and instruction.kind is InstructionKind.RESCIND
        return lambda items: np.full(len(items), is_own)
    submission = draft.open_submission(index)
    if submission is None or states.is_closed:
        named = draft.get(Table.PARTIES, key_party(instruction.actor, index)) is not None
        return lambda items: np.full(len(items), named)
    chunk = submission.chunk
    return lambda items: chunk.other_party(states.submitter, items) == instruction.actor


def expire(draft: Draft) -> None:
    """Let unaffirmed items lapse whose due time has come, ascending by due time, then log index, so many in one block."""
    expiries = draft.state.expiries
    due = bisect.bisect_right(expiries, (draft.time_ms, (1 << 64) - 1))
    for _, index in expiries[: min(due, EXPIRED_PER_BLOCK_MAX)]:
        submission = draft.state.open[index]
        items = submission.chunk.due_items(submission.states, draft.time_ms)
        states = submission.states.moved(items, ObligationState.EXPIRED)
        leaf = ExpiredLeaf(index, len(items), body_hash(states.encode()))
        draft.record(leaf.encode())
        draft.set_states(submission, states)
