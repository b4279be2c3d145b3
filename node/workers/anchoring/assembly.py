"""A node's anchoring worker, put together from its configuration.

Lives here: which setting goes where. May not live here: anything else; the runtime loads this only where it is configured.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from node.config import NodeConfig
from node.files import make_private_directory
from node.keys import SigningKey
from node.store import Store
from node.workers.anchoring.engine import Engine
from node.workers.anchoring.headers import HeaderSource
from node.workers.anchoring.keyring import Keyring
from node.workers.anchoring.ledgerside import LedgerSide
from node.workers.anchoring.policy import AnchorPolicy
from node.workers.anchoring.rpc import BitcoinRpc
from node.workers.anchoring.worker import AnchoringWorker, wall_s
from node.workers.clerk import Clerk

DIRECTORY_NAME = "anchoring"
"""Beside the database: the wallet's memory and every anchor with its transactions."""

RPC_TIMEOUT_S = 30.0


def directory_of(config: NodeConfig) -> Path:
    """Return where a node's anchoring keeps its files."""
    return config.data_dir / DIRECTORY_NAME


def policy_of(config: NodeConfig) -> AnchorPolicy:
    """Return the bounds of anchoring that a configuration sets."""
    return AnchorPolicy(
        every_checkpoints=config.anchor_every_checkpoints,
        every_s=config.anchor_every_s,
        depth=config.anchor_depth,
        fee_rate_fallback=config.anchor_fee_rate_fallback,
        fee_rate_max=config.anchor_fee_rate_max,
        fee_sat_max=config.anchor_fee_sat_max,
        bump_after_s=config.anchor_bump_after_s,
    )


def make_worker(
    config: NodeConfig,
    key: SigningKey,
    store: Store,
    clerk: Clerk,
    actor: Callable[[], int | None],
) -> AnchoringWorker:
    """Return a worker that is not running yet.

    key: opened from bitcoin_key_path. actor: returns the registry number of the node's participant.
    Raises: SetupError: bitcoin_rpc_url is none.
    """
    url, cookie_path = config.bitcoin_rpc_url, config.bitcoin_cookie_path
    rpc = BitcoinRpc(url, cookie_path, timeout_s=RPC_TIMEOUT_S)
    directory = directory_of(config)

    def make_engine() -> Engine:
        make_private_directory(directory)
        return Engine(
            directory,
            Keyring(key, config.bitcoin_network),
            rpc,
            LedgerSide(store, config.bitcoin_network, actor),
            network=config.bitcoin_network,
            policy=policy_of(config),
            birthday=config.bitcoin_birthday,
            now_s=wall_s,
        )

    headers = HeaderSource(BitcoinRpc(url, cookie_path, timeout_s=RPC_TIMEOUT_S))
    return AnchoringWorker(make_engine, clerk, config.anchor_poll_ms / 1_000, headers)
