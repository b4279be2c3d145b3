"""The licence register and the asset register: who takes part, what is cleared, and the actions that change them.

Lives here: Participant, Asset, Timetable, Registry and the actions of genesis and governance. May not live here: who
may propose an action (governance.py) or what a licence allows in a given rule (ledger.py asks `is_licensed`).

Invariants: numbers are given in order of enactment and never reused; names, LEIs, keys and CAIP-19 ids are unique;
a Registry never changes, `with_actions` returns a new one.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar, Self

from clearing.codec import Layout, raw, reserved, text, uint
from clearing.errors import DecodeError, RejectCode
from clearing.identifiers import check_dti, check_lei, parse_caip19
from clearing.params import (
    ASSETS_MAX,
    CUT_OFFS_PER_DAY_MAX,
    DAY_S,
    PARTICIPANTS_MAX,
    SCALE_MAX,
    Parameters,
)
from clearing.rules import bitcoin_terms
from clearing.rules.bitcoin_terms import BitcoinTerms
from clearing.rules.validators import POWER_MAX, Validator, Validators, with_validator, without
from clearing.types import LicenceStatus, NettingMethod, Role

KEY_BYTES = 32
"""Length of an Ed25519 public key."""

NO_KEY = bytes(KEY_BYTES)
"""The node key of a participant whose node tells the ledger nothing."""

_SMALL_ORDER = frozenset(
    bytes.fromhex(encoding)
    for encoding in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""Points of order 1, 2, 4 and 8, sign bit cleared: under such a key anybody can make signatures that verify.

Source: the block list of libsodium, ed25519_ref10.c, ge25519_has_small_order; a test checks each of them.
"""

_PARTICIPANT_LAYOUT = Layout(
    "participant",
    text("name", 32),
    text("lei", 20),
    uint("role", 1),
    uint("status", 1),
    reserved(2),
    raw("public_key", 32),
    text("licence_no", 32),
    uint("licence_expiry_ms", 8),
    raw("node_key", KEY_BYTES),
)
_ASSET_LAYOUT = Layout(
    "asset",
    text("name", 16),
    text("caip19", 192),
    text("dti", 9),
    uint("scale", 1),
    uint("method", 1),
    reserved(5),
)
_TIMETABLE_COUNT = Layout("timetable", uint("count", 2), reserved(2))


VALIDATOR_ROLES = (Role.MINISTRY, Role.CENTRAL_BANK, Role.OPERATOR)
"""Roles that may be validators: these see every body."""


class ActionKind(enum.IntEnum):
    """What a governance action does; the first byte of its record."""

    ADD_PARTICIPANT = 1
    SET_LICENCE = 2
    ROTATE_KEY = 3
    ADD_ASSET = 4
    SET_METHOD = 5
    SET_PARAMETERS = 6
    SET_TIMETABLE = 7
    SET_CAP = 8
    SET_NODE_KEY = 9
    SET_VALIDATOR = 15
    SET_BITCOIN_CHAIN = 30
    SET_ROUTE = 31
    SET_MINER = 32
    SET_PAYOUT_SCRIPT = 33
    SET_TAX_RULE = 34


