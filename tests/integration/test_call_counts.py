"""However a call ends, it is counted once: opened are those that are open, and those that ended in one of the ways."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry
from trio.testing import MockClock

from agentao_trio import CommandRejected, CommandTimeout, EventType, Session, messages
from agentao_trio.messages import ErrorCode, MethodId
from agentao_trio.metrics import SessionCollector
from agentao_trio.testing import MemoryNetwork
from tests.support.scripted_gateway import CREATE, HANGUP, ScriptedGateway, answered_call, session_on

ECHO = "+15550100001"


class Exchange(ScriptedGateway):
    """What it does with a call is the name of the trunk."""

    def __init__(self, network: MemoryNetwork) -> None:
        super().__init__(self._respond)
        self.network = network

    async def _respond(self, method: MethodId, request: Any) -> Any:
        if method is MethodId.Terminate and request.call_sid.startswith("deaf"):
            return None
        if method is MethodId.Terminate:
            await self.event(request.call_sid, HANGUP, q850_cause=16)
        if method is not MethodId.Originate:
            return None
        if request.trunk_id == "refuses":
            return messages.OriginateResponse(error_code=ErrorCode.ERR_RATE_LIMITED)
        if request.trunk_id == "silent":
            raise self.Silence
        if request.trunk_id == "slow":
            await trio.sleep(0.5)
            return messages.OriginateResponse(call_sid=f"named-{request.call_sid}")
        await self.event(request.call_sid, CREATE)
        await self.event(request.call_sid, EventType.CHANNEL_ANSWER)
        return messages.OriginateResponse(call_sid=request.call_sid)


async def hung_up_by_us(session: Session, gateway: Exchange) -> None:
    async with await session.originate(ECHO, trunk_id="main"):
        pass


async def hung_up_by_them(session: Session, gateway: Exchange) -> None:
    call = await session.originate(ECHO, trunk_id="main")
    await gateway.event(call.call_sid, HANGUP, q850_cause=16)
    await call.wait_ended()


async def refused(session: Session, gateway: Exchange) -> None:
    with pytest.raises(CommandRejected):
        await session.originate(ECHO, trunk_id="refuses")


async def never_answered_for(session: Session, gateway: Exchange) -> None:
    with pytest.raises(CommandTimeout):
        await session.originate(ECHO, trunk_id="silent")


async def given_up_before_the_gateway_named_it(session: Session, gateway: Exchange) -> None:
    with trio.move_on_after(0.2):
        await session.originate(ECHO, trunk_id="slow")
    await trio.sleep(1)


async def left_before_the_end_was_confirmed(session: Session, gateway: Exchange) -> None:
    async with await session.originate(ECHO, trunk_id="main", call_sid="deaf"):
        pass
    await gateway.event("deaf", EventType.CHANNEL_HOLD)
    await gateway.event("deaf", HANGUP, q850_cause=16)


async def left_to_go_on_as_a_conference(session: Session, gateway: Exchange) -> None:
    call = await session.originate(ECHO, trunk_id="main")
    await call.wait_answered()
    leg = await call.connect(ECHO)
    await call.close()
    for each in (call, leg):
        await gateway.event(each.call_sid, HANGUP, q850_cause=16)


async def left_to_another_worker(session: Session, gateway: Exchange) -> None:
    incoming = session.incoming()
    await gateway.event("in-1", CREATE)
    (await anext(incoming)).release()


async def lost_in_an_outage(session: Session, gateway: Exchange) -> None:
    call = await answered_call(session, gateway)
    gateway.network.outage(10)
    with pytest.raises(trio.BrokenResourceError):
        await call.wait_ended()


async def overrun(session: Session, gateway: Exchange) -> None:
    call = await session.originate(ECHO, trunk_id="main")
    _unread = call.events()
    frames = [gateway.event_frame(call.call_sid, 20 + number % 2) for number in range(300)]
    await gateway.stream(b"".join(frames))


WAYS: dict[Callable[[Session, Exchange], Awaitable[None]], dict[str, int]] = {
    hung_up_by_us: {"hung_up": 1},
    hung_up_by_them: {"hung_up": 1},
    refused: {"refused": 1},
    never_answered_for: {"left": 1},
    given_up_before_the_gateway_named_it: {"left": 1},
    left_before_the_end_was_confirmed: {"left": 1},
    left_to_go_on_as_a_conference: {"released": 2},
    left_to_another_worker: {"released": 1},
    lost_in_an_outage: {"lost": 1},
    overrun: {"left": 1},
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_a_call_is_counted_by_the_way_it_ended_alone(
    way: Callable[[Session, Exchange], Awaitable[None]], autojump_clock: MockClock
) -> None:
    network = MemoryNetwork()
    gateway = Exchange(network)
    async with session_on(gateway, network, client_id="desk", rpc_timeout=2) as session:
        registry = CollectorRegistry()
        registry.register(SessionCollector(session))
        ends = {"hung_up": 0, "lost": 0, "left": 0, "released": 0, "refused": 0}

        def value(name: str, **labels: str) -> float:
            found = registry.get_sample_value(name, {"client_id": "desk", **labels})
            assert found is not None
            return found

        open_call = await session.originate(ECHO, trunk_id="main") if way is not lost_in_an_outage else None
        await way(session, gateway)
        await trio.sleep(1)
        counted = {how: int(value("agentao_calls_ended_total", how=how)) for how in ends}
        assert counted == ends | WAYS[way]
        assert value("agentao_calls_open") == (open_call is not None)
        assert value("agentao_calls_opened_total") == value("agentao_calls_open") + sum(counted.values())
