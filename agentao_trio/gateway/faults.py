"""The embedded gateway's faults by name: what conformance kits and clients are tried out with.

``GatewaySettings(faults=…)`` and ``agentao-trio gateway --fault NAME`` take the names; :data:`FAULTS` has them all.
"""

from __future__ import annotations

from collections.abc import Collection

from agentao_trio.gateway import fault_audio, fault_events, fault_more, fault_paths, fault_requests, fault_rest
from agentao_trio.gateway.fault import FAULTS, Dice, Fault, Faults
from agentao_trio.gateway.fuzz import Fuzz

__all__ = ["FAULTS", "chosen", "describe"]

#: Importing these registers what they define.
MODULES = (fault_events, fault_audio, fault_requests, fault_paths, fault_more, fault_rest)


def describe(name: str) -> str:
    """What the fault does, in a line."""
    return (FAULTS[name].__doc__ or "").strip()


def chosen(names: Collection[str], *, dice: Dice, fuzz: Dice | None = None) -> Fault | None:
    """What a gateway with these faults has to ask, and with the dice of legal oddities; None where there are none.

    Raises ValueError for a name that is none, with those there are.
    """
    if unknown := sorted(set(names) - FAULTS.keys()):
        raise ValueError(f"there is no fault {', '.join(unknown)}; there are {', '.join(sorted(FAULTS))}")
    faults: list[Fault] = [FAULTS[name](dice) for name in sorted(names)]
    if fuzz is not None:
        faults.append(Fuzz(fuzz))
    return Faults(faults, dice) if faults else None
