"""RPC and ERR: requests, their replies, and refusals."""

from __future__ import annotations

from typing import Any

import trio

from agentao_trio import messages
from agentao_trio.conformance.checks.events import ANSWER, HANGUP, end, names
from agentao_trio.conformance.kit import Kit, Link
from agentao_trio.conformance.programmes import programme
from agentao_trio.conformance.requirements import Judgement, Level, requirement
from agentao_trio.conformance.trace import Observation, Trace, What
from agentao_trio.errors import RemoteProtocolError
from agentao_trio.messages import DialplanAction, ErrorCode, Message, MethodId

_STREAMS = "PROTOCOL section 3, stream model"
_RPC = "PROTOCOL section 9.1"
_ERRORS = "PROTOCOL section 12"

#: Seconds for a reply, and what 95 of 100 should take.
_REPLY_WITHIN, _REPLY_P95 = 3.0, 0.5


def reply_of(answer: Observation) -> Message | None:
    """The message in a reply; None for none, and for one that cannot be read."""
    try:
        return Trace.decoded_reply(answer)[1]
    except RemoteProtocolError:
        return None


def is_refusal(answer: Observation) -> bool:
    """Whether a reply says no: by an error code, an error's words, a reset stream."""
    reply = reply_of(answer)
    if answer.note == "reset":
        return True
    return reply is not None and bool(getattr(reply, "error_code", False) or getattr(reply, "error_message", ""))


@requirement(
    "RPC-01", Level.MUST, "A reply comes on its request's own stream, within 3 s", source=_STREAMS, everywhere=True
)
def _on_its_own_stream(trace: Trace, say: Judgement) -> None:
    for method in (MethodId.Originate, MethodId.Terminate):
        for request, answer in trace.replies(method):
            say.expect(
                answer.note in ("fin", "reset", "lost"),
                expected=f"the end of the stream within {_REPLY_WITHIN:g} s of {method.name}",
                seen=f"still open after {answer.at - request.at:.1f} s",
            )


@programme("RPC-01", roles="answer", faults="reply_never_ends")
async def _one_call(kit: Kit) -> None:
    async with kit.link() as link:
        await end(kit, link, await link.answered())


@requirement("RPC-02", Level.MUST, "The call_sid of the reply is that of the events", source=_RPC, everywhere=True)
def _same_sid(trace: Trace, say: Judgement) -> None:
    placed = trace.placed()
    for call_sid in dict.fromkeys([*trace.call_sids(), *(seen.message.call_sid for seen in trace.audio())]):
        similar = [each for each in placed if _similar(each, call_sid)]
        say.expect(
            call_sid in placed or not similar,
            expected=f"the call_sid {similar[0]!r} as it was given" if similar else "",
            seen=ascii(call_sid),
            call_sid=call_sid,
        )
    if trace.marks("two names"):
        _replies_name_events(trace, say)


def _similar(one: str, other: str) -> bool:
    """Whether one name may be what became of the other: cut, trimmed, in capitals."""
    one, other = one.casefold(), other.casefold().strip("\0 \t\r\n")
    return len(other) >= 8 and one.startswith(other)


def _replies_name_events(trace: Trace, say: Judgement) -> None:
    for request, answer in trace.replies(MethodId.Originate):
        reply = reply_of(answer)
        if isinstance(reply, messages.OriginateResponse) and not reply.error_code:
            say.expect(
                bool(trace.events(reply.call_sid, link=request.link)),
                expected=f"events of the call {reply.call_sid!r} that the reply names",
                seen=f"events of {', '.join(map(repr, trace.call_sids())) or 'no call'}",
                call_sid=reply.call_sid,
            )


@programme("RPC-02", roles="answer", calls=2, faults="reply_names_another_call")
async def _named_by_either(kit: Kit) -> None:
    async with kit.link() as link:
        for asked in (kit.new_sid(), ""):
            await kit.limits.acquire()
            request = messages.OriginateRequest(
                trunk_id=kit.profile.trunk,
                to=kit.profile.destination("answer"),
                call_sid=asked,
                client_id=kit.client_id,
                default_app=DialplanAction.ANSWER,
                max_duration_ms=20_000,
            )
            reply = await link.ask(request)
            call_sid = reply.call_sid if reply is not None else asked
            kit.placed(link, call_sid)
            await link.until(ANSWER, call_sid)
            await link.terminate(call_sid)
        kit.mark("two names")


@requirement("RPC-03", Level.MUST, "Calls placed at the same time have different sids", source=_RPC)
def _distinct(trace: Trace, say: Judgement) -> None:
    sids = [
        reply.call_sid
        for _, answer in trace.replies(MethodId.Originate)
        if isinstance(reply := reply_of(answer), messages.OriginateResponse) and not reply.error_code
    ]
    if len(sids) > 1:
        say.expect(len(set(sids)) == len(sids), expected=f"{len(sids)} names", seen=f"{len(set(sids))}: {set(sids)}")


