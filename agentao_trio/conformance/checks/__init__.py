"""The catalogue: one module a section, judge and programme side by side. Importing this registers them all."""

from __future__ import annotations

from agentao_trio.conformance.checks import (
    audio,
    authentication,
    events,
    figures,
    framing,
    replay,
    robustness,
    rpc,
    serialization,
    subscriptions,
)

__all__ = [
    "audio",
    "authentication",
    "events",
    "figures",
    "framing",
    "replay",
    "robustness",
    "rpc",
    "serialization",
    "subscriptions",
]
