"""What the services ask of the node behind them: the ledger it holds and its part in replication.

Lives here: Protocols, the values that cross them, and the errors by which a node says that it cannot. May not live
here: protobuf, grpc, an implementation (runtime.py builds one from store, sequencer and replication).

Threads: `submit`, `final_beyond` and everything of Replication are called on the event loop; `snapshot` and
`position_proof` may be called from any thread.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from clearing.consensus.commit import SignedHeader
from clearing.errors import ClearingError
from clearing.handlers.reasons import Explanation
from clearing.ledger import Outcome
from clearing.log import merkle
from clearing.records.transaction import Transaction
from clearing.rows import Reader
from clearing.rules.positions import Position, PositionPath
from clearing.rules.registry import Registry


class NodeKind(enum.IntEnum):
    """What a node does for the network; numbers as on the wire."""

    LEADER = 1
    FULL_REPLICA = 2
    WITNESS_REPLICA = 3
    OPERATOR = 4


ORDERERS = (NodeKind.LEADER, NodeKind.OPERATOR)
"""Kinds of node that take transactions and feed followers."""


class NodeCondition(enum.IntEnum):
    """How a node stands; numbers as on the wire, meanings in operator.proto."""

    WAITING_FOR_REPLICAS = 1
    SERVING = 2
    CATCHING_UP = 3
    DIVERGED = 4
    ROLLBACK_DETECTED = 5
    DISK_FULL = 6
    HALTED = 7
    CLOCK_AHEAD = 8
    STOPPING = 9
    STUCK = 10


class NodeRefusalError(ClearingError):
    """The node cannot do this now; nothing was changed. Its text is one sentence for the caller."""


class NotLeaderError(NodeRefusalError):
    """A follower was asked to write; `endpoint` is the leader's host:port, "" where it is not known."""

    def __init__(self, endpoint: str) -> None:
        """Remember where to go instead."""
        super().__init__(f"this node follows; send transactions to {endpoint or 'the leader'}")
        self.endpoint = endpoint


class NotHeldError(NodeRefusalError):
    """A node was asked for what it does not hold, such as a witness replica for state or bodies; ask `endpoint`."""

    def __init__(self, endpoint: str, lacks: str = "a witness replica holds no state") -> None:
        """Remember where to go instead."""
        super().__init__(f"{lacks}; ask {endpoint or 'a full replica'}")
        self.endpoint = endpoint


class BusyError(NodeRefusalError):
    """The queue is full: try again after `retry_after_ms`."""

    def __init__(self, retry_after_ms: int) -> None:
        """Remember when to come back."""
        super().__init__("the queue of transactions is full")
        self.retry_after_ms = retry_after_ms


class NotServingError(NodeRefusalError):
    """The node is in a condition in which it does not write (WAITING_FOR_REPLICAS, ROLLBACK_DETECTED, ...)."""

    def __init__(self, condition: NodeCondition, detail: str) -> None:
        """Remember the condition; `detail` is one sentence with its reason."""
        super().__init__(detail)
        self.condition = condition


class TooLargeError(NodeRefusalError):
    """A transaction has more bytes than this network's blocks take: split the submission."""

    def __init__(self, found_bytes: int, bytes_max: int) -> None:
        """Remember the limit."""
        super().__init__(f"the transaction has {found_bytes} bytes, this network takes {bytes_max}")
        self.bytes_max = bytes_max


class OutcomeUnknownError(ClearingError):
    """The node stopped while the transaction's block was being written: it may be recorded or not.

    Sending the same bytes again, once the node is back, is safe and tells which.
    """


class WrongNetworkError(NodeRefusalError):
    """A follower of another network knocked."""


class UnknownHeadError(NodeRefusalError):
    """A cosignature for a head that this leader never signed."""


class Tip(Protocol):
    """The newest block of a view."""

    @property
    def height(self) -> int:
        """Its height."""

    @property
    def time_ms(self) -> int:
        """Its block time."""

    @property
    def log_size(self) -> int:
        """Leaves in the log after it."""

    @property
    def log_root(self) -> bytes:
        """Root of the log after it."""

    @property
    def state_root(self) -> bytes:
        """Root over all positions after it."""


