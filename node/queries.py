"""Queries: pure functions from committed rows to the rows of an answer, page by page.

Lives here: filters, their evaluation over a Reader, and the keys at which pages start. May not live here: rights
(services decide whose filter it is), protobuf (wire.py), tokens (paging.py), writes.

Every query goes in the order of the keys it reads and never back: rows are immutable in place, so a row never moves
between pages, whatever is recorded meanwhile. A page reads a bounded amount of history: it may come back short, even
empty, and still name a next key; the caller goes on until there is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, Self, TypeVar

import numpy as np

from clearing.codec import Layout, uint
from clearing.errors import DecodeError
from clearing.records.obligation import SALT_BYTES, SECRET_BYTES, Items, items_view
from clearing.rows import (
    Reader,
    Table,
    key_position,
    key_request,
    key_result,
    key_u32,
    key_u64,
)
from clearing.rules.cycles import Cycle
from clearing.rules.governance import Proposal
from clearing.rules.obligations import LIFECYCLE, ItemStates, Mask
from clearing.rules.positions import Position
from clearing.rules.results import AssetResult, ResultRow
from clearing.rules.settlement import SettlementInstruction
from clearing.types import (
    CycleState,
    InstructionState,
    NettingMethod,
    ObligationState,
    ResultOutcome,
)

T = TypeVar("T")

PAGE_ROWS_DEFAULT = 1_000
PAGE_ROWS_MAX = 10_000

ITEMS_READ_MAX = 1_000_000
"""Obligations looked at for one page, before it comes back short: some 50 ms of work."""

ROWS_READ_MAX = 20_000
"""Rows looked at for one page, before it comes back short."""

_ITEM_KEY = Layout("obligation page", uint("submission", 8), uint("item", 4))
_RESULT_KEY = Layout("cycle result page", uint("asset", 2), uint("participant", 4))
ITEM_KEY_BYTES = _ITEM_KEY.width
RESULT_KEY_BYTES = _RESULT_KEY.width
POSITION_KEY_BYTES = len(key_position(0, 0))
SETTLEMENT_KEY_BYTES = len(key_u32(0, 0))
CYCLE_KEY_BYTES = len(key_u32(0))
PROPOSAL_KEY_BYTES = len(key_u64(0))


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page: rows in key order, and the key at which the next page starts, b"" after the last."""

    rows: tuple[T, ...]
    next_key: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObligationFilter:
    """Which obligations; None and () do not narrow.

    participant: is a party; counterparty: is the other party; cycle: holds or settled the item, 0 for none.
    """

    participant: int | None = None
    submission: int | None = None
    counterparty: int | None = None
    asset: int | None = None
    cycle: int | None = None
    states: tuple[ObligationState, ...] = ()


@dataclass(frozen=True, slots=True)
class ObligationRow:
    """One obligation with its state; fields as in records/obligation.py and rules/obligations.py."""

    submission: int
    item: int
    submitter: int
    debtor: int
    creditor: int
    asset: int
    amount_units: int
    kind: int
    priority: int
    due_ms: int
    trade_ref_hash: bytes
    compliance_ref_hash: bytes
    state: int
    cycle: int


def obligations(
    reader: Reader, wanted: ObligationFilter, start: bytes = b"", rows_max: int = PAGE_ROWS_DEFAULT
) -> Page[ObligationRow]:
    """Return a page of obligations, ascending by submission and item.

    Submissions whose bodies are withheld or erased here are passed over.
    Raises: DecodeError: `start` is not a key that a page returned.
    """
    at = _ITEM_KEY.decode(start) if start else {"submission": 0, "item": 0}
    rows: list[ObligationRow] = []
    items_read = rows_read = 0
    for index in _submissions(reader, wanted, at["submission"]):
        first = at["item"] if index == at["submission"] else 0
        if items_read >= ITEMS_READ_MAX or rows_read >= ROWS_READ_MAX:
            return Page(tuple(rows), _ITEM_KEY.encode(submission=index, item=first))
        row = reader.get(Table.SUBMISSIONS, key_u64(index))
        if row is None:
            continue
        states = ItemStates.decode(row)
        rows_read += 1
        items_read += states.count
        numbers, items = _matching(reader, wanted, index, states, first)
        if not numbers:
            continue
        room = rows_max - len(rows)
        rows.extend(_rows_of(index, states, items, numbers[:room]))
        if len(numbers) > room:
            return Page(tuple(rows), _ITEM_KEY.encode(submission=index, item=int(numbers[room])))
    return Page(tuple(rows))


