"""Timing, and what every figure is printed with: machine, versions, load.

Lives here: what all benchmarks share. May not live here: any workload.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

PACKAGES = ("cryptography", "grpcio", "lmdb", "numba", "numpy", "protobuf")


def version_of(package: str) -> str:
    """Return the installed version of a package, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def machine() -> dict[str, Any]:
    """Return processor, cores, memory, operating system, versions and the load at the start."""
    model = "unknown"
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": round(pages * page_bytes / 2**30, 1),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "versions": {package: version_of(package) for package in PACKAGES},
        "load_1min": round(os.getloadavg()[0], 2),
    }


@dataclass(slots=True)
class Samples:
    """Durations of one thing, in seconds, and what this process computed meanwhile, which no neighbour lengthens."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def timed(self, action: Callable[[], Any]) -> Any:
        """Run `action`, keep how long it took, and return what it returned."""
        start, cpu = time.perf_counter(), time.process_time()
        answer = action()
        self.seconds.append(time.perf_counter() - start)
        self.cpu_seconds.append(time.process_time() - cpu)
        return answer

    def percentile_ms(self, percent: int) -> float:
        """Return the smallest duration that at least `percent` of all do not exceed, in milliseconds."""
        ordered = sorted(self.seconds)
        rank = max(0, -(-len(ordered) * percent // 100) - 1)
        return round(ordered[rank] * 1000, 3)

    def summary(self) -> dict[str, float | int]:
        """Return count, minimum, median, p90, p99 and maximum in milliseconds."""
        return {
            "samples": len(self.seconds),
            "ms_min": round(min(self.seconds) * 1000, 3),
            "ms_median": round(statistics.median(self.seconds) * 1000, 3),
            "ms_p90": self.percentile_ms(90),
            "ms_p99": self.percentile_ms(99),
            "ms_max": round(max(self.seconds) * 1000, 3),
        }


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure has to reach; `at_most` for times and sizes, else it is a rate to reach."""

    value: float
    unit: str
    at_most: bool

    def is_met(self, figure: float) -> bool:
        """Return whether `figure` reaches the target."""
        return figure <= self.value if self.at_most else figure >= self.value


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure, with what it has to reach, if anything, and the details behind it."""

    name: str
    value: float
    unit: str
    target: Target | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the figure as plain values."""
        shown: dict[str, Any] = {"name": self.name, "value": self.value, "unit": self.unit}
        if self.target is not None:
            shown["target"] = self.target.value
            shown["met"] = self.target.is_met(self.value)
        return {**shown, **self.details}


def report(benchmark: str, figures: Sequence[Figure], *, as_json: bool) -> None:
    """Print the figures of one benchmark, with the machine they were taken on."""
    if as_json:
        document = {
            "benchmark": benchmark,
            "machine": machine(),
            "figures": [figure.as_json() for figure in figures],
        }
        print(json.dumps(document, indent=2))
        return
    facts = machine()
    print(f"{benchmark}: {facts['processor']}, {facts['cores']} cores, Python {facts['python']}")
    for figure in figures:
        line = f"  {figure.name:<52} {figure.value:>14,.3f} {figure.unit}"
        if figure.target is not None:
            word = "met" if figure.target.is_met(figure.value) else "NOT MET"
            line += f"   target {figure.target.value:,.0f}: {word}"
        print(line)
        for key, value in figure.details.items():
            print(f"      {key}: {value}")
