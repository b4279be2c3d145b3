"""Who may call what: one table from RPC to rule, and the interceptor that applies it.

Lives here: RULES, the caller's standing, the interceptor. May not live here: whose data an answer holds (services
filter by `Caller.participant`), what a signed transaction may do (the ledger's own rules decide that, for every node).

Invariants: an RPC that RULES does not name is refused; a call reaches a service only with a proven identity of this
network that is a registered participant or, for replication, a node that this node's configuration names.

Rights come from the register of the newest block, not from the certificate: a certificate says who, the register what.
"""

from __future__ import annotations

import enum
import inspect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

from clearing.errors import VerificationError
from clearing.rules.registry import Registry
from clearing.types import SUPERVISORS, Role
from node.identity import Identity, IdentityKind, peer_identity
from node.rpc_errors import Refusal, of_refusal, refusal
from node.services.facade import NodeCondition, NodeRefusalError, NotServingError

# Quoted: only the stubs know these classes as generic.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"


class Rule(enum.Enum):
    """Who may make a call; the values are the words of the README's table."""

    OWN = "any registered participant, suspended or not: its own data"
    WRITE = "any registered participant: its own signed transactions, judged by the ledger"
    PUBLIC = "any registered participant, suspended or not: what is everybody's"
    SUPERVISOR = "ministry, central bank and regulator in licence: everybody's data"
    OPERATOR = "supervisors, licensed operators, and the participant that runs the node"
    NODE = "nodes of the network"
    CONNECTED = "whoever holds a certificate of the network"


CALLS_PER_CALLER_MAX = 256
"""Calls and streams that one identity may have open at once, a quarter of what the server takes in all."""

TOO_MANY_CALLS_RETRY_MS = 250

