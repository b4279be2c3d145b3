"""Obligations through four operators on this machine: the real consensus engine, nodes, gRPC with mutual TLS, all on its cores.

Committed is the acknowledgement: in a block that the engine committed and durable on the node that answers. Final is a checkpoint
that covers it and carries the operators' quorum, as a client is told. The load comes from a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Figure, Samples, Target
from benchmarks.network import author_of
from benchmarks.workload import records
from node.client.session import aio_channel
from node.pb.v1 import participant_pb2, participant_pb2_grpc
from node.profile import IdentityDirectory
from node.testnet.control import start_network, stop_network
from node.testnet.layout import LocalNetwork
from node.testnet.make import make_network
from node.testnet.plan import Engine, numbered_parties, plan_of
from node.testnet.status import observed

PARTICIPANTS, ASSETS = 100, 3
SUBMITTERS = ("p01", "p02", "p04", "p05")
SECONDS, SECONDS_QUICK = 60.0, 5.0
RATE_PREPARED = 24_000
"""Obligations a second that are made before the clock starts: more than such a machine takes."""

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent: submissions of `items` for `seconds`, from each submitter `window` under way at most.

    offered_per_s: obligations offered a second, evenly; 0 for as many as are taken.
    """

    path: Path
    network_id: bytes
    items: int
    seconds: float
    window: int
    offered_per_s: int = 0

    @property
    def interval_s(self) -> float:
        """How long after one submission a sender begins the next, 0 for at once."""
        if not self.offered_per_s:
            return 0.0
        return self.items * len(SUBMITTERS) * self.window / self.offered_per_s


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: seconds, submissions, and how long each took until committed and until final, in seconds."""

    seconds: float
    count: int
    committed: list[float]
    final: list[float]


def prepared(load: Load, place: int) -> list[Any]:
    """Return one submitter's requests, made and signed before the clock starts."""
    network = LocalNetwork.open(load.path)
    name = SUBMITTERS[place]
    names = [party.name for party in network.parties]
    author = author_of(network, name, load.network_id)
    author.prefix = f"{load.items} {load.seconds} {load.offered_per_s} {place} {time.time_ns()}"
    rng = np.random.default_rng(place)
    first, submitter = names.index("p01"), names.index(name)
    rate = load.offered_per_s or RATE_PREPARED
    count = int(load.seconds * rate / load.items / len(SUBMITTERS)) + load.window
    return [
        participant_pb2.SubmitRequest(
            transaction=author.submission(
                submitter,
                records(rng, load.items, submitter, len(names), ASSETS, first_bank=first),
            ).encode()
        )
        for _ in range(count)
    ]


async def watch(stub: Any, waiting: list[tuple[int, float]], final: list[float]) -> None:
    """Note for each committed submission when the first final checkpoint covers it."""
    async for message in stub.WatchCheckpoints(participant_pb2.WatchCheckpointsRequest()):
        size, now = int(message.checkpoint.note.split("\n")[1]), time.perf_counter()
        covered = [one for one in waiting if one[0] < size]
        for one in covered:
            waiting.remove(one)
            final.append(now - one[1])


async def all_final(waiting: list[tuple[int, float]]) -> None:
    """Wait until nothing waits to become final."""
    while waiting:  # noqa: ASYNC110 - looked at twenty times a second, after the clock was stopped
        await asyncio.sleep(0.05)


async def send_all(load: Load) -> Outcome:
    """Send for the time given, each submitter to an operator of its own, and wait for what is under way."""
    network = LocalNetwork.open(load.path)
    queues = [prepared(load, place) for place in range(len(SUBMITTERS))]
    channels = [
        aio_channel(
            IdentityDirectory.open(network.identity_path(name)).tls,
            network.endpoint(network.plan.operators[place % len(network.plan.operators)]),
        )
        for place, name in enumerate(SUBMITTERS)
    ]
    for channel in channels:
        await channel.channel_ready()
    stubs = [participant_pb2_grpc.ParticipantServiceStub(channel) for channel in channels]
    committed: list[float] = []
    final: list[float] = []
    waiting: list[tuple[int, float]] = []
    watching = asyncio.create_task(watch(stubs[0], waiting, final))
    start = time.perf_counter()

    async def send(stub: Any, queue: list[Any], sender: int) -> None:
        await asyncio.sleep(load.interval_s * sender / (load.window * len(stubs)))
        while queue and time.perf_counter() - start < load.seconds:
            request, began = queue.pop(), time.perf_counter()
            answer = await stub.Submit(request, timeout=120)
            committed.append(time.perf_counter() - began)
            waiting.append((answer.receipt.log_index, began))
            await asyncio.sleep(max(0.0, began + load.interval_s - time.perf_counter()))

    await asyncio.gather(
        *(
            send(stub, queue, turn * len(stubs) + place)
            for place, (stub, queue) in enumerate(zip(stubs, queues, strict=True))
            for turn in range(load.window)
        )
    )
    seconds = time.perf_counter() - start
    # What was committed last becomes final within a second or two; what does not is seen by its number.
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(all_final(waiting), 30)
    watching.cancel()
    for channel in channels:
        await channel.close()
    return Outcome(seconds, len(committed), committed, final)


