"""The kit's hands: connections to the target made of transport, streams and frames alone, everything noted in a trace.

Nothing of the client is used here, so that its leniency cannot hide a fault. Faults of the path are made in
:class:`Wire`, between the engine and the socket: no privileges are needed, and they work on any machine.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import attrs
import trio

from agentao_trio import messages
from agentao_trio.conformance.limits import Limits
from agentao_trio.conformance.profile import Profile
from agentao_trio.conformance.programmes import Inconclusive
from agentao_trio.conformance.trace import Observation, Trace, What
from agentao_trio.errors import ConnectError, ConnectionLost, RemoteProtocolError, StreamReset
from agentao_trio.messages import AudioFrame, CallEvent, DialplanAction, EventType, Message, MethodId
from agentao_trio.transport import (
    BidiStream,
    ClientTLS,
    Connection,
    DatagramSocket,
    ReceiveStream,
    SendStream,
    TransportSettings,
    open_connection,
)
from agentao_trio.wire import FrameDecoder, encode_frame, encode_request

__all__ = ["Inbound", "Kit", "Link", "Wire"]

#: Seconds that anything a gateway has to do may take before a programme gives up waiting for it.
PATIENCE = 5.0
T = TypeVar("T")

METHOD_OF = {method.request: number for number, method in messages.METHODS.items()}


class Wire:
    """A :class:`~agentao_trio.transport.DatagramSocket` that loses, doubles and swaps what passes it, goes deaf, and
    changes its port. Cancellation loses nothing.

    ``open_socket`` makes the real one; a second one is made when the port changes.
    """

    def __init__(self, socket: DatagramSocket, rng: random.Random) -> None:
        self._socket = socket
        self._rng = rng
        #: Shares of datagrams, 0 to 1, in both directions.
        self.loss: float = 0.0
        self.duplication: float = 0.0
        self.reordering: float = 0.0
        #: While set, nothing passes: not out, not in, or neither.
        self.deaf = self.mute = False
        self._held: bytes | None = None
        self._waiting = trio.CancelScope()

    def __repr__(self) -> str:
        return f"<Wire, loss {self.loss:g}, duplication {self.duplication:g}, reordering {self.reordering:g}>"

    @property
    def address(self) -> Any:
        return self._socket.address

    async def resolve(self, host: str, port: int) -> Any:
        return await self._socket.resolve(host, port)

    def move(self, socket: DatagramSocket) -> None:
        """Go on from another port, as after a NAT's rebinding. The old socket is closed."""
        old, self._socket = self._socket, socket
        self._waiting.cancel()
        old.close()

    def send(self, data: bytes, to: Any) -> None:
        if self.mute or self._rng.random() < self.loss:
            return
        if self._held is not None:
            data, held, self._held = data, self._held, None
            self._socket.send(data, to)
            data = held
        elif self._rng.random() < self.reordering:
            self._held = data
            return
        self._socket.send(data, to)
        if self._rng.random() < self.duplication:
            self._socket.send(data, to)

    def receive(self) -> tuple[bytes, Any]:
        while True:
            datagram = self._socket.receive()
            if not self.deaf and self._rng.random() >= self.loss:
                return datagram

    async def wait_readable(self) -> None:
        with trio.CancelScope() as self._waiting:
            await self._socket.wait_readable()

    def close(self) -> None:
        self._socket.close()


@attrs.define(eq=False)
class Inbound:
    """One stream that the gateway opened."""

    stream: ReceiveStream
    #: What its reader runs in.
    reading: trio.CancelScope = attrs.field(factory=trio.CancelScope)


