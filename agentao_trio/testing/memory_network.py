"""For tests without a network: datagrams in memory, in trio's time, on a network that is as bad as wanted.

Give its sockets to :func:`~agentao_trio.transport.open_connection` and :func:`~agentao_trio.transport.open_listener`,
and run under ``trio.testing.MockClock(autojump_threshold=0)``: a minute of conversation then takes a second or two.
One seed gives one network; :attr:`MemoryNetwork.trace` tells whether two runs were the same, provided that trio's
scheduler is deterministic too, as it is under pytest-trio.

There is no task behind it. A datagram is put into the receiver's heap with the time of its arrival, and whoever waits
for that socket sleeps until then.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import heapq
import os
import random
import socket as stdlib_socket
import struct
from collections.abc import Iterator

import attrs
import trio

from agentao_trio.transport import Address

__all__ = ["MemoryNetwork", "MemorySocket", "NetworkStatistics"]

#: Bytes of IPv4 and UDP header that count towards an MTU.
HEADERS = 28

#: Datagrams that wait in one socket before the next ones are dropped, as a kernel would.
QUEUE = 8192


@attrs.frozen(kw_only=True)
class NetworkStatistics:
    """Datagrams: handed to the network, handed out by it, and lost in it for whatever reason."""

    sent: int
    delivered: int
    lost: int


class MemoryNetwork:
    """A network of :class:`MemorySocket`.

    Probabilities (0 to 1, per datagram): ``loss``, ``duplicate``, and ``reorder``, of being held back long enough for
    others to overtake. Seconds: ``delay`` one way, and up to ``jitter`` more, drawn anew for each datagram; with
    ``in_order`` jitter alone does not change the order. ``mtu`` is the path's, and counts IP and UDP headers, 28 bytes.
    ``icmp``: the sender is told (by an error from ``receive``) when nobody listens at an address or a datagram does not
    fit; without it there is silence. ``link_mtu`` is that of the sockets' own machines, which refuse what is longer.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        loss: float = 0.0,
        delay: float = 0.0,
        jitter: float = 0.0,
        in_order: bool = True,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        mtu: int | None = None,
        icmp: bool = True,
        link_mtu: int = 1500,
    ) -> None:
        self.loss = loss
        self.delay = delay
        self.jitter = jitter
        self.in_order = in_order
        self.duplicate = duplicate
        self.reorder = reorder
        self.mtu = mtu
        self.icmp = icmp
        self.link_mtu = link_mtu
        self._random = random.Random(seed)
        self._sockets: dict[Address, MemorySocket] = {}
        self._next_port = 49_152
        self._dark_until = float("-inf")
        self._blackholes: list[tuple[Address | None, Address | None]] = []
        self._last_arrival: dict[tuple[Address, Address], float] = {}
        self._number = 0
        self._trace = hashlib.sha256()
        self._sent = self._delivered = self._lost = 0

    def __repr__(self) -> str:
        return f"<MemoryNetwork of {len(self._sockets)} sockets, {self._sent} datagrams sent, {self._lost} lost>"

    def socket(self, address: tuple[str, int] | None = None) -> MemorySocket:
        """A socket at ``address``, by default a fresh one. Raises OSError (EADDRINUSE) when it is taken."""
        return MemorySocket(self, self._claim(address))

    def rebind(self, socket: MemorySocket, address: tuple[str, int] | None = None) -> None:
        """Let a socket be seen at another address from now on, as a NAT does that has forgotten it."""
        fresh = self._claim(address)
        self._sockets.pop(socket.address, None)
        socket._address = fresh
        self._sockets[fresh] = socket

    def outage(self, seconds: float) -> None:
        """Lose every datagram that is sent within the next ``seconds``."""
        self._dark_until = trio.current_time() + seconds

    @contextlib.contextmanager
    def blackhole(self, *, source: Address | None = None, destination: Address | None = None) -> Iterator[None]:
        """Lose, silently and within the block, what goes from ``source`` to ``destination``; ``None`` means any."""
        rule = (source, destination)
        self._blackholes.append(rule)
        try:
            yield
        finally:
            self._blackholes.remove(rule)

    @property
    def trace(self) -> str:
        """A hash of (time, source, destination, length) of every datagram sent so far: the run's identity."""
        return self._trace.hexdigest()

    def statistics(self) -> NetworkStatistics:
        """A snapshot."""
        return NetworkStatistics(sent=self._sent, delivered=self._delivered, lost=self._lost)

    def _claim(self, address: tuple[str, int] | None) -> Address:
        if address is None or address[1] == 0:
            address = (address[0] if address is not None else "10.0.0.1", self._next_port)
            self._next_port += 1
        if address in self._sockets:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        return address

    def _send(self, sender: MemorySocket, data: bytes, to: Address) -> None:
        now = trio.current_time()
        source = sender.address
        self._sent += 1
        self._trace.update(repr((source, to)).encode() + struct.pack("<dI", now, len(data)))
        # The same draws for every datagram, so that one rule's outcome does not shift another's.
        lost, twice, late, jitter = (self._random.random() for _ in range(4))
        if now < self._dark_until or lost < self.loss or self._is_swallowed(source, to):
            self._lost += 1
            return
        arrival = now + self.delay + jitter * self.jitter
        if self.mtu is not None and len(data) + HEADERS > self.mtu:
            self._lost += 1
            self._complain(sender, errno.EMSGSIZE, arrival)
            return
        if late < self.reorder:
            arrival += max(self.delay, 2 * self.jitter, 0.010)
        elif self.in_order:
            arrival = max(arrival, self._last_arrival.get((source, to), arrival))
            self._last_arrival[source, to] = arrival
        receiver = self._sockets.get(to)
        if receiver is None:
            self._lost += 1
            self._complain(sender, errno.ECONNREFUSED, arrival)
            return
        for _ in range(2 if twice < self.duplicate else 1):
            self._number += 1
            if receiver._arrive(arrival, self._number, (data, source)):
                self._delivered += 1
            else:
                self._lost += 1

    def _is_swallowed(self, source: Address, to: Address) -> bool:
        return any(
            (from_ is None or from_ == source) and (target is None or target == to)
            for from_, target in self._blackholes
        )

    def _complain(self, sender: MemorySocket, number: int, arrival: float) -> None:
        if self.icmp:
            self._number += 1
            sender._arrive(arrival, self._number, OSError(number, os.strerror(number)))


