"""History: how fast records are stored beside what sqlite takes by itself, read, asked for while writing, replayed."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import trio

from agentao_trio import messages
from agentao_trio.analytics import Analysis
from agentao_trio.chronicle import event
from agentao_trio.events import Ingest
from agentao_trio.history import CallFilter, open_history
from agentao_trio.hub import Hub
from agentao_trio.messages import CallEvent, EventType
from agentao_trio.records import Record, RecordKind
from agentao_trio.replay import replayed
from agentao_trio.store import BATCH, connect, open_store
from benchmarks.row import Row

__all__ = ["measure"]

#: Records of one call: as many of quality as it has seconds, and its beginning, events and end.
CALL, EVENTS = 40, (EventType.CHANNEL_CREATE, EventType.CHANNEL_ANSWER, EventType.CHANNEL_HANGUP_COMPLETE)
#: Records published before the program's other tasks get a turn.
BURST = 500
QUALITY = {"mos": 4.41, "jitter_ms": 1.25, "packets_received": 1500, "packets_sent": 1500, "packets_lost": 0,
           "packet_loss_pct": 0.0, "packets_shed": 0, "codec": "PCMU", "final": False}  # fmt: skip
_INSERT = "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)"


def records(count: int) -> Iterator[Record]:
    """Records of calls that follow one another."""
    ingest = Ingest()
    number = 0
    while True:
        sid = f"call-{number // CALL:012}-0000-0000-000000000000"
        for step in range(CALL):
            number += 1
            if number > count:
                return
            at = 1_760_000_000.0 + number / CALL
            moment = {0: 0, 2: 1, CALL - 2: 2}.get(step)
            if moment is not None:
                body = messages.encode(
                    CallEvent(call_sid=sid, event_type=EVENTS[moment], q850_cause=16 * (moment == 2))
                )
                kind, data, raw = RecordKind.EVENT, event(ingest.event(body, at=at)), body
            elif step == 1:
                began = {"phase": "began", "direction": "outbound", "caller": "+15550109999", "callee": "+15550100001"}
                kind, data, raw = RecordKind.CALL, began, b""
            elif step == CALL - 1:
                kind, data, raw = RecordKind.CALL, {"phase": "over", "how": "hangup", "statistics": QUALITY}, b""
            else:
                kind, data, raw = RecordKind.QUALITY, QUALITY, b""
            yield Record(number=number, at=at, call_sid=sid, kind=kind, data=data, raw=raw)


async def store(path: Path, made: list[Record], *, reading: bool = False) -> tuple[float, list[float]]:
    """Seconds until ``made`` are safe in the file, and those that each query took that was made meanwhile."""
    queries: list[float] = []

    async def ask() -> None:
        with open_history(path) as history:
            while True:
                began = time.perf_counter()
                await trio.to_thread.run_sync(lambda: list(history.calls(CallFilter(cause=16), limit=50)))
                queries.append(time.perf_counter() - began)
                await trio.sleep(0.02)

    async with open_store(path, max_waiting=1 << 30) as opened, trio.open_nursery() as nursery:
        hub = Hub()
        opened.attach(hub)
        if reading:
            nursery.start_soon(ask)
        began = time.perf_counter()
        for first in range(0, len(made), BURST):
            for record in made[first : first + BURST]:
                hub.relay(record)
            await trio.lowlevel.checkpoint()
        await opened.flush()
        took = time.perf_counter() - began
        nursery.cancel_scope.cancel()
    assert opened.statistics().records_dropped == 0
    return took, queries


def insert(path: Path, rows: list[tuple[object, ...]]) -> float:
    """Seconds that sqlite takes for the same rows, in the same file, settings and batches, and nothing else."""
    database = connect(path)
    began = time.perf_counter()
    for first in range(0, len(rows), BATCH):
        database.execute("BEGIN IMMEDIATE")
        database.executemany(_INSERT, rows[first : first + BATCH])
        database.execute("COMMIT")
    took = time.perf_counter() - began
    database.close()
    return took


def measure(*, quick: bool) -> Iterator[Row]:
    """The rows of the table."""
    count = 20_000 if quick else 100_000
    made = list(records(count))
    with tempfile.TemporaryDirectory() as directory:
        ours, bare = Path(directory, "ours.db"), Path(directory, "bare.db")
        took, _ = trio.run(store, ours, made)
        rows = _rows(ours)
        limit = insert(bare, [(1, *row[1:]) for row in rows])
        yield Row(group="history", name="records stored", value=count / took, unit="/s", figures={"records": count},
                  text=f"{count / took:,.0f} /s until safe on disk, with calls summed up")  # fmt: skip
        yield Row(group="history", name="sqlite alone, same rows", value=count / limit, unit="/s",
                  text=f"{count / limit:,.0f} /s: ours is {limit / took:.2f} of it")  # fmt: skip
        busy = Path(directory, "busy.db")
        took, queries = trio.run(lambda: store(busy, made, reading=True))
        queries.sort()
        yield Row(group="history", name="the same, while asked", value=count / took, unit="/s",
                  text=f"{count / took:,.0f} /s; {len(queries)} queries, median {_ms(queries, 0.5)}, "
                  f"slowest {_ms(queries, 1.0)}")  # fmt: skip
        with open_history(ours) as history:
            began = time.perf_counter()
            differences = sum(stored != again for stored, again in replayed(history.records()))
            took = time.perf_counter() - began
            assert differences == 0
            yield Row(group="history", name="records replayed", value=count / took, unit="/s",
                      text=f"{count / took:,.0f} /s from the file, decoded and judged anew")  # fmt: skip
            began = time.perf_counter()
            analysis = Analysis()
            for record in history.records():
                analysis.feed(record)
            took = time.perf_counter() - began
            assert analysis.figures().calls == -(-count // CALL)
            yield Row(group="history", name="records analysed", value=count / took, unit="/s",
                      text=f"{count / took:,.0f} /s from the file")  # fmt: skip
    yield memory(50_000 if quick else 1_000_000)


def _ms(values: list[float], share: float) -> str:
    return f"{1000 * values[min(len(values) - 1, int(share * len(values)))]:.1f} ms" if values else "–"


def _rows(path: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as database:
        return database.execute("SELECT run, number, at, call_sid, kind, data, raw FROM records").fetchall()


def memory(count: int) -> Row:
    """What a program of its own takes while so many records pass through it into a file."""
    program = [sys.executable, "-m", "benchmarks.history", str(count)]
    before, after, size, seconds = subprocess.run(program, capture_output=True, text=True, check=True).stdout.split()
    grown = (int(after) - int(before)) / 1024
    return Row(group="history", name=f"memory, {count:,} records", value=grown, unit=" MiB",
               text=f"{grown:.0f} MiB more than before the first; a file of {int(size) / 1e6:.0f} MB, written in "
               f"{float(seconds):.0f} s",
               figures={"records": count, "file_bytes": int(size)})  # fmt: skip


def peak() -> int:
    """The most memory that this program has had so far, in KiB; unlike getrusage's, none of its parent's."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])


async def _pass_through(count: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "calls.db")
        async with open_store(path) as opened:
            hub = Hub()
            opened.attach(hub)
            before = peak()
            began = time.perf_counter()
            for number, record in enumerate(records(count)):
                hub.relay(record)
                if number % BURST == 0:
                    await trio.lowlevel.checkpoint()
                if number % 10_000 == 0:  # what waits is bounded: none may be dropped here
                    await opened.flush()
            await opened.flush()
            took = time.perf_counter() - began
            assert opened.statistics().records_written == count
        after = peak()
        size = await trio.to_thread.run_sync(lambda: path.stat().st_size)
        sys.stdout.write(f"{before} {after} {size} {took}\n")


if __name__ == "__main__":
    trio.run(_pass_through, int(sys.argv[1]))
