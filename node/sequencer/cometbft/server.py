"""The unix socket on which the consensus engine calls the application.

Lives here: connections, threads, the order of replies. May not live here: what a call does
(application.py).

The engine opens four connections, for queries, snapshots, its queue and consensus, and sends on each
without waiting; replies go back in order. Each has a thread of its own, so that checks of the queue
never wait for a block. An exception that a call raises is a defect: it is answered as such, which
ends the engine, and reported, which ends the node.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import structlog
from google.protobuf.message import DecodeError as ProtobufDecodeError

from clearing.errors import ClearingError, DecodeError
from node.errors import SetupError
from node.pb.abci import abci_pb2 as abci
from node.sequencer.cometbft.application import Application
from node.sequencer.cometbft.frames import read_frame, write_frame

_log = structlog.get_logger(__name__)

BUFFER_BYTES = 256 << 10
ACCEPT_RETRY_S = 0.5
_BACKLOG = 8


class AbciServer:
    """Serves an Application on a unix socket; on_failure is called once, with a call's exception."""

    def __init__(
        self, application: Application, path: Path, on_failure: Callable[[Exception], None]
    ) -> None:
        """Prepare to serve on `path`, a socket that nobody else uses."""
        self._application = application
        self._path = path
        self._on_failure = on_failure
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()  # guards the two below
        self._open: set[socket.socket] = set()
        self._ends = False
        self._failed = False

    def start(self) -> None:
        """Listen, and serve whoever connects.

        Raises: SetupError: the socket cannot be made.
        """
        try:
            self._path.unlink(missing_ok=True)
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.bind(str(self._path))
            self._path.chmod(0o600)
            self._listener.listen(_BACKLOG)
        except OSError as error:
            raise SetupError(f"{self._path}: cannot serve on this socket: {error}") from error
        threading.Thread(target=self._accept, name="abci-accept", daemon=True).start()

    def stop(self) -> None:
        """Close all connections; the engine ends by itself when its application is gone."""
        with self._lock:
            self._ends = True
            connections = [*self._open]
        if self._listener is not None:
            # A thread in accept() wakes by shutdown, not by close.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._path.unlink(missing_ok=True)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def connections(self) -> int:
        """How many connections are open; four of one engine."""
        return len(self._open)

    def _accept(self) -> None:
        listener = self._listener
        while listener is not None and not self._ends:
            try:
                connection, _ = listener.accept()
                self._serve_beside(connection)
            # No descriptor or thread is free now. An engine that nobody answers waits without end and says nothing.
            except (OSError, RuntimeError) as error:
                self._wait_after(error)

    def _wait_after(self, error: Exception) -> None:
        if not self._ends:
            _log.error("engine's connection not taken, trying again", reason=str(error))
            time.sleep(ACCEPT_RETRY_S)

    def _serve_beside(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)
        try:
            threading.Thread(
                target=self._serve, args=(connection,), name="abci", daemon=True
            ).start()
        except RuntimeError:
            with self._lock:
                self._open.discard(connection)
            # The engine ends by itself, and the supervisor brings it again.
            connection.close()
            raise

    def _serve(self, connection: socket.socket) -> None:
        try:
            with (
                connection,
                connection.makefile("rb", BUFFER_BYTES) as reader,
                connection.makefile("wb", BUFFER_BYTES) as writer,
            ):
                self._answer_all(cast("BinaryIO", reader), cast("BinaryIO", writer))
        # The other side went away: it comes back, or the supervisor brings it.
        except OSError as error:
            _log.info("consensus engine disconnected", reason=str(error))
        except DecodeError as error:
            _log.error("connection is not the protocol", reason=str(error))
        finally:
            with self._lock:
                self._open.discard(connection)

    def _answer_all(self, reader: BinaryIO, writer: BinaryIO) -> None:
        while (message := read_frame(reader)) is not None:
            try:
                request = abci.Request.FromString(message)
            except ProtobufDecodeError as error:
                raise DecodeError(f"a request does not parse: {error}") from error
            response, is_last = self._answered(request)
            write_frame(writer, response.SerializeToString())
            if is_last or request.WhichOneof("value") == "flush":
                writer.flush()
            if is_last:
                return

    def _answered(self, request: abci.Request) -> tuple[abci.Response, bool]:
        kind = request.WhichOneof("value")
        try:
            if self._failed:
                raise ClearingError("the node has stopped: see its log")
            return self._dispatch(kind, request), False
        # Whatever escapes is a defect of ours or a failed disk: nothing may go on from here.
        except Exception as error:  # noqa: BLE001 - ends the node
            first, self._failed = not self._failed, True
            if first and not self._ends:
                self._on_failure(error)
            return abci.Response(exception=abci.ResponseException(error=f"{error}"[:500])), True

    def _dispatch(self, kind: str | None, request: abci.Request) -> abci.Response:
        application = self._application
        calls: dict[str, Callable[[Any], Any]] = {
            "info": application.info,
            "init_chain": application.init_chain,
            "query": application.query,
            "check_tx": application.check_tx,
            "prepare_proposal": application.prepare_proposal,
            "process_proposal": application.process_proposal,
            "finalize_block": application.finalize_block,
            "commit": application.commit,
        }
        if kind in calls:
            return abci.Response(**{kind: calls[kind](getattr(request, kind))})
        if kind == "echo":
            return abci.Response(echo=abci.ResponseEcho(message=request.echo.message))
        if kind in _CONSTANT:
            return _CONSTANT[kind]
        raise DecodeError(f"a request of an unknown kind: {kind}")


_CONSTANT = {
    "flush": abci.Response(flush=abci.ResponseFlush()),
    # A ledger keeps its whole history: there is no snapshot to take or give, only blocks.
    "list_snapshots": abci.Response(list_snapshots=abci.ResponseListSnapshots()),
    "offer_snapshot": abci.Response(
        offer_snapshot=abci.ResponseOfferSnapshot(result=abci.ResponseOfferSnapshot.REJECT)
    ),
    "load_snapshot_chunk": abci.Response(load_snapshot_chunk=abci.ResponseLoadSnapshotChunk()),
    "apply_snapshot_chunk": abci.Response(
        apply_snapshot_chunk=abci.ResponseApplySnapshotChunk(
            result=abci.ResponseApplySnapshotChunk.ABORT
        )
    ),
    # Vote extensions are switched off in genesis.json.
    "extend_vote": abci.Response(extend_vote=abci.ResponseExtendVote()),
    "verify_vote_extension": abci.Response(
        verify_vote_extension=abci.ResponseVerifyVoteExtension(
            status=abci.ResponseVerifyVoteExtension.ACCEPT
        )
    ),
}
