"""Making a test network's directory, and moving it to other ports.

Lives here: the order of steps. May not live here: where things are (layout.py), who takes part (plan.py), what one
node needs (node/provision.py).
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from clearing.rules.registry import NO_KEY, Action, ActionKind, Participant
from clearing.types import LicenceStatus
from node.config import CONFIG_NAME, ReplicaRole, load_config, write_config
from node.errors import SetupError
from node.files import (
    PRIVATE_DIR_MODE,
    PRIVATE_MODE,
    PUBLIC_MODE,
    create_file,
    make_private_directory,
    read_text,
    replace_file,
)
from node.keys import create_key_file
from node.pki import Authority, Validity
from node.profile import PROFILE_NAME, IdentityDirectory, Profile
from node.provision import (
    DATA_NAME,
    ENGINE_NAME,
    KEY_FILE_NAME,
    POLICY_NAME,
    BitcoinPlace,
    NodeKeys,
    NodePlace,
    make_node,
    operators_policy,
    quorum_policy,
    write_genesis,
    write_operators_genesis,
)
from node.sequencer.cometbft.home import HomeKeys, read_keys
from node.settings import render_settings
from node.testnet.bitcoin import COOKIE_NAME, has_engine
from node.testnet.bridge import Bridge
from node.testnet.compose import CHAIN_NAME, REGULATOR
from node.testnet.containers import taken_subnets
from node.testnet.funding import ADDRESSES_NAME, wallet_addresses
from node.testnet.layout import (
    AUTHORITY_NAME,
    ENGINE,
    INDEX_NAME,
    NODE,
    RELAY_NAME,
    Link,
    LocalNetwork,
    container_names,
)
from node.testnet.plan import (
    ASSETS,
    AUTHORITIES,
    LEADER,
    NETWORK_NAME,
    Engine,
    Party,
    Plan,
    Runner,
    operator_parties,
    plan_of,
)
from node.testnet.processes import LOOPBACK, free_ports, is_free, stop_all
from node.workers.anchoring.network import Network

POWER = 10
"""Of every validator: no one has a third of four's."""

_VALIDITY_DAYS = 3_650
_HOSTS = (LOOPBACK, "localhost")
_DISK_THREADS = 8

ANCHOR_EVERY_S = 30
"""How long a final checkpoint of a test network waits for an anchor, unless one is asked for at once."""

ANCHOR_POLL_MS = 500

NODE_COOKIE_NAME = "bitcoin.cookie"
"""User and password of the chain's RPC, in the directory of the node that anchors, where it is a container."""


def make_network(
    path: Path,
    participants: Sequence[Party],
    done: Callable[[str], None] | None = None,
    *,
    plan: Plan | None = None,
    runner: Runner = Runner.PROCESSES,
    relayed: bool = False,
    has_chain: bool = True,
) -> LocalNetwork:
    """Make a network of the plan's nodes, AUTHORITIES and `participants` in the new or empty directory `path`.

    plan: one operator's, unless given. relayed: nodes on loopback reach each other through a relay, so that the ways
    between them can be cut; containers need none. has_chain: with a Bitcoin chain to anchor in, where its engine is installed here.
    `done` is called with the name of each party and node once its files are made.
    Raises: SetupError: the directory holds anything, or cannot be written.
    """
    make_private_directory(path)
    try:
        if any(path.iterdir()):
            raise FileExistsError
        # Who makes this one makes the network, should two commands come at once.
        (path / AUTHORITY_NAME).mkdir(mode=PRIVATE_DIR_MODE)
    except FileExistsError as error:
        raise SetupError(
            f"{path} is not empty and holds no test network: give another directory"
        ) from error
    try:
        chosen = plan or plan_of(Engine.EMBEDDED)
        network = _lay_out(path.resolve(), participants, chosen, runner, relayed=relayed)
        if not has_chain:
            network = replace(network, bitcoin_port=0)
        return _make(network, done or _nothing)
    except BaseException:
        # It was empty, so all of it is ours: a half-made network would only stand in the way of the next attempt.
        shutil.rmtree(path, ignore_errors=True)
        raise


