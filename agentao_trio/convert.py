"""Audio in another codec or at another sample rate than the call's own.

Theory of operation
-------------------
G.711 and 16-bit samples at 8 kHz are the same audio and need no filter. Another rate does: a :class:`Resampler` runs
the samples of one direction, for one reader, through one soxr stream, so that chunk borders never show: any chunking
of the same samples gives the same samples. Nothing drifts: for every ``from_rate`` samples there are ``to_rate``, less
what the filter still holds, which :meth:`Resampler.flush` gives (and the last one or two of a stream, by rounding).

soxr comes with the extra ``audio``, and is only needed where a rate really has to change. Its streams are run in
*variable-rate* mode with a constant rate. The ordinary mode works in blocks and gives audio in bursts, up to 115 ms
late between 8 and 16 kHz; the other gives a steady stream 10 to 30 ms late, and is as clean (aliases below -80 dB).
Samples pass it as floats and are rounded here: for integers soxr adds random dither, and no two runs would be alike.

Loading soxr, and numpy with it, takes a tenth of a second. A program that only imports this package does not wait for
it, and no call may stand still for so long: it is loaded (:func:`load`) when a session opens, before its first call.
"""

from __future__ import annotations

import functools
from typing import Any

import attrs

from agentao_trio.audio import AudioFrame, Codec, from_pcm16, to_pcm16
from agentao_trio.errors import RemoteProtocolError

__all__ = [
    "HIGHEST_RATE",
    "LONGEST_GAP",
    "LOWEST_RATE",
    "AudioFormat",
    "FrameConverter",
    "Resampler",
    "SpeechConverter",
    "load",
]

#: Samples per second that can be converted from and to.
LOWEST_RATE, HIGHEST_RATE = 8_000, 48_000
#: Packets of silence that one gap may be filled with: 10 s. A gateway's numbers are no reason to fill memory or disk.
LONGEST_GAP = 500


@functools.cache
def load() -> tuple[Any, Any]:
    """numpy and soxr. Slow the first time, and nothing afterwards. Raises ImportError where one is missing."""
    import numpy
    import soxr  # type: ignore[import-untyped]

    return numpy, soxr


class Resampler:
    """16-bit little-endian mono samples at ``from_rate`` as the same at ``to_rate``, both in samples per second.

    Between equal rates everything passes unchanged. Raises :class:`ValueError` for a rate outside 8000 to 48000 and
    :class:`ModuleNotFoundError`, naming the extra, where soxr is needed and missing.
    """

    __slots__ = ("_half", "_stream", "from_rate", "to_rate")

    def __init__(self, from_rate: int, to_rate: int) -> None:
        _check_rate(from_rate)
        _check_rate(to_rate)
        self.from_rate: int = from_rate
        self.to_rate: int = to_rate
        self._half = b""  # the first byte of a sample whose second has not come yet
        self._stream: Any = None if from_rate == to_rate else _open_stream(from_rate, to_rate)

    def __repr__(self) -> str:
        return f"<Resampler from {self.from_rate} to {self.to_rate} Hz>"

    def feed(self, pcm: bytes | bytearray | memoryview) -> bytes:
        """Add samples and return those that can be told by now: at first fewer, later as many as time has passed.

        A chunk may end in the middle of a sample.
        """
        samples = b"".join((self._half, pcm))
        whole = len(samples) & ~1
        self._half = samples[whole:]
        return self._run(samples[:whole], last=False) if self._stream is not None else samples[:whole]

    def flush(self) -> bytes:
        """The end of the audio: what the filter still holds. The next :meth:`feed` begins afresh."""
        self._half = b""
        if self._stream is None:
            return b""
        rest = self._run(b"", last=True)
        self._stream.clear()
        return rest

    def _run(self, samples: bytes, *, last: bool) -> bytes:
        numpy, _ = load()
        floats = numpy.frombuffer(samples, dtype="<i2").astype(numpy.float32)
        result = numpy.rint(self._stream.resample_chunk(floats, last=last))
        # A filter may overshoot: a full-scale sample can come out higher than 16 bits hold.
        converted: bytes = result.clip(-32768, 32767).astype("<i2").tobytes()
        return converted


