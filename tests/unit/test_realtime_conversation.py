"""What the events of a model add up to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentao_trio.realtime.conversation import Conversation, ItemChanged, TranscriptFailed, TranscriptFinal
from agentao_trio.realtime.protocol import decode_server_event


def fold(*events: dict[str, Any]) -> Conversation:
    conversation = Conversation()
    for event in events:
        conversation.apply(decode_server_event(json.dumps(event)))
    return conversation


def added(item_id: str, *after: str | None, role: str = "user", content: Any = ()) -> dict[str, Any]:
    item = {"id": item_id, "type": "message", "role": role, "status": "in_progress", "content": content}
    return {"type": "conversation.item.added", "item": item} | ({"previous_item_id": after[0]} if after else {})


def spoken(name: str, item_id: str, **fields: Any) -> dict[str, Any]:
    return {"type": name, "response_id": "r", "item_id": item_id, "output_index": 0, "content_index": 0, **fields}


def ids(conversation: Conversation) -> list[str]:
    return [item.id for item in conversation.items]


def test_items_stand_behind_their_predecessors_in_whatever_order_they_come() -> None:
    assert ids(fold(added("c", "b"), added("b", "a"), added("a", None))) == ["a", "b", "c"]


def test_an_item_put_in_between_stands_in_between() -> None:
    assert ids(fold(added("a", None), added("b", "a"), added("x", "a"))) == ["a", "x", "b"]


def test_an_item_told_of_again_neither_doubles_nor_moves() -> None:
    assert ids(fold(added("a", None), added("b", "a"), added("x", "a"), added("b", "a"))) == ["a", "x", "b"]


def test_a_deleted_item_stays_deleted_and_those_behind_it_stay_where_they_are() -> None:
    gone = {"type": "conversation.item.deleted", "item_id": "b"}
    conversation = fold(
        added("a", None), added("b", "a"), added("c", "b"), gone, added("b", "a"), gone, added("d", "c")
    )
    assert ids(conversation) == ["a", "c", "d"]
    assert conversation.statistics().late == 1


def test_a_circle_of_predecessors_loses_nobody() -> None:
    assert sorted(ids(fold(added("a", "b"), added("b", "a")))) == ["a", "b"]


@pytest.mark.parametrize("dialect", ["response.audio_transcript", "response.output_audio_transcript"])
def test_what_was_said_is_the_transcript_in_either_dialect(dialect: str) -> None:
    conversation = fold(
        {"type": "response.created", "response": {"id": "r"}},
        added("a", None, role="assistant"),
        spoken(f"{dialect}.delta", "a", delta="Good "),
        spoken(f"{dialect}.delta", "a", delta="day"),
        spoken(f"{dialect}.done", "a", transcript="Good day."),
    )
    assert conversation.transcript() == (("assistant", "Good day."),)
    assert conversation.items[0].item.content is not None
    assert conversation.items[0].item.content[0].type == "output_audio"


def test_a_truncated_item_keeps_the_milliseconds_that_were_heard() -> None:
    truncated = {"type": "conversation.item.truncated", "item_id": "a", "content_index": 0, "audio_end_ms": 1500}
    item = fold(added("a", None, role="assistant"), truncated).items[0]
    assert (item.heard_ms, item.interrupted) == (1500, True)


def test_the_callers_words_may_come_after_the_reply_and_before_their_item() -> None:
    words = {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": "a",
        "content_index": 0,
        "transcript": "Hello?",
    }
    reply = added("b", "a", role="assistant", content=[{"type": "output_text", "text": "Yes."}])
    user = added("a", None, content=[{"type": "input_audio"}])
    expected = (("user", "Hello?"), ("assistant", "Yes."))
    assert fold(user, reply, words).transcript() == expected
    assert fold(words, user, reply).transcript() == expected


def test_an_item_without_content_is_an_item() -> None:
    assert fold(added("a", None, content=None)).transcript() == ()


def test_the_parts_of_an_item_keep_their_places() -> None:
    conversation = fold(
        {"type": "response.created", "response": {"id": "r"}},
        added("a", None, role="assistant"),
        spoken("response.output_text.delta", "a", delta="second") | {"content_index": 1},
        spoken("response.output_text.delta", "a", delta="first "),
    )
    assert conversation.transcript() == (("assistant", "first second"),)


def test_deltas_after_the_end_of_their_response_change_nothing() -> None:
    conversation = fold(
        {"type": "response.created", "response": {"id": "r"}},
        added("a", None, role="assistant"),
        {"type": "response.done", "response": {"id": "r", "status": "cancelled"}},
        spoken("response.output_text.delta", "a", delta="late"),
    )
    assert conversation.transcript() == ()
    assert conversation.active_response is None
    assert conversation.statistics().late == 1


def test_changes_say_what_is_new() -> None:
    conversation = fold(added("a", None), {"type": "response.created", "response": {"id": "r"}})
    done = spoken("response.output_text.done", "a", text="Hi.")
    (change,) = conversation.apply(decode_server_event(json.dumps(done)))
    assert change == TranscriptFinal(item_id="a", content_index=0, role="user", text="Hi.")
    truncated = {"type": "conversation.item.truncated", "item_id": "a", "content_index": 0, "audio_end_ms": 9}
    assert [type(each) for each in conversation.apply(decode_server_event(json.dumps(truncated)))] == [ItemChanged]


def test_the_oldest_items_make_room() -> None:
    conversation = Conversation(most_items=2)
    for event in (added("a", None), added("b", "a"), added("c", "b")):
        conversation.apply(decode_server_event(json.dumps(event)))
    assert ids(conversation) == ["b", "c"]
    assert conversation.statistics().items_dropped == 1


FAILED = {
    "type": "conversation.item.input_audio_transcription.failed",
    "item_id": "a",
    "content_index": 0,
    "error": {"message": "too noisy"},
}
TOLD = {
    "type": "conversation.item.input_audio_transcription.completed",
    "item_id": "a",
    "content_index": 0,
    "transcript": "Hello?",
}


def changes(conversation: Conversation, event: dict[str, Any]) -> list[str]:
    """The names of the changes that one more event makes."""
    return [type(each).__name__ for each in conversation.apply(decode_server_event(json.dumps(event)))]


def test_words_that_could_not_be_made_out_are_told_as_such() -> None:
    conversation = fold(added("a", None, content=[{"type": "input_audio"}]))
    [failed] = conversation.apply(decode_server_event(json.dumps(FAILED)))
    assert failed == TranscriptFailed(item_id="a", content_index=0, message="too noisy")
    assert conversation.items[0].transcription_failed


@pytest.mark.parametrize("event", [FAILED, TOLD])
def test_the_words_of_a_deleted_item_come_too_late(event: dict[str, Any]) -> None:
    conversation = fold(added("a", None), {"type": "conversation.item.deleted", "item_id": "a"})
    assert changes(conversation, event) == []
    assert conversation.statistics().late == 1


@pytest.mark.parametrize("index", [-1, 256, 10**9])
def test_a_part_that_no_item_has_room_for_is_left_out(index: int) -> None:
    conversation = fold(
        {"type": "response.created", "response": {"id": "r"}}, added("a", None, role="assistant", content=[])
    )
    for event in (TOLD, spoken("response.output_text.delta", "a", delta="far away")):
        assert changes(conversation, event | {"content_index": index}) == []
    assert conversation.transcript() == ()


def test_an_item_that_was_asked_for_is_put_in_place() -> None:
    retrieved = {**added("a", role="user", content=[{"type": "input_text", "text": "Hello?"}])}
    conversation = fold(retrieved | {"type": "conversation.item.retrieved"})
    assert conversation.transcript() == (("user", "Hello?"),)


def test_an_item_without_an_id_is_nobodys() -> None:
    assert ids(fold(added(""), added("a", None))) == ["a"]


def test_what_is_told_twice_changes_nothing_the_second_time() -> None:
    truncated = {"type": "conversation.item.truncated", "item_id": "a", "content_index": 0, "audio_end_ms": 1500}
    begun = {"type": "response.created", "response": {"id": "r"}}
    call = {"id": "f", "type": "function_call", "status": "in_progress"}
    arguments = {
        "type": "response.function_call_arguments.done",
        "response_id": "r",
        "item_id": "f",
        "output_index": 0,
        "call_id": "c",
        "name": "look_up",
        "arguments": "{}",
    }
    conversation = fold(added("a", None, role="assistant"), begun, {"type": "conversation.item.added", "item": call})
    for event in (truncated, arguments):
        assert changes(conversation, event) == ["ItemChanged"]
        assert changes(conversation, event) == []
    assert changes(conversation, begun) == []


def test_an_item_that_is_done_needs_no_type_to_be_told_again() -> None:
    conversation = fold(added("a", None), {"type": "response.created", "response": {"id": "r"}})
    changes(conversation, {"type": "conversation.item.done", "item": {"id": "a", "status": "completed"}})
    [item] = conversation.items
    assert (item.item.type, item.item.status) == ("message", "completed")


def test_a_response_tells_of_the_items_that_are_there_and_brings_no_others() -> None:
    output = [{"id": each, "type": "message", "role": "assistant", "status": "completed"} for each in ("a", "gone")]
    conversation = fold(
        {"type": "response.created", "response": {"id": "r"}},
        added("a", None, role="assistant"),
        {"type": "response.done", "response": {"id": "r", "status": "completed", "output": output}},
    )
    assert [(item.id, item.item.status) for item in conversation.items] == [("a", "completed")]


def test_the_places_of_thousands_of_deleted_items_are_forgotten_and_nobody_moves() -> None:
    deleted = [{"type": "conversation.item.deleted", "item_id": f"x{number}"} for number in range(4100)]
    chain = [added("x0", None), *(added(f"x{number}", f"x{number - 1}") for number in range(1, 4100))]
    conversation = fold(*chain, added("last", "x4099"), *deleted, added("next", "last"))
    assert ids(conversation) == ["last", "next"]
