"""Frames: the rules of PROTOCOL section 4, one by one. (Every form in circulation is among the golden vectors.)"""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from agentao_trio.errors import LocalProtocolError, RemoteProtocolError
from agentao_trio.wire import (
    MAX_FRAME_LENGTH,
    Frame,
    FrameDecoder,
    Reply,
    Request,
    decode_reply,
    decode_request,
    encode_frame,
    encode_reply,
    encode_request,
)

ENVELOPE = bytes.fromhex("0000 06000000 02000000 6130")


def length(value: int) -> bytes:
    return struct.pack("<I", value)


# -- one stream, many frames ------------------------------------------------------------------------------------------


def test_a_frame_is_length_method_and_body() -> None:
    assert encode_frame(9999, b"body") == bytes.fromhex("08000000 0f270000") + b"body"


def test_frames_come_out_as_they_went_in() -> None:
    decoder = FrameDecoder()
    assert decoder.feed(encode_frame(1, b"one") + encode_frame(2, b"") + encode_frame(3, b"three")) == [
        (1, b"one"),
        (2, b""),
        (3, b"three"),
    ]
    assert decoder.end() == 0


def test_a_frame_is_kept_until_it_is_whole() -> None:
    decoder = FrameDecoder()
    frame = encode_frame(7, b"body")
    for byte in frame[:-1]:
        assert decoder.feed(bytes([byte])) == []
    assert decoder.end() == len(frame) - 1
    assert decoder.feed(frame[-1:]) == [Frame(method_id=7, body=b"body")]
    assert decoder.end() == 0


def test_an_empty_chunk_changes_nothing() -> None:
    decoder = FrameDecoder()
    assert decoder.feed(b"") == []
    assert decoder.feed(encode_frame(7, b"body")[:5]) == []
    assert decoder.feed(b"") == []
    assert decoder.end() == 5


def test_the_end_can_be_asked_for_twice() -> None:
    decoder = FrameDecoder()
    decoder.feed(b"\x08\x00")
    assert (decoder.end(), decoder.end()) == (2, 2)


@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_frames_too_short_for_a_method_are_padding(size: int) -> None:
    decoder = FrameDecoder()
    assert decoder.feed(length(size) + b"pad"[:size] + encode_frame(7, b"body")) == [(7, b"body")]
    assert decoder.short == 1


def test_the_longest_frame_is_one_mebibyte() -> None:
    decoder = FrameDecoder()
    body = bytes(MAX_FRAME_LENGTH - 4)
    assert decoder.feed(encode_frame(7, body)) == [(7, body)]


def test_a_longer_one_ends_the_decoder_after_the_frames_before_it() -> None:
    decoder = FrameDecoder()
    good = encode_frame(7, b"body")
    assert decoder.feed(good + length(MAX_FRAME_LENGTH + 1) + good) == [(7, b"body")]
    assert isinstance(decoder.error, RemoteProtocolError)
    assert decoder.error.reason == "frame_too_large"
    assert decoder.error.offset == len(good)
    assert decoder.end() == 0  # nothing of this stream is waiting for more
    for chunk in (good, b""):
        with pytest.raises(RemoteProtocolError, match="1048577 bytes") as refusal:
            decoder.feed(chunk)
        assert refusal.value is decoder.error


def test_the_offset_counts_from_the_start_of_the_stream() -> None:
    decoder = FrameDecoder()
    stream = encode_frame(7, b"body") + length(0) + encode_frame(7, b"") + length(2**32 - 1)
    for byte in stream:
        decoder.feed(bytes([byte]))
    assert decoder.error is not None
    assert decoder.error.offset == len(stream) - 4


def test_the_limit_can_be_set() -> None:
    decoder = FrameDecoder(max_length=8)
    assert decoder.feed(encode_frame(7, b"four")) == [(7, b"four")]
    assert decoder.feed(encode_frame(7, b"fives")) == []
    assert decoder.error is not None


def test_a_length_is_not_believed_before_its_bytes_arrive() -> None:
    decoder = FrameDecoder()
    tracemalloc.start()
    try:
        decoder.feed(length(MAX_FRAME_LENGTH) + b"\x07\x00\x00\x00 body")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 4096


class Ledger(bytearray):
    """The decoder's buffer, counting the bytes that are moved into and out of it."""

    moved = 0

    def __iadd__(self, data: bytes) -> Ledger:  # type: ignore[override, misc]
        self.moved += len(data)
        self.extend(data)
        return self

    def __bytes__(self) -> bytes:
        self.moved += len(self)
        return b"".join([self])


