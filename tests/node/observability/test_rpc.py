"""Every RPC is counted once by its true code, and no text of a defect reaches a client."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from clearing.errors import InvariantViolation
from node.config import LogLevel
from node.observability import Metrics, RpcObserver, configure_logging
from node.rpc_errors import DETAILS_KEY, Refusal, decode_details, refusal

SECRET = "the amount is 123456789"
Context = grpc.aio.ServicerContext


class Defects(list[InvariantViolation]):
    """What the runtime was told."""


async def fine(request: bytes, _context: Context) -> bytes:
    return request


async def missing(_request: bytes, context: Context) -> bytes:
    await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")


async def set_code(_request: bytes, context: Context) -> bytes:
    context.set_code(grpc.StatusCode.OUT_OF_RANGE)
    return b""


async def refused(_request: bytes, _context: Context) -> bytes:
    raise refusal(Refusal.QUEUE_FULL, "the queue is full", 250)


async def broken(_request: bytes, _context: Context) -> bytes:
    raise KeyError(SECRET)


async def contradicted(_request: bytes, _context: Context) -> bytes:
    raise InvariantViolation(SECRET)


async def slow(_request: bytes, _context: Context) -> bytes:
    await asyncio.sleep(60)
    return b""


def blocking(_request: bytes, _context: Context) -> bytes:
    return b""


def unparsable(_data: bytes) -> bytes:
    raise ValueError(SECRET)


closed = asyncio.Event()


async def counting(_request: bytes, _context: Context) -> AsyncIterator[bytes]:
    try:
        for number in range(1_000_000):
            yield b"%d" % number
            await asyncio.sleep(0)
    finally:
        closed.set()


async def three(_request: bytes, _context: Context) -> AsyncIterator[bytes]:
    for number in range(3):
        yield b"%d" % number


async def breaking(_request: bytes, _context: Context) -> AsyncIterator[bytes]:
    yield b"0"
    raise KeyError(SECRET)


async def writing(_request: bytes, context: Context) -> None:
    await context.write(b"0")
    await context.write(b"1")


async def joined(requests: AsyncIterator[bytes], _context: Context) -> bytes:
    return b"".join([request async for request in requests])


async def echoed(requests: AsyncIterator[bytes], _context: Context) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


unary = grpc.unary_unary_rpc_method_handler
HANDLERS = {
    "Fine": unary(fine),
    "Missing": unary(missing),
    "SetCode": unary(set_code),
    "Refused": unary(refused),
    "Broken": unary(broken),
    "Contradicted": unary(contradicted),
    "Slow": unary(slow),
    "Blocking": unary(blocking),
    "Unparsable": unary(fine, request_deserializer=unparsable),
    "Parsed": unary(fine, request_deserializer=bytes.upper, response_serializer=bytes.swapcase),
    "Counting": grpc.unary_stream_rpc_method_handler(counting),
    "Three": grpc.unary_stream_rpc_method_handler(three),
    "Breaking": grpc.unary_stream_rpc_method_handler(breaking),
    "UnparsableStream": grpc.unary_stream_rpc_method_handler(
        three, request_deserializer=unparsable
    ),
    "Writing": grpc.unary_stream_rpc_method_handler(writing),
    "Joined": grpc.stream_unary_rpc_method_handler(joined),
    "Echoed": grpc.stream_stream_rpc_method_handler(echoed),
}


class Gate(grpc.aio.ServerInterceptor):
    """An inner interceptor that fails for one method."""

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        if details.method.endswith("Gate"):
            raise RuntimeError(SECRET)
        return await continuation(details)


@asynccontextmanager
async def serving(metrics: Metrics, defects: Defects) -> AsyncIterator[grpc.aio.Channel]:
    """Serve HANDLERS, observed, and yield a channel to them."""
    server = grpc.aio.server(interceptors=(RpcObserver(metrics, defects.append), Gate()))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", HANDLERS),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    configure_logging(LogLevel.INFO, stream, node="n")
    yield stream
    structlog.reset_defaults()
    root.handlers, root.level = handlers, level


def run(body: Callable[[grpc.aio.Channel], Awaitable[None]]) -> tuple[Metrics, Defects]:
    """Run `body` against a server and return what was counted and told."""
    metrics, defects = Metrics(), Defects()

    async def whole() -> None:
        async with serving(metrics, defects) as channel:
            await body(channel)

    asyncio.run(whole())
    return metrics, defects


def ended(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Return the number of RPCs by method and code, and check that none is still open."""
    assert metrics.registry.get_sample_value("clearing_rpcs_open") == 0
    counts = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            if sample.name == "clearing_rpcs_total":
                counts[sample.labels["method"].removeprefix("/t.T/"), sample.labels["code"]] = (
                    sample.value
                )
    return counts


