"""Two ways to do the same, measured turn about: what other programs take from one they would take from the other."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from statistics import median, quantiles

import attrs

__all__ = ["Ratio", "cpu_of", "race", "ratio_of"]


@attrs.frozen(kw_only=True)
class Ratio:
    """The first measure divided by the second: median and quartiles over all pairs; ``first`` and ``second`` themselves
    are the medians, in CPU seconds per piece of work."""

    median: float
    low: float
    high: float
    first: float
    second: float
    pairs: int


def ratio_of(pairs: list[tuple[float, float]]) -> Ratio:
    """The ratio of measures that were taken in pairs."""
    ratios = [first / second for first, second in pairs]
    low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else (ratios[0],) * 3
    return Ratio(
        median=median(ratios),
        low=low,
        high=high,
        first=median(first for first, _ in pairs),
        second=median(second for _, second in pairs),
        pairs=len(pairs),
    )


def cpu_of(work: Callable[[], object]) -> float:
    """CPU seconds of this process for one turn of ``work``, the collector of garbage kept out."""
    gc.collect()
    gc.disable()
    try:
        began = time.process_time()
        work()
        return time.process_time() - began
    finally:
        gc.enable()


def race(
    first: Callable[[], object], second: Callable[[], object], *, pieces: tuple[int, int] = (1, 1), pairs: int = 21
) -> Ratio:
    """``first`` against ``second``, one turn of each per pair, in alternating order.

    ``pieces`` is how many pieces of work a turn of each is.
    """
    first(), second()  # what is only done once is done now
    measured = []
    for number in range(pairs):
        if number % 2:
            slower, faster = cpu_of(second), cpu_of(first)
            measured.append((faster / pieces[0], slower / pieces[1]))
        else:
            measured.append((cpu_of(first) / pieces[0], cpu_of(second) / pieces[1]))
    return ratio_of(measured)
