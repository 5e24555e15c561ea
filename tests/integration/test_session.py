"""A session against gateways of every kind, in virtual time; what a well-behaved one does is in test_calls.py."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from agentao_trio import (
    CallEnded,
    CallState,
    CallStateError,
    CommandRejected,
    CommandTimeout,
    DialplanAction,
    EventType,
    LocalProtocolError,
    SessionClosed,
    SessionState,
    messages,
    open_session,
)
from agentao_trio.messages import ErrorCode, MethodId
from agentao_trio.testing import MemoryNetwork
from agentao_trio.wire import encode_frame
from tests.support.scripted_gateway import (
    ANSWER,
    CREATE,
    HANGUP,
    ScriptedGateway,
    accepting,
    answered_call,
    audio,
    serving,
    session_on,
)

TO = "+15550100001"


async def test_it_subscribes_first_and_says_who_it_is(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway, client_id="desk-7") as session:
        await session.originate(TO, trunk_id="main")
    method, subscription, _ = gateway.requests[0]
    assert method is MethodId.StreamEvents
    assert subscription == messages.EventStreamRequest(client_id="desk-7")
    [originate] = gateway.requested(MethodId.Originate)
    assert originate.client_id == "desk-7"


@pytest.mark.parametrize("rpc_length", ["exclusive", "inclusive"])
@pytest.mark.parametrize("form", ["exclusive", "inclusive", "bare"])
async def test_both_length_conventions_and_every_form_of_reply(
    rpc_length: str, form: str, autojump_clock: MockClock
) -> None:
    gateway = accepting("chosen-by-the-gateway")
    gateway.form = form
    async with session_on(gateway, rpc_length=rpc_length) as session:
        call = await session.originate(TO, trunk_id="main")
        assert call.call_sid == "chosen-by-the-gateway"
    assert {used for _, _, used in gateway.requests} == {rpc_length}


async def test_a_call_from_beginning_to_end(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway) as session, await session.originate(TO, trunk_id="main") as call:
        assert call.state is CallState.PENDING
        assert dict(session.calls) == {call.call_sid: call}
        await gateway.event(call.call_sid, CREATE)
        await gateway.event(call.call_sid, ANSWER, codec="PCMA")
        await call.wait_answered()
        assert call.state is CallState.ANSWERED
        assert call.codec.value == "PCMA"
        await gateway.event(call.call_sid, HANGUP, q850_cause=16, duration_seconds=3)
        ending = await call.wait_ended()
        assert (ending.q850_cause, ending.cause, ending.event.duration_seconds) == (16, "Normal call clearing", 3)
        assert call.state is CallState.DISCONNECTED
        assert not session.calls
    # The gateway ended it; nobody hung up.
    assert gateway.requested(MethodId.Terminate) == []


async def test_leaving_the_block_hangs_up_and_waits_for_the_word_of_it(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway) as session:
        async with await session.originate(TO, trunk_id="main") as call:
            pass
        assert [request.call_sid for request in gateway.requested(MethodId.Terminate)] == [call.call_sid]
        assert call.state is CallState.DISCONNECTED
        assert (await call.wait_ended()).q850_cause == 16
        assert not session.calls


@pytest.mark.parametrize("is_over", [True, False])
async def test_who_hangs_up_a_moment_after_the_far_end_learns_how_the_call_ended(
    is_over: bool, autojump_clock: MockClock
) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.Originate:
            return messages.OriginateResponse(call_sid=request.call_sid)
        if method is MethodId.Terminate:
            if is_over:
                nursery.start_soon(tell_the_end, request.call_sid)
            return messages.TerminateResponse(error_code=ErrorCode.ERR_VALIDATION_FAILED)
        return None

    async def tell_the_end(call_sid: str) -> None:
        await trio.sleep(0.05)
        await gateway.event(call_sid, HANGUP, q850_cause=31, duration_seconds=3)

    gateway = ScriptedGateway(answer)
    async with trio.open_nursery() as nursery, session_on(gateway) as session:
        call = await answered_call(session, gateway)
        if is_over:
            await call.hangup()
            ending = await call.wait_ended()
            assert (ending.q850_cause, ending.event.duration_seconds) == (31, 3)
        else:
            with trio.fail_after(1), pytest.raises(CommandRejected, match="ERR_VALIDATION_FAILED"):
                await call.hangup()
            assert call.state is CallState.ANSWERED


async def test_cancelling_the_program_still_hangs_up(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with serving(gateway, MemoryNetwork()) as where:
        with trio.move_on_after(1) as scope:
            async with open_session(**where) as session:
                await session.originate(TO, trunk_id="main")
                async with await session.originate(TO, trunk_id="main"):
                    await trio.sleep_forever()
        assert scope.cancelled_caught
        assert len(gateway.requested(MethodId.Terminate)) == 2
        await trio.sleep(1)
        assert gateway.connection is not None
        assert gateway.connection.close_code == 0


async def test_closing_the_session_hangs_up_what_was_left_and_refuses_the_rest(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway) as session:
        calls = [await session.originate(TO, trunk_id="main") for _ in range(5)]
    assert sorted(request.call_sid for request in gateway.requested(MethodId.Terminate)) == sorted(
        call.call_sid for call in calls
    )
    assert session.state is SessionState.CLOSED
    with pytest.raises(SessionClosed):
        await session.originate(TO, trunk_id="main")
    with pytest.raises(SessionClosed):
        await session.barge("x")


async def test_a_command_on_its_way_when_the_session_closes_hears_of_that(autojump_clock: MockClock) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        raise ScriptedGateway.Silence

    async with trio.open_nursery() as nursery:

        async def barge() -> None:
            with pytest.raises(SessionClosed):
                await session.barge("c")

        async with session_on(ScriptedGateway(answer)) as session:
            nursery.start_soon(barge)
            await trio.sleep(1)


async def test_a_session_that_was_closed_in_an_outage_refuses_at_once(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with session_on(accepting(), network) as session:
        network.outage(60)
        await trio.sleep(10)
    closed_at = trio.current_time()
    with pytest.raises(SessionClosed):
        await session.barge("x")
    assert trio.current_time() == closed_at


async def test_a_call_whose_hangup_is_never_confirmed_is_left_all_the_same(autojump_clock: MockClock) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.Originate:
            return messages.OriginateResponse(call_sid=request.call_sid)
        raise ScriptedGateway.Silence

    gateway = ScriptedGateway(answer)
    async with session_on(gateway) as session:
        async with await session.originate(TO, trunk_id="main") as call:
            started = trio.current_time()
        assert trio.current_time() - started < 3
        with pytest.raises(CallEnded):
            await call.wait_ended()
        # Should it show signs of life later, it is hung up again.
        await trio.sleep(1)
        terminated = len(gateway.requested(MethodId.Terminate))
        await gateway.event(call.call_sid, ANSWER)
        await trio.sleep(1)
        assert len(gateway.requested(MethodId.Terminate)) == terminated + 1
        assert session.statistics().calls_disowned == 1


# -- placing calls --------------------------------------------------------------------------------------------------


async def test_a_refused_call_says_why_and_whether_to_try_again(autojump_clock: MockClock) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        return messages.OriginateResponse(error_code=ErrorCode.ERR_RATE_LIMITED, error_message="slow down")

    async with session_on(ScriptedGateway(answer)) as session:
        with pytest.raises(
            CommandRejected, match=r"Originate was refused: ERR_RATE_LIMITED \(3\): slow down"
        ) as caught:
            await session.originate(TO, trunk_id="main")
        assert (caught.value.code, caught.value.retryable, caught.value.method) == (3, True, "Originate")
        assert not session.calls
        statistics = session.statistics()
        assert (statistics.commands, statistics.commands_rejected, statistics.commands_timed_out) == (1, 1, 0)


async def test_an_event_settles_a_call_that_was_never_answered_for(autojump_clock: MockClock) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.Originate:
            await trio.sleep(3)
            await gateway.event(request.call_sid, CREATE)
        raise ScriptedGateway.Silence

    gateway = ScriptedGateway(answer)
    async with session_on(gateway) as session:
        call = await session.originate(TO, trunk_id="main")
        assert call.call_sid in session.calls
    assert len(gateway.requested(MethodId.Originate)) == 1


async def test_no_reply_and_no_event_is_an_unknown_outcome_never_tried_again(autojump_clock: MockClock) -> None:
    late: list[str] = []

    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.Originate:
            late.append(request.call_sid)
            raise ScriptedGateway.Silence
        return None

    gateway = ScriptedGateway(answer)
    async with session_on(gateway, rpc_timeout=4) as session:
        started = trio.current_time()
        with pytest.raises(CommandTimeout, match="outcome is unknown") as caught:
            await session.originate(TO, trunk_id="main")
        assert trio.current_time() - started == pytest.approx(4, abs=0.2)
        assert not caught.value.retryable
        assert len(gateway.requested(MethodId.Originate)) == 1
        # The ghost is hung up when it shows itself.
        await gateway.event(late[0], ANSWER)
        await trio.sleep(1)
        assert [request.call_sid for request in gateway.requested(MethodId.Terminate)][-1] == late[0]


async def test_events_that_overtake_the_reply_with_the_gateways_name_are_not_lost(autojump_clock: MockClock) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.Originate:
            await gateway.event("g-1", CREATE)
            await gateway.event("g-1", ANSWER)
            await trio.sleep(0.2)
            return messages.OriginateResponse(call_sid="g-1")
        return None

    gateway = ScriptedGateway(answer)
    async with session_on(gateway) as session:
        call = await session.originate(TO, trunk_id="main")
        assert (call.call_sid, call.state) == ("g-1", CallState.ANSWERED)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"to": "5550100001"}, "not a destination"),
        ({"to": "+1" + "5" * 15}, "not a destination"),
        ({"to": "sip:"}, "not a destination"),
        ({"to": "+1555\n"}, "not a destination"),
        ({"default_app": 7}, "a call can only start with"),
        ({"default_app": 3, "default_app_args": "beep.wav"}, "absolute path"),
        ({"traceparent": "nonsense"}, "W3C trace context"),
        ({"max_duration_ms": 1 << 40}, "max_duration_ms"),
    ],
)
async def test_what_the_protocol_does_not_allow_is_not_sent(
    arguments: dict[str, Any], complaint: str, autojump_clock: MockClock
) -> None:
    gateway = accepting()
    async with session_on(gateway) as session:
        with pytest.raises(LocalProtocolError, match=complaint):
            await session.originate(**{"to": TO, "trunk_id": "main", **arguments})
        assert not session.calls
    assert gateway.requested(MethodId.Originate) == []


async def test_every_field_of_originate_reaches_the_gateway(autojump_clock: MockClock) -> None:
    fields: dict[str, Any] = {
        "trunk_id": "main",
        "to": TO,
        "call_from": "+15550100099",
        "ai_websocket_url": "wss://ai.example/ws",
        "ai_quic_url": "quic://ai.example:1",
        "max_duration_ms": 60_000,
        "call_sid": "mine",
        "default_app": DialplanAction.PLAYBACK,
        "default_app_args": "/sounds/hello.wav",
        "auto_barge_in": True,
        "barge_in_patience_ms": 300,
        "session_id": 7,
        "agent_config_key": "agent-7",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    }
    gateway = accepting()
    async with session_on(gateway, client_id="desk-7") as session:
        await session.originate(**fields)
    [request] = gateway.requested(MethodId.Originate)
    assert request == messages.OriginateRequest(**fields, client_id="desk-7", tenant_id=request.tenant_id)
    assert set(fields) | {"client_id", "tenant_id"} == {field.name for field in attrs.fields(type(request))}


async def test_one_name_one_call(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway) as session:
        async with await session.originate(TO, trunk_id="main", call_sid="mine"):
            with pytest.raises(LocalProtocolError, match="'mine' is already in use by an open call"):
                await session.originate(TO, trunk_id="main", call_sid="mine")
        with pytest.raises(LocalProtocolError, match="by a call that has ended; expected another one, or None"):
            await session.originate(TO, trunk_id="main", call_sid="mine")
    assert len(gateway.requested(MethodId.Originate)) == 1


async def test_the_name_of_a_call_that_was_given_up_is_taken_and_that_of_a_refused_one_is_free(
    autojump_clock: MockClock,
) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.Originate and request.trunk_id == "full":
            return messages.OriginateResponse(error_code=ErrorCode.ERR_RATE_LIMITED)
        raise ScriptedGateway.Silence

    async with session_on(ScriptedGateway(answer)) as session:
        for _ in range(2):
            with pytest.raises(CommandRejected):
                await session.originate(TO, trunk_id="full", call_sid="mine")
        with pytest.raises(CommandTimeout):
            await session.originate(TO, trunk_id="main", call_sid="mine")
        with pytest.raises(LocalProtocolError, match="by a call that was given up and is being hung up"):
            await session.originate(TO, trunk_id="main", call_sid="mine")


async def test_audio_before_the_answer_is_refused_with_what_is_possible(autojump_clock: MockClock) -> None:
    async with session_on(accepting()) as session:
        call = await session.originate(TO, trunk_id="main")
        with pytest.raises(CallStateError) as caught:
            await call.send_audio(b"x")
        assert (caught.value.state, caught.value.command) == (CallState.PENDING, "send_audio")
        assert "hangup" in caught.value.allowed


async def test_waiting_for_an_answer_that_never_comes_tells_the_cause(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway) as session:
        call = await session.originate(TO, trunk_id="main")
        await gateway.event(call.call_sid, HANGUP, q850_cause=17)
        with pytest.raises(CallEnded, match="17, User busy") as caught:
            await call.wait_answered()
        assert caught.value.q850_cause == 17
        with pytest.raises(CallEnded):
            await call.send_audio(b"x")


# -- streams that are not as they should be -------------------------------------------------------------------------


async def test_broken_streams_do_not_hurt_the_others(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)
        heard = call.audio()
        await gateway.stream(b"\xff\xff\xff\xff" + b"garbage", end=False)  # an impossible length
        await gateway.stream(encode_frame(12345, b"who knows"))  # an unknown method
        await gateway.stream(encode_frame(MethodId.StreamEvents, b"\x00\x00\xff\xff\xff\xff"))  # no envelope
        await gateway.stream(b"\x00\x00\x00\x00\x01\x00\x00\x00z")  # too short to be frames
        await gateway.stream(audio(call.call_sid, 0)[:-5])  # cut short
        await gateway.stream(audio("nobody", 0))
        await gateway.event(call.call_sid, EventType.UNKNOWN)
        await gateway.event(call.call_sid, CREATE)  # out of order
        await gateway.stream(gateway.event_frame(call.call_sid, EventType.CHANNEL_HOLD, timestamp_ms=5) * 2)
        await gateway.stream(audio(call.call_sid, 1))
        assert (await anext(heard)).sequence_number == 1
        await trio.sleep(1)
        figures = session.statistics()
        assert figures.streams_abandoned == 1
        assert figures.frames_unknown == 1
        assert figures.frames_undecodable == 1
        assert figures.frames_short == 2
        assert figures.streams_truncated == 1
        assert figures.audio_for_unknown_calls == 1
        assert figures.events_unknown_type == 1
        assert figures.events_out_of_order == 1
        assert figures.events_duplicate == 1
        assert call.state is CallState.ANSWERED


async def test_a_new_kind_of_event_is_surfaced_and_moves_nothing(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway) as session:
        call = await session.originate(TO, trunk_id="main")
        events = call.events()
        await gateway.stream(
            encode_frame(
                MethodId.StreamEvents,
                messages.encode(messages.CallEvent(call_sid=call.call_sid, event_type=9, status="RECORDING_READY")),
            )
        )
        record = await anext(events)
        assert (record.event.event_type, record.event.status) == (9, "RECORDING_READY")
        assert call.state is CallState.PENDING


async def test_events_on_the_reply_half_of_the_subscription_are_read_too(autojump_clock: MockClock) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.StreamEvents:
            return gateway.event_frame("seen-there", CREATE)
        return None

    gateway = ScriptedGateway(answer)
    async with session_on(gateway) as session:
        await trio.sleep(1)
        assert session.statistics().events == 1


async def test_uplink_audio_is_one_stream_per_call_with_end_of_stream_and_fin(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway) as session:
        first, second = [await answered_call(session, gateway) for _ in range(2)]
        await first.send_audio(b"1" * 320)
        await second.send_audio(b"2" * 320)
        await first.finish_audio()
        with pytest.raises(CallEnded):
            await first.send_audio(b"more")
        await second.hangup()
        await trio.sleep(0.5)
    assert gateway.uplink_streams == gateway.uplinks_finished == 2
    by_call = {
        sid: [(frame.sequence_number, frame.end_of_stream) for frame in gateway.uplink if frame.call_sid == sid]
        for sid in (first.call_sid, second.call_sid)
    }
    assert by_call[first.call_sid] == [(0, False), (1, False), (2, True)]
    assert by_call[second.call_sid][-1][1]


async def test_a_gateway_that_stops_an_uplink_keeps_the_call(autojump_clock: MockClock) -> None:
    gateway = accepting()

    async def stop(stream: Any) -> None:
        gateway.uplink_streams += 1
        await stream.receive_some()
        stream.stop(7)

    gateway._listen = stop  # type: ignore[method-assign]
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)
        await call.send_audio(b"x" * 8000)
        await call.wait_played()
        assert call.statistics().uplinks_opened > 1
        assert call.state is CallState.ANSWERED


# -- connections that go --------------------------------------------------------------------------------------------


async def test_the_session_outlives_its_connection(autojump_clock: MockClock) -> None:
    network, gateway = MemoryNetwork(), accepting()
    async with session_on(gateway, network, client_id="desk-7") as session:
        call = await answered_call(session, gateway)
        await call.send_audio(b"x" * 1600)
        await call.wait_played()
        network.outage(30)
        await trio.sleep(5)
        assert session.state is SessionState.RECONNECTING
        await trio.sleep(32)
        assert session.state is SessionState.CONNECTED
        assert session.statistics().connections == 2
        assert [request.client_id for request in gateway.requested(MethodId.StreamEvents)] == ["desk-7"] * 2
        numbers_before = len(gateway.uplink)
        await call.send_audio(b"x" * 1600)
        await call.wait_played()
        await trio.sleep(0.2)
        assert [frame.sequence_number for frame in gateway.uplink][numbers_before:] == list(range(10, 20))
        # The gateway replays what it kept; what we know already is not told twice.
        events = call.events()
        for _ in range(3):
            await gateway.event(call.call_sid, HANGUP, timestamp_ms=77)
        assert [record.event.timestamp_ms async for record in events][-1] == 77
        await trio.sleep(0.1)
        assert session.statistics().events_duplicate == 2


async def test_a_call_nothing_more_is_heard_of_is_lost_once_and_by_name(autojump_clock: MockClock) -> None:
    network, gateway = MemoryNetwork(), accepting()
    async with session_on(gateway, network) as session:
        quiet = await answered_call(session, gateway)
        lively = await answered_call(session, gateway)
        network.outage(10)
        await trio.sleep(30)
        await gateway.stream(audio(lively.call_sid, 0))
        with pytest.raises(trio.BrokenResourceError, match="nothing was heard of it for 120 s"):
            await quiet.wait_ended()
        assert quiet.state is CallState.DISCONNECTED
        assert lively.state is CallState.ANSWERED
        assert session.statistics().calls_lost == 1


async def test_a_command_that_is_not_answered_has_an_unknown_outcome(autojump_clock: MockClock) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        raise ScriptedGateway.Silence

    async with session_on(ScriptedGateway(answer), rpc_timeout=5) as session:
        with pytest.raises(CommandTimeout, match="Barge was not answered within 5 s; the outcome is unknown") as caught:
            await session.barge("c")
        assert not caught.value.retryable


async def test_commands_in_an_outage_wait_and_then_say_that_they_were_not_sent(autojump_clock: MockClock) -> None:
    network, gateway = MemoryNetwork(), accepting()
    async with session_on(gateway, network, rpc_timeout=5) as session:
        network.outage(60)
        await trio.sleep(10)
        with pytest.raises(CommandTimeout, match="was not sent") as caught:
            await session.barge("c")
        assert caught.value.retryable
        assert session.statistics().commands_timed_out == 1


@pytest.mark.parametrize(
    "endpoint", ["gateway.test:9090", "https://gateway.test:9090", "quic://gateway.test", "quic://:1"]
)
async def test_an_endpoint_that_is_none_is_refused_by_name(endpoint: str) -> None:
    with pytest.raises(ValueError, match="expected quic://HOST:PORT"):
        async with open_session(endpoint):
            pass


async def test_a_packet_that_is_due_does_not_wait_for_all_that_has_arrived(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway) as session, trio.open_nursery() as nursery:
        call = await answered_call(session, gateway)
        call._downlink.taps += (lambda *_: autojump_clock.jump(0.001),)  # to deal with what is heard takes a while
        nursery.start_soon(call.send_audio, bytes(160 * 100))
        assert gateway.connection is not None
        downlink = await gateway.connection.open_uni()
        for burst in range(20):
            await downlink.send_all(b"".join(audio(call.call_sid, 15 * burst + number) for number in range(15)))
            await trio.sleep(0.0513)
        figures = call.statistics()
        assert figures.packets_received == 300
        assert 0.001 < figures.lateness_p99 < 0.006  # four or five packets share a datagram
        assert session.statistics().clock.slots_skipped == 0
