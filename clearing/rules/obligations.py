"""Obligations: what a submission may contain, where each item stands, and the open book as columns grouped by asset.

Lives here: validation of items, ItemStates (the only thing kept per obligation besides its record), the moves of the
obligation lifecycle, and BookChunk (one submission's part of the open book). May not live here: netting, positions,
signatures, or who is licensed (ledger.py passes that in as columns).

Invariants: states move only along LIFECYCLE; nothing here holds one Python object an obligation; columns handed out
are read-only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from clearing.codec import Layout, reserved, uint
from clearing.errors import DecodeError, RejectCode, invariant
from clearing.netting.columns import AssetColumns
from clearing.records.instruction import ItemSelection
from clearing.records.obligation import ITEM_VERSION, MINED_COIN, Items
from clearing.rules.lifecycle import Lifecycle
from clearing.types import ObligationKind, ObligationState

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
"""Item numbers of one submission, ascending, each once."""

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

LIFECYCLE = Lifecycle(
    "obligation",
    ObligationState.PROPOSED,
    (
        (ObligationState.PROPOSED, ObligationState.AFFIRMED, "counterparty affirms"),
        (ObligationState.PROPOSED, ObligationState.REJECTED, "counterparty rejects"),
        (ObligationState.PROPOSED, ObligationState.RESCINDED, "submitter rescinds"),
        (ObligationState.PROPOSED, ObligationState.EXPIRED, "due time passes unaffirmed"),
        (ObligationState.AFFIRMED, ObligationState.RESCINDED, "submitter rescinds before cut-off"),
        (ObligationState.AFFIRMED, ObligationState.LOCKED, "cut-off of a cycle"),
        (ObligationState.LOCKED, ObligationState.SETTLED, "cycle settles, wholly discharged"),
        (
            ObligationState.LOCKED,
            ObligationState.PARTLY_DISCHARGED,
            "cycle settles, a part remains",
        ),
        (
            ObligationState.LOCKED,
            ObligationState.AFFIRMED,
            "cycle fails or discharges nothing of it",
        ),
        (ObligationState.PARTLY_DISCHARGED, ObligationState.LOCKED, "cut-off of a later cycle"),
    ),
)
IS_TERMINAL = np.zeros(256, dtype=np.bool_)
IS_TERMINAL[[int(state) for state in ObligationState if LIFECYCLE.is_terminal(state)]] = True
_TERMINAL = bytes(state for state in range(256) if IS_TERMINAL[state])

_FEW_ITEMS = 64
"""Up to here a set of Python's is faster than numpy's sort, which lets another thread take the interpreter's lock."""

_KIND_FIRST, _KIND_LAST = int(min(ObligationKind)), int(max(ObligationKind))

_STATES_LAYOUT = Layout(
    "item states", uint("submitter", 4), uint("count", 4), uint("form", 1), reserved(3)
)
_STATES_ARE_COLUMN = 1
_CYCLES_ARE_COLUMN = 2
_HAS_REMAINDERS = 4
_REMAINDER = np.dtype([("item", "<u4"), ("lo", "<u8"), ("hi", "<u8")])


