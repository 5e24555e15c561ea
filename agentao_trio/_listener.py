"""The server's side: one socket, many connections. :mod:`agentao_trio.transport` re-exports it.

Datagrams are told apart by connection id and not by address, so that a peer whose address changes (a NAT forgot it, a
phone left the house; RFC 9000 §9) keeps its connection. Everything a stranger can make us do before we know that he
receives what is sent to his address is bounded: what is remembered of him by ``max_half_open``, what he is answered
by what he sent.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator

import attrs
import trio

from agentao_trio._connection import BURST, Connection, Ending
from agentao_trio._datagrams import Address, DatagramSocket, open_udp_socket
from agentao_trio._engine import FrontDoor, ServerTLS, StockEngine, TransportSettings, server_configuration
from agentao_trio.services import leaving_bare

#: Seconds. The client is the one that has to act on a dead path; a server that is as quick would hang up on a client
#: whose program was busy for a moment.
PATIENCE = 8.0

__all__ = ["Listener", "ListenerStatistics", "open_listener"]


@attrs.frozen(kw_only=True)
class ListenerStatistics:
    """What a listener has seen.

    ``connections``: there now. ``half_open``: of these, not accepted by the program yet. ``answered``: newcomers told
    which versions we speak, or asked to prove their address. ``refused``: newcomers dropped because too many were
    half open.
    """

    connections: int
    half_open: int
    accepted: int
    answered: int
    refused: int
    datagrams_unroutable: int


class Listener:
    """Accepts QUIC connections on one socket. Made by :func:`open_listener`; ``async for`` gives the connections.

    Until the program accepts a connection it is *half open*, and ``TransportSettings.max_half_open`` bounds how many
    there are. From half of that on a client has to prove first that it receives what is sent to its address (Retry,
    RFC 9000 §8.1), which costs us no memory and keeps forged addresses from taking all the places.
    """

    def __init__(
        self,
        socket: DatagramSocket,
        settings: TransportSettings,
        door: FrontDoor,
        nursery: trio.Nursery,
    ) -> None:
        self._socket = socket
        self._settings = settings
        self._door = door
        self._nursery = nursery
        self._by_cid: dict[bytes, Connection] = {}
        self._connections: dict[Connection, None] = {}
        self._half_open: dict[Connection, None] = {}
        self._ready: deque[Connection] = deque()
        self._arrivals = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope(shield=True)
        self._closed = False
        self._accepted = self._answered = self._refused = self._unroutable = 0

    def __repr__(self) -> str:
        where = "closed" if self._closed else f"at {self._socket.address}"
        return f"<Listener {where}, {len(self._connections)} connections, {len(self._half_open)} half open>"

    @property
    def address(self) -> Address:
        """Where the listener is reached."""
        return self._socket.address

    async def accept(self) -> Connection:
        """The next connection whose handshake has completed. It closes with the listener, or earlier.

        Raises :class:`trio.ClosedResourceError` when the listener is closed. Cancellation leaves the connection for the
        next call.
        """
        await trio.lowlevel.checkpoint()
        while not self._ready:
            if self._closed:
                raise trio.ClosedResourceError("this listener was closed")
            await self._arrivals.park()
        connection = self._ready.popleft()
        del self._half_open[connection]
        self._accepted += 1
        return connection

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Connection:
        try:
            return await self.accept()
        except trio.ClosedResourceError:
            raise StopAsyncIteration from None

    def statistics(self) -> ListenerStatistics:
        """A snapshot."""
        return ListenerStatistics(
            connections=len(self._connections),
            half_open=len(self._half_open),
            accepted=self._accepted,
            answered=self._answered,
            refused=self._refused,
            datagrams_unroutable=self._unroutable,
        )

    # -- datagrams

    @trio.lowlevel.enable_ki_protection
    async def _run(self) -> None:
        with self._scope:
            while True:
                await self._socket.wait_readable()
                self._poll()

    def _poll(self) -> None:
        now = trio.current_time()
        touched: dict[Connection, None] = {}
        for _ in range(BURST):
            try:
                datagram, source = self._socket.receive()
            except BlockingIOError:
                break
            except OSError:
                continue  # about a datagram to a peer that is gone; its connection will notice
            connection = self._route(datagram, source)
            if connection is None:
                self._unroutable += 1
            else:
                connection._receive(datagram, source, now)
                if not connection._engine.has_peer:
                    connection._finish(Ending(by="silence"))  # it only looked like a first packet
                touched[connection] = None
        for connection in touched:
            connection._pump()

    def _route(self, datagram: bytes, source: Address) -> Connection | None:
        """Whose datagram it is. Newcomers are let in, or answered, on the way."""
        packet = self._door.read(datagram)
        if packet is None:
            return None
        if packet.destination_cid in self._by_cid:
            return self._by_cid[packet.destination_cid]
        if self._closed:
            return None
        crowd = len(self._half_open)
        if crowd >= self._settings.max_half_open:
            self._refused += 1  # a client tries again, waiting longer each time
            return None
        verdict = self._door.receive(
            packet, source, trio.current_time(), suspicious=crowd >= self._settings.max_half_open // 2
        )
        if isinstance(verdict, bytes):
            self._answered += 1
            with contextlib.suppress(OSError):
                self._socket.send(verdict, source)
            return None
        return self._admit(verdict, packet.destination_cid) if verdict is not None else None

    def _admit(self, engine: StockEngine, first_cid: bytes) -> Connection:
        cids: dict[bytes, None] = {}

        def on_cid(cid: bytes, valid: bool) -> None:
            if valid:
                cids[cid] = None
                self._by_cid[cid] = connection
            else:
                cids.pop(cid, None)
                self._by_cid.pop(cid, None)

        connection = Connection(
            engine,
            self._socket,
            self._settings,
            poll=self._poll,
            handshake_timeout=self._settings.handshake_timeout,
            on_cid=on_cid,
        )
        for cid in (first_cid, engine.host_cid):
            on_cid(cid, True)
        self._connections[connection] = self._half_open[connection] = None
        self._nursery.start_soon(self._serve, connection, cids)
        return connection

    @trio.lowlevel.enable_ki_protection
    async def _serve(self, connection: Connection, cids: dict[bytes, None]) -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection._run)
                await connection._handshake_over.wait()
                if connection._established:
                    self._ready.append(connection)
                    self._arrivals.unpark()
        del self._connections[connection]
        if not connection._established:
            del self._half_open[connection]
        for cid in cids:
            self._by_cid.pop(cid, None)

    async def _close(self) -> None:
        self._closed = True
        self._arrivals.unpark_all()
        try:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    for connection in tuple(self._connections):
                        nursery.start_soon(connection.aclose)
        finally:  # a shield does not keep Ctrl-C out
            self._scope.cancel()


@contextlib.asynccontextmanager
async def open_listener(
    where: DatagramSocket | tuple[str, int], *, tls: ServerTLS, settings: TransportSettings | None = None
) -> AsyncIterator[Listener]:
    """Listen on a socket, or on a UDP socket of its own at (host, port). Raises OSError and ValueError for an address
    or a certificate that cannot be used.

    Without ``settings`` a peer is dead after eight seconds without an answer to a PING, not two. Leaving the block
    closes every connection in order, all at once, within ``settings.close_timeout``; cancellation too.
    """
    settings = TransportSettings(dead_after=PATIENCE) if settings is None else settings
    door = FrontDoor(settings, server_configuration(settings, tls))
    with contextlib.ExitStack() as resources, leaving_bare():
        if isinstance(where, tuple):
            socket: DatagramSocket = await open_udp_socket(*where)
            resources.callback(socket.close)
        else:
            socket = where
        async with trio.open_nursery() as nursery:
            listener = Listener(socket, settings, door, nursery)
            nursery.start_soon(listener._run)
            try:
                yield listener
            finally:
                await listener._close()
