"""What the ledger remembers: State between blocks, Draft while a block is applied, Delta as the difference.

Lives here: loading from rows, the working copy that handlers change, and the canonical order of writes. May not live
here: a rule, a leaf format, or persistence.

Invariants: State changes only in `advance`, after its Delta is durable; a Draft never changes its State; rows are
written in order of (table, key); history that is settled is neither in memory nor read at start-up.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from clearing.codec import Layout, raw, uint
from clearing.errors import InvariantViolation, invariant
from clearing.log import merkle
from clearing.netting.columns import AssetColumns, concatenate
from clearing.records.obligation import SECRET_BYTES, items_view
from clearing.registry_rows import load_registry, registry_rows
from clearing.rows import (
    Reader,
    Row,
    Table,
    changes_hash,
    key_party,
    key_position,
    key_u32,
    key_u64,
)
from clearing.rules.cycles import Cycle
from clearing.rules.governance import Proposal
from clearing.rules.mined import Batch, Reserve
from clearing.rules.obligations import LIFECYCLE, BookChunk, ItemStates
from clearing.rules.positions import Position, PositionTree, TreeChange, position_seed
from clearing.rules.registry import (
    Registry,
)
from clearing.rules.results import result_rows
from clearing.rules.settlement import SettlementInstruction
from clearing.types import OBLIGORS, CycleState, ObligationState

_HEAD = Layout(
    "head",
    uint("height", 8),
    uint("time_ms", 8),
    uint("open_items", 8),
    uint("last_cycle", 4),
    raw("network_id", 32),
)
_KEY_HEAD = b"head"
_KEY_LOG = b"log"

_Flags = npt.NDArray[np.bool_]
_Standing = tuple[Registry, _Flags, _Flags, _Flags]
"""A register, and by registry number who is in licence, may owe, and is a miner."""


@dataclass(frozen=True, slots=True, eq=False)
class OpenSubmission:
    """A submission with items that may still move: where they stand, and its part of the open book."""

    index: int
    secret: bytes
    states: ItemStates
    chunk: BookChunk

    @classmethod
    def of_body(cls, index: int, body: bytes, states: ItemStates) -> Self:
        """Build the book's columns from a submission's body, with what is left of items discharged in part."""
        items = items_view(memoryview(body)[SECRET_BYTES:])
        chunk = BookChunk.of_items(items).with_remainders(states.remainders)
        return cls(index, body[:SECRET_BYTES], states, chunk)


@dataclass(frozen=True, slots=True, eq=False)
class Delta:
    """What one block changes. `rows` are to be written in this order; the rest is what State.advance takes over.

    To be taken over once, by the State it was computed from: what is new in it becomes part of that State.
    """

    rows: tuple[Row, ...]
    height: int
    time_ms: int
    open_items: int
    last_cycle: int
    network_id: bytes
    log: merkle.CompactRange
    registry: Registry
    tree: TreeChange
    submissions: Mapping[int, OpenSubmission]
    cycles: Mapping[int, Cycle]
    reserves: Mapping[int, Reserve]


@dataclass(frozen=True, slots=True)
class Entry:
    """One leaf of the log with the body that it commits to (b"" for none); public bodies may be shown to anyone."""

    leaf: bytes
    body: bytes = b""
    public: bool = False


class State:
    """The ledger at one height, as apply needs it: registers, open book and position tree in memory, rows by reader.

    open: submissions with items that may move, by log index, ascending. waiting: those of them with items that a
    cut-off could take. expiries: (due time, log index) of those with unaffirmed items that lapse, one each, ascending;
    expiry_of: the same by log index.
    """

    __slots__ = (
        "_reserves",
        "cycles",
        "expiries",
        "expiry_of",
        "height",
        "last_cycle",
        "log",
        "network_id",
        "open",
        "open_items",
        "open_items_of",
        "open_submissions_of",
        "reader",
        "registry",
        "time_ms",
        "tree",
        "waiting",
    )

    def __init__(self, reader: Reader) -> None:
        """Start empty, before genesis."""
        self.reader = reader
        self.height = -1
        self.time_ms = 0
        self.open_items = 0
        self.open_items_of: dict[int, int] = {}
        self.open_submissions_of: dict[int, int] = {}
        self.last_cycle = 0
        self.network_id = bytes(32)
        self.log = merkle.CompactRange()
        self.registry = Registry()
        self.tree = PositionTree(0, 0)
        self.open: dict[int, OpenSubmission] = {}
        self.waiting: set[int] = set()
        self.cycles: dict[int, Cycle] = {}
        self.expiries: list[tuple[int, int]] = []
        self.expiry_of: dict[int, int] = {}
        self._reserves: dict[int, Reserve] = {}

    @property
    def log_size(self) -> int:
        """Number of leaves in the log."""
        return self.log.size

    @property
    def state_root(self) -> bytes:
        """Root over all positions."""
        return self.tree.root

    @classmethod
    def load(cls, reader: Reader) -> Self:
        """Return the state that committed rows describe; of an empty store, the state before genesis.

        Reads registers, positions, and the bodies of open submissions only.
        Raises: DecodeError: a row is not canonical; InvariantViolation: an open submission has no body, or the log no edge.
        """
        state = cls(reader)
        head = reader.get(Table.META, _KEY_HEAD)
        if head is None:
            return state
        for name, value in _HEAD.decode(head).items():
            setattr(state, name, value)
        log_row = reader.get(Table.META, _KEY_LOG) or b""
        invariant(len(log_row) % 32 == 8, "the row of the log's edge is missing or cut short")
        edges = tuple(log_row[i : i + 32] for i in range(8, len(log_row), 32))
        state.log = merkle.CompactRange(int.from_bytes(log_row[:8], "little"), edges)
        state.registry = load_registry(reader)
        state.tree = PositionTree(len(state.registry.participants), len(state.registry.assets))
        leaves = {
            (int.from_bytes(key[:4], "big"), int.from_bytes(key[4:], "big")): merkle.leaf_hash(
                value
            )
            for key, value in reader.scan(Table.POSITIONS)
        }
        state.tree.advance(state.tree.change(state.tree.participants, state.tree.assets, leaves))
        for key, _ in reader.scan(Table.OPEN):
            state._remember(_load_submission(reader, int.from_bytes(key, "big")))
        for key, _ in reader.scan(Table.UNSETTLED):
            row = reader.get(Table.CYCLES, key)
            invariant(row is not None, "an unsettled cycle has no row")
            state.cycles[int.from_bytes(key, "big")] = Cycle.decode(row or b"")
        return state

    def advance(self, delta: Delta) -> None:
        """Take over what a block changed, once it is durable."""
        if not delta.rows:
            return
        self.height, self.time_ms = delta.height, delta.time_ms
        self.open_items, self.last_cycle = delta.open_items, delta.last_cycle
        self.network_id, self.log, self.registry = delta.network_id, delta.log, delta.registry
        self.tree.advance(delta.tree)
        self._reserves.update(delta.reserves)
        for submission in delta.submissions.values():
            if submission.states.is_closed:
                self._forget(submission.index)
            else:
                self._remember(submission)
        for number, cycle in delta.cycles.items():
            if is_unsettled(cycle):
                self.cycles[number] = cycle
            else:
                self.cycles.pop(number, None)

    def _forget(self, index: int) -> None:
        # One that closes in the block that records it was never here.
        closed = self.open.pop(index, None)
        if closed is not None:
            submitter = closed.states.submitter
            self.open_items_of[submitter] -= closed.states.count
            self.open_submissions_of[submitter] -= 1
            if not self.open_submissions_of[submitter]:
                del self.open_items_of[submitter], self.open_submissions_of[submitter]
            self.waiting.discard(index)
            self._expect(index, 0)

    def _remember(self, submission: OpenSubmission) -> None:
        if submission.index not in self.open:
            submitter, count = submission.states.submitter, submission.states.count
            self.open_items_of[submitter] = self.open_items_of.get(submitter, 0) + count
            self.open_submissions_of[submitter] = self.open_submissions_of.get(submitter, 0) + 1
        self.open[submission.index] = submission
        if LIFECYCLE.mask_of(submission.states.states, ObligationState.LOCKED).any():
            self.waiting.add(submission.index)
        else:
            self.waiting.discard(submission.index)
        self._expect(submission.index, submission.chunk.next_expiry_ms(submission.states))

    def _expect(self, index: int, expiry_ms: int) -> None:
        """Take down when the next unaffirmed item of a submission lapses, 0 for never, in the place of what was known.

        Nothing else may stay: what was rescinded long ago would be read again, all of it in the block of its due time.
        """
        known_ms = self.expiry_of.pop(index, 0)
        if known_ms:
            del self.expiries[bisect.bisect_left(self.expiries, (known_ms, index))]
        if expiry_ms:
            bisect.insort(self.expiries, (expiry_ms, index))
            self.expiry_of[index] = expiry_ms

    def reserve(self, miner: int) -> Reserve:
        """Return what is left of a miner's batches: read from all their rows when first asked for, kept up to date since."""
        if miner not in self._reserves:
            rows = self.reader.scan(Table.BATCHES, key_u32(miner))
            batches = ((int.from_bytes(key[4:], "big"), Batch.decode(row)) for key, row in rows)
            self._reserves[miner] = Reserve.of(batches)
        return self._reserves[miner]


