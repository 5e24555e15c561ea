"""Faults that no check was written for: what gateways get wrong besides. They try the catalogue out as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

from agentao_trio import messages as m
from agentao_trio.gateway.fault import Downward, Fault, fault, simple
from agentao_trio.gateway.fault_events import (
    ANSWER,
    CREATE,
    HANGUP,
    HOLD,
    RESUME,
    CreateKept,
    EventFault,
    after,
    always,
    at_hangup,
    on,
    times,
)
from agentao_trio.gateway.fault_requests import is_refusal
from agentao_trio.gateway.subscriptions import Entry, Peer, Subscription
from agentao_trio.messages import AudioFrame, CallEvent, DialplanAction, EventType, Message, MethodId

__all__: list[str] = []

_ZONE_MS = 2 * 3600 * 1000


# -- events: what they say ------------------------------------------------------------------------------------------

simple("timestamps_in_local_time", "Timestamps are two hours ahead.", event=times(lambda ms: ms + _ZONE_MS))
simple("timestamps_of_32_bits", "Timestamps lose all but 31 bits.", event=times(lambda ms: ms & 0x7FFFFFFF))
simple(
    "event_time_is_start_time",
    "timestamp_ms is always when the call began.",
    event=always(timestamp_ms=lambda event: event.start_timestamp_ms),
)
simple(
    "start_time_moves",
    "start_timestamp_ms is when the event was sent.",
    event=always(
        start_timestamp_ms=lambda event: (
            event.timestamp_ms if event.event_type == CREATE else event.start_timestamp_ms + 7 * event.event_type
        )
    ),
)
simple(
    "answer_time_moves",
    "answer_timestamp_ms is another one in HANGUP_COMPLETE.",
    event=at_hangup(answer_timestamp_ms=lambda event: event.answer_timestamp_ms and event.answer_timestamp_ms + 40),
)
simple(
    "answer_time_without_answer",
    "A call that failed has an answer_timestamp_ms.",
    event=at_hangup(answer_timestamp_ms=lambda event: event.answer_timestamp_ms or event.start_timestamp_ms + 1),
)
simple(
    "end_time_in_every_event",
    "end_timestamp_ms is set before the end.",
    event=always(end_timestamp_ms=lambda event: event.end_timestamp_ms or event.timestamp_ms),
)
simple("cause_in_every_event", "ANSWER has a cause.", event=on(ANSWER, q850_cause=16))
simple("cause_always_16", "Every call ends with cause 16.", event=at_hangup(q850_cause=16))
simple(
    "cause_is_sip_status",
    "The cause is a SIP status.",
    event=at_hangup(q850_cause=lambda event: {16: 200, 17: 486, 19: 480}.get(event.q850_cause, 500)),
)
simple(
    "cause_swapped_with_duration",
    "Cause and duration are in each other's place.",
    event=at_hangup(q850_cause=lambda event: event.duration_seconds, duration_seconds=lambda event: event.q850_cause),
)
simple(
    "duration_counts_ringing",
    "duration_seconds counts from CREATE, and rounds up.",
    event=at_hangup(duration_seconds=lambda event: 2 + (event.end_timestamp_ms - event.start_timestamp_ms) // 1000),
)
simple(
    "duration_without_answer",
    "A call that failed has a duration.",
    event=at_hangup(duration_seconds=lambda event: event.duration_seconds if event.answer_timestamp_ms else 5),
)
simple("empty_trunk_at_hangup", "trunk_id is empty in HANGUP_COMPLETE.", event=at_hangup(trunk_id=""))
simple("trunk_of_another", "trunk_id is not the trunk that was asked for.", event=always(trunk_id="other"))
simple("tenant_changes", "tenant_id is another one in HANGUP_COMPLETE.", event=at_hangup(tenant_id="other"))
simple("client_id_missing_at_hangup", "client_id is empty in HANGUP_COMPLETE.", event=at_hangup(client_id=""))
simple(
    "client_id_trimmed",
    "client_id is cut to 16 characters.",
    event=always(client_id=lambda event: event.client_id[:16]),
)
simple(
    "call_sid_in_capitals",
    "call_sid is in capitals in events.",
    event=always(call_sid=lambda event: event.call_sid.upper()),
)
simple(
    "call_sid_cut",
    "call_sid is cut to 24 characters in events.",
    event=always(call_sid=lambda event: event.call_sid[:24]),
)
simple(
    "call_sid_with_nul",
    "call_sid ends with a zero byte in events.",
    event=always(call_sid=lambda event: event.call_sid + "\0"),
)
simple(
    "codec_of_another",
    "codec in events is not that of the audio.",
    event=always(codec=lambda event: event.codec and "PCMA"),
)
simple("codec_missing_in_events", "codec is empty after the answer.", event=always(codec=""))
simple("status_missing", "status is empty in events.", event=always(status=""))
simple(
    "statistics_swapped",
    "packets_sent and packets_lost are in each other's place.",
    event=at_hangup(packets_sent=lambda event: event.packets_lost, packets_lost=lambda event: event.packets_sent),
)
simple("bytes_are_packets", "bytes_sent counts packets.", event=at_hangup(bytes_sent=lambda event: event.packets_sent))
simple("bytes_sent_zero", "bytes_sent is 0.", event=at_hangup(bytes_sent=0))
simple("packets_lost_invented", "packets_lost is never 0.", event=at_hangup(packets_lost=500))
simple("packets_lost_wraps", "packets_lost is -1 as an unsigned number.", event=at_hangup(packets_lost=2**32 - 1))
simple(
    "statistics_before_the_end", "ANSWER has counts of packets.", event=on(ANSWER, packets_sent=7, packets_received=7)
)
simple("mos_zero", "estimated_mos is 0 though audio came.", event=at_hangup(estimated_mos=0.0))
simple("jitter_negative", "jitter_ms is negative.", event=at_hangup(jitter_ms=-1.0))
simple("jitter_infinite", "jitter_ms is infinite.", event=at_hangup(jitter_ms=float("inf")))
simple(
    "jitter_in_microseconds",
    "jitter_ms is in microseconds.",
    event=at_hangup(jitter_ms=lambda event: 1000 * event.jitter_ms + 20_000),
)


# -- events: order and number ---------------------------------------------------------------------------------------


@fault
class EndOfStreamBehindHangup(Fault):
    """end_of_stream follows HANGUP_COMPLETE by 5 s."""

    def out(self, peer: Peer, message: Downward) -> Iterable[Downward]:
        if isinstance(message, AudioFrame) and message.end_of_stream:
            self.hands.later(5.0, lambda: self.hands.send(peer, message))
            return ()
        return (message,)


@fault
class HangupOnlyOnTerminate(EventFault):
    """A far end that hangs up, or does not answer, ends nothing."""

    def events(self, peer: Peer, event: CallEvent) -> Iterable[Downward]:
        return (event,) if event.event_type != HANGUP or event.answer_timestamp_ms else ()


@fault
class AnswerMissingOnSecondCall(EventFault):
    """While a call is up, the next one has no ANSWER."""

    def events(self, peer: Peer, event: CallEvent) -> Iterable[Downward]:
        up = sum(call.is_answered for call in self.hands.calls.values())
        return () if event.event_type == ANSWER and up > 1 else (event,)


@fault
class HoldTogglesSwapped(EventFault):
    """HOLD and RESUME are in each other's place."""

    def events(self, peer: Peer, event: CallEvent) -> Iterable[Downward]:
        swapped = {HOLD: RESUME, RESUME: HOLD}.get(EventType(event.event_type))
        yield event if swapped is None else attrs.evolve(event, event_type=swapped)


