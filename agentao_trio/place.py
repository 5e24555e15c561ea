"""Where one task waits: what has one user at a time needs no parking lot."""

from __future__ import annotations

import trio

__all__ = ["Place"]


class Place:
    """Where the one task that uses something waits. ``with place:`` claims it, a second claim is refused.

    ``use`` says what it is for, in the words of :class:`trio.BusyResourceError`: "another task is already …".
    """

    __slots__ = ("_task", "_use", "is_claimed")

    def __init__(self, use: str = "using this") -> None:
        self._use = use
        self._task: trio.lowlevel.Task | None = None
        self.is_claimed: bool = False

    def __enter__(self) -> None:
        if self.is_claimed:
            raise trio.BusyResourceError(f"another task is already {self._use}")
        self.is_claimed = True

    def __exit__(self, *_: object) -> None:
        self.is_claimed = False

    async def wait(self) -> None:
        """Wait for ``wake``. Cancellation leaves the place empty."""
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._leave)

    def _leave(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def wake(self) -> None:
        """Wake whoever waits, if anybody does."""
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None
