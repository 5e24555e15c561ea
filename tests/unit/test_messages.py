"""The catalogue of messages and methods, and what encode and decode refuse."""

from __future__ import annotations

import math
import pickle
import struct
import tracemalloc
import zlib
from enum import IntEnum
from typing import Any

import attrs
import pytest

from agentao_trio import messages
from agentao_trio.errors import LocalProtocolError, RemoteProtocolError
from agentao_trio.messages import (
    ALIASES,
    MESSAGES,
    METHODS,
    AllocateWtResponse,
    AudioFrame,
    BucketInfo,
    CallEvent,
    DialplanAction,
    Empty,
    ErrorCode,
    EventType,
    GetIncomingCallsResponse,
    InboundRule,
    IncomingCallInfo,
    ListBucketsResponse,
    Message,
    MethodId,
    OriginateRequest,
    OriginateResponse,
    SuperviseMode,
    SuperviseSubscribeRequest,
    TerminateRequest,
    TerminateResponse,
)
from agentao_trio.wire import MAX_FRAME_LENGTH, FrameDecoder, encode_frame
from tests.golden.values import VECTORS, octets

EVERY_MESSAGE = pytest.mark.parametrize("cls", MESSAGES.values(), ids=MESSAGES)


# -- methods ----------------------------------------------------------------------------------------------------------


def derived_id(method: MethodId) -> int:
    """PROTOCOL section 8.1: the service's number, mixed with that of the method and the two classes it joins."""
    rpc = METHODS[method]
    namespace = "clutchcall::api"
    separator = f"{namespace}:"
    signature = separator.join(
        [method.name, f"{namespace}::{rpc.request.__name__}", f"{namespace}::{rpc.reply.__name__}"]
    )
    return zlib.crc32(f"{separator}clutchcall".encode()) ^ zlib.crc32(signature.encode())


#: These look hand-assigned: no formula gives them.
CONSTANTS = {MethodId.AudioFrame, MethodId.AllocateWt}


@pytest.mark.parametrize("method", sorted(set(MethodId) - CONSTANTS), ids=lambda method: method.name)
def test_method_ids_follow_from_their_signatures(method: MethodId) -> None:
    assert derived_id(method) == method


def test_two_methods_have_constants() -> None:
    assert {method.value for method in CONSTANTS} == {2991054320, 1763028449}
    assert derived_id(MethodId.AllocateWt) == 1883317180
    assert not set(ALIASES) & {derived_id(method) for method in METHODS}


def test_every_method_but_audio_is_a_request_with_a_reply() -> None:
    assert set(METHODS) == set(MethodId) - {MethodId.AudioFrame}
    for rpc in METHODS.values():
        assert {rpc.request, rpc.reply} <= set(MESSAGES.values())


@pytest.mark.parametrize(
    ("number", "method"),
    [
        (80147304, MethodId.ExecuteDialplan),
        (3514036100, MethodId.ExecuteDialplan),
        (425376200, MethodId.SuperviseSubscribe),
        (2856173042, MethodId.SuperviseSubscribe),
        (2991054320, MethodId.AudioFrame),
        (9999, MethodId.AudioFrame),
        (959835745, MethodId.StreamEvents),
        (10000, MethodId.StreamEvents),
        (0, None),
        (-1, None),
        (3357922138, None),
    ],
)
def test_a_number_stands_for_a_method(number: int, method: MethodId | None) -> None:
    assert messages.method_of(number) is method


# -- messages ---------------------------------------------------------------------------------------------------------


@EVERY_MESSAGE
def test_an_empty_payload_is_a_message_of_defaults(cls: type[Message]) -> None:
    assert messages.decode(cls, bytes(6)) == cls()


@EVERY_MESSAGE
def test_messages_are_values(cls: type[Message]) -> None:
    assert cls() == cls()
    assert hash(cls()) == hash(cls())
    assert pickle.loads(pickle.dumps(cls())) == cls()
    assert not hasattr(cls(), "__dict__")
    for attribute in attrs.fields(cls):
        assert attribute.kw_only
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(cls(), attribute.name, None)


