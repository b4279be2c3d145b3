"""Processes held by a lock on their pid file: started, seen, killed, never mistaken for another's."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.errors import SetupError
from node.testnet.processes import LOOPBACK, NodeProcess, free_ports, is_free, stop_all

SLEEP = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


@pytest.fixture
def process(tmp_path: Path) -> Iterator[NodeProcess]:
    made = NodeProcess("one", tmp_path / "pid", tmp_path / "log", ("-c", SLEEP))
    yield made
    made.kill()


def wait_for_text(path: Path, text: str) -> None:
    until = time.monotonic() + 20
    while text not in path.read_text():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_start_is_seen_by_others_and_runs_once(process: NodeProcess, tmp_path: Path) -> None:
    assert process.pid() is None
    pid = process.start()
    assert process.start() == pid
    other = NodeProcess("one", tmp_path / "pid", tmp_path / "log", ("-c", SLEEP))
    assert other.pid() == pid
    wait_for_text(tmp_path / "log", "up")
    os.kill(pid, 0)
    # A session of its own: ^C in the terminal that started it does not reach it.
    assert os.getsid(pid) == pid


def test_it_holds_no_pipe_of_who_started_it(process: NodeProcess) -> None:
    reading, writing = os.pipe()
    try:
        os.set_inheritable(writing, True)
        process.start()
        assert os.get_inheritable(writing)
        os.close(writing)
        # Whoever reads hears the end at once, as in x=$(clearing testnet up 3>&1).
        ended, _, _ = select.select([reading], [], [], 10)
        assert ended
        assert os.read(reading, 1) == b""
    finally:
        os.close(reading)
    # The one descriptor that it must keep: the lock says that it runs.
    assert process.pid() is not None


def test_kill_ends_it_and_it_starts_again_with_another_pid(process: NodeProcess) -> None:
    first = process.start()
    process.kill()
    assert process.pid() is None
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    second = process.start()
    assert process.pid() == second != first


def test_an_old_pid_in_the_file_is_nobody(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(f"{os.getpid()}\n")
    process = NodeProcess("one", tmp_path / "pid", tmp_path / "log", ("-c", SLEEP))
    assert process.pid() is None
    process.terminate()
    process.kill()


def test_who_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    process = NodeProcess("one", tmp_path / "pid", tmp_path / "log", ("-c", STUBBORN))
    process.start()
    wait_for_text(tmp_path / "log", "up")
    assert stop_all([process], seconds=0.2) == ["one"]
    assert process.pid() is None


def test_stop_all_names_only_those_that_ran(process: NodeProcess, tmp_path: Path) -> None:
    idle = NodeProcess("idle", tmp_path / "idle-pid", tmp_path / "idle-log", ("-c", SLEEP))
    process.start()
    assert stop_all([idle, process]) == ["one"]
    assert stop_all([idle, process]) == []


def test_a_program_that_ends_at_once_leaves_its_words_in_the_log(tmp_path: Path) -> None:
    process = NodeProcess(
        "one", tmp_path / "pid", tmp_path / "log", ("-c", "raise SystemExit('no')")
    )
    process.start()
    process.wait_stopped(20)
    assert process.pid() is None
    assert process.last_words() == "no"


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    process = NodeProcess("one", tmp_path / "pid", gone / "log", ("-c", SLEEP))
    with pytest.raises(SetupError, match="cannot start node one"):
        process.start()
    assert process.last_words() == "it said nothing"
    assert process.pid() is None


def test_free_ports_differ_and_taken_ones_are_passed_over() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    with socket.socket() as taken:
        taken.bind((LOOPBACK, ports[0]))
        taken.listen()
        assert not is_free(ports[0])
        assert ports[0] not in free_ports(50)
    assert is_free(ports[0])


PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_what_it_has_started_is_paused_and_killed_with_it(tmp_path: Path) -> None:
    process = NodeProcess("one", tmp_path / "pid", tmp_path / "log", ("-c", PARENT))
    parent = process.start()
    wait_for_text(tmp_path / "log", "\n")
    child = int((tmp_path / "log").read_text())
    assert process.family() == [parent, child]

    def states() -> list[str]:
        stats = [Path(f"/proc/{pid}/stat").read_text() for pid in (parent, child)]
        return [stat.rpartition(")")[2].split()[0] for stat in stats]

    process.pause()
    assert process.is_paused()
    assert states() == ["T", "T"]
    process.resume()
    assert not process.is_paused()
    assert "T" not in states()
    process.pause()
    process.kill()
    assert (process.pid(), process.family(), process.is_paused()) == (None, [], False)
    gone = Path(f"/proc/{child}/stat")
    assert not gone.exists() or " Z " in gone.read_text()
