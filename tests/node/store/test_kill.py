"""kill -9 of a real writer at random moments: what was acknowledged is there."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clearing.state import State
from node.store import Head, Store
from node.store.fsck import check_directory
from node.store.startup import check_state, open_checked
from tests.node.store.store_kit import POLICY, SETTINGS

REPOSITORY = Path(__file__).parents[3]
LINES_MAX = 10_000


def run_and_kill(directory: Path, chosen: random.Random) -> list[tuple[str, Head]]:
    """Let a writer work, kill it some time after it told of some block.

    Returns what it acknowledged.
    """
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.node.store.writer_process", str(directory)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    told: list[tuple[str, Head]] = []
    with writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        enough = chosen.randrange(1, 40)
        killer = threading.Timer(chosen.uniform(0, 0.05), writer.kill)
        for line in writer.stdout:
            # Cut off in the midst of a line: nobody was told.
            if not line.endswith("\n"):
                break
            what, size, root = line.split()
            told.append((what, Head(int(size), bytes.fromhex(root))))
            if len(told) == enough:
                # A moment later, in the midst of whatever it does then; what it still tells counts
                # too.
                killer.start()
        killer.join()
        assert told, writer.stderr.read()
    assert writer.returncode == -9
    return told


def check_kept(store: Store, told: list[tuple[str, Head]]) -> None:
    """Check that every acknowledged block is there with its root, and every recorded head."""
    assert store.tip is not None
    with store.snapshot() as view:
        for _, head in told:
            assert store.tip.log_size >= head.size
            assert view.root(head.size) == head.root
    signed = store.signed_head("log")
    heads = [head for what, head in told if what == "head"]
    if heads:
        assert signed is not None
        assert signed.size >= heads[-1].size


def kill_often(directory: Path, rounds: int, seed: int) -> None:
    chosen = random.Random(seed)
    told: list[tuple[str, Head]] = []
    for _ in range(rounds):
        told += run_and_kill(directory, chosen)
        with open_checked(directory, SETTINGS) as store:
            check_kept(store, told)
            check_state(store, State.load(store))
    assert check_directory(directory, POLICY) == []
    # No two roots at one size were ever acknowledged.
    assert len({head.size for _, head in told}) == len({head for _, head in told})


def test_what_a_killed_writer_acknowledged_is_there(tmp_path: Path) -> None:
    kill_often(tmp_path / "s", rounds=2, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_writer_killed_forty_times_loses_nothing(tmp_path: Path) -> None:
    kill_often(tmp_path / "s", rounds=40, seed=2)
