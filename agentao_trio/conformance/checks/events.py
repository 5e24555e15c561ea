"""EVT: what the events of a call say, and in which order."""

from __future__ import annotations

import math

import trio

from agentao_trio.callstate import CallOrder, OrderState, Verdict
from agentao_trio.conformance import strategies
from agentao_trio.conformance.kit import PATIENCE, Kit, Link
from agentao_trio.conformance.programmes import Inconclusive, Unsupported, programme
from agentao_trio.conformance.requirements import Judgement, Level, requirement
from agentao_trio.conformance.trace import Seen, Trace
from agentao_trio.messages import CallEvent, DialplanAction, EventType

ORDERING = "Events, ordering; PROTOCOL section 10.2"
SCHEMA = "Events, CallEvent schema; PROTOCOL section 10.1"

CREATE, ANSWER, HANGUP = EventType.CHANNEL_CREATE, EventType.CHANNEL_ANSWER, EventType.CHANNEL_HANGUP_COMPLETE
HOLD, RESUME = EventType.CHANNEL_HOLD, EventType.CHANNEL_RESUME

#: Seconds of difference that a gateway's clock and ours may have about the length of a call.
SLACK = 1.0
#: Seconds without an event after which a call is quiet.
QUIET_SECONDS = 0.5


def name_of(event_type: int) -> str:
    """The event's name, or its number."""
    return EventType(event_type).name if event_type in tuple(EventType) else str(event_type)


def names(event_types: list[int]) -> str:
    """Events in a row, for people."""
    return " ".join(map(name_of, event_types)) or "no event"


def course(trace: Trace, call_sid: str) -> list[int]:
    """The events that every call has to have, and no other. The far end may hold a call whenever it likes, and a hangup
    that was not acknowledged may be told again."""
    seen = [each.message for each in trace.events(call_sid) if each.message.event_type not in (HOLD, RESUME)]
    return [
        event.event_type
        for index, event in enumerate(seen)
        if not (event.event_type == HANGUP and index and seen[index - 1] == event)
    ]


# -- order ----------------------------------------------------------------------------------------------------------


