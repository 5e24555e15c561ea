"""Sleeping until a moment, to a fraction of a millisecond where the system can.

trio sleeps in epoll_wait(2), which counts whole milliseconds and rounds up: a packet clock with a deadline in every
millisecond would meet half of them together with the next. A timer with a file descriptor of its own rings when it is
due (timerfd_create(2); Linux, from Python 3.13 on).
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

__all__ = ["Alarm", "open_alarm"]


class Alarm(Protocol):
    """Wakes the one task that waits for it."""

    async def wait_until(self, deadline: float) -> None:
        """Wait until ``deadline``, in seconds of trio's clock, or until :meth:`ring`. Cancellation changes nothing."""

    def ring(self) -> None:
        """End the wait now. Harmless when nobody waits."""


@contextmanager
def open_alarm() -> Iterator[Alarm]:
    """The most precise alarm there is for the clock that trio runs on."""
    if sys.platform == "linux" and sys.version_info >= (3, 13) and _is_real(trio.lowlevel.current_clock()):
        try:
            timer = os.timerfd_create(time.CLOCK_MONOTONIC, flags=os.TFD_NONBLOCK | os.TFD_CLOEXEC)
        except (OSError, AttributeError):
            pass  # no descriptor is left, a kernel that only looks like Linux's, or a Python built for an old one
        else:
            try:
                yield _Timer(timer)
            finally:
                os.close(timer)
            return
    yield _Event()


def _is_real(clock: trio.abc.Clock) -> bool:
    """Whether an hour of this clock takes an hour, as it does not in tests."""
    if getattr(clock, "autojump_threshold", math.inf) < math.inf:  # trio.testing.MockClock: it may also run besides
        return False
    return math.isclose(clock.deadline_to_sleep_time(clock.current_time() + 3600), 3600, abs_tol=60)


class _Event:
    """On any system, and in virtual time."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    async def wait_until(self, deadline: float) -> None:
        self._rung = trio.Event()
        with trio.move_on_at(deadline):
            await self._rung.wait()

    def ring(self) -> None:
        self._rung.set()


if sys.platform == "linux" and sys.version_info >= (3, 13):
    #: Seconds: as good as now. A timer that is set to 0 never rings.
    _NOW = 1e-9

    class _Timer:
        def __init__(self, descriptor: int) -> None:
            self._timer = descriptor

        async def wait_until(self, deadline: float) -> None:
            # To set it also takes back that it has rung: it need not be read.
            left = max(deadline - trio.current_time(), _NOW)
            os.timerfd_settime(self._timer, initial=left if left < math.inf else 0.0)
            await trio.lowlevel.wait_readable(self._timer)

        def ring(self) -> None:
            os.timerfd_settime(self._timer, initial=_NOW)