@dataclass(frozen=True, slots=True, eq=False)
class Remainders:
    """What is left of the items that cycles have discharged in part: few, so each with its number.

    items: int64[k], ascending; lo, hi: uint64[k], above zero and less than the item's own amount.
    """

    items: Numbers
    lo: U64
    hi: U64

    @classmethod
    def none(cls) -> Self:
        """Return the remainders of a submission of which nothing is discharged in part."""
        return cls(np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.uint64))

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.items)

    def with_items(self, items: Numbers, lo: U64, hi: U64) -> Self:
        """Return the remainders with those of `items` put in, or in the place of what they had."""
        others = ~np.isin(self.items, items)
        joined = np.concatenate((self.items[others], items))
        order = np.argsort(joined)
        return type(self)(
            joined[order],
            np.concatenate((self.lo[others], lo))[order],
            np.concatenate((self.hi[others], hi))[order],
        )

    def where(self, keep: Mask) -> Self:
        """Return the entries for which `keep`, bool[k], is true."""
        return type(self)(self.items[keep], self.lo[keep], self.hi[keep])

    def encode(self) -> bytes:
        """Return the canonical bytes: a count u32, and 20 bytes an item."""
        rows = np.zeros(len(self.items), _REMAINDER)
        rows["item"], rows["lo"], rows["hi"] = self.items, self.lo, self.hi
        return len(rows).to_bytes(4, "little") + rows.tobytes()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length, none, not ascending, or nothing is left of one.
        """
        count = int.from_bytes(data[:4], "little")
        if not count or len(data) != 4 + count * _REMAINDER.itemsize:
            raise DecodeError("the length of remainders does not match their count")
        rows = np.frombuffer(data, _REMAINDER, offset=4)
        items = rows["item"].astype(np.int64)
        if (items[1:] <= items[:-1]).any() or ((rows["lo"] | rows["hi"]) == 0).any():
            raise DecodeError("remainders must ascend by item and be above zero")
        return cls(items, rows["lo"].astype(np.uint64), rows["hi"].astype(np.uint64))


@dataclass(frozen=True, slots=True, eq=False)
class ItemStates:
    """Where each item of one submission stands.

    states: uint8[count], an ObligationState. cycles: uint32[count], the cycle that holds or settled the item, 0 none.
    remainders: of the items that are not terminal and were discharged in part.
    """

    submitter: int
    states: U8
    cycles: U32
    remainders: Remainders = field(default_factory=Remainders.none)

    @property
    def count(self) -> int:
        """Number of items."""
        return len(self.states)

    @classmethod
    def proposed(cls, submitter: int, count: int) -> Self:
        """Return the states of a fresh submission."""
        states = np.full(count, ObligationState.PROPOSED, dtype=np.uint8)
        return cls(submitter, states, np.zeros(count, dtype=np.uint32))

    def encode(self) -> bytes:
        """Return the canonical bytes: a column whose entries are all equal is written as one entry."""
        form = 0
        states, cycles = self.states, self.cycles
        if (states == states[0]).all():
            states = states[:1]
        else:
            form |= _STATES_ARE_COLUMN
        if (cycles == cycles[0]).all():
            cycles = cycles[:1]
        else:
            form |= _CYCLES_ARE_COLUMN
        if len(self.remainders):
            form |= _HAS_REMAINDERS
        head = _STATES_LAYOUT.encode(submitter=self.submitter, count=self.count, form=form)
        columns = states.tobytes() + cycles.astype("<u4").tobytes()
        return head + columns + (self.remainders.encode() if len(self.remainders) else b"")

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Parse the canonical bytes.

        Raises: DecodeError: wrong length, or a column where one entry would do.
        """
        head = _STATES_LAYOUT.decode(data[: _STATES_LAYOUT.width])
        count, form = head["count"], head["form"]
        n_states = count if form & _STATES_ARE_COLUMN else 1
        n_cycles = count if form & _CYCLES_ARE_COLUMN else 1
        rest = data[_STATES_LAYOUT.width :]
        columns_bytes = n_states + 4 * n_cycles
        if not count or len(rest) < columns_bytes:
            raise DecodeError("the length of an item-states row does not match its form")
        if (len(rest) > columns_bytes) is not bool(form & _HAS_REMAINDERS):
            raise DecodeError("the length of an item-states row does not match its form")
        remainders = Remainders.none()
        if form & _HAS_REMAINDERS:
            remainders = Remainders.decode(rest[columns_bytes:])
            if remainders.items[-1] >= count:
                raise DecodeError("a remainder of an item that is not there")
        states = np.frombuffer(rest, dtype=np.uint8, count=n_states)
        cycles = np.frombuffer(rest, dtype="<u4", count=n_cycles, offset=n_states)
        if n_states != count:
            states = np.full(count, states[0], dtype=np.uint8)
        if n_cycles != count:
            cycles = np.full(count, cycles[0], dtype=np.uint32)
        decoded = cls(head["submitter"], states, cycles.astype(np.uint32), remainders)
        if decoded.encode() != data:
            raise DecodeError("not the canonical form of an item-states row")
        return decoded

    def moved(self, items: Numbers, target: ObligationState, cycle: int = 0) -> Self:
        """Return the states after `items` moved to `target` (and into or out of `cycle`).

        Raises: InvariantViolation: the lifecycle has no such move; the caller has to select before.
        """
        invariant(
            bool(LIFECYCLE.mask_of(self.states[items], target).all()),
            f"obligations cannot move to {target.name}",
        )
        states, cycles = self.states.copy(), self.cycles.copy()
        states[items] = target
        cycles[items] = cycle
        remainders = self.remainders
        if len(remainders):
            remainders = remainders.where(~IS_TERMINAL[states[remainders.items]])
        return type(self)(self.submitter, states, cycles, remainders)

    def held_by(self, cycle: int) -> Numbers:
        """Return the items that a running cycle holds."""
        held: Numbers = np.flatnonzero(
            (self.cycles == cycle) & (self.states == ObligationState.LOCKED)
        )
        return held

    def released(self, items: Numbers) -> Self:
        """Return the states after locked `items` went back to where their cycle took them from."""
        if not len(self.remainders):
            return self.moved(items, ObligationState.AFFIRMED)
        in_part = np.isin(items, self.remainders.items)
        back = self.moved(items[~in_part], ObligationState.AFFIRMED)
        return back.moved(items[in_part], ObligationState.PARTLY_DISCHARGED)

    def partly_discharged(self, items: Numbers, lo: U64, hi: U64) -> Self:
        """Return the states after locked `items` were discharged but for lo + hi * 2^64 units each."""
        moved = self.moved(items, ObligationState.PARTLY_DISCHARGED)
        return replace(moved, remainders=moved.remainders.with_items(items, lo, hi))

    @property
    def is_closed(self) -> bool:
        """Whether nothing can happen to any item any more."""
        return not self.states.tobytes().translate(None, _TERMINAL)


