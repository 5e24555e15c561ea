"""Servers that repeat themselves, break the order or speak both dialects at once, and what the caller hears of it."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from agentao_trio import Codec, open_session
from agentao_trio.errors import ConnectionLost
from agentao_trio.realtime.bridge import bridge
from agentao_trio.realtime.connection import MemoryTransport, MessageTransport, memory_transports
from agentao_trio.realtime.protocol import SessionConfig
from agentao_trio.realtime.sequence import Violation
from agentao_trio.realtime.session import RealtimeSession, open_realtime
from agentao_trio.testing import SimulatedGateway
from tests.support.bridged import NUMBER, Ear, said_by


@attrs.define(eq=False)
class Puppet:
    """A server that takes every configuration and says what it is made to."""

    _near: MessageTransport
    _far: MemoryTransport
    _count: int = 0

    @classmethod
    def made(cls) -> Puppet:
        return cls(*memory_transports())

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[MessageTransport]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            yield self._near
            nursery.cancel_scope.cancel()

    async def _listen(self) -> None:
        await self.say({"type": "session.created", "session": {"id": "sess"}})
        with contextlib.suppress(ConnectionLost):
            while True:
                told = json.loads(await self._far.receive())
                if told["type"] == "session.update":
                    await self.say({"type": "session.updated", "session": told["session"]})

    async def say(self, *events: dict[str, Any]) -> None:
        for event in events:
            self._count += 1
            await self._far.send(json.dumps({"event_id": f"e{self._count}", **event}))


@contextlib.asynccontextmanager
async def talking_to(puppet: Puppet) -> AsyncIterator[RealtimeSession]:
    config = SessionConfig(turn_detection=None)
    async with open_realtime("ws://puppet", config=config, connect=puppet.connect) as session:
        yield session


def spoken(data: bytes, *, event_id: str, name: str = "response.output_audio.delta") -> dict[str, Any]:
    return {
        **{"type": name, "event_id": event_id, "response_id": "r", "item_id": "i"},
        **{"output_index": 0, "content_index": 0, "delta": base64.b64encode(data).decode()},
    }


BEGIN = {"type": "response.created", "response": {"id": "r"}}
END = {"type": "response.done", "response": {"id": "r", "status": "completed", "output": []}}
ITEM = {"id": "i", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
WORD = {"type": "response.audio_transcript.delta", "response_id": "r", "item_id": "i", "content_index": 0}


async def test_a_repeated_delta_is_heard_once_however_late_it_is_repeated(gateway: SimulatedGateway) -> None:
    ear, puppet = Ear(), Puppet.made()
    gateway.server.model.handsets[NUMBER] = ear
    first, second = said_by(100), said_by(100, 7)
    async with (
        open_session(gateway.endpoint, **gateway.options()) as session,
        await session.originate(NUMBER, trunk_id="main", codec=Codec.PCMU) as call,
        talking_to(puppet) as model,
        bridge(call, model),
    ):
        await puppet.say(BEGIN, {"type": "response.output_item.added", "response_id": "r", "item": ITEM})
        await puppet.say(spoken(first, event_id="a"), spoken(first, event_id="a"))
        for _ in range(1000):
            await puppet.say({**WORD, "delta": "and on "})
        await puppet.say(spoken(first, event_id="a"), spoken(second, event_id="b", name="response.audio.delta"), END)
        await trio.sleep(1)
        assert ear.sound == first + second
        assert model.statistics().duplicates == 2


async def test_one_id_for_different_deltas_takes_nothing_away(autojump_clock: MockClock) -> None:
    heard: list[str] = []
    async with talking_to(puppet := Puppet.made()) as session:
        session.subscribe("response.output_audio.delta", lambda event: heard.append(event.delta))
        await puppet.say(spoken(b"abc", event_id="same"), spoken(b"def", event_id="same"))
        await trio.testing.wait_all_tasks_blocked()
    assert [base64.b64decode(each) for each in heard] == [b"abc", b"def"]
    assert session.statistics().duplicates == 0


async def test_what_breaks_the_order_is_counted_told_and_used_all_the_same(autojump_clock: MockClock) -> None:
    broken: list[Violation] = []
    async with talking_to(puppet := Puppet.made()) as session:
        session.on_violation(broken.append)
        await puppet.say(spoken(b"abc", event_id="early"), BEGIN, END, END | {"event_id": "again"})
        await trio.testing.wait_all_tasks_blocked()
        assert session.state.value == "connected"
        assert session.conversation.active_responses == ()
    assert [each.rule for each in broken][:3] == ["before its beginning"] * 3
    assert {each.rule for each in broken[3:]} == {"begins twice", "is still open", "ends twice"}
    assert session.statistics().violations == len(broken)
    assert str(broken[-1].about) == "response r"


@pytest.mark.parametrize("renew_before", [4.99, 0.0, -1.0])
async def test_a_renewal_that_would_come_too_late_is_refused(renew_before: float) -> None:
    with pytest.raises(ValueError, match="has to be 5 s or more"):
        async with open_realtime("ws://any", config=SessionConfig(), renew_before=renew_before):
            raise AssertionError("it was opened")


async def test_a_journal_never_holds_the_key_and_without_words_no_words(autojump_clock: MockClock) -> None:
    key = "sk-not-to-be-told"
    puppet = Puppet.made()
    async with open_realtime(
        "ws://puppet",
        config=SessionConfig(instructions="Be <kind>.", turn_detection=None),
        connect=puppet.connect,
        api_key=key,
        headers={"api-key": "another-key"},
        journal_words="drop",
    ) as session:
        message = f"the key {key} (or another-key) has no quota"
        await puppet.say({"type": "error", "error": {"type": "invalid_request_error", "message": message}})
        await puppet.say({**WORD, "delta": "<private>"})
        await trio.testing.wait_all_tasks_blocked()
        exported = "".join(session.journal.export())
    assert session.journal.statistics().received == 4
    for word in (key, "another-key", "<kind>", "<private>", "quota"):
        assert word not in exported
