"""The ``streams`` of streams.json: what a reader makes of each, however its bytes are cut into chunks.

(Their ``sessions``, streams woven together and judged call by call, are in test_sessions.py.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from agentao_trio import messages
from agentao_trio.errors import RemoteProtocolError
from agentao_trio.messages import AudioFrame, CallEvent, MethodId
from agentao_trio.wire import Frame, FrameDecoder
from tests.golden.values import STREAMS, octets


def chunks(data: bytes, chunking: dict[str, Any]) -> Iterator[bytes]:
    """``step`` is a fixed size; ``splits`` are the offsets of cuts, and a repeated one makes an empty chunk."""
    cuts = list(range(0, len(data), chunking["step"])) if "step" in chunking else [0, *chunking["splits"]]
    for start, stop in zip(cuts, [*cuts[1:], len(data)], strict=True):
        yield data[start:stop]


def shown(number: int) -> int | str:
    """JSON numbers are doubles for some readers; the file writes larger ones as text."""
    return number if number <= 2**53 else str(number)


def readable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def summary(frame: Frame) -> dict[str, Any]:
    """One frame in the words of the file."""
    method = messages.method_of(frame.method_id)
    digest = hashlib.sha256(frame.body).hexdigest()[:8]
    try:
        if method is MethodId.AudioFrame:
            audio, *unknown = messages.decode_counted(AudioFrame, frame.body)
            told = {
                "k": "audio",
                "call": readable(audio.call_sid),
                "seq": shown(audio.sequence_number),
                "codec": readable(audio.codec),
                "n": len(audio.payload),
                "h": hashlib.sha256(audio.payload).hexdigest()[:12],
                "eos": audio.end_of_stream,
            }
        elif method is MethodId.StreamEvents:
            event, *unknown = messages.decode_counted(CallEvent, frame.body)
            told = {
                "k": "event",
                "call": readable(event.call_sid),
                "type": event.event_type,
                "status": readable(event.status),
                "ts": event.timestamp_ms,
                "q850": event.q850_cause,
                "dur": event.duration_seconds,
                "lost": event.packets_lost,
                "bh": digest,
            }
        else:
            return {"k": "unknown", "id": frame.method_id, "n": len(frame.body), "bh": digest}
    except RemoteProtocolError as refusal:
        return {"k": "bad", "id": frame.method_id, "err": refusal.reason, "bh": digest}
    # Only where there are some does the file mention bytes that were not understood.
    return told | {name: count for name, count in zip(("skipped", "after"), unknown, strict=True) if count}


@pytest.mark.parametrize(
    ("stream", "chunking"),
    [
        pytest.param(stream, chunking, id=f"{stream['id']}-{stream['name']}-{number}")
        for stream in STREAMS["streams"]
        for number, chunking in enumerate(stream["chunkings"])
    ],
)
def test_any_chunking_of_a_stream_gives_what_the_file_expects(stream: dict[str, Any], chunking: dict[str, Any]) -> None:
    data, expected = octets(stream, "data"), stream["expect"]
    decoder = FrameDecoder()
    frames = []
    for chunk in chunks(data, chunking):
        if decoder.error is not None:
            with pytest.raises(RemoteProtocolError) as refusal:
                decoder.feed(chunk)
            assert refusal.value is decoder.error
            continue
        frames += decoder.feed(chunk)
    assert [summary(frame) for frame in frames] == expected["frames"]
    assert getattr(decoder.error, "reason", None) == expected.get("dead")
    assert decoder.short == expected.get("short", 0)
    assert decoder.end() == expected.get("left", 0)


def test_the_streams_are_whole() -> None:
    for stream in STREAMS["streams"]:
        if "data_parts" in stream:
            data = octets(stream, "data")
            assert len(data) == stream["data_len"]
            assert hashlib.sha256(data).hexdigest() == stream["data_sha256"]
