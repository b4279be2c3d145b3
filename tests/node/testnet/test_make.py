"""Files of a network in containers, made without a docker engine: what each container is told and sees."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from node.config import load_config
from node.profile import IdentityDirectory
from node.testnet import make
from node.testnet.bridge import CHAIN_PORT, NODE_PORT
from node.testnet.layout import LocalNetwork
from node.testnet.plan import LEADER, Engine, Runner, numbered_parties, plan_of

REGTEST_ADDRESS = "bcrt1"


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalNetwork:
    monkeypatch.setattr(make, "taken_subnets", list)
    parties = numbered_parties(3)
    plan = plan_of(Engine.COMETBFT)
    made = make.make_network(tmp_path / "n", parties, plan=plan, runner=Runner.DOCKER, relayed=True)
    assert LocalNetwork.open(made.path) == made
    return made


def test_nodes_and_the_regulators_desk_know_each_other_by_address(network: LocalNetwork) -> None:
    assert network.links == ()
    desk = IdentityDirectory.open(network.path / "regulator").profile
    assert desk.endpoints == tuple(network.listens(name) for name in network.plan.operators)
    for name in network.ports:
        config = load_config(network.node_path(name) / "node.toml")
        assert config.listen == f"{network.bridge.address(name)}:{NODE_PORT}"
        # Nothing that a container reads lies outside of what is mounted into it.
        assert config.signing_key_path.is_relative_to(network.node_path(name))


def test_chain_and_node_have_the_password_each_in_its_own_directory(network: LocalNetwork) -> None:
    chain = network.bitcoin
    config = load_config(network.node_path(LEADER) / "node.toml")
    assert config.bitcoin_rpc_url == f"http://{network.bridge.address('bitcoin')}:{CHAIN_PORT}"
    assert config.bitcoin_cookie_path.is_relative_to(network.node_path(LEADER))
    copies = (chain.cookie_path, chain.path / "chain" / ".cookie", config.bitcoin_cookie_path)
    assert len(set(copies)) == 3
    assert len({path.read_bytes() for path in copies}) == 1
    assert {stat.S_IMODE(path.stat().st_mode) for path in copies} == {0o600}
    addresses = (chain.path / "addresses").read_text().split()
    assert len(addresses) == 4
    assert all(address.startswith(REGTEST_ADDRESS) for address in addresses)
    # Nobody else anchors.
    others = [name for name in network.ports if name != LEADER]
    assert {
        load_config(network.node_path(name) / "node.toml").bitcoin_rpc_url for name in others
    } == {""}


def test_a_network_may_be_made_without_a_chain(tmp_path: Path) -> None:
    made = make.make_network(tmp_path / "n", numbered_parties(3), has_chain=False)
    assert made.bitcoin is None
    assert load_config(made.node_path(LEADER) / "node.toml").bitcoin_key_path is None
