"""kill -9 of nodes at random, 1,000 times, and the check of what they hold after it: the long run of tests/node/test_kill.py.

Five nodes under load. A run that ends has lost no acknowledged submission, seen no two heads of one size, and left equal
replicas that a replay confirms; any of these failing ends it with an error.
"""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Figure, Target
from tests.node.kill_kit import kill_and_check

KILLS, KILLS_QUICK = 1_000, 10


def run(*, quick: bool) -> list[Figure]:
    """Kill, restart and check; the seed is told, so that the order of kills can be had again."""
    kills = KILLS_QUICK if quick else KILLS
    seed = random.SystemRandom().randrange(1 << 32)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        survived = kill_and_check(Path(name) / "network", kills, seed)
    return [
        Figure(
            "kill -9 of nodes survived, nothing lost, no second history",
            survived.kills,
            "kills",
            Target(kills, "", at_most=False),
            {
                "seed": seed,
                "submissions_acknowledged": survived.submissions,
                "sent_again": survived.repeats,
                "heads_of_different_sizes": survived.heads,
                "seconds": round(time.perf_counter() - started, 1),
            },
        )
    ]