class Link:
    """One connection of the kit to the target. Made by :meth:`Kit.link`.

    Whatever is cancelled may have been carried out by the target; what came of it until then stays in the trace.
    """

    def __init__(self, kit: Kit, name: str, connection: Connection, wire: Wire, nursery: trio.Nursery) -> None:
        self.kit = kit
        self.name = name
        self.connection = connection
        self.wire = wire
        self.inbound: dict[int, Inbound] = {}
        #: Whether requests bear a token, where the profile says that they do.
        self.tokens = True
        #: Whether streams the gateway opens from now on are read.
        self.reads = True
        self._nursery = nursery
        self._uplink: SendStream | None = None
        self._sending = trio.Lock()

    def __repr__(self) -> str:
        return f"<Link {self.name} of {self.kit.client_id}, {len(self.inbound)} streams came>"

    # -- requests ---------------------------------------------------------------------------------------------------

    async def subscribe(self, client_id: str | None = None) -> None:
        """StreamEvents, with the kit's own client id unless another is given."""
        await self.ask(messages.EventStreamRequest(client_id=client_id or self.kit.client_id))

    async def ask(
        self, request: Message, *, method: int | None = None, rpc_length: str | None = None, patience: float = PATIENCE
    ) -> Any:
        """Send a request, note both directions, and return the decoded reply; None where there was none, or one that
        cannot be read: requirements look at the trace."""
        number = METHOD_OF[type(request)] if method is None else method
        if self.tokens and self.kit.profile.token_in_requests and getattr(request, "tenant_id", None) == "":
            request = attrs.evolve(request, tenant_id=self.kit.profile.token())  # type: ignore[call-arg]
        data = encode_request(number, messages.encode(request), rpc_length=rpc_length or self.kit.profile.rpc_length)
        answer = await self.exchange(data, number, patience=patience)
        try:
            return Trace.decoded_reply(answer)[1]
        except RemoteProtocolError:
            return None

    async def exchange(
        self, data: bytes, number: int, *, patience: float = PATIENCE, finish: bool = True
    ) -> Observation:
        """Send bytes on a bidirectional stream of their own, and note what comes back until it ends."""
        stream = await self._open_bidi()
        self.kit.note(What.REQUEST, self.name, stream=stream.stream_id, method=number, data=data)
        reply, how = b"", "open"
        code: int | None = None
        with trio.move_on_after(patience):
            try:
                await stream.send_all(data)
                if finish:
                    stream.finish()
                while chunk := await stream.receive_some():
                    reply += chunk
                how = "fin"
            except (StreamReset, trio.BrokenResourceError) as reset:
                how, code = ("reset", reset.code) if isinstance(reset, StreamReset) else ("lost", None)
        if how == "open":
            stream.abandon()
        return self.kit.note(
            What.REPLY, self.name, stream=stream.stream_id, method=number, data=reply, note=how, code=code
        )

    async def _open_bidi(self) -> BidiStream:
        with trio.move_on_after(PATIENCE):
            return await self.connection.open_bidi()
        raise Inconclusive("the target grants no bidirectional stream")

    # -- calls ------------------------------------------------------------------------------------------------------

    async def dial(self, role: str = "answer", *, wait: bool = True, **fields: Any) -> str:
        """Place a call to the profile's destination for ``role``; returns its sid. Raises Unsupported where the
        profile names none, Inconclusive where the target refuses."""
        to = self.kit.profile.destination(role)
        await self.kit.limits.acquire()
        call_sid = fields.pop("call_sid", None) or self.kit.new_sid()
        request = messages.OriginateRequest(
            **{
                "trunk_id": self.kit.profile.trunk,
                "to": to,
                "call_sid": call_sid,
                "client_id": self.kit.client_id,
                "default_app": DialplanAction.LOOPBACK if role == "loopback" else DialplanAction.ANSWER,
                "max_duration_ms": 60_000,
                **fields,
            }
        )
        reply = await self.ask(request)
        if reply is not None and reply.error_code:
            raise Inconclusive(f"the call to the {role} destination was refused: {reply.error_message!r}")
        call_sid = (reply.call_sid if reply is not None else "") or call_sid
        self.kit.placed(self, call_sid)
        self.kit.mark("dialled", role=role, call_sid=call_sid, to=to)
        if wait:
            await self.until(EventType.CHANNEL_CREATE, call_sid)
        return call_sid

    async def unnamed_call(self, role: str = "answer") -> str:
        """A call whose sid the gateway chooses; empty where it does not say."""
        await self.kit.limits.acquire()
        reply = await self.ask(
            messages.OriginateRequest(
                trunk_id=self.kit.profile.trunk,
                to=self.kit.profile.destination(role),
                client_id=self.kit.client_id,
                default_app=DialplanAction.ANSWER,
                max_duration_ms=20_000,
            )
        )
        call_sid: str = reply.call_sid if reply is not None and not reply.error_code else ""
        if call_sid:
            self.kit.placed(self, call_sid)
        else:
            self.kit.limits.release()
        return call_sid

    async def answered(self, role: str = "answer", **fields: Any) -> str:
        """:meth:`dial`, and wait for CHANNEL_ANSWER."""
        call_sid = await self.dial(role, wait=False, **fields)
        await self.until(EventType.CHANNEL_ANSWER, call_sid)
        return call_sid

    async def terminate(self, call_sid: str, *, wait: bool = True) -> Any:
        """Terminate, and wait for the hangup; a mark says that it has been waited for."""
        reply = await self.ask(messages.TerminateRequest(call_sid=call_sid))
        if wait:
            await self.until(EventType.CHANNEL_HANGUP_COMPLETE, call_sid)
            self.kit.mark("ended", call_sid=call_sid, by="Terminate")
        return reply

    async def execute(self, call_sid: str, action: DialplanAction, arguments: str = "") -> Any:
        """ExecuteDialplan."""
        return await self.ask(messages.ExecuteDialplanRequest(call_sid=call_sid, action=action, app_args=arguments))

    async def until(self, event_type: int, call_sid: str, *, patience: float = PATIENCE) -> CallEvent | None:
        """The call's first event of that type on this connection; None when it does not come in time."""

        def came() -> CallEvent | None:
            heard = (event for link, event in self.kit.heard if link == self.name)
            return next((each for each in heard if (each.call_sid, each.event_type) == (call_sid, event_type)), None)

        return await self.kit.until(came, patience=patience)

    # -- audio ------------------------------------------------------------------------------------------------------

    async def say(self, call_sid: str, payload: bytes, number: int, **fields: Any) -> None:
        """One packet, now, on the connection's one uplink stream."""
        frame = AudioFrame(
            **{"call_sid": call_sid, "payload": payload, "codec": "PCMU", "sequence_number": number, **fields}
        )
        await self.send(encode_frame(MethodId.AudioFrame, messages.encode(frame)))

    async def say_paced(self, call_sid: str, payloads: list[bytes], *, first: int = 0) -> None:
        """One packet every 20 ms."""
        start = trio.current_time()
        for offset, payload in enumerate(payloads):
            await trio.sleep_until(start + 0.02 * offset)
            await self.say(call_sid, payload, first + offset)

    async def send(self, data: bytes, *, stream: SendStream | None = None) -> None:
        """Bytes on the uplink stream, or on another one of ours."""
        if stream is None:
            if self._uplink is None:
                self._uplink = await self.open_uni()
            stream = self._uplink
        self.kit.note(What.SENT, self.name, stream=stream.stream_id, data=data)
        with contextlib.suppress(trio.BrokenResourceError):
            async with self._sending:
                await stream.send_all(data)

    async def open_uni(self) -> SendStream:
        """A unidirectional stream of its own."""
        with trio.move_on_after(PATIENCE):
            return await self.connection.open_uni()
        raise Inconclusive("the target grants no unidirectional stream")

    # -- what comes -------------------------------------------------------------------------------------------------

    async def _accept(self) -> None:
        with contextlib.suppress(ConnectionLost, trio.EndOfChannel, trio.ClosedResourceError):
            while True:
                stream = await self.connection.accept()
                if isinstance(stream, ReceiveStream):
                    self.kit.note(What.OPENED, self.name, stream=stream.stream_id)
                    inbound = self.inbound[stream.stream_id] = Inbound(stream)
                    if self.reads:
                        self.read(inbound)

    async def _read(self, stream: ReceiveStream) -> None:
        decoder = FrameDecoder()
        how: str = "fin"
        code: int | None = None
        try:
            while chunk := await stream.receive_some():
                for frame in decoder.feed(chunk):
                    self.kit.note(
                        What.FRAME, self.name, stream=stream.stream_id, method=frame.method_id, data=frame.body
                    )
                if decoder.error is not None:
                    how = str(decoder.error)
                    stream.stop(1)
                    break
        except StreamReset as reset:
            how, code = "reset", reset.code
        except (ConnectionLost, trio.ClosedResourceError):
            how = "lost"
        self.kit.note(
            What.ENDED, self.name, stream=stream.stream_id, note=how, code=code, facts={"left_over": decoder.end()}
        )

    def stop_reading(self, stream_id: int) -> None:
        """Read no more of a stream, and grant no more credit for it; it is not stopped."""
        self.inbound[stream_id].reading.cancel()

    def read(self, inbound: Inbound) -> None:
        """Begin to read a stream; those that came while :attr:`reads` was off are not read."""

        async def read() -> None:
            with inbound.reading:
                await self._read(inbound.stream)

        self._nursery.start_soon(read)


