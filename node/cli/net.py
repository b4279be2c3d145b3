"""`clearing net` and `clearing net verify`: netting of obligation files, with no node and no network.

Lives here: the commands, their files and what they print. May not live here: netting and checking (node/netting).
"""

from __future__ import annotations

import contextlib
import enum
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from clearing.errors import VerificationError
from clearing.netting.engine import DEFAULT, Engine
from clearing.netting.result import Method
from node.cli.errors import EXIT_CHECK_FAILED, WrongUseError
from node.cli.input_file import LINE_BYTES_MAX, read_whole
from node.cli.net_tables import Summary
from node.cli.options import AsJson
from node.cli.render import literal, notice, print_json, progress, stdout
from node.csv_file import FaultyFileError, is_blank
from node.files import replacing
from node.netting.claims import Claims
from node.netting.document import DocumentWriter
from node.netting.limits_file import LimitTable, read_limits
from node.netting.obligation_file import read_obligations
from node.netting.outcome import AssetOutcome
from node.netting.run import Options, Paying, net_file
from node.netting.table import ObligationTable
from node.netting.verify import check_document, check_limits

_Read = TypeVar("_Read")
_NAMED_MAX = 10
_BAR_AFTER_S = 1.0
_FILE = "file"
_WRITTEN_COMPILED_MIN = 100_000


class MethodName(enum.Enum):
    """How to net, as it is named on the command line."""

    POSITIONS = "positions"
    BILATERAL = "bilateral"
    GRIDLOCK = "gridlock"
    SETOFF = "setoff"

    @property
    def method(self) -> Method:
        """The same for the library."""
        return Method[self.name]


class FileByDefault(TyperGroup):
    """`clearing net FILE` nets a file; every other command is named."""

    def __init__(self, **attributes: Any) -> None:
        """Take the command for files out of those that have names."""
        super().__init__(**attributes)
        self._default = self.commands.pop(_FILE)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put an empty name where none is given, so that options may come first."""
        chosen = args if args and args[0] in self.commands else ["", *args]
        return super().parse_args(ctx, chosen)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return name, command and remaining arguments."""
        if args[0] == "":
            return "", self._default, args[1:]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=FileByDefault,
    help="Net a CSV of obligations, or verify a result.",
    rich_markup_mode="rich",
    add_completion=False,
)


class LateBar:
    """A progress bar on stderr that appears when work has taken a second."""

    def __init__(self) -> None:
        """Start the clock."""
        self._begin = time.monotonic()
        self._open = contextlib.ExitStack()
        self._bar: Any = None

    def show(self, what: str, done: int, total: int) -> None:
        """Say how far the work is."""
        if time.monotonic() - self._begin < _BAR_AFTER_S:
            return
        if self._bar is None:
            self._bar = self._open.enter_context(progress(what, total))
        self._bar.update(0, description=what, completed=done, total=total)

    def close(self) -> None:
        """Take the bar away."""
        self._open.close()


def read_file(path: Path, read: Callable[[bytes], _Read]) -> _Read:
    """Read a file that the user names; its faults become an error that lists them.

    Raises: WrongUseError.
    """
    data = read_whole(path, line_bytes_max=LINE_BYTES_MAX)
    if is_blank(data):
        notice(f"{path} holds nothing, not even a header")
    try:
        return read(data)
    except FaultyFileError as error:
        raise WrongUseError(
            "BAD_FILE",
            f"{path} has {error}; nothing was computed",
            "Correct the lines that are listed and run the command again.",
            error.rows,
            error.count,
        ) from error


def read_book(path: Path, bar: LateBar) -> ObligationTable:
    """Read the obligation file of a command, with progress, and say what in it is ignored.

    Raises: WrongUseError.
    """

    def read(data: bytes) -> ObligationTable:
        return read_obligations(data, lambda done: bar.show("reading", done, len(data)))

    table = read_file(path, read)
    _say_ignored(path, table.ignored)
    return table


def read_limits_of(path: Path | None, table: ObligationTable) -> LimitTable | None:
    """Read a file of liquidity or caps, if one is given, and say what in it has no effect on this book.

    Raises: WrongUseError.
    """
    if path is None:
        return None
    limits = read_file(path, read_limits)
    _say_ignored(path, limits.ignored)
    strangers = limits.strangers(table.parties, table.assets)
    if strangers:
        notice(
            f"{path}: {_named(strangers)} occur in no obligation, so their limits have no effect"
        )
    return limits


def _say_ignored(path: Path, columns: Sequence[str]) -> None:
    if columns:
        notice(f"{path}: columns that are ignored: {_named(columns)}")


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_NAMED_MAX])
    return shown if len(names) <= _NAMED_MAX else f"{shown} and {len(names) - _NAMED_MAX} more"


def _check_options(
    method: Method, *, bypass: bool, liquidity: Path | None, caps: Path | None
) -> None:
    """Refuse options that the method would ignore: a limit that does not bind must not look as if it did.

    Raises: WrongUseError.
    """
    limited = (Method.POSITIONS, Method.GRIDLOCK)
    fits = {
        "--bypass": (bypass, (Method.GRIDLOCK,)),
        "--liquidity": (liquidity is not None, (*limited, Method.SETOFF)),
        "--caps": (caps is not None, limited),
    }
    for option, (given, methods) in fits.items():
        if given and method not in methods:
            names = " or ".join(m.name.lower() for m in methods)
            raise WrongUseError(
                "OPTION_WITHOUT_EFFECT",
                f"{option} means nothing to --method {method.name.lower()}",
                f"Leave it out, or use --method {names}.",
            )


