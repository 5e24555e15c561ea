"""SUB: who is told of which call."""

from __future__ import annotations

from typing import Any

import trio

from agentao_trio import messages
from agentao_trio.conformance.checks.events import ANSWER, CREATE, HANGUP, course, end, names
from agentao_trio.conformance.kit import Kit
from agentao_trio.conformance.programmes import programme
from agentao_trio.conformance.requirements import Judgement, Level, requirement
from agentao_trio.conformance.trace import Seen, Trace, What
from agentao_trio.messages import MethodId

_SOURCE = "Events, subscribing; PROTOCOL section 3"


@requirement(
    "SUB-01",
    Level.MUST,
    "Events come on unidirectional streams that the gateway opens, and nowhere else",
    source=_SOURCE,
    everywhere=True,
)
def _only_on_uni_streams(trace: Trace, say: Judgement) -> None:
    for seen in trace.events():
        stream = seen.observation.stream
        say.expect(
            stream is not None and stream % 4 == 3,
            expected="a stream the gateway opened, unidirectional (its id is 3 modulo 4)",
            seen=f"stream {stream}",
            index=seen.index,
            call_sid=seen.message.call_sid,
        )
    for index, answer in trace.of(What.REPLY):
        if answer.method == MethodId.StreamEvents and answer.note == "fin":
            say.expect(
                len(answer.data) <= 64,
                expected="no event in the reply to StreamEvents",
                seen=f"{len(answer.data)} bytes",
                index=index,
            )


@programme("SUB-01", roles="answer", faults="events_in_reply")
async def _one_call(kit: Kit) -> None:
    async with kit.link() as link:
        await end(kit, link, await link.answered())


@requirement("SUB-02", Level.MUST, "Every event echoes the subscription's client_id", source=_SOURCE, everywhere=True)
def _echoes_client_id(trace: Trace, say: Judgement) -> None:
    subscribed: dict[str, list[str]] = {}
    for _, request in trace.of(What.REQUEST):
        if request.method == MethodId.StreamEvents and len(request.data) > 8:
            asked = messages.decode(messages.EventStreamRequest, request.data[8:])
            subscribed.setdefault(request.link, []).append(asked.client_id)
    for seen in trace.events():
        ours = subscribed.get(seen.observation.link, [])
        say.expect(
            seen.message.client_id in ours,
            expected=f"client_id {' or '.join(map(repr, ours))}",
            seen=f"client_id {seen.message.client_id!r}",
            index=seen.index,
            call_sid=seen.message.call_sid,
        )


@programme("SUB-02", roles="answer", faults="client_id_missing client_id_of_another")
async def _one_call_with_a_name(kit: Kit) -> None:
    async with kit.link() as link:
        await end(kit, link, await link.answered())


@requirement("SUB-03", Level.MUST, "A client hears of its own calls only", source=_SOURCE)
def _isolated(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("bystander"):
        others: list[Seen[Any]] = [*trace.events(link=mark.facts["link"]), *trace.audio(link=mark.facts["link"])]
        say.expect(
            not others,
            expected=f"nothing for {mark.facts['client_id']}, which placed no call",
            seen=f"{len(others)} frames, the first of call {others[0].message.call_sid}" if others else "nothing",
            index=others[0].index if others else None,
        )


@programme("SUB-03", roles="answer", faults="events_to_everybody audio_to_everybody")
async def _a_bystander(kit: Kit) -> None:
    async with kit.link("B", subscribe=False) as bystander:
        name = f"{kit.client_id}-bystander"
        await bystander.subscribe(name)
        async with kit.link("A") as link:
            call_sid = await link.answered()
            await link.say_paced(call_sid, [bytes(160)] * 10)
            await end(kit, link, call_sid)
        kit.mark("bystander", link="B", client_id=name)


@requirement("SUB-04", Level.SHOULD, "Subscribing twice does not double the events", source=_SOURCE)
def _not_doubled(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("subscribed twice"):
        types = trace.event_types(mark.facts["call_sid"])
        say.expect(
            course(trace, mark.facts["call_sid"]) == [CREATE, ANSWER, HANGUP],
            expected=names([CREATE, ANSWER, HANGUP]),
            seen=names(types),
            call_sid=mark.facts["call_sid"],
        )


@programme("SUB-04", roles="answer", faults="resubscription_doubles")
async def _subscribe_twice(kit: Kit) -> None:
    async with kit.link() as link:
        await link.subscribe()
        call_sid = await link.answered()
        await end(kit, link, call_sid)
        kit.mark("subscribed twice", call_sid=call_sid)


@requirement("SUB-05", Level.SHOULD, "A session that was idle for 30 s is still of use", source=_SOURCE)
def _idle(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("after 30 s"):
        say.expect(
            trace.hangup(mark.facts["call_sid"]) is not None,
            expected="a whole call after 30 s without a request",
            seen=names(trace.event_types(mark.facts["call_sid"])),
            call_sid=mark.facts["call_sid"],
        )


@programme("SUB-05", roles="answer", waits=30.0, faults="idle_subscription_forgotten")
async def _idle_for_30_seconds(kit: Kit) -> None:
    async with kit.link() as link:
        await trio.sleep(30)
        call_sid = await link.dial(wait=False)
        kit.mark("after 30 s", call_sid=call_sid)
        await link.until(ANSWER, call_sid)
        await end(kit, link, call_sid)


@requirement("SUB-06", Level.MUST, "Without a subscription there are no events", source=_SOURCE)
def _unsubscribed(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("never subscribed"):
        events = trace.events(link=mark.facts["link"])
        say.expect(
            not events,
            expected="no event on a connection that never sent StreamEvents",
            seen=names([seen.message.event_type for seen in events]),
            index=events[0].index if events else None,
        )


@programme("SUB-06", roles="answer", faults="events_without_subscription")
async def _never_subscribe(kit: Kit) -> None:
    async with kit.link(subscribe=False) as link:
        call_sid = await link.dial(wait=False)
        await trio.sleep(2.0)
        await link.terminate(call_sid, wait=False)
        await trio.sleep(0.5)
        kit.mark("never subscribed", link="A")


@requirement(
    "SUB-07", Level.INFO, "Two connections with one client_id: who hears?", source="PROTOCOL section 10.3: unspecified"
)
def _two_of_one_name(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("two of one name"):
        heard = {link: len(trace.events(mark.facts["call_sid"], link=link)) for link in ("A", "B")}
        say.report(f"the older connection hears {heard['A']} events of a new call, the newer one {heard['B']}")


@programme("SUB-07", roles="answer")
async def _two_connections(kit: Kit) -> None:
    async with kit.link("A"), kit.link("B") as newer:
        call_sid = await newer.dial(wait=False)
        await trio.sleep(1.5)
        kit.mark("two of one name", call_sid=call_sid)
        await newer.terminate(call_sid, wait=False)
        await trio.sleep(0.5)
