"""When a failed call is tried again, where, how long, and as which error it ends."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from clearing.errors import RejectCode
from clearing.ledger import Outcome
from node.client.calls import (
    BACKOFF_MS_MAX,
    REDIRECTS_MAX,
    ROLLBACK_PATIENCE_MS,
    Attempts,
    Call,
)
from node.client.errors import (
    BadAnswerError,
    CallError,
    ClientError,
    DeadlineError,
    NotAuthorisedError,
    NotFoundError,
    OutcomeUnknownError,
    RejectedError,
    TlsError,
    UnavailableError,
)
from node.pb.v1 import audit_pb2
from node.rpc_errors import (
    DETAILS_KEY,
    Refusal,
    RpcError,
    encode_details,
    of_refusal,
    refusal,
    rejection,
)
from node.services.facade import NodeCondition, NotServingError

READ = Call("/x/Read", audit_pb2.GetRegistryRequest(), audit_pb2.GetRegistryResponse)
WRITE = Call(
    "/x/Write", audit_pb2.GetRegistryRequest(), audit_pb2.GetRegistryResponse, b"\x07" * 16
)
Code = grpc.StatusCode


class Failure(grpc.RpcError):
    """A failed call as gRPC reports it."""

    def __init__(self, status: Code, message: str = "", fault: RpcError | None = None) -> None:
        self._parts = status, message, fault

    def code(self) -> Code:
        return self._parts[0]

    def details(self) -> str:
        return self._parts[1]

    def trailing_metadata(self) -> tuple[tuple[str, Any], ...] | None:
        fault = self._parts[2]
        return None if fault is None else (("x", "y"), (DETAILS_KEY, encode_details(fault)))


def refused(fault: RpcError) -> Failure:
    return Failure(fault.status, fault.message, fault)


LOST = Failure(Code.UNAVAILABLE, "Socket closed")
NEVER_SENT = Failure(Code.UNAVAILABLE, "failed to connect to all addresses; refused")


def attempts(call: Call, deadline_s: float = 30) -> Attempts:
    return Attempts(call, 0, deadline_s)


@pytest.mark.parametrize("call", [READ, WRITE])
@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (Refusal.UNAUTHENTICATED, NotAuthorisedError),
        (Refusal.NOT_AUTHORISED, NotAuthorisedError),
        (Refusal.NOT_FOUND, NotFoundError),
        (Refusal.BAD_REQUEST, CallError),
        (Refusal.WRONG_NETWORK, CallError),
    ],
)
def test_refusals_that_stay_are_not_tried_again(
    call: Call, reason: Refusal, kind: type[CallError]
) -> None:
    with pytest.raises(kind) as caught:
        attempts(call).after(refused(refusal(reason, "why")), 0)
    assert caught.value.reason == reason
    assert caught.value.remedy
    assert "why" in str(caught.value)


def test_a_rejection_is_typed_with_code_and_items() -> None:
    items = ((3, RejectCode.ZERO_AMOUNT),)
    outcome = Outcome(RejectCode.ZERO_AMOUNT, -1, items=items, bad_items=4)
    tries = attempts(WRITE)
    tries.after(LOST, 0)
    # Even after a lost answer: the ledger would have said "repeated" if it had been recorded.
    with pytest.raises(RejectedError) as caught:
        tries.after(refused(rejection(outcome)), 1)
    assert (caught.value.code, caught.value.items, caught.value.bad_items) == (
        RejectCode.ZERO_AMOUNT, items, 4
    )  # fmt: skip


@pytest.mark.parametrize("call", [READ, WRITE])
@pytest.mark.parametrize(
    "failure",
    [
        LOST,
        NEVER_SENT,
        Failure(Code.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!"),
        refused(refusal(Refusal.QUEUE_FULL, "full", 500)),
        refused(refusal(Refusal.NOT_YET_FINAL, "soon", 500)),
        refused(refusal(Refusal.OUTCOME_UNKNOWN, "stopped")),
        refused(of_refusal(NotServingError(NodeCondition.WAITING_FOR_REPLICAS, "wait"))),
    ],
)
def test_what_passes_is_tried_again_with_growing_pauses(call: Call, failure: Failure) -> None:
    tries = attempts(call, 10_000)
    pauses = [tries.after(failure, 0).delay_s for _ in range(12)]
    fault = failure._parts[2]
    asked_s = (fault.retry_after_ms or 0) / 1000 if fault else 0
    assert all(asked_s <= pause <= max(BACKOFF_MS_MAX / 1000, asked_s) for pause in pauses)
    assert pauses[-1] >= BACKOFF_MS_MAX / 2000


def test_a_lost_connection_moves_on_to_the_next_node_and_a_busy_node_does_not() -> None:
    assert attempts(READ).after(LOST, 0).rotate
    assert not attempts(READ).after(refused(refusal(Refusal.QUEUE_FULL, "", 5)), 0).rotate


@pytest.mark.parametrize("reason", [Refusal.NOT_LEADER, Refusal.NOT_HELD])
def test_redirects_are_followed_but_not_for_ever(reason: Refusal) -> None:
    tries = attempts(WRITE)
    failure = refused(refusal(reason, "", leader_endpoint="10.0.0.1:7400"))
    for _ in range(REDIRECTS_MAX):
        again = tries.after(failure, 0)
        assert (again.endpoint, again.delay_s) == ("10.0.0.1:7400", 0)
    with pytest.raises(UnavailableError):
        tries.after(failure, 0)
    with pytest.raises(UnavailableError):
        attempts(WRITE).after(refused(refusal(reason, "", leader_endpoint="")), 0)


@pytest.mark.parametrize(
    ("failures", "read", "write"),
    [
        # definite: the node said no, or never heard of it
        ([refused(refusal(Refusal.QUEUE_FULL, "full", 5))], UnavailableError, UnavailableError),
        ([NEVER_SENT], UnavailableError, UnavailableError),
        # perhaps: the connection broke, or a node stopped while it wrote
        ([LOST], UnavailableError, OutcomeUnknownError),
        ([refused(refusal(Refusal.OUTCOME_UNKNOWN, "stopped"))], UnavailableError, OutcomeUnknownError),
        # once perhaps, always perhaps
        ([LOST, refused(refusal(Refusal.QUEUE_FULL, "full", 5))], UnavailableError, OutcomeUnknownError),
        ([LOST, NEVER_SENT], UnavailableError, OutcomeUnknownError),
        # gRPC's own deadline
        ([Failure(Code.DEADLINE_EXCEEDED, "Deadline Exceeded")], DeadlineError, OutcomeUnknownError),
        # a defect of the node, or an answer that cannot be read
        ([refused(refusal(Refusal.INTERNAL, "incident"))], CallError, OutcomeUnknownError),
        ([Failure(Code.INTERNAL, "Exception deserializing response!")], BadAnswerError, OutcomeUnknownError),
        ([Failure(Code.UNKNOWN, "?")], CallError, OutcomeUnknownError),
    ],
)  # fmt: skip
@pytest.mark.parametrize("call", [READ, WRITE])
def test_how_it_ends_when_time_is_over(
    call: Call, failures: list[Failure], read: type[ClientError], write: type[ClientError]
) -> None:
    tries = attempts(call, 100)
    *first, last = failures
    for failure in first:
        tries.after(failure, 0)
    with pytest.raises(read if call is READ else write) as caught:
        tries.after(last, 99.999)
    if isinstance(caught.value, OutcomeUnknownError):
        assert caught.value.client_id == WRITE.client_id


def test_no_attempt_starts_after_the_deadline() -> None:
    tries = attempts(READ, 5)
    assert tries.remaining_s(2) == 3
    with pytest.raises(DeadlineError):
        tries.remaining_s(5)
    tries = attempts(WRITE, 5)
    tries.after(LOST, 0)
    with pytest.raises(OutcomeUnknownError):
        tries.remaining_s(5)


@pytest.mark.parametrize(
    "message",
    [
        "failed to connect to all addresses; last error: UNKNOWN: Ssl handshake failed: SSL_ERROR_SSL",
        "failed to connect; CERTIFICATE_VERIFY_FAILED: self-signed certificate in certificate chain",
    ],
)
def test_refused_certificates_are_named_at_once(message: str) -> None:
    with pytest.raises(TlsError, match="certificate"):
        attempts(WRITE).after(Failure(Code.UNAVAILABLE, message), 0)


@pytest.mark.parametrize(
    "message",
    [
        "failed to connect to all addresses; last error: UNAVAILABLE: Handshake read failed (Endpoint closing)",
        "failed to connect to all addresses; last error: UNKNOWN: Handshaker shutdown",
    ],
)
def test_a_handshake_that_is_cut_off_is_tried_again(message: str) -> None:
    assert attempts(WRITE).after(Failure(Code.UNAVAILABLE, message), 0).delay_s > 0


def test_a_node_that_lags_is_given_a_moment() -> None:
    tries = attempts(READ, 100)
    failure = refused(refusal(Refusal.ROLLBACK, "behind"))
    assert tries.after(failure, 1).delay_s > 0
    with pytest.raises(CallError) as caught:
        tries.after(failure, ROLLBACK_PATIENCE_MS / 1000 + 0.1)
    assert caught.value.reason == "ROLLBACK"
