"""EVT, the second half: times, durations and counts."""

from __future__ import annotations

from typing import Any

import trio

from agentao_trio.conformance.checks.events import (
    ANSWER,
    CREATE,
    HANGUP,
    ORDERING,
    SCHEMA,
    SLACK,
    hangups,
    judge_unanswered,
)
from agentao_trio.conformance.kit import Kit
from agentao_trio.conformance.programmes import Inconclusive, programme
from agentao_trio.conformance.requirements import Judgement, Level, requirement
from agentao_trio.conformance.trace import Observation, Seen, Trace, What
from agentao_trio.errors import RemoteProtocolError
from agentao_trio.messages import CallEvent, MethodId

#: Milliseconds since 1970 that a clock of today can show: 2001 to 2100. Seconds and microseconds are far from it.
_MILLISECONDS = range(1_000_000_000_000, 4_102_444_800_000)
#: Seconds that the gateway's clock and ours may differ: a time zone is far more.
_CLOCKS = 600


# -- times and counts -----------------------------------------------------------------------------------------------


def _stamp(answer: Observation) -> int:
    try:
        return int(getattr(Trace.decoded_reply(answer)[1], "timestamp_ms", 0))
    except RemoteProtocolError:
        return 0  # RPC-04 tells


@requirement("EVT-09", Level.MUST, "Timestamps are in milliseconds", source=SCHEMA, everywhere=True)
def _in_milliseconds(trace: Trace, say: Judgement) -> None:
    for seen in trace.events():
        event = seen.message
        say.expect(
            event.timestamp_ms in _MILLISECONDS,
            expected="milliseconds since 1970, of this century",
            seen=f"timestamp_ms {event.timestamp_ms}",
            index=seen.index,
            call_sid=event.call_sid,
        )
        clock = next((each.facts.get("unix") for _, each in trace.of(What.CONNECTED, link=seen.observation.link)), None)
        began = next((each.at for _, each in trace.of(What.CONNECTED, link=seen.observation.link)), 0.0)
        if clock is not None:
            apart = event.timestamp_ms / 1000 - (clock + seen.at - began)
            say.expect(
                abs(apart) <= _CLOCKS,
                expected=f"the time of day in UTC, ± {_CLOCKS // 60:g} minutes",
                seen=f"timestamp_ms {event.timestamp_ms}, {apart / 60:+.0f} minutes from the time here",
                index=seen.index,
                call_sid=event.call_sid,
            )
    for method in (MethodId.Originate, MethodId.Terminate):
        for _, answer in trace.replies(method):
            stamp = _stamp(answer)
            say.expect(
                not stamp or stamp in _MILLISECONDS,
                expected="milliseconds since 1970 in a reply, or 0",
                seen=f"timestamp_ms {stamp}",
            )
    for mark in trace.marks("waited"):
        events = trace.events(mark.facts["call_sid"])
        answers = [seen.message.timestamp_ms for seen in events if seen.message.event_type == ANSWER]
        ends = [seen.message.timestamp_ms for seen in events if seen.message.event_type == HANGUP]
        if answers and ends:
            passed = (ends[0] - answers[0]) / 1000
            say.expect(
                abs(passed - mark.facts["seconds"]) <= SLACK,
                expected=f"{mark.facts['seconds']:.1f} s from ANSWER to HANGUP_COMPLETE, ± {SLACK:g}",
                seen=f"{passed:.3f} s",
                call_sid=mark.facts["call_sid"],
            )


async def _call_of(kit: Kit, seconds: float) -> None:
    """A call that is answered, and hung up by us after so long."""
    async with kit.link() as link:
        call_sid = await link.answered()
        began = trio.current_time()
        await trio.sleep(seconds)
        await link.terminate(call_sid)
        kit.mark("waited", call_sid=call_sid, seconds=trio.current_time() - began)


@programme("EVT-09", roles="answer", faults="timestamps_in_seconds timestamps_in_microseconds clock_stands_still")
async def _call_of_two_seconds(kit: Kit) -> None:
    await _call_of(kit, 2.0)


@requirement("EVT-10", Level.MUST, "A busy call beside answered ones has no ANSWER", source=ORDERING)
def _busy_beside_others(trace: Trace, say: Judgement) -> None:
    judge_unanswered(trace, say, role="busy", causes=(17,))


@programme("EVT-10", roles="answer busy", calls=3, faults="answer_on_every_call")
async def _busy_between_calls(kit: Kit) -> None:
    async with kit.link() as link:
        first = await link.answered()
        busy = await link.dial("busy")
        second = await link.answered()
        await link.until(HANGUP, busy, patience=15)
        for call_sid in (first, second):
            await link.terminate(call_sid)


