"""The scripted model without I/O: whatever a client does, its events come in a legal order."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentao_trio.realtime.model import Hangup, ScriptedModel
from agentao_trio.realtime.script import Script, ToolCall, Turn

LOUD = base64.b64encode(bytes([0x00, 0x80]) * 80).decode()
QUIET = base64.b64encode(b"\xff" * 160).decode()
PHONE = {"audio": {"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcmu"}}}}

turns = st.builds(
    Turn,
    text=st.sampled_from(["", "Hello.", "A sentence that is longer than the first one."]),
    tool=st.none() | st.just(ToolCall(name="look_up", arguments='{"a": 1}')),
    more=st.just(()) | st.just((Turn(text="And more."), Turn(tool=ToolCall(name="other")))),
    think_seconds=st.sampled_from([0.0, 0.5]),
    pace=st.sampled_from([0.5, 4.0, float("inf")]),
    fault=st.sampled_from(
        [None, "interleaved", "rate_limited", "insufficient_quota", "max_output_tokens", "stall", "server_error"]
    ),
)
#: What a client does, in steps of 20 ms of audio, and how long it then waits.
actions = st.tuples(
    st.sampled_from(["loud", "quiet", "create", "aside", "cancel", "commit", "clear", "nothing"]),
    st.integers(1, 20),
)


def play(script: Script, steps: list[tuple[str, int]]) -> list[dict[str, Any]]:
    model = ScriptedModel(script, name="c1", now=0.0, unix_now=0.0)
    now = 0.0
    model.receive(json.dumps({"type": "session.update", "session": {"type": "realtime", **PHONE}}).encode(), now)
    events = {
        "create": {"type": "response.create"},
        "aside": {"type": "response.create", "response": {"conversation": "none"}},
        "cancel": {"type": "response.cancel"},
        "commit": {"type": "input_audio_buffer.commit"},
        "clear": {"type": "input_audio_buffer.clear"},
        "loud": {"type": "input_audio_buffer.append", "audio": LOUD},
        "quiet": {"type": "input_audio_buffer.append", "audio": QUIET},
    }
    for what, times in [*steps, ("nothing", 3000)]:
        for number in range(times):
            if what in events and (number == 0 or what in {"loud", "quiet"}):
                model.receive(json.dumps(events[what]).encode(), now)
            now += 0.02
            model.advance(now)
    return [json.loads(message) for message in model.outbox if not isinstance(message, Hangup)]


def check_order(events: list[dict[str, Any]]) -> None:
    """The rules of the catalogue, one by one and without cleverness."""
    assert len({event["event_id"] for event in events}) == len(events)
    responses: dict[str, str] = {}
    items: dict[str, str] = {}
    parts: dict[tuple[str, int], str] = {}
    known: set[str] = set()
    for event in events:
        kind = event["type"]
        if kind == "response.created":
            responses[event["response"]["id"]] = "open"
        elif kind == "response.done":
            assert responses[event["response"]["id"]] == "open"
            responses[event["response"]["id"]] = "done"
            assert not [item for item, state in items.items() if state == event["response"]["id"]]
        elif kind == "response.output_item.added":
            items[event["item"]["id"]] = event["response_id"]
        elif kind == "response.output_item.done":
            assert items.pop(event["item"]["id"]) == event["response_id"]
        elif kind == "response.content_part.added":
            parts[event["item_id"], event["content_index"]] = ""
        elif kind == "response.content_part.done":
            said = parts.pop((event["item_id"], event["content_index"]))
            assert said == (event["part"].get("transcript") or event["part"].get("text") or "")
        elif kind.endswith(("transcript.delta", "text.delta")) and kind.startswith("response."):
            parts[event["item_id"], event["content_index"]] += event["delta"]
        elif kind == "conversation.item.added":
            assert event["previous_item_id"] is None or event["previous_item_id"] in known
            known.add(event["item"]["id"])
        elif kind == "conversation.item.done":
            assert event["item"]["id"] in known
        if kind.startswith("response.") and "response_id" in event:
            assert responses[event["response_id"]] == "open"
            assert items.get(event.get("item_id", ""), event["response_id"]) == event["response_id"]
    assert set(responses.values()) <= {"done"}


@given(st.lists(turns, max_size=4), st.lists(actions, max_size=12))
def test_its_events_are_always_in_a_legal_order(script: list[Turn], steps: list[tuple[str, int]]) -> None:
    check_order(play(Script(turns=tuple(script), truncates=True), steps))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "id", "content", "audio", "input", "tools"]), inner, max_size=3)
    ),
    max_leaves=5,
)
wrong = st.fixed_dictionaries(
    {"type": st.sampled_from(["session.update", "conversation.item.create", "conversation.item.truncate", "x"])},
    optional={"session": values, "item": values, "item_id": values, "event_id": values},
)


@given(st.binary() | (values | wrong).map(lambda value: json.dumps(value).encode()))
def test_whatever_a_client_sends_is_answered_and_nothing_breaks(data: bytes) -> None:
    model = ScriptedModel(Script(), name="c1", now=0.0, unix_now=0.0)
    model.outbox.clear()
    model.receive(data, 0.0)
    assert model.outbox


# -- what it refuses, as the model of a vendor does ------------------------------------------------------------------


def told(*messages: dict[str, Any], legacy: bool = False, script: Script | None = None) -> list[dict[str, Any]]:
    """What comes of these messages, one after the other."""
    model = ScriptedModel(script or Script(), name="c1", now=0.0, unix_now=0.0, legacy=legacy)
    model.outbox.clear()
    for message in messages:
        model.receive(json.dumps(message).encode(), 0.0)
    return [json.loads(each) for each in model.outbox if not isinstance(each, Hangup)]


def updated(**session: Any) -> dict[str, Any]:
    return {"type": "session.update", "session": {"type": "realtime", **session}}


def created(*, after: str | None = None, **item: Any) -> dict[str, Any]:
    return {"type": "conversation.item.create", "item": item} | ({"previous_item_id": after} if after else {})


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        (updated(mood="good"), "unknown_parameter", "session.mood"),
        (updated(output_modalities=["smell"]), "invalid_value", "session.output_modalities"),
        (
            updated(audio={"input": {"turn_detection": {"type": "psychic"}}}),
            "invalid_value",
            "session.audio.input.turn_detection.type",
        ),
        (
            updated(audio={"input": {"format": {"type": "audio/mp3"}}}),
            "invalid_value",
            "session.audio.input.format.type",
        ),
        (
            updated(audio={"output": {"format": {"type": "audio/pcm"}}}),
            "missing_required_parameter",
            "session.audio.output.format",
        ),
        (
            {"type": "input_audio_buffer.append", "audio": base64.b64encode(bytes((15 << 20) + 1)).decode()},
            "invalid_value",
            "audio",
        ),
        (created(type="message", role="user", content=[], after="nobody"), "invalid_value", "previous_item_id"),
        (created(type="function_call_output", call_id="nobody", output="1"), "invalid_tool_call_id", None),
        (
            created(type="message", role="assistant", content=[{"type": "input_text", "text": "x"}]),
            "invalid_value",
            "item.content",
        ),
    ],
)
def test_what_no_model_takes_is_an_error_that_names_it(message: dict[str, Any], code: str, param: str | None) -> None:
    [event] = told(message)
    assert event["type"] == "error"
    assert (event["error"]["code"], event["error"]["param"]) == (code, param)


def test_an_update_in_the_legacy_dialect_is_told_in_it() -> None:
    update = {
        "modalities": ["text"],
        "input_audio_format": "g711_ulaw",
        "temperature": 0.8,
        "max_response_output_tokens": 100,
        "instructions": "Be kind.",
    }
    [event] = told({"type": "session.update", "session": update}, legacy=True)
    assert event["type"] == "session.updated"
    for name in ("modalities", "input_audio_format", "max_response_output_tokens", "instructions"):
        assert event["session"][name] == update[name]
    [event] = told({"type": "session.update", "session": {"modalities": ["text", "audio"]}}, legacy=True)
    assert set(event["session"]["modalities"]) == {"text", "audio"}
    [event] = told({"type": "session.update", "session": {"output_audio_format": "mp3"}}, legacy=True)
    assert (event["type"], event["error"]["param"]) == ("error", "session.output_audio_format")


def test_the_voice_is_settled_once_something_was_said() -> None:
    model = ScriptedModel(Script(turns=(Turn(text="Hello."),)), name="c1", now=0.0, unix_now=0.0)
    model.receive(b'{"type": "response.create"}', 0.0)
    for step in range(1, 200):
        model.advance(step / 10)
    said = [json.loads(each) for each in model.outbox if not isinstance(each, Hangup)]
    item_id = next(event["item_id"] for event in said if event["type"].endswith("audio.delta"))
    model.outbox.clear()
    model.receive(json.dumps(updated(audio={"output": {"voice": "verse"}})).encode(), 20.0)
    cut = {"type": "conversation.item.truncate", "item_id": item_id, "content_index": 0, "audio_end_ms": -1}
    model.receive(json.dumps(cut).encode(), 20.0)
    voice, end = (json.loads(each)["error"] for each in model.outbox if not isinstance(each, Hangup))
    assert voice["code"] == "cannot_update_voice"
    assert (end["code"], end["param"]) == ("invalid_value", "audio_end_ms")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_model_that_heard_otherwise_echoes_otherwise(legacy: bool) -> None:
    asked = (
        {"input_audio_format": "g711_ulaw", "output_audio_format": "g711_ulaw"}
        if legacy
        else {"type": "realtime", **PHONE}
    )
    script = Script(faults=("echo_otherwise",))
    [event] = told({"type": "session.update", "session": asked}, legacy=legacy, script=script)
    shown = event["session"]
    kind = shown["output_audio_format"] if legacy else shown["audio"]["output"]["format"]["type"]
    assert kind == ("pcm16" if legacy else "audio/pcm")


def test_a_session_ends_when_its_time_is_up() -> None:
    model = ScriptedModel(Script(), name="c1", now=0.0, unix_now=0.0)
    model.outbox.clear()
    model.advance(model.deadline)
    error, end = model.outbox
    assert not isinstance(error, Hangup)
    assert json.loads(error)["error"]["code"] == "session_expired"
    assert isinstance(end, Hangup)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_model_that_writes_says_nothing_aloud(legacy: bool) -> None:
    model = ScriptedModel(
        Script(turns=(Turn(text="Good day to you."),)), name="c1", now=0.0, unix_now=0.0, legacy=legacy
    )
    session = {"modalities": ["text"]} if legacy else {"type": "realtime", "output_modalities": ["text"]}
    for message in ({"type": "session.update", "session": session}, {"type": "response.create"}):
        model.receive(json.dumps(message).encode(), 0.0)
    for step in range(1, 100):
        model.advance(step / 10)
    said = [json.loads(each) for each in model.outbox if not isinstance(each, Hangup)]
    wire = "response.text" if legacy else "response.output_text"
    assert "".join(event["delta"] for event in said if event["type"] == f"{wire}.delta") == "Good day to you."
    assert [event["text"] for event in said if event["type"] == f"{wire}.done"] == ["Good day to you."]
    assert not [event["type"] for event in said if "audio" in event["type"]]
    [done] = [event["response"] for event in said if event["type"] == "response.done"]
    [part] = done["output"][0]["content"]
    assert (part["type"], part["text"]) == ("text" if legacy else "output_text", "Good day to you.")
