"""The Bitcoin chain of a test network: an embedded regtest chain as a process, or a container, of its own.

Lives here: its place, what it runs as, asking and mining it. May not live here: the chain (node/regtest, which runs apart), the
node's use of it (workers/anchoring), what its container is given (compose.py).
"""

from __future__ import annotations

import importlib.util
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.errors import SetupError
from node.files import make_private_directory, read_private
from node.testnet.compose import BITCOIN_NAME, CHAIN_NAME
from node.testnet.containers import Container
from node.testnet.processes import LOOPBACK, NodeProcess
from node.workers.anchoring.network import Network
from node.workers.anchoring.rpc import BitcoinError, BitcoinRpc

COOKIE_NAME = ".cookie"

START_S = 30.0
TIMEOUT_S = 10.0
_POLL_S = 0.02


def has_engine() -> bool:
    """Return whether the consensus engine is installed here (the extra `bitcoin`)."""
    return importlib.util.find_spec("pbk") is not None


@dataclass(frozen=True, slots=True)
class BitcoinChain:
    """The chain in the directory `path`, serving JSON-RPC on loopback port `port`; block_s: seconds between blocks.

    container: as what it runs where nodes are containers; address: host:port at which they reach it.
    """

    path: Path
    port: int
    block_s: int = 0
    container: Container | None = None
    address: str = ""

    @property
    def cookie_path(self) -> Path:
        """The file with user:password of its RPC; a process makes it at its first start.

        What a container reads belongs to the container's user, so that this user has a copy.
        """
        return (self.path if self.container else self.path / CHAIN_NAME) / COOKIE_NAME

    @property
    def url(self) -> str:
        """Its RPC, without user and password."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def node_url(self) -> str:
        """Its RPC as nodes reach it."""
        return f"http://{self.address}" if self.address else self.url

    @property
    def process(self) -> NodeProcess | Container:
        """What it runs as, running or not."""
        if self.container is not None:
            return self.container
        command = (
            *("-m", "node.regtest", "--dir", str((self.path / CHAIN_NAME).resolve())),
            *("--port", str(self.port), "--mine-every", str(self.block_s)),
        )
        return NodeProcess(BITCOIN_NAME, self.path / "pid", self.path / "chain.log", command)

    def rpc(self) -> BitcoinRpc:
        """Return a client of its RPC."""
        return BitcoinRpc(self.url, self.cookie_path, timeout_s=TIMEOUT_S)

    def start(self) -> None:
        """Start the process if it does not run, and wait until it answers.

        Raises: SetupError: it ends, or does not answer in time.
        """
        make_private_directory(self.path)
        process = self.process
        process.start()
        until = time.monotonic() + START_S
        with self.rpc() as rpc:
            while True:
                try:
                    rpc.block_count()
                except BitcoinError as error:
                    if process.pid() is None:
                        raise SetupError(
                            f"the bitcoin chain ended while it started: {_reason(process.last_words())}; more is in "
                            f"{process.log_file}"
                        ) from error
                    if time.monotonic() > until:
                        raise SetupError(
                            f"the bitcoin chain does not answer after {START_S:.0f} s ({error}): look at {process.log_file}"
                        ) from error
                    time.sleep(_POLL_S)
                else:
                    return

    def mine(self, blocks: int, address: str) -> None:
        """Mine blocks whose rewards go to `address`. Raises: BitcoinError."""
        with self.rpc() as rpc:
            rpc.call("generatetoaddress", blocks, address)

    def facts(self) -> dict[str, Any]:
        """Return network, URL with user and password, where nodes reach it, and height, None where it does not answer.

        The password guards coins of no value, and who reads it here owns the chain.
        """
        height = None
        url = self.url
        try:
            url = f"http://{read_private(self.cookie_path).decode().strip()}@{LOOPBACK}:{self.port}"
            with self.rpc() as rpc:
                height = rpc.block_count()
        except (BitcoinError, SetupError):
            height = None
        return {
            "network": Network.REGTEST.value,
            "rpc_url": url,
            "address": self.address or f"{LOOPBACK}:{self.port}",
            "height": height,
        }


def _reason(line: str) -> str:
    """Return the reason in a line of the process's log, or the line where it is none."""
    try:
        return str(json.loads(line)["reason"])
    except (ValueError, KeyError, TypeError):
        return line
