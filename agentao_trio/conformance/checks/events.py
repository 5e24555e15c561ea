"""EVT: what the events of a call say, and in which order."""

from __future__ import annotations

import math
from typing import Any

import trio
from hypothesis import strategies as st

from agentao_trio.callstate import CallOrder, OrderState, Verdict
from agentao_trio.conformance.kit import Kit, Link
from agentao_trio.conformance.programmes import Inconclusive, Unsupported, programme
from agentao_trio.conformance.requirements import Judgement, Level, requirement
from agentao_trio.conformance.trace import Seen, Trace
from agentao_trio.messages import CallEvent, DialplanAction, EventType

_ORDERING = "Events, ordering; PROTOCOL section 10.2"
_SCHEMA = "Events, CallEvent schema; PROTOCOL section 10.1"

CREATE, ANSWER, HANGUP = EventType.CHANNEL_CREATE, EventType.CHANNEL_ANSWER, EventType.CHANNEL_HANGUP_COMPLETE
HOLD, RESUME = EventType.CHANNEL_HOLD, EventType.CHANNEL_RESUME

#: Milliseconds since 1970 that a clock of today can show: 2001 to 2100. Seconds and microseconds are far from it.
_MILLISECONDS = range(1_000_000_000_000, 4_102_444_800_000)
#: Seconds of difference that a gateway's clock and ours may have about the length of a call.
_SLACK = 1.0


def name_of(event_type: int) -> str:
    """The event's name, or its number."""
    return EventType(event_type).name if event_type in tuple(EventType) else str(event_type)


def names(event_types: list[int]) -> str:
    """Events in a row, for people."""
    return " ".join(map(name_of, event_types)) or "no event"


# -- order ----------------------------------------------------------------------------------------------------------


@requirement(
    "EVT-01",
    Level.MUST,
    "A call's events come in order, from CREATE to exactly one HANGUP_COMPLETE",
    source=_ORDERING,
    everywhere=True,
)
def _in_order(trace: Trace, say: Judgement) -> None:
    for call_sid in trace.call_sids():
        order = CallOrder()
        for seen in trace.events(call_sid):
            event, before = seen.message, order.state
            verdict = order.feed(event.event_type, event.timestamp_ms)
            repeated_end = verdict is Verdict.DUPLICATE and event.event_type != HANGUP
            say.expect(
                verdict in (Verdict.IN_ORDER, Verdict.DUPLICATE, Verdict.UNKNOWN) and not repeated_end,
                expected="CREATE; where it is answered ANSWER, then HOLD and RESUME in turns; HANGUP_COMPLETE last",
                seen=f"{name_of(event.event_type)} when the call was {before.name} ({verdict.value})",
                index=seen.index,
                call_sid=call_sid,
            )
        _ends_agree(trace, call_sid, say)
    for mark in trace.marks("ended"):
        call_sid = mark.facts["call_sid"]
        say.expect(
            trace.hangup(call_sid) is not None,
            expected=f"HANGUP_COMPLETE within 5 s of {mark.facts['by']}",
            seen=names(trace.event_types(call_sid)),
            call_sid=call_sid,
        )


def _ends_agree(trace: Trace, call_sid: str, say: Judgement) -> None:
    ends = [seen for seen in trace.events(call_sid) if seen.message.event_type == HANGUP]
    for again in ends[1:]:
        say.expect(
            again.message == ends[0].message,
            expected="a HANGUP_COMPLETE that is sent again is the same one",
            seen=f"causes {ends[0].message.q850_cause} and {again.message.q850_cause}, "
            f"times {ends[0].message.timestamp_ms} and {again.message.timestamp_ms}",
            index=again.index,
            call_sid=call_sid,
        )


async def end(kit: Kit, link: Link, call_sid: str) -> None:
    """Terminate, and look a little longer for what should not come."""
    await link.terminate(call_sid)
    kit.mark("ended", call_sid=call_sid, by="Terminate")
    await trio.sleep(0.3)


@programme(
    "EVT-01",
    roles="answer",
    faults="hangup_before_create no_create event_after_hangup two_hangups no_hangup answer_twice create_twice",
)
async def _one_call(kit: Kit) -> None:
    async with kit.link() as link:
        await end(kit, link, await link.answered())


