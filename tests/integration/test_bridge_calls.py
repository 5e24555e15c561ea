"""The bridge between a call and a model that does as it is told, in virtual time."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from agentao_trio import Codec, open_session
from agentao_trio.audio import from_pcm16
from agentao_trio.errors import CommandRejected, ConnectError, RealtimeError
from agentao_trio.realtime import protocol
from agentao_trio.realtime.bridge import bridge
from agentao_trio.realtime.connection import MessageTransport
from agentao_trio.realtime.protocol import AudioFormat, ConversationItemTruncate, ResponseCancel
from agentao_trio.realtime.script import Script, Turn
from agentao_trio.realtime.session import open_realtime
from agentao_trio.realtime.simulator import simulated
from agentao_trio.realtime.tools import hangup, send_dtmf, tool, transfer
from agentao_trio.records import Record, RecordKind
from agentao_trio.testing import SimulatedGateway
from tests.support.bridged import NUMBER, Ear, Scene, StageModel, said_by, staged
from tests.support.sounds import keys, sine

# -- format ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "audio_format"), [(Codec.PCMU, AudioFormat.PCMU), (Codec.PCMA, AudioFormat.PCMA)], ids=str
)
async def test_g711_goes_through_to_the_bit(gateway: SimulatedGateway, codec: Codec, audio_format: AudioFormat) -> None:
    async with staged(gateway, codec=codec, number=f"sip:echo@far.example;codec={codec.value}") as scene:
        [config] = scene.model.told
        assert (config.input_format, config.output_format) == (audio_format, audio_format)
        told, said = said_by(1000), said_by(1010, 100)
        scene.ear.to_say.extend(told[start : start + 160] for start in range(0, len(told), 160))
        gateway.server.speak(scene.call.call_sid)
        scene.model.reply("r1", "i1", said)
        await trio.sleep(1.3)
        assert told in bytes(scene.model.audio)
        assert scene.ear.sound == said + codec.silence[80:]
        statistics = scene.talk.statistics()
        assert statistics.playout.sent_ms == statistics.playout.received_ms == 1010
        assert statistics.ran_dry == 0


async def test_wideband_is_resampled_both_ways(gateway: SimulatedGateway) -> None:
    async with staged(gateway, codec=Codec.PCM16) as scene:
        [config] = scene.model.told
        assert config.input_format is config.output_format is AudioFormat.PCM24K
        tone = sine(440, seconds=1.0, rate=16_000)
        scene.ear.to_say.extend(tone[start : start + 640] for start in range(0, len(tone), 640))
        gateway.server.speak(scene.call.call_sid)
        scene.model.begin("r1", "i1")
        said = sine(440, seconds=1.0, rate=24_000)
        for start in range(0, len(said), 1001):  # samples are cut in half, too
            scene.model.speak("r1", "i1", said[start : start + 1001])
        scene.model.finish_item("r1", "i1")
        scene.model.finish("r1")
        await trio.sleep(1.5)
        assert len(scene.ear.sound) == 32_000
        assert scene.talk.statistics().playout.sent_ms == pytest.approx(1000, abs=1)
        heard = bytes(scene.model.audio)
        assert len(heard) >= 48_000


async def test_a_model_that_does_not_take_the_format_is_refused(gateway: SimulatedGateway) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(RealtimeError, match="format"), flatten_subgroups=True):
        async with staged(gateway, model=StageModel(refuse_format=True)):
            raise AssertionError("not reached")


async def test_a_silent_telephone_is_silence_to_the_model(gateway: SimulatedGateway) -> None:
    async with staged(gateway) as scene:
        await trio.sleep(2)
        assert len(scene.model.audio) / 8 == pytest.approx(2000, abs=100)
        assert set(scene.model.audio) == {0xFF}
        before = len(scene.model.audio)
        said = said_by(200)
        scene.ear.to_say.extend(said[start : start + 160] for start in range(0, len(said), 160))
        gateway.server.speak(scene.call.call_sid)
        await trio.sleep(1)
        assert said in bytes(scene.model.audio)
        assert (len(scene.model.audio) - before) / 8 == pytest.approx(1000, abs=100)
        assert scene.talk.statistics().made_up_ms > 2500


async def test_what_comes_late_is_not_torn_apart(gateway: SimulatedGateway, autojump_clock: MockClock) -> None:
    """Neither the path's hiccups nor this program's own put silence into a word."""
    async with staged(gateway) as scene:
        await trio.sleep(0.5)
        said = said_by(600)
        packets = [said[start : start + 160] for start in range(0, len(said), 160)]
        scene.ear.to_say.extend(packets[:10])
        gateway.server.speak(scene.call.call_sid)
        await trio.sleep(0.2 + 0.15)
        scene.ear.to_say.extend(packets[10:])
        gateway.server.speak(scene.call.call_sid)
        await trio.sleep(0.1)
        autojump_clock.jump(0.5)
        await trio.sleep(0.5)
        assert said in bytes(scene.model.audio)


# -- interruptions --------------------------------------------------------------------------------------------------


async def test_an_interruption(gateway: SimulatedGateway) -> None:
    """Silence at once; the model learns what was heard; what was not is deleted, and what comes late dropped."""
    async with staged(gateway) as scene:
        model = scene.model
        model.begin("r1", "i1")
        model.speak("r1", "i1", said_by(800), "The first part.")
        model.finish_item("r1", "i1", "The first part.")
        model.add_item("r1", "i2")
        model.speak("r1", "i2", said_by(600, 50), "And another.")
        model.add_item("r1", "i3")
        await trio.sleep(0.5)
        model.hears_speech()
        interrupted_at = trio.current_time()
        sent = scene.call.statistics().packets_sent
        model.speak("r1", "i2", said_by(600, 99), "Late.")
        model.add_item("r1", "i4")
        model.finish("r1", "cancelled")
        await trio.sleep(1)

        assert scene.call.statistics().packets_sent == sent
        assert scene.ear.heard[-1][0] + 0.02 - interrupted_at <= 0.04, "barge-in to silence on the wire"
        assert scene.ear.sound == said_by(sent * 20)
        assert [attr_of(event) for event in model.events] == [
            ("conversation.item.truncate", "i1", sent * 20 - 100),
            ("conversation.item.delete", "i2", None),
            ("conversation.item.delete", "i3", None),
            ("conversation.item.delete", "i4", None),
        ]
        finals = [data for data in scene.told(RecordKind.TRANSCRIPT) if data["phase"] == "final"]
        assert [(data["item_id"], data["interrupted"], data["heard_ms"]) for data in finals] == [
            ("i1", True, sent * 20 - 100),
            ("i2", True, 0),
        ]
        [turn] = scene.told(RecordKind.TURN)
        assert (turn["status"], turn["barge_in"], turn["underruns"]) == ("cancelled", True, 0)
        assert 0 <= turn["barge_in_silence_ms"] <= 20
        statistics = scene.talk.statistics()
        assert statistics.barge_ins == 1
        assert statistics.playout.late_ms == 600


def attr_of(event: protocol.ClientEvent) -> tuple[str, Any, Any]:
    return event.TYPE, getattr(event, "item_id", None), getattr(event, "audio_end_ms", None)


async def test_what_was_said_to_its_end_is_not_truncated(gateway: SimulatedGateway) -> None:
    async with staged(gateway) as scene:
        scene.model.reply("r1", "i1", said_by(300), "Short.")
        await trio.sleep(0.36)
        scene.model.hears_speech()
        assert scene.model.events == []
        [final] = [data for data in scene.told(RecordKind.TRANSCRIPT) if data["phase"] == "final"]
        assert (final["text"], "interrupted" in final) == ("Short.", False)


@pytest.mark.parametrize("by_the_server", [True, False])
async def test_who_cancels_the_response(gateway: SimulatedGateway, by_the_server: bool) -> None:
    vad = protocol.ServerVad(interrupt_response=by_the_server)
    model = StageModel(config=protocol.SessionConfig(turn_detection=vad))
    async with staged(gateway, model=model) as scene:
        model.begin("r1", "i1")
        model.speak("r1", "i1", said_by(1000))
        await trio.sleep(0.3)
        model.hears_speech()
        cancelled = [event for event in scene.model.events if isinstance(event, ResponseCancel)]
        assert [event.response_id for event in cancelled] == ([] if by_the_server else ["r1"])


async def test_truncating_can_be_left_to_the_server(gateway: SimulatedGateway) -> None:
    async with staged(gateway, truncate=False) as scene:
        scene.model.begin("r1", "i1")
        scene.model.speak("r1", "i1", said_by(1000))
        scene.model.add_item("r1", "i2")
        await trio.sleep(0.3)
        scene.model.hears_speech()
        assert scene.model.events == []
        assert scene.talk.statistics().playout.waiting_ms == 0


async def test_an_interruption_by_the_program(gateway: SimulatedGateway) -> None:
    async with staged(gateway) as scene:
        assert not scene.talk.interrupt()
        scene.model.begin("r1", "i1")
        scene.model.speak("r1", "i1", said_by(1000))
        await trio.sleep(0.3)
        assert scene.talk.interrupt()
        assert [type(event) for event in scene.model.events] == [ConversationItemTruncate, ResponseCancel]
        await trio.sleep(0.5)
        assert len(scene.ear.heard) <= 16


async def test_a_response_that_was_asked_for_does_not_begin_over_the_callers_words(gateway: SimulatedGateway) -> None:
    """It and the caller's first word were on their way at the same time. The server answers the caller afterwards."""
    async with staged(gateway) as scene:
        model = scene.model
        scene.talk.say("The line closes soon.")
        await trio.sleep(0.005)
        model.hears_speech()
        await trio.sleep(0.1)
        model.begin("r1", "i1")
        model.speak("r1", "i1", said_by(1000))
        await trio.sleep(0.5)
        assert scene.ear.sound == b""
        assert [event.response_id for event in model.events if isinstance(event, ResponseCancel)] == ["r1"]
        model.finish("r1", "cancelled")
        model.hears_silence()
        scene.talk.say("It is still to be said.")
        await trio.sleep(0.1)
        assert model.asked == [], "the answer to the caller is still due"
        model.reply("r2", "i2", said_by(200, 50))
        await trio.sleep(0.5)
        assert scene.ear.sound == said_by(200, 50)
        assert [(turn["status"], turn["barge_in"]) for turn in scene.told(RecordKind.TURN)] == [
            ("cancelled", True),
            ("completed", False),
        ]
        assert scene.talk.statistics().barge_ins == 1


