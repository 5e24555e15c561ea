"""One QUIC connection on trio. The public names are re-exported by :mod:`agentao_trio.transport`.

Theory of operation
-------------------
The engine is sans-IO: datagrams and the time go in, events, datagrams and a deadline come out. ``Connection._pump`` is
the one place where that happens, and it is synchronous: nothing can come between reading an event and acting on it.
Whoever has something for it calls it or asks for it:

* the *reader* (the client's own task, or the listener's for all of its connections) feeds a burst of datagrams, then
  pumps;
* a *write* only marks the connection dirty; the *transmit task* pumps in the scheduler's next batch, so that the writes
  of many tasks leave together. ``flush()`` does it at once, for the packet clock;
* the same task sleeps until the engine's or the liveness deadline. Its cancel scope's deadline is moved in place, to
  earlier moments only.

Tasks of the program never touch the engine across an await; they wait in a :class:`Place` until the pump finds that
what they wait for has come. A connection that is over wakes all of them, and each raises what the ending means for
it: what was received in full is still handed out first.
"""

from __future__ import annotations

import errno
import math
from collections import deque
from collections.abc import Callable
from typing import Literal

import attrs
import trio

from agentao_trio._datagrams import Address, DatagramSocket, describe
from agentao_trio._engine import StockEngine, TransportSettings, events
from agentao_trio._streams import BidiStream, ReceiveStream, SendStream
from agentao_trio.errors import ConnectionLost
from agentao_trio.legible import legible
from agentao_trio.place import Place

__all__ = ["BURST", "Connection", "ConnectionStatistics", "Ending"]

#: Datagrams read in one go; then the other tasks have their turn.
BURST = 64

#: RFC 9002's timer granularity, seconds. A deadline that is still due after it was served waits for this long.
GRANULARITY = 0.001

#: A wake-up this late (seconds) means that the program was busy and that datagrams wait in the socket.
LATE = 0.010


@attrs.frozen(kw_only=True)
class ConnectionStatistics:
    """Figures of one connection. Times in seconds, sizes in bytes of UDP payload."""

    rtt: float
    datagrams_sent: int
    datagrams_received: int
    datagrams_ordinary: int  # of those received, the ones that took the engine's short way
    bytes_sent: int
    bytes_received: int
    datagrams_dropped: int  # the local socket had no room
    path_errors: int  # the local machine or the network said that a datagram could not be delivered
    packets_lost: int
    datagram_size: int  # what the path is known to carry
    congestion_window: int
    bytes_in_flight: int
    streams_open: int
    streams_waiting: int  # opened by the peer, not accepted yet


@attrs.frozen(kw_only=True)
class Ending:
    """Why a connection is over. ``code`` and ``reason`` are what a CLOSE frame said."""

    by: Literal["us", "peer", "engine", "silence", "path"]
    code: int | None = None
    reason: str = ""
    is_application: bool = False  # an application CLOSE, not one of QUIC's own
    error: OSError | None = None