def _submissions(reader: Reader, wanted: ObligationFilter, first: int) -> Iterator[int]:
    """Yield, ascending from `first`, the submissions that can hold a match, by the narrowest index there is."""
    if wanted.submission is not None:
        if wanted.submission >= first:
            yield wanted.submission
        return
    table, prefix = Table.SUBMISSIONS, b""
    if wanted.cycle:
        table, prefix = Table.CYCLE_MEMBERS, key_u32(wanted.cycle)
    elif wanted.participant is not None:
        table, prefix = Table.PARTIES, key_u32(wanted.participant)
    elif wanted.states and not any(LIFECYCLE.is_terminal(state) for state in wanted.states):
        table = Table.OPEN
    for key, _ in reader.scan(table, prefix, prefix + key_u64(first)):
        yield int.from_bytes(key[len(prefix) :], "big")


_NO_ITEMS: Items = np.empty(0, dtype=np.void)


def _matching(
    reader: Reader, wanted: ObligationFilter, index: int, states: ItemStates, first: int
) -> tuple[list[int], Items]:
    """Return the numbers of the matching items from `first` on, ascending, and all items of the submission."""
    mask: Mask = np.ones(states.count, dtype=np.bool_)
    mask[:first] = False
    if wanted.states:
        mask &= np.isin(states.states, [int(state) for state in wanted.states])
    if wanted.cycle is not None:
        mask &= states.cycles == wanted.cycle
    # Bodies are large: read only where the states leave something.
    body = reader.body(index) if mask.any() else None
    if body is None:
        return [], _NO_ITEMS
    items = items_view(memoryview(body)[SECRET_BYTES:])
    for party in (wanted.participant, wanted.counterparty):
        if party is not None:
            mask &= (items["debtor"] == party) | (items["creditor"] == party)
    if wanted.asset is not None:
        mask &= items["asset"] == wanted.asset
    numbers: list[int] = np.flatnonzero(mask).tolist()
    return numbers, items


def _rows_of(
    index: int, states: ItemStates, items: Items, numbers: list[int]
) -> Iterator[ObligationRow]:
    chosen = items[numbers]
    columns = [chosen[name].tolist() for name in ("debtor", "creditor", "asset")]
    columns.append(
        [
            lo | hi << 64
            for lo, hi in zip(
                chosen["amount_lo"].tolist(), chosen["amount_hi"].tolist(), strict=True
            )
        ]
    )
    names = ("kind", "priority", "due_ms", "trade_ref_hash", "compliance_ref_hash")
    columns += [chosen[name].tolist() for name in names]
    columns += [states.states[numbers].tolist(), states.cycles[numbers].tolist()]
    for number, *values in zip(numbers, *columns, strict=True):
        yield ObligationRow(index, number, states.submitter, *values)


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionFilter:
    """Which positions; None does not narrow."""

    participant: int | None = None
    asset: int | None = None


def positions(
    reader: Reader, wanted: PositionFilter, start: bytes = b"", rows_max: int = PAGE_ROWS_DEFAULT
) -> Page[Position]:
    """Return a page of positions ever touched, ascending by participant and asset.

    Raises: DecodeError: `start` is not a key that a page returned.
    """
    prefix = b"" if wanted.participant is None else key_u32(wanted.participant)
    rows: list[Position] = []
    for count, (key, value) in enumerate(
        reader.scan(Table.POSITIONS, prefix, _key(start, POSITION_KEY_BYTES))
    ):
        if len(rows) == rows_max or count == ROWS_READ_MAX:
            return Page(tuple(rows), key)
        if wanted.asset is None or int.from_bytes(key[4:], "big") == wanted.asset:
            rows.append(Position.decode(value))
    return Page(tuple(rows))


