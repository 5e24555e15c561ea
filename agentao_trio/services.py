"""Background tasks that serve a block of the program: until it ends, or beyond its cancellation."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import trio

__all__ = ["service_nursery", "task_nursery"]


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


@contextlib.asynccontextmanager
async def task_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery whose tasks end with the block.

    An exception of the block, or of a task if it is the only one, leaves it as it was raised and in no group.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        alone = group.exceptions[0]
        context = alone.__context__
        try:
            raise alone
        finally:
            alone.__context__ = context
