"""A test network's processes for benchmarks, and raw clients of it.

Lives here: starting and stopping, channels with mutual TLS. May not live here: timing.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from benchmarks.workload import Author
from clearing.log import merkle
from clearing.log.policy import Policy
from node.client.session import aio_channel
from node.files import PUBLIC_MODE, replace_file
from node.profile import IdentityDirectory
from node.provision import DATA_NAME, POLICY_NAME
from node.store import Store
from node.testnet.layout import LocalNetwork
from node.testnet.make import make_network
from node.testnet.plan import AUTHORITIES, LEADER, numbered_parties
from node.testnet.processes import stop_all
from node.testnet.status import observed

START_S_MAX = 60


@contextmanager
def running(participants: int, *, alone: bool) -> Iterator[tuple[LocalNetwork, bytes]]:
    """Run a network in a temporary directory, and give it with its id.

    alone: the leader only, final by its own signature; else all five nodes.
    """
    with tempfile.TemporaryDirectory() as name:
        parties = numbered_parties(participants)
        network = make_network(Path(name) / "network", parties, has_chain=False)
        processes = network.processes()
        if alone:
            finalise_alone(network)
            processes = [network.process(LEADER)]
        chain_id = network_id(network)
        try:
            for process in processes:
                process.start()
            wait_serving(network, alone=alone)
            yield network, chain_id
        finally:
            stop_all(processes)


def finalise_alone(network: LocalNetwork) -> None:
    """Replace the leader's policy: its own cosignature suffices, so that it needs no followers."""
    policy = Policy.parse(network.policy_path.read_bytes())
    own = tuple(witness for witness in policy.witnesses if witness.name == LEADER)
    alone = Policy(policy.logs, own, (), LEADER).encode()
    replace_file(network.node_path(LEADER) / POLICY_NAME, alone, PUBLIC_MODE)


def wait_serving(network: LocalNetwork, *, alone: bool) -> None:
    """Wait until the network serves, or its leader does where it runs alone."""
    with observed(network) as observer:
        if not alone:
            observer.wait_ready(START_S_MAX)
            return
        until = time.monotonic() + START_S_MAX
        while not observer.node(LEADER).is_healthy:
            if network.process(LEADER).pid() is None or time.monotonic() > until:
                print(network.process(LEADER).log_file.read_text()[-2000:])
                raise TimeoutError(f"the leader is not ready after {START_S_MAX} s")
            time.sleep(0.1)


def leader_cpu_seconds(network: LocalNetwork) -> float:
    """Return what the leader's process has computed since its start; the leader must run, on Linux."""
    pid = network.process(LEADER).pid()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def network_id(network: LocalNetwork) -> bytes:
    """Return the network's id, the leaf hash of its GENESIS leaf; the leader must not run."""
    with Store.open(network.node_path(LEADER) / DATA_NAME) as store:
        return merkle.leaf_hash(store.leaf(0))


def channel_of(network: LocalNetwork, name: str) -> grpc.aio.Channel:
    """Return a channel to the leader as party `name`."""
    identity = IdentityDirectory.open(network.identity_path(name))
    return aio_channel(identity.tls, network.endpoint(LEADER))


def author_of(network: LocalNetwork, name: str, network_id: bytes) -> Author:
    """Return the author of party `name`, signing with its registered key."""
    identity = IdentityDirectory.open(network.identity_path(name))
    return Author(network_id, sign_as=identity.signing_key().sign)


def number_of(name: str) -> int:
    """Return the registry number of participant p01, p02, ..."""
    return len(AUTHORITIES) + int(name[1:]) - 1
