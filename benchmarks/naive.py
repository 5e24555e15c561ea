"""The codec one writes first: a reader with a position, one ``struct`` call per field, one class per message.

It is what the protocol page suggests to whoever sits down with it: nothing is precompiled or merged, and nothing is
checked. A cut body raises ``struct.error`` or yields short strings; a length of -5 walks backwards. Its messages are
plain dataclasses. It leaves the envelope's version and size alone, and takes text for UTF-8.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(slots=True)
class Audio:
    call_sid: str
    payload: bytes
    codec: str
    sequence_number: int
    end_of_stream: bool


@dataclass(slots=True)
class Event:
    call_sid: str
    event_type: int
    status: str
    start_timestamp_ms: int
    q850_cause: int
    recording_url: str
    duration_seconds: int
    answer_timestamp_ms: int
    end_timestamp_ms: int
    packets_sent: int
    packets_received: int
    packets_lost: int
    bytes_sent: int
    jitter_ms: float
    estimated_mos: float
    trunk_id: str
    tenant_id: str
    codec: str
    timestamp_ms: int
    client_id: str


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def u8(self) -> int:
        value: int = struct.unpack_from("<B", self.data, self.position)[0]
        self.position += 1
        return value

    def i32(self) -> int:
        value: int = struct.unpack_from("<i", self.data, self.position)[0]
        self.position += 4
        return value

    def u32(self) -> int:
        value: int = struct.unpack_from("<I", self.data, self.position)[0]
        self.position += 4
        return value

    def i64(self) -> int:
        value: int = struct.unpack_from("<q", self.data, self.position)[0]
        self.position += 8
        return value

    def u64(self) -> int:
        value: int = struct.unpack_from("<Q", self.data, self.position)[0]
        self.position += 8
        return value

    def f64(self) -> float:
        value: float = struct.unpack_from("<d", self.data, self.position)[0]
        self.position += 8
        return value

    def octets(self) -> bytes:
        length = self.i32()
        value = self.data[self.position : self.position + length]
        self.position += length
        return value

    def text(self) -> str:
        return self.octets().decode()

    def header(self) -> None:
        self.u8()
        self.u8()
        self.i32()


def decode_audio(body: bytes) -> Audio:
    reader = Reader(body)
    reader.header()
    return Audio(
        call_sid=reader.text(),
        payload=reader.octets(),
        codec=reader.text(),
        sequence_number=reader.u64(),
        end_of_stream=bool(reader.u8()),
    )


def decode_event(body: bytes) -> Event:
    reader = Reader(body)
    reader.header()
    return Event(
        call_sid=reader.text(),
        event_type=reader.i32(),
        status=reader.text(),
        start_timestamp_ms=reader.i64(),
        q850_cause=reader.i32(),
        recording_url=reader.text(),
        duration_seconds=reader.i32(),
        answer_timestamp_ms=reader.i64(),
        end_timestamp_ms=reader.i64(),
        packets_sent=reader.u32(),
        packets_received=reader.u32(),
        packets_lost=reader.u32(),
        bytes_sent=reader.u64(),
        jitter_ms=reader.f64(),
        estimated_mos=reader.f64(),
        trunk_id=reader.text(),
        tenant_id=reader.text(),
        codec=reader.text(),
        timestamp_ms=reader.i64(),
        client_id=reader.text(),
    )


def split(data: bytes) -> list[tuple[int, bytes]]:
    """The whole frames in ``data``; what is incomplete is left out."""
    frames = []
    reader = Reader(data)
    while len(data) - reader.position >= 8:
        length = reader.u32()
        end = reader.position + length
        frames.append((reader.u32(), data[reader.position : end]))
        reader.position = end
    return frames


def _octets(value: bytes) -> bytes:
    return struct.pack("<i", len(value)) + value


def _text(value: str) -> bytes:
    return _octets(value.encode())


def encode_audio(frame: Audio, method_id: int) -> bytes:
    """The whole frame, header included."""
    fields = _text(frame.call_sid)
    fields += _octets(frame.payload)
    fields += _text(frame.codec)
    fields += struct.pack("<Q", frame.sequence_number)
    fields += struct.pack("<B", frame.end_of_stream)
    body = struct.pack("<BBi", 0, 0, len(fields)) + fields
    return struct.pack("<II", 4 + len(body), method_id) + body
