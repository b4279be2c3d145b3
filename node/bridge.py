"""Results of another thread for coroutines, many at one wake-up.

Lives here: Bridge. May not live here: what is waited for.

`asyncio.wrap_future` wakes the event loop once a result, by a write to its own pipe; a block that
acknowledges a thousand transactions wakes it once here.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Bridge:
    """Carries results of `concurrent.futures.Future`s to coroutines of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Deliver on `loop`."""
        self._loop = loop
        self._lock = threading.Lock()
        self._arrived: list[tuple[asyncio.Future[Any], Future[Any]]] = []

    async def result(self, future: Future[T]) -> T:
        """Return the future's result or raise its exception; cancelled, try to cancel it."""
        waiter: asyncio.Future[T] = self._loop.create_future()
        future.add_done_callback(functools.partial(self._arrive, waiter))
        try:
            return await waiter
        except asyncio.CancelledError:
            future.cancel()
            raise

    def _arrive(self, waiter: asyncio.Future[Any], future: Future[Any]) -> None:
        with self._lock:
            self._arrived.append((waiter, future))
            is_first = len(self._arrived) == 1
        # Whoever comes before the delivery has run goes with it.
        if is_first and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            arrived, self._arrived = self._arrived, []
        for waiter, future in arrived:
            # The caller may have gone.
            if waiter.done():
                continue
            if future.cancelled():
                waiter.cancel()
            elif (error := future.exception()) is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(future.result())
