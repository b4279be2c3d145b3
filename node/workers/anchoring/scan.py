"""Following the best chain block by block, back where it was reorganised.

Lives here: comparing what was read with what the node says now, and reading on. May not live here: what a block means
(wallet.py, engine.py).

A node that merely knows less than was read already, because it was set back or is another one that lags, is no
reorganisation: it is refused, and nothing is taken back. Only a different block at a height is evidence.
Invariant: listeners hear of each block once in order, of a block that is gone before those in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from node.workers.anchoring.blocks import ScannedBlock
from node.workers.anchoring.rpc import BitcoinRpc, LaggingError
from node.workers.anchoring.wallet import Wallet


class Listener(Protocol):
    """Hears which blocks come and go."""

    def connect(self, block: ScannedBlock) -> None:
        """The best chain has grown by `block`."""

    def disconnect(self, height: int) -> None:
        """The best chain's newest block, at `height`, is gone."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step of following did: blocks read, blocks taken back, and whether the node has more."""

    read: int
    taken_back: int
    more: bool


def follow(
    rpc: BitcoinRpc, wallet: Wallet, listener: Listener, blocks_max: int, stop: Callable[[], bool]
) -> Progress:
    """Bring wallet and listener to the node's tip, at most `blocks_max` blocks at a time; ends early when `stop` says so.

    Raises: LaggingError: the node knows less than was read; BitcoinError: it cannot be asked. What was heard stays.
    """
    tip = rpc.block_count()
    taken_back = _unwind(rpc, wallet, listener, tip)
    read = 0
    while read < blocks_max and wallet.tip_height < tip and not stop():
        height = wallet.tip_height + 1
        block_hash = rpc.block_hash(height)
        if block_hash is None:
            break
        block = ScannedBlock(height, block_hash, rpc.block(block_hash))
        # Reorganised while being read: the next step takes back what is gone.
        if wallet.trail and block.previous != wallet.trail[-1][1]:
            return Progress(read, taken_back, more=True)
        listener.connect(block)
        wallet.connect(block)
        read += 1
    return Progress(read, taken_back, more=wallet.tip_height < tip)


def _unwind(rpc: BitcoinRpc, wallet: Wallet, listener: Listener, tip: int) -> int:
    """Take back the blocks that are no longer on the best chain; returns how many."""
    if not wallet.trail:
        return 0
    newest, newest_hash = wallet.trail[-1]
    if tip < newest:
        known = dict(wallet.trail)
        shown = rpc.block_hash(tip)
        if shown is None or tip not in known or known[tip] == shown:
            raise LaggingError(
                f"the Bitcoin node at {rpc.where} is at block {tip}, and block {newest} was seen already: it lags or was set "
                "back; wait for it or point bitcoin_rpc_url at another"
            )
    elif rpc.block_hash(newest) == newest_hash:
        return 0
    taken_back = 0
    while wallet.trail:
        height, block_hash = wallet.trail[-1]
        if height <= tip and rpc.block_hash(height) == block_hash:
            return taken_back
        listener.disconnect(height)
        wallet.disconnect()
        taken_back += 1
    # Deeper than is remembered: what is left of the coins may be gone as well.
    wallet.restart()
    return taken_back
