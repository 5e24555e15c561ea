"""The packet clock: absolute deadlines, one flush per phase, lateness that skips and never bursts."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from agentao_trio.pacing import PACKET_INTERVAL, Lateness, PacketClock, Slot


class Log:
    """What happened when, in milliseconds since the start."""

    def __init__(self) -> None:
        self.origin = trio.current_time()
        self.entries: list[tuple[str, float]] = []

    def add(self, what: str) -> None:
        self.entries.append((what, self.elapsed()))

    def elapsed(self) -> float:
        return round((trio.current_time() - self.origin) * 1000, 3)

    def times(self, what: str) -> list[float]:
        return [when for name, when in self.entries if name == what]


async def take_slots(slot: Slot, log: Log, name: str, count: int, deadlines: list[float] | None = None) -> None:
    for _ in range(count):
        deadline = await slot.wait()
        log.add(name)
        if deadlines is not None:
            deadlines.append(deadline)
    slot.leave()


async def test_members_are_released_every_period_in_one_of_four_phases(autojump_clock: MockClock) -> None:
    log = Log()
    clock = PacketClock(lambda: log.add("flush"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        async with trio.open_nursery() as members:
            for name in "abcde":
                members.start_soon(take_slots, clock.join(), log, name, 3)
        nursery.cancel_scope.cancel()
    phases = {name: log.times(name)[0] % 20 for name in "abcde"}
    assert sorted(phases.values()) == [0, 0, 5, 10, 15]  # the fifth shares a phase with one of the four
    for name in "abcde":
        first, second, third = log.times(name)
        assert (second - first, third - second) == (20, 20)


async def test_a_phase_is_flushed_once_after_all_of_its_members_have_written(autojump_clock: MockClock) -> None:
    log = Log()
    clock = PacketClock(lambda: log.add("flush"), phases=1)
    async with trio.open_nursery() as nursery:
        async with trio.open_nursery() as members:
            for _ in range(50):
                members.start_soon(take_slots, clock.join(), log, "write", 3)
            nursery.start_soon(clock.run)
        nursery.cancel_scope.cancel()
    happened = [what for what, _ in log.entries]
    assert happened[: 2 * 51 + 50] == (["write"] * 50 + ["flush"]) * 2 + ["write"] * 50


async def test_deadlines_do_not_drift(autojump_clock: MockClock) -> None:
    log = Log()
    deadlines: list[float] = []
    clock = PacketClock(lambda: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        await take_slots(clock.join(), log, "a", 50 * 60, deadlines)  # a minute
        nursery.cancel_scope.cancel()
    assert deadlines[-1] - deadlines[0] == pytest.approx((len(deadlines) - 1) * PACKET_INTERVAL, abs=1e-6)
    assert clock.statistics().slots_skipped == 0
    assert clock.statistics().lateness_max < 1e-6


async def late(clock: MockClock, delays: dict[int, float], rounds: int) -> tuple[PacketClock, Slot, list[float]]:
    """Release one member ``rounds`` times; after the n-th release the whole program stands still for a while."""
    packets = PacketClock(lambda: None, phases=1)
    slot = packets.join()
    releases: list[float] = []
    origin = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(packets.run)
        for number in range(rounds):
            await slot.wait()
            releases.append(round((trio.current_time() - origin) * 1000))
            clock.jump(delays.get(number, 0.0))
        nursery.cancel_scope.cancel()
    return packets, slot, releases


async def test_a_member_that_is_late_by_less_than_a_period_meets_its_next_deadline(autojump_clock: MockClock) -> None:
    packets, slot, releases = await late(autojump_clock, {2: 0.032}, 6)
    # Due at 80 and released at 92, as the program stood still from 60 on; the next one is on time again.
    assert releases == [20, 40, 60, 92, 100, 120]
    assert slot.skipped == 0
    assert packets.statistics().lateness_max == pytest.approx(0.012)


async def test_what_lies_further_back_is_skipped_and_counted(autojump_clock: MockClock) -> None:
    packets, slot, releases = await late(autojump_clock, {2: 0.250}, 6)
    # 80, 100, ... 280 would be due; the last of them is served, the ten before it are not.
    assert releases == [20, 40, 60, 310, 320, 340]
    assert slot.skipped == 11
    assert packets.statistics().slots_skipped == 11


async def test_a_night_of_sleep_costs_no_time_to_count(autojump_clock: MockClock) -> None:
    _, slot, releases = await late(autojump_clock, {0: 8 * 3600.0}, 3)
    assert slot.skipped == 8 * 3600 * 50 - 1
    assert releases[2] - releases[1] <= 20


async def test_a_clock_without_members_sleeps(autojump_clock: MockClock) -> None:
    log = Log()
    clock = PacketClock(lambda: log.add("flush"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        await trio.sleep(3600)
        assert clock.statistics().ticks == 0
        assert log.entries == []
        slot = clock.join()
        before = trio.current_time()
        await slot.wait()
        assert trio.current_time() - before <= PACKET_INTERVAL + 1e-6
        assert slot.skipped == 0
        slot.leave()
        slot.leave()  # harmless
        ticks = clock.statistics().ticks
        await trio.sleep(3600)
        assert clock.statistics().ticks <= ticks + 1
        assert clock.statistics().members == 0
        nursery.cancel_scope.cancel()


async def test_leaving_in_a_phase_leaves_the_others_alone(autojump_clock: MockClock) -> None:
    log = Log()
    clock = PacketClock(lambda: None, phases=1)
    first, second = clock.join(), clock.join()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        nursery.start_soon(take_slots, first, log, "first", 2)
        await take_slots(second, log, "second", 5)
        nursery.cancel_scope.cancel()
    assert log.times("first") == [20, 40]
    assert log.times("second") == [20, 40, 60, 80, 100]


async def test_a_member_that_does_not_wait_misses_its_slot_and_is_not_released_twice(autojump_clock: MockClock) -> None:
    log = Log()
    clock = PacketClock(lambda: None, phases=1)
    slot = clock.join()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        await slot.wait()
        log.add("a")
        await trio.sleep(0.050)  # busy elsewhere, over two slots
        await slot.wait()
        log.add("a")
        nursery.cancel_scope.cancel()
    assert log.times("a") == [20, 80]


async def test_cancelling_a_wait_keeps_the_membership(autojump_clock: MockClock) -> None:
    clock = PacketClock(lambda: None, phases=1)
    slot = clock.join()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        with trio.move_on_after(0.010) as scope:
            await slot.wait()
        assert scope.cancelled_caught
        assert clock.statistics().members == 1
        with trio.fail_after(0.011):
            await slot.wait()
        nursery.cancel_scope.cancel()


async def test_two_tasks_cannot_wait_for_one_slot(autojump_clock: MockClock) -> None:
    clock = PacketClock(lambda: None)
    slot = clock.join()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slot.wait)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await slot.wait()
        nursery.cancel_scope.cancel()


def test_quantiles_of_lateness_cover_the_window() -> None:
    lateness = Lateness(window=100)
    assert lateness.quantile(0.5) == 0.0
    for number in range(1000):
        lateness.add(number / 1000)
    assert lateness.quantile(0.0) == 0.900
    assert lateness.quantile(0.5) == 0.950
    assert lateness.quantile(1.0) == 0.999
