"""What an operator among several does with the others: their followers' reports, and heads exchanged.

Lives here: OperatorRule, which takes the place of the leader's handshake; Peers, which hand this
node's cosigned heads to the other operators; Operator, which puts both together with a Leader. May not live here: signing (sequencer/heads.py), the
order of blocks (the consensus engine).

A leader alone must hear its followers before it signs, for nobody else would know that its database
is old. Here the consensus engine brings every block again, the same for all, and the register's
validators are the memory: an operator signs as soon as its log has reached what it signed before.
Source: own design.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping

import grpc
import structlog

from clearing.errors import VerificationError
from clearing.log.checkpoint import Checkpoint
from clearing.log.keys import Signer
from clearing.log.note import Note
from clearing.log.policy import Policy
from node.broadcast import Broadcast
from node.errors import SetupError
from node.files import PUBLIC_MODE, replace_file
from node.observability import Metrics
from node.replication.leader import Leader
from node.replication.link import Link
from node.replication.member import Membership
from node.sequencer.cometbft.driver import CometSequencer
from node.sequencer.cometbft.home import TRANSACTION_BYTES_MAX
from node.sequencer.driver import Hooks, Machine
from node.sequencer.heads import Sharing
from node.services.facade import (
    BlockCommit,
    EngineFacts,
    NodeCondition,
    NodeKind,
    NodeRefusalError,
    NotServingError,
)
from node.store import Store
from node.workers.witness import Cosigner

_log = structlog.get_logger(__name__)

PAUSE_S_MIN = 0.1
PAUSE_S_MAX = 2.0
REPEAT_S = 2.0
"""The newest note is sent again after so long without a newer one."""

STUCK_S = 15.0
"""How long the log may lag behind the others' without moving before the node calls itself stuck."""

MUTE_REMEDY = "the consensus engine beside this node does not answer: restart the node, and look at its log where it happens again"

STUCK_REMEDY = (
    "this node's work may differ from theirs: stop it, keep a copy of its directory for the "
    "investigation, then delete its database and the engine's data except priv_validator_state.json, "
    "and start it: it verifies every block anew"
)


class OperatorRule:
    """Whether an operator may sign, and whom it feeds; in the place of handshake.HandshakeRule."""

    def __init__(self, store: Store, policy: Policy, origin: str) -> None:
        """Judge by the log in `store`."""
        self._store = store
        self._witnesses = {witness.name: witness.key for witness in policy.witnesses}
        self._origin = origin

    @property
    def refusal(self) -> NotServingError | None:
        """None: what an operator writes, the consensus engine decides."""
        return None

    def detect(self, why: str) -> None:
        """Note that the database is older than what was signed from it: it catches up by itself."""
        _log.warning("database is older than what was signed: signing waits", reason=why)

    def report(self, name: str, note: bytes) -> None:
        """Take the greatest head that follower `name` ever cosigned, b"" for none.

        Raises: NotServingError: CATCHING_UP: the follower is ahead; DecodeError, VerificationError:
        the note is malformed, not signed by that follower, or another history's.
        """
        if not note:
            return
        parsed = Note.parse(note)
        key = self._witnesses.get(name)
        if key is None:
            raise VerificationError(f"{name} is no witness of this network's policy")
        parsed.verified_by([key])
        theirs = Checkpoint.parse(parsed.text)
        with self._store.snapshot() as view:
            tip = view.tip
            size = tip.log_size if tip else 0
            # It follows another operator meanwhile; this one catches up from its engine.
            if theirs.size > size:
                raise NotServingError(
                    NodeCondition.CATCHING_UP,
                    f"{name} has {theirs.size} leaves, this operator {size}: follow another one",
                )
            same = not theirs.size or view.root(theirs.size) == theirs.root
        if not same or theirs.origin != self._origin:
            _log.critical("follower holds another history", follower=name, note=note.decode())
            raise VerificationError(f"{name} has cosigned another history of {theirs.size} leaves")


