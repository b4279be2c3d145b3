"""The leader: orders, signs, feeds its followers, and is what the services of such a node stand on.

Lives here: Leader, which puts sequencer, heads and handshake together and streams blocks. May not
live here: group commit (sequencer/embedded.py), signing (sequencer/heads.py), redaction
(source.py), serving gRPC (services).

Invariants: nothing is ordered or signed before the handshake allows it; a follower is sent only
what a head signed by the log covers; no read transaction is held while a follower is waited for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from clearing.errors import VerificationError
from clearing.handlers.reasons import Explanation
from clearing.ledger import BlockResult, Outcome
from clearing.log.checkpoint import Checkpoint
from clearing.log.keys import Signer
from clearing.log.note import Note
from clearing.log.policy import Policy
from clearing.records.transaction import Transaction
from clearing.rules.registry import Registry
from node.bridge import Bridge
from node.broadcast import Broadcast
from node.observability import Metrics
from node.replication.handshake import FeedingRule, HandshakeRule
from node.replication.member import Member, Membership
from node.replication.source import BlockSource, Rights, rights_of
from node.sequencer.driver import Driver, Hooks, Machine
from node.sequencer.heads import HeadKeeper, Sharing
from node.services.facade import (
    BlockPart,
    FinalNote,
    Handshake,
    NodeCondition,
    NodeHead,
    NodeKind,
    NodeRefusalError,
    NotServingError,
    PositionProof,
    ReplicaStatus,
    WrongNetworkError,
)
from node.store import Head, RollbackDetectedError
from node.workers.clerk import Clerk
from node.workers.proposer import Proposer
from node.workers.witness import Cosigner


class Leader(Member):
    """The node that orders; implements services.facade.Ledger and Replication.

    make_driver: makes whoever orders the blocks. on_halt: called with the reason when a defect or
    a failed disk ended all writing.
    """

    def __init__(
        self,
        membership: Membership,
        machine: Machine,
        broadcast: Broadcast,
        *,
        policy: Policy,
        signer: Signer,
        cosigner: Cosigner,
        make_driver: Callable[[Hooks], Driver],
        metrics: Metrics,
        on_halt: Callable[[str], None],
        rule: FeedingRule | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        """Prepare; `start` begins to order and sign as far as the handshake allows.

        rule, sharing: of an operator among several (operators.py).
        """
        super().__init__(membership, machine.store, broadcast)
        self._machine = machine
        self._policy = policy
        self._metrics = metrics
        self._rule: FeedingRule = rule or HandshakeRule(
            machine.store, policy, membership.name, membership.origin
        )
        self._heads = HeadKeeper(
            machine.store,
            policy,
            signer,
            cosigner,
            on_change=broadcast.fire,
            on_final=metrics.block_final,
            on_failure=on_halt,
            sharing=sharing,
        )
        self._driver = make_driver(Hooks(self._refusal, self._add_block, on_halt))
        self._source = self.make_source()
        self._bridge = Bridge(broadcast.loop)
        self._kinds: dict[str, NodeKind] = {}
        self._streams: Counter[str] = Counter()

    def make_source(self) -> BlockSource:
        """Return where blocks for followers are read from."""
        return BlockSource(self._store)

    def start(self, rollback: RollbackDetectedError | None = None) -> None:
        """Begin.

        rollback: what start-up checks said of a database older than what was signed from it.
        """
        if rollback is not None:
            self._rule.detect(str(rollback))
        self._heads.start()
        self._driver.start()
        self._open()

    def proposer(self, clerk: Clerk) -> Proposer:
        """Return who solves the set-offs that this node's ledger waits for."""
        return Proposer(self._machine, clerk, self._broadcast)

    def stop(self) -> None:
        """Finish what is queued, then end both threads."""
        self._driver.stop()
        self._heads.stop()

    def _open(self) -> None:
        if self._rule.refusal is None:
            self._heads.allow()

    def _refusal(self) -> NodeRefusalError | None:
        return self._rule.refusal or self._heads.refusal

    def _add_block(self, result: BlockResult, items: int, seconds: float) -> None:
        self._metrics.block_committed(items, seconds)
        self._heads.add_head(Head(result.log_size, result.log_root))

    # -- Ledger

    @property
    def registry(self) -> Registry:
        """The registers after the newest block applied here."""
        return self._machine.state.registry

    @property
    def final(self) -> tuple[int, bytes] | None:
        """Size and note of the greatest final checkpoint, or None."""
        return self._heads.final

    def latest_note(self) -> bytes | None:
        """Return the newest head that the log has signed, final or not, or None."""
        return self._heads.latest[1] if self._heads.latest else None

    async def submit(self, transaction: Transaction) -> Outcome:
        """Order one transaction; see services.facade.Ledger."""
        return await self._bridge.result(self._driver.submit(transaction))

    def position_proof(self, participant: int, asset: int) -> PositionProof:
        """Return one position with its audit paths; see services.facade.Ledger."""
        return self._machine.position_proof(participant, asset)

    def explain(self, submission: int, item: int) -> Explanation | None:
        """Say why an obligation is not discharged; see services.facade.Ledger."""
        return self._machine.explain(submission, item)

    def standing(self) -> tuple[NodeCondition, str]:
        """Return the node's condition and one sentence about it, "" while it serves."""
        refusals = (self._driver.refusal, self._rule.refusal, self._heads.refusal)
        stated = [refusal for refusal in refusals if isinstance(refusal, NotServingError)]
        if not stated:
            return NodeCondition.SERVING, ""
        halted = [refusal for refusal in stated if refusal.condition is NodeCondition.HALTED]
        worst = (halted or stated)[0]
        return worst.condition, str(worst)

    def _replicas(self) -> tuple[ReplicaStatus, ...]:
        return tuple(
            ReplicaStatus(
                witness.name,
                self._kinds.get(witness.name) or self._expected_kind(witness.name),
                self._is_connected(witness.name),
                self._heads.cosigned_sizes.get(witness.name, 0),
            )
            for witness in sorted(self._policy.witnesses, key=lambda witness: witness.name)
            if witness.name != self._membership.name
        )

    def _is_connected(self, name: str) -> bool:
        return self._streams[name] > 0

    def _expected_kind(self, node: str) -> NodeKind:
        try:
            rights_of(self.registry, self.time_ms, node, NodeKind.FULL_REPLICA)
        except VerificationError:
            return NodeKind.WITNESS_REPLICA
        return NodeKind.FULL_REPLICA

    def _queued(self) -> int:
        return self._driver.queued

    # -- Replication

    async def stream(self, handshake: Handshake) -> AsyncGenerator[BlockPart | FinalNote, None]:
        """Yield blocks and final checkpoints; see services.facade.Replication."""
        # A node of another network must neither count nor be fed.
        if handshake.network_id and handshake.network_id != self.network_id:
            raise WrongNetworkError(
                f"this network is {self.network_id.hex()}, the follower is of "
                f"{handshake.network_id.hex()}"
            )
        self._rights(handshake)
        try:
            await asyncio.to_thread(self._rule.report, handshake.node, handshake.cosigned_note)
        except NotServingError as error:
            # Also where signing had begun already: what is found out late is no less true. An operator that
            # only lags behind the follower goes on.
            if self._rule.refusal is not None:
                self._heads.forbid(error)
            raise
        self._open()
        height = await asyncio.to_thread(self._source.height_after, handshake.from_index)
        self._kinds[handshake.node] = handshake.kind
        # Counted: a follower that reconnects may be here before its old stream is found dead.
        self._streams[handshake.node] += 1
        try:
            async with aclosing(self._pieces(handshake, height)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            self._streams[handshake.node] -= 1

    def _rights(self, handshake: Handshake) -> Rights:
        return rights_of(self.registry, self.time_ms, handshake.node, handshake.kind)

    async def _pieces(
        self, handshake: Handshake, height: int
    ) -> AsyncGenerator[BlockPart | FinalNote, None]:
        """Yield from block `height`, which starts where the follower ends, until the node stops.

        It ends as well when the follower's licence no longer gives it what it asked for; the next
        handshake says so.
        """
        index = handshake.from_index
        announced = final_sent = 0
        while not self._ends:
            ticket = self._broadcast.ticket()
            while (latest := self._heads.latest) is not None and index < latest[0]:
                try:
                    rights = self._rights(handshake)
                except VerificationError:
                    return
                parts = await asyncio.to_thread(self._source.parts, height, rights, latest[1])
                for part in parts:
                    yield part
                index = parts[-1].first_index + len(parts[-1].entries)
                height += 1
                announced = latest[0]
            # A head over what the follower has already: after a restart of either.
            if latest is not None and index == latest[0] > announced:
                yield BlockPart(height - 1, index, (), latest[1])
                announced = index
            final = self._heads.final
            if final is not None and final_sent < final[0] <= index:
                yield FinalNote(final[1])
                final_sent = final[0]
            await ticket.wait()

    async def add_cosignature(
        self,
        node: str,  # noqa: ARG002 - the key in the note says who
        note: bytes,
    ) -> int:
        """Take a follower's cosigned head; see services.facade.Replication."""
        parsed = Note.parse(note)
        Checkpoint.parse(parsed.text)
        return await self._bridge.result(self._heads.add_cosignature(parsed))

    def head(self) -> NodeHead:
        """Return the newest head that the log has signed."""
        tip = self._store.tip
        condition, _ = self.standing()
        return NodeHead(
            self.latest_note() or b"",
            tip.height if tip else 0,
            self._membership.kind,
            condition,
        )
