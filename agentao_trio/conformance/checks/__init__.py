"""The catalogue: one module a section, judge and programme side by side. Importing this registers them all."""

from __future__ import annotations

from agentao_trio.conformance.checks import (
    audio,
    authentication,
    events,
    framing,
    replay,
    robustness,
    rpc,
    serialization,
    subscriptions,
)

#: In the order of the catalogue.
SECTIONS = ("FRM", "SER", "RPC", "ERR", "AUT", "SUB", "EVT", "RPL", "UPL", "DWN", "EOS", "FLW", "ROB")

__all__ = [
    "SECTIONS",
    "audio",
    "authentication",
    "events",
    "framing",
    "replay",
    "robustness",
    "rpc",
    "serialization",
    "subscriptions",
]
