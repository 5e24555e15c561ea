"""Envelopes for any values and any bytes: what goes in comes out, and nothing else than a refusal can happen."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentao_trio import messages
from agentao_trio.conformance import strategies
from agentao_trio.errors import LocalProtocolError, RemoteProtocolError
from agentao_trio.messages import MESSAGES, EventType, Message
from tests.golden.values import FIELDS, VECTORS, octets

REASONS = {
    "truncated_header",
    "bad_payload_size",
    "payload_size_past_end",
    "incompatible",
    "field_truncated",
    "negative_length",
    "length_past_end",
    "bad_count",
}


#: How many bytes a field's default takes, where it is not four.
DEFAULT_SIZE = {"bool": 1, "i8": 1, "u16": 2, "i64": 8, "u64": 8, "f64": 8}

ANY_MESSAGE = strategies.any_message()
ANY_CLASS = st.sampled_from(list(MESSAGES.values()))
BODIES = st.sampled_from([octets(entry, "body") for entry in VECTORS["decode"]]) | ANY_MESSAGE.map(messages.encode)


@pytest.mark.parametrize("name", MESSAGES)
def test_what_goes_in_comes_out(name: str) -> None:
    @given(strategies.message_of(MESSAGES[name]))
    def round_trip(original: Message) -> None:
        decoded = messages.decode_counted(type(original), messages.encode(original))
        assert decoded == (original, 0, 0)

    round_trip()


@given(st.floats(), st.floats())
def test_every_double_survives(jitter: float, mos: float) -> None:
    event = messages.CallEvent(jitter_ms=jitter, estimated_mos=mos)
    written = messages.encode(event)
    assert messages.encode(messages.decode(messages.CallEvent, written)) == written


def resized(body: bytes) -> bytes:
    return body[:2] + struct.pack("<i", len(body) - 6) + body[6:]


@given(ANY_MESSAGE, st.binary(), st.binary(), st.integers(0, 255))
def test_a_newer_writer_is_understood_as_far_as_we_know_it(
    original: Message, newer: bytes, after: bytes, version: int
) -> None:
    body = resized(messages.encode(original) + newer)
    body = bytes([version]) + body[1:] + after
    assert messages.decode_counted(type(original), body) == (original, len(newer), len(after))


@given(ANY_MESSAGE, st.data())
def test_an_older_writer_leaves_the_last_fields_to_their_defaults(original: Message, data: st.DataObject) -> None:
    names = [attribute.name for attribute in attrs.fields(type(original))]
    written = data.draw(st.integers(0, len(names)), label="fields the older writer knew")
    older = type(original)(**{name: getattr(original, name) for name in names[:written]})
    kinds = dict(FIELDS[type(original).__name__])
    unwritten = sum(DEFAULT_SIZE.get(kinds[name], 4) for name in names[written:])
    body = messages.encode(older)
    assert messages.decode(type(original), resized(body[: len(body) - unwritten])) == older


@given(ANY_MESSAGE, st.data())
def test_a_cut_envelope_is_refused_at_every_cut(original: Message, data: st.DataObject) -> None:
    body = messages.encode(original)
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(RemoteProtocolError):
        messages.decode(type(original), body[:cut])


@given(ANY_CLASS, st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(cls: type[Message], body: bytes) -> None:
    understood_or_refused(cls, body)


@given(ANY_CLASS, BODIES, st.data())
def test_so_are_messages_with_some_bytes_changed(cls: type[Message], body: bytes, data: st.DataObject) -> None:
    """Noise rarely looks like an envelope; this does, and often is one of another class."""
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        if changed:
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    understood_or_refused(cls, bytes(changed))


@given(ANY_CLASS, st.binary(max_size=200) | BODIES, st.data())
def test_the_generated_reader_and_the_one_by_field_agree(cls: type[Message], body: bytes, data: st.DataObject) -> None:
    """In what they make of the same bytes, and in every word of a refusal."""
    if body and data.draw(st.booleans(), label="changed"):
        place = data.draw(st.integers(0, len(body) - 1))
        body = body[:place] + data.draw(st.binary(min_size=1, max_size=4)) + body[place + 1 :]

    def outcome(decode: Callable[[type[Message], bytes], Message]) -> object:
        try:
            return messages.encode(decode(cls, body))
        except RemoteProtocolError as refusal:
            return str(refusal), refusal.reason, refusal.offset

    assert outcome(messages.decode) == outcome(lambda cls, body: messages.decode_counted(cls, body).message)


#: Values that fit their field, almost fit it, and do not fit at all.
ODD_VALUES = st.one_of(
    strategies.text(),
    st.binary(),
    st.booleans(),
    st.integers(-(2**64), 2**64),
    st.floats(allow_nan=False),
    st.sampled_from([None, 2**31, -(2**63), 2**64, 1.0, "\ud800", bytearray(b"x"), memoryview(b"y"), EventType(3)]),
)


@given(ANY_MESSAGE, st.data())
def test_the_generated_writer_and_the_one_by_field_agree(original: Message, data: st.DataObject) -> None:
    """In what they make of the same message, and in every word of a refusal."""
    if names := [attribute.name for attribute in attrs.fields(type(original))]:
        changes: Any = {data.draw(st.sampled_from(names)): data.draw(ODD_VALUES)}
        original = attrs.evolve(original, **changes)

    def outcome(encode: Callable[[Message], bytes]) -> object:
        try:
            return encode(original)
        except LocalProtocolError as refusal:
            return str(refusal)

    assert outcome(messages.encode) == outcome(messages._layout_of(type(original)).encode_by_field)


def understood_or_refused(cls: type[Message], body: bytes) -> None:
    try:
        decoded = messages.decode_counted(cls, body)
    except RemoteProtocolError as refusal:
        assert refusal.reason in REASONS  # noqa: PT017 - either outcome is fine, and this is what one looks like
        assert refusal.offset is not None  # noqa: PT017
        assert 0 <= refusal.offset <= len(body)  # noqa: PT017
        return
    assert type(decoded.message) is cls
    assert 0 <= decoded.skipped <= len(body) - decoded.after
    # Whatever was made of it can be written, and means the same when it is read again.
    written = messages.encode(decoded.message)
    assert messages.encode(messages.decode(cls, written)) == written
