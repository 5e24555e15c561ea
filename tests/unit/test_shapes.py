"""The generated writers and readers: what their text is, and what they leave to others."""

from __future__ import annotations

import struct
import textwrap

import attrs
import pytest

from agentao_trio import shapes
from agentao_trio.messages import EventType
from agentao_trio.shapes import Part, make_reader, make_writer, reader_source

AUDIO = [
    Part("call_sid", "text"),
    Part("payload", "bytes"),
    Part("codec", "text"),
    Part("sequence_number", "Q"),
    Part("end_of_stream", "?"),
]


@attrs.frozen(kw_only=True)
class Told:
    kind: int = 0
    text: str = ""
    ready: bool = False


TOLD = [Part("kind", "i", {member.value: member for member in EventType}), Part("text", "text"), Part("ready", "?")]
write = make_writer(TOLD, 3, 1)
read = make_reader(Told, TOLD, 3)


def test_the_reader_shown_in_the_documentation_is_the_one_that_is_used() -> None:
    source, _ = reader_source(AUDIO)
    assert textwrap.indent(source, "    ") in (shapes.__doc__ or "")


def test_numbers_travel_with_the_length_behind_them() -> None:
    """Header, number and length in one struct; the last number in another."""
    _, structs = reader_source(TOLD)
    assert [unpack.__self__.format for unpack in structs.values()] == ["<BBIiI", "<?"]


def test_a_class_without_fields_is_a_header() -> None:
    nothing = make_writer([], 0, 0)
    empty = make_reader(attrs.make_class("Nothing", [], slots=True), [], 0)
    assert nothing(object()) == bytes(6)
    assert type(empty(bytes(6) + b"after")).__name__ == "Nothing"
    assert empty(bytes(5)) is None


def test_what_is_written_is_read() -> None:
    told = Told(kind=EventType.CHANNEL_HOLD, text="\udcff", ready=True)
    data = write(told)
    assert data == struct.pack("<BBiii", 3, 1, 10, 4, 1) + b"\xff\x01"
    assert read(data) == told
    assert read(data).kind is EventType.CHANNEL_HOLD


@pytest.mark.parametrize(
    "told",
    [
        Told(kind=True),
        Told(kind=1.0),  # type: ignore[arg-type]
        Told(kind=2**31),
        Told(text=b"text"),  # type: ignore[arg-type]
        Told(text="\ud800"),
        Told(ready=1),  # type: ignore[arg-type]
    ],
)
def test_values_that_have_to_be_looked_at_are_left_to_others(told: Told) -> None:
    assert write(told) is None


DATA = write(Told(kind=7, text="text", ready=True)) or b""


@pytest.mark.parametrize(
    "data",
    [
        *(DATA[:cut] for cut in range(len(DATA))),
        DATA[:2] + struct.pack("<i", len(DATA) - 7) + DATA[6:],  # its own size ends within the last field
        DATA[:2] + struct.pack("<i", -1) + DATA[6:],
        DATA[:1] + b"\x04" + DATA[2:],  # for readers of version 4
        DATA[:10] + struct.pack("<i", -1) + DATA[14:],
        DATA[:10] + struct.pack("<i", 2**31 - 1) + DATA[14:],
    ],
)
def test_bytes_that_do_not_add_up_are_left_to_others(data: bytes) -> None:
    assert read(data) is None


def test_a_newer_writers_fields_are_skipped() -> None:
    data = DATA[:2] + struct.pack("<i", len(DATA) - 6 + 3) + DATA[6:] + b"new" + b"after"
    assert read(data) == Told(kind=7, text="text", ready=True)
