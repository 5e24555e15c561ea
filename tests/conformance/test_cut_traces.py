"""Judges come to a judgement whatever a gateway kept to itself: a trace may lack anything, and may end anywhere."""

from __future__ import annotations

from agentao_trio import messages
from agentao_trio.conformance.requirements import REQUIREMENTS
from agentao_trio.conformance.trace import Observation, Trace, What
from agentao_trio.messages import CallEvent, MethodId
from tests.conformance.judging import bad, judged


def sort_of(line: Observation) -> tuple[object, ...]:
    """What a gateway might leave out altogether: events of one type, replies to one method, ends of streams …"""
    if line.what is What.FRAME and line.method == MethodId.StreamEvents:
        return line.what, messages.decode(CallEvent, line.data).event_type
    return line.what, line.method


def test_whatever_is_missing_from_a_trace_it_can_be_judged() -> None:
    report = judged(repeat=1, examples=1)
    assert bad(report) == {}
    cut = 0
    for result in report.results:
        for attempt in result.attempts[:1]:
            for sort in {sort_of(line) for line in attempt.trace if line.what is not What.MARK}:
                result.requirement.of(Trace(line for line in attempt.trace if sort_of(line) != sort))
                cut += 1
            for end in range(0, len(attempt.trace), max(1, len(attempt.trace) // 20)):
                result.requirement.of(attempt.trace[:end])
    assert cut > 1000


def test_nothing_is_concluded_from_nothing() -> None:
    for requirement in REQUIREMENTS.values():
        judgement = requirement.of(Trace([]))
        assert (judgement.findings, judgement.open_because != "") == ([], True), requirement.id
