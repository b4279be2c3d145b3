"""`clearing net` and `clearing net verify` on real files: documents, notices, exit codes, and files that must not appear."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from clearing.netting.engine import DEFAULT
from node.cli import main, net

RUNNER = CliRunner()
HEADER = "id,debtor,creditor,asset,amount"
ROWS = "r0,A,B,BTC,10\nr1,B,C,BTC,7\nr2,C,A,BTC,5\nr3,B,A,BTC,4\nr4,A,B,ETH,340282366920938463463374607431768211455"
IN_EVERY_ASSET = {
    *(
        "obligations",
        "gross",
        "net",
        "ratio",
        "positions",
        "movements",
        "settled",
        "unsettled",
        "value",
    ),
    *("transfers", "liquidity_needed", "liquidity_used"),
}
MORE = {
    "positions": set[str](),
    "gridlock": set[str](),
    "bilateral": {"discharged", "pairs"},
    "setoff": {"discharged", "certificate"},
}


def run(*arguments: object) -> Result:
    shown = RUNNER.invoke(main.app, ["net", *map(str, arguments)], prog_name="clearing")
    assert "Traceback" not in shown.output
    assert shown.exception is None or isinstance(shown.exception, SystemExit)
    return shown


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.csv"
    path.write_text(f"{HEADER}\n{ROWS}\n")
    return path


def document(*arguments: object) -> dict[str, Any]:
    shown = run(*arguments, "--json")
    assert shown.exit_code == 0, shown.output
    return dict(json.loads(shown.stdout))


@pytest.mark.parametrize("method", MORE)
def test_a_document_has_the_keys_that_scripts_rely_on_and_verifies(
    method: str, book: Path, tmp_path: Path
) -> None:
    result = tmp_path / "result.json"
    assert run(book, "--method", method, "--out", result).exit_code == 0
    found = json.loads(result.read_text())
    assert list(found) == ["method", "engine", "assets", "hash"]
    assert found["method"] == method
    assert list(found["assets"]) == ["BTC", "ETH"]
    for asset in found["assets"].values():
        assert set(asset) == IN_EVERY_ASSET | MORE[method]
    assert document(book, "--method", method)["hash"] == found["hash"]
    verified = run("verify", book, result, "--json")
    assert verified.exit_code == 0
    assert json.loads(verified.stdout)["hash"] == found["hash"]


def test_the_engine_named_is_the_one_that_netted(tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    rows = [f"r{n},P{n % 40},P{(n + 1 + n % 7) % 40},BTC,{n + 1}" for n in range(1_500)]
    path.write_text("\n".join([HEADER, *rows]))
    assert document(path, "--method", "setoff")["engine"]["kernels"] == DEFAULT.value
    assert document(path, "--method", "gridlock")["engine"]["kernels"] == "numpy"


def test_what_each_method_says_of_one_circle_and_one_pair(book: Path) -> None:
    by = {method: document(book, "--method", method)["assets"]["BTC"] for method in MORE}
    for asset in by.values():
        assert (asset["obligations"], asset["gross"], asset["net"], asset["ratio"]) == (
            *(4, "26", "2"),
            "0.923076",
        )
        assert asset["positions"] == {"A": "-1", "B": "-1", "C": "2"}
    assert by["positions"]["movements"] == by["positions"]["positions"]
    assert by["positions"]["transfers"] == [
        {"from": "A", "to": "settlement agent", "amount": "1"},
        {"from": "B", "to": "settlement agent", "amount": "1"},
        {"from": "settlement agent", "to": "C", "amount": "2"},
    ]
    assert by["gridlock"]["settled"] == []
    assert by["gridlock"]["unsettled"][0] == {
        "id": "r0",
        "reason": "LIQUIDITY",
        "participant": "A",
        "short": "10",
    }
    assert by["bilateral"]["discharged"] == {"r0": "4", "r3": "4"}
    assert by["bilateral"]["pairs"][0] == {
        "debtor": "A",
        "creditor": "B",
        "net": "6",
        "set_off_each_way": "4",
    }
    assert by["setoff"]["discharged"] == {"r0": "9", "r1": "5", "r2": "5", "r3": "4"}
    assert by["setoff"]["value"] == by["setoff"]["certificate"]["bound"] == "23"
    assert by["setoff"]["certificate"]["gap"] == "0"
    assert by["setoff"]["movements"] == {"A": "0", "B": "0", "C": "0"}


def test_liquidity_caps_bypass_exclusion_and_pairwise_transfers(book: Path, tmp_path: Path) -> None:
    money, caps = tmp_path / "money.csv", tmp_path / "caps.csv"
    money.write_text("participant,asset,amount\nA,BTC,1\nB,BTC,1\nZ,BTC,1\n")
    caps.write_text("participant,asset,amount,note\nB,BTC,0,x\n")
    limited = run(book, "--method", "gridlock", "--liquidity", money, "--json")
    assert "'Z' occur in no obligation" in limited.stderr
    assert json.loads(limited.stdout)["assets"]["BTC"]["value"] == "26"
    both = (book, "--method", "gridlock", "--bypass", "--liquidity", money, "--caps", caps)
    capped = document(*both, "--transfers", "pairwise")["assets"]["BTC"]
    assert capped["bypass"] == {"settled": [], "value": "0"}
    assert {entry["reason"] for entry in capped["unsettled"]} >= {"CAP"}
    used = document(book, "--method", "setoff", "--liquidity", money)["assets"]["BTC"]
    assert used["value"] == "26"
    assert used["movements"] == {"A": "-1", "B": "-1", "C": "2"}
    without = document(book, "--exclude", "B", "--transfers", "pairwise")["assets"]["BTC"]
    assert without["settled"] == ["r2"]
    assert without["transfers"] == [{"from": "C", "to": "A", "amount": "5"}]
    assert without["rounds"] == [{"out": ["B"], "short": []}]


def test_marks_line_ends_quotes_and_further_columns(tmp_path: Path) -> None:
    path = tmp_path / "quoted.csv"
    path.write_bytes(
        b'\xef\xbb\xbf"amount",note,ID,creditor,debtor,asset\r\n"10","x,y","a,1","B ""b""",A,BTC\r\n'
    )
    shown = run(path, "--json")
    assert "columns that are ignored: 'note'" in shown.stderr
    asset = json.loads(shown.stdout)["assets"]["BTC"]
    assert asset["settled"] == ["a,1"]
    assert asset["positions"] == {"A": "-10", 'B "b"': "10"}


