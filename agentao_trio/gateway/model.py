"""What the embedded gateway does: every RPC of PROTOCOL section 8, carried out on the exchange, without any I/O.

:class:`GatewayModel` takes decoded requests and returns decoded replies. Time comes in with each call, randomness, ids
and files through the constructor. What is to be sent besides the reply is fetched with
:meth:`GatewayModel.take_effects`.

A refused request raises nothing: the reply says why, in its error fields, as its method has them (PROTOCOL section 12).
A call that belongs to another tenant is answered as if it did not exist.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import attrs

from agentao_trio import messages as m
from agentao_trio.callstate import OrderState
from agentao_trio.causes import TEMPORARY_FAILURE
from agentao_trio.gateway.admission import Admission
from agentao_trio.gateway.bulk import Campaign, Campaigns
from agentao_trio.gateway.calls import Call, Supervisor
from agentao_trio.gateway.commands import (
    MAX_ID,
    Refused,
    check_default_app,
    check_id,
    invalid,
    refusal,
)
from agentao_trio.gateway.control import CallControl
from agentao_trio.gateway.effects import Effect
from agentao_trio.gateway.exchange import Exchange
from agentao_trio.gateway.farends import FarEnd, find_caller, find_far_end
from agentao_trio.gateway.fault import Fault
from agentao_trio.gateway.inbound import Inbound, Notification
from agentao_trio.gateway.leg import Dice, Handset
from agentao_trio.gateway.settings import GatewaySettings, Trunk
from agentao_trio.gateway.silence import Silence
from agentao_trio.gateway.subscriptions import Peer
from agentao_trio.legible import quoted
from agentao_trio.messages import AudioFrame, DialplanAction, ErrorCode, Message, MethodId, SuperviseMode

__all__ = ["BucketAction", "GatewayModel", "GatewayStatistics"]

log: logging.Logger = logging.getLogger("agentao_trio.gateway")

# What a reply lists at most, so that it fits a frame.
_MAX_LISTED = 1_000
#: Trunks that never exist, so that an unknown one can be tried out where no trunks are configured.
_UNKNOWN_TRUNKS = "invalid"
_INBOUND_BUCKET = "inbound:"

_REFUSED_BY_NUMBER: Mapping[int, str] = MappingProxyType(
    {
        ErrorCode.ERR_INVALID_TRUNK: "this number stands for a trunk that does not exist",
        ErrorCode.ERR_INVALID_DESTINATION: "this number stands for one that cannot be reached",
        ErrorCode.ERR_RATE_LIMITED: "this number stands for a tenant that places too many calls",
        ErrorCode.ERR_CIRCUIT_BREAKER: "this number stands for a trunk that is overloaded",
        ErrorCode.ERR_INTERNAL_ERROR: "this number stands for a gateway that is broken",
        ErrorCode.ERR_VALIDATION_FAILED: "this number stands for a request with a mistake",
        ErrorCode.ERR_UNAUTHORIZED: "this number stands for a client that may not call it",
    }
)
#: With which Q.850 cause a campaign's call ends that would have been refused as a request.
_CAUSE_OF_REFUSAL: Mapping[int, int] = MappingProxyType(
    {
        ErrorCode.ERR_INVALID_TRUNK: 3,  # no route to destination
        ErrorCode.ERR_INVALID_DESTINATION: 28,  # invalid number format
        ErrorCode.ERR_RATE_LIMITED: 42,  # switching equipment congestion
        ErrorCode.ERR_CIRCUIT_BREAKER: 34,  # no circuit available
        ErrorCode.ERR_UNAUTHORIZED: 57,  # bearer capability not authorized
    }
)


class BucketAction:
    """The numbers of ExecuteBucketAction. The protocol publishes none; these are this gateway's own."""

    TAKE_NEXT = 1
    SKIP = 2


@attrs.frozen(kw_only=True)
class GatewayStatistics:
    """A snapshot. Packets are counted when their call has ended."""

    calls_open: int
    subscriptions: int
    events_waiting: int
    timers: int
    calls_placed: int
    calls_answered: int
    calls_ended: int
    requests_refused: int
    tokens_accepted: int
    tokens_refused: int
    events_emitted: int
    #: Undelivered events that became too old or too many.
    events_dropped: int
    subscriptions_forgotten: int
    frames_for_unknown_calls: int
    packets_received: int
    packets_refused: int
    packets_after_eos: int
    packets_sent: int
    packets_not_delivered: int


