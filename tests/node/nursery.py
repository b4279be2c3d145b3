"""Node processes that start fast: forked from one process that has loaded everything and opened nothing.

Loading the libraries is most of a node's start; a test that starts hundreds of nodes would measure little else. A
forked node runs the same `runtime.run` on the same files, in a process of its own that SIGKILL ends like any other.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from node.testnet.layout import LocalNetwork

_MOTHER = """
import os, signal, sys
sys.modules["numba"] = None  # the portable kernels give the same bits and start no threads
from pathlib import Path
from node.runtime import run

def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass

signal.signal(signal.SIGCHLD, reap)
for line in sys.stdin:
    config, log = line.rstrip("\\n").split("\\t")
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, null), (1, out), (2, out)):
            os.dup2(source, target)
        code = 1
        try:
            run(Path(config))
            code = 0
        except BaseException as error:
            print(repr(error), flush=True)
        finally:
            os._exit(code)
    print(pid, flush=True)
"""


class Nursery:
    """The process that nodes are forked from; a context manager, at whose end every node is killed."""

    def __init__(self) -> None:
        self.nodes: list[ForkedNode] = []
        self._mother = subprocess.Popen(
            [sys.executable, "-c", _MOTHER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        for node in self.nodes:
            node.kill()
        assert self._mother.stdin is not None
        assert self._mother.stdout is not None
        self._mother.stdin.close()
        self._mother.stdout.close()
        self._mother.wait(10)

    def node(self, network: LocalNetwork, name: str) -> ForkedNode:
        """Return a node of the network, not started."""
        node = ForkedNode(self, network.node_path(name), name)
        self.nodes.append(node)
        return node

    def fork(self, config: Path, log: Path) -> int:
        """Start a node and return its pid."""
        assert self._mother.stdin is not None
        assert self._mother.stdout is not None
        self._mother.stdin.write(f"{config}\t{log}\n")
        self._mother.stdin.flush()
        return int(self._mother.stdout.readline())


class ForkedNode:
    """One node: its files, and its process while there is one."""

    def __init__(self, nursery: Nursery, path: Path, name: str) -> None:
        self.name = name
        self.log = path / "node.log"
        self._config = path / "node.toml"
        self._nursery = nursery
        self._pid = 0

    @property
    def runs(self) -> bool:
        """Whether the process is there."""
        try:
            os.kill(self._pid, 0)
        except ProcessLookupError:
            return False
        return self._pid > 0

    def start(self) -> None:
        """Start the process unless it runs."""
        if not self.runs:
            self._pid = self._nursery.fork(self._config, self.log)

    def kill(self) -> None:
        """End the process with SIGKILL, as a power cut would, and wait until it is gone."""
        self._end(signal.SIGKILL, 10)

    def stop(self) -> None:
        """Ask the process to end, and wait until it has."""
        self._end(signal.SIGTERM, 20)

    def _end(self, number: signal.Signals, seconds: float) -> None:
        until = time.monotonic() + seconds
        if self.runs:
            os.kill(self._pid, number)
        while self.runs:
            assert time.monotonic() < until, f"{self.name} does not end"
            time.sleep(0.01)
        self._pid = 0
