"""How late echoes come over a bad path: the client's code and real QUIC at both ends, in virtual time."""

from __future__ import annotations

import random
import struct
from typing import Any

import attrs
import trio
import trio._core._run
from trio.testing import MockClock

from agentao_trio import Session
from agentao_trio.testing import MemoryNetwork
from tests.support.echo_gateway import EchoGateway
from tests.support.scripted_gateway import session_on

__all__ = ["Talk", "deterministic_run", "quantile", "talk"]

_PACKET, _PTIME = 160, 0.020


def quantile(values: list[float], q: float) -> float:
    """The ``q``-quantile of sorted values; NaN of none."""
    return values[min(len(values) - 1, int(q * len(values)))] if values else float("nan")


def deterministic_run(main: Any, *arguments: Any, seed: int) -> Any:
    """``trio.run`` in virtual time, with one order of tasks and one sequence of dice per seed."""
    run: Any = trio._core._run
    before = run._ALLOW_DETERMINISTIC_SCHEDULING
    run._ALLOW_DETERMINISTIC_SCHEDULING = True
    run._r.seed(seed)
    random.seed(seed)
    try:
        return trio.run(main, *arguments, clock=MockClock(autojump_threshold=0))
    finally:
        run._ALLOW_DETERMINISTIC_SCHEDULING = before


@attrs.frozen(kw_only=True)
class Talk:
    """What became of the packets: echo delays in seconds (sorted), and counts."""

    delays: list[float]
    sent: int
    #: Dropped by the client for want of room, and by the gateway.
    shed: int
    dropped: int
    #: Delays of events in seconds from the gateway to the program, sorted.
    event_delays: list[float]
    trace: str

    def quantile_ms(self, q: float) -> float:
        return quantile(self.delays, q) * 1000


def talk(*, calls: int, seconds: float, loss: float, seed: int = 0, rtt: float = 0.040, **path: Any) -> Talk:
    """``calls`` calls say 50 packets a second each for ``seconds``, and listen to their echo."""
    delays: list[float] = []
    event_delays: list[float] = []
    counts = {"sent": 0, "shed": 0}
    gateway = EchoGateway()

    async def one(session: Session) -> None:
        async with await session.originate("+15550100001", trunk_id="main") as call:
            await call.wait_answered()
            heard = call.audio(seconds=10)

            async def listen() -> None:
                async for frame in heard:
                    delays.append(trio.current_time() - struct.unpack_from("<d", frame.payload)[0])  # noqa: PERF401

            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                begin = trio.current_time()
                for number in range(round(seconds / _PTIME)):
                    await trio.sleep_until(begin + number * _PTIME)
                    await call.send_audio(struct.pack("<d", trio.current_time()) * (_PACKET // 8))
                    counts["sent"] += 1
                await trio.sleep(2)
                nursery.cancel_scope.cancel()
            counts["shed"] += call.statistics().packets_shed

    async def watch_events(session: Session) -> None:
        events = session.events(types=[9])
        async with trio.open_nursery() as nursery:

            async def emit() -> None:
                while True:
                    await gateway.event("probe", 9, status=repr(trio.current_time()))
                    await trio.sleep(0.1)

            nursery.start_soon(emit)
            async for record in events:
                event_delays.append(trio.current_time() - float(record.event.status))  # noqa: PERF401

    async def main() -> str:
        network = MemoryNetwork(seed=seed, loss=loss, delay=rtt / 2, **path)
        async with session_on(gateway, network) as session, trio.open_nursery() as watching:
            watching.start_soon(watch_events, session)
            async with trio.open_nursery() as nursery:
                for _ in range(calls):
                    nursery.start_soon(one, session)
                    await trio.sleep(0.0113)
            watching.cancel_scope.cancel()
        return network.trace

    trace = deterministic_run(main, seed=seed)
    return Talk(
        delays=sorted(delays),
        sent=counts["sent"],
        shed=counts["shed"],
        dropped=gateway.dropped,
        event_delays=sorted(event_delays),
        trace=trace,
    )
