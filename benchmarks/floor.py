"""What one frame costs at the very least, piece by piece, in the process that asks.

A frame that is sent has to be encoded, encrypted and handed to the kernel; one that is received comes back the same
way, and has to be cut out of its stream; either has a task to wake. Encryption and system calls are per datagram, which
is as large as loopback carries, as the client's are. Everything above the sum is what QUIC, trio and we make of it.

A program of calls sleeps some hundred times a second, and a processor that has slept is slow for a while: its caches
are others' by then, and so is its clock. The same work takes up to twice as long in bursts as it does in a loop. So the
floor is measured in the bursts that calls come in, and in a loop that never sleeps beside it.
"""

from __future__ import annotations

import socket
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import trio
import trio.testing
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicProtocolVersion

from agentao_trio.audio_frames import FrameTemplate
from agentao_trio.pacing import PACKET_INTERVAL
from agentao_trio.transport import TransportSettings
from agentao_trio.wire import FrameDecoder
from benchmarks.codec import AUDIO, AUDIO_FRAME, SID

DATAGRAM = TransportSettings().max_datagram_size
#: A packet's header and tag take 27 bytes, a frame's STREAM header 9.
FRAMES_PER_DATAGRAM = (DATAGRAM - 27) // (len(AUDIO_FRAME) + 9)
#: A burst is about a quarter of 400 calls, which have four deadlines in 20 ms: as many frames as fill three datagrams.
DATAGRAMS = 3
FRAMES = DATAGRAMS * FRAMES_PER_DATAGRAM
#: Seconds from a burst to the next: of what is said at a deadline, and of what is heard of it.
RHYTHM = PACKET_INTERVAL / 8
#: Bursts of either kind.
TURNS = 150


@attrs.frozen(kw_only=True)
class Floor:
    """CPU seconds: of a datagram for the first four, of a frame for the others."""

    encrypt: float
    decrypt: float
    send: float
    receive: float
    encode: float
    split: float
    wake: float

    @property
    def per_frame_event(self) -> float:
        """CPU seconds for a frame sent or received, on average of the two."""
        datagram = (self.encrypt + self.decrypt + self.send + self.receive) / 2
        return datagram / FRAMES_PER_DATAGRAM + (self.encode + self.split) / 2 + self.wake


class _Meter:
    """CPU seconds by piece."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, piece: str) -> Iterator[None]:
        began = time.process_time()
        yield
        self.spent[piece] += time.process_time() - began


class _Sleepers:
    """The tasks of a burst's calls."""

    def __init__(self) -> None:
        self._asleep: list[trio.lowlevel.Task] = []

    async def sleep(self) -> None:
        while True:
            self._asleep.append(trio.lowlevel.current_task())
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)

    async def wake(self) -> None:
        """Wake them all, and wait until they sleep again."""
        together = self._asleep[:]
        self._asleep.clear()
        for task in together:
            trio.lowlevel.reschedule(task)
        while len(self._asleep) < FRAMES:  # a batch is run in either direction, so that we may come before them
            await trio.lowlevel.checkpoint()


def measure_floor(rhythm: float = RHYTHM) -> Floor:
    """Every piece, on average over bursts that are ``rhythm`` seconds apart; with 0 they follow each other at once."""
    return trio.run(_measure, rhythm)


async def _measure(rhythm: float) -> Floor:
    cid = bytes(8)
    client, server = CryptoPair(), CryptoPair()
    client.setup_initial(cid, is_client=True, version=QuicProtocolVersion.VERSION_1)
    server.setup_initial(cid, is_client=False, version=QuicProtocolVersion.VERSION_1)
    header, payload = b"\x41" + cid + b"\x00\x01", bytes(DATAGRAM - 11 - 16)
    packet = client.encrypt_packet(header, payload, 1)
    template, stream = FrameTemplate(SID, "PCMU"), AUDIO_FRAME * FRAMES_PER_DATAGRAM
    decoder, sleepers, meter = FrameDecoder(), _Sleepers(), _Meter()

    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far,
    ):
        for each in (here, far):
            each.bind(("127.0.0.1", 0))
        here.connect(far.getsockname())

        async def say() -> None:
            with meter("encode"):
                for _ in range(FRAMES):
                    template.frame(AUDIO.payload, 1)
            with meter("encrypt"):
                for _ in range(DATAGRAMS):
                    client.encrypt_packet(header, payload, 1)
            with meter("send"):
                for _ in range(DATAGRAMS):
                    here.send(packet)
            with meter("wake"):
                await sleepers.wake()

        async def hear() -> None:
            with meter("receive"):
                for _ in range(DATAGRAMS):
                    far.recv(DATAGRAM)
            with meter("decrypt"):
                for _ in range(DATAGRAMS):
                    server.decrypt_packet(packet, 9, 1)
            with meter("split"):
                for _ in range(DATAGRAMS):
                    decoder.feed(stream)
            with meter("wake"):
                await sleepers.wake()

        async with trio.open_nursery() as nursery:
            for _ in range(FRAMES):
                nursery.start_soon(sleepers.sleep)
            await trio.testing.wait_all_tasks_blocked()
            due = trio.current_time()
            for _ in range(TURNS):
                for burst in (say, hear):
                    due += rhythm
                    await trio.sleep_until(due)
                    await burst()
            nursery.cancel_scope.cancel()

    each_of = dict.fromkeys(("encrypt", "send", "receive", "decrypt"), DATAGRAMS)
    each_of |= {"encode": FRAMES, "split": FRAMES, "wake": 2 * FRAMES}
    return Floor(**{piece: meter.spent[piece] / (TURNS * count) for piece, count in each_of.items()})