@dataclass(frozen=True, slots=True, eq=False)
class BookChunk:
    """One submission's part of the open book: its columns grouped by asset, filled once at ingest.

    items: int64[n], the item number of each row; within an asset ascending. rows: int64[n], the row of each item.
    asset_rows: (asset, first row, end row), ascending by asset. debtor, creditor: uint32[n]; lo, hi: uint64[n], the
    amount; due_ms: uint64[n]; flags: uint8[n], None where none is set.
    """

    items: Numbers
    rows: Numbers
    debtor: U32
    creditor: U32
    lo: U64
    hi: U64 | None
    priority: U8
    flags: U8 | None
    due_ms: U64
    asset_rows: tuple[tuple[int, int, int], ...]

    @classmethod
    def of_items(cls, items: Items) -> Self:
        """Group the records of one submission by asset; their order within an asset stays."""
        asset = np.ascontiguousarray(items["asset"])
        if (asset == asset[0]).all():
            order = inverse = np.arange(len(items))
            bounds: tuple[tuple[int, int, int], ...] = ((int(asset[0]), 0, len(items)),)
        else:
            order = np.argsort(asset, kind="stable")
            inverse = np.empty_like(order)
            inverse[order] = np.arange(len(items))
            items = items[order]
            numbers, starts = np.unique(items["asset"], return_index=True)
            ends = [*starts[1:].tolist(), len(items)]
            bounds = tuple(zip(numbers.tolist(), starts.tolist(), ends, strict=True))
        hi = items["amount_hi"].astype(np.uint64)
        return cls(
            items=order,
            rows=inverse,
            debtor=items["debtor"].astype(np.uint32),
            creditor=items["creditor"].astype(np.uint32),
            lo=items["amount_lo"].astype(np.uint64),
            hi=hi if hi.any() else None,
            priority=items["priority"].astype(np.uint8),
            flags=items["flags"].astype(np.uint8) if items["flags"].any() else None,
            due_ms=items["due_ms"].astype(np.uint64),
            asset_rows=bounds,
        )

    def with_remainders(self, remainders: Remainders) -> Self:
        """Return the part of the book with what is left of items as their amounts."""
        if not len(remainders):
            return self
        rows = self.rows[remainders.items]
        lo = self.lo.copy()
        lo[rows] = remainders.lo
        # What is left is less than what was: where no amount needed a high half, none does now.
        hi = None if self.hi is None else self.hi.copy()
        if hi is not None:
            hi[rows] = remainders.hi
        return replace(self, lo=lo, hi=hi)

    def select(self, items: Numbers) -> Iterator[tuple[int, AssetColumns]]:
        """Yield (asset, columns) of `items`, ascending by asset, within an asset by item number.

        Costs what is selected, not what there is; where all is selected the columns are views, not copies.
        """
        for asset, _, columns in self.numbered(items):
            yield asset, columns

    def numbered(self, items: Numbers) -> Iterator[tuple[int, Numbers, AssetColumns]]:
        """Yield (asset, item numbers, columns) of `items`; as `select`."""
        if len(items) == len(self.items):
            for asset, start, end in self.asset_rows:
                yield asset, self.items[start:end], self._columns(slice(start, end))
            return
        rows = np.sort(self.rows[items])
        for asset, start, end in self.asset_rows:
            first, last = np.searchsorted(rows, (start, end)).tolist()
            if first < last:
                chosen = rows[first:last]
                yield asset, self.items[chosen], self._columns(chosen)

    def _columns(self, rows: slice | Numbers) -> AssetColumns:
        return AssetColumns(
            debtor=self.debtor[rows],
            creditor=self.creditor[rows],
            lo=self.lo[rows],
            hi=None if self.hi is None else self.hi[rows],
            priority=self.priority[rows],
        )

    def participants(self) -> list[int]:
        """Return the registry numbers that occur, ascending."""
        if len(self.items) <= _FEW_ITEMS:
            return sorted({*self.debtor.tolist(), *self.creditor.tolist()})
        numbers: list[int] = np.unique(np.concatenate((self.debtor, self.creditor))).tolist()
        return numbers

    def other_party(self, submitter: int, items: Numbers) -> U32:
        """Return, for each of `items`, the party that is not the submitter."""
        rows = self.rows[items]
        debtor = self.debtor[rows]
        return np.where(debtor == submitter, self.creditor[rows], debtor)

    def both(self, flags: Mask, items: Numbers) -> Mask:
        """Return, for each of `items`, whether debtor and creditor both have their flag, by registry number, set."""
        rows = self.rows[items]
        met: Mask = flags[self.debtor[rows]] & flags[self.creditor[rows]]
        return met

    def next_expiry_ms(self, states: ItemStates) -> int:
        """Return the earliest due time of an unaffirmed item, 0 when none has one."""
        if not self.due_ms.any():
            return 0
        waiting = (states.states[self.items] == ObligationState.PROPOSED) & (self.due_ms > 0)
        return int(self.due_ms[waiting].min()) if waiting.any() else 0

    def due_items(self, states: ItemStates, time_ms: int) -> Numbers:
        """Return the unaffirmed items that lapse at block time `time_ms`."""
        waiting = np.flatnonzero(states.states == ObligationState.PROPOSED)
        due_ms = self.due_ms[self.rows[waiting]]
        lapsed: Numbers = waiting[(due_ms > 0) & (due_ms <= np.uint64(time_ms))]
        return lapsed


