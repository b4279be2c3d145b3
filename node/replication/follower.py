"""A follower: takes the leader's blocks, cosigns its heads, answers its node's services.

Lives here: Follower: catching up, cosigning, reconnecting, what a follower answers. May not live
here: checking a block (replica.py), the connection (link.py), serving gRPC (services).

Invariants: blocks, heads and checkpoints are written by one thread; a head is cosigned only when
the log here ends with it; after a divergence nothing is taken or cosigned until an operator has
removed the report. Memory is bounded by one block, whatever the distance to the leader.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import grpc
import structlog

from clearing.errors import DecodeError, VerificationError
from clearing.handlers.reasons import Explanation
from clearing.ledger import Outcome
from clearing.log import merkle
from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note, Signature
from clearing.log.policy import Policy
from clearing.records.transaction import Transaction
from clearing.rules.registry import Registry
from node.broadcast import Broadcast
from node.errors import SetupError
from node.replication.divergence import (
    Divergence,
    DivergenceError,
    make_report,
    read_report,
    write_report,
)
from node.replication.link import Link, Received
from node.replication.member import Member, Membership
from node.replication.replica import FullReplica, ReceivedBlock, Replica
from node.services.facade import (
    BlockPart,
    FinalNote,
    Handshake,
    NodeCondition,
    NodeHead,
    NotHeldError,
    NotLeaderError,
    PositionProof,
)
from node.store import (
    Head,
    RollbackDetectedError,
    Store,
    StoreBusyError,
    StoreFullError,
)
from node.workers.witness import Cosigner, wall_s

_log = structlog.get_logger(__name__)

RECONNECT_S_MIN = 0.05
RECONNECT_S_MAX = 2.0
"""Longest pause between two attempts to reach the leader; each is drawn anew so that followers do
not come at once.
"""

DROP_EVERY = 64
"""After so many cosigned heads the signature lines kept for older ones are dropped."""

_LOST = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
"""After these the leader may not have seen a cosignature, and would take it the next time."""

P = ParamSpec("P")
T = TypeVar("T")


class Follower(Member):
    """A node that follows; implements services.facade.Ledger and Replication.

    replica: full or witness, over `store`. connect: makes a fresh Link. on_halt: called once with
    the reason when a defect or a failed disk ended all following.
    """

    def __init__(
        self,
        membership: Membership,
        store: Store,
        broadcast: Broadcast,
        *,
        replica: Replica,
        cosigner: Cosigner,
        policy: Policy,
        connect: Callable[[], Link],
        on_halt: Callable[[str], None],
        quiet_s: float | None = None,
    ) -> None:
        """Prepare to follow; `run` does. quiet_s: after so long without a word the next leader is followed."""
        super().__init__(membership, store, broadcast)
        self._replica = replica
        self._cosigner = cosigner
        self._policy = policy
        self._connect = connect
        self._on_halt = on_halt
        self._quiet_s = quiet_s
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="follower")
        self._report = read_report(store.directory)
        self._halted = ""
        self._disk_full = ""
        self._rolled_back = ""
        self._trouble = "not connected to the leader yet"
        self._connected = False
        self._leader_size = 0
        self._cosigned = 0
        self._sending: set[asyncio.Task[None]] = set()
        with store.snapshot() as view:
            self._final = view.latest_checkpoint()
        self._latest_note: bytes | None = self._final[1] if self._final else None
        self._own_note = self._cosigned_note()

    # -- following

    async def run(self) -> None:
        """Follow until cancelled, diverged or halted."""
        pause_s = RECONNECT_S_MIN
        while not self._report and not self._halted:
            before = self._size()
            try:
                await self._follow()
                self._trouble = "the leader closed the connection"
            except grpc.aio.AioRpcError as error:
                self._trouble = (
                    f"the leader does not answer: {error.code().name}: {error.details()}"
                )
            except (DecodeError, VerificationError) as error:
                self._trouble = f"the leader sends what is not the protocol: {error}"
                _log.error("leader breaks the protocol", reason=str(error))
            except (StoreFullError, StoreBusyError) as error:
                self._disk_full = str(error)
                _log.error("block not kept", reason=str(error))
            # A TLS file that is being renewed, or a small file that could not be written.
            except SetupError as error:
                self._trouble = str(error)
                _log.error("following interrupted", reason=str(error))
            # Whatever else escapes is a defect of ours or a failed disk.
            except Exception as error:  # noqa: BLE001 - halts
                self._halt(error)
                return
            finally:
                self._connected = False
            if self._size() > before:
                pause_s = RECONNECT_S_MIN
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - jitter
            pause_s = min(2 * pause_s, RECONNECT_S_MAX)

    async def close(self) -> None:
        """Let the write under way finish and end the writer's thread; for after `run` has ended."""
        self._stop_sending()
        await asyncio.to_thread(self._writer.shutdown)

    def _size(self) -> int:
        tip = self._store.tip
        return tip.log_size if tip else 0

    async def _in_writer(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` in the writer's thread; once begun it ends, whether the caller waits or not."""
        return await asyncio.get_running_loop().run_in_executor(
            self._writer, lambda: work(*args, **kwargs)
        )

    async def _follow(self) -> None:
        handshake = Handshake(
            self._membership.name,
            self._membership.kind,
            self._size(),
            self.network_id if self._store.tip else b"",
            await self._in_writer(self._cosigned_note),
        )
        async with self._connect() as link:
            try:
                async for received in self._heard(link.receive(handshake)):
                    self._connected, self._trouble = True, ""
                    cosigned = await self._take(received)
                    if cosigned is not None:
                        self._send(link, cosigned)
                    if self._report:
                        return
            finally:
                # While the link is still open, so that nothing is sent over a closed one. On the next link the leader
                # announces its head again, and it is cosigned anew.
                self._stop_sending()

    async def _heard(self, stream: AsyncIterator[Received]) -> AsyncIterator[Received]:
        """Yield from `stream`; end it where it is quiet for too long.

        Of several operators the one that is followed may be cut off from the others, and say nothing.
        """
        while True:
            try:
                yield await asyncio.wait_for(anext(stream), self._quiet_s)
            except (StopAsyncIteration, TimeoutError):
                return

    async def _take(self, received: Received) -> bytes | None:
        """Take what came; return the cosigned note where there is a head to cosign."""
        try:
            if isinstance(received, FinalNote):
                await self._in_writer(self._keep_final, received.note)
                return None
            self._leader_size = max(self._leader_size, received.checkpoint.size)
            if isinstance(received, ReceivedBlock):
                await self._in_writer(self._replica.take, received)
            cosigned = await self._in_writer(self._cosign, received.checkpoint, received.note)
            self._disk_full = ""
            return cosigned
        except DivergenceError as error:
            await self._in_writer(self._diverge, error, received.note)
            return None

    def _stop_sending(self) -> None:
        for task in self._sending:
            task.cancel()

    def _send(self, link: Link, note: bytes) -> None:
        task = asyncio.create_task(self._hand_over(link, note))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _hand_over(self, link: Link, note: bytes) -> None:
        """Send a cosigned head until the leader has answered, a newer one covers it, or the link has ended.

        A head that no block follows would else not become final: a leader that was too slow once is not asked again by a new head.
        """
        pause_s = RECONNECT_S_MIN
        while True:
            try:
                await link.add_cosignature(note)
            except grpc.aio.AioRpcError as error:
                reason = f"{error.code().name}: {error.details()}"
                _log.warning("cosignature not taken", reason=reason)
                if error.code() not in _LOST:
                    return
            else:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RECONNECT_S_MAX)
            if self._own_note != note:
                return

    # -- the writer's thread

    def _cosign(self, checkpoint: Checkpoint, note: bytes) -> bytes | None:
        """Cosign a head that ends the log here; None where it does not, or must not be."""
        self._check_history(checkpoint)
        self._latest_note = note
        self._broadcast.fire()
        if checkpoint.size != self._size():
            return None
        log_line = self._log_line(Note.parse(note))
        # Kept first: with it the cosigned head is evidence against a leader that has forgotten it.
        self._store.add_cosignature(
            checkpoint.size, log_line.key_id, log_line.name, log_line.line.encode()
        )
        try:
            signature = self._cosigner.cosign(checkpoint)
        except RollbackDetectedError as error:
            self._rolled_back = str(error)
            return None
        self._rolled_back = ""
        self._own_note = Note(checkpoint.text, (log_line, signature)).encode()
        self._cosigned += 1
        if self._cosigned % DROP_EVERY == 0:
            self._store.drop_cosignatures(checkpoint.size)
        return self._own_note

    def _log_line(self, note: Note) -> Signature:
        keys = {(log.key.name, log.key.key_id) for log in self._policy.logs}
        return next(line for line in note.signatures if (line.name, line.key_id) in keys)

    def _cosigned_note(self) -> bytes:
        """Return the greatest head ever cosigned here, b"" for none.

        The log's signature stands under it too, where it is kept.
        """
        again = self._cosigner.cosign_again(self._membership.origin)
        if again is None:
            return b""
        checkpoint, own = again
        with self._store.snapshot() as view:
            kept = [Signature.parse(line.decode()) for line in view.cosignatures(checkpoint.size)]
        return Note(checkpoint.text, (*kept, own)).encode()

    def _keep_final(self, data: bytes) -> None:
        """Keep a final checkpoint, once it is that and of the log here.

        Raises: DecodeError, VerificationError: it is none; DivergenceError: it is another history's.
        """
        note = Note.parse(data)
        checkpoint = self._policy.check(note).checkpoint
        self._check_history(checkpoint)
        with self._store.snapshot() as view:
            kept = view.checkpoint(checkpoint.size)
        if kept is None:
            self._store.add_checkpoint(checkpoint.size, data)
        if self._final is None or checkpoint.size > self._final[0]:
            self._final = (checkpoint.size, kept or data)
        self._broadcast.fire()

    def _check_history(self, checkpoint: Checkpoint) -> None:
        """Hold a head that the log has signed against the log here, as far as that reaches.

        Raises: DivergenceError: the log has signed two histories; the note is the evidence.
        """
        with self._store.snapshot() as view:
            tip = view.tip
            if tip is None or checkpoint.size > tip.log_size:
                return
            if view.root(checkpoint.size) != checkpoint.root:
                why = f"the log has signed another history of {checkpoint.size} leaves"
                raise DivergenceError(Divergence(tip.height, checkpoint.size, b"", b"", why))

    def _diverge(self, error: DivergenceError, note: bytes) -> None:
        """Leave the signed report; from here on nothing is taken."""
        tip = self._store.tip
        own = Head(tip.log_size, tip.log_root) if tip else Head(0, merkle.EMPTY_ROOT)
        report = make_report(
            error.divergence,
            own,
            note,
            origin=self._membership.origin,
            node=self._membership.name,
            signer=self._cosigner.report_signer,
            now_s=wall_s(),
        )
        _log.critical("diverged from the leader", reason=str(error), log_size=own.size)
        write_report(self._store.directory, report)
        self._report = report

    def _halt(self, error: Exception) -> None:
        self._halted = f"{type(error).__name__}: {error}"
        _log.critical("following ended", reason=self._halted, exc_info=error)
        self._on_halt(self._halted)

    # -- what the services ask

    @property
    def registry(self) -> Registry:
        """The registers after the newest block taken."""
        return self._replica.registry

    @property
    def final(self) -> tuple[int, bytes] | None:
        """Size and note of the greatest final checkpoint known here, or None."""
        return self._final

    def latest_note(self) -> bytes | None:
        """Return the newest head signed by the log and verified here, final or not, or None."""
        return self._latest_note

    async def submit(self, transaction: Transaction) -> Outcome:  # noqa: ARG002 - the protocol's
        """Refuse: a follower orders nothing. Raises: NotLeaderError: always."""
        raise NotLeaderError(self.leader_endpoint)

    def position_proof(self, participant: int, asset: int) -> PositionProof:
        """Return one position with its audit paths; see services.facade.Ledger."""
        if not isinstance(self._replica, FullReplica):
            raise NotHeldError(self.leader_endpoint)
        return self._replica.machine.position_proof(participant, asset)

    def explain(self, submission: int, item: int) -> Explanation | None:
        """Say why an obligation is not discharged; see services.facade.Ledger."""
        if not isinstance(self._replica, FullReplica):
            raise NotHeldError(self.leader_endpoint)
        return self._replica.machine.explain(submission, item)

    def standing(self) -> tuple[NodeCondition, str]:
        """Return the node's condition and one sentence about it, "" while it serves."""
        if self._halted:
            return NodeCondition.HALTED, f"{self._halted}: look at the node's log, then restart it"
        if self._report:
            return NodeCondition.DIVERGED, (
                "this replica's own work differs from the leader's; the signed report is in its "
                "directory"
            )
        if self._rolled_back:
            return NodeCondition.ROLLBACK_DETECTED, self._rolled_back
        if self._disk_full:
            return NodeCondition.DISK_FULL, self._disk_full
        if not self._connected:
            return NodeCondition.CATCHING_UP, self._trouble
        if self._size() < self._leader_size:
            return NodeCondition.CATCHING_UP, f"the leader has signed {self._leader_size} leaves"
        return NodeCondition.SERVING, ""

    def _divergence_report(self) -> bytes:
        return self._report

    def stream(
        self,
        handshake: Handshake,  # noqa: ARG002 - the protocol's
    ) -> AsyncGenerator[BlockPart | FinalNote, None]:
        """Refuse: blocks come from the leader. Raises: NotLeaderError: when first iterated."""
        return _refusing(NotLeaderError(self.leader_endpoint))

    async def add_cosignature(self, node: str, note: bytes) -> int:  # noqa: ARG002 - the protocol's
        """Refuse: the leader gathers cosignatures. Raises: NotLeaderError: always."""
        raise NotLeaderError(self.leader_endpoint)

    def head(self) -> NodeHead:
        """Return this node's newest head with its own signature."""
        tip = self._store.tip
        condition, _ = self.standing()
        return NodeHead(self._own_note, tip.height if tip else 0, self._membership.kind, condition)


async def _refusing(
    error: NotLeaderError, pieces: tuple[BlockPart | FinalNote, ...] = ()
) -> AsyncGenerator[BlockPart | FinalNote, None]:
    """Yield no piece, then raise `error`: a stream that is refused when it is first iterated."""
    for piece in pieces:
        yield piece
    raise error
