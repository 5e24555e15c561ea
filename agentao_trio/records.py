"""What a session tells about its calls: one kind of value for history, dashboards, analytics and replay.

A :class:`Record` is numbered, timed and made of plain JSON values, so that whoever keeps it, sends it on or compares it
needs to know nothing else. For an event of the gateway it also holds the bytes that came, and feeding these to a fresh
:class:`~agentao_trio.events.Ingest` judges them as they were judged then.

What ``data`` holds, by kind. Keys are absent where nothing is known; a name tells its unit: ``_ms``, ``_seconds``, and
``_at`` for Unix seconds.

========================  ==============================================================================================
session                   state (connected, reconnecting, closed), client_id, reason
call                      phase began: direction (outbound, inbound), caller, callee, trunk_id, traceparent;
                          phase renamed: call_sid_before; phase over: how (hangup, refused, lost, overrun, left,
                          released: to another worker), error,
                          statistics (:class:`~agentao_trio.statistics.CallStatistics`)
event                     verdict, event (:class:`~agentao_trio.messages.CallEvent`)
command                   command (a number that pairs two records), method, phase sent: request; phase answered,
                          refused, timed_out, failed or abandoned: seconds, error, code
quality                   mos, jitter_ms, packets_received, packets_sent, packets_lost, packet_loss_pct, packets_shed,
                          codec, final
recording                 recording_sid, status (started, in-progress, completed, failed), location, duration_seconds,
                          error
detection                 answered_by (human, machine_start, machine_end_beep, machine_end_silence, fax, unknown),
                          confidence (0 to 1), detection_ms
conversation              phase connecting (provider, model, voice), connected (model, voice, session_id), started
                          (conversation_id), renewed, reconnecting or ended (reason)
transcript                item_id, order, role (user, assistant, system), phase delta (delta, offset, text so far) or
                          final (text, interrupted, heard_ms)
speech                    speaker (user, assistant), active, item_id
tool                      name, tool_call_id, phase requested (arguments), started, done (output, seconds), failed
                          (error, seconds) or cancelled
turn                      response_id, status, first_delta_seconds, first_audio_seconds, barge_in,
                          barge_in_silence_ms, underruns
usage                     response_id, input_tokens, output_tokens, total_tokens, details
error                     source (realtime, media, tool, handler), type, code, message, fatal
gap                       packets (20 ms each)
========================  ==============================================================================================
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from enum import Enum, StrEnum
from typing import Any

import attrs

__all__ = ["JSON", "Record", "RecordKind", "plain"]

JSON = None | bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"]


class RecordKind(StrEnum):
    """What a record is about."""

    SESSION = "session"
    CALL = "call"
    EVENT = "event"
    COMMAND = "command"
    QUALITY = "quality"
    RECORDING = "recording"
    DETECTION = "detection"
    CONVERSATION = "conversation"
    TRANSCRIPT = "transcript"
    SPEECH = "speech"
    TOOL = "tool"
    TURN = "turn"
    USAGE = "usage"
    ERROR = "error"
    GAP = "gap"


@attrs.frozen(kw_only=True)
class Record:
    """One thing that happened."""

    #: 1, 2, 3 … without gaps within one hub.
    number: int
    #: Unix seconds. Within one hub never less than before, whatever is done to the machine's clock.
    at: float
    #: The call it is about; empty for the session itself.
    call_sid: str
    kind: RecordKind
    #: Plain JSON values; not to be changed.
    data: Mapping[str, Any]
    #: What the gateway sent, for an event.
    raw: bytes = b""

    def as_json(self) -> dict[str, Any]:
        """The record as JSON values; ``raw`` in base64."""
        fields: dict[str, Any] = {
            "number": self.number,
            "at": self.at,
            "call_sid": plain(self.call_sid),
            "kind": self.kind.value,
            "data": dict(self.data),
        }
        if self.raw:
            fields["raw"] = base64.b64encode(self.raw).decode("ascii")
        return fields

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Record:
        """What :meth:`as_json` was made of. Raises ValueError that names what is missing or wrong."""
        number: object = fields.get("number")
        data: object = fields.get("data", {})
        if not isinstance(number, int) or not isinstance(data, dict):
            raise ValueError("a record's number is an integer, and its data an object")
        try:
            record = cls(
                number=number,
                at=float(fields["at"]),
                call_sid=fields["call_sid"],
                kind=RecordKind(fields["kind"]),
                data=data,
                raw=base64.b64decode(fields.get("raw", ""), validate=True),
            )
        except KeyError as missing:
            raise ValueError(f"a record has no {missing.args[0]!r}") from None
        except TypeError as wrong:
            raise ValueError(f"a record has a field of the wrong type: {wrong}") from None
        if not math.isfinite(record.at):
            raise ValueError("a record's time is a finite number of seconds")
        return record


def plain(value: Any) -> Any:
    """``value`` in JSON's own types: attrs classes become objects, enums their names or words, bytes base64.

    A number that JSON does not know becomes null, and what is no UTF-8 in a string becomes U+FFFD.
    """
    match value:
        case Enum():
            return value.name if isinstance(value.value, int) else plain(value.value)
        case str():
            return value if value.isascii() else value.encode(errors="surrogateescape").decode(errors="replace")
        case float():
            return value if math.isfinite(value) else None
        case None | bool() | int():
            return value
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case Mapping():
            return {plain(str(key)): plain(item) for key, item in value.items()}
        case Sequence():
            return [plain(item) for item in value]
        case _ if attrs.has(type(value)):
            return {field.name: plain(getattr(value, field.name)) for field in attrs.fields(type(value))}
    raise TypeError(f"a record cannot hold {type(value).__name__}")
