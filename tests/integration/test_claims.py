"""Calls that several workers are told of, with a claim of the test's own: who takes them, and who leaves them alone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from agentao_trio import ActiveCall, AgenTaoClient, CallEnded, CallState, Session, open_session, serve
from agentao_trio.events import INCOMING_CALL
from agentao_trio.gateway import Gateway, open_gateway
from agentao_trio.hub import Hub
from agentao_trio.records import Record, RecordKind
from agentao_trio.summaries import ELSEWHERE, summarised
from agentao_trio.testing import MemoryNetwork

HOST, PORT = "gateway.test", 9090
ENDPOINT = f"quic://{HOST}:{PORT}"

Options = Callable[[], dict[str, Any]]


@contextlib.asynccontextmanager
async def telephone_network() -> AsyncIterator[tuple[Gateway, Options]]:
    """A gateway, and what each worker that connects to it needs."""
    network = MemoryNetwork()
    async with open_gateway(socket=network.socket((HOST, PORT)), names=[HOST], seed=1) as gateway:
        yield gateway, lambda: {"tls": gateway.tls, "socket": network.socket(), "trunks": ["main"]}


class Claims:
    """Calls are ours or not, as the test says."""

    def __init__(self, ours: Callable[[ActiveCall], bool]) -> None:
        self._ours = ours

    @contextlib.asynccontextmanager
    async def claim(self, call: ActiveCall, has_room: Callable[[], bool]) -> AsyncIterator[bool]:
        await trio.lowlevel.checkpoint()
        yield self._ours(call) and has_room()


async def hold(call: ActiveCall) -> None:
    await call.answer()
    await trio.sleep(2)


async def test_a_call_that_is_not_ours_is_neither_answered_nor_hung_up(autojump_clock: MockClock) -> None:
    never, always = Claims(lambda call: False), Claims(lambda call: True)
    records: list[Record] = []
    hub = Hub()
    hub.attach(records.append)
    async with telephone_network() as (gateway, options), trio.open_nursery() as nursery:
        idle: Session = await nursery.start(partial(serve, hold, ENDPOINT, claim=never.claim, hub=hub, **options()))
        busy: Session = await nursery.start(partial(serve, hold, ENDPOINT, claim=always.claim, **options()))
        sid = gateway.place_inbound_call(trunk_id="main") or ""
        await trio.sleep(1)
        assert list(busy.calls) == [sid]
        assert list(idle.calls) == []
        nursery.cancel_scope.cancel()
    [over] = [record for record in records if record.kind is RecordKind.CALL and record.data["phase"] == "over"]
    assert over.data["how"] == "released"
    assert summarised(records)[sid].status == ELSEWHERE


async def test_what_is_beyond_max_calls_is_left_to_others(autojump_clock: MockClock) -> None:
    claims = Claims(lambda call: True)
    async with telephone_network() as (gateway, options), trio.open_nursery() as nursery:
        server = partial(serve, hold, ENDPOINT, claim=claims.claim, max_calls=1, **options())
        session: Session = await nursery.start(server)
        placed = {gateway.place_inbound_call(trunk_id="main") for _ in range(3)}
        await trio.sleep(1)
        [taken] = session.calls
        async with open_session(ENDPOINT, **options()) as other:
            left = {(await anext(other.incoming())).call_sid for _ in range(2)}
        assert left | {taken} == placed
        nursery.cancel_scope.cancel()


async def test_a_call_whose_claim_raises_is_left_to_others_and_the_rest_goes_on(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    claims = Claims(lambda call: call.trunk_id == "main" or 1 // 0 == 0)
    async with telephone_network() as (gateway, options), trio.open_nursery() as nursery:
        both = {**options(), "trunks": ["main", "broken"]}
        session: Session = await nursery.start(partial(serve, hold, ENDPOINT, claim=claims.claim, **both))
        ours, theirs = (gateway.place_inbound_call(trunk_id=trunk) for trunk in ("main", "broken"))
        await trio.sleep(1)
        assert list(session.calls) == [ours]
        assert session.statistics().handler_failures == 1
        assert "ZeroDivisionError" in caplog.text
        async with open_session(ENDPOINT, **{**options(), "trunks": ["broken"]}) as other:
            left = await anext(other.incoming())
            assert left.call_sid == theirs
            await left.answer()
        nursery.cancel_scope.cancel()


async def test_a_claim_that_raises_ends_a_server_that_is_to_raise(autojump_clock: MockClock) -> None:
    claims = Claims(lambda call: 1 // 0 == 0)
    async with telephone_network() as (gateway, options), trio.open_nursery() as nursery:

        async def place() -> None:
            await trio.sleep(0.5)
            gateway.place_inbound_call(trunk_id="main")

        nursery.start_soon(place)
        with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
            await serve(hold, ENDPOINT, claim=claims.claim, handler_errors="raise", **options())


async def test_a_server_that_is_ended_leaves_alone_what_it_has_not_taken(autojump_clock: MockClock) -> None:
    """Another may be talking to it by now."""
    asked = trio.Event()

    @contextlib.asynccontextmanager
    async def undecided(call: ActiveCall, has_room: Callable[[], bool]) -> AsyncIterator[bool]:
        asked.set()
        with contextlib.suppress(CallEnded):
            await call.wait_ended()
        yield False

    async with telephone_network() as (gateway, options), trio.open_nursery() as nursery:
        stranger = await nursery.start(partial(_keep_session, options()))
        client = AgenTaoClient(ENDPOINT, claim=undecided, **options())
        async with client:
            client.on(INCOMING_CALL)(hold)
            gateway.place_inbound_call(trunk_id="main")
            await asked.wait()
            call: ActiveCall = await anext(stranger.incoming())
            await call.answer()
        await trio.sleep(1)
        assert call.state is CallState.ANSWERED
        nursery.cancel_scope.cancel()


async def test_a_released_call_is_over_here_and_goes_on_at_the_gateway(autojump_clock: MockClock) -> None:
    async with telephone_network() as (gateway, options), open_session(ENDPOINT, **options()) as session:
        gateway.place_inbound_call(trunk_id="main")
        call = await anext(session.incoming())
        assert not call.released
        call.release()
        call.release()  # harmless
        assert (call.released, call.state) == (True, CallState.DISCONNECTED)
        with pytest.raises(CallEnded):
            await call.answer()
        async with call:
            pass  # leaving hangs up what is ours alone
        async with open_session(ENDPOINT, **options()) as other:
            theirs = await anext(other.incoming())
            assert theirs.call_sid == call.call_sid
            await theirs.answer()
            assert session.calls == {}


async def _keep_session(
    options: dict[str, Any], *, task_status: trio.TaskStatus[Session] = trio.TASK_STATUS_IGNORED
) -> None:
    async with open_session(ENDPOINT, **options) as session:
        task_status.started(session)
        await trio.sleep_forever()
