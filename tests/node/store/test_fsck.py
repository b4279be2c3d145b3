"""Every altered, missing or surplus byte has its name, and nothing innocent stands beside it."""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from clearing.log.checkpoint import Checkpoint
from clearing.log.merkle import leaf_hash
from clearing.log.note import Note, sign
from clearing.records.redacted import RedactedSubmission
from clearing.records.submission import Submission
from clearing.rows import Table
from node.store import (
    Finding,
    FindingKind,
    Head,
    Store,
    StoreError,
    StoreLockedError,
    StoreSchemaError,
    tables,
)
from node.store.fsck import check_directory, check_store, check_view
from node.store.heads import write_heads
from node.store.tables import Database, Name, u64
from tests.ledger_kit import P02
from tests.node.store.store_kit import (
    LOG,
    POLICY,
    SETTINGS,
    WITNESS,
    dump,
    fill,
    final_note,
    history,
    leaf_block,
    undone,
)

LEDGER = (Database.LEAVES, Database.NODES, Database.BODIES, Database.PUBLIC)
OWN = (
    Database.SEALS,
    Database.HEADS,
    Database.CHECKPOINTS,
    Database.COSIGNATURES,
    Database.STORE,
)
Place = tuple[str, str]


def signed(store: Store) -> None:
    """Put a head, two checkpoints and a cosignature into the node's own tables."""
    heads = [Head(history()[n].log_size, history()[n].log_root) for n in (4, -1)]
    for head in heads:
        store.record_head("log", head)
        store.add_checkpoint(head.size, final_note(head.size, head.root))
    text = Checkpoint(LOG.key.name, heads[1].size, heads[1].root).text
    line = sign(text, WITNESS, 1_700_000_001)
    store.add_cosignature(heads[1].size, line.key_id, line.name, f"{line.line}\n".encode())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A small database with records in every table.

    Tests alter it in transactions that are given up.
    """
    with fill(tmp_path_factory.mktemp("fsck") / "s") as filled:
        signed(filled)
        yield filled


def damage(findings: Iterable[Finding]) -> set[Place]:
    return {(finding.table, finding.key) for finding in findings if finding.is_damage}


def damage_after(store: Store, changes: Iterable[tuple[Name, bytes, bytes | None]]) -> set[Place]:
    """Return what fsck names when these values are put, or records deleted (None)."""
    with undone(store) as writer:
        for name, key, value in changes:
            if value is None:
                writer.delete(name, key)
            else:
                writer.put(name, key, value)
        return damage(check_view(writer.view, store.directory, POLICY))


def records(store: Store, names: Iterable[Name]) -> list[tuple[Name, bytes, bytes]]:
    with store.snapshot() as view:
        return [(name, key, value) for name in names for key, value in view.items(name)]


def place(name: Name, key: bytes) -> Place:
    return str(name), tables.key_text(name, key)


def flipped(value: bytes, at: int) -> bytes:
    return value[:at] + bytes([value[at] ^ (1 << at % 8)]) + value[at + 1 :]


BITCOIN = {
    *(Table.LEGS, Table.LEG_COINS, Table.SCRIPTS, Table.COINS, Table.BITCOIN_HEADERS),
    *(Table.BITCOIN_CHAIN, Table.BATCHES, Table.DRAWS),
}
"""Written only where a chain is followed: tests/clearing/test_golden.py."""


# -- a good store


def test_a_good_store_has_no_findings_and_nothing_is_left_unchecked(store: Store) -> None:
    stages: list[str] = []
    assert check_store(store, POLICY, lambda stage, *_: stages.append(stage)) == []
    assert list(dict.fromkeys(stages)) == ["log", "bodies", "replay", "rows", "checkpoints"]
    with store.snapshot() as view:
        filled = {name for name, rows in dump(view).items() if rows}
    assert set(tables.ALL) - filled == {
        Database.REDACTED,
        Database.ORDERED,
        Table.PROPOSALS,
        *(Table.CYCLE_UNSETTLED, Table.CYCLE_REMAINDERS, Table.ANCHORS),
        *BITCOIN,
    }


def test_every_length_of_history_is_good(tmp_path: Path) -> None:
    for end in range(len(history()) + 1):
        with fill(tmp_path / str(end), history()[:end]) as store:
            assert check_store(store, POLICY) == []


def test_without_a_policy_signatures_are_reported_as_not_checked(store: Store) -> None:
    findings = check_store(store)
    assert [f.table for f in findings] == ["checkpoints", "cosignatures"]
    assert not any(finding.is_damage for finding in findings)
    assert str(findings[0]).startswith("not checked: checkpoints: the signatures of 2 records")


# -- bytes


def flip_one_by_one(store: Store, names: Iterable[Name], step: int) -> None:
    """Alter one byte at a time; exactly the record it belongs to must be named."""
    number = 0
    for name, key, value in records(store, names):
        for at in range(len(value)):
            number += 1
            if number % step:
                continue
            named = damage_after(store, [(name, key, flipped(value, at))])
            assert named == {place(name, key)}, (place(name, key), at, named)
    assert number > 100


def flip_rows_side_by_side(store: Store, offsets: Iterable[int]) -> None:
    """Alter one byte of every row of the state at a time: rows do not depend on one another."""
    rows = records(store, Table)
    for at in offsets:
        changes = [(name, key, flipped(value, at)) for name, key, value in rows if at < len(value)]
        named = damage_after(store, changes)
        assert named == {place(name, key) for name, key, _ in changes}, at


def longest_row(store: Store) -> int:
    return max(len(value) for _, _, value in records(store, Table))


def test_a_flipped_byte_of_the_ledger_is_named_sampled(store: Store) -> None:
    flip_one_by_one(store, LEDGER, step=61)


@pytest.mark.slow
def test_every_flipped_byte_of_the_ledger_is_named(store: Store) -> None:
    flip_one_by_one(store, LEDGER, step=1)


def test_a_flipped_byte_of_the_nodes_own_records_is_named_sampled(store: Store) -> None:
    flip_one_by_one(store, OWN, step=53)


@pytest.mark.slow
def test_every_flipped_byte_of_the_nodes_own_records_is_named(store: Store) -> None:
    flip_one_by_one(store, OWN, step=1)


def test_a_flipped_byte_of_the_state_is_named_sampled(store: Store) -> None:
    flip_rows_side_by_side(store, range(0, longest_row(store), 16))


@pytest.mark.slow
def test_every_flipped_byte_of_the_state_is_named(store: Store) -> None:
    flip_rows_side_by_side(store, range(longest_row(store)))


# -- records longer, shorter, missing, surplus


@pytest.mark.parametrize("name", [*LEDGER, *OWN])
def test_a_longer_a_shorter_and_an_empty_record_of_the_ledger_is_named(
    store: Store, name: Name
) -> None:
    every = records(store, [name])
    for name_, key, value in every[:: max(1, len(every) // 5)]:
        for other in (value + b"\0", value[:-1], b""):
            named = damage_after(store, [(name_, key, other)])
            assert place(name, key) in named, (place(name, key), len(other))


def test_longer_and_shorter_rows_of_the_state_are_named(store: Store) -> None:
    rows = records(store, Table)
    for change in (lambda value: value + b"\0", lambda value: value[:-1]):
        changes = [(name, key, change(value)) for name, key, value in rows]
        assert damage_after(store, changes) == {place(name, key) for name, key, _ in rows}


@pytest.mark.parametrize("name", LEDGER)
def test_a_missing_record_of_the_ledger_is_named(store: Store, name: Name) -> None:
    for name_, key, _ in records(store, [name]):
        named = damage_after(store, [(name_, key, None)])
        # The number of records of the table is wrong too, and says so. Which of two tables a body
        # is missing from only the rules know, and those are not asked where a body is missing.
        table = Database.BODIES if name is Database.PUBLIC else name
        assert named == {place(table, key), (str(name), "")}


def test_missing_rows_of_the_state_are_named(store: Store) -> None:
    rows = records(store, Table)
    named = damage_after(store, [(name, key, None) for name, key, _ in rows])
    whole = {(str(name), "") for name, _, _ in rows}
    assert named == {place(name, key) for name, key, _ in rows} | whole


@pytest.mark.parametrize("name", [*Table, Database.SEALS, *LEDGER])
def test_a_surplus_record_is_named(store: Store, name: Name) -> None:
    for key in (u64(1 << 40), b"\xff" * 10, b"\0"):
        named = damage_after(store, [(name, key, b"surplus")])
        assert place(name, key) in named
        assert named <= {place(name, key), (str(name), "")}


@pytest.mark.parametrize("name", [Database.HEADS, Database.CHECKPOINTS, Database.COSIGNATURES])
def test_a_surplus_record_of_the_nodes_own_is_named(store: Store, name: Name) -> None:
    for key in (u64(1 << 40), b"\xff" * 20, b"\0"):
        value = tables.guarded(name, key, final_note(5, bytes(32)))
        assert damage_after(store, [(name, key, value)]) == {place(name, key)}


def test_a_surplus_record_about_the_store_is_named(store: Store) -> None:
    value = tables.guarded(Database.STORE, b"else", b"")
    assert damage_after(store, [(Database.STORE, b"else", value)]) == {("store", "else")}


def test_a_table_that_is_not_ours_is_named(tmp_path: Path) -> None:
    with fill(tmp_path) as store:
        env = store._environment._env
        with env.begin(write=True) as txn:
            env.open_db(b"else", txn=txn)
        assert damage(check_store(store)) == {("else", "")}


def test_a_body_kept_as_public_that_is_not_is_named(store: Store) -> None:
    _, key, body = records(store, [Database.BODIES])[0]
    moved = [(Database.BODIES, key, None), (Database.PUBLIC, key, body)]
    assert damage_after(store, moved) == {
        place(Database.PUBLIC, key),
        ("bodies", ""),
        ("public", ""),
    }
    both = damage_after(store, [(Database.PUBLIC, key, body)])
    assert place(Database.BODIES, key) in both


# -- what careful hands alter


def test_a_leaf_altered_together_with_its_node_is_found_at_the_node_above(store: Store) -> None:
    leaf = flipped(store.leaf(4), 40)
    changes = [
        (Database.LEAVES, u64(4), leaf),
        (Database.NODES, u64(tables.node_position(0, 4)), leaf_hash(leaf)),
    ]
    # Byte 40 belongs to the commitment: the body is not what the forged leaf commits to either.
    assert damage_after(store, changes) == {("nodes", "level 1 index 2"), ("bodies", "index 4")}


def test_a_tip_rewritten_with_its_guard_is_found(store: Store) -> None:
    assert store.tip is not None
    for change in (
        {"time_ms": store.tip.time_ms + 1},
        {"state_root": bytes(32)},
        {"log_root": bytes(32)},
        {"height": store.tip.height - 1},
        {"log_size": store.tip.log_size - 1},
    ):
        tip = dataclasses.replace(store.tip, **change)
        value = tables.guarded(Database.STORE, b"tip", tip.encode())
        assert damage_after(store, [(Database.STORE, b"tip", value)]), change


def test_a_checkpoint_of_other_contents_or_signers_is_found(store: Store) -> None:
    size, root = history()[4].log_size, history()[4].log_root
    text = Checkpoint(LOG.key.name, size, root).text
    other_text = Checkpoint(LOG.key.name, size, bytes(32)).text
    notes = [
        final_note(size, bytes(32)),
        final_note(size + 1, root),
        Note(text, (sign(text, LOG),)).encode(),
        Note(text, (sign(text, WITNESS, 1),)).encode(),
        Note(text, (sign(other_text, LOG), sign(text, WITNESS, 1))).encode(),
        b"no note at all",
    ]
    for note in notes:
        value = tables.guarded(Database.CHECKPOINTS, u64(size), note)
        changes = [(Database.CHECKPOINTS, u64(size), value)]
        assert damage_after(store, changes) == {("checkpoints", f"size {size}")}, note


def test_a_cosignature_that_does_not_verify_is_found(store: Store) -> None:
    (_, key, _), size = records(store, [Database.COSIGNATURES])[0], history()[-1].log_size
    text = Checkpoint(LOG.key.name, size, bytes(32)).text
    stranger = sign(text, LOG)
    for line in (sign(text, WITNESS, 1).line, stranger.line, "no line", "\udcff"):
        payload = line.encode(errors="surrogateescape")
        value = tables.guarded(Database.COSIGNATURES, key, payload)
        named = damage_after(store, [(Database.COSIGNATURES, key, value)])
        assert named == {place(Database.COSIGNATURES, key)}, line


def test_a_head_of_another_root_is_found(store: Store) -> None:
    head = Head(history()[-1].log_size, bytes(32))
    value = tables.guarded(Database.HEADS, b"log", head.encode())
    assert ("heads", "log") in damage_after(store, [(Database.HEADS, b"log", value)])


def test_a_log_older_than_the_heads_file_is_found(tmp_path: Path) -> None:
    with fill(tmp_path) as store:
        signed(store)
    (tmp_path / "data.mdb").unlink()
    with fill(tmp_path, history()[:-1]) as store:
        (finding,) = check_store(store)
    assert (finding.table, finding.is_damage) == ("signed-heads", True)
    assert finding.what.startswith("ROLLBACK_DETECTED: log has signed")


def test_a_heads_file_of_another_history_is_found(store: Store, tmp_path: Path) -> None:
    write_heads(tmp_path, {"log": Head(history()[4].log_size, bytes(32))})
    with store.snapshot() as view:
        (finding,) = check_view(view, tmp_path, POLICY)
    assert (finding.table, finding.is_damage) == ("signed-heads", True)
    assert finding.what.startswith("ROLLBACK_DETECTED: what log has signed at")


def test_a_database_that_knows_less_than_the_heads_file_is_told(store: Store) -> None:
    """A copy from a peer has the log and not this node's own heads: no damage, and worth a look."""
    head = Head(history()[4].log_size, history()[4].log_root)
    with undone(store) as writer:
        for value in (tables.guarded(Database.HEADS, b"log", head.encode()), None):
            writer.delete(Database.HEADS, b"log")
            if value is not None:
                writer.put(Database.HEADS, b"log", value)
            (finding,) = check_view(writer.view, store.directory, POLICY)
            assert finding.kind is FindingKind.NOT_CHECKED
            assert (finding.table, finding.key) == ("heads", "log")


