"""What gateways may get wrong and no other page of tests has, and the table that says which test shows what.

Each fault is injected from outside, by bytes on a stream; the call it hits must go on, and be told what there is to
tell.
"""

from __future__ import annotations

import ast
import math
import re
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from agentao_trio import CallState, EventType, RemoteProtocolError, messages
from agentao_trio.callstate import Verdict
from agentao_trio.messages import MethodId
from agentao_trio.wire import encode_frame
from tests.support.scripted_gateway import CREATE, HANGUP, ScriptedGateway, accepting, answered_call, audio, session_on

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "reliability.md"


def frame(**fields: Any) -> bytes:
    return encode_frame(MethodId.AudioFrame, messages.encode(messages.AudioFrame(**fields)))


@pytest.mark.parametrize("cut", range(4))
async def test_a_stream_may_end_within_a_length(cut: int, autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)
        heard = call.audio()
        await gateway.stream(audio(call.call_sid, 0) + b"\x10\x00\x00\x00"[:cut])
        await gateway.stream(audio(call.call_sid, 1))
        assert [(await anext(heard)).sequence_number for _ in range(2)] == [0, 1]
        await trio.sleep(0.1)
        assert session.statistics().streams_truncated == (cut > 0)


def test_nesting_goes_no_deeper_than_the_classes_do() -> None:
    """A list of lists of lists, a million deep, is refused where the classes end."""
    bottomless = b"\x00\x00\xff\xff\x00\x00\x01\x00\x00\x00" * 6_500
    for cls in messages.MESSAGES.values():
        with pytest.raises(RemoteProtocolError):
            messages.decode(cls, bottomless)


async def test_numbers_that_are_none_and_truths_that_are_neither(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)
        body = messages.encode(
            messages.CallEvent(
                call_sid=call.call_sid,
                event_type=HANGUP,
                timestamp_ms=2_000_000,
                q850_cause=16,
                jitter_ms=math.nan,
                estimated_mos=math.inf,
            )
        )
        await gateway.stream(encode_frame(MethodId.StreamEvents, body))
        ending = await call.wait_ended()
        assert math.isnan(ending.event.jitter_ms)
        assert ending.event.estimated_mos == math.inf
        assert session.statistics().frames_undecodable == 0
    end_of_stream = messages.encode(messages.AudioFrame(call_sid="two", end_of_stream=True))
    assert end_of_stream.count(b"\x01") == 1
    odd = end_of_stream.replace(b"\x01", b"\xff")
    assert messages.decode(messages.AudioFrame, odd).end_of_stream is True


async def test_a_hangup_before_everything_else_ends_its_call(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway) as session:
        call = await session.originate("+15550100001", trunk_id="main")
        events = call.events()
        await gateway.event(call.call_sid, HANGUP, q850_cause=17)
        assert (await call.wait_ended()).q850_cause == 17
        assert (await anext(events)).verdict is Verdict.GAP


@pytest.mark.parametrize(
    ("before", "culprit", "verdict"),
    [
        ([CREATE], EventType.CHANNEL_HOLD, Verdict.GAP),  # what is held has been answered
        ([CREATE, EventType.CHANNEL_ANSWER], EventType.CHANNEL_RESUME, Verdict.GAP),
        ([CREATE, EventType.CHANNEL_ANSWER], EventType.CHANNEL_CREATE, Verdict.VIOLATION),
    ],
    ids=["hold before the answer", "resume without hold", "created twice"],
)
async def test_an_event_out_of_order_is_told_as_such(
    before: list[int], culprit: int, verdict: Verdict, autojump_clock: MockClock
) -> None:
    gateway = accepting()
    async with session_on(gateway) as session:
        call = await session.originate("+15550100001", trunk_id="main")
        events = call.events()
        for each in (*before, culprit):
            await gateway.event(call.call_sid, each)
        verdicts = [(await anext(events)).verdict for _ in range(len(before) + 1)]
        assert verdicts == [Verdict.IN_ORDER] * len(before) + [verdict]
        assert call.state is CallState.ANSWERED
        assert session.statistics().events_out_of_order == 1


async def test_an_event_after_the_hangup_moves_nothing(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)
        await gateway.event(call.call_sid, HANGUP, q850_cause=31)
        await call.wait_ended()
        await gateway.event(call.call_sid, EventType.CHANNEL_HOLD)
        await gateway.event(call.call_sid, HANGUP, q850_cause=16)
        await trio.sleep(0.1)
        assert (await call.wait_ended()).q850_cause == 31
        assert session.statistics().calls_ended == 1


