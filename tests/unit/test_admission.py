"""Whom the embedded gateway takes a connection to be, in both modes, and what tenants can do to each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentao_trio import messages as m
from agentao_trio.credentials import TokenSource
from agentao_trio.gateway import GatewaySettings, Trunk
from agentao_trio.gateway.silence import Silence
from agentao_trio.gateway.subscriptions import Peer
from agentao_trio.messages import DialplanAction, ErrorCode
from tests.support.accounts import account, verifier
from tests.support.bench import ANSWER, CREATE, ECHO, EPOCH, HANGUP, SLOT, Bench, packet

KNOWN = verifier("acme", "globex")
OPEN = GatewaySettings(verifier=KNOWN)
REQUIRED = GatewaySettings(verifier=KNOWN, authentication="required")


def token(tenant: str = "acme", *, at: float = 100.0, lifetime: float = 3600) -> str:
    """Of this tenant, made at a moment of the bench's clock."""
    return TokenSource(account(tenant), lifetime=lifetime).token(EPOCH + at)


def present(bench: Bench, text: str, peer: Peer | None = None) -> Silence:
    answer = bench.model.present(peer or bench.peer, text, bench.now)
    bench.run(SLOT)
    return answer


@pytest.mark.parametrize("settings", [{"authentication": "required"}, {"authentication": "closed"}])
def test_settings_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="authentication is"):
        GatewaySettings(**settings)


# -- a gateway that requires a token ----------------------------------------------------------------------------------

WITH_A_CODE = [
    m.OriginateRequest(trunk_id="main", to=ECHO, default_app=DialplanAction.ANSWER),
    m.TerminateRequest(call_sid="call"),
    m.AnswerIncomingCallRequest(call_sid="call"),
    m.ExecuteDialplanRequest(call_sid="call", action=DialplanAction.HOLD),
    m.AllocateWtRequest(call_sid="call"),
]
WITH_A_STATUS = [
    m.BulkRequest(csv_url="/numbers.csv"),
    m.AbortBulkRequest(campaign_id="campaign"),
    m.SuperviseSubscribeRequest(call_sid="call"),
]
WITHOUT = [
    m.BargeRequest(call_sid="call"),
    m.SetInboundRoutingRequest(trunk_id="main"),
    m.GetIncomingCallsRequest(trunk_id="main"),
    m.Empty(),
    m.BucketRequest(bucket_id="bucket"),
    m.BucketActionRequest(bucket_id="bucket", action=1),
]


@pytest.mark.parametrize("request_", WITH_A_CODE, ids=lambda each: type(each).__name__)
def test_without_a_token_every_reply_that_can_says_unauthorized(request_: m.Message) -> None:
    reply = Bench(REQUIRED).ask(request_)
    assert reply.error_code == ErrorCode.ERR_UNAUTHORIZED
    assert reply.error_message == "this gateway requires a token, and this connection has presented none"


@pytest.mark.parametrize("request_", WITH_A_STATUS, ids=lambda each: type(each).__name__)
def test_a_reply_with_nothing_but_a_status_says_it_there(request_: m.Message) -> None:
    reply = Bench(REQUIRED).ask(request_)
    assert "requires a token" in reply.status + getattr(reply, "error_message", "")


@pytest.mark.parametrize("request_", WITHOUT, ids=lambda each: type(each).__name__)
def test_a_reply_without_any_place_for_it_is_a_reset(request_: m.Message) -> None:
    assert Bench(REQUIRED).ask(request_) is Silence.UNAUTHORIZED


def test_refused_requests_do_nothing() -> None:
    bench = Bench(REQUIRED)
    bench.originate(ECHO)
    bench.run(1)
    assert bench.events[bench.peer] == []
    figures = bench.model.statistics()
    assert (figures.calls_placed, figures.requests_refused, figures.subscriptions) == (0, 1, 0)


def test_a_token_on_a_stream_of_its_own_opens_the_gateway() -> None:
    bench = Bench(REQUIRED)
    assert present(bench, token()) is Silence.NOTHING
    bench.answered(ECHO)
    assert bench.last().tenant_id == "acme"
    assert bench.ask(m.TerminateRequest(call_sid="call")).error_code == ErrorCode.SUCCESS
    assert bench.types() == [CREATE, ANSWER, HANGUP]
    assert bench.model.statistics().tokens_accepted == 1


def test_a_token_in_the_tenant_field_does_so_too_and_opens_it_for_what_follows() -> None:
    bench = Bench(REQUIRED)
    bench.answered(ECHO, tenant_id=token())
    assert bench.last().tenant_id == "acme"
    assert bench.ask(m.TerminateRequest(call_sid="call")).error_code == ErrorCode.SUCCESS
    assert bench.types() == [CREATE, ANSWER, HANGUP]


