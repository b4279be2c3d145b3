"""Everything re-derived from the leaves and compared, byte for byte.

Lives here: the full check of a store, offline. May not live here: repair (rebuild.py, or a peer).

In order, each stage naming table and key of what is altered, missing or surplus:
    file           pages, B-trees and free list, with LMDB's own offline verifier
    log            leaf -> node -> root, every complete subtree; seal index; number of records
    bodies         body -> commitment in its leaf; nothing kept for a leaf that has none
    state          every block applied again from genesis: leaves, bodies, every row of every table
    own records    tip, counts, heads and their file, checkpoints, cosignatures: guards, roots, and
                   signatures
What cannot be judged is reported too, as NOT_CHECKED: bodies withheld from a witness, signatures
without a policy.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clearing.errors import ClearingError, DecodeError
from clearing.ledger import Entry
from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note, Signature
from clearing.log.policy import Policy
from clearing.rows import Table
from node.errors import SetupError
from node.store import checks, datafile, heads, tables
from node.store.checks import Progress, altered, missing, silent, surplus, table_finding
from node.store.environment import StoreSettings, lock_directory
from node.store.errors import Finding, FindingKind, StoreDamagedError, StoreSchemaError
from node.store.replay import Replay, ReplayError, StoredBlock, entry_of, stored_blocks
from node.store.store import Store
from node.store.tables import Database, Head, Name, ReplicaKind, Tip, number_of, u64
from node.store.view import View

_BY_INDEX = (Database.LEAVES, Database.BODIES, Database.PUBLIC, Database.REDACTED)


def check_directory(
    directory: Path, policy: Policy | None = None, progress: Progress = silent
) -> list[Finding]:
    """Check the store in `directory`, which no process has open.

    The pages come first, so that LMDB never maps broken ones.

    policy: whose signatures checkpoints must carry; without one they are reported as not checked.
    Returns: the findings, damage and NOT_CHECKED, in the order of the stages; of a broken file only
    those of its pages.

    Raises: StoreLockedError: a node runs on it. StoreSchemaError: no store, or of another version.
    """
    if not (directory / datafile.DATA_FILE).exists():
        raise StoreSchemaError(f"{directory} holds no store: check the path")
    progress("file", 0, 1)
    lock_descriptor = lock_directory(directory)
    try:
        datafile.check_length(directory)
        findings = datafile.structure_findings(directory)
    except StoreDamagedError as error:
        findings = list(error.findings)
    finally:
        os.close(lock_descriptor)
    progress("file", 1, 1)
    if findings:
        return findings
    try:
        with Store.open(directory, StoreSettings(readahead=True), create=False) as store:
            return check_store(store, policy, progress)
    except StoreDamagedError as error:
        return list(error.findings)


def check_store(
    store: Store, policy: Policy | None = None, progress: Progress = silent
) -> list[Finding]:
    """Check an open store at its newest block.

    See the module's docstring. Its view stays open all the while.
    """
    what = "the store has no such table"
    findings = [
        table_finding(FindingKind.SURPLUS, name, what)
        for name in store.database_names()
        if name not in map(str, tables.ALL)
    ]
    with store.snapshot() as view:
        return findings + check_view(view, store.directory, policy, progress)


def check_view(
    view: View, directory: Path, policy: Policy | None = None, progress: Progress = silent
) -> list[Finding]:
    """Check what one view shows, and the signed heads' file in `directory`."""
    tip, findings = checks.read_tip(view)
    findings += _store_findings(view)
    size = view.count(Database.LEAVES)
    if tip is not None:
        size = tip.log_size
        findings += _log_findings(view, tip, progress)
        findings += _state_findings(view, tip, list(findings), progress)
    # Roots of a damaged tree would blame whoever signed the right ones.
    judge = _Judge(view, size, policy, roots_known=not _is_tree_damaged(findings))
    findings += _head_findings(judge, directory)
    findings += _checkpoint_findings(judge, progress)
    findings += _cosignature_findings(judge)
    return list(dict.fromkeys(findings))


