"""How large the datagrams may be that a path carries: path MTU discovery by datagrams (RFC 8899, RFC 9000 §14.3).

One of the rooms of :mod:`agentao_trio._engine`, which says what they have in common.

Theory of operation
-------------------
Every path of QUIC's carries datagrams of 1200 bytes, most carry more, and a datagram costs nearly the same whatever it
holds. So the larger sizes are tried, one after the other, with *probes*: packets that hold nothing and are nobody's
loss. One that is acknowledged has shown that the path carries its size; one that is lost shows that it does not, if two
more are.

A path may change. After a loss a probe of the size in use asks whether it still carries that; if not, all is 1200 bytes
again, and the search begins anew. This machine, or a router by way of ICMP, may also say that a datagram is too long,
which needs no further proof.

==============  ====================================  ================================================
what is asked   the probe arrives                     three are lost, or this machine refuses it
==============  ====================================  ================================================
is there more?  the size is used, and the next tried  the search rests for :data:`RAISE` seconds
still?          nothing changes                       back to :data:`BASE`, and the search begins anew
==============  ====================================  ================================================
"""

from __future__ import annotations

import math

from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE

__all__ = ["BASE", "SIZES", "PathMTU"]

#: Bytes of UDP payload that every path carries (RFC 9000 §14).
BASE = SMALLEST_MAX_DATAGRAM_SIZE
#: What packets of 1400, 1500 and 8896 bytes hold behind the headers of IPv6 and UDP: tunnels and mobile networks,
#: Ethernet, and the jumbo frames of data centres.
SIZES = (1352, 1452, 8848)
#: Probes of one size before the answer is no, and seconds before it is asked for again (RFC 8899 §5.1).
TRIES, RAISE = 3, 600.0
#: Seconds between two doubts: on a path that loses now and then, each loss would otherwise bring a probe.
DOUBT = 1.0


class PathMTU:
    """The search, for one connection. ``size`` is what datagrams may have now, in bytes of UDP payload."""

    def __init__(self) -> None:
        self.size = BASE
        self._most = BASE
        # The size that is in question, how many probes of it were lost, and whether one is under way.
        self._candidate: int | None = None
        self._lost = 0
        self._is_asking = False
        self._asked_at = 0.0
        # When to ask for more, and before when a loss is no reason to ask anything.
        self._search_at = -math.inf
        self._doubt_at = -math.inf
        self._losses = 0

    def __repr__(self) -> str:
        asked = "" if self._candidate is None else f", {self._candidate} in question"
        return f"<PathMTU of {self.size} bytes{asked}>"

    def allow(self, most: int) -> None:
        """Look for sizes of up to ``most`` bytes: what the socket, the program and the peer agree to."""
        self._most = most

    def next_probe(self, now: float, losses: int) -> int | None:
        """The size of a probe that is to be sent now, if any; ``losses`` is the number of packets lost so far."""
        if self._is_asking:
            return None
        if self._candidate is None:
            self._candidate = self._question(now, losses)
        if self._candidate is not None:
            self._is_asking = True
            self._asked_at = now
        return self._candidate

    def _question(self, now: float, losses: int) -> int | None:
        if losses != self._losses and now >= self._doubt_at:
            self._losses = losses
            self._doubt_at = now + DOUBT
            if self.size > BASE:
                return self.size
        if now >= self._search_at:
            return next((size for size in SIZES if self.size < size <= self._most), None)
        return None

    def answered(self, *, arrived: bool) -> None:
        """The latest probe was acknowledged, or lost."""
        self._is_asking = False
        assert self._candidate is not None  # as long as a probe is under way
        if arrived:
            self.size = self._candidate
        else:
            self._lost += 1
            if self._lost < TRIES:
                return
            if self._candidate > self.size:
                self._search_at = self._asked_at + RAISE
            else:
                self._start_over()
        self._candidate = None
        self._lost = 0

    def too_long(self) -> bool:
        """Something sent was too long for this machine or the path; False when nothing shorter could be sent."""
        if self._is_asking:
            self._lost = TRIES  # its loss will be the answer
            return True
        if self.size > BASE:
            self._start_over()
            self._candidate = None
            self._lost = 0
            return True
        return False

    def _start_over(self) -> None:
        self.size = BASE
        self._search_at = -math.inf
