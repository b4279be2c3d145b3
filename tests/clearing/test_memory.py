"""The store in memory keeps the contract of rows.py."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import InvariantViolation, VerificationError
from clearing.log import merkle
from clearing.memory import MemoryRows, MemoryStore
from clearing.rows import Row, Table
from clearing.state import State
from tests.ledger_kit import P01, P02, Net, item

SOME_TABLES = (Table.META, Table.OPEN, Table.POSITIONS)
KEYS = st.binary(max_size=3)
ROWS = st.builds(
    Row, st.sampled_from(SOME_TABLES), KEYS, st.one_of(st.none(), st.binary(max_size=3))
)


@given(st.lists(st.lists(ROWS, max_size=8), max_size=8), KEYS, KEYS)
def test_rows_are_those_of_plain_dictionaries(
    blocks: list[list[Row]], prefix: bytes, start: bytes
) -> None:
    kept = MemoryRows()
    naive: dict[Table, dict[bytes, bytes]] = {table: {} for table in Table}
    for rows in blocks:
        kept.apply_rows(rows)
        for row in rows:
            if row.value is None:
                naive[row.table].pop(row.key, None)
            else:
                naive[row.table][row.key] = row.value
    for table in Table:
        expected = sorted(naive[table].items())
        assert list(kept.scan(table)) == expected
        assert kept.count(table) == len(expected)
        matching = [(k, v) for k, v in expected if k.startswith(prefix) and k >= start]
        assert list(kept.scan(table, prefix, start)) == matching
        assert kept.get(table, prefix) == naive[table].get(prefix)


def test_a_scan_shows_the_rows_of_the_moment_it_was_asked() -> None:
    kept = MemoryRows()
    kept.apply_rows([Row(Table.META, bytes([n]), b"old") for n in range(4)])
    scan = kept.scan(Table.META)
    kept.apply_rows([Row(Table.META, b"\1", None), Row(Table.META, b"\2", b"new")])
    assert list(scan) == [(bytes([n]), b"old") for n in range(4)]


def small_net() -> Net:
    net = Net()
    net.affirm(P02, net.submit(P01, item(P01, P02, 5), item(P02, P01, 3)))
    net.run_cycle()
    return net


def test_leaves_bodies_nodes_and_blocks_are_those_of_the_results() -> None:
    net = small_net()
    for result in net.results:
        assert net.store.entries_of(result.height) == result.entries
        for index, entry in enumerate(result.entries, result.first_index):
            assert net.store.leaf(index) == entry.leaf
            assert net.store.body(index) == (entry.body or None)
        for level, index, value in result.nodes:
            assert net.store.node(level, index) == value
    newest = net.results[-1]
    assert (net.store.height, net.store.log_size) == (newest.height, newest.log_size)
    assert merkle.CompactRange.read(newest.log_size, net.store).root == newest.log_root


def test_a_state_loaded_from_it_is_the_one_that_wrote_it() -> None:
    net = small_net()
    loaded = State.load(net.store)
    for name in ("height", "time_ms", "log", "state_root", "network_id", "open_items"):
        assert getattr(loaded, name) == getattr(net.state, name)


@pytest.mark.parametrize("number", [-1, 10_000, 1 << 70])
def test_what_is_not_there_is_said_so(number: int) -> None:
    store = small_net().store
    for ask in (store.leaf, store.entry, store.entries_of):
        with pytest.raises(KeyError, match="no "):
            ask(number)
    with pytest.raises(VerificationError, match="no node"):
        store.node(0, number)
    assert store.body(number) is None


def test_a_gap_or_a_repetition_is_refused_and_changes_nothing() -> None:
    results = small_net().results
    store = MemoryStore()
    store.commit(results[0])
    for bad in (results[0], results[2], dataclasses.replace(results[1], first_index=7)):
        with pytest.raises(InvariantViolation):
            store.commit(bad)
    assert store.log_size == results[0].log_size
    store.commit(*results[1:])
    assert store.log_size == results[-1].log_size


def test_a_block_that_changed_nothing_is_passed_over() -> None:
    net = small_net()
    empty = dataclasses.replace(net.results[-1], height=99, entries=())
    net.store.commit(empty)
    assert net.store.height == net.results[-1].height
