"""From submission to finality at quorum, five nodes on this machine, light load.

Final is a checkpoint that covers the submission's leaf and satisfies the network's policy, as the client sees it.
"""

from __future__ import annotations

import asyncio
import time

import numpy as np

from benchmarks.measure import Figure, Samples, Target
from benchmarks.network import author_of, channel_of, number_of, running
from benchmarks.workload import records
from node.pb.v1 import participant_pb2, participant_pb2_grpc
from node.testnet.layout import LocalNetwork

PARTICIPANTS, ASSETS = 6, 3
PAUSE_S = 0.2


async def measure(network: LocalNetwork, network_id: bytes, count: int) -> tuple[Samples, Samples]:
    """Submit one item at a time with a pause between; return times to acknowledgement and to finality."""
    recorded, final = Samples(), Samples()
    author = author_of(network, "p01", network_id)
    rng = np.random.default_rng(3)
    first = number_of("p01")
    channel = channel_of(network, "p01")
    stub = participant_pb2_grpc.ParticipantServiceStub(channel)
    sizes = asyncio.Queue[int]()

    async def watch() -> None:
        request = participant_pb2.WatchCheckpointsRequest(since_size=0)
        async for message in stub.WatchCheckpoints(request):
            note = message.checkpoint.note
            sizes.put_nowait(int(note.split("\n")[1]))

    watching = asyncio.create_task(watch())
    for _ in range(count):
        obligations = records(rng, 1, first, first + PARTICIPANTS, ASSETS, first_bank=first)
        transaction = author.submission(first, obligations).encode()
        start = time.perf_counter()
        answer = await stub.Submit(
            participant_pb2.SubmitRequest(transaction=transaction), timeout=30
        )
        recorded.seconds.append(time.perf_counter() - start)
        while await asyncio.wait_for(sizes.get(), 30) <= answer.receipt.log_index:
            pass
        final.seconds.append(time.perf_counter() - start)
        await asyncio.sleep(PAUSE_S)
    watching.cancel()
    await channel.close()
    return recorded, final


def run(*, quick: bool) -> list[Figure]:
    """Measure 100 submissions (10 when quick)."""
    with running(PARTICIPANTS, alone=False) as (network, network_id):
        recorded, final = asyncio.run(measure(network, network_id, 10 if quick else 100))
    return [
        Figure(
            "submitted to durable, p50", recorded.percentile_ms(50), "ms", None, recorded.summary()
        ),
        Figure(
            "submitted to final at quorum, p50",
            final.percentile_ms(50),
            "ms",
            Target(500, "ms", at_most=True),
            final.summary(),
        ),
    ]
