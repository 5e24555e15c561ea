"""A call as a WAV file: the caller on the left, the agent on the right, on one sample clock.

Theory of operation
-------------------
*The clock* is trio's; :mod:`agentao_trio.tracks` says where on it a packet belongs.

*The file* is written a second at a time, in a thread. While the disk is busy up to half a minute waits in memory; what
is beyond is dropped, counted, and silence in the file. Its header is true after each write (:class:`WavFile`). Leaving
the block waits until the rest is written, whatever is being cancelled.

Packets of the agent that were shed are not recorded, as nobody heard them. Muting does not show: the agent's words are
recorded as sent.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator

import trio

from agentao_trio.audio import AudioFrame, Codec
from agentao_trio.media import Downlink, Uplink
from agentao_trio.services import task_nursery
from agentao_trio.tracks import Tracks
from agentao_trio.wav import WavFile

__all__ = ["Recording", "open_recording"]

log = logging.getLogger("agentao_trio.recording")

#: Seconds between two writes.
_INTERVAL = 1.0


class Recording:
    """A call that is being recorded. Made by :meth:`ActiveCall.record`."""

    def __init__(self, path: str | os.PathLike[str], rate: int) -> None:
        self.path = path
        #: Samples per second.
        self.rate = rate
        #: What the file could not be written for, from then on: the call goes on all the same. It is logged, too.
        self.failure: OSError | None = None
        self._tracks = Tracks(rate)
        self._began = trio.current_time()
        # Made without a thread: it is a matter of microseconds, and nothing said meanwhile should be missing.
        self._file = WavFile(path, rate=rate, channels=2)
        self._unwritten = b""

    @property
    def seconds(self) -> float:
        """How much is in the file by now."""
        return self._file.seconds

    @property
    def packets_missing(self) -> int:
        """Packets that are silence in the file: the disk was too slow, or their codec is not known."""
        return self._tracks.dropped + self._tracks.unreadable

    def _heard(self, frame: AudioFrame, at: float) -> None:
        self._tracks.heard(frame, at - self._began)

    def _said(self, payload: bytes, codec: Codec, deadline: float) -> None:
        self._tracks.said(payload, codec, deadline - self._began)

    async def _run(self, over: trio.Event) -> None:
        """Write until the call is over, or cancelled; then the rest."""
        next_at = self._began
        try:
            while not over.is_set():
                next_at = max(next_at + _INTERVAL, trio.current_time())
                with trio.move_on_at(next_at):
                    await over.wait()
                if not over.is_set():
                    self._unwritten += self._tracks.take(trio.current_time() - self._began)
                    await self._write()
        finally:
            self._unwritten += self._tracks.finish(trio.current_time() - self._began)
            with trio.CancelScope(shield=True):
                await self._write()
                await trio.to_thread.run_sync(self._file.close)

    async def _write(self) -> None:
        """Cancelled, it has written all or nothing."""
        if self.failure is None:
            try:
                await trio.to_thread.run_sync(self._file.append, self._unwritten)
            except OSError as error:
                log.error("%s cannot be written any longer: %s", self.path, error)
                self.failure = error
        self._unwritten = b""


@contextlib.asynccontextmanager
async def open_recording(
    path: str | os.PathLike[str], *, rate: int, downlink: Downlink, uplink: Uplink, over: trio.Event
) -> AsyncIterator[Recording]:
    """Record both directions at ``rate`` samples per second until the block is left, or ``over`` is set.

    Raises OSError when the file cannot be made.
    """
    recording = Recording(path, rate)
    downlink.taps.append(recording._heard)
    uplink.taps.append(recording._said)
    try:
        async with task_nursery() as nursery:
            nursery.start_soon(recording._run, over)
            yield recording
    finally:
        downlink.taps.remove(recording._heard)
        uplink.taps.remove(recording._said)
