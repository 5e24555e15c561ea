"""Faults of requests and replies, of envelopes and frames, of tokens."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from agentao_trio import messages as m
from agentao_trio.credentials import Identity, TokenVerifier
from agentao_trio.errors import AuthenticationError, RemoteProtocolError
from agentao_trio.gateway.fault import Dice, Fault, Oddity, changed, fault, simple
from agentao_trio.gateway.settings import GatewaySettings
from agentao_trio.gateway.subscriptions import Peer
from agentao_trio.messages import ErrorCode, Message, MethodId
from agentao_trio.wire import MAX_FRAME_LENGTH

__all__ = ["is_refusal"]

_ECHO = "+15550100001"


def is_refusal(reply: Any) -> bool:
    """Whether a reply has an error code."""
    return isinstance(reply, Message) and bool(getattr(reply, "error_code", 0))


def _accepted(*methods: MethodId) -> Callable[[MethodId, Any, Any], Any]:
    """Replies to these methods that refuse nothing."""

    def change(method: MethodId, request: Any, reply: Any) -> Any:
        if method in methods and is_refusal(reply):
            return attrs.evolve(reply, error_code=0, error_message="", status="COMPLETED")
        return reply

    return change


def _of(method: MethodId, **fields: Any) -> Callable[[MethodId, Any, Any], Any]:
    """Replies to a method with other fields; a function is called with the request and the reply."""

    def change(which: MethodId, request: Any, reply: Any) -> Any:
        if which is not method or not isinstance(reply, Message):
            return reply
        return changed(reply, fields, request, reply)

    return change


# -- requests and replies -------------------------------------------------------------------------------------------


@fault
class ReplyNeverEnds(Fault):
    """The stream of a request stays open after its reply."""

    def reply_after(self, peer: Peer, method: MethodId) -> float:
        return 60.0


@fault
class SlowReplies(Fault):
    """Every reply takes 0.7 s."""

    def reply_after(self, peer: Peer, method: MethodId) -> float:
        return 0.7


simple(
    "reply_names_another_call",
    "The call_sid in the reply is not that of the events.",
    reply=_of(MethodId.Originate, call_sid=lambda request, reply: f"{reply.call_sid}-1"),
)
simple(
    "shared_call_sid",
    "Calls that the gateway names have one name.",
    reply=_of(MethodId.Originate, call_sid=lambda request, reply: request.call_sid or "call"),
)
simple("second_terminate_accepted", "A second Terminate succeeds.", reply=_accepted(MethodId.Terminate))
simple("unknown_call_terminated", "Terminate of a call that never was succeeds.", reply=_accepted(MethodId.Terminate))
simple(
    "hold_before_answer_accepted",
    "HOLD succeeds while the call rings, and has no effect.",
    reply=_accepted(MethodId.ExecuteDialplan),
)
simple(
    "undefined_action_accepted",
    "A dialplan action that is none succeeds.",
    reply=_accepted(MethodId.ExecuteDialplan),
)


@fault
class HoldWhileRinging(Fault):
    """HOLD takes effect while the call rings."""

    def reply(self, peer: Peer, method: MethodId, request: Message, reply: Any) -> Any:
        if not isinstance(request, m.ExecuteDialplanRequest) or not is_refusal(reply):
            return reply
        call = self.hands.calls.get(request.call_sid)
        if call is None or call.is_answered or call.creation is None:
            return reply
        held = attrs.evolve(
            call.creation,
            event_type=m.EventType.CHANNEL_HOLD,
            timestamp_ms=call.creation.timestamp_ms + 20,
            client_id=call.audience[0].client_id,
        )
        self.hands.send(peer, held)
        return m.ExecuteDialplanResponse(status="HELD")


@fault
class TwoReplies(Fault):
    """Every reply is sent twice."""

    def reply_bytes(self, method: MethodId, data: bytes) -> bytes:
        return data + data


@fault
class ReplyOfAnotherMethod(Fault):
    """A reply bears another method id than its request."""

    def reply_bytes(self, method: MethodId, data: bytes) -> bytes:
        return data[:4] + struct.pack("<I", 1) + data[8:]


@fault
class EventsInReply(Fault):
    """StreamEvents is answered with an event."""

    def reply_bytes(self, method: MethodId, data: bytes) -> bytes:
        if method is not MethodId.StreamEvents:
            return data
        body = m.encode(m.CallEvent(call_sid="nobody", event_type=m.EventType.CHANNEL_CREATE, status="INITIATED"))
        return struct.pack("<II", 4 + len(body), MethodId.StreamEvents) + body


@fault
class RepeatedSidDialsAgain(Fault):
    """A call_sid that is used again is dialled again."""

    def reply(self, peer: Peer, method: MethodId, request: Message, reply: Any) -> Any:
        call = self.hands.calls.get(getattr(request, "call_sid", ""))
        if method is MethodId.Originate and is_refusal(reply) and call is not None and call.creation is not None:
            created = attrs.evolve(
                call.creation,
                timestamp_ms=call.creation.timestamp_ms + 700,
                client_id=call.audience[0].client_id,
            )
            self.hands.send(peer, created)
            return m.OriginateResponse(call_sid=call.call_sid, status="INITIATED")
        return reply


# -- refusals -------------------------------------------------------------------------------------------------------


def _known_trunk(message: Message) -> Message:
    if isinstance(message, m.OriginateRequest) and message.trunk_id.startswith("invalid"):
        return attrs.evolve(message, trunk_id="main")
    return message


def _somewhere(message: Message) -> Message:
    if isinstance(message, m.OriginateRequest) and not message.to.startswith(("+", "sip:")):
        return attrs.evolve(message, to=_ECHO)
    return message


def _refusals(**fields: Any) -> Callable[[MethodId, Any, Any], Any]:
    return lambda method, request, reply: attrs.evolve(reply, **fields) if is_refusal(reply) else reply


simple("any_trunk_accepted", "A trunk that does not exist is used.", request=_known_trunk)
simple("any_destination_accepted", "A destination that is none is called.", request=_somewhere)
simple("wrong_error_code", "Every refusal has the code 5.", reply=_refusals(error_code=ErrorCode.ERR_INTERNAL_ERROR))
simple("refusal_without_words", "A refusal has no message.", reply=_refusals(error_message=""))
simple("refusal_looks_good", "A refusal has the status OK.", reply=_refusals(status="OK"))


@fault
class EventsOfRefusedCalls(Fault):
    """A call that is refused has a CREATE all the same."""

    def reply(self, peer: Peer, method: MethodId, request: Message, reply: Any) -> Any:
        if isinstance(request, m.OriginateRequest) and is_refusal(reply):
            created = m.CallEvent(
                call_sid=request.call_sid,
                event_type=m.EventType.CHANNEL_CREATE,
                status="INITIATED",
                trunk_id=request.trunk_id,
                tenant_id="default",
                timestamp_ms=1_800_000_000_000,
                start_timestamp_ms=1_800_000_000_000,
                client_id=request.client_id,
            )
            self.hands.send(peer, created)
        return reply


# -- tokens ---------------------------------------------------------------------------------------------------------


class _Verifier(TokenVerifier):
    """What another verifier refuses is looked at once more."""

    def __init__(self, strict: TokenVerifier, look: Callable[[TokenVerifier, str, float], Identity | None]) -> None:
        self._strict = strict
        self._look = look

    def verify(self, token: str, now: float) -> Identity:
        try:
            return self._strict.verify(token, now)
        except AuthenticationError:
            identity = self._look(self._strict, token, now)
            if identity is None:
                raise
            return identity


class _Lenient(Fault):
    def look(self, strict: TokenVerifier, token: str, now: float) -> Identity | None:
        """Whom a token that was refused speaks for after all."""
        raise NotImplementedError

    def settings(self, settings: GatewaySettings) -> GatewaySettings:
        if settings.verifier is None:
            return settings
        return attrs.evolve(settings, verifier=_Verifier(settings.verifier, self.look))


@fault
class AnyTokenAccepted(_Lenient):
    """Whatever looks like a token is one."""

    def look(self, strict: TokenVerifier, token: str, now: float) -> Identity | None:
        return Identity(tenant_id="default", private_key_id="key-1", expires_at=now + 3600)


@fault
class ExpiredTokenAccepted(_Lenient):
    """Nobody looks at when a token expires."""

    def look(self, strict: TokenVerifier, token: str, now: float) -> Identity | None:
        for hours in range(1, 4):
            try:
                return attrs.evolve(strict.verify(token, now - 3600 * hours), expires_at=now + 3600)
            except AuthenticationError:
                continue
        return None


@fault
class TokenEchoed(_Lenient):
    """A refusal shows the token that was no good."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._seen = ""

    def look(self, strict: TokenVerifier, token: str, now: float) -> Identity | None:
        self._seen = token
        return None

    def reply(self, peer: Peer, method: MethodId, request: Message, reply: Any) -> Any:
        return attrs.evolve(reply, error_message=f"bad token {self._seen}") if is_refusal(reply) else reply


