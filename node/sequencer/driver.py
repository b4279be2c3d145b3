"""The seam between the ledger and whoever orders its blocks.

Lives here: what a driver of `ledger.apply` offers to the rest of the node, and the ledger as a
driver moves it. May not live here: how blocks are ordered (embedded.py here; a consensus engine
elsewhere), transport.

Four callers move a Machine: the embedded sequencer, a consensus adapter, a replica that follows,
and replay. All do the same two steps: `apply` computes and changes nothing; `commit` makes the
result durable and takes it over.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from clearing import ledger
from clearing.handlers.reasons import Explanation, answer, ask
from clearing.handlers.solutions import Problem, awaited
from clearing.ledger import Block, BlockResult, Outcome
from clearing.records.transaction import Transaction
from clearing.rows import Table, key_position
from clearing.rules.positions import Position
from clearing.state import State
from clearing.types import CycleState
from node.services.facade import NodeRefusalError, PositionProof
from node.store import Store


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a driver asks and tells the node that it orders for.

    gate: says why nothing may be ordered now, or None; asked at each submission and before each
    block.
    on_block: called by the thread that commits, after each durable block and before it is
    acknowledged, with its items and how long it took to write, in seconds; it must not block.
    on_halt: called once, with the reason, when a defect or a failed disk ended all writing.
    """

    gate: Callable[[], NodeRefusalError | None]
    on_block: Callable[[BlockResult, int, float], None]
    on_halt: Callable[[str], None]


class Driver(Protocol):
    """Has transactions ordered, applied and made durable, and says what became of each."""

    def start(self) -> None:
        """Begin to order."""

    def stop(self) -> None:
        """Refuse new transactions and return when all that are queued are durable."""

    def submit(self, transaction: Transaction) -> Future[Outcome]:
        """Queue one transaction; the future ends when its block is durable.

        The future raises NotServingError or BusyError (in no block, for sure) or
        OutcomeUnknownError (the node stopped while writing). Cancelling it withdraws the
        transaction as long as it is in no block.
        Raises: BusyError, NotServingError: it cannot be queued now; nothing was done.
        """

    @property
    def queued(self) -> int:
        """Number of transactions that wait for a block."""

    @property
    def refusal(self) -> NodeRefusalError | None:
        """Why the driver itself makes no blocks now: halted, stopping, disk, clock; or None."""


class Machine:
    """The ledger on this node: state in memory over rows in the store, moved one block at a time.

    One thread applies and commits. Other threads may read whole values of `state` (registry,
    height) and call `position_proof`.
    """

    def __init__(self, store: Store) -> None:
        """Load the state that the store's rows describe.

        Raises: InvariantViolation, DecodeError: the rows contradict themselves.
        """
        self.store = store
        self._moving = threading.Lock()
        with store.snapshot() as view:
            self.state = State.load(view)
        self.state.reader = store

    def apply(self, block: Block) -> BlockResult:
        """Return everything that follows from the next block; nothing changes.

        Raises: InvariantViolation: a defect; the node must stop and keep the block.
        """
        with self.store.snapshot() as view:
            self.state.reader = view
            try:
                return ledger.apply(self.state, block)
            finally:
                self.state.reader = self.store

    def commit(self, result: BlockResult, *, ordered: int | None = None) -> None:
        """Make the result of the next block durable, then take it over.

        ordered: height of the consensus engine's block it was made of, kept with it.
        Raises: StoreError: nothing was taken over; where it is `fatal` the node must stop.
        """
        with self._moving:
            self.store.commit(result, ordered=ordered)
            self.state.advance(result.delta)

    def set_offs_awaited(self) -> tuple[Problem, ...]:
        """Return the set-offs that cycles wait for, as of the newest durable block; for any thread."""
        with self._moving:
            if not any(cycle.state is CycleState.CUT_OFF for cycle in self.state.cycles.values()):
                return ()
            state = copy.copy(self.state)
            with self.store.snapshot() as view:
                state.reader = view
                return awaited(state)

    def explain(self, submission: int, item: int) -> Explanation | None:
        """Say why an obligation is not discharged, at the newest durable block; for any thread; see handlers/reasons."""
        with self._moving:
            state = copy.copy(self.state)
            with self.store.snapshot() as view:
                state.reader = view
                question = ask(state, submission, item)
        return None if question is None else answer(question)

    def position_proof(self, participant: int, asset: int) -> PositionProof:
        """Return one position, or its absence, with audit paths, as of the newest durable block.

        Raises: VerificationError: no such participant or asset.
        """
        with self._moving:
            path = self.state.tree.proof(participant, asset)
            row = self.store.get(Table.POSITIONS, key_position(participant, asset))
            seal_index = self.state.log_size - 1
        return PositionProof(None if row is None else Position.decode(row), path, seal_index)
