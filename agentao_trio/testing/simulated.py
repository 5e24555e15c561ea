"""A gateway on a network in memory, and how a program under test gets to it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from agentao_trio.gateway import Gateway, GatewaySettings, open_gateway
from agentao_trio.testing.caller import ScriptedCaller
from agentao_trio.testing.memory_network import MemoryNetwork

__all__ = ["SimulatedGateway", "open_simulated_gateway"]

_HOST, _PORT = "gateway.test", 9090
#: When virtual time begins, in Unix seconds: 1 January 2026.
_EPOCH = 1_767_225_600.0


class SimulatedGateway:
    """A gateway in memory, and those who call through it. Made by :func:`open_simulated_gateway`."""

    #: What to connect to, together with :meth:`options`.
    endpoint: str = f"quic://{_HOST}:{_PORT}"

    def __init__(self, server: Gateway, network: MemoryNetwork) -> None:
        #: The embedded gateway itself.
        self.server = server
        #: The network between the program and the gateway, to be made worse.
        self.network = network

    def __repr__(self) -> str:
        return f"<SimulatedGateway of {self.server!r} on {self.network!r}>"

    def options(self) -> dict[str, Any]:
        """The arguments that lead a client here: for ``open_session``, ``serve`` and ``AgenTaoClient``. Anew for each.

        ::

            open_session(gateway.endpoint, **gateway.options(), trunks=["main"])
        """
        return {"tls": self.server.tls, "socket": self.network.socket()}

    def call_in(self, number: str = "+15550101234", *, trunk_id: str = "main") -> ScriptedCaller:
        """Somebody calls the trunk, now. It rings for half a minute.

        Raises ValueError for a trunk that is not there, or rejects calls.
        """
        caller = ScriptedCaller(self.server, number)
        call_sid = self.server.place_inbound_call(trunk_id=trunk_id, call_from=number, handset=caller)
        if call_sid is None:
            raise ValueError(f"the trunk {trunk_id!r} rejects calls")
        caller.call_sid = call_sid
        return caller

    def pick_up(self, number: str) -> ScriptedCaller:
        """Somebody who will answer when the program calls ``number``, and go on from there. For one call."""
        callee = ScriptedCaller(self.server, number)
        self.server.model.handsets[number] = callee
        return callee


@contextlib.asynccontextmanager
async def open_simulated_gateway(
    *, settings: GatewaySettings | None = None, network: MemoryNetwork | None = None, seed: int = 1
) -> AsyncIterator[SimulatedGateway]:
    """Run a gateway on ``network``, by default one without any flaws. To be used in virtual time.

    That is ``trio.testing.MockClock(autojump_threshold=0)``, or pytest-trio's ``autojump_clock``. ``seed`` makes two
    runs alike. Leaving the block, also by cancellation, ends the gateway.
    """
    network = MemoryNetwork(seed=seed) if network is None else network
    async with open_gateway(
        socket=network.socket((_HOST, _PORT)), names=[_HOST], settings=settings, seed=seed, epoch=_EPOCH
    ) as server:
        yield SimulatedGateway(server, network)