def _check_rate(rate: int) -> None:
    """Raise :class:`ValueError` unless ``rate`` can be converted from and to."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ValueError(f"a sample rate of {rate} Hz cannot be converted; expected {LOWEST_RATE} to {HIGHEST_RATE}")


def _open_stream(from_rate: int, to_rate: int) -> Any:
    try:
        _, soxr = load()
    except ImportError as error:
        raise ModuleNotFoundError(
            f"converting audio from {from_rate} to {to_rate} Hz needs the extra 'audio': "
            "pip install 'agentao-trio[audio]'",
            name="soxr",
        ) from error
    return soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32", quality="HQ", vr=True)


@attrs.frozen(kw_only=True)
class AudioFormat:
    """What audio is to be converted to: a codec and a sample rate. G.711 has one rate, PCM16 any."""

    codec: Codec
    rate: int

    @classmethod
    def asked_for(cls, codec: Codec | None, rate: int | None) -> AudioFormat | None:
        """What the two arguments of a method ask for: nothing, a codec at its own rate, or samples at ``rate``.

        Raises :class:`ValueError` for a rate that cannot be had.
        """
        if codec is None and rate is None:
            return None
        codec = codec or Codec.PCM16
        rate = codec.clock_rate if rate is None else rate
        _check_rate(rate)
        if codec is not Codec.PCM16 and rate != codec.clock_rate:
            raise ValueError(
                f"{codec.value} has {codec.clock_rate} samples per second, not {rate}; PCM16 takes any rate"
            )
        return cls(codec=codec, rate=rate)


class FrameConverter:
    """The frames of one call as one reader wants them: in the ``wanted`` format, with gaps filled or not.

    Without a ``wanted`` format, or where a frame has it already, the audio stays what it is, byte for byte. The far end
    may change its codec in the middle of a call.
    """

    def __init__(self, wanted: AudioFormat | None, *, fill_gaps: bool) -> None:
        self._wanted = wanted
        self._fill_gaps = fill_gaps
        self._resampler: Resampler | None = None
        self._lost_before = 0
        self._next_number = 0

    def __repr__(self) -> str:
        return (
            f"<FrameConverter to {self._wanted or 'the same format'}, gaps {'filled' if self._fill_gaps else 'left'}>"
        )

    def convert(self, frame: AudioFrame) -> AudioFrame | None:
        """The converted frame; None where all of it is still in the filter.

        Raises :class:`RemoteProtocolError` (reason ``unknown_codec``) for audio that cannot be read, and
        :class:`ModuleNotFoundError` where soxr is needed and missing.
        """
        codec = Codec.named(frame.codec)
        if codec is None:
            raise RemoteProtocolError(
                f"audio in the codec {frame.codec!r} cannot be converted; known are {', '.join(Codec)}",
                reason="unknown_codec",
            )
        wanted = self._wanted
        is_wanted = wanted is None or (wanted.codec is codec and wanted.rate == codec.clock_rate)
        is_named_so = wanted is None or frame.codec == wanted.codec.value
        if (
            is_wanted
            and is_named_so
            and frame.payload
            and not (self._fill_gaps or self._resampler or self._lost_before)
        ):
            return frame  # as nearly always
        payload = frame.payload
        if self._fill_gaps:
            payload = codec.silence * min(frame.lost_before, LONGEST_GAP) + payload
        if wanted is not None and not is_wanted:
            payload = self._through(payload, codec, wanted, last=frame.end_of_stream)
        else:
            payload = self._rest() + payload
        lost_before, self._lost_before = self._lost_before + frame.lost_before, 0
        self._next_number = frame.sequence_number + 1
        if not payload:
            self._lost_before = lost_before
            return None
        name = frame.codec if wanted is None else wanted.codec.value
        return frame._replace(payload=payload, codec=name, lost_before=lost_before)

    def finish(self) -> AudioFrame | None:
        """No more frames will come: what the filter still holds, as a frame with the next number, or None."""
        payload = self._rest()
        if not payload or self._wanted is None:
            return None
        return AudioFrame(
            payload=payload,
            codec=self._wanted.codec.value,
            sequence_number=self._next_number,
            lost_before=self._lost_before,
        )

    def _through(self, payload: bytes, codec: Codec, wanted: AudioFormat, *, last: bool) -> bytes:
        before = b""
        if self._resampler is None or self._resampler.from_rate != codec.clock_rate:
            before = self._rest()
            self._resampler = Resampler(codec.clock_rate, wanted.rate)
        samples = self._resampler.feed(to_pcm16(payload, codec))
        if last:
            samples += self._resampler.flush()
        return before + from_pcm16(samples, wanted.codec)

    def _rest(self) -> bytes:
        if self._resampler is None or self._wanted is None:
            return b""
        rest = from_pcm16(self._resampler.flush(), self._wanted.codec)
        self._resampler = None
        return rest


class SpeechConverter:
    """What an agent says, 16-bit samples at any rate, as audio in the call's ``codec``."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._resampler: Resampler | None = None

    def __repr__(self) -> str:
        return f"<SpeechConverter to {self._codec.name}>"

    def feed(self, data: bytes | bytearray | memoryview, rate: int | None) -> bytes:
        """``data`` in the call's codec, as far as it can be told by now.

        With a ``rate`` the data are 16-bit samples, without one they are in the call's codec already. Another rate than
        before ends what came before. Raises :class:`ValueError` and :class:`ModuleNotFoundError` as
        :class:`Resampler` does.
        """
        resampler = self._resampler
        if rate is None:
            return self.flush() + bytes(data)
        if resampler is not None and resampler.from_rate == rate:
            return from_pcm16(resampler.feed(data), self._codec)
        resampler = Resampler(rate, self._codec.clock_rate)
        before = self.flush()
        self._resampler = resampler
        return before + from_pcm16(resampler.feed(data), self._codec)

    def flush(self) -> bytes:
        """The end of an utterance: what the filter still holds."""
        resampler, self._resampler = self._resampler, None
        return b"" if resampler is None else from_pcm16(resampler.flush(), self._codec)

    def clear(self) -> None:
        """Forget what the filter still holds."""
        self._resampler = None
