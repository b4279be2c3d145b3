"""How facts are printed: tables for people, JSON for scripts.

Lives here: consoles, tables, scaled amounts, times, JSON, progress bars. May not live here: what is printed.

Amounts are integers of smallest units everywhere but in the tables for people, where they are shown with the
asset's decimal point; no float is involved.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

PIPE_COLUMNS = 200
"""Width of tables where the output is no terminal, so that no value is cut for a reader that is a program."""


def _console(*, error: bool) -> Console:
    stream = sys.stderr if error else sys.stdout
    wide = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_COLUMNS
    return Console(stderr=error, width=wide, highlight=False)


def stdout() -> Console:
    """Return a console on standard output as it is now."""
    return _console(error=False)


def stderr() -> Console:
    """Return a console on standard error as it is now: errors, notices and progress."""
    return _console(error=True)


def notice(text: str) -> None:
    """Tell the user something that is no error, on stderr, so that JSON on stdout stays whole."""
    stderr().print(f"[yellow]note:[/] {escape(text)}", soft_wrap=True)


def print_json(value: Any) -> None:
    """Write `value` as indented JSON and a newline to stdout."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_json_rows(rows: Iterable[dict[str, Any]]) -> None:
    """Write a JSON list to stdout, one row a line, as the rows come: it may be longer than memory."""
    before = "[\n "
    for row in rows:
        sys.stdout.write(before + json.dumps(row))
        before = ",\n "
    sys.stdout.write("[]\n" if before == "[\n " else "\n]\n")


def scaled(amount_units: int, scale: int) -> str:
    """Return an amount of smallest units with its decimal point and groups of three: 123456, 2 -> "1,234.56"."""
    sign = "-" if amount_units < 0 else ""
    digits = str(abs(amount_units)).rjust(scale + 1, "0")
    whole, fraction = digits[: len(digits) - scale], digits[len(digits) - scale :]
    return f"{sign}{int(whole):,}{'.' + fraction if fraction else ''}"


def trimmed(amount_units: int, scale: int) -> str:
    """Return `scaled` without zeros at the end of the fraction: 1500, 3 -> "1.5"."""
    text = scaled(amount_units, scale)
    return text.rstrip("0").rstrip(".") if scale else text


def utc(time_ms: int) -> str:
    """Return a time as text in UTC to the second; "-" for 0, which means none."""
    if not time_ms:
        return "-"
    try:
        moment = dt.datetime.fromtimestamp(time_ms // 1000, tz=dt.UTC)
    except (OverflowError, ValueError, OSError):
        return f"{time_ms} ms"
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural by an s where it is not 1."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def table(title: str, columns: Sequence[str], numeric: Sequence[str] = ()) -> Table:
    """Return an empty table; the columns named in `numeric` are set to the right."""
    made = Table(
        title=escape(title),
        title_justify="left",
        title_style="bold",
        header_style="bold cyan",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for name in columns:
        right = name in numeric
        made.add_column(name, justify="right" if right else "left", no_wrap=right, overflow="fold")
    return made


def cells(*values: Any) -> list[str]:
    """Return the values as cell texts that rich does not read as markup."""
    return [escape(str(value)) for value in values]


@contextmanager
def progress(what: str, total: int) -> Iterator[Progress]:
    """Show a bar on stderr while the block runs; it goes away at the end and is silent where stderr is no terminal.

    The caller advances the one task (id 0) of the yielded Progress.
    """
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = stderr()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        bar.add_task(what, total=total)
        yield bar
