"""Cut-off, netting, settlement and failure of cycles.

Lives here: how a cycle runs over the open book of a draft. May not live here: the netting of one asset
(clearing/netting), or who may start a cycle (ledger.py).

A cycle is cut off, netted and instructed in one block. It can fail until it is funded; once every pay-in is confirmed
the settlement agent holds all that it has to pay out, and the cycle can only settle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from clearing.errors import RejectCode, invariant
from clearing.handlers.answers import Outcome, recorded, refused
from clearing.log import merkle
from clearing.netting.columns import AssetColumns, concatenate
from clearing.records.instruction import Instruction
from clearing.records.leaves import CycleEndedLeaf, CycleNettedLeaf
from clearing.rows import Table, key_result, key_u32, key_u64
from clearing.rules.cycles import (
    LIFECYCLE,
    AssetResult,
    Cycle,
    cycle_secret,
    result_commitments,
    result_rows,
)
from clearing.rules.obligations import LIFECYCLE as OBLIGATION_LIFECYCLE
from clearing.rules.obligations import Numbers
from clearing.rules.registry import next_cut_off_ms
from clearing.rules.settlement import SettlementInstruction, instructions_of
from clearing.state import Draft, OpenSubmission
from clearing.types import (
    CycleState,
    InstructionState,
    ObligationState,
    SettlementKind,
)


@dataclass(frozen=True, slots=True)
class _CutOff:
    """What a cut-off takes: each member submission with its items, and the columns of each asset."""

    members: tuple[tuple[OpenSubmission, Numbers], ...]
    columns: dict[int, list[AssetColumns]]

    @property
    def obligations(self) -> int:
        return sum(part.rows for parts in self.columns.values() for part in parts)


def run_cycle(draft: Draft, instruction: Instruction, _: None) -> Outcome:
    """Cut off and net now, on an operator's instruction; its payload is empty, for a cycle takes every asset."""
    taken = _cut_off(draft)
    # A cycle over nothing would only make noise in the log.
    if not taken.members:
        return refused(RejectCode.NOTHING_TO_NET)
    index = draft.record(instruction.leaf, instruction.body)
    _net(draft, taken)
    return recorded(index)


def run_timetable(draft: Draft) -> None:
    """Cut off and net once if a cut-off of the timetable lies after the last block and not after this one."""
    cut_off_ms = next_cut_off_ms(draft.registry.cut_offs_s, draft.state.time_ms)
    if cut_off_ms is None or cut_off_ms > draft.time_ms:
        return
    taken = _cut_off(draft)
    if taken.members:
        _net(draft, taken)


def has_nettable(submissions: Iterator[OpenSubmission]) -> bool:
    """Return whether any open obligation could be cut off, licences aside."""
    return any(
        OBLIGATION_LIFECYCLE.mask_of(submission.states.states, ObligationState.LOCKED).any()
        for submission in submissions
    )


def _cut_off(draft: Draft) -> _CutOff:
    """Select every affirmed obligation whose parties are both in licence, in order of log index."""
    licensed = draft.licensed()
    all_licensed = bool(licensed.all())
    members: list[tuple[OpenSubmission, Numbers]] = []
    columns: dict[int, list[AssetColumns]] = {}
    for submission in draft.open_submissions():
        states = submission.states.states
        items = np.flatnonzero(OBLIGATION_LIFECYCLE.mask_of(states, ObligationState.LOCKED))
        if not all_licensed:
            items = items[submission.chunk.both(licensed, items)]
        if not len(items):
            continue
        members.append((submission, items))
        for asset, part in submission.chunk.select(items):
            columns.setdefault(asset, []).append(part)
    return _CutOff(tuple(members), columns)


def _net(draft: Draft, taken: _CutOff) -> None:
    """Lock what was cut off, net it asset by asset, write results and instructions, and the leaf that says so."""
    number = draft.last_cycle + 1
    draft.last_cycle = number
    participants = len(draft.registry.participants)
    results = []
    for asset in sorted(taken.columns):
        part = concatenate(taken.columns[asset])
        rows = result_rows(part, participants)
        results.append(AssetResult(asset, draft.registry.assets[asset].method, part.rows, rows))
    for submission, items in taken.members:
        states = submission.states.moved(items, ObligationState.LOCKED, number)
        draft.set_states(submission, states)
        draft.put(Table.CYCLE_MEMBERS, key_u32(number) + key_u64(submission.index), b"\1")
    secret = cycle_secret(number, (submission.secret for submission, _ in taken.members))
    for result in results:
        draft.put(Table.CYCLE_RESULTS, key_result(number, result.asset), result.encode())
        for row in result.rows:
            position = draft.position(row.participant, result.asset)
            moved = replace(position, locked_net=position.locked_net + row.net)
            draft.set_position(moved)
    nets = [(result.asset, row.participant, row.net) for result in results for row in result.rows]
    instructions = instructions_of(nets, draft.time_ms)
    for position_no, item in enumerate(instructions):
        draft.set_settlement(number, position_no, item)
    pay_ins = sum(item.kind is SettlementKind.PAY_IN for item in instructions)
    root = merkle.root_of(result_commitments(secret, results))
    leaf = CycleNettedLeaf(number, taken.obligations, len(instructions), root)
    LIFECYCLE.require(CycleState.OPEN, CycleState.CUT_OFF)
    cycle = Cycle(
        state=LIFECYCLE.require(CycleState.CUT_OFF, CycleState.NETTED),
        netted_ms=draft.time_ms,
        obligations=taken.obligations,
        instructions=len(instructions),
        pay_ins=pay_ins,
        pay_outs=len(instructions) - pay_ins,
        netted_index=draft.record(leaf.encode()),
        ended_index=0,
        result_root=root,
    )
    draft.set_cycle(number, cycle)
    advance_cycle(draft, number)


