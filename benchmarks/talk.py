"""What a client under load reports, whoever wrote it."""

from __future__ import annotations

import functools
import itertools
import json
import random
import time
from array import array
from collections.abc import Iterable, Iterator

import attrs

__all__ = ["PACKET", "PTIME", "Report", "Stopwatch", "quantile", "speech", "timed", "times"]

PACKET, PTIME = 160, 0.020
#: Seconds from the first packet to the measurement.
WARM_UP = 1.0
#: Seconds that an echo may take, during the talk and after its last packet. Who needs longer is falling behind: 150 ms
#: is what one may hear late (ITU-T G.114).
IN_TIME = 0.150
#: The share of all slots that a client may have missed at the edges of the measurement.
EDGES = 0.03
#: Calls whose packets are timed, of all.
TIMED = 50


@attrs.frozen(kw_only=True)
class Report:
    """Times in seconds. What is counted was counted during ``seconds`` of talk, ``missing`` after :data:`IN_TIME`."""

    calls: int
    seconds: float
    #: CPU time of the client's process.
    cpu: float
    sent: int
    received: int
    #: Packets that were given up for want of room, and packets whose echo has not come back.
    shed: int
    missing: int
    lateness_p50: float
    lateness_p99: float
    echo_p50: float
    echo_p99: float
    #: The floor of a frame event in the same process, in the rhythm of calls and in a loop; 0 where not measured.
    floor: float = 0.0
    floor_in_a_loop: float = 0.0

    @property
    def cpu_per_frame(self) -> float:
        """CPU seconds of a frame sent or received."""
        return self.cpu / max(1, self.sent + self.received)

    @property
    def has_backlog(self) -> bool:
        """Whether anything was left behind, in the end or on the way: then its other figures mean nothing."""
        wanted = self.calls * self.seconds / PTIME
        return self.missing + self.shed > 0 or self.echo_p99 > IN_TIME or self.sent < (1 - EDGES) * wanted

    def as_json(self) -> str:
        return json.dumps(attrs.asdict(self))


def times() -> array[float]:
    """Where moments and durations are noted, as bare numbers."""
    return array("d")


def timed(calls: int) -> set[int]:
    """The calls whose packets are timed: some, drawn once, so that the notes of hundreds do not wear out the
    processor's cache. All packets are counted."""
    return set(random.Random(calls).sample(range(calls), min(calls, TIMED)))


def quantile(values: Iterable[float], q: float) -> float:
    """The ``q``-quantile; infinite of none, which is what a client that sent nothing deserves."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("inf")


#: What all calls say, over and over: two seconds of noise, from the same place on every run.
_TAPE = random.Random(1).randbytes(100 * PACKET)


def speech(packets: int) -> Iterator[bytes]:
    """Audio without end, so many packets at a time."""
    return itertools.cycle(_chunks(packets * PACKET))


@functools.cache
def _chunks(size: int) -> list[bytes]:
    """The tape cut up, once for all calls: who has just made what it says finds it in the processor's cache, too."""
    return [_TAPE[at : at + size] for at in range(0, len(_TAPE), size)]


class Stopwatch:
    """CPU and wall clock of this process between two moments."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.monotonic()

    def read(self) -> tuple[float, float]:
        """(CPU seconds, seconds) since then."""
        return time.process_time() - self._cpu, time.monotonic() - self._wall
