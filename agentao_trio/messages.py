"""Every message of the protocol, its enumerations and its methods (PROTOCOL sections 6, 7 and 8).

One frozen class per message. Attributes are spelled and ordered as in the protocol, because their order is the wire's.
Constructors take keywords and plain values, every field has a default, and nothing is checked until :func:`encode`,
which raises ``LocalProtocolError`` for a value that cannot be written.

What the peer may do is wide. Text is ``str``, but may hold any bytes: those that are not UTF-8 are lone surrogates
(``surrogateescape``) and go out again as they came. Enumerations are open: a number without a name stays a plain
``int``. Fields behind the ones known here are skipped, missing last ones take their defaults. Everything else that does
not add up raises ``RemoteProtocolError``.

Tokens and audio are left out of ``repr``, so that they reach no log. Times named ``…_ms`` are milliseconds: durations,
or instants since the Unix epoch. An unset field is 0 or empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum, unique
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import attrs

from agentao_trio import envelope
from agentao_trio.envelope import Decoded as Decoded
from agentao_trio.errors import LocalProtocolError
from agentao_trio.wire import MAX_FRAME_LENGTH

# -- enumerations -----------------------------------------------------------------------------------------------------


@unique
class ErrorCode(IntEnum):
    """Why an RPC was refused."""

    SUCCESS = 0
    ERR_INVALID_TRUNK = 1
    ERR_INVALID_DESTINATION = 2
    ERR_RATE_LIMITED = 3
    ERR_CIRCUIT_BREAKER = 4
    ERR_INTERNAL_ERROR = 5
    ERR_VALIDATION_FAILED = 6
    ERR_UNAUTHORIZED = 7


@unique
class DialplanAction(IntEnum):
    """What the gateway does with a call. 0 to 6 may start one (``default_app``), 7 to 12 only happen to a live one."""

    HANGUP = 0
    PARK = 1
    MUSIC_ON_HOLD = 2
    PLAYBACK = 3
    UNPARK_AND_BRIDGE = 4
    ANSWER = 5
    AI_BIDIRECTIONAL_STREAM = 6
    TRANSFER = 7
    MUTE = 8
    UNMUTE = 9
    HOLD = 10
    UNHOLD = 11
    SEND_DTMF = 12
    #: The gateway's own; a client must not send it.
    SUPERVISE = 13
    #: An echo for diagnostics.
    LOOPBACK = 14


@unique
class InboundRule(IntEnum):
    """What a trunk does with calls that come in."""

    REJECT = 0
    PLAY_AND_HANGUP = 1
    NOTIFY_AND_HANGUP = 2
    HANDLE_AI = 3


@unique
class EventType(IntEnum):
    """What happened to a call. Newer gateways send other numbers (PROTOCOL section 16.8)."""

    UNKNOWN = 0
    CHANNEL_CREATE = 1
    CHANNEL_ANSWER = 2
    CHANNEL_HANGUP_COMPLETE = 3
    CHANNEL_HOLD = 4
    CHANNEL_RESUME = 5


@unique
class SuperviseMode(IntEnum):
    """What a third party on a call may do; one byte on the wire."""

    MONITOR = 0
    WHISPER_AGENT = 1
    WHISPER_CALLER = 2
    BARGE = 3
    AGENTIC_MONITOR = 4


# -- how a field of each type is written ------------------------------------------------------------------------------

Int32 = Annotated[int, envelope.INT32]
Int64 = Annotated[int, envelope.INT64]
UInt16 = Annotated[int, envelope.UINT16]
UInt32 = Annotated[int, envelope.UINT32]
UInt64 = Annotated[int, envelope.UINT64]
Code = Annotated[ErrorCode | int, envelope.Enumeration(ErrorCode)]
Action = Annotated[DialplanAction | int, envelope.Enumeration(DialplanAction)]
Rule = Annotated[InboundRule | int, envelope.Enumeration(InboundRule)]
Event = Annotated[EventType | int, envelope.Enumeration(EventType)]
Mode = Annotated[SuperviseMode | int, envelope.Enumeration(SuperviseMode, envelope.INT8)]

_PLAIN: Mapping[type, envelope.Kind] = {
    str: envelope.TEXT,
    bytes: envelope.BYTES,
    bool: envelope.BOOL,
    float: envelope.DOUBLE,
}


# -- messages ---------------------------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Message:
    """What all messages are. ``version`` is the schema version we write, ``compat`` the oldest a reader must know."""

    version: ClassVar[int] = 0
    compat: ClassVar[int] = 0


M = TypeVar("M", bound=Message)


def _as_tuple(elements: Sequence[Any]) -> tuple[Any, ...]:
    """A list becomes a tuple, so that messages stay frozen; anything else is left for encode to judge."""
    return tuple(elements) if isinstance(elements, list) else elements  # type: ignore[return-value]


def _without_token(tenant: object) -> str:
    """A tenant's name as it is. Some clients put their token in its place (PROTOCOL section 2.3)."""
    return "'…'" if isinstance(tenant, str) and tenant.startswith("eyJ") else repr(tenant)


