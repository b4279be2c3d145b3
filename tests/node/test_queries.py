"""Queries against a naive oracle: every filter, every page size, cursors that neither lose nor repeat a row."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearing.errors import DecodeError
from clearing.records.instruction import InstructionKind
from clearing.records.obligation import LAYOUT
from clearing.rows import Reader, Table, key_u64
from clearing.rules.governance import encode_actions
from clearing.rules.obligations import ItemStates
from clearing.rules.positions import Position
from clearing.rules.registry import Action, ActionKind
from clearing.rules.settlement import SettlementInstruction
from clearing.types import CycleState, InstructionState, ObligationState
from node import queries
from node.queries import ObligationFilter, ObligationRow, Page, PositionFilter, SettlementFilter
from tests.ledger_kit import BTC, CB, ETH, MINISTRY, P01, P02, P03, P04, USDT, Net, item

PARTIES = (P01, P02, P03, P04)


@pytest.fixture(scope="module")
def net() -> Net:
    """Three cycles, one settled, one failed, one running, and a mixed open book; the same in every run."""
    chance = random.Random(7)
    net = Net()
    for round_no in range(6):
        for submitter in PARTIES:
            records = []
            for _ in range(chance.randrange(1, 6)):
                other = chance.choice([party for party in PARTIES if party != submitter])
                pair = [submitter, other] if chance.random() < 0.5 else [other, submitter]
                asset = chance.choice((BTC, ETH, USDT))
                amount = chance.choice((1, 1000, 1 << 64, (1 << 127) + 5))
                records.append(item(*pair, amount, asset=asset, priority=chance.randrange(256)))
            index = net.submit(submitter, *records)
            for other in PARTIES:
                if other != submitter and chance.random() < 0.7:
                    net.affirm(other, index)
                elif other != submitter and chance.random() < 0.3:
                    net.select(InstructionKind.REJECT, other, index)
            if chance.random() < 0.2:
                net.select(InstructionKind.RESCIND, submitter, index)
        if round_no in (1, 3, 4):
            assert net.run_cycle().code == 0
        if round_no == 2:
            net.settle(1)
    fail = next(
        number
        for (cycle, number), row in settlements_of(net)
        if cycle == 2 and row.state is InstructionState.PENDING and row.kind == 1
    )
    assert net.settlement(InstructionKind.FAIL, CB, 2, fail).code == 0
    return net


def settlements_of(net: Net) -> Iterator[tuple[tuple[int, int], SettlementInstruction]]:
    for key, value in net.store.scan(Table.SETTLEMENTS):
        numbers = int.from_bytes(key[:4], "big"), int.from_bytes(key[4:], "big")
        yield numbers, SettlementInstruction.decode(value)


def naive_obligations(net: Net) -> Iterator[ObligationRow]:
    """Read every submission of the log item by item, with none of the code under test."""
    for index in range(net.store.log_size):
        row = net.store.get(Table.SUBMISSIONS, key_u64(index))
        if row is None:
            continue
        states, body = ItemStates.decode(row), net.store.body(index) or b""
        for number in range(states.count):
            start = 32 + number * LAYOUT.width
            values = LAYOUT.decode(body[start : start + LAYOUT.width])
            del values["version"], values["flags"]
            yield ObligationRow(
                submission=index,
                item=number,
                submitter=states.submitter,
                state=int(states.states[number]),
                cycle=int(states.cycles[number]),
                **values,
            )


def wanted_naively(row: ObligationRow, wanted: ObligationFilter) -> bool:
    parties = (row.debtor, row.creditor)
    return (
        wanted.participant in (None, *parties)
        and wanted.counterparty in (None, *parties)
        and wanted.submission in (None, row.submission)
        and wanted.asset in (None, row.asset)
        and wanted.cycle in (None, row.cycle)
        and (not wanted.states or row.state in wanted.states)
    )


def walk(page_of: Callable[[bytes], Page[Any]], rows_max: int) -> list[Any]:
    """Follow pages to the end; each is at most `rows_max` long."""
    rows: list[Any] = []
    start = b""
    for _ in range(10_000):
        page = page_of(start)
        assert len(page.rows) <= rows_max
        rows.extend(page.rows)
        if not page.next_key:
            return rows
        start = page.next_key
    raise AssertionError("pages do not end")


FILTERS = st.builds(
    ObligationFilter,
    participant=st.none() | st.integers(0, 7),
    submission=st.none() | st.integers(0, 60),
    counterparty=st.none() | st.sampled_from(PARTIES),
    asset=st.none() | st.integers(0, 3),
    cycle=st.none() | st.integers(0, 4),
    states=st.lists(st.sampled_from(ObligationState), unique=True, max_size=3).map(tuple),
)


def test_the_net_has_something_of_everything(net: Net) -> None:
    rows = list(naive_obligations(net))
    states = {row.state for row in rows}
    assert states >= {
        ObligationState.PROPOSED, ObligationState.AFFIRMED, ObligationState.LOCKED,
        ObligationState.SETTLED, ObligationState.REJECTED, ObligationState.RESCINDED,
    }  # fmt: skip
    assert {row.cycle for row in rows} >= {0, 1, 3}
    assert len(rows) > 50


@settings(max_examples=150)
@given(FILTERS, st.integers(1, 40))
def test_obligations_as_the_oracle_says(net: Net, wanted: ObligationFilter, rows_max: int) -> None:
    expected = [row for row in naive_obligations(net) if wanted_naively(row, wanted)]
    found = walk(lambda start: queries.obligations(net.store, wanted, start, rows_max), rows_max)
    assert found == expected


@pytest.mark.parametrize("limit", ["ITEMS_READ_MAX", "ROWS_READ_MAX"])
@pytest.mark.parametrize("state", [ObligationState.SETTLED, ObligationState.PROPOSED])
def test_pages_come_back_short_and_lose_nothing(
    net: Net, monkeypatch: pytest.MonkeyPatch, limit: str, state: ObligationState
) -> None:
    monkeypatch.setattr(queries, limit, 3)
    wanted = ObligationFilter(states=(state,))
    pages = 0

    def page_of(start: bytes) -> Page[ObligationRow]:
        nonlocal pages
        pages += 1
        return queries.obligations(net.store, wanted, start, 1000)

    expected = [row for row in naive_obligations(net) if row.state == state]
    assert walk(page_of, 1000) == expected
    assert pages > 1


def test_rows_do_not_move_between_pages_while_the_ledger_grows() -> None:
    net = Net()
    first = net.submit(P01, *(item(P01, P02, n + 1) for n in range(5)))
    page = queries.obligations(net.store, ObligationFilter(), b"", 3)
    net.submit(P02, item(P02, P03, 9))
    net.affirm(P02, first)
    rest = queries.obligations(net.store, ObligationFilter(), page.next_key, 100)
    assert [(row.submission, row.item) for row in page.rows] == [(first, n) for n in range(3)]
    assert [row.item for row in rest.rows if row.submission == first] == [3, 4]
    assert rest.rows[-1].amount_units == 9


class WithoutBodies:
    """A reader whose submissions' bodies are erased."""

    def __init__(self, reader: Reader) -> None:
        self.get, self.scan, self.leaf = reader.get, reader.scan, reader.leaf

    def body(self, index: int) -> bytes | None:
        return None


