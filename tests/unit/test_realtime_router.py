"""Who is told of which event, in which order, and what their failures do."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from agentao_trio.errors import EventsOverrun
from agentao_trio.realtime.protocol import (
    SERVER_EVENTS,
    ErrorDetails,
    ErrorEvent,
    InputAudioBufferCleared,
    Malformed,
    ResponseOutputAudioDone,
    ServerEvent,
    Unknown,
)
from agentao_trio.realtime.router import MOST_FAILURES, QUEUE_BOUND, Router

DONE = ResponseOutputAudioDone(event_id="e")
CLEARED = InputAudioBufferCleared(event_id="e")


async def test_the_widest_selector_is_told_first() -> None:
    told: list[str] = []
    async with trio.open_nursery() as nursery:
        router = Router(nursery)
        for selector in (
            "response.output_audio.done",
            "response",
            "*",
            "response.output_audio",
            ResponseOutputAudioDone,
        ):
            router.subscribe(selector, lambda _, name=str(selector): told.append(name))
        router.route(DONE)
    assert told[:4] == ["*", "response", "response.output_audio", "response.output_audio.done"]
    assert len(told) == 5


@given(
    st.lists(
        st.sampled_from(["*", *SERVER_EVENTS, "response", "conversation", "conversation.item", "input_audio_buffer"])
    ),
    st.sampled_from(sorted(SERVER_EVENTS)),
)
def test_order_is_by_width_and_then_by_age(selectors: list[str], wire_type: str) -> None:
    told: list[int] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            router = Router(nursery)
            for number, selector in enumerate(selectors):
                router.subscribe(selector, lambda _, number=number: told.append(number))
            router.route(Unknown(type=wire_type, raw=b""))

    trio.run(main)
    wanted = [
        (0 if selector == "*" else selector.count(".") + 1, number)
        for number, selector in enumerate(selectors)
        if selector == "*" or wire_type == selector or wire_type.startswith(f"{selector}.")
    ]
    assert told == [number for _, number in sorted(wanted)]


async def test_both_names_of_a_type_and_what_has_none() -> None:
    told: list[object] = []
    async with trio.open_nursery() as nursery:
        router = Router(nursery)
        router.subscribe("response.audio.done", told.append)
        router.subscribe(Unknown, told.append)
        router.subscribe(Malformed, told.append)
        router.subscribe("error", told.append)
        events: list[ServerEvent] = [DONE, Unknown(type="new.thing", raw=b""), Malformed(reason="r", raw=b"{")]
        events.append(ErrorEvent(error=ErrorDetails()))
        for event in (*events, CLEARED):
            router.route(event)
    assert told == events


async def test_closing_a_subscription_from_its_own_handler() -> None:
    told: list[str] = []
    async with trio.open_nursery() as nursery:
        router = Router(nursery)

        def once(event: ServerEvent) -> None:
            told.append("once")
            subscription.close()
            subscription.close()

        subscription = router.subscribe("*", once)
        router.subscribe("*", lambda _: told.append("always"))
        router.route(DONE)
        router.route(DONE)
        assert subscription.closed
    assert told == ["once", "always", "always"]


async def test_an_inline_handler_must_not_be_async() -> None:
    async def handler(event: ServerEvent) -> None:
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        with pytest.raises(TypeError, match="own_task=True"):
            Router(nursery).subscribe("*", handler)


async def test_a_task_of_its_own_takes_events_one_after_the_other(autojump_clock: trio.testing.MockClock) -> None:
    told: list[tuple[float, ServerEvent]] = []

    async def slow(event: ServerEvent) -> None:
        await trio.sleep(1)
        told.append((trio.current_time() - began, event))

    async with trio.open_nursery() as nursery:
        router = Router(nursery)
        began = trio.current_time()
        router.subscribe("*", slow, own_task=True)
        router.route(DONE)
        router.route(CLEARED)
        router.end()
    assert told == [(1.0, DONE), (2.0, CLEARED)]


def fail(event: ServerEvent) -> None:
    raise ZeroDivisionError


async def afail(event: ServerEvent) -> None:
    await trio.lowlevel.checkpoint()
    raise ZeroDivisionError


async def test_a_failure_propagates_unless_it_is_isolated() -> None:
    with pytest.raises(ExceptionGroup) as failures:
        async with trio.open_nursery() as nursery:
            Router(nursery).subscribe("*", afail, own_task=True)._deliver(DONE)
    assert isinstance(failures.value.exceptions[0], ZeroDivisionError)
    async with trio.open_nursery() as nursery:
        router = Router(nursery)
        router.subscribe("*", fail)
        with pytest.raises(ZeroDivisionError):
            router.route(DONE)


@pytest.mark.parametrize(("handler", "own_task"), [(fail, False), (fail, True), (afail, True)])
async def test_an_isolated_handler_is_given_up_after_some_failures(handler: object, own_task: bool) -> None:
    async with trio.open_nursery() as nursery:
        router = Router(nursery)
        subscription = router.subscribe("*", handler, own_task=own_task, errors="isolate")  # type: ignore[arg-type]
        for _ in range(MOST_FAILURES + 3):
            router.route(DONE)
            await trio.testing.wait_all_tasks_blocked()
        assert subscription.closed
        router.end()
    statistics = router.statistics()
    assert (statistics.failures, statistics.disabled, statistics.subscriptions) == (MOST_FAILURES, 1, 0)


async def test_cancellation_is_not_a_failure() -> None:
    async def forever(event: ServerEvent) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        router = Router(nursery)
        router.subscribe("*", forever, own_task=True, errors="isolate")
        router.route(DONE)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert router.statistics().failures == 0


async def test_an_iterator_takes_its_events_and_one_that_falls_behind_is_told() -> None:
    async with trio.open_nursery() as nursery:
        router = Router(nursery)
        quick, slow = router.events("response"), router.events()
        router.route(DONE)
        assert await anext(quick) is DONE
        for _ in range(QUEUE_BOUND):
            router.route(CLEARED)
        router.end()
        assert [event async for event in quick] == []
        with pytest.raises(EventsOverrun):
            [event async for event in slow]
    assert router.statistics().overruns == 1


async def test_nothing_is_delivered_after_the_end_and_whoever_asks_then_is_told_at_once() -> None:
    heard: list[ServerEvent] = []
    async with trio.open_nursery() as nursery:
        router = Router(nursery)
        with pytest.raises(ValueError, match="not by ''"):
            router.subscribe("", heard.append)
        gone = router.subscribe("*", heard.append)
        router.route(DONE)
        gone.close()
        router.route(CLEARED)
        router.end()
        assert [event async for event in router.events()] == []
    assert heard == [DONE]