@attrs.frozen(kw_only=True)
class _CallReply(Message):
    call_sid: str = ""
    status: str = ""
    error_message: str = ""
    error_code: Code = ErrorCode.SUCCESS
    timestamp_ms: Int64 = 0


@attrs.frozen(kw_only=True)
class OriginateRequest(Message):
    """Place one call.

    ``max_duration_ms`` 0 sets no limit. With an empty ``call_sid`` the gateway assigns one. ``default_app`` and
    ``default_app_args`` say what happens when the far end answers; ``auto_barge_in`` interrupts the agent once the
    caller has spoken for ``barge_in_patience_ms``. ``client_id`` names the event stream that gets the call,
    ``traceparent`` is W3C Trace Context.
    """

    version: ClassVar[int] = 1

    trunk_id: str = ""
    to: str = ""
    call_from: str = ""
    ai_websocket_url: str = ""
    ai_quic_url: str = ""
    tenant_id: str = attrs.field(default="", repr=_without_token)
    max_duration_ms: Int32 = 0
    call_sid: str = ""
    default_app: Action = DialplanAction.HANGUP
    default_app_args: str = ""
    auto_barge_in: bool = False
    barge_in_patience_ms: Int32 = 0
    client_id: str = ""
    session_id: UInt32 = 0
    agent_config_key: str = ""
    traceparent: str = ""


@attrs.frozen(kw_only=True)
class AudioFrame(Message):
    """One packet of a call's audio, in either direction.

    ``sequence_number`` counts frames of one call and direction; ``end_of_stream`` marks the last one, whose payload may
    be empty.
    """

    call_sid: str = ""
    payload: bytes = attrs.field(default=b"", repr=False)
    codec: str = ""
    sequence_number: UInt64 = 0
    end_of_stream: bool = False


@attrs.frozen(kw_only=True)
class Empty(Message):
    """No fields."""


@attrs.frozen(kw_only=True)
class BargeRequest(Message):
    """Interrupt what is being said to the caller."""

    call_sid: str = ""


@attrs.frozen(kw_only=True)
class OriginateResponse(_CallReply):
    """The answer to Originate; ``call_sid`` is the one in force."""


@attrs.frozen(kw_only=True)
class BulkRequest(Message):
    """Place a call for each row of a file that the gateway fetches from ``csv_url``; the template fills each call.

    ``calls_per_second`` and ``max_concurrent_calls`` hold it back.
    """

    csv_url: str = ""
    template_trunk_id: str = ""
    template_to: str = ""
    template_call_from: str = ""
    template_ai_websocket_url: str = ""
    template_ai_quic_url: str = ""
    template_tenant_id: str = attrs.field(default="", repr=_without_token)
    template_max_duration_ms: Int32 = 0
    template_default_app: Action = DialplanAction.HANGUP
    template_default_app_args: str = ""
    calls_per_second: Int32 = 0
    max_concurrent_calls: Int32 = 0
    campaign_id: str = ""


