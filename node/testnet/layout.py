"""The directory of a test network, which every command opens that is given `--dir`.

    testnet.json             who takes part and which port each node has; written last, so half a network does not open
    policy, log.vkey         what anybody needs to verify receipts offline
    authority/               the certificate authority
    bitcoin/                 the embedded regtest chain: blocks, user and password; as a process pid and log
    nodes/NAME/              node.toml, keys, certificate, policy, data/, pid, node.log
    identities/NAME/         profile.toml and keys of each participant and authority
    faults.json              the faults that are on now; gone with `heal`
    relay/                   pid and log of the process through which nodes reach each other (relay.py)
    compose.yaml, regulator/ where nodes are containers: what they are made of, and what the regulator's desk holds

Lives here: where things are. May not live here: making them (make.py), who the parties are (plan.py), processes
(processes.py), containers (containers.py).

Every directory in it is complete in itself, and paths are relative: the whole may be moved while no node runs. All keys
of the network lie in it, sealed by key files that lie beside them: it is for tests and demonstrations only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from clearing.types import Role
from node.config import CONFIG_NAME
from node.errors import SetupError
from node.files import read_text
from node.provision import POLICY_NAME
from node.testnet.bitcoin import BitcoinChain
from node.testnet.bridge import CHAIN_PORT, CONSENSUS_PORT, NODE_PORT, Bridge
from node.testnet.compose import BITCOIN_NAME, REGULATOR
from node.testnet.containers import Container
from node.testnet.plan import (
    NETWORK_NAME,
    Engine,
    Party,
    Plan,
    Runner,
    plan_of,
    role_name,
)
from node.testnet.processes import LOOPBACK, NodeProcess

INDEX_NAME = "testnet.json"
LOG_VKEY_NAME = "log.vkey"
AUTHORITY_NAME = "authority"
IDENTITIES_NAME = "identities"
NODES_NAME = "nodes"

RELAY_NAME = "relay"

NODE = "node"
ENGINE = "engine"

_VERSION = 2


@dataclass(frozen=True, slots=True)
class Link:
    """A way from one node to another, through the relay.

    what: NODE for the node itself, ENGINE for its consensus engine. port: where the relay takes what `source` sends;
    target_port: where `target` listens.
    """

    source: str
    target: str
    what: str
    port: int
    target_port: int


@dataclass(frozen=True, slots=True)
class LocalNetwork:
    """An existing test network.

    ports: where each node serves on loopback, by name; engine_ports: where its consensus engine meets the others', of
    operators that have one. links: between nodes, through the relay; none where they reach each other directly.
    bridge: where nodes are containers, their network. bitcoin_port: 0 where it has no Bitcoin chain.
    """

    path: Path
    parties: tuple[Party, ...]
    ports: dict[str, int]
    bitcoin_port: int = 0
    bitcoin_block_s: int = 0
    plan: Plan = field(default_factory=lambda: plan_of(Engine.EMBEDDED))
    runner: Runner = Runner.PROCESSES
    links: tuple[Link, ...] = ()
    engine_ports: dict[str, int] = field(default_factory=dict)
    bridge: Bridge | None = None

    @property
    def policy_path(self) -> Path:
        """The network's tlog-policy."""
        return self.path / POLICY_NAME

    @property
    def log_vkey_path(self) -> Path:
        """The log's verifier key."""
        return self.path / LOG_VKEY_NAME

    def party(self, name: str) -> Party:
        """Return the party with this name or LEI.

        Raises: SetupError: there is none.
        """
        for party in self.parties:
            if name in (party.name, party.lei):
                return party
        names = ", ".join(party.name for party in self.parties[:12])
        raise SetupError(f"the network in {self.path} has no party {name!r}: it has {names}")

    def identity_path(self, name: str) -> Path:
        """Return the identity directory of a party.

        Raises: SetupError: there is no such party.
        """
        return self.path / IDENTITIES_NAME / self.party(name).name

    def node_path(self, name: str) -> Path:
        """Return a node's directory.

        Raises: SetupError: there is no such node.
        """
        if name not in self.ports:
            raise SetupError(
                f"the network in {self.path} has no node {name!r}: it has {', '.join(self.ports)}"
            )
        return self.path / NODES_NAME / name

    def endpoint(self, node: str) -> str:
        """Return host:port of a node.

        Raises: SetupError: there is no such node.
        """
        self.node_path(node)
        return f"{LOOPBACK}:{self.ports[node]}"

    def listens(self, node: str, what: str = NODE) -> str:
        """Return host:port on which a node, or its consensus engine, listens where it runs."""
        if self.bridge is not None:
            port = NODE_PORT if what == NODE else CONSENSUS_PORT
            return f"{self.bridge.address(node)}:{port}"
        return f"{LOOPBACK}:{(self.ports if what == NODE else self.engine_ports)[node]}"

    def dialled(self, node: str, target: str, what: str = NODE) -> str:
        """Return host:port at which `node` reaches `target`, or its consensus engine."""
        for link in self.links:
            if (link.source, link.target, link.what) == (node, target, what):
                return f"{LOOPBACK}:{link.port}"
        return self.listens(target, what)

    def process(self, node: str) -> NodeProcess | Container:
        """Return what a node runs as, running or not.

        Raises: SetupError: there is no such node.
        """
        path = self.node_path(node)
        if self.bridge is not None:
            return Container(node, self.bridge.container(node))
        config = str((path / CONFIG_NAME).resolve())
        command = ("-m", "node.cli.main", "node", "run", "--config", config)
        return NodeProcess(node, path / "pid", path / "node.log", command)

    def processes(self) -> list[NodeProcess | Container]:
        """Return what all nodes run as, the leader first."""
        return [self.process(name) for name in self.ports]

    @property
    def bitcoin(self) -> BitcoinChain | None:
        """The network's Bitcoin chain, running or not; None where it has none."""
        if not self.bitcoin_port:
            return None
        chain = BitcoinChain(self.path / BITCOIN_NAME, self.bitcoin_port, self.bitcoin_block_s)
        if self.bridge is None:
            return chain
        container = Container(BITCOIN_NAME, self.bridge.container(BITCOIN_NAME))
        address = f"{self.bridge.address(BITCOIN_NAME)}:{CHAIN_PORT}"
        return replace(chain, container=container, address=address)

    @property
    def relay(self) -> NodeProcess | None:
        """The process that carries the links, running or not; None where there are none."""
        if not self.links:
            return None
        path = self.path / RELAY_NAME
        command = ("-m", "node.testnet.relay", str(self.path.resolve()))
        return NodeProcess(RELAY_NAME, path / "pid", path / "relay.log", command)

    def all_processes(self) -> list[NodeProcess | Container]:
        """Return the nodes' processes, the leader first, then the relay's and the Bitcoin chain's."""
        helpers = (self.relay, self.bitcoin.process if self.bitcoin else None)
        return [*self.processes(), *(process for process in helpers if process is not None)]

    def roles(self) -> dict[str, Role]:
        """Return the role of each party by name."""
        return {party.name: party.role for party in self.parties}

    def encode(self) -> bytes:
        """Return the index file's text."""
        index = {
            "version": _VERSION,
            "network": NETWORK_NAME,
            "engine": self.plan.engine,
            "operators": len(self.plan.operators),
            "runner": self.runner,
            "nodes": self.ports,
            "links": [
                [link.source, link.target, link.what, link.port, link.target_port]
                for link in self.links
            ],
            "engines": self.engine_ports,
            "bridge": [self.bridge.project, self.bridge.subnet] if self.bridge else None,
            "bitcoin": {"port": self.bitcoin_port, "block_s": self.bitcoin_block_s},
            "parties": [
                {"name": party.name, "role": role_name(party.role), "lei": party.lei}
                for party in self.parties
            ],
        }
        return (json.dumps(index, indent=1) + "\n").encode()

    @classmethod
    def exists(cls, path: Path) -> bool:
        """Return whether a network was made in the directory `path`."""
        return (path / INDEX_NAME).is_file()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the network in the directory `path`.

        Raises: SetupError: there is none, or its index is not ours.
        """
        if not cls.exists(path):
            raise SetupError(
                f"{path} holds no test network: make one with `clearing testnet up --dir {path}`"
            )
        source = path / INDEX_NAME
        try:
            index: dict[str, Any] = json.loads(read_text(source))
            # Before anything else is looked at: other versions have other members.
            if index["version"] != _VERSION:
                raise SetupError(
                    f"{source} is of another version: remove {path} and make the network again"
                )
            roles = {role_name(role): role for role in Role}
            parties = tuple(
                Party(str(row["name"]), roles[row["role"]], str(row["lei"]))
                for row in index["parties"]
            )
            ports = {str(name): int(port) for name, port in index["nodes"].items()}
            chain = {name: int(index["bitcoin"][name]) for name in ("port", "block_s")}
            plan = plan_of(Engine(index["engine"]), int(index["operators"]))
            runner = Runner(index["runner"])
            links = tuple(
                Link(str(source), str(target), str(what), int(port), int(target_port))
                for source, target, what, port, target_port in index["links"]
            )
            engines = {str(name): int(port) for name, port in index["engines"].items()}
            bridge = None
            if index["bridge"] is not None:
                project, subnet = map(str, index["bridge"])
                bridge = Bridge(project, subnet, container_names(plan))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SetupError(
                f"{source} is damaged ({error}): remove {path} and make the network again"
            ) from error
        if tuple(ports) != plan.nodes:
            raise SetupError(
                f"{source} lists other nodes than its engine has: remove {path} and make the network again"
            )
        return cls(
            path,
            parties,
            ports,
            chain["port"],
            chain["block_s"],
            plan=plan,
            runner=runner,
            links=links,
            engine_ports=engines,
            bridge=bridge,
        )


def container_names(plan: Plan) -> tuple[str, ...]:
    """Return the names of a network's containers, in the order of their addresses."""
    return (*plan.nodes, REGULATOR, BITCOIN_NAME)
