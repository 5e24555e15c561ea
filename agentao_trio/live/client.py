"""One client: its Engine.IO session, which outlives the HTTP requests it is made of.

The heartbeat goes by the session and not by the connection, so that a client which polls is found gone too. Pings come
before whatever else waits: a client with much to read must not look dead for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import attrs
import trio
from wsproto.frame_protocol import FrameProtocol

from agentao_trio.live.outbox import Outbox, Parcel
from agentao_trio.live.packets import EnginePacket, EngineType, PacketError, SocketPacket, decode_socket

__all__ = ["Allowance", "Client", "Counters", "Pace", "parcel"]

#: Bytes of one write to a WebSocket: a client that takes this much within the write timeout is slow, but alive.
BATCH_BYTES = 64 * 1024
#: Requests that a client may make at once and per second, and how many may be refused before it is dropped: the page
#: makes a few, a dashboard that follows each of a few hundred calls makes as many.
REQUESTS, REQUESTS_PER_SECOND, REFUSALS = 300.0, 20.0, 1000

# Frames of a server are not masked, so one encoding does for all clients (RFC 6455 section 5.1).
_frames = FrameProtocol(client=False, extensions=[])


def parcel(packet: EnginePacket) -> Parcel:
    """Encode a packet for every way of sending it."""
    text = packet.encode()
    return Parcel(text, bytes(_frames.send_data(text)))


_PING = parcel(EnginePacket(EngineType.PING))


@attrs.frozen(kw_only=True)
class Pace:
    """How long things may take, in seconds."""

    #: Between two pings, and for the answer to one.
    ping_interval: float = 25.0
    ping_timeout: float = 20.0
    #: For a session that nothing is connected to; looked at with each ping.
    connect_timeout: float = 45.0
    #: For one write to be taken.
    write_timeout: float = 15.0
    #: For the request's head, its body, and the steps of an upgrade.
    request_timeout: float = 15.0


@attrs.define(eq=False)
class Counters:
    """What became of clients."""

    accepted: int = 0
    refused: int = 0
    packets_refused: int = 0
    overflows: int = 0
    write_timeouts: int = 0
    heartbeats_missed: int = 0
    floods: int = 0
    requests_refused: int = 0
    defects: int = 0
    events: int = 0
    packets_queued: int = 0
    bytes_sent: int = 0
    records_dropped: int = 0


@attrs.define(eq=False)
class Allowance:
    """What a client may still ask for: used up by requests, and filled up by time."""

    left: float = REQUESTS
    #: Requests refused since it was full.
    refused: int = 0
    _at: float = 0.0

    def take(self, cost: float, now: float) -> bool:
        """Whether a request that costs so much may be made at ``now``, in seconds."""
        self.left = min(REQUESTS, self.left + REQUESTS_PER_SECOND * max(0.0, now - self._at))
        self._at = now
        self.refused = 0 if self.left == REQUESTS else self.refused
        if self.left < cost:
            self.refused += 1
            return False
        self.left -= cost
        return True

    def wait(self, cost: float) -> float:
        """Seconds until a request that costs so much may be made."""
        return max(0.0, (cost - self.left) / REQUESTS_PER_SECOND)


class Desk(Protocol):
    """What a client belongs to."""

    def received(self, client: Client, packet: SocketPacket, /) -> None:
        """Take a packet of the client's."""

    def refresh(self, client: Client, /) -> None:
        """Put a snapshot into the client's outbox."""

    def gone(self, client: Client, /) -> None:
        """Forget the client."""


