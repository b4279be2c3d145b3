"""`python -m tests.network SCENARIO...|all`: run scenarios, print what each showed, exit 1 where something did not hold."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from node.testnet.plan import Engine
from tests.network.scenarios import SHARED, Figures
from tests.network.twin import OWN
from tests.network.world import World, say

LAST_LINES = 20


def run(
    names: Sequence[str], engine: Engine, *, docker: bool, seed: int, directory: Path | None = None
) -> None:
    """Run scenarios in order; those that share a network on one, which is checked after each and at the end.

    directory: where the networks are made and left; else a temporary one, removed unless something fails.
    Raises: AssertionError: something did not hold.
    """
    where = "containers" if docker else "processes"
    say(f"{engine}, {where}, seed {seed}")
    shared = [(name, SHARED[name]) for name in names if name in SHARED]
    runs: list[tuple[str, int | None, list[tuple[str, Callable[[World], Figures]]]]] = []
    if shared:
        runs.append(("shared", None, shared))
    if engine is Engine.COMETBFT:
        runs += [(name, OWN[name][0], [(name, OWN[name][1])]) for name in names if name in OWN]
    for label, operators, scenarios in runs:
        path = (directory or Path(tempfile.mkdtemp(prefix="clearing-scenarios-"))) / label
        _run(scenarios, path, engine, docker=docker, seed=seed, operators=operators)
        if directory is None:
            shutil.rmtree(path.parent)


def _run(
    scenarios: Sequence[tuple[str, Callable[[World], Figures]]],
    path: Path,
    engine: Engine,
    *,
    docker: bool,
    seed: int,
    operators: int | None,
) -> None:
    started = time.monotonic()
    with World(path, engine, docker=docker, seed=seed, operators=operators) as world:
        say(
            f"  network of {len(world.network.ports)} up, {time.monotonic() - started:.1f} s: {path}"
        )
        for name, scenario in scenarios:
            started = time.monotonic()
            try:
                world.load(on=True)
                world.works()
                figures = scenario(world)
                world.net()
                settled = world.settle()
                checked = world.check()
            except BaseException:
                say(f"  {name}: DID NOT HOLD; seed {seed}; {path} is kept")
                _say_standing(world)
                raise
            seconds = time.monotonic() - started
            say(
                f"  {name}: held, {seconds:.1f} s, settled in {settled:.1f} s {json.dumps(figures)}"
            )
            say(f"    checked: {json.dumps(checked)}")
        say(f"  databases: {json.dumps(world.check_stores())}")


def _say_standing(world: World) -> None:
    """Print how every node stands, and the end of the log of who is not well: containers take theirs with them."""
    for report in world.observer.nodes():
        status = report.status
        facts = (status.condition.name, status.log_size, status.final_size) if status else ()
        detail = status.condition_detail if status else ""
        say(f"    {report.name} pid {report.pid} {facts} {detail}")
        if not report.is_healthy:
            words = world.network.process(report.name).last_words(LAST_LINES)
            say("      " + words.replace("\n", "\n      "))


def main(arguments: list[str]) -> int:
    """Run what the arguments name; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.network", description=__doc__)
    parser.add_argument("scenario", nargs="+", choices=[*SHARED, *OWN, "all"])
    parser.add_argument("--engine", type=Engine, choices=list(Engine), default=Engine.COMETBFT)
    parser.add_argument("--docker", action="store_true", help="containers instead of processes")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--dir", type=Path, help="new directory for the networks, which is kept")
    options = parser.parse_args(arguments)
    names = [*SHARED, *OWN] if "all" in options.scenario else options.scenario
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    started = time.monotonic()
    try:
        run(names, options.engine, docker=options.docker, seed=seed, directory=options.dir)
    except Exception:  # noqa: BLE001 - told, and the exit status says it
        traceback.print_exc()
        return 1
    say(f"all held, {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