@fault
class HoldAnnouncedEvenIfHeld(Fault):
    """A second HOLD is announced although it is refused."""

    def reply(self, peer: Peer, method: MethodId, request: Message, reply: Any) -> Any:
        if (
            isinstance(request, m.ExecuteDialplanRequest)
            and request.action == DialplanAction.HOLD
            and is_refusal(reply)
        ):
            call = self.hands.calls.get(request.call_sid)
            if call is not None and call.is_answered and call.creation is not None:
                held = attrs.evolve(
                    call.creation,
                    event_type=HOLD,
                    answer_timestamp_ms=call.answer_ms,
                    timestamp_ms=call.creation.timestamp_ms + 5_000,
                    client_id=call.audience[0].client_id,
                )
                self.hands.send(peer, held)
        return reply


@fault
class MuteLooksLikeHold(Fault):
    """MUTE is announced as HOLD."""

    def reply(self, peer: Peer, method: MethodId, request: Message, reply: Any) -> Any:
        if isinstance(request, m.ExecuteDialplanRequest) and request.action == DialplanAction.MUTE:
            call = self.hands.calls.get(request.call_sid)
            if call is not None and call.is_answered:
                self.hands.toggle_hold(call)
        return reply


@fault
class HangupRepeatedLater(EventFault):
    """HANGUP_COMPLETE comes once more a moment later, with a new timestamp."""

    def events(self, peer: Peer, event: CallEvent) -> Iterable[Downward]:
        if event.event_type == HANGUP:
            self.hands.later(0.2, lambda: self.hands.send(peer, after(event, HANGUP, 200)))
        return (event,)


