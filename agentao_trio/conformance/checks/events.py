"""EVT: what the events of a call say, and in which order."""

from __future__ import annotations

from agentao_trio.callstate import CallOrder, Verdict
from agentao_trio.conformance.kit import Kit
from agentao_trio.conformance.programmes import programme
from agentao_trio.conformance.requirements import Judgement, Level, requirement
from agentao_trio.conformance.trace import Trace
from agentao_trio.messages import EventType

_ORDERING = "Events, ordering"


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
            event = seen.message
            verdict = order.feed(event.event_type, event.timestamp_ms)
            say.expect(
                verdict in (Verdict.IN_ORDER, Verdict.DUPLICATE, Verdict.UNKNOWN),
                expected="CREATE, then ANSWER if it is answered, HOLD and RESUME in turns, HANGUP_COMPLETE last",
                seen=f"{_name(event.event_type)} in the state {order.state.name} ({verdict.value})",
                index=seen.index,
                call_sid=call_sid,
            )
    for mark in trace.marks("terminated"):
        call_sid = mark.facts["call_sid"]
        say.expect(
            trace.hangup(call_sid) is not None,
            expected="HANGUP_COMPLETE within 5 s of Terminate",
            seen=f"{[_name(each) for each in trace.event_types(call_sid)]}",
            call_sid=call_sid,
        )


@programme("EVT-01", roles="answer", faults="hangup_before_create no_create event_after_hangup no_hangup")
async def _one_call(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered()
        await link.terminate(call_sid)
        kit.mark("terminated", call_sid=call_sid)


def _name(event_type: int) -> str:
    return EventType(event_type).name if event_type in tuple(EventType) else str(event_type)
