"""Live events: from the hub to browsers' sockets, and what that does to the packet clock.

The clients are in a process of their own (``python -m benchmarks.live``), as they would be; both read the
same monotonic clock.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from statistics import quantiles

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import Request, TextMessage

from agentao_trio import live
from agentao_trio.hub import Hub
from agentao_trio.records import RecordKind
from benchmarks.row import Row

EVENTS_PER_SECOND = 100
CALLS = 10
#: What the clients print before the events begin, and what tells an event's time.
READY = b"ready\n"
MARK = '"arguments":"'


def percentile(values: list[float], hundredth: int) -> float:
    return quantiles(values, n=100, method="inclusive")[hundredth - 1] if len(values) > 1 else 0.0


def measure(*, quick: bool) -> Iterator[Row]:
    """Emit to receipt with clients that read, and the packet clock's lateness with some that do not."""
    for clients in (1, 10) if quick else (1, 10, 100):
        yield trio.run(_reading, clients, 1.0 if quick else 5.0)
    for clients in (20,) if quick else (200, 1000):
        yield trio.run(_stalled, clients, 1.0 if quick else 10.0)


async def _reading(clients: int, seconds: float) -> Row:
    latencies, cpu, _, _ = await _run(clients, seconds, stalled=False)
    p50, p99 = (percentile(latencies, hundredth) * 1000 for hundredth in (50, 99))
    thousand = cpu / (EVENTS_PER_SECOND * seconds) * 1000
    return Row(
        group="live",
        name=f"{EVENTS_PER_SECOND} events/s to {clients} client{'s'[: clients != 1]}, emit to receipt p99",
        value=p99,
        unit=" ms",
        text=f"p50 {p50:.1f} ms; {thousand:.2f} s CPU per thousand events",
        figures={"p50_ms": p50, "p99_ms": p99, "cpu_seconds_per_thousand": thousand, "received": len(latencies)},
    )


async def _stalled(clients: int, seconds: float) -> Row:
    _, cpu, lateness, waiting = await _run(clients, seconds, stalled=True)
    p50, p99 = (percentile(lateness, hundredth) * 1000 for hundredth in (50, 99))
    return Row(
        group="live",
        name=f"20 ms clock beside {clients} stalled clients, late p99",
        value=p99,
        unit=" ms",
        text=f"p50 {p50:.2f} ms, max {max(lateness) * 1000:.1f} ms; {waiting / 1e6:.1f} MB wait",
        figures={"p50_ms": p50, "p99_ms": p99, "max_ms": max(lateness) * 1000, "waiting_bytes": waiting, "cpu": cpu},
    )


async def _run(clients: int, seconds: float, *, stalled: bool) -> tuple[list[float], float, list[float], int]:
    hub = Hub()
    lateness: list[float] = []
    async with live.serve(hub, max_clients=clients) as server, trio.open_nursery() as nursery:
        for number in range(CALLS):
            hub.publish(RecordKind.CALL, f"c{number}", phase="began", direction="outbound", caller="1", callee="2")
        command = [sys.executable, "-m", "benchmarks.live", server.url, str(clients), str(int(stalled))]
        process: trio.Process = await nursery.start(
            partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )
        assert process.stdout is not None
        assert process.stdin is not None
        output = b""
        while READY not in output:
            output += await process.stdout.receive_some()
        nursery.start_soon(_clock, lateness)
        began = time.process_time()
        start = trio.current_time()
        filling = "x" * (4000 if stalled else 0)
        for number in range(int(EVENTS_PER_SECOND * seconds)):
            await trio.sleep_until(start + number / EVENTS_PER_SECOND)
            hub.publish(
                RecordKind.TOOL,
                f"c{number % CALLS}",
                name=filling,
                tool_call_id="t",
                phase="requested",
                arguments=f"{time.monotonic():.6f}",
            )
        await trio.sleep(0.5)
        cpu = time.process_time() - began
        waiting = server.statistics().bytes_waiting
        await process.stdin.aclose()
        output = b""
        while data := await process.stdout.receive_some():
            output += data
        nursery.cancel_scope.cancel()
    return json.loads(output), cpu, lateness, waiting


async def _clock(lateness: list[float]) -> None:
    start = trio.current_time()
    for slot in range(1, sys.maxsize):
        await trio.sleep_until(start + slot * 0.02)
        lateness.append(trio.current_time() - start - slot * 0.02)


# -- the clients' process ---------------------------------------------------------------------------------------------


async def _clients(url: str, number: int, stalled: bool) -> None:
    latencies: list[float] = []
    async with trio.open_nursery() as nursery:
        for _ in range(number):
            await nursery.start(_client, url, stalled, latencies)
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()
    print(json.dumps(latencies))


async def _client(
    url: str, stalled: bool, latencies: list[float], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    host, _, port = url.removeprefix("http://").rstrip("/").rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        web = WSConnection(ConnectionType.CLIENT)
        await stream.send_all(web.send(Request(host=f"{host}:{port}", target="/socket.io/?EIO=4&transport=websocket")))
        asked = False
        while True:
            data = await stream.receive_some(256 * 1024)
            now = time.monotonic()
            web.receive_data(data)
            for event in web.events():
                if not isinstance(event, TextMessage):
                    continue
                if event.data.startswith("0"):
                    await stream.send_all(web.send(TextMessage("40")))
                elif event.data == "2":
                    await stream.send_all(web.send(TextMessage("3")))
                elif not asked:
                    asked = True
                    await stream.send_all(web.send(TextMessage('42["subscribe_to_calls"]')))
                    task_status.started()
                    if stalled:
                        await trio.sleep_forever()
                elif MARK in event.data:
                    latencies.append(now - float(event.data.partition(MARK)[2].partition('"')[0]))


if __name__ == "__main__":
    trio.run(_clients, sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1")
