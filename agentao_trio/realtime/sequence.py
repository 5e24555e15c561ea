"""Whether a server's events come in a legal order: small automata, one for each response, item and part.

What is told of different things may interleave as it likes, so there is no order of the stream as a whole to hold it
against: each event is a step of the things it is about, and is judged by their states alone. The tables below are all
there is to know. Checking changes nothing and stops nothing; a violation is a value, and counted.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

import attrs

from agentao_trio.realtime.protocol import (
    InputAudioBufferDtmfEventReceived,
    Malformed,
    OutputEvent,
    PartEvent,
    Received,
    Response,
    ResponseCreated,
    ResponseDone,
    ResponseOutputItemAdded,
    ResponseOutputItemDone,
    Unknown,
)

__all__ = ["SequenceCheck", "SequenceStatistics", "Violation"]

#: What becomes of a response, an item of it or a part, by state and step. What is not here is wrong.
_LIFE: Mapping[tuple[str, str], str] = {("new", "begin"): "open", ("open", "use"): "open", ("open", "end"): "over"}
#: A stream of deltas begins with whatever comes first.
_STREAM: Mapping[tuple[str, str], str] = {
    ("new", "use"): "open",
    ("new", "end"): "over",
    ("open", "use"): "open",
    ("open", "end"): "over",
}
_WRONG: Mapping[tuple[str, str], str] = {
    ("new", "use"): "before its beginning",
    ("new", "end"): "before its beginning",
    ("open", "begin"): "begins twice",
    ("over", "begin"): "begins twice",
    ("over", "use"): "after its end",
    ("over", "end"): "ends twice",
}
#: Ids and things that are remembered; what is older may come again unnoticed.
_REMEMBERED = 4096

_Thing = tuple[Any, ...]


@attrs.frozen(kw_only=True)
class Violation:
    """An event that cannot come where it came. ``about`` names the thing, ``rule`` says what is wrong."""

    event_id: str
    wire_type: str
    about: str
    rule: str


@attrs.frozen(kw_only=True)
class SequenceStatistics:
    """What was checked. Things are responses, items and parts that are remembered."""

    events: int
    violations: int
    by_rule: Mapping[str, int]
    things: int


class SequenceCheck:
    """The states of all that one connection tells of. A new connection needs a new one."""

    def __init__(self) -> None:
        self._states: OrderedDict[_Thing, str] = OrderedDict()
        self._open: dict[str, dict[_Thing, None]] = {}
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._rules: Counter[str] = Counter()
        self._events = 0

    def __repr__(self) -> str:
        return f"<SequenceCheck, {self._events} events, {self._rules.total()} violations>"

    def check(self, received: Received) -> tuple[Violation, ...]:
        """Take an event in; everything that is wrong with its place."""
        self._events += 1
        found: list[tuple[str, str]] = []
        event = received.event
        if isinstance(event, Unknown | Malformed):
            return ()
        if not isinstance(event, InputAudioBufferDtmfEventReceived):
            self._identify(event.event_id, found)
        match event:
            case ResponseCreated(response=response):
                self._step(_LIFE, ("response", response.id or ""), "begin", found)
            case ResponseDone(response=response):
                self._end(response, found)
            case ResponseOutputItemAdded() | ResponseOutputItemDone():
                begins = isinstance(event, ResponseOutputItemAdded)
                self._step(_LIFE, ("response", event.response_id), "use", found)
                item = ("item", event.response_id, event.item.id or "")
                if not begins:
                    self._none_open(event.response_id, item, found)
                self._step(_LIFE, item, "begin" if begins else "end", found)
            case OutputEvent():
                self._output(event, found)
        self._rules.update(rule for _, rule in found)
        return tuple(
            Violation(event_id=event.event_id, wire_type=received.wire_type, about=about, rule=rule)
            for about, rule in found
        )

    def statistics(self) -> SequenceStatistics:
        """A snapshot."""
        return SequenceStatistics(
            events=self._events,
            violations=self._rules.total(),
            by_rule=dict(self._rules),
            things=len(self._states),
        )

    def _identify(self, event_id: str, found: list[tuple[str, str]]) -> None:
        if not event_id:
            found.append(("the event", "has no id"))
        elif event_id in self._ids:
            found.append((f"event {event_id}", "comes twice"))
        else:
            self._ids[event_id] = None
            if len(self._ids) > _REMEMBERED:
                self._ids.popitem(last=False)

    def _output(self, event: OutputEvent, found: list[tuple[str, str]]) -> None:
        self._step(_LIFE, ("response", event.response_id), "use", found)
        self._step(_LIFE, ("item", event.response_id, event.item_id), "use", found)
        head, _, verb = event.TYPE.rpartition(".")
        stream: _Thing = ("stream", event.response_id, event.item_id, 0, head)
        if isinstance(event, PartEvent):
            part = ("part", event.response_id, event.item_id, event.content_index)
            stream = ("stream", *part[1:], head)
            if head == "response.content_part":
                if verb == "done":
                    self._none_open(event.response_id, part, found)
                self._step(_LIFE, part, "begin" if verb == "added" else "end", found)
                return
            self._step(_LIFE, part, "use", found)
        self._step(_STREAM, stream, "end" if verb == "done" else "use", found)

    def _end(self, response: Response, found: list[tuple[str, str]]) -> None:
        """A response that is completed has closed all that it opened; one that is not may have left it."""
        thing = ("response", response.id or "")
        if response.status == "completed":
            self._none_open(response.id or "", thing, found)
        self._step(_LIFE, thing, "end", found)
        self._open.pop(response.id or "", None)

    def _none_open(self, response_id: str, whole: _Thing, found: list[tuple[str, str]]) -> None:
        found.extend(
            (_name(each), "is still open")
            for each in self._open.get(response_id, ())
            if each != whole and each[1 : len(whole)] == whole[1:]
        )

    def _step(
        self, table: Mapping[tuple[str, str], str], thing: _Thing, step: str, found: list[tuple[str, str]]
    ) -> None:
        state = self._states.get(thing, "new")
        following = table.get((state, step))
        if following is None:
            found.append((_name(thing), _WRONG[state, step]))
            # What it missed is not held against everything that follows; what is over stays over.
            following = state if state == "over" else "over" if step == "end" else "open"
        self._states[thing] = following
        self._states.move_to_end(thing)
        if thing[0] != "response":
            if following == "open" and self._states.get(("response", thing[1])) == "open":
                self._open.setdefault(thing[1], {})[thing] = None
            else:
                self._close(thing)
        if len(self._states) > _REMEMBERED:
            self._close(self._states.popitem(last=False)[0])

    def _close(self, thing: _Thing) -> None:
        things = self._open.get(thing[1], {})
        things.pop(thing, None)
        if not things:
            self._open.pop(thing[1], None)


def _name(thing: _Thing) -> str:
    kind, response_id, *rest = thing
    if kind == "response":
        return f"response {response_id}"
    if kind == "item":
        return f"item {rest[0]}"
    return f"part {rest[1]} of item {rest[0]}" + (f" ({rest[2].removeprefix('response.')})" if kind == "stream" else "")
