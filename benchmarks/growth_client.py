"""Does anything grow with use? Run as a program against the load gateway; prints figures as JSON.

python -m benchmarks.growth_client PORT CA_FILE rpcs COUNT      CPU seconds per RPC, by quarter
python -m benchmarks.growth_client PORT CA_FILE memory CALLS    bytes per call, open and finished
"""

from __future__ import annotations

import gc
import json
import sys
import time
import tracemalloc
from contextlib import AsyncExitStack

import trio

from agentao_trio import ActiveCall, ClientTLS, Codec, Session, open_session
from agentao_trio.messages import Empty, MethodId

#: RPCs that are under way at the same time.
AT_ONCE = 10
#: Batches of calls that come and go between two looks at the memory.
BATCHES = 8


async def rpcs(session: Session, count: int) -> list[float]:
    """CPU seconds per RPC in each quarter of ``count``; every one is answered."""
    quarters = []
    for _ in range(5):  # one to warm up
        began = time.process_time()
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(_ask, session, count // 4 // AT_ONCE)
        quarters.append((time.process_time() - began) / (count // 4))
    connection = session.statistics().connection
    assert connection is not None
    assert connection.streams_open < 50, "finished RPCs have left their streams behind"
    return quarters[1:]


async def _ask(session: Session, count: int) -> None:
    for _ in range(count):
        await session._request(MethodId.GetActiveBuckets, Empty())


async def memory(session: Session, calls: int) -> dict[str, float]:
    """Bytes of Python's memory per call. An open one has talked, and been listened to, for a second."""
    await _some_calls(session, calls)  # what is made once is made now
    tracemalloc.start()
    figures = {}
    empty = _traced()
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        await _talk(session, calls, first)
        half = _traced()
        await _talk(session, calls, second)
        figures["open_first"] = (half - empty) / calls
        figures["open_second"] = (_traced() - half) / calls
    before = _traced()
    for name in ("finished_first", "finished_second"):
        for _ in range(BATCHES):
            await _some_calls(session, calls)
        after = _traced()
        figures[name] = (after - before) / calls / BATCHES
        before = after
    return {**figures, "finished": calls * BATCHES}


async def _some_calls(session: Session, calls: int) -> None:
    async with AsyncExitStack() as stack:
        await _talk(session, calls, stack)


async def _talk(session: Session, calls: int, stack: AsyncExitStack) -> None:
    """Place calls that stay in the stack; every one says and hears ten packets."""
    placed = [await session.originate("+15550100001", trunk_id="bench", codec=Codec.PCMU) for _ in range(calls)]
    async with trio.open_nursery() as nursery:
        for call in placed:
            await stack.enter_async_context(call)
            nursery.start_soon(_exchange, call)


async def _exchange(call: ActiveCall) -> None:
    await call.wait_answered()
    heard = call.audio()
    await call.send_audio(bytes(160 * 10))
    for _ in range(10):
        await heard.__anext__()


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def main(port: str, ca_file: str, what: str, count: str) -> None:
    tls = ClientTLS(ca=ca_file, server_name="localhost")
    async with open_session(f"quic://127.0.0.1:{port}", tls=tls) as session:
        print(json.dumps(await (rpcs if what == "rpcs" else memory)(session, int(count))))


if __name__ == "__main__":
    port, ca_file, what, count = sys.argv[1:]
    trio.run(main, port, ca_file, what, count)
