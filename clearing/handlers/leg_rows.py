"""The rows of Bitcoin legs: read, opened with a cycle, closed with it; the coins that they hold.

Lives here: what cycles.py needs to know of legs. May not live here: what moves a leg (legs.py).
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import replace

from clearing.bitcoin.settlement import Payee, Payer, Template, make_template
from clearing.bitcoin.transaction import Outpoint
from clearing.errors import invariant
from clearing.rows import Table, key_position, key_script, key_u32
from clearing.rules.legs import (
    LIFECYCLE,
    NOBODY,
    Leg,
    LegCause,
    LegState,
    NamedCoins,
    why_by_agent,
)
from clearing.rules.settlement import SettlementInstruction
from clearing.state import Draft
from clearing.types import SettlementKind

LEG_COIN = b"L"
DECLARED_COIN = b"D"


def leg_of(draft: Draft, cycle: int) -> Leg | None:
    """Return a cycle's leg, or None where it has none."""
    row = draft.get(Table.LEGS, key_u32(cycle))
    return None if row is None else Leg.decode(row)


def settles(draft: Draft, cycle: int, asset: int) -> bool:
    """Return whether a cycle's transaction settles this asset, and not the agent."""
    leg = leg_of(draft, cycle)
    return leg is not None and leg.asset == asset and leg.state is not LegState.BY_AGENT


def set_leg(draft: Draft, cycle: int, leg: Leg) -> None:
    """Write a leg."""
    draft.put(Table.LEGS, key_u32(cycle), leg.encode())


def script_at(draft: Draft, participant: int, asset: int, index: int) -> bytes | None:
    """Return the settlement script that was registered last before log index `index`, or None."""
    start = key_script(participant, asset, index - 1)
    # However many it has registered, the newest stands first.
    row = draft.first(Table.SCRIPTS, key_position(participant, asset), start)
    return None if row is None else row[1]


def open_leg(draft: Draft, cycle: int, instructions: Sequence[SettlementInstruction]) -> None:
    """Open the leg of a cycle that is being netted and moves the asset that settles by transaction.

    Where one transaction cannot pay it, the leg says why, and its instructions go through the settlement agent as any
    other's. Caller: before the cycle's leaf.
    """
    route = draft.registry.bitcoin.route
    if route is None:
        return
    own = [one for one in instructions if one.asset == route.asset]
    debits = [one.amount_units for one in own if one.kind is SettlementKind.PAY_IN]
    payees = [
        (
            one.participant,
            one.amount_units,
            script_at(draft, one.participant, one.asset, draft.next_index),
        )
        for one in own
        if one.kind is SettlementKind.PAY_OUT
    ]
    if not own:
        return
    leg = Leg(
        asset=route.asset,
        state=LegState.WAITING,
        cause=LegCause.NONE,
        depth=route.depth,
        payers=len(debits),
        payees=len(payees),
        culprit=NOBODY,
        deadline_ms=draft.time_ms + route.signing_ms,
        fee_rate_max=route.fee_rate_max,
    )
    why = why_by_agent(debits, payees)
    if why is not None:
        state = LIFECYCLE.require(leg.state, LegState.BY_AGENT)
        leg = replace(leg, state=state, cause=why[0], culprit=why[1], deadline_ms=0)
    set_leg(draft, cycle, leg)


def close_leg(
    draft: Draft,
    cycle: int,
    cause: LegCause = LegCause.CYCLE_FAILED,
    culprit: int = NOBODY,
) -> None:
    """Fail a cycle's leg, if there is one that is not over, and release its coins."""
    leg = leg_of(draft, cycle)
    if leg is None or leg.is_over:
        return
    state = LIFECYCLE.require(leg.state, LegState.FAILED)
    set_leg(draft, cycle, replace(leg, state=state, cause=cause, culprit=culprit))
    release_coins(draft, cycle)


def release_coins(draft: Draft, cycle: int) -> None:
    """Let the coins of a leg be named again elsewhere."""
    for _, named in named_coins(draft, cycle):
        for coin in named.coins:
            draft.put(Table.COINS, LEG_COIN + coin.outpoint.encode(), None)


def may_be_mined(draft: Draft, cycle: int) -> bool:
    """Return whether a cycle's transaction is signed by all, so that no deadline may fail the cycle."""
    leg = leg_of(draft, cycle)
    return leg is not None and leg.may_be_mined


def named_coins(draft: Draft, cycle: int) -> Iterator[tuple[int, NamedCoins]]:
    """Yield (payer, its coins) of a leg, ascending."""
    for key, value in list(draft.scan(Table.LEG_COINS, key_u32(cycle))):
        yield int.from_bytes(key[4:], "big"), NamedCoins.decode(value)


def holder_of(draft: Draft, outpoint: Outpoint) -> tuple[int, int] | None:
    """Return (cycle, payer) of the leg that holds a coin, or None."""
    row = draft.get(Table.COINS, LEG_COIN + outpoint.encode())
    if row is None:
        return None
    return int.from_bytes(row[:4], "big"), int.from_bytes(row[4:], "big")


def instructions_in(
    draft: Draft, cycle: int, asset: int, participant: int = 0
) -> Iterator[tuple[int, SettlementInstruction]]:
    """Yield (number, instruction) of a cycle in one asset, refunds aside, ascending from a participant on.

    Numbers follow asset, then participant, and refunds stand behind all others: what is asked for is found by halving.
    """
    found = draft.cycle(cycle)
    numbers = range(0 if found is None else found.instructions)

    def is_reached(number: int) -> bool:
        item = draft.settlement(cycle, number)
        invariant(item is not None, "a settlement instruction of a cycle is missing")
        if item is None or item.kind is SettlementKind.REFUND:
            return True
        return (item.asset, item.participant) >= (asset, participant)

    for number in numbers[bisect.bisect_left(numbers, True, key=is_reached) :]:
        item = draft.settlement(cycle, number)
        if item is None or item.asset != asset or item.kind is SettlementKind.REFUND:
            return
        yield number, item


def debit_of(draft: Draft, cycle: int, asset: int, participant: int) -> int:
    """Return what a participant pays net in a cycle's asset, 0 for nothing."""
    _, item = next(instructions_in(draft, cycle, asset, participant), (0, None))
    if item is None or item.participant != participant or item.kind is not SettlementKind.PAY_IN:
        return 0
    return item.amount_units


def payees_of(draft: Draft, cycle: int, leg: Leg) -> tuple[Payee, ...]:
    """Return the payees of a leg with the scripts that were registered when the cycle was netted, ascending."""
    found = draft.cycle(cycle)
    invariant(found is not None, f"cycle {cycle} of a leg is missing")
    index = 0 if found is None else found.netted_index
    payees = []
    for _, item in instructions_in(draft, cycle, leg.asset):
        if item.kind is SettlementKind.PAY_OUT:
            script = script_at(draft, item.participant, leg.asset, index)
            invariant(script is not None, "a payee of a leg has no script")
            payees.append(Payee(item.participant, item.amount_units, script or b""))
    return tuple(payees)


def template_of(draft: Draft, cycle: int, leg: Leg, fee_rate: int) -> Template:
    """Return the leg's one transaction at a fee rate. Caller's duty: every payer has named its coins.

    Raises: VerificationError: a payer's coins do not cover what it owes.
    """
    payers = [
        Payer(number, debit_of(draft, cycle, leg.asset, number), named.coins, named.change_script)
        for number, named in named_coins(draft, cycle)
    ]
    return make_template(payers, payees_of(draft, cycle, leg), fee_rate)
