"""How a session and a response are configured, in our words, and how the two dialects spell that.

Every field is UNSET until it is said: absent leaves things as they are. ``None`` switches off what can be switched off
(turn detection, transcription, noise reduction, tracing, a prompt), and an empty value clears (instructions, tools).
Wrong values are refused where they are written, with :class:`RealtimeError` that names what is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Literal, NoReturn

import attrs
import msgspec

from agentao_trio.errors import RealtimeError
from agentao_trio.realtime.items import Item
from agentao_trio.realtime.names import UNSET, Profile, UnsetType, plain

__all__ = [
    "AudioFormat",
    "FunctionTool",
    "McpTool",
    "NoiseReduction",
    "ResponseConfig",
    "RetentionRatio",
    "SemanticVad",
    "ServerVad",
    "Session",
    "SessionConfig",
    "ToolChoice",
    "Tracing",
    "Transcription",
    "refuse",
    "response_fields",
    "session_fields",
]


def refuse(param: str, message: str, *, code: str = "invalid_value") -> NoReturn:
    """Raise the error for something that this program wrote, and that no server would take."""
    raise RealtimeError(f"{param}: {message}", type="invalid_request_error", code=code, param=param)


class AudioFormat(Enum):
    """How audio is encoded. A phone call's PCMU and PCMA pass through as they are; the model's PCM is 24 kHz."""

    PCMU = "audio/pcmu"
    PCMA = "audio/pcma"
    PCM24K = "audio/pcm"

    @property
    def ga(self) -> dict[str, Any]:
        """The GA dialect's spelling. The rate of PCM has to be there."""
        return {"type": self.value, "rate": 24000} if self is AudioFormat.PCM24K else {"type": self.value}

    @property
    def legacy(self) -> str:
        """The legacy dialect's spelling."""
        return _LEGACY_FORMATS[self]

    @property
    def bytes_per_ms(self) -> int:
        """Bytes of one millisecond of audio."""
        return 48 if self is AudioFormat.PCM24K else 8

    @classmethod
    def of(cls, spelling: object) -> AudioFormat | UnsetType:
        """The format by either spelling, UNSET for any other value."""
        name = spelling.get("type") if isinstance(spelling, Mapping) else spelling
        return next((each for each in cls if name in (each.value, each.legacy)), UNSET)


_LEGACY_FORMATS = {AudioFormat.PCMU: "g711_ulaw", AudioFormat.PCMA: "g711_alaw", AudioFormat.PCM24K: "pcm16"}


# -- checks ---------------------------------------------------------------------------------------------------------

Check = Callable[[Any, "attrs.Attribute[Any]", Any], None]


def _one_of(*choices: str) -> Check:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is not UNSET and not (isinstance(value, str) and value in choices):
            refuse(attribute.name, f"must be one of {', '.join(choices)}, not {value!r}")

    return check


def _number(least: float, most: float, unit: str = "", *, whole: bool = True, null: bool = False) -> Check:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is UNSET or (null and value is None):
            return
        kinds = (int,) if whole else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool) or not least <= value <= most:
            bounds = f"of at least {least}" if most == float("inf") else f"from {least} to {most}"
            kind = "a whole number" if whole else "a number"
            refuse(attribute.name, f"must be {kind} {bounds}{unit and ' ' + unit}, not {value!r}")

    return check


def _a(*kinds: type, null: bool = False, clear: str = "") -> Check:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is UNSET or isinstance(value, kinds) or (value is None and null):
            return
        names = " or ".join(kind.__name__ for kind in kinds)
        hint = f" ({clear})" if value is None and clear else ""
        refuse(attribute.name, f"must be {names}{' or None' if null else ''}, not {value!r}{hint}")

    return check


def _tuple_of(*kinds: type) -> Check:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is UNSET:
            return
        if value is None:
            refuse(attribute.name, "cannot be None: leave it out to keep what is there, give () to clear it")
        for each in value:
            if not isinstance(each, kinds):
                refuse(attribute.name, f"holds {' or '.join(kind.__name__ for kind in kinds)}, not {each!r}")

    return check


