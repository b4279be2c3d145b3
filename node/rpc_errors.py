"""Refusals on the wire: a gRPC status with google.rpc details, made by the server and read by the client.

Lives here: which status each RejectCode and each refusal of the node has, writing and reading the details. May not
live here: rules, messages (wire.py), who may call what (auth.py).

Every refusal carries one ErrorInfo: domain DOMAIN, reason the stable name of the code, metadata with its number and
the remedy. Bad items come as one BadRequest, "items[7]" each with its own reason; back-pressure as RetryInfo. A
deadline that passes carries no details: gRPC itself answers it on the client's side.
Source: google.rpc error_details.proto; AIP-193 (exactly one ErrorInfo in every error).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError as ProtobufDecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from clearing.errors import REMEDIES, RejectCode
from clearing.ledger import Outcome
from node.services.facade import (
    BusyError,
    NodeCondition,
    NodeRefusalError,
    NotHeldError,
    NotLeaderError,
    NotServingError,
    TooLargeError,
    UnknownHeadError,
    WrongNetworkError,
)

DOMAIN = "clearing.v1"
DETAILS_KEY = "grpc-status-details-bin"
DETAILS_BYTES_MAX = 6_000
"""Details travel in a header; 8 KiB of headers is what peers take by default, base64 included."""

MESSAGE_CHARS_MAX = 500
"""Messages travel in a header, twice."""

NOT_SERVING_RETRY_MS = 1_000


class Refusal(enum.StrEnum):
    """Reasons of ErrorInfo beside the names of the reject codes; stable."""

    UNAUTHENTICATED = "UNAUTHENTICATED"
    NOT_AUTHORISED = "NOT_AUTHORISED"
    BAD_REQUEST = "BAD_REQUEST"
    BAD_PAGE = "BAD_PAGE"
    NOT_FOUND = "NOT_FOUND"
    NOT_YET_FINAL = "NOT_YET_FINAL"
    NOT_LEADER = "NOT_LEADER"
    NOT_HELD = "NOT_HELD"
    QUEUE_FULL = "QUEUE_FULL"
    TOO_LARGE = "TOO_LARGE"
    TOO_MANY_CALLS = "TOO_MANY_CALLS"
    ROLLBACK = "ROLLBACK"
    WRONG_NETWORK = "WRONG_NETWORK"
    UNKNOWN_HEAD = "UNKNOWN_HEAD"
    BITCOIN_UNAVAILABLE = "BITCOIN_UNAVAILABLE"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    INTERNAL = "INTERNAL"


_REFUSALS: dict[Refusal, tuple[grpc.StatusCode, str]] = {
    Refusal.UNAUTHENTICATED: (
        grpc.StatusCode.UNAUTHENTICATED,
        "Connect with a certificate of this network, issued to a registered participant or node.",
    ),
    Refusal.NOT_AUTHORISED: (
        grpc.StatusCode.PERMISSION_DENIED,
        "Ask with an identity whose role may do this; see the table of rights in the README.",
    ),
    Refusal.BAD_REQUEST: (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Correct the field that the message names.",
    ),
    Refusal.BAD_PAGE: (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Send next_page_token unchanged and with the same filter, or start again without one.",
    ),
    Refusal.NOT_FOUND: (
        grpc.StatusCode.NOT_FOUND,
        "Check the number; what is another party's is not found either.",
    ),
    Refusal.NOT_YET_FINAL: (
        grpc.StatusCode.UNAVAILABLE,
        "Try again: the quorum's cosignatures are on their way.",
    ),
    Refusal.NOT_LEADER: (
        grpc.StatusCode.FAILED_PRECONDITION,
        "Send transactions to the endpoint in the metadata.",
    ),
    Refusal.NOT_HELD: (
        grpc.StatusCode.FAILED_PRECONDITION,
        "Ask a full replica, such as the endpoint in the metadata.",
    ),
    Refusal.QUEUE_FULL: (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "Send the same bytes again after the retry time.",
    ),
    Refusal.TOO_LARGE: (
        grpc.StatusCode.INVALID_ARGUMENT,
        "Split the submission: the metadata say how many bytes a transaction may have.",
    ),
    Refusal.TOO_MANY_CALLS: (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "End streams that are not read, and share one connection's answers.",
    ),
    Refusal.ROLLBACK: (
        grpc.StatusCode.FAILED_PRECONDITION,
        "This node knows less than you have seen: ask another node, and report it if it stays so.",
    ),
    Refusal.WRONG_NETWORK: (
        grpc.StatusCode.FAILED_PRECONDITION,
        "Point the node at a leader of its own network.",
    ),
    Refusal.UNKNOWN_HEAD: (
        grpc.StatusCode.NOT_FOUND,
        "Cosign only heads that this leader has sent.",
    ),
    Refusal.BITCOIN_UNAVAILABLE: (
        grpc.StatusCode.UNAVAILABLE,
        "Try again later, or take what you asked for from a Bitcoin node of your own.",
    ),
    Refusal.OUTCOME_UNKNOWN: (
        grpc.StatusCode.UNAVAILABLE,
        "Send the same bytes again: it is recorded at most once.",
    ),
    Refusal.INTERNAL: (
        grpc.StatusCode.INTERNAL,
        "A defect of the node; its operator finds it in the node's log.",
    ),
}

_REJECT_STATUS: dict[RejectCode, grpc.StatusCode] = {
    RejectCode.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.UNKNOWN_ACTOR: grpc.StatusCode.NOT_FOUND,
    RejectCode.BAD_SIGNATURE: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.COMMITMENT_MISMATCH: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.EXISTS_DIFFERENT: grpc.StatusCode.ALREADY_EXISTS,
    RejectCode.NOT_LICENSED: grpc.StatusCode.PERMISSION_DENIED,
    RejectCode.ROLE_NOT_ALLOWED: grpc.StatusCode.PERMISSION_DENIED,
    RejectCode.NOT_A_PARTY: grpc.StatusCode.PERMISSION_DENIED,
    RejectCode.ITEM_VERSION: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.ITEM_KIND: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.ITEM_FLAGS: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.SAME_PARTY: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.SUBMITTER_NOT_PARTY: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.UNKNOWN_PARTICIPANT: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.PARTICIPANT_NOT_LICENSED: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.UNKNOWN_ASSET: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.ZERO_AMOUNT: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.DUE_PASSED: grpc.StatusCode.FAILED_PRECONDITION,
    # Not RESOURCE_EXHAUSTED: only a settled cycle makes room, and clients repeat that status within seconds.
    RejectCode.BOOK_FULL: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.SUBMITTER_BOOK_FULL: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.UNKNOWN_SUBMISSION: grpc.StatusCode.NOT_FOUND,
    RejectCode.UNKNOWN_ITEM: grpc.StatusCode.NOT_FOUND,
    RejectCode.NOTHING_SELECTED: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.ITEM_STATE: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.TOO_MANY_DRAWS: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.NOTHING_TO_NET: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.UNKNOWN_INSTRUCTION: grpc.StatusCode.NOT_FOUND,
    RejectCode.NOT_FUNDED: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.INSTRUCTION_STATE: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.NO_SETTLEMENT_AGENT: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.NO_SOLUTION_AWAITED: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.SOLUTION_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.SOLUTION_NOT_OPTIMAL: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.UNKNOWN_PROPOSAL: grpc.StatusCode.NOT_FOUND,
    RejectCode.PROPOSAL_CLOSED: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.ALREADY_APPROVED: grpc.StatusCode.ALREADY_EXISTS,
    RejectCode.ACTION_UNKNOWN_SUBJECT: grpc.StatusCode.NOT_FOUND,
    RejectCode.ACTION_DUPLICATE: grpc.StatusCode.ALREADY_EXISTS,
    RejectCode.ACTION_VALUE: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.GOVERNANCE_STRANDED: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.VALIDATOR_ROLE: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.VALIDATOR_KEY_TAKEN: grpc.StatusCode.ALREADY_EXISTS,
    RejectCode.VALIDATORS_TOO_FEW: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.VALIDATORS_TOO_MANY: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.VALIDATOR_TOO_STRONG: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.VALIDATORS_CHANGE_TOO_GREAT: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.ANCHOR_ORDER: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.ANCHOR_STATE: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.ANCHOR_CHECKPOINTS: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.ANCHOR_EVIDENCE: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.BITCOIN_NOT_SET: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.HEADER_UNCONNECTED: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.HEADER_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.HEADERS_KNOWN: grpc.StatusCode.ALREADY_EXISTS,
    RejectCode.BLOCK_NOT_IN_CHAIN: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.BITCOIN_PROOF_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.TOO_SHALLOW: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.NOTHING_WATCHED: grpc.StatusCode.NOT_FOUND,
    RejectCode.SETTLES_BY_TRANSACTION: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.NO_SUCH_LEG: grpc.StatusCode.NOT_FOUND,
    RejectCode.LEG_STATE: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.LEG_NOT_READY: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.NOT_A_PAYER: grpc.StatusCode.PERMISSION_DENIED,
    RejectCode.COIN_IN_USE: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.TOO_MANY_COINS: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.COINS_SHORT: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.FEE_RATE: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.DEADLINE_AHEAD: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.NO_ROUTE: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.SCRIPT_PROOF_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    RejectCode.NOT_A_MINER: grpc.StatusCode.PERMISSION_DENIED,
    RejectCode.COIN_DECLARED: grpc.StatusCode.ALREADY_EXISTS,
    RejectCode.COIN_IMMATURE: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.PAYOUT_SCRIPT_UNKNOWN: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.UNKNOWN_BATCH: grpc.StatusCode.NOT_FOUND,
    RejectCode.BATCH_STATE: grpc.StatusCode.FAILED_PRECONDITION,
    RejectCode.MINED_COIN_SHORT: grpc.StatusCode.FAILED_PRECONDITION,
}


@dataclass(eq=False)
class RpcError(Exception):
    """One refusal, as it travels.

    status and message as gRPC knows them; reason: a RejectCode's or a Refusal's name; number: of the reject code, 0
    otherwise; items: (item number, its code) of the first bad items; bad_items: how many there are in all;
    retry_after_ms: None where trying again does not help by itself; metadata: further facts by name.
    """

    status: grpc.StatusCode
    message: str
    reason: str
    remedy: str
    number: int = 0
    items: tuple[tuple[int, RejectCode], ...] = ()
    bad_items: int = 0
    retry_after_ms: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Keep the message short enough for a header."""
        self.message = self.message[:MESSAGE_CHARS_MAX]

    def __str__(self) -> str:
        """Return reason, message and remedy in one line."""
        return f"{self.reason}: {self.message}. {self.remedy}"

    @property
    def code(self) -> RejectCode | None:
        """The reject code, where the ledger's rules refused; None where the node did."""
        return RejectCode.__members__.get(self.reason) if self.number else None


