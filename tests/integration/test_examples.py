"""The gallery: every program in docs/examples is run against callers who follow a script, and judged by what they hear.

Virtual time does not wait for threads, which write recordings and ask databases. What has to wait for one waits long.
"""

from __future__ import annotations

import functools
import importlib.util
import sqlite3
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio

from agentao_trio import Codec
from agentao_trio.audio import from_pcm16
from agentao_trio.testing import ScriptedCaller, Silence, SimulatedGateway, Speech, Tone
from tests.support.sounds import sine, speech

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
GALLERY = EXAMPLES.parent / "howto" / "gallery.md"
PROMPTS = EXAMPLES / "prompts"
WORDS = from_pcm16(speech(), Codec.PCMU)
PERSON, BUSY = "+15550107000", "+15550100017"
#: Seconds for what a thread has to do first: hours of virtual time go by in a moment.
LONG = 36_000.0
#: A Monday, by day and by night.
DAY, NIGHT = datetime(2026, 1, 5, 10, 30), datetime(2026, 1, 5, 23, 30)


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@asynccontextmanager
async def running(name: str, gateway: SimulatedGateway, **options: Any) -> AsyncIterator[None]:
    """The example takes calls while the block runs; then no call may be left. What fails in it fails the test."""
    async with trio.open_nursery() as nursery:
        main = functools.partial(example(name).main, gateway.endpoint, handler_errors="raise", **options)
        nursery.start_soon(functools.partial(main, **gateway.options()))
        while gateway.server.statistics().model.subscriptions == 0:
            await trio.sleep(1)
        yield
        await trio.sleep(1)
        assert gateway.server.statistics().model.calls_open == 0
        nursery.cancel_scope.cancel()


def tone(hz: int) -> bytes:
    return from_pcm16(sine(hz, seconds=0.4), Codec.PCMU)


