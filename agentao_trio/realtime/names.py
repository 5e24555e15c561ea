"""The two dialects of the Realtime API: their names, and how our values become plain JSON values in either.

GA is the current one. LEGACY is the beta that preceded it, selected by a header when the connection is made; models and
gateways that speak it are still about. Everything is decoded to the GA classes; which dialect is *sent* is the profile
of the connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import attrs
from msgspec import UNSET, UnsetType

__all__ = ["GA_NAMES", "LEGACY_NAMES", "UNSET", "Profile", "UnsetType", "category", "ga_name", "plain"]


class Profile(Enum):
    """Which of the two dialects is sent."""

    GA = "ga"
    LEGACY = "legacy"


#: The GA name of each event that the legacy dialect calls otherwise. ``conversation.item.created`` became two events;
#: what it says is what ``added`` says.
GA_NAMES: Mapping[str, str] = {
    "response.text.delta": "response.output_text.delta",
    "response.text.done": "response.output_text.done",
    "response.audio.delta": "response.output_audio.delta",
    "response.audio.done": "response.output_audio.done",
    "response.audio_transcript.delta": "response.output_audio_transcript.delta",
    "response.audio_transcript.done": "response.output_audio_transcript.done",
    "conversation.item.created": "conversation.item.added",
    "transcription_session.update": "session.update",
    "transcription_session.updated": "session.updated",
}
#: The other way round, for what is sent under one name only (a session says itself which of its two names it needs).
LEGACY_NAMES: Mapping[str, str] = {
    ga: legacy for legacy, ga in GA_NAMES.items() if not legacy.startswith("transcription_session.")
}


def ga_name(wire_type: str) -> str:
    """The GA name of an event by either of its names; any other name is returned as it is."""
    return GA_NAMES.get(wire_type, wire_type)


def category(wire_type: str) -> str:
    """The first part of an event's GA name: ``"response"`` of ``"response.audio.delta"``."""
    return ga_name(wire_type).partition(".")[0]


def plain(value: Any) -> Any:
    """Plain JSON values of one of our values.

    A field that is UNSET is left out. So is a field that is ``None`` by default: it has no null on the wire. Where null
    means something, a field is UNSET by default and ``None`` becomes null.
    """
    if attrs.has(type(value)):
        return {
            field.name: plain(inner)
            for field in attrs.fields(type(value))
            if (inner := getattr(value, field.name)) is not UNSET and not (inner is None and field.default is None)
        }
    if isinstance(value, tuple | list):
        return [plain(inner) for inner in value]
    return value.value if isinstance(value, Enum) else value
