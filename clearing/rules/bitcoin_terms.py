"""What governance sets about Bitcoin: the chain that is followed, which asset settles on it and how, miners, and tax.

Lives here: BitcoinTerms and the actions that change it. May not live here: the chain itself (handlers/chain.py), legs (legs.py),
what was mined (mined.py), who may propose (governance.py).

The scripts to which a participant is paid at settlement are not here: they are its own to set, by a signed instruction with
a proof that it holds the key (README, decisions). What a miner is paid *by the network* to is a matter of its licence, and so is here.
Invariants: a chain is set once; scripts of miners and pools are settlement scripts, each registered once.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from clearing.bitcoin.next_header import (
    HEADER_BYTES,
    HEIGHT_MAX,
    BitcoinNetwork,
    is_pinnable,
    verify_work,
)
from clearing.bitcoin.transaction import SCRIPT_BYTES_MAX, is_settlement_script
from clearing.codec import Layout, raw, reserved, text, uint
from clearing.errors import DecodeError, RejectCode, VerificationError

MILLION = 1_000_000
DEPTH_MAX = 1_000
SIGNING_MS_MAX = 30 * 86_400_000
SATOSHI_SCALE = 8
MINERS_MAX = 10_000
PAYOUTS_MAX = 20_000

CHAIN_LAYOUT = Layout(
    "set bitcoin chain",
    uint("network", 1),
    reserved(3),
    uint("height", 4),
    raw("header", HEADER_BYTES),
)
ROUTE_LAYOUT = Layout(
    "set settlement route",
    uint("asset", 2),
    uint("by_transaction", 1),
    reserved(1),
    uint("depth", 4),
    uint("signing_ms", 8),
    uint("fee_rate_max", 8),
)
MINER_LAYOUT = Layout(
    "set miner", uint("participant", 4), uint("active", 1), reserved(3), text("region", 16)
)
PAYOUT_LAYOUT = Layout(
    "set payout script",
    uint("participant", 4),
    uint("kind", 1),
    uint("active", 1),
    uint("script_bytes", 1),
    reserved(1),
    raw("script", SCRIPT_BYTES_MAX),
)
TAX_LAYOUT = Layout("set tax rule", uint("remaining_ppm", 4), uint("used_ppm", 4))


class PayoutKind(enum.IntEnum):
    """Whose a payout script is."""

    MINER = 1
    """A licensed miner is paid to it, by a coinbase or by a pool."""
    POOL = 2
    """A pool's coinbases pay to it; its participant answers for the pool."""


def pack_script(script: bytes) -> dict[str, Any]:
    """Return the fields that hold a script of at most 34 bytes in a record."""
    return {"script_bytes": len(script), "script": script.ljust(SCRIPT_BYTES_MAX, b"\0")}


def unpack_script(values: dict[str, Any]) -> bytes:
    """Take those fields out of a record's values and return the settlement script.

    Raises: DecodeError: neither P2WPKH nor P2TR, or bytes behind it that are not zero.
    """
    length, padded = values.pop("script_bytes"), values.pop("script")
    script: bytes = padded[:length]
    if not is_settlement_script(script) or any(padded[length:]):
        raise DecodeError("a settlement script is P2WPKH or P2TR, padded with zeros")
    return script


@dataclass(frozen=True, slots=True)
class ChainTerms:
    """The Bitcoin chain that is followed, from a header that governance vouches for."""

    network: BitcoinNetwork
    height: int
    header: bytes


@dataclass(frozen=True, slots=True)
class Route:
    """How the asset that lives on the chain settles: by one transaction a cycle.

    depth: blocks from the one that holds the transaction on, itself counted, before it is confirmed. signing_ms: block
    time from netting until everybody has named coins and signed. fee_rate_max: satoshi per 1,000 virtual bytes.
    """

    asset: int
    depth: int
    signing_ms: int
    fee_rate_max: int


@dataclass(frozen=True, slots=True)
class Payout:
    """A payout script, whose it is, and as what."""

    participant: int
    kind: PayoutKind
    script: bytes


@dataclass(frozen=True, slots=True)
class TaxRule:
    """Taxable base of a month in millionths: of what was mined and not used in foreign trade, and of what was used."""

    remaining_ppm: int = MILLION
    used_ppm: int = 0

    def base(self, remaining: int, used: int) -> int:
        """Return the taxable base, each part rounded down."""
        return remaining * self.remaining_ppm // MILLION + used * self.used_ppm // MILLION


