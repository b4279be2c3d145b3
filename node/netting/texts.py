"""Columns of short texts, and lines made of them: what millions of ids and amounts need on their way to a file.

Lives here: texts in one buffer, decimal numbers as texts, lines put together from columns. May not live here: what the texts
mean.
Invariants kept: both engines give the same bytes; nothing here checks for UTF-8, the readers have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.netting import wide
from clearing.netting.engine import DEFAULT, Engine, jit

Numbers: TypeAlias = NDArray[Any]

DECIMAL_BYTES_MAX: Final = 39
"""Digits of 2^128 - 1."""

_CHUNK: Final = np.uint64(10**19)
_TEN: Final = np.uint64(10)
_ZERO: Final = np.uint64(0)
_ONE: Final = np.uint64(1)
_HALF: Final = np.uint64(32)
_LOW_HALF: Final = np.uint64(2**32 - 1)
_DIGIT_ZERO: Final = np.uint64(0x30)


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Many short UTF-8 texts in one buffer: text n is the size[n] bytes of `data` from start[n] on."""

    data: bytes
    start: NDArray[np.int64]
    size: NDArray[np.int32]

    @classmethod
    def of(cls, texts: Iterable[bytes]) -> Texts:
        """Copy texts into one buffer."""
        given = list(texts)
        size = np.fromiter(map(len, given), np.int32, len(given))
        return cls(b"".join(given), np.cumsum(size, dtype=np.int64) - size, size)

    def __len__(self) -> int:
        """Return the number of texts."""
        return int(self.start.shape[0])

    def at(self, numbers: Numbers | slice) -> Texts:
        """Return the texts with these numbers, in that order, in the same buffer."""
        return Texts(self.data, self.start[numbers], self.size[numbers])

    def raw(self) -> list[bytes]:
        """Return the bytes of all texts, in order."""
        data = self.data
        ends = (self.start + self.size).tolist()
        return [data[a:b] for a, b in zip(self.start.tolist(), ends, strict=True)]

    def strings(self) -> list[str]:
        """Return all texts, in order."""
        return [text.decode() for text in self.raw()]


def decimals(
    lo: NDArray[np.uint64], hi: NDArray[np.uint64] | None, *, engine: Engine = DEFAULT
) -> Texts:
    """Write amounts hi * 2^64 + lo in decimal digits."""
    if engine is Engine.PORTABLE:
        return Texts.of(b"%d" % amount for amount in wide.join_amounts(lo, hi))
    rows = lo.shape[0]
    width = DECIMAL_BYTES_MAX if hi is not None else 20
    out = np.empty((rows, width), np.uint8)
    size = np.empty(rows, np.int32)
    _write_decimals(lo, np.zeros(0, np.uint64) if hi is None else hi, out, size)
    end = np.arange(width, (rows + 1) * width, width, dtype=np.int64)
    return Texts(out.tobytes(), end - size.astype(np.int64), size)


@jit
def _write_decimals(lo: Any, hi: Any, out: Any, size: Any) -> None:
    """Write each amount at the end of its row of `out`."""
    end = np.uint64(out.shape[1])
    for row in range(lo.shape[0]):
        place = end
        low = lo[row]
        high = hi[row] if hi.shape[0] > 0 else _ZERO
        while high != _ZERO:
            # Divide by ten, 32 bits at a time.
            rest = high % _TEN
            high //= _TEN
            middle = (rest << _HALF) | (low >> _HALF)
            bottom = ((middle % _TEN) << _HALF) | (low & _LOW_HALF)
            low = ((middle // _TEN) << _HALF) | (bottom // _TEN)
            place -= _ONE
            out[row, place] = bottom % _TEN + _DIGIT_ZERO
        while low != _ZERO or place == end:
            place -= _ONE
            out[row, place] = low % _TEN + _DIGIT_ZERO
            low //= _TEN
        size[row] = end - place


def join_lines(columns: Sequence[Texts | bytes], *, engine: Engine = DEFAULT) -> bytes:
    """Put lines together: line n is text n of each column in turn, a constant being the same in each line.

    columns: at least one of them Texts; all of one length.
    """
    rows = next(len(column) for column in columns if isinstance(column, Texts))
    if engine is Engine.PORTABLE:
        parts = [
            column.raw() if isinstance(column, Texts) else repeat(column) for column in columns
        ]
        return b"".join(chain.from_iterable(zip(*parts, strict=False)))
    length = np.zeros(rows, np.int64)
    for column in columns:
        length += column.size if isinstance(column, Texts) else len(column)
    at = np.cumsum(length) - length
    out = np.empty(int(length.sum()), np.uint8)
    for column in columns:
        if isinstance(column, Texts):
            _put(out, at, np.frombuffer(column.data, np.uint8), column.start, column.size)
        else:
            text = np.frombuffer(column, np.uint8)
            same = np.zeros(rows, np.int64)
            _put(out, at, text, same, np.full(rows, len(column), np.int32))
    return out.tobytes()


@jit
def _put(out: Any, at: Any, data: Any, start: Any, size: Any) -> None:
    """Copy each text to its place in `out`, and move the place behind it."""
    for row in range(at.shape[0]):
        source, target = np.uint64(start[row]), np.uint64(at[row])
        for _ in range(size[row]):
            out[target] = data[source]
            source += _ONE
            target += _ONE
        at[row] = target
