"""Audio against models too naive to be wrong: every chunking, every order of sequence numbers."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from agentao_trio.audio import (
    ArrivalKind,
    Codec,
    JitterEstimator,
    Packetizer,
    SequenceTracker,
    estimate_mos,
    from_pcm16,
    to_pcm16,
)

CODECS = st.sampled_from(Codec)
UINT64 = st.integers(0, 2**64 - 1)


# -- packets --------------------------------------------------------------------------------------------------------


@given(CODECS, st.integers(1, 40), st.lists(st.binary(max_size=100)))
def test_any_chunking_gives_the_packets_of_the_whole(codec: Codec, packet_bytes: int, chunks: list[bytes]) -> None:
    packetizer = Packetizer(codec, packet_bytes)
    packets = []
    for chunk in chunks:
        packets += packetizer.feed(chunk)
        assert packetizer.pending < packet_bytes
    assert packetizer.pending == len(b"".join(chunks)) % packet_bytes
    assert packets == Packetizer(codec, packet_bytes).feed(b"".join(chunks))


@given(CODECS, st.integers(1, 40), st.lists(st.binary(max_size=100)))
def test_nothing_is_lost_and_nothing_but_silence_is_added(codec: Codec, packet_bytes: int, chunks: list[bytes]) -> None:
    packetizer = Packetizer(codec, packet_bytes)
    packets = [packet for chunk in chunks for packet in packetizer.feed(chunk)]
    last = packetizer.flush()
    if last is not None:
        packets.append(last)
    audio = b"".join(chunks)
    assert all(len(packet) == packet_bytes for packet in packets)
    assert b"".join(packets)[: len(audio)] == audio
    padding = b"".join(packets)[len(audio) :]
    assert len(padding) < packet_bytes
    assert set(padding) <= set(codec.silence)


@given(st.sampled_from([Codec.PCMU, Codec.PCMA]), st.lists(st.integers(-32768, 32767)))
def test_g711_stays_within_its_quantising_step(codec: Codec, samples: list[int]) -> None:
    pcm = b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples)
    payload = from_pcm16(pcm, codec)
    assert len(payload) == len(samples)
    again = to_pcm16(payload, codec)
    # From one segment to the next the step doubles: 1/16 of the magnitude, and never finer than 8.
    for index, sample in enumerate(samples):
        decoded = int.from_bytes(again[2 * index : 2 * index + 2], "little", signed=True)
        assert abs(decoded - sample) <= max(16, abs(sample) / 16)
    assert from_pcm16(again, codec) == payload.replace(b"\x7f", b"\xff" if codec is Codec.PCMU else b"\x7f")


@given(CODECS, st.binary())
def test_any_payload_can_be_decoded(codec: Codec, payload: bytes) -> None:
    assert len(to_pcm16(payload, codec)) % 2 == 0


# -- sequence numbers -----------------------------------------------------------------------------------------------


@st.composite
def journeys(draw: st.DrawFn) -> list[int]:
    """Unwrapped sequence numbers as they arrive: some lost, some twice, some a little late; never a restart."""
    sent = range(base := draw(UINT64), base + draw(st.integers(1, 60)))
    arrivals: list[tuple[int, int]] = []
    for number in sent:
        copies = draw(st.sampled_from([0, 1, 1, 1, 1, 2]))
        arrivals += [(number + draw(st.sampled_from([0, 0, 0, 0, 3])), number) for _ in range(copies)]
    return [number for _, number in sorted(arrivals, key=lambda arrival: arrival[0])]


@given(journeys())
def test_the_tracker_agrees_with_sets_of_numbers(numbers: list[int]) -> None:
    tracker = SequenceTracker()
    played: list[int] = []
    for number in numbers:
        arrival = tracker.feed(number % 2**64)
        if arrival.kind is ArrivalKind.IN_ORDER:
            skipped = set(range(played[-1] + 1, number)) if played else set()
            assert arrival.lost_before == len(skipped)
            played.append(number)
        else:
            assert number <= played[-1]
    assert played == sorted(set(played))
    assert tracker.received == len(numbers)
    assert tracker.late_or_duplicate == len(numbers) - len(played)
    assert tracker.lost == (len(set(range(played[0], played[-1] + 1)) - set(played)) if played else 0)
    assert tracker.resynchronisations == 0


class NaiveTracker:
    """The rules of :class:`SequenceTracker` again, with neither modular arithmetic nor shared state."""

    def __init__(self) -> None:
        self.expected: int | None = None
        self.previous_stray: int | None = None

    def feed(self, number: int) -> tuple[ArrivalKind, int]:
        continues_stray = self.previous_stray is not None and number == (self.previous_stray + 1) % 2**64
        self.previous_stray = None
        if self.expected is None or continues_stray:
            self.expected = (number + 1) % 2**64
            return ArrivalKind.IN_ORDER, 0
        ahead = next((n for n in range(3000) if (self.expected + n) % 2**64 == number), None)
        if ahead is not None:
            self.expected = (number + 1) % 2**64
            return ArrivalKind.IN_ORDER, ahead
        if not any((self.expected - n) % 2**64 == number for n in range(1, 102)):
            self.previous_stray = number
        return ArrivalKind.LATE, 0


NEARBY = st.integers(-110, 10).map(lambda step: ("step", step))
BORDERS = st.sampled_from([2999, 3000, 3001, 3002, -99, -100, -101, -102]).map(lambda step: ("step", step))
ANYWHERE = UINT64.map(lambda number: ("jump", number))


@given(UINT64, st.lists(st.one_of(st.just(("step", 1)), NEARBY, BORDERS, ANYWHERE), max_size=40))
def test_the_tracker_agrees_with_a_naive_one_on_any_numbers(start: int, moves: list[tuple[str, int]]) -> None:
    tracker, naive = SequenceTracker(), NaiveTracker()
    number = start
    for how, value in [("step", 0), *moves]:
        number = value if how == "jump" else (number + value) % 2**64
        arrival = tracker.feed(number)
        assert (arrival.kind, arrival.lost_before) == naive.feed(number)
    assert tracker.received == len(moves) + 1
    assert 0.0 <= tracker.loss_ratio < 1.0
    assert tracker.burst_ratio >= 1.0


@given(st.lists(st.tuples(UINT64, st.booleans())))
def test_every_frame_is_counted_exactly_once(frames: list[tuple[int, bool]]) -> None:
    tracker = SequenceTracker()
    kinds = [tracker.feed(number, end_of_stream).kind for number, end_of_stream in frames]
    assert tracker.received + tracker.after_eos == len(frames)
    assert tracker.late_or_duplicate == kinds.count(ArrivalKind.LATE)
    assert tracker.after_eos == kinds.count(ArrivalKind.AFTER_EOS)
    assert tracker.ended == any(end_of_stream for _, end_of_stream in frames)


# -- jitter and quality ---------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(UINT64, st.floats(allow_nan=False, allow_infinity=False, min_value=0, max_value=1e9))))
def test_jitter_is_always_a_finite_time(arrivals: list[tuple[int, float]]) -> None:
    estimator = JitterEstimator()
    for number, moment in arrivals:
        estimator.feed(number, moment)
    assert 0.0 <= estimator.jitter_ms < math.inf


@given(
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1e12),
    st.floats(0, 1e12),
    st.floats(1, 1e6),
    CODECS,
)
def test_more_loss_or_delay_never_sounds_better(
    loss: float, other_loss: float, delay: float, other_delay: float, burst_ratio: float, codec: Codec
) -> None:
    losses, delays = sorted([loss, other_loss]), sorted([delay, other_delay])
    good, bad = (
        estimate_mos(loss_ratio=losses[n], one_way_delay_ms=delays[n], burst_ratio=burst_ratio, codec=codec)
        for n in (0, 1)
    )
    assert 1.0 <= bad <= good + 1e-9 <= 4.5
