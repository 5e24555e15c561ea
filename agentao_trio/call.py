"""One phone call, as the agent holds it.

Theory of operation
-------------------
An :class:`ActiveCall` is *given* what it needs of its session (:class:`~agentao_trio.call_control.CallPort`: RPCs, an
uplink stream, the packet clock) and knows nothing else of it. It has one task of its own, the writer of
:class:`~agentao_trio.media.Uplink`. Everything that arrives is handed in by the session through the ``_deliver…``
methods, which never wait.

A call outlives its connection. What ends it is CHANNEL_HANGUP_COMPLETE, the session's word that nothing more can be
learned about it, or its owner leaving the ``async with`` block: then the hangup still goes out, under a short shield.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, Self

import attrs
import trio

from agentao_trio import messages
from agentao_trio.audio import Codec, estimate_mos
from agentao_trio.audio_frames import AudioFields
from agentao_trio.broadcast import Broadcast, Subscription
from agentao_trio.call_audio import CallAudio
from agentao_trio.call_control import CallControl, CallPort, before
from agentao_trio.callstate import CallState, Command, Verdict, check
from agentao_trio.causes import q850_name
from agentao_trio.chronicle import over, quality
from agentao_trio.errors import (
    CallAnswerFailed,
    CallEnded,
    CallError,
    CallOverrun,
    CommandError,
    CommandRejected,
    CommandTimeout,
    ProtocolError,
    SessionClosed,
    TransportError,
)
from agentao_trio.events import CallEvent, EventRecord
from agentao_trio.handlers import SIGNAL_BOUND, CallHandlers, Handler
from agentao_trio.media import Downlink, Uplink
from agentao_trio.messages import DialplanAction, EventType, MethodId
from agentao_trio.records import JSON, RecordKind
from agentao_trio.statistics import CallStatistics, MediaStatistics

__all__ = ["ActiveCall", "CallEnding"]

log: logging.Logger = logging.getLogger("agentao_trio.call")

#: Seconds that leaving the ``async with`` block may take to hang up, whatever else is being cancelled.
LEAVE_SECONDS = 2.0
#: Seconds that the hangup event of a call may be behind the refusal to end it: the far end was first, by a moment.
CROSSING_SECONDS = 0.5
#: Seconds between the gateway's reply to an answer, or the loss of that reply, and its CHANNEL_ANSWER.
ANSWER_SECONDS = 5.0
#: Seconds that a refusal of the answer may come after the event of an answer, which was somebody else's then.
REFUSAL_GRACE = 0.25
#: Events of one call that may wait for one reader before the call is ended with CallOverrun.
EVENT_BOUND = 256


@attrs.frozen(kw_only=True)
class CallEnding:
    """How a call ended: ``cause`` is the Q.850 name of ``q850_cause``, ``event`` the gateway's final accounting."""

    call_sid: str
    q850_cause: int
    cause: str
    event: messages.CallEvent
    statistics: CallStatistics


