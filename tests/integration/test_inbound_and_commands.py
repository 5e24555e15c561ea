"""Calls that come in, the verbs of a call, the RPCs of a session: against a gateway whose every word is scripted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from agentao_trio import (
    ActiveCall,
    CallAnswerFailed,
    CallEnded,
    CallOverrun,
    CallState,
    CallStateError,
    CommandRejected,
    CommandTimeout,
    EventsOverrun,
    EventType,
    InboundRule,
    LocalProtocolError,
    RemoteProtocolError,
    messages,
)
from agentao_trio.events import CallEvent
from agentao_trio.hub import Hub
from agentao_trio.inbound import WAITING_CALLS
from agentao_trio.messages import DialplanAction, ErrorCode, MethodId, SuperviseMode
from agentao_trio.records import Record
from agentao_trio.summaries import summarised
from agentao_trio.testing import MemoryNetwork
from agentao_trio.wire import encode_frame
from tests.support.scripted_gateway import ANSWER, CREATE, HANGUP, ScriptedGateway, answered_call, session_on

TO = "+15550100001"


class Switchboard(ScriptedGateway):
    """``waiting``: the names and the callers of the calls that wait to be answered."""

    def __init__(self, answer: Any) -> None:
        super().__init__(answer)
        self.waiting: list[tuple[str, str]] = []


def switchboard(*, error: int = 0) -> Switchboard:
    """A gateway that says yes, or ``error``, to everything, and pushes the events that a yes brings about."""

    async def answer(method: MethodId, request: Any) -> Any:
        match method:
            case MethodId.Originate:
                return messages.OriginateResponse(call_sid=request.call_sid)
            case MethodId.Terminate:
                await gateway.event(request.call_sid, HANGUP, q850_cause=16)
                return messages.TerminateResponse(call_sid=request.call_sid)
            case MethodId.AnswerIncomingCall:
                if not error:
                    await gateway.event(request.call_sid, ANSWER)
                return messages.AnswerIncomingCallResponse(call_sid=request.call_sid, error_code=error)
            case MethodId.ExecuteDialplan:
                return messages.ExecuteDialplanResponse(error_code=error, error_message="no" if error else "")
            case MethodId.GetIncomingCalls:
                calls = [messages.IncomingCallInfo(call_sid=sid, call_from=caller) for sid, caller in gateway.waiting]
                return messages.GetIncomingCallsResponse(calls=calls)
            case MethodId.OriginateBulk:
                return messages.BulkResponse(status="LOADED", loaded_numbers=3)
            case MethodId.AbortBulk:
                return messages.BulkResponse(status="ABORTED")
            case MethodId.GetActiveBuckets:
                return messages.ListBucketsResponse(buckets=[messages.BucketInfo(bucket_id="b", pending_count=2)])
            case MethodId.GetBucketCalls:
                return messages.BucketCallList(call_sids="a, b,c")
            case MethodId.ExecuteBucketAction:
                return messages.BucketActionResponse(processed_count=request.action)
            case MethodId.SuperviseSubscribe:
                return messages.SuperviseSubscribeResponse(error_message="no such call" if error else "")
            case _:
                return messages.Empty()

    gateway = Switchboard(answer)
    return gateway


# -- calls that come in ---------------------------------------------------------------------------------------------


async def test_a_call_that_is_announced_and_listed_surfaces_once_with_its_caller(autojump_clock: MockClock) -> None:
    gateway = switchboard()
    async with session_on(gateway, trunks=["main"]) as session:
        incoming = session.incoming()
        await trio.sleep(0.1)
        gateway.waiting = [("in-1", "+15550109999")]
        await gateway.event("in-1", CREATE)
        call = await anext(incoming)
        assert (call.call_sid, call.caller, call.state) == ("in-1", "+15550109999", CallState.PENDING)
        with trio.move_on_after(5) as nothing_more:
            await anext(incoming)
        assert nothing_more.cancelled_caught
        await call.answer()
        assert call.state is CallState.ANSWERED
        with pytest.raises(CallStateError):
            await call.answer()


async def test_a_call_that_comes_while_the_gateway_is_answering_keeps_its_caller(autojump_clock: MockClock) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        if method is not MethodId.GetIncomingCalls:
            return None
        response = messages.GetIncomingCallsResponse(calls=list(waiting))
        if not waiting:
            waiting.append(messages.IncomingCallInfo(call_sid="in-1", call_from="+15550109999"))
            await gateway.event("in-1", CREATE)
            await trio.sleep(0.2)
        return response

    waiting: list[messages.IncomingCallInfo] = []
    gateway = ScriptedGateway(answer)
    async with session_on(gateway, trunks=["main"]) as session:
        call = await anext(session.incoming())
        assert (call.call_sid, call.caller) == ("in-1", "+15550109999")


@pytest.mark.parametrize("trouble", ["connection lost", "garbage", "late"])
async def test_a_call_waits_for_its_caller_until_the_gateway_has_answered(
    trouble: str, autojump_clock: MockClock
) -> None:
    rounds = 0

    async def answer(method: MethodId, request: Any) -> Any:
        nonlocal rounds
        if method is not MethodId.GetIncomingCalls:
            return None
        rounds += 1
        if rounds == 1:
            return messages.GetIncomingCallsResponse()
        if rounds == 2 and trouble == "connection lost":
            assert gateway.connection is not None
            await gateway.connection.aclose()
            raise ScriptedGateway.Silence
        if rounds == 2 and trouble == "garbage":
            return b"\x01\x02\x03"
        if rounds == 2 and trouble == "late":
            await trio.sleep(4)
        info = messages.IncomingCallInfo(call_sid="in-1", call_from="+15550109999")
        return messages.GetIncomingCallsResponse(calls=[info])

    gateway = ScriptedGateway(answer)
    async with session_on(gateway, trunks=["main"]) as session:
        incoming = session.incoming()
        await trio.sleep(0.1)
        await gateway.event("in-1", CREATE)
        assert (await anext(incoming)).caller == "+15550109999"


async def test_a_call_waits_for_its_caller_for_two_rounds_without_an_answer(autojump_clock: MockClock) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        raise ScriptedGateway.Silence

    gateway = ScriptedGateway(answer)
    async with session_on(gateway, trunks=["main"], poll_interval=10) as session:
        incoming = session.incoming()
        await gateway.event("in-1", CREATE)
        began = trio.current_time()
        assert (await anext(incoming)).caller == ""
        assert 20 <= trio.current_time() - began <= 40


async def test_a_gateway_that_refuses_to_tell_of_calls_has_answered(autojump_clock: MockClock) -> None:
    async def refuse(stream: Any) -> None:
        stream.abandon(9)

    gateway = ScriptedGateway()
    gateway._serve = refuse  # type: ignore[method-assign]
    async with session_on(gateway, trunks=["main"], poll_interval=10) as session:
        incoming = session.incoming()
        await gateway.event("in-1", CREATE)
        with trio.fail_after(1):
            assert (await anext(incoming)).caller == ""


async def test_an_answer_may_take_longer_than_the_pause_between_two_questions(autojump_clock: MockClock) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        await trio.sleep(0.3)
        info = messages.IncomingCallInfo(call_sid="in-1", call_from="+15550109999")
        return messages.GetIncomingCallsResponse(calls=[info]) if method is MethodId.GetIncomingCalls else None

    async with session_on(ScriptedGateway(answer), trunks=["main"], poll_interval=0.1) as session:
        with trio.fail_after(10):
            assert (await anext(session.incoming())).caller == "+15550109999"


async def test_without_trunks_to_ask_the_event_is_enough(autojump_clock: MockClock) -> None:
    gateway = switchboard()
    async with session_on(gateway) as session:
        incoming = session.incoming()
        await session.get_active_buckets()  # only a campaign makes calls that look like inbound ones
        await gateway.event("in-1", CREATE)
        assert (await anext(incoming)).call_sid == "in-1"


async def test_a_call_found_by_asking_is_on_the_trunk_that_was_asked(autojump_clock: MockClock) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        if method is not MethodId.GetIncomingCalls:
            return None
        info = messages.IncomingCallInfo(call_sid="in-1", call_from="+15550109999")
        return messages.GetIncomingCallsResponse(calls=[info] if request.trunk_id == "second" else [])

    async with session_on(ScriptedGateway(answer), trunks=["first", "second"]) as session:
        assert (await anext(session.incoming())).trunk_id == "second"


async def test_without_an_event_asking_is_enough(autojump_clock: MockClock) -> None:
    gateway = switchboard()
    gateway.waiting = [("in-1", "+1"), ("in-2", "+2")]
    async with session_on(gateway, trunks=["main"], poll_interval=0.5) as session:
        incoming = session.incoming()
        assert {(await anext(incoming)).call_sid, (await anext(incoming)).call_sid} == {"in-1", "in-2"}


async def test_a_call_of_ours_is_never_taken_for_an_inbound_one(autojump_clock: MockClock) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.Originate:
            await gateway.event("named-by-the-gateway", CREATE)
            await trio.sleep(1)
            return messages.OriginateResponse(call_sid="named-by-the-gateway")
        return None

    gateway = ScriptedGateway(answer)
    async with session_on(gateway) as session:
        incoming = session.incoming()
        await session.originate(TO, trunk_id="main")
        with trio.move_on_after(5) as nothing:
            await anext(incoming)
        assert nothing.cancelled_caught


async def test_a_call_of_ours_whose_hangup_came_first_is_not_taken_for_an_inbound_one(
    autojump_clock: MockClock,
) -> None:
    gateway = switchboard()
    async with session_on(gateway) as session:
        incoming = session.incoming()
        call = await session.originate(TO, trunk_id="main")
        await gateway.event(call.call_sid, HANGUP, q850_cause=17)
        await call.wait_ended()
        await gateway.event(call.call_sid, CREATE)
        with trio.move_on_after(5) as nothing:
            await anext(incoming)
        assert nothing.cancelled_caught


async def test_a_refused_call_whose_events_are_late_is_not_taken_for_an_inbound_one(autojump_clock: MockClock) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        return (
            messages.OriginateResponse(error_code=ErrorCode.ERR_RATE_LIMITED) if method is MethodId.Originate else None
        )

    gateway = ScriptedGateway(answer)
    async with session_on(gateway) as session:
        incoming = session.incoming()
        with pytest.raises(CommandRejected):
            await session.originate(TO, trunk_id="main", call_sid="mine")
        await gateway.event("mine", CREATE)
        with trio.move_on_after(5) as nothing:
            await anext(incoming)
        assert nothing.cancelled_caught
        assert not gateway.requested(MethodId.Terminate)


async def test_a_caller_that_gave_up_is_not_handed_out(autojump_clock: MockClock) -> None:
    gateway = switchboard()
    async with session_on(gateway) as session:
        incoming = session.incoming()
        await gateway.event("in-1", CREATE)
        await trio.sleep(1)
        await gateway.event("in-1", HANGUP)
        await trio.sleep(1)
        await gateway.event("in-2", CREATE)
        assert (await anext(incoming)).call_sid == "in-2"


async def test_calls_that_wait_to_be_taken_are_left_to_others_by_a_drain(autojump_clock: MockClock) -> None:
    gateway, hub, records = switchboard(), Hub(), list[Record]()
    hub.attach(records.append)
    async with session_on(gateway, hub=hub) as session:
        incoming = session.incoming()
        for call_sid in ("taken", "waits", "waits, too"):
            await gateway.event(call_sid, CREATE)
        await trio.sleep(1)
        taken = await anext(incoming)
        await gateway.event("taken", HANGUP, q850_cause=16)
        await taken.wait_ended()
        began = trio.current_time()
        await session.drain(10)
        assert trio.current_time() == began, "there is nothing to be waited for"
        with pytest.raises(StopAsyncIteration):
            await anext(incoming)
    told = summarised(records)
    assert {told["waits"].status, told["waits, too"].status} == {"elsewhere"}
    assert not gateway.requested(MethodId.Terminate)


async def test_a_call_that_comes_during_a_drain_is_left_to_others_and_over_here(autojump_clock: MockClock) -> None:
    gateway, hub, records = switchboard(), Hub(), list[Record]()
    hub.attach(records.append)
    async with session_on(gateway, hub=hub) as session:
        session.incoming()
        await session.drain(0)
        await gateway.event("too late", CREATE)
        await gateway.event("too late, and given up", CREATE)
        await gateway.event("too late, and given up", HANGUP, q850_cause=16)
        await trio.sleep(1)
    told = summarised(records)
    assert (told["too late"].status, told["too late"].direction) == ("elsewhere", "inbound")
    assert told["too late, and given up"].status == "canceled"
    assert not gateway.requested(MethodId.Terminate)


async def test_a_call_that_came_before_anybody_asked_is_found(autojump_clock: MockClock) -> None:
    gateway = switchboard()
    async with session_on(gateway) as session:
        await gateway.event("in-1", CREATE)
        await trio.sleep(1)
        assert (await anext(session.incoming())).call_sid == "in-1"


async def test_calls_of_a_campaign_are_not_inbound(autojump_clock: MockClock) -> None:
    gateway = switchboard()
    async with session_on(gateway, trunks=["main"]) as session:
        incoming = session.incoming()
        await session.originate_bulk(
            "file:///numbers.csv", trunk_id="main", calls_per_second=1, max_concurrent_calls=1, campaign_id="c"
        )
        await gateway.event("a row of the campaign", CREATE)
        gateway.waiting = [("in-1", "")]
        assert (await anext(incoming)).call_sid == "in-1"
        with trio.move_on_after(5) as nothing:
            await anext(incoming)
        assert nothing.cancelled_caught


async def test_a_campaign_that_is_refused_changes_nothing(autojump_clock: MockClock) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        return messages.BulkResponse(status="REJECTED") if method is MethodId.OriginateBulk else None

    gateway = ScriptedGateway(answer)
    async with session_on(gateway) as session:
        incoming = session.incoming()
        with pytest.raises(CommandRejected):
            await session.originate_bulk(
                "file:///numbers.csv", trunk_id="main", calls_per_second=1, max_concurrent_calls=1, campaign_id="c"
            )
        await gateway.event("in-1", CREATE)
        with trio.fail_after(10):
            assert (await anext(incoming)).call_sid == "in-1"


@pytest.mark.parametrize("trunks", [[], ["main"]])
async def test_calls_that_found_too_many_waiting_surface_when_others_were_taken(
    trunks: list[str], autojump_clock: MockClock
) -> None:
    gateway = switchboard()
    async with session_on(gateway, trunks=trunks, poll_interval=600) as session:
        incoming = session.incoming()
        for number in range(WAITING_CALLS):
            await gateway.event(f"in-{number}", CREATE)
        await trio.sleep(10)
        for number in range(WAITING_CALLS, WAITING_CALLS + 3):
            await gateway.event(f"in-{number}", CREATE)
        await trio.sleep(10)
        assert session.statistics().incoming_postponed
        with trio.fail_after(60):
            taken = {(await anext(incoming)).call_sid for _ in range(WAITING_CALLS + 3)}
        assert len(taken) == WAITING_CALLS + 3


async def test_several_takers_share_the_calls(autojump_clock: MockClock) -> None:
    gateway = switchboard()
    taken: list[str] = []
    async with session_on(gateway) as session, trio.open_nursery() as desk:

        async def take() -> None:
            async for call in session.incoming():
                taken.append(call.call_sid)
                await trio.sleep(1)

        for _ in range(3):
            desk.start_soon(take)
        for number in range(6):
            await gateway.event(f"in-{number}", CREATE)
        await trio.sleep(1.5)
        desk.cancel_scope.cancel()
    assert sorted(taken) == [f"in-{number}" for number in range(6)]


async def test_an_answer_that_is_refused_leaves_the_call_as_it_was(autojump_clock: MockClock) -> None:
    gateway = switchboard(error=ErrorCode.ERR_INTERNAL_ERROR)
    async with session_on(gateway) as session:
        await gateway.event("in-1", CREATE)
        call = await anext(session.incoming())
        with pytest.raises(CallAnswerFailed, match="ERR_INTERNAL_ERROR"):
            await call.answer()
        assert call.state is CallState.PENDING


@pytest.mark.parametrize("is_told", [True, False])
async def test_an_answer_whose_reply_went_down_with_the_connection_is_told_by_its_event(
    is_told: bool, autojump_clock: MockClock
) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.AnswerIncomingCall:
            nursery.start_soon(lose_the_connection)
            raise ScriptedGateway.Silence
        return None

    async def lose_the_connection() -> None:
        lost = gateway.connection
        assert lost is not None
        await lost.aclose()
        while gateway.connection is lost:
            await trio.sleep(0.1)
        await trio.sleep(1)
        if is_told:
            await gateway.event("in-1", ANSWER)

    gateway = ScriptedGateway(answer)
    async with trio.open_nursery() as nursery, session_on(gateway) as session:
        await gateway.event("in-1", CREATE)
        call = await anext(session.incoming())
        if is_told:
            await call.answer()
            assert call.state is CallState.ANSWERED
        else:
            with pytest.raises(CallAnswerFailed, match="the outcome is unknown"):
                await call.answer()
            assert call.state is CallState.PENDING


async def test_answering_a_caller_who_gives_up_meanwhile(autojump_clock: MockClock) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.AnswerIncomingCall:
            await gateway.event(request.call_sid, HANGUP, q850_cause=31)
            raise ScriptedGateway.Silence
        return None

    gateway = ScriptedGateway(answer)
    async with session_on(gateway) as session:
        await gateway.event("in-1", CREATE)
        call = await anext(session.incoming())
        with pytest.raises(CallEnded) as caught:
            await call.answer()
        assert caught.value.q850_cause == 31


# -- the verbs of a call --------------------------------------------------------------------------------------------

VERBS: list[tuple[Callable[[ActiveCall], Awaitable[Any]], DialplanAction, str]] = [
    (lambda call: call.hold(), DialplanAction.HOLD, ""),
    (lambda call: call.unhold(), DialplanAction.UNHOLD, ""),
    (lambda call: call.music_on_hold(), DialplanAction.MUSIC_ON_HOLD, ""),
    (lambda call: call.mute(), DialplanAction.MUTE, ""),
    (lambda call: call.mute(wire=True), DialplanAction.MUTE, "wire"),
    (lambda call: call.unmute(), DialplanAction.UNMUTE, ""),
    (lambda call: call.transfer("+15550100002"), DialplanAction.TRANSFER, "+15550100002"),
    (lambda call: call.transfer("sip:bob@example.com"), DialplanAction.TRANSFER, "sip:bob@example.com"),
    (lambda call: call.send_dtmf("5"), DialplanAction.SEND_DTMF, "5:rfc2833:200"),
    (lambda call: call.send_dtmf("#", mode="info", duration_ms=40), DialplanAction.SEND_DTMF, "#:info:40"),
    (lambda call: call.park(), DialplanAction.PARK, ""),
    (lambda call: call.playback("/sounds/hello.wav"), DialplanAction.PLAYBACK, "/sounds/hello.wav"),
    (lambda call: call.bridge(call), DialplanAction.UNPARK_AND_BRIDGE, "the-call"),
]


@pytest.mark.parametrize(("verb", "action", "arguments"), VERBS)
async def test_every_verb_is_one_command(
    verb: Callable[[ActiveCall], Awaitable[Any]], action: DialplanAction, arguments: str, autojump_clock: MockClock
) -> None:
    gateway = switchboard()
    async with session_on(gateway) as session:
        call = await session.originate(TO, trunk_id="main", call_sid="the-call")
        with pytest.raises(CallStateError, match="while the call is pending"):
            await verb(call)
        await gateway.event(call.call_sid, ANSWER)
        await call.wait_answered()
        await verb(call)
        assert gateway.requested(MethodId.ExecuteDialplan) == [
            messages.ExecuteDialplanRequest(call_sid="the-call", action=action, app_args=arguments)
        ]
        await call.hangup()
        with pytest.raises(CallEnded):
            await verb(call)


@pytest.mark.parametrize(("verb", "action", "arguments"), VERBS)
async def test_a_verb_the_gateway_refuses_says_so(
    verb: Callable[[ActiveCall], Awaitable[Any]], action: DialplanAction, arguments: str, autojump_clock: MockClock
) -> None:
    gateway = switchboard(error=ErrorCode.ERR_VALIDATION_FAILED)
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)
        with pytest.raises(CommandRejected, match=r"ERR_VALIDATION_FAILED \(6\): no"):
            await verb(call)
        assert call.state is CallState.ANSWERED


HOSTILE = ["x" * 100_000, "+1\x00", "\udcff", "sip:\u202e", "+1555 0100", "12", "wire\n", "A" * 17]


@pytest.mark.parametrize("argument", HOSTILE)
async def test_hostile_arguments_are_refused_before_anything_is_sent(argument: str, autojump_clock: MockClock) -> None:
    gateway = switchboard()
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)
        with pytest.raises(LocalProtocolError):
            await call.transfer(argument)
        with pytest.raises(LocalProtocolError):
            await call.send_dtmf(argument, duration_ms=10)
        with pytest.raises(LocalProtocolError):
            await call.playback(argument)
        assert gateway.requested(MethodId.ExecuteDialplan) == []


async def test_digits_go_one_by_one_with_room_between_them(autojump_clock: MockClock) -> None:
    gateway = switchboard()
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)
        started = trio.current_time()
        await call.send_dtmf("12#", duration_ms=500)
        assert trio.current_time() - started == pytest.approx(1.0, abs=0.05)
        sent = [request.app_args for request in gateway.requested(MethodId.ExecuteDialplan)]
        assert sent == ["1:rfc2833:500", "2:rfc2833:500", "#:rfc2833:500"]


async def test_unmute_repeats_the_wire_flag_of_the_mute(autojump_clock: MockClock) -> None:
    gateway = switchboard()
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)
        await call.mute(wire=True)
        await call.unmute()
        assert [request.app_args for request in gateway.requested(MethodId.ExecuteDialplan)] == ["wire", "wire"]


async def test_hold_is_what_the_events_say(autojump_clock: MockClock) -> None:
    gateway = switchboard()
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)
        await call.hold()
        assert not call.on_hold
        await gateway.event(call.call_sid, EventType.CHANNEL_HOLD)
        await trio.sleep(0.1)
        assert call.on_hold
        await gateway.event(call.call_sid, EventType.CHANNEL_RESUME)
        await trio.sleep(0.1)
        assert not call.on_hold


async def test_a_hold_that_its_own_end_has_overtaken_is_over(autojump_clock: MockClock) -> None:
    gateway = switchboard()
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)
        hold, resume = (
            gateway.event_frame(call.call_sid, each) for each in (EventType.CHANNEL_HOLD, EventType.CHANNEL_RESUME)
        )
        for frame in (resume, hold):
            await gateway.stream(frame)
            await trio.sleep(0.1)
        assert not call.on_hold
        await gateway.event(call.call_sid, EventType.CHANNEL_HOLD)
        await trio.sleep(0.1)
        assert call.on_hold


async def test_a_far_end_that_hangs_up_on_hold_does_not_come_back_first(autojump_clock: MockClock) -> None:
    told: list[str] = []
    gateway = switchboard()
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)
        for event in (CallEvent.CALL_HELD, CallEvent.CALL_RESUMED, CallEvent.CALL_TERMINATED):
            call.on(event)(partial(told.append, event.value))
        await gateway.event(call.call_sid, EventType.CHANNEL_HOLD)
        await gateway.event(call.call_sid, HANGUP, q850_cause=16)
        await trio.sleep(0.1)
        assert told == ["CALL_HELD", "CALL_TERMINATED"]
        assert not call.on_hold


# -- the RPCs of a session ------------------------------------------------------------------------------------------


async def test_one_method_per_rpc(autojump_clock: MockClock) -> None:
    gateway = switchboard()
    async with session_on(gateway) as session:
        await session.terminate("c")
        await session.barge("c")
        await session.execute_dialplan("c", DialplanAction.HOLD)
        await session.set_inbound_routing("main", InboundRule.HANDLE_AI, ai_quic_url="quic://ai")
        gateway.waiting = [("in-1", "+1")]
        assert [info.call_sid for info in await session.get_incoming_calls("main")] == ["in-1"]
        await session.answer_incoming_call("in-1")
        bulk = await session.originate_bulk(
            "file:///n.csv", trunk_id="main", calls_per_second=5, max_concurrent_calls=9, campaign_id="c1"
        )
        assert (bulk.status, bulk.loaded_numbers) == ("LOADED", 3)
        assert (await session.abort_bulk("c1")).status == "ABORTED"
        assert [(each.bucket_id, each.pending_count) for each in await session.get_active_buckets()] == [("b", 2)]
        assert await session.get_bucket_calls("b") == ("a", "b", "c")
        assert await session.execute_bucket_action("b", 2) == 2
    [routing] = gateway.requested(MethodId.SetInboundRouting)
    assert (routing.trunk_id, routing.rule, routing.ai_quic_url) == ("main", InboundRule.HANDLE_AI, "quic://ai")
    [request] = gateway.requested(MethodId.OriginateBulk)
    assert (request.calls_per_second, request.max_concurrent_calls, request.campaign_id) == (5, 9, "c1")


async def test_a_query_without_a_reply_is_an_unknown_outcome(autojump_clock: MockClock) -> None:
    async with session_on(ScriptedGateway()) as session:
        with pytest.raises(CommandTimeout, match="without a reply"):
            await session.get_active_buckets()
        await session.barge("c")  # a command without a reply may well have been carried out


@pytest.mark.parametrize(
    ("rule", "complaint"), [(InboundRule.PLAY_AND_HANGUP, "audio_url"), (InboundRule.NOTIFY_AND_HANGUP, "webhook_url")]
)
async def test_a_routing_rule_needs_its_url(rule: InboundRule, complaint: str, autojump_clock: MockClock) -> None:
    gateway = switchboard()
    async with session_on(gateway) as session:
        with pytest.raises(LocalProtocolError, match=complaint):
            await session.set_inbound_routing("main", rule)
    assert gateway.requested(MethodId.SetInboundRouting) == []


async def test_a_reset_instead_of_an_answer_is_a_refusal(autojump_clock: MockClock) -> None:
    gateway = ScriptedGateway()

    async def reset(stream: Any) -> None:
        stream.abandon(9)

    gateway._serve = reset  # type: ignore[method-assign]
    async with session_on(gateway) as session:
        with pytest.raises(CommandRejected, match="code 9"):
            await session.barge("c")


async def test_garbage_instead_of_an_answer_is_the_gateways_fault(autojump_clock: MockClock) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        return b"\x01\x02\x03" if method is MethodId.Barge else None

    async with session_on(ScriptedGateway(answer)) as session:
        with pytest.raises(RemoteProtocolError):
            await session.barge("c")


# -- events ---------------------------------------------------------------------------------------------------------


async def test_events_are_chosen_by_type_and_call(autojump_clock: MockClock) -> None:
    gateway = switchboard()
    async with session_on(gateway) as session:
        hangups = session.events(types=[HANGUP])
        of_one = session.events(call_sids=["b"])
        for sid in "ab":
            await gateway.event(sid, CREATE)
            await gateway.event(sid, HANGUP)
        await trio.sleep(0.5)
    assert sorted([record.call_sid async for record in hangups]) == ["a", "b"]
    assert sorted([int(record.event.event_type) async for record in of_one]) == [CREATE, HANGUP]


async def test_a_slow_reader_of_all_events_loses_the_oldest_or_is_told(autojump_clock: MockClock) -> None:
    gateway = switchboard()
    async with session_on(gateway) as session:
        lossy, strict = session.events(bound=2), session.events(bound=2, overflow="end")
        for sid in "abcd":
            await gateway.event(sid, CREATE)
            await trio.sleep(0.1)
        assert [(await anext(lossy)).call_sid, (await anext(lossy)).call_sid] == ["c", "d"]
        assert lossy.dropped == 2
        assert [(await anext(strict)).call_sid, (await anext(strict)).call_sid] == ["a", "b"]
        with pytest.raises(EventsOverrun):
            await anext(strict)


async def test_a_call_whose_events_are_not_read_is_ended_by_name(autojump_clock: MockClock) -> None:
    gateway = switchboard()
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)
        events = call.events()
        flood = b"".join(gateway.event_frame(call.call_sid, 77) for _ in range(300))
        await gateway.stream(flood)
        with pytest.raises(CallOverrun):
            await call.wait_ended()
        for _ in range(256):
            await anext(events)
        with pytest.raises(CallOverrun):
            await anext(events)
        await trio.sleep(1)
        assert len(gateway.requested(MethodId.Terminate)) == 1


# -- supervision ----------------------------------------------------------------------------------------------------


async def test_a_supervisor_hears_a_call_of_others_and_may_speak_into_it(autojump_clock: MockClock) -> None:
    gateway = switchboard()
    async with session_on(gateway) as session:
        async with await session.supervise("theirs", mode=SuperviseMode.BARGE) as seat:
            frame = messages.AudioFrame(call_sid="theirs", payload=b"a" * 160, codec="PCMU", sequence_number=4)
            await gateway.stream(encode_frame(MethodId.AudioFrame, messages.encode(frame)))
            assert (await anext(seat.audio())).payload == b"a" * 160
            await seat.send_audio(b"b" * 160)
            await trio.sleep(0.2)
        [request] = gateway.requested(MethodId.SuperviseSubscribe)
        assert (request.call_sid, request.mode, request.supervisor_id) == ("theirs", 3, session.client_id)
        await trio.sleep(0.2)
        assert [frame.call_sid for frame in gateway.uplink] == ["theirs", "theirs"]
        assert gateway.uplink[-1].end_of_stream
        await gateway.stream(encode_frame(MethodId.AudioFrame, messages.encode(frame)))
        await trio.sleep(0.2)
        assert session.statistics().audio_for_unknown_calls == 1


async def test_a_supervisor_speaks_on_over_the_next_connection(autojump_clock: MockClock) -> None:
    network, gateway = MemoryNetwork(), switchboard()
    async with (
        session_on(gateway, network) as session,
        await session.supervise("theirs", mode=SuperviseMode.BARGE) as seat,
    ):
        await seat.send_audio(b"a" * 160)
        await trio.sleep(0.2)
        network.outage(30)
        await trio.sleep(40)
        assert session.statistics().connections == 2
        await seat.send_audio(b"b" * 160)
        await trio.sleep(0.2)
        assert [frame.payload[:1] for frame in gateway.uplink] == [b"a", b"b"]


@pytest.mark.parametrize("hangup_is", ["told", "forgotten"])
async def test_what_a_supervisor_hears_ends_with_the_call(hangup_is: str, autojump_clock: MockClock) -> None:
    network, gateway = MemoryNetwork(), switchboard()
    async with session_on(gateway, network, resume_window=30) as session:
        await gateway.event("once ours", CREATE)
        (await anext(session.incoming())).release()
        async with await session.supervise("once ours") as seat:
            await trio.sleep(1)
            if hangup_is == "told":
                await gateway.event("once ours", HANGUP)
            else:
                network.outage(60)
            with trio.fail_after(60):
                assert [frame async for frame in seat.audio()] == []


async def test_a_monitor_cannot_speak_and_a_refused_seat_is_no_seat(autojump_clock: MockClock) -> None:
    gateway = switchboard()
    async with session_on(gateway) as session, await session.supervise("theirs") as seat:
        with pytest.raises(LocalProtocolError, match="only listens"):
            await seat.send_audio(b"x")
        with pytest.raises(LocalProtocolError, match="already"):
            await session.supervise("theirs")
    async with session_on(switchboard(error=1)) as session:
        with pytest.raises(CommandRejected, match="no such call"):
            await session.supervise("theirs")
