"""What keeps a run harmless: how many calls, how fast, how many at a time, for how long.

Every call a programme places passes :meth:`Limits.acquire` first. The limits hold for the whole run, over all checks
and repetitions.
"""

from __future__ import annotations

import attrs
import trio

__all__ = ["LimitReached", "Limits"]


class LimitReached(Exception):  # noqa: N818 - it ends the run in order
    """The run has placed as many calls, or taken as much time, as it may. The message says which."""


@attrs.define(eq=False)
class Limits:
    """The run's allowance. ``rate`` is calls per second, ``concurrency`` calls in progress; 0 is no limit."""

    max_calls: int = 200
    rate: float = 2.0
    concurrency: int = 8
    calls: int = 0
    #: The most that were in progress at a time.
    peak: int = 0
    _open: int = 0
    _next_at: float = 0.0
    _released: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    async def acquire(self) -> None:
        """Wait for a call's turn. Raises :class:`LimitReached` when the run has had all its calls.

        Cancelled, it was none, but its place in time stays empty.
        """
        while self.concurrency and self._open >= self.concurrency:
            await self._released.park()
        if self.max_calls and self.calls >= self.max_calls:
            raise LimitReached(f"this run may place {self.max_calls} calls, and has placed them (--max-calls)")
        self.calls += 1
        self._open += 1
        self.peak = max(self.peak, self._open)
        if self.rate:
            turn = max(self._next_at, trio.current_time())
            self._next_at = turn + 1 / self.rate
            try:
                await trio.sleep_until(turn)
            except trio.Cancelled:
                self.calls -= 1
                self.release()
                raise

    def release(self) -> None:
        """One call is over."""
        self._open -= 1
        self._released.unpark()
