"""Bilateral netting of one asset: ours against numpy's sort and against group-bys of what people would use.

Ours gives more than it is compared by: what each obligation loses, in queue order. The others sum what is owed each way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contest import OURS, REFERENCE, Case, Goal, hold, timed
from benchmarks.floor import THREADS, floors_or_none
from benchmarks.netting import PEER_ROWS_MAX, in_limbs
from benchmarks.obligations import Shape, bits_of_sums, book_of, bytes_of
from benchmarks.peers.remote import peers
from clearing.netting import wide
from clearing.netting.bilateral import Bilateral, bilateral
from clearing.netting.columns import AssetColumns
from clearing.netting.engine import DEFAULT, Engine

PORTABLE_ROWS_MAX = 1_000_000
HALF, LOW = np.uint64(32), np.uint64(2**32 - 1)


def cells_of(columns: AssetColumns, participants: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Number the ordered pairs: cells 2k and 2k + 1 are the two directions of pair k.

    Returns: the cell of each row, and lesser * participants + greater of each pair, ascending.
    """
    debtor, creditor = columns.debtor.astype(np.int64), columns.creditor.astype(np.int64)
    keys = np.minimum(debtor, creditor) * participants + np.maximum(debtor, creditor)
    pairs, pair = np.unique(keys, return_inverse=True)
    return 2 * pair + (debtor > creditor), pairs


def owed_by_ours(answer: Bilateral) -> NDArray[np.uint64]:
    """Return what is owed each way, uint64[cells, 2], from nets and set-offs."""
    pairs = answer.pairs
    whole = wide.add(pairs.net, pairs.set_off)[:, :2]
    part = pairs.set_off[:, :2]
    back = (pairs.debtor > pairs.creditor)[:, np.newaxis]
    both = np.stack([np.where(back, part, whole), np.where(back, whole, part)], axis=1)
    return both.reshape(-1, 2)


def numpy_sort(columns: AssetColumns, participants: int) -> NDArray[np.uint64]:
    """Sum what is owed each way with a stable sort and reduceat, as numpy has it."""
    debtor, creditor = columns.debtor.astype(np.int64), columns.creditor.astype(np.int64)
    keys = np.minimum(debtor, creditor) * participants + np.maximum(debtor, creditor)
    keys = 2 * keys + (debtor > creditor)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    first = np.flatnonzero(np.diff(ordered, prepend=-1))
    cells = ordered[first]
    places = [columns.lo]
    if columns.hi is not None:
        places = [columns.lo & LOW, columns.lo >> HALF, columns.hi & LOW, columns.hi >> HALF]
    sums = [np.add.reduceat(place[order], first) for place in places]
    pairs = np.unique(cells >> 1)
    where = 2 * np.searchsorted(pairs, cells >> 1) + (cells & 1)
    owed = np.zeros((len(places), 2 * len(pairs)), np.uint64)
    owed[:, where] = sums
    if len(places) == 1:
        return np.stack([owed[0], np.zeros_like(owed[0])], axis=1)
    middle = owed[1] + (owed[0] >> HALF)
    high = owed[2] + (middle >> HALF)
    top = owed[3] + (high >> HALF)
    low_limb = (middle << HALF) | (owed[0] & LOW)
    return np.stack([low_limb, (top << HALF) | (high & LOW)], axis=1)


def contest(shape: Shape, *, quick: bool = False, goals: Sequence[Goal] = ()) -> Case:
    """Hold one contest; all rows are of one asset."""
    book, participants = book_of(shape), shape.participants
    columns = book.columns
    contenders = []
    if DEFAULT is Engine.COMPILED:
        work = timed("ours", OURS, lambda: bilateral(columns, participants), convert=owed_by_ours)
        contenders.append(work)
    if shape.rows <= PORTABLE_ROWS_MAX or not contenders:
        portable = timed(
            "ours, numpy",
            OURS,
            lambda: bilateral(columns, participants, engine=Engine.PORTABLE),
            convert=owed_by_ours,
        )
        contenders.append(portable)
    sort = timed("numpy sort", REFERENCE, lambda: numpy_sort(columns, participants))
    contenders.append(sort)
    few = shape.rows <= PEER_ROWS_MAX
    cell, pairs = cells_of(columns, participants) if few else (np.zeros(0), np.zeros(0))
    facts = {"bits_of_sums": bits_of_sums(book), "cells": 2 * len(pairs), "sides": ["cell"]}
    arrays = {"cell": cell, "lo": columns.lo[: len(cell)]}
    arrays["hi"] = None if columns.hi is None else columns.hi[: len(cell)]
    with ThreadPoolExecutor(THREADS) as pool, peers("sums", facts, arrays) as (found, absent):
        contenders = [*floors_or_none(book, pool), *contenders]
        if few:
            contenders += [in_limbs(contender) for contender in found]
        return hold(
            "bilateral",
            shape.facts(),
            shape.rows,
            contenders,
            rounds=3 if quick else 8,
            share_s=1 if quick else 20,
            gb_read=bytes_of(book) / 1e9,
            absent=absent,
            goals=goals,
        )


def standard(*, quick: bool) -> list[Callable[[], Case]]:
    """Return the cases of the report."""
    if quick:
        return [partial(contest, Shape(10_000, 100, 1), quick=True)]
    shapes = [Shape(10**power, 1_000, 1) for power in range(3, 8)]
    shapes += [Shape(10_000_000, 10_000, 1), Shape(1_000_000, 1_000, 1, 104)]
    goals = (Goal("numpy sort", 5),)
    return [
        partial(contest, shape, goals=goals if shape.rows == 10_000_000 else ()) for shape in shapes
    ]
