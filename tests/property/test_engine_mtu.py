"""The search for the path's MTU against a model that knows the whole history, on paths that change and lose."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agentao_trio._engine_mtu import BASE, DOUBT, RAISE, SIZES, TRIES, PathMTU
from tests.support.engines import examples

LIMITS = st.sampled_from([BASE, 1300, 1352, 1400, 1452, 2000, 8848, 65_527])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.1, DOUBT, 10.0, RAISE])),
        st.tuples(st.just("lose"), st.integers(1, 3)),  # packets that were no probes
        st.tuples(st.just("path"), LIMITS),
        st.tuples(st.just("refused"), st.none()),  # this machine says that something was too long
        st.tuples(st.just("unlucky"), st.integers(1, 4)),  # so many probes are lost, whatever the path carries
    ),
    max_size=40,
)


def size_after(history: list[tuple[int, bool]]) -> int:
    """What is known after probes of these sizes, and whether each of them arrived; 0: something else was too long."""
    size, in_a_row = BASE, 0
    for probe, arrived in history:
        in_a_row = 0 if arrived else in_a_row + 1
        if probe == 0:
            size, in_a_row = BASE, 0
        elif arrived:
            size = probe
        elif in_a_row == TRIES:
            in_a_row = 0
            if probe == size:
                size = BASE
    return size


def answer(mtu: PathMTU, probe: int, carries: int, history: list[tuple[int, bool]]) -> None:
    arrived = probe <= carries
    history.append((probe, arrived))
    mtu.answered(arrived=arrived)


@given(most=LIMITS, path=LIMITS, steps=STEPS)
@settings(max_examples=examples(300))
def test_a_size_is_used_that_has_arrived_and_no_longer_when_it_does_not(
    most: int, path: int, steps: list[tuple[str, float]]
) -> None:
    mtu, now, losses, unlucky = PathMTU(), 0.0, 0, 0
    history: list[tuple[int, bool]] = []
    mtu.allow(most)
    for step, value in steps:
        match step:
            case "wait":
                now += value
            case "lose":
                losses += int(value)
            case "path":
                path = int(value)
            case "unlucky":
                unlucky = int(value)
            case "refused":
                is_known = mtu.size > BASE
                assert mtu.too_long() is is_known
                if is_known:
                    history.append((0, False))
        for _ in range(20):  # a probe leads to the next, but not for ever
            probe = mtu.next_probe(now, losses)
            if probe is None:
                break
            assert probe in SIZES
            assert probe <= most
            assert mtu.next_probe(now, losses) is None, "one at a time"
            answer(mtu, probe, 0 if unlucky else path, history)
            unlucky = max(0, unlucky - 1)
            assert mtu.size == size_after(history)
        else:
            raise AssertionError("it does not come to rest")
        assert mtu.size == size_after(history)


@given(most=LIMITS, path=LIMITS, before=LIMITS)
def test_in_the_end_it_is_the_largest_that_the_path_carries(most: int, path: int, before: int) -> None:
    """Whatever the path was before; a loss makes it ask when that was more."""
    mtu, now, losses = PathMTU(), 0.0, 0
    mtu.allow(most)
    for carries in (before, path):
        for _ in range(20):
            if (probe := mtu.next_probe(now, losses)) is not None:
                mtu.answered(arrived=probe <= carries)
        losses += 1
        now += RAISE
    best = max((size for size in SIZES if size <= min(most, path)), default=BASE)
    assert mtu.size == best
    assert mtu.next_probe(now - DOUBT, losses - 1) is None
    assert mtu.size == best


def test_a_probe_that_this_machine_refuses_is_not_tried_again() -> None:
    mtu = PathMTU()
    mtu.allow(SIZES[0])
    assert mtu.next_probe(0.0, 0) == SIZES[0]
    assert mtu.too_long()
    assert mtu.next_probe(0.0, 0) is None, "its fate is not known yet"
    mtu.answered(arrived=False)
    assert mtu.next_probe(RAISE - 1, 0) is None
    assert mtu.next_probe(RAISE, 0) == SIZES[0]


def test_where_packets_are_lost_all_the_time_it_asks_once_a_second() -> None:
    mtu = PathMTU()
    mtu.allow(SIZES[0])
    probes = 0
    for tick in range(1000):
        if mtu.next_probe(tick / 100, losses=tick) is not None:
            probes += 1
            mtu.answered(arrived=True)
    assert probes == 1 + 10
