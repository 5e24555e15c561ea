"""Messages to and from a model's server: a WebSocket, or two ends of memory for virtual time. Needs ``realtime``.

Theory of operation
-------------------
Everything above sees a :class:`MessageTransport`: whole messages out, whole messages in, and one way to learn that it
is over, :class:`~agentao_trio.errors.ConnectionLost` with close code and reason. A *connector* is a function that opens
one as an async context manager; it is called again for each new connection. :func:`websocket` makes one for a URL.

Compression is off: audio in base64 hardly shrinks, and deflate costs more than everything else per message. The
WebSocket library is given a logger that writes nowhere, because its debug output shows the headers, and one of them is
the key. No message of an exception holds a key, a query string of the URL or what the server said about the key.

A ping is sent every ``PING_INTERVAL`` seconds, and an answer that takes longer than ``PING_TIMEOUT`` ends the
connection with close code 1011. The library wants the timeout to be no longer than the interval.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol
from urllib.parse import urlsplit

import trio
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI, ProxyError
from websockets.trio.client import connect as open_websocket
from websockets.trio.connection import Connection

from agentao_trio.errors import AuthenticationError, ConnectError, ConnectionLost
from agentao_trio.legible import quoted

__all__ = [
    "RECOVERABLE_CLOSE_CODES",
    "Connect",
    "MemoryTransport",
    "MessageTransport",
    "WebSocketTransport",
    "address",
    "is_secret",
    "lost",
    "memory_transports",
    "refused_with",
    "websocket",
]

#: Close codes after which a new connection is worth trying (RFC 6455 §7.4.1 and the registry): going away, no code,
#: vanished, internal error, restart, try again later, TLS failure. Anything else is an answer, and final.
RECOVERABLE_CLOSE_CODES = frozenset({1001, 1005, 1006, 1011, 1012, 1013, 1015})

#: Seconds between two pings, and seconds that the answer to one may take.
PING_INTERVAL = 15.0
PING_TIMEOUT = 10.0
#: Seconds that opening a connection may take, and seconds that closing one may.
OPEN_TIMEOUT = 10.0
CLOSE_TIMEOUT = 2.0
#: The largest message taken, in bytes: a server that sends faster than real time puts seconds of audio in one.
LARGEST_MESSAGE = 16 << 20
#: Messages on their way in memory before ``send`` waits.
MEMORY_BOUND = 64


class MessageTransport(Protocol):
    """Whole messages in both directions. One task sends at a time, and one receives."""

    async def send(self, data: str | bytes) -> None:
        """Send one text message. Raises :class:`ConnectionLost` once the connection is over.

        Not to be cancelled halfway: shield it. A part of a message on the wire is the end of the connection.
        """

    async def receive(self) -> bytes:
        """The next message. Raises :class:`ConnectionLost`, with code and reason, when there is none any more.

        Cancelling it loses nothing.
        """

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """Close, saying why. Harmless when repeated. Cancelled, it closes without saying goodbye."""


#: Opens a connection. Leaving it closes the connection.
Connect = Callable[[], AbstractAsyncContextManager[MessageTransport]]


def address(url: str) -> str:
    """``url`` without its query, user and password, which may hold keys: fit for logs and messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


# -- over a WebSocket -----------------------------------------------------------------------------------------------

_SILENT = logging.Logger("agentao_trio.realtime.websocket", logging.CRITICAL)
_SILENT.addHandler(logging.NullHandler())

_CLOSE_WORDS: Mapping[int, str] = {
    1000: "the server ended the conversation",
    1001: "the server is going away",
    1005: "the server closed the connection without saying why",
    1006: "the connection vanished",
    1008: "the server says that this breaks its rules",
    1009: "a message was too large",
    1011: "the server failed, or stopped answering pings",
    1012: "the server restarts",
    1013: "the server asks to try again later",
    1015: "the connection's TLS failed",
}


def lost(code: int, reason: str) -> ConnectionLost:
    """The error for a connection that closed with this code and reason (RFC 6455 §7.4)."""
    words = _CLOSE_WORDS.get(code, "the server closed the connection")
    said = f": {quoted(reason)}" if reason else ""
    return ConnectionLost(f"{words} (close code {code}){said}", code=code, reason=reason)


def is_secret(header: str) -> bool:
    """Whether what stands in a header of this name opens doors."""
    return header.lower() in {"authorization", "api-key", "x-api-key", "x-goog-api-key"}


