"""A worker's process that ends itself with SIGKILL at a chosen point; run by test_kill.py through a fork server."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from clearing.rules.anchors import AnchorState
from node.workers.anchoring import files
from node.workers.anchoring.engine import Engine
from node.workers.anchoring.network import Network
from node.workers.anchoring.rpc import BitcoinRpc
from tests.node.workers.anchoring.anchoring_kit import POLICY, START_S, Paper, keyring

DONE, LIVED = 7, 8
"""Exit codes: everything done; the steps are used up."""

STEPS_MAX = 60


@dataclass
class Points:
    """Counts what touches the disk, the node and the ledger; dies at the one chosen, before or after it."""

    chosen: int
    passed: int = 0

    def around(self, work: Callable[..., Any], *arguments: Any) -> Any:
        self._pass()
        result = work(*arguments)
        self._pass()
        return result

    def _pass(self) -> None:
        self.passed += 1
        if self.passed == self.chosen:
            os.kill(os.getpid(), signal.SIGKILL)


def _record(ledger: Path, payload: bytes) -> None:
    """Append what the ledger is told, once: said again it gives its first answer."""
    said = ledger.read_bytes().split(b"\n") if ledger.exists() else []
    if payload not in said:
        with ledger.open("ab") as file:
            file.write(payload + b"\n")
            file.flush()
            os.fsync(file.fileno())


def anchor_one(directory: Path, url: str, size: int, chosen: int) -> None:
    """Anchor the checkpoint of `size` leaves until it is final and told, or until the chosen point."""
    points = Points(chosen)
    files.replace_file = partial(points.around, files.replace_file)
    rpc = BitcoinRpc(url)
    rpc.send = partial(points.around, rpc.send)
    engine = Engine(
        directory,
        keyring(),
        rpc,
        Paper(sizes=[size]),
        network=Network.REGTEST,
        policy=POLICY,
        birthday=0,
        now_s=lambda: START_S,
    )
    for _ in range(STEPS_MAX):
        engine.step(now=True)
        for anchor in engine.untold():
            for position, statement in enumerate(anchor.statements):
                if not statement.told:
                    points.around(_record, directory / "ledger", statement.payload)
                    engine.tell(anchor.number, position, 0)
        state = next((anchor.state for anchor in engine.desk.book), None)
        if state is AnchorState.BROADCAST:
            rpc.call("generate", 2)
        elif state is AnchorState.SHALLOW:
            rpc.call("generate", 4)
        elif state is AnchorState.FINAL and not engine.untold():
            os._exit(DONE)
    os._exit(LIVED)
