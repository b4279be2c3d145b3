"""Durable ingest over gRPC with mutual TLS, through the leader's process; the load comes from a process of its own.

Counted when acknowledged: signature, commitments, validation, Merkle tree and fsync lie before the answer.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measure import Figure, Samples, Target
from benchmarks.network import author_of, channel_of, number_of, running
from benchmarks.workload import records
from node.pb.v1 import participant_pb2, participant_pb2_grpc
from node.testnet.layout import LocalNetwork

PARTICIPANTS, ASSETS = 100, 3
SUBMITTERS = ("p01", "p02", "p04", "p05")


@dataclass(frozen=True, slots=True)
class Load:
    """What a load process sends: `count` submissions of `items` from each of `clients`, `window` under way at once."""

    path: Path
    network_id: bytes
    items: int
    count: int
    clients: int
    window: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a load: seconds from the first request to the last answer, and each answer's latency."""

    seconds: float
    latencies: list[float]
    cpu_seconds: float


def prepared(load: Load, client: int) -> list[participant_pb2.SubmitRequest]:
    """Return one client's requests, made and signed before the clock starts."""
    network = LocalNetwork.open(load.path)
    name = SUBMITTERS[client % len(SUBMITTERS)]
    author = author_of(network, name, load.network_id)
    author.prefix = f"{load.items} {load.count} client {client}"
    rng = np.random.default_rng(client)
    last = number_of("p01") + PARTICIPANTS
    submitter, first = number_of(name), number_of("p01")
    return [
        participant_pb2.SubmitRequest(
            transaction=author.submission(
                submitter, records(rng, load.items, submitter, last, ASSETS, first_bank=first)
            ).encode()
        )
        for _ in range(load.count)
    ]


async def send_all(load: Load) -> Outcome:
    """Send everything and wait for the answers."""
    network = LocalNetwork.open(load.path)
    requests = [prepared(load, client) for client in range(load.clients)]
    channels = [
        channel_of(network, SUBMITTERS[client % len(SUBMITTERS)]) for client in range(load.clients)
    ]
    latencies = Samples()

    async def send(stub: participant_pb2_grpc.ParticipantServiceStub, queue: list[object]) -> None:
        while queue:
            request = queue.pop()
            start = time.perf_counter()
            await stub.Submit(request, timeout=120)
            latencies.seconds.append(time.perf_counter() - start)

    for channel in channels:
        await channel.channel_ready()
    start, cpu = time.perf_counter(), time.process_time()
    workers = [
        send(participant_pb2_grpc.ParticipantServiceStub(channel), queue)
        for channel, queue in zip(channels, requests, strict=True)
        for _ in range(load.window)
    ]
    await asyncio.gather(*workers)
    outcome = Outcome(time.perf_counter() - start, latencies.seconds, time.process_time() - cpu)
    for channel in channels:
        await channel.close()
    return outcome


def in_own_process(load: Load) -> Outcome:
    """Run a load in a fresh process, so that it shares no interpreter lock with anything."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(run_load, (load,))


def run_load(load: Load) -> Outcome:
    """Run a load in this process."""
    return asyncio.run(send_all(load))


def bulk(*, quick: bool) -> Figure:
    """Measure submissions of 10,000 items."""
    count = 5 if quick else 60
    with running(PARTICIPANTS, alone=True) as (network, network_id):
        in_own_process(Load(network.path, network_id, 100, 2, 4, 1))
        outcome = in_own_process(Load(network.path, network_id, 10_000, count, 4, 2))
    rate = 4 * count * 10_000 / outcome.seconds
    return Figure(
        "durable ingest, submissions of 10,000 items",
        round(rate),
        "obligations/s",
        Target(200_000, "", at_most=False),
        {
            "submissions": 4 * count,
            "client_cpu_s": round(outcome.cpu_seconds, 2),
            "seconds": round(outcome.seconds, 2),
            **Samples(outcome.latencies).summary(),
        },
    )


def small(*, quick: bool) -> list[Figure]:
    """Measure submissions of one item from 64 clients, one under way each."""
    count = 5 if quick else 100
    with running(PARTICIPANTS, alone=True) as (network, network_id):
        outcome = in_own_process(Load(network.path, network_id, 1, count, 64, 1))
    samples = Samples(outcome.latencies)
    return [
        Figure(
            "durable submissions of 1 item, 64 clients",
            round(64 * count / outcome.seconds),
            "submissions/s",
            Target(1_000, "", at_most=False),
            samples.summary(),
        ),
        Figure(
            "their latency, p50",
            samples.percentile_ms(50),
            "ms",
            Target(100, "ms", at_most=True),
        ),
    ]


def run(*, quick: bool) -> list[Figure]:
    """Measure both."""
    return [bulk(quick=quick), *small(quick=quick)]
