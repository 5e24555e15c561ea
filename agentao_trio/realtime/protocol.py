"""Bytes to events and events to bytes, in both dialects; and everything about events in one place to import from.

Decoding never raises for what the peer sent: a type that is not known is :class:`Unknown`, anything else that cannot be
understood is :class:`Malformed`, and both are events like any other. The bytes are kept beside every event.
"""

from __future__ import annotations

import re
from typing import Any

import attrs
import msgspec

from agentao_trio.errors import RealtimeError
from agentao_trio.realtime import client_events, configuration, items, names, server_events
from agentao_trio.realtime.client_events import *  # noqa: F403
from agentao_trio.realtime.client_events import (
    CLIENT_EVENTS,
    ClientEvent,
    ConversationItemCreate,
    ResponseCreate,
    SessionUpdate,
)
from agentao_trio.realtime.configuration import *  # noqa: F403
from agentao_trio.realtime.configuration import (
    ResponseConfig,
    Session,
    SessionConfig,
    refuse,
    response_fields,
    session_fields,
)
from agentao_trio.realtime.items import *  # noqa: F403
from agentao_trio.realtime.items import Item
from agentao_trio.realtime.names import *  # noqa: F403
from agentao_trio.realtime.names import LEGACY_NAMES, UNSET, Profile, category, ga_name, plain
from agentao_trio.realtime.server_events import *  # noqa: F403
from agentao_trio.realtime.server_events import SERVER_EVENTS, ConversationItemDone, Malformed, ServerEvent, Unknown

__all__ = [
    "Received",
    "ReceivedFromClient",
    "decode_client_event",
    "decode_server_event",
    "encode_client_event",
    "encode_server_event",
    "session_of",
]
__all__ += names.__all__
__all__ += items.__all__
__all__ += configuration.__all__
__all__ += client_events.__all__
__all__ += server_events.__all__


@attrs.frozen(kw_only=True)
class Received:
    """An event of the server as it came: ``wire_type`` is the name it came under, ``raw`` all of its bytes."""

    event: ServerEvent
    wire_type: str
    raw: bytes = attrs.field(repr=False)

    @property
    def category(self) -> str:
        """The first part of the event's GA name, ``""`` where there is no type."""
        return category(self.wire_type)


@attrs.frozen(kw_only=True)
class ReceivedFromClient:
    """An event of the client as a server sees it. ``Malformed.reason`` says what is wrong with one."""

    event: ClientEvent | Unknown | Malformed
    wire_type: str
    raw: bytes = attrs.field(repr=False)


@attrs.frozen
class _Head:
    type: str
    event_id: str | None = None


_HEAD = msgspec.json.Decoder(_Head)
#: Where servers put the type: first, or after the event's id. Saves reading a long message twice. Where the word comes
#: again, within an item or as a second type of the event, the whole is read to be sure.
_USUAL = re.compile(rb'\s*\{\s*(?:"event_id"\s*:\s*"[^"\\]*"\s*,\s*)?"type"\s*:\s*"([a-z0-9_.]+)"')
_DECODERS = {wire_type: msgspec.json.Decoder(event) for wire_type, event in SERVER_EVENTS.items()}
_DECODERS |= {legacy: _DECODERS[ga] for legacy, ga in names.GA_NAMES.items() if ga in _DECODERS}
#: What msgspec raises for bytes that are no JSON, JSON that is not what it should be, or that nests too deep.
_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeError)


def decode_server_event(data: bytes | str) -> Received:
    """The event in one message of a server. Never raises for what is in it."""
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else bytes(data)
    usual = _USUAL.match(raw)
    decoder = _DECODERS.get(usual[1].decode()) if usual and raw.count(b'"type"') == 1 else None
    if usual and decoder:
        try:
            return Received(event=decoder.decode(raw), wire_type=usual[1].decode(), raw=raw)
        except _UNREADABLE as error:
            return _malformed(raw, str(error))
    try:
        head = _HEAD.decode(raw)
        decoder = _DECODERS.get(head.type)
        if decoder is None:
            unknown = Unknown(type=head.type, event_id=head.event_id or "", raw=raw)
            return Received(event=unknown, wire_type=head.type, raw=raw)
        return Received(event=decoder.decode(raw), wire_type=head.type, raw=raw)
    except _UNREADABLE as error:
        return _malformed(raw, str(error))


def _malformed(raw: bytes, reason: str) -> Received:
    try:
        head = _HEAD.decode(raw)
    except _UNREADABLE:
        head = _Head("")
    event = Malformed(type=head.type, event_id=head.event_id or "", reason=reason, raw=raw)
    return Received(event=event, wire_type=head.type, raw=raw)


def encode_client_event(event: ClientEvent, *, profile: Profile = Profile.GA) -> bytes:
    """The message for an event of the client.

    Raises :class:`RealtimeError` for a configuration that ``profile`` has no words for.
    """
    wire_type = event.TYPE
    fields: dict[str, Any]
    if isinstance(event, SessionUpdate):
        fields = {"session": session_fields(event.session, profile)}
        if profile is Profile.LEGACY and event.session.type == "transcription":
            wire_type = "transcription_session.update"
    elif isinstance(event, ResponseCreate):
        fields = {} if event.response is UNSET else {"response": response_fields(event.response, profile)}
        if "input" in fields.get("response", ()):
            fields["response"]["input"] = [_item(item, profile) for item in fields["response"]["input"]]
    elif isinstance(event, ConversationItemCreate):
        fields = {"item": _item(event.item, profile)}
        if event.previous_item_id is not UNSET:
            fields["previous_item_id"] = event.previous_item_id
    else:
        fields = plain(event)
    event_id = {} if event.event_id is UNSET else {"event_id": event.event_id}
    return msgspec.json.encode({"type": wire_type, **event_id, **fields})


