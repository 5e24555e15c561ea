"""HTTP and WebSocket for the dashboard: one connection at a time, from its first byte to its last.

h11 reads and writes HTTP; what is here decides who is let in, and whether a connection becomes a WebSocket. Whatever a
client sends ends at most its own connection and session.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import attrs
import h11
import msgspec
import trio
from wsproto.utilities import RemoteProtocolError as WebSocketError

from agentao_trio.live.client import Client, Counters, Pace, parcel
from agentao_trio.live.packets import (
    EnginePacket,
    EngineType,
    PacketError,
    decode_engine,
    decode_payload,
    encode_payload,
)
from agentao_trio.live.websocket import WebSocket

__all__ = ["Door", "Files", "is_loopback", "read_files"]

#: Bytes of one message, and of the body of one request, of a client's.
MOST_RECEIVED = 100_000
#: Bytes of the answer to one poll.
MOST_POLLED = 1_000_000
READ_BYTES = 16 * 1024
#: Seconds between two requests on one connection.
IDLE_SECONDS = 75.0

Files = Mapping[str, tuple[str, bytes]]

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
#: Nothing but what is served here: no inline script or style, no other host, no frame around it.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SAFE = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}
#: Engine.IO's errors by number, with the status that they go with.
_ERRORS = {
    0: (400, "Transport unknown"),
    1: (400, "Session ID unknown"),
    2: (400, "Bad handshake method"),
    3: (400, "Bad request"),
    4: (403, "Forbidden"),
    5: (400, "Unsupported protocol version"),
}


def read_files(directory: Path) -> Files:
    """What is served of a directory, by its path on the server. Blocks while it reads."""
    files = {
        f"/{path.name}": (_TYPES[path.suffix], path.read_bytes())
        for path in directory.iterdir()
        if path.suffix in _TYPES
    }
    if "/index.html" in files:
        files["/"] = files["/index.html"]
    return files


def is_loopback(host: str) -> bool:
    """Whether a host's name or address can only be this machine."""
    host = host.strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Refused(Exception):  # noqa: N818 - it is an answer more than an error
    """Answer with one of Engine.IO's errors."""

    def __init__(self, code: int) -> None:
        self.code = code


