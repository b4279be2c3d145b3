"""Set-off written down again in plain Python, and graphs whose answer is known.

Lives here: the oracle (cancel circles that gain until there is none), checks of a discharge by definition, and fixed
graphs. Shares no code with clearing/netting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from clearing.netting import wide
from tests.clearing.netting import netting_kit as kit
from tests.clearing.netting.netting_kit import Row, Table


def greatest(table: Table, liquidity: Sequence[int] | None = None) -> int:
    """The value of the greatest set-off: Bellman and Ford find a circle that gains, it is filled, and so on."""
    money = table.participants
    ends = [(row.debtor, row.creditor, row.amount, 1) for row in table.rows]
    if liquidity is not None:
        unlimited = 1 << 200
        for number, balance in enumerate(liquidity):
            ends += [(number, money, unlimited, 0), (money, number, balance, 0)]
    # Arc 2i is row i, arc 2i + 1 takes it back.
    arcs = [arc for u, v, _, gain in ends for arc in ((u, v, gain), (v, u, -gain))]
    room = [amount for _, _, amount, _ in ends for amount in (amount, 0)]
    while circle := gaining_circle(arcs, room, money + 1):
        flow = min(room[arc] for arc in circle)
        for arc in circle:
            room[arc] -= flow
            room[arc ^ 1] += flow
    return sum(room[1::2][: len(table.rows)])


def gaining_circle(
    arcs: list[tuple[int, int, int]], room: list[int], vertices: int
) -> list[int] | None:
    """A circle of arcs with room whose gains sum to more than zero."""
    best, came_by = [0] * vertices, [-1] * vertices
    for _ in range(vertices):
        changed = -1
        for arc, (u, v, gain) in enumerate(arcs):
            if room[arc] and best[u] + gain > best[v]:
                best[v], came_by[v], changed = best[u] + gain, arc, v
        if changed < 0:
            return None
    vertex = changed
    for _ in range(vertices):
        vertex = arcs[came_by[vertex]][0]
    circle, start = [came_by[vertex]], vertex
    while arcs[circle[-1]][0] != start:
        circle.append(came_by[arcs[circle[-1]][0]])
    return circle


def check_discharge(table: Table, lost: list[int], liquidity: Sequence[int] | None) -> None:
    """No obligation loses more than it is; nobody pays more than it may; of parallel ones the first lose first."""
    lost_rows = [
        Row(row.debtor, row.creditor, gone)
        for row, gone in zip(table.rows, lost, strict=True)
        if 0 <= gone <= row.amount
    ]
    assert len(lost_rows) == len(lost)
    moved = kit.net(lost_rows, table.participants)
    assert all(m + b >= 0 for m, b in zip(moved, liquidity or [0] * len(moved), strict=True))
    unfinished = set()
    for place in kit.queue_order(table.rows):
        pair = table.rows[place].debtor, table.rows[place].creditor
        assert not (pair in unfinished and lost[place])
        if lost[place] < table.rows[place].amount:
            unfinished.add(pair)


def totals(table: Table, lost: list[int]) -> dict[tuple[int, int], int]:
    """What is set off between each two participants."""
    sums: dict[tuple[int, int], int] = {}
    for row, gone in zip(table.rows, lost, strict=True):
        sums[row.debtor, row.creditor] = sums.get((row.debtor, row.creditor), 0) + gone
    return sums


def wide_liquidity(amounts: Sequence[int] | None) -> np.ndarray | None:
    return None if amounts is None else wide.from_ints(amounts)


def numbers(seed: int) -> Iterator[int]:
    """The generator of Numerical Recipes (2nd edition, 7.1, ranqd1), upper 24 bits: equal on every machine."""
    state = seed
    while True:
        state = (state * 1664525 + 1013904223) % 2**32
        yield state >> 8


def table_of(participants: int, rows: Sequence[tuple[int, int, int]]) -> Table:
    nothing = (0,) * participants
    return Table(participants, tuple(Row(*row) for row in rows), nothing, nothing)


def scale_free(participants: int, rows: int, seed: int) -> Table:
    """Debtors and creditors by preference for those who have many already; amounts over five decimal places."""
    draw = numbers(seed)
    made: list[tuple[int, int, int]] = []
    while len(made) < rows:
        ends = []
        for _ in range(2):
            old = made[next(draw) % len(made)][next(draw) % 2] if made and next(draw) % 4 else None
            ends.append(next(draw) % participants if old is None else old)
        amount = 1 + next(draw) % 10 ** (1 + next(draw) % 5)
        if ends[0] != ends[1]:
            made.append((ends[0], ends[1], amount))
    return table_of(participants, made)


def nested_circles(participants: int) -> tuple[Table, int]:
    """A chain of thick obligations and circles inside circles along it, and their greatest set-off, all of them."""
    chain = [(number, number + 1, 10**9) for number in range(participants - 1)]
    back = [
        (participants - 1 - number, number, 1 + number * number % 997)
        for number in range(participants // 2)
    ]
    value = sum(amount * (debtor - creditor + 1) for debtor, creditor, amount in back)
    return table_of(participants, chain + back), value


def ring(participants: int) -> Table:
    """Everybody owes both neighbours."""
    draw = numbers(11)
    rows = [
        (number, (number + step) % participants, 1 + next(draw) % 10000)
        for step in (1, participants - 1)
        for number in range(participants)
    ]
    return table_of(participants, rows)