class Kit:
    """What a programme is handed: the target's profile, connections, and the trace that grows meanwhile.

    The trace keeps what was noted before something is cancelled.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        seed: int,
        open_socket: Callable[[], Any],
        limits: Limits,
        tag: str,
    ) -> None:
        self.profile = profile
        self.rng: random.Random = random.Random(seed)
        #: What this check's calls and subscriptions are named after; unique in the run.
        self.client_id = tag
        self._open_socket = open_socket
        self.limits = limits
        self._started = trio.current_time()
        self._observations: list[Observation] = []
        #: The events that came, with the connection they came on.
        self.heard: list[tuple[str, CallEvent]] = []
        #: The audio that came, on any connection.
        self.audio: list[AudioFrame] = []
        self._changed = trio.lowlevel.ParkingLot()
        self._sids = 0
        #: Calls that were placed and may still be there, with the connection they were placed on.
        self.open_calls: dict[str, Link] = {}

    def __repr__(self) -> str:
        observations, calls = len(self._observations), len(self.open_calls)
        return f"<Kit {self.client_id}, {observations} observations, {calls} calls open>"

    # -- the trace --------------------------------------------------------------------------------------------------

    def note(self, what: What, link: str = "", **fields: Any) -> Observation:
        """Add a line."""
        line = Observation(at=trio.current_time() - self._started, what=what, link=link, **fields)
        self._observations.append(line)
        if what is What.FRAME:
            with contextlib.suppress(RemoteProtocolError):  # requirements tell of it
                self._understand(line)
        self._changed.unpark_all()
        return line

    def _understand(self, line: Observation) -> None:
        method = messages.method_of(line.method or 0)
        if method is MethodId.StreamEvents:
            event = messages.decode(CallEvent, line.data)
            self.heard.append((line.link, event))
            if event.event_type == EventType.CHANNEL_HANGUP_COMPLETE:
                self.forget(event.call_sid)
        elif method is MethodId.AudioFrame:
            self.audio.append(messages.decode(AudioFrame, line.data))

    def mark(self, note: str, **facts: Any) -> None:
        """Say what is being done, with facts for the requirement to compare."""
        self.note(What.MARK, note=note, facts=facts)

    @property
    def trace(self) -> Trace:
        """Everything so far."""
        return Trace(self._observations)

    async def until(self, found: Callable[[], T | None], *, patience: float = PATIENCE) -> T | None:
        """What ``found`` returns, as soon as that is something; None after ``patience`` seconds. Asked at each line of
        the trace."""
        with trio.move_on_after(patience):
            while not (result := found()):
                await self._changed.park()
            return result
        return None

    # -- connections ------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def link(
        self,
        name: str = "A",
        *,
        subscribe: bool = True,
        reads: bool = True,
        tls: ClientTLS | None = None,
        settings: TransportSettings | None = None,
        present_token: bool = True,
        loss: float = 0.0,
    ) -> AsyncIterator[Link]:
        """A connection to the target, subscribed; leaving closes it with code 0.

        Raises :class:`Inconclusive` where it cannot be made; the trace says why.
        """
        host, port = self.profile.address
        connection: Connection | None = None
        try:
            with contextlib.closing(Wire(await self._open_socket(), self.rng)) as wire:
                wire.loss = loss
                async with (
                    open_connection(
                        host,
                        port,
                        tls=tls or self.profile.tls,
                        socket=wire,
                        settings=settings or self.profile.transport,
                    ) as connection,
                    trio.open_nursery() as nursery,
                ):
                    link = Link(self, name, connection, wire, nursery)
                    link.reads = reads
                    link.tokens = present_token
                    self.note(What.CONNECTED, name, facts={"unix": self.profile.clock()})
                    nursery.start_soon(link._accept)
                    if present_token:
                        await self.profile.present(connection)
                    if subscribe:
                        await link.subscribe()
                    try:
                        yield link
                    finally:
                        with trio.move_on_after(PATIENCE, shield=True):
                            await self.hang_up(link)
                        nursery.cancel_scope.cancel()
        except ConnectError as error:
            if connection is not None:
                raise
            self.note(What.REFUSED, name, note=str(error))
            raise Inconclusive(f"no connection to the target: {error}") from error
        finally:
            if connection is not None:
                self.note(What.CLOSED, name, code=connection.close_code, note=connection.close_reason)

    async def rebind(self, link: Link) -> None:
        """Have a connection's datagrams come from another port, as after a NAT forgot it."""
        link.wire.move(await self._open_socket())
        link.connection.flush()

    # -- calls ------------------------------------------------------------------------------------------------------

    def new_sid(self) -> str:
        """A call_sid that tells whose it is."""
        self._sids += 1
        return f"{self.client_id}-{self._sids}"

    def placed(self, link: Link, call_sid: str) -> None:
        """Remember a call, so that it is hung up in any case."""
        self.open_calls[call_sid] = link

    def forget(self, call_sid: str) -> None:
        """The call is over, or somebody else's to end."""
        if self.open_calls.pop(call_sid, None) is not None:
            self.limits.release()

    async def hang_up(self, link: Link) -> None:
        """End every call that was placed on this connection and has not ended."""
        for call_sid, owner in list(self.open_calls.items()):
            if owner is link:
                try:
                    await link.terminate(call_sid, wait=False)
                    await link.until(EventType.CHANNEL_HANGUP_COMPLETE, call_sid, patience=1.0)
                except (Inconclusive, ConnectionLost, trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
                finally:
                    self.forget(call_sid)
