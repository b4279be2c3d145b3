"""Gridlock resolution of one asset: ours, with the queues built, against rounds of numpy and a plain loop in Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contest import OURS, PEER, Case, Goal, hold, timed
from benchmarks.floor import THREADS, floors_or_none
from benchmarks.obligations import Shape, book_of, bytes_of
from clearing.netting.columns import AssetColumns
from clearing.netting.engine import DEFAULT, Engine
from clearing.netting.gridlock import Settlement, gridlock
from clearing.netting.limits import Limits

PYTHON_ROWS_MAX = 1_000_000
PARTS_PER_MILLION = 1_000_000


def liquidity_of(columns: AssetColumns, participants: int, prefunded_ppm: int) -> list[int]:
    """Give everybody the same liquidity, together so many millionths of the gross total."""
    gross = (
        sum(columns.amounts()) if columns.hi is not None else int(columns.lo.sum(dtype=np.uint64))
    )
    return [gross * prefunded_ppm // PARTS_PER_MILLION // participants] * participants


def numpy_rounds(columns: AssetColumns, liquidity: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Cut every overdrawn payer's queue to what its income pays, in rounds, until nobody is overdrawn."""
    debtor = columns.debtor.astype(np.int64)
    order = np.argsort(columns.debtor, kind="stable")
    amount = columns.lo.view(np.int64)[order]
    creditor = columns.creditor[order]
    ends = np.cumsum(np.bincount(debtor, minlength=len(liquidity)))
    begin = np.concatenate([[0], ends[:-1]])
    paid = np.concatenate([[0], np.cumsum(amount)])
    cut = ends.copy()
    income = np.zeros(len(liquidity), np.int64)
    np.add.at(income, creditor, amount)
    while True:
        reach = np.searchsorted(paid, paid[begin] + liquidity + income, side="right") - 1
        new = np.maximum(np.minimum(cut, reach), begin)
        gone = cut - new
        if not gone.any():
            break
        shift = np.repeat(new - np.concatenate([[0], np.cumsum(gone)[:-1]]), gone)
        rows = np.arange(gone.sum()) + shift
        np.subtract.at(income, creditor[rows], amount[rows])
        cut = new
    settled = np.zeros(len(order), np.bool_)
    settled[order[np.arange(len(order)) < np.repeat(cut, ends - begin)]] = True
    return settled


def python_loop(columns: AssetColumns, liquidity: list[int]) -> Any:
    """Return the loop over Python integers: take the last of an overdrawn payer's queue until nobody is."""
    rows = list(
        zip(columns.debtor.tolist(), columns.creditor.tolist(), columns.amounts(), strict=True)
    )

    def run() -> NDArray[np.bool_]:
        left = list(liquidity)
        queues: list[list[int]] = [[] for _ in left]
        for row, (debtor, creditor, amount) in enumerate(rows):
            queues[debtor].append(row)
            left[debtor] -= amount
            left[creditor] += amount
        overdrawn = [number for number, amount in enumerate(left) if amount < 0]
        settled = np.ones(len(rows), np.bool_)
        while overdrawn:
            payer = overdrawn.pop()
            while left[payer] < 0:
                row = queues[payer].pop()
                settled[row] = False
                _, creditor, amount = rows[row]
                left[payer] += amount
                left[creditor] -= amount
                if left[creditor] < 0:
                    overdrawn.append(creditor)
        return settled

    return run


def contest(
    shape: Shape,
    *,
    prefunded_ppm: int = 20_000,
    quick: bool = False,
    goals: Sequence[Goal] = (),
) -> Case:
    """Hold one contest; all rows are of one asset, liquidity is `prefunded_ppm` millionths of gross."""
    book, participants = book_of(shape), shape.participants
    columns = book.columns
    liquidity = liquidity_of(columns, participants, prefunded_ppm)
    limits = Limits.of(participants, dict(enumerate(liquidity)))

    def settled(answer: Settlement) -> NDArray[np.bool_]:
        return answer.settled

    contenders = [
        timed(
            f"ours, {engine.value}",
            OURS,
            lambda engine=engine: gridlock(columns, limits, engine=engine),
            convert=settled,
        )
        for engine in dict.fromkeys((DEFAULT, Engine.PORTABLE))
        if engine is DEFAULT or shape.rows <= PYTHON_ROWS_MAX
    ]
    if columns.hi is None and shape.bits + shape.rows.bit_length() < 63:
        available = np.array(liquidity, np.int64)
        contenders.append(timed("numpy", PEER, lambda: numpy_rounds(columns, available)))
    if shape.rows <= PYTHON_ROWS_MAX:
        contenders.append(timed("Python", PEER, python_loop(columns, liquidity)))
    pool = ThreadPoolExecutor(THREADS)
    contenders = [*floors_or_none(book, pool), *contenders]
    case = hold(
        "gridlock",
        shape.facts() | {"prefunded_percent": prefunded_ppm / 10_000},
        shape.rows,
        contenders,
        rounds=3 if quick else 10,
        share_s=1 if quick else 20,
        gb_read=bytes_of(book) / 1e9,
        goals=goals,
    )
    pool.shutdown()
    answer = gridlock(columns, limits).settled
    case.facts["settled"] = int(answer.sum())
    case.facts["name"] += f", {prefunded_ppm / 10_000:g} % prefunded, {int(answer.sum()):,} settle"
    return case


def standard(*, quick: bool) -> list[Callable[[], Case]]:
    """Return the cases of the report: sizes at 2 % prefunding, and the worst case of hardly any."""
    if quick:
        return [partial(contest, Shape(10_000, 100, 1), quick=True)]
    million = Shape(1_000_000, 1_000, 1)
    others = [Shape(10**power, 1_000, 1) for power in (3, 4, 5, 7)]
    return [
        partial(contest, million, goals=(Goal("ms", 10), Goal("numpy", 8))),
        partial(contest, million, prefunded_ppm=500, goals=(Goal("numpy", 8),)),
        *(partial(contest, shape) for shape in others),
        partial(contest, Shape(10_000_000, 1_000, 1), prefunded_ppm=500),
        partial(contest, Shape(1_000_000, 1_000, 1, 104)),
    ]
