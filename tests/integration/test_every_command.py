"""Every command of the protocol against the embedded gateway: what it does, how it is refused, what it survives.

Three tables: what each command does (:data:`WORKING`), how each is refused (:data:`REFUSALS`), and what each takes
(:data:`ARGUMENTS`), in whose place it is then given everything that it does not. A test sees to it that no method of
the protocol and no verb of a call is missing.
"""

from __future__ import annotations

import inspect
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from agentao_trio import (
    ActiveCall,
    AgentaoError,
    CallAnswerFailed,
    CallConnectFailed,
    CallEnded,
    CallError,
    CallState,
    CallStateError,
    Codec,
    CommandRejected,
    InboundRule,
    LocalProtocolError,
    Session,
    messages,
    open_session,
)
from agentao_trio.callstate import Command
from agentao_trio.commands import Commands
from agentao_trio.gateway import BucketAction, Gateway, GatewaySettings
from agentao_trio.gateway.calls import Call
from agentao_trio.messages import METHODS, DialplanAction, ErrorCode, MethodId, SuperviseMode
from agentao_trio.testing import MemoryNetwork
from tests.support.accounts import verifier
from tests.support.simulated import HOST, PORT, simulated

ECHO, KEYPAD, BUSY, RATE_LIMITED = "+15550100001", "+15550100007", "+15550100017", "+15550100403"
PACKET = b"\xd5" * 160


@attrs.frozen
class World:
    """A gateway, a session with it, an answered call of that session, and one that waits to be answered."""

    session: Session
    gateway: Gateway
    network: MemoryNetwork
    call: ActiveCall
    waiting: str
    numbers: Path
    sound: Path

    def at_the_gateway(self, call: ActiveCall) -> Call:
        return self.gateway.model.calls[call.call_sid]

    async def another(self, to: str = ECHO) -> ActiveCall:
        call = await self.session.originate(to, trunk_id="main")
        await call.wait_answered()
        return call

    @asynccontextmanager
    async def other_session(self) -> AsyncIterator[Session]:
        async with open_session(f"quic://{HOST}:{PORT}", tls=self.gateway.tls, socket=self.network.socket()) as session:
            yield session

    async def bulk(self, campaign_id: str = "spring", **options: Any) -> messages.BulkResponse:
        given = {"trunk_id": "main", "calls_per_second": 1, "max_concurrent_calls": 1, "campaign_id": campaign_id}
        return await self.session.originate_bulk(str(self.numbers), **{**given, **options})

    async def is_intact(self) -> None:
        """Nothing was lost: the connection, the session, both calls, and audio both ways."""
        assert self.session.statistics().connections == 1
        assert self.gateway.statistics().requests_unreadable == 0
        assert self.waiting in [info.call_sid for info in await self.session.get_incoming_calls("main")]
        await self.call.unmute()
        async with trio.open_nursery() as nursery:
            heard = self.call.audio_stream()
            nursery.start_soon(self.call.send_audio, PACKET)
            assert await anext(heard) == PACKET
            heard.close()


