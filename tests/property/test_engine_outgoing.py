"""The sending half of a stream and the builder of its packets, against a naive model and against aioquic's own.

The model of a stream is what was written to it, and which of its bytes have arrived; the network acknowledges or loses
packets in any order.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from aioquic._buffer import Buffer
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicFrameType, QuicPacketType, QuicProtocolVersion, pull_quic_header
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder, QuicPacketBuilderStop, QuicSentPacket
from aioquic.quic.stream import QuicStream
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agentao_trio._engine_outgoing import LEAST_CUT, Outgoing, PacketBuilder
from tests.support.engines import examples

CID = bytes(range(8))
GIGABYTE = 1 << 30


def keys() -> tuple[CryptoPair, CryptoPair]:
    """Of a client and of a server."""
    pairs = CryptoPair(), CryptoPair()
    for pair, is_client in zip(pairs, (True, False), strict=True):
        pair.setup_initial(CID, is_client=is_client, version=QuicProtocolVersion.VERSION_1)
    return pairs


def builder_of(kind: type[QuicPacketBuilder], crypto: CryptoPair, number: int, **options: Any) -> Any:
    made_of = {"host_cid": bytes(8), "peer_cid": CID, "version": 1, "is_client": True, "max_datagram_size": 1200}
    made_of |= {"packet_number": number} | options
    return kind(crypto, **made_of) if kind is PacketBuilder else kind(**made_of)  # type: ignore[arg-type]


def opened(crypto: CryptoPair, datagram: bytes, expected: int) -> tuple[bytes, bytes, int]:
    buffer = Buffer(data=datagram)
    header = pull_quic_header(buffer, host_cid_length=8)
    assert header.packet_type is QuicPacketType.ONE_RTT
    assert header.destination_cid == CID
    first, payload, number = crypto.decrypt_packet(datagram, buffer.tell(), expected)
    return first, payload, number


def stream_frames(payload: bytes) -> list[tuple[int, int, bytes, bool]]:
    """The STREAM frames of a packet, read by hand: stream, offset, data, FIN."""
    buffer, frames = Buffer(data=payload), []
    while not buffer.eof():
        kind = buffer.pull_uint_var()
        assert kind & 0xF8 == QuicFrameType.STREAM_BASE
        stream_id = buffer.pull_uint_var()
        start = buffer.pull_uint_var() if kind & 4 else 0
        size = buffer.pull_uint_var() if kind & 2 else len(payload) - buffer.tell()
        frames.append((stream_id, start, buffer.pull_bytes(size), bool(kind & 1)))
    return frames


# -- the sending half of a stream -----------------------------------------------------------------------------------


class Naive:
    """A stream as its program sees it: bytes, of which some have arrived."""

    def __init__(self, stream_id: int, base: int, credit: int) -> None:
        self.base = base  # nobody can write a gigabyte in a test, so the counters begin there
        self.stream = QuicStream(stream_id, max_stream_data_remote=base + credit)
        self.talkative: dict[QuicStream, bool] = {}
        self.sender = self.stream.sender = Outgoing(self.stream, self.talkative)
        self.sender._buffer_start = self.sender._buffer_stop = self.sender.highest_offset = base
        self.written = bytearray()
        self.fin = False
        self.reset = False
        self.acked: set[int] = set()
        self.acked_fin = False
        self.carried = 0  # how much of it a packet has carried at least once
        self.arrived: dict[int, int] = {}
        self.arrived_fin = False


class Sending(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ours, self.theirs = keys()
        self.number = 0
        self.in_flight: dict[int, QuicSentPacket] = {}
        self.remote_max_data = 0
        self.used = 0
        self.dice = random.Random(0)

    @initialize(
        base=st.sampled_from([0, 0, 0, 0, 16_000, GIGABYTE - 1, GIGABYTE - 700, GIGABYTE, 2**62 - 20_000]),
        credit=st.sampled_from([0, 3_000, 100_000, 100_000]),
        all_credit=st.sampled_from([0, 5_000, 100_000, 100_000]),
    )
    def begin(self, base: int, credit: int, all_credit: int) -> None:
        self.streams = [Naive(2, base, credit), Naive(400_002, 0, credit)]
        self.remote_max_data = all_credit

    # -- the program

    @rule(which=st.integers(0, 1), size=st.sampled_from([0, 1, 20, 250, 599, 601, 1_150, 1_300, 4_000]))
    def write(self, which: int, size: int) -> None:
        s = self.streams[which]
        if s.fin or s.reset:
            with pytest.raises(RuntimeError):
                s.sender.write(b"x")
        else:
            data = self.dice.randbytes(size)
            given = bytearray(data)
            s.sender.write(given)  # type: ignore[arg-type]
            given[:] = bytes(size)  # what the program does to it afterwards is its own affair
            s.written += data

    @precondition(lambda self: self.dice.random() < 0.2)
    @rule(which=st.integers(0, 1), size=st.sampled_from([0, 0, 5, 700]))
    def finish(self, which: int, size: int) -> None:
        s = self.streams[which]
        if not (s.fin or s.reset):
            data = self.dice.randbytes(size)
            s.sender.write(data, end_stream=True)
            s.written += data
            s.fin = True

    @precondition(lambda self: self.dice.random() < 0.2)
    @rule(which=st.integers(0, 1))
    def reset(self, which: int) -> None:
        s = self.streams[which]
        s.sender.reset(5)
        s.reset = s.reset or not s.sender.is_finished

    # -- the peer

    @rule(which=st.integers(0, 1), more=st.sampled_from([1, 30, 600, 5_000]))
    def raise_limits(self, which: int, more: int) -> None:
        self.streams[which].stream.max_stream_data_remote += more
        self.remote_max_data += more

    @precondition(lambda self: self.dice.random() < 0.3)
    @rule(which=st.integers(0, 1), blocked=st.booleans())
    def forbid(self, which: int, blocked: bool) -> None:
        self.streams[which].stream.is_blocked = blocked

    # -- the network

    @rule(
        room=st.one_of(st.sampled_from([1200, 1200, 900, 650, 640, 627, 12, 0, -100]), st.integers(30, 80)),
        limit=st.booleans(),
    )
    def send(self, room: int, limit: bool) -> None:
        """A packet of at most ``room`` bytes, be it the congestion window's or a new address's limit."""
        builder = builder_of(PacketBuilder, self.ours, self.number)
        if limit:
            builder.max_total_bytes = room
        else:
            builder.max_flight_bytes = room
        if not builder.begin():
            assert limit
            assert room <= 11
            return
        wrote = []
        for s in self.streams:
            sender, stream = s.sender, s.stream
            if sender.buffer_is_empty:
                continue
            before, reached = builder._buffer.tell(), sender.highest_offset
            used = sender.write_new(builder, self.remote_max_data - self.used)
            is_all = used > 0
            if not is_all:
                is_all, used = sender.write_frames(builder, self.remote_max_data - self.used)
            self.used += used
            assert self.used <= self.remote_max_data
            assert sender.highest_offset <= stream.max_stream_data_remote
            assert sender.highest_offset == reached or not stream.is_blocked
            wrote.append((s, builder._buffer.tell() - before))
            if is_all:
                assert not list(sender._pending), "what was lost needs no credit"
                s.talkative.pop(stream, None)
                allowed = min(stream.max_stream_data_remote, sender.highest_offset + self.remote_max_data - self.used)
                if not stream.is_blocked:
                    assert sender.highest_offset == min(allowed, sender._buffer_stop)
                    assert sender.buffer_is_empty == (sender.highest_offset == sender._buffer_stop)
            else:
                assert builder._flight_capacity - 16 - builder._buffer.tell() < LEAST_CUT + 20
                break
        if builder.end():
            (datagram,), (packet,) = builder.flush()
            assert len(datagram) <= min(1200, room)
            assert packet.sent_bytes == len(datagram)
            assert packet.in_flight
            assert packet.is_ack_eliciting
            self._carried(datagram)
            self.in_flight[self.number] = packet
            self.number += 1
            assert builder.packet_number == self.number
        else:
            assert sum(size for _, size in wrote) == 0
            assert builder.flush() == ([], [])

    def _carried(self, datagram: bytes) -> None:
        _, payload, number = opened(self.theirs, datagram, self.number)
        assert number == self.number
        self.payloads = getattr(self, "payloads", {})
        self.payloads[number] = stream_frames(payload)
        for stream_id, start, data, fin in self.payloads[number]:
            (s,) = (s for s in self.streams if s.stream.stream_id == stream_id)
            at = start - s.base
            assert data == s.written[at : at + len(data)]
            assert at <= s.carried, "a gap"
            s.carried = max(s.carried, at + len(data))
            assert not s.reset
            assert not fin or (s.fin and at + len(data) == len(s.written))
            assert data or fin

    @precondition(lambda self: self.in_flight)
    @rule(which=st.integers(0, 5), arrives=st.sampled_from([True, True, True, False]), late=st.booleans())
    def decide(self, which: int, arrives: bool, late: bool) -> None:
        """A packet arrives and is acknowledged, or it counts as lost; ``late``: though it has arrived."""
        number = list(self.in_flight)[min(which, len(self.in_flight) - 1)]
        packet = self.in_flight.pop(number)
        for stream_id, start, data, fin in self.payloads[number]:
            (s,) = (s for s in self.streams if s.stream.stream_id == stream_id)
            if arrives or late:
                s.arrived |= {start - s.base + i: byte for i, byte in enumerate(data)}
                s.arrived_fin |= fin
            if arrives and not s.reset:
                s.acked |= set(range(start - s.base, start - s.base + len(data)))
                s.acked_fin |= fin
        for handler, arguments in packet.delivery_handlers:
            handler(QuicDeliveryState.ACKED if arrives else QuicDeliveryState.LOST, *arguments)
        if not arrives:
            assert all(
                s.stream in s.talkative
                for s in self.streams
                if s.stream.stream_id in {frame[0] for frame in self.payloads[number]}
            )

    @invariant()
    def it_is_what_the_model_says(self) -> None:
        for s in getattr(self, "streams", ()):
            sender = s.sender
            first = next((i for i in range(len(s.written)) if i not in s.acked), len(s.written))
            assert sender._buffer_stop - s.base == len(s.written)
            assert sender.highest_offset - s.base == s.carried
            assert sender.is_finished == (s.fin and s.acked_fin and first == len(s.written) and not s.reset)
            if not s.reset:
                assert sender._buffer_start - s.base == first
                assert sender._buffer == s.written[first:]
                assert sender._buffer_fin == (s.base + len(s.written) if s.fin else None)
                at_large = [f for n in self.in_flight for f in self.payloads[n] if f[0] == s.stream.stream_id]
                outstanding = {i - s.base for _, start, data, _ in at_large for i in range(start, start + len(data))}
                lost = {i - s.base for r in sender._pending for i in r}
                # Every byte that was carried is acknowledged, on its way, or to be sent again: one of these.
                assert sorted([*s.acked, *outstanding, *lost]) == list(range(s.carried))
                if lost or s.carried < len(s.written):
                    assert not sender.buffer_is_empty
                if s.fin and not s.acked_fin and not any(f[3] for f in at_large):
                    assert sender._pending_eof
                    assert not sender.buffer_is_empty

    def teardown(self) -> None:
        """With room, credit and a path that loses nothing, all arrives."""
        for s in getattr(self, "streams", ()):
            s.stream.max_stream_data_remote = s.base + len(s.written)
            s.stream.is_blocked = False
        self.remote_max_data = self.used + 100_000
        for _ in range(100):
            self.send(1200, False)
            while self.in_flight:
                self.decide(0, True, False)
                self.it_is_what_the_model_says()
        for s in getattr(self, "streams", ()):
            if not s.reset:
                assert bytes(s.arrived[i] for i in range(len(s.written))) == s.written
                assert s.sender.buffer_is_empty
                assert not s.sender._buffer
                assert s.arrived_fin == s.fin
                assert s.sender.is_finished == s.fin


def test_a_stream_sends_what_was_written_whatever_is_lost() -> None:
    run_state_machine_as_test(Sending, settings=settings(max_examples=examples(120), stateful_step_count=40))


def test_what_is_acknowledged_before_what_lies_before_it_is_let_go_of_with_it() -> None:
    ours, _ = keys()
    s = Naive(2, 0, 100_000)
    builder = builder_of(PacketBuilder, ours, 0)
    for _ in range(3):
        s.sender.write(bytes(100))
        assert builder.begin()
        s.sender.write_frames(builder, 100_000)
        assert builder.end()
    for number, left in ((1, 300), (0, 100), (2, 0)):
        for handler, arguments in builder._packets[number].delivery_handlers:
            handler(QuicDeliveryState.ACKED, *arguments)
        assert len(s.sender._buffer) == left


def test_a_stream_goes_on_beyond_its_first_gigabyte() -> None:
    """From there on an offset takes eight bytes (RFC 9000 §16), and aioquic reads what we write."""
    ours, theirs = keys()
    s = Naive(2, GIGABYTE - 1_000, 100_000)
    s.sender.write(bytes(2_400), end_stream=True)
    builder = builder_of(PacketBuilder, ours, 0)
    assert builder.begin()
    while not s.sender.write_frames(builder, 100_000)[0]:
        assert builder.end()
        assert builder.begin()
    assert builder.end()
    datagrams, packets = builder.flush()
    frames = [frame for n, d in enumerate(datagrams) for frame in stream_frames(opened(theirs, d, n)[1])]
    assert b"".join(data for _, _, data, _ in frames) == bytes(2_400)
    assert [start >= GIGABYTE for _, start, _, _ in frames] == [False, True, True]
    for packet in packets:
        for handler, arguments in packet.delivery_handlers:
            handler(QuicDeliveryState.ACKED, *arguments)
    assert s.sender.is_finished


# -- the builder ----------------------------------------------------------------------------------------------------

#: Kind, bytes that it is said to need, and what it is made of.
FRAME = st.one_of(
    st.just((QuicFrameType.PING, 1, b"")),
    st.tuples(st.just(QuicFrameType.ACK), st.just(33), st.binary(min_size=4, max_size=60)),
    st.tuples(st.just(QuicFrameType.MAX_DATA), st.just(9), st.binary(min_size=1, max_size=8)),
    st.tuples(st.just(QuicFrameType.RESET_STREAM), st.just(25), st.binary(min_size=3, max_size=24)),
    st.tuples(st.just(QuicFrameType.STOP_SENDING), st.just(17), st.just(b"ab")),
    st.integers(0, 1_150).map(lambda size: (QuicFrameType.STREAM_BASE | 6, size + 8, bytes(size + 7))),
)
ROOM = st.one_of(st.none(), st.integers(-10, 60), st.integers(500, 3_700))


@settings(max_examples=examples(250))
@given(
    packets=st.lists(st.lists(FRAME, max_size=5), min_size=1, max_size=5),
    flight=ROOM,
    total=ROOM,
    spin=st.booleans(),
    update=st.booleans(),
    number=st.sampled_from([0, 7, 0xFFFE, 0x10000, 2**40]),
    is_client=st.booleans(),
)
def test_a_packet_is_made_as_aioquic_makes_it(
    packets: list[list[tuple[int, int, bytes]]],
    flight: int | None,
    total: int | None,
    spin: bool,
    update: bool,
    number: int,
    is_client: bool,
) -> None:
    made = []
    for kind in (PacketBuilder, QuicPacketBuilder):
        crypto, _ = keys()
        if update:
            crypto.update_key()
        builder = builder_of(kind, crypto, number, spin_bit=spin, is_client=is_client)
        builder.max_flight_bytes, builder.max_total_bytes = flight, total
        refused: list[Any] = []
        for frames in packets:
            if kind is PacketBuilder:
                if not builder.begin():
                    refused.append("packet")
                    break
            else:
                try:
                    builder.start_packet(QuicPacketType.ONE_RTT, crypto)
                except QuicPacketBuilderStop:
                    refused.append("packet")
                    break
            for n, (frame_type, capacity, content) in enumerate(frames):
                try:
                    buffer = builder.start_frame(frame_type, capacity)
                except QuicPacketBuilderStop:
                    refused.append(n)
                    break
                buffer.push_bytes(content[: builder.remaining_buffer_space])
            if kind is PacketBuilder:
                builder.end()
        datagrams, sent = builder.flush()
        assert sum(map(len, datagrams)) <= max(0, 2**60 if total is None else total)
        made.append((datagrams, sent, refused, builder.packet_number, builder._total_bytes, builder._flight_bytes))
    assert made[0] == made[1]


def test_a_packet_that_is_too_small_to_sample_is_padded_and_then_counts_as_in_flight() -> None:
    ours, theirs = keys()
    builder = builder_of(PacketBuilder, ours, 5)
    assert builder.begin()
    builder.start_frame(QuicFrameType.PING)
    assert builder.end()
    (datagram,), (packet,) = builder.flush()
    assert opened(theirs, datagram, 5)[1] == b"\1\0"
    assert packet.in_flight
    assert builder._flight_bytes == len(datagram) == 11 + 2 + 16


def test_an_empty_packet_is_not_sent_and_uses_no_number() -> None:
    ours, _ = keys()
    builder = builder_of(PacketBuilder, ours, 5)
    for _ in range(3):
        assert builder.begin()
        assert not builder.end()
    assert builder.flush() == ([], [])
    assert builder.packet_number == 5
