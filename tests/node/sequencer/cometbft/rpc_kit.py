"""The engine's RPC as a test scripts it: HTTP over a unix socket, one answer a call, connections that break."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Self

Answer = Callable[[str], Any]
BREAK = object()
"""An answer that closes the connection instead."""


class ScriptedRpc(socketserver.ThreadingUnixStreamServer):
    """Answers each path by `answer`: a result, an error's data as a string, or BREAK."""

    daemon_threads = True
    request_queue_size = 16

    def __init__(self, path: Path, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[str] = []
        super().__init__(str(path), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedRpc

    def address_string(self) -> str:
        return "engine"

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        found = self.server.answer(self.path)
        if found is BREAK:
            self.close_connection = True
            self.connection.close()
            return
        body: dict[str, Any] = {"jsonrpc": "2.0", "id": -1}
        if isinstance(found, str):
            body["error"] = {"code": -32603, "message": "Internal error", "data": found}
        else:
            body["result"] = found
        data = json.dumps(body).encode()
        self.send_response(500 if "error" in body else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
