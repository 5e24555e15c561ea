"""AUT: who may do what, and who the gateway is."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from agentao_trio import messages
from agentao_trio.conformance.checks.events import names
from agentao_trio.conformance.checks.rpc import is_refusal, reply_of
from agentao_trio.conformance.kit import Kit, Link
from agentao_trio.conformance.programmes import Inconclusive, programme
from agentao_trio.conformance.requirements import Judgement, Level, requirement
from agentao_trio.conformance.trace import Trace, What
from agentao_trio.errors import ConnectionLost
from agentao_trio.messages import DialplanAction, ErrorCode, MethodId

_TOKENS = "PROTOCOL section 2, authentication"
_ISOLATION = "PROTOCOL section 2.4, promised isolation"
_TLS = "PROTOCOL section 1; RFC 9001 section 4.4"


@asynccontextmanager
async def shown(kit: Kit, name: str, token: str | None) -> AsyncIterator[Link | None]:
    """A connection on which this token was shown; None where the gateway closed it for that."""
    async with kit.link(name, subscribe=False, present_token=False) as link:
        with contextlib.suppress(ConnectionLost, trio.BrokenResourceError):
            if token is not None:
                await kit.profile.present_text(link.connection, token)
        yield None if link.connection.is_over else link


async def _try_to_dial(kit: Kit, link: Link | None, mark: str) -> None:
    if link is not None:
        call_sid = kit.new_sid()
        await kit.limits.acquire()
        kit.placed(link, call_sid)
        with contextlib.suppress(ConnectionLost, trio.BrokenResourceError, Inconclusive):
            await link.ask(messages.EventStreamRequest(client_id=kit.client_id))
            await link.ask(
                messages.OriginateRequest(
                    trunk_id=kit.profile.trunk,
                    to=kit.profile.destination("answer"),
                    call_sid=call_sid,
                    client_id=kit.client_id,
                    default_app=DialplanAction.ANSWER,
                    max_duration_ms=5_000,
                )
            )
        await trio.sleep(0.7)
        kit.forget(call_sid)
    kit.mark(mark)


def _judge_locked_out(trace: Trace, say: Judgement, mark: str) -> None:
    for _ in trace.marks(mark):
        events = trace.events()
        say.expect(
            not events,
            expected="no call",
            seen=names([seen.message.event_type for seen in events]),
            index=events[0].index if events else None,
        )
        for _, answer in trace.replies(MethodId.Originate):
            reply = reply_of(answer)
            say.expect(
                (is_refusal(answer) and getattr(reply, "error_code", 7) == ErrorCode.ERR_UNAUTHORIZED)
                or answer.note == "lost",
                expected="ERR_UNAUTHORIZED (7), a reset stream or a closed connection",
                seen=str(reply),
            )


@requirement("AUT-01", Level.MUST, "Without a token, or with one that is none, there is no call", source=_TOKENS)
def _no_token(trace: Trace, say: Judgement) -> None:
    _judge_locked_out(trace, say, "garbled token")


@programme("AUT-01", roles="answer", capabilities="token", calls=2, faults="any_token_accepted no_token_accepted")
async def _garbled_token(kit: Kit) -> None:
    for name, token in (("A", None), ("B", "eyJhbGciOiJub25lIn0.e30.")):
        async with shown(kit, name, token) as link:
            await _try_to_dial(kit, link, "garbled token")


@requirement("AUT-02", Level.MUST, "A token that has expired is refused", source=_TOKENS)
def _expired(trace: Trace, say: Judgement) -> None:
    _judge_locked_out(trace, say, "expired token")


@programme("AUT-02", roles="answer", capabilities="token", faults="expired_token_accepted")
async def _expired_token(kit: Kit) -> None:
    async with shown(kit, "A", kit.profile.token(age=7200.0)) as link:
        await _try_to_dial(kit, link, "expired token")


@requirement("AUT-03", Level.INFO, "What happens when a token expires within a session", source=_TOKENS)
def _expires(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("expired in session"):
        closed = [each for _, each in trace.of(What.CLOSED) if each.code]
        say.report(
            f"the connection was closed with code {closed[0].code}"
            if closed
            else f"requests are {'refused' if mark.facts['refused'] else 'still taken'}"
        )


@programme("AUT-03", capabilities="token")
async def _let_it_expire(kit: Kit) -> None:
    async with shown(kit, "A", kit.profile.token(lifetime=3.0)) as link:
        if link is None:
            raise Inconclusive("a token of three seconds was refused at once")
        await trio.sleep(5.0)
        await link.ask(messages.GetIncomingCallsRequest(trunk_id=kit.profile.trunk))
        _, answer = kit.trace.replies(MethodId.GetIncomingCalls)[-1]
        kit.mark("expired in session", refused=answer.note != "fin")


@requirement("AUT-04", Level.MUST, "Another tenant's call cannot be touched, and is not seen", source=_ISOLATION)
def _foreign(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("touched by another tenant"):
        call_sid = mark.facts["call_sid"]
        over = trace.hangup(call_sid)
        say.expect(
            over is None or over.at >= mark.at,
            expected="the call to go on",
            seen="CHANNEL_HANGUP_COMPLETE",
            call_sid=call_sid,
        )
        for request, answer in trace.replies(MethodId.Terminate, link="B"):
            if request.at <= mark.at:
                say.expect(is_refusal(answer), expected="an error for the other tenant", seen=str(reply_of(answer)))
        seen_there = trace.events(link="B")
        say.expect(not seen_there, expected="no event for the other tenant", seen=f"{len(seen_there)} events")


@programme("AUT-04", roles="answer", capabilities="token second_tenant", faults="foreign_calls_touchable")
async def _touch_anothers_call(kit: Kit) -> None:
    async with kit.link("A") as link:
        call_sid = await link.answered()
        async with shown(kit, "B", kit.profile.token(tenant=2)) as other:
            if other is None:
                raise Inconclusive("the second tenant's token was refused")
            await other.subscribe(f"{kit.client_id}-other")
            await other.terminate(call_sid, wait=False)
            await other.execute(call_sid, DialplanAction.HOLD)
            await trio.sleep(0.5)
            kit.mark("touched by another tenant", call_sid=call_sid)
        await link.terminate(call_sid)


@requirement("AUT-05", Level.MUST, "A client that does not offer the ALPN is refused", source=_TLS)
def _wrong_alpn(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("offered another protocol"):
        say.expect(not mark.facts["connected"], expected="no connection for the ALPN 'not-h3'", seen="a connection")


@programme("AUT-05", faults="another_alpn_accepted")
async def _offer_another_protocol(kit: Kit) -> None:
    connected = False
    odd = attrs.evolve(kit.profile.transport, alpn="not-h3")
    with contextlib.suppress(Inconclusive):
        async with kit.link(subscribe=False, present_token=False, settings=odd):
            connected = True
    kit.mark("offered another protocol", connected=connected)


@requirement("AUT-06", Level.MUST, "The certificate is for the host, valid, and of a trusted authority", source=_TLS)
def _certificate(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("verified"):
        say.expect(
            mark.facts["good"],
            expected="a certificate that the profile's authority vouches for, for the host, within its dates",
            seen=next((each.note for _, each in trace.of(What.REFUSED)), "a refusal"),
        )


@programme("AUT-06", faults="certificate_of_another certificate_expired")
async def _verify(kit: Kit) -> None:
    good = False
    with contextlib.suppress(Inconclusive):
        async with kit.link(subscribe=False, tls=attrs.evolve(kit.profile.tls, verify=True)):
            good = True
    refused = [each.note for _, each in kit.trace.of(What.REFUSED)]
    if refused and "certificate" not in refused[0]:
        raise Inconclusive(refused[0])
    kit.mark("verified", good=good)


@requirement("AUT-07", Level.MUST, "A token is never echoed", source=_TOKENS)
def _never_echoed(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("secret"):
        secret = mark.facts["marker"].encode()
        for what in (What.REPLY, What.FRAME, What.CLOSED):
            for index, each in trace.of(what):
                say.expect(
                    secret not in each.data and secret not in each.note.encode(),
                    expected="no part of a token in what the gateway says",
                    seen=f"it is in a {what.value}",
                    index=index,
                )


@programme("AUT-07", roles="answer", capabilities="token", faults="token_echoed")
async def _look_for_the_token(kit: Kit) -> None:
    marker = "eyJhbGciOiJSUzI1NiJ9.eyJ0ZW5hbnRfaWQiOiJjb25mb3JtYW5jZSJ9.c2VjcmV0LW9mLXRoZS1raXQ"  # nobody's
    async with shown(kit, "A", marker) as link:
        await _try_to_dial(kit, link, "refused")
    kit.mark("secret", marker=marker[-24:])
