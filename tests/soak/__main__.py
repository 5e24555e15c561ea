"""The long tests, as a table that fills while they run: goal and result side by side.

    python -m tests.soak              everything; about an hour and a half on one core
    python -m tests.soak --quick      the same in small; about two minutes
    python -m tests.soak G8 G9        only these
    python -m tests.soak fuzz --seconds 3600    coverage-guided fuzzing of the decoders, with atheris

Ends with status 1 when a goal was not reached. Memory stays below 1 GB.
"""

# ruff: noqa: T201 - printing is what it is for
from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
import time
from datetime import UTC, datetime

from tests.soak.figures import FIGURES
from tests.soak.fuzz import coverage_guided


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Measure the figures of reliability.")
    parser.add_argument("what", nargs="*", help="figures by name (default: all), or 'fuzz'")
    parser.add_argument("--quick", action="store_true", help="everything in small")
    parser.add_argument("--seconds", type=int, default=60, help="how long to fuzz")
    arguments = parser.parse_args()
    if arguments.what == ["fuzz"]:
        coverage_guided(arguments.seconds)
        return 0
    known = {figure.name for figure in FIGURES}
    if unknown := set(arguments.what) - known:
        parser.error(f"there is no figure {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    logging.getLogger("agentao_trio").setLevel(logging.CRITICAL)
    machine = f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} × {platform.machine()}"
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {machine}; {'quick' if arguments.quick else 'full'}\n")
    print("| | goal | measured | reached | s |\n|---|---|---|---|---|", flush=True)
    all_reached = True
    for figure in FIGURES:
        if arguments.what and figure.name not in arguments.what:
            continue
        name, goal, since = figure.name, figure.goal, time.perf_counter()
        for result in figure.measure(not arguments.quick):
            now = time.perf_counter()
            verdict = "yes" if result.reached else "**no**"
            print(f"| {name} | {goal} | {result.measured} | {verdict} | {now - since:.0f} |", flush=True)
            name, goal, since = "", "", now
            all_reached = all_reached and result.reached
    return 0 if all_reached else 1


if __name__ == "__main__":
    sys.exit(main())
