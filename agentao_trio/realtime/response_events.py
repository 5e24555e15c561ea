"""What all events of the server share, and those of a response: one class per GA type, ``TYPE`` is its GA name.

Only what an event is about has to be there (the delta of a delta, the item of an added item). Ids and indices that a
server leaves out become ``""`` and 0, so that a careless server is still understood; judging it is for ``sequence``.
"""

from __future__ import annotations

from typing import ClassVar

import attrs

from agentao_trio.realtime.items import ContentPart, Item, Response
from agentao_trio.realtime.names import category

__all__ = [
    "Malformed",
    "OutputEvent",
    "PartEvent",
    "ResponseContentPartAdded",
    "ResponseContentPartDone",
    "ResponseCreated",
    "ResponseDone",
    "ResponseFunctionCallArgumentsDelta",
    "ResponseFunctionCallArgumentsDone",
    "ResponseMcpCallArgumentsDelta",
    "ResponseMcpCallArgumentsDone",
    "ResponseMcpCallCompleted",
    "ResponseMcpCallFailed",
    "ResponseMcpCallInProgress",
    "ResponseOutputAudioDelta",
    "ResponseOutputAudioDone",
    "ResponseOutputAudioTranscriptDelta",
    "ResponseOutputAudioTranscriptDone",
    "ResponseOutputItemAdded",
    "ResponseOutputItemDone",
    "ResponseOutputTextDelta",
    "ResponseOutputTextDone",
    "ServerEvent",
    "Unknown",
]


@attrs.frozen(kw_only=True)
class ServerEvent:
    """What all events of the server share. ``event_id`` is the server's, ``""`` where it gave none."""

    TYPE: ClassVar[str] = ""
    event_id: str = ""

    @property
    def category(self) -> str:
        """The first part of the type: ``"response"``, ``"conversation"``, ``"session"``, …"""
        return self.TYPE.partition(".")[0]


@attrs.frozen(kw_only=True)
class Unknown(ServerEvent):
    """An event of a type that is not known here. It may be ignored; ``raw`` is all of it."""

    type: str
    raw: bytes = attrs.field(repr=False)

    @property
    def category(self) -> str:
        """The first part of the type."""
        return category(self.type)


@attrs.frozen(kw_only=True)
class Malformed(ServerEvent):
    """What could not be understood, and why. ``type`` is the event's type where that much could be read."""

    reason: str
    type: str = ""
    raw: bytes = attrs.field(repr=False)

    @property
    def category(self) -> str:
        """The first part of the type, ``""`` where there is none."""
        return category(self.type)


@attrs.frozen(kw_only=True)
class OutputEvent(ServerEvent):
    """An event within one output item of one response."""

    response_id: str = ""
    item_id: str = ""
    output_index: int = 0


@attrs.frozen(kw_only=True)
class PartEvent(OutputEvent):
    """An event within one content part of one output item."""

    content_index: int = 0


@attrs.frozen(kw_only=True)
class ResponseCreated(ServerEvent):
    """A response begins."""

    TYPE: ClassVar[str] = "response.created"
    response: Response


@attrs.frozen(kw_only=True)
class ResponseDone(ServerEvent):
    """A response is over, whichever way; failures for want of quota show here too."""

    TYPE: ClassVar[str] = "response.done"
    response: Response


@attrs.frozen(kw_only=True)
class ResponseOutputItemAdded(ServerEvent):
    """A response begins a further item."""

    TYPE: ClassVar[str] = "response.output_item.added"
    item: Item
    response_id: str = ""
    output_index: int = 0


@attrs.frozen(kw_only=True)
class ResponseOutputItemDone(ServerEvent):
    """An item of a response is complete."""

    TYPE: ClassVar[str] = "response.output_item.done"
    item: Item
    response_id: str = ""
    output_index: int = 0


@attrs.frozen(kw_only=True)
class ResponseContentPartAdded(PartEvent):
    """An item begins a further part."""

    TYPE: ClassVar[str] = "response.content_part.added"
    part: ContentPart


@attrs.frozen(kw_only=True)
class ResponseContentPartDone(PartEvent):
    """A part is complete."""

    TYPE: ClassVar[str] = "response.content_part.done"
    part: ContentPart


@attrs.frozen(kw_only=True)
class ResponseOutputTextDelta(PartEvent):
    """More of a written part."""

    TYPE: ClassVar[str] = "response.output_text.delta"
    delta: str


@attrs.frozen(kw_only=True)
class ResponseOutputTextDone(PartEvent):
    """All of a written part."""

    TYPE: ClassVar[str] = "response.output_text.done"
    text: str


@attrs.frozen(kw_only=True)
class ResponseOutputAudioDelta(PartEvent):
    """More of a spoken part, in base64."""

    TYPE: ClassVar[str] = "response.output_audio.delta"
    delta: str


@attrs.frozen(kw_only=True)
class ResponseOutputAudioDone(PartEvent):
    """All of a spoken part has been sent."""

    TYPE: ClassVar[str] = "response.output_audio.done"


@attrs.frozen(kw_only=True)
class ResponseOutputAudioTranscriptDelta(PartEvent):
    """More of the words of a spoken part."""

    TYPE: ClassVar[str] = "response.output_audio_transcript.delta"
    delta: str


@attrs.frozen(kw_only=True)
class ResponseOutputAudioTranscriptDone(PartEvent):
    """All the words of a spoken part."""

    TYPE: ClassVar[str] = "response.output_audio_transcript.done"
    transcript: str


@attrs.frozen(kw_only=True)
class ResponseFunctionCallArgumentsDelta(OutputEvent):
    """More of the arguments of a function call."""

    TYPE: ClassVar[str] = "response.function_call_arguments.delta"
    delta: str
    call_id: str = ""


@attrs.frozen(kw_only=True)
class ResponseFunctionCallArgumentsDone(OutputEvent):
    """All the arguments of a function call. The legacy dialect gives no ``name``."""

    TYPE: ClassVar[str] = "response.function_call_arguments.done"
    arguments: str
    call_id: str = ""
    name: str | None = None


@attrs.frozen(kw_only=True)
class ResponseMcpCallArgumentsDelta(OutputEvent):
    """More of the arguments of a call that the server makes itself."""

    TYPE: ClassVar[str] = "response.mcp_call_arguments.delta"
    delta: str
    obfuscation: str | None = None


@attrs.frozen(kw_only=True)
class ResponseMcpCallArgumentsDone(OutputEvent):
    """All the arguments of a call that the server makes itself."""

    TYPE: ClassVar[str] = "response.mcp_call_arguments.done"
    arguments: str


@attrs.frozen(kw_only=True)
class ResponseMcpCallInProgress(ServerEvent):
    """The server makes the call. Names no response."""

    TYPE: ClassVar[str] = "response.mcp_call.in_progress"
    item_id: str = ""
    output_index: int = 0


@attrs.frozen(kw_only=True)
class ResponseMcpCallCompleted(ServerEvent):
    """The call succeeded. Names no response."""

    TYPE: ClassVar[str] = "response.mcp_call.completed"
    item_id: str = ""
    output_index: int = 0


@attrs.frozen(kw_only=True)
class ResponseMcpCallFailed(ServerEvent):
    """The call failed. Names no response."""

    TYPE: ClassVar[str] = "response.mcp_call.failed"
    item_id: str = ""
    output_index: int = 0
