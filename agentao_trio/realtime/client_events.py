"""Every event of the client, one class per GA type. What no server would take is refused where it is written.

``event_id`` may stay UNSET; a session fills it in from its own source of ids before it sends.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, ClassVar

import attrs

from agentao_trio.realtime.configuration import ResponseConfig, SessionConfig, refuse
from agentao_trio.realtime.items import ContentPart, Item
from agentao_trio.realtime.names import UNSET, UnsetType

__all__ = [
    "CLIENT_EVENTS",
    "LARGEST_APPEND",
    "ClientEvent",
    "ConversationItemCreate",
    "ConversationItemDelete",
    "ConversationItemRetrieve",
    "ConversationItemTruncate",
    "InputAudioBufferAppend",
    "InputAudioBufferClear",
    "InputAudioBufferCommit",
    "OutputAudioBufferClear",
    "ResponseCancel",
    "ResponseCreate",
    "SessionUpdate",
]

#: Bytes of audio that one event may hold at most, before base64.
LARGEST_APPEND = 15 * 1024 * 1024

_ROLES = {"user": ("input_text", "input_audio", "input_image"), "system": ("input_text",)}
_ROLES |= {"assistant": ("output_text", "output_audio")}
_NEEDS = {
    "function_call": ("name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "mcp_approval_response": ("id", "approval_request_id", "approve"),
    "mcp_approval_request": ("id", "arguments", "name", "server_label"),
    "mcp_list_tools": ("server_label", "tools"),
    "mcp_call": ("id", "arguments", "name", "server_label"),
    "item_reference": ("id",),
}


def _an_id(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or not value:
        refuse(attribute.name, f"must be the id of an item, not {value!r}")


def _an_id_or_unset(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not UNSET and (not isinstance(value, str) or not value):
        refuse(attribute.name, f"must be an id, or be left out, not {value!r}")


def _whole(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        refuse(attribute.name, f"must be a whole number of at least 0, not {value!r}")


def _base64(param: str, value: Any) -> None:
    hint = "InputAudioBufferAppend.of(data) encodes bytes"
    if not isinstance(value, str):
        refuse(param, f"must be base64 in a str, not {type(value).__name__}; {hint}")
    try:
        binascii.a2b_base64(value, strict_mode=True)
    except ValueError as error:  # binascii.Error, or characters outside ASCII
        refuse(param, f"must be base64: {error}; {hint}")


def _audio(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    _base64(attribute.name, value)
    if len(value) > (LARGEST_APPEND + 2) // 3 * 4:
        refuse(attribute.name, f"must hold no more than {LARGEST_APPEND} bytes; send it in pieces")


def _item(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, Item):
        refuse(attribute.name, f"must be an Item, not {type(value).__name__}")
    if value.type == "message":
        _message(value)
    elif value.type not in _NEEDS:
        refuse("item.type", f"must be message or one of {', '.join(_NEEDS)}, not {value.type!r}")
    for name in _NEEDS.get(value.type, ()):
        if getattr(value, name) is None:
            refuse(f"item.{name}", f"is needed in a {value.type}", code="missing_required_parameter")


def _message(item: Item) -> None:
    if item.role not in _ROLES:
        refuse("item.role", f"must be one of {', '.join(_ROLES)}, not {item.role!r}")
    if item.content is None:
        refuse("item.content", "is needed in a message; () is an empty one", code="missing_required_parameter")
    for index, part in enumerate(item.content):
        _part(f"item.content[{index}]", item.role, part)


def _part(param: str, role: str, part: ContentPart) -> None:
    if part.type not in _ROLES[role]:
        refuse(f"{param}.type", f"must be {' or '.join(_ROLES[role])} for role {role}, not {part.type!r}")
    needed = {"text": part.text, "image": part.image_url}.get(part.modality, "")
    if needed is None:
        refuse(param, f"a part of type {part.type} needs its {'text' if part.modality == 'text' else 'image_url'}")
    if part.modality == "audio":
        if part.audio is None and part.transcript is None:
            refuse(f"{param}.audio", "is needed, in base64", code="missing_required_parameter")
        if part.audio is not None:
            _base64(f"{param}.audio", part.audio)


@attrs.frozen(kw_only=True)
class ClientEvent:
    """What all events of the client share."""

    TYPE: ClassVar[str] = ""
    event_id: str | UnsetType = attrs.field(default=UNSET, validator=_an_id_or_unset)

    @property
    def category(self) -> str:
        """The first part of the type."""
        return self.TYPE.partition(".")[0]


@attrs.frozen(kw_only=True)
class SessionUpdate(ClientEvent):
    """Change what ``session`` says, and nothing else. Answered by ``session.updated``."""

    TYPE: ClassVar[str] = "session.update"
    session: SessionConfig = attrs.field()

    @session.validator
    def _check_session(self, attribute: attrs.Attribute[SessionConfig], value: object) -> None:
        if not isinstance(value, SessionConfig):
            refuse(attribute.name, f"must be a SessionConfig, not {type(value).__name__}")


@attrs.frozen(kw_only=True)
class InputAudioBufferAppend(ClientEvent):
    """More of the caller's audio, in base64. The one event without an answer."""

    TYPE: ClassVar[str] = "input_audio_buffer.append"
    audio: str = attrs.field(validator=_audio, repr=False)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> InputAudioBufferAppend:
        """The event for these bytes of audio."""
        return cls(audio=base64.b64encode(data).decode())


