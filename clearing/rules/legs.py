"""The Bitcoin leg of a cycle: one transaction that pays every net position of one asset, or none.

Lives here: the leg's record and lifecycle, the coins that payers name, and when an asset settles this way. May not live here:
the transaction (clearing/bitcoin), the chain, what a leg does to its cycle (handlers/legs.py).

A leg is WAITING until every payer has named its coins and every other pay-in of the cycle is confirmed, for only then may coin move:
nothing settles in part. From BROADCAST on every signature is there and the transaction may be mined at any time, so no
deadline ends it any more: only its depth, or another transaction that spends one of its coins, as deep.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from clearing.bitcoin.settlement import (
    INPUTS_MAX,
    PAYEES_MAX,
    PAYERS_MAX,
    Coin,
    Payee,
)
from clearing.bitcoin.transaction import (
    MONEY_SAT_MAX,
    OUTPOINT_BYTES,
    SCRIPT_BYTES_MAX,
    Outpoint,
    dust_sat,
)
from clearing.codec import Layout, raw, reserved, split_records, uint
from clearing.errors import DecodeError
from clearing.rules.bitcoin_terms import pack_script, unpack_script
from clearing.rules.lifecycle import Lifecycle

NOBODY = (1 << 32) - 1
"""Where a record names a participant and there is none."""

COINS_MAX = 64
"""Most coins that one payer names for one leg."""


class LegState(enum.IntEnum):
    """Where a leg stands."""

    WAITING = 1
    OFFERED = 2
    BROADCAST = 3
    MINED = 4
    CONFIRMED = 5
    FAILED = 6
    BY_AGENT = 7
    """One transaction cannot pay these nets, so the settlement agent settles them as it does other assets."""


class LegCause(enum.IntEnum):
    """Why a leg failed, or is the agent's; `Leg.culprit` is who did or did not, or cannot be paid."""

    NONE = 0
    REFUSED = 1
    """A payer said no."""
    NO_COINS = 2
    """A payer had not named its coins by the deadline."""
    NOT_SIGNED = 3
    """A payer had not signed by the deadline, on the settlement agent's signed word."""
    SPENT = 4
    """A payer's coin was spent by another transaction, which the chain shows."""
    NOT_OFFERED = 5
    """The settlement agent had not offered the transaction by the deadline."""
    TIMED_OUT = 6
    """The cycle's own time-out passed."""
    CYCLE_FAILED = 7
    """Another pay-in of the cycle failed."""
    NO_SCRIPT = 8
    """By the agent: a payee has registered no script; the first of them is named."""
    DUST = 9
    """By the agent: a payee would be paid less than the network relays; the first of them is named."""
    TOO_MANY = 10
    """By the agent: more payers or payees than one transaction holds."""
    TOO_MUCH = 11
    """By the agent: more than all coin there is."""


LIFECYCLE = Lifecycle(
    "bitcoin leg of a cycle",
    LegState.WAITING,
    (
        (LegState.WAITING, LegState.OFFERED, "coins are named, other pay-ins confirmed, fee set"),
        (LegState.OFFERED, LegState.BROADCAST, "every payer has signed"),
        (LegState.OFFERED, LegState.MINED, "the best chain holds the transaction"),
        (LegState.BROADCAST, LegState.MINED, "the best chain holds the transaction"),
        (LegState.MINED, LegState.BROADCAST, "a reorganisation takes it out again"),
        (LegState.MINED, LegState.CONFIRMED, "deep enough"),
        (LegState.WAITING, LegState.FAILED, "refusal, deadline, or the cycle fails"),
        (LegState.OFFERED, LegState.FAILED, "refusal, deadline, or a coin is spent otherwise"),
        (LegState.BROADCAST, LegState.FAILED, "a coin is spent otherwise, deep enough"),
        (LegState.WAITING, LegState.BY_AGENT, "at once, where one transaction cannot pay"),
    ),
)