def _load_submission(reader: Reader, index: int) -> OpenSubmission:
    row = reader.get(Table.SUBMISSIONS, key_u64(index))
    body = reader.body(index)
    if row is None or body is None:
        raise InvariantViolation(f"submission {index} has no state row or no body on this replica")
    return OpenSubmission.of_body(index, body, ItemStates.decode(row))


def is_unsettled(cycle: Cycle) -> bool:
    """Return whether the cycle or an instruction of it may still move."""
    running = cycle.state in (CycleState.CUT_OFF, CycleState.NETTED, CycleState.FUNDED)
    return running or cycle.pay_ins + cycle.pay_outs > 0


class Draft:
    """The working copy of one block: reads fall through to the state, writes stay here until `delta`."""

    def __init__(self, state: State, height: int, time_ms: int) -> None:
        """Start from `state`, which stays as it is."""
        self.state = state
        self.height = height
        self.time_ms = time_ms
        self.registry = state.registry
        self.network_id = state.network_id
        self.open_items = state.open_items
        self._added_items_of: dict[int, int] = {}
        self._added_submissions_of: dict[int, int] = {}
        self.last_cycle = state.last_cycle
        self.entries: list[Entry] = []
        self._rows: dict[Table, dict[bytes, bytes | None]] = {table: {} for table in Table}
        self._submissions: dict[int, OpenSubmission] = {}
        self._positions: dict[tuple[int, int], Position] = {}
        self._opened: dict[tuple[int, int], list[AssetColumns]] = {}
        self._cycles: dict[int, Cycle] = {}
        self._reserves: dict[int, Reserve] = {}
        self._columns: _Standing | None = None

    @property
    def next_index(self) -> int:
        """Log index that the next leaf of this block will have."""
        return self.state.log_size + len(self.entries)

    def record(self, leaf: bytes, body: bytes = b"", *, public: bool = False) -> int:
        """Append a leaf, with the body it commits to, and return its log index."""
        index = self.next_index
        self.entries.append(Entry(leaf, body, public))
        return index

    def body(self, index: int) -> bytes | None:
        """Return the body of a leaf, of this block or an earlier one."""
        if index >= self.state.log_size:
            return self.entries[index - self.state.log_size].body
        return self.state.reader.body(index)

    def get(self, table: Table, key: bytes) -> bytes | None:
        """Return a row as this block sees it."""
        written = self._rows[table]
        return written[key] if key in written else self.state.reader.get(table, key)

    def put(self, table: Table, key: bytes, value: bytes | None) -> None:
        """Write a row, or delete it with None."""
        self._rows[table][key] = value

    def scan(self, table: Table, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows with `prefix` in key order, as this block sees them."""
        merged = dict(self.state.reader.scan(table, prefix))
        for key, value in self._rows[table].items():
            if key.startswith(prefix):
                if value is None:
                    merged.pop(key, None)
                else:
                    merged[key] = value
        yield from sorted(merged.items())

    def first(self, table: Table, prefix: bytes, start: bytes) -> tuple[bytes, bytes] | None:
        """Return the first row with `prefix` not before `start`, as this block sees it, or None; reads no further."""
        written = self._rows[table]
        stored = self.state.reader.scan(table, prefix, start)
        rows = [
            (key, value)
            for key, value in written.items()
            if value is not None and key >= start and key.startswith(prefix)
        ]
        rows += itertools.islice((row for row in stored if row[0] not in written), 1)
        return min(rows, default=None)

    def open_submission(self, index: int) -> OpenSubmission | None:
        """Return a submission that was open when this block began, or came in it, as this block sees it; or None."""
        return self._submissions.get(index) or self.state.open.get(index)

    def item_states(self, index: int) -> ItemStates | None:
        """Return where the items of a submission stand, open or closed, as this block sees it; None where there is none."""
        found = self.open_submission(index)
        if found is not None:
            return found.states
        row = self.state.reader.get(Table.SUBMISSIONS, key_u64(index))
        return None if row is None else ItemStates.decode(row)

    def submission(self, index: int) -> OpenSubmission | None:
        """Return a submission as this block sees it, open or closed, or None; one that is closed is built from its whole body."""
        found = self.open_submission(index)
        if found is None and self.state.reader.get(Table.SUBMISSIONS, key_u64(index)) is not None:
            found = _load_submission(self.state.reader, index)
        return found

    def waiting_submissions(self) -> Iterator[OpenSubmission]:
        """Yield the submissions with items that wait for a cycle, as this block sees them, ascending by log index.

        Those that this block has touched are among them, whether or not an item of theirs still waits.
        """
        for index in sorted(self.state.waiting | self._submissions.keys()):
            yield self._submissions.get(index) or self.state.open[index]

    def open_items_of(self, submitter: int) -> int:
        """Return how many items a submitter's open submissions have; what this block closes counts to its end."""
        return self.state.open_items_of.get(submitter, 0) + self._added_items_of.get(submitter, 0)

    def open_submissions_of(self, submitter: int) -> int:
        """Return how many open submissions a submitter has; what this block closes counts to its end."""
        added = self._added_submissions_of.get(submitter, 0)
        return self.state.open_submissions_of.get(submitter, 0) + added

    def add_submission(self, submission: OpenSubmission) -> None:
        """Put a fresh submission into the open book."""
        submitter, count = submission.states.submitter, submission.states.count
        self.open_items += count
        self._added_items_of[submitter] = self._added_items_of.get(submitter, 0) + count
        added = self._added_submissions_of.get(submitter, 0)
        self._added_submissions_of[submitter] = added + 1
        for participant in submission.chunk.participants():
            self.put(Table.PARTIES, key_party(participant, submission.index), b"\1")
        self._submissions[submission.index] = submission

    def set_states(self, submission: OpenSubmission, states: ItemStates) -> OpenSubmission:
        """Take down where a submission's items stand now, and return it as it is now; `seal` writes the row."""
        chunk = submission.chunk
        if states.remainders is not submission.states.remainders:
            chunk = chunk.with_remainders(states.remainders)
        changed = OpenSubmission(submission.index, submission.secret, states, chunk)
        self._submissions[submission.index] = changed
        return changed

    def _write_submissions(self) -> None:
        """Write the item states of every submission that the block touched, once each."""
        for index, submission in self._submissions.items():
            key = key_u64(index)
            is_closed = submission.states.is_closed
            self.put(Table.SUBMISSIONS, key, submission.states.encode())
            self.put(Table.OPEN, key, None if is_closed else b"\1")
            if is_closed and not self._was_closed(index):
                self.open_items -= submission.states.count

    def _was_closed(self, index: int) -> bool:
        is_old = index < self.state.log_size
        return is_old and index not in self.state.open

    def position(self, participant: int, asset: int) -> Position:
        """Return a position as this block sees it; an untouched one is all zero."""
        found = self._positions.get((participant, asset))
        if found is not None:
            return found
        row = self.state.reader.get(Table.POSITIONS, key_position(participant, asset))
        return Position(participant, asset) if row is None else Position.decode(row)

    def set_position(self, position: Position) -> None:
        """Write a position."""
        self._positions[position.participant, position.asset] = position

    def count_open(self, parts: Iterable[tuple[int, AssetColumns]], sign: int) -> None:
        """Add affirmed obligations (sign 1) to the positions of their parties, or take them away (sign -1).

        parts: (asset, columns). They are summed at the seal, all of the block at once: nothing reads payable and
        receivable before.
        """
        for asset, columns in parts:
            self._opened.setdefault((asset, sign), []).append(columns)

    def _write_opened(self) -> None:
        participants = len(self.registry.participants)
        for (asset, sign), chunks in sorted(self._opened.items(), key=lambda item: item[0]):
            for row in result_rows(concatenate(chunks), participants):
                position = self.position(row.participant, asset)
                changed = replace(
                    position,
                    payable=position.payable + sign * row.debit,
                    receivable=position.receivable + sign * row.credit,
                )
                self.set_position(changed)

    def cycle(self, number: int) -> Cycle | None:
        """Return a cycle as this block sees it, or None."""
        found = self._cycles.get(number) or self.state.cycles.get(number)
        if found is not None:
            return found
        row = self.state.reader.get(Table.CYCLES, key_u32(number))
        return None if row is None else Cycle.decode(row)

    def running_cycles(self, state: CycleState | None = None) -> list[int]:
        """Return the numbers of unsettled cycles, of those in one state where it is named, ascending."""
        known = {**self.state.cycles, **self._cycles}
        return sorted(n for n, cycle in known.items() if state is None or cycle.state is state)

    def set_cycle(self, number: int, cycle: Cycle) -> None:
        """Write a cycle, and whether it or its instructions may still move."""
        self._cycles[number] = cycle
        self.put(Table.CYCLES, key_u32(number), cycle.encode())
        self.put(Table.UNSETTLED, key_u32(number), b"\1" if is_unsettled(cycle) else None)

    def settlement(self, cycle: int, number: int) -> SettlementInstruction | None:
        """Return a settlement instruction as this block sees it, or None."""
        row = self.get(Table.SETTLEMENTS, key_u32(cycle, number))
        return None if row is None else SettlementInstruction.decode(row)

    def set_settlement(self, cycle: int, number: int, instruction: SettlementInstruction) -> None:
        """Write a settlement instruction."""
        self.put(Table.SETTLEMENTS, key_u32(cycle, number), instruction.encode())

    def proposal(self, index: int) -> Proposal | None:
        """Return a proposal as this block sees it, or None."""
        row = self.get(Table.PROPOSALS, key_u64(index))
        return None if row is None else Proposal.decode(row)

    def set_proposal(self, index: int, proposal: Proposal) -> None:
        """Write a proposal."""
        self.put(Table.PROPOSALS, key_u64(index), proposal.encode())

    def batch(self, miner: int, number: int) -> Batch | None:
        """Return a declared batch as this block sees it, or None."""
        row = self.get(Table.BATCHES, key_party(miner, number))
        return None if row is None else Batch.decode(row)

    def set_batch(self, miner: int, number: int, batch: Batch) -> None:
        """Write a declared batch."""
        self.reserve(miner).put(number, batch)
        self.put(Table.BATCHES, key_party(miner, number), batch.encode())

    def reserve(self, miner: int) -> Reserve:
        """Return what is left of a miner's batches as this block sees it; `set_batch` changes it."""
        if miner not in self._reserves:
            self._reserves[miner] = self.state.reserve(miner).copy()
        return self._reserves[miner]

    def licensed(self) -> npt.NDArray[np.bool_]:
        """Return, by registry number, whose licence is in force at this block's time."""
        return self._standing()[1]

    def may_owe(self) -> npt.NDArray[np.bool_]:
        """Return, by registry number, whose role lets it owe and be owed."""
        return self._standing()[2]

    def mining(self) -> tuple[int, npt.NDArray[np.bool_]] | None:
        """Return the asset that may be paid with mined coin and, by registry number, who are miners; None without any."""
        bitcoin = self.registry.bitcoin
        if bitcoin.route is None or not bitcoin.miners:
            return None
        return bitcoin.route.asset, self._standing()[3]

    def _standing(self) -> _Standing:
        """Return the register with its columns, made once for each register that the block sees."""
        if self._columns is None or self._columns[0] is not self.registry:
            parties = self.registry.participants
            licensed = np.array([party.is_licensed(self.time_ms) for party in parties], np.bool_)
            may_owe = np.array([party.role in OBLIGORS for party in parties], np.bool_)
            miners = np.zeros(len(parties), np.bool_)
            miners[[number for number, _ in self.registry.bitcoin.miners]] = True
            self._columns = (self.registry, licensed, may_owe, miners)
        return self._columns

    def seal(self) -> tuple[TreeChange, bytes]:
        """Write registers and positions as rows, and return the tree's change and the hash over all rows.

        To be called once, after the last handler.
        """
        if self.registry is not self.state.registry or not self.height:
            for table, key, value in registry_rows(self.state.registry, self.registry):
                self.put(table, key, value)
        self._write_submissions()
        self._write_opened()
        seed = position_seed(entry.body for entry in self.entries)
        leaves = {}
        for (participant, asset), position in self._positions.items():
            encoded = position.salted(seed).encode()
            leaves[participant, asset] = merkle.leaf_hash(encoded)
            self.put(Table.POSITIONS, key_position(participant, asset), encoded)
        change = self.state.tree.change(
            len(self.registry.participants), len(self.registry.assets), leaves
        )
        return change, changes_hash(self._ordered_rows())

    def delta(self, change: TreeChange, log: merkle.CompactRange) -> Delta:
        """Return the whole difference, with the META rows that say where the ledger stands; no rows without entries."""
        if self.entries:
            self._write_head(log)
        return Delta(
            rows=self._ordered_rows(),
            height=self.height,
            time_ms=self.time_ms,
            open_items=self.open_items,
            last_cycle=self.last_cycle,
            network_id=self.network_id,
            log=log,
            registry=self.registry,
            tree=change,
            submissions=self._submissions,
            cycles=self._cycles,
            reserves=self._reserves,
        )

    def _write_head(self, log: merkle.CompactRange) -> None:
        head = _HEAD.encode(
            height=self.height,
            time_ms=self.time_ms,
            open_items=self.open_items,
            last_cycle=self.last_cycle,
            network_id=self.network_id,
        )
        self.put(Table.META, _KEY_HEAD, head)
        self.put(Table.META, _KEY_LOG, log.size.to_bytes(8, "little") + b"".join(log.edges))

    def _ordered_rows(self) -> tuple[Row, ...]:
        return tuple(
            Row(table, key, self._rows[table][key])
            for table in sorted(self._rows)
            for key in sorted(self._rows[table])
        )
