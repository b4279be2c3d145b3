"""What a follower does with a block before it keeps it.

Lives here: FullReplica (re-applies, compares every leaf) and WitnessReplica (checks hashes and what
it may see), two kinds of one Replica. May not live here: connections (follower.py), signatures of
this node.

Invariants: no leaf is kept that a head signed by the log does not cover; a full replica keeps what
it computed itself, never what it was sent; on a difference nothing of the block is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from clearing import ledger
from clearing.errors import ClearingError, DecodeError, VerificationError
from clearing.log import merkle
from clearing.log.checkpoint import Checkpoint
from clearing.records.instruction import Instruction
from clearing.records.leaves import (
    HASHED_BODIES,
    GenesisLeaf,
    LeafKind,
    SealLeaf,
    body_hash,
    leaf_kind,
)
from clearing.records.redacted import RedactedSubmission
from clearing.records.submission import Submission
from clearing.rules.registry import Registry
from node.replication.divergence import Divergence, DivergenceError
from node.replication.registers import PublicRegisters
from node.sequencer.driver import Machine
from node.services.facade import NodeKind, RedactedBody, ShownEntry
from node.store import LeafBlock, Record, Store, StoreError


@dataclass(frozen=True, slots=True)
class ReceivedBlock:
    """A sealed block as it came, whole.

    note: signed by the log (the caller has verified it); checkpoint: its text; consistency: the
    proof that the log up to this block is a prefix of the checkpoint's tree.
    """

    height: int
    first_index: int
    entries: tuple[ShownEntry, ...]
    note: bytes
    checkpoint: Checkpoint
    consistency: tuple[bytes, ...]

    @property
    def end(self) -> int:
        """The log index after the block's last leaf."""
        return self.first_index + len(self.entries)


class Replica(Protocol):
    """A copy of the ledger that takes blocks one by one.

    One thread takes; `registry` may be read by any.
    """

    kind: NodeKind

    @property
    def registry(self) -> Registry:
        """The registers after the newest block taken."""

    def take(self, block: ReceivedBlock) -> None:
        """Check the next block and keep it, durably.

        Raises: DecodeError: not the next block; DivergenceError: the leader is wrong or this
        replica is, nothing was kept; StoreError: nothing was kept.
        """


def _check_next(block: ReceivedBlock, height: int, size: int) -> None:
    if (block.height, block.first_index) != (height + 1, size) or not block.entries:
        raise DecodeError(
            f"block {block.height} from leaf {block.first_index} came where block {height + 1} "
            f"from leaf {size} is next"
        )


def _differs(
    block: ReceivedBlock, offset: int, why: str, computed: bytes = b"", received: bytes = b""
) -> DivergenceError:
    return DivergenceError(
        Divergence(block.height, block.first_index + offset, computed, received, why)
    )


def _check_covered(
    block: ReceivedBlock, log: merkle.CompactRange
) -> tuple[merkle.CompactRange, list[merkle.Node]]:
    """Return the log after the block's leaves as they came, once the signed head covers them.

    Raises: DivergenceError: it does not.
    """
    hashes = [merkle.leaf_hash(entry.leaf) for entry in block.entries]
    after, nodes = log.append_many(hashes)
    head = block.checkpoint
    try:
        merkle.verify_consistency(after.size, head.size, block.consistency, after.root, head.root)
    except VerificationError as error:
        why = f"the leaves that came do not lead to the head that the log has signed ({error})"
        raise _differs(block, 0, why, received=hashes[0]) from error
    return after, nodes


class FullReplica:
    """Re-applies every block and keeps what it computed."""

    kind = NodeKind.FULL_REPLICA

    def __init__(self, store: Store) -> None:
        """Load the ledger from `store`."""
        self.machine = Machine(store)

    @property
    def registry(self) -> Registry:
        """The registers after the newest block taken."""
        return self.machine.state.registry

    def take(self, block: ReceivedBlock) -> None:
        """Re-apply the next block, compare every leaf, and keep the result; see Replica."""
        state = self.machine.state
        _check_next(block, state.height, state.log_size)
        _check_covered(block, state.log)
        try:
            result = self._applied(block)
        except StoreError:
            raise
        except ClearingError as error:
            # A block that this replica cannot even apply is a difference like any other.
            raise _differs(block, 0, f"the block does not apply: {error}") from error
        self._compare(block, result)
        self.machine.commit(result)

    def _applied(self, block: ReceivedBlock) -> ledger.BlockResult:
        entries = [ledger.Entry(entry.leaf, _whole(entry), entry.public) for entry in block.entries]
        if block.height > 0:
            return self.machine.apply(ledger.block_of_entries(entries))
        genesis = GenesisLeaf.decode(entries[0].leaf)
        return ledger.genesis(genesis.time_ms, entries[0].body)

    @staticmethod
    def _compare(block: ReceivedBlock, result: ledger.BlockResult) -> None:
        ours = [entry.leaf for entry in result.entries]
        theirs = [entry.leaf for entry in block.entries]
        for offset in range(max(len(ours), len(theirs))):
            own = merkle.leaf_hash(ours[offset]) if offset < len(ours) else b""
            received = merkle.leaf_hash(theirs[offset]) if offset < len(theirs) else b""
            if own != received:
                raise _differs(
                    block, offset, "applying the block gives another leaf", own, received
                )
        if result.height != block.height:
            raise _differs(block, 0, "the block's SEAL states another height")


