"""The judge is judged: every fault of the embedded gateway is noticed, and a gateway without any is left in peace."""

from __future__ import annotations

import pytest

from agentao_trio.conformance.programmes import PROGRAMMES
from agentao_trio.conformance.requirements import REQUIREMENTS, Level
from agentao_trio.conformance.runner import Verdict
from agentao_trio.gateway import GatewaySettings
from agentao_trio.gateway.faults import FAULTS, describe
from agentao_trio.gateway.server import open_gateway
from tests.conformance.judging import bad, judged

#: Who has to notice which fault.
OWNED = sorted((fault, check) for check, programme in PROGRAMMES.items() for fault in programme.faults)

#: Faults that no check was written for, and checks that notice them.
NOTICED_BY = {
    "answer_missing_on_second_call": "EVT-03 EVT-10 EVT-11",
    "answer_time_moves": "EVT-06",
    "answer_time_without_answer": "EVT-02 EVT-06 EVT-13",
    "bytes_are_packets": "EVT-12",
    "bytes_sent_zero": "EVT-12",
    "call_sid_cut": "RPC-02",
    "call_sid_in_capitals": "RPC-02",
    "call_sid_with_nul": "RPC-02",
    "cause_always_16": "EVT-02",
    "cause_in_every_event": "EVT-05",
    "cause_is_sip_status": "EVT-05",
    "cause_swapped_with_duration": "EVT-11",
    "client_id_missing_at_hangup": "SUB-02",
    "client_id_trimmed": "SUB-02",
    "codec_missing_in_events": "DWN-03",
    "codec_of_another": "DWN-03",
    "create_repeated_after_reconnect": "RPL-03",
}


@pytest.mark.parametrize(("fault", "check"), OWNED)
def test_a_fault_is_noticed_by_the_check_that_owns_it(fault: str, check: str) -> None:
    report = judged(check, faults=(fault,))
    assert check in bad(report), [(each.verdict, each.reason) for each in report.results]


@pytest.mark.parametrize("fault", sorted(NOTICED_BY))
def test_a_fault_that_no_check_was_written_for_is_noticed(fault: str) -> None:
    assert bad(judged(*NOTICED_BY[fault].split(), faults=(fault,)))


def test_every_fault_has_somebody_to_notice_it() -> None:
    assert FAULTS.keys() == {fault for fault, _ in OWNED} | NOTICED_BY.keys()


def test_every_must_owns_a_fault_that_trips_it() -> None:
    musts = {each.id for each in REQUIREMENTS.values() if each.level is Level.MUST}
    assert musts <= {check for _, check in OWNED}


def test_every_fault_says_in_a_line_what_it_does() -> None:
    for name in FAULTS:
        assert describe(name).endswith(".")
        assert "\n" not in describe(name)


async def test_a_fault_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ValueError, match=r"there is no fault no_such; there are .*two_hangups"):
        async with open_gateway(settings=GatewaySettings(faults={"no_such"})):
            pass


@pytest.mark.parametrize(("seed", "loss"), [(1, 0.0), (2, 0.0), (3, 0.02)])
def test_a_gateway_without_faults_is_left_in_peace(seed: int, loss: float) -> None:
    report = judged(seed=seed, loss=loss, examples=3, preflight=True)
    assert bad(report) == {}
    verdicts = {each.verdict for each in report.results if each.requirement.level is Level.MUST}
    # With losses a precondition may fail to come about; nothing is ever the kit's own fault.
    assert verdicts <= {Verdict.PASS, Verdict.SKIPPED} | ({Verdict.INCONCLUSIVE} if loss else set())
