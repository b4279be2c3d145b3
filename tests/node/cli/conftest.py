"""One network of five processes for all tests of the commands, and a settled cycle on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from node.testnet.control import stop_network
from node.testnet.layout import LocalNetwork
from tests.node.cli.network_kit import Net, facts, ok


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    path = tmp_path_factory.mktemp("testnet") / "n"
    made = facts("testnet", "up", "--dir", path, "--participants", "4")
    assert [node["healthy"] for node in made["nodes"]] == [True] * 5
    yield Net(path)
    stop_network(LocalNetwork.open(path))


@pytest.fixture(scope="session")
def settled(net: Net, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, int]:
    """One cycle, settled and final: (its number, the log index of its submission)."""
    index = net.submit(
        tmp_path_factory.mktemp("settled"),
        "p01",
        "a1,p01,p02,BTC,700",
        "a2,p02,p01,BTC,200",
        f"a3,p01,p03,ETH,{10**24}",
        "a4,p03,p01,USDT,1",
    )["submission"]
    for name in ("p02", "p03"):
        ok("affirm", "--all", *net.as_(name))
    cycle = facts("cycle", "run", *net.as_("central-bank"))["cycle"]
    net.settle(cycle)
    net.wait_final(cycle)
    return cycle, index
