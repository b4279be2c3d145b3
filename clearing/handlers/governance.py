"""Proposals, approvals and enactment.

Lives here: how governance instructions change a draft. May not live here: what an action means (rules/registry.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clearing.errors import RejectCode, invariant
from clearing.handlers.answers import Outcome, recorded, refused
from clearing.handlers.validators import key_refusal
from clearing.records.instruction import Instruction
from clearing.records.obligation import SALT_BYTES
from clearing.rules.governance import Proposal, decode_actions, resolve
from clearing.rules.registry import Action, Cap, Registry
from clearing.state import Draft


def propose(draft: Draft, instruction: Instruction, actions: tuple[Action, ...]) -> Outcome:
    """Put actions before the governors; proposing counts as the proposer's approval."""
    # What could not be enacted now is refused now, while the proposer is looking.
    registry, caps, code = _resolve(draft, actions)
    if code is not RejectCode.OK:
        return refused(code)
    index = draft.record(instruction.leaf, instruction.body, public=True)
    proposal = Proposal(draft.time_ms, enacted=False, approvals=(instruction.actor,))
    if proposal.is_carried(draft.registry, draft.time_ms):
        proposal = _enact(draft, proposal, registry, caps)
    draft.set_proposal(index, proposal)
    return recorded(index)


def approve(draft: Draft, instruction: Instruction, values: dict[str, Any]) -> Outcome:
    """Approve a proposal (values: APPROVAL_LAYOUT); the approval that reaches the quorum enacts it."""
    index = values["proposal"]
    proposal = draft.proposal(index)
    # The proposal must exist.
    if proposal is None:
        return refused(RejectCode.UNKNOWN_PROPOSAL)
    # It must be open, and the actor must not have approved it before.
    code = proposal.refusal(instruction.actor, draft.registry, draft.time_ms)
    if code is not RejectCode.OK:
        return refused(code)
    approved = replace(proposal, approvals=(*proposal.approvals, instruction.actor))
    if approved.is_carried(draft.registry, draft.time_ms):
        # The register may have moved on since the proposal was made.
        registry, caps, code = _resolve(draft, _actions_of(draft, index))
        if code is not RejectCode.OK:
            return refused(code)
        approved = _enact(draft, approved, registry, caps)
    draft.set_proposal(index, approved)
    return recorded(draft.record(instruction.leaf, instruction.body, public=True))


def _resolve(
    draft: Draft, actions: tuple[Action, ...]
) -> tuple[Registry, tuple[Cap, ...], RejectCode]:
    """Resolve actions against the register and against who held a validator's key before; of two codes the lower."""
    registry, caps, code = resolve(draft.registry, actions, draft.time_ms)
    taken = key_refusal(draft, actions)
    if taken is RejectCode.OK or RejectCode.OK < code < taken:
        return registry, caps, code
    return draft.registry, (), taken


def _actions_of(draft: Draft, index: int) -> tuple[Action, ...]:
    body = draft.body(index)
    invariant(body is not None, f"proposal {index} has no body on this replica")
    return decode_actions((body or b"")[SALT_BYTES:])


def _enact(draft: Draft, proposal: Proposal, registry: Registry, caps: tuple[Cap, ...]) -> Proposal:
    draft.registry = registry
    apply_caps(draft, caps)
    return replace(proposal, enacted=True)


def apply_caps(draft: Draft, caps: tuple[Cap, ...]) -> None:
    """Write net debit caps into the positions they limit."""
    for cap in caps:
        position = draft.position(cap.participant, cap.asset)
        draft.set_position(replace(position, cap=cap.amount_units))
