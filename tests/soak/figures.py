"""The figures G1 to G15, each measured by one function. ``full`` is the long form, otherwise a minute has to do."""

from __future__ import annotations

import gc
import io
import logging
import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import trio

from agentao_trio import AgentaoError, messages, open_session
from agentao_trio.gateway import GatewaySettings, open_gateway
from agentao_trio.messages import MethodId
from agentao_trio.testing import MemoryNetwork
from agentao_trio.wire import FrameDecoder, encode_frame
from tests.soak import codec_coverage, fuzz
from tests.support.bottleneck import Bottleneck
from tests.support.measure import deterministic_run, quantile, talk
from tests.support.quic import HOST, PORT, client_tls, server_tls
from tests.support.scenarios import SCENARIOS
from tests.support.simulated import simulated
from tests.support.sweep import Kind, sweep

__all__ = ["FIGURES", "Figure", "Result"]

ECHO, SHORT = "+15550100001", "+15550100016"
MEGABYTE = 1 << 20


@attrs.frozen
class Result:
    """What was measured, in words, and whether that reaches the goal."""

    measured: str
    reached: bool


@attrs.frozen(kw_only=True)
class Figure:
    name: str
    goal: str
    measure: Callable[[bool], Iterator[Result]]


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# -- bytes ----------------------------------------------------------------------------------------------------------


def g1(full: bool) -> Iterator[Result]:
    done = [*fuzz.blocks(10_000_000 if full else 100_000)]
    inputs, slowest = sum(block.inputs for block in done), max(block.slowest for block in done)
    crashes = [block.complaint for block in done if block.complaint]
    yield Result(
        f"{inputs:,} mutated inputs, {'; '.join(crashes) or 'no crash'}; slowest {slowest * 1000:.2f} ms",
        not crashes and slowest < 0.1,
    )
    *_, codec = codec_coverage.measure()
    yield Result(
        f"{codec.percent:.1f} % of the codec's {codec.branches} branches", codec.percent >= codec_coverage.GOAL
    )