class LedgerView(Reader, merkle.NodeReader, Protocol):
    """Everything committed, at one height. Short-lived: never kept across a wait (LMDB read transaction)."""

    @property
    def tip(self) -> Tip | None:
        """The newest block, or None before genesis."""

    def latest_checkpoint(self) -> tuple[int, bytes] | None:
        """Return (size, note) of the greatest final checkpoint, or None."""

    def checkpoint_covering(self, size: int) -> tuple[int, bytes] | None:
        """Return (size, note) of the smallest final checkpoint of at least `size` leaves, or None."""


@dataclass(frozen=True, slots=True)
class PositionProof:
    """One position, or its absence, as the newest block left it; all of one height.

    seal_index: log index of that block's SEAL leaf, the last of the log then.
    """

    position: Position | None
    path: PositionPath
    seal_index: int


@dataclass(frozen=True, slots=True)
class BlockCommit:
    """What the validators have signed of a block.

    engine_height: of the engine's block that it was made of. signed: header and commit of the engine's next one, and the set.
    validators_index: log index of the first VALIDATORS leaf that names the set.
    """

    engine_height: int
    signed: SignedHeader
    validators_index: int


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """The consensus engine beside an operator: newest block, whether it catches up, its peers, its own power."""

    height: int
    is_catching_up: bool
    peers: int
    power: int


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """A follower as its leader sees it; cosigned_size is 0 before the first cosignature."""

    name: str
    kind: NodeKind
    connected: bool
    cosigned_size: int


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What a node is and how it stands; fields as in operator.proto."""

    name: str
    lei: str
    kind: NodeKind
    condition: NodeCondition
    condition_detail: str
    leader_endpoint: str
    network_id: bytes
    origin: str
    height: int
    time_ms: int
    log_size: int
    log_root: bytes
    state_root: bytes
    final_size: int
    replicas: tuple[ReplicaStatus, ...]
    divergence_report: bytes
    store_bytes: int
    queued_transactions: int
    engine: EngineFacts | None = None


class Ledger(Protocol):
    """The ledger as one node holds it."""

    @property
    def network_id(self) -> bytes:
        """The leaf hash of leaf 0, 32 bytes."""

    @property
    def registry(self) -> Registry:
        """The registers after the newest block applied here; may be one block newer than a snapshot."""

    @property
    def time_ms(self) -> int:
        """Block time of the newest block applied here."""

    @property
    def holds_state(self) -> bool:
        """Whether rows and bodies are here (leader, full replica) or not (witness replica)."""

    @property
    def leader_endpoint(self) -> str:
        """host:port of the leader, "" where it is not known."""

    @property
    def transaction_bytes_max(self) -> int:
        """Most bytes of one transaction that this network takes, 0 for no limit beyond that of the format."""

    async def block_commit(self, height: int) -> BlockCommit:
        """Return what the validators have signed of a block.

        Raises: NotHeldError: no engine here; VerificationError: no such block, or no engine anywhere; NotServingError: not now.
        """

    async def submit(self, transaction: Transaction) -> Outcome:
        """Order one transaction and return what became of it, after its block is durable.

        A cancelled call leaves a transaction that may or may not be recorded; sending it again is safe.
        Raises: NotLeaderError, BusyError, NotServingError: nothing was recorded. OutcomeUnknownError: perhaps.
        """

    def snapshot(self) -> AbstractContextManager[LedgerView]:
        """Open a view of the newest committed height; to be used in one thread and closed soon."""

    def position_proof(self, participant: int, asset: int) -> PositionProof:
        """Return one position with its audit paths, as the newest committed block left it.

        Raises: VerificationError: no such participant or asset; NotHeldError: on a witness replica.
        """

    def explain(self, submission: int, item: int) -> Explanation | None:
        """Say why an obligation is not discharged, at the newest committed block; None where there is no such one.

        It may take seconds, in which the ledger goes on. Raises: NotHeldError: on a witness replica.
        """

    def latest_note(self) -> bytes | None:
        """Return the newest checkpoint that the log has signed and this node has verified, final or not, or None."""

    async def final_beyond(self, size: int) -> None:
        """Wait until the greatest final checkpoint has more than `size` leaves. The caller sets the time limit."""

    def status(self) -> NodeStatus:
        """Return what this node is and how it stands; never blocks, answers in every condition."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """How a follower opens the stream: its node name (from its certificate) and what it has; see replication.proto."""

    node: str
    kind: NodeKind
    from_index: int
    network_id: bytes
    cosigned_note: bytes


@dataclass(frozen=True, slots=True)
class RedactedBody:
    """What a counterparty sees of a submission: all commitments, packed, and (item, salt || record) of its own items."""

    commitments: bytes
    openings: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class ShownEntry:
    """One leaf and what the follower may see of its body: bytes, a part, or None for nothing."""

    leaf: bytes
    shown: bytes | RedactedBody | None
    public: bool = False


@dataclass(frozen=True, slots=True)
class BlockPart:
    """A run of entries of one block.

    The last part carries the log's checkpoint note (others b"") and `consistency`, the proof that the log up to this
    block is a prefix of the note's tree; empty where the note's tree ends with this block.
    """

    height: int
    first_index: int
    entries: tuple[ShownEntry, ...]
    note: bytes = b""
    consistency: tuple[bytes, ...] = ()

    @property
    def last(self) -> bool:
        """Whether this part ends its block."""
        return bool(self.note)


@dataclass(frozen=True, slots=True)
class FinalNote:
    """A newer final checkpoint, with log signature and cosignatures."""

    note: bytes


@dataclass(frozen=True, slots=True)
class NodeHead:
    """A node's newest head: the note with its own signatures, b"" before the first."""

    note: bytes
    height: int
    kind: NodeKind
    condition: NodeCondition


