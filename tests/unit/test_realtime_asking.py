"""Questions to a model and their answers, without a connection: who gets which, and what outlives an outage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agentao_trio.errors import ConnectionLost, RealtimeError, SessionClosed
from agentao_trio.realtime import protocol
from agentao_trio.realtime.asking import Asking
from agentao_trio.realtime.protocol import ClientEvent, ResponseConfig


@attrs.define(eq=False)
class Model:
    """What was sent to it; and it says whatever it is told to."""

    asking: Asking
    sent: list[ClientEvent]
    nursery: trio.Nursery
    outcomes: list[str] = attrs.field(factory=list)

    async def says(self, **event: object) -> None:
        said = protocol.decode_server_event(json.dumps(event)).event
        assert not isinstance(said, protocol.Unknown | protocol.Malformed)
        self.asking.heard(said)
        await wait_all_tasks_blocked()

    async def wants(self, config: ResponseConfig | None = None) -> None:
        """Somebody wants a response; what comes of it is in ``outcomes``."""
        ids = iter(f"e{len(self.sent)}{letter}" for letter in "abc")

        async def want() -> None:
            try:
                self.outcomes.append(await self.asking.create_response(config, lambda kind: next(ids)))
            except (RealtimeError, SessionClosed, ConnectionLost) as error:
                self.outcomes.append(type(error).__name__)

        self.nursery.start_soon(want)
        await wait_all_tasks_blocked()

    async def refuses(self, code: str) -> None:
        await self.says(type="error", error={"code": code, "event_id": self.sent[-1].event_id})


@asynccontextmanager
async def model() -> AsyncIterator[Model]:
    sent: list[ClientEvent] = []

    async def send(event: ClientEvent) -> str:
        sent.append(event)
        return str(event.event_id)

    async with trio.open_nursery() as nursery:
        asking = Asking(nursery, send, Counter(), jitter=lambda: 0.5)
        asking.connection_made()
        yield Model(asking, sent, nursery)
        nursery.cancel_scope.cancel()


OURS = {"id": "r", "conversation_id": "conv"}


async def test_a_response_beside_the_conversation_leaves_the_active_one_alone(autojump_clock: MockClock) -> None:
    async with model() as one:
        await one.says(type="response.created", response=OURS)
        await one.wants(ResponseConfig(conversation="none"))
        await one.says(type="response.created", response={"id": "aside"})
        assert (one.outcomes, one.asking.active) == (["aside"], "r")
        await one.says(type="response.done", response={"id": "aside", "status": "completed"})
        assert one.asking.active == "r"
        await one.says(type="response.done", response={**OURS, "status": "completed"})
        assert (one.asking.active, one.asking.busy) == (None, False)


async def test_a_wish_that_is_refused_for_good_is_an_error(autojump_clock: MockClock) -> None:
    async with model() as one:
        await one.wants()
        await one.refuses("invalid_value")
        assert one.outcomes == ["RealtimeError"]


async def test_a_wish_waits_for_a_response_that_only_the_server_knew_of(autojump_clock: MockClock) -> None:
    async with model() as one:
        await one.wants()
        await one.refuses("conversation_already_has_active_response")
        assert (one.outcomes, len(one.sent), one.asking.busy) == ([], 1, True)
        await one.says(type="response.done", response={"id": "other", "status": "completed"})
        assert len(one.sent) == 2
        await one.says(type="response.created", response=OURS)
        assert one.outcomes == ["r"]


async def test_a_wish_outlives_the_connection_and_other_questions_do_not(autojump_clock: MockClock) -> None:
    async with model() as one:
        await one.wants()
        told: list[str] = []

        async def clear() -> None:
            try:
                await one.asking.request(protocol.InputAudioBufferClear(event_id="c"))
            except ConnectionLost as lost:
                told.append(str(lost))

        one.nursery.start_soon(clear)
        await wait_all_tasks_blocked()
        one.asking.connected = False
        one.asking.connection_lost("it fell silent")
        await wait_all_tasks_blocked()
        assert told == ["input_audio_buffer.clear was not answered: it fell silent"]
        one.asking.connection_made()
        await wait_all_tasks_blocked()
        assert [type(event) for event in one.sent] == [
            protocol.ResponseCreate,
            protocol.InputAudioBufferClear,
            protocol.ResponseCreate,
        ]


async def test_a_caller_who_has_spoken_is_waiting_for_an_answer(autojump_clock: MockClock) -> None:
    """Nobody renews the connection at that moment: what was said would be lost with it."""
    async with model() as one:
        for event in ("speech_started", "speech_stopped", "committed"):
            await one.says(type=f"input_audio_buffer.{event}", item_id="i")
            assert one.asking.busy == (event != "speech_started")
        await one.says(type="response.created", response=OURS)
        await one.says(type="response.done", response={**OURS, "status": "completed"})
        assert not one.asking.busy
        await one.says(type="input_audio_buffer.speech_stopped", item_id="i")
        one.asking.connection_lost("it fell silent")
        assert not one.asking.busy, "nobody else will answer"


@pytest.mark.parametrize("busy", [False, True])
async def test_whoever_waits_is_told_that_the_session_is_over(busy: bool, autojump_clock: MockClock) -> None:
    async with model() as one:
        if busy:
            await one.says(type="response.created", response=OURS)
        await one.wants()
        one.asking.close()
        await wait_all_tasks_blocked()
        assert one.outcomes == ["SessionClosed"]


async def test_what_has_no_answer_is_no_question(autojump_clock: MockClock) -> None:
    async with model() as one:
        with pytest.raises(ValueError, match="has no answer"):
            await one.asking.request(protocol.InputAudioBufferAppend(audio="", event_id="a"))
