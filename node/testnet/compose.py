"""The compose file of a test network in containers.

Lives here: what each container is given and held to. May not live here: running compose (containers.py), the image
(docker/Dockerfile).

The file is written for docker-compose 1.29 as well as for the compose plugin, so it says a version and nothing that only one
of them reads. Paths in it are relative: it stands in the network's directory. It is JSON, which is YAML.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from node.testnet.bridge import CHAIN_PORT, NODE_PORT, Bridge

COMPOSE_NAME = "compose.yaml"
REGULATOR = "regulator"
BITCOIN_NAME = "bitcoin"
CHAIN_NAME = "chain"
IMAGE = "clearing-ledger:dev"
LIAR_IMAGE = "clearing-ledger:liar"

MEMORY = "1g"
"""Of a node and its consensus engine; measured after 3.1 million obligations: 600 MiB and 120 MiB."""

_HELD = {
    "init": True,
    "read_only": True,
    "tmpfs": ["/tmp"],  # noqa: S108 - inside the container, of its own
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "mem_limit": MEMORY,
    "pids_limit": 512,
    "restart": "no",
    "stop_grace_period": "15s",
    "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "2"}},
}
"""What every container is held to; it comes back when it is told to, as a test of faults needs it."""


def compose_file(
    bridge: Bridge,
    ports: Mapping[str, int],
    *,
    user: str,
    liar: str,
    lies: Mapping[str, str],
    chain: tuple[int, int] | None = None,
) -> bytes:
    """Return the text of the compose file.

    ports: where each node is published on loopback, by name, in order. user: uid:gid as which the containers run. liar: module
    of the lying build; lies: how a node lies, by name. chain: where the Bitcoin chain is published on loopback, and the seconds
    between its blocks; None: there is none.
    """
    services = {
        name: _node(bridge, name, port, user) | _lie(liar, lies.get(name, ""))
        for name, port in ports.items()
    }
    services[REGULATOR] = _regulator(bridge, user)
    if chain is not None:
        services[BITCOIN_NAME] = _bitcoin(bridge, user, *chain)
    document = {
        "version": "3.8",
        "services": services,
        "networks": {"clearing": {"ipam": {"config": [{"subnet": bridge.subnet}]}}},
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def _node(bridge: Bridge, name: str, port: int, user: str) -> dict[str, Any]:
    return {
        **_HELD,
        "image": IMAGE,
        "container_name": bridge.container(name),
        "hostname": name,
        "user": user,
        "command": ["node", "run", "--config", "/node"],
        "volumes": [f"./nodes/{name}:/node"],
        "ports": [f"127.0.0.1:{port}:{NODE_PORT}"],
        "networks": {"clearing": {"ipv4_address": bridge.address(name)}},
        "healthcheck": {
            "test": ["CMD", "clearing", "node", "health", "--config", "/node"],
            "interval": "30s",
            "timeout": "10s",
            "retries": 3,
            "start_period": "20s",
        },
    }


def _lie(liar: str, how: str) -> dict[str, Any]:
    if not how:
        return {}
    return {
        "image": LIAR_IMAGE,
        "entrypoint": ["python", "-m", liar],
        "command": [how, "--config", "/node"],
    }


def _regulator(bridge: Bridge, user: str) -> dict[str, Any]:
    """Return a container that runs nothing of its own: the regulator's desk, from which he asks the nodes."""
    return {
        **_HELD,
        "image": IMAGE,
        "container_name": bridge.container(REGULATOR),
        "hostname": REGULATOR,
        "user": user,
        "entrypoint": ["tail", "-f", "/dev/null"],
        "volumes": [f"./{REGULATOR}:/identity"],
        "networks": {"clearing": {"ipv4_address": bridge.address(REGULATOR)}},
        "healthcheck": {
            "test": ["CMD", "clearing", "audit", "query", "cycles", "--identity", "/identity"],
            "interval": "60s",
            "timeout": "20s",
            "retries": 3,
            "start_period": "60s",
        },
    }


def _bitcoin(bridge: Bridge, user: str, port: int, block_s: int) -> dict[str, Any]:
    """Return the container of the network's Bitcoin chain; its user and password lie beside its blocks."""
    address = bridge.address(BITCOIN_NAME)
    call = f"import socket; socket.create_connection(('{address}', {CHAIN_PORT}), 5)"
    return {
        **_HELD,
        "image": IMAGE,
        "container_name": bridge.container(BITCOIN_NAME),
        "hostname": BITCOIN_NAME,
        "user": user,
        "entrypoint": ["python", "-m", "node.regtest"],
        "command": [
            *("--dir", "/chain", "--host", address, "--port", str(CHAIN_PORT)),
            *("--mine-every", str(block_s)),
        ],
        "volumes": [f"./{BITCOIN_NAME}/{CHAIN_NAME}:/chain"],
        "ports": [f"127.0.0.1:{port}:{CHAIN_PORT}"],
        "networks": {"clearing": {"ipv4_address": address}},
        "healthcheck": {
            "test": ["CMD", "python", "-c", call],
            "interval": "30s",
            "timeout": "10s",
            "retries": 3,
            "start_period": "20s",
        },
    }
