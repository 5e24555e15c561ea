"""Alarms: at a moment or when they are rung, in real time and in virtual time."""

from __future__ import annotations

import errno
import math
import os
import time

import pytest
import trio
from trio.testing import MockClock

from agentao_trio._alarm import Alarm, open_alarm


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def rings_when_it_is_due(alarm: Alarm) -> None:
    for seconds in (0.02, 0.0004, 0.0, -1.0):
        began = trio.current_time()
        await alarm.wait_until(began + seconds)
        assert trio.current_time() - began >= max(seconds, 0.0) - 1e-6


async def test_it_rings_when_it_is_due_and_not_before() -> None:
    with open_alarm() as alarm:
        await rings_when_it_is_due(alarm)


async def test_in_virtual_time_too(autojump_clock: MockClock) -> None:
    with open_alarm() as alarm:
        await rings_when_it_is_due(alarm)
        began = trio.current_time()
        await alarm.wait_until(began + 3600)
        assert trio.current_time() - began == pytest.approx(3600)


async def test_a_clock_that_runs_and_jumps_is_virtual(mock_clock: MockClock) -> None:
    mock_clock.rate, mock_clock.autojump_threshold = 1, 0
    began = time.monotonic()
    with open_alarm() as alarm:
        await alarm.wait_until(trio.current_time() + 3600)
    assert time.monotonic() - began < 600


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), AttributeError("timerfd_create")])
async def test_where_there_is_no_timer_trio_has_to_do(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_timer(*_: object, **__: object) -> int:
        raise error

    monkeypatch.setattr(os, "timerfd_create", no_timer, raising=False)
    before = descriptors()
    with open_alarm() as alarm:
        assert descriptors() == before
        await rings_when_it_is_due(alarm)


async def test_it_can_be_rung_before() -> None:
    with open_alarm() as alarm, trio.fail_after(10):
        for deadline in (math.inf, trio.current_time() + 3600):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(alarm.wait_until, deadline)
                await trio.testing.wait_all_tasks_blocked()
                alarm.ring()


async def test_what_has_rung_while_nobody_waited_is_forgotten() -> None:
    with open_alarm() as alarm:
        alarm.ring()
        with trio.move_on_after(0.02) as scope:
            await alarm.wait_until(math.inf)
        assert scope.cancelled_caught


async def test_cancelled_it_can_wait_again_and_leaves_no_descriptor() -> None:
    before = descriptors()
    with open_alarm() as alarm:
        with trio.move_on_after(0) as scope:
            await alarm.wait_until(trio.current_time() - 1)
        assert scope.cancelled_caught
        await rings_when_it_is_due(alarm)
    assert descriptors() == before
