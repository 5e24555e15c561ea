"""Conversation and accumulators against models too naive to be wrong, over whatever a server may send."""

from __future__ import annotations

import json
import time
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from agentao_trio.realtime.accumulators import Accumulators
from agentao_trio.realtime.conversation import Conversation, TranscriptDelta
from agentao_trio.realtime.names import LEGACY_NAMES
from agentao_trio.realtime.protocol import (
    PartEvent,
    ResponseOutputTextDelta,
    ResponseOutputTextDone,
    decode_server_event,
)

KINDS = {"output_audio_transcript": "transcript", "output_text": "text"}


@attrs.frozen
class Spoken:
    """One item of a response: how it is said, in which pieces, and what is done to it."""

    kind: str
    pieces: list[str]
    truncated: bool
    deleted: bool


words = st.text("ab é", max_size=4)
spoken = st.builds(Spoken, st.sampled_from(sorted(KINDS)), st.lists(words, max_size=4), st.booleans(), st.booleans())


def response_events(number: int, items: list[Spoken], status: str) -> list[dict[str, Any]]:
    """A response with its items, in the order of the documentation."""
    response_id = f"r{number}"
    events: list[dict[str, Any]] = [{"type": "response.created", "response": {"id": response_id}}]
    for index, each in enumerate(items):
        item_id = f"r{number}i{index}"
        item = {"id": item_id, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        about = {"response_id": response_id, "item_id": item_id, "output_index": index, "content_index": 0}
        events += [
            {"type": "response.output_item.added", "response_id": response_id, "output_index": index, "item": item},
            {"type": "conversation.item.added", "item": item},
            *({"type": f"response.{each.kind}.delta", **about, "delta": piece} for piece in each.pieces),
            {"type": f"response.{each.kind}.done", **about, KINDS[each.kind]: "".join(each.pieces)},
            {"type": "conversation.item.done", "item": item | {"status": "completed"}},
        ]
        if each.truncated:
            events.append({"type": "conversation.item.truncated", "item_id": item_id, "audio_end_ms": 20 * index})
        if each.deleted:
            events.append({"type": "conversation.item.deleted", "item_id": item_id})
    return [*events, {"type": "response.done", "response": {"id": response_id, "status": status}}]


def caller_events(number: int, said: list[str]) -> list[dict[str, Any]]:
    item_id, head = f"u{number}", "conversation.item.input_audio_transcription"
    item = {"id": item_id, "type": "message", "role": "user", "content": [{"type": "input_audio"}]}
    return [
        {"type": "conversation.item.added", "item": item},
        *({"type": f"{head}.delta", "item_id": item_id, "content_index": 0, "delta": piece} for piece in said),
        {"type": f"{head}.completed", "item_id": item_id, "content_index": 0, "transcript": "".join(said)},
    ]


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[dict[str, Any]], dict[str, tuple[str, bool]]]:
    """Responses and callers' turns, interleaved as they please, and what is true at the end, by item."""
    replies = draw(
        st.lists(st.tuples(st.lists(spoken, max_size=3), st.sampled_from(["completed", "cancelled"])), max_size=3)
    )
    turns = draw(st.lists(st.lists(words, max_size=3), max_size=2))
    lanes = [response_events(number, *reply) for number, reply in enumerate(replies)]
    lanes += [caller_events(number, said) for number, said in enumerate(turns)]
    truth = {
        f"r{number}i{index}": ("".join(each.pieces), each.truncated)
        for number, (items, _) in enumerate(replies)
        for index, each in enumerate(items)
        if not each.deleted
    }
    truth |= {f"u{number}": ("".join(said), False) for number, said in enumerate(turns)}
    order = draw(st.permutations([number for number, lane in enumerate(lanes) for _ in lane]))
    merged = [lanes[number].pop(0) for number in order]
    return [event | {"event_id": f"e{number}"} for number, event in enumerate(merged)], truth


def fold(events: list[dict[str, Any]]) -> Conversation:
    conversation = Conversation()
    for event in events:
        conversation.apply(decode_server_event(json.dumps(event)))
    return conversation


def known(conversation: Conversation) -> dict[str, tuple[str, bool]]:
    return {each.id: (each.text, each.interrupted) for each in conversation.items}


@given(streams())
def test_any_interleaving_comes_to_what_was_said(
    stream: tuple[list[dict[str, Any]], dict[str, tuple[str, bool]]],
) -> None:
    events, truth = stream
    conversation = fold(events)
    assert known(conversation) == truth
    assert conversation.active_responses == ()
    assert conversation.statistics().accumulators.parts == 0
    assert conversation.statistics().accumulators.differing == 0


