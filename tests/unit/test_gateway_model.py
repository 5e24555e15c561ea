"""Placing calls, their events, who is told of them, and the timers behind it all."""

from __future__ import annotations

from typing import Any

import pytest

from agentao_trio import messages as m
from agentao_trio.audio import Codec
from agentao_trio.gateway.settings import GatewaySettings, Trunk
from agentao_trio.gateway.timers import Timers
from agentao_trio.messages import DialplanAction, ErrorCode
from tests.support.bench import (
    ANSWER,
    CREATE,
    ECHO,
    EPOCH,
    HANGUP,
    HOLD,
    NOTHING,
    RESUME,
    TONE,
    Bench,
    packet,
)

# -- placing a call ----------------------------------------------------------------------------------------------------


def test_the_clients_call_sid_is_kept_and_a_missing_one_assigned() -> None:
    bench = Bench()
    assert bench.originate(ECHO, "mine").call_sid == "mine"
    assigned = bench.originate(ECHO, "").call_sid
    assert bench.originate(ECHO, "").call_sid != assigned
    assert bench.types(assigned) == [CREATE]


def test_a_call_sid_is_dialled_once_even_after_its_call_has_ended() -> None:
    bench = Bench()
    bench.originate("+15550100017")
    assert bench.originate(ECHO).error_code == ErrorCode.ERR_VALIDATION_FAILED
    bench.run(1)
    assert bench.originate(ECHO).error_code == ErrorCode.ERR_VALIDATION_FAILED
    assert bench.types() == [CREATE, HANGUP]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"default_app": DialplanAction.TRANSFER, "default_app_args": ECHO}, ErrorCode.ERR_VALIDATION_FAILED),
        ({"default_app": DialplanAction.SUPERVISE}, ErrorCode.ERR_VALIDATION_FAILED),
        ({"default_app": 99}, ErrorCode.ERR_VALIDATION_FAILED),
        ({"default_app": -1}, ErrorCode.ERR_VALIDATION_FAILED),
        ({"default_app": DialplanAction.PLAYBACK, "default_app_args": "relative.wav"}, ErrorCode.ERR_VALIDATION_FAILED),
        ({"default_app": DialplanAction.PLAYBACK, "default_app_args": "/none.wav"}, ErrorCode.ERR_VALIDATION_FAILED),
        ({"default_app": DialplanAction.PLAYBACK, "default_app_args": "/etc/passwd"}, ErrorCode.ERR_VALIDATION_FAILED),
        ({"max_duration_ms": -1}, ErrorCode.ERR_VALIDATION_FAILED),
        ({"call_sid": "x" * 257}, ErrorCode.ERR_VALIDATION_FAILED),
        ({"client_id": "x" * 257}, ErrorCode.ERR_VALIDATION_FAILED),
        ({"trunk_id": "x" * 257}, ErrorCode.ERR_VALIDATION_FAILED),
        ({"trunk_id": ""}, ErrorCode.ERR_INVALID_TRUNK),
        ({"trunk_id": "invalid-trunk"}, ErrorCode.ERR_INVALID_TRUNK),
        ({"to": "\udcff\x00" * 10_000}, ErrorCode.ERR_INVALID_DESTINATION),
    ],
)
def test_what_cannot_be_placed_is_refused_with_its_code_and_leaves_no_trace(fields: dict[str, Any], code: int) -> None:
    bench = Bench()
    reply = bench.originate(**{"to": ECHO, **fields})
    assert reply.error_code == code
    assert reply.error_message.isprintable()
    assert len(reply.error_message) < 400
    bench.run(1)
    assert bench.events[bench.peer] == []
    assert bench.model.statistics().calls_open == 0


def test_configured_trunks_belong_to_their_tenants() -> None:
    settings = GatewaySettings(trunks={"ours": Trunk(codec=Codec.PCMA), "theirs": Trunk(tenant="other")})
    bench = Bench(settings)
    for trunk_id in ("theirs", "neither", ""):
        assert bench.originate(ECHO, trunk_id=trunk_id).error_code == ErrorCode.ERR_INVALID_TRUNK
    assert bench.originate(ECHO, trunk_id="ours").error_code == ErrorCode.SUCCESS
    bench.run(0.3)
    assert (bench.last().trunk_id, bench.last().codec) == ("ours", "PCMA")


def test_too_many_calls_per_second_are_rate_limited() -> None:
    bench = Bench(GatewaySettings(calls_per_second=3))
    codes = [bench.originate(ECHO, f"{n}").error_code for n in range(5)]
    assert codes == [0, 0, 0, ErrorCode.ERR_RATE_LIMITED, ErrorCode.ERR_RATE_LIMITED]
    bench.run(1)
    assert bench.originate(ECHO, "later").error_code == 0


