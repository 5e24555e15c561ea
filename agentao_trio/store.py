"""History in one sqlite file: every record that passes a hub, kept so that nothing acknowledged is ever lost.

Theory of operation
-------------------
*Writing.* :meth:`Store.attach` makes the store a reader of a hub. Records wait in memory until the store's one task
hands them, a batch at a time, to a thread that writes them in one transaction. The file is in WAL mode and synced at
each commit, so that a batch is in it wholly or not at all, whatever becomes of the process or of the machine.
:meth:`Store.flush` returns when everything that was published before is in the file: that is what *acknowledged* means.

*Bounds.* A disk that is slow makes records wait. Beyond ``max_waiting`` bytes the newest are dropped and counted, and
the numbers of the records in the file show how many are missing, and where. A disk that fails is tried again for as
long as the store is open; calls never notice.

*The file.* Each attached hub is a *run*; a record is named by its run and its number, which are unique together, so
that nothing can be there twice. Several processes may write to one file. A table of calls, one row each, is kept up in
the same transactions: lists of calls need not read records. ``application_id`` and ``user_version`` say what the file
is. One that is damaged, newer or something else is refused with :class:`StoreError` and left as it is; an older one is
migrated, in one transaction.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from os import PathLike
from pathlib import Path
from typing import Any

import attrs
import trio

from agentao_trio.errors import AgentaoError
from agentao_trio.hub import Hub
from agentao_trio.records import Record, RecordKind
from agentao_trio.redaction import Redaction
from agentao_trio.services import service_nursery
from agentao_trio.summaries import CallSummary

__all__ = ["Retention", "Store", "StoreError", "StoreStatistics", "connect", "open_store"]

log: logging.Logger = logging.getLogger("agentao_trio.store")

#: "agto": what ``application_id`` says of our files.
APPLICATION_ID = 0x6167746F
#: Seconds that records may wait for others to be written with, and how many are written at a time.
LINGER, BATCH = 0.05, 2000
#: Seconds to wait for another process that is writing.
LOCK_SECONDS = 5.0
#: Seconds between two attempts to write to a disk that failed, and between two looks at what is to be kept.
RETRY, PRUNE_INTERVAL = 1.0, 60.0
#: What a record takes in memory besides its bytes, roughly.
_OVERHEAD = 600

#: What each version of the schema adds to the one before.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE runs (run INTEGER PRIMARY KEY, began_at REAL NOT NULL, name TEXT NOT NULL) STRICT;
    CREATE TABLE records (
        run INTEGER NOT NULL REFERENCES runs, number INTEGER NOT NULL, at REAL NOT NULL, call_sid TEXT NOT NULL,
        kind TEXT NOT NULL, data TEXT NOT NULL, raw BLOB, PRIMARY KEY (run, number)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX records_of_call ON records (call_sid, run, number);
    """,
    """
    CREATE TABLE calls (
        run INTEGER NOT NULL REFERENCES runs, call_sid TEXT NOT NULL, began_at REAL NOT NULL, ended_at REAL,
        status TEXT NOT NULL, q850_cause INTEGER, caller TEXT NOT NULL, callee TEXT NOT NULL, trunk_id TEXT NOT NULL,
        summary TEXT NOT NULL, PRIMARY KEY (run, call_sid)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX calls_by_time ON calls (began_at);
    """,
)
VERSION = len(MIGRATIONS)


class StoreError(AgentaoError):
    """A file that cannot be used as history, or not by this version. The file was not changed."""


@attrs.frozen(kw_only=True)
class Retention:
    """What is kept: whole calls go, the oldest first, once they have ended. None keeps everything."""

    #: Seconds since the call ended.
    max_age: float | None = None
    #: Bytes of the file.
    max_bytes: int | None = None


@attrs.frozen(kw_only=True)
class StoreStatistics:
    """A store's figures since it was opened."""

    records_written: int
    #: Records in memory that are not in the file yet, and the bytes they take, roughly.
    records_waiting: int
    bytes_waiting: int
    #: Records dropped because the disk was too slow for too long.
    records_dropped: int
    batches: int
    #: Attempts to write that failed, and what the latest said while the disk is failing.
    failures: int
    failure: str
    calls_pruned: int


