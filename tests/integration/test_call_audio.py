"""Playing, interrupting, marking, recording and detecting on whole calls with the embedded gateway, in virtual time."""

from __future__ import annotations

import importlib.resources
import struct
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from agentao_trio import ActiveCall, CallEnded, CallStateError, Codec
from agentao_trio.audio import from_pcm16
from agentao_trio.detect import (
    Detection,
    Digit,
    DtmfDetector,
    SpeechEnded,
    SpeechStarted,
    ToneDetector,
    ToneStarted,
    VoiceActivityDetector,
)
from agentao_trio.playout import ON_THE_WAY, Source
from tests.support.simulated import simulated
from tests.support.sounds import keys, silence, sine, speech

SPEECH = Path(str(importlib.resources.files("agentao_trio") / "assets" / "speech.wav"))
SPEECH_SECONDS = 5.3
ECHO, TONE, RECORDING, SILENCE, HANGS_UP = (f"+155501000{row:02}" for row in (1, 2, 3, 4, 16))


@asynccontextmanager
async def call_to(number: str) -> AsyncIterator[ActiveCall]:
    async with simulated() as (session, _), await session.originate(number, trunk_id="main") as call:
        await call.wait_answered()
        yield call


def pcmu(pcm: bytes) -> bytes:
    return from_pcm16(pcm, Codec.PCMU)


# -- playing --------------------------------------------------------------------------------------------------------


async def chunks_of(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 999):
        yield data[start : start + 999]
        await trio.sleep(0.01)


@pytest.mark.parametrize(
    "source",
    [
        str(SPEECH),
        SPEECH,
        pcmu(speech()),
        [pcmu(speech())[:20_000], pcmu(speech())[20_000:]],
        chunks_of(pcmu(speech())),
    ],
    ids=["name", "path", "bytes", "chunks", "stream"],
)
async def test_a_sound_is_played_to_its_end(source: Source, autojump_clock: MockClock) -> None:
    async with call_to(ECHO) as call:
        heard = call.audio_stream(seconds=10)
        started = trio.current_time()
        playout = await call.play(source)
        assert trio.current_time() - started == pytest.approx(SPEECH_SECONDS, abs=0.03)
        assert (playout.seconds_sent, playout.seconds_heard) == (SPEECH_SECONDS, SPEECH_SECONDS)
        assert not playout.interrupted
        received = b"".join([await anext(heard) for _ in range(265)])
        assert received == pcmu(speech())


async def test_samples_at_a_rate_and_a_last_packet_that_is_not_full(autojump_clock: MockClock) -> None:
    async with call_to(ECHO) as call:
        assert (await call.play(sine(440, seconds=0.33), rate=8_000)).seconds_sent == pytest.approx(0.34)
        assert (await call.play(sine(440, seconds=0.5, rate=24_000), rate=24_000)).seconds_sent == pytest.approx(0.5)
        assert (await call.play(b"")).seconds_sent == 0


async def test_cancelling_is_barge_in(autojump_clock: MockClock) -> None:
    async with call_to(ECHO) as call:
        playout = call.play(SPEECH)
        with trio.move_on_after(2):
            await playout
        assert playout.interrupted
        assert playout.seconds_sent == pytest.approx(2, abs=0.03)
        assert playout.seconds_heard == pytest.approx(playout.seconds_sent - ON_THE_WAY)
        assert call.statistics().packets_queued == 0
        sent = call.statistics().packets_sent
        await trio.sleep(1)
        assert call.statistics().packets_sent == sent
        assert call.state.value == "answered"


async def test_leaving_the_block_is_barge_in(autojump_clock: MockClock) -> None:
    """The body listens while the sound plays; the first word stops it."""
    async with call_to(ECHO) as call:
        async with call.play(silence(1) + speech(), rate=8_000) as playout:
            async for event in call.detect(VoiceActivityDetector()):
                assert isinstance(event, SpeechStarted)
                break
        assert playout.seconds_heard == pytest.approx(1.22, abs=0.06)
        await call.play(pcmu(silence(0.1)))


