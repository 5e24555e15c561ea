"""Sockets that carry datagrams: what the transport asks of one, and real UDP. :mod:`agentao_trio.transport`
re-exports it.

The calls that move data never wait. Waiting is one method of its own, so that a test can put a network in memory in
UDP's place, and so that nothing awaits between the engine's decision to send and the sending.
"""

from __future__ import annotations

import contextlib
import socket as stdlib_socket
import sys
from typing import Any, Protocol

import trio

__all__ = ["Address", "DatagramSocket", "UdpSocket", "describe", "open_udp_socket", "resolve"]

#: Host and port first; IPv6 adds two more. Only ever compared and handed back.
Address = tuple[Any, ...]

#: The largest UDP payload there is.
MAX_DATAGRAM = 65_527

#: What is asked of the kernel, bytes. It may give less.
SOCKET_BUFFER = 4 * 1024 * 1024


def describe(address: Address) -> str:
    """``host:port`` as people write it."""
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


class DatagramSocket(Protocol):
    """What the transport needs of a socket. Real UDP and the in-memory network have it in common."""

    @property
    def address(self) -> Address:
        """Where this socket is reached, host and port first."""

    async def resolve(self, host: str, port: int) -> Address:
        """The address that ``send`` takes for a name. Raises OSError when there is none."""

    def send(self, data: bytes, to: Address) -> None:
        """Hand one datagram over, at once or never: BlockingIOError when there is no room for it, and any other
        OSError for what this machine knows of the path (unreachable, too long)."""

    def receive(self) -> tuple[bytes, Address]:
        """The next datagram and its sender. BlockingIOError when there is none; any other OSError is what the network
        reported about a datagram sent earlier (ConnectionRefusedError: nobody listens there)."""

    async def wait_readable(self) -> None:
        """Wait until ``receive`` may have something. A checkpoint, always."""

    def close(self) -> None:
        """Give the address back. Harmless when repeated."""


class UdpSocket:
    """A non-blocking UDP socket as :class:`DatagramSocket`. Made by :func:`open_udp_socket`."""

    def __init__(self, sock: stdlib_socket.socket) -> None:
        self._socket = sock
        self._peer: Address | None = None
        self._buffer = bytearray(MAX_DATAGRAM)
        self._view = memoryview(self._buffer)
        sock.setblocking(False)
        for option in (stdlib_socket.SO_RCVBUF, stdlib_socket.SO_SNDBUF):
            sock.setsockopt(stdlib_socket.SOL_SOCKET, option, SOCKET_BUFFER)
        _forbid_fragmentation(sock)

    def __repr__(self) -> str:
        return f"<UdpSocket {'closed' if self._socket.fileno() == -1 else self.address}>"

    @property
    def address(self) -> Address:
        """Where this one is: host and port."""
        address: Address = self._socket.getsockname()
        return address

    async def resolve(self, host: str, port: int) -> Address:
        """Host and port as an address. Raises OSError."""
        return (await resolve(host, port, self._socket.family))[0][1]

    def connect(self, peer: Address) -> None:
        """Exchange datagrams with ``peer`` alone, and hear of it when nobody listens there. Raises OSError."""
        self._socket.connect(peer)
        self._peer = peer

    def send(self, data: bytes, to: Address) -> None:
        """Send one datagram; it may get lost. Raises OSError once this is closed."""
        if self._peer is None:
            self._socket.sendto(data, to)
        else:
            self._socket.send(data)

    def receive(self) -> tuple[bytes, Address]:
        """One datagram and where it came from. Raises BlockingIOError when there is none."""
        if self._peer is None:
            length, source = self._socket.recvfrom_into(self._buffer)
        else:
            length, source = self._socket.recv_into(self._buffer), self._peer
        return bytes(self._view[:length]), source

    async def wait_readable(self) -> None:
        """Wait until there is something to receive. Cancellation loses nothing."""
        await trio.lowlevel.wait_readable(self._socket)

    def close(self) -> None:
        """Close it; harmless when repeated. Whoever waits is told so."""
        if self._socket.fileno() != -1:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


def _forbid_fragmentation(sock: stdlib_socket.socket) -> None:
    # RFC 9000 §14: QUIC's datagrams must not be fragmented. Linux then also tells us when one does not fit the path.
    # The constants are Linux's; the socket module does not export them.
    ip_mtu_discover, ipv6_mtu_discover, pmtudisc_do = 10, 23, 2
    if sys.platform == "linux":
        sock.setsockopt(stdlib_socket.IPPROTO_IP, ip_mtu_discover, pmtudisc_do)
        if sock.family == stdlib_socket.AF_INET6:
            sock.setsockopt(stdlib_socket.IPPROTO_IPV6, ipv6_mtu_discover, pmtudisc_do)


async def resolve(host: str, port: int, family: int = 0) -> list[tuple[int, Address]]:
    """(family, address) in the system's order of preference. Numbers are not looked up."""
    found = await trio.socket.getaddrinfo(host, port, family=family, type=stdlib_socket.SOCK_DGRAM)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


async def open_udp_socket(host: str, port: int = 0) -> UdpSocket:
    """A UDP socket bound to ``host`` (IPv4 or IPv6, a number or a name) and ``port``; 0 picks a free one.

    Raises OSError when the address cannot be had. Cancellation leaves nothing open.
    """
    family, address = (await resolve(host, port))[0]
    with contextlib.ExitStack() as unless_it_works:
        sock = unless_it_works.enter_context(stdlib_socket.socket(family, stdlib_socket.SOCK_DGRAM))
        sock.bind(address)
        udp_socket = UdpSocket(sock)
        unless_it_works.pop_all()
    return udp_socket
