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
from rich.text import Text

PIPE_COLUMNS = 200
"""Width of tables where the output is no terminal, so that no value is cut for a reader that is a program."""


_FOLDED_COLUMNS = 12
_BETWEEN_COLUMNS = 3

# What could move a cursor, clear a screen, or turn the digits beside it around: U+0000 to U+001F but tabs and line feeds,
# U+007F to U+009F, line and paragraph separators, and what embeds, overrides or isolates a direction of writing.
_UNSEEN = {
    code: ascii(chr(code))[1:-1]
    for span in ((0, 9), (11, 32), (0x7F, 0xA0), (0x2028, 0x202F), (0x2066, 0x206A))
    for code in range(*span)
}


class _Console(Console):
    """A console on which no value of a table is lost: one too wide is shown as records, a value a line."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does."""
        super().print(*map(self._fitting, objects), **options)

    def _fitting(self, shown: Any) -> Any:
        if not isinstance(shown, Table):
            return shown
        return shown if _least_columns(shown) <= self.width else _records(shown)


def _least_columns(shown: Table) -> int:
    """Return the width that a table needs: what does not fold whole, and of what folds a few letters."""
    least = _BETWEEN_COLUMNS * (len(shown.columns) - 1)
    for column in shown.columns:
        texts = (column.header, *column.cells)
        widest = max(Text.from_markup(str(text)).cell_len for text in texts)
        least += widest if column.no_wrap else min(widest, _FOLDED_COLUMNS)
    return least


def _records(shown: Table) -> Table:
    """Return a table with a line for each value of another one, and an empty line between its rows."""
    made = Table(
        title=shown.title, title_justify="left", title_style="bold", box=None, show_header=False
    )
    made.add_column(style=shown.header_style, no_wrap=True)
    made.add_column(overflow="fold")
    columns = [list(column.cells) for column in shown.columns]
    for number, row in enumerate(zip(*columns, strict=True)):
        if number:
            made.add_row()
        for column, cell in zip(shown.columns, row, strict=True):
            made.add_row(column.header, cell)
    return made


def _console(*, error: bool) -> Console:
    stream = sys.stderr if error else sys.stdout
    wide = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_COLUMNS
    return _Console(stderr=error, width=wide, highlight=False)


def stdout() -> Console:
    """Return a console on standard output as it is now."""
    return _console(error=False)


def stderr() -> Console:
    """Return a console on standard error as it is now: errors, notices and progress."""
    return _console(error=True)


def notice(text: str) -> None:
    """Tell the user something that is no error, on stderr, so that JSON on stdout stays whole."""
    stderr().print(f"[yellow]note:[/] {literal(text)}", soft_wrap=True)


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
        title=literal(title),
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


def literal(text: str) -> str:
    """Return a text of anybody's so that it is printed as it stands: no markup, and of what has no shape its code."""
    return escape(text.translate(_UNSEEN))


def cells(*values: Any) -> list[str]:
    """Return the values as cell texts that are printed as they stand."""
    return [literal(str(value)) for value in values]


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