class MemorySocket:
    """A socket of a :class:`MemoryNetwork`; a :class:`~agentao_trio.transport.DatagramSocket`."""

    def __init__(self, network: MemoryNetwork, address: Address) -> None:
        self._network = network
        self._address = address
        self._arrivals: list[tuple[float, int, tuple[bytes, Address] | OSError]] = []
        self._changed = trio.lowlevel.ParkingLot()
        self._closed = False
        network._sockets[address] = self

    def __repr__(self) -> str:
        host, port, *_ = self._address
        state = "closed" if self._closed else "open"
        return f"<MemorySocket {host}:{port}, {state}, {len(self._arrivals)} datagrams arriving>"

    @property
    def address(self) -> Address:
        """Where this one is: host and port."""
        return self._address

    async def resolve(self, host: str, port: int) -> Address:
        """Names stand for themselves, except that those under ``.invalid`` do not exist (RFC 6761).

        Cancellation changes nothing.
        """
        await trio.lowlevel.checkpoint()
        if host.endswith(".invalid"):
            raise stdlib_socket.gaierror(stdlib_socket.EAI_NONAME, "Name or service not known")
        return host, port

    def send(self, data: bytes, to: Address) -> None:
        """Send one datagram; it may get lost. Raises OSError once this is closed, and for one that is too long."""
        if self._closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if len(data) + HEADERS > self._network.link_mtu:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        self._network._send(self, data, to)

    def receive(self) -> tuple[bytes, Address]:
        """One datagram and where it came from. Raises BlockingIOError when there is none."""
        if not self._is_readable():
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        what = heapq.heappop(self._arrivals)[2]
        if isinstance(what, OSError):
            raise what
        return what

    async def wait_readable(self) -> None:
        """Wait until there is something to receive. Cancellation loses nothing."""
        if self._is_readable():
            await trio.lowlevel.checkpoint()
            return
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._is_readable():
            if self._closed:
                raise trio.ClosedResourceError("this socket was closed")
            due = self._arrivals[0][0] if self._arrivals else float("inf")
            with trio.CancelScope(deadline=due):
                await self._changed.park()

    def _is_readable(self) -> bool:
        return bool(self._arrivals) and self._arrivals[0][0] <= trio.current_time()

    def close(self) -> None:
        """Close it; harmless when repeated. Whoever waits is told so."""
        if not self._closed:
            self._closed = True
            self._network._sockets.pop(self._address, None)
            self._arrivals.clear()
            self._changed.unpark_all()

    def _arrive(self, when: float, number: int, what: tuple[bytes, Address] | OSError) -> bool:
        if len(self._arrivals) >= QUEUE:
            return False
        heapq.heappush(self._arrivals, (when, number, what))
        if self._arrivals[0][1] == number:
            self._changed.unpark_all()
        return True
