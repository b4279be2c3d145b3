"""What the command line says when something is wrong, and the exit code that goes with it.

Lives here: the exceptions that commands raise for a user's mistake or a failed check, and how they are shown. May
not live here: any rule; sentences of the ledger's own codes come from clearing.errors.

Exit codes are stable: 0 success; 1 a check fails or the ledger says no; 2 wrong use: the command line, a file or a
setting is not as it must be.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.table import Table

from clearing.errors import ClearingError, DecodeError, VerificationError
from node.cli.render import cells, literal, print_json, stderr
from node.errors import SetupError

EXIT_CHECK_FAILED = 1
EXIT_WRONG_USE = 2

DETAILS_SHOWN_MAX = 100
"""Greatest number of faults that are listed; the count says how many there are."""


_STREAM_FAULTS = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EISDIR)
)
"""What the system says of an open file or stream, and no defect of ours causes."""


class CliError(Exception):
    """A command ends: a stable code, one sentence, what to do, and where it applies one row a fault.

    `details` are dictionaries of equal keys; `total` counts all faults where only the first ones are listed.
    """

    exit_code = EXIT_CHECK_FAILED

    def __init__(
        self,
        code: str,
        sentence: str,
        remedy: str,
        details: Sequence[dict[str, Any]] = (),
        total: int | None = None,
    ) -> None:
        """Say what is wrong (`code`, `sentence`) and what to do about it (`remedy`)."""
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.remedy = remedy
        self.details = list(details)[:DETAILS_SHOWN_MAX]
        self.total = len(details) if total is None else total


class CheckFailedError(CliError):
    """A verification or check does not hold, or the ledger refuses: exit code 1."""


class WrongUseError(CliError):
    """The command line, a file or a setting is not as it must be: exit code 2."""

    exit_code = EXIT_WRONG_USE


def as_cli_error(error: Exception) -> CliError | None:
    """Return what to tell the user about `error`, or None where it is a defect of ours.

    Texts of the node's own errors already say what to do; the others get a remedy here.
    """
    if isinstance(error, CliError):
        return error
    if isinstance(error, SetupError):
        return WrongUseError("SETUP", str(error), "")
    if isinstance(error, VerificationError):
        return CheckFailedError("NOT_VERIFIED", str(error), "Do not rely on what was checked.")
    if isinstance(error, DecodeError):
        return WrongUseError("MALFORMED", str(error), "Correct the value that the sentence names.")
    if isinstance(error, ClearingError):
        return CheckFailedError(str(getattr(error, "code", "REFUSED")), str(error), "")
    if isinstance(error, OSError) and error.filename is not None:
        sentence = f"{error.filename}: {error.strerror}"
        return WrongUseError("FILE", sentence, "Check the path and its rights.")
    # An open file or stream that fails names no path: a full disk, a broken one, a terminal that is gone.
    if isinstance(error, OSError) and error.errno in _STREAM_FAULTS:
        sentence = f"reading or writing failed: {error.strerror}"
        return WrongUseError("FILE", sentence, "Check space and health of the disk, and run again.")
    return None


def error_fact(error: CliError) -> dict[str, Any]:
    """Return the error as `--json` prints it."""
    body: dict[str, Any] = {
        "code": error.code,
        "message": error.sentence,
        "remedy": error.remedy,
    }
    if error.details:
        body |= {"count": error.total, "details": error.details}
    return {"error": body}


def show_error(error: CliError, *, as_json: bool) -> None:
    """Write the error to stderr for people, and with `as_json` as one object to stdout as well."""
    # Where stderr fails nobody can be told, and the exit code says it.
    with suppress(OSError):
        _tell(error, stderr())
    if as_json:
        # Where stdout itself is what failed, stderr has said so.
        with suppress(OSError):
            print_json(error_fact(error))


def _tell(error: CliError, console: Console) -> None:
    console.print(f"[bold red]{literal(error.code)}[/]: {literal(error.sentence)}", soft_wrap=True)
    if error.details:
        console.print(_details_table(error.details))
        if error.total > len(error.details):
            console.print(f"... {error.total} in all; the first {len(error.details)} are shown")
    if error.remedy:
        console.print(f"[bold]What to do:[/] {literal(error.remedy)}", soft_wrap=True)


def _details_table(details: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in details[0]:
        table.add_column(name, overflow="fold")
    for row in details:
        table.add_row(*cells(*row.values()))
    return table
