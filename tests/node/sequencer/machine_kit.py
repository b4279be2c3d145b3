"""What tests of the sequencer share: a real ledger on a real store, and a sequencer over it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clearing.ledger import BlockResult
from node.sequencer.clock import BlockClock
from node.sequencer.driver import Hooks, Machine
from node.sequencer.embedded import EmbeddedSequencer, Limits
from node.services.facade import NodeRefusalError
from node.store import Store
from tests.ledger_kit import GENESIS_MS
from tests.node.store.store_kit import SETTINGS, DiskNet

PATIENT = Limits(gather_ms=60_000)
"""Who waits for company with these waits longer than any test."""


@dataclass
class Bench:
    """A store with genesis, a maker of transactions, and what the sequencer told."""

    store: Store
    net: DiskNet
    machine: Machine
    refusal: NodeRefusalError | None = None
    blocks: list[BlockResult] = field(default_factory=list)
    items: list[int] = field(default_factory=list)
    halts: list[str] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)
    wall_ms: Callable[[], int] = lambda: GENESIS_MS + 1000

    def on_block(self, result: BlockResult, items: int, seconds: float) -> None:
        assert seconds >= 0
        self.blocks.append(result)
        self.items.append(items)
        assert self.hold.wait(30)

    def sequencer(self, limits: Limits | None = None) -> EmbeddedSequencer:
        """Return a sequencer over the machine, not started."""
        return EmbeddedSequencer(
            self.machine,
            BlockClock(
                self.machine.state.time_ms,
                wall=lambda: self.wall_ms(),  # noqa: PLW0108 - tests replace it while it runs
                elapsed=lambda: 0,
            ),
            self.store.directory,
            Hooks(lambda: self.refusal, self.on_block, self.halts.append),
            limits,
        )

    @contextmanager
    def running(self, limits: Limits | None = None) -> Iterator[EmbeddedSequencer]:
        """Run a sequencer for the time of the block."""
        sequencer = self.sequencer(limits)
        sequencer.start()
        try:
            yield sequencer
        finally:
            self.hold.set()
            sequencer.stop()


@contextmanager
def bench(
    directory: Path, machine: Callable[[Store], Machine] = Machine, **net: Any
) -> Iterator[Bench]:
    """Make a ledger with genesis in `directory`; blocks do not wait for anybody."""
    with Store.open(directory, SETTINGS) as store:
        made = Bench(store, DiskNet(store=store, **net), machine(store))
        made.hold.set()
        yield made
