"""The connection beneath a session: made, subscribed, read, and made again when it is lost.

Theory of operation
-------------------
One task (:meth:`Link.keep_up`) owns the connection. It connects, introduces itself (PROTOCOL section 2.3), subscribes
(section 9.1, StreamEvents), accepts the gateway's streams and starts one reader task for each, whose frames go to one
place. When the connection is lost it waits, with capped exponential backoff and jitter, and does it all again with the
same ``client_id``: that is what makes the gateway replay what it kept (section 10.3). Only the first attempt may fail
for good. The others hurry for as long as the gateway remembers us; one that answers and refuses us is asked seldom.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import trio

from agentao_trio import messages
from agentao_trio.close_codes import CloseCode
from agentao_trio.errors import AuthenticationError, ConnectError, ConnectionLost, StreamReset, TransportError
from agentao_trio.messages import MethodId
from agentao_trio.services import first_leaf
from agentao_trio.transport import BidiStream, Connection, ReceiveStream, SendStream
from agentao_trio.wire import Frame, FrameDecoder, encode_request

__all__ = ["Link"]

log: logging.Logger = logging.getLogger("agentao_trio.session")

#: Seconds that the first attempt to connect may take, and each later one. QUIC doubles its own pauses within an
#: attempt, so on a path that has just come back a fresh attempt is quicker than an old one.
FIRST_ATTEMPT, LATER_ATTEMPT = 10.0, 1.5
#: Seconds between attempts: the first pause, the longest while the gateway still remembers us, and the longest
#: afterwards, or where the gateway can be reached and will not have us. Each is shortened by up to a half.
BACKOFF_FIRST, BACKOFF_URGENT, BACKOFF_LONGEST = 0.1, 0.5, 5.0
#: A connection that lasted this long was a good one, and the pauses begin anew; shorter ones would make a storm.
STABLE_SECONDS = 5.0
#: Seconds that a subscription may go unanswered before it is taken for accepted; many gateways never answer.
SUBSCRIBE_GRACE = 0.5


class Link:
    """``connection`` is the one in use, None in between. ``on_frames`` gets the frames of one stream as they come, and
    the time of it."""

    def __init__(
        self,
        services: trio.Nursery,
        connect: Callable[[float], AbstractAsyncContextManager[Connection]],
        introduce: Callable[[Connection], Awaitable[None]],
        counts: Counter[str],
        *,
        client_id: str,
        rpc_length: str,
        resume_window: float,
        on_frames: Callable[[list[Frame], float], None],
        on_up: Callable[[], None],
        on_down: Callable[[], None],
    ) -> None:
        self.connection: Connection | None = None
        #: Why the latest attempt to connect again failed; None while connected.
        self.failure: TransportError | None = None
        self._services = services
        self._connect = connect
        self._introduce = introduce
        self._counts = counts
        self._client_id = client_id
        self._rpc_length = rpc_length
        self._resume_window = resume_window
        self._on_frames = on_frames
        self._on_up = on_up
        self._on_down = on_down
        self._came_up = trio.Event()

    def is_up(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self.connection is not None

    async def wait_up(self) -> Connection:
        """The connection in use, when there is one. Waits for as long as it takes."""
        self.look()
        while self.connection is None:
            await self._came_up.wait()
            self.look()
        return self.connection

    def look(self) -> None:
        """The connection may have ended a moment ago, and the task that owns it not have run since."""
        if self.connection is not None and self.connection.is_over:
            self._down()

    def open_uni(self) -> SendStream | None:
        """A new stream to the gateway for a call's audio, or None where there is none to be had now."""
        if self.connection is None:
            return None
        try:
            return self.connection.open_uni_nowait(paced=True)
        except (trio.WouldBlock, ConnectionLost, trio.ClosedResourceError):
            return None

    def flush(self) -> None:
        """Send what was written, now."""
        if self.connection is not None:
            self.connection.flush()

    async def keep_up(self, task_status: trio.TaskStatus[None]) -> None:
        """Stay connected until cancelled. Raises :class:`TransportError` when the first attempt fails."""
        pause = BACKOFF_FIRST
        lost_at: float | None = None  # None until there was a connection
        while True:
            up_at: float | None = None
            failure: TransportError | None = None
            try:
                async with self._connect(FIRST_ATTEMPT if lost_at is None else LATER_ATTEMPT) as connection:
                    await self._introduce(connection)
                    await self._subscribe(connection)
                    self._up(connection)
                    if lost_at is None:
                        task_status.started()
                    up_at = trio.current_time()
                    await self._accept_streams(connection)
            except* TransportError as errors:
                failure = first_leaf(errors)  # a lost connection surfaces once, however many tasks saw it
            if failure is not None and lost_at is None and up_at is None:
                raise failure
            now = trio.current_time()
            if up_at is not None:
                lost_at = now
                if now - up_at >= STABLE_SECONDS:
                    pause = BACKOFF_FIRST
            assert lost_at is not None  # there was a connection, or the first attempt has failed
            self._down()
            self._report(failure)
            refused = isinstance(failure, AuthenticationError) or (
                isinstance(failure, ConnectError) and failure.refused
            )
            if refused:
                pause = BACKOFF_LONGEST
            await trio.sleep(random.uniform(pause / 2, pause))
            urgent = up_at is None and not refused and now - lost_at < self._resume_window
            pause = min(pause * 2, BACKOFF_URGENT if urgent else BACKOFF_LONGEST)

    def _report(self, failure: TransportError | None) -> None:
        """An hour without a gateway is one warning, not thousands."""
        if failure is None:
            return
        self._counts["reconnects_failed"] += 1
        level = logging.INFO if str(failure) == str(self.failure) else logging.WARNING
        self.failure = failure
        log.log(level, "client %s: %s; trying again", self._client_id, failure)

    def _up(self, connection: Connection) -> None:
        self.connection = connection
        self.failure = None
        self._counts["connections"] += 1
        self._on_up()
        self._came_up.set()

    def _down(self) -> None:
        if self.connection is not None:
            self.connection = None
            self._came_up = trio.Event()
            self._on_down()

    async def _subscribe(self, connection: Connection) -> None:
        """Ask for this client's events and audio; wait until that is acknowledged, or a moment.

        Streams have no order among each other: a command sent at once might be carried out before the subscription.
        What comes back on the stream is read like any gateway stream.
        """
        request = messages.EventStreamRequest(client_id=self._client_id)
        stream = await connection.open_bidi()
        await stream.send_all(
            encode_request(MethodId.StreamEvents, messages.encode(request), rpc_length=self._rpc_length)
        )
        stream.finish()
        answered = trio.Event()
        self._services.start_soon(self._read_stream, stream, answered)
        with trio.move_on_after(SUBSCRIBE_GRACE):
            await answered.wait()

    async def _accept_streams(self, connection: Connection) -> None:
        """Start a reader for every stream the gateway opens; returns when the connection is over."""
        async with trio.open_nursery() as readers:
            while True:
                try:
                    stream = await connection.accept()
                except (ConnectionLost, trio.EndOfChannel, trio.ClosedResourceError) as error:
                    log.info("client %s: the connection ended: %s", self._client_id, error)
                    return
                if isinstance(stream, ReceiveStream):
                    readers.start_soon(self._read_stream, stream)
                else:
                    # The protocol has no stream that a gateway opens in both directions (PROTOCOL section 3).
                    self._counts["streams_abandoned"] += 1
                    await stream.aclose()

    async def _read_stream(self, stream: ReceiveStream | BidiStream, answered: trio.Event | None = None) -> None:
        """The reader task of one gateway stream (PROTOCOL section 4.3). It owns the end of the stream, not its frames:
        those are routed while they are received. A broken stream never hurts the others.

        ``answered`` is set with the first data or the end of it.
        """
        self._counts["streams_read"] += 1
        decoder = FrameDecoder()

        def feed(data: bytes) -> None:
            if answered is not None:
                answered.set()
            self._on_frames(decoder.feed(data), trio.current_time())
            if decoder.error is not None:
                self._counts["streams_abandoned"] += 1
                log.warning("stream %d abandoned: %s", stream.stream_id, decoder.error)
                stream.stop(CloseCode.PROTOCOL_ERROR)

        try:
            await stream.receive_each(feed)
        except StreamReset:
            self._counts["streams_reset"] += 1
        except (ConnectionLost, trio.ClosedResourceError):
            pass  # told once, where streams are accepted, or where this one was stopped
        finally:
            if answered is not None:
                answered.set()
            self._counts["frames_short"] += decoder.short
            self._counts["streams_truncated"] += decoder.end() > 0
