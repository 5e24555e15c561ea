"""Calls from outside, campaigns, and the buckets that hold both."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from agentao_trio import messages as m
from agentao_trio.gateway.settings import GatewaySettings, Trunk
from agentao_trio.gateway.silence import Silence
from agentao_trio.messages import DialplanAction, ErrorCode, InboundRule
from tests.support.bench import (
    ANSWER,
    CREATE,
    ECHO,
    HANGUP,
    TONE,
    Bench,
    wav,
)

# -- calls that come in ------------------------------------------------------------------------------------------------


def ring(bench: Bench, **fields: Any) -> str | None:
    placed = bench.model.place_inbound_call(
        **{"trunk_id": "main", "call_from": "+15550109999", "far_end": "echo", "now": bench.now, **fields}
    )
    bench.run(0.02)
    return placed


def test_an_inbound_call_rings_at_every_subscriber_and_talks_to_the_one_who_answers() -> None:
    bench = Bench()
    colleague = bench.connect("colleague")
    sid = ring(bench, far_end="tone")
    assert sid is not None
    assert bench.types(sid) == bench.types(sid, colleague) == [CREATE]
    waiting = bench.ask(m.GetIncomingCallsRequest(trunk_id="main")).calls
    assert [(call.call_sid, call.call_from) for call in waiting] == [(sid, "+15550109999")]
    assert waiting[0].start_timestamp_ms == bench.last(sid).start_timestamp_ms

    answer = bench.ask(m.AnswerIncomingCallRequest(call_sid=sid), colleague)
    assert (answer.error_code, answer.call_sid) == (ErrorCode.SUCCESS, sid)
    bench.run(0.1)
    assert bench.types(sid) == bench.types(sid, colleague) == [CREATE, ANSWER]
    assert (len(bench.frames(sid)), len(bench.frames(sid, colleague))) == (0, 5)
    assert bench.ask(m.GetIncomingCallsRequest(trunk_id="main")).calls == ()
    late = bench.ask(m.AnswerIncomingCallRequest(call_sid=sid))
    assert late.error_code == ErrorCode.ERR_VALIDATION_FAILED


def test_somebody_who_came_after_the_ringing_began_can_answer_and_is_told_from_the_start() -> None:
    bench = Bench()
    sid = ring(bench)
    late = bench.connect("late")
    bench.ask(m.AnswerIncomingCallRequest(call_sid=sid or ""), late)
    assert bench.types(sid or "", late) == [CREATE, ANSWER]


def test_a_caller_gives_up_and_an_agent_may_turn_one_away() -> None:
    bench = Bench(GatewaySettings(patience=5))
    first, second = ring(bench) or "", ring(bench) or ""
    bench.ask(m.TerminateRequest(call_sid=second))
    assert (bench.types(second), bench.last(second).q850_cause) == ([CREATE, HANGUP], 21)
    bench.run(6)
    assert (bench.types(first), bench.last(first).q850_cause) == ([CREATE, HANGUP], 19)


def test_a_trunk_that_rejects_lets_nothing_through() -> None:
    bench = Bench()
    assert bench.ask(m.SetInboundRoutingRequest(trunk_id="main", rule=InboundRule.REJECT)) == m.Empty()
    assert ring(bench) is None
    assert bench.events[bench.peer] == []


def test_a_trunk_that_plays_answers_plays_and_hangs_up() -> None:
    bench = Bench(files={"/closed.wav": wav(0.5)})
    rule = m.SetInboundRoutingRequest(trunk_id="main", rule=InboundRule.PLAY_AND_HANGUP, audio_url="file:///closed.wav")
    assert bench.ask(rule) == m.Empty()
    sid = ring(bench) or ""
    bench.run(2)
    assert bench.types(sid) == [CREATE, ANSWER, HANGUP]
    answered_for = bench.last(sid).end_timestamp_ms - bench.last(sid).answer_timestamp_ms
    assert 490 <= answered_for <= 540


def test_a_trunk_that_notifies_names_the_webhook_and_hangs_up() -> None:
    bench = Bench()
    hook = "https://agents.example.com/hook"
    bench.ask(m.SetInboundRoutingRequest(trunk_id="main", rule=InboundRule.NOTIFY_AND_HANGUP, webhook_url=hook))
    sid = ring(bench) or ""
    bench.run(1)
    assert bench.types(sid) == [CREATE, HANGUP]
    assert [(each.webhook_url, each.call_sid) for each in bench.model.notifications] == [(hook, sid)]


def test_a_trunk_with_an_agents_url_answers_by_itself() -> None:
    bench = Bench()
    bench.ask(
        m.SetInboundRoutingRequest(trunk_id="main", rule=InboundRule.HANDLE_AI, ai_quic_url="quic://agent.example")
    )
    sid = ring(bench, far_end="tone") or ""
    bench.run(1)
    assert bench.types(sid) == [CREATE, ANSWER]
    assert bench.frames(sid)


@pytest.mark.parametrize(
    "request_",
    [
        m.SetInboundRoutingRequest(trunk_id="main", rule=4),
        m.SetInboundRoutingRequest(trunk_id="invalid", rule=InboundRule.REJECT),
        m.SetInboundRoutingRequest(trunk_id="main", rule=InboundRule.PLAY_AND_HANGUP, audio_url="https://x/y.wav"),
        m.SetInboundRoutingRequest(trunk_id="main", rule=InboundRule.NOTIFY_AND_HANGUP),
    ],
)
def test_a_refusal_that_has_no_place_in_its_reply_resets_the_stream(request_: m.SetInboundRoutingRequest) -> None:
    assert Bench().ask(request_) is Silence.RESET


def test_unknown_callers_and_trunks_are_the_programs_mistake() -> None:
    bench = Bench(GatewaySettings(trunks={"main": Trunk()}))
    with pytest.raises(ValueError, match="no far end 'nobody'"):
        ring(bench, far_end="nobody")
    with pytest.raises(ValueError, match="no trunk 'other'"):
        ring(bench, trunk_id="other")


# -- campaigns and buckets ---------------------------------------------------------------------------------------------


def bulk(bench: Bench, text: str, **fields: Any) -> Any:
    bench.files["/numbers.csv"] = text.encode()
    template = {"template_trunk_id": "main", "template_default_app": DialplanAction.ANSWER, "campaign_id": "c"}
    return bench.ask(m.BulkRequest(**{"csv_url": "/numbers.csv", **template, **fields}))


def test_a_campaign_dials_every_good_row_and_each_ends_with_a_hangup() -> None:
    bench = Bench()
    rows = f"to,call_from,note\n+15550100016,+15550109999,x\nnonsense,,\n+15550100017,,\n+15550100403,,\n{TONE},,\n"
    assert bulk(bench, rows, template_max_duration_ms=500) == m.BulkResponse(status="ACCEPTED", loaded_numbers=4)
    bench.run(3)
    causes = {f"c-{n:05}": bench.last(f"c-{n:05}").q850_cause for n in range(1, 5)}
    assert causes == {"c-00001": 16, "c-00002": 17, "c-00003": 42, "c-00004": 16}
    assert bench.types("c-00003") == [CREATE, HANGUP]
    assert bench.ask(m.Empty(), method=m.MethodId.GetActiveBuckets).buckets == ()


def test_columns_override_the_template_and_blanks_do_not() -> None:
    bench = Bench()
    rows = "to, call_sid ,trunk_id\n+15550100001,named,second\n+15550100001,,\n".replace(" ", "")
    bulk(bench, rows)
    assert bench.last("named").trunk_id == "second"
    assert bench.last("c-00002").trunk_id == "main"


def test_a_campaign_keeps_its_pace_and_its_concurrency() -> None:
    bench = Bench()
    rows = "to\n" + "+15550100016\n" * 20
    bulk(bench, rows, calls_per_second=10, max_concurrent_calls=4)
    open_calls = []
    for _ in range(100):
        bench.run(0.1)
        open_calls.append(bench.model.statistics().calls_open)
    assert max(open_calls) == 4
    starts = [event.start_timestamp_ms for event in bench.events[bench.peer] if event.event_type == CREATE]
    assert len(starts) == 20
    for early, late in itertools.pairwise(starts):
        assert late - early >= 95


def test_aborting_drops_what_is_pending_and_lets_calls_finish() -> None:
    bench = Bench()
    bulk(bench, "to\n" + "+15550100016\n" * 10, calls_per_second=2)
    bench.run(1.0)
    reply = bench.ask(m.AbortBulkRequest(campaign_id="c"))
    assert (reply.status, reply.loaded_numbers) == ("ABORTED", 7)
    bench.run(5)
    assert bench.model.statistics().calls_ended == 3
    assert bench.ask(m.AbortBulkRequest(campaign_id="c")).status.startswith("FAILED")


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", {}),
        ("number\n+15550100001\n", {}),
        ("to\n", {"csv_url": "https://example.com/x.csv"}),
        ("to\n", {"csv_url": "/none.csv"}),
        ("to\n", {"csv_url": "/etc/passwd"}),
        ("to\n", {"csv_url": "file://elsewhere/numbers.csv"}),
        ("to\n", {"calls_per_second": -1}),
        ("to\n", {"campaign_id": "x" * 300}),
        ('to\n"+1555', {}),
        ("to\n" + "+15550100001\n" * 11, {}),
    ],
)
def test_a_campaign_that_cannot_be_loaded_says_why_in_its_status(text: str, fields: dict[str, Any]) -> None:
    bench = Bench(GatewaySettings(max_campaign_rows=10))
    reply = bulk(bench, text, **fields)
    assert reply.status.startswith("FAILED: ")
    assert reply.loaded_numbers == 0


def test_buckets_hold_what_is_pending_and_the_calls_that_wait() -> None:
    bench = Bench()
    bulk(bench, "to\n" + f"{ECHO}\n" * 4, max_concurrent_calls=1)
    sid = ring(bench) or ""
    buckets = bench.ask(m.Empty(), method=m.MethodId.GetActiveBuckets).buckets
    assert [(each.bucket_id, each.pending_count) for each in buckets] == [("c", 3), ("inbound:main", 1)]
    assert bench.ask(m.BucketRequest(bucket_id="c")).call_sids == "c-00002,c-00003,c-00004"
    assert bench.ask(m.BucketRequest(bucket_id="inbound:main")).call_sids == sid

    def act(bucket_id: str, action: int) -> Any:
        return bench.ask(m.BucketActionRequest(bucket_id=bucket_id, action=action))

    assert act("c", 1).processed_count == 1
    assert bench.types("c-00002") == [CREATE]
    assert act("c", 2).processed_count == 1
    assert bench.ask(m.BucketRequest(bucket_id="c")).call_sids == "c-00004"
    assert act("inbound:main", 1).processed_count == 1
    assert bench.types(sid) == [CREATE, ANSWER]
    assert act("none", 1).processed_count == 0
    assert act("c", 3) is Silence.RESET


def test_a_caller_who_waits_can_be_sent_away_from_the_bucket() -> None:
    bench = Bench()
    first, second = ring(bench) or "", ring(bench) or ""
    skip = m.BucketActionRequest(bucket_id="inbound:main", action=2)
    assert bench.ask(skip).processed_count == 1
    assert (bench.types(first), bench.types(second)) == ([CREATE, HANGUP], [CREATE])


def test_a_campaign_runs_once_and_only_so_many_at_a_time() -> None:
    bench = Bench(GatewaySettings(max_campaigns=1))
    rows = "to\n" + f"{ECHO}\n" * 3
    assert bulk(bench, rows, max_concurrent_calls=1).status == "ACCEPTED"
    assert "'c' is running already" in bulk(bench, rows).status
    assert "1 campaigns are running already" in bulk(bench, rows, campaign_id="d").status
    # Another tenant has campaigns of its own.
    other = bench.connect(tenant="other")
    request = m.BulkRequest(csv_url="/numbers.csv", campaign_id="c", template_trunk_id="main")
    assert bench.ask(request, other).status == "ACCEPTED"


def test_a_row_whose_call_is_known_already_or_named_too_long_is_left_out() -> None:
    bench = Bench()
    bench.originate(ECHO, "known")
    reply = bulk(bench, f"to,call_sid\n{ECHO},known\n{ECHO},{'x' * 300}\n{ECHO},new\n")
    assert reply.loaded_numbers == 2
    bench.run(0.3)
    assert bench.types("known")[:2] == bench.types("new")[:2] == [CREATE, ANSWER]
    assert bench.model.statistics().calls_open == 2