simple(
    "no_token_accepted",
    "A connection without a token may do everything.",
    settings=lambda settings: attrs.evolve(settings, authentication="open"),
)


@fault
class ForeignCallsTouchable(Fault):
    """Who knows the call_sid of another tenant's call may end it."""

    def request(self, peer: Peer, method: MethodId, message: Any) -> Any:
        call = self.hands.calls.get(getattr(message, "call_sid", ""))
        if call is not None:
            call.tenant = peer.tenant
        return message


# -- envelopes ------------------------------------------------------------------------------------------------------


@fault
class StrictTrailingBytes(Fault):
    """An envelope with fields that are not known is refused."""

    def body(self, peer: Peer, method: MethodId, body: bytes) -> bytes:
        if m.decode_counted(m.METHODS[method].request, body).skipped:
            raise RemoteProtocolError("unknown fields", reason="field_truncated")
        return body


@fault
class Version0Refused(Fault):
    """An OriginateRequest of version 0 is refused."""

    def body(self, peer: Peer, method: MethodId, body: bytes) -> bytes:
        if method is MethodId.Originate and body[:1] == b"\0":
            raise RemoteProtocolError("this version is too old", reason="incompatible")
        return body


@fault
class PayloadSizeIgnored(Fault):
    """The size that an envelope states is not looked at."""

    def body(self, peer: Peer, method: MethodId, body: bytes) -> bytes:
        return body[:2] + struct.pack("<i", len(body) - 6) + body[6:]


