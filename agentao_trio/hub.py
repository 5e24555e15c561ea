"""Where a session's records pass through, for whoever wants them: history, dashboards, metrics, a test.

A reader is a plain function that takes a :class:`~agentao_trio.records.Record` and must neither wait nor raise; what it
keeps it bounds itself. A reader that raises is a defect of the program, and its exception propagates to what published.
Nothing is kept here: a reader gets what is published from then on, so attach it before the calls are placed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

import trio

from agentao_trio.records import Record, RecordKind

__all__ = ["Hub", "Reader"]

Reader = Callable[[Record], None]


class Hub:
    """Numbers and times what is published, and hands it to every reader at once."""

    def __init__(self) -> None:
        # Anchored once: the machine's clock may be set back, trio's never is.
        self._unix_zero = time.time() - trio.current_time()
        self._number = 0
        self._latest = 0.0
        self._readers: dict[object, Reader] = {}
        self._someone_came = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return f"<Hub, {self._number} records published, {len(self._readers)} readers>"

    @property
    def has_readers(self) -> bool:
        """Whether anybody listens. Where nobody does, publishing is free and takes no number."""
        return bool(self._readers)

    async def wait_read(self) -> None:
        """Wait until somebody listens. Cancellation changes nothing."""
        await trio.lowlevel.checkpoint()
        while not self._readers:
            await self._someone_came.park()

    def unix(self, at: float) -> float:
        """Seconds of trio's clock as Unix seconds."""
        return self._unix_zero + at

    def attach(self, reader: Reader, *, kinds: Collection[RecordKind] | None = None) -> Callable[[], None]:
        """Have ``reader`` called with every record from now on, or those of some ``kinds``. Returns how to stop it.

        Stopping is harmless when repeated.
        """
        if kinds is not None:
            wanted, deliver = frozenset(kinds), reader

            def reader(record: Record) -> None:
                if record.kind in wanted:
                    deliver(record)

        token = object()
        self._readers[token] = reader
        self._someone_came.unpark_all()

        def detach() -> None:
            self._readers.pop(token, None)

        return detach

    def publish(
        self,
        kind: RecordKind,
        call_sid: str = "",
        *,
        raw: bytes = b"",
        at: float | None = None,
        data: Callable[[], dict[str, Any]] | None = None,
        **fields: Any,
    ) -> None:
        """Tell every reader. ``at`` is when it happened, in seconds of trio's clock; now, where it is left out.

        The data are ``fields``, or what ``data`` returns, which is called only where somebody listens. Either way they
        are JSON values; :func:`~agentao_trio.records.plain` makes them of others.
        """
        if not self._readers:
            return
        self._number += 1
        self._latest = max(self._latest, self.unix(trio.current_time() if at is None else at))
        record = Record(
            number=self._number,
            at=self._latest,
            call_sid=call_sid,
            kind=kind,
            data=fields if data is None else data(),
            raw=raw,
        )
        self.relay(record)

    def relay(self, record: Record) -> None:
        """Hand on a record that another hub has made, as it is."""
        for reader in tuple(self._readers.values()):
            reader(record)
