"""The decorator style and ``serve``, in virtual time with the embedded gateway calling in."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from agentao_trio import (
    ActiveCall,
    AgenTaoClient,
    CallAnswerFailed,
    CallEnded,
    CallEnding,
    CallState,
    SessionClosed,
    events,
    messages,
    open_session,
    serve,
)
from agentao_trio.gateway import Gateway, open_gateway
from agentao_trio.messages import MethodId
from agentao_trio.records import Record, RecordKind
from agentao_trio.testing import MemoryNetwork
from tests.support.programs import said
from tests.support.scripted_gateway import ANSWER, CREATE, HANGUP, ScriptedGateway, serving, session_on

HOST, PORT = "gateway.test", 9090
ENDPOINT = f"quic://{HOST}:{PORT}"


@asynccontextmanager
async def telephone_network() -> AsyncIterator[tuple[Gateway, dict[str, Any]]]:
    """A gateway that can call in, and the options with which a client reaches it."""
    network = MemoryNetwork()
    async with open_gateway(socket=network.socket((HOST, PORT)), names=[HOST], seed=1) as gateway:
        yield gateway, {"tls": gateway.tls, "socket": network.socket(), "trunks": ["main"]}


async def test_the_documents_own_example(autojump_clock: MockClock) -> None:
    said: list[str] = []
    async with telephone_network() as (gateway, options):
        client = AgenTaoClient(ENDPOINT, **options)

        @client.on(events.INCOMING_CALL)
        async def handle_call(call: ActiveCall) -> None:
            @call.on(events.CALL_TERMINATED)
            def on_terminated() -> None:
                said.append("Call ended")

            await call.answer()
            async for chunk in call.audio_stream():
                await call.send_audio(chunk)
            said.append("stream ended")

        async with client:
            gateway.place_inbound_call(trunk_id="main", far_end="tone")
            await trio.sleep(2)
            [call] = client.session.calls.values()
            assert client.get_call(call.call_sid) is call
            assert call.statistics().packets_sent > 50
            await call.hangup()
            await trio.sleep(0.1)
            # The stream ends with the call, in whichever of the two lines the agent happens to be.
            assert client.session.statistics().handler_failures == 0
        assert "Call ended" in said
        with pytest.raises(SessionClosed):
            client.get_call("any")


@pytest.mark.parametrize("later", [0, 0.02, 0.5])
async def test_a_call_on_a_shared_trunk_belongs_to_who_answers_first(later: float, autojump_clock: MockClock) -> None:
    network = MemoryNetwork(delay=0.01)
    taken: list[ActiveCall] = []
    missed: list[ActiveCall] = []

    async def take(delay: float, call: ActiveCall) -> None:
        await trio.sleep(delay)
        try:
            await call.answer()
        except CallAnswerFailed:
            missed.append(call)
            raise  # and is nobody's failure
        taken.append(call)
        await call.wait_ended()

    async with (
        open_gateway(socket=network.socket((HOST, PORT)), names=[HOST], seed=1) as gateway,
        trio.open_nursery() as nursery,
    ):
        sessions = []
        for delay in (0, later):
            agent = functools.partial(serve, functools.partial(take, delay), ENDPOINT, tls=gateway.tls)
            start = functools.partial(agent, socket=network.socket(), trunks=["main"])
            sessions.append(await nursery.start(start))
        gateway.place_inbound_call(trunk_id="main", call_from="+15550100099")
        await trio.sleep(3)
        assert [call.state for call in taken] == [CallState.ANSWERED]  # the other has not hung it up
        assert [(call.state, call.released) for call in missed] == [(CallState.DISCONNECTED, True)]
        assert sum(session.statistics().handler_failures for session in sessions) == 0
        nursery.cancel_scope.cancel()


async def test_a_call_on_a_trunk_that_was_not_named_is_not_ours(autojump_clock: MockClock) -> None:
    async with telephone_network() as (gateway, options), open_session(ENDPOINT, **options) as session:
        gateway.place_inbound_call(trunk_id="another", call_from="+15550100098")
        await trio.sleep(3)
        gateway.place_inbound_call(trunk_id="main", call_from="+15550100099")
        assert (await anext(session.incoming())).caller == "+15550100099"
        with trio.move_on_after(3):
            pytest.fail(f"{await anext(session.incoming())} was taken")
        assert gateway.statistics().model.calls_open == 2


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("trunks", "main", r"a collection of names, such as \['main'\]"),
        ("rpc_length", "short", "'exclusive' or 'inclusive'"),
        ("handler_errors", "ignore", "'log' or 'raise'"),
        ("rpc_timeout", -1, "a number of seconds, more than 0"),
        ("rpc_timeout", "5", "a number of seconds, more than 0"),
        ("resume_window", float("nan"), "a number of seconds, more than 0"),
        ("poll_interval", 0, "a number of seconds, more than 0"),
    ],
)
async def test_an_option_that_means_nothing_is_refused_by_name(option: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=f"{option} is {value!r}; expected {expected}"):
        async with open_session(ENDPOINT, **{option: value}):
            pass


async def test_a_call_stays_after_its_handler_has_returned(autojump_clock: MockClock) -> None:
    async with telephone_network() as (gateway, options):
        client = AgenTaoClient(ENDPOINT, drain=0, **options)
        answered: list[Any] = []

        @client.on("INCOMING_CALL")
        async def handle_call(call: ActiveCall) -> None:
            call.on("CALL_ANSWERED")(answered.append)
            await call.answer()

        async with client:
            gateway.place_inbound_call(trunk_id="main")
            await trio.sleep(5)
            [call] = client.session.calls.values()
            assert call.state is CallState.ANSWERED
        assert [record.call_sid for record in answered] == [call.call_sid]
        assert gateway.statistics().model.calls_open == 0


async def test_every_event_of_a_call_reaches_its_handlers_in_order(autojump_clock: MockClock) -> None:
    heard: list[str] = []
    async with telephone_network() as (gateway, options):
        client = AgenTaoClient(ENDPOINT, **options)

        @client.on(events.INCOMING_CALL)
        async def handle_call(call: ActiveCall) -> None:
            for event in events.CallEvent:
                call.on(event)(functools.partial(heard.append, event.value))
            await call.answer()
            await call.hold()
            await trio.sleep(0.5)
            await call.unhold()
            await trio.sleep(6)
            await call.hangup()

        async with client:
            gateway.place_inbound_call(trunk_id="main", far_end="tone")
            await trio.sleep(10)
    assert heard == ["CALL_ANSWERED", "CALL_HELD", "CALL_RESUMED", "CALL_QUALITY", "CALL_TERMINATED"]


async def test_a_call_that_was_over_before_its_handlers_were_registered_is_told_to_them(
    autojump_clock: MockClock,
) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.Originate:
            for event, cause in ((CREATE, 0), (ANSWER, 0), (HANGUP, 17)):
                await gateway.event(request.call_sid, event, q850_cause=cause)
            await trio.sleep(0.1)
            return messages.OriginateResponse(call_sid=request.call_sid)
        return None

    heard: list[str] = []
    gateway = ScriptedGateway(answer)
    async with session_on(gateway) as session:
        call = await session.originate("+15550100001", trunk_id="main")

        @call.on(events.CALL_ANSWERED)
        def on_answered() -> None:
            heard.append("answered")

        @call.on(events.CALL_TERMINATED)
        async def on_terminated(ending: CallEnding) -> None:
            heard.append(ending.cause)

        await trio.sleep(1)
    assert heard == ["answered", "User busy"]


async def test_gaps_are_told_with_their_length(autojump_clock: MockClock) -> None:
    gaps: list[int] = []
    async with telephone_network() as (gateway, options):
        client = AgenTaoClient(ENDPOINT, **options)

        @client.on(events.INCOMING_CALL)
        async def handle_call(call: ActiveCall) -> None:
            call.on(events.CALL_GAP)(gaps.append)
            await call.answer()
            await call.send_audio(b"x" * 8000 * 4)

        async with client:
            gateway.place_inbound_call(trunk_id="main", far_end="+15550100120")
            await trio.sleep(6)
            [call] = client.session.calls.values()
            assert sum(gaps) == call.statistics().packets_lost > 0


async def test_a_failing_handler_ends_its_call_and_no_other(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with telephone_network() as (gateway, options):
        client = AgenTaoClient(ENDPOINT, drain=0, **options)
        good: list[ActiveCall] = []

        @client.on(events.INCOMING_CALL)
        async def handle_call(call: ActiveCall) -> None:
            await call.answer()
            if call.caller == "+15550109001":
                raise ZeroDivisionError("a bug of the agent's")
            good.append(call)

        async with client:
            gateway.place_inbound_call(trunk_id="main", call_from="+15550109001")
            gateway.place_inbound_call(trunk_id="main", call_from="+15550109002")
            await trio.sleep(3)
            assert [call.state for call in good] == [CallState.ANSWERED]
            assert list(client.session.calls.values()) == good
            assert client.session.statistics().handler_failures == 1
    assert "ZeroDivisionError: a bug of the agent's" in caplog.text


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_failing_handler_of_a_call_event_ends_that_call(kind: str, autojump_clock: MockClock) -> None:
    def plain() -> None:
        raise ZeroDivisionError

    async def waiting() -> None:
        await trio.sleep(0.1)
        raise ZeroDivisionError

    async with telephone_network() as (gateway, options):
        client = AgenTaoClient(ENDPOINT, drain=0, **options)

        @client.on(events.INCOMING_CALL)
        async def handle_call(call: ActiveCall) -> None:
            call.on(events.CALL_ANSWERED)(plain if kind == "plain" else waiting)
            await call.answer()

        async with client:
            gateway.place_inbound_call(trunk_id="main")
            await trio.sleep(2)
            assert not client.session.calls
            assert client.session.statistics().handler_failures == 1


async def test_a_handler_that_fails_while_it_is_cancelled_fails_alone(autojump_clock: MockClock) -> None:
    """The group that its nursery raises then holds the failure and the cancellation."""

    async def handler(call: ActiveCall) -> None:
        async def fail_when_cancelled() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ZeroDivisionError

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            nursery.start_soon(trio.sleep_forever)

    errors: list[Record] = []
    async with telephone_network() as (gateway, options):
        async with trio.open_nursery() as nursery:
            session = await nursery.start(
                lambda task_status: serve(handler, ENDPOINT, task_status=task_status, **options)
            )
            session.hub.attach(errors.append, kinds=[RecordKind.ERROR])
            gateway.place_inbound_call(trunk_id="main")
            await trio.sleep(2)
            nursery.cancel_scope.cancel()
        assert session.statistics().handler_failures == 1
        [error] = errors
        told = {"source": "handler", "type": "ZeroDivisionError", "message": "INCOMING_CALL: ZeroDivisionError"}
        assert error.data == {**told, "fatal": True}
        assert gateway.statistics().model.calls_open == 0


async def test_in_tests_a_failing_handler_raises(autojump_clock: MockClock) -> None:
    async with telephone_network() as (gateway, options):
        client = AgenTaoClient(ENDPOINT, handler_errors="raise", drain=0, **options)

        @client.on(events.INCOMING_CALL)
        async def handle_call(call: ActiveCall) -> None:
            raise ZeroDivisionError

        with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
            async with client:
                gateway.place_inbound_call(trunk_id="main")
                await trio.sleep_forever()


async def test_wrong_registrations_are_refused_at_once(autojump_clock: MockClock) -> None:
    client = AgenTaoClient(ENDPOINT)
    with pytest.raises(ValueError, match="expected INCOMING_CALL"):
        client.on("INCOMING_CALLS")
    with pytest.raises(TypeError, match="takes no argument or one"):
        client.on(events.INCOMING_CALL)(lambda call, more: None)
    async with telephone_network() as (gateway, options):

        async def handler(call: ActiveCall) -> None:
            with pytest.raises(ValueError, match="expected one of CALL_ANSWERED"):
                call.on("CALL_STARTED")

        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: serve(handler, ENDPOINT, task_status=task_status, **options))
            gateway.place_inbound_call(trunk_id="main")
            await trio.sleep(1)
            nursery.cancel_scope.cancel()


# -- serve ----------------------------------------------------------------------------------------------------------


async def test_serve_runs_one_task_per_call_and_hangs_up_when_it_returns(autojump_clock: MockClock) -> None:
    served: list[str] = []

    async def handler(call: ActiveCall) -> None:
        await call.answer()
        await trio.sleep(1)
        served.append(call.caller)

    async with telephone_network() as (gateway, options), trio.open_nursery() as nursery:
        session = await nursery.start(lambda task_status: serve(handler, ENDPOINT, task_status=task_status, **options))
        for number in range(5):
            gateway.place_inbound_call(trunk_id="main", call_from=f"+1555010900{number}")
        await trio.sleep(4)
        assert sorted(served) == [f"+1555010900{number}" for number in range(5)]
        assert not session.calls
        assert gateway.statistics().model.calls_open == 0
        nursery.cancel_scope.cancel()


async def test_calls_over_the_limit_are_refused(autojump_clock: MockClock) -> None:
    async def handler(call: ActiveCall) -> None:
        await call.answer()
        await trio.sleep_forever()

    async with telephone_network() as (gateway, options), trio.open_nursery() as nursery:
        session = await nursery.start(
            lambda task_status: serve(handler, ENDPOINT, max_calls=2, task_status=task_status, **options)
        )
        for _ in range(5):
            gateway.place_inbound_call(trunk_id="main")
        await trio.sleep(4)
        assert len(session.calls) == 2
        assert gateway.statistics().model.calls_open == 2
        nursery.cancel_scope.cancel()
    assert session.statistics().calls_ended == 5


@pytest.mark.parametrize("instead", [b"\x00\x00\xff\xff", ScriptedGateway.Silence], ids=["garbled", "lost"])
async def test_a_call_over_the_limit_is_refused_whatever_becomes_of_the_reply(
    instead: bytes | type[ScriptedGateway.Silence], autojump_clock: MockClock
) -> None:
    async def answer(method: MethodId, request: Any) -> Any:
        if method is MethodId.Terminate and len(gateway.requested(method)) == 1:
            if isinstance(instead, bytes):
                return instead
            raise instead
        if method is MethodId.Terminate:
            await gateway.event(request.call_sid, HANGUP, q850_cause=21)
        return None

    async def handler(call: ActiveCall) -> None:
        await trio.sleep_forever()

    gateway = ScriptedGateway(answer)
    async with serving(gateway, MemoryNetwork()) as options, trio.open_nursery() as nursery:
        session = await nursery.start(functools.partial(serve, handler, max_calls=1, rpc_timeout=1, **options))
        await gateway.event("in-1", CREATE)
        await trio.sleep(1)
        await gateway.event("in-2", CREATE)
        await trio.sleep(30)
        assert [request.call_sid for request in gateway.requested(MethodId.Terminate)] == ["in-2", "in-2"]
        assert list(session.calls) == ["in-1"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("drain", "finished"), [(0.0, False), (5.0, True)])
async def test_a_cancelled_server_lets_its_calls_finish_for_so_long(
    drain: float, finished: bool, autojump_clock: MockClock
) -> None:
    done: list[bool] = []

    async def handler(call: ActiveCall) -> None:
        await call.answer()
        await trio.sleep(3)
        done.append(True)

    async with telephone_network() as (gateway, options):
        async with trio.open_nursery() as nursery:
            await nursery.start(
                lambda task_status: serve(handler, ENDPOINT, drain=drain, task_status=task_status, **options)
            )
            gateway.place_inbound_call(trunk_id="main")
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert bool(done) is finished
        assert gateway.statistics().model.calls_open == 0


async def test_two_servers_share_a_program_with_other_tasks(autojump_clock: MockClock) -> None:
    served: list[tuple[int, str]] = []

    async with (
        telephone_network() as (first, first_options),
        telephone_network() as (second, second_options),
        trio.open_nursery() as nursery,
    ):
        for number, options in enumerate((first_options, second_options)):

            async def handler(call: ActiveCall, number: int = number) -> None:
                await call.answer()
                served.append((number, call.caller))

            await nursery.start(
                lambda task_status, handler=handler, options=options: serve(
                    handler, ENDPOINT, task_status=task_status, **options
                )
            )
        first.place_inbound_call(trunk_id="main", call_from="+1")
        second.place_inbound_call(trunk_id="main", call_from="+2")
        await trio.sleep(3)
        nursery.cancel_scope.cancel()
    assert sorted(served) == [(0, "+1"), (1, "+2")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_drains(number: signal.Signals, autojump_clock: MockClock) -> None:
    ended: list[object] = []
    async with telephone_network() as (gateway, options):
        client = AgenTaoClient(ENDPOINT, drain=10, **options)

        @client.on(events.INCOMING_CALL)
        async def handle_call(call: ActiveCall) -> None:
            await call.answer()
            await trio.sleep(4)
            await call.hangup()
            ended.append(await call.wait_ended())

        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: client.run_forever(task_status=task_status))
            gateway.place_inbound_call(trunk_id="main")
            await trio.sleep(1)
            os.kill(os.getpid(), number)
        assert len(ended) == 1


#: A client that is talking to somebody who stays for longer than anybody would wait.
TALKING = """
import logging, trio
from agentao_trio import AgenTaoClient, events
from agentao_trio.gateway import open_gateway

