"""``python -m benchmarks [--quick]``: one table for people, then the same as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys

import attrs
import trio
from rich.console import Console
from rich.table import Table

import agentao_trio
from benchmarks import codec, pacing
from benchmarks.row import Row


def machine() -> dict[str, str | int | None]:
    return {
        "package": agentao_trio.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that everything runs")
    quick = parser.parse_args().quick
    progress = Console(stderr=True)
    rows: list[Row] = []
    for row in codec.measure(0.1 if quick else 1.0):
        progress.print(f"measured: {row.name}")
        rows.append(row)
    for calls in (1, 5) if quick else (1, 20, 100):
        rows.append(trio.run(pacing.measure, calls, 1.0 if quick else 10.0))
        progress.print(f"measured: {rows[-1].name}")

    table = Table("What", "Result", title=", ".join(f"{key} {value}" for key, value in machine().items()))
    for row in rows:
        table.add_row(row.name, row.text)
    Console().print(table)
    json.dump({"machine": machine(), "rows": [attrs.asdict(row) for row in rows]}, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
