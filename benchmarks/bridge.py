"""Calls bridged to a model over real sockets: whether sixty of them are fluent on one core, and what one costs.

    python -m benchmarks.bridge PORT CA_FILE bare|bridged|naive URL CALLS SECONDS
    python -m benchmarks.bridge models

The first prints figures as JSON; the second is scripted models, prints their address and ends with its standard input.
The gateway, which echoes, and the scripted models are processes of their own, on another core where there is one. Every
call hears 50 packets a second and passes them on, and the model speaks all the time, hardly faster than it is heard, so
that each second has as many messages as the next. CPU time is that of the process with the bridges, and nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator

import trio
from websockets.asyncio.client import ClientConnection, connect

from agentao_trio import ClientTLS, Codec, Session, open_session
from agentao_trio.realtime.bridge import Bridge, bridge
from agentao_trio.realtime.configuration import SessionConfig
from agentao_trio.realtime.outbox import APPEND_MS
from agentao_trio.realtime.script import Script, Turn
from agentao_trio.realtime.session import open_realtime
from agentao_trio.realtime.simulator import open_simulator
from benchmarks.contest import open_contest
from benchmarks.row import Goal, Row

__all__ = ["measure"]

NUMBER = "+15550100001"
#: A minute and a half of speech.
MONOLOGUE = Script(otherwise=Turn(text="and so on " * 150, think_seconds=0.1, pace=1.02))
#: Calls that begin in a second, and seconds until all of them talk evenly.
PER_SECOND, SETTLE = 30.0, 2.0
#: Per cent of a core that one of sixty calls may cost, with some of the core left.
MOST_PER_CALL = 1.3
PCMU = {"type": "audio/pcmu"}

Figures = dict[str, float]


def measure(*, quick: bool) -> Iterator[Row]:
    """What one bridged call costs among few and among sixty, and beside what a naive program needs."""
    seconds = 2.0 if quick else 10.0
    with open_contest() as gateway, _models() as url:
        for calls in (5,) if quick else (5, 20, 60):
            bare, bridged, naive = (
                gateway.run(
                    "benchmarks.bridge",
                    kind,
                    url,
                    str(calls),
                    str(seconds),
                    timeout=3 * seconds + calls / PER_SECOND + 30,
                )
                for kind in ("bare", "bridged", "naive")
            )
            yield from _rows(calls, bare, bridged, naive)


def _rows(calls: int, bare: Figures, bridged: Figures, naive: Figures) -> Iterator[Row]:
    yield Row(
        group="bridge",
        name=f"{calls} bridged calls, times out of packets",
        value=bridged["ran_dry"] + bridged["slots_skipped"],
        goal=Goal(relation="≤", value=0),
        figures=bridged,
        text=f"late p99 {bridged['lateness_p99_ms']:.1f} ms; {bridged['packets_sent']:.0f} packets",
    )
    cost, beneath = bridged["cpu_percent_per_call"], bare["cpu_percent_per_call"]
    yield Row(
        group="bridge",
        name=f"{calls} bridged calls, CPU of one",
        value=cost,
        unit=" %",
        goal=Goal(relation="≤", value=MOST_PER_CALL, unit=" %") if calls >= 60 else None,
        figures=bridged,
        text=f"{bridged['cpu_percent']:.0f} % of a core for all",
    )
    yield Row(
        group="bridge",
        name=f"{calls} calls: bridged ÷ bare, CPU",
        value=cost / beneath,
        unit="×",
        figures=bare,
        text=f"{cost:.2f} % ÷ {beneath:.2f} % of a core a call",
    )
    loop = naive["cpu_percent_per_call"]
    yield Row(
        group="bridge",
        name=f"{calls} calls: what the bridge adds ÷ asyncio, websockets and json alone, CPU",
        value=(cost - beneath) / loop,
        unit="×",
        figures=naive,
        text=f"{cost - beneath:.2f} % ÷ {loop:.2f} % of a core a call",
    )


# -- calls, with models and without -----------------------------------------------------------------------------------


async def _talk(port: str, ca_file: str, calls: int, seconds: float, url: str) -> Figures:
    """Figures of so many calls, bridged to models at ``url``, or bare where there is none."""
    bridges: list[Bridge] = []
    under_way = 0

    async def one(session: Session) -> None:
        nonlocal under_way
        async with await session.originate(NUMBER, trunk_id="bench", codec=Codec.PCMU) as call:
            await call.wait_answered()
            if url:
                async with (
                    open_realtime(url, config=SessionConfig(turn_detection=None)) as model,
                    bridge(call, model, greet=True) as talk,
                ):
                    bridges.append(talk)
                    under_way += 1
                    await talk.wait_ended()
            async with trio.open_nursery() as talking:
                talking.start_soon(_listen, call.audio_stream())
                under_way += 1
                while True:
                    await call.send_audio(Codec.PCMU.silence * 5)

    tls = ClientTLS(ca=ca_file, server_name="localhost")
    async with open_session(f"quic://127.0.0.1:{port}", tls=tls) as session, trio.open_nursery() as nursery:
        for _ in range(calls):
            nursery.start_soon(one, session)
            await trio.sleep(1 / PER_SECOND)
        while under_way < calls:  # noqa: ASYNC110 - a tenth of a second is soon enough
            await trio.sleep(0.1)
        await trio.sleep(SETTLE)
        before, of_bridges = session.statistics(), _sums(bridges)
        cpu, began = time.process_time(), time.monotonic()
        await trio.sleep(seconds)
        share = (time.process_time() - cpu) / (time.monotonic() - began)
        after, sums = session.statistics(), _sums(bridges)
        nursery.cancel_scope.cancel()
    return {
        "calls": calls,
        "cpu_percent": share * 100,
        "cpu_percent_per_call": share * 100 / calls,
        "packets_sent": after.media.packets_sent - before.media.packets_sent,
        "packets_received": after.media.packets_received - before.media.packets_received,
        "slots_skipped": after.clock.slots_skipped - before.clock.slots_skipped,
        "lateness_p99_ms": after.clock.lateness_p99 * 1000,
        **{name: sums[name] - of_bridges[name] for name in sums},
    }


async def _listen(payloads: AsyncIterator[bytes]) -> None:
    async for _ in payloads:
        pass


def _sums(bridges: list[Bridge]) -> Figures:
    figures = [each.statistics() for each in bridges]
    return {
        "ran_dry": sum(each.ran_dry for each in figures),
        "model_underruns": sum(each.playout.underruns for each in figures),
        "model_ms": sum(each.playout.received_ms for each in figures),
        "caller_dropped": sum(each.caller_dropped for each in figures),
        "caller_ms": sum(each.caller_ms for each in figures),
    }


# -- the other end ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _models() -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.bridge", "models"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


async def _serve() -> None:
    if hasattr(os, "sched_setaffinity") and len(cores := os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, cores - {min(cores)})
    async with open_simulator(MONOLOGUE) as model:
        print(model.url, flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        os._exit(0)  # conversations are not finished first


# -- what is compared with --------------------------------------------------------------------------------------------


async def _loop(calls: int, seconds: float, url: str) -> Figures:
    """Only the messages, as one would write them in an afternoon: no call, no queue, no books."""
    received = 0

    async def hear(socket: ClientConnection) -> None:
        nonlocal received
        async for message in socket:
            event = json.loads(message)
            if event["type"] == "response.output_audio.delta":
                received += len(base64.b64decode(event["delta"]))

    async def speak(socket: ClientConnection, offset: float) -> None:
        deadline = asyncio.get_running_loop().time() + offset
        while True:
            deadline += APPEND_MS / 1000
            await asyncio.sleep(deadline - asyncio.get_running_loop().time())
            audio = base64.b64encode(Codec.PCMU.silence * (APPEND_MS // 20)).decode()
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))

    async with contextlib.AsyncExitStack() as stack:
        tasks: list[asyncio.Future[None]] = []
        for number in range(calls):
            socket = await stack.enter_async_context(connect(url, compression=None))
            formats = {"input": {"format": PCMU, "turn_detection": None}, "output": {"format": PCMU}}
            await socket.send(json.dumps({"type": "session.update", "session": {"type": "realtime", "audio": formats}}))
            await socket.send(json.dumps({"type": "response.create"}))
            tasks.append(asyncio.ensure_future(hear(socket)))
            tasks.append(asyncio.ensure_future(speak(socket, number / calls * APPEND_MS / 1000)))
        await asyncio.sleep(SETTLE)
        before, cpu, began = received, time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        wall = time.monotonic() - began
        share = (time.process_time() - cpu) / wall
        for task in tasks:
            task.cancel()
    return {
        "calls": calls,
        "cpu_percent": share * 100,
        "cpu_percent_per_call": share * 100 / calls,
        "model_ms": (received - before) / 8,
    }


def _main(port: str, ca_file: str, kind: str, url: str, calls: str, seconds: str) -> None:
    if kind == "naive":
        figures = asyncio.run(_loop(int(calls), float(seconds), url))
    else:
        figures = trio.run(_talk, port, ca_file, int(calls), float(seconds), url if kind == "bridged" else "")
    print(json.dumps(figures))


if __name__ == "__main__":
    if sys.argv[1:] == ["models"]:
        trio.run(_serve)
    else:
        _main(*sys.argv[1:])
