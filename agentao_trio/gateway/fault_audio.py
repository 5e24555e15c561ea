"""Faults of audio, in both directions, and of its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs

from agentao_trio.gateway.fault import Dice, Downward, Fault, changed, fault, simple
from agentao_trio.gateway.fault_events import ANSWER, HANGUP
from agentao_trio.gateway.settings import GatewaySettings
from agentao_trio.gateway.subscriptions import Peer
from agentao_trio.messages import AudioFrame, CallEvent

__all__ = ["PacketFault", "sounds"]


class PacketFault(Fault):
    """One that looks at packets to the client, and lets events pass."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        #: How many packets each call has had.
        self.count: dict[str, int] = {}

    def out(self, peer: Peer, message: Downward) -> Iterable[Downward]:
        if isinstance(message, CallEvent):
            return (message,)
        self.count[message.call_sid] = self.count.get(message.call_sid, 0) + 1
        return self.packets(peer, message, self.count[message.call_sid])

    def packets(self, peer: Peer, frame: AudioFrame, number: int) -> Iterable[Downward]:
        """What is written in the place of a call's packet of that number, from 1."""
        raise NotImplementedError


def sounds(**fields: Any) -> Callable[[AudioFrame], AudioFrame]:
    """Packets that hold something, with other fields; a function is called with the packet."""
    return lambda frame: frame if frame.end_of_stream else changed(frame, fields, frame)


# -- numbers --------------------------------------------------------------------------------------------------------


@fault
class SequenceRestarts(PacketFault):
    """The numbers of a call begin anew after ten packets."""

    def packets(self, peer: Peer, frame: AudioFrame, number: int) -> Iterable[Downward]:
        yield attrs.evolve(frame, sequence_number=(number - 1) % 10)


@fault
class SequenceSkips(PacketFault):
    """The tenth number of a call is left out."""

    def packets(self, peer: Peer, frame: AudioFrame, number: int) -> Iterable[Downward]:
        yield attrs.evolve(frame, sequence_number=frame.sequence_number + (number >= 10))


