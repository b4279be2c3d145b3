"""What goes wrong around a command: a full disk, a reader that has gone, a closed stream, text that is none."""

from __future__ import annotations

import errno
import io
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import grpc
import pytest
import typer
from typer.testing import CliRunner, Result

from node.cli import main, obligations
from node.cli.call import services
from node.cli.errors import WrongUseError
from node.cli.main import EXIT_READER_GONE
from node.cli.options import ask_passphrase, read_standard_input
from node.cli.session import LATE, told_rpc
from node.pb import v1 as pb

RUNNER = CliRunner()
FULL = Path("/dev/full")
ROWS = "id,debtor,creditor,asset,amount\n" + "".join(f"{n},A,B,X,1\n" for n in range(5_000))


def run(*arguments: str) -> Result:
    return RUNNER.invoke(main.app, list(arguments), prog_name="clearing")


def clearing(*arguments: str, **streams: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "node.cli.main", *arguments]
    return subprocess.run(
        command, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}, check=False
    )


@pytest.fixture
def rows(tmp_path: Path) -> str:
    file = tmp_path / "rows.csv"
    file.write_text(ROWS)
    return str(file)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_stdout_is_told_once(rows: str, unbuffered: str) -> None:
    with FULL.open("wb") as full:
        ended = clearing(
            "net", rows, "--json", stdout=full, env={**os.environ, "PYTHONUNBUFFERED": unbuffered}
        )
    assert ended.returncode == 2
    assert ended.stderr.count(b"FILE: ") == 1
    assert b"No space left" in ended.stderr
    assert b"Traceback" not in ended.stderr
    assert b"ignored" not in ended.stderr


@pytest.mark.parametrize("arguments", ["--help", "", "net --help", "audit"])
def test_so_is_one_behind_a_help(arguments: str) -> None:
    with FULL.open("wb") as full:
        ended = clearing(*arguments.split(), stdout=full)
    assert (ended.returncode, ended.stderr.count(b"FILE: ")) == (2, 1)
    assert b"Traceback" not in ended.stderr


def test_where_even_stderr_is_full_the_exit_code_says_it() -> None:
    with FULL.open("wb") as full:
        ended = clearing("net", "/nosuch", "--json", stderr=full)
    assert ended.returncode == 2
    assert json.loads(ended.stdout)["error"]["code"] == "FILE"


def _gone(_: IO[bytes]) -> None:
    return


def _after_a_line(stream: IO[bytes]) -> None:
    stream.readline()


@pytest.mark.parametrize("reads", [_gone, _after_a_line])
def test_a_reader_that_has_enough_ends_a_command_in_silence(
    rows: str, reads: Callable[[IO[bytes]], None]
) -> None:
    command = [sys.executable, "-m", "node.cli.main", "net", rows, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        reads(running.stdout)
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == EXIT_READER_GONE


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", ["--help", "", "net --help", "audit", "net ROWS"])
def test_help_and_tables_too_end_in_silence_where_nobody_reads_on(
    rows: str, arguments: str, unbuffered: str
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    command = arguments.replace("ROWS", rows).split()
    ended = clearing(*command, stdout=writing, env=environment)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (EXIT_READER_GONE, b"")


def test_a_closed_stdout_is_no_defect(rows: str) -> None:
    ended = clearing("net", rows, "--json", stdout=None, preexec_fn=lambda: os.close(1))
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_wrong_command_line_is_json_where_json_was_asked_for() -> None:
    for arguments in (("obligations", "--cycle", "0"), ("audit", "query"), ("cycle", "nosuch")):
        shown = run(*arguments, "--json")
        assert shown.exit_code == 2
        assert json.loads(shown.stdout)["error"]["code"] == "USAGE"
        assert shown.stderr
        assert run(*arguments).stdout == ""


def test_an_argument_that_is_no_text_is_wrong_use() -> None:
    ended = clearing("instruction", "evidence", b"\xff".decode(errors="surrogateescape"))
    assert ended.returncode == 2
    assert b"NOT_UTF8" in ended.stderr
    assert b"Traceback" not in ended.stderr


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_stream_that_fails_is_told_without_a_path(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        """Break."""
        raise OSError(number, os.strerror(number))

    holder = typer.Typer()
    holder.command("doctor")(broken)
    monkeypatch.setattr(main, "load", lambda _: typer.main.get_command(holder))
    shown = run("doctor")
    assert shown.exit_code == 2
    assert os.strerror(number) in shown.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("instruction", "pledge", "p01", "BTC", "9" * 5_000),
        ("anchor", "verify", "9" * 20),
        ("call", "GetStatus", "{}", "--timeout", "9" * 20),
        ("settle", "psbt", "create", "1", "--out", "x", "--fee-rate", "9" * 20),
        ("node", "genesis", "x.json", "--time-ms", "9" * 20),
    ],
    ids=lambda one: " ".join(one[:3]),
)
def test_numbers_beyond_all_bounds_are_wrong_use(arguments: tuple[str, ...]) -> None:
    shown = run(*arguments)
    assert shown.exit_code == 2
    assert isinstance(shown.exception, SystemExit)


def test_a_passphrase_that_nobody_gives_is_wrong_use(monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ("", "\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(given))
        with pytest.raises(WrongUseError, match="no passphrase of the keys") as caught:
            ask_passphrase("the keys")
        assert caught.value.code == "NO_PASSPHRASE"


def test_a_passphrase_comes_through_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("two words\r\nnot this\n"))
    assert ask_passphrase("the keys").text == "two words"


def test_a_request_without_end_is_refused() -> None:
    with Path("/dev/zero").open("rb") as zeros, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", SimpleNamespace(buffer=zeros))
        with pytest.raises(WrongUseError, match="larger than 67,108,864 bytes"):
            read_standard_input()


def test_call_knows_every_rpc_of_the_wire() -> None:
    # What is in node/pb and not in the command's table could not be called.
    modules = [one.name for one in pkgutil.iter_modules(pb.__path__) if one.name.endswith("_pb2")]
    described = {
        f"{service.full_name}/{method.name}"
        for name in modules
        for service in import_module(f"{pb.__name__}.{name}").DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    known = {f"{service.full_name}/{one.name}" for service in services() for one in service.methods}
    assert known == described


def test_an_interrupted_submission_says_what_is_recorded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Rows:
        def __len__(self) -> int:
            return 3

        def records(self, rows: range) -> list[int]:
            return list(rows)

    class Interrupted:
        def submit(self, rows: list[int]) -> list[SimpleNamespace]:
            if rows == [1]:
                raise KeyboardInterrupt
            return [SimpleNamespace(index=17, items=1)]

    monkeypatch.setattr(obligations, "ITEMS_PER_SUBMISSION_MAX", 1)
    client: Any = Interrupted()
    rows: Any = Rows()
    with pytest.raises(KeyboardInterrupt):
        obligations._send(client, rows)
    said = capsys.readouterr().err
    assert "1 row: submission 17" in said
    assert "clearing resume" in said


class _Late(grpc.RpcError):
    """What gRPC raises when a call's time is over."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.DEADLINE_EXCEEDED

    def details(self) -> str:
        return "Deadline Exceeded"

    def trailing_metadata(self) -> tuple[()]:
        return ()


def test_a_call_that_was_given_up_in_time_is_not_blamed_on_the_node() -> None:
    told = told_rpc(_Late())
    assert (told.code, told.remedy) == ("DEADLINE_EXCEEDED", LATE)
