"""Audio by example: formats, packets, sequence numbers, jitter and MOS, with figures from the standards."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from agentao_trio.audio import (
    Arrival,
    ArrivalKind,
    Codec,
    JitterEstimator,
    Packetizer,
    SequenceTracker,
    estimate_mos,
    from_pcm16,
    to_pcm16,
)

IN_ORDER = Arrival(kind=ArrivalKind.IN_ORDER)
LATE = Arrival(kind=ArrivalKind.LATE)
AFTER_EOS = Arrival(kind=ArrivalKind.AFTER_EOS)


def lost(packets: int) -> Arrival:
    return Arrival(kind=ArrivalKind.IN_ORDER, lost_before=packets)


# -- codecs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "clock_rate", "packet_bytes", "bits_per_second"),
    [(Codec.PCMU, 8_000, 160, 64_000), (Codec.PCMA, 8_000, 160, 64_000), (Codec.PCM16, 16_000, 640, 256_000)],
)
def test_the_codec_table_of_protocol_section_11(
    codec: Codec, clock_rate: int, packet_bytes: int, bits_per_second: int
) -> None:
    assert codec.clock_rate == clock_rate
    assert codec.packet_bytes == packet_bytes
    assert codec.packet_bytes * 8 * 50 == bits_per_second


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("PCMU", Codec.PCMU),
        ("pcma", Codec.PCMA),
        ("Pcm16", Codec.PCM16),
        ("OPUS", None),
        ("", None),
        ("PCMU ", None),
        ("\udcff\x00", None),
    ],
)
def test_codec_names_are_read_in_any_letter_case_and_unknown_ones_are_no_error(name: str, codec: Codec | None) -> None:
    assert Codec.named(name) is codec


@pytest.mark.parametrize("codec", Codec)
def test_a_packet_of_silence_is_silent(codec: Codec) -> None:
    assert len(codec.silence) == codec.packet_bytes
    samples = to_pcm16(codec.silence, codec)
    # A-law has no zero: its smallest magnitude is half a step, 8 of 32768.
    assert set(memoryview(samples).cast("h")) == {8 if codec is Codec.PCMA else 0}


@pytest.mark.parametrize(
    ("codec", "payload", "pcm"),
    [
        # The ends of the scales and the two zeros of ITU-T G.711, tables 1a to 2b, aligned to 16 bits.
        (Codec.PCMU, "80 00 ff 7f", [32124, -32124, 0, 0]),
        (Codec.PCMA, "aa 2a d5 55", [32256, -32256, 8, -8]),
        (Codec.PCM16, "01 00 00 80", [1, -32768]),
    ],
)
def test_decoding_gives_little_endian_samples(codec: Codec, payload: str, pcm: list[int]) -> None:
    expected = b"".join(sample.to_bytes(2, "little", signed=True) for sample in pcm)
    assert to_pcm16(bytes.fromhex(payload), codec) == expected


@pytest.mark.parametrize("codec", [Codec.PCMU, Codec.PCMA])
def test_every_g711_byte_survives_decoding_and_encoding(codec: Codec) -> None:
    every_byte = bytes(range(256))
    again = from_pcm16(to_pcm16(every_byte, codec), codec)
    # µ-law has a negative zero (0x7f), which linear samples cannot tell from the positive one (0xff).
    assert again == (every_byte.replace(b"\x7f", b"\xff") if codec is Codec.PCMU else every_byte)


def test_pcm16_is_linear_already() -> None:
    assert from_pcm16(b"\x01\x00\xff\x7f", Codec.PCM16) == b"\x01\x00\xff\x7f"


def test_a_peer_may_send_half_a_sample_but_a_program_may_not() -> None:
    assert to_pcm16(b"\x01\x00\x02", Codec.PCM16) == b"\x01\x00"
    for codec in Codec:
        assert to_pcm16(b"", codec) == b""
        with pytest.raises(ValueError, match="even number of bytes, got 3"):
            from_pcm16(b"\x01\x00\x02", codec)


def test_importing_audio_does_not_warn_on_any_python() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", "import agentao_trio.audio"], check=True)


# -- packets --------------------------------------------------------------------------------------------------------


def test_chunks_of_any_size_come_out_as_whole_packets() -> None:
    packetizer = Packetizer(Codec.PCMU)
    assert packetizer.feed(b"a" * 100) == []
    assert packetizer.pending == 100
    assert packetizer.feed(b"b" * 300) == [b"a" * 100 + b"b" * 60, b"b" * 160]
    assert packetizer.pending == 80
    assert packetizer.feed(b"") == []


@pytest.mark.parametrize("codec", Codec)
def test_flush_fills_the_last_packet_with_silence_once(codec: Codec) -> None:
    packetizer = Packetizer(codec)
    packetizer.feed(b"end")
    assert packetizer.flush() == b"end" + codec.silence[3:]
    assert packetizer.pending == 0
    assert packetizer.flush() is None


def test_a_packet_size_can_be_chosen_but_not_nothing() -> None:
    packetizer = Packetizer(Codec.PCMA, 240)
    assert [len(packet) for packet in packetizer.feed(bytes(500))] == [240, 240]
    assert packetizer.flush() == bytes(20) + b"\xd5" * 220
    for nothing in (0, -160):
        with pytest.raises(ValueError, match="at least one byte"):
            Packetizer(Codec.PCMU, nothing)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_packets_are_bytes_whatever_kind_of_buffer_was_fed(kind: type[bytes]) -> None:
    packets = Packetizer(Codec.PCMU).feed(kind(bytes(160)))
    assert packets == [bytes(160)]
    assert type(packets[0]) is bytes


def test_a_buffer_may_be_changed_after_it_was_fed() -> None:
    packetizer = Packetizer(Codec.PCMU)
    buffer = bytearray(b"x" * 200)
    packetizer.feed(buffer)
    buffer[:] = b"y" * 200
    assert packetizer.flush() == b"x" * 40 + b"\xff" * 120


# -- sequence numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "arrivals"),
    [
        pytest.param([7, 8, 9], [IN_ORDER, IN_ORDER, IN_ORDER], id="the first number is the base"),
        pytest.param([0, 3, 4], [IN_ORDER, lost(2), IN_ORDER], id="a gap"),
        pytest.param([5, 5, 6], [IN_ORDER, LATE, IN_ORDER], id="a duplicate"),
        pytest.param([1, 4, 3, 2, 5], [IN_ORDER, lost(2), LATE, LATE, IN_ORDER], id="late packets stay lost"),
        pytest.param([2**64 - 2, 2**64 - 1, 0, 1], [IN_ORDER] * 4, id="the wrap is not a gap"),
        pytest.param([2**64 - 1, 2, 0], [IN_ORDER, lost(2), LATE], id="loss and lateness across the wrap"),
        pytest.param([0, 3000], [IN_ORDER, lost(2999)], id="a minute ahead is loss"),
        pytest.param([500, 400, 401], [IN_ORDER, LATE, LATE], id="two seconds behind is late"),
        pytest.param([0, 3001, 3002], [IN_ORDER, LATE, IN_ORDER], id="further ahead is a restart"),
        pytest.param([500, 399, 400], [IN_ORDER, LATE, IN_ORDER], id="further behind is a restart"),
        pytest.param([9000, 0, 1, 2], [IN_ORDER, LATE, IN_ORDER, IN_ORDER], id="a sender that started over"),
        pytest.param([0, 2**64 - 1, 0, 1], [IN_ORDER, LATE, LATE, IN_ORDER], id="just below zero is late"),
        pytest.param([0, 2**63, 1], [IN_ORDER, LATE, IN_ORDER], id="one stray number moves nothing"),
        pytest.param([0, 2**63 + 1], [IN_ORDER, LATE], id="all 64 bits count"),
        pytest.param([0, 9000, 9001, 9001], [IN_ORDER, LATE, IN_ORDER, LATE], id="a restart happens once"),
        pytest.param([0, 9000, 1, 9001, 2], [IN_ORDER, LATE] * 2 + [IN_ORDER], id="only consecutive ones persuade"),
        pytest.param([0, 9000, 90000, 90001], [IN_ORDER, LATE, LATE, IN_ORDER], id="the newest stray number counts"),
        pytest.param([0, 9000, 9002], [IN_ORDER, LATE, LATE], id="a gap within the new numbering does not persuade"),
    ],
)
def test_what_a_sequence_number_means(numbers: list[int], arrivals: list[Arrival]) -> None:
    tracker = SequenceTracker()
    assert [tracker.feed(number) for number in numbers] == arrivals
    assert tracker.received == len(numbers)
    assert tracker.lost == sum(arrival.lost_before for arrival in arrivals)
    assert tracker.late_or_duplicate == arrivals.count(LATE)


def test_a_restart_is_counted_and_costs_no_loss() -> None:
    tracker = SequenceTracker()
    for number in [*range(10), *range(50_000, 50_010), *range(10)]:
        tracker.feed(number)
    assert tracker.resynchronisations == 2
    assert tracker.late_or_duplicate == 2
    assert tracker.lost == 0


def test_nothing_counts_after_the_end_of_stream() -> None:
    tracker = SequenceTracker()
    tracker.feed(1000)
    assert tracker.feed(1001, True) == IN_ORDER
    assert tracker.ended
    assert [tracker.feed(1002), tracker.feed(9), tracker.feed(1003, True)] == [AFTER_EOS] * 3
    assert (tracker.received, tracker.after_eos, tracker.lost, tracker.late_or_duplicate) == (2, 3, 0, 0)


def test_an_end_of_stream_ends_it_even_when_its_own_number_is_late() -> None:
    tracker = SequenceTracker()
    tracker.feed(10)
    assert tracker.feed(9, True) == LATE
    assert tracker.feed(11) == AFTER_EOS


def test_loss_and_burst_ratios() -> None:
    tracker = SequenceTracker()
    assert (tracker.loss_ratio, tracker.burst_ratio) == (0.0, 1.0)
    for number in [0, 1, 2, 3, 14, 14]:  # ten in one gap
        tracker.feed(number)
    assert tracker.loss_ratio == pytest.approx(10 / 15)
    assert tracker.burst_ratio == pytest.approx(10 * 5 / 15)


def test_scattered_loss_is_not_called_bursty() -> None:
    tracker = SequenceTracker()
    for number in range(0, 1000, 2):
        tracker.feed(number)
    assert tracker.burst_ratio == 1.0


# -- jitter ---------------------------------------------------------------------------------------------------------


def test_packets_on_time_have_no_jitter_whatever_is_lost() -> None:
    estimator = JitterEstimator()
    for number in (5, 6, 7, 20, 21):
        estimator.feed(number, 1000 + number * 0.020)
    assert estimator.jitter_ms == pytest.approx(0, abs=1e-9)


def test_the_estimate_moves_by_a_sixteenth_of_each_deviation() -> None:
    estimator = JitterEstimator()
    estimator.feed(0, 0.0)
    assert estimator.jitter_ms == 0.0
    estimator.feed(1, 0.036)  # 16 ms late
    assert estimator.jitter_ms == pytest.approx(1.0)
    estimator.feed(2, 0.040)  # on time again: 16 ms less transit
    assert estimator.jitter_ms == pytest.approx(1.0 + 15 / 16)


def test_steady_alternation_is_estimated_at_its_size() -> None:
    estimator = JitterEstimator()
    for number in range(500):
        estimator.feed(number, number * 0.020 + (0.005 if number % 2 else 0.0))
    assert estimator.jitter_ms == pytest.approx(5.0)


def test_a_restart_or_a_wrap_of_the_numbering_is_not_jitter() -> None:
    estimator = JitterEstimator()
    for tick, number in enumerate([2**64 - 1, 0, 1, 10**15, 10**15 + 1, 3, 4]):
        estimator.feed(number, tick * 0.020)
    assert estimator.jitter_ms == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("moment", [math.nan, math.inf, -math.inf])
def test_an_impossible_arrival_time_is_refused_and_spoils_nothing(moment: float) -> None:
    estimator = JitterEstimator()
    estimator.feed(0, 0.0)
    with pytest.raises(ValueError, match="cannot arrive"):
        estimator.feed(1, moment)
    estimator.feed(1, 0.020)
    assert estimator.jitter_ms == pytest.approx(0)


# -- estimated quality ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss_ratio", "one_way_delay_ms", "burst_ratio", "mos"),
    [
        (0.00, 0, 1, 4.41),  # R = 93.2, the default connection of G.107
        (0.00, 100, 1, 4.41),  # up to here delay goes unnoticed
        (0.00, 400, 1, 3.56),  # Idd = 24.1
        (0.01, 0, 1, 3.84),  # Ie,eff = 95 / 5.3
        (0.05, 0, 1, 2.17),  # Ie,eff = 475 / 9.3
        (0.05, 0, 2, 1.36),  # Ie,eff = 475 / 6.8
        (1.00, 0, 1, 1.00),  # nothing heard
        (1.00, 1e9, 9, 1.00),
    ],
)
def test_figures_of_the_e_model(loss_ratio: float, one_way_delay_ms: float, burst_ratio: float, mos: float) -> None:
    estimate = estimate_mos(
        loss_ratio=loss_ratio, one_way_delay_ms=one_way_delay_ms, burst_ratio=burst_ratio, codec=Codec.PCMU
    )
    assert estimate == pytest.approx(mos, abs=0.01)


@pytest.mark.parametrize("wrong", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("name", ["loss_ratio", "one_way_delay_ms", "burst_ratio"])
def test_impossible_figures_are_refused_by_name(name: str, wrong: float) -> None:
    figures = {"loss_ratio": 0.0, "one_way_delay_ms": 0.0, "burst_ratio": 1.0, name: wrong}
    with pytest.raises(ValueError, match=name):
        estimate_mos(codec=Codec.PCMA, **figures)
