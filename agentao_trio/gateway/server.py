"""The embedded gateway on the network: the model's behaviour over real QUIC (or an in-memory network).

Theory of operation
-------------------
The model is synchronous and knows no I/O, so this module only carries: requests and uplink frames to the model, its
replies and effects to the network, the time to both. Whoever has given the model something to do calls
:meth:`Gateway._carry_out`, which sends what came of it and moves the one alarm for the model's timers. One packet clock
serves all calls; each call has a place on it.

Per connection there are: the accepting task, one task per stream the client has opened, and the downlink's task. A
request's stream that cannot be read is abandoned alone, as is an uplink stream that goes wrong. When a connection ends
its tasks end, and its calls stay.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.resources
import math
import os
import random
import re
import stat
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import datetime

import attrs
import trio
import trustme

from agentao_trio import messages
from agentao_trio.close_codes import CloseCode
from agentao_trio.errors import ConnectionLost, RemoteProtocolError, StreamReset
from agentao_trio.gateway.calls import Call
from agentao_trio.gateway.commands import invalid
from agentao_trio.gateway.downlink import Downlink
from agentao_trio.gateway.effects import Resume, SendAudio, SendEvents, Speak
from agentao_trio.gateway.fault import Fault, Oddity
from agentao_trio.gateway.faults import chosen
from agentao_trio.gateway.leg import Handset
from agentao_trio.gateway.meddling import GatewayHands, MeddlingSocket
from agentao_trio.gateway.model import GatewayModel, GatewayStatistics
from agentao_trio.gateway.settings import GatewaySettings
from agentao_trio.gateway.silence import Silence
from agentao_trio.gateway.subscriptions import Peer
from agentao_trio.messages import METHODS, AudioFrame, Message, MethodId
from agentao_trio.pacing import ClockStatistics, PacketClock, Slot
from agentao_trio.services import task_nursery
from agentao_trio.transport import (
    BidiStream,
    ClientTLS,
    Connection,
    DatagramSocket,
    Listener,
    ListenerStatistics,
    ReceiveStream,
    ServerTLS,
    TransportSettings,
    open_listener,
    open_udp_socket,
)
from agentao_trio.wire import MAX_FRAME_LENGTH, FrameDecoder, Request, decode_request, encode_reply

__all__ = ["Gateway", "ServerStatistics", "open_gateway"]

# How long a request may take to arrive, and how long one stays open that is never answered.
_REQUEST_SECONDS = 30.0
_WITHHELD_SECONDS = 120.0
_CLOSE_SECONDS = 2.0
_MAX_REQUEST = MAX_FRAME_LENGTH + 8
_MAX_TOKEN = 1 << 16
# Four such characters, read as a length, claim more than any request may have: a stream that begins with them carries
# a token and nothing else (PROTOCOL section 2.3).
_TOKEN_BEGINS = re.compile(rb"[A-Za-z0-9_-]{4}")


@attrs.define(eq=False)
class _Counters:
    connections: int = 0
    requests: int = 0
    requests_unreadable: int = 0
    frames_unknown: int = 0
    frames_undecodable: int = 0
    frames_short: int = 0
    streams_abandoned: int = 0
    streams_reset: int = 0
    streams_truncated: int = 0


@attrs.frozen(kw_only=True)
class ServerStatistics:
    """A snapshot of everything that is counted."""

    model: GatewayStatistics
    clock: ClockStatistics
    listener: ListenerStatistics
    #: Accepted so far.
    connections: int
    requests: int
    #: Requests whose frame or method could not be made out; their streams were reset.
    requests_unreadable: int
    #: Frames on uplink streams: of another method than AudioFrame, with a body that is none, too short for a method.
    frames_unknown: int
    frames_undecodable: int
    frames_short: int
    #: Uplink streams: stopped because a frame claimed too much, reset by the client, ended in the middle of a frame.
    streams_abandoned: int
    streams_reset: int
    streams_truncated: int


class _Link:
    """One connection and what belongs to it."""

    def __init__(
        self, connection: Connection, peer: Peer, settings: GatewaySettings, faults: Fault | None = None
    ) -> None:
        self.connection = connection
        self.peer = peer
        self.downlink = Downlink(connection, peer, stream_per_call=settings.audio_streams == "per_call", faults=faults)


class Gateway:
    """A running gateway. Made by :func:`open_gateway`."""

    def __init__(
        self,
        *,
        model: GatewayModel,
        settings: GatewaySettings,
        listener: Listener,
        ca_pem: bytes,
        faults: Fault | None = None,
    ) -> None:
        #: The behaviour, for looking into.
        self.model = model
        #: The certificate authority to trust, in PEM.
        self.ca_pem = ca_pem
        self._settings = settings
        self._listener = listener
        self._address = listener.address  # a socket that is closed no longer knows it
        self._links: dict[Peer, _Link] = {}
        self._counters = _Counters()
        self._clock = PacketClock(self._flush)
        self._slots: dict[Call, Slot] = {}
        self._alarm = trio.CancelScope()
        self._nursery: trio.Nursery  # of every connection's task, once it runs
        self._faults = faults

    def __repr__(self) -> str:
        return f"<Gateway {self.endpoint}, {len(self._links)} connections, {len(self.model.calls)} calls>"

    @property
    def endpoint(self) -> str:
        """What a client connects to: ``quic://host:port``."""
        host, port, *_ = self._address
        return f"quic://[{host}]:{port}" if ":" in host else f"quic://{host}:{port}"

    @property
    def tls(self) -> ClientTLS:
        """For a client that is to trust this gateway."""
        return ClientTLS(ca=self.ca_pem)

    def place_inbound_call(
        self,
        *,
        trunk_id: str,
        call_from: str = "+15550109999",
        far_end: str = "echo",
        call_sid: str = "",
        handset: Handset | None = None,
    ) -> str | None:
        """Have somebody call the trunk. Returns the call_sid, or ``None`` when the trunk rejects calls.

        ``far_end`` is who it is: the name, number or SIP URI of one of the far ends; a ``handset`` hears and speaks in
        its place. Raises ValueError for an unknown one, and for a trunk that does not exist.
        """
        placed = self.model.place_inbound_call(
            trunk_id=trunk_id,
            call_from=call_from,
            far_end=far_end,
            call_sid=call_sid,
            handset=handset,
            now=trio.current_time(),
        )
        self._carry_out()
        return placed

    def speak(self, call_sid: str) -> None:
        """The handset of an open call has something to say from now on. Raises KeyError where there is no such call."""
        self.model.speak(call_sid)
        self._carry_out()

    def hang_up(self, call_sid: str, cause: int = 16) -> None:
        """Have the far end hang up, with this Q.850 cause. Raises KeyError where there is no such call."""
        self.model.hang_up(call_sid, cause, trio.current_time())
        self._carry_out()

    def reset_streams(self, code: int = 0) -> None:
        """Abandon every downlink stream, in the middle of whatever it carries. Clients get others."""
        for link in self._links.values():
            link.downlink.reset(code, trio.current_time())

    async def disconnect(self, code: int = CloseCode.SHUTTING_DOWN, reason: str = "") -> None:
        """Close every connection; clients may come back, and their calls go on meanwhile.

        Takes at most the transport's ``close_timeout``, also when cancelled.
        """
        async with trio.open_nursery() as nursery:
            for link in tuple(self._links.values()):
                nursery.start_soon(link.connection.aclose, code, reason)

    def statistics(self) -> ServerStatistics:
        """A snapshot."""
        return ServerStatistics(
            model=self.model.statistics(),
            clock=self._clock.statistics(),
            listener=self._listener.statistics(),
            **attrs.asdict(self._counters),
        )

    # -- between the model and the network ------------------------------------------------------------------------

    def _carry_out(self) -> None:
        """Send what the model wants sent, and wake up when it next has something to do."""
        now = trio.current_time()
        for effect in self.model.take_effects():
            match effect:
                case SendAudio(peer, frame):
                    if (link := self._links.get(peer)) is not None:
                        link.downlink.send_audio(frame, now)
                case SendEvents(subscription):
                    self._send_events(subscription.peer, now)
                case Resume(subscription, previous):
                    if previous is not None:
                        if (link := self._links.get(previous)) is not None:
                            link.downlink.release(subscription, now)
                        subscription.connection_lost(now)
                    self._send_events(subscription.peer, now)
                case Speak(call):
                    self._give_slots(call)
        self._set_alarm()

    def _set_alarm(self) -> None:
        deadline = self.model.next_deadline()
        self._alarm.deadline = math.inf if deadline is None else deadline

    def _send_events(self, peer: Peer | None, now: float) -> None:
        link = self._links.get(peer) if peer is not None else None
        if link is not None:
            link.downlink.send_events(now)

    def _flush(self) -> None:
        for link in self._links.values():
            link.connection.flush()

    async def _run_timers(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._alarm.deadline) as self._alarm:
                await trio.sleep_forever()
            self.model.advance(trio.current_time())
            self._carry_out()

    def _give_slots(self, call: Call) -> None:
        def speak(_: float) -> None:
            self._speak(call, trio.current_time())
            if not call.has_slots:
                self._slots.pop(call).leave()

        if call not in self._slots:
            self._slots[call] = self._clock.join(speak)

    def _speak(self, call: Call, now: float) -> None:
        for peer, frame in self.model.slot(call):
            link = self._links.get(peer)
            if link is None or not link.downlink.send_audio(frame, now):
                self.model.not_delivered(call, peer, frame)

    def _hands(self) -> GatewayHands[_Link]:
        return GatewayHands(
            model=self.model,
            links=self._links,
            carry_out=self._carry_out,
            set_alarm=self._set_alarm,
            close=lambda link: self._nursery.start_soon(
                link.connection.aclose, CloseCode.PROTOCOL_ERROR, "as it is told"
            ),
        )

    # -- connections ----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._clock.run)
            nursery.start_soon(self._run_timers)
            async for connection in self._listener:
                nursery.start_soon(self._serve, connection)

    async def _serve(self, connection: Connection) -> None:
        if self._faults is not None and not self._faults.admits(len(self._links)):
            await connection.aclose(CloseCode.SHUTTING_DOWN, "no room")
            return
        self._counters.connections += 1
        link = _Link(connection, self.model.connected(), self._settings, self._faults)
        self._links[link.peer] = link
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.downlink.run)
                await self._accept_streams(link, nursery)
                nursery.cancel_scope.cancel()
        finally:
            now = trio.current_time()
            link.downlink.end(now)
            del self._links[link.peer]
            self.model.disconnected(link.peer, now)
            self._carry_out()

    async def _accept_streams(self, link: _Link, nursery: trio.Nursery) -> None:
        with contextlib.suppress(ConnectionLost, trio.EndOfChannel, trio.ClosedResourceError):
            while True:
                stream = await link.connection.accept()
                if self._faults is not None:
                    unidirectional = not isinstance(stream, BidiStream)
                    if not self._faults.accepts_stream(link.peer, unidirectional):
                        await trio.sleep_forever()
                if isinstance(stream, BidiStream):
                    nursery.start_soon(self._serve_request, link, stream)
                else:
                    nursery.start_soon(self._read_uplink, link, stream)

    # -- requests -------------------------------------------------------------------------------------------------

    async def _serve_request(self, link: _Link, stream: BidiStream) -> None:
        try:
            request = await self._read_request(stream)
            if isinstance(request, str):
                self._present(link.peer, request, stream)
                return
            if request is None:
                self._counters.requests_unreadable += 1
                self._odd(link.peer, "request")
                return
            self._counters.requests += 1
            answer = self._answer(link.peer, request)
            if self._faults is not None:
                await trio.sleep(self._faults.reply_after(link.peer, MethodId(request.method_id)))
            match answer:
                case Silence.RESET:
                    stream.abandon(CloseCode.PROTOCOL_ERROR)
                case Silence.UNAUTHORIZED:
                    stream.abandon(CloseCode.UNAUTHORIZED)
                case Silence.WITHHELD:
                    await self._withhold(stream)
                case Silence.NOTHING:
                    if self._faults is not None:
                        stream.write(self._faults.reply_bytes(MethodId(request.method_id), b""))
                    stream.finish()
                case reply:
                    stream.write(self._encode(request, reply))
                    stream.finish()
        except StreamReset:
            stream.abandon()
        except (ConnectionLost, trio.ClosedResourceError):
            pass

    async def _withhold(self, stream: BidiStream) -> None:
        """Keep a request waiting until the client gives it up; in the end we do. Raises :class:`StreamReset`."""
        with trio.move_on_after(_WITHHELD_SECONDS):
            while True:
                await trio.sleep(1)
                stream.write(b"")
        stream.abandon()

    async def _read_request(self, stream: BidiStream) -> Request | str | None:
        """The request, or a token, or ``None`` when it is neither; then the stream has been abandoned."""
        data = bytearray()
        with trio.move_on_after(_REQUEST_SECONDS):
            while chunk := await stream.receive_some():
                data += chunk
                if _TOKEN_BEGINS.match(data):
                    is_too_large = len(data) > _MAX_TOKEN
                else:
                    is_too_large = len(data) > _MAX_REQUEST or int.from_bytes(data[:4], "little") > _MAX_REQUEST
                if is_too_large:
                    stream.abandon(CloseCode.TOO_LARGE)
                    return None
            if _TOKEN_BEGINS.match(data):
                return data.decode("latin-1")
            with contextlib.suppress(RemoteProtocolError):
                request = decode_request(bytes(data))
                if messages.method_of(request.method_id) in METHODS:
                    return request
        stream.abandon(CloseCode.PROTOCOL_ERROR)
        return None

    def _present(self, peer: Peer, token: str, stream: BidiStream) -> None:
        answer = self.model.present(peer, token, trio.current_time())
        self._carry_out()
        if answer is Silence.UNAUTHORIZED:
            stream.abandon(CloseCode.UNAUTHORIZED)
        else:
            stream.finish()

    def _answer(self, peer: Peer, request: Request) -> Message | Silence:
        method = messages.method_of(request.method_id)
        assert method is not None  # _read_request returns no others
        now = trio.current_time()
        try:
            body = request.body if self._faults is None else self._faults.body(peer, method, request.body)
            message = messages.decode(METHODS[method].request, body)
        except RemoteProtocolError as error:
            return self.model.refuse(method, invalid(f"the request cannot be read ({error.reason}): {error}"), now)
        if self._faults is not None:
            message = self._faults.request(peer, method, message)
        answer = self.model.handle(peer, method, message, now)
        self._carry_out()
        if self._faults is not None:
            answer = self._faults.reply(peer, method, message, answer)
        return answer

    def _encode(self, request: Request, reply: Message) -> bytes:
        # A framed reply counts its length the way the client does: it may know no other.
        form = request.rpc_length if self._settings.reply == "framed" else self._settings.reply
        data = encode_reply(request.method_id, messages.encode(reply), form=form)
        return data if self._faults is None else self._faults.reply_bytes(MethodId(request.method_id), data)

    # -- audio from the client ------------------------------------------------------------------------------------

    async def _read_uplink(self, link: _Link, stream: ReceiveStream) -> None:
        decoder = FrameDecoder()

        def feed(chunk: bytes) -> None:
            if self._faults is not None:
                chunk = self._faults.uplink(link.peer, stream, chunk)
            short = decoder.short
            self._receive(link.peer, decoder, chunk)
            if decoder.short > short:
                self._odd(link.peer, "short")
            if decoder.error is not None:
                self._counters.streams_abandoned += 1
                self._odd(link.peer, "too_long")
                stream.stop(CloseCode.PROTOCOL_ERROR)

        try:
            await stream.receive_each(feed)
        except StreamReset:
            self._counters.streams_reset += 1
        except (ConnectionLost, trio.ClosedResourceError):
            pass
        finally:
            self._counters.frames_short += decoder.short
            self._counters.streams_truncated += decoder.end() > 0
            if decoder.end():
                self._odd(link.peer, "truncated")

    def _odd(self, peer: Peer, what: Oddity) -> None:
        if self._faults is not None:
            self._faults.odd(peer, what)

    def _receive(self, peer: Peer, decoder: FrameDecoder, chunk: bytes) -> None:
        now = trio.current_time()
        for frame in decoder.feed(chunk):
            if messages.method_of(frame.method_id) is not MethodId.AudioFrame:
                self._counters.frames_unknown += 1
                self._odd(peer, "unknown_method")
                continue
            try:
                heard: AudioFrame | None = messages.decode(AudioFrame, frame.body)
            except RemoteProtocolError:
                self._counters.frames_undecodable += 1
                self._odd(peer, "undecodable")
                continue
            if self._faults is not None and heard is not None:
                heard = self._faults.heard(peer, heard)
            if heard is not None:
                self.model.receive(peer, heard, now)
        self._carry_out()


