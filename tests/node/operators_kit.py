"""What tests of several operators share: their files, the real engine's program, clients of each.

Everything is real: keys and certificates, mutual TLS, LMDB, and the consensus engine's own program.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from clearing.identifiers import make_lei
from clearing.log.policy import Group, Log, Policy, Witness
from clearing.rules.registry import Action, ActionKind
from clearing.types import Role
from node.client import Client
from node.config import ReplicaRole
from node.files import PUBLIC_MODE, create_file, make_private_directory
from node.pki import Authority, Validity
from node.profile import IdentityDirectory
from node.provision import (
    ENGINE_NAME,
    POLICY_NAME,
    NodePlace,
    OperatorAddress,
    connect_operators,
    make_node,
    write_operators_genesis,
)
from node.sequencer.cometbft import binary
from node.testnet.make import make_identity
from node.testnet.plan import ASSETS, AUTHORITIES, NETWORK_NAME, Party, numbered_parties
from node.testnet.processes import NodeProcess, free_ports

NAMES = ("central-bank", "ministry", "operator-1", "operator-2")
"""Validators from genesis on."""

FIFTH = "operator-3"
"""An operator's node that is no validator yet."""

NODES = (*NAMES, FIFTH, "p01")


def engine_program() -> Path:
    """Return the engine's program; skip the test where there is none (.ci/run installs it)."""
    found = binary.find()
    if found is None and os.environ.get("CI"):
        pytest.fail(f"{binary.NAME} {binary.VERSION} is missing: .ci/run installs it")
    if found is None:
        pytest.skip(f"{binary.NAME} {binary.VERSION} is not installed")
    return found


@dataclass
class OperatorsNetwork:
    """Four operators on loopback and the witness p01; parties beyond them as in a test network."""

    path: Path
    ports: dict[str, int]
    network_id: bytes
    parties: tuple[Party, ...]

    def node_path(self, name: str) -> Path:
        return self.path / "nodes" / name

    def engine_path(self, name: str) -> Path:
        return self.node_path(name) / ENGINE_NAME

    def process(self, name: str) -> NodeProcess:
        path = self.node_path(name)
        command = ("-m", "node.cli.main", "node", "run", "--config", str(path))
        return NodeProcess(name, path / "pid", path / "node.log", command)

    def client(self, party: str, *nodes: str) -> Client:
        """Return a client of `party` that prefers `nodes`, in order."""
        endpoints = [f"127.0.0.1:{self.ports[name]}" for name in nodes or NAMES]
        state = self.path / f"state-{party}-{nodes[0] if nodes else 'any'}"
        identity = IdentityDirectory.open(self.path / "identities" / party)
        return Client(identity, endpoints=endpoints, state_dir=state)

    def number(self, party: str) -> int:
        return [one.name for one in self.parties].index(party)


OPERATORS = tuple(
    Party(name, Role.OPERATOR, make_lei(f"TEST00OPERATOR{name[-1]}000"))
    for name in ("operator-1", "operator-2")
)
EXTRA = Party("operator-3", Role.OPERATOR, make_lei("TEST00OPERATOR3000"))


def make_operators(path: Path) -> OperatorsNetwork:
    """Make all files of a network of four operators and a witness."""
    for directory in (path, path / "authority", path / "nodes", path / "identities"):
        make_private_directory(directory)
    names, operators = NODES, (*NAMES, FIFTH)
    ports = free_ports(2 * len(names))
    validity = Validity.days_from_now(30)
    authority = Authority.create(path / "authority", NETWORK_NAME, Validity.days_from_now(31))
    parties = (*AUTHORITIES, *numbered_parties(3), *OPERATORS, EXTRA)
    network = OperatorsNetwork(path, dict(zip(names, ports, strict=False)), b"", parties)
    addresses = {
        name: OperatorAddress(
            f"127.0.0.1:{network.ports[name]}", f"127.0.0.1:{ports[len(names) + place]}"
        )
        for place, name in enumerate(operators)
    }
    keys = {}
    for name in names:
        place = NodePlace(
            NETWORK_NAME,
            name,
            ReplicaRole.OPERATOR if name in operators else ReplicaRole.WITNESS,
            f"127.0.0.1:{network.ports[name]}",
            operators=tuple(f"{one}={addresses[one].node}" for one in operators if one != name),
            consensus_listen=addresses[name].engine if name in operators else "127.0.0.1:26656",
        )
        keys[name] = make_node(
            network.node_path(name), place, authority, validity, hosts=("127.0.0.1",)
        )
    connect_operators({name: network.node_path(name) for name in operators}, addresses)
    logs = tuple(Log(keys[name].log) for name in operators)
    cosigners = tuple(Witness(name, made.cosigner) for name, made in keys.items())
    # Three of five: the fifth comes later, and one of the four goes.
    policy = Policy(logs, cosigners, (Group("operators", 3, operators),), "operators").encode()
    for directory in (path, *(network.node_path(name) for name in names)):
        create_file(directory / POLICY_NAME, policy, PUBLIC_MODE)
    shared = {
        "endpoints": tuple(f"127.0.0.1:{network.ports[name]}" for name in NAMES),
        "policy": policy,
        "authority": authority,
        "validity": validity,
    }
    registered = []
    for number, party in enumerate(parties):
        directory = network.path / "identities" / party.name
        made = make_identity(directory, party, number, **shared)
        own = keys.get(party.name)
        registered.append(
            replace(made, node_key=own.instruction) if own and own.instruction else made
        )
    numbers = {party.name: number for number, party in enumerate(parties)}
    actions = [
        *(Action(ActionKind.ADD_PARTICIPANT, party) for party in registered),
        *(Action(ActionKind.ADD_ASSET, asset) for asset in ASSETS),
        *(
            Action(
                ActionKind.SET_VALIDATOR,
                {
                    "participant": numbers[name],
                    "power": 10,
                    "consensus_key": keys[name].engine.consensus_key,
                },
            )
            for name in NAMES
        ),
    ]
    directories = [network.node_path(name) for name in operators]
    network.network_id = write_operators_genesis(directories, time.time_ns() // 10**6, actions)
    return network