@pytest.fixture
async def world(autojump_clock: MockClock, tmp_path: Path) -> AsyncIterator[World]:
    numbers, sound = tmp_path / "numbers.csv", tmp_path / "sound.wav"
    numbers.write_text("to\n" + f"{ECHO}\n" * 5)
    with wave.open(str(sound), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(b"\x00\x10" * 8000)
    network = MemoryNetwork()
    async with simulated(GatewaySettings(patience=3600), network) as (session, gateway):
        call = await session.originate(ECHO, trunk_id="main", call_sid="up", codec=Codec.PCMU)
        await call.wait_answered()
        sid = gateway.place_inbound_call(trunk_id="main", call_sid="waiting")
        assert sid is not None
        yield World(session, gateway, network, call, sid, numbers, sound)


async def the_outcome(attempt: Awaitable[Any]) -> Any:
    """What it returns, or the error it raises, if it is one of those that a program expects."""
    try:
        return await attempt
    except (LocalProtocolError, CommandRejected, CallError) as error:
        return error


# -- what each command does -------------------------------------------------------------------------------------------

Step = Callable[[World], Awaitable[None]]
WORKING: dict[str, Step] = {}


def works(step: Step) -> Step:
    """Put into the table what the command of this name does."""
    WORKING[step.__name__] = step
    return step


@works
async def originate(world: World) -> None:
    call = await world.session.originate(KEYPAD, trunk_id="main", call_from="+15550107", call_sid="mine")
    assert (call.call_sid, call.callee, call.state) == ("mine", KEYPAD, CallState.PENDING)
    assert world.at_the_gateway(call).call_from == "+15550107"


@works
async def terminate(world: World) -> None:
    await world.session.terminate(world.call.call_sid)
    assert (await world.call.wait_ended()).q850_cause == 16


@works
async def execute_dialplan(world: World) -> None:
    await world.session.execute_dialplan(world.call.call_sid, DialplanAction.LOOPBACK)
    assert world.at_the_gateway(world.call).leg.loopback


@works
async def get_incoming_calls(world: World) -> None:
    [info] = await world.session.get_incoming_calls("main")
    assert (info.call_sid, info.call_from) == (world.waiting, "+15550109999")


@works
async def answer_incoming_call(world: World) -> None:
    await world.session.answer_incoming_call(world.waiting)
    assert await world.session.get_incoming_calls("main") == ()


@works
async def set_inbound_routing(world: World) -> None:
    await world.session.set_inbound_routing("main", InboundRule.REJECT)
    assert world.gateway.place_inbound_call(trunk_id="main") is None
    await world.session.set_inbound_routing("main", InboundRule.NOTIFY_AND_HANGUP, webhook_url="https://hook.example")
    world.gateway.place_inbound_call(trunk_id="main")
    assert [each.webhook_url for each in world.gateway.model.notifications] == ["https://hook.example"]


@works
async def originate_bulk(world: World) -> None:
    reply = await world.bulk()
    assert (reply.status, reply.loaded_numbers) == ("ACCEPTED", 5)
    assert "spring-00001" in world.gateway.model.calls


@works
async def abort_bulk(world: World) -> None:
    await world.bulk()
    reply = await world.session.abort_bulk("spring")
    assert (reply.status, reply.loaded_numbers) == ("ABORTED", 4)


@works
async def get_active_buckets(world: World) -> None:
    await world.bulk()
    found = {each.bucket_id: each.pending_count for each in await world.session.get_active_buckets()}
    assert found == {"spring": 4, "inbound:main": 1}


@works
async def get_bucket_calls(world: World) -> None:
    assert await world.session.get_bucket_calls("inbound:main") == (world.waiting,)


@works
async def execute_bucket_action(world: World) -> None:
    await world.bulk()
    assert await world.session.execute_bucket_action("spring", BucketAction.SKIP) == 1
    assert await world.session.get_bucket_calls("spring") == ("spring-00003", "spring-00004", "spring-00005")


@works
async def supervise(world: World) -> None:
    async with (
        world.other_session() as other,
        await other.supervise(world.call.call_sid, mode=SuperviseMode.WHISPER_AGENT) as seat,
    ):
        heard = world.call.audio_stream()
        await seat.send_audio(PACKET)
        assert await anext(heard) == PACKET


@works
async def request(world: World) -> None:
    """AllocateWt has no method of its own: what it allocates speaks an unpublished protocol."""
    with pytest.raises(CommandRejected, match="offers no media over WebTransport"):
        await world.session.request(MethodId.AllocateWt, messages.AllocateWtRequest(call_sid=world.call.call_sid))


@works
async def answer(world: World) -> None:
    call = await anext(world.session.incoming())
    await call.answer()
    assert (call.call_sid, call.state) == (world.waiting, CallState.ANSWERED)


@works
async def hangup(world: World) -> None:
    await world.call.hangup()
    assert (await world.call.wait_ended()).cause == "Normal call clearing"
    await world.call.hangup()


@works
async def hold(world: World) -> None:
    await world.call.hold()
    await trio.sleep(0.1)
    assert world.call.on_hold


@works
async def unhold(world: World) -> None:
    await world.call.hold()
    await world.call.unhold()
    await trio.sleep(0.1)
    assert not world.call.on_hold


@works
async def music_on_hold(world: World) -> None:
    await world.call.music_on_hold()
    await trio.sleep(0.1)
    assert world.call.on_hold


@works
async def mute(world: World) -> None:
    await world.call.mute(wire=True)
    await world.call.send_audio(PACKET)
    with trio.move_on_after(1) as silence:
        await anext(world.call.audio())
    assert silence.cancelled_caught


@works
async def unmute(world: World) -> None:
    await world.call.mute()
    await world.call.unmute()
    await world.is_intact()


@works
async def transfer(world: World) -> None:
    await world.call.transfer("sip:tone@example.com")
    assert (await world.call.wait_ended()).q850_cause == 16


@works
async def send_dtmf(world: World) -> None:
    call = await world.another(KEYPAD)
    await call.send_dtmf("31#", duration_ms=50)
    assert (await call.wait_ended()).q850_cause == 16


@works
async def park(world: World) -> None:
    await world.call.park()
    assert world.at_the_gateway(world.call).is_parked


@works
async def playback(world: World) -> None:
    await world.call.playback(str(world.sound))
    assert (await anext(world.call.audio())).payload != PACKET


@works
async def barge(world: World) -> None:
    """Both of that name: the RPC cuts a playback short, the verb is for conferences."""
    await world.call.playback(str(world.sound))
    await world.session.barge(world.call.call_sid)
    await trio.sleep(0.2)
    assert world.call.statistics().packets_received < 10
    await world.call.connect(ECHO)
    await world.call.barge()


@works
async def bridge(world: World) -> None:
    other = await world.another(KEYPAD)
    await world.call.bridge(other)
    assert world.at_the_gateway(world.call).partner is world.at_the_gateway(other)


@works
async def connect(world: World) -> None:
    leg = await world.call.connect(ECHO)
    assert (world.call.state, leg.state) == (CallState.CONNECTED, CallState.ANSWERED)


@works
async def whisper(world: World) -> None:
    leg = await world.call.connect(KEYPAD)
    await world.call.whisper()
    await world.call.send_audio(PACKET)
    await trio.sleep(0.2)
    assert leg.statistics().packets_sent == 1


@works
async def spy(world: World) -> None:
    leg = await world.call.connect(KEYPAD)
    await world.call.spy()
    await world.call.send_audio(PACKET)
    await trio.sleep(0.2)
    assert leg.statistics().packets_sent == 0


@works
async def close(world: World) -> None:
    leg = await world.call.connect(ECHO)
    await world.call.close()
    assert {"up", leg.call_sid} < set(world.gateway.model.calls)


@works
async def disconnect(world: World) -> None:
    await world.call.connect(ECHO)
    await world.call.disconnect()
    assert set(world.gateway.model.calls) == {world.waiting}


@works
async def send_audio(world: World) -> None:
    await world.is_intact()


@works
async def clear_send_audio_buffer(world: World) -> None:
    await world.call.send_audio(PACKET * 20)
    assert world.call.clear_send_audio_buffer() == 20


@works
async def play(world: World) -> None:
    await world.call.play(world.sound)
    assert world.call.statistics().packets_sent == 50


@works
async def record(world: World) -> None:
    async with world.call.record(world.sound.with_name("record.wav")):
        await world.call.play(PACKET)
    assert world.sound.with_name("record.wav").stat().st_size > 320


@pytest.mark.parametrize("step", WORKING.values(), ids=list(WORKING))
async def test_it_works(step: Step, world: World, autojump_clock: MockClock) -> None:
    await step(world)
    assert world.session.statistics().connections == 1


def test_no_command_is_missing() -> None:
    rpcs = {name for name, each in vars(Commands).items() if inspect.iscoroutinefunction(each) and name[0] != "_"}
    assert {*rpcs, *map(str, Command), "originate", "supervise"} - set(WORKING) == set()
    by_method = {"ExecuteDialplan": "execute_dialplan", "SuperviseSubscribe": "supervise", "AllocateWt": "request"}
    spelled = {"".join(part.title() for part in name.split("_")) for name in WORKING}
    # A session says StreamEvents by itself; this whole file would hear nothing without it.
    assert {each.name for each in METHODS} - spelled - set(by_method) == {"StreamEvents"}
    assert set(ARGUMENTS) - set(WORKING) == set()


# -- how each is refused ----------------------------------------------------------------------------------------------


@attrs.frozen
class Refusal:
    """A command in vain: the error, and the gateway's code where it has a place for one."""

    attempt: Callable[[World], Awaitable[Any]]
    error: type[AgentaoError]
    words: str
    code: int | None = None
    retryable: bool = False


INVALID, TRUNK, DESTINATION = (
    ErrorCode.ERR_VALIDATION_FAILED,
    ErrorCode.ERR_INVALID_TRUNK,
    ErrorCode.ERR_INVALID_DESTINATION,
)


async def twice(verb: Callable[[], Awaitable[None]]) -> None:
    await verb()
    await verb()


REFUSALS = {
    "originate, the trunk": Refusal(
        lambda w: w.session.originate(ECHO, trunk_id="invalid"), CommandRejected, "no trunk 'invalid'", TRUNK
    ),
    "originate, the destination": Refusal(
        lambda w: w.session.originate("sip:loss@x;rate=500", trunk_id="main"),
        CommandRejected,
        "cannot be reached",
        DESTINATION,
    ),
    "originate, for now": Refusal(
        lambda w: w.session.originate(RATE_LIMITED, trunk_id="main"),
        CommandRejected,
        "too many calls",
        ErrorCode.ERR_RATE_LIMITED,
        retryable=True,
    ),
    "originate, a name that is taken": Refusal(
        lambda w: w.session.originate(ECHO, trunk_id="main", call_sid="waiting"), CommandRejected, "there is", INVALID
    ),
    "originate, a name of ours": Refusal(
        lambda w: w.session.originate(ECHO, trunk_id="main", call_sid="up"), LocalProtocolError, "'up' is already"
    ),
    "originate, an action for later": Refusal(
        lambda w: w.session.originate(ECHO, trunk_id="main", default_app=DialplanAction.HOLD),
        LocalProtocolError,
        "can only start with",
    ),
    "terminate": Refusal(lambda w: w.session.terminate("none"), CommandRejected, "no open call 'none'", INVALID),
    "barge": Refusal(lambda w: w.session.barge("none"), CommandRejected, "reset the stream of Barge"),
    "execute_dialplan": Refusal(
        lambda w: w.session.execute_dialplan("none", DialplanAction.HOLD), CommandRejected, "no open call", INVALID
    ),
    "execute_dialplan, what is internal": Refusal(
        lambda w: w.session.execute_dialplan("up", DialplanAction.SUPERVISE), LocalProtocolError, "SuperviseSubscribe"
    ),
    "set_inbound_routing": Refusal(
        lambda w: w.session.set_inbound_routing("invalid", InboundRule.REJECT), CommandRejected, "SetInboundRouting"
    ),
    "set_inbound_routing, half a rule": Refusal(
        lambda w: w.session.set_inbound_routing("main", InboundRule.PLAY_AND_HANGUP), LocalProtocolError, "audio_url"
    ),
    "answer_incoming_call": Refusal(
        lambda w: w.session.answer_incoming_call("up"), CommandRejected, "is not waiting for an answer", INVALID
    ),
    "originate_bulk": Refusal(
        lambda w: w.session.originate_bulk(
            "/none.csv", trunk_id="main", calls_per_second=1, max_concurrent_calls=1, campaign_id="c"
        ),
        CommandRejected,
        "cannot be loaded: No such file",
    ),
    "originate_bulk, no pace": Refusal(lambda w: w.bulk(calls_per_second=0), LocalProtocolError, "1 or more"),
    "abort_bulk": Refusal(lambda w: w.session.abort_bulk("none"), CommandRejected, "no campaign 'none'"),
    "execute_bucket_action": Refusal(
        lambda w: w.session.execute_bucket_action("spring", 99), CommandRejected, "ExecuteBucketAction"
    ),
    "supervise": Refusal(lambda w: w.session.supervise("none"), CommandRejected, "no open call 'none'"),
    "supervise, a call of ours": Refusal(lambda w: w.session.supervise("up"), LocalProtocolError, "already"),
    "answer": Refusal(lambda w: w.call.answer(), CallStateError, "not possible while the call is answered"),
    "hold": Refusal(lambda w: twice(w.call.hold), CommandRejected, "on hold already", INVALID),
    "unhold": Refusal(lambda w: w.call.unhold(), CommandRejected, "not on hold", INVALID),
    "music_on_hold": Refusal(lambda w: twice(w.call.music_on_hold), CommandRejected, "on hold already", INVALID),
    "transfer": Refusal(lambda w: w.call.transfer("5550100"), LocalProtocolError, "E.164"),
    "transfer, nobody there": Refusal(
        lambda w: w.call.transfer("sip:fails@x;cause=999"), CommandRejected, "cannot be reached", DESTINATION
    ),
    "send_dtmf": Refusal(lambda w: w.call.send_dtmf("12E"), LocalProtocolError, "one digit of"),
    "send_dtmf, as sound": Refusal(lambda w: w.call.send_dtmf("1", mode="inband"), LocalProtocolError, "inband"),
    "playback": Refusal(lambda w: w.call.playback("hello.wav"), LocalProtocolError, "absolute path"),
    "playback, no file": Refusal(lambda w: w.call.playback("/none.wav"), CommandRejected, "No such file", INVALID),
    "bridge": Refusal(lambda w: w.call.bridge(w.call), CommandRejected, "to itself", INVALID),
    "connect": Refusal(lambda w: w.call.connect(BUSY), CallConnectFailed, "User busy"),
    "connect, nobody": Refusal(lambda w: w.call.connect("nobody"), LocalProtocolError, "'nobody' is not a destination"),
    "whisper": Refusal(lambda w: w.call.whisper(), CallStateError, "whisper is not possible"),
    "barge, no conference": Refusal(lambda w: w.call.barge(), CallStateError, "barge is not possible"),
    "spy": Refusal(lambda w: w.call.spy(), CallStateError, "spy is not possible"),
}


async def test_a_refusal_has_a_type_a_code_and_a_reason_and_changes_nothing(
    world: World, autojump_clock: MockClock
) -> None:
    for name, refusal in REFUSALS.items():
        requests = world.gateway.statistics().requests
        outcome = await the_outcome(refusal.attempt(world))
        assert type(outcome) is refusal.error, name
        assert refusal.words in str(outcome), name
        if isinstance(outcome, CommandRejected):
            assert (outcome.code, outcome.retryable) == (refusal.code, refusal.retryable), name
        if isinstance(outcome, (LocalProtocolError, CallStateError)):
            assert world.gateway.statistics().requests == requests, f"{name}: something was sent"
        if world.call.on_hold:
            await world.call.unhold()
        await world.is_intact()


#: Every verb with arguments that are good.
VERBS: dict[str, Callable[[World, ActiveCall], Awaitable[Any]]] = {
    "hold": lambda w, call: call.hold(),
    "unhold": lambda w, call: call.unhold(),
    "music_on_hold": lambda w, call: call.music_on_hold(),
    "mute": lambda w, call: call.mute(),
    "unmute": lambda w, call: call.unmute(),
    "transfer": lambda w, call: call.transfer(ECHO),
    "send_dtmf": lambda w, call: call.send_dtmf("1"),
    "park": lambda w, call: call.park(),
    "playback": lambda w, call: call.playback(str(w.sound)),
    "bridge": lambda w, call: call.bridge(w.call),
    "whisper": lambda w, call: call.whisper(),
    "barge": lambda w, call: call.barge(),
    "spy": lambda w, call: call.spy(),
    "close": lambda w, call: call.close(),
    "disconnect": lambda w, call: call.disconnect(),
    "send_audio": lambda w, call: call.send_audio(PACKET),
    "finish_audio": lambda w, call: call.finish_audio(),
}


async def test_before_the_answer_there_is_nothing_to_control(world: World, autojump_clock: MockClock) -> None:
    call = await world.session.originate("+15550100019", trunk_id="main")
    for name, verb in VERBS.items():
        with pytest.raises(CallStateError, match="while the call is pending") as caught:
            await verb(world, call)
        assert caught.value.state is CallState.PENDING
        assert name not in caught.value.allowed
    with pytest.raises(CallAnswerFailed, match=r"not waiting|only the far end"):
        await call.answer()
    await world.is_intact()


async def test_afterwards_every_verb_says_how_the_call_ended(world: World, autojump_clock: MockClock) -> None:
    call = await world.another()
    world.gateway.hang_up(call.call_sid, 38)
    await call.wait_ended()
    for verb in VERBS.values():
        with pytest.raises(CallEnded, match="Network out of order") as caught:
            await verb(world, call)
        assert caught.value.q850_cause == 38
    await call.hangup()
    await world.is_intact()


async def test_without_a_token_every_rpc_is_unauthorised(autojump_clock: MockClock) -> None:
    settings = GatewaySettings(authentication="required", verifier=verifier())
    async with simulated(settings) as (session, _):
        for method in set(METHODS) - {MethodId.StreamEvents}:
            outcome = await the_outcome(session.request(method, METHODS[method].request()))
            # Where a reply has no place for a code, the stream is reset, or there are only words.
            told = str(outcome)
            assert "ERR_UNAUTHORIZED (7)" in told or "requires a token" in told or "(code 2)" in told, method


# -- what each survives -----------------------------------------------------------------------------------------------

Bad = Any
#: What is given in place of text, of a number, of a name from a list.
NO_TEXT: list[Bad] = [5, 1.5, b"bytes", ["x"], {"x": 1}, object(), "\ud800"]
NO_NUMBER: list[Bad] = ["5", None, 1.5, b"1", [1], 2**40, -(2**40), object()]
HOSTILE = ["x" * 100_000, "a\0b", "\x1b[2J\r\n", "\udcff\udc80", "\u202egnirts"]


@attrs.frozen
class Takes:
    """A command and good arguments for it; in ``free`` ones any text will do, however long."""

    command: Callable[..., Awaitable[Any]]
    good: dict[str, Any]
    free: frozenset[str] = frozenset()


URLS = {"ai_websocket_url": "", "ai_quic_url": ""}
FREE_URLS = frozenset(URLS)

ARGUMENTS: dict[str, Takes] = {
    "originate": Takes(
        lambda w, **given: w.session.originate(**given),
        {
            "to": ECHO,
            "trunk_id": "main",
            "call_from": "",
            "call_sid": "",
            "default_app": DialplanAction.ANSWER,
            "default_app_args": "",
            "max_duration_ms": 0,
            "barge_in_patience_ms": 250,
            "traceparent": "",
            **URLS,
        },
        FREE_URLS | {"call_from", "default_app_args"},
    ),
    "originate_bulk": Takes(
        lambda w, **given: w.session.originate_bulk(**given),
        {
            "csv_url": "/none.csv",
            "trunk_id": "main",
            "calls_per_second": 1,
            "max_concurrent_calls": 1,
            "campaign_id": "c",
            "to": "",
            "call_from": "",
            "default_app": DialplanAction.ANSWER,
            "default_app_args": "",
            "max_duration_ms": 0,
            **URLS,
        },
    ),
    "abort_bulk": Takes(lambda w, **given: w.session.abort_bulk(**given), {"campaign_id": "c"}),
    "terminate": Takes(lambda w, **given: w.session.terminate(**given), {"call_sid": "c"}),
    "barge": Takes(lambda w, **given: w.session.barge(**given), {"call_sid": "c"}),
    "execute_dialplan": Takes(
        lambda w, **given: w.session.execute_dialplan(**given),
        {"call_sid": "up", "action": DialplanAction.MUTE, "app_args": ""},
    ),
    "set_inbound_routing": Takes(
        lambda w, **given: w.session.set_inbound_routing(**given),
        {"trunk_id": "main", "rule": InboundRule.HANDLE_AI, "audio_url": "", "webhook_url": "", **URLS},
        FREE_URLS | {"audio_url", "webhook_url"},
    ),
    "get_incoming_calls": Takes(
        lambda w, **given: w.session.get_incoming_calls(**given), {"trunk_id": "main"}, frozenset({"trunk_id"})
    ),
    "answer_incoming_call": Takes(
        lambda w, **given: w.session.answer_incoming_call(**given), {"call_sid": "c", **URLS}
    ),
    "get_bucket_calls": Takes(
        lambda w, **given: w.session.get_bucket_calls(**given), {"bucket_id": "b"}, frozenset({"bucket_id"})
    ),
    "execute_bucket_action": Takes(
        lambda w, **given: w.session.execute_bucket_action(**given),
        {"bucket_id": "b", "action": BucketAction.SKIP},
        frozenset({"bucket_id"}),
    ),
    "supervise": Takes(
        lambda w, **given: w.session.supervise(**given),
        {"call_sid": "c", "mode": SuperviseMode.BARGE, "supervisor_id": "me", "auth_token": ""},
    ),
    "transfer": Takes(lambda w, **given: w.call.transfer(**given), {"to": "sip:fails@x;cause=999"}),
    "send_dtmf": Takes(
        lambda w, **given: w.call.send_dtmf(**given), {"digits": "1", "duration_ms": 40, "mode": "info"}
    ),
    "playback": Takes(lambda w, **given: w.call.playback(**given), {"path": "/none.wav"}),
    "bridge": Takes(lambda w, **given: w.call.bridge(**given), {"other": None}),
    "connect": Takes(lambda w, **given: w.call.connect(**given), {"to": BUSY, "trunk_id": "main"}),
    "send_audio": Takes(lambda w, **given: w.call.send_audio(**given), {"data": None}),
}


def is_fit_to_be_shown(error: BaseException) -> bool:
    text = str(error)
    return text.isprintable() and 10 < len(text) < 500


async def test_what_is_of_another_type_is_refused_by_name_and_never_sent(
    world: World, autojump_clock: MockClock
) -> None:
    requests = world.gateway.statistics().requests
    for name, takes in ARGUMENTS.items():
        for argument, good in takes.good.items():
            for bad in NO_NUMBER if isinstance(good, int) else NO_TEXT:
                if isinstance(bad, bytes) and name == "send_audio":
                    continue
                outcome = await the_outcome(takes.command(world, **{**takes.good, argument: bad}))
                assert isinstance(outcome, LocalProtocolError), (name, argument, bad)
                assert is_fit_to_be_shown(outcome), (name, argument, bad)
    assert world.gateway.statistics().requests == requests
    await world.is_intact()


async def test_hostile_text_is_carried_or_refused_in_few_words(world: World, autojump_clock: MockClock) -> None:
    for name, takes in ARGUMENTS.items():
        for argument, good in takes.good.items():
            for text in HOSTILE if not isinstance(good, int) else ():
                where = name, argument, text[:10]
                outcome = await the_outcome(takes.command(world, **{**takes.good, argument: text}))
                if isinstance(outcome, AgentaoError):
                    assert is_fit_to_be_shown(outcome), where
                else:
                    assert len(text) < 1000 or argument in takes.free, where
                if isinstance(outcome, ActiveCall):
                    await outcome.hangup()
                    assert (await outcome.wait_ended()).call_sid == outcome.call_sid, where
        await world.is_intact()


async def test_a_name_of_any_bytes_comes_back_byte_for_byte(world: World, autojump_clock: MockClock) -> None:
    sid = "\udcff\0\x1b[2J"
    async with await world.session.originate(ECHO, trunk_id="main", call_sid=sid) as call:
        await call.wait_answered()
        await call.hold()
    ending = await call.wait_ended()
    assert ending.call_sid == ending.event.call_sid == sid


@pytest.mark.parametrize("client_id", [5, b"x", "\ud800"])
async def test_a_client_id_that_cannot_be_sent_is_told_at_once(client_id: Any, autojump_clock: MockClock) -> None:
    with pytest.raises(LocalProtocolError, match="client_id"):
        async with simulated(client_id=client_id):
            pytest.fail("there is no session under such a name")  # pragma: no cover


async def test_more_than_a_frame_may_hold_is_refused(world: World, autojump_clock: MockClock) -> None:
    with pytest.raises((LocalProtocolError, CommandRejected)) as caught:
        await world.session.originate(ECHO, trunk_id="main", call_from="x" * 1_100_000)
    assert is_fit_to_be_shown(caught.value)
    await world.is_intact()