def refusal(
    reason: Refusal,
    message: str,
    retry_after_ms: int | None = None,
    **metadata: str,
) -> RpcError:
    """Return a refusal of the node's own."""
    status, remedy = _REFUSALS[reason]
    return RpcError(
        status, message, reason.value, remedy, retry_after_ms=retry_after_ms, metadata=metadata
    )


def rejection(outcome: Outcome) -> RpcError:
    """Return the refusal that a transaction's outcome says. Caller: its code is not OK."""
    code = outcome.code
    message = "the ledger refused the transaction"
    if outcome.bad_items:
        item, why = outcome.items[0]
        items = "1 item" if outcome.bad_items == 1 else f"{outcome.bad_items} items"
        message = f"{items} refused, the first is item {item}: {why.name}"
    return RpcError(
        _REJECT_STATUS[code],
        message,
        code.name,
        REMEDIES[code],
        number=int(code),
        items=outcome.items,
        bad_items=outcome.bad_items,
    )


def malformed(error: Exception) -> RpcError:
    """Return the refusal of transaction bytes that are not canonical."""
    code = RejectCode.MALFORMED
    return RpcError(_REJECT_STATUS[code], str(error), code.name, REMEDIES[code], number=int(code))


def of_refusal(error: NodeRefusalError) -> RpcError:
    """Return the refusal that a node's own error stands for."""
    match error:
        case NotLeaderError(endpoint=endpoint):
            return refusal(Refusal.NOT_LEADER, str(error), leader_endpoint=endpoint)
        case NotHeldError(endpoint=endpoint):
            return refusal(Refusal.NOT_HELD, str(error), leader_endpoint=endpoint)
        case BusyError(retry_after_ms=retry_after_ms):
            return refusal(Refusal.QUEUE_FULL, str(error), retry_after_ms)
        case TooLargeError(bytes_max=bytes_max):
            return refusal(Refusal.TOO_LARGE, str(error), transaction_bytes_max=str(bytes_max))
        case WrongNetworkError():
            return refusal(Refusal.WRONG_NETWORK, str(error))
        case UnknownHeadError():
            return refusal(Refusal.UNKNOWN_HEAD, str(error))
        case NotServingError(condition=condition):
            return _not_serving(condition, str(error))
    return refusal(Refusal.INTERNAL, str(error))


