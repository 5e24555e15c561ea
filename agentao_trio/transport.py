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
from collections.abc import AsyncIterator, Callable
from typing import TextIO
from urllib.parse import urlsplit

import attrs
import trio
from aioquic.quic.configuration import SMALLEST_MAX_DATAGRAM_SIZE, QuicConfiguration
from aioquic.quic.packet import QuicErrorCode
from aioquic.tls import AlertDescription

from agentao_trio._connection import BURST, Connection, ConnectionStatistics, Ending
from agentao_trio._datagrams import Address, DatagramSocket, UdpSocket, describe, open_udp_socket, resolve
from agentao_trio._engine import ClientTLS, ServerTLS, TransportSettings, client_configuration, new_engine
from agentao_trio._listener import Listener, ListenerStatistics, open_listener
from agentao_trio._streams import BidiStream, ReceiveStream, SendStream
from agentao_trio.errors import ConnectError
from agentao_trio.legible import legible
from agentao_trio.services import leaving_bare

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
    "parse_endpoint",
]

#: How long, in seconds, an address of several is waited for before the next one is tried.
HEAD_START = 2.0

# -- the client -----------------------------------------------------------------------------------------------------


def parse_endpoint(endpoint: str) -> tuple[str, int]:
    """``quic://HOST:PORT`` as (host, port); raises :class:`ValueError` saying what is wrong with it."""
    parts = urlsplit(endpoint)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "quic" or not parts.hostname or port is None or parts.path not in ("", "/"):
        raise ValueError(f"{endpoint!r} is not a gateway endpoint; expected quic://HOST:PORT")
    return parts.hostname, port


@contextlib.asynccontextmanager
async def open_connection(
    host: str,
    port: int,
    *,
    tls: ClientTLS | None = None,
    socket: DatagramSocket | None = None,
    settings: TransportSettings | None = None,
    timeout: float = 10.0,  # noqa: ASYNC109 - shared out among the addresses, and named in the error
    meanwhile: Callable[[float], bool] = lambda _: False,
) -> AsyncIterator[Connection]:
    """Connect to a QUIC server and verify who it is; leaving the block closes the connection with code 0.

    ``timeout`` (seconds) bounds name lookup and handshake together. Everything that keeps a connection from coming
    about is one :class:`ConnectError`. A later loss is not raised by the block itself but by what is done with the
    connection. When the block is cancelled, or fails, the connection is still closed in order, within
    ``settings.close_timeout``.

    ``meanwhile`` is called between the datagrams of a burst, for who has to be punctual and would otherwise wait for
    its end. It is told when there was nothing left to read (seconds of trio's clock); it must not wait, and tells
    whether it did anything.
    """
    tls = ClientTLS() if tls is None else tls
    settings = TransportSettings() if settings is None else settings
    with contextlib.ExitStack() as resources, leaving_bare():
        attempt = _Attempt(host, port, tls, settings, socket, trio.current_time() + timeout, resources, meanwhile)
        async with trio.open_nursery() as nursery:
            connection = await attempt.connect(nursery)
            try:
                yield connection
            finally:
                await connection.aclose()


