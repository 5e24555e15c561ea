"""What is called when something happens: kinds of handlers, and whose failure it is."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import trio

from agentao_trio.handlers import Registered

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
