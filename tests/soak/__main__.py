"""The long tests, as a table that fills while they run: goal and result side by side.

    python -m tests.soak              every figure; about an hour and a half on one core
    python -m tests.soak --quick      the same in small; about two minutes
    python -m tests.soak G8 G9        only these

    python -m tests.soak fuzz         ten million mutated inputs for the decoders
    python -m tests.soak coverage     the codec's branches that its tests reach
    python -m tests.soak atheris      coverage-guided fuzzing, where atheris is installed
    python -m tests.soak machines     state machines with a session in hand, and troubles
    python -m tests.soak netns        calls between two network namespaces, for root on Linux

Each of these explains itself with ``--help``. Ends with status 1 when a goal was not reached. Takes less than 1 GB.
"""

# ruff: noqa: T201 - printing is what it is for
from __future__ import annotations

import argparse
import importlib
import logging
import os
import platform
import sys
import time
from datetime import UTC, datetime

#: The module behind each command.
COMMANDS = {
    "fuzz": "fuzz",
    "coverage": "codec_coverage",
    "atheris": "guided",
    "machines": "machines",
    "netns": "netns",
}


def main(arguments: list[str]) -> int:
    if arguments and arguments[0] in COMMANDS:
        command = importlib.import_module(f"tests.soak.{COMMANDS[arguments[0]]}")
        return int(command.main(arguments[1:]))
    return figures(arguments)


def machine() -> str:
    """What measured, for the head of a table."""
    return f"Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} × {platform.machine()}"


def figures(arguments: list[str]) -> int:
    from tests.soak.figures import FIGURES

    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Measure the figures of reliability.")
    parser.add_argument("what", nargs="*", help=f"figures by name (default: all), or one of {', '.join(COMMANDS)}")
    parser.add_argument("--quick", action="store_true", help="everything in small")
    given = parser.parse_args(arguments)
    known = {figure.name for figure in FIGURES}
    if unknown := set(given.what) - known:
        parser.error(f"there is no figure {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    logging.getLogger("agentao_trio").setLevel(logging.CRITICAL)
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {machine()}; {'quick' if given.quick else 'full'}\n")
    print("| | goal | measured | reached | s |\n|---|---|---|---|---|", flush=True)
    all_reached = True
    for figure in FIGURES:
        if given.what and figure.name not in given.what:
            continue
        name, goal, since = figure.name, figure.goal, time.perf_counter()
        for result in figure.measure(not given.quick):
            now = time.perf_counter()
            verdict = "yes" if result.reached else "**no**"
            print(f"| {name} | {goal} | {result.measured} | {verdict} | {now - since:.0f} |", flush=True)
            name, goal, since = "", "", now
            all_reached = all_reached and result.reached
    return 0 if all_reached else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
