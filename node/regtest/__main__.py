"""The process of an embedded regtest chain: python -m node.regtest --dir DIR.

Lives here: options, start, signals, mining on an interval. May not live here: anything else.
"""

from __future__ import annotations

import secrets
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import structlog
import typer

from clearing.errors import ClearingError
from node.config import LogLevel
from node.files import PRIVATE_MODE, make_private_directory, read_private, replace_file
from node.observability import configure_logging
from node.regtest.calls import Calls
from node.regtest.chain import Chain
from node.regtest.kernel import BlockRefusedError
from node.regtest.server import RpcServer

COOKIE_NAME = ".cookie"
"""User and password of the RPC, as Bitcoin Core writes them; kept over restarts."""

_log = structlog.get_logger("regtest")


def run(
    directory: Annotated[
        Path, typer.Option("--dir", help="Where blocks, state and cookie are kept.")
    ],
    port: Annotated[int, typer.Option(help="Port of the RPC; 0 takes a free one.")] = 18443,
    host: Annotated[
        str,
        typer.Option(
            help="Address to serve the RPC on; others than this machine need another one."
        ),
    ] = "127.0.0.1",
    mine_every: Annotated[
        int, typer.Option(help="Mine a block every so many seconds; 0: only when told.", min=0)
    ] = 0,
) -> None:
    """Serve a Bitcoin regtest chain of one node. FOR TESTS AND DEMONSTRATIONS ONLY.

    Blocks and scripts are judged by Bitcoin Core's consensus engine; coins have no value, there are no peers, and blocks
    are mined for whoever asks. The RPC is that of Bitcoin Core; user and password are in DIR/.cookie. SIGTERM ends it.
    """
    configure_logging(LogLevel.INFO, sys.stderr, node="regtest")
    ends = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ends.set())
    make_private_directory(directory)
    with (
        Chain(directory) as chain,
        RpcServer(Calls(chain), host, port, _credentials(directory)) as server,
    ):
        _log.info(
            "regtest chain serves, for tests and demonstrations only",
            port=server.port,
            height=chain.kernel.height,
            reindexed=chain.kernel.reindexed,
        )
        while not ends.wait(mine_every or None):
            _mine(chain)
    _log.info("regtest chain ended")


def _mine(chain: Chain) -> None:
    try:
        chain.mine(1)
    except BlockRefusedError as error:
        _log.error("no block was mined", reason=str(error))


def _credentials(directory: Path) -> str:
    path = directory / COOKIE_NAME
    if not path.exists():
        replace_file(path, f"__cookie__:{secrets.token_hex(32)}".encode(), PRIVATE_MODE)
    return read_private(path).decode()


def main() -> None:
    """Run; an error ends it with a sentence."""
    app = typer.Typer(add_completion=False)
    app.command()(run)
    try:
        app(prog_name="python -m node.regtest")
    except ClearingError as error:
        _log.critical("regtest chain cannot run", reason=str(error))
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
