"""What is written is there, whole, once, and reads as the core's contract says."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from clearing.errors import DecodeError, VerificationError
from clearing.ledger import BlockResult
from clearing.log import merkle
from clearing.memory import MemoryStore
from clearing.rows import Table
from clearing.state import State
from node.store import (
    ForkDetectedError,
    Head,
    LeafBlock,
    ReplicaKind,
    RollbackDetectedError,
    Store,
    StoreConflictError,
    Tip,
)
from node.store.fsck import check_store
from node.store.heads import read_heads
from node.store.store import _SCAN_PAGE_ROWS
from tests.clearing.log.support import naive_root
from tests.ledger_kit import P01, P02, Net, item
from tests.node.store.store_kit import SETTINGS, dump, fill, final_note, history, leaf_block


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with fill(tmp_path / "s") as filled:
        yield filled


def memory() -> MemoryStore:
    kept = MemoryStore()
    kept.commit(*history())
    return kept


# -- reading what was committed


def test_every_read_answers_as_the_store_in_memory_does(store: Store) -> None:
    kept = memory()
    with store.snapshot() as view:
        for table in Table:
            rows = list(kept.scan(table))
            assert list(store.scan(table)) == list(view.scan(table)) == rows
            for key, value in rows:
                assert store.get(table, key) == view.get(table, key) == value
                assert list(view.scan(table, prefix=key[:4])) == list(kept.scan(table, key[:4]))
                assert list(store.scan(table, start=key)) == list(kept.scan(table, start=key))
            assert store.get(table, b"no such key") is None
        for index in range(kept.log_size):
            entry = kept.entry(index)
            assert store.leaf(index) == entry.leaf
            assert store.body(index) == (entry.body or None)
            assert view.record(index).body == entry.body
            assert view.record(index).public is (entry.public and bool(entry.body))
    assert len({table for table in Table if list(store.scan(table))}) >= len(Table) - 12


def test_tip_and_state_are_those_of_the_newest_block(store: Store) -> None:
    newest = history()[-1]
    expected = store_tip(newest)
    with store.snapshot() as view:
        assert store.tip == view.tip == expected
        state = State.load(view)
    assert (state.height, state.log.root, state.state_root) == (
        newest.height,
        newest.log_root,
        newest.state_root,
    )


def test_nodes_give_every_root_and_proof(store: Store) -> None:
    size = history()[-1].log_size
    hashes = [merkle.leaf_hash(store.leaf(index)) for index in range(size)]
    with store.snapshot() as view:
        for part in range(1, size + 1):
            assert view.root(part) == naive_root(hashes[:part])
        for index in range(size):
            path = merkle.inclusion_proof(index, size, store)
            merkle.verify_inclusion(hashes[index], index, size, path, view.root(size))


@pytest.mark.parametrize("index", [-1, 10_000, 1 << 64])
def test_what_is_not_there_is_said_so(store: Store, index: int) -> None:
    with store.snapshot() as view:
        with pytest.raises(KeyError, match="no leaf"):
            view.leaf(index)
        with pytest.raises(KeyError, match="no block"):
            view.block_range(index)
        with pytest.raises(KeyError, match="no leaf"):
            view.height_of(index)
        with pytest.raises(VerificationError, match="no node"):
            view.node(0, index)
        with pytest.raises(VerificationError, match="no node"):
            view.node(index, 0)
        assert view.body(index) is None
        assert view.checkpoint(index) is None


def test_blocks_are_found_by_height_and_by_leaf(store: Store) -> None:
    with store.snapshot() as view:
        for result in history():
            end = result.first_index + len(result.entries)
            assert view.block_range(result.height) == (result.first_index, end)
            leaves = view.entries(result.first_index, len(result.entries))
            assert leaves == [entry.leaf for entry in result.entries]
            for index in range(result.first_index, end):
                assert view.height_of(index) == result.height


def test_a_long_scan_of_the_store_goes_on_over_its_pages(tmp_path: Path) -> None:
    net = Net()
    first, rest = net.results[0], 2 * _SCAN_PAGE_ROWS
    row = first.delta.rows[0]
    rows = tuple(
        dataclasses.replace(row, table=Table.PARTIES, key=bytes([7]) + number.to_bytes(4, "big"))
        for number in range(rest)
    )
    delta = dataclasses.replace(first.delta, rows=rows)
    with fill(tmp_path, [dataclasses.replace(first, delta=delta)]) as store:
        assert [key for key, _ in store.scan(Table.PARTIES)] == [row.key for row in rows]
        assert len(list(store.scan(Table.PARTIES, start=rows[5].key))) == rest - 5
        assert not list(store.scan(Table.PARTIES, prefix=b"\x08"))


def test_a_snapshot_stays_at_its_height_while_blocks_are_committed(tmp_path: Path) -> None:
    results = history()
    with fill(tmp_path, results[:4]) as store, store.snapshot() as view:
        before = dump(view)
        store.commit(*results[4:])
        assert dump(view) == before
        assert view.tip == store_tip(results[3])
        assert store.tip == store_tip(results[-1])


def store_tip(result: BlockResult) -> Tip:
    return Tip(
        ReplicaKind.FULL,
        result.height,
        result.time_ms,
        result.log_size,
        result.log_root,
        result.state_root,
    )


def test_committing_one_by_one_or_all_at_once_leaves_the_same_records(tmp_path: Path) -> None:
    with fill(tmp_path / "a") as at_once, Store.open(tmp_path / "b", SETTINGS) as one_by_one:
        for result in history():
            one_by_one.commit(result)
        with at_once.snapshot() as left, one_by_one.snapshot() as right:
            assert dump(left) == dump(right)


def test_a_store_opened_again_has_everything(tmp_path: Path) -> None:
    with fill(tmp_path) as store, store.snapshot() as view:
        before = dump(view)
    with Store.open(tmp_path, SETTINGS, create=False) as store, store.snapshot() as view:
        assert dump(view) == before


def test_a_block_that_changed_nothing_is_passed_over(store: Store) -> None:
    before = store.tip
    last = history()[-1]
    store.commit(dataclasses.replace(last, height=last.height + 1, entries=(), nodes=()))
    assert store.tip == before


# -- what does not follow is refused whole


def test_a_gap_a_repetition_and_time_running_backwards_are_refused(tmp_path: Path) -> None:
    results = history()
    early = dataclasses.replace(results[3], time_ms=0)
    with fill(tmp_path, results[:3]) as store:
        with store.snapshot() as view:
            before = dump(view)
        for bad in (results[2], results[4], early):
            with pytest.raises(StoreConflictError, match="nothing was written"):
                store.commit(bad)
        # A good block before a bad one is undone with it: they are one transaction.
        with pytest.raises(StoreConflictError, match="nothing was written"):
            store.commit(results[3], results[5])
        with store.snapshot() as view:
            assert dump(view) == before
        store.commit(*results[3:])
        assert store.tip == store_tip(results[-1])


def test_nodes_that_are_missing_or_exist_already_are_refused(tmp_path: Path) -> None:
    results = history()
    with fill(tmp_path, results[:3]) as store:
        short = dataclasses.replace(results[3], nodes=results[3].nodes[:-1])
        again = dataclasses.replace(results[3], nodes=results[2].nodes)
        for bad in (short, again):
            with pytest.raises(StoreConflictError, match="nothing was written"):
                store.commit(bad)
        store.commit(results[3])


def test_a_ledger_record_is_never_replaced(store: Store) -> None:
    """A leaf is there that the tip does not know of: damage, and nothing to be overwritten."""
    with store.snapshot() as view:
        before = dump(view)
    last = history()[-1]
    environment = store._environment
    with environment._env.begin(write=True) as txn:
        key = last.log_size.to_bytes(8, "big")
        txn.put(key, b"a leaf from nowhere", db=environment.databases["leaves"])
    follower = Net()
    follower.store, follower.state = memory(), State.load(memory())
    follower.time_ms, follower.serial = last.time_ms, 10_000
    result = follower.block(follower.submission(P01, item(P01, P02, 1)))
    with pytest.raises(StoreConflictError, match=r"leaves\[index \d+\] is not a new record"):
        store.commit(result)
    with store.snapshot() as view:
        after = dump(view)
    assert after.pop("leaves")[:-1] == before.pop("leaves")
    assert after == before


# -- witnesses


def test_a_witness_keeps_leaves_nodes_and_the_bodies_it_may_see(tmp_path: Path) -> None:
    results = history()
    submission = next(
        i for r in results for i, e in enumerate(r.entries, r.first_index) if e.leaf[1] == 2
    )
    blocks = [leaf_block(result, withhold=[submission]) for result in results]
    with Store.open(tmp_path, SETTINGS) as witness:
        witness.append(*blocks[:2])
        witness.append(*blocks[2:])
        kept = memory()
        assert witness.tip == dataclasses.replace(store_tip(results[-1]), kind=ReplicaKind.WITNESS)
        for index in range(kept.log_size):
            assert witness.leaf(index) == kept.leaf(index)
            assert witness.body(index) == (None if index == submission else kept.body(index))
        assert not any(list(witness.scan(table)) for table in Table)
        with witness.snapshot() as view:
            assert view.root(results[-1].log_size) == results[-1].log_root


def test_a_witness_keeps_a_redacted_body_beside_its_leaf(tmp_path: Path) -> None:
    block = leaf_block(history()[0])
    redacted = dataclasses.replace(block.records[0], body=b"", public=False, redacted=b"redacted")
    with Store.open(tmp_path, SETTINGS) as witness:
        witness.append(dataclasses.replace(block, records=(redacted, *block.records[1:])))
        with witness.snapshot() as view:
            assert view.record(0) == redacted
        assert witness.body(0) is None


def test_a_store_is_of_one_kind(tmp_path: Path, store: Store) -> None:
    results = history()
    with Store.open(tmp_path / "w", SETTINGS) as witness:
        witness.append(leaf_block(results[0]))
        with pytest.raises(StoreConflictError, match="WITNESS replica"):
            witness.commit(results[1])
    with fill(tmp_path / "f", results[:1]) as full, pytest.raises(StoreConflictError, match="FULL"):
        full.append(leaf_block(results[1]))


def test_a_witness_takes_no_block_without_its_seal(tmp_path: Path) -> None:
    block = leaf_block(history()[0])
    with Store.open(tmp_path, SETTINGS) as witness:
        with pytest.raises(DecodeError, match="SEAL"):
            witness.append(dataclasses.replace(block, records=block.records[:-1]))
        with pytest.raises(DecodeError, match="SEAL"):
            witness.append(LeafBlock((), (), bytes(32)))
        assert witness.tip is None


# -- signed heads


def heads_of(*numbers: int) -> list[Head]:
    return [Head(history()[n].log_size, history()[n].log_root) for n in numbers]


def test_heads_are_recorded_in_database_and_file_and_never_go_back(store: Store) -> None:
    older, newer = heads_of(3, 5)
    store.record_head("log", older)
    store.record_head("log", older)
    store.record_head("log", newer)
    assert store.signed_head("log") == newer
    assert store.signed_head("cosigner") is None
    with pytest.raises(RollbackDetectedError, match="signed"):
        store.record_head("log", older)
    store.record_head("cosigner", older)
    with store.snapshot() as view:
        assert view.heads() == {"log": newer, "cosigner": older}
    assert newer.root.hex() in (store.directory / "signed-heads").read_text()


def test_heads_recorded_by_several_threads_all_reach_the_file(store: Store) -> None:
    names = ["ledger.example/clearing", "w.example/w1", "bank.example/ключ"]
    heads = heads_of(*range(2, len(history())))

    def record(name: str) -> None:
        for head in heads:
            store.record_head(name, head)

    threads = [threading.Thread(target=record, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_heads(store.directory) == dict.fromkeys(names, heads[-1])
    with store.snapshot() as view:
        assert view.heads() == dict.fromkeys(names, heads[-1])
    assert check_store(store) == []


def test_two_roots_at_one_size_are_never_recorded(store: Store) -> None:
    (head,) = heads_of(-1)
    with pytest.raises(ForkDetectedError, match="to be signed"):
        store.record_head("log", Head(head.size, bytes(32)))
    store.record_head("log", head)
    with pytest.raises(ForkDetectedError):
        store.record_head("log", Head(head.size, b"\1" * 32))
    with pytest.raises(RollbackDetectedError, match="does not reach"):
        store.record_head("log", Head(head.size + 1, bytes(32)))
    assert store.signed_head("log") == head


def test_a_store_behind_its_own_signature_signs_only_once_it_caught_up(tmp_path: Path) -> None:
    results = history()
    with fill(tmp_path) as store:
        store.record_head("log", heads_of(-1)[0])
    (tmp_path / "data.mdb").unlink()
    with fill(tmp_path, results[:5]) as store:
        assert store.signed_head("log") == heads_of(-1)[0]
        with pytest.raises(RollbackDetectedError, match="signed"):
            store.record_head("log", heads_of(4)[0])
        store.commit(*results[5:])
        store.record_head("log", heads_of(-1)[0])


def test_a_store_with_another_history_than_it_signed_never_signs(tmp_path: Path) -> None:
    with fill(tmp_path) as store:
        store.record_head("log", heads_of(2)[0])
    (tmp_path / "data.mdb").unlink()
    other = Net(cut_offs_s=(3600,))
    for _ in range(8):
        other.submit(P01, item(P01, P02, 1))
    with (
        fill(tmp_path, other.results) as store,
        pytest.raises(ForkDetectedError, match="signed before"),
    ):
        store.record_head("log", Head(other.state.log_size, other.state.log.root))


# -- checkpoints and cosignatures


def test_checkpoints_are_found_by_size_and_kept_once(store: Store) -> None:
    notes = {head.size: final_note(head.size, head.root) for head in heads_of(2, 4, 6)}
    for size, note in notes.items():
        store.add_checkpoint(size, note)
        store.add_checkpoint(size, note)
    small, middle, large = notes
    with store.snapshot() as view:
        assert view.latest_checkpoint() == (large, notes[large])
        assert view.checkpoint(middle) == notes[middle]
        assert view.checkpoint(middle + 1) is None
        assert view.checkpoint_covering(0) == (small, notes[small])
        assert view.checkpoint_covering(small + 1) == (middle, notes[middle])
        assert view.checkpoint_covering(large + 1) is None
    with pytest.raises(StoreConflictError, match=rf"checkpoints\[size {small}\] exists"):
        store.add_checkpoint(small, notes[middle])


def test_an_empty_store_has_no_checkpoint(tmp_path: Path) -> None:
    with Store.open(tmp_path, SETTINGS) as store, store.snapshot() as view:
        assert view.latest_checkpoint() is None
        assert view.checkpoint_covering(0) is None
        assert view.tip is None
        assert view.cosignatures(0) == []


def test_cosignatures_are_collected_by_key_and_forgotten_below_a_size(store: Store) -> None:
    store.add_cosignature(7, b"\1\2\3\4", "w/1", b"first")
    store.add_cosignature(7, b"\1\2\3\4", "w/1", b"newer")
    store.add_cosignature(7, b"\0\2\3\4", "w/2", b"other")
    store.add_cosignature(9, b"\1\2\3\4", "w/1", b"later")
    with store.snapshot() as view:
        assert view.cosignatures(7) == [b"other", b"newer"]
        assert view.cosignatures(8) == []
    assert store.drop_cosignatures(9) == 2
    assert store.drop_cosignatures(9) == 0
    with store.snapshot() as view:
        assert view.cosignatures(7) == []
        assert view.cosignatures(9) == [b"later"]


# -- many threads


def test_readers_in_many_threads_see_whole_blocks_only(tmp_path: Path) -> None:
    results = history()
    tips = {result.log_size: result.log_root for result in results}
    failures: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.wait(0.002):
            with store.snapshot() as view:
                tip = view.tip
                if tip is None or tips.get(tip.log_size) != view.root(tip.log_size):
                    failures.append(str(tip))

    with fill(tmp_path, results[:1]) as store:
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for result in results[1:]:
            store.commit(result)
        done.set()
        for thread in threads:
            thread.join()
    assert not failures


def test_a_backup_is_a_store_of_its_own(tmp_path: Path, store: Store) -> None:
    store.record_head("log", heads_of(-1)[0])
    store.backup(tmp_path / "copy")
    with store.snapshot() as view:
        before = dump(view)
    with Store.open(tmp_path / "copy", SETTINGS) as copy, copy.snapshot() as view:
        assert dump(view) == before
