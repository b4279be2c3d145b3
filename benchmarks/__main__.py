"""`python -m benchmarks NAME [options]`: run one benchmark, or `all`, which also writes benchmarks/reports/.

Benchmarks of netting take a shape; without one they run their standard cases. `peers` makes the environment of
the peers that are Python packages; without it they are reported as absent.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pathlib
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

from benchmarks import contest, measure
from benchmarks.obligations import Shape
from benchmarks.peers import remote
from benchmarks.report import Report

FIGURES = (
    "ingest",
    "finality",
    "operators",
    "cycle",
    "proofs",
    "anchors",
    "scan",
    "start",
    "kernels",
    "psbt",
    "kills",
)
"""Benchmarks that measure ours alone: run(quick=...) returns figures."""

CONTESTS = ("netting", "bilateral", "gridlock", "setoff")
"""Benchmarks against a floor and peers: standard(quick=...) and contest(shape, ...) return cases."""

SHAPE = ("rows", "participants", "assets", "bits", "skew", "seed")


def parser() -> argparse.ArgumentParser:
    """Return what the command line may be."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    made.add_argument("name", choices=[*FIGURES, *CONTESTS, "peers", "all"])
    made.add_argument("--json", action="store_true", help="print one JSON document")
    made.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    made.add_argument("--rows", type=int, help="obligations")
    made.add_argument("--participants", type=int)
    made.add_argument("--assets", type=int, help="netting only; the other methods take one asset")
    made.add_argument("--bits", type=int, help="amounts are 1 to 2^BITS - 1")
    made.add_argument("--skew", type=float, help="exponent of a Zipf distribution; 0 is uniform")
    made.add_argument("--seed", type=int)
    made.add_argument(
        "--prefunded-ppm", type=int, help="gridlock: liquidity in millionths of gross"
    )
    made.add_argument("--debts", type=pathlib.Path, metavar="FILE.csv", help="setoff: real debts")
    return made


def cases(name: str, options: argparse.Namespace) -> Iterator[contest.Case]:
    """Yield the contests that the options ask for, each printed as it ends unless JSON is asked for."""
    module = importlib.import_module(f"benchmarks.{name}")
    given = {key: getattr(options, key) for key in SHAPE if getattr(options, key) is not None}
    more: dict[str, Any] = {}
    if name == "gridlock" and options.prefunded_ppm is not None:
        more["prefunded_ppm"] = options.prefunded_ppm
    if name == "setoff" and options.debts is not None:
        more["debts"] = options.debts
    if options.name == "all" and more.pop("debts", None):
        works = [*module.standard(quick=options.quick), lambda: module.real(options.debts)]
    elif given or more:
        if name != "netting":
            given["assets"] = 1
        works = [lambda: module.contest(Shape(**given), quick=options.quick, **more)]
    else:
        works = module.standard(quick=options.quick)
    for work in works:
        case = work()
        if not options.json:
            contest.show(case)
        yield case


def run_one(name: str, options: argparse.Namespace, found: Report) -> None:
    """Run a benchmark, put what it measures into the report, and print it."""
    if name in CONTESTS:
        for case in cases(name, options):
            found.cases.append(case)
        return
    figures = importlib.import_module(f"benchmarks.{name}").run(quick=options.quick)
    found.figures[name] = figures
    if options.name != "all" or not options.json:
        measure.report(name, figures, as_json=options.json)


def run_all(options: argparse.Namespace) -> int:
    """Run every benchmark and write the report after each, so that neither a failure nor an interruption loses the others."""
    found = Report()
    names = [*CONTESTS, *FIGURES]
    for number, name in enumerate(names, 1):
        print(f"[{number}/{len(names)}] {name}", file=sys.stderr, flush=True)
        started = time.perf_counter()
        try:
            run_one(name, options, found)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and the others go on
            traceback.print_exc()
            found.failed[name] = f"{type(error).__name__}: {error}"
        found.seconds[name] = round(time.perf_counter() - started, 1)
        paths = found.write()
    print(paths[0].read_text() if options.json else f"\nwritten: {', '.join(map(str, paths))}")
    for name, why in found.failed.items():
        print(f"failed: {name}: {why}", file=sys.stderr)
    return 1 if found.failed else 0


def main(arguments: list[str]) -> int:
    """Run what the arguments name; returns the exit status: 1 where a benchmark of `all` failed."""
    options = parser().parse_args(arguments)
    if options.name == "peers":
        remote.make_environment()
        return 0
    if options.name == "all":
        return run_all(options)
    found = Report()
    run_one(options.name, options, found)
    if options.json and found.cases:
        documents = [case.as_json() | {"machine": measure.machine()} for case in found.cases]
        print(json.dumps(documents[0] if len(documents) == 1 else documents, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