@attrs.frozen(kw_only=True)
class _Asked:
    """A request: its head, and its body once that is read."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    raw: h11.Request
    body: bytes = b""

    @property
    def is_websocket(self) -> bool:
        return self.headers.get("upgrade", "").lower() == "websocket"


@attrs.define(eq=False, kw_only=True)
class Door:
    """Takes connections, lets clients in, and shows the page."""

    #: Makes a client that is heard and sent to from now on; None where there are too many.
    admit: Callable[[str], Client | None]
    clients: Mapping[str, Client]
    files: Files
    #: Further origins that may connect, beside the page's own.
    origins: Collection[str]
    #: Without tokens, only requests that name this machine are answered: any page could have its own name point here.
    only_loopback: bool
    pace: Pace
    counters: Counters

    async def answer(self, stream: trio.abc.Stream) -> None:
        """Serve one connection to its end. Cancelled, it takes leave of a WebSocket with 1001 and closes."""
        async with stream:
            try:
                await _Connection(self, stream).run()
            except* (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # it is gone, which is no news about anybody else
            except* (h11.RemoteProtocolError, WebSocketError, PacketError):
                self.counters.packets_refused += 1


def _read_head(head: h11.Request) -> _Asked:
    target = urlsplit(head.target.decode("latin-1"))
    return _Asked(
        method=head.method.decode("latin-1"),
        path=target.path,
        query={name: values[0] for name, values in parse_qs(target.query, max_num_fields=20).items()},
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers},
        raw=head,
    )


class _Connection:
    """One connection of a client or a browser."""

    def __init__(self, door: Door, stream: trio.abc.Stream) -> None:
        self._door = door
        self._stream = stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=READ_BYTES)

    async def run(self) -> None:
        while (asked := await self._next_request()) is not None:
            try:
                if asked.is_websocket:
                    await self._websocket(asked)
                    return
                await self._respond_to(asked)
            except _Refused as refused:
                self._door.counters.refused += 1
                status, message = _ERRORS[refused.code]
                await self._respond(asked, status, msgspec.json.encode({"code": refused.code, "message": message}))
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    # -- requests -----------------------------------------------------------------------------------------------------

    async def _next_request(self) -> _Asked | None:
        """The next request with its body; None where no further one comes."""
        with trio.move_on_after(IDLE_SECONDS):
            head = await self._next_event()
            if not isinstance(head, h11.Request):
                return None
            asked = _read_head(head)
            if asked.is_websocket:
                return asked
            body = bytearray()
            with trio.move_on_after(self._door.pace.request_timeout):
                while isinstance(event := await self._next_event(), h11.Data):
                    body += event.data
                    if len(body) > MOST_RECEIVED:
                        await self._respond(asked, 413, b"")
                        return None
                return attrs.evolve(asked, body=bytes(body))
        return None

    async def _next_event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                assert not isinstance(event, type) or event is h11.PAUSED  # the other sentinel was looked at
                return event
            self._http.receive_data(bytes(await self._stream.receive_some(READ_BYTES)))

    async def _respond(
        self, asked: _Asked, status: int, body: bytes, content_type: str = "application/json", **more: str
    ) -> None:
        headers = {**_SAFE, "content-type": content_type, "content-length": str(len(body)), **more}
        if (origin := asked.headers.get("origin", "")) in self._door.origins:
            headers |= {"access-control-allow-origin": origin, "vary": "origin"}
        data = self._http.send(h11.Response(status_code=status, headers=list(headers.items()))) or b""
        if asked.method != "HEAD":
            data += self._http.send(h11.Data(data=body)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        with trio.move_on_after(self._door.pace.write_timeout) as patience:
            await self._stream.send_all(data)
        if patience.cancelled_caught:
            self._door.counters.write_timeouts += 1
            raise trio.BrokenResourceError("the client does not take the response")

    async def _respond_to(self, asked: _Asked) -> None:
        if not self._names_us(asked):
            await self._respond(asked, 421, b"this server is asked for by its own name only", "text/plain")
        elif asked.path.rstrip("/") == "/socket.io":
            await self._poll(asked)
        elif asked.method not in ("GET", "HEAD"):
            await self._respond(asked, 405, b"", allow="GET, HEAD")
        elif (file := self._door.files.get(asked.path)) is not None:
            await self._respond(asked, 200, file[1], file[0])
        else:
            await self._respond(asked, 404, b"there is nothing here", "text/plain")

    def _names_us(self, asked: _Asked) -> bool:
        host = urlsplit(f"//{asked.headers.get('host', '')}").hostname or ""
        return not self._door.only_loopback or is_loopback(host)

    def _check(self, asked: _Asked) -> None:
        """Whether this is Engine.IO 4, from a page of ours or from no page."""
        origin = asked.headers.get("origin")
        if origin is not None and origin not in self._door.origins:
            ours = urlsplit(origin).netloc
            if not ours or ours != asked.headers.get("host"):
                raise _Refused(4)
        if not self._names_us(asked):
            raise _Refused(4)
        if asked.query.get("EIO") != "4":
            raise _Refused(5)

    def _known(self, asked: _Asked) -> Client:
        client = self._door.clients.get(asked.query["sid"])
        if client is None:
            raise _Refused(1)
        return client

    def _admit(self, asked: _Asked, transport: str) -> tuple[Client, str]:
        client = self._door.admit(transport)
        if client is None:
            raise _Refused(3)
        pace = self._door.pace
        opening = {
            "sid": client.sid,
            "upgrades": ["websocket"] if transport == "polling" else [],
            "pingInterval": round(pace.ping_interval * 1000),
            "pingTimeout": round(pace.ping_timeout * 1000),
            "maxPayload": MOST_RECEIVED,
        }
        return client, EnginePacket(EngineType.OPEN, msgspec.json.encode(opening).decode()).encode()

    # -- polling ------------------------------------------------------------------------------------------------------

    async def _poll(self, asked: _Asked) -> None:
        self._check(asked)
        if asked.query.get("transport") != "polling":
            raise _Refused(0 if asked.query.get("transport") != "websocket" else 3)
        if "sid" not in asked.query:
            if asked.method != "GET":
                raise _Refused(2)
            await self._respond_text(asked, self._admit(asked, "polling")[1])
            return
        client = self._known(asked)
        if client.transport != "polling":
            raise _Refused(3)
        if asked.method == "GET":
            await self._respond_text(asked, await self._wait_for_packets(client))
        elif asked.method == "POST":
            try:
                for packet in decode_payload(asked.body.decode()):
                    client.received(packet)
            except (PacketError, UnicodeDecodeError):
                self._door.counters.packets_refused += 1
                client.close()
                raise _Refused(3) from None
            await self._respond_text(asked, "ok")
        else:
            raise _Refused(3)

    async def _respond_text(self, asked: _Asked, text: str) -> None:
        await self._respond(asked, 200, text.encode(), "text/plain; charset=UTF-8")

    async def _wait_for_packets(self, client: Client) -> str:
        if client.is_polled:  # two polls at once would tear the order of the packets apart
            client.close()
            raise _Refused(3)
        client.is_polled = True
        try:
            while not (client.is_closed or client.outbox or client.poll_ends):
                await client.changed()
        finally:
            client.is_polled = client.poll_ends = False
        if client.is_closed:
            return EngineType.NOOP.value if client.has_left else EngineType.CLOSE.value
        if client.transport != "polling":
            return EngineType.NOOP.value
        return encode_payload([each.text for each in client.take(MOST_POLLED)]) or EngineType.NOOP.value

    # -- WebSockets ---------------------------------------------------------------------------------------------------

    async def _websocket(self, asked: _Asked) -> None:
        self._check(asked)
        if asked.query.get("transport") != "websocket":
            raise _Refused(0)
        client = self._known(asked) if "sid" in asked.query else None
        if client is not None and (client.transport != "polling" or client.is_upgrading):
            raise _Refused(3)
        if client is None:
            client, opening = self._admit(asked, "websocket")
            client.outbox.put_first(parcel(decode_engine(opening)))
        socket = WebSocket(self._stream, asked.raw, self._http.trailing_data[0])
        await socket.accept()
        if client.transport == "websocket" or await socket.upgrade(client, self._door.pace.request_timeout):
            await socket.converse(client)
