"""Node processes that start fast: forked from one process that has loaded everything and opened nothing.

Loading the libraries is most of a node's start; a test that starts hundreds of nodes would measure little else. A
forked node runs the same `runtime.run` on the same files, in a process of its own that SIGKILL ends like any other.
Only the mother signals nodes, and only those that she has not yet buried: a pid that the system has given to another
process is never touched. No node outlives her, and she does not outlive the test.
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

living = set()

def start(config, log):
    pid = os.fork()
    if pid:
        living.add(pid)
        return pid
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

def runs(pid):
    pid = int(pid)
    if pid in living and os.waitpid(pid, os.WNOHANG)[0]:
        living.discard(pid)
    return int(pid in living)

def end(pid, number):
    if runs(pid):
        os.kill(int(pid), int(number))
    return 0

for line in sys.stdin:
    command, *words = line.rstrip("\\n").split("\\t")
    print({"start": start, "runs": runs, "end": end}[command](*words), flush=True)
for pid in list(living):
    end(pid, signal.SIGKILL)
"""


class Nursery:
    """The process that nodes are forked from; a context manager, at whose end every node is killed."""

    def __init__(self) -> None:
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
        assert self._mother.stdin is not None
        assert self._mother.stdout is not None
        self._mother.stdin.close()
        self._mother.wait(30)
        self._mother.stdout.close()

    def node(self, network: LocalNetwork, name: str) -> ForkedNode:
        """Return a node of the network, not started."""
        return ForkedNode(self, network.node_path(name), name)

    def ask(self, *words: object) -> int:
        """Have the mother do something, and return her answer."""
        assert self._mother.stdin is not None
        assert self._mother.stdout is not None
        self._mother.stdin.write("\t".join(map(str, words)) + "\n")
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
        return bool(self._nursery.ask("runs", self._pid))

    def start(self) -> None:
        """Start the process unless it runs."""
        if not self.runs:
            self._pid = self._nursery.ask("start", self._config, self.log)

    def kill(self) -> None:
        """End the process with SIGKILL, as a power cut would, and wait until it is gone."""
        self._end(signal.SIGKILL, 10)

    def stop(self) -> None:
        """Ask the process to end, and wait until it has."""
        self._end(signal.SIGTERM, 30)

    def _end(self, number: signal.Signals, seconds: float) -> None:
        until = time.monotonic() + seconds
        self._nursery.ask("end", self._pid, int(number))
        while self.runs:
            assert time.monotonic() < until, f"{self.name} does not end"
            time.sleep(0.01)
