"""Connections, streams and listeners in virtual time, over the in-memory network."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from agentao_trio.errors import ConnectError, ConnectionLost, StreamReset
from agentao_trio.pacing import PacketClock
from agentao_trio.testing import MemoryNetwork, MemorySocket
from agentao_trio.transport import (
    Address,
    BidiStream,
    ClientTLS,
    Connection,
    ReceiveStream,
    SendStream,
    ServerTLS,
    TransportSettings,
    open_connection,
    open_listener,
)
from tests.support.quic import HOST, PORT, Pair, authority, client_tls, connected, long_ago, server_tls

MILLION = 1_000_000


async def a_stream(pair: Pair) -> tuple[SendStream, ReceiveStream]:
    """A stream from client to server that both ends have in hand."""
    sender = await pair.client.open_uni()
    await sender.send_all(b"!")
    receiver = await pair.server.accept()
    assert isinstance(receiver, ReceiveStream)
    assert await receiver.receive_some() == b"!"
    return sender, receiver


async def a_bidi_stream(pair: Pair) -> tuple[BidiStream, BidiStream]:
    ours = await pair.client.open_bidi()
    await ours.send_all(b"!")
    theirs = await pair.server.accept()
    assert isinstance(theirs, BidiStream)
    assert await theirs.receive_some() == b"!"
    return ours, theirs


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(chunk) async for chunk in stream])


class Through:
    """A socket that does something with what goes through it."""

    def __init__(self, inner: MemorySocket) -> None:
        self._inner = inner
        self.resolve = inner.resolve
        self.wait_readable = inner.wait_readable
        self.close = inner.close

    @property
    def address(self) -> Address:
        return self._inner.address

    def send(self, data: bytes, to: Address) -> None:
        self._inner.send(data, to)

    def receive(self) -> tuple[bytes, Address]:
        return self._inner.receive()


# -- streams --------------------------------------------------------------------------------------------------------

SMALL = TransportSettings(send_buffer=4096, max_stream_data=4096)


async def clog(sender: SendStream | BidiStream) -> None:
    while sender.backlog < SMALL.send_buffer:
        sender.write(bytes(1024))
    await trio.sleep(1.0)  # let the peer's window fill up
    while sender.backlog < SMALL.send_buffer:
        sender.write(bytes(1024))


async def test_a_unidirectional_stream_is_one_of_trios(autojump_clock: MockClock) -> None:
    async with connected() as pair, connected(settings=SMALL) as small:

        async def clogged() -> tuple[SendStream, ReceiveStream]:
            sender, receiver = await a_stream(small)
            await clog(sender)
            return sender, receiver

        await trio.testing.check_one_way_stream(lambda: a_stream(pair), clogged)


async def test_a_bidirectional_stream_is_one_of_trios(autojump_clock: MockClock) -> None:
    async with connected() as pair, connected(settings=SMALL) as small:

        async def clogged() -> tuple[BidiStream, BidiStream]:
            ours, theirs = await a_bidi_stream(small)
            await clog(ours)
            await clog(theirs)
            return ours, theirs

        await trio.testing.check_half_closeable_stream(lambda: a_bidi_stream(pair), clogged)


async def test_streams_are_accepted_in_the_order_of_their_first_bytes(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        first, second, third = [await pair.client.open_uni() for _ in range(3)]
        for stream in (second, third, first):
            await stream.send_all(b"x")
            await trio.sleep(0.1)
        accepted = [(await pair.server.accept()).stream_id for _ in range(3)]
        assert accepted == [second.stream_id, third.stream_id, first.stream_id]


async def test_a_reset_is_raised_after_what_came_before_it_and_stays(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        sender, receiver = await a_stream(pair)
        await sender.send_all(b"half a frame")
        await trio.sleep(0.1)
        sender.reset(17)
        await trio.sleep(0.1)
        assert await receiver.receive_some() == b"half a frame"
        for _ in range(2):
            with pytest.raises(StreamReset) as caught:
                await receiver.receive_some()
            assert (caught.value.code, caught.value.stream_id) == (17, sender.stream_id)
        with pytest.raises(trio.ClosedResourceError):
            sender.write(b"more")


async def test_a_stop_is_raised_by_the_next_send(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        sender, receiver = await a_stream(pair)
        receiver.stop(9)
        await trio.sleep(0.1)
        for _ in range(2):
            with pytest.raises(StreamReset) as caught:
                sender.write(b"x")
            assert caught.value.code == 9
        with pytest.raises(StreamReset):
            await sender.send_all(b"x")
        sender.finish()  # nothing left to finish


async def test_a_stop_wakes_a_sender_that_waits_for_room(autojump_clock: MockClock) -> None:
    async with connected(settings=SMALL) as pair:
        sender, receiver = await a_stream(pair)

        async def send() -> None:
            with pytest.raises(StreamReset):
                await sender.send_all(bytes(100_000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.sleep(1.0)
            receiver.stop()


async def test_send_all_waits_while_too_much_is_unacknowledged(autojump_clock: MockClock) -> None:
    async with connected(settings=TransportSettings(send_buffer=50_000)) as pair:
        sender, receiver = await a_stream(pair)
        peak = 0

        async def send() -> None:
            await sender.send_all(bytes(MILLION))
            sender.finish()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            received = 0
            async for chunk in receiver:
                received += len(chunk)
                peak = max(peak, sender.backlog)
        assert received == MILLION
        assert 40_000 < peak <= 50_000


async def test_a_send_that_was_cancelled_half_way_ends_in_a_reset_not_in_a_fin(autojump_clock: MockClock) -> None:
    async with connected(settings=SMALL) as pair:
        sender, receiver = await a_stream(pair)
        with trio.move_on_after(1.0):
            await sender.send_all(bytes(100_000))
        await sender.aclose()
        with pytest.raises(StreamReset):
            await read_all(receiver)


async def test_a_send_that_was_cancelled_before_it_began_does_not_spoil_the_stream(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        sender, receiver = await a_stream(pair)
        with trio.CancelScope() as scope:
            scope.cancel()
            await sender.send_all(b"never")
        await sender.aclose()
        assert await read_all(receiver) == b""


async def test_cancelled_receives_lose_nothing(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        sender, receiver = await a_stream(pair)
        received = b""
        sender.write(bytes(range(200)))
        sender.finish()
        while not received.endswith(b"\xc7"):
            with trio.move_on_after(0.003):
                received += await receiver.receive_some(7)
        assert received == bytes(range(200))


@pytest.mark.parametrize("loss", [0.0, 0.2])
async def test_what_arrives_is_handed_over_in_order_to_its_end(autojump_clock: MockClock, loss: float) -> None:
    network = MemoryNetwork(delay=0.010, seed=3)
    async with connected(network) as pair:
        sender, receiver = await a_stream(pair)
        network.loss = loss
        said = bytes(range(256)) * 1000  # more than the window: what is handed over is made room for at once
        heard: list[bytes] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receiver.receive_each, heard.append)
            await sender.send_all(said)
            await sender.aclose()
        assert b"".join(heard) == said
        assert all(heard)
        assert await receiver.receive_some() == b""


async def test_what_came_before_is_handed_over_first(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        ours, theirs = await a_bidi_stream(pair)
        await ours.send_all(b"one ")
        await trio.sleep(0.1)
        heard: list[bytes] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.receive_each, heard.append)
            await trio.testing.wait_all_tasks_blocked()
            assert heard == [b"one "]
            await ours.send_all(b"two")
            await ours.send_eof()
        assert heard == [b"one ", b"two"]


async def test_who_stops_to_listen_loses_nothing(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        sender, receiver = await a_stream(pair)
        heard: list[bytes] = []
        with trio.move_on_after(0.1):
            await receiver.receive_each(heard.append)
        await sender.send_all(b"a moment later")
        await trio.sleep(0.1)
        assert heard == []
        with trio.move_on_after(0) as scope:
            await receiver.receive_each(heard.append)
        assert scope.cancelled_caught
        assert heard == [b"a moment later"]


async def test_who_hears_enough_stops_the_stream_there_and_then(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        sender, receiver = await a_stream(pair)
        heard: list[bytes] = []

        def once(data: bytes) -> None:
            heard.append(data)
            receiver.stop(9)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender.send_all, bytes(10_000))
            with pytest.raises(trio.ClosedResourceError):
                await receiver.receive_each(once)
        assert len(heard) == 1
        await trio.sleep(0.1)
        with pytest.raises(StreamReset, match="code 9"):
            await sender.send_all(b"more")


async def test_what_a_listener_raises_is_its_own_affair(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        sender, receiver = await a_stream(pair)

        def refuse(data: bytes) -> None:
            raise ValueError(f"{len(data)} bytes too many")

        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                with pytest.raises(ValueError, match="5 bytes too many"):
                    await receiver.receive_each(refuse)

            nursery.start_soon(listen)
            await trio.testing.wait_all_tasks_blocked()
            await sender.send_all(b"12345")
        await sender.send_all(b"678")
        assert await receiver.receive_some() == b"678"


async def test_a_reset_and_a_loss_reach_who_listens_without_a_wait(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        sender, receiver = await a_stream(pair)
        _, other = await a_stream(pair)
        heard: list[bytes] = []
        async with trio.open_nursery() as nursery:

            async def until(error: type[Exception], stream: ReceiveStream) -> None:
                with pytest.raises(error):
                    await stream.receive_each(heard.append)

            nursery.start_soon(until, StreamReset, receiver)
            nursery.start_soon(until, ConnectionLost, other)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await receiver.receive_some()
            await sender.send_all(b"half a frame")
            await trio.sleep(0.1)
            sender.reset(7)
            await trio.sleep(0.1)
            await pair.client.aclose(1)
        assert heard == [b"half a frame"]


async def test_two_tasks_cannot_read_one_stream(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        _, receiver = await a_stream(pair)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receiver.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await receiver.receive_some()
            nursery.start_soon(pair.client.accept)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await pair.client.accept()
            nursery.cancel_scope.cancel()


async def test_writes_of_many_tasks_leave_in_one_datagram(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        streams = [await pair.client.open_uni() for _ in range(10)]
        await trio.sleep(0.1)
        before = pair.client.statistics().datagrams_sent
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(stream.send_all, b"x" * 50)
        await trio.testing.wait_all_tasks_blocked()
        assert pair.client.statistics().datagrams_sent == before + 1


async def test_flush_sends_at_once_and_only_what_is_new(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        stream = await pair.client.open_uni()
        await trio.sleep(0.1)
        before = pair.client.statistics().datagrams_sent
        with trio.testing.assert_no_checkpoints():
            stream.write(b"now")
            pair.client.flush()
            assert pair.client.statistics().datagrams_sent == before + 1
            pair.client.flush()
            assert pair.client.statistics().datagrams_sent == before + 1


# -- credit ---------------------------------------------------------------------------------------------------------


async def test_an_unread_push_is_held_to_the_window(autojump_clock: MockClock) -> None:
    """100 MB offered, nobody reads: one window arrives, and no more until somebody does."""
    async with connected() as pair:
        settings = TransportSettings()
        sender, receiver = await a_stream(pair)

        async def push() -> None:
            for _ in range(100):
                await sender.send_all(bytes(MILLION))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(push)
            await trio.sleep(30)
            arrived = pair.server.statistics().bytes_received
            assert settings.max_stream_data <= arrived < settings.max_stream_data * 1.1
            taken = len(await receiver.receive_some())
            assert taken == settings.max_stream_data - len(b"!")
            await trio.sleep(30)
            assert pair.server.statistics().bytes_received - arrived < settings.max_stream_data * 1.1
            assert not pair.client.is_over
            nursery.cancel_scope.cancel()


async def test_many_unread_streams_are_held_to_the_connections_window(autojump_clock: MockClock) -> None:
    async with connected(settings=TransportSettings(max_stream_data=50_000, max_data=120_000)) as pair:
        for _ in range(10):
            (await pair.client.open_uni()).write(bytes(50_000))
        await trio.sleep(20)
        assert 120_000 <= pair.server.statistics().bytes_received < 140_000


async def test_stopped_and_reset_streams_give_their_credit_back(autojump_clock: MockClock) -> None:
    """Ten times the connection's window goes down the drain, and the eleventh stream is served all the same."""
    async with connected(settings=TransportSettings(max_stream_data=50_000, max_data=60_000)) as pair:
        for number in range(20):
            sender, receiver = await a_stream(pair)
            sender.write(bytes(40_000))
            await trio.sleep(1.0)
            if number % 2:
                receiver.stop()
            else:
                sender.reset()
                with pytest.raises(StreamReset):
                    await read_all(receiver)
            await trio.sleep(1.0)
        sender, receiver = await a_stream(pair)
        sender.write(bytes(40_000))
        sender.finish()
        assert len(await read_all(receiver)) == 40_000


