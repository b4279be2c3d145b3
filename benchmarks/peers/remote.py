"""Peers that are Python packages, in an environment of their own: making it, and talking to the worker that runs there.

OR-tools pins a protobuf that the ledger's services cannot live with, so the peers never share our environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.contest import PEER, Contender, PeerAbsent

HERE = pathlib.Path(__file__).parent
ENVIRONMENT = HERE / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
LOCK = HERE / "requirements.lock"
ABSENT = "no environment: run `python -m benchmarks peers`"


def make_environment() -> None:
    """Install the peers, pinned and hashed, into an environment of their own."""
    subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "-r", str(LOCK)], check=True)


def versions() -> dict[str, str]:
    """Return the versions of the peers that are installed."""
    if not PYTHON.exists():
        return {}
    code = (
        "import importlib.metadata as m, json;"
        "print(json.dumps({d.metadata['Name']: d.version for d in m.distributions()}))"
    )
    found = json.loads(
        subprocess.run([str(PYTHON), "-c", code], capture_output=True, check=True).stdout
    )
    wanted = [line.split("==")[0] for line in LOCK.read_text().splitlines() if "==" in line]
    return {name: found[name] for name in sorted(wanted) if name in found}


@dataclass(slots=True)
class Worker:
    """The process that runs the peers of one case."""

    process: subprocess.Popen[str]
    directory: pathlib.Path

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request and return the reply.

        Raises: PeerAbsent: the peer cannot do it. RuntimeError: the worker died; it has said why on stderr.
        """
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the worker has no pipes")
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            raise RuntimeError("the peers' worker stopped")
        reply = dict(json.loads(line))
        if "error" in reply:
            raise PeerAbsent(reply["error"])
        return reply

    def contender(self, name: str, *, exact: bool) -> Contender:
        """Return one peer as a contender; its own process takes the time."""
        path = self.directory / f"answer-{name}.npy"

        def answer() -> Any:
            self.ask(answer=name, path=str(path))
            return np.load(path)

        return Contender(name, PEER, lambda: float(self.ask(run=name)["seconds"]), answer, exact)


@contextlib.contextmanager
def peers(
    kind: str, facts: dict[str, Any], arrays: dict[str, Any]
) -> Iterator[tuple[list[Contender], dict[str, str]]]:
    """Run the peers of a kind beside us while the block runs: contenders, and who is absent and why."""
    if not PYTHON.exists():
        yield [], {"pyarrow, polars, duckdb, pandas, OR-tools, networkx": ABSENT}
        return
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        (directory / "facts.json").write_text(json.dumps(facts))
        for stem, array in arrays.items():
            if array is not None:
                np.save(directory / f"{stem}.npy", array)
        process = subprocess.Popen(
            [str(PYTHON), str(HERE / "worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        )
        with process:  # closing its input ends it
            worker = Worker(process, directory)
            reply = worker.ask(load=kind, directory=str(directory))
            found = [worker.contender(name, exact=exact) for name, exact in reply["names"].items()]
            yield found, reply["absent"]