@pytest.mark.parametrize("told_of_the_end", [True, False])
async def test_what_the_server_begins_by_itself_is_the_answer(gateway: SimulatedGateway, told_of_the_end: bool) -> None:
    """Also where the server does not tell first that the caller has spoken to the end."""
    async with staged(gateway) as scene:
        scene.model.hears_speech()
        await trio.sleep(0.5)
        if told_of_the_end:
            scene.model.hears_silence()
        scene.model.reply("r1", "i1", said_by(200))
        await trio.sleep(0.5)
        assert scene.ear.sound == said_by(200)
        assert scene.model.events == []


async def test_the_answer_is_heard_where_what_was_asked_for_never_began(gateway: SimulatedGateway) -> None:
    async with staged(gateway) as scene:
        scene.talk.say("The line closes soon.")
        await trio.sleep(0.005)
        scene.model.hears_speech()
        await trio.sleep(0.5)
        scene.model.hears_silence()
        scene.model.reply("r1", "i1", said_by(200))
        await trio.sleep(0.5)
        assert scene.ear.sound == said_by(200)
        assert scene.model.events == []


async def test_audio_that_nobody_has_room_for_is_dropped_and_told(gateway: SimulatedGateway) -> None:
    async with staged(gateway, bound_seconds=0.5) as scene:
        scene.model.reply("r1", "i1", said_by(800), "Too long.")
        await trio.sleep(1)
        assert scene.ear.sound == said_by(500)
        assert scene.talk.statistics().playout.overflow_ms == 300
        assert [attr_of(event) for event in scene.model.events] == [("conversation.item.truncate", "i1", 500)]


