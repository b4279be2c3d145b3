"""Frames: what is written is read, and what is no frame is refused."""

from __future__ import annotations

import io
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError
from node.sequencer.cometbft.frames import FRAME_BYTES_MAX, read_frame, write_frame


@given(st.lists(st.binary(max_size=300)))
def test_frames_come_back_in_order(messages: list[bytes]) -> None:
    stream = io.BytesIO()
    for message in messages:
        write_frame(stream, message)
    stream.seek(0)
    assert [read_frame(stream) for _ in messages] == messages
    assert read_frame(stream) is None


def test_the_length_is_an_unsigned_varint() -> None:
    stream = io.BytesIO()
    write_frame(stream, b"x" * 300)
    assert stream.getvalue()[:2] == b"\xac\x02"


@pytest.mark.parametrize("data", [b"\x80", b"\x05abcd", b"\x80" * 5, b"\xff\xff\xff\xff\x7f"])
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        read_frame(io.BytesIO(data))


def test_a_frame_beyond_all_measure_is_refused_before_it_is_read() -> None:
    stream = io.BytesIO()
    write_frame(stream, b"")
    length, head = FRAME_BYTES_MAX + 1, bytearray()
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    with pytest.raises(DecodeError, match="is refused"):
        read_frame(io.BytesIO(bytes(head) + bytes([length])))


def test_frames_travel_over_a_socket_whose_pieces_are_arbitrary() -> None:
    here, there = socket.socketpair()
    messages = [b"", b"a" * 100_000, b"b"]
    buffer = io.BytesIO()
    for message in messages:
        write_frame(buffer, message)

    def send() -> None:
        data = buffer.getvalue()
        for start in range(0, len(data), 977):
            there.sendall(data[start : start + 977])
        there.close()

    thread = threading.Thread(target=send)
    thread.start()
    with here, here.makefile("rb") as reader:
        assert [read_frame(reader) for _ in messages] == messages
        assert read_frame(reader) is None
    thread.join()
