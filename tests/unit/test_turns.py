"""What outlives an event of a model: turns until their records are due, and items until a server has them."""

from __future__ import annotations

import json
from collections import Counter

from agentao_trio.realtime.conversation import Conversation
from agentao_trio.realtime.protocol import (
    ConversationItemCreate,
    ConversationItemDelete,
    ErrorEvent,
    ResponseCancel,
    decode_server_event,
)
from agentao_trio.realtime.replay import Replay, Unconfirmed
from agentao_trio.realtime.turns import Turns


def test_a_response_that_nobody_heard_of_is_nobodys_turn() -> None:
    turns = Turns()
    assert turns.cut("r", None, silence_ms=20.0, underruns=0) == []
    assert turns.ended("r", "completed", 0) == []
    assert turns.active == []


def test_a_response_that_begins_twice_is_one() -> None:
    turns = Turns()
    turns.began("r")
    turns.began("r")
    assert turns.active == ["r"]
    assert len(turns.ended("r", "completed", 0)) == 1
    assert turns.active == []


def test_of_many_responses_the_newest_are_known() -> None:
    turns = Turns()
    for number in range(100):
        turns.began(f"r{number}")
    assert turns.active == [f"r{number}" for number in range(36, 100)]


def test_of_many_unconfirmed_items_the_newest_are_told_again() -> None:
    unconfirmed = Unconfirmed()
    for number in range(300):
        unconfirmed.sent(f"e{number}", ConversationItemDelete(item_id=f"i{number}"))
    unconfirmed.sent("e", ResponseCancel())
    assert [event.item_id for event in unconfirmed.events if isinstance(event, ConversationItemDelete)] == [
        f"i{number}" for number in range(44, 300)
    ]


def test_an_item_that_the_new_connection_refuses_is_left_behind_and_nobody_is_told() -> None:
    counts: Counter[str] = Counter()
    replay = Replay(counts)
    conversation = Conversation()
    item = {"id": "i", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello?"}]}
    added = decode_server_event(json.dumps({"type": "conversation.item.added", "item": item}))
    conversation.apply(added)
    [create] = replay.begin(conversation, lambda kind: f"{kind}_1")
    assert isinstance(create, ConversationItemCreate)
    assert replay.pending
    refused = decode_server_event(json.dumps({"type": "error", "error": {"code": "no", "event_id": "event_1"}})).event
    assert isinstance(refused, ErrorEvent)
    assert replay.is_answer(refused)
    assert not replay.is_answer(refused)
    assert (replay.pending, counts) == (False, {"items_left_behind": 1})
