"""The few protobuf encodings that the consensus engine hashes and signs, made byte by byte.

Lives here: fields of the wire format. May not live here: what they mean.

A library would do for reading; what is hashed must be these very bytes, so they are written down.
Source: protobuf.dev, encoding; deterministic, fields in order, zero values left out as in proto3.
"""

from __future__ import annotations


def varint(number: int) -> bytes:
    """Return an unsigned varint; a negative int64 is its two's complement, ten bytes."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def integer(field: int, value: int) -> bytes:
    """Return an integer field; nothing for zero."""
    return varint(field << 3) + varint(value) if value else b""


def fixed64(field: int, value: int) -> bytes:
    """Return an sfixed64 field; nothing for zero."""
    return varint(field << 3 | 1) + (value & (1 << 64) - 1).to_bytes(8, "little") if value else b""


def text(field: int, value: bytes) -> bytes:
    """Return a string or bytes field; nothing for an empty one."""
    return message(field, value) if value else b""


def message(field: int, value: bytes) -> bytes:
    """Return an embedded message, also an empty one."""
    return varint(field << 3 | 2) + varint(len(value)) + value


def timestamp(seconds: int, nanos: int) -> bytes:
    """Return a google.protobuf.Timestamp."""
    return integer(1, seconds) + integer(2, nanos)
