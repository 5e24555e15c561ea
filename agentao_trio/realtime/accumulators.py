"""Deltas put together, each where it belongs: by response, item and part.

Pieces are kept in lists and joined when they are asked for, so that each costs the same however many there are. What a
server says at the end (``….done``) replaces what its deltas came to; whether the two differ is counted. Audio is
counted in bytes, not kept: playing it is for others.
"""

from __future__ import annotations

import attrs

from agentao_trio.realtime.protocol import (
    OutputEvent,
    PartEvent,
    ResponseDone,
    ResponseFunctionCallArgumentsDelta,
    ResponseFunctionCallArgumentsDone,
    ResponseMcpCallArgumentsDelta,
    ResponseMcpCallArgumentsDone,
    ResponseOutputAudioDelta,
    ResponseOutputAudioTranscriptDelta,
    ResponseOutputAudioTranscriptDone,
    ResponseOutputTextDelta,
    ResponseOutputTextDone,
    ServerEvent,
)

__all__ = ["Accumulated", "AccumulatorStatistics", "Accumulators", "PartKey"]

#: Response, item, and index of the part; the arguments of a call are part 0 of their item.
PartKey = tuple[str, str, int]

_DELTAS = (
    ResponseOutputTextDelta
    | ResponseOutputAudioTranscriptDelta
    | ResponseFunctionCallArgumentsDelta
    | ResponseMcpCallArgumentsDelta
)


@attrs.frozen(kw_only=True)
class Accumulated:
    """What has come of one part. ``complete``: no more words will come."""

    key: PartKey
    #: Characters of its words so far, and bytes of its audio.
    characters: int
    audio_bytes: int
    complete: bool


@attrs.frozen(kw_only=True)
class AccumulatorStatistics:
    """What the accumulators have seen."""

    #: Parts that are held now, and bytes of words that they hold.
    parts: int
    bytes_held: int
    #: Bytes of words that were not kept, because there were too many.
    bytes_dropped: int
    #: Deltas after the end of their part; they were left out.
    late: int
    #: Parts that were forgotten before their response was over, the oldest first, because there were too many.
    parts_dropped: int
    #: Parts whose last word differs from what their deltas came to.
    differing: int


@attrs.define(eq=False)
class _Part:
    pieces: list[str] = attrs.Factory(list)
    size: int = 0
    characters: int = 0
    audio_bytes: int = 0
    complete: bool = False
    cut: bool = False


class Accumulators:
    """The parts of all responses under way. Bounded by the words held, in bytes of UTF-8, and by their number."""

    def __init__(self, *, most_bytes: int = 1 << 20, most_parts: int = 4096) -> None:
        self._most_bytes, self._most_parts = most_bytes, most_parts
        self._parts: dict[PartKey, _Part] = {}
        self._held = self._dropped = self._late = self._differing = self._parts_dropped = 0

    def apply(self, event: ServerEvent) -> Accumulated | None:
        """Take an event in; what its part has come to, or None for an event that adds nothing."""
        if isinstance(event, ResponseDone):
            self.forget(event.response.id or "")
            return None
        if not isinstance(event, OutputEvent):
            return None
        key = (event.response_id, event.item_id, event.content_index if isinstance(event, PartEvent) else 0)
        if isinstance(event, _DELTAS):
            return self.add(key, event.delta)
        match event:
            case ResponseOutputAudioDelta(delta=delta):
                part = self._part(key)
                part.audio_bytes += len(delta) * 3 // 4 - delta[-2:].count("=")
            case ResponseOutputTextDone(text=text) | ResponseOutputAudioTranscriptDone(transcript=text):
                return self._done(key, text)
            case ResponseFunctionCallArgumentsDone(arguments=text) | ResponseMcpCallArgumentsDone(arguments=text):
                return self._done(key, text)
            case _:
                return None
        return self.part(key)

    def add(self, key: PartKey, delta: str) -> Accumulated | None:
        """More words of one part; None where no more are taken of it."""
        part = self._part(key)
        if part.complete:
            self._late += 1
            return None
        self._add(part, delta)
        return self.part(key)

    def part(self, key: PartKey) -> Accumulated | None:
        """What one part has come to so far."""
        part = self._parts.get(key)
        if part is None:
            return None
        return Accumulated(key=key, characters=part.characters, audio_bytes=part.audio_bytes, complete=part.complete)

    def text(self, key: PartKey) -> str | None:
        """The words of one part so far; None for a part that is not held."""
        part = self._parts.get(key)
        if part is None:
            return None
        if len(part.pieces) != 1:
            part.pieces = ["".join(part.pieces)]
        return part.pieces[0]

    def forget(self, response_id: str) -> None:
        """A response is over; its parts make room."""
        for key in [key for key in self._parts if key[0] == response_id]:
            self._held -= self._parts.pop(key).size

    def drop(self, key: PartKey) -> None:
        """One part makes room. Harmless where it is not held."""
        part = self._parts.pop(key, None)
        if part is not None:
            self._held -= part.size

    def statistics(self) -> AccumulatorStatistics:
        """A snapshot."""
        return AccumulatorStatistics(
            parts=len(self._parts),
            bytes_held=self._held,
            bytes_dropped=self._dropped,
            late=self._late,
            parts_dropped=self._parts_dropped,
            differing=self._differing,
        )

    def _part(self, key: PartKey) -> _Part:
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = _Part()
            if len(self._parts) > self._most_parts:
                self._held -= self._parts.pop(next(iter(self._parts))).size
                self._parts_dropped += 1
        return part

    def _done(self, key: PartKey, text: str) -> Accumulated | None:
        part = self._part(key)
        if part.complete:
            self._late += 1
            return None
        self._differing += bool(part.pieces) and not part.cut and "".join(part.pieces) != text
        self._held -= part.size
        part.pieces, part.size, part.characters, part.complete, part.cut = [], 0, 0, True, False
        self._add(part, text)
        return self.part(key)

    def _add(self, part: _Part, text: str) -> None:
        size = len(text.encode("utf-8", "surrogatepass"))
        if part.cut or self._held + size > self._most_bytes:
            part.cut = True  # what comes after a hole would read as if it were whole
            self._dropped += size
            return
        part.pieces.append(text)
        part.size += size
        part.characters += len(text)
        self._held += size
