"""Strict readers of the small pieces that the C2SP text formats are made of.

Lives here: base64, decimals and lines, read so that a value has exactly one spelling. May not live
here: any format.
Invariant: whatever a reader accepts, its writer writes back byte for byte.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence

from clearing.errors import DecodeError

UINT64_MAX = (1 << 64) - 1
_DECIMAL_DIGITS_MAX = 20  # of 2**64 - 1
# Controls, and halves of characters, which UTF-8 cannot carry.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\ud800-\udfff]")


def encode_base64(data: bytes) -> str:
    """Return `data` in standard, padded base64 (RFC 4648, section 4)."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: str, what: str) -> bytes:
    """Return the bytes of standard, padded base64; `what` names the value in the error.

    Raises: DecodeError: foreign characters, missing padding, or unused bits that are not zero. The
    last is stricter than Go's reader: without it one signature would have several spellings.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DecodeError(f"{what} is not base64") from error
    if encode_base64(data) != text:
        raise DecodeError(f"{what} is not canonical base64")
    return data


def decode_hash(text: str, what: str) -> bytes:
    """Return the 32 bytes of a base64 hash.

    Raises: DecodeError: not canonical base64, or not 32 bytes.
    """
    data = decode_base64(text, what)
    if len(data) != 32:
        raise DecodeError(f"{what} must be 32 bytes, got {len(data)}")
    return data


def decode_decimal(text: str, what: str) -> int:
    """Return a decimal below 2**64 written in ASCII digits without sign or leading zeros.

    Raises: DecodeError: any other spelling.
    """
    if not text or len(text) > _DECIMAL_DIGITS_MAX or not (text.isascii() and text.isdigit()):
        raise DecodeError(f"{what} must be a decimal number below 2**64")
    if text[0] == "0" and text != "0":
        raise DecodeError(f"{what} has leading zeros")
    value = int(text)
    if value > UINT64_MAX:
        raise DecodeError(f"{what} must be a decimal number below 2**64")
    return value


def decode_utf8(data: bytes, what: str) -> str:
    """Return the text of UTF-8 bytes.

    Raises: DecodeError: not UTF-8.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DecodeError(f"{what} is not UTF-8") from error


def is_printable_line(line: str) -> bool:
    """Return whether `line` can stand in a signed note: valid Unicode without ASCII controls."""
    return _UNPRINTABLE.search(line) is None


def encode_fields(header: str, fields: Mapping[str, str]) -> bytes:
    """Return a head of lines: the header, then `NAME VALUE` for each field in order, then an empty line."""
    lines = "".join(f"{name} {value}\n" for name, value in fields.items())
    return f"{header}\n{lines}\n".encode()


def decode_fields(head: bytes, header: str, names: Sequence[str], what: str) -> Sequence[str]:
    """Return the values of a head's fields, in order; `head` comes without the empty line and what follows it.

    Raises: DecodeError: not UTF-8, another header, or a line missing, superfluous or out of its place.
    """
    lines = decode_utf8(head, what).split("\n")
    if lines.pop(0) != header or len(lines) != len(names):
        raise DecodeError(f"not {what} of version 1")
    for name, line in zip(names, lines, strict=True):
        if not line.startswith(f"{name} "):
            raise DecodeError(f"{what} has no line {name!r} in its place")
    return [line[len(name) + 1 :] for name, line in zip(names, lines, strict=True)]