class GatewayModel:
    """One gateway's behaviour.

    ``epoch`` is the wall-clock time, in Unix seconds, at which ``now`` is zero. ``dice`` decides which packets are
    lost, ``new_id`` names calls, ``read_file`` returns the content of a path that a client named or raises OSError, and
    ``recording`` is the WAV file that far ends play; ``faults`` breaks rules on purpose.
    """

    def __init__(
        self,
        *,
        settings: GatewaySettings,
        epoch: float,
        dice: Dice,
        new_id: Callable[[], str],
        read_file: Callable[[str], bytes],
        recording: bytes,
        faults: Fault | None = None,
    ) -> None:
        self._settings = settings
        self._new_id = new_id
        self._exchange = Exchange(settings=settings, dice=dice, epoch=epoch, recording=recording, faults=faults)
        self._admission = Admission(self._exchange)
        self._control = CallControl(self._exchange, read_file)
        self._inbound = Inbound(self._exchange, self._control)
        self._campaigns = Campaigns(self._exchange, self._dial_for_campaign, read_file)
        self._placed_at: dict[str, deque[float]] = {}
        #: Who answers, by the number that is called, in the place of the far end that otherwise would.
        self.handsets: dict[str, Handset] = {}
        self._handlers: dict[MethodId, Callable[[Peer, Any, float], Message | Silence]] = {
            MethodId.Originate: self._originate,
            MethodId.OriginateBulk: self._originate_bulk,
            MethodId.AbortBulk: self._abort_bulk,
            MethodId.Terminate: self._terminate,
            MethodId.StreamEvents: self._subscribe,
            MethodId.SetInboundRouting: self._set_inbound_routing,
            MethodId.GetIncomingCalls: self._get_incoming_calls,
            MethodId.AnswerIncomingCall: self._answer_incoming_call,
            MethodId.GetActiveBuckets: self._get_active_buckets,
            MethodId.GetBucketCalls: self._get_bucket_calls,
            MethodId.ExecuteBucketAction: self._execute_bucket_action,
            MethodId.ExecuteDialplan: self._execute_dialplan,
            MethodId.Barge: self._barge,
            MethodId.SuperviseSubscribe: self._supervise,
            MethodId.AllocateWt: self._allocate_wt,
        }
        self.connected: Callable[[], Peer] = self._exchange.connected
        self.disconnected: Callable[[Peer, float], None] = self._exchange.disconnected
        self.receive: Callable[[Peer, AudioFrame, float], None] = self._exchange.receive
        self.slot: Callable[[Call], list[tuple[Peer, AudioFrame]]] = self._exchange.slot
        self.not_delivered: Callable[[Call, Peer, AudioFrame], None] = self._exchange.not_delivered
        self.advance: Callable[[float], None] = self._exchange.advance
        self.next_deadline: Callable[[], float | None] = self._exchange.timers.next
        self.take_effects: Callable[[], list[Effect]] = self._exchange.take_effects

    def __repr__(self) -> str:
        return f"<GatewayModel, {len(self.calls)} calls, {self._exchange.subscription_count} subscriptions>"

    @property
    def calls(self) -> Mapping[str, Call]:
        """The open calls by call_sid."""
        return MappingProxyType(self._exchange.calls)

    def speak(self, call_sid: str) -> None:
        """The handset of an open call has something to say."""
        self._exchange.wake(self._exchange.calls[call_sid])

    def hang_up(self, call_sid: str, cause: int, now: float) -> None:
        """The far end of an open call ends it, with a Q.850 cause."""
        self._exchange.end(self._exchange.calls[call_sid], cause, now)

    def later(self, when: float, action: Callable[[float], None]) -> None:
        """Have something done at a time of the caller's clock."""
        self._exchange.timers.at(when, action)

    def toggle_hold(self, call: Call, now: float) -> None:
        """The far end holds an open call that is up, or takes it back."""
        if call.state is OrderState.HELD:
            self._exchange.resume(call, now)
        elif call.state is OrderState.ANSWERED:
            self._exchange.hold(call, now)

    @property
    def notifications(self) -> tuple[Notification, ...]:
        """The webhooks that would have been called, oldest first."""
        return tuple(self._inbound.notifications)

    def handle(self, peer: Peer, method: MethodId, request: Message, now: float) -> Message | Silence:
        """Carry out a request and return what to answer. ``method`` must be an RPC, ``request`` of its class."""
        try:
            if method is not MethodId.StreamEvents:
                self._admission.admit(peer, request, now)
            return self._handlers[method](peer, request, now)
        except Refused as refused:
            call_sid = getattr(request, "call_sid", "")
            return self.refuse(method, refused, now, call_sid if len(call_sid) <= MAX_ID else "")

    def refuse(self, method: MethodId, refused: Refused, now: float, call_sid: str = "") -> Message | Silence:
        """What to answer to a request of ``method`` that is not carried out; also for one that could not be decoded."""
        self._exchange.counters.requests_refused += 1
        log.info("%s refused with %s: %s", method.name, ErrorCode(refused.code).name, refused)
        silence = Silence.UNAUTHORIZED if refused.code == ErrorCode.ERR_UNAUTHORIZED else Silence.RESET
        return refusal(method, call_sid, refused, self._exchange.ms(now)) or silence

    def present(self, peer: Peer, token: str, now: float) -> Silence:
        """The connection shows a token on a stream of its own. Returns how the stream is to end."""
        try:
            self._admission.present(peer, token, now)
        except Refused:
            return Silence.UNAUTHORIZED
        return Silence.NOTHING

    # -- placing calls --------------------------------------------------------------------------------------------

    def _originate(self, peer: Peer, request: m.OriginateRequest, now: float) -> Message | Silence:
        if self._is_over_rate(peer.tenant, now):
            raise Refused(ErrorCode.ERR_RATE_LIMITED, "too many calls per second; try again later")
        far_end = self._check_originate(peer.tenant, request)
        if not far_end.placed:
            return Silence.WITHHELD
        call = self._dial(peer, request, far_end, now)
        if not far_end.replies:
            return Silence.WITHHELD
        return m.OriginateResponse(call_sid=call.call_sid, status="INITIATED", timestamp_ms=self._exchange.ms(now))

    def _is_over_rate(self, tenant: str, now: float) -> bool:
        limit = self._settings.calls_per_second
        if not limit:
            return False
        recent = self._placed_at.setdefault(tenant, deque(maxlen=limit))
        if len(recent) == limit and now - recent[0] < 1.0:
            return True
        recent.append(now)
        return False

    def _check_originate(self, tenant: str, request: m.OriginateRequest) -> FarEnd:
        """Who is being called. Raises :class:`Refused` for every reason not to call there."""
        check_id("call_sid", request.call_sid)
        if request.call_sid and self._exchange.is_known(request.call_sid):
            raise invalid(f"there is, or was just now, a call {quoted(request.call_sid)}; it is not placed again")
        check_default_app(request, inband=self._settings.inband_dtmf, loopback=self._settings.loopback)
        check_id("client_id", request.client_id)
        trunk = self._trunk(tenant, request.trunk_id)
        if request.default_app == DialplanAction.PLAYBACK:
            self._control.open_wav(request.default_app_args, trunk.codec)
        far_end = find_far_end(request.to, other=self._settings.other_numbers)
        if far_end is None:
            raise Refused(ErrorCode.ERR_INVALID_DESTINATION, f"{quoted(request.to)} cannot be reached")
        if far_end.code != ErrorCode.SUCCESS:
            raise Refused(far_end.code, _REFUSED_BY_NUMBER[far_end.code])
        if not self._exchange.has_room():
            raise Refused(ErrorCode.ERR_CIRCUIT_BREAKER, f"{self._settings.max_calls} calls are open already")
        return far_end

    def _trunk(self, tenant: str, trunk_id: str) -> Trunk:
        check_id("trunk_id", trunk_id)
        if self._settings.trunks:
            trunk = self._settings.trunks.get(trunk_id)
            if trunk is not None and trunk.tenant == tenant:
                return trunk
        elif trunk_id and not trunk_id.startswith(_UNKNOWN_TRUNKS):
            return Trunk(tenant=tenant, codec=self._settings.codec)
        raise Refused(ErrorCode.ERR_INVALID_TRUNK, f"there is no trunk {quoted(trunk_id)}")

    def _dial(self, peer: Peer, request: m.OriginateRequest, far_end: FarEnd, now: float) -> Call:
        subscription = self._exchange.subscription_of(peer, request.client_id)
        call = self._new_call(request.call_sid, peer.tenant, request.trunk_id, request.call_from, far_end)
        call.audience = [subscription]
        call.listener = subscription
        call.default_app, call.default_app_args = request.default_app, request.default_app_args
        call.max_duration_ms = request.max_duration_ms
        if request.auto_barge_in:
            call.leg.barge_in_patience_ms = request.barge_in_patience_ms
        call.on_answer = self._control.begin
        call.leg.handset = self.handsets.get(request.to)
        self._exchange.create(call, now)
        return call

    def _new_call(self, call_sid: str, tenant: str, trunk_id: str, call_from: str, far_end: FarEnd) -> Call:
        call_sid = call_sid or self._new_id()
        trunk = self._settings.trunks.get(trunk_id)
        codec = far_end.codec or (trunk.codec if trunk is not None else self._settings.codec)
        leg = self._exchange.new_leg(call_sid, far_end, codec)
        return Call(call_sid=call_sid, trunk_id=trunk_id, tenant=tenant, call_from=call_from, far_end=far_end, leg=leg)

    # -- campaigns ------------------------------------------------------------------------------------------------

    def _originate_bulk(self, peer: Peer, request: m.BulkRequest, now: float) -> Message | Silence:
        return m.BulkResponse(status="ACCEPTED", loaded_numbers=self._campaigns.start(peer, request, now))

    def _abort_bulk(self, peer: Peer, request: m.AbortBulkRequest, now: float) -> Message | Silence:
        dropped = self._campaigns.abort(peer.tenant, request.campaign_id, now)
        return m.BulkResponse(status="ABORTED", loaded_numbers=dropped)

    def _dial_for_campaign(self, peer: Peer, request: m.OriginateRequest, now: float) -> Call | None:
        if self._exchange.is_known(request.call_sid):
            return None
        try:
            far_end = self._check_originate(peer.tenant, request)
        except Refused as refused:
            cause = _CAUSE_OF_REFUSAL.get(refused.code, TEMPORARY_FAILURE)
            nowhere = FarEnd(name="", number="", happens="", answers=False, cause=cause)
            call = self._dial(peer, request, nowhere, now)
            self._exchange.end(call, cause, now)
            return call
        return self._dial(peer, request, far_end, now)

    # -- calls that are up ----------------------------------------------------------------------------------------

    def _call(self, peer: Peer, call_sid: str) -> Call:
        call = self._exchange.calls.get(call_sid)
        if call is None or call.tenant != peer.tenant:
            raise invalid(f"there is no open call {quoted(call_sid)}")
        return call

    def _terminate(self, peer: Peer, request: m.TerminateRequest, now: float) -> Message | Silence:
        call = self._call(peer, request.call_sid)
        self._exchange.hang_up(call, now)
        return m.TerminateResponse(call_sid=request.call_sid, status="COMPLETED", timestamp_ms=self._exchange.ms(now))

    def _barge(self, peer: Peer, request: m.BargeRequest, now: float) -> Message | Silence:
        self._call(peer, request.call_sid).leg.interrupt()
        return m.Empty()

    def _execute_dialplan(self, peer: Peer, request: m.ExecuteDialplanRequest, now: float) -> Message | Silence:
        call = self._call(peer, request.call_sid)
        if request.action == DialplanAction.ANSWER and call.is_waiting:
            self._inbound.answer(peer, call, now)
            return m.ExecuteDialplanResponse(status="ANSWERED")
        return m.ExecuteDialplanResponse(status=self._control.execute(call, request.action, request.app_args, now))

    def _supervise(self, peer: Peer, request: m.SuperviseSubscribeRequest, now: float) -> Message | Silence:
        call = self._call(peer, request.call_sid)
        if request.mode not in SuperviseMode.__members__.values():
            raise invalid(f"{request.mode} is not a supervision mode")
        if call.listener is not None and call.listener.peer is peer:
            # The call's own agent hears it anyway, and a second copy could not be told apart from the first: the same
            # call_sid on the same connection. What it may choose is whether it is heard.
            call.leg.mute(request.mode in (SuperviseMode.MONITOR, SuperviseMode.AGENTIC_MONITOR))
            return m.SuperviseSubscribeResponse(status="SUBSCRIBED")
        supervisor = call.supervisors.get(peer)
        if supervisor is not None:
            supervisor.mode = request.mode
        elif len(call.supervisors) >= self._settings.max_supervisors:
            raise invalid(f"the call has {self._settings.max_supervisors} supervisors already")
        else:
            call.supervisors[peer] = Supervisor(peer, request.mode)
            call.leg.observed = True
            self._exchange.wake(call)
        return m.SuperviseSubscribeResponse(status="SUBSCRIBED")

    def _allocate_wt(self, peer: Peer, request: m.AllocateWtRequest, now: float) -> Message | Silence:
        self._call(peer, request.call_sid)
        raise invalid("this gateway offers no media over WebTransport; audio goes on unidirectional streams")

    # -- who is told ----------------------------------------------------------------------------------------------

    def _subscribe(self, peer: Peer, request: m.EventStreamRequest, now: float) -> Message | Silence:
        check_id("client_id", request.client_id)
        self._admission.subscribe(peer, request.client_id, now)
        return Silence.NOTHING

    # -- calls that come in ---------------------------------------------------------------------------------------

    def place_inbound_call(
        self,
        *,
        trunk_id: str,
        call_from: str,
        far_end: str,
        now: float,
        call_sid: str = "",
        handset: Handset | None = None,
    ) -> str | None:
        """Somebody calls the trunk. Returns the call_sid, or ``None`` when the trunk rejects calls.

        ``far_end`` is who it is: a name, a number or a SIP URI of the table; ``handset`` hears and speaks in its place.
        Raises ValueError for one that is not there, and for a trunk that does not exist.
        """
        caller = find_caller(far_end)
        if caller is None:
            raise ValueError(f"there is no far end {far_end!r}")
        trunk = self._settings.trunks.get(trunk_id)
        if self._settings.trunks and trunk is None:
            raise ValueError(f"there is no trunk {trunk_id!r}")
        tenant = trunk.tenant if trunk is not None else self._settings.tenant
        call = self._new_call(call_sid, tenant, trunk_id, call_from, caller)
        call.inbound = True
        call.leg.handset = handset
        return call.call_sid if self._inbound.ring(call, now) else None

    def _set_inbound_routing(self, peer: Peer, request: m.SetInboundRoutingRequest, now: float) -> Message | Silence:
        self._trunk(peer.tenant, request.trunk_id)
        self._inbound.route(peer.tenant, request)
        return m.Empty()

    def _get_incoming_calls(self, peer: Peer, request: m.GetIncomingCallsRequest, now: float) -> Message | Silence:
        return m.GetIncomingCallsResponse(
            calls=tuple(
                m.IncomingCallInfo(call_sid=call.call_sid, call_from=call.call_from, start_timestamp_ms=call.start_ms)
                for call in self._inbound.waiting(peer.tenant, request.trunk_id)[:_MAX_LISTED]
            )
        )

    def _answer_incoming_call(self, peer: Peer, request: m.AnswerIncomingCallRequest, now: float) -> Message | Silence:
        self._inbound.answer(peer, self._call(peer, request.call_sid), now)
        return m.AnswerIncomingCallResponse(
            call_sid=request.call_sid, status="ANSWERED", timestamp_ms=self._exchange.ms(now)
        )

    # -- buckets --------------------------------------------------------------------------------------------------
    #
    # A queue of calls to be made is a campaign, under its own id; a queue of calls to be taken is a trunk with callers
    # waiting, as "inbound:" and the trunk's id.

    def _buckets(self, tenant: str) -> dict[str, Campaign | list[Call]]:
        buckets: dict[str, Campaign | list[Call]] = {each.campaign_id: each for each in self._campaigns.of(tenant)}
        for call in self._exchange.calls.values():
            if call.is_waiting and call.tenant == tenant:
                waiting = buckets.setdefault(_INBOUND_BUCKET + call.trunk_id, [])
                if isinstance(waiting, list):
                    waiting.append(call)
        return buckets

    def _get_active_buckets(self, peer: Peer, request: m.Empty, now: float) -> Message | Silence:
        buckets = self._buckets(peer.tenant).items()
        return m.ListBucketsResponse(
            buckets=tuple(m.BucketInfo(bucket_id=name, pending_count=len(_sids(bucket))) for name, bucket in buckets)
        )

    def _get_bucket_calls(self, peer: Peer, request: m.BucketRequest, now: float) -> Message | Silence:
        bucket = self._buckets(peer.tenant).get(request.bucket_id, [])
        return m.BucketCallList(call_sids=",".join(_sids(bucket)[:_MAX_LISTED]))

    def _execute_bucket_action(self, peer: Peer, request: m.BucketActionRequest, now: float) -> Message | Silence:
        if request.action not in (BucketAction.TAKE_NEXT, BucketAction.SKIP):
            raise invalid(f"{request.action} is not a bucket action")
        bucket = self._buckets(peer.tenant).get(request.bucket_id)
        take = request.action == BucketAction.TAKE_NEXT
        match bucket:
            case None:
                return m.BucketActionResponse(processed_count=0)
            case Campaign():
                (self._campaigns.take_next if take else self._campaigns.skip)(bucket, now)
            case [call, *_] if take:
                self._inbound.answer(peer, call, now)
            case [call, *_]:
                self._exchange.hang_up(call, now)
        return m.BucketActionResponse(processed_count=1)

    def statistics(self) -> GatewayStatistics:
        """A snapshot."""
        exchange = self._exchange
        return GatewayStatistics(
            calls_open=len(exchange.calls),
            subscriptions=exchange.subscription_count,
            events_waiting=exchange.events_waiting,
            timers=len(exchange.timers),
            **attrs.asdict(exchange.counters),
        )


def _sids(bucket: Campaign | list[Call]) -> list[str]:
    return [each.call_sid for each in (bucket.pending if isinstance(bucket, Campaign) else bucket)]
