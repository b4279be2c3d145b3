"""`clearing testnet mine`: blocks of a test network's Bitcoin chain, on demand, on an interval, or as a competing branch.

Lives here: the command. May not live here: the chain (node/regtest), its process (node/testnet/bitcoin.py).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.errors import CheckFailedError, WrongUseError
from node.cli.options import AsJson
from node.cli.render import counted, print_json, stdout
from node.files import PUBLIC_MODE, replace_file
from node.testnet.bitcoin import BitcoinChain
from node.testnet.control import start_chain
from node.testnet.layout import INDEX_NAME, LocalNetwork
from node.testnet.processes import stop_all
from node.workers.anchoring.rpc import BitcoinError, CallRefusedError

BLOCKS_MAX = 10_000


def add_to(app: typer.Typer) -> None:
    """Give the commands of `clearing testnet` this one too."""
    app.command()(mine)


def mine(
    directory: Annotated[
        Path, typer.Option("--dir", help="Directory of the network.", file_okay=False)
    ],
    blocks: Annotated[
        int, typer.Argument(help="How many blocks to mine.", min=0, max=BLOCKS_MAX)
    ] = 1,
    branch_from: Annotated[
        int | None,
        typer.Option(
            metavar="HEIGHT",
            help="Mine a competing branch on top of the block at this height; the one with more work wins.",
            min=0,
        ),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(
            metavar="SECONDS",
            help="From now on mine a block every so many seconds; 0 mines only when told, as at first.",
            min=0,
            max=86_400,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Mine blocks of the network's Bitcoin test chain; its coins are worth nothing."""
    network = LocalNetwork.open(directory)
    if network.bitcoin is None:
        raise WrongUseError(
            "NO_CHAIN",
            f"the network in {directory} has no Bitcoin chain",
            "Install the extra `bitcoin`, then make a new network.",
        )
    if every is not None:
        network = _set_interval(network, every)
    chain = network.bitcoin
    if chain is None or chain.process.pid() is None:
        raise CheckFailedError(
            "UNAVAILABLE",
            "the Bitcoin chain does not run",
            f"Start it: clearing testnet up --dir {directory}",
        )
    fact: dict[str, Any] = _mined(chain, blocks, branch_from)
    if as_json:
        print_json(fact | {"every_s": network.bitcoin_block_s})
        return
    stdout().print(f"{counted(blocks, 'block')} mined; the best chain is {fact['height']} high")


def _mined(chain: BitcoinChain, blocks: int, branch_from: int | None) -> dict[str, Any]:
    try:
        with chain.rpc() as rpc:
            if branch_from is None:
                hashes = rpc.call("generate", blocks)
            else:
                hashes = rpc.call("generatebranch", branch_from, blocks)
            return {"hashes": hashes, "height": rpc.block_count()}
    except CallRefusedError as error:
        raise WrongUseError(
            "REFUSED", error.words, "Give a height of the chain, see `status`."
        ) from error
    except BitcoinError as error:
        raise CheckFailedError("UNAVAILABLE", str(error), "Look at bitcoin/chain.log.") from error


def _set_interval(network: LocalNetwork, seconds: int) -> LocalNetwork:
    """Write the interval down and have the chain's process begin anew with it."""
    changed = replace(network, bitcoin_block_s=seconds)
    replace_file(network.path / INDEX_NAME, changed.encode(), PUBLIC_MODE)
    if (
        network.bitcoin is not None
        and changed.bitcoin is not None
        and network.bitcoin.process.pid()
    ):
        stop_all([network.bitcoin.process])
        start_chain(changed)
    return changed
