"""What was done to a gateway and what it did, in order: the only thing that requirements look at.

A :class:`Trace` is made by the runner, by replaying a file, or of a session's stored history. It holds bytes and times
and no opinion: frames as they came, where streams began and ended, what a connection was closed with. Marks say what
the programme was about to do, and with which facts a requirement has to compare: the payload that was sent, the call
that was placed, the moment somebody went away.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar, Generic, TypeVar, overload

import attrs

from agentao_trio import messages
from agentao_trio.errors import RemoteProtocolError
from agentao_trio.messages import AudioFrame, CallEvent, EventType, Message, MethodId, OriginateRequest
from agentao_trio.wire import Reply, decode_reply

__all__ = ["Observation", "Seen", "Trace", "What"]

M = TypeVar("M", bound=Message)


class What(StrEnum):
    """What an observation is about."""

    #: A connection came up, or could not be made: then ``note`` says why.
    CONNECTED = "connected"
    REFUSED = "refused"
    #: A connection is over; ``code`` and ``note`` are the peer's words where it closed, None where it fell silent.
    CLOSED = "closed"
    #: The gateway opened a stream.
    OPENED = "opened"
    #: A whole frame came on a stream the gateway opened.
    FRAME = "frame"
    #: A stream ended: ``note`` is fin, reset or lost; ``data`` what was left of a frame.
    ENDED = "ended"
    #: A request went out; ``data`` is everything on its stream.
    REQUEST = "request"
    #: Everything that came back on a request's stream, when it ended: ``note`` is fin, reset, lost, or open where it
    #: was no longer waited for.
    REPLY = "reply"
    #: Bytes went out on a stream of ours.
    SENT = "sent"
    #: A word of the programme about what it does, in ``note``; its facts are in ``facts``.
    MARK = "mark"


@attrs.frozen(kw_only=True)
class Observation:
    """One line of a trace."""

    #: Seconds since the trace began.
    at: float
    what: What
    #: Which of the kit's connections: A, B …
    link: str = ""
    stream: int | None = None
    method: int | None = None
    data: bytes = b""
    code: int | None = None
    note: str = ""
    facts: Mapping[str, Any] = attrs.field(factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Without what is empty; bytes in base64."""
        fields: dict[str, Any] = {"at": round(self.at, 6), "what": self.what.value}
        for name in ("link", "stream", "method", "code", "note"):
            if getattr(self, name) not in ("", None):
                fields[name] = getattr(self, name)
        if self.data:
            fields["data"] = base64.b64encode(self.data).decode("ascii")
        if self.facts:
            fields["facts"] = dict(self.facts)
        return fields

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Observation:
        """What :meth:`as_json` was made of. Raises ValueError."""
        try:
            return cls(
                **{
                    **fields,
                    "what": What(fields["what"]),
                    "data": base64.b64decode(fields.get("data", ""), validate=True),
                }
            )
        except (KeyError, TypeError) as wrong:
            raise ValueError(f"this is no observation of a trace: {wrong}") from None


@attrs.frozen
class Seen(Generic[M]):
    """A decoded message, and the observation that it came in."""

    message: M
    observation: Observation
    #: The observation's place in its trace.
    index: int

    @property
    def at(self) -> float:
        """Seconds since the trace began."""
        return self.observation.at


