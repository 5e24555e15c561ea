"""What users test their agents with: the fixture ``gateway``, and callers who follow a script."""

from __future__ import annotations

import importlib.resources
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from agentao_trio import ActiveCall, AgenTaoClient, CallEnded, Codec, open_session, serve
from agentao_trio.audio import from_pcm16
from agentao_trio.detect import Answered, Answerer, AnsweringMachineDetector, DtmfDetector
from agentao_trio.gateway import GatewaySettings
from agentao_trio.testing import ScriptedCaller, Silence, SimulatedGateway, Speech, Tone
from tests.support.sounds import silence, sine, speech

SPEECH = Path(str(importlib.resources.files("agentao_trio") / "assets" / "speech.wav"))
BEEP = from_pcm16(sine(1_000, seconds=0.4), Codec.PCMU)


async def menu(call: ActiveCall) -> None:
    """1 is a tone, # the end, anything else the same again."""
    await call.answer()
    while True:
        async with call.play(SPEECH) as playout:
            event = await anext(call.detect(DtmfDetector()))
        assert playout.interrupted
        if event.digit == "1":
            await call.play(BEEP)
        if event.digit == "#":
            return


async def test_a_menu_from_ring_to_goodbye(gateway: SimulatedGateway) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda **kw: serve(menu, gateway.endpoint, trunks=["main"], **gateway.options(), **kw))
        caller = gateway.call_in("+15550101234")
        await caller.hears(Speech())
        await caller.presses("1")
        await caller.hears(Tone(1_000))
        await caller.presses("5#")
        assert await caller.is_hung_up() == 16
        nursery.cancel_scope.cancel()


async def test_ten_minutes_take_seconds(gateway: SimulatedGateway) -> None:
    """Questions and answers for ten minutes."""

    async def parrot(call: ActiveCall) -> None:
        await call.answer()
        async for frame in call.audio():
            await call.send_audio(frame.payload)

    started = time.process_time()
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda **kw: serve(parrot, gateway.endpoint, trunks=["main"], **gateway.options(), **kw))
        caller = gateway.call_in()
        begun = trio.current_time()
        for _ in range(20):
            await caller.says(BEEP)
            await caller.hears(BEEP)
            await caller.hears(Silence(29))
        assert trio.current_time() - begun == pytest.approx(600, abs=20)
        await caller.hangs_up()
        nursery.cancel_scope.cancel()
    assert time.process_time() - started < 200


async def test_what_is_said_arrives_byte_for_byte_both_ways(gateway: SimulatedGateway) -> None:
    async with open_session(gateway.endpoint, **gateway.options(), trunks=["main"]) as session:
        caller = gateway.call_in()
        async with await anext(session.incoming()) as call:
            await call.answer()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(caller.says, SPEECH)
                heard = call.audio_stream(seconds=10)
                received = b"".join([await anext(heard) for _ in range(265)])
            assert received == from_pcm16(speech(), Codec.PCMU)
            async with call.play(SPEECH):
                await caller.hears(SPEECH)
            await call.send_dtmf("12#")
            assert caller.digits == "12#"
        assert (await caller.is_hung_up(), caller.digits) == (16, "12#")


async def test_a_machine_that_was_held_up_is_not_heard_as_silence(
    gateway: SimulatedGateway, autojump_clock: MockClock
) -> None:
    played_until = 0.0

    async def beeps(call: ActiveCall) -> None:
        nonlocal played_until
        await call.answer()
        await call.play(5 * BEEP)
        played_until = trio.current_time()
        await call.wait_ended()

    async with trio.open_nursery() as nursery:
        await nursery.start(lambda **kw: serve(beeps, gateway.endpoint, trunks=["main"], **gateway.options(), **kw))
        caller = gateway.call_in()
        await caller.hears(Tone(1_000))
        async with trio.open_nursery() as waiting:
            waiting.start_soon(caller.hears, Silence(0.6))
            await trio.sleep(0.5)
            autojump_clock.jump(1.0)
        assert 0 < played_until <= trio.current_time() - 0.5
        nursery.cancel_scope.cancel()


async def test_a_machine_that_was_held_up_gives_more_time(gateway: SimulatedGateway, autojump_clock: MockClock) -> None:
    async with open_session(gateway.endpoint, **gateway.options(), trunks=["main"]) as session:
        caller = gateway.call_in()
        async with await anext(session.incoming()) as call, trio.open_nursery() as waiting:
            await call.answer()
            waiting.start_soon(lambda: caller.hears(Silence(0.6), within=0.5))
            await trio.sleep(0.1)
            autojump_clock.jump(5.0)


