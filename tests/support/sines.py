"""Tones to convert, and what is left of them: level and pitch of 16-bit samples."""

from __future__ import annotations

import math
import struct


def sine(frequency: float, *, rate: int, seconds: float, amplitude: float = 10_000) -> bytes:
    """A tone as 16-bit little-endian samples."""
    step = 2 * math.pi * frequency / rate
    count = round(rate * seconds)
    return struct.pack(f"<{count}h", *(round(amplitude * math.sin(step * index)) for index in range(count)))


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
