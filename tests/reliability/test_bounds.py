"""Every buffer that a peer or a slow program can fill has a limit, a policy and a count."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
import trio
from trio.testing import MockClock

from agentao_trio import CallOverrun, CallState, EventType, messages
from agentao_trio.messages import MethodId
from agentao_trio.testing import MemoryNetwork
from agentao_trio.wire import FrameDecoder, encode_frame
from tests.support.measure import talk
from tests.support.scripted_gateway import accepting, answered_call, audio, session_on

MEGABYTE = 1 << 20


async def test_an_agent_that_stops_listening_keeps_the_newest_second(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway) as session:
        call, other = await answered_call(session, gateway), await answered_call(session, gateway)
        heard, heard_elsewhere = call.audio(), other.audio()
        frames = b"".join(audio(call.call_sid, number) for number in range(5000))
        await gateway.stream(frames + audio(other.call_sid, 0))
        assert (await anext(heard_elsewhere)).sequence_number == 0  # the slow one holds nobody up
        await trio.sleep(1)
        assert (await anext(heard)).sequence_number == 4950
        assert call.statistics().packets_dropped == heard.dropped == 4950


async def test_events_are_never_dropped_quietly(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)
        call.events()
        await gateway.stream(b"".join(gateway.event_frame(call.call_sid, 9, status=str(n)) for n in range(300)))
        with pytest.raises(CallOverrun):
            await call.wait_ended()


async def test_an_agent_that_writes_too_fast_waits(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)
        started = trio.current_time()
        await call.send_audio(b"\x55" * 160 * 500)  # ten seconds in one go
        assert 9.3 <= trio.current_time() - started <= 9.6
        assert call.statistics().packets_queued <= 25


async def test_strangers_cannot_fill_the_memory(autojump_clock: MockClock) -> None:
    """Events of calls nobody asked for: too many, and far too long."""
    gateway = accepting()
    async with session_on(gateway) as session:
        tracemalloc.start()
        try:
            for number in range(20):
                await gateway.event(f"long-{number}", EventType.CHANNEL_CREATE, status="x" * 50_000)
            for number in range(300):
                await gateway.event(f"stray-{number}", EventType.CHANNEL_CREATE)
            await trio.sleep(5)
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        statistics = session.statistics()
        assert statistics.events == 320
        assert statistics.stray_calls_forgotten == 20 + 300 - 256
        assert held < MEGABYTE


async def test_a_flood_nobody_reads_stays_outside(autojump_clock: MockClock) -> None:
    """Two megabytes of audio for one call whose agent sleeps: what is kept is a second of it, 300 kB.

    ``python -m tests.soak`` does it with a hundred.
    """
    gateway = accepting()
    frame = encode_frame(
        MethodId.AudioFrame,
        messages.encode(messages.AudioFrame(call_sid="flooded", payload=b"a" * 6_000, codec="PCMU")),
    )
    async with session_on(gateway) as session:
        call = await session.originate("+15550100001", trunk_id="main", call_sid="flooded")
        call.audio()
        gc.collect()
        tracemalloc.start()
        try:
            await gateway.stream(frame * 350)
            await trio.sleep(10)
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert session.statistics().frames == 350
        assert held < MEGABYTE


async def test_a_flood_of_streams_is_held_at_the_limit(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)
        opened = 0
        with trio.move_on_after(5):
            while True:
                await gateway.stream(audio(call.call_sid, opened)[:7], end=False)
                opened += 1
        assert opened <= 128
        assert call.state is CallState.ANSWERED
        await session.barge(call.call_sid)


def test_a_hostile_length_costs_nothing() -> None:
    for length in (0xFFFFFFFF, 0x7FFFFFFF, (1 << 20) + 1):
        decoder = FrameDecoder()
        tracemalloc.start()
        try:
            assert decoder.feed(length.to_bytes(4, "little")) == []
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert decoder.error is not None
        assert peak <= 65_536


@pytest.mark.parametrize(("calls", "loss", "p99_ms"), [(4, 0.05, 200), (4, 0.10, 250), (16, 0.01, 250)])
def test_echo_over_a_bad_path_is_late_by_little(calls: int, loss: float, p99_ms: float) -> None:
    result = talk(calls=calls, seconds=3, loss=loss)
    assert result.shed + result.dropped == 0
    assert result.quantile_ms(0.99) <= p99_ms


async def test_a_stalled_path_sheds_audio_instead_of_delaying_it(autojump_clock: MockClock) -> None:
    """Nothing gets out for two seconds: what could not leave in time is not said late, and is counted."""
    network, gateway = MemoryNetwork(delay=0.02), accepting()
    async with session_on(gateway, network) as session:
        call = await answered_call(session, gateway)
        await call.send_audio(b"\x55" * 160 * 50)
        network.outage(2.0)
        await call.send_audio(b"\x55" * 160 * 150)
        await call.wait_played()
        await trio.sleep(1)
        statistics = call.statistics()
        numbers = [frame.sequence_number for frame in gateway.uplink]
        assert session.statistics().connections == 1
        assert statistics.packets_sent + statistics.packets_shed == 200
        assert 60 <= statistics.packets_shed <= 130
        assert len(numbers) == statistics.packets_sent
        assert max(numbers) == 199  # every packet spent its number, sent or not
