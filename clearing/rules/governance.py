"""Governance: proposals, approvals and their enactment at k of n; the canonical bytes of actions.

Lives here: the action codec, Proposal, and the checks of a proposal's life. May not live here: what an action does to
the register (registry.py). Everything is in the log in plain text; tallies are taken anew at each approval.
Source: the shape follows CCF's governance (proposal, ballots, resolve, apply, all on the ledger).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from clearing.codec import Layout, raw, reserved, text, uint
from clearing.errors import DecodeError, InvariantViolation, RejectCode
from clearing.params import ACTIONS_PER_PROPOSAL_MAX, Parameters
from clearing.rules import bitcoin_terms, validators
from clearing.rules.registry import (
    Action,
    ActionKind,
    Asset,
    Cap,
    Participant,
    Registry,
    decode_timetable,
    encode_timetable,
)

_ACTION_HEAD = Layout("action", uint("kind", 1), reserved(1), uint("length", 2))
_SET_LICENCE = Layout(
    "set licence",
    uint("participant", 4),
    uint("status", 1),
    reserved(3),
    text("licence_no", 32),
    uint("licence_expiry_ms", 8),
)
_ROTATE_KEY = Layout("rotate key", uint("participant", 4), raw("public_key", 32))
_SET_NODE_KEY = Layout("set node key", uint("participant", 4), raw("node_key", 32))
_SET_METHOD = Layout("set method", uint("asset", 2), uint("method", 1), reserved(1))
_SET_VALIDATOR = Layout(
    "set validator", uint("participant", 4), uint("power", 4), raw("consensus_key", 32)
)
_SET_CAP = Layout(
    "set cap",
    uint("participant", 4),
    uint("asset", 2),
    uint("has_cap", 1),
    reserved(1),
    uint("amount_units", 16),
)
_BITCOIN = {
    ActionKind.SET_BITCOIN_CHAIN: bitcoin_terms.CHAIN_LAYOUT,
    ActionKind.SET_ROUTE: bitcoin_terms.ROUTE_LAYOUT,
    ActionKind.SET_MINER: bitcoin_terms.MINER_LAYOUT,
    ActionKind.SET_PAYOUT_SCRIPT: bitcoin_terms.PAYOUT_LAYOUT,
    ActionKind.SET_TAX_RULE: bitcoin_terms.TAX_LAYOUT,
}
GENESIS_ACTIONS_MAX = 1 << 20
"""Genesis registers the first participants without a vote; its body is bounded only against nonsense."""


def _encode_subject(action: Action) -> bytes:
    if action.kind in _BITCOIN:
        return _BITCOIN[action.kind].encode(**action.subject)
    match action.kind:
        case ActionKind.ADD_PARTICIPANT | ActionKind.ADD_ASSET | ActionKind.SET_PARAMETERS:
            return bytes(action.subject.encode())
        case ActionKind.SET_LICENCE:
            return _SET_LICENCE.encode(**action.subject)
        case ActionKind.ROTATE_KEY:
            return _ROTATE_KEY.encode(**action.subject)
        case ActionKind.SET_NODE_KEY:
            return _SET_NODE_KEY.encode(**action.subject)
        case ActionKind.SET_VALIDATOR:
            return _SET_VALIDATOR.encode(**action.subject)
        case ActionKind.SET_METHOD:
            return _SET_METHOD.encode(**action.subject)
        case ActionKind.SET_TIMETABLE:
            return encode_timetable(action.subject)
        case ActionKind.SET_CAP:
            cap: Cap = action.subject
            return _SET_CAP.encode(
                participant=cap.participant,
                asset=cap.asset,
                has_cap=int(cap.amount_units is not None),
                amount_units=cap.amount_units or 0,
            )
    raise InvariantViolation(f"no bytes for an action of kind {action.kind.name}")


def _decode_cap(data: bytes) -> Cap:
    values = _SET_CAP.decode(data)
    if values["has_cap"] > 1 or (not values["has_cap"] and values["amount_units"]):
        raise DecodeError("a removed cap carries no amount")
    amount = values["amount_units"] if values["has_cap"] else None
    return Cap(values["participant"], values["asset"], amount)


def _decode_subject(kind: ActionKind, data: bytes) -> Any:
    if kind in _BITCOIN:
        return _BITCOIN[kind].decode(data)
    match kind:
        case ActionKind.ADD_PARTICIPANT:
            return Participant.decode(data)
        case ActionKind.ADD_ASSET:
            return Asset.decode(data)
        case ActionKind.SET_PARAMETERS:
            return Parameters.decode(data)
        case ActionKind.SET_LICENCE:
            return _SET_LICENCE.decode(data)
        case ActionKind.ROTATE_KEY:
            return _ROTATE_KEY.decode(data)
        case ActionKind.SET_NODE_KEY:
            return _SET_NODE_KEY.decode(data)
        case ActionKind.SET_VALIDATOR:
            return _SET_VALIDATOR.decode(data)
        case ActionKind.SET_METHOD:
            return _SET_METHOD.decode(data)
        case ActionKind.SET_TIMETABLE:
            return decode_timetable(data)
        case ActionKind.SET_CAP:
            return _decode_cap(data)
    raise InvariantViolation(f"no reader for an action of kind {kind.name}")


def encode_actions(actions: Sequence[Action]) -> bytes:
    """Return the canonical bytes: each action as kind, length and record.

    Raises: DecodeError: a value does not fit its field.
    """
    parts = []
    for action in actions:
        subject = _encode_subject(action)
        parts.append(_ACTION_HEAD.encode(kind=action.kind, length=len(subject)) + subject)
    return b"".join(parts)


def decode_actions(data: bytes, actions_max: int = ACTIONS_PER_PROPOSAL_MAX) -> tuple[Action, ...]:
    """Parse the canonical bytes of one or more actions.

    Raises: DecodeError: no action, too many, an unknown kind, or a record that is not canonical.
    """
    actions = []
    start = 0
    while start < len(data):
        head = _ACTION_HEAD.decode(data[start : start + _ACTION_HEAD.width])
        start += _ACTION_HEAD.width
        try:
            kind = ActionKind(head["kind"])
        except ValueError as error:
            raise DecodeError(f"action kind {head['kind']} is unknown") from error
        subject = data[start : start + head["length"]]
        if len(subject) != head["length"]:
            raise DecodeError("the last action is cut short")
        actions.append(Action(kind, _decode_subject(kind, subject)))
        start += head["length"]
        if len(actions) > actions_max:
            raise DecodeError(f"at most {actions_max} actions")
    if not actions:
        raise DecodeError("at least one action is needed")
    return tuple(actions)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposal: its actions stand in the body of the leaf that proposed it.

    approvals: registry numbers in order of approval, the proposer first; enacted: whether it took effect.
    """

    created_ms: int
    enacted: bool
    approvals: tuple[int, ...]

    LAYOUT: ClassVar[Layout] = Layout(
        "proposal", uint("created_ms", 8), uint("enacted", 1), reserved(1), uint("approvals", 2)
    )

    def encode(self) -> bytes:
        """Return the canonical bytes: 12 and 4 for each approval."""
        head = self.LAYOUT.encode(
            created_ms=self.created_ms, enacted=int(self.enacted), approvals=len(self.approvals)
        )
        return head + b"".join(number.to_bytes(4, "little") for number in self.approvals)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: the length does not match the number of approvals.
        """
        head = cls.LAYOUT.decode(data[: cls.LAYOUT.width])
        rest = data[cls.LAYOUT.width :]
        if len(rest) != 4 * head["approvals"] or head["enacted"] > 1:
            raise DecodeError("not a canonical proposal")
        approvals = tuple(int.from_bytes(rest[i : i + 4], "little") for i in range(0, len(rest), 4))
        return cls(head["created_ms"], bool(head["enacted"]), approvals)

    def refusal(self, governor: int, registry: Registry, time_ms: int) -> RejectCode:
        """Return why `governor` may not approve now, or OK."""
        # An enacted or lapsed proposal takes no further approval.
        if self.enacted or time_ms >= self.created_ms + registry.parameters.proposal_lifetime_ms:
            return RejectCode.PROPOSAL_CLOSED
        # One governor, one approval.
        if governor in self.approvals:
            return RejectCode.ALREADY_APPROVED
        return RejectCode.OK

    def is_carried(self, registry: Registry, time_ms: int) -> bool:
        """Return whether approvals of governors who are in licence now reach the quorum."""
        governors = registry.governors(time_ms)
        counted = sum(number in governors for number in self.approvals)
        return counted >= registry.parameters.governance_quorum


def resolve(
    registry: Registry, actions: Sequence[Action], time_ms: int
) -> tuple[Registry, tuple[Cap, ...], RejectCode]:
    """Return the register after all `actions`, the caps they set, and OK; or the first refusal, changing nothing.

    Governance may not strand itself: the governors in licence afterwards must reach the quorum in force afterwards.
    """
    changed = registry
    caps: list[Cap] = []
    for action in actions:
        changed, code = changed.with_action(action)
        if code is not RejectCode.OK:
            return registry, (), code
        if action.kind is ActionKind.SET_CAP:
            caps.append(action.subject)
    if len(changed.governors(time_ms)) < changed.parameters.governance_quorum:
        return registry, (), RejectCode.GOVERNANCE_STRANDED
    # Licences alone may end any number of validators: who must go stays in force until another has come.
    if any(action.kind is ActionKind.SET_VALIDATOR for action in actions):
        wanted = registry.wanted_validators(time_ms), changed.wanted_validators(time_ms)
        code = validators.refusal(*wanted)
        if code is not RejectCode.OK:
            return registry, (), code
    return changed, tuple(caps), RejectCode.OK
