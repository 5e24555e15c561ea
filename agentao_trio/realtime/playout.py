"""What became of a model's audio: received, waiting, sent, heard. The accounting behind a barge-in.

Theory of operation
-------------------
A model speaks several times faster than anybody listens, so that most of a reply waits here when the caller interrupts
it. To let the model forget what nobody heard, it has to be known how far each *part* of its speech (one content part
of one item) had come. :class:`ModelAudio` keeps it as one queue of segments, each belonging to a part::

    received ─▶ queue ─▶ stretch taken, on its way to its slots ─▶ sent ─▶ heard, DOWNSTREAM_MS later, by estimate

What is taken is a *stretch* of whole packets, 20 ms each in the call's codec: to account for several at once costs as
much as for one. A packet may hold the end of one part and the beginning of the next, so that nothing is heard between
them. Only the end of all there is gets filled up with silence.

An *utterance* begins when ``prebuffer_ms`` of audio have come, or all there will be. In the middle of it the model may
fall behind; silence is then sent in its place (an *underrun*), and after ``STALL_MS`` the utterance is begun anew, with
the prebuffer filled again, rather than continued packet by packet. Silence belongs to no part and is never heard.

How much was heard is what was sent, less what was sent within the last ``DOWNSTREAM_MS``: the gateway's and the far
end's buffers. It is an estimate: the protocol acknowledges no playout.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import attrs

from agentao_trio.audio import PACKET_MS, Codec

__all__ = ["DOWNSTREAM_MS", "STALL_MS", "AudioPart", "Cut", "ModelAudio", "Played", "PlayoutStatistics", "Stretch"]

#: Milliseconds from a packet's slot to the far end's ear, by estimate.
DOWNSTREAM_MS = 100
#: Milliseconds without audio after which an utterance is begun anew.
STALL_MS = 200
#: Packets that are given one by one while the model may be late with more.
ONE_BY_ONE = 2
#: Responses whose late audio is recognised as such after they were cut, or had ended.
_GONE_RESPONSES = 64
#: A slot's deadline, computed from an absolute origin, may be a rounding error off.
_ROUNDING = 1e-6


@attrs.frozen(cache_hash=True)
class AudioPart:
    """One audio part of a conversation: all that is ever told apart here."""

    item_id: str
    content_index: int = 0


@attrs.frozen(kw_only=True)
class Stretch:
    """Packets for the call: ``data`` in its codec, and how many bytes of it are of which part; the rest is silence."""

    data: bytes
    segments: tuple[tuple[AudioPart, int], ...] = ()

    def head(self, size: int) -> Stretch:
        """The first ``size`` bytes."""
        segments: list[tuple[AudioPart, int]] = []
        left = size
        for key, length in self.segments:
            if left > 0:
                segments.append((key, min(length, left)))
            left -= length
        return Stretch(data=self.data[:size], segments=tuple(segments))

    def behind(self, key: AudioPart, start: int) -> int:
        """Bytes of a part from ``start`` on."""
        found = end = 0
        for each, length in self.segments:
            end += length
            if each == key:
                found += max(0, min(length, end - start))
        return found


@attrs.frozen(kw_only=True)
class Played:
    """All of a part that was kept has been sent; there was no room for the rest of one that has ``overflowed``."""

    part: AudioPart
    response_id: str
    kept_ms: int
    overflowed: bool


@attrs.frozen(kw_only=True)
class Cut:
    """A part that was interrupted before all of it was sent. All are whole milliseconds, rounded down."""

    part: AudioPart
    response_id: str
    heard_ms: int
    sent_ms: int
    received_ms: int


@attrs.frozen(kw_only=True)
class PlayoutStatistics:
    """What became of the audio so far, in milliseconds of it where not said otherwise."""

    received_ms: int
    sent_ms: int
    waiting_ms: int
    #: Received, and dropped by an interruption.
    cut_ms: int
    #: Received after its response had been interrupted, or had ended.
    late_ms: int
    #: Received while there was no room for more.
    overflow_ms: int
    #: Silence that was put in the place of audio that had not come yet, and how often that began.
    silence_ms: int
    underruns: int


@attrs.define(eq=False, kw_only=True)
class _Part:
    key: AudioPart
    response_id: str
    received_ms: float = 0.0
    kept: int = 0  # bytes in the call's codec, as the next ones
    sent: int = 0
    complete: bool = False
    overflowed: bool = False

    @property
    def is_over(self) -> bool:
        return self.complete and self.sent == self.kept


class ModelAudio:
    """The audio of a model that waits for one call, in the call's ``codec``, at most ``bound_ms`` of it.

    Nothing here waits or looks at a clock: ``now`` is in seconds of any clock that does not go back.
    """

    def __init__(self, codec: Codec, *, prebuffer_ms: float = 60, bound_ms: float = 300_000) -> None:
        self._codec = codec
        self._bytes_per_ms = codec.packet_bytes // PACKET_MS
        self._prebuffer = round(prebuffer_ms * self._bytes_per_ms)
        self._bound = round(bound_ms * self._bytes_per_ms)
        self._queue: deque[tuple[_Part, bytes | memoryview]] = deque()
        self._waiting = 0  # bytes in the queue
        self._parts: dict[AudioPart, _Part] = {}  # those with something still to come or to send
        # Sent within the last DOWNSTREAM_MS, with the time of the last packet of each.
        self._recent: deque[tuple[float, Stretch]] = deque()
        self._gone: dict[str, bool] = {}  # responses of which nothing more is taken, and whether they were cut
        self._speaking = False
        self._silent_for = 0  # milliseconds, within an utterance
        self._received_ms = self._late_ms = 0.0
        self._sent = self._cut = self._overflow = 0  # bytes
        self._silence_ms = self._underruns = 0

    def __repr__(self) -> str:
        waiting = self._waiting // self._bytes_per_ms
        return f"<ModelAudio in {self._codec.name}, {waiting} ms waiting, {'speaking' if self._speaking else 'silent'}>"

    # -- in ---------------------------------------------------------------------------------------------------------

    def receive(self, part: AudioPart, response_id: str, data: bytes, received_ms: float) -> bool:
        """Take ``data``, the audio of a part in the call's codec, which was ``received_ms`` long as the model sent it.

        The two differ where a resampler keeps some; there may be no data at all. Returns False for audio of a response
        that was cut or has ended, which is dropped and counted, and so is what there is no room for.
        """
        self._received_ms += received_ms
        if response_id in self._gone:
            self._late_ms += received_ms
            return False
        known = self._parts.get(part)
        if known is None:
            known = self._parts[part] = _Part(key=part, response_id=response_id)
        known.received_ms += received_ms
        room = self._bound - self._waiting
        kept = data if len(data) <= room else data[: max(0, room)]
        if len(kept) < len(data):
            known.overflowed = True
            self._overflow += len(data) - len(kept)
        if kept:
            known.kept += len(kept)
            self._waiting += len(kept)
            self._queue.append((known, kept))
        return True

    def finish(self, part: AudioPart) -> list[Played]:
        """No more of ``part`` will come. Returns it, if all of it has been sent already."""
        known = self._parts.get(part)
        if known is None:
            return []
        known.complete = True
        return self._over([part])

    def finish_response(self, response_id: str) -> list[Played]:
        """No more of any part of this response will come. Returns those of which all has been sent already."""
        if response_id not in self._gone:
            self._forget_response(response_id, cut=False)
        parts = [key for key, part in self._parts.items() if part.response_id == response_id]
        return [played for part in parts for played in self.finish(part)]

    # -- out --------------------------------------------------------------------------------------------------------

    @property
    def is_silent(self) -> bool:
        """Whether nothing waits or is on its way to its slot."""
        return all(part.sent == part.kept for part in self._parts.values())

    def can_start(self) -> bool:
        """Whether an utterance can begin: the prebuffer is full, or all there will be has come."""
        return bool(self._waiting) and (self._waiting >= self._prebuffer or not self._is_expecting())

    def next_stretch(self, most: int = 1, *, hurry: bool = True) -> Stretch | None:
        """The packets for the next slots, at most ``most``; None at the end of the utterance, and before one can begin.

        As long as more is expected, the last packets that wait are given one by one. Where the model is late, silence
        takes the place of a packet; without ``hurry`` there is None, and it can be asked for again.
        """
        if not self._speaking and not self.can_start():
            return None
        size = self._codec.packet_bytes
        expecting = self._is_expecting()
        if self._waiting >= size or (self._waiting and not expecting):
            self._speaking = True
            self._silent_for = 0
            if expecting:
                return self._take(size * max(1, min(most, self._waiting // size - ONE_BY_ONE)))
            return self._take(min(most * size, self._waiting))
        if expecting and not hurry:
            return None
        if not expecting or self._silent_for >= STALL_MS:
            self._speaking = False
            self._silent_for = 0
            return None
        self._underruns += not self._silent_for
        self._silent_for += PACKET_MS
        self._silence_ms += PACKET_MS
        return Stretch(data=self._codec.silence)

    def sent(self, stretch: Stretch, at: float) -> list[Played]:
        """``stretch`` went out, its last packet in the slot of ``at``; a packet may also have lost its chance to.

        Returns the parts that are over with it.
        """
        self._forget_heard(at)
        self._recent.append((at, stretch))
        for key, size in stretch.segments:
            self._sent += size
            if (part := self._parts.get(key)) is not None:
                part.sent += size
        return self._over(key for key, _ in stretch.segments)

    # -- barge-in ---------------------------------------------------------------------------------------------------

    def heard_ms(self, part: AudioPart, now: float) -> int:
        """How much of a part that is not over has been heard, by estimate; 0 for another one."""
        known = self._parts.get(part)
        return 0 if known is None else self._heard_ms(known, now)

    def cut(self, now: float, *, responses: Iterable[str] = ()) -> list[Cut]:
        """Drop all that waits, and what comes late of the responses it belongs to, and of ``responses``.

        What was taken and not :meth:`sent` by now counts as dropped as well. Returns the parts that were
        not sent to their end, in the order in which they began.
        """
        cuts = [
            Cut(
                part=part.key,
                response_id=part.response_id,
                heard_ms=self._heard_ms(part, now),
                sent_ms=self._whole_ms(part.sent),
                received_ms=int(part.received_ms),
            )
            for part in self._parts.values()
        ]
        for response_id in (*responses, *(cut.response_id for cut in cuts)):
            self._forget_response(response_id, cut=True)
        self._cut += sum(part.kept - part.sent for part in self._parts.values())
        self._queue.clear()
        self._waiting = 0
        self._parts.clear()
        self._speaking = False
        self._silent_for = 0
        return cuts

    def was_cut(self, response_id: str) -> bool:
        """Whether this response was interrupted. The oldest are forgotten after a while."""
        return self._gone.get(response_id, False)

    def statistics(self) -> PlayoutStatistics:
        """A snapshot."""
        return PlayoutStatistics(
            received_ms=int(self._received_ms),
            sent_ms=self._whole_ms(self._sent),
            waiting_ms=self._whole_ms(self._waiting),
            cut_ms=self._whole_ms(self._cut),
            late_ms=int(self._late_ms),
            overflow_ms=self._whole_ms(self._overflow),
            silence_ms=self._silence_ms,
            underruns=self._underruns,
        )

    # -- inside -----------------------------------------------------------------------------------------------------

    def _forget_response(self, response_id: str, *, cut: bool) -> None:
        self._gone[response_id] = cut
        if len(self._gone) > _GONE_RESPONSES:
            del self._gone[next(iter(self._gone))]

    def _is_expecting(self) -> bool:
        return any(not part.complete for part in self._parts.values())

    def _take(self, size: int) -> Stretch:
        chunks: list[bytes | memoryview] = []
        segments: list[tuple[AudioPart, int]] = []
        self._waiting -= size
        missing = size
        while missing:
            part, data = self._queue.popleft()
            if len(data) > missing:
                view = memoryview(data)  # a delta may hold seconds: what is left of it is not copied every time
                self._queue.appendleft((part, view[missing:]))
                data = view[:missing]
            chunks.append(data)
            segments.append((part.key, len(data)))
            missing -= len(data)
        chunks.append(self._codec.silence[: -size % self._codec.packet_bytes])
        return Stretch(data=b"".join(chunks), segments=tuple(segments))

    def _over(self, keys: Iterable[AudioPart]) -> list[Played]:
        over = []
        for key in keys:
            part = self._parts.get(key)
            if part is not None and part.is_over:
                del self._parts[key]
                over.append(
                    Played(
                        part=key,
                        response_id=part.response_id,
                        kept_ms=self._whole_ms(part.kept),
                        overflowed=part.overflowed,
                    )
                )
        return over

    def _heard_ms(self, part: _Part, now: float) -> int:
        self._forget_heard(now)
        on_the_way = 0
        for at, stretch in self._recent:
            packets = math.ceil((at - now + DOWNSTREAM_MS / 1000 - _ROUNDING) * 1000 / PACKET_MS)
            on_the_way += stretch.behind(part.key, len(stretch.data) - packets * self._codec.packet_bytes)
        return min(self._whole_ms(max(0, part.sent - on_the_way)), int(part.received_ms))

    def _forget_heard(self, now: float) -> None:
        while self._recent and now - self._recent[0][0] >= DOWNSTREAM_MS / 1000 - _ROUNDING:
            self._recent.popleft()

    def _whole_ms(self, size: int) -> int:
        return size // self._bytes_per_ms
