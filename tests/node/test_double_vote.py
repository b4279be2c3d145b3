"""A validator that votes twice, under the real consensus engine: what every operator makes of it.

The votes are made here, with the validator's own key; the engine's RPC takes the evidence, verifies it
and gossips it. Two engines that vote by themselves with one key: tests/network/twin.py.
"""

from __future__ import annotations

import base64
import datetime as dt
import http.client
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from clearing.consensus import encoding
from clearing.consensus.commit import BlockId, chain_id
from clearing.consensus.validators import address_of
from clearing.records.leaves import LeafKind, MisbehaviourLeaf, body_hash, leaf_kind
from clearing.records.misbehaviour import Misbehaviour, MisbehaviourKind
from node.client import Obligation
from node.sequencer.cometbft.home import sockets_of
from node.sequencer.cometbft.rpc import EngineRpc
from node.services.facade import NodeCondition
from tests.node.operators_kit import NAMES, OperatorsNetwork, engine_program, make_operators
from tests.node.test_operators import agree, status, until

pytestmark = pytest.mark.slow

ONE = [Obligation("p01", "p02", "BTC", amount_units=7)]
CULPRIT = "operator-2"
PREVOTE = 1


@pytest.fixture
def network(tmp_path: Path) -> Iterator[OperatorsNetwork]:
    program = engine_program()
    network = make_operators(tmp_path / "net")
    old = os.environ["PATH"]
    os.environ["PATH"] = f"{program.parent}{os.pathsep}{old}"
    processes = [network.process(name) for name in NAMES]
    try:
        for process in processes:
            process.start()
        yield network
    finally:
        os.environ["PATH"] = old
        for process in processes:
            pid = process.pid()
            if pid is not None:
                os.kill(pid, signal.SIGTERM)
        until("all stopped", lambda: not any(process.pid() for process in processes))


class _Engine(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self._path))


def broadcast_evidence(network: OperatorsNetwork, name: str, value: dict[str, Any]) -> Any:
    """Hand evidence to the engine of `name` and return its whole answer."""
    evidence = {"type": "tendermint/DuplicateVoteEvidence", "value": value}
    call = {"jsonrpc": "2.0", "id": 1, "method": "broadcast_evidence"}
    engine = _Engine(sockets_of(network.engine_path(name)).rpc)
    try:
        body = json.dumps(call | {"params": {"evidence": evidence}})
        engine.request("POST", "/", body, {"Content-Type": "application/json"})
        return json.loads(engine.getresponse().read())
    finally:
        engine.close()


def prevote(key: Ed25519PrivateKey, chain: str, height: int, index: int, block: int) -> Any:
    """Return a signed prevote for an invented block, as the engine's JSON."""
    block_id = BlockId(bytes([block]) * 32, 1, bytes([block]) * 32)
    seconds = 1_700_000_000
    signed = (
        encoding.integer(1, PREVOTE)
        + encoding.fixed64(2, height)
        + encoding.message(4, block_id.encode())
        + encoding.message(5, encoding.timestamp(seconds, 0))
        + encoding.text(6, chain.encode())
    )
    signature = key.sign(encoding.varint(len(signed)) + signed)
    return {
        "type": PREVOTE,
        "height": str(height),
        "round": 0,
        "block_id": {
            "hash": block_id.hash.hex().upper(),
            "parts": {"total": 1, "hash": block_id.parts_hash.hex().upper()},
        },
        "timestamp": "2023-11-14T22:13:20Z",
        "validator_address": address_of(key.public_key().public_bytes_raw()).hex().upper(),
        "validator_index": index,
        "signature": base64.b64encode(signature).decode(),
    }


def misbehaviour_leaves(network: OperatorsNetwork, name: str) -> list[MisbehaviourLeaf]:
    with network.client("central-bank", name) as client:
        leaves = list(client.leaves())
    return [
        MisbehaviourLeaf.decode(leaf) for leaf in leaves if leaf_kind(leaf) is LeafKind.MISBEHAVIOUR
    ]


def milliseconds(time: str) -> int:
    """Return the milliseconds since 1970 of the engine's RFC 3339 time, rounded down."""
    whole, _, fraction = time.rstrip("Z").partition(".")
    seconds = int(dt.datetime.fromisoformat(whole + "+00:00").timestamp())
    return seconds * 1000 + int(fraction.ljust(3, "0")[:3])


def test_a_validator_that_signs_two_votes_of_one_height_is_recorded_and_suspended_by_all(
    network: OperatorsNetwork,
) -> None:
    with network.client("p01") as client:
        client.submit(ONE)
    until("one head", lambda: agree(network, *NAMES))
    file = network.engine_path(CULPRIT) / "config" / "priv_validator_key.json"
    secret = base64.b64decode(json.loads(file.read_text())["priv_key"]["value"])
    key = Ed25519PrivateKey.from_private_bytes(secret[:32])
    address = address_of(key.public_key().public_bytes_raw())
    rpc = EngineRpc(sockets_of(network.engine_path("ministry")).rpc)
    try:
        height = rpc.status().height
        time = rpc.commit(height)["header"]["time"]
        addresses = [bytes.fromhex(one["address"]) for one in rpc.validators(height)]
    finally:
        rpc.close()
    place = (chain_id(network.network_id), height, addresses.index(address))
    evidence = {
        "vote_a": prevote(key, *place, block=1),
        "vote_b": prevote(key, *place, block=2),
        "TotalVotingPower": "40",
        "ValidatorPower": "10",
        "Timestamp": time,
    }

    # A vote that another key signed accuses nobody: the engine verifies what it is handed.
    stranger = prevote(Ed25519PrivateKey.generate(), *place, block=2)
    forged = evidence["vote_b"] | {"signature": stranger["signature"]}
    refused = broadcast_evidence(network, "ministry", evidence | {"vote_b": forged})
    assert "invalid signature" in json.dumps(refused["error"])
    with network.client("p01") as client:
        client.submit(ONE)
    assert misbehaviour_leaves(network, "ministry") == []

    taken = broadcast_evidence(network, "ministry", evidence)
    assert "error" not in taken, taken
    culprit = network.number(CULPRIT)

    def is_recorded() -> bool:
        # The engine makes no block for evidence alone.
        with network.client("p01") as client:
            client.submit(ONE)
        return bool(misbehaviour_leaves(network, "ministry"))

    until("it is in a block", is_recorded)
    until("one head", lambda: agree(network, *NAMES))
    body = Misbehaviour(
        MisbehaviourKind.DUPLICATE_VOTE, address, height, milliseconds(time), 10, 40
    ).encode()
    for name in NAMES:
        assert misbehaviour_leaves(network, name) == [
            MisbehaviourLeaf(culprit, height, body_hash(body))
        ]
        with network.client("p01", name) as client:
            appointed = client.registry().appointed
        # The four stay in force, for four are the least; the licence is for the authorities to take.
        assert [one.participant for one in appointed if one.suspended] == [culprit]

    # The network goes on, with every operator, and the same evidence is not recorded twice.
    broadcast_evidence(network, "operator-1", evidence)
    for name in NAMES:
        with network.client("p01", name) as client:
            (recorded,) = client.submit(ONE)
            _, proven = client.receipt(recorded.index, item=0)
            assert CULPRIT not in proven.cosigned_s
    until("one head again", lambda: agree(network, *NAMES))
    assert {status(network, name).condition for name in NAMES} == {NodeCondition.SERVING}
    assert len(misbehaviour_leaves(network, "ministry")) == 1
