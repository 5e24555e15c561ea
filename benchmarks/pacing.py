"""Whole calls through the embedded gateway on loopback, client and gateway in one process: lateness and CPU."""

from __future__ import annotations

import time

import trio

from agentao_trio import open_session
from agentao_trio.audio import Codec
from agentao_trio.call import ActiveCall
from agentao_trio.gateway import open_gateway
from agentao_trio.session import Session
from benchmarks.row import Row

ECHO = "+15550100001"


async def measure(calls: int, seconds: float) -> Row:
    """``calls`` echoes talk for ``seconds``; the row tells how late packets were, and what it cost."""
    async with open_gateway() as gateway, open_session(gateway.endpoint, tls=gateway.tls) as session:
        talking = [await session.originate(ECHO, trunk_id="bench", codec=Codec.PCMU) for _ in range(calls)]
        for call in talking:
            await call.wait_answered()
        async with trio.open_nursery() as nursery:
            for call in talking:
                nursery.start_soon(_talk, call)
                nursery.start_soon(_listen, call)
            await trio.sleep(0.5)  # the first packets pay for opening streams
            cpu, began = time.process_time(), time.monotonic()
            await trio.sleep(seconds)
            share = (time.process_time() - cpu) / (time.monotonic() - began)
            row = _row(session, talking, share)
            nursery.cancel_scope.cancel()
    return row


async def _talk(call: ActiveCall) -> None:
    second = Codec.PCMU.silence * 50
    while True:
        await call.send_audio(second)


async def _listen(call: ActiveCall) -> None:
    async for _ in call.audio():
        pass


def _row(session: Session, calls: list[ActiveCall], share: float) -> Row:
    clock = session.statistics().clock
    each = [call.statistics() for call in calls]
    figures = {
        "calls": len(calls),
        "lateness_p50_ms": clock.lateness_p50 * 1000,
        "lateness_p99_ms": clock.lateness_p99 * 1000,
        "lateness_max_ms": clock.lateness_max * 1000,
        "worst_call_p99_ms": max(figures.lateness_p99 for figures in each) * 1000,
        "packets_sent": sum(figures.packets_sent for figures in each),
        "packets_received": sum(figures.packets_received for figures in each),
        "packets_lost": sum(figures.packets_lost + figures.packets_shed for figures in each),
        "slots_skipped": clock.slots_skipped,
        "cpu_percent": share * 100,
        "cpu_percent_per_call": share * 100 / len(calls),
    }
    return Row(
        name=f"{len(calls)} calls" if len(calls) > 1 else "1 call",
        figures=figures,
        text=(
            f"late p50 {figures['lateness_p50_ms']:.2f}, p99 {figures['lateness_p99_ms']:.2f}, "
            f"max {figures['lateness_max_ms']:.1f} ms; {figures['packets_lost']} lost, "
            f"{figures['slots_skipped']} slots skipped; CPU {share:.0%}, {figures['cpu_percent_per_call']:.2f} % a call"
        ),
    )
