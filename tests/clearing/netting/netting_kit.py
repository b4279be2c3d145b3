"""Netting written down again in plain Python: lists, dictionaries and integers of any size, no arrays.

Lives here: one naive oracle for each method, the tables that hypothesis makes for all of them, and the engines that a
test runs on. The oracles follow the definitions and share no code with clearing/netting.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from clearing.netting.columns import AssetColumns
from clearing.netting.engine import HAS_NUMBA, Engine
from clearing.netting.limits import Limits

ENGINES = list(Engine) if HAS_NUMBA else [Engine.PORTABLE]

EDGES = [
    *(1, 2, 2**31, 2**32 - 1, 2**32, 2**57 - 1, 2**57, 2**57 + 1),
    *(2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**64 + 1),
    *(2**96, 2**127 - 1, 2**127, 2**127 + 1, 2**128 - 2, 2**128 - 1),
]
"""Amounts on both sides of every boundary of the kernels and tiers."""

NO_CAP = 1 << 200


@dataclass(frozen=True)
class Row:
    """One obligation."""

    debtor: int
    creditor: int
    amount: int
    priority: int = 0


@dataclass(frozen=True)
class Table:
    """The obligations of one asset and the limits of its participants."""

    participants: int
    rows: tuple[Row, ...]
    liquidity: tuple[int, ...]
    caps: tuple[int, ...]

    @property
    def columns(self) -> AssetColumns:
        return columns_of(self.rows)

    @property
    def limits(self) -> Limits:
        caps = {number: cap for number, cap in enumerate(self.caps) if cap != NO_CAP}
        return Limits.of(self.participants, dict(enumerate(self.liquidity)), caps)

    @property
    def allowed(self) -> list[int]:
        return [min(pair) for pair in zip(self.liquidity, self.caps, strict=True)]


def columns_of(rows: Iterable[Row]) -> AssetColumns:
    rows = list(rows)
    return AssetColumns.of(
        [row.debtor for row in rows],
        [row.creditor for row in rows],
        [row.amount for row in rows],
        [row.priority for row in rows],
    )


def narrow(columns: AssetColumns) -> AssetColumns:
    """The same table with ids of 16 bits."""
    debtor, creditor = columns.debtor.astype(np.uint16), columns.creditor.astype(np.uint16)
    return AssetColumns(debtor, creditor, columns.lo, columns.hi, columns.priority)


@st.composite
def tables(draw: st.DrawFn, rows_max: int = 24, participants_max: int = 5) -> Table:
    """Tables with amounts of one size, so that queues gridlock, or on the edges of the tiers."""
    participants = draw(st.integers(2, participants_max))
    greatest = draw(st.sampled_from([3, 100, 2**57, 2**63, 2**64, 2**127, 2**128 - 1]))
    amounts = st.integers(1, greatest) | st.sampled_from([e for e in EDGES if e <= greatest])
    priorities = st.integers(0, 2) if draw(st.booleans()) else st.just(0)
    numbers = st.integers(0, participants - 1)
    rows = st.builds(
        lambda debtor, step, amount, priority: Row(
            debtor, (debtor + step) % participants, amount, priority
        ),
        numbers,
        st.integers(1, participants - 1),
        amounts,
        priorities,
    )
    sizes = {"min_size": participants, "max_size": participants}
    return Table(
        participants,
        tuple(draw(st.lists(rows, max_size=rows_max))),
        tuple(draw(st.lists(st.just(0) | amounts, **sizes))),
        tuple(draw(st.lists(st.just(NO_CAP) | st.just(0) | amounts, **sizes))),
    )


def net(rows: Iterable[Row], participants: int) -> list[int]:
    positions = [0] * participants
    for row in rows:
        positions[row.debtor] -= row.amount
        positions[row.creditor] += row.amount
    return positions


def queue_order(rows: tuple[Row, ...]) -> list[int]:
    return sorted(range(len(rows)), key=lambda place: (-rows[place].priority, place))


def feasible(rows: Iterable[Row], allowed: list[int]) -> bool:
    positions = net(rows, len(allowed))
    return all(position + limit >= 0 for position, limit in zip(positions, allowed, strict=True))


def gridlock_by_definition(table: Table) -> set[int]:
    """The union of all feasible sets of queue heads: every combination is tried."""
    queues: list[list[int]] = [[] for _ in range(table.participants)]
    for place in queue_order(table.rows):
        queues[table.rows[place].debtor].append(place)
    greatest: set[int] = set()
    for heads in itertools.product(*(range(len(queue) + 1) for queue in queues)):
        chosen = [
            place for queue, head in zip(queues, heads, strict=True) for place in queue[:head]
        ]
        if feasible((table.rows[place] for place in chosen), table.allowed):
            greatest.update(chosen)
    return greatest


def gridlock(table: Table, allowed: list[int], queued: Iterable[int]) -> set[int]:
    """Take the last payment of the first overdrawn payer out, look at everything again, until nobody is."""
    kept = list(queued)
    while True:
        positions = net((table.rows[place] for place in kept), table.participants)
        overdrawn = [i for i, position in enumerate(positions) if position + allowed[i] < 0]
        if not overdrawn:
            return set(kept)
        mine = [place for place in kept if table.rows[place].debtor == overdrawn[0]]
        kept.remove(mine[-1])


def bypass(table: Table, passes_max: int) -> tuple[set[int], list[int]]:
    """Settled rows, and the balances that are left."""
    left, settled = table.allowed, set[int]()
    for _ in range(passes_max):
        before = len(settled)
        for place in queue_order(table.rows):
            row = table.rows[place]
            if place not in settled and left[row.debtor] >= row.amount:
                left[row.debtor] -= row.amount
                left[row.creditor] += row.amount
                settled.add(place)
        if len(settled) == before:
            break
    return settled, left


def bilateral(table: Table) -> tuple[list[tuple[int, int, int, int]], list[int]]:
    """Pairs as (debtor, creditor, net, set off each way), and what each row loses."""
    owed: dict[tuple[int, int], int] = {}
    for row in table.rows:
        owed[row.debtor, row.creditor] = owed.get((row.debtor, row.creditor), 0) + row.amount
    pairs, left = [], {}
    for one, other in sorted({(min(pair), max(pair)) for pair in owed}):
        there, back = owed.get((one, other), 0), owed.get((other, one), 0)
        left[one, other] = left[other, one] = min(there, back)
        ends = (one, other) if there >= back else (other, one)
        pairs.append((*ends, abs(there - back), min(there, back)))
    lost = [0] * len(table.rows)
    for place in queue_order(table.rows):
        row = table.rows[place]
        lost[place] = min(row.amount, left[row.debtor, row.creditor])
        left[row.debtor, row.creditor] -= lost[place]
    return pairs, lost
