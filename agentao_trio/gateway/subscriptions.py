"""Who gets which events, and which of them have to be sent again (PROTOCOL section 10.3).

Theory of operation
-------------------
A *subscription* is a tenant's client id. It outlives connections: at any time at most one of them, its peer, receives
its events. Each event is an *entry* that goes through three stages: unsent, sent, and gone once the peer is known to
have it. Whoever writes to the network reports back: :meth:`Subscription.sent` when an entry was written,
:meth:`Subscription.acknowledged` when its bytes were acknowledged. Two things can go wrong in between:

* the *stream* is reset, and the connection lives. Hangups that may have been lost with it are sent again; other events
  are given up, because what they announced is over;
* the *connection* is gone. Everything that was not acknowledged is sent again, in order, as soon as a connection
  subscribes with the same client id.

Acknowledged bytes may still not have reached the peer's program: a peer that has stopped a stream, or is closing,
acknowledges and throws away what is on its way, and the word of it may get lost and come later. A hangup that was
acknowledged less than a grace period before either is therefore sent again as well. Peers recognise replays by the
call, the type and the timestamp.

Entries older than the event window are dropped, and the oldest ones when there are too many; both are counted.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

import attrs

from agentao_trio.messages import CallEvent, EventType

__all__ = ["Entry", "Meddler", "Peer", "Subscription"]


@attrs.define(eq=False)
class Peer:
    """One connection, as the model knows it."""

    number: int
    #: Whose calls, trunks and events it may see. What authentication decides, it decides here.
    tenant: str
    #: The client ids it is subscribed with, oldest first.
    subscriptions: list[Subscription] = attrs.field(factory=list)
    #: Until when a token vouches for the tenant, in Unix seconds; minus infinity while there has been none.
    vouched_until: float = -math.inf
    #: The client ids it wants to be subscribed with once it has said who it is.
    waiting: list[str] = attrs.field(factory=list)


@attrs.define(eq=False)
class Entry:
    """One event of one subscription."""

    event: CallEvent
    emitted_at: float
    acknowledged_at: float | None = None

    @property
    def is_hangup(self) -> bool:
        """Whether this is the last event of its call."""
        return self.event.event_type == EventType.CHANNEL_HANGUP_COMPLETE


class Meddler(Protocol):
    """Who breaks the rules of this module on purpose; see :class:`agentao_trio.gateway.fault.Fault`."""

    def kept(self, subscription: Subscription, event: CallEvent) -> bool:
        """Whether an event is queued at all."""

    def replayed(self, subscription: Subscription, entries: list[Entry], connection_lost: bool) -> list[Entry]:
        """What is sent again in the place of what should be."""


class Subscription:
    """The events of one client id of one tenant. ``dropped`` is told how many entries were lost to a bound."""

    __slots__ = (
        "_dropped",
        "_grace",
        "_max_entries",
        "_meddler",
        "_sent",
        "_unsent",
        "_window",
        "away_since",
        "client_id",
        "peer",
        "tenant",
    )

    def __init__(
        self,
        *,
        tenant: str,
        client_id: str,
        window: float,
        grace: float,
        max_entries: int,
        dropped: Callable[[int], None],
        meddler: Meddler | None = None,
    ) -> None:
        self.tenant: str = tenant
        self.client_id: str = client_id
        self.peer: Peer | None = None
        #: When the last peer went away; minus infinity while there never was one.
        self.away_since: float = -math.inf
        self._window = window
        self._grace = grace
        self._max_entries = max_entries
        self._dropped = dropped
        self._meddler = meddler
        self._unsent: deque[Entry] = deque()
        self._sent: deque[Entry] = deque()

    def add(self, event: CallEvent, now: float) -> None:
        """Queue an event; it bears this subscription's client id from here on."""
        self.expire(now)
        if self._meddler is not None and not self._meddler.kept(self, event):
            return
        if len(self) >= self._max_entries:
            (self._sent or self._unsent).popleft()
            self._dropped(1)
        self._unsent.append(Entry(attrs.evolve(event, client_id=self.client_id), now))

    def __len__(self) -> int:
        return len(self._sent) + len(self._unsent)

    @property
    def entries(self) -> list[Entry]:
        """What waits to be sent, oldest first."""
        return list(self._unsent)

    def rearrange(self, entries: list[Entry]) -> None:
        """Have other entries wait to be sent."""
        self._unsent = deque(entries)

    # -- what the writer reports ----------------------------------------------------------------------------------

    def next_unsent(self) -> Entry | None:
        """What is to be sent next."""
        return self._unsent[0] if self._unsent else None

    def sent(self, entry: Entry) -> None:
        """The entry from :meth:`next_unsent` was written."""
        first = self._unsent.popleft()
        assert first is entry
        self._sent.append(entry)

    def acknowledged(self, entry: Entry, now: float) -> None:
        """The peer's QUIC stack has the entry. Harmless for one that is no longer kept."""
        entry.acknowledged_at = now
        self._settle(now)

    def _settle(self, now: float) -> None:
        while self._sent and self._has_arrived(self._sent[0], now):
            self._sent.popleft()

    def _has_arrived(self, entry: Entry, now: float) -> bool:
        """Whether the peer's program surely has it."""
        grace = self._grace if entry.is_hangup else 0.0
        return entry.acknowledged_at is not None and now - entry.acknowledged_at >= grace

    def stream_lost(self, now: float) -> None:
        """The stream that carried the sent entries was reset; their connection lives."""
        lost = [entry for entry in self._sent if entry.is_hangup and not self._has_arrived(entry, now)]
        self._send_again(lost if self._meddler is None else self._meddler.replayed(self, lost, False))

    def connection_lost(self, now: float) -> None:
        """The connection that carried the sent entries is gone, or is no longer this subscription's."""
        self.expire(now)
        lost = [entry for entry in self._sent if not self._has_arrived(entry, now)]
        self._send_again(lost if self._meddler is None else self._meddler.replayed(self, lost, True))

    def _send_again(self, entries: list[Entry]) -> None:
        self._sent.clear()
        for entry in entries:
            entry.acknowledged_at = None
        self._unsent.extendleft(reversed(entries))

    def expire(self, now: float) -> None:
        """Drop what is older than the window, and forget what the peer surely has."""
        self._settle(now)
        for entries in (self._sent, self._unsent):
            while entries and now - entries[0].emitted_at > self._window:
                if entries.popleft().acknowledged_at is None:
                    self._dropped(1)

    def adopt(self, other: Subscription) -> None:
        """Take over what waits for ``other``, as if it had been for this client id from the start."""
        while (entry := other.next_unsent()) is not None:
            other.sent(entry)
            self._unsent.append(Entry(attrs.evolve(entry.event, client_id=self.client_id), entry.emitted_at))
        other._sent.clear()
