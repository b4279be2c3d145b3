"""The embedded sequencer: one operator orders the blocks, in one thread.

Lives here: the bounded queue, group commit, the writer thread. May not live here: rules (the core),
signatures (heads.py), transport.

Invariants: one thread applies and commits; a transaction is acknowledged only after the block that
holds it is on disk; a transaction that was refused or withdrawn is in no block; the queue is
bounded in number and bytes.

Group commit: while one block is being flushed the next transactions gather, so a busy node makes
large blocks without waiting. Only when the last block was shared does the writer wait a little for
as many again, so that a crowd of clients that all wait for their answers is served by one flush; a
lone transaction never waits.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import structlog

from clearing.errors import invariant
from clearing.ledger import Block, Outcome, next_deadline_ms
from clearing.records.submission import Submission
from clearing.records.transaction import Transaction
from node.errors import SetupError
from node.sequencer.clock import BlockClock
from node.sequencer.driver import Hooks, Machine
from node.sequencer.halt import write_halt_report
from node.services.facade import (
    BusyError,
    NodeCondition,
    NodeRefusalError,
    NotServingError,
    OutcomeUnknownError,
)
from node.store import StoreBusyError, StoreError, StoreFullError

_log = structlog.get_logger(__name__)

RETRY_MS_MIN = 50
RETRY_MS_MAX = 5_000
IDLE_WAKE_MS = 1_000
"""How often an idle writer looks at the clock, so that setting it oversleeps no deadline."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of queue and block; an item is an obligation or an instruction.

    queue_transactions, queue_bytes: what may wait; a greater queue only makes everybody wait
    longer.
    block_items, block_bytes: what one block may hold beyond its first transaction; they bound the
    time and memory that a follower needs for it. gather_ms: the longest wait for company, when the
    last block was shared.
    """

    queue_transactions: int = 4_096
    queue_bytes: int = 64 << 20
    block_items: int = 100_000
    block_bytes: int = 16 << 20
    gather_ms: int = 20


@dataclass(frozen=True, slots=True)
class _Pending:
    transaction: Transaction
    items: int
    size: int
    future: Future[Outcome]


class EmbeddedSequencer:
    """A Driver that orders transactions as they come; see the module."""

    def __init__(
        self,
        machine: Machine,
        clock: BlockClock,
        directory: Path,
        hooks: Hooks,
        limits: Limits | None = None,
    ) -> None:
        """Prepare the writer; `start` starts it. `directory` receives the report of a halt."""
        self._machine = machine
        self._clock = clock
        self._directory = directory
        self._hooks = hooks
        self._limits = limits or Limits()
        self._changed = threading.Condition()  # guards the queue and what is said of it
        self._queue: deque[_Pending] = deque()
        self._queued_bytes = 0
        self._wanted = 1
        self._closed: NotServingError | None = None
        self._last_shared = 0
        self._tried_ms = machine.state.time_ms
        self._bytes_per_ms = 1_000
        self._refused: NodeRefusalError | None = None  # by the store, at the last block
        self._retry_s = 0.0
        self._thread = threading.Thread(target=self._run, name="sequencer")

    def start(self) -> None:
        """Start the writer thread."""
        self._thread.start()

    def stop(self) -> None:
        """Refuse new transactions and return when all that are queued are durable."""
        with self._changed:
            if self._closed is None:
                self._closed = NotServingError(
                    NodeCondition.STOPPING, "the node is stopping; send again when it is back"
                )
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def queued(self) -> int:
        """Number of transactions that wait for a block."""
        return len(self._queue)

    @property
    def refusal(self) -> NodeRefusalError | None:
        """Why the sequencer itself makes no blocks: halted, stopping, disk, clock; or None."""
        if self._closed is not None or self._refused is not None:
            return self._closed or self._refused
        try:
            self._clock.next_ms(self._machine.state.time_ms)
        except NotServingError as error:
            return error
        return None

    def submit(self, transaction: Transaction) -> Future[Outcome]:
        """Queue one transaction; see Driver."""
        refusal = self._hooks.gate()
        # A node that may not order must not collect promises either.
        if refusal is not None:
            raise refusal
        items = transaction.count if isinstance(transaction, Submission) else 1
        size = len(transaction.leaf) + len(transaction.body)
        pending = _Pending(transaction, items, size, Future())
        with self._changed:
            # Stopping and halted nodes take nothing.
            if self._closed is not None:
                raise self._closed
            # A full queue is said now, not discovered by a deadline.
            if (
                len(self._queue) >= self._limits.queue_transactions
                or self._queued_bytes + size > self._limits.queue_bytes
            ):
                estimate_ms = self._queued_bytes // self._bytes_per_ms
                raise BusyError(min(max(estimate_ms, RETRY_MS_MIN), RETRY_MS_MAX))
            self._queue.append(pending)
            self._queued_bytes += size
            # The writer is woken for the first, and again when all whom it waits for are there.
            if len(self._queue) == 1 or len(self._queue) >= self._wanted:
                self._changed.notify()
        return pending.future

    # -- the writer thread

    def _run(self) -> None:
        try:
            while (batch := self._take()) is not None:
                self._make_block(batch)
        # Without this thread nobody would answer those who wait.
        except Exception as error:  # noqa: BLE001 - halts
            state = self._machine.state
            self._halt(Block(state.height + 1, state.time_ms, ()), [], error)

    def _take(self) -> list[_Pending] | None:
        """Return what the next block holds, nothing where only a deadline fell due, None to end."""
        with self._changed:
            while not self._queue:
                if self._closed is not None:
                    return None
                wait_ms = self._idle_ms()
                if wait_ms <= 0:
                    return []
                self._changed.wait(wait_ms / 1000)
            self._gather()
            batch: list[_Pending] = []
            items = size = 0
            while self._queue:
                pending = self._queue[0]
                if batch and (
                    items + pending.items > self._limits.block_items
                    or size + pending.size > self._limits.block_bytes
                ):
                    break
                self._queue.popleft()
                self._queued_bytes -= pending.size
                # From here on it cannot be withdrawn; what was withdrawn before is dropped.
                if pending.future.set_running_or_notify_cancel():
                    batch.append(pending)
                    items += pending.items
                    size += pending.size
            self._last_shared = len(batch) if len(batch) > 1 else 0
            return batch

    def _gather(self) -> None:
        """Wait for as many transactions as the last shared block had, for a little while."""
        self._wanted = self._last_shared
        end = time.monotonic() + self._limits.gather_ms / 1000
        while (
            len(self._queue) < self._wanted
            and self._queued_bytes < self._limits.block_bytes
            and self._closed is None
        ):
            left = end - time.monotonic()
            if left <= 0:
                break
            self._changed.wait(left)
        self._wanted = 1

    def _idle_ms(self) -> int:
        """Return how long to wait unless a transaction arrives; 0 when a deadline fell due."""
        state = self._machine.state
        try:
            deadline_ms = next_deadline_ms(state, max(self._tried_ms, state.time_ms))
        except StoreBusyError:
            return IDLE_WAKE_MS
        # What the store could not take is tried again at leisure.
        if (
            deadline_ms is None
            or self._hooks.gate() is not None
            or time.monotonic() < self._retry_s
        ):
            return IDLE_WAKE_MS
        try:
            now_ms = self._clock.next_ms(state.time_ms)
        except NotServingError:
            return IDLE_WAKE_MS
        return min(max(deadline_ms - now_ms, 0), IDLE_WAKE_MS)

    def _make_block(self, batch: list[_Pending]) -> None:
        """Apply, make durable, acknowledge; or refuse all of the batch; or halt."""
        state = self._machine.state
        started = time.monotonic_ns()
        try:
            refusal = self._hooks.gate()
            if refusal is not None:
                raise refusal
            time_ms = self._clock.next_ms(state.time_ms)
        except NodeRefusalError as error:
            _refuse(batch, error)
            return
        block = Block(state.height + 1, time_ms, tuple(entry.transaction for entry in batch))
        try:
            result = self._machine.apply(block)
            invariant(len(result.outcomes) == len(batch), "every transaction has an outcome")
            if result.entries:
                written_s = time.perf_counter()
                self._machine.commit(result)
                items = sum(pending.items for pending in batch)
                self._hooks.on_block(result, items, time.perf_counter() - written_s)
        except (StoreFullError, StoreBusyError) as error:
            self._refused = _store_refusal(error)
            self._retry_s = time.monotonic() + IDLE_WAKE_MS / 1000
            _refuse(batch, self._refused)
            return
        # Whatever else escapes is a defect of ours or a failed disk.
        except Exception as error:  # noqa: BLE001 - halts
            self._halt(block, batch, error)
            return
        self._refused = None
        self._tried_ms = time_ms
        for pending, outcome in zip(batch, result.outcomes, strict=True):
            pending.future.set_result(outcome)
        self._measure(batch, time.monotonic_ns() - started)

    def _measure(self, batch: list[_Pending], took_ns: int) -> None:
        rate = sum(pending.size for pending in batch) * 1_000_000 // max(took_ns, 1)
        # A slowly moving mean: one odd block must not send everybody away for seconds.
        self._bytes_per_ms = max(1, (7 * self._bytes_per_ms + rate) // 8)

    def _halt(self, block: Block, batch: list[_Pending], error: Exception) -> None:
        """End all writing: keep the block, report where the ledger stands, tell all who wait."""
        state = self._machine.state
        reason = f"{type(error).__name__}: {error}"
        _log.critical(
            "sequencer halted",
            reason=reason,
            height=state.height,
            log_size=state.log_size,
            log_root=state.log.root.hex(),
            exc_info=error,
        )
        refusal = NotServingError(
            NodeCondition.HALTED, f"stopped at block {block.height}: {reason}"
        )
        with self._changed:
            self._closed = refusal
            waiting = [p for p in self._queue if p.future.set_running_or_notify_cancel()]
            self._queue.clear()
            self._queued_bytes = 0
        try:
            write_halt_report(self._directory, block, state, reason)
        except SetupError as failure:
            _log.critical("halt report not written", reason=str(failure))
        unknown = OutcomeUnknownError(str(refusal)) if _may_be_durable(error) else refusal
        for pending in batch:
            pending.future.set_exception(unknown)
        for pending in waiting:
            pending.future.set_exception(refusal)
        self._hooks.on_halt(reason)


def _refuse(batch: list[_Pending], refusal: NodeRefusalError) -> None:
    for pending in batch:
        pending.future.set_exception(refusal)


def _store_refusal(error: StoreFullError | StoreBusyError) -> NodeRefusalError:
    if isinstance(error, StoreFullError):
        return NotServingError(NodeCondition.DISK_FULL, str(error))
    return BusyError(RETRY_MS_MAX)


def _may_be_durable(error: Exception) -> bool:
    """Return whether the block may be on disk all the same: only a failing write leaves it open."""
    return isinstance(error, StoreError)
