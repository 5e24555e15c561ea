"""The scripted model: one connection's server side, without I/O.

Messages go in with :meth:`ScriptedModel.receive`, time with :meth:`ScriptedModel.advance`; what the model says waits in
``outbox``. It keeps what a server keeps: settings, the input audio with its voice activity, the conversation, the
active response. It judges what the client sends, and refuses it in the words of the real API where those are known.
It shares no code with the client, names and limits neither: what one of them has wrong, the other is to notice.

The ids of what the model says carry the number of the turn. A new connection into which a client replays the
conversation therefore goes on where the script had got to.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from agentao_trio.audio import Codec, to_pcm16
from agentao_trio.realtime.model_reply import OutputItem, Reply
from agentao_trio.realtime.model_settings import RefusedError, Settings, legacy_event
from agentao_trio.realtime.script import Script, Turn
from agentao_trio.realtime.vad import EnergyVad, SpeechBegan

__all__ = ["Hangup", "ScriptedModel"]

JSON = dict[str, Any]

#: The least audio that can be committed, in milliseconds, and the most in one event, in bytes.
LEAST_COMMIT_MS = 100
LARGEST_APPEND = 15 << 20
#: Seconds between a commit and its transcript.
TRANSCRIPTION_SECONDS = 0.15
STALL_SECONDS = 5.0
#: Events of a response before a fault in its middle strikes.
_BEFORE_FAULT = 8
_HEARD: Mapping[str, tuple[int, Codec | None]] = {
    "audio/pcmu": (8, Codec.PCMU),
    "audio/pcma": (8, Codec.PCMA),
    "audio/pcm": (48, None),
}
_TURN_ID = re.compile(r"_t(\d+)_")


@attrs.frozen
class Hangup:
    """The connection is to end: with a close code, or, where that is 1006, without a goodbye."""

    code: int
    reason: str = ""


class ScriptedModel:
    """The server's side of one connection. ``name`` makes its ids differ from those of other connections.

    ``now`` is any clock's reading; ``unix_now`` the Unix time that goes with it.
    """

    def __init__(self, script: Script, *, name: str, now: float, unix_now: float, legacy: bool = False) -> None:
        #: What is to be sent, in order.
        self.outbox: deque[bytes | Hangup] = deque()
        self._script = script
        self._name = name
        self._legacy = legacy
        self._now = now
        self._expires_at = now + script.lifetime
        self._serials: dict[str, int] = {}
        self._settings = Settings(
            session_id=f"sess_{name}", model="scripted", expires_at=int(unix_now + script.lifetime)
        )
        self._turn = 0
        self._order: list[str] = []
        self._items: dict[str, JSON] = {}
        self._spoken: dict[str, tuple[OutputItem, int]] = {}
        self._reply: Reply | None = None
        self._asides: list[Reply] = []
        self._struck, self._made = False, 0
        #: Events that come later: when, and what.
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._after_response: list[Callable[[], None]] = []
        self._heard_ms = 0.0
        self._committed_ms = 0.0
        self._speaking_item = ""
        self._vad, self._vad_from_ms = self._new_vad(), 0
        self._silent = False
        if "silent" in script.faults and name.endswith("1"):
            self._silent = True
            return
        self._emit({"type": "session.created", "session": self._settings.wire(legacy=legacy)})
        conversation = {"id": f"conv_{name}", "object": "realtime.conversation"}
        if legacy:
            self._emit({"type": "conversation.created", "conversation": conversation})

    # -- time -------------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When :meth:`advance` is to be called at the latest."""
        replies = [reply.due_at for reply in self._replies() if reply.due_at is not None]
        return min(self._expires_at, *replies, *(at for at, _ in self._later), float("inf"))

    def advance(self, now: float) -> None:
        """Do what is due."""
        self._now = now
        if now >= self._expires_at:
            self._expire()
            return
        while self._later and min(self._later, key=_when)[0] <= now:
            due = min(self._later, key=_when)
            self._later.remove(due)
            due[1]()
        for reply in self._replies():
            while events := reply.step(now):
                for event in events:
                    self._say(reply, event)
                self._made += len(events)
                if self._made >= _BEFORE_FAULT and self._strike(reply):
                    break
            if reply.over:
                self._response_over(reply)

    def _replies(self) -> list[Reply]:
        return [*filter(None, [self._reply]), *self._asides]

    def _expire(self) -> None:
        self._expires_at = float("inf")
        self._error("Your session hit the maximum duration.", code="session_expired")
        self._close(1001)

    def _close(self, code: int) -> None:
        self.outbox.append(Hangup(code))
        self._reply = None
        self._asides.clear()
        self._later.clear()

    # -- what the client sends --------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        """One message of the client's. What is wrong with it is answered with an ``error`` event."""
        self._now = now
        if self._silent:
            return
        event_id: str | None = None
        try:
            event = json.loads(data)
            if not isinstance(event, dict):
                raise RefusedError("The message is not an object.", code="invalid_json")
            event_id = event.get("event_id")
            handler = _HANDLERS.get(str(event.get("type")))
            if handler is None:
                raise RefusedError(f"Invalid value: {event.get('type')!r}.", code="invalid_value", param="type")
            handler(self, event)
        except ValueError:
            self._error("Invalid JSON.", code="invalid_json")
        except (TypeError, AttributeError):  # a value of another kind than the one that belongs there
            self._error("Invalid type.", code="invalid_type", event_id=event_id if isinstance(event_id, str) else None)
        except KeyError as missing:
            name = str(missing.args[0])
            message = f"Missing required parameter: '{name}'."
            self._error(message, code="missing_required_parameter", param=name, event_id=event_id)
        except RefusedError as refused:
            self._error(str(refused), code=refused.code, param=refused.param, event_id=event_id)

    def _session_update(self, event: JSON) -> None:
        if "refuse_update" in self._script.faults:
            raise RefusedError("Invalid value.", code="invalid_value", param="session")
        before = (self._settings.input_format, self._settings.turn_detection)
        self._settings.update(event["session"], legacy=self._legacy)
        if before != (self._settings.input_format, self._settings.turn_detection):
            self._vad, self._vad_from_ms = self._new_vad(), int(self._heard_ms)
        shown = self._settings.wire(legacy=self._legacy)
        if "echo_otherwise" in self._script.faults:
            if self._legacy:
                shown["output_audio_format"] = "pcm16"
            else:
                shown["audio"]["output"]["format"] = {"type": "audio/pcm", "rate": 24000}
        self._emit({"type": "session.updated", "session": shown})

    def _append(self, event: JSON) -> None:
        try:
            audio = base64.b64decode(event["audio"], validate=True)
        except (binascii.Error, TypeError) as error:
            raise RefusedError("Invalid audio: expected base64.", code="invalid_value", param="audio") from error
        if len(audio) > LARGEST_APPEND:
            raise RefusedError("The audio is too large.", code="invalid_value", param="audio")
        per_ms, codec = _HEARD[self._settings.input_format]
        self._heard_ms += len(audio) / per_ms
        detection = self._settings.turn_detection
        for found in self._vad.feed(audio if codec is None else to_pcm16(audio, codec)):
            if detection is not None:
                self._voice(found, detection)

    def _voice(self, found: Any, detection: JSON) -> None:
        if isinstance(found, SpeechBegan):
            self._speaking_item = self._new_id("item", "u")
            start = max(0, self._vad_from_ms + found.at_ms - int(detection.get("prefix_padding_ms") or 0))
            self._emit(
                {
                    "type": "input_audio_buffer.speech_started",
                    "audio_start_ms": start,
                    "item_id": self._speaking_item,
                }
            )
            if detection["interrupt_response"] and self._reply is not None:
                self._interrupt(self._reply)
            return
        ended = {"audio_end_ms": self._vad_from_ms + found.at_ms, "item_id": self._speaking_item}
        self._emit({"type": "input_audio_buffer.speech_stopped", **ended})
        self._commit_item(self._speaking_item)
        if detection["create_response"] and self._reply is None:
            self._respond(self._next_turn(), {})

    def _commit(self, event: JSON) -> None:
        uncommitted = self._heard_ms - self._committed_ms
        if uncommitted < LEAST_COMMIT_MS:
            raise RefusedError(
                "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
                f"but buffer only has {uncommitted:.2f}ms of audio.",
                code="input_audio_buffer_commit_empty",
            )
        self._commit_item(self._new_id("item", "u"))

    def _commit_item(self, item_id: str) -> None:
        self._committed_ms = self._heard_ms
        self._emit(
            {
                "type": "input_audio_buffer.committed",
                "item_id": item_id,
                "previous_item_id": self._order[-1] if self._order else None,
            }
        )
        item = {
            "id": item_id,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        self._add(item)
        self._emit_done(item)
        if self._settings.value["audio"]["input"]["transcription"] is not None:
            self._transcribe(item_id, self._peek_turn())

    def _transcribe(self, item_id: str, turn: Turn) -> None:
        about = {"item_id": item_id, "content_index": 0}
        head = "conversation.item.input_audio_transcription"

        def tell() -> None:
            if turn.fault == "failed_transcription":
                error = {"type": "transcription_error", "code": "audio_unintelligible", "message": "Not understood."}
                self._emit({"type": f"{head}.failed", **about, "error": error})
                return
            self._emit({"type": f"{head}.delta", **about, "delta": turn.heard})
            usage = {"type": "duration", "seconds": 1.0}
            self._emit({"type": f"{head}.completed", **about, "transcript": turn.heard, "usage": usage})

        if turn.fault == "late_transcription":
            self._after_response.append(tell)
        else:
            self._later.append((self._now + TRANSCRIPTION_SECONDS, tell))

    def _clear(self, event: JSON) -> None:
        self._committed_ms = self._heard_ms
        self._emit({"type": "input_audio_buffer.cleared"})

    def _output_clear(self, event: JSON) -> None:
        raise RefusedError("There is no output audio buffer on a WebSocket.", code="invalid_value", param="type")

    def _create_item(self, event: JSON) -> None:
        item = {"id": self._new_id("item", "u"), **event["item"], "object": "realtime.item", "status": "completed"}
        if item["id"] in self._items:
            raise RefusedError(f"Item with id '{item['id']}' already exists.", code="item_create_duplicate_id")
        previous = event.get("previous_item_id")
        if previous not in (None, "root") and previous not in self._items:
            raise RefusedError(
                f"Previous item with id '{previous}' not found.", code="invalid_value", param="previous_item_id"
            )
        if item["type"] == "function_call_output" and not any(
            other.get("call_id") == item["call_id"] and other["type"] == "function_call"
            for other in self._items.values()
        ):
            raise RefusedError(
                f"Tool call ID '{item['call_id']}' not found in conversation.", code="invalid_tool_call_id"
            )
        if item["type"] == "message" and item["role"] == "assistant":
            for part in item["content"]:
                if part["type"] not in {"output_text", "text"}:
                    raise RefusedError(f"Invalid value: {part['type']!r}.", code="invalid_value", param="item.content")
        if told := _TURN_ID.search(item["id"]):
            self._turn = max(self._turn, int(told[1]) + 1)
        self._add(item, previous=previous)
        self._emit_done(item)

    def _delete_item(self, event: JSON) -> None:
        self._known(event["item_id"], "delete")
        del self._items[event["item_id"]]
        self._order.remove(event["item_id"])
        self._emit({"type": "conversation.item.deleted", "item_id": event["item_id"]})

    def _retrieve_item(self, event: JSON) -> None:
        item = self._known(event["item_id"], "retrieve")
        self._emit({"type": "conversation.item.retrieved", "item": item})

    def _truncate_item(self, event: JSON) -> None:
        item_id, end_ms = event["item_id"], event["audio_end_ms"]
        self._known(item_id, "truncate")
        if item_id not in self._spoken or event["content_index"] != 0:
            raise RefusedError(
                "Only model output audio messages can be truncated.", code="unsupported_content_type", param="item_id"
            )
        if not isinstance(end_ms, int) or end_ms < 0:
            raise RefusedError(f"Invalid value: {end_ms!r}.", code="invalid_value", param="audio_end_ms")
        output, per_ms = self._spoken[item_id]
        sent_ms = output.sent_bytes // per_ms
        if end_ms > sent_ms:
            raise RefusedError(f"Audio content of {sent_ms}ms is already shorter than {end_ms}ms", code=None)
        self._emit(
            {
                "type": "conversation.item.truncated",
                "item_id": item_id,
                "content_index": 0,
                "audio_end_ms": end_ms,
            }
        )

    def _known(self, item_id: str, verb: str) -> JSON:
        if item_id not in self._items:
            message = f"Item with id '{item_id}' not found."
            raise RefusedError(message, code=f"item_{verb}_invalid_item_id", param="item_id")
        return self._items[item_id]

    def _create_response(self, event: JSON) -> None:
        params = event.get("response") or {}
        if params.get("conversation") == "none":
            self._respond(self._script.otherwise, params, aside=True)
            return
        if self._reply is not None:
            raise RefusedError(
                f"Conversation already has an active response in progress: {self._reply.id}. "
                "Wait until the response is finished before creating a new one.",
                code="conversation_already_has_active_response",
            )
        self._respond(self._next_turn(), params, event_id=event.get("event_id"))

    def _cancel_response(self, event: JSON) -> None:
        wanted = event.get("response_id")
        if self._reply is None or wanted not in (None, self._reply.id):
            raise RefusedError("Cancellation failed: no active response found", code="response_cancel_not_active")
        self._cancel(self._reply, "client_cancelled")

    # -- what the model says ----------------------------------------------------------------------------------------

    def _peek_turn(self) -> Turn:
        return self._script.turns[self._turn] if self._turn < len(self._script.turns) else self._script.otherwise

    def _next_turn(self) -> Turn:
        turn = self._peek_turn()
        self._turn += 1
        return turn

    def _respond(self, turn: Turn, params: JSON, *, aside: bool = False, event_id: str | None = None) -> None:
        if turn.fault == "server_error":
            self._script = attrs.evolve(self._script, turns=_without_fault(self._script.turns, turn))
            self._turn -= 1
            message = "The server had an error while processing your request. Sorry about that!"
            self._error(message, code="server_error", kind="server_error", event_id=event_id)
            return
        modalities = params.get("output_modalities") or self._settings.value["output_modalities"]
        number = self._turn - 1
        self._settings.spoken = True
        reply = Reply(
            turn,
            id=self._new_id("resp"),
            new_id=lambda: self._new_id("item", f"t{number}" if not aside else "aside"),
            began=self._now,
            shown={
                "conversation_id": None if aside else f"conv_{self._name}",
                "output_modalities": modalities,
                "max_output_tokens": "inf",
                "audio": {
                    "output": {
                        "format": self._settings.output_format,
                        "voice": self._settings.value["audio"]["output"]["voice"],
                    }
                },
                "metadata": params.get("metadata"),
            },
            modality="audio" if modalities == ["audio"] else "text",
            audio_format=self._settings.output_format,
            in_conversation=not aside,
        )
        self._struck, self._made = False, 0
        self._say(reply, {"type": "response.created", "response": reply.shown("in_progress")})
        reset = 1.0 if turn.fault == "rate_limited" else 0.2
        limits = [
            {"name": "requests", "limit": 1000, "remaining": 999, "reset_seconds": 0.1},
            {"name": "tokens", "limit": 50000, "remaining": 49000, "reset_seconds": reset},
        ]
        self._emit({"type": "rate_limits.updated", "rate_limits": limits})
        if turn.fault in {"rate_limited", "insufficient_quota"}:
            self._fail(reply, turn)
        elif aside:
            self._asides.append(reply)
        else:
            self._reply = reply

    def _fail(self, reply: Reply, turn: Turn) -> None:
        code = "rate_limit_exceeded" if turn.fault == "rate_limited" else "insufficient_quota"
        kind = "tokens" if turn.fault == "rate_limited" else "insufficient_quota"
        error = {"type": kind, "code": code, "message": "Rate limit reached for tokens."}
        reply.items.clear()
        for event in reply.end("failed", {"type": "failed", "error": error}):
            self._say(reply, event)
        if turn.fault == "rate_limited":  # what is asked for again is answered
            self._script = attrs.evolve(self._script, turns=_without_fault(self._script.turns, turn))
            self._turn -= 1

    def _say(self, reply: Reply, event: JSON) -> None:
        if event["type"] == "conversation.item.added":
            self._add(event["item"])
            output = next(item for item in reply.items if item.id == event["item"]["id"])
            if output.modality == "audio":
                self._spoken[output.id] = (output, reply.bytes_per_ms)
            return
        if event["type"] == "conversation.item.done":
            self._emit_done(event["item"])
            return
        self._emit(event, twice=reply.turn.fault == "duplicate")

    def _strike(self, reply: Reply) -> bool:
        """Do the turn's fault, once; True when nothing more of the reply is to be said now."""
        if self._struck:
            return False
        self._struck = True
        match reply.turn.fault:
            case "disconnect":
                self._close(1006)
            case "restart_1012":
                self._close(1012)
            case "close_1001":
                self._expire()
            case "stall":
                reply.postpone(STALL_SECONDS)
            case "unknown_type":
                self._emit({"type": "response.mood.changed", "mood": "cheerful"})
                return False
            case "malformed":
                self.outbox.append(b'{"type": "response.output_audio.delta", ')
                return False
            case _:
                return False
        return True

    def _interrupt(self, reply: Reply) -> None:
        self._cancel(reply, "turn_detected")
        if self._script.truncates:
            for item in reply.items:
                if item.sent_bytes:
                    ends = {"content_index": 0, "audio_end_ms": item.sent_bytes // reply.bytes_per_ms}
                    self._emit({"type": "conversation.item.truncated", "item_id": item.id, **ends})

    def _cancel(self, reply: Reply, reason: str) -> None:
        for event in reply.cancel(reason, straggler=reason == "turn_detected"):
            self._say(reply, event)
        self._response_over(reply)

    def _response_over(self, reply: Reply) -> None:
        if reply is not self._reply:
            self._asides.remove(reply)
            return
        self._reply = None
        for tell in self._after_response:
            self._later.append((self._now + TRANSCRIPTION_SECONDS, tell))
        self._after_response.clear()

    # -- events -----------------------------------------------------------------------------------------------------

    def _add(self, item: JSON, *, previous: str | None = None) -> None:
        at = len(self._order) if previous is None else 0 if previous == "root" else self._order.index(previous) + 1
        before = self._order[at - 1] if at else None
        self._order.insert(at, item["id"])
        self._items[item["id"]] = item
        self._emit({"type": "conversation.item.added", "previous_item_id": before, "item": item})

    def _emit_done(self, item: JSON) -> None:
        if item["id"] in self._items:
            at = self._order.index(item["id"])
            before = self._order[at - 1] if at else None
            self._items[item["id"]] = item
            self._emit({"type": "conversation.item.done", "previous_item_id": before, "item": item})

    def _error(
        self,
        message: str,
        *,
        code: str | None,
        kind: str = "invalid_request_error",
        param: str | None = None,
        event_id: str | None = None,
    ) -> None:
        error = {"type": kind, "code": code, "message": message, "param": param, "event_id": event_id}
        self._emit({"type": "error", "error": error})

    def _emit(self, event: JSON, *, twice: bool = False) -> None:
        spoken = legacy_event(event) if self._legacy else event
        if spoken is None:
            return
        data = json.dumps({"event_id": self._new_id("event"), **spoken}).encode()
        self.outbox.extend([data, data] if twice else [data])

    def _new_id(self, kind: str, what: str = "") -> str:
        serial = self._serials[kind] = self._serials.get(kind, 0) + 1
        return "_".join(filter(None, [kind, self._name, what, str(serial)]))

    def _new_vad(self) -> EnergyVad:
        detection = self._settings.turn_detection or {}
        rate = _HEARD[self._settings.input_format][0] * 1000 // (1 if self._settings.input_format != "audio/pcm" else 2)
        return EnergyVad(rate=rate, silence_ms=detection.get("silence_duration_ms") or 200)


def _when(entry: tuple[float, Callable[[], None]]) -> float:
    return entry[0]


def _without_fault(turns: tuple[Turn, ...], faulty: Turn) -> tuple[Turn, ...]:
    """The same turns, with this one's fault mended."""
    return tuple(attrs.evolve(turn, fault=None) if turn is faulty else turn for turn in turns)


_HANDLERS: Mapping[str, Callable[[ScriptedModel, JSON], None]] = {
    "session.update": ScriptedModel._session_update,
    "input_audio_buffer.append": ScriptedModel._append,
    "input_audio_buffer.commit": ScriptedModel._commit,
    "input_audio_buffer.clear": ScriptedModel._clear,
    "output_audio_buffer.clear": ScriptedModel._output_clear,
    "conversation.item.create": ScriptedModel._create_item,
    "conversation.item.delete": ScriptedModel._delete_item,
    "conversation.item.retrieve": ScriptedModel._retrieve_item,
    "conversation.item.truncate": ScriptedModel._truncate_item,
    "response.create": ScriptedModel._create_response,
    "response.cancel": ScriptedModel._cancel_response,
}
