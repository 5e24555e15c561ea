"""The packet clock: one grid of absolute deadlines for every paced stream of a session or a gateway.

Theory of operation
-------------------
A voice packet is due every 20 ms (PROTOCOL section 11). One timer per call would wake the program ``50 x calls`` times
a second and flush the QUIC engine as often. Instead a single task walks a grid of deadlines, ``period / phases`` apart,
counted from one absolute origin. Each member belongs to one phase. A hundred calls are spread evenly over twelve of
them: a packet then waits for few others, and is heard sooner. More calls cost more than that is worth, and three phases
at a time come to share the deadline of the last. At a deadline the clock

1. calls every member of the phase, which writes its packet there and then, and
2. flushes, once.

Members are functions and not tasks: to wake a task costs as much as to write a packet.

Packets that are due and datagrams that have arrived compete for the program, and the earliest deadline goes first: of a
packet its slot, of what has arrived a period after all was last read. Whoever reads a burst therefore asks between two
datagrams whether somebody is due (:meth:`PacketClock.catch_up`). In a busy program packets leave in time and what
arrives waits a little; in one that has too much to do both are late, and neither starves.

Deadlines are computed from the origin and never from "now", so nothing drifts. A tick that is late by less than a
period still releases its members, which then meet their next deadline on time. What lies further back is skipped and
counted: a member is released once for any number of slots it missed, so lateness never turns into a burst.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import attrs
import trio

from agentao_trio._alarm import Alarm, open_alarm

__all__ = ["PACKET_INTERVAL", "ClockStatistics", "Lateness", "PacketClock", "Slot"]

#: Seconds between two packets of one call: the ptime of every codec in PROTOCOL section 11.
PACKET_INTERVAL = 0.020


class Lateness:
    """How far behind their deadlines the most recent releases were, in seconds. Memory is bounded by ``window``."""

    def __init__(self, window: int) -> None:
        self._recent: deque[float] = deque(maxlen=window)
        self._ordered: list[float] | None = None  # sorted once for all who ask

    def __repr__(self) -> str:
        return f"<Lateness of {len(self._recent)} releases, median {self.quantile(0.5):g} s>"

    def add(self, seconds: float) -> None:
        """Take note of a release that was late by so many seconds."""
        self._recent.append(seconds)
        self._ordered = None

    def quantile(self, q: float) -> float:
        """The ``q``-quantile (``0 <= q <= 1``) of the window; 0.0 when nothing has been released yet."""
        if not self._recent:
            return 0.0
        if self._ordered is None:
            self._ordered = sorted(self._recent)
        return self._ordered[min(len(self._ordered) - 1, int(q * len(self._ordered)))]


@attrs.frozen(kw_only=True)
class ClockStatistics:
    """What the clock saw. Lateness is seconds between a deadline and the moment the last of its members had written."""

    ticks: int
    members: int
    slots_skipped: int
    lateness_p50: float
    lateness_p99: float
    lateness_max: float


#: Members beyond which phases share deadlines, and how many deadlines are left of a period then.
_CROWD, _SHARED_DEADLINES = 100, 4
#: Seconds after a deadline from which it is asked whether what has arrived goes first.
_BEHIND = 0.002


class Slot:
    """A member's place in one phase of the clock. Made by :meth:`PacketClock.join`."""

    __slots__ = ("_joined_at", "_members", "_on_slot", "skipped")

    def __init__(self, members: dict[Slot, None], on_slot: Callable[[float], None], joined_at: float) -> None:
        self._members: dict[Slot, None] | None = members
        self._on_slot = on_slot
        self._joined_at = joined_at
        #: Slots that passed unused because the whole program was late by more than a period.
        self.skipped: int = 0

    def __repr__(self) -> str:
        return f"<Slot {'in use' if self._members is not None else 'left'}, {self.skipped} skipped>"

    def leave(self) -> None:
        """Give the place back: the member is not called any more. Harmless when repeated."""
        if self._members is not None:
            del self._members[self]
            self._members = None


