"""Short examples from the simulator, so that a real gateway is not called for every step of shrinking.

A property that fails has to be shrunk, which takes tens of runs, and each places calls. What a gateway gets wrong is
often what the embedded one gets wrong on request: so the faults that the check was written to notice are tried there
first, in virtual time, and what is left of their examples is tried on the gateway before any shrinking.
"""

from __future__ import annotations

import functools
from typing import Any

import trio
from trio.testing import MockClock

from agentao_trio.conformance.limits import Limits
from agentao_trio.conformance.programmes import PROGRAMMES
from agentao_trio.conformance.runner import Options, run
from agentao_trio.conformance.targets import SimulatedTarget

__all__ = ["rehearse"]


def rehearse(check: str, seed: int) -> list[Any]:
    """Examples that make ``check`` fail at the embedded gateway with one of the check's own faults, the shortest first.

    Blocks for some seconds, in trio loops of its own: to be called in a thread.
    """
    found = []
    for fault in PROGRAMMES[check].faults:
        options = Options(only=frozenset({check}), slow=True, hostile=True, allow_dial=True, seed=seed)
        limits = Limits(max_calls=0, rate=0.0, concurrency=0)
        target = SimulatedTarget(faults=(fault,), seed=seed)
        judged = functools.partial(run, target, options, name="simulated", limits=limits, preflight=False)
        report = trio.run(judged, clock=MockClock(autojump_threshold=0))
        found += [result.example for result in report.results if result.example is not None]
    return sorted(found, key=lambda example: len(repr(example)))
