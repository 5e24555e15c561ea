"""The two tables of a call, row by row, and the page that is generated from them."""

from __future__ import annotations

import runpy
from enum import Enum
from itertools import product
from pathlib import Path

import pytest

from agentao_trio.callstate import ALLOWED, ORDER, VERDICTS, CallOrder, CallState, Command, OrderState, Verdict, check
from agentao_trio.errors import CallStateError
from agentao_trio.messages import EventType

CREATE, ANSWER, HANGUP = EventType.CHANNEL_CREATE, EventType.CHANNEL_ANSWER, EventType.CHANNEL_HANGUP_COMPLETE
HOLD, RESUME = EventType.CHANNEL_HOLD, EventType.CHANNEL_RESUME

OK, GAP, VIOLATION = Verdict.IN_ORDER, Verdict.GAP, Verdict.VIOLATION
DUPLICATE, UNKNOWN = Verdict.DUPLICATE, Verdict.UNKNOWN


# -- the order of events --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "verdicts"),
    [
        #                  CREATE      ANSWER      HANGUP      HOLD        RESUME
        (OrderState.NEW, [OK, GAP, GAP, GAP, GAP]),
        (OrderState.CREATED, [VIOLATION, OK, OK, GAP, GAP]),
        (OrderState.ANSWERED, [VIOLATION, VIOLATION, OK, OK, GAP]),
        (OrderState.HELD, [VIOLATION, VIOLATION, OK, GAP, OK]),
        (OrderState.ENDED, [VIOLATION] * 5),
    ],
)
def test_the_verdict_on_every_event_in_every_state(state: OrderState, verdicts: list[Verdict]) -> None:
    assert [VERDICTS[state, event][0] for event in (CREATE, ANSWER, HANGUP, HOLD, RESUME)] == verdicts


def test_every_row_says_where_its_event_leads() -> None:
    leads_to = {
        CREATE: OrderState.CREATED,
        ANSWER: OrderState.ANSWERED,
        HANGUP: OrderState.ENDED,
        HOLD: OrderState.HELD,
        RESUME: OrderState.ANSWERED,
    }
    assert set(VERDICTS) == set(product(OrderState, leads_to))
    for (state, event), (verdict, after) in VERDICTS.items():
        assert after is (state if verdict is VIOLATION else leads_to[event])


def test_only_seven_steps_are_legal() -> None:
    assert len(ORDER) == 7
    assert {row for row, (verdict, _) in VERDICTS.items() if verdict is OK} == set(ORDER)


@pytest.mark.parametrize(
    ("events", "verdicts"),
    [
        pytest.param([CREATE, ANSWER, HANGUP], [OK] * 3, id="a call"),
        pytest.param([CREATE, HANGUP], [OK] * 2, id="nobody answered"),
        pytest.param([CREATE, ANSWER, HOLD, RESUME, HOLD, HANGUP], [OK] * 6, id="hung up on hold"),
        pytest.param([HANGUP, HANGUP], [GAP, VIOLATION], id="a second hangup with another time"),
        pytest.param([CREATE, ANSWER, RESUME, HOLD], [OK, OK, GAP, OK], id="a missed hold"),
        pytest.param([CREATE, HOLD, RESUME], [OK, GAP, OK], id="a missed answer"),
        pytest.param([ANSWER, CREATE, HANGUP], [GAP, VIOLATION, OK], id="created after it was answered"),
        pytest.param([ANSWER, RESUME, CREATE, HANGUP, HOLD], [GAP, GAP, VIOLATION, OK, VIOLATION], id="anything goes"),
    ],
)
def test_whole_calls(events: list[EventType], verdicts: list[Verdict]) -> None:
    order = CallOrder()
    assert [order.feed(event, timestamp_ms) for timestamp_ms, event in enumerate(events)] == verdicts


def test_the_same_type_and_timestamp_is_a_duplicate_in_any_state() -> None:
    order = CallOrder()
    for event in (CREATE, ANSWER, HANGUP):
        assert order.feed(event, 1000) is OK  # one timestamp for all: they differ in type
    assert [order.feed(event, 1000) for event in (CREATE, ANSWER, HANGUP)] == [DUPLICATE] * 3
    assert order.feed(HANGUP, 1001) is VIOLATION


