"""What tests of the commands share: running one, and a network to run it on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from node.cli import main
from node.client import Client
from node.client.calls import Call
from node.testnet.layout import LocalNetwork

RUNNER = CliRunner()
HEADER = "id,debtor,creditor,asset,amount\n"


def run(*arguments: str | Path, stdin: str | None = None) -> Result:
    return RUNNER.invoke(
        main.app, [str(one) for one in arguments], prog_name="clearing", input=stdin
    )


def ok(*arguments: str | Path, stdin: str | None = None) -> str:
    done = run(*arguments, stdin=stdin)
    assert done.exit_code == 0, done.output
    return done.stdout


def facts(*arguments: str | Path, stdin: str | None = None) -> Any:
    return json.loads(ok(*arguments, "--json", stdin=stdin))


def refused(exit_code: int, *arguments: str | Path) -> dict[str, Any]:
    done = run(*arguments, "--json")
    assert done.exit_code == exit_code, done.output
    assert isinstance(done.exception, SystemExit)
    assert "Traceback" not in done.output
    error: dict[str, Any] = json.loads(done.stdout)["error"]
    assert error["code"] in done.stderr
    return error


@contextmanager
def answers() -> Iterator[list[Any]]:
    """Collect what nodes answer to the commands that run in the block."""
    collected: list[Any] = []

    def hearing(client: Client, call: Call, deadline_s: float) -> Any:
        collected.append(as_before(client, call, deadline_s))
        return collected[-1]

    as_before = Client._call
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Client, "_call", hearing)
        yield collected


class Net:
    """One network, and the options that name a party of it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def as_(self, name: str) -> tuple[str, ...]:
        return ("--dir", str(self.path), "--as", name)

    @property
    def layout(self) -> LocalNetwork:
        return LocalNetwork.open(self.path)

    def submit(self, tmp_path: Path, name: str, *rows: str) -> dict[str, Any]:
        file = tmp_path / f"{name}-{time.monotonic_ns()}.csv"
        file.write_text(HEADER + "".join(f"{row}\n" for row in rows))
        submitted: dict[str, Any] = facts("submit", file, *self.as_(name))
        return submitted

    def settle(self, cycle: int) -> None:
        for kind in ("PAY_IN", "PAY_OUT"):
            rows = facts("instructions", "--cycle", str(cycle), *self.as_("central-bank"))
            ids = [row["instruction"] for row in rows if row["kind"] == kind]
            ok("instruction", "evidence", *ids, *self.as_("central-bank"))
            ok("instruction", "confirm", *ids, *self.as_("central-bank"))

    def wait_final(self, cycle: int) -> None:
        until = time.monotonic() + 30
        while not facts("cycle", "list", *self.as_("p01"))[cycle - 1]["final"]:
            assert time.monotonic() < until
            time.sleep(0.05)