def test_too_many_open_calls_break_the_circuit() -> None:
    bench = Bench(GatewaySettings(max_calls=2))
    codes = [bench.originate(ECHO, f"{n}").error_code for n in range(3)]
    assert codes == [0, 0, ErrorCode.ERR_CIRCUIT_BREAKER]
    bench.ask(m.TerminateRequest(call_sid="0"))
    assert bench.originate(ECHO, "4").error_code == 0


def test_the_maximum_duration_is_enforced() -> None:
    bench = Bench()
    bench.answered(ECHO, max_duration_ms=2_000)
    bench.run(1.9)
    assert bench.types()[-1] == ANSWER
    bench.run(0.2)
    assert bench.types()[-1] == HANGUP
    assert bench.last().duration_seconds == 2


@pytest.mark.parametrize(
    ("app", "args", "events"),
    [
        (DialplanAction.HANGUP, "", [CREATE, ANSWER, HANGUP]),
        (DialplanAction.PARK, "", [CREATE, ANSWER]),
        (DialplanAction.MUSIC_ON_HOLD, "", [CREATE, ANSWER, HOLD]),
        (DialplanAction.AI_BIDIRECTIONAL_STREAM, "agent-1", [CREATE, ANSWER]),
        (DialplanAction.UNPARK_AND_BRIDGE, "nobody", [CREATE, ANSWER, HANGUP]),
    ],
)
def test_the_default_app_is_carried_out_on_answer(app: int, args: str, events: list[int]) -> None:
    bench = Bench()
    bench.originate(ECHO, default_app=app, default_app_args=args)
    bench.run(1)
    assert bench.types() == events


def test_loopback_echoes_whoever_was_called_unless_it_is_switched_off() -> None:
    bench = Bench()
    bench.answered(NOTHING, default_app=DialplanAction.LOOPBACK)
    bench.say(packet(1))
    assert bench.heard() == [packet(1)]
    strict = Bench(GatewaySettings(loopback=False))
    assert strict.originate(ECHO, default_app=DialplanAction.LOOPBACK).error_code == ErrorCode.ERR_VALIDATION_FAILED


# -- events ------------------------------------------------------------------------------------------------------------


def test_events_carry_what_the_protocol_says_and_times_in_order() -> None:
    bench = Bench()
    bench.answered(ECHO, call_from="+15550109999")
    for n in range(50):
        bench.say(packet(n))
    bench.dialplan(DialplanAction.HOLD)
    bench.run(1)
    bench.dialplan(DialplanAction.UNHOLD)
    bench.ask(m.TerminateRequest(call_sid="call"))
    events = bench.events[bench.peer]
    assert [event.event_type for event in events] == [CREATE, ANSWER, HOLD, RESUME, HANGUP]
    for event in events:
        assert (event.call_sid, event.trunk_id, event.tenant_id, event.client_id) == ("call", "main", "default", "me")
        assert event.start_timestamp_ms == events[0].timestamp_ms
    stamps = [event.timestamp_ms for event in events]
    assert stamps == sorted(set(stamps))
    assert abs(stamps[0] - (EPOCH + 100) * 1000) < 5
    created, answered, hold, _, hangup = events
    assert (created.status, created.answer_timestamp_ms, created.codec) == ("INITIATED", 0, "")
    assert (answered.status, answered.codec) == ("ANSWERED", "PCMU")
    assert hold.end_timestamp_ms == 0
    assert hangup.start_timestamp_ms <= hangup.answer_timestamp_ms <= hangup.end_timestamp_ms <= hangup.timestamp_ms
    assert (hangup.status, hangup.q850_cause, hangup.duration_seconds) == ("COMPLETED", 16, 2)
    assert (hangup.packets_sent, hangup.packets_received, hangup.bytes_sent) == (50, 50, 8000)
    assert hangup.packets_lost == 0
    assert hangup.jitter_ms < 0.001
    assert 4.4 < hangup.estimated_mos < 4.5


def test_repeated_events_of_one_instant_have_different_timestamps() -> None:
    bench = Bench()
    bench.answered(ECHO)
    for _ in range(5):
        bench.dialplan(DialplanAction.HOLD)
        bench.dialplan(DialplanAction.UNHOLD)
    stamps = [event.timestamp_ms for event in bench.events[bench.peer]]
    assert stamps == sorted(set(stamps))


