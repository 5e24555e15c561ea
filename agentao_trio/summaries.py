"""What a call came to: one line for a list, folded from its records as they come."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from agentao_trio.records import Record, RecordKind

__all__ = ["ELSEWHERE", "CallSummary", "merged", "summarised"]

#: The status of a call that was left to another worker. It is in that one's history.
ELSEWHERE = "elsewhere"

#: Events whose verdict is one of these say nothing new.
_REPEATED = frozenset({"duplicate", "violation"})


@attrs.define(kw_only=True)
class CallSummary:
    """One call. Times are Unix seconds; None and empty mean not known, or not yet."""

    call_sid: str = ""
    direction: str = ""
    caller: str = ""
    callee: str = ""
    trunk_id: str = ""
    #: initiated, ringing, in-progress, on-hold, completed, busy, no-answer, canceled, failed or lost; elsewhere, for a
    #: call that came in and was left to another worker.
    status: str = "initiated"
    began_at: float | None = None
    answered_at: float | None = None
    ended_at: float | None = None
    #: ITU-T Q.850; None where the gateway never said.
    q850_cause: int | None = None
    codec: str = ""
    #: Of what was received here, at the end, or as far as it is known.
    mos: float | None = None
    jitter_ms: float | None = None
    packet_loss_pct: float | None = None
    answered_by: str = ""
    recording: str = ""
    #: Whether a model took part, and how many finished messages the transcript has.
    ai: bool = False
    messages: int = 0
    barge_ins: int = 0
    tools: int = 0
    errors: int = 0
    records: int = 0

    @property
    def seconds_to_answer(self) -> float | None:
        """From its beginning to the answer."""
        return None if self.answered_at is None or self.began_at is None else self.answered_at - self.began_at

    @property
    def seconds_talked(self) -> float | None:
        """From the answer to the end, which is the gateway's word for it where that has come."""
        if self.answered_at is None or self.ended_at is None:
            return None
        return max(0.0, self.ended_at - self.answered_at)  # one that was left may be answered all the same

    def feed(self, record: Record) -> None:
        """Take in the next of this call's records."""
        self.records += 1
        self.call_sid = record.call_sid
        if self.status == ELSEWHERE:
            return  # the gateway tells everybody how it goes on, but it is not our call
        if self.began_at is None:
            self.began_at = record.at
        match record.kind:
            case RecordKind.CALL:
                self._call(record)
            case RecordKind.EVENT:
                self._event(record)
            case RecordKind.QUALITY:
                self.mos, self.jitter_ms = record.data.get("mos"), record.data.get("jitter_ms")
                self.packet_loss_pct = record.data.get("packet_loss_pct")
                self.codec = record.data.get("codec") or self.codec
            case RecordKind.DETECTION:
                self.answered_by = record.data.get("answered_by", "")
            case RecordKind.RECORDING if record.data.get("status") == "completed":
                self.recording = record.data.get("location", "")
            case RecordKind.CONVERSATION:
                self.ai = True
            case RecordKind.TRANSCRIPT if record.data.get("phase") == "final":
                self.messages += 1
            case RecordKind.TURN:
                self.barge_ins += bool(record.data.get("barge_in"))
            case RecordKind.TOOL if record.data.get("phase") == "requested":
                self.tools += 1
            case RecordKind.ERROR:
                self.errors += 1
            case _:
                pass

    def _call(self, record: Record) -> None:
        data = record.data
        match data.get("phase"):
            case "began":
                self.direction = data.get("direction", "")
                self.caller, self.callee = data.get("caller", ""), data.get("callee", "")
                self.trunk_id = data.get("trunk_id", "") or self.trunk_id
            case "over":
                self.ended_at = self.ended_at or record.at
                how = data.get("how")
                if how == "released":
                    self.status, self.answered_at, self.q850_cause = ELSEWHERE, None, None
                elif self.q850_cause is None and how == "left":  # as a hangup from here would have ended it
                    self.status = _final_status(16, answered=self.answered_at is not None)
                elif self.q850_cause is None:
                    self.status = "lost" if how == "lost" else "failed"

    def _event(self, record: Record) -> None:
        event: Mapping[str, Any] = record.data.get("event", {})
        self.trunk_id = self.trunk_id or event.get("trunk_id", "")
        if record.data.get("verdict") in _REPEATED:
            return
        match event.get("event_type"):
            case "CHANNEL_CREATE":
                self._goes_on("ringing" if event.get("status") == "RINGING" else self.status)
            case "CHANNEL_ANSWER" | "CHANNEL_RESUME":
                self._answered(record, event)
                self._goes_on("in-progress")
            case "CHANNEL_HOLD":
                self._answered(record, event)
                self._goes_on("on-hold")
            case "CHANNEL_HANGUP_COMPLETE":
                self.ended_at = record.at
                self.q850_cause = int(event.get("q850_cause", 0))
                self.recording = self.recording or event.get("recording_url", "")
                self.status = _final_status(self.q850_cause, answered=self.answered_at is not None)

    def _goes_on(self, status: str) -> None:
        """A call that is over for us may go on at the gateway; of that only its end is still of interest."""
        if self.ended_at is None:
            self.status = status
        elif self.status == "canceled" and self.answered_at is not None:
            self.status = "completed"

    def _answered(self, record: Record, event: Mapping[str, Any]) -> None:
        if self.answered_at is None:
            self.answered_at = record.at
            self.codec = event.get("codec", "") or self.codec


def _final_status(cause: int, *, answered: bool) -> str:
    """The dashboards' word for how a call ended, from its ITU-T Q.850 cause."""
    if answered:
        return "completed"
    return {16: "canceled", 17: "busy", 18: "no-answer", 19: "no-answer"}.get(cause, "failed")


def summarised(records: Iterable[Record]) -> dict[str, CallSummary]:
    """A summary of each call that the records tell of, in order of appearance."""
    calls: dict[str, CallSummary] = {}
    for record in records:
        if not record.call_sid:
            continue
        if record.kind is RecordKind.CALL and record.data.get("phase") == "renamed":
            before = calls.pop(record.data.get("call_sid_before", ""), None)
            if before is not None:
                already = calls.get(record.call_sid)
                calls[record.call_sid] = before if already is None else merged(before, already)
        calls.setdefault(record.call_sid, CallSummary()).feed(record)
    return calls


def merged(before: CallSummary, after: CallSummary) -> CallSummary:
    """``after``, with what was told of the same call ``before``, under the name that it bore for its first moments."""
    empty = CallSummary()
    for field in attrs.fields(CallSummary):
        value = getattr(after, field.name)
        if value == getattr(empty, field.name):
            setattr(after, field.name, getattr(before, field.name))
    after.began_at = before.began_at
    after.records += before.records
    return after
