"""Nodes as containers: started, watched, stopped, paused, and the packets between them dropped.

Lives here: calls of docker, compose and iptables. May not live here: what a container is given (compose.py), which faults are on
(faults.py).

Faults between containers are packet rules of this machine, in a chain of the network's own below DOCKER-USER, which docker
leaves to others; so they take root, as docker does.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from node.errors import SetupError
from node.testnet.bridge import Bridge
from node.testnet.compose import COMPOSE_NAME, IMAGE
from node.testnet.faults import Faults
from node.testnet.processes import last_lines

_TIMEOUT_S = 120.0
_BUILD_TIMEOUT_S = 1_800.0
_POLL_S = 0.1
_ABSENT = ("no such object", "no such container")
_HOOK = "DOCKER-USER"
_BRIDGED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")

BUILD_SCRIPT = Path(__file__).parents[2] / "docker" / "build.sh"
"""Makes the image; it is in the repository, not in the package."""


@dataclass(frozen=True, slots=True)
class Container:
    """One node's container; the same verbs as NodeProcess."""

    name: str
    container: str

    @property
    def log_file(self) -> str:
        """Where its log is, for people."""
        return f"`docker logs {self.container}`"

    def _state(self) -> dict[str, object]:
        """Return what docker says of its state, nothing where there is none.

        Raises: SetupError: docker does not answer.
        """
        done = _run(
            "docker", "inspect", "--type", "container", "-f", "{{json .State}}", self.container
        )
        if done.returncode == 0:
            found: dict[str, object] = json.loads(done.stdout)
            return found
        if any(words in done.stderr.lower() for words in _ABSENT):
            return {}
        raise _failed("docker inspect", done)

    def exists(self) -> bool:
        """Return whether it has been made, running or not."""
        return bool(self._state())

    def pid(self) -> int | None:
        """Return the pid, on this machine, of its first process, or None where it does not run."""
        return int(str(self._state().get("Pid", 0))) or None

    def is_paused(self) -> bool:
        """Return whether it runs but stands still."""
        return self._state().get("Paused") is True

    def start(self) -> int:
        """Start the container, which compose has made; returns its pid.

        Raises: SetupError: there is none, or it cannot be started.
        """
        _docker("start", self.container)
        pid = self.pid()
        if pid is None:
            raise SetupError(f"node {self.name} ended at once: {self.last_words()}")
        return pid

    def kill(self) -> None:
        """End it with SIGKILL, as a power cut would."""
        self.resume()
        if self.pid() is not None:
            _docker("kill", self.container)
        self.wait_stopped(10)

    def terminate(self) -> None:
        """Ask it to end (SIGTERM); `wait_stopped` waits for it. A paused one is resumed to hear it."""
        self.resume()
        if self.pid() is not None:
            _docker("kill", "--signal", "TERM", self.container)

    def wait_stopped(self, seconds: float) -> None:
        """Wait until it has ended; after `seconds` it is killed."""
        until = time.monotonic() + seconds
        while self.pid() is not None:
            if time.monotonic() > until:
                _docker("kill", self.container)
            time.sleep(_POLL_S)

    def pause(self) -> None:
        """Have it stand still where it is."""
        if not self.is_paused():
            _docker("pause", self.container)

    def resume(self) -> None:
        """Have it go on; one that goes on already is left as it is."""
        if self.is_paused():
            _docker("unpause", self.container)

    def last_words(self, lines: int = 1) -> str:
        """Return the last lines that it wrote, each shortened; "it said nothing" where there is none."""
        done = _run("docker", "logs", "--tail", str(lines + 4), self.container)
        return last_lines(done.stdout + done.stderr, lines)


def make_image(target: str = "node") -> None:
    """Build the image from the repository, or accept the one that is there.

    target: stage of docker/Dockerfile, node or liar.
    Raises: SetupError: it is neither there nor can it be built.
    """
    if BUILD_SCRIPT.exists():
        # The builder's cache makes this short where nothing has changed.
        python = {"PYTHON": os.environ.get("PYTHON") or _interpreter()}
        done = _run(str(BUILD_SCRIPT), target, timeout_s=_BUILD_TIMEOUT_S, more=python)
        if done.returncode:
            raise _failed("docker/build.sh", done)
        return
    if _run("docker", "image", "inspect", IMAGE).returncode:
        raise SetupError(
            f"there is no image {IMAGE}: build it by docker/build.sh of the repository, or tag one so"
        )


def _interpreter() -> str:
    import sys  # noqa: PLC0415 - for its path alone

    return sys.executable


def taken_subnets() -> list[str]:
    """Return the subnets of docker's networks.

    Raises: SetupError: docker does not answer.
    """
    names = _docker("network", "ls", "-q").split()
    if not names:
        return []
    template = "{{range .IPAM.Config}}{{.Subnet}} {{end}}"
    return _docker("network", "inspect", "-f", template, *names).split()


