"""Everything ends in order, whatever ends it: failures, refusals, drains, the loss of the connection in between."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from agentao_trio import CallEnded, CallState, CommandRejected, CommandTimeout, EventType, messages
from agentao_trio.gateway import GatewaySettings
from agentao_trio.messages import ErrorCode, MethodId
from agentao_trio.records import Record, RecordKind
from agentao_trio.testing import MemoryNetwork
from tests.support.scripted_gateway import ANSWER, CREATE, HANGUP, ScriptedGateway, accepting, answered_call, session_on
from tests.support.simulated import simulated

ECHO, SHORT = "+15550100001", "+15550100016"


def tasks_named(part: str) -> int:
    root = trio.lowlevel.current_root_task()
    assert root is not None
    unvisited, count = [root], 0
    while unvisited:
        task = unvisited.pop()
        count += part in task.name
        for nursery in task.child_nurseries:
            unvisited.extend(nursery.child_tasks)
    return count


async def test_calls_that_never_began_leave_no_task(autojump_clock: MockClock) -> None:
    answers = {"refused": messages.OriginateResponse(error_code=ErrorCode.ERR_RATE_LIMITED), "silent": None}

    async def answer(method: MethodId, request: Any) -> Any:
        return answers[request.trunk_id] if method is MethodId.Originate else None

    async with session_on(ScriptedGateway(answer), rpc_timeout=2) as session:
        with pytest.raises(CommandRejected):
            await session.originate(ECHO, trunk_id="refused")
        with pytest.raises(CommandTimeout):
            await session.originate(ECHO, trunk_id="silent")
        with trio.move_on_after(0.1):
            await session.originate(ECHO, trunk_id="silent")
        await trio.sleep(0.1)
        assert tasks_named("writer of call") == 0
        assert not session.calls


async def test_a_terminate_that_overtook_its_originate_is_repeated(autojump_clock: MockClock) -> None:
    """No ghost calls: the call nobody owns comes to life after it was hung up, and is hung up again."""

    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.Originate:
            await trio.sleep(1.5)  # by then it has been given up, and its Terminate carried out
            await gateway.event(request.call_sid, CREATE)
            await gateway.event(request.call_sid, ANSWER)
        elif method is MethodId.Terminate and gateway.uplink_streams == 0:
            times.append(trio.current_time())
            if len(times) > 1:
                await gateway.event(request.call_sid, HANGUP)

    times: list[float] = []
    gateway = ScriptedGateway(answer)
    async with session_on(gateway) as session:
        with trio.move_on_after(0.5):
            await session.originate(ECHO, trunk_id="main")
        await trio.sleep(10)
        assert len(times) == 2
        assert session.statistics().calls_disowned == 1


@pytest.fixture
def self_willed() -> ScriptedGateway:
    """A gateway that names calls itself, takes half a second to say so, and then knows no other name."""

    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.Originate:
            await trio.sleep(0.5)
            await gateway.event("theirs", CREATE)
            return messages.OriginateResponse(call_sid="theirs")
        if method is MethodId.Terminate and request.call_sid == "theirs":
            await gateway.event("theirs", HANGUP, q850_cause=16)
        elif method is MethodId.Terminate:
            return messages.TerminateResponse(error_code=ErrorCode.ERR_VALIDATION_FAILED)
        return None

    gateway = ScriptedGateway(answer)
    return gateway


def hung_up(gateway: ScriptedGateway) -> set[str]:
    return {request.call_sid for request in gateway.requested(MethodId.Terminate)}


async def test_a_call_given_up_before_the_gateway_named_it_is_hung_up_and_no_inbound_one(
    self_willed: ScriptedGateway, autojump_clock: MockClock
) -> None:
    async with session_on(self_willed) as session:
        incoming = session.incoming()
        with trio.move_on_after(0.2):
            await session.originate(ECHO, trunk_id="main", call_sid="ours")
        with trio.move_on_after(5) as nothing:
            await anext(incoming)
        assert nothing.cancelled_caught
        assert hung_up(self_willed) == {"ours", "theirs"}


async def test_closing_waits_a_moment_for_the_name_of_a_call_that_was_given_up(
    self_willed: ScriptedGateway, autojump_clock: MockClock
) -> None:
    async with session_on(self_willed) as session:
        with trio.move_on_after(0.2):
            await session.originate(ECHO, trunk_id="main", call_sid="ours")
        began = trio.current_time()
        await session._hang_up_everything()
        assert trio.current_time() - began < 0.5
    assert hung_up(self_willed) == {"ours", "theirs"}


async def test_a_call_given_up_before_it_was_sent_is_never_placed(
    self_willed: ScriptedGateway, autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    async with session_on(self_willed, network) as session:
        with trio.move_on_after(0):
            await session.originate(ECHO, trunk_id="main")
        network.outage(60)
        await trio.sleep(40)
        with trio.move_on_after(1):
            await session.originate(ECHO, trunk_id="main")
        await trio.sleep(60)
        assert session.statistics().connections == 2
    assert not self_willed.requested(MethodId.Originate)


async def test_a_call_hung_up_by_a_drain_before_the_gateway_named_it_does_not_go_on(
    self_willed: ScriptedGateway, autojump_clock: MockClock
) -> None:
    async def place() -> None:
        call = await session.originate(ECHO, trunk_id="main", call_sid="ours")
        with pytest.raises(CallEnded):
            await call.wait_answered()

    async with session_on(self_willed) as session, trio.open_nursery() as nursery:
        nursery.start_soon(place)
        await trio.sleep(0.2)
        await session.drain(0)
    assert hung_up(self_willed) == {"ours", "theirs"}


async def test_closing_does_not_wait_for_calls_that_were_hung_up_before(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway) as session:
        session.retire(await answered_call(session, gateway))
        await trio.sleep(10)
        assert len(gateway.requested(MethodId.Terminate)) == 1
        before = trio.current_time()
        await session._hang_up_everything()
        assert trio.current_time() - before < 0.1


async def test_giving_up_a_call_just_before_closing_still_hangs_it_up(autojump_clock: MockClock) -> None:
    async with simulated(network=MemoryNetwork(delay=0.05)) as (session, gateway):
        with trio.move_on_after(0.08):
            await session.originate(ECHO, trunk_id="main")
        before = trio.current_time()
        await session._hang_up_everything()
        assert trio.current_time() - before < 0.5, "it is over as soon as the gateway has answered"
        await trio.sleep(0.2)
        assert gateway.model.statistics().calls_open == 0


@pytest.mark.parametrize("dark", [5, 30])
async def test_a_quiet_call_left_in_an_outage_is_hung_up_when_it_is_over(dark: int, autojump_clock: MockClock) -> None:
    """It never shows that it lives on: no audio, no events."""
    network = MemoryNetwork(delay=0.02)
    async with simulated(network=network) as (session, gateway):
        call = await session.originate("+15550100005", trunk_id="main")
        await call.wait_answered()
        network.outage(dark)
        async with call:
            pass
        await trio.sleep(dark + 5)
        assert gateway.model.statistics().calls_open == 0


async def test_an_answer_that_is_none_does_not_keep_a_block_from_being_left(autojump_clock: MockClock) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.Originate:
            return messages.OriginateResponse(call_sid=request.call_sid)
        return b"\x01\x02\x03" if method is MethodId.Terminate else None

    async with session_on(ScriptedGateway(answer)) as session:
        async with await session.originate(ECHO, trunk_id="main") as call:
            pass
        assert call.state is CallState.DISCONNECTED
        with pytest.raises(CallEnded):
            await call.wait_ended()


async def test_a_handler_that_raises_takes_its_own_call_alone(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    gateway, errors = accepting(), list[Record]()
    async with session_on(gateway) as session:
        session.hub.attach(errors.append, kinds=[RecordKind.ERROR])
        bad, good = await answered_call(session, gateway), await answered_call(session, gateway)

        @bad.on("CALL_HELD")
        async def fail() -> None:
            async with trio.open_nursery():
                raise RuntimeError("this agent is broken")

        await gateway.event(bad.call_sid, EventType.CHANNEL_HOLD)
        await bad.wait_ended()
        assert good.state is CallState.ANSWERED
        assert session.statistics().handler_failures == 1
    assert "this agent is broken" in caplog.text
    assert [(each.call_sid, each.data) for each in errors] == [
        (
            bad.call_sid,
            {
                "source": "handler",
                "type": "RuntimeError",
                "message": "CALL_HELD: this agent is broken",
                "fatal": True,
            },
        )
    ]


@pytest.mark.parametrize("terminate", ["confirmed", "refused", "unanswered"])
async def test_what_a_handler_raised_comes_alone_out_of_a_session_that_is_to_raise_it(
    terminate: str, autojump_clock: MockClock
) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.Originate:
            return messages.OriginateResponse(call_sid=request.call_sid)
        if method is MethodId.Terminate and terminate == "confirmed":
            await gateway.event(request.call_sid, HANGUP)
        if method is MethodId.Terminate and terminate == "refused":
            return messages.TerminateResponse(error_code=ErrorCode.ERR_VALIDATION_FAILED)
        if method is MethodId.Terminate and terminate == "unanswered":
            raise ScriptedGateway.Silence
        return None

    class Broken(Exception):  # noqa: N818 - an agent's own
        pass

    async def run() -> None:
        async with session_on(gateway, handler_errors="raise") as session:
            session.incoming()
            call = await answered_call(session, gateway)

            @call.on("CALL_HELD")
            def fail() -> None:
                raise Broken

            @call.on("CALL_TERMINATED")
            async def too_late() -> None: ...

            hold, create = (
                gateway.event_frame(call.call_sid, EventType.CHANNEL_HOLD),
                gateway.event_frame("in-1", CREATE),
            )
            await gateway.stream(hold + create)
            await trio.sleep_forever()

    gateway = ScriptedGateway(answer)
    with pytest.raises(ExceptionGroup) as caught:
        await run()
    assert caught.group_contains(Broken)
    assert not caught.group_contains(RuntimeError)


async def test_the_call_of_a_handler_that_raised_is_hung_up_though_the_connection_is_lost(
    autojump_clock: MockClock,
) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.Originate:
            return messages.OriginateResponse(call_sid=request.call_sid)
        if method is MethodId.Terminate and len(gateway.requested(MethodId.Terminate)) == 1:
            assert gateway.connection is not None
            await gateway.connection.aclose()
            raise ScriptedGateway.Silence
        if method is MethodId.Terminate:
            await gateway.event(request.call_sid, HANGUP, q850_cause=16)
        return None

    gateway = ScriptedGateway(answer)
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)

        @call.on("CALL_HELD")
        def fail() -> None:
            raise RuntimeError("this agent is broken")

        await gateway.event(call.call_sid, EventType.CHANNEL_HOLD)
        with trio.fail_after(30):
            assert (await call.wait_ended()).q850_cause == 16


async def test_draining_waits_for_calls_and_hangs_up_the_rest(autojump_clock: MockClock) -> None:
    async with simulated(GatewaySettings(talk=2.0)) as (session, gateway):
        incoming = session.incoming()
        short, long = [await session.originate(to, trunk_id="main") for to in (SHORT, ECHO)]
        await long.wait_answered()
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.drain, 5.0)
            await trio.sleep(0.1)
            gateway.place_inbound_call(trunk_id="main")
            with pytest.raises(StopAsyncIteration):
                await anext(incoming)
        assert trio.current_time() - started == pytest.approx(5, abs=0.3)
        assert (await short.wait_ended()).q850_cause == 16
        assert long.state is CallState.DISCONNECTED
        assert gateway.model.statistics().calls_open == 1  # the one that came in meanwhile is somebody else's


async def test_a_drain_in_an_outage_is_over_in_time(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with simulated(network=network) as (session, _):
        call = await session.originate(ECHO, trunk_id="main")
        await call.wait_answered()
        network.outage(60)
        started = trio.current_time()
        await session.drain(3.0)
        assert trio.current_time() - started <= 3.0 + 2.5
        assert call.state is CallState.DISCONNECTED


async def test_closing_in_an_outage_takes_seconds(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    started = 0.0
    async with simulated(network=network) as (session, _):
        for _ in range(5):
            await (await session.originate(ECHO, trunk_id="main")).wait_answered()
        network.outage(60)
        started = trio.current_time()
        with trio.move_on_after(0.0):
            await trio.sleep(1)
    assert trio.current_time() - started <= 9  # of which the gateway, too, has some


async def test_connections_come_and_go_without_a_trace(autojump_clock: MockClock) -> None:
    async with simulated() as (session, gateway):
        await session.get_active_buckets()
        before = tasks_named("")
        for _ in range(20):
            await gateway.disconnect()
            await trio.sleep(6)  # a connection that lasts, so that the next is made at once
        await session.get_active_buckets()
        assert session.statistics().connections == 21
        assert tasks_named("") <= before


async def test_a_program_that_was_blocked_for_seconds_keeps_its_connection(autojump_clock: MockClock) -> None:
    """Time passes while nobody may run: afterwards what waits in the socket is read before anybody is called dead."""
    async with simulated(network=MemoryNetwork(delay=0.02)) as (session, _):
        call = await session.originate(ECHO, trunk_id="main")
        await call.wait_answered()
        for _ in range(3):
            autojump_clock.jump(4.0)
            await trio.sleep(1)
        await call.send_audio(b"\x55" * 1600)
        await call.wait_played()
        assert session.statistics().connections == 1
        assert call.state is CallState.ANSWERED
