"""A client's WebSocket: taking it up, changing to it from polling, reading it, and taking leave.

Everything that is sent goes through the client's own queue once the conversation has begun, so that there is one
writer. Compression is never agreed on: a frame is encoded once and sent to everybody as it is.
"""

from __future__ import annotations

import h11
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Request, TextMessage
from wsproto.utilities import LocalProtocolError

from agentao_trio.live.client import Client
from agentao_trio.live.outbox import Parcel
from agentao_trio.live.packets import EnginePacket, EngineType, PacketError, decode_engine
from agentao_trio.services import task_nursery

__all__ = ["WebSocket"]

#: Characters of one message of a client's.
MOST_RECEIVED = 100_000
READ_BYTES = 16 * 1024
#: Seconds for taking leave of a client, however it behaves.
LEAVE_SECONDS = 0.5
#: Why we close, RFC 6455 section 7.4.1.
GOING_AWAY, PROTOCOL_ERROR = 1001, 1002


class WebSocket:
    """One WebSocket, of which the request ``head`` was read, and perhaps more than that."""

    def __init__(self, stream: trio.abc.Stream, head: h11.Request, trailing: bytes) -> None:
        self._stream = stream
        self._web = WSConnection(ConnectionType.SERVER)
        self._web.initiate_upgrade_connection(list(head.headers), head.target)
        for event in self._web.events():
            assert isinstance(event, Request)  # or wsproto had raised
        self._trailing = trailing
        self._text = ""
        #: A write was begun and not finished: no frame can follow it.
        self._is_torn = False

    async def accept(self) -> None:
        """Agree to the WebSocket."""
        await self._send(self._web.send(AcceptConnection()))
        if self._trailing:
            self._web.receive_data(self._trailing)

    async def upgrade(self, client: Client, seconds: float) -> bool:
        """Change from polling to this WebSocket, if the client goes through with it within ``seconds``.

        Raises :class:`PacketError` for a client that says something else. The session goes on polling then.
        """
        client.is_upgrading = True
        try:
            with trio.move_on_after(seconds):
                if await self._receive(client) != EnginePacket(EngineType.PING, "probe"):
                    raise PacketError("an upgrade begins with a probe")
                await self._send(self._web.send(TextMessage(EnginePacket(EngineType.PONG, "probe").encode())))
                client.let_poll_go()
                packet = await self._receive(client)
                if packet is None or packet.type is not EngineType.UPGRADE:
                    raise PacketError("the upgrade was not gone through with")
                if client.is_closed:
                    return False
                client.upgraded()
                return True
        finally:
            client.is_upgrading = False
        return False

    async def converse(self, client: Client) -> None:
        """Send what waits for the client and take what it says, until one of the two ends or this is cancelled."""
        code = GOING_AWAY
        try:
            async with task_nursery() as nursery:

                async def write() -> None:
                    await client.write(self._send)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(write)
                while (packet := await self._receive(client)) is not None:
                    client.received(packet)
        except PacketError:
            code = PROTOCOL_ERROR
            raise
        finally:
            client.close()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVE_SECONDS):
                await self._leave(code)

    async def _send(self, data: bytes) -> None:
        self._is_torn = True
        await self._stream.send_all(data)
        self._is_torn = False

    async def _receive(self, client: Client) -> EnginePacket | None:
        """The next packet; None when the client closes."""
        while True:
            for event in self._web.events():
                match event:
                    case TextMessage():
                        self._text += event.data
                        if len(self._text) > MOST_RECEIVED:
                            raise PacketError("the message is too long")
                        if event.message_finished:
                            text, self._text = self._text, ""
                            return decode_engine(text)
                    case BytesMessage():
                        raise PacketError("binary messages are not taken here")
                    case Ping():
                        client.outbox.put_first(Parcel("", self._web.send(event.response())))
                        client.wake()
                    case CloseConnection():
                        return None
            data = await self._stream.receive_some(READ_BYTES)
            if not data:
                return None
            self._web.receive_data(bytes(data))

    async def _leave(self, code: int) -> None:
        """Say why, and let the client have it before the connection goes."""
        if self._is_torn:
            return
        try:
            await self._stream.send_all(self._web.send(CloseConnection(code=code)))
            while await self._stream.receive_some(READ_BYTES):
                pass
        except (LocalProtocolError, trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            pass  # it has gone already
