"""The short way for ordinary datagrams against aioquic's own, datagram by datagram: nothing may tell them apart.

The subject is our engine, its twin the same engine without short ways (:class:`LongWay`), a copy with the same keys.
Both are given the same datagrams, sealed with the peer's keys; what differs on purpose is said in ``LongWay``.
"""

from __future__ import annotations

import functools
import random
from typing import Any

import pytest
from aioquic.buffer import encode_uint_var
from aioquic.quic.packet import QuicErrorCode
from hypothesis import given, settings
from hypothesis import strategies as st

from agentao_trio._engine import Engine, TransportSettings
from tests.support.engines import LongWay, copied, dice_for_ids, examples, seen, timers_agree
from tests.unit.test_engine import CLIENT, SERVER, Wire

ELSEWHERE = ("10.0.0.9", 9)
SIDES = ("client", "server")


@functools.cache
def _conversation() -> Wire:
    """Two engines that have shaken hands and opened streams in both directions, and are at rest."""
    w = Wire(TransportSettings(max_stream_data=3_000, max_data=8_000, max_inbound_streams=4))
    server = w.shake_hands()
    for engine in (w.client, server):
        for unidirectional in (True, False):
            stream_id = engine.open_stream(unidirectional=unidirectional)
            assert stream_id is not None
            engine.send_stream_data(stream_id, bytes(100))
    deadline = w.now + 2.0
    w.run(lambda: w.now >= deadline)
    return w


class Twins:
    """A side of that conversation twice, and the keys of its peer."""

    def __init__(self, side: str) -> None:
        w = _conversation()
        ours, peer = (w.client, w.server) if side == "client" else (w.server, w.client)
        assert isinstance(ours, Engine)
        assert isinstance(peer, Engine)
        self.subject, self.twin = copied(ours), copied(ours, LongWay)
        self.both = (self.subject, self.twin)
        self.dice = {id(engine): random.Random(1) for engine in self.both}
        self.seal = copied(peer)._crypto
        self.home = SERVER if side == "client" else CLIENT
        self.flip = 1 if side == "client" else 0  # the bit of a stream's id that says who opened it
        self.now = w.now
        self.number = peer._packet_number
        self.numbers_left: list[int] = []
        self.last = b""
        self.accepted = 0

    def check(self) -> None:
        assert timers_agree(self.subject)
        ours, theirs = seen(self.subject), seen(self.twin)
        if self.twin._pacing_at is not None and self.subject._pacing_at is None:
            # It asked the pacer before it found that there is nothing to say.
            ours.pop("timer")
            theirs.pop("timer")
        assert ours == theirs

    # -- what may happen

    def datagram(self, frames: list[Any], number: str, header: str, damage: str, where: int) -> None:
        if number == "again" and self.last:
            data = self.last
        else:
            data = self._sealed(b"".join(self._frame(*frame) for frame in frames), number, header, where)
        self.last = data
        if damage == "bit":
            at = where % len(data)
            data = data[:at] + bytes((data[at] ^ 1 << where % 8,)) + data[at + 1 :]
        elif damage == "cut":
            data = data[: where % len(data)]
        elif damage == "longer":
            data += b"\0"
        self._give(data, ELSEWHERE if header == "elsewhere" else self.home)

    def _give(self, data: bytes, source: Any) -> None:
        for engine in self.both:
            self.roll(self.dice[id(engine)])
            engine.receive_datagram(data, source, self.now)

    def _sealed(self, payload: bytes, number: str, header: str, where: int) -> bytes:
        if number == "late" and self.numbers_left:
            n = self.numbers_left.pop(where % len(self.numbers_left))
        else:
            if number == "skip":
                self.numbers_left += range(self.number, self.number + where % 5)
                self.number += where % 5
            n = self.number
            self.number += 1
        if header == "key update":
            self.seal.update_key()
        first = 0x41 | self.seal.key_phase << 2
        first ^= {"spin": 0x20, "reserved": 0x08, "not fixed": 0x40, "wrong key phase": 0x04}.get(header, 0)
        ids = self.subject._host_cids
        cid = {"other id": ids[-1].cid, "wrong id": bytes(8)}.get(header, self.subject.host_cid)
        size = 2
        if header == "empty":  # a tag alone can be sampled behind a packet number of four bytes
            payload, size, first = b"", 4, first | 3
        head = bytes((first,)) + cid + (n & 0xFFFF).to_bytes(size)
        return bytes(self.seal.encrypt_packet(head, payload[:1100].ljust(4 - size, b"\0"), n))

    def _frame(self, kind: str, *values: Any) -> bytes:
        if kind == "raw":
            return bytes(values[0])
        if kind == "numbers":  # of any frame that has nothing but integers
            return b"".join(encode_uint_var(value) for value in values[0])
        if kind == "ack":
            return self._ack(*values)
        bits, stream_id, place, size = values
        stream_id ^= self.flip
        stream = self.twin._streams.get(stream_id)
        at = 0 if stream is None else stream.receiver._buffer_start
        limit = 3_000 if stream is None else stream.max_stream_data_local
        start = {"limit": limit - size, "beyond": limit - size + 1, "far": 2**62 - 1}.get(place)
        start = max(0, at + place if start is None else start)
        frame = bytes((8 | bits,)) + encode_uint_var(stream_id)
        if bits & 4:
            frame += encode_uint_var(start)
        if bits & 2:
            frame += encode_uint_var(size)
        return frame + random.Random(start).randbytes(size)

    def _ack(self, newest: int, ranges: list[tuple[int, int]], delay: int) -> bytes:
        largest = max(0, self.twin._packet_number - 1 + newest)
        (first, _), *others = ranges
        frame = b"\x02" + encode_uint_var(largest) + encode_uint_var(delay) + encode_uint_var(len(others))
        return frame + encode_uint_var(first) + b"".join(encode_uint_var(g) + encode_uint_var(n) for n, g in others)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for engine in self.both:
            if engine.timer is not None and engine.timer <= self.now:
                self.roll(self.dice[id(engine)])
                engine.handle_timer(self.now)

    def speak(self) -> None:
        said = []
        for engine in self.both:
            self.roll(self.dice[id(engine)])
            said.append(engine.datagrams_to_send(self.now))
        assert said[0] == said[1]
        if self.twin._pacing_at is not None and self.subject._pacing_at is None:
            assert not self.subject._talkative
        assert all(len(data) <= 1200 for data, _ in said[0])

    def program(self, what: str, stream_id: int, size: int) -> None:
        for engine in self.both:
            stream = engine._streams.get(stream_id ^ self.flip)
            if what == "ping":
                engine.send_ping(size)
            elif what == "close":
                engine.close_with(size, "enough")
            elif stream is None:
                continue
            elif what == "consumed":
                engine.consumed(stream_id ^ self.flip, min(size, stream.receiver._buffer_start), 0)
            elif what == "stop" and not stream.receiver.is_finished:
                engine.stop(stream_id ^ self.flip, 7)
            elif engine._stream_can_send(stream_id ^ self.flip) and stream.sender._buffer_fin is None:
                if stream.sender._reset_error_code is None and what in ("write", "end"):
                    engine.send_stream_data(stream_id ^ self.flip, bytes(size), what == "end")
                elif what == "reset":
                    engine.reset_stream(stream_id ^ self.flip, 9)

    def run(self, steps: list[tuple[Any, ...]]) -> None:
        with dice_for_ids() as self.roll:
            for name, *arguments in steps:
                getattr(self, name)(*arguments)
                self.check()


