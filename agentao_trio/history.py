"""Reading history: calls and their records, out of a file that may be written at the same time.

::

    with open_history("calls.db") as history:
        for call in history.calls(CallFilter(cause=17)):
            print(call.callee, call.status)

Everything here blocks, for milliseconds as a rule; in a trio program use :func:`trio.to_thread.run_sync`.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Collection, Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import attrs

from agentao_trio.records import Record, RecordKind
from agentao_trio.store import StoreError, connect, from_row
from agentao_trio.summaries import ELSEWHERE, CallSummary

__all__ = ["CallFilter", "History", "open_history"]

#: Records of each run that are read at once by somebody who follows.
MOST_NEWS = 10_000

_RECORDS = "SELECT run, number, at, call_sid, kind, data, raw FROM records"
#: The latest call of a sid; of several workers' that were told of it, the one of who took it.
_OURS = "SELECT run, call_sid FROM calls WHERE call_sid = ? ORDER BY status = ?, began_at DESC LIMIT 1"


@attrs.frozen(kw_only=True)
class CallFilter:
    """Which calls; everything that is given has to hold."""

    #: Unix seconds: calls that began at or after the one, and before the other.
    since: float | None = None
    until: float | None = None
    #: A part of the caller's or the callee's number or URI.
    number: str | None = None
    #: ITU-T Q.850.
    cause: int | None = None
    trunk: str | None = None
    #: completed, busy, no-answer …: :attr:`CallSummary.status`. Calls that are elsewhere have to be asked for by it.
    status: str | None = None

    def _where(self) -> tuple[str, list[Any]]:
        conditions = {
            "began_at >= ?": self.since,
            "began_at < ?": self.until,
            "q850_cause = ?": self.cause,
            "trunk_id = ?": self.trunk,
            "status = ?": self.status,
        }
        given = {condition: value for condition, value in conditions.items() if value is not None}
        where, arguments = list(given), list(given.values())
        if self.status is None:
            where.append("status != ?")
            arguments.append(ELSEWHERE)
        if self.number is not None:
            where.append("(instr(caller, ?) OR instr(callee, ?))")
            arguments += [self.number, self.number]
        return " AND ".join(where), arguments


class History:
    """A history file, open for reading. Made by :func:`open_history`."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self.path = path
        self._database = database

    def __repr__(self) -> str:
        return f"<History {self.path}>"

    def calls(
        self, which: CallFilter | None = None, *, newest_first: bool = False, limit: int | None = None
    ) -> Iterator[CallSummary]:
        """The calls, in order of their beginning. Raises :class:`StoreError` where the file turns out to be damaged."""
        where, arguments = (which or CallFilter())._where()
        order = "DESC" if newest_first else "ASC"
        query = f"SELECT summary FROM calls WHERE {where} ORDER BY began_at {order}, run, call_sid LIMIT ?"  # noqa: S608
        for (summary,) in self._rows(query, [*arguments, -1 if limit is None else limit]):
            yield CallSummary(**json.loads(summary))

    def call(self, call_sid: str) -> CallSummary | None:
        """The latest call of that sid, or of the only one that begins so; None where there is none or several do."""
        found = self._rows(
            "SELECT DISTINCT call_sid FROM calls WHERE call_sid = ?1 OR substr(call_sid, 1, length(?1)) = ?1 "
            "ORDER BY call_sid = ?1 DESC LIMIT 2",
            [call_sid],
        )
        sids = [sid for (sid,) in found]
        if not sids or (len(sids) > 1 and sids[0] != call_sid):
            return None
        query = f"SELECT summary FROM calls WHERE (run, call_sid) = ({_OURS})"  # noqa: S608
        [(summary,)] = self._rows(query, [sids[0], ELSEWHERE])
        return CallSummary(**json.loads(summary))

    def records(
        self,
        *,
        call_sid: str | None = None,
        which: CallFilter | None = None,
        kinds: Collection[RecordKind] | None = None,
    ) -> Iterator[Record]:
        """The records in the order they were published, run by run: of one call, of the calls of a filter, or all.

        Raises :class:`StoreError`.
        """
        for _, record in self.with_runs(call_sid=call_sid, which=which, kinds=kinds):
            yield record

    def with_runs(
        self,
        *,
        call_sid: str | None = None,
        which: CallFilter | None = None,
        kinds: Collection[RecordKind] | None = None,
        by_time: bool = False,
    ) -> Iterator[tuple[int, Record]]:
        """:meth:`records`, each with its run, which numbers them; ``by_time``, all runs in the order it happened."""
        where, arguments = ["TRUE"], list[Any]()
        if call_sid is not None:
            where.append(f"(run, call_sid) = ({_OURS})")
            arguments += [call_sid, ELSEWHERE]
        if which is not None and which != CallFilter():
            condition, values = which._where()
            where.append(f"(run, call_sid) IN (SELECT run, call_sid FROM calls WHERE {condition})")  # noqa: S608
            arguments += values
        if kinds is not None:
            where.append(f"kind IN ({', '.join('?' * len(kinds))})")
            arguments += [kind.value for kind in kinds]
        order = "at, run, number" if by_time else "run, number"
        query = f"{_RECORDS} WHERE {' AND '.join(where)} ORDER BY {order}"
        for run, *row in self._rows(query, arguments):
            yield run, from_row(tuple(row))

    def position(self) -> dict[int, int]:
        """Where the file ends now: the number of each run's last record. What comes later is :meth:`news`."""
        last = "SELECT coalesce(max(number), 0) FROM records WHERE run = runs.run"
        return dict(self._rows(f"SELECT run, ({last}) FROM runs", []))  # noqa: S608

    def news(self, position: dict[int, int]) -> list[tuple[int, Record]]:
        """What was written since ``position``, of every run, in the order it happened; several may be written at once.

        ``position`` is brought up to date. At most :data:`MOST_NEWS` records of each run: the rest comes with the next
        call. Raises :class:`StoreError`.
        """
        found: list[tuple[int, Record]] = []
        for run, last in self.position().items():
            if last > (known := position.get(run, 0)):
                query = f"{_RECORDS} WHERE run = ? AND number > ? ORDER BY number LIMIT ?"
                new = [(run, from_row(tuple(row))) for _, *row in self._rows(query, [run, known, MOST_NEWS])]
                position[run] = new[-1][1].number if new else last  # or it was pruned meanwhile
                found += new
        return sorted(found, key=lambda each: each[1].at)

    def _rows(self, query: str, arguments: list[Any]) -> Iterator[Any]:
        try:
            # "yield from" would close the cursor of rows that are given up, perhaps after their database.
            for row in self._database.execute(query, arguments):  # noqa: UP028
                yield row
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self.path} cannot be read: {error}") from error


@contextlib.contextmanager
def open_history(path: str | PathLike[str]) -> Iterator[History]:
    """Open a history file for reading. Raises :class:`StoreError` for one that is not there, damaged, of another
    version, or something else."""
    path = Path(path)
    with contextlib.closing(connect(path, read_only=True)) as database:
        yield History(path, database)
