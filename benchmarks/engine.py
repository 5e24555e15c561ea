"""The QUIC engine without sockets: what a frame costs to send and to receive, and what it would cost at the least.

Two engines talk in memory; time moves when it is told to. Each function measures the CPU time of this process and fails
if anything is left unsent, since a sender that falls behind looks fast.
"""

from __future__ import annotations

import gc
import time
from typing import Literal

import attrs
from aioquic.quic.stream import QuicStreamSender

from agentao_trio._engine import (
    ClientTLS,
    FrontDoor,
    ServerTLS,
    StockEngine,
    TransportSettings,
    backlog,
    client_configuration,
    events,
    new_engine,
    server_configuration,
)

__all__ = ["EngineCost", "Wire", "cost_per_frame"]

#: Bytes of one frame of PCMU with everything around it (PROTOCOL section 11), and seconds between two of one call.
FRAME, PTIME = 260, 0.020
PHASES = 4
#: Seconds one way.
DELAY = 0.005


@attrs.frozen(kw_only=True)
class EngineCost:
    """CPU seconds per frame, acknowledgements included: at the end that sends it, and at the one that receives it."""

    streams: int
    sender: float
    receiver: float
    frames_per_datagram: float


class Wire:
    """A client's and a server's engine, connected, and the way between them: :data:`DELAY` seconds, nothing lost."""

    def __init__(self, engine: Literal["agentao", "stock"] = "agentao", *, streams: int = 2000) -> None:
        settings = TransportSettings(engine=engine, max_inbound_streams=streams)
        certificate, key = _certificate()
        self.now = 1000.0
        self.client_cpu = self.server_cpu = 0.0
        self.datagrams = 0
        self._to_server: list[tuple[float, bytes]] = []
        self._to_client: list[tuple[float, bytes]] = []
        self.client = new_engine(
            settings, client_configuration(settings, ClientTLS(ca=certificate), "gateway.test", None)
        )
        self.client.connect(("server", 1), self.now)
        door = FrontDoor(
            settings,
            server_configuration(settings, ServerTLS(certificate_chain_pem=certificate, private_key_pem=key)),
        )
        first, _ = self.client.datagrams_to_send(self.now)[0]
        packet = door.read(first)
        assert packet is not None
        server = door.receive(packet, ("client", 1), self.now, suspicious=False)
        assert isinstance(server, StockEngine)
        self.server = server
        self._to_server.append((self.now, first))
        self.run(1.0)
        assert self.client.end is None

    def run(self, seconds: float) -> None:
        """Let time pass. Both ends are asked whenever there is something for them, and not more often."""
        until = self.now + seconds
        self.step()
        while (due := self._next()) < until:
            self.now = max(due, self.now + 1e-6)
            self.step()
        self.now = until

    def _next(self) -> float:
        timers = [engine.timer for engine in (self.client, self.server) if engine.timer is not None]
        return min(*timers, *(at for at, _ in (*self._to_server[:1], *self._to_client[:1])))

    def step(self) -> None:
        """What happens now."""
        began = time.process_time()
        self._hear(self.client, self._to_client, ("server", 1))
        sent = self.client.datagrams_to_send(self.now)
        between = time.process_time()
        self._to_server += [(self.now + DELAY, data) for data, _ in sent]
        self.datagrams += len(sent)
        self._hear(self.server, self._to_server, ("client", 1))
        self._to_client += [(self.now + DELAY, data) for data, _ in self.server.datagrams_to_send(self.now)]
        self.client_cpu += between - began
        self.server_cpu += time.process_time() - between

    def _hear(self, engine: StockEngine, arriving: list[tuple[float, bytes]], source: tuple[str, int]) -> None:
        due = sum(at <= self.now for at, _ in arriving)
        for _, data in arriving[:due]:
            engine.receive_datagram(data, source, self.now)
        del arriving[:due]
        if engine.timer is not None and engine.timer <= self.now:
            engine.handle_timer(self.now)
        while (event := engine.next_event()) is not None:
            if isinstance(event, events.StreamDataReceived):
                engine.consumed(event.stream_id, len(event.data), 0)


def cost_per_frame(
    streams: int, seconds: float = 1.0, *, engine: Literal["agentao", "stock"] = "agentao"
) -> EngineCost:
    """``streams`` calls send a frame every 20 ms, a quarter of them at a time, each on its own stream."""
    wire = Wire(engine)
    senders = [_open(wire.client) for _ in range(streams)]
    frame = bytes(FRAME)
    frames = 0

    def speak(seconds: float) -> None:
        nonlocal frames
        for tick in range(round(seconds / PTIME * PHASES)):
            began = time.process_time()
            for sender in senders[tick % PHASES :: PHASES]:
                wire.client.media.written += len(frame)
                sender.write(frame)
                frames += 1
            wire.client_cpu += time.process_time() - began
            wire.run(PTIME / PHASES)

    speak(0.5)  # until the windows have opened
    gc.collect()
    wire.client_cpu = wire.server_cpu = wire.datagrams = frames = 0
    speak(seconds)
    cost = EngineCost(
        streams=streams,
        sender=wire.client_cpu / frames,
        receiver=wire.server_cpu / frames,
        frames_per_datagram=frames / wire.datagrams,
    )
    behind = sum(map(backlog, senders))
    assert behind <= streams * FRAME, f"{behind} bytes have not arrived: the sender fell behind"
    wire.run(0.2)
    assert wire.client.is_drained()
    return cost


def _open(engine: StockEngine) -> QuicStreamSender:
    stream_id = engine.open_stream(unidirectional=True)
    assert stream_id is not None
    return engine.sender(stream_id)


def _certificate() -> tuple[bytes, bytes]:
    import trustme

    authority = trustme.CA()
    leaf = authority.issue_cert("gateway.test")
    return leaf.cert_chain_pems[0].bytes() + authority.cert_pem.bytes(), leaf.private_key_pem.bytes()
