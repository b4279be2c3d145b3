"""State: what loading, advancing and drafting remember, and that history costs nothing at start-up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing import ledger
from clearing.errors import DecodeError, InvariantViolation
from clearing.memory import MemoryStore
from clearing.params import Parameters
from clearing.records.submission import Submission
from clearing.rows import NoRows, Row, Table, changes_hash, key_party, key_u32, key_u64
from clearing.rules.positions import Position
from clearing.rules.registry import Action, ActionKind
from clearing.state import Draft, State
from tests.clearing.core_kit import Core, dump
from tests.clearing.records.vectors import VECTORS
from tests.clearing.test_golden import run_scenario
from tests.ledger_kit import BTC, ETH, GENESIS_MS, P01, P02, P03, Net, item


def _replayed(net: Net) -> Iterator[tuple[MemoryStore, State, ledger.BlockResult]]:
    """Yield a store and the state advanced along with it before each block after genesis, and that block's result."""
    store = MemoryStore()
    store.commit(net.results[0])
    live = State.load(store)
    for result in net.results[1:]:
        yield store, live, result
        own = ledger.apply(live, ledger.block_of_entries(result.entries))
        store.commit(own)
        live.advance(own.delta)


def test_an_empty_store_is_the_state_before_genesis() -> None:
    state = State.load(NoRows())
    assert (state.height, state.log_size, state.last_cycle) == (-1, 0, 0)
    assert state.registry.participants == ()
    assert dump(state) == dump(State(NoRows()))


def test_loading_gives_the_state_that_was_advanced_to_after_every_block() -> None:
    for store, live, result in _replayed(run_scenario()):
        loaded = State.load(store)
        assert dump(loaded) == dump(live)
        block = ledger.block_of_entries(result.entries)
        again = ledger.apply(loaded, block)
        assert again.entries == result.entries
        assert again.delta.rows == result.delta.rows
        assert (again.log_root, again.state_root) == (result.log_root, result.state_root)


def test_applying_changes_neither_the_state_nor_the_next_answer() -> None:
    for _, live, result in _replayed(run_scenario()):
        before = dump(live)
        block = ledger.block_of_entries(result.entries)
        first, second = ledger.apply(live, block), ledger.apply(live, block)
        assert dump(live) == before
        for name in ("outcomes", "entries", "nodes", "log_size", "log_root", "state_root"):
            assert getattr(first, name) == getattr(second, name)
        assert first.delta.rows == second.delta.rows


def test_rows_are_written_once_each_in_order_of_table_and_key() -> None:
    for result in run_scenario().results:
        keys = [(row.table, row.key) for row in result.delta.rows]
        assert keys == sorted(set(keys))


def test_a_block_writes_the_positions_it_touches_however_many_there_are() -> None:
    net = Core()
    for asset in range(3):
        for debtor, creditor in ((P01, P02), (P02, P03), (P03, P01)):
            net.affirmed(debtor, creditor, item(debtor, creditor, 5, asset))
    index = net.submit(P01, item(P01, P02, 5, ETH))
    net.affirm(P02, index)
    rows = [row for row in net.results[-1].delta.rows if row.table is Table.POSITIONS]
    touched = [Position.decode(row.value) for row in rows]
    assert [(each.participant, each.asset) for each in touched] == [(P01, ETH), (P02, ETH)]
    assert net.store.count(Table.POSITIONS) == 9


def test_only_the_bodies_of_open_submissions_are_read_at_start_up() -> None:
    net = Core()
    for _ in range(5):
        net.affirmed(P01, P02, item(P01, P02, 5), item(P02, P01, 5))
        net.run_cycle()
    still_open = net.submit(P01, item(P01, P02, 5))
    read = []

    class Watched(MemoryStore):
        def body(self, index: int) -> bytes | None:
            read.append(index)
            return super().body(index)

    watched = Watched()
    watched.commit(*net.results)
    state = State.load(watched)
    assert read == [still_open]
    assert dump(state) == dump(net.state)


