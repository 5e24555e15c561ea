"""A session with a gateway: one subscription, its calls, and the commands it takes.

Theory of operation
-------------------
The session is the logical thing, named by its ``client_id``; connections come and go below it
(:class:`~agentao_trio.link.Link`). Calls stay: their uplinks reopen, and what the gateway kept for us is replayed into
the same :class:`~agentao_trio.events.Ingest`, which knows duplicates. Calls of which nothing was heard for as long as
the gateway remembers (``resume_window``) are lost, and end saying so.

All of the session's tasks live in a shielded nursery beside the body of ``async with open_session()``: a cancelled body
can still hang up and close in order, within a deadline, and the session's failure still cancels the body.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, Literal

import attrs
import trio

from agentao_trio import convert, dialplan, messages
from agentao_trio.audio import Codec
from agentao_trio.broadcast import Subscription
from agentao_trio.call import ActiveCall
from agentao_trio.call_control import before
from agentao_trio.chronicle import Chronicle
from agentao_trio.commands import Commands, Observer
from agentao_trio.errors import (
    CallEnded,
    CommandRejected,
    CommandTimeout,
    ConnectionLost,
    LocalProtocolError,
    SessionClosed,
    TransportError,
)
from agentao_trio.events import CallEvent, ClientEvent, EventRecord
from agentao_trio.hub import Hub
from agentao_trio.inbound import InboundCalls
from agentao_trio.legible import quoted
from agentao_trio.link import Link
from agentao_trio.media import Uplink
from agentao_trio.messages import DialplanAction, MethodId, SuperviseMode
from agentao_trio.options import check_options
from agentao_trio.pacing import PacketClock
from agentao_trio.presenters import Authentication, Credentials, Presenter
from agentao_trio.routing import CallRouter
from agentao_trio.services import service_nursery
from agentao_trio.statistics import SessionState, SessionStatistics
from agentao_trio.supervise import Supervision
from agentao_trio.transport import (
    ClientTLS,
    Connection,
    DatagramSocket,
    SendStream,
    TransportSettings,
    open_connection,
    parse_endpoint,
)
from agentao_trio.unowned import Hangups, Placing
from agentao_trio.watchdog import BlockedStep, Watchdog

__all__ = ["Session", "open_session"]

log: logging.Logger = logging.getLogger("agentao_trio.session")

#: Seconds the gateway keeps a client's events while it is away (PROTOCOL section 10.3).
RESUME_WINDOW = 120.0
#: Seconds that closing a session may take, whatever else is being cancelled.
CLOSE_SECONDS = 3.0
#: How long an Originate's reply may lag behind the call's first event before it is no longer waited for.
REPLY_GRACE = 0.5
#: How long closing may wait for calls to be named and hung up that have no owner.
LAST_WORD_SECONDS = 1.0


class Session(Commands):
    """One subscription to a gateway and the calls it carries. Made by :func:`open_session`.

    Beside what is here it has one method per RPC of the protocol, see :class:`~agentao_trio.commands.Commands`.
    """

    def __init__(
        self,
        services: trio.Nursery,
        connect: Callable[[float], contextlib.AbstractAsyncContextManager[Connection]],
        *,
        client_id: str,
        authentication: Authentication,
        rpc_length: str,
        rpc_timeout: float,
        resume_window: float,
        trunks: Collection[str],
        poll_interval: float,
        handler_errors: Literal["log", "raise"],
        hub: Hub,
    ) -> None:
        #: What the gateway knows this program by; events of its calls are kept for it while it is away.
        self.client_id = client_id
        self._authentication = authentication
        self._services = services
        self._rpc_length = rpc_length
        self._rpc_timeout = rpc_timeout
        self._resume_window = resume_window
        self._handler_errors = handler_errors
        self._state = SessionState.RECONNECTING
        self._counts: Counter[str] = Counter()
        #: Where records of everything pass through, see :mod:`agentao_trio.records`.
        self.hub = hub
        self._router = CallRouter(self._counts, self._hang_up_soon)
        self._chronicle = Chronicle(hub, client_id=client_id, calls=self._router.calls)
        self._router.on_event = self._chronicle.event
        self.observers: list[Observer] = [self._chronicle]
        self._inbound = InboundCalls(
            self._counts,
            trunks=trunks,
            interval=poll_interval,
            ask=self.get_incoming_calls,
            unclaimed=self._router.unclaimed,
            take=self._take_inbound,
        )
        self._router.on_stray = self._inbound.look
        self._hangups = Hangups(self._try_to_terminate, self._router.may_live, resume_window)
        self._link = Link(
            services,
            connect,
            authentication.connected,
            self._counts,
            client_id=client_id,
            rpc_length=rpc_length,
            resume_window=resume_window,
            on_frames=self._router.route,
            on_up=self._connection_came,
            on_down=self._connection_went,
        )
        self._clock = PacketClock(self._link.flush)

    def __repr__(self) -> str:
        return f"<Session {self.client_id} {self._state.value}, {len(self._router.calls)} calls>"

    @property
    def state(self) -> SessionState:
        """CONNECTED, RECONNECTING or CLOSED."""
        return self._state

    @property
    def calls(self) -> Mapping[str, ActiveCall]:
        """The calls in progress by ``call_sid``; a read-only view."""
        return MappingProxyType(self._router.calls)

    @property
    def clock(self) -> PacketClock:
        """The clock that paces every call of this session."""
        return self._clock

    def statistics(self) -> SessionStatistics:
        """A snapshot of the session's figures."""
        return SessionStatistics(
            state=self._state,
            calls_open=len(self._router.calls),
            clock=self._clock.statistics(),
            connection=self._link.connection.statistics() if self._link.connection is not None else None,
            media=self._router.media_statistics(),
            ingest=self._router.ingest_statistics(),
            events_unread=self._router.records.dropped,
            **self._counts,
        )

    # -- calls ----------------------------------------------------------------------------------------------------

    async def originate(
        self,
        to: str,
        *,
        trunk_id: str,
        call_from: str = "",
        call_sid: str | None = None,
        codec: Codec | None = None,
        default_app: DialplanAction = DialplanAction.AI_BIDIRECTIONAL_STREAM,
        default_app_args: str = "",
        ai_websocket_url: str = "",
        ai_quic_url: str = "",
        max_duration_ms: int = 0,
        auto_barge_in: bool = False,
        barge_in_patience_ms: int = 250,
        session_id: int = 0,
        agent_config_key: str = "",
        traceparent: str = "",
    ) -> ActiveCall:
        """Place a call (PROTOCOL section 9.1, Originate) and return it as soon as the gateway has taken it on.

        ``to`` is a number in E.164 form or a SIP URI. ``call_sid`` names the call; without one a new name is made up,
        so that events tell of the call even where the gateway sends no reply. A name is for one call, also when that is
        over: its late events would be taken for the other's. ``codec`` is what ``send_audio`` will take. The other
        parameters are the fields of OriginateRequest.

        Raises :class:`LocalProtocolError` for an argument the protocol does not allow and for a name that another call
        has or had, as far as that is remembered (nothing is sent),
        :class:`CommandRejected` when the gateway refuses, and :class:`CommandTimeout` when neither a reply nor an event
        comes: the outcome is unknown then and the command is not repeated; should the call come to life later, it is
        hung up. The same happens on cancellation; then the reply is heard all the same, for the gateway's name of it.
        """
        dialplan.check_destination(to)
        dialplan.check_default_app(default_app, default_app_args)
        dialplan.check_traceparent(traceparent)
        if not isinstance(codec, Codec | None):
            raise LocalProtocolError("codec takes a Codec or None")
        call = ActiveCall(
            self,
            call_sid=call_sid or str(uuid.uuid4()),
            direction="outbound",
            caller=call_from,
            callee=to,
            trunk_id=trunk_id,
            codec=codec,
        )
        request = messages.OriginateRequest(
            trunk_id=trunk_id,
            to=to,
            call_from=call_from,
            ai_websocket_url=ai_websocket_url,
            ai_quic_url=ai_quic_url,
            max_duration_ms=max_duration_ms,
            call_sid=call.call_sid,
            default_app=default_app,
            default_app_args=default_app_args,
            auto_barge_in=auto_barge_in,
            barge_in_patience_ms=barge_in_patience_ms,
            client_id=self.client_id,
            session_id=session_id,
            agent_config_key=agent_config_key,
            traceparent=traceparent,
        )
        messages.encode(request)  # what cannot be sent is refused before there is a call
        if (other := self._router.whose(call.call_sid)) is not None:
            name = quoted(call.call_sid)
            raise LocalProtocolError(f"call_sid {name} is already in use by {other}; expected another one, or None")
        await trio.lowlevel.checkpoint_if_cancelled()  # from here on it is sent
        context = self._adopt(call)
        request = attrs.evolve(request, traceparent=traceparent or context)
        taken_on = False
        placing = Placing(
            lambda: self.request(MethodId.Originate, request),
            lambda name: self._router.rename(call, name or call.call_sid),
        )
        self._services.start_soon(self._place, placing)
        try:
            with trio.move_on_after(self._rpc_timeout):
                try:
                    await before(call._known, placing.wait, grace=REPLY_GRACE)
                except CommandRejected as refusal:
                    self._router.release(call, "calls_refused")  # an event of it may still be on its way
                    call._deliver_failure(refusal)
                    taken_on = True
                    raise
                except CommandTimeout:
                    pass  # the connection went down on the way; an event may still tell
                if not placing.is_answered:
                    self._raise_if_closed()
                    await call._known.wait()
                taken_on = True
                return call
            raise CommandTimeout(
                f"no reply and no event for the call to {to} within {self._rpc_timeout:g} s; the outcome is unknown",
                method="Originate",
            )
        finally:
            if taken_on or not self._link.is_up():  # without one it is not sent, or will not be answered
                placing.abandon()
            if not taken_on:
                call._deliver_failure(CallEnded("the call was given up before it began", call_sid=call.call_sid))
                self._router.disown(call)

    def incoming(self) -> InboundCalls:
        """An async iterator over the calls that come in, each an :class:`ActiveCall` to be answered or hung up.

        Calls are looked for from the first use on: by CHANNEL_CREATE, and by asking the trunks given to
        :func:`open_session`. Each call surfaces once, to one of those who iterate.
        """
        if not self._inbound.looking:
            self._inbound.looking = True
            self._services.start_soon(self._inbound.run, name="inbound calls")
        return self._inbound

    def events(
        self,
        *,
        types: Collection[int] | None = None,
        call_sids: Collection[str] | None = None,
        bound: int = 1024,
        overflow: Literal["drop_oldest", "end"] = "drop_oldest",
    ) -> Subscription[EventRecord]:
        """An async iterator over the events of all calls from now on, as numbered records; ends with the session.

        ``types`` and ``call_sids`` choose among them. A reader that leaves ``bound`` records unread loses the oldest,
        counted in its ``dropped``, or, with ``overflow="end"``, gets what it has and then :class:`EventsOverrun`.
        """
        return self._router.subscribe(types, call_sids, bound=bound, overflow=overflow)

    async def supervise(
        self,
        call_sid: str,
        *,
        mode: SuperviseMode = SuperviseMode.MONITOR,
        supervisor_id: str = "",
        auth_token: str = "",
    ) -> Supervision:
        """Take a seat beside a call that another session holds (PROTOCOL section 14, SuperviseSubscribe).

        ``mode`` says who hears this supervisor: nobody (MONITOR), the agent, the caller, or both (BARGE). Raises
        :class:`LocalProtocolError` for a call that this session holds itself or supervises already, and what
        :meth:`request` raises. Cancelled, the gateway may keep sending audio that nobody reads.
        """
        request = messages.SuperviseSubscribeRequest(
            call_sid=call_sid, supervisor_id=supervisor_id or self.client_id, mode=mode, auth_token=auth_token
        )
        messages.encode(request)  # what cannot be sent is refused before there is a seat
        if call_sid in self._router.calls or call_sid in self._router.supervised:
            raise LocalProtocolError(f"call {quoted(call_sid)} is held or supervised by this session already")
        supervision = Supervision(self, call_sid, mode, Uplink(call_sid, self._clock, self.open_uplink))
        self._router.supervised[call_sid] = supervision
        accepted = False
        try:
            await supervision._subscribe(request)
            accepted = True
        finally:
            if not accepted:
                self.end_supervision(supervision)
        self._services.start_soon(supervision._run, name=f"writer of a supervisor of call {call_sid}")
        return supervision

    def end_supervision(self, supervision: Supervision) -> None:
        """Stop routing a call's audio to its supervisor. Harmless when repeated."""
        if self._router.supervised.get(supervision.call_sid) is supervision:
            del self._router.supervised[supervision.call_sid]

    async def drain(self, seconds: float) -> None:
        """Take no further incoming calls, let those in progress finish for so many seconds, and hang up the rest.

        Calls that nobody has taken yet stay with the gateway, for somebody else. Cancelled, the others go on; so they
        do where the session is not closed afterwards, only :meth:`incoming` has ended for good.
        """
        self._inbound.end()
        with trio.move_on_after(seconds):
            while self._router.calls:
                await next(iter(self._router.calls.values()))._over.wait()
        await self._hang_up_all()

    # -- commands -------------------------------------------------------------------------------------------------

    async def _request(self, method: MethodId, message: Any) -> Any:
        limit = self._rpc_timeout
        self._counts["commands"] += 1
        if method is MethodId.OriginateBulk:
            self._inbound.campaigns += 1
        sent = False
        with trio.move_on_after(limit):
            self._raise_if_closed()
            connection = await self._link.wait_up()
            sent = True
            try:
                return await self._authentication.exchange(connection, method, message, rpc_length=self._rpc_length)
            except CommandRejected:
                self._counts["commands_rejected"] += 1
                raise
            except (ConnectionLost, trio.ClosedResourceError):
                # Closed, too: the link closes what it has found lost.
                self._raise_if_closed()
                self._link.look()  # whoever is told of it may ask what the session is, or command again
                self._counts["commands_timed_out"] += 1
                raise CommandTimeout(
                    f"the connection was lost before {method.name} was answered; the outcome is unknown",
                    method=method.name,
                ) from None
        self._counts["commands_timed_out"] += 1
        why = f" ({self._link.failure})" if self._link.failure is not None else ""
        raise CommandTimeout(
            f"{method.name} was not answered within {limit:g} s; the outcome is unknown"
            if sent
            else f"{method.name} was not sent: there was no connection to the gateway for {limit:g} s{why}",
            method=method.name,
            retryable=not sent,
        )

    async def _bulk(self, method: MethodId, message: Any) -> messages.BulkResponse:
        try:
            return await super()._bulk(method, message)
        except CommandRejected:
            if method is MethodId.OriginateBulk:
                self._inbound.campaigns -= 1
                self._inbound.look()
            raise

    def open_uplink(self) -> SendStream | None:
        """A new uni stream for one call's audio, or None where there is none to be had now."""
        return self._link.open_uni()

    def retire(self, call: ActiveCall) -> None:
        """Disown a call that its owner has left while the gateway may still hold it."""
        self._router.disown(call)

    def release(self, call: ActiveCall) -> None:
        """The agent has left a call that goes on without it: its events and audio mean nothing to us any more."""
        self._router.release(call)

    def start(self, task: Callable[..., Awaitable[None]], *arguments: Any, name: str | None = None) -> None:
        """Run a task of one of this session's calls; it ends with the session. In one that has failed none begins."""
        if not self._services.cancel_scope.cancel_called:
            self._services.start_soon(task, *arguments, name=name)

    def handler_failed(self, call: ActiveCall, event: CallEvent | ClientEvent, error: Exception) -> None:
        """A handler's failure belongs to its call, which is hung up; with ``handler_errors="raise"`` it propagates.
        That its own call has ended is no failure: it is how most handlers end."""
        excused = call.excuses(error)
        if call.answered_elsewhere:
            call.release()
        if excused:
            return
        self._counts["handler_failures"] += 1
        self._chronicle.handler_failed(call, event.value, error)
        if self._handler_errors == "raise":
            raise error
        log.error("call %s: its handler of %s failed", call.call_sid, event.value, exc_info=error)
        if call.call_sid in self._router.calls:
            self._hang_up_soon(call.call_sid)

    def _enter(self, state: SessionState) -> None:
        self._state = state
        self._chronicle.state(state)

    # -- the connection -------------------------------------------------------------------------------------------

    def _connection_came(self) -> None:
        self._enter(SessionState.CONNECTED)
        for call in self._router.calls.values():
            call._connection_replaced()
        for supervision in self._router.supervised.values():
            supervision._connection_replaced()

    def _connection_went(self) -> None:
        if self._state is SessionState.CONNECTED:
            self._enter(SessionState.RECONNECTING)
        if self._router.calls or self._router.supervised:
            now = trio.current_time()
            self.start(self._router.lose_silent_calls, now, self._resume_window, self._link.is_up)

    # -- calls and their end --------------------------------------------------------------------------------------

    def _adopt(self, call: ActiveCall) -> str:
        """Returns the trace context of the call, where it has one."""
        self._raise_if_closed()
        self._counts["calls_opened"] += 1
        self.start(call._run, name=f"writer of call {call.call_sid}")
        contexts = [observer.call_began(call) for observer in self.observers]
        self._router.adopt(call)
        return next(filter(None, contexts), "")

    async def _place(self, placing: Placing) -> None:
        with self._hangups.waited_for(), self._inbound.placing():
            await placing.run()

    def _take_inbound(self, call_sid: str, caller: str, trunk_id: str) -> ActiveCall:
        call = ActiveCall(self, call_sid=call_sid, direction="inbound", caller=caller, trunk_id=trunk_id)
        self._adopt(call)
        return call

    def _hang_up_soon(self, call_sid: str, seconds: float = 0.0) -> None:
        if self._state is not SessionState.CLOSED:
            self.start(self._hangups.hang_up, call_sid, seconds)

    def _raise_if_closed(self) -> None:
        if self._state is SessionState.CLOSED:
            raise SessionClosed("this session has been closed")

    async def _hang_up_all(self) -> None:
        async with trio.open_nursery() as nursery:
            for call in list(self._router.calls.values()):
                nursery.start_soon(call.__aexit__, None, None, None)

    def _loop_was_blocked(self, _: BlockedStep) -> None:
        self._counts["loop_blocked"] += 1

    async def _hang_up_everything(self) -> None:
        """The calls that are left, and those without an owner whose hangup, or name, is on its way."""
        await self._hang_up_all()
        with trio.move_on_after(LAST_WORD_SECONDS):
            await self._hangups.settle(self._link.is_up)

    async def _close(self) -> None:
        """Afterwards every command and call of the session is refused."""
        for supervision in list(self._router.supervised.values()):
            supervision._end()
        self._inbound.end()
        self._enter(SessionState.CLOSED)
        self._router.records.end()
        # Writers put end_of_stream and FIN on their streams on the way out, before the transport closes.
        await trio.lowlevel.cancel_shielded_checkpoint()


