"""Laws of converting audio: chunk borders never show, and no sample is gained or lost."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentao_trio.audio import AudioFrame, Codec
from agentao_trio.convert import AudioFormat, FrameConverter, Resampler, SpeechConverter
from tests.support.sounds import level

RATES = st.one_of(st.sampled_from([8000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000]), st.integers(8000, 48_000))


def noise(seed: int, count: int) -> bytes:
    return random.Random(seed).randbytes(2 * count)


def chunks(data: bytes, borders: list[float]) -> list[bytes]:
    """``data`` cut at those shares of its length, at odd bytes too."""
    cuts = sorted({0, len(data), *(int(border * len(data)) for border in borders)})
    return [data[start:end] for start, end in pairwise(cuts)]


@given(RATES, RATES, st.integers(), st.integers(0, 3000), st.lists(st.floats(0, 1, exclude_max=True), max_size=40))
def test_any_chunking_gives_the_samples_of_one_chunk(
    from_rate: int, to_rate: int, seed: int, count: int, borders: list[float]
) -> None:
    audio = noise(seed, count)
    whole, parts = Resampler(from_rate, to_rate), Resampler(from_rate, to_rate)
    expected = whole.feed(audio) + whole.flush()
    assert b"".join([*map(parts.feed, chunks(audio, borders)), parts.flush()]) == expected


@given(RATES, RATES, st.lists(st.integers(0, 2000), max_size=10))
def test_the_number_of_samples_is_that_of_the_time(from_rate: int, to_rate: int, sizes: list[int]) -> None:
    resampler = Resampler(from_rate, to_rate)
    taken = given_ = 0
    for size in sizes:
        taken += size
        given_ += len(resampler.feed(bytes(2 * size))) // 2
        assert -2 <= taken * to_rate / from_rate - given_ <= 0.1 * to_rate
    given_ += len(resampler.flush()) // 2
    assert given_ == pytest.approx(taken * to_rate / from_rate, abs=2)


@given(
    st.lists(
        st.tuples(st.sampled_from(Codec), st.binary(max_size=700), st.integers(0, 5)),
        max_size=12,
    ),
    st.sampled_from(Codec),
    st.sampled_from([None, 8000, 16_000, 24_000]),
    st.booleans(),
)
@settings(max_examples=60)
def test_frames_of_any_codecs_in_any_order_keep_their_time(
    incoming: list[tuple[Codec, bytes, int]], codec: Codec, rate: int | None, fill_gaps: bool
) -> None:
    wanted = AudioFormat.asked_for(codec, rate if codec is Codec.PCM16 else None)
    assert wanted is not None
    converter = FrameConverter(wanted, fill_gaps=fill_gaps)
    seconds, heard, lost, switches = 0.0, [], 0, 1
    for number, (source, payload, lost_before) in enumerate(incoming):
        width = 2 if source is Codec.PCM16 else 1
        seconds += len(payload) // width / source.clock_rate + fill_gaps * lost_before * 0.020
        frame = AudioFrame(payload=payload, codec=source.value, sequence_number=number, lost_before=lost_before)
        switches += bool(number) and incoming[number - 1][0] is not source
        lost += lost_before
        if (result := converter.convert(frame)) is not None:
            heard.append(result)
    if (rest := converter.finish()) is not None:
        heard.append(rest)
    width = 2 if codec is Codec.PCM16 else 1
    samples = sum(len(frame.payload) / width for frame in heard)
    assert samples == pytest.approx(seconds * wanted.rate, abs=3 * switches)
    assert sum(frame.lost_before for frame in heard) <= lost
    assert converter.finish() is None


@given(st.integers(), st.lists(st.floats(0, 1, exclude_max=True), max_size=20), st.sampled_from(Codec), RATES)
def test_what_an_agent_says_does_not_depend_on_its_chunks(
    seed: int, borders: list[float], codec: Codec, rate: int
) -> None:
    audio = noise(seed, 1000)
    whole, parts = SpeechConverter(codec), SpeechConverter(codec)
    expected = whole.feed(audio, rate) + whole.flush()
    assert b"".join([*(parts.feed(chunk, rate) for chunk in chunks(audio, borders)), parts.flush()]) == expected


@given(RATES, RATES, st.integers(1, 20_000))
@settings(max_examples=40)
def test_a_level_stays_that_level(from_rate: int, to_rate: int, amplitude: int) -> None:
    resampler = Resampler(from_rate, to_rate)
    steady = amplitude.to_bytes(2, "little", signed=True) * (from_rate // 2)
    heard = resampler.feed(steady) + resampler.flush()
    assert level(heard[len(heard) // 4 & ~1 : len(heard) * 3 // 4 & ~1]) == pytest.approx(amplitude, abs=1, rel=0.001)
