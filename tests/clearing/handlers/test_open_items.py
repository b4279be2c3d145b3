"""The limit of one submitter's open obligations: what counts, what frees room, and that a replay comes to the same."""

from __future__ import annotations

import pytest

from clearing import ledger
from clearing.errors import RejectCode
from clearing.memory import MemoryStore
from clearing.params import OPEN_ITEMS_MAX, Parameters
from clearing.records.instruction import ItemSelection
from clearing.records.leaves import GenesisLeaf
from clearing.rows import Table
from clearing.rules.registry import Action, ActionKind
from clearing.state import State
from tests.clearing.core_kit import Core, Kind, dump
from tests.ledger_kit import P01, P02, P03, item

GOOD = item(P01, P02, 5)
OK, FULL = RejectCode.OK, RejectCode.SUBMITTER_BOOK_FULL


def limited(items: int) -> Core:
    return Core(parameters=Parameters(submitter_open_items=items))


def codes(net: Core, *counts: int, submitter: int = P01) -> list[RejectCode]:
    """Submit in one block, each with so many items, and return the answers."""
    records = [item(submitter, P02 if submitter != P02 else P03, 5)]
    sent = [net.submission(submitter, *records * count) for count in counts]
    return [RejectCode(outcome.code) for outcome in net.block(*sent).outcomes]


def test_up_to_the_limit_and_not_one_more_also_within_a_block() -> None:
    net = limited(5)
    assert codes(net, 3, 3, 2, 1) == [OK, FULL, OK, FULL]
    assert codes(net, 1) == [FULL]
    assert net.state.open_items_of == {P01: 5}
    net.reload()
    assert net.state.open_items_of == {P01: 5}
    assert codes(net, 1) == [FULL]


def test_one_submitter_takes_nobody_else_s_room() -> None:
    net = limited(2)
    assert codes(net, 2) == [OK]
    # P02 is a party of all that P01 has submitted, and that takes none of its own room.
    assert codes(net, 2, submitter=P02) == [OK]
    assert net.state.open_items_of == {P01: 2, P02: 2}


def test_by_default_one_cannot_fill_the_book() -> None:
    net = Core()
    limit = Parameters().submitter_open_items
    net.state.open_items_of[P01] = net.state.open_items = limit - 1
    assert codes(net, 1, 1) == [OK, FULL]
    assert net.state.open_items < OPEN_ITEMS_MAX // 8
    assert codes(net, 50_000, submitter=P02) == [OK]


def test_however_small_the_number_of_open_submissions_has_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each takes memory of every replica, and time at the cut-off."""
    monkeypatch.setattr(ledger.obligations, "SUBMITTER_OPEN_SUBMISSIONS_MAX", 2)
    net = Core()
    first = net.submit(P01, GOOD)
    assert codes(net, 1, 1) == [OK, FULL]
    net.reload()
    assert codes(net, 1) == [FULL]
    assert codes(net, 1, 1, submitter=P02) == [OK, OK]
    assert net.state.open_submissions_of == {P01: 2, P02: 2}
    net.select(Kind.RESCIND, P01, first)
    assert codes(net, 50, 1) == [OK, FULL]


def test_what_settles_frees_its_room() -> None:
    net = limited(2)
    index = net.submit(P01, GOOD, GOOD)
    net.affirm(P02, index)
    net.run_cycle()
    assert codes(net, 1) == [FULL]
    net.settle(1)
    assert net.state.open_items_of == {}
    assert codes(net, 2) == [OK]


def test_what_expires_frees_its_room_from_the_next_block_on() -> None:
    net = limited(1)
    net.submit(P01, item(P01, P02, 5, due_ms=net.time_ms + 2_000))
    assert codes(net, 1) == [FULL]
    assert net.state.open_items_of == {}
    assert codes(net, 1) == [OK]


@pytest.mark.parametrize(("kind", "actor"), [(Kind.RESCIND, P01), (Kind.REJECT, P02)])
def test_what_is_withdrawn_or_refused_frees_its_room_when_the_last_item_of_it_ends(
    kind: Kind, actor: int
) -> None:
    net = limited(2)
    index = net.submit(P01, GOOD, GOOD)
    net.select(kind, actor, index, (0, 0))
    assert codes(net, 1) == [FULL]
    last = net.instruction(kind, actor, ItemSelection(index, ((1, 1),)).encode())
    result = net.block(last, net.submission(P01, GOOD))
    assert [outcome.code for outcome in result.outcomes] == [OK, FULL]
    assert net.state.open_items_of == {}
    assert codes(net, 2) == [OK]


def test_what_ends_in_its_own_block_holds_no_room() -> None:
    net = limited(1)
    rescind = net.instruction(Kind.RESCIND, P01, ItemSelection(net.state.log_size).encode())
    net.block(net.submission(P01, GOOD), rescind)
    assert net.state.open_items_of == {}
    assert codes(net, 1) == [OK]


def test_governance_moves_the_limit_and_what_is_open_stays() -> None:
    net = limited(1)
    index = net.submit(P01, GOOD)
    net.enact(Action(ActionKind.SET_PARAMETERS, Parameters(submitter_open_items=3)))
    assert codes(net, 2, 1) == [OK, FULL]
    net.enact(Action(ActionKind.SET_PARAMETERS, Parameters(submitter_open_items=1)))
    assert net.affirm(P02, index).code is OK
    assert (net.state.open_items_of, codes(net, 1)) == ({P01: 3}, [FULL])


def test_a_replay_comes_to_the_same_bytes() -> None:
    net = limited(3)
    assert codes(net, 2, 2, 1) == [OK, FULL, OK]
    index = net.submit(P02, item(P02, P03, 5))
    net.select(Kind.RESCIND, P02, index)
    assert codes(net, 3, submitter=P02) == [OK]
    store = MemoryStore()
    genesis = net.results[0].entries[0]
    store.commit(ledger.genesis(GenesisLeaf.decode(genesis.leaf).time_ms, genesis.body))
    state = State.load(store)
    for result in net.results[1:]:
        again = ledger.apply(state, ledger.block_of_entries(result.entries))
        assert (again.entries, again.delta.rows) == (result.entries, result.delta.rows)
        store.commit(again)
        state.advance(again.delta)
    assert dump(state) == dump(net.state)
    assert all(list(store.scan(table)) == list(net.store.scan(table)) for table in Table)
