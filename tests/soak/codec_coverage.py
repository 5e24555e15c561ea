"""How much of the codec its tests and the fuzzer reach, by branches.

    python -m tests.soak coverage

Needs coverage.py. What counts is ``agentao_trio.wire``, ``envelope``, ``shapes`` and ``messages``; the tests that count
are those of the codec alone, and the first inputs of the fuzzer. The readers and writers that ``shapes`` generates have
no lines to count; a property holds them against the field-by-field ones that do.
"""

# ruff: noqa: T201 - printing is what it is for
from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import attrs

__all__ = ["GOAL", "Coverage", "main", "measure"]

MODULES = ("wire", "envelope", "shapes", "messages")
TESTS = ["tests/golden", "tests/property/test_messages.py", "tests/property/test_wire.py"]
TESTS += ["tests/unit/test_messages.py", "tests/unit/test_shapes.py", "tests/unit/test_wire.py"]
FUZZED = 20_000
#: Per cent of the codec's branches.
GOAL = 98.0


@attrs.frozen(kw_only=True)
class Coverage:
    """Branches of one module, or of all: how many there are, how many were taken, and where one was not."""

    name: str
    branches: int
    taken: int
    missing: tuple[str, ...] = ()

    @property
    def percent(self) -> float:
        return 100 * self.taken / self.branches


def measure() -> list[Coverage]:
    """One for each module of the codec, and their sum. Raises CalledProcessError when a test fails."""
    if importlib.util.find_spec("coverage") is None:
        sys.exit("measuring what the tests reach needs coverage.py: pip install coverage")
    with tempfile.TemporaryDirectory() as temporary:
        data, report = Path(temporary, "data"), Path(temporary, "report.json")
        include = ",".join(f"*/agentao_trio/{module}.py" for module in MODULES)
        coverage = [sys.executable, "-m", "coverage"]
        # Not the project's own settings, which are for the whole of the tests.
        run = [
            *coverage,
            "run",
            f"--rcfile={os.devnull}",
            "--branch",
            f"--data-file={data}",
            f"--include={include}",
            "--append",
            "-m",
        ]
        quiet = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        for what in (["pytest", *quiet, *TESTS], ["tests.soak", "fuzz", "--inputs", str(FUZZED)]):
            subprocess.run([*run, *what], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(
            [*coverage, "json", "-q", f"--rcfile={os.devnull}", f"--data-file={data}", "-o", str(report)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        files = json.loads(report.read_text())["files"]
    found = [
        Coverage(
            name=Path(path).stem,
            branches=file["summary"]["num_branches"],
            taken=file["summary"]["covered_branches"],
            missing=tuple(f"{begin}→{end}" for begin, end in file["missing_branches"]),
        )
        for path, file in sorted(files.items())
    ]
    assert {each.name for each in found} == set(MODULES)
    return [
        *found,
        Coverage(name="all", branches=sum(e.branches for e in found), taken=sum(e.taken for e in found)),
    ]


def main(arguments: list[str]) -> int:
    argparse.ArgumentParser(
        prog="python -m tests.soak coverage", description=f"Branches of the codec that are reached: {GOAL:g} %."
    ).parse_args(arguments)
    *_, total = found = measure()
    for each in found:
        missing = f"; not taken: {', '.join(each.missing)}" if each.missing else ""
        print(f"{each.name:10} {each.taken:4} of {each.branches:4} branches, {each.percent:.1f} %{missing}")
    return int(total.percent < GOAL)
