"""Certificates and connected pairs for the transport's tests."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import trustme

from agentao_trio.testing import MemoryNetwork, MemorySocket
from agentao_trio.transport import (
    ClientTLS,
    Connection,
    Listener,
    ServerTLS,
    TransportSettings,
    open_connection,
    open_listener,
)

HOST = "gateway.test"
PORT = 9090


@functools.cache
def authority(name: str) -> trustme.CA:
    """One certificate authority per name and test run."""
    return trustme.CA(organization_name=name)


@functools.cache
def server_tls(
    *names: str, ca: str = "ours", not_before: datetime | None = None, not_after: datetime | None = None
) -> ServerTLS:
    leaf = authority(ca).issue_cert(*(names or (HOST, "127.0.0.1", "::1")), not_before=not_before, not_after=not_after)
    return ServerTLS(
        certificate_chain_pem=b"".join(pem.bytes() for pem in leaf.cert_chain_pems),
        private_key_pem=leaf.private_key_pem.bytes(),
    )


def client_tls(ca: str = "ours", **kwargs: Any) -> ClientTLS:
    return ClientTLS(ca=authority(ca).cert_pem.bytes(), **kwargs)


def long_ago() -> tuple[datetime, datetime]:
    return datetime(2001, 1, 1, tzinfo=UTC), datetime(2002, 1, 1, tzinfo=UTC)


class Pair:
    """A client's connection, the same connection as the server has it, and what they run over."""

    def __init__(
        self, client: Connection, server: Connection, network: MemoryNetwork, socket: MemorySocket, listener: Listener
    ) -> None:
        self.client = client
        self.server = server
        self.network = network
        self.socket = socket
        self.listener = listener


@contextlib.asynccontextmanager
async def connected_over_udp(host: str) -> AsyncIterator[tuple[Connection, Connection, Listener]]:
    """Client, server and listener on real sockets of this machine."""
    async with (
        open_listener((host, 0), tls=server_tls()) as listener,
        open_connection(host, listener.address[1], tls=client_tls()) as client,
    ):
        yield client, await listener.accept(), listener


@contextlib.asynccontextmanager
async def connected(
    network: MemoryNetwork | None = None,
    *,
    settings: TransportSettings | None = None,
    server_settings: TransportSettings | None = None,
    meanwhile: Callable[[float], bool] = lambda _: False,
) -> AsyncIterator[Pair]:
    """A connected pair on an in-memory network, for virtual time."""
    network = network or MemoryNetwork(delay=0.010)
    socket = network.socket()
    async with (
        open_listener(network.socket((HOST, PORT)), tls=server_tls(), settings=server_settings or settings) as listener,
        open_connection(HOST, PORT, tls=client_tls(), socket=socket, settings=settings, meanwhile=meanwhile) as client,
    ):
        yield Pair(client, await listener.accept(), network, socket, listener)
