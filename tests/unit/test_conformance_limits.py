"""The allowance of a run: calls in all, calls at a time, calls a second."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from agentao_trio.conformance.limits import LimitReached, Limits


async def test_calls_keep_their_distance_and_end_with_the_allowance(autojump_clock: MockClock) -> None:
    limits = Limits(max_calls=3, rate=2.0, concurrency=0)
    began = trio.current_time()
    for _ in range(3):
        await limits.acquire()
    assert trio.current_time() - began == pytest.approx(1.0)
    with pytest.raises(LimitReached, match="3 calls"):
        await limits.acquire()


async def test_one_that_is_too_many_waits_for_another_to_end(autojump_clock: MockClock) -> None:
    limits = Limits(rate=0.0, concurrency=1)
    await limits.acquire()
    with trio.move_on_after(60) as patience:
        await limits.acquire()
    assert patience.cancelled_caught
    limits.release()
    await limits.acquire()
    assert (limits.calls, limits.peak) == (2, 1)


async def test_a_call_that_gave_up_waiting_for_its_turn_was_none(autojump_clock: MockClock) -> None:
    limits = Limits(max_calls=2, rate=0.1, concurrency=2)
    await limits.acquire()
    with trio.move_on_after(1) as patience:
        await limits.acquire()
    assert patience.cancelled_caught
    assert limits.calls == 1
    await limits.acquire()
    assert trio.current_time() == pytest.approx(20.0, abs=1), "its place in time stays empty"