_HEAD = Layout(
    "bitcoin terms",
    uint("has_chain", 1),
    uint("has_route", 1),
    reserved(2),
    uint("miners", 4),
    uint("payouts", 4),
    uint("remaining_ppm", 4),
    uint("used_ppm", 4),
)


@dataclass(frozen=True, slots=True)
class BitcoinTerms:
    """Everything above, at one height. miners: (participant, region), ascending. payouts: ascending by script."""

    chain: ChainTerms | None = None
    route: Route | None = None
    miners: tuple[tuple[int, str], ...] = ()
    payouts: tuple[Payout, ...] = ()
    tax: TaxRule = TaxRule()

    HEAD: ClassVar[Layout] = _HEAD

    def region_of(self, participant: int) -> str | None:
        """Return the region of a registered miner, or None."""
        return next((region for number, region in self.miners if number == participant), None)

    def payout(self, script: bytes) -> Payout | None:
        """Return whose a payout script is, or None."""
        return next((payout for payout in self.payouts if payout.script == script), None)

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        parts = [
            _HEAD.encode(
                has_chain=int(self.chain is not None),
                has_route=int(self.route is not None),
                miners=len(self.miners),
                payouts=len(self.payouts),
                remaining_ppm=self.tax.remaining_ppm,
                used_ppm=self.tax.used_ppm,
            )
        ]
        if self.chain is not None:
            parts.append(
                CHAIN_LAYOUT.encode(
                    network=self.chain.network, height=self.chain.height, header=self.chain.header
                )
            )
        if self.route is not None:
            parts.append(_encode_route(self.route))
        parts += [
            MINER_LAYOUT.encode(participant=number, active=1, region=region)
            for number, region in self.miners
        ]
        parts += [
            PAYOUT_LAYOUT.encode(
                participant=one.participant, kind=one.kind, active=1, **pack_script(one.script)
            )
            for one in self.payouts
        ]
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes; none at all mean that nothing was set.

        Raises: DecodeError: not canonical.
        """
        if not data:
            return cls()
        head = _HEAD.decode(data[: _HEAD.width])
        reader = _Cursor(data, _HEAD.width)
        terms = cls(tax=TaxRule(head["remaining_ppm"], head["used_ppm"]))
        if head["has_chain"]:
            terms = replace(terms, chain=_chain_of(reader.take(CHAIN_LAYOUT)))
        if head["has_route"]:
            values = reader.take(ROUTE_LAYOUT)
            del values["by_transaction"]
            terms = replace(terms, route=Route(**values))
        miners = [reader.take(MINER_LAYOUT) for _ in range(head["miners"])]
        payouts = [reader.take(PAYOUT_LAYOUT) for _ in range(head["payouts"])]
        terms = replace(
            terms,
            miners=tuple((one["participant"], one["region"]) for one in miners),
            payouts=tuple(_payout_of(one) for one in payouts),
        )
        if terms.encode() != data:
            raise DecodeError("not the canonical form of Bitcoin's terms")
        return terms


class _Cursor:
    """Reads records one after the other."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data, self._at = data, start

    def take(self, layout: Layout) -> dict[str, Any]:
        part = self._data[self._at : self._at + layout.width]
        self._at += layout.width
        return layout.decode(part)


def _encode_route(route: Route) -> bytes:
    return ROUTE_LAYOUT.encode(
        asset=route.asset,
        by_transaction=1,
        depth=route.depth,
        signing_ms=route.signing_ms,
        fee_rate_max=route.fee_rate_max,
    )


def _chain_of(values: dict[str, Any]) -> ChainTerms:
    try:
        network = BitcoinNetwork(values["network"])
    except ValueError as error:
        raise DecodeError(f"Bitcoin network {values['network']} is unknown") from error
    return ChainTerms(network, values["height"], values["header"])


def _payout_of(values: dict[str, Any]) -> Payout:
    try:
        kind = PayoutKind(values["kind"])
    except ValueError as error:
        raise DecodeError(f"payout kind {values['kind']} is unknown") from error
    return Payout(values["participant"], kind, unpack_script(values))


Change = tuple[BitcoinTerms, RejectCode]


