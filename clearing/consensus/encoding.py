"""The few protobuf encodings that the consensus engine hashes and signs, made and read byte by byte.

Lives here: fields of the wire format. May not live here: what they mean.

A library writes what is equal in meaning; what is hashed or kept must be these very bytes, so they are written down. Whoever
reads compares what was read, written again, with what was given: so only these very bytes are taken.
Source: protobuf.dev, encoding; deterministic, fields in order, zero values left out as in proto3.
"""

from __future__ import annotations

from collections.abc import Sequence

from clearing.errors import DecodeError

_VARINT, _FIXED64, _BYTES = 0, 1, 2
_VARINT_BYTES_MAX = 10


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


class Message:
    """The fields of an encoded message; a field that is not there is zero or empty, of one that is there twice the last counts."""

    def __init__(self, data: bytes) -> None:
        """Read the fields of `data`.

        Raises: DecodeError: it ends within a field, or a field is of a kind that the engine's messages have not.
        """
        self._fields: dict[int, list[int | bytes]] = {}
        at = 0
        while at < len(data):
            key, at = _read_varint(data, at)
            kind = key & 7
            value: int | bytes
            if kind == _VARINT:
                value, at = _read_varint(data, at)
            elif kind in (_FIXED64, _BYTES):
                size, at = (8, at) if kind == _FIXED64 else _read_varint(data, at)
                value, at = data[at : at + size], at + size
            else:
                raise DecodeError(f"the message has a field of unknown kind {kind}")
            if at > len(data):
                raise DecodeError("the message ends within a field")
            self._fields.setdefault(key >> 3, []).append(value)

    def integer(self, field: int) -> int:
        """Return an int64 field. Raises: DecodeError: it is none."""
        value = self._fields.get(field, [0])[-1]
        if not isinstance(value, int):
            raise DecodeError(f"field {field} of the message is no integer")
        return value - (1 << 64) if value >> 63 else value

    def text(self, field: int) -> bytes:
        """Return a string or bytes field. Raises: DecodeError: it is none."""
        return self.texts(field)[-1] if field in self._fields else b""

    def texts(self, field: int) -> Sequence[bytes]:
        """Return a repeated field of bytes, in order. Raises: DecodeError: it is none."""
        values = [value for value in self._fields.get(field, []) if isinstance(value, bytes)]
        if len(values) != len(self._fields.get(field, [])):
            raise DecodeError(f"field {field} of the message is an integer")
        return values

    def message(self, field: int) -> Message:
        """Return an embedded message, empty where there is none. Raises: DecodeError: it is none."""
        return Message(self.text(field))

    def messages(self, field: int) -> Sequence[Message]:
        """Return repeated embedded messages, in order. Raises: DecodeError: they are none."""
        return [Message(data) for data in self.texts(field)]


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the varint at a place, below 2**64, and the place behind it."""
    number = 0
    for place in range(_VARINT_BYTES_MAX):
        if at + place >= len(data):
            raise DecodeError("the message ends within a number")
        number |= (data[at + place] & 0x7F) << (7 * place)
        if data[at + place] < 0x80:
            if number >> 64:
                break
            return number, at + place + 1
    raise DecodeError("the message has a number beyond 64 bits")
