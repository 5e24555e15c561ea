"""The network that the other tests stand on does what its parameters say."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterable

import pytest
import trio
from trio.testing import MockClock

from agentao_trio.testing import MemoryNetwork, MemorySocket
from agentao_trio.testing.memory_network import QUEUE

HERE, THERE = ("10.0.0.1", 1), ("10.0.0.2", 2)


def pair(network: MemoryNetwork) -> tuple[MemorySocket, MemorySocket]:
    return network.socket(HERE), network.socket(THERE)


def send(socket: MemorySocket, numbers: Iterable[int]) -> None:
    for number in numbers:
        socket.send(number.to_bytes(2), THERE)


async def collect(socket: MemorySocket, seconds: float = 10.0) -> list[tuple[int, float]]:
    """(number, when it came) of everything that arrives within ``seconds``."""
    arrived = []
    with trio.move_on_after(seconds):
        while True:
            await socket.wait_readable()
            data, source = socket.receive()
            assert source == HERE
            arrived.append((int.from_bytes(data), trio.current_time()))
    return arrived


async def test_a_datagram_takes_its_time(autojump_clock: MockClock) -> None:
    near, far = pair(MemoryNetwork(delay=0.25))
    sent = trio.current_time()
    send(near, [7])
    with pytest.raises(BlockingIOError):
        far.receive()
    ((number, came),) = await collect(far)
    assert (number, came - sent) == (7, pytest.approx(0.25))
    assert near.address == HERE
    assert far.address == THERE


@pytest.mark.parametrize("in_order", [True, False])
async def test_jitter_changes_the_order_only_if_allowed(autojump_clock: MockClock, in_order: bool) -> None:
    near, far = pair(MemoryNetwork(delay=0.01, jitter=0.05, in_order=in_order))
    sent = trio.current_time()
    send(near, range(200))
    arrived = await collect(far)
    numbers = [number for number, _ in arrived]
    assert sorted(numbers) == list(range(200))
    assert (numbers == sorted(numbers)) is in_order
    assert all(0.01 <= came - sent <= 0.06 for _, came in arrived)


@pytest.mark.parametrize(
    ("parameters", "fewest", "most"),
    [({"loss": 0.3}, 600, 800), ({"loss": 1.0}, 0, 0), ({"duplicate": 0.3}, 1200, 1400), ({}, 1000, 1000)],
)
async def test_losses_and_duplicates_are_as_many_as_asked_for(
    autojump_clock: MockClock, parameters: dict[str, float], fewest: int, most: int
) -> None:
    network = MemoryNetwork(**parameters)  # type: ignore[arg-type]
    near, far = pair(network)
    send(near, range(1000))
    arrived = await collect(far)
    assert fewest <= len(arrived) <= most
    statistics = network.statistics()
    assert (statistics.sent, statistics.delivered) == (1000, len(arrived))
    if "duplicate" not in parameters:
        assert statistics.lost == 1000 - len(arrived)


async def test_reordered_datagrams_are_overtaken(autojump_clock: MockClock) -> None:
    near, far = pair(MemoryNetwork(delay=0.01, reorder=0.1))
    for number in range(100):
        send(near, [number])
        await trio.sleep(0.001)
    numbers = [number for number, _ in await collect(far)]
    assert sorted(numbers) == list(range(100))
    overtaken = sum(later < earlier for earlier, later in itertools.pairwise(numbers))
    assert 3 <= overtaken <= 20


async def test_the_path_can_go_dark_for_a_while(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    near, far = pair(network)
    network.outage(0.95)
    for number in range(20):
        send(near, [number])
        await trio.sleep(0.1)
    assert [number for number, _ in await collect(far)] == list(range(10, 20))


async def test_one_direction_can_be_cut(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    near, far = pair(network)
    for rule, arrives in (
        ({"source": HERE}, False),
        ({"destination": THERE}, False),
        ({"source": HERE, "destination": THERE}, False),
        ({"source": THERE}, True),
        ({"source": THERE, "destination": THERE}, True),
        ({}, False),
    ):
        with network.blackhole(**rule):
            send(near, [1])
        assert bool(await collect(far, 1.0)) is arrives, rule
    send(near, [1])
    assert await collect(far, 1.0)


async def test_what_the_network_cannot_deliver_is_reported_if_it_reports(autojump_clock: MockClock) -> None:
    for icmp in (True, False):
        near = MemoryNetwork(mtu=128, icmp=icmp).socket(HERE)
        for length, number in ((100, errno.ECONNREFUSED), (101, errno.EMSGSIZE)):
            near.send(bytes(length), THERE)
            if icmp:
                await near.wait_readable()
                with pytest.raises(OSError, match=r"\[Errno") as caught:
                    near.receive()
                assert caught.value.errno == number
            with pytest.raises(BlockingIOError):
                near.receive()


async def test_a_rebound_socket_is_found_at_its_new_address_only(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(delay=0.01)
    near, far = pair(network)
    network.rebind(far)
    assert far.address != THERE
    send(near, [1])
    near.send((2).to_bytes(2), far.address)
    assert [number for number, _ in await collect(far)] == [2]


async def test_a_receiver_that_does_not_read_loses_what_it_has_no_room_for(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    near, far = pair(network)
    for _ in range(QUEUE + 10):
        near.send(b"\0\1", THERE)
    assert len(await collect(far)) == QUEUE
    assert network.statistics().lost == 10


async def test_waiting_ends_with_the_socket(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(delay=0.01)
    near, far = pair(network)

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await far.wait_readable()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(1)
        far.close()
    far.close()
    with pytest.raises(OSError, match="file descriptor"):
        far.send(b"x", HERE)
    send(near, [1])  # to nobody
    assert network.socket(THERE).address == THERE  # the address is free again


async def test_waiting_is_cancellable_and_loses_nothing(autojump_clock: MockClock) -> None:
    near, far = pair(MemoryNetwork(delay=1.0))
    send(near, [5])
    with trio.move_on_after(0.5) as scope:
        await far.wait_readable()
    assert scope.cancelled_caught
    assert [number for number, _ in await collect(far)] == [5]


async def test_a_later_datagram_can_be_the_first_to_arrive(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(delay=1.0, in_order=False)
    near, far = pair(network)
    send(near, [1])

    async def quicker() -> None:
        await trio.sleep(0.1)
        network.delay = 0.1
        send(near, [2])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(quicker)
        arrived = await collect(far)
    assert [number for number, _ in arrived] == [2, 1]
    assert arrived[1][1] - arrived[0][1] == pytest.approx(0.8)


async def test_addresses_are_unique_and_names_resolve_to_themselves(autojump_clock: MockClock) -> None:
    network = MemoryNetwork()
    assert network.socket().address != network.socket().address
    assert network.socket(("10.0.0.9", 0)).address[1] != 0
    near = network.socket(HERE)
    with pytest.raises(OSError, match="in use"):
        network.socket(HERE)
    assert await near.resolve("gateway.test", 9090) == ("gateway.test", 9090)
    with pytest.raises(OSError, match="not known"):
        await near.resolve("gateway.invalid", 9090)


def test_the_same_seed_makes_the_same_network() -> None:
    async def run(seed: int) -> tuple[str, list[tuple[int, float]]]:
        network = MemoryNetwork(
            seed=seed, loss=0.2, delay=0.01, jitter=0.05, in_order=False, duplicate=0.1, reorder=0.1
        )
        near, far = pair(network)
        send(near, range(300))
        return network.trace, await collect(far)

    runs = [trio.run(run, seed, clock=MockClock(autojump_threshold=0)) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0][1] != runs[2][1]
    assert runs[0][0] == runs[2][0]  # the trace is what was sent, not what became of it
