"""From a session's records to the events that dashboards understand, and the snapshots for those who come late.

Theory of operation
-------------------
:meth:`Feed.record` takes each record once, in the order of their numbers; a number taken before makes nothing. What
changes a call goes out as ``call_update``, numbered without a gap, with a merge patch on the call object, and again as
``call_data`` to those who follow this one call. Speech goes out beside that: final messages have a numbering of their
own, deltas have none, as the final text supersedes them.

The end of a call is told once and in order: the conversation's end, the final quality, the recording, the call's own.
The gateway's hangup makes all of it; the records that the session publishes about the same end find it told.
Afterwards only what can be late is taken: transcripts, recordings, detections and errors.

A call that was left to another worker is gone: no patch can take it away, so everybody gets a new snapshot. What the
gateway still tells of it makes nothing. Should it come back, a number is left out: whoever still knows the call as it
was asks for a snapshot then.

Calls that are over are kept for some minutes and up to a number, open ones up to a number; the rest is forgotten and
counted. Rooms of a tenant have its name in front: whoever is in them hears of that tenant's calls alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import attrs

from agentao_trio.live.calls import LiveCall, iso, iso_ms
from agentao_trio.records import Record, RecordKind, plain

__all__ = [
    "CALLS",
    "TRANSCRIPTS",
    "Feed",
    "FeedStatistics",
    "LiveEvent",
    "room_of_call",
    "room_of_transcript",
    "within",
]

#: Sids that were given up for others, and those of calls left to other workers: what still comes of them is known.
_MOST_NAMES = 1000
#: Calls of whose quality a late joiner is told what it was: the latest.
_MOST_SAMPLED = 100
#: The rooms of everything that happens, and of everything that is said.
CALLS = "call-updates"
TRANSCRIPTS = "transcript-updates"


def room_of_call(call_sid: str) -> str:
    """The room of one call's changes."""
    return f"call-{call_sid}"


def room_of_transcript(call_sid: str) -> str:
    """The room of what is said in one call."""
    return f"transcript-{call_sid}"


def within(tenant: str, room: str) -> str:
    """The room of the same purpose for one tenant; for the tenant "" the room of everybody's calls."""
    # Quoted, so that no tenant's name and no sid can make up the name of another tenant's room.
    return f"{quote(tenant, safe='')}:{room}" if tenant else room


@attrs.frozen(kw_only=True)
class LiveEvent:
    """One Socket.IO event, for whoever is in any of ``rooms``; once for each, however many of them it is in."""

    name: str
    args: tuple[Any, ...]
    rooms: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class FeedStatistics:
    """What a feed has seen so far."""

    records: int
    #: Records that came again, were about a call that is over or unknown, or that dashboards have no use for.
    records_without_event: int
    events: int
    calls_open: int
    calls_finished: int
    #: Open calls forgotten because there were too many.
    open_calls_forgotten: int