def compose_up(directory: Path, bridge: Bridge, *names: str) -> None:
    """Make and start the containers of a network, or those named.

    Raises: SetupError: one of them cannot be.
    """
    _compose(directory, bridge, "up", "-d", "--no-deps", *names)


def compose_down(directory: Path, bridge: Bridge) -> None:
    """Remove all containers, networks and volumes of a network.

    Raises: SetupError: they cannot be.
    """
    _compose(directory, bridge, "down", "--volumes", "--remove-orphans")


def drop_packets(bridge: Bridge, nodes: Sequence[str], faults: Faults) -> None:
    """Drop what faults say is not to come through, and nothing else, between the containers of nodes.

    Raises: SetupError: the rules cannot be set: no root, no iptables, or bridged packets do not pass it.
    """
    rules = _rules(bridge, nodes, faults)
    if not rules and not _has_chain(bridge):
        return
    if rules and (not _BRIDGED.exists() or _BRIDGED.read_text().strip() != "1"):
        raise SetupError(
            f"packets between containers do not pass this machine's rules ({_BRIDGED} is not 1): as root, "
            "`modprobe br_netfilter; sysctl -w net.bridge.bridge-nf-call-iptables=1`"
        )
    chain = bridge.chain()
    if not _has_chain(bridge):
        _iptables("-N", chain)
        _iptables("-I", _HOOK, "-j", chain)
    _iptables("-F", chain)
    for rule in rules:
        _iptables("-A", chain, *rule)


def drop_nothing(bridge: Bridge) -> None:
    """Remove all packet rules of a network.

    Raises: SetupError: they cannot be.
    """
    if _has_chain(bridge):
        _iptables("-F", bridge.chain())
        _iptables("-D", _HOOK, "-j", bridge.chain())
        _iptables("-X", bridge.chain())


def _rules(bridge: Bridge, nodes: Sequence[str], faults: Faults) -> list[list[str]]:
    """Return the rules for each ordered pair of nodes that a fault lies between."""
    rules = []
    for source in nodes:
        for target in nodes:
            if source == target:
                continue
            way = ["-s", bridge.address(source), "-d", bridge.address(target)]
            lost = faults.lost(source, target)
            if faults.is_cut(source, target) or lost >= 1:
                rules.append([*way, "-j", "DROP"])
            elif lost:
                chance = ("-m", "statistic", "--mode", "random", "--probability", f"{lost:.6f}")
                rules.append([*way, *chance, "-j", "DROP"])
    return rules


def _has_chain(bridge: Bridge) -> bool:
    try:
        return _run("iptables", "-w", "-n", "-L", bridge.chain()).returncode == 0
    except SetupError:
        # A machine without iptables has no rules of ours either.
        return False


def _iptables(*words: str) -> None:
    done = _run("iptables", "-w", *words)
    if done.returncode:
        raise SetupError(
            f"iptables {' '.join(words)}: {done.stderr.strip()}: faults between containers take root on this machine"
        )


@cache
def _compose_command() -> tuple[str, ...]:
    """Return how compose is called here: the plugin, or the program of old.

    Raises: SetupError: there is neither.
    """
    if _run("docker", "compose", "version").returncode == 0:
        return ("docker", "compose")
    try:
        found = _run("docker-compose", "version").returncode == 0
    except SetupError:
        found = False
    if not found:
        raise SetupError(
            "neither `docker compose` nor `docker-compose` works here: install docker's compose plugin"
        )
    return ("docker-compose",)


def _compose(directory: Path, bridge: Bridge, *words: str) -> None:
    file = str((directory / COMPOSE_NAME).resolve())
    command = (*_compose_command(), "-p", bridge.project, "-f", file, *words)
    done = _run(*command, timeout_s=_TIMEOUT_S)
    if done.returncode:
        raise _failed(f"compose {words[0]}", done)


def _docker(*words: str) -> str:
    done = _run("docker", *words)
    if done.returncode:
        raise _failed(f"docker {words[0]}", done)
    return done.stdout


def _run(
    *command: str, timeout_s: float = _TIMEOUT_S, more: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program and return what it said.

    Raises: SetupError: it is not installed, or does not end.
    """
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, **(more or {})},
        )
    except FileNotFoundError as error:
        raise SetupError(
            f"{command[0]} is not installed: test networks in containers need it"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{' '.join(command[:3])} did not end within {timeout_s:.0f} s") from error


def _failed(what: str, done: subprocess.CompletedProcess[str]) -> SetupError:
    said = " ".join((done.stderr or done.stdout).split())[-500:]
    return SetupError(f"{what}: {said or f'exit status {done.returncode}'}")