def encode_server_event(event: ServerEvent, *, profile: Profile = Profile.GA) -> bytes:
    """The message for an event of the server, for those who play one.

    Raises :class:`RealtimeError` for one that ``profile`` does not have.
    """
    wire_type = event.TYPE
    fields = plain(event)
    if event.event_id == "":
        del fields["event_id"]
    if profile is Profile.LEGACY:
        if isinstance(event, ConversationItemDone):
            refuse("type", "the legacy dialect has no conversation.item.done", code="unknown_parameter")
        wire_type = LEGACY_NAMES.get(wire_type, wire_type)
        for item in [fields.get("item"), *((fields.get("response") or {}).get("output") or ())]:
            _rename_parts(item, _LEGACY_PARTS)
    return msgspec.json.encode({"type": wire_type, **fields})


def session_of(
    config: SessionConfig, *, profile: Profile = Profile.GA, id: str | None = None, expires_at: float | None = None
) -> Session:
    """The session that a server would tell of, were it configured so."""
    return msgspec.convert({**session_fields(config, profile), "id": id, "expires_at": expires_at}, Session)


# -- what a server reads --------------------------------------------------------------------------------------------

#: For the events that msgspec can read by itself; configurations are unions that their ``type`` tells apart.
_CLIENT_DECODERS = {
    wire_type: msgspec.json.Decoder(event)
    for wire_type, event in CLIENT_EVENTS.items()
    if event not in (SessionUpdate, ResponseCreate)
}


@attrs.frozen(kw_only=True)
class _SessionUpdate:
    session: Session
    event_id: str | names.UnsetType = UNSET


@attrs.frozen(kw_only=True)
class _Response(Session):
    conversation: Any = UNSET
    input: Any = UNSET
    metadata: Any = UNSET


@attrs.frozen(kw_only=True)
class _ResponseCreate:
    response: _Response | None = None
    event_id: str | names.UnsetType = UNSET


def decode_client_event(data: bytes | str) -> ReceivedFromClient:
    """The event in one message of a client, of either dialect. Never raises for what is in it.

    Values of a configuration that we have no word for are left out of it, as in :meth:`Session.config`.
    """
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else bytes(data)
    try:
        head = _HEAD.decode(raw)
        return ReceivedFromClient(event=_from_client(head, raw), wire_type=head.type, raw=raw)
    except (*_UNREADABLE, RealtimeError) as error:
        malformed = _malformed(raw, str(error))
        assert isinstance(malformed.event, Malformed)
        return ReceivedFromClient(event=malformed.event, wire_type=malformed.wire_type, raw=raw)


def _from_client(head: _Head, raw: bytes) -> ClientEvent | Unknown:
    wire_type = ga_name(head.type)
    if wire_type not in CLIENT_EVENTS:
        return Unknown(type=head.type, event_id=head.event_id or "", raw=raw)
    if wire_type == SessionUpdate.TYPE:
        update = msgspec.json.decode(raw, type=_SessionUpdate)
        config = update.session.config()
        if head.type != wire_type:
            config = attrs.evolve(config, type="transcription")
        return SessionUpdate(event_id=update.event_id, session=config)
    if wire_type == ResponseCreate.TYPE:
        return _response_create(msgspec.json.decode(raw, type=_ResponseCreate))
    if wire_type == ConversationItemCreate.TYPE:
        fields = msgspec.json.decode(raw)
        _rename_parts(fields.get("item"), _GA_PARTS)
        return msgspec.convert(
            {name: value for name, value in fields.items() if value is not None}, ConversationItemCreate
        )
    event: ClientEvent = _CLIENT_DECODERS[wire_type].decode(raw)
    return event


def _response_create(asked: _ResponseCreate) -> ResponseCreate:
    told = asked.response
    if told is None:
        return ResponseCreate(event_id=asked.event_id)
    session = told.config()
    fields: dict[str, Any] = {
        field.name: getattr(session, field.name)
        for field in attrs.fields(ResponseConfig)
        if hasattr(session, field.name)
    }
    if isinstance(told.input, list):
        for item in told.input:
            _rename_parts(item, _GA_PARTS)
        fields["input"] = msgspec.convert(told.input, tuple[Item, ...])
    for name in ("conversation", "metadata"):
        if (value := getattr(told, name)) is not None:
            fields[name] = value
    return ResponseCreate(event_id=asked.event_id, response=ResponseConfig(**fields))


# -- content of items, which each dialect calls otherwise -------------------------------------------------------------

_LEGACY_PARTS = {"output_text": "text", "output_audio": "audio"}
_GA_PARTS = {legacy: ga for ga, legacy in _LEGACY_PARTS.items()}


def _item(item: Item, profile: Profile) -> Any:
    fields = plain(item)
    if profile is Profile.LEGACY:
        _rename_parts(fields, _LEGACY_PARTS)
    return fields


def _rename_parts(item: Any, new_names: dict[str, str]) -> None:
    content = item.get("content") if isinstance(item, dict) and item.get("role") == "assistant" else None
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and isinstance(part.get("type"), str):
            part["type"] = new_names.get(part["type"], part["type"])
