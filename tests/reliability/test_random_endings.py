"""A hundred programs on real UDP that end in every way and at any moment, and a look at what is left running.

Descriptors, sockets, threads and tasks of this process are counted, and calls and connections at the gateway.
"""

from __future__ import annotations

import gc
import os
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable

import trio

from agentao_trio import ActiveCall, AgentaoError, Session, TransportSettings, open_session
from agentao_trio.gateway import Gateway, GatewaySettings, open_gateway
from tests.support.relay import Relay, open_relay

PROGRAMS, AT_ONCE = 100, 10
LOOPBACK = "127.0.0.1"
NUMBERS = ("+15550100001", "+15550100005", "+15550100016", "+15550100017", "+15550100019")
QUICK = TransportSettings(ping_interval=0.1, dead_after=0.4, handshake_timeout=1.5, close_timeout=0.3)


class Broken(Exception):  # noqa: N818 - an agent's own
    pass


def left_running() -> tuple[set[str], set[str], int]:
    """The open descriptors of this process, its threads (but those trio keeps for later), and this run's tasks."""
    gc.collect()
    threads = {thread.name for thread in threading.enumerate() if not thread.name.startswith("Trio thread")}
    return set(os.listdir("/dev/fd")), threads, trio.lowlevel.current_statistics().tasks_living


# -- ways to end ----------------------------------------------------------------------------------------------------


async def leave(session: Session, call: ActiveCall, dice: random.Random) -> None:
    pass


async def hang_up(session: Session, call: ActiveCall, dice: random.Random) -> None:
    await call.hangup()


async def fail(session: Session, call: ActiveCall, dice: random.Random) -> None:
    raise Broken


async def fail_among_others(session: Session, call: ActiveCall, dice: random.Random) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.wait_ended)
        nursery.start_soon(trio.sleep_forever)
        await trio.sleep(dice.random() / 10)
        raise Broken


async def be_cancelled(session: Session, call: ActiveCall, dice: random.Random) -> None:
    with trio.move_on_after(dice.random() / 10):
        await call.send_audio(b"\x55" * 16_000)
        await trio.sleep_forever()


async def be_interrupted(session: Session, call: ActiveCall, dice: random.Random) -> None:
    """Ctrl-C, where trio delivers it: as an exception of this task."""
    await trio.sleep(dice.random() / 20)
    raise KeyboardInterrupt


async def drain(session: Session, call: ActiveCall, dice: random.Random) -> None:
    await session.drain(dice.random() / 5)


async def wait_for_the_far_end(session: Session, call: ActiveCall, dice: random.Random) -> None:
    with trio.move_on_after(0.5):
        await call.wait_ended()


async def give_up_another_call(session: Session, call: ActiveCall, dice: random.Random) -> None:
    with trio.move_on_after(dice.random() / 50):
        await session.originate(NUMBERS[0], trunk_id="main")


ENDINGS: tuple[Callable[[Session, ActiveCall, random.Random], Awaitable[None]], ...] = (
    *(leave, hang_up, fail, fail_among_others, be_cancelled, be_interrupted, drain),
    *(wait_for_the_far_end, give_up_another_call),
)


# -- the hundred ----------------------------------------------------------------------------------------------------


async def program(gateway: Gateway, port: int, dice: random.Random, seen: Counter[str]) -> None:
    ending = dice.choice(ENDINGS)
    try:
        with trio.move_on_after(dice.expovariate(2)):  # some are cancelled long before they get there
            async with (
                open_session(f"quic://{LOOPBACK}:{port}", tls=gateway.tls, transport=QUICK, rpc_timeout=1) as session,
                await session.originate(dice.choice(NUMBERS), trunk_id="main") as call,
            ):
                if dice.random() < 0.5:
                    await call.wait_answered()
                await ending(session, call, dice)
    except* (AgentaoError, Broken, KeyboardInterrupt):
        pass
    seen[ending.__name__] += 1


async def make_trouble(gateway: Gateway, relay: Relay, dice: random.Random) -> None:
    while True:
        await trio.sleep(dice.uniform(0.05, 0.3))
        match dice.randrange(4):
            case 0:
                relay.dark = True
                await trio.sleep(dice.uniform(0.05, 0.7))
                relay.dark = False
            case 1:
                gateway.reset_streams()
            case 2:
                await gateway.disconnect()
            case _:
                for call_sid in tuple(gateway.model.calls)[:2]:
                    gateway.hang_up(call_sid, 41)


async def test_a_hundred_random_endings_leave_nothing() -> None:
    dice, seen = random.Random(41), Counter[str]()
    settings = GatewaySettings(ring=0.02, talk=0.2, no_answer_after=0.3)
    before = left_running()
    async with open_gateway(settings=settings, seed=1, transport=QUICK) as gateway:
        port = int(gateway.endpoint.rpartition(":")[2])

        async def one_after_the_other() -> None:
            # A relay carries the datagrams of one client at a time.
            async with open_relay((LOOPBACK, port)) as relay, trio.open_nursery() as nursery:
                nursery.start_soon(make_trouble, gateway, relay, random.Random(dice.random()))
                for _ in range(PROGRAMS // AT_ONCE):
                    relay.dark = False
                    await program(gateway, relay.port, dice, seen)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(one_after_the_other)
        with trio.move_on_after(60):  # to notice those that went in the dark
            while gateway.statistics().listener.connections:
                await trio.sleep(0.05)
        assert gateway.statistics().listener.connections == 0
        # Of a program whose hangup was lost in the dark the gateway keeps the call until its far end has had enough.
        assert gateway.model.statistics().calls_open <= PROGRAMS // 10
    assert sum(seen.values()) == PROGRAMS
    assert left_running() == before
