"""The order of events: no alarm about what is legal, and none missed about what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentao_trio.realtime.protocol import decode_server_event
from agentao_trio.realtime.script import Script, Turn
from agentao_trio.realtime.sequence import SequenceCheck, Violation
from tests.unit.test_realtime_model import actions, play, turns


def check(events: list[dict[str, Any]]) -> list[Violation]:
    sequence = SequenceCheck()
    found = [each for event in events for each in sequence.check(decode_server_event(json.dumps(event)))]
    assert sequence.statistics().violations == len(found)
    return found


def part(response: str, item: str, index: int, deltas: int) -> list[dict[str, Any]]:
    about = {"response_id": response, "item_id": item, "output_index": 0, "content_index": index}
    shown = {"type": "audio", "transcript": ""}
    return [
        {"type": "response.content_part.added", **about, "part": shown},
        *({"type": "response.output_audio.delta", **about, "delta": "AAAA"} for _ in range(deltas)),
        {"type": "response.output_audio_transcript.delta", **about, "delta": "a"},
        {"type": "response.output_audio.done", **about},
        {"type": "response.output_audio_transcript.done", **about, "transcript": "a"},
        {"type": "response.content_part.done", **about, "part": shown},
    ]


def call(response: str, item: str) -> list[dict[str, Any]]:
    about = {"response_id": response, "item_id": item, "output_index": 0, "call_id": "c"}
    return [
        {"type": "response.function_call_arguments.delta", **about, "delta": "{}"},
        {"type": "response.function_call_arguments.done", **about, "arguments": "{}"},
    ]


def merge(draw: st.DrawFn, lanes: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    order = draw(st.permutations([number for number, lane in enumerate(lanes) for _ in lane]))
    rest = [list(lane) for lane in lanes]
    return [rest[number].pop(0) for number in order]


@st.composite
def legal(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Responses with items with parts, each level interleaved as it pleases."""
    responses = []
    for number in range(draw(st.integers(1, 3))):
        response, lanes = f"r{number}", []
        for index in range(draw(st.integers(0, 3))):
            item = f"{response}i{index}"
            shown = {"response_id": response, "output_index": index, "item": {"id": item, "type": "message"}}
            inner = [part(response, item, each, draw(st.integers(0, 2))) for each in range(draw(st.integers(0, 2)))]
            lanes.append(
                [
                    {"type": "response.output_item.added", **shown},
                    *(merge(draw, inner) or call(response, item)),
                    {"type": "response.output_item.done", **shown},
                ]
            )
        responses.append(
            [
                {"type": "response.created", "response": {"id": response}},
                *merge(draw, lanes),
                {"type": "response.done", "response": {"id": response, "status": "completed"}},
            ]
        )
    return [event | {"event_id": f"e{number}"} for number, event in enumerate(merge(draw, responses))]


@given(legal())
def test_no_legal_interleaving_raises_an_alarm(events: list[dict[str, Any]]) -> None:
    assert check(events) == []


@given(legal(), st.data())
def test_an_event_that_comes_twice_is_found(events: list[dict[str, Any]], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(events) - 1))
    place = data.draw(st.integers(index + 1, len(events)))
    found = check([*events[:place], events[index], *events[place:]])
    assert "comes twice" in {each.rule for each in found}


@given(legal(), st.data())
def test_an_event_that_is_missing_is_found(events: list[dict[str, Any]], data: st.DataObject) -> None:
    """All but deltas, which nothing counts, and the end of the last response, which may still come."""
    kinds = (".created", ".added", "output_item.done", "content_part.done")
    missing = data.draw(st.sampled_from([event for event in events if event["type"].endswith(kinds)]))
    rest = [event for event in events if event is not missing]
    assert check(rest)


@given(legal(), st.data())
def test_what_comes_after_its_end_is_found(events: list[dict[str, Any]], data: st.DataObject) -> None:
    deltas = [event for event in events if event["type"].endswith((".delta", ".done")) and "response_id" in event]
    if deltas:
        late = data.draw(st.sampled_from(deltas)) | {"event_id": "late"}
        assert {each.rule for each in check([*events, late])} & {"after its end", "ends twice"}


@given(st.lists(turns, max_size=4), st.lists(actions, max_size=12))
def test_the_scripted_model_raises_no_alarm(script: list[Turn], steps: list[tuple[str, int]]) -> None:
    assert check(play(Script(turns=tuple(script), truncates=True), steps)) == []


@pytest.mark.parametrize(
    ("fault", "rule"),
    [("duplicate", "comes twice"), ("late_delta", "after its end"), ("missing_item_done", "is still open")],
)
def test_faults_of_the_scripted_model_are_found(fault: str, rule: str) -> None:
    found = check(play(Script(turns=(Turn(text="Hello there.", fault=fault),)), [("create", 1)]))
    assert rule in {each.rule for each in found}


def test_what_an_alarm_says() -> None:
    event = {"type": "response.output_text.delta", "event_id": "e", "response_id": "r", "item_id": "i", "delta": "x"}
    assert [(each.about, each.rule) for each in check([event])] == [
        ("response r", "before its beginning"),
        ("item i", "before its beginning"),
        ("part 0 of item i", "before its beginning"),
    ]


def test_an_event_without_an_id_is_found_and_what_nobody_knows_is_left_alone() -> None:
    created = {"type": "response.created", "event_id": "", "response": {"id": "r"}}
    assert [(each.about, each.rule) for each in check([created, {"type": "weather.changed"}])] == [
        ("the event", "has no id")
    ]
    # Keys come with no id of their own.
    assert check([{"type": "input_audio_buffer.dtmf_event_received", "event": "5", "received_at": 1}]) == []


def test_what_is_remembered_is_bounded() -> None:
    checker = SequenceCheck()
    for number in range(20_000):
        event = {"type": "response.created", "event_id": f"e{number}", "response": {"id": f"r{number}"}}
        assert checker.check(decode_server_event(json.dumps(event))) == ()
    assert checker.statistics().things < 20_000