async def test_somebody_who_is_called_and_a_machine_that_beeps(gateway: SimulatedGateway) -> None:
    machine = gateway.pick_up("+15550107777")

    async def answer() -> None:
        await machine.says(SPEECH)
        await machine.says(BEEP)
        await machine.hears(Speech())

    async with open_session(gateway.endpoint, **gateway.options()) as session, trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        async with await session.originate("+15550107777", trunk_id="main") as call:
            await call.wait_answered()
            found = call.detect(AnsweringMachineDetector())
            verdict = await anext(found)
            assert isinstance(verdict, Answered)
            assert verdict.by is Answerer.MACHINE
            await anext(found)
            await call.play(SPEECH)


async def test_who_hangs_up_and_why(gateway: SimulatedGateway) -> None:
    async with open_session(gateway.endpoint, **gateway.options(), trunks=["main"]) as session:
        caller = gateway.call_in()
        async with await anext(session.incoming()) as call:
            await call.answer()
            await caller.hangs_up(cause=31)
            await caller.hangs_up()
            assert (await call.wait_ended()).q850_cause == 31
            with pytest.raises(CallEnded):
                await call.play(SPEECH)
            with pytest.raises(AssertionError, match="cause 31"):
                await caller.hears(Speech())


async def test_expectations_that_fail_say_what_was_expected(gateway: SimulatedGateway) -> None:
    async with open_session(gateway.endpoint, **gateway.options(), trunks=["main"]) as session:
        caller = gateway.call_in("+15550101111")
        with pytest.raises(AssertionError, match=r"\+15550101111 waited for an answer in vain for 3 s"):
            await caller.is_answered(within=3)
        async with await anext(session.incoming()) as call:
            await call.answer()
            with pytest.raises(AssertionError, match=r"Tone\(hz=440\)"):
                await caller.hears(Tone(440), within=2)
            with pytest.raises(AssertionError, match="was not ended within 2 s"):
                await caller.is_hung_up(within=2)
            with pytest.raises(ValueError, match="no key 'x'"):
                await caller.presses("1x")
            async with call.play(BEEP * 10):
                await caller.hears(Tone(1_000))
                with pytest.raises(AssertionError, match="Silence"):
                    await caller.hears(Silence(1), within=1)


async def test_a_caller_who_is_cancelled_falls_silent(gateway: SimulatedGateway) -> None:
    async with open_session(gateway.endpoint, **gateway.options(), trunks=["main"]) as session:
        caller = gateway.call_in()
        async with await anext(session.incoming()) as call:
            await call.answer()
            with trio.move_on_after(1):
                await caller.says(SPEECH)
            await trio.sleep(2)
            heard: list[bytes] = []
            with trio.move_on_after(1):
                async for payload in call.audio_stream():
                    heard.append(payload)  # noqa: PERF401 - what came before the time ran out counts
            assert set(heard) == {Codec.PCMU.silence}


async def test_many_callers_at_once(gateway: SimulatedGateway) -> None:
    async def talk(caller: ScriptedCaller) -> None:
        await caller.hears(Speech())
        await caller.presses("#")
        await caller.is_hung_up()

    client = AgenTaoClient(gateway.endpoint, trunks=["main"], **gateway.options())

    @client.on("INCOMING_CALL")
    async def answer(call: ActiveCall) -> None:
        await menu(call)
        await call.hangup()

    async with client, trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(talk, gateway.call_in(f"+1555010{number:04}"))


class TestOtherSettings:
    @pytest.fixture
    def gateway_settings(self) -> GatewaySettings:
        return GatewaySettings(codec=Codec.PCM16)

    async def test_a_wideband_call(self, gateway: SimulatedGateway) -> None:
        async with open_session(gateway.endpoint, **gateway.options(), trunks=["main"]) as session:
            caller = gateway.call_in()
            async with await anext(session.incoming()) as call:
                await call.answer()
                await call.play(silence(0.5, rate=16_000) + sine(2_000, seconds=0.5, rate=16_000), rate=16_000)
                await caller.hears(Tone(2_000))


def test_the_page_about_testing_does_what_it_says(tmp_path: Path) -> None:
    """In a pytest of its own, as a reader would run it."""
    page = Path(__file__).parents[2] / "docs" / "howto" / "test-your-agent.md"
    files = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert [name for name, _ in files] == ["agent.py", "test_agent.py"]
    for name, text in files:
        (tmp_path / name).write_text(text)
    for name in ("menu.wav", "opening-hours.wav"):
        shutil.copy(SPEECH, tmp_path / name)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout
    assert "3 passed" in result.stdout
