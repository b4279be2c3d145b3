"""The client for programs with an event loop: the same methods as sync.Client, awaited.

Lives here: AsyncClient: channels, waiting and the methods by name. May not live here: what a method means (trust, writes,
reads), when to try again (calls).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from clearing.anchored_receipt import VerifiedAnchoredReceipt
from clearing.commit_proof import CommitProof, VerifiedCommit
from clearing.handlers.reasons import Explanation
from clearing.log.checkpoint import Checkpoint
from clearing.position_proof import VerifiedPosition
from clearing.receipt import VerifiedReceipt
from clearing.records.instruction import InstructionKind
from clearing.records.submission import Submission
from clearing.records.transaction import Transaction
from clearing.rules.positions import Position
from clearing.rules.registry import Action, Registry
from clearing.types import CycleState
from node.anchor_queries import AnchorRow
from node.client.anchored import AnchoredOptions
from node.client.calls import Attempts, Call, Operation
from node.client.errors import BadAnswerError, ClientError, RejectedError
from node.client.memory import CheckpointMemory
from node.client.session import TIMEOUT_S, Session, aio_channel
from node.client.trust import AUDIT, PARTICIPANT
from node.client.writes import MessageSigner, Obligation, Recorded
from node.keys import Passphrase
from node.netting_queries import UnsettledRow
from node.pb.v1 import audit_pb2, participant_pb2
from node.profile import IdentityDirectory
from node.queries import (
    CycleAssetRow,
    CycleRow,
    ObligationFilter,
    ObligationRow,
    PositionFilter,
    ProposalRow,
    SettlementFilter,
    SettlementRow,
)
from node.queries_bitcoin import LegRow, MinedCoin
from node.services.facade import AnchoringStatus, BlockCommit, NodeStatus
from node.wire_anchors import AnchorProofs

T = TypeVar("T")
Ranges = Sequence[tuple[int, int]]


class AsyncClient:
    """A participant's connection to its network; belongs to the event loop that it is used on.

    Every method raises the errors of node.client.errors. timeout_s is the time one method may take, attempts included.
    """

    def __init__(
        self,
        identity: IdentityDirectory,
        *,
        endpoints: Sequence[str] = (),
        signer: Callable[[], MessageSigner] | None = None,
        state_dir: Path | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """Prepare for `identity`, see Session; nothing is sent yet."""
        self._session = Session(identity, endpoints=endpoints, signer=signer, state_dir=state_dir)
        self._timeout_s = timeout_s
        self._channels: dict[str, grpc.aio.Channel] = {}

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        passphrase: Passphrase | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Self:
        """Open the identity directory at `path`; the passphrase, where there is no key file, opens its signing key."""
        identity = IdentityDirectory.open(Path(path))
        return cls(identity, signer=lambda: identity.signing_key(passphrase), timeout_s=timeout_s)

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections; a later call opens them again."""
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    # -- recording

    async def submit(self, obligations: bytes | Iterable[Obligation]) -> tuple[Recorded, ...]:
        """Sign and record obligations, in submissions of at most 50,000, each whole or not at all."""
        return await self._run(self._session.writer.submit(obligations))

    async def prepare(self, obligations: bytes | Iterable[Obligation]) -> tuple[Submission, ...]:
        """Sign obligations without sending them."""
        return await self._run(self._session.writer.prepare(obligations))

    async def send(self, transaction: Transaction) -> Recorded:
        """Record a signed transaction; sending it again is safe."""
        return await self._run(self._session.writer.send(transaction))

    async def resume(self) -> tuple[Recorded | RejectedError, ...]:
        """Send again what an earlier session sent without hearing of its fate."""
        return await self._run(self._session.writer.resume())

    async def request(self, client_id: bytes) -> Recorded | None:
        """Return what became of a transaction, or None where none is recorded."""
        return await self._run(self._session.writer.request(client_id))

    async def affirm(self, submission: int, ranges: Ranges = ()) -> Recorded:
        """Affirm items of a submission as their other party: inclusive ranges, none for all that are open."""
        return await self._select(InstructionKind.AFFIRM, submission, ranges)

    async def reject(self, submission: int, ranges: Ranges = ()) -> Recorded:
        """Reject items of a submission as their other party."""
        return await self._select(InstructionKind.REJECT, submission, ranges)

    async def rescind(self, submission: int, ranges: Ranges = ()) -> Recorded:
        """Withdraw items of one's own submission before cut-off."""
        return await self._select(InstructionKind.RESCIND, submission, ranges)

    async def _select(self, kind: InstructionKind, submission: int, ranges: Ranges) -> Recorded:
        return await self._run(self._session.writer.select(kind, submission, ranges))

    async def run_cycle(self) -> Recorded:
        """Cut off and net now; for the central bank and operators."""
        return await self._run(self._session.writer.instruct(InstructionKind.RUN_CYCLE))

    async def evidence(self, cycle: int, number: int, evidence_hash: bytes) -> Recorded:
        """Show the SHA-256 of the evidence of payment for a settlement instruction."""
        return await self._run(self._session.writer.evidence(cycle, number, evidence_hash))

    async def confirm(self, cycle: int, number: int) -> Recorded:
        """Confirm a settlement instruction."""
        return await self._run(self._session.writer.settle(InstructionKind.CONFIRM, cycle, number))

    async def fail(self, cycle: int, number: int) -> Recorded:
        """Give a settlement instruction up."""
        return await self._run(self._session.writer.settle(InstructionKind.FAIL, cycle, number))

    async def pledge(self, participant: str, asset: str, amount_units: int) -> Recorded:
        """Set a participant's pledged liquidity; for the settlement agent."""
        return await self._run(self._session.writer.pledge(participant, asset, amount_units))

    async def propose(self, actions: Sequence[Action]) -> Recorded:
        """Put governance actions before the governors; for the ministry and the central bank."""
        return await self._run(self._session.writer.propose(actions))

    async def approve(self, proposal: int) -> Recorded:
        """Approve the proposal at a log index; for the ministry and the central bank."""
        return await self._run(self._session.writer.approve(proposal))

    # -- reading

    async def registry(self) -> Registry:
        """Return the registers as they are now."""
        return await self._run(self._session.writer.registry(fresh=True))

    async def obligations(
        self,
        wanted: ObligationFilter | None = None,
        *,
        everyone: bool = False,
        rows_max: int | None = None,
    ) -> tuple[ObligationRow, ...]:
        """List one's obligations, or everyone's for a supervisor."""
        return await self._run(
            self._session.reader.obligations(
                wanted or ObligationFilter(), everyone=everyone, rows_max=rows_max
            )
        )

    async def positions(
        self,
        wanted: PositionFilter | None = None,
        *,
        everyone: bool = False,
        rows_max: int | None = None,
    ) -> tuple[Position, ...]:
        """List one's positions, or everyone's for a supervisor; their salts are zero."""
        return await self._run(
            self._session.reader.positions(
                wanted or PositionFilter(), everyone=everyone, rows_max=rows_max
            )
        )

    async def instructions(
        self,
        wanted: SettlementFilter | None = None,
        *,
        everyone: bool = False,
        rows_max: int | None = None,
    ) -> tuple[SettlementRow, ...]:
        """List one's settlement instructions, or everyone's for a supervisor."""
        return await self._run(
            self._session.reader.instructions(
                wanted or SettlementFilter(), everyone=everyone, rows_max=rows_max
            )
        )

    async def cycles(
        self, states: tuple[CycleState, ...] = (), *, rows_max: int | None = None
    ) -> tuple[CycleRow, ...]:
        """List all cycles, or those in the given states."""
        return await self._run(self._session.reader.cycles(states, rows_max=rows_max))

    async def cycle_begun_by(self, log_index: int) -> int:
        """Return the number of the cycle that the RUN_CYCLE or RECAST_CYCLE recorded at a log index began."""
        return await self._run(self._session.reader.cycle_begun_by(log_index))

    async def cycle(
        self, number: int, *, everyone: bool = False
    ) -> tuple[CycleRow, tuple[CycleAssetRow, ...]]:
        """Return a cycle and its result by asset, with one's own net positions or everyone's."""
        return await self._run(self._session.reader.cycle(number, everyone=everyone))

    async def unsettled(
        self, cycle: int, *, everyone: bool = False, rows_max: int | None = None
    ) -> tuple[UnsettledRow, ...]:
        """List what a cycle did not discharge of one's own obligations, or of everyone's, with the reasons."""
        return await self._run(
            self._session.reader.unsettled(cycle, everyone=everyone, rows_max=rows_max)
        )

    async def reason(self, submission: int, item: int, *, everyone: bool = False) -> Explanation:
        """Return why an obligation is not discharged, and the cheapest change that would discharge it."""
        return await self._run(self._session.reader.reason(submission, item, everyone=everyone))

    async def network_id(self) -> bytes:
        """Return the network's id, proven under a final checkpoint."""
        return await self._run(self._session.reader.network_id())

    async def leg(self, cycle: int) -> LegRow:
        """Return the Bitcoin leg of a cycle; for its parties and supervisors."""
        return await self._run(self._session.reader.leg(cycle))

    async def mined_coin(self) -> MinedCoin:
        """Return declared mined coin: one's own, or everybody's for a supervisor."""
        return await self._run(self._session.reader.mined_coin())

    async def instruct(self, kind: InstructionKind, payload: bytes) -> Recorded:
        """Sign and record an instruction for which there is no method of its own; payload: its canonical bytes."""
        return await self._run(self._session.writer.instruct(kind, payload))

    async def proposals(
        self, log_index: int | None = None, *, rows_max: int | None = None
    ) -> tuple[ProposalRow, ...]:
        """List governance proposals, or only the one at a log index."""
        return await self._run(self._session.reader.proposals(log_index, rows_max=rows_max))

    async def anchors(self) -> tuple[AnchorRow, ...]:
        """List anchors, by id."""
        return await self._run(self._session.reader.anchors())

    async def anchor_proofs(self, anchor: int) -> AnchorProofs:
        """Return an anchor with its notes and proofs; verify before use."""
        return await self._run(self._session.reader.anchor_proofs(anchor))

    async def bitcoin_headers(self, start_height: int) -> bytes:
        """Return block headers from a height on, as the node's Bitcoin node has them; they are to be verified."""
        return await self._run(self._session.reader.bitcoin_headers(start_height))

    async def anchoring(self) -> AnchoringStatus | None:
        """Return how the node's anchoring stands, None where it anchors nothing."""
        return await self._run(self._session.reader.anchoring())

    async def anchor_now(self) -> int:
        """Have the node anchor what is due; returns how many checkpoints wait."""
        return await self._run(self._session.reader.anchor_now())

    async def status(self) -> NodeStatus:
        """Return how the node stands."""
        return await self._run(self._session.reader.status())

    async def block_commit(self, height: int) -> BlockCommit:
        """Return what the validators have signed of a block; verify before use."""
        return await self._run(self._session.reader.block_commit(height))

    # -- proofs

    @property
    def memory(self) -> CheckpointMemory:
        """What this client remembers of the log, and the policy that it judges by."""
        return self._session.trust.memory

    async def checkpoint(self) -> Checkpoint:
        """Return the newest final checkpoint, verified to extend the one remembered."""
        return await self._run(self._session.trust.checkpoint())

    async def receipt(
        self, log_index: int, item: int | None = None
    ) -> tuple[bytes, VerifiedReceipt]:
        """Return a receipt, to be kept as it is, and what it proves; it has been verified."""
        return await self._run(self._session.trust.receipt(log_index, item))

    async def anchored_receipt(
        self, log_index: int, item: int | None = None, options: AnchoredOptions | None = None
    ) -> tuple[bytes, VerifiedAnchoredReceipt]:
        """Return a two-clock receipt, to be kept as it is, and what it proves; it has been verified.

        Raises: NotAnchoredError: no anchor as deep as asked for covers it yet.
        """
        operation = self._session.anchored.receipt(log_index, item, options or AnchoredOptions())
        return await self._run(operation)

    async def commit_proof(self, head: Checkpoint) -> tuple[CommitProof, VerifiedCommit]:
        """Return the validators' commit for a checkpoint that was verified before, and what it proves; it has been verified.

        `CommitProof.carrying` puts it before any proof under that checkpoint.
        """
        return await self._run(self._session.commits.prove(head))

    async def position_proof(self, participant: int, asset: int) -> tuple[bytes, VerifiedPosition]:
        """Return the proof of a position or its absence, and what it proves; it has been verified."""
        return await self._run(self._session.trust.position_proof(participant, asset))

    async def leaves(self, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Yield leaves in order of index, up to the newest final checkpoint or `end`; goes on after a broken stream."""
        if end is None:
            end = (await self.checkpoint()).size
        at = start
        while at < end:
            request = audit_pb2.GetLeavesRequest(start_index=at, end_index=end)
            call = Call(f"{AUDIT}GetLeaves", request, audit_pb2.GetLeavesResponse)
            async for message in self._stream(call):
                for leaf in message.leaves:
                    yield leaf
                at += len(message.leaves)

    async def watch(self) -> AsyncIterator[Checkpoint]:
        """Yield every new final checkpoint, verified to extend the one before; goes on after a broken stream."""
        yield await self.checkpoint()
        while True:
            seen = await self._run(self._session.trust.ready())
            request = participant_pb2.WatchCheckpointsRequest(since_size=seen.checkpoint.size)
            answer = participant_pb2.WatchCheckpointsResponse
            async for message in self._stream(
                Call(f"{PARTICIPANT}WatchCheckpoints", request, answer)
            ):
                yield self._session.trust.take_over(message)

    # -- calls

    async def _run(self, operation: Operation[T]) -> T:
        """Carry an operation out: make its calls, hand it answers and failures, return its result."""
        deadline_s = time.monotonic() + self._timeout_s
        failure: ClientError | None = None
        answer: Any = None
        try:
            while True:
                call = operation.throw(failure) if failure else operation.send(answer)
                failure, answer = None, None
                try:
                    answer = await self._call(call, deadline_s)
                except ClientError as error:
                    failure = error
        except StopIteration as end:
            result: T = end.value
            return result

    async def _call(self, call: Call, deadline_s: float) -> Any:
        attempts = Attempts(call, time.monotonic(), deadline_s)
        while True:
            method = self._channel().unary_unary(
                call.method,
                request_serializer=type(call.request).SerializeToString,
                response_deserializer=call.answer.FromString,
            )
            try:
                return await method(call.request, timeout=attempts.remaining_s(time.monotonic()))
            except grpc.RpcError as error:
                again = attempts.after(error, time.monotonic())
            await asyncio.sleep(again.delay_s)
            self._session.move_on(again.endpoint, rotate=again.rotate)

    async def _stream(self, call: Call) -> AsyncIterator[Any]:
        """Yield the answers of a streaming call until it ends or breaks; the caller goes on from where it is.

        Raises: ClientError: it broke for good. Breaks in a row count together until an answer comes.
        """
        attempts = Attempts(call, time.monotonic(), time.monotonic() + self._timeout_s)
        while True:
            method = self._channel().unary_stream(
                call.method,
                request_serializer=type(call.request).SerializeToString,
                response_deserializer=call.answer.FromString,
            )
            heard = False
            stream: Any = method(call.request)
            try:
                async for message in stream:
                    heard = True
                    yield message
            except grpc.RpcError as error:
                again = attempts.after(error, time.monotonic())
            else:
                if not heard:
                    raise BadAnswerError(f"{call.method} ended without an answer")
                return
            finally:
                stream.cancel()
            await asyncio.sleep(again.delay_s)
            self._session.move_on(again.endpoint, rotate=again.rotate)
            if heard:
                return

    def _channel(self) -> grpc.aio.Channel:
        target = self._session.target
        channel = self._channels.get(target)
        if channel is None:
            channel = self._channels[target] = aio_channel(self._session.tls, target)
        return channel
