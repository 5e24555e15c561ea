"""What happened, again: stored records through the code that live ones pass.

Theory of operation
-------------------
The bytes of each stored event go through a fresh :class:`~agentao_trio.events.Ingest`, which decodes them, judges their
order and makes the record anew; everything else is handed on as it was. Where the new record is not the stored one,
something has changed: the file, or this package's mind. Both are reported and neither stops the replay.

Records leave through a :class:`~agentao_trio.hub.Hub`, so that whatever reads a session's records reads these too: a
dashboard, a test, another store. :func:`replayed` is the same without time or hub, for analysis.
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

__all__ = ["Difference", "ReplayReport", "replay", "replayed"]


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


def replayed(records: Iterable[Record]) -> Iterator[tuple[Record, Record | None]]:
    """Each stored record of one run, with the one that its bytes give now."""
    ingest = Ingest()
    for record in records:
        if record.kind is not RecordKind.EVENT:
            yield record, record
            continue
        try:
            again = ingest.event(record.raw, at=record.at)
        except RemoteProtocolError:
            yield record, None
        else:
            yield record, attrs.evolve(record, data=chronicle.event(again))


async def replay(records: Iterable[Record], hub: Hub, *, speed: float | None = 1.0) -> ReplayReport:
    """Hand the records of one run to the readers of ``hub``, at the pace they came.

    ``speed`` 2 is twice as fast; None takes no time at all, but lets other tasks run. Records keep their numbers and
    times. Raises ValueError for a speed that is not positive. Cancelled, the rest is not replayed.
    """
    if speed is not None and not speed > 0:
        raise ValueError(f"a replay cannot have a speed of {speed}; expected a positive number, or None")
    began = trio.current_time()
    first = latest = None
    count = 0
    differences: list[Difference] = []
    for stored, again in replayed(records):
        first = stored.at if first is None else first
        latest = stored.at
        if speed is None:
            await trio.lowlevel.checkpoint()
        else:
            await trio.sleep_until(began + (stored.at - first) / speed)
        count += 1
        if again != stored and len(differences) < _MOST_DIFFERENCES:
            differences.append(Difference(stored=stored, replayed=again))
        if again is not None:
            hub.relay(again)
    return ReplayReport(records=count, seconds=(latest or 0.0) - (first or 0.0), differences=tuple(differences))
