"""Offers callers the free appointments, one after the other, and books the one for which they press 1.

The calendar is a SQLite database. Each question to it is asked in a thread, so that no other call waits for the disk.

In one terminal ``agentao-trio gateway --inbound 10/minute``, in another ``python appointments.py``.
"""

import contextlib
import functools
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trio

from agentao_trio import ActiveCall, ClientTLS, serve
from agentao_trio.detect import Digit, DtmfDetector

PROMPTS = Path(__file__).with_name("prompts")
SLOTS = ["2026-01-12 09:00", "2026-01-12 09:30", "2026-01-12 10:00"]


class Calendar:
    """Appointments and who has them. All of it blocks, and is for a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _open(self) -> contextlib.closing[sqlite3.Connection]:
        return contextlib.closing(sqlite3.connect(self._path, isolation_level=None))

    def create(self) -> None:
        with self._open() as database:
            database.execute("CREATE TABLE IF NOT EXISTS slots (at TEXT PRIMARY KEY, booked_by TEXT)")
            database.executemany("INSERT OR IGNORE INTO slots (at) VALUES (?)", [(slot,) for slot in SLOTS])

    def free_slots(self) -> list[str]:
        with self._open() as database:
            return [at for (at,) in database.execute("SELECT at FROM slots WHERE booked_by IS NULL ORDER BY at")]

    def book(self, at: str, caller: str) -> bool:
        """False where another caller was faster."""
        with self._open() as database:
            update = "UPDATE slots SET booked_by = ? WHERE at = ? AND booked_by IS NULL"
            return database.execute(update, (caller, at)).rowcount == 1


async def answer(call: ActiveCall, calendar: Calendar) -> None:
    await call.answer()
    outcome = "fully-booked.wav"
    with contextlib.closing(call.detect(DtmfDetector())) as keys:  # one for all questions: it tells of each key once
        for slot in await trio.to_thread.run_sync(calendar.free_slots):
            if await agrees(call, keys) and await trio.to_thread.run_sync(calendar.book, slot, call.caller):
                outcome = "booked.wav"
                break
    await call.play(PROMPTS / outcome)
    await call.wait_played()


async def agrees(call: ActiveCall, keys: AsyncIterator[Digit]) -> bool:
    """Offer a slot; whether the caller takes it. A voice would say the time of day here."""
    with trio.move_on_after(5):
        async with call.play(PROMPTS / "free-slot.wav"):
            async for key in keys:
                return key.digit == "1"
    return False


async def main(
    endpoint: str = "quic://127.0.0.1:9090", *, database: Path = Path("calendar.db"), **options: Any
) -> None:
    calendar = Calendar(database)
    await trio.to_thread.run_sync(calendar.create)
    await serve(functools.partial(answer, calendar=calendar), endpoint, trunks=["main"], **options)


if __name__ == "__main__":
    trio.run(lambda: main(tls=ClientTLS(ca="ca.pem")))
