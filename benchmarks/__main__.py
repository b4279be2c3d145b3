"""`python -m benchmarks NAME [--json] [--quick]`: run one benchmark, or `all`."""

from __future__ import annotations

import argparse
import importlib
import sys

from benchmarks.measure import report

LEDGER = ("ingest", "finality", "cycle", "proofs", "start")


def main(arguments: list[str]) -> int:
    """Run what the arguments name; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=[*LEDGER, "all"])
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    options = parser.parse_args(arguments)
    for name in LEDGER if options.name == "all" else (options.name,):
        module = importlib.import_module(f"benchmarks.{name}")
        report(name, module.run(quick=options.quick), as_json=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
