"""Key layouts and guarded records."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError
from clearing.log import merkle
from clearing.rows import Table, key_party, key_position, key_request, key_u64
from node.store import tables
from node.store.tables import Database, Head, ReplicaKind, Tip


def test_positions_of_nodes_are_the_order_in_which_an_appended_log_completes_them() -> None:
    log = merkle.CompactRange()
    order = []
    for number in range(300):
        log, nodes = log.append_many([merkle.leaf_hash(str(number).encode())])
        order += [(level, index) for level, index, _ in nodes]
    assert [tables.node_position(*node) for node in order] == list(range(len(order)))
    assert len(order) == tables.node_count(300)
    assert [tables.node_at(position) for position in range(len(order))] == order


@given(st.integers(0, (1 << 64) - 2))
def test_a_position_names_one_node(position: int) -> None:
    level, index = tables.node_at(position)
    assert level >= 0
    assert index >= 0
    assert tables.node_position(level, index) == position


@given(st.integers(0, 1 << 62))
def test_one_more_leaf_completes_as_many_nodes_as_it_has_trailing_ones(size: int) -> None:
    trailing_ones = ((size + 1) & -(size + 1)).bit_length() - 1
    assert tables.node_count(size + 1) - tables.node_count(size) == trailing_ones + 1


@given(st.sampled_from(list(Database)), st.binary(max_size=40), st.binary(max_size=80), st.data())
def test_a_guard_notices_every_changed_byte_and_every_other_place(
    name: Database, key: bytes, payload: bytes, data: st.DataObject
) -> None:
    value = tables.guarded(name, key, payload)
    assert tables.unguarded(name, key, value) == payload
    at = data.draw(st.integers(0, len(value) - 1))
    flip = data.draw(st.integers(1, 255))
    flipped = value[:at] + bytes([value[at] ^ flip]) + value[at + 1 :]
    other = Database.HEADS if name is not Database.HEADS else Database.STORE
    for broken in ((name, key, flipped), (name, key + b"\0", value), (other, key, value)):
        with pytest.raises(DecodeError, match="guard"):
            tables.unguarded(*broken)
    with pytest.raises(DecodeError, match="guard"):
        tables.unguarded(name, key, value[:7])


def test_own_records_round_trip() -> None:
    tip = Tip(ReplicaKind.WITNESS, 7, 1_700_000_000_000, 19, b"\1" * 32, b"\2" * 32)
    assert Tip.decode(tip.encode()) == tip
    head = Head(19, b"\3" * 32)
    assert Head.decode(head.encode()) == head
    counts = {name: number for number, name in enumerate(tables.COUNTED)}
    assert tables.decode_counts(tables.encode_counts(counts)) == counts
    assert tables.decode_schema(tables.encode_schema()) == tables.SCHEMA_VERSION


def test_a_tip_of_an_unknown_kind_of_replica_is_refused() -> None:
    data = Tip(ReplicaKind.FULL, 0, 0, 2, bytes(32), bytes(32)).encode()
    with pytest.raises(DecodeError, match="kind"):
        Tip.decode(b"\3" + data[1:])


@pytest.mark.parametrize(
    ("name", "key", "text"),
    [
        (Table.META, b"head", "head"),
        (Table.POSITIONS, key_position(4, 2), "participant 4, asset 2"),
        (Table.PARTIES, key_party(4, 300), "participant 4, log index 300"),
        (Table.SUBMISSIONS, key_u64(5), "log index 5"),
        (Table.REQUESTS, key_request(3, b"\xab" * 16), f"actor 3, client id {'ab' * 16}"),
        (Database.LEAVES, key_u64(17), "index 17"),
        (Database.NODES, key_u64(2), "level 1 index 0"),
        (Database.SEALS, key_u64(8), "height 8"),
        (
            Database.COSIGNATURES,
            tables.cosignature_key(9, b"\1\2\3\4", "w.example/a"),
            "size 9, w.example/a+01020304",
        ),
        (Table.POSITIONS, b"\1\2", "0x0102"),
        (Database.LEAVES, b"", "0x"),
        (Table.META, b"\xff", "\\xff"),
        (Database.COSIGNATURES, b"short", "0x73686f7274"),
    ],
)
def test_findings_name_keys_in_words(name: tables.Name, key: bytes, text: str) -> None:
    assert tables.key_text(name, key) == text


def test_every_table_has_a_database_of_its_own() -> None:
    names = [str(name) for name in tables.ALL]
    assert len(set(names)) == len(names) == len(Table) + len(Database)
    assert set(tables.COUNTED) <= set(tables.ALL)
    assert set(Table) <= set(tables.COUNTED)
