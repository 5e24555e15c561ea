"""Two views of one call: the order of the gateway's events, and what the agent may do. Both are tables.

Theory of operation
-------------------
*The gateway's view* is :data:`ORDER`, the legal steps of PROTOCOL section 10.2. From it :data:`VERDICTS` is derived,
which has an answer for every event in every state, because peers do not keep to the rules:

* a step of :data:`ORDER` is *in order*;
* an event that would be legal after some more legal events is a *gap*: those events are missing, which is what a reset
  stream leaves behind (PROTOCOL section 10.3). The call moves on as if they had come;
* an event that no further events could make legal is a *violation* and moves nothing.

A hangup therefore ends a call from wherever it is. :class:`CallOrder` walks that table for one call and recognises
replays. It judges and never raises: whether to tolerate a verdict is for its owner to decide.

*The agent's view* is :data:`ALLOWED`: which commands each :class:`CallState` permits. :func:`check` refuses the others
before anything is sent.

What may live here: states, their tables, and the smallest code that reads them. No clock, no calls, no commands' work.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, StrEnum
from types import MappingProxyType

from agentao_trio.errors import CallStateError
from agentao_trio.messages import EventType

__all__ = ["ALLOWED", "ORDER", "VERDICTS", "CallOrder", "CallState", "Command", "OrderState", "Verdict", "check"]


# -- the gateway's view: the order of events ------------------------------------------------------------------------


class OrderState(Enum):
    """How far a call has come, judging by its events."""

    NEW = "new"
    CREATED = "created"
    ANSWERED = "answered"
    HELD = "held"
    ENDED = "ended"


class Verdict(Enum):
    """What an event is, given those that came before it."""

    IN_ORDER = "in order"
    DUPLICATE = "duplicate"
    GAP = "gap"
    VIOLATION = "violation"
    UNKNOWN = "unknown"


#: The legal steps, and no others: ``CREATE ( ANSWER ( HOLD RESUME )* HOLD? )? HANGUP_COMPLETE``.
ORDER: Mapping[tuple[OrderState, EventType], OrderState] = MappingProxyType(
    {
        (OrderState.NEW, EventType.CHANNEL_CREATE): OrderState.CREATED,
        (OrderState.CREATED, EventType.CHANNEL_ANSWER): OrderState.ANSWERED,
        (OrderState.CREATED, EventType.CHANNEL_HANGUP_COMPLETE): OrderState.ENDED,
        (OrderState.ANSWERED, EventType.CHANNEL_HOLD): OrderState.HELD,
        (OrderState.ANSWERED, EventType.CHANNEL_HANGUP_COMPLETE): OrderState.ENDED,
        (OrderState.HELD, EventType.CHANNEL_RESUME): OrderState.ANSWERED,
        (OrderState.HELD, EventType.CHANNEL_HANGUP_COMPLETE): OrderState.ENDED,
    }
)


def _reachable(state: OrderState) -> set[OrderState]:
    """Every state that one legal step or more lead to."""
    found: set[OrderState] = set()
    frontier = {state}
    while frontier:
        frontier = {end for (start, _), end in ORDER.items() if start in frontier} - found
        found |= frontier
    return found


def _judge(state: OrderState, event: EventType) -> tuple[Verdict, OrderState]:
    if (state, event) in ORDER:
        return Verdict.IN_ORDER, ORDER[state, event]
    ends = {ORDER[later, event] for later in _reachable(state) if (later, event) in ORDER}
    assert len(ends) <= 1, f"{event!r} must lead to one state, wherever it comes from"
    return (Verdict.GAP, ends.pop()) if ends else (Verdict.VIOLATION, state)


#: The verdict on every known event in every state, and the state it leads to. Derived from :data:`ORDER`.
VERDICTS: Mapping[tuple[OrderState, EventType], tuple[Verdict, OrderState]] = MappingProxyType(
    {(state, event): _judge(state, event) for state in OrderState for event in {event for _, event in ORDER}}
)

# Events that one call remembers, to recognise replays. The gateway keeps 120 s of events (PROTOCOL section 10.3), in
# which a call has a handful; a hostile one may send any number.
_REMEMBERED_EVENTS = 64


class CallOrder:
    """The order of one call's events. Memory is bounded, whatever the gateway sends."""

    __slots__ = ("_seen", "state")

    def __init__(self) -> None:
        #: Where the call is.
        self.state: OrderState = OrderState.NEW
        # A list, because a call has few events and there are many calls. Each entry is type and timestamp in one int.
        self._seen: list[int] = []

    def __repr__(self) -> str:
        return f"<CallOrder {self.state.name}, {len(self._seen)} events>"

    def feed(self, event_type: int, timestamp_ms: int) -> Verdict:
        """Judge the next event, and move on if its verdict allows.

        *Duplicate* means that an event of this type and timestamp (the gateway's, in milliseconds) is among the 64 most
        recent ones (PROTOCOL section 10.3). *Unknown* means a type without a meaning: 0 or one newer than this package;
        such an event is neither remembered nor moves anything. Never raises.
        """
        try:
            verdict, after = VERDICTS[self.state, EventType(event_type)]
        except (KeyError, ValueError):
            return Verdict.UNKNOWN
        key = timestamp_ms * 8 + event_type
        if key in self._seen:
            return Verdict.DUPLICATE
        self._seen.append(key)
        del self._seen[:-_REMEMBERED_EVENTS]
        self.state = after
        return verdict


