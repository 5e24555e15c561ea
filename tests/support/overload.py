"""More calls than a path can carry: how old the audio is that arrives, how much was shed, how late events are."""

from __future__ import annotations

import struct
from typing import Any

import attrs
import trio

from agentao_trio import Session, messages
from agentao_trio.errors import ConnectionLost, StreamReset
from agentao_trio.testing import MemoryNetwork
from agentao_trio.wire import FrameDecoder
from tests.support.echo_gateway import EchoGateway
from tests.support.measure import deterministic_run
from tests.support.scripted_gateway import session_on

__all__ = ["Overload", "overload"]


@attrs.frozen(kw_only=True)
class Overload:
    """Seconds, sorted, and packets."""

    ages: list[float]
    event_delays: list[float]
    sent: int
    shed: int


class _Listener(EchoGateway):
    """Listens only, and notes how old each packet is."""

    def __init__(self) -> None:
        super().__init__()
        self.ages: list[float] = []

    async def _listen(self, stream: Any) -> None:
        decoder = FrameDecoder()
        try:
            while chunk := await stream.receive_some():
                for frame in decoder.feed(chunk):
                    audio = messages.decode(messages.AudioFrame, frame.body)
                    if audio.payload:
                        self.ages.append(trio.current_time() - struct.unpack_from("<d", audio.payload)[0])
        except (StreamReset, ConnectionLost):
            pass


def overload(*, calls: int, seconds: float, network: MemoryNetwork, seed: int = 0) -> Overload:
    """``calls`` calls speak for ``seconds``, while events come in ten times a second."""
    gateway = _Listener()
    event_delays: list[float] = []
    counts = {"sent": 0, "shed": 0}

    async def one(session: Session) -> None:
        call = await session.originate("+15550100001", trunk_id="main")
        await call.wait_answered()
        begin = trio.current_time()
        for number in range(round(seconds * 50)):
            await trio.sleep_until(begin + number * 0.020)
            await call.send_audio(struct.pack("<d", trio.current_time()) * 20)
        await call.wait_played()
        statistics = call.statistics()
        counts["sent"] += statistics.packets_sent + statistics.packets_shed
        counts["shed"] += statistics.packets_shed

    async def main() -> None:
        async with session_on(gateway, network) as session, trio.open_nursery() as watching:
            events = session.events(types=[9])

            async def emit() -> None:
                while True:
                    await gateway.event("probe", 9, status=repr(trio.current_time()))
                    await trio.sleep(0.1)

            async def note() -> None:
                async for record in events:
                    event_delays.append(trio.current_time() - float(record.event.status))  # noqa: PERF401

            watching.start_soon(emit)
            watching.start_soon(note)
            async with trio.open_nursery() as nursery:
                for _ in range(calls):
                    nursery.start_soon(one, session)
                    await trio.sleep(0.011)
            watching.cancel_scope.cancel()

    deterministic_run(main, seed=seed)
    return Overload(ages=sorted(gateway.ages), event_delays=sorted(event_delays), **counts)
