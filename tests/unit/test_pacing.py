"""The packet clock: absolute deadlines, one flush per phase, lateness that skips and never bursts."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
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


class Member:
    """Takes ``count`` slots and leaves."""

    def __init__(self, clock: PacketClock, log: Log, name: str, count: int) -> None:
        self.deadlines: list[float] = []
        self.over = trio.Event()
        self._log, self._name, self._count = log, name, count
        self.slot = clock.join(self._on_slot)

    def _on_slot(self, deadline: float) -> None:
        self._log.add(self._name)
        self.deadlines.append(deadline)
        if len(self.deadlines) == self._count:
            self.slot.leave()
            self.over.set()


async def test_members_are_released_every_period_in_one_of_the_phases(autojump_clock: MockClock) -> None:
    log = Log()
    clock = PacketClock(lambda: log.add("flush"), phases=4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        for member in [Member(clock, log, name, 3) for name in "abcde"]:
            await member.over.wait()
        nursery.cancel_scope.cancel()
    phases = {name: log.times(name)[0] % 20 for name in "abcde"}
    assert sorted(phases.values()) == [0, 0, 5, 10, 15]  # the fifth shares a phase with one of the four
    for name in "abcde":
        first, second, third = log.times(name)
        assert (second - first, third - second) == (20, 20)


async def test_few_members_are_spread_evenly(autojump_clock: MockClock) -> None:
    for members, apart in ((2, 10), (4, 5), (8, 1), (12, 1), (20, 1), (40, 1)):
        log = Log()
        clock = PacketClock(lambda: None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clock.run)
            joined = [Member(clock, log, "packet", 1) for _ in range(members)]
            for member in joined:
                await member.over.wait()
            nursery.cancel_scope.cancel()
        taken = sorted({round(when) % 20 for when in log.times("packet")})
        gaps = [after - before for before, after in zip(taken, [*taken[1:], taken[0] + 20], strict=True)]
        assert min(gaps) >= apart
        assert len(taken) == min(members, 12)


async def test_what_a_phase_writes_is_flushed_once(autojump_clock: MockClock) -> None:
    log = Log()
    clock = PacketClock(lambda: log.add("flush"), phases=1)
    async with trio.open_nursery() as nursery:
        members = [Member(clock, log, "write", 3) for _ in range(50)]
        nursery.start_soon(clock.run)
        for member in members:
            await member.over.wait()
        nursery.cancel_scope.cancel()
    assert [what for what, _ in log.entries] == (["write"] * 50 + ["flush"]) * 3


async def test_a_crowd_has_four_deadlines_in_a_period_and_a_hundred_have_twelve(autojump_clock: MockClock) -> None:
    log = Log()
    clock = PacketClock(lambda: log.add("flush"))
    counts = [0] * 101

    def member(index: int) -> Slot:
        def on_slot(deadline: float) -> None:
            assert deadline == pytest.approx(trio.current_time(), abs=1e-6)
            counts[index] += 1

        return clock.join(on_slot)

    async def a_second() -> int:
        """Of which everybody gets a slot every 20 ms; returns how many deadlines there were in it."""
        before, ticks = counts[:], clock.statistics().ticks
        await trio.sleep(1.0)
        assert {now - then for now, then in zip(counts[:100], before, strict=False)} <= {49, 50, 51}
        return clock.statistics().ticks - ticks

    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        for index in range(100):
            member(index)
        await trio.sleep(0.1)
        assert await a_second() == pytest.approx(600, abs=2)
        last = member(100)
        assert await a_second() == pytest.approx(200, abs=6)
        last.leave()
        assert await a_second() == pytest.approx(600, abs=6)
        nursery.cancel_scope.cancel()
    assert clock.statistics().slots_skipped == 0


async def test_deadlines_do_not_drift(autojump_clock: MockClock) -> None:
    clock = PacketClock(lambda: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        member = Member(clock, Log(), "a", 50 * 60)  # a minute
        await member.over.wait()
        deadlines = member.deadlines
        nursery.cancel_scope.cancel()
    assert deadlines[-1] - deadlines[0] == pytest.approx((len(deadlines) - 1) * PACKET_INTERVAL, abs=1e-6)
    assert clock.statistics().slots_skipped == 0
    assert clock.statistics().lateness_max < 1e-6


async def late(clock: MockClock, delays: dict[int, float], rounds: int) -> tuple[PacketClock, Slot, list[float]]:
    """Call one member ``rounds`` times; after the n-th time the whole program stands still for a while."""
    packets = PacketClock(lambda: None, phases=1)
    releases: list[float] = []
    over = trio.Event()
    origin = trio.current_time()

    def on_slot(_: float) -> None:
        releases.append(round((trio.current_time() - origin) * 1000))
        clock.jump(delays.get(len(releases) - 1, 0.0))
        if len(releases) == rounds:
            slot.leave()
            over.set()

    slot = packets.join(on_slot)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(packets.run)
        await over.wait()
        nursery.cancel_scope.cancel()
    return packets, slot, releases


async def test_a_member_that_is_late_by_less_than_a_period_meets_its_next_deadline(autojump_clock: MockClock) -> None:
    packets, slot, releases = await late(autojump_clock, {2: 0.032}, 6)
    # Due at 80 and released at 92, as the program stood still from 60 on; the next one is on time again.
    assert releases == [20, 40, 60, 92, 100, 120]
    assert slot.skipped == 0
    assert packets.statistics().lateness_max == pytest.approx(0.032)  # its packet of 60 was written at 92


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
        before = trio.current_time()
        member = Member(clock, log, "a", 1)
        await member.over.wait()
        assert trio.current_time() - before <= PACKET_INTERVAL + 1e-6
        assert member.slot.skipped == 0
        member.slot.leave()  # once more: harmless
        ticks = clock.statistics().ticks
        await trio.sleep(3600)
        assert clock.statistics().ticks <= ticks + 1
        assert clock.statistics().members == 0
        nursery.cancel_scope.cancel()


async def test_leaving_in_a_phase_leaves_the_others_alone(autojump_clock: MockClock) -> None:
    log = Log()
    clock = PacketClock(lambda: None, phases=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        members = Member(clock, log, "first", 2), Member(clock, log, "second", 5)
        await members[1].over.wait()
        nursery.cancel_scope.cancel()
    assert log.times("first") == [20, 40]
    assert log.times("second") == [20, 40, 60, 80, 100]


async def test_a_member_may_end_the_turn_of_another_in_its_phase(autojump_clock: MockClock) -> None:
    log = Log()
    clock = PacketClock(lambda: None, phases=1)
    clock.join(lambda _: second.slot.leave())
    second = Member(clock, log, "second", 5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert log.entries == []


async def test_a_member_that_joins_on_anothers_turn_is_first_called_a_period_later(autojump_clock: MockClock) -> None:
    log = Log()
    clock = PacketClock(lambda: None, phases=1)
    joined: list[Member] = []

    def on_slot(_: float) -> None:
        log.add("first")
        slot.leave()
        joined.append(Member(clock, log, "second", 2))

    slot = clock.join(on_slot)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert log.entries == [("first", 20), ("second", 40), ("second", 60)]


async def test_a_member_that_joins_after_its_deadline_is_not_late_for_it(autojump_clock: MockClock) -> None:
    log = Log()
    clock = PacketClock(lambda: None, phases=2)
    early = Member(clock, log, "early", 100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        await trio.sleep(0.025)
        autojump_clock.jump(0.016)  # the program stands still until 41: both phases are due, at 30 and at 40
        Member(clock, log, "late", 2)
        await trio.sleep(0.1)
        assert log.times("early")[:3] == [20, 41, 60]
        assert log.times("late") == [50, 70]
        autojump_clock.jump(8 * 3600)  # and for a night
        late = Member(clock, log, "later", 2)
        await late.over.wait()
        assert late.slot.skipped == 0
        assert clock.statistics().slots_skipped == early.slot.skipped > 8 * 3600 * 49
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("joined_after", [0.0, 0.005, 0.015, 0.035])
async def test_slots_are_counted_from_when_a_member_joined(
    others: int, joined_after: float, autojump_clock: MockClock
) -> None:
    clock = PacketClock(lambda: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        for _ in range(others):
            clock.join(lambda _: None)
        await trio.sleep(0.1 + joined_after)
        late = clock.join(lambda _: None)
        autojump_clock.jump(1.0)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert 48 <= late.skipped <= 50


async def test_who_keeps_the_program_busy_lets_the_clock_catch_up_in_between(autojump_clock: MockClock) -> None:
    log = Log()
    clock = PacketClock(lambda: log.add("flush"), phases=2)
    members = [Member(clock, log, "packet", 100) for _ in range(2)]  # at 10, 20, 30 and so on

    def read(steps: int) -> list[float]:
        """Be busy for as many times 4 ms; when the clock caught up."""
        began = trio.current_time()
        caught_up = []
        for _ in range(steps):
            autojump_clock.jump(0.004)
            if clock.catch_up(began):
                caught_up.append(log.elapsed())
        return caught_up

    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        await trio.sleep(0.015)
        assert read(5) == [23, 31]
        await trio.sleep(0.01)
        assert log.times("packet") == [10, 23, 31, 40]
        # Until 105: what was due after 65 had to wait, for something else had waited since 45.
        assert read(15) == [53, 61]
        await trio.sleep(0.005)
        assert log.times("packet")[4:] == [53, 61, 105, 105, 110]
        assert log.times("flush") == sorted(set(log.times("packet")))
        nursery.cancel_scope.cancel()
    assert sum(member.slot.skipped for member in members) == 2


async def test_nobody_catches_up_with_a_clock_that_does_not_run(autojump_clock: MockClock) -> None:
    log = Log()
    clock = PacketClock(lambda: None, phases=1)
    Member(clock, log, "packet", 100)
    autojump_clock.jump(1)
    assert not clock.catch_up(trio.current_time())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        await trio.sleep(0.05)
        nursery.cancel_scope.cancel()
    autojump_clock.jump(1)
    assert not clock.catch_up(trio.current_time())
    assert log.times("packet") == [1020, 1040]


@pytest.mark.parametrize("unread_for", [0.005, 0.044, 0.046, 1.0])
async def test_a_clock_that_is_late_goes_first_unless_what_has_arrived_is_later(
    unread_for: float, autojump_clock: MockClock
) -> None:
    """At 45 ms, a packet is 25 ms late; what arrived 45 ms ago could wait for 20 and is as late."""
    log = Log()
    clock = PacketClock(lambda: None, phases=1)
    Member(clock, log, "packet", 100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run)
        await trio.sleep(0.015)
        assert not clock.catch_up(trio.current_time() + 0.03 - unread_for)  # nobody is due yet

        async def read() -> None:
            log.add("read")
            clock.catch_up(trio.current_time() - unread_for)

        autojump_clock.jump(0.03)
        await trio.lowlevel.checkpoint()  # the clock has woken, late
        nursery.start_soon(read)
        await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    order = ["packet", "read"] if unread_for < 0.045 else ["read", "packet"]
    assert log.entries == [(what, 45) for what in order]


@given(
    members=st.integers(1, 30),
    phases=st.sampled_from([1, 4, 20]),
    steps=st.lists(st.tuples(st.sampled_from(["sleep", "read", "lag"]), st.integers(1, 30)), max_size=30),
)
def test_catching_up_changes_who_calls_and_nothing_else(
    members: int, phases: int, steps: list[tuple[str, int]]
) -> None:
    """Against a naive model: a member is called in the first of its slots it can be, and never twice for one."""

    async def main() -> None:
        clock = PacketClock(lambda: None, phases=phases)
        mock = trio.lowlevel.current_clock()
        assert isinstance(mock, MockClock)
        deadlines: list[list[float]] = [[] for _ in range(members)]
        slots = [clock.join(each.append) for each in deadlines]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clock.run)
            await trio.lowlevel.checkpoint()
            origin = trio.current_time()
            await trio.sleep(0.00025)  # beside every deadline, so that it is clear what is due
            for what, milliseconds in steps:
                if what == "sleep":
                    await trio.sleep(milliseconds / 1000)
                else:
                    mock.jump(milliseconds / 1000)
                    clock.catch_up(trio.current_time() - (0.0 if what == "read" else 0.1))
            await trio.sleep(0.04)
            elapsed = trio.current_time() - origin
            nursery.cancel_scope.cancel()
        for member, (mine, slot) in enumerate(zip(deadlines, slots, strict=True)):
            passed = [round((each - origin) / PACKET_INTERVAL * phases, 3) for each in mine]
            phase = passed[0] % phases
            assert all(each % phases == phase for each in passed), member
            assert passed == sorted(set(passed))
            due = sum(1 for each in range(1, int(elapsed / PACKET_INTERVAL * phases) + 1) if each % phases == phase)
            assert len(mine) + slot.skipped == due

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_what_a_member_raises_leaves_the_clock(autojump_clock: MockClock) -> None:
    def on_slot(_: float) -> None:
        raise KeyError("a bug")

    clock = PacketClock(lambda: None)
    clock.join(on_slot)
    with pytest.raises(KeyError):
        await clock.run()


def test_quantiles_of_lateness_cover_the_window() -> None:
    lateness = Lateness(window=100)
    assert lateness.quantile(0.5) == 0.0
    for number in range(1000):
        lateness.add(number / 1000)
    assert lateness.quantile(0.0) == 0.900
    assert lateness.quantile(0.5) == 0.950
    assert lateness.quantile(1.0) == 0.999
