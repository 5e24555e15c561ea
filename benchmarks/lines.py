"""Which function takes how many instructions, and waits for how many lines of memory: counted by a simulated processor.

    python -m benchmarks --only lines

A machine that others use as well is fast in one minute and slow in the next; valgrind's processor counts the same in
both. It is slow: client and gateway live by a clock that goes 250 times slower than others do. With perf's support the
interpreter makes every Python function one of the machine's own, which takes a fifth more instructions, and callgrind
keeps what C functions cost apart by the Python function they work for.
"""

from __future__ import annotations

import bisect
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs
import trio

from benchmarks import load_gateway, trio_client
from benchmarks.contest import open_contest
from benchmarks.row import Row
from benchmarks.talk import Report, Stopwatch

__all__ = ["Costs", "costs_by_function", "functions_of", "measure"]

#: The cache behind which memory is far away: bytes, ways and bytes of a line, as the second one of a server's core.
CACHE = "2097152,16,64"
#: How many functions are shown.
SHOWN = 24
#: Where C functions were called by C functions only, five deep.
_ELSEWHERE = "of no function"
#: What the first argument is where the program is to be the gateway; otherwise that is a port.
_GATEWAY = "gateway"
_ROOT = f"{Path(__file__).parents[1]}/"


class SlowClock(trio.abc.Clock):
    """A clock that goes so many times slower than others do."""

    def __init__(self, slower: float) -> None:
        self._slower = slower
        self._began = time.monotonic()

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return 1.0 + (time.monotonic() - self._began) / self._slower

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return (deadline - self.current_time()) * self._slower


@attrs.define
class Costs:
    """Instructions, and lines that were read and written and were not in the cache."""

    instructions: int = 0
    read: int = 0
    written: int = 0

    @property
    def lines(self) -> int:
        return self.read + self.written


def functions_of(perf_map: Iterable[str]) -> list[tuple[int, str]]:
    """Where each Python function begins, and its name and file: ``address size py::name:file`` on each line."""
    functions = []
    for line in perf_map:
        address, _, symbol = line.rstrip("\n").split(" ", 2)
        name, _, file = symbol.removeprefix("py::").partition(":")
        file = re.sub(r"^.*/(site-packages|python3[.][0-9]+)/", "", file.removeprefix(_ROOT))
        functions.append((int(address, 16), f"{file}: {name}"))
    return sorted(functions)


def costs_by_function(profile: Iterable[str], functions: list[tuple[int, str]]) -> dict[str, Costs]:
    """Callgrind's costs by Python function; what C functions cost counts for the innermost one that called them.

    The format is that of https://valgrind.org/docs/manual/cl-format.html. Names are chains of callers, innermost first,
    in which Python functions stand as their addresses.
    """
    starts = [start for start, _ in functions]
    names: dict[str, str] = {}
    costs: defaultdict[str, Costs] = defaultdict(Costs)
    events: list[str] = []
    current, is_of_a_call = Costs(), False

    def whole(name: str) -> str:
        number, _, given = name.partition(" ")
        return names.setdefault(number, given)

    def python_function(chain: str) -> str:
        for address in re.findall(r"0x[0-9a-f]+", chain):
            at = bisect.bisect_right(starts, int(address, 16)) - 1
            if at >= 0 and int(address, 16) - starts[at] < 16:
                return functions[at][1]
        return _ELSEWHERE

    for line in profile:
        key, _, value = line.rstrip("\n").partition("=")
        if line.startswith("events: "):
            events = line.split()[1:]
        elif key == "fn":
            current = costs[python_function(whole(value))]
        elif key == "cfn":
            whole(value)
        elif key == "calls":
            is_of_a_call = True
        elif line[:1] in "+-*0123456789" and events:
            if not is_of_a_call:  # the cost of a call is the callee's
                spent = dict(zip(events, map(int, line.split()[1:]), strict=False))
                current.instructions += spent.get("Ir", 0)
                current.read += spent.get("DLmr", 0)
                current.written += spent.get("DLmw", 0)
            is_of_a_call = False
    return costs


def measure(*, quick: bool) -> Iterator[Row]:
    """A frame event's instructions and lines, in all and by function."""
    if missing := [each for each in ("valgrind", "callgrind_control") if shutil.which(each) is None]:
        yield Row(group="lines", name="lines of memory", missing=f"{missing[0]} is not installed")
        return
    if sys.version_info < (3, 12):
        yield Row(group="lines", name="lines of memory", missing="perf's support needs Python 3.12")
        return
    calls, seconds, slower = (4, 0.2, 25.0) if quick else (400, 0.4, 250.0)
    with tempfile.TemporaryDirectory() as directory:
        report, costs = _simulate(directory, calls, seconds, slower)
    events = report.sent + report.received
    all_of_it = Costs(
        instructions=sum(each.instructions for each in costs.values()),
        read=sum(each.read for each in costs.values()),
        written=sum(each.written for each in costs.values()),
    )
    shown = sorted(costs.items(), key=lambda item: item[1].lines, reverse=True)[:SHOWN]
    for name, cost in [(f"a frame event, {calls} calls", all_of_it), *shown]:
        yield Row(
            group="lines",
            name=name,
            value=cost.lines / events,
            unit=" lines",
            text=f"{cost.read / events:.2f} read, {cost.written / events:.2f} written; "
            f"{cost.instructions / events:,.0f} instructions",
        )


def _simulate(directory: str, calls: int, seconds: float, slower: float) -> tuple[Report, dict[str, Costs]]:
    me, output = "benchmarks.lines", Path(directory, "callgrind")
    valgrind = ("valgrind", "--tool=callgrind", "--instr-atstart=no", "--separate-callers=5", "--cache-sim=yes")
    # One seed for all hashes: otherwise dicts lie differently in memory on each run.
    settings = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPERFSUPPORT": "1"}
    with open_contest((me, _GATEWAY, str(slower))) as contest:
        talk = contest.command(me, str(calls), str(seconds), str(slower))
        command = [*valgrind, f"--LL={CACHE}", f"--callgrind-out-file={output}", *talk]
        client = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=settings)
        try:
            written, _ = client.communicate(timeout=60 + 4 * slower * (seconds + 2.0))
        except subprocess.TimeoutExpired:
            client.kill()
            client.wait()
            raise
        if client.returncode != 0:
            raise subprocess.CalledProcessError(client.returncode, command)
    # The interpreter writes its map of functions to no other place.
    perf_map = Path(f"/tmp/perf-{client.pid}.map")
    with perf_map.open(encoding="utf-8") as lines, output.open(encoding="utf-8") as profile:
        costs = costs_by_function(profile, functions_of(lines))
    perf_map.unlink()
    return Report(**json.loads(written)), costs


class Counter(Stopwatch):
    """Has valgrind count between two moments."""

    def __init__(self) -> None:
        super().__init__()
        self._instrument("on")

    def read(self) -> tuple[float, float]:
        self._instrument("off")
        return super().read()

    def _instrument(self, state: str) -> None:
        command = ["callgrind_control", f"--instr={state}", str(os.getpid())]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> None:
    first, *arguments = sys.argv[1:]
    if first == _GATEWAY:
        slower, directory = arguments
        trio.run(load_gateway.main, directory, clock=SlowClock(float(slower)))
    else:
        ca_file, calls, seconds, slower = arguments
        clock = SlowClock(float(slower))
        print(trio.run(trio_client.talk, first, ca_file, calls, seconds, "agentao", Counter, clock=clock).as_json())


if __name__ == "__main__":
    main()
