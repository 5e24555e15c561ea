"""What happened, again: stored records through the code that live ones pass.

Theory of operation
-------------------
The bytes of each stored event go through a fresh :class:`~agentao_trio.events.Ingest`, which decodes them, judges their
order and makes the record anew; everything else is handed on as it was. Where the new record is not the stored one,
something has changed: the file, or this package's mind. Both are reported and neither stops the replay.

Records leave through a :class:`~agentao_trio.hub.Hub`, so that whatever reads a session's records reads these too: a
dashboard, a test, another store. :func:`replayed` is the same without time or hub, for analysis.

A file may hold several runs: of a program that was started again, or of several workers at the same time, which all are
told of every call that comes in. :class:`Together` makes of them what one hub would have told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs
import trio

from agentao_trio import chronicle
from agentao_trio.errors import RemoteProtocolError
from agentao_trio.events import Ingest
from agentao_trio.hub import Hub
from agentao_trio.records import Record, RecordKind

__all__ = ["Difference", "ReplayReport", "Together", "replay", "replay_together", "replayed"]


@attrs.frozen(kw_only=True)
class Difference:
    """A stored record that comes out differently now; ``replayed`` is None where its bytes cannot be decoded."""

    stored: Record
    replayed: Record | None


@attrs.frozen(kw_only=True)
class ReplayReport:
    """What a replay came to: how many records, over how many seconds of history, and which came out differently."""

    records: int
    seconds: float
    differences: tuple[Difference, ...]


#: Differences that a report lists; the others are the same story.
_MOST_DIFFERENCES = 100


class Together:
    """Records of several runs as one hub would have told them: numbered anew, and of a call that several workers were
    told of, only the last one lets go. One that is still somebody's is not over."""

    def __init__(self) -> None:
        self._number = 0
        self._holders: dict[str, set[int]] = {}

    def __repr__(self) -> str:
        return f"<Together, {self._number} records, {len(self._holders)} calls held>"

    def take(self, run: int, record: Record) -> Record | None:
        """The next record, in the order they happened; None for one that says nothing of the whole."""
        if record.kind is RecordKind.CALL and record.data.get("phase") == "began":
            self._holders.setdefault(record.call_sid, set()).add(run)
        if record.kind is RecordKind.CALL and record.data.get("phase") == "over":
            others = self._holders.get(record.call_sid, set()) - {run}
            if others and record.data.get("how") == "released":
                self._holders[record.call_sid] = others
                return None
            self._holders.pop(record.call_sid, None)
        self._number += 1
        return attrs.evolve(record, number=self._number)


def _again(ingest: Ingest, record: Record) -> Record | None:
    """What a stored record's bytes give now; None where they cannot be decoded."""
    if record.kind is not RecordKind.EVENT:
        return record
    try:
        again = ingest.event(record.raw, at=record.at)
    except RemoteProtocolError:
        return None
    return attrs.evolve(record, data=chronicle.event(again))


def replayed(records: Iterable[Record]) -> Iterator[tuple[Record, Record | None]]:
    """Each stored record of one run, with the one that its bytes give now."""
    ingest = Ingest()
    for record in records:
        yield record, _again(ingest, record)


async def replay(records: Iterable[Record], hub: Hub, *, speed: float | None = 1.0) -> ReplayReport:
    """Hand the records of one run to the readers of ``hub``, at the pace they came.

    ``speed`` 2 is twice as fast; None takes no time at all, but lets other tasks run. Records keep their numbers and
    times. Raises ValueError for a speed that is not positive. Cancelled, the rest is not replayed.
    """
    return await _replay(((stored, again, again) for stored, again in replayed(records)), hub, speed)


async def replay_together(
    records: Iterable[tuple[int, Record]], hub: Hub, *, speed: float | None = 1.0
) -> ReplayReport:
    """:func:`replay` of several runs: each record with its run, in the order they happened. They are told as
    :class:`Together` does, with numbers of their own."""
    ingests: dict[int, Ingest] = {}
    together = Together()

    def told() -> Iterator[_Step]:
        for run, stored in records:
            again = _again(ingests.setdefault(run, Ingest()), stored)
            yield stored, again, None if again is None else together.take(run, again)

    return await _replay(told(), hub, speed)


#: A stored record, what its bytes give now, and what is handed on.
_Step = tuple[Record, Record | None, Record | None]


async def _replay(steps: Iterable[_Step], hub: Hub, speed: float | None) -> ReplayReport:
    if speed is not None and not speed > 0:
        raise ValueError(f"a replay cannot have a speed of {speed}; expected a positive number, or None")
    began = trio.current_time()
    first = latest = None
    count = 0
    differences: list[Difference] = []
    for stored, again, told in steps:
        first = stored.at if first is None else first
        latest = stored.at
        if speed is None:
            await trio.lowlevel.checkpoint()
        else:
            await trio.sleep_until(began + (stored.at - first) / speed)
        count += 1
        if again != stored and len(differences) < _MOST_DIFFERENCES:
            differences.append(Difference(stored=stored, replayed=again))
        if told is not None:
            hub.relay(told)
    return ReplayReport(records=count, seconds=(latest or 0.0) - (first or 0.0), differences=tuple(differences))