@pytest.mark.parametrize(
    "request_",
    [
        m.BulkRequest(csv_url="/none.csv", template_tenant_id=token()),
        m.AllocateWtRequest(call_sid="call", tenant_id=token()),
        m.SuperviseSubscribeRequest(call_sid="call", auth_token=token()),
        m.SuperviseSubscribeRequest(call_sid="call", tenant_id=token()),
    ],
    ids=lambda each: type(each).__name__,
)
def test_every_slot_that_has_held_tokens_is_looked_at(request_: m.Message) -> None:
    bench = Bench(REQUIRED)
    reply = bench.ask(request_)
    assert bench.peer.tenant == "acme"
    assert "token" not in str(getattr(reply, "error_message", "")) + reply.status


def test_a_plain_name_in_the_tenant_field_proves_nothing() -> None:
    bench = Bench(REQUIRED)
    for name in ("acme", "mock_token", "", "eu.acme.example"):
        assert bench.originate(ECHO, tenant_id=name).error_code == ErrorCode.ERR_UNAUTHORIZED


BAD_TOKENS = {
    "expired": (token(at=-4_000), "expired"),
    "not yet valid": (token(at=200), "not valid yet"),
    "garbled": (token()[:-8] + "AAAAAAAA", "signature"),
    "unsigned": (token().rpartition(".")[0] + ".", "not signed"),
    "unknown tenant": (token("initech"), "does not own its key"),
}


