"""Hypothesis strategies for the protocol: ``from agentao_trio.conformance import strategies``.

Values that anything that speaks the protocol should be able to take, or to refuse in order: messages of every class,
frames good and broken, streams cut into chunks, events in legal and illegal order, programmes of commands, and
schedules of what goes wrong on the way. What is drawn for a programme is plain JSON, so that it fits a replay file.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import attrs
from hypothesis import strategies as st

from agentao_trio import messages
from agentao_trio.envelope import INT8, INT32, INT64, UINT16, UINT32, UINT64
from agentao_trio.messages import MESSAGES, AudioFrame, EventType, Message, MethodId
from agentao_trio.wire import Frame, encode_frame

__all__ = [
    "COMMANDS",
    "any_message",
    "audio_frames",
    "broken_envelopes",
    "broken_frames",
    "chunked",
    "chunks_of",
    "command_programmes",
    "envelopes",
    "event_orders",
    "fault_schedules",
    "frames",
    "illegal_event_orders",
    "legal_event_orders",
    "message_of",
    "noise",
    "padding",
    "text",
]

_CREATE, _ANSWER, _HANGUP = EventType.CHANNEL_CREATE, EventType.CHANNEL_ANSWER, EventType.CHANNEL_HANGUP_COMPLETE
_HOLD, _RESUME = EventType.CHANNEL_HOLD, EventType.CHANNEL_RESUME
#: Which events may follow which; None is the beginning (PROTOCOL section 10.2).
_NEXT: dict[int | None, tuple[int, ...]] = {
    None: (_CREATE,),
    _CREATE: (_ANSWER, _HANGUP),
    _ANSWER: (_HOLD, _HANGUP),
    _HOLD: (_RESUME, _HANGUP),
    _RESUME: (_HOLD, _HANGUP),
    _HANGUP: (),
}
#: What :func:`command_programmes` is made of.
COMMANDS = ("hold", "unhold", "mute", "unmute", "barge", "wait", "terminate")

# -- messages -------------------------------------------------------------------------------------------------------


def _integers(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    lowest = -(1 << bits - 1) if signed else 0
    return st.integers(lowest, lowest + (1 << bits) - 1)


_BITS = {
    INT8.name: (8, True),
    UINT16.name: (16, False),
    INT32.name: (32, True),
    UINT32.name: (32, False),
    INT64.name: (64, True),
    UINT64.name: (64, False),
}


def text() -> st.SearchStrategy[str]:
    """Text as decoding gives it, of any bytes whatever; a byte that is no UTF-8 is a lone surrogate."""
    return st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape"))


def _values(hint: Any) -> st.SearchStrategy[Any]:
    if get_origin(hint) is Annotated:
        bits, signed = _BITS[hint.__metadata__[0].name]
        return _integers(bits, signed=signed)
    if get_origin(hint) is tuple:
        return st.lists(message_of(get_args(hint)[0]), max_size=3).map(tuple)
    plain: dict[type, st.SearchStrategy[Any]] = {
        str: text(),
        bytes: st.binary(),
        bool: st.booleans(),
        float: st.floats(allow_nan=False),
    }
    return plain[hint]


def message_of(cls: type[Message]) -> st.SearchStrategy[Any]:
    """Messages of one class, with any value its fields can have on the wire; floats are numbers."""
    hints = get_type_hints(cls, include_extras=True)
    return st.builds(cls, **{field.name: _values(hints[field.name]) for field in attrs.fields(cls)})


def any_message() -> st.SearchStrategy[Message]:
    """Messages of every class."""
    return st.sampled_from(sorted(MESSAGES)).flatmap(lambda name: message_of(MESSAGES[name]))


def envelopes() -> st.SearchStrategy[bytes]:
    """Envelopes as they should be, of any message."""
    return any_message().map(messages.encode)


@st.composite
def broken_envelopes(draw: st.DrawFn) -> bytes:
    """Envelopes that are cut, lie about their size, ask for another reader, or have other bytes in them."""
    whole = draw(envelopes())
    how = draw(st.sampled_from(["cut", "size", "version", "bytes"]))
    if how == "cut":
        return whole[: draw(st.integers(0, len(whole) - 1))]
    if how == "size":
        return whole[:2] + struct.pack("<i", draw(_integers(32, signed=True))) + whole[6:]
    if how == "version":
        return bytes([draw(st.integers(0, 255)), draw(st.integers(1, 255))]) + whole[2:]
    place = draw(st.integers(0, len(whole) - 1))
    return whole[:place] + draw(st.binary(max_size=8)) + whole[place + draw(st.integers(0, 8)) :]


# -- frames ---------------------------------------------------------------------------------------------------------


def frames(*, max_body: int = 40) -> st.SearchStrategy[Frame]:
    """Frames of any method, known or not, with any body."""
    return st.builds(Frame, _integers(32, signed=False), st.binary(max_size=max_body))


def audio_frames(call_sid: str = "call") -> st.SearchStrategy[bytes]:
    """Whole frames that hold a packet of a call's audio."""
    return message_of(AudioFrame).map(
        lambda frame: encode_frame(
            MethodId.AudioFrame, messages.encode(attrs.evolve(frame, call_sid=call_sid, end_of_stream=False))
        )
    )


