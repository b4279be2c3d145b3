"""Messages on the application's socket, each behind its length.

Lives here: reading and writing frames. May not live here: what the messages mean (application.py).
Source: CometBFT v0.39, spec/abci/abci++_client_server.md: unsigned varint length, then the message.
"""

from __future__ import annotations

from typing import BinaryIO

from clearing.errors import DecodeError

FRAME_BYTES_MAX = 64 << 20
"""More than any honest message: a block has at most 4 MiB, genesis some hundred KiB."""

_LENGTH_BYTES_MAX = 5


def write_frame(stream: BinaryIO, message: bytes) -> None:
    """Write one frame; the caller flushes."""
    length, head = len(message), bytearray()
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    stream.write(bytes(head))
    stream.write(message)


def read_frame(stream: BinaryIO) -> bytes | None:
    """Return the next frame's message, None where the other side has closed between two frames.

    Raises: DecodeError: a length that is none or too great, or the stream ends inside a frame.
    """
    length = 0
    for place in range(_LENGTH_BYTES_MAX):
        byte = stream.read(1)
        if not byte:
            if place == 0:
                return None
            raise DecodeError("the stream ends inside a length")
        length |= (byte[0] & 0x7F) << (7 * place)
        if byte[0] < 0x80:
            break
    else:
        raise DecodeError("a length has at most five bytes")
    if length > FRAME_BYTES_MAX:
        raise DecodeError(f"a frame of {length} bytes is refused: at most {FRAME_BYTES_MAX}")
    message = stream.read(length)
    if len(message) != length:
        raise DecodeError(f"the stream ends {length - len(message)} bytes before its frame does")
    return message
