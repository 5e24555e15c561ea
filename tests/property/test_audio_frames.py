"""Templates and patterns for audio frames, held against the general codec: the same bytes, fields and refusals."""

from __future__ import annotations

import struct

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentao_trio import messages
from agentao_trio.audio_frames import FrameReader, FrameTemplate
from agentao_trio.envelope import Decoded
from agentao_trio.errors import LocalProtocolError, RemoteProtocolError
from agentao_trio.messages import AudioFrame, MethodId
from agentao_trio.wire import MAX_FRAME_LENGTH, encode_frame

TEXT = st.binary(max_size=20).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
NUMBERS = st.integers(0, 2**64 - 1)
FRAMES = st.builds(
    AudioFrame,
    # Few lengths and few names, so that patterns meet bodies that look like theirs and are not.
    call_sid=st.sampled_from(["", "a", "b", "cc", "PCMU", "\udcff"]) | TEXT,
    payload=st.sampled_from([b"", b"p", b"q", bytes(160)]) | st.binary(max_size=20),
    codec=st.sampled_from(["", "PCMU", "PCMA", "PCM16"]) | TEXT,
    sequence_number=NUMBERS,
    end_of_stream=st.booleans(),
)


def general(body: bytes) -> object:
    try:
        return attrs.astuple(messages.decode(AudioFrame, body))
    except RemoteProtocolError as refusal:
        return str(refusal), refusal.reason, refusal.offset


def by_pattern(reader: FrameReader, body: bytes) -> object:
    try:
        return reader.read(body)
    except RemoteProtocolError as refusal:
        return str(refusal), refusal.reason, refusal.offset


@given(TEXT, TEXT, st.lists(st.tuples(st.binary(max_size=10), NUMBERS, st.booleans())))
def test_a_template_writes_what_the_general_codec_writes(
    call_sid: str, codec: str, packets: list[tuple[bytes, int, bool]]
) -> None:
    template = FrameTemplate(call_sid, codec)
    for payload, number, ended in packets:
        frame = AudioFrame(call_sid=call_sid, payload=payload, codec=codec, sequence_number=number, end_of_stream=ended)
        written = template.frame(payload, number, end_of_stream=ended)
        assert written == encode_frame(MethodId.AudioFrame, messages.encode(frame))


def test_a_frame_ends_its_stream_only_where_that_is_said() -> None:
    template = FrameTemplate("call", "PCMU")
    assert template.frame(b"ab", 7) == template.frame(b"ab", 7, end_of_stream=False)
    assert template.frame(b"ab", 7) != template.frame(b"ab", 7, end_of_stream=True)


def test_a_template_refuses_what_the_general_codec_refuses() -> None:
    with pytest.raises(LocalProtocolError, match=r"AudioFrame\.call_sid takes text"):
        FrameTemplate("\ud800", "PCMU").frame(b"", 0)
    with pytest.raises(LocalProtocolError, match="a frame holds no more than"):
        FrameTemplate("call", "PCMU").frame(bytes(MAX_FRAME_LENGTH), 0)


@given(st.lists(FRAMES), st.data())
@example([AudioFrame(call_sid="ab", payload=b"c"), AudioFrame(call_sid="a", payload=b"bc")], None)
def test_a_reader_with_a_past_reads_what_the_general_codec_reads(
    frames: list[AudioFrame], data: st.DataObject | None
) -> None:
    reader = FrameReader()
    for frame in frames:
        body = bytearray(messages.encode(frame))
        if data is not None and data.draw(st.booleans(), label="changed"):
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
            body = body[: data.draw(st.integers(0, len(body)))] if data.draw(st.booleans(), label="cut") else body
        for _ in range(2):  # as a stranger, and by the pattern it may have left
            assert by_pattern(reader, bytes(body)) == general(bytes(body))


@pytest.mark.parametrize("place", range(6 + 4 + 4 + 4 + 3 + 4 + 4 + 9))
@pytest.mark.parametrize("value", [0, 1, 2, 3, 255])
def test_a_body_that_differs_from_its_pattern_in_one_byte(place: int, value: int) -> None:
    body = bytearray(messages.encode(AudioFrame(call_sid="call", payload=b"xyz", codec="PCMU", sequence_number=7)))
    reader = FrameReader()
    reader.read(bytes(body))
    body[place] = value
    assert by_pattern(reader, bytes(body)) == general(bytes(body))


def test_a_newer_writers_frames_are_understood() -> None:
    body = messages.encode(AudioFrame(call_sid="call", payload=b"xyz", codec="PCMU"))
    newer = body[:2] + struct.pack("<i", len(body) - 6 + 3) + body[6:] + b"new"
    reader = FrameReader()
    assert [reader.read(each) for each in (newer, body, newer)] == [("call", b"xyz", "PCMU", 0, False)] * 3


