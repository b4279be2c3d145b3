"""One validator key in two engines: the fault of an operator that starts its spare while the first still runs.

Lives here: the twin of an operator, and the scenario. Nobody here makes a vote or hands evidence in: two engine processes
sign by themselves, one does not know of the other, and what follows is the engines' own work and the ledger's.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from clearing.consensus.validators import address_of
from clearing.records.leaves import LeafKind, MisbehaviourLeaf, leaf_kind
from node.client import Client
from node.config import CONFIG_NAME, load_config, write_config
from node.provision import DATA_NAME, ENGINE_NAME
from node.sequencer.cometbft.home import make_home, read_keys
from node.sequencer.cometbft.rpc import EngineError
from node.testnet.bridge import CONSENSUS_PORT, NODE_PORT, Bridge
from node.testnet.compose import IMAGE
from node.testnet.layout import LocalNetwork
from node.testnet.processes import LOOPBACK, NodeProcess, free_ports, stop_all
from tests.network.scenarios import Figures, counts_no_more, licence
from tests.network.world import World

START_S = 60.0
EVIDENCE_S = 60.0
LEFT_S = 30.0
TWIN_HOST = 200

_NO_EVIDENCE = hashlib.sha256(b"").hexdigest().upper()
"""What a header says of a block without evidence: the root of an empty tree."""

_VALIDATOR_KEY = Path("config/priv_validator_key.json")
_GENESIS = Path("config/genesis.json")


def make_twin(network: LocalNetwork, name: str) -> Path:
    """Make a second node of the operator `name`: all its keys, no data, what it has voted forgotten, a place of its own."""
    source = network.node_path(name)
    path = source.with_name(f"{name}-twin")
    here = shutil.ignore_patterns(DATA_NAME, ENGINE_NAME, "pid", "node.log")
    shutil.copytree(source, path, ignore=here)
    # A fresh identity among peers, for two of one identity are not let in, and a fresh memory of votes.
    make_home(path / ENGINE_NAME)
    for file in (_VALIDATOR_KEY, _GENESIS):
        shutil.copyfile(source / ENGINE_NAME / file, path / ENGINE_NAME / file)
    listen, meets = (f"{LOOPBACK}:{port}" for port in free_ports(2))
    if network.bridge is not None:
        address = twin_address(network.bridge)
        listen, meets = f"{address}:{NODE_PORT}", f"{address}:{CONSENSUS_PORT}"
    config = load_config(path / CONFIG_NAME)
    twin = replace(config, listen=listen, consensus_listen=meets)
    write_config(path / CONFIG_NAME, twin, replace=True)
    return path


def twin_address(bridge: Bridge) -> str:
    """Return an address of the containers' network that no container has."""
    return str(ipaddress.ip_network(bridge.subnet)[TWIN_HOST])


@contextmanager
def running(network: LocalNetwork, path: Path) -> Iterator[None]:
    """Run the node in `path` beside its network for the time of the `with` block, as what the network's nodes run."""
    if network.bridge is None:
        command = ("-m", "node.cli.main", "node", "run", "--config", str(path / CONFIG_NAME))
        process = NodeProcess(path.name, path / "pid", path / "node.log", command)
        process.start()
        try:
            yield
        finally:
            stop_all([process])
        return
    owner = (path.parent / network.plan.operators[0]).stat()
    for one in (path, *path.rglob("*")):
        os.chown(one, owner.st_uid, owner.st_gid)
    name = network.bridge.container(path.name)
    options = (
        *("--name", name, "--init", "--user", f"{owner.st_uid}:{owner.st_gid}"),
        *("--network", f"{network.bridge.project}_clearing"),
        *("--ip", twin_address(network.bridge), "-v", f"{path}:/node", "--read-only"),
        *("--tmpfs", "/tmp", IMAGE, "node", "run", "--config", "/node"),  # noqa: S108 - its own
    )
    subprocess.run(["docker", "run", "-d", *options], check=True, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run(["docker", "rm", "-f", name], check=True, stdout=subprocess.DEVNULL)


def twin(world: World) -> Figures:
    """Of five operators one runs twice: the engines report its double vote, the ledger suspends it, it leaves the set."""
    name = world.random.choice(world.operators[2:])
    others = [one for one in world.operators if one != name]
    key = read_keys(world.network.node_path(name) / ENGINE_NAME).consensus_key
    assert len(world.voters(others[0])) == 5
    number = [party.name for party in world.network.parties].index(name)
    path = make_twin(world.network, name)
    # Its start is no part of what is timed: the cores are its own until its engine has every block.
    world.load(on=False)
    with running(world.network, path), world.client("regulator", others[0]) as client:
        started = world.wait(
            "the twin has caught up", lambda: _is_even(world, path, others[0]), START_S
        )
        world.load(on=True)
        found = world.wait(
            "the double vote is recorded", lambda: _suspended(client) == [number], EVIDENCE_S
        )
        left = world.wait(
            "it has left the set", lambda: address_of(key) not in world.voters(others[0]), LEFT_S
        )
        went_on = world.works()
        counted = counts_no_more(world, others[-1])
    for one in others:
        with world.client("regulator", one) as client:
            leaves = list(client.leaves(0, client.checkpoint().size))
            assert _accused(leaves) == {number}, f"{one} recorded {_accused(leaves)}"
            assert _suspended(client) == [number]
            assert number not in [v.participant for v in client.registry().validators]
    return {
        "node": name,
        "started_s": round(started, 1),
        "evidence_s": round(found, 1),
        "left_s": round(left, 1),
        "removed_at": _removed_at(world, others[0], address_of(key)),
        "work_s": round(went_on, 1),
        "final_again_s": round(counted, 1),
    }


def _is_even(world: World, path: Path, other: str) -> bool:
    """Return whether the twin's engine takes part, having the blocks that another operator's has."""
    own = world.engine_at(path / ENGINE_NAME)
    rpc = world.engine(other)
    try:
        facts = own.status()
        return not facts.is_catching_up and facts.height >= rpc.status().height
    except EngineError:
        return False
    finally:
        own.close()
        rpc.close()


def _suspended(client: Client) -> list[int]:
    """Return whose validators are suspended."""
    return [one.participant for one in client.registry().appointed if one.suspended]


def _accused(leaves: list[bytes]) -> set[int]:
    """Return whom the recorded misbehaviour names."""
    found = [leaf for leaf in leaves if leaf_kind(leaf) is LeafKind.MISBEHAVIOUR]
    return {MisbehaviourLeaf.decode(leaf).participant for leaf in found}


def _removed_at(world: World, node: str, address: bytes) -> int:
    """Return the height at which the culprit was gone, having found the evidence in a block two below."""
    rpc = world.engine(node)
    try:
        low, high = 1, rpc.status().height
        while low < high:
            middle = (low + high) // 2
            members = {bytes.fromhex(one["address"]) for one in rpc.validators(middle)}
            low, high = (middle + 1, high) if address in members else (low, middle)
        header = rpc.commit(low - 2)["header"]
        assert header["evidence_hash"] != _NO_EVIDENCE, f"no evidence two blocks below {low}"
        return low
    finally:
        rpc.close()


OWN: dict[str, tuple[int, Callable[[World], Figures]]] = {
    "licence": (5, licence),
    "twin": (5, twin),
}
"""Scenarios with a network of several operators of their own, so many."""