class Trace(Sequence[Observation]):
    """An immutable sequence of observations, with readers for what requirements ask for again and again."""

    def __init__(self, observations: Iterable[Observation]) -> None:
        self._observations = tuple(observations)
        self._decoded: dict[type[Message], tuple[Seen[Any], ...]] = {}

    def __repr__(self) -> str:
        return f"<Trace of {len(self._observations)} observations>"

    @overload
    def __getitem__(self, index: int) -> Observation: ...
    @overload
    def __getitem__(self, index: slice) -> Trace: ...
    def __getitem__(self, index: int | slice) -> Observation | Trace:
        return Trace(self._observations[index]) if isinstance(index, slice) else self._observations[index]

    def __len__(self) -> int:
        return len(self._observations)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and self._observations == other._observations

    __hash__: ClassVar[None]  # type: ignore[assignment]

    # -- reading ----------------------------------------------------------------------------------------------------

    def of(self, what: What, *, link: str | None = None) -> Iterator[tuple[int, Observation]]:
        """The observations of one sort, of one connection if asked, with their places."""
        for index, each in enumerate(self._observations):
            if each.what is what and (link is None or each.link == link):
                yield index, each

    def marks(self, note: str) -> list[Observation]:
        """The programme's words of that name."""
        return [each for _, each in self.of(What.MARK) if each.note == note]

    def events(self, call_sid: str | None = None, *, link: str | None = None) -> list[Seen[CallEvent]]:
        """The events that came and could be decoded, of one call and one connection if asked."""
        return [
            seen
            for seen in self._all(CallEvent)
            if (call_sid is None or seen.message.call_sid == call_sid)
            and (link is None or seen.observation.link == link)
        ]

    def event_types(self, call_sid: str, *, link: str | None = None) -> list[int]:
        """The types of one call's events, in order of arrival."""
        return [seen.message.event_type for seen in self.events(call_sid, link=link)]

    def hangup(self, call_sid: str) -> Seen[CallEvent] | None:
        """The call's first CHANNEL_HANGUP_COMPLETE."""
        ends = EventType.CHANNEL_HANGUP_COMPLETE
        return next((seen for seen in self.events(call_sid) if seen.message.event_type == ends), None)

    def audio(self, call_sid: str | None = None, *, link: str | None = None) -> list[Seen[AudioFrame]]:
        """The audio frames that came, of one call and one connection if asked."""
        return [
            seen
            for seen in self._all(AudioFrame)
            if (call_sid is None or seen.message.call_sid == call_sid)
            and (link is None or seen.observation.link == link)
        ]

    def call_sids(self) -> list[str]:
        """The calls that events tell of, in order of appearance."""
        return list(dict.fromkeys(seen.message.call_sid for seen in self.events()))

    def undecodable(self) -> list[tuple[int, Observation]]:
        """Frames of events or audio that could not be decoded."""
        good = {seen.index for cls in (CallEvent, AudioFrame) for seen in self._all(cls)}
        return [
            (index, each)
            for index, each in self.of(What.FRAME)
            if messages.method_of(each.method or 0) in (MethodId.StreamEvents, MethodId.AudioFrame)
            and index not in good
        ]

    def placed(self) -> dict[str, OriginateRequest]:
        """The calls that were asked for and not refused, by the call_sid they were given."""
        calls: dict[str, OriginateRequest] = {}
        for request, answer in self.replies(MethodId.Originate):
            try:
                asked = messages.decode(OriginateRequest, request.data[8:])
                reply = self.decoded_reply(answer)[1]
            except RemoteProtocolError:
                continue
            if not getattr(reply, "error_code", 0):
                calls[getattr(reply, "call_sid", "") or asked.call_sid] = asked
        return calls

    def reply(self, stream: int, link: str = "A") -> Observation | None:
        """What came back on a request's stream."""
        return next((each for _, each in self.of(What.REPLY, link=link) if each.stream == stream), None)

    def replies(self, method: MethodId, *, link: str | None = None) -> list[tuple[Observation, Observation]]:
        """Each request of that method with its reply, in the order they were sent."""
        pairs = []
        for _, request in self.of(What.REQUEST, link=link):
            if request.method == method and request.stream is not None:
                answer = self.reply(request.stream, request.link)
                if answer is not None:
                    pairs.append((request, answer))
        return pairs

    @staticmethod
    def decoded_reply(answer: Observation) -> tuple[Reply, Message | None]:
        """How a reply is framed, and its message. Raises RemoteProtocolError for one that is not readable."""
        assert answer.method is not None
        reply = decode_reply(answer.data, answer.method)
        method = messages.method_of(answer.method)
        if reply.form == "none" or method is None or method not in messages.METHODS:
            return reply, None
        decoded: Message = messages.decode(messages.METHODS[method].reply, reply.body)
        return reply, decoded

    def _all(self, cls: type[M]) -> tuple[Seen[M], ...]:
        if cls not in self._decoded:
            wanted = MethodId.AudioFrame if cls is AudioFrame else MethodId.StreamEvents
            found = []
            for index, each in self.of(What.FRAME):
                if each.method is not None and messages.method_of(each.method) is wanted:
                    try:
                        found.append(Seen(messages.decode(cls, each.data), each, index))
                    except RemoteProtocolError:
                        continue  # undecodable() tells of it
            self._decoded[cls] = tuple(found)
        return self._decoded[cls]
