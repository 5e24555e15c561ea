"""Background tasks that outlive the cancellation of the program they serve."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import trio

__all__ = ["service_nursery"]


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