def validate_items(
    items: Items,
    submitter: int,
    *,
    may_owe: Mask,
    licensed: Mask,
    assets: int,
    time_ms: int,
    mining: tuple[int, Mask] | None = None,
) -> U16:
    """Return the RejectCode of each item, 0 for a good one; where several apply, the lowest.

    may_owe, licensed: bool[participants], by registry number. assets: number registered. mining: the asset that may be paid
    with mined coin and who are miners, bool[participants]; None where none may. One pass of array operations; no Python
    object an item.
    """
    codes = np.zeros(len(items), dtype=np.uint16)
    debtor = items["debtor"].astype(np.int64)
    creditor = items["creditor"].astype(np.int64)
    last = len(may_owe) - 1
    due = items["due_ms"]
    known = (debtor <= last) & (creditor <= last)
    debtor_row, creditor_row = np.minimum(debtor, last), np.minimum(creditor, last)
    # written from the highest code to the lowest, so that the lowest stands
    flagged = items["flags"] != 0
    faults: tuple[tuple[RejectCode, Mask], ...] = (
        (RejectCode.DUE_PASSED, (due > 0) & (due <= np.uint64(time_ms))),
        (RejectCode.ZERO_AMOUNT, (items["amount_lo"] == 0) & (items["amount_hi"] == 0)),
        (RejectCode.UNKNOWN_ASSET, items["asset"] >= assets),
        (RejectCode.PARTICIPANT_NOT_LICENSED, ~(licensed[debtor_row] & licensed[creditor_row])),
        (RejectCode.UNKNOWN_PARTICIPANT, ~(known & may_owe[debtor_row] & may_owe[creditor_row])),
        (RejectCode.SUBMITTER_NOT_PARTY, (debtor != submitter) & (creditor != submitter)),
        (RejectCode.SAME_PARTY, debtor == creditor),
        (RejectCode.ITEM_FLAGS, flagged if mining is None else _bad_flags(items, mining[0])),
        (RejectCode.ITEM_KIND, (items["kind"] < _KIND_FIRST) | (items["kind"] > _KIND_LAST)),
        (RejectCode.ITEM_VERSION, items["version"] != ITEM_VERSION),
    )
    if mining is not None and flagged.any():
        faults = ((RejectCode.NOT_A_MINER, flagged & ~mining[1][debtor_row]), *faults)
    for code, fault in faults:
        if fault.any():
            codes[fault] = code
    return codes


