"""Where the time of our client goes: samples that py-spy takes from outside, by the room the program is in.

A sampler within the process is driven by the kernel's tick, which also rings the alarms that a program sleeps for, and
so finds it where it wakes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.contest import Contest
from benchmarks.row import Row

__all__ = ["measure", "rooms_of"]

#: Samples a second: a prime, so that they do not keep step with the packets.
RATE = 997

#: Rooms by a part of a function's place as py-spy writes it; the first that fits.
ROOMS = (
    ("aioquic/_crypto", "encryption and decryption"),
    ("aioquic/quic/crypto", "encryption and decryption"),
    ("aioquic/quic/recovery", "QUIC: acknowledgements and congestion"),
    ("aioquic/quic/congestion", "QUIC: acknowledgements and congestion"),
    ("aioquic/quic/rangeset", "QUIC: acknowledgements and congestion"),
    ("_engine_congestion", "QUIC: acknowledgements and congestion"),
    ("aioquic/", "QUIC: packets and streams (aioquic)"),
    ("agentao_trio/_engine", "QUIC: packets and streams (ours)"),
    ("agentao_trio/_datagrams", "sockets"),
    ("agentao_trio/_connection", "transport"),
    ("agentao_trio/_streams", "transport"),
    ("agentao_trio/audio_frames", "codec"),
    ("agentao_trio/wire", "codec"),
    ("agentao_trio/", "calls: clock, queues, statistics"),
    ("trio/", "trio: scheduling and waiting"),
    ("outcome/", "trio: scheduling and waiting"),
    ("generated methods trio", "trio: scheduling and waiting"),
    ("generated methods outcome", "trio: scheduling and waiting"),
    ("benchmarks/", "the program itself"),
)


def rooms_of(samples: Iterable[str]) -> Counter[str]:
    """Samples by room, out of py-spy's raw format: ``outermost;…;innermost count`` on each line. What belongs to no
    room counts for its caller; measuring the floor, which the client does beside talking, does not count."""
    rooms: Counter[str] = Counter()
    for sample in samples:
        stack, _, count = sample.rpartition(" ")
        # py-spy does not stop the client to look, and may find a name of which a part is something else by now.
        if "benchmarks/floor" in stack or not count.isdecimal():
            continue
        places = reversed(stack.split(";"))
        rooms[next((room for place in places for part, room in ROOMS if part in place), "elsewhere")] += int(count)
    return rooms


def measure(contest: Contest, *, quick: bool) -> Iterator[Row]:
    """Where the client's CPU time goes, by room."""
    py_spy = shutil.which("py-spy", path=os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"])))
    if py_spy is None:
        yield Row(group="profile", name="where the time goes", missing="py-spy is not installed")
        return
    calls, seconds = (10, 2.0) if quick else (200, 10.0)
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory, "samples")
        options = ("--rate", str(RATE), "--nonblocking", "--duration", "unlimited", "--format", "raw")
        client = contest.start("benchmarks.trio_client", str(calls), str(seconds), "agentao")
        try:
            command = [py_spy, "record", *options, "--output", str(output), "--pid", str(client.pid)]
            watched = subprocess.run(command, capture_output=True, text=True, timeout=60 + 3 * seconds)
        finally:
            client.kill()
            client.wait()
        if not output.exists():
            last = watched.stderr.strip().splitlines()[-1:]
            yield Row(group="profile", name="where the time goes", missing=f"py-spy: {''.join(last)}")
            return
        rooms = rooms_of(output.read_text().splitlines())
    for room, count in rooms.most_common():
        share = 100 * count / rooms.total()
        yield Row(group="profile", name=room, value=share, unit=" %", text=f"of the CPU time at {calls} calls")
