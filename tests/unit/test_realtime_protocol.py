"""What the builders refuse, what stays different on the wire, and that nothing a peer sends breaks the decoder."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentao_trio.errors import RealtimeError
from agentao_trio.realtime.protocol import (
    GA_NAMES,
    AudioFormat,
    ContentPart,
    ConversationItemCreate,
    ConversationItemDelete,
    ConversationItemTruncate,
    FunctionTool,
    InputAudioBufferAppend,
    Item,
    Malformed,
    Profile,
    Received,
    ResponseConfig,
    ResponseCreate,
    ResponseOutputAudioDelta,
    ServerVad,
    SessionConfig,
    SessionUpdate,
    ToolChoice,
    Unknown,
    decode_client_event,
    decode_server_event,
    encode_client_event,
    encode_server_event,
)


def said(part: ContentPart) -> ConversationItemCreate:
    return ConversationItemCreate(item=Item(type="message", role="user", content=(part,)))


@pytest.mark.parametrize(
    ("wrong", "param", "words"),
    [
        (lambda: ConversationItemTruncate(item_id="i", audio_end_ms=-1), "audio_end_ms", "at least 0"),
        (lambda: ConversationItemTruncate(item_id="i", audio_end_ms=True), "audio_end_ms", "whole number"),
        (lambda: ConversationItemTruncate(item_id="", audio_end_ms=1), "item_id", "id of an item"),
        (lambda: ConversationItemDelete(item_id=None), "item_id", "id of an item"),  # type: ignore[arg-type]
        (lambda: InputAudioBufferAppend(audio="not base64!"), "audio", "base64"),
        (lambda: InputAudioBufferAppend(audio=b"\0"), "audio", "encodes bytes"),  # type: ignore[arg-type]
        (lambda: ConversationItemCreate(item=Item(type="message", role=None, content=())), "item.role", "user"),
        (lambda: ConversationItemCreate(item=Item(type="message", role="user")), "item.content", "empty"),
        (lambda: ConversationItemCreate(item=Item(type="function_call")), "item.name", "needed"),
        (lambda: ConversationItemCreate(item=Item(type="poem")), "item.type", "must be message"),
        (
            lambda: ConversationItemCreate(
                item=Item(type="message", role="user", content=(ContentPart(type="output_text", text="x"),))
            ),
            "item.content[0].type",
            "input_text",
        ),
        (lambda: SessionConfig(speed=9), "speed", "0.25 to 1.5"),
        (lambda: SessionConfig(tools=None), "tools", "give () to clear"),
        (lambda: SessionConfig(instructions=None), "instructions", '"" clears'),  # type: ignore[arg-type]
        (lambda: SessionConfig(input_format="g711_ulaw"), "input_format", "AudioFormat.PCMU"),  # type: ignore[arg-type]
        (lambda: SessionConfig(output_modalities=("text", "audio")), "output_modalities", "comes with its transcript"),
        (lambda: SessionConfig(max_output_tokens=5000), "max_output_tokens", "4096"),
        (lambda: ServerVad(threshold=2), "threshold", "from 0 to 1"),
        (lambda: ToolChoice(), "tool_choice", "by its name"),
        (lambda: ToolChoice(type="mcp"), "tool_choice", "by its server_label"),
        (lambda: SessionConfig(tool_choice="sometimes"), "tool_choice", "or a ToolChoice"),
        (lambda: SessionConfig(tracing="loud"), "tracing", "None to switch it off"),
        (lambda: SessionConfig(truncation="half"), "truncation", "RetentionRatio"),
        (lambda: SessionConfig(type="poem"), "type", "must be one of realtime, transcription"),
        (lambda: SessionConfig(tools=("look_up",)), "tools", "FunctionTool"),
        (lambda: SessionUpdate(session={}), "session", "must be a SessionConfig"),  # type: ignore[arg-type]
        (lambda: SessionUpdate(event_id="", session=SessionConfig()), "event_id", "or be left out"),
        (lambda: InputAudioBufferAppend.of(bytes((15 << 20) + 1)), "audio", "send it in pieces"),
        (lambda: ConversationItemCreate(item={}), "item", "must be an Item"),  # type: ignore[arg-type]
        (lambda: said(ContentPart(type="input_text")), "item.content[0]", "needs its text"),
        (lambda: said(ContentPart(type="input_image")), "item.content[0]", "needs its image_url"),
        (lambda: said(ContentPart(type="input_audio")), "item.content[0].audio", "in base64"),
        (lambda: said(ContentPart(type="input_audio", audio="?")), "item.content[0].audio", "base64"),
        (lambda: ResponseCreate(response={}), "response", "ResponseConfig"),  # type: ignore[arg-type]
    ],
)
def test_what_no_server_would_take_is_refused_where_it_is_written(
    wrong: Callable[[], object], param: str, words: str
) -> None:
    with pytest.raises(RealtimeError) as refused:
        wrong()
    assert refused.value.param == param
    assert words in str(refused.value)
    assert not refused.value.retryable


def sent(config: SessionConfig, profile: Profile = Profile.GA) -> Any:
    return json.loads(encode_client_event(SessionUpdate(session=config), profile=profile))["session"]


def test_absent_null_and_empty_stay_different_in_both_dialects() -> None:
    assert sent(SessionConfig()) == {"type": "realtime"}
    assert sent(SessionConfig(), Profile.LEGACY) == {}
    off = SessionConfig(turn_detection=None, transcription=None, noise_reduction=None, tracing=None)
    assert sent(off) == {
        "type": "realtime",
        "tracing": None,
        "audio": {"input": {"turn_detection": None, "transcription": None, "noise_reduction": None}},
    }
    assert sent(off, Profile.LEGACY) == {
        "tracing": None,
        "turn_detection": None,
        "input_audio_transcription": None,
        "input_audio_noise_reduction": None,
    }
    cleared = SessionConfig(tools=(), instructions="")
    assert sent(cleared) == {"type": "realtime", "tools": [], "instructions": ""}
    assert sent(cleared, Profile.LEGACY) == {"tools": [], "instructions": ""}


def test_a_response_of_nothing_differs_from_a_response_of_everything() -> None:
    def response(*config: ResponseConfig) -> Any:
        event = ResponseCreate(response=config[0]) if config else ResponseCreate()
        return json.loads(encode_client_event(event)).get("response", "absent")

    assert response() == "absent"
    assert response(ResponseConfig()) == {}
    assert response(ResponseConfig(input=(), tools=())) == {"input": [], "tools": []}


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("chosen", AudioFormat)
def test_formats_are_spelled_as_each_dialect_does_and_read_back(profile: Profile, chosen: AudioFormat) -> None:
    event = SessionUpdate(session=SessionConfig(input_format=chosen, output_format=chosen))
    assert decode_client_event(encode_client_event(event, profile=profile)).event == event


@pytest.mark.parametrize("said", [{"temperature": 0.8}])
def test_what_the_ga_dialect_has_no_words_for_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(RealtimeError, match="leave it out"):
        sent(SessionConfig(**said))


@pytest.mark.parametrize("said", [{"truncation": "auto"}, {"reasoning_effort": "low"}, {"prompt": {"id": "p"}}])
def test_what_the_legacy_dialect_has_no_words_for_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(RealtimeError, match="leave it out"):
        sent(SessionConfig(**said), Profile.LEGACY)


def test_both_names_of_an_event_decode_to_one_class_and_the_wires_name_is_kept() -> None:
    fields: dict[str, Any] = {
        "event_id": "e",
        "response_id": "r",
        "item_id": "i",
        "output_index": 0,
        "content_index": 1,
        "delta": "AA==",
    }
    for name in ("response.audio.delta", "response.output_audio.delta"):
        raw = json.dumps({"type": name, **fields}).encode()
        received = decode_server_event(raw)
        assert received == Received(event=ResponseOutputAudioDelta(**fields), wire_type=name, raw=raw)
        assert received.category == received.event.category == "response"


def test_a_type_that_nobody_knows_is_an_event_with_all_its_bytes() -> None:
    raw = b'{"type": "response.hologram.delta", "event_id": "e", "light": 1}'
    received = decode_server_event(raw)
    assert received.event == Unknown(type="response.hologram.delta", event_id="e", raw=raw)
    assert received.event.category == "response"


@pytest.mark.parametrize(
    ("raw", "type_"),
    [
        (b"", ""),
        (b"{", ""),
        (b"[]", ""),
        (b"null", ""),
        (b'"a"', ""),
        (b"{}", ""),
        (b'{"type": null}', ""),
        (b'{"type": 1}', ""),
        (b'{"type": "response.created"}', "response.created"),
        (b'{"type": "response.created", "response": []}', "response.created"),
        (b'{"type": "response.output_audio.delta", "delta": 1}', "response.output_audio.delta"),
        (b'{"type": "error", "error": "no"}', "error"),
        (b"\xff\xfe", ""),
        (b'{"type": "session.created", "session": ' + b"[" * 5000 + b"]" * 5000 + b"}", ""),
    ],
)
def test_what_cannot_be_understood_says_why_and_keeps_its_bytes(raw: bytes, type_: str) -> None:
    received = decode_server_event(raw)
    assert isinstance(received.event, Malformed)
    assert received.event.reason
    assert (received.event.type, received.wire_type) == (type_, type_) or b"[[" in raw
    assert received.event.raw == received.raw == raw


def test_the_last_of_two_types_counts_wherever_they_stand() -> None:
    """As with any other field that is there twice; the shortcut for the usual place must not see it otherwise."""
    twice = b'{"type": "response.output_audio.delta", "delta": "AAAA", "type": "error", "error": {"message": "no"}}'
    late = b'{"delta": "AAAA", "type": "response.output_audio.delta", "type": "error", "error": {"message": "no"}}'
    assert decode_server_event(twice).event.TYPE == decode_server_event(late).event.TYPE == "error"


def test_a_type_written_with_escapes_is_the_same_type() -> None:
    assert decode_server_event(rb'{"type": "e\u0072ror", "error": {}}').event.TYPE == "error"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "type", "item", "content", "response", "output", "delta", "session", "error"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
known_types = st.sampled_from(sorted({*GA_NAMES, *GA_NAMES.values(), "error", "response.done", "session.created", "x"}))
shaped = st.fixed_dictionaries(
    {"type": known_types | values},
    optional=dict.fromkeys(("event_id", "item", "item_id", "response", "session", "delta", "error", "part"), values),
)


@given(st.binary(max_size=60) | st.text(max_size=20) | (values | shaped).map(json.dumps))
def test_decoding_never_raises(data: bytes | str) -> None:
    for received in (decode_server_event(data), decode_client_event(data)):
        assert received.raw == (data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)


@given(shaped, st.data())
def test_decoding_never_raises_for_what_is_cut_short_or_hit_on_its_way(
    event: dict[str, Any], data: st.DataObject
) -> None:
    raw = bytearray(json.dumps(event).encode())
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    decode_server_event(cut)
    decode_client_event(cut)


def test_a_tool_is_sent_with_its_schema() -> None:
    tool = FunctionTool(name="look_up", parameters={"type": "object"})
    assert sent(SessionConfig(tools=[tool]))["tools"] == [
        {"name": "look_up", "parameters": {"type": "object"}, "type": "function"}
    ]


# -- for those who play a server ------------------------------------------------------------------------------------

ADDED = {
    "type": "conversation.item.added",
    "event_id": "e1",
    "item": {
        "id": "i",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": "Good day."}, {"type": "output_audio", "transcript": "Good day."}],
    },
}
DONE = {"type": "response.done", "event_id": "e2", "response": {"id": "r", "output": [ADDED["item"]]}}


@pytest.mark.parametrize("event", [ADDED, DONE])
def test_an_event_of_the_server_is_read_back_as_it_was(event: dict[str, Any]) -> None:
    first = decode_server_event(json.dumps(event)).event
    assert not isinstance(first, Malformed | Unknown)
    assert decode_server_event(encode_server_event(first)).event == first
    again = decode_server_event(encode_server_event(first, profile=Profile.LEGACY)).event
    assert type(again) is type(first)


def test_the_legacy_dialect_has_names_of_its_own_for_items_and_their_parts() -> None:
    event = decode_server_event(json.dumps(ADDED)).event
    assert not isinstance(event, Malformed | Unknown)
    told = json.loads(encode_server_event(event, profile=Profile.LEGACY))
    assert told["type"] == "conversation.item.created"
    assert [part["type"] for part in told["item"]["content"]] == ["text", "audio"]


def test_an_event_without_an_id_is_sent_without_one() -> None:
    event = decode_server_event(json.dumps({**ADDED, "event_id": ""})).event
    assert not isinstance(event, Malformed | Unknown)
    assert "event_id" not in json.loads(encode_server_event(event))


def test_the_legacy_dialect_says_once_that_an_item_is_there() -> None:
    event = decode_server_event(json.dumps({**ADDED, "type": "conversation.item.done"})).event
    assert not isinstance(event, Malformed | Unknown)
    with pytest.raises(RealtimeError, match="the legacy dialect has no"):
        encode_server_event(event, profile=Profile.LEGACY)


def test_what_a_client_asks_of_a_response_is_read_back() -> None:
    words = (ContentPart(type="output_text", text="Good day."),)
    config = ResponseConfig(
        conversation="none",
        metadata={"topic": "weather"},
        input=(Item(type="message", role="assistant", content=words), Item(type="item_reference", id="i")),
    )
    asked = ResponseCreate(response=config)
    for profile in Profile:
        read = decode_client_event(encode_client_event(asked, profile=profile)).event
        assert isinstance(read, ResponseCreate)
        assert isinstance(read.response, ResponseConfig)
        assert (read.response.conversation, read.response.metadata) == ("none", {"topic": "weather"})
        assert read.response.input == config.input


def test_the_legacy_name_of_a_transcriptions_update_makes_it_one() -> None:
    update = b'{"type": "transcription_session.update", "session": {"input_audio_format": "g711_ulaw"}}'
    read = decode_client_event(update).event
    assert isinstance(read, SessionUpdate)
    assert (read.session.type, read.session.input_format) == ("transcription", AudioFormat.PCMU)


def test_what_a_kind_of_session_has_not_is_refused() -> None:
    with pytest.raises(RealtimeError, match="a transcription session has only"):
        sent(SessionConfig(type="transcription", instructions="Be kind."))
    with pytest.raises(RealtimeError, match="for transcription sessions in the legacy dialect"):
        sent(SessionConfig(include=("item.input_audio_transcription.logprobs",)), Profile.LEGACY)
