"""The supervisor: what it does when one of the pair ends, and what it says. The node is real, the engine is scripted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from node.errors import SetupError
from node.sequencer.cometbft import binary
from node.sequencer.cometbft.words import FAILURE_WORDS
from node.supervisor import Supervisor
from tests.node.operators_kit import OperatorsNetwork, make_operators

RUN = """
import sys, node.supervisor as s
from pathlib import Path
# No node starts so fast: that it takes its time is no harm.
s.SLOW_S, s.PAUSE_S_MIN, s.PAUSE_S_MAX, s.STOP_S = 0.3, 0.05, 0.2, 5.0
try:
    s.run(Path(sys.argv[1]), None)
except s.SetupError as error:
    sys.exit(f"ENDS {error}")
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


STAY = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


def stop(pair: subprocess.Popen) -> int:
    pair.send_signal(signal.SIGTERM)
    return pair.wait(60)


def failing(reason: str) -> str:
    line = json.dumps({"level": "error", "_msg": f"{FAILURE_WORDS}!!!", "err": reason})
    return f"echo '{line}'"


@pytest.mark.slow
def test_an_engine_that_ends_is_started_until_it_runs(
    network: OperatorsNetwork, tmp_path: Path
) -> None:
    log, lives = tmp_path / "log", tmp_path / "lives"
    last = f"echo >> {lives}; echo last words; [ $(wc -l < {lives}) -gt 3 ] || exit 1; {STAY}"
    pair = start(network, "central-bank", engine(tmp_path, last), log)
    until(lambda: log.read_text().count('"engine: last words"') == 4)
    assert stop(pair) == 0
    text = log.read_text()
    assert text.count("pair ended and starts again") == 3
    assert "ended with status 1" in text
    # As long as opening a large ledger may take.
    assert "node does not serve its engine yet" in text
    run = network.engine_path("central-bank") / "run"
    assert not alive(int((run / "node.pid").read_text()))
    assert not list(run.glob("*.sock"))


@pytest.mark.slow
def test_a_failed_engine_is_explained_and_a_stop_stops_both(
    network: OperatorsNetwork, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    program = engine(tmp_path, f"{failing('wrong app hash')}; {STAY}")
    pair = start(network, "ministry", program, log)
    try:
        until(lambda: "what_to_do" in log.read_text())
        run = network.engine_path("ministry") / "run"
        pids = [int((run / f"{name}.pid").read_text()) for name in ("node", binary.NAME)]
        assert all(map(alive, pids))
    finally:
        assert stop(pair) == 0
    assert not any(map(alive, pids))
    assert '"reason": "wrong app hash"' in log.read_text()
    assert "pair stopped" in log.read_text()


@pytest.mark.slow
def test_an_engine_that_failed_on_a_full_disk_starts_again(
    network: OperatorsNetwork, tmp_path: Path
) -> None:
    log, failed = tmp_path / "log", tmp_path / "failed"
    reason = "failed to write to consensus WAL; check your file system: no space left on device"
    body = f"[ -e {failed} ] && echo well || {{ touch {failed}; {failing(reason)}; }}; {STAY}"
    pair = start(network, "operator-2", engine(tmp_path, body), log)
    until(lambda: '"engine: well"' in log.read_text())
    assert stop(pair) == 0
    assert "free space on its disk" in log.read_text()
    assert f'"first": "engine", "reason": "{reason}"' in log.read_text()


@pytest.mark.slow
def test_a_port_that_is_taken_is_waited_for(network: OperatorsNetwork, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", network.ports["central-bank"])):
        pair = start(network, "central-bank", engine(tmp_path, f"echo well; {STAY}"), log)
        until(lambda: "pair ended and starts again" in log.read_text())
        assert "end what holds it" in log.read_text()
    until(lambda: '"engine: well"' in log.read_text())
    assert stop(pair) == 0


@pytest.mark.slow
def test_a_file_spoiled_under_a_pair_that_ran_is_said_until_it_is_whole(
    network: OperatorsNetwork, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    pair = start(network, "ministry", engine(tmp_path, f"echo well; {STAY}"), log)
    until(lambda: '"engine: well"' in log.read_text())
    config = network.node_path("ministry") / "node.toml"
    whole = config.read_text()
    config.write_text(whole.replace("[", "", 1) + "\nno TOML")
    os.kill(int((network.engine_path("ministry") / "run" / "node.pid").read_text()), signal.SIGKILL)
    until(lambda: log.read_text().count("pair not started") > 1)
    assert "node.toml" in log.read_text()
    config.write_text(whole)
    until(lambda: log.read_text().count('"engine: well"') == 2)
    assert stop(pair) == 0


@pytest.mark.parametrize("state", [None, "", '{"height": "7", "rou', "{}", "[]"])
def test_a_validator_that_has_forgotten_its_votes_is_not_started(
    network: OperatorsNetwork, tmp_path: Path, state: str | None
) -> None:
    path = network.engine_path("operator-1") / "data" / "priv_validator_state.json"
    before = path.read_text()
    path.unlink()
    if state is not None:
        path.write_text(state)
    try:
        with pytest.raises(SetupError, match="could vote twice.*greater by 2"):
            asyncio.run(Supervisor(network.node_path("operator-1") / "node.toml", None, ()).run())
    finally:
        path.write_text(before)


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