_TRANSIENT = (
    NodeCondition.WAITING_FOR_REPLICAS,
    NodeCondition.CATCHING_UP,
    NodeCondition.STOPPING,
    NodeCondition.STUCK,
)


def _not_serving(condition: NodeCondition, message: str) -> RpcError:
    """Return UNAVAILABLE for a condition that passes by itself, FAILED_PRECONDITION for one that needs an operator."""
    if condition in _TRANSIENT:
        status, retry_after_ms = grpc.StatusCode.UNAVAILABLE, NOT_SERVING_RETRY_MS
        remedy = "Try again: the node will write soon."
        return RpcError(status, message, condition.name, remedy, retry_after_ms=retry_after_ms)
    remedy = "The node's operator must act; its status says what happened."
    return RpcError(grpc.StatusCode.FAILED_PRECONDITION, message, condition.name, remedy)


_NUMBER_OF_STATUS: dict[grpc.StatusCode, int] = {
    status: getattr(code_pb2, status.name) for status in grpc.StatusCode
}
_STATUS_OF_NUMBER = {number: status for status, number in _NUMBER_OF_STATUS.items()}


Detail: TypeAlias = (
    error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo
)


def _packed(message: Detail) -> AnyMessage:
    wrapped = AnyMessage()
    wrapped.Pack(message)
    return wrapped


