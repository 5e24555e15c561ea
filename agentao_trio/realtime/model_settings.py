"""The scripted model's session object: what it is set to, in the GA form, and the same in the legacy form."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

__all__ = ["RefusedError", "Settings", "legacy_event", "legacy_item"]

JSON = dict[str, Any]

_FORMATS: Mapping[str, JSON] = {
    "pcm16": {"type": "audio/pcm", "rate": 24000},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}
_LEGACY_FORMATS = {format["type"]: name for name, format in _FORMATS.items()}
_TURN_DETECTION: Mapping[str, JSON] = {
    "server_vad": {
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 200,
        "idle_timeout_ms": None,
        "create_response": True,
        "interrupt_response": True,
    },
    "semantic_vad": {"eagerness": "auto", "create_response": True, "interrupt_response": True},
}
_KNOWN = frozenset(
    {"type", "model", "instructions", "output_modalities", "tools", "tool_choice", "max_output_tokens", "tracing"}
    | {"truncation", "prompt", "include", "audio", "reasoning", "parallel_tool_calls"}
)
_LEGACY_EVENTS: Mapping[str, str] = {
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
    "conversation.item.added": "conversation.item.created",
}


class RefusedError(Exception):
    """What a client asked for cannot be done; becomes an ``error`` event."""

    def __init__(self, message: str, *, code: str | None, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class Settings:
    """The session object. ``update`` merges; what is absent stays, ``null`` switches off."""

    def __init__(self, *, session_id: str, model: str, expires_at: int) -> None:
        self.spoken = False
        self.value: JSON = {
            "type": "realtime",
            "object": "realtime.session",
            "id": session_id,
            "model": model,
            "expires_at": expires_at,
            "output_modalities": ["audio"],
            "instructions": "You follow a script.",
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "tracing": None,
            "truncation": "auto",
            "prompt": None,
            "include": None,
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "transcription": None,
                    "noise_reduction": None,
                    "turn_detection": {"type": "server_vad", **_TURN_DETECTION["server_vad"]},
                },
                "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "alloy", "speed": 1.0},
            },
        }

    @property
    def input_format(self) -> str:
        """``audio/pcmu``, ``audio/pcma`` or ``audio/pcm``."""
        return str(self.value["audio"]["input"]["format"]["type"])

    @property
    def output_format(self) -> JSON:
        """The format of what the model says."""
        return dict(self.value["audio"]["output"]["format"])

    @property
    def turn_detection(self) -> JSON | None:
        """How turns are found, ``None`` where the client says when."""
        found: JSON | None = self.value["audio"]["input"]["turn_detection"]
        return found

    def update(self, wire: JSON, *, legacy: bool) -> None:
        """Merge what a ``session.update`` says. Raises :class:`RefusedError`, and then nothing has changed."""
        change = _from_legacy(wire) if legacy else wire
        if change.get("type") != "realtime":
            raise RefusedError(
                "Missing required parameter: 'session.type'.", code="missing_required_parameter", param="session.type"
            )
        for name in change:
            if name not in _KNOWN:
                raise RefusedError(
                    f"Unknown parameter: 'session.{name}'.", code="unknown_parameter", param=f"session.{name}"
                )
        merged = copy.deepcopy(self.value)
        audio = change.get("audio") or {}
        for name in _KNOWN - {"audio", "model"} & set(change):
            merged[name] = change[name]
        for side in ("input", "output"):
            merged["audio"][side] |= audio.get(side) or {}
            self._check_format(merged["audio"][side]["format"], f"session.audio.{side}.format")
        detection = merged["audio"]["input"]["turn_detection"]
        if detection is not None:
            kind = detection.get("type")
            if kind not in _TURN_DETECTION:
                param = "session.audio.input.turn_detection.type"
                raise RefusedError(f"Invalid value: {kind!r}.", code="invalid_value", param=param)
            merged["audio"]["input"]["turn_detection"] = {"type": kind, **_TURN_DETECTION[kind], **detection}
        if set(merged["output_modalities"]) not in ({"audio"}, {"text"}):
            raise RefusedError("Invalid modalities.", code="invalid_value", param="session.output_modalities")
        if self.spoken and merged["audio"]["output"]["voice"] != self.value["audio"]["output"]["voice"]:
            raise RefusedError(
                "Cannot update a conversation's voice if assistant audio is present.", code="cannot_update_voice"
            )
        self.value = merged

    @staticmethod
    def _check_format(value: Any, param: str) -> None:
        kind = value.get("type") if isinstance(value, dict) else value
        if kind not in _LEGACY_FORMATS:
            raise RefusedError(f"Invalid value: {kind!r}.", code="invalid_value", param=f"{param}.type")
        if kind == "audio/pcm" and value.get("rate") != 24000:
            raise RefusedError(
                f"Missing required parameter: '{param}.rate'.", code="missing_required_parameter", param=param
            )

    def wire(self, *, legacy: bool) -> JSON:
        """The session object as the client sees it."""
        value = copy.deepcopy(self.value)
        if not legacy:
            return value
        hearing, speaking = value["audio"]["input"], value["audio"]["output"]
        both = ["text", "audio"] if value["output_modalities"] == ["audio"] else ["text"]
        return {
            "object": "realtime.session",
            "id": value["id"],
            "model": "gpt-realtime",  # the vendor's legacy types name all the models there can be
            "expires_at": value["expires_at"],
            "modalities": both,
            "instructions": value["instructions"],
            "voice": speaking["voice"],
            "speed": speaking["speed"],
            "input_audio_format": _LEGACY_FORMATS[hearing["format"]["type"]],
            "output_audio_format": _LEGACY_FORMATS[speaking["format"]["type"]],
            "input_audio_transcription": hearing["transcription"],
            "input_audio_noise_reduction": hearing["noise_reduction"],
            "turn_detection": hearing["turn_detection"],
            "tools": value["tools"],
            "tool_choice": value["tool_choice"],
            "temperature": 0.8,
            "max_response_output_tokens": value["max_output_tokens"],
        }


def _from_legacy(wire: JSON) -> JSON:
    """A legacy session object in the GA form. Raises :class:`RefusedError` for a format it does not have."""
    change: JSON = {"type": "realtime"}
    hearing: JSON = {}
    speaking: JSON = {}
    plain = {"max_response_output_tokens": "max_output_tokens"}
    homes = {
        "input_audio_format": (hearing, "format"),
        "input_audio_transcription": (hearing, "transcription"),
        "input_audio_noise_reduction": (hearing, "noise_reduction"),
        "turn_detection": (hearing, "turn_detection"),
        "output_audio_format": (speaking, "format"),
        "voice": (speaking, "voice"),
        "speed": (speaking, "speed"),
    }
    for name, value in wire.items():
        if name.endswith("audio_format"):
            if value not in _FORMATS:
                raise RefusedError(f"Invalid value: {value!r}.", code="invalid_value", param=f"session.{name}")
            home, key = homes[name]
            home[key] = _FORMATS[value]
        elif name in homes:
            home, key = homes[name]
            home[key] = value
        elif name == "modalities":
            change["output_modalities"] = ["audio"] if "audio" in value else ["text"]
        elif name not in {"temperature", "model"}:
            change[plain.get(name, name)] = value
    return change | {"audio": {"input": hearing, "output": speaking}}


def legacy_item(item: JSON) -> JSON:
    """An item as the legacy dialect shows it: ``text`` and ``audio`` are what an assistant's parts are called."""
    if item.get("role") != "assistant":
        return item
    return item | {"content": [part | {"type": part["type"].removeprefix("output_")} for part in item["content"]]}


def legacy_event(event: JSON) -> JSON | None:
    """A GA event as the legacy dialect has it, ``None`` where it has none."""
    if event["type"] == "conversation.item.done":
        return None
    changed = event | {"type": _LEGACY_EVENTS.get(event["type"], event["type"])}
    if "item" in event:
        changed["item"] = legacy_item(event["item"])
    if "response" in event:
        response = dict(event["response"])
        modalities = response.pop("output_modalities")
        audio = response.pop("audio", None)
        response["modalities"] = ["text", "audio"] if modalities == ["audio"] else ["text"]
        if audio:
            response |= {"voice": audio["output"]["voice"]}
            response |= {"output_audio_format": _LEGACY_FORMATS[audio["output"]["format"]["type"]]}
        response["output"] = [legacy_item(item) for item in response["output"]]
        changed["response"] = response
    return changed
