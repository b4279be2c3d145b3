"""Everything but leaves and bodies can be dropped and comes back byte for byte."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import pytest

from clearing.rows import Table
from clearing.state import State
from node.store import Head, ReplicaKind, Store, StoreDamagedError
from node.store.fsck import check_directory, check_store
from node.store.rebuild import rebuild
from node.store.replay import Replay, ReplayError, stored_blocks
from node.store.startup import check_state, check_tail, open_checked
from node.store.tables import Database, Name, u64
from node.store.writer import Writer
from tests.node.store.store_kit import SETTINGS, dump, fill, history, leaf_block, undone

DERIVED: tuple[Name, ...] = (*Table, Database.NODES, Database.SEALS)


def alter(store: Store, names: Iterable[Name], *, keep: int = 0) -> None:
    """Empty tables, but for their first `keep` records."""

    def work(writer: Writer) -> None:
        for name in names:
            kept = list(itertools.islice(writer.view.items(name), keep))
            writer.clear(name)
            writer.insert(name, kept)

    environment = store._environment
    environment.write(0, lambda txn: work(Writer(txn, environment.databases)))


@pytest.mark.parametrize(
    "names", [[name] for name in DERIVED] + [DERIVED, [*DERIVED, Database.STORE]]
)
@pytest.mark.parametrize("keep", [0, 1])
def test_dropped_tables_come_back_byte_for_byte(
    tmp_path: Path, names: list[Name], keep: int
) -> None:
    with fill(tmp_path) as store:
        with store.snapshot() as view:
            before = dump(view)
            size = view.count(Database.STORE)
        tip = store.tip
        alter(store, [name for name in names if name is not Database.STORE], keep=keep)
        if Database.STORE in names:
            environment = store._environment
            environment.write(
                0, lambda txn: Writer(txn, environment.databases).delete(Database.STORE, b"tip")
            )
        assert rebuild(store, ReplicaKind.FULL) == tip == store.tip
        with store.snapshot() as view:
            assert dump(view) == before
            assert view.count(Database.STORE) == size
        check_tail(store)
        check_state(store, State.load(store))


def test_a_witness_rebuilds_what_follows_from_its_leaves(tmp_path: Path) -> None:
    with Store.open(tmp_path, SETTINGS) as store:
        store.append(*map(leaf_block, history()))
        with store.snapshot() as view:
            before = dump(view)
        alter(store, [Database.NODES, Database.SEALS])
        stages: list[str] = []
        rebuild(store, ReplicaKind.WITNESS, lambda stage, *_: stages.append(stage))
        assert set(stages) == {"leaves"}
        with store.snapshot() as view:
            assert dump(view) == before
        assert not any(finding.is_damage for finding in check_store(store))


def test_a_rebuilt_store_goes_on(tmp_path: Path) -> None:
    results = history()
    with fill(tmp_path, results[:6]) as store:
        alter(store, DERIVED)
        rebuild(store, ReplicaKind.FULL)
        store.commit(*results[6:])
        assert check_store(store) == []


def broken(store: Store, name: Name, key: bytes, value: bytes | None) -> None:
    environment = store._environment

    def work(writer: Writer) -> None:
        if value is None:
            writer.delete(name, key)
        else:
            writer.put(name, key, value)

    environment.write(0, lambda txn: work(Writer(txn, environment.databases)))


def test_damaged_leaves_and_bodies_are_refused_by_name_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    body = next(
        index
        for result in history()
        for index, entry in enumerate(result.entries, result.first_index)
        if entry.body and not entry.public
    )
    damages: list[tuple[Name, int, bytes | None, str]] = [
        (Database.LEAVES, 3, None, "leaf 3"),
        (Database.LEAVES, 3, b"\1\x63 no leaf of ours", "leaf 3"),
        (Database.LEAVES, history()[-1].log_size - 1, None, "leaves"),
        (Database.BODIES, body, None, f"leaf {body}"),
        (Database.BODIES, body, b"other", f"leaf {body}"),
    ]
    for number, (name, index, value, named) in enumerate(damages):
        with fill(tmp_path / str(number)) as store:
            broken(store, name, u64(index), value)
            with store.snapshot() as view:
                before = dump(view)
            with pytest.raises(StoreDamagedError, match=named):
                rebuild(store, ReplicaKind.FULL)
            with store.snapshot() as view:
                assert dump(view) == before


def test_leaves_other_than_those_signed_are_not_built_on(tmp_path: Path) -> None:
    """A witness cannot replay; its own signature still tells that a leaf was altered."""
    with Store.open(tmp_path, SETTINGS) as store:
        store.append(*map(leaf_block, history()))
        store.record_head("cosigner", Head(history()[-1].log_size, history()[-1].log_root))
        leaf = store.leaf(2)
        broken(store, Database.LEAVES, u64(2), leaf[:-1] + bytes([leaf[-1] ^ 1]))
        with pytest.raises(StoreDamagedError, match="cosigner has signed"):
            rebuild(store, ReplicaKind.WITNESS)


def test_a_broken_tip_is_found_takes_no_block_and_comes_back(tmp_path: Path) -> None:
    results = history()
    with fill(tmp_path, results[:-1]) as store:
        tip = store.tip
        broken(store, Database.STORE, b"tip", b"broken")
        broken(store, Database.STORE, b"counts", None)
        broken(store, Database.SEALS, u64(1), b"broken")
    with pytest.raises(StoreDamagedError, match=r"store\[tip\]"):
        open_checked(tmp_path, SETTINGS)
    assert ("store", "tip") in {(f.table, f.key) for f in check_directory(tmp_path)}
    with Store.open(tmp_path, SETTINGS) as store:
        assert store.tip is None
        with pytest.raises(StoreDamagedError, match=r"store\[tip\]"):
            store.commit(results[-1])
        assert rebuild(store, ReplicaKind.FULL) == tip == store.tip
        store.commit(results[-1])
    assert check_directory(tmp_path) == []


def test_an_empty_log_has_nothing_to_rebuild_from(tmp_path: Path) -> None:
    with Store.open(tmp_path, SETTINGS) as store, pytest.raises(StoreDamagedError, match="SEAL"):
        rebuild(store, ReplicaKind.FULL)


def test_a_replay_gives_the_blocks_as_they_were(tmp_path: Path) -> None:
    with fill(tmp_path) as store, store.snapshot() as view:
        size = history()[-1].log_size
        replayed = list(Replay(view, size).run())
        assert [result for _, result in replayed] != []
        for (block, result), original in zip(replayed, history(), strict=True):
            assert (block.height, block.first_index) == (original.height, original.first_index)
            assert (result.entries, result.delta.rows) == (original.entries, original.delta.rows)
        assert [block.end for block in stored_blocks(view, size)] == [r.log_size for r in history()]


def test_a_replay_names_the_block_where_it_stops(tmp_path: Path) -> None:
    with fill(tmp_path) as store, undone(store) as writer:
        writer.delete(Database.LEAVES, u64(4))
        replay = Replay(writer.view, history()[-1].log_size)
        with pytest.raises(ReplayError, match="leaf 4") as stopped:
            list(replay.run())
        assert stopped.value.first_index <= 4
        assert replay.state.height == stopped.value.height - 1
