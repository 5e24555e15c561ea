"""Conferences, by ear: every party is a tone of its own, and who hears whom is told from what arrives."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from agentao_trio import (
    ActiveCall,
    CallConnectFailed,
    CallState,
    CallStateError,
    Codec,
    LocalProtocolError,
    events,
    messages,
)
from agentao_trio.audio import from_pcm16, to_pcm16
from agentao_trio.messages import MethodId
from tests.support.scripted_gateway import ANSWER, CREATE, HANGUP, ScriptedGateway, answered_call, session_on
from tests.support.simulated import simulated

#: The far end "tone" is 1 kHz; the agent speaks at another pitch, and an echo repeats what it hears.
TONE_HZ, AGENT_HZ = 1000, 440
TONE, ECHO, BUSY, NO_ANSWER = "+15550100002", "+15550100001", "+15550100017", "+15550100019"


def pitch(hz: int, seconds: float) -> bytes:
    samples = (round(8000 * math.sin(2 * math.pi * hz * n / 8000)) for n in range(round(8000 * seconds)))
    return from_pcm16(b"".join(struct.pack("<h", sample) for sample in samples), Codec.PCMU)


def strength(payload: bytes, hz: int) -> float:
    """How much of ``hz`` there is in some audio (Goertzel), 1.0 for the agent's own tone."""
    samples = struct.unpack(f"<{len(payload)}h", to_pcm16(payload, Codec.PCMU))
    turn = 2 * math.cos(2 * math.pi * hz / 8000)
    before = last = 0.0
    for sample in samples:
        before, last = last, sample + turn * last - before
    power = before * before + last * last - turn * before * last
    return math.sqrt(max(power, 0.0)) / (len(samples) * 4000) if samples else 0.0


async def hears(call: ActiveCall, hz: int) -> bool:
    """Whether a tone is in what the call brings within half a second."""
    heard = bytearray()
    with trio.move_on_after(0.5):
        async for payload in call.audio_stream():
            heard += payload
    return strength(bytes(heard), hz) > 0.3


async def say(call: ActiveCall) -> None:
    while True:
        await call.send_audio(pitch(AGENT_HZ, 0.2))


async def conference(call: ActiveCall) -> ActiveCall:
    return await call.connect(TONE, ring_time_seconds=5)


async def test_everybody_hears_everybody_until_the_agent_chooses(autojump_clock: MockClock) -> None:
    async with simulated() as (session, _), await session.originate(ECHO, trunk_id="main") as call:
        await call.wait_answered()
        leg = await conference(call)
        assert (call.state, leg.state) == (CallState.CONNECTED, CallState.ANSWERED)
        # The caller is an echo: what it hears comes back. The agent hears both.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, call)
            assert await hears(call, TONE_HZ)
            assert await hears(call, AGENT_HZ)
            await call.whisper()  # only the second leg, which is no echo, hears the agent
            await trio.sleep(0.5)
            assert not await hears(call, AGENT_HZ)
            await call.barge()
            await trio.sleep(0.5)
            assert await hears(call, AGENT_HZ)
            await call.spy()
            await trio.sleep(0.5)
            assert not await hears(call, AGENT_HZ)
            assert await hears(call, TONE_HZ)
            nursery.cancel_scope.cancel()


