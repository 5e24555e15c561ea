"""Where the time of the client goes: a sample every millisecond of its CPU time, by the room the program is in.

    python -m benchmarks.profile_client PORT CA_FILE CALLS SECONDS

Prints {room: share} as JSON. The interpreter looks for signals between Python functions, so that a long call into C
counts for the next function: encryption and system calls show with their callers.
"""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import trio

from agentao_trio import ClientTLS, open_session
from benchmarks.trio_client import run

INTERVAL = 0.001

#: Rooms by a part of the path of the file that the program is in; the first that fits.
ROOMS = (
    ("aioquic/quic/crypto", "encryption and decryption"),
    ("aioquic/quic/recovery", "QUIC: acknowledgements and congestion"),
    ("aioquic/quic/congestion", "QUIC: acknowledgements and congestion"),
    ("aioquic/quic/rangeset", "QUIC: acknowledgements and congestion"),
    ("_engine_congestion", "QUIC: acknowledgements and congestion"),
    ("aioquic/", "QUIC: packets and streams (aioquic)"),
    ("agentao_trio/_engine", "QUIC: packets and streams (ours)"),
    ("agentao_trio/_datagrams", "sockets"),
    ("socket.py", "sockets"),
    ("agentao_trio/_connection", "transport"),
    ("agentao_trio/_streams", "transport"),
    ("agentao_trio/audio_frames", "codec"),
    ("agentao_trio/wire", "codec"),
    ("agentao_trio/", "calls: clock, queues, statistics"),
    ("<attrs", "calls: clock, queues, statistics"),
    ("trio/_channel", "trio: channels"),
    ("trio/", "trio: scheduling and waiting"),
    ("outcome/", "trio: scheduling and waiting"),
    ("benchmarks/", "the program itself"),
)


def room_of(frame: FrameType | None) -> str:
    """The room of the innermost function that belongs to one."""
    while frame is not None:
        for part, room in ROOMS:
            if part in frame.f_code.co_filename:
                return room
        frame = frame.f_back
    return "elsewhere"


@contextmanager
def sampling(samples: Counter[str]) -> Iterator[None]:
    """Count samples by room while the block runs."""

    def sample(signum: int, frame: FrameType | None) -> None:
        samples[room_of(frame)] += 1

    before = signal.signal(signal.SIGPROF, sample)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


async def main(port: str, ca_file: str, calls: str, seconds: str) -> None:
    samples: Counter[str] = Counter()
    tls = ClientTLS(ca=ca_file, server_name="localhost")
    async with open_session(f"quic://127.0.0.1:{port}", tls=tls) as session:
        with sampling(samples):
            await run(session, int(calls), float(seconds))
    whole = sum(samples.values())
    print(json.dumps({room: count / whole for room, count in samples.most_common()}))


if __name__ == "__main__":
    port, ca_file, calls, seconds = sys.argv[1:]
    trio.run(main, port, ca_file, calls, seconds)
