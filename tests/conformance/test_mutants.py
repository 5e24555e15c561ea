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
    "answer_missing_on_second_call": "EVT-01 EVT-03 EVT-06 EVT-11 EVT-14",
    "answer_time_moves": "EVT-06",
    "answer_time_without_answer": "EVT-02 EVT-06 EVT-10 EVT-13",
    "bytes_are_packets": "EVT-12",
    "bytes_sent_zero": "EVT-12",
    "call_sid_cut": "RPC-02",
    "call_sid_in_capitals": "RPC-02",
    "call_sid_with_nul": "RPC-02",
    "cause_always_16": "EVT-02",
    "cause_in_every_event": "EVT-05",
    "cause_is_sip_status": "EVT-02 EVT-05",
    "cause_swapped_with_duration": "EVT-02 EVT-05",
    "client_id_missing_at_hangup": "SER-09 SUB-02",
    "client_id_trimmed": "SUB-02",
    "codec_missing_in_events": "DWN-03",
    "codec_of_another": "DWN-03",
    "create_repeated_after_reconnect": "RPL-03",
    "crlf_translated": "UPL-01 DWN-05",
    "duration_counts_ringing": "EVT-11",
    "duration_without_answer": "EVT-02 EVT-10 EVT-11 EVT-13",
    "empty_trunk_at_hangup": "SER-09",
    "end_of_one_ends_all": "DWN-05",
    "end_of_stream_behind_hangup": "EOS-01",
    "end_of_stream_names_nobody": "DWN-01 EOS-01",
    "end_of_stream_on_every_packet": "EVT-12 DWN-04",
    "end_of_stream_with_payload": "UPL-01 DWN-05",
    "end_time_in_every_event": "EVT-06",
    "event_time_is_start_time": "EVT-06 EVT-09",
    "event_version_too_new": "FRM-01 RPC-02",
    "events_cut_at_client_id": "SER-09 SUB-02",
    "events_late": "EVT-07 DWN-06",
    "events_on_streams_of_their_own": "EVT-01 EVT-02",
    "every_third_terminate_refused": "SER RPC EVT SUB",
    "frames_padded": "FRM-01 RPC-06",
    "good_reply_with_message": "ERR-03",
    "hangup_only_on_terminate": "EVT-02 EVT-10",
    "hangup_repeated_later": "RPC-06 EVT-01",
    "high_bit_lost": "UPL-01 DWN-05",
    "hold_announced_even_if_held": "EVT-01 EVT-03",
    "hold_toggles_swapped": "EVT-01 EVT-03",
    "jitter_in_microseconds": "EVT-05",
    "jitter_infinite": "EVT-05",
    "jitter_negative": "EVT-05",
    "last_packets_lost": "UPL-01 DWN-05",
    "late_create": "EVT-01 EVT-02",
    "mos_zero": "EVT-12",
    "mute_looks_like_hold": "EVT-03",
    "packet_call_sid_in_capitals": "RPC-02 EVT-12",
    "packet_call_sid_missing": "EVT-12 UPL-01",
    "packet_codec_of_another": "DWN-03",
    "packets_lost_invented": "EVT-12",
    "packets_lost_wraps": "EVT-05 EVT-12",
    "packets_swapped": "DWN-01 DWN-04",
    "payload_begins_with_its_length": "UPL-01 DWN-05",
    "payload_inverted": "UPL-01 DWN-05",
    "payload_shortened": "UPL-01 DWN-05",
    "payload_silent": "UPL-01 DWN-05",
    "payload_size_big_endian": "FRM-01 RPC-02",
    "quiet_bytes_dropped": "UPL-01",
    "refused_by_reset": "ERR-01 ERR-04",
    "replay_has_new_timestamps": "RPL-03 RPL-07",
    "replies_of_zero_bytes": "RPC-02 RPC-03",
    "reply_cut": "RPC-04 RPC-05",
    "reply_length_big_endian": "RPC-04 RPC-05",
    "reply_says_failed": "ERR-03",
    "reply_time_in_seconds": "EVT-09",
    "reply_without_call_sid": "RPC-02 RPC-03",
    "resumed_subscription_doubles": "RPL-03",
    "resumed_subscription_loses_first": "RPL-03",
    "resumed_subscription_gets_newest": "RPL-03",
    "sequence_begins_at_a_million": "DWN-01 DWN-04",
    "sequence_counts_bytes": "DWN-01 DWN-04",
    "sequence_of_6_bits": "DWN-01 DWN-04",
    "sequence_per_connection": "DWN-01",
    "silence_between_packets": "EVT-12 DWN-02",
    "start_time_moves": "EVT-06",
    "statistics_before_the_end": "EVT-05",
    "statistics_swapped": "EVT-12",
    "status_missing": "SER-04",
    "tenant_changes": "SER-09",
    "terminate_only_replies": "RPC-06 EVT-07",
    "timestamp_big_endian": "EVT-06 EVT-09",
    "timestamps_in_local_time": "EVT-09",
    "timestamps_of_32_bits": "EVT-09",
    "trunk_of_another": "SER-09",
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