async def test_garbage_does_not_get_to_the_caller(gateway: SimulatedGateway) -> None:
    async with staged(gateway) as scene:
        scene.model.begin("r1", "i1")
        delta = base64.b64encode(said_by(100)).decode()
        for text in ("no base64!", delta):
            scene.model.say(
                protocol.ResponseOutputAudioDelta(
                    event_id=f"event of {len(text)}", response_id="r1", item_id="i1", delta=text
                )
            )
        scene.model.finish("r1")
        await trio.sleep(0.5)
        assert scene.ear.sound == said_by(100)
        assert scene.talk.statistics().malformed_audio == 1
        [error] = scene.told(RecordKind.ERROR)
        assert (error["source"], error["fatal"]) == ("media", False)


async def test_a_server_that_breaks_the_order_is_told_of_once_for_each_rule(gateway: SimulatedGateway) -> None:
    async with staged(gateway) as scene:
        for rule in ("ends twice", "ends twice", "after its end"):
            scene.model.break_order(rule)
        scene.model.reply("r1", "i1", said_by(100))
        await trio.sleep(0.5)
        assert scene.ear.sound == said_by(100), "and goes on"
        errors = scene.told(RecordKind.ERROR)
        assert [(error["code"], error["fatal"]) for error in errors] == [("out_of_order", False)] * 2


# -- tools ----------------------------------------------------------------------------------------------------------


