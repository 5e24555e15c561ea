"""Calls bridged to a model over real sockets: what one costs, and whether many are fluent on one core.

The gateway and the scripted models are another process, on another core where there is one. Every call hears silence
at 50 packets a second and passes it on; the model speaks without a pause and four times as fast as it is heard.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator

import trio

from agentao_trio import ClientTLS, Codec, Session, open_session
from agentao_trio.gateway import open_gateway
from agentao_trio.realtime.bridge import Bridge, bridge
from agentao_trio.realtime.configuration import SessionConfig
from agentao_trio.realtime.script import Script, Turn
from agentao_trio.realtime.session import open_realtime
from agentao_trio.realtime.simulator import open_simulator
from benchmarks.row import Goal, Row

__all__ = ["measure"]

#: Sends silence without end, and hangs up never.
SILENT = "+15550100004"
#: Half a minute of speech.
MONOLOGUE = Script(otherwise=Turn(text="and so on " * 40, think_seconds=0.1))
#: Calls that begin in a second, and seconds until all of them talk evenly.
PER_SECOND, SETTLE = 20.0, 2.0


def measure(*, quick: bool) -> Iterator[Row]:
    """What one bridged call costs among few and among sixty, on one core."""
    for calls, seconds in ((1, 2.0), (5, 2.0)) if quick else ((1, 10.0), (60, 20.0)):
        with _other_end() as (endpoint, ca, url), _on_one_core():
            figures = trio.run(_talk, calls, seconds, endpoint, ca, url)
        dry = figures["ran_dry"] + figures["slots_skipped"]
        yield Row(
            group="bridge",
            name=f"{calls} bridged calls, times out of packets"
            if calls > 1
            else "1 bridged call, times out of packets",
            value=dry,
            goal=Goal(relation="≤", value=0),
            figures=figures,
            text=f"CPU {figures['cpu_percent']:.0f} % of a core, {figures['cpu_percent_per_call']:.2f} % a call; late "
            f"p99 {figures['lateness_p99_ms']:.1f} ms; {figures['packets_sent']:.0f} packets",
        )


async def _talk(calls: int, seconds: float, endpoint: str, ca: bytes, url: str) -> dict[str, float]:
    bridges: list[Bridge] = []
    async with open_session(endpoint, tls=ClientTLS(ca=ca)) as session, trio.open_nursery() as nursery:
        for _ in range(calls):
            nursery.start_soon(_one, session, url, bridges)
            await trio.sleep(1 / PER_SECOND)
        while len(bridges) < calls:  # noqa: ASYNC110 - a tenth of a second is soon enough
            await trio.sleep(0.1)
        await trio.sleep(SETTLE)
        before = [each.statistics() for each in bridges]
        sent_before = session.statistics().media.packets_sent
        skipped_before = session.statistics().clock.slots_skipped
        cpu, began = time.process_time(), time.monotonic()
        await trio.sleep(seconds)
        share = (time.process_time() - cpu) / (time.monotonic() - began)
        after = [each.statistics() for each in bridges]
        statistics = session.statistics()
        nursery.cancel_scope.cancel()
    return {
        "calls": calls,
        "cpu_percent": share * 100,
        "cpu_percent_per_call": share * 100 / calls,
        "packets_sent": statistics.media.packets_sent - sent_before,
        "slots_skipped": statistics.clock.slots_skipped - skipped_before,
        "lateness_p99_ms": statistics.clock.lateness_p99 * 1000,
        "ran_dry": sum(new.ran_dry - old.ran_dry for new, old in zip(after, before, strict=True)),
        "model_underruns": sum(
            new.playout.underruns - old.playout.underruns for new, old in zip(after, before, strict=True)
        ),
        "caller_dropped": sum(new.caller_dropped - old.caller_dropped for new, old in zip(after, before, strict=True)),
        "caller_ms": sum(new.caller_ms - old.caller_ms for new, old in zip(after, before, strict=True)),
    }


async def _one(session: Session, url: str, bridges: list[Bridge]) -> None:
    async with (
        await session.originate(SILENT, trunk_id="bench", codec=Codec.PCMU) as call,
        open_realtime(url, config=SessionConfig(turn_detection=None)) as model,
        bridge(call, model, greet=True) as talk,
    ):
        bridges.append(talk)
        await talk.wait_ended()


@contextlib.contextmanager
def _other_end() -> Iterator[tuple[str, bytes, str]]:
    command = [sys.executable, "-m", "benchmarks.bridge"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        try:
            yield found["endpoint"], found["ca"].encode(), found["url"]
        finally:
            process.terminate()


@contextlib.contextmanager
def _on_one_core() -> Iterator[None]:
    """What runs in the block has one core of its own, as far as the machine has several."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@contextlib.asynccontextmanager
async def _open_other_end() -> AsyncIterator[str]:
    async with open_gateway() as gateway, open_simulator(MONOLOGUE) as model:
        yield json.dumps({"endpoint": gateway.endpoint, "ca": gateway.ca_pem.decode(), "url": model.url})


async def _serve() -> None:
    if hasattr(os, "sched_setaffinity") and len(cores := os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, cores - {min(cores)})
    async with _open_other_end() as where:
        print(where, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(_serve)
