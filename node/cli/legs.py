"""How the Bitcoin leg of a cycle is told: as JSON, and in a sentence why the agent settles it instead.

Lives here: what several commands say of a leg. May not live here: the commands (settle.py, cycles.py), the leg (clearing/rules).
"""

from __future__ import annotations

from typing import Any

from clearing.bitcoin.transaction import shown
from clearing.errors import VerificationError
from clearing.rules.legs import NOBODY, LegCause, LegState
from node.cli.names import Names
from node.client import Client, NotFoundError
from node.queries_bitcoin import LegRow

_WHY_BY_AGENT = {
    LegCause.NO_SCRIPT: "{who} registered no script to be paid to: `clearing settle script`, for the next cycle",
    LegCause.DUST: "{who} would be paid less than the network relays",
    LegCause.TOO_MANY: "it has more payers or payees than one transaction holds",
    LegCause.TOO_MUCH: "it comes to more than all coin there is",
}


def why_of(row: LegRow, names: Names) -> str | None:
    """Return in a sentence why a leg is settled by the agent; None where it is not."""
    if row.leg.state is not LegState.BY_AGENT:
        return None
    culprit = row.leg.culprit
    without = [one.participant for one in row.payees if not one.script]
    named = without or ([] if culprit == NOBODY else [culprit])
    who = ", ".join(map(names.party, named))
    asset = names.asset_name(row.leg.asset)
    return f"{asset} settles through the agent: " + _WHY_BY_AGENT[row.leg.cause].format(who=who)


def leg_fact(row: LegRow, names: Names) -> dict[str, Any]:
    """Return a leg as JSON; amounts in satoshi, hashes as Bitcoin shows them."""
    leg = row.leg
    fees: dict[int, int] = {}
    if leg.fee_rate:
        try:
            fees = dict(row.template().fees_sat)
        except VerificationError:
            fees = {}
    return {
        "cycle": row.cycle,
        "state": leg.state.name,
        "cause": leg.cause.name if leg.cause else None,
        "culprit": None if leg.culprit == NOBODY else names.party(leg.culprit),
        "why": why_of(row, names),
        "asset": names.asset_name(leg.asset),
        "txid": shown(leg.txid) if any(leg.txid) else None,
        "height": leg.block_height or None,
        "depth": leg.depth,
        "deadline_ms": leg.deadline_ms,
        "fee_rate": leg.fee_rate or None,
        "fee_sat": sum(fees.values()),
        "payers": [
            {
                "participant": names.party(number),
                "owes_sat": debit,
                "fee_sat": fees.get(number, 0),
                "coins": [] if named is None else [str(coin.outpoint) for coin in named.coins],
            }
            for number, debit, named in row.payers
        ],
        "payees": [
            {
                "participant": names.party(one.participant),
                "amount_sat": one.amount_sat,
                "script": one.script.hex(),
            }
            for one in row.payees
        ],
    }


def leg_in(client: Client, cycle: int) -> LegRow | None:
    """Return a cycle's leg, None where it has none of the caller's."""
    try:
        return client.leg(cycle)
    except NotFoundError:
        return None


def leg_summary(row: LegRow, names: Names) -> dict[str, Any]:
    """Return how a leg stands as JSON, without its lines."""
    keys = ("state", "cause", "culprit", "why", "asset", "txid", "height", "depth")
    fact = leg_fact(row, names)
    return {key: fact[key] for key in keys}


def leg_sentence(row: LegRow, names: Names) -> str:
    """Return how a leg stands in a sentence."""
    why = why_of(row, names)
    if why is not None:
        return why
    leg = row.leg
    said = f"{names.asset_name(leg.asset)} settles by one transaction: {leg.state.name}"
    if leg.cause:
        said += f", {leg.cause.name}"
    if leg.culprit != NOBODY:
        said += f" by {names.party(leg.culprit)}"
    return said
