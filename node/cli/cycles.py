"""`clearing cycle`, `clearing instructions` and `clearing instruction`: netting and settlement.

Lives here: the commands. May not live here: netting and settlement themselves (clearing.rules).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from clearing.types import AMOUNT_MAX, CycleState, InstructionState
from node.cli.errors import WrongUseError
from node.cli.legs import leg_in, leg_sentence, leg_summary
from node.cli.names import Names
from node.cli.obligations import CycleFilter
from node.cli.options import U32_MAX, AsJson
from node.cli.reasons import (
    UNSETTLED_ROWS_MAX,
    Left,
    assets_fact,
    by_asset,
    outcome_note,
    unsettled_table,
)
from node.cli.render import cells, print_json, progress, stdout, table, utc
from node.cli.rows import CYCLES, INSTRUCTIONS, cycle_fact, rows_wanted, words
from node.cli.session import Access, with_access
from node.client import Client, Recorded
from node.queries import CycleAssetRow, CycleRow, SettlementFilter
from node.queries_bitcoin import LegRow

SOLUTION_WAIT_S = 10.0
"""How long a command waits for the solution of a set-off; nodes that order find it at once, unless the book is huge."""

cycle_app = typer.Typer(help="Netting cycles: run, list, show.", no_args_is_help=True)
instruction_app = typer.Typer(
    help="Settle: show evidence of payment, confirm it, or give up; record what is pledged.",
    no_args_is_help=True,
)


@cycle_app.command("run")
@with_access
def run(access: Access, as_json: AsJson = False) -> None:
    """Cut off and net now, over every affirmed obligation; for the central bank and operators.

    An obligation that is not affirmed stays open for the next cycle.
    """
    with access.client() as client:
        names = Names(client.registry())
        recorded = client.run_cycle()
        number = client.cycle_begun_by(recorded.index)
        told = _told(client, number, names, access, as_json=as_json)
    _show_cycle(*told, names, as_json=as_json)


def _told(
    client: Client, number: int, names: Names, access: Access, *, as_json: bool
) -> tuple[CycleRow, tuple[CycleAssetRow, ...], Left, LegRow | None]:
    """Return all that there is to show of a cycle, waiting a little for a set-off that is being solved."""
    everyone = names.is_supervisor(access.name)
    rows_max = None if as_json else UNSETTLED_ROWS_MAX + 1
    until = time.monotonic() + SOLUTION_WAIT_S
    while True:
        found, assets = client.cycle(number, everyone=everyone)
        if found.cycle.state is not CycleState.CUT_OFF or time.monotonic() >= until:
            left = by_asset(client.unsettled(number, everyone=everyone, rows_max=rows_max))
            return found, assets, left, leg_in(client, number)
        time.sleep(0.05)


@cycle_app.command("list")
@with_access
def list_cycles(access: Access, as_json: AsJson = False) -> None:
    """List all cycles."""
    with access.client() as client:
        names = Names(client.registry())
        rows = client.cycles(rows_max=rows_wanted(as_json=as_json))
    CYCLES.show(rows, names, as_json=as_json)


@cycle_app.command("show")
@with_access
def show(
    access: Access,
    number: Annotated[
        int, typer.Argument(metavar="N", help="Number of the cycle.", min=1, max=U32_MAX)
    ],
    as_json: AsJson = False,
) -> None:
    """Show a cycle by asset: method, gross, net, net positions and movements (+ receives, - pays), what was left and why, its Bitcoin leg.

    Supervisors see everybody's net position, others their own.
    """
    with access.client() as client:
        names = Names(client.registry())
        told = _told(client, number, names, access, as_json=as_json)
    _show_cycle(*told, names, as_json=as_json)


def _show_cycle(
    found: CycleRow,
    assets: Sequence[CycleAssetRow],
    left: Left,
    leg: LegRow | None,
    names: Names,
    *,
    as_json: bool,
) -> None:
    if as_json:
        own = {} if leg is None else {"leg": leg_summary(leg, names)}
        print_json(cycle_fact(found) | {"assets": assets_fact(assets, left, names)} | own)
        return
    state = words(CycleState(found.cycle.state).name)
    final = ", final" if found.final else ""
    console = stdout()
    console.print(
        f"[bold]Cycle {found.number}[/] of {utc(found.cycle.cut_off_ms)} UTC: [bold]{state}{final}[/]"
    )
    console.print(netting_table(assets, names))
    columns = ("asset", "participant", "net position", "in this cycle", "")
    shown = table("Net positions", columns, ("net position", "in this cycle"))
    for asset in assets:
        for row in asset.rows:
            way = "receives" if row.movement > 0 else "pays" if row.movement < 0 else "even"
            amounts = (names.scaled(units, asset.asset) for units in (row.net, row.movement))
            shown.add_row(
                *cells(names.asset_name(asset.asset), names.party(row.participant), *amounts, way)
            )
    console.print(shown)
    unsettled = unsettled_table(left, names)
    if unsettled is not None:
        console.print(unsettled)
    for note in outcome_note(assets, names):
        console.print(note)
    if leg is not None:
        console.print(*cells(leg_sentence(leg, names)), soft_wrap=True)


def netting_table(assets: Sequence[CycleAssetRow], names: Names) -> Any:
    """Return a table of what netting saved, by asset."""
    columns = ("asset", "method", "obligations", "gross", "net", "saved", "saved %", "discharged")
    shown = table("Netting", columns, columns[2:])
    for asset in assets:
        gross, net = asset.gross_units, asset.net_units
        shown.add_row(
            *cells(
                names.asset_name(asset.asset),
                asset.method.name.lower(),
                f"{asset.obligations:,}",
                names.trimmed(gross, asset.asset),
                names.trimmed(net, asset.asset),
                names.trimmed(gross - net, asset.asset),
                percent(gross - net, gross),
                names.trimmed(asset.value_units, asset.asset),
            )
        )
    return shown


def percent(part: int, whole: int) -> str:
    """Return `part` of `whole` in per cent with one decimal, rounded down; "-" of nothing."""
    if not whole:
        return "-"
    tenths = part * 1000 // whole
    return f"{tenths // 10}.{tenths % 10} %"


@with_access
def instructions(
    access: Access,
    cycle: CycleFilter = None,
    state: Annotated[
        list[str] | None,
        typer.Option(metavar="STATE", help="Only in this state, such as pending; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List settlement instructions: your own, or everybody's for a supervisor."""
    with access.client() as client:
        names = Names(client.registry())
        wanted = SettlementFilter(cycle=cycle, states=tuple(_state(text) for text in state or ()))
        everyone = names.is_supervisor(access.name)
        asked = rows_wanted(as_json=as_json)
        rows = client.instructions(wanted, everyone=everyone, rows_max=asked)
    INSTRUCTIONS.show(rows, names, as_json=as_json)


