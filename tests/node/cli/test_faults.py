"""A network disturbed by its operator: each verb does what it says, and everything comes back alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node.cli.network_kit import Net, facts, ok, refused

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def whole(net: Net) -> Iterator[None]:
    """The network as it was, after each test."""
    yield
    ok("testnet", "heal", "--dir", net.path)
    facts("testnet", "up", "--dir", net.path)


def nodes(net: Net) -> dict[str, Any]:
    status = facts("testnet", "status", "--dir", net.path)
    return {node["name"]: node for node in status["nodes"]}


def until_equal(net: Net) -> None:
    until = time.monotonic() + 30
    while len({node["log_root"] for node in nodes(net).values()}) != 1:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_cut_off_node_falls_behind_and_catches_up(net: Net, tmp_path: Path) -> None:
    split = facts("testnet", "partition", "p01", "--dir", net.path)
    assert split["partition"][0] == ["p01"]
    net.submit(tmp_path, "p02", "f1,p02,p01,BTC,1")
    time.sleep(0.5)
    found = nodes(net)
    assert found["p01"]["behind_leaves"] > 0
    assert found["ministry"]["behind_leaves"] == 0
    assert "split p01" in ok("testnet", "status", "--dir", net.path)
    assert facts("testnet", "heal", "--dir", net.path)["partition"] == []
    until_equal(net)


def test_without_its_quorum_nothing_becomes_final(net: Net, tmp_path: Path) -> None:
    ok("testnet", "partition", "ministry", "--dir", net.path)
    net.submit(tmp_path, "p02", "f2,p02,p01,BTC,2")
    time.sleep(0.5)
    assert facts("testnet", "status", "--dir", net.path)["finality_lag_leaves"] > 0
    ok("testnet", "heal", "--dir", net.path)
    until_equal(net)
    until = time.monotonic() + 30
    while facts("testnet", "status", "--dir", net.path)["finality_lag_leaves"]:
        assert time.monotonic() < until


def test_a_paused_node_is_shown_as_paused_and_goes_on(net: Net, tmp_path: Path) -> None:
    pid = nodes(net)["p02"]["pid"]
    assert facts("testnet", "pause", "p02", "--dir", net.path) == {"node": "p02", "paused": True}
    found = nodes(net)["p02"]
    assert (found["paused"], found["healthy"], found["pid"]) == (True, False, pid)
    assert "paused" in ok("testnet", "status", "--dir", net.path)
    net.submit(tmp_path, "p01", "f3,p01,p02,BTC,3")
    ok("testnet", "resume", "p02", "--dir", net.path)
    until_equal(net)
    assert nodes(net)["p02"]["pid"] == pid


@pytest.mark.parametrize("verb", ["kill", "stop"])
def test_a_node_is_ended_and_started(net: Net, verb: str) -> None:
    assert facts("testnet", verb, "p01", "--dir", net.path) == {"node": "p01", "ran": True}
    assert facts("testnet", verb, "p01", "--dir", net.path) == {"node": "p01", "ran": False}
    assert nodes(net)["p01"]["pid"] is None
    started = facts("testnet", "start", "p01", "--dir", net.path)
    assert facts("testnet", "start", "p01", "--dir", net.path) == started
    until_equal(net)


def test_a_paused_node_can_be_stopped(net: Net) -> None:
    ok("testnet", "pause", "p01", "--dir", net.path)
    assert facts("testnet", "stop", "p01", "--dir", net.path)["ran"] is True


def test_loss_slows_and_nothing_more(net: Net, tmp_path: Path) -> None:
    assert facts("testnet", "loss", "ministry", "30", "--dir", net.path)["loss_percent"] == {
        "ministry": 30
    }
    net.submit(tmp_path, "p01", "f4,p01,p02,BTC,4")
    until_equal(net)
    assert facts("testnet", "loss", "ministry", "0", "--dir", net.path)["loss_percent"] == {}


@pytest.mark.parametrize(
    "arguments",
    [
        ("kill", "p09"),
        ("pause", "p09"),
        ("start", "regulator"),
        ("partition", "p01,p01"),
        ("partition", "p01", "p02,nobody"),
        ("loss", "nobody", "5"),
        ("lie", "nobody"),
    ],
)
def test_who_is_not_there_is_named(net: Net, arguments: tuple[str, ...]) -> None:
    error = refused(2, "testnet", *arguments, "--dir", net.path)
    assert error["code"] == "SETUP"


def test_what_does_not_run_cannot_be_paused(net: Net) -> None:
    ok("testnet", "stop", "p01", "--dir", net.path)
    assert "does not run" in refused(2, "testnet", "pause", "p01", "--dir", net.path)["message"]
