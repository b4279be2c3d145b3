"""Packet rules between containers: a rule for each direction that a fault lies on, and for nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.errors import SetupError
from node.testnet import containers
from node.testnet.bridge import Bridge
from node.testnet.containers import Container
from node.testnet.faults import Faults

NODES = ("a", "b", "c")
BRIDGE = Bridge("clearing-0123abcd", "172.30.9.0/24", (*NODES, "regulator"))


def rules(faults: Faults) -> list[list[str]]:
    return containers._rules(BRIDGE, NODES, faults)


def test_without_faults_there_is_no_rule() -> None:
    assert rules(Faults()) == []


def test_a_cut_drops_both_directions_between_the_sides_alone() -> None:
    found = rules(Faults().partitioned([["a"], ["b", "c"]], NODES))
    ways = {(rule[1], rule[3]) for rule in found}
    one, two, three = map(BRIDGE.address, NODES)
    assert ways == {(one, two), (two, one), (one, three), (three, one)}
    assert all(rule[-2:] == ["-j", "DROP"] and "statistic" not in rule for rule in found)
    assert BRIDGE.address("regulator") not in {address for way in ways for address in way}


def test_loss_drops_by_chance_and_all_of_it_always() -> None:
    found = rules(Faults().losing("b", 25, NODES))
    assert len(found) == 4
    assert all(rule[rule.index("--probability") + 1] == "0.250000" for rule in found)
    assert all("statistic" not in rule for rule in rules(Faults().losing("b", 100, NODES)))


def test_a_machine_without_docker_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="docker is not installed"):
        Container("a", "clearing-a").pid()


def test_an_engine_that_does_not_answer_is_no_stopped_node(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(SetupError, match="Cannot connect"):
        Container("a", "clearing-a").pid()
    docker.write_text("#!/bin/sh\necho 'Error: No such object: clearing-a' >&2\nexit 1\n")
    assert Container("a", "clearing-a").pid() is None
