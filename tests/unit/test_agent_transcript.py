"""What the agent's terminal shows of a conversation: one line for each record that people want to see."""

from __future__ import annotations

import io
from typing import Any

import trio
from rich.console import Console

from agentao_trio.cli.screen import Screen
from agentao_trio.cli.transcript import Transcript
from agentao_trio.records import Record, RecordKind

SID = "3f2a-0001"
BEGAN = (RecordKind.CALL, {"phase": "began", "direction": "inbound", "caller": "+15550101701", "callee": ""})


def shown(*records: tuple[RecordKind, dict[str, Any]], call_sid: str = SID) -> list[str]:
    out = io.StringIO()

    async def read() -> None:
        transcript = Transcript(Screen(Console(file=out, highlight=False, markup=False), live=False))
        for number, (kind, data) in enumerate(records, 1):
            sid = data.pop("sid", call_sid)
            transcript.read(Record(number=number, at=0.0, call_sid=sid, kind=kind, data=data))

    trio.run(read)
    return out.getvalue().splitlines()


def final(role: str, text: str, **more: Any) -> tuple[RecordKind, dict[str, Any]]:
    return RecordKind.TRANSCRIPT, {"phase": "final", "role": role, "text": text, **more}


def test_who_says_what_under_the_end_of_the_number() -> None:
    assert shown(
        BEGAN, final("user", "Hello?"), final("assistant", "Good mor", interrupted=True), final("system", "Keys")
    ) == [
        "1701  inbound call, +15550101701",
        "1701   caller: Hello?",
        "1701    agent: Good mor (interrupted)",
        "1701   system: Keys",
    ]


def test_words_that_are_not_final_and_sound_without_words_are_no_lines() -> None:
    delta = (RecordKind.TRANSCRIPT, {"phase": "delta", "role": "assistant", "text": "Go", "delta": "Go", "offset": 0})
    assert shown(delta, final("assistant", ""), (RecordKind.USAGE, {}), (RecordKind.TURN, {})) == []


def test_a_tool_from_its_request_to_its_end() -> None:
    def tool(phase: str, **more: Any) -> tuple[RecordKind, dict[str, Any]]:
        return RecordKind.TOOL, {"name": "look_up", "tool_call_id": "c1", "phase": phase, **more}

    assert shown(
        tool("requested", arguments='{"n": 1}'),
        tool("started"),
        tool("done", output="there", seconds=0.2),
        tool("failed", error="KeyError", seconds=0.2),
        tool("cancelled"),
    ) == [
        '0001     tool: look_up {"n": 1}',
        "0001     tool: look_up → there",
        "0001     tool: look_up failed KeyError",
        "0001     tool: look_up cancelled",
    ]


def test_a_call_keeps_its_name_when_the_gateway_renames_it() -> None:
    renamed = (RecordKind.CALL, {"sid": "other-9999", "phase": "renamed", "call_sid_before": SID})
    over = (RecordKind.CALL, {"sid": "other-9999", "phase": "over", "how": "hangup"})
    assert shown(BEGAN, renamed, over)[-1] == "1701  over (hangup)"


def test_a_withheld_number_is_called_so() -> None:
    assert shown((RecordKind.CALL, {"phase": "began", "direction": "inbound", "caller": "", "callee": "x"})) == [
        "0001  inbound call, a withheld number"
    ]


def test_what_a_model_says_cannot_move_the_cursor() -> None:
    [line] = shown(final("assistant", "\x1b[2JGone\r\nNew line"))
    assert line == "0001    agent: \\x1b[2JGone\\r\\nNew line"


def test_a_call_that_another_worker_answers() -> None:
    lines = shown(BEGAN, (RecordKind.CALL, {"phase": "over", "how": "released"}))
    assert lines[-1] == "1701  left to another worker"