def _bad_flags(items: Items, mined_asset: int) -> Mask:
    """Return whose flags are neither none nor MINED_COIN on an obligation in the asset that is mined."""
    flags = items["flags"]
    bad: Mask = (flags > MINED_COIN) | ((flags == MINED_COIN) & (items["asset"] != mined_asset))
    return bad


@dataclass(frozen=True, slots=True, eq=False)
class Selected:
    """What a selection came to: the items when code is OK, else the first bad items with codes."""

    code: RejectCode
    items: Numbers
    bad: tuple[tuple[int, RejectCode], ...] = ()
    bad_items: int = 0


BAD_ITEMS_SHOWN = 100


def lowest_code(codes: U16) -> RejectCode:
    """Return the lowest code above OK that any item has, or OK where none has one."""
    faults = codes[codes > 0]
    return RejectCode(int(faults.min())) if len(faults) else RejectCode.OK


def bad_items(codes: U16) -> tuple[tuple[tuple[int, RejectCode], ...], int]:
    """Return the first BAD_ITEMS_SHOWN bad rows of `codes` with their codes, and the number of all."""
    rows = np.flatnonzero(codes)
    shown = tuple((int(row), RejectCode(int(codes[row]))) for row in rows[:BAD_ITEMS_SHOWN])
    return shown, len(rows)


def select_items(
    selection: ItemSelection,
    states: ItemStates,
    may_move: Callable[[Numbers], Mask],
    origins: tuple[ObligationState, ...],
) -> Selected:
    """Resolve which items an instruction moves.

    may_move: of some items, which are the actor's to move. origins: the states out of which the instruction moves
    items; fewer than the lifecycle has for its target, where some moves are nobody's to ask for. Without ranges, all
    that may move are taken; with ranges, every named item must qualify; the code is the lowest that applies to any.
    """
    is_origin = np.zeros(256, dtype=np.bool_)
    is_origin[[int(origin) for origin in origins]] = True
    if not selection.ranges:
        movable = np.flatnonzero(is_origin[states.states])
        items = movable[may_move(movable)]
        return Selected(RejectCode.OK if len(items) else RejectCode.NOTHING_SELECTED, items)
    count = states.count
    named = np.concatenate([np.arange(a, min(b + 1, count)) for a, b in selection.ranges])
    codes = np.zeros(len(named), dtype=np.uint16)
    codes[~is_origin[states.states[named]]] = RejectCode.ITEM_STATE
    codes[~may_move(named)] = RejectCode.NOT_A_PARTY
    lowest = lowest_code(codes)
    # Items past the end have no row to carry a code, and no place in the list of bad ones.
    if selection.ranges[-1][1] >= count and lowest is not RejectCode.NOT_A_PARTY:
        return Selected(RejectCode.UNKNOWN_ITEM, named)
    shown, bad = bad_items(codes)
    return Selected(lowest, named, tuple((int(named[at]), code) for at, code in shown), bad)
