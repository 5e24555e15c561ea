"""From the gateway to one connection: events and audio of several calls on one stream (PROTOCOL section 3).

Theory of operation
-------------------
Everything is written synchronously, in the order in which it came about; QUIC's own buffer is the queue. So an answer
precedes the first audio, and end of stream the hangup, without anybody waiting for anybody. Two things can be in the
way: the peer allows no further stream, or it does not read. Then events wait in their subscription, which is bounded,
and audio is dropped: a packet that cannot leave within half a second is of no use.

Each written event is remembered with the offset where it ends, until the stream has acknowledged that much. That, and
finding out that the peer has stopped a stream on which nothing is being written, is done by one task that looks every
50 ms while there is something to look for. A stopped stream is replaced, and the subscription says which events have
to be sent again. Once the last call on a stream has ended, and its hangup has certainly arrived, the stream is closed;
the next call opens another.

With ``audio_streams="per_call"`` audio has a stream for each call, closed at end of stream, and no order holds between
it and the events. Where the peer allows no further stream, a call's audio goes with the events after all.
"""

from __future__ import annotations

import contextlib
from collections import deque

import attrs
import trio

from agentao_trio import messages
from agentao_trio.errors import ConnectionLost, StreamReset
from agentao_trio.gateway.fault import Downward, Fault
from agentao_trio.gateway.subscriptions import Entry, Peer, Subscription
from agentao_trio.messages import AudioFrame, CallEvent, EventType, MethodId
from agentao_trio.transport import Connection, SendStream
from agentao_trio.wire import encode_frame

__all__ = ["Downlink"]

_LOOK_EVERY = 0.05
# Unacknowledged bytes at which events wait, and the age of the oldest unacknowledged audio at which audio is dropped.
_MAX_BACKLOG = 1 << 20
_MAX_AUDIO_AGE = 0.5
# How finely the age of audio is measured.
_MARK_EVERY = 0.05

_GONE = (ConnectionLost, trio.ClosedResourceError)


@attrs.frozen
class _Sent:
    """An event on its way; its last byte is the stream's byte number ``end``."""

    end: int
    subscription: Subscription
    entry: Entry


def _frame(message: Downward) -> bytes:
    return encode_frame(_method_of(message), messages.encode(message))


def _method_of(message: Downward) -> MethodId:
    return MethodId.StreamEvents if isinstance(message, CallEvent) else MethodId.AudioFrame


class _Outlet:
    """One stream, and what has been written to it."""

    def __init__(self, stream: SendStream, peer: Peer, faults: Fault | None) -> None:
        self.stream = stream
        self._peer = peer
        self._faults = faults
        self.in_flight: deque[_Sent] = deque()
        self._written = 0
        self._marks: deque[tuple[int, float]] = deque()  # offsets, and when they were written
        self._speaking: set[str] = set()  # calls whose audio has begun and not ended
        self._told: set[str] = set()  # calls whose events have begun and not ended
        self.has_ended_audio = False

    @property
    def acknowledged(self) -> int:
        return self._written - self.stream.backlog

    @property
    def is_full(self) -> bool:
        return self.stream.backlog >= _MAX_BACKLOG

    @property
    def is_over(self) -> bool:
        """Whether every call on this stream has ended."""
        return self.has_ended_audio and not (self._speaking or self._told or self.in_flight)

    def _write_message(self, message: Downward) -> None:
        if self._faults is None:
            self.write(_frame(message))
            return
        for each in self._faults.out(self._peer, message):
            self.write_as_is(each)

    def write_as_is(self, message: Downward) -> None:
        """One frame, for a fault to interfere with its bytes alone."""
        assert self._faults is not None  # nobody else needs this
        self.write(self._faults.frame(self, _method_of(message), _frame(message)))

    def write(self, data: bytes) -> None:
        self.stream.write(data)
        self._written += len(data)

    def write_event(self, subscription: Subscription, entry: Entry) -> None:
        event = entry.event
        self._write_message(event)
        if event.event_type == EventType.CHANNEL_HANGUP_COMPLETE:
            self._told.discard(event.call_sid)
        else:
            self._told.add(event.call_sid)
        self.in_flight.append(_Sent(self._written, subscription, entry))

    def write_audio(self, frame: AudioFrame, now: float) -> bool:
        """Returns whether there was room. End of stream always goes."""
        if frame.end_of_stream:
            self._speaking.discard(frame.call_sid)
            self.has_ended_audio = True
        else:
            if self._is_stale(now):
                return False
            self._speaking.add(frame.call_sid)
            if not self._marks or now - self._marks[-1][1] >= _MARK_EVERY:
                self._marks.append((self._written, now))
        self._write_message(frame)
        return True

    def _is_stale(self, now: float) -> bool:
        acknowledged = self.acknowledged
        while self._marks and self._marks[0][0] < acknowledged:
            self._marks.popleft()
        return bool(self._marks) and now - self._marks[0][1] > _MAX_AUDIO_AGE

    def settle(self, now: float) -> None:
        """Tell the subscriptions which events have arrived. Only true while the stream is known not to be stopped."""
        acknowledged = self.acknowledged
        while self.in_flight and self.in_flight[0].end <= acknowledged:
            sent = self.in_flight.popleft()
            sent.subscription.acknowledged(sent.entry, now)

    def probe(self) -> None:
        """Raise what writing would raise."""
        self.stream.write(b"")


