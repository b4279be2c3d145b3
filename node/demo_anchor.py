"""The demonstration's anchor: into Bitcoin, six blocks deep, proven by a stranger's tool, reorganised, proven again.

Lives here: these steps. May not live here: printing, the rest of the demonstration (demo.py).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from clearing.bitcoin.headers import genesis_pin, verify_chain
from clearing.errors import VerificationError
from clearing.rules.anchors import AnchorState
from node.anchor_check import check_anchor
from node.anchor_queries import AnchorRow
from node.client import Client
from node.files import PUBLIC_MODE, make_private_directory, replace_file
from node.testnet.bitcoin import BitcoinChain
from node.workers.anchoring.headers import HeaderSource
from node.workers.anchoring.rpc import BitcoinRpc

WAIT_S = 30.0
DEPTH = 6
BRANCH = 8
"""Blocks of the competing branch: more work than the six that it replaces."""

_POLL_S = 0.05


class Told(Protocol):
    """Hears how it goes; demo.Teller does."""

    def step(self, title: str) -> None:
        """A step begins."""

    def say(self, text: str) -> None:
        """Something was found out."""


@dataclass(slots=True)
class AnchorDemo:
    """One anchor, shown; `size`: leaves that it must cover."""

    client: Client
    chain: BitcoinChain
    out: Path
    tell: Told
    size: int

    def run(self) -> dict[str, Any]:
        """Go through the steps and return the facts. Raises: VerificationError: one did not come out as it must."""
        self.tell.step("An anchor in Bitcoin (regtest), and a reorganisation")
        with self.chain.rpc() as rpc:
            return self._run(rpc)

    def _run(self, rpc: BitcoinRpc) -> dict[str, Any]:
        self.client.anchor_now()
        sent = self._wait(AnchorState.BROADCAST, lambda: self._clear_the_way(rpc))
        fork = rpc.block_count()
        self.tell.say(
            f"{len(sent.log_sizes)} checkpoints under one OP_RETURN of 32 bytes: transaction {sent.txid[::-1].hex()[:16]}..."
        )
        rpc.call("generate", DEPTH)
        first = self._wait(AnchorState.FINAL)
        proof = self._export(first, rpc)
        self._verify(proof, first, holds=True)
        rpc.call("generatebranch", fork, BRANCH)
        self._wait(AnchorState.REORGED)
        self.tell.say(f"a branch of {BRANCH} blocks replaced {DEPTH}: the anchor is REORGED")
        self._verify(proof, first, holds=False)
        rpc.call("generate", DEPTH)
        second = self._wait(AnchorState.FINAL)
        proof = self._export(second, rpc)
        self._verify(proof, second, holds=True)
        return {
            "id": second.id,
            "checkpoints": len(second.log_sizes),
            "first_height": first.height,
            "height": second.height,
            "verified_by": "ots" if _ots() else "clearing",
        }

    def _covering(self) -> list[AnchorRow]:
        return [row for row in self.client.anchors() if row.log_sizes[-1] >= self.size]

    def _clear_the_way(self, rpc: BitcoinRpc) -> None:
        """Mine a block where an earlier anchor is still on its way: one goes at a time."""
        rows = self.client.anchors()
        if not self._covering() and any(row.state is AnchorState.BROADCAST for row in rows):
            rpc.call("generate", 1)

    def _wait(self, state: AnchorState, meanwhile: Callable[[], None] | None = None) -> AnchorRow:
        until = time.monotonic() + WAIT_S
        while True:
            found = self._covering()
            if found and found[0].state is state:
                return found[0]
            if time.monotonic() > until:
                now = found[0].state.name if found else "not made"
                raise VerificationError(
                    f"the anchor is {now} and not {state.name} after {WAIT_S:.0f} s"
                )
            if meanwhile is not None:
                meanwhile()
            time.sleep(_POLL_S)

    def _export(self, row: AnchorRow, rpc: BitcoinRpc) -> Path:
        """Write the newest checkpoint's note and proof, checked against our own rules too; returns the proof's path."""
        found = self.client.anchor_proofs(row.id)
        headers = HeaderSource(rpc).read(0)
        chain = verify_chain(row.network, 0, headers, genesis_pin(row.network))
        check_anchor(found, self.client.memory.policy, chain)
        size, note, proof = found.notes[-1]
        make_private_directory(self.out)
        path = self.out / f"checkpoint-{size:012d}.note"
        replace_file(path, note, PUBLIC_MODE)
        proof_path = path.with_name(f"{path.name}.ots")
        replace_file(proof_path, proof, PUBLIC_MODE)
        return proof_path

    def _verify(self, proof: Path, row: AnchorRow, *, holds: bool) -> None:
        """Show the proof to stock `ots`, where it is installed.

        Raises: VerificationError: it says otherwise than it must.
        """
        tool = _ots()
        if tool is None:
            self.tell.say(
                f"block {row.height}: checked by our own rules; stock `ots` is not installed here"
            )
            return
        options = ("--no-cache", "--no-default-whitelist", "--btc-regtest", "--bitcoin-node")
        done = subprocess.run(
            [tool, *options, self.chain.facts()["rpc_url"], "verify", str(proof)],
            capture_output=True,
            check=False,
            text=True,
        )
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        if (done.returncode == 0) != holds:
            raise VerificationError(f"stock ots says otherwise than it must: {said}")
        self.tell.say(f"ots verify: {said}")


def _ots() -> str | None:
    """Return the path of stock `ots`, beside this Python or on PATH; None where it is not installed."""
    beside = Path(sys.executable).parent / "ots"
    return str(beside) if beside.exists() else shutil.which("ots")
