"""A UDP relay that spoils a path from outside: outages, losses, and a NAT that forgets."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

__all__ = ["Relay", "open_relay"]

_LARGEST = 65_536


class Relay:
    """Carries datagrams between whoever sends to its port and one server.

    While it is ``dark`` it loses them all, otherwise the share ``loss`` (0 to 1) in each direction. ``carried`` counts
    what it sent on, ``lost`` what it did not.
    """

    def __init__(
        self, front: trio.socket.SocketType, server: tuple[str, int], nursery: trio.Nursery, *, loss: float, seed: int
    ) -> None:
        self.dark = False
        self.loss = loss
        self.carried = 0
        self.lost = 0
        self.port: int = front.getsockname()[1]
        #: The ports it was seen at by the server, the present one last.
        self.source_ports: list[int] = []
        self._front = front
        self._server = server
        self._nursery = nursery
        self._dice = random.Random(seed)
        self._client: tuple[str, int] | None = None
        self._back: trio.socket.SocketType | None = None
        self._backs = trio.CancelScope()

    async def rebind(self) -> None:
        """Be seen at another port from now on; what still comes to the old one is lost, as behind a NAT."""
        back = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
        await back.bind(("", 0))
        self.source_ports.append(back.getsockname()[1])
        self._backs.cancel()
        self._back, self._backs = back, trio.CancelScope()
        self._nursery.start_soon(self._return, back, self._backs)

    async def run(self) -> None:
        while True:
            data, self._client = await self._front.recvfrom(_LARGEST)
            back = self._back
            if self._gets_through() and back is not None:
                await self._send(back, data, self._server)

    async def _return(self, back: trio.socket.SocketType, scope: trio.CancelScope) -> None:
        with scope, back:
            while True:
                try:
                    data = await back.recv(_LARGEST)
                except ConnectionRefusedError:
                    continue
                if self._gets_through() and self._client is not None:
                    await self._send(self._front, data, self._client)

    def _gets_through(self) -> bool:
        through = not self.dark and self._dice.random() >= self.loss
        self.lost += not through
        return through

    async def _send(self, socket: trio.socket.SocketType, data: bytes, to: tuple[str, int]) -> None:
        try:
            await socket.sendto(data, to)
        except OSError:
            self.lost += 1  # nobody is there at present, a link is down, or the socket has just been replaced
        else:
            self.carried += 1


@asynccontextmanager
async def open_relay(
    server: tuple[str, int], *, host: str = "127.0.0.1", loss: float = 0.0, seed: int = 0
) -> AsyncIterator[Relay]:
    """A relay to ``server`` on a free port of ``host``."""
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as front:
        await front.bind((host, 0))
        async with trio.open_nursery() as nursery:
            relay = Relay(front, server, nursery, loss=loss, seed=seed)
            await relay.rebind()
            nursery.start_soon(relay.run)
            yield relay
            nursery.cancel_scope.cancel()
