"""What an :class:`~agentao_trio.call.ActiveCall` does with audio: hearing, saying, playing, recording, detecting."""

from __future__ import annotations

import abc
import functools
import os
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

import trio

from agentao_trio.audio import Codec
from agentao_trio.callstate import Command
from agentao_trio.convert import AudioFormat, FrameConverter
from agentao_trio.detect import Answered, Answerer, Beep, Detector
from agentao_trio.media import INBOX_SECONDS, AudioReceiver, Downlink, Mark, PayloadReceiver, Uplink
from agentao_trio.playout import ON_THE_WAY, Playout, Source
from agentao_trio.recording import Recording, open_recording
from agentao_trio.records import JSON, RecordKind

__all__ = ["CallAudio", "Detections"]

Found = TypeVar("Found")

#: The words of dashboards for who picked up.
_ANSWERERS = {Answerer.HUMAN: "human", Answerer.MACHINE: "machine_start", Answerer.UNKNOWN: "unknown"}


class Detections(Generic[Found]):
    """An async iterator over what detectors find in a call's audio.

    Cancelling a waiting ``__anext__`` loses nothing.
    """

    def __init__(
        self, payloads: PayloadReceiver, detectors: tuple[Detector[Found], ...], tell: Callable[[Found], None]
    ) -> None:
        self._payloads = payloads
        self._tell = tell
        self._detectors = detectors
        self._found: deque[Found] = deque()

    def __repr__(self) -> str:
        names = ", ".join(type(detector).__name__ for detector in self._detectors)
        return f"<Detections by {names}, {len(self._found)} waiting, {self.dropped} frames dropped>"

    @property
    def dropped(self) -> int:
        """Frames this reader was too slow for; later times are too early by as much."""
        return self._payloads.dropped

    def __aiter__(self) -> Detections[Found]:
        return self

    async def __anext__(self) -> Found:
        while not self._found:
            pcm = await anext(self._payloads)
            for detector in self._detectors:
                for found in detector.feed(pcm):
                    self._tell(found)
                    self._found.append(found)
        return self._found.popleft()

    def close(self) -> None:
        """Stop listening. Harmless when repeated."""
        self._payloads.close()


