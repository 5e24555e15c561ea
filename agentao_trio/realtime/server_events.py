"""Every event of the server, one class per GA type; ``response_events`` says what they share.

The ``session.…`` events at the end belong to the translation endpoint.
"""

from __future__ import annotations

from typing import ClassVar

import attrs

from agentao_trio.realtime.configuration import Session
from agentao_trio.realtime.items import (
    ConversationResource,
    ErrorDetails,
    Item,
    LogProb,
    RateLimit,
    TranscriptionLanguage,
    TranscriptionUsage,
)
from agentao_trio.realtime.names import UNSET, UnsetType
from agentao_trio.realtime.response_events import (
    Malformed,
    OutputEvent,
    PartEvent,
    ResponseContentPartAdded,
    ResponseContentPartDone,
    ResponseCreated,
    ResponseDone,
    ResponseFunctionCallArgumentsDelta,
    ResponseFunctionCallArgumentsDone,
    ResponseMcpCallArgumentsDelta,
    ResponseMcpCallArgumentsDone,
    ResponseMcpCallCompleted,
    ResponseMcpCallFailed,
    ResponseMcpCallInProgress,
    ResponseOutputAudioDelta,
    ResponseOutputAudioDone,
    ResponseOutputAudioTranscriptDelta,
    ResponseOutputAudioTranscriptDone,
    ResponseOutputItemAdded,
    ResponseOutputItemDone,
    ResponseOutputTextDelta,
    ResponseOutputTextDone,
    ServerEvent,
    Unknown,
)

__all__ = [
    "SERVER_EVENTS",
    "ConversationCreated",
    "ConversationItemAdded",
    "ConversationItemDeleted",
    "ConversationItemDone",
    "ConversationItemInputAudioTranscriptionCompleted",
    "ConversationItemInputAudioTranscriptionDelta",
    "ConversationItemInputAudioTranscriptionFailed",
    "ConversationItemInputAudioTranscriptionSegment",
    "ConversationItemRetrieved",
    "ConversationItemTruncated",
    "ErrorEvent",
    "InputAudioBufferCleared",
    "InputAudioBufferCommitted",
    "InputAudioBufferDtmfEventReceived",
    "InputAudioBufferSpeechStarted",
    "InputAudioBufferSpeechStopped",
    "InputAudioBufferTimeoutTriggered",
    "Malformed",
    "McpListToolsCompleted",
    "McpListToolsFailed",
    "McpListToolsInProgress",
    "OutputAudioBufferCleared",
    "OutputAudioBufferStarted",
    "OutputAudioBufferStopped",
    "OutputEvent",
    "PartEvent",
    "RateLimitsUpdated",
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
    "SessionClosed",
    "SessionCreated",
    "SessionInputTranscriptDelta",
    "SessionOutputAudioDelta",
    "SessionOutputTranscriptDelta",
    "SessionUpdated",
    "Unknown",
]


@attrs.frozen(kw_only=True)
class ErrorEvent(ServerEvent):
    """Something failed; most errors leave the session usable. ``error.event_id`` is the client's event."""

    TYPE: ClassVar[str] = "error"
    error: ErrorDetails


@attrs.frozen(kw_only=True)
class SessionCreated(ServerEvent):
    """The first event of a connection: the session with its defaults."""

    TYPE: ClassVar[str] = "session.created"
    session: Session


@attrs.frozen(kw_only=True)
class SessionUpdated(ServerEvent):
    """The session as it is after a ``session.update``."""

    TYPE: ClassVar[str] = "session.updated"
    session: Session


@attrs.frozen(kw_only=True)
class ConversationCreated(ServerEvent):
    """The conversation of the session exists."""

    TYPE: ClassVar[str] = "conversation.created"
    conversation: ConversationResource


@attrs.frozen(kw_only=True)
class ConversationItemAdded(ServerEvent):
    """An item is in the conversation, after ``previous_item_id`` (null: it is the first; absent: at the end)."""

    TYPE: ClassVar[str] = "conversation.item.added"
    item: Item
    previous_item_id: str | UnsetType | None = UNSET


@attrs.frozen(kw_only=True)
class ConversationItemDone(ServerEvent):
    """The item's content is final."""

    TYPE: ClassVar[str] = "conversation.item.done"
    item: Item
    previous_item_id: str | UnsetType | None = UNSET


@attrs.frozen(kw_only=True)
class ConversationItemRetrieved(ServerEvent):
    """The item as the server has it."""

    TYPE: ClassVar[str] = "conversation.item.retrieved"
    item: Item


