"""A session with the scripted model: turns, refusals, lost and renewed connections; in virtual time."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from agentao_trio.errors import AuthenticationError, ConnectionLost, RealtimeError, SessionClosed
from agentao_trio.realtime import protocol
from agentao_trio.realtime.protocol import (
    AudioFormat,
    ConversationItemAdded,
    Item,
    Profile,
    ResponseDone,
    ServerEvent,
    ServerVad,
    SessionConfig,
    Transcription,
)
from agentao_trio.realtime.script import Script, ToolCall, Turn, demo_script
from agentao_trio.realtime.session import RealtimeSession, RealtimeState, open_realtime
from agentao_trio.realtime.simulator import simulated

PHONE = SessionConfig(
    input_format=AudioFormat.PCMU, output_format=AudioFormat.PCMU, transcription=Transcription(model="whisper-1")
)
LOUD = bytes([0x00, 0x80]) * 80  # 20 ms of PCMU at full scale
QUIET = b"\xff" * 160
HELLO = Turn(text="Hello, how can I help you today?", heard="Good morning.")


@contextlib.asynccontextmanager
async def talking_to(
    script: Script, *, profile: Profile = Profile.GA, config: SessionConfig = PHONE, renew_before: float = 120.0
) -> AsyncIterator[RealtimeSession]:
    connect = simulated(script, profile=profile)
    async with open_realtime(
        "ws://scripted", config=config, connect=connect, profile=profile, renew_before=renew_before, jitter=lambda: 0.5
    ) as session:
        yield session


async def say(session: RealtimeSession, *, seconds: float = 0.4, silence: float = 0.3) -> None:
    """Speak as a caller does, in real time, and be quiet afterwards."""
    for payload, length in ((LOUD, seconds), (QUIET, silence)):
        for _ in range(round(length / 0.02)):
            session.append_audio(payload)
            await trio.sleep(0.02)


async def next_of(events: AsyncIterator[ServerEvent], wanted: type[ServerEvent]) -> ServerEvent:
    async for event in events:
        if isinstance(event, wanted):
            return event
    raise AssertionError("the session has ended")


def types(events: list[ServerEvent]) -> list[str]:
    return [event.TYPE for event in events]


# -- turns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", list(Profile))
async def test_what_the_caller_says_is_answered(profile: Profile, autojump_clock: MockClock) -> None:
    heard: list[ServerEvent] = []
    async with talking_to(Script(turns=(HELLO,)), profile=profile) as session:
        assert (session.state, session.session_id) == (RealtimeState.CONNECTED, "sess_c1")
        session.subscribe("*", heard.append)
        dones = session.events("response.done")
        await say(session)
        done = await next_of(dones, ResponseDone)
    assert isinstance(done, ResponseDone)
    assert done.response.status == "completed"
    said = "".join(e.delta for e in heard if isinstance(e, protocol.ResponseOutputAudioTranscriptDelta))
    assert said == HELLO.text
    order = types(heard)
    for earlier, later in (
        ("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"),
        ("input_audio_buffer.speech_stopped", "input_audio_buffer.committed"),
        ("input_audio_buffer.committed", "response.created"),
        ("response.created", "response.output_item.added"),
        ("response.output_item.added", "response.output_audio.delta"),
        ("response.output_audio.done", "response.done"),
    ):
        assert order.index(earlier) < order.index(later)
    assert session.state is RealtimeState.CLOSED


async def test_a_tool_is_called_and_its_output_answered(autojump_clock: MockClock) -> None:
    look = Turn(tool=ToolCall(name="look_up", arguments='{"number": 1}'))
    async with talking_to(Script(turns=(look, Turn(text="It is on its way.")))) as session:
        calls = session.events("response.function_call_arguments.done")
        dones = session.events(ResponseDone)
        await session.create_response()
        call = await anext(calls)
        assert (call.name, call.arguments) == ("look_up", '{"number": 1}')
        await session.create_item(Item.function_call_output(call.call_id, '"found"'))
        second = await session.create_response()  # waits for the end of the first one
        assert (await anext(dones)).response.id != second
        done = (await anext(dones)).response
        assert (done.id, done.output[0].content[0].transcript) == (second, "It is on its way.")


async def test_speaking_into_a_response_cancels_it(autojump_clock: MockClock) -> None:
    long = Turn(text="This goes on and on for quite a while, as you hear. " * 4, pace=1.0)
    async with talking_to(Script(turns=(long, HELLO))) as session:
        dones = session.events("response.done")
        await session.create_response()
        await trio.sleep(1)
        await say(session, silence=0.0)
        first = (await anext(dones)).response
        assert (first.status, first.status_details.reason) == ("cancelled", "turn_detected")
        assert first.output[0].status == "incomplete"


async def test_interruption_can_be_left_to_the_client(autojump_clock: MockClock) -> None:
    long = Turn(text="This goes on for a while. " * 4, pace=1.0)
    config = SessionConfig(turn_detection=ServerVad(interrupt_response=False))
    async with talking_to(Script(turns=(long,))) as session:
        await session.update(config)
        dones = session.events("response.done")
        await session.create_response()
        await trio.sleep(1)
        await say(session, silence=0.0)
        await session.cancel_response()
        first = (await anext(dones)).response
        assert (first.status, first.status_details.reason) == ("cancelled", "client_cancelled")


# -- the configuration ----------------------------------------------------------------------------------------------


async def test_an_update_is_echoed_and_kept(autojump_clock: MockClock) -> None:
    async with talking_to(Script()) as session:
        await session.update(SessionConfig(instructions="Be brief.", turn_detection=None))
        assert session.config.instructions == "Be brief."
        assert session.config.turn_detection is None
        assert session.config.output_format is AudioFormat.PCMU


async def test_an_echo_of_something_else_is_an_error(autojump_clock: MockClock) -> None:
    with pytest.raises(RealtimeError, match="output_format audio/pcm in place of audio/pcmu") as failure:
        async with talking_to(Script(faults=("echo_otherwise",))):
            pytest.fail("the session is not to open")
    assert failure.value.code == "echoed_otherwise"


async def test_a_refused_configuration_is_an_error(autojump_clock: MockClock) -> None:
    with pytest.raises(RealtimeError) as failure:
        async with talking_to(Script(faults=("refuse_update",))):
            pytest.fail("the session is not to open")
    assert failure.value.code == "invalid_value"


async def test_of_the_callers_audio_only_so_much_waits(autojump_clock: MockClock) -> None:
    connect = simulated(Script())
    async with open_realtime("ws://scripted", config=PHONE, connect=connect, uplink_ms=100) as session:
        session.append_audio(bytes(8000))  # a second of it, and nobody has had a chance to send any
        statistics = session.statistics()
        assert (statistics.audio_waiting_ms, statistics.audio_dropped_ms) == (80, 920), "whole events of 40 ms"


# -- refusals -------------------------------------------------------------------------------------------------------


async def test_refusals_reach_who_asked(autojump_clock: MockClock) -> None:
    async with talking_to(Script(turns=(HELLO,))) as session:
        added = session.events(ConversationItemAdded)
        dones = session.events("response.done")
        await session.create_response()
        item = (await anext(added)).item.id
        await anext(dones)
        with pytest.raises(RealtimeError, match="already shorter than 60000ms"):
            await session.truncate(item, 60_000)
        await session.truncate(item, 100)
        with pytest.raises(RealtimeError, match="not found") as failure:
            await session.delete_item("item_unknown")
        assert failure.value.code == "item_delete_invalid_item_id"
        with pytest.raises(RealtimeError, match="buffer too small"):
            await session.request(protocol.InputAudioBufferCommit())
        mine = await session.create_item(Item.message("user", "Hello"))
        with pytest.raises(RealtimeError, match="Only model output audio"):
            await session.truncate(mine, 0)
        await session.delete_item(mine)
        await session.cancel_response()  # nothing is active
        assert session.statistics().errors == 4


async def test_a_wish_for_a_response_waits_for_the_active_one_that_only_the_server_knows_of(
    autojump_clock: MockClock,
) -> None:
    async with talking_to(Script(turns=(HELLO, Turn(text="Second.")))) as session:
        dones = session.events("response.done")
        session.send_nowait(protocol.ResponseCreate())  # not known to be active when the next is asked for
        await session.create_response()
        first, second = (await anext(dones)).response, (await anext(dones)).response
        assert [response.output[0].content[0].transcript for response in (first, second)] == [HELLO.text, "Second."]


async def test_a_response_over_its_limit_is_asked_for_again(autojump_clock: MockClock) -> None:
    async with talking_to(Script(turns=(Turn(text="At last.", fault="rate_limited"),))) as session:
        dones = session.events("response.done")
        began = trio.current_time()
        await session.create_response()
        assert (await anext(dones)).response.status == "failed"
        done = (await anext(dones)).response
        assert done.output[0].content[0].transcript == "At last."
        assert trio.current_time() - began >= 1.0  # as the limits said
        assert session.statistics().retries == 1


async def test_a_failing_server_is_asked_again(autojump_clock: MockClock) -> None:
    async with talking_to(Script(turns=(Turn(text="At last.", fault="server_error"),))) as session:
        dones = session.events("response.done")
        await session.create_response()
        assert (await anext(dones)).response.status == "completed"


async def test_a_failing_server_is_asked_to_answer_the_caller_once_more(autojump_clock: MockClock) -> None:
    async with talking_to(Script(turns=(Turn(text="At last.", fault="server_error"),))) as session:
        dones = session.events("response.done")
        await say(session)
        assert (await anext(dones)).response.output[0].content[0].transcript == "At last."


async def test_the_demo_is_a_whole_conversation(autojump_clock: MockClock) -> None:
    async with talking_to(demo_script()) as session:
        dones = session.events("response.done")
        await session.create_response()
        await anext(dones)
        await say(session)
        asked = (await anext(dones)).response.output[-1]
        assert asked.name == "look_up_order"
        await session.create_item(Item.function_call_output(asked.call_id, '{"status": "sent"}'))
        await session.create_response()
        await anext(dones)
        await trio.sleep(5)
        await say(session)
        assert (await anext(dones)).response.output[-1].name == "hangup"
        await trio.sleep(1)
        words = session.conversation.transcript()
    assert words[0] == ("assistant", "Hello, this is the garden shop. How can I help you?")
    assert ("user", "Where is my order, number 4711?") in words
    assert words[-1] == ("assistant", "Thank you for calling. Goodbye.")


# -- connections ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["disconnect", "close_1001", "restart_1012"])
async def test_a_lost_connection_is_replaced_and_the_conversation_goes_on(
    fault: str, autojump_clock: MockClock
) -> None:
    look = Turn(tool=ToolCall(name="look_up"))
    script = Script(turns=(HELLO, look, Turn(text="A sentence. " * 5, fault=fault), Turn(text="Back again.")))
    reasons: list[str] = []
    async with talking_to(script) as session:
        session.on_reconnecting(lambda reason: reasons.append("lost"))
        session.on_renewed(lambda reason: reasons.append(session.session_id))
        dones = session.events("response.done")
        await say(session)
        await anext(dones)
        calls = session.events("response.function_call_arguments.done")
        await session.create_response()
        await session.create_item(Item.function_call_output((await anext(calls)).call_id, "done"))
        await session.create_response()
        await trio.sleep(5)
        assert reasons == ["lost", "sess_c2"]
        assert session.state is RealtimeState.CONNECTED
        await anext(dones)
        await session.create_response()
        assert (await anext(dones)).response.output[0].content[0].transcript == "Back again."
        statistics = session.statistics()
    assert (statistics.connections, statistics.losses, statistics.items_left_behind) == (2, 1, 0)
    assert statistics.items_replayed >= 4  # both sides of the first turn, the call and its output


async def test_a_connection_is_renewed_between_turns_before_its_time_is_over(autojump_clock: MockClock) -> None:
    reasons: list[str] = []
    async with talking_to(Script(turns=(HELLO, Turn(text="Still here.")), lifetime=60.0), renew_before=30.0) as session:
        session.on_renewed(reasons.append)
        dones = session.events("response.done")
        await say(session)
        await anext(dones)
        await trio.sleep(45)
        assert len(reasons) == 1
        await say(session)
        assert (await anext(dones)).response.output[0].content[0].transcript == "Still here."
        assert session.statistics().renewals == 1
        assert session.statistics().losses == 0


async def test_a_response_wished_for_without_a_connection_is_asked_for_in_the_next(autojump_clock: MockClock) -> None:
    """Also where nothing was said before, so that the server has nothing to tell of by itself."""
    script = Script(turns=(HELLO,), lifetime=20.0)
    async with talking_to(script, renew_before=10.0) as session, trio.open_nursery() as nursery:
        session.on_reconnecting(lambda reason: nursery.start_soon(session.create_response))
        dones = session.events("response.done")
        with trio.fail_after(15):
            assert (await anext(dones)).response.output[0].content[0].transcript == HELLO.text
        assert session.statistics().connections == 2


async def test_an_item_created_without_a_connection_gets_into_the_next(autojump_clock: MockClock) -> None:
    script = Script(turns=(Turn(text="A sentence. " * 5, fault="disconnect"),))
    outcomes: dict[str, str] = {}

    async def note(name: str, ask: Callable[[], Awaitable[object]]) -> None:
        try:
            await ask()
        except ConnectionLost:
            outcomes[name] = "lost"
        else:
            outcomes[name] = "done"

    async with talking_to(script) as session, trio.open_nursery() as nursery:

        def ask(_: str) -> None:
            """While there is no connection."""
            nursery.start_soon(note, "item", lambda: session.create_item(Item.message("user", "Are you there?")))

        session.on_reconnecting(ask)
        await session.create_response()
        while not outcomes:
            await trio.sleep(0.01)
        assert session.statistics().losses == 1
    assert outcomes == {"item": "done"}


@pytest.mark.parametrize(("fault", "words"), [("refuse_401", "does not accept the key"), ("refuse_403", "allow")])
async def test_a_refused_key_is_told_in_plain_words(fault: str, words: str, autojump_clock: MockClock) -> None:
    with pytest.raises(AuthenticationError, match=words):
        async with talking_to(Script(faults=(fault,))):
            pytest.fail("the session is not to open")


@pytest.mark.parametrize("fault", ["refuse_429", "refuse_503", "silent"])
async def test_what_may_pass_is_tried_again(fault: str, autojump_clock: MockClock) -> None:
    async with talking_to(Script(faults=(fault,))) as session:
        assert session.statistics().failed_attempts == 1


async def test_a_stall_and_strange_messages_are_survived(autojump_clock: MockClock) -> None:
    turns = tuple(Turn(text="A sentence. " * 5, fault=fault) for fault in ("stall", "unknown_type", "malformed"))
    async with talking_to(Script(turns=turns)) as session:
        dones = session.events("response.done")
        for _ in turns:
            await session.create_response()
            assert (await anext(dones)).response.status == "completed"
        assert (session.statistics().unknown, session.statistics().malformed) == (1, 1)


# -- handlers, and the end ------------------------------------------------------------------------------------------


async def test_a_failing_handler_fails_the_session(autojump_clock: MockClock) -> None:
    def fail(event: ServerEvent) -> None:
        raise ZeroDivisionError

    async def converse() -> None:
        async with talking_to(Script(turns=(HELLO,))) as session:
            session.subscribe("response.created", fail)
            await session.create_response()
            await trio.sleep_forever()

    with pytest.raises(ZeroDivisionError):
        await converse()


async def test_a_slow_handler_does_not_keep_the_reader(autojump_clock: MockClock) -> None:
    slow: list[str] = []
    async with talking_to(Script(turns=(HELLO, HELLO))) as session:

        @session.on("response.done", own_task=True)
        async def dawdle(event: ResponseDone) -> None:
            await trio.sleep(3600)
            slow.append("heard")

        for _ in range(2):
            await session.create_response()
        assert slow == []


async def test_a_session_that_is_over_takes_nothing(autojump_clock: MockClock) -> None:
    async with talking_to(Script()) as session:
        events = session.events()
    for ask in (session.create_response, session.cancel_response, lambda: session.delete_item("x")):
        with pytest.raises(SessionClosed):
            await ask()
    assert [event async for event in events] == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda session: session.create_response(),
        lambda session: session.create_item(Item.message("user", "Hello")),
        lambda session: session.update(SessionConfig(instructions="x")),
        lambda session: session.send(protocol.InputAudioBufferClear()),
        lambda session: session.cancel_response(),
        lambda session: session.delete_item("item"),
        lambda session: session.truncate("item", 0),
        lambda session: anext(session.events()),
    ],
)
async def test_every_question_can_be_cancelled(
    ask: Callable[[RealtimeSession], Awaitable[object]], autojump_clock: MockClock
) -> None:
    async with talking_to(Script(turns=(HELLO, HELLO))) as session:
        with trio.CancelScope() as scope:
            scope.cancel()
            await ask(session)
        assert scope.cancelled_caught
        await trio.sleep(1)
        with trio.fail_after(10):  # nothing is left behind that would keep the next one
            await session.create_item(Item.message("user", "Still there?"))
            await session.create_response()


async def test_opening_and_leaving_can_be_cancelled(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as scope:
        async with talking_to(Script(faults=("silent",))):
            pytest.fail("the session is not to open")
    assert scope.cancelled_caught
    with trio.move_on_after(1) as scope:
        async with talking_to(Script()):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() < 5
