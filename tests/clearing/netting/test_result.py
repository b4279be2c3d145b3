"""The canonical bytes of a result, written out once by hand."""

from __future__ import annotations

import hashlib

from clearing.netting.limits import Limits
from clearing.netting.methods import TransferStyle, by_bilateral, by_gridlock
from clearing.netting.result import DOMAIN
from tests.clearing.netting.netting_kit import Row, columns_of


def wide_bytes(*values: int) -> bytes:
    return b"".join(value.to_bytes(24, "little", signed=True) for value in values)


def u32(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


def u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


def test_the_bytes_of_a_gridlock_result() -> None:
    columns = columns_of([Row(0, 1, 5), Row(2, 1, 2**100)])
    result, _ = by_gridlock(columns, Limits.of(4, {0: 9}), style=TransferStyle.AGENT)
    written = b"".join(
        [
            DOMAIN,
            b"\x03" + u64(2) + u64(4),
            wide_bytes(2**100 + 5, 5),
            wide_bytes(-5, 2**100 + 5, -(2**100), 0),
            wide_bytes(-5, 5, 0, 0),
            b"\x07" + b"\x01",
            u64(1) + u32(1) + b"\x01" + u32(2) + wide_bytes(2**100),
            u64(0),
            u64(0),
            u64(2) + u32(0, 2**32 - 1) + wide_bytes(5) + u32(2**32 - 1, 1) + wide_bytes(5),
            u64(0),
        ]
    )
    assert result.to_bytes() == written
    assert result.hash() == hashlib.sha256(written).digest()


def test_the_bytes_of_a_bilateral_result() -> None:
    result = by_bilateral(columns_of([Row(1, 0, 5), Row(0, 1, 2**64)]), 2)
    written = b"".join(
        [
            DOMAIN,
            b"\x02" + u64(2) + u64(2),
            wide_bytes(2**64 + 5, 10),
            wide_bytes(5 - 2**64, 2**64 - 5),
            wide_bytes(0, 0),
            b"\x03" + b"\x01",
            u64(1) + u32(1) + b"\x03" + u32(1) + wide_bytes(2**64 - 5),
            u64(2) + (5).to_bytes(16, "little") * 2,
            u64(1) + u32(0, 1) + wide_bytes(2**64 - 5, 5),
            u64(0),
            u64(0),
        ]
    )
    assert result.to_bytes() == written