async def failure(
    channel: grpc.aio.Channel, method: str, within_s: float = 20
) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(f"/t.T/{method}")(b"r", timeout=within_s)
    return caught.value


def test_answers_and_refusals_pass_unchanged(log: io.StringIO) -> None:
    async def body(channel: grpc.aio.Channel) -> None:
        assert await channel.unary_unary("/t.T/Fine")(b"r") == b"r"
        assert await channel.unary_unary("/t.T/Fine")(b"") == b""
        assert await channel.unary_unary("/t.T/Parsed")(b"r") == b"r"
        error = await failure(channel, "Missing")
        assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing")
        assert (await failure(channel, "SetCode")).code() is grpc.StatusCode.OUT_OF_RANGE
        error = await failure(channel, "Refused")
        details = dict(error.trailing_metadata())[DETAILS_KEY]
        told = decode_details(error.code(), error.details() or "", details)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert told is not None
        assert (told.reason, told.retry_after_ms) == ("QUEUE_FULL", 250)

    metrics, defects = run(body)
    assert ended(metrics) == {
        ("Fine", "OK"): 2,
        ("Parsed", "OK"): 1,
        ("Missing", "NOT_FOUND"): 1,
        ("SetCode", "OUT_OF_RANGE"): 1,
        ("Refused", "RESOURCE_EXHAUSTED"): 1,
    }
    assert not defects
    assert log.getvalue() == ""


@pytest.mark.parametrize("method", ["Broken", "Contradicted", "Gate", "Blocking"])
def test_defects_become_incidents(log: io.StringIO, method: str) -> None:
    seen: list[str] = []

    async def body(channel: grpc.aio.Channel) -> None:
        error = await failure(channel, method)
        assert error.code() is grpc.StatusCode.INTERNAL
        told = decode_details(
            error.code(), error.details() or "", dict(error.trailing_metadata())[DETAILS_KEY]
        )
        assert told is not None
        assert told.reason == "INTERNAL"
        assert SECRET not in repr(error)
        assert "123456789" not in repr(error) + repr(told)
        assert told.metadata["incident"] in (error.details() or "")
        seen.append(told.metadata["incident"])
        # The node goes on.
        assert await channel.unary_unary("/t.T/Fine")(b"r") == b"r"

    metrics, defects = run(body)
    assert ended(metrics) == {(method, "INTERNAL"): 1, ("Fine", "OK"): 1}
    assert metrics.registry.get_sample_value("clearing_incidents_total") == 1
    (line,) = [json.loads(text) for text in log.getvalue().splitlines()]
    assert line["incident"] == seen[0]
    assert line["level"] == "error"
    assert line["rpc"] == f"/t.T/{method}"
    assert "Traceback" in line["traceback"]
    assert "123456789" not in log.getvalue()
    assert len(defects) == (1 if method in ("Contradicted", "Blocking") else 0)


def test_bytes_that_are_no_request_are_the_clients_mistake(log: io.StringIO) -> None:
    async def body(channel: grpc.aio.Channel) -> None:
        error = await failure(channel, "Unparsable")
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "published .proto" in (error.details() or "")
        assert SECRET not in repr(error)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [one async for one in channel.unary_stream("/t.T/UnparsableStream")(b"r")]
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    metrics, _ = run(body)
    assert ended(metrics) == {
        ("Unparsable", "INVALID_ARGUMENT"): 1,
        ("UnparsableStream", "INVALID_ARGUMENT"): 1,
    }
    assert metrics.registry.get_sample_value("clearing_incidents_total") == 0
    assert log.getvalue() == ""


