"""Item validation, item states and the open book's columns, each against plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError, InvariantViolation, RejectCode
from clearing.records.instruction import ItemSelection
from clearing.records.obligation import items_view
from clearing.rules.obligations import (
    BAD_ITEMS_SHOWN,
    LIFECYCLE,
    BookChunk,
    ItemStates,
    bad_items,
    lowest_code,
    select_items,
    validate_items,
)
from clearing.types import AMOUNT_MAX, ObligationState
from tests.ledger_kit import item

NOW_MS = 1_000
MAY_OWE = [True, True, True, False]
LICENSED = [True, True, False, True]
ASSETS = 2

ITEM = st.fixed_dictionaries(
    {
        "version": st.sampled_from([1, 1, 1, 0, 2, 255]),
        "kind": st.sampled_from([1, 2, 5, 5, 0, 6, 255]),
        "flags": st.sampled_from([0, 0, 0, 1, 128]),
        "debtor": st.sampled_from([0, 1, 2, 3, 4, (1 << 32) - 1]),
        "creditor": st.sampled_from([0, 1, 2, 3, 4, 1 << 31]),
        "asset": st.sampled_from([0, 1, 2, (1 << 16) - 1]),
        "amount": st.sampled_from([0, 1, 1 << 64, AMOUNT_MAX]),
        "due_ms": st.sampled_from([0, 1, NOW_MS - 1, NOW_MS, NOW_MS + 1, (1 << 64) - 1]),
    }
)


def _naive_code(values: dict[str, int], submitter: int) -> int:
    """The first fault in the order of the codes, one item at a time."""
    parties = (values["debtor"], values["creditor"])
    if values["version"] != 1:
        return RejectCode.ITEM_VERSION
    if values["kind"] not in (1, 2, 3, 4, 5):
        return RejectCode.ITEM_KIND
    if values["flags"]:
        return RejectCode.ITEM_FLAGS
    if parties[0] == parties[1]:
        return RejectCode.SAME_PARTY
    if submitter not in parties:
        return RejectCode.SUBMITTER_NOT_PARTY
    if any(party >= len(MAY_OWE) or not MAY_OWE[party] for party in parties):
        return RejectCode.UNKNOWN_PARTICIPANT
    if not all(LICENSED[party] for party in parties):
        return RejectCode.PARTICIPANT_NOT_LICENSED
    if values["asset"] >= ASSETS:
        return RejectCode.UNKNOWN_ASSET
    if not values["amount"]:
        return RejectCode.ZERO_AMOUNT
    if values["due_ms"] and values["due_ms"] <= NOW_MS:
        return RejectCode.DUE_PASSED
    return RejectCode.OK


def _record(values: dict[str, int]) -> bytes:
    rest = {name: values[name] for name in ("version", "kind", "flags", "due_ms")}
    return item(values["debtor"], values["creditor"], values["amount"], values["asset"], **rest)


@given(st.lists(ITEM, min_size=1, max_size=20), st.integers(0, 3))
def test_each_item_gets_the_lowest_code_that_applies(
    drawn: list[dict[str, int]], submitter: int
) -> None:
    codes = validate_items(
        items_view(b"".join(map(_record, drawn))),
        submitter,
        may_owe=np.array(MAY_OWE),
        licensed=np.array(LICENSED),
        assets=ASSETS,
        time_ms=NOW_MS,
    )
    assert codes.tolist() == [_naive_code(values, submitter) for values in drawn]


@pytest.mark.parametrize(
    ("due_ms", "code"),
    [
        (0, RejectCode.OK),
        (1, RejectCode.DUE_PASSED),
        (NOW_MS, RejectCode.DUE_PASSED),
        (NOW_MS + 1, RejectCode.OK),
        ((1 << 64) - 1, RejectCode.OK),
    ],
)
def test_a_due_time_lies_after_the_blocks(due_ms: int, code: RejectCode) -> None:
    codes = validate_items(
        items_view(item(0, 1, 5, due_ms=due_ms)),
        0,
        may_owe=np.ones(2, np.bool_),
        licensed=np.ones(2, np.bool_),
        assets=ASSETS,
        time_ms=NOW_MS,
    )
    assert codes.tolist() == [code]


@given(st.lists(st.sampled_from([0, 0, 300, 403, 202]), max_size=300))
def test_the_first_bad_items_are_shown_and_all_are_counted(codes: list[int]) -> None:
    shown, count = bad_items(np.array(codes, np.uint16))
    naive = [(row, RejectCode(code)) for row, code in enumerate(codes) if code]
    assert shown == tuple(naive[:BAD_ITEMS_SHOWN])
    assert count == len(naive)
    assert lowest_code(np.array(codes, np.uint16)) == min((code for _, code in naive), default=0)


STATE_COLUMN = st.lists(st.sampled_from(ObligationState), min_size=1, max_size=40)


def _states(states: list[int], cycles: list[int] | None = None, submitter: int = 2) -> ItemStates:
    cycles = cycles or [0] * len(states)
    return ItemStates(submitter, np.array(states, np.uint8), np.array(cycles, np.uint32))


@given(STATE_COLUMN, st.data())
def test_item_states_come_back_and_take_one_entry_where_all_are_equal(
    states: list[int], data: st.DataObject
) -> None:
    size = len(states)
    cycles = data.draw(st.lists(st.integers(0, (1 << 32) - 1), min_size=size, max_size=size))
    row = _states(states, cycles)
    encoded = row.encode()
    decoded = ItemStates.decode(encoded)
    assert (decoded.submitter, decoded.count) == (2, size)
    assert decoded.states.tolist() == states
    assert decoded.cycles.tolist() == cycles
    entries = (1 if len(set(states)) == 1 else size) + 4 * (1 if len(set(cycles)) == 1 else size)
    assert len(encoded) == 12 + entries


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("02000000 03000000 01 000000 010101 00000000", "not the canonical form"),
        ("02000000 02000000 02 000000 01 00000000 00000000", "not the canonical form"),
        ("02000000 00000000 00 000000 01 00000000", "does not match its form"),
        ("02000000 03000000 00 000000 010203 00000000", "does not match its form"),
        ("02000000 ffffffff 03 000000 01 00000000", "does not match its form"),
        ("02000000 02000000 04 000000 01 00000000", "does not match its form"),
        ("02000000 02000000 08 000000 01 00000000", "not the canonical form"),
    ],
)
def test_a_second_form_of_the_same_states_is_refused(data: str, why: str) -> None:
    with pytest.raises(DecodeError, match=why):
        ItemStates.decode(bytes.fromhex(data))


@given(STATE_COLUMN, st.sampled_from(ObligationState), st.integers(0, 9), st.data())
def test_items_move_only_along_the_lifecycle(
    states: list[int], target: ObligationState, cycle: int, data: st.DataObject
) -> None:
    size = len(states)
    mask = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    before = _states(states, list(range(size)))
    if all(
        LIFECYCLE.allows(ObligationState(s), target) for s, m in zip(states, mask, strict=True) if m
    ):
        after = before.moved(np.flatnonzero(mask), target, cycle)
        assert after.states.tolist() == [
            target if m else s for s, m in zip(states, mask, strict=True)
        ]
        assert after.cycles.tolist() == [cycle if m else at for at, m in enumerate(mask)]
    else:
        with pytest.raises(InvariantViolation, match=f"cannot move to {target.name}"):
            before.moved(np.flatnonzero(mask), target, cycle)
    assert before.states.tolist() == states  # a value, not a place
    assert before.cycles.tolist() == list(range(size))


@given(STATE_COLUMN)
def test_a_submission_is_closed_when_nothing_can_happen_to_any_item(states: list[int]) -> None:
    closed = all(LIFECYCLE.is_terminal(ObligationState(state)) for state in states)
    assert _states(states).is_closed is closed


ROWS = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.integers(0, 5),
        st.integers(0, 3),
        st.sampled_from([1, 7, (1 << 64) - 1, 1 << 64, AMOUNT_MAX]),
        st.sampled_from([0, 5, 10, 15]),
    ),
    min_size=1,
    max_size=30,
)


def _chunk(rows: list[tuple[int, ...]]) -> BookChunk:
    records = [item(a, b, amount, asset, due_ms=due) for a, b, asset, amount, due in rows]
    return BookChunk.of_items(items_view(b"".join(records)))


@given(ROWS, st.data())
def test_the_book_gives_back_the_chosen_items_asset_by_asset(rows, data: st.DataObject) -> None:
    chosen = sorted(data.draw(st.sets(st.integers(0, len(rows) - 1))))
    got = [
        (asset, *row)
        for asset, columns in _chunk(rows).select(np.array(chosen, np.int64))
        for row in zip(
            columns.debtor.tolist(), columns.creditor.tolist(), columns.amounts(), strict=True
        )
    ]
    ordered = sorted((rows[at][2], at) for at in chosen)
    assert got == [(asset, rows[at][0], rows[at][1], rows[at][3]) for asset, at in ordered]


@given(ROWS, st.integers(0, 20), st.data())
def test_the_book_answers_by_item_number(rows, time_ms: int, data: st.DataObject) -> None:
    chunk, size = _chunk(rows), len(rows)
    states = data.draw(st.lists(st.sampled_from(ObligationState), min_size=size, max_size=size))
    assert chunk.participants() == sorted({party for row in rows for party in row[:2]})
    due = {
        at: row[4]
        for at, row in enumerate(rows)
        if states[at] is ObligationState.PROPOSED and row[4]
    }
    assert chunk.next_expiry_ms(_states(states)) == min(due.values(), default=0)
    assert chunk.due_items(_states(states), time_ms).tolist() == [
        at for at, due_ms in due.items() if due_ms <= time_ms
    ]


@given(ROWS, st.integers(0, 6), st.data())
def test_the_book_knows_the_parties_of_any_items(rows, submitter: int, data: st.DataObject) -> None:
    chunk = _chunk(rows)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1)))
    items = np.array(chosen, np.int64)
    others = [b if a == submitter else a for a, b in (rows[at][:2] for at in chosen)]
    assert chunk.other_party(submitter, items).tolist() == others
    flags = data.draw(st.lists(st.booleans(), min_size=6, max_size=6))
    assert chunk.both(np.array(flags), items).tolist() == [
        flags[rows[at][0]] and flags[rows[at][1]] for at in chosen
    ]


def _naive_selection(
    ranges: list[tuple[int, int]], states: list[int], is_party: list[bool], origins: set[int]
) -> tuple[RejectCode, list[int]]:
    movable = [state in origins for state in states]
    if not ranges:
        taken = [at for at in range(len(states)) if is_party[at] and movable[at]]
        return (RejectCode.OK if taken else RejectCode.NOTHING_SELECTED), taken
    named = [at for first, last in ranges for at in range(first, last + 1)]
    faults = {RejectCode.OK}
    for at in named:
        if at >= len(states):
            faults.add(RejectCode.UNKNOWN_ITEM)
        elif not is_party[at]:
            faults.add(RejectCode.NOT_A_PARTY)
        elif not movable[at]:
            faults.add(RejectCode.ITEM_STATE)
    real = sorted(faults - {RejectCode.OK})
    return (real[0] if real else RejectCode.OK), named


@given(STATE_COLUMN, st.sets(st.sampled_from(ObligationState)), st.data())
def test_a_selection_is_what_it_names_or_refused_whole(
    states: list[int], origins: set[int], data: st.DataObject
) -> None:
    size = len(states)
    is_party = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    bounds = sorted(data.draw(st.sets(st.integers(0, size + 1), max_size=6)))
    ranges = list(zip(bounds[::2], bounds[1::2], strict=False))
    flags = np.array(is_party)
    selected = select_items(
        ItemSelection(0, tuple(ranges)),
        _states(states),
        lambda at: flags[at],
        tuple(sorted(origins)),
    )
    code, items = _naive_selection(ranges, states, is_party, origins)
    assert selected.code is code
    if code is RejectCode.OK:
        assert selected.items.tolist() == items
    if code in (RejectCode.NOT_A_PARTY, RejectCode.ITEM_STATE):
        assert min(shown for _, shown in selected.bad) is code
        assert selected.bad_items == len(selected.bad)


def test_the_code_of_a_selection_is_the_lowest_of_all_items_not_of_those_shown() -> None:
    states = _states([ObligationState.SETTLED] * 200)
    is_party = np.array([True] * 199 + [False])
    selection = ItemSelection(0, ((0, 199),))
    selected = select_items(
        selection, states, lambda items: is_party[items], (ObligationState.PROPOSED,)
    )
    assert selected.code is RejectCode.NOT_A_PARTY
    assert (len(selected.bad), selected.bad_items) == (BAD_ITEMS_SHOWN, 200)
