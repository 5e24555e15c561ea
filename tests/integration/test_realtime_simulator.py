"""The scripted model judged from outside: by the vendor's own types, and over a real WebSocket."""

from __future__ import annotations

import base64
import json
import logging
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import trio
import trustme
from openai.types.beta.realtime import RealtimeServerEvent as LegacyServerEvent
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from trio.testing import MockClock

from agentao_trio.errors import AuthenticationError, ConnectError, ConnectionLost
from agentao_trio.realtime.connection import address, memory_transports, websocket
from agentao_trio.realtime.protocol import AudioFormat, Profile, ResponseDone, SessionConfig
from agentao_trio.realtime.script import FAULTS, TURN_FAULTS, Script, ToolCall, Turn, demo_script
from agentao_trio.realtime.session import RealtimeState, open_realtime
from agentao_trio.realtime.simulator import open_simulator, simulated

LOUD = base64.b64encode(bytes([0x00, 0x80]) * 80).decode()
QUIET = base64.b64encode(b"\xff" * 160).decode()
UPDATE = {
    "type": "session.update",
    "session": {
        "type": "realtime",
        "audio": {
            "input": {"format": {"type": "audio/pcmu"}, "transcription": {"model": "whisper-1"}},
            "output": {"format": {"type": "audio/pcmu"}},
        },
    },
}
LEGACY_UPDATE = {
    "type": "session.update",
    "session": {
        "input_audio_format": "g711_ulaw",
        "output_audio_format": "g711_ulaw",
        "input_audio_transcription": {"model": "whisper-1"},
    },
}


async def converse(script: Script, *, profile: Profile = Profile.GA) -> list[bytes]:
    """Everything the model sends while a caller speaks, interrupts, asks for what it must not, and leaves."""
    sent: list[bytes] = []

    async def listen() -> None:
        while True:
            try:
                sent.append(await transport.receive())
            except ConnectionLost:
                nursery.cancel_scope.cancel()
                return

    async def tell(event: dict[str, Any]) -> None:
        await transport.send(json.dumps(event))

    async def speak(packets: int, silence: int) -> None:
        for number in range(packets + silence):
            await tell({"type": "input_audio_buffer.append", "audio": LOUD if number < packets else QUIET})
            await trio.sleep(0.02)

    async with simulated(script, profile=profile)() as transport, trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        try:
            await tell(UPDATE if profile is Profile.GA else LEGACY_UPDATE)
            await speak(20, 40)
            await speak(20, 40)
            await trio.sleep(10)
            await tell({"type": "conversation.item.truncate", "item_id": "x", "content_index": 0, "audio_end_ms": 1})
            await tell({"type": "response.create", "event_id": "mine"})
            await tell({"type": "response.create", "event_id": "too_many"})
            await tell({"type": "response.create", "response": {"conversation": "none", "metadata": {"a": "b"}}})
            await tell({"type": "response.cancel"})
            text = {"type": "input_text", "text": "Hello"}
            item = {"type": "message", "role": "user", "id": "item_mine", "content": [text]}
            await tell({"type": "conversation.item.create", "item": item})
            await tell({"type": "conversation.item.retrieve", "item_id": "item_mine"})
            await tell({"type": "conversation.item.delete", "item_id": "item_mine"})
            await tell({"type": "input_audio_buffer.clear"})
            await tell({"type": "input_audio_buffer.commit"})
            await tell({"type": "nonsense"})
            await trio.sleep(10)
        except ConnectionLost:
            await trio.sleep_forever()  # until what came before it has been read
        nursery.cancel_scope.cancel()
    return sent


def scripts() -> Iterator[Script]:
    say = Turn(text="One sentence. And another one, to be a little longer.")
    call = Turn(text="I look.", tool=ToolCall(name="look_up", arguments='{"n": 1}'), more=(Turn(text="And more."),))
    yield demo_script()
    for fault in (None, *sorted(TURN_FAULTS)):
        yield Script(turns=(say, Turn(text="A sentence. " * 4, more=(call,), fault=fault), call), truncates=True)


