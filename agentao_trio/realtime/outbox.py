"""What waits to be sent to a model: control events, which are never lost, and the caller's audio, which ages.

One queue in order, as a commit means the audio before it. Audio is bounded in milliseconds: when there is more, its
oldest piece is dropped and counted, wherever it stands. Control events are bounded by number: a task waits for room,
and what cannot wait is refused. Audio becomes base64 only when it is its turn, so that what is dropped costs nothing.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import attrs
import trio

__all__ = ["APPEND_MS", "CONTROL_BOUND", "Audio", "Outbox"]

#: Control events that may wait to be sent.
CONTROL_BOUND = 256
#: Milliseconds of audio in one event. A server hears of a turn's end up to so much later; half of it costs twice.
APPEND_MS = 40


Control = TypeVar("Control")


@attrs.frozen(eq=False)
class Audio:
    """A piece of the caller's audio, in the session's format."""

    data: bytes = attrs.field(repr=False)


class Outbox(Generic[Control]):
    """The queue between a program and the task that writes. ``bytes_per_ms`` is that of the caller's audio."""

    def __init__(self, *, bytes_per_ms: int, bound_ms: int, append_ms: int = APPEND_MS) -> None:
        self._piece = bytes_per_ms * append_ms
        self._most = max(1, bound_ms // append_ms)
        self._append_ms = append_ms
        self._rest = bytearray()
        self._queue: deque[Control | Audio] = deque()
        self._audio: deque[Audio] = deque()
        self._controls = 0
        self._arrived = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()
        self._emptied = trio.lowlevel.ParkingLot()
        #: Milliseconds of audio that were dropped because they waited for too long, or because a connection was lost.
        self.dropped_ms: int = 0

    @property
    def waiting_ms(self) -> int:
        """Milliseconds of audio that wait to be sent."""
        return len(self._audio) * self._append_ms

    @property
    def controls(self) -> int:
        """Control events that wait to be sent."""
        return self._controls

    def use(self, bytes_per_ms: int) -> None:
        """Audio is of another format from now on; what waits in the old one is dropped."""
        piece = bytes_per_ms * self._append_ms
        if piece != self._piece:
            self.drop_audio()
            self._piece = piece

    def add_audio(self, data: bytes | bytearray | memoryview) -> None:
        """Queue audio, cut into pieces of ``append_ms``; what is left over waits for more. Never waits."""
        self._rest += data
        while len(self._rest) >= self._piece:
            self._add_piece(bytes(self._rest[: self._piece]))
            del self._rest[: self._piece]

    def add(self, control: Control) -> None:
        """Queue a control event behind all the audio so far. Raises :class:`trio.WouldBlock` if there is no room."""
        if self._controls >= CONTROL_BOUND:
            raise trio.WouldBlock
        if self._rest:
            self._add_piece(bytes(self._rest))
            self._rest.clear()
        self._controls += 1
        self._queue.append(control)
        self._arrived.unpark()

    async def wait_for_room(self) -> None:
        """Until :meth:`add` has room for one. Cancelling it changes nothing."""
        await trio.lowlevel.checkpoint()
        while self._controls >= CONTROL_BOUND:
            await self._room.park()

    async def take(self) -> Control | Audio:
        """The next in the queue. Cancelling it loses nothing."""
        if self._queue:
            await trio.lowlevel.checkpoint()
        while not self._queue:
            await self._arrived.park()
        entry = self._queue.popleft()
        if isinstance(entry, Audio):
            self._audio.popleft()
        else:
            self._controls -= 1
            self._room.unpark()
        if not self._queue:
            self._emptied.unpark_all()
        return entry

    async def wait_empty(self) -> None:
        """Until everything has been taken. Cancelling it changes nothing."""
        await trio.lowlevel.checkpoint()
        while self._queue:
            await self._emptied.park()

    def drop_audio(self) -> None:
        """Forget all the audio that waits; it is counted as dropped."""
        while self._audio:
            self._drop_oldest()
        self._rest.clear()

    def drop_controls(self) -> None:
        """Forget the control events that wait, and keep the audio."""
        self._queue = deque(entry for entry in self._queue if isinstance(entry, Audio))
        self._controls = 0
        self._room.unpark_all()

    def drop_all(self) -> None:
        """Forget everything, control events too: their connection is lost."""
        self.drop_audio()
        self._queue.clear()
        self._controls = 0
        self._room.unpark_all()
        self._emptied.unpark_all()

    def _add_piece(self, data: bytes) -> None:
        if len(self._audio) >= self._most:
            self._drop_oldest()
        audio = Audio(data)
        self._audio.append(audio)
        self._queue.append(audio)
        self._arrived.unpark()

    def _drop_oldest(self) -> None:
        self._queue.remove(self._audio.popleft())
        self.dropped_ms += self._append_ms
