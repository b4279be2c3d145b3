"""Signed integers of 192 bits in numpy arrays, for sums that pass 64 or 128 bits.

Lives here: conversion, addition, order and canonical bytes of arrays of wide integers. May not live here:
anything that knows what the integers mean.

A wide array is uint64[n, 3], little-endian limbs, two's complement: value = l0 + l1*2^64 + l2*2^128, minus
2^192 when the top bit of l2 is set. 2^63 rows of 2^128-1 stay below 2^191, so sums of amounts never wrap;
addition itself is modulo 2^192.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import index
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

U64: TypeAlias = NDArray[np.uint64]
I8: TypeAlias = NDArray[np.int8]

LIMBS: Final = 3
ENTRY_BYTES: Final = 24
MAX: Final = 2**191 - 1
MIN: Final = -(2**191)
_TOP_BIT: Final = np.uint64(63)
_ALL_ONES: Final = np.uint64(2**64 - 1)
_HALF: Final = np.uint64(32)
_LOW_HALF: Final = np.uint64(2**32 - 1)


def zeros(entries: int) -> U64:
    """Make `entries` wide zeros."""
    return np.zeros((entries, LIMBS), np.uint64)


def from_ints(values: Iterable[int]) -> U64:
    """Convert Python integers in [MIN, MAX] to a wide array of the same order.

    Raises: OverflowError: a value outside 192 bits. TypeError: it is no integer.
    """
    packed = b"".join(index(value).to_bytes(ENTRY_BYTES, "little", signed=True) for value in values)
    return np.frombuffer(packed, "<u8").astype(np.uint64).reshape(-1, LIMBS)


def from_signed(values: NDArray[np.int64]) -> U64:
    """Widen int64[n]."""
    return extend(np.ascontiguousarray(values).view(np.uint64).reshape(-1, 1))


def extend(limbs: U64) -> U64:
    """Widen two's complement integers of fewer limbs, uint64[n, k] with k in 1..3, by their sign.

    Returns: uint64[n, 3], always a copy.
    """
    wide = np.empty((limbs.shape[0], LIMBS), np.uint64)
    have = limbs.shape[1]
    wide[:, :have] = limbs
    if have < LIMBS:
        wide[:, have:] = (_ALL_ONES * (limbs[:, have - 1] >> _TOP_BIT))[:, np.newaxis]
    return wide


def from_places(places: NDArray[np.int64]) -> U64:
    """Carry sums that were made in separate columns of 32 bits.

    places: int64[4, n], signed; value = sum of places[k] * 2^(32 k).

    Returns: uint64[n, 3].
    """
    wide = np.empty((places.shape[1], LIMBS), np.uint64)
    carry = np.zeros(places.shape[1], np.int64)
    for limb in range(2):
        low = places[2 * limb] + carry
        high = places[2 * limb + 1] + (low >> 32)
        carry = high >> 32
        wide[:, limb] = (low.view(np.uint64) & _LOW_HALF) | (high.view(np.uint64) << _HALF)
    wide[:, 2] = carry.view(np.uint64)
    return wide


def to_places(lo: U64, hi: U64 | None) -> NDArray[np.int64]:
    """Split amounts into columns of 32 bits, in which 2^31 of them can be summed.

    Returns: int64[4, n]; see `from_places`.
    """
    places = np.zeros((4, lo.shape[0]), np.int64)
    for limb, words in enumerate((lo,) if hi is None else (lo, hi)):
        places[2 * limb] = words & _LOW_HALF
        places[2 * limb + 1] = words >> _HALF
    return places


def to_ints(wide: U64) -> list[int]:
    """Convert a wide array to Python integers of the same order."""
    low = wide[:, 0]
    if fits_int64(wide).all():
        return [int(value) for value in low.view(np.int64).tolist()]
    high = wide[:, 2].view(np.int64)
    return [
        (top << 128) | (middle << 64) | bottom
        for top, middle, bottom in zip(
            high.tolist(), wide[:, 1].tolist(), low.tolist(), strict=True
        )
    ]


def fits_int64(wide: U64) -> NDArray[np.bool_]:
    """Say for each entry whether it lies in [-2^63, 2^63)."""
    sign_bits = _ALL_ONES * (wide[:, 0] >> _TOP_BIT)
    answer: NDArray[np.bool_] = (wide[:, 1] == sign_bits) & (wide[:, 2] == sign_bits)
    return answer


def add(a: U64, b: U64) -> U64:
    """Add entry by entry, modulo 2^192; either side may have one entry, which is then used for all."""
    low = a[:, 0] + b[:, 0]
    carry = (low < a[:, 0]).astype(np.uint64)
    middle = a[:, 1] + b[:, 1]
    over = middle < a[:, 1]
    middle = middle + carry
    over |= middle < carry
    return np.stack([low, middle, a[:, 2] + b[:, 2] + over.astype(np.uint64)], axis=1)


def negate(a: U64) -> U64:
    """Negate entry by entry, modulo 2^192."""
    one = np.array([[1, 0, 0]], np.uint64)
    return add(~a, one)


def subtract(a: U64, b: U64) -> U64:
    """Subtract entry by entry, modulo 2^192."""
    return add(a, negate(b))


def sign(a: U64) -> I8:
    """Give -1, 0 or +1 for each entry."""
    negative = a[:, 2] >> _TOP_BIT != 0
    return np.where(negative, -1, (a != 0).any(axis=1)).astype(np.int8)


def compare(a: U64, b: U64) -> I8:
    """Give -1, 0 or +1 for each pair of entries as a is less than, equal to or greater than b."""
    top_a, top_b = a[:, 2].view(np.int64), b[:, 2].view(np.int64)
    answer = np.zeros(max(a.shape[0], b.shape[0]), np.int8)
    for left, right in ((a[:, 0], b[:, 0]), (a[:, 1], b[:, 1]), (top_a, top_b)):
        answer = np.where(left == right, answer, np.where(left < right, -1, 1)).astype(np.int8)
    return answer


def total(a: U64) -> int:
    """Sum all entries exactly.

    Returns: a Python integer of any size.
    """
    negatives = int(np.count_nonzero(a[:, 2] >> _TOP_BIT))
    unsigned = sum(total_unsigned(a[:, limb]) << (64 * limb) for limb in range(LIMBS))
    return unsigned - (negatives << 192)


def total_unsigned(values: U64) -> int:
    """Sum uint64[n] exactly, n below 2^32.

    Returns: a Python integer of any size.
    """
    if int(values.max(initial=0)) * values.shape[0] < 1 << 64:
        return int(values.sum())
    # The halves of 2^32 entries sum below 2^64.
    high = int((values >> _HALF).sum(dtype=np.uint64))
    low = int((values & _LOW_HALF).sum(dtype=np.uint64))
    return (high << 32) + low


def to_bytes(a: U64) -> bytes:
    """Write the canonical bytes: 24 bytes an entry, little-endian two's complement, in entry order.

    Source: own design; little-endian as every canonical record of the ledger.
    """
    return a.astype("<u8").tobytes()


def from_bytes(data: bytes) -> U64:
    """Read what `to_bytes` wrote.

    Raises: ValueError: the length is no multiple of 24.
    """
    return np.frombuffer(data, "<u8").reshape(-1, LIMBS).astype(np.uint64)


def split_amounts(values: Iterable[int] | NDArray[np.integer]) -> tuple[U64, U64 | None]:
    """Split amounts in [0, 2^128) into low and high 64 bits.

    Returns: (lo, hi); hi is None when every amount is below 2^64.
    Raises: OverflowError: an amount is negative or has more than 128 bits. TypeError: it is no integer.
    """
    packed = b"".join(index(value).to_bytes(16, "little") for value in values)
    pairs = np.frombuffer(packed, "<u8").astype(np.uint64).reshape(-1, 2)
    high = np.ascontiguousarray(pairs[:, 1])
    return np.ascontiguousarray(pairs[:, 0]), high if high.any() else None


def join_amounts(lo: U64, hi: U64 | None) -> list[int]:
    """Join low and high 64 bits into Python integers; the reverse of `split_amounts`."""
    if hi is None:
        return [int(value) for value in lo.tolist()]
    return [(top << 64) | bottom for top, bottom in zip(hi.tolist(), lo.tolist(), strict=True)]