# -- how seldom the general codec is asked ----------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[AudioFrame]:
    """The frames that the general codec has written and read."""
    frames: list[AudioFrame] = []
    encode, decode_counted = messages.encode, messages.decode_counted

    def encode_and_note(frame: AudioFrame) -> bytes:
        frames.append(frame)
        return encode(frame)

    def decode_and_note(cls: type[AudioFrame], body: bytes) -> Decoded[AudioFrame]:
        decoded = decode_counted(cls, body)
        frames.append(decoded.message)
        return decoded

    monkeypatch.setattr(messages, "encode", encode_and_note)
    monkeypatch.setattr(messages, "decode_counted", decode_and_note)
    return frames


def times_asked(asked: list[AudioFrame], reader: FrameReader, *bodies: bytes) -> int:
    asked.clear()
    for body in bodies:
        reader.read(body)
    return len(asked)


def test_a_template_follows_one_frame_of_each_length(asked: list[AudioFrame]) -> None:
    template = FrameTemplate("call", "PCMU")
    for payload in (b"", b"", b"abc", b"xyz", b"abc"):
        template.frame(payload, 1)
    assert [len(frame.payload) for frame in asked] == [0, 3]


def test_a_reader_learns_from_one_frame_of_each_call_and_length(asked: list[AudioFrame]) -> None:
    packets = [
        messages.encode(AudioFrame(call_sid=name, payload=bytes(160), codec="PCMU", sequence_number=number))
        for name in ("one", "two")
        for number in range(10)
    ]
    reader = FrameReader()
    assert times_asked(asked, reader, *packets) == 2
    last = messages.encode(AudioFrame(call_sid="one", codec="PCMU", end_of_stream=True))
    assert times_asked(asked, reader, last, *packets, last) == 1


def test_a_call_that_is_kept_is_named_by_the_very_string_it_is_kept_by() -> None:
    kept = "".join(["call-", "1"])
    reader = FrameReader({kept: kept}.get)
    for name, payload in (("call-1", b"first"), ("call-2", b"first"), ("call-1", b"then"), ("call-2", b"then")):
        body = messages.encode(AudioFrame(call_sid=name, payload=payload, codec="PCMU"))
        assert reader.read(body)[0] == name
    body = messages.encode(AudioFrame(call_sid="call-1", payload=b"then", codec="PCMU"))
    assert reader.read(body)[0] is kept


def test_frames_of_one_length_that_are_cut_differently_are_not_taken_for_each_other() -> None:
    bodies = [
        messages.encode(AudioFrame(call_sid=name, payload=payload, codec=codec, sequence_number=7))
        for name, payload, codec in (("ab", b"123456", "PCMU"), ("abcd", b"1234", "PCMU"), ("ab", b"1234", "PCMU16"))
    ]
    assert len(set(map(len, bodies))) == 1
    reader = FrameReader()
    read = [reader.read(body)[:3] for _ in range(2) for body in bodies]
    assert read == 2 * [("ab", b"123456", "PCMU"), ("abcd", b"1234", "PCMU"), ("ab", b"1234", "PCMU16")]


def test_a_newer_writers_frames_are_no_pattern(asked: list[AudioFrame]) -> None:
    body = messages.encode(AudioFrame(call_sid="call", codec="PCMU"))
    within = body[:2] + struct.pack("<i", len(body) - 6 + 3) + body[6:] + b"new"
    assert times_asked(asked, FrameReader(), within, within, body + b"behind", body + b"behind") == 4


@pytest.mark.parametrize(("length", "asks"), [(64, 1), (65, 2)])
def test_the_name_of_a_call_worth_remembering_has_64_characters(
    length: int, asks: int, asked: list[AudioFrame]
) -> None:
    body = messages.encode(AudioFrame(call_sid="x" * length, codec="PCMU"))
    assert times_asked(asked, FrameReader(), body, body) == asks


@pytest.mark.parametrize(("length", "asks"), [(16, 1), (17, 2)])
def test_the_name_of_a_codec_worth_remembering_has_16_characters(
    length: int, asks: int, asked: list[AudioFrame]
) -> None:
    body = messages.encode(AudioFrame(codec="x" * length))
    assert times_asked(asked, FrameReader(), body, body) == asks


def test_with_64_patterns_the_memory_is_full_and_begins_anew(asked: list[AudioFrame]) -> None:
    bodies = [messages.encode(AudioFrame(payload=bytes(size), codec="PCMU")) for size in range(65)]
    reader = FrameReader()
    assert times_asked(asked, reader, *bodies[:64], *bodies[:64]) == 64
    assert times_asked(asked, reader, bodies[64], bodies[0]) == 2


def test_what_is_remembered_is_bounded() -> None:
    reader = FrameReader()
    for size in range(1000):
        reader.read(messages.encode(AudioFrame(payload=bytes(size), codec=f"codec {size}")))
    reader.read(messages.encode(AudioFrame(codec="x" * 100_000)))
    for number in range(FrameReader.NAMES + 10):
        reader.read(messages.encode(AudioFrame(call_sid=f"call {number:08}", codec="PCMU")))
    assert len(reader._patterns) <= FrameReader.MEMORY
    assert max(len(pattern.names) for pattern in reader._patterns.values()) <= FrameReader.NAMES
    assert sum(map(len, reader._codecs)) <= FrameReader.MEMORY * (4 + 4 * FrameReader.LONGEST_CODEC)