async def test_a_tool_answers_after_the_response(gateway: SimulatedGateway) -> None:
    async def look_up(number: int) -> str:
        """Look something up."""
        await trio.sleep(0.5)
        return f"number {number} is there"

    async with staged(gateway, tools=[look_up]) as scene:
        [config] = scene.model.told
        assert [each.name for each in config.tools] == ["look_up"]
        scene.model.begin("r1", "i1")
        scene.model.call_tool("r1", "look_up", '{"number": 7}')
        scene.model.call_tool("r1", "look_up", '{"number": 7}')  # delivered twice
        await trio.sleep(1)
        assert scene.model.outputs == [("call_look_up", "number 7 is there")]
        assert scene.model.asked == [], "not while the response is active"
        scene.model.finish("r1")
        await trio.sleep(0.1)
        assert scene.model.asked == [{}]
        phases = [(data["phase"], data.get("output")) for data in scene.told(RecordKind.TOOL)]
        assert phases == [("requested", None), ("started", None), ("done", "number 7 is there")]
        assert scene.told(RecordKind.TOOL)[-1]["seconds"] == pytest.approx(0.5)


async def test_several_tools_of_one_response_ask_once(gateway: SimulatedGateway) -> None:
    async def slow() -> str:
        await trio.sleep(2)
        return "slow"

    def quick() -> dict[str, int]:
        return {"n": 1}

    async with staged(gateway, tools=[slow, quick]) as scene:
        scene.model.begin("r1")
        scene.model.call_tool("r1", "slow")
        scene.model.call_tool("r1", "quick")
        scene.model.finish("r1")
        await trio.sleep(1)
        assert (scene.model.outputs, scene.model.asked) == ([("call_quick", '{"n":1}')], [])
        await trio.sleep(2)
        assert (len(scene.model.outputs), scene.model.asked) == (2, [{}])


@pytest.mark.parametrize(
    ("name", "arguments", "told", "recorded"),
    [
        ("broken", "{}", '{"error":"the tool failed: KeyError"}', "KeyError: 'secret'"),
        ("endless", "{}", '{"error":"the tool took longer than 2 seconds"}', "the tool took longer than 2 seconds"),
        ("typed", '{"n": "x"}', "wrong arguments: Expected `int`, got `str`", "wrong arguments"),
        ("missing", "{}", "there is no tool 'missing'", "there is no tool"),
        ("untellable", "{}", '{"error":"the tool failed: TypeError"}', "TypeError"),
    ],
)
async def test_a_tool_that_fails_is_an_answer_too(
    gateway: SimulatedGateway, name: str, arguments: str, told: str, recorded: str
) -> None:
    async def broken() -> None:
        raise KeyError("secret")

    def typed(n: int) -> None: ...

    def untellable() -> object:
        return object()

    tools = [broken, tool(trio.sleep_forever, name="endless", deadline=2), typed, untellable]
    async with staged(gateway, tools=tools) as scene:
        scene.model.begin("r1")
        scene.model.call_tool("r1", name, arguments)
        scene.model.finish("r1")
        await trio.sleep(3)
        [(_, output)] = scene.model.outputs
        assert output is not None
        assert told in output
        assert scene.model.asked == [{}]
        failed = scene.told(RecordKind.TOOL)[-1]
        assert failed["phase"] == "failed"
        assert recorded in failed["error"]
        assert scene.talk.ending is None, "the conversation goes on"


async def test_no_response_is_asked_for_while_the_caller_speaks(gateway: SimulatedGateway) -> None:
    """Nor until the server has answered the caller; but news that come later than that are told."""

    async def look_up() -> str:
        await trio.sleep(1)
        return "found"

    async with staged(gateway, tools=[look_up]) as scene:
        scene.model.begin("r1")
        scene.model.call_tool("r1", "look_up", call_id="c1")
        scene.model.finish("r1")
        await trio.sleep(0.5)
        scene.model.hears_speech()
        await trio.sleep(1)
        scene.model.hears_silence()
        await trio.sleep(1)
        assert scene.model.outputs == [("c1", "found")]
        assert scene.model.asked == []
        assert scene.talk.statistics().suppressed == 1

        scene.model.reply("r2", "i2", said_by(100))
        scene.model.begin("r3")
        scene.model.call_tool("r3", "look_up", call_id="c2")
        scene.model.finish("r3")
        scene.model.hears_speech()
        scene.model.hears_silence()
        scene.model.reply("r4", "i4", said_by(100))
        await trio.sleep(2)
        assert scene.model.asked == [{}]


# -- farewells ------------------------------------------------------------------------------------------------------


