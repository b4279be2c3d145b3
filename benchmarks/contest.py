"""Contests: contenders that compute the same thing, timed in turn in one run, their answers compared cell by cell.

Lives here: turns, statistics, comparison, JSON and text of a case. May not live here: any contender.

A case is timed in rounds; in each round every contender runs once, so that a busy neighbour or a warm clock meets all of them.
A slow contender drops out when its share of time is spent, after three runs at least, or one where that took its whole share.
"""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

FLOOR, OURS, REFERENCE, PEER = "floor", "ours", "reference", "peer"
"""What a contender is: reads and nothing else; our code; the same loop in C, numpy or Python; what people would use."""

LOAD_MAX = 1.0
FLOOR_MOVE_PERCENT_MAX = 15


class PeerAbsent(Exception):  # noqa: N818 - the name says what happened
    """A contender cannot take part; the text says why."""


@dataclass(slots=True)
class Contender:
    """One way to compute the answer.

    run: computes it once and returns the seconds it took. answer: returns it, for comparison, after a run; None
    where there is nothing to compare. exact: integers of the width that the case needs, by construction.
    """

    name: str
    kind: str
    run: Callable[[], float]
    answer: Callable[[], Any] | None = None
    exact: bool = True
    note: str = ""
    seconds: list[float] = field(default_factory=list)


def timed(name: str, kind: str, work: Callable[[], Any], **more: Any) -> Contender:
    """Return a contender of this process: `work` is timed, what it returns is its answer."""
    kept: list[Any] = [None]

    def run() -> float:
        kept[0] = None
        start = time.perf_counter()
        kept[0] = work()
        return time.perf_counter() - start

    convert = more.pop("convert", None)
    answer = None if kind == FLOOR else lambda: kept[0] if convert is None else convert(kept[0])
    return Contender(name, kind, run, answer, **more)


@dataclass(frozen=True, slots=True)
class Result:
    """What one contender did in a case; times in milliseconds; `equal` is None where nothing was compared."""

    name: str
    kind: str
    ms_min: float
    ms_median: float
    ms_p90: float
    runs: int
    ns_per_obligation: float
    exact: bool
    equal: bool | None
    note: str


@dataclass(frozen=True, slots=True)
class Goal:
    """What a case has to reach.

    of: "floor": ours over the read floor, at most `limit`; "ms": our milliseconds, at most; else a contender's
    name, or "peer" for the fastest peer: that one over ours, at least.
    """

    of: str
    limit: float

    @property
    def at_most(self) -> bool:
        """Whether less is better."""
        return self.of in ("floor", "ms")

    def as_json(self, case: Case) -> dict[str, Any]:
        """Return what was to be reached, what was, and whether that will do; None where it was not measured."""
        ours = case.best(OURS)
        if self.of == "ms":
            value = None if ours is None else ours.ms_min
        elif self.of == "floor":
            value = _ratio(ours, case.best(FLOOR))
        else:
            named = next((r for r in case.results if r.name == self.of), None)
            value = _ratio(case.best(PEER) if self.of == "peer" else named, ours)
        met = (
            None if value is None else (value <= self.limit) == self.at_most or value == self.limit
        )
        what = {"floor": "ours / read floor", "ms": "our ms", "peer": "best peer / ours"}
        sign = "<=" if self.at_most else ">="
        name = f"{what.get(self.of, f'{self.of} / ours')} {sign} {self.limit:g}"
        return {"goal": name, "value": value, "met": met}


@dataclass(frozen=True, slots=True)
class Case:
    """One contest: what was computed, by whom, how fast, and who was missing."""

    benchmark: str
    facts: dict[str, Any]
    results: tuple[Result, ...]
    absent: dict[str, str]
    gb_read: float
    load: tuple[float, float]
    floor_move_percent: float
    peak_rss_mb: int
    goals: tuple[Goal, ...] = ()

    def best(self, kind: str) -> Result | None:
        """Return the fastest of a kind whose answer is exact and equal, by minimum."""
        able = [r for r in self.results if r.kind == kind and r.exact and r.equal is not False]
        return min(able, key=lambda r: r.ms_min, default=None)

    def as_json(self) -> dict[str, Any]:
        """Return the case as plain values."""
        ours, floor, peer = self.best(OURS), self.best(FLOOR), self.best(PEER)
        results = [self._row(result, ours, floor) for result in self.results]
        document: dict[str, Any] = {"benchmark": self.benchmark, "case": self.facts}
        document["results"] = results
        document["floor_ratio"] = _ratio(ours, floor)
        document["best_peer"] = None if peer is None else peer.name
        document["best_peer_ratio"] = _ratio(peer, ours)
        document["goals"] = [goal.as_json(self) for goal in self.goals]
        document["absent"] = self.absent
        document["load_before"], document["load_after"] = self.load
        document["floor_move_percent"] = self.floor_move_percent
        document["steady"] = self.steady
        document["peak_rss_mb"] = self.peak_rss_mb
        return document

    def _row(self, result: Result, ours: Result | None, floor: Result | None) -> dict[str, Any]:
        row = {
            "name": result.name,
            "kind": result.kind,
            "ms_min": result.ms_min,
            "ms_median": result.ms_median,
            "ms_p90": result.ms_p90,
            "runs": result.runs,
            "ns_per_obligation": result.ns_per_obligation,
            "gb_per_s": round(self.gb_read / result.ms_min * 1000, 2) if self.gb_read else None,
            "percent_of_floor": None,
            "times_ours": _ratio(result, ours),
            "exact": result.exact,
            "equal": result.equal,
        }
        if floor is not None:
            row["percent_of_floor"] = round(100 * floor.ms_min / result.ms_min, 1)
        return row | ({"note": result.note} if result.note else {})

    @property
    def steady(self) -> bool:
        """Whether the machine was quiet enough for the figures to be quoted."""
        moved = abs(self.floor_move_percent) > FLOOR_MOVE_PERCENT_MAX
        return max(self.load) <= LOAD_MAX + (os.cpu_count() or 1) and not moved