def _excluded(given: Iterable[str], table: ObligationTable) -> frozenset[str]:
    """Split NAME,... into names of participants; a whole value that is one name counts as that name.

    Raises: WrongUseError: a name that is in no obligation.
    """
    known, names = set(table.parties), set[str]()
    for value in given:
        names |= {value} if value in known else {name.strip() for name in value.split(",")}
    unknown = sorted(names - known - {""})
    if unknown:
        raise WrongUseError(
            "UNKNOWN_PARTICIPANT",
            f"--exclude names {_named(unknown)}, who occur in no obligation",
            "Write the names as they stand in the file, separated by commas.",
        )
    return frozenset(names & known)


@app.command(_FILE)
def net(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.csv",
            help="Obligations: id,debtor,creditor,asset,amount[,priority]; integers of the smallest unit.",
        ),
    ],
    method: Annotated[MethodName, typer.Option(help="How to net.")] = MethodName.POSITIONS,
    bypass: Annotated[
        bool, typer.Option("--bypass", help="gridlock: run FIFO with bypass first, report both.")
    ] = False,
    liquidity: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="participant,asset,amount; absent means zero."),
    ] = None,
    caps: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Net debit caps, same columns; absent means no cap."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,...", help="Leave these out with all their obligations."),
    ] = None,
    transfers: Annotated[
        Paying, typer.Option(help="Pay through the settlement agent, or pairwise.")
    ] = Paying.AGENT,
    out: Annotated[
        Path | None, typer.Option(metavar="RESULT.json", help="Write the JSON document here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Net a file of obligations, exactly, and say what settles and why the rest does not.

    `clearing net verify FILE.csv RESULT.json` checks a result, without computing it again.
    """
    _check_options(method.method, bypass=bypass, liquidity=liquidity, caps=caps)
    with contextlib.closing(LateBar()) as bar:
        table = read_book(file, bar)
        options = Options(
            method.method,
            bypass,
            read_limits_of(liquidity, table),
            read_limits_of(caps, table),
            _excluded(exclude or [], table),
            transfers,
        )
        summary = Summary(method.method, table)
        outcomes = _watched(net_file(table, options), len(table), bar, summary)
        with contextlib.ExitStack() as opened:
            sinks = [opened.enter_context(replacing(out)).write] if out is not None else []
            if as_json:
                sinks.append(sys.stdout.buffer.write)
            total = _write(sinks, table, options, outcomes)
    if not as_json:
        summary.show(total)
        if out is not None:
            stdout().print(f"written to {out}", markup=False, soft_wrap=True)


def _watched(
    outcomes: Iterable[AssetOutcome], rows: int, bar: LateBar, summary: Summary
) -> Iterator[AssetOutcome]:
    """Pass the outcomes on, showing progress and keeping what is to be shown."""
    done = 0
    bar.show("netting", done, rows)
    for outcome in outcomes:
        summary.add(outcome)
        yield outcome
        done += outcome.result.rows
        bar.show("netting", done, rows)


def _write(
    sinks: Sequence[Callable[[bytes], object]],
    table: ObligationTable,
    options: Options,
    outcomes: Iterable[AssetOutcome],
) -> str:
    """Write the document to every sink. Returns: its hash."""

    def write(data: bytes) -> None:
        for sink in sinks:
            sink(data)

    engine = DEFAULT if len(table) >= _WRITTEN_COMPILED_MIN else Engine.PORTABLE
    ran = options.engine(len(table))
    return DocumentWriter(write, table.ids, engine).write(options.method, outcomes, ran)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="The obligations.")],
    result: Annotated[
        Path, typer.Argument(metavar="RESULT.json", help="What --out or --json wrote.")
    ],
    liquidity: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also check that this liquidity was used.")
    ] = None,
    caps: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also check that these caps were used.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a result against its file; exit 0 when it holds, 1 with the reason when it does not.

    Nothing is solved again: what a method means is checked by its definition, a set-off by its certificate.
    Limits are those that the result says it was given; --liquidity and --caps compare them with yours.
    """
    with contextlib.closing(LateBar()) as bar:
        table = read_book(file, bar)
        given = {
            "liquidity": read_limits_of(liquidity, table),
            "caps": read_limits_of(caps, table),
        }
        data = read_whole(result)
        try:
            claims = check_document(
                table, data, lambda done: bar.show("checking", done, len(table))
            )
            for name, limits in given.items():
                if limits is not None:
                    check_limits(claims, table, name, limits)
        except VerificationError as error:
            _show_refusal(str(error), as_json=as_json)
            raise typer.Exit(EXIT_CHECK_FAILED) from error
    _show_claims(claims, table, as_json=as_json)


def _show_refusal(reason: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"holds": False, "reason": reason})
        return
    stdout().print(f"[bold red]does not hold:[/] {literal(reason)}", soft_wrap=True)


def _show_claims(claims: Claims, table: ObligationTable, *, as_json: bool) -> None:
    """Say what was checked, and for a set-off how far from the greatest it can be."""
    facts: dict[str, Any] = {
        "holds": True,
        "method": claims.method.name.lower(),
        "assets": len(table.assets),
        "obligations": len(table),
        "hash": claims.hash,
    }
    if claims.method is Method.SETOFF:
        gaps = {name: claim["certificate"]["gap"] for name, claim in claims.assets.items()}
        facts["gaps"] = {name: gap for name, gap in gaps.items() if gap != "0"}
    if as_json:
        print_json(facts)
        return
    stdout().print("[bold green]holds[/]")
    if facts.get("gaps") == {}:
        facts["gaps"] = "none: no other set-off discharges more"
    for name, value in facts.items():
        if name != "holds":
            stdout().print(f"{name}: {value}", markup=False, soft_wrap=True)
