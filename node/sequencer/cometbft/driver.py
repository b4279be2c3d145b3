"""The driver of several operators: transactions go to the consensus engine, and come back in blocks.

Lives here: CometSequencer: what is handed in, what waits, what each waiting client is told. May not
live here: ABCI (application.py), the engine's process (node/supervisor.py), signatures (heads.py).

Invariants: a client is told "recorded" only when the block that holds its transaction is durable on
this node; until then the bytes are handed in again and again, since the engine keeps its queue in
memory alone; one transaction handed in twice is recorded once, by its client id. What waits is
bounded in number, bytes and time.
"""

from __future__ import annotations

import functools
import hashlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from clearing.errors import DecodeError, RejectCode, VerificationError
from clearing.handlers.answers import refused
from clearing.ledger import Block, Outcome
from clearing.records.transaction import Transaction
from clearing.rows import Table
from clearing.rules.validators import naming_key
from node.errors import SetupError
from node.sequencer.clock import wall_ms
from node.sequencer.cometbft.application import CODE_RECORDED, Application, Events
from node.sequencer.cometbft.headers import signed_header_of
from node.sequencer.cometbft.home import TRANSACTION_BYTES_MAX, Sockets
from node.sequencer.cometbft.rpc import (
    EngineAwayError,
    EngineBehindError,
    EngineError,
    EngineFullError,
    EngineRpc,
)
from node.sequencer.cometbft.server import AbciServer
from node.sequencer.cometbft.transactions import Tick
from node.sequencer.driver import Hooks, Machine
from node.sequencer.halt import write_halt_report
from node.services.facade import (
    BlockCommit,
    BusyError,
    EngineFacts,
    NodeCondition,
    NodeRefusalError,
    NotServingError,
    OutcomeUnknownError,
    TooLargeError,
)
from node.store import StoreBusyError, StoreClosedError

_log = structlog.get_logger(__name__)

SENDERS = 4
"""Threads that hand transactions in: the engine takes about 25 ms for a large one."""

RESEND_S = 3.0
"""How long a transaction handed in may be in no block before it is handed in again."""

UNKNOWN_S = 20.0
"""How long a client waits at most before it is told that the outcome is not known."""

AWAY_S = 5.0
"""How long the engine may be away before a transaction it was never given is refused."""

