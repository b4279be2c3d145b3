"""The full matrix of rights over a real server: RPC x caller, and own, another's and nobody's data.

The expectations are written out here, caller by caller, and not computed from the table that is under test.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from clearing.identifiers import make_lei
from clearing.position_proof import verify_position_proof
from clearing.receipt import verify_receipt
from clearing.records.instruction import InstructionKind, make_instruction
from clearing.records.submission import make_submission
from node.client import Obligation
from node.client.calls import read_failure
from node.identity import Identity, IdentityKind
from node.pb.v1 import (
    anchor_pb2,
    audit_pb2,
    operator_pb2,
    participant_pb2,
    replication_pb2,
    types_pb2,
)
from tests.ledger_kit import item
from tests.node.services_kit import (
    EXPIRED,
    LEADER,
    NETWORK,
    NUMBERS,
    SUSPENDED,
    SUSPENDED_REGULATOR,
    OneNode,
    lei_of,
)

PARTICIPANTS = tuple(NUMBERS)
PEER, STRANGE_NODE, UNREGISTERED = "node:central-bank", "node:stranger", "unregistered"
CALLERS = (*PARTICIPANTS, PEER, STRANGE_NODE, UNREGISTERED)
SUPERVISORS = {LEADER, "ministry", "regulator"}
OPERATORS = SUPERVISORS | {"operator"}
EVERY_PARTICIPANT = set(PARTICIPANTS)
EVERY_CERTIFICATE = EVERY_PARTICIPANT | {PEER, STRANGE_NODE}

ADMITTED: dict[str, set[str]] = {
    "ParticipantService/Submit": EVERY_PARTICIPANT,
    "ParticipantService/Instruct": EVERY_PARTICIPANT,
    "ParticipantService/GetRequest": EVERY_PARTICIPANT,
    "ParticipantService/ListObligations": EVERY_PARTICIPANT,
    "ParticipantService/ListPositions": EVERY_PARTICIPANT,
    "ParticipantService/ListInstructions": EVERY_PARTICIPANT,
    "ParticipantService/ListCycles": EVERY_PARTICIPANT,
    "ParticipantService/GetCycle": EVERY_PARTICIPANT,
    "ParticipantService/ListUnsettled": EVERY_PARTICIPANT,
    "ParticipantService/GetReason": EVERY_PARTICIPANT,
    "ParticipantService/GetLeg": EVERY_PARTICIPANT,
    "ParticipantService/ListMinedCoin": EVERY_PARTICIPANT,
    "ParticipantService/GetReceipt": EVERY_PARTICIPANT,
    "ParticipantService/WatchCheckpoints": EVERY_PARTICIPANT,
    "AuditService/GetCheckpoint": EVERY_PARTICIPANT,
    "AuditService/GetInclusionProof": EVERY_PARTICIPANT,
    "AuditService/GetConsistencyProof": EVERY_PARTICIPANT,
    "AuditService/GetLeaves": EVERY_PARTICIPANT,
    # The empty request asks for participant 0, the central bank.
    "AuditService/GetPositionProof": SUPERVISORS,
    "AuditService/GetRegistry": EVERY_PARTICIPANT,
    "AuditService/GetBlockCommit": EVERY_PARTICIPANT,
    "AuditService/ListProposals": EVERY_PARTICIPANT,
    "AuditService/QueryObligations": SUPERVISORS,
    "AuditService/QueryPositions": SUPERVISORS,
    "AuditService/QueryInstructions": SUPERVISORS,
    "AuditService/QueryCycle": SUPERVISORS,
    "AuditService/QueryUnsettled": SUPERVISORS,
    "AuditService/QueryReason": SUPERVISORS,
    "AnchorService/ListAnchors": EVERY_PARTICIPANT,
    "AnchorService/GetAnchorProofs": EVERY_PARTICIPANT,
    "AnchorService/GetBitcoinHeaders": EVERY_PARTICIPANT,
    "AnchorService/GetAnchoringStatus": OPERATORS,
    "AnchorService/AnchorNow": OPERATORS,
    "OperatorService/GetStatus": OPERATORS,
    "ReplicationService/StreamBlocks": {PEER},
    "ReplicationService/AddCosignature": {PEER},
    "ReplicationService/GetHead": {PEER},
}
METHODS = {
    f"{service.name}/{method.name}": method
    for file in (participant_pb2, audit_pb2, anchor_pb2, operator_pb2, replication_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


class World:
    """A network with a little history: what p01, SUSPENDED and EXPIRED did before two of them lost their licence.

    shared: submission of p01 that names p02 (item 0) and SUSPENDED (item 1); lapsed: one of EXPIRED with p02.
    """

    def __init__(self, network: OneNode) -> None:
        self.network = network
        self.channels: dict[str, grpc.Channel] = {}
        with network.client("p01") as p01, network.client("p02") as p02:
            made = [Obligation("p01", "p02", "BTC", 100), Obligation(SUSPENDED, "p01", "ETH", 7)]
            (self.recorded,) = p01.submit(made)
            self.shared = self.recorded.index
            with network.client(SUSPENDED) as suspended, network.client(EXPIRED) as expired:
                (recorded,) = expired.submit([Obligation(EXPIRED, "p02", "BTC", 9)])
                self.lapsed = recorded.index
                self.affirmed = p02.affirm(self.shared).index
                suspended.affirm(self.shared)
                p02.affirm(self.lapsed)
            with network.client(LEADER) as central_bank:
                central_bank.run_cycle()
            network.retire()
            p01.checkpoint()

    def channel(self, caller: str) -> grpc.Channel:
        channel = self.channels.get(caller)
        if channel is None:
            channel = self.channels[caller] = self._channel(caller)
        return channel

    def _channel(self, caller: str) -> grpc.Channel:
        if caller.startswith("node:"):
            return self.network.node_channel(caller.removeprefix("node:"))
        if caller == UNREGISTERED:
            lei = make_lei("TEST00000000000999")
            return self.network.channel_of(Identity(NETWORK, IdentityKind.PARTICIPANT, lei))
        return self.network.channel(caller)

    def call(self, caller: str, name: str, request: Any = None) -> Any:
        """Return the first answer of a call."""
        method = METHODS[name]
        if request is None:
            request = GetMessageClass(method.input_type)()
        channel = self.channel(caller)
        make = channel.unary_stream if method.server_streaming else channel.unary_unary
        stub = make(
            f"/clearing.v1.{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        answer = stub(request, timeout=20)
        if not method.server_streaming:
            return answer
        first = next(answer, None)
        answer.cancel()
        return first

    def outcome(self, caller: str, name: str, request: Any = None) -> str:
        """Return "" for an answer, else the reason of the refusal."""
        try:
            self.call(caller, name, request)
        except grpc.RpcError as error:
            status, _, fault = read_failure(error)
            return status.name if fault is None else fault.reason
        return ""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with OneNode(tmp_path_factory.mktemp("net")) as network:
        made = World(network)
        yield made
        for channel in made.channels.values():
            channel.close()


def test_the_matrix_has_a_row_for_every_rpc() -> None:
    assert set(ADMITTED) == set(METHODS)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("name", sorted(METHODS))
def test_who_is_admitted(world: World, name: str, caller: str) -> None:
    outcome = world.outcome(caller, name)
    if caller in ADMITTED[name]:
        assert outcome not in ("NOT_AUTHORISED", "UNAUTHENTICATED", "INTERNAL", "UNKNOWN")
    elif caller == UNREGISTERED:
        assert outcome == "UNAUTHENTICATED"
    else:
        assert outcome == "NOT_AUTHORISED"


@pytest.mark.parametrize("caller", CALLERS)
def test_health_is_for_every_certificate_of_the_network(world: World, caller: str) -> None:
    check = world.channel(caller).unary_unary("/grpc.health.v1.Health/Check")
    if caller in EVERY_CERTIFICATE:
        assert check(b"", timeout=20) == b"\x08\x01"
    else:
        with pytest.raises(grpc.RpcError) as caught:
            check(b"", timeout=20)
        assert read_failure(caught.value)[0] is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("caller", [*PARTICIPANTS, PEER, UNREGISTERED])
def test_what_is_not_served_is_unimplemented(world: World, caller: str) -> None:
    missing = world.channel(caller).unary_unary("/clearing.v1.AuditService/DropTables")
    with pytest.raises(grpc.RpcError) as caught:
        missing(b"", timeout=20)
    assert read_failure(caught.value)[0] is grpc.StatusCode.UNIMPLEMENTED


# -- own, another's, nobody's


def receipt_request(index: int, number: int | None) -> participant_pb2.GetReceiptRequest:
    request = participant_pb2.GetReceiptRequest(log_index=index)
    if number is not None:
        request.item = number
    return request


RECEIPTS: tuple[tuple[str, int | None, set[str]], ...] = (
    ("shared", 0, {"p01", "p02"}),
    ("shared", 1, {"p01", SUSPENDED}),
    ("shared", None, {"p01"}),
    ("shared", 2, set()),
    ("lapsed", 0, {EXPIRED, "p02"}),
    ("affirmed", None, {"p02"}),
    ("affirmed", 0, set()),
)


@pytest.mark.parametrize(("what", "number", "parties"), RECEIPTS)
@pytest.mark.parametrize("caller", PARTICIPANTS)
def test_receipts_are_for_parties(
    world: World, what: str, number: int | None, parties: set[str], caller: str
) -> None:
    index = getattr(world, what)
    request = receipt_request(index, number)
    exists = bool(parties)
    if exists and (caller in parties or caller in SUPERVISORS):
        text = world.call(caller, "ParticipantService/GetReceipt", request).receipt
        verified = verify_receipt(text.encode(), world.network.policy)
        assert verified.index == index
        assert (verified.item.number if verified.item else None) == number
    else:
        assert world.outcome(caller, "ParticipantService/GetReceipt", request) == "NOT_FOUND"


@pytest.mark.parametrize("index", [0, 1, 10_000, (1 << 64) - 1])
@pytest.mark.parametrize("caller", ["p01", LEADER])
def test_there_is_no_receipt_of_what_is_nobodys(world: World, index: int, caller: str) -> None:
    for number in (None, 0):
        request = receipt_request(index, number)
        assert world.outcome(caller, "ParticipantService/GetReceipt", request) == "NOT_FOUND"


@pytest.mark.parametrize("caller", PARTICIPANTS)
@pytest.mark.parametrize("owner", ["p01", "p03", SUSPENDED, "nobody"])
@pytest.mark.parametrize("asset", [0, 1, 9])
def test_position_proofs_are_for_the_owner(
    world: World, caller: str, owner: str, asset: int
) -> None:
    number = NUMBERS.get(owner, 10_000)
    request = audit_pb2.GetPositionProofRequest(participant=number, asset=asset)
    name = "AuditService/GetPositionProof"
    if caller != owner and caller not in SUPERVISORS:
        assert world.outcome(caller, name, request) == "NOT_AUTHORISED"
    elif owner == "nobody" or asset == 9:
        assert world.outcome(caller, name, request) == "NOT_FOUND"
    else:
        proof = world.call(caller, name, request).proof.encode()
        verified = verify_position_proof(proof, world.network.policy)
        assert (verified.participant, verified.asset) == (number, asset)
        touched = {("p01", 0), ("p01", 1), (SUSPENDED, 1)}
        assert (verified.position is not None) == ((owner, asset) in touched)


@pytest.mark.parametrize("caller", PARTICIPANTS)
def test_obligations_listed_name_the_caller(world: World, caller: str) -> None:
    rows = world.call(caller, "ParticipantService/ListObligations").obligations
    mine = NUMBERS[caller]
    assert all(mine in (row.debtor, row.creditor) for row in rows)
    counts = {"p01": 2, "p02": 2, SUSPENDED: 1, EXPIRED: 1}
    assert len(rows) == counts.get(caller, 0)


@pytest.mark.parametrize("caller", PARTICIPANTS)
def test_filters_reach_nobody_elses_obligations(world: World, caller: str) -> None:
    request = participant_pb2.ListObligationsRequest(submission=world.shared)
    rows = world.call(caller, "ParticipantService/ListObligations", request).obligations
    expected = {"p01": [0, 1], "p02": [0], SUSPENDED: [1]}
    assert [row.item for row in rows] == expected.get(caller, [])
    request = participant_pb2.ListObligationsRequest(counterparty=NUMBERS["p02"])
    rows = world.call(caller, "ParticipantService/ListObligations", request).obligations
    expected_counts = {"p01": 1, "p02": 2, EXPIRED: 1}
    assert len(rows) == expected_counts.get(caller, 0)


@pytest.mark.parametrize("caller", PARTICIPANTS)
def test_positions_and_cycle_positions_listed_are_the_callers(world: World, caller: str) -> None:
    mine = {NUMBERS[caller]}
    positions = world.call(caller, "ParticipantService/ListPositions").positions
    assert {row.participant for row in positions} <= mine
    request = participant_pb2.GetCycleRequest(cycle=1)
    cycle = world.call(caller, "ParticipantService/GetCycle", request)
    shown = [row.participant for asset in cycle.assets for row in asset.positions]
    assert set(shown) <= mine
    counts = {"p01": 2, "p02": 1, SUSPENDED: 1, EXPIRED: 1}
    assert (len(positions), len(shown)) == (counts.get(caller, 0), counts.get(caller, 0))
    assert [asset.obligations for asset in cycle.assets] == [2, 1]
    nobody = participant_pb2.GetCycleRequest(cycle=99)
    assert world.outcome(caller, "ParticipantService/GetCycle", nobody) == "NOT_FOUND"


@pytest.mark.parametrize("caller", PARTICIPANTS)
def test_settlement_instructions_listed_are_the_callers_or_the_agents(
    world: World, caller: str
) -> None:
    rows = world.call(caller, "ParticipantService/ListInstructions").instructions
    if caller == LEADER:
        assert len({row.participant for row in rows}) > 1
    else:
        assert {row.participant for row in rows} <= {NUMBERS[caller]}


@pytest.mark.parametrize("caller", sorted(SUPERVISORS))
def test_supervisors_see_everybodys(world: World, caller: str) -> None:
    obligations = world.call(caller, "AuditService/QueryObligations").obligations
    assert [(row.submission, row.item) for row in obligations] == [
        (world.shared, 0), (world.shared, 1), (world.lapsed, 0)
    ]  # fmt: skip
    positions = world.call(caller, "AuditService/QueryPositions").positions
    parties = {NUMBERS[name] for name in ("p01", "p02", SUSPENDED, EXPIRED)}
    assert {row.participant for row in positions} == parties
    rows = world.call(caller, "AuditService/QueryInstructions").instructions
    assert {row.participant for row in rows} == parties
    cycle = world.call(caller, "AuditService/QueryCycle", audit_pb2.QueryCycleRequest(cycle=1))
    assert {row.participant for asset in cycle.assets for row in asset.positions} == parties
    request = audit_pb2.QueryObligationsRequest(participant=NUMBERS[EXPIRED])
    one = world.call(caller, "AuditService/QueryObligations", request).obligations
    assert [row.submission for row in one] == [world.lapsed]


@pytest.mark.parametrize("caller", PARTICIPANTS)
def test_requests_are_known_to_who_made_them(world: World, caller: str) -> None:
    name = "ParticipantService/GetRequest"
    request = participant_pb2.GetRequestRequest(client_id=world.recorded.client_id)
    receipt = world.call(caller, name, request).receipt
    if caller == "p01":
        assert (receipt.log_index, receipt.items) == (world.shared, 2)
        assert receipt.state == types_pb2.REQUEST_STATE_CHECKPOINTED
    else:
        assert receipt.state == types_pb2.REQUEST_STATE_UNKNOWN
        assert receipt.log_index == 0
    nobody = participant_pb2.GetRequestRequest(client_id=bytes(16))
    assert world.call(caller, name, nobody).receipt.state == types_pb2.REQUEST_STATE_UNKNOWN


def test_a_page_token_gives_another_caller_nothing(world: World) -> None:
    name = "ParticipantService/ListObligations"
    first = world.call("p01", name, participant_pb2.ListObligationsRequest(page_size=1))
    assert len(first.obligations) == 1
    request = participant_pb2.ListObligationsRequest(page_size=1, page_token=first.next_page_token)
    assert world.outcome("p02", name, request) == "BAD_PAGE"
    assert [row.item for row in world.call("p01", name, request).obligations] == [1]
    other = participant_pb2.ListObligationsRequest(page_token=first.next_page_token, asset=1)
    assert world.outcome("p01", name, other) == "BAD_PAGE"


def test_status_is_for_who_runs_the_node(world: World) -> None:
    status = world.call(LEADER, "OperatorService/GetStatus")
    assert (status.name, status.lei) == (LEADER, lei_of(LEADER))
    assert status.condition == operator_pb2.NODE_CONDITION_SERVING


# -- writing; last, because it adds to what the tests above have counted


def signed(world: World, signer: str, actor: int, kind: str) -> Any:
    """Return a transaction that claims to be by `actor`, signed with `signer`'s key."""
    key = world.network.identity(signer).signing_key()
    common: dict[str, Any] = {
        "network_id": world.network.network_id, "client_id": kind.encode().ljust(16), "sign": key.sign
    }  # fmt: skip
    if kind == "Submit":
        made = make_submission(
            submitter=actor, secret=b"\x02" * 32, records=item(actor, NUMBERS["p02"], 1), **common
        )
        return participant_pb2.SubmitRequest(transaction=made.encode())
    instruction = make_instruction(
        kind=InstructionKind.RUN_CYCLE, actor=actor, salt=b"\x03" * 16, payload=b"", **common
    )
    return participant_pb2.InstructRequest(transaction=instruction.encode())