@pytest.mark.parametrize(
    "script", list(scripts()), ids=lambda script: script.turns[1].fault or script.turns[0].text[:5]
)
@pytest.mark.parametrize("profile", list(Profile))
async def test_everything_it_sends_is_what_the_vendors_types_expect(
    script: Script, profile: Profile, autojump_clock: MockClock
) -> None:
    types: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent if profile is Profile.GA else LegacyServerEvent)
    seen = set()
    for data in await converse(script, profile=profile):
        try:
            event = json.loads(data)
        except ValueError:
            assert script.turns[1].fault == "malformed"
            continue
        seen.add(event["type"])
        if event["type"] == "response.mood.changed":
            continue
        parsed = types.validate_python(event)
        assert parsed.type == event["type"]
    assert {"session.created", "session.updated", "response.created", "response.done"} <= seen
    assert ("conversation.item.added" in seen) is (profile is Profile.GA)


async def test_event_ids_are_unique_but_where_that_is_the_fault(autojump_clock: MockClock) -> None:
    sent = [json.loads(data)["event_id"] for data in await converse(demo_script())]
    assert len(sent) == len(set(sent)) > 50
    script = Script(turns=(Turn(text="Hello.", fault="duplicate"),))
    twice = [json.loads(data)["event_id"] for data in await converse(script)]
    assert len(twice) > len(set(twice))


#: Those that keep a session from opening: see test_realtime_session.
FINAL = {"refuse_401", "refuse_403", "echo_otherwise", "refuse_update"}


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - FINAL))
async def test_every_fault_that_is_not_final_leaves_a_session_that_works(fault: str, autojump_clock: MockClock) -> None:
    turn = Turn(text="A sentence. " * 4, fault=fault if fault in TURN_FAULTS else None)
    script = Script(turns=(turn, Turn(text="Fine.")), faults=() if fault in TURN_FAULTS else (fault,))
    async with open_realtime("ws://scripted", config=SessionConfig(), connect=simulated(script)) as session:
        await session.create_response()
        await trio.sleep(30)
        assert session.state is RealtimeState.CONNECTED
        dones = session.events("response.done")
        await session.create_response()
        assert (await anext(dones)).response.status == "completed"


# -- over a real WebSocket ------------------------------------------------------------------------------------------


async def test_a_conversation_over_tls_with_a_key_that_nobody_sees(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    fast = Turn(text="Hello.", think_seconds=0.0, pace=float("inf"))
    async with open_simulator(Script(turns=(fast,)), ssl_context=server) as simulator:
        with trio.fail_after(120):
            async with open_realtime(
                f"{simulator.url}?api-key=sk-in-the-url",
                config=SessionConfig(),
                api_key="sk-secret",
                ssl_context=client,
            ) as session:
                dones = session.events(ResponseDone)
                await session.create_response()
                assert (await anext(dones)).response.status == "completed"
                assert "sk-" not in repr(session)
    assert "sk-" not in caplog.text


async def test_a_certificate_that_is_not_trusted_is_told_in_plain_words() -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(server)
    async with open_simulator(Script(), ssl_context=server) as simulator:
        with pytest.raises(ConnectError, match=r"certificate of .* is not trusted") as failure:
            async with open_realtime(simulator.url, config=SessionConfig(), api_key="sk-secret"):
                pytest.fail("the session is not to open")
    assert failure.value.refused


@pytest.mark.parametrize("profile", list(Profile))
async def test_the_header_chooses_the_dialect(profile: Profile) -> None:
    config = SessionConfig(input_format=AudioFormat.PCMA, output_format=AudioFormat.PCMA)
    async with (
        open_simulator(Script()) as simulator,
        open_realtime(simulator.url, config=config, profile=profile) as session,
    ):
        assert session.config.output_format is AudioFormat.PCMA
        assert session.statistics().unknown == 0


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [("refuse_401", AuthenticationError, "HTTP 401"), ("refuse_403", AuthenticationError, "HTTP 403")],
)
async def test_a_refused_key_is_told_without_it(fault: str, error: type[Exception], words: str) -> None:
    async with open_simulator(Script(faults=(fault,))) as simulator:
        with pytest.raises(error, match=words) as failure:
            async with open_realtime(simulator.url, config=SessionConfig(), api_key="sk-secret"):
                pytest.fail("the session is not to open")
    assert "sk-secret" not in str(failure.value)
    assert failure.value.__cause__ is None