def test_erased_bodies_are_passed_over(net: Net) -> None:
    assert queries.obligations(WithoutBodies(net.store), ObligationFilter()) == Page(())


@pytest.mark.parametrize("participant", [None, P01, P04, 99, 1 << 31])
@pytest.mark.parametrize("asset", [None, BTC, 9])
@pytest.mark.parametrize("rows_max", [1, 2, 100])
def test_positions_as_the_oracle_says(
    net: Net, participant: int | None, asset: int | None, rows_max: int
) -> None:
    wanted = PositionFilter(participant=participant, asset=asset)
    rows = [Position.decode(value) for _, value in net.store.scan(Table.POSITIONS)]
    expected = [
        row for row in rows
        if participant in (None, row.participant) and asset in (None, row.asset)
    ]  # fmt: skip
    assert walk(lambda start: queries.positions(net.store, wanted, start, rows_max), rows_max) == expected  # fmt: skip


@pytest.mark.parametrize(("concerning", "expected"), [(P01, {P01}), (99, set()), (CB, None)])
def test_settlements_that_concern_one_are_its_own_or_those_of_its_cycles(
    net: Net, concerning: int, expected: set[int] | None
) -> None:
    found = queries.settlements(net.store, SettlementFilter(concerning=concerning)).rows
    everybodys = queries.settlements(net.store, SettlementFilter()).rows
    if expected is None:
        assert found == everybodys
    else:
        assert (
            {row.instruction.participant for row in found}
            == expected
            < {row.instruction.participant for row in everybodys}
        )