class Client:
    """A session of Engine.IO and, once it is connected, of Socket.IO."""

    def __init__(self, sid: str, desk: Desk, pace: Pace, counters: Counters) -> None:
        self.sid = sid
        self.outbox: Outbox = Outbox()
        #: The tenant whose calls it may see, "" for all; None before it is connected.
        self.tenant: str | None = None
        self.rooms: set[str] = set()
        self.allowance: Allowance = Allowance()
        self.transport: str = "polling"
        #: A WebSocket is about to replace polling.
        self.is_upgrading = False
        self.is_polled = False
        #: The poll that waits, or else the next one, is to be answered at once.
        self.poll_ends: bool = False
        self.is_closed: bool = False
        #: It was the client's own wish.
        self.has_left: bool = False
        #: When it was connected to nothing last.
        self.unconnected_since: float = trio.current_time()
        self._desk = desk
        self._pace = pace
        self._counters = counters
        self._something = trio.lowlevel.ParkingLot()
        self._pong = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else "connected" if self.tenant is not None else "not connected"
        return f"<Client by {self.transport}, {state}, in {len(self.rooms)} rooms>"

    async def run(self) -> None:
        """Keep the heartbeat. Ends with the session; one that nothing is connected to is closed after a while.

        Cancelled, it closes the session, too.
        """
        with self._scope:
            try:
                while not self.is_closed:
                    await trio.sleep(self._pace.ping_interval)
                    unconnected = trio.current_time() - self.unconnected_since if self.tenant is None else 0.0
                    if unconnected >= self._pace.connect_timeout:
                        return
                    self.outbox.put_first(_PING)
                    self.wake()
                    with trio.move_on_after(self._pace.ping_timeout) as patience:
                        await self._pong.park()
                    if patience.cancelled_caught:
                        self._counters.heartbeats_missed += 1
                        return
            finally:
                self.close()

    def disconnected(self) -> None:
        """Nothing is connected to it any more."""
        self.tenant = None
        self.unconnected_since = trio.current_time()

    def close(self) -> None:
        """End the session. Whoever serves it notices at once. Harmless when repeated."""
        if not self.is_closed:
            self.is_closed = True
            self._counters.overflows += self.outbox.overflows
            self._desk.gone(self)
            self._scope.cancel()
            self.wake()

    def wake(self) -> None:
        """Something is there to be sent, or has changed."""
        self._something.unpark_all()

    async def changed(self) -> None:
        """Wait until :meth:`wake` is called. Cancellation changes nothing."""
        await self._something.park()

    def received(self, packet: EnginePacket) -> None:
        """Take one packet of the client's. Raises :class:`PacketError`."""
        match packet.type:
            case EngineType.PONG:
                self._pong.unpark_all()
            case EngineType.MESSAGE:
                self._desk.received(self, decode_socket(packet.data))
                if self.outbox.is_flooded or self.allowance.refused > REFUSALS:
                    self._counters.floods += 1
                    self.close()
            case EngineType.CLOSE:
                self.has_left = True
                self.close()
            case _:
                raise PacketError(f"a client does not send {packet.type.name} here")

    def upgraded(self) -> None:
        """From now on a WebSocket carries the session; a poll that still waits is let go."""
        self.transport = "websocket"
        self.let_poll_go()

    def let_poll_go(self) -> None:
        """Answer a waiting poll, with whatever there is."""
        self.poll_ends = True
        self.wake()

    def take(self, most_bytes: int) -> list[Parcel]:
        """What is to be sent now; a snapshot first, where one is due."""
        if self.outbox.is_stale:
            self._desk.refresh(self)
        return self.outbox.take(most_bytes)

    async def write(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Send what there is, and what comes, as WebSocket frames. Returns when the client is closed or too slow.

        Cancelled, what is being sent may be cut off in the middle.
        """
        while not self.is_closed:
            if not self.outbox:
                await self._something.park()
                continue
            frames = b"".join([each.frame for each in self.take(BATCH_BYTES)])
            if not await self.within_time(send, frames):
                return

    async def within_time(self, send: Callable[[bytes], Awaitable[None]], data: bytes) -> bool:
        """Send ``data``; a client that does not take it in time is closed, and the result is False.

        Cancelled, a part of it may have been sent.
        """
        with trio.move_on_after(self._pace.write_timeout) as patience:
            await send(data)
        if patience.cancelled_caught:
            self._counters.write_timeouts += 1
            self.close()
            return False
        self._counters.bytes_sent += len(data)
        return True