def _lay_out(
    path: Path, participants: Sequence[Party], plan: Plan, runner: Runner, *, relayed: bool
) -> LocalNetwork:
    """Say where each node serves and by which ways they reach each other."""
    parties = (*AUTHORITIES, *operator_parties(plan), *participants)
    in_containers = runner is Runner.DOCKER
    ways = list(_ways(plan))
    network = LocalNetwork(
        path,
        parties,
        dict.fromkeys(plan.nodes, 0),
        free_ports(1)[0] if has_engine() else 0,
        plan=plan,
        runner=runner,
        links=tuple(Link(*way, 0, 0) for way in ways) if relayed and not in_containers else (),
        engine_ports=dict.fromkeys(plan.operators if plan.engine is Engine.COMETBFT else (), 0),
        bridge=Bridge.choose(container_names(plan), taken_subnets()) if in_containers else None,
    )
    return _with_ports(network)


def _ways(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Yield who dials whom: node, its target, and whether the node or its consensus engine is meant."""
    for node in plan.nodes:
        for target in plan.dialled(node):
            yield node, target, NODE
            if node in plan.operators:
                yield node, target, ENGINE


def _with_ports(network: LocalNetwork) -> LocalNetwork:
    """Return the network with free ports for all its nodes and links."""
    count = len(network.ports) + len(network.engine_ports) + len(network.links)
    # The chain stays where it is: who talks to it has its port in a configuration of his own.
    free = iter([port for port in free_ports(count + 1) if port != network.bitcoin_port])
    ports = {name: next(free) for name in network.ports}
    engines = {name: next(free) for name in network.engine_ports}
    targets = {NODE: ports, ENGINE: engines}
    links = tuple(
        replace(link, port=next(free), target_port=targets[link.what][link.target])
        for link in network.links
    )
    return replace(network, ports=ports, engine_ports=engines, links=links)


def _make(network: LocalNetwork, report: Callable[[str], None]) -> LocalNetwork:
    if network.links:
        make_private_directory(network.path / RELAY_NAME)
    validity = Validity.days_from_now(_VALIDITY_DAYS)
    authority = Authority.create(
        network.path / AUTHORITY_NAME, NETWORK_NAME, Validity.days_from_now(_VALIDITY_DAYS + 1)
    )
    node_keys = _make_nodes(network, authority, validity, report)
    registered = [
        replace(party, node_key=_node_key(node_keys.get(party.name)))
        for party in _make_identities(network, authority, validity, report)
    ]
    actions = [
        *(Action(ActionKind.ADD_PARTICIPANT, party) for party in registered),
        *(Action(ActionKind.ADD_ASSET, asset) for asset in ASSETS),
    ]
    if network.plan.engine is Engine.COMETBFT:
        numbers = {party.name: number for number, party in enumerate(registered)}
        actions += [
            _validator(numbers[name], made.engine)
            for name, made in node_keys.items()
            if made.engine is not None
        ]
        operators = [network.node_path(name) for name in network.plan.operators]
        write_operators_genesis(operators, time.time_ns() // 10**6, actions)
    else:
        data = network.node_path(LEADER) / DATA_NAME
        write_genesis(data, time.time_ns() // 10**6, actions)
    if network.bridge is not None:
        _make_desk(network)
        _prepare_chain(network)
    create_file(network.path / INDEX_NAME, network.encode(), PUBLIC_MODE)
    return network


def _nothing(_: str) -> None:
    return


def _node_key(made: NodeKeys | None) -> bytes:
    return (made.instruction if made else None) or NO_KEY


def _validator(participant: int, engine: HomeKeys) -> Action:
    """Return the action by which an operator validates, with as much power as every other."""
    value = {"participant": participant, "power": POWER, "consensus_key": engine.consensus_key}
    return Action(ActionKind.SET_VALIDATOR, value)


def _make_nodes(
    network: LocalNetwork, authority: Authority, validity: Validity, done: Callable[[str], None]
) -> dict[str, NodeKeys]:
    """Make every node's directory and the policy; returns their public keys by name."""
    keys = {}
    for name in network.ports:
        place = _place(network, name)
        if name == LEADER:
            place = replace(place, bitcoin=_bitcoin_place(network))
        hosts = [*_HOSTS, name, network.listens(name).rpartition(":")[0]]
        keys[name] = make_node(
            network.node_path(name), place, authority, validity, hosts=list(dict.fromkeys(hosts))
        )
        done(name)
    # An engine's address begins with the hash of its key, so that all keys come first.
    for name in network.engine_ports:
        _move_node(network, name)
    logs = [made.log for made in keys.values() if made.log is not None]
    cosigners = [(name, made.cosigner) for name, made in keys.items()]
    plan = network.plan
    if plan.engine is Engine.COMETBFT:
        policy = operators_policy(logs, cosigners, plan.operators).encode()
    else:
        required = [*plan.operators, *plan.fulls]
        policy = quorum_policy(logs[0], cosigners, required, plan.witnesses).encode()
    for directory in (network.path, *(network.node_path(name) for name in network.ports)):
        create_file(directory / POLICY_NAME, policy, PUBLIC_MODE)
    vkeys = "".join(f"{log.vkey}\n" for log in logs)
    create_file(network.log_vkey_path, vkeys.encode(), PUBLIC_MODE)
    return keys


def _place(network: LocalNetwork, name: str) -> NodePlace:
    """Return where a node is to run and what it is to be."""
    plan = network.plan
    listen = network.listens(name)
    role = ReplicaRole.WITNESS if name in plan.witnesses else ReplicaRole.FULL
    if plan.engine is Engine.COMETBFT:
        known = _operators(network, name)
        if name in plan.operators:
            met_at = network.listens(name, ENGINE)
            role = ReplicaRole.OPERATOR
            return NodePlace(
                NETWORK_NAME, name, role, listen, operators=known, consensus_listen=met_at
            )
        return NodePlace(NETWORK_NAME, name, role, listen, operators=known)
    leader = plan.followed(name)
    if not leader:
        return NodePlace(NETWORK_NAME, name, ReplicaRole.LEADER, listen)
    return NodePlace(NETWORK_NAME, name, role, listen, network.dialled(name, leader), leader)


def _operators(network: LocalNetwork, name: str) -> tuple[str, ...]:
    """Return the operators that a node knows, NAME=host:port, the one that it prefers first."""
    return tuple(
        f"{target}={network.dialled(name, target)}" for target in network.plan.dialled(name)
    )


def _bitcoin_place(network: LocalNetwork) -> BitcoinPlace | None:
    """Return where the first operator anchors: in the network's own chain, which only he pays for."""
    chain = network.bitcoin
    if chain is None:
        return None
    cookie = chain.cookie_path
    if chain.container is not None:
        cookie = network.node_path(LEADER) / NODE_COOKIE_NAME
    return BitcoinPlace(chain.node_url, Network.REGTEST, cookie, 0, ANCHOR_EVERY_S, ANCHOR_POLL_MS)


def _make_identities(
    network: LocalNetwork, authority: Authority, validity: Validity, done: Callable[[str], None]
) -> list[Participant]:
    """Make every party's identity, several at a time since each waits for the disk; returns them in order."""
    shared: dict[str, Any] = {
        "endpoints": _endpoints(network),
        "policy": read_text(network.policy_path).encode(),
        "authority": authority,
        "validity": validity,
    }

    def make(numbered: tuple[int, Party]) -> Participant:
        number, party = numbered
        path = network.identity_path(party.name)
        return make_identity(path, party, number, **shared)

    with ThreadPoolExecutor(_DISK_THREADS) as pool:
        made = pool.map(make, enumerate(network.parties, 1))
        registered = []
        for participant in made:
            registered.append(participant)
            done(participant.name)
    return registered


def make_identity(
    path: Path,
    party: Party,
    number: int,
    *,
    endpoints: tuple[str, ...],
    policy: bytes,
    authority: Authority,
    validity: Validity,
) -> Participant:
    """Make a party's identity directory at `path` and return its entry for the register.

    number: of its licence. endpoints: nodes that it asks. policy: the network's, which it trusts.
    """
    make_private_directory(path)
    key_file = create_key_file(path / KEY_FILE_NAME)
    create_file(path / POLICY_NAME, policy, PUBLIC_MODE)
    profile = Profile(
        network=NETWORK_NAME,
        name=party.name,
        lei=party.lei,
        endpoints=endpoints,
        key_file_path=key_file.path,
        policy_path=path / POLICY_NAME,
    )
    _, key = IdentityDirectory.create(path, profile, authority, validity)
    return Participant(
        name=party.name,
        lei=party.lei,
        role=party.role,
        status=LicenceStatus.ACTIVE,
        public_key=key.public_key,
        licence_no=f"TEST-{number:04d}",
        licence_expiry_ms=0,
    )


def _make_desk(network: LocalNetwork) -> None:
    """Make what the regulator's container holds: his identity, with the nodes' addresses as containers see them."""
    path = network.path / REGULATOR
    shutil.copytree(network.identity_path(REGULATOR), path)
    profile = IdentityDirectory.open(path).profile
    endpoints = tuple(network.listens(name) for name in network.plan.operators)
    text = render_settings(
        replace(profile, endpoints=endpoints),
        heading="The regulator's desk: a supervisor of the clearing ledger.",
        base=path,
    )
    replace_file(path / PROFILE_NAME, text.encode(), PUBLIC_MODE)


def _prepare_chain(network: LocalNetwork) -> None:
    """Write what containers cannot tell each other: user and password of the chain's RPC, and to whom its first coins go.

    Chain, node and this user each see a directory of their own, so each has the password in it.
    """
    chain = network.bitcoin
    if chain is None:
        return
    make_private_directory(chain.path / CHAIN_NAME)
    own = network.node_path(LEADER)
    cookie = f"__cookie__:{secrets.token_hex(32)}".encode()
    places = chain.cookie_path, chain.path / CHAIN_NAME / COOKIE_NAME, own / NODE_COOKIE_NAME
    for path in places:
        create_file(path, cookie, PRIVATE_MODE)
    addresses = wallet_addresses(load_config(own / CONFIG_NAME))
    create_file(chain.path / ADDRESSES_NAME, "\n".join(addresses).encode(), PUBLIC_MODE)


def claim_ports(network: LocalNetwork) -> LocalNetwork:
    """Return the network with ports that are free: its own, or new ones where one is taken and no node runs.

    Raises: SetupError: a port is taken while other nodes of the network run and know it.
    """
    stopped = [process.name for process in network.processes() if process.pid() is None]
    network = _claim_chain_port(network)
    wanted = [(f"node {name}", network.ports[name]) for name in stopped]
    wanted += [
        (f"the engine of {name}", port)
        for name, port in network.engine_ports.items()
        if name in stopped and network.bridge is None
    ]
    if network.relay is not None and network.relay.pid() is None:
        wanted += [(f"the way {link.source} - {link.target}", link.port) for link in network.links]
    taken = [(what, port) for what, port in wanted if not is_free(port)]
    if not taken:
        return network
    if len(stopped) < len(network.ports):
        what, port = taken[0]
        raise SetupError(
            f"port {port} of {what} is used by another program: stop that program, or take the network down and up again"
        )
    if network.relay is not None:
        stop_all([network.relay])
    moved = _with_ports(network)
    for name in moved.ports:
        _move_node(moved, name)
    for party in moved.parties:
        _move_profile(moved, party)
    replace_file(moved.path / INDEX_NAME, moved.encode(), PUBLIC_MODE)
    return moved


def _claim_chain_port(network: LocalNetwork) -> LocalNetwork:
    chain = network.bitcoin
    if chain is None or chain.process.pid() is not None or is_free(chain.port):
        return network
    moved = replace(network, bitcoin_port=free_ports(1)[0])
    path = moved.node_path(LEADER) / CONFIG_NAME
    config = load_config(path)
    if moved.bitcoin is not None and config.bitcoin_rpc_url:
        write_config(path, replace(config, bitcoin_rpc_url=moved.bitcoin.node_url), replace=True)
    replace_file(moved.path / INDEX_NAME, moved.encode(), PUBLIC_MODE)
    return moved


def _move_node(network: LocalNetwork, name: str) -> None:
    """Write into a node's configuration where it listens and where the others are."""
    path = network.node_path(name) / CONFIG_NAME
    place = _place(network, name)
    moved = replace(
        load_config(path),
        listen=place.listen,
        leader_endpoint=place.leader_endpoint,
        operators=place.operators,
        consensus_listen=place.consensus_listen,
        consensus_peers=_peers(network, name),
    )
    write_config(path, moved, replace=True)


def _peers(network: LocalNetwork, name: str) -> tuple[str, ...]:
    """Return where an operator's consensus engine meets the others', NODE_ID@host:port."""
    if name not in network.engine_ports:
        return ()
    ids = {
        target: read_keys(network.node_path(target) / ENGINE_NAME).node_id
        for target in network.plan.dialled(name)
    }
    return tuple(
        f"{node_id}@{network.dialled(name, target, ENGINE)}" for target, node_id in ids.items()
    )


def _move_profile(network: LocalNetwork, party: Party) -> None:
    path = network.identity_path(party.name)
    moved = replace(IdentityDirectory.open(path).profile, endpoints=_endpoints(network))
    text = render_settings(moved, heading="A participant of the clearing ledger.", base=path)
    replace_file(path / PROFILE_NAME, text.encode(), PUBLIC_MODE)


def _endpoints(network: LocalNetwork) -> tuple[str, ...]:
    """Return where parties send transactions: to every operator, the first first."""
    return tuple(network.endpoint(name) for name in network.plan.operators)
