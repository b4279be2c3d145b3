"""The Bitcoin chain of a test network with coins for whoever anchors in it.

Lives here: starting the chain and mining the first rewards to the anchor wallet. May not live here: the chain's process
(bitcoin.py), the wallet (workers/anchoring).
"""

from __future__ import annotations

from node.config import CONFIG_NAME, NodeConfig, load_config
from node.errors import SetupError
from node.files import read_text
from node.keys import KeyFile, SigningKey
from node.testnet.compose import BITCOIN_NAME
from node.testnet.layout import LocalNetwork
from node.testnet.plan import LEADER
from node.workers.anchoring.rpc import BitcoinError

COINS = 2
"""Rewards of each kind of address that a new wallet gets."""

ADDRESSES_NAME = "addresses"
"""File beside the chain with the wallet's first addresses, where nodes are containers."""

MATURE_BLOCKS = 100
"""Blocks on top of a reward before it may be spent."""


def start_bitcoin(network: LocalNetwork) -> None:
    """Start the network's chain, if it has one, and give a new one its first blocks.

    Raises: SetupError: it does not start.
    """
    chain = network.bitcoin
    if chain is None:
        return
    chain.start()
    try:
        with chain.rpc() as rpc:
            if rpc.block_count() >= MATURE_BLOCKS:
                return
            for address in _first_addresses(network):
                rpc.call("generatetoaddress", 1, address)
            rpc.call("generate", MATURE_BLOCKS)
    except BitcoinError as error:
        raise SetupError(f"the bitcoin chain took no first blocks: {error}") from error


def _first_addresses(network: LocalNetwork) -> list[str]:
    """Return to whom a new chain's first coins go."""
    if network.bridge is not None:
        # The wallet's key belongs to the container's user by now.
        return read_text(network.path / BITCOIN_NAME / ADDRESSES_NAME).split()
    return wallet_addresses(load_config(network.node_path(LEADER) / CONFIG_NAME))


def wallet_addresses(config: NodeConfig) -> list[str]:
    """Return the first addresses of a node's anchor wallet, none where it has none.

    Raises: SetupError: its key cannot be read.
    """
    if config.bitcoin_key_path is None or config.key_file_path is None:
        return []
    # Keys come with the extra `bitcoin`, as the chain does.
    from node.workers.anchoring.keyring import Branch, KeyPath, Keyring, Kind  # noqa: PLC0415

    key = SigningKey.load(config.bitcoin_key_path, KeyFile(config.key_file_path))
    keyring = Keyring(key, config.bitcoin_network)
    return [
        keyring.address(KeyPath(kind, Branch.RECEIVE, index))
        for index in range(COINS)
        for kind in (Kind.TR, Kind.WPKH)
    ]