_NO_REGISTER = "this node has not received the network's first block yet"
_V1 = "/clearing.v1."
RULES: Mapping[str, Rule] = {
    f"{_V1}ParticipantService/Submit": Rule.WRITE,
    f"{_V1}ParticipantService/Instruct": Rule.WRITE,
    f"{_V1}ParticipantService/GetRequest": Rule.OWN,
    f"{_V1}ParticipantService/ListObligations": Rule.OWN,
    f"{_V1}ParticipantService/ListPositions": Rule.OWN,
    f"{_V1}ParticipantService/ListInstructions": Rule.OWN,
    f"{_V1}ParticipantService/ListCycles": Rule.OWN,
    f"{_V1}ParticipantService/GetCycle": Rule.OWN,
    f"{_V1}ParticipantService/ListUnsettled": Rule.OWN,
    f"{_V1}ParticipantService/GetReason": Rule.OWN,
    f"{_V1}ParticipantService/GetReceipt": Rule.OWN,
    f"{_V1}ParticipantService/GetLeg": Rule.OWN,
    f"{_V1}ParticipantService/ListMinedCoin": Rule.OWN,
    f"{_V1}ParticipantService/WatchCheckpoints": Rule.PUBLIC,
    f"{_V1}AuditService/GetCheckpoint": Rule.PUBLIC,
    f"{_V1}AuditService/GetInclusionProof": Rule.PUBLIC,
    f"{_V1}AuditService/GetConsistencyProof": Rule.PUBLIC,
    f"{_V1}AuditService/GetLeaves": Rule.PUBLIC,
    f"{_V1}AuditService/GetPositionProof": Rule.OWN,
    f"{_V1}AuditService/GetRegistry": Rule.PUBLIC,
    f"{_V1}AuditService/GetBlockCommit": Rule.PUBLIC,
    f"{_V1}AuditService/ListProposals": Rule.PUBLIC,
    f"{_V1}AuditService/QueryObligations": Rule.SUPERVISOR,
    f"{_V1}AuditService/QueryPositions": Rule.SUPERVISOR,
    f"{_V1}AuditService/QueryInstructions": Rule.SUPERVISOR,
    f"{_V1}AuditService/QueryCycle": Rule.SUPERVISOR,
    f"{_V1}AuditService/QueryUnsettled": Rule.SUPERVISOR,
    f"{_V1}AuditService/QueryReason": Rule.SUPERVISOR,
    f"{_V1}AnchorService/ListAnchors": Rule.PUBLIC,
    f"{_V1}AnchorService/GetAnchorProofs": Rule.PUBLIC,
    f"{_V1}AnchorService/GetBitcoinHeaders": Rule.PUBLIC,
    f"{_V1}AnchorService/GetAnchoringStatus": Rule.OPERATOR,
    f"{_V1}AnchorService/AnchorNow": Rule.OPERATOR,
    f"{_V1}OperatorService/GetStatus": Rule.OPERATOR,
    f"{_V1}ReplicationService/StreamBlocks": Rule.NODE,
    f"{_V1}ReplicationService/AddCosignature": Rule.NODE,
    f"{_V1}ReplicationService/GetHead": Rule.NODE,
    "/grpc.health.v1.Health/Check": Rule.CONNECTED,
    "/grpc.health.v1.Health/List": Rule.CONNECTED,
    "/grpc.health.v1.Health/Watch": Rule.CONNECTED,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Rule.CONNECTED,
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling: a proven identity and, for a participant, its number and role in the register."""

    identity: Identity
    participant: int | None = None
    role: Role | None = None
    licensed: bool = False

    @property
    def number(self) -> int:
        """The participant's registry number.

        Raises: RpcError: the caller is a node; the table lets none this far.
        """
        if self.participant is None:
            raise refusal(Refusal.NOT_AUTHORISED, "nodes have no data of their own")
        return self.participant

    @property
    def is_supervisor(self) -> bool:
        """Whether it may see everybody's data: by role, and while its licence is in force."""
        return self.licensed and self.role in SUPERVISORS


class Access:
    """Decides calls: holds the node's network and the means to read the present register."""

    def __init__(
        self,
        *,
        network: str,
        node_lei: Callable[[], str],
        peers: frozenset[str],
        registry: Callable[[], tuple[Registry, int]],
    ) -> None:
        """Decide for a node of `network` that replicates with `peers`.

        node_lei: returns the LEI of the participant that runs the node, "" as long as it is not registered.
        peers: names of the nodes that may replicate. registry: returns the register and block time of the newest block.
        """
        self._network = network
        self._node_lei = node_lei
        self._peers = peers
        self._registry = registry
        self._numbers: tuple[Registry, Mapping[str, int]] = (Registry(), {})

    def admit(self, method: str, auth_context: Mapping[str, Any]) -> Caller:
        """Return who calls `method`, if it may.

        Raises: RpcError: UNAUTHENTICATED without a proven, registered identity; NOT_AUTHORISED by the rule.
        """
        try:
            identity = peer_identity(auth_context, self._network)
        except VerificationError as error:
            raise refusal(Refusal.UNAUTHENTICATED, str(error)) from error
        rule = RULES.get(method)
        # What the table does not name is refused, whoever asks.
        if rule is None:
            raise refusal(Refusal.NOT_AUTHORISED, f"no rule admits anybody to {method}")
        if identity.kind is IdentityKind.NODE:
            return self._admit_node(rule, identity)
        return self._admit_participant(rule, identity)

    def _admit_node(self, rule: Rule, identity: Identity) -> Caller:
        if rule is Rule.CONNECTED or (rule is Rule.NODE and identity.name in self._peers):
            return Caller(identity)
        raise refusal(
            Refusal.NOT_AUTHORISED,
            f"a node may replicate only, and {identity.name} must be a known peer",
        )

    def _admit_participant(self, rule: Rule, identity: Identity) -> Caller:
        registry, time_ms = self._registry()
        # A follower on its first start knows nobody until block 0 is there: that passes, an unknown party does not.
        if not registry.participants:
            raise of_refusal(NotServingError(NodeCondition.CATCHING_UP, _NO_REGISTER))
        number = self._numbers_of(registry).get(identity.name)
        # A certificate of the network may name a party that the register does not know.
        if number is None:
            raise refusal(Refusal.UNAUTHENTICATED, f"LEI {identity.name} is not registered")
        party = registry.participants[number]
        caller = Caller(identity, number, party.role, party.is_licensed(time_ms))
        if not self._passes(rule, caller):
            raise refusal(
                Refusal.NOT_AUTHORISED, f"{party.role.name} {party.name} may not: {rule.value}"
            )
        return caller

    def _passes(self, rule: Rule, caller: Caller) -> bool:
        match rule:
            case Rule.OWN | Rule.WRITE | Rule.PUBLIC | Rule.CONNECTED:
                return True
            case Rule.SUPERVISOR:
                return caller.is_supervisor
            case Rule.OPERATOR:
                operates = caller.licensed and caller.role is Role.OPERATOR
                return caller.is_supervisor or operates or caller.identity.name == self._node_lei()
            case Rule.NODE:
                return False

    def _numbers_of(self, registry: Registry) -> Mapping[str, int]:
        """Return the register's numbers by LEI; made once a register, for it never changes."""
        known, numbers = self._numbers
        if known is not registry:
            numbers = {party.lei: number for number, party in enumerate(registry.participants)}
            self._numbers = (registry, numbers)
        return numbers


_CALLER: ContextVar[Caller] = ContextVar("caller")


def caller() -> Caller:
    """Return who makes the call that is being served; set by the interceptor for each call's own task."""
    return _CALLER.get()


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Admits each call by `Access` before its handler runs; stands inside the RpcObserver, which answers refusals."""

    def __init__(self, access: Access) -> None:
        """Ask `access`."""
        self._access = access
        self._open: Counter[Identity] = Counter()

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Return the method's handler behind the check; None where nobody serves it."""
        handler = await continuation(handler_call_details)
        return None if handler is None else self._guarded(handler, handler_call_details.method)

    def _guarded(self, handler: Handler, method: str) -> Handler:
        kind = ("stream_" if handler.request_streaming else "unary_") + (
            "stream" if handler.response_streaming else "unary"
        )
        inner = getattr(handler, kind)
        is_stream = inspect.isasyncgenfunction(inner)
        outer = self._generating(method, inner) if is_stream else self._awaiting(method, inner)
        made: Handler = getattr(grpc, f"{kind}_rpc_method_handler")(
            outer,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return made

    def _awaiting(self, method: str, inner: Any) -> Any:
        async def outer(request: Any, context: Context) -> Any:
            with self._admitted(method, context):
                return await inner(request, context)

        return outer

    def _generating(self, method: str, inner: Any) -> Any:
        async def outer(request: Any, context: Context) -> AsyncIterator[Any]:
            # Closed here and not by the garbage collector, so that a left stream frees what it holds at once.
            with self._admitted(method, context):
                async with aclosing(inner(request, context)) as responses:
                    async for response in responses:
                        yield response

        return outer

    @contextmanager
    def _admitted(self, method: str, context: Context) -> Iterator[None]:
        """Surround the handling of one call: whose it is, how many the caller has open, how the node's refusals go out."""
        who = self._access.admit(method, context.auth_context())
        # One caller's streams must not take every place that the server has.
        if self._open[who.identity] >= CALLS_PER_CALLER_MAX:
            message = f"{CALLS_PER_CALLER_MAX} calls of yours are open"
            raise refusal(Refusal.TOO_MANY_CALLS, message, TOO_MANY_CALLS_RETRY_MS)
        self._open[who.identity] += 1
        _CALLER.set(who)
        try:
            yield
        except NodeRefusalError as error:
            raise of_refusal(error) from error
        finally:
            self._open[who.identity] -= 1
            if not self._open[who.identity]:
                del self._open[who.identity]
