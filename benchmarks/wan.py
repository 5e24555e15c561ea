"""A bad path in virtual time: real QUIC at both ends, a network that loses and delays on purpose, and no sockets.

The network, the echoing gateway and the measurement are those of the tests (``tests/support/measure.py``), so that the
figure here is the one that the suite holds.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.row import Goal, Row
from benchmarks.talk import IN_TIME
from tests.support.measure import Talk, talk

__all__ = ["delivered", "measure"]


def delivered(result: Talk) -> float:
    """The share of packets whose echo came in time."""
    return sum(delay <= IN_TIME for delay in result.delays) / result.sent


def measure(*, quick: bool) -> Iterator[Row]:
    """One seed, so that the figure is the same wherever it is taken."""
    calls, seconds = (10, 2.0) if quick else (100, 6.0)
    result = talk(calls=calls, seconds=seconds, loss=0.005, rtt=0.040, seed=1)
    lost = result.sent - len(result.delays)
    yield Row(
        group="wan",
        name=f"{calls} calls, 40 ms RTT, 0.5 % loss: echoes within 150 ms",
        value=100 * delivered(result),
        unit=" %",
        goal=Goal(relation="≥", value=99.5, unit=" %"),
        text=f"p50 {result.quantile_ms(0.5):.0f}, p99 {result.quantile_ms(0.99):.0f} ms; {result.shed} shed, "
        f"{lost} of {result.sent:,} never came",
        figures={"shed": result.shed, "lost": lost, "sent": result.sent},
    )
