"""Node processes on this machine: started, watched, stopped.

Lives here: spawning a node, whether it runs, ending it, free loopback ports. May not live here: what a node is told
(layout.py), what it answers (client).

A running node holds a lock on its pid file: it inherits the locked descriptor from whoever started it, so the lock
ends with the process however it ends, and a pid that the system has given to another process is never signalled.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from node.errors import SetupError

LOOPBACK = "127.0.0.1"

_PORTS = range(20_000, 32_000)
"""Below the range from which systems take ports of outgoing connections, so that a restart finds its port free."""

_POLL_S = 0.02
_LOCK_WAIT_S = 1.0
_LAST_WORDS_CHARACTERS_MAX = 300


@dataclass(frozen=True, slots=True)
class NodeProcess:
    """One node's process: where its pid file and its log are, and the command that runs it."""

    name: str
    pid_file: Path
    log_file: Path
    command: tuple[str, ...]

    def pid(self) -> int | None:
        """Return the pid of the running process, or None."""
        try:
            descriptor = os.open(self.pid_file, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(os.read(descriptor, 32) or b"0") or None
        else:
            return None
        finally:
            os.close(descriptor)

    def start(self) -> int:
        """Start the process in a session of its own and return its pid; a running one is left as it is.

        Raises: SetupError: it cannot be started.
        """
        running = self.pid()
        if running is not None:
            return running
        self._reap()
        descriptor = os.open(self.pid_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(descriptor, self.name)
            # Before the child holds the lock: the pid of the process before must not be taken for its own.
            os.ftruncate(descriptor, 0)
            pid = self._spawn(descriptor)
            os.pwrite(descriptor, b"%d\n" % pid, 0)
        except OSError as error:
            raise SetupError(
                f"cannot start node {self.name}: {error.strerror}; look at {self.log_file}"
            ) from error
        finally:
            os.close(descriptor)
        return pid

    def _spawn(self, lock: int) -> int:
        # The child's copy of the descriptor carries the lock; everything else that is ours is closed on exec.
        inherited = os.dup(lock)
        try:
            os.set_inheritable(inherited, True)
            closed = [
                (os.POSIX_SPAWN_CLOSE, number) for number in _inheritable() if number != inherited
            ]
            return os.posix_spawn(
                sys.executable,
                [sys.executable, *self.command],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (
                        os.POSIX_SPAWN_OPEN,
                        1,
                        str(self.log_file),
                        os.O_WRONLY | os.O_CREAT | os.O_APPEND,
                        0o600,
                    ),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                    *closed,
                ],
                setsid=True,
            )
        finally:
            os.close(inherited)

    def last_words(self, lines: int = 1) -> str:
        """Return the last lines that it wrote, each shortened; "it said nothing" where there is none."""
        text = ""
        with suppress(FileNotFoundError):
            text = self.log_file.read_text("utf-8", "replace")
        return last_lines(text, lines)

    def kill(self) -> None:
        """End the process and what it has started with SIGKILL, as a power cut would, and wait until all are gone."""
        family = self.family()
        # The parent first: it would start its children again.
        for pid in family:
            _signal(pid, signal.SIGKILL)
        self._wait(10)
        until = time.monotonic() + 10
        while any(_runs(pid) for pid in family) and time.monotonic() < until:
            time.sleep(_POLL_S)

    def terminate(self) -> None:
        """Ask the process to end (SIGTERM); `wait_stopped` waits for it. A paused one is resumed to hear it."""
        self._signal(signal.SIGTERM)
        self.resume()

    def pause(self) -> None:
        """Have the process and what it has started stand still (SIGSTOP) where they are; returns when they do."""
        family = self.family()
        for pid in family:
            _signal(pid, signal.SIGSTOP)
        until = time.monotonic() + _LOCK_WAIT_S
        while any(_stat(pid)[:1] not in ([], ["T"], ["Z"]) for pid in family):
            if time.monotonic() > until:
                return
            time.sleep(_POLL_S)

    def resume(self) -> None:
        """Have them go on (SIGCONT); one that goes on already is left as it is."""
        family = self.family()
        for pid in family:
            _signal(pid, signal.SIGCONT)
        until = time.monotonic() + _LOCK_WAIT_S
        while any(_stat(pid)[:1] == ["T"] for pid in family) and time.monotonic() < until:
            time.sleep(_POLL_S)

    def family(self) -> list[int]:
        """Return the pids of the process and of all that it has started, parents first; none where it does not run."""
        pid = self.pid()
        if pid is None:
            return []
        children = _children()
        family = [pid]
        for member in family:
            family += children.get(member, [])
        return family

    def is_paused(self) -> bool:
        """Return whether the process runs but stands still."""
        pid = self.pid()
        return pid is not None and _stat(pid)[:1] == ["T"]

    def wait_stopped(self, seconds: float) -> None:
        """Wait until the process has ended; after `seconds` it is killed."""
        if not self._wait(seconds):
            self.kill()

    def _signal(self, number: signal.Signals) -> None:
        pid = self.pid()
        if pid is not None:
            _signal(pid, number)

    def _wait(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while self.pid() is not None:
            if time.monotonic() > until:
                return False
            time.sleep(_POLL_S)
        self._reap()
        return True

    def _reap(self) -> None:
        """Take the exit status where the process was our own child, so that no zombie stays."""
        try:
            pid = int(self.pid_file.read_bytes() or b"0")
            if pid:
                os.waitpid(pid, 0)
        except (ChildProcessError, FileNotFoundError):
            return


def _inheritable() -> list[int]:
    """Return the descriptors beyond the three streams that a child would get: those that a shell has given to us.

    A node that kept one would keep the pipe open at which somebody waits for this command's end.
    """
    found = []
    for number in [int(one.name) for one in Path("/dev/fd").iterdir()]:
        with suppress(OSError):  # the descriptor of the listing itself is gone
            if number > 2 and os.get_inheritable(number):
                found.append(number)
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _stat(pid: int) -> list[str]:
    """Return state, parent and the rest of what the system says of a process; nothing where it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return []
    # They follow the name, which is in parentheses and may hold any character.
    return stat.rpartition(")")[2].split()


def _runs(pid: int) -> bool:
    """Return whether a process is there and not only waits for its parent to hear of its end."""
    return _stat(pid)[:1] not in ([], ["Z"])


def _children() -> dict[int, list[int]]:
    """Return the children of every process; none on a system that does not say."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if fields:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    return children


def _lock(descriptor: int, name: str) -> None:
    """Lock the pid file, waiting out those who only look whether the process runs.

    Raises: SetupError: another command is starting the node.
    """
    until = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise SetupError(
                    f"another command is starting node {name}: wait for it, then look at its status"
                ) from error
            time.sleep(_POLL_S)
        else:
            return


class Stoppable(Protocol):
    """What can be stopped: a process, or a container."""

    @property
    def name(self) -> str:
        """What it is called."""

    def pid(self) -> int | None:
        """Return its pid, or None where it does not run."""

    def terminate(self) -> None:
        """Ask it to end."""

    def wait_stopped(self, seconds: float) -> None:
        """Wait until it has ended; after `seconds` it is killed."""


def last_lines(text: str, count: int) -> str:
    """Return the last `count` lines of a log that say anything, each shortened; "it said nothing" where none does."""
    said = [line.strip() for line in text.split("\n") if line.strip()]
    return (
        "\n".join(line[:_LAST_WORDS_CHARACTERS_MAX] for line in said[-count:]) or "it said nothing"
    )


def stop_all(processes: Iterable[Stoppable], seconds: float = 10) -> list[str]:
    """Stop the processes that run, all at once; return their names in order."""
    running = [process for process in processes if process.pid() is not None]
    for process in running:
        process.terminate()
    for process in running:
        process.wait_stopped(seconds)
    return [process.name for process in running]


def is_free(port: int) -> bool:
    """Return whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Return `count` different loopback ports on which nothing listens.

    Raises: SetupError: there are not so many.
    """
    start = random.SystemRandom().randrange(len(_PORTS))
    found: list[int] = []
    for offset in range(len(_PORTS)):
        port = _PORTS[(start + offset) % len(_PORTS)]
        if is_free(port):
            found.append(port)
            if len(found) == count:
                return found
    raise SetupError(
        f"fewer than {count} loopback ports are free between 20000 and 32000: free some"
    )
