"""Sounds for tests, as 16-bit little-endian samples (sines, silence, noise, keys, speech), and measures of them."""

from __future__ import annotations

import importlib.resources
import io
import math
import random
import struct
import wave

RATE = 8_000
ROWS, COLUMNS, KEYS = (697, 770, 852, 941), (1209, 1336, 1477, 1633), "123A456B789C*0#D"


def sine(*frequencies: float, seconds: float, amplitude: float = 6_000, rate: int = RATE) -> bytes:
    """One sine wave or several at once, ``amplitude`` each."""
    turns = [2 * math.pi * hz / rate for hz in frequencies]
    levels = (sum(amplitude * math.sin(turn * n) for turn in turns) for n in range(round(seconds * rate)))
    return b"".join(struct.pack("<h", max(-32_768, min(32_767, round(level)))) for level in levels)


def silence(seconds: float, rate: int = RATE) -> bytes:
    return bytes(2 * round(seconds * rate))


def noise(seconds: float, *, deviation: float, seed: int = 1) -> bytes:
    """White noise."""
    dice = random.Random(seed)
    return b"".join(struct.pack("<h", round(dice.gauss(0, deviation))) for _ in range(round(seconds * RATE)))


def mixed(one: bytes, other: bytes) -> bytes:
    """Both at once, as long as the shorter one."""
    samples = min(len(one), len(other)) // 2
    pairs = zip(struct.unpack_from(f"<{samples}h", one), struct.unpack_from(f"<{samples}h", other), strict=True)
    return struct.pack(f"<{samples}h", *(max(-32_768, min(32_767, a + b)) for a, b in pairs))


def keys(digits: str, *, on: float = 0.1, off: float = 0.1, detuned: float = 1.0) -> bytes:
    """The tones of a telephone's keys, each followed by silence."""
    return b"".join(
        sine(
            *(hz * detuned for hz in (ROWS[KEYS.index(digit) // 4], COLUMNS[KEYS.index(digit) % 4])),
            seconds=on,
        )
        + silence(off)
        for digit in digits
    )


def speech() -> bytes:
    """5.3 s of a person reading."""
    data = (importlib.resources.files("agentao_trio") / "assets" / "speech.wav").read_bytes()
    with wave.open(io.BytesIO(data)) as file:
        samples: bytes = file.readframes(file.getnframes())
    return samples


# -- what is left of them -------------------------------------------------------------------------------------------


def samples(pcm: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(pcm) // 2}h", pcm)


def level(pcm: bytes) -> float:
    """Root mean square."""
    values = samples(pcm)
    return math.sqrt(sum(value * value for value in values) / len(values))


def pitch(pcm: bytes, rate: int) -> float:
    """The frequency of a pure tone: rising zero crossings, the first and the last placed between samples."""
    values = samples(pcm)
    rising = [
        index - values[index] / (values[index] - values[index - 1])
        for index in range(1, len(values))
        if values[index - 1] < 0 <= values[index]
    ]
    return (len(rising) - 1) * rate / (rising[-1] - rising[0])
