"""The matrix of rights over a real server, for what follows a Bitcoin chain: own, another's and nobody's legs and mined coin.

The expectations are written out here, caller by caller, as in test_matrix.py.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from clearing.errors import RejectCode
from clearing.ledger import Outcome
from clearing.records.instruction import Instruction, InstructionKind, make_instruction
from clearing.rules.legs import Leg
from clearing.rules.mined import Draw
from clearing.rules.registry import Registry
from node.client import Obligation
from node.pb.v1 import participant_pb2
from tests.clearing.bitcoin_net import Bitcoin
from tests.node.services.test_matrix import PARTICIPANTS, SUPERVISORS, World
from tests.node.services_kit import LEADER, NUMBERS, PARTIES, SUSPENDED, OneNode

PAYERS, PAYEES = {"p01", SUSPENDED}, {"p02"}
MINER = "p04"
MINED, USED = 90_000, 40_000


@dataclass(frozen=True)
class _State:
    network_id: bytes
    registry: Registry


class _Live:
    """What tests.clearing.bitcoin_net asks of a ledger, asked of a running node."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.roles = PARTIES
        with world.network.client(LEADER) as central_bank:
            self.state = _State(world.network.network_id, central_bank.registry())

    @staticmethod
    def fresh(_what: str, size: int) -> bytes:
        return secrets.token_bytes(size)

    def instruction(self, kind: InstructionKind, actor: int, payload: bytes) -> Instruction:
        return make_instruction(
            network_id=self.state.network_id,
            kind=kind,
            actor=actor,
            client_id=self.fresh("client", 16),
            salt=self.fresh("salt", 16),
            payload=payload,
            sign=self._world.network.identity(PARTIES[actor][0]).signing_key().sign,
        )

    def one(self, instruction: Instruction) -> Outcome:
        request = participant_pb2.InstructRequest(transaction=instruction.encode())
        name = "ParticipantService/Instruct"
        answer = self._world.call(PARTIES[instruction.actor][0], name, request)
        return Outcome(RejectCode.OK, answer.receipt.log_index)


class BitcoinWorld(World):
    """p01 and SUSPENDED pay p02 by one transaction in cycle 1; p04 has mined coin and uses a part of it."""

    def __init__(self, network: OneNode) -> None:
        self.network = network
        self.channels = {}
        live: Any = _Live(self)
        chain = Bitcoin(live)
        for name in (*sorted(PAYERS), *PAYEES):
            chain.script(NUMBERS[name])
        self.batch = chain.counted(MINED)
        owed = [Obligation("p01", "p02", "BTC", 70_000), Obligation(SUSPENDED, "p02", "BTC", 9_000)]
        with network.client("p01") as p01, network.client("p02") as p02:
            self._affirm(p01, p02, owed[:1])
            with network.client(SUSPENDED) as suspended, network.client(MINER) as miner:
                self._affirm(suspended, p02, owed[1:])
                with network.client(LEADER) as central_bank:
                    central_bank.run_cycle()
                mined = Obligation(MINER, "p01", "BTC", USED, mined_coin=True)
                self._affirm(miner, p01, [mined])
        network.retire()

    @staticmethod
    def _affirm(submitter: Any, other: Any, owed: list[Obligation]) -> None:
        (recorded,) = submitter.submit(owed)
        other.affirm(recorded.index)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BitcoinWorld]:
    with OneNode(tmp_path_factory.mktemp("net")) as network:
        made = BitcoinWorld(network)
        yield made
        for channel in made.channels.values():
            channel.close()


@pytest.mark.parametrize("caller", PARTICIPANTS)
def test_a_leg_is_for_its_parties_and_supervisors(world: BitcoinWorld, caller: str) -> None:
    request = participant_pb2.GetLegRequest(cycle=1)
    if caller not in PAYERS | PAYEES | SUPERVISORS:
        assert world.outcome(caller, "ParticipantService/GetLeg", request) == "NOT_FOUND"
        return
    # Who signs a transaction must see all of it.
    answer = world.call(caller, "ParticipantService/GetLeg", request)
    assert Leg.decode(answer.leg).asset == 0
    payers = {(row.participant, row.debit_sat) for row in answer.payers}
    assert payers == {(NUMBERS["p01"], "70000"), (NUMBERS[SUSPENDED], "9000")}
    assert [(row.participant, row.amount_sat) for row in answer.payees] == [
        (NUMBERS["p02"], "79000")
    ]


@pytest.mark.parametrize("cycle", [0, 2, (1 << 32) - 1])
@pytest.mark.parametrize("caller", ["p01", LEADER])
def test_there_is_no_leg_of_what_is_nobodys(world: BitcoinWorld, cycle: int, caller: str) -> None:
    request = participant_pb2.GetLegRequest(cycle=cycle)
    assert world.outcome(caller, "ParticipantService/GetLeg", request) == "NOT_FOUND"


@pytest.mark.parametrize("caller", PARTICIPANTS)
def test_mined_coin_is_its_miners_and_supervisors(world: BitcoinWorld, caller: str) -> None:
    answer = world.call(caller, "ParticipantService/ListMinedCoin")
    batches = [(row.miner, row.log_index) for row in answer.batches]
    draws = [Draw.decode(row) for row in answer.draws]
    if caller != MINER and caller not in SUPERVISORS:
        # The creditor too: that it is paid with mined coin stands in its obligation, from whose batch does not.
        assert (batches, draws) == ([], [])
        return
    assert batches == [(NUMBERS[MINER], world.batch)]
    assert [(row.miner, row.amount_units) for row in draws] == [(NUMBERS[MINER], USED)]
