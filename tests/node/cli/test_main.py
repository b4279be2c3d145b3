"""The command itself: every command has help, wrong use is told in sentences, nothing shows a traceback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from node.cli import main

RUNNER = CliRunner()


def run(*arguments: str) -> Result:
    return RUNNER.invoke(main.app, list(arguments), prog_name="clearing")


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and subcommand with its path."""
    for name in (*main.GROUPS, *main.COMMANDS):
        loaded = main.load(name)
        yield (name,), loaded
        for sub, command in getattr(loaded, "commands", {}).items():
            yield (name, sub), command


COMMANDS = dict(commands())

DESIGNED = """
    demo verify doctor call submit affirm rescind obligations positions instructions receipt
    node/init node/genesis node/run node/status   testnet/up testnet/down testnet/status
    cycle/run cycle/list cycle/show  instruction/evidence instruction/confirm instruction/fail
    audit/verify audit/commit audit/proof audit/query audit/export audit/fsck   tiles/export
    governance/propose governance/approve governance/list
"""


def test_the_commands_of_the_design_are_there() -> None:
    assert {tuple(path.split("/")) for path in DESIGNED.split()} <= set(COMMANDS)


@pytest.mark.parametrize("path", list(COMMANDS), ids=" ".join)
def test_every_command_has_help_for_itself_and_each_option(path: tuple[str, ...]) -> None:
    shown = run(*path, "--help")
    assert shown.exit_code == 0
    assert "clearing " + " ".join(path) in shown.output
    command = COMMANDS[path]
    assert command.help
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{path}: {parameter.name} has no help"


@pytest.mark.parametrize("path", list(COMMANDS), ids=" ".join)
def test_help_fills_the_width_of_the_terminal(path: tuple[str, ...]) -> None:
    assert all("\n" not in part for part in (COMMANDS[path].help or "").split("\n\n"))


@pytest.mark.parametrize("name", [*main.GROUPS, *main.COMMANDS])
def test_the_list_of_commands_says_what_each_does(name: str) -> None:
    shown = run("--help").output
    place = (main.GROUPS | main.COMMANDS)[name]
    assert place.help.endswith(".")
    assert f" {name} " in shown


def test_without_arguments_the_help_is_shown() -> None:
    assert "Usage: clearing" in run().output
    assert run().exit_code == 2


def test_a_mistyped_command_gets_a_suggestion() -> None:
    shown = run("verfy")
    assert shown.exit_code == 2
    assert "verify" in shown.output


def test_completion_is_offered() -> None:
    asked = {"_CLEARING_COMPLETE": "source_bash"}
    answer = RUNNER.invoke(main.app, [], prog_name="clearing", env=asked)
    assert answer.exit_code == 0
    assert "_clearing_completion()" in answer.output


TALKING = [
    path
    for path, command in COMMANDS.items()
    if {"network_dir", "identity_dir"} <= {parameter.name for parameter in command.params}
]
ARGUMENTS = {
    ("submit",): ("x.csv",),
    ("receipt",): ("1",),
    ("call",): ("GetRegistry",),
    ("affirm",): ("--all",),
    ("reject",): ("--all",),
    ("rescind",): ("--all",),
    ("cycle", "show"): ("1",),
    ("instruction", "evidence"): ("1:0",),
    ("instruction", "confirm"): ("1:0",),
    ("instruction", "fail"): ("1:0",),
    ("tiles", "export"): ("x",),
    ("audit", "proof"): ("1",),
    ("audit", "query"): ("cycles",),
    ("audit", "export"): ("x",),
    ("governance", "propose"): ("-",),
    ("governance", "approve"): ("1",),
}


def test_most_commands_talk_to_a_node() -> None:
    assert len(TALKING) > 20


@pytest.mark.parametrize("path", TALKING, ids=" ".join)
def test_what_talks_to_a_node_takes_json(path: tuple[str, ...]) -> None:
    assert any("--json" in one.opts for one in COMMANDS[path].params)


@pytest.mark.parametrize("path", TALKING, ids=" ".join)
@pytest.mark.parametrize(
    "access",
    [
        (),
        ("--dir", "DIR"),
        ("--dir", "DIR", "--as", "p01"),
        ("--dir", "DIR", "--identity", "DIR"),
        ("--identity", "DIR"),
        ("--identity", "DIR", "--as", "p01"),
        ("--as", "p01"),
        ("--endpoint", "127.0.0.1:1"),
    ],
    ids=" ".join,
)
def test_access_that_is_none_is_wrong_use(
    path: tuple[str, ...], access: tuple[str, ...], tmp_path: Path
) -> None:
    given = [str(tmp_path) if one == "DIR" else one for one in access]
    shown = run(*path, *ARGUMENTS.get(path, ()), *given)
    assert shown.exit_code == 2, shown.output
    assert isinstance(shown.exception, SystemExit)
    assert "Traceback" not in shown.output
    assert shown.stderr


HUGE = "9" * 40


@pytest.mark.parametrize(
    "arguments",
    [
        ("obligations", "--submission", HUGE),
        ("obligations", "--cycle", HUGE),
        ("obligations", "--limit", "-1"),
        ("affirm", "--submission", "-1"),
        ("cycle", "show", HUGE),
        ("cycle", "show", "0"),
        ("audit", "proof", HUGE),
        ("governance", "approve", HUGE),
        ("testnet", "up", "--dir", "x", "--participants", "2"),
        ("testnet", "up", "--dir", "x", "--participants", HUGE),
    ],
    ids=" ".join,
)
def test_numbers_out_of_range_are_wrong_use(arguments: tuple[str, ...]) -> None:
    shown = run(*arguments)
    assert shown.exit_code == 2
    assert isinstance(shown.exception, SystemExit)


def test_json_errors_are_json_on_stdout(tmp_path: Path) -> None:
    shown = run("obligations", "--dir", str(tmp_path), "--as", "p01", "--json")
    assert shown.exit_code == 2
    assert json.loads(shown.stdout)["error"]["code"] == "SETUP"
    assert "testnet up" in shown.stderr


def test_a_defect_of_ours_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        """Break."""
        raise ValueError("ours")

    holder = typer.Typer()
    holder.command("doctor")(broken)
    monkeypatch.setattr(main, "load", lambda _: typer.main.get_command(holder))
    assert isinstance(run("doctor").exception, ValueError)
