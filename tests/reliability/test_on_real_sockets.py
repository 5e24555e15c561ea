"""The troubles of test_resume once more, in seconds of real time: real UDP, faults made by a relay in between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trustme

from agentao_trio import (
    ActiveCall,
    CallState,
    ConnectionLost,
    EventType,
    Session,
    SessionState,
    TransportSettings,
    open_session,
)
from agentao_trio.gateway import Gateway, GatewaySettings, open_gateway
from tests.support.ports import free_port
from tests.support.relay import Relay, open_relay
from tests.support.scripted_gateway import accepting, answered_call, audio, serving

LOOPBACK, ECHO, SHORT = "127.0.0.1", "+15550100001", "+15550100016"
#: Where the path goes dark, a peer is given up after a second, so that a test takes a few; on a busy machine that may
#: happen to one that is well, too. Where the path only misbehaves, nobody is to be given up, however long it takes.
QUICK, PATIENT = TransportSettings(ping_interval=0.1, dead_after=0.9), TransportSettings(dead_after=50)
SETTINGS = GatewaySettings(ring=0.05, talk=0.3)
WORD = b"\x55" * 1600
#: Seconds after which a test does not wait any more. How soon all is well again is measured in virtual time elsewhere.
HANGS = 60


@pytest.fixture(autouse=True)
def one_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gateways that are started anew keep their certificate authority."""
    authority = trustme.CA()
    monkeypatch.setattr("agentao_trio.gateway.server.trustme.CA", lambda: authority)


@asynccontextmanager
async def through_a_relay(
    gateway: Gateway, transport: TransportSettings = PATIENT, resume_window: float = 120.0
) -> AsyncIterator[tuple[Session, Relay]]:
    port = int(gateway.endpoint.rpartition(":")[2])
    async with (
        open_relay((LOOPBACK, port)) as relay,
        open_session(
            f"quic://{LOOPBACK}:{relay.port}", tls=gateway.tls, transport=transport, resume_window=resume_window
        ) as session,
    ):
        yield session, relay


async def place(session: Session, to: str = ECHO) -> ActiveCall:
    call = await session.originate(to, trunk_id="main")
    await call.wait_answered()
    return call


async def converse(call: ActiveCall) -> None:
    """Speak until ten packets were heard."""
    heard = call.audio()
    async with trio.open_nursery() as nursery:

        async def speak() -> None:
            while True:
                await call.send_audio(WORD)

        nursery.start_soon(speak)
        with trio.fail_after(HANGS):
            for _ in range(10):
                await anext(heard)
        nursery.cancel_scope.cancel()
    heard.close()


async def until(fact: Callable[[], bool]) -> None:
    with trio.fail_after(HANGS):
        while not fact():
            await trio.sleep(0.01)


async def test_calls_outlive_an_outage_and_hear_of_what_ended_meanwhile() -> None:
    async with open_gateway(settings=SETTINGS, seed=1) as gateway, through_a_relay(gateway, QUICK) as (session, relay):
        lasting, ending = await place(session), await place(session)
        await converse(lasting)
        relay.dark = True
        gateway.hang_up(ending.call_sid, 16)
        await until(lambda: session.state is SessionState.RECONNECTING)
        assert gateway.model.statistics().calls_open == 1
        assert ending.state is not CallState.DISCONNECTED
        relay.dark = False
        with trio.fail_after(HANGS):
            assert (await ending.wait_ended()).q850_cause == 16
        await converse(lasting)
        assert session.statistics().calls_lost == 0
        assert session.statistics().connections >= lasting.statistics().uplinks_opened >= 2