@dataclass(frozen=True, slots=True)
class Leg:
    """One cycle's leg. depth, fee_rate_max: as governed when the cycle was netted. deadline_ms: block time.

    payers, payees: numbers of each. fee_rate and txid: zero before the offer. block_hash, block_height: where it is mined, or
    was before a reorganisation, zero before. culprit: NOBODY unless `cause` has one.
    """

    asset: int
    state: LegState
    cause: LegCause
    depth: int
    payers: int
    payees: int
    culprit: int
    deadline_ms: int
    fee_rate_max: int
    fee_rate: int = 0
    txid: bytes = bytes(32)
    block_hash: bytes = bytes(32)
    block_height: int = 0

    LAYOUT: ClassVar[Layout] = Layout(
        "bitcoin leg",
        uint("asset", 2),
        uint("state", 1),
        uint("cause", 1),
        uint("depth", 4),
        uint("payers", 4),
        uint("payees", 4),
        uint("culprit", 4),
        uint("block_height", 4),
        uint("deadline_ms", 8),
        uint("fee_rate_max", 8),
        uint("fee_rate", 8),
        raw("txid", 32),
        raw("block_hash", 32),
    )

    def encode(self) -> bytes:
        """Return the canonical 112 bytes."""
        fields = self.LAYOUT.fields
        return self.LAYOUT.encode(**{field.name: getattr(self, field.name) for field in fields})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length, or an unknown state or cause.
        """
        values = cls.LAYOUT.decode(data)
        try:
            values["state"] = LegState(values["state"])
            values["cause"] = LegCause(values["cause"])
        except ValueError as error:
            raise DecodeError(str(error)) from error
        return cls(**values)

    @property
    def is_over(self) -> bool:
        """Whether nothing can happen to it any more."""
        return LIFECYCLE.is_terminal(self.state)

    @property
    def may_be_mined(self) -> bool:
        """Whether value may be under way, so that no deadline may end it."""
        return self.state in (LegState.BROADCAST, LegState.MINED)


_COIN = Layout(
    "coin",
    raw("outpoint", OUTPOINT_BYTES),
    uint("amount_sat", 8),
    uint("script_bytes", 1),
    reserved(1),
    raw("script", SCRIPT_BYTES_MAX),
)
_COINS = Layout(
    "coins for a leg",
    uint("cycle", 4),
    uint("coins", 2),
    uint("script_bytes", 1),
    reserved(1),
    raw("script", SCRIPT_BYTES_MAX),
)


@dataclass(frozen=True, slots=True)
class NamedCoins:
    """The coins that a payer brings to a cycle's leg, and the script that its change goes to."""

    cycle: int
    change_script: bytes
    coins: tuple[Coin, ...]

    LAYOUT: ClassVar[Layout] = _COINS
    COIN: ClassVar[Layout] = _COIN

    def encode(self) -> bytes:
        """Return the canonical bytes: 42, and 80 for each coin."""
        head = _COINS.encode(
            cycle=self.cycle, coins=len(self.coins), **pack_script(self.change_script)
        )
        return head + b"".join(
            _COIN.encode(
                outpoint=coin.outpoint.encode(),
                amount_sat=coin.amount_sat,
                **pack_script(coin.script),
            )
            for coin in self.coins
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length, no coin or too many, one twice, one of no transaction, no settlement script, or
        an amount beyond all money.
        """
        head = _COINS.decode(data[: _COINS.width])
        if not 0 < head["coins"] <= COINS_MAX:
            raise DecodeError(f"a payer names 1 to {COINS_MAX} coins")
        coins = []
        for part in split_records(data[_COINS.width :], _COIN.width, head["coins"], "coins"):
            values = _COIN.decode(part)
            if not 0 < values["amount_sat"] <= MONEY_SAT_MAX:
                raise DecodeError("a coin holds between one satoshi and all there are")
            outpoint = Outpoint.decode(values["outpoint"])
            # What a coinbase spends is no coin, and a transaction that spends it beside others is none.
            if not any(outpoint.txid):
                raise DecodeError("a coin is the output of a transaction")
            coins.append(Coin(outpoint, values["amount_sat"], unpack_script(values)))
        if len({coin.outpoint for coin in coins}) != len(coins):
            raise DecodeError("a coin is named twice")
        return cls(head["cycle"], unpack_script(head), tuple(coins))


def why_by_agent(
    debits: Sequence[int], payees: Sequence[tuple[int, int, bytes | None]]
) -> tuple[LegCause, int] | None:
    """Return why one transaction cannot pay these net positions and whom it cannot, NOBODY where nobody in particular.

    payees: (participant, amount, registered script), ascending by participant. Returns: None where it can.
    """
    if len(debits) > PAYERS_MAX or len(payees) > PAYEES_MAX:
        return LegCause.TOO_MANY, NOBODY
    if max(debits) > MONEY_SAT_MAX or sum(debits) > MONEY_SAT_MAX:
        return LegCause.TOO_MUCH, NOBODY
    for participant, _, script in payees:
        if script is None:
            return LegCause.NO_SCRIPT, participant
    for participant, amount, script in payees:
        if script is not None and amount < dust_sat(script):
            return LegCause.DUST, participant
    return None


def coins_max(payers: int) -> int:
    """Return how many coins each of `payers` may name, so that the transaction stays within its limits."""
    return min(COINS_MAX, INPUTS_MAX // payers)


def surplus_sat_max(payers: int, paid_sat: int) -> int:
    """Return how much more than it owes each of `payers` may bring to a leg that pays `paid_sat`.

    So that all outputs, change included, stay within all coin there is: beyond that they are no transaction.
    """
    return (MONEY_SAT_MAX - paid_sat) // payers


__all__ = [
    "COINS_MAX",
    "LIFECYCLE",
    "NOBODY",
    "Leg",
    "LegCause",
    "LegState",
    "NamedCoins",
    "Payee",
    "coins_max",
    "surplus_sat_max",
    "why_by_agent",
]