class Peers:
    """Hands this node's newest notes to the other operators, each by a task of its own.

    Only the newest note is worth sending: it covers all before it. It is sent again now and then: who was killed has
    forgotten what he had taken of a head that is not final with him.
    """

    def __init__(
        self, connects: Mapping[str, Callable[[], Link]], loop: asyncio.AbstractEventLoop
    ) -> None:
        """Send to operators by name; `connects` makes a fresh Link to each."""
        self._connects = connects
        self._loop = loop
        self._note = b""
        self._changed = {name: asyncio.Event() for name in connects}
        self.connected = dict.fromkeys(connects, False)

    def offer(self, note: bytes) -> None:
        """Send `note`, in place of any that is not yet sent; may be called from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._offer, note)

    def _offer(self, note: bytes) -> None:
        self._note = note
        for event in self._changed.values():
            event.set()

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name in self._connects:
                group.create_task(self._feed(name))

    async def _feed(self, name: str) -> None:
        pause_s = PAUSE_S_MIN
        while True:
            try:
                async with self._connects[name]() as link:
                    while True:
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(self._changed[name].wait(), REPEAT_S)
                        self._changed[name].clear()
                        if not self._note:
                            continue
                        await link.add_cosignature(self._note)
                        self.connected[name], pause_s = True, PAUSE_S_MIN
            except grpc.aio.AioRpcError as error:
                self._failed(name, f"{error.code().name}: {error.details()}")
            except SetupError as error:
                self._failed(name, str(error))
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - jitter
            pause_s = min(2 * pause_s, PAUSE_S_MAX)

    def _failed(self, name: str, why: str) -> None:
        if self.connected[name]:
            _log.warning("operator does not take heads", operator=name, reason=why)
        self.connected[name] = False
        # The newest note is still to be sent, if there ever was one.
        if self._note:
            self._changed[name].set()


class Operator(Leader):
    """One of several that order; implements services.facade.Ledger and Replication, as Leader does."""

    def __init__(
        self,
        membership: Membership,
        machine: Machine,
        broadcast: Broadcast,
        *,
        policy: Policy,
        signer: Signer,
        cosigner: Cosigner,
        make_driver: Callable[[Hooks], CometSequencer],
        metrics: Metrics,
        on_halt: Callable[[str], None],
        connects: Mapping[str, Callable[[], Link]],
    ) -> None:
        """Prepare; `start` begins. connects: makes a Link to each other operator, by node name."""
        self.peers = Peers(connects, broadcast.loop)
        self._conflicts: dict[str, int] = {}
        self._moved = (0, time.monotonic())
        self._sequencer: CometSequencer

        def make(hooks: Hooks) -> CometSequencer:
            self._sequencer = make_driver(hooks)
            return self._sequencer

        super().__init__(
            membership,
            machine,
            broadcast,
            policy=policy,
            signer=signer,
            cosigner=cosigner,
            make_driver=make,
            metrics=metrics,
            on_halt=on_halt,
            rule=OperatorRule(machine.store, policy, membership.origin),
            sharing=Sharing(self._may_cosign, self.peers.offer, self._note_conflict),
        )

    def _may_cosign(self, name: str) -> bool:
        return self.registry.may_cosign(name, self.time_ms)

    def _refusal(self) -> NodeRefusalError | None:
        # What is handed to an engine that stands still is in no block until somebody mends it.
        behind = self._stuck_behind()
        if behind:
            return NotServingError(NodeCondition.STUCK, f"{behind}: send to another operator")
        return super()._refusal()

    def _note_conflict(self, names: tuple[str, ...], note: Note) -> None:
        """Keep another operator's head that is not that of the log here: one of the two is wrong."""
        size = Checkpoint.parse(note.text).size
        for name in names:
            if self._conflicts.get(name) != size:
                self._conflicts[name] = size
                _log.critical("operator has cosigned another history", operator=name, size=size)
                path = self._store.directory / f"conflict-{name}-{size}.note"
                with contextlib.suppress(SetupError):
                    replace_file(path, note.encode(), PUBLIC_MODE)

    @property
    def transaction_bytes_max(self) -> int:
        """Most bytes of one transaction that this network takes."""
        return TRANSACTION_BYTES_MAX

    async def block_commit(self, height: int) -> BlockCommit:
        """Return what the validators have signed of a block; see services.facade.Ledger."""
        return await asyncio.to_thread(self._sequencer.block_commit, height)

    def _engine(self) -> EngineFacts | None:
        return self._sequencer.engine

    def standing(self) -> tuple[NodeCondition, str]:
        """Return the node's condition and one sentence about it, "" while it serves."""
        condition, detail = super().standing()
        if condition is not NodeCondition.SERVING:
            return condition, detail
        behind = self._stuck_behind()
        if behind:
            # Work that differs is no reason while the engine brings no work.
            return (
                NodeCondition.STUCK,
                f"{behind}; {STUCK_REMEDY if self._engine() else MUTE_REMEDY}",
            )
        if self._conflicts:
            names = ", ".join(f"{name} at {size}" for name, size in sorted(self._conflicts.items()))
            return condition, f"other heads than here were cosigned by {names}: see conflict-*.note"
        return condition, ""

    def _stuck_behind(self) -> str:
        """Return by how much the log here lags behind others' while it does not move, "" for not at all."""
        tip = self._store.tip
        size = tip.log_size if tip else 0
        if self._moved[0] != size:
            self._moved = (size, time.monotonic())
        ahead = sorted(
            (theirs, name)
            for name, theirs in self._heads.cosigned_sizes.items()
            if theirs > size and name in self.peers.connected
        )
        # One alone may claim anything; two, or all there are, are the likelier half of a quorum.
        if len(ahead) < min(2, len(self.peers.connected)) or not ahead:
            return ""
        if time.monotonic() - self._moved[1] < STUCK_S:
            return ""
        names = ", ".join(name for _, name in ahead)
        return f"the log here stands at {size} leaves while {names} have {ahead[0][0]} and more"

    def _expected_kind(self, node: str) -> NodeKind:
        return NodeKind.OPERATOR if node in self.peers.connected else super()._expected_kind(node)

    def _is_connected(self, name: str) -> bool:
        return super()._is_connected(name) or self.peers.connected.get(name, False)
