"""Blocks as a follower may see them: read from the store, redacted, cut into parts.

Lives here: who may see which body, and BlockSource. May not live here: the order of the stream
(leader.py), formats (clearing.records.redacted).

What a node may see follows from the participant that runs it, by name in the register:
    ministry, central bank; regulator and operator in licence      every body
    others   their own submissions and instructions; of submissions that name them as counterparty
             all commitments and their own items; governance; of everything else the leaf alone
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from clearing.errors import VerificationError
from clearing.log import merkle
from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note
from clearing.records.instruction import Instruction
from clearing.records.leaves import LeafKind, leaf_kind
from clearing.records.obligation import commitments_of
from clearing.records.redacted import RedactedSubmission
from clearing.records.submission import Submission
from clearing.rows import Table, key_party
from clearing.rules.registry import Registry
from clearing.types import Role
from node.services.facade import BlockPart, NodeKind, RedactedBody, ShownEntry
from node.store import Record, Store, View

PART_BYTES = 2 << 20
"""About how large a part of a block is; one entry more may be in it, at most 5.2 MB."""

COMMITMENTS_KEPT_BYTES = 16 << 20
"""Commitments of the newest submissions kept for the next follower: they cost a hash an item."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What one follower may see: everything, or what concerns `participant`."""

    participant: int
    sees_all: bool


def rights_of(registry: Registry, time_ms: int, node: str, kind: NodeKind) -> Rights:
    """Return what the node called `node` may see at block time `time_ms` as a replica of `kind`.

    Ministry and central bank see everything by their office: a date that lapses must not end the
    quorum. Regulators and operators do while their licence is in force.
    Raises: VerificationError: no participant of that name is registered, or it may not run a
    replica of that kind.
    """
    number = registry.by_name(node)
    if number is None:
        raise VerificationError(
            f"no participant called {node} is registered, so its node is shown nothing"
        )
    if kind is not NodeKind.FULL_REPLICA:
        return Rights(number, sees_all=False)
    party = registry.participants[number]
    licensed = party.role in _BY_LICENCE and party.is_licensed(time_ms)
    if not licensed and party.role not in _BY_OFFICE:
        raise VerificationError(
            f"{node}, {party.role.name} {'in' if party.is_licensed(time_ms) else 'without'} licence, "
            "may run a witness replica only"
        )
    return Rights(number, sees_all=True)


_BY_OFFICE = (Role.MINISTRY, Role.CENTRAL_BANK)
_BY_LICENCE = (Role.REGULATOR, Role.OPERATOR)


class BlockSource:
    """Reads blocks for followers. Safe to call from several threads."""

    def __init__(self, store: Store) -> None:
        """Read from `store`, that of a full replica."""
        self._store = store
        self._commitments: OrderedDict[int, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._keeping = threading.Lock()

    def height_after(self, index: int) -> int:
        """Return the height of the block that starts at leaf `index`.

        Raises: VerificationError: no block starts there.
        """
        if index == 0:
            return 0
        with self._store.snapshot() as view:
            try:
                height = view.height_of(index - 1)
            except KeyError as error:
                raise VerificationError(f"the log here ends before leaf {index}") from error
            if view.block_range(height)[1] != index:
                raise VerificationError(f"no block starts at leaf {index}")
        return height + 1

    def parts(self, height: int, rights: Rights, note: bytes) -> list[BlockPart]:
        """Return block `height` as a follower with `rights` may see it.

        `note` is signed by the log and covers the block.
        """
        size = Checkpoint.parse(Note.parse(note).text).size
        with self._store.snapshot() as view:
            first, end = view.block_range(height)
            shown = [
                (index, self._shown(view, index, record, rights))
                for index, record in enumerate(view.records(first, end), first)
            ]
            consistency = merkle.consistency_proof(end, size, view)
        return _cut(height, first, [entry for _, entry in shown], note, consistency)

    def _shown(self, view: View, index: int, record: Record, rights: Rights) -> ShownEntry:
        return ShownEntry(record.leaf, self._shown_body(view, index, record, rights), record.public)

    def _shown_body(
        self, view: View, index: int, record: Record, rights: Rights
    ) -> bytes | RedactedBody | None:
        if not record.body:
            return None
        if record.public or rights.sees_all:
            return record.body
        kind = leaf_kind(record.leaf)
        if kind is LeafKind.INSTRUCTION:
            actor = Instruction.of_leaf(record.leaf).actor
            return record.body if actor == rights.participant else None
        if kind is not LeafKind.SUBMISSION:
            return None
        submission = Submission.of_leaf(record.leaf, record.body)
        if submission.submitter == rights.participant:
            return record.body
        if view.get(Table.PARTIES, key_party(rights.participant, index)) is None:
            return None
        commitments = self._commitments_of(index, submission)
        redacted = RedactedSubmission.of(submission, rights.participant, commitments)
        return RedactedBody(redacted.commitments, redacted.openings)

    def _commitments_of(self, index: int, submission: Submission) -> bytes:
        with self._keeping:
            kept = self._commitments.get(index)
        if kept is not None:
            return kept
        made = commitments_of(submission.secret, submission.records)
        with self._keeping:
            if index not in self._commitments:
                self._commitments[index] = made
                self._kept_bytes += len(made)
            while self._kept_bytes > COMMITMENTS_KEPT_BYTES:
                _, dropped = self._commitments.popitem(last=False)
                self._kept_bytes -= len(dropped)
        return made


def _size_of(entry: ShownEntry) -> int:
    shown = entry.shown
    if isinstance(shown, RedactedBody):
        opened = sum(len(opening) + 16 for _, opening in shown.openings)
        return len(entry.leaf) + len(shown.commitments) + opened
    return len(entry.leaf) + len(shown or b"")


def _runs(entries: list[ShownEntry]) -> Iterator[tuple[int, list[ShownEntry]]]:
    """Yield (offset, run) of consecutive entries of about PART_BYTES; at least one run."""
    start = size = 0
    for position, entry in enumerate(entries):
        if position > start and size + _size_of(entry) > PART_BYTES:
            yield start, entries[start:position]
            start, size = position, 0
        size += _size_of(entry)
    yield start, entries[start:]


def _cut(
    height: int, first: int, entries: list[ShownEntry], note: bytes, consistency: tuple[bytes, ...]
) -> list[BlockPart]:
    parts = [BlockPart(height, first + offset, tuple(run)) for offset, run in _runs(entries)]
    last = parts[-1]
    parts[-1] = BlockPart(height, last.first_index, last.entries, note, consistency)
    return parts