def _is_tree_damaged(findings: Iterable[Finding]) -> bool:
    return any(f.is_damage and f.table in (Database.LEAVES, Database.NODES) for f in findings)


# -- log and bodies


def _log_findings(view: View, tip: Tip, progress: Progress) -> Iterator[Finding]:
    yield from checks.count_findings(view, tip)
    tree = checks.tree_findings(view, 0, tip.log_size, tip.log_root, progress)
    yield from tree
    for name in _BY_INDEX:
        yield from _beyond(view, name, tip.log_size)
    yield from _beyond(view, Database.NODES, tables.node_count(tip.log_size))
    yield from _beyond(view, Database.SEALS, tip.height + 1)
    yield from _beyond(view, Database.ORDERED, tip.height + 1)
    damaged = [finding.key for finding in tree if finding.table == Database.LEAVES]
    yield from checks.tip_findings(view, tip, damaged)
    yield from _body_findings(view, tip, damaged, progress)
    yield from _held_twice(view)
    if damaged:
        what = "leaves are damaged: where blocks end cannot be told"
        yield table_finding(FindingKind.NOT_CHECKED, Database.SEALS, what)
        return
    try:
        for block in stored_blocks(view, tip.log_size):
            yield from checks.seal_findings(view, block.height, block.first_index, block.end)
    except ReplayError as error:
        key = f"index {error.first_index}"
        yield Finding(FindingKind.DAMAGED, Database.LEAVES, key, str(error))


def _body_findings(
    view: View, tip: Tip, damaged: Sequence[str], progress: Progress
) -> Iterator[Finding]:
    """Check the bodies of all leaves but the damaged ones, whose commitments mean nothing."""
    withheld = 0
    for index in range(tip.log_size):
        if tables.key_text(Database.LEAVES, u64(index)) not in damaged:
            record = view.record(index)
            yield from checks.body_findings(index, record, tip.kind)
            withheld += not record.body and checks.may_have_body(record.leaf)
        if not index & 0x3F:
            progress("bodies", index, tip.log_size)
    if withheld and tip.kind is ReplicaKind.WITNESS:
        what = f"{withheld} bodies are withheld from this witness"
        yield table_finding(FindingKind.NOT_CHECKED, Database.BODIES, what)


def _beyond(view: View, name: Database, end: int) -> Iterator[Finding]:
    for key, _ in view.items(name):
        if len(key) != 8 or number_of(key) >= end:
            yield surplus(name, key, "there is no such place in the log")


def _held_twice(view: View) -> Iterator[Finding]:
    for key, _ in view.items(Database.PUBLIC):
        if view.raw(Database.BODIES, key) is not None:
            yield surplus(Database.BODIES, key, "the body is kept as public too")


# -- state


def _state_findings(
    view: View, tip: Tip, before: Iterable[Finding], progress: Progress
) -> Iterator[Finding]:
    """Apply every block again and compare.

    Not where leaves or bodies are damaged: it would blame the innocent.
    """
    if tip.kind is ReplicaKind.WITNESS:
        what = "a witness keeps no state: it cannot apply what is withheld from it"
        yield table_finding(FindingKind.NOT_CHECKED, "state", what)
        for table in Table:
            yield from (
                surplus(table, key, "a witness keeps no state") for key, _ in view.items(table)
            )
        return
    if any(f.is_damage and f.key and f.table in _BY_INDEX for f in before):
        what = "leaves or bodies are damaged: restore them first, then check the state's tables"
        yield table_finding(FindingKind.NOT_CHECKED, "state", what)
        return
    replay = Replay(view, tip.log_size)
    try:
        for block, result in replay.run(progress):
            yield from _entry_findings(block, result.entries)
    except ReplayError as error:
        key = f"index {error.first_index}"
        yield Finding(FindingKind.DAMAGED, Database.LEAVES, key, str(error))
        return
    for done, table in enumerate(Table, 1):
        yield from _row_findings(view, table, replay.rows.scan(table))
        progress("rows", done, len(Table))


