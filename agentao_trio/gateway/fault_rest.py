"""The rest of the faults that no check was written for: of audio, of requests and replies, of frames."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import attrs

from agentao_trio import messages as m
from agentao_trio.gateway.fault import Dice, Downward, Fault, fault, simple
from agentao_trio.gateway.fault_audio import PacketFault, sounds
from agentao_trio.gateway.fault_requests import is_refusal
from agentao_trio.gateway.silence import Silence
from agentao_trio.gateway.subscriptions import Peer
from agentao_trio.messages import AudioFrame, CallEvent, Message, MethodId

__all__: list[str] = []

# -- audio ----------------------------------------------------------------------------------------------------------


simple(
    "packet_codec_of_another",
    "Packets of PCMU are labelled PCMA.",
    packet=sounds(codec=lambda frame: "PCMA" if frame.codec == "PCMU" else frame.codec),
)
simple(
    "packet_call_sid_in_capitals",
    "call_sid is in capitals in packets.",
    packet=lambda frame: attrs.evolve(frame, call_sid=frame.call_sid.upper()),
)
simple(
    "packet_call_sid_missing", "call_sid is empty in packets.", packet=lambda frame: attrs.evolve(frame, call_sid="")
)
simple(
    "sequence_begins_at_a_million",
    "The numbers of a call begin at a million and go down.",
    packet=lambda frame: attrs.evolve(frame, sequence_number=1_000_000 - frame.sequence_number),
)
simple(
    "sequence_of_6_bits",
    "Numbers of packets have 6 bits.",
    packet=lambda frame: attrs.evolve(frame, sequence_number=frame.sequence_number & 0x3F),
)
simple(
    "sequence_counts_bytes",
    "Numbers go up by 160, as RTP timestamps do.",
    packet=lambda frame: attrs.evolve(frame, sequence_number=160 * frame.sequence_number),
)
simple(
    "end_of_stream_on_every_packet",
    "Every packet says that it is the last.",
    packet=lambda frame: attrs.evolve(frame, end_of_stream=True),
)
simple(
    "end_of_stream_names_nobody",
    "end_of_stream has no call_sid.",
    packet=lambda frame: attrs.evolve(frame, call_sid="") if frame.end_of_stream else frame,
)
simple("payload_shortened", "A packet lacks its last byte.", packet=sounds(payload=lambda frame: frame.payload[:-1]))
simple(
    "payload_inverted",
    "Every bit of a packet is inverted.",
    packet=sounds(payload=lambda frame: bytes(255 - each for each in frame.payload)),
)
simple("payload_silent", "What is heard is silence.", packet=sounds(payload=lambda frame: b"\xff" * len(frame.payload)))
simple(
    "payload_begins_with_its_length",
    "A packet begins with its length once more.",
    packet=sounds(payload=lambda frame: struct.pack("<I", len(frame.payload)) + frame.payload),
)
simple(
    "quiet_bytes_dropped",
    "Bytes of 0xFF are left out of packets to the far end.",
    heard=lambda frame: attrs.evolve(frame, payload=frame.payload.replace(b"\xff", b"")),
)
simple(
    "high_bit_lost",
    "Bytes lose their highest bit on the way to the far end.",
    heard=lambda frame: attrs.evolve(frame, payload=bytes(each & 0x7F for each in frame.payload)),
)
simple(
    "crlf_translated",
    "0x0A becomes 0x0D 0x0A on the way to the far end.",
    heard=lambda frame: attrs.evolve(frame, payload=frame.payload.replace(b"\n", b"\r\n")),
)


@fault
class SequencePerConnection(PacketFault):
    """All calls of a connection share one sequence of numbers."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._next: dict[int, int] = {}

    def packets(self, peer: Peer, frame: AudioFrame, number: int) -> Iterable[Downward]:
        following = self._next[peer.number] = self._next.get(peer.number, -1) + 1
        yield attrs.evolve(frame, sequence_number=following)


@fault
class EndOfOneEndsAll(PacketFault):
    """When a call ends, no other call of its connection is heard any more."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._over: dict[int, bool] = {}

    def packets(self, peer: Peer, frame: AudioFrame, number: int) -> Iterable[Downward]:
        if self._over.get(peer.number):
            return ()
        self._over[peer.number] = frame.end_of_stream
        return (frame,)


@fault
class EndOfStreamWithPayload(PacketFault):
    """end_of_stream bears 20 ms of noise that nobody said."""

    def packets(self, peer: Peer, frame: AudioFrame, number: int) -> Iterable[Downward]:
        yield attrs.evolve(frame, payload=b"\x55" * 160) if frame.end_of_stream else frame


@fault
class LastPacketsLost(PacketFault):
    """Every packet is kept until the next one, and the last one for ever."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._kept: dict[str, AudioFrame] = {}

    def packets(self, peer: Peer, frame: AudioFrame, number: int) -> Iterable[Downward]:
        if frame.end_of_stream:
            lost = self._kept.pop(frame.call_sid, None)
            return (frame if lost is None else attrs.evolve(frame, sequence_number=lost.sequence_number),)
        kept = self._kept.get(frame.call_sid)
        self._kept[frame.call_sid] = frame
        return () if kept is None else (kept,)