class _ClientSide:
    """A connection and the socket it has to itself."""

    def __init__(self, socket: DatagramSocket, meanwhile: Callable[[float], bool]) -> None:
        self._socket = socket
        self._meanwhile = meanwhile
        self._all_read_at = trio.current_time()
        self.connection: Connection

    def poll(self) -> None:
        now = trio.current_time()
        for _ in range(BURST):
            try:
                datagram, source = self._socket.receive()
            except BlockingIOError:
                self._all_read_at = now
                break
            except OSError as error:
                self.connection._path_failed(error)
            else:
                self.connection._receive(datagram, source, now)
                if self._meanwhile(self._all_read_at):
                    now = trio.current_time()
        self.connection._pump()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                await self.connection._run()
                nursery.cancel_scope.cancel()

    @trio.lowlevel.enable_ki_protection
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
    _meanwhile: Callable[[float], bool]

    @property
    def _where(self) -> str:
        return describe((self._host, self._port))

    async def connect(self, nursery: trio.Nursery) -> Connection:
        configuration = self._configure()
        addresses = await self._look_up()
        while True:
            family, address = addresses.pop(0)
            patience = self._deadline - trio.current_time()
            if addresses:
                # A silent address must not use up the time of the ones behind it.
                patience = min(HEAD_START, patience / (len(addresses) + 1))
            try:
                return await self._shake_hands(nursery, configuration, family, address, patience)
            except _Unreachable as unreachable:
                if not addresses:
                    raise unreachable.verdict from None

    def _configure(self) -> QuicConfiguration:
        keylog: TextIO | None = None
        if self._tls.keylog is not None:
            try:
                keylog = self._resources.enter_context(open(self._tls.keylog, "a"))  # noqa: SIM115
            except OSError as error:
                raise ConnectError(
                    f"the key log {self._tls.keylog} cannot be written ({error.strerror})", reason="files"
                ) from error
        tls, name = self._tls, self._tls.server_name or self._host
        if not name.isascii():
            try:  # certificates and TLS have names as they are in the DNS
                tls = attrs.evolve(tls, server_name=name.encode("idna").decode("ascii"))
            except UnicodeError as error:
                raise ConnectError(f"no certificate can be for the name {name!r} ({error})", reason="name") from error
        try:
            return client_configuration(self._settings, tls, self._host, keylog)
        except (OSError, ValueError) as error:
            what = "the CA given as bytes" if isinstance(self._tls.ca, bytes) else f"the CA file {self._tls.ca}"
            raise ConnectError(
                f"{what} cannot be used ({error}); it has to hold at least one certificate in PEM form",
                reason="files",
            ) from error

    async def _look_up(self) -> list[tuple[int, Address]]:
        if not 0 < self._port < 65_536:
            raise ConnectError(f"{self._port} is not a UDP port; it has to be from 1 to 65535", reason="port")
        try:
            with trio.fail_at(self._deadline):
                if self._socket is not None:
                    return [(0, await self._socket.resolve(self._host, self._port))]
                return await resolve(self._host, self._port)
        except (OSError, ValueError) as error:  # ValueError: what no name may contain
            problem = error.strerror if isinstance(error, OSError) else error
            raise ConnectError(
                f"the name {self._host!r} cannot be resolved ({problem}); check its spelling and this machine's name "
                "service",
                reason="name",
            ) from error
        except trio.TooSlowError:
            raise ConnectError(
                f"the name {self._host!r} was not resolved in time; the name service is silent", reason="name"
            ) from None

    async def _shake_hands(
        self, nursery: trio.Nursery, configuration: QuicConfiguration, family: int, address: Address, patience: float
    ) -> Connection:
        try:
            socket = self._socket if self._socket is not None else self._open_socket(family, address)
        except OSError as error:
            raise _Unreachable(self._path_verdict(error, address)) from error
        side = _ClientSide(socket, self._meanwhile)
        engine = new_engine(self._settings, configuration)
        connection = side.connection = Connection(
            engine, socket, self._settings, poll=side.poll, handshake_timeout=patience
        )
        is_wanted = False
        try:
            engine.connect(address, trio.current_time())
            connection._pump()
            nursery.start_soon(side.run)
            await connection._handshake_over.wait()
            is_wanted = connection._established
        finally:
            if not is_wanted:  # perhaps established in the very moment in which we were cancelled
                await connection.aclose()
        if is_wanted:
            return connection
        ending = connection._ending
        assert ending is not None
        if ending.error is not None:
            raise _Unreachable(self._path_verdict(ending.error, address))
        if ending.by == "silence" and not engine.has_peer:
            raise _Unreachable(self._silence_verdict(address, patience))
        verdict = self._handshake_verdict(ending, connection)
        verdict.refused = ending.by != "silence"
        raise verdict

    def _open_socket(self, family: int, address: Address) -> UdpSocket:
        socket = UdpSocket(stdlib_socket.socket(family, stdlib_socket.SOCK_DGRAM))
        self._resources.callback(socket.close)
        socket.connect(address)
        return socket

    # -- what was wrong, and what would be right

    def _at(self, address: Address) -> str:
        number = describe(address)
        return number if number == self._where else f"{self._where} ({number})"

    def _path_verdict(self, error: OSError, address: Address) -> ConnectError:
        at = self._at(address)
        if isinstance(error, ConnectionRefusedError):
            return ConnectError(
                f"nobody listens on UDP port {self._port} of {at}; is the gateway running there?", reason="port"
            )
        if error.errno == errno.EMSGSIZE:
            return ConnectError(
                f"the path to {at} does not carry datagrams of {SMALLEST_MAX_DATAGRAM_SIZE} bytes, which QUIC needs; "
                "raise the MTU of the link or tunnel (to 1280 at least)",
                reason="mtu",
            )
        return ConnectError(f"{at} cannot be reached from here: {error.strerror or error}", reason="path")

    def _silence_verdict(self, address: Address, patience: float) -> ConnectError:
        return ConnectError(
            f"no answer from {self._at(address)} within {patience:.3g} s; either nothing is there, or "
            f"a firewall drops UDP, or the path drops datagrams of {SMALLEST_MAX_DATAGRAM_SIZE} bytes (MTU below 1280)",
            reason="silence",
        )

    def _handshake_verdict(self, ending: Ending, connection: Connection) -> ConnectError:
        name = self._tls.server_name or self._host
        alert = (ending.code or 0) - QuicErrorCode.CRYPTO_ERROR
        certificate = connection._engine.peer_certificate
        encoded = connection.peer_certificate
        if ending.by == "silence":
            return ConnectError(
                f"{self._where} answered, but the handshake did not complete in time; the path is bad", reason="slow"
            )
        if alert == AlertDescription.no_application_protocol or (
            alert == AlertDescription.handshake_failure and "ALPN" in ending.reason
        ):
            return ConnectError(
                f"{self._where} does not speak the protocol {self._settings.alpn!r} (ALPN); is that port a gateway's?",
                reason="alpn",
            )
        if ending.by == "engine" and alert == AlertDescription.certificate_expired and certificate is not None:
            return ConnectError(
                f"the certificate of {self._where} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} "
                f"to {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, which is not now; have it renewed, or set "
                "this machine's clock",
                reason="dates",
                certificate=encoded,
            )
        if ending.by == "engine" and alert == AlertDescription.bad_certificate:
            if "hostname" in ending.reason or "doesn't match" in ending.reason:
                return ConnectError(
                    f"the certificate of {self._where} is not for {name!r} ({ending.reason}); connect by a name it "
                    "carries, or give that name as ClientTLS(server_name=...)",
                    reason="host_name",
                    certificate=encoded,
                )
            return ConnectError(
                f"the certificate of {self._where} is not signed by an authority that is trusted here "
                f"({ending.reason}); give the gateway's CA as ClientTLS(ca=...)",
                reason="chain",
                certificate=encoded,
            )
        who = "refused the connection" if ending.by == "peer" else "broke the handshake"
        return ConnectError(
            f"{self._where} {who}: {legible(ending.reason) or 'no reason given'} (code {ending.code})",
            reason="handshake",
        )


class _Unreachable(Exception):  # noqa: N818 - never leaves this file
    """This address is of no use; the next one may be."""

    def __init__(self, verdict: ConnectError) -> None:
        super().__init__()
        self.verdict = verdict
