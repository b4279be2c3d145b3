"""The consensus engine's own RPC, over a unix socket on this machine.

Lives here: the calls that this node makes, and what their failures mean. May not live here: what to
do about them (driver.py).

The engine closes idle connections; a call on one that is found closed is made once more.
Source: CometBFT v0.39, rpc/openapi; the texts of errors were seen, not documented.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearing.errors import ClearingError
from node.services.facade import EngineFacts

TIMEOUT_S = 10.0
_ANSWER_BYTES_MAX = 64 << 20


class EngineError(ClearingError):
    """The engine did not do what it was asked."""


class EngineAwayError(EngineError):
    """The engine is not there, or broke off; whether it has done what it was asked is not known."""


class EngineFullError(EngineError):
    """The engine's queue of transactions is full: nothing was taken."""


class EngineBehindError(EngineError):
    """The engine is catching up and takes nothing yet."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a transaction handed in: code 0: queued, else why not, as the application said."""

    code: int
    log: str


class EngineRpc:
    """Calls to the engine's RPC. Safe to call from several threads, each with its own connection."""

    def __init__(self, path: Path, timeout_s: float = TIMEOUT_S) -> None:
        """Call the engine that serves on the unix socket `path`."""
        self._path = path
        self._timeout_s = timeout_s
        self._local = threading.local()

    def broadcast(self, transaction: bytes) -> Answer:
        """Hand in a transaction and return what the application's check said.

        Bytes that are queued or committed already count as queued.
        Raises: EngineFullError, EngineBehindError, EngineError: it is not queued; EngineAwayError:
        it may be.
        """
        try:
            result = self._call(f"/broadcast_tx_sync?tx=0x{transaction.hex()}")
        except EngineError as error:
            text = str(error)
            if "already exists in cache" in text:
                return Answer(0, "")
            if "mempool is full" in text:
                raise EngineFullError(text) from error
            if "catching up" in text:
                raise EngineBehindError(text) from error
            raise
        try:
            return Answer(int(result["code"]), str(result["log"]))
        except (KeyError, TypeError, ValueError) as error:
            raise EngineAwayError(f"the engine's answer does not read: {error!r}") from error

    def status(self) -> EngineFacts:
        """Return where the engine stands.

        Raises: EngineError: it does not say.
        """
        found = self._call("/status")
        peers = self._call("/net_info")
        try:
            return EngineFacts(
                int(found["sync_info"]["latest_block_height"]),
                bool(found["sync_info"]["catching_up"]),
                int(peers["n_peers"]),
                int(found["validator_info"]["voting_power"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError(f"the engine's status does not read: {error!r}") from error

    def commit(self, height: int) -> dict[str, Any]:
        """Return header and commit of a block as the engine's JSON.

        Raises: EngineError: it has no such block.
        """
        signed = self._call(f"/commit?height={height}")["signed_header"]
        if not signed or not signed.get("commit"):
            raise EngineError(f"the engine has no commit of block {height}")
        return dict(signed)

    def validators(self, height: int) -> list[dict[str, Any]]:
        """Return the set of validators that signs block `height`, as the engine's JSON.

        Raises: EngineError: it has no such block.
        """
        found: list[dict[str, Any]] = []
        for page in range(1, 100):
            part = self._call(f"/validators?height={height}&per_page=100&page={page}")
            found += part["validators"]
            if len(found) >= int(part["total"]):
                return found
        raise EngineError(f"the engine's list of validators at {height} does not end")

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def _call(self, target: str) -> Any:
        for attempt in (1, 2):
            connection, is_fresh = self._connection()
            try:
                connection.request("GET", target)
                body = connection.getresponse().read(_ANSWER_BYTES_MAX)
                return _result(body)
            except (
                OSError,
                http.client.HTTPException,
                ValueError,
                KeyError,
                TypeError,
            ) as error:
                self.close()
                # An old connection that was closed meanwhile says nothing of the engine.
                if is_fresh or attempt == 2 or isinstance(error, TimeoutError):
                    name = urllib.parse.urlsplit(target).path
                    raise EngineAwayError(f"{name}: {error!r}") from error
        raise EngineAwayError("unreachable")

    def _connection(self) -> tuple[_UnixConnection, bool]:
        kept: _UnixConnection | None = getattr(self._local, "connection", None)
        if kept is not None:
            return kept, False
        made = _UnixConnection(self._path, self._timeout_s)
        self._local.connection = made
        return made, True


def _result(body: bytes) -> Any:
    answer = json.loads(body)
    if "error" in answer:
        error = answer["error"]
        raise EngineError(f"{error.get('message', '')}: {error.get('data', '')}"[:500])
    return answer["result"]


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(self.timeout)
        try:
            made.connect(str(self._path))
        except OSError:
            made.close()
            raise
        self.sock = made
