"""One call's audio, both ways: what the far end hears and says in each 20 ms slot, numbered, impaired and counted.

Theory of operation
-------------------
*Up* (agent to far end): :meth:`Leg.receive` takes a frame whenever one arrives, judges its sequence number and puts
its packet in a bounded queue. *Down* (far end to agent): once per slot :meth:`Leg.listen` takes one packet from that
queue, or from a playback that is running, and says what the far end hears; :meth:`Leg.speak` says what the far end
answers with; :meth:`Leg.number` makes of that the frames that go to the agent, usually one. So audio that comes faster
than real time leaves late and is never lost, as PROTOCOL section 11 describes.

Between listening and speaking, and between speaking and numbering, the model may mix in what others on the call say.

*Muted* means that the far end does not hear the agent; *held* that nothing passes either way. What arrives meanwhile is
counted and dropped. A slot in which nothing is said sends nothing and spends no sequence number. A packet that gets
lost on purpose, or that the agent was not there for, does spend its number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

import attrs

from agentao_trio.audio import PACKET_MS, ArrivalKind, Codec, JitterEstimator, SequenceTracker, estimate_mos
from agentao_trio.gateway.farends import FarEnd, Impairment, Voice
from agentao_trio.gateway.sound import Packet, mix, tone
from agentao_trio.messages import AudioFrame

__all__ = ["Dice", "Handset", "Leg", "LegStatistics", "add_voices"]

# A leg that has had nothing to say for this many slots (half a second) gives its place on the clock back.
_IDLE_SLOTS = 25
# What a mouth-to-ear path adds to the network: packetization, a jitter buffer of two packets, and the way.
_ASSUMED_DELAY_MS = 80.0


class Dice(Protocol):
    """The part of ``random.Random`` that decides about packets."""

    def random(self) -> float: ...


class Handset(Protocol):
    """Somebody at the far end who is directed from outside: a script's caller. None of these may wait or raise."""

    def answered(self, call_sid: str, codec: Codec) -> None:
        """The call of this name is up; its audio is in this codec."""

    def hear(self, packet: Packet | None) -> None:
        """What is heard in a 20 ms slot. Slots in which nothing is said either way may be left out."""

    def say(self) -> bytes | None:
        """A packet in the call's codec to say in this slot, or nothing."""

    def ended(self, cause: int) -> None:
        """The call is over, with this Q.850 cause."""


@attrs.frozen(kw_only=True)
class LegStatistics:
    """Counted in packets of the agent's own stream; a frame without payload (end of stream) is not a packet."""

    #: Towards the agent, handed to its connection.
    packets_sent: int
    bytes_sent: int
    #: From the agent, accepted.
    packets_received: int
    #: Missing in either direction: the agent's gaps, the far end's losses, what its connection had no room for.
    packets_lost: int
    #: Of the agent's packets (RFC 3550).
    jitter_ms: float
    #: Of both directions together (ITU-T G.107); 0 where nothing came from the agent.
    estimated_mos: float
    #: Frames that were refused: too large, unknown codec, late, or more than the queue holds.
    packets_refused: int
    #: Frames behind the agent's end of stream.
    packets_after_eos: int