def padding() -> st.SearchStrategy[bytes]:
    """Frames that are too short to have a method id, which readers skip."""
    return st.integers(0, 3).map(lambda size: struct.pack("<I", size) + bytes(size))


def broken_frames() -> st.SearchStrategy[bytes]:
    """Frames that are cut, claim too much, are too short, or hold an envelope that is none."""
    whole = frames().map(lambda frame: encode_frame(*frame))
    return st.one_of(
        st.tuples(whole, st.integers(1, 7)).map(lambda drawn: drawn[0][: -drawn[1]]),
        st.integers(1 << 21, (1 << 32) - 1).map(lambda length: struct.pack("<I", length)),
        padding(),
        broken_envelopes().map(lambda body: encode_frame(MethodId.AudioFrame, body)),
    )


def noise(*, max_size: int = 3_000) -> st.SearchStrategy[bytes]:
    """Any bytes."""
    return st.binary(max_size=max_size)


def chunks_of(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    """A stream cut at these places; the same place twice makes an empty chunk."""
    places = sorted(min(cut, len(stream)) for cut in cuts)
    return [stream[start:stop] for start, stop in pairwise([0, *places, len(stream)])]


@st.composite
def chunked(draw: st.DrawFn, streams: st.SearchStrategy[bytes]) -> list[bytes]:
    """A stream cut anywhere."""
    stream = draw(streams)
    return chunks_of(stream, draw(st.lists(st.integers(0, len(stream)), max_size=12)))


# -- events ---------------------------------------------------------------------------------------------------------


@st.composite
def legal_event_orders(draw: st.DrawFn, *, max_size: int = 12) -> list[int]:
    """The event types of one call, from CREATE to HANGUP_COMPLETE, in an order that may be."""
    order: list[int] = []
    while len(order) < max_size - 1:
        following = _NEXT[order[-1] if order else None]
        if not following:
            return order
        order.append(draw(st.sampled_from(following)))
    return order if order and order[-1] == _HANGUP else [*order, _HANGUP]


def _is_legal(order: Sequence[int]) -> bool:
    steps = pairwise([None, *order])
    return bool(order) and order[-1] == _HANGUP and all(two in _NEXT.get(one, ()) for one, two in steps)


def illegal_event_orders(*, max_size: int = 8) -> st.SearchStrategy[list[int]]:
    """The event types of one call in an order that may not be, or without an end."""
    return event_orders(max_size=max_size).filter(lambda order: not _is_legal(order))


def event_orders(*, max_size: int = 8) -> st.SearchStrategy[list[int]]:
    """Event types in any order, UNKNOWN among them."""
    return st.lists(st.sampled_from([each.value for each in EventType]), min_size=1, max_size=max_size)


# -- programmes -----------------------------------------------------------------------------------------------------


def command_programmes(*, max_size: int = 8) -> st.SearchStrategy[list[str]]:
    """Commands for a call that was answered, sensible or not, of :data:`COMMANDS`."""
    return st.lists(st.sampled_from(COMMANDS), max_size=max_size)


def fault_schedules(*, seconds: float = 5.0, max_size: int = 4) -> st.SearchStrategy[list[dict[str, Any]]]:
    """What goes wrong on the way, in order: ``{"at": …, "what": "loss", "share": …}`` and the like.

    ``at`` and ``seconds`` are in seconds. ``what`` is one of loss, duplication, reordering (with a ``share`` of the
    datagrams), deaf, mute, move (the port changes) and stop (STOP_SENDING on every stream of the gateway's).
    """
    share = st.floats(0.01, 0.3).map(lambda value: round(value, 3))
    moment = st.floats(0.0, seconds).map(lambda value: round(value, 3))
    shared = st.fixed_dictionaries(
        {
            "at": moment,
            "what": st.sampled_from(["loss", "duplication", "reordering"]),
            "share": share,
            "seconds": st.floats(0.1, 1.0).map(lambda value: round(value, 3)),
        }
    )
    gap = st.fixed_dictionaries(
        {
            "at": moment,
            "what": st.sampled_from(["deaf", "mute"]),
            "seconds": st.floats(0.1, 1.0).map(lambda value: round(value, 3)),
        }
    )
    blow = st.fixed_dictionaries({"at": moment, "what": st.sampled_from(["move", "stop"])})
    steps: st.SearchStrategy[dict[str, Any]] = shared | gap | blow
    return st.lists(steps, max_size=max_size).map(lambda drawn: sorted(drawn, key=lambda step: step["at"]))
