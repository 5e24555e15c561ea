"""A UDP relay on localhost that can go dark: an outage on real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

__all__ = ["Relay", "open_relay"]


class Relay:
    """Carries datagrams between whoever sends to its port and one server; while it is ``dark`` it loses them."""

    def __init__(self, front: trio.socket.SocketType, server: tuple[str, int]) -> None:
        self.dark = False
        self.port: int = front.getsockname()[1]
        self._front = front
        self._server = server
        self._client: tuple[str, int] | None = None

    async def run(self, back: trio.socket.SocketType) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._there, back)
            nursery.start_soon(self._and_back, back)

    async def _there(self, back: trio.socket.SocketType) -> None:
        while True:
            data, self._client = await self._front.recvfrom(65_536)
            if not self.dark:
                await back.sendto(data, self._server)

    async def _and_back(self, back: trio.socket.SocketType) -> None:
        while True:
            data = await back.recv(65_536)
            if not self.dark and self._client is not None:
                await self._front.sendto(data, self._client)


@asynccontextmanager
async def open_relay(server: tuple[str, int]) -> AsyncIterator[Relay]:
    with (
        trio.socket.socket(type=trio.socket.SOCK_DGRAM) as front,
        trio.socket.socket(type=trio.socket.SOCK_DGRAM) as back,
    ):
        await front.bind(("127.0.0.1", 0))
        await back.bind(("127.0.0.1", 0))
        relay = Relay(front, server)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay.run, back)
            yield relay
            nursery.cancel_scope.cancel()
