"""Starting, stopping and disturbing the nodes of a test network, whatever they run as.

Lives here: the order of steps that the verbs of `clearing testnet` stand for. May not live here: how a process or a
container is handled (processes.py, containers.py), what is carried where (relay.py), printing (cli).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec

from node.config import CONFIG_NAME
from node.errors import SetupError
from node.files import PUBLIC_MODE, replace_file
from node.provision import ENGINE_NAME
from node.sequencer.cometbft.home import remove_sockets
from node.testnet.compose import (
    BITCOIN_NAME,
    CHAIN_NAME,
    COMPOSE_NAME,
    REGULATOR,
    compose_file,
)
from node.testnet.containers import (
    Container,
    compose_down,
    compose_up,
    drop_nothing,
    drop_packets,
    make_image,
)
from node.testnet.faults import Faults, check_node
from node.testnet.funding import start_bitcoin
from node.testnet.layout import LocalNetwork
from node.testnet.processes import NodeProcess, Stoppable, stop_all
from node.testnet.relay import wait_applied
from node.testnet.status import NodeReport, observed

STOP_S = 10.0

CONTAINER_USER = 10_001
"""User and group in the image; of what is mounted where root makes a network."""

LIAR = "tests.network.liar"
"""The lying build of a node: it lies in the repository's tests and is in no package."""


def start_network(
    network: LocalNetwork, seconds: float, done: Callable[[list[NodeReport]], None] | None = None
) -> None:
    """Start what does not run, and wait until the network makes things final; `done` is told each look.

    Raises: SetupError: a node ends, or it takes longer; what was started is stopped again.
    """
    started: list[Stoppable] = []
    try:
        relay, chain = network.relay, network.bitcoin
        if relay is not None and relay.pid() is None:
            started.append(relay)
            relay.start()
            wait_applied(network, Faults.load(network.path).serial)
        if chain is not None and chain.process.pid() is None:
            started.append(chain.process)
            start_chain(network)
        down = [name for name in network.ports if network.process(name).pid() is None]
        started += map(network.process, down)
        if network.bridge is not None:
            _write_compose(network)
            compose_up(network.path, network.bridge)
        else:
            for name in down:
                start_node(network, name)
        with observed(network) as observer:
            observer.wait_ready(seconds, done)
    except BaseException:
        stop_all(started)
        raise


def start_chain(network: LocalNetwork) -> None:
    """Start the network's Bitcoin chain, as the network says it is to be; a new one gets its first blocks.

    Raises: SetupError: it does not start.
    """
    if network.bridge is not None and network.bitcoin is not None:
        _write_compose(network)
        compose_up(network.path, network.bridge, BITCOIN_NAME)
    start_bitcoin(network)


def stop_network(network: LocalNetwork) -> list[str]:
    """Stop every node and what stands beside them; faults end with it. Returns the names of the nodes that ran.

    Of containers nothing is left: no container, no network, no packet rule.
    Raises: SetupError: a node does not stop.
    """
    stopped = stop_all(network.processes(), STOP_S)
    left = [process.name for process in network.processes() if process.pid() is not None]
    if left:
        raise SetupError(f"{', '.join(left)} did not stop: try again")
    if network.bridge is not None:
        drop_nothing(network.bridge)
        if not (network.path / COMPOSE_NAME).exists():
            _write_compose(network)
        compose_down(network.path, network.bridge)
    stop_all(network.all_processes(), STOP_S)
    for name in network.engine_ports:
        # Who was killed has left them.
        remove_sockets(network.node_path(name) / ENGINE_NAME)
    faults = Faults.load(network.path)
    if faults != Faults(faults.serial):
        Faults(faults.serial + 1).save(network.path)
    return stopped


