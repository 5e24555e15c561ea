"""What is called when something happens: kinds of handlers, and whose failure it is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from agentao_trio.events import CallEvent
from agentao_trio.handlers import CallHandlers, Registered

Heard = list[tuple[str, Any]]


def kinds(heard: Heard) -> dict[str, Callable[..., Any]]:
    """Whatever may be registered, each noting its name and what it was given."""

    def plain(value: object) -> None:
        heard.append(("plain", value))

    def plain_without() -> None:
        heard.append(("plain_without", None))

    async def waits(value: object) -> None:
        await trio.lowlevel.checkpoint()
        heard.append(("waits", value))

    async def waits_without() -> None:
        await trio.lowlevel.checkpoint()
        heard.append(("waits_without", None))

    class Obliging:
        async def __call__(self, value: object) -> None:
            await waits(value)

        async def method(self, value: object) -> None:
            await waits(value)

        def plain_method(self, value: object) -> None:
            plain(value)

    async def with_more(more: str, value: object) -> None:
        await waits(value)

    return {
        "plain": plain,
        "plain_without": plain_without,
        "waits": waits,
        "waits_without": waits_without,
        "an object": Obliging(),
        "a method": Obliging().method,
        "a plain method": Obliging().plain_method,
        "a partial": functools.partial(with_more, "more"),
    }


@pytest.mark.parametrize("kind", kinds([]))
async def test_every_kind_of_function_is_called_once_with_what_it_takes(kind: str) -> None:
    heard: Heard = []
    handler = Registered.of(kinds(heard)[kind], "EVENT")

    def fail(event: str, error: Exception) -> None:
        raise AssertionError(event) from error

    async with trio.open_nursery() as nursery:
        handler.run(nursery, "EVENT", 7, fail)
        assert bool(heard) is not handler.is_async
    [(name, value)] = heard
    assert name.startswith("waits") is handler.is_async
    assert value == (None if name.endswith("without") else 7)


@pytest.mark.parametrize("waits", [False, True])
async def test_a_failure_is_handed_over_with_what_it_was_about(waits: bool) -> None:
    failures: list[tuple[str, Exception]] = []

    def plain() -> None:
        raise KeyError("a bug")

    async def waiting() -> None:
        plain()

    async with trio.open_nursery() as nursery:
        handler = Registered.of(waiting if waits else plain, "EVENT")
        handler.run(nursery, "EVENT", None, lambda event, error: failures.append((event, error)))
    [(event, error)] = failures
    assert (event, type(error)) == ("EVENT", KeyError)


def test_a_function_that_needs_more_is_refused() -> None:
    with pytest.raises(TypeError, match="a handler of EVENT takes no argument or one"):
        Registered.of(lambda one, two: None, "EVENT")


@pytest.mark.parametrize("waits", [False, True])
async def test_what_happens_once_is_told_once_to_every_handler_however_late_it_is_registered(waits: bool) -> None:
    heard: list[tuple[str, CallEvent, Any]] = []

    def fail(event: object, error: Exception) -> None:
        raise AssertionError(event) from error

    async with trio.open_nursery() as nursery:
        handlers = CallHandlers(start=nursery.start_soon, quality=list, fail=fail, overrun=list)

        def register(event: CallEvent, when: str) -> None:
            def plain(value: object) -> None:
                heard.append((when, event, value))

            async def waiting(value: object) -> None:
                await trio.lowlevel.checkpoint()
                plain(value)

            handlers.on(event)(waiting if waits else plain)

        for event, value in ((CallEvent.CALL_ANSWERED, 1), (CallEvent.CALL_TERMINATED, 2)):
            register(event, "before")
            handlers.signal(event, value)
            register(event, "before the first was called")
            await trio.testing.wait_all_tasks_blocked()
            register(event, "afterwards")
            await trio.testing.wait_all_tasks_blocked()
            told = ["before", "before the first was called", "afterwards"]
            assert sorted(heard) == sorted((when, event, value) for when in told)
            heard.clear()
        register(CallEvent.CALL_ANSWERED, "after the end")
        register(CallEvent.CALL_CONNECTED, "never")
    assert heard == [("after the end", CallEvent.CALL_ANSWERED, 1)]


async def test_what_may_happen_again_is_told_to_those_who_are_registered_by_then() -> None:
    heard: list[str] = []
    async with trio.open_nursery() as nursery:
        handlers = CallHandlers(start=nursery.start_soon, quality=list, fail=lambda *_: None, overrun=list)
        handlers.on("CALL_HELD")(lambda: heard.append("early"))
        handlers.signal(CallEvent.CALL_HELD)
        handlers.on("CALL_HELD")(lambda: heard.append("late"))
        await trio.testing.wait_all_tasks_blocked()
        assert heard == ["early"]
        handlers.signal(CallEvent.CALL_HELD)
        handlers.signal(CallEvent.CALL_TERMINATED)
    assert heard == ["early", "early", "late"]
