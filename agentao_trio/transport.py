"""QUIC on trio: connections, listeners and streams. Bytes and stream ids; no telephony.

::

    async with open_connection("gateway.example", 9090) as connection:
        stream = await connection.open_bidi()
        await stream.send_all(request)
        stream.finish()
        reply = await stream.receive_some()

Both sides run the same code: :class:`Connection` (its file has the theory of operation) does not know who opened it.
This file makes connections. A client's comes from :func:`open_connection`, which resolves the name, tries its
addresses in turn, and says in one :class:`ConnectError` what was wrong. A server's comes from a :class:`Listener`,
which owns one socket for all of them and tells datagrams apart by connection id, so that a peer whose address changes
(RFC 9000 §9) keeps its connection. Either way the tasks of a connection live in the context manager's own nursery,
shielded, so that a cancelled program still closes in order; they end with it.

A socket that is passed in is borrowed: it is not closed here, and can carry the next connection afterwards.
"""

from __future__ import annotations

import contextlib
import errno
import socket as stdlib_socket
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TextIO

import attrs
import trio
from aioquic._buffer import Buffer
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE, QuicConfiguration
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicHeader,
    QuicPacketType,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.tls import AlertDescription

from ._connection import Connection, ConnectionStatistics, Ending
from ._datagrams import Address, DatagramSocket, UdpSocket, describe, open_udp_socket, resolve
from ._engine import (
    ClientTLS,
    ServerTLS,
    TransportSettings,
    client_configuration,
    new_engine,
    server_configuration,
)
from ._streams import BidiStream, ReceiveStream, SendStream
from .errors import ConnectError

__all__ = [
    "Address",
    "BidiStream",
    "ClientTLS",
    "Connection",
    "ConnectionStatistics",
    "DatagramSocket",
    "Listener",
    "ListenerStatistics",
    "ReceiveStream",
    "SendStream",
    "ServerTLS",
    "TransportSettings",
    "UdpSocket",
    "open_connection",
    "open_listener",
    "open_udp_socket",
]

#: Datagrams read in one go; then the other tasks have their turn.
BURST = 64

# -- the client -----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def open_connection(
    host: str,
    port: int,
    *,
    tls: ClientTLS | None = None,
    socket: DatagramSocket | None = None,
    settings: TransportSettings | None = None,
    timeout: float = 10.0,  # noqa: ASYNC109 - shared out among the addresses, and named in the error
) -> AsyncIterator[Connection]:
    """Connect to a QUIC server and verify who it is; leaving the block closes the connection with code 0.

    ``timeout`` (seconds) bounds name lookup and handshake together. Everything that keeps a connection from coming
    about is one :class:`ConnectError`. A later loss is not raised by the block itself but by what is done with the
    connection. When the block is cancelled, or fails, the connection is still closed in order, within
    ``settings.close_timeout``.
    """
    tls = ClientTLS() if tls is None else tls
    settings = TransportSettings() if settings is None else settings
    with contextlib.ExitStack() as resources, _leaving_bare():
        attempt = _Attempt(host, port, tls, settings, socket, trio.current_time() + timeout, resources)
        async with trio.open_nursery() as nursery:
            connection = await attempt.connect(nursery)
            try:
                yield connection
            finally:
                await connection.aclose()


class _ClientSide:
    """A connection and the socket it has to itself."""

    def __init__(self, socket: DatagramSocket) -> None:
        self._socket = socket
        self.connection: Connection

    def poll(self) -> None:
        now = trio.current_time()
        for _ in range(BURST):
            try:
                datagram, source = self._socket.receive()
            except BlockingIOError:
                break
            except OSError as error:
                self.connection._path_failed(error)
            else:
                self.connection._receive(datagram, source, now)
        self.connection._pump()

    async def run(self) -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                await self.connection._run()
                nursery.cancel_scope.cancel()

    async def _read(self) -> None:
        while True:
            await self._socket.wait_readable()
            self.poll()