# As a server sees them: 0 and 2 are the peer's and open, 1 and 3 ours; 4 and 6 the peer may open, 16 and 18 it may not,
# 5 and 7 we have not opened.
IDS = st.sampled_from([0, 0, 0, 2, 2, 2, 1, 1, 3, 4, 6, 16, 18, 5, 7])
SMALL = st.integers(0, 40)
ANY = st.one_of(SMALL, st.integers(0, 9_000), st.integers(2**62 - 3, 2**62 - 1))


def _numbers(kind: int, *values: Any) -> st.SearchStrategy[Any]:
    return st.tuples(st.just("numbers"), st.tuples(st.just(kind), *values))


STREAM = st.tuples(
    st.just("stream"),
    st.sampled_from([6, 6, 6, 6, 4, 2, 0, 7, 7, 5, 3, 1]),
    IDS,
    st.sampled_from([0, 0, 0, 0, 0, 0, -1, -40, 1, 40, "limit", "limit", "beyond", "far"]),
    st.sampled_from([0, 1, 40, 40, 200, 900]),
)
ACK = st.tuples(
    st.just("ack"),
    st.sampled_from([0, 0, 0, 0, 0, -1, -3, 1, 1000]),
    st.lists(st.tuples(st.sampled_from([0, 0, 1, 2, 30]), st.integers(0, 3)), min_size=1, max_size=5),
    st.sampled_from([0, 10, 2**62 - 1]),
)
OTHER = st.one_of(
    st.tuples(st.just("raw"), st.sampled_from([b"\0", b"\1", b"\0\0\0\1", b"\x1e", b"\x21", b"\x40\x08", b"\x40\x02"])),
    st.tuples(st.just("raw"), st.binary(max_size=12)),
    st.tuples(st.just("raw"), st.binary(min_size=9, max_size=9).map(lambda data: b"\x1a" + data[1:])),
    _numbers(0x10, ANY),  # MAX_DATA
    _numbers(0x11, IDS, ANY),  # MAX_STREAM_DATA
    _numbers(0x12, SMALL),  # MAX_STREAMS
    _numbers(0x13, SMALL),
    _numbers(0x04, IDS, SMALL, ANY),  # RESET_STREAM
    _numbers(0x05, IDS, SMALL),  # STOP_SENDING
    _numbers(0x14, ANY),  # DATA_BLOCKED
    _numbers(0x19, st.integers(0, 9)),  # RETIRE_CONNECTION_ID
    _numbers(0x1D, SMALL, st.just(0)),  # CONNECTION_CLOSE
    st.tuples(st.integers(8, 12), st.integers(0, 9)).map(
        lambda two: ("raw", bytes((0x18, two[0], min(two[1], two[0]), 8)) + bytes((two[0],)) * 24)  # NEW_CONNECTION_ID
    ),
)
DATAGRAM = st.tuples(
    st.just("datagram"),
    st.lists(st.one_of(STREAM, STREAM, STREAM, ACK, ACK, OTHER), min_size=1, max_size=4),
    st.sampled_from(["next", "next", "next", "next", "skip", "late", "late", "again"]),
    st.sampled_from(
        ["plain"] * 12
        + ["spin", "spin", "key update", "other id", "wrong id", "elsewhere"]
        + ["reserved", "not fixed", "wrong key phase", "empty"]
    ),
    st.sampled_from(["none"] * 8 + ["bit", "cut", "longer"]),
    st.integers(0, 2_000),
)
STEP = st.one_of(
    DATAGRAM,
    DATAGRAM,
    DATAGRAM,
    st.just(("speak",)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.001, 0.006, 0.03, 0.3, 2.0])),
    st.tuples(
        st.just("program"),
        st.sampled_from(["write", "write", "write", "consumed", "consumed", "end", "reset", "stop", "ping", "close"]),
        IDS,
        st.sampled_from([1, 100, 300, 1_500, 6_000]),
    ),
)


