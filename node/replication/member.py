"""What leader and follower have in common: reading, status, waiting for finality.

Lives here: Member, the shared half of services.facade.Ledger. May not live here: ordering
(leader.py), following (follower.py).
"""

from __future__ import annotations

import abc
from contextlib import AbstractContextManager
from dataclasses import dataclass

from clearing.errors import VerificationError
from clearing.rules.registry import Registry
from node.broadcast import Broadcast
from node.services.facade import (
    BlockCommit,
    EngineFacts,
    LedgerView,
    NodeCondition,
    NodeKind,
    NodeStatus,
    NotHeldError,
    NotServingError,
    ReplicaStatus,
)
from node.store import Store

_EMPTY_HASH = bytes(32)


@dataclass(frozen=True, slots=True)
class Membership:
    """A node's name, what it does, the log's origin, where the leader is, and how large a transaction may be."""

    name: str
    kind: NodeKind
    origin: str
    leader_endpoint: str
    transaction_bytes_max: int = 0


class Member(abc.ABC):
    """The ledger as one node holds it; see services.facade.Ledger for what each member promises."""

    def __init__(self, membership: Membership, store: Store, broadcast: Broadcast) -> None:
        """Stand on `store`; `broadcast` is fired whenever a head or checkpoint moves."""
        self._membership = membership
        self._store = store
        self._broadcast = broadcast
        self._leader_endpoint = membership.leader_endpoint
        self._ends = False

    @property
    @abc.abstractmethod
    def registry(self) -> Registry:
        """The registers after the newest block applied here."""

    @property
    @abc.abstractmethod
    def final(self) -> tuple[int, bytes] | None:
        """Size and note of the greatest final checkpoint known here, or None."""

    @abc.abstractmethod
    def standing(self) -> tuple[NodeCondition, str]:
        """Return the node's condition and one sentence about it, "" while it serves."""

    @property
    def network_id(self) -> bytes:
        """The leaf hash of leaf 0, 32 bytes; zeros before the first block is here."""
        return self._store.node(0, 0) if self._store.tip else _EMPTY_HASH

    @property
    def time_ms(self) -> int:
        """Block time of the newest block here."""
        tip = self._store.tip
        return tip.time_ms if tip else 0

    @property
    def leader_endpoint(self) -> str:
        """host:port of the node that this one follows, "" where it follows none or knows none."""
        return self._leader_endpoint

    def point_to(self, endpoint: str) -> None:
        """Note whom this node follows now: writers are sent there."""
        self._leader_endpoint = endpoint

    @property
    def transaction_bytes_max(self) -> int:
        """Most bytes of one transaction that this network takes, 0 for no limit beyond that of the format."""
        return self._membership.transaction_bytes_max

    async def block_commit(self, height: int) -> BlockCommit:  # noqa: ARG002 - the protocol's
        """Refuse: only operators have an engine. Raises: VerificationError: nobody has one; NotHeldError: others have."""
        if not self.registry.appointed:
            raise VerificationError(
                "one operator orders here, with no consensus engine: no validators sign"
            )
        raise NotHeldError(self.leader_endpoint, "no consensus engine runs beside this node")

    def _engine(self) -> EngineFacts | None:
        return None

    @property
    def holds_state(self) -> bool:
        """Whether rows and bodies are here."""
        return self._membership.kind is not NodeKind.WITNESS_REPLICA

    def snapshot(self) -> AbstractContextManager[LedgerView]:
        """Open a view of the newest committed height."""
        return self._store.snapshot()

    async def final_beyond(self, size: int) -> None:
        """Wait until the greatest final checkpoint has more than `size` leaves.

        Raises: NotServingError: the node stops first.
        """
        while True:
            ticket = self._broadcast.ticket()
            if self.final is not None and self.final[0] > size:
                return
            if self._ends:
                raise NotServingError(NodeCondition.STOPPING, "the node is stopping")
            await ticket.wait()

    def end_waits(self) -> None:
        """Send home whoever waits for something new: the node stops."""
        self._ends = True
        self._broadcast.fire()

    def _replicas(self) -> tuple[ReplicaStatus, ...]:
        return ()

    def _divergence_report(self) -> bytes:
        return b""

    def _queued(self) -> int:
        return 0

    def own_lei(self) -> str:
        """Return the LEI of the participant that runs this node, "" until it is registered."""
        number = self.registry.by_name(self._membership.name)
        return "" if number is None else self.registry.participants[number].lei

    def status(self) -> NodeStatus:
        """Return what this node is and how it stands."""
        tip = self._store.tip
        condition, detail = self.standing()
        return NodeStatus(
            name=self._membership.name,
            lei=self.own_lei(),
            kind=self._membership.kind,
            condition=condition,
            condition_detail=detail,
            leader_endpoint=self.leader_endpoint,
            network_id=self.network_id,
            origin=self._membership.origin,
            height=tip.height if tip else 0,
            time_ms=self.time_ms,
            log_size=tip.log_size if tip else 0,
            log_root=tip.log_root if tip else _EMPTY_HASH,
            state_root=tip.state_root if tip and self.holds_state else b"",
            final_size=self.final[0] if self.final else 0,
            replicas=self._replicas(),
            divergence_report=self._divergence_report(),
            store_bytes=self._store.usage().used_bytes,
            queued_transactions=self._queued(),
            engine=self._engine(),
        )