@attrs.define(eq=False)
class _Attempt:
    """The way to one established connection: a name, its addresses, and what went wrong with each."""

    _host: str
    _port: int
    _tls: ClientTLS
    _settings: TransportSettings
    _socket: DatagramSocket | None
    _deadline: float
    _resources: contextlib.ExitStack

    @property
    def _where(self) -> str:
        return describe((self._host, self._port))

    async def connect(self, nursery: trio.Nursery) -> Connection:
        configuration = self._configure()
        addresses = await self._look_up()
        while True:
            family, address = addresses.pop(0)
            # A silent address must not use up the time of the ones behind it.
            patience = (self._deadline - trio.current_time()) / (len(addresses) + 1)
            try:
                return await self._shake_hands(nursery, configuration, family, address, patience)
            except _Unreachable as unreachable:
                if not addresses:
                    raise unreachable.verdict from None

    def _configure(self) -> QuicConfiguration:
        keylog: TextIO | None = None
        try:
            if self._tls.keylog is not None:
                keylog = self._resources.enter_context(open(self._tls.keylog, "a"))  # noqa: SIM115
            return client_configuration(self._settings, self._tls, self._host, keylog)
        except (OSError, ValueError) as error:
            what = "the CA given as bytes" if isinstance(self._tls.ca, bytes) else f"the CA file {self._tls.ca}"
            raise ConnectError(
                f"{what} cannot be used ({error}); it has to hold at least one certificate in PEM form"
            ) from error

    async def _look_up(self) -> list[tuple[int, Address]]:
        try:
            with trio.fail_at(self._deadline):
                if self._socket is not None:
                    return [(0, await self._socket.resolve(self._host, self._port))]
                return await resolve(self._host, self._port)
        except OSError as error:
            raise ConnectError(
                f"the name {self._host!r} cannot be resolved ({error.strerror or error}); check its spelling and this "
                "machine's name service"
            ) from error
        except trio.TooSlowError:
            raise ConnectError(
                f"the name {self._host!r} was not resolved in time; the name service is silent"
            ) from None

    async def _shake_hands(
        self, nursery: trio.Nursery, configuration: QuicConfiguration, family: int, address: Address, patience: float
    ) -> Connection:
        try:
            socket = self._socket if self._socket is not None else self._open_socket(family, address)
        except OSError as error:
            raise _Unreachable(self._path_verdict(error, address)) from error
        side = _ClientSide(socket)
        engine = new_engine(self._settings, configuration)
        connection = side.connection = Connection(
            engine, socket, self._settings, poll=side.poll, handshake_timeout=patience
        )
        try:
            engine.connect(address, trio.current_time())
            connection._pump()
            nursery.start_soon(side.run)
            await connection._handshake_over.wait()
        finally:
            if not connection._established:
                await connection.aclose()
        if connection._established:
            return connection
        ending = connection._ending
        assert ending is not None
        if ending.error is not None:
            raise _Unreachable(self._path_verdict(ending.error, address))
        if ending.by == "silence" and not engine.has_peer:
            raise _Unreachable(self._silence_verdict(address, patience))
        raise self._handshake_verdict(ending, connection)

    def _open_socket(self, family: int, address: Address) -> UdpSocket:
        socket = UdpSocket(stdlib_socket.socket(family, stdlib_socket.SOCK_DGRAM))
        self._resources.callback(socket.close)
        socket.connect(address)
        return socket

    # -- what was wrong, and what would be right

    def _path_verdict(self, error: OSError, address: Address) -> ConnectError:
        at = f"{self._where} ({describe(address)})"
        if isinstance(error, ConnectionRefusedError):
            return ConnectError(f"nobody listens on UDP port {self._port} of {at}; is the gateway running there?")
        if error.errno == errno.EMSGSIZE:
            return ConnectError(
                f"the path to {at} does not carry datagrams of {SMALLEST_MAX_DATAGRAM_SIZE} bytes, which QUIC needs; "
                "raise the MTU of the link or tunnel (to 1280 at least)"
            )
        return ConnectError(f"{at} cannot be reached from here: {error.strerror or error}")

    def _silence_verdict(self, address: Address, patience: float) -> ConnectError:
        return ConnectError(
            f"no answer from {self._where} ({describe(address)}) within {patience:.3g} s; either nothing is there, or "
            f"a firewall drops UDP, or the path drops datagrams of {SMALLEST_MAX_DATAGRAM_SIZE} bytes (MTU below 1280)"
        )

    def _handshake_verdict(self, ending: Ending, connection: Connection) -> ConnectError:
        name = self._tls.server_name or self._host
        alert = (ending.code or 0) - QuicErrorCode.CRYPTO_ERROR
        certificate = connection._engine.peer_certificate
        if ending.by == "silence":
            return ConnectError(f"{self._where} answered, but the handshake did not complete in time; the path is bad")
        if alert == AlertDescription.no_application_protocol or (
            alert == AlertDescription.handshake_failure and "ALPN" in ending.reason
        ):
            return ConnectError(
                f"{self._where} does not speak the protocol {self._settings.alpn!r} (ALPN); is that port a gateway's?"
            )
        if ending.by == "engine" and alert == AlertDescription.certificate_expired and certificate is not None:
            return ConnectError(
                f"the certificate of {self._where} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} "
                f"to {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, which is not now; have it renewed, or set "
                "this machine's clock"
            )
        if ending.by == "engine" and alert == AlertDescription.bad_certificate:
            if "hostname" in ending.reason or "doesn't match" in ending.reason:
                return ConnectError(
                    f"the certificate of {self._where} is not for {name!r} ({ending.reason}); connect by a name it "
                    "carries, or give that name as ClientTLS(server_name=...)"
                )
            return ConnectError(
                f"the certificate of {self._where} is not signed by an authority that is trusted here "
                f"({ending.reason}); give the gateway's CA as ClientTLS(ca=...)"
            )
        who = "refused the connection" if ending.by == "peer" else "broke the handshake"
        return ConnectError(f"{self._where} {who}: {ending.reason or 'no reason given'} (code {ending.code})")


