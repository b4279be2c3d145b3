"""How facts are printed: scaled amounts, times, JSON, details of errors."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import DecodeError, InvariantViolation, VerificationError
from node.cli.cycles import percent
from node.cli.errors import CheckFailedError, WrongUseError, as_cli_error, show_error
from node.cli.render import (
    cells,
    counted,
    print_json_rows,
    scaled,
    stdout,
    table,
    trimmed,
    utc,
)
from node.errors import SetupError


@pytest.mark.parametrize(
    ("amount", "scale", "shown", "short"),
    [
        (0, 0, "0", "0"),
        (0, 8, "0.00000000", "0"),
        (1, 8, "0.00000001", "0.00000001"),
        (-150_000_000, 8, "-1.50000000", "-1.5"),
        (1_234_567, 0, "1,234,567", "1,234,567"),
        (1_000, 0, "1,000", "1,000"),
        (123_456_789, 6, "123.456789", "123.456789"),
        (-1, 18, "-0.000000000000000001", "-0.000000000000000001"),
        (10**24, 18, "1,000,000.000000000000000000", "1,000,000"),
        (
            (1 << 128) - 1,
            18,
            "340,282,366,920,938,463,463.374607431768211455",
            "340,282,366,920,938,463,463.374607431768211455",
        ),
    ],
)
def test_amounts_are_scaled_without_floats(amount: int, scale: int, shown: str, short: str) -> None:
    assert scaled(amount, scale) == shown
    assert trimmed(amount, scale) == short


@given(amount=st.integers(-(1 << 191), 1 << 191), scale=st.integers(0, 30))
def test_a_scaled_amount_is_the_same_number(amount: int, scale: int) -> None:
    for text in (scaled(amount, scale), trimmed(amount, scale)):
        assert Fraction(text.replace(",", "")) * 10**scale == amount


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [(0, 0, "-"), (0, 5, "0.0 %"), (1, 3, "33.3 %"), (999, 1000, "99.9 %"), (5, 5, "100.0 %")],
)
def test_percentages_round_down(part: int, whole: int, shown: str) -> None:
    assert percent(part, whole) == shown


@pytest.mark.parametrize(
    ("time_ms", "shown"),
    [
        (0, "-"),
        (1_800_000_000_000, "2027-01-15 08:00:00"),
        ((1 << 64) - 1, "18446744073709551615 ms"),
    ],
)
def test_times(time_ms: int, shown: str) -> None:
    assert utc(time_ms) == shown


@pytest.mark.parametrize("count", [0, 1, 3])
def test_rows_come_as_one_json_list(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": f"Øl {number}", "amount": str(10**40)} for number in range(count)]
    print_json_rows(iter(rows))
    out = capsys.readouterr().out
    assert json.loads(out) == rows
    assert out.endswith("]\n")


def test_cells_are_no_markup() -> None:
    assert cells("[red]x[/]", 5) == ["\\[red]x\\[/]", "5"]


def test_what_has_no_shape_is_printed_by_its_code() -> None:
    hostile = "a\x1b[2Jb\u202e\u2066c\u2028\x85\x7f\r"
    assert cells(hostile) == ["a\\x1b[2Jb\\u202e\\u2066c\\u2028\\x85\\x7f\\r"]
    for text in ("שלום", "בنك مصر", "Ünïcode 銀行", "two\nlines\tand a tab", "\u200cزی"):
        assert cells(text) == [text]


@pytest.mark.parametrize("columns", [200, 80, 60, 30])
def test_no_value_of_a_table_is_lost_on_a_narrow_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = table("Sums", ("asset", "gross", "net", "value"), ("gross", "net", "value"))
    rows = [("BTC", "1,234,567,890,123,456", "5", "77"), ("ETH", "2", "[3]", "999,999,999")]
    for row in rows:
        shown.add_row(*cells(*row))
    stdout().print(shown)
    out = capsys.readouterr().out
    assert all(value in out.split() for row in rows for value in row)
    assert all(len(line) <= columns for line in out.splitlines())


def test_an_error_names_code_sentence_remedy_and_rows(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"line": line, "code": "ZERO_AMOUNT"} for line in range(2, 300)]
    error = WrongUseError("BAD_FILE", "the file has [faults]", "Correct it.", rows, 5_000)
    show_error(error, as_json=True)
    out, err = capsys.readouterr()
    told = json.loads(out)["error"]
    assert (told["code"], told["message"], told["remedy"]) == (
        "BAD_FILE",
        "the file has [faults]",
        "Correct it.",
    )
    assert told["count"] == 5_000
    assert told["details"] == rows[:100]
    for part in ("BAD_FILE", "the file has [faults]", "Correct it.", "101", "5000 in all"):
        assert part in err
    assert "102 " not in err


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (WrongUseError("X", "s", "r"), "X", 2),
        (CheckFailedError("Y", "s", "r"), "Y", 1),
        (SetupError("no such key"), "SETUP", 2),
        (DecodeError("bad"), "MALFORMED", 2),
        (VerificationError("bad"), "NOT_VERIFIED", 1),
        (FileNotFoundError(2, "No such file", "x.csv"), "FILE", 2),
        (IsADirectoryError(21, "Is a directory", "x"), "FILE", 2),
    ],
)
def test_what_the_user_caused_has_a_code(error: Exception, code: str, exit_code: int) -> None:
    told = as_cli_error(error)
    assert told is not None
    assert (told.code, told.exit_code) == (code, exit_code)


def test_a_defect_is_no_mistake_of_the_user() -> None:
    assert as_cli_error(ValueError("ours")) is None
    assert as_cli_error(OSError("no file named")) is None
    assert as_cli_error(InvariantViolation("ours")) is not None


def test_one_of_a_thing_is_no_plural() -> None:
    counts = [counted(count, "submission") for count in (0, 1, 2, 1_000)]
    assert counts == ["0 submissions", "1 submission", "2 submissions", "1,000 submissions"]