async def main():
    async with open_gateway() as gateway:
        client = AgenTaoClient(gateway.endpoint, tls=gateway.tls, trunks=["main"], drain=600)

        @client.on(events.INCOMING_CALL)
        async def handle_call(call):
            await call.answer()
            logging.info("answered")

        gateway.place_inbound_call(trunk_id="main")
        await client.run_forever()

logging.basicConfig(level="INFO")
trio.run(main)
"""


def test_who_goes_on_pressing_ctrl_c_does_not_wait_for_the_calls() -> None:
    with subprocess.Popen([sys.executable, "-c", TALKING], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said(process.stderr, "answered")
        process.send_signal(signal.SIGINT)
        said(process.stderr, "SIGINT: no further calls; those in progress have 600 s to finish")
        pressed = 0
        while process.poll() is None and pressed < 10:
            process.send_signal(signal.SIGINT)
            pressed += 1
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
        process.kill()
        assert "KeyboardInterrupt" in process.stderr.read()
    assert pressed < 10


async def test_connect_and_disconnect(autojump_clock: MockClock) -> None:
    async with telephone_network() as (_, options):
        client = AgenTaoClient(ENDPOINT, drain=0, **options)
        for _ in range(2):
            await client.connect()
            with pytest.raises(RuntimeError, match="connected already"):
                await client.connect()
            call = await client.session.originate("+15550100017", trunk_id="main")
            with pytest.raises(CallEnded):
                await call.wait_answered()
            await client.disconnect()
            await client.disconnect()
