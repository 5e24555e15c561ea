"""Background tasks that serve a block of the program: until it ends, or beyond its cancellation."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

import trio

__all__ = ["first_leaf", "leaving_bare", "service_nursery", "task_nursery"]

E = TypeVar("E", bound=BaseException)


@contextlib.asynccontextmanager
async def service_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks do not see the body's cancellation, and end when the body has ended.

    A task that fails still cancels the body.
    """

    # Not nursery.start: cancelled, it would wait for a task that is beyond cancelling already.
    shelter = trio.CancelScope(shield=True)
    services: trio.Nursery | None = None
    is_open = trio.Event()

    async def host() -> None:
        nonlocal services
        with shelter:
            async with trio.open_nursery() as services:
                is_open.set()
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(host)
        try:
            with trio.CancelScope(shield=True):
                await is_open.wait()
            assert services is not None  # that is what was waited for
            yield services
        finally:
            shelter.cancel()


def first_leaf(group: BaseExceptionGroup[E]) -> E:
    """The first exception in a group that is no group itself, for one failure that many tasks may have seen."""
    first = group.exceptions[0]
    return first_leaf(first) if isinstance(first, BaseExceptionGroup) else first


@contextlib.contextmanager
def leaving_bare() -> Iterator[None]:
    """Let the body's exception out as it was raised, and in no group, if it is the only one.

    A nursery would wrap it, although the tasks that it stands for are ours and do not fail.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        alone = group.exceptions[0]
        context = alone.__context__
        try:
            raise alone
        finally:
            alone.__context__ = context


@contextlib.asynccontextmanager
async def task_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks end with the block. The only exception there is leaves it in no group."""
    with leaving_bare():
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel()