class Downlink:
    """What one connection is sent. Live object, owned by the connection's tasks; :meth:`run` is one of them."""

    def __init__(
        self, connection: Connection, peer: Peer, *, stream_per_call: bool, faults: Fault | None = None
    ) -> None:
        self._connection = connection
        self._peer = peer
        self._stream_per_call = stream_per_call
        self._faults = faults
        # Audio streams of single calls. None: the peer has stopped that one, so it wants no audio of this call.
        self._own: dict[str, _Outlet | None] = {}
        self._sharing: set[str] = set()  # calls for which there was no stream left
        self._outlet: _Outlet | None = None
        self._unread = 0  # bytes of audio that were on their way when the latest of those streams ended
        self._needs_stream = False
        self._events_wait = False
        self._something_to_do = trio.Event()

    # -- what the gateway calls ------------------------------------------------------------------------------------

    def send_audio(self, frame: AudioFrame, now: float) -> bool:
        """Write one frame. Returns whether that was possible; if not, it is gone."""
        outlet = self._outlet_for_audio(frame.call_sid)
        # Audio does not overtake events that had to wait: among them may be the answer.
        if outlet is None or self._events_wait:
            return False
        try:
            return outlet.write_audio(frame, now)
        except StreamReset:
            if outlet is self._outlet:
                self._stream_lost(now)
            else:
                outlet.stream.finish()
                self._own[frame.call_sid] = None
            return False
        except _GONE:
            return False
        finally:
            if frame.end_of_stream:
                self._audio_ended(frame.call_sid)

    def _outlet_for_audio(self, call_sid: str) -> _Outlet | None:
        if not self._stream_per_call or call_sid in self._sharing:
            return self._open_outlet()
        if call_sid not in self._own:
            try:
                self._own[call_sid] = self._new(self._connection.open_uni_nowait(paced=True))
            except trio.WouldBlock:
                self._sharing.add(call_sid)
                return self._open_outlet()
            except _GONE:
                return None
        return self._own[call_sid]

    def _audio_ended(self, call_sid: str) -> None:
        own = self._own.pop(call_sid, None)
        if own is not None:
            self._unread = own.stream.backlog
            if self._faults is None or self._faults.finishes_streams():
                own.stream.finish()
        self._sharing.discard(call_sid)
        self._something_to_do.set()

    def send_events(self, now: float) -> None:
        """Write the events that wait for this connection, as far as there is room; the rest follows by itself."""
        self._events_wait = False
        for subscription in self._peer.subscriptions:
            while (entry := subscription.next_unsent()) is not None:
                if not self._send_event(subscription, entry, now):
                    self._events_wait = True
                    self._something_to_do.set()
                    return
        if self._outlet is not None and self._outlet.in_flight:
            self._something_to_do.set()

    def _send_event(self, subscription: Subscription, entry: Entry, now: float) -> bool:
        if self._faults is not None and self._interfered(self._faults, entry.event):
            return False
        outlet = self._open_outlet()
        if outlet is None or outlet.is_full:
            return False
        try:
            outlet.write_event(subscription, entry)
        except StreamReset:
            self._stream_lost(now)
            return True  # on to another stream, with whatever comes first now
        except _GONE:
            return False
        subscription.sent(entry)
        return True

    def _interfered(self, faults: Fault, event: CallEvent) -> bool:
        """Whether an event has to wait, or another stream is opened for it first."""
        if faults.wants_stream(event):
            self._outlet = None
        backlogs = [own.stream.backlog for own in self._own.values() if own is not None]
        return faults.holds_events(max(backlogs, default=self._unread))

    def send_as_is(self, message: Downward, *, apart: bool) -> None:
        """What a fault wants sent, on a stream of its own if ``apart``."""
        with contextlib.suppress(StreamReset, trio.WouldBlock, *_GONE):
            if apart:
                stream = self._connection.open_uni_nowait(paced=True)
                self._new(stream).write_as_is(message)
                stream.finish()
            elif (outlet := self._open_outlet()) is not None:
                outlet.write_as_is(message)

    def release(self, subscription: Subscription, now: float) -> None:
        """The subscription is another connection's from now on; what it has not got, that one will get."""
        self._settle(now)
        if self._outlet is not None:
            kept = (sent for sent in self._outlet.in_flight if sent.subscription is not subscription)
            self._outlet.in_flight = deque(kept)

    def end(self, now: float) -> None:
        """The connection is over: a last look at what has arrived."""
        self._settle(now)
        self._outlet = None

    def reset(self, code: int, now: float) -> None:
        """Abandon the stream in the middle of whatever it carries, as a gateway in trouble does."""
        for own in self._own.values():
            if own is not None:
                own.stream.reset(code)
        self._own.clear()
        if self._outlet is not None:
            stream = self._outlet.stream
            self._stream_lost(now)
            stream.reset(code)
            self.send_events(now)

    # -- the stream ------------------------------------------------------------------------------------------------

    def _open_outlet(self) -> _Outlet | None:
        if self._outlet is None and not self._needs_stream:
            try:
                self._use(self._connection.open_uni_nowait(paced=True))
            except trio.WouldBlock:
                self._needs_stream = True
                if self._faults is not None:
                    self._faults.no_stream_left(self._peer)
                self._something_to_do.set()
            except _GONE:
                pass
        return self._outlet

    def _use(self, stream: SendStream) -> None:
        self._outlet = self._new(stream)
        self._needs_stream = False

    def _new(self, stream: SendStream) -> _Outlet:
        return _Outlet(stream, self._peer, self._faults)

    def _stream_lost(self, now: float) -> None:
        assert self._outlet is not None  # it is what was lost
        if self._faults is not None:
            self._faults.stream_lost(self._peer)
        self._outlet.stream.finish()
        self._outlet = None
        for subscription in self._peer.subscriptions:
            subscription.stream_lost(now)
        self._something_to_do.set()

    def _settle(self, now: float) -> None:
        if self._outlet is None:
            return
        try:
            self._outlet.probe()
        except StreamReset:
            self._stream_lost(now)
            return
        except _GONE:
            pass  # what was acknowledged before, was
        self._outlet.settle(now)

    async def run(self) -> None:
        """See to what could not be done at once. Until cancelled, or until the connection is over."""
        with contextlib.suppress(*_GONE):
            while True:
                await self._something_to_do.wait()
                if self._needs_stream:
                    self._use(await self._connection.open_uni(paced=True))
                else:
                    await trio.sleep(_LOOK_EVERY)
                self._look(trio.current_time())

    def _look(self, now: float) -> None:
        self._settle(now)
        for subscription in self._peer.subscriptions:
            subscription.expire(now)
        self._something_to_do = trio.Event()
        self.send_events(now)
        if any(len(subscription) for subscription in self._peer.subscriptions):
            self._something_to_do.set()
        elif (
            self._outlet is not None
            and self._outlet.is_over
            and (self._faults is None or self._faults.finishes_streams())
        ):
            self._outlet.stream.finish()
            self._outlet = None
