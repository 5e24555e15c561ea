"""What a conversation and a response consist of: items, their parts, usage, the details of errors.

One class per idea rather than one per spelling: what an item may hold depends on its ``type``, and an item of a type
that is not known yet keeps what it shares with the others. Names and types of fields are those of the wire. What is
absent (or null) is ``None``.
"""

from __future__ import annotations

from typing import Any, Literal

import attrs

__all__ = [
    "ContentPart",
    "ConversationResource",
    "ErrorDetails",
    "Item",
    "LogProb",
    "RateLimit",
    "Response",
    "ResponseError",
    "StatusDetails",
    "TokenDetails",
    "TranscriptionLanguage",
    "TranscriptionUsage",
    "Usage",
]

JSONObject = dict[str, Any]


@attrs.frozen(kw_only=True)
class ContentPart:
    """One part of a message: what was said, written or shown.

    ``type`` is the wire's word: ``input_text``, ``input_audio``, ``input_image``, ``output_text``, ``output_audio``;
    within ``response.content_part.*`` and throughout the legacy dialect ``text`` and ``audio``. ``audio`` is base64.
    """

    type: str | None = None
    text: str | None = None
    transcript: str | None = None
    audio: str | None = None
    image_url: str | None = None
    detail: str | None = None
    #: Of a part that refers to an earlier item; the legacy dialect's.
    id: str | None = None

    @property
    def modality(self) -> str:
        """``"text"``, ``"audio"``, ``"image"`` or what else the type's last word is; guessed where there is no type."""
        if self.type is None:
            return "audio" if self.audio is not None or self.transcript is not None else "text"
        return self.type.rpartition("_")[2]

    @property
    def words(self) -> str:
        """What it says: the transcript of audio, the text of text."""
        return (self.transcript if self.modality == "audio" else self.text) or ""


@attrs.frozen(kw_only=True)
class Item:
    """An item of a conversation.

    ``type`` is ``message`` (``role``, ``content``), ``function_call`` (``name``, ``call_id``, ``arguments``),
    ``function_call_output`` (``call_id``, ``output``), one of ``mcp_list_tools``, ``mcp_call``,
    ``mcp_approval_request`` and ``mcp_approval_response``, or, only as input of a response, ``item_reference``.
    ``status`` is ``in_progress``, ``completed`` or ``incomplete``. The legacy dialect may leave the type out: ``""``.
    """

    type: str = ""
    id: str | None = None
    object: str | None = None
    status: str | None = None
    role: str | None = None
    content: tuple[ContentPart, ...] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | None = None
    server_label: str | None = None
    tools: tuple[JSONObject, ...] | None = None
    approval_request_id: str | None = None
    approve: bool | None = None
    reason: str | None = None
    error: JSONObject | None = None

    @classmethod
    def message(cls, role: Literal["user", "assistant", "system"], text: str, *, id: str | None = None) -> Item:
        """A written message of ``role``."""
        part = ContentPart(type="output_text" if role == "assistant" else "input_text", text=text)
        return cls(type="message", id=id, role=role, content=(part,))

    @classmethod
    def function_call_output(cls, call_id: str, output: str, *, id: str | None = None) -> Item:
        """What a tool returned, for the call that asked for it."""
        return cls(type="function_call_output", id=id, call_id=call_id, output=output)


@attrs.frozen(kw_only=True)
class ErrorDetails:
    """What went wrong, in the server's words. ``event_id`` is the *client* event that caused it."""

    message: str | None = None
    type: str | None = None
    code: str | None = None
    param: str | None = None
    event_id: str | None = None


@attrs.frozen(kw_only=True)
class TokenDetails:
    """How tokens divide by kind; of cached ones once more."""

    text_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None
    cached_tokens: int | None = None
    cached_tokens_details: TokenDetails | None = None


@attrs.frozen(kw_only=True)
class Usage:
    """What a response is billed for, in tokens."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    input_token_details: TokenDetails | None = None
    output_token_details: TokenDetails | None = None


@attrs.frozen(kw_only=True)
class TranscriptionUsage:
    """What a transcription is billed for: tokens, or seconds of audio, as ``type`` says."""

    type: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    input_token_details: TokenDetails | None = None
    seconds: float | None = None


@attrs.frozen(kw_only=True)
class LogProb:
    """One token of a transcript, its bytes, and the logarithm of its probability."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None


@attrs.frozen(kw_only=True)
class TranscriptionLanguage:
    """A language that was heard (ISO 639-1)."""

    code: str


@attrs.frozen(kw_only=True)
class RateLimit:
    """What is left of one limit: ``name`` is ``requests`` or ``tokens``."""

    name: str | None = None
    limit: int | None = None
    remaining: int | None = None
    reset_seconds: float | None = None


@attrs.frozen(kw_only=True)
class ConversationResource:
    """The wire's conversation: an id."""

    id: str | None = None
    object: str | None = None


@attrs.frozen(kw_only=True)
class ResponseError:
    """Why a response failed."""

    type: str | None = None
    code: str | None = None
    message: str | None = None


@attrs.frozen(kw_only=True)
class StatusDetails:
    """Why a response ended as it did: ``reason`` of a cancelled or incomplete one, ``error`` of a failed one."""

    type: str | None = None
    reason: str | None = None
    error: ResponseError | None = None


@attrs.frozen(kw_only=True)
class Response:
    """A response, as its first and its last event show it.

    ``status`` is ``in_progress``, ``completed``, ``cancelled``, ``incomplete`` or ``failed``. ``modalities``,
    ``voice``, ``output_audio_format`` and ``temperature`` are the legacy dialect's.
    """

    id: str | None = None
    object: str | None = None
    status: str | None = None
    status_details: StatusDetails | None = None
    output: tuple[Item, ...] | None = None
    usage: Usage | None = None
    conversation_id: str | None = None
    output_modalities: tuple[str, ...] | None = None
    max_output_tokens: int | str | None = None
    metadata: dict[str, str] | None = None
    audio: JSONObject | None = None
    modalities: tuple[str, ...] | None = None
    voice: str | None = None
    output_audio_format: str | None = None
    temperature: float | None = None
