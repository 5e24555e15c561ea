"""Ingest on any bytes and any mixture of calls, against a naive model with unbounded memory."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from agentao_trio import messages
from agentao_trio.callstate import CallOrder, Verdict
from agentao_trio.errors import RemoteProtocolError
from agentao_trio.events import EventRecord, Ingest
from agentao_trio.messages import CallEvent

SIDS = st.sampled_from(["a", "b", "", "\udcff", "long" * 30])
EVENTS = st.builds(
    CallEvent,
    call_sid=SIDS,
    event_type=st.integers(1, 5) | st.integers(-(2**31), 2**31 - 1),
    timestamp_ms=st.integers(0, 5),
    jitter_ms=st.floats(),
    estimated_mos=st.floats(),
)
BODIES = EVENTS.map(messages.encode)
NOISE = st.binary(max_size=60)


def feed(ingest: Ingest, bodies: list[bytes]) -> list[EventRecord]:
    records = []
    for moment, body in enumerate(bodies):
        try:
            records.append(ingest.event(body, at=float(moment)))
        except RemoteProtocolError:
            continue
    return records


@given(st.lists(EVENTS))
def test_each_call_is_judged_as_if_it_were_alone(events: list[CallEvent]) -> None:
    records = feed(Ingest(), [messages.encode(event) for event in events])
    orders: defaultdict[str, CallOrder] = defaultdict(CallOrder)
    assert [record.verdict for record in records] == [
        orders[event.call_sid].feed(event.event_type, event.timestamp_ms) for event in events
    ]
    assert [record.call_sid for record in records] == [event.call_sid for event in events]


@given(st.lists(BODIES | NOISE))
def test_records_are_numbered_without_holes_and_keep_their_bytes(bodies: list[bytes]) -> None:
    ingest = Ingest()
    records = feed(ingest, bodies)
    statistics = ingest.statistics()
    assert [record.number for record in records] == list(range(1, len(records) + 1))
    assert [record.raw for record in records] == [bodies[round(record.received_at)] for record in records]
    assert statistics.events + statistics.undecodable == len(bodies)
    for verdict, count in [
        (Verdict.IN_ORDER, statistics.in_order),
        (Verdict.DUPLICATE, statistics.duplicates),
        (Verdict.GAP, statistics.gaps),
        (Verdict.VIOLATION, statistics.violations),
        (Verdict.UNKNOWN, statistics.unknown),
    ]:
        assert count == [record.verdict for record in records].count(verdict)


@given(
    st.lists(st.tuples(BODIES | NOISE, st.floats(-1e6, 1e6))),
    st.floats(0, 1000),
    st.integers(1, 4),
)
def test_a_replay_of_the_records_gives_equal_records(
    arrivals: list[tuple[bytes, float]], memory: float, max_calls: int
) -> None:
    live, replay = Ingest(memory=memory, max_calls=max_calls), Ingest(memory=memory, max_calls=max_calls)
    records = []
    for body, moment in arrivals:
        try:
            records.append(live.event(body, at=moment))
        except RemoteProtocolError:
            continue
    assert [replay.event(record.raw, at=record.received_at) for record in records] == records


@given(st.lists(EVENTS), st.integers(1, 3))
def test_never_more_calls_are_remembered_than_allowed(events: list[CallEvent], max_calls: int) -> None:
    ingest = Ingest(max_calls=max_calls)
    for event in events:
        ingest.event(messages.encode(event), at=0.0)
        assert ingest.statistics().open_calls <= max_calls
        assert ingest.statistics().finished_calls <= max_calls