@pytest.mark.parametrize("step", [1, 3, 1200, 65536, 1 << 30])
def test_a_byte_costs_the_same_in_any_chunk(step: int) -> None:
    """Each byte is moved in once, out once, and back once at most, so the price does not grow with what is waiting."""
    stream = encode_frame(7, bytes(200_000)) + b"".join(encode_frame(7, bytes(size)) for size in range(200))
    decoder = FrameDecoder()
    decoder._pending = ledger = Ledger()
    frames = 0
    for start in range(0, len(stream), step):
        frames += len(decoder.feed(stream[start : start + step]))
    assert frames == 201
    assert decoder.end() == 0
    assert ledger.moved <= 3 * len(stream)


@pytest.mark.parametrize("method_id", [-1, 2**32])
def test_a_method_id_is_an_unsigned_32_bit_number(method_id: int) -> None:
    for encode in (encode_frame, encode_request):
        with pytest.raises(LocalProtocolError, match="method id of 0 to 4294967295"):
            encode(method_id, b"")


# -- one stream, one request ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rpc_length", "claimed"), [("exclusive", 16), ("inclusive", 20)])
def test_a_request_in_either_convention(rpc_length: str, claimed: int) -> None:
    stream = encode_request(7, ENVELOPE, rpc_length=rpc_length)
    assert stream == length(claimed) + length(7) + ENVELOPE
    assert decode_request(stream) == Request(method_id=7, body=ENVELOPE, rpc_length=rpc_length)


def test_exclusive_is_the_default() -> None:
    assert encode_request(7, ENVELOPE) == encode_frame(7, ENVELOPE)


def test_a_frame_that_lost_its_end_is_not_taken_for_the_other_convention() -> None:
    cut = encode_request(7, ENVELOPE)[:-4]
    assert struct.unpack_from("<I", cut) == (len(cut),)
    with pytest.raises(RemoteProtocolError) as refusal:
        decode_request(cut)
    assert refusal.value.reason == "bad_frame_length"


def test_an_envelope_of_a_negative_size_is_no_sign_of_the_other_convention() -> None:
    body = struct.pack("<BBi", 0, 0, -1)
    with pytest.raises(RemoteProtocolError, match="a request of 14 bytes gives its length as 14") as refused:
        decode_request(length(14) + length(1) + body)
    assert (refused.value.reason, refused.value.offset) == ("bad_frame_length", 0)


def test_an_exclusive_request_may_hold_anything() -> None:
    """Only the inclusive reading looks into the body; whose fault a bad one is, decoding it will tell."""
    assert decode_request(encode_request(7, b"")) == (7, b"", "exclusive")
    assert decode_request(encode_request(7, b"no envelope")) == (7, b"no envelope", "exclusive")


@pytest.mark.parametrize("stream", [b"", b"\x04\x00\x00\x00", encode_request(7, b"")[:7]])
def test_a_request_without_a_whole_header(stream: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as refusal:
        decode_request(stream)
    assert (refusal.value.reason, refusal.value.offset) == ("truncated_frame", len(stream))


def test_there_are_two_length_conventions() -> None:
    with pytest.raises(LocalProtocolError, match="'exclusive' or 'inclusive', not 'none'"):
        encode_request(7, ENVELOPE, rpc_length="none")


# -- and its reply ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["exclusive", "inclusive", "bare"])
def test_a_reply_in_each_form(form: str) -> None:
    assert decode_reply(encode_reply(7, ENVELOPE, form=form), 7) == Reply(form=form, body=ENVELOPE)


@pytest.mark.parametrize("form", ["exclusive", "inclusive"])
def test_a_reply_of_a_header_alone_is_a_frame_without_a_body(form: str) -> None:
    assert decode_reply(encode_reply(7, b"", form=form), 7) == Reply(form=form, body=b"")


def test_no_reply_is_an_answer() -> None:
    assert encode_reply(7, ENVELOPE, form="none") == b""
    assert decode_reply(b"", 7) == Reply(form="none", body=b"")


def test_a_bare_reply_may_have_bytes_behind_its_envelope() -> None:
    assert decode_reply(ENVELOPE + b"more", 7) == ("bare", ENVELOPE + b"more")


@pytest.mark.parametrize(
    "stream",
    [
        b"\x00",
        ENVELOPE[:5],
        ENVELOPE[:-1],
        encode_reply(8, ENVELOPE, form="exclusive"),
        encode_reply(7, ENVELOPE, form="exclusive")[:-1],
    ],
    ids=["one byte", "half a header", "cut envelope", "another method", "cut frame"],
)
def test_what_is_no_reply(stream: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as refusal:
        decode_reply(stream, 7)
    assert (refusal.value.reason, refusal.value.offset) == ("bad_response", 0)


def test_there_are_four_forms_of_reply() -> None:
    with pytest.raises(LocalProtocolError, match="'exclusive', 'inclusive', 'bare' or 'none', not 'framed'"):
        encode_reply(7, ENVELOPE, form="framed")