async def test_a_goodbye_is_heard_before_the_hangup(gateway: SimulatedGateway) -> None:
    async with staged(gateway, tools=[hangup()]) as scene:
        scene.model.begin("r1", "i1")
        scene.model.speak("r1", "i1", said_by(1500), "Goodbye.")
        scene.model.finish_item("r1", "i1", "Goodbye.")
        scene.model.call_tool("r1", "hangup")
        scene.model.call_tool("r1", "hangup", call_id="again")
        scene.model.finish("r1")
        began = trio.current_time()
        ending = await scene.talk.wait_ended()
        assert ending.reason == "hangup"
        assert trio.current_time() - began == pytest.approx(1.65, abs=0.1)
        assert scene.ear.sound == said_by(1500)
        await trio.sleep(0.5)
        phases = [data["phase"] for data in scene.told(RecordKind.TOOL)]
        assert (phases.count("done"), phases.count("failed")) == (1, 1), "either of them, once"
    terminates = [data for data in scene.told(RecordKind.COMMAND) if data["method"] == "Terminate"]
    assert [data["phase"] for data in terminates].count("sent") == 1


async def test_a_model_that_leaves_without_a_word_is_told_to_say_one(gateway: SimulatedGateway) -> None:
    model = StageModel()
    model.when_asked = lambda params: model.reply("r2", "i2", said_by(1000), "Bye.")
    async with staged(gateway, tools=[hangup()], model=model) as scene:
        model.begin("r1")
        model.call_tool("r1", "hangup")
        model.finish("r1")
        assert (await scene.talk.wait_ended()).reason == "hangup"
        assert scene.ear.sound == said_by(1000)
        assert model.asked == [{"tool_choice": "none"}]
        [(_, output)] = model.outputs
        assert output is not None
        assert "goodbye" in output


async def goodbye_after_another_response(scene: Scene, how_it_ends: Callable[[], None]) -> None:
    """The model leaves without a word, while the server's own response to a noise is active."""
    model = scene.model

    async def say_goodbye() -> None:
        await trio.sleep(0.3)
        model.speak("goodbye", "i3", said_by(1000))
        model.finish_item("goodbye", "i3")
        model.finish("goodbye")

    def begin(params: object) -> None:
        model.begin("goodbye", "i3")
        scene.session.start(say_goodbye)

    model.when_asked = begin
    model.begin("r1")
    model.call_tool("r1", "hangup")
    model.finish("r1")
    model.begin("noise")
    await trio.sleep(0.5)
    how_it_ends()
    assert (await scene.talk.wait_ended()).reason == "hangup"


async def test_a_goodbye_is_said_after_a_response_that_is_cancelled(gateway: SimulatedGateway) -> None:
    async with staged(gateway, tools=[hangup()]) as scene:
        await goodbye_after_another_response(scene, lambda: scene.model.finish("noise", "cancelled"))
        assert scene.ear.sound == said_by(1000)


async def test_a_goodbye_is_said_over_another_connection(gateway: SimulatedGateway) -> None:
    async with staged(gateway, tools=[hangup()]) as scene:

        def reconnect() -> None:
            scene.model.lose_connection()
            scene.model.renew_connection()

        await goodbye_after_another_response(scene, reconnect)
        assert scene.ear.sound == said_by(1000)


async def test_a_goodbye_may_be_the_answer_to_the_caller(gateway: SimulatedGateway) -> None:
    """The caller speaks before it is asked for: it is not, and the call is hung up after the answer."""
    async with staged(gateway, tools=[hangup()]) as scene:
        scene.model.begin("r1")
        scene.model.call_tool("r1", "hangup")
        scene.model.finish("r1")
        scene.model.hears_speech()
        await trio.sleep(1)
        scene.model.hears_silence()
        await trio.sleep(1)
        scene.model.reply("r2", "i2", said_by(1000), "You too. Goodbye.")
        assert (await scene.talk.wait_ended()).reason == "hangup"
        assert scene.model.asked == []
        assert scene.ear.sound == said_by(1000)


async def test_a_goodbye_that_is_refused_is_not_waited_for(gateway: SimulatedGateway) -> None:
    def refuse(params: object) -> None:
        raise RealtimeError("not now", code="invalid_value")

    async with staged(gateway, tools=[hangup()], model=StageModel(when_asked=refuse)) as scene:
        scene.model.begin("r1")
        scene.model.call_tool("r1", "hangup")
        scene.model.finish("r1")
        began = trio.current_time()
        assert (await scene.talk.wait_ended()).reason == "hangup"
        assert trio.current_time() - began < 1


