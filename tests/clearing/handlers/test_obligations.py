"""Submissions and the instructions that move obligations, block by block: states, positions, the open book."""

from __future__ import annotations

import hashlib

import pytest

from clearing import ledger
from clearing.errors import RejectCode
from clearing.records.instruction import ItemSelection
from clearing.records.leaves import ExpiredLeaf, LeafKind, leaf_kind
from clearing.rows import Table, key_party, key_u64
from clearing.rules.obligations import LIFECYCLE
from clearing.types import AMOUNT_MAX, ObligationState
from tests.clearing.core_kit import Core, Kind
from tests.ledger_kit import BTC, CB, ETH, P01, P02, P03, P04, item

PROPOSED, AFFIRMED, LOCKED, PARTLY, SETTLED, REJECTED, RESCINDED, EXPIRED = ObligationState
GOOD = item(P01, P02, 5)


def _sums(net: Core, participant: int, asset: int = BTC) -> tuple[int, int]:
    position = net.position(participant, asset)
    return position.payable, position.receivable


def test_a_submission_enters_the_book_and_no_position() -> None:
    net = Core()
    index = net.submit(P01, item(P01, P02, 5), item(P03, P01, 7, ETH))
    assert net.states(index) == [PROPOSED, PROPOSED]
    assert net.item_states(index).submitter == P01
    assert net.state.open_items == 2
    assert list(net.state.open) == [index]
    assert net.store.get(Table.OPEN, key_u64(index)) == b"\1"
    parties = [p for p in range(7) if net.store.get(Table.PARTIES, key_party(p, index))]
    assert parties == [P01, P02, P03]
    assert net.positions() == []
    assert leaf_kind(net.store.leaf(index)) is LeafKind.SUBMISSION
    assert not net.store.entry(index).public


def test_affirming_all_takes_what_is_the_actor_s() -> None:
    net = Core()
    index = net.submit(P01, item(P01, P02, 5), item(P03, P01, 7), item(P02, P01, 11))
    assert net.affirm(P02, index).code is RejectCode.OK
    assert net.states(index) == [AFFIRMED, PROPOSED, AFFIRMED]
    assert (_sums(net, P01), _sums(net, P02), _sums(net, P03)) == ((5, 11), (11, 5), (0, 0))
    assert net.affirm(P03, index).code is RejectCode.OK
    assert net.states(index) == [AFFIRMED] * 3
    assert (_sums(net, P01), _sums(net, P02), _sums(net, P03)) == ((5, 18), (11, 5), (7, 0))


def test_ranges_take_what_they_name_and_nothing_else() -> None:
    net = Core()
    index = net.submit(P01, *(item(P01, P02, 1 << at) for at in range(10)))
    assert net.affirm(P02, index, (0, 0), (3, 5), (9, 9)).code is RejectCode.OK
    named = {0, 3, 4, 5, 9}
    assert net.states(index) == [AFFIRMED if at in named else PROPOSED for at in range(10)]
    assert _sums(net, P01) == (sum(1 << at for at in named), 0)


def test_rescinding_takes_affirmed_amounts_out_again() -> None:
    net = Core()
    index = net.submit(P01, item(P01, P02, 5), item(P01, P02, 7), item(P01, P02, 9, ETH))
    net.affirm(P02, index, (0, 1))
    assert net.select(Kind.RESCIND, P01, index, (1, 2)).code is RejectCode.OK
    assert net.states(index) == [AFFIRMED, RESCINDED, RESCINDED]
    assert (_sums(net, P01), _sums(net, P02)) == ((5, 0), (0, 5))
    assert _sums(net, P01, ETH) == (0, 0)
    assert net.select(Kind.RESCIND, P01, index).code is RejectCode.OK
    assert (_sums(net, P01), _sums(net, P02)) == ((0, 0), (0, 0))


def test_rejecting_leaves_what_is_affirmed() -> None:
    net = Core()
    index = net.submit(P01, item(P01, P02, 5), item(P01, P02, 7))
    net.affirm(P02, index, (0, 0))
    assert net.select(Kind.REJECT, P02, index).code is RejectCode.OK
    assert net.states(index) == [AFFIRMED, REJECTED]
    assert _sums(net, P02) == (0, 5)