def test_loss_shows_in_the_account_and_in_the_mos() -> None:
    bench = Bench()
    bench.answered("+15550100110")
    for n in range(0, 400, 2):
        bench.say(packet(n), sequence_number=n)
    bench.ask(m.TerminateRequest(call_sid="call"))
    account = bench.last()
    assert account.packets_received == 200
    assert account.packets_lost == 199 + (200 - account.packets_sent)
    assert 1.0 <= account.estimated_mos < 3.0


def test_end_of_stream_precedes_the_hangup_and_continues_the_numbering() -> None:
    bench = Bench()
    bench.answered(TONE)
    bench.run(0.1)
    bench.ask(m.TerminateRequest(call_sid="call"))
    numbers = [frame.sequence_number for frame in bench.frames()]
    assert numbers == list(range(len(numbers)))
    assert [frame.end_of_stream for frame in bench.frames()].count(True) == 1
    assert bench.frames()[-1].end_of_stream


def test_a_call_that_was_never_answered_has_no_audio_not_even_its_end() -> None:
    bench = Bench()
    bench.originate("+15550100019")
    bench.say(packet(1))
    bench.run(4)
    assert bench.frames() == []


def test_terminating_twice_is_an_error_and_one_hangup() -> None:
    bench = Bench()
    bench.answered(ECHO)
    assert bench.ask(m.TerminateRequest(call_sid="call")).error_code == ErrorCode.SUCCESS
    again = bench.ask(m.TerminateRequest(call_sid="call"))
    assert (again.error_code, again.call_sid) == (ErrorCode.ERR_VALIDATION_FAILED, "call")
    assert bench.ask(m.TerminateRequest(call_sid="never")).error_code == ErrorCode.ERR_VALIDATION_FAILED
    assert bench.types().count(HANGUP) == 1


# -- subscriptions -----------------------------------------------------------------------------------------------------


def test_events_go_to_the_client_id_the_call_names_or_to_that_of_its_connection() -> None:
    bench = Bench()
    other = bench.connect("other")
    bench.originate(ECHO, "mine")
    bench.originate(ECHO, "for-other", client_id="other")
    assert (bench.types("mine"), bench.types("mine", other)) == ([CREATE], [])
    assert (bench.types("for-other"), bench.types("for-other", other)) == ([], [CREATE])


def test_events_of_the_time_away_are_kept_in_order_for_whoever_comes_back() -> None:
    bench = Bench()
    bench.originate("+15550100016")
    bench.disconnect(bench.peer)
    bench.run(5)
    back = bench.connect("me")
    assert bench.types(peer=back) == [ANSWER, HANGUP]
    assert bench.types() == [CREATE]


def test_events_are_kept_for_120_seconds_and_no_longer() -> None:
    bench = Bench()
    bench.disconnect(bench.peer)
    bench.originate("+15550100017", client_id="me", peer=bench.connect("another"))
    bench.run(100)
    assert bench.types(peer=bench.connect("me")) == [CREATE, HANGUP]

    bench = Bench()
    bench.disconnect(bench.peer)
    bench.originate("+15550100017", client_id="me", peer=bench.connect("another"))
    bench.run(130)
    assert bench.types(peer=bench.connect("me")) == []
    assert bench.model.statistics().events_dropped == 2


def test_the_newest_connection_with_a_client_id_wins() -> None:
    bench = Bench()
    bench.answered(TONE)
    newer = bench.connect("me")
    before = len(bench.frames())
    bench.run(0.1)
    bench.dialplan(DialplanAction.HOLD)
    assert len(bench.frames()) == before
    assert len(bench.frames(peer=newer)) == 5
    assert bench.types(peer=newer) == [HOLD]
    assert bench.types() == [CREATE, ANSWER]


def test_subscribing_again_on_the_same_connection_repeats_nothing() -> None:
    bench = Bench()
    bench.answered(ECHO)
    bench.ask(m.EventStreamRequest(client_id="me"))
    assert bench.types() == [CREATE, ANSWER]


def test_a_request_that_overtakes_its_subscription_loses_nothing() -> None:
    bench = Bench()
    early = bench.connect()
    bench.originate(TONE, "early", early)
    bench.run(0.3)
    assert bench.events[early] == []
    bench.ask(m.EventStreamRequest(client_id="late"), early)
    bench.run(0.1)
    assert [event.client_id for event in bench.events[early]] == ["late", "late"]
    assert bench.types("early", early) == [CREATE, ANSWER]
    assert bench.frames("early", early)


