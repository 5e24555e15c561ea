"""The obvious codec, to measure ours against in the same run: one ``struct`` call per field, no check on any size."""

from __future__ import annotations

import struct

from agentao_trio.messages import AudioFrame, CallEvent, EventType


class Reader:
    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def number(self, code: str) -> int:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return int(value)

    def double(self) -> float:
        (value,) = struct.unpack_from("<d", self.data, self.at)
        self.at += 8
        return float(value)

    def octets(self) -> bytes:
        length = self.number("i")
        value = self.data[self.at : self.at + length]
        self.at += length
        return value

    def text(self) -> str:
        return self.octets().decode("utf-8", "surrogateescape")

    def header(self) -> None:
        self.number("B")
        self.number("B")
        self.number("i")


def decode_audio(body: bytes) -> AudioFrame:
    reader = Reader(body)
    reader.header()
    return AudioFrame(
        call_sid=reader.text(),
        payload=reader.octets(),
        codec=reader.text(),
        sequence_number=reader.number("Q"),
        end_of_stream=bool(reader.number("B")),
    )


def decode_event(body: bytes) -> CallEvent:
    reader = Reader(body)
    reader.header()
    return CallEvent(
        call_sid=reader.text(),
        event_type=EventType(reader.number("i")),
        status=reader.text(),
        start_timestamp_ms=reader.number("q"),
        q850_cause=reader.number("i"),
        recording_url=reader.text(),
        duration_seconds=reader.number("i"),
        answer_timestamp_ms=reader.number("q"),
        end_timestamp_ms=reader.number("q"),
        packets_sent=reader.number("I"),
        packets_received=reader.number("I"),
        packets_lost=reader.number("I"),
        bytes_sent=reader.number("Q"),
        jitter_ms=reader.double(),
        estimated_mos=reader.double(),
        trunk_id=reader.text(),
        tenant_id=reader.text(),
        codec=reader.text(),
        timestamp_ms=reader.number("q"),
        client_id=reader.text(),
    )


def split(data: bytes) -> list[tuple[int, bytes]]:
    """A whole backlog of frames at once; what is incomplete is left out."""
    frames = []
    reader = Reader(data)
    while len(data) - reader.at >= 8:
        length = reader.number("I")
        end = reader.at + length
        frames.append((reader.number("I"), data[reader.at : end]))
        reader.at = end
    return frames


def _octets(value: bytes) -> bytes:
    return struct.pack("<i", len(value)) + value


def _text(value: str) -> bytes:
    return _octets(value.encode("utf-8", "surrogateescape"))


def encode_audio(frame: AudioFrame, method_id: int) -> bytes:
    payload = _text(frame.call_sid)
    payload += _octets(frame.payload)
    payload += _text(frame.codec)
    payload += struct.pack("<Q", frame.sequence_number)
    payload += struct.pack("<B", frame.end_of_stream)
    body = struct.pack("<B", 0) + struct.pack("<B", 0) + struct.pack("<i", len(payload)) + payload
    return struct.pack("<I", len(body) + 4) + struct.pack("<I", method_id) + body
