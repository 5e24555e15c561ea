"""Packets survive the way there and back, and whatever else comes is refused with the one error there is for it."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentao_trio.live.packets import (
    EnginePacket,
    EngineType,
    PacketError,
    SocketPacket,
    SocketType,
    decode_engine,
    decode_payload,
    decode_socket,
    encode_payload,
    encode_socket,
)

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
namespaces = st.just("/") | st.from_regex(r"/[a-z0-9]{1,10}", fullmatch=True)
acks = st.integers(0, 10**15 - 1)
events = st.lists(values, max_size=4).map(lambda arguments: ["event", *arguments])
socket_packets = st.one_of(
    st.builds(SocketPacket, type=st.just(SocketType.EVENT), namespace=namespaces, data=events, ack=st.none() | acks),
    st.builds(
        SocketPacket, type=st.just(SocketType.ACK), namespace=namespaces, data=st.lists(values, max_size=4), ack=acks
    ),
    st.builds(
        SocketPacket,
        type=st.sampled_from([SocketType.CONNECT, SocketType.CONNECT_ERROR]),
        namespace=namespaces,
        data=st.none() | st.dictionaries(st.text(), values, max_size=3),
    ),
    st.builds(SocketPacket, type=st.just(SocketType.DISCONNECT), namespace=namespaces),
)
engine_packets = st.builds(EnginePacket, st.sampled_from(EngineType), st.text().filter(lambda text: "\x1e" not in text))


@given(socket_packets)
def test_socket_packets_survive(packet: SocketPacket) -> None:
    assert decode_socket(encode_socket(packet)) == packet


@given(st.lists(engine_packets, min_size=1, max_size=5))
def test_payloads_survive(packets: list[EnginePacket]) -> None:
    assert decode_payload(encode_payload(packet.encode() for packet in packets)) == packets


@given(st.text() | st.from_regex(r"[0-9](/[a-z?]*,?)?[0-9]*[\[{\"].*", fullmatch=True))
def test_whatever_comes_decodes_or_is_refused(text: str) -> None:
    for decode in (decode_engine, decode_payload, decode_socket):
        with contextlib.suppress(PacketError):
            decode(text)


@pytest.mark.parametrize(
    "text",
    {
        "nothing": "",
        "no type": "x",
        "attachments": '51-["e",{"_placeholder":true,"num":0}]',
        "a bomb": "2" + "[" * 200_000,
        "a bomb of objects": "2" + '{"a":' * 200_000,
        "a long number": "2" + "9" * 50_000,
        "a long number of an acknowledgement": "3" + "9" * 17 + "[]",
        "digits of other scripts": '2٣["e"]',
        "an integer without end": '2["e",' + "9" * 5000 + "]",
        "no number": '2["e",NaN]',
        "an event without a name": "2[]",
        "a name that is no string": "2[1]",
        "a name that the other end keeps for itself": '2["disconnect"]',
        "an answer to nothing": "3[]",
        "an answer of another kind": "31{}",
        "a token that is no object": '0"token"',
        "words after the end": '1["more"]',
        "a long namespace": "2/" + "n" * 10_000,
    }.items(),
    ids=lambda item: item[0],
)
def test_what_is_refused(text: tuple[str, Any]) -> None:
    with pytest.raises(PacketError):
        decode_socket(text[1])


def test_one_body_holds_so_many_packets() -> None:
    with pytest.raises(PacketError, match="at once"):
        decode_payload("\x1e".join(["2"] * 5000))
