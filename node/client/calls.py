"""Calls and what to do when they fail, without doing either: shared by the sync and the async client.

Lives here: Call, the reading of a failure, and Attempts, which says whether, when and where to try again. May not live
here: channels, sleeping, the meaning of any call.

Only what cannot have been done, or what is counted once however often it comes, is tried again: every call of the wire
is of that kind, transactions by their client id.
"""

from __future__ import annotations

import secrets
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

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
from node.rpc_errors import DETAILS_KEY, Refusal, RpcError, decode_details

T = TypeVar("T")

BACKOFF_MS_MIN = 50
BACKOFF_MS_MAX = 2_000
REDIRECTS_MAX = 4
ROLLBACK_PATIENCE_MS = 3_000
"""A follower may lag; a node that stays behind so long is not catching up."""

_PASSING = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
_TLS_SIGNS = ("ssl", "certificate")
"""Not "handshake": "Handshake read failed (Endpoint closing)" is a node that ends, or one that is slow to answer."""
_NEVER_SENT = "failed to connect"
_TLS_SENTENCE = (
    "the node and this client do not accept each other's certificates: is yours of this network and in date, and is "
    "the endpoint one of its nodes?"
)


@dataclass(frozen=True, slots=True)
class Call:
    """One unary call: method as /package.Service/Method, the request message and the class of the answer.

    client_id: of the transaction that the call records, b"" for a read.
    """

    method: str
    request: Any
    answer: type[Any]
    client_id: bytes = b""


Operation = Generator[Call, Any, T]
"""A piece of client logic: yields calls, is sent their answers, returns a result; a failure is thrown in."""


@dataclass(frozen=True, slots=True)
class Again:
    """Try again after `delay_s`, at `endpoint` ("" for the next one known)."""

    delay_s: float
    endpoint: str = ""
    rotate: bool = False


class Attempts:
    """The attempts of one call until its deadline; `after` is told each failure."""

    def __init__(self, call: Call, now_s: float, deadline_s: float) -> None:
        """Count for `call`; times are of a monotonic clock."""
        self._call = call
        self._deadline_s = deadline_s
        self._started_s = now_s
        self._failures = 0
        self._redirects = 0
        self._maybe_sent = False

    def remaining_s(self, now_s: float) -> float:
        """Return the time left for an attempt.

        Raises: ClientError: there is none.
        """
        left = self._deadline_s - now_s
        if left <= 0:
            raise self._too_late("no node answered within the time given")
        return left

    def after(self, error: grpc.RpcError, now_s: float) -> Again:
        """Return how to go on after a failed attempt.

        Raises: ClientError: not at all.
        """
        status, message, fault = read_failure(error)
        self._failures += 1
        if fault is None:
            return self._after_transport(status, message, now_s)
        if fault.reason in (Refusal.OUTCOME_UNKNOWN, Refusal.INTERNAL):
            self._maybe_sent = True
        if fault.reason in (Refusal.NOT_LEADER, Refusal.NOT_HELD):
            return self._redirected(fault)
        if fault.reason == Refusal.ROLLBACK:
            return self._rolled_back(fault, now_s)
        if status in _PASSING:
            # Where several operators order, the next one may serve.
            rotate = status is grpc.StatusCode.UNAVAILABLE and fault.reason != Refusal.NOT_YET_FINAL
            return self._later(fault, now_s, rotate=rotate)
        if fault.reason == Refusal.INTERNAL and self._call.client_id:
            raise self._too_late(str(fault))
        raise typed(fault)

    def _after_transport(self, status: grpc.StatusCode, message: str, now_s: float) -> Again:
        """Go on after a failure that gRPC itself reports: nothing of it says what the node did."""
        lowered = message.lower()
        self._maybe_sent |= _NEVER_SENT not in lowered
        if status is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise self._too_late("the time given is over")
        fault = RpcError(status, message, status.name, "Check the endpoint and that the node runs.")
        if not self._maybe_sent and any(sign in lowered for sign in _TLS_SIGNS):
            raise TlsError(f"{_TLS_SENTENCE} ({message})")
        if status in _PASSING:
            return self._later(fault, now_s, rotate=True)
        if self._call.client_id:
            raise self._too_late(str(fault))
        if status is grpc.StatusCode.INTERNAL:
            raise BadAnswerError(f"the answer cannot be read: {message}")
        raise typed(fault)

    def _redirected(self, fault: RpcError) -> Again:
        endpoint = fault.metadata.get("leader_endpoint", "")
        self._redirects += 1
        if not endpoint or self._redirects > REDIRECTS_MAX:
            raise UnavailableError(fault)
        return Again(0.0, endpoint)

    def _rolled_back(self, fault: RpcError, now_s: float) -> Again:
        if (now_s - self._started_s) * 1000 > ROLLBACK_PATIENCE_MS:
            raise CallError(fault)
        return self._later(fault, now_s)

    def _later(self, fault: RpcError, now_s: float, *, rotate: bool = False) -> Again:
        ceiling_ms = min(BACKOFF_MS_MIN << min(self._failures, 10), BACKOFF_MS_MAX)
        # Half fixed, half random, so that clients which failed together do not come back together.
        delay_ms = ceiling_ms // 2 + secrets.randbelow(ceiling_ms // 2 + 1)
        delay_ms = max(delay_ms, fault.retry_after_ms or 0)
        if now_s + delay_ms / 1000 >= self._deadline_s:
            raise self._too_late(str(fault), fault)
        return Again(delay_ms / 1000, rotate=rotate)

    def _too_late(self, message: str, fault: RpcError | None = None) -> ClientError:
        if self._call.client_id and self._maybe_sent:
            return OutcomeUnknownError(
                f"{message}; the transaction may be recorded: send it again", self._call.client_id
            )
        if fault is not None:
            return UnavailableError(fault)
        return DeadlineError(message)


def read_failure(error: Any) -> tuple[grpc.StatusCode, str, RpcError | None]:
    """Return status, message and our own refusal (None where it carries none) of a failed call, sync or async."""
    status, message = error.code(), error.details() or ""
    metadata = error.trailing_metadata() or ()
    details = next((value for key, value in metadata if key == DETAILS_KEY), None)
    return status, message, decode_details(status, message, details)


def typed(fault: RpcError) -> CallError:
    """Return the error type of a refusal that trying again does not change."""
    if fault.number:
        return RejectedError(fault)
    if fault.reason in (Refusal.UNAUTHENTICATED, Refusal.NOT_AUTHORISED):
        return NotAuthorisedError(fault)
    if fault.status is grpc.StatusCode.NOT_FOUND:
        return NotFoundError(fault)
    return CallError(fault)