def run_load(load: Load) -> Outcome:
    """Run a load in this process."""
    return asyncio.run(send_all(load))


@dataclass(slots=True)
class Usage:
    """CPU and memory of a network's processes, by what they are: node, engine, supervisor, follower."""

    network: LocalNetwork

    def pids(self) -> dict[str, list[int]]:
        """Return the pids of each kind."""
        kinds: dict[str, list[int]] = {"node": [], "engine": [], "supervisor": [], "follower": []}
        for process in self.network.processes():
            if process.name not in self.network.plan.operators:
                kinds["follower"] += process.family()
                continue
            supervisor, *children = process.family()
            kinds["supervisor"].append(supervisor)
            for pid in children:
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                kinds["engine" if name == "cometbft" else "node"].append(pid)
        return kinds

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds that each kind has used so far."""
        found = {}
        for kind, pids in self.pids().items():
            fields = [
                Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids
            ]
            found[kind] = sum(int(one[11]) + int(one[12]) for one in fields) / TICKS
        return found

    def rss_mib(self) -> dict[str, float]:
        """Return the greatest resident memory of one process of each kind, now."""
        return {
            kind: round(
                max(
                    (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids),
                    default=0,
                )
                * PAGE_BYTES
                / 2**20,
                1,
            )
            for kind, pids in self.pids().items()
        }

    def disk_mib(self) -> dict[str, float]:
        """Return what the first operator's stores take on disk."""
        path = self.network.node_path(self.network.plan.operators[0])
        stores = {"ledger": path / "data", "engine": path / "consensus" / "data"}
        stores |= {f"engine {one.name}": one for one in stores["engine"].iterdir() if one.is_dir()}
        return {name: round(_on_disk(store) / 2**20, 1) for name, store in stores.items()}


def _on_disk(directory: Path) -> int:
    total = 0
    for file in directory.rglob("*"):
        # Engines remove files while they are counted.
        try:
            total += file.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


@contextmanager
def running() -> Iterator[tuple[LocalNetwork, bytes]]:
    """Run a network of four operators and two witnesses in a temporary directory, and give it with its id."""
    with tempfile.TemporaryDirectory() as name:
        parties = numbered_parties(PARTICIPANTS)
        network = make_network(Path(name) / "network", parties, plan=plan_of(Engine.COMETBFT))
        start_network(network, 120)
        try:
            with observed(network) as observer:
                status = observer.node(network.plan.operators[0]).status
            if status is None:
                raise TimeoutError("an operator does not answer")
            yield network, status.network_id
        finally:
            stop_network(network)


def measured(network: LocalNetwork, load: Load) -> tuple[Outcome, dict[str, Any]]:
    """Run a load in a fresh process; return what came of it and what it cost."""
    usage = Usage(network)
    before, disk_before = usage.cpu_s(), usage.disk_mib()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        outcome = pool.apply(run_load, (load,))
    after, disk = usage.cpu_s(), usage.disk_mib()
    committed, final = Samples(outcome.committed), Samples(outcome.final)
    details = {
        "submissions": outcome.count,
        "seconds": round(outcome.seconds, 1),
        "committed_ms_p50": committed.percentile_ms(50),
        "committed_ms_p95": committed.percentile_ms(95),
        "final_ms_p50": final.percentile_ms(50),
        "final_ms_p95": final.percentile_ms(95),
        "cpu_cores": {
            kind: round((after[kind] - before[kind]) / outcome.seconds, 2) for kind in after
        },
        "rss_mib_max": usage.rss_mib(),
        "disk_mib_grown": {
            name: round(size - disk_before.get(name, 0), 1) for name, size in disk.items()
        },
    }
    return outcome, details


def run(*, quick: bool) -> list[Figure]:
    """Measure what is taken at most, latency at the rate to be reached, and latency under light load."""
    seconds = SECONDS_QUICK if quick else SECONDS
    figures = []
    with running() as (network, network_id):
        for items, window in ((1_000, 4), (2_500, 2)):
            outcome, details = measured(
                network, Load(network.path, network_id, items, seconds, window)
            )
            figures.append(
                Figure(
                    f"four operators, submissions of {items:,}, as many as they take",
                    round(outcome.count * items / outcome.seconds),
                    "obligations/s",
                    Target(6_000, "", at_most=False),
                    details,
                )
            )
        for offered, limit_ms, part in ((6_500, 1_000, 1.0), (2_000, 400, 0.5)):
            load = Load(network.path, network_id, 1_000, seconds * part, 4, offered)
            outcome, details = measured(network, load)
            figures.append(
                Figure(
                    f"time to committed, p50, at {offered:,} obligations/s in submissions of 1,000",
                    details["committed_ms_p50"],
                    "ms",
                    Target(limit_ms, "ms", at_most=True),
                    details,
                )
            )
    return figures