async def test_clearing_stops_what_is_playing(autojump_clock: MockClock) -> None:
    async with call_to(ECHO) as call, call.play(chunks_of(pcmu(speech()))) as playout:
        await trio.sleep(1)
        assert call.clear_send_audio_buffer() > 0
        await playout.finished()
        assert playout.interrupted
        await trio.sleep(1)
        assert playout.seconds_sent == pytest.approx(1, abs=0.03)


async def test_an_exception_of_the_block_comes_out_bare_and_stops_the_sound(autojump_clock: MockClock) -> None:
    async with call_to(ECHO) as call:
        with pytest.raises(KeyError, match="mine"):
            async with call.play(SPEECH):
                raise KeyError("mine")
        assert call.statistics().packets_queued == 0


async def test_a_source_that_fails_ends_the_block(autojump_clock: MockClock) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield pcmu(silence(0.2))
        raise KeyError("the synthesizer")

    async with call_to(ECHO) as call:
        with pytest.raises(KeyError, match="synthesizer"):
            await call.play(failing())


async def test_an_interrupted_generator_is_closed(autojump_clock: MockClock) -> None:
    closed = False

    async def endless() -> AsyncIterator[bytes]:
        nonlocal closed
        try:
            while True:
                yield pcmu(silence(0.1))
        finally:
            closed = True

    async with call_to(ECHO) as call:
        with trio.move_on_after(1):
            await call.play(endless())
        assert closed


async def test_two_sounds_at_once_are_refused(autojump_clock: MockClock) -> None:
    async with call_to(ECHO) as call, call.play(SPEECH):
        with pytest.raises(trio.BusyResourceError):
            await call.play(SPEECH)


async def test_nothing_is_said_into_a_sound_but_behind_it(autojump_clock: MockClock) -> None:
    async with call_to(ECHO) as call, call.play(SPEECH) as playout:
        with pytest.raises(trio.BusyResourceError, match="a sound is being played"):
            await call.send_audio(call.codec.silence)
        await playout.finished()
        await call.send_audio(call.codec.silence)


async def test_a_call_that_ends_while_it_plays(autojump_clock: MockClock) -> None:
    async with call_to(HANGS_UP) as call:
        playout = call.play(SPEECH)
        with pytest.raises(CallEnded) as caught:
            await playout
        assert caught.value.q850_cause == 16
        assert playout.seconds_sent == pytest.approx(1, abs=0.1)
        assert playout.interrupted
        with pytest.raises(CallEnded):
            call.play(SPEECH)


async def test_before_the_answer_nothing_is_played_or_recorded(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with simulated() as (session, _), await session.originate(ECHO, trunk_id="main") as call:
        for attempt in (lambda: call.play(SPEECH), lambda: call.record(tmp_path / "x.wav"), call.mark):
            with pytest.raises(CallStateError):
                attempt()


async def test_files_that_cannot_be_played(tmp_path: Path, autojump_clock: MockClock) -> None:
    (tmp_path / "no.wav").write_bytes(b"nonsense")
    async with call_to(ECHO) as call:
        with pytest.raises(ValueError, match="WAV"):
            await call.play(tmp_path / "no.wav")
        with pytest.raises(FileNotFoundError):
            await call.play(tmp_path / "missing.wav")
        await call.play(pcmu(silence(0.1)))


# -- marks ----------------------------------------------------------------------------------------------------------


async def test_marks_are_passed_in_order_and_in_time(autojump_clock: MockClock) -> None:
    async with call_to(ECHO) as call:
        started = trio.current_time()
        assert call.mark("at once").passed
        await call.send_audio(pcmu(silence(0.2)))
        first = call.mark("first")
        await call.send_audio(pcmu(silence(0.2)))
        second = call.mark("second")
        assert (first.passed, second.passed) == (None, None)
        assert await first.wait()
        assert trio.current_time() - started == pytest.approx(0.2, abs=0.03)
        assert second.passed is None
        assert await second.wait()
        assert trio.current_time() - started == pytest.approx(0.4, abs=0.03)


async def test_marks_behind_dropped_audio_say_so(autojump_clock: MockClock) -> None:
    async with call_to(ECHO) as call:
        await call.send_audio(pcmu(silence(0.4)))
        dropped = call.mark("dropped")
        call.clear_send_audio_buffer()
        assert not await dropped.wait()
        await call.send_audio(pcmu(silence(0.4)))
        ended = call.mark("ended")
        await call.hangup()
        assert not await ended.wait()


# -- recording ------------------------------------------------------------------------------------------------------


def channels(path: Path) -> tuple[bytes, bytes]:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 8_000)
        samples = file.readframes(file.getnframes())
    levels = struct.unpack(f"<{len(samples) // 2}h", samples)
    half = len(levels) // 2
    return struct.pack(f"<{half}h", *levels[::2]), struct.pack(f"<{half}h", *levels[1::2])