def _ratio(one: Result | None, other: Result | None) -> float | None:
    return None if one is None or other is None else round(one.ms_min / other.ms_min, 3)


def hold(
    benchmark: str,
    facts: dict[str, Any],
    obligations: int,
    contenders: Sequence[Contender],
    *,
    rounds: int = 10,
    share_s: float = 20.0,
    gb_read: float = 0.0,
    absent: dict[str, str] | None = None,
    goals: Sequence[Goal] = (),
) -> Case:
    """Time the contenders in turn, after one run of each that is not counted, and compare their answers with ours."""
    load = os.getloadavg()[0]
    absent = dict(absent or {})
    contenders = [contender for contender in contenders if _warm(contender, absent)]
    for number in range(rounds):
        for contender in contenders:
            spent = sum(contender.seconds)
            if spent > share_s or (number >= 3 and spent / number * (number + 1) > share_s):
                continue
            contender.seconds.append(contender.run())
    ours = next(c for c in contenders if c.kind == OURS)
    expected = None if ours.answer is None else ours.answer()
    results = tuple(_result(c, obligations, expected) for c in contenders)
    return Case(
        benchmark,
        facts,
        results,
        absent,
        gb_read,
        (round(load, 2), round(os.getloadavg()[0], 2)),
        _floor_move(contenders),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        tuple(goals),
    )


def _warm(contender: Contender, absent: dict[str, str]) -> bool:
    """Run a contender once; one that cannot take part becomes absent. Returns: whether it takes part."""
    try:
        contender.run()
    except PeerAbsent as reason:
        absent[contender.name] = str(reason)
        return False
    return True


def _floor_move(contenders: Sequence[Contender]) -> float:
    """Return by how many percent the floor rose or fell between the first and the second half of the rounds."""
    floors = [contender.seconds for contender in contenders if contender.kind == FLOOR]
    if not floors or len(floors[0]) < 4:
        return 0.0
    half = len(floors[0]) // 2
    first, second = (min(part) for part in (floors[0][:half], floors[0][half:]))
    return round(100 * (second / first - 1), 1)


def _result(contender: Contender, obligations: int, expected: Any) -> Result:
    seconds = sorted(contender.seconds)
    equal = None
    if contender.answer is not None and expected is not None:
        equal = same(contender.answer(), expected)
    return Result(
        contender.name,
        contender.kind,
        round(seconds[0] * 1e3, 4),
        round(statistics.median(seconds) * 1e3, 4),
        round(seconds[max(0, -(-len(seconds) * 9 // 10) - 1)] * 1e3, 4),
        len(seconds),
        round(seconds[0] * 1e9 / max(1, obligations), 3),
        contender.exact,
        equal,
        contender.note,
    )


def same(one: Any, other: Any) -> bool:
    """Compare two answers cell by cell: arrays, tuples of arrays, or integers."""
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.shape == other.shape and bool((one == other).all())
    return bool(one == other)


def show(case: Case) -> None:
    """Print a case as a table."""
    document = case.as_json()
    print(f"\n{case.benchmark}: {case.facts['name']}")
    heads = ("", "ms min", "median", "p90", "ns/obl", "GB/s", "% floor", "x ours", "exact", "equal")
    print(f"  {heads[0]:<34}" + "".join(f"{head:>11}" for head in heads[1:]))
    for row in document["results"]:
        cells = (
            f"{row['ms_min']:,.3f}",
            f"{row['ms_median']:,.3f}",
            f"{row['ms_p90']:,.3f}",
            f"{row['ns_per_obligation']:,.2f}",
            "-" if row["gb_per_s"] is None else f"{row['gb_per_s']:,.1f}",
            "-" if row["percent_of_floor"] is None else f"{row['percent_of_floor']:.0f}",
            "-" if row["times_ours"] is None else f"{row['times_ours']:.2f}",
            "yes" if row["exact"] else "NO",
            {True: "yes", False: "NO", None: "-"}[row["equal"]],
        )
        print(f"  {row['name']:<34}" + "".join(f"{cell:>11}" for cell in cells))
    for name, why in case.absent.items():
        print(f"  {name:<34} absent: {why}")
    line = f"  floor ratio {document['floor_ratio']}, best peer {document['best_peer']}"
    print(f"{line} at {document['best_peer_ratio']} times ours; peak {case.peak_rss_mb:,} MB")
    for goal in document["goals"]:
        word = {True: "met", False: "NOT MET", None: "not measured"}[goal["met"]]
        print(f"  goal {goal['goal']}: {goal['value']}, {word}")
    if not case.steady:
        print(f"  NOT STEADY: load {case.load}, floor moved {case.floor_move_percent} %")
