"""The netting contests run, their contenders agree cell by cell, and their JSON has the keys that readers of reports rely on.

No time decides anything here. Peers take part where their environment has been made.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import __main__ as main
from benchmarks import bilateral, gridlock, netting, plot, report, setoff
from benchmarks.contest import OURS, Case
from benchmarks.measure import Figure
from benchmarks.obligations import Shape, bits_of_sums, book_of

DEBTS = "id,debtor,creditor,asset,amount\n" + "".join(
    f"{row},{row % 7},{(row + 1 + row % 3) % 7},X,{1 + row * row}\n" for row in range(60)
)
CASES: dict[str, Callable[[], Case]] = {
    "int64": lambda: netting.contest(Shape(3_000, 50, 3), quick=True),
    "104 bits": lambda: netting.contest(Shape(3_000, 50, 3, 104), quick=True),
    "127 bits, Zipf": lambda: netting.contest(Shape(2_000, 9, 1, 127, skew=1.1), quick=True),
    "sums across 2^63": lambda: netting.contest(Shape(2_000, 10, 1, 62), quick=True),
    "one pair": lambda: bilateral.contest(Shape(2_000, 10, 1, hot_pair=True), quick=True),
    "pairs, 126 bits": lambda: bilateral.contest(Shape(2_000, 40, 1, 126), quick=True),
    "gridlock": lambda: gridlock.contest(Shape(2_000, 20, 1), quick=True),
    "gridlock, 104 bits": lambda: gridlock.contest(
        Shape(2_000, 20, 1, 104), prefunded_ppm=500, quick=True
    ),
    "set-off": lambda: setoff.contest(Shape(400, 30, 1, 30), quick=True),
    "set-off, 104 bits": lambda: setoff.contest(Shape(400, 30, 1, 104), quick=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_contenders_agree_and_the_json_is_what_reports_read(name: str) -> None:
    case = CASES[name]()
    found = json.loads(json.dumps(case.as_json()))
    for key in ("case", "results", "floor_ratio", "best_peer", "best_peer_ratio"):
        assert key in found
    assert found["case"]["name"]
    for row in found["results"]:
        assert row["ms_min"] <= row["ms_median"] <= row["ms_p90"]
        assert row["ns_per_obligation"] >= 0
        assert row["equal"] is not False or not row["exact"], row
    assert case.best(OURS) is not None


def test_real_debts_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "debts.csv"
    path.write_text(DEBTS)
    case = setoff.real(path, quick=True)
    assert case.facts["name"] == "real debts, 60 rows, 7 parties"
    assert 0 < case.facts["cleared_percent"] < 100


def test_the_bits_of_sums_are_measured_not_guessed() -> None:
    book = book_of(Shape(1_000, 10, 2, 62))
    totals = [sum(book.asset(number).amounts()) for number in range(2)]
    assert bits_of_sums(book) == max(totals).bit_length() > 63


def test_what_fails_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*, quick: bool) -> list[Figure]:
        raise AssertionError(f"not equal, quick {quick}")

    def holds(*, quick: bool) -> list[Figure]:
        return [Figure("counted", int(quick), "things")]

    for name, run in (("first", fails), ("second", holds)):
        monkeypatch.setitem(sys.modules, f"benchmarks.{name}", SimpleNamespace(run=run))
    monkeypatch.setattr(report, "DIRECTORY", tmp_path)
    monkeypatch.setattr(main, "FIGURES", ("first", "second"))
    monkeypatch.setattr(main, "CONTESTS", ())
    assert main.main(["all", "--quick"]) == 1
    assert "failed: first: AssertionError: not equal, quick True" in capsys.readouterr().err
    found = json.loads((tmp_path / "report.json").read_text())
    assert list(found["failed"]) == ["first"]
    assert list(found["seconds"]) == ["first", "second"]
    assert [one["name"] for one in found["figures"]["second"]] == ["counted"]
    assert "**Failed: first" in (tmp_path / "report.md").read_text()
    monkeypatch.setattr(main, "FIGURES", ("second",))
    assert main.main(["all", "--quick"]) == 0


def test_a_report_is_one_markdown_one_json_and_a_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "DIRECTORY", tmp_path)
    made = report.Report(
        cases=[netting.contest(Shape(rows, 20, 2), quick=True) for rows in (100, 1_000)]
    )
    assert sorted(path.name for path in made.write()) == ["netting.svg", "report.json", "report.md"]
    assert len(json.loads((tmp_path / "report.json").read_text())["cases"]) == 2
    assert "### netting: 1,000 rows" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "netting.svg").read_text().count("<polyline") >= 1
    assert plot.growth("nothing", {}).startswith("<svg")