def _key(start: bytes, width: int) -> bytes:
    if start and len(start) != width:
        raise DecodeError("the page starts at no key of this table")
    return start


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlementFilter:
    """Which settlement instructions; None and () do not narrow.

    participant: pays in or is paid; concerning: does so, or is the settlement agent of the cycle.
    """

    participant: int | None = None
    cycle: int | None = None
    asset: int | None = None
    states: tuple[InstructionState, ...] = ()
    concerning: int | None = None

    def takes(self, instruction: SettlementInstruction) -> bool:
        """Return whether the instruction is wanted, its cycle and that one's agent aside."""
        return (
            self.participant in (None, instruction.participant)
            and self.asset in (None, instruction.asset)
            and (not self.states or instruction.state in self.states)
        )


@dataclass(frozen=True, slots=True)
class SettlementRow:
    """One settlement instruction under its cycle and number."""

    cycle: int
    number: int
    instruction: SettlementInstruction


def settlements(
    reader: Reader, wanted: SettlementFilter, start: bytes = b"", rows_max: int = PAGE_ROWS_DEFAULT
) -> Page[SettlementRow]:
    """Return a page of settlement instructions, ascending by cycle and number.

    Raises: DecodeError: `start` is not a key that a page returned.
    """
    prefix = b"" if wanted.cycle is None else key_u32(wanted.cycle)
    rows: list[SettlementRow] = []
    agents: dict[int, int] = {}
    for count, (key, value) in enumerate(
        reader.scan(Table.SETTLEMENTS, prefix, _key(start, SETTLEMENT_KEY_BYTES))
    ):
        if len(rows) == rows_max or count == ROWS_READ_MAX:
            return Page(tuple(rows), key)
        instruction = SettlementInstruction.decode(value)
        if not wanted.takes(instruction):
            continue
        cycle, number = int.from_bytes(key[:4], "big"), int.from_bytes(key[4:], "big")
        if wanted.concerning not in (None, instruction.participant):
            if cycle not in agents:
                agents[cycle] = Cycle.decode(reader.get(Table.CYCLES, key[:4]) or b"").agent
            if agents[cycle] != wanted.concerning:
                continue
        rows.append(SettlementRow(cycle, number, instruction))
    return Page(tuple(rows))


@dataclass(frozen=True, slots=True)
class CycleRow:
    """One cycle; final: whether a final checkpoint covers the leaf that ended it as settled."""

    number: int
    cycle: Cycle
    final: bool


def cycle(reader: Reader, number: int, final_size: int) -> CycleRow | None:
    """Return one cycle, or None. final_size: leaves under the greatest final checkpoint, 0 for none."""
    value = reader.get(Table.CYCLES, key_u32(number)) if 0 < number < 1 << 32 else None
    return None if value is None else _cycle_row(number, value, final_size)


def _cycle_row(number: int, value: bytes, final_size: int) -> CycleRow:
    found = Cycle.decode(value)
    settled = found.state is CycleState.SETTLED
    return CycleRow(number, found, settled and final_size > found.ended_index)


def cycles(
    reader: Reader,
    states: tuple[CycleState, ...],
    final_size: int,
    start: bytes = b"",
    rows_max: int = PAGE_ROWS_DEFAULT,
) -> Page[CycleRow]:
    """Return a page of cycles in one of `states` (() for any), ascending.

    Raises: DecodeError: `start` is not a key that a page returned.
    """
    rows: list[CycleRow] = []
    for count, (key, value) in enumerate(
        reader.scan(Table.CYCLES, b"", _key(start, CYCLE_KEY_BYTES))
    ):
        if len(rows) == rows_max or count == ROWS_READ_MAX:
            return Page(tuple(rows), key)
        row = _cycle_row(int.from_bytes(key, "big"), value, final_size)
        if not states or row.cycle.state in states:
            rows.append(row)
    return Page(tuple(rows))


