"""A node as a process: told to stop it finishes, refused or halted it ends with an error and a sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from node.config import load_config
from node.errors import SetupError
from node.runtime import open_trust, run
from node.testnet.layout import LocalNetwork
from node.testnet.plan import LEADER
from tests.node import network_kit as kit

RUN = """
import sys
sys.modules["numba"] = None
from pathlib import Path
from clearing.errors import ClearingError
from node import runtime
{prelude}
try:
    runtime.run(Path(sys.argv[1]))
except ClearingError as error:
    print(type(error).__name__, error)
    sys.exit(3)
"""


@pytest.fixture
def network(tmp_path: Path) -> LocalNetwork:
    return kit.new_network(tmp_path / "network")


def start(network: LocalNetwork, node: str, prelude: str = "") -> subprocess.Popen[str]:
    config = network.node_path(node) / "node.toml"
    return subprocess.Popen(
        [sys.executable, "-c", RUN.format(prelude=prelude), str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )


def wait_until_it_serves(network: LocalNetwork, process: subprocess.Popen[str]) -> None:
    """Wait for the line that says that the node has started."""
    assert process.stderr is not None
    for line in process.stderr:
        if json.loads(line)["event"] == "node started":
            return
    raise AssertionError(f"the node ended: {process.communicate()}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_a_node_finishes_and_ends_well(
    network: LocalNetwork, number: signal.Signals
) -> None:
    p01 = kit.Party(network, "p01", kit.network_id(network))
    process = start(network, LEADER)
    wait_until_it_serves(network, process)
    with p01.channel(network, LEADER) as channel:
        assert kit.submit(channel, p01.owes(4, 1), timeout_s=30) == 2
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    events = [json.loads(line) for line in err.splitlines()]
    assert events[-1]["event"] == "node stopped"
    assert events[-1]["node"] == LEADER
    with kit.open_store(network, LEADER) as store:
        assert store.tip.log_size == 4


def test_a_second_process_on_a_directory_ends_and_the_first_goes_on(network: LocalNetwork) -> None:
    first = start(network, LEADER)
    wait_until_it_serves(network, first)
    second = start(network, LEADER)
    out, _ = second.communicate(timeout=60)
    assert second.returncode == 3
    assert out.startswith("StoreLockedError")
    assert first.poll() is None
    first.terminate()
    first.communicate(timeout=60)
    assert first.returncode == 0


DEFECT = """
from node.sequencer import driver
from clearing.errors import InvariantViolation
def defective(state, block):
    raise InvariantViolation("a contradiction")
driver.ledger.apply = defective
"""


def test_a_defect_ends_the_process_with_an_error(network: LocalNetwork) -> None:
    p01 = kit.Party(network, "p01", kit.network_id(network))
    process = start(network, LEADER, DEFECT)
    wait_until_it_serves(network, process)
    with p01.channel(network, LEADER) as channel, pytest.raises(grpc.RpcError):
        kit.submit(channel, p01.owes(4, 1), timeout_s=30)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert out.startswith("NodeHaltedError the node stopped: InvariantViolation: a contradiction")
    assert any(json.loads(line)["event"] == "sequencer halted" for line in err.splitlines())


FAILS_BESIDE = """
from clearing.errors import InvariantViolation
from node.replication.follower import Follower
runtime.BEGIN_ANEW_S_MIN = 0.05
failures = [InvariantViolation("a contradiction"), OSError("no network")]
async def fail(follower):
    raise failures.pop()
Follower.run = fail
"""


def test_work_beside_the_ledger_begins_anew_unless_a_defect_ends_it(network: LocalNetwork) -> None:
    process = start(network, "ministry", FAILS_BESIDE)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert out.startswith("NodeHaltedError the node stopped: follower: a contradiction")
    events = [json.loads(line) for line in err.splitlines()]
    failed = [event for event in events if "work beside the ledger" in event["event"]]
    assert [(event["level"], event["work"]) for event in failed] == [("error", "follower")] * 2
    assert "begins anew" in failed[0]["event"]


def test_a_node_whose_disk_fails_at_start_says_so(network: LocalNetwork) -> None:
    data = kit.config_of(network, LEADER).data_dir / "data.mdb"
    data.write_bytes(data.read_bytes()[:-4096])
    process = start(network, LEADER)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 3
    assert out.startswith("StoreDamagedError")


def test_keys_and_policy_open_for_each_role(network: LocalNetwork) -> None:
    for node in kit.FULL:
        config = load_config(network.node_path(node) / "node.toml")
        trust = open_trust(config, None)
        assert trust.cosigner.key.name.endswith(node)
        assert (trust.log is not None) == (node == LEADER)
        assert trust.origin == trust.policy.logs[0].key.name


def test_run_needs_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"node\.toml"):
        run(tmp_path / "node.toml")
