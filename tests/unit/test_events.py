"""Ingest by example: numbers, verdicts, replays, and memory that does not grow."""

from __future__ import annotations

import math
import tracemalloc

import attrs
import pytest

from agentao_trio import events, messages
from agentao_trio.callstate import Verdict
from agentao_trio.errors import RemoteProtocolError
from agentao_trio.events import EventRecord, Ingest
from agentao_trio.messages import CallEvent, EventType

CREATE, ANSWER, HANGUP = EventType.CHANNEL_CREATE, EventType.CHANNEL_ANSWER, EventType.CHANNEL_HANGUP_COMPLETE


def body(call_sid: str = "sid-1", event_type: int = CREATE, timestamp_ms: int = 0, **fields: object) -> bytes:
    event = attrs.evolve(
        CallEvent(call_sid=call_sid, event_type=event_type, timestamp_ms=timestamp_ms),
        **fields,  # type: ignore[arg-type]
    )
    return messages.encode(event)


def test_each_event_becomes_a_numbered_record() -> None:
    ingest = Ingest()
    raw = body(event_type=CREATE, timestamp_ms=1_768_151_653_742, status="RINGING")
    first = ingest.event(raw, at=12.5)
    assert first == EventRecord(
        number=1, call_sid="sid-1", event=first.event, raw=raw, verdict=Verdict.IN_ORDER, received_at=12.5
    )
    assert first.event.status == "RINGING"
    second = ingest.event(body("sid-2", HANGUP), at=12.6)
    assert (second.number, second.call_sid, second.verdict) == (2, "sid-2", Verdict.GAP)


def test_calls_are_judged_apart() -> None:
    ingest = Ingest()
    verdicts = [
        ingest.event(body(call_sid, event_type), at=0.0).verdict
        for event_type in (CREATE, ANSWER, HANGUP)
        for call_sid in ("a", "b", "")
    ]
    assert verdicts == [Verdict.IN_ORDER] * 9


@pytest.mark.parametrize("event_type", [0, 6, -1])
def test_an_event_of_unknown_type_is_recorded_as_such(event_type: int) -> None:
    ingest = Ingest()
    record = ingest.event(body(event_type=event_type), at=0.0)
    assert (record.number, record.verdict, record.event.event_type) == (1, Verdict.UNKNOWN, event_type)
    assert ingest.statistics().open_calls == 0


@pytest.mark.parametrize("wrong", [b"", b"\x00" * 5, b"\xff" * 64, body()[:20]])
def test_a_body_that_cannot_be_decoded_is_counted_and_spends_no_number(wrong: bytes) -> None:
    ingest = Ingest()
    with pytest.raises(RemoteProtocolError):
        ingest.event(wrong, at=0.0)
    assert ingest.event(body(), at=0.0).number == 1
    assert ingest.statistics().undecodable == 1


@pytest.mark.parametrize("moment", [math.nan, math.inf, -math.inf])
def test_a_time_that_is_none_is_refused(moment: float) -> None:
    with pytest.raises(ValueError, match="cannot be received"):
        Ingest().event(body(), at=moment)


def test_statistics_count_every_verdict() -> None:
    ingest = Ingest()
    for event_type, timestamp_ms in [(CREATE, 1), (CREATE, 1), (CREATE, 2), (HANGUP, 3), (HANGUP, 3), (9, 4)]:
        ingest.event(body("a", event_type, timestamp_ms), at=0.0)
    ingest.event(body("b", ANSWER), at=0.0)
    statistics = ingest.statistics()
    assert (statistics.events, statistics.in_order, statistics.duplicates) == (7, 2, 2)
    assert (statistics.gaps, statistics.violations, statistics.unknown) == (1, 1, 1)
    assert (statistics.open_calls, statistics.finished_calls) == (1, 1)


@pytest.mark.parametrize("event", [*events.ClientEvent, *events.CallEvent])
def test_what_a_handler_is_for_can_be_written_as_a_text_or_as_a_constant(event: events.CallEvent) -> None:
    assert event == event.name
    assert getattr(events, event.name) is event


# -- replays --------------------------------------------------------------------------------------------------------


def test_a_replayed_hangup_is_recognised_while_the_call_is_remembered() -> None:
    ingest = Ingest(memory=300.0)
    hangup = body(event_type=HANGUP, timestamp_ms=5)
    ingest.event(hangup, at=1.0)
    assert ingest.event(hangup, at=301.0).verdict is Verdict.DUPLICATE
    # Each replay renews the memory: what the gateway has just sent it may send again.
    assert ingest.event(hangup, at=601.0).verdict is Verdict.DUPLICATE
    assert ingest.event(hangup, at=901.1).verdict is Verdict.GAP