@given(streams(), st.data())
def test_events_that_come_twice_change_nothing(
    stream: tuple[list[dict[str, Any]], dict[str, tuple[str, bool]]], data: st.DataObject
) -> None:
    events, truth = stream
    if not events:
        return
    again = data.draw(st.lists(st.integers(0, len(events) - 1), max_size=5))
    for index in again:
        place = data.draw(st.integers(index + 1, len(events)))
        events = [*events[:place], events[index], *events[place:]]
    conversation = fold(events)
    assert known(conversation) == truth
    assert conversation.statistics().duplicates == len(again)


@given(streams(), st.data())
def test_dropped_and_late_events_break_nothing_and_bring_nobody_back(
    stream: tuple[list[dict[str, Any]], dict[str, tuple[str, bool]]], data: st.DataObject
) -> None:
    events, _ = stream
    kept = [event for event in events if data.draw(st.integers(0, 4))]
    late = [data.draw(st.sampled_from(events)) for _ in range(3 if events else 0)]
    conversation = fold(kept)
    over = {each["response"]["id"] for each in kept if each["type"] == "response.done"}
    gone = {each["item_id"] for each in kept if each["type"] == "conversation.item.deleted"}
    for event in late:
        conversation.apply(decode_server_event(json.dumps(event | {"event_id": "late"})))
        assert not over & {response.id for response in conversation.active_responses}
        assert not gone & {item.id for item in conversation.items}
    assert fold(kept).items == fold(kept).items  # nothing but the events decides


@given(streams())
def test_reading_between_events_changes_nothing(
    stream: tuple[list[dict[str, Any]], dict[str, tuple[str, bool]]],
) -> None:
    events, _ = stream
    read, said = Conversation(), dict[str, str]()
    for event in events:
        for change in read.apply(decode_server_event(json.dumps(event))):
            if isinstance(change, TranscriptDelta):
                assert change.offset == len(said.get(change.item_id, ""))
                said[change.item_id] = said.get(change.item_id, "") + change.delta
                item = read.item(change.item_id)
                assert item is not None
                assert item.text == said[change.item_id]
    assert read.items == fold(events).items


class Naive:
    """What a stream comes to, event by event, with every word kept by itself."""

    def __init__(self) -> None:
        self.words: dict[str, list[str]] = {}
        self.truncated: set[str] = set()
        self.final: set[str] = set()
        self.deleted: set[str] = set()
        self.over: set[str] = set()
        self.seen: set[str] = set()

    def apply(self, event: dict[str, Any]) -> None:
        if event["event_id"] in self.seen:
            return
        self.seen.add(event["event_id"])
        name, item_id = event["type"], event.get("item_id", "")
        if "item" in event:
            self.know(event["item"]["id"])
        elif name == "response.done":
            self.over.add(event["response"]["id"])
        elif name == "conversation.item.deleted":
            self.deleted.add(item_id)
            self.words.pop(item_id, None)
        elif name == "conversation.item.truncated":
            self.truncated |= {item_id} & set(self.words)
        elif "transcription" in name or (item_id in self.words and event.get("response_id") not in self.over):
            self.know(item_id)  # a caller's words may come before their item
            self.say(item_id, event, KINDS.get(name.split(".")[1], "transcript"))

    def know(self, item_id: str) -> None:
        if item_id not in self.deleted:
            self.words.setdefault(item_id, [])

    def say(self, item_id: str, event: dict[str, Any], final: str) -> None:
        if "delta" not in event:
            self.words[item_id] = [event[final]]
            self.final.add(item_id)
        elif item_id not in self.final:
            self.words[item_id].append(event["delta"])

    def known(self) -> dict[str, tuple[str, bool]]:
        return {item_id: ("".join(words), item_id in self.truncated) for item_id, words in self.words.items()}


@given(streams(), st.data())
def test_whatever_is_lost_late_repeated_or_in_the_other_dialect_it_comes_to_the_same_as_word_by_word(
    stream: tuple[list[dict[str, Any]], dict[str, tuple[str, bool]]], data: st.DataObject
) -> None:
    events: list[dict[str, Any]] = []
    for event in stream[0]:
        fate = data.draw(st.sampled_from(["kept", "kept", "kept", "lost", "late", "repeated"]))
        if fate != "late":
            events += [event] * (fate != "lost")
        if fate in ("late", "repeated"):
            events.append({"later": data.draw(st.integers(1, 30)), **event})
    events = [
        event
        for _, event in sorted(
            ((index + event.get("later", 0), event) for index, event in enumerate(events)), key=lambda each: each[0]
        )
    ]
    legacy = {each["event_id"] for each in stream[0] if data.draw(st.booleans())}
    conversation, naive = Conversation(), Naive()
    for event in events:
        event.pop("later", None)
        spoken = dict(event)
        if event["event_id"] in legacy:
            spoken["type"] = LEGACY_NAMES.get(event["type"], event["type"])
        conversation.apply(decode_server_event(json.dumps(spoken)))
        naive.apply(event)
    assert known(conversation) == naive.known()
    assert not naive.over & {response.id for response in conversation.active_responses}


