"""Converting audio, example by example; the laws are in tests/property/test_convert.py."""

from __future__ import annotations

import subprocess
import sys

import pytest

from agentao_trio.audio import AudioFrame, Codec, from_pcm16, to_pcm16
from agentao_trio.convert import LONGEST_GAP, AudioFormat, FrameConverter, Resampler, SpeechConverter
from agentao_trio.errors import RemoteProtocolError
from tests.support.sounds import level, pitch, sine

HOUR = 3600


def frames(pcm: bytes, codec: Codec = Codec.PCMU, *, first: int = 0) -> list[AudioFrame]:
    """Samples at the codec's clock, as the frames in which a gateway would send them."""
    audio = from_pcm16(pcm, codec)
    size = codec.packet_bytes
    return [
        AudioFrame(
            payload=audio[start : start + size],
            codec=codec.value.lower(),
            sequence_number=first + start // size,
            lost_before=0,
        )
        for start in range(0, len(audio), size)
    ]


def converted(converter: FrameConverter, incoming: list[AudioFrame]) -> list[AudioFrame]:
    return [each for each in [*map(converter.convert, incoming), converter.finish()] if each is not None]


def wanting(codec: Codec | None = None, rate: int | None = None, *, fill_gaps: bool = False) -> FrameConverter:
    return FrameConverter(AudioFormat.asked_for(codec, rate), fill_gaps=fill_gaps)


