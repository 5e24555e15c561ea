"""Calls on one core: each client in a process of its own on one core, the gateway in another on the other one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from pathlib import Path
from time import monotonic
from typing import Any

import attrs

from benchmarks.floor import FRAMES_PER_DATAGRAM, RHYTHM, measure_floor
from benchmarks.race import ratio_of
from benchmarks.row import Goal, Row, row_of
from benchmarks.talk import Report

__all__ = ["ASYNCIO", "OURS", "STOCK", "Contest", "measure", "open_contest"]

#: Seconds: p99 of send lateness up to which calls count as carried.
LATE = 0.005
#: How many calls may be tried: 40 to 1280, an eighth more each time.
STEPS = tuple(round(40 * 2 ** (each / 6)) for each in range(31))
#: How much of a core a virtual machine's host may take away during a run, and how often the run is tried.
STOLEN, TRIES = 0.01, 4
OURS, ETHERNET, STOCK, ASYNCIO = "ours", "ours on Ethernet", "stock engine", "asyncio"
_PROGRAMS = {
    OURS: ("benchmarks.trio_client", ("agentao",)),
    ETHERNET: ("benchmarks.trio_client", ("ethernet",)),
    STOCK: ("benchmarks.trio_client", ("stock",)),
    ASYNCIO: ("benchmarks.asyncio_client", ()),
}


class Contest:
    """A gateway that runs, and clients that are run against it one after the other."""

    def __init__(self, gateway: subprocess.Popen[str], port: int, ca_file: str) -> None:
        self._gateway = gateway
        self._port = port
        self._ca_file = ca_file
        #: Every run so far: the client, its report, and the share of its core that the gateway had used.
        self.runs: list[tuple[str, Report, float]] = []
        #: Of these, those during which the host took too much every time.
        self.disturbed = 0

    def talk(self, client: str, calls: int, seconds: float) -> Report:
        """One run of a client; where the machine's host took more than :data:`STOLEN` of a core meanwhile it is done
        again, and the least disturbed of its tries counts. A client that fails, or hangs, has carried nothing;
        standard error says why."""
        tries: list[tuple[float, Report, float]] = []
        while len(tries) < TRIES and (not tries or tries[-1][0] > STOLEN):
            stolen, began = _stolen(), monotonic()
            report, gateway = self._talk(client, calls, seconds)
            tries.append(((_stolen() - stolen) / (monotonic() - began), report, gateway))
        stolen, report, gateway = min(tries, key=itemgetter(0))
        self.runs.append((client, report, gateway))
        self.disturbed += stolen > STOLEN
        return report

    def _talk(self, client: str, calls: int, seconds: float) -> tuple[Report, float]:
        module, extra = _PROGRAMS[client]
        before = _cpu_of(self._gateway.pid)
        try:
            report = Report(**self.run(module, str(calls), str(seconds), *extra, timeout=3 * seconds + 30))
        except (subprocess.SubprocessError, json.JSONDecodeError) as error:
            print(f"{client}, {calls} calls: {error}", getattr(error, "stderr", None) or "", sep="\n", file=sys.stderr)
            report = failed(calls)
        return report, (_cpu_of(self._gateway.pid) - before) / (seconds + 2.0)

    def run(self, module: str, *arguments: str, timeout: float) -> Any:
        """Run a program against the gateway, on the clients' core; returns what it printed as JSON.

        Raises SubprocessError for a program that fails or takes longer than ``timeout`` seconds.
        """
        command = self.command(module, *arguments)
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, preexec_fn=lambda: _pin(0), check=True
        )
        return json.loads(done.stdout)

    def start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a program against the gateway, on the clients' core, to be watched; what it prints is lost."""
        command = self.command(module, *arguments)
        nowhere = subprocess.DEVNULL
        return subprocess.Popen(command, stdout=nowhere, stderr=nowhere, preexec_fn=lambda: _pin(0))

    def command(self, module: str, *arguments: str) -> list[str]:
        """What runs a program against the gateway."""
        return [sys.executable, "-m", module, str(self._port), self._ca_file, *arguments]

    def most_calls(
        self, clients: Sequence[str], steps: tuple[int, ...], seconds: float, turns: int
    ) -> list[tuple[int, ...]]:
        """About the most calls that each of ``clients`` carries, as often as there are ``turns``.

        Up and down (Dixon and Mood, 1948): each has a turn, of two chances, with more calls after one that was carried
        and with fewer after one that was not. So they keep to the number of calls that they carry in half of their
        turns, and what else the machine does slows down all alike. The turns on the way there, two for three, are not
        returned.
        """
        climbers = [_Climber(client, steps) for client in clients]
        for _ in range(2 * turns // 3):
            for climber in climbers:
                climber.turn(self, seconds)
        return [tuple(climber.turn(self, seconds) for climber in climbers) for _ in range(turns)]


@attrs.define
class _Climber:
    """One client on the way up and down: in longer strides where it goes on, in shorter ones where it turns."""

    client: str
    steps: tuple[int, ...]
    _at: int = 0
    _stride: int = 4
    _was_carried: bool = True
    _alike: int = 0

    def turn(self, contest: Contest, seconds: float) -> int:
        """Two chances, and a stride up or down; returns with how many calls it was, 0 where none are few enough."""
        calls = self.steps[self._at]
        was_carried = any(is_carried(contest.talk(self.client, calls, seconds)) for _ in range(2))
        if was_carried != self._was_carried:
            self._was_carried, self._alike = was_carried, 0
            self._stride = max(1, self._stride // 2)
        self._alike += 1
        if self._alike % 3 == 0:
            self._stride = min(4, self._stride * 2)
        carried_none = self._at == 0 and not was_carried
        self._at = min(max(0, self._at + (self._stride if was_carried else -self._stride)), len(self.steps) - 1)
        return 0 if carried_none else calls


def is_carried(report: Report) -> bool:
    """Whether the packets left in time, and every one of them came back."""
    return report.lateness_p99 < LATE and not report.has_backlog


def failed(calls: int) -> Report:
    """The report of a client that made none."""
    never = float("inf")
    times = dict.fromkeys(("lateness_p50", "lateness_p99", "echo_p50", "echo_p99"), never)
    return Report(calls=calls, seconds=0.0, cpu=never, sent=0, received=0, shed=0, missing=calls, **times)


def _pin(core: int) -> None:
    """Keep this process on one core, where there are several."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core % len(cores)]})


def _cpu_of(pid: int) -> float:
    """CPU seconds of another process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _stolen() -> float:
    """Seconds that a virtual machine's host has kept its cores from running so far; 0 where that is not told."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / os.sysconf("SC_CLK_TCK")
    return 0.0


@contextmanager
def open_contest(gateway_program: Sequence[str] = ("benchmarks.load_gateway",)) -> Iterator[Contest]:
    """Start the gateway, a module and its first arguments; leaving the block ends it."""
    with tempfile.TemporaryDirectory() as directory:
        gateway = subprocess.Popen(
            [sys.executable, "-m", *gateway_program, directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: _pin(1),
        )
        assert gateway.stdin is not None
        assert gateway.stdout is not None
        try:
            yield Contest(gateway, int(gateway.stdout.readline()), str(Path(directory, "ca.pem")))
        finally:
            gateway.stdin.close()
            gateway.stdout.close()
            try:
                gateway.wait(timeout=5)
            except subprocess.TimeoutExpired:
                gateway.kill()
                gateway.wait()


# -- rows -------------------------------------------------------------------------------------------------------------


def measure(contest: Contest, *, quick: bool) -> Iterator[Row]:
    """How many calls a core carries, what they cost, and how long an echo takes, beside the asyncio client's."""
    yield from _floors()
    yield from _echoes(contest, quick=quick)
    yield from _capacity(contest, quick=quick)
    yield from _cost(contest, quick=quick)


def _floors() -> Iterator[Row]:
    for name, rhythm in (("the floor: CPU of a frame event", RHYTHM), ("the floor in a loop that never sleeps", 0.0)):
        floor = measure_floor(rhythm)
        pieces = {piece: 1e6 * seconds for piece, seconds in attrs.asdict(floor).items()}
        yield Row(
            group="calls",
            name=name,
            value=1e6 * floor.per_frame_event,
            unit=" µs",
            text="µs: "
            + ", ".join(f"{piece} {value:.2f}" for piece, value in pieces.items())
            + f"; {FRAMES_PER_DATAGRAM} frames share the first four",
            figures=pieces,
        )


def _echoes(contest: Contest, *, quick: bool) -> Iterator[Row]:
    # A few calls have few echoes, of which the slowest hundredth is another with each run.
    for calls, pairs in ((10, 1),) if quick else ((10, 15), (50, 5), (100, 5)):
        yield from _echoes_of(contest, calls, 1.0 if quick else 5.0, pairs)


def _echoes_of(contest: Contest, calls: int, seconds: float, pairs: int) -> Iterator[Row]:
    measured = []
    for _ in range(pairs):
        ours, theirs = contest.talk(OURS, calls, seconds), contest.talk(ASYNCIO, calls, seconds)
        if not (ours.has_backlog or theirs.has_backlog):
            measured.append((ours, theirs))
    name = f"echo round trip p99, {calls} calls: ours ÷ asyncio client"
    goal = Goal(relation="≤", value=1.25)
    if not measured:
        yield Row(group="calls", name=name, goal=goal, missing="in no pair of runs did both clients keep up")
        return
    ratio = ratio_of([(ours.echo_p99, theirs.echo_p99) for ours, theirs in measured])
    median = ratio_of([(ours.echo_p50, theirs.echo_p50) for ours, theirs in measured])
    yield row_of(
        ratio,
        group="calls",
        name=name,
        goal=goal,
        text=f"p99 {ratio.first * 1e3:.2f} and {ratio.second * 1e3:.2f} ms; p50 {median.first * 1e3:.2f} and "
        f"{median.second * 1e3:.2f} ms; nothing left behind",
    )
    cost = ratio_of([(theirs.cpu_per_frame, ours.cpu_per_frame) for ours, theirs in measured])
    yield row_of(
        cost,
        group="calls",
        name=f"CPU per frame event, {calls} calls: asyncio client ÷ ours",
        text=f"{cost.first * 1e6:.0f} and {cost.second * 1e6:.0f} µs in the same pairs of runs",
    )


def _capacity(contest: Contest, *, quick: bool) -> Iterator[Row]:
    clients = (OURS, ASYNCIO, ETHERNET, STOCK)
    found = contest.most_calls(clients, (10, 20), 1.0, 1) if quick else contest.most_calls(clients, STEPS, 4.0, 9)
    used = (
        f"the gateway had used at most {max(share for *_, share in contest.runs):.0%} of its core; in "
        f"{contest.disturbed} of {len(contest.runs)} runs the host took more than {STOLEN:.0%} of one"
    )
    for ours, theirs, name, goal in (
        (0, 1, "ours ÷ asyncio client", Goal(relation="≥", value=5)),
        (2, 1, "ours, in Ethernet's datagrams ÷ asyncio client", None),
        (0, 3, "ours ÷ the same on the stock engine", None),
    ):
        title = f"calls on one core, p99 late < 5 ms: {name}"
        pairs = [(float(turn[ours]), float(turn[theirs])) for turn in found if turn[theirs]]
        if not pairs:
            yield Row(group="calls", name=title, goal=goal, missing="the other client carried none")
            continue
        ratio = ratio_of(pairs)
        yield Row(
            group="calls",
            name=title,
            value=ratio.median,
            unit="×",
            spread=(ratio.low, ratio.high),
            goal=goal,
            text=f"{ratio.first:.0f} and {ratio.second:.0f} calls; {used}",
            figures={"ours": ratio.first, "other": ratio.second, "pairs": ratio.pairs},
        )


def _cost(contest: Contest, *, quick: bool) -> Iterator[Row]:
    """At as many calls as this machine carries today; the goal is for 400 and more."""
    seconds, repeats = (1.0, 1) if quick else (5.0, 5)
    kept: list[tuple[Report, Report]] = []
    calls = 0
    for calls in (20,) if quick else (800, 400, 200, 100, 50):
        pairs = [(contest.talk(OURS, calls, seconds), contest.talk(ASYNCIO, 20, seconds)) for _ in range(repeats)]
        kept = [pair for pair in pairs if not any(report.has_backlog for report in pair)]
        if kept:
            break
    name = f"CPU per frame event ÷ floor, {calls} calls"
    goal = Goal(relation="≤", value=3) if calls >= 400 else None
    if not kept:
        yield Row(group="calls", name=name, goal=goal, missing="packets were left behind in every run")
        return
    for floor, field in (("floor", "floor"), ("floor in a loop that never sleeps", "floor_in_a_loop")):
        ratio = ratio_of([(ours.cpu_per_frame, getattr(ours, field)) for ours, _ in kept])
        yield row_of(
            ratio,
            group="calls",
            name=f"CPU per frame event ÷ {floor}, {calls} calls",
            goal=goal,
            text=f"{ratio.first * 1e6:.1f} µs; floor {ratio.second * 1e6:.1f} µs in the same process; "
            f"{len(kept)} of {repeats} runs left nothing behind",
        )
    cost = ratio_of([(theirs.cpu_per_frame, ours.cpu_per_frame) for ours, theirs in kept])
    yield row_of(
        cost,
        group="calls",
        name=f"CPU per frame event: asyncio client at 20 calls ÷ ours at {calls}",
        text=f"{cost.first * 1e6:.0f} and {cost.second * 1e6:.0f} µs; what a core carries by CPU time alone",
    )