class WebSocketTransport:
    """A :class:`MessageTransport` over an open WebSocket of either side."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __repr__(self) -> str:
        return f"<WebSocketTransport over {self._connection!r}>"

    async def send(self, data: str | bytes) -> None:
        """See :class:`MessageTransport`."""
        try:
            await self._connection.send(data, text=True)
        except ConnectionClosed as closed:
            raise _lost(closed) from None

    async def receive(self) -> bytes:
        """See :class:`MessageTransport`."""
        try:
            return await self._connection.recv(decode=False)
        except ConnectionClosed as closed:
            raise _lost(closed) from None

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """See :class:`MessageTransport`."""
        await self._connection.aclose(code, reason)
        await trio.lowlevel.checkpoint()  # closing swallows a cancellation

    async def vanish(self) -> None:
        """Drop the connection without a closing handshake, as a cable does; also when cancelled."""
        await trio.aclose_forcefully(self._connection.stream)


def _lost(closed: ConnectionClosed) -> ConnectionLost:
    frame = closed.rcvd or closed.sent
    return lost(frame.code if frame is not None else 1006, frame.reason if frame is not None else "")


def websocket(
    url: str,
    *,
    headers: Mapping[str, str],
    ssl_context: ssl.SSLContext | None = None,
    ping_interval: float = PING_INTERVAL,
    ping_timeout: float = PING_TIMEOUT,
) -> Connect:
    """A connector for a ``ws://`` or ``wss://`` URL. Certificates are verified unless ``ssl_context`` says otherwise.

    Raises ValueError for another kind of URL, for an ``Authorization`` header that would travel in the clear to
    another machine, and for a ``ping_timeout`` longer than ``ping_interval``.

    Opening raises :class:`AuthenticationError` where the server answers 401 or 403 and :class:`ConnectError` for
    everything else; ``refused`` says that trying again will not help. Errors say what to do, and never hold a key.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"ws", "wss"} or not parts.hostname:
        raise ValueError(f"{quoted(address(url))} is not the address of a model: it has to begin with wss:// or ws://")
    if any(map(is_secret, headers)) and parts.scheme == "ws" and not _is_local(parts.hostname):
        raise ValueError(f"a key is not sent in the clear to {parts.hostname}; use wss://")
    if ping_timeout > ping_interval:
        raise ValueError(f"ping_timeout ({ping_timeout} s) is not to be longer than ping_interval ({ping_interval} s)")
    options: dict[str, Any] = {} if parts.scheme == "ws" else {"ssl": ssl_context}

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[MessageTransport]:
        manager = open_websocket(
            url,
            compression=None,
            additional_headers=dict(headers),
            open_timeout=OPEN_TIMEOUT,
            close_timeout=CLOSE_TIMEOUT,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            max_size=LARGEST_MESSAGE,
            logger=_SILENT,
            **options,
        )
        try:
            connection = await manager.__aenter__()
        except (InvalidHandshake, InvalidURI, ProxyError, OSError, trio.BrokenResourceError) as error:
            raise _refusal(error, url) from None
        try:
            yield WebSocketTransport(connection)
        finally:
            await manager.__aexit__(None, None, None)

    return connect


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refusal(error: BaseException, url: str) -> ConnectError | AuthenticationError:
    """What kept a connection from opening, in plain words and without anything secret."""
    where = address(url)
    if isinstance(error, InvalidStatus):
        return refused_with(error.response.status_code, where)
    if isinstance(error, TimeoutError):
        return ConnectError(f"{where} took longer than {OPEN_TIMEOUT:g} s to answer", reason="slow")
    if isinstance(error, trio.BrokenResourceError):
        cause = error.__cause__
        if isinstance(cause, ssl.SSLCertVerificationError):
            words = f"the certificate of {where} is not trusted: {cause.verify_message}"
            return ConnectError(words, reason="chain", refused=True)
        return ConnectError(f"{where} does not complete a TLS handshake", reason="handshake")
    if isinstance(error, OSError):
        return ConnectError(f"{where} cannot be reached: {error.strerror or error}", reason="port")
    return ConnectError(f"{where} does not speak WebSocket ({type(error).__name__})", reason="handshake", refused=True)


def refused_with(status: int, where: str) -> ConnectError | AuthenticationError:
    """The error for an HTTP status in place of a WebSocket."""
    if status == 401:
        return AuthenticationError(
            f"{where} does not accept the key (HTTP 401): check that it is given, complete and not revoked"
        )
    if status == 403:
        return AuthenticationError(
            f"{where} knows the key, and does not allow this with it (HTTP 403): "
            "check that its project may use the model, from this region"
        )
    if status == 429:
        return ConnectError(f"{where} has too many requests or no quota left (HTTP 429)", reason="busy")
    if status >= 500:
        return ConnectError(f"{where} is not available (HTTP {status})", reason="unavailable")
    return ConnectError(
        f"{where} does not offer this (HTTP {status}): check the path and the model's name",
        reason="status",
        refused=True,
    )


# -- in memory ------------------------------------------------------------------------------------------------------


class MemoryTransport:
    """One end of a pair in memory; see :func:`memory_transports`."""

    def __init__(self, outbox: trio.MemorySendChannel[bytes], inbox: trio.MemoryReceiveChannel[bytes]) -> None:
        self._outbox = outbox
        self._inbox = inbox
        self._peer: MemoryTransport = self
        self._closed: tuple[int, str] | None = None

    def __repr__(self) -> str:
        state = "open" if self._closed is None else f"closed with {self._closed[0]}"
        return f"<MemoryTransport {state}>"

    async def send(self, data: str | bytes) -> None:
        """See :class:`MessageTransport`."""
        try:
            await self._outbox.send(data.encode() if isinstance(data, str) else data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._lost() from None

    async def receive(self) -> bytes:
        """See :class:`MessageTransport`. What was sent before the other end closed still arrives."""
        try:
            return await self._inbox.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise self._lost() from None

    async def aclose(self, code: int = 1000, reason: str = "") -> None:
        """See :class:`MessageTransport`. Code 1006 is how a connection that vanished looks."""
        if self._closed is None:
            self._closed = (code, reason)
            self._outbox.close()
            self._inbox.close()
        await trio.lowlevel.checkpoint()

    async def vanish(self) -> None:
        """Drop the connection without a closing handshake, as a cable does; also when cancelled."""
        await self.aclose(1006)

    def _lost(self) -> ConnectionLost:
        return lost(*(self._closed or self._peer._closed or (1006, "")))


def memory_transports(bound: int = MEMORY_BOUND) -> tuple[MemoryTransport, MemoryTransport]:
    """Two ends of a connection in this process, with room for ``bound`` messages each way."""
    there, here = trio.open_memory_channel[bytes](bound), trio.open_memory_channel[bytes](bound)
    near, far = MemoryTransport(there[0], here[1]), MemoryTransport(here[0], there[1])
    near._peer, far._peer = far, near
    return near, far
