"""WAV files as the command line reads and writes them: what is played into a call, and what comes back.

What is played becomes 8 kHz, 16 bit, mono, which is what G.711 carries. Recordings are 16 bit mono at the clock of the
call's codec, so that every player plays them.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from agentao_trio import wav
from agentao_trio.audio import PACKET_MS, AudioFrame, Codec, to_pcm16
from agentao_trio.cli.naming import named
from agentao_trio.convert import HIGHEST_RATE, LONGEST_GAP, LOWEST_RATE, Resampler

__all__ = ["SPEECH", "WavError", "WavRecorder", "read_wav"]

#: A recording of human speech that comes with the package: 5.3 s. Its origin is told beside it.
SPEECH = Path(__file__).parents[1] / "assets" / "speech.wav"

RATE = Codec.PCMU.clock_rate


class WavError(Exception):
    """A WAV file that cannot be used; the message names the file, what is wrong, and what would be right."""


def read_wav(path: Path) -> bytes:
    """A WAV file as 16-bit little-endian mono samples at 8 kHz.

    Raises :class:`WavError`, also where another sample rate cannot be converted without the extra ``audio``.
    """
    try:
        sound = wav.read_wav(path.read_bytes())
        if not sound.samples:
            raise WavError(f"{path} contains no audio")
        resampler = Resampler(sound.rate, RATE)
        return resampler.feed(sound.samples) + resampler.flush()
    except OSError as error:
        raise WavError(f"cannot read {path}: {error.strerror or error}") from None
    except ModuleNotFoundError as error:
        raise WavError(f"{path}: {error}") from None
    except ValueError as error:
        raise WavError(
            f"{path}: {error}; expected a PCM WAV file of 8 to 32 bits, mono or stereo, {LOWEST_RATE} to "
            f"{HIGHEST_RATE} Hz"
        ) from None


class WavRecorder:
    """Writes the frames of one call to a WAV file. Lost packets become silence, so that the timing stays right.

    The file is made at once, so that a path that cannot be written is known before a call is placed. Raises
    :class:`WavError` for such a path.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.packets: int = 0
        #: Names of codecs that came and cannot be written, as the gateway labels them.
        self.unknown_codecs: set[str] = set()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = wav.WavFile(path, rate=RATE, channels=1)
        except OSError as error:
            raise WavError(f"cannot write {path}: {error.strerror or error}") from None

    def __enter__(self) -> WavRecorder:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with named(self.path):
            self._file.close()

    def write(self, frame: AudioFrame) -> None:
        """Add a packet, with silence for those that were lost before it. A codec that is not known is only noted."""
        codec = Codec.named(frame.codec)
        if codec is not None and not self.packets:
            self._file.rate = codec.clock_rate  # the first codec settles it
        if codec is None or codec.clock_rate != self._file.rate:
            self.unknown_codecs.add(frame.codec)
            return
        lost = min(frame.lost_before, LONGEST_GAP) * codec.clock_rate * PACKET_MS // 1000
        with named(self.path):
            self._file.append(bytes(2 * lost) + to_pcm16(frame.payload, codec))
        self.packets += 1