@pytest.mark.parametrize("call_sid", ["sid-1", "x" * 1000])
def test_a_call_has_ended_from_its_hangup_until_that_is_forgotten(call_sid: str) -> None:
    ingest = Ingest()
    for event_type, has_ended in [(CREATE, False), (HANGUP, True), (ANSWER, True)]:
        ingest.event(body(call_sid, event_type), at=10.0)
        assert ingest.has_ended(call_sid) is has_ended
    ingest.event(body("another"), at=311.0)
    assert not ingest.has_ended(call_sid)


def test_a_finished_call_is_remembered_for_five_minutes() -> None:
    hangup = body(event_type=HANGUP, timestamp_ms=5)
    for silence, verdict in [(300.0, Verdict.DUPLICATE), (300.1, Verdict.GAP)]:
        ingest = Ingest()
        ingest.event(hangup, at=0.0)
        assert ingest.event(hangup, at=silence).verdict is verdict


def test_a_stored_run_replays_to_equal_records() -> None:
    bodies = [
        body("a", CREATE, 1),
        body("a", HANGUP, 2, jitter_ms=math.nan, estimated_mos=-math.inf),
        body("\udcff\udcfe", 0, 3),
        body("b" * 1000, CREATE, 4),
        body("a", HANGUP, 2, jitter_ms=math.nan, estimated_mos=-math.inf),
    ]
    live, replay = Ingest(), Ingest()
    stored = []
    for moment, raw in enumerate(bodies):
        stored.append(live.event(raw, at=float(moment)))
        with pytest.raises(RemoteProtocolError):
            live.event(b"noise", at=moment + 1000.0)
    assert [replay.event(record.raw, at=record.received_at) for record in stored] == stored


def test_sids_are_told_apart_byte_by_byte() -> None:
    ingest = Ingest()
    sids = ["é", "e\u0301", "\udcff", "\udcfe", "\x00", "", "x" * 70, "x" * 71, "\udcff" * 70, "\udcfe" * 70]
    assert {ingest.event(body(sid, CREATE), at=0.0).verdict for sid in sids} == {Verdict.IN_ORDER}
    assert {ingest.event(body(sid, CREATE), at=0.0).verdict for sid in sids} == {Verdict.DUPLICATE}


# -- bounds ---------------------------------------------------------------------------------------------------------


def test_of_too_many_finished_calls_the_longest_silent_is_forgotten() -> None:
    ingest = Ingest(max_calls=2)
    for call_sid in ("a", "b", "a", "c"):
        ingest.event(body(call_sid, HANGUP), at=0.0)
    statistics = ingest.statistics()
    assert (statistics.finished_calls, statistics.finished_calls_forgotten) == (2, 1)
    assert ingest.event(body("a", HANGUP), at=0.0).verdict is Verdict.DUPLICATE
    assert ingest.event(body("b", HANGUP), at=0.0).verdict is Verdict.GAP


def test_calls_without_a_hangup_are_bounded_too_and_do_not_displace_finished_ones() -> None:
    ingest = Ingest(max_calls=10)
    ingest.event(body("done", HANGUP), at=0.0)
    for number in range(1000):
        ingest.event(body(f"open-{number}", CREATE), at=0.0)
    statistics = ingest.statistics()
    assert (statistics.open_calls, statistics.open_calls_forgotten) == (10, 990)
    assert (statistics.finished_calls, statistics.finished_calls_forgotten) == (1, 0)


def test_time_forgets_finished_calls_without_counting_them() -> None:
    ingest = Ingest(memory=10.0)
    ingest.event(body("a", HANGUP), at=0.0)
    ingest.event(body("b", CREATE), at=0.0)
    ingest.event(body("c", CREATE), at=10.1)
    statistics = ingest.statistics()
    assert (statistics.open_calls, statistics.finished_calls, statistics.finished_calls_forgotten) == (2, 0, 0)


def allocated_by(ingest: Ingest, bodies: list[bytes]) -> int:
    tracemalloc.start()
    try:
        for raw in bodies:
            ingest.event(raw, at=0.0)
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_a_finished_call_costs_less_than_a_kilobyte() -> None:
    calls = [
        body(f"{number:08}-f0f5-44f3-b044-5a3577e18a0a", event_type, 1_768_151_653_742 + event_type)
        for number in range(500)
        for event_type in (CREATE, ANSWER, HANGUP)
    ]
    assert allocated_by(Ingest(), calls) / 500 < 1000


def test_huge_sids_are_not_kept() -> None:
    huge = [body(f"{number}" + "x" * 100_000, CREATE) for number in range(20)]
    assert allocated_by(Ingest(), huge) < 50_000
