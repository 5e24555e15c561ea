"""Frames per second through the codec, ours and the obvious one, turn about in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from agentao_trio import messages
from agentao_trio.messages import AudioFrame, CallEvent, EventType, MethodId
from agentao_trio.wire import FrameDecoder, encode_frame
from benchmarks import naive
from benchmarks.row import Row

FRAMES = 2000
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


def measure(seconds: float) -> Iterator[Row]:
    """Rows of (ours, the obvious codec's) frames per second; ``seconds`` for each side of each row."""
    audio = encode_frame(MethodId.AudioFrame, messages.encode(AUDIO)) * FRAMES
    event = encode_frame(MethodId.StreamEvents, messages.encode(EVENT)) * FRAMES
    assert {naive.decode_audio(body) for _, body in naive.split(audio)} == {AUDIO}
    assert {naive.decode_event(body) for _, body in naive.split(event)} == {EVENT}
    assert naive.encode_audio(AUDIO, MethodId.AudioFrame) * FRAMES == audio

    yield _race(
        "decode audio",
        lambda: [messages.decode(AudioFrame, frame.body) for frame in FrameDecoder().feed(audio)],
        lambda: [naive.decode_audio(body) for _, body in naive.split(audio)],
        seconds,
    )
    yield _race(
        "decode events",
        lambda: [messages.decode(CallEvent, frame.body) for frame in FrameDecoder().feed(event)],
        lambda: [naive.decode_event(body) for _, body in naive.split(event)],
        seconds,
    )
    yield _race(
        "encode audio",
        lambda: [encode_frame(MethodId.AudioFrame, messages.encode(AUDIO)) for _ in range(FRAMES)],
        lambda: [naive.encode_audio(AUDIO, MethodId.AudioFrame) for _ in range(FRAMES)],
        seconds,
    )


def _race(name: str, ours: Callable[[], object], obvious: Callable[[], object], seconds: float) -> Row:
    # Turn about, best of all turns: what other processes take from one side they would have taken from the other.
    best = {ours: float("inf"), obvious: float("inf")}
    end = time.perf_counter() + 2 * seconds
    while time.perf_counter() < end:
        for contender in best:
            began = time.perf_counter()
            contender()
            best[contender] = min(best[contender], time.perf_counter() - began)
    rate, rate_obvious = FRAMES / best[ours], FRAMES / best[obvious]
    return Row(
        name=name,
        figures={"frames_per_s": round(rate), "naive_frames_per_s": round(rate_obvious), "ratio": rate / rate_obvious},
        text=f"{rate:,.0f} frames/s; naive {rate_obvious:,.0f}; ×{rate / rate_obvious:.2f}",
    )