@pytest.mark.parametrize("method", MORE)
@pytest.mark.parametrize("text", ["", HEADER + "\n"])
def test_empty_files_are_valid(method: str, text: str, tmp_path: Path) -> None:
    path, result = tmp_path / "empty.csv", tmp_path / "result.json"
    path.write_text(text)
    assert document(path, "--method", method)["assets"] == {}
    assert run(path, "--method", method, "--out", result).exit_code == 0
    assert run("verify", path, result).exit_code == 0


def test_bad_lines_are_listed_and_counted_and_nothing_is_written(tmp_path: Path) -> None:
    path, result = tmp_path / "bad.csv", tmp_path / "result.json"
    path.write_text(HEADER + "".join(f"\nr{number},A,B,BTC,-1" for number in range(250)))
    shown = run(path, "--out", result, "--json")
    assert shown.exit_code == 2
    error = json.loads(shown.stdout)["error"]
    assert (error["code"], error["count"], len(error["details"])) == ("BAD_FILE", 250, 100)
    assert error["details"][0]["line"] == 2
    assert {entry["code"] for entry in error["details"]} == {"AMOUNT_SIGN"}
    assert list(tmp_path.iterdir()) == [path]
    result.write_text("mine")
    assert run(path, "--out", result).exit_code == 2
    assert result.read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--bypass",), "OPTION_WITHOUT_EFFECT"),
        (("--method", "bilateral", "--liquidity", "book.csv"), "OPTION_WITHOUT_EFFECT"),
        (("--method", "setoff", "--caps", "book.csv"), "OPTION_WITHOUT_EFFECT"),
        (("--exclude", "A,X"), "UNKNOWN_PARTICIPANT"),
        (("--method", "gridlock", "--liquidity", "book.csv"), "BAD_FILE"),
    ],
)
def test_wrong_use_is_told_before_anything_is_computed(
    options: tuple[str, ...], code: str, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(book.parent)
    shown = run(book, *options, "--out", "result.json")
    assert shown.exit_code == 2
    assert code in shown.stderr
    assert not Path("result.json").exists()


@pytest.mark.parametrize("options", [("--method", "magic"), ("--transfers", "none"), ("--out",)])
def test_options_that_are_none_are_wrong_use(options: tuple[str, ...], book: Path) -> None:
    assert run(book, *options).exit_code == 2


def test_files_that_are_not_there_are_wrong_use(book: Path, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    for arguments in (
        (absent,),
        (book, "--method", "gridlock", "--liquidity", absent),
        (book, "--out", absent / "result.json"),
        ("verify", book, absent),
        (tmp_path,),
    ):
        assert run(*arguments).exit_code == 2


def test_a_result_that_does_not_hold_ends_with_1_and_the_reason(book: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    found = document(book, "--method", "setoff")
    found["assets"]["BTC"]["discharged"]["r0"] = "8"
    result.write_text(json.dumps(found))
    shown = run("verify", book, result)
    assert shown.exit_code == 1
    assert "does not hold" in shown.stdout
    asked = run("verify", book, result, "--json")
    assert asked.exit_code == 1
    assert json.loads(asked.stdout)["holds"] is False
    assert json.loads(asked.stdout)["reason"]
    result.write_text("{")
    assert run("verify", book, result).exit_code == 1


def test_limits_are_compared_with_ones_own(book: Path, tmp_path: Path) -> None:
    money, result = tmp_path / "money.csv", tmp_path / "result.json"
    money.write_text("participant,asset,amount\nA,BTC,1\n")
    method = ("--method", "gridlock", "--liquidity", money)
    assert run(book, *method, "--out", result).exit_code == 0
    assert run("verify", book, result, "--liquidity", money).exit_code == 0
    money.write_text("participant,asset,amount\nA,BTC,2\n")
    assert run("verify", book, result, "--liquidity", money).exit_code == 1


def test_the_bar_waits_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(net.time, "monotonic", lambda: now[0])
    bar = net.LateBar()
    for moment, is_open in ((100.9, False), (101.1, True)):
        now[0] = moment
        bar.show("reading", 1, 2)
        assert (bar._bar is not None) is is_open
    bar.close()
