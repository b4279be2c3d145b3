"""What a client meets at followers: reads where they are held, redirection where they are not, the same proofs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from clearing.errors import RejectCode
from node.client import CallError, Client, NotFoundError, Obligation, RejectedError
from node.profile import IdentityDirectory
from node.services.facade import NodeCondition, NodeKind
from node.testnet.layout import LocalNetwork
from tests.node.network_kit import new_network, running

NODES = ("central-bank", "ministry", "p01")


def client_at(network: LocalNetwork, name: str, *nodes: str) -> Client:
    """Return a client of a party that knows these nodes, in this order, and shares its memory with no other."""
    identity = IdentityDirectory.open(network.identity_path(name))
    endpoints = [network.endpoint(node) for node in nodes]
    state_dir = network.identity_path(name) / f"client-{'-'.join(nodes)}"
    return Client(identity, endpoints=endpoints, state_dir=state_dir)


def at_a_full_replica(network: LocalNetwork) -> None:
    """Write through a follower, read from it."""
    with (
        client_at(network, "p02", "ministry") as p02,
        client_at(network, "p03", "central-bank") as p03,
    ):
        # A write is sent on to the leader, and the client stays there.
        (recorded,) = p02.submit([Obligation("p02", "p03", "BTC", 41)])
        affirmed = p03.affirm(recorded.index)
    with client_at(network, "p02", "ministry") as p02:
        # A follower may be a block behind: what one has seen recorded, one waits for.
        next(head for head in p02.watch() if head.size > affirmed.index)
        receipt, verified = p02.receipt(recorded.index, 0)
        assert verified.item is not None
        assert receipt.startswith(b"c2sp.org/tlog-proof@v1\n")
        assert set(verified.cosigned_s) == set(NODES)
        (row,) = p02.obligations()
        assert (row.submission, row.amount_units) == (recorded.index, 41)
        _, position = p02.position_proof(row.debtor, row.asset)
        assert position.position is not None
        assert position.position.payable == 41
        found = p02.request(recorded.client_id)
        assert found is not None
        assert found.index == recorded.index
        with pytest.raises(NotFoundError):
            p02.cycle(9)
    with client_at(network, "ministry", "ministry") as ministry:
        status = ministry.status()
        assert (status.kind, status.condition) == (NodeKind.FULL_REPLICA, NodeCondition.SERVING)
        assert status.leader_endpoint == network.endpoint("central-bank")
        assert len(ministry.obligations(everyone=True)) == 1


def at_a_witness(network: LocalNetwork) -> None:
    """Read heads and leaves from a witness; state is asked of the leader."""
    with client_at(network, "p01", "p01") as p01:
        head = p01.checkpoint()
        leaves = list(p01.leaves())
        assert len(leaves) >= head.size
        assert p01.status().kind is NodeKind.WITNESS_REPLICA
        assert p01.registry().by_name("p01") is not None
        # Rows are at the leader; the client is sent there.
        assert p01.positions() == ()
        with pytest.raises(RejectedError) as caught:
            p01.affirm(0)
        assert caught.value.code is RejectCode.UNKNOWN_SUBMISSION
    # What a dead node in the list costs is a moment.
    with client_at(network, "p01", "p03", "p01") as p01:
        assert p01.checkpoint().size >= head.size
    # A supervisor's rights are the same everywhere, a stranger's too.
    with client_at(network, "p02", "p01") as p02, pytest.raises(CallError):
        p02.status()


def test_clients_at_followers(tmp_path: Path) -> None:
    network = new_network(tmp_path / "net")

    async def flow() -> None:
        async with running(network, *NODES):
            await asyncio.to_thread(at_a_full_replica, network)
            await asyncio.to_thread(at_a_witness, network)

    asyncio.run(flow())
