"""Both directions of a call on one sample clock.

Theory of operation
-------------------
A packet of the agent's belongs to a slot of the packet clock, an exact multiple of 20 ms. A packet from the far end has
a number and a time of arrival: the number says where it is among its neighbours, the time when it was heard at the
latest. Packets are held up and never early, so of all the delays seen within a second the shortest is the true one, and
a second is how long a packet waits to be placed. What was held up less than that goes where it belongs; where nothing
belongs there is silence.

A far end whose own clock runs a little slower or faster than ours would drift. Being late by 60 ms becomes 60 ms of
silence; being early by 40 ms costs a packet, a quiet one if there is any within a second of audio.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from agentao_trio.audio import PACKET_MS, AudioFrame, Codec, audioop, native_order, to_pcm16
from agentao_trio.convert import Resampler

__all__ = ["Track", "Tracks"]

#: Seconds a packet may have been held up on its way and is still placed where it belongs.
_PATIENCE = 1.0
#: Seconds of audio of one direction that wait to be written before the newest is dropped.
_BOUND = 30.0
#: Seconds of disagreement between the far end's clock and ours: up to which gaps are closed, and overlaps borne for as
#: long as somebody speaks, and at most.
_LATE, _EARLY, _FAR_TOO_EARLY = 0.06, 0.04, 1.0
_QUIET = 200  # the highest sample of what will not be missed


class _Piece(NamedTuple):
    """Samples that wait for their place. ``media`` + the true delay is where; ``delay`` is an upper bound of that."""

    media: float
    delay: float
    samples: bytes


class Track:
    """One direction as an unbroken row of 16-bit samples, from second 0 on."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._waiting: deque[_Piece] = deque()
        self._waiting_bytes = 0
        self._media = 0.0
        self._written = 0  # samples
        #: Packets for which there was no room.
        self.dropped: int = 0

    def at(self, second: float, samples: bytes) -> None:
        """Put samples at a given second, not before those that were added earlier."""
        self._wait(_Piece(0.0, second, samples))

    def arrived(self, second: float, samples: bytes, *, seconds_lost: float = 0.0) -> None:
        """Put samples behind those that arrived before, with ``seconds_lost`` between, or later if they came later."""
        self._media += seconds_lost
        self._wait(_Piece(self._media, second - self._media, samples))
        self._media += len(samples) / 2 / self._rate

    def _wait(self, piece: _Piece) -> None:
        if self._waiting_bytes > _BOUND * self._rate * 2:
            self.dropped += 1
            return
        self._waiting.append(piece)
        self._waiting_bytes += len(piece.samples)

    def take(self, until: float) -> bytes:
        """The samples up to second ``until``, or a packet more. What arrived since is not looked at twice."""
        taken = bytearray()
        for piece, delay in zip(tuple(self._waiting), self._delays(), strict=True):
            start = round((piece.media + delay) * self._rate)
            if start > until * self._rate:
                break
            self._waiting.popleft()
            self._waiting_bytes -= len(piece.samples)
            self._place(start, piece.samples, taken)
        self._silence(round(until * self._rate), taken)
        return bytes(taken)

    def _delays(self) -> list[float]:
        """For each waiting piece the shortest delay of itself and those behind it, though not unboundedly shorter."""
        delays: list[float] = []
        shortest = float("inf")
        for piece in reversed(self._waiting):
            shortest = min(shortest, piece.delay)
            delays.append(max(shortest, piece.delay - _PATIENCE))
        return delays[::-1]

    def _place(self, start: int, samples: bytes, taken: bytearray) -> None:
        late = (start - self._written) / self._rate
        if late >= _LATE:
            self._silence(start, taken)
        elif -late > _FAR_TOO_EARLY or (-late >= _EARLY and _is_quiet(samples)):
            return
        taken += samples
        self._written += len(samples) // 2

    def _silence(self, until: int, taken: bytearray) -> None:
        missing = max(0, until - self._written)
        taken += bytes(2 * missing)
        self._written += missing


def _is_quiet(samples: bytes) -> bool:
    return audioop.max(native_order(samples), 2) < _QUIET


class Tracks:
    """Both directions: frames in, stereo samples out. Times are seconds since the recording began."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._caller, self._agent = Track(rate), Track(rate)
        self._resamplers: dict[tuple[Track, int], Resampler] = {}
        self._left = b""
        self._right = b""
        #: Packets that could not be recorded: in a codec that is not known, or at another rate without the extra
        #: ``audio``.
        self.unreadable: int = 0

    @property
    def dropped(self) -> int:
        """Packets for which there was no room, because the disk was too slow."""
        return self._caller.dropped + self._agent.dropped

    def heard(self, frame: AudioFrame, at: float) -> None:
        """A frame from the far end arrived."""
        samples = self._samples(self._caller, frame.payload, Codec.named(frame.codec))
        self._caller.arrived(at, samples, seconds_lost=frame.lost_before * PACKET_MS / 1000)

    def said(self, payload: bytes, codec: Codec, at: float) -> None:
        """A packet of the agent's went out in the slot at ``at``."""
        self._agent.at(at, self._samples(self._agent, payload, codec))

    def _samples(self, track: Track, payload: bytes, codec: Codec | None) -> bytes:
        """The payload at the recording's rate, or nothing where that cannot be had."""
        if codec is None:
            self.unreadable += 1
            return b""
        samples = to_pcm16(payload, codec)
        if codec.clock_rate == self._rate:
            return samples
        key = track, codec.clock_rate
        try:
            if key not in self._resamplers:
                self._resamplers[key] = Resampler(codec.clock_rate, self._rate)
        except ModuleNotFoundError:  # not here, where it would end the session: the count tells
            self.unreadable += 1
            return b""
        return self._resamplers[key].feed(samples)

    def take(self, until: float) -> bytes:
        """What is certain when it is ``until``: all but the most recent second."""
        return self._interleave(until - _PATIENCE)

    def finish(self, until: float) -> bytes:
        """The rest, when the recording ends at ``until``; both channels equally long."""
        rest = self._interleave(until)
        size = max(len(self._left), len(self._right))
        self._left, self._right = self._left.ljust(size, b"\0"), self._right.ljust(size, b"\0")
        return rest + self._interleave(until)

    def _interleave(self, until: float) -> bytes:
        left, right = self._left + self._caller.take(until), self._right + self._agent.take(until)
        size = min(len(left), len(right))
        self._left, self._right = left[size:], right[size:]
        return audioop.add(audioop.tostereo(left[:size], 2, 1, 0), audioop.tostereo(right[:size], 2, 0, 1), 2)
