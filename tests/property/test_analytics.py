"""Figures over random histories, against counting by hand."""

from __future__ import annotations

import math
import statistics
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentao_trio.analytics import Analysis, Distribution
from agentao_trio.records import Record, RecordKind
from agentao_trio.summaries import summarised

VALUES = st.floats(min_value=0, max_value=1e7, allow_nan=False)


@given(st.lists(VALUES, min_size=1), st.floats(min_value=0.01, max_value=1.0))
def test_a_quantile_is_right_within_a_little_over_a_percent(values: list[float], share: float) -> None:
    distribution = Distribution()
    for value in values:
        distribution.add(value)
    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    assert distribution.quantile(share) == pytest.approx(exact, rel=0.011, abs=1e-5)
    spread = distribution.spread()
    assert (spread.count, spread.least, spread.most) == (len(values), min(values), max(values))
    assert spread.mean == pytest.approx(statistics.fmean(values))
    assert sum(count for _, count in distribution.buckets()) == len(values)


def test_values_that_are_no_numbers_are_left_out() -> None:
    distribution = Distribution()
    for value in (math.nan, math.inf, -1.0):
        distribution.add(value)
    assert (distribution.count, distribution.quantile(0.5)) == (1, 0.0)
    assert Distribution().quantile(0.5) is None


@st.composite
def histories(draw: st.DrawFn) -> list[Record]:
    """Interleaved calls, each begun and, mostly, answered and over."""
    scripts: list[list[tuple[str, RecordKind, dict[str, object]]]] = []
    for number in range(draw(st.integers(0, 6))):
        sid = f"call-{number}"
        steps: list[tuple[str, RecordKind, dict[str, object]]] = [
            (sid, RecordKind.CALL, {"phase": "began", "direction": draw(st.sampled_from(["inbound", "outbound"]))})
        ]

        if draw(st.booleans()):  # it bears another name for its first moments; some of it may be told under both
            early = f"early-{number}"
            steps = [(early, *steps[0][1:]), (early, RecordKind.TOOL, {"phase": "requested"})]
            steps += [(sid, RecordKind.CONVERSATION, {})] * draw(st.integers(0, 1))
            steps.append((sid, RecordKind.CALL, {"phase": "renamed", "call_sid_before": early}))

        def event(kind: str, sid: str = sid, **fields: object) -> tuple[str, RecordKind, dict[str, object]]:
            return sid, RecordKind.EVENT, {"verdict": "in_order", "event": {"event_type": kind, **fields}}

        steps.append(event("CHANNEL_CREATE"))
        if draw(st.booleans()):
            steps.append(event("CHANNEL_ANSWER"))
            steps += [(sid, RecordKind.TURN, {"barge_in": draw(st.booleans()), "first_audio_seconds": 0.3})]
        if draw(st.booleans()):
            steps.append(event("CHANNEL_HANGUP_COMPLETE", q850_cause=draw(st.sampled_from([16, 17, 19]))))
            steps.append((sid, RecordKind.CALL, {"phase": "over", "how": "hangup"}))
            steps += [(sid, RecordKind.TRANSCRIPT, {"phase": "final"})] * draw(st.integers(0, 1))
        elif draw(st.booleans()):  # over here alone; it may go on, and the gateway may tell how it ended, or not
            how = draw(st.sampled_from(["left", "lost", "overrun", "refused"]))
            steps.append((sid, RecordKind.CALL, {"phase": "over", "how": how}))
            if how != "refused":
                steps += [event(draw(st.sampled_from(["CHANNEL_ANSWER", "CHANNEL_HOLD"])))] * draw(st.integers(0, 1))
                steps += [event("CHANNEL_HANGUP_COMPLETE", q850_cause=16)] * draw(st.integers(0, 1))
        scripts.append(steps)
    records: list[Record] = []
    at = 1_000_000.0
    while waiting := [script for script in scripts if script]:
        sid, kind, data = draw(st.sampled_from(waiting)).pop(0)
        at += draw(st.sampled_from([0.0, 0.5, 4000.0]))
        records.append(Record(number=len(records) + 1, at=at, call_sid=sid, kind=kind, data=data))
    return records


@given(histories())
def test_figures_agree_with_the_summaries_of_the_same_records(records: list[Record]) -> None:
    analysis = Analysis()
    for record in records:
        analysis.feed(record)
    figures = analysis.figures()
    calls = summarised(records).values()
    over = [call for call in calls if call.ended_at is not None]
    assert figures.records == len(records)
    assert (figures.calls, figures.open) == (len(calls), len(calls) - len(over))
    assert figures.inbound == sum(call.direction == "inbound" for call in calls)
    assert figures.answered == sum(call.answered_at is not None for call in over)
    assert figures.answer_rate == (figures.answered / len(over) if over else None)
    causes = Counter(call.q850_cause for call in over if call.q850_cause is not None)
    assert {cause: count for cause, (_, count) in figures.by_cause.items()} == causes
    assert figures.by_status == Counter(call.status for call in over)
    assert not any(call.status == "canceled" and call.answered_at is not None for call in calls)
    talked = [call.seconds_talked for call in over if call.seconds_talked is not None]
    assert (figures.seconds_talked.count, figures.seconds_talked.most) == (len(talked), max(talked, default=None))
    assert figures.barge_ins == sum(bool(r.data.get("barge_in")) for r in records)
    assert figures.seconds_to_answer.count == figures.answered
    waited = [call.seconds_to_answer for call in over if call.seconds_to_answer is not None]
    assert figures.seconds_to_answer.most == max(waited, default=None)
    assert sum(begun for begun, _ in figures.by_hour.values()) == len(over)


@given(histories())
def test_looking_at_the_figures_in_between_changes_nothing(records: list[Record]) -> None:
    at_once, step_by_step = Analysis(), Analysis()
    for record in records:
        at_once.feed(record)
    for record in records:
        step_by_step.feed(record)
        step_by_step.figures()
    assert step_by_step.figures() == at_once.figures()


def test_a_command_is_in_vain_where_it_failed_and_not_where_an_event_was_ahead_of_its_reply() -> None:
    analysis = Analysis()
    for number, phase in enumerate(["sent", "answered", "abandoned", "refused", "timed_out", "failed"]):
        data = {"method": "Terminate", "phase": phase, "seconds": 0.1}
        analysis.feed(Record(number=number + 1, at=0.0, call_sid="", kind=RecordKind.COMMAND, data=data))
    terminate = analysis.figures().commands["Terminate"]
    assert (terminate.count, terminate.failed) == (5, 3)


def test_of_many_calls_whose_end_was_never_told_all_count_and_few_are_kept() -> None:
    analysis = Analysis()
    for number in range(3000):
        data = {"phase": "over", "how": "lost"}
        analysis.feed(Record(number=number + 1, at=0.0, call_sid=str(number), kind=RecordKind.CALL, data=data))
    assert analysis.figures().by_status == {"lost": 3000}
    assert len(analysis._untold) == 1000


def test_a_thousand_tools_are_two_hundred_rows() -> None:
    analysis = Analysis()
    for number in range(1000):
        data = {"name": f"tool-{number}", "phase": "done", "seconds": 0.1}
        analysis.feed(Record(number=number + 1, at=0.0, call_sid="", kind=RecordKind.TOOL, data=data))
    tools = analysis.figures().tools
    assert len(tools) == 201
    assert sum(each.count for each in tools.values()) == 1000
