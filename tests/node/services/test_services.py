"""What each call promises in its comment: streams, pages, waiting, errors, health, reflection."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from clearing.handlers.reasons import Explanation
from clearing.log import merkle
from clearing.log.checkpoint import Checkpoint
from clearing.log.note import Note
from node.client import Client, Obligation
from node.client.calls import read_failure
from node.pb.v1 import (
    audit_pb2,
    audit_pb2_grpc,
    participant_pb2,
    participant_pb2_grpc,
    types_pb2,
)
from node.rpc_errors import RpcError
from node.sequencer.driver import Machine
from node.services import audit, trees
from node.services.server import SERVICES
from node.services.trees import ItemTrees
from tests.node.services_kit import LEADER, NUMBERS, OneNode

TIMEOUT_S = 20


@pytest.fixture(scope="module")
def client(network: OneNode) -> Iterator[Client]:
    with network.client("p01") as opened:
        for n in range(6):
            opened.submit(Obligation("p01", "p02", "BTC", n + 1) for _ in range(4))
        yield opened


@pytest.fixture(scope="module")
def channel(network: OneNode) -> Iterator[grpc.Channel]:
    with network.channel("p01") as opened:
        yield opened


@pytest.fixture(scope="module")
def audits(channel: grpc.Channel) -> audit_pb2_grpc.AuditServiceStub:
    return audit_pb2_grpc.AuditServiceStub(channel)


@pytest.fixture(scope="module")
def participants(channel: grpc.Channel) -> participant_pb2_grpc.ParticipantServiceStub:
    return participant_pb2_grpc.ParticipantServiceStub(channel)


def refused(call: Any, request: Any) -> RpcError:
    """Return the refusal of a call, unary or stream."""
    with pytest.raises(grpc.RpcError) as caught:
        list(call(request, timeout=TIMEOUT_S))  # a stream fails when it is read
    fault = read_failure(caught.value)[2]
    assert fault is not None
    return fault


def head_of(checkpoint: types_pb2.Checkpoint) -> Checkpoint:
    return Checkpoint.parse(Note.parse(checkpoint.note.encode()).text)


# -- heads and proofs


def test_checkpoints_come_with_their_consistency(client: Client, audits: Any) -> None:
    newest = client.checkpoint()
    for since in range(1, newest.size + 1):
        request = audit_pb2.GetCheckpointRequest(since_size=since)
        answer = audits.GetCheckpoint(request, timeout=TIMEOUT_S)
        head = head_of(answer.checkpoint)
        assert answer.checkpoint.final
        assert (answer.consistency.old_size, answer.consistency.new_size) == (since, head.size)
        proof = audits.GetConsistencyProof(
            audit_pb2.GetConsistencyProofRequest(old_size=since, new_size=head.size)
        )
        assert proof.consistency == answer.consistency
    answer = audits.GetCheckpoint(audit_pb2.GetCheckpointRequest(), timeout=TIMEOUT_S)
    assert not answer.HasField("consistency")


def test_an_unfinal_checkpoint_is_at_least_as_great(client: Client, audits: Any) -> None:
    for n in range(5):
        client.submit([Obligation("p01", "p02", "BTC", n + 1)])
        request = audit_pb2.GetCheckpointRequest(allow_unfinal=True)
        newest = audits.GetCheckpoint(request).checkpoint
        final = audits.GetCheckpoint(audit_pb2.GetCheckpointRequest()).checkpoint
        assert final.final
        assert newest.final or head_of(newest).size >= 2


def test_a_size_beyond_the_log_is_a_rollback(audits: Any, participants: Any) -> None:
    for call, kind in (
        (audits.GetCheckpoint, audit_pb2.GetCheckpointRequest),
        (participants.WatchCheckpoints, participant_pb2.WatchCheckpointsRequest),
    ):
        fault = refused(call, kind(since_size=1 << 40))
        assert (fault.reason, fault.status) == ("ROLLBACK", grpc.StatusCode.FAILED_PRECONDITION)


def test_leaves_prove_themselves(client: Client, audits: Any) -> None:
    head = client.checkpoint()
    leaves = list(client.leaves(0, head.size))
    assert len(leaves) == head.size
    assert merkle.root_of([merkle.leaf_hash(leaf) for leaf in leaves]) == head.root
    for index, leaf in enumerate(leaves):
        request = audit_pb2.GetInclusionProofRequest(index=index, size=head.size)
        answer = audits.GetInclusionProof(request, timeout=TIMEOUT_S)
        assert answer.leaf == leaf
        path = tuple(answer.inclusion.path)
        merkle.verify_inclusion(merkle.leaf_hash(leaf), index, head.size, path, head.root)


def test_leaves_stream_in_parts_and_resume_anywhere(
    client: Client, audits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(client.leaves())
    monkeypatch.setattr(audit, "LEAVES_PER_MESSAGE_MAX", 3)
    monkeypatch.setattr(audit, "LEAF_BYTES_PER_MESSAGE_MAX", 200)
    for start in range(len(whole)):
        request = audit_pb2.GetLeavesRequest(start_index=start, end_index=len(whole))
        at, got = start, []
        for message in audits.GetLeaves(request, timeout=TIMEOUT_S):
            assert message.first_index == at
            assert 1 <= len(message.leaves) <= 3
            got.extend(message.leaves)
            at += len(message.leaves)
        assert got == whole[start:]
    assert list(audits.GetLeaves(audit_pb2.GetLeavesRequest(start_index=5, end_index=5))) == []


@pytest.mark.parametrize(
    ("start", "end"), [(0, 1 << 40), (9, 5), (1 << 40, 0), ((1 << 64) - 1, (1 << 64) - 1)]
)
def test_leaves_that_are_not_there_are_not_found(audits: Any, start: int, end: int) -> None:
    request = audit_pb2.GetLeavesRequest(start_index=start, end_index=end)
    assert refused(audits.GetLeaves, request).reason == "NOT_FOUND"


def test_proofs_of_what_is_not_there(audits: Any) -> None:
    for index, size in ((5, 5), (0, 1 << 40), (1 << 40, 0)):
        request = audit_pb2.GetInclusionProofRequest(index=index, size=size)
        assert refused(audits.GetInclusionProof, request).reason == "NOT_FOUND"
    for old, new, reason in (
        (0, 5, "BAD_REQUEST"),
        (6, 5, "BAD_REQUEST"),
        (1, 1 << 40, "NOT_FOUND"),
    ):
        proof = audit_pb2.GetConsistencyProofRequest(old_size=old, new_size=new)
        assert refused(audits.GetConsistencyProof, proof).reason == reason


def test_checkpoints_are_watched_without_a_gap(client: Client, participants: Any) -> None:
    since = client.checkpoint()
    request = participant_pb2.WatchCheckpointsRequest(since_size=since.size)
    stream = participants.WatchCheckpoints(request, timeout=60)
    for n in range(5):
        (recorded,) = client.submit([Obligation("p01", "p03", "BTC", n + 1)])
        while since.size <= recorded.index:
            message = next(stream)
            head = head_of(message.checkpoint)
            path = tuple(message.consistency.path)
            assert message.checkpoint.final
            merkle.verify_consistency(since.size, head.size, path, since.root, head.root)
            since = head
    stream.cancel()


# -- receipts


def test_receipts_asked_for_at_once_wait_for_finality(client: Client) -> None:
    (recorded,) = client.submit(Obligation("p01", "p02", "BTC", n + 1) for n in range(50))
    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda n: client.receipt(recorded.index, n)[1], range(50)))
    assert [one.item.amount_units for one in receipts if one.item] == list(range(1, 51))


def test_few_trees_are_kept_and_each_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "TREES_MAX", 2)
    made: list[int] = []
    kept = ItemTrees()

    def tree(index: int) -> merkle.HashedLeaves:
        def make() -> merkle.HashedLeaves:
            made.append(index)
            return merkle.HashedLeaves([merkle.leaf_hash(bytes([index]))])

        return kept.get(index, make)

    first = tree(1)
    assert tree(1) is first
    tree(2)
    tree(1)
    tree(3)  # 2 was used longest ago
    assert tree(1) is first
    tree(2)
    assert made == [1, 2, 3, 2]


# -- pages


def test_page_sizes_are_bounded_and_tokens_are_empty_at_the_end(
    client: Client, participants: Any
) -> None:
    total = len(client.obligations())
    for page_size in (0, 1_000, (1 << 32) - 1):
        request = participant_pb2.ListObligationsRequest(page_size=page_size)
        answer = participants.ListObligations(request, timeout=TIMEOUT_S)
        assert len(answer.obligations) == total
        assert answer.next_page_token == ""
        assert answer.as_of.log_size >= client.checkpoint().size
    request = participant_pb2.ListObligationsRequest(page_size=total - 1)
    answer = participants.ListObligations(request, timeout=TIMEOUT_S)
    assert len(answer.obligations) == total - 1
    assert answer.next_page_token


@pytest.mark.parametrize("states", [[0], [1, 99], [-1]])
def test_a_state_that_is_none_is_a_bad_request(participants: Any, states: list[int]) -> None:
    request = participant_pb2.ListObligationsRequest(states=states)
    fault = refused(participants.ListObligations, request)
    assert fault.reason == "BAD_REQUEST"
    assert "states" in fault.message


@pytest.mark.parametrize("client_id", [b"", bytes(15), bytes(17)])
def test_a_client_id_has_16_bytes(participants: Any, client_id: bytes) -> None:
    request = participant_pb2.GetRequestRequest(client_id=client_id)
    assert refused(participants.GetRequest, request).reason == "BAD_REQUEST"


def test_a_transaction_by_the_wrong_call_is_told_the_right_one(
    client: Client, participants: Any
) -> None:
    (submission,) = client.prepare([Obligation("p01", "p02", "BTC", 1)])
    request = participant_pb2.InstructRequest(transaction=submission.encode())
    fault = refused(participants.Instruct, request)
    assert (fault.reason, fault.number) == ("MALFORMED", 100)
    assert "Submit" in fault.message


def test_a_refused_submission_names_its_items(
    network: OneNode, participants: Any, client: Client
) -> None:
    good = Obligation("p01", "p02", "BTC", 1)
    bad = Obligation("p02", "p03", "BTC", 1)
    (submission,) = client.prepare([good, bad, good, bad])
    request = participant_pb2.SubmitRequest(transaction=submission.encode())
    fault = refused(participants.Submit, request)
    assert fault.status is grpc.StatusCode.INVALID_ARGUMENT
    assert (fault.reason, fault.bad_items) == ("SUBMITTER_NOT_PARTY", 2)
    assert [number for number, _ in fault.items] == [1, 3]
    assert fault.remedy == "Submit only obligations that you owe or are owed."


# -- the server itself


def test_health_of_every_service(network: OneNode) -> None:
    with network.channel("p01") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", *SERVICES):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(health_pb2.HealthCheckRequest(service="none"), timeout=TIMEOUT_S)
        assert read_failure(caught.value)[0] is grpc.StatusCode.NOT_FOUND
        first = next(health.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S))
        assert first.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_every_service(network: OneNode) -> None:
    with network.channel("p01") as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = stub.ServerReflectionInfo(iter([ask]), timeout=TIMEOUT_S)
        names = {service.name for service in answer.list_services_response.service}
        assert names >= set(SERVICES)


def test_the_registers_are_as_genesis_set_them(network: OneNode, audits: Any) -> None:
    answer = audits.GetRegistry(audit_pb2.GetRegistryRequest(), timeout=TIMEOUT_S)
    assert answer.network_id == network.network_id
    assert [party.name for party in answer.participants] == list(NUMBERS)
    assert [(asset.name, asset.scale) for asset in answer.assets] == [("BTC", 8), ("ETH", 18)]
    assert answer.governance_quorum == 2


def test_a_status_is_answered_while_much_else_is_asked(network: OneNode, client: Client) -> None:
    with ThreadPoolExecutor(8) as pool, network.client(LEADER) as central_bank:
        asked = [pool.submit(client.obligations) for _ in range(40)]
        for _ in range(10):
            assert central_bank.status().name == LEADER
        assert len({len(one.result()) for one in asked}) == 1


def test_reasons_are_computed_one_at_a_time_and_keep_nothing_else_waiting(
    network: OneNode,
    client: Client,
    participants: participant_pb2_grpc.ParticipantServiceStub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (recorded,) = client.submit([Obligation("p01", "p02", "BTC", 9)])
    begun, go_on = threading.Semaphore(0), threading.Event()

    def slow(_machine: Machine, _submission: int, _item: int) -> Explanation | None:
        begun.release()
        go_on.wait(2 * TIMEOUT_S)
        return None

    monkeypatch.setattr(Machine, "explain", slow)
    asked = participant_pb2.GetReasonRequest(submission=recorded.index, item=0)
    # More than the threads that a process of few processors has for everything else.
    calls = [participants.GetReason.future(asked, timeout=2 * TIMEOUT_S) for _ in range(40)]
    try:
        assert begun.acquire(timeout=TIMEOUT_S)
        for _ in range(40):
            participants.ListPositions(participant_pb2.ListPositionsRequest(), timeout=TIMEOUT_S)
        assert not begun.acquire(blocking=False)
    finally:
        go_on.set()
    assert {call.exception().code() for call in calls} == {grpc.StatusCode.NOT_FOUND}
