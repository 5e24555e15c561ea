"""Congestion control for calls: aioquic's own controllers, with a window that paced media always fits into.

One of the rooms of :mod:`agentao_trio._engine`, which says what they have in common.

Theory of operation
-------------------
Reno and CUBIC take every loss for a full queue. On a path that loses one packet in 200 for other reasons they settle
at some 17 datagrams in flight; a hundred calls over 40 ms need 45. What does not fit waits in its stream, and late
audio is of no use. Yet a hundred calls do not *want* more than their fixed rate: a clock paces them, and each writer
sheds what the path does not carry (:mod:`agentao_trio.media`) before it enters a stream.

So the window has a *floor*: the media that was written and got through of late, per second, times the shortest round
trip seen, with some room for acknowledgements and retransmissions. It is a floor and no flood: on a path that carries
less than what is said, less gets through, and the writers shed; the floor settles at what the path carries. Bulk data
is not counted and gets what the controller beneath would give it.

A long queue in front of the path makes audio late too, and Reno and CUBIC know no other way to find a path's capacity
than to fill the queue until it overflows. So there is a *ceiling* as well. While round trips are more than
:data:`QUEUE` longer than the shortest, it is what is in flight less what stands in the queue; while they are not, it
rises, by a sixteenth per round trip. The floor has precedence.

Both reckon with the path's own round trip, and a path may change. When none of its round trips has come near the
shortest for :data:`REMEMBERED` seconds, hardly anything is sent for a moment, so that whatever queue is ours goes
away, and the shortest of that moment is the path's.

The pacer spreads a window over a round trip and lets 16 datagrams go at once. The writers of one deadline of the clock
all write at the same moment, and have been spread by the clock already: here what media comes in :data:`BURST` seconds
may go at once, or hundreds of calls would wait for a timer in the middle of it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE
from aioquic.quic.congestion.base import QuicCongestionControl, register_congestion_control
from aioquic.quic.congestion.cubic import CubicCongestionControl
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.recovery import QuicPacketPacer
from aioquic.tls import Epoch

__all__ = ["COUNTING", "MediaPacer", "MediaRate", "MediaWindow"]

#: Bytes that may be in flight whatever is lost, the window RFC 9002 §7.2 begins with; and on however slow a path.
LEAST_UNDER_LOSS, LEAST = 10 * SMALLEST_MAX_DATAGRAM_SIZE, 3 * SMALLEST_MAX_DATAGRAM_SIZE
#: The floor is what is written in a round trip and so many seconds more (an acknowledgement may wait for 25 ms, what
#: one deadline of the clock writes leaves in one burst), times a factor for headers and for what has to be sent again.
SLACK, HEADROOM = 0.050, 1.25
#: Seconds by which round trips may be longer than the shortest, and for how long all of them have to be longer before
#: it is a queue: where one end stands still for a moment, a few are too, but they are read at one moment.
QUEUE, LASTING = 0.050, 0.010
#: Seconds for which a shortest round trip is believed; how near another one has to come to confirm it (a peer may delay
#: an acknowledgement by 25 ms); and how long hardly anything is sent when none does.
REMEMBERED, NEAR, PROBE = 10.0, 0.030, 0.150
#: What the ceiling rises by in a round trip that is not.
RISE = 17 / 16
#: Seconds of media that may leave in one burst: two deadlines of a crowded packet clock.
BURST = 0.010
#: Seconds that media is counted for before it makes a rate, and how many such counts the highest is taken of.
INTERVAL, INTERVALS = 0.25, 4
#: By how much more than what got through in one interval may be on its way in the next.
GROWTH = 1.25


class MediaRate:
    """Bytes of media per second that were written and got through: the most within one of the last few intervals."""

    def __init__(self) -> None:
        self.per_second: float = 0.0
        #: Bytes written since the last count; for the writer to add to.
        self.written: int = 0
        self._acknowledged = 0
        self._since = 0.0
        self._recent: deque[float] = deque(maxlen=INTERVALS)

    def acknowledged(self, size: int) -> None:
        """``size`` bytes of any packets arrived."""
        self._acknowledged += size

    def advance(self, now: float) -> bool:
        """The time is ``now``; to be called before every burst. Whether there is a new rate."""
        if (passed := now - self._since) < INTERVAL:
            return False
        self._recent.append(min(self.written, self._acknowledged * GROWTH) / passed)
        self.per_second = max(self._recent)
        self.written = self._acknowledged = 0
        self._since = now
        return True


class _Counting(QuicCongestionControl):
    """Counts what was lost."""

    packets_lost = 0

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        packets = list(packets)
        self.packets_lost += len(packets)
        super().on_packets_lost(now=now, packets=packets)  # type: ignore[safe-super]  # a controller comes after us


class MediaWindow(_Counting):
    """A controller whose window has room for the media that is being written, and not for a long queue."""

    def __init__(self, *, max_datagram_size: int) -> None:
        self.media = MediaRate()
        self._shortest = math.inf  # round trip, seconds
        self._confirmed_at = 0.0
        self._probing_until: float | None = None
        self._long_since: float | None = None  # since when all round trips have been too long
        self._ceiling = math.inf  # bytes
        self._ceiling_set_at = 0.0
        self._window = 0  # what the controller beneath would have
        self._bounded = 0
        super().__init__(max_datagram_size=max_datagram_size)

    # The controllers read and set their window under this name in a dozen places, several of them for each packet; in
    # all of them it has these bounds, which are reckoned anew when one of them has changed.
    @property
    def congestion_window(self) -> int:
        return self._bounded

    @congestion_window.setter
    def congestion_window(self, window: int) -> None:
        self._window = window
        self._bound()

    def _bound(self) -> None:
        if self._probing_until is not None:
            self._bounded = LEAST
        else:
            self._bounded = max(int(min(max(self._window, LEAST_UNDER_LOSS), self._ceiling)), self.floor)

    def advance(self, now: float) -> None:
        """The time is ``now``; to be called before every burst."""
        if self.media.advance(now):
            self._bound()

    @property
    def floor(self) -> int:
        """Bytes."""
        if self._shortest == math.inf:
            return LEAST
        return max(LEAST, int(self.media.per_second * (self._shortest + SLACK) * HEADROOM))

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        if packet.epoch is not Epoch.ONE_RTT:
            # The handshake says little of the path, and is a few bytes longer or shorter every time (the length of a
            # signature): what is made of it would make two runs differ that are the same in everything else.
            self.bytes_in_flight -= packet.sent_bytes
            return
        self.media.acknowledged(packet.sent_bytes)
        if 2 * self.bytes_in_flight < self._bounded:
            # A window that nobody fills says nothing of the path, and does not grow (RFC 9002 §7.8). Calls do not fill
            # theirs, so that this is nearly always.
            self.bytes_in_flight -= packet.sent_bytes
            self.last_ack = now  # which CUBIC tells a pause by
            return
        super().on_packet_acked(now=now, packet=packet)  # type: ignore[safe-super]

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        super().on_rtt_measurement(now=now, rtt=rtt)  # type: ignore[safe-super]
        self._measure_path(now, rtt)
        self._limit_queue(now, rtt)
        self._bound()

    def _measure_path(self, now: float, rtt: float) -> None:
        if rtt <= self._shortest + NEAR:
            self._confirmed_at = now
        self._shortest = min(self._shortest, rtt)
        if self._probing_until is not None:
            if now >= self._probing_until:
                self._probing_until = None
        elif now > self._confirmed_at + REMEMBERED:
            # The first packets after this round trip are the ones that find the queue gone.
            self._probing_until = now + rtt + PROBE
            self._shortest = rtt
            self._ceiling = math.inf

    def _limit_queue(self, now: float, rtt: float) -> None:
        if rtt <= self._shortest + QUEUE:
            self._long_since = None
            if now >= self._ceiling_set_at + rtt:
                self._ceiling *= RISE
                self._ceiling_set_at = now
        elif self._long_since is None:
            self._long_since = now
            # No more than now, until it is clear what it is.
            self._ceiling = min(self._ceiling, max(self.bytes_in_flight, LEAST_UNDER_LOSS))
        # A ceiling that holds already is given a round trip to show what comes of it.
        elif now >= self._long_since + (rtt if self._ceiling < self._window else LASTING):
            self._ceiling = self.bytes_in_flight * (self._shortest + QUEUE) / rtt
            self._ceiling_set_at = self._long_since = now


class _CountingReno(_Counting, RenoCongestionControl):
    pass


class _CountingCubic(_Counting, CubicCongestionControl):
    pass


class _MediaReno(MediaWindow, RenoCongestionControl):
    pass


class _MediaCubic(MediaWindow, CubicCongestionControl):
    pass


COUNTING = _Counting

register_congestion_control("stock-reno", _CountingReno)
register_congestion_control("stock-cubic", _CountingCubic)
register_congestion_control("agentao-reno", _MediaReno)
register_congestion_control("agentao-cubic", _MediaCubic)


class MediaPacer(QuicPacketPacer):
    """aioquic's pacer, which lets what is due at one deadline of the packet clock leave at once."""

    def __init__(self, media: MediaRate, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._media = media

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        super().update_rate(congestion_window, smoothed_rtt)
        # In seconds at the pacer's rate, as it reckons.
        self.bucket_max = max(self.bucket_max, self._media.per_second * BURST * smoothed_rtt / congestion_window)