# -- the agent's view: what may be done -----------------------------------------------------------------------------


class CallState(Enum):
    """What a call is to the agent."""

    #: Not answered yet, by whichever side has to.
    PENDING = "pending"
    #: The agent and the far end hear each other.
    ANSWERED = "answered"
    #: A second leg was brought in: a conference.
    CONNECTED = "connected"
    #: Over.
    DISCONNECTED = "disconnected"


class Command(StrEnum):
    """The commands of an active call; the value is the method's name."""

    ANSWER = "answer"
    HANGUP = "hangup"
    CONNECT = "connect"
    SEND_AUDIO = "send_audio"
    CLEAR_SEND_AUDIO_BUFFER = "clear_send_audio_buffer"
    CLOSE = "close"
    DISCONNECT = "disconnect"
    HOLD = "hold"
    UNHOLD = "unhold"
    MUTE = "mute"
    UNMUTE = "unmute"
    TRANSFER = "transfer"
    SEND_DTMF = "send_dtmf"
    MUSIC_ON_HOLD = "music_on_hold"
    PARK = "park"
    PLAYBACK = "playback"
    BRIDGE = "bridge"
    PLAY = "play"
    RECORD = "record"
    BARGE = "barge"
    WHISPER = "whisper"
    SPY = "spy"


_WHILE_PENDING = frozenset({Command.ANSWER, Command.CONNECT, Command.HANGUP})
_SUPERVISION = frozenset({Command.BARGE, Command.WHISPER, Command.SPY})
_WHILE_ANSWERED = frozenset(Command) - {Command.ANSWER} - _SUPERVISION

#: Which commands each state permits.
ALLOWED: Mapping[CallState, frozenset[Command]] = MappingProxyType(
    {
        CallState.PENDING: _WHILE_PENDING,
        CallState.ANSWERED: _WHILE_ANSWERED,
        CallState.CONNECTED: _WHILE_ANSWERED | _SUPERVISION,
        CallState.DISCONNECTED: frozenset(),
    }
)


def check(state: CallState, command: Command, call_sid: str) -> None:
    """Raise :class:`~agentao_trio.errors.CallStateError` unless ``command`` is allowed in ``state``."""
    allowed = ALLOWED[state]
    if command in allowed:
        return
    choice = ", ".join(sorted(allowed)) or "nothing"
    raise CallStateError(
        f"{command} is not possible while the call is {state.value}; possible: {choice}",
        call_sid=call_sid,
        state=state,
        command=command.value,
        allowed=[each.value for each in allowed],
    )