def _write_compose(network: LocalNetwork) -> bool:
    """Write the compose file as faults are now, and give the containers' user what is mounted into them.

    Returns whether it says anything else than before.
    """
    if network.bridge is None:
        raise SetupError(f"the nodes in {network.path} are no containers")
    uid, gid = os.getuid(), os.getgid()
    if not uid:
        # Nothing runs as root in a container, whoever starts it.
        uid = gid = CONTAINER_USER
        mounted = [network.node_path(name) for name in network.ports]
        mounted += [network.path / REGULATOR, network.path / BITCOIN_NAME / CHAIN_NAME]
        for top in mounted:
            for directory, _, files in os.walk(top):
                for path in (directory, *(f"{directory}/{name}" for name in files)):
                    # A running node's engine replaces its files as it likes.
                    with suppress(FileNotFoundError):
                        os.chown(path, uid, gid, follow_symlinks=False)
    text = compose_file(
        network.bridge,
        network.ports,
        user=f"{uid}:{gid}",
        liar=LIAR,
        lies=Faults.load(network.path).lies,
        chain=(network.bitcoin_port, network.bitcoin_block_s) if network.bitcoin_port else None,
    )
    compose = network.path / COMPOSE_NAME
    if compose.exists() and compose.read_bytes() == text:
        return False
    replace_file(compose, text, PUBLIC_MODE)
    return True


def start_node(network: LocalNetwork, name: str) -> NodeProcess | Container:
    """Start a node, as the liar that it is told to be, unless it runs; returns its process or container.

    Raises: SetupError: it cannot be started.
    """
    check_node(name, tuple(network.ports))
    process = network.process(name)
    if isinstance(process, Container):
        if process.pid() is None and network.bridge is not None:
            # What compose has made already starts sooner without it.
            if _write_compose(network) or not process.exists():
                compose_up(network.path, network.bridge, name)
            else:
                process.start()
        return process
    how = Faults.load(network.path).lies.get(name)
    if how:
        config = str((network.node_path(name) / CONFIG_NAME).resolve())
        process = NodeProcess(
            name, process.pid_file, process.log_file, ("-m", LIAR, how, "--config", config)
        )
    process.start()
    return process


def stop_node(network: LocalNetwork, name: str, *, at_once: bool = False) -> bool:
    """Stop a node, or kill it `at_once`; returns whether it ran.

    Raises: SetupError: no such node.
    """
    check_node(name, tuple(network.ports))
    process = network.process(name)
    if process.pid() is None:
        return False
    if at_once:
        process.kill()
    else:
        stop_all([process], STOP_S)
    return True


def pause_node(network: LocalNetwork, name: str, *, paused: bool) -> None:
    """Have a node stand still, or go on.

    Raises: SetupError: no such node, or it does not run.
    """
    check_node(name, tuple(network.ports))
    process = network.process(name)
    if process.pid() is None:
        raise SetupError(f"node {name} does not run: start it first")
    (process.pause if paused else process.resume)()


def set_faults(network: LocalNetwork, faults: Faults) -> None:
    """Bring faults about on the ways between nodes; returns when they are on.

    Raises: SetupError: the network has no relay, or it does not run.
    """
    if network.bridge is not None:
        drop_packets(network.bridge, tuple(network.ports), faults)
        faults.save(network.path)
        return
    if network.relay is None:
        raise SetupError(
            f"the nodes in {network.path} reach each other directly: make the network with `clearing testnet up`"
        )
    faults.save(network.path)
    wait_applied(network, faults.serial)


def partition(network: LocalNetwork, groups: Sequence[Sequence[str]]) -> Faults:
    """Split the network; see Faults.partitioned."""
    faults = Faults.load(network.path).partitioned(groups, tuple(network.ports))
    set_faults(network, faults)
    return faults


def lose(network: LocalNetwork, name: str, percent: int) -> Faults:
    """Have a node's ways lose what they carry; see Faults.losing."""
    faults = Faults.load(network.path).losing(name, percent, tuple(network.ports))
    set_faults(network, faults)
    return faults


def heal(network: LocalNetwork) -> Faults:
    """Open all ways and lose nothing any more."""
    faults = Faults.load(network.path).healed()
    set_faults(network, faults)
    return faults


def lie(network: LocalNetwork, name: str, how: str) -> None:
    """Have a node lie, or be honest again where `how` is ""; it is restarted.

    Raises: SetupError: no such node, or the lying build is not here.
    """
    check_node(name, tuple(network.ports))
    if how and not _has_liar():
        raise SetupError(
            f"this installation holds no node that lies, and must not: it is in the project's tests ({LIAR}); run the "
            "command from the repository"
        )
    if how and network.bridge is not None:
        make_image("liar")
    faults = Faults.load(network.path).lying(name, how)
    stop_node(network, name)
    faults.save(network.path)
    start_node(network, name)


def _has_liar() -> bool:
    try:
        return find_spec(LIAR) is not None
    except ModuleNotFoundError:
        return False
