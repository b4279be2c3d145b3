"""Independent Bitcoin nodes as processes: btcd, and Bitcoin Core where it is installed; and stock `ots` before them.

btcd is found by CLEARING_BTCD or on PATH, bitcoind on PATH. Both on regtest, two that can be cut apart.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from node.testnet.processes import free_ports
from node.workers.anchoring.rpc import BitcoinError, BitcoinRpc, CallRefusedError

WAIT_S = 30.0
USER = "u:p"


def btcd_path() -> str | None:
    return os.environ.get("CLEARING_BTCD") or shutil.which("btcd")


def wait_for(what: str, holds: Any) -> None:
    until = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < until, what
        time.sleep(0.02)


@dataclass
class NodeProcess(ABC):
    """One node; `address` is where its rewards go."""

    directory: Path
    address: str

    def __post_init__(self) -> None:
        self.rpc_port, self.port = free_ports(2)
        self.directory.mkdir(parents=True)
        self.rpc = BitcoinRpc(f"http://{USER}@127.0.0.1:{self.rpc_port}", timeout_s=10)
        with (self.directory / "out").open("wb") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        wait_for(f"{self.directory} answers", self._answers)

    @abstractmethod
    def command(self) -> list[str]: ...

    @abstractmethod
    def mine(self, count: int) -> None: ...

    @abstractmethod
    def cut(self) -> None: ...

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.directory / "out").read_text()[-2_000:]
        try:
            return self.rpc.block_count() >= 0
        except BitcoinError:
            return False

    def stop(self) -> None:
        self.rpc.close()
        self.process.kill()
        self.process.wait()

    def connect(self, other: NodeProcess) -> None:
        self.rpc.call("addnode", f"127.0.0.1:{other.port}", "onetry")

    def wait_same_tip(self, other: NodeProcess) -> None:
        wait_for(
            "both have one tip",
            lambda: self.rpc.call("getbestblockhash") == other.rpc.call("getbestblockhash"),
        )


class Btcd(NodeProcess):
    """btcd; its regtest data is gone at each start."""

    def command(self) -> list[str]:
        config = self.directory / "btcd.conf"
        config.touch()
        return [
            str(btcd_path()),
            "--regtest",
            "-C",
            str(config),
            "-b",
            str(self.directory / "data"),
            f"--logdir={self.directory / 'log'}",
            "--notls",
            "-u",
            "u",
            "-P",
            "p",
            "--nobanning",
            f"--rpclisten=127.0.0.1:{self.rpc_port}",
            f"--listen=127.0.0.1:{self.port}",
            f"--miningaddr={self.address}",
        ]

    def mine(self, count: int) -> None:
        self.rpc.call("generate", count)

    def cut(self) -> None:
        for peer in self.rpc.call("getpeerinfo"):
            try:
                self.rpc.call("node", "remove", str(peer["id"]))
            except CallRefusedError:
                self.rpc.call("node", "disconnect", str(peer["id"]))
        wait_for("no peer is left", lambda: not self.rpc.call("getpeerinfo"))


class Core(NodeProcess):
    """Bitcoin Core."""

    def command(self) -> list[str]:
        return [
            "bitcoind",
            "-regtest",
            f"-datadir={self.directory}",
            "-rpcuser=u",
            "-rpcpassword=p",
            f"-rpcport={self.rpc_port}",
            f"-bind=127.0.0.1:{self.port}",
            "-listen=1",
            "-fallbackfee=0.0001",
            "-listenonion=0",
            "-dnsseed=0",
            "-fixedseeds=0",
        ]

    def mine(self, count: int) -> None:
        self.rpc.call("generatetoaddress", count, self.address)

    def cut(self) -> None:
        for peer in self.rpc.call("getpeerinfo"):
            self.rpc.call("disconnectnode", "", peer["id"])
        wait_for("no peer is left", lambda: not self.rpc.call("getpeerinfo"))


KINDS = [
    pytest.param(
        Btcd,
        marks=pytest.mark.skipif(btcd_path() is None, reason="no btcd: .ci/run builds it"),
        id="btcd",
    ),
    pytest.param(
        Core,
        marks=pytest.mark.skipif(shutil.which("bitcoind") is None, reason="no bitcoind"),
        id="core",
    ),
]
"""Both kinds as parameters of a test."""


class _Shim(BaseHTTPRequestHandler):
    """Adds the "jsonrpc" member that btcd demands and stock `ots` does not send."""

    node: str
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        call["jsonrpc"] = "1.0"
        call.pop("version", None)
        headers = {
            "Authorization": self.headers["Authorization"],
            "Content-Type": "application/json",
        }
        request = urllib.request.Request(self.node, json.dumps(call).encode(), headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request) as answer:  # noqa: S310
                status, body = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def shim(port: int) -> Iterator[str]:
    """Serve the node at `port` to clients that send no "jsonrpc"; gives the URL with user and password."""
    handler = type("Shim", (_Shim,), {"node": f"http://127.0.0.1:{port}/"})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://{USER}@127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ots_verify(url: str, proof: Path) -> tuple[int, str]:
    """Return exit code and words of stock `ots verify`, which asks the node and nobody else."""
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "ots"),
            "--no-cache",
            "--no-default-whitelist",
            "--btc-regtest",
            "--bitcoin-node",
            url,
            "verify",
            str(proof),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr
