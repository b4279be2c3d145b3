"""Every result reaches its own coroutine, whatever thread and order it comes from."""

from __future__ import annotations

import asyncio
import random
import threading
from concurrent.futures import Future

import pytest

from node.bridge import Bridge

WAIT_S = 30


def test_results_and_errors_of_many_threads_reach_their_coroutines() -> None:
    async def main() -> None:
        bridge = Bridge(asyncio.get_running_loop())
        futures: list[Future[int]] = [Future() for _ in range(300)]
        order = random.Random(1).sample(range(300), 300)

        def finish(part: int) -> None:
            for number in order[part::3]:
                if number % 10 == 7:
                    futures[number].set_exception(ValueError(number))
                else:
                    futures[number].set_result(number)

        threads = [threading.Thread(target=finish, args=(part,)) for part in range(3)]
        tasks = [asyncio.create_task(bridge.result(future)) for future in futures]
        await asyncio.sleep(0)
        for thread in threads:
            thread.start()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), WAIT_S)
        for number, result in enumerate(results):
            if number % 10 == 7:
                assert isinstance(result, ValueError)
                assert result.args == (number,)
            else:
                assert result == number
        for thread in threads:
            thread.join()

    asyncio.run(main())


def test_many_results_wake_the_loop_once() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        bridge = Bridge(loop)
        wakes = 0
        real = loop.call_soon_threadsafe

        def counted(*args: object) -> object:
            nonlocal wakes
            wakes += 1
            return real(*args)

        futures: list[Future[int]] = [Future() for _ in range(50)]
        tasks = [asyncio.create_task(bridge.result(future)) for future in futures]
        await asyncio.sleep(0)
        loop.call_soon_threadsafe = counted
        for future in futures:
            future.set_result(1)
        assert sum(await asyncio.wait_for(asyncio.gather(*tasks), WAIT_S)) == 50
        return wakes

    assert asyncio.run(main()) == 1


def test_a_cancelled_caller_cancels_what_has_not_begun() -> None:
    async def main() -> None:
        bridge = Bridge(asyncio.get_running_loop())
        waiting: Future[int] = Future()
        begun: Future[int] = Future()
        assert begun.set_running_or_notify_cancel()
        tasks = [asyncio.create_task(bridge.result(future)) for future in (waiting, begun)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)
        assert waiting.cancelled()
        begun.set_result(1)
        await asyncio.sleep(0.01)

    asyncio.run(main())


def test_a_future_cancelled_elsewhere_cancels_the_wait() -> None:
    async def main() -> None:
        bridge = Bridge(asyncio.get_running_loop())
        future: Future[int] = Future()
        task = asyncio.create_task(bridge.result(future))
        await asyncio.sleep(0)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, WAIT_S)

    asyncio.run(main())


def test_a_result_after_the_loop_is_closed_is_dropped() -> None:
    loop = asyncio.new_event_loop()
    bridge = Bridge(loop)
    waiter = loop.create_future()
    loop.close()
    future: Future[int] = Future()
    future.set_result(1)
    bridge._arrive(waiter, future)
    assert not waiter.done()