@attrs.frozen(kw_only=True)
class BulkResponse(Message):
    """How many rows were taken up."""

    status: str = ""
    loaded_numbers: Int32 = 0


@attrs.frozen(kw_only=True)
class AbortBulkRequest(Message):
    """Drop the campaign's pending rows; running calls finish."""

    campaign_id: str = ""


@attrs.frozen(kw_only=True)
class TerminateRequest(Message):
    """End one call."""

    call_sid: str = ""


@attrs.frozen(kw_only=True)
class TerminateResponse(_CallReply):
    """The answer to Terminate."""


@attrs.frozen(kw_only=True)
class SetInboundRoutingRequest(Message):
    """What a trunk does with calls from now on; which of the URLs is used follows from ``rule``."""

    trunk_id: str = ""
    rule: Rule = InboundRule.REJECT
    audio_url: str = ""
    webhook_url: str = ""
    ai_websocket_url: str = ""
    ai_quic_url: str = ""


@attrs.frozen(kw_only=True)
class EventStreamRequest(Message):
    """Subscribe this connection to the events and the audio of ``client_id``."""

    client_id: str = ""


@attrs.frozen(kw_only=True)
class CallEvent(Message):
    """Something happened to a call (PROTOCOL section 10).

    Branch on ``event_type`` and ``q850_cause`` (ITU-T Q.850); ``status`` is for people. ``timestamp_ms`` is when the
    event was sent. The counters, ``jitter_ms`` and ``estimated_mos`` (1 to 5) are set at hangup.
    """

    call_sid: str = ""
    event_type: Event = EventType.UNKNOWN
    status: str = ""
    start_timestamp_ms: Int64 = 0
    q850_cause: Int32 = 0
    recording_url: str = ""
    duration_seconds: Int32 = 0
    answer_timestamp_ms: Int64 = 0
    end_timestamp_ms: Int64 = 0
    packets_sent: UInt32 = 0
    packets_received: UInt32 = 0
    packets_lost: UInt32 = 0
    bytes_sent: UInt64 = 0
    jitter_ms: float = 0.0
    estimated_mos: float = 0.0
    trunk_id: str = ""
    tenant_id: str = attrs.field(default="", repr=_without_token)
    codec: str = ""
    timestamp_ms: Int64 = 0
    client_id: str = ""


@attrs.frozen(kw_only=True)
class GetIncomingCallsRequest(Message):
    """Ask for the calls that wait on a trunk."""

    trunk_id: str = ""


@attrs.frozen(kw_only=True)
class IncomingCallInfo(Message):
    """One call that waits to be answered."""

    call_sid: str = ""
    call_from: str = ""
    start_timestamp_ms: Int64 = 0


@attrs.frozen(kw_only=True)
class GetIncomingCallsResponse(Message):
    """The calls that wait."""

    calls: tuple[IncomingCallInfo, ...] = attrs.field(default=(), converter=_as_tuple)


@attrs.frozen(kw_only=True)
class AnswerIncomingCallRequest(Message):
    """Accept a waiting call and bridge it to one of the URLs; both empty only answers it."""

    call_sid: str = ""
    ai_websocket_url: str = ""
    ai_quic_url: str = ""


@attrs.frozen(kw_only=True)
class AnswerIncomingCallResponse(_CallReply):
    """The answer to AnswerIncomingCall."""


@attrs.frozen(kw_only=True)
class BucketInfo(Message):
    """One queue of calls to be placed, and how many are in it."""

    bucket_id: str = ""
    pending_count: Int32 = 0


@attrs.frozen(kw_only=True)
class ListBucketsResponse(Message):
    """The queues there are."""

    buckets: tuple[BucketInfo, ...] = attrs.field(default=(), converter=_as_tuple)


@attrs.frozen(kw_only=True)
class BucketRequest(Message):
    """Ask for the calls in one queue."""

    bucket_id: str = ""


@attrs.frozen(kw_only=True)
class BucketCallList(Message):
    """The calls in one queue, their sids in one string (a comma is assumed to part them)."""

    call_sids: str = ""


