"""A client of the live server that does as it is told and no more, over streams in memory."""

from __future__ import annotations

import json
from typing import Any

import trio
import trio.testing
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)

from agentao_trio.live import LiveServer

__all__ = ["HEADERS", "Browser", "ask", "browser"]

HEADERS = "host: 127.0.0.1\r\n"


class Browser:
    """One WebSocket."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.web = WSConnection(ConnectionType.CLIENT)
        self.closed_with: int | None = None
        self.refused_with: int | None = None
        self.pongs = 0
        self._waiting: list[str] = []
        self._is_accepted = False

    async def start(self, query: str = "EIO=4&transport=websocket", origin: str = "http://127.0.0.1") -> None:
        headers = [(b"origin", origin.encode())] if origin else []
        request = Request(host="127.0.0.1", target=f"/socket.io/?{query}", extra_headers=headers)
        await self.stream.send_all(self.web.send(request))

    async def say(self, text: str | bytes) -> None:
        message = TextMessage(text) if isinstance(text, str) else BytesMessage(text)
        await self.stream.send_all(self.web.send(message))

    async def ping(self) -> None:
        await self.stream.send_all(self.web.send(Ping()))

    async def accepted(self) -> bool:
        """Whether the server agrees to the WebSocket."""
        while not self._is_accepted and await self._read():
            pass
        return self._is_accepted

    async def hear(self) -> str | None:
        """The next message; None when the connection is over."""
        while not self._waiting:
            if not await self._read():
                return None
        return self._waiting.pop(0)

    async def _read(self) -> bool:
        data = await self.stream.receive_some(65536)
        if not data:
            return False
        self.web.receive_data(bytes(data))
        for event in self.web.events():
            match event:
                case AcceptConnection():
                    self._is_accepted = True
                case TextMessage():
                    self._waiting.append(event.data)
                case Pong():
                    self.pongs += 1
                case CloseConnection():
                    self.closed_with = event.code
                    return False
                case RejectConnection():
                    self.refused_with = event.status_code
        return True

    async def connect(self, auth: str = "") -> None:
        await self.start()
        assert (await self.hear() or "").startswith("0{")
        await self.say(f"40{auth}")

    async def event(self, name: str) -> Any:
        """The arguments of the next event of that name."""
        while (text := await self.hear()) is not None:
            if text.startswith(f'42["{name}"'):
                return json.loads(text[2:])[1:]
        raise AssertionError(f"the connection is over without {name}")

    async def answer(self) -> Any:
        """What the next answer says."""
        while (text := await self.hear()) is not None:
            if text.startswith("43"):
                return json.loads(text[text.index("[") :])[0]
        raise AssertionError("the connection is over without an answer")


def browser(server: LiveServer, nursery: trio.Nursery) -> Browser:
    ours, theirs = trio.testing.memory_stream_pair()
    nursery.start_soon(server.answer, theirs)
    return Browser(ours)


async def ask(server: LiveServer, nursery: trio.Nursery, request: str) -> bytes:
    """Send one request, and return whatever comes until nothing more does."""
    ours, theirs = trio.testing.memory_stream_pair()
    nursery.start_soon(server.answer, theirs)
    await ours.send_all(request.encode())
    await ours.send_eof()
    answer = b""
    while data := await ours.receive_some():
        answer += data
    return answer
