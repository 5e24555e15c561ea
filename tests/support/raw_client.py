"""A client made of streams and frames alone, so that no leniency of ours hides what a gateway does."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import attrs
import trio

from agentao_trio import messages as m
from agentao_trio.errors import ConnectionLost, StreamReset
from agentao_trio.gateway import Gateway
from agentao_trio.messages import AudioFrame, CallEvent, Message, MethodId
from agentao_trio.transport import (
    Connection,
    DatagramSocket,
    ReceiveStream,
    SendStream,
    TransportSettings,
    open_connection,
)
from agentao_trio.wire import FrameDecoder, decode_reply, encode_frame, encode_request

METHOD_OF = {method.request: number for number, method in m.METHODS.items()}


@attrs.define(eq=False)
class Inbound:
    """One stream the gateway opened."""

    stream: ReceiveStream
    things: list[CallEvent | AudioFrame] = attrs.field(factory=list)
    #: "open", "fin", "reset" or "lost"; "stopped" when the client did.
    end: str = "open"


class RawClient:
    """One connection. Everything that arrives is kept with its time, and per stream."""

    def __init__(self, connection: Connection, nursery: trio.Nursery) -> None:
        self.connection = connection
        self.nursery = nursery
        self.streams: list[Inbound] = []
        self.arrivals: list[tuple[float, CallEvent | AudioFrame]] = []
        self.reads = True
        self._changed = trio.Condition()
        self._uplink: SendStream | None = None

    # -- what arrives ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        with contextlib.suppress(ConnectionLost, trio.EndOfChannel, trio.ClosedResourceError):
            while True:
                stream = await self.connection.accept()
                assert isinstance(stream, ReceiveStream), "a gateway opens no bidirectional streams"
                self.streams.append(Inbound(stream))
                if self.reads:
                    self.nursery.start_soon(self.read, self.streams[-1])

    async def read(self, inbound: Inbound) -> None:
        decoder = FrameDecoder()
        try:
            while chunk := await inbound.stream.receive_some():
                for frame in decoder.feed(chunk):
                    await self._keep(inbound, frame.method_id, frame.body)
            inbound.end = "fin"
            assert decoder.end() == 0
        except StreamReset:
            inbound.end = "reset"
        except ConnectionLost:
            inbound.end = "lost"
        except trio.ClosedResourceError:
            inbound.end = "stopped"
        assert decoder.error is None
        async with self._changed:
            self._changed.notify_all()

    async def _keep(self, inbound: Inbound, method_id: int, body: bytes) -> None:
        assert method_id in (MethodId.AudioFrame, MethodId.StreamEvents)
        cls: type[AudioFrame] | type[CallEvent] = AudioFrame if method_id == MethodId.AudioFrame else CallEvent
        decoded = m.decode_counted(cls, body)
        assert (decoded.skipped, decoded.after) == (0, 0)
        inbound.things.append(decoded.message)
        self.arrivals.append((trio.current_time(), decoded.message))
        async with self._changed:
            self._changed.notify_all()

    @property
    def events(self) -> list[CallEvent]:
        return [thing for _, thing in self.arrivals if isinstance(thing, CallEvent)]

    def types(self, call_sid: str) -> list[int]:
        return [event.event_type for event in self.events if event.call_sid == call_sid]

    def frames(self, call_sid: str) -> list[AudioFrame]:
        return [thing for _, thing in self.arrivals if isinstance(thing, AudioFrame) and thing.call_sid == call_sid]

    def heard(self, call_sid: str) -> list[bytes]:
        """The payloads, without the end of stream."""
        return [frame.payload for frame in self.frames(call_sid) if not frame.end_of_stream]

    async def wait_for(self, event_type: int, call_sid: str = "call") -> CallEvent:
        """The call's first event of this type; waits for it, at most 60 s."""
        with trio.fail_after(60):
            async with self._changed:
                while event_type not in self.types(call_sid):
                    await self._changed.wait()
        return next(e for e in self.events if (e.call_sid, e.event_type) == (call_sid, event_type))

    # -- what is sent ---------------------------------------------------------------------------------------------

    async def ask(self, request: Message, *, method: int | None = None, rpc_length: str = "exclusive") -> Any:
        """The reply, or ``None`` when the stream ended without one. Raises StreamReset."""
        return m.decode(*await self.ask_raw(request, method=method, rpc_length=rpc_length))

    async def ask_raw(self, request: Message, *, method: int | None = None, rpc_length: str = "exclusive") -> Any:
        """The class and the body of the reply, or ``None``."""
        number = METHOD_OF[type(request)] if method is None else method
        form, body = await self.exchange(encode_request(number, m.encode(request), rpc_length=rpc_length), number)
        known = m.method_of(number)
        assert known is not None
        return (m.METHODS[known].reply, body) if form != "none" else None

    async def exchange(self, data: bytes, number: int) -> Any:
        """Send a whole request stream and read the whole reply: its form and its body."""
        stream = await self.connection.open_bidi()
        await stream.send_all(data)
        stream.finish()
        reply = b""
        while chunk := await stream.receive_some():
            reply += chunk
        return decode_reply(reply, number)

    async def subscribe(self, client_id: str = "me") -> None:
        await self.ask_raw(m.EventStreamRequest(client_id=client_id))

    async def originate(self, to: str, call_sid: str = "call", **fields: Any) -> Any:
        return await self.ask(
            m.OriginateRequest(
                **{"trunk_id": "main", "to": to, "call_sid": call_sid, "default_app": m.DialplanAction.ANSWER, **fields}
            )
        )

    async def answered(self, to: str, call_sid: str = "call", **fields: Any) -> None:
        reply = await self.originate(to, call_sid, **fields)
        assert reply.error_code == m.ErrorCode.SUCCESS, reply.error_message
        await self.wait_for(m.EventType.CHANNEL_ANSWER, call_sid)

    async def terminate(self, call_sid: str = "call") -> Any:
        return await self.ask(m.TerminateRequest(call_sid=call_sid))

    async def uplink(self) -> SendStream:
        """The one stream all audio goes on, as many clients do it."""
        if self._uplink is None:
            self._uplink = await self.connection.open_uni()
        return self._uplink

    async def say(self, payload: bytes, number: int, call_sid: str = "call", **fields: Any) -> None:
        """Send one packet, now."""
        (await self.uplink()).write(audio(payload, number, call_sid, **fields))


def audio(
    payload: bytes, number: int, call_sid: str = "call", *, method: int = MethodId.AudioFrame, **fields: Any
) -> bytes:
    frame = AudioFrame(
        **{"call_sid": call_sid, "payload": payload, "codec": "PCMU", "sequence_number": number, **fields}
    )
    return encode_frame(method, m.encode(frame))


@contextlib.asynccontextmanager
async def open_raw_client(
    gateway: Gateway,
    socket: DatagramSocket | None,
    *,
    client_id: str | None = "me",
    settings: TransportSettings | None = None,
    reads: bool = True,
) -> AsyncIterator[RawClient]:
    """Connect, and subscribe with ``client_id`` if there is one."""
    host, _, port = gateway.endpoint.removeprefix("quic://").rpartition(":")
    async with (
        open_connection(host, int(port), tls=gateway.tls, socket=socket, settings=settings) as connection,
        trio.open_nursery() as nursery,
    ):
        client = RawClient(connection, nursery)
        client.reads = reads
        nursery.start_soon(client.run)
        if client_id is not None:
            await client.subscribe(client_id)
        yield client
        nursery.cancel_scope.cancel()