def test_decoded_messages_are_the_same_values() -> None:
    event = CallEvent(call_sid="c", event_type=EventType.CHANNEL_ANSWER, jitter_ms=1.5)
    decoded = messages.decode(CallEvent, messages.encode(event))
    assert decoded == event
    assert hash(decoded) == hash(event)
    assert repr(decoded) == repr(event)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        decoded.call_sid = "d"  # type: ignore[misc]


def test_equal_fields_do_not_make_equal_messages() -> None:
    placed: Message = OriginateResponse(call_sid="c")
    ended: Message = TerminateResponse(call_sid="c")
    assert placed != ended


def test_tokens_and_audio_do_not_show() -> None:
    assert "secret" not in repr(SuperviseSubscribeRequest(auth_token="secret"))
    assert "secret" not in repr(AllocateWtResponse(media_token="secret"))
    assert "secret" not in repr(AudioFrame(payload=b"secret"))
    assert "tenant_id='…'" in repr(CallEvent(tenant_id="eyJ-some-token"))
    assert "tenant_id='acme'" in repr(CallEvent(tenant_id="acme"))


def test_lists_become_tuples() -> None:
    calls = [IncomingCallInfo(call_sid="a")]
    waiting = GetIncomingCallsResponse(calls=calls)
    calls.clear()
    assert waiting.calls == (IncomingCallInfo(call_sid="a"),)
    assert messages.decode(GetIncomingCallsResponse, messages.encode(waiting)) == waiting


def test_an_originate_request_is_written_as_version_one_for_readers_of_version_zero() -> None:
    assert messages.encode(OriginateRequest())[:2] == b"\x01\x00"
    assert messages.encode(TerminateRequest())[:2] == b"\x00\x00"


# -- enumerations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "names"),
    [
        (ErrorCode, 8),
        (DialplanAction, 15),
        (InboundRule, 4),
        (EventType, 6),
        (SuperviseMode, 5),
    ],
)
def test_enumerations_number_their_names_from_zero(numbers: type[IntEnum], names: int) -> None:
    assert list(numbers) == list(range(names))


def test_known_numbers_come_back_with_their_names() -> None:
    event = messages.decode(CallEvent, messages.encode(CallEvent(event_type=2)))
    assert event.event_type is EventType.CHANNEL_ANSWER
    assert messages.decode(CallEvent, bytes(6)).event_type is EventType.UNKNOWN


@pytest.mark.parametrize("number", [6, 99, -1, 2**31 - 1, -(2**31)])
def test_unknown_numbers_survive(number: int) -> None:
    event = messages.decode(CallEvent, messages.encode(CallEvent(event_type=number)))
    assert event.event_type == number
    assert type(event.event_type) is int
    assert messages.encode(event) == messages.encode(CallEvent(event_type=number))


def test_the_mode_of_supervision_is_one_byte() -> None:
    request = SuperviseSubscribeRequest(mode=SuperviseMode.BARGE)
    assert len(messages.encode(request)) == len(messages.encode(Empty())) + 4 * 4 + 1
    assert messages.decode(SuperviseSubscribeRequest, messages.encode(request)) == request
    unknown = SuperviseSubscribeRequest(mode=-128)
    assert messages.decode(SuperviseSubscribeRequest, messages.encode(unknown)).mode == -128


# -- what any bytes become --------------------------------------------------------------------------------------------


def test_text_that_is_not_utf_8_comes_back_byte_for_byte() -> None:
    raw = b"caf\xe9\x00\xff"
    body = struct.pack("<BBii", 0, 0, 4 + len(raw), len(raw)) + raw
    request = messages.decode(TerminateRequest, body)
    assert request.call_sid == "caf\udce9\x00\udcff"
    assert messages.encode(request) == body