@pytest.mark.parametrize("event_type", [0, 6, -1, 2**31 - 1, -(2**31)])
def test_an_unknown_type_moves_nothing_and_is_never_a_duplicate(event_type: int) -> None:
    order = CallOrder()
    order.feed(CREATE, 1)
    assert [order.feed(event_type, 2), order.feed(event_type, 2)] == [UNKNOWN] * 2
    assert order.state is OrderState.CREATED
    assert order.feed(ANSWER, 2) is OK


def test_neighbouring_types_and_timestamps_are_told_apart() -> None:
    seen = [(timestamp_ms, event) for timestamp_ms in range(-3, 4) for event in EventType if event]
    order = CallOrder()
    assert DUPLICATE not in [order.feed(event, timestamp_ms) for timestamp_ms, event in seen]
    assert {order.feed(event, timestamp_ms) for timestamp_ms, event in seen} == {DUPLICATE}


def test_only_the_64_most_recent_events_are_remembered() -> None:
    order = CallOrder()
    for timestamp_ms in range(65):
        order.feed(HOLD, timestamp_ms)
    assert order.feed(HOLD, 1) is DUPLICATE
    assert order.feed(HOLD, 0) is GAP


@pytest.mark.parametrize("timestamp_ms", [-(2**63), 2**63 - 1, 0])
def test_any_timestamp_is_taken(timestamp_ms: int) -> None:
    order = CallOrder()
    assert [order.feed(CREATE, timestamp_ms), order.feed(CREATE, timestamp_ms)] == [OK, DUPLICATE]


# -- what the agent may do ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "allowed", "refused"),
    [
        (CallState.PENDING, "answer connect hangup", "send_audio hold close barge"),
        (
            CallState.ANSWERED,
            "send_audio clear_send_audio_buffer connect close disconnect hangup hold unhold mute unmute transfer "
            "send_dtmf music_on_hold park playback bridge play record",
            "answer barge whisper spy",
        ),
        (CallState.CONNECTED, "barge whisper spy send_audio hangup transfer", "answer"),
        (CallState.DISCONNECTED, "", "hangup close send_audio answer"),
    ],
)
def test_commands_by_state(state: CallState, allowed: str, refused: str) -> None:
    for command in allowed.split():
        check(state, Command(command), "sid-1")
    for command in refused.split():
        with pytest.raises(CallStateError):
            check(state, Command(command), "sid-1")


def test_the_error_says_what_was_refused_where_and_what_is_possible() -> None:
    with pytest.raises(CallStateError) as caught:
        check(CallState.PENDING, Command.SEND_DTMF, "sid-1")
    error = caught.value
    assert str(error) == "send_dtmf is not possible while the call is pending; possible: answer, connect, hangup"
    assert (error.call_sid, error.state, error.command) == ("sid-1", CallState.PENDING, "send_dtmf")
    assert error.allowed == {"answer", "connect", "hangup"}


def test_nothing_is_possible_when_the_call_is_over() -> None:
    with pytest.raises(CallStateError, match=r"disconnected; possible: nothing$"):
        check(CallState.DISCONNECTED, Command.CLOSE, "sid-1")


def test_every_state_has_its_row_and_every_command_a_state() -> None:
    assert set(ALLOWED) == set(CallState)
    assert frozenset[Command]().union(*ALLOWED.values()) == set(Command)


@pytest.mark.parametrize("member", [*OrderState, *CallState, *Command, *Verdict])
def test_records_and_messages_call_everything_by_its_name(member: Enum) -> None:
    space = " " if isinstance(member, Verdict) else "_"
    assert member.value == member.name.lower().replace("_", space)


# -- the page -------------------------------------------------------------------------------------------------------


def test_the_generated_page_is_current() -> None:
    generator = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "generate_state_diagrams.py"))
    assert generator["PAGE"].read_text(encoding="utf-8") == generator["page"](), (
        "run docs/generate_state_diagrams.py and commit the page"
    )
