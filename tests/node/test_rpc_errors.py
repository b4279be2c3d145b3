"""Refusals travel whole, fit a header, and hostile details do not harm who reads them."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from clearing.errors import REMEDIES, DecodeError, RejectCode
from clearing.ledger import Outcome
from node.rpc_errors import (
    DETAILS_BYTES_MAX,
    DOMAIN,
    MESSAGE_CHARS_MAX,
    Refusal,
    RpcError,
    decode_details,
    encode_details,
    malformed,
    of_refusal,
    refusal,
    rejection,
)
from node.services.facade import (
    BusyError,
    NodeCondition,
    NodeRefusalError,
    NotHeldError,
    NotLeaderError,
    NotServingError,
    UnknownHeadError,
    WrongNetworkError,
)

CODES = [code for code in RejectCode if code is not RejectCode.OK]


def round_trip(error: RpcError) -> RpcError:
    read = decode_details(grpc.StatusCode.UNKNOWN, "", encode_details(error))
    assert read is not None
    return read


def facts(error: RpcError) -> tuple[object, ...]:
    return (
        error.status, error.message, error.reason, error.remedy, error.number, error.items,
        error.bad_items, error.retry_after_ms, error.metadata,
    )  # fmt: skip


@pytest.mark.parametrize("code", CODES)
def test_every_reject_code_travels(code: RejectCode) -> None:
    items = ((0, code), (7, RejectCode.ZERO_AMOUNT), (49_999, code))
    error = rejection(Outcome(code, -1, items=items, bad_items=12))
    assert error.status not in (grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN)
    # These two are tried again by clients; a refusal by rule must not be.
    assert error.status not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
    read = round_trip(error)
    assert facts(read) == facts(error)
    assert (read.code, read.remedy, read.bad_items) == (code, REMEDIES[code], 12)


@pytest.mark.parametrize("reason", Refusal)
def test_every_refusal_of_the_node_travels(reason: Refusal) -> None:
    error = refusal(reason, "why", 1_234, leader_endpoint="10.0.0.1:7400")
    read = round_trip(error)
    assert facts(read) == facts(error)
    assert read.code is None
    assert read.remedy


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (NotLeaderError("a:1"), grpc.StatusCode.FAILED_PRECONDITION, "NOT_LEADER"),
        (NotHeldError("a:1"), grpc.StatusCode.FAILED_PRECONDITION, "NOT_HELD"),
        (BusyError(70), grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
        (WrongNetworkError("x"), grpc.StatusCode.FAILED_PRECONDITION, "WRONG_NETWORK"),
        (UnknownHeadError("x"), grpc.StatusCode.NOT_FOUND, "UNKNOWN_HEAD"),
        (NodeRefusalError("x"), grpc.StatusCode.INTERNAL, "INTERNAL"),
    ],
)
def test_errors_of_the_facade(
    error: NodeRefusalError, status: grpc.StatusCode, reason: str
) -> None:
    made = of_refusal(error)
    assert (made.status, made.reason) == (status, reason)
    if isinstance(error, BusyError):
        assert made.retry_after_ms == 70
    if isinstance(error, (NotLeaderError, NotHeldError)):
        assert made.metadata == {"leader_endpoint": "a:1"}


@pytest.mark.parametrize("condition", NodeCondition)
def test_conditions_that_pass_are_unavailable_and_others_are_not(condition: NodeCondition) -> None:
    made = of_refusal(NotServingError(condition, "because"))
    passes = condition in (
        NodeCondition.WAITING_FOR_REPLICAS, NodeCondition.CATCHING_UP, NodeCondition.STOPPING,
        NodeCondition.STUCK,
    )  # fmt: skip
    assert made.reason == condition.name
    assert (made.status is grpc.StatusCode.UNAVAILABLE) == passes
    assert (made.retry_after_ms is not None) == passes


def test_a_hundred_bad_items_and_a_long_message_fit_a_header() -> None:
    items = tuple((49_900 + n, CODES[n % len(CODES)]) for n in range(100))
    error = rejection(Outcome(RejectCode.ITEM_VERSION, -1, items=items, bad_items=50_000))
    error.message = "é" * MESSAGE_CHARS_MAX
    data = encode_details(error)
    assert len(data) <= DETAILS_BYTES_MAX + 100
    read = round_trip(error)
    assert read.bad_items == 50_000
    assert read.items == items[: len(read.items)]
    same = tuple((n, RejectCode.ZERO_AMOUNT) for n in range(100))
    assert round_trip(rejection(Outcome(RejectCode.ZERO_AMOUNT, -1, items=same, bad_items=100))).items == same  # fmt: skip


def test_messages_are_cut() -> None:
    assert len(malformed(DecodeError("x" * 10_000)).message) == MESSAGE_CHARS_MAX


def packed(message: error_details_pb2.ErrorInfo) -> AnyMessage:
    wrapped = AnyMessage()
    wrapped.Pack(message)
    return wrapped


def test_another_domain_is_not_ours() -> None:
    info = error_details_pb2.ErrorInfo(reason="NOT_LEADER", domain="elsewhere")
    status = status_pb2.Status(code=9, details=[packed(info)])
    assert decode_details(grpc.StatusCode.ABORTED, "", status.SerializeToString()) is None
    assert decode_details(grpc.StatusCode.ABORTED, "", None) is None


@pytest.mark.parametrize("number", ["", "-1", "x", "٣", "9" * 5_000, "1e3"])
def test_hostile_numbers_are_zero(number: str) -> None:
    info = error_details_pb2.ErrorInfo(
        reason="ZERO_AMOUNT", domain=DOMAIN, metadata={"number": number, "bad_items": number}
    )
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field=f"items[{number}]", reason="NO_SUCH_CODE")
    wrapped = AnyMessage()
    wrapped.Pack(bad)
    status = status_pb2.Status(code=3, details=[packed(info), wrapped])
    read = decode_details(grpc.StatusCode.UNKNOWN, "", status.SerializeToString())
    assert read is not None
    assert (read.number, read.bad_items, read.code) == (0, 0, None)
    assert read.items == ((-1, RejectCode.MALFORMED),)
    assert read.status is grpc.StatusCode.INVALID_ARGUMENT


def test_a_detail_that_is_not_what_it_says_is_none_of_ours() -> None:
    broken = AnyMessage(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff")
    status = status_pb2.Status(code=3, details=[broken])
    assert decode_details(grpc.StatusCode.UNKNOWN, "", status.SerializeToString()) is None


@given(st.binary(max_size=200))
def test_random_details_do_no_harm(data: bytes) -> None:
    read = decode_details(grpc.StatusCode.UNKNOWN, "m", data)
    assert read is None or isinstance(read, RpcError)


def test_an_error_says_all_in_one_line() -> None:
    text = str(rejection(Outcome(RejectCode.ZERO_AMOUNT, -1, items=((3, RejectCode.ZERO_AMOUNT),), bad_items=1)))  # fmt: skip
    assert text.startswith("ZERO_AMOUNT: 1 item refused, the first is item 3: ZERO_AMOUNT. ")
    assert text.endswith(REMEDIES[RejectCode.ZERO_AMOUNT])