def test_payloads_are_bytes() -> None:
    everything = bytes(range(256))
    frame = messages.decode(AudioFrame, messages.encode(AudioFrame(payload=everything)))
    assert frame.payload == everything
    assert type(frame.payload) is bytes


@pytest.mark.parametrize("bits", ["7ff8000000000000", "fff8000000000001", "7ff0000000000000", "8000000000000000"])
def test_doubles_keep_their_bits(bits: str) -> None:
    (value,) = struct.unpack(">d", bytes.fromhex(bits))
    event = messages.decode(CallEvent, messages.encode(CallEvent(jitter_ms=value)))
    assert math.isnan(event.jitter_ms) == math.isnan(value)
    assert struct.pack(">d", event.jitter_ms).hex() == bits


def test_bytes_not_understood_are_counted() -> None:
    body = struct.pack("<BBii", 9, 0, 4 + 1 + 3, 1) + b"c" + b"new" + b"after"
    decoded = messages.decode_counted(TerminateRequest, body)
    assert decoded == (TerminateRequest(call_sid="c"), 3, 5)
    assert (decoded.skipped, decoded.after) == (3, 5)


@pytest.mark.parametrize("known", range(10))
def test_an_older_writer_may_have_stopped_behind_any_number(known: int) -> None:
    """These nine stand side by side and are read in one step where all are there."""
    codes, values = "iqqIIIQdd", (5, 1_000, 9_000, 250, 249, 1, 40_000, 1.5, 4.25)
    names = "duration_seconds answer_timestamp_ms end_timestamp_ms packets_sent packets_received packets_lost"
    names += " bytes_sent jitter_ms estimated_mos"
    fields = struct.pack("<iiiqii", 0, EventType.CHANNEL_HANGUP_COMPLETE, 0, 77, 16, 0) + struct.pack(
        "<" + codes[:known], *values[:known]
    )
    event = messages.decode(CallEvent, struct.pack("<BBi", 0, 0, len(fields)) + fields)
    told: dict[str, Any] = dict(zip(names.split()[:known], values, strict=False))
    ended = CallEvent(event_type=EventType.CHANNEL_HANGUP_COMPLETE, start_timestamp_ms=77, q850_cause=16)
    assert event == attrs.evolve(ended, **told)
    if known:
        with pytest.raises(RemoteProtocolError) as refusal:
            messages.decode(CallEvent, struct.pack("<BBi", 0, 0, len(fields) - 1) + fields[:-1])
        begun = len(fields) - struct.calcsize("<" + codes[known - 1])
        assert (refusal.value.reason, refusal.value.offset) == ("field_truncated", 6 + begun)


def test_unknown_bytes_of_an_element_are_skipped_where_they_stand() -> None:
    """They do not count as skipped: that number is about the envelope that was asked for."""
    element = struct.pack("<BBii", 1, 0, 4 + 1 + 4 + 2, 1) + b"b" + struct.pack("<i", 5) + b"??"
    body = struct.pack("<BBiI", 0, 0, 4 + 2 * len(element), 2) + 2 * element
    bucket = BucketInfo(bucket_id="b", pending_count=5)
    assert messages.decode_counted(ListBucketsResponse, body) == (ListBucketsResponse(buckets=(bucket, bucket)), 0, 0)


# -- what decode refuses ----------------------------------------------------------------------------------------------

SID = b"\x02\x00\x00\x00a0"


