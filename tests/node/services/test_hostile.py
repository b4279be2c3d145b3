"""Hostile clients against a real server: each gets a named answer, and the node serves on as if nothing had been."""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from clearing.params import ITEMS_PER_SUBMISSION_MAX
from clearing.records.instruction import InstructionKind, ItemSelection, make_instruction
from clearing.records.submission import LEAF_BYTES, Submission, make_submission
from node.auth import CALLS_PER_CALLER_MAX, RULES, Rule
from node.client import Client, Obligation, RejectedError
from node.client.calls import read_failure
from node.identity import Identity, IdentityKind
from node.pb.v1 import audit_pb2, operator_pb2, participant_pb2, replication_pb2
from node.pki import Authority, Validity
from node.services.server import MESSAGE_BYTES_MAX
from tests.ledger_kit import item
from tests.node.services_kit import LEADER, NETWORK, NUMBERS, OneNode, lei_of

P01, P02 = NUMBERS["p01"], NUMBERS["p02"]
FILES = (participant_pb2, audit_pb2, operator_pb2, replication_pb2)
METHODS = [
    method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
NAMED = {
    "NOT_HELD",
    "BAD_REQUEST", "BAD_PAGE", "NOT_FOUND", "NOT_AUTHORISED", "MALFORMED", "ROLLBACK",
    "NOT_YET_FINAL", "UNKNOWN_HEAD", "WRONG_NETWORK", "ROLLBACK_DETECTED",
}  # fmt: skip


@pytest.fixture(scope="module")
def channel(network: OneNode) -> Iterator[grpc.Channel]:
    with network.channel("p01") as opened:
        yield opened


@pytest.fixture(scope="module")
def client(network: OneNode) -> Iterator[Client]:
    with network.client("p01") as opened:
        yield opened


@pytest.fixture(autouse=True)
def node_serves_on(network: OneNode, client: Client) -> Iterator[None]:
    """After whatever a test did, the node is well and has noted no incident of its own."""
    yield
    with network.client(LEADER) as central_bank:
        assert central_bank.status().condition.name == "SERVING"
    client.checkpoint()


def outcome(channel: grpc.Channel, method: str, data: bytes, timeout: float = 20) -> str:
    """Send raw bytes and return "" for an answer, else the reason of the refusal."""
    try:
        stub: Any = channel.unary_stream if _streams(method) else channel.unary_unary
        answer = stub(method)(data, timeout=timeout)
        if _streams(method):
            next(answer, None)
            answer.cancel()
    except grpc.RpcError as error:
        status, _, fault = read_failure(error)
        return status.name if fault is None else fault.reason
    return ""


def _streams(method: str) -> bool:
    return method.endswith(("GetLeaves", "WatchCheckpoints", "StreamBlocks"))


def path_of(method: Any) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def submission(network: OneNode, *records: bytes, **changes: Any) -> Submission:
    values: dict[str, Any] = {
        "network_id": network.network_id,
        "submitter": P01,
        "client_id": secrets.token_bytes(16),
        "secret": secrets.token_bytes(32),
        "records": b"".join(records),
        "sign": network.identity("p01").signing_key().sign,
    }
    return make_submission(**(values | changes))


def submit(channel: grpc.Channel, data: bytes) -> str:
    request = participant_pb2.SubmitRequest(transaction=data)
    return outcome(channel, "/clearing.v1.ParticipantService/Submit", request.SerializeToString())


# -- bytes


@pytest.mark.parametrize("over", [1, 1 << 20])
def test_a_message_beyond_the_limit_is_refused(channel: grpc.Channel, over: int) -> None:
    method = "/clearing.v1.ParticipantService/Submit"
    assert outcome(channel, method, bytes(MESSAGE_BYTES_MAX + over)) == "RESOURCE_EXHAUSTED"


def test_the_greatest_submission_is_taken_and_one_item_more_is_not(
    network: OneNode, channel: grpc.Channel
) -> None:
    record = item(P01, P02, 1)
    greatest = submission(network, record * ITEMS_PER_SUBMISSION_MAX)
    assert submit(channel, greatest.encode()) == ""
    assert submit(channel, greatest.encode() + record) == "MALFORMED"


def test_no_cut_or_lengthened_transaction_is_taken(network: OneNode, channel: grpc.Channel) -> None:
    data = submission(network, item(P01, P02, 1)).encode()
    for end in range(len(data)):
        assert submit(channel, data[:end]) == "MALFORMED"
    assert submit(channel, data + b"\0") == "MALFORMED"


def test_no_altered_byte_of_a_transaction_is_taken(
    network: OneNode, channel: grpc.Channel, client: Client
) -> None:
    data = submission(network, item(P01, P02, 1)).encode()
    before = len(client.obligations())
    for at in range(len(data)):
        altered = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        reason = submit(channel, altered)
        assert reason in ("MALFORMED", "BAD_SIGNATURE", "COMMITMENT_MISMATCH", "NOT_AUTHORISED")
        # Past the leaf only the commitment can tell.
        assert at < LEAF_BYTES or reason == "COMMITMENT_MISMATCH"
    assert len(client.obligations()) == before


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_random_bytes_are_no_request(network: OneNode, method: Any) -> None:
    chance = random.Random(method.full_name)
    who = "node" if RULES[path_of(method)] is Rule.NODE else LEADER
    opened = network.node_channel(LEADER) if who == "node" else network.channel(who)
    with opened as channel:
        for _ in range(40):
            data = chance.randbytes(chance.randrange(1, 60))
            reason = outcome(channel, path_of(method), data)
            assert reason == "" or reason in NAMED, reason


EXTREMES = (0, 1, 2, (1 << 32) - 1, (1 << 63), (1 << 64) - 1)


def extreme_request(chance: random.Random, kind: type[Any]) -> Any:
    """Return a message whose fields hold what nobody would send."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        choices: list[Any]
        if field.type == field.TYPE_STRING:
            choices = ["", "x", "é" * 100, "A" * 300]
        elif field.type == field.TYPE_BYTES:
            choices = [b"", b"x", bytes(16), bytes(32), bytes(1000)]
        elif field.type == field.TYPE_BOOL:
            choices = [False, True]
        elif field.type == field.TYPE_ENUM:
            choices = [0, 1, 2, 99, -1]
        else:
            limit = 1 << (32 if field.type == field.TYPE_UINT32 else 64)
            choices = [value for value in EXTREMES if value < limit]
        if field.is_repeated:
            getattr(message, field.name).extend(chance.choices(choices, k=chance.randrange(3)))
        elif chance.random() < 0.8:
            setattr(message, field.name, chance.choice(choices))
    return message


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_extreme_requests_have_named_answers(network: OneNode, method: Any) -> None:
    chance = random.Random(method.full_name)
    is_node = RULES[path_of(method)] is Rule.NODE
    with network.node_channel(LEADER) if is_node else network.channel(LEADER) as channel:
        for _ in range(60):
            request = extreme_request(chance, GetMessageClass(method.input_type))
            # A stream that waits for what never comes is the client's to end.
            timeout = 0.3 if _streams(path_of(method)) else 20
            reason = outcome(channel, path_of(method), request.SerializeToString(), timeout)
            waits = reason == "DEADLINE_EXCEEDED" and _streams(path_of(method))
            assert reason == "" or reason in NAMED or waits, (reason, request)


# -- certificates


def certified(network: OneNode, authority: Authority, **issue: Any) -> grpc.Channel:
    identity = issue.pop("identity", Identity(authority.network, IdentityKind.PARTICIPANT, lei_of("p01")))  # fmt: skip
    issued = authority.issue(identity, issue.pop("validity", Validity.days_from_now(1)))
    credentials = grpc.ssl_channel_credentials(
        network.authority.certificate_pem, issued.key_pem, issued.certificate_pem
    )
    return grpc.secure_channel(network.endpoint, credentials)


CHECKPOINT = "/clearing.v1.AuditService/GetCheckpoint"


def test_without_a_certificate_nothing_is_heard(network: OneNode) -> None:
    trusting = grpc.ssl_channel_credentials(network.authority.certificate_pem)
    with grpc.secure_channel(network.endpoint, trusting) as channel:
        assert outcome(channel, CHECKPOINT, b"") == "UNAVAILABLE"
    with grpc.insecure_channel(network.endpoint) as channel:
        assert outcome(channel, CHECKPOINT, b"") == "UNAVAILABLE"


def test_another_authoritys_certificate_is_refused(network: OneNode, tmp_path: Path) -> None:
    other = Authority.create(tmp_path, NETWORK, Validity.days_from_now(9))
    with certified(network, other) as channel:
        assert outcome(channel, CHECKPOINT, b"") == "UNAVAILABLE"


def test_a_certificate_out_of_date_is_refused(network: OneNode) -> None:
    now = datetime.now(UTC)
    for start, end in ((-9, -1), (1, 9)):
        validity = Validity(now + timedelta(days=start), now + timedelta(days=end))
        with certified(network, network.authority, validity=validity) as channel:
            assert outcome(channel, CHECKPOINT, b"") == "UNAVAILABLE"


def test_an_identity_of_another_network_is_refused(network: OneNode) -> None:
    # The right authority's key, under another network's name.
    other = Authority("other.test", network.authority.certificate, network.authority._key)
    with certified(network, other) as channel:
        assert outcome(channel, CHECKPOINT, b"") == "UNAUTHENTICATED"


def test_a_client_refuses_a_server_of_another_authority(network: OneNode, tmp_path: Path) -> None:
    other = Authority.create(tmp_path, NETWORK, Validity.days_from_now(9))
    issued = network.authority.issue(
        Identity(NETWORK, IdentityKind.PARTICIPANT, lei_of("p01")), Validity.days_from_now(1)
    )
    credentials = grpc.ssl_channel_credentials(
        other.certificate_pem, issued.key_pem, issued.certificate_pem
    )
    with grpc.secure_channel(network.endpoint, credentials) as channel:
        assert outcome(channel, CHECKPOINT, b"") == "UNAVAILABLE"


# -- repetition


def instruction(network: OneNode, name: str, kind: InstructionKind, payload: bytes) -> bytes:
    made = make_instruction(
        network_id=network.network_id,
        kind=kind,
        actor=NUMBERS[name],
        client_id=secrets.token_bytes(16),
        salt=secrets.token_bytes(16),
        payload=payload,
        sign=network.identity(name).signing_key().sign,
    )
    return made.encode()


def instruct(channel: grpc.Channel, data: bytes) -> Any:
    stub = channel.unary_unary(
        "/clearing.v1.ParticipantService/Instruct",
        response_deserializer=participant_pb2.InstructResponse.FromString,
    )
    request = participant_pb2.InstructRequest(transaction=data)
    return stub(request.SerializeToString(), timeout=20).receipt


def test_a_replayed_affirmation_changes_nothing(network: OneNode, client: Client) -> None:
    (recorded,) = client.submit([Obligation("p01", "p02", "BTC", 5)] * 2)
    affirmation = instruction(
        network, "p02", InstructionKind.AFFIRM, ItemSelection(recorded.index, ((0, 0),)).encode()
    )
    with network.channel("p02") as channel:
        first = instruct(channel, affirmation)
        client.rescind(recorded.index, [(0, 0)])
        for _ in range(3):
            again = instruct(channel, affirmation)
            assert (again.log_index, again.repeated) == (first.log_index, True)
    rows = [row for row in client.obligations() if row.submission == recorded.index]
    assert [row.state.name for row in rows] == ["RESCINDED", "PROPOSED"]
    size = client.checkpoint().size
    # The same request under the same id with other bytes is another request.
    with network.client("p02") as p02, pytest.raises(RejectedError) as caught:
        p02.affirm(recorded.index, [(0, 0)])
    assert caught.value.code.name == "ITEM_STATE"
    assert client.checkpoint().size == size


def test_a_client_id_used_twice_is_refused(network: OneNode, channel: grpc.Channel) -> None:
    client_id = secrets.token_bytes(16)
    one = submission(network, item(P01, P02, 1), client_id=client_id)
    two = submission(network, item(P01, P02, 2), client_id=client_id)
    assert submit(channel, one.encode()) == ""
    assert submit(channel, two.encode()) == "EXISTS_DIFFERENT"
    assert submit(channel, one.encode()) == ""


def test_a_signature_of_another_network_is_refused(network: OneNode, channel: grpc.Channel) -> None:
    foreign = submission(network, item(P01, P02, 1), network_id=bytes(32))
    assert submit(channel, foreign.encode()) == "BAD_SIGNATURE"


def test_one_transaction_from_many_at_once_is_recorded_once(
    network: OneNode, channel: grpc.Channel, client: Client
) -> None:
    data = submission(network, item(P01, P02, 77)).encode()
    request = participant_pb2.SubmitRequest(transaction=data).SerializeToString()
    stub = channel.unary_unary(
        "/clearing.v1.ParticipantService/Submit",
        response_deserializer=participant_pb2.SubmitResponse.FromString,
    )
    with ThreadPoolExecutor(32) as pool:
        receipts = list(pool.map(lambda _: stub(request, timeout=20).receipt, range(64)))
    assert len({receipt.log_index for receipt in receipts}) == 1
    assert sum(not receipt.repeated for receipt in receipts) == 1
    assert len([row for row in client.obligations() if row.amount_units == 77]) == 1


# -- patience


def test_streams_that_nobody_reads_do_not_stop_the_node(network: OneNode, client: Client) -> None:
    with network.channel("p02") as channel:
        stub = channel.unary_stream("/clearing.v1.ParticipantService/WatchCheckpoints")
        streams = [stub(b"", timeout=60) for _ in range(100)]
        for stream in streams[:10]:
            next(stream)
        client.submit([Obligation("p01", "p02", "BTC", 1)])
        for stream in streams[:50]:
            stream.cancel()
    assert client.checkpoint().size


def test_one_callers_streams_do_not_take_every_place(network: OneNode) -> None:
    with network.channel("p04") as greedy, network.channel("p02") as other:
        watch = greedy.unary_stream("/clearing.v1.ParticipantService/WatchCheckpoints")
        streams = [watch(b"", timeout=60) for _ in range(CALLS_PER_CALLER_MAX)]
        for stream in streams:
            next(stream)
        assert outcome(greedy, CHECKPOINT, b"") == "TOO_MANY_CALLS"
        assert outcome(other, CHECKPOINT, b"") == ""
        for stream in streams:
            stream.cancel()
        until = time.monotonic() + 20
        while outcome(greedy, CHECKPOINT, b"") == "TOO_MANY_CALLS" and time.monotonic() < until:
            time.sleep(0.05)
        assert outcome(greedy, CHECKPOINT, b"") == ""


def test_a_deadline_that_is_over_records_or_not_and_the_id_tells(
    network: OneNode, channel: grpc.Channel, client: Client
) -> None:
    known = 0
    for n in range(20):
        made = submission(network, item(P01, P02, 1000 + n))
        request = participant_pb2.SubmitRequest(transaction=made.encode())
        method = "/clearing.v1.ParticipantService/Submit"
        assert outcome(channel, method, request.SerializeToString(), timeout=0.001 * n) in ("", "DEADLINE_EXCEEDED")  # fmt: skip
        before = client.request(made.client_id)
        after = client.send(made)
        if before is not None:
            known += 1
            assert (after.index, after.repeated) == (before.index, True)
        assert client.request(made.client_id) is not None
    assert known <= 20


def test_callers_that_vanish_leave_nothing_behind(network: OneNode) -> None:
    before = threading.active_count()
    for _ in range(20):
        with network.channel("p03") as channel:
            stub = channel.unary_unary(CHECKPOINT)
            stub.future(b"", timeout=20).cancel()
    assert threading.active_count() <= before + 20