@fault
class EventsOnStreamsOfTheirOwn(EventFault):
    """Every event has a stream of its own, and they overtake each other."""

    def events(self, peer: Peer, event: CallEvent) -> Iterable[Downward]:
        delay = 0.4 if event.event_type in (CREATE, ANSWER) else 0.0
        self.hands.later(delay, lambda: self.hands.send(peer, event, apart=True))
        return ()


@fault
class LateCreate(CreateKept):
    """CREATE comes behind the event that it should precede."""


@fault
class EventsLate(EventFault):
    """Every event is three seconds late."""

    def events(self, peer: Peer, event: CallEvent) -> Iterable[Downward]:
        self.hands.later(3.0, lambda: self.hands.send(peer, event))
        return ()


@fault
class ResumedSubscriptionLosesFirst(Fault):
    """Of what waited for a client the first event is lost."""

    def waiting(self, subscription: Subscription, entries: list[Entry], others: list[Subscription]) -> list[Entry]:
        return entries[1:]


@fault
class ResumedSubscriptionGetsNewest(Fault):
    """Of what waited for a client the newest event is sent."""

    def waiting(self, subscription: Subscription, entries: list[Entry], others: list[Subscription]) -> list[Entry]:
        return entries[-1:]


@fault
class ResumedSubscriptionDoubles(Fault):
    """What waited for a client comes twice, the second time with other timestamps."""

    def waiting(self, subscription: Subscription, entries: list[Entry], others: list[Subscription]) -> list[Entry]:
        moved = [
            Entry(attrs.evolve(each.event, timestamp_ms=each.event.timestamp_ms + 1), each.emitted_at)
            for each in entries
        ]
        return [*entries, *moved]


@fault
class ReplayHasNewTimestamps(Fault):
    """What is sent again has another timestamp than the first time."""

    def replayed(self, subscription: Subscription, entries: list[Entry], connection_lost: bool) -> list[Entry]:
        return [
            Entry(attrs.evolve(each.event, timestamp_ms=each.event.timestamp_ms + 250), each.emitted_at)
            for each in entries
        ]


@fault
class CreateRepeatedAfterReconnect(Fault):
    """Who comes back is told of the CREATE of calls that are up, once more."""

    def request(self, peer: Peer, method: MethodId, message: Any) -> Any:
        if method is MethodId.StreamEvents:
            for call in self.hands.calls.values():
                mine = any(each.client_id == message.client_id for each in call.audience)
                if call.creation is not None and mine:
                    again = attrs.evolve(
                        call.creation, timestamp_ms=call.creation.timestamp_ms + 1, client_id=message.client_id
                    )
                    self.hands.later(0.05, lambda again=again: self.hands.send(peer, again))  # type: ignore[misc]
        return message