@pytest.mark.parametrize(
    ("cls", "body", "reason", "offset"),
    [
        (Empty, b"\x00" * 5, "truncated_header", 0),
        (Empty, b"\x00\x01" + bytes(4), "incompatible", 1),
        (Empty, b"\x00\x00\xff\xff\xff\xff", "bad_payload_size", 2),
        (Empty, b"\x00\x00\x01\x00\x00\x00", "payload_size_past_end", 2),
        (TerminateRequest, b"\x00\x00\x03\x00\x00\x00" + SID, "field_truncated", 6),
        (TerminateRequest, b"\x00\x00\x05\x00\x00\x00" + SID, "length_past_end", 6),
        (TerminateRequest, b"\x00\x00\x04\x00\x00\x00\xff\xff\xff\xff", "negative_length", 6),
        (AllocateWtResponse, b"\x00\x00\x07\x00\x00\x00" + SID + b"\x01", "field_truncated", 12),
        (ListBucketsResponse, b"\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00", "bad_count", 6),
        (ListBucketsResponse, b"\x00\x00\x0f\x00\x00\x00\x02\x00\x00\x00" + bytes(11), "bad_count", 6),
        (ListBucketsResponse, b"\x00\x00\x03\x00\x00\x00\x01\x00\x00", "field_truncated", 6),
        (ListBucketsResponse, b"\x00\x00\x0a\x00\x00\x00\x01\x00\x00\x00\x00\x07" + bytes(4), "incompatible", 11),
    ],
)
def test_a_refusal_says_why_and_where(cls: type[Message], body: bytes, reason: str, offset: int) -> None:
    with pytest.raises(RemoteProtocolError) as refusal:
        messages.decode(cls, body)
    assert (refusal.value.reason, refusal.value.offset) == (reason, offset)


@pytest.mark.parametrize(
    "vector", [pytest.param(v, id=v["id"]) for v in VECTORS["decode"] if v["safe"]["outcome"] == "error"]
)
def test_no_untrue_size_is_acted_upon(vector: dict[str, Any]) -> None:
    cls, body = MESSAGES[vector["message"]], octets(vector, "body")
    messages.decode(cls, bytes(6))  # its reader is made now
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            messages.decode(cls, body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 4096


def test_only_messages_can_be_decoded() -> None:
    with pytest.raises(LocalProtocolError, match="Message is not a message"):
        messages.decode(Message, bytes(6))


# -- what encode refuses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "field", "value", "why"),
    [
        (OriginateRequest, "to", None, "takes text (str), not None"),
        (OriginateRequest, "to", 15550100001, "takes text (str), not int"),
        (OriginateRequest, "to", b"+1555", "takes text (str), not bytes"),
        (OriginateRequest, "to", "+1\ud800", "takes text: its character 2 is a surrogate that stands for no byte"),
        (OriginateRequest, "auto_barge_in", 1, "takes True or False, not int"),
        (OriginateRequest, "auto_barge_in", None, "takes True or False, not None"),
        (OriginateRequest, "max_duration_ms", 1.5, "takes a whole number (int32), not float"),
        (OriginateRequest, "max_duration_ms", True, "takes a whole number (int32), not bool"),
        (OriginateRequest, "max_duration_ms", 2**31, "takes int32: no less than -2147483648, no more than 2147483647"),
        (OriginateRequest, "default_app", "PARK", "takes a whole number (int32), not str"),
        (OriginateRequest, "default_app", 2**31, "takes int32: no less than -2147483648, no more than 2147483647"),
        (OriginateRequest, "session_id", -1, "takes uint32: no less than 0, no more than 4294967295"),
        (AudioFrame, "payload", "audio", "takes bytes, not str"),
        (AudioFrame, "payload", 160, "takes bytes, not int"),
        (AudioFrame, "sequence_number", -1, "takes uint64: no less than 0, no more than 18446744073709551615"),
        (AudioFrame, "sequence_number", 10**4000, "takes uint64: no less than 0, no more than 18446744073709551615"),
        (CallEvent, "timestamp_ms", 2**63, "takes int64: no less than -9223372036854775808, no more than"),
        (CallEvent, "jitter_ms", "1.5", "takes a number (double), not str"),
        (CallEvent, "jitter_ms", True, "takes a number (double), not bool"),
        (CallEvent, "jitter_ms", 10**400, "takes double: this whole number is too large for one"),
        (AllocateWtResponse, "port", 65536, "takes uint16: no less than 0, no more than 65535"),
        (SuperviseSubscribeRequest, "mode", 128, "takes int8: no less than -128, no more than 127"),
        (ListBucketsResponse, "buckets", None, "takes a list of BucketInfo, not None"),
        (ListBucketsResponse, "buckets", "buckets", "takes a list of BucketInfo, not str"),
        (ListBucketsResponse, "buckets", [BucketInfo(), 7], "has a wrong element 1: takes a BucketInfo, not int"),
        (
            ListBucketsResponse,
            "buckets",
            [BucketInfo(bucket_id=None)],  # type: ignore[arg-type]
            "has a wrong element 0: BucketInfo.bucket_id takes text (str), not None",
        ),
    ],
)
def test_a_value_that_cannot_be_written(cls: type[Message], field: str, value: Any, why: str) -> None:
    message = cls(**{field: value})  # constructing takes anything: one place checks
    with pytest.raises(LocalProtocolError) as refusal:
        messages.encode(message)
    assert str(refusal.value).startswith(f"{cls.__name__}.{field} {why}")


