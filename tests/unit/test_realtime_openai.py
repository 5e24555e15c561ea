"""Our events judged by the vendor's own types: all that these can express is decoded, all that we send they accept."""

from __future__ import annotations

import base64
import functools
import json
import types
import typing
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.beta.realtime import RealtimeClientEvent as LegacyClientEvent
from openai.types.beta.realtime import RealtimeServerEvent as LegacyServerEvent
from openai.types.beta.realtime import TranscriptionSessionUpdate
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent, RealtimeTranslationServerEvent
from pydantic import BaseModel, TypeAdapter

from agentao_trio.realtime import protocol
from agentao_trio.realtime.protocol import (
    AudioFormat,
    ClientEvent,
    ContentPart,
    ConversationItemCreate,
    ConversationItemDelete,
    ConversationItemRetrieve,
    ConversationItemTruncate,
    FunctionTool,
    InputAudioBufferAppend,
    InputAudioBufferClear,
    InputAudioBufferCommit,
    Item,
    McpTool,
    NoiseReduction,
    OutputAudioBufferClear,
    Profile,
    ResponseCancel,
    ResponseConfig,
    ResponseCreate,
    RetentionRatio,
    SemanticVad,
    ServerVad,
    SessionConfig,
    SessionUpdate,
    ToolChoice,
    Tracing,
    Transcription,
    decode_client_event,
    decode_server_event,
    encode_client_event,
    ga_name,
    plain,
)

# -- what the vendor's types can express ------------------------------------------------------------------------------


@functools.cache
def values_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Plain JSON values of a type, as its fields say; what is optional is there, null or absent."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return values_of(arguments[0])
    if origin in (Union, types.UnionType):
        return st.one_of([values_of(each) for each in arguments])
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin in (list, typing.List):  # noqa: UP006
        return st.lists(values_of(arguments[0]), max_size=2)
    if origin in (dict, typing.Dict):  # noqa: UP006
        return st.dictionaries(st.text(max_size=3), values_of(arguments[1]), max_size=2)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return objects_of(annotation)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: st.text(max_size=5),
        int: st.integers(0, 10_000),
        float: st.floats(0, 1000, allow_nan=False),
        bool: st.booleans(),
        type(None): st.none(),
        object: st.none() | st.text(max_size=3) | st.lists(st.integers(0, 9), max_size=2),
        Any: st.none() | st.text(max_size=3),
    }
    return simple[annotation]


