"""JSON-RPC over HTTP in front of the calls, as Bitcoin Core serves it.

Lives here: HTTP, authentication, JSON, batches. May not live here: the calls.

Calls are accepted with and without "jsonrpc". As Core does, an error is HTTP 500 (404 for an unknown method) in the
old form, and HTTP 200 with "jsonrpc": "2.0". A user and a password are all its protection.
Source: Bitcoin Core doc/JSON-RPC-interface.md; JSON-RPC 2.0.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import structlog

from node.errors import SetupError
from node.regtest.calls import METHOD_NOT_FOUND, MISC_ERROR, Calls, RpcError

BODY_BYTES_MAX = 16 << 20
BATCH_MAX = 1_000
IDLE_S = 30.0

PARSE_ERROR = -32700
INVALID_REQUEST = -32600

_log = structlog.get_logger(__name__)


class RpcServer:
    """Serves the calls from threads of its own; `port` is where."""

    def __init__(self, calls: Calls, host: str, port: int, credentials: str) -> None:
        """Listen on host:port, port 0 takes a free one; `credentials` are user:password.

        Raises: SetupError: the port is taken.
        """
        self._calls = calls
        self._expected = b"Basic " + base64.b64encode(credentials.encode())
        handler = type("Handler", (_Handler,), {"server_of_calls": self})
        try:
            self._http = ThreadingHTTPServer((host, port), handler)
        except OSError as error:
            raise SetupError(
                f"cannot serve on {host}:{port}: {error.strerror}; choose another port"
            ) from error
        self._http.daemon_threads = True
        self.port = int(self._http.server_address[1])
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}
        )

    def __enter__(self) -> Self:
        """Begin to serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def is_allowed(self, header: str) -> bool:
        """Return whether an Authorization header carries the credentials."""
        return hmac.compare_digest(header.encode("latin-1", "replace"), self._expected)

    def answer(self, body: bytes) -> tuple[int, bytes]:
        """Return HTTP status and body for a request's body."""
        try:
            request = json.loads(body)
        except (ValueError, RecursionError):
            return 500, _encoded(_failure({}, PARSE_ERROR, "Parse error"))
        if isinstance(request, list):
            if not 0 < len(request) <= BATCH_MAX:
                return 500, _encoded(
                    _failure({}, INVALID_REQUEST, f"a batch has 1 to {BATCH_MAX} calls")
                )
            return 200, _encoded([self._one(one)[1] for one in request])
        status, answer = self._one(request)
        return status, _encoded(answer)

    def _one(self, request: Any) -> tuple[int, dict[str, Any]]:
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return 500, _failure({}, INVALID_REQUEST, "Invalid Request object")
        parameters = request.get("params") or []
        if not isinstance(parameters, list | dict):
            return 500, _failure(request, INVALID_REQUEST, "Params must be an array or object")
        is_new = request.get("jsonrpc") == "2.0"
        try:
            result = self._calls.call(request["method"], parameters)
        except RpcError as error:
            status = 404 if error.code == METHOD_NOT_FOUND else 500
            return 200 if is_new else status, _failure(request, error.code, str(error))
        except Exception:  # noqa: BLE001 - one call's defect ends that call, and is logged
            _log.exception("call failed", method=request["method"][:40])
            return 500, _failure(
                request, MISC_ERROR, "internal error; see the log of the chain's process"
            )
        answer = {"result": result, "id": request.get("id")}
        return 200, {"jsonrpc": "2.0", **answer} if is_new else {**answer, "error": None}


def _failure(request: dict[str, Any], code: int, message: str) -> dict[str, Any]:
    answer = {"error": {"code": code, "message": message}, "id": request.get("id")}
    return (
        {"jsonrpc": "2.0", **answer}
        if request.get("jsonrpc") == "2.0"
        else {"result": None, **answer}
    )


def _encoded(answer: Any) -> bytes:
    # Amounts come as Decimal; a float carries eight decimals of 21 million exactly.
    return json.dumps(answer, default=float).encode() + b"\n"


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server_of_calls: RpcServer
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    # One packet an answer: written in pieces, the second would wait for the first one's acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Keep silent: calls are many."""

    def do_POST(self) -> None:
        """Answer a call or a batch of calls."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > BODY_BYTES_MAX:
            self.close_connection = True
            self._send(413 if length.isdecimal() else 411, b"")
            return
        body = self.rfile.read(int(length))
        if not self.server_of_calls.is_allowed(self.headers.get("Authorization", "")):
            self._send(401, b"", {"WWW-Authenticate": 'Basic realm="jsonrpc"'})
            return
        self._send(*self.server_of_calls.answer(body))

    def do_GET(self) -> None:
        """Refuse: JSON-RPC is POST."""
        self._send(405, b"JSONRPC server handles only POST requests\n")

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        # A client that has gone away is its own affair.
        with contextlib.suppress(ConnectionError, TimeoutError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