@pytest.mark.parametrize("dies", [False, True])
async def test_a_gateway_that_is_started_anew_in_mid_call(dies: bool) -> None:
    """The session resumes; a call the new one knows nothing of is lost when the window is over, once and by name."""
    window = 3.0
    async with trio.open_nursery() as nursery:
        stop, stopped, port = trio.Event(), trio.Event(), free_port()

        async def run(task_status: trio.TaskStatus[Gateway]) -> None:
            async with open_gateway(port=port, settings=SETTINGS, seed=1, transport=QUICK) as gateway:
                task_status.started(gateway)
                await stop.wait()
            stopped.set()

        gateway: Gateway = await nursery.start(run)
        async with through_a_relay(gateway, QUICK, resume_window=window) as (session, relay):
            old = await place(session)
            await converse(old)
            relay.dark = dies  # one that dies does not say so
            gone_at = trio.current_time()
            stop.set()
            await stopped.wait()
            stop, stopped = trio.Event(), trio.Event()
            gateway = await nursery.start(run)
            relay.dark = False
            await until(lambda: session.statistics().connections > 1 and session.state is SessionState.CONNECTED)
            new = await place(session)
            await converse(new)
            waiting = old.state is CallState.ANSWERED  # who knows
            assert waiting or trio.current_time() - gone_at > window
            with pytest.raises(ConnectionLost, match=old.call_sid), trio.fail_after(window + HANGS):
                await old.wait_ended()
            assert trio.current_time() - gone_at >= window
            await converse(new)
            statistics = session.statistics()
            assert (statistics.calls_lost, statistics.calls_open) == (1, 1)
            await new.hangup()
        stop.set()


async def test_a_nat_that_forgets_costs_nothing() -> None:
    async with open_gateway(settings=SETTINGS, seed=1) as gateway, through_a_relay(gateway) as (session, relay):
        call = await place(session)
        for _ in range(3):
            await converse(call)
            await relay.rebind()
        await converse(call)
        assert len(set(relay.source_ports)) == 4
        assert session.statistics().connections == gateway.statistics().connections == 1
        assert call.statistics().packets_lost == 0


async def test_a_lossy_path_loses_no_hangup() -> None:
    async with open_gateway(settings=SETTINGS, seed=1) as gateway, through_a_relay(gateway) as (session, relay):
        relay.loss = 0.3

        async def one() -> None:
            assert (await (await place(session, SHORT)).wait_ended()).q850_cause == 16

        with trio.fail_after(HANGS):
            while relay.lost < 10:  # a busy machine has few datagrams, with a lot in each
                async with trio.open_nursery() as nursery:
                    for _ in range(10):
                        nursery.start_soon(one)
        assert session.statistics().connections == 1


async def test_a_stream_reset_in_mid_frame_by_a_hostile_gateway() -> None:
    gateway = accepting()
    async with serving(gateway, None) as where, open_session(**where) as session:
        await gateway.connected.wait()
        call = await answered_call(session, gateway)
        hangup = gateway.event_frame(call.call_sid, EventType.CHANNEL_HANGUP_COMPLETE, q850_cause=31)
        assert gateway.connection is not None
        heard = call.audio()
        for cut in range(1, len(hangup), 7):
            broken = await gateway.connection.open_uni()
            await broken.send_all(audio(call.call_sid, cut) + hangup[:cut])
            with trio.fail_after(HANGS):
                while (await anext(heard)).sequence_number < cut:  # as far as this, it has arrived
                    pass
            broken.reset(7)
        assert call.state is CallState.ANSWERED
        await gateway.stream(hangup * 2)
        with trio.fail_after(HANGS):
            assert (await call.wait_ended()).q850_cause == 31
            while session.statistics().events_duplicate < 1:
                await trio.sleep(0.01)
        statistics = session.statistics()
        assert statistics.streams_reset == len(range(1, len(hangup), 7))
        assert (statistics.calls_ended, statistics.connections) == (1, 1)


async def test_streams_reset_under_a_running_conversation() -> None:
    async with open_gateway(settings=SETTINGS, seed=1) as gateway, through_a_relay(gateway) as (session, _):
        lasting, ending = await place(session), await place(session, SHORT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(converse, lasting)
            for _ in range(10):
                await trio.sleep(0.03)
                gateway.reset_streams()
        with trio.fail_after(HANGS):
            assert (await ending.wait_ended()).q850_cause == 16
        await converse(lasting)
        assert session.statistics().streams_reset > 3
        assert session.statistics().connections == 1
