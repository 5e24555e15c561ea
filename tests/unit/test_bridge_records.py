"""Transcripts and turns as data: what is told of them, and when, in whatever order things happen."""

from __future__ import annotations

from typing import Any

from agentao_trio.realtime.playout import AudioPart
from agentao_trio.realtime.transcripts import Transcripts
from agentao_trio.realtime.turns import Turns

PART = AudioPart("item_1")


def told(data: dict[str, Any] | None) -> tuple[Any, ...] | None:
    return None if data is None else (data["order"], data["phase"], data["text"], data.get("interrupted"))


def test_words_that_are_spoken_are_final_when_they_were_heard() -> None:
    words = Transcripts()
    words.speaking("a")
    more = words.delta("a", "assistant", "Good")
    assert more is not None
    assert told(more()) == (1, "delta", "Good", None)
    assert words.complete("a", "assistant", "Good day.") is None
    assert told(words.heard("a")) == (1, "final", "Good day.", None)
    assert words.heard("a") is words.complete("a", "assistant", "x") is words.delta("a", "assistant", "y") is None


def test_words_that_are_heard_before_they_are_complete() -> None:
    words = Transcripts()
    words.speaking("a")
    words.delta("a", "assistant", "Good")
    assert words.heard("a") is None
    assert told(words.complete("a", "assistant")) == (1, "final", "Good", None)


def test_an_interruption_is_final() -> None:
    words = Transcripts()
    words.speaking("a")
    words.delta("a", "assistant", "Good")
    assert told(words.cut("a", "assistant", 300)) == (1, "final", "Good", True)
    assert words.delta("a", "assistant", " day") is words.complete("a", "assistant", "Good day") is None
    assert words.cut("b", "assistant", 0) is None, "nothing was said or heard"


def test_the_order_is_that_in_which_items_were_mentioned() -> None:
    words = Transcripts()
    words.mention("caller")
    words.delta("model", "assistant", "Yes?")
    assert told(words.complete("caller", "user", "Hello")) == (1, "final", "Hello", None)
    assert [told(each) for each in words.unfinished()] == [(2, "final", "Yes?", True)]
    assert words.unfinished() == []


def test_more_words_are_told_with_their_place_and_no_more_than_are_kept() -> None:
    words, said = Transcripts(), ""
    for piece in ("so ", "and on " * 14_285, "much more"):
        more = words.delta("a", "user", piece)
        assert more is not None
        data = more()
        assert data["offset"] == len(said)
        said += data["delta"]
        assert data["text"] == said
    assert len(said) == 100_000


def test_a_turn_is_over_when_the_server_and_the_audio_are() -> None:
    for server_first in (True, False):
        turns = Turns()
        turns.asked(10.0)
        turns.began("r")
        turns.received("r", PART, 10.3)
        turns.sent(PART, 10.36)
        one = turns.ended("r", "completed", 2) if server_first else turns.played("r", PART, 2)
        assert one == []
        [turn] = turns.played("r", PART, 2) if server_first else turns.ended("r", "completed", 2)
        assert turn == {
            "response_id": "r",
            "status": "completed",
            "barge_in": False,
            "underruns": 2,
            "first_delta_seconds": 0.3,
            "first_audio_seconds": 0.36,
        }
        assert turns.active == []


def test_the_wait_for_an_answer_goes_on_over_a_response_without_a_word() -> None:
    turns = Turns()
    turns.asked(10.0)
    turns.began("tool")
    [turn] = turns.ended("tool", "completed", 0)
    assert "first_audio_seconds" not in turn
    turns.began("r")
    turns.received("r", PART, 12.0)
    turns.sent(PART, 12.5)
    turns.ended("r", "completed", 0)
    [turn] = turns.played("r", PART, 0)
    assert turn["first_audio_seconds"] == 2.5


def test_underruns_belong_to_one_turn_each() -> None:
    turns = Turns()
    for number, (underruns, own) in enumerate([(3, 3), (3, 0), (5, 2)]):
        turns.began(f"r{number}")
        [turn] = turns.ended(f"r{number}", "completed", underruns)
        assert turn["underruns"] == own


def test_a_server_that_ends_nothing_does_not_fill_the_memory() -> None:
    turns = Turns()
    for number in range(1000):
        turns.began(f"r{number}")
    assert len(turns.active) == 64
