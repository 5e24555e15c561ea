"""Voice activity as the scripted model hears it: by loudness alone, in windows of 20 ms.

Meant to be predictable rather than clever: a test can say to the millisecond when a turn begins and ends. For calls
there is :class:`agentao_trio.detect.VoiceActivityDetector`, which follows the noise on the line.
"""

from __future__ import annotations

import attrs

from agentao_trio.audio import audioop, native_order

__all__ = ["EnergyVad", "SpeechBegan", "SpeechOver"]

#: Milliseconds looked at in one go.
WINDOW_MS = 20
#: Milliseconds of loud windows in a row from which somebody speaks.
ONSET_MS = 60
#: The root mean square from which a window is loud: about 40 dB below full scale.
LOUD = 328


@attrs.frozen
class SpeechBegan:
    """Somebody speaks, since ``at_ms``."""

    at_ms: int


@attrs.frozen
class SpeechOver:
    """Nobody has spoken since ``at_ms``."""

    at_ms: int


class EnergyVad:
    """Says when speech begins and ends in 16-bit little-endian audio. Milliseconds count from the first sample fed.

    Speech begins with ``ONSET_MS`` of loud windows in a row and ends with ``silence_ms`` of quiet ones; both are told
    with the moment at which they began.
    """

    def __init__(self, *, rate: int, silence_ms: int = 200) -> None:
        self._bytes = rate * WINDOW_MS // 1000 * 2
        self._silence = max(1, silence_ms // WINDOW_MS)
        self._rest = b""
        self._windows = 0
        self._run = 0
        #: Whether somebody is speaking, as far as has been told.
        self.speaking: bool = False

    def feed(self, pcm: bytes) -> list[SpeechBegan | SpeechOver]:
        """What is new with this audio, in order."""
        found: list[SpeechBegan | SpeechOver] = []
        data = self._rest + pcm
        whole = len(data) - len(data) % self._bytes
        self._rest = data[whole:]
        for start in range(0, whole, self._bytes):
            window = data[start : start + self._bytes]
            loud = audioop.rms(native_order(window), 2) >= LOUD
            self._windows += 1
            self._run = self._run + 1 if loud is not self.speaking else 0
            if self._run < (self._silence if self.speaking else ONSET_MS // WINDOW_MS):
                continue
            at_ms = (self._windows - self._run) * WINDOW_MS
            self.speaking, self._run = loud, 0
            found.append(SpeechBegan(at_ms) if loud else SpeechOver(at_ms))
        return found
