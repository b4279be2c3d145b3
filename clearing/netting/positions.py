"""Net positions: what each participant receives (+) or pays (-) when all obligations of an asset are set off.

Lives here: how a book is cut into work, summed and put together, and the views of the sums. May not live here:
the loops themselves (position_kernels) and any choice of which obligations settle.
Invariants kept: no position is given out of which a row is bad; sums are exact; the positions of an asset add up to
zero; the result does not depend on row order, engine, tier, pieces or threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.netting import wide
from clearing.netting.columns import (
    NO_ROW,
    AssetColumns,
    Book,
    Tier,
    check_participants,
    invalid_row,
    tier_of,
)
from clearing.netting.engine import DEFAULT, Engine, Runner, in_turn
from clearing.netting.position_kernels import GROUP, KERNELS, TOO_WIDE, sum_numpy

U64: TypeAlias = NDArray[np.uint64]
I64: TypeAlias = NDArray[np.int64]

_ZERO: Final = np.uint64(0)


@dataclass(frozen=True, slots=True, eq=False)
class Positions:
    """The net positions of one asset.

    cells: uint64[participants, tier], two's complement little-endian limbs; + receives, - pays.
    gross: the sum of all amounts. tier: the limbs in which they were summed.
    """

    cells: U64
    gross: int

    @property
    def tier(self) -> Tier:
        """The arithmetic that ran."""
        return Tier(self.cells.shape[1])

    @property
    def net(self) -> U64:
        """The positions as a wide array, uint64[participants, 3]."""
        return wide.extend(self.cells)

    def ints(self) -> list[int]:
        """The positions as Python integers, by participant number."""
        return wide.to_ints(self.net)

    def net_total(self) -> int:
        """Sum the positive positions: what must move when everything is netted."""
        net = self.net
        return wide.total(net[wide.sign(net) > 0])

    def novation(self) -> tuple[U64, U64]:
        """View the positions as obligations to and from one central account.

        Returns: (pay_in, pay_out), wide arrays without negative entries, by participant number: what each owes
        the account and what the account owes it. At most one of the two is not zero; their totals are equal.
        """
        net = self.net
        sign = wide.sign(net)[:, np.newaxis]
        return np.where(sign < 0, wide.negate(net), _ZERO), np.where(sign > 0, net, _ZERO)


def net_positions(
    columns: AssetColumns,
    participants: int,
    *,
    engine: Engine = DEFAULT,
    runner: Runner = in_turn,
    pieces: int = 1,
) -> Positions:
    """Net all obligations of one asset.

    participants: ids in the columns are below it. pieces: how many parts the rows are cut into for `runner`;
    two or more pay above about a million rows and with a runner that has as many threads.

    Returns: positions of all participants; zero for those without obligations.
    Raises: InvalidRow: the first bad row. InvalidColumns: `participants` out of range.
    Source: own design; multilateral netting is a sum, so sharding cannot change it.
    """
    book = Book(columns, np.array([0, columns.rows], np.int64))
    return net_book(book, participants, engine=engine, runner=runner, pieces=pieces)[0]


def net_book(
    book: Book,
    participants: int,
    *,
    engine: Engine = DEFAULT,
    runner: Runner = in_turn,
    pieces: int = 1,
) -> list[Positions]:
    """Net all obligations of many assets; as `net_positions` for each, in fewer calls.

    Returns: the positions by asset number.
    Raises: InvalidRow: the first bad row, counted in `book.columns`. InvalidColumns.
    """
    check_participants(participants)
    columns = _for_kernels(book.columns, participants)
    rows = columns.rows
    ends = [rows * piece // pieces for piece in range(pieces + 1)]
    runs = [(a, b) for a, b in pairwise(ends) if a < b]

    def net_run(run: tuple[int, int]) -> list[_Part]:
        return _net_run(columns, book.start, run, participants, engine)

    parts = [part for answer in runner(net_run, runs) for part in answer]
    bad = [part.bad_row for part in parts if part.bad_row != NO_ROW]
    if bad:
        raise invalid_row(book.columns, min(bad), participants)
    return _join(parts, book.assets, participants)


def turnover(
    columns: AssetColumns,
    participants: int,
    *,
    engine: Engine = DEFAULT,
    runner: Runner = in_turn,
    pieces: int = 1,
) -> tuple[U64, U64]:
    """Sum what each participant owes and what it is owed, before netting.

    Costs two passes; net_positions alone is one.

    Returns: (debit, credit), wide arrays by participant number; credit - debit is the position, and a participant
    without obligations has zero in both.
    Raises: as `net_positions`.
    """
    net = net_positions(columns, participants, engine=engine, runner=runner, pieces=pieces).net
    # The same rows, owed to one more participant: positions of the debtors are then their debits.
    nobody = np.full(columns.rows, participants, np.uint32)
    owed = AssetColumns(columns.debtor.astype(np.uint32), nobody, columns.lo, columns.hi)
    debits = net_positions(owed, participants + 1, engine=engine, runner=runner, pieces=pieces)
    debit = wide.negate(debits.net[:participants])
    return debit, wide.add(net, debit)


def _for_kernels(columns: AssetColumns, participants: int) -> AssetColumns:
    """Give the kernels ids whose top bit is free, at addresses that can be read a word at a time."""
    debtor, creditor = columns.debtor, columns.creditor
    if debtor.dtype == np.uint16 and participants > 1 << 15:
        debtor, creditor = debtor.astype(np.uint32), creditor.astype(np.uint32)
    debtor, creditor = (
        ids if ids.ctypes.data % 8 == 0 else ids.copy() for ids in (debtor, creditor)
    )
    return AssetColumns(debtor, creditor, columns.lo, columns.hi)


class _Part(NamedTuple):
    """The sums of a run of rows of one asset; `bad_row` is NO_ROW or the first bad row."""

    asset: int
    positions: Positions
    bad_row: int


def _net_run(
    columns: AssetColumns, start: I64, run: tuple[int, int], participants: int, engine: Engine
) -> list[_Part]:
    """Sum the rows run[0]..run[1]-1, asset by asset; the first and the last asset may be there in part."""
    first = int(np.searchsorted(start, run[0], side="right")) - 1
    last = int(np.searchsorted(start, run[1], side="left"))
    bounds = np.clip(start[first : last + 1], run[0], run[1])
    narrow = _fit_one_word(columns.hi, bounds)
    parts: list[_Part] = []
    while len(parts) < len(narrow):
        begin = len(parts)
        end = begin + 1
        while end < len(narrow) and narrow[end] == narrow[begin]:
            end += 1
        tier = Tier.INT64 if narrow[begin] else Tier.INT128
        parts += _sum(columns, bounds[begin : end + 1], first + begin, participants, tier, engine)
    return parts


def _fit_one_word(hi: U64 | None, bounds: I64) -> list[bool]:
    """Say for each segment whether all its amounts are below 2^64."""
    if hi is None:
        return [True] * (bounds.shape[0] - 1)
    # numpy reads a whole array before it answers: most segments show in their first words that they do not fit.
    firsts = hi[np.minimum(bounds[:-1], hi.shape[0] - 1)] != _ZERO
    return [
        a == b or not (is_wide or hi[a:b][:GROUP].any() or hi[a:b].any())
        for is_wide, (a, b) in zip(firsts.tolist(), pairwise(bounds.tolist()), strict=True)
    ]


def _sum(
    columns: AssetColumns, bounds: I64, asset: int, participants: int, tier: Tier, engine: Engine
) -> list[_Part]:
    """Sum the segments between `bounds` in `tier`, and those whose gross total is too great for it in the next."""
    segments = bounds.shape[0] - 1
    cells = np.empty((segments, participants, tier), np.uint64)
    gross = np.zeros((segments, 4), np.uint64)
    state = np.full(segments, NO_ROW, np.int64)
    compiled = KERNELS[tier]
    hi = columns.hi
    if hi is None:
        hi = np.zeros(0 if tier is Tier.INT64 else columns.rows, np.uint64)
    engine.choose(compiled, sum_numpy)(
        columns.debtor, columns.creditor, columns.lo, hi, bounds, cells, gross, state
    )
    parts: list[_Part] = []
    totals, states = gross.tolist(), state.tolist()
    for is_too_wide, run in groupby(range(segments), lambda segment: states[segment] == TOO_WIDE):
        found = list(run)
        if is_too_wide:
            again = bounds[found[0] : found[-1] + 2]
            wider = Tier(tier + 1)
            parts += _sum(columns, again, asset + found[0], participants, wider, engine)
            continue
        for segment in found:
            low, second, third, top = totals[segment]
            total = low + (second << 32) + (third << 64) + (top << 96)
            positions = Positions(cells[segment], total)
            parts.append(_Part(asset + segment, positions, states[segment]))
    return parts


def _join(parts: Sequence[_Part], assets: int, participants: int) -> list[Positions]:
    """Add the parts of each asset; an asset without rows gets zeros."""
    joined: list[Positions | None] = [None] * assets
    for part in parts:
        have = joined[part.asset]
        joined[part.asset] = part.positions if have is None else _add(have, part.positions)
    return [
        Positions(np.zeros((participants, 1), np.uint64), 0) if have is None else have
        for have in joined
    ]


def _add(a: Positions, b: Positions) -> Positions:
    gross = a.gross + b.gross
    tier = max(a.tier, b.tier, tier_of(gross))
    return Positions(np.ascontiguousarray(wide.add(a.net, b.net)[:, :tier]), gross)
