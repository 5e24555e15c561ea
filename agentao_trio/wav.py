"""WAV files: reading the usual kinds, and writing one that stays readable whatever happens to the program.

No I/O is decided here: :func:`read_wav` takes the file's bytes, and :class:`WavFile` is for a thread.
"""

from __future__ import annotations

import io
import struct
import wave
from os import PathLike

import attrs

from agentao_trio.audio import audioop, native_order

__all__ = ["Sound", "WavFile", "read_wav"]


@attrs.frozen(kw_only=True)
class Sound:
    """16-bit little-endian mono ``samples``, ``rate`` of them per second."""

    rate: int
    samples: bytes = attrs.field(repr=False)

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / 2 / self.rate


def read_wav(data: bytes) -> Sound:
    """The sound of a WAV file: PCM at any rate, of 8 to 32 bits, mono, or stereo, which is mixed down.

    Raises ValueError for everything else.
    """
    try:
        with wave.open(io.BytesIO(data)) as file:
            channels, width, rate, frames, *_ = file.getparams()
            samples = file.readframes(frames)
    except (wave.Error, EOFError) as error:
        raise ValueError(f"not a PCM WAV file: {str(error) or 'it is too short'}") from error
    if channels not in (1, 2) or width not in (1, 2, 3, 4) or rate < 1:
        raise ValueError(f"a WAV file with {channels} channels of {8 * width} bits at {rate} Hz cannot be played")
    samples = native_order(samples[: len(samples) - len(samples) % (channels * width)], width)
    if width == 1:  # unsigned in WAV files, signed everywhere else
        samples = audioop.bias(samples, 1, -128)
    samples = audioop.lin2lin(samples, width, 2)
    if channels == 2:
        samples = audioop.tomono(samples, 2, 0.5, 0.5)
    return Sound(rate=rate, samples=native_order(samples))


_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
#: A WAV file counts its bytes in 32 bits. What is longer (18 hours of two wideband channels) is written on all the
#: same; its header then says as much as it can, and players take the rest or leave it.
_MOST = 0xFFFF_FFFF - _HEADER.size


class WavFile:
    """A WAV file of 16-bit samples that is being written. All of it blocks, so it belongs in a thread.

    After each :meth:`append` the header is true again, so that whatever ends the program leaves a readable file, at
    most what the operating system had not written yet shorter. Raises OSError from all methods.
    """

    def __init__(self, path: str | PathLike[str], *, rate: int, channels: int) -> None:
        #: Samples per second; may be set as long as there are none.
        self.rate = rate
        self._channels = channels
        self._bytes = 0
        # Unbuffered: what a full disk did not take would be tried again when the file is closed.
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by close()
        try:
            self.append(b"")
        except OSError:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<WavFile {self._file.name}, {self.rate} Hz, {self._channels} channels, {self.seconds:.1f} s>"

    @property
    def seconds(self) -> float:
        """How long it is by now."""
        return self._bytes / 2 / self._channels / self.rate

    def append(self, samples: bytes) -> None:
        """Add whole little-endian samples, the channels of each moment side by side."""
        self._file.seek(_HEADER.size + self._bytes)
        self._write(samples)  # first the audio, then the header that tells of it
        self._bytes += len(samples)
        self._file.seek(0)
        self._write(self._header())

    def close(self) -> None:
        """Harmless when repeated."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:  # a disk that is almost full takes a part of it
            left = left[self._file.write(left) :]

    def _header(self) -> bytes:
        size, frame = min(self._bytes, _MOST), 2 * self._channels
        return _HEADER.pack(
            *(b"RIFF", _HEADER.size - 8 + size, b"WAVE", b"fmt ", 16, 1, self._channels, self.rate),
            *(self.rate * frame, frame, 16, b"data", size),
        )
