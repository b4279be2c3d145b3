"""Canonical bytes: fixed-width, little-endian records, parsed strictly.

Lives here: the one description of a record's layout from which encoding, decoding and the byte tables of the
README are made. May not live here: any particular record (records/, rules/), protobuf, JSON.

Invariants: a value has exactly one encoding; decoding accepts exactly the image of encoding (exact length, reserved
bytes zero, padding zero, no text that is not UTF-8), so that bytes may be hashed as received.
Source: own design (README, decision 1); protobuf is not canonical, see protobuf.dev "Proto Serialization Is Not
Canonical".
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from operator import index
from typing import Any

from clearing.errors import DecodeError, invariant


class Kind(enum.Enum):
    """How a field's bytes are read."""

    UINT = "unsigned integer, little-endian"
    INT = "two's complement integer, little-endian"
    BYTES = "bytes"
    TEXT = "UTF-8 text, zero padded"
    ZERO = "reserved, zero"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record: name, width in bytes, and how its bytes are read."""

    name: str
    width: int
    kind: Kind


def uint(name: str, width: int) -> Field:
    """Return an unsigned little-endian integer field of `width` bytes."""
    return Field(name, width, Kind.UINT)


def sint(name: str, width: int) -> Field:
    """Return a two's complement little-endian integer field of `width` bytes."""
    return Field(name, width, Kind.INT)


def raw(name: str, width: int) -> Field:
    """Return a field of exactly `width` bytes."""
    return Field(name, width, Kind.BYTES)


def text(name: str, width: int) -> Field:
    """Return a UTF-8 text field, zero padded to `width` bytes; the text itself holds no zero character."""
    return Field(name, width, Kind.TEXT)


def reserved(width: int) -> Field:
    """Return `width` bytes that are zero and carry no value."""
    return Field("reserved", width, Kind.ZERO)


def _encode_field(field: Field, value: Any) -> bytes:
    if field.kind is Kind.UINT or field.kind is Kind.INT:
        try:
            # Not int(): it would cut 1.5 down to 1 without a word.
            return index(value).to_bytes(field.width, "little", signed=field.kind is Kind.INT)
        except TypeError as error:
            raise DecodeError(f"{field.name} must be an integer, got {value!r:.80}") from error
        except OverflowError as error:
            raise DecodeError(f"{field.name} = {value} does not fit {field.width} bytes") from error
    if field.kind is Kind.TEXT:
        data = value.encode()
        if len(data) > field.width or b"\0" in data:
            raise DecodeError(
                f"{field.name} must be at most {field.width} bytes of UTF-8 without zero characters"
            )
        return bytes(data.ljust(field.width, b"\0"))
    if not isinstance(value, bytes | bytearray | memoryview):
        raise DecodeError(f"{field.name} must be {field.width} bytes, got {value!r:.80}")
    if len(value) != field.width:
        raise DecodeError(f"{field.name} must be {field.width} bytes, got {len(value)}")
    return bytes(value)


def _decode_field(field: Field, data: bytes) -> Any:
    if field.kind is Kind.UINT or field.kind is Kind.INT:
        return int.from_bytes(data, "little", signed=field.kind is Kind.INT)
    if field.kind is Kind.ZERO:
        if any(data):
            raise DecodeError("reserved bytes are not zero")
        return None
    if field.kind is Kind.TEXT:
        stripped = data.rstrip(b"\0")
        if b"\0" in stripped:
            raise DecodeError(f"{field.name} holds a zero character")
        try:
            return stripped.decode()
        except UnicodeDecodeError as error:
            raise DecodeError(f"{field.name} is not UTF-8") from error
    return data


class Layout:
    """The byte layout of one record: named fields in order, without gaps."""

    __slots__ = ("_places", "fields", "name", "width")

    def __init__(self, name: str, *fields: Field) -> None:
        """Describe a record called `name` made of `fields` in this order."""
        names = [field.name for field in fields if field.kind is not Kind.ZERO]
        invariant(len(set(names)) == len(names), f"layout {name} names a field twice")
        self.name = name
        self.fields = fields
        self.width = sum(field.width for field in fields)
        # Rows are read by the thousand: what is asked of each field is answered once.
        self._places = tuple(
            (field.name, start, start + field.width, field, field.kind is Kind.UINT)
            for field, start in self.offsets()
        )

    def encode(self, **values: Any) -> bytes:
        """Return the record's bytes.

        Raises: DecodeError: a value does not fit its field; InvariantViolation: a field is missing or unknown.
        """
        parts = []
        for field in self.fields:
            if field.kind is Kind.ZERO:
                parts.append(bytes(field.width))
                continue
            invariant(field.name in values, f"{self.name}.{field.name} is missing")
            parts.append(_encode_field(field, values.pop(field.name)))
        invariant(not values, f"{self.name} has no fields {sorted(values)}")
        return b"".join(parts)

    def decode(self, data: bytes) -> dict[str, Any]:
        """Return the record's values by field name.

        Raises: DecodeError: wrong length, reserved bytes not zero, or text that is not canonical.
        """
        if len(data) != self.width:
            raise DecodeError(f"{self.name} is {self.width} bytes, got {len(data)}")
        values: dict[str, Any] = {}
        for name, start, end, field, is_number in self._places:
            if is_number:
                values[name] = int.from_bytes(data[start:end], "little")
                continue
            value = _decode_field(field, data[start:end])
            if field.kind is not Kind.ZERO:
                values[name] = value
        return values

    def offsets(self) -> Iterator[tuple[Field, int]]:
        """Yield each field with the offset of its first byte, in order; the README's tables are made from it."""
        start = 0
        for field in self.fields:
            yield field, start
            start += field.width


def split_records(data: bytes, width: int, count: int, what: str) -> list[bytes]:
    """Cut `data` into exactly `count` records of `width` bytes each.

    Raises: DecodeError: the length is not `count * width`.
    """
    if len(data) != width * count:
        raise DecodeError(f"{count} {what} take {width * count} bytes, got {len(data)}")
    return [data[i : i + width] for i in range(0, len(data), width)]
