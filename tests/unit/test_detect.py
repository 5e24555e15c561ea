"""What the detectors hear in made-up sounds and in real speech, and what they should not hear."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from agentao_trio.audio import Codec, from_pcm16, to_pcm16
from agentao_trio.detect import (
    Answered,
    Answerer,
    AnsweringMachineDetector,
    Beep,
    Detection,
    DtmfDetector,
    SpeechEnded,
    SpeechStarted,
    ToneDetector,
    ToneEnded,
    ToneStarted,
    VoiceActivityDetector,
)
from tests.support.sounds import KEYS, keys, mixed, noise, silence, sine, speech

# -- keys -----------------------------------------------------------------------------------------------------------


def digits(pcm: bytes, rate: int = 8_000) -> str:
    return "".join(event.digit for event in DtmfDetector(rate=rate).feed(pcm))


@pytest.mark.parametrize("codec", [Codec.PCMU, Codec.PCMA])
def test_every_key_through_g711(codec: Codec) -> None:
    assert digits(to_pcm16(from_pcm16(keys(KEYS), codec), codec)) == KEYS


@pytest.mark.parametrize("offset", range(0, 51, 7))
def test_the_shortest_keys_wherever_they_fall(offset: int) -> None:
    assert digits(bytes(2 * offset) + keys("15#0DA1111", on=0.04, off=0.04)) == "15#0DA1111"


@pytest.mark.parametrize("seconds", [0.005, 0.01, 0.02])
def test_what_is_too_short_is_no_key(seconds: float) -> None:
    assert digits(keys("159D", on=seconds)) == ""


@pytest.mark.parametrize("detuned", [0.985, 1.015])
def test_a_keypad_that_is_out_of_tune(detuned: float) -> None:
    assert digits(keys(KEYS, detuned=detuned)) == KEYS


@pytest.mark.parametrize("detuned", [0.965, 1.035])
def test_another_pair_of_tones_is_no_key(detuned: float) -> None:
    assert digits(keys(KEYS, detuned=detuned)) == ""


def test_a_key_that_is_held_is_told_once_and_at_once() -> None:
    (event,) = DtmfDetector().feed(silence(0.5) + sine(770, 1336, seconds=0.06))
    assert (event.digit, event.at) == ("5", pytest.approx(0.5, abs=0.007))
    assert digits(keys("5", on=3.0)) == "5"


def test_a_short_dropout_does_not_press_twice() -> None:
    assert digits(sine(770, 1336, seconds=0.05) + silence(0.01) + sine(770, 1336, seconds=0.05)) == "5"


def test_keys_on_a_noisy_line() -> None:
    pressed = keys("0123456789", on=0.06, off=0.06)
    assert digits(mixed(pressed, noise(1.3, deviation=1_500))) == "0123456789"


def test_keys_of_unequal_strength() -> None:
    row, column = sine(770, seconds=0.1, amplitude=8_000), sine(1336, seconds=0.1, amplitude=3_200)
    assert digits(mixed(row, column)) == "5"
    assert digits(sine(770, seconds=0.1)) == ""


def test_wideband_keys() -> None:
    assert digits(sine(941, 1477, seconds=0.1, rate=16_000), rate=16_000) == "#"


@pytest.mark.parametrize("sound", [speech(), noise(2, deviation=3_000), silence(1), sine(1_000, seconds=1)])
def test_what_is_no_key(sound: bytes) -> None:
    assert digits(sound) == ""


# -- tones ----------------------------------------------------------------------------------------------------------


def test_tones_with_their_times() -> None:
    sounds = silence(0.5) + sine(1_000, seconds=0.3) + silence(0.5) + sine(440, seconds=0.5) + silence(0.1)
    first, first_end, second, second_end = ToneDetector().feed(sounds)
    assert first == ToneStarted(hz=1_000, at=0.5)
    assert isinstance(first_end, ToneEnded)
    assert (first_end.at, first_end.seconds) == (pytest.approx(0.8), pytest.approx(0.3))
    assert isinstance(second, ToneStarted)
    assert (second.hz, second.at) == (440, pytest.approx(1.3))
    assert isinstance(second_end, ToneEnded)


def test_a_tone_may_lie_anywhere_in_the_band() -> None:
    for hz in range(405, 2_200, 95):
        (event,) = ToneDetector().feed(sine(hz, seconds=0.2))
        assert isinstance(event, ToneStarted)
        assert event.hz == pytest.approx(hz, abs=20)


def test_a_tone_that_is_not_listened_for() -> None:
    assert ToneDetector(frequencies=[425]).feed(sine(1_000, seconds=1)) == []
    assert len(ToneDetector(frequencies=[425]).feed(sine(425, seconds=1))) == 1


def test_a_tone_that_changes_is_two() -> None:
    kinds = [type(event) for event in ToneDetector().feed(sine(500, seconds=0.3) + sine(900, seconds=0.3))]
    assert kinds == [ToneStarted, ToneEnded, ToneStarted]


@pytest.mark.parametrize("sound", [speech(), noise(2, deviation=3_000), silence(1), keys("159", on=0.3)])
def test_what_is_no_tone(sound: bytes) -> None:
    assert ToneDetector().feed(sound) == []


@pytest.mark.parametrize("frequencies", [[], [0], [4_000], [float("nan")]])
def test_tones_nobody_can_hear(frequencies: list[float]) -> None:
    with pytest.raises(ValueError, match="tones can be heard"):
        ToneDetector(frequencies=frequencies)


@pytest.mark.parametrize("rate", [0, 7_999, 48_001])
def test_rates_that_are_none(rate: int) -> None:
    with pytest.raises(ValueError, match="samples per second"):
        DtmfDetector(rate=rate)


# -- voices ---------------------------------------------------------------------------------------------------------


def spans(events: Sequence[Detection]) -> list[tuple[float, float]]:
    return [(event.at - event.seconds, event.at) for event in events if isinstance(event, SpeechEnded)]


def test_speech_between_silences() -> None:
    (span,) = spans(VoiceActivityDetector().feed(silence(1) + speech() + silence(1)))
    assert span == (pytest.approx(1.25, abs=0.1), pytest.approx(6.1, abs=0.15))


def test_speech_over_noise() -> None:
    sounds = mixed(silence(3) + speech() + silence(1), noise(9.3, deviation=200))
    detected = [span for span in spans(VoiceActivityDetector().feed(sounds)) if span[0] > 0.6]
    assert detected == [(pytest.approx(3.25, abs=0.15), pytest.approx(8.1, abs=0.3))]


def test_the_beginning_is_told_while_it_lasts_and_pauses_end_it() -> None:
    detector = VoiceActivityDetector(release=0.2)
    told = [(type(event), event.at) for event in detector.feed(silence(1) + speech()[: 2 * 8_000])]
    assert told == [(SpeechStarted, pytest.approx(1.25, abs=0.1))]
    assert detector.speaking
    assert [type(event) for event in detector.feed(silence(1))] == [SpeechEnded]
    assert not detector.speaking


def test_steady_noise_becomes_the_background() -> None:
    detector = VoiceActivityDetector()
    assert all(end < 1 for _, end in spans(detector.feed(noise(10, deviation=300))))
    assert detector.noise_floor == pytest.approx(-41, abs=2)


def test_the_noise_may_change() -> None:
    detector = VoiceActivityDetector()
    detector.feed(noise(5, deviation=1_000))
    detector.feed(silence(3) + noise(4, deviation=50))
    assert detector.noise_floor == pytest.approx(-57, abs=2)
    assert detector.feed(speech())


def test_clicks_and_silence_are_not_speech() -> None:
    assert VoiceActivityDetector().feed(silence(2) + sine(500, seconds=0.01, amplitude=20_000) + silence(2)) == []


# -- who picked up --------------------------------------------------------------------------------------------------


def test_a_person_says_hello_and_waits() -> None:
    hello = silence(0.6) + speech()[: 2 * 8_000] + silence(2)
    (verdict,) = AnsweringMachineDetector().feed(hello)
    assert isinstance(verdict, Answered)
    assert verdict.by is Answerer.HUMAN
    assert verdict.greeting_seconds == pytest.approx(0.75, abs=0.1)
    assert verdict.at == pytest.approx(1.6 + 0.8, abs=0.1)


def test_a_machine_holds_a_speech_and_beeps() -> None:
    verdict, beep = AnsweringMachineDetector().feed(speech() + sine(1_000, seconds=0.4) + silence(1))
    assert isinstance(verdict, Answered)
    assert verdict.by is Answerer.MACHINE
    assert verdict.at == pytest.approx(2.05, abs=0.1)
    assert isinstance(beep, Beep)
    assert (beep.hz, beep.at) == (1_000, pytest.approx(5.7, abs=0.03))


def test_nobody_says_anything() -> None:
    assert AnsweringMachineDetector(patience=3.0).feed(silence(10)) == [
        Answered(by=Answerer.UNKNOWN, at=3.0, greeting_seconds=0.0)
    ]


def test_a_beep_out_of_silence_is_a_machine() -> None:
    verdict, _ = AnsweringMachineDetector().feed(silence(1) + sine(1_400, seconds=0.3) + silence(1))
    assert isinstance(verdict, Answered)
    assert verdict.by is Answerer.MACHINE


def test_a_short_greeting_passes_for_a_person_until_it_beeps() -> None:
    short = speech()[: 2 * 8_000] + silence(1) + sine(1_000, seconds=0.3) + silence(0.5)
    verdict, beep = AnsweringMachineDetector().feed(short)
    assert isinstance(verdict, Answered)
    assert verdict.by is Answerer.HUMAN
    assert isinstance(beep, Beep)
