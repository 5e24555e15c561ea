"""Sound as 20 ms packets: a tone, a WAV file, and several packets mixed into one.

The one place in the gateway that looks inside a payload. Everything is turned into signed 16-bit samples at the wanted
codec's clock rate and back. Rates are converted without an anti-aliasing filter: good enough for a simulator's voice.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

from agentao_trio import wav
from agentao_trio.audio import PACKET_MS, Codec, audioop, from_pcm16, native_order, to_pcm16

__all__ = ["Packet", "mix", "read_wav", "tone"]

_TONE_HZ = 1_000
_TONE_AMPLITUDE = 8_000  # about -12 dB below the loudest


class Packet(NamedTuple):
    """A payload and the codec name it is labelled with."""

    payload: bytes
    codec: str


@cache
def tone(codec: Codec) -> bytes:
    """20 ms of a 1 kHz tone: whole cycles, so that packets join without a click."""
    samples = codec.clock_rate * PACKET_MS // 1000
    turn = 2 * math.pi * _TONE_HZ / codec.clock_rate
    levels = (round(_TONE_AMPLITUDE * math.sin(turn * n)) for n in range(samples))
    return from_pcm16(struct.pack(f"<{samples}h", *levels), codec)


def read_wav(data: bytes, codec: Codec) -> Iterator[bytes]:
    """The sound of a WAV file (PCM, any rate, 8 to 32 bits, mono or stereo) as packets of ``codec``.

    The last packet is filled with silence. Raises ValueError when the file cannot be read.
    """
    sound = wav.read_wav(data)
    return _cut(native_order(_at_rate(sound.samples, sound.rate, codec.clock_rate)), codec)


def _cut(pcm: bytes, codec: Codec) -> Iterator[bytes]:
    size = _pcm_bytes(codec)
    for start in range(0, len(pcm), size):
        yield from_pcm16(pcm[start : start + size].ljust(size, b"\0"), codec)


def mix(packets: Iterable[Packet], codec: Codec) -> Packet:
    """All packets heard at once, as one packet of ``codec``, 20 ms long. Labels that are not known are not heard."""
    size = _pcm_bytes(codec)
    total = bytes(size)
    for payload, label in packets:
        source = Codec.named(label)
        if source is not None:
            pcm = _at_rate(to_pcm16(payload, source), source.clock_rate, codec.clock_rate)
            total = audioop.add(total, pcm[:size].ljust(size, b"\0"), 2)
    return Packet(from_pcm16(native_order(total), codec), codec.value)


def _at_rate(pcm: bytes, rate: int, wanted: int) -> bytes:
    """Little-endian samples in, the machine's own order out."""
    samples = native_order(pcm)
    return samples if rate == wanted else audioop.ratecv(samples, 2, 1, rate, wanted, None)[0]


def _pcm_bytes(codec: Codec) -> int:
    return codec.clock_rate * PACKET_MS // 1000 * 2
