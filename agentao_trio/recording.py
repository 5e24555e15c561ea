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
import functools
import logging
import os
import uuid
from collections.abc import AsyncIterator, Callable

import trio

from agentao_trio.audio import AudioFrame, Codec
from agentao_trio.media import Downlink, Uplink
from agentao_trio.services import task_nursery
from agentao_trio.tracks import Tracks
from agentao_trio.wav import WavFile

__all__ = ["Recording", "open_recording"]

log: logging.Logger = logging.getLogger("agentao_trio.recording")

#: Seconds between two writes.
_INTERVAL = 1.0


class Recording:
    """A call that is being recorded. Made by :meth:`ActiveCall.record`."""

    def __init__(self, path: str | os.PathLike[str], rate: int, tell: Callable[..., None]) -> None:
        self.path = path
        #: The recording's own name, as in records and dashboards.
        self.sid: str = f"RE{uuid.uuid4().hex}"
        self._tell = functools.partial(tell, recording_sid=self.sid, location=os.path.abspath(path))
        #: Samples per second.
        self.rate = rate
        #: What the file could not be written for, from then on: the call goes on all the same. It is logged, too.
        self.failure: OSError | None = None
        self._tracks = Tracks(rate)
        self._began = trio.current_time()
        # Made without a thread: it is a matter of microseconds, and nothing said meanwhile should be missing.
        self._file = WavFile(path, rate=rate, channels=2)
        self._over = trio.Event()
        self._ended = 0.0
        self._tell(status="started")

    def __repr__(self) -> str:
        state = f"failed: {self.failure}" if self.failure else "over" if self._over.is_set() else "going on"
        missing = self.packets_missing
        return f"<Recording {self.sid} to {self.path!s}, {state}, {self.seconds:.1f} s, {missing} packets missing>"

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

    def _end(self) -> None:
        """What is heard and said from now on does not belong to it. Harmless when repeated."""
        if not self._over.is_set():
            self._ended = trio.current_time() - self._began
            self._over.set()

    async def _end_with(self, call_is_over: trio.Event) -> None:
        await call_is_over.wait()
        self._end()

    async def _run(self) -> None:
        """Write until the recording has ended; then the rest. Not to be cancelled."""
        next_at = trio.current_time()
        with trio.CancelScope(shield=True):
            while not self._over.is_set():
                next_at = max(next_at + _INTERVAL, trio.current_time())
                with trio.move_on_at(next_at):
                    await self._over.wait()
                if not self._over.is_set():
                    await self._write(self._tracks.take(trio.current_time() - self._began))
                    self._tell(status="in-progress", duration_seconds=round(self.seconds, 2))
            await self._write(self._tracks.finish(self._ended))
            await trio.to_thread.run_sync(self._file.close)
        if self.failure is None:
            self._tell(status="completed", duration_seconds=round(self.seconds, 2))
        else:
            self._tell(status="failed", duration_seconds=round(self.seconds, 2), error=str(self.failure))

    async def _write(self, samples: bytes) -> None:
        if self.failure is None:
            try:
                await trio.to_thread.run_sync(self._file.append, samples)
            except OSError as error:
                log.error("%s cannot be written any longer: %s", self.path, error)
                self.failure = error


@contextlib.asynccontextmanager
async def open_recording(
    path: str | os.PathLike[str],
    *,
    rate: int,
    downlink: Downlink,
    uplink: Uplink,
    over: trio.Event,
    tell: Callable[..., None],
) -> AsyncIterator[Recording]:
    """Record both directions at ``rate`` samples per second until the block is left, or ``over`` is set.

    ``tell`` gets the fields of records about it. Raises OSError when the file cannot be made. Leaving the block, also
    by cancellation, waits until the rest is written.
    """
    recording = Recording(path, rate, tell)
    downlink.taps += (recording._heard,)
    uplink.taps += (recording._said,)
    try:
        async with task_nursery() as nursery:
            nursery.start_soon(recording._run)
            nursery.start_soon(recording._end_with, over)
            try:
                yield recording
            finally:
                recording._end()
    finally:
        downlink.taps = tuple(tap for tap in downlink.taps if tap != recording._heard)
        uplink.taps = tuple(tap for tap in uplink.taps if tap != recording._said)
