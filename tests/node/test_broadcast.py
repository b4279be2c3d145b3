"""Whoever waits is woken by what moves after the ticket was taken, from whatever thread."""

from __future__ import annotations

import asyncio
import threading

from node.broadcast import Broadcast


def test_everyone_who_waits_is_woken_at_each_fire() -> None:
    async def main() -> None:
        broadcast = Broadcast(asyncio.get_running_loop())
        for _ in range(3):
            tickets = [broadcast.ticket() for _ in range(4)]
            waiters = [asyncio.create_task(ticket.wait()) for ticket in tickets]
            thread = threading.Thread(target=broadcast.fire)
            thread.start()
            await asyncio.wait_for(asyncio.gather(*waiters), 30)
            thread.join()

    asyncio.run(main())


def test_what_moves_between_ticket_and_wait_is_not_missed() -> None:
    async def main() -> None:
        broadcast = Broadcast(asyncio.get_running_loop())
        ticket = broadcast.ticket()
        broadcast.fire()
        await asyncio.wait_for(ticket.wait(), 30)
        assert broadcast.ticket() is not ticket
        assert not broadcast.ticket().is_set()

    asyncio.run(main())


def test_firing_after_the_loop_is_closed_does_nothing() -> None:
    loop = asyncio.new_event_loop()
    broadcast = Broadcast(loop)
    ticket = broadcast.ticket()
    loop.close()
    broadcast.fire()
    assert not ticket.is_set()
