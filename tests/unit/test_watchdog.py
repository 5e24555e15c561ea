"""The task that blocks everybody is named, with the line it blocks at."""

from __future__ import annotations

import logging
import time

import pytest
import trio

from agentao_trio.watchdog import BlockedStep, Watchdog


async def a_greedy_handler() -> None:
    await trio.lowlevel.checkpoint()
    time.sleep(0.2)  # noqa: ASYNC251 - that is the point


async def test_the_task_and_its_line_are_named_while_it_blocks(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[BlockedStep] = []
    with caplog.at_level(logging.WARNING), Watchdog(0.05, on_blocked=seen.append) as watchdog:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a_greedy_handler)
    statistics = watchdog.statistics()
    assert statistics.blocked == len(seen) == 1
    [step] = statistics.recent
    assert step.task.endswith("a_greedy_handler")
    assert "test_watchdog.py" in step.where
    assert "(a_greedy_handler)" in step.where
    assert 0.2 <= step.seconds == statistics.longest < 1
    [record] = caplog.records
    assert "a_greedy_handler has kept every other task waiting" in record.getMessage()


async def test_tasks_that_behave_are_left_alone(autojump_clock: trio.testing.MockClock) -> None:
    with Watchdog(0.5) as watchdog:
        for _ in range(100):
            await trio.sleep(10)
    assert watchdog.statistics().blocked == 0


async def test_many_reports_are_one_line_a_second(caplog: pytest.LogCaptureFixture) -> None:
    with Watchdog(0.005) as watchdog:
        for _ in range(50):
            await trio.lowlevel.checkpoint()
            time.sleep(0.008)  # noqa: ASYNC251 - that is the point
    assert watchdog.statistics().blocked >= 49  # the last one is not over yet
    assert len(watchdog.statistics().recent) == 32
    assert len(caplog.records) <= 2


def test_no_limit_is_no_limit() -> None:
    with pytest.raises(ValueError, match="expected more than 0"):
        Watchdog(0)
