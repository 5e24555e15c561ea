"""The embedded gateway on a network, driven by streams and frames alone, in virtual time."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from agentao_trio import messages as m
from agentao_trio.errors import ConnectionLost, StreamReset
from agentao_trio.gateway import Gateway, GatewaySettings, open_gateway
from agentao_trio.messages import DialplanAction, ErrorCode, MethodId
from agentao_trio.testing import MemoryNetwork
from agentao_trio.transport import TransportSettings
from agentao_trio.wire import encode_frame, encode_request
from tests.support.bench import ANSWER, CREATE, ECHO, HANGUP, HOLD, NOTHING, RESUME, TONE, packet
from tests.support.raw_client import RawClient, audio, open_raw_client

HOST, PORT = "gateway.test", 9090


class World:
    """A network with a gateway on it."""

    def __init__(self, network: MemoryNetwork, gateway: Gateway) -> None:
        self.network = network
        self.gateway = gateway

    def client(self, client_id: str | None = "me", **kwargs: Any) -> contextlib.AbstractAsyncContextManager[RawClient]:
        return open_raw_client(self.gateway, self.network.socket(), client_id=client_id, **kwargs)


@contextlib.asynccontextmanager
async def world(
    settings: GatewaySettings | None = None, network: MemoryNetwork | None = None, **kwargs: Any
) -> AsyncIterator[World]:
    network = network or MemoryNetwork(delay=0.01)
    async with open_gateway(socket=network.socket((HOST, PORT)), settings=settings, seed=1, **kwargs) as gateway:
        yield World(network, gateway)


# -- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rpc_length", ["exclusive", "inclusive"])
@pytest.mark.parametrize(("reply", "form"), [("framed", None), ("bare", "bare"), ("none", "none")])
async def test_both_length_conventions_are_understood_and_answered_in_kind(
    autojump_clock: MockClock, rpc_length: str, reply: Any, form: str | None
) -> None:
    request = m.encode(m.OriginateRequest(trunk_id="main", to=ECHO, call_sid="call"))
    async with world(GatewaySettings(reply=reply)) as here, here.client() as client:
        data = encode_request(MethodId.Originate, request, rpc_length=rpc_length)
        answer = await client.exchange(data, MethodId.Originate)
        assert answer.form == (form or rpc_length)
        if answer.body:
            assert m.decode(m.OriginateResponse, answer.body).call_sid == "call"
        await client.wait_for(CREATE)


@pytest.mark.parametrize("number", [MethodId.ExecuteDialplan, 3514036100])
async def test_a_methods_other_numbers_are_understood(autojump_clock: MockClock, number: int) -> None:
    async with world() as here, here.client() as client:
        await client.answered(ECHO)
        hold = m.ExecuteDialplanRequest(call_sid="call", action=DialplanAction.HOLD)
        assert (await client.ask(hold, method=number)).error_code == ErrorCode.SUCCESS
        await client.wait_for(HOLD)


async def test_a_request_of_an_older_peer_is_understood(autojump_clock: MockClock) -> None:
    # Version 0 of OriginateRequest ends before session_id (PROTOCOL section 16.10).
    body = m.encode(m.OriginateRequest(trunk_id="main", to=ECHO, call_sid="old"))[6:-12]
    old = bytes(2) + len(body).to_bytes(4, "little") + body
    async with world() as here, here.client() as client:
        answer = await client.exchange(encode_request(MethodId.Originate, old), MethodId.Originate)
        assert m.decode(m.OriginateResponse, answer.body).error_code == ErrorCode.SUCCESS
        await client.wait_for(CREATE, "old")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x04",
        b"GET / HTTP/1.1\r\n\r\n",
        encode_request(12345, b""),
        encode_request(MethodId.AudioFrame, m.encode(m.AudioFrame())),
        encode_request(MethodId.Terminate, b"\0\0\1\0\0\0x")[:-3],
        encode_request(MethodId.GetIncomingCalls, b"garbage"),
        b"\xff\xff\xff\xff" + bytes(100),
    ],
)
async def test_a_request_that_makes_no_sense_is_reset_alone(autojump_clock: MockClock, data: bytes) -> None:
    async with world() as here, here.client() as client:
        with pytest.raises(StreamReset):
            await client.exchange(data, 0)
        await client.answered(ECHO)


async def test_a_request_whose_body_cannot_be_read_is_told_so_where_there_is_a_place_for_it(
    autojump_clock: MockClock,
) -> None:
    for body in (b"", b"\0\0\xff\xff\xff\xff", b"\0\7\0\0\0\0", b"\0\0\4\0\0\0\xff\xff\xff\x7f"):
        async with world() as here, here.client() as client:
            answer = await client.exchange(encode_request(MethodId.Originate, body), MethodId.Originate)
            reply = m.decode(m.OriginateResponse, answer.body)
            assert (reply.status, reply.error_code) == ("FAILED", ErrorCode.ERR_VALIDATION_FAILED)


async def test_a_request_that_claims_4_gib_is_refused_at_once(autojump_clock: MockClock) -> None:
    async with world() as here, here.client() as client:
        stream = await client.connection.open_bidi()
        await stream.send_all(b"\xff\xff\xff\xff")
        with trio.fail_after(1), pytest.raises(StreamReset) as caught:
            await stream.receive_some()
        assert caught.value.code == 3
        stream.abandon()


async def test_a_request_that_never_ends_is_given_up(autojump_clock: MockClock) -> None:
    async with world() as here, here.client() as client:
        stream = await client.connection.open_bidi()
        await stream.send_all(encode_request(MethodId.Terminate, m.encode(m.TerminateRequest()))[:10])
        with trio.fail_after(40), pytest.raises(StreamReset):
            await stream.receive_some()
        stream.abandon()


async def test_a_withheld_reply_leaves_the_stream_open_until_the_client_gives_up(autojump_clock: MockClock) -> None:
    async with world() as here, here.client() as client:
        stream = await client.connection.open_bidi()
        originate = m.OriginateRequest(trunk_id="main", to="+15550100501", call_sid="call", default_app=5)
        await stream.send_all(encode_request(MethodId.Originate, m.encode(originate)))
        stream.finish()
        with trio.move_on_after(10):
            pytest.fail(f"there was an answer: {await stream.receive_some()!r}")
        stream.stop()
        assert client.types("call") == [CREATE, ANSWER]
        await client.terminate()


async def test_huge_and_hostile_strings_are_refused_in_few_words(autojump_clock: MockClock) -> None:
    hostile = "\x00\x1b[2J\udcff" * 50_000
    async with world() as here, here.client() as client:
        for request in (
            m.OriginateRequest(trunk_id="main", to=hostile),
            m.OriginateRequest(trunk_id=hostile, to=ECHO),
            m.OriginateRequest(trunk_id="main", to=ECHO, call_sid=hostile),
            m.TerminateRequest(call_sid=hostile),
            m.ExecuteDialplanRequest(call_sid=hostile, action=DialplanAction.HOLD),
            m.AnswerIncomingCallRequest(call_sid=hostile),
            m.BulkRequest(csv_url=hostile),
            m.SuperviseSubscribeRequest(call_sid=hostile),
        ):
            reply = await client.ask(request)
            text = reply.status if isinstance(reply, m.BulkResponse) else reply.error_message
            assert text.isprintable()
            assert 10 < len(text) < 500
        await client.answered(ECHO)


# -- the downlink -----------------------------------------------------------------------------------------------------


async def test_events_and_audio_share_a_stream_which_ends_after_the_hangup(autojump_clock: MockClock) -> None:
    async with world() as here, here.client() as client:
        await client.answered(TONE)
        await trio.sleep(0.5)
        await client.terminate()
        await client.wait_for(HANGUP)
        await trio.sleep(1)
        (stream,) = client.streams
        assert stream.end == "fin"
        kinds = ["audio" if isinstance(thing, m.AudioFrame) else thing.event_type for thing in stream.things]
        assert kinds[:2] == [CREATE, ANSWER]
        assert set(kinds[2:-1]) == {"audio"}
        assert kinds[-1] == HANGUP
        assert stream.things[-2] == client.frames("call")[-1]
        assert client.frames("call")[-1].end_of_stream

        await client.answered(TONE, "next")
        assert len(client.streams) == 2


async def test_a_shared_stream_stays_open_while_any_call_is(autojump_clock: MockClock) -> None:
    async with world() as here, here.client() as client:
        await client.answered(ECHO, "quiet")
        await client.answered(TONE, "short")
        await client.terminate("short")
        await trio.sleep(2)
        await client.terminate("quiet")
        await trio.sleep(2)
        (stream,) = client.streams
        assert stream.end == "fin"


async def test_audio_comes_every_20_ms_without_a_gap(autojump_clock: MockClock) -> None:
    async with world() as here, here.client() as client:
        sids = [f"call-{n}" for n in range(6)]
        for sid in sids:
            await client.answered(TONE, sid)
        await trio.sleep(2)
        for sid in sids:
            times = [at for at, thing in client.arrivals if isinstance(thing, m.AudioFrame) and thing.call_sid == sid]
            assert len(times) >= 100
            assert all(abs(late - early - 0.02) < 1e-6 for early, late in itertools.pairwise(times))
            assert [frame.sequence_number for frame in client.frames(sid)] == list(range(len(times)))
        phases = {round(at * 1000) % 20 for at, thing in client.arrivals if isinstance(thing, m.AudioFrame)}
        assert len(phases) == len(sids)  # each has a phase to itself
        assert here.gateway.statistics().clock.slots_skipped == 0


@pytest.mark.parametrize("method", [MethodId.AudioFrame, 9999])
async def test_many_calls_on_one_uplink_are_told_apart(autojump_clock: MockClock, method: int) -> None:
    async with world() as here, here.client() as client:
        sids = [f"call-{n}" for n in range(5)]
        for sid in sids:
            await client.answered(ECHO, sid)
        for n in range(50):
            for index, sid in enumerate(sids):
                await client.say(packet(n + 40 * index), n, sid, method=method)
            await trio.sleep(0.02)
        await trio.sleep(1)
        for index, sid in enumerate(sids):
            assert client.heard(sid) == [packet(n + 40 * index) for n in range(50)]


async def test_a_stream_for_every_packet_is_endured(autojump_clock: MockClock) -> None:
    async with world() as here, here.client() as client:
        await client.answered(ECHO)
        for n in range(200):
            stream = await client.connection.open_uni()
            stream.write(audio(packet(n), n))
            stream.finish()
            await trio.sleep(0.02)
        await trio.sleep(1)
        assert client.heard("call") == [packet(n) for n in range(200)]


async def test_two_hundred_calls_at_once(autojump_clock: MockClock) -> None:
    async with world() as here, here.client() as client:
        for n in range(200):
            await client.originate("+15550100016", f"call-{n}")
        for n in range(200):
            await client.wait_for(HANGUP, f"call-{n}")
        assert all(client.types(f"call-{n}") == [CREATE, ANSWER, HANGUP] for n in range(200))


async def test_a_bad_path_delays_and_loses_nothing(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(seed=3, delay=0.02, jitter=0.02, in_order=False, loss=0.05, duplicate=0.1, reorder=0.1)
    async with world(network=network) as here, here.client() as client:
        await client.answered(ECHO)
        for n in range(200):
            await client.say(packet(n), n)
            await trio.sleep(0.02)
        await trio.sleep(2)
        await client.terminate()
        account = await client.wait_for(HANGUP)
        assert client.heard("call") == [packet(n) for n in range(200)]
        assert (account.packets_received, account.packets_lost) == (200, 0)
        assert account.jitter_ms > 0.1


async def test_no_subscription_no_events_and_two_client_ids_share_nothing(autojump_clock: MockClock) -> None:
    async with world() as here, here.client(None) as silent, here.client("one") as one, here.client("two") as two:
        await one.answered(TONE, "first")
        await two.answered(TONE, "second")
        await silent.originate(TONE, "third")
        await trio.sleep(1)
        assert silent.streams == []
        assert {thing.call_sid for _, thing in one.arrivals} == {"first"}
        assert {thing.call_sid for _, thing in two.arrivals} == {"second"}
        assert {event.client_id for event in one.events} == {"one"}


async def test_a_client_that_does_not_read_costs_audio_and_never_events(autojump_clock: MockClock) -> None:
    small = TransportSettings(max_stream_data=65_536, max_data=131_072)
    async with world() as here, here.client(settings=small, reads=False) as client:
        await client.originate(TONE)
        await trio.sleep(30)
        assert here.gateway.model.calls["call"].leg.statistics().packets_lost > 500
        hold = m.ExecuteDialplanRequest(call_sid="call", action=DialplanAction.HOLD)
        assert (await client.ask(hold)).error_code == ErrorCode.SUCCESS
        await client.terminate()
        client.nursery.start_soon(client.read, client.streams[0])
        await client.wait_for(HANGUP)
        assert client.types("call") == [CREATE, ANSWER, HOLD, HANGUP]
        numbers = [frame.sequence_number for frame in client.frames("call")]
        assert numbers == sorted(numbers)
        assert len(numbers) < 1_000


async def test_a_stream_per_call_ends_with_its_call_and_may_be_declined(autojump_clock: MockClock) -> None:
    async with world(GatewaySettings(audio_streams="per_call")) as here, here.client() as client:
        await client.answered(TONE, "one")
        await client.answered(TONE, "two")
        await trio.sleep(1)
        events, one, two = client.streams
        two.stream.stop()
        await trio.sleep(1)
        heard = len(client.frames("two"))
        await client.terminate("one")
        await trio.sleep(1)
        assert all(isinstance(thing, m.CallEvent) for thing in events.things)
        assert {thing.call_sid for thing in one.things} == {"one"}
        assert (one.end, two.end) == ("fin", "stopped")
        assert len(client.frames("two")) == heard
        assert client.types("two") == [CREATE, ANSWER]
        assert len(client.streams) == 3


async def test_calls_share_a_stream_when_the_client_allows_no_more(autojump_clock: MockClock) -> None:
    few = TransportSettings(max_inbound_streams=3)
    async with world(GatewaySettings(audio_streams="per_call")) as here, here.client(settings=few) as client:
        sids = [f"call-{n}" for n in range(6)]
        for sid in sids:
            await client.answered(TONE, sid)
        await trio.sleep(1)
        assert len(client.streams) == 3
        for sid in sids:
            assert [frame.sequence_number for frame in client.frames(sid)] == list(range(len(client.frames(sid))))
            await client.terminate(sid)
        await trio.sleep(1)
        assert all(client.types(sid) == [CREATE, ANSWER, HANGUP] for sid in sids)


# -- gaps -------------------------------------------------------------------------------------------------------------


async def test_hangups_of_a_gap_come_again_on_a_new_stream_and_nothing_else_does(autojump_clock: MockClock) -> None:
    async with world() as here, here.client() as client:
        for sid in ("old", "one", "two", "stays"):
            await client.answered(ECHO, sid)
        await client.terminate("old")
        await client.wait_for(HANGUP, "old")
        await trio.sleep(1)
        before = len(client.events)
        client.streams[0].stream.stop()
        await client.terminate("one")
        await client.terminate("two")
        await client.wait_for(HANGUP, "one")
        await client.wait_for(HANGUP, "two")
        await trio.sleep(1)
        assert [(event.call_sid, event.event_type) for event in client.events[before:]] == [
            ("one", HANGUP),
            ("two", HANGUP),
        ]
        assert [thing.call_sid for thing in client.streams[1].things if isinstance(thing, m.CallEvent)] == [
            "one",
            "two",
        ]


async def test_a_stream_stopped_with_a_hangup_on_its_way_is_noticed_without_further_writing(
    autojump_clock: MockClock,
) -> None:
    async with world(network=MemoryNetwork(delay=0.05)) as here, here.client() as client:
        await client.answered(NOTHING)
        with trio.move_on_after(0.06):  # the request arrives, and nothing has come back yet
            await client.terminate()
        client.streams[0].stream.stop()
        assert HANGUP not in client.types("call")
        await client.wait_for(HANGUP)
        assert len(client.streams) == 2


async def test_a_gateway_that_resets_its_stream_opens_another(autojump_clock: MockClock) -> None:
    async with world() as here, here.client() as client:
        await client.answered(TONE)
        await trio.sleep(0.5)
        here.gateway.reset_streams(7)
        await trio.sleep(0.5)
        await client.terminate()
        await client.wait_for(HANGUP)
        assert client.streams[0].end == "reset"
        assert client.types("call") == [CREATE, ANSWER, HANGUP]
        assert [frame.sequence_number for frame in client.frames("call")] == list(range(len(client.frames("call"))))


@pytest.mark.parametrize("seconds", [1, 30, 100])
async def test_a_client_that_was_away_gets_everything_it_missed_in_order(
    autojump_clock: MockClock, seconds: int
) -> None:
    async with world() as here:
        async with here.client() as client:
            await client.answered("+15550100006")
            await client.originate("+15550100017", "busy")
        await trio.sleep(seconds)
        async with here.client() as client:
            await trio.sleep(1)
            assert client.types("call") == [HOLD, RESUME]
            assert client.types("busy") == [HANGUP]
            await client.say(packet(1), 0)
            await trio.sleep(1)
            assert client.heard("call") == [packet(1)]


async def test_a_hangup_that_died_with_its_path_is_delivered_to_the_next_connection(autojump_clock: MockClock) -> None:
    async with world() as here:
        async with here.client() as client:
            await client.answered(ECHO, max_duration_ms=1_000)
            await trio.sleep(0.5)  # until the answer is acknowledged
            with here.network.blackhole():
                await trio.sleep(5)
        async with here.client() as client:
            await client.wait_for(HANGUP)
            assert client.types("call") == [HANGUP]


async def test_what_was_delivered_is_not_delivered_again(autojump_clock: MockClock) -> None:
    async with world() as here:
        async with here.client() as client:
            await client.originate("+15550100017")
            await client.wait_for(HANGUP)
            await trio.sleep(1)
        async with here.client() as client:
            await client.subscribe()
            await trio.sleep(1)
            assert client.events == []


async def test_a_newer_connection_takes_over(autojump_clock: MockClock) -> None:
    async with world() as here, here.client() as old:
        await old.answered(TONE)
        async with here.client() as new:
            await trio.sleep(0.5)
            heard = len(old.frames("call"))
            await new.terminate()
            await new.wait_for(HANGUP)
            await trio.sleep(1)
            assert (len(old.frames("call")), old.types("call")) == (heard, [CREATE, ANSWER])
            assert new.frames("call")[0].sequence_number >= heard


async def test_a_takeover_repeats_nothing_that_has_arrived(autojump_clock: MockClock) -> None:
    near = MemoryNetwork(delay=0.001)
    async with world(network=near) as here, here.client() as old, here.client(None) as new:
        await old.answered(ECHO)
        await trio.sleep(0.03)  # acknowledged by now, and nobody has looked
        await new.subscribe("me")
        await trio.sleep(1)
        assert new.events == []


async def test_a_call_outlives_a_port_that_changes(autojump_clock: MockClock) -> None:
    async with world() as here:
        socket = here.network.socket()
        async with open_raw_client(here.gateway, socket) as client:
            await client.answered(ECHO)
            for n in range(100):
                await client.say(packet(n), n)
                await trio.sleep(0.02)
                if n == 50:
                    here.network.rebind(socket)
            await trio.sleep(1)
            assert client.heard("call") == [packet(n) for n in range(100)]


async def test_no_hangup_is_lost_on_a_path_that_loses_and_dies(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(seed=5, delay=0.02, jitter=0.01, loss=0.05)
    dice = random.Random(5)
    placed: set[str] = set()
    hung_up: set[str] = set()
    async with world(network=network) as here:
        for life in range(12):
            async with here.client() as client:
                for n in range(20):
                    sid = f"{life}-{n}"
                    if (await client.originate(dice.choice(["+15550100016", "+15550100017"]), sid)).call_sid:
                        placed.add(sid)
                    await trio.sleep(dice.uniform(0, 0.1))
                    if n % 7 == 6 and client.streams:
                        client.streams[-1].stream.stop()
                if life % 2:
                    with network.blackhole():
                        await trio.sleep(4)
                hung_up |= {event.call_sid for event in client.events if event.event_type == HANGUP}
            await trio.sleep(dice.uniform(0, 10))
        async with here.client() as client:
            await trio.sleep(3)
            hung_up |= {event.call_sid for event in client.events if event.event_type == HANGUP}
    assert len(placed) == 240
    assert hung_up == placed


# -- other people's streams -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "stopped"),
    [
        (b"\xff\xff\xff\x7f" + bytes(100), True),
        (encode_frame(4711, b"who knows"), False),
        (bytes(64), False),
        (encode_frame(MethodId.AudioFrame, b"\xff" * 50), False),
        (encode_frame(MethodId.StreamEvents, m.encode(m.CallEvent())), False),
        (audio(packet(0), 0, "nobody"), False),
        (audio(bytes(65_536), 0), False),
        (audio(packet(0), 0)[:50], False),
    ],
)
async def test_an_uplink_stream_that_goes_wrong_hurts_nobody_else(
    autojump_clock: MockClock, data: bytes, stopped: bool
) -> None:
    async with world() as here, here.client() as client:
        await client.answered(ECHO)
        stream = await client.connection.open_uni()
        await stream.send_all(data)
        await trio.sleep(0.5)
        if stopped:
            with pytest.raises(StreamReset):
                stream.write(b"more")
        else:
            stream.write(audio(packet(1), 1))
        stream.reset()
        await client.say(packet(2), 2)
        await trio.sleep(0.5)
        assert client.heard("call")[-1] == packet(2)


@given(
    data=st.lists(
        st.tuples(st.sampled_from(["uni", "bidi"]), st.binary(max_size=60), st.sampled_from(["fin", "reset", "open"])),
        max_size=8,
    )
)
@settings(max_examples=30, deadline=None)
def test_random_streams_do_not_touch_a_call(data: list[tuple[str, bytes, str]]) -> None:
    async def main() -> None:
        async with world() as here, here.client() as client:
            await client.answered(ECHO)
            for kind, content, end in data:
                opened = await (client.connection.open_uni() if kind == "uni" else client.connection.open_bidi())
                with contextlib.suppress(StreamReset):
                    await opened.send_all(content)
                    if end != "open":
                        (opened.finish if end == "fin" else opened.reset)()
            await client.say(packet(1), 0)
            await trio.sleep(0.5)
            assert client.heard("call") == [packet(1)]
            assert (await client.terminate()).error_code == ErrorCode.SUCCESS

    trio.run(main, clock=MockClock(autojump_threshold=0))


# -- the gateway as a whole -------------------------------------------------------------------------------------------


async def test_an_inbound_call_is_announced_answered_and_talked_to(autojump_clock: MockClock) -> None:
    async with world() as here, here.client() as client:
        sid = here.gateway.place_inbound_call(trunk_id="main", far_end="echo", call_sid="in")
        assert sid == "in"
        await client.wait_for(CREATE, "in")
        listed = await client.ask(m.GetIncomingCallsRequest(trunk_id="main"))
        assert [call.call_sid for call in listed.calls] == ["in"]
        assert (await client.ask(m.AnswerIncomingCallRequest(call_sid="in"))).error_code == ErrorCode.SUCCESS
        await client.wait_for(ANSWER, "in")
        await client.say(packet(3), 0, "in")
        await trio.sleep(0.5)
        assert client.heard("in") == [packet(3)]


async def test_a_campaign_and_a_playback_read_files_of_this_machine(autojump_clock: MockClock, tmp_path: Any) -> None:
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("to\n+15550100016\n+15550100017\n")
    fifo = tmp_path / "pipe.csv"
    os.mkfifo(fifo)
    template: dict[str, Any] = {
        "template_trunk_id": "main",
        "template_default_app": DialplanAction.ANSWER,
        "campaign_id": "c",
    }
    async with world() as here, here.client() as client:
        assert (await client.ask(m.BulkRequest(csv_url=numbers.as_uri(), **template))).loaded_numbers == 2
        assert (await client.wait_for(HANGUP, "c-00001")).q850_cause == 16
        assert (await client.wait_for(HANGUP, "c-00002")).q850_cause == 17
        for path in (fifo, tmp_path / "none.csv", tmp_path):
            assert (await client.ask(m.BulkRequest(csv_url=str(path), **template))).status.startswith("FAILED")


async def test_leaving_the_block_closes_connections_with_a_code_that_says_so(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(delay=0.01)

    async def stay(gateway: Gateway, task_status: trio.TaskStatus[RawClient]) -> None:
        async with open_raw_client(gateway, network.socket()) as client:
            await client.answered(TONE)
            task_status.started(client)
            await trio.sleep(2)
            with pytest.raises(ConnectionLost):
                await client.connection.open_bidi()

    async with trio.open_nursery() as nursery:
        async with open_gateway(socket=network.socket((HOST, PORT))) as gateway:
            client: RawClient = await nursery.start(stay, gateway)
        await trio.sleep(1)
        assert (client.connection.close_code, client.connection.close_reason) == (4, "shutting down")


async def test_cancelling_the_block_ends_the_gateway(autojump_clock: MockClock) -> None:
    network = MemoryNetwork(delay=0.01)
    with trio.move_on_after(5) as scope:
        async with (
            open_gateway(socket=network.socket((HOST, PORT))) as gateway,
            open_raw_client(gateway, network.socket()) as client,
        ):
            await client.answered(TONE)
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() < 10


async def test_an_error_in_the_block_comes_out_bare(autojump_clock: MockClock) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_gateway(socket=MemoryNetwork().socket((HOST, PORT))):
            raise ZeroDivisionError


async def test_one_seed_is_one_run(autojump_clock: MockClock) -> None:
    async def run() -> tuple[list[int], str]:
        async with world(epoch=1e9) as here, here.client() as client:
            sid = (await client.originate("+15550100130", "")).call_sid
            await client.wait_for(ANSWER, sid)
            for n in range(100):
                await client.say(packet(n), n, sid)
                await trio.sleep(0.02)
            return [frame.sequence_number for frame in client.frames(sid)], sid

    assert await run() == await run()


async def test_nothing_is_left_of_clients_that_have_gone(autojump_clock: MockClock) -> None:
    async with world() as here:
        for n in range(20):
            async with here.client(f"client-{n}") as client:
                await client.answered(ECHO, f"call-{n}")
        assert here.gateway.statistics().model.calls_open == 20
        await trio.sleep(400)
        statistics = here.gateway.statistics()
        assert (statistics.model.calls_open, statistics.model.timers) == (0, 0)
        assert (statistics.listener.connections, statistics.clock.members) == (0, 0)


async def test_real_udp() -> None:
    async with open_gateway(settings=GatewaySettings(ring=0.05)) as gateway:
        assert gateway.endpoint.startswith("quic://127.0.0.1:")
        async with open_raw_client(gateway, None) as client:
            await client.answered(ECHO)
            for n in range(10):
                await client.say(packet(n), n)
            with trio.fail_after(60):
                while len(client.heard("call")) < 10:
                    await trio.sleep(0.01)
            assert client.heard("call") == [packet(n) for n in range(10)]
            await client.terminate()
            await client.wait_for(HANGUP)
