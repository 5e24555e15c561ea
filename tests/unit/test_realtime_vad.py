"""The scripted model's ear: when speech begins and ends, to the window."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentao_trio.realtime.vad import EnergyVad, SpeechBegan, SpeechOver

RATE = 8000
WINDOW = RATE // 50


def loud(windows: int) -> bytes:
    return (b"\x00\x20\x00\xe0" * WINDOW)[: 2 * WINDOW] * windows


def quiet(windows: int) -> bytes:
    return b"\x01\x00" * WINDOW * windows


def test_speech_begins_after_the_onset_and_ends_after_the_silence() -> None:
    vad = EnergyVad(rate=RATE)
    assert vad.feed(quiet(5) + loud(2)) == []
    assert vad.feed(loud(1)) == [SpeechBegan(100)]
    assert vad.feed(loud(7) + quiet(9)) == []
    assert vad.speaking
    assert vad.feed(quiet(1)) == [SpeechOver(300)]


@pytest.mark.parametrize("sound", [quiet(3) + loud(2) + quiet(3) + loud(2), quiet(50)])
def test_clicks_and_silence_are_no_speech(sound: bytes) -> None:
    assert EnergyVad(rate=RATE).feed(sound) == []


def test_a_pause_for_breath_does_not_end_speech() -> None:
    assert EnergyVad(rate=RATE).feed(loud(10) + quiet(9) + loud(1) + quiet(9)) == [SpeechBegan(0)]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30)), max_size=8), st.lists(st.integers(1, 999)))
def test_how_audio_is_cut_makes_no_difference(parts: list[tuple[bool, int]], cuts: list[int]) -> None:
    sound = b"".join(loud(windows) if noisy else quiet(windows) for noisy, windows in parts)
    whole = EnergyVad(rate=RATE).feed(sound)
    pieces = EnergyVad(rate=RATE)
    found = []
    for cut in cuts:
        found += pieces.feed(sound[:cut])
        sound = sound[cut:]
    assert found + pieces.feed(sound) == whole
    kinds = [type(each) for each in whole]
    assert kinds == [SpeechOver if number % 2 else SpeechBegan for number in range(len(kinds))]
