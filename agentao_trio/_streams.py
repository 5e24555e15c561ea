"""The streams of a connection (RFC 9000 §2), as trio's stream interfaces. :mod:`agentao_trio.transport` re-exports
them.

A stream keeps what its program has done and what its peer has said; bytes on their way out are the engine's, bytes that
arrived wait here. It reaches the engine through its connection, never across an await.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from agentao_trio._engine import StockEngine, TransportSettings, backlog, unsent
from agentao_trio.errors import ConnectionLost, StreamReset
from agentao_trio.place import Place

__all__ = ["BidiStream", "Owner", "ReceiveStream", "SendStream"]


class Owner(Protocol):
    """What a stream asks of its connection."""

    _engine: StockEngine
    _settings: TransportSettings
    _closing: bool  # by us
    _dirty: bool  # the engine has something to send, and is going to be asked
    _waiting_for_room: dict[SendStream, None]

    def _check(self) -> None:
        """Raise what the connection's end means, if it has ended."""

    def _lost(self) -> ConnectionLost: ...

    _over: bool  # closed, or lost

    def _consumed(self, stream_id: int, count: int, unread: int) -> None: ...

    def _half_done(self, stream_id: int) -> None:
        """The program is done with one direction of a stream."""

    def _mark_dirty(self) -> None:
        """The engine has something to send."""


class SendStream(trio.abc.SendStream):
    """The sending direction of a stream.

    Every method that sends raises :class:`StreamReset` once the peer asked us to stop (STOP_SENDING),
    :class:`ConnectionLost` once the connection is over, and :class:`trio.ClosedResourceError` after our own
    ``finish``, ``reset`` or ``aclose``.
    """

    __slots__ = (
        "_connection",
        "_cut",
        "_ended",
        "_paced",
        "_place",
        "_sender",
        "_stopped",
        "stream_id",
    )

    def __init__(self, connection: Owner, stream_id: int, *, paced: bool = False) -> None:
        self.stream_id: int = stream_id
        self._connection = connection
        self._sender = connection._engine.sender(stream_id)
        self._paced = paced
        self._place = Place()
        self._ended = False  # by us
        self._cut = False  # a send_all was cancelled in the middle of its data
        self._stopped: int | None = None  # the peer's STOP_SENDING code

    def __repr__(self) -> str:
        state = "ended" if self._ended else "open" if self._stopped is None else f"stopped with {self._stopped}"
        return f"<SendStream {self.stream_id}, {state}>"

    @property
    def backlog(self) -> int:
        """Bytes written that the peer has not acknowledged yet. They cannot be taken back."""
        return backlog(self._sender)

    @property
    def unsent(self) -> int:
        """Those of them that have not left at all: the congestion window, or the peer, does not let them."""
        return unsent(self._sender)

    @trio.lowlevel.enable_ki_protection
    def write(self, data: bytes) -> None:
        """Append to the stream, without waiting and without a bound of its own: look at :attr:`backlog` first.

        The data leaves with the connection's next flush, at the latest in the scheduler's next batch.
        """
        connection = self._connection
        if self._ended or self._stopped is not None or connection._over:
            self._check()
        if self._paced:
            connection._engine.media.written += len(data)
        self._sender.write(data)
        if not connection._dirty:
            connection._mark_dirty()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Append to the stream; wait while more than ``TransportSettings.send_buffer`` bytes are unacknowledged.

        Cancellation may leave a part of the data written. Closing such a stream resets it rather than to pretend that
        this was all.
        """
        with self._place:
            await trio.lowlevel.checkpoint()
            self._check()
            rest = memoryview(data).cast("B")
            total = len(rest)
            try:
                while rest:
                    await self._wait_for_room()
                    room = self._connection._settings.send_buffer - self.backlog
                    self.write(bytes(rest[:room]))
                    rest = rest[room:]
            except trio.Cancelled:
                self._cut = self._cut or len(rest) < total
                raise

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room for some data."""
        with self._place:
            await trio.lowlevel.checkpoint()
            self._check()
            await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        waiting = self._connection._waiting_for_room
        while self.backlog >= self._connection._settings.send_buffer:
            waiting[self] = None
            try:
                await self._place.wait()
            finally:
                del waiting[self]
            self._check()

    @trio.lowlevel.enable_ki_protection
    def finish(self) -> None:
        """End the stream in order (FIN). What was written is still delivered. Harmless when repeated."""
        if not self._ended and self._stopped is None and not self._connection._over:
            self._sender.write(b"", end_stream=True)
            self._connection._mark_dirty()
        self._end()

    def reset(self, code: int = 0) -> None:
        """Abandon the stream (RESET_STREAM with ``code``), even after ``finish``: data not yet delivered is lost."""
        if not self._connection._over:
            self._connection._engine.reset_stream(self.stream_id, code)
            self._connection._mark_dirty()
        self._end()

    async def aclose(self) -> None:
        """``finish``, or ``reset(0)`` if a ``send_all`` was cancelled half-way. Does not wait for delivery; when
        cancelled it has closed the stream all the same."""
        if self._cut and not self._ended:
            self.reset()
        else:
            self.finish()
        await trio.lowlevel.checkpoint()

    def _check(self) -> None:
        if self._ended:
            raise trio.ClosedResourceError("this stream was finished, reset or closed")
        if self._stopped is not None:
            raise StreamReset(
                f"the peer stopped reading stream {self.stream_id} (code {self._stopped})",
                stream_id=self.stream_id,
                code=self._stopped,
            )
        self._connection._check()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._place.wake()
            self._connection._half_done(self.stream_id)

    def _stop_received(self, code: int) -> None:
        if self._stopped is None:
            self._stopped = code
            self._place.wake()


