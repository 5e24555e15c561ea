"""Targets: the embedded gateway on a network in memory, and a gateway somewhere."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs

from agentao_trio.conformance.profile import Profile
from agentao_trio.gateway import GatewaySettings, open_gateway
from agentao_trio.testing import MemoryNetwork
from agentao_trio.transport import open_udp_socket

__all__ = ["EMBEDDED", "RealTarget", "SimulatedTarget"]

#: Whom the embedded gateway's far ends are, by role.
EMBEDDED = {
    "answer": "+15550100001",
    "busy": "+15550100017",
    "noanswer": "+15550100019",
    "invalid": "not-a-number",
    "loopback": "+15550100001",
}


@attrs.frozen(kw_only=True)
class SimulatedTarget:
    """The embedded gateway in this process, on a network in memory; meant for trio's virtual time."""

    settings: GatewaySettings = attrs.field(factory=GatewaySettings)
    loss: float = 0.0
    seed: int = 0
    #: Faults of the gateway, by name.
    faults: tuple[str, ...] = ()

    @contextlib.asynccontextmanager
    async def arena(self) -> AsyncIterator[tuple[Profile, Callable[[], Any]]]:
        network = MemoryNetwork(seed=self.seed, loss=self.loss)
        host, port = "gateway.test", 9090

        async def open_socket() -> Any:
            return network.socket()

        async with open_gateway(
            socket=network.socket((host, port)), names=[host], settings=self.settings, seed=self.seed
        ) as gateway:
            yield Profile(address=(host, port), tls=gateway.tls, destinations=EMBEDDED), open_socket


@attrs.frozen(kw_only=True)
class RealTarget:
    """A gateway that its profile tells how to reach."""

    profile: Profile

    @contextlib.asynccontextmanager
    async def arena(self) -> AsyncIterator[tuple[Profile, Callable[[], Any]]]:
        async def open_socket() -> Any:
            return await open_udp_socket("::" if ":" in self.profile.address[0] else "0.0.0.0")  # noqa: S104 - a client

        yield self.profile, open_socket
