"""Faults of events: their order, what they say, and to whom."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs

from agentao_trio.gateway.fault import Dice, Downward, Fault, changed, fault, simple
from agentao_trio.gateway.settings import GatewaySettings
from agentao_trio.gateway.subscriptions import Peer
from agentao_trio.messages import AudioFrame, CallEvent, EventType, Message, MethodId, OriginateRequest

__all__ = [
    "ANSWER",
    "CREATE",
    "HANGUP",
    "HOLD",
    "RESUME",
    "CreateKept",
    "EventFault",
    "after",
    "always",
    "at_hangup",
    "on",
    "times",
]

CREATE, ANSWER, HANGUP = EventType.CHANNEL_CREATE, EventType.CHANNEL_ANSWER, EventType.CHANNEL_HANGUP_COMPLETE
HOLD, RESUME = EventType.CHANNEL_HOLD, EventType.CHANNEL_RESUME
_BUSY = ("+15550100017", "sip:busy@any")


class EventFault(Fault):
    """One that looks at events, and lets audio pass."""

    def out(self, peer: Peer, message: Downward) -> Iterable[Downward]:
        return self.events(peer, message) if isinstance(message, CallEvent) else (message,)

    def events(self, peer: Peer, event: CallEvent) -> Iterable[Downward]:
        """What is written in the place of an event."""
        raise NotImplementedError


def after(event: CallEvent, event_type: int, ms: int = 1, **fields: Any) -> CallEvent:
    """The same call's next event, a moment later."""
    return attrs.evolve(event, event_type=event_type, timestamp_ms=event.timestamp_ms + ms, **fields)


def always(**fields: Any) -> Callable[[CallEvent], CallEvent]:
    """Every event with other fields; a function is called with the event."""
    return lambda event: changed(event, fields, event)


def on(event_type: int, **fields: Any) -> Callable[[CallEvent], CallEvent]:
    """One type of event with other fields."""
    return lambda event: changed(event, fields, event) if event.event_type == event_type else event


def at_hangup(**fields: Any) -> Callable[[CallEvent], CallEvent]:
    """HANGUP_COMPLETE with other fields."""
    return on(HANGUP, **fields)


def times(change: Callable[[int], int]) -> Callable[[CallEvent], CallEvent]:
    """Every timestamp otherwise."""
    names = ("timestamp_ms", "start_timestamp_ms", "answer_timestamp_ms", "end_timestamp_ms")

    def otherwise(event: CallEvent) -> CallEvent:
        fields: dict[str, Any] = {name: change(value) for name in names if (value := getattr(event, name))}
        return attrs.evolve(event, **fields)

    return otherwise


# -- order ----------------------------------------------------------------------------------------------------------


class CreateKept(EventFault):
    """CREATE is kept back, and sent behind the call's next event for which :meth:`is_time` holds."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._kept: dict[str, CallEvent] = {}

    def is_time(self, event: CallEvent) -> bool:
        """Whether CREATE comes behind this one; behind any, where a fault does not say otherwise."""
        return True

    def events(self, peer: Peer, event: CallEvent) -> Iterable[Downward]:
        if event.event_type == CREATE:
            self._kept[event.call_sid] = event
            return ()
        kept = self._kept.pop(event.call_sid, None) if self.is_time(event) else None
        return (event, kept) if kept is not None else (event,)


@fault
class HangupBeforeCreate(CreateKept):
    """HANGUP_COMPLETE is sent before CREATE, which comes last."""

    def is_time(self, event: CallEvent) -> bool:
        return event.event_type == HANGUP


class _Without(EventFault):
    missing: int

    def events(self, peer: Peer, event: CallEvent) -> Iterable[Downward]:
        return () if event.event_type == self.missing else (event,)


@fault
class NoCreate(_Without):
    """CREATE is never sent."""

    missing = CREATE


@fault
class NoHangup(_Without):
    """HANGUP_COMPLETE is never sent."""

    missing = HANGUP


@fault
class ResumeMissing(_Without):
    """RESUME is never sent."""

    missing = RESUME


class _Twice(EventFault):
    """One type of event comes again, a moment later."""

    twice: int

    def events(self, peer: Peer, event: CallEvent) -> Iterable[Downward]:
        return (event, after(event, event.event_type)) if event.event_type == self.twice else (event,)


@fault
class AnswerTwice(_Twice):
    """ANSWER is sent twice, with two timestamps."""

    twice = ANSWER


@fault
class CreateTwice(_Twice):
    """CREATE is sent twice, with two timestamps."""

    twice = CREATE


@fault
class HoldTwice(_Twice):
    """HOLD is sent twice, with two timestamps."""

    twice = HOLD


class _Followed(EventFault):
    first: int
    then: int

    def events(self, peer: Peer, event: CallEvent) -> Iterable[Downward]:
        return (event, after(event, self.then)) if event.event_type == self.first else (event,)


@fault
class EventAfterHangup(_Followed):
    """ANSWER is sent again behind HANGUP_COMPLETE."""

    first, then = HANGUP, ANSWER


@fault
class HoldBeforeAnswer(_Followed):
    """HOLD is sent right behind CREATE."""

    first, then = CREATE, HOLD


@fault
class ResumeWithoutHold(_Followed):
    """RESUME is sent behind ANSWER, though nobody held the call."""

    first, then = ANSWER, RESUME


@fault
class UnknownEvent(_Followed):
    """An event of type UNKNOWN is sent behind ANSWER."""

    first, then = ANSWER, EventType.UNKNOWN


@fault
class TwoHangups(EventFault):
    """A second HANGUP_COMPLETE follows the first, with another cause."""

    def events(self, peer: Peer, event: CallEvent) -> Iterable[Downward]:
        return (event, after(event, HANGUP, 5, q850_cause=41)) if event.event_type == HANGUP else (event,)


@fault
class HoldSurvivesHangup(EventFault):
    """A call that ends while it is held gets its RESUME behind HANGUP_COMPLETE."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._held: set[str] = set()

    def events(self, peer: Peer, event: CallEvent) -> Iterable[Downward]:
        yield event
        if event.event_type == HOLD:
            self._held.add(event.call_sid)
        elif event.event_type == RESUME:
            self._held.discard(event.call_sid)
        elif event.event_type == HANGUP and event.call_sid in self._held:
            yield after(event, RESUME)


