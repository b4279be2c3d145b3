"""The anchor wallet's scan: 10,000 blocks read over JSON-RPC from the embedded chain, one in a hundred with a coin of ours.

Node and wallet share this process and its cores, so the figure is a lower bound of what a node of its own gives.
"""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path

from benchmarks.measure import Figure, Samples
from node.keys import SigningKey
from node.regtest.calls import Calls
from node.regtest.chain import Chain
from node.regtest.server import RpcServer
from node.workers.anchoring.blocks import ScannedBlock
from node.workers.anchoring.keyring import Branch, KeyPath, Keyring, Kind
from node.workers.anchoring.network import Network
from node.workers.anchoring.rpc import BitcoinRpc
from node.workers.anchoring.scan import follow
from node.workers.anchoring.wallet import WALLET_NAME, Wallet

OURS_EVERY = 100


class _Nobody:
    """Hears of blocks and does nothing."""

    def connect(self, block: ScannedBlock) -> None:
        """Ignore a block."""

    def disconnect(self, height: int) -> None:
        """Ignore it."""


def run(*, quick: bool) -> list[Figure]:
    """Mine the chain, then read it from its first block (a tenth when quick)."""
    blocks, runs = (1_000, 1) if quick else (10_000, 2)
    keyring = Keyring(SigningKey.from_seed(bytes(range(32))), Network.REGTEST)
    samples, mining = Samples(), Samples()
    with tempfile.TemporaryDirectory(prefix="clearing-scan-") as name:
        directory = Path(name)
        with Chain(directory / "chain") as chain:
            mining.timed(lambda: _mine(chain, keyring, blocks))
            for _ in range(runs):
                wallet = Wallet(keyring, 0)
                _read(chain, wallet, samples)
                wallet.save(directory)
        file_bytes = (directory / WALLET_NAME).stat().st_size
    details = {
        "blocks_per_s": round(blocks / min(samples.seconds)),
        "coins": blocks // OURS_EVERY,
        "wallet_file_kb": round(file_bytes / 1e3, 1),
        "mined_s": round(mining.seconds[0], 2),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        **samples.summary(),
    }
    title = f"scan of {blocks:,} blocks over JSON-RPC, fastest"
    return [Figure(title, round(min(samples.seconds), 3), "s", details=details)]


def _read(chain: Chain, wallet: Wallet, samples: Samples) -> None:
    """Read the whole chain into an empty wallet."""
    with RpcServer(Calls(chain), "127.0.0.1", 0, "bench:mark") as server:
        rpc = BitcoinRpc(f"http://bench:mark@127.0.0.1:{server.port}")
        last = chain.kernel.height + 1
        samples.timed(lambda: follow(rpc, wallet, _Nobody(), last, lambda: False))
        rpc.close()


def _mine(chain: Chain, keyring: Keyring, blocks: int) -> None:
    for number in range(blocks // OURS_EVERY):
        # Within the gap limit of the keys that are used already.
        chain.mine(1, keyring.script(KeyPath(Kind.TR, Branch.RECEIVE, number)))
        chain.mine(OURS_EVERY - 1)
