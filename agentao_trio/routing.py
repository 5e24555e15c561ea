"""From the frames of gateway streams to the calls they belong to.

Theory of operation
-------------------
Gateway streams mix calls, and frames of one call may come on several streams (PROTOCOL section 3), so everything is
routed by ``call_sid`` alone. Routing never waits and never raises for what the gateway sent: an agent that is slow
hurts only itself, and a frame that makes no sense is counted and skipped.

Besides the calls in progress, and those of others that a supervisor listens to, three kinds of ``call_sid`` are known:
calls that were *disowned*, because their owner left before the gateway confirmed the end, and which are hung up when
they show signs of life; calls that were *released*, because they go on without us or were refused to us; and *strays*,
which nobody here has asked for yet. A stray may be an inbound call, or one whose Originate has not been answered while
the gateway chose the name itself. All three are bounded.

Streams have no order among each other, so that a hangup may overtake earlier events of its call. Those are no stray:
what has ended does not come in.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection
from typing import Literal

import trio

from agentao_trio import messages
from agentao_trio.audio_frames import AudioFields, FrameReader
from agentao_trio.broadcast import Broadcast, Subscription
from agentao_trio.call import ActiveCall
from agentao_trio.callstate import Verdict
from agentao_trio.errors import ConnectionLost, EventsOverrun, RemoteProtocolError
from agentao_trio.events import EventRecord, Ingest, IngestStatistics
from agentao_trio.messages import EventType, MethodId
from agentao_trio.statistics import MediaStatistics
from agentao_trio.supervise import Supervision
from agentao_trio.wire import Frame

__all__ = ["CallRouter"]

log: logging.Logger = logging.getLogger("agentao_trio.session")

#: How many calls without an owner are remembered: strays with their latest events, the others by name.
STRAY_CALLS, STRAY_EVENTS, DISOWNED_CALLS, RELEASED_CALLS = 256, 8, 4096, 4096
#: An event of a stray that is longer than this is no more than a way to fill our memory.
STRAY_BYTES = 4096

_AUDIO = int(MethodId.AudioFrame)

#: Seconds that a gateway may take to say whether it still knows a call.
ASK_SECONDS = 3.0
#: Seconds before a disowned call that shows signs of life is hung up once more.
HANG_UP_AGAIN = 1.0


class CallRouter:
    """The calls of one session by name.

    ``hang_up`` is called with the name of a call that nobody owns any more, and how many seconds to wait first.
    """

    def __init__(self, counts: Counter[str], hang_up: Callable[[str, float], None]) -> None:
        self.calls: dict[str, ActiveCall] = {}
        #: Calls of others that this session listens to.
        self.supervised: dict[str, Supervision] = {}
        #: Every event that was delivered or surfaced, in order of arrival.
        self.records: Broadcast[EventRecord] = Broadcast()
        #: Called when an event came for a call nobody here knows.
        self.on_stray: Callable[[], None] = lambda: None
        #: Called with every event, whatever its verdict, before its call learns of it.
        self.on_event: Callable[[EventRecord], None] = lambda record: None
        self._counts = counts
        self._hang_up = hang_up
        self._ingest = Ingest()
        self._audio = FrameReader(self._own_name)
        self._media_of_the_past = MediaStatistics()
        self._strays: OrderedDict[str, deque[EventRecord]] = OrderedDict()
        self._released: OrderedDict[str, None] = OrderedDict()
        self._disowned: OrderedDict[str, float] = OrderedDict()  # and when it was, or will be, hung up

    # -- names ----------------------------------------------------------------------------------------------------

    def adopt(self, call: ActiveCall) -> None:
        """From now on ``call`` gets what bears its name, beginning with what has come already."""
        self.calls[call.call_sid] = call
        for record in self._strays.pop(call.call_sid, ()):
            self._deliver(call, record)

    def whose(self, call_sid: str) -> str | None:
        """The kind of call that a new one of this name would be confused with."""
        if call_sid in self.calls:
            return "an open call"
        if call_sid in self._disowned:
            return "a call that was given up and is being hung up"
        if self._ingest.has_ended(call_sid):
            return "a call that has ended"
        return None

    def rename(self, call: ActiveCall, call_sid: str) -> None:
        """The gateway chose the call's name itself. Where the call is over here by then, it lives on under that name,
        and is disowned."""
        if call_sid == call.call_sid:
            return
        if self.calls.get(call.call_sid) is not call:
            self._hang_up_unowned(call_sid)
            return
        del self.calls[call.call_sid]
        call._rename(call_sid)
        self.adopt(call)

    def forget(self, call: ActiveCall, ending: str = "calls_ended") -> None:
        """The call is over. Harmless when repeated: each is counted by one of its endings."""
        if self.calls.pop(call.call_sid, None) is not None:
            self._counts[ending] += 1
            self._media_of_the_past += call._media()

    def disown(self, call: ActiveCall, ending: Literal["calls_disowned", "calls_lost"] = "calls_disowned") -> None:
        """The call may still exist at the gateway, but nobody here wants it."""
        self.forget(call, ending)
        self._hang_up_unowned(call.call_sid)

    def _hang_up_unowned(self, call_sid: str) -> None:
        self._strays.pop(call_sid, None)
        self._disowned[call_sid] = trio.current_time()
        if len(self._disowned) > DISOWNED_CALLS:
            self._disowned.popitem(last=False)
        self._hang_up(call_sid, 0.0)

    async def lose_silent_calls(self, since: float, window: float, is_connected: Callable[[], bool]) -> None:
        """End the calls of which nothing is heard from ``since``, when the connection was lost, to the end of the
        gateway's memory, ``window`` seconds later. Where there is a connection they are asked after first; after the
        calls of others, which are supervised, there is no asking."""

        async def lose_unless_alive(call: ActiveCall) -> None:
            if is_connected():
                with trio.move_on_after(ASK_SECONDS):
                    await call._ask_after()
            if call._heard_at >= since or call.call_sid not in self.calls:
                return
            call._deliver_failure(
                ConnectionLost(
                    f"call {call.call_sid}: nothing was heard of it for {window:g} s after the connection to the "
                    "gateway was lost, which no longer remembers it"
                )
            )
            self.disown(call, "calls_lost")

        await trio.sleep_until(since + window)
        for supervision in self.supervised.values():
            if supervision._heard_at < since:
                supervision._end()
        async with trio.open_nursery() as nursery:
            for call in [call for call in self.calls.values() if call._heard_at < since]:
                nursery.start_soon(lose_unless_alive, call)

    def release(self, call: ActiveCall, ending: Literal["calls_released", "calls_refused"] = "calls_released") -> None:
        """The call goes on without us, or has been refused; until its hangup we have heard of it, and do not care."""
        self.forget(call, ending)
        self._released[call.call_sid] = None
        if len(self._released) > RELEASED_CALLS:
            self._released.popitem(last=False)

    def _shows_life(self, call_sid: str, now: float) -> None:
        """A disowned call goes on: the Terminate may have overtaken the Originate. Once more, but not at once."""
        hung_up_at = self._disowned[call_sid]
        if hung_up_at <= now:
            again_at = max(now, hung_up_at + HANG_UP_AGAIN)
            self._disowned[call_sid] = again_at
            self._hang_up(call_sid, again_at - now)

    def may_live(self, call_sid: str) -> bool:
        """Whether a call, with an owner or without, has not been confirmed to have ended."""
        return call_sid in self.calls or call_sid in self._disowned

    def ingest_statistics(self) -> IngestStatistics:
        """What was made of the events."""
        return self._ingest.statistics()

    def media_statistics(self) -> MediaStatistics:
        """The audio of all calls, open and over."""
        return sum((call._media() for call in self.calls.values()), self._media_of_the_past)

    def unclaimed(self, trunks: tuple[str, ...] = ()) -> list[str]:
        """The strays that were created and have not ended, as far as we know; where ``trunks`` are named, without those
        that are on another one by their own account."""
        ended = EventType.CHANNEL_HANGUP_COMPLETE
        return [
            sid
            for sid, records in self._strays.items()
            if all(
                each.event.event_type != ended and (not trunks or each.event.trunk_id in ("", *trunks))
                for each in records
            )
        ]

    def subscribe(
        self,
        types: Collection[int] | None,
        call_sids: Collection[str] | None,
        *,
        bound: int,
        overflow: Literal["drop_oldest", "end"],
    ) -> Subscription[EventRecord]:
        """A reader of the events; see :meth:`Session.events`."""
        wanted_types = None if types is None else frozenset(types)
        wanted_sids = None if call_sids is None else frozenset(call_sids)

        def wanted(record: EventRecord) -> bool:
            return (wanted_types is None or record.event.event_type in wanted_types) and (
                wanted_sids is None or record.call_sid in wanted_sids
            )

        def overrun() -> Exception:
            return EventsOverrun(f"{bound} events were left unread by a reader that must not lose any")

        return self.records.subscribe(bound, wanted=wanted, overrun=overrun if overflow == "end" else None)

    # -- frames ---------------------------------------------------------------------------------------------------

    def route(self, frames: list[Frame], now: float) -> None:
        """Hand frames of one stream to their calls, in order; ``now`` is in seconds of trio's clock."""
        self._counts["frames"] += len(frames)
        calls, read = self.calls, self._audio.read
        for method_id, body in frames:
            try:
                # Nearly all are audio, and known by number: an enumeration takes longer to look into.
                if method_id == _AUDIO or (method := messages.method_of(method_id)) is MethodId.AudioFrame:
                    fields = read(body)
                    if (call := calls.get(fields[0])) is not None:
                        call._deliver_audio(fields, now)
                    else:
                        self._route_elsewhere(fields, now)
                elif method is MethodId.StreamEvents:
                    self._route_event(body, now)
                else:
                    self._counts["frames_unknown"] += 1
            except RemoteProtocolError as error:
                self._counts["frames_undecodable"] += 1
                log.warning("a frame was skipped: %s", error)

    def _own_name(self, call_sid: str) -> str | None:
        call = self.calls.get(call_sid)
        return None if call is None else call.call_sid

    def _route_elsewhere(self, fields: AudioFields, now: float) -> None:
        """Audio of no call of ours."""
        call_sid = fields[0]
        if (supervision := self.supervised.get(call_sid)) is not None:
            supervision._deliver_audio(fields, now)
            return
        self._counts["audio_for_unknown_calls"] += 1
        if call_sid in self._disowned:
            self._shows_life(call_sid, now)

    def _route_event(self, body: bytes, now: float) -> None:
        record = self._ingest.event(body, at=now)
        self._counts["events"] += 1
        self.on_event(record)
        event_type = record.event.event_type
        if event_type == EventType.UNKNOWN:
            # "Should never appear. If it does, log and drop" (PROTOCOL section 6).
            self._counts["events_unknown_type"] += 1
            log.warning("call %r: an event of type UNKNOWN was dropped", record.call_sid)
            return
        if record.verdict is Verdict.DUPLICATE:
            self._counts["events_duplicate"] += 1
            return
        if record.verdict is Verdict.UNKNOWN:
            self._counts["events_unknown_type"] += 1
        elif record.verdict is not Verdict.IN_ORDER:
            self._counts["events_out_of_order"] += 1
            # Of another worker's call, whose beginning was never heard or is forgotten, it is nothing to worry about.
            level = logging.WARNING if record.call_sid in self.calls else logging.INFO
            log.log(level, "call %r: %r came out of order (%s)", record.call_sid, event_type, record.verdict.value)
        self.records.publish(record)
        if (supervision := self.supervised.get(record.call_sid)) is not None:
            supervision._deliver_event(record)
        if (call := self.calls.get(record.call_sid)) is not None:
            self._deliver(call, record)
        elif record.call_sid in self._disowned:
            if event_type == EventType.CHANNEL_HANGUP_COMPLETE:
                del self._disowned[record.call_sid]
            else:
                self._shows_life(record.call_sid, now)
        elif record.call_sid in self._released:
            if event_type == EventType.CHANNEL_HANGUP_COMPLETE:
                del self._released[record.call_sid]
        elif supervision is None and (
            event_type == EventType.CHANNEL_HANGUP_COMPLETE or not self._ingest.has_ended(record.call_sid)
        ):
            self._keep_stray(record)

    def _deliver(self, call: ActiveCall, record: EventRecord) -> None:
        call._deliver_event(record)
        if record.event.event_type == EventType.CHANNEL_HANGUP_COMPLETE:
            self.forget(call)

    def _keep_stray(self, record: EventRecord) -> None:
        if len(record.raw) > STRAY_BYTES:
            self._counts["stray_calls_forgotten"] += 1
            return
        self._strays.setdefault(record.call_sid, deque(maxlen=STRAY_EVENTS)).append(record)
        if len(self._strays) > STRAY_CALLS:
            self._strays.popitem(last=False)
            self._counts["stray_calls_forgotten"] += 1
        self.on_stray()
