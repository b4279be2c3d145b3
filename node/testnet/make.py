"""Making a test network's directory, and moving it to other ports.

Lives here: the order of steps. May not live here: where things are (layout.py), who takes part (plan.py), what one
node needs (node/provision.py).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from clearing.rules.registry import NO_KEY, Action, ActionKind, Participant
from clearing.types import LicenceStatus
from node.config import CONFIG_NAME, ReplicaRole, load_config, write_config
from node.errors import SetupError
from node.files import (
    PRIVATE_DIR_MODE,
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
    KEY_FILE_NAME,
    POLICY_NAME,
    NodePlace,
    make_node,
    quorum_policy,
    write_genesis,
)
from node.settings import render_settings
from node.testnet.bitcoin import has_engine
from node.testnet.layout import AUTHORITY_NAME, INDEX_NAME, LocalNetwork
from node.testnet.plan import ASSETS, AUTHORITIES, LEADER, NETWORK_NAME, NODES, WITNESSES, Party
from node.testnet.processes import LOOPBACK, free_ports, is_free

_VALIDITY_DAYS = 3_650
_HOSTS = (LOOPBACK, "localhost")
_DISK_THREADS = 8


def make_network(
    path: Path, participants: Sequence[Party], done: Callable[[str], None] | None = None
) -> LocalNetwork:
    """Make a network of NODES, AUTHORITIES and `participants` in the new or empty directory `path`.

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
        return _make(path.resolve(), participants, done or _nothing)
    except BaseException:
        # It was empty, so all of it is ours: a half-made network would only stand in the way of the next attempt.
        shutil.rmtree(path, ignore_errors=True)
        raise


def _make(path: Path, participants: Sequence[Party], report: Callable[[str], None]) -> LocalNetwork:
    *node_ports, chain_port = free_ports(len(NODES) + 1)
    ports = dict(zip(NODES, node_ports, strict=True))
    parties = (*AUTHORITIES, *participants)
    network = LocalNetwork(path, parties, ports, chain_port if has_engine() else 0)
    validity = Validity.days_from_now(_VALIDITY_DAYS)
    authority = Authority.create(
        network.path / AUTHORITY_NAME, NETWORK_NAME, Validity.days_from_now(_VALIDITY_DAYS + 1)
    )
    node_keys = _make_nodes(network, authority, validity, report)
    registered = [
        replace(party, node_key=node_keys.get(party.name) or NO_KEY)
        for party in _make_identities(network, authority, validity, report)
    ]
    actions = [
        *(Action(ActionKind.ADD_PARTICIPANT, party) for party in registered),
        *(Action(ActionKind.ADD_ASSET, asset) for asset in ASSETS),
    ]
    write_genesis(network.node_path(LEADER) / DATA_NAME, time.time_ns() // 10**6, actions)
    create_file(network.path / INDEX_NAME, network.encode(), PUBLIC_MODE)
    return network


def _nothing(_: str) -> None:
    return


def _make_nodes(
    network: LocalNetwork, authority: Authority, validity: Validity, done: Callable[[str], None]
) -> dict[str, bytes | None]:
    """Make every node's directory and the policy; returns their instruction keys by name."""
    keys = {}
    for name in network.ports:
        leads = name == LEADER
        follows = ReplicaRole.WITNESS if name in WITNESSES else ReplicaRole.FULL
        place = NodePlace(
            NETWORK_NAME,
            name,
            ReplicaRole.LEADER if leads else follows,
            network.endpoint(name),
            "" if leads else network.endpoint(LEADER),
            "" if leads else LEADER,
        )
        keys[name] = make_node(network.node_path(name), place, authority, validity, hosts=_HOSTS)
        done(name)
    log = keys[LEADER].log
    if log is None:
        raise SetupError(f"node {LEADER} has no log key: it must be made as the leader")
    required = [name for name in network.ports if name not in WITNESSES]
    cosigners = [(name, made.cosigner) for name, made in keys.items()]
    policy = quorum_policy(log, cosigners, required, WITNESSES).encode()
    for directory in (network.path, *(network.node_path(name) for name in network.ports)):
        create_file(directory / POLICY_NAME, policy, PUBLIC_MODE)
    create_file(network.log_vkey_path, (log.vkey + "\n").encode(), PUBLIC_MODE)
    return {name: made.instruction for name, made in keys.items()}


def _make_identities(
    network: LocalNetwork, authority: Authority, validity: Validity, done: Callable[[str], None]
) -> list[Participant]:
    """Make every party's identity, several at a time since each waits for the disk; returns them in order."""
    with ThreadPoolExecutor(_DISK_THREADS) as pool:
        made = pool.map(
            lambda numbered: _make_identity(network, numbered[1], numbered[0], authority, validity),
            enumerate(network.parties, 1),
        )
        registered = []
        for participant in made:
            registered.append(participant)
            done(participant.name)
    return registered


def _make_identity(
    network: LocalNetwork, party: Party, number: int, authority: Authority, validity: Validity
) -> Participant:
    """Make a party's identity directory and return its entry for the register."""
    path = network.identity_path(party.name)
    make_private_directory(path)
    key_file = create_key_file(path / KEY_FILE_NAME)
    create_file(path / POLICY_NAME, read_text(network.policy_path).encode(), PUBLIC_MODE)
    profile = Profile(
        network=NETWORK_NAME,
        name=party.name,
        lei=party.lei,
        endpoints=(network.endpoint(LEADER),),
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


def claim_ports(network: LocalNetwork) -> LocalNetwork:
    """Return the network with ports that are free: its own, or new ones where one is taken and no node runs.

    Raises: SetupError: a port is taken while other nodes of the network run and know it.
    """
    stopped = [process.name for process in network.processes() if process.pid() is None]
    taken = [name for name in stopped if not is_free(network.ports[name])]
    network = _claim_chain_port(network)
    if not taken:
        return network
    if len(stopped) < len(network.ports):
        raise SetupError(
            f"port {network.ports[taken[0]]} of node {taken[0]} is used by another program: stop that program, or "
            "take the network down and up again"
        )
    ports = dict(zip(network.ports, free_ports(len(network.ports)), strict=True))
    moved = replace(network, ports=ports)
    for name in ports:
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
    replace_file(moved.path / INDEX_NAME, moved.encode(), PUBLIC_MODE)
    return moved


def _move_node(network: LocalNetwork, name: str) -> None:
    path = network.node_path(name) / CONFIG_NAME
    config = load_config(path)
    leader = network.endpoint(LEADER) if config.leader_endpoint else ""
    moved = replace(config, listen=network.endpoint(name), leader_endpoint=leader)
    write_config(path, moved, replace=True)


def _move_profile(network: LocalNetwork, party: Party) -> None:
    path = network.identity_path(party.name)
    profile = replace(IdentityDirectory.open(path).profile, endpoints=(network.endpoint(LEADER),))
    text = render_settings(profile, heading="A participant of the clearing ledger.", base=path)
    replace_file(path / PROFILE_NAME, text.encode(), PUBLIC_MODE)
