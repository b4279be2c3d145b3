"""The verbs of a network: what they refuse before they touch anything."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from node.errors import SetupError
from node.testnet import control
from node.testnet.faults import Faults
from node.testnet.layout import LocalNetwork
from node.testnet.plan import AUTHORITIES, NODES

ROOT = Path(__file__).parents[3]


@pytest.fixture
def network(tmp_path: Path) -> LocalNetwork:
    return LocalNetwork(tmp_path, AUTHORITIES, dict.fromkeys(NODES, 1))


def test_a_network_without_a_relay_cannot_be_cut(network: LocalNetwork) -> None:
    with pytest.raises(SetupError, match="reach each other directly"):
        control.partition(network, [["p01"]])
    assert Faults.load(network.path) == Faults()


def test_nobody_is_started_stopped_or_paused_who_is_not_there(network: LocalNetwork) -> None:
    for call in (
        lambda: control.start_node(network, "regulator"),
        lambda: control.stop_node(network, "p09"),
        lambda: control.pause_node(network, "p09", paused=True),
        lambda: control.lie(network, "p09", "state"),
    ):
        with pytest.raises(SetupError, match="no node"):
            call()


def test_the_product_holds_no_node_that_lies(
    network: LocalNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert built["targets"]["wheel"]["packages"] == ["clearing", "node"]
    assert control.LIAR.partition(".")[0] not in built["targets"]["wheel"]["packages"]
    monkeypatch.setattr(control, "LIAR", "not_here.liar")
    with pytest.raises(SetupError, match="holds no node that lies"):
        control.lie(network, "p01", "state")
    assert Faults.load(network.path) == Faults()
