"""SER: envelopes: what is skipped, what is refused, what never crashes."""

from __future__ import annotations

import struct
from typing import Any

import trio

from agentao_trio import messages
from agentao_trio.conformance.checks.events import ANSWER, end, names
from agentao_trio.conformance.checks.framing import judge_usable, usable
from agentao_trio.conformance.checks.rpc import is_refusal, reply_of
from agentao_trio.conformance.kit import Kit, Link
from agentao_trio.conformance.programmes import programme
from agentao_trio.conformance.requirements import Judgement, Level, requirement
from agentao_trio.conformance.trace import Observation, Trace, What
from agentao_trio.errors import RemoteProtocolError
from agentao_trio.messages import AudioFrame, CallEvent, DialplanAction, MethodId
from agentao_trio.wire import encode_request

_ENVELOPE = "PROTOCOL section 5, serde envelope"
_SCHEMA = "Events, CallEvent schema; PROTOCOL section 10.1"

#: Characters that no name, status or id has a use for.
_CONTROLS = frozenset(map(chr, range(32))) | {"\x7f"}


def _originate(kit: Kit, call_sid: str, **fields: Any) -> bytes:
    """The envelope of a request to place a call."""
    return messages.encode(
        messages.OriginateRequest(
            **{
                "trunk_id": kit.profile.trunk,
                "to": kit.profile.destination("answer"),
                "call_sid": call_sid,
                "client_id": kit.client_id,
                "default_app": DialplanAction.ANSWER,
                "max_duration_ms": 20_000,
                **fields,
            }
        )
    )


async def _place(kit: Kit, link: Link, body: bytes, call_sid: str, mark: str) -> Observation:
    await kit.limits.acquire()
    kit.placed(link, call_sid)
    data = encode_request(MethodId.Originate, body, rpc_length=kit.profile.rpc_length)
    answer = await link.exchange(data, MethodId.Originate)
    kit.mark(mark, call_sid=call_sid)
    return answer


def _enveloped(payload: bytes, *, version: int = 1, compat: int = 0, size: int | None = None) -> bytes:
    return struct.pack("<BBi", version, compat, len(payload) if size is None else size) + payload


def _judge_accepted(trace: Trace, say: Judgement, mark: str) -> None:
    for each in trace.marks(mark):
        types = trace.event_types(each.facts["call_sid"])
        refused = [answer for _, answer in trace.replies(MethodId.Originate) if is_refusal(answer)]
        say.expect(
            ANSWER in types and not refused,
            expected="the call is placed and answered",
            seen=f"a refusal: {getattr(reply_of(refused[0]), 'error_message', '')!r}" if refused else names(types),
            call_sid=each.facts["call_sid"],
        )


@requirement("SER-01", Level.MUST, "Unknown bytes at the end of an envelope are skipped", source=_ENVELOPE)
def _trailing_bytes(trace: Trace, say: Judgement) -> None:
    _judge_accepted(trace, say, "placed with trailing bytes")


@programme("SER-01", roles="answer", calls=2, faults="strict_trailing_bytes")
async def _send_trailing_bytes(kit: Kit) -> None:
    async with kit.link() as link:
        for extra in (b"\x07\0\0\0newer!!", bytes(range(40))):
            call_sid = kit.new_sid()
            payload = _originate(kit, call_sid)[6:] + extra
            await _place(kit, link, _enveloped(payload, version=9), call_sid, "placed with trailing bytes")
            await link.until(ANSWER, call_sid)
            await link.terminate(call_sid)


@requirement("SER-02", Level.MUST, "An OriginateRequest of version 0 is accepted", source=_ENVELOPE)
def _version_zero(trace: Trace, say: Judgement) -> None:
    _judge_accepted(trace, say, "placed by an older client")