async def test_opening_waits_for_the_peers_permission(autojump_clock: MockClock) -> None:
    async with connected(settings=TransportSettings(max_inbound_streams=3)) as pair:
        streams = [await pair.client.open_uni() for _ in range(3)]
        with trio.move_on_after(5.0) as patience:
            await pair.client.open_uni()
        assert patience.cancelled_caught
        for stream in streams:
            stream.write(b"x")
            stream.finish()
        opened: list[int] = []

        async def open_more() -> None:
            opened.extend([(await pair.client.open_uni()).stream_id for _ in range(3)])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_more)
            await trio.sleep(5.0)
            assert opened == []  # arrived and ended, but nobody has taken them
            for _ in range(3):
                assert await read_all(await pair.server.accept()) == b"x"
        assert opened == [14, 18, 22]


async def test_a_flood_of_streams_is_bounded(autojump_clock: MockClock) -> None:
    async with connected(settings=TransportSettings(max_inbound_streams=16)) as pair:

        async def flood() -> None:
            while True:
                stream = await pair.client.open_uni()
                stream.write(b"x")
                stream.finish()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            await trio.sleep(60)
            assert pair.server.statistics().streams_waiting == 16
            nursery.cancel_scope.cancel()


async def test_abandoned_requests_leave_nothing_behind(autojump_clock: MockClock) -> None:
    """A peer that accepts requests and never answers them."""
    async with connected() as pair:

        async def never_answer() -> None:
            while True:
                stream = await pair.server.accept()
                assert isinstance(stream, BidiStream)
                nursery.start_soon(ignore, stream)

        async def ignore(stream: BidiStream) -> None:
            with contextlib.suppress(StreamReset):
                await read_all(stream)
            with contextlib.suppress(StreamReset):
                while True:
                    await trio.sleep(0.5)
                    stream.write(b"")
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(never_answer)
            for number in range(300):  # more than may be open at a time
                stream = await pair.client.open_bidi()
                stream.write(b"request")
                if number % 2:
                    stream.finish()
                with trio.move_on_after(0.05):
                    await stream.receive_some()
                stream.abandon(1)
            await trio.sleep(5.0)
            for connection in (pair.client, pair.server):
                assert connection.statistics().streams_open == 0
                assert not connection._senders
                assert not connection._receivers
                assert not connection._finishing
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("engine", ["agentao", "stock"])
async def test_finished_streams_leave_nothing_behind(
    autojump_clock: MockClock, engine: Literal["agentao", "stock"]
) -> None:
    async with connected(settings=TransportSettings(engine=engine)) as pair:

        async def echo() -> None:
            while True:
                stream = await pair.server.accept()
                assert isinstance(stream, BidiStream)
                await stream.send_all(await read_all(stream))
                await stream.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo)
            for _ in range(500):
                stream = await pair.client.open_bidi()
                await stream.send_all(b"request")
                await stream.send_eof()
                assert await read_all(stream) == b"request"
            await trio.sleep(1.0)
            for connection in (pair.client, pair.server):
                assert connection.statistics().streams_open == 0
                assert not connection._receivers
            nursery.cancel_scope.cancel()


