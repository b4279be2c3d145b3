"""The embedded sequencer: durable before acknowledged, bounded, shared flushes, and named refusals."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path

import pytest

from clearing.errors import InvariantViolation, RejectCode
from clearing.ledger import Block, BlockResult, Outcome
from clearing.rows import Table
from clearing.types import ObligationState
from node.sequencer import embedded
from node.sequencer.clock import JUMP_MS_MAX, wall_ms
from node.sequencer.driver import Machine
from node.sequencer.embedded import RETRY_MS_MAX, RETRY_MS_MIN, Limits
from node.sequencer.halt import REPORT_NAME, decode_block
from node.services.facade import (
    BusyError,
    NodeCondition,
    NotServingError,
    OutcomeUnknownError,
)
from node.store import Store, StoreBusyError, StoreFailedError, StoreFullError
from tests.ledger_kit import GENESIS_MS, P01, P02, item
from tests.node.sequencer.machine_kit import PATIENT, Bench, bench
from tests.node.store.store_kit import SETTINGS

WAIT_S = 30


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path / "s") as one:
        yield one


def result(future: Future[Outcome]) -> Outcome:
    return future.result(WAIT_S)


def held_batch(made: Bench, sequencer: object, count: int) -> list[Future[Outcome]]:
    """Submit one transaction, hold the writer after its block, and queue `count` more behind it."""
    made.hold.clear()
    first = sequencer.submit(made.net.submission(P01, item(P01, P02, 1)))
    while not made.blocks:
        threading.Event().wait(0.01)
    queued = [
        sequencer.submit(made.net.submission(P01, item(P01, P02, 2 + number)))
        for number in range(count)
    ]
    return [first, *queued]


# -- acknowledged means durable, once, in order


def test_an_acknowledged_transaction_is_in_the_store(made: Bench) -> None:
    submission = made.net.submission(P01, item(P01, P02, 5))
    with made.running() as sequencer:
        outcome = result(sequencer.submit(submission))
        assert outcome.code is RejectCode.OK
        assert made.store.leaf(outcome.index) == submission.leaf
        assert made.store.body(outcome.index) == submission.body
    assert made.machine.state.height == made.store.tip.height == 1


def test_a_thousand_transactions_of_many_threads_are_recorded_once_each(made: Bench) -> None:
    submissions = [made.net.submission(P01, item(P01, P02, 1 + n)) for n in range(400)]
    indices: dict[bytes, int] = {}

    def client(part: int) -> None:
        for submission in submissions[part::8]:
            indices[submission.client_id] = result(sequencer.submit(submission)).index

    with made.running() as sequencer:
        threads = [threading.Thread(target=client, args=(part,)) for part in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
    assert [made.store.leaf(indices[s.client_id]) for s in submissions] == [
        s.leaf for s in submissions
    ]
    assert len(set(indices.values())) == len(submissions)
    assert sum(made.items) == len(submissions)
    assert [block.height for block in made.blocks] == list(range(1, len(made.blocks) + 1))
    assert made.store.tip.log_size == 2 + len(submissions) + len(made.blocks)


def test_the_same_bytes_again_get_the_first_answer_and_no_block(made: Bench) -> None:
    submission = made.net.submission(P01, item(P01, P02, 5))
    with made.running() as sequencer:
        first = result(sequencer.submit(submission))
        again = result(sequencer.submit(submission))
    assert (again.index, again.repeated) == (first.index, True)
    assert made.store.tip.height == 1


def test_a_refused_transaction_leaves_no_trace(made: Bench) -> None:
    before = made.store.tip
    with made.running() as sequencer:
        outcome = result(sequencer.submit(made.net.submission(P01, item(P01, P01, 5))))
    assert outcome.code is not RejectCode.OK
    assert made.store.tip == before
    assert made.blocks == []


# -- group commit


def test_what_gathers_during_a_flush_shares_the_next_block(made: Bench) -> None:
    with made.running() as sequencer:
        futures = held_batch(made, sequencer, 20)
        made.hold.set()
        for future in futures:
            result(future)
    assert made.items == [1, 20]


def test_a_lone_transaction_does_not_wait_for_company(made: Bench) -> None:
    with made.running(PATIENT) as sequencer:
        for amount in range(3):
            result(sequencer.submit(made.net.submission(P01, item(P01, P02, 1 + amount))))
    assert made.items == [1, 1, 1]


def test_after_a_shared_block_the_writer_waits_for_as_many_again(made: Bench) -> None:
    with made.running(PATIENT) as sequencer:
        for future in held_batch(made, sequencer, 2):
            made.hold.set()
            result(future)
        lone = sequencer.submit(made.net.submission(P01, item(P01, P02, 8)))
        threading.Event().wait(0.2)
        assert not lone.done()
        result(sequencer.submit(made.net.submission(P01, item(P01, P02, 9))))
        result(lone)
    assert made.items == [1, 2, 2]


def test_the_wait_for_company_ends(made: Bench) -> None:
    with made.running(Limits(gather_ms=1)) as sequencer:
        for future in held_batch(made, sequencer, 5):
            made.hold.set()
            result(future)
        result(sequencer.submit(made.net.submission(P01, item(P01, P02, 9))))
    assert made.items == [1, 5, 1]


@pytest.mark.parametrize("limits", [Limits(block_items=3), Limits(block_bytes=800)])
def test_a_block_holds_no_more_than_its_limits(made: Bench, limits: Limits) -> None:
    with made.running(limits) as sequencer:
        futures = held_batch(made, sequencer, 7)
        made.hold.set()
        for future in futures:
            result(future)
    assert made.items == [1, 3, 3, 1]


def test_a_transaction_greater_than_the_limits_has_a_block_of_its_own(made: Bench) -> None:
    with made.running(Limits(block_items=1, block_bytes=1)) as sequencer:
        result(sequencer.submit(made.net.submission(P01, *[item(P01, P02, 1)] * 10)))
    assert made.items == [10]


# -- back-pressure


@pytest.mark.parametrize("limits", [Limits(queue_transactions=3), Limits(queue_bytes=800)])
def test_a_full_queue_says_when_to_come_back(made: Bench, limits: Limits) -> None:
    with made.running(limits) as sequencer:
        futures = held_batch(made, sequencer, 3)
        assert sequencer.queued == 3
        late = made.net.submission(P01, item(P01, P02, 99))
        with pytest.raises(BusyError) as refused:
            sequencer.submit(late)
        assert RETRY_MS_MIN <= refused.value.retry_after_ms <= RETRY_MS_MAX
        made.hold.set()
        for future in futures:
            result(future)
        assert result(sequencer.submit(late)).code is RejectCode.OK
        assert sequencer.queued == 0


def test_a_withdrawn_transaction_is_in_no_block(made: Bench) -> None:
    with made.running() as sequencer:
        futures = held_batch(made, sequencer, 3)
        assert futures[2].cancel()
        made.hold.set()
        for future in (futures[1], futures[3]):
            result(future)
        with pytest.raises(CancelledError):
            result(futures[2])
    assert made.items == [1, 2]


# -- refusals


def test_a_closed_gate_refuses_at_once_and_what_is_queued(made: Bench) -> None:
    closed = NotServingError(NodeCondition.WAITING_FOR_REPLICAS, "not yet")
    with made.running() as sequencer:
        futures = held_batch(made, sequencer, 2)
        made.refusal = closed
        with pytest.raises(NotServingError, match="not yet"):
            sequencer.submit(made.net.submission(P01, item(P01, P02, 9)))
        made.hold.set()
        result(futures[0])
        for future in futures[1:]:
            with pytest.raises(NotServingError, match="not yet"):
                result(future)
        made.refusal = None
        result(sequencer.submit(made.net.submission(P01, item(P01, P02, 9))))
    assert made.items == [1, 1]


def test_stopping_finishes_what_is_queued_and_takes_nothing_new(made: Bench) -> None:
    sequencer = made.sequencer()
    sequencer.start()
    futures = held_batch(made, sequencer, 3)
    stopper = threading.Thread(target=sequencer.stop)
    stopper.start()
    while sequencer.refusal is None:
        threading.Event().wait(0.01)
    with pytest.raises(NotServingError) as refused:
        sequencer.submit(made.net.submission(P01, item(P01, P02, 9)))
    assert refused.value.condition is NodeCondition.STOPPING
    made.hold.set()
    stopper.join(WAIT_S)
    assert [future.done() and result(future).code for future in futures] == [RejectCode.OK] * 4


def test_a_sequencer_that_never_started_stops(made: Bench) -> None:
    made.sequencer().stop()


def test_a_clock_that_jumps_ahead_makes_no_block_until_it_is_right(made: Bench) -> None:
    now = GENESIS_MS + 1000
    made.wall_ms = lambda: now
    submission = made.net.submission(P01, item(P01, P02, 1))
    with made.running() as sequencer:
        result(sequencer.submit(submission))
        now += JUMP_MS_MAX + 1
        with pytest.raises(NotServingError) as refused:
            result(sequencer.submit(made.net.submission(P01, item(P01, P02, 2))))
        assert refused.value.condition is NodeCondition.CLOCK_AHEAD
        assert sequencer.refusal is not None
        now = GENESIS_MS + 2000
        assert sequencer.refusal is None
        result(sequencer.submit(made.net.submission(P01, item(P01, P02, 3))))
    assert [block.time_ms for block in made.blocks] == [GENESIS_MS + 1000, GENESIS_MS + 2000]


def test_a_clock_set_back_lets_block_time_stand_still(made: Bench) -> None:
    now = GENESIS_MS + 1000
    made.wall_ms = lambda: now
    with made.running() as sequencer:
        result(sequencer.submit(made.net.submission(P01, item(P01, P02, 1))))
        now = 0
        result(sequencer.submit(made.net.submission(P01, item(P01, P02, 2))))
    assert [block.time_ms for block in made.blocks] == [GENESIS_MS + 1000] * 2


# -- deadlines


def test_a_deadline_makes_a_block_without_any_transaction(made: Bench) -> None:
    started = wall_ms()
    made.wall_ms = lambda: GENESIS_MS + 1000 + wall_ms() - started
    due_ms = GENESIS_MS + 1300
    with made.running() as sequencer:
        lapses = made.net.submission(P01, item(P01, P02, 1, due_ms=due_ms))
        index = result(sequencer.submit(lapses)).index
        until = wall_ms() + 1000 * WAIT_S
        while len(made.blocks) < 2 and wall_ms() < until:
            threading.Event().wait(0.05)
    assert made.items == [1, 0]
    assert made.blocks[1].time_ms >= due_ms
    states = made.store.get(Table.SUBMISSIONS, index.to_bytes(8, "big"))
    assert ObligationState.EXPIRED in states


# -- the store says no, or a defect shows


class Refusing(Machine):
    """A machine whose commits fail with the exceptions given, one after the other, and then work."""

    def __init__(self, store: Store, *errors: Exception) -> None:
        super().__init__(store)
        self.errors = list(errors)

    def commit(self, result: BlockResult) -> None:
        if self.errors:
            raise self.errors.pop(0)
        super().commit(result)


def test_a_full_disk_refuses_and_passes(tmp_path: Path) -> None:
    full = StoreFullError("the disk is nearly full; free some")
    refusing = bench(tmp_path / "s", lambda store: Refusing(store, full))
    with refusing as made, made.running() as sequencer:
        submission = made.net.submission(P01, item(P01, P02, 1))
        with pytest.raises(NotServingError, match="free some") as refused:
            result(sequencer.submit(submission))
        assert refused.value.condition is NodeCondition.DISK_FULL
        assert sequencer.refusal is refused.value
        assert result(sequencer.submit(submission)).repeated is False
        assert sequencer.refusal is None


def test_a_busy_store_asks_to_come_back(tmp_path: Path) -> None:
    busy = StoreBusyError("a reader did not end")
    refusing = bench(tmp_path / "s", lambda store: Refusing(store, busy))
    with refusing as made, made.running() as sequencer:
        submission = made.net.submission(P01, item(P01, P02, 1))
        with pytest.raises(BusyError):
            result(sequencer.submit(submission))
        assert result(sequencer.submit(submission)).code is RejectCode.OK


def test_a_store_that_is_busy_while_nothing_is_to_do_ends_nothing(
    made: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    def busy(*_: object) -> int:
        asked.set()
        raise StoreBusyError("more than 1024 reads at once")

    with monkeypatch.context() as patched:
        patched.setattr(embedded, "next_deadline_ms", busy)
        with made.running() as sequencer:
            assert asked.wait(WAIT_S)
            submission = made.net.submission(P01, item(P01, P02, 1))
            assert result(sequencer.submit(submission)).code is RejectCode.OK
    assert made.halts == []


def test_a_defect_while_nothing_is_to_do_halts_and_is_told(
    made: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defective(*_: object) -> int:
        raise InvariantViolation("no such leg")

    monkeypatch.setattr(embedded, "next_deadline_ms", defective)
    with made.running() as sequencer:
        end = time.monotonic() + WAIT_S
        while not made.halts and time.monotonic() < end:
            time.sleep(0.01)
        assert made.halts == ["InvariantViolation: no such leg"]
        with pytest.raises(NotServingError, match="no such leg"):
            sequencer.submit(made.net.submission(P01, item(P01, P02, 1)))


def test_a_failed_disk_halts_and_leaves_the_outcome_open(tmp_path: Path) -> None:
    failed = StoreFailedError("fsync failed")
    refusing = bench(tmp_path / "s", lambda store: Refusing(store, failed))
    with refusing as made, made.running() as sequencer:
        with pytest.raises(OutcomeUnknownError):
            result(sequencer.submit(made.net.submission(P01, item(P01, P02, 1))))
        with pytest.raises(NotServingError) as refused:
            sequencer.submit(made.net.submission(P01, item(P01, P02, 2)))
        assert refused.value.condition is NodeCondition.HALTED
    assert made.halts == ["StoreFailedError: fsync failed"]


class Defective(Machine):
    """A machine that contradicts itself when a block holds an amount of 13."""

    def apply(self, block: Block) -> BlockResult:
        if any(int(row["amount_lo"]) == 13 for t in block.transactions for row in t.items()):
            raise InvariantViolation("thirteen")
        return super().apply(block)


def test_a_defect_stops_the_node_and_keeps_the_block(tmp_path: Path) -> None:
    with bench(tmp_path / "s", Defective) as made:
        good = made.net.submission(P01, item(P01, P02, 1))
        bad = [made.net.submission(P01, item(P01, P02, n), item(P02, P01, n)) for n in (12, 13)]
        with made.running(Limits(block_items=4)) as sequencer:
            futures = held_batch(made, sequencer, 0)
            futures += [sequencer.submit(one) for one in (*bad, good)]
            made.hold.set()
            assert result(futures[0]).code is RejectCode.OK
            for future in futures[1:]:
                with pytest.raises(NotServingError, match="thirteen") as refused:
                    result(future)
                assert refused.value.condition is NodeCondition.HALTED
            assert sequencer.refusal.condition is NodeCondition.HALTED
        assert made.halts == ["InvariantViolation: thirteen"]
        report = json.loads((made.store.directory / REPORT_NAME).read_text())
        tip = made.store.tip
        assert report == {
            "reason": "InvariantViolation: thirteen",
            "block": "halt-2.block",
            "block_height": 2,
            "height": 1,
            "log_size": tip.log_size,
            "log_root": tip.log_root.hex(),
            "state_root": tip.state_root.hex(),
        }
        kept = decode_block((made.store.directory / report["block"]).read_bytes())
        assert kept == Block(2, GENESIS_MS + 1000, tuple(bad))
    # The directory starts again where it stood, and the kept block replays.
    with Store.open(tmp_path / "s", SETTINGS) as store:
        machine = Machine(store)
        assert machine.state.height == 1
        assert [o.code for o in machine.apply(kept).outcomes] == [RejectCode.OK] * 2
