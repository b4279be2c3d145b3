"""Cut-off, netting, settlement and failure of cycles.

Lives here: how a cycle runs over the open book of a draft. May not live here: the netting of one asset at its cut-off
(cutoff.py), the solutions of set-offs (solutions.py), or who may start a cycle (ledger.py).

A cycle is cut off, netted and instructed in one block, unless an asset of it is netted by set-off: then it waits, cut
off, for a proposer's solution of each. It can fail until it is funded; once every pay-in is confirmed the settlement
agent holds all that it has to pay out, and the cycle can only settle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from clearing.errors import RejectCode, invariant
from clearing.handlers.answers import Outcome, recorded, refused
from clearing.handlers.cutoff import AssetTaken, Netted, cut_off, net_asset
from clearing.handlers.leg_rows import close_leg, may_be_mined, open_leg
from clearing.log import merkle
from clearing.netting.gridlock import Unsettled
from clearing.records.instruction import Instruction
from clearing.records.leaves import CycleCutOffLeaf, CycleEndedLeaf, CycleNettedLeaf
from clearing.rows import Table, key_result, key_u32, key_u64
from clearing.rules.cycles import LIFECYCLE, Cycle
from clearing.rules.obligations import Numbers, Remainders
from clearing.rules.registry import next_cut_off_ms
from clearing.rules.results import (
    AssetResult,
    cycle_secret,
    encode_unsettled,
    result_commitments,
)
from clearing.rules.settlement import SettlementInstruction, instructions_of
from clearing.state import Draft, OpenSubmission
from clearing.types import (
    CycleState,
    InstructionState,
    ObligationState,
    ResultOutcome,
    SettlementKind,
)


def run_cycle(draft: Draft, instruction: Instruction, _: None) -> Outcome:
    """Cut off and net now, on an operator's instruction; its payload is empty, for a cycle takes every asset."""
    return net_without(draft, instruction, frozenset())


def net_without(draft: Draft, instruction: Instruction, left_out: frozenset[int]) -> Outcome:
    """Cut off and net now what does not concern the participants left out."""
    taken = cut_off(draft, left_out)
    # A cycle over nothing would only make noise in the log.
    if not taken:
        return refused(RejectCode.NOTHING_TO_NET)
    agent = draft.registry.settlement_agent(draft.time_ms)
    # Nothing can be paid where nobody may hold it.
    if agent is None:
        return refused(RejectCode.NO_SETTLEMENT_AGENT)
    index = draft.record(instruction.leaf, instruction.body)
    _begin(draft, taken, agent)
    return recorded(index)


def run_timetable(draft: Draft) -> None:
    """Cut off and net once if a cut-off of the timetable lies after the last block and not after this one."""
    cut_off_ms = next_cut_off_ms(draft.registry.cut_offs_s, draft.state.time_ms)
    if cut_off_ms is None or cut_off_ms > draft.time_ms:
        return
    taken = cut_off(draft)
    agent = draft.registry.settlement_agent(draft.time_ms)
    if taken and agent is not None:
        _begin(draft, taken, agent)


def _begin(draft: Draft, taken: tuple[AssetTaken, ...], agent: int) -> None:
    """Net what was cut off asset by asset, lock what that discharges, and go on as far as no set-off is awaited."""
    number = draft.last_cycle + 1
    draft.last_cycle = number
    netted = [net_asset(draft, part) for part in taken]
    _lock(draft, number, taken, netted)
    for part, one in zip(taken, netted, strict=True):
        set_result(draft, number, one.result)
        if one.unsettled is not None:
            record_unsettled(draft, number, part, one.unsettled)
    LIFECYCLE.require(CycleState.OPEN, CycleState.CUT_OFF)
    cycle = Cycle(
        state=CycleState.CUT_OFF,
        cut_off_ms=draft.time_ms,
        netted_ms=0,
        obligations=sum(part.columns.rows for part in taken),
        instructions=0,
        pay_ins=0,
        pay_outs=0,
        agent=agent,
        netted_index=0,
        ended_index=0,
        result_root=bytes(32),
    )
    draft.set_cycle(number, cycle)
    if any(one.result.outcome is ResultOutcome.AWAITING for one in netted):
        draft.record(CycleCutOffLeaf(number, cycle.obligations).encode())
    complete(draft, number)


def _lock(draft: Draft, number: int, taken: tuple[AssetTaken, ...], netted: list[Netted]) -> None:
    held: dict[int, list[Numbers]] = {}
    for assets, one in zip(taken, netted, strict=True):
        for part, place in assets.split():
            held.setdefault(part.submission, []).append(part.items[one.locks[place]])
    for index in sorted(held):
        draft.put(Table.CYCLE_MEMBERS, key_u32(number) + key_u64(index), b"\1")
        items = np.sort(np.concatenate(held[index]))
        submission = draft.submission(index)
        if len(items) and submission is not None:
            states = submission.states.moved(items, ObligationState.LOCKED, number)
            draft.set_states(submission, states)


def set_result(draft: Draft, number: int, result: AssetResult) -> None:
    """Write what netting one asset gave, and what it moves in the positions for as long as the cycle runs."""
    draft.put(Table.CYCLE_RESULTS, key_result(number, result.asset), result.encode())
    for row in result.rows:
        if row.movement:
            position = draft.position(row.participant, result.asset)
            moved = replace(position, locked_net=position.locked_net + row.movement)
            draft.set_position(moved)


