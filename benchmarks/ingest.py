"""Durable ingest over gRPC with mutual TLS, through the leader's process; the load comes from a process of its own.

Counted when acknowledged: signature, commitments, validation, Merkle tree and fsync lie before the answer.
"""

from __future__ import annotations

import asyncio
import dataclasses
import multiprocessing
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measure import Figure, Samples, Target
from benchmarks.network import author_of, channel_of, leader_cpu_seconds, number_of, running
from benchmarks.workload import records
from node.pb.v1 import participant_pb2, participant_pb2_grpc
from node.testnet.layout import LocalNetwork

PARTICIPANTS, ASSETS = 100, 3
ROUNDS = 3
SUBMITTERS = ("p01", "p02", "p04", "p05")


@dataclass(frozen=True, slots=True)
class Load:
    """What a load process sends: `count` submissions of `items` from each of `clients`, `window` under way at once.

    round: tells the ids of one run from those of another.
    """

    path: Path
    network_id: bytes
    items: int
    count: int
    clients: int
    window: int
    round: int = 0


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
    author.prefix = f"{load.items} {load.round} client {client}"
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


def rounds(load: Load, of: int) -> tuple[list[Outcome], float]:
    """Run a load `of` times, one after the other; return what came of each, and the leader's seconds of computing."""
    network = LocalNetwork.open(load.path)
    before = leader_cpu_seconds(network)
    outcomes = [in_own_process(dataclasses.replace(load, round=number)) for number in range(of)]
    return outcomes, leader_cpu_seconds(network) - before


def rate_figure(
    name: str, target: Target, load: Load, outcomes: list[Outcome], leader_cpu_s: float
) -> Figure:
    """Return the rate of the median round, with the others and the latencies of all."""
    counted = load.clients * load.count * load.items
    rates = sorted(round(counted / outcome.seconds) for outcome in outcomes)
    latencies = [latency for outcome in outcomes for latency in outcome.latencies]
    details = {
        "rounds": rates,
        "client_cpu_s": round(sum(outcome.cpu_seconds for outcome in outcomes), 2),
        "leader_cpu_s": round(leader_cpu_s, 2),
        "per_leader_cpu_s": round(counted * len(outcomes) / leader_cpu_s),
    }
    return Figure(
        name,
        rates[len(rates) // 2],
        target.unit,
        target,
        details | Samples(latencies).summary(),
    )


def bulk(*, quick: bool) -> Figure:
    """Measure submissions of 10,000 items."""
    with running(PARTICIPANTS, alone=True) as (network, network_id):
        in_own_process(Load(network.path, network_id, 100, 2, 4, 1, round=ROUNDS))
        load = Load(network.path, network_id, 10_000, 5 if quick else 25, 4, 2)
        outcomes, cpu = rounds(load, 1 if quick else ROUNDS)
    name = "durable ingest, submissions of 10,000 items"
    return rate_figure(name, Target(200_000, "obligations/s", at_most=False), load, outcomes, cpu)


def small(*, quick: bool) -> list[Figure]:
    """Measure submissions of one item from 64 clients, one under way each."""
    with running(PARTICIPANTS, alone=True) as (network, network_id):
        load = Load(network.path, network_id, 1, 5 if quick else 50, 64, 1)
        outcomes, cpu = rounds(load, 1 if quick else ROUNDS)
    latencies = Samples([latency for outcome in outcomes for latency in outcome.latencies])
    name = "durable submissions of 1 item, 64 clients"
    return [
        rate_figure(name, Target(1_000, "submissions/s", at_most=False), load, outcomes, cpu),
        Figure(
            "their latency, p50",
            latencies.percentile_ms(50),
            "ms",
            Target(100, "ms", at_most=True),
        ),
    ]


def run(*, quick: bool) -> list[Figure]:
    """Measure both."""
    return [bulk(quick=quick), *small(quick=quick)]
