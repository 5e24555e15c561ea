"""Bounded subscriptions: the publisher never waits, what is lost is counted."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from agentao_trio.broadcast import Broadcast, Subscription
from agentao_trio.errors import CallOverrun


async def drain(subscription: Subscription[int]) -> list[int]:
    return [item async for item in subscription]


async def test_every_reader_gets_everything_published_after_it_came() -> None:
    news: Broadcast[int] = Broadcast()
    first = news.subscribe(8)
    news.publish(1)
    second = news.subscribe(8)
    news.publish(2)
    news.end()
    assert await drain(first) == [1, 2]
    assert await drain(second) == [2]


async def test_the_first_reader_also_gets_what_came_before_it() -> None:
    news: Broadcast[int] = Broadcast(early=2)
    for item in (1, 2, 3):
        news.publish(item)
    first, second = news.subscribe(8), news.subscribe(8)
    news.end()
    assert await drain(first) == [2, 3]
    assert await drain(second) == []
    assert news.dropped == 1


async def test_a_slow_reader_loses_its_oldest_items_and_nobody_else_does() -> None:
    news: Broadcast[int] = Broadcast()
    slow, quick = news.subscribe(2), news.subscribe(8)
    for item in range(5):
        news.publish(item)
    news.end()
    assert await drain(slow) == [3, 4]
    assert await drain(quick) == [0, 1, 2, 3, 4]
    assert (slow.dropped, quick.dropped, news.dropped) == (3, 0, 3)


async def test_a_slow_reader_of_events_ends_with_an_error_after_what_it_has() -> None:
    news: Broadcast[int] = Broadcast()
    slow = news.subscribe(2, overrun=lambda: CallOverrun("too slow", call_sid="c"))
    for item in range(3):
        news.publish(item)
    assert [await anext(slow), await anext(slow)] == [0, 1]
    with pytest.raises(CallOverrun):
        await anext(slow)
    with pytest.raises(StopAsyncIteration):
        await anext(slow)
    assert news.dropped == 1


async def test_unwanted_items_take_no_room() -> None:
    news: Broadcast[int] = Broadcast()
    even = news.subscribe(2, wanted=lambda item: item % 2 == 0)
    for item in range(5):
        news.publish(item)
    news.end()
    assert await drain(even) == [2, 4]
    assert even.dropped == 1


async def test_a_closed_reader_is_forgotten_and_what_it_lost_stays_counted() -> None:
    news: Broadcast[int] = Broadcast()
    reader = news.subscribe(1)
    news.publish(1)
    news.publish(2)
    reader.close()
    news.publish(3)
    assert await drain(reader) == []
    assert news.dropped == 1


async def test_subscribing_to_what_has_ended_ends_at_once() -> None:
    news: Broadcast[int] = Broadcast(early=4)
    news.publish(1)
    news.end()
    assert await drain(news.subscribe(4)) == [1]


async def test_an_error_at_the_end_reaches_every_reader_once() -> None:
    news: Broadcast[int] = Broadcast()
    readers = [news.subscribe(4), news.subscribe(4)]
    news.publish(1)
    news.end(CallOverrun("over", call_sid="c"))
    for reader in readers:
        assert await anext(reader) == 1
        with pytest.raises(CallOverrun):
            await anext(reader)
        assert await drain(reader) == []


async def test_cancelling_a_waiting_reader_loses_nothing() -> None:
    news: Broadcast[int] = Broadcast()
    reader = news.subscribe(4)
    with trio.move_on_after(0):
        await anext(reader)
    news.publish(1)
    assert await anext(reader) == 1


async def test_an_item_that_comes_with_the_cancellation_is_kept_by_somebody() -> None:
    news: Broadcast[int] = Broadcast()
    reader = news.subscribe(8)
    got: list[int] = []

    async def read() -> None:
        got.append(await anext(reader))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        news.publish(1)
        nursery.cancel_scope.cancel()
    news.end()
    assert got + await drain(reader) == [1]


async def test_what_was_given_to_a_waiting_task_is_not_taken_back_by_closing() -> None:
    news: Broadcast[int] = Broadcast()
    reader = news.subscribe(8)
    got: list[int] = []

    async def read() -> None:
        got.extend(await drain(reader))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        news.publish(1)  # for the task that waits
        news.publish(2)  # for nobody yet
        reader.close()
    assert got == [1]


async def test_tasks_that_share_a_reader_each_get_some(autojump_clock: MockClock) -> None:
    news: Broadcast[int] = Broadcast()
    reader = news.subscribe(8)
    got: list[int] = []

    async def read() -> None:
        async for item in reader:
            got.append(item)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        for item in range(4):
            news.publish(item)
        news.end()
    assert sorted(got) == [0, 1, 2, 3]
    assert trio.current_time() - began == 2  # four items, two at a time


@pytest.mark.parametrize("how", ["close", "end"])
async def test_readers_that_wait_are_woken_by_the_end(how: str) -> None:
    news: Broadcast[int] = Broadcast()
    reader = news.subscribe(8)
    rest: list[list[int]] = []

    async def read() -> None:
        rest.append(await drain(reader))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            reader.close() if how == "close" else news.end()
    assert rest == [[], []]