class ActiveCall(CallAudio, CallControl):
    """A call in progress. Use it as an async context manager: leaving the block hangs up.

    A call that came in and was answered by somebody else is not hung up, it is left to them.

    Made by :meth:`Session.originate` and :meth:`Session.incoming`. Cancelling a method that waits changes nothing about
    the call, except that a command may or may not have been carried out.
    """

    def __init__(
        self,
        port: CallPort,
        *,
        call_sid: str,
        direction: Literal["inbound", "outbound"],
        caller: str = "",
        callee: str = "",
        trunk_id: str = "",
        codec: Codec | None = None,
    ) -> None:
        #: The gateway's name for this call.
        self.call_sid: str = call_sid
        #: Who began: "outbound" where this program placed the call.
        self.direction: Literal["inbound", "outbound"] = direction
        #: Who called: a number or SIP URI, empty where it is not known.
        self.caller = caller
        #: Who was called.
        self.callee = callee
        #: The gateway's line the call is on, empty where it is not known.
        self.trunk_id: str = trunk_id
        self._port = port
        self._state = CallState.PENDING
        self._asked_for_answer = False
        self._held = False
        self._held_as_of_ms = 0  # the gateway's time of the latest HOLD or RESUME
        self._muted = False
        self._muted_on_wire = False
        self._released = False
        self._leg: ActiveCall | None = None
        self._codec = codec
        self._uplink = Uplink(call_sid, port.clock, port.open_uplink)
        self._downlink = Downlink()
        self._records: Broadcast[EventRecord] = Broadcast(early=EVENT_BOUND)
        self._heard_at = trio.current_time()  # when the gateway last told us anything, in seconds of trio's clock
        self._handlers = CallHandlers(
            start=port.start,
            quality=self.statistics,
            fail=lambda event, error: port.handler_failed(self, event, error),
            overrun=lambda: self._overrun(f"{SIGNAL_BOUND} events waited for this call's handlers"),
        )
        self._known = trio.Event()  # the gateway has told us of this call
        self._answered = trio.Event()
        self._over = trio.Event()
        self._ending: CallEnding | None = None
        self._failure: Exception | None = None
        self._writer_scope = trio.CancelScope()

    def __repr__(self) -> str:
        return f"<ActiveCall {self.call_sid} {self.caller or '?'} → {self.callee or '?'} {self._state.name}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.answered_elsewhere:
            self.release()
        with trio.move_on_after(LEAVE_SECONDS, shield=True):
            try:
                await self.hangup()
            except (CommandError, ProtocolError, TransportError, SessionClosed) as error:
                log.warning("call %s: leaving without a confirmed hangup: %s", self.call_sid, error)
        if not self._over.is_set():
            self._deliver_failure(
                CallEnded("the call was left before the gateway confirmed the hangup", call_sid=self.call_sid)
            )
            self._port.retire(self)

    # -- what it is -----------------------------------------------------------------------------------------------

    @property
    def state(self) -> CallState:
        """PENDING, ANSWERED, CONNECTED or DISCONNECTED."""
        return self._state

    @property
    def answered_elsewhere(self) -> bool:
        """Whether this call came in and was answered, but not by :meth:`answer`: another program was quicker."""
        answered = self._state in (CallState.ANSWERED, CallState.CONNECTED)
        return answered and self.direction == "inbound" and not self._asked_for_answer

    def excuses(self, error: Exception) -> bool:
        """Whether ``error`` is how its handlers end when nothing is wrong: this call is over, or somebody else's."""
        if not isinstance(error, CallEnded | CallAnswerFailed) or error.call_sid != self.call_sid:
            return False
        return isinstance(error, CallEnded) or self.answered_elsewhere

    @property
    def on_hold(self) -> bool:
        """Whether the far end, or we, put the call on hold."""
        return self._held

    @property
    def codec(self) -> Codec:
        """What :meth:`send_audio` takes: as asked for at the start, else as negotiated by the far end, else PCMU."""
        return self._codec or Codec.named(self._downlink.codec) or Codec.PCMU

    def statistics(self) -> CallStatistics:
        """A snapshot of this call's figures."""
        sent, tracker, lateness = self._uplink.counters, self._downlink.tracker, self._uplink.clock.lateness
        return CallStatistics(
            **attrs.asdict(self._media()),
            packets_queued=self._uplink.queued,
            uplinks_opened=sent.streams_opened,
            lateness_p50=lateness.quantile(0.50),
            lateness_p99=lateness.quantile(0.99),
            codec_received=self._downlink.codec,
            after_end_of_stream=tracker.after_eos,
            jitter_ms=self._downlink.jitter.jitter_ms,
            estimated_mos=estimate_mos(
                loss_ratio=tracker.loss_ratio,
                burst_ratio=tracker.burst_ratio,
                one_way_delay_ms=0.0,
                codec=Codec.named(self._downlink.codec) or Codec.PCMU,
            )
            if self._downlink.packets_received
            else None,
        )

    def _media(self) -> MediaStatistics:
        """The figures that can be summed up, without the work that the others are."""
        sent, tracker = self._uplink.counters, self._downlink.tracker
        return MediaStatistics(
            packets_sent=self._uplink.packets_sent,
            bytes_sent=self._uplink.bytes_sent,
            packets_shed=sent.packets_shed,
            packets_cleared=sent.packets_cleared,
            slots_skipped=self._uplink.slots_skipped,
            packets_received=self._downlink.packets_received,
            bytes_received=self._downlink.bytes_received,
            packets_lost=tracker.lost,
            late_or_duplicate=tracker.late_or_duplicate,
            packets_dropped=self._downlink.dropped,
        )

    # -- its life -------------------------------------------------------------------------------------------------

    async def wait_answered(self) -> None:
        """Wait for CHANNEL_ANSWER. Raises :class:`CallEnded` with the Q.850 cause when the call ends without it."""
        await trio.lowlevel.checkpoint()
        if not self._answered.is_set():
            await self._answered.wait()
        if self._state is CallState.DISCONNECTED:
            raise self._ended_error()

    async def wait_ended(self) -> CallEnding:
        """Wait for the end of the call and return the gateway's final accounting beside our own figures.

        Raises :class:`ConnectionLost` where nothing more could be learned about the call, :class:`CallOverrun` where
        it was ended for not reading its events, and :class:`CallEnded` where it was left unconfirmed.
        """
        await trio.lowlevel.checkpoint()
        await self._over.wait()
        if self._ending is None:
            assert self._failure is not None
            raise self._failure
        return self._ending

    async def hangup(self) -> None:
        """End the call: queued audio is dropped, end_of_stream and Terminate go out.

        Returns when the gateway has confirmed the end (at once where the call is over already). Raises
        :class:`CommandRejected` where the gateway refuses and reports no hangup of the far end's within half a second,
        and :class:`CommandTimeout` where it neither answers nor reports the hangup. Cancelled, the Terminate may or may
        not have been sent.
        """
        await trio.lowlevel.checkpoint()
        if self._over.is_set():
            return
        self._uplink.clear()
        self._writer_scope.cancel()
        try:
            await before(
                self._over,
                lambda: self._port.request(MethodId.Terminate, messages.TerminateRequest(call_sid=self.call_sid)),
            )
        except CommandTimeout:
            pass  # an answer was never promised; the hangup event is what counts
        except CommandRejected:
            # A gateway that has just ended the call knows it no more; its event comes on a stream of its own.
            with trio.move_on_after(CROSSING_SECONDS):
                await self._over.wait()
                return
            raise
        with trio.move_on_after(LEAVE_SECONDS):
            await self._over.wait()
            return
        raise CommandTimeout("the gateway did not confirm the hangup; the outcome is unknown", method="Terminate")

    async def answer(self, *, ai_websocket_url: str = "", ai_quic_url: str = "") -> None:
        """Accept an inbound call (PROTOCOL section 13.3); returns when it is answered.

        The gateway bridges it to one of the URLs where one is given. Raises :class:`CallAnswerFailed` when the gateway
        refuses, as it does where somebody else was quicker, or reports no answer within five seconds of its reply or of
        the time in which one was due, leaving the state as it was, and :class:`CallEnded` when the caller gave up.
        Cancelled, the answer may or may not have been sent.
        """
        if self.answered_elsewhere:
            raise self._answer_failed("somebody else has answered the call")
        self._check(Command.ANSWER)
        request = messages.AnswerIncomingCallRequest(
            call_sid=self.call_sid, ai_websocket_url=ai_websocket_url, ai_quic_url=ai_quic_url
        )
        unheard: CommandTimeout | None = None
        self._asked_for_answer = True
        try:
            await before(
                self._answered,
                lambda: self._port.request(MethodId.AnswerIncomingCall, request),
                grace=REFUSAL_GRACE,  # the event may be of somebody else's answer
            )
        except CommandTimeout as timeout:
            unheard = timeout  # the connection may have gone down on the way; the event may still tell
        except CommandError as error:
            if self._state is not CallState.DISCONNECTED:
                self._asked_for_answer = False
                raise self._answer_failed(f"the call was not answered: {error}") from error
        with trio.move_on_after(ANSWER_SECONDS):
            await self.wait_answered()
            return
        why = f"the call was not answered: {unheard}" if unheard else "the gateway reported no CHANNEL_ANSWER"
        raise self._answer_failed(why) from unheard

    def _answer_failed(self, message: str) -> CallAnswerFailed:
        failure = CallAnswerFailed(message, call_sid=self.call_sid)
        self._handlers.signal(CallEvent.CALL_ANSWER_FAILED, failure)
        return failure

    # -- its events -----------------------------------------------------------------------------------------------

    def events(self) -> Subscription[EventRecord]:
        """An async iterator over this call's numbered events; the first also gets those that came before it.

        Events are never dropped: a reader that leaves 256 unread ends the call, and raises :class:`CallOverrun`.
        """
        return self._records.subscribe(
            EVENT_BOUND, overrun=lambda: self._overrun(f"{EVENT_BOUND} events of this call were left unread")
        )

    def on(self, event: CallEvent | str) -> Callable[[Handler], Handler]:
        """A decorator that registers a function, plain or ``async``, to be called when ``event`` happens to this call.

        It may take the event's value as its only argument (see :class:`~agentao_trio.events.CallEvent`), or none. Plain
        handlers run in order of the events; an ``async`` one has a task of its own, which may outlast the call but not
        the session. A handler of CALL_ANSWERED or CALL_TERMINATED is called once, also where that has happened before
        it is registered; one of any other event hears only of what is still to come. One that raises is logged with its
        traceback, and this call is hung up. Raises :class:`ValueError` for an event that is none and :class:`TypeError`
        for a function that needs more arguments.
        """
        return self._handlers.on(event)

    def publish(self, kind: RecordKind, *, data: Callable[[], dict[str, Any]] | None = None, **fields: JSON) -> None:
        """Tell the readers of the session's hub something about this call; see :mod:`agentao_trio.records`.

        The data are ``fields``, or what ``data`` returns, which is called only where somebody listens.
        """
        self._port.hub.publish(kind, self.call_sid, data=data or (lambda: fields))

    # -- for the session ------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """The call's only task: its writer."""
        with self._writer_scope:
            await self._uplink.run()

    async def _ask_after(self) -> None:
        """Find out whether the gateway still holds this call, by a command that changes nothing."""
        arguments = "wire" if self._muted_on_wire else ""
        with contextlib.suppress(CallError, CommandError, ProtocolError, SessionClosed):
            if self._muted:
                await self._execute(Command.MUTE, DialplanAction.MUTE, arguments)
            else:
                await self._execute(Command.UNMUTE, DialplanAction.UNMUTE, arguments)

    def _rename(self, call_sid: str) -> None:
        """The gateway assigned another sid than the one we asked for."""
        former, self.call_sid = self.call_sid, call_sid
        self._uplink.rename(call_sid)
        self.publish(RecordKind.CALL, phase="renamed", call_sid_before=former)

    def _connection_replaced(self) -> None:
        self._uplink.connection_replaced()

    def _deliver_audio(self, fields: AudioFields, at: float) -> None:
        self._heard_at = at
        if lost := self._downlink.arrived(fields, at):
            self.publish(RecordKind.GAP, packets=lost)
            self._handlers.signal(CallEvent.CALL_GAP, lost)

    def _deliver_event(self, record: EventRecord) -> None:
        self._known.set()
        self._heard_at = record.received_at
        self.trunk_id = record.event.trunk_id or self.trunk_id
        event = record.event
        if event.event_type == EventType.CHANNEL_HANGUP_COMPLETE:
            self._uplink.end()  # before it is counted what became of its packets
            self._ending = CallEnding(
                call_sid=self.call_sid,
                q850_cause=event.q850_cause,
                cause=q850_name(event.q850_cause),
                event=event,
                statistics=self.statistics(),
            )
        elif record.verdict in (Verdict.IN_ORDER, Verdict.GAP):
            if self._state is CallState.PENDING and event.event_type != EventType.CHANNEL_CREATE:
                # ANSWER, or HOLD or RESUME where the ANSWER itself was missed.
                self._state = CallState.ANSWERED
                self._codec = self._codec or Codec.named(event.codec)
                self._answered.set()
                self._handlers.signal(CallEvent.CALL_ANSWERED, record)
            if event.event_type in (EventType.CHANNEL_HOLD, EventType.CHANNEL_RESUME):
                self._hold_or_resume(record)
        self._records.publish(record)
        if self._ending is not None:
            self._end()

    def _hold_or_resume(self, record: EventRecord) -> None:
        if record.event.timestamp_ms < self._held_as_of_ms:
            return  # overtaken by a later one on another stream
        self._held_as_of_ms = record.event.timestamp_ms
        if self._held != (record.event.event_type == EventType.CHANNEL_HOLD):
            self._held = not self._held
            self._handlers.signal(CallEvent.CALL_HELD if self._held else CallEvent.CALL_RESUMED, record)

    def _deliver_failure(self, failure: Exception) -> None:
        """The call is over without the gateway's word: lost, overrun or left."""
        if not self._over.is_set():
            self._failure = failure
            self._uplink.end()
            self._end(failure)

    def _leave(self) -> None:
        self._port.release(self)
        self._deliver_failure(
            CallEnded("the agent has left the call, which goes on without it", call_sid=self.call_sid)
        )

    def _end(self, failure: Exception | None = None) -> None:
        if self._answered.is_set():
            self.publish(RecordKind.QUALITY, data=lambda: quality(self, final=True))
        self.publish(RecordKind.CALL, data=lambda: over(self, failure))
        self._state = CallState.DISCONNECTED
        self._held = False
        self._writer_scope.cancel()
        self._downlink.end()
        self._records.end(failure)
        self._over.set()
        self._answered.set()
        self._handlers.signal(CallEvent.CALL_TERMINATED, self._ending or failure)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _check(self, command: Command) -> None:
        if self._state is CallState.DISCONNECTED:
            raise self._ended_error()
        check(self._state, command, call_sid=self.call_sid)

    def _ended_error(self) -> Exception:
        if self._failure is not None:
            return self._failure
        ending = self._ending
        if ending is None:
            return CallEnded("this call's audio has been finished", call_sid=self.call_sid)
        return CallEnded(
            f"the call to {self.callee or self.call_sid} ended: Q.850 cause {ending.q850_cause}, {ending.cause}",
            call_sid=self.call_sid,
            q850_cause=ending.q850_cause,
            statistics=ending.statistics,
        )

    def _overrun(self, what: str) -> Exception:
        error = CallOverrun(f"{what}; it is being hung up", call_sid=self.call_sid)
        self._deliver_failure(error)
        self._port.retire(self)
        return error
