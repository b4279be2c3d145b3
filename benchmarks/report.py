"""The report of a whole run: one Markdown and one JSON file, and a plot beside them.

Lives here: what the files hold and where they go (benchmarks/reports/, not kept in git). May not live here: measuring.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.contest import FLOOR, OURS, Case
from benchmarks.measure import Figure, machine
from benchmarks.peers import remote
from benchmarks.plot import growth

_SAME = ("participants", "assets", "bits", "skew", "hot_pair", "prefunded_percent")
"""What the cases of one line of the plot have in common."""

DIRECTORY = pathlib.Path(__file__).parent / "reports"


@dataclass(slots=True)
class Report:
    """Everything that was measured in one run, in order."""

    figures: dict[str, Sequence[Figure]] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Why, by name of what did not end."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each benchmark took."""

    def write(self) -> list[pathlib.Path]:
        """Write the three files and return their paths."""
        DIRECTORY.mkdir(exist_ok=True)
        facts = machine() | {"peers": remote.versions()}
        written = {
            "report.json": json.dumps(self._document(facts), indent=1) + "\n",
            "report.md": "\n".join(self._lines(facts)) + "\n",
            "netting.svg": growth("Netting: cost of an obligation", self._growth()),
        }
        for name, text in written.items():
            (DIRECTORY / name).write_text(text)
        return [DIRECTORY / name for name in written]

    def _document(self, facts: dict[str, Any]) -> dict[str, Any]:
        figures = {name: [f.as_json() for f in found] for name, found in self.figures.items()}
        return {
            "machine": facts,
            "figures": figures,
            "cases": [case.as_json() for case in self.cases],
            "failed": self.failed,
            "seconds": self.seconds,
        }

    def _growth(self) -> dict[str, list[tuple[int, float]]]:
        """Return our best by rows for each method, over its cases that differ in rows alone, and the floor."""
        lines: dict[str, dict[int, float]] = {}
        first: dict[str, dict[str, Any]] = {}
        for case in self.cases:
            facts = {key: case.facts.get(key) for key in _SAME}
            ours, floor = case.best(OURS), case.best(FLOOR)
            if "rows" not in case.facts or facts != first.setdefault(case.benchmark, facts):
                continue
            for name, result in ((case.benchmark, ours), ("read floor", floor)):
                if result is not None and (name != "read floor" or case.benchmark == "netting"):
                    lines.setdefault(name, {})[case.facts["rows"]] = result.ns_per_obligation
        return {name: sorted(points.items()) for name, points in lines.items()}

    def _lines(self, facts: dict[str, Any]) -> list[str]:
        lines = [
            "# Benchmarks",
            "",
            (
                f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['system']}, "
                f"Python {facts['python']}; load at the end {facts['load_1min']}."
            ),
            "",
            "Versions: " + ", ".join(f"{k} {v}" for k, v in facts["versions"].items()) + ".",
            "Peers: " + (", ".join(f"{k} {v}" for k, v in facts["peers"].items()) or "none") + ".",
            "",
        ]
        lines += [f"**Failed: {name}: {why}**" for name, why in self.failed.items()]
        took = ", ".join(f"{name} {seconds:,g}" for name, seconds in self.seconds.items())
        lines += [f"Seconds: {took}.", ""]
        for name, figures in self.figures.items():
            lines += [f"## {name}", "", "| figure | value | target | |", "|---|---:|---:|---|"]
            lines += [_figure_row(figure) for figure in figures]
            lines.append("")
        if self.cases:
            lines += ["## Netting", "", "![ns an obligation against rows](netting.svg)", ""]
        for case in self.cases:
            lines += _case_lines(case)
        return lines


def _figure_row(figure: Figure) -> str:
    value = f"{figure.value:,.3f} {figure.unit}"
    if figure.target is None:
        return f"| {figure.name} | {value} | | |"
    met = "met" if figure.target.is_met(figure.value) else "**not met**"
    return f"| {figure.name} | {value} | {figure.target.value:,g} | {met} |"


def _case_lines(case: Case) -> list[str]:
    document = case.as_json()
    names = (
        "ms_min",
        "ms_median",
        "ms_p90",
        "ns_per_obligation",
        "gb_per_s",
        "percent_of_floor",
        "times_ours",
    )
    lines = [
        f"### {case.benchmark}: {case.facts['name']}",
        "",
        (
            f"Seed {case.facts.get('seed', '-')}; load {case.load[0]} to {case.load[1]}; "
            f"peak {case.peak_rss_mb:,} MB{'' if case.steady else '; **not steady**'}."
        ),
        "",
        "| | ms min | median | p90 | ns/obl | GB/s | % of floor | times ours | exact | equal |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|---|",
    ]
    for row in document["results"]:
        cells = ["-" if row[name] is None else f"{row[name]:,}" for name in names]
        cells.append("yes" if row["exact"] else "**no**")
        cells.append({True: "yes", False: "**no**", None: "-"}[row["equal"]])
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    lines.append("")
    lines += [f"- {name} is absent: {why}" for name, why in case.absent.items()]
    for goal in document["goals"]:
        word = {True: "met", False: "**not met**", None: "not measured"}[goal["met"]]
        lines.append(f"- {goal['goal']}: {goal['value']}, {word}")
    return [*lines, ""]
