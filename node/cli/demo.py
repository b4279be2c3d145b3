"""`clearing demo`: the whole ledger once through on this machine, told step by step.

Lives here: the command, its printing, and reading a back office's file for it. May not live here: the steps (demo.py).
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from clearing.rules.registry import Registry
from clearing.types import OBLIGORS
from node.cli.cycles import netting_table
from node.cli.errors import WrongUseError
from node.cli.names import Names
from node.cli.obligation_file import REMEDIES_OF_FILES, REQUIRED, Directory, parse_obligations
from node.cli.options import AsJson
from node.cli.render import cells, literal, notice, print_json, stdout, table
from node.cli.session import told
from node.client import ClientError
from node.csv_file import FaultLog, open_rows
from node.demo import Demo
from node.queries import CycleAssetRow
from node.services.facade import NodeStatus
from node.testnet.plan import (
    ASSETS,
    AUTHORITIES,
    PARTICIPANTS_MAX,
    Party,
    cast_of,
    numbered_parties,
)
from node.testnet.status import NodeReport
from node.testnet.trade import Trade, make_trades

PARTICIPANTS = 12


def demo(
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            help="Where the network's files go; a temporary place if left out.",
            file_okay=False,
        ),
    ] = None,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Leave the network's directory for `clearing testnet up`."),
    ] = False,
    obligations: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Obligations to use, as `clearing submit` reads them; parties may have any names.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Watch the whole ledger work on this machine, in under half a minute.

    Five nodes as processes (central bank, ministry, two banks, an exchange), thousands of signed obligations,
    affirmation, kill -9 of the leader, a netting cycle, settlement to finality, an anchor in a Bitcoin test chain that
    stock `ots` verifies and that survives a reorganisation, receipts that verify with every node switched off, and
    flipped bytes that are found.
    """
    parties, trades = _from_file(obligations) if obligations else _generated()
    chosen = directory or Path(tempfile.mkdtemp(prefix="clearing-demo-"))
    is_new = not chosen.exists() or not any(chosen.iterdir())
    if not is_new:
        raise WrongUseError("USAGE", f"{chosen} is not empty", "Give a new directory.")
    try:
        with Telling(quiet=as_json) as tell, Demo(chosen, parties, trades, tell) as run:
            facts = run.run()
            tell.done(facts["seconds"])
    except ClientError as error:
        raise told(error) from error
    finally:
        if not keep:
            shutil.rmtree(chosen, ignore_errors=True)
    facts["directory"] = str(chosen) if keep else None
    if as_json:
        print_json(facts)
    elif keep:
        stdout().print(
            f"kept in {chosen}: [bold]clearing testnet up --dir {chosen}[/] starts it again",
            soft_wrap=True,
        )


def _generated() -> tuple[list[Party], list[Trade]]:
    parties = numbered_parties(PARTICIPANTS)
    return parties, make_trades(parties)


def _from_file(path: Path) -> tuple[list[Party], list[Trade]]:
    """Return the parties and obligations of a back office's file.

    Raises: WrongUseError: the file has faults, is empty, or names too many parties.
    """
    data = path.read_bytes()
    names = _party_names(data)
    if len(names) > PARTICIPANTS_MAX:
        raise WrongUseError(
            "TOO_MANY_PARTIES",
            f"{path} names {len(names):,} parties; one machine's demonstration takes {PARTICIPANTS_MAX:,}",
            "Give a part of the file.",
        )
    parties, called = cast_of(names)
    everybody = [*AUTHORITIES, *parties]
    spelled = {party.name: n for n, party in enumerate(everybody) if party.role in OBLIGORS}
    spelled |= {party.lei: n for n, party in enumerate(everybody) if party.role in OBLIGORS}
    spelled |= {name: spelled[registered] for name, registered in called.items()}
    assets = Names(Registry(assets=ASSETS)).directory().assets
    read = parse_obligations(data, Directory(spelled, assets))
    for column in read.ignored_columns:
        notice(f"column {column!r} is ignored")
    if not len(read):
        raise WrongUseError("EMPTY_FILE", f"{path} has no obligations", "Add a line for each.")
    trades = [
        Trade(
            read.ids[i],
            everybody[read.debtors[i]].name,
            everybody[read.creditors[i]].name,
            ASSETS[read.assets[i]].name,
            read.amounts[i],
            read.references[i],
            read.due_ms[i],
            read.priorities[i],
        )
        for i in range(len(read))
    ]
    return parties, trades


def _party_names(data: bytes) -> list[str]:
    """Return who is named in the file, in order; what is wrong with it is told when it is read in earnest."""
    opened = open_rows(data, REQUIRED, (), FaultLog(REMEDIES_OF_FILES))
    if opened is None:
        return []
    header, rows = opened
    places = [header.places[REQUIRED.index(name)] for name in ("debtor", "creditor")]
    found = {
        row[place].strip(): None for _, row in rows if len(row) == header.width for place in places
    }
    return [name for name in found if name]


class Telling:
    """Prints a demonstration as it goes: steps with their time, what was found out, tables."""

    def __init__(self, *, quiet: bool) -> None:
        """Print to standard output, or nothing when `quiet`."""
        self._console: Console = stdout()
        self._console.quiet = quiet
        self._started = time.monotonic()
        self._steps = 0
        self._bar = Progress(
            TextColumn("    [dim]{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=1, visible=False)

    def __enter__(self) -> Self:
        """Begin."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End; the bar goes away."""
        self._bar.stop()

    def step(self, title: str) -> None:
        """Print the title of a step with the time since the start."""
        self._steps += 1
        self._bar.update(self._task, visible=False)
        passed = time.monotonic() - self._started
        self._console.print()
        self._console.print(
            f"[bold cyan]{self._steps}. {literal(title)}[/] [dim]{passed:5.1f} s[/]"
        )

    def say(self, text: str) -> None:
        """Print what was found out."""
        self._bar.update(self._task, visible=False)
        self._console.print(f"   [green]✓[/] {literal(text)}", soft_wrap=True)

    def nodes(self, reports: Sequence[NodeReport]) -> None:
        """Print the nodes."""
        self._bar.update(self._task, visible=False)
        shown = table("", ("node", "part", "pid", "endpoint", "log", "log root"), ("pid", "log"))
        for report in reports:
            if report.status is not None:
                part = _part_of(report.status)
                root = report.status.log_root.hex()[:16]
                facts = (report.name, part, report.pid, report.endpoint, report.status.log_size)
                shown.add_row(*cells(*facts, root))
        self._console.print(shown)

    def netting(self, assets: Sequence[CycleAssetRow]) -> None:
        """Print what netting saved."""
        self._bar.update(self._task, visible=False)
        self._console.print(netting_table(assets, Names(Registry(assets=ASSETS))))

    def working(self, what: str, done: int, total: int) -> None:
        """Move the bar."""
        self._bar.update(
            self._task, description=what, completed=done, total=total, visible=done < total
        )

    def done(self, seconds: float) -> None:
        """Print the end."""
        self._console.print()
        self._console.print(f"[bold green]Everything held, in {seconds:.1f} s.[/]")


def _part_of(status: NodeStatus) -> str:
    """Return what a node does, in one word: leader, full or witness."""
    return status.kind.name.partition("_")[0].lower()
