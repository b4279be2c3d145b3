"""An operator among several: whom it feeds, and how its heads reach the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import grpc
import pytest

from clearing.errors import VerificationError
from clearing.log.checkpoint import Checkpoint
from node.replication import operators
from node.replication.operators import OperatorRule, Peers
from node.services.facade import NodeCondition, NotServingError
from tests.node.sequencer.heads_kit import (
    FIRST,
    ORIGIN,
    POLICY,
    SECOND,
    HeadsBench,
    cosigned,
    heads_bench,
)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[HeadsBench]:
    with heads_bench(tmp_path / "s") as one:
        one.grow(2)
        yield one


@pytest.fixture
def rule(made: HeadsBench) -> OperatorRule:
    return OperatorRule(made.store, POLICY, ORIGIN)


def test_it_waits_for_nobody(rule: OperatorRule) -> None:
    assert rule.refusal is None
    rule.detect("the database is older")
    assert rule.refusal is None


def test_who_has_this_log_or_less_is_fed(made: HeadsBench, rule: OperatorRule) -> None:
    rule.report("first", b"")
    rule.report("first", cosigned(made.checkpoint(), FIRST).encode())


def test_who_is_ahead_is_sent_to_another_and_nothing_else_follows(
    made: HeadsBench, rule: OperatorRule
) -> None:
    ahead = Checkpoint(ORIGIN, made.checkpoint().size + 2, b"\1" * 32)
    with pytest.raises(NotServingError, match="follow another one") as refused:
        rule.report("first", cosigned(ahead, FIRST, by_log=True).encode())
    assert refused.value.condition is NodeCondition.CATCHING_UP
    assert rule.refusal is None


@pytest.mark.parametrize("origin", [ORIGIN, "another.example/log"])
def test_who_holds_another_history_is_not_fed(
    made: HeadsBench, rule: OperatorRule, origin: str
) -> None:
    other = Checkpoint(origin, made.checkpoint().size, b"\1" * 32)
    with pytest.raises(VerificationError):
        rule.report("first", cosigned(other, FIRST).encode())
    with pytest.raises(VerificationError, match="no witness"):
        rule.report("stranger", cosigned(made.checkpoint(), FIRST).encode())
    with pytest.raises(VerificationError):
        rule.report("first", cosigned(made.checkpoint(), SECOND).encode())


class Inbox:
    """A link that keeps what it is given, and fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.notes: list[bytes] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def add_cosignature(self, note: bytes) -> int:
        if self.failures:
            self.failures -= 1
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "away"
            )
        self.notes.append(note)
        return 0


async def eventually(condition) -> None:
    for _ in range(1_000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("timed out")


def test_one_defect_ends_all_sending_so_that_all_begin_anew() -> None:
    near = Inbox()

    def defective() -> Inbox:
        raise RuntimeError("cannot start a thread")

    async def play() -> None:
        peers = Peers({"near": lambda: near, "far": defective}, asyncio.get_running_loop())
        with pytest.raises(ExceptionGroup):
            await peers.run()
        peers.offer(b"one")
        await asyncio.sleep(0.05)
        # Nobody sends beside those that are begun anew.
        assert near.notes == []
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(play())


def test_the_newest_note_reaches_every_operator_also_one_that_was_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operators, "PAUSE_S_MIN", 0.01)
    monkeypatch.setattr(operators, "PAUSE_S_MAX", 0.02)
    near, far = Inbox(), Inbox(failures=3)

    async def play() -> None:
        peers = Peers({"near": lambda: near, "far": lambda: far}, asyncio.get_running_loop())
        task = asyncio.create_task(peers.run())
        await asyncio.sleep(0.05)
        assert (near.notes, far.notes) == ([], [])
        peers.offer(b"one")
        await eventually(lambda: near.notes and far.notes)
        assert peers.connected == {"near": True, "far": True}
        peers.offer(b"two")
        await eventually(lambda: near.notes[-1] == far.notes[-1] == b"two")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(play())
    assert far.notes[0] == b"one"
