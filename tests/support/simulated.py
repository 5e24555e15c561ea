"""A session with the embedded gateway on an in-memory network: real QUIC and TLS, virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from agentao_trio import Session, open_session
from agentao_trio.gateway import Gateway, GatewaySettings, open_gateway
from agentao_trio.testing import MemoryNetwork

HOST, PORT = "gateway.test", 9090


@asynccontextmanager
async def simulated(
    settings: GatewaySettings | None = None, network: MemoryNetwork | None = None, **options: Any
) -> AsyncIterator[tuple[Session, Gateway]]:
    """Both ends of a perfect network, or of the one given."""
    network = network or MemoryNetwork()
    async with (
        open_gateway(socket=network.socket((HOST, PORT)), names=[HOST], settings=settings, seed=1) as gateway,
        open_session(f"quic://{HOST}:{PORT}", tls=gateway.tls, socket=network.socket(), **options) as session,
    ):
        yield session, gateway
