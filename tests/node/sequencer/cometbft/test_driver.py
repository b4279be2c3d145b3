"""The driver tells each client what became of its transaction, whatever the engine says or does not say."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from clearing.errors import InvariantViolation, RejectCode
from node.sequencer.cometbft import driver as module
from node.sequencer.cometbft.application import CODE_RECORDED
from node.sequencer.cometbft.driver import SENDERS, CometSequencer, QueueLimits
from node.sequencer.cometbft.home import TRANSACTION_BYTES_MAX, Sockets
from node.sequencer.driver import Hooks, Machine
from node.services.facade import (
    BusyError,
    NodeCondition,
    NotServingError,
    OutcomeUnknownError,
    TooLargeError,
)
from node.store import StoreBusyError
from tests.ledger_kit import P01, P02, item
from tests.node.sequencer.cometbft.engine_kit import Engine, Maker
from tests.node.sequencer.cometbft.rpc_kit import BREAK, ScriptedRpc

TAKEN = {"code": 0, "log": ""}
WAIT_S = 30


class Bench(Engine):
    """An engine played by the test, whose application is that of a driver, and whose RPC is scripted."""

    def __init__(self, directory: Path, limits: QueueLimits | None = None) -> None:
        self.halts: list[str] = []
        self.answer: Callable[[str], Any] = lambda _: TAKEN
        sockets = Sockets(directory / "driver.sock", directory / "rpc.sock")
        super().__init__(directory)
        self.server.stop()
        hooks = Hooks(lambda: None, lambda *_: None, self.halts.append)
        self.driver = CometSequencer(self.machine, sockets, directory, hooks, limits)
        self.application = self.driver.application
        self.driver.start()
        self.path = sockets.abci
        for made, reader, writer in self.sockets.values():
            reader.close()
            writer.close()
            made.close()
        self.sockets = {name: self._connect() for name in self.sockets}
        self.rpc = ScriptedRpc(sockets.rpc, self._answered)

    def _answered(self, path: str) -> Any:
        return self.answer(path)

    def close(self) -> None:
        self.driver.stop()
        super().close()

    @property
    def broadcasts(self) -> int:
        return sum("broadcast_tx_sync" in path for path in self.rpc.asked)


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    for name, value in (("WATCH_S", 0.05), ("RESEND_S", 0.2), ("AWAY_S", 0.2), ("STOP_S", 0.1)):
        monkeypatch.setattr(module, name, value)
    with Bench(tmp_path) as made, made.rpc:
        yield made


@pytest.fixture
def maker(bench: Bench) -> Maker:
    return bench.begin()


def owes(maker: Maker, items: int = 1, amount: int = 5):
    return maker.submission(P01, *[item(P01, P02, amount)] * items)


def test_recorded_is_said_when_the_block_is_durable(bench: Bench, maker: Maker) -> None:
    submission = owes(maker)
    future = bench.driver.submit(submission)
    eventually(lambda: bench.broadcasts == 1)
    bench.finalize(submission.encode())
    assert not future.done()
    bench.commit()
    outcome = future.result(WAIT_S)
    assert (outcome.code, outcome.repeated) == (RejectCode.OK, False)
    assert bench.store.tip.height == 1
    assert bench.driver.queued == 0
    # Again: from the store, without the engine.
    assert bench.driver.submit(submission).result(0).repeated
    assert bench.broadcasts == 1


def test_what_a_block_refuses_is_told_item_by_item(bench: Bench, maker: Maker) -> None:
    bad = maker.submission(P01, item(P01, P02, 5), item(P01, P02, 0))
    future = bench.driver.submit(bad)
    bench.block(bad.encode())
    assert future.result(WAIT_S).items == ((1, RejectCode.ZERO_AMOUNT),)


def test_two_clients_with_the_same_bytes_get_the_same_answer(bench: Bench, maker: Maker) -> None:
    submission = owes(maker)
    one, other = bench.driver.submit(submission), bench.driver.submit(submission)
    assert bench.driver.queued == 1
    bench.block(submission.encode())
    assert one.result(WAIT_S) == other.result(WAIT_S)


def test_what_is_in_no_block_is_handed_in_again(bench: Bench, maker: Maker) -> None:
    submission = owes(maker)
    future = bench.driver.submit(submission)
    eventually(lambda: bench.broadcasts >= 3)
    bench.block(submission.encode())
    assert future.result(WAIT_S).code is RejectCode.OK


def test_in_no_block_for_too_long_the_outcome_is_unknown(
    bench: Bench, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNKNOWN_S", 0.3)
    with pytest.raises(OutcomeUnknownError, match="send the same bytes again"):
        bench.driver.submit(owes(maker)).result(WAIT_S)
    assert bench.driver.queued == 0


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("mempool is full: number of txs 3 (max: 3)", BusyError),
        ("endpoint is closed while node is catching up", NotServingError),
        ("something else", NotServingError),
    ],
)
def test_what_the_engine_never_took_is_refused(
    bench: Bench, maker: Maker, answer: str, error: type[Exception]
) -> None:
    bench.answer = lambda _: answer
    with pytest.raises(error):
        bench.driver.submit(owes(maker)).result(WAIT_S)
    assert bench.driver.queued == 0


def test_what_the_engine_may_have_taken_is_waited_for(bench: Bench, maker: Maker) -> None:
    submission = owes(maker)
    answers = iter([BREAK, BREAK])
    bench.answer = lambda _: next(answers, "mempool is full")
    future = bench.driver.submit(submission)
    eventually(lambda: bench.broadcasts >= 3)
    assert not future.done()
    bench.block(submission.encode())
    assert future.result(WAIT_S).code is RejectCode.OK


def test_a_refusal_of_the_check_is_the_answer(bench: Bench, maker: Maker) -> None:
    bench.answer = lambda _: {"code": int(RejectCode.NOT_LICENSED), "log": ""}
    outcome = bench.driver.submit(owes(maker)).result(WAIT_S)
    assert outcome.code is RejectCode.NOT_LICENSED


def test_what_is_certainly_wrong_does_not_reach_the_engine(bench: Bench, maker: Maker) -> None:
    submission = owes(maker)
    forged = type(submission).decode(submission.encode()[:-200] + submission.encode()[-200:])
    other = Maker(b"\7" * 32, 1_000).submission(P01, item(P01, P02, 5))
    assert bench.driver.submit(other).result(0).code is RejectCode.BAD_SIGNATURE
    assert forged == submission
    assert bench.broadcasts == 0


def test_what_is_too_large_must_be_split(bench: Bench, maker: Maker) -> None:
    with pytest.raises(TooLargeError) as raised:
        bench.driver.submit(owes(maker, 5_139))
    assert raised.value.bytes_max == TRANSACTION_BYTES_MAX
    bench.driver.submit(owes(maker, 5_138)).cancel()


def test_the_queue_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_S", 0.1)
    with Bench(tmp_path, QueueLimits(transactions=2)) as bench, bench.rpc:
        maker = bench.begin()
        waiting = [bench.driver.submit(owes(maker)) for _ in range(2)]
        with pytest.raises(BusyError):
            bench.driver.submit(owes(maker))
        assert bench.driver.queued == 2
    # Whoever waited when the node stopped learns that nothing is known.
    for future in waiting:
        with pytest.raises(OutcomeUnknownError):
            future.result(0)


def test_who_gave_up_is_forgotten(bench: Bench, maker: Maker) -> None:
    future = bench.driver.submit(owes(maker))
    assert future.cancel()
    eventually(lambda: bench.driver.queued == 0)
    with pytest.raises(CancelledError):
        future.result(0)


def test_without_its_engine_a_node_takes_nothing(tmp_path: Path) -> None:
    with Bench(tmp_path) as bench, bench.rpc:
        maker = bench.begin()
        for made, reader, writer in bench.sockets.values():
            reader.close()
            writer.close()
            made.close()
        eventually(lambda: bench.driver.refusal is not None)
        with pytest.raises(NotServingError, match="not connected") as raised:
            bench.driver.submit(owes(maker))
        assert raised.value.condition is NodeCondition.CATCHING_UP


def test_a_defect_halts_and_tells_everybody(
    bench: Bench, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    future = bench.driver.submit(owes(maker))

    def fail(*_: object) -> None:
        raise ZeroDivisionError("a defect of ours")

    monkeypatch.setattr(Machine, "apply", fail)
    assert bench.finalize().WhichOneof("value") == "exception"
    with pytest.raises(OutcomeUnknownError):
        future.result(WAIT_S)
    eventually(lambda: bool(bench.halts))
    assert bench.halts == ["ZeroDivisionError: a defect of ours"]
    assert bench.driver.refusal.condition is NodeCondition.HALTED
    assert (bench.store.directory.parent / "halt.json").exists()


def test_a_tick_that_was_not_taken_is_sent_again(
    bench: Bench, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def answer(path: str) -> Any:
        if "broadcast_tx_sync" not in path:
            return "no status"
        taken.append(path)
        # As while the engine has just started.
        return BREAK if len(taken) < 3 else TAKEN

    bench.answer = answer
    bench.driver.application.deadline_ms = 1
    eventually(lambda: len(taken) > 2)
    assert len(set(taken)) == 1


def test_senders_and_watch_outlive_a_busy_store_and_a_defect_ends_the_node(
    bench: Bench, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.answer = lambda _: {"code": CODE_RECORDED, "log": ""}
    troubles: list[Exception] = [StoreBusyError("more than 1024 reads at once")] * SENDERS
    screen = bench.driver.application.screen

    def screened(*args: Any, thorough: bool) -> Any:
        if not thorough and troubles:
            raise troubles.pop()
        return screen(*args, thorough=thorough)

    monkeypatch.setattr(bench.driver.application, "screen", screened)
    submissions = [owes(maker, amount=1 + number) for number in range(SENDERS)]
    futures = [bench.driver.submit(one) for one in submissions]
    eventually(lambda: not troubles)
    bench.answer = lambda _: TAKEN
    asked = bench.broadcasts
    eventually(lambda: bench.broadcasts > asked)
    assert bench.halts == []
    troubles.append(InvariantViolation("a contradiction"))
    bench.answer = lambda _: {"code": CODE_RECORDED, "log": ""}
    eventually(lambda: bool(bench.halts))
    assert bench.halts[0] == "InvariantViolation: a contradiction"
    with pytest.raises(OutcomeUnknownError):
        futures[0].result(WAIT_S)