class Feed:
    """Makes live events of records. ``epoch`` tells this feed's numbers from those of any other.

    ``keep_seconds`` and ``keep_calls`` say for how long, and how many of, the calls that are over are kept, and
    ``max_calls`` how many open ones. ``epoch`` must hold no colon.
    """

    def __init__(
        self, epoch: str, *, keep_seconds: float = 600.0, keep_calls: int = 200, max_calls: int = 10_000
    ) -> None:
        if not epoch or ":" in epoch:
            raise ValueError(f"an epoch is a word without a colon, not {epoch!r}")
        self.epoch = epoch
        self._keep_seconds = keep_seconds
        self._keep_calls = keep_calls
        self._max_calls = max_calls
        # The call that was silent longest first, and the one that ended first.
        self._open: OrderedDict[str, LiveCall] = OrderedDict()
        self._finished: OrderedDict[str, LiveCall] = OrderedDict()
        self._renamed: OrderedDict[str, str] = OrderedDict()
        #: The last number of each call that was left to another worker.
        self._released: OrderedDict[str, int] = OrderedDict()
        self._number = 0
        self._records = self._useless = self._events = self._forgotten = 0
        self._out: list[LiveEvent] = []

    def __repr__(self) -> str:
        return f"<Feed {self.epoch}, {len(self._open)} calls open, {len(self._finished)} over, {self._events} events>"

    # -- records in, events out ---------------------------------------------------------------------------------------

    def record(self, record: Record) -> list[LiveEvent]:
        """The events that ``record`` makes, in the order in which they are to go out."""
        self._records += 1
        self._out = []
        handle = _HANDLERS.get(record.kind)
        if record.number > self._number and handle is not None:
            self._number = record.number
            call_sid = plain(record.call_sid)
            call_sid = self._renamed.get(call_sid, call_sid)
            self._expire(record.at)
            if call_sid in self._released and record.kind is not RecordKind.CALL:
                pass  # the gateway tells everybody how it goes on
            elif call_sid:
                handle(self, call_sid, plain(record.data), record.at)
            elif record.kind is RecordKind.ERROR:
                data = {**_error(plain(record.data)), "timestamp": iso(record.at)}
                self._emit("error", data, CALLS, tenant="")
        self._useless += not self._out
        self._events += len(self._out)
        return self._out

    def known_call(self, call_sid: str, known: Mapping[str, Any], *, at: float, answered_at: float | None) -> None:
        """Enter a call that began before this feed: ``known`` as in the record of its beginning. Emits nothing."""
        self._out = []
        self._call(plain(call_sid), {**plain(known), "phase": "began"}, at)
        call = self._open[plain(call_sid)]
        if answered_at is not None:
            call.answered_at = answered_at
            self._move(call, "in-progress", {}, {"answerTime": iso(answered_at)}, at)

    def _call(self, call_sid: str, data: dict[str, Any], at: float) -> None:
        match data.get("phase"):
            case "began":
                known = _known(
                    {
                        "direction": data.get("direction"),
                        "from": data.get("caller"),
                        "to": data.get("callee"),
                        "trunkId": data.get("trunk_id"),
                    }
                )
                call = self._find(call_sid)
                if call is None:
                    self._begin(call_sid, known, at)
                elif call.ended_at is None and any(call.object.get(name) != value for name, value in known.items()):
                    self._update(call, "status_update", {"status": call.status, **known}, known, at)
            case "renamed":
                self._rename(str(data.get("call_sid_before")), call_sid, at)
            case "over" if data.get("how") == "released":
                self._release(call_sid, at)
            case "over":
                if (call := self._open.get(call_sid)) is not None:
                    status = "failed" if data.get("how") in ("refused", "lost", "overrun") else _left_status(call)
                    error = data.get("error") if status == "failed" else None
                    self._end(call, {"status": status}, at, reason=str(data.get("how", "")), error=error)

    def _event(self, call_sid: str, data: dict[str, Any], at: float) -> None:
        event: dict[str, Any] = data.get("event", {})
        kind = event.get("event_type")
        if data.get("verdict") in ("duplicate", "unknown"):
            return
        call = self._find(call_sid)
        if call is not None and call.ended_at is not None:
            return
        tenant = event.get("tenant_id")
        facts = _known(
            {
                "codec": event.get("codec"),
                "trunkId": event.get("trunk_id"),
                "tenantId": tenant if tenant != "…" else None,
            }
        )
        began = _known({"startTime": iso_ms(event.get("start_timestamp_ms"))})
        if call is None:
            # Nobody here placed it, or its record was not seen: what is known is what the gateway says.
            status = "ringing" if "RINGING" in str(event.get("status", "")).upper() else "initiated"
            call = self._begin(call_sid, {"direction": "inbound", "status": status, **facts, **began}, at)
        facts = {name: value for name, value in facts.items() if name == "codec" or not call.object[name]}
        match kind:
            case "CHANNEL_CREATE":
                ringing = call.status == "initiated" and "RINGING" in str(event.get("status", "")).upper()
                self._move(call, "ringing" if ringing else call.status, {}, {**facts, **began}, at)
            case "CHANNEL_ANSWER":
                call.answered_at = at
                answered = {"answerTime": iso_ms(event.get("answer_timestamp_ms")) or iso(at)}
                self._move(call, "in-progress", {**answered, **_only(facts, "codec")}, {**facts, **answered}, at)
            case "CHANNEL_HOLD":
                self._move(call, "on-hold", {}, facts, at)
            case "CHANNEL_RESUME":
                self._move(call, "in-progress", {}, facts, at)
            case "CHANNEL_HANGUP_COMPLETE":
                self._hangup(call, event, facts, at)

    def _hangup(self, call: LiveCall, event: dict[str, Any], facts: dict[str, Any], at: float) -> None:
        cause = event.get("q850_cause") or 0
        if call.answered_at is not None or event.get("answer_timestamp_ms"):
            status = "completed"
        else:
            # ITU-T Q.850: 17 user busy, 18 and 19 nobody answered, 16 normal clearing, here before the answer.
            status = {17: "busy", 18: "no-answer", 19: "no-answer", 16: "canceled"}.get(cause, "failed")
        metrics = None
        if event.get("packets_received") or event.get("packets_sent") or event.get("estimated_mos"):
            received, lost = event.get("packets_received") or 0, event.get("packets_lost") or 0
            metrics = {
                **_known(
                    {"mos": (received and event.get("estimated_mos")) or None, "jitterMs": event.get("jitter_ms")}
                ),
                "packetsLost": lost,
                "packetLossPct": round(100 * lost / (received + lost), 3) if received + lost else 0.0,
                "source": "gateway",
                "final": True,
            }
        ending: dict[str, Any] = {"status": status, **({"q850Cause": cause} if cause else {})}
        ending |= _known({"endTime": iso_ms(event.get("end_timestamp_ms"))})
        if event.get("duration_seconds"):
            ending["duration"] = event["duration_seconds"]
        self._end(
            call, ending, at, reason="call_ended", facts=facts, metrics=metrics, url=event.get("recording_url") or ""
        )

    def _end(
        self,
        call: LiveCall,
        ending: dict[str, Any],
        at: float,
        *,
        reason: str,
        facts: Mapping[str, Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        url: str = "",
        error: str | None = None,
    ) -> None:
        """Tell the end of a call: every step of it that has not been told."""
        if call.ai_status in ("connecting", "connected"):
            self._conversation(call.call_sid, {"phase": "ended", "reason": reason}, at)
        if metrics is not None:
            self._update(call, "quality_update", {"metrics": metrics}, {"metrics": metrics}, at)
        if url:
            self._recorded(call, {"recordingSid": "gateway", "status": "completed", "recordingUrl": url}, at)
        talked = max(0, round(at - call.answered_at)) if call.answered_at is not None else 0
        ending = {"endTime": iso(at), "duration": talked, **ending}
        patch: dict[str, Any] = {**(facts or {}), **ending}
        if error is not None:
            patch["lastError"] = {"source": "call", "message": error}
        call.ended_at = at
        self._update(call, "call_ended", ending, patch, at)
        del self._open[call.call_sid]
        self._finished[call.call_sid] = call
        self._expire(at)

    def _quality(self, call_sid: str, data: dict[str, Any], at: float) -> None:
        call = self._ongoing(call_sid, at)
        if call is None:
            return
        if call.status in ("initiated", "ringing"):  # its answer was before our time: only answered calls are measured
            call.answered_at = at
            self._move(call, "in-progress", {}, {"answerTime": iso(at)}, at)
        metrics = _known(
            {
                "mos": data.get("mos"),
                "jitterMs": data.get("jitter_ms"),
                "packetsLost": data.get("packets_lost"),
                "packetLossPct": data.get("packet_loss_pct"),
            }
        )
        metrics |= {"source": "client", **({"final": True} if data.get("final") else {})}
        self._update(
            call,
            "quality_update",
            {"metrics": metrics},
            {"metrics": metrics, **_known({"codec": data.get("codec")})},
            at,
        )

    def _recording(self, call_sid: str, data: dict[str, Any], at: float) -> None:
        call = self._find(call_sid)
        if call is not None:
            recording = {
                "recordingSid": data.get("recording_sid"),
                "status": data.get("status"),
                "recordingUrl": data.get("location"),
                "duration": data.get("duration_seconds"),
                "error": data.get("error"),
            }
            self._recorded(call, _known(recording), at)

    def _recorded(self, call: LiveCall, recording: dict[str, Any], at: float) -> None:
        sid = str(recording.get("recordingSid", ""))
        patch = call.recording(sid, recording)
        if call.object.get("recordings", {}).get(sid) != recording:
            self._update(call, "recording_update", recording, patch, at)

    def _detection(self, call_sid: str, data: dict[str, Any], at: float) -> None:
        call = self._find(call_sid)
        if call is not None:
            answered_by = data.get("answered_by", "unknown")
            facts = {"confidence": data.get("confidence"), "detectionMs": data.get("detection_ms")}
            told = {"answeredBy": answered_by, **_known(facts)}
            self._update(call, "machine_detection", told, {"answeredBy": answered_by}, at)

    def _conversation(self, call_sid: str, data: dict[str, Any], at: float) -> None:
        call = self._ongoing(call_sid, at)
        if call is None:
            return
        model = _known({name: data.get(name) for name in ("provider", "model", "voice")})
        why = _known({"reason": data.get("reason")})
        talk = _known({"conversationId": data.get("conversation_id") or data.get("session_id")})
        match data.get("phase"):
            case "connecting" | "reconnecting":
                patch = {"ai": {"status": "connecting", "reason": None, **model, **why}}
                self._update(call, "status_update", {"status": "connecting_to_ai", **model, **why}, patch, at)
            case "connected" | "renewed":
                patch = {"ai": {"status": "connected", "reason": None, **model, **why}, **talk}
                told = {"status": "connected_to_ai", **talk, **model, **why}
                self._update(call, "status_update", told, patch, at)
            case "started":
                self._update(call, "conversation_started", talk, {"ai": {"status": "connected"}, **talk}, at)
            case "ended" if call.ai_status != "ended":
                talk = talk or _only(call.object, "conversationId")
                patch = {"ai": {"status": "ended", "reason": None, **why}, **talk}
                self._update(call, "conversation_ended", {**why, "timestamp": iso(at), **talk}, patch, at)

    def _tool(self, call_sid: str, data: dict[str, Any], at: float) -> None:
        call = self._ongoing(call_sid, at)
        if call is not None:
            told = {"name": data.get("name"), "callId": data.get("tool_call_id"), "phase": data.get("phase")}
            told |= {name: data.get(name) for name in ("arguments", "output", "error", "seconds")}
            self._update(call, "function_call", _known(told), {}, at)

    def _failure(self, call_sid: str, data: dict[str, Any], at: float) -> None:
        call = self._find(call_sid)
        if call is not None:
            error = _error(data)
            self._update(call, "error", error, {"lastError": error}, at)

    def _command(self, call_sid: str, data: dict[str, Any], at: float) -> None:
        if data.get("phase") in ("refused", "timed_out", "failed"):
            message = f"{data.get('method')}: {data.get('error', data['phase'])}"
            self._failure(call_sid, {"source": "rpc", "code": data.get("code"), "message": message}, at)

    def _transcript(self, call_sid: str, data: dict[str, Any], at: float) -> None:
        final = data.get("phase") == "final"
        # The last words of a call may be transcribed when it is over.
        call = self._find(call_sid) if final else self._ongoing(call_sid, at)
        if call is None:
            return
        item_id, order, role = str(data.get("item_id", "")), data.get("order", 0), data.get("role", "")
        item = {"itemId": item_id, "order": order}
        text = str(data.get("text", ""))
        if final:
            message = {"role": role, "message": text, "timestamp": iso(at), **item}
            message |= _known({"interrupted": data.get("interrupted"), "heardMs": data.get("heard_ms")})
            if tseq := call.said(message):
                told = {"callSid": call.call_sid, "timestamp": iso(at), "message": message, "tseq": tseq}
                room = room_of_transcript(call.call_sid)
                self._emit("transcript_message", told, TRANSCRIPTS, room, tenant=call.tenant)
                self._emit("call_transcript_message", told, room, tenant=call.tenant)
        elif not call.is_final(item_id):
            told = {"type": "message", "speaker": role, **item, "text": text, "isPartial": True}
            told |= _known({"delta": data.get("delta"), "offset": data.get("offset")})
            self._say(call, told, at)

    def _speech(self, call_sid: str, data: dict[str, Any], at: float) -> None:
        call = self._ongoing(call_sid, at)
        if call is not None:
            told = {"type": "typing_indicator", "speaker": data.get("speaker"), "active": data.get("active")}
            self._say(call, {**told, **_known({"itemId": data.get("item_id")})}, at)

    # -- for those who come late --------------------------------------------------------------------------------------

    def snapshot(self, at: float, tenant: str = "") -> LiveEvent:
        """``active_calls`` at ``at`` Unix seconds: every call that is kept; of one tenant, where one is named."""
        calls = [call.object for call in self._kept() if not tenant or call.tenant == tenant]
        return LiveEvent(name="active_calls", args=(calls, {"epoch": self.epoch, "serverTime": iso(at)}))

    def call(self, call_sid: str, tenant: str = "") -> LiveEvent | None:
        """``call_data`` of one call; None where there is none, or it is not that tenant's."""
        call = self._visible(call_sid, tenant)
        return LiveEvent(name="call_data", args=(call.full(),)) if call is not None else None

    def quality(self, tenant: str = "") -> LiveEvent:
        """``quality_history``: by sid, the last minute's samples of the latest calls, see :meth:`LiveCall.samples`."""
        calls = [call for call in self._kept()[-_MOST_SAMPLED:] if not tenant or call.tenant == tenant]
        return LiveEvent(
            name="quality_history",
            args=({call.call_sid: samples for call in calls if (samples := call.samples())},),
        )

    def transcript(self, call_sid: str, tenant: str = "") -> LiveEvent | None:
        """``call_transcript`` of one call; None where there is none, or it is not that tenant's."""
        call = self._visible(call_sid, tenant)
        return LiveEvent(name="call_transcript", args=(call.transcript(),)) if call is not None else None

    def transcripts(self, tenant: str = "") -> list[LiveEvent]:
        """``call_transcript`` of every open call in which something was said."""
        return [
            LiveEvent(name="call_transcript", args=(call.transcript(),))
            for call in self._open.values()
            if call.has_transcript and (not tenant or call.tenant == tenant)
        ]

    def calls(self) -> dict[str, dict[str, Any]]:
        """Every call object that is kept, by sid."""
        return {call.call_sid: call.object for call in self._kept()}

    def statistics(self) -> FeedStatistics:
        """A snapshot of the counts."""
        return FeedStatistics(
            records=self._records,
            records_without_event=self._useless,
            events=self._events,
            calls_open=len(self._open),
            calls_finished=len(self._finished),
            open_calls_forgotten=self._forgotten,
        )

    # -- inside -------------------------------------------------------------------------------------------------------

    def _kept(self) -> list[LiveCall]:
        return [*self._finished.values(), *self._open.values()]

    def _find(self, call_sid: str) -> LiveCall | None:
        return self._open.get(call_sid) or self._finished.get(call_sid)

    def _visible(self, call_sid: str, tenant: str) -> LiveCall | None:
        call = self._find(call_sid)
        return call if call is not None and (not tenant or call.tenant == tenant) else None

    def _ongoing(self, call_sid: str, at: float) -> LiveCall | None:
        """The call, unless it is over. One that nobody heard of is in progress since before our time."""
        if (call := self._find(call_sid)) is None:
            return self._begin(call_sid, {"status": "in-progress", "answerTime": iso(at)}, at)
        return call if call.ended_at is None else None

    def _begin(self, call_sid: str, known: Mapping[str, Any], at: float) -> LiveCall:
        before = self._released.pop(call_sid, None)
        seq = 0 if before is None else before + 1
        call = self._open[call_sid] = LiveCall(self.epoch, call_sid, at=at, seq=seq)
        if len(self._open) > self._max_calls:
            self._open.popitem(last=False)
            self._forgotten += 1
        if "answerTime" in known:
            call.answered_at = at
        patch = {
            **{"callSid": call_sid, "sid": call_sid, "status": "initiated", "direction": "outbound"},
            **{"from": "", "to": "", "trunkId": "", "tenantId": "", "codec": "", "startTime": iso(at), "duration": 0},
            **{"answeredBy": "unknown", "ai": {"status": "none"}, "recordingCount": 0},
            **known,
        }
        self._update(call, "new_call", _only(patch, "status", "to", "from", "startTime", "direction"), patch, at)
        return call

    def _rename(self, before: str, call_sid: str, at: float) -> None:
        call = self._open.pop(before, None)
        if call is None:
            return
        other = self._find(call_sid)
        if other is None:
            call.renamed(call_sid, seq=self._released.pop(call_sid, -1) + 1)
            self._open[call_sid] = call
        else:  # events of the new sid were quicker than the reply that named it
            names = ("from", "to", "trunkId")
            lacking = {
                name: call.object[name] for name in names if call.object.get(name) and not other.object.get(name)
            }
            if call.object["direction"] != other.object["direction"]:  # which was a guess
                lacking["direction"] = call.object["direction"]
            if lacking and other.ended_at is None:
                self._update(other, "status_update", {"status": other.status, **lacking}, lacking, at)
        # Its number goes on under the new sid; were there another call by the old one, clients would know better.
        self._renamed[before] = call_sid
        if len(self._renamed) > _MOST_NAMES:
            self._renamed.popitem(last=False)
        self._take_away(before, call.tenant, at)

    def _release(self, call_sid: str, at: float) -> None:
        """Another worker has the call."""
        if call_sid in self._finished:
            return
        call = self._open.pop(call_sid, None)
        self._released[call_sid] = call.seq if call is not None else 0
        if len(self._released) > _MOST_NAMES:
            self._released.popitem(last=False)
        if call is not None:
            self._take_away(call_sid, call.tenant, at)

    def _take_away(self, call_sid: str, of_tenant: str, at: float) -> None:
        """No patch can take a call away: everybody gets a new snapshot."""
        for tenant in {"", of_tenant}:
            rooms = tuple(within(tenant, room) for room in (CALLS, room_of_call(call_sid)))
            self._out.append(attrs.evolve(self.snapshot(at, tenant), rooms=rooms))

    def _move(self, call: LiveCall, status: str, told: dict[str, Any], patch: dict[str, Any], at: float) -> None:
        """Change the status; nothing goes out where nothing changes."""
        patch = {name: value for name, value in patch.items() if call.object.get(name) != value}
        if status != call.status or patch:
            self._update(call, "status_update", {"status": status, **told}, {**patch, "status": status}, at)

    def _update(self, call: LiveCall, kind: str, told: Mapping[str, Any], patch: Mapping[str, Any], at: float) -> None:
        envelope = call.update(kind, told, patch, at)
        if call.ended_at is None:
            self._open.move_to_end(call.call_sid)
        self._emit("call_update", envelope, CALLS, tenant=call.tenant)
        mirror = {name: envelope[name] for name in ("type", "callSid", "timestamp", "seq", "eventId")}
        mirror |= {"data": call.object, "events": [envelope]}
        self._emit("call_data", mirror, room_of_call(call.call_sid), tenant=call.tenant)

    def _say(self, call: LiveCall, told: dict[str, Any], at: float) -> None:
        told = {**told, "callSid": call.call_sid, "timestamp": iso(at)}
        self._emit("transcript_update", told, TRANSCRIPTS, room_of_transcript(call.call_sid), tenant=call.tenant)

    def _emit(self, name: str, data: Mapping[str, Any], *rooms: str, tenant: str) -> None:
        if tenant:
            rooms += tuple(within(tenant, room) for room in rooms)
        self._out.append(LiveEvent(name=name, args=(data,), rooms=rooms))

    def _expire(self, at: float) -> None:
        while self._finished:
            call = next(iter(self._finished.values()))
            assert call.ended_at is not None  # or it were not among the finished
            if len(self._finished) <= self._keep_calls and call.ended_at >= at - self._keep_seconds:
                return
            del self._finished[call.call_sid]


_HANDLERS: Mapping[RecordKind, Callable[[Feed, str, dict[str, Any], float], None]] = {
    RecordKind.CALL: Feed._call,
    RecordKind.EVENT: Feed._event,
    RecordKind.COMMAND: Feed._command,
    RecordKind.QUALITY: Feed._quality,
    RecordKind.RECORDING: Feed._recording,
    RecordKind.DETECTION: Feed._detection,
    RecordKind.CONVERSATION: Feed._conversation,
    RecordKind.TRANSCRIPT: Feed._transcript,
    RecordKind.SPEECH: Feed._speech,
    RecordKind.TOOL: Feed._tool,
    RecordKind.ERROR: Feed._failure,
}


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of ``values`` that say something."""
    return {name: value for name, value in values.items() if value is not None and value != ""}


def _only(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _error(data: Mapping[str, Any]) -> dict[str, Any]:
    told = {name: data.get(name) for name in ("source", "type", "code", "message")}
    return {**_known(told), "fatal": bool(data.get("fatal"))}


def _left_status(call: LiveCall) -> str:
    """The status of a call that the agent has left, or that is over for no other reason."""
    return "completed" if call.answered_at is not None else "canceled"
