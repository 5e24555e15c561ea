"""What is to happen later, in order of time. The clock belongs to whoever calls :meth:`Timers.run`."""

from __future__ import annotations

import heapq
from collections.abc import Callable

__all__ = ["Timer", "Timers"]

# Cancelled timers are swept when they are most of the heap, and not before there are enough to be worth the sweep.
_SWEEP_ABOVE = 256


class Timer:
    """One thing to do; :meth:`cancel` is harmless at any time."""

    __slots__ = ("_action", "_owner", "_when")

    def __init__(self, owner: Timers, when: float, action: Callable[[float], None]) -> None:
        self._owner = owner
        self._when = when
        self._action: Callable[[float], None] | None = action

    def cancel(self) -> None:
        """Its action does not happen. Harmless when it has."""
        if self._action is not None:
            self._action = None
            self._owner._cancelled()


class Timers:
    """A heap of timers. Those due at the same moment run in the order in which they were made."""

    __slots__ = ("_dead", "_heap", "_made")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._made = 0
        self._dead = 0

    def at(self, when: float, action: Callable[[float], None]) -> Timer:
        """Have ``action`` called with the time of the first :meth:`run` at ``when`` or later."""
        timer = Timer(self, when, action)
        self._made += 1
        heapq.heappush(self._heap, (when, self._made, timer))
        return timer

    def next(self) -> float | None:
        """When the next timer is due; ``None`` when nothing is planned."""
        while self._heap and self._heap[0][2]._action is None:
            heapq.heappop(self._heap)
            self._dead -= 1
        return self._heap[0][0] if self._heap else None

    def run(self, now: float) -> None:
        """Run everything that is due at ``now``, including what those actions plan for before ``now``."""
        while (when := self.next()) is not None and when <= now:
            timer = heapq.heappop(self._heap)[2]
            action, timer._action = timer._action, None
            assert action is not None  # next() leaves a live timer on top
            action(now)

    def __len__(self) -> int:
        return len(self._heap) - self._dead

    def _cancelled(self) -> None:
        self._dead += 1
        if self._dead > _SWEEP_ABOVE and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2]._action is not None]
            heapq.heapify(self._heap)
            self._dead = 0
