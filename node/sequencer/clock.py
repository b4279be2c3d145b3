"""Block time: never decreasing, and never carried far ahead by a clock that jumped.

Lives here: the rule that turns this machine's clock into block time. May not live here: what falls
due (the core).

Block time is the greater of the last block's time and the wall clock. So a clock that is set back
makes block time stand still until it has caught up: harmless, and reported. A clock that jumps
ahead would expire obligations, lapse proposals and end licences, for good: such a time is refused
until the clock is set right, or the operator confirms it by a flag at start.
Source: own design.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from clearing.types import TimeMs
from node.services.facade import NodeCondition, NotServingError

JUMP_MS_MAX = 60 * 60 * 1000
"""How far the wall clock may run ahead of a running node's own count of elapsed time: an hour."""

DOWNTIME_MS_MAX = 30 * 24 * 60 * 60 * 1000
"""How far the wall clock may stand ahead of the last block when a node starts: thirty days."""


def wall_ms() -> int:
    """Return the wall clock in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def elapsed_ms() -> int:
    """Return milliseconds since some moment; never set, counting on while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1_000_000


class BlockClock:
    """Gives each block its time. Safe to call from several threads.

    last_ms: time of the newest block. confirmed: the operator vouches for the wall clock as it
    stands at start.
    wall, elapsed: the two clocks, in milliseconds; tests pass their own.
    """

    def __init__(
        self,
        last_ms: int,
        *,
        confirmed: bool = False,
        wall: Callable[[], int] = wall_ms,
        elapsed: Callable[[], int] = elapsed_ms,
    ) -> None:
        """Start where the newest block stands."""
        self._wall = wall
        self._elapsed = elapsed
        self._lock = threading.Lock()
        # A wall clock of up to `_latest_ms` was believable when `_elapsed` stood at `_anchor_ms`.
        self._anchor_ms = elapsed()
        self._latest_ms = max(last_ms + DOWNTIME_MS_MAX, wall() + JUMP_MS_MAX if confirmed else 0)
        self._has_run = False

    def now_ms(self) -> int:
        """Return the wall clock, without judging it."""
        return self._wall()

    def next_ms(self, last_ms: int) -> TimeMs:
        """Return the time of a block that follows one of time `last_ms`.

        Raises: NotServingError: CLOCK_AHEAD: the wall clock is further ahead than elapsed time
        explains.
        """
        with self._lock:
            wall, elapsed = self._wall(), self._elapsed()
            latest_ms = self._latest_ms + (elapsed - self._anchor_ms)
            # A time once written into a block is never taken back.
            if wall > latest_ms:
                raise NotServingError(
                    NodeCondition.CLOCK_AHEAD,
                    f"the clock says {wall} ms since 1970, at most {latest_ms} can be right: set "
                    "it right, or restart the node with --confirm-time if it is",
                )
            # From the first block on the limit is near, and moves only ahead: setting a clock back
            # and right again is no jump.
            if not self._has_run or wall + JUMP_MS_MAX > latest_ms:
                self._latest_ms, self._anchor_ms = wall + JUMP_MS_MAX, elapsed
                self._has_run = True
            return TimeMs(max(last_ms, wall))

    def behind_ms(self, last_ms: int) -> int:
        """Return how far the wall clock stands behind the newest block; 0 when it does not."""
        return max(0, last_ms - self._wall())