def test_several_moves_in_one_block_see_each_other() -> None:
    net = Core()
    submission = net.submission(P01, item(P01, P02, 5), item(P01, P02, 7), item(P02, P01, 2))
    index = net.state.log_size

    def move(kind: Kind, actor: int, *ranges: tuple[int, int]):
        return net.instruction(kind, actor, ItemSelection(index, ranges).encode())

    result = net.block(
        submission,
        move(Kind.AFFIRM, P02, (0, 1)),
        move(Kind.RESCIND, P01, (1, 1)),
        move(Kind.AFFIRM, P02, (1, 1)),
        move(Kind.REJECT, P02),
        move(Kind.AFFIRM, P02),
    )
    codes = [outcome.code.name for outcome in result.outcomes]
    assert codes == ["OK", "OK", "OK", "ITEM_STATE", "OK", "NOTHING_SELECTED"]
    assert [outcome.index for outcome in result.outcomes] == [
        index,
        index + 1,
        index + 2,
        -1,
        index + 3,
        -1,
    ]
    assert net.states(index) == [AFFIRMED, RESCINDED, REJECTED]
    assert (_sums(net, P01), _sums(net, P02)) == ((5, 0), (0, 5))


def test_a_submission_leaves_the_book_when_its_last_item_ends() -> None:
    net = Core()
    index = net.submit(P01, GOOD, GOOD)
    other = net.submit(P01, GOOD)
    net.select(Kind.REJECT, P02, index, (0, 0))
    assert (net.state.open_items, list(net.state.open)) == (3, [index, other])
    net.select(Kind.RESCIND, P01, index, (1, 1))
    assert (net.state.open_items, list(net.state.open)) == (1, [other])
    assert net.store.get(Table.OPEN, key_u64(index)) is None
    assert net.states(index) == [REJECTED, RESCINDED]


def test_a_submission_that_ends_in_its_own_block_was_never_open() -> None:
    net = Core()
    index = net.state.log_size
    rescind = net.instruction(Kind.RESCIND, P01, ItemSelection(index).encode())
    net.block(net.submission(P01, GOOD), rescind)
    assert (net.state.open_items, net.state.open) == (0, {})
    assert net.states(index) == [RESCINDED]


def _reach(net: Core, state: ObligationState) -> int:
    """Return a submission by P01 to P02 of one item in `state`, due in a minute unless it must have passed."""
    index = net.submit(P01, item(P01, P02, 5, due_ms=net.time_ms + 60_000))
    if state in (AFFIRMED, LOCKED, SETTLED):
        net.affirm(P02, index)
    if state in (LOCKED, SETTLED):
        net.run_cycle()
    if state is SETTLED:
        net.settle(1)
    if state is REJECTED:
        net.select(Kind.REJECT, P02, index)
    if state is RESCINDED:
        net.select(Kind.RESCIND, P01, index)
    if state is EXPIRED:
        net.pledge(P01, 1)  # a block that records something, after the due time
        net.time_ms += 60_000
        net.pledge(P01, 2)
    assert net.states(index) == [state]
    return index


# PARTLY_DISCHARGED is the one state that cycles by net positions never reach: they discharge wholly.
REACHABLE = [state for state in ObligationState if state is not PARTLY]
MOVES = {Kind.AFFIRM: (P02, AFFIRMED), Kind.REJECT: (P02, REJECTED), Kind.RESCIND: (P01, RESCINDED)}


@pytest.mark.parametrize("state", REACHABLE, ids=lambda state: state.name)
@pytest.mark.parametrize("kind", MOVES, ids=lambda kind: kind.name)
def test_every_move_of_the_table_is_made_and_every_other_refused(kind: Kind, state) -> None:
    net = Core()
    index = _reach(net, state)
    actor, target = MOVES[kind]
    outcome = net.select(kind, actor, index, (0, 0))
    # LOCKED returns to AFFIRMED when its cycle fails, and by nobody's affirmation.
    if LIFECYCLE.allows(state, target) and state is not LOCKED:
        assert outcome.code is RejectCode.OK
        assert net.states(index) == [target]
    else:
        assert outcome.code is RejectCode.ITEM_STATE
        assert outcome.items == ((0, RejectCode.ITEM_STATE),)
        assert net.states(index) == [state]


@pytest.mark.parametrize("state", REACHABLE, ids=lambda state: state.name)
def test_only_what_is_unaffirmed_expires(state: ObligationState) -> None:
    net = Core()
    index = _reach(net, state)
    net.time_ms += 60_000
    net.pledge(P01, 3)
    assert net.states(index) == [EXPIRED if state is PROPOSED else state]


def _due(net: Core, *delays_ms: int) -> int:
    return net.submit(
        P01,
        *(item(P01, P02, 5, due_ms=delay_ms and net.time_ms + delay_ms) for delay_ms in delays_ms),
    )