# -- rates ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [11_025, 16_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("frequency", [300.0, 1000.0, 3000.0])
def test_a_sine_stays_a_sine_there_and_back(rate: int, frequency: float) -> None:
    there, back = Resampler(8000, rate), Resampler(rate, 8000)
    said = sine(frequency, rate=8000, seconds=2)
    above = there.feed(said) + there.flush()
    heard = back.feed(above) + back.flush()
    assert len(heard) == len(said)
    for audio, audio_rate in ((above, rate), (heard, 8000)):
        middle = audio[len(audio) // 4 & ~1 : len(audio) * 3 // 4 & ~1]
        assert pitch(middle, audio_rate) == pytest.approx(frequency, abs=0.5)
        assert level(middle) == pytest.approx(level(said), rel=0.001)


@pytest.mark.parametrize(("rate", "frequency"), [(16_000, 5000.0), (24_000, 7000.0), (48_000, 4600.0)])
def test_what_the_lower_rate_cannot_carry_is_gone_and_not_folded_back(rate: int, frequency: float) -> None:
    down = Resampler(rate, 8000)
    heard = down.feed(sine(frequency, rate=rate, seconds=1)) + down.flush()
    assert level(heard[2000:-2000]) < 2  # of 32767; an alias would be as loud as the tone


@pytest.mark.parametrize(("from_rate", "to_rate"), [(8000, 24_000), (16_000, 8000)])
def test_an_hour_of_packets_does_not_drift(from_rate: int, to_rate: int) -> None:
    resampler = Resampler(from_rate, to_rate)
    ten_seconds = bytes(2 * from_rate * 10)
    given = sum(len(resampler.feed(ten_seconds)) for _ in range(HOUR // 10)) // 2
    assert 0 <= HOUR * to_rate - given <= 0.030 * to_rate  # what the filter holds
    assert given + len(resampler.flush()) // 2 == HOUR * to_rate


@pytest.mark.parametrize(("from_rate", "to_rate"), [(8000, 16_000), (8000, 24_000), (24_000, 8000), (48_000, 8000)])
def test_audio_comes_out_steadily_and_at_most_30_ms_late(from_rate: int, to_rate: int) -> None:
    resampler = Resampler(from_rate, to_rate)
    packet, expected = bytes(2 * from_rate // 50), 2 * to_rate // 50
    sizes = [len(resampler.feed(packet)) for _ in range(100)]
    assert sizes[2:] == [expected] * 98
    assert 2 * expected - sum(sizes[:2]) <= 2 * 0.030 * to_rate


def test_equal_rates_pass_unchanged() -> None:
    resampler = Resampler(16_000, 16_000)
    assert resampler.feed(b"abcde") + resampler.feed(b"f") + resampler.flush() == b"abcdef"


def test_after_a_flush_it_begins_afresh() -> None:
    resampler = Resampler(8000, 16_000)
    said = sine(440, rate=8000, seconds=0.1)
    assert resampler.feed(said) + resampler.flush() == resampler.feed(said) + resampler.flush()


def test_half_a_sample_at_the_end_is_dropped() -> None:
    resampler = Resampler(8000, 16_000)
    assert len(resampler.feed(bytes(201)) + resampler.flush()) == 400


def test_full_scale_does_not_wrap_around() -> None:
    resampler = Resampler(8000, 16_000)
    loudest = b"\xff\x7f" * 400 + b"\x00\x80" * 400  # a step that every filter overshoots
    heard = resampler.feed(loudest) + resampler.flush()
    samples = [int.from_bytes(heard[i : i + 2], "little", signed=True) for i in range(0, len(heard), 2)]
    assert min(samples[20:780]) > 25_000
    assert max(samples[820:-20]) < -25_000


@pytest.mark.parametrize("rate", [0, -8000, 7999, 48_001, 1 << 40])
def test_rates_nobody_uses_are_refused(rate: int) -> None:
    with pytest.raises(ValueError, match="expected 8000 to 48000"):
        Resampler(8000, rate)
    with pytest.raises(ValueError, match="expected 8000 to 48000"):
        AudioFormat.asked_for(Codec.PCM16, rate)


def test_the_missing_extra_is_named_and_only_where_it_is_needed() -> None:
    program = """
import sys
sys.modules["soxr"] = sys.modules["numpy"] = None
import agentao_trio
from agentao_trio.convert import Resampler, SpeechConverter
SpeechConverter(agentao_trio.Codec.PCMU).feed(bytes(320), 8000)
try:
    Resampler(8000, 24000)
except ModuleNotFoundError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert said == (
        "converting audio from 8000 to 24000 Hz needs the extra 'audio': pip install 'agentao-trio[audio]'\n"
    )


def test_soxr_is_loaded_once_and_not_before_it_is_asked_for() -> None:
    program = """
import sys
import agentao_trio
from agentao_trio import convert
print("soxr" in sys.modules)
first = convert.load()
print("soxr" in sys.modules, convert.load() is first)
"""
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert said.split() == ["False", "True", "True"]


# -- what a reader asks for -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "rate", "expected"),
    [
        (None, None, None),
        (Codec.PCMA, None, AudioFormat(codec=Codec.PCMA, rate=8000)),
        (Codec.PCMU, 8000, AudioFormat(codec=Codec.PCMU, rate=8000)),
        (Codec.PCM16, None, AudioFormat(codec=Codec.PCM16, rate=16_000)),
        (Codec.PCM16, 24_000, AudioFormat(codec=Codec.PCM16, rate=24_000)),
        (None, 24_000, AudioFormat(codec=Codec.PCM16, rate=24_000)),
    ],
)
def test_codec_and_rate_together(codec: Codec | None, rate: int | None, expected: AudioFormat | None) -> None:
    assert AudioFormat.asked_for(codec, rate) == expected


def test_g711_has_one_rate() -> None:
    with pytest.raises(ValueError, match="PCMU has 8000 samples per second, not 16000"):
        AudioFormat.asked_for(Codec.PCMU, 16_000)


@pytest.mark.parametrize("codec", Codec)
def test_what_is_wanted_already_passes_byte_for_byte(codec: Codec) -> None:
    every_byte = bytes(range(256)) * 5  # the negative zero of µ-law among them, which a conversion would lose
    frame = AudioFrame(payload=every_byte, codec=codec.value, sequence_number=7, lost_before=2)
    assert wanting(codec).convert(frame) == frame


def test_g711_and_samples_are_the_same_audio() -> None:
    pcm = to_pcm16(from_pcm16(sine(500, rate=8000, seconds=0.1), Codec.PCMA), Codec.PCMA)
    [*heard] = converted(wanting(Codec.PCM16, 8000), frames(pcm, Codec.PCMA))
    assert b"".join(frame.payload for frame in heard) == pcm
    assert {frame.codec for frame in heard} == {"PCM16"}
    assert [frame.sequence_number for frame in heard] == list(range(5))


def test_frames_at_another_rate_keep_their_numbers_and_the_filters_rest_gets_the_next() -> None:
    heard = converted(wanting(rate=24_000), frames(sine(500, rate=8000, seconds=1), first=10))
    # 30 ms wait in the filter: the first frame gives nothing yet, the second half of what it should.
    assert [frame.sequence_number for frame in heard] == [*range(11, 60), 60]
    assert [len(frame.payload) for frame in heard] == [480, *[960] * 48, 1440]
    assert sum(len(frame.payload) for frame in heard) == 2 * 24_000
    assert pitch(b"".join(frame.payload for frame in heard), 24_000) == pytest.approx(500, abs=1)


def test_the_end_of_the_stream_brings_the_rest_with_it() -> None:
    [only] = converted(
        wanting(rate=16_000),
        [AudioFrame(payload=bytes(160), codec="PCMU", sequence_number=0, lost_before=0, end_of_stream=True)],
    )
    assert (len(only.payload), only.end_of_stream) == (640, True)


def test_a_far_end_may_change_its_codec() -> None:
    converter = wanting(Codec.PCM16, 16_000)
    incoming = [
        *frames(sine(500, rate=8000, seconds=0.5), Codec.PCMU),
        *frames(sine(500, rate=8000, seconds=0.5), Codec.PCMA, first=25),
        *frames(sine(500, rate=16_000, seconds=0.5), Codec.PCM16, first=50),
        *frames(sine(500, rate=8000, seconds=0.5), Codec.PCMU, first=75),
    ]
    heard = b"".join(frame.payload for frame in converted(converter, incoming))
    assert len(heard) == 2 * 16_000 * 2  # two seconds, nothing lost where it changed
    assert pitch(heard, 16_000) == pytest.approx(500, abs=1)


def test_what_the_filter_holds_comes_before_a_frame_that_needs_none() -> None:
    converter = wanting(Codec.PCM16, 16_000)
    for frame in frames(bytes(3200), Codec.PCMU):
        converter.convert(frame)
    unchanged = AudioFrame(payload=b"\x01\x00" * 320, codec="PCM16", sequence_number=10, lost_before=0)
    heard = converter.convert(unchanged)
    assert heard is not None
    assert heard.payload == bytes(960) + unchanged.payload
    assert converter.finish() is None


def test_a_frame_that_says_nothing_yet_passes_its_gap_on() -> None:
    converter = wanting(rate=16_000)
    quiet = AudioFrame(payload=bytes(8), codec="PCMU", sequence_number=4, lost_before=3)
    assert converter.convert(quiet) is None
    spoken = converter.convert(AudioFrame(payload=bytes(800), codec="PCMU", sequence_number=6, lost_before=1))
    assert spoken is not None
    assert spoken.lost_before == 4


def test_gaps_are_filled_on_request() -> None:
    lossy = AudioFrame(payload=b"\x11" * 160, codec="PCMU", sequence_number=9, lost_before=2)
    [as_it_is] = converted(wanting(fill_gaps=True), [lossy])
    assert as_it_is.payload == b"\xff" * 320 + b"\x11" * 160
    assert (as_it_is.codec, as_it_is.lost_before) == ("PCMU", 2)  # the fact stays told
    assert sum(len(frame.payload) for frame in converted(wanting(rate=16_000, fill_gaps=True), [lossy])) == 3 * 640


def test_a_gateways_numbers_do_not_fill_the_memory() -> None:
    absurd = AudioFrame(payload=bytes(160), codec="PCMU", sequence_number=9, lost_before=2999)
    [filled] = converted(wanting(fill_gaps=True), [absurd])
    assert len(filled.payload) == (LONGEST_GAP + 1) * 160


def test_a_codec_that_cannot_be_read_is_told_and_the_next_frame_is_heard() -> None:
    converter = wanting(Codec.PCM16, 8000)
    with pytest.raises(RemoteProtocolError, match="'OPUS' cannot be converted; known are PCMU, PCMA, PCM16") as caught:
        converter.convert(AudioFrame(payload=b"?", codec="OPUS", sequence_number=0, lost_before=0))
    assert caught.value.reason == "unknown_codec"
    assert converter.convert(AudioFrame(payload=b"\xff", codec="PCMU", sequence_number=1, lost_before=0)) is not None


# -- what the agent says --------------------------------------------------------------------------------------------


def test_speech_at_a_models_rate_becomes_the_calls_codec() -> None:
    speech = SpeechConverter(Codec.PCMA)
    said = speech.feed(sine(500, rate=24_000, seconds=1), 24_000) + speech.flush()
    assert len(said) == 8000
    assert pitch(to_pcm16(said, Codec.PCMA), 8000) == pytest.approx(500, abs=1)


def test_speech_without_a_rate_passes_byte_for_byte_and_after_what_came_before() -> None:
    speech = SpeechConverter(Codec.PCMU)
    beginning = speech.feed(bytes(960), 24_000)
    said = beginning + speech.feed(b"\x7f\xff", None)
    assert (len(said), said[-2:]) == (160 + 2, b"\x7f\xff")


def test_another_rate_ends_what_came_before() -> None:
    speech = SpeechConverter(Codec.PCM16)
    said = speech.feed(bytes(960), 24_000) + speech.feed(bytes(320), 8000) + speech.feed(bytes(640), 16_000)
    assert len(said + speech.flush()) == 3 * 640


def test_speech_that_was_cleared_is_not_said_later() -> None:
    speech = SpeechConverter(Codec.PCM16)
    speech.feed(sine(500, rate=24_000, seconds=0.1), 24_000)
    speech.clear()
    assert speech.flush() == b""
    assert set(speech.feed(bytes(9600), 24_000)) == {0}


def test_a_rate_that_is_refused_leaves_what_came_before() -> None:
    speech = SpeechConverter(Codec.PCMU)
    beginning = speech.feed(bytes(960), 24_000)
    with pytest.raises(ValueError, match="expected 8000 to 48000"):
        speech.feed(bytes(2), 96_000)
    assert len(beginning + speech.flush()) == 160