async def test_audio_that_nobody_can_use_is_counted(autojump_clock: MockClock) -> None:
    """For a call nobody knows, behind the end of stream, and twice."""
    gateway = accepting()
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)
        heard = call.audio()
        await gateway.stream(audio(call.call_sid, 0) * 2 + audio("nobody's", 0))
        await gateway.stream(
            frame(call_sid=call.call_sid, sequence_number=1, codec="PCMU", end_of_stream=True)
            + audio(call.call_sid, 2) * 3
        )
        assert [each.sequence_number async for each in heard] == [0]
        await trio.sleep(0.1)
        statistics = call.statistics()
        assert (statistics.packets_received, statistics.late_or_duplicate) == (1, 1)
        assert statistics.after_end_of_stream == 3
        assert session.statistics().audio_for_unknown_calls == 1
        assert call.state is CallState.ANSWERED


async def test_audio_in_another_codec_or_of_another_size_says_so(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)
        heard = call.audio()
        strange = [("PCMU", b"a" * 160), ("PCMA", b"b" * 160), ("opus", b"c" * 61), ("PCMU", b"d"), ("PCMU", b"")]
        for number, (codec, payload) in enumerate(strange):
            await gateway.stream(frame(call_sid=call.call_sid, codec=codec, payload=payload, sequence_number=number))
            if payload:
                got = await anext(heard)
                assert (got.codec, got.payload) == (codec, payload)
        await trio.sleep(0.1)
        assert call.state is CallState.ANSWERED
        await gateway.stream(audio(call.call_sid, 5))
        assert (await anext(heard)).sequence_number == 5
        assert call.statistics().codec_received == "PCMU"


async def test_a_numbering_that_begins_anew_or_comes_to_its_end_is_followed(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)
        heard = call.audio()
        numbers = [2**64 - 3, 2**64 - 2, 2**64 - 1, 0, 1, 90_000, 90_001, 90_002, 0, 1, 2, 3]
        await gateway.stream(b"".join(audio(call.call_sid, number) for number in numbers))
        await trio.sleep(0.1)
        call_statistics = call.statistics()
        got = [(await anext(heard)).sequence_number for _ in range(call_statistics.packets_received)]
        assert got[:5] == numbers[:5]
        assert {90_002, 3} <= set(got)
        assert call_statistics.packets_lost < 10


async def test_a_wall_clock_that_jumps_moves_no_timer(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, real = accepting(), time.time
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)
        records = session.events()
        for jump in (-7 * 86_400.0, 365 * 86_400.0):
            monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
            began = trio.current_time()
            await call.send_audio(b"\x55" * 1600)
            await call.wait_played()
            assert 0.1 <= trio.current_time() - began <= 0.3
            await gateway.event(call.call_sid, 9)
            await anext(records)
        assert session.statistics().connections == 1
        assert call.state is CallState.ANSWERED


async def test_texts_meant_for_terminals_stay_texts(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J\u202e" + "A" * 100_000
    gateway: ScriptedGateway = accepting()
    with caplog.at_level("DEBUG"):
        async with session_on(gateway) as session:
            call = await answered_call(session, gateway)
            events = call.events()
            await gateway.event(call.call_sid, 9, status=hostile)
            while (record := await anext(events)).event.event_type != 9:
                pass
            assert record.event.status == hostile  # the program gets what was sent
            await gateway.stream(struct.pack("<II", 0xFFFFFFFF, 1) + hostile.encode())
            await gateway.event(call.call_sid, HANGUP, q850_cause=16, status=hostile)
            await call.wait_ended()
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("agentao_trio")]
    assert ours
    assert all(line.isprintable() and len(line) < 5_000 for line in ours)


# -- the table ------------------------------------------------------------------------------------------------------


def shown_by() -> dict[str, list[str]]:
    """The rows of the page's table of faults: the tests that each of them names, as FILE::TEST."""
    rows = re.findall(r"^\| (F\d\d) \|.*\| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    return {fault: re.findall(r"`([^`]+)`", tests) for fault, tests in rows}


def test_every_fault_has_its_test() -> None:
    table = shown_by()
    assert list(table) == [f"F{number:02}" for number in range(1, 46)]
    known: dict[str, set[str]] = {}
    for fault, tests in table.items():
        assert tests, f"nothing shows {fault}"
        for test in tests:
            file, _, name = test.partition("::")
            if file not in known:
                tree = ast.parse((ROOT / "tests" / file).read_bytes())
                known[file] = {
                    node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
                }
            assert name in known[file], f"{fault} names {test}, which there is not"