@fault
class SequenceRepeats(PacketFault):
    """Every tenth packet has the number of the one before it."""

    def packets(self, peer: Peer, frame: AudioFrame, number: int) -> Iterable[Downward]:
        yield attrs.evolve(frame, sequence_number=number - 1 - number // 10)


@fault
class SequenceShared(PacketFault):
    """All calls of a gateway share one sequence of numbers."""

    def packets(self, peer: Peer, frame: AudioFrame, number: int) -> Iterable[Downward]:
        yield attrs.evolve(frame, sequence_number=sum(self.count.values()) - 1)


@fault
class EveryTenthPacketMissing(PacketFault):
    """Every tenth packet is not sent."""

    def packets(self, peer: Peer, frame: AudioFrame, number: int) -> Iterable[Downward]:
        return () if number % 10 == 0 and not frame.end_of_stream else (frame,)


@fault
class PacketRepeated(PacketFault):
    """Every twentieth packet is sent twice."""

    def packets(self, peer: Peer, frame: AudioFrame, number: int) -> Iterable[Downward]:
        return (frame, frame) if number % 20 == 0 and not frame.end_of_stream else (frame,)


# -- pace and content -----------------------------------------------------------------------------------------------


@fault
class PacketsInBursts(PacketFault):
    """Packets are sent fifty at a time."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._kept: dict[str, list[Downward]] = {}

    def packets(self, peer: Peer, frame: AudioFrame, number: int) -> Iterable[Downward]:
        kept = self._kept.setdefault(frame.call_sid, [])
        kept.append(frame)
        if len(kept) < 50 and not frame.end_of_stream:
            return ()
        return self._kept.pop(frame.call_sid)


@fault
class PacketsEvery30Ms(PacketFault):
    """Packets of 20 ms are sent every 30 ms."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._next: dict[str, float] = {}

    def packets(self, peer: Peer, frame: AudioFrame, number: int) -> Iterable[Downward]:
        now = self.hands.now()
        at = max(now, self._next.get(frame.call_sid, now))
        self._next[frame.call_sid] = at + 0.03
        self.hands.later(at - now, lambda: self.hands.send(peer, frame))
        return ()


simple("codec_label_unknown", "The codec is called G.711.", packet=sounds(codec="G.711"))
simple("codec_label_empty", "The codec has no name.", packet=sounds(codec=""))
simple(
    "payload_of_30_ms",
    "A packet holds half as much again as it should.",
    packet=sounds(payload=lambda frame: frame.payload + frame.payload[: len(frame.payload) // 2]),
)


class _Others(PacketFault):
    """One that knows what other calls say."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._latest: dict[str, bytes] = {}

    def packets(self, peer: Peer, frame: AudioFrame, number: int) -> Iterable[Downward]:
        if frame.payload:
            self._latest[frame.call_sid] = frame.payload
        beside = next(
            (said for sid, said in self._latest.items() if sid != frame.call_sid and sid in self.hands.calls), b""
        )
        yield self.beside(frame, beside, number) if beside and frame.payload else frame

    def beside(self, frame: AudioFrame, said: bytes, number: int) -> AudioFrame:
        """The packet, while another call says something."""
        raise NotImplementedError


@fault
class AudioOfCallsMixed(_Others):
    """Calls hear each other, like people in one room."""

    def beside(self, frame: AudioFrame, said: bytes, number: int) -> AudioFrame:
        mixed = bytes((one + other) // 2 for one, other in zip(frame.payload, said, strict=False))
        return attrs.evolve(frame, payload=mixed)


@fault
class AudioToTheWrongCall(_Others):
    """Every tenth packet is one of another call."""

    def beside(self, frame: AudioFrame, said: bytes, number: int) -> AudioFrame:
        return attrs.evolve(frame, payload=said) if number % 10 == 0 else frame


# -- beginning and end ----------------------------------------------------------------------------------------------


@fault
class AudioWhileRinging(Fault):
    """The first packet is sent before ANSWER."""

    def out(self, peer: Peer, message: Downward) -> Iterable[Downward]:
        if isinstance(message, AudioFrame):
            yield attrs.evolve(message, sequence_number=message.sequence_number + 1)
            return
        if message.event_type == ANSWER:
            yield AudioFrame(call_sid=message.call_sid, payload=b"\xff" * 160, codec="PCMU")
        yield message


@fault
class AudioAfterHangup(Fault):
    """A packet comes behind HANGUP_COMPLETE, and end_of_stream behind that."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._ends: dict[str, AudioFrame] = {}

    def out(self, peer: Peer, message: Downward) -> Iterable[Downward]:
        if isinstance(message, AudioFrame) and message.end_of_stream:
            self._ends[message.call_sid] = message
            return
        yield message
        if isinstance(message, CallEvent) and message.event_type == HANGUP and message.call_sid in self._ends:
            end = self._ends.pop(message.call_sid)
            yield attrs.evolve(end, payload=b"\xff" * 160, codec="PCMU", end_of_stream=False)
            yield attrs.evolve(end, sequence_number=end.sequence_number + 1)


@fault
class NoEndOfStream(PacketFault):
    """Audio just stops: there is no end_of_stream."""

    def packets(self, peer: Peer, frame: AudioFrame, number: int) -> Iterable[Downward]:
        return () if frame.end_of_stream else (frame,)


@fault
class TwoEndsOfStream(PacketFault):
    """end_of_stream is sent twice."""

    def packets(self, peer: Peer, frame: AudioFrame, number: int) -> Iterable[Downward]:
        yield frame
        if frame.end_of_stream:
            yield attrs.evolve(frame, sequence_number=frame.sequence_number + 1)


@fault
class AudioAfterEndOfStream(PacketFault):
    """A packet follows end_of_stream."""

    def packets(self, peer: Peer, frame: AudioFrame, number: int) -> Iterable[Downward]:
        yield frame
        if frame.end_of_stream:
            later = frame.sequence_number + 1
            yield attrs.evolve(frame, payload=b"\xff" * 160, codec="PCMU", end_of_stream=False, sequence_number=later)


simple(
    "end_of_stream_numbered_zero",
    "end_of_stream has the number 0.",
    packet=lambda frame: attrs.evolve(frame, sequence_number=0) if frame.end_of_stream else frame,
)


@fault
class StreamLeftOpen(Fault):
    """Each call's audio has a stream of its own, which is never ended."""

    def settings(self, settings: GatewaySettings) -> GatewaySettings:
        return attrs.evolve(settings, audio_streams="per_call")

    def finishes_streams(self) -> bool:
        return False


@fault
class UnreadAudioBlocksEvents(Fault):
    """Events wait while audio, on streams of its own, is not read."""

    def settings(self, settings: GatewaySettings) -> GatewaySettings:
        return attrs.evolve(settings, audio_streams="per_call")

    def holds_events(self, audio_backlog: int) -> bool:
        return audio_backlog > 4_000


# -- from the client ------------------------------------------------------------------------------------------------


def _as_text(payload: bytes) -> bytes:
    return payload.decode("utf-8", "replace").encode()


def _payload(change: Callable[[bytes], bytes]) -> Callable[[AudioFrame], AudioFrame]:
    return lambda frame: attrs.evolve(frame, payload=change(frame.payload))


simple(
    "payload_cut_at_nul",
    "A payload ends at its first zero byte.",
    heard=_payload(lambda data: data.partition(b"\0")[0]),
)
simple("payload_as_text", "A payload is treated as text.", heard=_payload(_as_text))
simple(
    "codec_label_ignored",
    "Whatever a packet is labelled, it is played.",
    heard=lambda frame: attrs.evolve(frame, codec=""),
)
simple(
    "payload_of_any_size",
    "However large a payload, it is played.",
    settings=lambda settings: attrs.evolve(settings, max_payload=1 << 20),
)
simple("pcm_16_refused", "Audio in PCM16 is dropped.", heard=lambda frame: None if frame.codec == "PCM16" else frame)


class _Numbered(Fault):
    """One that remembers each call's latest number, and the calls it has given up."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._latest: dict[str, int] = {}
        self._given_up: set[str] = set()

    def is_too_much(self, step: int) -> bool:
        """Whether numbers that go on by ``step`` end the call's audio."""
        raise NotImplementedError

    def heard(self, peer: Peer, frame: AudioFrame) -> AudioFrame | None:
        before = self._latest.get(frame.call_sid, frame.sequence_number - 1)
        self._latest[frame.call_sid] = frame.sequence_number
        if self.is_too_much(frame.sequence_number - before):
            self._given_up.add(frame.call_sid)
        return None if frame.call_sid in self._given_up else frame


@fault
class SequenceGapEndsAudio(_Numbered):
    """After a gap in our numbers nothing is played any more."""

    def is_too_much(self, step: int) -> bool:
        return step > 1


@fault
class RepeatedNumberEndsAudio(_Numbered):
    """After a number that was there before nothing is played any more."""

    def is_too_much(self, step: int) -> bool:
        return step < 1


@fault
class AudioAcceptedAfterOurEnd(Fault):
    """Our end_of_stream is not looked at."""

    def heard(self, peer: Peer, frame: AudioFrame) -> AudioFrame | None:
        return None if frame.end_of_stream else frame


@fault
class AudioForNobodyClosesConnection(Fault):
    """Audio for a call that does not exist ends the connection."""

    def heard(self, peer: Peer, frame: AudioFrame) -> AudioFrame | None:
        if frame.call_sid not in self.hands.calls:
            self.hands.drop(peer)
        return frame