@contextlib.asynccontextmanager
async def open_session(
    endpoint: str,
    *,
    credentials: Credentials | None = None,
    presenter: Literal["none", "first_stream", "tenant_field"] | Presenter = "none",
    client_id: str | None = None,
    tenant_id: str = "",
    tls: ClientTLS | None = None,
    rpc_length: str = "exclusive",
    rpc_timeout: float = 10.0,
    resume_window: float = RESUME_WINDOW,
    trunks: Collection[str] = (),
    poll_interval: float = 1.0,
    handler_errors: Literal["log", "raise"] = "log",
    watchdog: float | None = None,
    transport: TransportSettings | None = None,
    socket: DatagramSocket | None = None,
    hub: Hub | None = None,
) -> AsyncIterator[Session]:
    """Connect to the gateway at ``endpoint`` (``quic://HOST:PORT``), subscribe, and yield the :class:`Session`.

    ``credentials`` say who this program is: a :class:`ServiceAccount`, the path of its file, or a :class:`TokenSource`.
    **By default they are not shown to the gateway**: only the tenant's name goes out, in place of an empty
    ``tenant_id``, because no gateway is known to take a token anywhere in particular. ``presenter`` says where the
    token goes: ``"first_stream"`` and ``"tenant_field"`` are what the embedded gateway understands, and a function is
    called with each new connection and the token (PROTOCOL section 2.3).

    ``client_id`` names the subscription and should be stable for a process; without one a UUID is made up. ``tls`` says
    what to trust, by default the system's certificate store and the endpoint's host name. ``rpc_length`` is the length
    convention of requests, ``"exclusive"`` as documented or ``"inclusive"`` as the vendor's own clients write it
    (PROTOCOL section 4.1). ``rpc_timeout`` and ``resume_window`` are seconds. ``trunks`` are asked for incoming calls
    every ``poll_interval`` seconds while :meth:`Session.incoming` is in use. ``handler_errors`` says what becomes of a
    handler that raises: it is logged and its call hung up, or the exception ends the session (``"raise"``).
    ``watchdog`` has tasks reported that block the program for longer than so many seconds (0.05 is a good value), see
    :class:`~agentao_trio.watchdog.Watchdog`. ``socket`` replaces the UDP socket; it is borrowed, and closed by whoever
    made it. ``hub`` is one to which readers were attached before, so that they miss nothing.

    Raises :class:`ConnectError` when no first connection can be made, and :class:`AuthenticationError` for credentials
    that cannot be used or that the gateway refuses, and :class:`ValueError` for an option that means nothing. Leaving
    the block, also by cancellation, hangs up every call that is left and closes the connection, within a few seconds.
    """
    host, port = parse_endpoint(endpoint)
    seconds = {"rpc_timeout": rpc_timeout, "resume_window": resume_window, "poll_interval": poll_interval}
    choices = {"rpc_length": rpc_length, "handler_errors": handler_errors}
    check_options(trunks=trunks, choices=choices, seconds=seconds)
    authentication = Authentication(credentials, presenter, tenant_id=tenant_id)

    def connect(patience: float) -> contextlib.AbstractAsyncContextManager[Connection]:
        return open_connection(
            host,
            port,
            tls=tls or ClientTLS(),
            settings=transport or TransportSettings(),
            socket=socket,
            timeout=patience,
            meanwhile=session.clock.catch_up,
        )

    with contextlib.suppress(ImportError):
        convert.load()  # it blocks for a moment, in which there are no calls yet
    failure: TransportError | LocalProtocolError | None = None
    async with service_nursery() as services:
        session = Session(
            services,
            connect,
            client_id=client_id or str(uuid.uuid4()),
            authentication=authentication,
            rpc_length=rpc_length,
            rpc_timeout=rpc_timeout,
            resume_window=resume_window,
            trunks=trunks,
            poll_interval=poll_interval,
            handler_errors=handler_errors,
            hub=hub or Hub(),
        )
        try:
            await services.start(session._link.keep_up)
        except (TransportError, LocalProtocolError) as error:
            failure = error  # raised outside the nursery, which would wrap it in a group
        else:
            services.start_soon(session.clock.run)
            services.start_soon(session._chronicle.run)
            services.start_soon(authentication.keep_fresh, session._link.wait_up)
            with contextlib.ExitStack() as watching:
                if watchdog is not None:
                    watching.enter_context(Watchdog(watchdog, on_blocked=session._loop_was_blocked))
                try:
                    yield session
                finally:
                    with trio.move_on_after(CLOSE_SECONDS, shield=True):
                        await session._hang_up_everything()
                    await session._close()
    if failure is not None:
        raise failure
