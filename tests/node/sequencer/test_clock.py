"""Block time never decreases, and a clock that jumps ahead is refused until it is right or confirmed."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from node.sequencer.clock import (
    DOWNTIME_MS_MAX,
    JUMP_MS_MAX,
    BlockClock,
    elapsed_ms,
    wall_ms,
)
from node.services.facade import NodeCondition, NotServingError

START = 1_800_000_000_000


@dataclass
class Clocks:
    """The two clocks of a machine, moved by hand."""

    wall_ms: int = START
    elapsed_ms: int = 77

    def pass_ms(self, duration_ms: int) -> None:
        self.wall_ms += duration_ms
        self.elapsed_ms += duration_ms

    def block_clock(self, last_ms: int = START, *, confirmed: bool = False) -> BlockClock:
        return BlockClock(
            last_ms,
            confirmed=confirmed,
            wall=lambda: self.wall_ms,
            elapsed=lambda: self.elapsed_ms,
        )


def is_refused(clock: BlockClock, last_ms: int = START) -> bool:
    try:
        clock.next_ms(last_ms)
    except NotServingError as error:
        return error.condition is NodeCondition.CLOCK_AHEAD and "--confirm-time" in str(error)
    return False


def test_block_time_is_the_wall_clock_and_never_less_than_the_last_block() -> None:
    clocks = Clocks()
    clock = clocks.block_clock()
    clocks.pass_ms(5)
    assert clock.next_ms(START) == START + 5
    assert clock.next_ms(START + 60) == START + 60
    assert clock.behind_ms(START + 60) == 55
    assert clock.behind_ms(START) == 0


def test_a_clock_set_back_makes_block_time_stand_still() -> None:
    clocks = Clocks()
    clock = clocks.block_clock()
    last = clock.next_ms(START)
    clocks.wall_ms -= 10 * 365 * 86_400_000
    for _ in range(3):
        clocks.pass_ms(1000)
        assert clock.next_ms(last) == last
    assert clock.behind_ms(last) > 0


def test_a_clock_set_back_and_right_again_is_no_jump() -> None:
    clocks = Clocks()
    clock = clocks.block_clock()
    clock.next_ms(START)
    for _ in range(3):
        clocks.wall_ms -= 10 * JUMP_MS_MAX
        clock.next_ms(START)
        clocks.pass_ms(1000)
        clock.next_ms(START)
        clocks.wall_ms += 10 * JUMP_MS_MAX
        assert not is_refused(clock)


def test_a_running_clock_that_jumps_ahead_is_refused_until_it_is_set_right() -> None:
    clocks = Clocks()
    clock = clocks.block_clock()
    clock.next_ms(START)
    clocks.wall_ms += JUMP_MS_MAX + 1
    assert is_refused(clock)
    clocks.pass_ms(60_000)
    assert is_refused(clock)
    clocks.wall_ms -= JUMP_MS_MAX + 1
    assert clock.next_ms(START) == START + 60_000


def test_a_small_step_ahead_is_taken_and_a_long_idle_time_is_no_jump() -> None:
    clocks = Clocks()
    clock = clocks.block_clock()
    clock.next_ms(START)
    clocks.wall_ms += JUMP_MS_MAX
    assert clock.next_ms(START) == START + JUMP_MS_MAX
    clocks.pass_ms(400 * 86_400_000)
    assert not is_refused(clock)


def test_a_drift_over_years_is_no_jump() -> None:
    clocks = Clocks()
    clock = clocks.block_clock()
    for _ in range(1000):
        clocks.pass_ms(86_400_000)
        clocks.wall_ms += 43_200  # 500 parts in a million, the most that time daemons slew
        assert not is_refused(clock)


def test_a_node_that_starts_long_after_its_last_block_asks_for_confirmation() -> None:
    clocks = Clocks(wall_ms=START + DOWNTIME_MS_MAX + 1)
    assert is_refused(clocks.block_clock())
    confirmed = clocks.block_clock(confirmed=True)
    assert confirmed.next_ms(START) == clocks.wall_ms
    clocks.pass_ms(1000)
    assert not is_refused(confirmed)
    clocks.wall_ms += JUMP_MS_MAX + 1
    assert is_refused(confirmed)


def test_a_node_that_was_down_for_less_needs_none() -> None:
    clocks = Clocks(wall_ms=START + DOWNTIME_MS_MAX)
    assert not is_refused(clocks.block_clock())


def test_a_refused_time_at_start_stays_refused_while_time_passes() -> None:
    clocks = Clocks(wall_ms=START + DOWNTIME_MS_MAX + 2)
    clock = clocks.block_clock()
    clocks.pass_ms(JUMP_MS_MAX)
    assert is_refused(clock)


def test_the_machines_clocks_are_in_milliseconds() -> None:
    assert abs(wall_ms() - time.time() * 1000) < 60_000
    first = elapsed_ms()
    time.sleep(0.01)
    assert 1 <= elapsed_ms() - first < 60_000
    with pytest.raises(NotServingError):
        BlockClock(0).next_ms(0)