class Leg:
    """The audio of one answered call. Live object; the model calls it from one place."""

    def __init__(
        self, *, call_sid: str, far_end: FarEnd, codec: Codec, dice: Dice, max_uplink_packets: int, max_payload: int
    ) -> None:
        self._call_sid = call_sid
        self._far_end = far_end
        self.codec = codec
        self._dice = dice
        self._max_uplink_packets = max_uplink_packets
        self._max_payload = max_payload
        self._voice = far_end.voice
        self._recording: Iterator[bytes] = iter(())
        self._playback: Iterator[bytes] | None = None
        self._spoken_over_ms = 0
        self._uplink: deque[Packet] = deque()
        self._withheld: AudioFrame | None = None
        self._tracker = SequenceTracker()
        self._jitter = JitterEstimator()
        self._next_number = 0
        self._idle = 0
        self._packets_sent = self._bytes_sent = self._packets_received = self._refused = self._lost = 0
        self.muted: bool = False
        #: Until the answer nothing passes, as while the call is on hold.
        self.held: bool = True
        #: Echo whatever the far end is (LOOPBACK).
        self.loopback = False
        #: Whether anybody but the far end listens to the agent, so that its packets are needed although the far end
        #: makes no use of them.
        self.observed = False
        #: For how long the far end has to speak over a playback before that is interrupted; ``None`` is for ever.
        self.barge_in_patience_ms: int | None = None
        #: Who hears and speaks in the far end's place.
        self.handset: Handset | None = None
        #: What the far end said in its latest slot, for the other leg of a bridge.
        self.saying: Packet | None = None

    # -- from the agent -------------------------------------------------------------------------------------------

    def receive(self, frame: AudioFrame, at: float) -> None:
        """Take one frame that arrived at ``at`` seconds. Never raises; what cannot be used is counted."""
        arrival = self._tracker.feed(frame.sequence_number, frame.end_of_stream)
        if arrival.kind is ArrivalKind.AFTER_EOS or not frame.payload:
            return
        codec = self.codec if not frame.codec else Codec.named(frame.codec)
        if arrival.kind is ArrivalKind.LATE or codec is None or len(frame.payload) > self._max_payload:
            self._refused += 1
            return
        self._jitter.feed(frame.sequence_number, at)
        if self.held or self.muted or not self._listens:
            self._packets_received += 1
        elif len(self._uplink) >= self._max_uplink_packets:
            self._refused += 1
        else:
            self._packets_received += 1
            self._uplink.append(Packet(frame.payload, codec.value))
            self._idle = 0

    @property
    def _listens(self) -> bool:
        return self.observed or self._echoes or self._playback is not None or self.handset is not None

    @property
    def _echoes(self) -> bool:
        return self.loopback or (self._voice is Voice.ECHO and self.handset is None)

    # -- one slot -------------------------------------------------------------------------------------------------

    def listen(self) -> tuple[Packet | None, Packet | None]:
        """The agent's next packet, and what the far end hears: that packet, or a playback in its place."""
        agent = self._uplink.popleft() if self._uplink else None
        if self._playback is None:
            return agent, agent
        payload = next(self._playback, None)
        if payload is None:
            self._playback = None
            return agent, agent
        return agent, Packet(payload, self.codec.value)

    def speak(self, heard: Packet | None) -> Packet | None:
        """What the far end says in this slot, having heard ``heard``."""
        if self.handset is not None:
            self.handset.hear(heard)
        said = heard if self._echoes else self._voiced()
        self.saying = said
        if self._playback is not None and self.barge_in_patience_ms is not None:
            self._barge_in(said, self.barge_in_patience_ms)
        busy = said is not None or self._uplink or self._playback is not None
        self._idle = 0 if busy else self._idle + 1
        return said

    def _barge_in(self, said: Packet | None, patience_ms: int) -> None:
        # Speech is anything but an echo of the playback, or silence.
        is_speech = said is not None and not self._echoes and said.payload != self.codec.silence
        self._spoken_over_ms = self._spoken_over_ms + PACKET_MS if is_speech else 0
        if self._spoken_over_ms > patience_ms:
            self.interrupt()

    def _voiced(self) -> Packet | None:
        if self.handset is not None:
            payload = self.handset.say()
            return None if payload is None else Packet(payload, self.codec.value)
        match self._voice:
            case Voice.TONE:
                return Packet(tone(self.codec), self.codec.value)
            case Voice.SILENCE:
                return Packet(self.codec.silence, self.codec.value)
            case Voice.RECORDING:
                payload = next(self._recording, None)
                return None if payload is None else Packet(payload, self.codec.value)
            case _:
                return None

    def number(self, said: Packet | None) -> list[AudioFrame]:
        """The frames that carry ``said`` to the agent in this slot: none, one, or two."""
        if said is None:
            return []
        frame = self._frame(said.payload, said.codec)
        hit = self._far_end.rate and self._dice.random() * 100 < self._far_end.rate
        match self._far_end.impairment if hit else Impairment.NONE:
            case Impairment.LOSS:
                self._lost += 1
                return []
            case Impairment.DUPLICATE:
                return self._sent(frame, frame)
            case Impairment.REORDER if self._withheld is None:
                self._withheld = frame
                return []
        withheld, self._withheld = self._withheld, None
        return self._sent(frame) if withheld is None else self._sent(frame, withheld)

    def finish(self) -> list[AudioFrame]:
        """What is still to be sent when the call ends: a frame that was withheld, and end of stream."""
        withheld, self._withheld = self._withheld, None
        last = self._frame(b"", self.codec.value, end_of_stream=True)
        return [last] if withheld is None else [*self._sent(withheld), last]

    def _frame(self, payload: bytes, codec: str, *, end_of_stream: bool = False) -> AudioFrame:
        frame = AudioFrame(
            call_sid=self._call_sid,
            payload=payload,
            codec=codec,
            sequence_number=self._next_number,
            end_of_stream=end_of_stream,
        )
        self._next_number += 1
        return frame

    def _sent(self, *frames: AudioFrame) -> list[AudioFrame]:
        for frame in frames:
            self._packets_sent += 1
            self._bytes_sent += len(frame.payload)
        return list(frames)

    def not_delivered(self, frame: AudioFrame) -> None:
        """A frame from :meth:`number` found no connection, or no room in it."""
        if frame.payload:
            self._packets_sent -= 1
            self._bytes_sent -= len(frame.payload)
            self._lost += 1

    @property
    def idle(self) -> bool:
        """Whether this leg has been silent so long that it needs no slots until something happens."""
        return self._idle >= _IDLE_SLOTS

    # -- what others do to it -------------------------------------------------------------------------------------

    def start(self, recording: Iterable[bytes]) -> None:
        """The far end has answered. ``recording`` is what it plays, if it plays anything."""
        self._recording = iter(recording)
        self.resume()

    def wake(self) -> None:
        """Something may be said again."""
        self._idle = 0

    def change_voice(self, voice: Voice, recording: Iterable[bytes] = ()) -> None:
        """The far end does something else from now on."""
        self._voice = voice
        self._recording = iter(recording)
        self.wake()

    def play(self, packets: Iterator[bytes]) -> None:
        """Have the far end hear ``packets`` instead of the agent, until they are over."""
        self._playback = packets
        self._spoken_over_ms = 0
        self.wake()

    def interrupt(self) -> None:
        """Barge: what was to be played to the far end, and what it has not heard yet, is gone."""
        self._playback = None
        self._uplink.clear()

    def hold(self) -> None:
        """Stop both directions; a playback goes on afterwards."""
        self.held = True
        self._uplink.clear()
        self.saying = None

    def resume(self) -> None:
        """Off hold."""
        self.held = False
        self.wake()

    def mute(self, muted: bool) -> None:
        """Whether the far end hears the agent. What it has not heard yet, it will not hear."""
        self.muted = muted
        if muted:
            self._uplink.clear()

    def statistics(self) -> LegStatistics:
        """A snapshot."""
        lost = self._tracker.lost + self._lost
        expected = self._packets_received + self._packets_sent + lost
        return LegStatistics(
            packets_sent=self._packets_sent,
            bytes_sent=self._bytes_sent,
            packets_received=self._packets_received,
            packets_lost=lost,
            jitter_ms=self._jitter.jitter_ms,
            estimated_mos=estimate_mos(loss_ratio=lost / expected, one_way_delay_ms=_ASSUMED_DELAY_MS, codec=self.codec)
            if self._packets_received
            else 0.0,
            packets_refused=self._refused,
            packets_after_eos=self._tracker.after_eos,
        )


def add_voices(packet: Packet | None, voices: list[Packet], codec: Codec) -> Packet | None:
    """``packet`` with other voices mixed in; itself, untouched, when there are none."""
    if not voices:
        return packet
    return mix([packet, *voices] if packet is not None else voices, codec)