@pytest.mark.parametrize("participant", [None, P01, 99])
@pytest.mark.parametrize("cycle", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("states", [(), (InstructionState.CONFIRMED, InstructionState.FAILED)])
@pytest.mark.parametrize("rows_max", [1, 100])
def test_settlements_as_the_oracle_says(
    net: Net,
    participant: int | None,
    cycle: int | None,
    states: tuple[InstructionState, ...],
    rows_max: int,
) -> None:
    wanted = SettlementFilter(participant=participant, cycle=cycle, states=states)
    expected = [
        (numbers, row)
        for numbers, row in settlements_of(net)
        if participant in (None, row.participant)
        and cycle in (None, numbers[0])
        and (not states or row.state in states)
    ]
    found = walk(lambda start: queries.settlements(net.store, wanted, start, rows_max), rows_max)
    assert [((row.cycle, row.number), row.instruction) for row in found] == expected


def test_cycles_and_their_finality(net: Net) -> None:
    rows = queries.cycles(net.store, (), 0).rows
    assert [row.number for row in rows] == [1, 2, 3]
    states = [CycleState.SETTLED, CycleState.FAILED, CycleState.NETTED]
    assert [row.cycle.state for row in rows] == states
    assert not any(row.final for row in rows)
    ended = rows[0].cycle.ended_index
    # Final when a checkpoint covers the leaf itself: one leaf less is not enough.
    for size, final in ((ended, False), (ended + 1, True), (net.store.log_size, True)):
        row = queries.cycle(net.store, 1, size)
        assert row is not None
        assert row.final is final
    # A failed cycle never becomes final as settled.
    assert not any(row.final for row in queries.cycles(net.store, (), 1 << 60).rows[1:])
    netted = queries.cycles(net.store, (CycleState.NETTED,), 0).rows
    assert [row.number for row in netted] == [3]
    assert walk(lambda start: queries.cycles(net.store, (), 0, start, 1), 1) == list(rows)


@pytest.mark.parametrize("number", [0, 4, -1, 1 << 32, 1 << 70])
def test_a_cycle_that_is_none(net: Net, number: int) -> None:
    assert queries.cycle(net.store, number, 0) is None


@pytest.mark.parametrize("rows_max", [1, 2, 3, 4, 5, 100])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_results_page_by_page_are_the_whole(net: Net, number: int, rows_max: int) -> None:
    whole = queries.cycle_results(net.store, number, rows_max=10_000).rows
    joined: dict[int, list[Any]] = {}
    start = b""
    for _ in range(1_000):
        page = queries.cycle_results(net.store, number, None, start, rows_max)
        assert sum(len(asset.rows) for asset in page.rows) <= rows_max
        for asset in page.rows:
            joined.setdefault(asset.asset, []).extend(asset.rows)
            whole_asset = next(one for one in whole if one.asset == asset.asset)
            assert (asset.gross_units, asset.net_units) == (whole_asset.gross_units, whole_asset.net_units)  # fmt: skip
        start = page.next_key
        if not start:
            break
    assert {asset.asset: list(asset.rows) for asset in whole} == joined
    for asset in whole:
        assert sum(row.net for row in asset.rows) == 0
        assert asset.gross_units == sum(row.debit for row in asset.rows)
        assert asset.net_units == sum(row.net for row in asset.rows if row.net > 0)


def test_results_of_one_participant(net: Net) -> None:
    whole = queries.cycle_results(net.store, 1).rows
    own = queries.cycle_results(net.store, 1, P02).rows
    assert [asset.asset for asset in own] == [asset.asset for asset in whole]
    for mine, all_ in zip(own, whole, strict=True):
        assert list(mine.rows) == [row for row in all_.rows if row.participant == P02]
        assert mine.gross_units == all_.gross_units


def test_proposals(net: Net) -> None:
    own = Net()
    actions = encode_actions([Action(ActionKind.SET_TIMETABLE, (60,))])
    first = own.one(own.instruction(InstructionKind.PROPOSE, MINISTRY, actions)).index
    second = own.one(own.instruction(InstructionKind.PROPOSE, CB, actions)).index
    assert own.one(own.instruction(InstructionKind.APPROVE, CB, first.to_bytes(8, "little"))).code == 0  # fmt: skip
    lifetime_ms = own.state.registry.parameters.proposal_lifetime_ms

    def rows(time_ms: int) -> list[queries.ProposalRow]:
        return walk(lambda start: queries.proposals(own.store, time_ms, lifetime_ms, start, 1), 1)

    now = rows(own.time_ms)
    assert [row.log_index for row in now] == [first, second]
    assert [row.proposal.approvals for row in now] == [(MINISTRY, CB), (CB,)]
    assert [(row.proposal.enacted, row.lapsed) for row in now] == [(True, False), (False, False)]
    assert all(row.actions == actions for row in now)
    assert [row.lapsed for row in rows(own.time_ms + lifetime_ms)] == [False, True]
    for index, wanted in ((first, now[:1]), (second, now[1:]), (second + 1, []), (2**64 - 1, [])):
        page = queries.proposals(own.store, own.time_ms, lifetime_ms, log_index=index)
        assert (list(page.rows), page.next_key) == (wanted, b"")


def test_requests_by_client_id() -> None:
    net = Net()
    submission = net.submission(P01, item(P01, P02, 5), client_id=b"\x07" * 16)
    index = net.one(submission).index
    assert queries.request(net.store, P01, b"\x07" * 16) == index
    assert queries.request(net.store, P02, b"\x07" * 16) is None
    assert queries.request(net.store, P01, b"\x08" * 16) is None


@pytest.mark.parametrize(
    "query",
    [
        lambda reader: queries.obligations(reader, ObligationFilter(), b"x"),
        lambda reader: queries.positions(reader, PositionFilter(), b"x"),
        lambda reader: queries.settlements(reader, SettlementFilter(), b"x"),
        lambda reader: queries.cycles(reader, (), 0, b"x"),
        lambda reader: queries.cycle_results(reader, 1, None, b"x"),
        lambda reader: queries.proposals(reader, 0, 0, b"x"),
    ],
)
def test_a_start_of_another_width_is_refused(net: Net, query: Callable[[Reader], object]) -> None:
    with pytest.raises(DecodeError):
        query(net.store)


@given(st.binary(min_size=12, max_size=12))
def test_any_key_of_the_right_width_is_a_start(net: Net, start: bytes) -> None:
    everything = list(naive_obligations(net))
    page = queries.obligations(net.store, ObligationFilter(), start, 1000)
    assert list(page.rows) == [row for row in everything if row in page.rows]
