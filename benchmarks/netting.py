"""Net positions: ours against the read floor, against the same loop in C, numpy and Python, and against what people would use.

All read the same rows, grouped by asset. Ours validates every row; so does C.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contest import OURS, REFERENCE, Case, Contender, Goal, PeerAbsent, hold, timed
from benchmarks.floor import THREADS, floors, label, thread_counts
from benchmarks.obligations import Shape, bits_of_sums, book_of, bytes_of
from benchmarks.peers import native
from benchmarks.peers.remote import peers
from clearing.netting.columns import Book
from clearing.netting.engine import DEFAULT, Engine, in_turn
from clearing.netting.positions import Positions, net_book

PYTHON_ROWS_MAX = 1_000_000
ADD_AT_ROWS_MAX = 20_000_000
PEER_ROWS_MAX = 20_000_000


def limbs(positions: list[Positions]) -> NDArray[np.uint64]:
    """Return the positions of all assets, uint64[cells, 2], two's complement, to compare modulo 2^128."""
    return np.concatenate([p.net[:, :2] for p in positions])


def limbs_of_int64(cells: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Widen int64 cells to two limbs."""
    return np.stack([cells, cells >> 63], axis=1).view(np.uint64)


def ours(book: Book, participants: int, pool: ThreadPoolExecutor) -> list[Contender]:
    """Return our engine: one thread, all threads, and the numpy fallback."""

    def net(engine: Engine, pieces: int) -> Callable[[], list[Positions]]:
        runner = in_turn if pieces == 1 else pool.map
        return lambda: net_book(book, participants, engine=engine, runner=runner, pieces=pieces)

    found = [timed("ours, numpy", OURS, net(Engine.PORTABLE, 1), convert=limbs)]
    if DEFAULT is Engine.COMPILED:
        compiled = [
            timed(f"ours, {label(count)}", OURS, net(DEFAULT, count), convert=limbs)
            for count in thread_counts()
        ]
        return [*compiled, *found]
    return found


def split(start: NDArray[np.int64], parts: int) -> list[tuple[int, int]]:
    """Cut the assets into runs with about equally many rows."""
    ends = np.searchsorted(start, np.linspace(0, start[-1], parts + 1)[1:-1]).tolist()
    return [(a, b) for a, b in pairwise([0, *ends, len(start) - 1]) if a < b]


def fits(book: Book) -> bool:
    """Say whether every sum fits a signed integer of as many 64-bit limbs as an amount."""
    return bits_of_sums(book) <= (63 if book.columns.hi is None else 127)


def in_c(shape: Shape, book: Book, pool: ThreadPoolExecutor) -> list[Contender]:
    """Return the loop in C, on one thread and on all.

    Raises: PeerAbsent.
    """
    loaded, columns, participants = native.positions(), book.columns, shape.participants
    width = columns.debtor.dtype.itemsize * 8
    kind = "int64" if columns.hi is None else "int128"
    net = getattr(loaded, f"net_{kind}_u{width}")
    limb_count = 1 if columns.hi is None else 2
    cells = np.zeros((book.assets * participants, limb_count), np.uint64)
    given = [columns.debtor, columns.creditor, columns.lo, columns.hi, book.start]
    pointers = [native.pointer(array) for array in given if array is not None]

    def run_c(parts: int) -> NDArray[np.uint64]:
        cells.fill(0)

        def run(part: tuple[int, int]) -> int:
            first, last = (ctypes.c_int64(end) for end in part)
            return int(
                net(*pointers, first, last, ctypes.c_uint64(participants), native.pointer(cells))
            )

        each = map if parts == 1 else pool.map
        if max(each(run, split(book.start, parts))) >= 0:
            raise RuntimeError("C found a bad row")
        return cells

    def convert(answer: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return answer.copy() if limb_count == 2 else limbs_of_int64(answer[:, 0].view(np.int64))

    name = "C __int128" if limb_count == 2 else "C int64"
    return [
        timed(
            f"{name}, {label(count)}",
            REFERENCE,
            lambda count=count: run_c(count),
            convert=convert,
            exact=fits(book),
        )
        for count in thread_counts()
    ]


def add_at(book: Book, participants: int) -> NDArray[Any]:
    """Net with numpy's unbuffered addition, asset by asset; wide amounts as four columns of 32 bits."""
    answers = []
    for number in range(book.assets):
        columns = book.asset(number)
        places = [columns.lo.view(np.int64)]
        if columns.hi is not None:
            half = np.uint64(32)
            low = np.uint64(2**32 - 1)
            places = [columns.lo & low, columns.lo >> half, columns.hi & low, columns.hi >> half]
        sums = np.zeros((len(places), participants), np.int64)
        for total, place in zip(sums, places, strict=True):
            np.add.at(total, columns.creditor, place.view(np.int64))
            np.subtract.at(total, columns.debtor, place.view(np.int64))
        answers.append(sums)
    return np.concatenate(answers, axis=1)


def limbs_of_places(sums: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Join places of 32 bits into two limbs, modulo 2^128."""
    if len(sums) == 1:
        return limbs_of_int64(sums[0])
    half, low = np.int64(32), np.int64(2**32 - 1)
    carried = np.zeros_like(sums[0])
    digits = []
    for place in sums:
        carried = carried + place
        digits.append((carried & low).view(np.uint64))
        carried >>= half
    shift = np.uint64(32)
    pairs = [digits[0] | digits[1] << shift, digits[2] | digits[3] << shift]
    return np.stack(pairs, axis=1)


def python_integers(book: Book, participants: int) -> Callable[[], list[int]]:
    """Return the plain loop over Python integers: the oracle."""
    columns = book.columns
    asset = np.repeat(np.arange(book.assets), np.diff(book.start)) * participants
    rows = list(
        zip(
            (asset + columns.debtor).tolist(),
            (asset + columns.creditor).tolist(),
            columns.amounts(),
            strict=True,
        )
    )

    def run() -> list[int]:
        net = [0] * (book.assets * participants)
        for debtor, creditor, amount in rows:
            net[debtor] -= amount
            net[creditor] += amount
        return net

    return run


def limbs_of_integers(net: list[int]) -> NDArray[np.uint64]:
    """Pack Python integers into two limbs, modulo 2^128."""
    packed = b"".join((amount % (1 << 128)).to_bytes(16, "little") for amount in net)
    return np.frombuffer(packed, "<u8").reshape(-1, 2)


def contest(shape: Shape, *, quick: bool = False, goals: Sequence[Goal] = ()) -> Case:
    """Hold one contest over obligations of a shape."""
    book, participants = book_of(shape), shape.participants
    columns = book.columns
    asset = np.repeat(np.arange(book.assets, dtype=np.int64), np.diff(book.start)) * participants
    kind = np.int32 if book.assets * participants < 1 << 31 else np.int64
    arrays = {
        "debtor": (asset + columns.debtor).astype(kind),
        "creditor": (asset + columns.creditor).astype(kind),
        "lo": columns.lo,
        "hi": columns.hi,
    }
    facts = {
        "bits_of_sums": bits_of_sums(book),
        "cells": book.assets * participants,
        "sides": ["debtor", "creditor"],
    }
    if shape.rows > PEER_ROWS_MAX:
        arrays = {name: array[:0] if array is not None else None for name, array in arrays.items()}
    with ThreadPoolExecutor(THREADS) as pool, peers("sums", facts, arrays) as (found, absent):
        contenders = ours(book, participants, pool)
        try:
            contenders = [*floors(book, pool), *in_c(shape, book, pool), *contenders]
        except PeerAbsent as missing:
            absent["C, read floor"] = str(missing)
        if shape.rows <= ADD_AT_ROWS_MAX:
            work = timed(
                "numpy add.at",
                REFERENCE,
                lambda: add_at(book, participants),
                convert=limbs_of_places,
                exact=columns.hi is not None or fits(book),
            )
            contenders.append(work)
        if shape.rows <= PYTHON_ROWS_MAX:
            loop = python_integers(book, participants)
            contenders.append(timed("Python ints", REFERENCE, loop, convert=limbs_of_integers))
        if shape.rows > PEER_ROWS_MAX:
            absent |= {c.name: f"run up to {PEER_ROWS_MAX:,} rows" for c in found}
        else:
            contenders += [in_limbs(contender) for contender in found]
        return hold(
            "netting",
            shape.facts(),
            shape.rows,
            contenders,
            rounds=3 if quick else 12,
            share_s=1 if quick else 20,
            gb_read=bytes_of(book) / 1e9,
            absent=absent,
            goals=goals,
        )


def in_limbs(contender: Contender) -> Contender:
    """Let a peer's int64 answer be compared with limbs."""
    given = contender.answer

    def answer() -> Any:
        cells = None if given is None else given()
        return limbs_of_int64(cells) if cells is not None and cells.ndim == 1 else cells

    contender.answer = answer
    return contender


def standard(*, quick: bool) -> list[Callable[[], Case]]:
    """Return the cases of the report: sizes, shapes, widths, skew, and amounts at the edges of the arithmetic."""
    if quick:
        shapes = [Shape(10_000, 100, 8), Shape(10_000, 100, 8, 104), Shape(2_000, 10, 1, 62)]
        return [partial(contest, shape, quick=True) for shape in shapes]
    sought = [
        (Shape(), (Goal("floor", 1.8), Goal("peer", 15))),
        (Shape(participants=10_000, assets=200), (Goal("floor", 3),)),
        (Shape(bits=104), (Goal("floor", 2.4), Goal("peer", 12))),
        (Shape(participants=10_000, assets=200, bits=104), (Goal("floor", 3.6), Goal("peer", 12))),
    ]
    shapes = [Shape(10**power) for power in (3, 4, 5, 6, 8)]
    shapes += [Shape(participants=n, assets=a) for n, a in ((10, 1), (100, 8))]
    shapes += [Shape(participants=n, assets=a, skew=1.1) for n, a in ((1_000, 32), (10_000, 200))]
    shapes += [Shape(1_000_000, bits=127), Shape(hot_pair=True)]
    # Sums that pass 2^63 and 2^127: the arithmetic changes within the table.
    shapes += [Shape(1_000_000, 100, 1, 62), Shape(1_000_000, 100, 1, 126)]
    cases = [partial(contest, shape, goals=goals) for shape, goals in sought]
    return [*cases, *(partial(contest, shape) for shape in shapes)]
