"""Finds the task that keeps the whole program waiting, and says where.

Theory of operation
-------------------
trio runs one task at a time. A task that computes, or sleeps in ``time.sleep``, holds up the audio of every call. An
:class:`~trio.abc.Instrument` notes when each step of a task begins; that costs some 100 ns a step. A thread looks at
the note a few times per limit, and when the same step is still going on after that long it reads the stack of the
loop's thread: so the report names the line that blocks while it blocks, even if it never returns. Reports are few
however much is blocked; the counts have all of it.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from types import FrameType, TracebackType

import attrs
import trio

__all__ = ["BlockedStep", "Watchdog", "WatchdogStatistics"]

log: logging.Logger = logging.getLogger("agentao_trio.watchdog")

#: Blocked steps that are remembered, and seconds between two log lines about any.
_REMEMBERED, _LOG_EVERY = 32, 1.0
#: Files whose frames are no news: they are how every task is run.
_PLUMBING = ("trio/_core/", "trio\\_core\\", __file__)


@attrs.frozen(kw_only=True)
class BlockedStep:
    """One step of a task that took longer than the limit. ``where`` is the line it was seen at, if it was seen."""

    task: str
    seconds: float
    where: str


@attrs.frozen(kw_only=True)
class WatchdogStatistics:
    """What a watchdog has seen: steps over the limit, the longest in seconds, and the most recent ones."""

    blocked: int
    longest: float
    recent: tuple[BlockedStep, ...]


class Watchdog(trio.abc.Instrument):
    """Reports tasks that block the loop for longer than ``limit`` seconds. A context manager, inside of ``trio.run``.

    ``on_blocked`` is called, in the loop's thread, for every such step once it is over. It measures real time, whatever
    trio's clock says.
    """

    def __init__(self, limit: float = 0.050, *, on_blocked: Callable[[BlockedStep], None] | None = None) -> None:
        if limit <= 0:
            raise ValueError(f"the limit is {limit:g} s; expected more than 0")
        self._limit = limit
        self._on_blocked = on_blocked
        # Task and beginning of the step that is going on; replaced as a whole, because the thread reads it.
        self._step: tuple[trio.lowlevel.Task, float] | None = None
        self._seen: tuple[tuple[trio.lowlevel.Task, float], str] | None = None
        self._blocked = 0
        self._longest = 0.0
        self._recent: deque[BlockedStep] = deque(maxlen=_REMEMBERED)
        self._next_log_at = 0.0
        self._log_lock = threading.Lock()
        self._loop_thread = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        state = "running" if self._thread is not None and not self._stop.is_set() else "not running"
        return (
            f"<Watchdog for {self._limit:g} s, {state}, {self._blocked} steps blocked, longest {self._longest:.3f} s>"
        )

    def statistics(self) -> WatchdogStatistics:
        """A snapshot."""
        return WatchdogStatistics(blocked=self._blocked, longest=self._longest, recent=tuple(self._recent))

    def __enter__(self) -> Watchdog:
        self._loop_thread = threading.get_ident()
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, name="agentao_trio watchdog", daemon=True)
        self._thread.start()
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        trio.lowlevel.remove_instrument(self)
        self._step = None
        self._stop.set()
        assert self._thread is not None
        self._thread.join()

    # -- in the loop's thread -------------------------------------------------------------------------------------

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._step = task, time.perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        step, self._step = self._step, None
        if step is None or (took := time.perf_counter() - step[1]) <= self._limit:
            return
        where = self._seen[1] if self._seen is not None and self._seen[0] is step else ""
        blocked = BlockedStep(task=task.name, seconds=took, where=where)
        self._blocked += 1
        self._longest = max(self._longest, took)
        self._recent.append(blocked)
        if not where:  # too short for the thread to see it, or in code that does not let threads run
            self._report(task, took, "a place that was not seen")
        if self._on_blocked is not None:
            self._on_blocked(blocked)

    # -- in the watching thread -----------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stop.wait(self._limit / 2):
            step = self._step
            if step is None or time.perf_counter() - step[1] <= self._limit:
                continue
            if self._seen is not None and self._seen[0] is step:
                continue
            where = _where(sys._current_frames().get(self._loop_thread))
            if self._step is step:  # it was that step's stack, then
                self._seen = step, where
                self._report(step[0], time.perf_counter() - step[1], where)

    # -- in either -----------------------------------------------------------------------------------------------

    def _report(self, task: trio.lowlevel.Task, seconds: float, where: str) -> None:
        with self._log_lock:  # both threads report
            now = time.perf_counter()
            is_due = now >= self._next_log_at
            if is_due:
                self._next_log_at = now + _LOG_EVERY
        if is_due:
            log.warning(
                "the task %s has kept every other task waiting for %.0f ms, in %s", task.name, seconds * 1000, where
            )


def _where(frame: FrameType | None) -> str:
    """The innermost lines of a stack that are not trio's own."""
    if frame is None:
        return "a place that was not seen"
    lines = [
        f"{entry.filename}:{entry.lineno} ({entry.name})"
        for entry in traceback.extract_stack(frame)
        if not any(part in entry.filename for part in _PLUMBING)
    ]
    return " < ".join(reversed(lines[-3:]))