class Store:
    """The writing side of one history file. Made by :func:`open_store`."""

    def __init__(
        self,
        path: Path,
        database: sqlite3.Connection,
        *,
        retention: Retention,
        redaction: Redaction,
        max_waiting: int,
    ) -> None:
        self.path = path
        self._database = database
        self._retention = retention
        self._redaction = redaction
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[int, Record, int]] = deque()
        self._bytes_waiting = 0
        self._accepted = self._settled = 0  # records taken in; records of those that are in the file
        self._something_waits = trio.lowlevel.ParkingLot()
        self._settling = trio.lowlevel.ParkingLot()
        self._hurry = False
        self._runs: dict[int, tuple[float, str]] = {}
        self._summaries: dict[tuple[int, str], CallSummary] = {}
        self._detach: list[Callable[[], None]] = []
        self._dropped = self._batches = self._failures = self._pruned = 0
        self._failure = ""
        self._closing = False

    def __repr__(self) -> str:
        state = f"failing: {self._failure}" if self._failure else "closing" if self._closing else "open"
        waiting = self._accepted - self._settled
        return (
            f"<Store {self.path}, {state}, {self._settled} records written, {waiting} waiting, {self._dropped} dropped>"
        )

    # -- taking in --------------------------------------------------------------------------------------------------

    def attach(self, hub: Hub, *, name: str = "") -> None:
        """Keep every record of ``hub`` from now on, as a run of its own; ``name`` tells runs apart for people."""
        # Ordered by time, and not given twice: neither here nor, but for a nanosecond's chance, by another process.
        run = max(time.time_ns(), max(self._runs, default=0) + 1)
        self._runs[run] = (time.time(), name)
        self._detach.append(hub.attach(lambda record: self._take(run, record)))

    def _take(self, run: int, record: Record) -> None:
        size = _OVERHEAD + len(record.raw)
        if self._bytes_waiting + size > self._max_waiting:
            self._dropped += 1
            if self._dropped == 1:
                log.error("history: %d bytes wait for the disk; records are being dropped", self._bytes_waiting)
            return
        self._bytes_waiting += size
        self._accepted += 1
        self._waiting.append((run, record, size))
        self._something_waits.unpark_all()

    async def flush(self) -> None:
        """Wait until everything published so far is in the file, safe from a crash of the process or the machine.

        Cancelled, it is written all the same. While the disk fails this waits.
        """
        await trio.lowlevel.checkpoint()
        goal = self._accepted
        self._hurry = True
        self._something_waits.unpark_all()
        while self._settled < goal:
            await self._settling.park()

    def statistics(self) -> StoreStatistics:
        """A snapshot of the store's figures."""
        return StoreStatistics(
            records_written=self._settled,
            records_waiting=self._accepted - self._settled,
            bytes_waiting=self._bytes_waiting,
            records_dropped=self._dropped,
            batches=self._batches,
            failures=self._failures,
            failure=self._failure,
            calls_pruned=self._pruned,
        )

    # -- writing ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """The store's only task. Ends when it is closed and everything is written, or given up."""
        prune_at = trio.current_time()
        with trio.CancelScope(shield=True):
            while self._waiting or not self._closing:
                if not self._waiting:
                    await self._something_waits.park()
                    continue
                with trio.move_on_after(LINGER):
                    while not (self._hurry or len(self._waiting) >= BATCH):
                        await self._something_waits.park()
                self._hurry = False
                written = await self._write_batch()
                if self._closing and not written:
                    log.error("history: %d records could not be written", len(self._waiting))
                    return
                if trio.current_time() >= prune_at:
                    prune_at = trio.current_time() + PRUNE_INTERVAL
                    await self._prune()

    async def _write_batch(self) -> bool:
        batch = [self._waiting[index] for index in range(min(BATCH, len(self._waiting)))]
        try:
            await trio.to_thread.run_sync(self._write, batch)
        except sqlite3.Error as error:
            self._failures += 1
            if not self._failure:
                log.error("history: %s cannot be written: %s", self.path, error)
            self._failure = str(error)
            with trio.move_on_after(RETRY):
                while not self._closing:
                    await self._something_waits.park()
            return False
        self._failure = ""
        self._batches += 1
        self._settled += len(batch)
        for _ in batch:
            self._bytes_waiting -= self._waiting.popleft()[2]
        self._settling.unpark_all()
        return True

    def _write(self, batch: list[tuple[int, Record, int]]) -> None:
        """In a thread, and alone: one transaction."""
        summaries = dict(self._summaries)
        touched: dict[tuple[int, str], CallSummary] = {}
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            rows = []
            for run, original, _ in batch:
                record = self._redaction.of(original)
                rows.append(_row(run, record))
                if record.call_sid:
                    key = (run, record.call_sid)
                    if key not in touched:
                        known = summaries.get(key)
                        touched[key] = attrs.evolve(known) if known is not None else self._load_summary(key)
                    touched[key].feed(record)
            runs = [(run, *self._runs[run]) for run in {run for run, _, _ in batch}]
            self._database.executemany("INSERT OR IGNORE INTO runs VALUES (?, ?, ?)", runs)
            self._database.executemany("INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            self._database.executemany(_PUT_CALL, [_call_row(run, each) for (run, _), each in touched.items()])
        summaries.update(touched)
        # Calls that are over rarely say more; if they do, their row is read again.
        self._summaries = {key: each for key, each in summaries.items() if each.ended_at is None}

    def _load_summary(self, key: tuple[int, str]) -> CallSummary:
        row = self._database.execute("SELECT summary FROM calls WHERE run = ? AND call_sid = ?", key).fetchone()
        return CallSummary() if row is None else CallSummary(**json.loads(row[0]))

    async def _prune(self) -> None:
        if self._retention != Retention():
            try:
                self._pruned += await trio.to_thread.run_sync(prune, self._database, self._retention)
            except sqlite3.Error as error:
                log.error("history: %s cannot be pruned: %s", self.path, error)

    def _close(self) -> None:
        for detach in self._detach:
            detach()
        self._closing = self._hurry = True
        self._something_waits.unpark_all()


_PUT_CALL = "INSERT OR REPLACE INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def _row(run: int, record: Record) -> tuple[Any, ...]:
    data = json.dumps(record.data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return run, record.number, record.at, _text(record.call_sid), record.kind.value, data, record.raw or None


def _text(sid: str) -> str:
    # sqlite takes UTF-8 only; a sid may hold any bytes.
    return sid.encode(errors="surrogateescape").decode(errors="replace")


def _call_row(run: int, call: CallSummary) -> tuple[Any, ...]:
    return (
        *(run, _text(call.call_sid), call.began_at, call.ended_at, call.status, call.q850_cause),
        *(call.caller, call.callee, call.trunk_id),
        json.dumps({**attrs.asdict(call), "call_sid": _text(call.call_sid)}, ensure_ascii=False),
    )


def from_row(row: tuple[Any, ...]) -> Record:
    """A row of number, at, call_sid, kind, data and raw as the record it was made of."""
    number, at, call_sid, kind, data, raw = row
    return Record(number=number, at=at, call_sid=call_sid, kind=RecordKind(kind), data=json.loads(data), raw=raw or b"")


_OLDEST = "SELECT run, call_sid FROM calls WHERE ended_at NOT NULL ORDER BY ended_at LIMIT 100"


def prune(database: sqlite3.Connection, retention: Retention, *, now: float | None = None) -> int:
    """Delete what is beyond ``retention``, and return how many calls that were. Blocks."""
    deleted = 0
    if retention.max_age is not None:
        limit = (time.time() if now is None else now) - retention.max_age
        deleted += _delete(database, "ended_at < ?", (limit,))
    while retention.max_bytes is not None and _used_bytes(database) > retention.max_bytes:
        gone = _delete(database, f"(run, call_sid) IN ({_OLDEST})", ())
        deleted += gone
        if not gone:
            break
    if deleted:
        database.execute("PRAGMA incremental_vacuum")
        database.commit()
    return deleted


def _used_bytes(database: sqlite3.Connection) -> int:
    pages, free, size = (
        int(database.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def _delete(database: sqlite3.Connection, condition: str, arguments: tuple[Any, ...]) -> int:
    with database:
        database.execute("BEGIN IMMEDIATE")
        found = database.execute(f"SELECT run, call_sid FROM calls WHERE {condition}", arguments).fetchall()  # noqa: S608
        database.executemany("DELETE FROM records WHERE run = ? AND call_sid = ?", found)
        database.executemany("DELETE FROM calls WHERE run = ? AND call_sid = ?", found)
        if found:  # what the sessions said about themselves goes with the last of the calls around it
            (oldest,) = database.execute("SELECT min(began_at) FROM calls").fetchone()
            database.execute("DELETE FROM records WHERE call_sid = '' AND at < ?", (oldest or 0.0,))
    return len(found)


# -- the file -------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def open_store(
    path: str | PathLike[str],
    *,
    retention: Retention | None = None,
    redaction: Redaction | None = None,
    max_waiting: int = 64 << 20,
) -> AsyncIterator[Store]:
    """Open the history file at ``path``, or make it, and yield the :class:`Store` that writes to it.

    ``retention`` and ``redaction`` say what is kept, and how much of it; by default everything. ``max_waiting`` is how
    many bytes may wait for the disk. Raises :class:`StoreError` for a file that is damaged, newer than this version or
    something else. Leaving, also by cancellation, writes what waits.
    """
    path = Path(path)
    database = await trio.to_thread.run_sync(connect, path)
    try:
        store = Store(
            path,
            database,
            retention=retention or Retention(),
            redaction=redaction or Redaction(),
            max_waiting=max_waiting,
        )
        async with service_nursery() as services:
            services.start_soon(store._run, name="history")
            try:
                yield store
            finally:
                store._close()  # its task writes the rest, whatever is being cancelled
    finally:
        database.close()


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open a history file, and migrate it where it is older. Blocks. Raises :class:`StoreError`.

    A connection that is ``read_only`` sees what was acknowledged when each of its statements began, while others write.
    """
    if read_only and not path.exists():
        raise StoreError(f"there is no history file {path}")
    if not path.parent.is_dir():
        raise StoreError(f"there is no directory {path.parent} for the history file {path.name}")
    try:
        database = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=LOCK_SECONDS,
        )
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be opened: {error}") from error
    try:
        with contextlib.ExitStack() as unless_good:
            unless_good.callback(database.close)
            _prepare(path, database, read_only=read_only)
            unless_good.pop_all()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise StoreError(f"{path} cannot be opened: {error}") from error
        raise StoreError(f"{path} is locked by another program: {error}") from error
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path} is damaged, or not a history file: {error}; it was not changed") from error
    return database


def _prepare(path: Path, database: sqlite3.Connection, *, read_only: bool) -> None:
    database.execute("BEGIN")  # one look: another process may be making the file at this moment
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    database.execute("COMMIT")
    if application != APPLICATION_ID and (tables or read_only):
        raise StoreError(f"{path} is a database of something else, not a history file; it was not changed")
    if version > VERSION:
        raise StoreError(
            f"{path} was written by a newer version (schema {version}, this one knows {VERSION}); it was not changed"
        )
    if version < VERSION and read_only:
        raise StoreError(f"{path} is of an older version (schema {version}); open it once for writing to migrate it")
    if tables:
        (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StoreError(f"{path} is damaged: {verdict}; it was not changed")
    if read_only:
        database.execute("PRAGMA query_only = ON")
        return
    if not tables:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
    _write_ahead(database)
    database.execute("PRAGMA synchronous = FULL")
    if version < VERSION:
        with database:
            database.execute("BEGIN EXCLUSIVE")
            (version,) = database.execute("PRAGMA user_version").fetchone()  # another process may have been faster
            for number in range(version, VERSION):
                for statement in filter(str.strip, MIGRATIONS[number].split(";")):
                    database.execute(statement)
                if number == 1:
                    _summarise_everything(database)
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {VERSION}")


def _write_ahead(database: sqlite3.Connection) -> None:
    """Go to WAL mode. sqlite does not wait for others here, as it does elsewhere."""
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


def _summarise_everything(database: sqlite3.Connection) -> None:
    """Fill the table of calls, which version 1 did not have."""
    calls: dict[tuple[int, str], CallSummary] = {}
    for run, *row in database.execute(
        "SELECT run, number, at, call_sid, kind, data, raw FROM records WHERE call_sid != '' ORDER BY run, number"
    ):
        record = from_row(tuple(row))
        calls.setdefault((run, record.call_sid), CallSummary()).feed(record)
    database.executemany(_PUT_CALL, (_call_row(run, call) for (run, _), call in calls.items()))
