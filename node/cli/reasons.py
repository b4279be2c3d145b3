"""`clearing why`, and how a cycle's result is told: what it discharged, what it did not, and why.

Lives here: the command, and JSON and tables of results; keys are those of `clearing net`, where a file's ids stand
SUBMISSION:ITEM. May not live here: the computation (clearing.handlers.reasons).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from clearing.handlers.reasons import Explanation
from clearing.types import NettingMethod, ObligationState, ResultOutcome
from node.cli.errors import WrongUseError
from node.cli.names import Names
from node.cli.options import U32_MAX, AsJson
from node.cli.render import cells, print_json, stdout, table
from node.cli.session import Access, with_access
from node.netting.keys import TRANSFER, UNSETTLED, figures
from node.netting.table import AGENT_NAME
from node.netting_queries import UnsettledRow
from node.queries import CycleAssetRow

_U64_MAX = (1 << 64) - 1
UNSETTLED_ROWS_MAX = 40
"""Rows of a table of what a cycle left; JSON always has all."""

Left = Mapping[int, Sequence[UnsettledRow]]
"""What a cycle left, by asset."""


def by_asset(rows: Sequence[UnsettledRow]) -> Left:
    """Group what a cycle left by asset; order within an asset stays."""
    found: dict[int, list[UnsettledRow]] = {}
    for row in rows:
        found.setdefault(row.asset, []).append(row)
    return found


def assets_fact(assets: Sequence[CycleAssetRow], left: Left, names: Names) -> dict[str, Any]:
    """Return a cycle's result by asset as JSON."""
    return {
        names.asset_name(asset.asset): _asset_fact(asset, left.get(asset.asset, ()), names)
        for asset in assets
    }


def _asset_fact(asset: CycleAssetRow, left: Sequence[UnsettledRow], names: Names) -> dict[str, Any]:
    fact = figures(
        obligations=asset.obligations,
        gross=asset.gross_units,
        net=asset.net_units,
        liquidity_used=asset.liquidity_used_units,
    ) | {
        "positions": {names.party(row.participant): str(row.net) for row in asset.rows},
        "method": asset.method.name.lower(),
        "outcome": asset.outcome.name.lower(),
        "value": str(asset.value_units),
        "movements": {names.party(row.participant): str(row.movement) for row in asset.rows},
        "transfers": [
            dict(zip(TRANSFER, (payer, payee, str(amount)), strict=True))
            for payer, payee, amount in _transfers(asset, names)
        ],
        "unsettled": [dict(zip(UNSETTLED, _unsettled(row, names), strict=True)) for row in left],
    }
    if asset.solution_index:
        # No ledger takes a solution whose gap is not zero.
        fact["certificate"] = {
            "solution": asset.solution_index,
            "potentials": {
                names.party(row.participant): asset.potentials.get(row.participant, 0)
                for row in asset.rows
            },
            "bound": str(asset.value_units),
            "gap": "0",
        }
    return fact


def _unsettled(row: UnsettledRow, names: Names) -> tuple[str, str, str, str]:
    """Return what stands under the keys of an unsettled obligation."""
    return (
        f"{row.submission}:{row.item}",
        row.reason.name,
        names.party(row.participant),
        str(row.short_units),
    )


def _transfers(asset: CycleAssetRow, names: Names) -> list[tuple[str, str, int]]:
    """Return pay-ins, then pay-outs, each by participant."""
    moves = [(names.party(row.participant), row.movement) for row in asset.rows if row.movement]
    return [(name, AGENT_NAME, -amount) for name, amount in moves if amount < 0] + [
        (AGENT_NAME, name, amount) for name, amount in moves if amount > 0
    ]


def unsettled_table(left: Left, names: Names) -> Any | None:
    """Return a table of what a cycle left, the first of it; None where it left nothing."""
    rows = [row for asset in sorted(left) for row in left[asset]]
    if not rows:
        return None
    title = "Not discharged"
    if len(rows) > UNSETTLED_ROWS_MAX:
        title += f" (the first {UNSETTLED_ROWS_MAX}; there are more, and --json shows all)"
    shown = table(title, ("item", "asset", "for want of", "of", "short"), ("short",))
    for row in rows[:UNSETTLED_ROWS_MAX]:
        shown.add_row(
            *cells(
                f"{row.submission}:{row.item}",
                names.asset_name(row.asset),
                _WANTS[row.reason.name],
                names.party(row.participant),
                names.scaled(row.short_units, row.asset),
            )
        )
    return shown


