"""The supervisor: what it does when one of the pair ends, and what it says. The node is real, the engine is scripted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from node.sequencer.cometbft import binary
from node.supervisor import FAILURE_WORDS, _parsed
from tests.node.operators_kit import OperatorsNetwork, make_operators

RUN = """
import sys, node.supervisor as s
from pathlib import Path
s.SHORT_LIVES_MAX, s.PAUSE_S_MIN, s.STOP_S = 2, 0.05, 5.0
try:
    s.run(Path(sys.argv[1]), None)
except s.SetupError as error:
    sys.exit(f"GAVE UP {error}")
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> OperatorsNetwork:
    return make_operators(tmp_path_factory.mktemp("pair") / "net")


def engine(tmp_path: Path, body: str) -> Path:
    """Return a program that passes for the engine and does `body` when started."""
    path = tmp_path / "engine"
    version = binary.VERSION.removeprefix("v")
    path.write_text(f'#!/bin/sh\n[ "$1" = version ] && {{ echo {version}; exit; }}\n{body}\n')
    path.chmod(0o755)
    return path


def start(network: OperatorsNetwork, name: str, program: Path, log: Path) -> subprocess.Popen:
    config = network.node_path(name) / "node.toml"
    lines = [
        f'cometbft_path = "{program}"' if line.startswith("cometbft_path") else line
        for line in config.read_text().splitlines()
    ]
    config.write_text("\n".join(lines) + "\n")
    with log.open("wb") as out:
        return subprocess.Popen([sys.executable, "-c", RUN, str(config)], stderr=out, stdout=out)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_an_engine_that_always_ends_is_given_up(network: OperatorsNetwork, tmp_path: Path) -> None:
    log = tmp_path / "log"
    pair = start(network, "central-bank", engine(tmp_path, "echo last words; exit 1"), log)
    assert pair.wait(60) == 1
    text = log.read_text()
    assert "GAVE UP central-bank gave up: engine ended 2 times in a row" in text
    assert '"engine: last words"' in text
    run = network.engine_path("central-bank") / "run"
    assert not alive(int((run / "node.pid").read_text()))
    assert not list(run.glob("*.sock"))


@pytest.mark.slow
def test_a_failed_engine_is_explained_and_a_stop_stops_both(
    network: OperatorsNetwork, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    line = json.dumps({"level": "error", "_msg": f"{FAILURE_WORDS}!!!", "err": "wrong app hash"})
    program = engine(tmp_path, f"echo '{line}'; trap 'exit 0' TERM; while :; do sleep 0.1; done")
    pair = start(network, "ministry", program, log)
    try:
        until(lambda: "what_to_do" in log.read_text())
        run = network.engine_path("ministry") / "run"
        pids = [int((run / f"{name}.pid").read_text()) for name in ("node", binary.NAME)]
        assert all(map(alive, pids))
    finally:
        pair.send_signal(signal.SIGTERM)
    assert pair.wait(60) == 0
    assert not any(map(alive, pids))
    assert "pair stopped" in log.read_text()


@pytest.mark.slow
def test_a_node_does_not_outlive_its_supervisor(network: OperatorsNetwork, tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = engine(tmp_path, "exec sleep 300")
    pair = start(network, "operator-1", program, log)
    run = network.engine_path("operator-1") / "run"
    until((run / f"{binary.NAME}.pid").exists)
    node, sleeper = (int((run / f"{name}.pid").read_text()) for name in ("node", binary.NAME))
    pair.kill()
    pair.wait(60)
    until(lambda: not alive(node))
    # The real engine ends with its application; this one knows none.
    os.kill(sleeper, signal.SIGKILL)


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        (
            '{"level":"info","_msg":"hello","module":"p2p"}',
            ("info", "hello", {"engine_module": "p2p"}),
        ),
        ('{"level":"fatal","_msg":"x"}', ("error", "x", {})),
        ("panic: no JSON", ("warning", "panic: no JSON", {})),
        ("[1]", ("warning", "[1]", {})),
        ("", ("warning", "", {})),
    ],
)
def test_lines_of_the_engine_become_ours(line: str, parsed: tuple) -> None:
    assert _parsed(line) == parsed