# -- witnesses


def submission_index() -> int:
    return next(
        index
        for result in history()
        for index, entry in enumerate(result.entries, result.first_index)
        if entry.leaf[1] == 2
    )


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Store]:
    """A witness that keeps the first submission redacted, as p02's does, and no instruction."""
    held = submission_index()
    blocks = []
    for result in history():
        instructions = [
            i for i, e in enumerate(result.entries, result.first_index) if e.leaf[1] == 3
        ]
        block = leaf_block(result, withhold=[held, *instructions])
        at = held - result.first_index
        if 0 <= at < len(result.entries):
            whole = Submission.decode(result.entries[at].leaf + result.entries[at].body)
            redacted = RedactedSubmission.of(whole, P02).encode()
            changed = list(block.records)
            changed[at] = dataclasses.replace(changed[at], redacted=redacted)
            block = dataclasses.replace(block, records=tuple(changed))
        blocks.append(block)
    with Store.open(tmp_path / "w", SETTINGS) as store:
        store.append(*blocks)
        yield store


def test_a_witness_says_what_it_could_not_check(witness: Store) -> None:
    findings = check_store(witness, POLICY)
    assert not damage(findings)
    assert [(f.kind, f.table) for f in findings] == [
        (FindingKind.NOT_CHECKED, "bodies"),
        (FindingKind.NOT_CHECKED, "state"),
    ]
    assert "bodies are withheld" in findings[0].what