def _whole(entry: ShownEntry) -> bytes:
    if isinstance(entry.shown, RedactedBody):
        raise DecodeError("a full replica was sent a redacted body")
    return entry.shown or b""


class WitnessReplica:
    """Keeps all leaves, and the bodies it is shown once they match their leaves."""

    kind = NodeKind.WITNESS_REPLICA

    def __init__(self, store: Store) -> None:
        """Load the log's edge and the registers from `store`."""
        self._store = store
        self._registers = PublicRegisters.load(store)
        tip = store.tip
        self._height, self._time_ms = (tip.height, tip.time_ms) if tip else (-1, 0)
        self._log = merkle.CompactRange()
        if tip is not None:
            with store.snapshot() as view:
                self._log = merkle.CompactRange.read(tip.log_size, view)

    @property
    def registry(self) -> Registry:
        """The registers after the newest block taken."""
        return self._registers.registry

    def take(self, block: ReceivedBlock) -> None:
        """Check the next block's hashes and bodies, and keep it; see Replica."""
        _check_next(block, self._height, self._log.size)
        after, nodes = _check_covered(block, self._log)
        records = tuple(self._checked(block, offset) for offset in range(len(block.entries)))
        seal = self._checked_seal(block)
        self._store.append(LeafBlock(records, tuple(nodes), after.root))
        self._log, self._height, self._time_ms = after, seal.height, seal.time_ms
        self._registers.take_block(block.first_index, records, seal.time_ms)

    def _checked(self, block: ReceivedBlock, offset: int) -> Record:
        entry = block.entries[offset]
        try:
            return _record_of(entry)
        except ClearingError as error:
            received = merkle.leaf_hash(entry.leaf)
            raise _differs(block, offset, str(error), received=received) from error

    def _checked_seal(self, block: ReceivedBlock) -> SealLeaf:
        """Return the block's SEAL, once it says what every SEAL of this place must say."""
        offset = len(block.entries) - 1
        try:
            seal = SealLeaf.decode(block.entries[offset].leaf)
        except DecodeError as error:
            raise _differs(block, offset, f"a block ends in its SEAL: {error}") from error
        if (seal.height, seal.first_index) != (block.height, block.first_index):
            raise _differs(block, offset, "the SEAL states another height or first leaf")
        if seal.time_ms < self._time_ms:
            raise _differs(block, offset, "block time goes backwards")
        return seal


def _record_of(entry: ShownEntry) -> Record:
    """Return what a witness keeps of an entry, once the shown body matches the leaf.

    Raises: DecodeError, VerificationError: it does not.
    """
    kind = leaf_kind(entry.leaf)
    body = b"" if isinstance(entry.shown, RedactedBody) else entry.shown or b""
    redacted = b""
    if isinstance(entry.shown, RedactedBody):
        part = RedactedSubmission(entry.shown.commitments, entry.shown.openings)
        part.verify(Submission.of_leaf(entry.leaf))
        redacted = part.encode()
    elif not body:
        return Record(entry.leaf)
    elif kind in HASHED_BODIES:
        if body_hash(body) != HASHED_BODIES[kind].decode(entry.leaf).body_hash:
            raise VerificationError(f"the {kind.name} body is not what its leaf commits to")
    elif kind is LeafKind.SUBMISSION:
        Submission.decode(entry.leaf + body).verify_commitment()
    elif kind is LeafKind.INSTRUCTION:
        Instruction.decode(entry.leaf + body).verify_commitment()
    else:
        raise DecodeError(f"a {kind.name} leaf has no body")
    return Record(entry.leaf, body, entry.public, redacted)
