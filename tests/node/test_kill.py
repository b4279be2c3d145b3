"""Nodes killed with SIGKILL at random, leader and followers, while clients submit and others watch.

What must hold: nothing acknowledged is lost, nothing is recorded twice, no two heads of one size are ever signed,
all replicas end with the same bytes, and these are what a replay of the log gives.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.node.kill_kit import kill_and_check

KILLS = int(os.environ.get("CLEARING_KILLS", "100"))
"""How many processes are killed; `python -m benchmarks kills` kills 1,000."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_nodes_lose_nothing_and_never_disagree(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    survived = kill_and_check(tmp_path / "network", KILLS, seed)
    assert survived.kills >= KILLS
    print(survived)
