"""Governance actions about Bitcoin as JSON.

Lives here: reading them. May not live here: other actions (actions.py), what they do (clearing/rules/bitcoin_terms.py).

    {"action": "set-bitcoin-chain", "network": "main"|"testnet4"|"signet"|"regtest", "height", "header": HEX of 80 bytes}
    {"action": "set-route", "asset", "depth", "signing_ms", "fee_rate_max"}
    {"action": "end-route", "asset"}
    {"action": "set-miner", "participant", "region"}                    {"action": "remove-miner", "participant"}
    {"action": "add-payout-script", "participant", "kind": "miner"|"pool", "script": address or hex}
    {"action": "remove-payout-script", "participant", "kind", "script"}
    {"action": "set-tax-rule", "remaining_ppm", "used_ppm"}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from clearing.bitcoin.next_header import HEADER_BYTES, BitcoinNetwork
from clearing.rules.bitcoin_terms import PayoutKind, pack_script
from clearing.rules.registry import ActionKind, Registry
from node.errors import SetupError
from node.settlement.files import script_of


class Fields(Protocol):
    """The fields of one action, as actions.py reads them."""

    def refuse(self, sentence: str) -> Exception:
        """Return the error that says `sentence`."""

    def text(self, name: str) -> str:
        """Take a text."""

    def number(self, name: str) -> int:
        """Take a whole number."""

    def member(self, name: str, kind: type[Any]) -> Any:
        """Take the name of a member."""

    def party_no(self, registry: Registry) -> int:
        """Take the participant and return its registry number."""

    def asset_no(self, registry: Registry) -> int:
        """Take the asset and return its registry number."""


def _chain(fields: Fields, _: Registry) -> dict[str, Any]:
    network = fields.member("network", BitcoinNetwork)
    height, text = fields.number("height"), fields.text("header")
    try:
        header = bytes.fromhex(text)
    except ValueError:
        header = b""
    if len(header) != HEADER_BYTES:
        raise fields.refuse(f"header must be {2 * HEADER_BYTES} hex digits")
    return {"network": network, "height": height, "header": header}


def _route(fields: Fields, registry: Registry) -> dict[str, Any]:
    names = ("depth", "signing_ms", "fee_rate_max")
    asset = fields.asset_no(registry)
    return {"asset": asset, "by_transaction": 1, **{name: fields.number(name) for name in names}}


def _end_route(fields: Fields, registry: Registry) -> dict[str, Any]:
    none = dict.fromkeys(("by_transaction", "depth", "signing_ms", "fee_rate_max"), 0)
    return {"asset": fields.asset_no(registry), **none}


def _miner(fields: Fields, registry: Registry) -> dict[str, Any]:
    number = fields.party_no(registry)
    return {"participant": number, "active": 1, "region": fields.text("region")}


def _no_miner(fields: Fields, registry: Registry) -> dict[str, Any]:
    return {"participant": fields.party_no(registry), "active": 0, "region": ""}


def _payout(active: int) -> Callable[[Fields, Registry], dict[str, Any]]:
    def read(fields: Fields, registry: Registry) -> dict[str, Any]:
        number, kind = fields.party_no(registry), fields.member("kind", PayoutKind)
        try:
            script = script_of(fields.text("script"))
        except SetupError as error:
            raise fields.refuse(str(error)) from error
        return {"participant": number, "kind": kind, "active": active, **pack_script(script)}

    return read


def _tax(fields: Fields, _: Registry) -> dict[str, Any]:
    names = ("remaining_ppm", "used_ppm")
    return {name: fields.number(name) for name in names}


BITCOIN_READERS: dict[str, tuple[ActionKind, Callable[[Any, Registry], Any]]] = {
    "set-bitcoin-chain": (ActionKind.SET_BITCOIN_CHAIN, _chain),
    "set-route": (ActionKind.SET_ROUTE, _route),
    "end-route": (ActionKind.SET_ROUTE, _end_route),
    "set-miner": (ActionKind.SET_MINER, _miner),
    "remove-miner": (ActionKind.SET_MINER, _no_miner),
    "add-payout-script": (ActionKind.SET_PAYOUT_SCRIPT, _payout(1)),
    "remove-payout-script": (ActionKind.SET_PAYOUT_SCRIPT, _payout(0)),
    "set-tax-rule": (ActionKind.SET_TAX_RULE, _tax),
}
