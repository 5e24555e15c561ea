"""The task that blocks everybody is named, with the line it blocks at."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio

from agentao_trio.watchdog import BlockedStep, Watchdog


async def test_the_task_and_its_line_are_named_while_it_blocks(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine other steps may be long as well, and they must not use up the line of this second.
    monkeypatch.setattr("agentao_trio.watchdog._LOG_EVERY", 0.0)
    give_up = time.monotonic() + 60

    class Named(logging.Filter):
        times = 0

        def filter(self, record: logging.LogRecord) -> bool:
            self.times += "a_greedy_handler has kept every other task waiting" in record.getMessage()
            return True

    named = Named()

    async def a_greedy_handler() -> None:
        await trio.lowlevel.checkpoint()
        while not named.times and time.monotonic() < give_up:
            time.sleep(0.01)  # noqa: ASYNC251 - that is the point

    seen: list[BlockedStep] = []
    with (
        caplog.at_level(logging.WARNING),
        caplog.filtering(named),
        Watchdog(0.05, on_blocked=seen.append) as watchdog,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a_greedy_handler)
    statistics = watchdog.statistics()
    assert statistics.blocked == len(seen) >= 1
    [step] = [step for step in seen if step.task.endswith("a_greedy_handler")]
    assert step in statistics.recent
    assert "test_watchdog.py" in step.where
    assert "(a_greedy_handler)" in step.where
    assert 0.05 < step.seconds <= statistics.longest
    assert named.times == 1


async def test_tasks_that_behave_are_left_alone(autojump_clock: trio.testing.MockClock) -> None:
    with Watchdog(30) as watchdog:  # of real time, in which a busy machine may let a task wait
        for _ in range(100):
            await trio.sleep(10)
    assert watchdog.statistics().blocked == 0


async def test_many_reports_are_one_line_a_second(caplog: pytest.LogCaptureFixture) -> None:
    began = time.monotonic()
    with Watchdog(0.005) as watchdog:
        for _ in range(50):
            await trio.lowlevel.checkpoint()
            time.sleep(0.008)  # noqa: ASYNC251 - that is the point
    assert watchdog.statistics().blocked >= 49  # the last one is not over yet
    assert len(watchdog.statistics().recent) == 32
    assert len(caplog.records) <= 2 + time.monotonic() - began


def test_no_limit_is_no_limit() -> None:
    with pytest.raises(ValueError, match="expected more than 0"):
        Watchdog(0)


class Meeting(float):
    """A time that is looked at by two threads at once, if they can."""

    both = threading.Barrier(2)

    def __le__(self, other: float) -> bool:
        with contextlib.suppress(threading.BrokenBarrierError):
            self.both.wait(0.2)
        return super().__le__(other)


async def test_two_threads_that_report_at_once_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    watchdog = Watchdog()
    watchdog._next_log_at = Meeting()
    task = trio.lowlevel.current_task()
    with ThreadPoolExecutor(2) as threads:
        for _ in range(2):
            threads.submit(watchdog._report, task, 0.1, "a place")
    assert len(caplog.records) == 1