async def test_an_answer_that_fails_instead_of_a_goodbye_is_not_waited_for(gateway: SimulatedGateway) -> None:
    async with staged(gateway, tools=[hangup()]) as scene:
        scene.model.begin("r1")
        scene.model.call_tool("r1", "hangup")
        scene.model.finish("r1")
        scene.model.hears_speech()
        scene.model.hears_silence()
        await trio.sleep(1)
        scene.model.say(protocol.ErrorEvent(error=protocol.ErrorDetails(code="server_error", message="sorry")))
        began = trio.current_time()
        assert (await scene.talk.wait_ended()).reason == "hangup"
        assert trio.current_time() - began < 1


async def test_a_goodbye_that_never_comes_is_not_waited_for_for_ever(gateway: SimulatedGateway) -> None:
    async with staged(gateway, tools=[hangup()]) as scene:
        scene.model.begin("r1")
        scene.model.call_tool("r1", "hangup")
        began = trio.current_time()
        assert (await scene.talk.wait_ended()).reason == "hangup"
        assert trio.current_time() - began == pytest.approx(10, abs=0.2)


async def test_a_goodbye_that_is_interrupted_is_over(gateway: SimulatedGateway) -> None:
    async with staged(gateway, tools=[hangup()]) as scene:
        scene.model.begin("r1", "i1")
        scene.model.speak("r1", "i1", said_by(5000))
        scene.model.finish_item("r1", "i1")
        scene.model.call_tool("r1", "hangup")
        scene.model.finish("r1")
        await trio.sleep(1)
        scene.model.hears_speech()
        began = trio.current_time()
        assert (await scene.talk.wait_ended()).reason == "hangup"
        assert trio.current_time() - began < 0.5


async def test_a_transfer(gateway: SimulatedGateway) -> None:
    async with staged(gateway, tools=[transfer({"sales": "+15550100002"})]) as scene:
        scene.model.begin("r1", "i1")
        scene.model.speak("r1", "i1", said_by(500))
        scene.model.finish_item("r1", "i1")
        scene.model.call_tool("r1", "transfer", '{"to": "sales"}')
        scene.model.finish("r1")
        await scene.talk.wait_ended()
        assert scene.ear.sound == said_by(500)
    transfers = [
        data
        for data in scene.told(RecordKind.COMMAND)
        if data["method"] == "ExecuteDialplan" and data["phase"] == "sent"
    ]
    assert len(transfers) == 1


async def test_a_transfer_that_fails_is_told_to_the_model(gateway: SimulatedGateway) -> None:
    async def refused(line: Any) -> None:
        await trio.sleep(0.1)
        raise CommandRejected("no such trunk", method="ExecuteDialplan")

    broken = attrs.evolve(transfer("+15550100002"), function=refused)
    async with staged(gateway, tools=[broken]) as scene:
        for attempt in ("c1", "c2"):
            scene.model.begin(f"r_{attempt}", f"i_{attempt}")
            scene.model.speak(f"r_{attempt}", f"i_{attempt}", said_by(200))
            scene.model.finish_item(f"r_{attempt}", f"i_{attempt}")
            scene.model.call_tool(f"r_{attempt}", "transfer", call_id=attempt)
            scene.model.finish(f"r_{attempt}")
            await trio.sleep(1)
        assert scene.model.outputs == [(each, '{"error":"the tool failed: CommandRejected"}') for each in ("c1", "c2")]
        assert scene.model.asked == [{}, {}]
        assert scene.talk.ending is None


async def test_keys_are_sent(gateway: SimulatedGateway) -> None:
    async with staged(gateway, tools=[send_dtmf()]) as scene:
        scene.model.begin("r1")
        scene.model.call_tool("r1", "send_dtmf", '{"digits": "12"}')
        scene.model.finish("r1")
        await trio.sleep(2)
        assert scene.model.outputs == [("call_send_dtmf", "pressed 12")]
        assert gateway.server.model.calls[scene.call.call_sid].digits == "12"


# -- the rest -------------------------------------------------------------------------------------------------------


async def test_the_model_speaks_first(gateway: SimulatedGateway) -> None:
    async with staged(gateway, greet="Say hello.") as scene:
        await trio.sleep(0.5)
        assert scene.model.asked == [{"instructions": "Say hello."}]


async def test_the_program_has_something_to_say(gateway: SimulatedGateway) -> None:
    async with staged(gateway) as scene:
        scene.model.begin("r1")
        scene.talk.say("The line closes soon.")
        await trio.sleep(0.5)
        assert scene.model.asked == []
        scene.model.finish("r1")
        await trio.sleep(0.5)
        assert scene.model.asked == [{"instructions": "The line closes soon."}]


