"""Faults of replay and buffers, of streams and connections, of the path and the certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs

from agentao_trio.gateway.fault import Dice, Fault, fault
from agentao_trio.gateway.fault_events import CREATE, HANGUP
from agentao_trio.gateway.subscriptions import Entry, Peer, Subscription
from agentao_trio.messages import CallEvent, MethodId

__all__: list[str] = []

# -- within a session -----------------------------------------------------------------------------------------------


@fault
class NoReplayAfterReset(Fault):
    """What was on a stream that was stopped is gone."""

    def replayed(self, subscription: Subscription, entries: list[Entry], connection_lost: bool) -> list[Entry]:
        return entries if connection_lost else []


@fault
class OnlyLatestHangupReplayed(Fault):
    """Of what was on a stream that was stopped the latest event is sent again."""

    def replayed(self, subscription: Subscription, entries: list[Entry], connection_lost: bool) -> list[Entry]:
        return entries if connection_lost else entries[-1:]


class _Historian(Fault):
    """One that remembers what a subscription was ever told."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self.history: dict[int, list[CallEvent]] = {}

    def kept(self, subscription: Subscription, event: CallEvent) -> bool:
        self.history.setdefault(id(subscription), []).append(attrs.evolve(event, client_id=subscription.client_id))
        return True

    def again(self, subscription: Subscription, *, hangups: bool) -> list[Entry]:
        """Events of the past: all hangups, or all others of calls that had not ended before the latest event."""
        history = self.history.get(id(subscription), [])
        over = {event.call_sid for event in history[:-1] if event.event_type == HANGUP}
        now = self.hands.now()
        return [
            Entry(event, now)
            for event in history
            if (event.event_type == HANGUP) == hangups and (hangups or event.call_sid not in over)
        ]


@fault
class MidCallEventsReplayed(_Historian):
    """After a stream was stopped, everything is told again of calls that are up."""

    def replayed(self, subscription: Subscription, entries: list[Entry], connection_lost: bool) -> list[Entry]:
        return entries if connection_lost else [*self.again(subscription, hangups=False), *entries]


@fault
class HangupsReplayedAtEveryReset(_Historian):
    """Whenever a stream is stopped, the end of every call there ever was is told again."""

    def replayed(self, subscription: Subscription, entries: list[Entry], connection_lost: bool) -> list[Entry]:
        return entries if connection_lost else self.again(subscription, hangups=True)


# -- across sessions ------------------------------------------------------------------------------------------------


@fault
class NoBuffer(Fault):
    """Events for a client that is away are dropped."""

    def kept(self, subscription: Subscription, event: CallEvent) -> bool:
        return subscription.peer is not None


@fault
class BufferReversed(Fault):
    """What waited for a client comes newest first."""

    def waiting(self, subscription: Subscription, entries: list[Entry], others: list[Subscription]) -> list[Entry]:
        return entries[::-1]


@fault
class BufferToAnybody(Fault):
    """What waited for a client goes to whoever comes first."""

    def waiting(self, subscription: Subscription, entries: list[Entry], others: list[Subscription]) -> list[Entry]:
        return entries + [
            Entry(attrs.evolve(entry.event, client_id=subscription.client_id), entry.emitted_at)
            for other in others
            if other.peer is None and other.tenant == subscription.tenant
            for entry in other.entries
        ]


@fault
class UnacknowledgedForgotten(Fault):
    """What was sent counts as delivered, acknowledged or not."""

    def replayed(self, subscription: Subscription, entries: list[Entry], connection_lost: bool) -> list[Entry]:
        return [] if connection_lost else entries


# -- streams and connections ----------------------------------------------------------------------------------------


@fault
class StreamPerEvent(Fault):
    """Every event has a stream of its own, which is never ended."""

    def wants_stream(self, message: CallEvent) -> bool:
        return True


@fault
class StreamLimitIgnored(Fault):
    """Every call has a stream of its own that stays open; beyond the client's limit the connection breaks."""

    def wants_stream(self, message: CallEvent) -> bool:
        return message.event_type == CREATE

    def no_stream_left(self, peer: Peer) -> None:
        self.hands.drop(peer)


@fault
class StopSendingEndsCall(Fault):
    """A client that stops a stream has its calls ended."""

    def stream_lost(self, peer: Peer) -> None:
        def end() -> None:
            for call in list(self.hands.calls.values()):
                if call.listener is not None and call.listener.peer is peer:
                    self.hands.end(call, 41)

        self.hands.later(0.0, end)


@fault
class WindowNeverWidened(Fault):
    """After 48 KiB nothing more is written to a stream: further credit is not noticed."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._written: dict[int, int] = {}

    def frame(self, stream: object, method: MethodId, data: bytes) -> bytes:
        written = self._written[id(stream)] = self._written.get(id(stream), 0) + len(data)
        return data if written < 49_152 else b""


@fault
class StreamsNeverReleased(Fault):
    """After 40 unidirectional streams of a client, none of its streams is looked at any more."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._streams: dict[int, int] = {}

    def accepts_stream(self, peer: Peer, unidirectional: bool) -> bool:
        if unidirectional:
            self._streams[peer.number] = self._streams.get(peer.number, 0) + 1
        return self._streams.get(peer.number, 0) <= 40


@fault
class VanishedClientsKept(Fault):
    """A client that falls silent is kept for ever, and eight are all there is room for."""

    def transport(self) -> Mapping[str, Any]:
        return {"idle_timeout": 100_000.0, "dead_after": 100_000.0}

    def admits(self, peers: int) -> bool:
        return peers < 8


@fault
class IdleTimeoutOf5S(Fault):
    """A connection that is quiet for five seconds is gone."""

    def transport(self) -> Mapping[str, Any]:
        return {"idle_timeout": 5.0, "ping_interval": 1000.0, "dead_after": 1000.0}


# -- the path -------------------------------------------------------------------------------------------------------


@fault
class PortChangeClosesConnection(Fault):
    """Datagrams of a connection that come from another port are dropped."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._known: set[Any] = set()

    def arriving(self, datagram: bytes, source: Any) -> bool:
        if datagram[0] & 0x80:
            self._known.add(source)
            return True
        return source in self._known


@fault
class HandshakeNeverRepeated(Fault):
    """What gets lost of a handshake is not sent again."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._began: dict[Any, float] = {}

    def leaving(self, datagram: bytes, to: Any) -> bool:
        now = self.hands.now()
        return not datagram[0] & 0x80 or now - self._began.setdefault(to, now) < 0.01


@fault
class DuplicatedDatagramsConfuse(Fault):
    """A datagram that comes twice is the last one that is read of its sender."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._seen: dict[Any, set[bytes]] = {}
        self._confused: set[Any] = set()

    def arriving(self, datagram: bytes, source: Any) -> bool:
        seen = self._seen.setdefault(source, set())
        if not datagram[0] & 0x80 and datagram in seen:
            self._confused.add(source)
        seen.add(datagram)
        return source not in self._confused


# -- TLS ------------------------------------------------------------------------------------------------------------


@fault
class AnotherAlpnAccepted(Fault):
    """The gateway speaks another ALPN than it should."""

    def transport(self) -> Mapping[str, Any]:
        return {"alpn": "not-h3"}


@fault
class CertificateOfAnother(Fault):
    """The certificate is for another host."""

    def names(self, names: Sequence[str]) -> Sequence[str]:
        return ("elsewhere.example",)


@fault
class CertificateExpired(Fault):
    """The certificate has expired."""

    def expiry(self) -> datetime | None:
        return datetime(2024, 1, 1, tzinfo=UTC)