def test_items_lapse_in_the_first_block_at_or_after_their_due_time() -> None:
    net = Core()
    index = _due(net, 5_000, 0, 6_000)
    net.one(net.submission(P01, GOOD), after_ms=3_999)
    assert net.states(index) == [PROPOSED] * 3
    result = net.block(after_ms=1)
    assert net.states(index) == [EXPIRED, PROPOSED, PROPOSED]
    assert (result.outcomes, len(result.entries)) == ((), 2)
    states_hash = hashlib.sha256(net.item_states(index).encode()).digest()
    assert ExpiredLeaf.decode(result.entries[0].leaf) == ExpiredLeaf(index, 1, states_hash)
    assert net.block(after_ms=999).entries == ()
    assert net.states(index) == [EXPIRED, PROPOSED, PROPOSED]
    net.block(after_ms=1)
    assert net.states(index) == [EXPIRED, PROPOSED, EXPIRED]
    assert net.positions() == []


def test_an_affirmation_in_the_block_of_the_due_time_is_too_late() -> None:
    net = Core()
    index = _due(net, 5_000)
    assert net.affirm(P02, index, (0, 0)).code is RejectCode.OK
    late = _due(net, 5_000)
    affirmation = net.instruction(Kind.AFFIRM, P02, ItemSelection(late, ((0, 0),)).encode())
    assert net.one(affirmation, after_ms=4_000).code is RejectCode.ITEM_STATE
    assert (net.states(index), net.states(late)) == ([AFFIRMED], [EXPIRED])


def test_submissions_lapse_in_order_of_due_time_then_of_log_index() -> None:
    net = Core()
    first = _due(net, 9_000, 8_000)
    second = _due(net, 5_000)
    third = _due(net, 3_500, 6_000)
    assert net.state.expiries == sorted(net.state.expiries)
    result = net.block(after_ms=20_000)
    leaves = [ExpiredLeaf.decode(entry.leaf) for entry in result.entries[:-1]]
    assert [(leaf.submission, leaf.count) for leaf in leaves] == [
        (third, 2),
        (second, 1),
        (first, 2),
    ]
    assert net.state.expiries == []
    assert net.state.open_items == 0


def test_a_block_in_which_nothing_lapses_after_all_is_empty() -> None:
    net = Core()
    index = _due(net, 10_000)
    net.affirm(P02, index)
    assert net.state.expiries == []
    assert net.block(after_ms=60_000).entries == ()
    net.reload()
    assert net.state.expiries == []
    assert net.block(after_ms=60_000).entries == ()


@pytest.mark.parametrize("count", [1, 2, 300])
def test_greatest_amounts_add_up_beyond_128_bits(count: int) -> None:
    net = Core()
    index = net.affirmed(P01, P02, *[item(P01, P02, AMOUNT_MAX)] * count)
    assert _sums(net, P01) == (count * AMOUNT_MAX, 0)
    net.select(Kind.RESCIND, P01, index)
    assert _sums(net, P01) == (0, 0)


def _book(order: list[int]) -> Core:
    net = Core()
    records = [item(P01, P02, 5), item(P02, P01, 3, ETH), item(P01, P03, 9), item(P03, P01, 1, ETH)]
    index = net.submit(P01, *(records[at] for at in order))
    net.affirm(P02, index)
    net.affirm(P03, index)
    net.run_cycle()
    return net


def test_the_order_of_rows_affects_item_numbers_and_nothing_else() -> None:
    def money(net: Core) -> list[tuple[int, ...]]:
        return [
            (p.participant, p.asset, p.payable, p.receivable, p.locked_net) for p in net.positions()
        ]

    reference = _book([0, 1, 2, 3])
    for order in ([3, 2, 1, 0], [1, 3, 0, 2]):
        net = _book(order)
        assert money(net) == money(reference)
        assert net.results_of(1) == reference.results_of(1)
        assert net.instructions(1) == reference.instructions(1)


def test_a_locked_item_cannot_be_affirmed_out_of_its_cycle() -> None:
    net = Core()
    index = net.affirmed(P01, P02, GOOD, GOOD)
    net.run_cycle()
    before = (net.positions(), net.rows())
    assert net.affirm(P02, index).code is RejectCode.NOTHING_SELECTED
    assert net.affirm(P02, index, (0, 1)).code is RejectCode.ITEM_STATE
    assert (net.positions(), net.rows()) == before
    assert net.run_cycle().code is RejectCode.NOTHING_TO_NET


def test_a_central_bank_owes_and_affirms_like_any_obligor() -> None:
    net = Core()
    index = net.affirmed(CB, P02, item(CB, P02, 5))
    other = net.affirmed(P02, CB, item(P02, CB, 3))
    assert (net.states(index), net.states(other)) == ([AFFIRMED], [AFFIRMED])
    assert (_sums(net, CB), _sums(net, P02)) == ((5, 3), (3, 5))