def set_chain(terms: BitcoinTerms, values: dict[str, Any]) -> Change:
    """Follow a chain from a header on; it is set once, for what was proved on it stays proved."""
    try:
        chain = _chain_of(values)
        verify_work(chain.network, chain.header)
    except (DecodeError, VerificationError):
        return terms, RejectCode.ACTION_VALUE
    if terms.chain is not None:
        return terms, RejectCode.ACTION_DUPLICATE
    # Later retargets need the first header of their period; later heights must fit their rows.
    if not is_pinnable(chain.network, chain.height) or chain.height > HEIGHT_MAX:
        return terms, RejectCode.ACTION_VALUE
    return replace(terms, chain=chain), RejectCode.OK


def set_route(terms: BitcoinTerms, values: dict[str, Any], scales: Sequence[int]) -> Change:
    """Settle an asset by transaction from the next cycle on, or no longer; scales: of the registered assets."""
    if values["asset"] >= len(scales):
        return terms, RejectCode.ACTION_UNKNOWN_SUBJECT
    if not values["by_transaction"]:
        if terms.route is None or terms.route.asset != values["asset"]:
            return terms, RejectCode.ACTION_VALUE
        return replace(terms, route=None), RejectCode.OK
    # One chain has one asset of its own.
    if terms.route is not None and terms.route.asset != values["asset"]:
        return terms, RejectCode.ACTION_DUPLICATE
    # A transaction pays in satoshi: an amount in other units would be paid ten times too much, or more.
    if scales[values["asset"]] != SATOSHI_SCALE:
        return terms, RejectCode.ACTION_VALUE
    # Without a bound a deadline would not fit its record, and the cycle that opened the leg could not be applied.
    is_sound = 0 < values["depth"] <= DEPTH_MAX and 0 < values["signing_ms"] <= SIGNING_MS_MAX
    if terms.chain is None or values["by_transaction"] != 1 or not is_sound:
        return terms, RejectCode.ACTION_VALUE
    if not 1_000 <= values["fee_rate_max"] <= 100_000_000:
        return terms, RejectCode.ACTION_VALUE
    route = Route(values["asset"], values["depth"], values["signing_ms"], values["fee_rate_max"])
    return replace(terms, route=route), RejectCode.OK


def set_miner(terms: BitcoinTerms, values: dict[str, Any], participants: int) -> Change:
    """Enter a participant in the register of miners, change its region, or take it out."""
    number = values["participant"]
    if number >= participants:
        return terms, RejectCode.ACTION_UNKNOWN_SUBJECT
    others = tuple(one for one in terms.miners if one[0] != number)
    if not values["active"]:
        if len(others) == len(terms.miners) or values["region"]:
            return terms, RejectCode.ACTION_VALUE
        return replace(terms, miners=others), RejectCode.OK
    if values["active"] != 1 or not values["region"] or len(others) >= MINERS_MAX:
        return terms, RejectCode.ACTION_VALUE
    miners = tuple(sorted((*others, (number, values["region"]))))
    return replace(terms, miners=miners), RejectCode.OK


def set_payout(terms: BitcoinTerms, values: dict[str, Any], participants: int) -> Change:
    """Register a payout script of a miner or a pool, or take it out."""
    is_active = values["active"]
    try:
        payout = _payout_of(dict(values))
    except DecodeError:
        return terms, RejectCode.ACTION_VALUE
    if payout.participant >= participants:
        return terms, RejectCode.ACTION_UNKNOWN_SUBJECT
    if not is_active:
        if payout not in terms.payouts:
            return terms, RejectCode.ACTION_VALUE
        rest = tuple(one for one in terms.payouts if one != payout)
        return replace(terms, payouts=rest), RejectCode.OK
    # One script, one owner: else two could claim one coin.
    if terms.payout(payout.script) is not None:
        return terms, RejectCode.ACTION_DUPLICATE
    is_miner = terms.region_of(payout.participant) is not None
    if is_active != 1 or (payout.kind is PayoutKind.MINER and not is_miner):
        return terms, RejectCode.ACTION_VALUE
    if len(terms.payouts) >= PAYOUTS_MAX:
        return terms, RejectCode.ACTION_VALUE
    payouts = tuple(sorted((*terms.payouts, payout), key=lambda one: one.script))
    return replace(terms, payouts=payouts), RejectCode.OK


def set_tax(terms: BitcoinTerms, values: dict[str, Any]) -> Change:
    """Set the taxable base's rule, for reports of every month from now on made."""
    if values["remaining_ppm"] > MILLION or values["used_ppm"] > MILLION:
        return terms, RejectCode.ACTION_VALUE
    return replace(terms, tax=TaxRule(**values)), RejectCode.OK
