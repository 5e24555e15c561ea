"""Rows of a history in the forms that other programs read."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, get_args, get_type_hints

import attrs

from agentao_trio.cli.running import UsageError, about
from agentao_trio.summaries import CallSummary

__all__ = ["write", "write_lines", "write_parquet"]

#: Rows that are in memory at a time, and in one group of the file.
ROWS_TOGETHER = 10_000
#: The columns of records; ``raw`` is base64.
_RECORD = {"number": int, "at": float, "call_sid": str, "kind": str, "data": str, "raw": str | None}


def write(rows: Iterator[dict[str, Any]], form: str, target: IO[str]) -> None:
    """As ``csv``, of calls, or JSON lines."""
    if form == "csv":
        writer = csv.DictWriter(target, [field.name for field in attrs.fields(CallSummary)])
        writer.writeheader()
        writer.writerows(rows)
    else:
        write_lines(rows, target)


def write_lines(rows: Iterable[Any], target: IO[str]) -> None:
    """As JSON, one row a line. Letters are escaped where the encoding of ``target`` may lack them."""
    escaped = not str(getattr(target, "encoding", "")).lower().startswith("utf")
    for row in rows:
        target.write(json.dumps(row, ensure_ascii=escaped) + "\n")


def write_parquet(rows: Iterator[dict[str, Any]], path: Path, *, of_calls: bool) -> None:
    """As Parquet, a batch of rows at a time. Raises UsageError where the extra is missing, or the file cannot be
    written."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise UsageError("--format parquet needs the extra 'analysis': pip install 'agentao-trio[analysis]'") from None
    types = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    columns = get_type_hints(CallSummary) if of_calls else _RECORD
    schema = pyarrow.schema([(name, types[_plain_type(of)]) for name, of in columns.items()])
    with about("--out"), pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while batch := [_flat(row) for row in itertools.islice(rows, ROWS_TOGETHER)]:
            writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema=schema))


def _plain_type(of: Any) -> Any:
    """The type of a field that may be None."""
    return next((each for each in get_args(of) if each is not type(None)), of)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    # What a record holds depends on its kind: it stays JSON text in its column.
    return {**row, "data": json.dumps(row["data"], ensure_ascii=False)} if "data" in row else row