class ReceiveStream(trio.abc.ReceiveStream):
    """The receiving direction of a stream. The peer may send as much as was taken out of here plus one window."""

    __slots__ = (
        "_buffer",
        "_connection",
        "_ended",
        "_failure",
        "_fin",
        "_on_data",
        "_place",
        "_reset",
        "_stopped",
        "stream_id",
    )

    def __init__(self, connection: Owner, stream_id: int) -> None:
        self.stream_id: int = stream_id
        self._connection = connection
        self._place = Place()
        self._buffer = bytearray()
        self._on_data: Callable[[bytes], None] | None = None  # instead of the buffer
        self._failure: Exception | None = None  # what that raised
        self._fin = False
        self._reset: int | None = None
        self._stopped = False  # by us
        self._ended = False  # by us, or the program has seen its end

    def __repr__(self) -> str:
        state = "ended" if self._ended else "open" if self._reset is None else f"reset with {self._reset}"
        return f"<ReceiveStream {self.stream_id}, {state}, {len(self._buffer)} bytes waiting>"

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Up to ``max_bytes`` (default: all there is), at least one; ``b""`` at the end of the stream, again and again.

        After everything that arrived in order, raises :class:`StreamReset` if the peer abandoned the stream (each
        time) or :class:`ConnectionLost`; :class:`trio.ClosedResourceError` after ``stop`` or ``aclose``. Cancellation
        takes no data.
        """
        if max_bytes is not None:
            if not isinstance(max_bytes, int):
                raise TypeError("max_bytes must be an integer or None")
            if max_bytes < 1:
                raise ValueError("max_bytes must be at least 1")
        with self._place:
            await self._wait_ready()
        if self._buffer and not self._is_closed():
            data = bytes(self._buffer if max_bytes is None else self._buffer[:max_bytes])
            self._drop(len(data))
            return data
        self._raise_unless_finished()
        return b""

    async def receive_each(self, on_data: Callable[[bytes], None]) -> None:
        """Hand whatever arrives to ``on_data``, in order, until the end of the stream.

        It is called as soon as the bytes are here, without the two turns of the scheduler that a task takes to be woken
        and to come back for more: for readers that never have to wait. It must not wait, may stop this stream, and what
        it raises is raised here. The end, and what is raised at it, are those of :meth:`receive_some`. Cancellation
        loses nothing: what arrives later waits here, as it does after an error.
        """
        with self._place:
            if self._buffer and not self._is_closed():
                data = bytes(self._buffer)
                self._drop(len(data))
                on_data(data)
            self._on_data = on_data
            try:
                await self._wait_ready()
            finally:
                self._on_data = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        self._raise_unless_finished()

    async def _wait_ready(self) -> None:
        if self._is_ready():
            await trio.lowlevel.checkpoint()
        while not self._is_ready():
            await self._place.wait()

    def _is_closed(self) -> bool:
        """By us; what has arrived is nobody's any more."""
        return self._stopped or self._connection._closing

    def _raise_unless_finished(self) -> None:
        """All that arrived was given out: say why there is no more, unless it is the stream's end."""
        if self._is_closed():
            raise trio.ClosedResourceError("this stream or its connection was closed")
        if self._fin:
            self._end()
        elif self._reset is not None:
            self._end()
            raise StreamReset(
                f"the peer reset stream {self.stream_id} (code {self._reset})",
                stream_id=self.stream_id,
                code=self._reset,
            )
        else:
            raise self._connection._lost()

    def stop(self, code: int = 0) -> None:
        """Ask the peer to stop (STOP_SENDING with ``code``) unless the stream has ended; what arrived is dropped."""
        if self._stopped:
            return
        self._stopped = True
        if not self._connection._over:
            self._connection._engine.stop(self.stream_id, code)
            self._connection._mark_dirty()
        self._drop(len(self._buffer))
        self._place.wake()
        self._end()

    async def aclose(self) -> None:
        """``stop(0)``. When cancelled it has closed the stream all the same."""
        self.stop()
        await trio.lowlevel.checkpoint()

    def _is_ready(self) -> bool:
        return (
            bool(self._buffer)
            or self._fin
            or self._reset is not None
            or self._stopped
            or self._failure is not None
            or self._connection._over
        )

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._connection._consumed(self.stream_id, count, len(self._buffer))

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._connection._half_done(self.stream_id)

    def _data_received(self, data: bytes, fin: bool) -> None:
        self._fin = fin
        if self._on_data is not None and not self._is_closed():
            if data:
                self._connection._consumed(self.stream_id, len(data), 0)
                try:
                    self._on_data(data)
                except Exception as failure:  # noqa: BLE001 - it is the reader's, who waits; the connection goes on
                    self._on_data, self._failure = None, failure
                    self._place.wake()
            if fin:
                self._place.wake()
            return
        self._buffer += data
        if self._stopped:
            self._drop(len(data))
        else:
            self._place.wake()

    def _reset_received(self, code: int) -> None:
        self._reset = code
        self._place.wake()


