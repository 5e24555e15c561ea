"""Where packets end up on the sample clock: on time, late, lost, early, and after an hour."""

from __future__ import annotations

import random
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agentao_trio.audio import AudioFrame, Codec, from_pcm16
from agentao_trio.tracks import Track, Tracks
from agentao_trio.wav import WavFile, read_wav

RATE, PACKET = 8_000, 160


def loud(number: int, samples: int = PACKET) -> bytes:
    """A packet in which every sample is ``1000 + number``, to be recognised by."""
    return struct.pack("<h", 1_000 + number) * samples


def row(samples: bytes) -> list[int]:
    return [level for (level,) in struct.iter_unpack("<h", samples)]


def positions(samples: bytes) -> dict[int, float]:
    """At which second each packet begins."""
    found: dict[int, float] = {}
    for index, level in enumerate(row(samples)):
        if level:
            found.setdefault(level - 1_000, index / RATE)
    return found


def test_slots_are_where_they_were() -> None:
    track = Track(RATE)
    for number in (0, 1, 2, 10):
        track.at(1.0 + number * 0.02, loud(number))
    assert positions(track.take(2.0)) == {0: 1.0, 1: 1.02, 2: 1.04, 10: 1.2}


def test_taking_in_pieces_gives_the_same() -> None:
    def filled() -> Track:
        track = Track(RATE)
        for number in range(60):
            track.at(0.3 + number * 0.02, loud(number))
        return track

    whole, pieces = filled(), filled()
    assert b"".join(pieces.take(until / 10) for until in range(21)) == whole.take(2.0)


def test_jitter_does_not_show() -> None:
    track, dice = Track(RATE), random.Random(1)
    at = 1.0
    for number in range(200):
        at = max(at, 1.0 + number * 0.02 + dice.random() * 0.05)
        track.arrived(at, loud(number))
    heard = positions(track.take(6.0))
    assert heard[0] == pytest.approx(1.0, abs=0.03)
    assert [heard[number] - heard[0] for number in range(200)] == pytest.approx([n * 0.02 for n in range(200)])


def test_a_stall_is_undone_and_a_pause_is_kept() -> None:
    track = Track(RATE)
    for number in range(150):
        sent = 1.0 + number * 0.02 + (1.0 if number >= 100 else 0.0)  # a second of silence
        track.arrived(max(sent, 2.5) if 50 <= number < 100 else sent, loud(number))  # half a second held up
    heard = positions(track.take(9.0))
    assert heard[75] == pytest.approx(2.5, abs=0.001)
    assert heard[60] == pytest.approx(2.2, abs=0.001)
    assert heard[99] == pytest.approx(2.98, abs=0.001)
    assert heard[100] == pytest.approx(4.0, abs=0.001)


def test_lost_packets_leave_a_gap() -> None:
    track = Track(RATE)
    track.arrived(1.0, loud(0))
    track.arrived(1.1, loud(1), seconds_lost=0.08)
    assert positions(track.take(2.0)) == {0: 1.0, 1: 1.1}


def test_what_comes_too_fast_keeps_its_words_and_is_bounded() -> None:
    track = Track(RATE)
    for number in range(5_000):
        track.arrived(1.0, loud(number % 100))
    assert track.dropped > 0
    assert len(track.take(10.0)) == 2 * 10 * RATE


@pytest.mark.parametrize("parts_per_million", [0, 100, -100])
def test_an_hour_does_not_drift(parts_per_million: int) -> None:
    """The far end's clock is off; at the end of the hour its audio is where it was heard."""
    track, packets = Track(RATE), 50 * 3_600
    quiet, beep = bytes(2 * PACKET), loud(0)
    interval = 0.02 * (1 + parts_per_million / 1e6)
    taken, length, last = b"", 0, 0
    for number in range(packets):
        at = 0.05 + number * interval
        track.arrived(at, beep if number % 3_000 == 0 else quiet)
        if number % 50 == 49:
            taken = track.take(at - 1.0)
            if any(taken):
                last = length + next(index for index, level in enumerate(row(taken)) if level)
            length += len(taken) // 2
    length += len(track.take(0.05 + packets * interval)) // 2
    assert length == pytest.approx((0.05 + packets * interval) * RATE, abs=0.07 * RATE)
    heard_at = 0.05 + (packets - 3_000) * interval
    assert last / RATE == pytest.approx(heard_at, abs=0.07)


def test_both_channels() -> None:
    tracks = Tracks(RATE)
    for number in range(10):
        payload = from_pcm16(loud(0), Codec.PCMU)
        tracks.heard(AudioFrame(payload=payload, codec="PCMU", sequence_number=number, lost_before=0), number * 0.02)
        tracks.said(from_pcm16(loud(9_000), Codec.PCMA), Codec.PCMA, 0.1 + number * 0.02)
    samples = tracks.take(0.5) + tracks.finish(1.0)
    left, right = row(samples)[::2], row(samples)[1::2]
    assert len(left) == len(right) == RATE
    assert all(left[:1_600])
    assert not any(left[1_600:])
    assert not any(right[:800])
    assert all(right[800:2_400])
    assert not any(right[2_400:])


def test_other_rates_are_converted_and_other_codecs_counted() -> None:
    tracks = Tracks(16_000)
    for number in range(50):
        frame = AudioFrame(
            payload=from_pcm16(loud(9_000), Codec.PCMU), codec="PCMU", sequence_number=number, lost_before=0
        )
        tracks.heard(frame, number * 0.02)
    tracks.heard(AudioFrame(payload=b"?", codec="OPUS", sequence_number=50, lost_before=0), 1.0)
    left = row(tracks.finish(1.0))[::2]
    assert len(left) == 16_000
    assert sum(level > 9_000 for level in left) == pytest.approx(16_000, abs=700)
    assert tracks.unreadable == 1


def test_a_wav_file_is_readable_after_each_write(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    file = WavFile(path, rate=RATE, channels=2)
    assert read_wav(path.read_bytes()).seconds == 0
    for seconds in (1, 2, 3):
        file.append(struct.pack("<hh", 100, 300) * RATE)
        sound = read_wav(path.read_bytes())
        assert (sound.rate, sound.seconds) == (RATE, seconds)
    assert set(row(sound.samples)) == {200}
    assert file.seconds == 3
    file.close()
    file.close()


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file can be longer meanwhile, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_wav_file_that_cannot_be_begun_leaves_nothing_open(tmp_path: Path) -> None:
    """Python would tell of a file that is still open, or could not be closed: here that is an error."""
    with pytest.raises(OSError, match="too large"), room_for(20):
        WavFile(tmp_path / "call.wav", rate=RATE, channels=2)


@pytest.mark.parametrize("samples", [100, RATE])
def test_what_a_full_disk_did_not_take_is_not_tried_again(samples: int, tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    with room_for(300):
        file = WavFile(path, rate=RATE, channels=2)
        with pytest.raises(OSError, match="too large"):
            file.append(struct.pack("<hh", 100, 300) * samples)
        file.close()
    assert (file.seconds, read_wav(path.read_bytes()).seconds) == (0, 0)


@pytest.mark.parametrize("data", [b"", b"RIFF", b"\0" * 100])
def test_what_is_no_wav_file(data: bytes) -> None:
    with pytest.raises(ValueError, match="WAV"):
        read_wav(data)
