"""`clearing anchor init`: give a node that is there an anchor wallet and a Bitcoin node to ask.

Lives here: the command. May not live here: the wallet (node/workers/anchoring), the other commands (anchors.py).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.errors import CheckFailedError, WrongUseError
from node.cli.nodes import config_path, passphrase_of
from node.cli.options import AsJson
from node.cli.render import print_json, stdout
from node.config import load_config, write_config
from node.keys import KeyFile, SigningKey
from node.provision import BITCOIN_KEY_NAME
from node.workers.anchoring.network import Network
from node.workers.anchoring.rpc import BitcoinError, BitcoinRpc


def add_to(app: typer.Typer) -> None:
    """Give the commands of `clearing anchor` this one too."""
    app.command()(init)


def init(
    config: Annotated[
        Path, typer.Option(help="The node's node.toml, or its directory.", exists=True)
    ],
    bitcoin_node: Annotated[
        str,
        typer.Option("--bitcoin-node", metavar="URL", help="Its JSON-RPC, http://host:port."),
    ],
    network: Annotated[Network, typer.Option(help="Bitcoin network of that node.")] = Network.MAIN,
    cookie: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with user:password, mode 0600, such as Bitcoin Core's .cookie.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the anchor wallet of a node that leads or operates, and write where it anchors into its node.toml.

    The Bitcoin node is asked first whether it is on this network and caught up. A wallet that is there is kept. Restart the node
    afterwards, and fund the address that is printed; keep the sealed key with the node's other keys.
    """
    path = config_path(config)
    loaded = load_config(path)
    key_path = loaded.bitcoin_key_path or path.parent / BITCOIN_KEY_NAME
    changed = replace(
        loaded,
        bitcoin_rpc_url=bitcoin_node,
        bitcoin_network=network,
        bitcoin_cookie_path=cookie.absolute() if cookie else None,
        bitcoin_key_path=key_path,
    )
    with BitcoinRpc(bitcoin_node, changed.bitcoin_cookie_path) as rpc:
        try:
            height = rpc.check(network).blocks
        except BitcoinError as error:
            raise CheckFailedError("BITCOIN_NODE", str(error), "Nothing was changed.") from error
    fact = _wallet_facts(changed.key_file_path, key_path, network, passphrase_of(loaded))
    write_config(path, changed, replace=True)
    fact |= {"config": str(path), "network": network.value, "height": height}
    if as_json:
        print_json(fact)
        return
    console = stdout()
    begun = f"{path} anchors on {network.value}, block {height} now; restart the node"
    console.print(begun, markup=False, soft_wrap=True)
    console.print(f"fund {fact['address']}", soft_wrap=True)
    for descriptor in fact["descriptors"]:
        console.print(f"  {descriptor}", soft_wrap=True)


def _wallet_facts(
    key_file_path: Path | None, key_path: Path, network: Network, passphrase: Any
) -> dict[str, Any]:
    """Return address and descriptors of the wallet whose key is at `key_path`; it is made when missing."""
    try:
        from node.workers.anchoring.keyring import (  # noqa: PLC0415 - with the extra `bitcoin`
            Branch,
            KeyPath,
            Keyring,
            Kind,
        )
    except ImportError as error:
        raise WrongUseError(
            "NO_BITCOIN", f"the extra `bitcoin` is not installed ({error})", "Install it first."
        ) from error
    secret = KeyFile(key_file_path) if key_file_path else passphrase
    is_new = not key_path.exists()
    key = SigningKey.create(key_path, secret) if is_new else SigningKey.load(key_path, secret)
    keyring = Keyring(key, network)
    return {
        "key": str(key_path),
        "made": is_new,
        "address": keyring.address(KeyPath(Kind.TR, Branch.RECEIVE, 0)),
        "descriptors": keyring.descriptors(),
    }
