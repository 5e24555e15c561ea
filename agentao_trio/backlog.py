"""How long what was written to one stream waits, so that nobody says what would be heard too late."""

from __future__ import annotations

from collections import deque

__all__ = ["Backlog"]

#: How long, in seconds, the oldest packet may have waited beyond the path's own round trip, and how long without even
#: having left.
BACKLOG_AGE, UNSENT_AGE = 0.35, 0.04


class Backlog:
    """How long the packets of one stream wait: to leave, and to be acknowledged.

    A count of bytes does not tell that: over a path that carries half of what is said, half a second of audio takes a
    second to leave. Where the path carries too little, the congestion window soon keeps packets from leaving at all;
    they are the ones to count by, since what is lost on the way and sent again is late too, but no sign of a queue.
    """

    __slots__ = ("_earlier", "_latest_at", "_round_trip", "_written")

    def __init__(self, size: int, at: float, round_trip: float) -> None:
        """One packet waits, of which ``size`` bytes are not acknowledged. It was written at ``at``; ``round_trip`` is
        the shortest seen on its stream."""
        #: Bytes since there was nothing to wait for, and when the latest packet of them was written.
        self._written = size
        self._latest_at = at
        # Of each packet before that one: where it ends, and when it was written.
        self._earlier: deque[tuple[int, float]] = deque()
        self._round_trip = round_trip

    def wrote(self, size: int, now: float) -> None:
        """A packet was written behind them."""
        self._earlier.append((self._written, self._latest_at))
        self._written += size
        self._latest_at = now

    def is_stale(self, unsent: int, backlog: int, now: float) -> bool:
        """Whether what is written now would come too late; ``unsent`` and ``backlog`` are in bytes."""
        earlier = self._earlier
        sent, acknowledged = self._written - unsent, self._written - backlog
        while earlier and earlier[0][0] <= acknowledged:
            self._round_trip = min(self._round_trip, now - earlier.popleft()[1])
        oldest = earlier[0][1] if earlier else self._latest_at
        if backlog and now - oldest - self._round_trip > BACKLOG_AGE:
            return True
        oldest_unsent = next((at for end, at in earlier if end > sent), self._latest_at)
        return unsent > 0 and now - oldest_unsent > UNSENT_AGE