@attrs.frozen(kw_only=True)
class BucketActionRequest(Message):
    """Do something with one queue; the numbers of the actions are unpublished."""

    bucket_id: str = ""
    action: Int32 = 0


@attrs.frozen(kw_only=True)
class BucketActionResponse(Message):
    """How many calls the action touched."""

    processed_count: Int32 = 0


@attrs.frozen(kw_only=True)
class ExecuteDialplanRequest(Message):
    """Do something to a live call; PROTOCOL section 9.2 has the grammar of ``app_args``."""

    call_sid: str = ""
    action: Action = DialplanAction.HANGUP
    app_args: str = ""


@attrs.frozen(kw_only=True)
class ExecuteDialplanResponse(Message):
    """The answer to ExecuteDialplan."""

    status: str = ""
    error_message: str = ""
    error_code: Code = ErrorCode.SUCCESS


@attrs.frozen(kw_only=True)
class AllocateWtRequest(Message):
    """Ask where to dial WebTransport media for a call."""

    call_sid: str = ""
    agent_id: str = ""
    tenant_id: str = attrs.field(default="", repr=_without_token)
    trunk_id: str = ""
    realm: str = ""


@attrs.frozen(kw_only=True)
class AllocateWtResponse(Message):
    """Where to dial, and the token to bring."""

    host: str = ""
    port: UInt16 = 0
    node_id: str = ""
    media_token: str = attrs.field(default="", repr=False)
    status: str = ""
    error_message: str = ""
    error_code: Code = ErrorCode.SUCCESS
    timestamp_ms: Int64 = 0


@attrs.frozen(kw_only=True)
class SuperviseSubscribeRequest(Message):
    """Listen in on a call as a third party, and speak where ``mode`` allows it."""

    call_sid: str = ""
    supervisor_id: str = ""
    tenant_id: str = attrs.field(default="", repr=_without_token)
    mode: Mode = SuperviseMode.MONITOR
    auth_token: str = attrs.field(default="", repr=False)


@attrs.frozen(kw_only=True)
class SuperviseSubscribeResponse(Message):
    """The answer to SuperviseSubscribe."""

    status: str = ""
    error_message: str = ""


def _fields(cls: type[Message]) -> Iterator[envelope.Field]:
    hints = get_type_hints(cls, include_extras=True)
    for attribute in attrs.fields(cls):
        yield envelope.Field(attribute.name, _kind(hints[attribute.name]), attribute.default)


def _kind(hint: Any) -> envelope.Kind:
    origin = get_origin(hint)
    if origin is Annotated:
        kind: envelope.Kind = hint.__metadata__[0]
        return kind
    if origin is tuple:
        return envelope.Vector(_layout(get_args(hint)[0]))
    return _PLAIN[hint]


def _layout(cls: type[M]) -> envelope.Layout[M]:
    return envelope.Layout(cls, _fields(cls), version=cls.version, compat=cls.compat)


#: Every message class above, by its name on the wire.
MESSAGES: Final[Mapping[str, type[Message]]] = MappingProxyType(
    {
        name: thing
        for name, thing in globals().items()
        if isinstance(thing, type) and issubclass(thing, Message) and thing is not Message and name[0] != "_"
    }
)

_LAYOUTS: Mapping[type[Message], envelope.Layout[Any]] = {cls: _layout(cls) for cls in MESSAGES.values()}

_MAX_ENVELOPE = MAX_FRAME_LENGTH - 4  # a frame's length counts its method id as well


def encode(message: Message) -> bytes:
    """The envelope of ``message``, ready to be put in a frame.

    Raises ``LocalProtocolError`` for a value of the wrong type, a number out of its range and a message that no frame
    could hold; the text names the message, the field and what would be right.
    """
    data = _layout_of(type(message)).encode(message)
    if len(data) > _MAX_ENVELOPE:
        raise LocalProtocolError(
            f"{type(message).__name__} comes to {len(data)} bytes; a frame holds no more than {_MAX_ENVELOPE}"
        )
    return data