_WANTS = {
    "LIQUIDITY": "liquidity",
    "CAP": "net debit cap",
    "COUNTERCLAIM": "a counterclaim",
    "CYCLE": "a circle of claims",
    "EXCLUDED": "a licence in force",
}


@with_access
def why(
    access: Access,
    identity: Annotated[
        str,
        typer.Argument(metavar="ID", help="SUBMISSION:ITEM, as `clearing obligations` lists them."),
    ],
    as_json: AsJson = False,
) -> None:
    """Say why an obligation is not discharged, and the cheapest change that would discharge it.

    It is computed for a cycle that would be cut off now. Parties may ask of their own obligations, supervisors of all.
    """
    submission, item = parse_item(identity)
    with access.client() as client:
        names = Names(client.registry())
        everyone = names.is_supervisor(access.name)
        found = client.reason(submission, item, everyone=everyone)
    if as_json:
        print_json(_reason_fact(identity, found, names))
        return
    for line in sentences(found, names):
        stdout().print(line)


def parse_item(text: str) -> tuple[int, int]:
    """Return submission and item of an obligation written SUBMISSION:ITEM.

    Raises: WrongUseError: anything else.
    """
    submission, _, item = text.partition(":")
    parts = (submission, item)
    if all(one.isascii() and one.isdigit() and len(one) <= 20 for one in parts):
        numbers = int(submission), int(item)
        if numbers[0] <= _U64_MAX and numbers[1] <= U32_MAX:
            return numbers
    raise WrongUseError(
        "BAD_ID",
        f"{text!r} is no obligation",
        "Write SUBMISSION:ITEM, such as 2:0; `clearing obligations` lists them.",
    )


def _reason_fact(identity: str, found: Explanation, names: Names) -> dict[str, Any]:
    change = found.change
    return {
        "id": identity,
        "state": found.state.name,
        "method": found.method.name.lower(),
        "settles": found.settles,
        "reason": found.reason.name if found.reason else None,
        "participant": names.party(found.participant) if found.reason else None,
        "short": str(found.short_units) if found.reason else None,
        "change": None
        if change is None
        else {
            "participant": names.party(change.participant),
            "liquidity": str(change.liquidity),
            "cap": str(change.cap),
        },
    }


_STATE_SENTENCES = {
    ObligationState.PROPOSED: "It is proposed: the other party must affirm it before a cycle takes it.",
    ObligationState.LOCKED: "A running cycle holds it; it is discharged when that cycle settles.",
    ObligationState.SETTLED: "It is settled.",
    ObligationState.REJECTED: "The other party has rejected it.",
    ObligationState.RESCINDED: "Its submitter has rescinded it.",
    ObligationState.EXPIRED: "It lapsed unaffirmed.",
}


def sentences(found: Explanation, names: Names) -> list[str]:
    """Return the answer in words."""
    if found.state in _STATE_SENTENCES:
        return [_STATE_SENTENCES[found.state]]
    method = found.method.name.lower()
    if found.settles:
        return [f"Nothing stands against it: a cycle cut off now, by {method}, would discharge it."]
    if found.reason is None:
        return ["It waits for a cycle."]
    short = names.scaled(found.short_units, found.asset)
    told = [
        f"Netted by {method}, it wants {_WANTS[found.reason.name]} of {names.party(found.participant)}"
        + (f": {short} short." if found.short_units else ".")
    ]
    change = found.change
    if change is not None:
        wants = []
        if change.liquidity:
            wants.append(f"pledges {names.scaled(change.liquidity, found.asset)} more")
        if change.cap:
            wants.append(f"gets a cap higher by {names.scaled(change.cap, found.asset)}")
        gridlock = found.method is NettingMethod.GRIDLOCK
        least = "The cheapest change" if gridlock else "The least that is sure to discharge it"
        told.append(f"{least}: {names.party(change.participant)} {' and '.join(wants)}.")
    return told


def outcome_note(assets: Sequence[CycleAssetRow], names: Names) -> list[str]:
    """Return a sentence for each asset whose set-off is awaited or was never solved."""
    notes = []
    for asset in assets:
        name = names.asset_name(asset.asset)
        if asset.outcome is ResultOutcome.AWAITING:
            notes.append(f"{name} waits for a proposer's set-off.")
        elif asset.outcome is ResultOutcome.UNSOLVED:
            notes.append(f"{name} got no valid set-off in time; its obligations went back.")
    return notes
