"""``python -m benchmarks``: measure, print one table, and write the same as JSON beside it.

python -m benchmarks [--quick] [--json FILE] [--plots DIRECTORY] [--only GROUP …]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

from benchmarks import codec, contest, growth, lines, profile, sweeps, wan
from benchmarks.contest import Contest, open_contest
from benchmarks.pages import fill
from benchmarks.row import Row

#: Modules beside this one for what needs an extra; each has ``measure(*, quick) -> Iterator[Row]``.
WINGS = ("realtime", "bridge", "live", "history")
#: What ``--only`` takes, in the order of the table.
GROUPS = ("codec", "splitting", "streams", "calls", "growth", "wan", *WINGS, "profile", "sweeps", "lines")
#: Those that are measured only where they are asked for: by a place for plots, or by name.
_ON_DEMAND = {"sweeps", "lines"}
#: Those that need a gateway in another process.
_WITH_GATEWAY = {"calls", "growth", "profile", "sweeps"}


def machine() -> dict[str, str | int | None]:
    """Where and when it was measured."""
    model = next((line.partition(":")[2].strip() for line in _cpu_info() if line.startswith("model name")), "")
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": _commit(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": model,
        "cores": os.cpu_count(),
        **{name: version(name) for name in ("aioquic", "trio", "cryptography")},
    }


def _cpu_info() -> list[str]:
    with contextlib.suppress(OSError):
        return Path("/proc/cpuinfo").read_text().splitlines()
    return []


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return ""


def wing(name: str, *, quick: bool) -> Iterator[Row]:
    """The rows of one of :data:`WINGS`, or one that says what it would need."""
    try:
        module = importlib.import_module(f"benchmarks.{name}")
    except ImportError as error:
        yield Row(group=name, name=name, missing=str(error))
        return
    yield from module.measure(quick=quick)


def measurements(quick: bool, plots: Path, gateway: Contest | None) -> dict[str, Callable[[], Iterator[Row]]]:
    """What makes the rows of each group."""
    pairs = 3 if quick else 31

    def use() -> Iterator[Row]:
        assert gateway is not None
        yield from growth.measure_use(gateway, quick=quick)
        yield from growth.measure_imports(pairs=2 if quick else 11)

    def along_scales() -> Iterator[Row]:
        assert gateway is not None
        plots.mkdir(parents=True, exist_ok=True)
        for sweep in sweeps.sweeps(gateway, quick=quick):
            yield sweep.run(plots)

    def where_time_goes() -> Iterator[Row]:
        assert gateway is not None
        yield from profile.measure(gateway, quick=quick)

    def calls() -> Iterator[Row]:
        assert gateway is not None
        yield from contest.measure(gateway, quick=quick)

    return {
        "codec": lambda: codec.measure(pairs),
        "splitting": lambda: codec.measure_splitting(max(3, pairs // 3)),
        "streams": lambda: growth.measure_streams(pairs=1 if quick else 5, seconds=0.1 if quick else 0.5),
        "calls": calls,
        "growth": use,
        "wan": lambda: wan.measure(quick=quick),
        **{name: partial(wing, name, quick=quick) for name in WINGS},
        "profile": where_time_goes,
        "sweeps": along_scales,
        "lines": lambda: lines.measure(quick=quick),
    }


def table_of(rows: list[Row], where: dict[str, str | int | None]) -> Table:
    """The table for people."""
    table = Table(title=", ".join(f"{key} {value}" for key, value in where.items() if value))
    for column, justify in (
        ("Figure", "left"),
        ("Result", "right"),
        ("Spread", "right"),
        ("Goal", "right"),
        ("", "left"),
    ):
        table.add_column(column, justify=justify, no_wrap=column in ("Spread", "Goal"))  # type: ignore[arg-type]
    table.add_column("Measured")
    for row in rows:
        result = row.missing or ("" if row.value is None else f"{row.value:.3g}{row.unit}")
        spread = "" if row.spread is None else f"{row.spread[0]:.3g}–{row.spread[1]:.3g}"
        verdict = {True: "met", False: "not met", None: ""}[row.met]
        table.add_row(row.name, result, spread, str(row.goal or ""), verdict, row.text)
    return table


def as_json(rows: list[Row], where: dict[str, str | int | None]) -> dict[str, Any]:
    """The same for programs."""
    each = [{**attrs.asdict(row), "goal": str(row.goal) if row.goal else None, "met": row.met} for row in rows]
    return {"machine": where, "rows": each}


def write(file: Path, results: dict[str, Any]) -> None:
    """``results`` as JSON for people to read and programs to keep."""
    file.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the package.")
    parser.add_argument("--quick", action="store_true", help="under a minute, to see that everything runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    parser.add_argument("--plots", type=Path, metavar="DIRECTORY", help="where the sweeps' SVG files go")
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="GROUP", help=f"some of {', '.join(GROUPS)}")
    parser.add_argument("--pages", type=Path, nargs="+", default=[], metavar="FILE", help="Markdown to put tables into")
    parser.add_argument("--from", type=Path, dest="source", metavar="FILE", help="measure nothing, take this JSON")
    options = parser.parse_args()
    if options.source is not None:
        results = json.loads(options.source.read_text(encoding="utf-8"))
        for page in options.pages:
            fill(page, results)
        return
    # Without a place for them, plots would be measured for nothing.
    groups = options.only or [each for each in GROUPS if each not in _ON_DEMAND or (each == "sweeps" and options.plots)]
    progress = Console(stderr=True)
    where = machine()
    rows: list[Row] = []
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(open_contest()) if _WITH_GATEWAY & set(groups) else None
        making = measurements(options.quick, options.plots or Path(), gateway)
        for group in groups:
            try:
                for row in making[group]():
                    # A few calls for a second say nothing about hundreds.
                    rows.append(attrs.evolve(row, goal=None) if options.quick else row)
                    progress.print(f"measured: {row.name}")
            except subprocess.SubprocessError as error:
                # What was measured before is worth keeping.
                why = str(getattr(error, "stderr", None) or error).strip().rpartition("\n")[2]
                rows.append(Row(group=group, name=f"the rest of {group}", missing=f"a program failed: {why}"))
            if options.json is not None:  # a run of ten minutes may be cut short
                write(options.json, as_json(rows, where))
    Console(width=None if Console().is_terminal else 200).print(table_of(rows, where))
    for page in options.pages:
        fill(page, as_json(rows, where))


if __name__ == "__main__":
    main()
