"""For tests of programs that use this package: a gateway and its callers, in memory and in virtual time.

The pytest fixture ``gateway`` (:mod:`agentao_trio.testing.plugin`) is a :class:`SimulatedGateway`; without pytest there
is :func:`open_simulated_gateway`.
"""

from agentao_trio.testing.caller import ScriptedCaller, Silence, Speech, Tone
from agentao_trio.testing.memory_network import MemoryNetwork, MemorySocket, NetworkStatistics
from agentao_trio.testing.simulated import SimulatedGateway, open_simulated_gateway

__all__ = [
    "MemoryNetwork",
    "MemorySocket",
    "NetworkStatistics",
    "ScriptedCaller",
    "Silence",
    "SimulatedGateway",
    "Speech",
    "Tone",
    "open_simulated_gateway",
]
