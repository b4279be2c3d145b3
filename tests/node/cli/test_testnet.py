"""A test network as its operator sees it: status, losing a node, down and up again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clearing.log.policy import Policy
from node.testnet.plan import NODES
from node.workers.anchoring.network import Network
from node.workers.anchoring.rpc import BitcoinRpc
from tests.node.cli.network_kit import Net, facts, refused

pytestmark = pytest.mark.slow


def test_status_is_what_scripts_rely_on(net: Net) -> None:
    status = facts("testnet", "status", "--dir", net.path)
    assert set(status) == {
        *("network", "policy", "bitcoin", "nodes", "participants", "assets"),
        *("engine", "runner", "faults", "finality_lag_leaves"),
    }
    bitcoin = status["bitcoin"]
    assert set(bitcoin) == {"network", "rpc_url", "address", "height"}
    assert bitcoin["rpc_url"].endswith("@" + bitcoin["address"])
    assert bitcoin["network"] == "regtest"
    with BitcoinRpc(bitcoin["rpc_url"]) as rpc:
        assert rpc.check(Network.REGTEST).blocks == bitcoin["height"]
    assert (status["engine"], status["runner"]) == ("embedded", "processes")
    assert status["faults"] == {"partition": [], "loss_percent": {}, "lies": {}}
    assert status["finality_lag_leaves"] == 0
    assert [node["follows"] for node in status["nodes"]] == [None, *["central-bank"] * 4]
    assert [node["name"] for node in status["nodes"]] == list(NODES)
    assert [node["role"] for node in status["nodes"]] == [
        "central-bank",
        "ministry",
        "bank",
        "bank",
        "exchange",
    ]
    for node in status["nodes"]:
        assert set(node) == {
            *("name", "role", "lei", "endpoint", "pid", "healthy"),
            *("height", "log_size", "log_root", "state_root", "final_size"),
            *(
                "address",
                "certificate",
                "follows",
                "paused",
                "condition",
                "detail",
                "behind_leaves",
                "finality_lag_leaves",
            ),
        }
        assert (node["paused"], node["condition"], node["detail"]) == (False, "serving", "")
        assert (node["behind_leaves"], node["finality_lag_leaves"]) == (0, 0)
        os.kill(node["pid"], 0)
        assert node["healthy"] is True
        assert len(bytes.fromhex(node["log_root"])) == 32
        assert node["endpoint"].startswith("127.0.0.1:")
    assert len({node["log_root"] for node in status["nodes"]}) == 1
    assert len({node["state_root"] for node in status["nodes"]}) == 1
    assert len(bytes.fromhex(status["nodes"][0]["state_root"])) == 32
    assert [set(party) for party in status["participants"]] == [
        {"name", "lei", "role", "status"}
    ] * 7
    assert {party["name"]: party["role"] for party in status["participants"]} == {
        "central-bank": "central-bank",
        "ministry": "ministry",
        "regulator": "regulator",
        "p01": "bank",
        "p02": "bank",
        "p03": "exchange",
        "p04": "bank",
    }
    assert [(a["name"], a["scale"]) for a in status["assets"]] == [
        ("BTC", 8),
        ("ETH", 18),
        ("USDT", 6),
    ]
    assert all(set(asset) == {"name", "caip19", "scale"} for asset in status["assets"])
    Policy.parse(Path(status["policy"]).read_bytes())


def test_up_again_changes_nothing_and_another_size_is_refused(net: Net) -> None:
    before = facts("testnet", "status", "--dir", net.path)
    again = facts("testnet", "up", "--dir", net.path)
    assert [node["pid"] for node in again["nodes"]] == [node["pid"] for node in before["nodes"]]
    error = refused(2, "testnet", "up", "--dir", net.path, "--participants", "9")
    assert "4 participants" in error["message"]


def test_a_lost_node_is_reported_and_comes_back(net: Net, settled: tuple[int, int]) -> None:
    victim = net.layout.process("p03")
    os.kill(victim.pid() or 0, signal.SIGKILL)
    victim.wait_stopped(10)
    status = facts("testnet", "status", "--dir", net.path)
    lost = {node["name"]: node for node in status["nodes"]}["p03"]
    assert (lost["healthy"], lost["pid"], lost["log_size"]) == (False, None, None)
    assert facts("obligations", *net.as_("p01")) is not None
    again = facts("testnet", "up", "--dir", net.path)
    assert all(node["healthy"] for node in again["nodes"])
    assert len({node["log_root"] for node in again["nodes"]}) == 1


def test_down_leaves_nothing_running_and_up_brings_everything_back(net: Net) -> None:
    before = facts("testnet", "status", "--dir", net.path)
    down = facts("testnet", "down", "--dir", net.path)
    assert sorted(down["stopped"]) == sorted(NODES)
    for node in before["nodes"]:
        with pytest.raises(ProcessLookupError):
            os.kill(node["pid"], 0)
    assert net.layout.bitcoin.process.pid() is None
    assert facts("testnet", "down", "--dir", net.path)["stopped"] == []
    stopped = facts("testnet", "status", "--dir", net.path)
    assert not any(node["healthy"] for node in stopped["nodes"])
    assert [party["name"] for party in stopped["participants"]] == [
        party["name"] for party in before["participants"]
    ]
    error = refused(1, "obligations", *net.as_("p01"))
    assert error["code"] == "UNAVAILABLE"
    assert "testnet up" in error["remedy"]
    checked = facts("audit", "fsck", "--dir", net.path)
    assert checked["holds"] is True
    assert checked["nodes"] == list(NODES)
    up = facts("testnet", "up", "--dir", net.path)
    assert {node["log_root"] for node in up["nodes"]} == {before["nodes"][0]["log_root"]}


def test_a_running_database_is_not_checked(net: Net) -> None:
    error = refused(2, "audit", "fsck", "--dir", net.path, "--node", "p01")
    assert error["code"] == "STORE_LOCKED"
    assert "testnet down" in error["remedy"]


def test_the_installed_command_is_the_same(net: Net) -> None:
    command = Path(sys.executable).parent / "clearing"
    done = subprocess.run(
        [command, "cycle", "list", *net.as_("p01"), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert json.loads(done.stdout) == facts("cycle", "list", *net.as_("p01"))
