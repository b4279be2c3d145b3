"""A worker killed with SIGKILL before and after each write, each hand-over to the node, each report to the ledger."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from node.workers.anchoring.book import Book
from tests.node.forked import forked
from tests.node.workers.anchoring.anchoring_kit import CREDENTIALS, FUNDED, Paper, Town, keyring
from tests.node.workers.anchoring.killed_process import DONE, anchor_one

POINTS_MAX = 200


def _run(directory: Path, url: str, size: int, chosen: int) -> int:
    process = forked(anchor_one, directory, url, size, chosen)
    process.join(60)
    code = process.exitcode
    process.close()
    assert code is not None
    return code


@pytest.mark.slow
def test_killed_anywhere_it_pays_once_and_tells_everything_once(tmp_path: Path) -> None:
    with Town(tmp_path) as town:
        ring = keyring()
        for _ in range(20):
            for path in FUNDED:
                town.chain.mine(1, ring.script(path))
        town.chain.mine(100)
        url = f"http://{CREDENTIALS}@127.0.0.1:{town.port}"
        town.step()
        read = (tmp_path / "anchoring" / "wallet").read_bytes()
        killed = 0
        for chosen in range(1, POINTS_MAX):
            directory = tmp_path / f"killed-{chosen}"
            directory.mkdir()
            # What was read already need not be read again each time.
            (directory / "wallet").write_bytes(read)
            code = _run(directory, url, chosen, chosen)
            if code == DONE:
                break
            assert code == -signal.SIGKILL, f"point {chosen}"
            killed += 1
            # Once more at the same place, counted from the restart, and then to the end.
            _run(directory, url, chosen, chosen // 2 + 1)
            assert _run(directory, url, chosen, 0) == DONE, f"point {chosen}"
            commitment = Paper(sizes=[chosen]).commitment(
                [Paper(sizes=[chosen]).due(0, 1)[0].digest]
            )
            assert len(town.mined(commitment)) == 1, f"point {chosen}"
            (anchor,) = Book(directory)
            assert len(anchor.versions) == 1
            said = (directory / "ledger").read_text().split("\n")[:-1]
            assert len(said) == len(set(said))
            states = [line.split()[1] for line in said]
            assert states[:2] == ["PENDING", "BROADCAST"]
            assert states[-1] == "FINAL"
            assert [one.told for one in anchor.statements] == [True] * len(said)
            town.step()
            read = (tmp_path / "anchoring" / "wallet").read_bytes()
        assert killed >= 20