@fault
class StringLengthUnchecked(Fault):
    """A string length that cannot be ends the connection."""

    def body(self, peer: Peer, method: MethodId, body: bytes) -> bytes:
        try:
            m.decode(m.METHODS[method].request, body)
        except RemoteProtocolError as error:
            if error.reason in ("negative_length", "length_past_end"):
                self.hands.drop(peer)
        return body


@fault
class CompatVersionIgnored(Fault):
    """A request that asks for a newer reader is carried out."""

    def body(self, peer: Peer, method: MethodId, body: bytes) -> bytes:
        return b"\1\0" + body[2:] if body[1:2] > b"\1" else body


@fault
class InvalidUtf8ClosesConnection(Fault):
    """A string that is no UTF-8 ends the connection."""

    def request(self, peer: Peer, method: MethodId, message: Any) -> Any:
        texts = [value for name in message.__slots__ if isinstance(value := getattr(message, name, None), str)]
        if any("\ud800" <= letter <= "\udfff" for text in texts for letter in text):
            self.hands.drop(peer)
        return message


@fault
class UndefinedActionCrashes(Fault):
    """A dialplan action that is none ends the connection."""

    def request(self, peer: Peer, method: MethodId, message: Any) -> Any:
        if isinstance(message, m.ExecuteDialplanRequest) and not 0 <= message.action <= 14:
            self.hands.drop(peer)
        return message


@fault
class BytesBehindTheEnvelope(Fault):
    """Two bytes follow the envelope of every event, within its frame."""

    def frame(self, stream: object, method: MethodId, data: bytes) -> bytes:
        if method is not MethodId.StreamEvents:
            return data
        return struct.pack("<I", len(data) - 4 + 2) + data[4:] + b"\0\0"


