"""Thousands of state machines that each have a session and a gateway in hand.

    python -m tests.soak machines --count 5000

What they do is in ``tests/stateful/test_session_machine.py``. A failure is shrunk to the fewest steps, which may take
minutes, and shown as a program.
"""

# ruff: noqa: T201 - printing is what it is for
from __future__ import annotations

import argparse
import logging
import time

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.stateful.test_session_machine import SessionMachine

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak machines", description="Sessions in random hands.")
    parser.add_argument("--count", type=int, default=5000, help="how many (default: 5000, about half an hour)")
    parser.add_argument("--steps", type=int, default=30, help="how many each takes at most (default: 30)")
    given = parser.parse_args(arguments)
    logging.getLogger("agentao_trio").setLevel(logging.CRITICAL)
    began = time.perf_counter()
    run_state_machine_as_test(
        SessionMachine,
        settings=settings(
            max_examples=given.count,
            stateful_step_count=given.steps,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(
        f"{given.count:,} machines of up to {given.steps} steps in {time.perf_counter() - began:.0f} s: nothing found"
    )
    return 0
