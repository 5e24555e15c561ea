"""Detectors: how the audio was chunked never shows, no bytes make them raise, and they do not grow."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentao_trio.detect import (
    AnsweringMachineDetector,
    Detection,
    Detector,
    DtmfDetector,
    ToneDetector,
    VoiceActivityDetector,
)
from tests.support.sounds import keys, silence, sine, speech

DETECTORS: list[Callable[[], Detector[Detection]]] = [
    DtmfDetector,
    ToneDetector,
    VoiceActivityDetector,
    AnsweringMachineDetector,
]
SOUNDS = silence(0.2) + keys("1#", on=0.05, off=0.05) + speech()[:24_000] + sine(1_000, seconds=0.3) + silence(1)


@pytest.mark.parametrize("detector", DETECTORS)
@given(cuts=st.lists(st.integers(0, len(SOUNDS)), max_size=20))
@settings(max_examples=15, deadline=None)
def test_any_chunking_gives_the_same_events(detector: Callable[[], Detector[Detection]], cuts: list[int]) -> None:
    whole = list(detector().feed(SOUNDS))
    pieces, chunked = detector(), list[Detection]()
    bounds = [0, *sorted(cuts), len(SOUNDS)]
    for start, end in itertools.pairwise(bounds):
        chunked.extend(pieces.feed(SOUNDS[start:end]))
    assert chunked == whole
    assert whole


@pytest.mark.parametrize("detector", DETECTORS)
@given(chunks=st.lists(st.binary(max_size=2_000), max_size=10))
@settings(max_examples=40, deadline=None)
def test_any_bytes_are_audio(detector: Callable[[], Detector[Detection]], chunks: list[bytes]) -> None:
    machine = detector()
    for chunk in chunks:
        for event in machine.feed(chunk):
            assert 0 <= event.at <= sum(map(len, chunks)) / 16_000


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_byte_at_a_time(detector: Callable[[], Detector[Detection]]) -> None:
    sounds = SOUNDS[3_000:12_000]
    drip = detector()
    assert [event for byte in sounds for event in drip.feed(bytes([byte]))] == list(detector().feed(sounds))


@pytest.mark.parametrize("detector", DETECTORS)
def test_memory_is_bounded(detector: Callable[[], Detector[Detection]]) -> None:
    machine = detector()
    sizes = []
    for _ in range(6):
        machine.feed(SOUNDS)
        sizes.append(len(pickle.dumps(vars(machine))))
    assert max(sizes) < 12_000
    assert sizes[-1] <= sizes[1] + 200
