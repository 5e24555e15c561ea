"""Calls whose agent hears and speaks in other formats than the gateway's, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from agentao_trio import ActiveCall, Codec, messages
from agentao_trio.audio import from_pcm16, to_pcm16
from agentao_trio.messages import MethodId
from agentao_trio.wire import encode_frame
from tests.support.scripted_gateway import ScriptedGateway, accepting, answered_call, session_on
from tests.support.sounds import level, pitch, sine


@asynccontextmanager
async def a_call(codec: str = "PCMU") -> AsyncIterator[tuple[ActiveCall, ScriptedGateway]]:
    """An answered call."""
    gateway = accepting()
    async with session_on(gateway) as session:
        yield await answered_call(session, gateway, codec=codec), gateway


def wire(call: ActiveCall, pcm: bytes, codec: Codec, *, without: int | None = None) -> bytes:
    """Samples as the gateway's frames of one call, ``without`` one of them."""
    audio, size = from_pcm16(pcm, codec), codec.packet_bytes
    frames = [
        messages.AudioFrame(
            call_sid=call.call_sid,
            payload=audio[start : start + size],
            codec=codec.value,
            sequence_number=start // size,
            end_of_stream=start + size >= len(audio),
        )
        for start in range(0, len(audio), size)
        if start // size != without
    ]
    return b"".join(encode_frame(MethodId.AudioFrame, messages.encode(frame)) for frame in frames)


@pytest.mark.parametrize("codec", [Codec.PCMU, Codec.PCMA])
@pytest.mark.parametrize("rate", [8000, 16_000, 24_000])
async def test_the_agent_hears_what_it_asked_for(codec: Codec, rate: int, autojump_clock: MockClock) -> None:
    async with a_call(codec.value) as (call, gateway):
        stream = call.audio_stream(codec=Codec.PCM16, rate=rate)
        await gateway.stream(wire(call, sine(440, rate=8000, seconds=0.9), codec))
        heard = b"".join([chunk async for chunk in stream])
    assert len(heard) == 2 * rate * 9 // 10
    assert pitch(heard, rate) == pytest.approx(440, abs=1)
    assert level(heard) == pytest.approx(level(sine(440, rate=8000, seconds=0.9)), rel=0.02)


async def test_readers_of_one_call_each_have_their_own_format(autojump_clock: MockClock) -> None:
    async with a_call() as (call, gateway):
        as_sent, for_model = call.audio(), call.audio(rate=24_000)
        sent = sine(440, rate=8000, seconds=0.5)
        await gateway.stream(wire(call, sent, Codec.PCMU))
        assert b"".join([frame.payload async for frame in as_sent]) == from_pcm16(sent, Codec.PCMU)
        frames = [frame async for frame in for_model]
        assert {frame.codec for frame in frames} == {"PCM16"}
        assert sum(len(frame.payload) for frame in frames) == 24_000
        assert call.statistics().packets_dropped == 0


async def test_a_gap_is_silence_for_who_wants_it(autojump_clock: MockClock) -> None:
    async with a_call() as (call, gateway):
        with_gap, filled = call.audio_stream(rate=16_000), call.audio_stream(rate=16_000, fill_gaps=True)
        await gateway.stream(wire(call, sine(440, rate=8000, seconds=0.4), Codec.PCMU, without=10))
        assert len(b"".join([chunk async for chunk in with_gap])) == 19 * 640
        heard = b"".join([chunk async for chunk in filled])
    assert len(heard) == 20 * 640
    assert level(heard[10 * 640 + 100 : 11 * 640 - 100]) < 300  # a filter rings a little


async def test_a_closed_reader_ends_without_the_rest(autojump_clock: MockClock) -> None:
    async with a_call() as (call, gateway):
        stream = call.audio_stream(rate=24_000)
        await gateway.stream(wire(call, bytes(3200), Codec.PCMU), end=False)
        await anext(stream)
        stream.close()
        assert [chunk async for chunk in stream] == []


async def test_a_rate_that_cannot_be_had_is_refused_before_anything_is_heard(autojump_clock: MockClock) -> None:
    async with a_call() as (call, _):
        with pytest.raises(ValueError, match="PCMU has 8000"):
            call.audio(codec=Codec.PCMU, rate=16_000)
        with pytest.raises(ValueError, match="expected 8000 to 48000"):
            await call.send_audio(b"", rate=96_000)


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("rate", [8000, 16_000, 24_000])
async def test_the_agent_speaks_at_its_own_rate(codec: Codec, rate: int, autojump_clock: MockClock) -> None:
    async with a_call(codec.value) as (call, gateway):
        said = sine(440, rate=rate, seconds=0.5)
        for start in range(0, len(said), 1001):  # models do not count in packets
            await call.send_audio(said[start : start + 1001], rate=rate)
        await call.finish_audio()
        await trio.sleep(0.1)
    frames = [frame for frame in gateway.uplink if not frame.end_of_stream]
    assert {frame.codec for frame in frames} == {codec.value}
    assert {len(frame.payload) for frame in frames} == {codec.packet_bytes}
    heard = to_pcm16(b"".join(frame.payload for frame in frames), codec)
    assert len(frames) == 25
    assert pitch(heard, codec.clock_rate) == pytest.approx(440, abs=1)


async def test_barge_in_also_clears_the_filter(autojump_clock: MockClock) -> None:
    async with a_call() as (call, gateway):
        await call.send_audio(sine(440, rate=24_000, seconds=0.03), rate=24_000)
        call.clear_send_audio_buffer()
        await call.send_audio(bytes(24_000), rate=24_000)
        await call.finish_audio()
        await trio.sleep(0.1)
    assert {byte for frame in gateway.uplink for byte in frame.payload} == {0xFF}


async def test_cancelled_speech_can_be_followed_by_more(autojump_clock: MockClock) -> None:
    async with a_call() as (call, gateway):
        with trio.move_on_after(0.3):
            await call.send_audio(bytes(2 * 24_000 * 10), rate=24_000)
        await call.wait_played()
        await call.send_audio(bytes(2 * 24_000), rate=24_000)
        await call.finish_audio()
        sent, cleared = call.statistics().packets_sent, call.statistics().packets_cleared
    # Eleven seconds; in whole packets, of which the last was filled up.
    assert sent + cleared == 11 * 50
    assert [frame.sequence_number for frame in gateway.uplink] == list(range(sent + 1))
