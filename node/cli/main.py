"""The command `clearing`: one application, one module a group of commands.

Lives here: the table of commands, and the one place where errors become a sentence and an exit code. May not live
here: a command. A new command is one line in `COMMANDS` or `GROUPS`.

A command's module is imported when the command is used: the kernels and gRPC that one command needs take longer to
load than another command takes to run.
"""

from __future__ import annotations

import importlib
import inspect
import io
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from clearing.errors import ClearingError, InvariantViolation
from node.cli.errors import CliError, WrongUseError, as_cli_error, error_fact, show_error
from node.cli.render import print_json

HELP = (
    "The clearing ledger: signed obligations, netting cycles, final settlement, and proofs that verify offline.\n\n"
    "Exit codes: 0 success; 1 a check fails or the ledger says no; 2 wrong use; 128 + n ended by signal n, which is 141 "
    "where the reader of a pipe has gone."
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command or group of commands is written: module and name in it, and its line in the list of commands."""

    module: str
    name: str
    help: str
    panel: str


_TRY = "Try it"
_PARTICIPATE = "Participants"
_NET = "Netting and settlement"
_PROVE = "Proofs and audit"
_OPERATE = "Operators"

GROUPS: dict[str, Place] = {
    "testnet": Place("node.cli.testnet", "app", "A network of nodes on this machine.", _TRY),
    "net": Place("node.cli.net", "app", "Net a CSV of obligations; verify a result.", _NET),
    "cycle": Place("node.cli.cycles", "cycle_app", "Netting cycles: run, list, show.", _NET),
    "instruction": Place(
        "node.cli.cycles", "instruction_app", "Settle: evidence, confirm, fail.", _NET
    ),
    "anchor": Place("node.cli.anchors", "app", "Checkpoints in Bitcoin, and proofs.", _PROVE),
    "settle": Place("node.cli.settle", "app", "Bitcoin nets by one transaction.", _NET),
    "miner": Place("node.cli.miners", "app", "Declare and report mined coin.", _PARTICIPATE),
    "audit": Place("node.cli.audit", "app", "Check and query the whole ledger.", _PROVE),
    "tiles": Place("node.cli.proofs", "tiles_app", "The log as static files.", _PROVE),
    "governance": Place("node.cli.governance", "app", "Change register and parameters.", _OPERATE),
    "node": Place("node.cli.nodes", "app", "Make, run and watch one node.", _OPERATE),
}
"""Commands with commands of their own: a typer application each."""

COMMANDS: dict[str, Place] = {
    "demo": Place("node.cli.demo", "demo", "The whole ledger, once through.", _TRY),
    "submit": Place("node.cli.obligations", "submit", "Record obligations of a CSV.", _PARTICIPATE),
    "affirm": Place(
        "node.cli.obligations", "affirm", "Affirm what others submitted.", _PARTICIPATE
    ),
    "reject": Place(
        "node.cli.obligations", "reject", "Refuse what others submitted.", _PARTICIPATE
    ),
    "rescind": Place(
        "node.cli.obligations", "rescind", "Withdraw what you submitted.", _PARTICIPATE
    ),
    "resume": Place(
        "node.cli.obligations", "resume", "Send again what was left unsure.", _PARTICIPATE
    ),
    "obligations": Place("node.cli.obligations", "obligations", "List obligations.", _PARTICIPATE),
    "positions": Place("node.cli.obligations", "positions", "List positions.", _PARTICIPATE),
    "why": Place("node.cli.reasons", "why", "Why an obligation is not discharged.", _NET),
    "instructions": Place("node.cli.cycles", "instructions", "List settlement instructions.", _NET),
    "receipt": Place("node.cli.proofs", "receipt", "Take a receipt.", _PROVE),
    "verify": Place("node.cli.offline", "verify", "Check a receipt offline.", _PROVE),
    "doctor": Place("node.cli.nodes", "doctor", "Check a node's files and machine.", _OPERATE),
    "call": Place("node.cli.call", "call", "Call any RPC with JSON.", _OPERATE),
}
"""Single commands: a function each."""


EXIT_READER_GONE = 128 + signal.SIGPIPE
"""As of other programs that `| head` cuts short: neither did a check fail nor was anything used wrongly."""

_JSON_ASKED = "clearing.json"


def _json_was_asked(ctx: typer.Context) -> bool:
    return bool(ctx.meta.get(_JSON_ASKED))


class Clearing(TyperGroup):
    """The root group: loads a command on use, and ends in a sentence and an exit code, never in a traceback."""

    def __init__(self, **attributes: Any) -> None:
        """Start with a stand-in for each command, which is enough to list them."""
        super().__init__(**attributes)
        for name, place in (GROUPS | COMMANDS).items():
            self.add_command(TyperCommand(name, help=place.help, rich_help_panel=place.panel), name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return name, command and remaining arguments; the command's module is imported here."""
        name = args[0]
        # By its name: of a command line that cannot be parsed no option is known.
        ctx.meta[_JSON_ASKED] = "--json" in args
        check_utf8(args)
        if name in GROUPS or name in COMMANDS:
            return name, load(name), args[1:]
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command line; an error ends it with its exit code."""
        try:
            return super().invoke(ctx)
        except InvariantViolation:
            raise
        except BrokenPipeError as error:
            raise typer.Exit(EXIT_READER_GONE) from error
        except (CliError, ClearingError, OSError) as error:
            shown = as_cli_error(error)
            if shown is None:
                raise
            show_error(shown, as_json=_json_was_asked(ctx))
            raise typer.Exit(shown.exit_code) from error
        except typer.TyperException as error:
            # typer itself tells people on stderr; a script that asked for JSON reads stdout.
            if _json_was_asked(ctx):
                print_json(
                    error_fact(WrongUseError("USAGE", error.format_message(), "See --help."))
                )
            raise


def check_utf8(args: Sequence[str]) -> None:
    """Check that the command line is text: what is not could neither be sent nor printed.

    Raises: WrongUseError: an argument is not UTF-8.
    """
    for number, one in enumerate(args, 1):
        try:
            one.encode()
        except UnicodeEncodeError as error:
            raise WrongUseError(
                "NOT_UTF8",
                f"argument {number} of the command line is not UTF-8",
                "Write it in UTF-8.",
            ) from error


def load(name: str) -> Any:
    """Import the command `name` of the tables and return it as typer makes it."""
    place = GROUPS.get(name) or COMMANDS[name]
    written = getattr(importlib.import_module(place.module), place.name)
    if name in GROUPS:
        for command in written.registered_commands:
            command.help = flowing(command.help or inspect.getdoc(command.callback) or "")
        return typer.main.get_group(written)
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
    alone.command(name, help=flowing(inspect.getdoc(written) or ""))(written)
    return typer.main.get_command(alone)


def flowing(text: str) -> str:
    """Return a docstring with one line a paragraph, so that a help text fills the terminal's width."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


app = typer.Typer(
    name="clearing",
    cls=Clearing,
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root() -> None:
    """Carry the application's own options."""


_ENDINGS = (signal.SIGTERM, signal.SIGHUP)


def _end(number: int, _: FrameType | None) -> NoReturn:
    # A second signal must not cut off what the first one has begun.
    for ending in _ENDINGS:
        signal.signal(ending, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main() -> None:
    """Run the command line of this process.

    SIGTERM, and the end of the terminal, end it like ^C, so that it stops what it has started.
    """
    for ending in _ENDINGS:
        # Who started it with nohup wants it to go on.
        if signal.getsignal(ending) is not signal.SIG_IGN:
            signal.signal(ending, _end)
    # Started with a stream closed, as by a careless scheduler, Python has none.
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    sys.stdin = sys.stdin or io.TextIOWrapper(io.BytesIO())
    # gRPC's own lines would stand between the sentences; what they say comes as an error of the call too.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets a question mark, not the end of the command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app(prog_name="clearing")
    except SystemExit as ended:
        # rich, which draws tables and help texts, and typer end by 1 where the pipe's reader has gone.
        gone = isinstance(ended.__context__, BrokenPipeError)
        raise SystemExit(_after_last_write(EXIT_READER_GONE if gone else ended.code)) from None
    except OSError as error:
        # The help of the application itself is written before a command begins.
        shown = as_cli_error(error)
        if shown is None:
            raise
        show_error(shown, as_json=False)
        raise SystemExit(_after_last_write(shown.exit_code)) from None


def _nowhere() -> io.TextIOWrapper:
    return Path(os.devnull).open("w", encoding="utf-8")


def _after_last_write(code: int | str | None) -> int | str | None:
    """Write what stdout still holds, and return the exit code: `code`, unless that failed.

    Left to Python's own end, a full disk or a reader that has gone would end in an "Exception ignored" and code 120.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        # What could not be written is dropped, or Python would try again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if code:
            return code
        if isinstance(error, BrokenPipeError):
            return EXIT_READER_GONE
        shown = as_cli_error(error)
        if shown is None:
            raise
        show_error(shown, as_json=False)
        return shown.exit_code
    return code


if __name__ == "__main__":
    main()
