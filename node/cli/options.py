"""Options that many commands share.

Lives here: their names, help texts and types; what is read from standard input. May not live here: what they are for (session.py, render.py).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from node.cli.errors import WrongUseError
from node.keys import Passphrase

U64_MAX = (1 << 64) - 1
U32_MAX = (1 << 32) - 1

STANDARD_INPUT_BYTES_MAX = 64 << 20
"""Greatest request or proposal on standard input: several times the greatest message of the wire."""

_CONNECTION = "Which network, and as whom"


def read_standard_input() -> str:
    """Return the text on standard input.

    Raises: WrongUseError: it is not UTF-8, or does not end.
    """
    data = sys.stdin.buffer.read(STANDARD_INPUT_BYTES_MAX + 1)
    if len(data) > STANDARD_INPUT_BYTES_MAX:
        raise WrongUseError(
            "FILE_TOO_LARGE",
            f"standard input is larger than {STANDARD_INPUT_BYTES_MAX:,} bytes",
            "Send one JSON document.",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WrongUseError("NOT_UTF8", "standard input is not UTF-8", "Send UTF-8.") from error


def ask_passphrase(whose: str, *, confirm: bool = False) -> Passphrase:
    """Return the passphrase of `whose` keys: typed unseen at a terminal, else the first line of standard input.

    Raises: WrongUseError: none is given.
    """
    try:
        if sys.stdin.isatty():
            text = typer.prompt(
                f"Passphrase of {whose}", hide_input=True, confirmation_prompt=confirm, err=True
            )
        else:
            text = sys.stdin.readline().rstrip("\r\n")
    except typer.Abort:
        text = ""
    if not text:
        raise WrongUseError(
            "NO_PASSPHRASE",
            f"no passphrase of {whose} was given",
            "Type it, send it as the first line of standard input, or name a key file in the settings.",
        )
    return Passphrase(text)


AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print JSON on stdout, for scripts."),
]

NetworkDir = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        help="Directory of a test network made on this machine.",
        file_okay=False,
        rich_help_panel=_CONNECTION,
    ),
]

ActAs = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="NAME",
        help="Party of that test network to act as: p01, central-bank, ministry, regulator, ...",
        rich_help_panel=_CONNECTION,
    ),
]

NodeName = Annotated[
    str | None,
    typer.Option(
        "--node",
        metavar="NAME",
        help="Node of that test network to ask; an operator if left out.",
        rich_help_panel=_CONNECTION,
    ),
]

Endpoint = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        metavar="HOST:PORT",
        help="Node to ask; the identity's own endpoints if left out.",
        rich_help_panel=_CONNECTION,
    ),
]

IdentityDir = Annotated[
    Path | None,
    typer.Option(
        "--identity",
        metavar="DIR",
        help="Directory with the certificate and keys of the party to act as.",
        file_okay=False,
        rich_help_panel=_CONNECTION,
    ),
]