@pytest.mark.parametrize(("text", "why"), BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
@pytest.mark.parametrize("settings", [OPEN, REQUIRED], ids=["open", "required"])
def test_a_bad_token_is_refused_in_either_mode_and_either_place(settings: GatewaySettings, text: str, why: str) -> None:
    bench = Bench(settings)
    assert present(bench, text) is Silence.UNAUTHORIZED
    reply = bench.originate(ECHO, tenant_id=text)
    assert reply.error_code == ErrorCode.ERR_UNAUTHORIZED
    assert why in reply.error_message
    assert bench.model.statistics().tokens_refused == 2
    assert bench.model.statistics().calls_placed == 0


def test_an_expired_token_stops_requests_until_there_is_another_and_nothing_else() -> None:
    bench = Bench(REQUIRED)
    present(bench, token(lifetime=60))
    bench.answered(ECHO)
    bench.run(60)
    reply = bench.originate(ECHO, "second")
    assert reply.error_code == ErrorCode.ERR_UNAUTHORIZED
    assert reply.error_message == "the token of this connection has expired"
    bench.say(packet(1))
    assert bench.audio[bench.peer][-1].payload == packet(1)
    present(bench, token(at=bench.now))
    assert bench.originate(ECHO, "second").error_code == ErrorCode.SUCCESS


def test_a_connection_keeps_its_tenant() -> None:
    bench = Bench(REQUIRED)
    present(bench, token())
    assert present(bench, token("globex")) is Silence.UNAUTHORIZED
    reply = bench.originate(ECHO, tenant_id=token("globex"))
    assert (reply.error_code, reply.error_message) == (
        ErrorCode.ERR_UNAUTHORIZED,
        "the token speaks for another tenant than this connection does",
    )
    assert bench.originate(ECHO).error_code == ErrorCode.SUCCESS


def test_a_subscription_waits_for_the_token() -> None:
    bench = Bench(REQUIRED)
    resumed = bench.connect("resumed")
    present(bench, token())
    bench.originate(ECHO, client_id="resumed")
    assert bench.events[resumed] == []
    present(bench, token(), resumed)
    assert [event.event_type for event in bench.events[resumed]] == [CREATE]


def test_waiting_subscriptions_are_bounded() -> None:
    bench = Bench(REQUIRED)
    for number in range(100):
        bench.ask(m.EventStreamRequest(client_id=f"client-{number}"))
    assert bench.peer.waiting == [f"client-{number}" for number in range(84, 100)]
    present(bench, token())
    assert len(bench.peer.subscriptions) == 16


# -- an open gateway --------------------------------------------------------------------------------------------------


def test_without_a_token_a_connection_is_the_default_tenants() -> None:
    bench = Bench(OPEN)
    bench.answered(ECHO, tenant_id="acme")
    assert bench.last().tenant_id == "default"


def test_without_a_verifier_tokens_are_not_looked_at() -> None:
    bench = Bench()
    assert present(bench, "whatever") is Silence.NOTHING
    bench.answered(ECHO, tenant_id=token(at=-10_000))
    assert bench.last().tenant_id == "default"


def test_subscriptions_follow_a_connection_to_its_tenant() -> None:
    bench = Bench(OPEN)
    bench.originate(ECHO, "before")
    present(bench, token())
    assert bench.originate(ECHO, "after").error_code == ErrorCode.SUCCESS
    bench.run(1)
    assert bench.types("before") == [CREATE]
    assert bench.types("after") == [CREATE, ANSWER]
    assert bench.ask(m.TerminateRequest(call_sid="before")).error_code == ErrorCode.ERR_VALIDATION_FAILED


def test_calls_left_with_the_former_tenant_end_as_if_the_connection_were_gone() -> None:
    bench = Bench(GatewaySettings(verifier=KNOWN, event_window=5))
    bench.answered(ECHO)
    present(bench, token())
    bench.run(6)
    assert bench.model.statistics().calls_open == 0


# -- tenants ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def two() -> tuple[Bench, Peer, Peer]:
    """Two tenants with a trunk and a client id of the same name each, and a call of the first."""
    trunks = {"main": Trunk(tenant="acme"), "other": Trunk(tenant="globex")}
    bench = Bench(GatewaySettings(verifier=KNOWN, authentication="required", trunks=trunks))
    theirs = bench.connect("me")
    present(bench, token())
    present(bench, token("globex"), theirs)
    bench.answered(ECHO)
    return bench, bench.peer, theirs


def test_a_tenant_calls_on_its_own_trunks_only(two: tuple[Bench, Peer, Peer]) -> None:
    bench, _, theirs = two
    for fields in ({"trunk_id": "main"}, {"trunk_id": "main", "tenant_id": "acme"}):
        assert bench.originate(ECHO, "theirs", theirs, **fields).error_code == ErrorCode.ERR_INVALID_TRUNK
    assert bench.originate(ECHO, "theirs", theirs, trunk_id="other").error_code == ErrorCode.SUCCESS


@pytest.mark.parametrize(
    "command",
    [
        lambda sid: m.TerminateRequest(call_sid=sid),
        lambda sid: m.BargeRequest(call_sid=sid),
        lambda sid: m.ExecuteDialplanRequest(call_sid=sid, action=DialplanAction.HOLD),
        lambda sid: m.SuperviseSubscribeRequest(call_sid=sid, mode=m.SuperviseMode.BARGE),
    ],
    ids=["terminate", "barge", "execute", "supervise"],
)
def test_another_tenants_call_is_as_good_as_none(
    command: Callable[[str], m.Message], two: tuple[Bench, Peer, Peer]
) -> None:
    bench, _, theirs = two
    refused, missing = bench.ask(command("call"), theirs), bench.ask(command("none"), theirs)
    assert str(refused) == str(missing).replace("none", "call")
    bench.run(1)
    assert bench.types("call") == [CREATE, ANSWER]
    assert bench.events[theirs] == []
    assert bench.audio[theirs] == []


def test_a_tenant_speaks_on_its_own_calls_only(two: tuple[Bench, Peer, Peer]) -> None:
    bench, ours, theirs = two
    bench.say(packet(1), "call", theirs)
    bench.say(packet(2), "call", ours)
    assert [frame.payload for frame in bench.audio[ours] if frame.payload == packet(1)] == []
    assert bench.model.statistics().frames_for_unknown_calls == 1


def test_a_connection_that_is_nobodys_speaks_on_no_call(two: tuple[Bench, Peer, Peer]) -> None:
    bench, _, _ = two
    stranger = bench.connect("me")
    bench.say(packet(1), "call", stranger)
    assert bench.model.statistics().frames_for_unknown_calls == 1
    assert bench.events[stranger] == []


def test_events_and_inbound_calls_are_the_tenants_own(two: tuple[Bench, Peer, Peer]) -> None:
    bench, ours, theirs = two
    sid = bench.model.place_inbound_call(trunk_id="other", call_from="+15550109999", far_end="echo", now=bench.now)
    bench.run(SLOT)
    assert [event.call_sid for event in bench.events[theirs]] == [sid]
    assert sid not in {event.call_sid for event in bench.events[ours]}
    for trunk_id in ("main", "other"):
        assert bench.ask(m.GetIncomingCallsRequest(trunk_id=trunk_id), ours).calls == ()
    assert len(bench.ask(m.GetIncomingCallsRequest(trunk_id="other"), theirs).calls) == 1
    assert bench.ask(m.Empty(), ours).buckets == ()
    assert bench.ask(m.AnswerIncomingCallRequest(call_sid=str(sid)), ours).error_code != ErrorCode.SUCCESS
