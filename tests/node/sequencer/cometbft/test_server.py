"""The application's socket outlives what the machine lacks for a while."""

from __future__ import annotations

import os
import resource
import socket
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from node.pb.abci import abci_pb2 as abci
from node.sequencer.cometbft import server as module
from node.sequencer.cometbft.frames import read_frame, write_frame
from tests.node.sequencer.cometbft.engine_kit import Engine


def test_an_engine_that_comes_while_no_descriptor_is_free_is_answered_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ACCEPT_RETRY_S", 0.05)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (
        capture_logs() as said,
        Engine(tmp_path) as engine,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as late,
    ):
        late.settimeout(30)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
        try:
            late.connect(str(engine.path))
            end = time.monotonic() + 30
            while not said and time.monotonic() < end:
                time.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert "Too many open files" in said[0]["reason"]
        with late.makefile("rwb") as stream:
            write_frame(
                stream, abci.Request(echo=abci.RequestEcho(message="x")).SerializeToString()
            )
            write_frame(stream, abci.Request(flush=abci.RequestFlush()).SerializeToString())
            stream.flush()
            assert abci.Response.FromString(read_frame(stream)).echo.message == "x"