def encode_details(error: RpcError) -> bytes:
    """Return the google.rpc.Status of a refusal, for the trailing metadata under DETAILS_KEY.

    As many bad items as fit DETAILS_BYTES_MAX are named; metadata "bad_items" counts all.
    """
    metadata = {"number": str(error.number), "remedy": error.remedy, **error.metadata}
    if error.bad_items:
        metadata["bad_items"] = str(error.bad_items)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    status = status_pb2.Status(
        code=_NUMBER_OF_STATUS[error.status], message=error.message, details=[_packed(info)]
    )
    if error.retry_after_ms is not None:
        seconds, rest_ms = divmod(error.retry_after_ms, 1000)
        delay = Duration(seconds=seconds, nanos=rest_ms * 1_000_000)
        status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    if error.items:
        room = DETAILS_BYTES_MAX - status.ByteSize()
        status.details.append(_packed(_bad_request(error.items, room)))
    return bytes(status.SerializeToString())


def _bad_request(
    items: tuple[tuple[int, RejectCode], ...], room: int
) -> error_details_pb2.BadRequest:
    bad = error_details_pb2.BadRequest()
    described: dict[RejectCode, str] = {}
    for number, code in items:
        # The remedy stands with the first item of each code: a hundred items fit then.
        remedy = "" if code in described else described.setdefault(code, REMEDIES[code])
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=f"items[{number}]", description=remedy, reason=code.name
        )
        room -= violation.ByteSize() + 4
        if room < 0:
            break
        bad.field_violations.append(violation)
    return bad


def decode_details(status: grpc.StatusCode, message: str, details: bytes | None) -> RpcError | None:
    """Return the refusal that a failed call carries, or None where it carries none of ours.

    Tolerant on purpose: what a server of another version adds is passed over.
    """
    if details is None:
        return None
    info = error_details_pb2.ErrorInfo()
    bad = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    try:
        parsed = status_pb2.Status.FromString(details)
        _unpack(parsed, info)
        _unpack(parsed, bad)
        has_retry = _unpack(parsed, retry)
    except ProtobufDecodeError:
        return None
    if info.domain != DOMAIN:
        return None
    metadata = dict(info.metadata)
    number, bad_items = _count(metadata.pop("number", "")), _count(metadata.pop("bad_items", ""))
    delay = retry.retry_delay
    return RpcError(
        _STATUS_OF_NUMBER.get(parsed.code, status),
        parsed.message or message,
        info.reason,
        metadata.pop("remedy", ""),
        number=max(number, 0),
        items=tuple(_item_of(violation) for violation in bad.field_violations),
        bad_items=max(bad_items, 0),
        retry_after_ms=delay.seconds * 1000 + delay.nanos // 1_000_000 if has_retry else None,
        metadata=metadata,
    )


def _unpack(status: status_pb2.Status, into: Detail) -> bool:
    """Fill `into` from the first detail of its type; return whether there is one."""
    part = next((part for part in status.details if part.Is(into.DESCRIPTOR)), None)
    return part is not None and bool(part.Unpack(into))


def _count(text: str) -> int:
    """Return a short ASCII decimal, or -1 for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else -1


def _item_of(violation: error_details_pb2.BadRequest.FieldViolation) -> tuple[int, RejectCode]:
    number = violation.field.removeprefix("items[").removesuffix("]")
    code = RejectCode.__members__.get(violation.reason, RejectCode.MALFORMED)
    return (_count(number), code)