@programme("SER-02", roles="answer", faults="version_0_refused")
async def _send_version_zero(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = kit.new_sid()
        # Without session_id, agent_config_key and traceparent: three fields of twelve bytes where they are empty.
        payload = _originate(kit, call_sid)[6:-12]
        await _place(kit, link, _enveloped(payload, version=0), call_sid, "placed by an older client")
        await link.until(ANSWER, call_sid)
        await link.terminate(call_sid)


@requirement("SER-03", Level.MUST, "Sizes and lengths that lie are refused, and do no harm", source=_ENVELOPE)
def _lies(trace: Trace, say: Judgement) -> None:
    judge_usable(trace, say)
    for mark in trace.marks("lied"):
        types = trace.event_types(mark.facts["call_sid"])
        say.expect(
            not types,
            expected=f"no call for an envelope with {mark.facts['lie']}",
            seen=names(types),
            call_sid=mark.facts["call_sid"],
        )


@programme("SER-03", roles="answer", hostile=True, calls=6, faults="payload_size_ignored string_length_unchecked")
async def _lie_about_sizes(kit: Kit) -> None:
    async with kit.link() as link:
        kit.mark("provoked", by="envelopes that lie about their size")
        for lie in ("a negative size", "a size beyond its end", "a negative string length", "a string beyond its end"):
            call_sid = kit.new_sid()
            payload = _originate(kit, call_sid)[6:]
            body = {
                "a negative size": _enveloped(payload, size=-1),
                "a size beyond its end": _enveloped(payload, size=len(payload) + 1000),
                "a negative string length": _enveloped(struct.pack("<i", -5) + payload[4:]),
                "a string beyond its end": _enveloped(struct.pack("<i", 2**30) + payload[4:]),
            }[lie]
            await link.exchange(encode_request(MethodId.Originate, body), MethodId.Originate, patience=2)
            await trio.sleep(0.4)
            kit.mark("lied", call_sid=call_sid, lie=lie)
        await usable(kit, link)


def _strings(message: Any) -> dict[str, str]:
    return {name: value for name in message.__slots__ if isinstance(value := getattr(message, name, None), str)}


@requirement(
    "SER-04", Level.SHOULD, "No control characters in the strings of events", source=_ENVELOPE, everywhere=True
)
def _no_controls(trace: Trace, say: Judgement) -> None:
    for seen in trace.events():
        bad = {name: value for name, value in _strings(seen.message).items() if _CONTROLS & set(value)}
        say.expect(
            not bad and bool(seen.message.status),
            expected="printable text, and a status",
            seen=ascii(bad) if bad else "an empty status",
            index=seen.index,
            call_sid=seen.message.call_sid,
        )


@requirement("SER-05", Level.SHOULD, "An envelope fills its frame", source=_ENVELOPE, everywhere=True)
def _fills_its_frame(trace: Trace, say: Judgement) -> None:
    for index, frame in trace.of(What.FRAME):
        method = messages.method_of(frame.method or 0)
        if method not in (MethodId.StreamEvents, MethodId.AudioFrame):
            continue
        try:
            decoded = messages.decode_counted(CallEvent if method is MethodId.StreamEvents else AudioFrame, frame.data)
        except RemoteProtocolError:
            continue  # FRM-01 tells
        say.expect(
            decoded.after == 0,
            expected="nothing behind the envelope",
            seen=f"{decoded.after} bytes behind it",
            index=index,
        )


@programme("SER-04", roles="loopback", faults="control_characters_in_status")
@programme("SER-05", roles="loopback", faults="bytes_behind_the_envelope")
async def _one_call(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered("loopback")
        await link.say_paced(call_sid, [bytes(160)] * 5)
        await end(kit, link, call_sid)


@requirement("SER-06", Level.SHOULD, "A compat_version that is too new is refused", source=_ENVELOPE)
def _too_new(trace: Trace, say: Judgement) -> None:
    for mark in trace.marks("too new"):
        types = trace.event_types(mark.facts["call_sid"])
        say.expect(
            not types,
            expected="no call for a request that asks for a reader of version 200",
            seen=names(types),
            call_sid=mark.facts["call_sid"],
        )


@programme("SER-06", roles="answer", faults="compat_version_ignored")
async def _send_too_new(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = kit.new_sid()
        body = _enveloped(_originate(kit, call_sid)[6:], version=200, compat=200)
        await _place(kit, link, body, call_sid, "too new")
        await trio.sleep(0.7)


@requirement("SER-07", Level.MUST, "Text that is no UTF-8 does not crash the gateway", source=_ENVELOPE)
def _no_utf8(trace: Trace, say: Judgement) -> None:
    judge_usable(trace, say)


@programme("SER-07", roles="answer", hostile=True, calls=3, faults="invalid_utf_8_closes_connection")
async def _send_bytes_as_text(kit: Kit) -> None:
    async with kit.link() as link:
        odd = b"\xff\xfe\xc3(".decode(errors="surrogateescape")
        kit.mark("provoked", by="strings that are no UTF-8")
        await link.terminate(odd, wait=False)
        await link.ask(messages.GetIncomingCallsRequest(trunk_id=odd))
        await _place(kit, link, _originate(kit, kit.new_sid(), call_from=odd), kit.new_sid(), "odd caller")
        await usable(kit, link)


@requirement(
    "SER-08",
    Level.MUST,
    "A value that its enumeration does not have is refused with an error",
    source="PROTOCOL section 6",
)
def _undefined_values(trace: Trace, say: Judgement) -> None:
    judge_usable(trace, say)
    for _ in trace.marks("undefined action"):
        for _, answer in trace.replies(MethodId.ExecuteDialplan):
            say.expect(
                is_refusal(answer) or (answer.note == "fin" and not answer.data),
                expected="an error for the dialplan action 99",
                seen=f"{reply_of(answer)}",
            )


@programme("SER-08", roles="answer", hostile=True, calls=2, faults="undefined_action_accepted undefined_action_crashes")
async def _send_an_undefined_action(kit: Kit) -> None:
    async with kit.link() as link:
        call_sid = await link.answered()
        kit.mark("provoked", by="an undefined dialplan action")
        await link.ask(messages.ExecuteDialplanRequest(call_sid=call_sid, action=99))
        kit.mark("undefined action")
        await link.terminate(call_sid)
        await usable(kit, link)


@requirement(
    "SER-09",
    Level.MUST,
    "Every event has call_sid, trunk_id, tenant_id and client_id",
    source=_SCHEMA,
    everywhere=True,
)
def _always_there(trace: Trace, say: Judgement) -> None:
    for seen in trace.events():
        missing = [
            name for name in ("call_sid", "trunk_id", "tenant_id", "client_id") if not getattr(seen.message, name)
        ]
        say.expect(
            not missing,
            expected="call_sid, trunk_id, tenant_id and client_id",
            seen=f"{', '.join(missing)} empty",
            index=seen.index,
            call_sid=seen.message.call_sid,
        )
    placed = trace.placed()
    for call_sid in trace.call_sids():
        events = trace.events(call_sid)
        asked = placed.get(call_sid)
        if asked is not None and asked.trunk_id:
            trunks = {seen.message.trunk_id for seen in events} - {asked.trunk_id}
            say.expect(
                not trunks,
                expected=f"the trunk_id that was asked for, {asked.trunk_id!r}",
                seen=ascii(sorted(trunks)),
                call_sid=call_sid,
            )
        tenants = {seen.message.tenant_id for seen in events}
        say.expect(
            len(tenants) == 1,
            expected="one tenant_id in all of a call's events",
            seen=ascii(sorted(tenants)),
            call_sid=call_sid,
        )


@programme("SER-09", roles="answer", faults="trunk_id_missing tenant_id_missing call_sid_missing")
async def _one_call_more(kit: Kit) -> None:
    async with kit.link() as link:
        await end(kit, link, await link.answered())
