"""Waking coroutines when something moved, from any thread.

Lives here: Broadcast. May not live here: what moved; whoever wakes looks again.
"""

from __future__ import annotations

import asyncio


class Broadcast:
    """Wakes everyone who waits on its event loop, `loop`; `fire` may be called from any thread.

    A waiter takes a ticket first, then looks at what it waits for, and waits on the ticket only if
    that has not come: so nothing that moves in between is missed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake coroutines of `loop`."""
        self.loop = loop
        self._event = asyncio.Event()

    def ticket(self) -> asyncio.Event:
        """Return what the next `fire` sets; call it on the loop."""
        return self._event

    def fire(self) -> None:
        """Wake everyone who holds a ticket now; does nothing once the loop is closed."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        event, self._event = self._event, asyncio.Event()
        event.set()