class PacketClock:
    """One grid of deadlines, ``period`` seconds per slot in ``phases`` phases; ``flush`` runs after each.

    ``flush`` must not raise. :meth:`run` is the clock's only task; it sleeps through phases that have no members, so
    that an idle session costs nothing.
    """

    def __init__(self, flush: Callable[[], None], *, period: float = PACKET_INTERVAL, phases: int = 12) -> None:
        self._flush = flush
        #: The time in seconds, as trio tells it, for those who ask with every packet: without trio's two detours.
        self.now: Callable[[], float] = trio.lowlevel.current_clock().current_time
        self._step = period / phases
        # Tick k is due at origin + k * step. The last one that was handled; the next one that has members; how many are
        # handled together; and the deadline of that.
        self._origin = 0.0
        self._tick = 0
        self._upcoming: float = math.inf
        self._stride = 1
        self._due_at = math.inf
        # Until when what has arrived can wait.
        self._patience = period
        self._read_by = -math.inf
        self._joined_at = -math.inf  # the latest member
        # Dicts, not sets: release order is join order, so that one seed gives one packet trace.
        self._phases: list[dict[Slot, None]] = [{} for _ in range(phases)]
        self._alarm: Alarm | None = None
        self._ticks = 0
        self._slots_skipped = 0
        #: Of the most recent deadlines.
        self.lateness: Lateness = Lateness(4096)

    def __repr__(self) -> str:
        members = sum(map(len, self._phases))
        return f"<PacketClock, {members} members, {self._ticks} ticks, {self._slots_skipped} slots skipped>"

    def join(self, on_slot: Callable[[float], None]) -> Slot:
        """Become a member of the phase that has the fewest, far from the others where there is a choice.

        ``on_slot`` is called in each of its slots with the slot's deadline, in seconds of trio's clock. It may write
        one packet, join and leave; what it raises leaves :meth:`run` or :meth:`catch_up`.
        """
        members = self._emptiest_phase()
        self._joined_at = self.now()
        slot = Slot(members, on_slot, self._joined_at)
        members[slot] = None
        if self._alarm is not None:
            self._look_ahead()
            self._alarm.ring()
        return slot

    def _emptiest_phase(self) -> dict[Slot, None]:
        """Of the phases with the fewest members the one farthest from all fuller ones: few calls are spread evenly, and
        what comes back from one does not meet the next one's packet."""
        count, fewest = len(self._phases), min(map(len, self._phases))
        fuller = [phase for phase, members in enumerate(self._phases) if len(members) > fewest]

        def distance(phase: int) -> int:
            return min((min((phase - each) % count, (each - phase) % count) for each in fuller), default=count)

        free = [phase for phase, members in enumerate(self._phases) if len(members) == fewest]
        return self._phases[max(free, key=distance)]

    async def run(self) -> None:
        """Walk the grid until cancelled."""
        with open_alarm() as alarm:
            self._alarm = alarm
            try:
                await self._walk(alarm)
            finally:
                self._alarm = None
                self._due_at = math.inf

    async def _walk(self, alarm: Alarm) -> None:
        self._origin, self._tick = trio.current_time(), 0
        self._look_ahead()
        while True:
            await alarm.wait_until(self._due_at)
            if self._read_by < self._due_at < self.now() - _BEHIND:
                # Acknowledgements make room for what is written now, and without them it would be shed. In the second
                # batch every reader has had its turn.
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
            self._release_due()

    def catch_up(self, all_read_at: float) -> bool:
        """Release whoever is due, and flush, unless what has arrived is more urgent; whether anybody was released.

        For those who read, between two datagrams. ``all_read_at`` is when there was nothing left to read, in seconds
        of trio's clock.
        """
        self._read_by = all_read_at + self._patience
        if self.now() < self._due_at or self._read_by < self._due_at:
            return False
        self._release_due()
        return True

    def _release_due(self) -> None:
        stride, due = self._stride, self._ticks_due()
        if due < self._upcoming:
            return  # somebody joined, maybe a phase that comes earlier
        first = max(self._tick + 1, due - len(self._phases) + 1)
        if first > self._tick + 1:
            self._skip(range(self._tick + 1, first))
        self._tick = due
        for shared in range(-(-first // stride) * stride, due + 1, stride):
            self._release(range(max(first, shared - stride + 1), shared + 1), self._origin + shared * self._step)
        self._flush()
        self._look_ahead()

    def _phases_together(self) -> int:
        """How many phases share a deadline: those up to the next tick whose number is a multiple of this."""
        return max(1, len(self._phases) // _SHARED_DEADLINES) if sum(map(len, self._phases)) > _CROWD else 1

    def _look_ahead(self) -> None:
        """Find the next tick at which a phase that has members is due; there is none while nobody is one."""
        self._stride = stride = self._phases_together()
        ticks = range(self._tick + 1, self._tick + 1 + len(self._phases))
        upcoming = next((each for each in ticks if self._phases[each % len(self._phases)]), math.inf)
        self._upcoming = math.ceil(upcoming / stride) * stride if upcoming < math.inf else upcoming
        self._due_at = self._origin + self._upcoming * self._step

    def _ticks_due(self) -> int:
        # A deadline computed as origin + k * step may come back as k - 1e-16 steps.
        return math.floor((self.now() - self._origin) / self._step + 1e-6) // self._stride * self._stride

    def _release(self, ticks: range, deadline: float) -> None:
        phases = [self._phases[tick % len(self._phases)] for tick in ticks]
        members = [slot for phase in phases for slot in phase]
        if self._joined_at > deadline:  # who has joined after the deadline is not late for it
            members = [slot for slot in members if slot._joined_at <= deadline]
        if not members:
            return
        self._ticks += 1
        for slot in members:
            if slot._members is not None:  # it may have left since, on another's turn
                slot._on_slot(deadline)
        self.lateness.add(max(0.0, self.now() - deadline))

    def _skip(self, ticks: range) -> None:
        # By arithmetic, not tick by tick: after a suspended night the range has millions of elements.
        count = len(self._phases)
        for index, members in enumerate(self._phases):
            for slot in members:
                start = max(ticks.start, math.ceil((slot._joined_at - self._origin) / self._step - 1e-6))
                missed = len(range(start + (index - start) % count, ticks.stop, count))
                slot.skipped += missed
                self._slots_skipped += missed

    def statistics(self) -> ClockStatistics:
        """A snapshot; the lateness figures cover the most recent 4096 ticks."""
        return ClockStatistics(
            ticks=self._ticks,
            members=sum(map(len, self._phases)),
            slots_skipped=self._slots_skipped,
            lateness_p50=self.lateness.quantile(0.50),
            lateness_p99=self.lateness.quantile(0.99),
            lateness_max=self.lateness.quantile(1.0),
        )