@fault
class PacketsSwapped(PacketFault):
    """Two packets out of twenty change places."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._kept: dict[str, AudioFrame] = {}

    def packets(self, peer: Peer, frame: AudioFrame, number: int) -> Iterable[Downward]:
        if number % 20 == 10 and not frame.end_of_stream:
            self._kept[frame.call_sid] = frame
            return ()
        kept = self._kept.pop(frame.call_sid, None)
        return (frame,) if kept is None else (frame, kept)


@fault
class SilenceBetweenPackets(PacketFault):
    """An empty packet is sent behind each one."""

    def packets(self, peer: Peer, frame: AudioFrame, number: int) -> Iterable[Downward]:
        double = attrs.evolve(frame, sequence_number=2 * frame.sequence_number)
        if frame.end_of_stream:
            return (double,)
        return (double, attrs.evolve(double, sequence_number=double.sequence_number + 1, payload=b""))


# -- requests and replies -------------------------------------------------------------------------------------------


def _answer(**fields: Any) -> Any:
    def change(method: MethodId, request: Any, reply: Any) -> Any:
        if not isinstance(reply, Message):
            return reply
        known = {name: value for name, value in fields.items() if hasattr(reply, name)}
        return attrs.evolve(reply, **known)

    return change


simple("reply_without_call_sid", "The call_sid of a reply is empty.", reply=_answer(call_sid=""))
simple(
    "reply_says_failed",
    "Replies that are good have the status FAILED.",
    reply=lambda method, request, reply: (
        reply if is_refusal(reply) else _answer(status="FAILED")(method, request, reply)
    ),
)
simple(
    "reply_time_in_seconds",
    "timestamp_ms of replies is in seconds.",
    reply=lambda method, request, reply: (
        attrs.evolve(reply, timestamp_ms=reply.timestamp_ms // 1000) if hasattr(reply, "timestamp_ms") else reply
    ),
)
simple(
    "good_reply_with_message",
    "Replies that are good have an error_message.",
    reply=lambda method, request, reply: (
        reply if is_refusal(reply) else _answer(error_message="no error")(method, request, reply)
    ),
)
simple(
    "refused_by_reset",
    "A refusal has no reply: its stream is reset.",
    reply=lambda method, request, reply: Silence.RESET if is_refusal(reply) else reply,
)


@fault
class TerminateOnlyReplies(Fault):
    """Terminate succeeds, and the call goes on for 10 s."""

    def request(self, peer: Peer, method: MethodId, message: Any) -> Any:
        call = self.hands.calls.get(getattr(message, "call_sid", ""))
        if method is MethodId.Terminate and call is not None:
            self.hands.later(10.0, lambda: self.hands.end(call, 16))
            return attrs.evolve(message, call_sid="gone-in-ten-seconds")
        return message

    def reply(self, peer: Peer, method: MethodId, request: Message, reply: Any) -> Any:
        if method is MethodId.Terminate and getattr(request, "call_sid", "") == "gone-in-ten-seconds":
            return m.TerminateResponse(status="COMPLETED", call_sid="")
        return reply


@fault
class RepliesOfZeroBytes(Fault):
    """Replies are a frame of zeros."""

    def reply_bytes(self, method: MethodId, data: bytes) -> bytes:
        return bytes(len(data))


@fault
class ReplyLengthBigEndian(Fault):
    """The length of replies is big-endian."""

    def reply_bytes(self, method: MethodId, data: bytes) -> bytes:
        return data[:4][::-1] + data[4:]


@fault
class ReplyCut(Fault):
    """Replies lack their last four bytes."""

    def reply_bytes(self, method: MethodId, data: bytes) -> bytes:
        return data[:-4]


@fault
class EveryThirdTerminateRefused(Fault):
    """Every third Terminate is refused, whatever it is of."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._count = 0

    def request(self, peer: Peer, method: MethodId, message: Any) -> Any:
        self._count += method is MethodId.Terminate
        if method is MethodId.Terminate and self._count % 3 == 0:
            return attrs.evolve(message, call_sid="nobody")
        return message


# -- frames ---------------------------------------------------------------------------------------------------------


@fault
class EventVersionTooNew(Fault):
    """Events say that a newer reader is needed."""

    def frame(self, stream: object, method: MethodId, data: bytes) -> bytes:
        return data[:8] + b"\xc8\xc8" + data[10:] if method is MethodId.StreamEvents else data


@fault
class PayloadSizeBigEndian(Fault):
    """The size in an envelope is big-endian."""

    def frame(self, stream: object, method: MethodId, data: bytes) -> bytes:
        return data[:10] + data[10:14][::-1] + data[14:]


@fault
class TimestampBigEndian(Fault):
    """timestamp_ms is big-endian."""

    def out(self, peer: Peer, message: Downward) -> Iterable[Downward]:
        if isinstance(message, CallEvent):
            raw = message.timestamp_ms.to_bytes(8, "big")
            yield attrs.evolve(message, timestamp_ms=int.from_bytes(raw, "little", signed=True))
        else:
            yield message


@fault
class FramesPadded(Fault):
    """Zeros follow every frame up to the next multiple of 64 bytes."""

    def frame(self, stream: object, method: MethodId, data: bytes) -> bytes:
        return data + bytes(-len(data) % 64)


@fault
class EventsCutAtClientId(Fault):
    """Events are those of an older gateway: they end before client_id."""

    def frame(self, stream: object, method: MethodId, data: bytes) -> bytes:
        if method is not MethodId.StreamEvents:
            return data
        event = m.decode(CallEvent, data[8:])
        cut = len(event.client_id.encode()) + 4
        size = len(data) - 14 - cut
        return struct.pack("<II", 10 + size, method) + data[8:10] + struct.pack("<i", size) + data[14:-cut]