class _Unreachable(Exception):  # noqa: N818 - never leaves this file
    """This address is of no use; the next one may be."""

    def __init__(self, verdict: ConnectError) -> None:
        super().__init__()
        self.verdict = verdict


@contextlib.contextmanager
def _leaving_bare() -> Iterator[None]:
    """Let the body's exception out as it was raised. A nursery would wrap it in a group, although the tasks that it
    stands for are ours and do not fail."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        alone = group.exceptions[0]
        context = alone.__context__
        try:
            raise alone
        finally:
            alone.__context__ = context


# -- the server -----------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ListenerStatistics:
    """What a listener has seen. ``refused``: connections dropped because too many were half open."""

    connections: int
    half_open: int
    accepted: int
    refused: int
    datagrams_unroutable: int


class Listener:
    """Accepts QUIC connections on one socket. Made by :func:`open_listener`; ``async for`` gives the connections."""

    def __init__(
        self,
        socket: DatagramSocket,
        settings: TransportSettings,
        configuration: QuicConfiguration,
        nursery: trio.Nursery,
    ) -> None:
        self._socket = socket
        self._settings = settings
        self._configuration = configuration
        self._nursery = nursery
        self._by_cid: dict[bytes, Connection] = {}
        self._connections: dict[Connection, None] = {}
        self._half_open: dict[Connection, None] = {}  # still shaking hands, or not accepted yet
        self._ready: deque[Connection] = deque()
        self._arrivals = trio.lowlevel.ParkingLot()
        self._closed = False
        self._accepted = self._refused = self._unroutable = 0

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
        self._half_open.pop(connection, None)
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
            refused=self._refused,
            datagrams_unroutable=self._unroutable,
        )

    # -- datagrams

    async def _run(self) -> None:
        with trio.CancelScope(shield=True) as self._scope:
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
            if connection is not None:
                connection._receive(datagram, source, now)
                touched[connection] = None
        for connection in touched:
            connection._pump()

    def _route(self, datagram: bytes, source: Address) -> Connection | None:
        length = self._configuration.connection_id_length
        if datagram and not datagram[0] & 0x80:  # a short header: the connection id follows at once (RFC 9000 §17.3)
            connection = self._by_cid.get(datagram[1 : 1 + length])
        else:
            try:
                header = pull_quic_header(Buffer(data=datagram), host_cid_length=length)
            except ValueError:
                connection = None
            else:
                if header.packet_type is not QuicPacketType.VERSION_NEGOTIATION and self._is_foreign(header):
                    self._offer_versions(header, datagram, source)
                    return None
                connection = self._by_cid.get(header.destination_cid)
                if connection is None and header.packet_type is QuicPacketType.INITIAL:
                    connection = self._welcome(header, datagram)
        if connection is None:
            self._unroutable += 1
        return connection

    def _is_foreign(self, header: QuicHeader) -> bool:
        return header.version not in self._configuration.supported_versions

    def _offer_versions(self, header: QuicHeader, datagram: bytes, source: Address) -> None:
        """RFC 9000 §6.1. Never in answer to a small datagram, which could have a forged sender."""
        if len(datagram) >= SMALLEST_MAX_DATAGRAM_SIZE:
            answer = encode_quic_version_negotiation(
                source_cid=header.destination_cid,
                destination_cid=header.source_cid,
                supported_versions=self._configuration.supported_versions,
            )
            with contextlib.suppress(OSError):
                self._socket.send(answer, source)

    def _welcome(self, header: QuicHeader, datagram: bytes) -> Connection | None:
        if self._closed or len(datagram) < SMALLEST_MAX_DATAGRAM_SIZE:
            return None
        if len(self._half_open) >= self._settings.max_half_open:
            self._refused += 1  # the client tries again, and waits longer each time
            return None
        engine = new_engine(
            self._settings, self._configuration, original_destination_connection_id=header.destination_cid
        )
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
        on_cid(header.destination_cid, True)
        on_cid(engine.host_cid, True)
        self._connections[connection] = self._half_open[connection] = None
        self._nursery.start_soon(self._serve, connection, cids)
        return connection

    async def _serve(self, connection: Connection, cids: dict[bytes, None]) -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection._run)
                await connection._handshake_over.wait()
                if connection._established:
                    self._ready.append(connection)
                    self._arrivals.unpark()
        del self._connections[connection]
        self._half_open.pop(connection, None)
        for cid in cids:
            self._by_cid.pop(cid, None)

    async def _close(self) -> None:
        self._closed = True
        self._arrivals.unpark_all()
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                for connection in tuple(self._connections):
                    nursery.start_soon(connection.aclose)
        self._scope.cancel()


@contextlib.asynccontextmanager
async def open_listener(
    where: DatagramSocket | tuple[str, int], *, tls: ServerTLS, settings: TransportSettings | None = None
) -> AsyncIterator[Listener]:
    """Listen on a socket, or on a UDP socket of its own at (host, port). Raises OSError and ValueError for an address
    or a certificate that cannot be used.

    Leaving the block closes every connection in order, all at once, within ``settings.close_timeout``; cancellation
    too.
    """
    settings = TransportSettings() if settings is None else settings
    configuration = server_configuration(settings, tls)
    with contextlib.ExitStack() as resources, _leaving_bare():
        if isinstance(where, tuple):
            socket: DatagramSocket = await open_udp_socket(*where)
            resources.callback(socket.close)
        else:
            socket = where
        async with trio.open_nursery() as nursery:
            listener = Listener(socket, settings, configuration, nursery)
            nursery.start_soon(listener._run)
            try:
                yield listener
            finally:
                await listener._close()
