"""Events that a server delivers more than once: the same id, and the same bytes.

An id alone says nothing: there are servers that give one to several events. Events without an id are all new.
"""

from __future__ import annotations

from collections import OrderedDict

from agentao_trio.realtime.protocol import Received

__all__ = ["Repeats"]

#: Events that are remembered; what is older may come again unnoticed.
_REMEMBERED = 4096


class Repeats:
    """Recognises what has come before. Keeps a hash of each event, not the event."""

    def __init__(self) -> None:
        #: Events that were found to be repeated.
        self.count: int = 0
        self._seen: OrderedDict[tuple[str, int], None] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Repeats, {self.count} found>"

    def has(self, received: Received) -> bool:
        """Whether this event has come before; from now on it has."""
        event_id = received.event.event_id
        if not event_id:
            return False
        same = (event_id, hash(received.raw))
        if same in self._seen:
            self.count += 1
            return True
        self._seen[same] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return False
