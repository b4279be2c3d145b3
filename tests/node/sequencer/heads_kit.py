"""What tests of heads and handshakes share: a policy of three nodes over a real ledger that grows block by block."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from clearing.log.checkpoint import Checkpoint
from clearing.log.keys import Signer
from clearing.log.note import Note, sign
from clearing.log.policy import Policy
from node.sequencer.heads import HeadKeeper
from node.store import Head, Store
from node.workers.witness import Cosigner
from tests.clearing.log.support import log_signer, witness_signer
from tests.ledger_kit import P01, P02, item
from tests.node.store.store_kit import SETTINGS, DiskNet

LOG = log_signer()
ORIGIN = LOG.key.name
LEADER, FIRST, SECOND = (witness_signer(number) for number in (1, 2, 3))
NAMES = ("leader", "first", "second")
POLICY = Policy.parse(
    (
        f"log {LOG.key.vkey}\n"
        + "".join(
            f"witness {name} {signer.key.vkey}\n"
            for name, signer in zip(NAMES, (LEADER, FIRST, SECOND), strict=True)
        )
        + "group either any first second\ngroup all-of 2 leader either\nquorum all-of\n"
    ).encode()
)
"""Final with the leader and one of two others."""


def cosigned(checkpoint: Checkpoint, signer: Signer, *, by_log: bool = False) -> Note:
    """Return a checkpoint as a follower sends it."""
    lines = (sign(checkpoint.text, LOG),) if by_log else ()
    return Note(checkpoint.text, (*lines, sign(checkpoint.text, signer, 1_700_000_000)))


@dataclass
class HeadsBench:
    """A ledger on disk, a keeper of its heads, and what the keeper told."""

    store: Store
    net: DiskNet
    changes: int = 0
    final_seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def grow(self, blocks: int = 1) -> Checkpoint:
        """Add blocks and return the checkpoint of the log then."""
        for _ in range(blocks):
            self.net.submit(P01, item(P01, P02, 1))
        return self.checkpoint()

    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint of the whole log."""
        tip = self.store.tip
        return Checkpoint(ORIGIN, tip.log_size, tip.log_root)

    def head(self) -> Head:
        """Return the head of the whole log."""
        tip = self.store.tip
        return Head(tip.log_size, tip.log_root)

    def _count(self) -> None:
        self.changes += 1

    def keeper(self, policy: Policy = POLICY, signer: Signer = LOG) -> HeadKeeper:
        """Return a keeper, not started."""
        return HeadKeeper(
            self.store,
            policy,
            signer,
            Cosigner(self.store, LEADER, lambda: 1_700_000_000),
            on_change=self._count,
            on_final=self.final_seconds.append,
            on_failure=self.failures.append,
        )

    @contextmanager
    def running(self, *, allowed: bool = True, **changes: object) -> Iterator[HeadKeeper]:
        """Run a keeper for the time of the block."""
        keeper = self.keeper(**changes)
        keeper.start()
        try:
            if allowed:
                keeper.allow()
            yield keeper
        finally:
            keeper.stop()


@contextmanager
def heads_bench(directory: Path) -> Iterator[HeadsBench]:
    """Make a ledger with genesis in `directory`."""
    with Store.open(directory, SETTINGS) as store:
        yield HeadsBench(store, DiskNet(store=store))


def eventually(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until something holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        threading.Event().wait(0.01)