@dataclass(frozen=True, slots=True)
class CycleAssetRow:
    """One asset of a cycle's result: totals over everybody, and the rows that were asked for.

    potentials: by participant, of those that a set-off solution gives one other than zero. value_units: what is discharged. liquidity_used_units: what payers pay in. solution_index: log index of the set-off
    solution that proves the result, 0 for none.
    """

    asset: int
    method: NettingMethod
    outcome: ResultOutcome
    obligations: int
    gross_units: int
    net_units: int
    value_units: int
    liquidity_used_units: int
    solution_index: int
    rows: tuple[ResultRow, ...]
    potentials: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, result: AssetResult, rows: tuple[ResultRow, ...]) -> Self:
        """Return the totals of a result with some of its rows."""
        return cls(
            asset=result.asset,
            method=result.method,
            outcome=result.outcome,
            obligations=result.obligations,
            gross_units=result.gross,
            net_units=result.net,
            value_units=result.value,
            liquidity_used_units=result.liquidity_used,
            solution_index=result.solution_index,
            rows=rows,
        )


def cycle_results(
    reader: Reader,
    number: int,
    participant: int | None = None,
    start: bytes = b"",
    rows_max: int = PAGE_ROWS_DEFAULT,
) -> Page[CycleAssetRow]:
    """Return a page of a cycle's result, ascending by asset and participant: everybody's rows, or one participant's.

    Each asset comes with its totals, also when its rows go on from the page before or on the page after.
    Raises: DecodeError: `start` is not a key that a page returned.
    """
    at = _RESULT_KEY.decode(start) if start else {"asset": 0, "participant": 0}
    found: list[CycleAssetRow] = []
    room = rows_max
    for key, value in reader.scan(
        Table.CYCLE_RESULTS, key_u32(number), key_result(number, at["asset"])
    ):
        asset = int.from_bytes(key[4:], "big")
        first = at["participant"] if asset == at["asset"] else 0
        result = AssetResult.decode(value)
        rows = tuple(
            row
            for row in result.rows
            if row.participant >= first and participant in (None, row.participant)
        )
        if len(rows) > room:
            if room:
                found.append(CycleAssetRow.of(result, rows[:room]))
            next_key = _RESULT_KEY.encode(asset=asset, participant=rows[room].participant)
            return Page(tuple(found), next_key)
        found.append(CycleAssetRow.of(result, rows))
        room -= len(rows)
    return Page(tuple(found))


@dataclass(frozen=True, slots=True)
class ProposalRow:
    """One governance proposal; actions: the canonical bytes that stand in its body."""

    log_index: int
    proposal: Proposal
    actions: bytes
    lapsed: bool


def proposals(
    reader: Reader,
    time_ms: int,
    lifetime_ms: int,
    start: bytes = b"",
    rows_max: int = PAGE_ROWS_DEFAULT,
    *,
    log_index: int | None = None,
) -> Page[ProposalRow]:
    """Return a page of proposals, ascending by log index; time_ms and lifetime_ms decide which have lapsed.

    log_index: only the proposal there; None does not narrow.
    Raises: DecodeError: `start` is not a key that a page returned.
    """
    rows: list[ProposalRow] = []
    prefix = b"" if log_index is None else key_u64(log_index)
    for key, value in reader.scan(Table.PROPOSALS, prefix, _key(start, PROPOSAL_KEY_BYTES)):
        if len(rows) == rows_max:
            return Page(tuple(rows), key)
        index, found = int.from_bytes(key, "big"), Proposal.decode(value)
        lapsed = not found.enacted and time_ms >= found.created_ms + lifetime_ms
        actions = (reader.body(index) or b"")[SALT_BYTES:]
        rows.append(ProposalRow(index, found, actions, lapsed))
    return Page(tuple(rows))


def request(reader: Reader, actor: int, client_id: bytes) -> int | None:
    """Return the log index of the transaction that `actor` recorded under `client_id`, or None."""
    value = reader.get(Table.REQUESTS, key_request(actor, client_id))
    return None if value is None else int.from_bytes(value[:8], "big")
