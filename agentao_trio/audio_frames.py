"""Audio frames at the rate they come: 50 a second, each way, of every call.

Theory of operation
-------------------
The frames of a call differ in their payload and their number, and in nothing else. So the general codec
(:mod:`agentao_trio.messages`) makes one of them, and what it made serves as the pattern for the rest. A
:class:`FrameTemplate` writes: it keeps the bytes around the payload and the number. A :class:`FrameReader` reads: for
each length that bodies have it keeps one ``struct.Struct`` of the whole body, and of each call what stands before the
payload, name and inner lengths; a body of that length that begins with those very bytes can be taken apart in one step.
Any other body goes to the general codec, which says what is wrong with it or serves as the next pattern. So neither
knows the wire format better than the general codec does, and neither refuses anything itself.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

from agentao_trio import messages
from agentao_trio.messages import AudioFrame, MethodId
from agentao_trio.wire import encode_frame

__all__ = ["AudioFields", "FrameReader", "FrameTemplate"]

#: How an audio frame ends: ``u64 sequence_number | u8 end_of_stream``.
_END = "Q?"
_END_SIZE = struct.calcsize("<" + _END)
#: What stands before the call's name: the envelope's header, and the length of the name.
_HEAD_SIZE = 10


class FrameTemplate:
    """Writes the frames of one call in one codec."""

    __slots__ = ("_after", "_before", "_pack", "_payload_size", "call_sid", "codec")

    def __init__(self, call_sid: str, codec: str) -> None:
        self.call_sid: str = call_sid
        self.codec: str = codec
        self._payload_size = -1
        self._before = self._after = b""
        self._pack: Callable[..., bytes] = struct.Struct("<").pack

    def frame(self, payload: bytes, sequence_number: int, *, end_of_stream: bool = False) -> bytes:
        """A whole frame, its header included, with ``sequence_number`` (unsigned, 64 bits).

        Raises ``LocalProtocolError`` as :func:`agentao_trio.messages.encode` does, for a call's name that cannot be
        written or a payload that no frame can hold.
        """
        if len(payload) != self._payload_size:
            self._follow(payload)
        return self._pack(self._before, payload, self._after, sequence_number, end_of_stream)

    def _follow(self, payload: bytes) -> None:
        """Frames come to another length now; where payload and number stand is found in one of them."""
        pattern = AudioFrame(call_sid=self.call_sid, payload=payload, codec=self.codec)
        frame = encode_frame(MethodId.AudioFrame, messages.encode(pattern))
        end = len(frame) - _END_SIZE
        after = end - 4 - len(self.codec.encode("utf-8", "surrogateescape"))
        self._before = frame[: after - len(payload)]
        self._pack, self._after = _layout(len(self._before), len(payload), frame[after:end])
        self._payload_size = len(payload)


@functools.lru_cache(maxsize=256)
def _layout(before: int, payload: int, after: bytes) -> tuple[Callable[..., bytes], bytes]:
    """What writes a frame, and what it writes behind the payload: one for all calls of a kind, so that it stays in the
    processor's cache, as hundreds would not."""
    return struct.Struct(f"<{before}s{payload}s{len(after)}s{_END}").pack, after


#: What an ``AudioFrame`` holds, in its order: call_sid, payload, codec, sequence_number, end_of_stream. A bare tuple,
#: because an object with names takes as long to make as everything else here together.
AudioFields: TypeAlias = tuple[str, bytes, str, int, bool]


class _Pattern(NamedTuple):
    """Bodies of one length: what takes one apart, and the calls whose names stand in them, by all that comes before
    the payload, the inner lengths included."""

    layout: str
    unpack: Callable[[bytes], tuple[Any, ...]]
    names: dict[bytes, str]


class FrameReader:
    """Reads the bodies of audio frames, of any calls in any order.

    Remembers no more than 64 patterns and codecs and 4096 names in each, none of them long, whatever a peer may send;
    then it begins anew. ``own_name`` gives the very string by which a call is kept elsewhere, if it is: who is then
    looked for by that finds it without comparing a letter.
    """

    MEMORY: Final = 64
    NAMES: Final = 4096
    LONGEST_NAME, LONGEST_CODEC = 64, 16

    def __init__(self, own_name: Callable[[str], str | None] = lambda _: None) -> None:
        self._own_name = own_name
        self._patterns: dict[int, _Pattern] = {}
        #: Names of codecs by the bytes of their field, length included.
        self._codecs: dict[bytes, str] = {}

    def read(self, body: bytes) -> AudioFields:
        """The fields of one frame. Raises ``RemoteProtocolError`` as :func:`agentao_trio.messages.decode` does."""
        if (pattern := self._patterns.get(len(body))) is not None:
            _, unpack, names = pattern
            before, payload, codec_field, number, ended = unpack(body)
            call_sid, codec = names.get(before), self._codecs.get(codec_field)
            if call_sid is not None and codec is not None:
                return call_sid, payload, codec, number, ended
        return self._learn(body)

    def _learn(self, body: bytes) -> AudioFields:
        frame, skipped, after = messages.decode_counted(AudioFrame, body)
        payload_at = _HEAD_SIZE + len(frame.call_sid.encode("utf-8", "surrogateescape")) + 4
        payload_end = payload_at + len(frame.payload)
        codec_end = payload_end + 4 + len(frame.codec.encode("utf-8", "surrogateescape"))
        is_short = len(frame.call_sid) <= self.LONGEST_NAME and len(frame.codec) <= self.LONGEST_CODEC
        # Whole, with nothing that we do not know, and of a call and in a codec that may well come again.
        if is_short and skipped == after == 0 and codec_end + _END_SIZE == len(body):
            if max(len(self._patterns), len(self._codecs)) >= self.MEMORY:
                self._patterns.clear()
                self._codecs.clear()
            layout = f"<x{payload_at - 1}s{len(frame.payload)}s{codec_end - payload_end}s{_END}"
            pattern = self._patterns.get(len(body))
            if pattern is None or pattern.layout != layout or len(pattern.names) >= self.NAMES:
                pattern = self._patterns[len(body)] = _Pattern(layout, struct.Struct(layout).unpack, {})
            pattern.names[body[1:payload_at]] = self._own_name(frame.call_sid) or frame.call_sid
            self._codecs[body[payload_end:codec_end]] = frame.codec
        return frame.call_sid, frame.payload, frame.codec, frame.sequence_number, frame.end_of_stream
