"""Datagrams grow to what the path carries, and shrink when it carries less (RFC 8899, RFC 9000 §14)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock

from agentao_trio._engine import StockEngine
from agentao_trio._engine_mtu import RAISE
from agentao_trio.testing import MemoryNetwork, MemorySocket
from agentao_trio.transport import (
    Address,
    Connection,
    ReceiveStream,
    TransportSettings,
)
from tests.support.quic import Pair, connected, connected_over_udp

SEARCHING = TransportSettings(max_datagram_size=8848)


class Measured(MemoryNetwork):
    """A network that remembers how long its datagrams were."""

    def __init__(self, **path: object) -> None:
        super().__init__(**path)  # type: ignore[arg-type]
        self.lengths: list[int] = []

    def _send(self, sender: MemorySocket, data: bytes, to: Address) -> None:
        self.lengths.append(len(data))
        super()._send(sender, data, to)


def sizes(pair: Pair) -> tuple[int, int]:
    return pair.client.statistics().datagram_size, pair.server.statistics().datagram_size


async def deliver(sender: Connection, receiver: Connection, size: int) -> float:
    """How many seconds so many bytes take."""
    began = trio.current_time()
    stream = await sender.open_uni()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, bytes(size))
        arriving = await receiver.accept()
        assert isinstance(arriving, ReceiveStream)
        left = size
        while left:
            left -= len(await arriving.receive_some())
    await stream.aclose()
    return trio.current_time() - began


@pytest.mark.parametrize("icmp", [True, False])
@pytest.mark.parametrize(
    ("path", "size"),
    [
        ({}, 1452),  # Ethernet
        ({"link_mtu": 9000}, 8848),
        ({"link_mtu": 9000, "mtu": 1500}, 1452),
        ({"mtu": 1420}, 1352),  # a tunnel
        ({"mtu": 1228}, 1200),
    ],
)
async def test_both_sides_find_what_the_path_carries(
    path: dict[str, int], size: int, icmp: bool, autojump_clock: MockClock
) -> None:
    network = Measured(delay=0.010, icmp=icmp, **path)
    async with connected(network, settings=SEARCHING) as pair:
        await trio.sleep(3.0)
        assert sizes(pair) == (size, size)
        window = pair.client.statistics().congestion_window
        network.lengths.clear()
        await deliver(pair.client, pair.server, 200_000)
        assert max(network.lengths) == size
        # What was tried in vain is nobody's loss.
        for side in (pair.client, pair.server):
            assert (side.statistics().packets_lost, side.statistics().path_errors) == (0, 0)
        assert pair.client.statistics().congestion_window >= window


@pytest.mark.parametrize("icmp", [True, False])
async def test_a_path_that_comes_to_carry_less_is_noticed(icmp: bool, autojump_clock: MockClock) -> None:
    network = MemoryNetwork(delay=0.010, icmp=icmp)
    async with connected(network, settings=SEARCHING) as pair:
        await trio.sleep(3.0)
        assert sizes(pair) == (1452, 1452)
        network.mtu = 1400
        assert await deliver(pair.client, pair.server, 20_000) < 1.5
        assert await deliver(pair.server, pair.client, 20_000) < 1.5
        await trio.sleep(3.0)
        assert sizes(pair) == (1352, 1352)
        network.mtu = None
        await trio.sleep(RAISE + 3.0)
        assert sizes(pair) == (1452, 1452)


async def test_on_a_path_that_loses_now_and_then_it_stays_found(autojump_clock: MockClock) -> None:
    async with connected(Measured(seed=1, delay=0.010, loss=0.02), settings=SEARCHING) as pair:
        await trio.sleep(3.0)
        for _ in range(20):
            await deliver(pair.client, pair.server, 50_000)
            assert sizes(pair)[0] == 1452


@pytest.mark.parametrize("settings", [TransportSettings(max_datagram_size=1200), TransportSettings(engine="stock")])
async def test_it_can_be_left_alone(settings: TransportSettings, autojump_clock: MockClock) -> None:
    network = Measured(delay=0.010, link_mtu=9000)
    async with connected(network, settings=settings) as pair:
        await deliver(pair.client, pair.server, 200_000)
        await trio.sleep(2.0)
        assert sizes(pair) == (1200, 1200)
    assert max(network.lengths) == 1200


@contextlib.contextmanager
def who_takes(size: int) -> Iterator[None]:
    """Every side says so in its handshake: ``max_udp_payload_size`` (RFC 9000 §18.2)."""
    serialize = StockEngine._serialize_transport_parameters

    def with_limit(self: StockEngine) -> bytes:
        return serialize(self) + bytes((0x03, 2)) + (0x4000 | size).to_bytes(2, "big")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StockEngine, "_serialize_transport_parameters", with_limit)
        yield


async def test_a_peer_gets_no_more_than_it_takes(autojump_clock: MockClock) -> None:
    network = Measured(delay=0.010)
    with who_takes(1400):
        async with connected(network, settings=SEARCHING) as pair:
            await trio.sleep(3.0)
            assert sizes(pair) == (1352, 1352)
    assert max(network.lengths) == 1352


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing keeps a datagram from being sent in fragments")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_on_real_sockets(host: str) -> None:
    async with connected_over_udp(host) as (client, server, _):
        with trio.fail_after(30):
            while client.statistics().datagram_size < 8848 or server.statistics().datagram_size < 8848:
                await trio.sleep(0.05)
        await deliver(client, server, 1_000_000)
        assert client.statistics().packets_lost == 0
