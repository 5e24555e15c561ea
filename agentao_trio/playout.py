"""Something the agent says that may be interrupted, and how much of it was heard.

Theory of operation
-------------------
A :class:`Playout` feeds a sound into the call's uplink while the body of its ``async with`` block runs. The uplink
queues half a second at most; the rest stays in the source. Leaving the block before the end, by ``break``, an exception
or cancellation, is *barge-in*: what is queued is dropped there and then, and nothing more is fed.

What has left the queue is on its way to the far end and cannot be taken back. It goes through the gateway and a jitter
buffer, :data:`ON_THE_WAY` seconds in all, so at the moment of an interruption the far end has heard that much less than
was sent. That is an estimate: the protocol tells nobody what was heard.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import trio

from agentao_trio.audio import Codec
from agentao_trio.media import Passage, Uplink
from agentao_trio.pacing import PACKET_INTERVAL
from agentao_trio.services import task_nursery
from agentao_trio.wav import Sound, read_wav

__all__ = ["ON_THE_WAY", "Playout", "Source"]

#: What can be played: the path of a WAV file, audio as bytes, or an iterable or async iterable of chunks of it.
Source = str | os.PathLike[str] | bytes | Iterable[bytes] | AsyncIterable[bytes]

#: Seconds from a packet's slot to the far end's ear, by estimate: two or three packets in a jitter buffer, and the way.
ON_THE_WAY = 0.1

#: Bytes that are handed to the uplink at a time, so that converting a long sound does not hold up the other calls.
_CHUNK = 16_000
#: Bytes of a file that is read at once: a minute of speech.
_SHORT = 1 << 20


class Playout:
    """A sound that is being played into a call. Made by :meth:`ActiveCall.play`; used once.

    ``async with`` it to do something meanwhile, or ``await`` it to have it played to the end.
    """

    def __init__(
        self, uplink: Uplink, source: Source, *, codec: Codec, rate: int | None, ended: Callable[[], Exception]
    ) -> None:
        self._uplink = uplink
        self._source = source
        self._codec = codec
        self._rate = rate
        self._ended = ended
        self._passage = Passage()
        self._stack = contextlib.AsyncExitStack()

    def __repr__(self) -> str:
        source = self._source if isinstance(self._source, str | os.PathLike) else f"a {type(self._source).__name__}"
        state = "interrupted" if self.interrupted else "over" if self._passage.gone else "not over"
        return f"<Playout of {source}, {state}, {self.seconds_sent:.2f} s sent>"

    @property
    def interrupted(self) -> bool:
        """Whether it was stopped before its end: the block was left, the audio was cleared, or the call ended."""
        return self._passage.stopped

    @property
    def seconds_sent(self) -> float:
        """How much of it has gone out to the gateway by now."""
        return self._passage.sent * PACKET_INTERVAL

    @property
    def seconds_heard(self) -> float:
        """How much of it the far end has heard, as estimated.

        That is all that was sent where it played to its end, and :data:`ON_THE_WAY` seconds less where it did not.
        """
        return self.seconds_sent if self._passage.gone else max(0.0, self.seconds_sent - ON_THE_WAY)

    async def finished(self) -> None:
        """Wait until all of it has gone out, or it was stopped by :meth:`ActiveCall.clear_send_audio_buffer`.

        Raises :class:`CallEnded` when the call ends before. Cancelled, it plays on.
        """
        await self._uplink.wait_gone(self._passage)
        if not self._passage.gone and (self._uplink.ended or not self._passage.stopped):
            raise self._ended()

    async def __aenter__(self) -> Playout:
        if self._uplink.passage is not None:
            raise trio.BusyResourceError("something is being played into this call already")
        self._uplink.passage = self._passage
        self._stack.callback(self._release)
        async with self._stack:
            chunks = await self._open()
            nursery = await self._stack.enter_async_context(task_nursery())
            self._stack.callback(self._stop)
            nursery.start_soon(self._feed, chunks)
            self._stack = self._stack.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(exc_type, exc, traceback)

    def __await__(self) -> Generator[Any, Any, Playout]:
        return self._play().__await__()

    async def _play(self) -> Playout:
        async with self:
            await self.finished()
        return self

    def _release(self) -> None:
        self._uplink.passage = None

    def _stop(self) -> None:
        """The block is over; so is what has not gone out."""
        if not self._passage.gone:
            self._uplink.clear()

    async def _open(self) -> AsyncIterator[bytes] | Iterator[bytes]:
        source = self._source
        if isinstance(source, str | os.PathLike):
            sound = await _read(Path(source))
            source, self._rate = sound.samples, sound.rate
        if isinstance(source, bytes):
            return (source[start : start + _CHUNK] for start in range(0, len(source), _CHUNK))
        if isinstance(source, AsyncIterable):
            return aiter(source)
        return iter(source)

    async def _feed(self, chunks: AsyncIterator[bytes] | Iterator[bytes]) -> None:
        try:
            with contextlib.suppress(trio.ClosedResourceError):  # the call has ended, and finished() says so
                while not self._passage.stopped:
                    chunk = await anext(chunks, None) if isinstance(chunks, AsyncIterator) else next(chunks, None)
                    if chunk is None:
                        self._uplink.flush(self._passage)
                        return
                    await self._uplink.send(chunk, self._codec, self._rate, self._passage)
        finally:
            if inspect.isasyncgen(chunks):
                await chunks.aclose()


async def _read(path: Path) -> Sound:
    # A short file is read faster than a thread is started, and without one virtual time does not run on meanwhile.
    if (sound := _read_short(path)) is not None:
        await trio.lowlevel.checkpoint()
        return sound
    return await trio.to_thread.run_sync(lambda: read_wav(path.read_bytes()))


def _read_short(path: Path) -> Sound | None:
    return read_wav(path.read_bytes()) if path.stat().st_size <= _SHORT else None