async def test_keys_that_are_pressed_are_told(gateway: SimulatedGateway) -> None:
    async with staged(gateway, keypad=True) as scene:
        scene.model.begin("r1", "i1")
        scene.model.speak("r1", "i1", said_by(3000))
        await trio.sleep(0.2)
        pressed = from_pcm16(keys("42#7"), Codec.PCMU)
        scene.ear.to_say.extend(pressed[start : start + 160] for start in range(0, len(pressed) - 159, 160))
        gateway.server.speak(scene.call.call_sid)
        await trio.sleep(4)
        scene.model.finish("r1", "cancelled")
        await trio.sleep(0.1)
        users = [told for told in scene.model.told if isinstance(told, protocol.Item)]
        words = [part.text for item in users for part in item.content or ()]
        assert words == ["[pressed on the keypad: 42#]", "[pressed on the keypad: 7]"]
        assert scene.model.asked == [{}]
        assert len(scene.ear.heard) < 50, "a key interrupts"


async def test_transcripts_are_told_in_order_and_when_they_are_heard(gateway: SimulatedGateway) -> None:
    async with staged(gateway) as scene:
        model = scene.model
        model.hears_speech("u1")
        model.hears_silence("u1")
        model.begin("r1", "i1")
        model.speak("r1", "i1", said_by(500), "Good ")
        model.speak("r1", "i1", said_by(500), "morning.")
        model.finish_item("r1", "i1", "Good morning.")
        model.finish("r1", usage=protocol.Usage(input_tokens=3, output_tokens=4, total_tokens=7))
        await trio.sleep(0.5)
        model.say(protocol.ConversationItemInputAudioTranscriptionCompleted(item_id="u1", transcript="Anybody there?"))
        await trio.sleep(1)
        told = [
            (data["order"], data["role"], data["phase"], data["text"], data.get("delta"), data.get("offset"))
            for data in scene.told(RecordKind.TRANSCRIPT)
        ]
        assert told == [
            (2, "assistant", "delta", "Good ", "Good ", 0),
            (2, "assistant", "delta", "Good morning.", "morning.", 5),
            (1, "user", "final", "Anybody there?", None, None),
            (2, "assistant", "final", "Good morning.", None, None),
        ]
        assert [(data["speaker"], data["active"]) for data in scene.told(RecordKind.SPEECH)] == [
            ("user", True),
            ("user", False),
            ("assistant", True),
            ("assistant", False),
        ]
        [turn] = scene.told(RecordKind.TURN)
        assert turn["first_delta_seconds"] == 0
        assert 0 < turn["first_audio_seconds"] <= 0.03
        [usage] = scene.told(RecordKind.USAGE)
        assert usage == {
            "response_id": "r1",
            "input_tokens": 3,
            "output_tokens": 4,
            "total_tokens": 7,
            "details": {},
        }


async def test_a_response_that_fails_is_told(gateway: SimulatedGateway) -> None:
    async with staged(gateway) as scene:
        error = protocol.ResponseError(type="insufficient_quota", code="insufficient_quota")
        scene.model.begin("r1")
        scene.model.finish("r1", "failed", status_details=protocol.StatusDetails(type="failed", error=error))
        race = protocol.ErrorDetails(code="response_cancel_not_active", message="never mind")
        scene.model.say(protocol.ErrorEvent(error=race))
        [told] = scene.told(RecordKind.ERROR)
        assert (told["source"], told["code"], told["fatal"]) == ("realtime", "insufficient_quota", False)


async def test_a_lost_connection_ends_its_responses_and_the_wish_survives(gateway: SimulatedGateway) -> None:
    async with staged(gateway) as scene:
        scene.model.begin("r1", "i1")
        scene.model.speak("r1", "i1", said_by(600))
        scene.talk.say("Something.")
        scene.model.lose_connection()
        scene.model.renew_connection()
        await trio.sleep(1)
        assert scene.ear.sound == said_by(600), "what has come is said"
        assert scene.model.asked == [{"instructions": "Something."}]
        [turn] = scene.told(RecordKind.TURN)
        assert turn["status"] == "lost"
        phases = [data["phase"] for data in scene.told(RecordKind.CONVERSATION)]
        assert phases == ["connecting", "connected", "started", "reconnecting", "renewed"]


@pytest.mark.parametrize("speaking", [False, True])
async def test_a_caller_who_was_to_be_answered_over_a_lost_connection_is_answered_over_the_next(
    gateway: SimulatedGateway, speaking: bool
) -> None:
    """With the news that were left to that answer; unless the caller goes on speaking, who is answered then."""

    async def look_up() -> str:
        await trio.sleep(0.5)
        return "found"

    async with staged(gateway, tools=[look_up]) as scene:
        scene.model.begin("r1")
        scene.model.call_tool("r1", "look_up")
        scene.model.finish("r1")
        scene.model.hears_speech()
        scene.model.hears_silence()
        await trio.sleep(1)
        assert scene.model.asked == []
        scene.model.lose_connection()
        scene.model.renew_connection()
        if speaking:
            scene.model.hears_speech()
        await trio.sleep(0.5)
        assert scene.model.asked == ([] if speaking else [{}])