def g2(full: bool) -> Iterator[Result]:
    worst = 0
    for length in (0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, (1 << 20) + 1):
        decoder = FrameDecoder()
        tracemalloc.start()
        decoder.feed(length.to_bytes(4, "little"))
        worst = max(worst, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    yield Result(f"{worst} bytes", worst <= 4096)


def g3(full: bool) -> Iterator[Result]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/golden", "tests/property"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    yield Result(run.stdout.strip().splitlines()[-1].strip("= "), run.returncode == 0)


# -- interruptions --------------------------------------------------------------------------------------------------


def _interruptions(kind: Kind, full: bool) -> Iterator[Result]:
    runs = failed = 0
    for name, scenario in SCENARIOS.items():
        points = 5 if not full else 300 if name == "reconnecting" else None
        count, findings = sweep(scenario, kind, points=points)
        runs, failed = runs + count, failed + len(findings)
    yield Result(f"{runs - failed} of {runs} runs of {len(SCENARIOS)} scenarios left nothing behind", failed == 0)


def g4(full: bool) -> Iterator[Result]:
    yield from _interruptions("cancel", full)


def g5(full: bool) -> Iterator[Result]:
    yield from _interruptions("sigint", full)


def g6(full: bool) -> Iterator[Result]:
    seeds = range(60 if full else 5)
    path: dict[str, Any] = {"loss": 0.05, "jitter": 0.02, "in_order": False, "duplicate": 0.02}
    same = sum(len({talk(calls=2, seconds=1, seed=seed, **path).trace for _ in range(2)}) == 1 for seed in seeds)
    yield Result(f"{same} of {len(seeds)} seeds made the same trace twice", same == len(seeds))


# -- paths ----------------------------------------------------------------------------------------------------------


def g7(full: bool) -> Iterator[Result]:
    from agentao_trio.transport import open_connection, open_listener

    async def handshake(seed: int, loss: float) -> bool:
        network = MemoryNetwork(seed=seed, loss=loss, delay=0.020)
        async with open_listener(network.socket((HOST, PORT)), tls=server_tls()):
            try:
                async with open_connection(HOST, PORT, tls=client_tls(), socket=network.socket(), timeout=10):
                    return True
            except AgentaoError:
                return False

    count = 1000 if full else 60
    for loss, goal in ((0.2, 0.995), (0.4, 0.95)):
        done = sum(deterministic_run(handshake, seed, loss, seed=seed) for seed in range(count))
        yield Result(f"{done / count:.1%} of {count} at {loss:.0%} loss", done / count >= goal)


def g8(full: bool) -> Iterator[Result]:
    matrix: list[tuple[int, float, float]] = [(4, 0.05, 200), (4, 0.10, 250), (16, 0.01, 250)]
    if full:
        matrix += [(1, 0.01, 0), (1, 0.05, 0), (1, 0.1, 0), (1, 0.2, 0), (4, 0.01, 0), (4, 0.2, 0)]
        matrix += [(16, 0.05, 0), (16, 0.1, 0), (16, 0.2, 0)]
    for calls, loss, goal in matrix:
        runs = [talk(calls=calls, seconds=20 if full else 5, loss=loss, seed=seed) for seed in range(3 if full else 1)]
        p50, p99 = (sorted(run.quantile_ms(q) for run in runs)[len(runs) // 2] for q in (0.5, 0.99))
        sent, heard = sum(run.sent for run in runs), sum(len(run.delays) for run in runs)
        shed = sum(run.shed + run.dropped for run in runs)
        yield Result(
            f"{calls} calls, {loss:.0%} loss: p50 {p50:.0f}, p99 {p99:.0f} ms; {heard / sent:.1%} heard, {shed} shed",
            not goal or p99 <= goal,
        )


def g9(full: bool) -> Iterator[Result]:
    from tests.support.overload import overload

    for rate in (600_000, 1_000_000):
        result = overload(calls=16, seconds=30 if full else 6, network=Bottleneck(bits_per_second=rate, delay=0.02))
        oldest, events = quantile(result.ages, 0.99), quantile(result.event_delays, 0.99)
        yield Result(
            f"16 calls over {rate // 1000} kbit/s: audio on arrival p99 {oldest * 1000:.0f} ms old, "
            f"{result.shed} of {result.sent} shed, events p99 {events:.2f} s",
            oldest <= 0.4 and events <= 2 and result.shed > 0,
        )


async def _return_of_the_path(seed: int, dark: float, loss: float) -> tuple[float, float]:
    dice = random.Random(seed)
    network = MemoryNetwork(seed=seed, loss=loss, delay=0.020)
    async with simulated(network=network) as (session, _):
        await trio.sleep(dice.random() * 3)
        connections, went = session.statistics().connections, trio.current_time()
        network.outage(dark)
        noticed = float("inf")
        with trio.move_on_after(dark):
            while session.state.value == "connected":
                await trio.sleep(0.05)
            noticed = trio.current_time() - went
            await trio.sleep_forever()
        back = trio.current_time()
        while True:
            try:
                await session.get_active_buckets()
            except AgentaoError:
                continue
            break
        assert connections == 1
        return trio.current_time() - back, noticed


def g11(full: bool) -> Iterator[Result]:
    returns, noticed = [], []
    for dark in (1.0, 2.0, 5.0, 15.0, 30.0):
        for loss in (0.0, 0.1, 0.2):
            for seed in range(60 if full else 4):
                back, seen = deterministic_run(_return_of_the_path, seed, dark, loss, seed=seed)
                returns.append(back)
                if seen < 100 and dark >= 5:
                    noticed.append(seen)
    returns.sort()
    yield Result(
        f"{len(returns)} outages: p50 {quantile(returns, 0.5):.2f}, p95 {quantile(returns, 0.95):.2f} s",
        quantile(returns, 0.95) <= 2.5,
    )
    yield Result(f"a dead peer is noticed within {max(noticed):.2f} s", max(noticed) <= 3.0)


# -- whole days -----------------------------------------------------------------------------------------------------


def g10(full: bool) -> Iterator[Result]:
    calls_wanted, minutes = (2000, 20) if full else (150, 1.5)

    async def main() -> str:
        dice = random.Random(10)
        network = MemoryNetwork(seed=10, loss=0.05, delay=0.020)
        ended: list[str] = []
        troubles = 0
        async with simulated(GatewaySettings(talk=3.0), network) as (session, gateway):

            async def one() -> None:
                try:
                    call = await session.originate(SHORT, trunk_id="main")
                    await call.wait_ended()
                    ended.append("told")
                except AgentaoError as error:
                    ended.append(type(error).__name__)

            async def trouble() -> None:
                nonlocal troubles
                while True:
                    await trio.sleep(dice.uniform(2, 20))
                    troubles += 1
                    match dice.randrange(4):
                        case 0:
                            network.outage(dice.choice((0.3, 1, 3, 8, 20)))
                        case 1:
                            await gateway.disconnect()
                        case _:
                            gateway.reset_streams()

            async with trio.open_nursery() as background:
                background.start_soon(trouble)
                async with trio.open_nursery() as nursery:
                    for _ in range(calls_wanted):
                        nursery.start_soon(one)
                        await trio.sleep(dice.expovariate(calls_wanted / (minutes * 60)))
                background.cancel_scope.cancel()
            await trio.sleep(30)
            lost, left = session.statistics().calls_lost, gateway.model.statistics().calls_open
        told = ended.count("told")
        others = {name: ended.count(name) for name in sorted(set(ended)) if name != "told"}
        return f"{len(ended)} calls ended, {told} told how, {others}, {lost} lost, {left} left; {troubles} troubles"

    words = deterministic_run(main, seed=10)
    yield Result(words, " 0 lost, 0 left" in words and words.startswith(f"{calls_wanted} calls"))


def g12(full: bool) -> Iterator[Result]:
    from tests.support.scripted_gateway import ScriptedGateway, session_on

    frame = encode_frame(
        MethodId.AudioFrame, messages.encode(messages.AudioFrame(call_sid="c", payload=b"a" * 60_000, codec="PCMU"))
    )
    size = 100 if full else 20

    async def main() -> int:
        async def answer(method: MethodId, request: Any) -> Any:
            if method is MethodId.Originate:
                return messages.OriginateResponse(call_sid=request.call_sid)
            return None

        gateway = ScriptedGateway(answer)
        async with session_on(gateway) as session:
            call = await session.originate(ECHO, trunk_id="main", call_sid="c")
            call.audio()
            await gateway.stream(frame * 20)
            gc.collect()
            before = resident()
            for _ in range(size):
                await gateway.stream(frame * 17)
            await trio.sleep(1)
            gc.collect()
            return resident() - before

    grown = deterministic_run(main, seed=1)
    yield Result(f"{size} MB unread: {grown / MEGABYTE:+.1f} MB", grown <= 8 * MEGABYTE)


def g13(full: bool) -> Iterator[Result]:
    count = 10_000 if full else 400

    async def main() -> tuple[int, int]:
        dice = random.Random(13)
        network = MemoryNetwork(seed=13, loss=0.05, delay=0.020)
        async with simulated(GatewaySettings(ring=0.05), network, rpc_timeout=2.0) as (session, gateway):

            async def one() -> None:
                to = dice.choice((ECHO, ECHO, "+15550100501", "+15550100502"))
                with trio.move_on_after(dice.expovariate(10)):
                    try:
                        call = await session.originate(to, trunk_id="main")
                    except AgentaoError:
                        return
                    async with call:
                        await trio.sleep(dice.expovariate(10))

            async with trio.open_nursery() as nursery:
                for _ in range(count):
                    nursery.start_soon(one)
                    await trio.sleep(0.02)
            await trio.sleep(10)
            model = gateway.model.statistics()
            return model.calls_open, model.calls_placed

    ghosts, placed = deterministic_run(main, seed=13)
    yield Result(f"{ghosts} ghosts of {placed} calls placed by {count} programs that gave up at random", ghosts == 0)


def g14(full: bool) -> Iterator[Result]:
    batch = 2000 if full else 800

    async def main() -> float:
        async with simulated(GatewaySettings(ring=0.01, talk=0.05)) as (session, _):

            async def some(count: int) -> None:
                for _ in range(count):
                    async with await session.originate(SHORT, trunk_id="main") as call:
                        await call.wait_ended()
                gc.collect()

            await some(batch)
            tracemalloc.start()
            await some(batch // 2)
            # The far side, and the virtual clock, are in this process too; they are not what is measured.
            ours = tracemalloc.take_snapshot().filter_traces(
                [
                    tracemalloc.Filter(True, "*/agentao_trio/*"),
                    tracemalloc.Filter(True, "<attrs generated*"),
                    tracemalloc.Filter(False, "*/agentao_trio/gateway/*"),
                ]
            )
            return sum(each.size for each in ours.statistics("filename")) / (batch // 2) * 1000

    grown = deterministic_run(main, seed=14)
    tracemalloc.stop()
    yield Result(
        f"{grown / MEGABYTE:.2f} MB per 1000 finished calls, which the client remembers for 300 s", grown <= MEGABYTE
    )


def g15(full: bool) -> Iterator[Result]:
    import agentao_trio.logs  # noqa: F401 - it is what is measured

    dice, count = random.Random(15), 100_000 if full else 5_000
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    log = logging.getLogger("agentao_trio.session")
    level, log.propagate = log.level, False
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    secret = "eyJhbGciOiJub25lIn0.c2VjcmV0.sig"
    try:
        for _ in range(count):
            text = "".join(map(chr, (dice.choice((dice.randrange(32), dice.randrange(0x110000))) for _ in range(12))))
            what = dice.choice((text, f"{text} Bearer {secret}", f"token={secret}{text}", f"\x1b]0;{text}\x07"))
            log.warning("call %s: %s", text, what if dice.random() < 0.5 else RuntimeError(what))
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = True
    lines = stream.getvalue().split("\n")[:-1]
    bad = sum(not line.isprintable() for line in lines)
    leaked = stream.getvalue().count(secret)
    yield Result(
        f"{len(lines):,} lines of {count:,} events, {bad} with control characters, {leaked} secrets",
        bad == leaked == 0 and len(lines) == count,
    )


def endings(full: bool) -> Iterator[Result]:
    """A hundred random endings on real UDP: what is left in this process afterwards."""
    count = 1000 if full else 100
    dice = random.Random(41)

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def main() -> int:
        async with open_gateway(settings=GatewaySettings(ring=0.01), seed=1) as gateway:
            before = 0
            for number in range(count + 1):
                with trio.move_on_after(dice.expovariate(20) if number else 5):
                    async with open_session(gateway.endpoint, tls=gateway.tls) as session:
                        call = await session.originate(ECHO, trunk_id="main")
                        await call.wait_answered()
                        await call.send_audio(b"\x55" * 4000)
                before = before or descriptors()
            left = descriptors() - before
            await trio.sleep(0.5)
            statistics = gateway.statistics()
            return left + statistics.model.calls_open + statistics.listener.connections

    left = trio.run(main)
    yield Result(f"{count} random endings on real UDP left {left} descriptors, calls and connections", left == 0)


FIGURES = (
    Figure(name="G1", goal="10 M mutated inputs, no crash, no hang; codec ≥ 98 % of branches", measure=g1),
    Figure(name="G2", goal="a hostile length allocates ≤ 4096 bytes", measure=g2),
    Figure(name="G3", goal="every golden vector, truncation and chunking", measure=g3),
    Figure(name="G4", goal="cancelled at every step: nothing left", measure=g4),
    Figure(name="G5", goal="the same for Ctrl-C", measure=g5),
    Figure(name="G6", goal="one seed, one packet trace", measure=g6),
    Figure(name="G7", goal="handshake ≤ 10 s: 99.5 % at 20 % loss, 95 % at 40 %", measure=g7),
    Figure(name="G8", goal="echo p99, RTT 40 ms: 4 calls 200 (5 %), 250 (10 %); 16 calls 250 (1 %)", measure=g8),
    Figure(name="G9", goal="beyond capacity: oldest audio ≤ 400 ms, shed; events p99 ≤ 2 s", measure=g9),
    Figure(name="G10", goal="2000 calls, 5 % loss, troubles: no hangup lost, all calls end", measure=g10),
    Figure(name="G11", goal="path back → working p95 ≤ 2.5 s; dead peer noticed ≤ 3 s", measure=g11),
    Figure(name="G12", goal="100 MB unread: ≤ 8 MB more", measure=g12),
    Figure(name="G13", goal="ghost calls: 0 of 10,000", measure=g13),
    Figure(name="G14", goal="≤ 1 MB per 1000 finished calls", measure=g14),
    Figure(name="G15", goal="100,000 hostile events: no control character, no secret logged", measure=g15),
    Figure(name="F41", goal="nothing left of 1000 endings", measure=endings),
)
