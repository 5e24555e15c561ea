"""One call's audio in both directions: what the agent hears, and what it says.

Theory of operation
-------------------
*In.* The reader of a gateway stream hands every frame of the call to :meth:`Downlink.arrived`, which never waits:
gateway streams mix calls, so one slow agent must not hold up the others. Each reader of the call has its own bounded
queue; when it is full the oldest frame goes, and is counted.

*Out.* :meth:`Uplink.send` makes whole packets of any chunks and waits for room in a bounded queue. In each of the
call's slots the packet clock calls :meth:`Uplink._on_slot`, which cuts one off, numbers it and writes it to the call's
own stream. The call's writer task (:meth:`Uplink.run`) sleeps meanwhile: it owns the end of the stream, not what goes
out on it. The stream is opened at the first packet, and again when the connection beneath the call was replaced: the
sequence goes on. A packet that cannot go out in its slot (no connection, no stream, too much of the stream still
unsent) is shed: it spends its sequence number, so that the far end knows that 20 ms are missing, and it is counted.

PROTOCOL sections 3 and 11.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

import attrs
import trio

from agentao_trio.audio import ArrivalKind, AudioFrame, Codec, JitterEstimator, Packetizer, SequenceTracker
from agentao_trio.audio_frames import AudioFields, FrameTemplate
from agentao_trio.backlog import Backlog
from agentao_trio.broadcast import Broadcast, Subscription
from agentao_trio.convert import FrameConverter, SpeechConverter
from agentao_trio.errors import ConnectionLost, LocalProtocolError, StreamReset
from agentao_trio.pacing import PACKET_INTERVAL, PacketClock, Slot
from agentao_trio.place import Place

__all__ = ["AudioReceiver", "Downlink", "Mark", "Passage", "PayloadReceiver", "Uplink", "UplinkStream"]

#: Seconds of audio a reader of the call may fall behind before its oldest frames are dropped.
INBOX_SECONDS = 1.0
#: Seconds of audio that wait for the packet clock before ``send`` waits, and how much of it has to have gone before
#: ``send`` goes on: waking the sender for every packet would cost as much as sending it.
OUTBOX_SECONDS, OUTBOX_STEP = 0.5, 0.1
#: Seconds of audio that may be unacknowledged on the call's stream before packets are shed.
BACKLOG_SECONDS = 0.5
#: Seconds without a packet after which a call gives its place on the packet clock back.
IDLE_SECONDS = 1.0
#: What a frame weighs beside its payload: header, envelope, sid, codec name, number. Generous; used for bounds only.
_FRAME_OVERHEAD = 96


#: What the constructor of a NamedTuple does, without the detour.
_new_audio_frame: Callable[[tuple[bytes, str, int, int, bool]], AudioFrame] = partial(tuple.__new__, AudioFrame)


def _packets(seconds: float) -> int:
    return max(1, round(seconds / PACKET_INTERVAL))


_MOST_BACKLOG, _LIMIT = _packets(BACKLOG_SECONDS), _packets(OUTBOX_SECONDS)
_LOW = _LIMIT - _packets(OUTBOX_STEP)


class UplinkStream(Protocol):
    """What the writer needs of a QUIC send stream."""

    @property
    def backlog(self) -> int: ...
    @property
    def unsent(self) -> int: ...
    def write(self, data: bytes) -> None: ...
    def finish(self) -> None: ...


class AudioReceiver:
    """An async iterator over audio frames, as they come or through a converter.

    Cancelling a waiting ``__anext__`` loses nothing.
    """

    def __init__(self, frames: Subscription[AudioFrame], converter: FrameConverter | None = None) -> None:
        self._frames = frames
        self._converter = converter

    def __repr__(self) -> str:
        return f"<AudioReceiver of {self._frames!r}>"

    @property
    def dropped(self) -> int:
        """Frames this reader was too slow for."""
        return self._frames.dropped

    def __aiter__(self) -> AudioReceiver:
        return self

    def __anext__(self) -> Awaitable[AudioFrame]:
        return self._frames.__anext__() if self._converter is None else self._next_converted(self._converter)

    async def _next_converted(self, converter: FrameConverter) -> AudioFrame:
        while True:
            try:
                frame = await self._frames.__anext__()
            except StopAsyncIteration:
                rest = converter.finish() if self._converter is not None else None
                if rest is None:
                    raise
                return rest
            converted = converter.convert(frame)
            if converted is not None:
                return converted

    def close(self) -> None:
        """Stop listening; iterating ends. Harmless when repeated."""
        self._converter = None
        self._frames.close()


class PayloadReceiver:
    """An async iterator over the payloads, as bytes, of audio frames."""

    def __init__(self, frames: AudioReceiver) -> None:
        self._frames = frames

    def __repr__(self) -> str:
        return f"<PayloadReceiver of {self._frames!r}>"

    @property
    def dropped(self) -> int:
        """Frames this reader was too slow for."""
        return self._frames.dropped

    def __aiter__(self) -> PayloadReceiver:
        return self

    async def __anext__(self) -> bytes:
        return (await self._frames.__anext__()).payload

    def close(self) -> None:
        """Stop listening. Harmless when repeated."""
        self._frames.close()


@attrs.define(eq=False)
class Downlink:
    """What the gateway sends of one call."""

    tracker: SequenceTracker = attrs.field(factory=SequenceTracker, init=False)
    jitter: JitterEstimator = attrs.field(factory=JitterEstimator, init=False)
    codec: str = attrs.field(default="", init=False)
    bytes_received: int = attrs.field(default=0, init=False)
    _without_payload: int = attrs.field(default=0, init=False)
    #: Called with every frame for the readers and its time of arrival, in seconds of trio's clock. Must not wait.
    taps: tuple[Callable[[AudioFrame, float], None], ...] = attrs.field(default=(), init=False)
    # The agent has a second to get going before the first frames are dropped.
    _frames: Broadcast[AudioFrame] = attrs.field(factory=lambda: Broadcast(early=_packets(INBOX_SECONDS)), init=False)

    def __repr__(self) -> str:
        return (
            f"<Downlink in {self.codec or 'no codec yet'}, {self.packets_received} packets, {self.tracker.lost} lost>"
        )

    @property
    def packets_received(self) -> int:
        """Packets with audio that came in order."""
        return self.tracker.received - self.tracker.late_or_duplicate - self._without_payload

    @property
    def dropped(self) -> int:
        """Frames dropped because a reader was too slow or nobody listened, over all readers."""
        return self._frames.dropped

    def subscribe(self, seconds: float = INBOX_SECONDS) -> Subscription[AudioFrame]:
        """A new reader with room for ``seconds`` of audio; the first one also gets the frames that came before it."""
        return self._frames.subscribe(_packets(seconds))

    def arrived(self, fields: AudioFields, at: float) -> int:
        """Take a frame that came ``at`` seconds of trio's clock; how many are missing before it. Never waits."""
        _, payload, self.codec, sequence_number, end_of_stream = fields
        arrival = self.tracker.feed(sequence_number, end_of_stream)
        if payload and arrival.kind is ArrivalKind.IN_ORDER:
            self.bytes_received += len(payload)
            self.jitter.feed(sequence_number, at)
            heard = _new_audio_frame((payload, self.codec, sequence_number, arrival.lost_before, end_of_stream))
            self._frames.publish(heard)
            for tap in self.taps:
                tap(heard, at)
        elif not payload and arrival.kind is ArrivalKind.IN_ORDER:
            self._without_payload += 1
        if end_of_stream:
            self.end()
        return arrival.lost_before

    def end(self) -> None:
        """No more audio will come: readers finish what they have and end. Harmless when repeated."""
        self._frames.end()


