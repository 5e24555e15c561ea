"""A session keeps a journal, and its replay is the conversation."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from agentao_trio.realtime.journal import read_journal, replay
from agentao_trio.realtime.protocol import SessionConfig
from agentao_trio.realtime.script import Script, Turn
from agentao_trio.realtime.session import open_realtime
from agentao_trio.realtime.simulator import simulated


async def test_what_a_session_went_through_can_be_replayed(autojump_clock: MockClock) -> None:
    script = Script(turns=(Turn(text="Good morning to you."), Turn(text="And a good day.")))
    async with open_realtime("ws://scripted", config=SessionConfig(), connect=simulated(script)) as session:
        for _ in range(2):
            await session.create_response()
            await trio.sleep(20)
        entries = read_journal(session.journal.export())
        conversation, digest = replay(entries)
        assert conversation.items == session.conversation.items
        assert conversation.transcript() == (
            ("assistant", "Good morning to you."),
            ("assistant", "And a good day."),
        )
        assert {replay(entries)[1] for _ in range(5)} == {digest}
        shown: list[tuple[float, str]] = []
        replay(entries, each=lambda at, received: shown.append((at, received.wire_type)))
        assert shown == [(entry.at, entry.type) for entry in entries if entry.direction == "received"]
        figures = session.journal.statistics()
        assert figures.created_to_audio.count == figures.created_to_done.count == 2
        assert figures.received == session.statistics().events_received
        assert figures.sent == session.statistics().events_sent


async def test_the_journal_of_a_session_is_bounded(autojump_clock: MockClock) -> None:
    connect = simulated(Script())
    async with open_realtime("ws://scripted", config=SessionConfig(), connect=connect, journal_bytes=2000) as session:
        await session.create_response()
        await trio.sleep(20)
        figures = session.journal.statistics()
        assert figures.bytes_held <= 2000
        assert figures.dropped > 0
        assert figures.entries + figures.dropped == figures.received + figures.sent