def record_unsettled(draft: Draft, number: int, taken: AssetTaken, why: Unsettled) -> None:
    """Write why obligations were not discharged, a row for each submission; `why.row` ascending in `taken.columns`."""
    for part, place in taken.split():
        first, last = np.searchsorted(why.row, (place.start, place.stop)).tolist()
        if first == last:
            continue
        rows = why.row[first:last] - place.start
        row = encode_unsettled(
            part.items[rows],
            why.reason[first:last],
            why.participant[first:last],
            why.short[first:last],
        )
        key = key_result(number, taken.asset) + key_u64(part.submission)
        draft.put(Table.CYCLE_UNSETTLED, key, row)


def members(draft: Draft, number: int) -> Iterator[OpenSubmission]:
    """Yield the submissions of which a cycle took obligations, ascending by log index."""
    for key, _ in list(draft.scan(Table.CYCLE_MEMBERS, key_u32(number))):
        submission = draft.submission(int.from_bytes(key[4:], "big"))
        invariant(submission is not None, "a member submission is missing")
        if submission is not None:
            yield submission


def complete(draft: Draft, number: int) -> None:
    """Write the instructions of a cycle of which every asset is netted, and the leaf that says so, and move it on."""
    found = tuple(results(draft, number))
    cycle = draft.cycle(number)
    invariant(cycle is not None, f"cycle {number} is missing")
    # A set-off is still awaited.
    if cycle is None or any(result.outcome is ResultOutcome.AWAITING for result in found):
        return
    moves = [(one.asset, row.participant, row.movement) for one in found for row in one.rows]
    instructions = instructions_of(moves, draft.time_ms)
    for position_no, item in enumerate(instructions):
        draft.set_settlement(number, position_no, item)
    open_leg(draft, number, instructions)
    pay_ins = sum(item.kind is SettlementKind.PAY_IN for item in instructions)
    secret = cycle_secret(number, (submission.secret for submission in members(draft, number)))
    root = merkle.root_of(result_commitments(secret, found))
    leaf = CycleNettedLeaf(number, cycle.obligations, len(instructions), root)
    cycle = replace(
        cycle,
        state=LIFECYCLE.require(cycle.state, CycleState.NETTED),
        netted_ms=draft.time_ms,
        instructions=len(instructions),
        pay_ins=pay_ins,
        pay_outs=len(instructions) - pay_ins,
        netted_index=draft.record(leaf.encode()),
        result_root=root,
    )
    if not any(result.value for result in found):
        draft.set_cycle(number, _ended(draft, number, cycle, CycleState.DEADLOCK))
        return
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
    for result in results(draft, number):
        for row in result.rows:
            if not (row.discharged_debit or row.discharged_credit):
                continue
            position = draft.position(row.participant, result.asset)
            changed = replace(
                position,
                payable=position.payable - row.discharged_debit,
                receivable=position.receivable - row.discharged_credit,
                locked_net=position.locked_net - row.movement,
            )
            draft.set_position(changed)
    for submission in members(draft, number):
        left = take_remainders(draft, number, submission.index)
        held = submission.states.held_by(number)
        whole = held[~np.isin(held, left.items)] if len(left) else held
        states = submission.states.moved(whole, ObligationState.SETTLED, number)
        if len(left):
            states = states.partly_discharged(left.items, left.lo, left.hi)
        draft.set_states(submission, states)
    return _ended(draft, number, cycle, CycleState.SETTLED)


def fail_cycle(draft: Draft, number: int) -> None:
    """Undo a cycle that is not funded: obligations go back to the open book, confirmed pay-ins are refunded.

    An evidenced pay-in stays open: value may be under way, and if it is confirmed later it is refunded then.
    """
    cycle = draft.cycle(number)
    invariant(cycle is not None, f"cycle {number} is missing")
    if cycle is None:
        return
    close_leg(draft, number)
    for result in results(draft, number):
        for row in result.rows:
            if row.movement:
                position = draft.position(row.participant, result.asset)
                changed = replace(position, locked_net=position.locked_net - row.movement)
                draft.set_position(changed)
    for submission in members(draft, number):
        take_remainders(draft, number, submission.index)
        states = submission.states
        draft.set_states(submission, states.released(states.held_by(number)))
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
    timeout_ms = draft.registry.parameters.settlement_timeout_ms
    for number in draft.running_cycles(CycleState.NETTED):
        cycle = draft.cycle(number)
        if cycle is None or draft.time_ms < cycle.netted_ms + timeout_ms:
            continue
        if not may_be_mined(draft, number):
            fail_cycle(draft, number)


def results(draft: Draft, number: int) -> Iterator[AssetResult]:
    """Yield a cycle's results, ascending by asset."""
    for _, value in draft.scan(Table.CYCLE_RESULTS, key_u32(number)):
        yield AssetResult.decode(value)


def take_remainders(draft: Draft, number: int, submission: int) -> Remainders:
    """Return what a running cycle will leave of a submission's items, and delete the row: the cycle ends."""
    key = key_u32(number) + key_u64(submission)
    row = draft.get(Table.CYCLE_REMAINDERS, key)
    if row is None:
        return Remainders.none()
    draft.put(Table.CYCLE_REMAINDERS, key, None)
    return Remainders.decode(row)


def _ended(draft: Draft, number: int, cycle: Cycle, state: CycleState) -> Cycle:
    leaf = CycleEndedLeaf(number, state, cycle.result_root)
    index = draft.record(leaf.encode())
    return replace(cycle, state=LIFECYCLE.require(cycle.state, state), ended_index=index)
