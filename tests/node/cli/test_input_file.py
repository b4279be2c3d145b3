"""Files that are held in memory as a whole: what has no end, no line ends or no room for it is refused."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from node.cli import input_file, main
from node.cli.errors import WrongUseError
from node.cli.input_file import LINE_BYTES_MAX, group_limits_bytes, memory_share_bytes, read_whole

RUNNER = CliRunner()
HEADER = b"id,debtor,creditor,asset,amount\n"
ZERO = Path("/dev/zero")


def refusal(path: Path, bytes_max: int | None = None, line_bytes_max: int | None = None) -> str:
    with pytest.raises(WrongUseError) as caught:
        read_whole(path, bytes_max, line_bytes_max)
    assert caught.value.remedy
    return caught.value.code


class Pipe:
    """A pipe as process substitution makes one, into which a thread writes `data` again and again."""

    def __init__(self, data: bytes, times: int) -> None:
        self._reading, writing = os.pipe()
        self.path = Path(f"/dev/fd/{self._reading}")
        self._thread = threading.Thread(target=self._write, args=(writing, data, times))

    def _write(self, writing: int, data: bytes, times: int) -> None:
        try:
            with open(writing, "wb") as stream:
                stream.writelines(data for _ in range(times))
        except BrokenPipeError:
            return

    def __enter__(self) -> Path:
        self._thread.start()
        return self.path

    def __exit__(self, *_: object) -> None:
        os.close(self._reading)
        self._thread.join()


@pytest.mark.parametrize("command", [("net", "/dev/zero"), ("net", "BOOK", "--caps", "/dev/zero")])
def test_a_source_without_end_is_refused_with_code_and_remedy(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    book = tmp_path / "book.csv"
    book.write_bytes(HEADER + b"1,A,B,X,1\n")
    ended = RUNNER.invoke(main.app, [str(book) if one == "BOOK" else one for one in command])
    assert ended.exit_code == 2
    assert "LINE_TOO_LONG: /dev/zero has a line of more than 1,048,576 bytes" in ended.stderr
    assert "What to do: " in ended.stderr


def test_a_result_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_file, "memory_share_bytes", lambda: 5 << 20)
    book = tmp_path / "book.csv"
    book.write_bytes(HEADER + b"1,A,B,X,1\n")
    ended = RUNNER.invoke(main.app, ["net", "verify", str(book), "/dev/zero"])
    assert ended.exit_code == 2
    assert "FILE_TOO_LARGE: /dev/zero is larger than 5,242,880 bytes" in ended.stderr


def test_rows_without_end_are_refused_at_the_limit() -> None:
    with Pipe(b"1,A,B,X,1\n", 1_000_000) as path:
        assert refusal(path, 3 << 20, LINE_BYTES_MAX) == "FILE_TOO_LARGE"


def test_a_file_above_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 42)
    assert refusal(path) == "FILE_TOO_LARGE"


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("piped", [False, True])
@pytest.mark.parametrize("line_bytes", [1, 7, 99, 100])
def test_lines_up_to_the_limit_are_read_however_they_end_and_come(
    line_bytes: int, piped: bool, ending: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_file, "_PIECE_BYTES", 64)
    line = b"x" * (line_bytes - len(ending) + 1)
    data = (line + ending) * 50 + b"x" * 100
    path = tmp_path / "table"
    path.write_bytes(data)
    with Pipe(data, 1) as pipe:
        asked = pipe if piped else path
        assert read_whole(asked, line_bytes_max=100) == data
    path.write_bytes(data + b"x")
    with Pipe(data + b"x", 1) as pipe:
        assert refusal(pipe if piped else path, line_bytes_max=100) == "LINE_TOO_LONG"


UNLIMITED_V1 = (1 << 63) - 4096


@pytest.mark.parametrize(
    ("own", "files", "limits"),
    [
        ("0::/\n", {"memory.max": "1073741824\n"}, [1 << 30]),
        ("0::/\n", {"memory.max": "max\n"}, []),
        ("0::/\n", {}, []),
        # A group is also under the limits of those around it.
        (
            "0::/a.slice/b.scope\n",
            {"a.slice/memory.max": "7\n", "a.slice/b.scope/memory.max": "max\n"},
            [7],
        ),
        ("0::/a/b\n", {"a/memory.max": "7", "a/b/memory.max": "9"}, [9, 7]),
        # A container that sees its path outside, and its own group mounted as the top.
        ("0::/docker/c0ffee\n", {"memory.max": "5"}, [5]),
        ("9:memory:/docker/c0ffee\n0::/\n", {"memory/memory.limit_in_bytes": "5"}, [5]),
        (
            "12:cpu,cpuacct:/x\n4:hugetlb,memory:/x:y\n1:name=systemd:/x\n",
            {"memory/x:y/memory.limit_in_bytes": "6", "memory/memory.limit_in_bytes": "8"},
            [6, 8],
        ),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": f"{UNLIMITED_V1}\n"}, [UNLIMITED_V1]),
        ("4:cpuset:/\n", {"memory/memory.limit_in_bytes": "6"}, []),
        (None, {"memory.max": "1"}, []),
    ],
)
def test_limits_of_control_groups_are_read(
    own: str | None, files: dict[str, str], limits: list[int], tmp_path: Path
) -> None:
    listed, groups = tmp_path / "cgroup", tmp_path / "groups"
    if own is not None:
        listed.write_text(own)
    for name, text in files.items():
        path = groups / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert group_limits_bytes(listed, groups) == limits


@pytest.mark.parametrize(
    ("limit", "share"), [("4096\n", 2048), ("max\n", None), (UNLIMITED_V1, None)]
)
def test_the_lesser_of_machine_and_container_bounds_a_file(
    limit: object, share: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/\n")
    (tmp_path / "memory.max").write_text(str(limit))
    monkeypatch.setattr(input_file, "_OWN_GROUPS", own)
    monkeypatch.setattr(input_file, "_GROUPS", tmp_path)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    assert memory_share_bytes() == (machine if share is None else share)


def test_a_table_comes_through_a_pipe() -> None:
    with Pipe(HEADER + b"1,A,B,X,1\n", 1) as path:
        ended = RUNNER.invoke(main.app, ["net", str(path), "--json"])
    assert ended.exit_code == 0
    assert '"gross": "1"' in ended.stdout
