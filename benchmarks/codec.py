"""Bytes and messages: our codec against code that goes field by field, msgpack and protobuf; and cutting streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import attrs

from agentao_trio import messages
from agentao_trio.audio_frames import FrameReader, FrameTemplate
from agentao_trio.messages import AudioFrame, CallEvent, EventType, Message, MethodId
from agentao_trio.wire import FrameDecoder, encode_frame
from benchmarks import naive
from benchmarks.formats import formats
from benchmarks.race import Ratio, race
from benchmarks.row import Goal, Row, row_of

FRAMES = 1000
SID = "3f0b8a0e-5f5c-4a8e-9f43-6b1f2f4d9c11"
AUDIO = AudioFrame(call_sid=SID, payload=bytes(range(160)), codec="PCMU", sequence_number=123_456)
EVENT = CallEvent(
    call_sid=SID,
    event_type=EventType.CHANNEL_HANGUP_COMPLETE,
    status="COMPLETED",
    start_timestamp_ms=1_760_000_000_000,
    q850_cause=16,
    duration_seconds=31,
    packets_sent=1550,
    packets_received=1549,
    packets_lost=1,
    bytes_sent=248_000,
    jitter_ms=1.25,
    estimated_mos=4.4,
    trunk_id="main",
    tenant_id="default",
    codec="PCMU",
    timestamp_ms=1_760_000_031_000,
    client_id=SID,
)
AUDIO_BODY, EVENT_BODY = messages.encode(AUDIO), messages.encode(EVENT)
AUDIO_FRAME = encode_frame(MethodId.AudioFrame, AUDIO_BODY)

#: Bytes that are waiting when a program comes back to its streams, and bytes of one datagram's worth of stream.
BACKLOG, CHUNK = 5_000_000, 1200


def times(work: Callable[[], object]) -> Callable[[], object]:
    """``work``, so often that a clock can tell."""

    def turn() -> None:
        for _ in range(FRAMES):
            work()

    return turn


def encode_audio(pairs: int) -> Ratio:
    """Field-by-field code against a call's template: how many times faster the latter is."""
    plain = naive.Audio(**attrs.asdict(AUDIO))
    template = FrameTemplate(SID, "PCMU")
    assert naive.encode_audio(plain, MethodId.AudioFrame) == AUDIO_FRAME
    assert template.frame(AUDIO.payload, AUDIO.sequence_number) == AUDIO_FRAME
    return race(
        times(partial(naive.encode_audio, plain, MethodId.AudioFrame)),
        times(partial(template.frame, AUDIO.payload, AUDIO.sequence_number)),
        pieces=(FRAMES, FRAMES),
        pairs=pairs,
    )


def decode_audio(pairs: int) -> Ratio:
    """Field-by-field code against what the router reads audio with."""
    reader = FrameReader()
    assert attrs.asdict(AUDIO) == {name: getattr(naive.decode_audio(AUDIO_BODY), name) for name in attrs.asdict(AUDIO)}
    assert reader.read(AUDIO_BODY) == attrs.astuple(AUDIO)
    return race(
        times(partial(naive.decode_audio, AUDIO_BODY)),
        times(partial(reader.read, AUDIO_BODY)),
        pieces=(FRAMES, FRAMES),
        pairs=pairs,
    )


def decode_event(pairs: int) -> Ratio:
    """Field-by-field code against the generated reader, which builds and checks the whole message."""
    return race(
        times(partial(naive.decode_event, EVENT_BODY)),
        times(partial(messages.decode, CallEvent, EVENT_BODY)),
        pieces=(FRAMES, FRAMES),
        pairs=pairs,
    )


def splitting(pairs: int) -> Ratio:
    """Cost of a byte in a backlog that comes as one chunk, divided by its cost in chunks of a datagram each."""
    whole = AUDIO_FRAME * (BACKLOG // len(AUDIO_FRAME))
    chunks = [whole[start : start + CHUNK] for start in range(0, len(whole), CHUNK)]

    def one_chunk() -> None:
        frames = FrameDecoder().feed(whole)
        assert len(frames) == len(whole) // len(AUDIO_FRAME)

    def many_chunks() -> None:
        decoder = FrameDecoder()
        frames = 0
        for chunk in chunks:
            frames += len(decoder.feed(chunk))
        assert frames == len(whole) // len(AUDIO_FRAME)
        assert decoder.end() == 0

    return race(one_chunk, many_chunks, pieces=(len(whole), len(whole)), pairs=pairs)


def measure(pairs: int) -> Iterator[Row]:
    """All rows; ``pairs`` is how often each comparison is repeated."""
    yield row_of(
        encode_audio(pairs),
        group="codec",
        name="encode audio: field by field ÷ ours",
        goal=Goal(relation="≥", value=5),
        text="a call's template; the whole frame",
    )
    yield row_of(
        decode_audio(pairs),
        group="codec",
        name="decode audio: field by field ÷ ours",
        goal=Goal(relation="≥", value=3),
        text="as the router reads it, checks included",
    )
    yield row_of(
        decode_event(pairs),
        group="codec",
        name="decode event: field by field ÷ ours",
        text="20 fields; theirs checks nothing",
    )
    yield from _other_formats(AUDIO, AUDIO_BODY, pairs)
    yield from _other_formats(EVENT, EVENT_BODY, pairs)


def measure_splitting(pairs: int) -> Iterator[Row]:
    """Cutting a stream into frames."""
    ratio = splitting(pairs)
    yield row_of(
        ratio,
        group="splitting",
        name="cost per byte: 5 MB backlog ÷ chunks of 1200",
        goal=Goal(relation="≤", value=1.1),
        text=f"{1 / ratio.first / 1e6:,.0f} MB/s of backlog, frames built",
    )


def _other_formats(message: Message, body: bytes, pairs: int) -> Iterator[Row]:
    cls = type(message)
    kind = "audio" if cls is AudioFrame else "event"
    for other in formats(cls):
        name = f"{kind}, there and back: {other.name} ÷ ours"
        if other.missing:
            yield Row(group="codec", name=name, missing=other.missing)
            continue
        theirs = other.encode(message)
        ratio = race(
            times(lambda: (other.encode(message), other.decode(theirs))),  # noqa: B023 - called before the next turn
            times(lambda: (messages.encode(message), messages.decode(cls, body))),
            pieces=(FRAMES, FRAMES),
            pairs=max(5, pairs // 3),
        )
        text = f"the general codec; {len(theirs)} bytes against {len(body)}"
        yield row_of(ratio, group="codec", name=name, text=text)
