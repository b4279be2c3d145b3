"""kill -9 of a real writer at random moments: what was acknowledged is there."""

from __future__ import annotations

import random
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from clearing.state import State
from node.store import Head, Store
from node.store.fsck import check_directory
from node.store.startup import check_state, open_checked
from tests.node.forked import CONTEXT, forked
from tests.node.store.store_kit import POLICY, SETTINGS
from tests.node.store.writer_process import write


def run_and_kill(directory: Path, chosen: random.Random) -> list[tuple[str, Head]]:
    """Let a writer work, kill it some time after it told of some block.

    Returns what it acknowledged.
    """
    hears, tells = CONTEXT.Pipe(duplex=False)
    writer = forked(write, directory, tells)
    # Where the writer alone holds it, the end of the writer is the end of what is heard.
    tells.close()
    told: list[tuple[str, Head]] = []
    enough = chosen.randrange(1, 40)
    killer = threading.Timer(chosen.uniform(0, 0.05), writer.kill)
    # Cut off in the midst of a message: nobody was told.
    with hears, suppress(EOFError, OSError):
        while True:
            what, size, root = hears.recv_bytes().decode().split()
            told.append((what, Head(int(size), bytes.fromhex(root))))
            if len(told) == enough:
                # A moment later, in the midst of whatever it does then; what it still tells counts
                # too.
                killer.start()
    killer.join()
    writer.join(60)
    assert writer.exitcode == -signal.SIGKILL
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