# -- frames ---------------------------------------------------------------------------------------------------------


class _Header(Fault):
    def frame(self, stream: object, method: MethodId, data: bytes) -> bytes:
        length, number = struct.unpack_from("<II", data)
        return self.header(length, number) + data[8:]

    def header(self, length: int, number: int) -> bytes:
        """The eight bytes before a body."""
        raise NotImplementedError


@fault
class LengthBigEndian(_Header):
    """The length of a frame is big-endian."""

    def header(self, length: int, number: int) -> bytes:
        return struct.pack(">I", length) + struct.pack("<I", number)


@fault
class LengthIncludesItself(_Header):
    """The length of a frame counts its own four bytes."""

    def header(self, length: int, number: int) -> bytes:
        return struct.pack("<II", length + 4, number)


@fault
class MethodIdBigEndian(_Header):
    """Method ids are big-endian."""

    def header(self, length: int, number: int) -> bytes:
        return struct.pack("<I", length) + struct.pack(">I", number)


@fault
class OldMethodIds(_Header):
    """Method ids are small numbers, counted from 1."""

    def header(self, length: int, number: int) -> bytes:
        return struct.pack("<II", length, 1 + list(MethodId).index(MethodId(number)))


def _whole_frames(data: bytes) -> Iterable[bytes]:
    while len(data) >= 4 and (end := 4 + int.from_bytes(data[:4], "little")) <= len(data):
        yield data[:end]
        data = data[end:]


@fault
class SplitFramesLost(Fault):
    """A frame that does not come in one piece is lost."""

    def uplink(self, peer: Peer, stream: object, data: bytes) -> bytes:
        return b"".join(_whole_frames(data))


@fault
class CoalescedFramesLost(Fault):
    """Of frames that come together the first one is read."""

    def uplink(self, peer: Peer, stream: object, data: bytes) -> bytes:
        return next(iter(_whole_frames(data)), data)


@fault
class WaitsFor4Gib(Fault):
    """A frame of 4 GiB is waited for."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._waiting: set[int] = set()

    def uplink(self, peer: Peer, stream: object, data: bytes) -> bytes:
        if id(stream) in self._waiting or int.from_bytes(data[:4], "little") > MAX_FRAME_LENGTH:
            self._waiting.add(id(stream))
            return b""
        return data


@fault
class OneBadFrameKillsEverything(Fault):
    """A frame that is too short ends every connection."""

    def odd(self, peer: Peer, what: Oddity) -> None:
        if what == "short":
            for each in self.hands.peers:
                self.hands.drop(each)


class _Unforgiving(Fault):
    what: Oddity

    def odd(self, peer: Peer, what: Oddity) -> None:
        if what == self.what:
            self.hands.drop(peer)


@fault
class ShortFrameKillsTheConnection(_Unforgiving):
    """A frame that is too short ends its connection."""

    what = "short"


@fault
class TruncatedFrameKillsTheConnection(_Unforgiving):
    """A frame that is cut off ends its connection."""

    what = "truncated"


@fault
class UnknownMethodClosesConnection(_Unforgiving):
    """A frame of an unknown method ends its connection."""

    what = "unknown_method"


@fault
class RandomBytesCrashNeighbours(Fault):
    """A request that cannot be read, or too long a frame, ends every connection."""

    def odd(self, peer: Peer, what: Oddity) -> None:
        if what in ("request", "too_long", "undecodable", "truncated"):
            for each in self.hands.peers:
                self.hands.drop(each)


@fault
class MalformedLoadBlocks(Fault):
    """Whatever cannot be read holds up everybody's replies for a moment."""

    def __init__(self, dice: Dice) -> None:
        super().__init__(dice)
        self._until = 0.0

    def odd(self, peer: Peer, what: Oddity) -> None:
        self._until = self.hands.now() + 0.2

    def reply_after(self, peer: Peer, method: MethodId) -> float:
        return max(0.0, self._until - self.hands.now())
