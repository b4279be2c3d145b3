"""A test network's directory: complete, private, movable, and refused when it is not one."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import socket
import stat
from pathlib import Path

import pytest

from clearing.errors import VerificationError
from clearing.log.keys import SignatureType, VerifierKey
from clearing.log.policy import Policy
from clearing.state import State
from clearing.types import Role
from node.config import ReplicaRole, load_config
from node.errors import SetupError
from node.files import read_text
from node.keys import KeyFile, SigningKey
from node.profile import IdentityDirectory
from node.sequencer.cometbft.home import read_keys
from node.store import Store
from node.testnet.layout import ENGINE, INDEX_NAME, LocalNetwork
from node.testnet.make import claim_ports, make_network
from node.testnet.plan import LEADER, NODES, Engine, numbered_parties, plan_of
from node.testnet.processes import LOOPBACK


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> LocalNetwork:
    return make_network(tmp_path_factory.mktemp("net") / "n", numbered_parties(4))


def test_it_opens_as_it_was_made(network: LocalNetwork) -> None:
    assert LocalNetwork.open(network.path) == network
    assert tuple(network.ports) == NODES
    assert [party.name for party in network.parties] == [
        "central-bank",
        "ministry",
        "regulator",
        "p01",
        "p02",
        "p03",
        "p04",
    ]


def test_every_configuration_is_valid_and_keys_open(network: LocalNetwork) -> None:
    policy = Policy.parse(network.policy_path.read_bytes())
    witnesses = {witness.name: witness.key for witness in policy.witnesses}
    for name in NODES:
        config = load_config(network.node_path(name) / "node.toml")
        assert config.node_name == name
        assert config.tls.check(dt.datetime.now(dt.UTC)).year > 2030
        assert config.key_file_path is not None
        key = SigningKey.load(config.signing_key_path, KeyFile(config.key_file_path))
        assert witnesses[name].public_key == key.public_key
        assert witnesses[name].type is SignatureType.COSIGNATURE_ED25519
        assert (config.log_key_path is not None) == (name == LEADER)
        assert Policy.parse(config.policy_path.read_bytes()) == policy
    roles = {name: load_config(network.node_path(name) / "node.toml").role for name in NODES}
    assert roles == {
        "central-bank": ReplicaRole.LEADER,
        "ministry": ReplicaRole.FULL,
        "p01": ReplicaRole.WITNESS,
        "p02": ReplicaRole.WITNESS,
        "p03": ReplicaRole.WITNESS,
    }
    log = VerifierKey.parse(read_text(network.log_vkey_path).strip())
    assert [entry.key for entry in policy.logs] == [log]


def test_the_quorum_is_both_authorities_and_one_participant(network: LocalNetwork) -> None:
    policy = Policy.parse(network.policy_path.read_bytes())
    policy.check_quorum(["central-bank", "ministry", "p02"])
    for absent in ("central-bank", "ministry", "p"):
        present = [name for name in NODES if not name.startswith(absent)]
        with pytest.raises(VerificationError, match="not met"):
            policy.check_quorum(present)


def test_block_0_registers_the_identities(network: LocalNetwork) -> None:
    with Store.open(network.node_path(LEADER) / "data") as store:
        state = State.load(store)
    assert state.height == 0
    assert [party.name for party in state.registry.participants] == [
        party.name for party in network.parties
    ]
    assert [asset.name for asset in state.registry.assets] == ["BTC", "ETH", "USDT"]
    for party in state.registry.participants:
        opened = IdentityDirectory.open(network.identity_path(party.name))
        assert opened.signing_key().public_key == party.public_key
        assert opened.profile.lei == party.lei
        assert opened.profile.endpoints == (network.endpoint(LEADER),)


def test_keys_are_for_their_owner_alone(network: LocalNetwork) -> None:
    private = [path for path in network.path.rglob("*.key") if path.is_file()]
    private += list(network.path.rglob("key.pem"))
    assert len(private) > 20
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}


def test_the_directory_may_be_moved(network: LocalNetwork, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(network.path, moved)
    opened = LocalNetwork.open(moved)
    config = load_config(opened.node_path("p01") / "node.toml")
    assert config.signing_key_path.is_relative_to(moved)
    assert IdentityDirectory.open(opened.identity_path("p02")).signing_key()


def test_a_party_is_found_by_name_and_lei_and_an_unknown_one_is_refused(
    network: LocalNetwork,
) -> None:
    assert network.party("p03").role is Role.EXCHANGE
    assert network.party(network.party("p03").lei).name == "p03"
    with pytest.raises(SetupError, match="no party 'p77'"):
        network.identity_path("p77")
    with pytest.raises(SetupError, match="no node 'p04'"):
        network.endpoint("p04")


def test_a_directory_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(SetupError, match="not empty"):
        make_network(tmp_path, numbered_parties(3))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_network_half_made_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    def stop(_: str) -> None:
        raise KeyboardInterrupt

    place = tmp_path / "n"
    with pytest.raises(KeyboardInterrupt):
        make_network(place, numbered_parties(3), stop)
    assert not place.exists()
    assert make_network(place, numbered_parties(3)) == LocalNetwork.open(place)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"version": 2, "parties": [], "nodes": {}}',
        '{"version": 2, "parties": [{"name": "a", "role": "king", "lei": "x"}], "nodes": {"central-bank": 1}}',
        '{"version": 9, "parties": [], "nodes": {"central-bank": 1}}',
        '{"version": 2, "parties": [], "engine": "embedded", "operators": 1, "runner": "processes", "links": [], "engines": {}, "bridge": null, "bitcoin": {"port": 0, "block_s": 0}, "nodes": {"p01": 1}}',
        '{"version": 2, "parties": [], "engine": "raft", "operators": 1, "runner": "processes", "links": [], "engines": {}, "bridge": null, "bitcoin": {"port": 0, "block_s": 0}, "nodes": {}}',
    ],
)
def test_a_damaged_index_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX_NAME).write_text(text)
    with pytest.raises(SetupError, match=r"testnet\.json"):
        LocalNetwork.open(tmp_path)


def test_no_network_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="testnet up"):
        LocalNetwork.open(tmp_path)


def test_a_taken_port_moves_the_whole_network(tmp_path: Path) -> None:
    network = make_network(tmp_path / "n", numbered_parties(3))
    assert claim_ports(network) == network
    with socket.socket() as taken:
        taken.bind((LOOPBACK, network.ports["p02"]))
        taken.listen()
        moved = claim_ports(network)
    assert not set(moved.ports.values()) & {network.ports["p02"]}
    assert LocalNetwork.open(network.path) == moved
    config = load_config(moved.node_path("p01") / "node.toml")
    assert config.listen == moved.endpoint("p01")
    assert config.leader_endpoint == moved.endpoint(LEADER)
    profile = IdentityDirectory.open(moved.identity_path("p03")).profile
    assert profile.endpoints == (moved.endpoint(LEADER),)
    assert json.loads((moved.path / INDEX_NAME).read_text())["nodes"] == moved.ports


def test_followers_of_a_relayed_network_dial_the_relay(tmp_path: Path) -> None:
    network = make_network(tmp_path / "n", numbered_parties(3), relayed=True)
    assert LocalNetwork.open(network.path) == network
    assert [(link.source, link.target) for link in network.links] == [
        (name, LEADER) for name in NODES[1:]
    ]
    for link in network.links:
        assert link.target_port == network.ports[LEADER]
        config = load_config(network.node_path(link.source) / "node.toml")
        assert config.leader_endpoint == f"{LOOPBACK}:{link.port}"
    ports = [*network.ports.values(), *(link.port for link in network.links)]
    assert len(set(ports)) == len(ports)
    with socket.socket() as taken:
        taken.bind((LOOPBACK, network.links[1].port))
        taken.listen()
        moved = claim_ports(network)
    assert network.links[1].port not in {link.port for link in moved.links}
    config = load_config(moved.node_path("p01") / "node.toml")
    assert config.leader_endpoint == moved.dialled("p01", LEADER) != moved.endpoint(LEADER)


def test_operators_know_each_other_and_witnesses_know_all(tmp_path: Path) -> None:
    plan = plan_of(Engine.COMETBFT, 5)
    network = make_network(tmp_path / "n", numbered_parties(3), plan=plan, relayed=True)
    assert LocalNetwork.open(network.path) == network
    configs = {name: load_config(network.node_path(name) / "node.toml") for name in plan.nodes}
    for name in plan.operators:
        config = configs[name]
        assert config.role is ReplicaRole.OPERATOR
        assert config.consensus_listen == f"{LOOPBACK}:{network.engine_ports[name]}"
        assert [other for other, _ in config.other_operators] == list(plan.dialled(name))
        ids = [peer.partition("@")[0] for peer in config.consensus_peers]
        assert ids == [
            read_keys(network.node_path(other) / "consensus").node_id
            for other in plan.dialled(name)
        ]
        genesis = network.node_path(name) / "consensus" / "config" / "genesis.json"
        validators = json.loads(genesis.read_text())["validators"]
        assert [one["name"] for one in validators] == list(plan.operators)
    assert [configs[name].role for name in plan.witnesses] == [ReplicaRole.WITNESS] * 2
    assert [name for name, _ in configs["p02"].leaders][:2] == ["ministry", "operator-1"]
    # Each way between two nodes is one of the relay's, whose faults are known by the nodes' names.
    dialled = [config.consensus_peers for config in configs.values()]
    dialled += [config.operators for config in configs.values()]
    ports = {int(one.rpartition(":")[2]) for many in dialled for one in many}
    assert ports == {link.port for link in network.links}
    policy = Policy.parse(network.policy_path.read_bytes())
    assert len(policy.logs) == 5
    policy.check_quorum(plan.operators[:4])
    with pytest.raises(VerificationError):
        policy.check_quorum([*plan.operators[:3], *plan.witnesses])


def test_a_network_of_operators_moves_to_free_ports(tmp_path: Path) -> None:
    network = make_network(
        tmp_path / "n", numbered_parties(3), plan=plan_of(Engine.COMETBFT), relayed=True
    )
    with socket.socket() as taken:
        taken.bind((LOOPBACK, network.engine_ports["ministry"]))
        taken.listen()
        moved = claim_ports(network)
    assert moved.engine_ports["ministry"] != network.engine_ports["ministry"]
    config = load_config(moved.node_path("ministry") / "node.toml")
    assert config.consensus_listen == f"{LOOPBACK}:{moved.engine_ports['ministry']}"
    peer = load_config(moved.node_path("operator-1") / "node.toml").consensus_peers[1]
    assert peer.endswith(moved.dialled("operator-1", "ministry", ENGINE))