def _state(text: str) -> InstructionState:
    name = text.upper().replace("-", "_")
    if name not in InstructionState.__members__:
        known = ", ".join(member.lower() for member in InstructionState.__members__)
        raise WrongUseError("BAD_STATE", f"no state {text!r}", f"Use one of: {known}.")
    return InstructionState[name]


def parse_id(text: str) -> tuple[int, int]:
    """Return cycle and number of a settlement instruction written CYCLE:NUMBER.

    Raises: WrongUseError: anything else.
    """
    cycle, _, number = text.partition(":")
    if not all(one.isascii() and one.isdigit() and len(one) < 10 for one in (cycle, number)):
        raise WrongUseError(
            "BAD_ID",
            f"{text!r} is no settlement instruction",
            "Write CYCLE:NUMBER, such as 1:0; `clearing instructions` lists them.",
        )
    return int(cycle), int(number)


Ids = Annotated[
    list[str], typer.Argument(metavar="ID...", help="CYCLE:NUMBER, as `instructions` lists them.")
]


@instruction_app.command("evidence")
@with_access
def evidence(
    access: Access,
    ids: Ids,
    *,
    file: Annotated[
        Path | None, typer.Option(help="Document that shows the payment; its SHA-256 is recorded.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Reference of the payment, such as a txid; hashed likewise.")
    ] = None,
    digest: Annotated[
        str | None, typer.Option("--hash", metavar="HEX", help="The SHA-256 itself, 64 hex digits.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show evidence that an instruction was paid; for who pays, and for the settlement agent.

    Only the SHA-256 is recorded; the evidence stays with you. Without any, the instruction's own id is hashed.
    """
    given = [one for one in (file, text, digest) if one is not None]
    if len(given) > 1:
        raise WrongUseError(
            "USAGE", "--file, --text and --hash exclude each other", "Give one of them."
        )

    def hash_of(identity: str) -> bytes:
        if digest is not None:
            return _digest(digest)
        if file is not None:
            with file.open("rb") as opened:
                return hashlib.file_digest(opened, "sha256").digest()
        return hashlib.sha256((text or identity).encode()).digest()

    hashes = {one: hash_of(one) for one in ids}
    _each(
        access,
        ids,
        "evidenced",
        lambda client, one: client.evidence(*parse_id(one), hashes[one]),
        as_json=as_json,
    )


def _digest(text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != 32:
        raise WrongUseError("BAD_HASH", f"--hash {text!r} is no SHA-256", "Give 64 hex digits.")
    return found


@instruction_app.command("confirm")
@with_access
def confirm(access: Access, ids: Ids, as_json: AsJson = False) -> None:
    """Confirm that value has arrived; for who is paid, and for the settlement agent."""
    _each(
        access,
        ids,
        "confirmed",
        lambda client, one: client.confirm(*parse_id(one)),
        as_json=as_json,
    )


@instruction_app.command("fail")
@with_access
def fail(access: Access, ids: Ids, as_json: AsJson = False) -> None:
    """Give a pay-in up: its cycle fails and its obligations return to the open book."""
    _each(access, ids, "failed", lambda client, one: client.fail(*parse_id(one)), as_json=as_json)


@instruction_app.command("pledge")
@with_access
def pledge(
    access: Access,
    participant: Annotated[str, typer.Argument(help="Name or LEI of who has pledged.")],
    asset: Annotated[str, typer.Argument(help="Asset, such as BTC.")],
    amount: Annotated[
        str, typer.Argument(metavar="UNITS", help="All that is pledged, in smallest units.")
    ],
    as_json: AsJson = False,
) -> None:
    """Record what a participant has pledged with the settlement agent; for the agent, the central bank.

    Cycles by gridlock and set-off let nobody pay more on balance than it has pledged.
    """
    # Longer than any amount, and Python refuses to read thousands of digits.
    is_number = amount.isascii() and amount.isdigit() and len(amount) < 64
    if not is_number or int(amount) > AMOUNT_MAX:
        raise WrongUseError(
            "BAD_AMOUNT", f"{amount!r} is no amount", "Give smallest units as digits, 0 for none."
        )
    with access.client() as client:
        names = Names(client.registry())
        number, asset_no = names.party_no(participant), names.asset_no(asset)
        recorded = client.pledge(names.party(number), asset, int(amount))
    if as_json:
        fact = {"participant": names.party(number), "asset": asset, "liquidity": amount}
        print_json(fact | {"index": recorded.index})
        return
    shown = names.scaled(int(amount), asset_no)
    stdout().print(f"[green]pledged[/] {names.party(number)}: {shown} {asset}")


def _each(
    access: Access,
    ids: Sequence[str],
    done: str,
    move: Callable[[Client, str], Recorded],
    *,
    as_json: bool,
) -> None:
    """Give one instruction after the other; all ids are read before the first is sent."""
    for one in ids:
        parse_id(one)
    rows = []
    with access.client() as client, progress(done, len(ids)) as bar:
        for one in ids:
            recorded = move(client, one)
            rows.append({"instruction": one, "state": done.upper(), "index": recorded.index})
            bar.advance(bar.task_ids[0])
    if as_json:
        print_json(rows)
        return
    for row in rows:
        stdout().print(f"[green]{done}[/] {row['instruction']}")
