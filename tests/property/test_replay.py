"""Whatever calls do, their history replays as it happened, record for record."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import attrs
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from agentao_trio.analytics import Analysis, Figures
from agentao_trio.errors import AgentaoError
from agentao_trio.history import open_history
from agentao_trio.hub import Hub
from agentao_trio.records import Record
from agentao_trio.replay import replay
from agentao_trio.store import open_store
from agentao_trio.summaries import CallSummary, summarised
from tests.support.simulated import simulated

#: Far ends that answer, hold, hang up, are busy, refuse and never reply.
NUMBERS = [f"+155501000{end:02}" for end in (1, 2, 6, 16, 17, 18)] + ["+15550100403", "+15550100501"]


@attrs.frozen
class Planned:
    """One call of a programme: whom to, when, and for how long at the most."""

    to: str
    after: float
    lasts: float
    digits: str


programmes = st.lists(
    st.builds(
        Planned,
        to=st.sampled_from(NUMBERS),
        after=st.floats(0, 2),
        lasts=st.floats(0.05, 3),
        digits=st.sampled_from(["", "1", "5#"]),
    ),
    min_size=1,
    max_size=4,
)


async def live(path: Path, programme: list[Planned], lost_at: float | None) -> list[Record]:
    """Carry it out, store it, and return what passed the hub."""
    published: list[Record] = []
    hub = Hub()
    hub.attach(published.append)

    async with open_store(path) as store:
        store.attach(hub)
        async with simulated(hub=hub) as (session, gateway), trio.open_nursery() as nursery:

            async def carry_out(planned: Planned) -> None:
                await trio.sleep(planned.after)
                with contextlib.suppress(AgentaoError), trio.move_on_after(planned.lasts):
                    async with await session.originate(planned.to, trunk_id="main") as call:
                        await call.wait_answered()
                        if planned.digits:
                            await call.send_dtmf(planned.digits)
                        await call.wait_ended()

            for planned in programme:
                nursery.start_soon(carry_out, planned)
            if lost_at is not None:
                await trio.sleep(lost_at)
                await gateway.disconnect()
    return published


async def again(path: Path) -> list[Record]:
    records: list[Record] = []
    hub = Hub()
    hub.attach(records.append)
    with open_history(path) as history:
        report = await replay(history.records(), hub, speed=None)
    assert report.differences == ()
    return records


def analysed(records: list[Record]) -> Figures:
    analysis = Analysis()
    for record in records:
        analysis.feed(record)
    return analysis.figures()


def calls_of(path: Path) -> list[CallSummary]:
    with open_history(path) as history:
        return sorted(history.calls(), key=lambda call: call.call_sid)


@settings(max_examples=12, deadline=None)
@given(programme=programmes, lost_at=st.none() | st.floats(0.2, 2))
def test_a_replayed_programme_equals_the_live_one(programme: list[Planned], lost_at: float | None) -> None:
    def run(function: object, *arguments: object) -> list[Record]:
        return trio.run(function, *arguments, clock=MockClock(autojump_threshold=0))  # type: ignore[arg-type]

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "calls.db")
        published = run(live, path, programme, lost_at)
        replayed = run(again, path)
        assert replayed == published
        assert analysed(replayed) == analysed(published)
        stored = {call.call_sid: call for call in calls_of(path)}
        assert stored == {sid: call for sid, call in summarised(published).items() if sid in stored}