async def test_a_whisper_reaches_the_second_leg(autojump_clock: MockClock) -> None:
    async with simulated() as (session, _), await session.originate(TONE, trunk_id="main") as call:
        await call.wait_answered()
        leg = await call.connect(ECHO, ring_time_seconds=5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(say, call)
            for choose, is_heard in ((call.spy, False), (call.whisper, True), (call.spy, False), (call.barge, True)):
                await choose()
                await trio.sleep(0.5)
                assert await hears(leg, AGENT_HZ) is is_heard
            nursery.cancel_scope.cancel()


async def test_the_call_is_an_ordinary_one_again_when_the_leg_ends(autojump_clock: MockClock) -> None:
    async with simulated() as (session, _), await session.originate(TONE, trunk_id="main") as call:
        await call.wait_answered()
        leg = await call.connect(ECHO)
        with pytest.raises(LocalProtocolError, match="conference already"):
            await call.connect(ECHO)
        await leg.hangup()
        await trio.sleep(0.1)
        assert call.state is CallState.ANSWERED
        with pytest.raises(CallStateError):
            await call.whisper()
        await call.send_audio(pitch(AGENT_HZ, 0.1))


async def test_the_leg_ends_with_the_call(autojump_clock: MockClock) -> None:
    async with simulated() as (session, gateway):
        async with await session.originate(TONE, trunk_id="main") as call:
            await call.wait_answered()
            leg = await call.connect(ECHO)
        await trio.sleep(0.5)
        assert leg.state is CallState.DISCONNECTED
        assert not session.calls
        assert gateway.statistics().model.calls_open == 0


@pytest.mark.parametrize(("to", "cause"), [(BUSY, 17), (NO_ANSWER, 19), ("+15550100402", 0)])
async def test_a_leg_that_cannot_be_had_leaves_the_call_as_it_was(
    to: str, cause: int, autojump_clock: MockClock
) -> None:
    failures: list[object] = []
    async with simulated() as (session, _), await session.originate(TONE, trunk_id="main") as call:
        call.on(events.CALL_CONNECT_FAILED)(failures.append)
        await call.wait_answered()
        with pytest.raises(CallConnectFailed) as caught:
            await call.connect(to, ring_time_seconds=2)
        assert caught.value.q850_cause == cause
        assert call.state is CallState.ANSWERED
        assert list(session.calls) == [call.call_sid]
        await trio.sleep(0.1)
        assert failures == [caught.value]


async def test_cancelling_the_dialling_hangs_the_leg_up(autojump_clock: MockClock) -> None:
    async with simulated() as (session, _), await session.originate(TONE, trunk_id="main") as call:
        await call.wait_answered()
        with trio.move_on_after(1):
            await call.connect(NO_ANSWER)
        assert call.state is CallState.ANSWERED
        assert list(session.calls) == [call.call_sid]


async def test_an_inbound_call_is_answered_when_the_second_leg_is_there(autojump_clock: MockClock) -> None:
    connected: list[object] = []
    async with simulated(trunks=["main"]) as (session, gateway):
        gateway.place_inbound_call(trunk_id="main", far_end="tone")
        async with await anext(session.incoming()) as call:
            call.on(events.CALL_CONNECTED)(connected.append)
            with pytest.raises(LocalProtocolError, match="needs a number"):
                await call.connect()
            leg = await call.connect(ECHO, trunk_id="main")
            assert call.state is CallState.CONNECTED
            assert await hears(leg, TONE_HZ)
            await trio.sleep(0.1)
            assert connected == [leg]


async def test_the_agent_leaves_and_the_parties_go_on(autojump_clock: MockClock) -> None:
    async with simulated() as (session, gateway):
        async with await session.originate(TONE, trunk_id="main") as call:
            await call.wait_answered()
            await call.connect(ECHO)
            await call.close()
            assert not session.calls
            assert call.state is CallState.DISCONNECTED
        await trio.sleep(2)
        assert gateway.statistics().model.calls_open == 2
        with trio.move_on_after(1) as nobody:
            await anext(session.incoming())
        assert nobody.cancelled_caught


async def test_disconnecting_ends_it_for_everybody(autojump_clock: MockClock) -> None:
    async with simulated() as (session, gateway), await session.originate(TONE, trunk_id="main") as call:
        await call.wait_answered()
        await call.connect(ECHO)
        await call.disconnect()
        await trio.sleep(0.2)
        assert gateway.statistics().model.calls_open == 0
        assert not session.calls


async def test_closing_a_call_without_a_second_party_hangs_it_up(autojump_clock: MockClock) -> None:
    async with simulated() as (session, gateway), await session.originate(TONE, trunk_id="main") as call:
        await call.wait_answered()
        await call.close()
        assert (await call.wait_ended()).q850_cause == 16
        assert gateway.statistics().model.calls_open == 0


# -- what may come in between: with a gateway whose every word is scripted ------------------------------------------


class Exchange(ScriptedGateway):
    """Every leg answers and every hangup is confirmed, unless a test says otherwise."""

    def __init__(self) -> None:
        super().__init__(self._respond)
        #: The call whose far end hangs up while a leg is being bridged.
        self.impatient = ""
        #: What becomes of the first Terminates, one by one, in place of a confirmation.
        self.instead: list[bytes | type[ScriptedGateway.Silence]] = []

    async def _respond(self, method: MethodId, request: Any) -> Any:
        match method:
            case MethodId.Originate:
                await self.event(request.call_sid, CREATE)
                await self.event(request.call_sid, ANSWER)
                return messages.OriginateResponse(call_sid=request.call_sid)
            case MethodId.ExecuteDialplan:
                if self.impatient:
                    await self.event(self.impatient, HANGUP, q850_cause=16)
                await trio.sleep(0.1)
                return messages.ExecuteDialplanResponse()
            case MethodId.Terminate:
                if self.instead:
                    instead = self.instead.pop()
                    if isinstance(instead, bytes):
                        return instead
                    raise instead
                await self.event(request.call_sid, HANGUP, q850_cause=16)
        return None


async def test_a_caller_who_hangs_up_during_the_bridging_stays_gone_and_takes_the_leg_along(
    autojump_clock: MockClock,
) -> None:
    gateway = Exchange()
    async with session_on(gateway) as session, await session.originate(TONE, trunk_id="main") as call:
        await call.wait_answered()
        gateway.impatient = call.call_sid
        with pytest.raises(CallConnectFailed, match="the caller hung up") as caught:
            await call.connect(ECHO)
        assert caught.value.q850_cause == 0
        await trio.sleep(1)
        assert call.state is CallState.DISCONNECTED
        assert len(gateway.requested(MethodId.Terminate)) == 1
        assert not session.calls


async def test_of_two_legs_that_are_brought_in_at_once_one_stays(autojump_clock: MockClock) -> None:
    refusals: list[str] = []
    gateway = Exchange()
    async with session_on(gateway) as session, await session.originate(TONE, trunk_id="main") as call:
        await call.wait_answered()

        async def bring_in() -> None:
            try:
                await call.connect(ECHO)
            except CallConnectFailed as failure:
                refusals.append(str(failure))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(bring_in)
            nursery.start_soon(bring_in)
        assert refusals == [f"{ECHO} could not be brought in: another second leg was brought in first"]
        assert call.state is CallState.CONNECTED
        assert len(session.calls) == 2
    assert not session.calls


async def test_a_second_leg_stops_ringing_when_the_caller_gives_up(autojump_clock: MockClock) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.Originate:
            return messages.OriginateResponse(call_sid=request.call_sid)
        if method is MethodId.Terminate:
            await gateway.event(request.call_sid, HANGUP, q850_cause=16)
        return None

    async def give_up() -> None:
        await trio.sleep(1)
        await gateway.event(call.call_sid, HANGUP, q850_cause=16)

    gateway = ScriptedGateway(answer)
    async with session_on(gateway) as session, trio.open_nursery() as nursery:
        call = await answered_call(session, gateway)
        nursery.start_soon(give_up)
        with trio.fail_after(2), pytest.raises(CallConnectFailed, match="the caller hung up"):
            await call.connect(NO_ANSWER, ring_time_seconds=30)
        assert not session.calls


@pytest.mark.parametrize("instead", [b"\x00\x00\xff\xff", ScriptedGateway.Silence], ids=["garbled", "lost"])
async def test_a_leg_is_hung_up_with_the_call_whatever_becomes_of_the_reply(
    instead: bytes | type[ScriptedGateway.Silence], autojump_clock: MockClock
) -> None:
    gateway = Exchange()
    async with session_on(gateway, rpc_timeout=1) as session:
        call = await session.originate(TONE, trunk_id="main")
        await call.wait_answered()
        leg = await call.connect(ECHO)
        gateway.instead = [instead]
        await gateway.event(call.call_sid, HANGUP, q850_cause=16)
        await trio.sleep(30)
        assert [request.call_sid for request in gateway.requested(MethodId.Terminate)] == [leg.call_sid] * 2
        assert leg.state is CallState.DISCONNECTED
        assert not session.calls