class Connection(trio.abc.AsyncResource):
    """One QUIC connection. Made by :func:`open_connection` and :class:`Listener`.

    Once it is over, whatever waits on it or is tried later raises: :class:`trio.ClosedResourceError` if we closed it,
    :class:`ConnectionLost` if not. ``async with`` closes it with code 0.
    """

    def __init__(
        self,
        engine: StockEngine,
        socket: DatagramSocket,
        settings: TransportSettings,
        *,
        poll: Callable[[], None],
        handshake_timeout: float,
        on_cid: Callable[[bytes, bool], None] | None = None,
    ) -> None:
        self._engine = engine
        self._socket = socket
        self._settings = settings
        self._poll = poll  # reads everything that waits in the socket
        self._handshake_timeout = handshake_timeout
        self._on_cid = on_cid  # (connection id, whether it is valid from now on)

        self._ending: Ending | None = None
        self._closing = False
        self._over = False  # either of them
        self._established = False
        self._handshake_over = trio.Event()
        self._closed = trio.Event()

        self._dirty = False
        self._transmit = Place()
        self._deadline = math.inf  # when the engine, or liveness, is to be asked
        self._armed = math.inf  # when the transmit task wakes: then, or earlier
        self._timer: trio.CancelScope | None = None

        self._acknowledged = -1
        self._alive_at = trio.current_time()
        self._suspicious_since: float | None = None  # when the first PING that is not answered yet went out
        self._ping_at = math.inf  # when the next one is due

        self._senders: dict[int, SendStream] = {}
        self._receivers: dict[int, ReceiveStream] = {}
        self._finishing: dict[int, None] = {}  # the program is done with these, the engine may not be
        self._inbound: deque[ReceiveStream | BidiStream] = deque()
        self._accepting = Place()
        self._opening = {False: trio.lowlevel.ParkingLot(), True: trio.lowlevel.ParkingLot()}
        self._waiting_for_room: dict[SendStream, None] = {}
        self._drained: trio.Event | None = None

        self._datagrams_sent = self._datagrams_received = self._bytes_sent = self._bytes_received = 0
        self._datagrams_dropped = self._path_errors = 0

    def __repr__(self) -> str:
        state = "established" if self._established else "connecting"
        if self.is_over:
            state = f"over by {self._ending.by}" if self._ending is not None else "closing"
        streams = len(self._senders) + len(self._receivers)
        return f"<Connection to {self._engine.get_peer_address()}, {state}, {streams} streams>"

    # -- for the program

    @property
    def peer_address(self) -> Address:
        """Where the peer is reached now; it may move (RFC 9000 §9)."""
        address: Address | None = self._engine.get_peer_address()
        assert address is not None
        return address

    @property
    def peer_certificate(self) -> bytes | None:
        """The certificate that the peer showed, in DER form; ``None`` where it has shown none."""
        return self._engine.peer_certificate_der

    @property
    def is_over(self) -> bool:
        """Whether the connection was closed or lost."""
        return self._over

    @property
    def close_code(self) -> int | None:
        """The code of the CLOSE that ended the connection, ours or the peer's; ``None`` as long as there was none."""
        return self._ending.code if self._ending is not None else None

    @property
    def close_reason(self) -> str:
        """The words that came or went with :attr:`close_code`."""
        return self._ending.reason if self._ending is not None else ""

    async def open_uni(self, *, paced: bool = False) -> SendStream:
        """Open a stream to the peer. Waits while the peer allows no further one; cancellation opens nothing.

        ``paced``: what is written to it comes at the pace of a clock, and its writer sheds what the path does not carry
        (look at :attr:`SendStream.backlog`). The congestion window makes room for as much, whatever is lost on the way.
        """
        stream_id = await self._open(unidirectional=True)
        stream = self._senders[stream_id] = SendStream(self, stream_id, paced=paced)
        return stream

    def open_uni_nowait(self, *, paced: bool = False) -> SendStream:
        """Like :meth:`open_uni`, but raises :class:`trio.WouldBlock` where it would wait."""
        self._check()
        stream_id = self._engine.open_stream(unidirectional=True)
        if stream_id is None:
            raise trio.WouldBlock
        stream = self._senders[stream_id] = SendStream(self, stream_id, paced=paced)
        return stream

    async def open_bidi(self) -> BidiStream:
        """Open a stream in both directions. Waits while the peer allows no further one; cancellation opens nothing."""
        return self._bidi(await self._open(unidirectional=False))

    async def accept(self) -> ReceiveStream | BidiStream:
        """The next stream the peer opened, in the order in which their first bytes arrived. One task at a time.

        The peer may have ``TransportSettings.max_inbound_streams`` of each kind open; one counts until both sides are
        done with it. After the streams that arrived in time, raises :class:`trio.EndOfChannel` when the peer closed
        in order (code 0), :class:`ConnectionLost` when it did not.
        """
        with self._accepting:
            if self._inbound or self._over:
                await trio.lowlevel.checkpoint()
            while not (self._inbound or self._over):
                await self._accepting.wait()
        if self._closing:
            raise trio.ClosedResourceError("this connection was closed")
        if self._inbound:
            return self._inbound.popleft()
        assert self._ending is not None
        if self._ending.is_application and self._ending.code == 0:
            raise trio.EndOfChannel("the peer closed the connection")
        raise self._lost()

    def flush(self) -> None:
        """Send what was written, now. Never waits and never raises."""
        if self._dirty:
            self._pump()

    @trio.lowlevel.enable_ki_protection
    async def aclose(self, code: int = 0, reason: str = "") -> None:
        """Close in order: refuse everything new, wait until the peer has acknowledged what was written (but no longer
        than ``TransportSettings.close_timeout``), send one CLOSE with ``code`` and ``reason``, and forget.

        Harmless when repeated and after a loss. Cancellation does not cut the wait short; it is raised afterwards.
        """
        if not self._over:
            self._closing = self._over = True
            self._wake_everybody()
            self._pump()
            try:
                with trio.move_on_after(self._settings.close_timeout, shield=True):
                    await self._wait_drained()
            finally:  # a shield does not keep Ctrl-C out
                self._close_now(code, reason)
        else:
            self._closing = True
            if self._ending is None:
                with trio.CancelScope(shield=True):
                    await self._closed.wait()  # another task is at it
        await trio.lowlevel.checkpoint()

    def statistics(self) -> ConnectionStatistics:
        """A snapshot."""
        engine = self._engine
        return ConnectionStatistics(
            rtt=engine.rtt,
            datagrams_sent=self._datagrams_sent,
            datagrams_received=self._datagrams_received,
            datagrams_ordinary=engine.datagrams_ordinary,
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
            datagrams_dropped=self._datagrams_dropped,
            path_errors=self._path_errors,
            packets_lost=engine.packets_lost,
            datagram_size=engine.datagram_size,
            congestion_window=engine.congestion_window,
            bytes_in_flight=engine.bytes_in_flight,
            streams_open=engine.stream_count,
            streams_waiting=len(self._inbound),
        )

    # -- for the streams

    def _check(self) -> None:
        if self._closing:
            raise trio.ClosedResourceError("this connection was closed")
        if self._ending is not None:
            raise self._lost()

    def _lost(self) -> ConnectionLost:
        ending = self._ending
        assert ending is not None
        peer = describe(self.peer_address)
        said = f" (code {ending.code}{', ' if ending.reason else ''}{legible(ending.reason)})"
        if ending.by == "peer":
            return ConnectionLost(f"{peer} closed the connection{said}", code=ending.code, reason=ending.reason)
        if ending.by == "engine":
            return ConnectionLost(
                f"the connection to {peer} was given up: {legible(ending.reason)}", reason=ending.reason
            )
        return ConnectionLost(f"{peer} does not answer any more")

    @trio.lowlevel.enable_ki_protection
    def _consumed(self, stream_id: int, count: int, unread: int) -> None:
        if count and self._ending is None and self._engine.consumed(stream_id, count, unread):
            self._mark_dirty()

    def _half_done(self, stream_id: int) -> None:
        sender, receiver = self._senders.get(stream_id), self._receivers.get(stream_id)
        if (sender is None or sender._ended) and (receiver is None or receiver._ended):
            self._finishing[stream_id] = None
            self._mark_dirty()

    def _bidi(self, stream_id: int) -> BidiStream:
        send = self._senders[stream_id] = SendStream(self, stream_id)
        receive = self._receivers[stream_id] = ReceiveStream(self, stream_id)
        return BidiStream(send, receive)

    async def _open(self, *, unidirectional: bool) -> int:
        await trio.lowlevel.checkpoint()
        self._check()
        while (stream_id := self._engine.open_stream(unidirectional=unidirectional)) is None:
            await self._opening[unidirectional].park()
            self._check()
        return stream_id

    # -- the pump

    def _mark_dirty(self) -> None:
        self._dirty = True
        self._transmit.wake()

    def _receive(self, datagram: bytes, source: Address, now: float) -> None:
        """One datagram from the network. The caller pumps when it has delivered all it has."""
        if self._ending is None:
            self._datagrams_received += 1
            self._bytes_received += len(datagram)
            self._engine.receive_datagram(datagram, source, now)
            self._handle_events()
            if self._established and self._engine.largest_acknowledged != self._acknowledged:
                self._acknowledged = self._engine.largest_acknowledged
                self._alive_from(now)

    @trio.lowlevel.enable_ki_protection
    def _pump(self) -> None:
        """Let the engine say what it has to say, and set the alarm for when it wants to be asked again."""
        self._dirty = False
        if self._ending is not None:
            return
        self._send_datagrams()
        self._handle_events()
        if self._ending is None:
            self._wake_whoever_can_go_on()
            self._set_alarm(self._next_deadline())

    def _send_datagrams(self) -> None:
        for datagram, to in self._engine.datagrams_to_send(trio.current_time()):
            try:
                self._socket.send(datagram, to)
            except BlockingIOError:
                self._datagrams_dropped += 1
            except OSError as error:
                self._path_failed(error)
            else:
                self._datagrams_sent += 1
                self._bytes_sent += len(datagram)

    def _path_failed(self, error: OSError) -> None:
        """Decisive before the first answer; afterwards anybody could have forged it, and liveness decides."""
        if error.errno == errno.EMSGSIZE and self._engine.too_long():
            return
        self._path_errors += 1
        if not self._engine.has_peer:
            self._finish(Ending(by="path", error=error))

    def _handle_events(self) -> None:
        while (event := self._engine.next_event()) is not None:
            if isinstance(event, events.StreamDataReceived):  # nearly all
                self._receiver(event.stream_id)._data_received(event.data, event.end_stream)
                continue
            match event:
                case events.StreamReset(error_code=code, stream_id=stream_id):
                    self._engine.cut_short(stream_id)
                    self._receiver(stream_id)._reset_received(code)
                case events.StopSendingReceived(error_code=code, stream_id=stream_id):
                    self._sender(stream_id)._stop_received(code)
                case events.HandshakeCompleted():
                    self._established = True
                    self._engine.search_mtu(self._settings.max_datagram_size)
                    self._alive_from(trio.current_time())
                    self._handshake_over.set()
                case events.ConnectionIdIssued(connection_id=cid) if self._on_cid is not None:
                    self._on_cid(cid, True)
                case events.ConnectionIdRetired(connection_id=cid) if self._on_cid is not None:
                    self._on_cid(cid, False)
        # The engine announces its end only after three PTOs; the CLOSE frame is here already.
        if self._ending is None and (end := self._engine.end) is not None:
            self._finish(
                Ending(
                    by="peer" if self._engine.end_is_remote else "engine",
                    code=end.error_code,
                    reason=end.reason_phrase,
                    is_application=end.frame_type is None,
                )
            )

    def _receiver(self, stream_id: int) -> ReceiveStream:
        if (receiver := self._receivers.get(stream_id)) is None:
            self._stream_arrived(stream_id)
            receiver = self._receivers[stream_id]
        return receiver

    def _sender(self, stream_id: int) -> SendStream:
        if stream_id not in self._senders:
            self._stream_arrived(stream_id)
        return self._senders[stream_id]

    def _stream_arrived(self, stream_id: int) -> None:
        if stream_id & 2:  # unidirectional (RFC 9000 §2.1)
            stream = self._receivers[stream_id] = ReceiveStream(self, stream_id)
            self._inbound.append(stream)
        else:
            self._inbound.append(self._bidi(stream_id))
        self._accepting.wake()

    def _wake_whoever_can_go_on(self) -> None:
        for stream_id in tuple(self._finishing) if self._finishing else ():
            if self._engine.discard(stream_id):
                del self._finishing[stream_id]
                self._senders.pop(stream_id, None)
                self._receivers.pop(stream_id, None)
                if not self._engine.is_initiator(stream_id):
                    self._engine.release(stream_id)
                    self._mark_dirty()
        for sender in tuple(self._waiting_for_room) if self._waiting_for_room else ():
            if sender.backlog < self._settings.send_buffer:
                sender._place.wake()
        for unidirectional, lot in self._opening.items():
            if lot and (room := self._engine.room_for_streams(unidirectional=unidirectional)) > 0:
                lot.unpark(count=room)
        if self._drained is not None and self._engine.is_drained():
            self._drained.set()

    # -- time

    def _next_deadline(self) -> float:
        engine_deadline = self._engine.timer
        ours = min(self._ping_at, self._give_up_at())
        return ours if engine_deadline is None else min(ours, engine_deadline)

    def _set_alarm(self, deadline: float) -> None:
        self._deadline = deadline
        # It is moved with every datagram, and nearly always to a later moment. To move a scope's deadline costs more
        # than to be woken for nothing now and then, and to find that it is not due yet.
        if deadline < self._armed:
            self._armed = deadline
            if self._timer is not None:
                self._timer.deadline = deadline

    def _on_alarm(self) -> None:
        now = trio.current_time()
        if now - self._deadline > LATE:
            self._poll()  # before anybody is declared dead who has answered long ago
        engine_deadline = self._engine.timer
        if engine_deadline is not None and now >= engine_deadline:
            self._engine.handle_timer(now)
            self._handle_events()
        if self._ending is None:
            self._check_liveness(now)
        self._pump()
        if self._ending is None:
            # Rounding can make a due loss timer do nothing; re-armed for the same moment it would never end on a
            # clock that stands still.
            self._set_alarm(max(self._deadline, now + GRANULARITY))

    def _alive_from(self, now: float) -> None:
        """The peer has acknowledged something new: both directions work."""
        self._alive_at = now
        self._ping_at = now + self._settings.ping_interval
        self._suspicious_since = None

    def _give_up_at(self) -> float:
        if not self._established:
            return self._alive_at + self._handshake_timeout
        return math.inf if self._suspicious_since is None else self._suspicious_since + self._settings.dead_after

    def _check_liveness(self, now: float) -> None:
        if now >= self._give_up_at():
            self._finish(Ending(by="silence"))
        elif now >= self._ping_at:
            # The engine's own probes back off (RFC 9002 §6.2.1) and could all fall into an outage that our patience
            # outlasts.
            self._engine.send_ping(0)
            self._ping_at = now + self._settings.dead_after / 4
            if self._suspicious_since is None:
                self._suspicious_since = now

    @trio.lowlevel.enable_ki_protection
    async def _run(self) -> None:
        """The transmit task: ends when the connection is over. To be run shielded."""
        while self._ending is None:
            self._armed = self._deadline
            with trio.CancelScope(deadline=self._armed) as self._timer:
                while self._ending is None:
                    if self._dirty:
                        self._pump()
                    else:
                        await self._transmit.wait()
            self._timer = None
            if trio.current_time() >= self._deadline:
                self._on_alarm()

    # -- the end

    async def _wait_drained(self) -> None:
        if self._ending is None and not self._engine.is_drained():
            self._drained = trio.Event()
            await self._drained.wait()

    def _close_now(self, code: int, reason: str) -> None:
        self._closing = self._over = True
        if self._ending is None:
            # What has arrived here need not be kept for us; a CLOSE does not say so.
            self._engine.acknowledge(trio.current_time())
            self._send_datagrams()
            self._engine.close_with(code, reason)
            self._send_datagrams()
            self._finish(Ending(by="us", code=code, reason=reason, is_application=True))

    def _finish(self, ending: Ending) -> None:
        if self._ending is None:
            self._ending = ending
            self._over = True
            self._engine.end_trace()
            self._handshake_over.set()
            self._closed.set()
            if self._drained is not None:
                self._drained.set()
            self._wake_everybody()
            self._transmit.wake()

    def _wake_everybody(self) -> None:
        self._accepting.wake()
        for lot in self._opening.values():
            lot.unpark_all()
        for sender in self._senders.values():
            sender._place.wake()
        for receiver in self._receivers.values():
            receiver._place.wake()
