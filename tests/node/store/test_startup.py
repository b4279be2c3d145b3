"""What a start refuses, and by which name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from clearing.rows import Table
from clearing.state import State
from node.store import (
    Finding,
    FindingKind,
    Head,
    RollbackDetectedError,
    Store,
    StoreCode,
    StoreDamagedError,
    tables,
)
from node.store.heads import write_heads
from node.store.startup import check_state, check_tail, open_checked, tail_findings
from node.store.tables import Database, Name, u64
from node.store.writer import Writer
from tests.node.store.store_kit import SETTINGS, fill, history, leaf_block, undone


def last() -> Head:
    return Head(history()[-1].log_size, history()[-1].log_root)


def found(store: Store, alter: Callable[[Writer], None]) -> list[Finding]:
    with undone(store) as writer:
        alter(writer)
        return list(tail_findings(writer.view))


def flip(name: Name, key: bytes, at: int = 0) -> Callable[[Writer], None]:
    def alter(writer: Writer) -> None:
        value = writer.view.raw(name, key)
        assert value is not None
        writer.put(name, key, value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :])

    return alter


def drop(name: Name, key: bytes) -> Callable[[Writer], None]:
    return lambda writer: writer.delete(name, key)


def test_a_good_store_opens_full_or_witness_new_or_old(tmp_path: Path) -> None:
    fill(tmp_path / "full").close()
    with Store.open(tmp_path / "witness", SETTINGS) as witness:
        witness.append(*map(leaf_block, history()))
    for name in ("full", "witness", "new"):
        with open_checked(tmp_path / name, SETTINGS) as store:
            assert list(found(store, lambda _: None)) == []


@pytest.mark.parametrize("tail_leaves", [0, 1, 2, 3, 7, 10_000])
def test_any_length_of_tail_is_good_in_a_good_store(tmp_path: Path, tail_leaves: int) -> None:
    for end in range(1, len(history()) + 1):
        with fill(tmp_path / str(end), history()[:end]) as store:
            check_tail(store, tail_leaves)


def test_a_damaged_record_of_the_tail_is_named(tmp_path: Path) -> None:
    size, height = last().size, history()[-1].height
    body = next(i for i in reversed(range(size)) if history_body(i))
    leaf, node = u64(size - 2), u64(tables.node_count(size) - 1)
    expected: list[tuple[Callable[[Writer], None], FindingKind, Name, str]] = [
        (flip(Database.LEAVES, leaf), FindingKind.ALTERED, Database.LEAVES, f"index {size - 2}"),
        (drop(Database.LEAVES, leaf), FindingKind.MISSING, Database.LEAVES, f"index {size - 2}"),
        (
            flip(Database.NODES, node, 31),
            FindingKind.ALTERED,
            Database.NODES,
            tables.key_text(Database.NODES, node),
        ),
        (
            drop(Database.NODES, node),
            FindingKind.MISSING,
            Database.NODES,
            tables.key_text(Database.NODES, node),
        ),
        (
            flip(Database.SEALS, u64(height), 7),
            FindingKind.ALTERED,
            Database.SEALS,
            f"height {height}",
        ),
        (
            drop(Database.SEALS, u64(height)),
            FindingKind.MISSING,
            Database.SEALS,
            f"height {height}",
        ),
        (
            flip(Database.BODIES, u64(body), 3),
            FindingKind.ALTERED,
            Database.BODIES,
            f"index {body}",
        ),
        (drop(Database.BODIES, u64(body)), FindingKind.MISSING, Database.BODIES, f"index {body}"),
        (flip(Database.STORE, b"tip", 40), FindingKind.ALTERED, Database.STORE, "tip"),
        (drop(Database.STORE, b"tip"), FindingKind.MISSING, Database.STORE, "tip"),
        (flip(Database.STORE, b"counts"), FindingKind.ALTERED, Database.STORE, "counts"),
        (drop(Database.STORE, b"counts"), FindingKind.MISSING, Database.STORE, "counts"),
    ]
    with fill(tmp_path) as store:
        for alter, kind, name, key in expected:
            findings = found(store, alter)
            assert (kind, str(name), key) in [(f.kind, f.table, f.key) for f in findings], findings


def test_a_flipped_body_of_a_submission_that_is_still_open_is_named(tmp_path: Path) -> None:
    """The open book is loaded from it: unnoticed, this node would net something else."""
    with fill(tmp_path) as store:
        with store.snapshot() as view:
            (opened,) = (tables.number_of(key) for key, _ in view.items(Table.OPEN))
            assert opened < history()[-1].first_index
        findings = found(store, flip(Database.BODIES, u64(opened), 60))
        assert [(f.kind, f.table, f.key) for f in findings] == [
            (FindingKind.ALTERED, "bodies", f"index {opened}")
        ]


def history_body(index: int) -> bytes:
    newest = history()[-1]
    return b"" if index < newest.first_index else newest.entries[index - newest.first_index].body


@pytest.mark.parametrize("table", [Table.POSITIONS, Table.OPEN, Table.META, Database.BODIES])
def test_rows_missing_or_surplus_are_noticed_without_a_replay(tmp_path: Path, table: Name) -> None:
    with fill(tmp_path) as store:
        for alter, kind in (
            (lambda writer: writer.clear(table), FindingKind.MISSING),
            (lambda writer: writer.put(table, b"\xff" * 8, b"x"), FindingKind.SURPLUS),
        ):
            named = [(f.kind, f.table) for f in found(store, alter)]
            assert (kind, str(table)) in named


def test_a_damaged_store_is_refused_with_its_findings_and_the_directory_is_free_again(
    tmp_path: Path,
) -> None:
    with fill(tmp_path) as store:
        environment = store._environment
        environment.write(
            0, lambda txn: flip(Database.LEAVES, u64(5))(Writer(txn, environment.databases))
        )
    for _ in range(2):
        with pytest.raises(StoreDamagedError, match=r"leaves\[index 5\]") as refused:
            open_checked(tmp_path, SETTINGS)
        assert refused.value.code is StoreCode.STORE_DAMAGED
        assert refused.value.fatal
        assert refused.value.findings[0].key == "index 5"


def test_a_store_without_its_tip_is_refused(tmp_path: Path) -> None:
    with fill(tmp_path) as store:
        assert [f.table for f in found(store, drop(Database.STORE, b"tip"))] == ["store"]


# -- the data file


def test_a_truncated_data_file_is_named_wherever_it_was_cut(tmp_path: Path) -> None:
    fill(tmp_path / "good").close()
    data = (tmp_path / "good" / "data.mdb").read_bytes()
    for cut in (1, 100, 4096, 5000, 8192, len(data) // 2, len(data) - 4096, len(data) - 1):
        (tmp_path / "good" / "data.mdb").write_bytes(data[:cut])
        with pytest.raises(StoreDamagedError, match=r"data\.mdb.*truncated"):
            open_checked(tmp_path / "good", SETTINGS)
    (tmp_path / "good" / "data.mdb").write_bytes(data)
    open_checked(tmp_path / "good", SETTINGS).close()


def test_an_emptied_data_file_of_a_node_that_signed_is_a_rollback(tmp_path: Path) -> None:
    with fill(tmp_path) as store:
        store.record_head("log", last())
    (tmp_path / "data.mdb").write_bytes(b"")
    with pytest.raises(RollbackDetectedError):
        open_checked(tmp_path, SETTINGS)


# -- rollback


def copy_of(directory: Path) -> Path:
    return Path(shutil.copytree(directory, directory.with_name(f"{directory.name}-old")))


def test_an_old_data_file_copied_back_is_a_rollback(tmp_path: Path) -> None:
    results = history()
    with fill(tmp_path / "s", results[:5]) as store:
        store.record_head("log", Head(results[4].log_size, results[4].log_root))
    old = copy_of(tmp_path / "s")
    with Store.open(tmp_path / "s", SETTINGS) as store:
        store.commit(*results[5:])
        store.record_head("log", last())
    shutil.copy(old / "data.mdb", tmp_path / "s" / "data.mdb")
    with pytest.raises(RollbackDetectedError, match="older") as refused:
        open_checked(tmp_path / "s", SETTINGS)
    assert refused.value.code is StoreCode.ROLLBACK_DETECTED
    # A replica may open it, catch up, and then sign again; not before.
    with open_checked(tmp_path / "s", SETTINGS, allow_rollback=True) as store:
        assert store.signed_head("log") == last()
        with pytest.raises(RollbackDetectedError):
            store.record_head("log", Head(results[4].log_size, results[4].log_root))
        store.commit(*results[5:])
        store.record_head("log", last())
    open_checked(tmp_path / "s", SETTINGS).close()


def test_a_database_restored_without_its_heads_file_is_a_rollback(tmp_path: Path) -> None:
    with fill(tmp_path / "s") as store:
        store.record_head("log", last())
        store.backup(tmp_path / "copy")
    with pytest.raises(RollbackDetectedError, match="signed-heads is gone"):
        open_checked(tmp_path / "copy", SETTINGS)


def test_a_file_behind_the_database_is_a_crash_between_the_two_and_no_rollback(
    tmp_path: Path,
) -> None:
    results = history()
    with fill(tmp_path) as store:
        store.record_head("log", Head(results[4].log_size, results[4].log_root))
        behind = (tmp_path / "signed-heads").read_bytes()
        store.record_head("log", last())
    (tmp_path / "signed-heads").write_bytes(behind)
    with open_checked(tmp_path, SETTINGS) as store:
        assert store.signed_head("log") == last()


def test_a_head_of_another_history_is_a_rollback(tmp_path: Path) -> None:
    with fill(tmp_path) as store:
        store.record_head("log", last())
    text = (tmp_path / "signed-heads").read_text()
    other = Head(last().size, bytes(32))
    write_heads(tmp_path, {"log": other})
    assert (tmp_path / "signed-heads").read_text() != text
    with pytest.raises(RollbackDetectedError, match="another history"):
        open_checked(tmp_path, SETTINGS)


def test_every_flipped_byte_of_the_heads_file_is_named(tmp_path: Path) -> None:
    with fill(tmp_path) as store:
        store.record_head("log", last())
    path = tmp_path / "signed-heads"
    good = path.read_bytes()
    for at in range(len(good)):
        for flipped in (good[at] ^ 0x01, good[at] ^ 0x80):
            path.write_bytes(good[:at] + bytes([flipped]) + good[at + 1 :])
            with pytest.raises(StoreDamagedError, match="signed-heads"):
                Store.open(tmp_path, SETTINGS)
    for broken in (b"", good[:-1], good + b"\n", good[: len(good) // 2]):
        path.write_bytes(broken)
        with pytest.raises(StoreDamagedError, match="signed-heads"):
            Store.open(tmp_path, SETTINGS)


# -- the state that was loaded


def test_a_loaded_state_is_compared_with_the_newest_seal(tmp_path: Path) -> None:
    with fill(tmp_path) as store:
        check_state(store, State.load(store))
        for table, key, at in (
            (Table.POSITIONS, None, 0),
            (Table.META, b"log", -1),
            (Table.META, b"head", 0),
        ):
            with undone(store) as writer:
                row = key or next(iter(writer.view.items(table)))[0]
                value = writer.view.raw(table, row) or b""
                flip(table, row, at % len(value))(writer)
                state = State.load(writer.view)
            with pytest.raises(StoreDamagedError, match=str(table)):
                check_state(store, state)


def test_an_empty_store_needs_no_state(tmp_path: Path) -> None:
    with Store.open(tmp_path, SETTINGS) as store:
        check_state(store, State.load(store))
