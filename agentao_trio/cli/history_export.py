"""Rows of a history in the forms that other programs read."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import attrs

from agentao_trio.cli.running import UsageError
from agentao_trio.summaries import CallSummary

__all__ = ["write", "write_parquet"]


def write(rows: Iterator[dict[str, Any]], form: str, target: TextIO) -> None:
    """As ``csv``, of calls, or JSON lines."""
    if form == "csv":
        writer = csv.DictWriter(target, [field.name for field in attrs.fields(CallSummary)])
        writer.writeheader()
        writer.writerows(rows)
    else:
        for row in rows:
            target.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_parquet(rows: Iterator[dict[str, Any]], path: Path) -> None:
    """As Parquet. Raises UsageError where the extra is missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise UsageError("--format parquet needs the extra 'analysis': pip install 'agentao-trio[analysis]'") from None
    # What a record holds depends on its kind: it stays JSON text in its column.
    flat = [{**row, "data": json.dumps(row["data"])} if "data" in row else row for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(flat), path)
