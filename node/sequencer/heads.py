"""The log's signature on heads, the cosignatures on it, and finality.

Lives here: HeadKeeper, the only user of the log's key. May not live here: making blocks, transport,
whether the leader may sign at all (replication/handshake.py decides and calls `allow`).

Invariants: a head is stored, twice and flushed, before its signature exists; heads never shrink and
never have two roots at one size; a checkpoint is final only when the policy accepts the very note
that is kept.

A round is one signed head on its way to the quorum. The next head is signed when the round is over,
or after ROUND_MS where the quorum is slow or away: so all cosigners meet at the same head under any
load, and a lone block is final after one exchange.

Where several operators order (Sharing), each keeps heads of its own under the same origin, and they
must meet without a leader who says where: so each signs the head of every block, and what others have
cosigned before this node got there waits for it. A cosignature is over the head alone, whoever has
signed it for the log, so one counts on all operators' notes. What does not count by the register is
left out of the note that is kept as final: no honest operator gives it out.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import structlog

from clearing.errors import DecodeError, VerificationError
from clearing.log.checkpoint import Checkpoint
from clearing.log.keys import Signer
from clearing.log.note import Note, Signature, sign
from clearing.log.policy import Policy
from node.services.facade import NodeCondition, NotServingError, UnknownHeadError
from node.store import (
    ForkDetectedError,
    Head,
    RollbackDetectedError,
    Store,
    StoreBusyError,
    StoreFullError,
)
from node.workers.witness import Cosigner

_log = structlog.get_logger(__name__)

ROUND_MS = 250
"""How long the next head waits for the quorum of the last."""

ROUNDS_KEPT = 32
"""How many heads that are not final take cosignatures; older ones are covered by newer ones."""

STORE_RETRY_MS = 1_000

BACKLOG = 8
"""How many heads wait to be signed where each is; of more the oldest are passed over."""

EARLY_KEPT = 256
"""How many notes of other operators wait for this node to reach their heads."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """What a keeper needs to know where several operators order.

    may_cosign: whether the register lets a witness of the policy count, by its name. on_note: called
    with each note of this node's for the other operators: a head signed and cosigned, and a final one.
    on_conflict: called with the names of those who have cosigned another head of the same size, and
    their note: evidence that one of two operators computes otherwise or lies.
    """

    may_cosign: Callable[[str], bool]
    on_note: Callable[[bytes], None]
    on_conflict: Callable[[tuple[str, ...], Note], None]


@dataclass(slots=True)
class _Round:
    checkpoint: Checkpoint
    log_signature: Signature
    cosignatures: dict[str, Signature]
    started_s: float
    durable_s: float

    @property
    def note(self) -> Note:
        return Note(self.checkpoint.text, (self.log_signature,))


class HeadKeeper:
    """Signs the log's heads, gathers cosignatures, says what is final; in a thread of its own.

    cosigner: this node's own. on_change: called after each new signed or final head; on_final: with
    the seconds from a durable block to its quorum; on_failure: called once with the reason when a
    defect or the disk ended all signing. All by the keeper's thread; they must not block.
    """

    def __init__(
        self,
        store: Store,
        policy: Policy,
        signer: Signer,
        cosigner: Cosigner,
        *,
        on_change: Callable[[], None],
        on_final: Callable[[float], None],
        on_failure: Callable[[str], None],
        sharing: Sharing | None = None,
    ) -> None:
        """Prepare the keeper; `start` starts it. sharing: where several operators order."""
        self._store = store
        self._policy = policy
        self._signer = signer
        self._cosigner = cosigner
        self._on_change = on_change
        self._on_final = on_final
        self._on_failure = on_failure
        self._witnesses = {witness.key: witness.name for witness in policy.witnesses}
        self._witness_keys = {witness.name: witness.key for witness in policy.witnesses}
        self._sharing = sharing
        self._changed = threading.Condition()  # guards the five below
        self._backlog: deque[tuple[Head, float]] = deque(maxlen=BACKLOG if sharing else 1)
        self._offers: deque[tuple[Note, Future[int]]] = deque()
        self._may_sign = False
        self._ends = False
        self._refused: NotServingError | None = None
        self._rounds: dict[int, _Round] = {}
        self._signed_size = self._last_signed() if sharing else -1
        self._early: dict[int, list[Note]] = {}
        self._retry_s = 0.0
        self._failed = False
        self.cosigned_sizes: dict[str, int] = {}
        with store.snapshot() as view:
            self._final = view.latest_checkpoint()
        self._latest = self._final
        self._thread = threading.Thread(target=self._run, name="heads")

    # -- any thread

    def start(self) -> None:
        """Start the keeper's thread; it signs nothing before `allow`."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; a signature under way is finished, waiting cosignatures are refused."""
        with self._changed:
            self._ends = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def allow(self) -> None:
        """Let the keeper sign, from the newest block's head on; once forbidden it stays so."""
        tip = self._store.tip
        with self._changed:
            if self._refused is not None:
                return
            self._may_sign = True
            if tip is not None:
                self._append(Head(tip.log_size, tip.log_root))
            self._changed.notify()

    def forbid(self, refusal: NotServingError) -> None:
        """Sign nothing any more, for good, for the reason in `refusal`."""
        with self._changed:
            self._may_sign = False
            self._refused = refusal

    def add_head(self, head: Head) -> None:
        """Take the head of a block that is durable; it will be signed, or one after it."""
        with self._changed:
            self._append(head)
            self._changed.notify()

    def _append(self, head: Head) -> None:
        if not self._backlog or self._backlog[-1][0].size < head.size:
            self._backlog.append((head, time.monotonic()))

    def _last_signed(self) -> int:
        """Return the size before the greatest head signed here: a database older than that catches up first."""
        names = (self._signer.key.name, self._cosigner.key.name)
        signed = [head.size for name in names if (head := self._store.signed_head(name))]
        return max(signed, default=0) - 1

    def add_cosignature(self, note: Note) -> Future[int]:
        """Take a cosigned head; the future gives the size of the greatest final checkpoint.

        The future raises UnknownHeadError: the log never signed that head; VerificationError: a
        signature does not verify, or none is by a witness of the policy; DecodeError: not a
        checkpoint.
        """
        future: Future[int] = Future()
        with self._changed:
            # Nobody would answer any more.
            if self._ends:
                raise NotServingError(NodeCondition.STOPPING, "the node is stopping")
            self._offers.append((note, future))
            self._changed.notify()
        return future

    @property
    def refusal(self) -> NotServingError | None:
        """Why no head is signed any more, or None."""
        return self._refused

    @property
    def latest(self) -> tuple[int, bytes] | None:
        """Size and note of the newest head signed by the log, with the quorum if final; or None."""
        return self._latest

    @property
    def final(self) -> tuple[int, bytes] | None:
        """Size and note of the greatest final checkpoint, or None."""
        return self._final

    # -- the keeper's thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._ends or self._offers or self._due()):
                    self._changed.wait(self._wait_s())
                if self._ends:
                    break
                offers = [o for o in self._offers if o[1].set_running_or_notify_cancel()]
                self._offers.clear()
                due = self._due()
            for note, future in offers:
                self._answer(note, future)
            if due is not None:
                self._try_sign(*due)
        for _, future in self._offers:
            if future.set_running_or_notify_cancel():
                future.set_exception(
                    NotServingError(NodeCondition.STOPPING, "the node is stopping")
                )

    def _try_sign(self, head: Head, durable_s: float) -> None:
        try:
            self._sign(head, durable_s)
        except (StoreFullError, StoreBusyError) as error:
            _log.warning("head not signed", reason=str(error))
            self._retry_s = time.monotonic() + STORE_RETRY_MS / 1000
            self._signed_size = min(self._signed_size, head.size - 1)
        # A signer that fails in an unknown way must not sign again.
        except Exception as error:  # noqa: BLE001 - ends all signing
            self._fail(error)

    def _due(self) -> tuple[Head, float] | None:
        """Return the head to be signed now, and since when it is durable; None for none."""
        if not self._may_sign or self._next() is None or self._due_s() > time.monotonic():
            return None
        return self._next()

    def _next(self) -> tuple[Head, float] | None:
        """Return the first head that waits and is not signed yet."""
        while self._backlog and self._backlog[0][0].size <= self._signed_size:
            self._backlog.popleft()
        return self._backlog[0] if self._backlog else None

    def _due_s(self) -> float:
        """Return when the next head may be signed."""
        last = None if self._sharing else self._rounds.get(self._signed_size)
        return max(self._retry_s, last.started_s + ROUND_MS / 1000 if last else 0.0)

    def _wait_s(self) -> float | None:
        """Return how long to sleep unless something comes, None for as long as nothing does."""
        if not self._may_sign or self._next() is None:
            return None
        return max(self._due_s() - time.monotonic(), 0.001)

    def _sign(self, head: Head, durable_s: float) -> None:
        if self._final is not None and head.size <= self._final[0]:
            self._signed_size = self._final[0]
            # After a restart of all: it may be final here and not with an operator that was away.
            if self._sharing is not None:
                self._sharing.on_note(self._final[1])
            return
        origin = self._signer.key.name
        checkpoint = Checkpoint(origin, head.size, head.root)
        # Durable first: what is signed must be remembered by whoever signed it.
        self._store.record_head(origin, head)
        signature = sign(checkpoint.text, self._signer)
        # A head whose storing failed half-way is signed again; what followers sent stays.
        before = self._rounds.get(head.size)
        kept = before.cosignatures if before else {}
        round_ = _Round(checkpoint, signature, kept, time.monotonic(), durable_s)
        self._rounds[head.size] = round_
        self._signed_size = head.size
        while len(self._rounds) > ROUNDS_KEPT:
            del self._rounds[min(self._rounds)]
        self._latest = (head.size, round_.note.encode())
        # Followers start while the leader's own cosignature is stored.
        self._on_change()
        own = self._witnesses.get(self._cosigner.key)
        if own is not None:
            round_.cosignatures[own] = self._cosigner.cosign(checkpoint)
            self.cosigned_sizes[own] = head.size
        if self._sharing is not None:
            self._sharing.on_note(
                round_.note.with_signatures(*round_.cosignatures.values()).encode()
            )
            self._take_early(head.size)
        self._judge(round_)

    def _take_early(self, size: int) -> None:
        """Take what others have cosigned before this node came to `size`."""
        for known in sorted(self._early):
            if known > size:
                return
            for note in self._early.pop(known):
                try:
                    self._take(note)
                except (UnknownHeadError, VerificationError) as error:
                    _log.warning("cosignature not taken", reason=str(error))

    def _answer(self, note: Note, future: Future[int]) -> None:
        try:
            self._take(note)
        except (StoreFullError, StoreBusyError) as error:
            future.set_exception(NotServingError(NodeCondition.DISK_FULL, str(error)))
        except (UnknownHeadError, DecodeError, VerificationError) as error:
            future.set_exception(error)
        # As in _try_sign; and the caller must not wait for ever.
        except Exception as error:  # noqa: BLE001 - ends all signing
            future.set_exception(NotServingError(NodeCondition.HALTED, str(error)))
            self._fail(error)
        else:
            future.set_result(self._final[0] if self._final else 0)

    def _take(self, note: Note) -> None:
        checkpoint = Checkpoint.parse(note.text)
        verified = note.verified_by(self._witnesses)
        names = tuple(self._witnesses[signature.key] for signature in verified)
        round_ = self._rounds.get(checkpoint.size)
        is_past = self._final is not None and checkpoint.size <= self._final[0]
        if self._sharing is not None and checkpoint.size > self._signed_size:
            self._keep_early(checkpoint, note)
            is_past = True
        elif is_past or (self._sharing is not None and round_ is None):
            self._check_own(checkpoint, names, note)
        elif round_ is None or round_.checkpoint != checkpoint:
            self._conflict(names, note)
            raise UnknownHeadError(f"this log signed no head of {checkpoint.size} leaves like that")
        for name in names:
            self.cosigned_sizes[name] = max(self.cosigned_sizes.get(name, 0), checkpoint.size)
        if not is_past and round_ is None:
            self._adopt(checkpoint, note)
        # A head that became final without this cosigner, or lies before one that did, needs nothing
        # more.
        if is_past or round_ is None:
            return
        by_line = {(line.name, line.key_id): line for line in note.signatures}
        for signature in verified:
            line = by_line[signature.key.name, signature.key.key_id]
            round_.cosignatures[self._witnesses[signature.key]] = line
        self._judge(round_)

    def _check_own(self, checkpoint: Checkpoint, names: tuple[str, ...], note: Note) -> None:
        with self._store.snapshot() as view:
            same = (
                checkpoint.origin == self._signer.key.name
                and view.root(checkpoint.size) == checkpoint.root
            )
        if not same:
            self._conflict(names, note)
            raise UnknownHeadError(f"this log has another head of {checkpoint.size} leaves")

    def _conflict(self, names: tuple[str, ...], note: Note) -> None:
        if self._sharing is not None:
            self._sharing.on_conflict(names, note)

    def _keep_early(self, checkpoint: Checkpoint, note: Note) -> None:
        if checkpoint.origin != self._signer.key.name:
            raise UnknownHeadError(f"a head of another log, {checkpoint.origin!r}")
        # The farthest are let go first: this node comes to the near ones sooner.
        while sum(map(len, self._early.values())) >= EARLY_KEPT:
            del self._early[max(self._early)]
        self._early.setdefault(checkpoint.size, []).append(note)

    def _adopt(self, checkpoint: Checkpoint, note: Note) -> None:
        """Keep another operator's final checkpoint of a head that this node passed over."""
        try:
            counted = [name for name in self._policy.check(note).cosignatures if self._counts(name)]
            self._policy.check_quorum(counted)
        except VerificationError:
            return
        keys = {self._witness_keys[name] for name in counted} | {
            log.key for log in self._policy.logs
        }
        lines = {(key.name, key.key_id) for key in keys}
        kept = tuple(line for line in note.signatures if (line.name, line.key_id) in lines)
        self._finalise(checkpoint.size, Note(checkpoint.text, kept), None)

    def _counts(self, name: str) -> bool:
        return self._sharing is None or self._sharing.may_cosign(name)

    def _judge(self, round_: _Round) -> None:
        """Make the round's checkpoint final if its cosigners are the quorum."""
        counted = {name: line for name, line in round_.cosignatures.items() if self._counts(name)}
        try:
            self._policy.check_quorum(counted)
        except VerificationError:
            return
        note = round_.note.with_signatures(*counted.values())
        # What is kept as final must convince others, not only this process.
        self._policy.check(note)
        self._finalise(round_.checkpoint.size, note, round_.durable_s)

    def _finalise(self, size: int, note: Note, durable_s: float | None) -> None:
        data = note.encode()
        self._store.add_checkpoint(size, data)
        self._final = (size, data)
        if durable_s is not None:
            self._on_final(time.monotonic() - durable_s)
        for older in [known for known in self._rounds if known <= size]:
            del self._rounds[older]
        if size >= self._signed_size:
            self._latest = self._final
        self._on_change()
        if self._sharing is not None:
            self._sharing.on_note(data)

    def _fail(self, error: Exception) -> None:
        detected = isinstance(error, RollbackDetectedError | ForkDetectedError)
        condition = NodeCondition.ROLLBACK_DETECTED if detected else NodeCondition.HALTED
        _log.critical("signing ended", reason=str(error), exc_info=error)
        self.forbid(NotServingError(condition, f"no head is signed any more: {error}"))
        if not self._failed:
            self._failed = True
            self._on_failure(f"{type(error).__name__}: {error}")
