"""Failing examples are shrunk where that costs nobody anything, and what was seen is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentao_trio.conformance.rehearsal import rehearse
from agentao_trio.conformance.report import trace_file
from agentao_trio.conformance.requirements import REQUIREMENTS
from agentao_trio.conformance.runner import Verdict
from agentao_trio.conformance.trace import Observation, Trace
from tests.conformance.judging import judged

#: A check that draws bytes of audio, and its fault: the payload ends at the first byte of zero.
CHECK, FAULT = "UPL-01", "payload_cut_at_nul"


def test_the_simulator_knows_short_examples_of_what_a_check_is_there_to_notice() -> None:
    examples = rehearse(CHECK, seed=3)
    assert examples
    assert examples == sorted(examples, key=lambda example: len(repr(example)))
    assert len(examples[0]) == 1


def test_an_example_that_is_known_spares_the_gateway_the_shrinking() -> None:
    tried: list[Any] = []

    def known(check: str, seed: int) -> list[Any]:
        tried.append((check, seed))
        return [["next"], ["next", "back"], ["next", "next", "back"]]

    check, fault = "UPL-03", "repeated_number_ends_audio"
    plain = judged(check, faults=(fault,), seed=3)
    report = judged(check, faults=(fault,), seed=3, rehearse=known)
    [result] = report.results
    assert (result.verdict, result.example) == (Verdict.FAIL, ["next", "back"])
    assert len(tried) == 1
    assert report.calls < plain.calls


def test_examples_that_break_nothing_here_change_nothing() -> None:
    [result] = judged(CHECK, faults=(FAULT,), seed=3, rehearse=lambda check, seed: [[1]]).results
    [plain] = judged(CHECK, faults=(FAULT,), seed=3).results
    assert (result.verdict, result.example) == (Verdict.FAIL, plain.example)


@pytest.mark.parametrize(("check", "fault"), [(CHECK, FAULT), ("EVT-01", "two_hangups")])
def test_the_trace_of_a_failure_judged_again_gives_the_same_findings(check: str, fault: str, tmp_path: Path) -> None:
    [result] = judged(check, faults=(fault,), seed=3).results
    path = tmp_path / "trace.jsonl"
    path.write_text(trace_file(result), encoding="utf-8")
    lines = path.read_text(encoding="utf-8").splitlines()
    again = Trace(Observation.from_json(json.loads(line)) for line in lines)
    assert tuple(REQUIREMENTS[check].of(again).findings) == result.findings
    assert result.findings
