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
    "kills",
    "psbt",
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


def cases(name: str, options: argparse.Namespace) -> list[contest.Case]:
    """Run the contests that the options ask for, printing each as it ends unless JSON is asked for."""
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
    held = []
    for work in works:
        held.append(work())
        if not options.json:
            contest.show(held[-1])
    return held


def main(arguments: list[str]) -> int:
    """Run what the arguments name; returns the exit status."""
    options = parser().parse_args(arguments)
    if options.name == "peers":
        remote.make_environment()
        return 0
    found = Report()
    names = [*FIGURES, *CONTESTS] if options.name == "all" else [options.name]
    for name in names:
        if name in CONTESTS:
            found.cases += cases(name, options)
        else:
            figures = importlib.import_module(f"benchmarks.{name}").run(quick=options.quick)
            found.figures[name] = figures
            if options.name != "all" or not options.json:
                measure.report(name, figures, as_json=options.json)
    if options.name == "all":
        paths = found.write()
        print(paths[0].read_text() if options.json else f"\nwritten: {', '.join(map(str, paths))}")
    elif options.json and found.cases:
        documents = [case.as_json() | {"machine": measure.machine()} for case in found.cases]
        print(json.dumps(documents[0] if len(documents) == 1 else documents, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
