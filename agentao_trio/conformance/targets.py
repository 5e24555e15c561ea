"""Targets: the embedded gateway on a network in memory, and a gateway somewhere."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

import attrs
import trio
from cryptography.hazmat.primitives.asymmetric import rsa

from agentao_trio.conformance.profile import Profile, token_maker, with_tokens
from agentao_trio.credentials import ServiceAccount, TokenVerifier
from agentao_trio.gateway import GatewaySettings, open_gateway
from agentao_trio.testing import MemoryNetwork
from agentao_trio.transport import open_udp_socket

__all__ = ["EMBEDDED", "Arena", "RealTarget", "SimulatedTarget"]

#: Whom the embedded gateway's far ends are, by role.
EMBEDDED = {
    "answer": "+15550100001",
    "busy": "+15550100017",
    "noanswer": "+15550100019",
    "invalid": "not-a-number",
    "loopback": "+15550100001",
}
_PORT = 9090


@attrs.frozen(kw_only=True)
class Arena:
    """Where checks are run: the profile, and an async function that opens a datagram socket."""

    profile: Profile
    open_socket: Callable[[], Any]


@functools.cache
def _accounts() -> tuple[ServiceAccount, ...]:
    """Two tenants. Keys take a tenth of a second each, so that they are made where they are needed, and once."""
    return tuple(
        ServiceAccount(tenant_id=tenant, private_key=rsa.generate_private_key(public_exponent=65537, key_size=2048))
        for tenant in ("default", "somebody-else")
    )


@attrs.frozen(kw_only=True)
class SimulatedTarget:
    """The embedded gateway in this process, on a network in memory; meant for trio's virtual time.

    It comes in three kinds, each at a host of its own: as it is, requiring tokens ("token", "second_tenant"), and with
    the audio of each call on a stream of its own ("audio_apart").
    """

    settings: GatewaySettings = attrs.field(factory=GatewaySettings)
    loss: float = 0.0
    seed: int = 0
    #: Faults of the gateway, by name.
    faults: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What the command line calls it, with its losses and faults."""
        loss = [f"--loss {self.loss:g}"] if self.loss else []
        return " ".join(["simulated", *loss, *(f"--fault {name}" for name in self.faults)])

    @contextlib.asynccontextmanager
    async def arenas(self, wanted: Collection[str]) -> AsyncIterator[Sequence[Arena]]:
        """The kinds of gateway there are, with those that ``wanted`` capabilities need. Leaving the block, also by
        cancellation, ends them."""
        network = MemoryNetwork(seed=self.seed, loss=self.loss)
        plain = attrs.evolve(self.settings, faults=self.settings.faults | set(self.faults))
        kinds: list[tuple[str, frozenset[str], GatewaySettings]] = [("gateway.test", frozenset(), plain)]
        if "token" in wanted:
            verifier = TokenVerifier([account.trusted_key() for account in _accounts()], leeway=0.0)
            settings = attrs.evolve(plain, authentication="required", verifier=verifier)
            kinds.append(("tokens.gateway.test", frozenset({"token", "second_tenant"}), settings))
        if "audio_apart" in wanted:
            settings = attrs.evolve(plain, audio_streams="per_call")
            kinds.append(("apart.gateway.test", frozenset({"audio_apart"}), settings))

        async def open_socket() -> Any:
            return network.socket()

        epoch = time.time() - trio.current_time()
        make = token_maker(_accounts(), lambda: epoch + trio.current_time()) if "token" in wanted else None
        async with contextlib.AsyncExitStack() as gateways:
            arenas = []
            for host, capabilities, settings in kinds:
                gateway = await gateways.enter_async_context(
                    open_gateway(
                        socket=network.socket((host, _PORT)),
                        names=[host],
                        settings=settings,
                        seed=self.seed,
                        epoch=epoch,
                    )
                )
                profile = Profile(
                    address=(host, _PORT),
                    tls=gateway.tls,
                    destinations=EMBEDDED,
                    capabilities=capabilities,
                    clock=lambda: epoch + trio.current_time(),
                )
                if make is not None and "token" in capabilities:
                    profile = with_tokens(profile, make, "first_stream")
                arenas.append(Arena(profile=profile, open_socket=open_socket))
            yield arenas


@attrs.frozen(kw_only=True)
class RealTarget:
    """A gateway that its profile tells how to reach."""

    profile: Profile

    @property
    def words(self) -> str:
        """``TARGET``: which it is, and what is allowed there, the reader knows."""
        return "TARGET"

    @contextlib.asynccontextmanager
    async def arenas(self, wanted: Collection[str]) -> AsyncIterator[Sequence[Arena]]:
        """The one there is. Nothing is opened yet, so that there is nothing to cancel."""

        async def open_socket() -> Any:
            return await open_udp_socket("::" if ":" in self.profile.address[0] else "0.0.0.0")  # noqa: S104 - a client

        yield [Arena(profile=self.profile, open_socket=open_socket)]
