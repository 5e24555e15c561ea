"""The embedded server of live calls: Socket.IO for dashboards, and the page that is one. Needs the extra ``live``.

::

    async with open_session("quic://gateway.example:9090") as session, live.serve(session, port=8080) as server:
        print(server.url)

Theory of operation
-------------------
The session's hub calls a plain function with every record; that only puts it aside, so that telling dashboards costs a
call nothing but that. One task takes the records out again, turns each into events, and puts these into the queues of
the clients that are in their rooms: one encoding for all. Then it wakes a few clients at a time, so that the packet
clock gets its turn between them. Each client has a writer that takes all that waits in one write.

Whatever a client does or fails to do is its own affair: too slow, it loses what waited for it and gets a snapshot; if
it takes nothing at all it is dropped. It reads only: nothing that a client could ask for changes a call.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

import attrs
import trio

try:
    import h11  # noqa: F401
    import msgspec  # noqa: F401
    import wsproto  # noqa: F401
except ModuleNotFoundError as _missing:
    raise ModuleNotFoundError(
        "agentao_trio.live needs the extra 'live': pip install 'agentao-trio[live]'", name=_missing.name
    ) from _missing

from agentao_trio.handlers import contained
from agentao_trio.hub import Hub
from agentao_trio.live.client import Client, Counters, Pace
from agentao_trio.live.desk import Desk
from agentao_trio.live.feed import Feed, FeedStatistics, LiveEvent
from agentao_trio.live.http import Door, Files, is_loopback, read_files
from agentao_trio.records import Record
from agentao_trio.services import task_nursery

__all__ = ["LiveServer", "LiveStatistics", "Pace", "serve"]

log: logging.Logger = logging.getLogger(__name__)

#: Records that may wait to become events; of more, the oldest are dropped.
MOST_RECORDS = 10_000
#: Records taken, and clients woken, before other tasks get their turn.
RECORDS_TOGETHER = 8
WAKE_TOGETHER = 32
#: Connections beyond those of the clients: browsers fetch the page over several.
MORE_CONNECTIONS = 64

_PAGE = Path(__file__).with_name("page")


class Source(Protocol):
    """A session, or anything else with a hub."""

    @property
    def hub(self) -> Hub:
        """Where its records pass through."""


@attrs.frozen(kw_only=True)
class LiveStatistics:
    """A live server's figures since it was started."""

    clients: int
    clients_polling: int
    connections: int
    clients_accepted: int
    #: Connections and clients refused: too many, no valid token, another origin, or no Engine.IO 4.
    clients_refused: int
    #: What came from clients and was no packet; each ended its client.
    packets_refused: int
    events: int
    packets_queued: int
    bytes_sent: int
    #: Bytes that wait for all clients.
    bytes_waiting: int
    #: Times that a client was too slow, lost what waited and got a snapshot instead.
    overflows: int
    #: Clients dropped: because they took nothing, did not answer, or asked for more than they read.
    write_timeouts: int
    heartbeats_missed: int
    floods: int
    #: Requests of clients refused because they made too many.
    requests_refused: int
    #: Clients that ended with an error of ours; it is logged.
    defects: int
    #: Records dropped because the program was too busy to take them.
    records_dropped: int
    feed: FeedStatistics


