"""The journal: bounded, without audio, and replayed to one result."""

from __future__ import annotations

import base64
import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentao_trio.errors import RealtimeError
from agentao_trio.realtime.conversation import Conversation
from agentao_trio.realtime.journal import Entry, Journal, read_journal, replay
from agentao_trio.realtime.protocol import decode_server_event
from agentao_trio.realtime.script import Script
from tests.unit.test_realtime_model import actions, play, turns

AUDIO = base64.b64encode(bytes(range(200))).decode()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def note(journal: Journal, event: dict[str, Any]) -> None:
    journal.received(decode_server_event(json.dumps(event)))


@given(st.lists(turns, max_size=3), st.lists(actions, max_size=8))
def test_a_log_is_exported_read_and_replayed_to_one_result(script: list[Any], steps: list[tuple[str, int]]) -> None:
    clock = Clock()
    journal, live = Journal(clock=clock, most_bytes=1 << 30), Conversation()
    for event in play(Script(turns=tuple(script)), steps):
        clock.now += 0.01
        note(journal, event)
        live.apply(decode_server_event(json.dumps(event)))
    entries = read_journal(journal.export())
    assert [attrs.evolve(each, at=0) for each in entries] == [attrs.evolve(each, at=0) for each in journal.entries]
    results = {replay(source)[1] for source in (entries, entries, read_journal(journal.export()))}
    assert len(results) == 1
    assert replay(entries)[0].items == live.items


def test_audio_is_left_out_in_both_directions_and_within_items() -> None:
    journal = Journal(clock=Clock())
    note(journal, {"type": "response.audio.delta", "event_id": "e", "delta": AUDIO})
    journal.sent(
        "input_audio_buffer.append", json.dumps({"type": "input_audio_buffer.append", "audio": AUDIO}).encode()
    )
    part = {"type": "input_audio", "audio": AUDIO, "transcript": "kept"}
    note(journal, {"type": "conversation.item.retrieved", "item": {"id": "i", "type": "message", "content": [part]}})
    assert not [each for each in journal.entries if AUDIO.encode() in each.raw]
    assert b"kept" in journal.entries[-1].raw
    assert json.loads(journal.entries[0].raw)["delta"] == ""


SECRETS = [
    ("session.update", {"session": {"tools": [{"type": "mcp", "authorization": "Bearer 51", "headers": {"x": "51"}}]}}),
    ("session.created", {"session": {"client_secret": {"value": "ek_51"}, "OPENAI_API_KEY": "51"}}),
    ("error", {"error": {"message": "Incorrect key: a-long-key-51"}}),
]


@pytest.mark.parametrize(("wire_type", "fields"), SECRETS)
def test_secrets_are_struck_out_wherever_they_stand(wire_type: str, fields: dict[str, Any]) -> None:
    journal = Journal(clock=Clock(), secrets=["a-long-key-51"])
    journal.sent(wire_type, json.dumps({"type": wire_type, **fields}).encode())
    note(journal, {"type": wire_type, **fields})
    exported = "".join(journal.export())
    assert "51" not in exported
    assert exported.count("[redacted]") >= 2


words_of_people = st.text("SECRET", min_size=1, max_size=9)


@given(words_of_people)
def test_without_words_only_the_structure_is_kept(words: str) -> None:
    """Of every field that may hold words, also of events that nobody knows."""
    journal = Journal(clock=Clock(), words="drop")
    said = f"<{words}>"
    item = {"id": "i", "type": "message", "role": "user", "content": [{"type": "input_text", "text": said}]}
    call = {"id": "c", "type": "function_call", "name": "look_up", "arguments": f'{{"of": "{said}"}}', "output": said}
    head = {"event_id": "e", "response_id": "r", "item_id": "i"}
    note(journal, {"type": "response.output_audio_transcript.delta", **head, "delta": said})
    note(journal, {"type": "response.output_item.done", **head, "item": call})
    note(journal, {"type": "conversation.item.input_audio_transcription.completed", **head, "transcript": said})
    note(journal, {"type": "something.new", "heard": [said, {"deep": said}]})
    note(journal, {"type": "error", "error": {"code": "invalid_value", "message": said}})
    journal.received(decode_server_event(said))
    journal.sent("conversation.item.create", json.dumps({"type": "conversation.item.create", "item": item}).encode())
    journal.sent("session.update", json.dumps({"type": "session.update", "session": {"instructions": said}}).encode())
    exported = "".join(journal.export())
    assert said not in exported
    assert "look_up" in exported
    assert "invalid_value" in exported
    assert len(journal.entries) == 8
    conversation, _ = replay(read_journal(journal.export()))
    assert conversation.item("c") is not None, "and is replayed"


