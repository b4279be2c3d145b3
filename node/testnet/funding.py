"""The Bitcoin chain of a test network with coins for whoever anchors in it.

Lives here: starting the chain and mining the first rewards to the anchor wallet. May not live here: the chain's process
(bitcoin.py), the wallet (workers/anchoring).
"""

from __future__ import annotations

from node.config import CONFIG_NAME, NodeConfig, load_config
from node.errors import SetupError
from node.keys import KeyFile, SigningKey
from node.testnet.layout import LocalNetwork
from node.testnet.plan import LEADER
from node.workers.anchoring.rpc import BitcoinError

COINS = 2
"""Rewards of each kind of address that a new wallet gets."""

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
    config = load_config(network.node_path(LEADER) / CONFIG_NAME)
    try:
        with chain.rpc() as rpc:
            if rpc.block_count() >= MATURE_BLOCKS:
                return
            for address in _addresses(config):
                rpc.call("generatetoaddress", 1, address)
            rpc.call("generate", MATURE_BLOCKS)
    except BitcoinError as error:
        raise SetupError(f"the bitcoin chain took no first blocks: {error}") from error


def _addresses(config: NodeConfig) -> list[str]:
    """Return the first addresses of the anchor wallet, none where the node has none."""
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