def _entry_findings(block: StoredBlock, entries: Sequence[Entry]) -> Iterator[Finding]:
    """Yield the first difference between a block as stored and as applying it again gives it."""
    stored = [entry_of(record) for record in block.records]
    for index, (found, expected) in enumerate(
        itertools.zip_longest(stored, entries), block.first_index
    ):
        if found == expected:
            continue
        what = f"applying block {block.height} again gives another leaf or body here"
        kept_in = Database.LEAVES
        if found and expected and (found.leaf, found.body) == (expected.leaf, expected.body):
            kept_in = Database.PUBLIC if found.public else Database.BODIES
            what = (
                "the body is kept with those that others may see, or away from them, against "
                "the rules"
            )
        yield altered(kept_in, u64(index), what)
        return


def _row_findings(
    view: View, table: Table, expected: Iterable[tuple[bytes, bytes]]
) -> Iterator[Finding]:
    stored, replayed = view.items(table), iter(expected)
    found, wanted = next(stored, None), next(replayed, None)
    while found is not None or wanted is not None:
        if wanted is None or (found is not None and found[0] < wanted[0]):
            yield surplus(
                table, found[0] if found else b"", "applying the log again gives no such row"
            )
            found = next(stored, None)
        elif found is None or wanted[0] < found[0]:
            yield missing(table, wanted[0], "applying the log again gives this row")
            wanted = next(replayed, None)
        else:
            if found[1] != wanted[1]:
                yield altered(table, found[0], _first_difference(found[1], wanted[1]))
            found, wanted = next(stored, None), next(replayed, None)


def _first_difference(found: bytes, expected: bytes) -> str:
    if len(found) != len(expected):
        return f"it has {len(found)} bytes, applying the log again gives {len(expected)}"
    at = next(i for i, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1])
    return f"applying the log again gives another byte at offset {at}"


# -- the node's own records


def _store_findings(view: View) -> Iterator[Finding]:
    known = (tables.KEY_SCHEMA, tables.KEY_TIP, tables.KEY_COUNTS, tables.KEY_ORDERED)
    for key, value in view.items(Database.STORE):
        if key not in known:
            yield surplus(Database.STORE, key, "the store writes no such record")
        else:
            yield from _guard_findings(Database.STORE, key, value)


def _guard_findings(name: Name, key: bytes, value: bytes) -> Iterator[Finding]:
    try:
        tables.unguarded(name, key, value)
    except DecodeError as error:
        yield altered(name, key, str(error))


@dataclass(frozen=True, slots=True)
class _Judge:
    """What the node's own records are compared with.

    With `roots_known` unset the log's own roots say nothing.
    """

    view: View
    size: int
    policy: Policy | None
    roots_known: bool

    def check_root(self, size: int, root: bytes) -> None:
        """Raise DecodeError unless the log has that root at that size."""
        if not self.roots_known:
            return
        found = self.view.root(size)
        if found != root:
            raise DecodeError(f"its root is {root.hex()}, the log here has {found.hex()}")

    def check_note(self, note: Note, size: int) -> None:
        """Raise ClearingError unless a note is a valid checkpoint of this log at that size."""
        checkpoint = Checkpoint.parse(note.text)
        if checkpoint.size != size:
            raise DecodeError(f"its size is {checkpoint.size}")
        self.check_root(size, checkpoint.root)
        if self.policy is not None:
            self.policy.check(note)

    def check_line(self, line: Signature, size: int) -> None:
        """Raise ClearingError unless a line verifies over this log's checkpoint of that size."""
        if self.policy is None or not self.roots_known:
            return
        text = Checkpoint(self.policy.logs[0].key.name, size, self.view.root(size)).text
        # A follower keeps the log's own line too: with it the head that it cosigned is evidence.
        keys = [witness.key for witness in self.policy.witnesses]
        Note(text, (line,)).verified_by(keys + [log.key for log in self.policy.logs])


