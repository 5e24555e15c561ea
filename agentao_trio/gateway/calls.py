"""One call as the gateway keeps it, and the events that tell of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import attrs

from agentao_trio.audio import Codec
from agentao_trio.callstate import CallOrder, OrderState, Verdict
from agentao_trio.gateway.farends import FarEnd
from agentao_trio.gateway.leg import Leg
from agentao_trio.gateway.sound import Packet
from agentao_trio.gateway.subscriptions import Peer, Subscription
from agentao_trio.gateway.timers import Timer, Timers
from agentao_trio.messages import CallEvent, DialplanAction, EventType, SuperviseMode

__all__ = ["Call", "Supervisor"]

# A supervisor's packets that wait to be heard: one second.
_MAX_WHISPERED = 50
_STATUS_OF_CAUSE = {16: "COMPLETED", 17: "BUSY", 18: "NO_ANSWER", 19: "NO_ANSWER"}


@attrs.define(eq=False)
class Supervisor:
    """A third party on a call (PROTOCOL section 14): its own numbering, and what it says."""

    peer: Peer
    mode: int
    next_number: int = 0
    whispered: deque[Packet] = attrs.field(factory=lambda: deque(maxlen=_MAX_WHISPERED))

    @property
    def is_heard(self) -> bool:
        """Whether anybody hears it."""
        return self.speaks_to_agent or self.speaks_to_caller

    @property
    def speaks_to_agent(self) -> bool:
        """Whether the agent hears it."""
        return self.mode in (SuperviseMode.WHISPER_AGENT, SuperviseMode.BARGE)

    @property
    def speaks_to_caller(self) -> bool:
        """Whether the far end hears it."""
        return self.mode in (SuperviseMode.WHISPER_CALLER, SuperviseMode.BARGE)


@attrs.define(eq=False, kw_only=True)
class Call:
    """A live object; the model owns it. Times named ``…_ms`` are wall-clock milliseconds."""

    call_sid: str
    trunk_id: str
    tenant: str
    call_from: str
    far_end: FarEnd
    leg: Leg
    inbound: bool = False
    #: Who is told what happens. The first one also gets the audio, once the call is answered.
    audience: list[Subscription] = attrs.field(factory=list)
    listener: Subscription | None = None
    default_app: int = DialplanAction.ANSWER
    default_app_args: str = ""
    max_duration_ms: int = 0
    #: The digits that were sent to the far end so far.
    digits: str = ""
    is_parked: bool = False
    is_being_transferred: bool = False
    partner: Call | None = None
    supervisors: dict[Peer, Supervisor] = attrs.field(factory=dict)
    #: Whether it has its 20 ms slots on the clock; see :meth:`Exchange.slot`.
    has_slots: bool = False
    on_answer: Callable[[Call, float], None] | None = None
    on_end: Callable[[Call, float], None] | None = None

    order: CallOrder = attrs.field(factory=CallOrder)
    start_ms: int = 0
    answer_ms: int = 0
    #: CHANNEL_CREATE, for those who join later.
    creation: CallEvent | None = None
    _last_ms: int = 0
    _timers: list[Timer] = attrs.field(factory=list)

    @property
    def state(self) -> OrderState:
        """How far its events have come."""
        return self.order.state

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.state is not OrderState.ENDED

    @property
    def is_answered(self) -> bool:
        """Whether somebody has answered and nobody has hung up."""
        return self.state in (OrderState.ANSWERED, OrderState.HELD)

    @property
    def is_waiting(self) -> bool:
        """Whether this is an inbound call that nobody has answered yet."""
        return self.inbound and self.state is OrderState.CREATED

    @property
    def codec(self) -> Codec:
        """The codec of its audio."""
        return self.leg.codec

    def after(self, timers: Timers, when: float, action: Callable[[float], None]) -> None:
        """Plan something that happens at ``when`` unless the call has ended by then."""
        self._timers.append(timers.at(when, action))

    def cancel_timers(self) -> None:
        """Nothing that was planned with :meth:`after` happens any more."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def event(self, event_type: EventType, now_ms: int, cause: int = 0) -> CallEvent:
        """The next event, which moves the call's state. Asking for one out of order is an error of the gateway's."""
        # Peers recognise replays by type and timestamp, so that no two events of a call may share both.
        now_ms = self._last_ms = max(now_ms, self._last_ms + 1)
        verdict = self.order.feed(event_type, now_ms)
        assert verdict is Verdict.IN_ORDER, f"{event_type.name} for call {self.call_sid!r} is a {verdict.value}"
        event = CallEvent(
            call_sid=self.call_sid,
            event_type=event_type,
            status="ANSWERED",
            trunk_id=self.trunk_id,
            tenant_id=self.tenant,
            timestamp_ms=now_ms,
        )
        match event_type:
            case EventType.CHANNEL_CREATE:
                self.start_ms = now_ms
                event = attrs.evolve(event, status="INITIATED")
            case EventType.CHANNEL_ANSWER:
                self.answer_ms = now_ms
            case EventType.CHANNEL_HANGUP_COMPLETE:
                event = self._with_account(event, cause)
        event = attrs.evolve(
            event,
            start_timestamp_ms=self.start_ms,
            answer_timestamp_ms=self.answer_ms,
            codec=self.codec.value if self.answer_ms else "",
        )
        if event_type is EventType.CHANNEL_CREATE:
            self.creation = event
        return event

    def _with_account(self, event: CallEvent, cause: int) -> CallEvent:
        figures = self.leg.statistics()
        answered_for_ms = event.timestamp_ms - self.answer_ms if self.answer_ms else 0
        return attrs.evolve(
            event,
            status=_STATUS_OF_CAUSE.get(cause, "FAILED"),
            q850_cause=cause,
            duration_seconds=round(answered_for_ms / 1000),
            end_timestamp_ms=event.timestamp_ms,
            packets_sent=figures.packets_sent,
            packets_received=figures.packets_received,
            packets_lost=min(figures.packets_lost, 2**32 - 1),
            bytes_sent=figures.bytes_sent,
            jitter_ms=figures.jitter_ms,
            estimated_mos=figures.estimated_mos,
        )