WATCH_S = 1.0
STOP_S = 3.0
BUSY_MS = 500


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What may wait for a block; a longer queue only makes everybody wait longer."""

    transactions: int = 4_096
    bytes: int = 64 << 20


@dataclass(slots=True)
class _Waiting:
    """A transaction on its way: its bytes, who waits for it, and since when."""

    data: bytes
    transaction: Transaction
    futures: list[Future[Outcome]]
    since_s: float = field(default_factory=time.monotonic)
    sent_s: float = 0.0
    is_maybe_sent: bool = False


class CometSequencer:
    """A Driver that leaves the order to the consensus engine; see the module."""

    def __init__(
        self,
        machine: Machine,
        sockets: Sockets,
        directory: Path,
        hooks: Hooks,
        limits: QueueLimits | None = None,
    ) -> None:
        """Prepare; `start` serves the engine. `directory` receives the report of a halt."""
        self._machine = machine
        self._directory = directory
        self._hooks = hooks
        self._limits = limits or QueueLimits()
        self._lock = threading.Lock()  # guards the four below
        self._waiting: dict[bytes, _Waiting] = {}
        self._waiting_bytes = 0
        self._closed: NotServingError | None = None
        self._halted = False
        self._full: str | None = None
        self._to_send: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._rpc = EngineRpc(sockets.rpc)
        self.application = Application(machine, Events(hooks.on_block, self._tell, self._note_disk))
        self._server = AbciServer(self.application, sockets.abci, self._halt)
        self._ends = threading.Event()
        self.engine: EngineFacts | None = None
        self._ticked: Tick | None = None
        self._threads = [
            threading.Thread(target=self._send_all, name=f"sender-{number}", daemon=True)
            for number in range(SENDERS)
        ]
        self._threads.append(threading.Thread(target=self._watch, name="engine-watch", daemon=True))

    # -- Driver

    def start(self) -> None:
        """Serve the engine; it connects as soon as it runs.

        Raises: SetupError: the socket cannot be made.
        """
        self._server.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Refuse new transactions, give those under way a moment, then part from the engine."""
        with self._lock:
            self._closed = self._closed or NotServingError(
                NodeCondition.STOPPING, "the node is stopping; send again when it is back"
            )
        end_s = time.monotonic() + STOP_S
        while self._waiting and time.monotonic() < end_s and self._server.connections:
            time.sleep(0.02)
        self._ends.set()
        self.application.end()
        self._server.stop()
        for _ in range(SENDERS):
            self._to_send.put(None)
        self._fail_all("the node stopped")

    def submit(self, transaction: Transaction) -> Future[Outcome]:
        """Hand one transaction in; see Driver.

        Raises: TooLargeError: it must be split; otherwise as Driver.submit.
        """
        refusal = self._hooks.gate() or self.refusal
        if refusal is not None:
            raise refusal
        data = transaction.encode()
        # A larger one would hold up every proposer.
        if len(data) > TRANSACTION_BYTES_MAX:
            raise TooLargeError(len(data), TRANSACTION_BYTES_MAX)
        future: Future[Outcome] = Future()
        # What is recorded already needs no block, and what is certainly refused none either.
        known = self.application.screen(transaction, thorough=True)
        if known is not None:
            future.set_result(known)
            return future
        digest = hashlib.sha256(data).digest()
        with self._lock:
            if self._closed is not None:
                raise self._closed
            same = self._waiting.get(digest)
            if same is not None:
                same.futures.append(future)
                return future
            if (
                len(self._waiting) >= self._limits.transactions
                or self._waiting_bytes + len(data) > self._limits.bytes
            ):
                raise BusyError(BUSY_MS)
            self._waiting[digest] = _Waiting(data, transaction, [future])
            self._waiting_bytes += len(data)
        self._to_send.put(digest)
        return future

    @property
    def queued(self) -> int:
        """Number of transactions that wait for a block."""
        return len(self._waiting)

    def block_commit(self, height: int) -> BlockCommit:
        """Return what the validators have signed of a block of the ledger; blocks on the engine.

        Raises: VerificationError: no such block; NotServingError: the engine does not say.
        """
        with self._machine.store.snapshot() as view:
            ordered = view.ordered_of(height) if height else 0
            if view.tip is None or height > view.tip.height or ordered is None:
                raise VerificationError(f"no block {height} was made here of an engine's")
        # The header after the block carries the app hash that the block led to.
        try:
            signed = signed_header_of(
                self._rpc.commit(ordered + 1), self._rpc.validators(ordered + 1)
            )
        except (EngineError, DecodeError) as error:
            raise NotServingError(NodeCondition.CATCHING_UP, str(error)) from error
        key = naming_key(signed.header.validators_hash)
        with self._machine.store.snapshot() as view:
            named = view.get(Table.PARAMETERS, key)
        if named is None:
            raise VerificationError(f"the set that signed block {height} is none of the log's")
        return BlockCommit(ordered, signed, int.from_bytes(named, "big"))

    @property
    def refusal(self) -> NodeRefusalError | None:
        """Why nothing is taken now: halted, stopping, disk, no engine, catching up; or None."""
        if self._closed is not None:
            return self._closed
        if self._full is not None:
            return NotServingError(NodeCondition.DISK_FULL, self._full)
        if not self._server.connections:
            return NotServingError(
                NodeCondition.CATCHING_UP,
                "the consensus engine is not connected; `clearing node run` starts it",
            )
        engine = self.engine
        if engine is not None and engine.is_catching_up:
            return NotServingError(
                NodeCondition.CATCHING_UP,
                f"the consensus engine is catching up and at block {engine.height}",
            )
        return None

    # -- the sender threads

    def _send_all(self) -> None:
        while (digest := self._to_send.get()) is not None:
            waiting = self._waiting.get(digest)
            if waiting is not None:
                self._guarded(functools.partial(self._send, digest, waiting))
        self._rpc.close()

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do one piece of a thread's work: what passes does not end the thread, and a defect ends the node, not only it."""
        try:
            work()
        # What waits is handed in again.
        except (StoreBusyError, StoreClosedError) as error:
            _log.warning("engine not asked now", reason=str(error))
        except Exception as error:  # noqa: BLE001 - ends the node
            self._halt(error)

    def _send(self, digest: bytes, waiting: _Waiting) -> None:
        waiting.sent_s = time.monotonic()
        try:
            answer = self._rpc.broadcast(waiting.data)
        except EngineAwayError as error:
            # It may have arrived: only a block, or the next attempt, tells.
            waiting.is_maybe_sent |= "refused" not in str(error) and "No such file" not in str(
                error
            )
            if not waiting.is_maybe_sent and time.monotonic() - waiting.since_s > AWAY_S:
                away = "the consensus engine does not answer; send again"
                self._finish(digest, NotServingError(NodeCondition.CATCHING_UP, away))
            return
        except EngineFullError:
            self._refuse_unsent(digest, waiting, BusyError(BUSY_MS))
            return
        except EngineBehindError as error:
            behind = NotServingError(NodeCondition.CATCHING_UP, str(error))
            self._refuse_unsent(digest, waiting, behind)
            return
        except EngineError as error:
            _log.error("transaction not taken by the engine", reason=str(error))
            self._refuse_unsent(
                digest, waiting, NotServingError(NodeCondition.CATCHING_UP, str(error))
            )
            return
        if answer.code == 0:
            waiting.is_maybe_sent = True
        elif answer.code == CODE_RECORDED:
            known = self.application.screen(waiting.transaction, thorough=False)
            if known is not None:
                self._finish(digest, known)
        elif not waiting.is_maybe_sent:
            # Refused by the very check that every operator makes, and in no queue.
            self._finish(digest, refused(RejectCode(answer.code)))

    def _refuse_unsent(self, digest: bytes, waiting: _Waiting, error: NodeRefusalError) -> None:
        """Refuse what the engine was never given; what it may have is waited for."""
        if not waiting.is_maybe_sent:
            self._finish(digest, error)

    # -- the watch thread

    def _watch(self) -> None:
        while not self._ends.wait(WATCH_S):
            self._guarded(self._look)
        self._rpc.close()

    def _look(self) -> None:
        try:
            self.engine = self._rpc.status()
        except EngineError:
            self.engine = None
        self._review()
        deadline_ms, height = self.application.deadline_ms, self.application.height
        if deadline_ms is not None and wall_ms() >= deadline_ms:
            self._tick(Tick(deadline_ms, height))

    def _tick(self, tick: Tick) -> None:
        # Once at a height: the block that it brings moves the height. One that was not taken is no tick.
        if tick == self._ticked:
            return
        try:
            if self._rpc.broadcast(tick.encode()).code == 0:
                self._ticked = tick
        except EngineError as error:
            _log.info("tick not taken", reason=str(error))

    def _review(self) -> None:
        """Hand in again what is in no block yet, and end the waiting that has lasted too long."""
        now_s = time.monotonic()
        with self._lock:
            items = list(self._waiting.items())
        for digest, waiting in items:
            if all(future.cancelled() for future in waiting.futures):
                self._forget(digest)
            elif now_s - waiting.since_s > UNKNOWN_S:
                self._finish(digest, self._unknown("it is in no block yet"))
            elif now_s - waiting.sent_s > RESEND_S:
                self._to_send.put(digest)

    # -- what ends waiting

    def _tell(self, outcomes: tuple[tuple[bytes, Outcome], ...]) -> None:
        for digest, outcome in outcomes:
            self._finish(digest, outcome)

    def _forget(self, digest: bytes) -> list[Future[Outcome]]:
        with self._lock:
            waiting = self._waiting.pop(digest, None)
            if waiting is None:
                return []
            self._waiting_bytes -= len(waiting.data)
            return waiting.futures

    def _finish(self, digest: bytes, found: Outcome | Exception) -> None:
        for future in self._forget(digest):
            # A caller who has gone needs no answer.
            if not future.set_running_or_notify_cancel():
                continue
            if isinstance(found, Exception):
                future.set_exception(found)
            else:
                future.set_result(found)

    def _unknown(self, why: str) -> OutcomeUnknownError:
        return OutcomeUnknownError(
            f"{why}: the network may be without a quorum of operators; send the same bytes again"
        )

    def _fail_all(self, why: str) -> None:
        for digest in list(self._waiting):
            self._finish(digest, self._unknown(why))

    def _note_disk(self, why: str | None) -> None:
        self._full = why

    def _halt(self, error: Exception) -> None:
        """End all writing: keep the block, report where the ledger stands, tell all who wait."""
        state = self._machine.state
        reason = f"{type(error).__name__}: {error}"
        height = self.application.height
        _log.critical(
            "sequencer halted",
            reason=reason,
            engine_height=height,
            height=state.height,
            exc_info=error,
        )
        with self._lock:
            self._closed = NotServingError(
                NodeCondition.HALTED, f"stopped after the engine's block {height}: {reason}"
            )
        try:
            block = self.application.pending_block or Block(state.height + 1, state.time_ms, ())
            write_halt_report(self._directory, block, state, reason)
        except SetupError as failure:
            _log.critical("halt report not written", reason=str(failure))
        self._fail_all(reason)
        self._hooks.on_halt(reason)
