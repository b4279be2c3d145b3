"""Reports of anchors: what a node says became of its Bitcoin transactions.

Lives here: how a report changes a draft. May not live here: whether it holds (rules/anchors.py).
"""

from __future__ import annotations

from clearing.errors import RejectCode
from clearing.handlers.answers import Outcome, recorded, refused
from clearing.records.instruction import Instruction
from clearing.rows import Table, key_u32
from clearing.rules.anchors import Anchor, AnchorReport, judge_first, judge_next
from clearing.state import Draft


def report(draft: Draft, instruction: Instruction, said: AnchorReport) -> Outcome:
    """Begin an anchor of the reporting node, or move one on. The report's body is everybody's: it is public evidence."""
    key = key_u32(instruction.actor, said.number)
    row = draft.get(Table.ANCHORS, key)
    anchor = Anchor.decode(row) if row is not None else None
    if anchor is None:
        # Leaves that this block has written are in no checkpoint yet.
        code = judge_first(said, _before(draft, instruction.actor, said), draft.state.log_size)
    else:
        code = judge_next(said, anchor)
    if code is not RejectCode.OK:
        return refused(code)
    index = draft.record(instruction.leaf, instruction.body, public=True)
    if anchor is None:
        anchor = Anchor.begun(said, index, draft.time_ms)
    else:
        anchor = anchor.moved(said, index, draft.time_ms)
    draft.put(Table.ANCHORS, key, anchor.encode())
    return recorded(index)


def _before(draft: Draft, actor: int, said: AnchorReport) -> Anchor | None:
    if said.number < 1:
        return None
    row = draft.get(Table.ANCHORS, key_u32(actor, said.number - 1))
    return None if row is None else Anchor.decode(row)