REFUSED_BY_RULE = {
    ("Submit", "ministry"): "ROLE_NOT_ALLOWED",
    ("Submit", "regulator"): "ROLE_NOT_ALLOWED",
    ("Submit", "operator"): "ROLE_NOT_ALLOWED",
    ("Submit", SUSPENDED): "NOT_LICENSED",
    ("Submit", EXPIRED): "NOT_LICENSED",
    ("Submit", SUSPENDED_REGULATOR): "NOT_LICENSED",
    ("Submit", "p02"): "SAME_PARTY",
    ("Instruct", LEADER): "NOTHING_TO_NET",
    ("Instruct", "operator"): "NOTHING_TO_NET",
    ("Instruct", SUSPENDED): "NOT_LICENSED",
    ("Instruct", EXPIRED): "NOT_LICENSED",
    ("Instruct", SUSPENDED_REGULATOR): "NOT_LICENSED",
}


@pytest.mark.parametrize("kind", ["Submit", "Instruct"])
@pytest.mark.parametrize("caller", PARTICIPANTS)
def test_transactions_are_taken_from_their_signer_only(
    world: World, kind: str, caller: str
) -> None:
    name, own = f"ParticipantService/{kind}", NUMBERS[caller]
    # In one's own name: the ledger's rules decide.
    expected = REFUSED_BY_RULE.get((kind, caller), "" if kind == "Submit" else "ROLE_NOT_ALLOWED")
    assert world.outcome(caller, name, signed(world, caller, own, kind)) == expected
    # Another's signed transaction, seen somewhere and played in again.
    other = "p03" if caller != "p03" else "p04"
    foreign = signed(world, other, NUMBERS[other], kind)
    assert world.outcome(caller, name, foreign) == "NOT_AUTHORISED"
    # In another's name, with one's own key.
    assert world.outcome(caller, name, signed(world, caller, NUMBERS[other], kind)) == "NOT_AUTHORISED"  # fmt: skip
    # In nobody's name.
    assert world.outcome(caller, name, signed(world, caller, 10_000, kind)) == "NOT_AUTHORISED"
    # In one's own name, with another's key.
    stolen = signed(world, other, own, kind)
    assert world.outcome(caller, name, stolen) == "BAD_SIGNATURE"
