"""Calls on paths that lose packets, and on paths that carry less than what is said."""

from __future__ import annotations

import pytest

from tests.support.bottleneck import Bottleneck
from tests.support.measure import quantile, talk
from tests.support.overload import overload


def test_a_hundred_calls_over_a_lossy_path_are_heard_in_time() -> None:
    """There and back within 150 ms, which is more than is asked: one way."""
    result = talk(calls=100, seconds=1.5, loss=0.005, rtt=0.040)
    in_time = sum(delay <= 0.150 for delay in result.delays)
    assert result.shed + result.dropped == 0
    assert in_time / result.sent >= 0.995


@pytest.mark.parametrize(
    ("bits_per_second", "p95"),
    [(1_000_000, 0.25), (500_000, 0.40)],  # of 1.7 million with all headers: three fifths of it, and less than a third
)
def test_beyond_the_paths_capacity_audio_is_shed_and_what_is_heard_is_young(bits_per_second: int, p95: float) -> None:
    result = overload(calls=16, seconds=6, network=Bottleneck(bits_per_second=bits_per_second, delay=0.02))
    assert quantile(result.ages, 0.95) <= p95
    assert result.ages[-1] <= 0.7  # when the path's queue has overflowed, which is how its capacity is found out
    assert quantile(result.event_delays, 0.99) <= 0.1
    assert result.shed > 0
    # The path is used: what is shed is what it does not carry.
    heard = len(result.ages) / result.sent
    assert heard >= 0.6 * bits_per_second / 1_700_000


def test_at_overload_the_sender_settles_at_what_the_path_carries() -> None:
    """It finds out at first, and then no more is sent than fits: nothing overflows any longer."""
    lost = {}
    for seconds in (2, 8):
        network = Bottleneck(bits_per_second=500_000, delay=0.02)
        overload(calls=16, seconds=seconds, network=network)
        lost[seconds] = network.statistics().lost
    assert lost[8] == lost[2]