def decode(cls: type[M], data: bytes) -> M:
    """The message of class ``cls`` that begins ``data``; what follows its envelope is ignored.

    Raises ``RemoteProtocolError`` (PROTOCOL section 5; the reasons are listed in :mod:`agentao_trio.envelope`).
    """
    message: M = _layout_of(cls).decode(data)
    return message


def decode_counted(cls: type[M], data: bytes) -> Decoded[M]:
    """Like :func:`decode`, and tells how many bytes were not understood: within the envelope, and behind it."""
    decoded: Decoded[M] = _layout_of(cls).decode_by_field(data, 0, len(data))
    return decoded


def _layout_of(cls: type[M]) -> envelope.Layout[M]:
    try:
        return _LAYOUTS[cls]
    except KeyError:
        raise LocalProtocolError(f"{cls.__name__} is not a message of the protocol") from None


# -- methods ----------------------------------------------------------------------------------------------------------


@unique
class MethodId(IntEnum):
    """The number a frame carries for its method; names as the gateway has them (PROTOCOL section 8)."""

    Originate = 1430677891
    OriginateBulk = 721069100
    AbortBulk = 3861915064
    Terminate = 3834253405
    #: Events are pushed under it as well.
    StreamEvents = 959835745
    SetInboundRouting = 1933986897
    GetIncomingCalls = 1161946746
    AnswerIncomingCall = 2990157256
    GetActiveBuckets = 2624504207
    GetBucketCalls = 1217351135
    ExecuteBucketAction = 4030863293
    ExecuteDialplan = 80147304
    Barge = 3854301714
    SuperviseSubscribe = 425376200
    #: On unidirectional streams only.
    AudioFrame = 2991054320
    AllocateWt = 1763028449


class Method(NamedTuple):
    """An RPC: the class of its request, and that of its reply."""

    request: type[Message]
    reply: type[Message]


#: The RPCs. AudioFrame is none: it is never answered. StreamEvents is answered by CallEvents on other streams.
METHODS: Final[Mapping[MethodId, Method]] = MappingProxyType(
    {
        MethodId.Originate: Method(OriginateRequest, OriginateResponse),
        MethodId.OriginateBulk: Method(BulkRequest, BulkResponse),
        MethodId.AbortBulk: Method(AbortBulkRequest, BulkResponse),
        MethodId.Terminate: Method(TerminateRequest, TerminateResponse),
        MethodId.StreamEvents: Method(EventStreamRequest, CallEvent),
        MethodId.SetInboundRouting: Method(SetInboundRoutingRequest, Empty),
        MethodId.GetIncomingCalls: Method(GetIncomingCallsRequest, GetIncomingCallsResponse),
        MethodId.AnswerIncomingCall: Method(AnswerIncomingCallRequest, AnswerIncomingCallResponse),
        MethodId.GetActiveBuckets: Method(Empty, ListBucketsResponse),
        MethodId.GetBucketCalls: Method(BucketRequest, BucketCallList),
        MethodId.ExecuteBucketAction: Method(BucketActionRequest, BucketActionResponse),
        MethodId.ExecuteDialplan: Method(ExecuteDialplanRequest, ExecuteDialplanResponse),
        MethodId.Barge: Method(BargeRequest, Empty),
        MethodId.SuperviseSubscribe: Method(SuperviseSubscribeRequest, SuperviseSubscribeResponse),
        MethodId.AllocateWt: Method(AllocateWtRequest, AllocateWtResponse),
    }
)

#: Other numbers in circulation for the same methods: understood, never sent.
ALIASES: Final[Mapping[int, MethodId]] = MappingProxyType(
    {
        9999: MethodId.AudioFrame,
        10000: MethodId.StreamEvents,
        3514036100: MethodId.ExecuteDialplan,
        2856173042: MethodId.SuperviseSubscribe,
    }
)

_BY_NUMBER: Mapping[int, MethodId] = {**{method.value: method for method in MethodId}, **ALIASES}


def method_of(number: int) -> MethodId | None:
    """The method a frame's number stands for, aliases included, or None for one that nobody has told us about."""
    return _BY_NUMBER.get(number)
