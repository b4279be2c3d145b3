"""A server interceptor that counts every RPC and keeps the texts of defects from clients.

Lives here: what surrounds every RPC, whoever serves it; it is the outermost interceptor. May not
live here: authorisation (auth), what a refusal says (rpc_errors).

Invariants: a client never sees the text of an unexpected exception, only an incident id by which
the operator finds it in the log; bytes that are no request are INVALID_ARGUMENT; a method that
nobody serves adds no metric of its own.
Source: own design: neither OpenTelemetry nor grpcio-observability has metrics of grpc.aio servers
(open-telemetry/opentelemetry-python-contrib#3375, grpc/grpc#39061).
"""

from __future__ import annotations

import inspect
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn, TypeAlias

import grpc
import structlog

from clearing.errors import InvariantViolation, invariant
from node.observability.logs import get_logger
from node.observability.metrics import Metrics
from node.rpc_errors import DETAILS_KEY, Refusal, RpcError, encode_details, refusal

UNKNOWN_METHOD = "unknown"
"""Label of all methods that are not served: their names are the client's to invent."""

# Quoted: only the stubs know these classes as generic.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"
OnDefect = Callable[[InvariantViolation], None]

_log = get_logger()


class RpcObserver(grpc.aio.ServerInterceptor):
    """Counts and times every RPC; an unexpected exception is INTERNAL with an incident id.

    An `RpcError` that a handler raises becomes its status and details. An InvariantViolation is
    also handed to `on_defect`, before the client is answered: the runtime stops the node by it.
    Handlers must be async.
    """

    def __init__(self, metrics: Metrics, on_defect: OnDefect) -> None:
        """Count into `metrics`."""
        self._metrics = metrics
        self._on_defect = on_defect
        self._handlers: dict[str, Handler] = {}

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Return the handler of the method, observed; None where nobody serves it."""
        method = handler_call_details.method
        # A method's handler does not depend on the call, and gRPC asks at every call.
        known = self._handlers.get(method)
        if known is not None:
            return known
        try:
            handler = await continuation(handler_call_details)
            if handler is not None:
                return self._handlers.setdefault(method, self._observed(method, handler))
        except Exception as error:  # noqa: BLE001 - a failed inner interceptor is answered like a failed handler
            return self._failing(method, error)
        self._metrics.rpc_opened()
        self._metrics.rpc_ended(UNKNOWN_METHOD, grpc.StatusCode.UNIMPLEMENTED.name, 0)
        return None

    def _failing(self, method: str, error: Exception) -> Handler:
        """Return a handler that answers any call with `error`."""

        async def fail(_request: Any, context: Context) -> None:
            rpc = _Rpc(self._metrics, method, context, self._on_defect)
            try:
                await rpc.fail(error)
            finally:
                rpc.end()

        return grpc.unary_unary_rpc_method_handler(fail)

    def _observed(self, method: str, handler: Handler) -> Handler:
        kind = ("stream_" if handler.request_streaming else "unary_") + (
            "stream" if handler.response_streaming else "unary"
        )
        inner = getattr(handler, kind)
        # A single request is parsed here, so that bytes which are none do not end as gRPC's
        # UNKNOWN.
        own_parsing = not handler.request_streaming
        parse = handler.request_deserializer if own_parsing else None
        if inspect.isasyncgenfunction(inner):
            outer = self._generating(method, inner, parse)
        else:
            invariant(inspect.iscoroutinefunction(inner), f"the handler of {method} is not async")
            outer = self._awaiting(method, inner, parse)
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        made: Handler = make(
            outer,
            request_deserializer=None if own_parsing else handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return made

    def _awaiting(self, method: str, inner: Any, parse: Any) -> Any:
        async def outer(request: Any, context: Context) -> Any:
            rpc = _Rpc(self._metrics, method, context, self._on_defect)
            try:
                return await inner(rpc.parsed(request, parse), context)
            except BaseException as error:  # noqa: BLE001 - fail raises for each
                await rpc.fail(error)
            finally:
                rpc.end()

        return outer

    def _generating(self, method: str, inner: Any, parse: Any) -> Any:
        async def outer(request: Any, context: Context) -> AsyncIterator[Any]:
            rpc = _Rpc(self._metrics, method, context, self._on_defect)
            try:
                # Closed here and not by the garbage collector, so that a left stream frees what it
                # holds at once.
                async with aclosing(inner(rpc.parsed(request, parse), context)) as responses:
                    async for response in responses:
                        yield response
            except BaseException as error:  # noqa: BLE001 - fail raises for each
                await rpc.fail(error)
            finally:
                rpc.end()

        return outer


class _Rpc:
    """One RPC from its opening to its end."""

    def __init__(
        self, metrics: Metrics, method: str, context: Context, on_defect: OnDefect
    ) -> None:
        self._metrics = metrics
        self._method = method
        self._context = context
        self._on_defect = on_defect
        self._started = time.perf_counter()
        self._left = False
        metrics.rpc_opened()
        structlog.contextvars.bind_contextvars(rpc=method)

    def parsed(self, request: Any, parse: Callable[[bytes], Any] | None) -> Any:
        """Return the request as a message. Raises: RpcError: the bytes are none."""
        if parse is None:
            return request
        try:
            return parse(request)
        except Exception as error:
            # Whatever a parser raises, it raises because of the client's bytes; its text may quote
            # them.
            raise refusal(
                Refusal.BAD_REQUEST,
                "the request is not a message of this method: make it with the published .proto files",
            ) from error

    async def fail(self, error: BaseException) -> NoReturn:
        """End the RPC by what `error` means: a refusal, a cancellation, or a defect of ours."""
        if isinstance(error, grpc.aio.AbortError):
            raise error
        if not isinstance(error, Exception):
            # Cancelled, or a stream that its reader left.
            self._left = True
            raise error
        told = error if isinstance(error, RpcError) else self._incident(error)
        await self._context.abort(told.status, told.message, ((DETAILS_KEY, encode_details(told)),))
        raise InvariantViolation("abort returned")

    def _incident(self, error: Exception) -> RpcError:
        incident = secrets.token_hex(8)
        self._metrics.incident()
        _log.error("rpc failed unexpectedly", incident=incident, exc_info=error)
        if isinstance(error, InvariantViolation):
            self._on_defect(error)
        return refusal(Refusal.INTERNAL, f"the node failed, incident {incident}", incident=incident)

    def _code(self) -> str:
        if self._left:
            # gRPC cancels what outlived its deadline; exactly 0 is left then, and None where there
            # was none.
            passed = self._context.time_remaining() == 0
            return (grpc.StatusCode.DEADLINE_EXCEEDED if passed else grpc.StatusCode.CANCELLED).name
        code = self._context.code()
        return code.name if isinstance(code, grpc.StatusCode) else grpc.StatusCode.OK.name

    def end(self) -> None:
        """Count the RPC by its code."""
        self._metrics.rpc_ended(self._method, self._code(), time.perf_counter() - self._started)
