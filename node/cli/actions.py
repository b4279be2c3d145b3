"""Governance actions as JSON: what `governance propose` and `node init --genesis` read.

Lives here: the JSON form of each action, with names in place of numbers. May not live here: what an action means
(rules/registry.py), its canonical bytes (rules/governance.py).

A file is a list of objects, each with "action" and that action's fields; times are ISO 8601 or milliseconds:

    {"action": "add-participant", "name", "lei", "role", "public_key": HEX[, "licence_no"][, "licence_expiry"]}
    {"action": "set-licence", "participant", "status": "active"|"suspended"|"withdrawn"[, "licence_no"][, "licence_expiry"]}
    {"action": "rotate-key", "participant", "public_key": HEX}
    {"action": "set-node-key", "participant", "node_key": HEX, or 64 zeros for none}
    {"action": "set-validator", "participant", "consensus_key": HEX, "power": 1 to 1000000}
    {"action": "remove-validator", "participant"}
    {"action": "add-asset", "name", "caip19", "scale"[, "dti"][, "method"]}
    {"action": "set-method", "asset", "method": "positions"|"gridlock"|"setoff"}
    {"action": "set-parameters"[, "governance_quorum"][, "proposal_lifetime_ms"][, "settlement_timeout_ms"]
        [, "solution_timeout_ms"][, "submitter_open_items"]}
    {"action": "set-timetable", "cut_offs": ["11:00", "16:30"]}                       UTC
    {"action": "set-cap", "participant", "asset", "amount": "UNITS" or null}

and those about Bitcoin in actions_bitcoin.py. What is left out stays as it is. Participants are named by name or LEI, assets by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from clearing.errors import RejectCode
from clearing.rules.registry import (
    KEY_BYTES,
    NO_KEY,
    Action,
    ActionKind,
    Asset,
    Cap,
    Participant,
    Registry,
)
from clearing.types import AMOUNT_MAX, LicenceStatus, NettingMethod, Role
from node.cli.actions_bitcoin import BITCOIN_READERS
from node.cli.errors import WrongUseError
from node.cli.obligation_file import parse_due_ms

_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?")
_FORMS = "See the forms: `clearing governance propose --help`."


class _Fields:
    """The fields of one action, taken one by one; what is left over at the end is a mistake."""

    def __init__(self, number: int, values: Mapping[str, Any]) -> None:
        self._where = f"action {number}"
        self._values = dict(values)

    def refuse(self, sentence: str) -> WrongUseError:
        return WrongUseError("BAD_ACTION", f"{self._where}: {sentence}", _FORMS)

    def text(self, name: str, default: str | None = None) -> str:
        value = self._values.pop(name, default)
        if not isinstance(value, str):
            raise self.refuse(f"{name} must be a text")
        return value

    def number(self, name: str, default: int | None = None) -> int:
        value = self._values.pop(name, default)
        if type(value) is not int or value < 0:
            raise self.refuse(f"{name} must be a whole number, not negative")
        return value

    def texts(self, name: str) -> list[str]:
        value = self._values.pop(name, None)
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise self.refuse(f"{name} must be a list of texts")
        return value

    def key(self, name: str = "public_key", default: bytes | None = None) -> bytes:
        try:
            key = bytes.fromhex(self.text(name, None if default is None else default.hex()))
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise self.refuse(f"{name} must be 64 hex digits")
        return key

    def member(self, name: str, kind: type[Any], default: str | None = None) -> Any:
        text = self.text(name, default).upper().replace("-", "_")
        if text not in kind.__members__:
            known = ", ".join(one.lower().replace("_", "-") for one in kind.__members__)
            raise self.refuse(f"{name} must be one of {known}")
        return kind[text]

    def time_ms(self, name: str, default: int) -> int:
        value = self._values.pop(name, default)
        if type(value) is int and value >= 0:
            return value
        parsed = parse_due_ms(value) if isinstance(value, str) else None
        if parsed is None:
            raise self.refuse(f"{name} must be such as 2030-12-31, or milliseconds since 1970")
        return parsed

    def amount(self, name: str) -> int | None:
        if name in self._values and self._values[name] is None:
            del self._values[name]
            return None
        text = self.text(name)
        if not (text.isascii() and text.isdigit() and len(text) < 64) or int(text) > AMOUNT_MAX:
            raise self.refuse(f"{name} must be a text of digits (smallest units) or null")
        return int(text)

    def party_no(self, registry: Registry) -> int:
        """Take the participant, by name or LEI, and return its registry number."""
        name = self.text("participant")
        number = registry.by_name(name)
        number = registry.by_lei(name) if number is None else number
        if number is None:
            raise self.refuse(f"no participant {name!r} is registered")
        return number

    def asset_no(self, registry: Registry) -> int:
        """Take the asset, by name, and return its registry number."""
        name = self.text("asset")
        number = registry.asset_by_name(name)
        if number is None:
            raise self.refuse(f"no asset {name!r} is registered")
        return number

    def end(self) -> None:
        if self._values:
            raise self.refuse(f"unknown field {next(iter(self._values))!r}")


def _add_participant(fields: _Fields, _: Registry) -> Participant:
    return Participant(
        name=fields.text("name"),
        lei=fields.text("lei"),
        role=fields.member("role", Role),
        status=LicenceStatus.ACTIVE,
        public_key=fields.key(),
        licence_no=fields.text("licence_no", ""),
        licence_expiry_ms=fields.time_ms("licence_expiry", 0),
        node_key=fields.key("node_key", NO_KEY),
    )


def _set_licence(fields: _Fields, registry: Registry) -> dict[str, Any]:
    number = fields.party_no(registry)
    party = registry.participants[number]
    return {
        "participant": number,
        "status": fields.member("status", LicenceStatus),
        "licence_no": fields.text("licence_no", party.licence_no),
        "licence_expiry_ms": fields.time_ms("licence_expiry", party.licence_expiry_ms),
    }


def _rotate_key(fields: _Fields, registry: Registry) -> dict[str, Any]:
    return {"participant": fields.party_no(registry), "public_key": fields.key()}


def _set_node_key(fields: _Fields, registry: Registry) -> dict[str, Any]:
    return {"participant": fields.party_no(registry), "node_key": fields.key("node_key")}


def _set_validator(fields: _Fields, registry: Registry) -> dict[str, Any]:
    return {
        "participant": fields.party_no(registry),
        "consensus_key": fields.key("consensus_key"),
        "power": fields.number("power"),
    }


def _remove_validator(fields: _Fields, registry: Registry) -> dict[str, Any]:
    number = fields.party_no(registry)
    return {"participant": number, "consensus_key": NO_KEY, "power": 0}


def _add_asset(fields: _Fields, _: Registry) -> Asset:
    return Asset(
        name=fields.text("name"),
        caip19=fields.text("caip19"),
        dti=fields.text("dti", ""),
        scale=fields.number("scale"),
        method=fields.member("method", NettingMethod, "positions"),
    )


def _set_method(fields: _Fields, registry: Registry) -> dict[str, Any]:
    asset = fields.asset_no(registry)
    return {"asset": asset, "method": fields.member("method", NettingMethod)}


def _set_parameters(fields: _Fields, registry: Registry) -> Any:
    now = registry.parameters
    return replace(
        now,
        governance_quorum=fields.number("governance_quorum", now.governance_quorum),
        proposal_lifetime_ms=fields.number("proposal_lifetime_ms", now.proposal_lifetime_ms),
        settlement_timeout_ms=fields.number("settlement_timeout_ms", now.settlement_timeout_ms),
        solution_timeout_ms=fields.number("solution_timeout_ms", now.solution_timeout_ms),
        submitter_open_items=fields.number("submitter_open_items", now.submitter_open_items),
    )


def _set_timetable(fields: _Fields, _: Registry) -> tuple[int, ...]:
    seconds = []
    for text in fields.texts("cut_offs"):
        match = _TIME_OF_DAY.fullmatch(text)
        if match is None:
            raise fields.refuse(f"a cut-off is HH:MM or HH:MM:SS in UTC, got {text!r}")
        hours, minutes, rest = match.groups("0")
        seconds.append(int(hours) * 3600 + int(minutes) * 60 + int(rest))
    return tuple(sorted(set(seconds)))


def _set_cap(fields: _Fields, registry: Registry) -> Cap:
    participant = fields.party_no(registry)
    return Cap(participant, fields.asset_no(registry), fields.amount("amount"))


_READERS: dict[str, tuple[ActionKind, Callable[[_Fields, Registry], Any]]] = {
    "add-participant": (ActionKind.ADD_PARTICIPANT, _add_participant),
    "set-licence": (ActionKind.SET_LICENCE, _set_licence),
    "rotate-key": (ActionKind.ROTATE_KEY, _rotate_key),
    "set-node-key": (ActionKind.SET_NODE_KEY, _set_node_key),
    "set-validator": (ActionKind.SET_VALIDATOR, _set_validator),
    "remove-validator": (ActionKind.SET_VALIDATOR, _remove_validator),
    "add-asset": (ActionKind.ADD_ASSET, _add_asset),
    "set-method": (ActionKind.SET_METHOD, _set_method),
    "set-parameters": (ActionKind.SET_PARAMETERS, _set_parameters),
    "set-timetable": (ActionKind.SET_TIMETABLE, _set_timetable),
    "set-cap": (ActionKind.SET_CAP, _set_cap),
    **BITCOIN_READERS,
}


def parse_actions(text: str, registry: Registry) -> list[Action]:
    """Read the JSON of actions that are to change `registry`, each seeing what those before it do.

    Raises: WrongUseError: not JSON, not the forms above, or a name that is not registered by then.
    """
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WrongUseError("BAD_ACTION", f"the actions are not JSON: {error}", _FORMS) from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise WrongUseError("BAD_ACTION", "the actions are not a list of objects", _FORMS)
    actions = []
    for number, row in enumerate(rows, 1):
        fields = _Fields(number, row)
        name = fields.text("action")
        if name not in _READERS:
            raise fields.refuse(f"action must be one of {', '.join(_READERS)}")
        kind, read = _READERS[name]
        action = Action(kind, read(fields, registry))
        fields.end()
        actions.append(action)
        changed, code = registry.with_action(action)
        registry = changed if code is RejectCode.OK else registry
    return actions