@attrs.frozen(kw_only=True)
class ConversationItemDeleted(ServerEvent):
    """The item is no longer in the conversation."""

    TYPE: ClassVar[str] = "conversation.item.deleted"
    item_id: str


@attrs.frozen(kw_only=True)
class ConversationItemTruncated(ServerEvent):
    """The item's audio ends after ``audio_end_ms`` milliseconds, and its transcript is gone."""

    TYPE: ClassVar[str] = "conversation.item.truncated"
    item_id: str
    content_index: int = 0
    audio_end_ms: int


@attrs.frozen(kw_only=True)
class ConversationItemInputAudioTranscriptionDelta(ServerEvent):
    """More of what the caller said. Comes at any time."""

    TYPE: ClassVar[str] = "conversation.item.input_audio_transcription.delta"
    item_id: str
    content_index: int | None = None
    delta: str | None = None
    logprobs: tuple[LogProb, ...] | None = None


@attrs.frozen(kw_only=True)
class ConversationItemInputAudioTranscriptionCompleted(ServerEvent):
    """All that the caller said in this item. Comes at any time, even after the reply."""

    TYPE: ClassVar[str] = "conversation.item.input_audio_transcription.completed"
    item_id: str
    content_index: int = 0
    transcript: str
    usage: TranscriptionUsage | None = None
    languages: tuple[TranscriptionLanguage, ...] | None = None
    logprobs: tuple[LogProb, ...] | None = None


@attrs.frozen(kw_only=True)
class ConversationItemInputAudioTranscriptionFailed(ServerEvent):
    """What the caller said could not be transcribed."""

    TYPE: ClassVar[str] = "conversation.item.input_audio_transcription.failed"
    item_id: str
    content_index: int = 0
    error: ErrorDetails


@attrs.frozen(kw_only=True)
class ConversationItemInputAudioTranscriptionSegment(ServerEvent):
    """What one speaker said from ``start`` to ``end`` seconds."""

    TYPE: ClassVar[str] = "conversation.item.input_audio_transcription.segment"
    item_id: str
    content_index: int = 0
    id: str = ""
    text: str
    speaker: str = ""
    start: float = 0.0
    end: float = 0.0


@attrs.frozen(kw_only=True)
class InputAudioBufferCommitted(ServerEvent):
    """The caller's audio so far is item ``item_id``."""

    TYPE: ClassVar[str] = "input_audio_buffer.committed"
    item_id: str
    previous_item_id: str | UnsetType | None = UNSET


@attrs.frozen(kw_only=True)
class InputAudioBufferCleared(ServerEvent):
    """The caller's audio so far was thrown away."""

    TYPE: ClassVar[str] = "input_audio_buffer.cleared"


@attrs.frozen(kw_only=True)
class InputAudioBufferSpeechStarted(ServerEvent):
    """The caller began to speak, ``audio_start_ms`` milliseconds into the session's audio."""

    TYPE: ClassVar[str] = "input_audio_buffer.speech_started"
    item_id: str = ""
    audio_start_ms: int = 0


@attrs.frozen(kw_only=True)
class InputAudioBufferSpeechStopped(ServerEvent):
    """The caller stopped speaking, ``audio_end_ms`` milliseconds into the session's audio."""

    TYPE: ClassVar[str] = "input_audio_buffer.speech_stopped"
    item_id: str = ""
    audio_end_ms: int = 0


@attrs.frozen(kw_only=True)
class InputAudioBufferTimeoutTriggered(ServerEvent):
    """Nobody spoke for the idle time; the silence is committed and answered."""

    TYPE: ClassVar[str] = "input_audio_buffer.timeout_triggered"
    item_id: str = ""
    audio_start_ms: int = 0
    audio_end_ms: int = 0


@attrs.frozen(kw_only=True)
class InputAudioBufferDtmfEventReceived(ServerEvent):
    """A key was pressed at ``received_at`` (Unix seconds). On SIP only, and without an ``event_id``."""

    TYPE: ClassVar[str] = "input_audio_buffer.dtmf_event_received"
    event: str
    received_at: int = 0


@attrs.frozen(kw_only=True)
class OutputAudioBufferStarted(ServerEvent):
    """The server began to play a response (WebRTC and SIP only)."""

    TYPE: ClassVar[str] = "output_audio_buffer.started"
    response_id: str = ""