@given(st.lists(words, min_size=1, max_size=30), st.integers(0, 30))
def test_the_callers_words_are_told_piece_by_piece_however_they_are_read(said: list[str], read_at: int) -> None:
    conversation, told = Conversation(), ""
    events = caller_events(0, said)[:-1]
    for number, event in enumerate(events):
        for change in conversation.apply(decode_server_event(json.dumps(event | {"event_id": f"e{number}"}))):
            if isinstance(change, TranscriptDelta):
                assert change.offset == len(told)
                told += change.delta
        if number == read_at:
            item = conversation.item("u0")
            assert item is not None
            assert item.text == told
    assert conversation.transcript() == ((("user", "".join(said)),) if told else ())


def test_the_callers_words_cost_the_same_however_many_came_before() -> None:
    """Put together anew for each, these would take twenty times as long."""
    conversation = Conversation()
    began = time.process_time()
    for number in range(40_000):
        delta = {"item_id": "u", "content_index": 0, "delta": "one more word and another"}
        head = {"type": "conversation.item.input_audio_transcription.delta", "event_id": f"e{number}"}
        conversation.apply(decode_server_event(json.dumps(head | delta)))
    assert time.process_time() - began < 4
    [item] = conversation.items
    assert len(item.text) == 25 * 40_000


# -- accumulators -----------------------------------------------------------------------------------------------------

keys = st.fixed_dictionaries(
    {"response_id": st.sampled_from("rs"), "item_id": st.sampled_from("ij"), "content_index": st.integers(0, 1)}
)
part_events = st.builds(lambda key, delta: ResponseOutputTextDelta(**key, delta=delta), keys, words) | st.builds(
    lambda key, text: ResponseOutputTextDone(**key, text=text), keys, words
)


@given(st.lists(part_events, max_size=40))
def test_words_are_put_together_where_they_belong(events: list[PartEvent]) -> None:
    accumulators = Accumulators()
    said: dict[tuple[str, str, int], str] = {}
    complete: set[tuple[str, str, int]] = set()
    late = differing = 0
    for event in events:
        key = (event.response_id, event.item_id, event.content_index)
        told = accumulators.apply(event)
        if key in complete:
            late += 1
            assert told is None
            continue
        if isinstance(event, ResponseOutputTextDone):
            differing += key in said and said[key] != event.text
            said[key] = event.text
            complete.add(key)
        elif isinstance(event, ResponseOutputTextDelta):
            said[key] = said.get(key, "") + event.delta
        assert told is not None
        assert (told.characters, told.complete) == (len(said[key]), key in complete)
    assert {key: accumulators.text(key) for key in said} == said
    statistics = accumulators.statistics()
    assert (statistics.late, statistics.differing, statistics.parts) == (late, differing, len(said))
    assert statistics.bytes_held == sum(len(text.encode()) for text in said.values())


@given(st.lists(part_events, max_size=40), st.integers(0, 12), st.integers(1, 4))
def test_what_is_held_is_bounded_in_bytes_and_in_parts(events: list[PartEvent], bytes_: int, parts: int) -> None:
    accumulators = Accumulators(most_bytes=bytes_, most_parts=parts)
    for event in events:
        accumulators.apply(event)
        statistics = accumulators.statistics()
        assert statistics.bytes_held <= bytes_
        assert statistics.parts <= parts
    for response_id in "rs":
        accumulators.forget(response_id)
    assert (accumulators.statistics().parts, accumulators.statistics().bytes_held) == (0, 0)


def test_the_end_of_a_response_makes_room_for_its_parts() -> None:
    accumulators = Accumulators()
    delta = {
        "type": "response.output_text.delta",
        "response_id": "r",
        "item_id": "i",
        "output_index": 0,
        "content_index": 0,
        "delta": "Good day.",
    }
    audio = delta | {"type": "response.output_audio.delta", "delta": "AAAA"}
    done = {"type": "response.done", "response": {"id": "r"}}
    arguments = delta | {"type": "response.function_call_arguments.done", "arguments": "{}", "item_id": "f"}
    told = [accumulators.apply(decode_server_event(json.dumps(each)).event) for each in (delta, audio, arguments, done)]
    assert [(each.characters, each.audio_bytes, each.complete) if each else None for each in told] == [
        (9, 0, False),
        (9, 3, False),
        (2, 0, True),
        None,
    ]
    assert accumulators.text(("r", "i", 0)) is None
    assert accumulators.part(("r", "f", 0)) is None
