"""Whole calls with the embedded gateway, in virtual time: what an agent lives through with each kind of far end."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from agentao_trio import (
    ActiveCall,
    AudioFrame,
    CallEnded,
    CallState,
    Codec,
    CommandRejected,
    CommandTimeout,
    EventType,
    Session,
    open_session,
)
from agentao_trio.gateway import GatewaySettings
from agentao_trio.messages import SuperviseMode
from agentao_trio.testing import MemoryNetwork
from tests.support.simulated import simulated

PACKET = Codec.PCMU.packet_bytes


def speech(seconds: float) -> bytes:
    """Audio in which every packet is another."""
    return b"".join(number.to_bytes(4, "little") * (PACKET // 4) for number in range(round(seconds * 50)))


async def place(session: Session, to: str) -> ActiveCall:
    return await session.originate(to, trunk_id="main")


async def hear(call: ActiveCall, seconds: float) -> list[AudioFrame]:
    """What the far end says within so many seconds, or until the call ends."""
    heard = []
    with trio.move_on_after(seconds):
        async for frame in call.audio():
            heard.append(frame)  # noqa: PERF401 - what came before the time ran out counts
    return heard


async def converse(call: ActiveCall, data: bytes) -> list[AudioFrame]:
    """Say ``data`` and return what is heard meanwhile and a little longer."""
    heard: list[AudioFrame] = []
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            async for frame in call.audio():
                heard.append(frame)  # noqa: PERF401 - as above

        nursery.start_soon(listen)
        await call.send_audio(data)
        await call.wait_played()
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    return heard


async def test_an_echo_is_bit_exact_complete_and_in_time(autojump_clock: MockClock) -> None:
    async with simulated() as (session, _), await place(session, "+15550100001") as call:
        await call.wait_answered()
        started = trio.current_time()
        heard = await converse(call, speech(4))
        assert b"".join(frame.payload for frame in heard) == speech(4)
        assert [frame.sequence_number for frame in heard] == list(
            range(heard[0].sequence_number, heard[0].sequence_number + 200)
        )
        assert trio.current_time() - started == pytest.approx(4.6, abs=0.1)
        figures = call.statistics()
        assert (figures.packets_sent, figures.packets_received) == (200, 200)
        assert (figures.packets_lost, figures.packets_shed, figures.slots_skipped) == (0, 0, 0)
        assert figures.jitter_ms < 1
        assert figures.lateness_p99 < 0.001
        assert (figures.estimated_mos or 0.0) > 4.3


@pytest.mark.parametrize(
    ("to", "cause"),
    [
        ("+15550100017", 17),
        ("+15550100018", 18),
        ("+15550100019", 19),
        ("sip:busy@simulator", 17),
        ("+15550100721", 21),
    ],
)
async def test_a_call_that_is_not_answered_ends_with_its_cause(to: str, cause: int, autojump_clock: MockClock) -> None:
    async with simulated() as (session, _), await place(session, to) as call:
        with pytest.raises(CallEnded) as caught:
            await call.wait_answered()
        assert caught.value.q850_cause == cause
        ending = await call.wait_ended()
        assert ending.q850_cause == cause
        assert ending.event.answer_timestamp_ms == 0
        assert [record.event.event_type async for record in call.events()] == [
            EventType.CHANNEL_CREATE,
            EventType.CHANNEL_HANGUP_COMPLETE,
        ]


async def test_a_far_end_that_hangs_up_ends_the_call_and_its_audio(autojump_clock: MockClock) -> None:
    async with simulated() as (session, _), await place(session, "+15550100016") as call:
        await call.wait_answered()
        with pytest.raises(CallEnded) as caught:
            await call.send_audio(speech(60))
        assert caught.value.q850_cause == 16
        assert call.state is CallState.DISCONNECTED
        ending = await call.wait_ended()
        # The gateway's accounting and ours agree, but for what was under way.
        assert ending.event.packets_received == pytest.approx(ending.statistics.packets_sent, abs=2)
        assert ending.event.packets_sent == ending.statistics.packets_received


async def test_hold_and_resume(autojump_clock: MockClock) -> None:
    async with simulated() as (session, _), await place(session, "+15550100006") as call:
        kinds = []
        async for record in call.events():
            kinds.append(record.event.event_type)
            if record.event.event_type == EventType.CHANNEL_HOLD:
                assert call.on_hold
            if record.event.event_type == EventType.CHANNEL_RESUME:
                assert not call.on_hold
                break
        assert kinds == [
            EventType.CHANNEL_CREATE,
            EventType.CHANNEL_ANSWER,
            EventType.CHANNEL_HOLD,
            EventType.CHANNEL_RESUME,
        ]


async def test_a_recording_is_heard_at_the_pace_it_is_spoken(autojump_clock: MockClock) -> None:
    async with simulated() as (session, _), await place(session, "+15550100003") as call:
        await call.wait_answered()
        heard = await hear(call, 2)
        assert len(heard) == pytest.approx(100, abs=2)
        assert len({frame.payload for frame in heard}) > 50


@pytest.mark.parametrize(("to", "lost", "late"), [("+15550100110", True, False), ("+15550100230", False, True)])
async def test_a_bad_line_shows_in_the_figures(to: str, lost: bool, late: bool, autojump_clock: MockClock) -> None:
    async with simulated() as (session, _), await place(session, to) as call:
        await call.wait_answered()
        heard = await converse(call, speech(10))
        figures = call.statistics()
        assert (figures.packets_lost > 0) == (lost or late)
        assert (figures.late_or_duplicate > 0) == late
        assert 1.0 <= (figures.estimated_mos or 0.0) < 4.3
        assert sum(frame.lost_before for frame in heard) == figures.packets_lost


async def test_duplicates_are_heard_once(autojump_clock: MockClock) -> None:
    async with simulated() as (session, _), await place(session, "+15550100350") as call:
        await call.wait_answered()
        heard = await converse(call, speech(4))
        assert b"".join(frame.payload for frame in heard) == speech(4)
        assert call.statistics().late_or_duplicate > 50


async def test_what_the_gateway_refuses(autojump_clock: MockClock) -> None:
    async with simulated() as (session, _):
        for to, code, retryable in (("+15550100401", 1, False), ("+15550100403", 3, True)):
            with pytest.raises(CommandRejected) as caught:
                await place(session, to)
            assert (caught.value.code, caught.value.retryable) == (code, retryable)


async def test_a_gateway_that_never_replies(autojump_clock: MockClock) -> None:
    async with simulated(rpc_timeout=3) as (session, gateway):
        async with await place(session, "+15550100501") as call:
            await call.wait_answered()
        with pytest.raises(CommandTimeout):
            await place(session, "+15550100502")
        await trio.sleep(3)
        assert gateway.statistics().model.calls_open == 0


@pytest.mark.parametrize("reply", ["framed", "bare", "none"])
@pytest.mark.parametrize("rpc_length", ["exclusive", "inclusive"])
async def test_every_dialect(reply: str, rpc_length: str, autojump_clock: MockClock) -> None:
    settings = GatewaySettings(reply=reply)  # type: ignore[arg-type]
    async with simulated(settings, rpc_length=rpc_length) as (session, _):
        async with await place(session, "+15550100001") as call:
            await call.wait_answered()
            await call.hold()
            await call.unhold()
            assert len(await converse(call, speech(0.2))) == 10
        assert (await call.wait_ended()).q850_cause == 16


async def test_fifty_calls_on_one_connection_keep_apart(autojump_clock: MockClock) -> None:
    async def talk(session: Session, number: int) -> None:
        async with await place(session, "+15550100001") as call:
            await call.wait_answered()
            data = bytes([number]) * PACKET * 25
            heard = await converse(call, data)
            assert b"".join(frame.payload for frame in heard) == data

    async with simulated() as (session, gateway):
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(talk, session, number)
        assert session.statistics().calls_ended == 50
        assert not session.calls
        assert gateway.statistics().model.calls_open == 0
        assert session.statistics().connection is not None


async def test_an_inbound_call_from_ring_to_hangup(autojump_clock: MockClock) -> None:
    async with simulated(trunks=["main"]) as (session, gateway):
        incoming = session.incoming()
        await trio.sleep(0.5)
        gateway.place_inbound_call(trunk_id="main", call_from="+15550101234")
        async with await anext(incoming) as call:
            assert (call.caller, call.state) == ("+15550101234", CallState.PENDING)
            await call.answer()
            assert call.state is CallState.ANSWERED
            assert len(await converse(call, speech(1))) == 50
        assert gateway.statistics().model.calls_open == 0


async def test_two_parties_bridged_hear_each_other(autojump_clock: MockClock) -> None:
    async with simulated() as (session, _):
        async with await place(session, "+15550100002") as tone, await place(session, "+15550100001") as echo:
            await tone.wait_answered()
            await echo.wait_answered()
            assert await hear(echo, 1) == []
            [alone] = {frame.payload for frame in await hear(tone, 1)}
            await echo.park()
            await echo.bridge(tone)
            # Each agent hears both: the tone, which the other far end echoes.
            assert len(await hear(echo, 1)) == pytest.approx(50, abs=3)
            assert alone not in {frame.payload for frame in (await hear(tone, 1))[-10:]}
        assert not session.calls


async def test_a_supervisor_listens_to_the_call_of_another_session(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with (
        simulated(network=network) as (session, gateway),
        await place(session, "+15550100002") as call,
        open_session("quic://gateway.test:9090", tls=gateway.tls, socket=network.socket()) as other,
    ):
        await call.wait_answered()
        async with await other.supervise(call.call_sid, mode=SuperviseMode.MONITOR) as seat:
            heard = []
            with trio.move_on_after(1):
                async for frame in seat.audio():
                    heard.append(frame.payload)  # noqa: PERF401
            assert len(heard) == pytest.approx(50, abs=3)


async def test_a_long_talk_does_not_drift(autojump_clock: MockClock) -> None:
    async with simulated() as (session, _), await place(session, "+15550100001") as call:
        await call.wait_answered()
        started = trio.current_time()
        for _ in range(20):
            await call.send_audio(speech(1))
        await call.wait_played()
        assert trio.current_time() - started == pytest.approx(20.1, abs=0.03)


async def test_a_gateway_that_goes_and_comes_back_keeps_the_call(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with simulated(network=network) as (session, _), await place(session, "+15550100001") as call:
        await call.wait_answered()
        await converse(call, speech(0.5))
        network.outage(20)
        await trio.sleep(40)
        assert call.state is CallState.ANSWERED
        heard = await converse(call, speech(0.5))
        assert b"".join(frame.payload for frame in heard) == speech(0.5)
        assert session.statistics().connections == 2


async def test_a_hangup_missed_in_an_outage_is_told_afterwards(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with simulated(network=network) as (session, _), await place(session, "+15550100016") as call:
        await call.wait_answered()
        network.outage(30)
        assert (await call.wait_ended()).q850_cause == 16
        assert session.statistics().connections == 2
        assert session.statistics().calls_lost == 0


async def test_a_call_that_rang_before_the_session_came_is_told_and_can_be_refused(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with simulated(network=network) as (_, gateway):
        call_sid = gateway.place_inbound_call(trunk_id="main")
        await trio.sleep(1)
        async with open_session("quic://gateway.test:9090", tls=gateway.tls, socket=network.socket()) as late:
            call = await anext(late.incoming())
            assert call.call_sid == call_sid
            await call.hangup()
            assert (await call.wait_ended()).q850_cause == 21