@attrs.frozen(kw_only=True)
class InputAudioBufferCommit(ClientEvent):
    """The caller's turn is over. Not needed where the server detects turns; 100 ms is the least it takes."""

    TYPE: ClassVar[str] = "input_audio_buffer.commit"


@attrs.frozen(kw_only=True)
class InputAudioBufferClear(ClientEvent):
    """Throw away the caller's audio since the last turn."""

    TYPE: ClassVar[str] = "input_audio_buffer.clear"


@attrs.frozen(kw_only=True)
class OutputAudioBufferClear(ClientEvent):
    """Throw away what the server has not played. WebRTC and SIP only; over a WebSocket the client plays."""

    TYPE: ClassVar[str] = "output_audio_buffer.clear"


@attrs.frozen(kw_only=True)
class ConversationItemCreate(ClientEvent):
    """Put ``item`` after ``previous_item_id``: UNSET is at the end, ``"root"`` at the beginning."""

    TYPE: ClassVar[str] = "conversation.item.create"
    item: Item = attrs.field(validator=_item)
    previous_item_id: str | UnsetType = attrs.field(default=UNSET, validator=_an_id_or_unset)


@attrs.frozen(kw_only=True)
class ConversationItemDelete(ClientEvent):
    """Take an item out of the conversation."""

    TYPE: ClassVar[str] = "conversation.item.delete"
    item_id: str = attrs.field(validator=_an_id)


@attrs.frozen(kw_only=True)
class ConversationItemRetrieve(ClientEvent):
    """Ask for an item as the server has it."""

    TYPE: ClassVar[str] = "conversation.item.retrieve"
    item_id: str = attrs.field(validator=_an_id)


@attrs.frozen(kw_only=True)
class ConversationItemTruncate(ClientEvent):
    """The caller heard only ``audio_end_ms`` milliseconds of an assistant's spoken item."""

    TYPE: ClassVar[str] = "conversation.item.truncate"
    item_id: str = attrs.field(validator=_an_id)
    content_index: int = attrs.field(default=0, validator=_whole)
    audio_end_ms: int = attrs.field(validator=_whole)


@attrs.frozen(kw_only=True)
class ResponseCreate(ClientEvent):
    """Let the model speak. One response at a time, but for those outside the conversation."""

    TYPE: ClassVar[str] = "response.create"
    response: ResponseConfig | UnsetType = attrs.field(default=UNSET)

    @response.validator
    def _check_response(self, attribute: attrs.Attribute[Any], value: object) -> None:
        if value is UNSET:
            return
        if not isinstance(value, ResponseConfig):
            refuse(attribute.name, f"must be a ResponseConfig, or be left out, not {type(value).__name__}")
        for item in () if value.input is UNSET else value.input:
            _item(self, attribute, item)


@attrs.frozen(kw_only=True)
class ResponseCancel(ClientEvent):
    """Stop a response: ``response_id``, or the one that is active."""

    TYPE: ClassVar[str] = "response.cancel"
    response_id: str | UnsetType = attrs.field(default=UNSET, validator=_an_id_or_unset)


#: Every type of the client, by its GA name.
CLIENT_EVENTS: dict[str, type[ClientEvent]] = {
    event.TYPE: event
    for event in (
        SessionUpdate,
        InputAudioBufferAppend,
        InputAudioBufferCommit,
        InputAudioBufferClear,
        OutputAudioBufferClear,
        ConversationItemCreate,
        ConversationItemDelete,
        ConversationItemRetrieve,
        ConversationItemTruncate,
        ResponseCreate,
        ResponseCancel,
    )
}