@attrs.define(eq=False)
class UplinkCounters:
    """What became of the packets that were not sent, and how many streams it took."""

    packets_shed: int = 0
    packets_cleared: int = 0
    streams_opened: int = 0


@attrs.define(eq=False)
class Passage:
    """Packets that belong together, counted by what became of them."""

    queued: int = 0
    sent: int = 0
    #: Shed or cleared.
    dropped: int = 0
    #: All of it has been queued.
    complete: bool = False
    #: It was cleared; what has not gone out by then never will.
    stopped: bool = False

    @property
    def is_settled(self) -> bool:
        """Whether no more of it will be queued."""
        return self.complete or self.stopped

    @property
    def gone(self) -> bool:
        """Whether nothing of it is left to send, and nothing was cleared."""
        return self.complete and not self.stopped and self.queued == self.sent + self.dropped


class Mark:
    """A place in what the agent says. Made by :meth:`ActiveCall.mark`."""

    def __init__(self, name: str, position: int) -> None:
        self.name = name
        self._position = position
        self._passed: bool | None = None
        self._settled = trio.Event()

    def __repr__(self) -> str:
        state = "waiting" if self._passed is None else "passed" if self._passed else "not passed"
        return f"<Mark {self.name!r}, {state}>"

    @property
    def passed(self) -> bool | None:
        """Whether the audio before it has all gone out; False where some of it was dropped, None until that is clear.

        It is dropped by barge-in and by the end of the call.
        """
        return self._passed

    async def wait(self) -> bool:
        """Wait until it is clear whether the mark was passed, and tell. Never raises."""
        await self._settled.wait()
        return bool(self._passed)

    def _settle(self, passed: bool) -> None:
        self._passed = passed
        self._settled.set()