class CallAudio(abc.ABC):
    """The audio of one call. The call itself says in which codec, what is allowed, and why not."""

    _uplink: Uplink
    _downlink: Downlink
    _over: trio.Event

    @property
    @abc.abstractmethod
    def codec(self) -> Codec:
        """What is said, in which codec."""

    @abc.abstractmethod
    def publish(self, kind: RecordKind, *, data: Callable[[], dict[str, Any]] | None = None, **fields: JSON) -> None:
        """Tell the readers of the session's hub something about this call."""

    @abc.abstractmethod
    def _check(self, command: Command) -> None:
        """Raise unless ``command`` is possible now."""

    @abc.abstractmethod
    def _ended_error(self) -> Exception:
        """What to raise because no more can be said."""

    # -- hearing ----------------------------------------------------------------------------------------------------

    def audio(
        self,
        *,
        codec: Codec | None = None,
        rate: int | None = None,
        fill_gaps: bool = False,
        seconds: float = INBOX_SECONDS,
    ) -> AudioReceiver:
        """An async iterator over what the far end says, as :class:`AudioFrame`; ends with the call.

        Every iterator is a reader of its own with room for ``seconds`` of audio; one that falls behind loses its
        oldest frames, counted in its ``dropped``. The first also gets what came before it.

        ``codec`` has the audio converted to that codec, ``rate`` to 16-bit samples (PCM16) at so many per second, 8000
        to 48000. Another rate than that of the frame needs the extra ``audio`` and passes a filter: what comes out is
        10 to 30 ms later, so that the first frame may be short or missing, and one more, short frame follows the last.
        ``fill_gaps`` puts 20 ms of silence for every lost packet before the frame that tells of them, at most 10 s.

        Raises :class:`ValueError` for a rate that cannot be had. The iterator raises :class:`RemoteProtocolError` for a
        frame in a codec that cannot be read, after which it can be used on, and :class:`ModuleNotFoundError` where the
        extra is missing.
        """
        wanted = AudioFormat.asked_for(codec, rate)
        converter = FrameConverter(wanted, fill_gaps=fill_gaps) if wanted is not None or fill_gaps else None
        return AudioReceiver(self._downlink.subscribe(seconds), converter)

    def audio_stream(
        self,
        *,
        codec: Codec | None = None,
        rate: int | None = None,
        fill_gaps: bool = False,
        seconds: float = INBOX_SECONDS,
    ) -> PayloadReceiver:
        """Like :meth:`audio`, yielding the payload bytes alone."""
        return PayloadReceiver(self.audio(codec=codec, rate=rate, fill_gaps=fill_gaps, seconds=seconds))

    def detect(self, *detectors: Detector[Found], seconds: float = INBOX_SECONDS) -> Detections[Found]:
        """An async iterator over what ``detectors`` find in what the far end says, in order; ends with the call.

        See :mod:`agentao_trio.detect` for what there is to be found. Times count from the first frame this reader gets;
        lost packets count as silence. The detectors must have one sample rate. A call with another one than theirs
        needs the extra ``audio``. ``seconds`` is as for :meth:`audio`. Raises :class:`ValueError` for no detector and
        for detectors of different rates.
        """
        rates = {detector.rate for detector in detectors}
        if len(rates) != 1:
            raise ValueError(f"detecting takes detectors of one sample rate, not {sorted(rates)}")
        payloads = self.audio_stream(rate=rates.pop(), fill_gaps=True, seconds=seconds)
        return Detections(payloads, detectors, self._tell_who_answered)

    def _tell_who_answered(self, found: object) -> None:
        if isinstance(found, Answered):
            self.publish(
                RecordKind.DETECTION,
                answered_by=_ANSWERERS[found.by],
                confidence=round(found.confidence, 2),
                detection_ms=round(found.at * 1000),
            )
        elif isinstance(found, Beep):
            self.publish(RecordKind.DETECTION, answered_by="machine_end_beep", detection_ms=round(found.at * 1000))

    def record(
        self, path: str | os.PathLike[str], *, rate: int | None = None
    ) -> AbstractAsyncContextManager[Recording]:
        """Record the call into a WAV file while the block runs, and at most until the call ends.

        The caller is on the left, the agent on the right, both on one sample clock; what is lost or not said is
        silence. ``rate`` is in samples per second, by default that of :attr:`codec`; audio at another rate needs the
        extra ``audio``. Other readers do not notice. Leaving the block, also by cancellation, waits until the rest is
        written. Raises :class:`CallStateError` before the answer, :class:`CallEnded` afterwards, and on entering
        :class:`OSError` where the file cannot be made. A disk that fails later does not disturb the call;
        :attr:`Recording.failure` tells.
        """
        self._check(Command.RECORD)
        return open_recording(
            path,
            rate=rate or self.codec.clock_rate,
            downlink=self._downlink,
            uplink=self._uplink,
            over=self._over,
            tell=functools.partial(self.publish, RecordKind.RECORDING),
        )

    # -- saying -----------------------------------------------------------------------------------------------------

    def play(self, source: Source, *, rate: int | None = None) -> Playout:
        """Play a sound to the far end: the path of a WAV file, audio as bytes, or an (async) iterable of such chunks.

        ``await`` it, and it has been played. Or do something else while it plays::

            async with call.play("menu.wav") as playout:
                async for event in call.detect(DtmfDetector()):
                    break                       # leaving the block stops it: barge-in
            print(playout.seconds_heard)

        Leaving the block before the end, by cancellation too, drops at once what has not gone out, including what was
        queued by :meth:`send_audio` before; within it, ``await playout.finished()`` waits for the end.
        :attr:`Playout.seconds_heard` estimates how much was heard. Chunks are in :attr:`codec`, or with a ``rate``
        16-bit samples, as for :meth:`send_audio`; a WAV file says itself what it is, and one whose rate is not that of
        the call needs the extra ``audio``. An async generator is closed at the end. Nothing else should be said
        meanwhile.

        Raises :class:`CallStateError` before the answer, :class:`CallEnded` afterwards. Entering and awaiting raise
        :class:`trio.BusyResourceError` while something else is being played, :class:`OSError` and :class:`ValueError`
        for a file that cannot be read or played; :meth:`Playout.finished` and awaiting raise :class:`CallEnded` when
        the call ends before the sound. What the iterable raises leaves the block.
        """
        self._check(Command.PLAY)
        return Playout(self._uplink, source, codec=self.codec, rate=rate, ended=self._ended_error)

    async def send_audio(self, data: bytes, *, rate: int | None = None) -> None:
        """Say ``data``: audio of any length in :attr:`codec`. Waits while half a second is queued already.

        With a ``rate``, 8000 to 48000 a second, the data are 16-bit samples (PCM16) at that rate instead, whatever the
        codec, and are converted. Another rate than the codec's needs the extra ``audio``; the last 10 to 30 ms then
        stay in the filter until more comes, or :meth:`finish_audio`.

        It goes out as one 20 ms packet per slot of the packet clock; a remainder shorter than a packet waits for more,
        or for :meth:`finish_audio`. Cancelled, the packets of this chunk that are not queued yet are dropped and
        counted. Raises :class:`CallStateError` before the answer, :class:`CallEnded` afterwards,
        :class:`trio.BusyResourceError` while another task is sending on this call, :class:`ValueError` for a rate that
        cannot be converted and :class:`ModuleNotFoundError` where the extra is missing.
        """
        self._check(Command.SEND_AUDIO)
        try:
            await self._uplink.send(data, self.codec, rate)
        except trio.ClosedResourceError:
            raise self._ended_error() from None

    def mark(self, name: str = "") -> Mark:
        """A mark behind what was given to :meth:`send_audio` or played so far, to learn when that has gone out.

        ``await mark.wait()`` tells whether it has: False where it was dropped. A remainder shorter than a packet, which
        waits for more, does not count.
        """
        self._check(Command.SEND_AUDIO)
        return self._uplink.mark(name)

    async def wait_played(self) -> None:
        """Wait until the far end has heard, by estimate, all audio that was sent or played, or the call has ended.

        That is a tenth of a second after the last of it has gone out. What is still on its way at a hangup is lost.
        Cancellation changes nothing.
        """
        await self._uplink.wait_played()
        if self._uplink.packets_sent:
            with trio.move_on_after(ON_THE_WAY):
                await self._over.wait()

    def clear_send_audio_buffer(self) -> int:
        """Drop the audio that is queued here and has not gone out; returns how many packets that were.

        What is being played is stopped.
        """
        self._check(Command.CLEAR_SEND_AUDIO_BUFFER)
        return self._uplink.clear()

    async def finish_audio(self) -> None:
        """Say what is queued, then tell the gateway that no more will come: end_of_stream and FIN.

        The last packet is filled up with silence. Returns when it has gone out, or when the call ends. Cancelled, it
        still goes out.
        """
        self._check(Command.SEND_AUDIO)
        await self._uplink.finish()