def test_what_a_witness_holds_is_checked_byte_for_byte(witness: Store) -> None:
    flip_one_by_one(witness, [Database.REDACTED], step=1)
    flip_one_by_one(witness, [*LEDGER, Database.SEALS], step=97)


def test_a_witness_with_rows_of_state_is_found(witness: Store) -> None:
    assert ("open", "log index 7") in damage_after(witness, [(Table.OPEN, u64(7), b"\1")])


# -- the directory and its file


def test_a_directory_is_checked_from_the_pages_up(tmp_path: Path) -> None:
    with fill(tmp_path) as store:
        signed(store)
        with pytest.raises(StoreLockedError):
            check_directory(tmp_path)
    stages: list[str] = []
    assert check_directory(tmp_path, POLICY, lambda stage, *_: stages.append(stage)) == []
    assert stages[0] == "file"
    with pytest.raises(StoreSchemaError, match="holds no store"):
        check_directory(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_truncated_file_and_an_altered_heads_file_are_findings(tmp_path: Path) -> None:
    with fill(tmp_path) as store:
        signed(store)
    data, heads = tmp_path / "data.mdb", tmp_path / "signed-heads"
    good = heads.read_bytes()
    heads.write_bytes(good.replace(b"log", b"lag"))
    assert damage(check_directory(tmp_path, POLICY)) == {("signed-heads", "")}
    heads.unlink()
    assert damage(check_directory(tmp_path, POLICY)) == {("signed-heads", "")}
    heads.write_bytes(good)
    data.write_bytes(data.read_bytes()[:-4096])
    assert damage(check_directory(tmp_path, POLICY)) == {("data.mdb", "")}


def test_bytes_of_leaves_and_bodies_flipped_in_the_file_are_named(tmp_path: Path) -> None:
    with fill(tmp_path) as store:
        live = records(store, [Database.LEAVES, Database.BODIES, Database.PUBLIC])
    path = tmp_path / "data.mdb"
    good = path.read_bytes()
    for name, key, value in live[::7]:
        broken = bytearray(good)
        start = good.find(value)
        while start >= 0:
            # Older copies of a page may hold the value as well: all of them are altered.
            broken[start + len(value) // 2] ^= 0x10
            start = good.find(value, start + 1)
        path.write_bytes(broken)
        assert place(name, key) in damage(check_directory(tmp_path)), place(name, key)


def test_no_flipped_byte_of_the_file_goes_unnoticed_where_it_matters(tmp_path: Path) -> None:
    """Anywhere in the file: either fsck names something, or all records read as before."""
    with fill(tmp_path / "s") as store:
        signed(store)
        with store.snapshot() as view:
            before = dump(view)
    path = tmp_path / "s" / "data.mdb"
    good = path.read_bytes()
    chosen = random.Random(20)
    used = [page * 4096 + chosen.randrange(4096) for page in range(2, len(good) // 4096)]
    headers = [page * 4096 + chosen.randrange(64) for page in range(len(good) // 4096)]
    named = 0
    for at in used + headers:
        broken = bytearray(good)
        broken[at] ^= 1 << chosen.randrange(8)
        path.write_bytes(broken)
        try:
            findings = check_directory(tmp_path / "s", POLICY)
        except StoreError:
            named += 1
            continue
        if damage(findings):
            named += 1
            continue
        with Store.open(tmp_path / "s", SETTINGS) as store, store.snapshot() as view:
            assert dump(view) == before, at
    assert named > 10


def test_a_copied_directory_is_as_good_as_the_first(tmp_path: Path) -> None:
    with fill(tmp_path / "s") as store:
        signed(store)
    shutil.copytree(tmp_path / "s", tmp_path / "t")
    assert check_directory(tmp_path / "t", POLICY) == []
