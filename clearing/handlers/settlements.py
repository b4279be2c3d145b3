"""Evidence, confirmation and failure of settlement instructions; pledged liquidity.

Lives here: how those instructions change a draft. May not live here: the lifecycle tables (rules/settlement.py) or
how a cycle moves on (cycles.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from clearing.errors import RejectCode, invariant
from clearing.handlers.answers import Outcome, recorded, refused
from clearing.handlers.cycles import advance_cycle, fail_cycle, with_refund
from clearing.handlers.leg_rows import settles
from clearing.records.instruction import Instruction, InstructionKind
from clearing.rules.cycles import Cycle
from clearing.rules.settlement import (
    LIFECYCLE,
    SettlementInstruction,
    may_confirm,
    may_evidence,
    may_fail,
)
from clearing.state import Draft
from clearing.types import CycleState, InstructionState, SettlementKind


@dataclass(frozen=True, slots=True)
class _Found:
    """A settlement instruction that a payload refers to, with its cycle."""

    cycle_no: int
    number: int
    cycle: Cycle
    item: SettlementInstruction


_TARGETS: dict[InstructionKind, tuple[InstructionState, Callable[..., bool]]] = {
    InstructionKind.EVIDENCE: (InstructionState.EVIDENCED, may_evidence),
    InstructionKind.CONFIRM: (InstructionState.CONFIRMED, may_confirm),
    InstructionKind.FAIL: (InstructionState.FAILED, may_fail),
}


def move_settlement(draft: Draft, instruction: Instruction, values: dict[str, Any]) -> Outcome:
    """Show evidence for, confirm, or give up one settlement instruction (values: EVIDENCE_ or REFERENCE_LAYOUT)."""
    target, is_allowed = _TARGETS[instruction.kind]
    found = _find(draft, values)
    # The settlement instruction must exist.
    if found is None:
        return refused(RejectCode.UNKNOWN_INSTRUCTION)
    item, agent = found.item, found.cycle.agent
    # Payer, payee and agent each have their part; nobody else has any.
    if not is_allowed(item, instruction.actor, agent):
        return refused(RejectCode.NOT_A_PARTY)
    # Nothing is paid out of a cycle before everything is paid in.
    if item.kind is SettlementKind.PAY_OUT and found.cycle.state is CycleState.NETTED:
        return refused(RejectCode.NOT_FUNDED)
    # The lifecycle must have the move.
    if not LIFECYCLE.allows(item.state, target):
        return refused(RejectCode.INSTRUCTION_STATE)
    # What one transaction settles, the agent does not.
    if item.kind is not SettlementKind.REFUND and settles(draft, found.cycle_no, item.asset):
        return refused(RejectCode.SETTLES_BY_TRANSACTION)
    index = draft.record(instruction.leaf, instruction.body)
    moved = replace(item, state=target, moved_ms=draft.time_ms)
    if target is InstructionState.EVIDENCED:
        moved = replace(moved, evidence_hash=values["evidence_hash"])
    draft.set_settlement(found.cycle_no, found.number, moved)
    if target is InstructionState.CONFIRMED:
        count_confirmed(draft, found.cycle_no, found.item)
    elif target is InstructionState.FAILED:
        _failed(draft, found)
    return recorded(index)


def _find(draft: Draft, values: dict[str, Any]) -> _Found | None:
    cycle_no, number = values["cycle"], values["number"]
    item = draft.settlement(cycle_no, number)
    cycle = draft.cycle(cycle_no)
    return None if item is None or cycle is None else _Found(cycle_no, number, cycle, item)


def count_confirmed(draft: Draft, cycle_no: int, item: SettlementInstruction) -> None:
    """Count a confirmed movement in the position and in its cycle, and move the cycle on."""
    cycle = draft.cycle(cycle_no)
    invariant(cycle is not None, f"cycle {cycle_no} of an instruction is missing")
    if cycle is None:
        return
    position = draft.position(item.participant, item.asset)
    if item.kind is SettlementKind.PAY_IN:
        position = replace(position, paid=position.paid + item.amount_units)
        cycle = replace(cycle, pay_ins=cycle.pay_ins - 1)
    elif item.kind is SettlementKind.PAY_OUT:
        position = replace(position, received=position.received + item.amount_units)
        cycle = replace(cycle, pay_outs=cycle.pay_outs - 1)
    else:
        position = replace(position, paid=position.paid - item.amount_units)
        cycle = replace(cycle, pay_outs=cycle.pay_outs - 1)
    draft.set_position(position)
    if cycle.state is CycleState.FAILED and item.kind is SettlementKind.PAY_IN:
        cycle = with_refund(draft, cycle_no, cycle, item)
    draft.set_cycle(cycle_no, cycle)
    if cycle.state is not CycleState.FAILED:
        advance_cycle(draft, cycle_no)


def _failed(draft: Draft, found: _Found) -> None:
    """A pay-in was given up: an unfunded cycle fails with it; in a failed one it was the last word on it."""
    if found.cycle.state is CycleState.FAILED:
        draft.set_cycle(found.cycle_no, replace(found.cycle, pay_ins=found.cycle.pay_ins - 1))
    else:
        fail_cycle(draft, found.cycle_no)


def set_liquidity(draft: Draft, instruction: Instruction, values: dict[str, Any]) -> Outcome:
    """Record what a participant has pledged with the settlement agent, on the agent's word (LIQUIDITY_LAYOUT)."""
    # Only the agent knows what it holds.
    if instruction.actor != draft.registry.settlement_agent(draft.time_ms):
        return refused(RejectCode.NOT_A_PARTY)
    # Participant and asset must be registered.
    if draft.registry.participant(values["participant"]) is None:
        return refused(RejectCode.UNKNOWN_PARTICIPANT)
    if values["asset"] >= len(draft.registry.assets):
        return refused(RejectCode.UNKNOWN_ASSET)
    index = draft.record(instruction.leaf, instruction.body)
    position = draft.position(values["participant"], values["asset"])
    position = replace(position, liquidity=values["amount_units"])
    draft.set_position(position)
    return recorded(index)