@requirement(
    "EVT-01",
    Level.MUST,
    "A call's events come in order, from CREATE to exactly one HANGUP_COMPLETE",
    source=ORDERING,
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
    await trio.sleep(0.3)


@programme(
    "EVT-01",
    roles="answer",
    faults="hangup_before_create no_create event_after_hangup two_hangups no_hangup answer_twice create_twice",
)
async def _one_call(kit: Kit) -> None:
    async with kit.link() as link:
        await end(kit, link, await link.answered())


@requirement("EVT-02", Level.MUST, "A busy far end gives CREATE, then HANGUP_COMPLETE with cause 17", source=ORDERING)
def _busy(trace: Trace, say: Judgement) -> None:
    judge_unanswered(trace, say, role="busy", causes=(17,))


def judge_unanswered(trace: Trace, say: Judgement, *, role: str, causes: tuple[int, ...]) -> None:
    """Calls to ``role`` are created and hung up, with one of the ``causes``, and nothing in between."""
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
    "EVT-03", Level.MUST, "HOLD and RESUME come in pairs, and only after ANSWER", source=ORDERING, everywhere=True
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
        # A far end may have held before, and let go: that is no answer to anybody's command.
        asked = trace.event_types(mark.facts["call_sid"])[mark.facts["before"] :]
        say.expect(
            asked.count(HOLD) == asked.count(RESUME) == 1,
            expected="one HOLD and one RESUME for HOLD and UNHOLD, both accepted",
            seen=names(trace.event_types(mark.facts["call_sid"])),
            call_sid=mark.facts["call_sid"],
        )


@programme("EVT-03", roles="answer", faults="hold_before_answer resume_missing hold_twice")
async def _hold_and_resume(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered()
        before = await _quiet_call(kit, call_sid)
        for action, event_type in ((DialplanAction.HOLD, HOLD), (DialplanAction.UNHOLD, RESUME)):
            reply = await link.execute(call_sid, action)
            if reply is not None and getattr(reply, "error_code", False):
                raise Unsupported(f"{action.name} is refused")
            await kit.until(lambda: event_type in _types(kit, call_sid)[before:] or None)  # noqa: B023 - waited for
            if action is DialplanAction.HOLD:
                await link.execute(call_sid, action)
        # None of these makes an event: the call is not held any more, and silence is not a hold.
        for action in (DialplanAction.UNHOLD, DialplanAction.MUTE, DialplanAction.UNMUTE):
            await link.execute(call_sid, action)
        await trio.sleep(0.2)
        kit.mark("held and resumed", call_sid=call_sid, before=before)
        await end(kit, link, call_sid)


async def _quiet_call(kit: Kit, call_sid: str) -> int:
    """Wait until the far end neither holds nor has just let go by itself; returns how many events came so far."""
    with trio.move_on_after(PATIENCE):
        while True:
            before = len(_types(kit, call_sid))
            await trio.sleep(QUIET_SECONDS)
            types = _types(kit, call_sid)
            if len(types) == before and HOLD not in types[-1:]:
                return before
    raise Inconclusive("the far end holds the call by itself")


def _types(kit: Kit, call_sid: str) -> list[int]:
    """What was heard of a call so far."""
    return [event.event_type for _, event in kit.heard if event.call_sid == call_sid]


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


def hangups(trace: Trace) -> list[Seen[CallEvent]]:
    """Every CHANNEL_HANGUP_COMPLETE that came."""
    return [seen for seen in trace.events() if seen.message.event_type == HANGUP]


@requirement("EVT-05", Level.MUST, "The figures of HANGUP_COMPLETE are in range", source=SCHEMA, everywhere=True)
def _figures_in_range(trace: Trace, say: Judgement) -> None:
    for seen in hangups(trace):
        event = seen.message
        for what, holds, expected in (
            ("estimated_mos", event.estimated_mos == 0 or 1 <= event.estimated_mos <= 5, "0, or 1 to 5"),
            (
                "jitter_ms",
                math.isfinite(event.jitter_ms) and 0 <= event.jitter_ms < 5_000,
                "finite, not negative, below 5 s",
            ),
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
    figures = ("q850_cause", "duration_seconds", "packets_sent", "packets_received", "packets_lost", "bytes_sent")
    for seen in trace.events():
        if seen.message.event_type != HANGUP:
            early = {name: value for name in figures if (value := getattr(seen.message, name))}
            say.expect(
                not early,
                expected="cause, duration and counts in HANGUP_COMPLETE and in no other event",
                seen=f"{name_of(seen.message.event_type)} with {early}",
                index=seen.index,
                call_sid=seen.message.call_sid,
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
    source=SCHEMA,
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
        say.expect(
            event.event_type == HANGUP or not event.end_timestamp_ms,
            expected="no end_timestamp_ms before HANGUP_COMPLETE",
            seen=f"end_timestamp_ms {event.end_timestamp_ms} in {name_of(event.event_type)}",
            index=seen.index,
            call_sid=event.call_sid,
        )
    for call_sid in trace.call_sids():
        _times_agree(trace, call_sid, say)


def _times_agree(trace: Trace, call_sid: str, say: Judgement) -> None:
    """What a call's events say of its beginning, answer and end is the same in all of them."""
    events = trace.events(call_sid)
    told = {seen.message.event_type: seen.message.timestamp_ms for seen in reversed(events)}
    for name, event_type in (
        ("start_timestamp_ms", CREATE),
        ("answer_timestamp_ms", ANSWER),
        ("end_timestamp_ms", HANGUP),
    ):
        values = {value for seen in events if (value := getattr(seen.message, name))}
        say.expect(
            len(values) <= 1,
            expected=f"one {name} in all of a call's events",
            seen=", ".join(map(str, sorted(values))),
            call_sid=call_sid,
        )
        if values and event_type in told:
            apart = max(abs(value - told[event_type]) for value in values) / 1000
            say.expect(
                apart <= SLACK,
                expected=f"{name} within {SLACK:g} s of the timestamp_ms of {event_type.name}",
                seen=f"{apart:.3f} s apart",
                call_sid=call_sid,
            )
    if CREATE in told and HANGUP in told and ANSWER not in told:
        over = trace.hangup(call_sid)
        say.expect(
            over is None or not over.message.answer_timestamp_ms,
            expected="no answer_timestamp_ms of a call that has no ANSWER",
            seen="one in HANGUP_COMPLETE",
            call_sid=call_sid,
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


@requirement(
    "EVT-08",
    Level.MUST,
    "Whatever commands a call is given, its events are legal and end with HANGUP_COMPLETE",
    source=ORDERING,
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
    "EVT-08",
    roles="answer",
    example=strategies.command_programmes(),
    calls=40,
    faults="hold_twice resume_without_hold hold_survives_hangup",
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
