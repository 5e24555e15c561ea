"""What went to a model and came from it, to be looked at later: a bounded log, figures, and a replay without effects.

The log keeps the newest messages within a number of bytes, without their audio, and without secrets: what stands in a
field that is called so, and what the journal was told is one. With ``words="drop"`` it keeps the structure alone: of
what was said, given to tools and configured in words there is how many characters it was. Counters and figures go on
whatever is dropped. Times are seconds since the journal began, by a clock that never goes back. A log is exported as
JSON lines: the first says which version of the format it is, each of the others is one message in the bytes that came
(or would have, had there been no audio in it). Replaying folds them, at the offsets they were recorded with, into a
fresh conversation, and touches nothing else; however often, the result is the same.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NoReturn

import attrs
import msgspec

from agentao_trio.analytics import Distribution, Spread
from agentao_trio.errors import RealtimeError
from agentao_trio.realtime.conversation import Conversation
from agentao_trio.realtime.protocol import (
    InputAudioBufferSpeechStopped,
    Received,
    ResponseCreated,
    ResponseDone,
    ResponseOutputAudioDelta,
    decode_server_event,
    ga_name,
)

__all__ = ["VERSION", "Direction", "Entry", "Journal", "JournalStatistics", "Words", "read_journal", "replay"]

#: The version of the exported format.
VERSION = 1
#: Bytes of messages that are kept.
MOST_BYTES = 1 << 20
#: What a message takes besides its bytes, roughly.
_OVERHEAD = 64
#: Types that are counted by name, and responses whose time is taken; what comes beyond is one row, or not timed.
_MOST_TYPES = 200
_MOST_RESPONSES = 256
_OTHERS = "(others)"
#: Audio worth leaving out, in any event.
_AUDIO = re.compile(rb'("(?:audio|delta)"\s*:\s*")([A-Za-z0-9+/]{64,}={0,2})(")')
_AUDIO_TYPES = frozenset({"response.output_audio.delta", "input_audio_buffer.append", "session.output_audio.delta"})

#: Names of fields that hold secrets, also those of other servers that the model is to ask.
_SECRET = re.compile(
    rb'"(?:authorization|headers|client_secret|[a-z_]*api_?key|access_token|password)"\s*:', re.IGNORECASE
)
_SECRETS = frozenset({"authorization", "headers", "client_secret", "access_token", "password"})
#: Fields that hold names, states and numbers, and no words of anybody. A field that is not here may hold words.
_STRUCTURE = frozenset(
    {
        *("type", "object", "status", "reason", "code", "param", "role", "phase", "format", "model", "voice", "name"),
        *("id", "event_id", "item_id", "response_id", "call_id", "conversation_id", "previous_item_id", "client_id"),
        *("modality", "modalities", "output_modalities", "eagerness", "conversation", "truncation", "language"),
        *("tool_choice", "input_audio_format", "output_audio_format", "include"),
    }
)

Direction = Literal["received", "sent"]
#: What becomes of words in the log.
Words = Literal["keep", "drop"]


@attrs.frozen(kw_only=True)
class Entry:
    """One message. ``at`` is in seconds since the journal began; audio in ``raw`` is left out."""

    at: float
    direction: Direction
    type: str
    raw: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class JournalStatistics:
    """What went by, also of what is not kept. All times are in seconds."""

    received: int
    sent: int
    #: Messages by GA type, both directions; of very many types the late ones are one row.
    by_type: Mapping[str, int]
    #: Messages and bytes that are kept, and messages that made room.
    entries: int
    bytes_held: int
    dropped: int
    #: From the end of the caller's speech, and from a response's beginning, to its first audio; and its whole length.
    speech_to_audio: Spread
    created_to_audio: Spread
    created_to_done: Spread


@attrs.define(eq=False)
class _Timer:
    began: float
    heard: float | None
    spoke: bool = False


class Journal:
    """A log of at most ``most_bytes``, and figures. ``clock`` gives seconds and never goes back.

    ``words="drop"`` keeps no words, and ``secrets`` are struck out wherever they stand.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        most_bytes: int = MOST_BYTES,
        words: Words = "keep",
        secrets: Iterable[str] = (),
    ) -> None:
        self._clock = clock
        self._began = clock()
        self._most_bytes = most_bytes
        self._words = words
        self._secrets = [secret.encode() for secret in secrets]
        self._entries: deque[tuple[float, Direction, str, bytes]] = deque()  # made into entries when they are read
        self._types: Counter[str] = Counter()
        self._held = self._dropped = self._received = self._sent = 0
        self._speech_stopped: float | None = None
        self._timers: OrderedDict[str, _Timer] = OrderedDict()
        self._speech_to_audio, self._created_to_audio, self._created_to_done = (Distribution() for _ in range(3))

    def __repr__(self) -> str:
        return f"<Journal, {self._received} events received, {self._sent} sent, {len(self._entries)} entries held>"

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What is kept, the oldest first."""
        return tuple(
            Entry(at=at, direction=direction, type=wire_type, raw=raw)
            for at, direction, wire_type, raw in self._entries
        )

    def received(self, received: Received) -> None:
        """Note an event of the server."""
        at = self._clock() - self._began
        self._received += 1
        self._time(received, at)
        self._note(at, "received", received.wire_type, received.raw)

    def sent(self, wire_type: str, raw: bytes) -> None:
        """Note an event of the client."""
        self._sent += 1
        self._note(self._clock() - self._began, "sent", wire_type, raw)

    def statistics(self) -> JournalStatistics:
        """A snapshot."""
        return JournalStatistics(
            received=self._received,
            sent=self._sent,
            by_type=dict(self._types),
            entries=len(self._entries),
            bytes_held=self._held,
            dropped=self._dropped,
            speech_to_audio=self._speech_to_audio.spread(),
            created_to_audio=self._created_to_audio.spread(),
            created_to_done=self._created_to_done.spread(),
        )

    def export(self, redact: Callable[[Entry], Entry | None] | None = None) -> Iterator[str]:
        """The log as JSON lines, each without its newline. ``redact`` may change an entry, or leave it out."""
        yield json.dumps({"journal": "agentao-trio realtime", "version": VERSION, "dropped": self._dropped})
        for entry in self.entries:
            shown = entry if redact is None else redact(entry)
            if shown is not None:
                told = {"at": round(shown.at, 6), "direction": shown.direction, "type": shown.type}
                yield json.dumps(told | {"raw": shown.raw.decode("utf-8", "surrogateescape")})

    def _note(self, at: float, direction: Direction, wire_type: str, raw: bytes) -> None:
        name = ga_name(wire_type)
        self._types[name if name in self._types or len(self._types) < _MOST_TYPES else _OTHERS] += 1
        kept = _silent(name, raw)
        for secret in self._secrets:
            if secret in kept:
                kept = kept.replace(secret, b"[redacted]")
        if self._words == "drop" or (not name.endswith(".delta") and _SECRET.search(kept)):
            kept = _struck(kept, words=self._words)
        self._entries.append((at, direction, wire_type, kept))
        self._held += len(kept) + _OVERHEAD
        while self._held > self._most_bytes:
            self._held -= len(self._entries.popleft()[3]) + _OVERHEAD
            self._dropped += 1

    def _time(self, received: Received, at: float) -> None:
        match received.event:
            case InputAudioBufferSpeechStopped():
                self._speech_stopped = at
            case ResponseCreated(response=response):
                self._timers[response.id or ""] = _Timer(at, self._speech_stopped)
                self._speech_stopped = None
                if len(self._timers) > _MOST_RESPONSES:
                    self._timers.popitem(last=False)
            case ResponseOutputAudioDelta(response_id=response_id):
                timer = self._timers.get(response_id)
                if timer is not None and not timer.spoke:
                    timer.spoke = True
                    self._created_to_audio.add(at - timer.began)
                    if timer.heard is not None:
                        self._speech_to_audio.add(at - timer.heard)
            case ResponseDone(response=response):
                timer = self._timers.pop(response.id or "", None)
                if timer is not None:
                    self._created_to_done.add(at - timer.began)


def _silent(name: str, raw: bytes) -> bytes:
    """A message without its audio, which deltas and appends consist of, and items may hold."""
    if name == "response.output_audio.delta":
        head, delta, rest = raw.partition(b'"delta"')
        colon, quote, audio = rest.partition(b'"')
        if quote and colon.strip() == b":" and (end := audio.find(b'"')) >= 0:  # much quicker than to search
            return b"".join((head, delta, colon, quote, audio[end:]))
    if name in _AUDIO_TYPES or b'"audio"' in raw:
        return _AUDIO.sub(rb"\1\3", raw)
    return raw


def _struck(raw: bytes, *, words: Words) -> bytes:
    """A message without secrets, and perhaps without words. What cannot be read is not kept."""
    try:
        message = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return f"[{len(raw)} bytes]".encode()
    return msgspec.json.encode(_without(message, words))


def _without(value: Any, words: Words, name: str = "") -> Any:
    if name.lower() in _SECRETS or name.lower().replace("_", "").endswith("apikey"):
        return None if value is None else "[redacted]"
    if isinstance(value, dict):
        return {key: _without(inner, words, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without(inner, words, name) for inner in value]
    if isinstance(value, str) and value and words == "drop" and name not in _STRUCTURE:
        return f"[{len(value)} characters]"
    return value


def read_journal(lines: Iterable[str]) -> tuple[Entry, ...]:
    """The entries of an exported log. Raises :class:`RealtimeError` (``journal_unreadable``) that says which line."""
    entries: list[Entry] = []
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            told = json.loads(line)
            if number == 1:
                if told["version"] != VERSION:
                    _unreadable(f"it is of version {told['version']!r}, and this reads version {VERSION}")
                continue
            raw = told["raw"].encode("utf-8", "surrogateescape")
            if told["direction"] not in ("received", "sent"):
                _unreadable(f"line {number} has no direction")
            entries.append(Entry(at=float(told["at"]), direction=told["direction"], type=str(told["type"]), raw=raw))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        _unreadable(f"line {number}: {type(error).__name__}: {error}")
    if number == 0:
        _unreadable("it is empty")
    return tuple(entries)


def _unreadable(why: str) -> NoReturn:
    raise RealtimeError(f"the journal cannot be read: {why}", type="invalid_request_error", code="journal_unreadable")


def replay(
    entries: Iterable[Entry], *, each: Callable[[float, Received], None] | None = None
) -> tuple[Conversation, str]:
    """Fold what was received into a fresh conversation; it, and a hash of all that changed in it and when.

    ``each`` is shown every event with its offset. Nothing waits: the offsets are the clock.
    """
    conversation = Conversation()
    digest = hashlib.sha256()
    for entry in entries:
        if entry.direction == "received":
            received = decode_server_event(entry.raw)
            for change in conversation.apply(received):
                digest.update(f"{entry.at:.6f} {change!r}\n".encode("utf-8", "surrogatepass"))
            if each is not None:
                each(entry.at, received)
    digest.update(repr(conversation.items).encode("utf-8", "surrogatepass"))
    return conversation, digest.hexdigest()
