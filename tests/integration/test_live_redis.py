"""Workers that hand their calls to a real Redis, and an ordinary Socket.IO server that shows them."""

from __future__ import annotations

import contextlib
import gc
import json
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from agentao_trio.hub import Hub
from agentao_trio.live.redis import fan_out
from agentao_trio.records import RecordKind
from tests.support.node_packages import NodeProcess, run_node
from tests.support.ports import free_port

#: coredis leaves a stream of anyio's open with every attempt to connect that fails.
pytestmark = pytest.mark.filterwarnings("ignore:.*MemoryObject:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _redis_is_there() -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server")


@pytest.fixture(autouse=True)
def _what_coredis_leaves_is_collected_here() -> Iterator[None]:
    yield
    gc.collect()


@contextlib.contextmanager
def redis_server(directory: Path, port: int) -> Iterator[None]:
    """A Redis of the test's own, which forgets everything with the end of the block."""
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            for _ in range(6000):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.02)
            yield
        finally:
            process.kill()


def begin(hub: Hub, call_sid: str) -> None:
    hub.publish(RecordKind.CALL, call_sid, phase="began", direction="outbound", caller="100", callee="200")


async def seen(node: NodeProcess, name: str, call_sid: str) -> dict[str, object]:
    while (line := await node.event(name))["args"][0]["callSid"] != call_sid:
        pass
    found: dict[str, object] = line["args"][0]
    return found


@contextlib.asynccontextmanager
async def front_server(port: int) -> AsyncIterator[str]:
    """The ordinary Socket.IO server's address."""
    async with run_node("front.mjs", str(port)) as front:
        yield json.dumps({"url": f"http://127.0.0.1:{(await front.line())['port']}", "transports": ["websocket"]})


async def until(fact: Callable[[], bool]) -> None:
    with trio.fail_after(120):
        while not fact():
            await trio.sleep(0.02)


async def test_two_workers_and_an_ordinary_front(tmp_path: Path) -> None:
    port, hubs = free_port(), (Hub(), Hub())
    url = f"redis://127.0.0.1:{port}"
    with redis_server(tmp_path, port):
        async with fan_out(hubs[0], url) as first, fan_out(hubs[1], url) as second, front_server(port) as front:
            begin(hubs[0], "a")
            begin(hubs[1], "b")
            await until(lambda: min(fan.statistics().events_published for fan in (first, second)) > 0)
            async with run_node("client.mjs", front) as node:
                await node.event("connect")
                await node.say(["subscribe_to_calls"])
                calls, meta = (await node.event("active_calls"))["args"]
                assert sorted(call["callSid"] for call in calls) == ["a", "b"]
                for hub, sid in zip(hubs, "ab", strict=True):
                    hub.publish(RecordKind.QUALITY, sid, mos=4.25, final=False)
                    update = await seen(node, "call_update", sid)
                    assert update["eventId"] == f"{meta['epoch']}:{sid}:2"  # it must have been answered
                    update = await seen(node, "call_update", sid)
                    assert update["data"] == {"metrics": {"mos": 4.25, "source": "client"}}


async def test_redis_may_go_away_and_come_back_without_its_memory(tmp_path: Path) -> None:
    port, hub = free_port(), Hub()
    async with contextlib.AsyncExitStack() as stack:
        with redis_server(tmp_path, port):
            fan = await stack.enter_async_context(fan_out(hub, f"redis://127.0.0.1:{port}"))
            begin(hub, "a")
            await until(lambda: fan.statistics().events_published > 0)
        begin(hub, "b")
        await until(lambda: not fan.statistics().connected)
        begin(hub, "c")
        await until(lambda: fan.statistics().events_missed > 0)
        with redis_server(tmp_path, port):
            await until(lambda: fan.statistics().connected)
            async with front_server(port) as front, run_node("client.mjs", front) as node:
                await node.event("connect")
                await node.say(["subscribe_to_calls"])
                calls = (await node.event("active_calls"))["args"][0]
                assert sorted(call["callSid"] for call in calls) == ["a", "b", "c"]
            await stack.aclose()


async def test_without_a_redis_it_does_not_start(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(ConnectionError, match="Redis cannot be reached"):
        async with fan_out(Hub(), f"redis://127.0.0.1:{free_port()}"):
            pass
