"""One call from its beginning to its end: gateway, network, model and caller as they are, but for the time."""

from __future__ import annotations

import pytest

from agentao_trio.records import RecordKind
from tests.support.nine_seconds import NineSeconds, nine_seconds

#: ``python -m tests.support.nine_seconds 1000`` has it a thousand times.
TIMES = 20


@pytest.fixture(scope="module")
def call() -> NineSeconds:
    return nine_seconds()


def test_it_takes_nine_seconds_and_ends_once(call: NineSeconds) -> None:
    assert call.seconds == pytest.approx(9, abs=0.5)
    assert call.commands == ("Originate", "Terminate")
    assert call.told(RecordKind.CONVERSATION)[-1]["reason"] == "hangup"


def test_the_interruption_is_heard_as_silence_at_once(call: NineSeconds) -> None:
    assert 0 < call.barge_in_silence <= 0.040
    assert call.statistics.barge_ins == 1
    assert call.statistics.playout.late_ms == 0


def test_everybody_is_quoted(call: NineSeconds) -> None:
    finals = [data for data in call.told(RecordKind.TRANSCRIPT) if data["phase"] == "final"]
    assert [(data["role"], data["text"][:12], data.get("interrupted", False)) for data in finals] == [
        ("assistant", "Good morning", True),
        ("user", "Where is my ", False),
        ("assistant", "One moment.", False),
        ("assistant", "It arrives t", False),
    ]
    assert [data["order"] for data in finals] == [1, 2, 3, 4]


def test_the_tools_were_used(call: NineSeconds) -> None:
    told = [(data["name"], data["phase"]) for data in call.told(RecordKind.TOOL)]
    assert told == [(name, phase) for name in ("look_up", "hangup") for phase in ("requested", "started", "done")]


def test_nothing_ran_dry(call: NineSeconds) -> None:
    statistics = call.statistics
    assert (statistics.ran_dry, statistics.playout.underruns, statistics.caller_dropped) == (0, 0, 0)
    turns = call.told(RecordKind.TURN)
    assert [(turn["status"], turn["barge_in"]) for turn in turns] == [
        ("completed", True),
        ("completed", False),
        ("completed", False),
    ]
    assert turns[1]["first_audio_seconds"] == pytest.approx(0.3, abs=0.05), "the model's think time, and a packet"


def test_it_is_the_same_call_every_time(call: NineSeconds) -> None:
    assert {nine_seconds().digest() for _ in range(TIMES)} == {call.digest()}


def test_other_orders_of_tasks_make_no_other_conversation(call: NineSeconds) -> None:
    def words(of: NineSeconds) -> list[tuple[str, str]]:
        finals = (data for data in of.told(RecordKind.TRANSCRIPT) if data["phase"] == "final")
        return [(data["role"], data["text"]) for data in finals]

    for seed in (2, 3, 4):
        assert words(nine_seconds(seed)) == words(call)