@programme("RPC-03", roles="answer", calls=8, faults="shared_call_sid")
async def _eight_at_once(kit: Kit) -> None:
    async with kit.link() as link:
        async with trio.open_nursery() as nursery:
            for _ in range(min(8, kit.limits.concurrency or 8)):
                nursery.start_soon(link.unnamed_call)
        for call_sid in list(kit.open_calls):
            await link.until(ANSWER, call_sid)


@requirement(
    "RPC-04", Level.MUST, "A request has one reply, and then the stream ends", source=_STREAMS, everywhere=True
)
def _one_reply(trace: Trace, say: Judgement) -> None:
    for index, answer in trace.of(What.REPLY):
        if answer.note != "fin" or not answer.data:
            continue
        try:
            Trace.decoded_reply(answer)
            good = True
        except RemoteProtocolError:
            good = False
        say.expect(
            good,
            expected="one reply: a frame with the request's method id, or a bare envelope, and nothing behind it",
            seen=f"{len(answer.data)} bytes: {answer.data[:24].hex(' ')}",
            index=index,
        )


@programme("RPC-04", roles="answer", faults="two_replies reply_of_another_method")
async def _one_call_more(kit: Kit) -> None:
    async with kit.link() as link:
        await end(kit, link, await link.answered())


@requirement("RPC-05", Level.MUST, "HOLD on a call that was not answered is refused, and makes no event", source=_RPC)
def _hold_too_early(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("held while ringing"):
        call_sid = mark.facts["call_sid"]
        say.expect(
            4 not in trace.event_types(call_sid),
            expected="no CHANNEL_HOLD before CHANNEL_ANSWER",
            seen=names(trace.event_types(call_sid)),
            call_sid=call_sid,
        )
        for _, answer in trace.replies(MethodId.ExecuteDialplan):
            say.expect(is_refusal(answer), expected="an error in the reply", seen=_shown(answer), call_sid=call_sid)


@programme("RPC-05", roles="noanswer", faults="hold_while_ringing hold_before_answer_accepted")
async def _hold_while_ringing(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.dial("noanswer")
        await link.execute(call_sid, DialplanAction.HOLD)
        await trio.sleep(0.3)
        kit.mark("held while ringing", call_sid=call_sid)
        await link.terminate(call_sid)


@requirement("RPC-06", Level.MUST, "A second Terminate is refused, and there is one HANGUP_COMPLETE", source=_RPC)
def _terminated_twice(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("terminated twice"):
        call_sid = mark.facts["call_sid"]
        say.expect(
            trace.event_types(call_sid).count(HANGUP) == 1,
            expected="one CHANNEL_HANGUP_COMPLETE",
            seen=names(trace.event_types(call_sid)),
            call_sid=call_sid,
        )
        for _, second in trace.replies(MethodId.Terminate)[1:]:
            say.expect(is_refusal(second), expected="an error for the second Terminate", seen=_shown(second))


@programme("RPC-06", roles="answer", faults="second_terminate_accepted two_hangups")
async def _terminate_twice(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered()
        await link.terminate(call_sid)
        await link.terminate(call_sid, wait=False)
        await trio.sleep(0.5)
        kit.mark("terminated twice", call_sid=call_sid)


@requirement("RPC-07", Level.SHOULD, "A call_sid that is used twice dials once", source=_RPC)
def _dials_once(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("placed twice"):
        call_sid = mark.facts["call_sid"]
        say.expect(
            trace.event_types(call_sid).count(1) <= 1,
            expected="one CHANNEL_CREATE for one call_sid",
            seen=names(trace.event_types(call_sid)),
            call_sid=call_sid,
        )


@programme("RPC-07", roles="answer", calls=2, disturbs=True, faults="repeated_sid_dials_again")
async def _place_twice(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered()
        request = messages.OriginateRequest(
            trunk_id=kit.profile.trunk,
            to=kit.profile.destination("answer"),
            call_sid=call_sid,
            client_id=kit.client_id,
            default_app=DialplanAction.ANSWER,
            max_duration_ms=20_000,
        )
        await link.ask(request)
        await trio.sleep(0.7)
        kit.mark("placed twice", call_sid=call_sid)
        await link.terminate(call_sid)


@requirement("RPC-08", Level.SHOULD, "95 of 100 replies come within half a second", source=_RPC)
def _prompt(trace: Trace, say: Judgement) -> None:
    waits = sorted(
        answer.at - request.at
        for method in (MethodId.Originate, MethodId.Terminate, MethodId.GetIncomingCalls)
        for request, answer in trace.replies(method)
        if answer.data
    )
    if len(waits) >= 10:
        p95 = waits[int(0.95 * (len(waits) - 1))]
        say.expect(p95 <= _REPLY_P95, expected=f"p95 ≤ {_REPLY_P95:g} s", seen=f"{p95:.3f} s of {len(waits)} replies")
        say.report(f"replies: median {1000 * waits[len(waits) // 2]:.0f} ms, p95 {1000 * p95:.0f} ms")


@programme("RPC-08", timing=True, faults="slow_replies")
async def _twenty_questions(kit: Kit) -> None:
    async with kit.link() as link:
        for _ in range(20):
            await link.ask(messages.GetIncomingCallsRequest(trunk_id=kit.profile.trunk))


# -- ERR ------------------------------------------------------------------------------------------------------------


async def _refused(kit: Kit, link: Link, mark: str, **fields: Any) -> None:
    call_sid = kit.new_sid()
    request = messages.OriginateRequest(
        **{
            "trunk_id": kit.profile.trunk,
            "to": kit.profile.destinations.get("answer", "+15550100001"),
            "call_sid": call_sid,
            "client_id": kit.client_id,
            "default_app": DialplanAction.ANSWER,
            "max_duration_ms": 5_000,
            **fields,
        }
    )
    await kit.limits.acquire()
    kit.placed(link, call_sid)
    reply = await link.ask(request)
    await trio.sleep(0.7)
    if reply is not None and reply.error_code:
        kit.forget(call_sid)
    kit.mark(mark, call_sid=call_sid)


def _judge_refusal(trace: Trace, say: Judgement, mark: str, code: ErrorCode) -> None:
    for each in trace.marks(mark):
        for _, answer in trace.replies(MethodId.Originate):
            reply = reply_of(answer)
            say.expect(
                isinstance(reply, messages.OriginateResponse) and reply.error_code == code,
                expected=f"error_code {int(code)} ({code.name})",
                seen=_shown(answer),
            )
        types = trace.event_types(each.facts["call_sid"])
        say.expect(not types, expected="no event of a call that was refused", seen=names(types))


@requirement("ERR-01", Level.MUST, "An unknown trunk is refused with ERR_INVALID_TRUNK, and no event", source=_ERRORS)
def _invalid_trunk(trace: Trace, say: Judgement) -> None:
    _judge_refusal(trace, say, "unknown trunk", ErrorCode.ERR_INVALID_TRUNK)


@programme("ERR-01", roles="answer", faults="any_trunk_accepted wrong_error_code events_of_refused_calls")
async def _unknown_trunk(kit: Kit) -> None:
    async with kit.link() as link:
        await _refused(kit, link, "unknown trunk", trunk_id="invalid-no-such-trunk")


@requirement("ERR-02", Level.MUST, "Terminate of an unknown call is refused", source=_ERRORS)
def _unknown_call(trace: Trace, say: Judgement) -> None:
    for _ in trace.marks("unknown call"):
        for _, answer in trace.replies(MethodId.Terminate):
            say.expect(is_refusal(answer), expected="an error in the reply", seen=_shown(answer))


@programme("ERR-02", faults="unknown_call_terminated")
async def _terminate_nothing(kit: Kit) -> None:
    async with kit.link() as link:
        await link.terminate(f"{kit.client_id}-never-placed", wait=False)
        kit.mark("unknown call")


@requirement("ERR-03", Level.SHOULD, "A refusal has a status that says so, and a message", source=_ERRORS)
def _refusals_explain(trace: Trace, say: Judgement) -> None:
    for method in (MethodId.Originate, MethodId.Terminate):
        for _, answer in trace.replies(method):
            reply = reply_of(answer)
            if reply is None:
                continue
            status, message = getattr(reply, "status", ""), getattr(reply, "error_message", "")
            if not getattr(reply, "error_code", False):
                say.expect(
                    not message and "FAIL" not in status.upper(),
                    expected="neither an error_message nor a status FAILED without an error_code",
                    seen=f"status {status!r}, error_message {message!r}",
                )
            else:
                say.expect(
                    bool(message) and status.upper() not in ("", "OK", "SUCCESS", "INITIATED", "COMPLETED"),
                    expected="an error_message, and a status such as FAILED",
                    seen=f"status {status!r}, error_message {message!r}",
                )


@programme("ERR-03", faults="refusal_without_words refusal_looks_good")
async def _be_refused(kit: Kit) -> None:
    async with kit.link() as link:
        await link.terminate(f"{kit.client_id}-never-placed", wait=False)
        await _refused(kit, link, "unknown trunk", trunk_id="invalid-no-such-trunk")
        await end(kit, link, await link.answered())


@requirement("ERR-04", Level.MUST, "A destination that is none is refused with ERR_INVALID_DESTINATION", source=_ERRORS)
def _invalid_destination(trace: Trace, say: Judgement) -> None:
    _judge_refusal(trace, say, "invalid destination", ErrorCode.ERR_INVALID_DESTINATION)


@programme("ERR-04", roles="invalid", faults="any_destination_accepted")
async def _no_destination(kit: Kit) -> None:
    async with kit.link() as link:
        await _refused(kit, link, "invalid destination", to=kit.profile.destination("invalid"))


def _shown(answer: Observation) -> str:
    reply = reply_of(answer)
    if reply is None:
        return f"a reply of {len(answer.data)} bytes ({answer.note})"
    return ", ".join(
        f"{name} {getattr(reply, name)!r}" for name in ("status", "error_code", "error_message") if hasattr(reply, name)
    )
