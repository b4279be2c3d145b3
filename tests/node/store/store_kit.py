"""What the store's tests share: a small real history, stores filled with it, and ways to alter one.

Nothing here goes around the store but `undone`, which alters records inside a transaction that is
then given up.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

from clearing.ledger import BlockResult
from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note, sign
from clearing.log.policy import Policy
from clearing.state import State
from node.store import LeafBlock, Record, Store, StoreSettings
from node.store.tables import ALL, Name
from node.store.view import View
from node.store.writer import Writer
from tests.clearing.log.support import log_signer, witness_signer
from tests.ledger_kit import ETH, P01, P02, P03, Net, item

SETTINGS = StoreSettings(free_bytes_min=0, growth_wait_s=1)
LOG, WITNESS = log_signer(), witness_signer()
POLICY = Policy.parse(f"log {LOG.key.vkey}\nwitness w1 {WITNESS.key.vkey}\nquorum w1\n".encode())


class DiskNet(Net):
    """A ledger driven block by block on a store, new or found."""

    def __post_init__(self) -> None:
        if self.store.tip is None:
            super().__post_init__()
            return
        self.state = State.load(self.store)
        self.time_ms = self.state.time_ms
        self.generation: dict[int, int] = {}
        # Client ids must be new: numbers go on far behind those that the blocks so far have used.
        self.serial = 1000 * self.state.log_size


@functools.cache
def history() -> tuple[BlockResult, ...]:
    """Nearly every table in use: two cycles, one of them settled, a submission left open."""
    net = Net()
    first = net.submit(P01, item(P01, P02, 5), item(P01, P03, 7, ETH))
    net.affirm(P02, first)
    net.affirm(P03, first)
    net.run_cycle()
    net.settle(1)
    second = net.submit(P02, item(P02, P03, 11), item(P02, P01, 13))
    net.affirm(P03, second)
    net.run_cycle()
    return tuple(net.results)


def fill(directory: Path, results: Sequence[BlockResult] | None = None) -> Store:
    """Return an open store with the history, or the blocks given."""
    store = Store.open(directory, SETTINGS)
    store.commit(*(history() if results is None else results))
    return store


def leaf_block(result: BlockResult, withhold: Sequence[int] = ()) -> LeafBlock:
    """Return a block as a witness gets it, without the bodies of the leaves named in `withhold`."""
    records = tuple(
        Record(entry.leaf, b"" if index in withhold else entry.body, entry.public)
        for index, entry in enumerate(result.entries, result.first_index)
    )
    return LeafBlock(records, result.nodes, result.log_root)


def final_note(size: int, root: bytes, timestamp_s: int = 1_700_000_000) -> bytes:
    """Return a checkpoint that satisfies POLICY."""
    text = Checkpoint(LOG.key.name, size, root).text
    return Note(text, (sign(text, LOG), sign(text, WITNESS, timestamp_s))).encode()


def dump(view: View) -> dict[Name, list[tuple[bytes, bytes]]]:
    """Return every record of every table."""
    return {name: list(view.items(name)) for name in ALL}


@contextlib.contextmanager
def undone(store: Store) -> Iterator[Writer]:
    """Give a Writer whose changes are seen through its view and given up at the end."""
    environment = store._environment
    txn = environment._env.begin(write=True)
    try:
        yield Writer(txn, environment.databases)
    finally:
        txn.abort()