def _format(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is UNSET or isinstance(value, AudioFormat):
        return
    meant = AudioFormat.of(value)
    hint = f"; {value!r} is AudioFormat.{meant.name}" if isinstance(meant, AudioFormat) else ""
    refuse(attribute.name, f"must be AudioFormat.PCMU, AudioFormat.PCMA or AudioFormat.PCM24K, not {value!r}{hint}")


def _modalities(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is UNSET:
        return
    if value not in (("audio",), ("text",)):
        refuse(attribute.name, f"must be ('audio',), which comes with its transcript, or ('text',), not {value!r}")


def _most_tokens(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value == "inf":
        return
    _number(1, 4096, 'tokens, or "inf"')(None, attribute, value)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# -- parts of a configuration ---------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class ServerVad:
    """Turns are told by loudness: ``threshold`` 0–1, padding, silence and idle time in milliseconds."""

    type: Literal["server_vad"] = "server_vad"
    threshold: float | UnsetType = attrs.field(default=UNSET, validator=_number(0, 1, whole=False))
    prefix_padding_ms: int | UnsetType = attrs.field(default=UNSET, validator=_number(0, float("inf"), "milliseconds"))
    silence_duration_ms: int | UnsetType = attrs.field(
        default=UNSET, validator=_number(0, float("inf"), "milliseconds")
    )
    #: Milliseconds of silence after which the model speaks anyway; ``None``: never.
    idle_timeout_ms: int | UnsetType | None = attrs.field(
        default=UNSET, validator=_number(1, float("inf"), "milliseconds", null=True)
    )
    create_response: bool | UnsetType = attrs.field(default=UNSET, validator=_a(bool))
    interrupt_response: bool | UnsetType = attrs.field(default=UNSET, validator=_a(bool))


@attrs.frozen(kw_only=True)
class SemanticVad:
    """Turns are told by what was said; ``eagerness`` is how soon the model answers."""

    type: Literal["semantic_vad"] = "semantic_vad"
    eagerness: str | UnsetType = attrs.field(default=UNSET, validator=_one_of("low", "medium", "high", "auto"))
    create_response: bool | UnsetType = attrs.field(default=UNSET, validator=_a(bool))
    interrupt_response: bool | UnsetType = attrs.field(default=UNSET, validator=_a(bool))


@attrs.frozen(kw_only=True)
class Transcription:
    """Which model writes down what the caller says, and what it may expect. Languages are ISO 639-1 codes."""

    model: str | UnsetType = UNSET
    language: str | UnsetType = UNSET
    languages: tuple[str, ...] | UnsetType = attrs.field(default=UNSET, converter=_as_tuple, validator=_tuple_of(str))
    prompt: str | UnsetType = UNSET
    keywords: tuple[str, ...] | UnsetType = attrs.field(default=UNSET, converter=_as_tuple, validator=_tuple_of(str))
    delay: str | UnsetType = attrs.field(default=UNSET, validator=_one_of("minimal", "low", "medium", "high", "xhigh"))


@attrs.frozen(kw_only=True)
class NoiseReduction:
    """For a microphone near the mouth or far from it."""

    type: str | UnsetType = attrs.field(default=UNSET, validator=_one_of("near_field", "far_field"))
    strength: float | UnsetType = attrs.field(default=UNSET, validator=_number(0, float("inf"), whole=False))


@attrs.frozen(kw_only=True)
class FunctionTool:
    """A function the model may ask for; ``parameters`` is the JSON Schema of its arguments."""

    name: str = attrs.field(validator=_a(str))
    description: str | UnsetType = UNSET
    parameters: Mapping[str, Any] | UnsetType = UNSET
    type: Literal["function"] = "function"


@attrs.frozen(kw_only=True)
class McpTool:
    """An MCP server whose tools the model's server calls by itself. Its secrets stay out of repr."""

    server_label: str
    server_url: str | UnsetType = UNSET
    server_description: str | UnsetType = UNSET
    connector_id: str | UnsetType = UNSET
    tunnel_id: str | UnsetType = UNSET
    authorization: str | UnsetType = attrs.field(default=UNSET, repr=False)
    headers: Mapping[str, str] | UnsetType = attrs.field(default=UNSET, repr=False)
    allowed_tools: tuple[str, ...] | Mapping[str, Any] | UnsetType = attrs.field(default=UNSET, converter=_as_tuple)
    allowed_callers: tuple[str, ...] | UnsetType = attrs.field(default=UNSET, converter=_as_tuple)
    require_approval: str | Mapping[str, Any] | UnsetType = UNSET
    defer_loading: bool | UnsetType = UNSET
    type: Literal["mcp"] = "mcp"


@attrs.frozen(kw_only=True)
class ToolChoice:
    """One particular tool: a function by ``name``, or of an MCP server one tool or all."""

    type: str = attrs.field(default="function", validator=_one_of("function", "mcp"))
    name: str | UnsetType = UNSET
    server_label: str | UnsetType = UNSET

    def __attrs_post_init__(self) -> None:
        if self.type == "function" and not self.name:
            refuse("tool_choice", "a function is chosen by its name")
        if self.type == "mcp" and not self.server_label:
            refuse("tool_choice", "an MCP tool is chosen by its server_label")


@attrs.frozen(kw_only=True)
class Tracing:
    """Names for the traces that the server keeps."""

    workflow_name: str | UnsetType = UNSET
    group_id: str | UnsetType = UNSET
    metadata: Mapping[str, Any] | UnsetType = UNSET


@attrs.frozen(kw_only=True)
class RetentionRatio:
    """When the conversation is too long, keep this fraction (0–1) of what may be."""

    retention_ratio: float = attrs.field(validator=_number(0, 1, whole=False))
    post_instructions_tokens: int | UnsetType = attrs.field(default=UNSET, validator=_number(0, float("inf")))

    @property
    def ga(self) -> dict[str, Any]:
        """The GA dialect's spelling."""
        limits = (
            {}
            if self.post_instructions_tokens is UNSET
            else {"token_limits": {"post_instructions": self.post_instructions_tokens}}
        )
        return {"type": "retention_ratio", "retention_ratio": self.retention_ratio, **limits}


def _choice(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is UNSET or isinstance(value, ToolChoice) or (isinstance(value, str) and value in _CHOICES):
        return
    refuse(attribute.name, f"must be one of {', '.join(_CHOICES)} or a ToolChoice, not {value!r}")


_CHOICES = ("none", "auto", "required")


def _tracing(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not UNSET and value is not None and value != "auto" and not isinstance(value, Tracing):
        refuse(attribute.name, f'must be "auto", a Tracing, or None to switch it off, not {value!r}')


def _truncation(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not UNSET and not isinstance(value, RetentionRatio) and value not in ("auto", "disabled"):
        refuse(attribute.name, f'must be "auto", "disabled" or a RetentionRatio, not {value!r}')


Tools = tuple[FunctionTool | McpTool, ...]
_EFFORTS = ("minimal", "low", "medium", "high", "xhigh")


@attrs.frozen(kw_only=True)
class _Shared:
    """What a session says of all its responses, and a response of itself."""

    instructions: str | UnsetType = attrs.field(default=UNSET, validator=_a(str, clear='"" clears them'))
    output_modalities: tuple[str, ...] | UnsetType = attrs.field(
        default=UNSET, converter=_as_tuple, validator=_modalities
    )
    voice: str | Mapping[str, str] | UnsetType = attrs.field(default=UNSET, validator=_a(str, Mapping))
    output_format: AudioFormat | UnsetType = attrs.field(default=UNSET, validator=_format)
    tools: Tools | UnsetType = attrs.field(
        default=UNSET, converter=_as_tuple, validator=_tuple_of(FunctionTool, McpTool)
    )
    tool_choice: str | ToolChoice | UnsetType = attrs.field(default=UNSET, validator=_choice)
    #: 1 to 4096, or ``"inf"``.
    max_output_tokens: int | str | UnsetType = attrs.field(default=UNSET, validator=_most_tokens)
    prompt: Mapping[str, Any] | UnsetType | None = attrs.field(default=UNSET, validator=_a(Mapping, null=True))
    reasoning_effort: str | UnsetType = attrs.field(default=UNSET, validator=_one_of(*_EFFORTS))
    parallel_tool_calls: bool | UnsetType = attrs.field(default=UNSET, validator=_a(bool))
    #: Of the legacy dialect only.
    temperature: float | UnsetType = attrs.field(default=UNSET, validator=_number(0, 2, whole=False))


@attrs.frozen(kw_only=True)
class SessionConfig(_Shared):
    """What a session is to be. ``type`` is ``realtime`` (a conversation) or ``transcription`` (only writing down)."""

    type: str = attrs.field(default="realtime", validator=_one_of("realtime", "transcription"))
    #: Fixed when the connection is made; a server takes no other one later.
    model: str | UnsetType = attrs.field(default=UNSET, validator=_a(str))
    speed: float | UnsetType = attrs.field(default=UNSET, validator=_number(0.25, 1.5, whole=False))
    input_format: AudioFormat | UnsetType = attrs.field(default=UNSET, validator=_format)
    #: ``None``: turns are ended by hand, with ``input_audio_buffer.commit``.
    turn_detection: ServerVad | SemanticVad | UnsetType | None = attrs.field(
        default=UNSET, validator=_a(ServerVad, SemanticVad, null=True)
    )
    transcription: Transcription | UnsetType | None = attrs.field(default=UNSET, validator=_a(Transcription, null=True))
    noise_reduction: NoiseReduction | UnsetType | None = attrs.field(
        default=UNSET, validator=_a(NoiseReduction, null=True)
    )
    tracing: str | Tracing | UnsetType | None = attrs.field(default=UNSET, validator=_tracing)
    truncation: str | RetentionRatio | UnsetType = attrs.field(default=UNSET, validator=_truncation)
    include: tuple[str, ...] | UnsetType = attrs.field(default=UNSET, converter=_as_tuple, validator=_tuple_of(str))

    def merged(self, later: SessionConfig) -> SessionConfig:
        """This configuration with everything that ``later`` says put in its place."""
        said = {
            field.name: value
            for field in attrs.fields(SessionConfig)
            if (value := getattr(later, field.name)) is not UNSET
        }
        return attrs.evolve(self, **said)


@attrs.frozen(kw_only=True)
class ResponseConfig(_Shared):
    """What one response is to be, where that differs from its session.

    ``conversation="none"`` keeps it out of the conversation; ``input`` is then all that the model sees, and ``()`` is
    nothing at all.
    """

    conversation: str | UnsetType = attrs.field(default=UNSET, validator=_a(str))
    input: tuple[Item, ...] | UnsetType = attrs.field(default=UNSET, converter=_as_tuple, validator=_tuple_of(Item))
    metadata: Mapping[str, str] | UnsetType = attrs.field(default=UNSET, validator=_a(Mapping))


# -- spelling -------------------------------------------------------------------------------------------------------

_INPUT = {"input_format": "format", "turn_detection": "turn_detection", "transcription": "transcription"}
_INPUT |= {"noise_reduction": "noise_reduction"}
_OUTPUT = {"output_format": "format", "voice": "voice", "speed": "speed"}
_FLAT = {
    "output_modalities": "modalities",
    "input_format": "input_audio_format",
    "output_format": "output_audio_format",
    "transcription": "input_audio_transcription",
    "noise_reduction": "input_audio_noise_reduction",
    "max_output_tokens": "max_response_output_tokens",
}
_GA_ONLY = ("prompt", "reasoning_effort", "parallel_tool_calls", "truncation")
_OF_TRANSCRIPTION = ("type", "include", *_INPUT)


def _said(config: _Shared) -> dict[str, Any]:
    """What is said in ``config``, by our names, with values that both dialects spell alike made plain."""
    return {
        field.name: value if isinstance(value, AudioFormat) else plain(value)
        for field in attrs.fields(type(config))
        if (value := getattr(config, field.name)) is not UNSET
    }


def session_fields(config: SessionConfig, profile: Profile) -> dict[str, Any]:
    """The ``session`` of a ``session.update``. Raises :class:`RealtimeError` for what the dialect cannot say."""
    said = _said(config)
    if config.type == "transcription" and (stray := said.keys() - set(_OF_TRANSCRIPTION)):
        refuse(min(stray), f"a transcription session has only {', '.join(_OF_TRANSCRIPTION[1:])}")
    if profile is Profile.LEGACY:
        del said["type"]
        if config.type == "realtime" and "include" in said:
            refuse("include", "is for transcription sessions in the legacy dialect")
        return _legacy(said)
    return _ga(said)


def response_fields(config: ResponseConfig, profile: Profile) -> dict[str, Any]:
    """The ``response`` of a ``response.create``; ``input`` is left as items. Raises :class:`RealtimeError`."""
    said = _said(config)
    if config.input is not UNSET:
        said["input"] = config.input
    return _legacy(said) if profile is Profile.LEGACY else _ga(said)


def _ga(said: dict[str, Any]) -> dict[str, Any]:
    if "temperature" in said:
        refuse("temperature", "is gone from the GA dialect: leave it out", code="unknown_parameter")
    audio: dict[str, dict[str, Any]] = {}
    for direction, names in (("input", _INPUT), ("output", _OUTPUT)):
        for ours, theirs in names.items():
            if ours in said:
                value = said.pop(ours)
                audio.setdefault(direction, {})[theirs] = value.ga if isinstance(value, AudioFormat) else value
    if audio:
        said["audio"] = audio
    if "reasoning_effort" in said:
        said["reasoning"] = {"effort": said.pop("reasoning_effort")}
    if isinstance(said.get("truncation"), dict):
        ratio = said["truncation"]
        said["truncation"] = RetentionRatio(**ratio).ga
    return said


def _legacy(said: dict[str, Any]) -> dict[str, Any]:
    for name in _GA_ONLY:
        if name in said:
            refuse(name, "is unknown to the legacy dialect: leave it out", code="unknown_parameter")
    if said.get("output_modalities") == ["audio"]:
        said["output_modalities"] = ["text", "audio"]  # there the transcript is asked for
    return {
        _FLAT.get(name, name): value.legacy if isinstance(value, AudioFormat) else value for name, value in said.items()
    }


# -- the server's echo ----------------------------------------------------------------------------------------------

_JSON = Any


@attrs.frozen(kw_only=True)
class Session:
    """A session as the server describes it, in either dialect; what it left out is UNSET."""

    id: str | None = None
    object: str | None = None
    type: str | None = None
    model: str | None = None
    #: Unix seconds.
    expires_at: float | None = None
    audio: dict[str, _JSON] | None = None
    include: _JSON = UNSET
    instructions: _JSON = UNSET
    max_output_tokens: _JSON = UNSET
    output_modalities: _JSON = UNSET
    parallel_tool_calls: _JSON = UNSET
    prompt: _JSON = UNSET
    reasoning: _JSON = UNSET
    tool_choice: _JSON = UNSET
    tools: _JSON = UNSET
    tracing: _JSON = UNSET
    truncation: _JSON = UNSET
    # the legacy dialect's
    modalities: _JSON = UNSET
    voice: _JSON = UNSET
    speed: _JSON = UNSET
    temperature: _JSON = UNSET
    input_audio_format: _JSON = UNSET
    output_audio_format: _JSON = UNSET
    turn_detection: _JSON = UNSET
    input_audio_transcription: _JSON = UNSET
    input_audio_noise_reduction: _JSON = UNSET
    max_response_output_tokens: _JSON = UNSET

    def config(self) -> SessionConfig:
        """The same in our words. Values that we have no word for stay UNSET; the raw event has them."""
        found: dict[str, Any] = {}
        for attribute in attrs.fields(SessionConfig):
            value = _READ.get(attribute.name, _as_it_is)(self._told(attribute.name))
            value = _as_tuple(value)
            if value is UNSET or (value is None and attribute.name in ("type", "model")):
                continue
            try:
                if attribute.validator is not None:
                    attribute.validator(None, attribute, value)
            except RealtimeError:
                continue
            found[attribute.name] = value
        return SessionConfig(**found)

    def _told(self, name: str) -> Any:
        for direction, names in (("input", _INPUT), ("output", _OUTPUT)):
            section = (self.audio or {}).get(direction)
            if name in names and isinstance(section, dict) and names[name] in section:
                return section[names[name]]
        if name == "reasoning_effort":
            return self.reasoning.get("effort", UNSET) if isinstance(self.reasoning, dict) else UNSET
        told = getattr(self, name, UNSET)
        return told if told is not UNSET else getattr(self, _FLAT.get(name, name), UNSET)


def _as_it_is(value: Any) -> Any:
    return value


def _section(kind: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        try:
            return msgspec.convert(value, kind)
        except (msgspec.ValidationError, RealtimeError):
            return UNSET

    return read


def _read_turn_detection(value: Any) -> Any:
    semantic = isinstance(value, dict) and value.get("type") == "semantic_vad"
    return _section(SemanticVad if semantic else ServerVad)(value)


def _read_tools(value: Any) -> Any:
    if not isinstance(value, list):
        return UNSET
    tools = [
        _section(McpTool if isinstance(tool, dict) and tool.get("type") == "mcp" else FunctionTool)(tool)
        for tool in value
    ]
    return UNSET if UNSET in tools else tuple(tools)


def _read_modalities(value: Any) -> Any:
    if not isinstance(value, list):
        return UNSET
    return ("audio",) if "audio" in value else tuple(value)


def _read_truncation(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    limits = value.get("token_limits")
    post = limits.get("post_instructions") if isinstance(limits, dict) else None
    said = {"retention_ratio": value.get("retention_ratio")} | (
        {} if post is None else {"post_instructions_tokens": post}
    )
    return _section(RetentionRatio)(said)


_READ: Mapping[str, Callable[[Any], Any]] = {
    "input_format": AudioFormat.of,
    "output_format": AudioFormat.of,
    "turn_detection": _read_turn_detection,
    "transcription": _section(Transcription),
    "noise_reduction": _section(NoiseReduction),
    "tools": _read_tools,
    "tool_choice": _section(ToolChoice),
    "tracing": _section(Tracing),
    "truncation": _read_truncation,
    "output_modalities": _read_modalities,
}
