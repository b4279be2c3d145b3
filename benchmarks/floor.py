"""The read floor: a pass over the same columns that reads every word and keeps one. No method can be faster."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contest import FLOOR, Contender, PeerAbsent, timed
from benchmarks.peers import native
from clearing.netting.columns import Book

THREADS = os.cpu_count() or 1


def thread_counts() -> list[int]:
    """Return 1 and all."""
    return sorted({1, THREADS})


def label(threads: int) -> str:
    """Say how many threads."""
    return "1 thread" if threads == 1 else f"{threads} threads"


def floors(book: Book, pool: ThreadPoolExecutor) -> list[Contender]:
    """Return the read floor of the columns of a book, on one thread and on all.

    Raises: PeerAbsent: no C compiler.
    """
    loaded, columns = native.positions(), book.columns
    given = (columns.debtor, columns.creditor, columns.lo, columns.hi)
    arrays = [array for array in given if array is not None]

    def read(piece: tuple[NDArray[Any], int, int]) -> int:
        array, begin, end = piece
        address = ctypes.c_void_p(array.ctypes.data + begin * 8)
        return int(loaded.sweep(address, ctypes.c_int64(end - begin)))

    def sweep(parts: int) -> Callable[[], object]:
        pieces = []
        for array in arrays:
            ends = np.linspace(0, array.nbytes // 8, parts + 1).astype(int).tolist()
            pieces += [(array, begin, end) for begin, end in pairwise(ends)]
        run = map if parts == 1 else pool.map
        return lambda: list(run(read, pieces))

    return [timed(f"read floor, {label(count)}", FLOOR, sweep(count)) for count in thread_counts()]


def floors_or_none(book: Book, pool: ThreadPoolExecutor) -> list[Contender]:
    """Return the read floors, or nothing where no compiler is."""
    try:
        return floors(book, pool)
    except PeerAbsent:
        return []
