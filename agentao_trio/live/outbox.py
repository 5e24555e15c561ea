"""What waits to be sent to one client: bounded, with what cannot wait in front.

A client that is too slow loses what was waiting: all of it, as a part of it would be of no use to it. It is *stale*
then, and gets a snapshot as soon as it can take anything again; until then nothing more is kept for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import attrs

__all__ = ["Outbox", "Parcel"]

#: What may wait for one client, in packets and in bytes.
MOST_PACKETS = 2000
MOST_BYTES = 4 * 1024 * 1024
#: Answers that may wait; a client that asks for more and reads none is not served any longer.
MOST_URGENT = 256


@attrs.frozen(eq=False)
class Parcel:
    """One packet, encoded once for all that get it: as text for polling, and as a WebSocket frame."""

    text: str
    frame: bytes


class Outbox:
    """The queue of one client."""

    __slots__ = ("_bytes", "_urgent", "_waiting", "is_flooded", "is_stale", "overflows")

    def __init__(self) -> None:
        self._urgent: deque[Parcel] = deque()
        self._waiting: deque[Parcel] = deque()
        self._bytes = 0
        #: A snapshot is due.
        self.is_stale: bool = False
        #: More answers than there is room for have been asked for.
        self.is_flooded: bool = False
        self.overflows: int = 0

    def __bool__(self) -> bool:
        """Whether there is something to be sent."""
        return bool(self._urgent or self._waiting or self.is_stale)

    @property
    def bytes_waiting(self) -> int:
        """How much has not been taken yet."""
        return self._bytes

    def put(self, parcel: Parcel) -> None:
        """Let an event wait its turn. Without room for it, everything that waits is dropped."""
        if self.is_stale:
            return
        size = len(parcel.frame)
        if self._waiting and (len(self._waiting) >= MOST_PACKETS or self._bytes + size > MOST_BYTES):
            self._waiting.clear()
            self._bytes = 0
            self.is_stale = True
            self.overflows += 1
            return
        self._waiting.append(parcel)
        self._bytes += size

    def put_first(self, parcel: Parcel) -> None:
        """Let an answer or a ping wait in front of all events, behind others of its kind."""
        if len(self._urgent) >= MOST_URGENT:
            self.is_flooded = True
        else:
            self._urgent.append(parcel)

    def refresh(self, parcels: Iterable[Parcel]) -> None:
        """Put a snapshot in the place of what was dropped, however large it is."""
        self._waiting = deque(parcels)
        self._bytes = sum(len(parcel.frame) for parcel in self._waiting)
        self.is_stale = False

    def take(self, most_bytes: int) -> list[Parcel]:
        """What is to be sent next: at least one packet if there are any, and no more than ``most_bytes`` otherwise."""
        taken: list[Parcel] = []
        size = 0
        for queue in (self._urgent, self._waiting):
            while queue and (not taken or size + len(queue[0].frame) <= most_bytes):
                parcel = queue.popleft()
                taken.append(parcel)
                size += len(parcel.frame)
                if queue is self._waiting:
                    self._bytes -= len(parcel.frame)
        return taken
