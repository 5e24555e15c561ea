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

    async def host(task_status: trio.TaskStatus[trio.Nursery]) -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as services:
                task_status.started(services)
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        services = await nursery.start(host)
        try:
            yield services
        finally:
            services.cancel_scope.cancel()