@requirement("EVT-02", Level.MUST, "A busy far end gives CREATE, then HANGUP_COMPLETE with cause 17", source=_ORDERING)
def _busy(trace: Trace, say: Judgement) -> None:
    _unanswered(trace, say, role="busy", causes=(17,))


def _unanswered(trace: Trace, say: Judgement, *, role: str, causes: tuple[int, ...]) -> None:
    for mark in trace.marks("dialled"):
        if mark.facts["role"] != role:
            continue
        call_sid = mark.facts["call_sid"]
        end_event = trace.hangup(call_sid)
        say.expect(
            trace.event_types(call_sid) == [CREATE, HANGUP],
            expected="CHANNEL_CREATE CHANNEL_HANGUP_COMPLETE",
            seen=names(trace.event_types(call_sid)),
            call_sid=call_sid,
        )
        if end_event is not None:
            say.expect(
                end_event.message.q850_cause in causes,
                expected=f"Q.850 cause {' or '.join(map(str, causes))}",
                seen=f"cause {end_event.message.q850_cause}",
                index=end_event.index,
                call_sid=call_sid,
            )


@programme("EVT-02", roles="busy", faults="busy_is_answered wrong_cause")
async def _call_busy(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.dial("busy")
        await link.until(HANGUP, call_sid, patience=15)


@requirement(
    "EVT-03", Level.MUST, "HOLD and RESUME come in pairs, and only after ANSWER", source=_ORDERING, everywhere=True
)
def _holds_in_pairs(trace: Trace, say: Judgement) -> None:
    for call_sid in trace.call_sids():
        held, answered, over = False, False, False
        for seen in trace.events(call_sid):
            event_type = seen.message.event_type
            answered |= event_type == ANSWER
            over |= event_type == HANGUP
            if event_type in (HOLD, RESUME):
                say.expect(
                    answered and not over and held == (event_type == RESUME),
                    expected="HOLD after ANSWER, and RESUME after HOLD, in turns",
                    seen=names(trace.event_types(call_sid)),
                    index=seen.index,
                    call_sid=call_sid,
                )
                held = event_type == HOLD
    for mark in trace.marks("held and resumed"):
        types = trace.event_types(mark.facts["call_sid"])
        say.expect(
            types.count(HOLD) == types.count(RESUME) == 1,
            expected="one HOLD and one RESUME for HOLD and UNHOLD, both accepted",
            seen=names(types),
            call_sid=mark.facts["call_sid"],
        )


@programme("EVT-03", roles="answer", faults="hold_before_answer resume_missing hold_twice")
async def _hold_and_resume(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered()
        for action, event_type in ((DialplanAction.HOLD, HOLD), (DialplanAction.UNHOLD, RESUME)):
            reply = await link.execute(call_sid, action)
            if reply is not None and getattr(reply, "error_code", False):
                raise Unsupported(f"{action.name} is refused")
            await link.until(event_type, call_sid)
        kit.mark("held and resumed", call_sid=call_sid)
        await end(kit, link, call_sid)


@requirement("EVT-04", Level.MUST, "No event is of type UNKNOWN", source="Events, event types", everywhere=True)
def _never_unknown(trace: Trace, say: Judgement) -> None:
    for seen in trace.events():
        say.expect(
            seen.message.event_type != EventType.UNKNOWN,
            expected="an event type of 1 to 5",
            seen="UNKNOWN (0)",
            index=seen.index,
            call_sid=seen.message.call_sid,
        )


@programme("EVT-04", roles="answer", faults="unknown_event")
async def _every_kind_of_event(kit: Kit) -> None:
    await _hold_and_resume(kit)


# -- what the end says ----------------------------------------------------------------------------------------------


def _hangups(trace: Trace) -> list[Seen[CallEvent]]:
    return [seen for seen in trace.events() if seen.message.event_type == HANGUP]


@requirement("EVT-05", Level.MUST, "The figures of HANGUP_COMPLETE are in range", source=_SCHEMA, everywhere=True)
def _figures_in_range(trace: Trace, say: Judgement) -> None:
    for seen in _hangups(trace):
        event = seen.message
        for what, holds, expected in (
            ("estimated_mos", event.estimated_mos == 0 or 1 <= event.estimated_mos <= 5, "0, or 1 to 5"),
            ("jitter_ms", math.isfinite(event.jitter_ms) and 0 <= event.jitter_ms < 60_000, "finite, not negative"),
            ("q850_cause", 0 < event.q850_cause <= 127, "1 to 127 (ITU-T Q.850)"),
            ("duration_seconds", event.duration_seconds >= 0, "not negative"),
            ("packets_lost", event.packets_lost <= 2**31, "a count of packets"),
        ):
            say.expect(
                holds,
                expected=f"{what}: {expected}",
                seen=str(getattr(event, what)),
                index=seen.index,
                call_sid=event.call_sid,
            )


@programme("EVT-05", roles="loopback", faults="mos_out_of_range jitter_nan cause_zero negative_duration")
async def _call_with_audio(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered("loopback")
        await link.say_paced(call_sid, [bytes([0xFF, 0x7F] * 80)] * 50)
        await end(kit, link, call_sid)


@requirement(
    "EVT-06",
    Level.MUST,
    "start ≤ answer ≤ end ≤ timestamp, where there are such",
    source=_SCHEMA,
    everywhere=True,
)
def _times_in_order(trace: Trace, say: Judgement) -> None:
    for seen in trace.events():
        event = seen.message
        times = {
            "start_timestamp_ms": event.start_timestamp_ms,
            "answer_timestamp_ms": event.answer_timestamp_ms,
            "end_timestamp_ms": event.end_timestamp_ms,
            "timestamp_ms": event.timestamp_ms,
        }
        given = [value for value in times.values() if value]
        say.expect(
            given == sorted(given),
            expected="start ≤ answer ≤ end ≤ timestamp",
            seen=", ".join(f"{name} {value}" for name, value in times.items() if value),
            index=seen.index,
            call_sid=event.call_sid,
        )
        wanted = ["start_timestamp_ms", "timestamp_ms"]
        if event.event_type in (ANSWER, HOLD, RESUME):
            wanted.append("answer_timestamp_ms")
        if event.event_type == HANGUP:
            wanted.append("end_timestamp_ms")
        missing = [name for name in wanted if not times[name]]
        say.expect(
            not missing,
            expected=f"{', '.join(wanted)} in {name_of(event.event_type)}",
            seen=f"{', '.join(missing)} 0",
            index=seen.index,
            call_sid=event.call_sid,
        )


@programme("EVT-06", roles="answer", faults="end_before_answer no_answer_time no_start_time")
async def _call_for_times(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered()
        await trio.sleep(1.1)
        await end(kit, link, call_sid)


@requirement("EVT-07", Level.SHOULD, "One call never delays another's events", source="Events, ordering across calls")
def _no_delay(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("terminated beside others"):
        call_sid = mark.facts["call_sid"]
        over = trace.hangup(call_sid)
        say.expect(
            over is not None and over.at - mark.at <= 1.0,
            expected="HANGUP_COMPLETE of one call within 1 s, while others ring and talk",
            seen="none" if over is None else f"after {over.at - mark.at:.2f} s",
            call_sid=call_sid,
        )


@programme("EVT-07", roles="answer noanswer", timing=True, calls=3, faults="slow_neighbour")
async def _beside_others(kit: Kit) -> None:
    async with kit.link() as link:
        await link.dial("noanswer")
        await link.answered()
        call_sid = await link.answered()
        kit.mark("terminated beside others", call_sid=call_sid)
        await link.terminate(call_sid)


# -- programmes of commands ---------------------------------------------------------------------------------------

_COMMANDS = st.lists(st.sampled_from(["hold", "unhold", "mute", "unmute", "barge", "wait", "terminate"]), max_size=8)


@requirement(
    "EVT-08",
    Level.MUST,
    "Whatever commands a call is given, its events are legal and end with HANGUP_COMPLETE",
    source=_ORDERING,
)
def _random_programmes(trace: Trace, say: Judgement) -> None:
    _in_order(trace, say)
    for mark in trace.marks("ended"):
        order = CallOrder()
        for seen in trace.events(mark.facts["call_sid"]):
            order.feed(seen.message.event_type, seen.message.timestamp_ms)
        say.expect(
            order.state is OrderState.ENDED,
            expected="the call is over after Terminate",
            seen=f"it is {order.state.name}",
            call_sid=mark.facts["call_sid"],
        )


@programme(
    "EVT-08", roles="answer", example=_COMMANDS, calls=40, faults="hold_twice resume_without_hold hold_survives_hangup"
)
async def _programme_of_commands(kit: Kit, commands: list[str]) -> None:
    actions = {
        "hold": DialplanAction.HOLD,
        "unhold": DialplanAction.UNHOLD,
        "mute": DialplanAction.MUTE,
        "unmute": DialplanAction.UNMUTE,
    }
    async with kit.link() as link:
        call_sid = await link.answered()
        kit.mark("commands", call_sid=call_sid, commands=commands)
        for command in commands:
            if command in actions:
                await link.execute(call_sid, actions[command])
            elif command == "terminate":
                await link.terminate(call_sid)
            else:
                await trio.sleep(0.05)
        await end(kit, link, call_sid)


# -- times and counts -----------------------------------------------------------------------------------------------


@requirement("EVT-09", Level.MUST, "Timestamps are in milliseconds", source=_SCHEMA, everywhere=True)
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
    for mark in trace.marks("waited"):
        events = trace.events(mark.facts["call_sid"])
        answers = [seen.message.timestamp_ms for seen in events if seen.message.event_type == ANSWER]
        ends = [seen.message.timestamp_ms for seen in events if seen.message.event_type == HANGUP]
        if answers and ends:
            passed = (ends[0] - answers[0]) / 1000
            say.expect(
                abs(passed - mark.facts["seconds"]) <= _SLACK,
                expected=f"{mark.facts['seconds']:.1f} s from ANSWER to HANGUP_COMPLETE, ± {_SLACK:g}",
                seen=f"{passed:.3f} s",
                call_sid=mark.facts["call_sid"],
            )


@programme("EVT-09", roles="answer", faults="timestamps_in_seconds timestamps_in_microseconds clock_stands_still")
async def _call_of_two_seconds(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered()
        began = trio.current_time()
        await trio.sleep(2.0)
        await link.terminate(call_sid)
        kit.mark("waited", call_sid=call_sid, seconds=trio.current_time() - began)


@requirement("EVT-10", Level.MUST, "A busy call beside answered ones has no ANSWER", source=_ORDERING)
def _busy_beside_others(trace: Trace, say: Judgement) -> None:
    _unanswered(trace, say, role="busy", causes=(17,))


@programme("EVT-10", roles="answer busy", calls=3, faults="answer_on_every_call")
async def _busy_between_calls(kit: Kit) -> None:
    async with kit.link() as link:
        first = await link.answered()
        busy = await link.dial("busy")
        second = await link.answered()
        await link.until(HANGUP, busy, patience=15)
        for call_sid in (first, second):
            await link.terminate(call_sid)


@requirement("EVT-11", Level.MUST, "duration_seconds agrees with the call's length within a second", source=_SCHEMA)
def _duration_agrees(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("waited"):
        over = trace.hangup(mark.facts["call_sid"])
        if over is not None:
            say.expect(
                abs(over.message.duration_seconds - mark.facts["seconds"]) <= _SLACK,
                expected=f"{mark.facts['seconds']:.1f} s ± {_SLACK:g}",
                seen=f"duration_seconds {over.message.duration_seconds}",
                index=over.index,
                call_sid=mark.facts["call_sid"],
            )


@programme("EVT-11", roles="answer", faults="duration_in_ms duration_zero")
async def _call_of_three_seconds(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered()
        began = trio.current_time()
        await trio.sleep(3.0)
        await link.terminate(call_sid)
        kit.mark("waited", call_sid=call_sid, seconds=trio.current_time() - began)


@requirement(
    "EVT-12",
    Level.SHOULD,
    "The packet counts of HANGUP_COMPLETE agree with what was exchanged, within 2 %",
    source=_SCHEMA,
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


@requirement("EVT-13", Level.MUST, "A far end that does not answer ends with cause 18 or 19", source=_ORDERING)
def _no_answer(trace: Trace, say: Judgement) -> None:
    _unanswered(trace, say, role="noanswer", causes=(18, 19))


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
            lasted is not None and abs(lasted - limit) <= _SLACK,
            expected=f"HANGUP_COMPLETE {limit:g} s ± {_SLACK:g} after ANSWER",
            seen="none" if lasted is None else f"after {lasted:.2f} s",
            call_sid=call_sid,
        )


@programme("EVT-14", roles="answer", timing=True, faults="max_duration_ignored max_duration_in_seconds")
async def _call_with_a_limit(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered(max_duration_ms=2000)
        kit.mark("limited", call_sid=call_sid, seconds=2.0)
        await link.until(HANGUP, call_sid, patience=5)