def test_a_store_without_an_open_body_is_refused() -> None:
    net = Core()
    index = net.submit(P01, item(P01, P02, 5))

    class Bodiless(MemoryStore):
        def body(self, _: int) -> None:
            return None

    store = Bodiless()
    store.commit(*net.results)
    with pytest.raises(InvariantViolation, match=f"submission {index} has no state row or no body"):
        State.load(store)


@pytest.mark.parametrize(
    "table", [Table.META, Table.PARTICIPANTS, Table.ASSETS, Table.PARAMETERS, Table.SUBMISSIONS]
)
def test_a_row_that_is_not_canonical_is_refused(table: Table) -> None:
    net = Core()
    net.submit(P01, item(P01, P02, 5))
    key, value = next(iter(net.store.scan(table)))
    net.store.apply_rows([Row(table, key, value[:-1])])
    with pytest.raises((DecodeError, InvariantViolation)):
        State.load(net.store)


def test_missing_parameters_and_cycles_are_refused() -> None:
    net = Core()
    net.affirmed(P01, P02, item(P01, P02, 5))
    net.run_cycle()
    lost = net.store.get(Table.CYCLES, key_u32(1))
    net.store.apply_rows([Row(Table.CYCLES, key_u32(1), None)])
    with pytest.raises(InvariantViolation, match="an unsettled cycle has no row"):
        State.load(net.store)
    net.store.apply_rows(
        [Row(Table.CYCLES, key_u32(1), lost), Row(Table.PARAMETERS, b"timetable", None)]
    )
    with pytest.raises(InvariantViolation, match="the parameters are missing"):
        State.load(net.store)
    for edge in (None, b"", net.store.get(Table.META, b"log")[:-1]):
        net.store.apply_rows([Row(Table.META, b"log", edge)])
        with pytest.raises(InvariantViolation, match="edge is missing or cut short"):
            State.load(net.store)


def test_an_empty_delta_moves_nothing() -> None:
    net = Core()
    net.submit(P01, item(P01, P02, 5))
    before = dump(net.state)
    result = ledger.apply(net.state, ledger.Block(net.state.height + 1, net.time_ms + 5_000, ()))
    assert result.delta.rows == ()
    net.state.advance(result.delta)
    assert dump(net.state) == before


def test_the_changes_hash_is_the_pinned_one_and_leaves_meta_out() -> None:
    pinned = VECTORS["hashes"]["changes_hash"]
    rows = tuple(
        Row(
            Table(row["table"]),
            bytes.fromhex(row["key"]),
            row["value"] and bytes.fromhex(row["value"]),
        )
        for row in pinned["rows"]
    )
    assert changes_hash(rows).hex() == pinned["hash"]
    assert changes_hash((Row(Table.META, b"head", b"x"), *rows)).hex() == pinned["hash"]
    for at, row in enumerate(rows):
        for other in (
            Row(row.table, row.key + b"\0", row.value),
            Row(row.table, row.key, (row.value or b"") + b"\0"),
            Row(Table.CYCLES, row.key, row.value),
        ):
            changed = (*rows[:at], other, *rows[at + 1 :])
            assert changes_hash(changed).hex() != pinned["hash"]


def test_deleting_a_row_and_emptying_it_are_two_things() -> None:
    deleted, emptied = (changes_hash((Row(Table.OPEN, b"k", value),)) for value in (None, b""))
    assert deleted != emptied


# a draft


def _draft(net: Core) -> Draft:
    return Draft(net.state, net.state.height + 1, net.time_ms + 1_000)


def test_a_draft_sees_its_own_writes_and_the_state_does_not() -> None:
    net = Core()
    net.pledge(P01, 5)
    draft = _draft(net)
    assert draft.get(Table.META, b"new") is None
    draft.put(Table.META, b"new", b"x")
    draft.put(Table.META, b"head", None)
    assert draft.get(Table.META, b"new") == b"x"
    assert draft.get(Table.META, b"head") is None
    assert net.store.get(Table.META, b"head") is not None
    assert draft.position(P01, BTC).liquidity == 5
    draft.set_position(Position(P01, BTC, liquidity=6))
    assert draft.position(P01, BTC).liquidity == 6
    assert draft.position(P03, BTC) == Position(P03, BTC)
    assert net.position(P01).liquidity == 5


