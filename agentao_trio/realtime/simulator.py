"""A scripted model to talk to, offline: a WebSocket server on this machine, and its twin in virtual time.

::

    async with open_simulator(demo_script()) as simulator:
        async with open_realtime(simulator.url, config=SessionConfig()) as session:
            ...

    async with open_realtime("ws://scripted", config=SessionConfig(), connect=simulated(demo_script())) as session:
        ...                                             # no sockets: runs under trio.testing.MockClock as well

Both are the same :class:`~agentao_trio.realtime.model.ScriptedModel`, one per connection.
"""

from __future__ import annotations

import contextlib
import http
import itertools
import logging
import ssl
import time
from collections.abc import AsyncIterator
from functools import partial

import attrs
import trio

from agentao_trio.errors import ConnectionLost
from agentao_trio.realtime.connection import (
    LARGEST_MESSAGE,
    Connect,
    MemoryTransport,
    MessageTransport,
    WebSocketTransport,
    memory_transports,
    refused_with,
)
from agentao_trio.realtime.model import Hangup, ScriptedModel
from agentao_trio.realtime.names import Profile
from agentao_trio.realtime.script import Script
from agentao_trio.services import task_nursery

from websockets.http11 import Request, Response  # isort: skip
from websockets.trio.server import ServerConnection, serve  # isort: skip

__all__ = ["Simulator", "open_simulator", "simulated"]

#: Messages that may wait for a client that does not read, before its own are no longer read.
OUTBOX_BOUND = 512
_SILENT = logging.Logger("agentao_trio.realtime.simulator", logging.CRITICAL)
_SILENT.addHandler(logging.NullHandler())
#: Faults that are an HTTP status in place of a WebSocket, and whether only the first connection meets them.
_STATUSES = {"refuse_401": (401, False), "refuse_403": (403, False), "refuse_429": (429, True)}
_STATUSES |= {"refuse_503": (503, True)}


@attrs.frozen(kw_only=True)
class Simulator:
    """A scripted model that is listening. ``url`` is what a client connects to."""

    url: str


@contextlib.asynccontextmanager
async def open_simulator(
    script: Script,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[Simulator]:
    """A WebSocket server that plays ``script`` to each client, until the block ends. Port 0 is any free one.

    A client with the header ``OpenAI-Beta: realtime=v1`` is answered in the legacy dialect. A client that replays a
    conversation goes on in the script where that one had got to. Raises OSError where the port is taken. Leaving the
    block, also by cancellation, drops the connections.
    """
    names = map("c{}".format, itertools.count(1))
    epoch = time.time() - trio.current_time()
    arrivals = itertools.count()

    def refuse(connection: ServerConnection, request: Request) -> Response | None:
        status = _status(script, next(arrivals))
        return None if status is None else connection.respond(http.HTTPStatus(status), "refused by the script\n")

    async def play(connection: ServerConnection) -> None:
        assert connection.request is not None  # or there were no connection
        legacy = connection.request.headers.get("OpenAI-Beta") == "realtime=v1"
        await _play(script, next(names), WebSocketTransport(connection), legacy=legacy, epoch=epoch)

    async with task_nursery() as nursery:
        server = await nursery.start(
            partial(
                serve,
                play,
                port,
                host=host,
                ssl=ssl_context,
                compression=None,
                process_request=refuse,
                max_size=LARGEST_MESSAGE,
                logger=_SILENT,
            )
        )
        bound = server.listeners[0].socket.getsockname()
        yield Simulator(url=f"{'ws' if ssl_context is None else 'wss'}://{host}:{bound[1]}/v1/realtime")


def simulated(script: Script, *, profile: Profile = Profile.GA) -> Connect:
    """A connector to a model that plays ``script`` in this process, for ``open_realtime(..., connect=)``.

    Every connection is a new server with the same script, as with :func:`open_simulator`.
    """
    arrivals = itertools.count()
    epoch = 0.0

    @contextlib.asynccontextmanager
    async def connect() -> AsyncIterator[MessageTransport]:
        nonlocal epoch
        number = next(arrivals)
        if number == 0:
            epoch = time.time() - trio.current_time()
        await trio.lowlevel.checkpoint()
        status = _status(script, number)
        if status is not None:
            raise refused_with(status, "the scripted model")
        near, far = memory_transports()
        async with task_nursery() as nursery:
            name = f"c{number + 1}"
            legacy = profile is Profile.LEGACY
            nursery.start_soon(partial(_play, script, name, far, legacy=legacy, epoch=epoch), name="model")
            try:
                yield near
            finally:
                await near.aclose()

    return connect


def _status(script: Script, number: int) -> int | None:
    """What this connection is refused with, if it is."""
    for fault in script.faults:
        status, once = _STATUSES.get(fault, (None, False))
        if status is not None and not (once and number):
            return status
    return None


async def _play(
    script: Script, name: str, transport: MemoryTransport | WebSocketTransport, *, legacy: bool, epoch: float
) -> None:
    """Be the server of one connection, until it is over. ``epoch`` is the Unix time at which trio's clock was 0."""
    now = trio.current_time()
    model = ScriptedModel(script, name=name, now=now, unix_now=epoch + now, legacy=legacy)
    news = trio.lowlevel.ParkingLot()
    sent = trio.lowlevel.ParkingLot()

    async def listen() -> None:
        while True:
            try:
                data = await transport.receive()
            except ConnectionLost:
                nursery.cancel_scope.cancel()
                return
            model.receive(data, trio.current_time())
            news.unpark_all()
            while len(model.outbox) > OUTBOX_BOUND:
                await sent.park()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        while True:
            while model.outbox:
                message = model.outbox.popleft()
                if isinstance(message, Hangup):
                    await _hang_up(transport, message)
                    nursery.cancel_scope.cancel()
                    return
                try:
                    with trio.CancelScope(shield=True):
                        await transport.send(message)
                except ConnectionLost:
                    nursery.cancel_scope.cancel()
                    return
                sent.unpark_all()
            with trio.move_on_at(model.deadline):
                await news.park()
            model.advance(trio.current_time())


async def _hang_up(transport: MemoryTransport | WebSocketTransport, how: Hangup) -> None:
    if how.code == 1006:
        await transport.vanish()
    else:
        await transport.aclose(how.code, how.reason)