@fault
class AnswerOnEveryCall(EventFault):
    """A call that fails gets an ANSWER first."""

    def events(self, peer: Peer, event: CallEvent) -> Iterable[Downward]:
        if event.event_type == HANGUP and not event.answer_timestamp_ms:
            yield after(event, ANSWER, -1, q850_cause=0, end_timestamp_ms=0, status="ANSWERED")
        yield event


@fault
class SlowNeighbour(EventFault):
    """While a call rings, HANGUP_COMPLETE of others is two seconds late."""

    def events(self, peer: Peer, event: CallEvent) -> Iterable[Downward]:
        ringing = any(not call.is_answered for call in self.hands.calls.values())
        if event.event_type != HANGUP or not ringing:
            return (event,)
        self.hands.later(2.0, lambda: self.hands.send(peer, event))
        return ()


# -- what they say --------------------------------------------------------------------------------------------------

simple("wrong_cause", "Busy is cause 16 in HANGUP_COMPLETE.", event=at_hangup(q850_cause=16))
simple("cause_zero", "HANGUP_COMPLETE has cause 0.", event=at_hangup(q850_cause=0))
simple(
    "no_answer_is_normal",
    "A call that nobody answers ends with cause 16.",
    event=at_hangup(q850_cause=lambda event: 16 if event.q850_cause in (18, 19) else event.q850_cause),
)
simple("mos_out_of_range", "estimated_mos is a percentage.", event=at_hangup(estimated_mos=87.5))
simple("jitter_nan", "jitter_ms is no number.", event=at_hangup(jitter_ms=float("nan")))
simple("negative_duration", "duration_seconds is negative.", event=at_hangup(duration_seconds=-1))
simple(
    "duration_in_ms",
    "duration_seconds is in milliseconds.",
    event=at_hangup(duration_seconds=lambda event: 1000 * event.duration_seconds),
)
simple("duration_zero", "duration_seconds is always 0.", event=at_hangup(duration_seconds=0))
simple(
    "packet_counts_zero",
    "packets_sent and packets_received are 0.",
    event=at_hangup(packets_sent=0, packets_received=0),
)
simple(
    "packet_counts_double",
    "packets_sent and packets_received count every packet twice.",
    event=at_hangup(
        packets_sent=lambda event: 2 * event.packets_sent, packets_received=lambda event: 2 * event.packets_received
    ),
)
simple(
    "end_before_answer",
    "end_timestamp_ms is earlier than answer_timestamp_ms.",
    event=at_hangup(end_timestamp_ms=lambda event: (event.answer_timestamp_ms or event.start_timestamp_ms) - 100),
)
simple("no_answer_time", "answer_timestamp_ms is always 0.", event=always(answer_timestamp_ms=0))
simple("no_start_time", "start_timestamp_ms is always 0.", event=always(start_timestamp_ms=0))
simple("timestamps_in_seconds", "Timestamps are in seconds.", event=times(lambda ms: ms // 1000))
simple("timestamps_in_microseconds", "Timestamps are in microseconds.", event=times(lambda ms: ms * 1000))


@fault
class ClockStandsStill(EventFault):
    """All of a call's timestamps are that of its CREATE, a millisecond apart."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._events: dict[str, int] = {}

    def events(self, peer: Peer, event: CallEvent) -> Iterable[Downward]:
        number = self._events[event.call_sid] = self._events.get(event.call_sid, 0) + 1
        yield attrs.evolve(
            event,
            timestamp_ms=event.start_timestamp_ms + number,
            answer_timestamp_ms=event.answer_timestamp_ms and event.start_timestamp_ms + 1,
            end_timestamp_ms=event.end_timestamp_ms and event.start_timestamp_ms + number,
        )


simple("trunk_id_missing", "trunk_id is empty in events.", event=always(trunk_id=""))
simple("tenant_id_missing", "tenant_id is empty in events.", event=always(tenant_id=""))
simple("call_sid_missing", "call_sid is empty in HANGUP_COMPLETE.", event=at_hangup(call_sid=""))
simple("client_id_missing", "client_id is empty in events.", event=always(client_id=""))
simple("client_id_of_another", "client_id is somebody else's in events.", event=always(client_id="somebody-else"))
simple(
    "control_characters_in_status",
    "The status of HANGUP_COMPLETE ends with a line break.",
    event=at_hangup(status=lambda event: event.status + "\r\n"),
)


def _to_echo(message: Message) -> Message:
    if isinstance(message, OriginateRequest) and message.to in _BUSY:
        return attrs.evolve(message, to="+15550100001")
    return message


simple("busy_is_answered", "A busy far end answers.", request=_to_echo)


def _limit_times(factor: int) -> Callable[[Message], Message]:
    def change(message: Message) -> Message:
        if isinstance(message, OriginateRequest):
            return attrs.evolve(message, max_duration_ms=min(factor * message.max_duration_ms, 2**31 - 1))
        return message

    return change


simple("max_duration_ignored", "max_duration_ms has no effect.", request=_limit_times(0))
simple("max_duration_in_seconds", "max_duration_ms is taken for seconds.", request=_limit_times(1000))

# -- who is told ----------------------------------------------------------------------------------------------------


class _ToEverybody(Fault):
    def others(self, peer: Peer) -> Iterable[Peer]:
        return (each for each in self.hands.peers if each is not peer and each.subscriptions)


@fault
class EventsToEverybody(_ToEverybody):
    """Every client hears of every call."""

    def out(self, peer: Peer, message: Downward) -> Iterable[Downward]:
        if isinstance(message, CallEvent):
            for each in self.others(peer):
                self.hands.send(each, attrs.evolve(message, client_id=each.subscriptions[-1].client_id))
        return (message,)


@fault
class AudioToEverybody(_ToEverybody):
    """Every client hears the audio of every call."""

    def out(self, peer: Peer, message: Downward) -> Iterable[Downward]:
        if isinstance(message, AudioFrame):
            for each in self.others(peer):
                self.hands.send(each, message)
        return (message,)


@fault
class EventsWithoutSubscription(Fault):
    """Placing a call subscribes, whether the client wants it or not."""

    def request(self, peer: Peer, method: MethodId, message: Any) -> Any:
        if method is MethodId.Originate and not peer.subscriptions:
            self.hands.subscribe(peer, message.client_id or "anybody")
        return message


@fault
class ResubscriptionDoubles(EventFault):
    """Who subscribes twice gets every event twice."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._times: dict[tuple[int, str], int] = {}

    def request(self, peer: Peer, method: MethodId, message: Any) -> Any:
        if method is MethodId.StreamEvents:
            key = (peer.number, message.client_id)
            self._times[key] = self._times.get(key, 0) + 1
        return message

    def events(self, peer: Peer, event: CallEvent) -> Iterable[Downward]:
        return (event,) * self._times.get((peer.number, event.client_id), 1)


@fault
class IdleSubscriptionForgotten(Fault):
    """A subscription lapses after 20 s without a request."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._latest: dict[int, float] = {}

    def request(self, peer: Peer, method: MethodId, message: Any) -> Any:
        now = self.hands.now()
        if now - self._latest.get(peer.number, now) > 20:
            for subscription in peer.subscriptions:
                subscription.peer = None
            peer.subscriptions.clear()
        self._latest[peer.number] = now
        return message


# -- what is kept ---------------------------------------------------------------------------------------------------


def _window(seconds: float) -> Callable[[GatewaySettings], GatewaySettings]:
    return lambda settings: attrs.evolve(settings, event_window=seconds)


simple("buffer_of_30_s", "Events are kept for 30 s.", settings=_window(30.0))
simple("buffer_for_ever", "Events are kept for ever.", settings=_window(1e7))
