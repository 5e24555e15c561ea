"""From the bytes of an event to a numbered record with a verdict, the same way in a live run and in its replay.

Theory of operation
-------------------
:class:`Ingest` decodes each event frame, lets the :class:`~agentao_trio.callstate.CallOrder` of its call judge it and
numbers it. The resulting :class:`EventRecord` keeps the raw bytes, so that feeding stored ``(raw, received_at)`` pairs
to a fresh ingest makes equal records: nothing else goes into them, and bodies that cannot be decoded leave no trace
but a count.

An ingest outlives connections, because that is when replays come: after a loss the gateway sends again what it kept
(PROTOCOL section 10.3), and a finished call has to be remembered for its second hangup to be recognised. Memory is
bounded all the same. Finished calls are forgotten some time after their last event, and both finished and open calls
are limited in number; then the one that was silent longest goes first, and is counted. A forgotten open call is not
ended by that: its next event is judged as if it were its first.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from enum import StrEnum

import attrs

from agentao_trio import messages
from agentao_trio.callstate import CallOrder, OrderState, Verdict
from agentao_trio.errors import RemoteProtocolError

__all__ = [
    "CALL_ANSWERED",
    "CALL_ANSWER_FAILED",
    "CALL_CONNECTED",
    "CALL_CONNECT_FAILED",
    "CALL_GAP",
    "CALL_HELD",
    "CALL_QUALITY",
    "CALL_RESUMED",
    "CALL_TERMINATED",
    "INCOMING_CALL",
    "CallEvent",
    "ClientEvent",
    "EventRecord",
    "Ingest",
    "IngestStatistics",
]


class ClientEvent(StrEnum):
    """What a handler can be registered for on a client. In brackets what it is called with."""

    #: A call has come in (the :class:`ActiveCall`).
    INCOMING_CALL = "INCOMING_CALL"


class CallEvent(StrEnum):
    """What a handler can be registered for on a call. In brackets what it is called with, if it takes an argument."""

    #: The far end, or we, picked up, even if before the handler was registered (the call's :class:`EventRecord`).
    CALL_ANSWERED = "CALL_ANSWERED"
    #: The answer attempt failed; the state is what it was (the :class:`CallAnswerFailed`).
    CALL_ANSWER_FAILED = "CALL_ANSWER_FAILED"
    #: The second leg has joined: a conference (the second leg's :class:`ActiveCall`).
    CALL_CONNECTED = "CALL_CONNECTED"
    #: The second leg could not be reached (the :class:`CallConnectFailed`).
    CALL_CONNECT_FAILED = "CALL_CONNECT_FAILED"
    #: The call was put on hold (the :class:`EventRecord`).
    CALL_HELD = "CALL_HELD"
    #: The hold was lifted (the :class:`EventRecord`).
    CALL_RESUMED = "CALL_RESUMED"
    #: Packets are missing from what we hear (how many, an int; 20 ms each).
    CALL_GAP = "CALL_GAP"
    #: Every five seconds of the call (its :class:`CallStatistics`).
    CALL_QUALITY = "CALL_QUALITY"
    #: The call is over, even if since before the handler was registered (the :class:`CallEnding`, or the exception that
    #: :meth:`ActiveCall.wait_ended` would raise).
    CALL_TERMINATED = "CALL_TERMINATED"


INCOMING_CALL = ClientEvent.INCOMING_CALL
CALL_ANSWERED = CallEvent.CALL_ANSWERED
CALL_ANSWER_FAILED = CallEvent.CALL_ANSWER_FAILED
CALL_CONNECTED = CallEvent.CALL_CONNECTED
CALL_CONNECT_FAILED = CallEvent.CALL_CONNECT_FAILED
CALL_HELD = CallEvent.CALL_HELD
CALL_RESUMED = CallEvent.CALL_RESUMED
CALL_GAP = CallEvent.CALL_GAP
CALL_QUALITY = CallEvent.CALL_QUALITY
CALL_TERMINATED = CallEvent.CALL_TERMINATED


@attrs.frozen(kw_only=True)
class EventRecord:
    """One event as it was received. Records are equal when their bytes, number, time and verdict are."""

    #: 1, 2, 3 … within one ingest.
    number: int
    call_sid: str
    # Compared by its bytes: an event with a jitter of NaN would not even equal itself.
    event: messages.CallEvent = attrs.field(eq=False)
    #: The body of the frame, as the gateway sent it.
    raw: bytes
    verdict: Verdict
    #: Seconds of the clock that the ingest's owner uses.
    received_at: float


@attrs.frozen(kw_only=True)
class IngestStatistics:
    """What an ingest has seen so far."""

    #: Records made; the sum of the five below.
    events: int
    in_order: int
    duplicates: int
    gaps: int
    violations: int
    unknown: int
    #: Bodies that no event could be decoded from.
    undecodable: int
    #: Calls remembered now, without and with a hangup.
    open_calls: int
    finished_calls: int
    #: Calls forgotten because there were too many.
    open_calls_forgotten: int
    finished_calls_forgotten: int


@attrs.define(eq=False)
class _Remembered:
    """The order of one call and the time of its last event."""

    order: CallOrder = attrs.field(factory=CallOrder)
    last_event_at: float = 0.0


class _Calls:
    """Calls by sid, the one silent longest first, and at most ``limit`` of them."""

    __slots__ = ("_by_key", "_limit", "forgotten")

    def __init__(self, limit: int) -> None:
        self._by_key: OrderedDict[str | bytes, _Remembered] = OrderedDict()
        self._limit = limit
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: str | bytes) -> bool:
        return key in self._by_key

    def take(self, key: str | bytes) -> _Remembered | None:
        return self._by_key.pop(key, None)

    def put(self, key: str | bytes, call: _Remembered) -> None:
        self._by_key[key] = call
        if len(self._by_key) > self._limit:
            self._by_key.popitem(last=False)
            self.forgotten += 1

    def expire(self, before: float) -> None:
        """Forget the calls whose last event came before that time."""
        while self._by_key:
            key, call = next(iter(self._by_key.items()))
            if call.last_event_at >= before:
                return
            del self._by_key[key]


# Longer sids are remembered by their hash: a hostile gateway may send 20,000 of a megabyte each.
_LONGEST_KEY = 64


def _key(call_sid: str) -> str | bytes:
    if len(call_sid) <= _LONGEST_KEY:
        return call_sid
    return hashlib.blake2b(call_sid.encode(errors="surrogateescape"), digest_size=32).digest()


class Ingest:
    """Turns event bodies into records.

    ``memory`` is how many seconds a finished call is remembered after its last event, ``max_calls`` how many finished
    and how many open calls are remembered at the same time.
    """

    def __init__(self, *, memory: float = 300.0, max_calls: int = 20_000) -> None:
        self._memory = memory
        self._open = _Calls(max_calls)
        self._finished = _Calls(max_calls)
        self._verdicts = dict.fromkeys(Verdict, 0)
        self._number = 0
        self._undecodable = 0

    def __repr__(self) -> str:
        return f"<Ingest, {self._number} events, {len(self._open)} calls open, {len(self._finished)} finished>"

    def event(self, body: bytes, *, at: float) -> EventRecord:
        """The record of an event frame's body that was received ``at`` seconds.

        Whatever the verdict, there is a record; an event of type UNKNOWN or of a type newer than this package has the
        verdict unknown. Raises :class:`~agentao_trio.errors.RemoteProtocolError` for a body that cannot be decoded,
        which spends no number, and ValueError for a time that is not a finite number.
        """
        if not math.isfinite(at):
            raise ValueError(f"an event cannot be received at {at} seconds")
        try:
            event = messages.decode(messages.CallEvent, body)
        except RemoteProtocolError:
            self._undecodable += 1
            raise
        self._finished.expire(at - self._memory)
        verdict = self._judge(event, at)
        self._verdicts[verdict] += 1
        self._number += 1
        return EventRecord(
            number=self._number, call_sid=event.call_sid, event=event, raw=body, verdict=verdict, received_at=at
        )

    def _judge(self, event: messages.CallEvent, at: float) -> Verdict:
        key = _key(event.call_sid)
        call = self._open.take(key) or self._finished.take(key) or _Remembered()
        verdict = call.order.feed(event.event_type, event.timestamp_ms)
        call.last_event_at = at
        if call.order.state is OrderState.ENDED:
            self._finished.put(key, call)
        elif call.order.state is not OrderState.NEW:
            self._open.put(key, call)
        return verdict

    def has_ended(self, call_sid: str) -> bool:
        """Whether the hangup of a call of this name is remembered, so that nothing further of it can be in order."""
        return _key(call_sid) in self._finished

    def statistics(self) -> IngestStatistics:
        """A snapshot of the counts."""
        return IngestStatistics(
            events=self._number,
            in_order=self._verdicts[Verdict.IN_ORDER],
            duplicates=self._verdicts[Verdict.DUPLICATE],
            gaps=self._verdicts[Verdict.GAP],
            violations=self._verdicts[Verdict.VIOLATION],
            unknown=self._verdicts[Verdict.UNKNOWN],
            undecodable=self._undecodable,
            open_calls=len(self._open),
            finished_calls=len(self._finished),
            open_calls_forgotten=self._open.forgotten,
            finished_calls_forgotten=self._finished.forgotten,
        )