def test_a_refusal_does_not_repeat_the_value() -> None:
    with pytest.raises(LocalProtocolError) as refusal:
        messages.encode(SuperviseSubscribeRequest(auth_token=b"secret"))  # type: ignore[arg-type]
    assert "secret" not in str(refusal.value)


def test_whole_numbers_are_numbers() -> None:
    event = messages.decode(CallEvent, messages.encode(CallEvent(jitter_ms=3)))
    assert event.jitter_ms == 3.0


@pytest.mark.parametrize(
    "payload", [bytearray(b"audio"), memoryview(b"-audio-")[1:-1], memoryview(b"oiduaoidua")[4::-1]]
)
def test_a_payload_may_be_any_kind_of_bytes(payload: Any) -> None:
    assert messages.decode(AudioFrame, messages.encode(AudioFrame(payload=payload))).payload == b"audio"


def test_a_message_has_to_fit_a_frame() -> None:
    room = MAX_FRAME_LENGTH - 4 - len(messages.encode(AudioFrame()))
    longest = messages.encode(AudioFrame(payload=bytes(room)))
    assert len(FrameDecoder().feed(encode_frame(MethodId.AudioFrame, longest))) == 1
    with pytest.raises(
        LocalProtocolError, match="AudioFrame comes to 1048573 bytes; a frame holds no more than 1048572"
    ):
        messages.encode(AudioFrame(payload=bytes(room + 1)))


@pytest.mark.parametrize("thing", [None, "text", Message(), attrs.make_class("Stranger", [])()])
def test_only_messages_can_be_encoded(thing: Any) -> None:
    with pytest.raises(LocalProtocolError, match="is not a message of the protocol"):
        messages.encode(thing)


# -- the slow way, field by field, which the quick one leaves what is unusual to -------------------------------------


def test_field_by_field_the_largest_numbers_are_written_and_no_larger_ones() -> None:
    layout = messages._layout_of(AudioFrame)
    largest = AudioFrame(call_sid="c", sequence_number=2**64 - 1)
    assert layout.encode_by_field(largest) == messages.encode(largest)
    with pytest.raises(LocalProtocolError, match="no less than 0, no more than 18446744073709551615"):
        layout.encode_by_field(attrs.evolve(largest, sequence_number=2**64))
    with pytest.raises(LocalProtocolError, match="no less than 0"):
        layout.encode_by_field(attrs.evolve(largest, sequence_number=-1))


def test_field_by_field_numbers_have_their_names() -> None:
    body = messages.encode(CallEvent(call_sid="c", event_type=EventType.CHANNEL_HOLD))
    event = messages._layout_of(CallEvent).decode_by_field(body, 0, len(body)).message
    assert event.event_type is EventType.CHANNEL_HOLD
    unheard_of = messages.encode(CallEvent(call_sid="c", event_type=99))
    event = messages._layout_of(CallEvent).decode_by_field(unheard_of, 0, len(unheard_of)).message
    assert event.event_type == 99
