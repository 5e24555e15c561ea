"""What is in a call's audio besides words: keys, tones, whether somebody speaks, and who picked up.

Theory of operation
-------------------
Each detector is fed 16-bit little-endian mono samples in chunks of any size and returns the events that they complete.
It cuts the samples into windows of its own, so that the chunking never shows in its events. Times are seconds of audio
since the first sample fed, counted in samples: they do not depend on when anything arrived, and a gap has to be fed as
silence for them to stay true. They are as fine as the windows are far apart, 6 to 20 ms.

How strong a frequency is in a window is its correlation with a cosine and a sine of that frequency. That is one bin of
a Fourier transform, as Goertzel's recurrence computes it; ``audioop.findfactor`` does it in C for any frequency. Set
against the power of the whole window it tells how *pure* the sound is, which is what tells a tone from a voice. On one
core, a second of audio takes about 3 ms for keys, 8 ms for tones of any frequency, and well under 1 ms for voices.

Nothing here raises for any samples, and what a detector remembers does not grow. None of it understands speech, and all
of it can be wrong: the limits are told with each class.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Sequence
from enum import Enum
from functools import cache
from typing import Protocol, TypeVar

import attrs

from agentao_trio.audio import Codec, audioop, native_order

__all__ = [
    "Answered",
    "Answerer",
    "AnsweringMachineDetector",
    "Beep",
    "Detection",
    "Detector",
    "Digit",
    "DtmfDetector",
    "SpeechEnded",
    "SpeechStarted",
    "ToneDetector",
    "ToneEnded",
    "ToneStarted",
    "VoiceActivityDetector",
]

#: Samples per second unless told otherwise: those of G.711.
_RATE = Codec.PCMU.clock_rate


# -- events ---------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Digit:
    """A key was pressed: ``0`` to ``9``, ``*``, ``#``, ``A`` to ``D``. Told while it is still held, once per press."""

    digit: str
    at: float


@attrs.frozen(kw_only=True)
class ToneStarted:
    """A steady tone of ``hz`` began at ``at``; told once it has lasted long enough to be one."""

    hz: float
    at: float


@attrs.frozen(kw_only=True)
class ToneEnded:
    """The tone ended at ``at``, after ``seconds``."""

    hz: float
    at: float
    seconds: float


@attrs.frozen(kw_only=True)
class SpeechStarted:
    """Somebody began to speak at ``at``."""

    at: float


@attrs.frozen(kw_only=True)
class SpeechEnded:
    """Nobody has spoken since ``at``; it had been going on for ``seconds``."""

    at: float
    seconds: float


class Answerer(Enum):
    """Who picked up."""

    HUMAN = "human"
    MACHINE = "machine"
    #: Nobody has said anything.
    UNKNOWN = "unknown"


@attrs.frozen(kw_only=True)
class Answered:
    """The verdict on who picked up, reached at ``at``, and for how long they had been talking by then."""

    by: Answerer
    at: float
    greeting_seconds: float
    #: 0 to 1: how clear the case was. A rule of thumb, not a measured probability.
    confidence: float = 0.0


@attrs.frozen(kw_only=True)
class Beep:
    """The machine's signal to speak ended at ``at``."""

    hz: float
    at: float


Detection = Digit | ToneStarted | ToneEnded | SpeechStarted | SpeechEnded | Answered | Beep


Found = TypeVar("Found", covariant=True)


class Detector(Protocol[Found]):
    """What all detectors have in common; ``Found`` is the type of their events."""

    @property
    def rate(self) -> int:
        """Samples per second."""

    def feed(self, pcm: bytes) -> Sequence[Found]:
        """Add 16-bit little-endian mono samples, any number of bytes; returns what they complete, in order."""


# -- windows and frequencies ----------------------------------------------------------------------------------------


