"""One run of the kit against the embedded gateway, in virtual time."""

from __future__ import annotations

import functools
from typing import Any

import trio
from trio.testing import MockClock

from agentao_trio.conformance import checks as checks
from agentao_trio.conformance.limits import Limits
from agentao_trio.conformance.runner import Options, RunReport, Verdict, run
from agentao_trio.conformance.targets import SimulatedTarget
from agentao_trio.gateway import GatewaySettings

__all__ = ["BAD", "bad", "judged"]

#: The verdicts that say that something is wrong.
BAD = (Verdict.FAIL, Verdict.WARN)


def judged(
    *only: str,
    faults: tuple[str, ...] = (),
    seed: int = 1,
    loss: float = 0.0,
    preflight: bool = False,
    settings: GatewaySettings | None = None,
    **options: Any,
) -> RunReport:
    """The verdicts of these checks, or of all of them, about a gateway with these faults, or otherwise unusual."""
    chosen = Options(
        only=frozenset(only), hostile=True, allow_dial=True, seed=seed, **{"slow": bool(only), "examples": 6, **options}
    )
    target = SimulatedTarget(settings=settings or GatewaySettings(), faults=faults, seed=seed, loss=loss)
    limits = Limits(max_calls=0, rate=0.0, concurrency=0)
    main = functools.partial(run, target, chosen, name="simulated", limits=limits, preflight=preflight)
    return trio.run(main, clock=MockClock(autojump_threshold=0))


def bad(report: RunReport) -> dict[str, str]:
    """The checks that found something, and what."""
    return {each.requirement.id: each.reason for each in report.results if each.verdict in BAD}
