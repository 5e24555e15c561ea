"""A hundred calls at once, with agents, callers, endings and failures drawn at random, leave nothing behind.

Neither tasks nor calls at the gateway nor open files and sockets, whatever happened to the calls and in which order.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.resources
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import trio
from trio.testing import MockClock

from agentao_trio import ActiveCall, CallConnectFailed, CallError, CallState, CommandError, Session, events, serve
from agentao_trio.detect import DtmfDetector, VoiceActivityDetector
from agentao_trio.gateway import Gateway, open_gateway
from agentao_trio.testing import MemoryNetwork

CALLS = 100
HOST, PORT = "gateway.test", 9090
ECHO, HANGS_UP, BUSY, NO_ANSWER, INVALID = (
    "+15550100001",
    "+15550100016",
    "+15550100017",
    "+15550100019",
    "+15550100402",
)
FAR_ENDS = ("echo", "tone", "recording", "silence", "nothing", "hold", "hangup")
SPEECH = str(importlib.resources.files("agentao_trio") / "assets" / "speech.wav")


@attrs.frozen
class Scene:
    """What an agent has besides its call."""

    dice: random.Random
    folder: Path
    #: The calls that agents have left, and that go on without them.
    left: set[str]


# -- agents: each takes one call that has not been answered yet -----------------------------------------------------


async def echo(call: ActiveCall, scene: Scene) -> None:
    async for chunk in call.audio_stream():
        await call.send_audio(chunk)


async def talk(call: ActiveCall, scene: Scene) -> None:
    await call.play(SPEECH)
    await call.wait_played()


async def be_interrupted(call: ActiveCall, scene: Scene) -> None:
    async with call.play(SPEECH):
        await trio.sleep(scene.dice.random())
    call.mark("interrupted")
    await call.send_audio(b"\x55" * scene.dice.randrange(4_000))
    call.clear_send_audio_buffer()


async def record(call: ActiveCall, scene: Scene) -> None:
    async with call.record(scene.folder / f"{call.call_sid}.wav"):
        await trio.sleep(2 * scene.dice.random())


async def listen(call: ActiveCall, scene: Scene) -> None:
    async for _ in call.detect(VoiceActivityDetector(), DtmfDetector()):
        pass


async def connect(call: ActiveCall, scene: Scene) -> None:
    to = scene.dice.choice([ECHO, HANGS_UP, BUSY, NO_ANSWER, INVALID])
    with contextlib.suppress(CallConnectFailed):
        await call.connect(to, ring_time_seconds=1)
        await scene.dice.choice([call.whisper, call.spy, call.barge])()
        await trio.sleep(scene.dice.random())
        if scene.dice.random() < 0.5:
            await call.disconnect()


async def connect_and_leave(call: ActiveCall, scene: Scene) -> None:
    leg = await call.connect(HANGS_UP)
    await call.close()
    scene.left.update([call.call_sid, leg.call_sid])


async def give_up_connecting(call: ActiveCall, scene: Scene) -> None:
    with trio.move_on_after(scene.dice.random()):
        await call.connect(NO_ANSWER)


async def hold(call: ActiveCall, scene: Scene) -> None:
    await call.hold()
    await trio.sleep(scene.dice.random())
    await call.unhold()
    await call.send_dtmf("1#", duration_ms=100)


async def fail(call: ActiveCall, scene: Scene) -> None:
    await trio.sleep(scene.dice.random())
    raise ZeroDivisionError


async def fail_while_busy(call: ActiveCall, scene: Scene) -> None:
    async with call.record(scene.folder / f"{call.call_sid}.wav"), call.play(SPEECH), trio.open_nursery() as nursery:
        nursery.start_soon(echo_nothing, call)
        await trio.sleep(scene.dice.random())
        raise ZeroDivisionError


async def echo_nothing(call: ActiveCall) -> None:
    async for _ in call.audio():
        pass


async def fail_in_a_handler(call: ActiveCall, scene: Scene) -> None:
    @call.on(events.CALL_QUALITY)
    @call.on(events.CALL_TERMINATED)
    @call.on(events.CALL_HELD)
    async def on_anything() -> None:
        raise ZeroDivisionError

    await trio.sleep(2 * scene.dice.random())


async def sulk(call: ActiveCall, scene: Scene) -> None:
    await trio.sleep_forever()


Agent = Callable[[ActiveCall, Scene], Awaitable[None]]
AGENTS: tuple[Agent, ...] = (echo, talk, be_interrupted, record, listen, connect, connect_and_leave, give_up_connecting)
AGENTS += (hold, fail, fail_while_busy, fail_in_a_handler, sulk)


# -- the hundred ----------------------------------------------------------------------------------------------------


async def answered(call: ActiveCall, scene: Scene) -> None:
    """What a handler of incoming calls may do: refuse, fail, dawdle, or answer and let an agent talk."""
    fate = scene.dice.random()
    if fate < 0.05:
        return
    if fate < 0.1:
        raise ZeroDivisionError
    if fate < 0.15:
        await trio.sleep_forever()
    await trio.sleep(scene.dice.random() / 2)
    await call.answer()
    await scene.dice.choice(AGENTS)(call, scene)


async def placed(session: Session, scene: Scene) -> None:
    """A call in the other direction; some are given up, at any point."""
    to = scene.dice.choice([ECHO, ECHO, ECHO, HANGS_UP, BUSY, NO_ANSWER])
    with trio.move_on_after(scene.dice.choice([0.001, 0.3, 1, 60])):
        try:
            async with await session.originate(to, trunk_id="main") as call:
                await call.wait_answered()
                await scene.dice.choice(AGENTS)(call, scene)
        except* (CallError, CommandError, ZeroDivisionError):  # alone, or in the group of an agent's nursery
            pass


async def hang_up_later(gateway: Gateway, call_sid: str, dice: random.Random) -> None:
    await trio.sleep(2 * dice.random())
    with contextlib.suppress(KeyError):  # over already
        gateway.hang_up(call_sid, dice.choice([16, 31, 41]))


async def hundred_calls(gateway: Gateway, folder: Path, *, seed: int, seconds: float, **options: Any) -> None:
    """Some sixty come in and the others are placed; after some seconds the whole program is cancelled."""
    seen: list[ActiveCall] = []
    left: set[str] = set()
    coming_in: set[str] = set()

    async def handle(call: ActiveCall) -> None:
        seen.append(call)
        await answered(call, Scene(random.Random(f"{seed} {call.caller}"), folder, left))

    async with trio.open_nursery() as nursery:
        run = functools.partial(serve, handle, gateway.endpoint, trunks=["main"], drain=0.3, **options)
        session: Session = await nursery.start(run)
        for number in range(CALLS):
            dice = random.Random(f"{seed} {number}")
            if dice.random() < 0.4:
                nursery.start_soon(placed, session, Scene(dice, folder, left))
                continue
            call_sid = gateway.place_inbound_call(
                trunk_id="main", call_from=f"+1555010{number:04}", far_end=dice.choice(FAR_ENDS)
            )
            assert call_sid is not None
            coming_in.add(call_sid)
            if dice.random() < 0.4:
                nursery.start_soon(hang_up_later, gateway, call_sid, dice)
        await trio.sleep(seconds)
        with trio.fail_after(120):  # a busy machine has not heard of them all by then
            while len(seen) <= 40 or not session.statistics().handler_failures:
                await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert not session.calls
    assert {call.state for call in seen} == {CallState.DISCONNECTED}
    assert session.statistics().events_out_of_order == 0
    unheard = coming_in - {call.call_sid for call in seen}  # nobody has taken them: they are for somebody else
    assert set(gateway.model.calls) <= left | unheard
    for call_sid in list(gateway.model.calls):
        gateway.hang_up(call_sid, 16)
    assert gateway.statistics().model.calls_open == 0


async def test_a_hundred_calls_leave_nothing_behind(tmp_path: Path, autojump_clock: MockClock) -> None:
    """On a bad network, in virtual time."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    network = MemoryNetwork(seed=1, loss=0.01, delay=0.01, jitter=0.01, reorder=0.01)
    async with open_gateway(socket=network.socket((HOST, PORT)), names=[HOST], seed=1) as gateway:
        socket = network.socket()
        await hundred_calls(gateway, tmp_path, seed=1, seconds=2.5, tls=gateway.tls, socket=socket)
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_nor_do_they_on_real_sockets(tmp_path: Path) -> None:
    files, tasks = set(os.listdir("/dev/fd")), trio.lowlevel.current_statistics().tasks_living
    async with open_gateway(seed=2) as gateway:
        await hundred_calls(gateway, tmp_path, seed=2, seconds=1.2, tls=gateway.tls)
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert set(os.listdir("/dev/fd")) == files