class LiveServer:
    """A running live server; :func:`serve` starts it."""

    def __init__(
        self,
        hub: Hub,
        *,
        nursery: trio.Nursery,
        tokens: Mapping[str, str],
        files: Files,
        origins: Collection[str],
        only_loopback: bool,
        max_clients: int,
        pace: Pace,
    ) -> None:
        #: Where the page is; set when the server listens.
        self.url = ""
        self._hub = hub
        self._nursery = nursery
        self._pace = pace
        self._max_clients = max_clients
        self._counters = Counters()
        self._connections = 0
        self._records: deque[Record] = deque(maxlen=MOST_RECORDS)
        self._some_record = trio.lowlevel.ParkingLot()
        self.feed: Feed = Feed(secrets.token_hex(8))
        self._desk = Desk(self.feed, tokens=tokens, counters=self._counters, now=lambda: hub.unix(trio.current_time()))
        self._door = Door(
            admit=self._admit,
            clients=self._desk.clients,
            files=files,
            origins=origins,
            only_loopback=only_loopback,
            pace=pace,
            counters=self._counters,
        )

    def __repr__(self) -> str:
        where = self.url or "(not listening yet)"
        return f"<LiveServer {where}, {len(self._desk.clients)} clients, {self._connections} connections>"

    def statistics(self) -> LiveStatistics:
        """A snapshot of the counts."""
        clients = tuple(self._desk.clients.values())
        counted = self._counters
        return LiveStatistics(
            clients=len(clients),
            clients_polling=sum(client.transport == "polling" for client in clients),
            connections=self._connections,
            clients_accepted=counted.accepted,
            clients_refused=counted.refused,
            packets_refused=counted.packets_refused,
            events=counted.events,
            packets_queued=counted.packets_queued,
            bytes_sent=counted.bytes_sent,
            bytes_waiting=sum(client.outbox.bytes_waiting for client in clients),
            overflows=counted.overflows + sum(client.outbox.overflows for client in clients),
            write_timeouts=counted.write_timeouts,
            heartbeats_missed=counted.heartbeats_missed,
            floods=counted.floods,
            requests_refused=counted.requests_refused,
            defects=counted.defects,
            records_dropped=counted.records_dropped,
            feed=self.feed.statistics(),
        )

    async def answer(self, stream: trio.abc.Stream) -> None:
        """Serve one connection, however it came about, to its end. Its failures are logged and go no further."""
        if self._connections >= self._max_clients + MORE_CONNECTIONS:
            self._counters.refused += 1
            await trio.aclose_forcefully(stream)
            return
        self._connections += 1
        try:
            with contained("a live client", self._failed):
                await self._door.answer(stream)
        finally:
            self._connections -= 1

    def emit(self, event: LiveEvent) -> set[Client]:
        """Put an event of the feed into the queues of those in its rooms, and return these, who have to be woken."""
        self._counters.events += 1
        return self._desk.emit(event)

    def take(self, record: Record) -> None:
        """Put a record aside for the task that makes events of it. Never waits."""
        self._counters.records_dropped += len(self._records) == MOST_RECORDS
        self._records.append(record)
        self._some_record.unpark_all()

    async def run(self) -> None:
        """Make events of the records, for ever."""
        while True:
            while not self._records:
                await self._some_record.park()
            hearers: set[Client] = set()
            # A few at once, as what waits for one client goes out in one write.
            for _ in range(min(len(self._records), RECORDS_TOGETHER)):
                for event in self.feed.record(self._records.popleft()):
                    hearers |= self.emit(event)
            await trio.lowlevel.checkpoint()
            for index, client in enumerate(hearers, 1):
                client.wake()
                if index % WAKE_TOGETHER == 0:
                    await trio.lowlevel.checkpoint()

    def _admit(self, transport: str) -> Client | None:
        if len(self._desk.clients) >= self._max_clients:
            return None
        client = Client(secrets.token_urlsafe(15), self._desk, self._pace, self._counters)
        client.transport = transport
        self._desk.clients[client.sid] = client
        self._counters.accepted += 1
        self._nursery.start_soon(client.run, name=f"heartbeat of live client {client.sid}")
        return client

    def _failed(self, what: str, error: Exception) -> None:
        self._counters.defects += 1
        log.error("%s ended with an error of ours", what, exc_info=error)


@contextlib.asynccontextmanager
async def serve(
    source: Source | Hub,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    tenants: Mapping[str, str] | None = None,
    origins: Collection[str] = (),
    max_clients: int = 1000,
    pace: Pace | None = None,
) -> AsyncIterator[LiveServer]:
    """Show the calls of a session in browsers, for as long as the block runs.

    Clients have to show ``token``, or one of ``tenants``, which maps tokens to the tenant whose calls alone they show.
    Without any, ``host`` has to be this machine's own (loopback) address: raises ValueError otherwise. ``origins`` are
    those of other pages that may connect, such as "https://desk.example"; the server's own may. ``port`` 0 takes a free
    one. Raises :class:`OSError` when it cannot listen. Leaving the block, also by cancellation, closes every client's
    connection with 1001, which makes it come back to a server that is started anew.
    """
    tokens = {**(tenants or {}), **({token: ""} if token else {})}
    if not tokens and not is_loopback(host):
        raise ValueError(f"to serve live calls on {host!r}, beyond this machine, give a token")
    if "" in tokens:
        raise ValueError("an empty token is none")
    hub = source if isinstance(source, Hub) else source.hub
    files = await trio.to_thread.run_sync(read_files, _PAGE)
    async with task_nursery() as nursery:
        server = LiveServer(
            hub,
            nursery=nursery,
            tokens=tokens,
            files=files,
            origins=origins,
            only_loopback=not tokens,
            max_clients=max_clients,
            pace=pace or Pace(),
        )
        for call in _calls(source):
            _enter(server.feed, call, hub.unix(trio.current_time()))
        detach = hub.attach(server.take)
        try:
            nursery.start_soon(server.run)
            try:
                listeners = await trio.open_tcp_listeners(port, host=host)
            except OSError as error:
                where = f"cannot listen on TCP port {port} of {host}"
                raise OSError(error.errno, f"{where}: {error.strerror or error}") from error
            for listener in listeners:
                nursery.start_soon(trio.serve_listeners, server.answer, [listener])
            name = f"[{host}]" if ":" in host else host
            server.url = f"http://{name}:{listeners[0].socket.getsockname()[1]}/"
            yield server
        finally:
            detach()


def _calls(source: Source | Hub) -> Collection[Any]:
    """The calls that a session has open already."""
    calls: Mapping[str, Any] = getattr(source, "calls", {})
    return calls.values()


def _enter(feed: Feed, call: Any, at: float) -> None:
    known = {"direction": call.direction, "caller": call.caller, "callee": call.callee, "trunk_id": call.trunk_id}
    answered = call.state.name in ("ANSWERED", "CONNECTED")
    feed.known_call(call.call_sid, known, at=at, answered_at=at if answered else None)
