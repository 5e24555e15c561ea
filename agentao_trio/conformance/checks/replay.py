"""RPL: what a client is told that was away: for a moment, for a second, for minutes.

What happens while the first connection is away is made to happen by a second one, the controller: a Terminate. The
controller has a client_id of its own and hears of nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from agentao_trio.conformance.checks.events import ANSWER, CREATE, HANGUP, names
from agentao_trio.conformance.kit import Kit, Link
from agentao_trio.conformance.programmes import programme
from agentao_trio.conformance.requirements import Judgement, Level, requirement
from agentao_trio.conformance.trace import Trace

_WITHIN = "Events, reconnect behaviour: within a session; PROTOCOL section 10.3"
_ACROSS = "Events, reconnect behaviour: across sessions; PROTOCOL section 10.3"

#: Seconds for what is replayed to arrive.
_ARRIVES = 5.0


@asynccontextmanager
async def controller(kit: Kit) -> AsyncIterator[Link]:
    """A connection that makes things happen and subscribes to nothing of interest."""
    async with kit.link("C", subscribe=False) as link:
        await link.subscribe(f"{kit.client_id}-controller")
        yield link


def stop(link: Link) -> None:
    """STOP_SENDING on every stream the gateway has opened: it has to reset them, and open others."""
    for inbound in link.inbound.values():
        inbound.stream.stop(0)


@asynccontextmanager
async def gap(link: Link) -> AsyncIterator[None]:
    """What the gateway sends meanwhile is lost on the way, and the streams it is on are stopped before it can be
    repeated."""
    link.wire.deaf = True
    yield
    await trio.sleep(0.2)
    stop(link)
    await trio.sleep(0.1)
    link.wire.deaf = False


@asynccontextmanager
async def gone(kit: Kit, link: Link) -> AsyncIterator[None]:
    """The connection is closed, as by a client that goes away; the calls stay."""
    for call_sid in [sid for sid, owner in kit.open_calls.items() if owner is link]:
        kit.forget(call_sid)
    await link.connection.aclose()
    kit.mark("away")
    yield


# -- within a session -----------------------------------------------------------------------------------------------


@requirement("RPL-01", Level.MUST, "A HANGUP_COMPLETE that fell into a gap of the stream is sent again", source=_WITHIN)
def _hangup_in_a_gap(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("ended in a gap"):
        over = [seen for seen in trace.events(mark.facts["call_sid"]) if seen.message.event_type == HANGUP]
        say.expect(
            bool(over),
            expected="HANGUP_COMPLETE on a new stream, after the old one was stopped",
            seen=names(trace.event_types(mark.facts["call_sid"])),
            call_sid=mark.facts["call_sid"],
        )
    _copies_agree(trace, say)


@programme("RPL-01", roles="answer", disturbs=True, faults="no_replay_after_reset")
async def _end_in_a_gap(kit: Kit) -> None:
    async with kit.link("A") as link, controller(kit) as other:
        call_sid = await link.answered()
        async with gap(link):
            await other.terminate(call_sid, wait=False)
        kit.mark("ended in a gap", call_sid=call_sid)
        await link.until(HANGUP, call_sid, patience=_ARRIVES)


@requirement("RPL-02", Level.MUST, "Events of the middle of a call are not sent again within a session", source=_WITHIN)
def _no_middle(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("stopped in mid-call"):
        call_sid = mark.facts["call_sid"]
        again = [
            seen
            for seen in trace.events(call_sid)
            if seen.at >= mark.at and seen.message.event_type in (CREATE, ANSWER)
        ]
        say.judged += 1
        for seen in again:
            say.expect(
                False,
                expected="no CREATE and no ANSWER after the stream was stopped: they had come",
                seen=names([seen.message.event_type]),
                index=seen.index,
                call_sid=call_sid,
            )


@programme("RPL-02", roles="answer", disturbs=True, faults="mid_call_events_replayed")
async def _stop_in_mid_call(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered()
        await trio.sleep(0.5)  # what has come is acknowledged by now
        kit.mark("stopped in mid-call", call_sid=call_sid)
        stop(link)
        await trio.sleep(1.5)
        await link.terminate(call_sid)


@requirement("RPL-06", Level.SHOULD, "An old HANGUP_COMPLETE does not come again at every reset", source=_WITHIN)
def _not_at_every_reset(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("stopped again and again"):
        over = [seen for seen in trace.events(mark.facts["old"]) if seen.message.event_type == HANGUP]
        say.expect(
            len(over) <= 2,
            expected="the HANGUP_COMPLETE of a call that ended long before, once",
            seen=f"{len(over)} times",
            call_sid=mark.facts["old"],
        )


@programme("RPL-06", roles="answer", disturbs=True, calls=2, faults="hangups_replayed_at_every_reset")
async def _stop_again_and_again(kit: Kit) -> None:
    async with kit.link() as link:
        old = await link.answered()
        await link.terminate(old)
        await trio.sleep(1.0)
        call_sid = await link.answered()
        for _ in range(3):
            stop(link)
            await trio.sleep(0.5)
        kit.mark("stopped again and again", old=old)
        await link.terminate(call_sid)


@requirement("RPL-08", Level.MUST, "Of two HANGUP_COMPLETEs in one gap both come", source=_WITHIN)
def _two_in_a_gap(trace: Trace, say: Judgement) -> None:
    _hangup_in_a_gap(trace, say)


@programme("RPL-08", roles="answer", disturbs=True, calls=2, faults="only_latest_hangup_replayed")
async def _two_end_in_a_gap(kit: Kit) -> None:
    async with kit.link("A") as link, controller(kit) as other:
        calls = [await link.answered(), await link.answered()]
        async with gap(link):
            for call_sid in calls:
                await other.terminate(call_sid, wait=False)
        for call_sid in calls:
            kit.mark("ended in a gap", call_sid=call_sid)
        for call_sid in calls:
            await link.until(HANGUP, call_sid, patience=_ARRIVES)


# -- across sessions ------------------------------------------------------------------------------------------------


@requirement(
    "RPL-03",
    Level.MUST,
    "What happened while a client was away for a second comes when it is back, in order",
    source=_ACROSS,
)
def _away_a_second(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("back"):
        for call_sid in mark.facts["calls"]:
            types = trace.event_types(call_sid, link="B")
            say.expect(
                HANGUP in types,
                expected=f"HANGUP_COMPLETE after {mark.facts['away']:g} s away",
                seen=names(types),
                call_sid=call_sid,
            )
        _copies_agree(trace, say)
        came = [seen for seen in trace.events(link="B") if seen.message.call_sid in mark.facts["calls"]]
        stamps = [seen.message.timestamp_ms for seen in came]
        say.expect(
            stamps == sorted(stamps),
            expected="events in the order they happened",
            seen=", ".join(f"{names([seen.message.event_type])} {seen.message.timestamp_ms}" for seen in came),
        )


def _copies_agree(trace: Trace, say: Judgement) -> None:
    """An event that is sent again is the same one: its type and timestamp are what it is recognised by."""
    for call_sid in trace.call_sids():
        for event_type in (CREATE, ANSWER, HANGUP):
            stamps = {
                seen.message.timestamp_ms for seen in trace.events(call_sid) if seen.message.event_type == event_type
            }
            say.expect(
                len(stamps) <= 1,
                expected=f"one timestamp_ms in all copies of {event_type.name}",
                seen=", ".join(map(str, sorted(stamps))),
                call_sid=call_sid,
            )


async def _be_away(kit: Kit, seconds: float, *, ends: int = 2) -> None:
    """Place calls, go away, have them ended one after the other, and come back."""
    async with controller(kit) as other:
        async with kit.link("A") as link:
            calls = [await link.answered() for _ in range(ends)]
            stays = await link.answered() if seconds < 30 else ""
            await trio.sleep(0.3)  # what has come is acknowledged by now
            async with gone(kit, link):
                pass
        await trio.sleep(0.3)
        for call_sid in calls:
            await other.terminate(call_sid, wait=False)
            await trio.sleep(0.1)
        await trio.sleep(seconds)
        async with kit.link("B") as back:
            for call_sid in calls:
                await back.until(HANGUP, call_sid, patience=_ARRIVES)
            if stays:
                kit.placed(back, stays)
                await trio.sleep(0.3)
            kit.mark("back", calls=calls, away=seconds)


@programme("RPL-03", roles="answer", disturbs=True, calls=3, faults="no_buffer buffer_reversed")
async def _away_one_second(kit: Kit) -> None:
    await _be_away(kit, 1.0)


@requirement("RPL-04", Level.MUST, "An event of 100 s ago is still there", source=_ACROSS)
def _hundred_seconds(trace: Trace, say: Judgement) -> None:
    _away_a_second(trace, say)


@programme("RPL-04", roles="answer", slow=True, waits=100.0, disturbs=True, faults="buffer_of_30_s")
async def _away_100_seconds(kit: Kit) -> None:
    await _be_away(kit, 100.0, ends=1)


@requirement("RPL-05", Level.MUST, "An event of 130 s ago is gone", source=_ACROSS)
def _too_old(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("back"):
        for call_sid in mark.facts["calls"]:
            types = trace.event_types(call_sid, link="B")
            say.expect(
                HANGUP not in types,
                expected="nothing of 130 s ago: the buffer holds 120 s",
                seen=names(types),
                call_sid=call_sid,
            )


@programme("RPL-05", roles="answer", slow=True, waits=130.0, disturbs=True, faults="buffer_for_ever")
async def _away_130_seconds(kit: Kit) -> None:
    await _be_away(kit, 130.0, ends=1)


@requirement(
    "RPL-07", Level.MUST, "A HANGUP_COMPLETE that was never acknowledged comes again after reconnecting", source=_ACROSS
)
def _unacknowledged(trace: Trace, say: Judgement) -> None:
    _away_a_second(trace, say)


@programme("RPL-07", roles="answer", disturbs=True, faults="unacknowledged_forgotten")
async def _go_deaf(kit: Kit) -> None:
    async with controller(kit) as other:
        async with kit.link("A") as link:
            call_sid = await link.answered()
            link.wire.deaf = link.wire.mute = True
            await other.terminate(call_sid, wait=False)
            kit.forget(call_sid)
            await trio.sleep(1.0)
            kit.mark("away")
        async with kit.link("B") as back:
            await back.until(HANGUP, call_sid, patience=_ARRIVES)
            kit.mark("back", calls=[call_sid], away=1.0)


@requirement("RPL-09", Level.MUST, "What is kept for one client_id never reaches another", source=_ACROSS)
def _never_another(trace: Trace, say: Judgement) -> None:
    for _ in trace.marks("another"):
        got = trace.events(link="D")
        say.expect(
            not got,
            expected="no event for a client_id that placed no call",
            seen=names([seen.message.event_type for seen in got]),
            index=got[0].index if got else None,
        )


@programme("RPL-09", roles="answer", disturbs=True, faults="buffer_to_anybody")
async def _another_comes(kit: Kit) -> None:
    async with controller(kit) as other:
        async with kit.link("A") as link:
            call_sid = await link.answered()
            async with gone(kit, link):
                pass
        await other.terminate(call_sid, wait=False)
        async with kit.link("D", subscribe=False) as stranger:
            await stranger.subscribe(f"{kit.client_id}-stranger")
            await trio.sleep(1.5)
            kit.mark("another")
