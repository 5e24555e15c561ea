"""Every vector of vectors.json: envelopes written, read, cut short, and framed."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import attrs
import pytest

from agentao_trio import messages
from agentao_trio.errors import RemoteProtocolError
from agentao_trio.messages import MESSAGES, METHODS, MethodId
from agentao_trio.wire import (
    FrameDecoder,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)
from tests.golden.values import VECTORS, message, octets


def section(name: str, **only: str) -> list[Any]:
    """One section of the file as parameters named by the vectors' ids."""
    chosen = [entry for entry in VECTORS[name] if all(entry[key] == value for key, value in only.items())]
    assert chosen
    return [pytest.param(entry, id=entry["id"]) for entry in chosen]


def test_the_catalogue_is_the_one_the_vectors_were_made_from() -> None:
    """Names, fields, order and versions; the vectors below hold the types."""
    assert list(MESSAGES) == list(VECTORS["messages"])
    for name, schema in VECTORS["messages"].items():
        cls = MESSAGES[name]
        assert [attribute.name for attribute in attrs.fields(cls)] == [field for field, _ in schema["fields"]]
        assert (cls.version, cls.compat) == (schema["version"], schema["compat"])


# -- envelopes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", section("encode"))
def test_encode(vector: dict[str, Any]) -> None:
    original = message(vector["message"], vector["fields"])
    written = messages.encode(original)
    assert written == octets(vector, "body")
    if "body_sha256" in vector:
        assert (len(written), hashlib.sha256(written).hexdigest()) == (vector["body_len"], vector["body_sha256"])
    decoded = messages.decode_counted(type(original), written)
    # Compared as bytes, so that a NaN equals itself, in every bit.
    assert (messages.encode(decoded.message), decoded.skipped, decoded.after) == (written, 0, 0)


@pytest.mark.parametrize("vector", section("decode"))
def test_decode(vector: dict[str, Any]) -> None:
    cls, body, expected = MESSAGES[vector["message"]], octets(vector, "body"), vector["safe"]
    if expected["outcome"] == "error":
        with pytest.raises(RemoteProtocolError) as refusal:
            messages.decode(cls, body)
        assert refusal.value.reason == expected["error"]
        assert refusal.value.offset is not None
        assert 0 <= refusal.value.offset <= len(body)
        return
    decoded = messages.decode_counted(cls, body)
    assert messages.encode(decoded.message) == messages.encode(message(vector["message"], expected["fields"]))
    assert decoded.skipped == expected.get("skipped", 0)
    assert decoded.after == expected.get("after", 0)
    assert messages.encode(messages.decode(cls, body)) == messages.encode(decoded.message)


@pytest.mark.parametrize("vector", section("truncate"))
def test_truncate(vector: dict[str, Any]) -> None:
    cls, body = MESSAGES[vector["message"]], octets(vector, "body")
    names = [attribute.name for attribute in attrs.fields(cls)]
    whole, empty = messages.decode(cls, body), cls()
    decodable = []
    for cut in range(len(body)):
        short = body[:cut]
        if vector["mode"] == "resized" and cut >= 6:
            short = short[:2] + struct.pack("<i", cut - 6) + short[6:]
        try:
            decoded = messages.decode(cls, short)
        except RemoteProtocolError:
            continue
        decodable.append(cut)
        # The fields that were written, then defaults: nothing in between.
        known = sum(getattr(decoded, name) == getattr(whole, name) for name in names)
        for index, name in enumerate(names):
            assert getattr(decoded, name) == getattr(whole if index < known else empty, name)
    assert decodable == vector["safe_ok_cuts"]


# -- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", section("framed", stream="bidi_request"))
def test_request(vector: dict[str, Any]) -> None:
    stream, expected = octets(vector, "frame"), vector["expect"]
    if expected["outcome"] == "error":
        with pytest.raises(RemoteProtocolError) as refusal:
            decode_request(stream)
        assert refusal.value.reason == expected["error"]
        return
    method_id, body, convention = expected["method_id"], octets(expected, "body"), expected["convention"]
    assert decode_request(stream) == (method_id, body, convention)
    assert encode_request(method_id, body, rpc_length=convention) == stream


@pytest.mark.parametrize("vector", section("framed", stream="bidi_response"))
def test_reply(vector: dict[str, Any]) -> None:
    stream, method_id, expected = octets(vector, "frame"), vector["request_method_id"], vector["expect"]
    if expected["outcome"] == "error":
        with pytest.raises(RemoteProtocolError) as refusal:
            decode_reply(stream, method_id)
        assert refusal.value.reason == expected["error"]
        return
    body, form = octets(expected, "body"), expected["convention"]
    assert decode_reply(stream, method_id) == (form, body)
    assert encode_reply(method_id, body, form=form) == stream


@pytest.mark.parametrize("step", [1, 5, 1 << 20])
@pytest.mark.parametrize("vector", section("framed", stream="uni"))
def test_unidirectional(vector: dict[str, Any], step: int) -> None:
    stream, expected = octets(vector, "frame"), vector["expect"]
    decoder = FrameDecoder()
    frames = []
    for start in range(0, len(stream), step):
        frames += decoder.feed(stream[start : start + step])
        if decoder.error is not None:
            break
    assert frames == [(method_id, bytes.fromhex(body)) for method_id, body in expected["frames"]]
    assert (decoder.short, decoder.end()) == (expected["short"], expected["left"])
    assert getattr(decoder.error, "reason", None) == expected.get("error")


def test_every_message_travels_under_its_methods_id() -> None:
    """The file gives requests, and the two messages that come unasked, the id of their frames."""
    for name, schema in VECTORS["messages"].items():
        if schema["method_id"] is None:
            continue
        method = messages.method_of(schema["method_id"])
        if name == "AudioFrame":
            assert method is MethodId.AudioFrame
        else:
            assert method is not None
            assert MESSAGES[name] is (METHODS[method].reply if name == "CallEvent" else METHODS[method].request)
