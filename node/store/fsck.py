"""Everything re-derived from the leaves and compared, byte for byte.

Lives here: the full check of a store, offline. May not live here: repair (rebuild.py, or a peer).

In order, each stage naming table and key of what is altered, missing or surplus:
    file           pages, B-trees and free list, with LMDB's own offline verifier
    log            leaf -> node -> root, every complete subtree; seal index; number of records
    bodies         body -> commitment in its leaf; nothing kept for a leaf that has none
    state          every block applied again from genesis: leaves and bodies as they result, every row of every table
    own records    tip, counts, heads and their file, checkpoints and cosignatures: guards, roots, signatures
What cannot be judged is reported too, as NOT_CHECKED: bodies withheld from a witness, signatures without a policy.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from clearing.errors import ClearingError, DecodeError
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
from node.store.writer import check_head

_BY_INDEX = (Database.LEAVES, Database.BODIES, Database.PUBLIC, Database.REDACTED)


def check_directory(
    directory: Path, policy: Policy | None = None, progress: Progress = silent
) -> list[Finding]:
    """Check the store in `directory`, which no process has open; the pages first, so that LMDB never maps broken ones.

    policy: whose signatures checkpoints must carry; without one they are reported as not checked.
    Returns: the findings, damage and NOT_CHECKED, in the order of the stages; of a broken file only those of its pages.

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
    """Check an open store at its newest block; see the module's docstring. Its view stays open all the while."""
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
    if tip is not None:
        log = list(_log_findings(view, tip, progress))
        findings += log
        findings += _state_findings(view, tip, log, progress)
    findings += _head_findings(view, directory)
    findings += _checkpoint_findings(view, policy, progress)
    findings += _cosignature_findings(view, policy)
    return list(dict.fromkeys(findings))


# -- log and bodies


def _log_findings(view: View, tip: Tip, progress: Progress) -> Iterator[Finding]:
    yield from checks.tip_findings(view, tip)
    tree = checks.tree_findings(view, 0, tip.log_size, tip.log_root, progress)
    yield from tree
    for name in _BY_INDEX:
        yield from _beyond(view, name, tip.log_size)
    yield from _beyond(view, Database.NODES, tables.node_count(tip.log_size))
    yield from _beyond(view, Database.SEALS, tip.height + 1)
    damaged = [finding.key for finding in tree if finding.table == Database.LEAVES]
    yield from _body_findings(view, tip, damaged, progress)
    yield from _held_twice(view)
    if damaged:
        what = "leaves are damaged: where blocks end cannot be told"
        yield table_finding(FindingKind.NOT_CHECKED, Database.SEALS, what)
        return
    try:
        for block in stored_blocks(view):
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
        progress("bodies", index + 1, tip.log_size)
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
    """Apply every block again and compare; not where leaves or bodies are damaged: it would blame the innocent."""
    if tip.kind is ReplicaKind.WITNESS:
        what = "a witness keeps no state: it cannot apply what is withheld from it"
        yield table_finding(FindingKind.NOT_CHECKED, "state", what)
        for table in Table:
            yield from (
                surplus(table, key, "a witness keeps no state") for key, _ in view.items(table)
            )
        return
    if any(finding.is_damage and finding.table in _BY_INDEX for finding in before):
        what = "leaves or bodies are damaged: restore them first, then check the state's tables"
        yield table_finding(FindingKind.NOT_CHECKED, "state", what)
        return
    replay = Replay(view)
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


def _entry_findings(block: StoredBlock, entries: Iterable[object]) -> Iterator[Finding]:
    stored = [entry_of(record) for record in block.records]
    pairs = itertools.zip_longest(stored, entries)
    for index, (found, expected) in enumerate(pairs, block.first_index):
        if found == expected:
            continue
        what = f"applying block {block.height} again gives another leaf or body here"
        yield altered(Database.LEAVES, u64(index), what)
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
    known = (tables.KEY_SCHEMA, tables.KEY_TIP, tables.KEY_COUNTS)
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


