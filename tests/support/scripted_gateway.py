"""A gateway whose every word a test decides: for peers that the embedded gateway is too well behaved to be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
import trustme

from agentao_trio import ActiveCall, ClientTLS, EventType, Session, messages, open_session
from agentao_trio.errors import ConnectionLost, StreamReset
from agentao_trio.messages import MethodId
from agentao_trio.testing import MemoryNetwork
from agentao_trio.transport import BidiStream, Connection, ServerTLS, open_listener
from agentao_trio.wire import FrameDecoder, decode_request, encode_frame, encode_reply

HOST, PORT, LOOPBACK = "gateway.test", 9090, "127.0.0.1"
CREATE, ANSWER, HANGUP = EventType.CHANNEL_CREATE, EventType.CHANNEL_ANSWER, EventType.CHANNEL_HANGUP_COMPLETE

Answer = Callable[[MethodId, Any], Awaitable[Any]]


class ScriptedGateway:
    """Remembers every request and every uplink frame; answers with what ``answer`` returns.

    ``answer(method, request)`` returns a reply message, bytes to be sent as they are, None for an empty reply, or
    raises :class:`Silence` to leave the stream open.
    """

    class Silence(Exception):  # noqa: N818 - a signal, not an error
        pass

    def __init__(self, answer: Answer | None = None, *, form: str = "exclusive") -> None:
        self.requests: list[tuple[MethodId, Any, str]] = []
        #: The content of streams that carried a token, and what is done with them.
        self.tokens: list[str] = []
        self.on_token: Callable[[BidiStream], None] = BidiStream.finish
        self.uplink: list[messages.AudioFrame] = []
        self.uplink_streams = 0
        self.uplinks_finished = 0
        self.connection: Connection | None = None
        self.connected = trio.Event()
        self.form = form
        self._answer = answer
        self._clock_ms = 1_000

    def requested(self, method: MethodId) -> list[Any]:
        return [request for each, request, _ in self.requests if each is method]

    async def event(self, call_sid: str, event_type: int, **fields: Any) -> None:
        """Push one event on a stream of its own."""
        await self.stream(self.event_frame(call_sid, event_type, **fields))

    def event_frame(self, call_sid: str, event_type: int, **fields: Any) -> bytes:
        self._clock_ms += 10
        fields.setdefault("timestamp_ms", self._clock_ms)
        event = messages.CallEvent(call_sid=call_sid, event_type=event_type, **fields)
        return encode_frame(MethodId.StreamEvents, messages.encode(event))

    async def stream(self, data: bytes, *, end: bool = True) -> None:
        """Open a uni stream and put ``data`` on it."""
        assert self.connection is not None
        stream = await self.connection.open_uni()
        await stream.send_all(data)
        if end:
            stream.finish()

    async def run(self, connection: Connection) -> None:
        """Serve one connection until it is over."""
        self.connection = connection
        self.connected.set()
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    stream = await connection.accept()
                except (ConnectionLost, trio.EndOfChannel, trio.ClosedResourceError):
                    nursery.cancel_scope.cancel()
                    return
                if isinstance(stream, BidiStream):
                    nursery.start_soon(self._serve, stream)
                else:
                    nursery.start_soon(self._listen, stream)

    async def _serve(self, stream: BidiStream) -> None:
        data = b""
        try:
            while chunk := await stream.receive_some():
                data += chunk
            if data.startswith(b"eyJ"):
                self.tokens.append(data.decode())
                self.on_token(stream)
                return
            request = decode_request(data)
            method = messages.method_of(request.method_id)
            assert method is not None
            message = messages.decode(messages.METHODS[method].request, request.body)
            self.requests.append((method, message, request.rpc_length))
            try:
                reply = await self._answer(method, message) if self._answer is not None else None
            except self.Silence:
                return
            if isinstance(reply, bytes):
                await stream.send_all(reply)
            elif reply is not None:
                await stream.send_all(encode_reply(method, messages.encode(reply), form=self.form))
            stream.finish()
        except (StreamReset, ConnectionLost):
            pass

    async def _listen(self, stream: Any) -> None:
        self.uplink_streams += 1
        decoder = FrameDecoder()
        try:
            while chunk := await stream.receive_some():
                for frame in decoder.feed(chunk):
                    self.uplink.append(messages.decode(messages.AudioFrame, frame.body))
            self.uplinks_finished += 1
        except (StreamReset, ConnectionLost):
            pass


def accepting(call_sid: str | None = None) -> ScriptedGateway:
    """A gateway that takes every call on, under its own name for it if one is given, and confirms hangups."""

    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.Originate:
            return messages.OriginateResponse(call_sid=call_sid or request.call_sid, status="INITIATED")
        if method is MethodId.Terminate:
            await gateway.event(request.call_sid, HANGUP, q850_cause=16)
            return messages.TerminateResponse(call_sid=request.call_sid)
        return None

    gateway = ScriptedGateway(answer)
    return gateway


@asynccontextmanager
async def serving(gateway: ScriptedGateway, network: MemoryNetwork | None) -> AsyncIterator[dict[str, Any]]:
    """Run a scripted gateway, without a network on real UDP; yields what ``open_session`` needs to reach it."""
    authority = trustme.CA()
    leaf = authority.issue_cert(HOST, LOOPBACK)
    tls = ServerTLS(
        certificate_chain_pem=b"".join(each.bytes() for each in leaf.cert_chain_pems),
        private_key_pem=leaf.private_key_pem.bytes(),
    )
    where = (LOOPBACK, 0) if network is None else network.socket((HOST, PORT))
    async with open_listener(where, tls=tls) as listener, trio.open_nursery() as nursery:

        async def accept() -> None:
            async for connection in listener:
                nursery.start_soon(gateway.run, connection)

        nursery.start_soon(accept)
        host, port, *_ = listener.address
        yield {
            "endpoint": f"quic://{host}:{port}",
            "tls": ClientTLS(ca=authority.cert_pem.bytes()),
            "socket": None if network is None else network.socket(),
        }
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def session_on(
    gateway: ScriptedGateway, network: MemoryNetwork | None = None, **options: Any
) -> AsyncIterator[Session]:
    """A session with a scripted gateway on an in-memory network."""
    async with serving(gateway, network or MemoryNetwork()) as where, open_session(**where, **options) as session:
        await gateway.connected.wait()
        yield session


async def answered_call(session: Session, gateway: ScriptedGateway, **answer: Any) -> ActiveCall:
    """A call that the gateway takes on, and answers with an event of these fields."""
    call = await session.originate("+15550100001", trunk_id="main")
    await gateway.event(call.call_sid, CREATE)
    await gateway.event(call.call_sid, ANSWER, **answer)
    await call.wait_answered()
    return call


def audio(call_sid: str, number: int) -> bytes:
    """A packet of a call as its frame."""
    frame = messages.AudioFrame(call_sid=call_sid, payload=b"a" * 160, codec="PCMU", sequence_number=number)
    return encode_frame(MethodId.AudioFrame, messages.encode(frame))