async def test_a_real_connection_that_vanishes_is_replaced() -> None:
    turn = Turn(text="A sentence. " * 4, think_seconds=0.0, pace=100.0, fault="disconnect")
    async with open_simulator(Script(turns=(turn, Turn(text="Back.", think_seconds=0.0)))) as simulator:
        with trio.fail_after(120):
            async with open_realtime(simulator.url, config=SessionConfig(), jitter=lambda: 0.0) as session:
                renewed = trio.Event()
                session.on_renewed(lambda reason: renewed.set())
                await session.create_response()
                await renewed.wait()
                assert session.session_id == "sess_c2"
                await session.create_response()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://example.org/", "has to begin with wss:// or ws://"),
        ("ws://example.org/?key=sk-1", "a key is not sent in the clear to example.org"),
    ],
)
def test_addresses_that_will_not_do(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as failure:
        websocket(url, headers={"Authorization": "Bearer sk-2"})
    assert "sk-" not in str(failure.value)


def test_an_address_for_people_has_no_secrets() -> None:
    assert address("wss://me:sk-1@example.org/v1/realtime?api-key=sk-2") == "wss://example.org/v1/realtime"


def test_pings_are_not_to_be_waited_for_longer_than_until_the_next() -> None:
    with pytest.raises(ValueError, match="ping_timeout"):
        websocket("wss://example.org", headers={}, ping_interval=5, ping_timeout=6)


# -- in memory ------------------------------------------------------------------------------------------------------


async def test_two_ends_in_memory_carry_messages_and_say_why_they_closed() -> None:
    near, far = memory_transports()
    await near.send("one")
    await near.send(b"two")
    await near.aclose(1001, "tired")
    assert [await far.receive(), await far.receive()] == [b"one", b"two"]
    with pytest.raises(ConnectionLost, match="going away") as failure:
        await far.receive()
    assert (failure.value.code, failure.value.reason) == (1001, "tired")
    with pytest.raises(ConnectionLost):
        await far.send("too late")


@pytest.mark.parametrize("moments", [0.0, 0.002, 0.02])
async def test_a_real_session_can_be_cancelled_at_any_moment(moments: float) -> None:
    async with open_simulator(Script()) as simulator:
        with trio.fail_after(120):
            with trio.move_on_after(moments) as scope:
                async with open_realtime(simulator.url, config=SessionConfig()):
                    await trio.sleep_forever()
            assert scope.cancelled_caught
            async with open_realtime(simulator.url, config=SessionConfig()) as session:  # the server has not minded
                assert session.state is RealtimeState.CONNECTED


def test_an_interrupted_conversation_in_virtual_time_always_comes_out_the_same() -> None:
    async def interrupted() -> list[str]:
        long = Turn(text="This goes on for quite a while, as anybody can hear. " * 3, pace=1.0)
        log: list[str] = []
        began = trio.current_time()
        connect = simulated(Script(turns=(long, Turn(text="Yes?"))))
        config = SessionConfig(input_format=AudioFormat.PCMU, output_format=AudioFormat.PCMU)
        async with open_realtime("ws://scripted", config=config, connect=connect, jitter=lambda: 0.5) as session:
            session.subscribe("*", lambda event: log.append(f"{trio.current_time() - began:.6f} {event}"))
            await session.create_response()
            for number in range(450):  # nine seconds
                session.append_audio(base64.b64decode(LOUD if 100 <= number < 125 else QUIET))
                await trio.sleep(0.02)
        return log

    logs = {tuple(trio.run(interrupted, clock=MockClock(autojump_threshold=0))) for _ in range(5)}
    assert len(logs) == 1
    assert "turn_detected" in "".join(next(iter(logs)))