@contextlib.asynccontextmanager
async def open_gateway(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    socket: DatagramSocket | None = None,
    settings: GatewaySettings | None = None,
    names: Sequence[str] = (),
    transport: TransportSettings | None = None,
    seed: int | None = None,
    epoch: float | None = None,
) -> AsyncIterator[Gateway]:
    """Run a gateway on a UDP socket of its own at ``host`` and ``port`` (0: any), or on ``socket``.

    It makes its own certificate authority, and a certificate for localhost, 127.0.0.1, ::1, ``host`` and ``names``.
    ``seed`` makes its dice and its call ids repeatable; ``epoch`` is the wall-clock time, in Unix seconds, at which
    trio's clock reads zero (default: what the machine says).

    Leaving the block ends the gateway and closes its connections with code 4 (shutting down), also when cancelled.
    Raises OSError when the address cannot be had, and ValueError for a fault that does not exist.
    """
    with contextlib.ExitStack() as resources:
        settings = GatewaySettings() if settings is None else settings
        dice = random.Random(seed)
        where: DatagramSocket | tuple[str, int] = (host, port) if socket is None else socket
        identities = dict.fromkeys(("localhost", "127.0.0.1", "::1", *names))
        identities[host if socket is None else socket.address[0]] = None
        expiry: datetime | None = None
        fuzz = None if settings.fuzz is None else random.Random(settings.fuzz)
        faults = chosen(settings.faults, dice=dice, fuzz=fuzz)
        if faults is not None:
            settings = faults.settings(settings)
            identities = dict.fromkeys(faults.names(tuple(identities)))
            expiry = faults.expiry()
            transport = attrs.evolve(transport or TransportSettings(dead_after=8.0), **faults.transport())
            socket = socket or resources.enter_context(contextlib.closing(await open_udp_socket(host, port)))
            where = MeddlingSocket(socket, faults)
        authority = trustme.CA()
        certificate = authority.issue_cert(*identities, not_after=expiry)
        server_tls = ServerTLS(
            certificate_chain_pem=b"".join(pem.bytes() for pem in certificate.cert_chain_pems),
            private_key_pem=certificate.private_key_pem.bytes(),
        )
        model = GatewayModel(
            settings=settings,
            epoch=time.time() - trio.current_time() if epoch is None else epoch,
            dice=dice,
            new_id=lambda: str(uuid.UUID(int=dice.getrandbits(128), version=4)),
            read_file=lambda path: _read_file(path, settings.max_file_bytes),
            recording=(importlib.resources.files("agentao_trio") / "assets" / "speech.wav").read_bytes(),
            faults=faults,
        )
        async with open_listener(where, tls=server_tls, settings=transport) as listener, task_nursery() as nursery:
            gateway = Gateway(
                model=model, settings=settings, listener=listener, ca_pem=authority.cert_pem.bytes(), faults=faults
            )
            if faults is not None:
                faults.attach(gateway._hands())
            nursery.start_soon(gateway._run)
            try:
                yield gateway
            finally:
                with trio.move_on_after(_CLOSE_SECONDS, shield=True):
                    await gateway.disconnect(CloseCode.SHUTTING_DOWN, "shutting down")


def _read_file(path: str, max_bytes: int) -> bytes:
    # Read without a thread, on purpose: files are local and small, and a thread would let virtual time run on.
    # O_NONBLOCK matters when the path is a pipe's: opening one waits for a writer otherwise.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if info.st_size > max_bytes:
            raise OSError(errno.EFBIG, f"larger than {max_bytes} bytes")
        return file.read(max_bytes)
