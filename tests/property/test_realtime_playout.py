"""The accounting of a model's audio against a model too naive to be wrong: a list of single bytes."""

from __future__ import annotations

from collections import deque

import attrs
from hypothesis import given
from hypothesis import strategies as st

from agentao_trio.audio import PACKET_MS, Codec
from agentao_trio.realtime.playout import DOWNSTREAM_MS, STALL_MS, AudioPart, ModelAudio, Stretch

PART = AudioPart("item")
BOUND_MS, PREBUFFER_MS = 400, 60
PER_MS = 8  # bytes of PCMU
PACKET = PACKET_MS * PER_MS


@attrs.frozen
class Receive:
    part: int
    size: int


@attrs.frozen
class Finish:
    part: int


@attrs.frozen
class Slots:
    """Packets go out, so many if there are, one every 20 ms; 20 ms pass where there is none."""

    most: int


@attrs.frozen
class CutOff:
    pass


STEPS = st.lists(
    st.builds(Receive, st.integers(0, 2), st.integers(0, 1000))
    | st.builds(Finish, st.integers(0, 2))
    | st.builds(Slots, st.integers(1, 6))
    | st.builds(Slots, st.just(1))
    | st.builds(CutOff),
    max_size=60,
)


class Naive:
    """Every byte by itself: which part it is of, and when it was sent."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[AudioPart, int]] = deque()
        self.received: dict[AudioPart, list[int]] = {}
        self.sent: dict[AudioPart, list[tuple[float, int]]] = {}
        self.overflow = 0

    def receive(self, part: AudioPart, data: bytes) -> None:
        self.received.setdefault(part, [])
        for value in data:
            if len(self.waiting) < BOUND_MS * PER_MS:
                self.waiting.append((part, value))
                self.received[part].append(value)
            else:
                self.overflow += 1

    def send(self, stretch: Stretch, at: float) -> None:
        """The last packet of it goes out at ``at``."""
        filled = sum(size for _, size in stretch.segments)
        assert set(stretch.data[filled:]) <= {0xFF}
        last = len(stretch.data) // PACKET - 1
        for index, value in enumerate(stretch.data[:filled]):
            part, expected = self.waiting.popleft()
            assert value == expected, "what goes out is what came in, in its order"
            self.sent.setdefault(part, []).append((at - (last - index // PACKET) * 0.02, value))

    def heard(self, part: AudioPart, now: float) -> int:
        old = [1 for at, _ in self.sent.get(part, []) if now - at >= DOWNSTREAM_MS / 1000 - 1e-9]
        return len(old) // PER_MS

    def forget(self, part: AudioPart) -> None:
        self.received.pop(part, None)
        self.sent.pop(part, None)


@given(STEPS)
def test_no_byte_is_lost_invented_or_heard_too_early(steps: list[Receive | Finish | Slots | CutOff]) -> None:
    audio, naive = ModelAudio(Codec.PCMU, prebuffer_ms=PREBUFFER_MS, bound_ms=BOUND_MS), Naive()
    slots = sent = cut = value = response = 0
    items = [0, 0, 0]  # a part that is done, or was cut, is followed by one of the next item
    for step in steps:
        now = slots * 0.02
        match step:
            case Receive(part, size):
                key = AudioPart(f"item_{items[part]}", part)
                data = bytes((value + index) % 251 for index in range(size))
                value += size
                assert audio.receive(key, f"response_{response}", data, size / PER_MS)
                naive.receive(key, data)
            case Finish(part):
                key = AudioPart(f"item_{items[part]}", part)
                items[part] += 1
                for played in audio.finish(key):
                    assert len(naive.sent.get(key, [])) == len(naive.received[key])
                    naive.forget(played.part)
            case Slots(most):
                stretch = audio.next_stretch(most)
                slots += len(stretch.data) // PACKET if stretch is not None else 1
                now = slots * 0.02
                if stretch is not None:
                    assert len(stretch.data) in range(PACKET, most * PACKET + 1, PACKET)
                    naive.send(stretch, now)
                    sent += sum(size for _, size in stretch.segments)
                    for played in audio.sent(stretch, now):
                        key = played.part
                        assert len(naive.sent.get(key, [])) == len(naive.received[key])
                        assert played.kept_ms == len(naive.received[key]) // PER_MS
                        naive.forget(key)
            case CutOff():
                cuts = {each.part: each for each in audio.cut(now)}
                assert set(cuts) == set(naive.received), "whatever was not sent to its end"
                for key, each in cuts.items():
                    assert each.heard_ms == naive.heard(key, now)
                    assert each.heard_ms <= each.sent_ms <= each.received_ms
                cut += len(naive.waiting)
                naive.waiting.clear()
                for key in cuts:
                    naive.forget(key)
                late = audio.statistics().late_ms
                for key in cuts:
                    assert not audio.receive(key, f"response_{response}", bytes(80), 10)
                assert audio.statistics().late_ms == late + 10 * len(cuts)
                items = [item + 1 for item in items]
                response += 1
        for key in naive.received:
            assert audio.heard_ms(key, now) == naive.heard(key, now)
        statistics = audio.statistics()
        assert statistics.waiting_ms == len(naive.waiting) // PER_MS <= BOUND_MS
        assert statistics.sent_ms == sent // PER_MS
        assert statistics.overflow_ms == naive.overflow // PER_MS
        assert statistics.cut_ms == cut // PER_MS


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 200)), min_size=1), st.integers(0, 100))
def test_a_stretch_can_be_cut_anywhere(segments: list[tuple[str, int]], at: int) -> None:
    runs = tuple((AudioPart(name), size) for name, size in segments)
    of = [key for key, size in runs for _ in range(size)]
    stretch = Stretch(data=bytes(len(of)), segments=runs)
    size = at * len(of) // 100
    head = stretch.head(size)
    assert len(head.data) == size
    assert [key for key, length in head.segments for _ in range(length)] == of[:size]
    assert stretch.behind(AudioPart("a"), size) == of[size:].count(AudioPart("a"))


@given(st.lists(st.integers(1, 700), min_size=1, max_size=20), st.integers(0, 120))
def test_any_chunking_gives_the_packets_of_the_whole(sizes: list[int], prebuffer_ms: int) -> None:
    said = bytes(index % 251 for index in range(sum(sizes)))
    audio, start = ModelAudio(Codec.PCMU, prebuffer_ms=prebuffer_ms), 0
    for size in sizes:
        audio.receive(PART, "response", said[start : start + size], size / PER_MS)
        start += size
    audio.finish(PART)
    packets = []
    while (packet := audio.next_stretch()) is not None:
        packets.append(packet)
        over = audio.sent(packet, len(packets) * 0.02)
        assert bool(over) == (len(packets) * PACKET >= len(said))
    heard = b"".join(packet.data for packet in packets)
    assert heard[: len(said)] == said
    assert set(heard[len(said) :]) <= {0xFF}
    assert len(heard) - len(said) < PACKET
    assert audio.is_silent


@given(st.lists(st.integers(0, 300), min_size=1, max_size=40), st.integers(0, 120))
def test_a_stall_is_filled_with_silence_and_no_more_than_that(chunks: list[int], prebuffer_ms: int) -> None:
    """A chunk comes in each slot. There is never more silence in a row than the stall allows."""
    audio = ModelAudio(Codec.PCMU, prebuffer_ms=prebuffer_ms)
    silent_for = silence = 0
    speaking = False
    for size in chunks:
        audio.receive(PART, "response", bytes(size), size / PER_MS)
        waiting = audio.statistics().waiting_ms
        packet = audio.next_stretch()
        if packet is None:
            assert not speaking or silent_for >= STALL_MS
            assert speaking or waiting < max(prebuffer_ms, PACKET_MS) + 1
            speaking, silent_for = False, 0
            continue
        speaking = True
        silent_for = 0 if packet.segments else silent_for + PACKET_MS
        silence += 0 if packet.segments else PACKET_MS
        assert silent_for <= STALL_MS
    assert audio.statistics().silence_ms == silence
