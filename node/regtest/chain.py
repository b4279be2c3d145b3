"""The chain, its unspent outputs and its unconfirmed transactions, changed together under one lock.

Lives here: taking blocks and transactions in, mining, branches. May not live here: RPC's names and numbers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from bitcoin.core import CBlock, CTransaction

from node.regtest.coins import Coin, Coins, outpoint
from node.regtest.kernel import BlockRefusedError, Kernel
from node.regtest.mempool import Entry, Mempool, decode
from node.regtest.mining import MEDIAN_BLOCKS, Place, block_time, make_block

ANYONE_SCRIPT = b"\x51"
"""OP_TRUE: where rewards go that nobody asked for."""

BLOCK_WEIGHT_MAX = 3_900_000


def _wall_s() -> int:
    return int(time.time())


class Chain:
    """A regtest chain that may be used from several threads.

    lock: held for several calls that must see one state. fee_estimate_sat_per_kvb: what estimatesmartfee answers,
    None as on a young chain.
    """

    def __init__(self, directory: Path, now_s: Callable[[], int] = _wall_s) -> None:
        """Open the chain in `directory`; `now_s` gives the time that blocks state.

        Raises: SetupError: it is open elsewhere or does not open.
        """
        self.lock = threading.RLock()
        self.fee_estimate_sat_per_kvb: int | None = None
        self._now_s = now_s
        self.kernel = Kernel(directory)
        self.coins = Coins()
        self.mempool = Mempool(self.coins, lambda: self.kernel.height)
        self._tip = self.kernel.hash_at(0)
        self._follow()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the chain."""
        self.close()

    def close(self) -> None:
        """Write the state and give up the directory."""
        with self.lock:
            self.kernel.close()

    # -- reading

    def median_time(self, block_hash: bytes) -> int:
        """Return the median time of a block and the ten before it, in seconds since 1970."""
        times = []
        for _ in range(MEDIAN_BLOCKS):
            header = self.kernel.header(block_hash)
            times.append(int.from_bytes(header[68:72], "little"))
            block_hash = header[4:36]
            if not self.kernel.knows(block_hash):
                break
        return sorted(times)[len(times) // 2]

    def output(self, txid: bytes, index: int, *, with_mempool: bool) -> Coin | None:
        """Return an unspent output, or None; `with_mempool` counts unconfirmed transactions too."""
        with self.lock:
            name = outpoint(txid, index)
            if not with_mempool:
                return self.coins.by_outpoint.get(name)
            return None if self.mempool.spender(name) else self.mempool.coin(name)

    # -- writing

    def send(self, raw: bytes) -> Entry:
        """Take an unconfirmed transaction in. Raises: TransactionRefusedError."""
        with self.lock:
            return self.mempool.add(raw)

    def submit(self, block: bytes) -> bool:
        """Take a block in and return whether it is new. Raises: BlockRefusedError."""
        with self.lock:
            try:
                return self.kernel.submit(block)
            finally:
                self._follow()

    def mine(self, count: int, script: bytes = ANYONE_SCRIPT) -> list[bytes]:
        """Mine `count` blocks with what is unconfirmed and return their hashes.

        Raises: BlockRefusedError: the engine refuses even an empty block.
        """
        hashes = []
        with self.lock:
            for _ in range(count):
                chosen = self._choose()
                try:
                    self._mine_on(self.kernel.tip, script, chosen)
                except BlockRefusedError:
                    if not chosen:
                        raise
                    # Policy let something through that consensus does not: a test chain starts over without it.
                    for entry in self.mempool:
                        if entry.txid in self.mempool:
                            self.mempool.drop(entry.txid)
                    self._mine_on(self.kernel.tip, script, [])
                hashes.append(self.kernel.tip)
        return hashes

    def _choose(self) -> list[Entry]:
        chosen, weight = [], 4_000
        for entry in self.mempool:
            weight += 4 * entry.vsize
            if weight > BLOCK_WEIGHT_MAX:
                break
            chosen.append(entry)
        return chosen

    def _mine_on(self, previous: bytes, script: bytes, chosen: Sequence[Entry]) -> bytes:
        fees = sum(entry.fee_sat for entry in chosen)
        return self._place(previous, script, [entry.transaction for entry in chosen], fees)

    def _place(
        self, previous: bytes, script: bytes, transactions: Sequence[CTransaction], fees_sat: int
    ) -> bytes:
        time_s = block_time(self.median_time(previous), self._now_s())
        place = Place(previous, self.kernel.height_of(previous) + 1, time_s)
        block = make_block(place, script, transactions, fees_sat)
        self.submit(block)
        return bytes(CBlock.deserialize(block).GetHash())

    def branch(
        self,
        fork_height: int,
        count: int,
        script: bytes = ANYONE_SCRIPT,
        transactions: Sequence[bytes] = (),
    ) -> list[bytes]:
        """Mine `count` blocks on top of the active chain's block at `fork_height` and return their hashes.

        `transactions` go into the branch's first block. The branch becomes the active chain once it has more work.
        Raises: BlockRefusedError: a transaction is not valid there; IndexError: no such height;
        TransactionRefusedError: not a transaction.
        """
        with self.lock:
            parsed = [decode(raw) for raw in transactions]
            previous = self.kernel.hash_at(fork_height)
            hashes = []
            for number in range(count):
                previous = self._place(previous, script, parsed if number == 0 else [], 0)
                hashes.append(previous)
            return hashes

    def _follow(self) -> None:
        """Bring unspent outputs and unconfirmed transactions to the active chain's tip."""
        if self._tip == self.kernel.tip:
            return
        taken_back = []
        while not self.kernel.is_active(self._tip):
            block = CBlock.deserialize(self.kernel.block(self._tip))
            self.coins.disconnect(block, self.kernel.spent_by(self._tip))
            taken_back.append(block)
            self._tip = bytes(block.hashPrevBlock)
        undone = [one for block in reversed(taken_back) for one in block.vtx[1:]]
        for height in range(self.kernel.height_of(self._tip) + 1, self.kernel.height + 1):
            self._tip = self.kernel.hash_at(height)
            self.coins.connect(CBlock.deserialize(self.kernel.block(self._tip)), height)
        self.mempool.follow(undone)