async def test_echo(gateway: SimulatedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    async with running("echo", gateway):
        caller = gateway.call_in("+15550101234")
        await caller.says(WORDS)
        await caller.hears(WORDS)
        await caller.hangs_up()
    printed = capsys.readouterr().out
    assert "+15550101234: 0 packets lost, jitter " in printed
    assert "+15550101234: the end" in printed


async def test_menu(gateway: SimulatedGateway) -> None:
    async with running("menu", gateway):
        caller = gateway.call_in()
        await caller.hears(PROMPTS / "menu.wav")
        await caller.presses("1")
        await caller.hears(PROMPTS / "hours.wav")
        await caller.presses("2")
        await caller.hears(PROMPTS / "address.wav")
        await caller.presses("7")
        await caller.hears(PROMPTS / "not-understood.wav")
        await caller.presses("#")
        await caller.hears(PROMPTS / "goodbye.wav")
        assert await caller.is_hung_up() == 16


async def test_a_menu_is_said_three_times_to_somebody_who_presses_nothing(gateway: SimulatedGateway) -> None:
    async with running("menu", gateway):
        caller = gateway.call_in()
        for _ in range(3):
            await caller.hears(PROMPTS / "menu.wav")
        await caller.hears(PROMPTS / "goodbye.wav")
        assert await caller.is_hung_up() == 16


def messages(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_a_voicemail_after_hours_is_over_after_a_pause(gateway: SimulatedGateway, tmp_path: Path) -> None:
    async with running("voicemail", gateway, folder=tmp_path, now=lambda: NIGHT):
        caller = gateway.call_in()
        await caller.hears(PROMPTS / "closed.wav")
        await caller.hears(PROMPTS / "beep.wav")
        await caller.says(WORDS)
        await caller.hears(PROMPTS / "thanks.wav", within=LONG)
        assert await caller.is_hung_up() == 16
    [message] = messages(tmp_path)
    with wave.open(str(message)) as file:
        assert file.getnchannels() == 2
        assert 5 < file.getnframes() / file.getframerate() < 10
        left = file.readframes(file.getnframes())[0::4]
    assert any(left), "the caller is on the left channel"


@pytest.mark.parametrize("ending", ["the # key", "a hangup"])
async def test_a_voicemail_ends_at_the_caller_s_word(ending: str, gateway: SimulatedGateway, tmp_path: Path) -> None:
    async with running("voicemail", gateway, folder=tmp_path, now=lambda: NIGHT):
        caller = gateway.call_in()
        await caller.hears(PROMPTS / "beep.wav")
        await caller.says(tone(440))
        if ending == "the # key":
            await caller.presses("#")
            await caller.hears(PROMPTS / "thanks.wav", within=LONG)
            await caller.is_hung_up()
        else:
            await caller.hangs_up()
    assert len(messages(tmp_path)) == 1


async def test_within_opening_hours_the_front_desk_is_rung(gateway: SimulatedGateway, tmp_path: Path) -> None:
    async with running("voicemail", gateway, folder=tmp_path, now=lambda: DAY):
        desk = gateway.pick_up("+15550100001")
        caller = gateway.call_in()
        await desk.says(WORDS)
        await caller.hears(Speech())
        await end(caller, desk)
    assert not messages(tmp_path)


def booked(database: Path) -> list[tuple[str, str | None]]:
    connection = sqlite3.connect(database)
    try:
        return list(connection.execute("SELECT at, booked_by FROM slots ORDER BY at"))
    finally:
        connection.close()


async def test_appointments(gateway: SimulatedGateway, tmp_path: Path) -> None:
    database = tmp_path / "calendar.db"

    async def book(number: str, *keys: str, outcome: str) -> None:
        caller = gateway.call_in(number)
        await caller.is_answered(within=LONG)
        for key in keys:
            await caller.hears(PROMPTS / "free-slot.wav", within=LONG)
            await caller.presses(key)
        await caller.hears(PROMPTS / outcome, within=LONG)
        assert await caller.is_hung_up(within=LONG) == 16

    async with running("appointments", gateway, database=database):
        await book("+15550100901", "2", "1", outcome="booked.wav")
        await book("+15550100902", "1", outcome="booked.wav")
        await book("+15550100903", "2", outcome="fully-booked.wav")
    assert [who for _, who in booked(database)] == ["+15550100902", "+15550100901", None]


def test_two_callers_do_not_get_one_appointment(tmp_path: Path) -> None:
    calendar = example("appointments").Calendar(tmp_path / "calendar.db")
    calendar.create()
    [slot, *_] = calendar.free_slots()
    assert [calendar.book(slot, "one"), calendar.book(slot, "other")] == [True, False]
    assert booked(tmp_path / "calendar.db")[0] == (slot, "one")


async def end(caller: ScriptedCaller, other: ScriptedCaller) -> None:
    """Two who were left to themselves say goodbye."""
    await caller.hangs_up()
    await other.hangs_up()


async def test_escalation_to_a_person(gateway: SimulatedGateway) -> None:
    async with running("escalation", gateway, person=PERSON):
        person, caller = gateway.pick_up(PERSON), gateway.call_in()
        await caller.hears(PROMPTS / "welcome.wav")
        await caller.presses("0")
        await person.says(tone(440))
        await caller.hears(Tone(440))
        await caller.says(tone(660))
        await person.hears(Tone(660))
        await end(caller, person)


async def test_nobody_to_escalate_to(gateway: SimulatedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    async with running("escalation", gateway, person=BUSY):
        caller = gateway.call_in()
        await caller.presses("0")
        await caller.hears(PROMPTS / "nobody-free.wav")
        await caller.hears(PROMPTS / "goodbye.wav")
        assert await caller.is_hung_up() == 16
    assert "could not be reached, cause 17" in capsys.readouterr().out


async def test_coaching(gateway: SimulatedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    async with running("coaching", gateway, colleague=PERSON):
        colleague, caller = gateway.pick_up(PERSON), gateway.call_in()
        await colleague.is_answered()
        await caller.says(WORDS)
        await colleague.hears(Speech())
        await colleague.presses("*")
        await colleague.hears(Tone(1175))  # the hint begins with it
        with pytest.raises(AssertionError, match="in vain"):
            await caller.hears(Tone(1175), within=2)
        await colleague.says(WORDS)
        await caller.hears(Speech())
        await trio.sleep(1)
        await caller.hangs_up()
        assert await colleague.is_hung_up() == 16
    assert f"and {PERSON}: 10 s of talk in 2 turns" in capsys.readouterr().out


async def test_notification(gateway: SimulatedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    ada, machine, eve = (gateway.pick_up(f"+1555010700{digit}") for digit in (1, 2, 3))

    async def confirm() -> None:
        await ada.says(tone(300))  # hello?
        await ada.hears(PROMPTS / "notice.wav")
        await ada.presses("1")
        await ada.hears(PROMPTS / "thanks.wav")

    async def greet_and_beep() -> None:
        await machine.says(WORDS)
        await machine.says(tone(1_000))
        await machine.hears(PROMPTS / "notice.wav")

    async def hesitate() -> None:
        await eve.says(tone(300))
        await eve.hears(PROMPTS / "notice.wav")
        await eve.hears(Silence(5))

    rows = [("Ada", ada.number), ("Machine", machine.number), ("Eve", eve.number), ("Bob", BUSY)]
    numbers = "to,name\n" + "".join(f"{number},{name}\n" for name, number in rows)
    async with trio.open_nursery() as nursery:
        for script in (confirm, greet_and_beep, hesitate):
            nursery.start_soon(script)
        outcomes = await example("notification").main(gateway.endpoint, numbers=numbers.encode(), **gateway.options())
    assert outcomes == {
        ada.number: "confirmed",
        machine.number: "answered",
        eve.number: "answered",
        BUSY: "not answered",
    }
    assert "Bob not answered after 3 calls" in capsys.readouterr().out


async def test_bridge(gateway: SimulatedGateway) -> None:
    one, other = gateway.pick_up("+15550107001"), gateway.pick_up("+15550107002")

    async def talk() -> None:
        await other.says(tone(440))
        await one.hears(Tone(440))
        await one.says(tone(660))
        await other.hears(Tone(660))
        await one.hangs_up()
        assert await other.is_hung_up() == 16

    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk)
        main = example("bridge").main
        ending = await main(gateway.endpoint, first=one.number, second=other.number, **gateway.options())
    assert ending.q850_cause == 16
    assert gateway.server.statistics().model.calls_open == 0


async def test_a_bridge_to_nobody(gateway: SimulatedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    one = gateway.pick_up("+15550107001")
    assert await example("bridge").main(gateway.endpoint, first=one.number, second=BUSY, **gateway.options()) is None
    assert await one.is_hung_up() == 16
    assert "no conversation" in capsys.readouterr().out


# -- voice agent ----------------------------------------------------------------------------------------------------

#: 1.2 seconds of somebody speaking.
SENTENCE = WORDS[1_000:10_600]


async def test_the_voice_agent_is_a_receptionist(gateway: SimulatedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    async with running("voice_agent", gateway):
        caller = gateway.call_in()
        await caller.hears(Speech())
        await caller.says(SENTENCE)  # into the greeting
        await caller.hears(Speech())
        await caller.hears(Silence(3.0), within=20)
        await caller.says(SENTENCE)
        await caller.hears(Speech())
        assert await caller.is_hung_up() == 16
    assert "hangup after" in capsys.readouterr().out


async def test_the_voice_agent_is_hung_up_on(gateway: SimulatedGateway, capsys: pytest.CaptureFixture[str]) -> None:
    async with running("voice_agent", gateway):
        caller = gateway.call_in()
        await caller.hears(Speech())
        await caller.hangs_up()
    assert "hangup after" in capsys.readouterr().out


def test_every_example_is_in_the_gallery_and_under_test() -> None:
    tests, page = Path(__file__).read_text(), GALLERY.read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.stem}"' in tests
        assert f"(../examples/{path.name})" in page