class Replication(Protocol):
    """A node's part in replication; a follower answers all but `head` with NotLeaderError."""

    def stream(self, handshake: Handshake) -> AsyncGenerator[BlockPart | FinalNote, None]:
        """Yield sealed blocks from the handshake's index on, then each new one, and newer final checkpoints; never ends.

        Raises, when first iterated: NotLeaderError; WrongNetworkError; NotServingError with ROLLBACK_DETECTED when
        the follower's head is ahead of this log or contradicts it; DecodeError, VerificationError: a bad note.
        """

    async def add_cosignature(self, node: str, note: bytes) -> int:
        """Take a follower's cosigned head and return the size of the greatest final checkpoint.

        Raises: NotLeaderError; UnknownHeadError; DecodeError, VerificationError: a bad note.
        """

    def head(self) -> NodeHead:
        """Return this node's newest head."""


@dataclass(frozen=True, slots=True)
class AnchoringAlarm:
    """Something an operator must know of anchoring; since_ms in milliseconds since 1970."""

    kind: str
    since_ms: int
    detail: str


@dataclass(frozen=True, slots=True)
class AnchorVersion:
    """A signed transaction of an anchor that no block holds; fields as in anchor.proto."""

    number: int
    role: str
    txid: bytes
    fee_sat: int
    vsize: int
    hint: str


@dataclass(frozen=True, slots=True)
class AnchoringStatus:
    """How a node's anchoring stands; fields as in anchor.proto."""

    network: str
    height: int
    address: str
    descriptors: tuple[str, ...]
    spendable_sat: int
    immature_sat: int
    outputs: int
    due: int
    bumps: int
    fees_sat: int
    alarms: tuple[AnchoringAlarm, ...]
    versions: tuple[AnchorVersion, ...]


class Anchoring(Protocol):
    """A node's own anchoring in Bitcoin."""

    def status(self) -> AnchoringStatus:
        """Return how it stands; never blocks."""

    def tip_height(self) -> int:
        """Return the height up to which it has read the chain, -1 before the first block."""

    async def bitcoin_headers(self, start_height: int) -> bytes:
        """Return block headers from `start_height` on, as the Bitcoin node has them now, each on the one before.

        Raises: VerificationError: the Bitcoin node cannot be asked now.
        """

    def anchor_now(self) -> int:
        """Anchor what is due as soon as it may be; returns how many checkpoints wait."""
