"""Short programmes of calls and troubles, drawn by Hypothesis and run whole: real QUIC, virtual time, one run each.

Steps do not wait for one another to settle; time is a step of its own.
"""

from __future__ import annotations

from typing import Any

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentao_trio import ActiveCall, AgentaoError, CallState
from agentao_trio.gateway import GatewaySettings
from agentao_trio.testing import MemoryNetwork
from tests.support.measure import deterministic_run
from tests.support.simulated import simulated

NUMBERS = {"echo": "+15550100001", "hold": "+15550100006", "short": "+15550100016", "busy": "+15550100017"}

STEPS = st.one_of(
    st.tuples(st.just("place"), st.sampled_from(sorted(NUMBERS))),
    st.tuples(st.just("place and give up"), st.floats(0, 0.2)),
    st.tuples(st.just("say"), st.integers(0, 3)),
    st.tuples(st.just("hang up"), st.integers(0, 3)),
    st.tuples(st.just("leave"), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.001, 0.05, 0.5, 3.0])),
    st.tuples(st.just("darken"), st.sampled_from([0.1, 1.0, 4.0, 12.0])),
    st.tuples(st.just("reset streams"), st.none()),
    st.tuples(st.just("disconnect"), st.none()),
)


async def perform(programme: list[tuple[str, Any]]) -> None:
    network = MemoryNetwork(seed=1, delay=0.02)
    calls: list[ActiveCall] = []
    async with simulated(GatewaySettings(ring=0.06, talk=0.4), network, rpc_timeout=3.0) as (session, gateway):

        async def place(to: str, patience: float = 60.0) -> None:
            with trio.move_on_after(patience):
                try:
                    calls.append(await session.originate(to, trunk_id="main"))
                except AgentaoError:
                    return

        async def with_call(index: int, verb: str) -> None:
            call = calls[index]
            try:
                match verb:
                    case "say":
                        await call.send_audio(b"\x55" * 800)
                    case "hang up":
                        await call.hangup()
                    case _:
                        async with call:
                            pass
            except (AgentaoError, trio.BusyResourceError):
                pass

        async with trio.open_nursery() as nursery:
            for step, value in programme:
                match step:
                    case "place":
                        nursery.start_soon(place, NUMBERS[value])
                    case "place and give up":
                        nursery.start_soon(place, NUMBERS["echo"], value)
                    case "wait":
                        await trio.sleep(value)
                    case "darken":
                        network.outage(value)
                    case "reset streams":
                        gateway.reset_streams()
                    case "disconnect":
                        await gateway.disconnect()
                    case _ if value < len(calls):
                        nursery.start_soon(with_call, value, step)
        await trio.sleep(20)  # whatever is dark is over, whatever was lost is replayed
        for call in calls:
            if call.state is not CallState.DISCONNECTED:
                async with call:
                    pass
        await trio.sleep(5)
        assert not session.calls
        assert gateway.model.statistics().calls_open == 0
        statistics = session.statistics()
        assert statistics.calls_lost == statistics.frames_undecodable == statistics.streams_abandoned == 0


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(programme=st.lists(STEPS, min_size=1, max_size=14))
def test_whatever_is_done_every_call_ends_at_both_ends(programme: list[tuple[str, Any]]) -> None:
    deterministic_run(perform, programme, seed=1)