@attrs.frozen(kw_only=True)
class OutputAudioBufferStopped(ServerEvent):
    """The server has played all of a response (WebRTC and SIP only)."""

    TYPE: ClassVar[str] = "output_audio_buffer.stopped"
    response_id: str = ""


@attrs.frozen(kw_only=True)
class OutputAudioBufferCleared(ServerEvent):
    """The server threw away what it had not played (WebRTC and SIP only)."""

    TYPE: ClassVar[str] = "output_audio_buffer.cleared"
    response_id: str = ""


@attrs.frozen(kw_only=True)
class McpListToolsInProgress(ServerEvent):
    """The tools of a server are being listed."""

    TYPE: ClassVar[str] = "mcp_list_tools.in_progress"
    item_id: str = ""


@attrs.frozen(kw_only=True)
class McpListToolsCompleted(ServerEvent):
    """The tools of a server are known."""

    TYPE: ClassVar[str] = "mcp_list_tools.completed"
    item_id: str = ""


@attrs.frozen(kw_only=True)
class McpListToolsFailed(ServerEvent):
    """The tools of a server could not be listed."""

    TYPE: ClassVar[str] = "mcp_list_tools.failed"
    item_id: str = ""


@attrs.frozen(kw_only=True)
class RateLimitsUpdated(ServerEvent):
    """What is left of the limits, at the beginning of a response."""

    TYPE: ClassVar[str] = "rate_limits.updated"
    rate_limits: tuple[RateLimit, ...]


@attrs.frozen(kw_only=True)
class SessionClosed(ServerEvent):
    """The translation session is over."""

    TYPE: ClassVar[str] = "session.closed"


@attrs.frozen(kw_only=True)
class SessionInputTranscriptDelta(ServerEvent):
    """More of what was said."""

    TYPE: ClassVar[str] = "session.input_transcript.delta"
    delta: str
    elapsed_ms: int | None = None


@attrs.frozen(kw_only=True)
class SessionOutputTranscriptDelta(ServerEvent):
    """More of its translation."""

    TYPE: ClassVar[str] = "session.output_transcript.delta"
    delta: str
    elapsed_ms: int | None = None


@attrs.frozen(kw_only=True)
class SessionOutputAudioDelta(ServerEvent):
    """More of the spoken translation, in base64."""

    TYPE: ClassVar[str] = "session.output_audio.delta"
    delta: str
    channels: int | None = None
    elapsed_ms: int | None = None
    format: str | None = None
    sample_rate: int | None = None


#: Every type that is known, by its GA name.
SERVER_EVENTS: dict[str, type[ServerEvent]] = {
    event.TYPE: event
    for event in (
        ErrorEvent,
        SessionCreated,
        SessionUpdated,
        ConversationCreated,
        ConversationItemAdded,
        ConversationItemDone,
        ConversationItemRetrieved,
        ConversationItemDeleted,
        ConversationItemTruncated,
        ConversationItemInputAudioTranscriptionDelta,
        ConversationItemInputAudioTranscriptionCompleted,
        ConversationItemInputAudioTranscriptionFailed,
        ConversationItemInputAudioTranscriptionSegment,
        InputAudioBufferCommitted,
        InputAudioBufferCleared,
        InputAudioBufferSpeechStarted,
        InputAudioBufferSpeechStopped,
        InputAudioBufferTimeoutTriggered,
        InputAudioBufferDtmfEventReceived,
        OutputAudioBufferStarted,
        OutputAudioBufferStopped,
        OutputAudioBufferCleared,
        McpListToolsInProgress,
        McpListToolsCompleted,
        McpListToolsFailed,
        RateLimitsUpdated,
        ResponseCreated,
        ResponseDone,
        ResponseOutputItemAdded,
        ResponseOutputItemDone,
        ResponseContentPartAdded,
        ResponseContentPartDone,
        ResponseOutputTextDelta,
        ResponseOutputTextDone,
        ResponseOutputAudioDelta,
        ResponseOutputAudioDone,
        ResponseOutputAudioTranscriptDelta,
        ResponseOutputAudioTranscriptDone,
        ResponseFunctionCallArgumentsDelta,
        ResponseFunctionCallArgumentsDone,
        ResponseMcpCallArgumentsDelta,
        ResponseMcpCallArgumentsDone,
        ResponseMcpCallInProgress,
        ResponseMcpCallCompleted,
        ResponseMcpCallFailed,
        SessionClosed,
        SessionInputTranscriptDelta,
        SessionOutputTranscriptDelta,
        SessionOutputAudioDelta,
    )
}