def test_what_is_closed_is_refused_without_a_look_at_its_body() -> None:
    net = Core()
    index = net.submit(P01, GOOD, item(P01, P03, 5), GOOD)
    net.select(Kind.RESCIND, P01, index)
    watched = net.watch()
    for kind, actor, ranges, code in (
        (Kind.AFFIRM, P02, (), RejectCode.NOTHING_SELECTED),
        (Kind.AFFIRM, P02, ((0, 0), (2, 2)), RejectCode.ITEM_STATE),
        (Kind.AFFIRM, P02, ((0, 3),), RejectCode.UNKNOWN_ITEM),
        # It is one of its parties, and in which item is not remembered.
        (Kind.REJECT, P03, ((0, 0),), RejectCode.ITEM_STATE),
        (Kind.REJECT, P04, ((0, 3),), RejectCode.NOT_A_PARTY),
        (Kind.AFFIRM, P01, ((0, 0),), RejectCode.NOT_A_PARTY),
        (Kind.RESCIND, P02, ((0, 0),), RejectCode.NOT_A_PARTY),
        (Kind.RESCIND, P01, ((0, 0),), RejectCode.ITEM_STATE),
    ):
        outcome = net.select(kind, actor, index, *ranges)
        assert outcome.code is code
        is_told = code in (RejectCode.ITEM_STATE, RejectCode.NOT_A_PARTY)
        named = {at for first, last in ranges for at in range(first, last + 1)} & {0, 1, 2}
        assert outcome.items == (tuple((at, code) for at in sorted(named)) if is_told else ())
    assert watched.count("body") == 0


def test_what_ended_before_its_due_time_is_not_read_again_when_it_comes() -> None:
    net = Core()
    rescinded, affirmed = _due(net, 9_000), _due(net, 9_000, 12_000)
    net.select(Kind.RESCIND, P01, rescinded)
    net.affirm(P02, affirmed, (0, 0))
    assert net.state.expiries == [(net.state.open[affirmed].chunk.due_ms.max(), affirmed)]
    watched = net.watch()
    assert net.block(after_ms=8_000).entries == ()
    assert watched.read == []


def test_of_what_falls_due_together_so_much_lapses_in_a_block_and_the_rest_is_late_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger.obligations, "EXPIRED_PER_BLOCK_MAX", 2)
    net = Core()
    due_ms = net.time_ms + 60_000
    indexes = [net.submit(P01, item(P01, P02, 5, due_ms=due_ms), GOOD) for _ in range(5)]
    net.time_ms = due_ms
    late = [
        net.instruction(Kind.AFFIRM, P02, ItemSelection(indexes[4], ((0, 0),)).encode()),
        net.instruction(Kind.AFFIRM, P02, ItemSelection(indexes[4]).encode()),
        net.instruction(Kind.RESCIND, P01, ItemSelection(indexes[3], ((0, 1),)).encode()),
        net.instruction(Kind.RESCIND, P01, ItemSelection(indexes[0], ((1, 1),)).encode()),
    ]
    codes = [outcome.code.name for outcome in net.block(*late, after_ms=0).outcomes]
    assert codes == ["ITEM_STATE", "OK", "ITEM_STATE", "OK"]
    assert [net.states(index)[0] for index in indexes] == [EXPIRED] * 2 + [PROPOSED] * 3
    assert net.states(indexes[4]) == [PROPOSED, AFFIRMED]
    net.reload()
    assert ledger.next_deadline_ms(net.state, net.time_ms) == due_ms + 1
    net.block(after_ms=1)
    assert [net.states(index)[0] for index in indexes] == [EXPIRED] * 4 + [PROPOSED]
    net.block(after_ms=1)
    assert net.states(indexes[4]) == [EXPIRED, AFFIRMED]
    assert ledger.next_deadline_ms(net.state, net.time_ms) is None


def test_due_times_ask_for_one_block_a_second_however_many_there_are() -> None:
    net = Core()
    start_ms = net.time_ms + 60_000
    index = net.submit(P01, *(item(P01, P02, 5, due_ms=start_ms + at) for at in range(0, 3_000, 9)))
    blocks = 0
    while (deadline_ms := ledger.next_deadline_ms(net.state, net.time_ms)) is not None:
        net.block(after_ms=deadline_ms - net.time_ms)
        blocks += 1
    assert (blocks, set(net.states(index))) == (4, {EXPIRED})
    # Another block takes along what is due when it comes.
    index = net.submit(P01, item(P01, P02, 5, due_ms=net.time_ms + 2_001))
    net.pledge(P01, 1)
    net.time_ms += 1
    net.pledge(P01, 2)
    assert net.states(index) == [EXPIRED]
