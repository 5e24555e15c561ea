"""The congestion window and the pacer that calls get, event by event."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
from aioquic import tls
from aioquic.quic.congestion.base import create_congestion_control
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicSentPacket

from agentao_trio._engine_congestion import (
    BURST,
    HEADROOM,
    INTERVAL,
    LEAST,
    LEAST_UNDER_LOSS,
    QUEUE,
    REMEMBERED,
    SLACK,
    MediaPacer,
    MediaRate,
    MediaWindow,
)

DATAGRAM = 1200


def controller(name: str = "cubic") -> MediaWindow:
    made = create_congestion_control(f"agentao-{name}", max_datagram_size=DATAGRAM)
    assert isinstance(made, MediaWindow)
    return made


def packets(count: int, sent_time: float) -> list[QuicSentPacket]:
    return [
        QuicSentPacket(
            epoch=tls.Epoch.ONE_RTT,
            in_flight=True,
            is_ack_eliciting=True,
            is_crypto_packet=False,
            packet_number=number,
            packet_type=QuicPacketType.ONE_RTT,
            sent_time=sent_time,
            sent_bytes=DATAGRAM,
        )
        for number in range(count)
    ]


def send(window: MediaWindow, sent: Iterable[QuicSentPacket]) -> None:
    for packet in sent:
        window.on_packet_sent(packet=packet)


def lose(window: MediaWindow, count: int, now: float) -> None:
    lost = packets(count, now)
    send(window, lost)
    window.on_packets_lost(now=now + 0.05, packets=lost)


def speak(window: MediaWindow, per_second: float, now: float, seconds: float, *, carried: float = math.inf) -> float:
    """Media is written and acknowledged, as far as the path carries it. Returns the time afterwards."""
    until = now + seconds
    while now < until:
        window.media.written += round(per_second * 0.02)
        window.media.acknowledged(round(min(per_second, carried) * 0.02))
        window.media.advance(now)
        now += 0.02
    return now


# -- a window that nobody fills ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cubic", "reno"])
def test_a_window_that_nobody_fills_does_not_grow(name: str) -> None:
    window = controller(name)
    before = window.congestion_window
    for each in range(100):
        [packet] = sent = packets(1, each * 0.02)
        send(window, sent)
        window.on_packet_acked(now=each * 0.02 + 0.01, packet=packet)
    assert (window.congestion_window, window.bytes_in_flight) == (before, 0)


@pytest.mark.parametrize("name", ["cubic", "reno"])
def test_a_window_that_is_filled_grows_as_long_as_half_of_it_is_in_use(name: str) -> None:
    window = controller(name)
    before = window.congestion_window
    sent = packets(before // DATAGRAM, 1.0)
    send(window, sent)
    for packet in sent:
        window.on_packet_acked(now=1.01, packet=packet)
    grown_by = window.congestion_window - before
    assert before // 3 < grown_by < before
    assert window.bytes_in_flight == 0


def test_one_call_is_no_pause_to_cubic() -> None:
    window = controller("cubic")
    lose(window, 5, 0.0)
    before = window._window
    for each in range(500):
        now = 0.1 + each * 0.02
        [packet] = sent = packets(1, now)
        send(window, sent)
        window.on_packet_acked(now=now + 0.01, packet=packet)
    assert window._window == before  # after a pause it would begin anew, with ten datagrams


# -- the rate -------------------------------------------------------------------------------------------------------


def test_the_rate_is_what_was_written_and_got_through() -> None:
    window = controller()
    speak(window, 100_000, 100.0, 3.0)
    assert window.media.per_second == pytest.approx(100_000, rel=0.1)
    window = controller()
    speak(window, 100_000, 100.0, 3.0, carried=40_000)
    assert window.media.per_second == pytest.approx(50_000, rel=0.1)


def test_the_rate_is_forgotten_with_the_media() -> None:
    rate = MediaRate()
    rate.advance(100.0)
    rate.written += 10_000
    rate.acknowledged(10_000)
    rate.advance(100.0 + INTERVAL)
    assert rate.per_second == pytest.approx(10_000 / INTERVAL)
    for number in range(2, 10):
        rate.advance(100.0 + number * INTERVAL)
    assert rate.per_second == 0


# -- the window -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reno", "cubic"])
def test_losses_do_not_take_the_window_that_the_media_needs(name: str) -> None:
    window = controller(name)
    now = speak(window, 1_300_000, 100.0, 2.0)  # a hundred calls
    window.on_rtt_measurement(now=now, rtt=0.040)
    for number in range(50):
        lose(window, 2, now + number)
    needed = 1_300_000 * 0.040
    assert needed < window.congestion_window < 3 * needed
    assert window.congestion_window == pytest.approx(1_300_000 * (0.040 + SLACK) * HEADROOM, rel=0.1)
    assert window.packets_lost == 100


@pytest.mark.parametrize("name", ["reno", "cubic"])
def test_bulk_data_has_no_floor_but_a_first_window(name: str) -> None:
    window = controller(name)
    window.on_rtt_measurement(now=100.0, rtt=0.040)
    for number in range(50):
        lose(window, 2, 100.0 + number)
    assert window.congestion_window == LEAST_UNDER_LOSS


def test_the_floor_settles_at_what_the_path_carries() -> None:
    """Three times as much is said as the path carries; the writers shed, and the floor goes down with them."""
    window = controller()
    window.on_rtt_measurement(now=100.0, rtt=0.040)
    now, written, carried = 100.0, 300_000.0, 100_000.0
    for _ in range(10):
        now = speak(window, written, now, 1.0, carried=carried)
        written = max(carried, 0.7 * written)
    assert window.floor <= 1.3 * carried * (0.040 + SLACK) * HEADROOM


def test_a_queue_in_front_of_the_path_takes_the_window_back() -> None:
    window = controller()
    window.congestion_window = 100 * DATAGRAM
    now = 100.0
    window.on_rtt_measurement(now=now, rtt=0.040)
    send(window, packets(30, now))
    for _ in range(10):
        now += 0.5
        window.on_rtt_measurement(now=now, rtt=0.040 + 3 * QUEUE)
    expected = 30 * DATAGRAM * (0.040 + QUEUE) / (0.040 + 3 * QUEUE)
    assert window.congestion_window == pytest.approx(max(expected, LEAST), rel=0.01)


def test_an_end_that_stands_still_for_a_moment_is_no_queue() -> None:
    """All that was acknowledged meanwhile is read at one moment, the oldest first."""
    window = controller()
    now = 100.0
    window.on_rtt_measurement(now=now, rtt=0.001)
    before = window.congestion_window
    for _ in range(20):
        now += 0.2
        for rtt in (0.2, 0.15, 0.1, 0.07, 0.002):
            window.on_rtt_measurement(now=now, rtt=rtt)
    assert window.congestion_window >= before


def test_the_window_comes_back_when_the_queue_has_gone() -> None:
    window = controller()
    now = 100.0
    window.on_rtt_measurement(now=now, rtt=0.040)
    send(window, packets(10, now))
    for late in (0.4, 0.5):
        window.on_rtt_measurement(now=now + late, rtt=0.040 + 3 * QUEUE)
    low = window.congestion_window
    now += 1.0
    for _ in range(100):
        now += 0.041
        window.on_rtt_measurement(now=now, rtt=0.040)
    assert low < LEAST_UNDER_LOSS <= window.congestion_window


def test_on_the_slowest_path_a_few_datagrams_may_always_be_on_their_way() -> None:
    window = controller()
    window.on_rtt_measurement(now=100.0, rtt=0.010)
    window.on_rtt_measurement(now=101.0, rtt=5.0)
    window.on_rtt_measurement(now=101.1, rtt=5.0)
    assert window.congestion_window == LEAST


def round_trips(window: MediaWindow, rtt: float, now: float, seconds: float) -> float:
    until = now + seconds
    while now < until:
        window.on_rtt_measurement(now=now, rtt=rtt)
        now += rtt
    return now


def test_a_path_that_has_become_longer_is_measured_anew() -> None:
    """Another route, 160 ms longer: at first it looks like a queue, and would for ever."""
    window = controller()
    now = round_trips(window, 0.040, 100.0, 5.0)
    window.media.per_second = 100_000.0
    now = round_trips(window, 0.200, now, REMEMBERED + 0.3)
    assert window.congestion_window == LEAST  # to see whether it is a queue of ours
    now = round_trips(window, 0.200, now, 1.0)
    assert window.congestion_window >= 100_000 * 0.200


def test_a_queue_is_not_taken_for_the_path() -> None:
    window = controller()
    now = round_trips(window, 0.040, 100.0, 5.0)
    window.media.per_second = 100_000.0
    now = round_trips(window, 0.130, now, REMEMBERED + 0.2)
    assert window.congestion_window == LEAST
    now = round_trips(window, 0.045, now, 0.3)  # it goes away while nothing is sent
    assert window.congestion_window > LEAST
    assert window.floor == int(100_000 * (0.045 + SLACK) * HEADROOM)


# -- the pacer ------------------------------------------------------------------------------------------------------


def burst(pacer: MediaPacer, now: float) -> int:
    """How many datagrams may leave at one moment."""
    count = 0
    while pacer.next_send_time(now=now) is None:
        pacer.update_after_send(now=now)
        count += 1
    return count


@pytest.mark.parametrize(("calls", "least"), [(0, 1), (100, 8), (800, 80)])
def test_what_one_phase_of_the_clock_writes_leaves_at_once(calls: int, least: int) -> None:
    window = controller()
    now = speak(window, calls * 13_000, 100.0, 2.0)
    window.on_rtt_measurement(now=now, rtt=0.040)
    pacer = MediaPacer(window.media, max_datagram_size=DATAGRAM)
    pacer.update_rate(window.congestion_window, 0.040)
    pacer.next_send_time(now=now)
    assert burst(pacer, now + 1.0) >= max(least, int(calls * 13_000 * BURST / DATAGRAM * 0.9))


def test_bulk_data_is_spread_as_before() -> None:
    pacer = MediaPacer(MediaRate(), max_datagram_size=DATAGRAM)
    pacer.update_rate(1_000_000, 0.040)
    pacer.next_send_time(now=100.0)
    assert burst(pacer, 101.0) <= 17