async def test_a_model_that_is_lost_for_good_leaves_the_call_to_its_owner(gateway: SimulatedGateway) -> None:
    """What ends the model's session ends its block; nothing more is said, and the call is still there."""
    script = Script(turns=(Turn(text="This will be cut short by a broken line.", pace=1.0, fault="disconnect"),))
    first = simulated(script)
    attempts = 0

    def connect() -> AbstractAsyncContextManager[MessageTransport]:
        nonlocal attempts
        attempts += 1
        return first() if attempts == 1 else refused()

    @asynccontextmanager
    async def refused() -> AsyncIterator[MessageTransport]:
        raise ConnectError("the key was revoked", refused=True)
        yield

    records: list[Record] = []
    ear = Ear()
    gateway.server.model.handsets[NUMBER] = ear
    async with open_session(gateway.endpoint, **gateway.options()) as session:
        session.hub.attach(records.append)
        async with await session.originate(NUMBER, trunk_id="main") as call:
            with pytest.raises(ConnectError, match="revoked"):
                async with (
                    open_realtime("ws://scripted", config=protocol.SessionConfig(), connect=connect) as model,
                    bridge(call, model, greet=True) as talk,
                ):
                    await talk.wait_ended()
            assert call.state.value == "answered"
            assert talk.ending is not None
            assert talk.ending.reason == "model"
            heard = len(ear.heard)
            await trio.sleep(1)
            assert len(ear.heard) <= heard + 1, "but for what was on its way"
            await call.send_audio(Codec.PCMU.silence * 5)  # its owner may apologise
    errors = [record.data for record in records if record.kind is RecordKind.ERROR]
    assert [error["fatal"] for error in errors] == [True]


async def test_the_bridge_ends_with_the_call(gateway: SimulatedGateway) -> None:
    async with staged(gateway) as scene:
        scene.model.begin("r1", "i1")
        scene.model.speak("r1", "i1", said_by(3000), "I was about to say")
        await trio.sleep(0.5)
        gateway.server.hang_up(scene.call.call_sid, 16)
        ending = await scene.talk.wait_ended()
        assert (ending.reason, scene.talk.ending) == ("hangup", ending)
        assert all(not handlers for handlers in scene.model.handlers.values())
        final = scene.told(RecordKind.TRANSCRIPT)[-1]
        assert (final["phase"], final["interrupted"]) == ("final", True)
        assert scene.told(RecordKind.CONVERSATION)[-1]["reason"] == "hangup"


async def test_the_bridge_ends_with_its_time_and_not_the_call(gateway: SimulatedGateway) -> None:
    async with staged(gateway, max_seconds=2) as scene:
        ending = await scene.talk.wait_ended()
        assert (ending.reason, ending.seconds) == ("time", pytest.approx(2, abs=0.1))
        assert scene.call.state.value == "answered"


async def test_leaving_the_block_falls_silent_and_leaves_the_call(gateway: SimulatedGateway) -> None:
    ear, model = Ear(), StageModel()
    gateway.server.model.handsets[NUMBER] = ear
    async with (
        open_session(gateway.endpoint, **gateway.options()) as session,
        await session.originate(NUMBER, trunk_id="main") as call,
    ):
        async with bridge(call, model) as talk:  # type: ignore[arg-type]
            model.begin("r1", "i1")
            model.speak("r1", "i1", said_by(3000))
            await trio.sleep(0.5)
        heard = len(ear.heard)
        await trio.sleep(1)
        assert 20 < heard <= len(ear.heard) <= heard + 1, "but for what was on its way"
        assert call.state.value == "answered"
    assert talk.ending is not None
    assert talk.ending.reason == "left"


async def test_a_program_that_fails_says_so_itself(gateway: SimulatedGateway) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(KeyError, match="mine"), flatten_subgroups=True):
        async with staged(gateway) as scene:
            scene.model.begin("r1", "i1")
            scene.model.speak("r1", "i1", said_by(3000))
            await trio.sleep(0.3)
            raise KeyError("mine")


async def test_two_tools_of_one_name_are_refused(gateway: SimulatedGateway) -> None:
    twice = pytest.RaisesExc(ValueError, match="two tools are called 'hangup'")
    with pytest.RaisesGroup(twice, flatten_subgroups=True):
        async with staged(gateway, tools=[hangup(), hangup()]):
            raise AssertionError("not reached")
