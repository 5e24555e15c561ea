"""The same over real UDP on loopback: only what the kernel has a part in."""

from __future__ import annotations

import errno
import socket as stdlib_socket
import sys

import pytest
import trio
import trio.testing

from agentao_trio.errors import ConnectError, ConnectionLost
from agentao_trio.transport import (
    ReceiveStream,
    ServerTLS,
    TransportSettings,
    UdpSocket,
    open_connection,
    open_listener,
    open_udp_socket,
)
from tests.support.ports import silent_port
from tests.support.quic import client_tls, connected_over_udp, server_tls

LOOPBACK = "127.0.0.1"


def open_sockets() -> int:
    return trio.lowlevel.current_statistics().io_statistics.tasks_waiting_read


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_bytes_arrive_over_udp(host: str) -> None:
    async with connected_over_udp(host) as (client, server, listener):
        sender = await client.open_uni()

        async def send() -> None:
            await sender.send_all(bytes(1_000_000))
            sender.finish()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            received = 0
            async for chunk in await server.accept():
                received += len(chunk)
        assert received == 1_000_000
        assert client.peer_address[:2] == (host, listener.address[1])
        statistics = client.statistics()
        assert statistics.bytes_sent > 1_000_000
        assert statistics.rtt > 0


async def test_nobody_listening_is_known_at_once() -> None:
    before = open_sockets()
    with (
        silent_port() as port,
        trio.fail_after(60),
        pytest.raises(ConnectError, match=f"nobody listens on UDP port {port}"),
    ):
        async with open_connection(LOOPBACK, port, tls=client_tls(), timeout=600):
            pass
    assert open_sockets() == before


async def test_of_several_addresses_the_one_that_answers_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_listener((LOOPBACK, 0), tls=server_tls("localhost")) as listener:
        port = listener.address[1]

        async def getaddrinfo(*_: object, **__: object) -> list[object]:
            datagrams = stdlib_socket.SOCK_DGRAM
            return [
                (stdlib_socket.AF_INET6, datagrams, 17, "", ("::1", port, 0, 0)),  # refused
                (stdlib_socket.AF_INET, datagrams, 17, "", ("127.0.0.2", port)),  # refused
                (stdlib_socket.AF_INET, datagrams, 17, "", (LOOPBACK, port)),
            ]

        monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
        with trio.fail_after(60):
            async with open_connection("localhost", port, tls=client_tls(), timeout=600) as client:
                assert client.peer_address == (LOOPBACK, port)


@pytest.mark.parametrize("host", ["does-not-exist.invalid", "a" * 70 + ".example", "no\0where"])
async def test_names_that_cannot_be_resolved(host: str) -> None:
    with pytest.raises(ConnectError, match="cannot be resolved"):
        async with open_connection(host, 9090, tls=client_tls()):
            pass


@pytest.mark.parametrize("port", [0, 65_536, -1])
async def test_numbers_that_are_no_port(port: int) -> None:
    with pytest.raises(ConnectError, match="not a UDP port"):
        async with open_connection(LOOPBACK, port, tls=client_tls()):
            pass


async def test_a_listener_that_went_away_is_missed() -> None:
    settings = TransportSettings(ping_interval=0.2, dead_after=0.3)
    socket = await open_udp_socket(LOOPBACK)
    async with (
        open_listener(socket, tls=server_tls()) as listener,
        open_connection(LOOPBACK, socket.address[1], tls=client_tls(), settings=settings) as client,
    ):
        await listener.accept()
        listener._scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        socket.close()  # from here on the kernel answers for it, by ICMP; that alone proves nothing
        with trio.fail_after(60), pytest.raises(ConnectionLost, match="does not answer any more"):
            await client.accept()


async def test_an_address_in_use_is_an_os_error() -> None:
    async with open_listener((LOOPBACK, 0), tls=server_tls()) as listener:
        with pytest.raises(OSError, match="in use") as caught:
            async with open_listener((LOOPBACK, listener.address[1]), tls=server_tls()):
                pass
        assert caught.value.errno == errno.EADDRINUSE


async def test_a_bad_key_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="private key"):
        async with open_listener(
            (LOOPBACK, 0),
            tls=ServerTLS(certificate_chain_pem=server_tls().certificate_chain_pem, private_key_pem=b"no key"),
        ):
            pass


async def test_a_full_send_buffer_drops_and_does_not_wait() -> None:
    async with connected_over_udp(LOOPBACK) as (client, server, _):
        assert isinstance(client._socket, UdpSocket)
        real = client._socket._socket

        class Full:
            left = 2

            def send(self, data: bytes) -> int:
                if self.left:
                    self.left -= 1
                    raise BlockingIOError(errno.EAGAIN, "full")
                return real.send(data)

            def __getattr__(self, name: str) -> object:
                return getattr(real, name)

        client._socket._socket = Full()  # type: ignore[assignment]
        stream = await client.open_uni()
        stream.write(bytes(20_000))
        stream.finish()
        client.flush()
        client._socket._socket = real
        assert client.statistics().datagrams_dropped == 2
        receiver = await server.accept()
        assert isinstance(receiver, ReceiveStream)
        with trio.fail_after(60):
            assert b"".join([chunk async for chunk in receiver]) == bytes(20_000)


@pytest.mark.skipif(sys.platform != "linux", reason="the option and the errors are Linux's")
async def test_datagrams_are_sent_unfragmented() -> None:
    socket = await open_udp_socket(LOOPBACK)
    try:
        with pytest.raises(OSError, match="too long") as caught:
            socket.send(bytes(65_508), (LOOPBACK, 9))
        assert caught.value.errno == errno.EMSGSIZE
        assert socket._socket.getsockopt(stdlib_socket.IPPROTO_IP, 10) == 2  # IP_MTU_DISCOVER: IP_PMTUDISC_DO
    finally:
        socket.close()
        socket.close()


async def test_leaving_closes_the_sockets_that_were_opened_here() -> None:
    async with open_listener((LOOPBACK, 0), tls=server_tls()) as listener:
        async with open_connection(LOOPBACK, listener.address[1], tls=client_tls()) as client:
            pass
        assert isinstance(client._socket, UdpSocket)
        assert client._socket._socket.fileno() == -1
    assert isinstance(listener._socket, UdpSocket)
    assert listener._socket._socket.fileno() == -1


async def test_a_borrowed_socket_stays_open() -> None:
    socket = await open_udp_socket(LOOPBACK)
    async with open_listener((LOOPBACK, 0), tls=server_tls()) as listener:
        for _ in range(2):
            async with open_connection(LOOPBACK, listener.address[1], tls=client_tls(), socket=socket):
                pass
    assert socket._socket.fileno() != -1
    socket.close()