@given(st.lists(st.integers(0, 300), max_size=40))
def test_it_is_bounded_in_bytes_and_the_figures_go_on(sizes: list[int]) -> None:
    journal = Journal(clock=Clock(), most_bytes=1000)
    for size in sizes:
        journal.sent("x", b"." * size)
    figures = journal.statistics()
    assert figures.bytes_held <= 1000
    assert figures.entries + figures.dropped == figures.sent == figures.by_type.get("x", 0) == len(sizes)
    assert [len(each.raw) for each in journal.entries] == sizes[len(sizes) - figures.entries :]


def test_a_peer_that_invents_types_fills_no_memory() -> None:
    journal = Journal(clock=Clock())
    for number in range(1000):
        note(journal, {"type": f"made.up.{number}"})
    assert len(journal.statistics().by_type) <= 201
    assert sum(journal.statistics().by_type.values()) == 1000


def test_each_response_has_its_own_time() -> None:
    clock = Clock()
    journal = Journal(clock=clock)
    for seconds, event in (
        (0.0, {"type": "input_audio_buffer.speech_stopped"}),
        (0.2, {"type": "response.created", "response": {"id": "a"}}),
        (0.3, {"type": "response.created", "response": {"id": "b"}}),
        (0.5, {"type": "response.output_audio.delta", "response_id": "a", "delta": "AAAA"}),
        (0.7, {"type": "response.output_audio.delta", "response_id": "a", "delta": "AAAA"}),
        (1.2, {"type": "response.done", "response": {"id": "a"}}),
    ):
        clock.now = 100.0 + seconds
        note(journal, event)
    figures = journal.statistics()
    assert figures.speech_to_audio.count == figures.created_to_audio.count == figures.created_to_done.count == 1
    assert figures.speech_to_audio.p50 == pytest.approx(0.5, rel=0.01)
    assert figures.created_to_audio.p50 == pytest.approx(0.3, rel=0.01)
    assert figures.created_to_done.p50 == pytest.approx(1.0, rel=0.01)


def test_what_is_exported_may_be_redacted() -> None:
    journal = Journal(clock=Clock())
    journal.sent("secret", b"a key")
    journal.sent("shown", b"a name")

    def redact(entry: Entry) -> Entry | None:
        return None if entry.type == "secret" else attrs.evolve(entry, raw=b"***")

    assert [each.raw for each in read_journal(journal.export(redact))] == [b"***"]
    assert len(journal.entries) == 2


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "empty"),
        (["{"], "line 1"),
        (['{"version": 2}'], "version 2"),
        (['{"version": 1}', "[]"], "line 2"),
        (['{"version": 1}', '{"at": 0, "direction": "up", "type": "x", "raw": ""}'], "line 2 has no direction"),
    ],
)
def test_a_log_that_cannot_be_read_says_where(lines: list[str], words: str) -> None:
    with pytest.raises(RealtimeError, match=words):
        read_journal(lines)


@given(st.binary(max_size=50))
def test_whatever_came_is_exported_byte_for_byte(raw: bytes) -> None:
    journal = Journal(clock=Clock())
    journal.received(decode_server_event(raw))
    assert [each.raw for each in read_journal(journal.export())] == [each.raw for each in journal.entries] == [raw]
