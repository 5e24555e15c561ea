"""The bridge against models, callers and tools that do as they please; in virtual time."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable
from contextlib import ExitStack, suppress

import pytest
import trio

from agentao_trio import Codec, open_session
from agentao_trio.errors import RealtimeError
from agentao_trio.realtime import protocol
from agentao_trio.realtime.bridge import BridgeEnding, bridge
from agentao_trio.realtime.protocol import ConversationItemDelete, ConversationItemTruncate
from agentao_trio.realtime.script import Script, ToolCall, Turn
from agentao_trio.realtime.session import open_realtime
from agentao_trio.realtime.simulator import simulated
from agentao_trio.realtime.tools import hangup, tool, transfer
from agentao_trio.records import Record, RecordKind
from agentao_trio.testing import SimulatedGateway
from tests.support.bridged import NUMBER, Ear, Scene, said_by, staged
from tests.support.sounds import sine

#: Milliseconds of what was sent that nobody has heard yet, by estimate.
DOWNSTREAM = 100


def finals(scene: Scene) -> list[tuple[str, str, bool]]:
    return [
        (data["item_id"], data["text"], data.get("interrupted", False))
        for data in scene.told(RecordKind.TRANSCRIPT)
        if data["phase"] == "final"
    ]


# -- models ---------------------------------------------------------------------------------------------------------


async def test_a_model_that_says_nothing(gateway: SimulatedGateway) -> None:
    """The caller is listened to for as long as there is a call, and nothing is sent."""
    async with staged(gateway, greet=True) as scene:
        await trio.sleep(60)
        assert scene.ear.heard == []
        assert len(scene.model.audio) / 8 == pytest.approx(60_000, abs=100)
        assert scene.talk.ending is None
        assert not scene.talk.interrupt(), "there is nothing to be interrupted"


async def test_audio_without_a_transcript_is_heard_and_told_as_no_words(gateway: SimulatedGateway) -> None:
    async with staged(gateway) as scene:
        scene.model.reply("r1", "i1", said_by(300))
        await trio.sleep(1)
        assert scene.ear.sound == said_by(300)
        assert finals(scene) == [("i1", "", False)]
        assert scene.talk.statistics().playout.underruns == 0


async def test_audio_of_an_item_that_was_never_announced_is_heard(gateway: SimulatedGateway) -> None:
    async with staged(gateway) as scene:
        scene.model.speak("r1", "i1", said_by(200), "Out of nowhere.")
        scene.model.finish("r1")
        await trio.sleep(1)
        assert scene.ear.sound == said_by(200)
        scene.model.speak("r2", "i2", said_by(1000))
        await trio.sleep(0.3)
        scene.model.hears_speech()
        await trio.sleep(0.5)
        assert scene.talk.statistics().playout.waiting_ms == 0
        [cut] = scene.model.events
        assert isinstance(cut, ConversationItemTruncate)
        assert cut.item_id == "i2"


async def test_a_long_answer_is_said_to_its_end(gateway: SimulatedGateway) -> None:
    """It comes four times as fast as it is said: most of it waits, and none of it is lost."""
    async with staged(gateway) as scene:
        scene.model.begin("r1", "i1")
        for second in range(60):
            scene.model.speak("r1", "i1", said_by(1000, second))
            await trio.sleep(0.25)
        scene.model.finish_item("r1", "i1", "A long story.")
        scene.model.finish("r1")
        await trio.sleep(46)
        statistics = scene.talk.statistics()
        assert (statistics.playout.sent_ms, statistics.playout.underruns, statistics.ran_dry) == (60_000, 0, 0)
        assert scene.ear.longest_gap < 0.03
        assert scene.ear.sound == b"".join(said_by(1000, second) for second in range(60))
        assert finals(scene) == [("i1", "A long story.", False)]


async def test_an_hour_in_one_piece_is_cut_to_what_there_is_room_for(gateway: SimulatedGateway) -> None:
    async with staged(gateway, bound_seconds=1) as scene:
        scene.model.begin("r1", "i1")
        scene.model.speak("r1", "i1", bytes(3_600_000 * 8))
        assert scene.talk.statistics().playout.waiting_ms == 1000
        scene.model.finish_item("r1", "i1")
        scene.model.finish("r1")
        await trio.sleep(2)
        assert scene.talk.statistics().playout.sent_ms == 1000


async def test_audio_after_the_end_of_its_response_is_not_said(gateway: SimulatedGateway) -> None:
    """Nor does the utterance after it wait for more of it."""
    async with staged(gateway) as scene:
        scene.model.reply("r1", "i1", said_by(200))
        await trio.sleep(0.5)
        scene.model.speak("r1", "i1", said_by(100, 99), "Late.")
        await trio.sleep(0.5)
        assert scene.ear.sound == said_by(200)
        scene.model.reply("r2", "i2", said_by(200, 7))
        await trio.sleep(0.5)
        assert scene.ear.sound == said_by(200) + said_by(200, 7)
        statistics = scene.talk.statistics().playout
        assert (statistics.late_ms, statistics.underruns, statistics.silence_ms) == (100, 0, 0)


async def test_what_there_is_no_room_for_does_not_grow_without_bound(gateway: SimulatedGateway) -> None:
    async with staged(gateway, bound_seconds=5) as scene:
        scene.model.begin("r1", "i1")
        for second in range(100):
            scene.model.speak("r1", "i1", said_by(1000, second))
            assert scene.talk.statistics().playout.waiting_ms <= 5000
        assert scene.talk.statistics().playout.overflow_ms == 95_000


@pytest.mark.parametrize("moment", range(0, 720, 20))
async def test_the_caller_breaks_in_at_any_moment(gateway: SimulatedGateway, moment: int) -> None:
    """Silence on the wire within 40 ms, the truth about what was heard, and the next answer whole."""
    async with staged(gateway) as scene:
        model = scene.model
        model.reply("r1", "i1", said_by(600), "An utterance of 600 ms.")
        await trio.sleep(moment / 1000)
        at = trio.current_time()
        sent = scene.call.statistics().packets_sent
        model.hears_speech()
        model.speak("r1", "i1", said_by(100, 200))  # late
        await trio.sleep(0.2)
        assert scene.call.statistics().packets_sent == sent, "nothing goes out after it"
        assert scene.ear.sound == said_by(600)[: 160 * sent]
        assert all(heard + 0.02 - at <= 0.04 for heard, _ in scene.ear.heard)
        heard_ms = max(0, 20 * sent - DOWNSTREAM)
        if sent == 30:
            expected: list[protocol.ClientEvent] = []
        elif heard_ms:
            expected = [ConversationItemTruncate(item_id="i1", content_index=0, audio_end_ms=heard_ms)]
        else:
            expected = [ConversationItemDelete(item_id="i1")]
        assert model.events == expected
        assert finals(scene) == [("i1", "An utterance of 600 ms.", sent < 30)]
        before = len(scene.ear.heard)
        model.hears_silence()
        model.reply("r2", "i2", said_by(200, 77))
        await trio.sleep(0.5)
        assert b"".join(payload for _, payload in scene.ear.heard[before:]) == said_by(200, 77)


async def test_two_responses_at_once_are_not_mixed(gateway: SimulatedGateway) -> None:
    """No server should: every byte is still said once, the words go to their items, and both are interrupted."""
    async with staged(gateway) as scene:
        model = scene.model
        for response, item in (("r1", "i1"), ("r2", "i2")):
            model.begin(response, item)
        for step in range(5):
            model.speak("r1", "i1", said_by(100, step), f"one {step} ")
            model.speak("r2", "i2", said_by(100, 100 + step), f"two {step} ")
        for response, item in (("r1", "i1"), ("r2", "i2")):
            model.finish_item(response, item)
            model.finish(response)
        await trio.sleep(0.5)
        model.hears_speech()
        await trio.sleep(0.5)
        told = {event.item_id for event in model.events if isinstance(event, ConversationItemTruncate)}
        assert told == {"i1", "i2"}
        assert {item: text for item, text, _ in finals(scene)} == {
            "i1": "one 0 one 1 one 2 one 3 one 4 ",
            "i2": "two 0 two 1 two 2 two 3 two 4 ",
        }
        assert [data["response_id"] for data in scene.told(RecordKind.TURN)] == ["r1", "r2"]


async def test_every_event_twice_is_once(gateway: SimulatedGateway) -> None:
    turns = (Turn(text="Twice is once. Goodbye.", tool=ToolCall(name="hangup"), fault="duplicate"),)
    ending, ear, records = await conversation(gateway, Script(turns=turns))
    assert ending.reason == "hangup"
    assert 1.0 < len(ear.heard) * 0.02 < 2.5
    words = [record.data["text"] for record in records if record.data.get("phase") == "final"]
    assert words == ["Twice is once. Goodbye."]
    tools = [record.data["phase"] for record in records if record.kind is RecordKind.TOOL]
    assert tools == ["requested", "started", "done"]


async def conversation(gateway: SimulatedGateway, script: Script) -> tuple[BridgeEnding, Ear, list[Record]]:
    """A call with the scripted model, which ends it."""
    ear, records = Ear(), list[Record]()
    gateway.server.model.handsets[NUMBER] = ear
    async with open_session(gateway.endpoint, **gateway.options()) as session:
        session.hub.attach(records.append)
        config = protocol.SessionConfig(turn_detection=protocol.ServerVad())
        async with (
            await session.originate(NUMBER, trunk_id="main") as call,
            open_realtime("ws://scripted", config=config, connect=simulated(script)) as model,
            bridge(call, model, tools=[hangup()], greet=True, max_seconds=60) as talk,
        ):
            ending = await talk.wait_ended()
    return ending, ear, records


@pytest.mark.parametrize("fault", ["disconnect", "close_1001", "restart_1012"])
async def test_a_connection_lost_in_mid_sentence_is_replaced(gateway: SimulatedGateway, fault: str) -> None:
    """What has come is said, the turn is told as lost, and the new connection says what the program wants next."""
    broken = Turn(text="This sentence is cut short by a broken line.", pace=2.0, fault=fault)
    script = Script(turns=(broken,), otherwise=Turn(text="Goodbye.", tool=ToolCall(name="hangup")))
    ear, records = Ear(), list[Record]()
    gateway.server.model.handsets[NUMBER] = ear
    async with open_session(gateway.endpoint, **gateway.options()) as session:
        session.hub.attach(records.append)
        async with (
            await session.originate(NUMBER, trunk_id="main") as call,
            open_realtime("ws://x", config=protocol.SessionConfig(), connect=simulated(script)) as model,
            bridge(call, model, tools=[hangup()], greet=True) as talk,
        ):
            while model.statistics().connections < 2:
                await trio.sleep(0.1)
            talk.say("Say goodbye.")
            with trio.fail_after(30):
                ending = await talk.wait_ended()
    assert ending.reason == "hangup"
    turns = [record.data["status"] for record in records if record.kind is RecordKind.TURN]
    assert turns == ["lost", "completed"]
    phases = [record.data["phase"] for record in records if record.kind is RecordKind.CONVERSATION]
    assert phases == ["connecting", "connected", "started", "reconnecting", "renewed", "ended"]
    assert not [record for record in records if record.data.get("fatal")]


async def test_a_connection_is_renewed_in_the_middle_of_a_call(gateway: SimulatedGateway) -> None:
    """Every few seconds here: nothing is said twice, or lost, and no turn is cut."""
    sentences = [f"This is sentence number {number}, which takes a while." for number in range(3)]
    script = Script(turns=tuple(Turn(text=text) for text in sentences), lifetime=20.0)
    ear, records = Ear(), list[Record]()
    gateway.server.model.handsets[NUMBER] = ear
    async with open_session(gateway.endpoint, **gateway.options()) as session:
        session.hub.attach(records.append)
        async with (
            await session.originate(NUMBER, trunk_id="main") as call,
            open_realtime(
                "ws://x", config=protocol.SessionConfig(), connect=simulated(script), renew_before=14.0
            ) as model,
            bridge(call, model) as talk,
        ):
            for _ in sentences:
                talk.say("Go on.")
                await trio.sleep(8)
            renewals = model.statistics().renewals
            statistics = talk.statistics()
    assert renewals >= 2
    assert statistics.playout.underruns == 0
    words = [record.data["text"] for record in records if record.data.get("phase") == "final"]
    assert words == sentences
    assert [r.data["status"] for r in records if r.kind is RecordKind.TURN] == ["completed"] * 3
    assert len(ear.heard) * 20 == pytest.approx(statistics.playout.received_ms, abs=60)
    assert ear.longest_gap < 8


# -- tools ----------------------------------------------------------------------------------------------------------


async def test_a_tool_that_tells_five_megabytes(gateway: SimulatedGateway) -> None:
    """No model reads that, and no server takes it: it is told so much as it may be, and that there was more."""
    async with staged(gateway, tools=[tool(lambda: "x" * 5_000_000, name="tells", parameters={})]) as scene:
        scene.model.begin("r1")
        scene.model.call_tool("r1", "tells")
        scene.model.finish("r1")
        await trio.sleep(0.5)
        [(_, output)] = scene.model.outputs
        assert output is not None
        assert len(output) < 200_000
        assert "cut" in output[-200:]
        assert scene.model.asked == [{}]
        done = scene.told(RecordKind.TOOL)[-1]
        assert done["phase"] == "done"
        assert len(done["output"]) < 200_000


@pytest.mark.parametrize("arguments", ['{"n": ', "[1]", '"n"', "null", "\x00", "{" * 10_000, '{"n": 1e999}', ""])
async def test_arguments_that_are_none_are_told_to_the_model(gateway: SimulatedGateway, arguments: str) -> None:
    def count(n: int) -> int:
        raise AssertionError("not with these")

    async with staged(gateway, tools=[count]) as scene:
        scene.model.begin("r1")
        scene.model.call_tool("r1", "count", arguments)
        scene.model.finish("r1")
        await trio.sleep(0.5)
        [(_, output)] = scene.model.outputs
        assert output is not None
        assert "wrong arguments" in output
        assert scene.model.asked == [{}]
        assert scene.told(RecordKind.TOOL)[-1]["phase"] == "failed"


async def test_one_call_of_a_tool_in_two_responses_is_carried_out_once(gateway: SimulatedGateway) -> None:
    calls = 0

    def count() -> int:
        nonlocal calls
        calls += 1
        return calls

    async with staged(gateway, tools=[count]) as scene:
        for response in ("r1", "r2"):
            scene.model.begin(response)
            scene.model.call_tool(response, "count", call_id="the same")
            scene.model.finish(response)
            await trio.sleep(0.2)
        assert (calls, scene.model.outputs) == (1, [("the same", "1")])


async def test_a_tool_that_never_ends_does_not_outlive_the_call(gateway: SimulatedGateway) -> None:
    cancelled = False

    async def endless() -> None:
        nonlocal cancelled
        try:
            await trio.sleep_forever()
        finally:
            cancelled = True

    async with staged(gateway, tools=[tool(endless, deadline=math.inf)]) as scene:
        scene.model.begin("r1")
        scene.model.call_tool("r1", "endless")
        scene.model.finish("r1")
        await trio.sleep(100)
        assert not cancelled
        gateway.server.hang_up(scene.call.call_sid)
        assert (await scene.talk.wait_ended()).reason == "hangup"
        assert cancelled
        assert scene.told(RecordKind.TOOL)[-1]["phase"] == "cancelled"


async def test_a_hundred_tools_at_once(gateway: SimulatedGateway) -> None:
    async def slow() -> str:
        await trio.sleep(1)
        return "done"

    async with staged(gateway, tools=[slow]) as scene:
        scene.model.begin("r1")
        for number in range(100):
            scene.model.call_tool("r1", "slow", call_id=f"c{number}")
        scene.model.finish("r1")
        await trio.sleep(3)
        statistics = scene.talk.statistics().tools
        assert (statistics.done, statistics.refused, statistics.running) == (16, 84, 0)
        assert len(scene.model.outputs) == 100
        assert scene.model.asked == [{}], "once for all of them"


# -- the call -------------------------------------------------------------------------------------------------------


def _greeting(scene: Scene) -> None:
    scene.talk.say("Hello.")


def _mid_sentence(scene: Scene) -> None:
    scene.model.begin("r1", "i1")
    scene.model.speak("r1", "i1", said_by(3000), "In the middle")


def _caller_speaks(scene: Scene) -> None:
    scene.model.hears_speech()


def _waiting_for_the_answer(scene: Scene) -> None:
    scene.model.hears_speech()
    scene.model.hears_silence()


def _tool(scene: Scene) -> None:
    scene.model.begin("r1")
    scene.model.call_tool("r1", "endless")
    scene.model.finish("r1")


def _goodbye(scene: Scene) -> None:
    scene.model.begin("r1", "i1")
    scene.model.speak("r1", "i1", said_by(3000), "Goodbye")
    scene.model.call_tool("r1", "hangup")
    scene.model.finish_item("r1", "i1")
    scene.model.finish("r1")


def _transfer(scene: Scene) -> None:
    scene.model.begin("r1", "i1")
    scene.model.speak("r1", "i1", said_by(280), "One moment")
    scene.model.finish_item("r1", "i1")
    scene.model.call_tool("r1", "transfer")
    scene.model.finish("r1")


def _nothing(scene: Scene) -> None: ...


PHASES = [_nothing, _greeting, _mid_sentence, _caller_speaks, _waiting_for_the_answer, _tool, _goodbye, _transfer]


@pytest.mark.parametrize("moment", [0.0, 0.011, 0.3, 0.5])
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__.strip("_"))
async def test_the_caller_hangs_up_in_any_phase(
    gateway: SimulatedGateway, phase: Callable[[Scene], None], moment: float
) -> None:
    """The bridge is over soon, everything that was begun is told an end, and nothing raises."""

    async def endless() -> None:
        await trio.sleep_forever()

    async with staged(gateway, tools=[endless, hangup(), transfer("+15550100002")]) as scene:
        phase(scene)
        await trio.sleep(moment)
        with suppress(KeyError):  # the transfer may have ended it
            gateway.server.hang_up(scene.call.call_sid)
        with trio.fail_after(5):
            ending = await scene.talk.wait_ended()
        assert ending.reason == "hangup"
        statistics = scene.talk.statistics()
        assert statistics.tools.running == 0
        assert statistics.playout.waiting_ms == 0
        assert all(not handlers for handlers in scene.model.handlers.values())
        speaking = {"user": False, "assistant": False}
        for data in scene.told(RecordKind.SPEECH):
            speaking[data["speaker"]] = data["active"]
        assert not speaking["assistant"]
        requested = [data for data in scene.told(RecordKind.TOOL) if data["phase"] == "requested"]
        over = [data for data in scene.told(RecordKind.TOOL) if data["phase"] in ("done", "failed", "cancelled")]
        assert len(requested) == len(over)
        texts = [data["item_id"] for data in scene.told(RecordKind.TRANSCRIPT) if data["phase"] == "delta"]
        assert {item for item, _, _ in finals(scene)} >= set(texts)
        assert scene.told(RecordKind.CONVERSATION)[-1]["phase"] == "ended"


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__.strip("_"))
async def test_the_model_is_lost_in_any_phase(gateway: SimulatedGateway, phase: Callable[[Scene], None]) -> None:
    """And comes back: the caller is listened to as before, and nobody waits for what the old connection owed."""

    async def endless() -> None:
        await trio.sleep_forever()

    async with staged(gateway, tools=[endless]) as scene:
        phase(scene)
        await trio.sleep(0.1)
        scene.model.lose_connection()
        await trio.sleep(0.1)
        scene.model.renew_connection()
        await trio.sleep(4)
        before = len(scene.model.asked)
        scene.talk.say("Are you there?")
        await trio.sleep(0.5)
        assert len(scene.model.asked) == before + 1
        heard = len(scene.ear.heard)
        scene.model.reply("r9", "i9", said_by(200, 9))
        await trio.sleep(0.5)
        assert b"".join(payload for _, payload in scene.ear.heard[heard:]) == said_by(200, 9)


async def test_a_call_on_hold_while_the_model_speaks(gateway: SimulatedGateway) -> None:
    """The model is not told of it, and goes on; the pace stays that of the call."""
    async with staged(gateway) as scene:
        scene.model.begin("r1", "i1")
        scene.model.speak("r1", "i1", said_by(2000), "On and on.")
        scene.model.finish_item("r1", "i1", "On and on.")
        scene.model.finish("r1")
        await trio.sleep(0.5)
        await scene.call.hold()
        await trio.sleep(0.5)
        await scene.call.unhold()
        await trio.sleep(2)
        statistics = scene.talk.statistics()
        assert (statistics.playout.sent_ms, statistics.playout.waiting_ms) == (2000, 0)
        assert scene.ear.heard[-1][0] - scene.ear.heard[0][0] == pytest.approx(1.98, abs=0.1)
        assert scene.talk.ending is None


@pytest.mark.parametrize("seconds", [1.0, 8.0, 40.0])
async def test_the_gateway_is_away_in_mid_conversation(gateway: SimulatedGateway, seconds: float) -> None:
    """The conversation goes on when the call does; where the call is over, so is the bridge."""
    async with staged(gateway) as scene:
        scene.model.begin("r1", "i1")
        scene.model.speak("r1", "i1", said_by(3000), "Before.")
        scene.model.finish_item("r1", "i1")
        scene.model.finish("r1")
        await trio.sleep(0.5)
        gateway.network.outage(seconds)
        await trio.sleep(seconds + 15)
        if scene.talk.ending is None:
            heard = len(scene.ear.heard)
            scene.model.reply("r2", "i2", said_by(300, 5))
            await trio.sleep(1)
            assert b"".join(payload for _, payload in scene.ear.heard[heard:]).endswith(said_by(300, 5))
            told = len(scene.model.audio)
            await trio.sleep(1)
            assert (len(scene.model.audio) - told) / 8 == pytest.approx(1000, abs=110)
        else:
            assert scene.talk.ending.reason in ("lost", "hangup")
            assert seconds > 8


# -- sound ----------------------------------------------------------------------------------------------------------


def signal_to_noise(sound: bytes, hz: float, rate: int) -> float:
    """In decibels, of a sine wave of a known frequency: what is left when the best fitting one is taken away."""
    samples = struct.unpack(f"<{len(sound) // 2}h", sound)
    turn = 2 * math.pi * hz / rate
    a = 2 / len(samples) * sum(value * math.cos(turn * n) for n, value in enumerate(samples))
    b = 2 / len(samples) * sum(value * math.sin(turn * n) for n, value in enumerate(samples))
    noise = sum((value - a * math.cos(turn * n) - b * math.sin(turn * n)) ** 2 for n, value in enumerate(samples))
    return 10 * math.log10(len(samples) * (a * a + b * b) / 2 / noise)


@pytest.mark.parametrize("hz", [300, 1000, 3400, 6800])
async def test_wideband_sounds_as_it_was_said(gateway: SimulatedGateway, hz: int) -> None:
    """A tone through the whole of it: from the caller to the model, and from the model to the caller."""
    async with staged(gateway, codec=Codec.PCM16, number="sip:echo@far.example;codec=PCM16") as scene:
        tone = sine(hz, seconds=1.5, rate=16_000, amplitude=12_000)
        scene.ear.to_say.extend(tone[start : start + 640] for start in range(0, len(tone), 640))
        gateway.server.speak(scene.call.call_sid)
        scene.model.begin("r1", "i1")
        said = sine(hz, seconds=1.5, rate=24_000, amplitude=12_000)
        for start in range(0, len(said), 4801):
            scene.model.speak("r1", "i1", said[start : start + 4801])
        scene.model.finish_item("r1", "i1")
        scene.model.finish("r1")
        await trio.sleep(2.5)
        heard = scene.ear.sound
        assert signal_to_noise(heard[16_000:32_000], hz, 16_000) > 40
        given = bytes(scene.model.audio)
        assert signal_to_noise(given[24_000:48_000], hz, 24_000) > 40


async def test_a_model_that_refuses_the_format_in_mid_call_leaves_nothing(gateway: SimulatedGateway) -> None:
    """It had confirmed another one: nothing was said in a format that the call does not have."""
    ear = Ear()
    gateway.server.model.handsets[NUMBER] = ear
    async with open_session(gateway.endpoint, **gateway.options()) as session, trio.open_nursery():
        call = await session.originate(NUMBER, trunk_id="main")
        async with call:
            with ExitStack() as stack:
                stack.enter_context(pytest.raises(RealtimeError))
                connect = simulated(Script(faults=("echo_otherwise",)))
                config = protocol.SessionConfig(output_format=protocol.AudioFormat.PCM24K)
                async with open_realtime("ws://x", config=config, connect=connect) as model, bridge(call, model):
                    raise AssertionError("not reached")
            assert ear.heard == []
            assert call.state.value == "answered"


def test_the_deltas_of_the_stage_are_what_a_server_sends() -> None:
    """So that what is tested here is what happens."""
    delta = base64.b64encode(said_by(20)).decode()
    text = f'{{"type":"response.output_audio.delta","response_id":"r","item_id":"i","delta":"{delta}"}}'
    received = protocol.decode_server_event(text.encode()).event
    assert received == protocol.ResponseOutputAudioDelta(response_id="r", item_id="i", delta=delta)
