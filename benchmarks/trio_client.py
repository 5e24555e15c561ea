"""So many calls through the package: each says a packet every 20 ms and listens to its echo.

    python -m benchmarks.trio_client PORT CA_FILE CALLS SECONDS agentao|ethernet|stock

Prints a :class:`~benchmarks.talk.Report` as JSON. With ``ethernet`` its datagrams are no longer than Ethernet's, with
``stock`` the same client runs on aioquic's own engine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from statistics import fmean

import attrs
import trio

from agentao_trio import ActiveCall, ClientTLS, Codec, Session, open_session
from agentao_trio.transport import TransportSettings
from benchmarks.floor import RHYTHM, measure_floor
from benchmarks.talk import IN_TIME, PTIME, WARM_UP, Report, Stopwatch, quantile, speech, timed, times


class Timed:
    """The calls whose packets are timed, and what is known of these."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.lateness = times()
        self.echoes = times()

    async def listen(self, call: ActiveCall, *, task_status: trio.TaskStatus[None]) -> None:
        sent_at = times()  # by sequence number; one that is shed spends its own, and the run is worth nothing

        def sent(payload: bytes, codec: Codec, deadline: float) -> None:
            now = self.now()
            sent_at.append(now)
            self.lateness.append(now - deadline)

        call._uplink.taps += (sent,)
        frames = call.audio()
        task_status.started()
        async for frame in frames:
            if frame.sequence_number < len(sent_at):
                self.echoes.append(self.now() - sent_at[frame.sequence_number])


async def listen(call: ActiveCall, *, task_status: trio.TaskStatus[None]) -> None:
    frames = call.audio()
    task_status.started()
    async for _ in frames:
        pass  # the session counts them


async def speak(call: ActiveCall) -> None:
    for chunk in speech(5):
        await call.send_audio(chunk)


async def run(session: Session, calls: int, seconds: float, stopwatch: Callable[[], Stopwatch]) -> Report:
    """Place the calls, talk, and report."""
    noted = Timed(session.clock.now)
    placed = [await session.originate("+15550100001", trunk_id="bench", codec=Codec.PCMU) for _ in range(calls)]
    chosen = timed(calls)
    async with trio.open_nursery() as listening:
        for index, call in enumerate(placed):
            await call.wait_answered()
            await listening.start(noted.listen if index in chosen else listen, call)
        async with trio.open_nursery() as speaking:
            for call in placed:
                speaking.start_soon(speak, call)
                await trio.sleep(PTIME / calls)
            await trio.sleep(WARM_UP)
            del noted.lateness[:], noted.echoes[:]
            before, watch = session.statistics().media, stopwatch()
            await trio.sleep(seconds)
            (cpu, wall), after = watch.read(), session.statistics().media
            lateness, echoes = noted.lateness[:], noted.echoes[:]
            speaking.cancel_scope.cancel()
        for call in placed:
            call.clear_send_audio_buffer()
        await trio.sleep(IN_TIME)
        end = session.statistics().media
        listening.cancel_scope.cancel()
    return Report(
        calls=calls,
        seconds=wall,
        cpu=cpu,
        sent=after.packets_sent - before.packets_sent,
        received=after.packets_received - before.packets_received,
        shed=end.packets_shed,
        missing=end.packets_sent - end.packets_received,
        lateness_p50=quantile(lateness, 0.50),
        lateness_p99=quantile(lateness, 0.99),
        echo_p50=quantile(echoes, 0.50),
        echo_p99=quantile(echoes, 0.99),
    )


async def talk(
    port: str, ca_file: str, calls: str, seconds: str, engine: str, stopwatch: Callable[[], Stopwatch] = Stopwatch
) -> Report:
    settings = {
        "agentao": TransportSettings(),
        "ethernet": TransportSettings(max_datagram_size=1452),
        "stock": TransportSettings(engine="stock"),
    }[engine]
    tls = ClientTLS(ca=ca_file, server_name="localhost")
    async with open_session(f"quic://127.0.0.1:{port}", tls=tls, transport=settings) as session:
        return await run(session, int(calls), float(seconds), stopwatch)


def floors() -> list[float]:
    """CPU seconds of a frame event at the least, in the rhythm of calls and in a loop."""
    return [measure_floor(rhythm).per_frame_event for rhythm in (RHYTHM, 0.0)]


if __name__ == "__main__":
    # Before and after, because machines that others use as well change their speed; and with no session beside it, or
    # what that does would be counted as the waking of tasks.
    before = floors()
    port, ca_file, calls, seconds, engine = sys.argv[1:]
    report = trio.run(talk, port, ca_file, calls, seconds, engine)
    paced, in_a_loop = map(fmean, zip(before, floors(), strict=True))
    print(attrs.evolve(report, floor=paced, floor_in_a_loop=in_a_loop).as_json())
