"""Validators that change, and validators that voted twice.

Lives here: how a block moves the set in force, and how evidence of misbehaviour suspends. May not live here: the
guards (rules/validators.py), who is wanted (rules/registry.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from clearing.consensus.validators import address_of, validators_hash
from clearing.errors import RejectCode
from clearing.records.leaves import MisbehaviourLeaf, ValidatorsLeaf, body_hash
from clearing.records.misbehaviour import NOBODY, Misbehaviour
from clearing.rows import Table
from clearing.rules.registry import Action, ActionKind
from clearing.rules.validators import (
    Validators,
    encode_validators,
    naming_key,
    next_set,
    total_power,
)
from clearing.state import Draft

_HOLDER = "validator/{}"
"""Row of PARAMETERS: whose key has or once had this address; evidence may come weeks after a rotation."""


def key_refusal(draft: Draft, actions: Sequence[Action]) -> RejectCode:
    """Return why a validator that `actions` appoint may not have its key, or OK: no key has two holders, ever.

    Evidence against a key may come weeks after it was given up, and must not name who took it over.
    """
    for action in actions:
        if action.kind is not ActionKind.SET_VALIDATOR:
            continue
        holder = draft.get(
            Table.PARAMETERS, _holder_key(address_of(action.subject["consensus_key"]))
        )
        if holder not in (None, action.subject["participant"].to_bytes(4, "big")):
            return RejectCode.VALIDATOR_KEY_TAKEN
    return RejectCode.OK


def report_misbehaviour(draft: Draft, evidence: Misbehaviour) -> None:
    """Record the evidence that the consensus engine has agreed on, and suspend the validator it names.

    Evidence against an address that never was a validator here is recorded all the same, and moves nothing.
    """
    row = draft.get(Table.PARAMETERS, _holder_key(evidence.address))
    participant = NOBODY if row is None else int.from_bytes(row, "big")
    body = evidence.encode()
    leaf = MisbehaviourLeaf(participant, evidence.engine_height, body_hash(body))
    draft.record(leaf.encode(), body, public=True)
    draft.registry = draft.registry.with_suspended(participant)


def move_validators(draft: Draft) -> None:
    """Move the set in force towards the set wanted at the block's time, and record it if it moved."""
    registry = draft.registry
    moved = next_set(registry.validators, registry.wanted_validators(draft.time_ms))
    if moved == registry.validators:
        return
    draft.registry = replace(registry, validators=moved)
    body = encode_validators(moved)
    leaf = ValidatorsLeaf(
        len(moved), total_power(moved), validators_hash_of(moved), body_hash(body)
    )
    index = draft.record(leaf.encode(), body, public=True)
    # The first one to name a set stands before whatever the set has signed, also when the set comes back.
    named = naming_key(leaf.validators_hash)
    if draft.get(Table.PARAMETERS, named) is None:
        draft.put(Table.PARAMETERS, named, index.to_bytes(8, "big"))
    for validator in moved:
        key = _holder_key(address_of(validator.consensus_key))
        draft.put(Table.PARAMETERS, key, validator.participant.to_bytes(4, "big"))


def validators_hash_of(validators: Validators) -> bytes:
    """Return the hash under which the engine's headers know a set."""
    return validators_hash([validator.key for validator in validators])


def _holder_key(address: bytes) -> bytes:
    return _HOLDER.format(address.hex()).encode()
