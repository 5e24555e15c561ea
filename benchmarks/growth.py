"""What grows with use, and what must not: streams, RPCs, calls that come and go, and the import."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.contest import Contest
from benchmarks.engine import cost_per_frame
from benchmarks.race import ratio_of
from benchmarks.row import Goal, Row, row_of

__all__ = ["measure_imports", "measure_streams", "measure_use"]


def measure_streams(*, pairs: int, seconds: float) -> Iterator[Row]:
    """The engine without sockets, at 800 streams and at 50; fails if anything is left unsent."""
    for name, engine, goal in (
        ("ours", "agentao", Goal(relation="≤", value=1.3)),
        ("stock engine", "stock", None),
    ):
        costs = []
        # The stock engine takes a second for ten frames of each of 800 streams; a ratio of nine needs no more.
        turns, length = (pairs, seconds) if engine == "agentao" else (1, min(seconds, 0.2))
        for _ in range(turns):
            few = cost_per_frame(50, 4 * length, engine=engine)  # type: ignore[arg-type]
            many = cost_per_frame(800, length, engine=engine)  # type: ignore[arg-type]
            costs.append((many, few))
        for what in ("sender", "receiver"):
            ratio = ratio_of([(getattr(many, what), getattr(few, what)) for many, few in costs])
            yield row_of(
                ratio,
                group="streams",
                name=f"CPU per frame, {what}, 800 streams ÷ 50: {name}",
                goal=goal if what == "sender" else None,
                text=f"{ratio.first * 1e6:.1f} and {ratio.second * 1e6:.1f} µs; backlog 0",
            )


def measure_use(contest: Contest, *, quick: bool) -> Iterator[Row]:
    """RPCs by the thousand, calls by the hundred, on one connection each."""
    count, calls = (400, 5) if quick else (20_000, 25)
    repeats = 1 if quick else 3
    quarters = [
        contest.run("benchmarks.growth_client", "rpcs", str(count), timeout=30 + count / 100) for _ in range(repeats)
    ]
    ratio = ratio_of([(last, first) for first, _, _, last in quarters])
    yield row_of(
        ratio,
        group="growth",
        name=f"CPU per RPC, {count:,} of them: last quarter ÷ first",
        goal=Goal(relation="≤", value=1.05),
        text=f"{ratio.first * 1e6:.0f} µs each, {1 / ratio.first:,.0f} a second; no stream left behind",
    )
    memory = contest.run("benchmarks.growth_client", "memory", str(calls), timeout=300)
    first, second = memory["open_first"], memory["open_second"]
    yield Row(
        group="growth",
        name=f"memory per open call: next {calls} ÷ first {calls}",
        value=second / first,
        unit="×",
        goal=Goal(relation="≤", value=1.1),
        text=f"{second / 1024:.1f} KiB each, after a talk of ten packets",
        figures={"first_bytes": first, "second_bytes": second},
    )
    first, second = memory["finished_first"], memory["finished_second"]
    finished = int(memory["finished"])
    yield Row(
        group="growth",
        name=f"memory per finished call, the second {finished}",
        value=second / 1024,
        unit=" KiB",
        goal=Goal(relation="≤", value=4, unit=" KiB"),
        text=f"{first / 1024:.1f} KiB for the first {finished}; its name is remembered for five minutes",
        figures={"first_bytes": first, "second_bytes": second},
    )


def measure_imports(*, pairs: int) -> Iterator[Row]:
    """CPU time of a process that only imports, the interpreter's own start taken off."""

    def cpu(program: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", program], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    measured = []
    for _ in range(pairs):
        nothing = cpu("")
        measured.append((cpu("import agentao_trio") - nothing, cpu("import trio, aioquic.quic.connection") - nothing))
    ratio = ratio_of(measured)
    yield row_of(
        ratio,
        group="growth",
        name="import agentao_trio ÷ import trio, aioquic.quic.connection",
        goal=Goal(relation="≤", value=2),
        text=f"{ratio.first * 1e3:.0f} and {ratio.second * 1e3:.0f} ms of CPU",
    )