def _writers_time(sequence: int) -> float:
    """A packet's time by its writer's own clock, in seconds: it stands still while the whole program does."""
    return sequence * PACKET_INTERVAL


@attrs.define(eq=False)
class Uplink:
    """What the agent says on one call. One task at a time sends; one writer task runs :meth:`run`.

    A place on the clock is taken with the first packet, and given back after a second without one.

    ``open_stream`` gives a new uni stream, or None where there is none to be had just now; it must not wait.
    """

    call_sid: str
    clock: PacketClock
    _open_stream: Callable[[], UplinkStream | None]
    counters: UplinkCounters = attrs.field(factory=UplinkCounters, init=False)
    _slot: Slot | None = attrs.field(default=None, init=False)
    _idle_slots: int = attrs.field(default=0, init=False)
    _skipped_before: int = attrs.field(default=0, init=False)
    _stream: UplinkStream | None = attrs.field(default=None, init=False)
    # None while nothing waits that was written before: all of it has been acknowledged by the next slot.
    _backlog: Backlog | None = attrs.field(default=None, init=False)
    _first: int = attrs.field(default=0, init=False)  # the number of the stream's first packet
    _codec: Codec | None = attrs.field(default=None, init=False)
    _template: FrameTemplate | None = attrs.field(default=None, init=False)
    _packetizer: Packetizer | None = attrs.field(default=None, init=False)
    _speech: SpeechConverter | None = attrs.field(default=None, init=False)
    _sequence: int = attrs.field(default=0, init=False)
    bytes_sent: int = attrs.field(default=0, init=False)
    # What waits for its slots: whole packets, in one piece as long as they can be, because hundreds of calls that cut
    # what they say half a second ahead do not fit into a processor's cache. The first piece lies before the queue.
    _queue: deque[tuple[bytes, Passage | None]] = attrs.field(factory=deque, init=False)
    _piece: bytes = attrs.field(default=b"", init=False)
    _piece_passage: Passage | None = attrs.field(default=None, init=False)
    _at: int = attrs.field(default=0, init=False)  # bytes of the first piece that have gone
    _packet_bytes: int = attrs.field(default=0, init=False)
    #: Packets that wait for their slot.
    queued: int = attrs.field(default=0, init=False)
    _accepted: int = attrs.field(default=0, init=False)  # packets that were ever queued
    _marks: tuple[Mark, ...] = attrs.field(default=(), init=False)
    #: What is being played, if it is to be known what becomes of it.
    passage: Passage | None = attrs.field(default=None, init=False)
    #: On whose streams the packets go out, where it is not just its own: on those of the legs of a conference that
    #: hear the agent.
    outlets: tuple[Uplink, ...] | None = attrs.field(default=None, init=False)
    #: Called with each packet that was sent, its codec and its slot's deadline, by trio's clock. Must not wait.
    taps: tuple[Callable[[bytes, Codec, float], None], ...] = attrs.field(default=(), init=False)
    _finishing: bool = attrs.field(default=False, init=False)
    #: No more can be said.
    ended: bool = attrs.field(default=False, init=False)
    _said_all: trio.Event = attrs.field(factory=trio.Event, init=False)
    # Where the task that sends waits for room, and the one condition variable for all that others wait for.
    _sender: Place = attrs.field(factory=lambda: Place("sending audio on this call"), init=False)
    _changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)

    def __repr__(self) -> str:
        state = "ended" if self.ended else "sending" if self._sender.is_claimed else "idle"
        return f"<Uplink of {self.call_sid}, {state}, {self.queued} packets queued, {self.packets_sent} sent>"

    @property
    def packets_sent(self) -> int:
        """Packets that were written: each took a number, and so did those that were shed."""
        return self._sequence - self.counters.packets_shed

    @property
    def slots_skipped(self) -> int:
        """20 ms slots that passed because the whole program was late."""
        return self._skipped_before + (self._slot.skipped if self._slot is not None else 0)

    async def send(self, data: bytes, codec: Codec, rate: int | None = None, passage: Passage | None = None) -> None:
        """Queue audio of any length in ``codec``; once 0.5 s of packets are queued, waits until 0.1 s has gone.

        With a ``rate`` the data are 16-bit samples at that rate instead, and are converted. The codec is fixed by the
        first chunk. A remainder shorter than a packet is kept for the next chunk. Cancelled while it waits for room, or
        when its ``passage`` is stopped, the packets of this chunk that are not queued yet are dropped and counted as
        cleared.
        Raises :class:`LocalProtocolError` for what is no bytes, :class:`trio.ClosedResourceError` once the uplink has
        ended or is finishing and :class:`trio.BusyResourceError` when another task is sending.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise LocalProtocolError(f"audio is bytes, not {type(data).__name__}")
        with self._sender:
            if self.passage is not None and passage is not self.passage and not self.passage.is_settled:
                raise trio.BusyResourceError("a sound is being played into this call")
            await trio.lowlevel.checkpoint_if_cancelled()
            self._raise_if_over()
            if self._packetizer is None or self._speech is None:
                self._codec, self._packetizer, self._speech = codec, Packetizer(codec), SpeechConverter(codec)
                self._packet_bytes = codec.packet_bytes
            audio, at = self._packetizer.complete(self._speech.feed(data, rate)), 0
            has_waited = False
            try:
                while at < len(audio):
                    while (room := _LIMIT - self.queued) <= 0:
                        await self._sender.wait()
                        has_waited = True
                        self._raise_if_over()
                    if passage is not None and passage.stopped:
                        return
                    end = at + room * self._packet_bytes
                    self._enqueue(audio[at:end], passage)
                    at = min(end, len(audio))
            finally:
                self.counters.packets_cleared += (len(audio) - at) // self._packet_bytes
            if not has_waited:
                await trio.lowlevel.cancel_shielded_checkpoint()

    def flush(self, passage: Passage | None = None) -> None:
        """The end of an utterance: queue what is left of it, the last packet filled with silence. Ends ``passage``."""
        if self._packetizer is not None and self._speech is not None and not (self._finishing or self.ended):
            self._enqueue(self._packetizer.complete(self._speech.flush()), passage)
            self._enqueue(self._packetizer.flush() or b"", passage)
        if passage is not None:
            passage.complete = True
        self._wake()

    def _wake(self) -> None:
        self._sender.wake()
        if self._changed:
            self._changed.unpark_all()

    def _enqueue(self, piece: bytes, passage: Passage | None) -> None:
        if not piece:
            return
        packets = len(piece) // self._packet_bytes
        self._queue.append((piece, passage))
        self.queued += packets
        self._accepted += packets
        if passage is not None:
            passage.queued += packets
        self._idle_slots = 0
        if self._slot is None:
            self._join_clock()

    async def finish(self) -> None:
        """Send what is queued, then end_of_stream and FIN (PROTOCOL section 11); returns when that is written.

        Cancelled, it still happens, only nobody waits for it.
        """
        self.flush()
        self._finishing = True
        if self._slot is None:
            self._join_clock()
        self._wake()
        await trio.lowlevel.checkpoint()
        while not self.ended:
            await self._changed.park()

    async def wait_played(self) -> None:
        """Wait until every queued packet has gone out or was cleared, or the uplink ended."""
        await trio.lowlevel.checkpoint()
        while self.queued and not self.ended:
            await self._changed.park()

    async def wait_gone(self, passage: Passage) -> None:
        """Wait until all of ``passage`` has gone out, or it was stopped, or the uplink ended."""
        await trio.lowlevel.checkpoint()
        while not (passage.gone or passage.stopped or self.ended):
            await self._changed.park()

    def mark(self, name: str) -> Mark:
        """A mark behind the packets that are queued."""
        mark = Mark(name, self._accepted)
        self._marks += (mark,)
        self._settle_marks(passed=not self.ended)
        return mark

    def _settle_marks(self, *, passed: bool = True) -> None:
        gone = self._accepted - self.queued
        reached = [mark for mark in self._marks if mark._position <= gone]
        self._marks = self._marks[len(reached) :]
        for mark in reached:
            mark._settle(passed)

    def clear(self) -> int:
        """Drop what is queued and what is left of the last chunk; returns the number of packets dropped.

        What is being played is stopped with it.
        """
        cleared, self.queued = self.queued, 0
        self._queue.appendleft((self._piece[self._at :], self._piece_passage))
        for piece, passage in self._queue:
            if passage is not None:
                passage.dropped += len(piece) // self._packet_bytes
        self._queue.clear()
        self._piece, self._piece_passage, self._at = b"", None, 0
        self._settle_marks(passed=False)
        if self.passage is not None:
            self.passage.stopped = True
        if self._speech is not None:
            self._speech.clear()
        if self._packetizer is not None and self._packetizer.pending:
            self._packetizer.flush()
            cleared += 1
        self.counters.packets_cleared += cleared
        self._wake()
        return cleared

    async def run(self) -> None:
        """The writer task: waits until all is said, or to be cancelled; end_of_stream and FIN go out either way."""
        try:
            await self._said_all.wait()
        finally:
            self._end_stream()
            self.end()

    def end(self) -> None:
        """No more can be said; what is queued is dropped. Harmless when repeated."""
        self.ended = True
        self._leave_clock()
        self.clear()

    def _on_slot(self, deadline: float) -> None:
        """It is this call's turn to write a packet."""
        if not self.queued:
            self._pass_slot()
            return
        piece, at = self._piece, self._at
        if at == len(piece):
            (piece, self._piece_passage), at = self._queue.popleft(), 0
            self._piece = piece
        self._at = end = at + self._packet_bytes
        self.queued -= 1
        payload, passage, codec = piece[at:end], self._piece_passage, self._codec
        assert codec is not None  # packets come from a codec
        if (outlets := self.outlets) is None:
            was_sent = self._write_packet(payload, codec)
        else:
            was_sent = False
            for outlet in outlets:
                was_sent |= outlet._write_packet(payload, codec)
            self.counters.packets_cleared += not outlets  # said to nobody, on purpose
        if was_sent:
            for tap in self.taps:
                tap(payload, codec, deadline)
        if passage is not None:
            passage.sent += was_sent
            passage.dropped += not was_sent
        if self._marks:
            self._settle_marks()
        if self.queued <= _LOW or (passage is not None and passage.gone):
            self._wake()

    def _pass_slot(self) -> None:
        """There is nothing to write in this call's slot."""
        if self._finishing:
            self._leave_clock()
            self._said_all.set()
        else:
            self._idle_slots += 1
            if self._idle_slots >= _packets(IDLE_SECONDS):
                self._leave_clock()  # a silent call costs no ticks

    def _join_clock(self) -> None:
        if not self.ended:
            self._slot = self.clock.join(self._on_slot)

    def _leave_clock(self) -> None:
        if self._slot is not None:
            self._skipped_before += self._slot.skipped
            self._slot.leave()
            self._slot = None

    def rename(self, call_sid: str) -> None:
        """The call has another name from now on."""
        self.call_sid, self._template = call_sid, None

    def connection_replaced(self) -> None:
        """The stream belonged to a connection that is gone; the next packet opens another."""
        self._stream = None

    def _write_packet(self, payload: bytes, codec: Codec) -> bool:
        sequence = self._sequence
        self._sequence = sequence + 1
        stream = self._stream
        if stream is not None and not stream.backlog:  # as nearly always
            self._backlog = None
        else:
            stream = self._usable_stream(len(payload), sequence)
        if stream is None:
            self.counters.packets_shed += 1
            return False
        template = self._template
        if template is None or template.codec is not codec:
            template = self._template = FrameTemplate(self.call_sid, codec)
        frame = template.frame(payload, sequence)
        try:
            stream.write(frame)
        except (StreamReset, ConnectionLost, trio.ClosedResourceError):
            # The gateway gave up this stream, or the connection went; the call outlives both.
            self._stream = None
            self.counters.packets_shed += 1
            return False
        if self._backlog is not None:
            self._backlog.wrote(len(frame), _writers_time(sequence))
        self.bytes_sent += len(payload)
        return True

    def _usable_stream(self, size: int, sequence: int) -> UplinkStream | None:
        """The stream, if packet number ``sequence``, of ``size`` bytes, would not come too late."""
        if self._stream is None:
            self._stream = self._open_stream()
            if self._stream is not None:
                self._backlog, self._first = None, sequence
                self.counters.streams_opened += 1
            return self._stream
        stream = self._stream
        backlog = stream.backlog
        if self._backlog is None:
            # All of it is the packet before this one. The one before that was acknowledged by then.
            round_trip = PACKET_INTERVAL if sequence - 1 > self._first else float("inf")
            self._backlog = Backlog(backlog, _writers_time(sequence - 1), round_trip)
        is_full = backlog > _MOST_BACKLOG * (size + _FRAME_OVERHEAD)
        return None if is_full or self._backlog.is_stale(stream.unsent, backlog, _writers_time(sequence)) else stream

    def _end_stream(self) -> None:
        if self._stream is None and self._finishing and self.counters.streams_opened:
            self._stream = self._open_stream()  # the gateway has heard of us, on a connection that is gone
        if self._stream is None:
            return
        last = FrameTemplate(self.call_sid, self._codec or Codec.PCMU)
        with contextlib.suppress(StreamReset, ConnectionLost, trio.ClosedResourceError):
            self._stream.write(last.frame(b"", self._sequence, end_of_stream=True))
            self._stream.finish()

    def _raise_if_over(self) -> None:
        if self.ended or self._finishing:
            raise trio.ClosedResourceError("this call's uplink has ended")
