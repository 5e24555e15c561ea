"""Frames in any chunks, of any bytes."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from agentao_trio.conformance import strategies
from agentao_trio.errors import RemoteProtocolError
from agentao_trio.wire import (
    Frame,
    FrameDecoder,
    decode_reply,
    decode_request,
    encode_frame,
    encode_reply,
    encode_request,
)

UINT32 = st.integers(0, 2**32 - 1)
FRAMES = strategies.frames()
ENVELOPES = st.binary(max_size=40).map(lambda payload: struct.pack("<BBi", 0, 0, len(payload)) + payload)

#: A limit this low is met by small examples too.
LIMIT = 30
STREAMS = st.lists(
    FRAMES.map(lambda frame: encode_frame(*frame)) | strategies.padding() | st.binary(max_size=10), max_size=8
).map(b"".join)


Outcome = tuple[list[Frame], int, int, tuple[str, int | None] | None]


def read(chunks: list[bytes], limit: int) -> Outcome:
    """All there is to know about a stream once it has been read."""
    decoder = FrameDecoder(max_length=limit)
    frames: list[Frame] = []
    for chunk in chunks:
        frames += decoder.feed(chunk)
        if decoder.error is not None:
            return frames, decoder.short, decoder.end(), (decoder.error.reason, decoder.error.offset)
    return frames, decoder.short, decoder.end(), None


def naive(stream: bytes, limit: int) -> Outcome:
    """The rules of PROTOCOL section 4.3 for somebody who has the whole stream."""
    frames: list[Frame] = []
    short = offset = 0
    while len(stream) - offset >= 4:
        length = int.from_bytes(stream[offset : offset + 4], "little")
        if length > limit:
            return frames, short, 0, ("frame_too_large", offset)
        content = stream[offset + 4 : offset + 4 + length]
        if len(content) < length:
            break
        if length < 4:
            short += 1
        else:
            frames.append(Frame(int.from_bytes(content[:4], "little"), content[4:]))
        offset += 4 + length
    return frames, short, len(stream) - offset, None


@given(strategies.chunked(STREAMS))
def test_any_chunking_of_any_stream_reads_as_the_whole(chunks: list[bytes]) -> None:
    stream = b"".join(chunks)
    expected = naive(stream, LIMIT)
    assert read(chunks, LIMIT) == expected
    assert read([stream], LIMIT) == expected
    assert read([stream[at : at + 1] for at in range(len(stream))], LIMIT) == expected


@given(st.lists(FRAMES), st.lists(strategies.padding(), max_size=3))
def test_frames_come_out_as_they_went_in(frames: list[Frame], padding: list[bytes]) -> None:
    stream = b"".join(padding) + b"".join(encode_frame(*frame) for frame in frames)
    assert read([stream], 1 << 20) == (frames, len(padding), 0, None)


@given(UINT32, ENVELOPES, st.sampled_from(["exclusive", "inclusive"]))
def test_requests_come_out_as_they_went_in(method_id: int, body: bytes, rpc_length: str) -> None:
    assert decode_request(encode_request(method_id, body, rpc_length=rpc_length)) == (method_id, body, rpc_length)


@given(UINT32, ENVELOPES, st.sampled_from(["exclusive", "inclusive", "bare"]))
def test_replies_come_out_as_they_went_in(method_id: int, body: bytes, form: str) -> None:
    assert decode_reply(encode_reply(method_id, body, form=form), method_id) == (form, body)


@given(UINT32, ENVELOPES, st.sampled_from(["exclusive", "inclusive"]), st.data())
def test_a_cut_request_is_refused(method_id: int, body: bytes, rpc_length: str, data: st.DataObject) -> None:
    stream = encode_request(method_id, body, rpc_length=rpc_length)
    cut = data.draw(st.integers(0, len(stream) - 1))
    try:
        decode_request(stream[:cut])
    except RemoteProtocolError as refusal:
        assert refusal.reason == ("truncated_frame" if cut < 8 else "bad_frame_length")  # noqa: PT017
    else:
        raise AssertionError("a cut request was read")


@given(st.binary(max_size=60) | UINT32.map(lambda length: struct.pack("<I", length) + bytes(20)), UINT32)
def test_any_bytes_are_a_request_or_refused(stream: bytes, method_id: int) -> None:
    try:
        request = decode_request(stream)
    except RemoteProtocolError as refusal:
        assert refusal.reason in {"truncated_frame", "bad_frame_length"}  # noqa: PT017
    else:
        assert encode_request(request.method_id, request.body, rpc_length=request.rpc_length) == stream
    try:
        reply = decode_reply(stream, method_id)
    except RemoteProtocolError as refusal:
        assert refusal.reason == "bad_response"  # noqa: PT017
    else:
        assert encode_reply(method_id, reply.body, form=reply.form) == stream