def objects_of(model: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    needed = {
        name: values_of(typing.cast(Any, field.annotation)) for name, field in fields.items() if field.is_required()
    }
    optional = {
        name: values_of(typing.cast(Any, field.annotation)) for name, field in fields.items() if not field.is_required()
    }
    for fields_told in (needed, optional):
        fields_told.pop("client_secret", None)  # a key for browsers, which has no place among what is kept and shown
    if "type" in optional:
        optional["type"] = optional["type"].filter(lambda name: name is not None)
    return st.fixed_dictionaries(needed, optional=optional)


def members(union: Any) -> list[type[BaseModel]]:
    if typing.get_origin(union) is typing.Annotated:
        return members(typing.get_args(union)[0])
    return list(typing.get_args(union))


def name_of(model: type[BaseModel]) -> str:
    (name,) = typing.get_args(model.model_fields["type"].annotation)
    return str(name)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [without_nulls(each) for each in value]
    return value


def contains(told: Any, known: Any) -> bool:
    """Whether ``known`` has all that ``told`` has; it may have defaults beyond that."""
    if isinstance(told, dict):
        return isinstance(known, dict) and all(key in known and contains(told[key], known[key]) for key in told)
    if isinstance(told, list):
        return isinstance(known, list) and len(told) == len(known) and all(map(contains, told, known))
    return bool(told == known)


GA_EVENTS = members(RealtimeServerEvent)
OLD_EVENTS = members(LegacyServerEvent)
TRANSLATION = members(RealtimeTranslationServerEvent)


@pytest.mark.parametrize(
    "model",
    [*GA_EVENTS, *OLD_EVENTS, *TRANSLATION],
    ids=lambda model: f"{'legacy' if '.beta.' in model.__module__ else 'ga'} {name_of(model)}",
)
def test_everything_an_event_of_the_vendors_types_can_say_is_decoded(model: type[BaseModel]) -> None:
    @settings(max_examples=25)
    @given(values_of(model))
    def check(told: dict[str, Any]) -> None:
        received = decode_server_event(json.dumps(told))
        assert received.wire_type == name_of(model)
        assert ga_name(name_of(model)) == received.event.TYPE, received.event
        known = without_nulls(plain(received.event))
        expected = without_nulls({key: value for key, value in told.items() if key != "type"})
        assert contains(expected, known), (expected, known)

    check()


def test_every_type_of_the_vendor_is_known_and_there_are_no_others() -> None:
    theirs = {ga_name(name_of(model)) for model in (*GA_EVENTS, *OLD_EVENTS, *TRANSLATION)}
    assert theirs == set(protocol.SERVER_EVENTS)
    assert {name_of(model) for model in members(RealtimeClientEvent)} == set(protocol.CLIENT_EVENTS)


# -- what we send -----------------------------------------------------------------------------------------------------


def said(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict(fields))


def built(kind: Any, required: Mapping[str, Any] = MappingProxyType({}), /, **fields: Any) -> st.SearchStrategy[Any]:
    fixed = dict(required)
    return st.fixed_dictionaries({}, optional=fields).map(lambda found: kind(**fixed, **found))


words = st.text(max_size=5)
names = st.text("abc_", min_size=1, max_size=5)
flags = st.booleans()
milliseconds = st.integers(0, 5000)
formats = st.sampled_from(AudioFormat)
efforts = ("minimal", "low", "medium", "high", "xhigh")
languages = st.lists(st.sampled_from(["en", "de"]), max_size=2)
metadata = st.dictionaries(names, words, max_size=2)
schema = st.just({"type": "object", "properties": {"a": {"type": "string"}}})
functions = built(FunctionTool, {"name": "look_up"}, description=words, parameters=schema)
mcp_filter = st.just({"read_only": True, "tool_names": ["a"]})
mcp_tools = built(
    McpTool,
    {"server_label": "shop"},
    server_url=words,
    server_description=words,
    connector_id=st.just("connector_gmail"),
    authorization=words,
    headers=metadata,
    allowed_tools=st.lists(names, max_size=2) | mcp_filter,
    require_approval=st.sampled_from(["always", "never"]) | st.just({"always": {"read_only": False}}),
    defer_loading=flags,
)
choices = st.sampled_from(["none", "auto", "required"]) | st.sampled_from(
    [ToolChoice(name="f"), ToolChoice(type="mcp", server_label="s"), ToolChoice(type="mcp", server_label="s", name="t")]
)
server_vad = built(
    ServerVad,
    threshold=st.floats(0, 1),
    prefix_padding_ms=milliseconds,
    silence_duration_ms=milliseconds,
    create_response=flags,
    interrupt_response=flags,
)
semantic_vad = built(
    SemanticVad,
    eagerness=st.sampled_from(["low", "medium", "high", "auto"]),
    create_response=flags,
    interrupt_response=flags,
)
transcription = built(Transcription, model=st.just("whisper-1"), language=st.just("de"), prompt=words)
both_dialects = {
    "instructions": words,
    "output_modalities": st.sampled_from([("audio",), ("text",)]),
    "voice": st.sampled_from(["alloy", "marin"]),
    "output_format": formats,
    "tools": st.lists(functions, max_size=2),
    "tool_choice": st.sampled_from(["none", "auto", "required"]),
    "max_output_tokens": st.integers(1, 4096) | st.just("inf"),
}
session_of_both = both_dialects | {
    "model": st.just("gpt-realtime"),
    "speed": st.floats(0.25, 1.5),
    "input_format": formats,
    "turn_detection": st.none() | server_vad | semantic_vad,
    "transcription": transcription,
    "noise_reduction": built(NoiseReduction, type=st.sampled_from(["near_field", "far_field"])),
    "tracing": st.none() | st.just("auto") | built(Tracing, workflow_name=words, group_id=words, metadata=metadata),
}
ga_only = {
    "voice": st.just("alloy") | st.just({"id": "voice_1"}),
    "tools": st.lists(functions | mcp_tools, max_size=2),
    "tool_choice": choices,
    "prompt": st.none() | st.just({"id": "pmpt_1", "version": "2", "variables": {"a": "b"}}),
    "reasoning_effort": st.sampled_from(efforts),
    "parallel_tool_calls": flags,
}
ga_transcription = built(
    Transcription,
    model=st.just("gpt-4o-transcribe"),
    language=st.just("de"),
    languages=languages,
    prompt=words,
    keywords=st.lists(words, max_size=2),
    delay=st.sampled_from(efforts),
)
ga_noise = built(NoiseReduction, type=st.sampled_from(["near_field", "far_field"]), strength=st.floats(0, 1))
session_of_ga = (
    session_of_both
    | ga_only
    | {
        "truncation": st.sampled_from(["auto", "disabled"])
        | built(RetentionRatio, {"retention_ratio": 0.5}, post_instructions_tokens=st.integers(0, 9999)),
        "include": st.just(("item.input_audio_transcription.logprobs",)),
        "transcription": st.none() | ga_transcription,
        "noise_reduction": st.none() | ga_noise,
    }
)
transcribing = {
    "input_format": formats,
    "turn_detection": st.none() | server_vad,
    "transcription": transcription,
    "include": st.just(("item.input_audio_transcription.logprobs",)),
}
base64_audio = st.binary(max_size=9).map(lambda data: base64.b64encode(data).decode())
texts = st.builds(ContentPart, type=st.just("input_text"), text=words)
users = st.lists(texts | st.builds(ContentPart, type=st.just("input_audio"), audio=base64_audio), max_size=2)
pictures = built(ContentPart, {"type": "input_image", "image_url": "data:image/png;base64,AA=="}, detail=st.just("low"))
replies = st.lists(st.builds(ContentPart, type=st.just("output_text"), text=words), max_size=2)
statuses = st.sampled_from(["completed", "incomplete", "in_progress"])


def items(contents: st.SearchStrategy[Any]) -> st.SearchStrategy[Item]:
    common = {"id": names, "status": statuses, "object": st.just("realtime.item")}
    return st.one_of(
        contents.flatmap(
            lambda content: built(Item, {"type": "message", "role": "user", "content": tuple(content)}, **common)
        ),
        built(Item, {"type": "message", "role": "system", "content": (ContentPart(type="input_text", text="x"),)}),
        replies.flatmap(
            lambda content: built(Item, {"type": "message", "role": "assistant", "content": tuple(content)}, **common)
        ),
        built(Item, {"type": "function_call", "name": "f", "arguments": "{}"}, call_id=names, **common),
        built(Item, {"type": "function_call_output", "call_id": "c", "output": ""}, **common),
    )


mcp_items = st.sampled_from(
    [
        Item(type="mcp_approval_response", id="a", approval_request_id="r", approve=False, reason="no"),
        Item(type="mcp_approval_request", id="a", arguments="{}", name="n", server_label="s"),
        Item(type="mcp_list_tools", id="a", server_label="s", tools=({"name": "t", "input_schema": {}},)),
        Item(type="mcp_call", id="a", arguments="{}", name="n", server_label="s", output="x"),
    ]
)
ga_items = items(users | st.lists(pictures, max_size=1)) | mcp_items
response_only = {"conversation": st.sampled_from(["auto", "none"]), "metadata": metadata}


def the_rest(item: st.SearchStrategy[Item]) -> list[st.SearchStrategy[ClientEvent]]:
    named = {"event_id": names}
    return [
        base64_audio.flatmap(lambda audio: built(InputAudioBufferAppend, {"audio": audio}, **named)),
        built(InputAudioBufferCommit, **named),
        built(InputAudioBufferClear, **named),
        item.flatmap(lambda each: built(ConversationItemCreate, {"item": each}, previous_item_id=names, **named)),
        built(ConversationItemDelete, {"item_id": "i"}, **named),
        built(ConversationItemRetrieve, {"item_id": "i"}, **named),
        built(ConversationItemTruncate, {"item_id": "i", "audio_end_ms": 20}, content_index=st.integers(0, 3), **named),
        built(ResponseCancel, response_id=names, **named),
    ]


def update(fields: dict[str, st.SearchStrategy[Any]], **fixed: Any) -> st.SearchStrategy[ClientEvent]:
    return said(**fields).map(lambda found: SessionUpdate(session=SessionConfig(**fixed, **found)))


def create(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[ClientEvent]:
    return built(ResponseCreate, response=built(ResponseConfig, **fields))


ga_events = st.one_of(
    *the_rest(ga_items),
    built(OutputAudioBufferClear),
    update(session_of_ga),
    update(transcribing | {"noise_reduction": ga_noise}, type="transcription"),
    create(both_dialects | ga_only | response_only | {"input": st.lists(ga_items, max_size=2)}),
)
legacy_events = st.one_of(
    *the_rest(items(users)),
    update(session_of_both | {"temperature": st.floats(0.6, 1.2)}),
    update(transcribing, type="transcription"),
    create(both_dialects | response_only | {"input": st.lists(items(users), max_size=2)}),
)


def extras(value: Any, where: str = "") -> list[str]:
    """What the vendor's types took in without knowing it."""
    if isinstance(value, BaseModel):
        unknown = [f"{where}.{name}" for name in value.model_extra or ()]
        return unknown + [
            each for name in type(value).model_fields for each in extras(getattr(value, name), f"{where}.{name}")
        ]
    if isinstance(value, list):
        return [each for index, inner in enumerate(value) for each in extras(inner, f"{where}[{index}]")]
    return []


JUDGES: dict[Profile, TypeAdapter[Any]] = {
    Profile.GA: TypeAdapter(RealtimeClientEvent),
    Profile.LEGACY: TypeAdapter(Union[LegacyClientEvent, TranscriptionSessionUpdate]),  # noqa: UP007
}


def check_sent(event: ClientEvent, profile: Profile) -> None:
    data = encode_client_event(event, profile=profile)
    judged = JUDGES[profile].validate_json(data)
    assert not extras(judged), data
    assert judged.type == json.loads(data)["type"]


@given(ga_events)
def test_all_that_we_send_in_the_ga_dialect_is_what_the_vendors_types_say(event: ClientEvent) -> None:
    check_sent(event, Profile.GA)


@given(legacy_events)
def test_all_that_we_send_in_the_legacy_dialect_is_what_the_vendors_types_say(event: ClientEvent) -> None:
    check_sent(event, Profile.LEGACY)


def test_a_field_that_the_vendors_types_do_not_have_is_noticed() -> None:
    stray = JUDGES[Profile.GA].validate_python({"type": "response.cancel", "response": "r"})
    assert extras(stray) == [".response"]


@given(ga_events)
def test_what_we_send_is_read_back_as_what_it_was(event: ClientEvent) -> None:
    assert decode_client_event(encode_client_event(event)).event == event