def test_two_tenants_with_one_client_id_share_nothing() -> None:
    bench = Bench()
    stranger = bench.connect("me", tenant="other")
    bench.answered(ECHO)
    assert bench.events[stranger] == []
    for request in (
        m.TerminateRequest(call_sid="call"),
        m.ExecuteDialplanRequest(call_sid="call", action=DialplanAction.HOLD),
        m.SuperviseSubscribeRequest(call_sid="call"),
        m.AllocateWtRequest(call_sid="call"),
    ):
        foreign = bench.ask(request, stranger)
        unknown = bench.ask(type(request)(call_sid="none"), stranger)
        assert foreign.error_message == unknown.error_message.replace("none", "call")
        assert foreign.status == "FAILED"
    bench.say(packet(1), peer=stranger)
    assert bench.frames() == []
    assert bench.model.statistics().frames_for_unknown_calls == 1


def test_a_call_whose_agent_stays_away_ends_after_the_window() -> None:
    bench = Bench()
    bench.answered(TONE)
    bench.disconnect(bench.peer)
    bench.run(119)
    assert bench.model.statistics().calls_open == 1
    bench.run(2)
    assert bench.model.statistics().calls_open == 0
    back = bench.connect("me")
    assert bench.last(peer=back).q850_cause == 41


def test_coming_back_starts_the_window_anew() -> None:
    bench = Bench()
    bench.answered(ECHO)
    bench.disconnect(bench.peer)
    bench.run(100)
    bench.disconnect(bench.connect("me"))
    bench.run(100)
    assert bench.model.statistics().calls_open == 1
    bench.run(21)
    assert bench.model.statistics().calls_open == 0


def test_audio_of_the_time_away_is_a_gap_in_the_numbering() -> None:
    bench = Bench()
    bench.answered(TONE)
    bench.run(0.1)
    last = bench.frames()[-1].sequence_number
    bench.disconnect(bench.peer)
    bench.run(1)
    back = bench.connect("me")
    bench.run(0.02)
    assert bench.frames(peer=back)[0].sequence_number == last + 51


def test_client_ids_and_their_events_are_bounded() -> None:
    bench = Bench(GatewaySettings(max_clients=3, max_events=5), client_id="me")
    for n in range(10):
        bench.originate("+15550100017", f"{n}", client_id="away")
    bench.run(1)
    assert bench.model.statistics().events_dropped == 15
    assert bench.types("9", bench.connect("away")) == [HANGUP]
    for n in range(10):
        bench.disconnect(bench.connect(f"client-{n}"))
    assert bench.model.statistics().subscriptions <= 3
    assert bench.model.statistics().subscriptions_forgotten >= 9


def test_a_client_that_is_there_is_forgotten_when_nobody_is_away() -> None:
    bench = Bench(GatewaySettings(max_clients=2), client_id="me")
    second, third = bench.connect("second"), bench.connect("third")
    assert bench.model.statistics().subscriptions_forgotten == 1
    bench.originate(ECHO, "hers", client_id="third")
    bench.originate(ECHO, "his", client_id="second")
    bench.run(0.3)
    assert [bench.types(sid, peer) for sid, peer in (("hers", third), ("his", second))] == [[CREATE, ANSWER]] * 2


def test_one_connection_listens_for_so_many_client_ids() -> None:
    bench = Bench(client_id="client-0")
    for n in range(1, 17):
        bench.ask(m.EventStreamRequest(client_id=f"client-{n}"))
    bench.originate(ECHO, "first", client_id="client-0")
    bench.originate(ECHO, "last", client_id="client-16")
    bench.run(0.3)
    assert (bench.types("first"), bench.types("last")) == ([], [CREATE, ANSWER])
    assert bench.model.statistics().subscriptions_forgotten == 1


# -- timers ------------------------------------------------------------------------------------------------------------


def test_timers_run_in_order_of_time_then_of_making() -> None:
    timers, ran = Timers(), list[str]()
    timers.at(2, lambda now: ran.append("late"))
    timers.at(1, lambda now: ran.append("early"))
    timers.at(1, lambda now: ran.append("early, made later"))
    cancelled = timers.at(1, lambda now: ran.append("never"))
    cancelled.cancel()
    cancelled.cancel()
    assert (timers.next(), len(timers)) == (1, 3)
    timers.run(1.5)
    assert ran == ["early", "early, made later"]
    assert timers.next() == 2


def test_cancelled_timers_do_not_pile_up() -> None:
    timers = Timers()
    for n in range(10_000):
        timers.at(1e9 + n, lambda now: None).cancel()
    assert len(timers) == 0
    assert len(timers._heap) < 1_000