@pytest.mark.parametrize("side", SIDES)
@settings(max_examples=examples(200))
@given(steps=st.lists(STEP, min_size=4, max_size=24))
def test_nothing_tells_the_short_way_from_the_long_one(side: str, steps: list[tuple[Any, ...]]) -> None:
    Twins(side).run(steps)


# -- one by one -----------------------------------------------------------------------------------------------------


def ordinary(*frames: Any, number: str = "next", header: str = "plain") -> tuple[Any, ...]:
    return ("datagram", list(frames), number, header, "none", 0)


PING = ("raw", b"\1\0")
MORE = ("stream", 6, 0, 0, 40)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("header", ["not fixed", "wrong id", "wrong key phase", "elsewhere"])
def test_what_is_no_packet_of_this_connection_leaves_no_trace(side: str, header: str) -> None:
    """RFC 9000 §17.3.1: a packet without the fixed bit is none. (Only to a server an address may be new.)"""
    twins = Twins(side)
    if (side, header) != ("server", "elsewhere"):
        before = seen(copied(twins.subject))
        twins.run([ordinary(MORE, header=header)])
        assert seen(twins.subject) == before


@pytest.mark.parametrize("side", SIDES)
def test_reserved_bits_end_the_connection(side: str) -> None:
    twins = Twins(side)
    twins.run([ordinary(MORE, header="reserved"), ("speak",)])
    assert twins.subject.end is not None
    assert twins.subject.end.error_code == QuicErrorCode.PROTOCOL_VIOLATION


@pytest.mark.parametrize("side", SIDES)
def test_a_packet_out_of_order_is_acknowledged_at_once_and_one_in_order_is_not(side: str) -> None:
    twins = Twins(side)
    twins.run([ordinary(MORE)])
    assert twins.subject._space.ack_at == pytest.approx(twins.now + 0.006)
    twins.run([("wait", 0.006), ("speak",), ("datagram", [MORE], "skip", "plain", "none", 2)])
    assert twins.subject._space.ack_at == twins.now
    twins.run([("speak",), ordinary(("ack", 0, [(0, 0)], 0))])
    assert twins.subject._space.ack_at is None  # nobody asked
    twins.run([("datagram", [MORE], "late", "plain", "none", 0)])
    assert twins.subject._space.ack_at == twins.now


@pytest.mark.parametrize("side", SIDES)
def test_pings_alone_are_acknowledged(side: str) -> None:
    twins = Twins(side)
    for _ in range(5):
        twins.run([ordinary(PING), ("speak",), ("wait", 0.006)])
        assert twins.subject._space.ack_at is not None
        twins.run([("speak",)])
        assert twins.subject._space.ack_at is None


@pytest.mark.parametrize("side", SIDES)
def test_the_peer_may_change_its_keys_and_is_answered_with_new_ones(side: str) -> None:
    twins = Twins(side)
    for _ in range(3):
        phase = twins.subject._crypto.key_phase
        twins.run([ordinary(MORE, header="key update"), ("wait", 0.006), ("speak",), ordinary(MORE)])
        assert twins.subject._crypto.key_phase != phase
    assert twins.subject.datagrams_ordinary > 5


@pytest.mark.parametrize("side", SIDES)
def test_a_limit_whose_packet_is_lost_is_told_again_without_waiting_for_a_timer(side: str) -> None:
    twins = Twins(side)
    twins.run([("wait", 0.3), *[("program", "consumed", 0, 100)] * 45, ("speak",)])
    limit = twins.subject._local_max_data
    assert limit.value == limit.sent > 8_000
    twins.run([("wait", 0.001), ("program", "write", 0, 1), ("speak",)] * 4)
    assert twins.subject._is_quiet
    twins.run([ordinary(("ack", 0, [(0, 0)], 0))])
    assert limit.sent == 0  # that is: lost
    twins.run([("speak",)])
    assert limit.sent == limit.value
