"""The validators: who is appointed, who is in force, and how the one set becomes the other.

Lives here: Validator, the guards on appointments, the steps from the set in force to the set that
the register wants. May not live here: licences (registry.py), leaves and suspension (handlers).

Governance *appoints*; the set *in force* is what the consensus engine was told. The set wanted is
the appointed validators whose licence is in force and who are not suspended. At the end of each
block the set in force moves towards it, as far as three guards allow; the rest waits for the next
block:
    - never below VALIDATORS_MIN: a validator who must go stays until another has come;
    - no validator with a third of the power or more, unless one had as much before;
    - no more than a third of the power changes in one block.
So a supervisor may always suspend a licence, and a date may always pass, without stopping the
network; what governance asks for directly and cannot be had is refused with a code.
Source: own design; the bounds are those of Byzantine fault tolerance (n > 3f) and of the engine's
light clients, which follow a set that keeps two thirds of its power.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from clearing.codec import Layout, raw, split_records, uint
from clearing.consensus.validators import ValidatorKey
from clearing.errors import DecodeError, RejectCode

VALIDATORS_MIN = 4
"""Fewest validators: with three, one that fails stops everything."""

VALIDATORS_MAX = 100
"""Most validators: every block carries a signature of each."""

POWER_MAX = 1_000_000
"""Greatest power of one validator."""

_LAYOUT = Layout(
    "validator",
    uint("participant", 4),
    uint("power", 4),
    uint("suspended", 1),
    raw("consensus_key", 32),
)


@dataclass(frozen=True, slots=True)
class Validator:
    """A participant's validator: its Ed25519 key for the engine's votes, and its power, above 0.

    suspended: it voted twice at one height; a new appointment ends that.
    """

    participant: int
    power: int
    consensus_key: bytes
    suspended: bool = False

    WIDTH: ClassVar[int] = _LAYOUT.width
    LAYOUT: ClassVar[Layout] = _LAYOUT

    def encode(self) -> bytes:
        """Return the canonical 41 bytes."""
        return _LAYOUT.encode(
            participant=self.participant,
            power=self.power,
            suspended=int(self.suspended),
            consensus_key=self.consensus_key,
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length or a flag that is none.
        """
        values = _LAYOUT.decode(data)
        if values["suspended"] > 1:
            raise DecodeError("suspended must be 0 or 1")
        values["suspended"] = bool(values["suspended"])
        return cls(**values)

    @property
    def key(self) -> ValidatorKey:
        """What the consensus engine knows of it."""
        return ValidatorKey(self.consensus_key, self.power)


def naming_key(validators_hash: bytes) -> bytes:
    """Return the key of the PARAMETERS row that says which VALIDATORS leaf was the first to name a set: its log index, u64."""
    return f"validators/{validators_hash.hex()}".encode()


Validators = tuple[Validator, ...]
"""A set, ascending by participant; one validator a participant."""


def encode_validators(validators: Validators) -> bytes:
    """Return the canonical bytes of a set: 41 a validator."""
    return b"".join(validator.encode() for validator in validators)


def decode_validators(data: bytes) -> Validators:
    """Parse the canonical bytes of a set.

    Raises: DecodeError: not whole records, or not ascending by participant.
    """
    records = split_records(data, Validator.WIDTH, len(data) // Validator.WIDTH, "validators")
    validators = tuple(Validator.decode(record) for record in records)
    numbers = [validator.participant for validator in validators]
    if numbers != sorted(set(numbers)):
        raise DecodeError("validators must stand in ascending order of participant, each once")
    return validators


def with_validator(validators: Validators, validator: Validator) -> Validators:
    """Return the set with one validator put in, or in the place of its participant's last one."""
    others = [known for known in validators if known.participant != validator.participant]
    return tuple(sorted((*others, validator), key=lambda known: known.participant))


def without(validators: Validators, participant: int) -> Validators:
    """Return the set without a participant's validator."""
    return tuple(known for known in validators if known.participant != participant)


def total_power(validators: Sequence[Validator]) -> int:
    """Return the sum of the set's power."""
    return sum(validator.power for validator in validators)


def changed_power(before: Validators, after: Validators) -> int:
    """Return how much power changes hands, a rotated key counting once with the greater power."""
    old = {validator.participant: validator for validator in before}
    new = {validator.participant: validator for validator in after}
    changed = 0
    for participant in sorted(old.keys() | new.keys()):
        was, now = old.get(participant), new.get(participant)
        if was is None or now is None or was.consensus_key == now.consensus_key:
            changed += abs((now.power if now else 0) - (was.power if was else 0))
        else:
            changed += max(was.power, now.power)
    return changed


def refusal(before: Validators, after: Validators) -> RejectCode:
    """Return why governance may not turn the set wanted from `before` into `after` at once, or OK.

    A change that mends a set which breaks a guard already is allowed.
    """
    # Fewer than four cannot outlast a fault of one.
    if len(after) < VALIDATORS_MIN and (
        len(after) < len(before) or (not before and len(after) > 0)
    ):
        return RejectCode.VALIDATORS_TOO_FEW
    if len(after) > VALIDATORS_MAX:
        return RejectCode.VALIDATORS_TOO_MANY
    # One with a third could stop the network alone.
    if _is_stronger(before, after):
        return RejectCode.VALIDATOR_TOO_STRONG
    # What replaces more than a third at once is another network.
    if before and 3 * changed_power(before, after) > total_power(before):
        return RejectCode.VALIDATORS_CHANGE_TOO_GREAT
    return RejectCode.OK


def next_set(in_force: Validators, wanted: Validators) -> Validators:
    """Return the set in force after this block: `in_force`, moved towards `wanted`.

    Order of the moves: those who come or grow, then those whose key or power otherwise changes,
    then those who go; each ascending by participant, each made if the guards hold with it.
    """
    if not in_force:
        return wanted
    known = {validator.participant: validator for validator in in_force}
    wants = {validator.participant: validator for validator in wanted}
    coming = [v for v in wanted if v.power > _power(known.get(v.participant))]
    altered = [v for v in wanted if v not in coming and v != known[v.participant]]
    current = in_force
    for validator in (*coming, *altered):
        current = _moved(in_force, current, with_validator(current, validator))
    for validator in in_force:
        if validator.participant not in wants:
            current = _moved(in_force, current, without(current, validator.participant))
    return current


def _power(validator: Validator | None) -> int:
    return validator.power if validator else 0


def _moved(in_force: Validators, current: Validators, proposed: Validators) -> Validators:
    shrinks = len(proposed) < len(current)
    if shrinks and len(proposed) < VALIDATORS_MIN:
        return current
    if _is_stronger(current, proposed):
        return current
    if 3 * changed_power(in_force, proposed) > total_power(in_force):
        return current
    return proposed


def _is_stronger(before: Validators, after: Validators) -> bool:
    """Return whether the strongest of `after` has a third or more, and a greater part than before."""
    strongest, total = max((v.power for v in after), default=0), total_power(after)
    if 3 * strongest < total or not after:
        return False
    old_strongest, old_total = max((v.power for v in before), default=0), total_power(before)
    return strongest * old_total > old_strongest * total or not before