async def test_both_sides_are_recorded_on_one_clock(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with call_to(ECHO) as call:
        async with call.record(tmp_path / "call.wav") as recording:
            for _ in range(5):
                await call.play(sine(1_000, seconds=0.5), rate=8_000)
                await trio.sleep(1.5)
        assert recording.packets_missing == 0
    caller, agent = channels(tmp_path / "call.wav")
    assert len(caller) / 16_000 == recording.seconds == pytest.approx(10, abs=0.1)
    said = [event.at for event in ToneDetector().feed(agent) if isinstance(event, ToneStarted)]
    heard = [event.at for event in ToneDetector().feed(caller) if isinstance(event, ToneStarted)]
    assert said == pytest.approx([0, 2, 4, 6, 8], abs=0.05)
    assert heard == pytest.approx(said, abs=0.05)


async def test_a_recording_survives_cancellation_and_ends_with_the_call(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with call_to(TONE) as call:
        with trio.move_on_after(2.5):
            async with call.record(tmp_path / "cancelled.wav"):
                await trio.sleep_forever()
        assert len(channels(tmp_path / "cancelled.wav")[0]) / 16_000 == pytest.approx(2.5, abs=0.05)
        async with call.record(tmp_path / "ended.wav") as recording:
            await trio.sleep(1)
            await call.hangup()
            await trio.sleep(60)
        assert recording.seconds == pytest.approx(1, abs=0.1)


async def test_what_is_in_the_file_after_a_crash(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with call_to(TONE) as call, call.record(tmp_path / "call.wav"):
        caller = b""
        while len(caller) / 16_000 < 2:  # virtual time does not wait for the thread that writes
            await trio.sleep(1)
            caller, _ = channels(tmp_path / "call.wav")  # as it is on the disk while the program runs


async def test_a_recorder_takes_nothing_from_the_agent(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with call_to(RECORDING) as call, call.record(tmp_path / "call.wav"):
        await trio.sleep(0.5)
        assert (await anext(call.audio())).sequence_number == 0


async def test_a_file_that_cannot_be_made(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with call_to(ECHO) as call:
        with pytest.raises(FileNotFoundError):
            async with call.record(tmp_path / "missing" / "call.wav"):
                pass


# -- detecting ------------------------------------------------------------------------------------------------------


async def test_keys_and_voices_in_one_stream_of_events(autojump_clock: MockClock) -> None:
    async with call_to(ECHO) as call:
        found: list[Detection] = []
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                async for event in call.detect(DtmfDetector(), VoiceActivityDetector()):
                    found.append(event)  # noqa: PERF401 - what came before the cancellation counts

            nursery.start_soon(listen)
            await call.play(silence(0.5) + keys("1#") + silence(1) + speech() + silence(1), rate=8_000)
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel()
        assert [event.digit for event in found if isinstance(event, Digit)] == ["1", "#"]
        spoken = [event.at for event in found if isinstance(event, SpeechEnded)]
        assert spoken[-1] == pytest.approx(1.9 + 5.1, abs=0.2)


async def test_detectors_of_different_rates_do_not_mix(autojump_clock: MockClock) -> None:
    async with call_to(ECHO) as call:
        with pytest.raises(ValueError, match="one sample rate"):
            call.detect(DtmfDetector(), ToneDetector(rate=16_000))
        with pytest.raises(ValueError, match="one sample rate"):
            call.detect()