def advance_cycle(draft: Draft, number: int) -> None:
    """Move a cycle on as far as its confirmed instructions carry it: funded, then settled."""
    cycle = draft.cycle(number)
    invariant(cycle is not None, f"cycle {number} is missing")
    if cycle is None:
        return
    if cycle.state is CycleState.NETTED and not cycle.pay_ins:
        cycle = replace(cycle, state=LIFECYCLE.require(cycle.state, CycleState.FUNDED))
    if cycle.state is CycleState.FUNDED and not cycle.pay_outs:
        cycle = _settle(draft, number, cycle)
    draft.set_cycle(number, cycle)


def _settle(draft: Draft, number: int, cycle: Cycle) -> Cycle:
    """Discharge the cycle's obligations for good and take them out of the positions."""
    for result in _results(draft, number):
        for row in result.rows:
            position = draft.position(row.participant, result.asset)
            changed = replace(
                position,
                payable=position.payable - row.debit,
                receivable=position.receivable - row.credit,
                locked_net=position.locked_net - row.net,
            )
            draft.set_position(changed)
    _release(draft, number, ObligationState.SETTLED)
    return _ended(draft, number, cycle, CycleState.SETTLED)


def fail_cycle(draft: Draft, number: int) -> None:
    """Undo a cycle that is not funded: obligations go back to the open book, confirmed pay-ins are refunded.

    An evidenced pay-in stays open: value may be under way, and if it is confirmed later it is refunded then.
    """
    cycle = draft.cycle(number)
    invariant(cycle is not None, f"cycle {number} is missing")
    if cycle is None:
        return
    for result in _results(draft, number):
        for row in result.rows:
            position = draft.position(row.participant, result.asset)
            changed = replace(position, locked_net=position.locked_net - row.net)
            draft.set_position(changed)
    _release(draft, number, ObligationState.AFFIRMED)
    cycle = _ended(draft, number, replace(cycle, pay_ins=0, pay_outs=0), CycleState.FAILED)
    for key, value in list(draft.scan(Table.SETTLEMENTS, key_u32(number))):
        item = SettlementInstruction.decode(value)
        item_no = int.from_bytes(key[4:], "big")
        if item.state is InstructionState.PENDING:
            superseded = replace(item, state=InstructionState.SUPERSEDED, moved_ms=draft.time_ms)
            draft.set_settlement(number, item_no, superseded)
        elif item.state is InstructionState.EVIDENCED:
            cycle = replace(cycle, pay_ins=cycle.pay_ins + 1)
        elif item.state is InstructionState.CONFIRMED:
            cycle = with_refund(draft, number, cycle, item)
    draft.set_cycle(number, cycle)


def with_refund(draft: Draft, number: int, cycle: Cycle, paid: SettlementInstruction) -> Cycle:
    """Write the refund of a confirmed pay-in of a failed cycle, and return the cycle that counts it."""
    refund = replace(
        paid,
        kind=SettlementKind.REFUND,
        state=InstructionState.PENDING,
        evidence_hash=bytes(32),
        moved_ms=draft.time_ms,
    )
    draft.set_settlement(number, cycle.instructions, refund)
    return replace(cycle, instructions=cycle.instructions + 1, pay_outs=cycle.pay_outs + 1)


def time_out(draft: Draft) -> None:
    """Fail every cycle that is netted but not funded within the settlement time-out."""
    for number in draft.running_cycles():
        cycle = draft.cycle(number)
        if cycle is None or cycle.state is not CycleState.NETTED:
            continue
        if draft.time_ms >= cycle.netted_ms + draft.registry.parameters.settlement_timeout_ms:
            fail_cycle(draft, number)


def _results(draft: Draft, number: int) -> Iterator[AssetResult]:
    """Yield a cycle's results, ascending by asset."""
    for _, value in draft.scan(Table.CYCLE_RESULTS, key_u32(number)):
        yield AssetResult.decode(value)


def _release(draft: Draft, number: int, target: ObligationState) -> None:
    """Move every obligation that the cycle locked to `target`; a settled one keeps the cycle's number."""
    keep = number if target is ObligationState.SETTLED else 0
    for key, _ in list(draft.scan(Table.CYCLE_MEMBERS, key_u32(number))):
        submission = draft.submission(int.from_bytes(key[4:], "big"))
        invariant(submission is not None, "a member submission is missing")
        if submission is None:
            continue
        states = submission.states
        locked = (states.cycles == number) & (states.states == ObligationState.LOCKED)
        draft.set_states(submission, states.moved(np.flatnonzero(locked), target, keep))


def _ended(draft: Draft, number: int, cycle: Cycle, state: CycleState) -> Cycle:
    leaf = CycleEndedLeaf(number, state, cycle.result_root)
    index = draft.record(leaf.encode())
    return replace(cycle, state=LIFECYCLE.require(cycle.state, state), ended_index=index)