ROWS = st.dictionaries(st.sampled_from([b"a0", b"a1", b"a2", b"b0"]), st.sampled_from([b"", b"v"]))


@given(ROWS, ROWS, st.sets(st.sampled_from([b"a0", b"a1", b"a2"])), st.sampled_from([b"a1", b"b"]))
def test_the_first_row_is_that_of_a_scan(
    stored: dict[bytes, bytes], written: dict[bytes, bytes], gone: set[bytes], start: bytes
) -> None:
    store = MemoryStore()
    store.apply_rows([Row(Table.SCRIPTS, key, value) for key, value in stored.items()])
    draft = Draft(State(store), 1, 1)
    for key, value in written.items():
        draft.put(Table.SCRIPTS, key, None if key in gone else value)
    rows = [row for row in draft.scan(Table.SCRIPTS, b"a") if row[0] >= start]
    assert draft.first(Table.SCRIPTS, b"a", start) == (rows[0] if rows else None)


def test_a_draft_scans_what_the_store_has_and_what_it_wrote_in_key_order() -> None:
    net = Core()
    first = net.submit(P01, item(P01, P02, 5))
    second = net.submit(P01, item(P01, P03, 5))
    draft = _draft(net)
    draft.put(Table.PARTIES, key_party(P01, first), None)
    draft.put(Table.PARTIES, key_party(P01, 99), b"\1")
    draft.put(Table.PARTIES, key_party(P02, 98), b"\1")
    keys = [key for key, _ in draft.scan(Table.PARTIES, key_u32(P01))]
    assert keys == [key_party(P01, second), key_party(P01, 99)]


def test_a_draft_finds_closed_submissions_and_ended_cycles_in_the_store() -> None:
    net = Core()
    index = net.affirmed(P01, P02, item(P01, P02, 5), item(P02, P01, 5))
    net.run_cycle()
    draft = _draft(net)
    assert draft.submission(index).states.is_closed
    assert draft.submission(index + 1) is None
    assert draft.cycle(1).ended_index
    assert draft.cycle(2) is None
    assert draft.body(index) == net.store.body(index)


def test_what_waits_for_a_cycle_ascends_through_blocks_and_restarts() -> None:
    net = Core()
    indexes = [net.submit(P01, item(P01, P02, 5)) for _ in range(4)]
    net.affirm(P02, indexes[2])
    net.affirm(P02, indexes[0])
    draft = _draft(net)
    fresh = Submission.decode(net.submission(P01, item(P01, P02, 5)).encode())
    ledger.obligations.submit(draft, fresh)
    listed = [each.index for each in draft.waiting_submissions()]
    assert listed == [indexes[0], indexes[2], net.state.log_size]
    net.reload()
    assert (list(net.state.open), net.state.waiting) == (indexes, {indexes[0], indexes[2]})
    net.run_cycle()
    assert net.state.waiting == set()


def test_standing_follows_the_register_within_a_block() -> None:
    net = Core()
    draft = _draft(net)
    assert draft.licensed().all()
    assert draft.may_owe().tolist() == [True, False, True, True, True, True, False]
    party = draft.registry.participants[P01]
    rotate = Action(ActionKind.ROTATE_KEY, {"participant": P01, "public_key": b"\7" * 32})
    draft.registry, _ = draft.registry.with_action(rotate)
    assert draft.registry.participants[P01] != party
    assert len(draft.licensed()) == 7


def test_the_network_starts_with_the_parameters_of_genesis() -> None:
    parameters = Parameters(1, 2_000, 3_000)
    net = Core(parameters=parameters, cut_offs_s=(1, 2))
    assert net.state.registry.parameters == parameters
    assert net.state.registry.cut_offs_s == (1, 2)
    assert net.state.time_ms == GENESIS_MS
    assert net.store.get(Table.OPEN, key_u64(0)) is None
