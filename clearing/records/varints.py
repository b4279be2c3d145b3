"""Columns of unsigned integers in as few bytes as they need: seven bits a byte, the least first, one form each.

Lives here: both directions, on whole columns at once. May not live here: what the numbers mean.
Invariant kept: decoding accepts exactly the image of encoding, and makes nothing that is larger than some tens of bytes
for each byte it was given, whatever count is claimed.

Source: LEB128, as in DWARF 5, section 7.6; here without a needless last byte.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clearing.errors import DecodeError

U64: TypeAlias = NDArray[np.uint64]

_BYTES_MAX: Final = 10
_SEVEN: Final = 7
_MORE: Final = 0x80


def encode(values: U64) -> bytes:
    """Return the bytes of a column, one number after the other."""
    size = np.ones(len(values), np.int64)
    for place in range(1, _BYTES_MAX):
        size += values >> np.uint64(_SEVEN * place) != 0
    end = np.cumsum(size)
    out = np.empty(int(end[-1]) if len(end) else 0, np.uint8)
    for place in range(int(size.max(initial=0))):
        has = size > place
        bits = (values[has] >> np.uint64(_SEVEN * place)).astype(np.uint8) & np.uint8(_MORE - 1)
        more = np.where(size[has] > place + 1, np.uint8(_MORE), np.uint8(0))
        out[end[has] - size[has] + place] = bits | more
    return out.tobytes()


def decode(data: NDArray[np.uint8], count: int) -> tuple[U64, NDArray[np.uint8]]:
    """Read `count` numbers from the front of `data`.

    Returns: uint64[count], and the bytes that come after.
    Raises: DecodeError: too few bytes, a number of 2^64 or more, or one with a needless last byte.
    """
    if count > len(data):
        raise DecodeError(f"{count} numbers do not fit {len(data)} bytes")
    last = np.flatnonzero(data < _MORE)[:count]
    if len(last) < count:
        raise DecodeError("the bytes end within a number")
    start = np.zeros(count, np.int64)
    start[1:] = last[:-1] + 1
    size = last - start + 1
    longest = int(size.max(initial=0))
    # Ten bytes hold 64 bits, the tenth but one of them.
    if longest > _BYTES_MAX or (data[last[size == _BYTES_MAX]] > 1).any():
        raise DecodeError("a number is 2^64 or more")
    if ((data[last] == 0) & (size > 1)).any():
        raise DecodeError("a number has a needless last byte")
    values = np.zeros(count, np.uint64)
    for place in range(longest):
        has = size > place
        bits = (data[start[has] + place] & (_MORE - 1)).astype(np.uint64)
        values[has] |= bits << np.uint64(_SEVEN * place)
    return values, data[int(last[-1]) + 1 if count else 0 :]
