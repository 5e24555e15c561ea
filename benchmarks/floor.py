"""What one frame costs at the very least, piece by piece, in the process that asks.

A frame that is sent has to be encoded, encrypted and handed to the kernel; one that is received comes back the same
way, and has to be cut out of its stream; either has a task to wake. Encryption and system calls are per datagram, which
is as large as loopback carries, as the client's are. Everything above the sum is what QUIC, trio and we make of it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import attrs
import trio
import trio.testing
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicProtocolVersion

from agentao_trio.audio_frames import FrameTemplate
from agentao_trio.transport import TransportSettings
from agentao_trio.wire import FrameDecoder
from benchmarks.codec import AUDIO, AUDIO_FRAME, SID

DATAGRAM = TransportSettings().max_datagram_size
#: A packet's header and tag take 27 bytes, a frame's STREAM header 9.
FRAMES_PER_DATAGRAM = (DATAGRAM - 27) // (len(AUDIO_FRAME) + 9)
#: CPU seconds that a piece is measured for, and turns between two looks at the clock.
PIECE, TURNS = 0.1, 500
#: Tasks that are woken together: the calls of one phase of the packet clock.
SLEEPERS = 50


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


def _cpu_each(work: Callable[[], object]) -> float:
    """CPU seconds of one ``work``, on average.

    What is divided by the floor is an average over seconds, too. The best of many short windows would be a good
    moment's cost, and a machine that others use as well has moments twice as good as the next.
    """
    turns, began = 0, time.process_time()
    while (spent := time.process_time() - began) < PIECE:
        for _ in range(TURNS):
            work()
        turns += TURNS
    return spent / turns


async def measure_floor() -> Floor:
    """Every piece on its own, for most of a second in all."""
    cid = bytes(8)
    client, server = CryptoPair(), CryptoPair()
    client.setup_initial(cid, is_client=True, version=QuicProtocolVersion.VERSION_1)
    server.setup_initial(cid, is_client=False, version=QuicProtocolVersion.VERSION_1)
    header, payload = b"\x41" + cid + b"\x00\x01", bytes(DATAGRAM - 11 - 16)
    packet = client.encrypt_packet(header, payload, 1)

    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far,
    ):
        for each in (here, far):
            each.bind(("127.0.0.1", 0))
        here.connect(far.getsockname())

        def there_and_back() -> None:
            here.send(packet)
            far.recv(DATAGRAM)

        def send_only() -> None:
            here.send(packet)

        both = _cpu_each(there_and_back)
        far.close()  # nobody to receive: what is left is the sending half, without a full buffer in the way
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
            sink.bind(("127.0.0.1", 0))
            here.connect(sink.getsockname())
            send = _cpu_each(send_only)

    template, stream = FrameTemplate(SID, "PCMU"), AUDIO_FRAME * FRAMES_PER_DATAGRAM
    decoder = FrameDecoder()
    return Floor(
        encrypt=_cpu_each(lambda: client.encrypt_packet(header, payload, 1)),
        decrypt=_cpu_each(lambda: server.decrypt_packet(packet, 9, 1)),
        send=send,
        receive=max(both - send, 0.0),
        encode=_cpu_each(lambda: template.frame(AUDIO.payload, 1)),
        split=_cpu_each(lambda: decoder.feed(stream)) / FRAMES_PER_DATAGRAM,
        wake=await _wake(),
    )


async def _wake() -> float:
    """Waking a task, which is scheduled with others and sleeps again."""
    asleep: list[trio.lowlevel.Task] = []

    async def sleeper() -> None:
        while True:
            asleep.append(trio.lowlevel.current_task())
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)

    woken = 0
    async with trio.open_nursery() as nursery:
        for _ in range(SLEEPERS):
            nursery.start_soon(sleeper)
        await trio.testing.wait_all_tasks_blocked()
        began = time.process_time()
        while (spent := time.process_time() - began) < PIECE:
            together = asleep[:]
            asleep.clear()
            for task in together:
                trio.lowlevel.reschedule(task)
            while len(asleep) < SLEEPERS:  # a batch is run in either direction, so that we may come before them
                await trio.lowlevel.checkpoint()
            woken += SLEEPERS
        nursery.cancel_scope.cancel()
    return spent / woken
