"""What a session does when the connection beneath it goes: noticed, replaced, resumed, and what cannot be is said."""

from __future__ import annotations

import contextlib

import pytest
import trio
import trustme
from trio.testing import MockClock

from agentao_trio import (
    ActiveCall,
    CallState,
    CommandTimeout,
    ConnectionLost,
    EventType,
    Session,
    SessionState,
    open_session,
)
from agentao_trio.close_codes import CloseCode
from agentao_trio.gateway import Gateway, GatewaySettings, open_gateway
from agentao_trio.messages import MethodId
from agentao_trio.testing import MemoryNetwork
from tests.support.scripted_gateway import accepting, answered_call, audio, session_on
from tests.support.simulated import HOST, PORT, simulated

ECHO, SILENT, SHORT = "+15550100001", "+15550100005", "+15550100016"
new_authority = trustme.CA  # before the fixture below replaces it
WORD = b"\x55" * 1600  # ten packets

#: Seconds from the return of the path within which everything works again.
BACK_WITHIN = 2.5


@pytest.fixture(autouse=True)
def one_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gateways that are started anew keep their certificate authority."""
    authority = new_authority()
    monkeypatch.setattr("agentao_trio.gateway.server.trustme.CA", lambda: authority)


async def place(session: Session, to: str = ECHO) -> ActiveCall:
    call = await session.originate(to, trunk_id="main")
    await call.wait_answered()
    return call


async def converse(call: ActiveCall) -> None:
    """Speak until ten packets were heard. The first after an outage may be shed, for what is before them."""
    heard = call.audio()
    async with trio.open_nursery() as nursery:

        async def speak() -> None:
            while True:
                await call.send_audio(WORD)

        nursery.start_soon(speak)
        with trio.fail_after(5):
            for _ in range(10):
                await anext(heard)
        nursery.cancel_scope.cancel()
    heard.close()


@pytest.mark.parametrize("dark", [1, 30, 119])
async def test_calls_outlive_an_outage(dark: int, autojump_clock: MockClock) -> None:
    network = MemoryNetwork(delay=0.02)
    async with simulated(GatewaySettings(talk=0.5), network) as (session, gateway):
        lasting, ending = await place(session), await place(session, SHORT)
        await converse(lasting)
        network.outage(dark)
        await trio.sleep(dark)
        assert gateway.model.statistics().calls_open == 1  # one has ended behind our back
        with trio.fail_after(BACK_WITHIN):
            await session.get_active_buckets()
            assert (await ending.wait_ended()).q850_cause == 16
        await converse(lasting)
        await trio.sleep(150)
        assert lasting.state is CallState.ANSWERED
        statistics = session.statistics()
        assert statistics.connections == (1 if dark == 1 else 2)
        assert statistics.calls_lost == 0


async def test_after_the_window_calls_are_lost_once_and_by_name_and_no_ghosts_remain(
    autojump_clock: MockClock,
) -> None:
    network = MemoryNetwork(delay=0.02)
    async with simulated(network=network) as (session, gateway):
        calls = [await place(session) for _ in range(3)]
        started = trio.current_time()
        network.outage(130)
        for call in calls:
            with pytest.raises(ConnectionLost, match=f"call {call.call_sid}: nothing was heard of it for 120 s"):
                await call.wait_ended()
        assert 120 <= trio.current_time() - started <= 125
        assert session.statistics().calls_lost == 3
        assert not session.calls
        await trio.sleep(20)
        # The gateway has been holding them all the while; nobody here wants them any more.
        assert gateway.model.statistics().calls_open == 0
        assert session.statistics().calls_lost == 3
        async with await place(session) as call:
            await converse(call)


class Site:
    """Where one gateway after the other runs. One that ``dies`` does not say so."""

    def __init__(self, network: MemoryNetwork, nursery: trio.Nursery) -> None:
        self._network = network
        self._nursery = nursery
        self._stop = trio.Event()
        self._stopped = trio.Event()
        self._dies = False

    async def start(self) -> Gateway:
        self._stop, self._stopped = trio.Event(), trio.Event()
        gateway: Gateway = await self._nursery.start(self._run)
        return gateway

    async def stop(self, *, dies: bool = False) -> None:
        self._dies = dies
        self._stop.set()
        await self._stopped.wait()

    async def _run(self, task_status: trio.TaskStatus[Gateway]) -> None:
        socket = self._network.socket((HOST, PORT))
        with contextlib.ExitStack() as silence:
            async with open_gateway(socket=socket, names=[HOST], seed=1) as gateway:
                task_status.started(gateway)
                await self._stop.wait()
                if self._dies:
                    silence.enter_context(self._network.blackhole(source=socket.address))
        socket.close()
        self._stopped.set()


@pytest.mark.parametrize("dies", [False, True])
async def test_a_gateway_that_was_started_anew_knows_no_calls(dies: bool, autojump_clock: MockClock) -> None:
    network = MemoryNetwork(delay=0.02, icmp=False)
    async with trio.open_nursery() as nursery:
        site = Site(network, nursery)
        gateway = await site.start()
        async with open_session(f"quic://{HOST}:{PORT}", tls=gateway.tls, socket=network.socket()) as session:
            old = await place(session)
            await site.stop(dies=dies)
            gone_at = trio.current_time()
            await trio.sleep(1)
            await site.start()
            with trio.fail_after(4.5):  # a dead peer is noticed within 3 s
                while session.statistics().connections < 2:
                    await trio.sleep(0.05)
            new = await place(session)
            with pytest.raises(ConnectionLost, match=old.call_sid):
                await old.wait_ended()
            assert 115 <= trio.current_time() - gone_at <= 126
            assert new.state is CallState.ANSWERED
            assert session.statistics().calls_lost == 1
        await site.stop()


async def test_a_quiet_call_that_the_gateway_still_holds_is_not_lost(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(delay=0.02)
    async with simulated(network=network) as (session, _):
        quiet, muted = await place(session, SILENT), await place(session, SILENT)
        await muted.mute()
        network.outage(10)
        await trio.sleep(200)
        assert (quiet.state, muted.state) == (CallState.ANSWERED, CallState.ANSWERED)
        assert session.statistics().calls_lost == 0


async def test_a_changed_address_costs_nothing(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(delay=0.02)
    socket = network.socket()
    async with (
        open_gateway(socket=network.socket((HOST, PORT)), names=[HOST], seed=1) as gateway,
        open_session(f"quic://{HOST}:{PORT}", tls=gateway.tls, socket=socket) as session,
    ):
        call = await place(session)
        for _ in range(3):
            await converse(call)
            network.rebind(socket)
        await converse(call)
        assert session.statistics().connections == 1
        assert call.statistics().packets_lost == call.statistics().packets_shed == 0


async def test_streams_that_are_reset_take_no_call_with_them(autojump_clock: MockClock) -> None:
    async with simulated(GatewaySettings(talk=0.5), MemoryNetwork(delay=0.02)) as (session, gateway):
        lasting, ending = await place(session), await place(session, SHORT)
        for _ in range(20):
            await trio.sleep(0.05)
            gateway.reset_streams()
        assert (await ending.wait_ended()).q850_cause == 16
        await converse(lasting)
        assert session.statistics().streams_reset > 5
        assert session.statistics().connections == 1


async def test_a_hangup_cut_in_two_is_heard_from_its_replay_once(autojump_clock: MockClock) -> None:
    gateway = accepting()
    async with session_on(gateway) as session:
        call = await answered_call(session, gateway)
        hangup = gateway.event_frame(call.call_sid, EventType.CHANNEL_HANGUP_COMPLETE, q850_cause=31)
        assert gateway.connection is not None
        broken = await gateway.connection.open_uni()
        await broken.send_all(audio(call.call_sid, 0) + hangup[:20])
        await trio.sleep(0.1)
        broken.reset(7)
        await trio.sleep(0.1)
        assert call.state is CallState.ANSWERED
        for _ in range(2):
            await gateway.stream(hangup)
        assert (await call.wait_ended()).q850_cause == 31
        await trio.sleep(0.1)
        statistics = session.statistics()
        assert (statistics.streams_reset, statistics.events_duplicate, statistics.calls_ended) == (1, 1, 1)


async def test_a_gateway_that_refuses_us_is_asked_seldom_and_the_reason_is_told(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, another = MemoryNetwork(delay=0.02), new_authority()
    async with trio.open_nursery() as nursery:
        site = Site(network, nursery)
        gateway = await site.start()
        async with open_session(
            f"quic://{HOST}:{PORT}", tls=gateway.tls, socket=network.socket(), rpc_timeout=5
        ) as session:
            await site.stop()
            monkeypatch.setattr("agentao_trio.gateway.server.trustme.CA", lambda: another)
            await site.start()  # somebody else's, by its certificate
            await trio.sleep(60)
            assert session.state is SessionState.RECONNECTING
            assert 10 <= session.statistics().reconnects_failed <= 30
            with pytest.raises(CommandTimeout, match="not signed by an authority that is trusted here"):
                await session.get_active_buckets()
        await site.stop()


async def test_two_programs_with_one_name_do_not_make_a_storm(autojump_clock: MockClock) -> None:
    """The newest connection of a ``client_id`` wins; a gateway may close the other."""
    async with simulated(network=MemoryNetwork(delay=0.02)) as (session, gateway):
        with trio.move_on_after(60):
            while True:
                await trio.sleep(0.1)
                await gateway.disconnect()
        assert session.statistics().connections < 30


async def test_who_is_told_of_a_loss_may_command_again_at_once(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with simulated(network=network) as (session, gateway):
        call = await session.originate("+15550100004", trunk_id="main")
        await call.wait_answered()
        network.outage(4)
        with pytest.raises(CommandTimeout, match="the connection was lost"):
            await call.hold()
        assert session.state is SessionState.RECONNECTING
        await call.hangup()  # goes out on the next connection
        assert gateway.statistics().model.calls_open == 0


async def test_an_hour_without_a_gateway_is_a_handful_of_warnings(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    network = MemoryNetwork()
    async with simulated(network=network) as (session, _):
        network.outage(3600)
        await trio.sleep(3600)
        attempts = session.statistics().reconnects_failed
        await trio.sleep(10)
        assert session.state is SessionState.CONNECTED
    assert 600 < attempts < 1500
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) < 5


async def test_commands_on_their_way_when_the_connection_goes_have_an_unknown_outcome(
    autojump_clock: MockClock,
) -> None:
    async def answer(method: MethodId, request: object) -> None:
        if method is MethodId.Barge:
            await trio.sleep(5)

    gateway = accepting()
    gateway._answer = answer
    async with session_on(gateway) as session, trio.open_nursery() as nursery:

        async def barge() -> None:
            with pytest.raises(
                CommandTimeout, match="lost before Barge was answered; the outcome is unknown"
            ) as caught:
                await session.barge("c")
            assert not caught.value.retryable
            assert caught.value.method == "Barge"

        for _ in range(10):
            nursery.start_soon(barge)
        await trio.sleep(1)
        assert gateway.connection is not None
        await gateway.connection.aclose(CloseCode.SHUTTING_DOWN, "shutting down")
        await trio.sleep(1)
        assert session.statistics().commands_timed_out == 10
