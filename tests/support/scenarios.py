"""What programs do with a session, each as one short scenario for :mod:`tests.support.sweep`."""

from __future__ import annotations

import functools

import trio

from agentao_trio import ActiveCall, AgenTaoClient, CallEnded, serve
from agentao_trio.errors import CommandError
from agentao_trio.messages import SuperviseMode
from tests.support.sweep import ECHO, TRUNK, Scenario, World

SECOND = b"\xff" * 8000


async def opening(world: World) -> None:
    async with world.session() as session:
        await session.get_active_buckets()


async def originating(world: World) -> None:
    async with world.session() as session:
        await session.originate(ECHO, trunk_id=TRUNK)


async def waiting_for_the_answer(world: World) -> None:
    async with world.session() as session, await session.originate(ECHO, trunk_id=TRUNK) as call:
        await call.wait_answered()


async def speaking(world: World) -> None:
    async with world.session() as session, await session.originate(ECHO, trunk_id=TRUNK) as call:
        await call.wait_answered()
        await call.send_audio(SECOND)


async def listening(world: World) -> None:
    async with world.session() as session, await session.originate(ECHO, trunk_id=TRUNK) as call:
        await call.wait_answered()
        await call.send_audio(SECOND[:1600])
        async for frame in call.audio():
            if frame.sequence_number >= 9:
                break


async def finishing_audio(world: World) -> None:
    async with world.session() as session, await session.originate(ECHO, trunk_id=TRUNK) as call:
        await call.wait_answered()
        await call.send_audio(SECOND[:1000])
        await call.finish_audio()


async def hanging_up(world: World) -> None:
    async with world.session() as session:
        call = await session.originate(ECHO, trunk_id=TRUNK)
        await call.wait_answered()
        await call.hangup()
        await call.wait_ended()


async def being_hung_up(world: World) -> None:
    async with world.session() as session, await session.originate("+15550100016", trunk_id=TRUNK) as call:
        try:
            await call.wait_answered()
            while True:
                await call.send_audio(SECOND[:160])
        except CallEnded:
            await call.wait_ended()


async def answering(world: World) -> None:
    async with world.session() as session:
        incoming = session.incoming()
        world.gateway.place_inbound_call(trunk_id=TRUNK)
        async with await anext(incoming) as call:
            await call.answer()
            await call.send_audio(SECOND[:320])


async def supervising(world: World) -> None:
    async with world.session() as session:
        world.gateway.place_inbound_call(trunk_id=TRUNK, call_sid="watched", far_end="hangup")
        await session.answer_incoming_call("watched")
        async with await session.supervise("watched", mode=SuperviseMode.BARGE) as seat:
            await seat.send_audio(SECOND[:320])
        await session.terminate("watched")


async def reading_events(world: World) -> None:
    async with world.session() as session:
        events = session.events()
        async with await session.originate("+15550100016", trunk_id=TRUNK) as call:
            async for record in call.events():
                assert record.call_sid == call.call_sid
        await anext(events)


async def controlling(world: World) -> None:
    async with world.session() as session, await session.originate(ECHO, trunk_id=TRUNK) as call:
        await call.wait_answered()
        await call.hold()
        await call.unhold()
        await call.send_dtmf("1#", duration_ms=50)


async def reconnecting(world: World) -> None:
    async with world.session() as session, await session.originate(ECHO, trunk_id=TRUNK) as call:
        await call.wait_answered()
        world.dark = True
        world.network.outage(4.0)
        with trio.move_on_after(6.0):
            while True:
                await call.send_audio(SECOND[:1600])
        await session.get_active_buckets()


async def asking_in_the_dark(world: World) -> None:
    async with world.session() as session:
        world.dark = True
        world.network.outage(5.0)
        try:
            await session.originate(ECHO, trunk_id=TRUNK)
        except CommandError:
            await session.get_active_buckets()


async def closing(world: World) -> None:
    async with world.session() as session:
        for _ in range(3):
            call = await session.originate(ECHO, trunk_id=TRUNK)
            await call.wait_answered()
            await call.send_audio(SECOND[:160])


async def draining(world: World) -> None:
    async with world.session() as session:
        await session.originate("+15550100016", trunk_id=TRUNK)
        await session.originate(ECHO, trunk_id=TRUNK)
        await session.drain(0.5)


async def many_at_once(world: World) -> None:
    async def one() -> None:
        async with await session.originate(ECHO, trunk_id=TRUNK) as call:
            await call.wait_answered()
            await call.send_audio(SECOND[:320])
            await call.wait_played()

    async with world.session() as session, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(one)


async def serving(world: World) -> None:
    async def handle(call: ActiveCall) -> None:
        await call.answer()
        await call.send_audio(SECOND[:320])
        await call.wait_played()

    async with trio.open_nursery() as nursery:
        await nursery.start(functools.partial(serve, handle, world.endpoint, drain=0.2, **world.options))
        world.gateway.place_inbound_call(trunk_id=TRUNK)
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()


async def with_handlers(world: World) -> None:
    client = AgenTaoClient(world.endpoint, drain=0.2, **world.options)

    @client.on("INCOMING_CALL")
    async def handle(call: ActiveCall) -> None:
        await call.answer()
        await call.send_audio(SECOND[:160])
        await call.hangup()

    async with client:
        world.gateway.place_inbound_call(trunk_id=TRUNK)
        await trio.sleep(0.5)


SCENARIOS: dict[str, Scenario] = {
    each.__name__: each
    for each in (
        opening,
        originating,
        waiting_for_the_answer,
        speaking,
        listening,
        finishing_audio,
        hanging_up,
        being_hung_up,
        answering,
        supervising,
        reading_events,
        controlling,
        reconnecting,
        asking_in_the_dark,
        closing,
        draining,
        many_at_once,
        serving,
        with_handlers,
    )
}