@requirement(
    "EVT-11",
    Level.MUST,
    "duration_seconds agrees with the call's length within a second",
    source=SCHEMA,
    everywhere=True,
)
def _duration_agrees(trace: Trace, say: Judgement) -> None:
    for ended in hangups(trace):
        event = ended.message
        if ANSWER not in trace.event_types(event.call_sid) and CREATE in trace.event_types(event.call_sid):
            whole = (event.end_timestamp_ms - event.start_timestamp_ms) / 1000
            say.expect(
                event.duration_seconds == 0 or abs(event.duration_seconds - whole) <= SLACK,
                expected="duration_seconds 0 of a call that was not answered, or the time since CREATE",
                seen=str(event.duration_seconds),
                index=ended.index,
                call_sid=event.call_sid,
            )
    for mark in trace.marks("waited"):
        over = trace.hangup(mark.facts["call_sid"])
        if over is not None:
            say.expect(
                abs(over.message.duration_seconds - mark.facts["seconds"]) <= SLACK,
                expected=f"{mark.facts['seconds']:.1f} s ± {SLACK:g}",
                seen=f"duration_seconds {over.message.duration_seconds}",
                index=over.index,
                call_sid=mark.facts["call_sid"],
            )


@programme("EVT-11", roles="answer", faults="duration_in_ms duration_zero")
async def _call_of_three_seconds(kit: Kit) -> None:
    await _call_of(kit, 3.0)


@requirement(
    "EVT-12",
    Level.SHOULD,
    "The packet counts of HANGUP_COMPLETE agree with what was exchanged, within 2 %",
    source=SCHEMA,
)
def _counts_agree(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("said"):
        call_sid = mark.facts["call_sid"]
        over = trace.hangup(call_sid)
        if over is None:
            continue
        heard = len([seen for seen in trace.audio(call_sid) if not seen.message.end_of_stream])
        # Whose "sent" it is, is not said: the gateway's or the client's. Either reading is taken.
        sent, received = over.message.packets_sent, over.message.packets_received
        said = mark.facts["packets"]
        say.expect(
            (_near(sent, heard) and _near(received, said)) or (_near(sent, said) and _near(received, heard)),
            expected=f"{said} packets one way and {heard} the other, ± 2 %",
            seen=f"packets_sent {sent}, packets_received {received}",
            index=over.index,
            call_sid=call_sid,
        )
        if heard >= 0.98 * said:
            _bytes_agree(trace, over, said, say)


def _bytes_agree(trace: Trace, over: Seen[CallEvent], packets: int, say: Judgement) -> None:
    event = over.message
    heard = sum(len(seen.message.payload) for seen in trace.audio(event.call_sid))
    # Headers may be counted or not; either direction is taken.
    say.expect(
        any(0.98 * total <= event.bytes_sent <= 1.6 * total for total in (heard, 160 * packets)),
        expected=f"bytes_sent of {packets} packets with 160 bytes each, with headers or without",
        seen=str(event.bytes_sent),
        index=over.index,
        call_sid=event.call_sid,
    )
    say.expect(
        event.packets_lost <= 0.05 * packets + 2,
        expected="packets_lost near 0: all that was said came back",
        seen=str(event.packets_lost),
        index=over.index,
        call_sid=event.call_sid,
    )
    say.expect(
        event.estimated_mos >= 1,
        expected="estimated_mos of 1 to 5 for a call with audio",
        seen=str(event.estimated_mos),
        index=over.index,
        call_sid=event.call_sid,
    )


def _near(value: int, expected: int) -> bool:
    return abs(value - expected) <= max(2, 0.02 * expected)


@programme("EVT-12", roles="loopback", faults="packet_counts_zero packet_counts_double")
async def _say_a_hundred_packets(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered("loopback")
        await link.say_paced(call_sid, [bytes([0xFF, 0x7E] * 80)] * 100)
        await trio.sleep(0.5)
        kit.mark("said", call_sid=call_sid, packets=100)
        await link.terminate(call_sid)


@requirement("EVT-13", Level.MUST, "A far end that does not answer ends with cause 18 or 19", source=ORDERING)
def _no_answer(trace: Trace, say: Judgement) -> None:
    judge_unanswered(trace, say, role="noanswer", causes=(18, 19))


@programme("EVT-13", roles="noanswer", faults="no_answer_is_normal")
async def _let_it_ring(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.dial("noanswer")
        if await link.until(HANGUP, call_sid, patience=50) is None:
            raise Inconclusive("the far end was still ringing after 50 s")


@requirement(
    "EVT-14", Level.MUST, "max_duration_ms ends the call, within a second", source="PROTOCOL section 9.1, Originate"
)
def _max_duration(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("limited"):
        call_sid, limit = mark.facts["call_sid"], mark.facts["seconds"]
        answers = [seen.at for seen in trace.events(call_sid) if seen.message.event_type == ANSWER]
        over = trace.hangup(call_sid)
        lasted: Any = None if over is None or not answers else over.at - answers[0]
        say.expect(
            lasted is not None and abs(lasted - limit) <= SLACK,
            expected=f"HANGUP_COMPLETE {limit:g} s ± {SLACK:g} after ANSWER",
            seen="none" if lasted is None else f"after {lasted:.2f} s",
            call_sid=call_sid,
        )


@programme("EVT-14", roles="answer", timing=True, faults="max_duration_ignored max_duration_in_seconds")
async def _call_with_a_limit(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered(max_duration_ms=2000)
        kit.mark("limited", call_sid=call_sid, seconds=2.0)
        await link.until(HANGUP, call_sid, patience=5)