def _head_findings(judge: _Judge, directory: Path) -> Iterator[Finding]:
    in_database: dict[str, Head | None] = {}
    for key, value in judge.view.items(Database.HEADS):
        name = key.decode(errors="backslashreplace")
        in_database[name] = None
        try:
            head = Head.decode(tables.unguarded(Database.HEADS, key, value))
            in_database[name] = head
            judge.check_root(head.size, head.root)
        except ClearingError as error:
            yield altered(Database.HEADS, key, str(error))
    try:
        in_file = heads.read_heads(directory)
    except StoreDamagedError as error:
        yield from error.findings
        return
    except SetupError as error:
        yield table_finding(FindingKind.DAMAGED, heads.HEADS_FILE, str(error))
        return
    if in_file is None and in_database:
        what = "heads were signed, and the file beside the database that says so is gone"
        yield table_finding(FindingKind.MISSING, heads.HEADS_FILE, what)
    for name, signed in (in_file or {}).items():
        yield from _signed_findings(judge, name, signed, in_database.get(name, Head(0, b"")))


def _signed_findings(
    judge: _Judge, name: str, signed: Head, known: Head | None
) -> Iterator[Finding]:
    """Compare a head in the file with the log, as start-up does, and with the database's own."""
    if signed.size > judge.size:
        what = (
            f"ROLLBACK_DETECTED: {name} has signed {signed.size} leaves, the log here has "
            f"{judge.size}"
        )
        yield table_finding(FindingKind.DAMAGED, heads.HEADS_FILE, what)
        return
    try:
        judge.check_root(signed.size, signed.root)
    except ClearingError as error:
        what = f"ROLLBACK_DETECTED: what {name} has signed at {signed.size} leaves: {error}"
        yield table_finding(FindingKind.DAMAGED, heads.HEADS_FILE, what)
    if known is not None and known.size < signed.size:
        what = "the file knows a newer head than the database: is this a peer's copy?"
        yield Finding(FindingKind.NOT_CHECKED, Database.HEADS, name, what)


def _checkpoint_findings(judge: _Judge, progress: Progress) -> Iterator[Finding]:
    total = judge.view.count(Database.CHECKPOINTS)
    for done, (key, value) in enumerate(judge.view.items(Database.CHECKPOINTS), 1):
        if len(key) != 8 or number_of(key) > judge.size:
            yield surplus(Database.CHECKPOINTS, key, "the log has no such size")
            continue
        try:
            note = Note.parse(tables.unguarded(Database.CHECKPOINTS, key, value))
            judge.check_note(note, number_of(key))
        except ClearingError as error:
            yield altered(Database.CHECKPOINTS, key, str(error))
        progress("checkpoints", done, total)
    yield from _unchecked(judge, Database.CHECKPOINTS, total)


def _cosignature_findings(judge: _Judge) -> Iterator[Finding]:
    total = judge.view.count(Database.COSIGNATURES)
    for key, value in judge.view.items(Database.COSIGNATURES):
        size = number_of(key[:8])
        if len(key) < 13 or size > judge.size:
            yield surplus(Database.COSIGNATURES, key, "the log has no such size")
            continue
        try:
            line = tables.unguarded(Database.COSIGNATURES, key, value)
            signature = Signature.parse(line.decode().removesuffix("\n"))
            if tables.cosignature_key(size, signature.key_id, signature.name) != key:
                raise DecodeError("it is another key's signature line")
            judge.check_line(signature, size)
        except (ClearingError, UnicodeDecodeError) as error:
            yield altered(Database.COSIGNATURES, key, str(error))
    yield from _unchecked(judge, Database.COSIGNATURES, total)


def _unchecked(judge: _Judge, name: Database, total: int) -> Iterator[Finding]:
    if total and judge.policy is None:
        what = f"the signatures of {total} records: no policy was given"
        yield table_finding(FindingKind.NOT_CHECKED, name, what)
    if total and not judge.roots_known:
        what = f"the roots of {total} records: leaves or nodes are damaged"
        yield table_finding(FindingKind.NOT_CHECKED, name, what)