def test_invented_methods_add_no_metrics(log: io.StringIO) -> None:
    async def body(channel: grpc.aio.Channel) -> None:
        for number in range(50):
            assert (await failure(channel, f"N{number}")).code() is grpc.StatusCode.UNIMPLEMENTED

    metrics, _ = run(body)
    assert ended(metrics) == {("unknown", "UNIMPLEMENTED"): 50}


def test_deadlines_and_cancellations_are_told_apart(log: io.StringIO) -> None:
    async def body(channel: grpc.aio.Channel) -> None:
        assert (await failure(channel, "Slow", 0.2)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        call = channel.unary_unary("/t.T/Slow")(b"")
        await asyncio.sleep(0.2)
        call.cancel()
        timed = channel.unary_unary("/t.T/Slow")(b"", timeout=60)
        await asyncio.sleep(0.2)
        timed.cancel()

    metrics, _ = run(body)
    assert ended(metrics) == {("Slow", "DEADLINE_EXCEEDED"): 1, ("Slow", "CANCELLED"): 2}
    assert log.getvalue() == ""


def test_streams_are_counted_too(log: io.StringIO) -> None:
    async def body(channel: grpc.aio.Channel) -> None:
        assert [one async for one in channel.unary_stream("/t.T/Three")(b"")] == [b"0", b"1", b"2"]
        assert [one async for one in channel.unary_stream("/t.T/Writing")(b"")] == [b"0", b"1"]
        assert await channel.stream_unary("/t.T/Joined")(iter([b"a", b"b"])) == b"ab"
        echoes = channel.stream_stream("/t.T/Echoed")(iter([b"a", b"b"]))
        assert [one async for one in echoes] == [b"a", b"b"]
        call = channel.unary_stream("/t.T/Breaking")(b"")
        assert await call.read() == b"0"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert SECRET not in repr(caught.value)

    metrics, _ = run(body)
    assert ended(metrics) == {
        ("Three", "OK"): 1,
        ("Writing", "OK"): 1,
        ("Joined", "OK"): 1,
        ("Echoed", "OK"): 1,
        ("Breaking", "INTERNAL"): 1,
    }


def test_stream_that_its_reader_leaves_is_closed_and_counted(log: io.StringIO) -> None:
    async def body(channel: grpc.aio.Channel) -> None:
        closed.clear()
        call = channel.unary_stream("/t.T/Counting")(b"")
        async for one in call:
            if one == b"10":
                break
        call.cancel()
        async with asyncio.timeout(20):
            await closed.wait()
        await asyncio.sleep(0.05)

    metrics, _ = run(body)
    assert ended(metrics) == {("Counting", "CANCELLED"): 1}


def test_health_and_reflection_are_observed_too(log: io.StringIO) -> None:
    """grpcio's own services are async and of other kinds than ours."""
    metrics, defects = Metrics(), Defects()

    async def whole() -> None:
        server = grpc.aio.server(interceptors=(RpcObserver(metrics, defects.append),))
        health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
        reflection.enable_server_reflection(("grpc.health.v1.Health",), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            watch = stub.Watch(health_pb2.HealthCheckRequest(service="none"))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            watch.cancel()
            reflected = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                iter([reflection_pb2.ServerReflectionRequest(list_services="")])
            )
            names = [one.name async for one in _services(reflected)]
            assert names == ["grpc.health.v1.Health"]
        await server.stop(0)

    asyncio.run(whole())
    prefix = "/grpc.health.v1.Health/"
    counts = {key: number for key, number in ended(metrics).items() if key[0].startswith(prefix)}
    assert counts == {(f"{prefix}Check", "OK"): 1, (f"{prefix}Watch", "CANCELLED"): 1}
    assert sum(ended(metrics).values()) == 3
    assert log.getvalue() == ""


async def _services(responses: Any) -> AsyncIterator[Any]:
    async for response in responses:
        for service in response.list_services_response.service:
            yield service