def _head_findings(view: View, directory: Path) -> Iterator[Finding]:
    in_database: dict[str, Head] = {}
    for key, value in view.items(Database.HEADS):
        try:
            head = Head.decode(tables.unguarded(Database.HEADS, key, value))
            in_database[key.decode("ascii")] = head
            check_head(view, key.decode("ascii"), None, head)
        except (ClearingError, UnicodeDecodeError) as error:
            yield altered(Database.HEADS, key, str(error))
    try:
        in_file = heads.read_heads(directory)
    except StoreDamagedError as error:
        yield from error.findings
        return
    except SetupError as error:
        yield table_finding(FindingKind.DAMAGED, heads.HEADS_FILE, str(error))
        return
    if in_file is None:
        if in_database:
            what = "heads were signed, and the file beside the database that says so is gone"
            yield table_finding(FindingKind.MISSING, heads.HEADS_FILE, what)
        return
    for name, head in in_file.items():
        if name not in in_database or in_database[name].size < head.size:
            what = f"ROLLBACK_DETECTED: {name} has signed {head.size} leaves, the database is older than that"
            yield table_finding(FindingKind.DAMAGED, heads.HEADS_FILE, what)


def _own_checkpoint_text(view: View, note: Note, size: int) -> None:
    """Check that a note's text is about this log at `size`. Raises: ClearingError: it is not."""
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.size != size:
        raise DecodeError(f"its size is {checkpoint.size}")
    root = view.root(size)
    if checkpoint.root != root:
        raise DecodeError(f"its root is {checkpoint.root.hex()}, the log here has {root.hex()}")


def _checkpoint_findings(
    view: View, policy: Policy | None, progress: Progress
) -> Iterator[Finding]:
    total = view.count(Database.CHECKPOINTS)
    log_size = view.count(Database.LEAVES)
    for done, (key, value) in enumerate(view.items(Database.CHECKPOINTS), 1):
        if len(key) != 8 or number_of(key) > log_size:
            yield surplus(Database.CHECKPOINTS, key, "the log has no such size")
            continue
        try:
            note = Note.parse(tables.unguarded(Database.CHECKPOINTS, key, value))
            _own_checkpoint_text(view, note, number_of(key))
            if policy is not None:
                policy.check(note)
        except ClearingError as error:
            yield altered(Database.CHECKPOINTS, key, str(error))
        progress("checkpoints", done, total)
    if total and policy is None:
        what = f"the signatures of {total} checkpoints: no policy was given"
        yield table_finding(FindingKind.NOT_CHECKED, Database.CHECKPOINTS, what)


def _cosignature_findings(view: View, policy: Policy | None) -> Iterator[Finding]:
    total = view.count(Database.COSIGNATURES)
    log_size = view.count(Database.LEAVES)
    for key, value in view.items(Database.COSIGNATURES):
        size = number_of(key[:8])
        if len(key) < 13 or size > log_size:
            yield surplus(Database.COSIGNATURES, key, "the log has no such size")
            continue
        try:
            line = tables.unguarded(Database.COSIGNATURES, key, value)
            signature = Signature.parse(line.decode().removesuffix("\n"))
            if tables.cosignature_key(size, signature.key_id, signature.name) != key:
                raise DecodeError("it is another key's signature line")
            if policy is not None:
                _verify_cosignature(view, size, signature, policy)
        except (ClearingError, UnicodeDecodeError) as error:
            yield altered(Database.COSIGNATURES, key, str(error))
    if total and policy is None:
        what = f"{total} cosignatures: no policy was given"
        yield table_finding(FindingKind.NOT_CHECKED, Database.COSIGNATURES, what)


def _verify_cosignature(view: View, size: int, signature: Signature, policy: Policy) -> None:
    text = Checkpoint(policy.logs[0].key.name, size, view.root(size)).text
    Note(text, (signature,)).verified_by([witness.key for witness in policy.witnesses])