class _Windows:
    """Cuts chunks of any size into windows of ``size`` samples that begin ``hop`` samples apart (at most ``size``)."""

    __slots__ = ("_hop", "_next", "_rate", "_rest", "_size", "seconds")

    def __init__(self, rate: int, *, size: float, hop: float) -> None:
        if not 8_000 <= rate <= 48_000:
            raise ValueError(f"a detector takes 8000 to 48000 samples per second, not {rate}")
        self._rate = rate
        self._size = round(size * rate) * 2
        self._hop = round(hop * rate) * 2
        self._rest = b""
        self._next = 0  # the number of the first sample in the rest
        #: How long a window is.
        self.seconds = self._size / 2 / rate

    def feed(self, pcm: bytes | bytearray | memoryview) -> list[tuple[float, bytes]]:
        """The windows that are complete now, each with the time at which it begins, in the machine's byte order."""
        samples = b"".join((self._rest, pcm))
        starts = range(0, len(samples) - self._size + 1, self._hop)
        windows = [
            ((self._next + start // 2) / self._rate, native_order(samples[start : start + self._size]))
            for start in starts
        ]
        used = len(starts) * self._hop
        self._rest = samples[used:]
        self._next += used // 2
        return windows


_REFERENCE = 32_767


@cache
def _references(hz: float, rate: int, samples: int) -> tuple[bytes, bytes]:
    """A cosine and a sine of full scale."""
    turn = 2 * math.pi * hz / rate
    cosine = (round(_REFERENCE * math.cos(turn * n)) for n in range(samples))
    sine = (round(_REFERENCE * math.sin(turn * n)) for n in range(samples))
    return struct.pack(f"={samples}h", *cosine), struct.pack(f"={samples}h", *sine)


def _power_at(window: bytes, hz: float, rate: int) -> float:
    """The mean square of that part of the window that is a sine wave of this frequency."""
    cosine, sine = _references(hz, rate, len(window) // 2)
    in_phase, in_quadrature = audioop.findfactor(window, cosine), audioop.findfactor(window, sine)
    return (in_phase * in_phase + in_quadrature * in_quadrature) * (_REFERENCE * _REFERENCE / 2)


# -- keys -----------------------------------------------------------------------------------------------------------

_ROWS = (697.0, 770.0, 852.0, 941.0)
_COLUMNS = (1209.0, 1336.0, 1477.0, 1633.0)
_KEYS = ("123A", "456B", "789C", "*0#D")

# ITU-T Q.24 wants keys of 40 ms and more, with pauses of 40 ms and more, and none of 20 ms. Four windows of 12.75 ms,
# 6.4 ms apart, are covered by a tone of 32 ms; three miss it while it pauses for 20 ms or more. Longer windows would
# tell the frequencies apart better and miss those that are 1.5 % off, which Q.24 wants taken.
_DTMF_WINDOW, _DTMF_HOP = 0.012_75, 0.006_375
_DTMF_CONFIRM, _DTMF_RELEASE = 4, 3
_DTMF_MIN_RMS = 90  # about -48 dB below the loudest sine wave
_DTMF_PURITY = 0.7
# A frequency must stand out from the others of its group by 6 dB. The columns may be 6 dB louder than the rows and 10
# dB fainter: Q.24 asks for 4 and 8.
_DTMF_STANDS_OUT, _DTMF_MAX_TWIST, _DTMF_MIN_TWIST = 4.0, 4.0, 0.1


class DtmfDetector:
    """The keys of a telephone, sent as pairs of tones in the audio (ITU-T Q.23 and Q.24).

    A key has to last 40 ms, with 40 ms to the next. Frequencies may be 1.5 % off. Limits: a key that is heard together
    with speech or loud noise (above a quarter of its power) is missed; very rarely a voice sounds like a key. Gateways
    may send keys as RFC 4733 events or INFO instead and take the tones out of the audio; those keys are not heard here.
    """

    def __init__(self, *, rate: int = _RATE) -> None:
        self.rate = rate
        self._windows = _Windows(rate, size=_DTMF_WINDOW, hop=_DTMF_HOP)
        self._candidate = ""
        self._since = 0.0
        self._run = 0
        self._pressed = ""
        self._misses = 0

    def __repr__(self) -> str:
        return f"<DtmfDetector at {self.rate} Hz, {f'key {self._pressed} down' if self._pressed else 'no key down'}>"

    def feed(self, pcm: bytes) -> list[Digit]:
        """See :class:`Detector`; returns :class:`Digit` events."""
        found: list[Digit] = []
        for at, window in self._windows.feed(pcm):
            key = self._key_in(window)
            if key != self._candidate:
                self._candidate, self._since, self._run = key, at, 0
            self._run += 1
            self._misses = 0 if key == self._pressed else self._misses + 1
            if self._misses >= _DTMF_RELEASE:
                self._pressed = ""
            if key and key != self._pressed and self._run == _DTMF_CONFIRM:
                self._pressed, self._misses = key, 0
                found.append(Digit(digit=key, at=self._since))
        return found

    def _key_in(self, window: bytes) -> str:
        rms = audioop.rms(window, 2)
        if rms < _DTMF_MIN_RMS:
            return ""
        rows = [_power_at(window, hz, self.rate) for hz in _ROWS]
        columns = [_power_at(window, hz, self.rate) for hz in _COLUMNS]
        row, column = max(rows), max(columns)
        if (
            row + column < _DTMF_PURITY * rms * rms
            or not _DTMF_MIN_TWIST * row <= column <= _DTMF_MAX_TWIST * row
            or sum(power * _DTMF_STANDS_OUT > row for power in rows) > 1
            or sum(power * _DTMF_STANDS_OUT > column for power in columns) > 1
        ):
            return ""
        return _KEYS[rows.index(row)][columns.index(column)]


# -- single tones ---------------------------------------------------------------------------------------------------

#: Where the beeps of answering machines lie, in Hz, close enough together that none falls in between.
_BEEPS = tuple(float(hz) for hz in range(400, 2_201, 20))
_TONE_WINDOW = 0.02
_TONE_MIN_RMS = 90
_TONE_PURITY = 0.75
#: Windows without the tone after which it has ended, and how far its frequency may wander, in Hz.
_TONE_RELEASE, _TONE_WANDER = 2, 40.0


class ToneDetector:
    """Steady tones of a single frequency: the beep of an answering machine, a signal tone, the tone of a test.

    ``frequencies`` are those listened for, in Hz (each is heard 20 Hz around); by default all from 400 to 2200. A tone
    has to last ``minimum`` seconds. Limits: it has to make up three quarters of what is heard. Call progress tones of
    two frequencies are not single tones. A whistle or a flute is one.
    """

    def __init__(self, *, rate: int = _RATE, frequencies: Sequence[float] = _BEEPS, minimum: float = 0.1) -> None:
        if not frequencies or not all(0 < hz < rate / 2 for hz in frequencies):
            raise ValueError(f"tones can be heard between 0 and {rate / 2:g} Hz; asked for {frequencies}")
        self.rate = rate
        self._frequencies = tuple(frequencies)
        self._minimum = minimum
        self._windows = _Windows(rate, size=_TONE_WINDOW, hop=_TONE_WINDOW)
        self._hz = 0.0
        self._since = 0.0
        self._until = 0.0
        self._misses = 0
        self._told = False

    def __repr__(self) -> str:
        return f"<ToneDetector at {self.rate} Hz, {f'{self._hz:g} Hz heard' if self._told else 'nothing heard'}>"

    def feed(self, pcm: bytes) -> list[ToneStarted | ToneEnded]:
        """See :class:`Detector`; returns :class:`ToneStarted` and :class:`ToneEnded` events."""
        found: list[ToneStarted | ToneEnded] = []
        for at, window in self._windows.feed(pcm):
            hz = self._tone_in(window)
            if self._hz and (not hz or abs(hz - self._hz) > _TONE_WANDER):
                self._misses += 1
                if self._misses < _TONE_RELEASE:
                    continue
                if self._told:
                    found.append(ToneEnded(hz=self._hz, at=self._until, seconds=self._until - self._since))
                self._hz, self._told = 0.0, False
            if hz:
                if not self._hz:
                    self._hz, self._since = hz, at
                self._misses = 0
                self._until = at + self._windows.seconds
                if not self._told and self._until - self._since >= self._minimum - 1e-9:
                    self._told = True
                    found.append(ToneStarted(hz=self._hz, at=self._since))
        return found

    def _tone_in(self, window: bytes) -> float:
        rms = audioop.rms(window, 2)
        if rms < _TONE_MIN_RMS:
            return 0.0
        power, hz = max((_power_at(window, hz, self.rate), hz) for hz in self._frequencies)
        return hz if power >= _TONE_PURITY * rms * rms else 0.0


# -- voices ---------------------------------------------------------------------------------------------------------

_VAD_WINDOW, _VAD_HOP = 0.02, 0.01
# Levels in dB below full scale. Speech has to stand out from the noise to begin, and by less to go on.
_VAD_LOWEST_FLOOR, _VAD_BEGINS_ABOVE, _VAD_GOES_ON_ABOVE = -62.0, 12.0, 6.0
_VAD_ATTACK = 5
# The noise is the faintest that was heard of late: the minimum of eight spans of a quarter of a second. Speech pauses
# more often than that. A call begins with the assumption of a quiet line, which is dropped after half a second.
_VAD_SPAN, _VAD_SPANS, _VAD_ASSUMED_SPANS = 25, 8, 2


class VoiceActivityDetector:
    """When somebody speaks, judged by loudness alone.

    Speech begins when 50 ms in a row are 12 dB above the noise, which is measured all the time, and ends when
    ``release`` seconds are not even 6 dB above it. Limits: anything loud that changes counts as speech, such as music,
    a cough or a door. Anything that stays equally loud for two seconds becomes noise, a tone too. At the very start of
    a call on a noisy line, up to half a second of noise may pass for speech.
    """

    def __init__(self, *, rate: int = _RATE, release: float = 0.4) -> None:
        self.rate = rate
        self._release = release
        self._windows = _Windows(rate, size=_VAD_WINDOW, hop=_VAD_HOP)
        self._faintest = deque([_VAD_LOWEST_FLOOR] * _VAD_ASSUMED_SPANS, maxlen=_VAD_SPANS)
        self._assumed = _VAD_ASSUMED_SPANS
        self._span_faintest = 0.0
        self._in_span = 0
        self._loud = 0
        self._since = 0.0
        #: Whether somebody is speaking, as far as has been told.
        self.speaking: bool = False
        #: When the most recent speech was last heard.
        self.spoken_until: float = 0.0

    def __repr__(self) -> str:
        return f"<VoiceActivityDetector at {self.rate} Hz, {'speech' if self.speaking else 'no speech'}>"

    @property
    def noise_floor(self) -> float:
        """The level of the background noise, in dB relative to full scale."""
        return max(_VAD_LOWEST_FLOOR, min(self._span_faintest, *self._faintest))

    def feed(self, pcm: bytes) -> list[SpeechStarted | SpeechEnded]:
        """See :class:`Detector`; returns :class:`SpeechStarted` and :class:`SpeechEnded` events in turn."""
        found: list[SpeechStarted | SpeechEnded] = []
        for at, window in self._windows.feed(pcm):
            level = 20 * math.log10(max(1, audioop.rms(window, 2)) / 32_768)
            self._measure_noise(level)
            above = level - self.noise_floor
            if not self.speaking:
                self._loud = self._loud + 1 if above >= _VAD_BEGINS_ABOVE else 0
                if self._loud == 1:
                    self._since = at
                if self._loud >= _VAD_ATTACK:
                    self.speaking, self._loud = True, 0
                    found.append(SpeechStarted(at=self._since))
            if self.speaking:
                if above >= _VAD_GOES_ON_ABOVE:
                    self.spoken_until = at + self._windows.seconds
                elif at + self._windows.seconds - self.spoken_until >= self._release:
                    self.speaking = False
                    found.append(SpeechEnded(at=self.spoken_until, seconds=self.spoken_until - self._since))
        return found

    def _measure_noise(self, level: float) -> None:
        self._span_faintest = min(self._span_faintest, level)
        self._in_span += 1
        if self._in_span == _VAD_SPAN:
            self._faintest.append(self._span_faintest)
            self._span_faintest, self._in_span = 0.0, 0
            if self._assumed:
                self._assumed -= 1
                if not self._assumed:
                    for _ in range(_VAD_ASSUMED_SPANS):
                        self._faintest.popleft()


# -- who picked up --------------------------------------------------------------------------------------------------

_FRAME = 0.02
_BEEP_MINIMUM = 0.15


class AnsweringMachineDetector:
    """Whether a person or a machine picked up, and when the machine has beeped. To be fed from the answer on.

    People answer with a word or two and wait; machines hold a speech. So a greeting of ``longest_greeting`` seconds or
    more, or a beep, means a machine; a shorter one, followed by ``pause`` seconds of silence, means a person. If nobody
    has said anything for ``patience`` seconds the verdict is unknown. There is one :class:`Answered`; after it,
    whatever it was, a :class:`Beep` tells when a machine is ready to record. A beep after the verdict HUMAN means that
    the verdict was wrong.

    Limits: it goes by the length of what is said and not by the words. A company's receptionist who recites her
    greeting is a machine to it, a machine with two words of greeting a person until it beeps. Music and noise count as
    talking. How often it is right depends on who is called; measure that before you act on it. Time is counted in
    audio: a far end that sends no packets at all gets no verdict.
    """

    def __init__(
        self, *, rate: int = _RATE, longest_greeting: float = 1.8, pause: float = 0.8, patience: float = 4.0
    ) -> None:
        self.rate = rate
        self._longest_greeting = longest_greeting
        self._patience = patience
        self._frames = _Windows(rate, size=_FRAME, hop=_FRAME)
        self._voice = VoiceActivityDetector(rate=rate, release=pause)
        self._tone = ToneDetector(rate=rate, minimum=_BEEP_MINIMUM)
        self._spoken_since: float | None = None
        self._decided = False

    def __repr__(self) -> str:
        return f"<AnsweringMachineDetector at {self.rate} Hz, {'decided' if self._decided else 'undecided'}>"

    def feed(self, pcm: bytes) -> list[Answered | Beep]:
        """See :class:`Detector`; returns at most one :class:`Answered`, and :class:`Beep` events."""
        found: list[Answered | Beep] = []
        # Frame by frame, so that the verdict falls at the same sample however the audio came.
        for at, frame in self._frames.feed(pcm):
            samples = native_order(frame)
            voices, tones = self._voice.feed(samples), self._tone.feed(samples)
            if not self._decided and (by := self._judge(voices, tones, at + _FRAME)) is not None:
                self._decided = True
                found.append(
                    Answered(
                        by=by,
                        at=at + _FRAME,
                        greeting_seconds=self._greeting_seconds,
                        confidence=self._confidence(by, tones),
                    )
                )
            found.extend(Beep(hz=tone.hz, at=tone.at) for tone in tones if isinstance(tone, ToneEnded))
        return found

    @property
    def _greeting_seconds(self) -> float:
        return 0.0 if self._spoken_since is None else self._voice.spoken_until - self._spoken_since

    def _confidence(self, by: Answerer, tones: Sequence[Detection]) -> float:
        """The shorter a greeting, the surer a person; a beep is surer than a long greeting."""
        if by is Answerer.HUMAN:
            return 1.0 - 0.5 * self._greeting_seconds / self._longest_greeting
        if by is Answerer.MACHINE:
            return 0.9 if tones else 0.7
        return 0.0

    def _judge(self, voices: Sequence[Detection], tones: Sequence[Detection], now: float) -> Answerer | None:
        ended = False
        for event in voices:
            if isinstance(event, SpeechStarted) and self._spoken_since is None:
                self._spoken_since = event.at
            ended = ended or isinstance(event, SpeechEnded)
        if tones or self._greeting_seconds >= self._longest_greeting:
            return Answerer.MACHINE
        if ended:
            return Answerer.HUMAN
        if self._spoken_since is None and now >= self._patience:
            return Answerer.UNKNOWN
        return None