class BidiStream(trio.abc.HalfCloseableStream):
    """Both directions of a stream: :attr:`send` and :attr:`receive`, and their methods under one name."""

    def __init__(self, send: SendStream, receive: ReceiveStream) -> None:
        self.stream_id: int = send.stream_id
        self.send = send
        self.receive = receive

    def __repr__(self) -> str:
        return f"<BidiStream {self.stream_id}: {self.send!r}, {self.receive!r}>"

    @property
    def backlog(self) -> int:
        """See :attr:`SendStream.backlog`."""
        return self.send.backlog

    def write(self, data: bytes) -> None:
        """See :meth:`SendStream.write`."""
        self.send.write(data)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See :meth:`SendStream.send_all`."""
        await self.send.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See :meth:`SendStream.wait_send_all_might_not_block`."""
        await self.send.wait_send_all_might_not_block()

    def finish(self) -> None:
        """See :meth:`SendStream.finish`."""
        self.send.finish()

    async def send_eof(self) -> None:
        """:meth:`finish` under trio's name, with a checkpoint."""
        with self.send._place:
            self.send.finish()
        await trio.lowlevel.checkpoint()

    def reset(self, code: int = 0) -> None:
        """See :meth:`SendStream.reset`."""
        self.send.reset(code)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See :meth:`ReceiveStream.receive_some`."""
        return await self.receive.receive_some(max_bytes)

    async def receive_each(self, on_data: Callable[[bytes], None]) -> None:
        """See :meth:`ReceiveStream.receive_each`."""
        await self.receive.receive_each(on_data)

    def stop(self, code: int = 0) -> None:
        """See :meth:`ReceiveStream.stop`."""
        self.receive.stop(code)

    def abandon(self, code: int = 0) -> None:
        """``reset`` and ``stop``: nothing of this stream remains at either end. For a request nobody waits for any
        more."""
        self.send.reset(code)
        self.receive.stop(code)

    async def aclose(self) -> None:
        """Close both halves as they close themselves. When cancelled it has closed the stream all the same."""
        try:
            await self.send.aclose()
        finally:
            await self.receive.aclose()