# -- endings --------------------------------------------------------------------------------------------------------


async def test_code_and_reason_of_a_close_are_known_at_both_ends(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        await pair.client.aclose(7, "going home")
        await trio.sleep(0.05)  # one way is 10 ms; three PTOs would be far more
        for connection in (pair.client, pair.server):
            assert connection.is_over
            assert (connection.close_code, connection.close_reason) == (7, "going home")
        with pytest.raises(ConnectionLost, match="code 7, going home") as caught:
            await pair.server.accept()
        assert (caught.value.code, caught.value.reason) == (7, "going home")
        with pytest.raises(trio.ClosedResourceError):
            await pair.client.accept()


async def test_a_close_with_code_0_is_the_regular_end(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        _, receiver = await a_stream(pair)
        await pair.client.aclose()
        await trio.sleep(0.05)
        with pytest.raises(trio.EndOfChannel):
            await pair.server.accept()
        with pytest.raises(ConnectionLost):  # the stream had not ended
            await receiver.receive_some()


async def test_a_peer_that_breaks_the_rules_of_quic_is_told_and_left(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        pair.client._engine._handshake_done_pending = True  # a frame that only servers may send
        await trio.sleep(2.0)
        with pytest.raises(ConnectionLost, match="given up: Clients must not send HANDSHAKE_DONE") as ours:
            await pair.server.accept()
        with pytest.raises(ConnectionLost, match="closed the connection") as theirs:
            await pair.client.accept()
        assert ours.value.code is None
        assert theirs.value.code == 0x0A  # PROTOCOL_VIOLATION


async def test_everything_that_waits_is_woken_by_a_close(autojump_clock: MockClock) -> None:
    async with connected(settings=TransportSettings(max_inbound_streams=1, send_buffer=1000)) as pair:
        await pair.client.open_bidi()
        sender, receiver = await a_stream(pair)
        waiting: list[Callable[[], Awaitable[object]]] = [
            pair.client.accept,
            pair.client.open_bidi,
            pair.client.open_uni,
            lambda: sender.send_all(bytes(MILLION)),
            pair.server.accept,
        ]
        ends: list[str] = []

        async def wait(what: Callable[[], Awaitable[object]]) -> None:
            try:
                await what()
            except (trio.ClosedResourceError, trio.EndOfChannel) as end:
                ends.append(type(end).__name__)

        async with trio.open_nursery() as nursery:
            for what in waiting:
                nursery.start_soon(wait, what)
            await trio.sleep(1.0)
            await pair.client.aclose()
        assert sorted(ends) == ["ClosedResourceError"] * 4 + ["EndOfChannel"]
        assert receiver is not None


@pytest.mark.parametrize("loss", [0.0, 0.2])
async def test_closing_does_not_lose_what_was_written(autojump_clock: MockClock, loss: float) -> None:
    network = MemoryNetwork(delay=0.010, seed=5)
    async with connected(network, settings=TransportSettings(close_timeout=20.0)) as pair:
        sender, receiver = await a_stream(pair)
        network.loss = loss
        sender.write(bytes(200_000))
        sender.finish()
        await pair.client.aclose()
        network.loss = 0.0
        await trio.sleep(0.1)
        assert len(await read_all(receiver)) == 200_000


async def test_closing_waits_for_a_dead_peer_no_longer_than_it_says(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        sender, _ = await a_stream(pair)
        with pair.network.blackhole():
            sender.write(b"nobody hears this")
            before = trio.current_time()
            await pair.client.aclose()
            assert trio.current_time() - before == pytest.approx(TransportSettings().close_timeout)


async def test_closing_goes_through_when_the_program_is_cancelled(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(delay=0.010)
    async with open_listener(network.socket((HOST, PORT)), tls=server_tls()) as listener:
        with trio.CancelScope() as scope:
            async with open_connection(HOST, PORT, tls=client_tls(), socket=network.socket()) as connection:
                stream = await connection.open_uni()
                stream.write(b"last words")
                stream.finish()
                scope.cancel()
                await trio.sleep_forever()
        server = await listener.accept()
        assert await read_all(await server.accept()) == b"last words"
        with pytest.raises(trio.EndOfChannel):
            await server.accept()


async def test_two_tasks_may_close_at_once(autojump_clock: MockClock) -> None:
    async with connected() as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.client.aclose)
        nursery.start_soon(pair.client.aclose)
        nursery.start_soon(pair.server.aclose)


async def test_the_bodys_exception_leaves_as_it_was_raised(autojump_clock: MockClock) -> None:
    with pytest.raises(KeyError):
        async with connected():
            raise KeyError("mine")


@pytest.mark.parametrize("idle", [20.0, 20.1, 20.25, 20.4, 20.55, 20.7])
async def test_a_dead_peer_is_noticed_within_three_seconds(idle: float, autojump_clock: MockClock) -> None:
    async with connected() as pair:
        await trio.sleep(idle)  # for long: PINGs keep it alive, and it may die at any moment between two of them
        assert not pair.client.is_over
        died = trio.current_time()
        with pair.network.blackhole():
            ends = []

            async def wait() -> None:
                with pytest.raises(ConnectionLost, match="does not answer any more") as caught:
                    await pair.client.accept()
                assert caught.value.code is None
                ends.append(trio.current_time() - died)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
            assert 2.0 <= ends[0] <= 2.8  # whoever acts on it has time left
            assert pair.client.close_code is None
            with pytest.raises(ConnectionLost):
                await pair.client.open_uni()
            with pytest.raises(ConnectionLost):
                (await a_stream(pair))[0].write(b"x")


@pytest.mark.parametrize("direction", ["to the peer", "from the peer"])
async def test_a_path_that_works_one_way_only_is_dead(autojump_clock: MockClock, direction: str) -> None:
    async with connected() as pair:
        stream = await pair.server.open_uni()
        address = (HOST, PORT)
        hole = {"destination": address} if direction == "to the peer" else {"source": address}
        with pair.network.blackhole(**hole), trio.move_on_after(2.9) as patience:
            while not pair.client.is_over:
                stream.write(b"audio")
                await trio.sleep(0.02)
        assert not patience.cancelled_caught


async def test_a_short_outage_is_survived(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        sender, receiver = await a_stream(pair)
        for _ in range(5):
            pair.network.outage(1.5)
            sender.write(b"x" * 100)
            await trio.sleep(4)
        sender.finish()
        assert len(await read_all(receiver)) == 500


async def test_a_program_that_was_busy_for_long_does_not_declare_its_peer_dead(autojump_clock: MockClock) -> None:
    """The peer answered; it is we who did not look. (The listener's own patience is longer.)"""
    async with connected() as pair:
        await trio.sleep(1.5)
        for _ in range(10):
            autojump_clock.jump(4.0)  # nothing runs meanwhile
            await trio.sleep(0.5)
            assert not pair.client.is_over
            assert not pair.server.is_over


async def test_a_stream_may_be_abandoned_after_all_of_it_has_ended(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        sender, receiver = await a_stream(pair)
        sender.write(b"all")
        sender.finish()
        assert await read_all(receiver) == b"all"
        await trio.sleep(1)
        sender.reset(1)
        receiver.stop(1)
        await trio.sleep(1)
        assert pair.client.statistics().streams_open == 0
        assert not pair.client.is_over
        assert not pair.server.is_over


async def test_idle_peers_exchange_little(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        await trio.sleep(1)
        before = pair.network.statistics().sent
        await trio.sleep(100)
        assert pair.network.statistics().sent - before <= 550  # PINGs in both directions, and their answers
        assert not pair.client.is_over


async def test_a_clock_that_stands_still_costs_nothing(autojump_clock: MockClock) -> None:
    """Timers that are due and do nothing must not be re-armed for the same moment over and over."""
    async with connected() as pair:
        sender, _ = await a_stream(pair)
        autojump_clock.autojump_threshold = float("inf")
        pair.network.outage(0.5)
        steps = 0

        class Counter(trio.abc.Instrument):
            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                nonlocal steps
                steps += 1

        counter = Counter()
        trio.lowlevel.add_instrument(counter)
        for _ in range(200):
            sender.write(b"x" * 100)
            autojump_clock.jump(0.005)
            await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(counter)
        assert steps < 200 * 30
        autojump_clock.autojump_threshold = 0


# -- no connection --------------------------------------------------------------------------------------------------


async def refusal(
    network: MemoryNetwork | None = None,
    *,
    server: ServerTLS | None = None,
    tls: ClientTLS | None = None,
    settings: TransportSettings | None = None,
    host: str = HOST,
    listening: bool = True,
) -> tuple[str, float]:
    """The words of the one ConnectError, and after how many seconds it came."""
    network = network or MemoryNetwork(delay=0.010)
    async with contextlib.AsyncExitStack() as stack:
        if listening:
            await stack.enter_async_context(open_listener(network.socket((HOST, PORT)), tls=server or server_tls()))
        began = trio.current_time()
        with pytest.raises(ConnectError) as caught:
            await stack.enter_async_context(
                open_connection(host, PORT, tls=tls or client_tls(), socket=network.socket(), settings=settings)
            )
        return str(caught.value), trio.current_time() - began


async def test_a_certificate_for_another_host(autojump_clock: MockClock) -> None:
    words, after = await refusal(server=server_tls("other.example"))
    assert f"not for '{HOST}'" in words
    assert "other.example" in words
    assert "server_name" in words
    assert after < 0.5


async def test_an_expected_name_can_be_given(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with (
        open_listener(network.socket((HOST, PORT)), tls=server_tls("other.example")),
        open_connection(HOST, PORT, tls=client_tls(server_name="other.example"), socket=network.socket()),
    ):
        pass


async def test_an_unknown_authority(autojump_clock: MockClock) -> None:
    words, after = await refusal(server=server_tls(ca="theirs"))
    assert "not signed by an authority that is trusted here" in words
    assert "ClientTLS(ca=...)" in words
    assert after < 0.5


async def test_by_default_the_systems_authorities_are_asked(autojump_clock: MockClock) -> None:
    words, _ = await refusal(tls=ClientTLS())
    assert "not signed by an authority that is trusted here" in words


async def test_a_certificate_out_of_its_time(autojump_clock: MockClock) -> None:
    not_before, not_after = long_ago()
    words, after = await refusal(server=server_tls(HOST, not_before=not_before, not_after=not_after))
    assert "2001-01-01" in words
    assert "2002-01-01" in words
    assert after < 0.5
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    words, _ = await refusal(server=server_tls(HOST, not_before=tomorrow, not_after=tomorrow + timedelta(days=9)))
    assert "which is not now" in words


async def test_verification_can_be_switched_off_by_name(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    async with (
        open_listener(network.socket((HOST, PORT)), tls=server_tls("other.example", ca="theirs")),
        open_connection(HOST, PORT, tls=ClientTLS(verify=False), socket=network.socket()),
    ):
        pass


async def test_another_protocol(autojump_clock: MockClock) -> None:
    words, after = await refusal(settings=TransportSettings(alpn="moq"))
    assert "does not speak the protocol 'moq' (ALPN)" in words
    assert after < 0.5


async def test_nobody_listens(autojump_clock: MockClock) -> None:
    words, after = await refusal(listening=False)
    assert f"nobody listens on UDP port {PORT}" in words
    assert after < 0.5


async def test_nobody_answers(autojump_clock: MockClock) -> None:
    words, after = await refusal(MemoryNetwork(icmp=False), listening=False)
    assert f"no answer from {HOST}:{PORT}" in words
    assert "firewall" in words
    assert after == pytest.approx(10.0)


async def test_a_path_too_narrow(autojump_clock: MockClock) -> None:
    words, after = await refusal(MemoryNetwork(mtu=1227))
    assert "does not carry datagrams of 1200 bytes" in words
    assert after < 0.5
    words, _ = await refusal(MemoryNetwork(mtu=1227, icmp=False))
    assert "no answer" in words
    assert "MTU" in words
    async with connected(MemoryNetwork(mtu=1228)):
        pass


async def test_a_name_that_does_not_exist(autojump_clock: MockClock) -> None:
    words, _ = await refusal(host="gateway.invalid")
    assert "'gateway.invalid' cannot be resolved" in words


async def test_a_server_that_falls_silent_in_the_handshake(autojump_clock: MockClock) -> None:
    class OneWord(Through):
        heard = 0

        def receive(self) -> tuple[bytes, Address]:
            datagram = super().receive()
            self.heard += 1
            if self.heard > 1:
                raise BlockingIOError
            return datagram

    network = MemoryNetwork(delay=0.010)
    bulky = server_tls(HOST, *(f"host-{number}.example" for number in range(100)))  # more than one datagram
    async with open_listener(network.socket((HOST, PORT)), tls=bulky):
        with pytest.raises(ConnectError, match="answered, but the handshake did not complete"):
            async with open_connection(HOST, PORT, tls=client_tls(), socket=OneWord(network.socket()), timeout=5.0):
                pass


async def test_a_ca_that_cannot_be_used(autojump_clock: MockClock, tmp_path: Path) -> None:
    words, _ = await refusal(tls=ClientTLS(ca=tmp_path / "nowhere.pem"), listening=False)
    assert "nowhere.pem cannot be used" in words
    words, _ = await refusal(tls=ClientTLS(ca=b"not a certificate"), listening=False)
    assert "PEM" in words


async def test_a_ca_may_be_a_file_with_text_and_other_line_ends(autojump_clock: MockClock, tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_bytes(b"# ours\r\n" + authority("ours").cert_pem.bytes().replace(b"\n", b"\r\n") + b"\r\n")
    network = MemoryNetwork()
    async with (
        open_listener(network.socket((HOST, PORT)), tls=server_tls()),
        open_connection(HOST, PORT, tls=ClientTLS(ca=pem), socket=network.socket()),
    ):
        pass


async def test_secrets_are_logged_on_request_only(autojump_clock: MockClock, tmp_path: Path) -> None:
    keylog = tmp_path / "keys"
    network = MemoryNetwork()
    async with (
        open_listener(network.socket((HOST, PORT)), tls=server_tls()),
        open_connection(HOST, PORT, tls=client_tls(keylog=keylog), socket=network.socket()),
    ):
        pass
    assert "CLIENT_TRAFFIC_SECRET_0" in keylog.read_text()


async def test_a_server_certificate_and_key_have_to_match(autojump_clock: MockClock) -> None:
    mixed = ServerTLS(
        certificate_chain_pem=server_tls().certificate_chain_pem,
        private_key_pem=server_tls("other.example").private_key_pem,
    )
    with pytest.raises(ValueError, match="does not belong"):
        async with open_listener(MemoryNetwork().socket(), tls=mixed):
            pass
    assert "PRIVATE" not in repr(mixed)


@pytest.mark.parametrize("seed", range(3))
async def test_a_fifth_of_all_datagrams_lost_is_no_obstacle(autojump_clock: MockClock, seed: int) -> None:
    network = MemoryNetwork(seed=seed, loss=0.2, delay=0.020)
    async with connected(network, settings=TransportSettings(close_timeout=30.0)) as pair:
        sender, receiver = await a_stream(pair)
        sender.write(bytes(100_000))
        sender.finish()
        assert len(await read_all(receiver)) == 100_000
        assert pair.client.statistics().packets_lost > 0


# -- the listener ---------------------------------------------------------------------------------------------------


async def echo_streams(connection: Connection) -> None:
    async with connection, trio.open_nursery() as nursery:

        async def echo(stream: BidiStream) -> None:
            await stream.send_all(await read_all(stream))
            await stream.aclose()

        with contextlib.suppress(trio.EndOfChannel, ConnectionLost):
            while True:
                stream = await connection.accept()
                assert isinstance(stream, BidiStream)
                nursery.start_soon(echo, stream)
        nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def echo_server(network: MemoryNetwork, settings: TransportSettings | None = None) -> AsyncIterator[None]:
    async with (
        open_listener(network.socket((HOST, PORT)), tls=server_tls(), settings=settings) as listener,
        trio.open_nursery() as nursery,
    ):

        @nursery.start_soon
        async def serve() -> None:
            async for connection in listener:
                nursery.start_soon(echo_streams, connection)

        yield
        nursery.cancel_scope.cancel()


async def ask(connection: Connection, what: bytes) -> bytes:
    stream = await connection.open_bidi()
    await stream.send_all(what)
    stream.finish()
    return await read_all(stream)


async def test_a_listener_serves_many_clients_at_once(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(delay=0.010)

    async def client(number: int) -> None:
        async with open_connection(HOST, PORT, tls=client_tls(), socket=network.socket()) as connection:
            for _ in range(3):
                assert await ask(connection, b"%d" % number) == b"%d" % number

    async with echo_server(network), trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(client, number)


async def test_a_client_may_move_to_another_address(autojump_clock: MockClock) -> None:
    """A NAT that forgot the binding, several times over, in the middle of a transfer."""
    network = MemoryNetwork(delay=0.010)
    async with connected(network) as pair:
        sender, receiver = await a_stream(pair)
        received = 0
        for _ in range(5):
            sender.write(bytes(20_000))
            await trio.sleep(0.015)
            network.rebind(pair.socket)
            while received < 20_000:
                received += len(await receiver.receive_some())
            received -= 20_000
            await trio.sleep(3.0)
            assert pair.server.peer_address == pair.socket.address
        downlink = await pair.server.open_uni()
        downlink.write(b"found you")
        stream = await pair.client.accept()
        assert await stream.receive_some() == b"found you"


async def test_leaving_a_listener_closes_its_connections_in_order(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(delay=0.010)
    async with trio.open_nursery() as nursery:

        async def client(*, task_status: trio.TaskStatus[None]) -> None:
            async with open_connection(HOST, PORT, tls=client_tls(), socket=network.socket()) as connection:
                task_status.started()
                stream = await connection.accept()
                assert await read_all(stream) == b"closing time"
                with pytest.raises(trio.EndOfChannel):
                    await connection.accept()

        async with open_listener(network.socket((HOST, PORT)), tls=server_tls()) as listener:
            for _ in range(3):
                await nursery.start(client)
                connection = await listener.accept()
                stream = await connection.open_uni()
                stream.write(b"closing time")
                stream.finish()
    assert listener.statistics().connections == 0
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_half_open_connections_are_bounded_and_forgotten(autojump_clock: MockClock) -> None:
    """A flood of first flights from addresses that never answer. Retry keeps the last places for those who do."""
    network = MemoryNetwork(delay=0.010)
    settings = TransportSettings(max_half_open=10, handshake_timeout=5.0)
    first_flights: list[bytes] = []

    class Recorder(Through):
        def send(self, data: bytes, to: Address) -> None:
            first_flights.append(data)

    for _ in range(50):
        recorder = Recorder(network.socket())
        with pytest.raises(ConnectError):
            async with open_connection(HOST, PORT, tls=client_tls(), socket=recorder, timeout=0.001):
                pass
    async with open_listener(network.socket((HOST, PORT)), tls=server_tls(), settings=settings) as listener:
        spoofed = [network.socket() for _ in first_flights]
        for socket, flight in zip(spoofed, first_flights, strict=True):
            socket.send(flight, (HOST, PORT))
        await trio.sleep(0.1)
        statistics = listener.statistics()
        assert statistics.half_open == 5
        assert statistics.answered >= 45
        async with open_connection(HOST, PORT, tls=client_tls(), socket=network.socket()) as connection:
            server = await listener.accept()  # a client that answers still gets in
            assert not connection.is_over
            assert not server.is_over
        await trio.sleep(settings.handshake_timeout + 0.1)
        assert listener.statistics().half_open == 0


async def test_connections_that_nobody_accepts_are_bounded_too(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(delay=0.010)
    settings = TransportSettings(max_half_open=4)
    async with (
        open_listener(network.socket((HOST, PORT)), tls=server_tls(), settings=settings) as listener,
        trio.open_nursery() as nursery,
    ):

        async def client() -> None:
            with contextlib.suppress(ConnectError):
                async with open_connection(HOST, PORT, tls=client_tls(), socket=network.socket()):
                    await trio.sleep_forever()

        for _ in range(8):
            nursery.start_soon(client)
        await trio.sleep(5.0)
        statistics = listener.statistics()
        assert (statistics.connections, statistics.half_open) == (4, 4)
        assert statistics.refused > 0
        for _ in range(4):
            await listener.accept()
        await trio.sleep(10.0)
        nursery.cancel_scope.cancel()


async def test_datagrams_that_are_no_quic_are_counted_and_dropped(autojump_clock: MockClock) -> None:
    async with connected() as pair:
        stranger = pair.network.socket()
        for garbage in (b"", b"\x00", b"\xff" * 1300, b"\xc0\x00\x00\x00\x01" + bytes(1300), os.urandom(1200)):
            stranger.send(garbage, (HOST, PORT))
            stranger.send(garbage, pair.socket.address)
        await trio.sleep(1.0)
        assert pair.listener.statistics().datagrams_unroutable >= 4
        assert pair.listener.statistics().connections == 1
        assert not pair.client.is_over
        assert not pair.server.is_over


async def test_a_socket_can_carry_one_connection_after_another(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(delay=0.010)
    socket = network.socket()
    async with echo_server(network):
        for _ in range(3):
            async with open_connection(HOST, PORT, tls=client_tls(), socket=socket) as connection:
                assert await ask(connection, b"hello") == b"hello"


async def test_a_full_socket_loses_datagrams_which_are_sent_again(autojump_clock: MockClock) -> None:
    class Stingy(Through):
        sent = 0

        def send(self, data: bytes, to: Address) -> None:
            self.sent += 1
            if self.sent % 4 == 0:
                raise BlockingIOError
            super().send(data, to)

    network = MemoryNetwork(delay=0.010)
    async with echo_server(network):
        socket = Stingy(network.socket())
        async with open_connection(HOST, PORT, tls=client_tls(), socket=socket) as connection:
            assert await ask(connection, bytes(50_000)) == bytes(50_000)
            assert connection.statistics().datagrams_dropped > 5


# -- cancellation ---------------------------------------------------------------------------------------------------


class StopAt(trio.abc.Instrument):
    """Cancels a scope when the tasks of a scenario are about to take their n-th step."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.scope = scope
        self.left = step
        self.mark: trio.lowlevel.Task | None = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name.startswith(f"{__name__}.scenario"):
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


async def scenario(network: MemoryNetwork) -> None:
    """A client's life in short, one await after the other."""
    socket = network.socket()
    try:
        async with open_connection(HOST, PORT, tls=client_tls(), socket=socket) as connection:
            stream = await connection.open_bidi()
            await stream.send_all(bytes(10_000))
            await stream.send_eof()
            assert len(await read_all(stream)) == 10_000
            other = await connection.open_bidi()
            await other.send_all(bytes(10_000))
            await other.send_eof()
            heard: list[bytes] = []
            await other.receive_each(heard.append)
            assert len(b"".join(heard)) == 10_000
            uni = await connection.open_uni()
            await uni.wait_send_all_might_not_block()
            await uni.send_all(b"x")
            await uni.aclose()
            with trio.move_on_after(0.1):
                await connection.accept()
    finally:
        socket.close()


async def test_cancellation_at_every_step_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(delay=0.010)
    step = 0
    finished = False
    async with (
        open_listener(network.socket((HOST, PORT)), tls=server_tls()) as listener,
        trio.open_nursery() as nursery,
    ):

        @nursery.start_soon
        async def serve() -> None:
            async for connection in listener:
                nursery.start_soon(echo_any, connection)

        async def echo_any(connection: Connection) -> None:
            with contextlib.suppress(trio.EndOfChannel, ConnectionLost, StreamReset):
                while True:
                    stream = await connection.accept()
                    data = await read_all(stream)
                    if isinstance(stream, BidiStream):
                        await stream.send_all(data)
                    await stream.aclose()
            await connection.aclose()

        await trio.sleep(0.1)
        idle_tasks = trio.lowlevel.current_statistics().tasks_living
        while not finished:
            step += 1
            with trio.CancelScope() as scope:
                instrument = StopAt(scope, step)
                trio.lowlevel.add_instrument(instrument)
                try:
                    async with trio.open_nursery() as one:
                        one.start_soon(scenario, network)
                finally:
                    trio.lowlevel.remove_instrument(instrument)
                finished = instrument.left > 0
            await trio.sleep(0.1)  # a CLOSE needs 10 ms; the idle timeout would take far longer
            assert trio.lowlevel.current_statistics().tasks_living == idle_tasks, f"after step {step}"
            assert listener.statistics().connections == 0, f"after step {step}"
            assert len(network._sockets) == 1
        nursery.cancel_scope.cancel()
    assert step > 15


class InterruptAt(trio.abc.Instrument):
    """Presses Ctrl-C before the n-th step of any task."""

    def __init__(self, step: int) -> None:
        self.left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_at_every_step_ends_in_a_keyboard_interrupt() -> None:
    """... and in nothing else, and it ends: the peer hears of it, and no task is left waiting for the other."""

    async def main(instrument: InterruptAt) -> None:
        network = MemoryNetwork(delay=0.010)
        async with (
            echo_server(network),
            open_connection(HOST, PORT, tls=client_tls(), socket=network.socket()) as connection,
        ):
            trio.lowlevel.add_instrument(instrument)
            assert await ask(connection, bytes(5000)) == bytes(5000)

    steps = itertools.count(1)
    while True:
        instrument = InterruptAt(next(steps))
        try:
            trio.run(main, instrument, clock=MockClock(autojump_threshold=0))
        except* KeyboardInterrupt:
            pass
        if instrument.left > 0:
            break
    assert next(steps) > 30


# -- what can be looked at afterwards -------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["agentao", "stock"])
async def test_a_connection_leaves_a_qlog_where_it_is_told_to(
    engine: Literal["agentao", "stock"], tmp_path: Path, autojump_clock: MockClock
) -> None:
    settings = TransportSettings(engine=engine, qlog=tmp_path)
    async with connected(MemoryNetwork(), settings=settings) as pair:
        sender, receiver = await a_stream(pair)
        sender.write(b"hello")
        sender.finish()
        await read_all(receiver)
    traces = [json.loads(path.read_text()) for path in tmp_path.glob("*.qlog")]
    assert traces
    assert all(trace["traces"][0]["events"] for trace in traces)


# -- who has to be punctual -----------------------------------------------------------------------------------------


async def test_who_has_to_be_punctual_is_asked_after_every_datagram_of_a_burst(autojump_clock: MockClock) -> None:
    received = 0
    asked: list[tuple[int, float]] = []

    def meanwhile(all_read_at: float) -> bool:
        asked.append((received, all_read_at))
        return False

    def on_data(data: bytes) -> None:
        nonlocal received
        received += len(data)

    async with connected(MemoryNetwork(), meanwhile=meanwhile) as pair, trio.open_nursery() as nursery:
        sender = await pair.server.open_uni()
        sender.write(b"x")
        stream = await pair.client.accept()
        assert isinstance(stream, ReceiveStream)
        nursery.start_soon(stream.receive_each, on_data)
        await trio.sleep(0.5)
        received = 0
        asked.clear()
        began = trio.current_time()
        for _ in range(150):
            sender.write(b"x")
            pair.server.flush()
            autojump_clock.jump(0.001)  # the whole program stands still
        stood_until = trio.current_time()
        await trio.sleep(0.5)
        assert [count for count, _ in asked[:150]] == list(range(1, 151))
        assert {count for count, _ in asked[150:]} <= {150}  # what else came afterwards
        # More than one turn's burst, and there was something left to read all the time.
        assert all(when <= began for _, when in asked[:150])
        sender.write(b"x")
        await trio.sleep(0.5)
        assert asked[-1][1] >= stood_until
        nursery.cancel_scope.cancel()


async def test_the_time_that_is_spent_meanwhile_is_not_lost_on_the_rest_of_the_burst(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A packet that was sent meanwhile would be acknowledged before it was sent."""

    def meanwhile(_: float) -> bool:
        autojump_clock.jump(0.010)
        return True

    times: list[tuple[float, float]] = []
    async with connected(MemoryNetwork(), meanwhile=meanwhile) as pair:
        receive = pair.client._receive

        def spy(datagram: bytes, source: Address, now: float) -> None:
            times.append((now, trio.current_time()))
            receive(datagram, source, now)

        monkeypatch.setattr(pair.client, "_receive", spy)
        sender = await pair.server.open_uni()
        for _ in range(20):
            sender.write(b"x")
            pair.server.flush()
            autojump_clock.jump(0.001)
        await trio.sleep(0.5)
    assert len(times) >= 20
    assert all(told == real for told, real in times)


# -- speed and determinism ------------------------------------------------------------------------------------------


async def test_half_a_minute_of_paced_audio_takes_seconds(autojump_clock: MockClock) -> None:
    """50 packets of 200 bytes per second in both directions, all in time."""
    seconds = 30
    network = MemoryNetwork(delay=0.020)
    arrivals: dict[str, list[float]] = {"up": [], "down": []}

    async def talk(connection: Connection) -> None:
        stream = await connection.open_uni()
        clock = PacketClock(connection.flush)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clock.run)
            left, over = 50 * seconds, trio.Event()

            def write(_: float) -> None:
                nonlocal left
                assert stream.backlog < 10_000
                stream.write(bytes(200))
                left -= 1
                if not left:
                    slot.leave()
                    over.set()

            slot = clock.join(write)
            await over.wait()
            stream.finish()
            nursery.cancel_scope.cancel()

    async def listen(connection: Connection, name: str) -> None:
        pending = 0
        async for chunk in await connection.accept():
            pending += len(chunk)
            while pending >= 200:
                pending -= 200
                arrivals[name].append(trio.current_time())

    began = time.process_time()
    async with connected(network) as pair, trio.open_nursery() as nursery:
        nursery.start_soon(talk, pair.client)
        nursery.start_soon(talk, pair.server)
        nursery.start_soon(listen, pair.server, "up")
        nursery.start_soon(listen, pair.client, "down")
    assert time.process_time() - began < 60  # of this process's own; about 2 on an ordinary machine
    for times in arrivals.values():
        assert len(times) == 50 * seconds
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert max(gaps) < 0.025


def test_one_seed_makes_one_run() -> None:
    async def run() -> str:
        network = MemoryNetwork(seed=11, loss=0.1, delay=0.010, jitter=0.020, duplicate=0.05, reorder=0.05)
        async with connected(network, settings=TransportSettings(close_timeout=5.0)) as pair:
            sender, receiver = await a_stream(pair)
            sender.write(bytes(30_000))
            sender.finish()
            await read_all(receiver)
        return network.trace

    traces = set()
    for _ in range(3):
        trio._core._run._r.seed(4)
        traces.add(trio.run(run, clock=MockClock(autojump_threshold=0)))
    assert len(traces) == 1


async def test_what_is_written_to_a_paced_stream_counts_as_media(autojump_clock: MockClock) -> None:
    async with connected(MemoryNetwork()) as pair:
        paced, other = await pair.client.open_uni(paced=True), await pair.client.open_uni()
        other.write(bytes(100))
        paced.write(bytes(60))
        assert pair.client._engine.media.written == 60


@pytest.mark.parametrize("loss", [0.0, 0.01])
async def test_nearly_all_datagrams_of_a_call_take_the_short_way(autojump_clock: MockClock, loss: float) -> None:
    """Ten seconds of audio in both directions, a frame every 20 ms."""
    async with connected(MemoryNetwork(delay=0.020, loss=loss)) as pair:

        async def speak(connection: Connection) -> None:
            stream = await connection.open_uni(paced=True)
            for _ in range(500):
                await stream.send_all(bytes(171))
                await trio.sleep(0.020)

        async def listen(connection: Connection) -> None:
            stream = await connection.accept()
            while True:
                await stream.receive_some()

        async with trio.open_nursery() as nursery:
            for connection in (pair.client, pair.server):
                nursery.start_soon(listen, connection)
            async with trio.open_nursery() as speakers:
                for connection in (pair.client, pair.server):
                    speakers.start_soon(speak, connection)
            nursery.cancel_scope.cancel()
        for connection in (pair.client, pair.server):
            figures = connection.statistics()
            assert figures.datagrams_received > 400
            assert figures.datagrams_ordinary > 0.95 * figures.datagrams_received


async def test_no_datagram_takes_the_short_way_through_the_stock_engine(autojump_clock: MockClock) -> None:
    async with connected(settings=TransportSettings(engine="stock")) as pair:
        await trio.sleep(5.0)
        assert pair.client.statistics().datagrams_received > 5
        assert pair.client.statistics().datagrams_ordinary == 0