@dataclass(frozen=True, slots=True)
class Participant:
    """A licensed party; `licence_expiry_ms` is block time, 0 for a licence without end.

    public_key signs what the participant itself asks for. node_key, NO_KEY for none, signs what its node reports from
    outside the ledger; the two are kept apart so that a machine which runs unattended can never spend or affirm.
    """

    name: str
    lei: str
    role: Role
    status: LicenceStatus
    public_key: bytes
    licence_no: str
    licence_expiry_ms: int
    node_key: bytes = NO_KEY

    LAYOUT: ClassVar[Layout] = _PARTICIPANT_LAYOUT

    def encode(self) -> bytes:
        """Return the canonical 160 bytes."""
        return _PARTICIPANT_LAYOUT.encode(
            name=self.name,
            lei=self.lei,
            role=self.role,
            status=self.status,
            public_key=self.public_key,
            licence_no=self.licence_no,
            licence_expiry_ms=self.licence_expiry_ms,
            node_key=self.node_key,
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length, or an unknown role or status.
        """
        values = _PARTICIPANT_LAYOUT.decode(data)
        try:
            values["role"] = Role(values["role"])
            values["status"] = LicenceStatus(values["status"])
        except ValueError as error:
            raise DecodeError(str(error)) from error
        return cls(**values)

    def is_licensed(self, time_ms: int) -> bool:
        """Return whether the licence is in force at block time `time_ms`."""
        unexpired = self.licence_expiry_ms == 0 or time_ms < self.licence_expiry_ms
        return self.status is LicenceStatus.ACTIVE and unexpired


@dataclass(frozen=True, slots=True)
class Asset:
    """A cleared asset; amounts are in units of 10^-scale, `dti` is "" where none is known."""

    name: str
    caip19: str
    dti: str
    scale: int
    method: NettingMethod

    LAYOUT: ClassVar[Layout] = _ASSET_LAYOUT

    def encode(self) -> bytes:
        """Return the canonical 224 bytes."""
        return _ASSET_LAYOUT.encode(
            name=self.name,
            caip19=self.caip19,
            dti=self.dti,
            scale=self.scale,
            method=self.method,
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length or an unknown method.
        """
        values = _ASSET_LAYOUT.decode(data)
        try:
            values["method"] = NettingMethod(values["method"])
        except ValueError as error:
            raise DecodeError(str(error)) from error
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Cap:
    """A net debit cap: the most a participant may owe net in one asset over all unsettled cycles; None removes it."""

    participant: int
    asset: int
    amount_units: int | None


@dataclass(frozen=True, slots=True)
class Action:
    """One governance action: its kind and its decoded subject."""

    kind: ActionKind
    subject: Any


@dataclass(frozen=True, slots=True)
class Registry:
    """Everything that governance sets, at one height.

    participants and assets: position is registry number. cut_offs_s: ascending seconds of the day (UTC) at which a
    cycle is cut off and netted; empty when cycles are run by the operator only. appointed: the validators that
    governance wants; validators: those in force, see rules/validators.py; both empty where one operator orders. bitcoin:
    what is set about Bitcoin, see rules/bitcoin_terms.py.
    """

    participants: tuple[Participant, ...] = ()
    assets: tuple[Asset, ...] = ()
    parameters: Parameters = field(default_factory=Parameters)
    cut_offs_s: tuple[int, ...] = ()
    appointed: Validators = ()
    validators: Validators = ()
    bitcoin: BitcoinTerms = field(default_factory=BitcoinTerms)

    def participant(self, number: int) -> Participant | None:
        """Return the participant with this number, or None."""
        return self.participants[number] if 0 <= number < len(self.participants) else None

    def number_of(self, test: Callable[[Participant], bool]) -> int | None:
        """Return the lowest number whose participant passes `test`, or None."""
        return next((i for i, party in enumerate(self.participants) if test(party)), None)

    def by_lei(self, lei: str) -> int | None:
        """Return the number of the participant with this LEI, or None."""
        return self.number_of(lambda party: party.lei == lei)

    def by_name(self, name: str) -> int | None:
        """Return the number of the participant with this name, or None."""
        return self.number_of(lambda party: party.name == name)

    def by_key(self, public_key: bytes) -> int | None:
        """Return the number of the participant to whom this key is registered, as its own or its node's, or None."""
        if public_key == NO_KEY:
            return None
        return self.number_of(lambda party: public_key in (party.public_key, party.node_key))

    def asset_by_name(self, name: str) -> int | None:
        """Return the number of the asset with this name, or None."""
        return next((i for i, asset in enumerate(self.assets) if asset.name == name), None)

    def settlement_agent(self, time_ms: int) -> int | None:
        """Return on whose accounts a cycle cut off at block time `time_ms` settles: the first central bank in licence."""
        return self.number_of(
            lambda party: party.role is Role.CENTRAL_BANK and party.is_licensed(time_ms)
        )

    def governors(self, time_ms: int) -> tuple[int, ...]:
        """Return the numbers of those who may propose and approve: ministries and central banks in licence."""
        return tuple(
            number
            for number, party in enumerate(self.participants)
            if party.role in (Role.MINISTRY, Role.CENTRAL_BANK) and party.is_licensed(time_ms)
        )

    def wanted_validators(self, time_ms: int) -> Validators:
        """Return who should be in force at block time `time_ms`: appointed, licensed, not suspended."""
        return tuple(
            validator
            for validator in self.appointed
            if not validator.suspended
            and self.participants[validator.participant].is_licensed(time_ms)
        )

    def with_suspended(self, participant: int) -> Registry:
        """Return the register with the validator of `participant` suspended, itself where there is none to suspend."""
        appointed = tuple(
            replace(validator, suspended=True)
            if validator.participant == participant
            else validator
            for validator in self.appointed
        )
        return self if appointed == self.appointed else replace(self, appointed=appointed)

    def may_cosign(self, name: str, time_ms: int) -> bool:
        """Return whether the cosignature of the node called `name` counts towards finality at block time `time_ms`.

        It does not for a suspended validator, nor without a licence in force; for ministry and central bank, who are
        there by their office, a date that passed does no harm.
        """
        number = self.by_name(name)
        if number is None:
            return False
        party = self.participants[number]
        by_office = party.role in (Role.MINISTRY, Role.CENTRAL_BANK)
        licensed = party.is_licensed(time_ms) or (
            by_office and party.status is LicenceStatus.ACTIVE
        )
        suspended = any(v.participant == number and v.suspended for v in self.appointed)
        return licensed and not suspended

    def with_action(self, action: Action) -> tuple[Registry, RejectCode]:
        """Return the register after one action, or itself and why the action is refused. Caps change nothing here."""
        return _HANDLERS[action.kind](self, action.subject)


def _replaced(items: tuple[Any, ...], number: int, item: Any) -> tuple[Any, ...]:
    return (*items[:number], item, *items[number + 1 :])


def _is_identifier(name: str) -> bool:
    return (
        bool(name) and name.isascii() and name.isprintable() and not set(" ,:;/\"'\\") & set(name)
    )


def is_weak_key(key: bytes) -> bool:
    """Return whether anybody could sign for this Ed25519 key, because its point has a small order."""
    return key[:-1] + bytes([key[-1] & 0x7F]) in _SMALL_ORDER


def _is_taken(registry: Registry, key: bytes) -> bool:
    """Return whether a key is somebody's: a participant's, its node's, or that of its consensus engine."""
    validators = (*registry.appointed, *registry.validators)
    return registry.by_key(key) is not None or any(one.consensus_key == key for one in validators)


def _add_participant(registry: Registry, party: Participant) -> tuple[Registry, RejectCode]:
    if registry.by_name(party.name) is not None or registry.by_lei(party.lei) is not None:
        return registry, RejectCode.ACTION_DUPLICATE
    # One key for both would let the node sign what only the participant may.
    if party.public_key == party.node_key != NO_KEY:
        return registry, RejectCode.ACTION_DUPLICATE
    if _is_taken(registry, party.public_key) or _is_taken(registry, party.node_key):
        return registry, RejectCode.ACTION_DUPLICATE
    try:
        check_lei(party.lei)
    except DecodeError:
        return registry, RejectCode.ACTION_VALUE
    # Anybody could sign for a weak key.
    if is_weak_key(party.public_key) or (party.node_key != NO_KEY and is_weak_key(party.node_key)):
        return registry, RejectCode.ACTION_VALUE
    if not _is_identifier(party.name) or len(registry.participants) >= PARTICIPANTS_MAX:
        return registry, RejectCode.ACTION_VALUE
    return replace(registry, participants=(*registry.participants, party)), RejectCode.OK


def _set_licence(registry: Registry, change: dict[str, Any]) -> tuple[Registry, RejectCode]:
    number = change["participant"]
    party = registry.participant(number)
    if party is None:
        return registry, RejectCode.ACTION_UNKNOWN_SUBJECT
    try:
        status = LicenceStatus(change["status"])
    except ValueError:
        return registry, RejectCode.ACTION_VALUE
    # A withdrawn licence stays withdrawn: a new licence is a new registration.
    if party.status is LicenceStatus.WITHDRAWN:
        return registry, RejectCode.ACTION_VALUE
    changed = replace(
        party,
        status=status,
        licence_no=change["licence_no"],
        licence_expiry_ms=change["licence_expiry_ms"],
    )
    return replace(
        registry, participants=_replaced(registry.participants, number, changed)
    ), RejectCode.OK


def _rotate_key(registry: Registry, change: dict[str, Any]) -> tuple[Registry, RejectCode]:
    number = change["participant"]
    party = registry.participant(number)
    if party is None:
        return registry, RejectCode.ACTION_UNKNOWN_SUBJECT
    if _is_taken(registry, change["public_key"]):
        return registry, RejectCode.ACTION_DUPLICATE
    # Anybody could sign for a weak key.
    if is_weak_key(change["public_key"]):
        return registry, RejectCode.ACTION_VALUE
    changed = replace(party, public_key=change["public_key"])
    return replace(
        registry, participants=_replaced(registry.participants, number, changed)
    ), RejectCode.OK


def _set_node_key(registry: Registry, change: dict[str, Any]) -> tuple[Registry, RejectCode]:
    number = change["participant"]
    party = registry.participant(number)
    if party is None:
        return registry, RejectCode.ACTION_UNKNOWN_SUBJECT
    key = change["node_key"]
    if _is_taken(registry, key):
        return registry, RejectCode.ACTION_DUPLICATE
    # Anybody could sign for a weak key; only NO_KEY, which is never asked, may stand in its place.
    if key != NO_KEY and is_weak_key(key):
        return registry, RejectCode.ACTION_VALUE
    changed = replace(party, node_key=key)
    return replace(
        registry, participants=_replaced(registry.participants, number, changed)
    ), RejectCode.OK


def _add_asset(registry: Registry, asset: Asset) -> tuple[Registry, RejectCode]:
    if any(other.name == asset.name or other.caip19 == asset.caip19 for other in registry.assets):
        return registry, RejectCode.ACTION_DUPLICATE
    try:
        canonical = parse_caip19(asset.caip19)
        if asset.dti:
            check_dti(asset.dti)
    except DecodeError:
        return registry, RejectCode.ACTION_VALUE
    if str(canonical) != asset.caip19 or not _is_identifier(asset.name):
        return registry, RejectCode.ACTION_VALUE
    if asset.scale > SCALE_MAX:
        return registry, RejectCode.ACTION_VALUE
    if len(registry.assets) >= ASSETS_MAX:
        return registry, RejectCode.ACTION_VALUE
    return replace(registry, assets=(*registry.assets, asset)), RejectCode.OK


def _set_method(registry: Registry, change: dict[str, Any]) -> tuple[Registry, RejectCode]:
    number = change["asset"]
    if number >= len(registry.assets):
        return registry, RejectCode.ACTION_UNKNOWN_SUBJECT
    try:
        method = NettingMethod(change["method"])
    except ValueError:
        return registry, RejectCode.ACTION_VALUE
    changed = replace(registry.assets[number], method=method)
    return replace(registry, assets=_replaced(registry.assets, number, changed)), RejectCode.OK


def _set_parameters(registry: Registry, parameters: Parameters) -> tuple[Registry, RejectCode]:
    return replace(registry, parameters=parameters), RejectCode.OK


def _set_validator(registry: Registry, change: dict[str, Any]) -> tuple[Registry, RejectCode]:
    """Appoint a validator, change its key or power, or with power 0 remove it."""
    number, key, power = change["participant"], change["consensus_key"], change["power"]
    party = registry.participant(number)
    if party is None:
        return registry, RejectCode.ACTION_UNKNOWN_SUBJECT
    if power == 0:
        if all(known.participant != number for known in registry.appointed) or key != NO_KEY:
            return registry, RejectCode.ACTION_VALUE
        return replace(registry, appointed=without(registry.appointed, number)), RejectCode.OK
    # Anybody could vote with a weak key.
    if power > POWER_MAX or is_weak_key(key):
        return registry, RejectCode.ACTION_VALUE
    if party.role not in VALIDATOR_ROLES:
        return registry, RejectCode.VALIDATOR_ROLE
    others = [v for v in (*registry.appointed, *registry.validators) if v.participant != number]
    if any(known.consensus_key == key for known in others) or registry.by_key(key) is not None:
        return registry, RejectCode.VALIDATOR_KEY_TAKEN
    appointed = with_validator(registry.appointed, Validator(number, power, key))
    return replace(registry, appointed=appointed), RejectCode.OK


def _set_timetable(registry: Registry, cut_offs_s: tuple[int, ...]) -> tuple[Registry, RejectCode]:
    ascending = all(a < b for a, b in pairwise(cut_offs_s))
    if not ascending or any(second >= DAY_S for second in cut_offs_s):
        return registry, RejectCode.ACTION_VALUE
    return replace(registry, cut_offs_s=cut_offs_s), RejectCode.OK


def _check_cap(registry: Registry, cap: Cap) -> tuple[Registry, RejectCode]:
    if registry.participant(cap.participant) is None or cap.asset >= len(registry.assets):
        return registry, RejectCode.ACTION_UNKNOWN_SUBJECT
    return registry, RejectCode.OK


def _in_bitcoin(
    change: Callable[[Registry, dict[str, Any]], bitcoin_terms.Change],
) -> Callable[[Registry, Any], tuple[Registry, RejectCode]]:
    """Return the handler of an action on Bitcoin's terms."""

    def handle(registry: Registry, values: Any) -> tuple[Registry, RejectCode]:
        terms, code = change(registry, values)
        return replace(registry, bitcoin=terms), code

    return handle


_HANDLERS: dict[ActionKind, Callable[[Registry, Any], tuple[Registry, RejectCode]]] = {
    ActionKind.ADD_PARTICIPANT: _add_participant,
    ActionKind.SET_LICENCE: _set_licence,
    ActionKind.ROTATE_KEY: _rotate_key,
    ActionKind.ADD_ASSET: _add_asset,
    ActionKind.SET_METHOD: _set_method,
    ActionKind.SET_PARAMETERS: _set_parameters,
    ActionKind.SET_TIMETABLE: _set_timetable,
    ActionKind.SET_CAP: _check_cap,
    ActionKind.SET_NODE_KEY: _set_node_key,
    ActionKind.SET_VALIDATOR: _set_validator,
    ActionKind.SET_BITCOIN_CHAIN: _in_bitcoin(
        lambda registry, values: bitcoin_terms.set_chain(registry.bitcoin, values)
    ),
    ActionKind.SET_ROUTE: _in_bitcoin(
        lambda registry, values: bitcoin_terms.set_route(
            registry.bitcoin, values, [asset.scale for asset in registry.assets]
        )
    ),
    ActionKind.SET_MINER: _in_bitcoin(
        lambda registry, values: bitcoin_terms.set_miner(
            registry.bitcoin, values, len(registry.participants)
        )
    ),
    ActionKind.SET_PAYOUT_SCRIPT: _in_bitcoin(
        lambda registry, values: bitcoin_terms.set_payout(
            registry.bitcoin, values, len(registry.participants)
        )
    ),
    ActionKind.SET_TAX_RULE: _in_bitcoin(
        lambda registry, values: bitcoin_terms.set_tax(registry.bitcoin, values)
    ),
}


def next_cut_off_ms(cut_offs_s: tuple[int, ...], after_ms: int) -> int | None:
    """Return the first cut-off strictly after block time `after_ms`, or None without a timetable."""
    if not cut_offs_s:
        return None
    day_ms = after_ms // (DAY_S * 1000) * (DAY_S * 1000)
    for second in cut_offs_s:
        if day_ms + second * 1000 > after_ms:
            return day_ms + second * 1000
    return day_ms + (DAY_S + cut_offs_s[0]) * 1000


def encode_timetable(cut_offs_s: tuple[int, ...]) -> bytes:
    """Return the canonical bytes: a count and four bytes each.

    Raises: DecodeError: too many entries.
    """
    if len(cut_offs_s) > CUT_OFFS_PER_DAY_MAX:
        raise DecodeError(f"a timetable has at most {CUT_OFFS_PER_DAY_MAX} cut-offs a day")
    head = _TIMETABLE_COUNT.encode(count=len(cut_offs_s))
    return head + b"".join(second.to_bytes(4, "little") for second in cut_offs_s)


def decode_timetable(data: bytes) -> tuple[int, ...]:
    """Parse the canonical bytes of a timetable.

    Raises: DecodeError: wrong length or too many entries.
    """
    count = _TIMETABLE_COUNT.decode(data[:4])["count"]
    if count > CUT_OFFS_PER_DAY_MAX or len(data) != 4 + 4 * count:
        raise DecodeError("the timetable's length does not match its count")
    return tuple(int.from_bytes(data[i : i + 4], "little") for i in range(4, len(data), 4))
