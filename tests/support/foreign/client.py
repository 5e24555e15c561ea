"""A gateway's client written the ordinary way: asyncio, aioquic's own asyncio layer, and struct by hand.

It does what the vendor's SDKs do and the documents do not say: inclusive lengths on requests, an OriginateRequest of
version 0, the audio of all calls on one stream that never ends, replies left unread, events and audio told apart by
method id. It shares no line with the package. Run as a program: ``client.py HOST PORT CA_FILE``; prints JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import sys
import uuid
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent, StreamDataReceived

ORIGINATE, TERMINATE, STREAM_EVENTS, AUDIO = 1430677891, 3834253405, 959835745, 2991054320


def string(value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<i", len(data)) + data


def envelope(body: bytes) -> bytes:
    return struct.pack("<BBi", 0, 0, len(body)) + body


def request(method: int, body: bytes) -> bytes:
    return struct.pack("<II", 8 + len(body), method) + body


def frame(method: int, body: bytes) -> bytes:
    return struct.pack("<II", 4 + len(body), method) + body


class Client(QuicConnectionProtocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.buffers: dict[int, bytes] = {}
        self.frames: list[tuple[int, bytes]] = []

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived) and event.stream_id % 4 == 3:
            data = self.buffers.get(event.stream_id, b"") + event.data
            while len(data) >= 4 and len(data) >= 4 + (length := struct.unpack_from("<I", data)[0]):
                self.frames.append((struct.unpack_from("<I", data, 4)[0], data[8 : 4 + length]))
                data = data[4 + length :]
            self.buffers[event.stream_id] = data

    def send(self, data: bytes, stream_id: int | None = None, *, unidirectional: bool = False) -> int:
        if stream_id is None:
            stream_id = self._quic.get_next_available_stream_id(is_unidirectional=unidirectional)
        self._quic.send_stream_data(stream_id, data, end_stream=not unidirectional)
        self.transmit()
        return stream_id

    async def until(self, calls: list[str], events: int, packets: int) -> None:
        """Wait until every call has had so many, at most a minute."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                while any(
                    len(had["events"]) < events or had["packets"] < packets
                    for had in (report(call_sid, 0, self.frames) for call_sid in calls)
                ):
                    await asyncio.sleep(0.02)


def originate(call_sid: str, client_id: str) -> bytes:
    fields = [string("main"), string("+15550100001"), string(""), string(""), string(""), string("test_tenant")]
    fields += [struct.pack("<i", 0), string(call_sid), struct.pack("<i", 6), string("")]
    fields += [b"\x00", struct.pack("<i", 250), string(client_id)]
    return envelope(b"".join(fields))


async def main(host: str, port: int, ca_file: str) -> None:
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name=host)
    configuration.load_verify_locations(ca_file)
    calls = [str(uuid.uuid4()) for _ in range(2)]
    async with connect(host, port, configuration=configuration, create_protocol=Client) as client:
        assert isinstance(client, Client)
        client_id = str(uuid.uuid4())
        client.send(request(STREAM_EVENTS, envelope(string(client_id))))
        for call_sid in calls:
            client.send(request(ORIGINATE, originate(call_sid, client_id)))
        await client.until(calls, 2, 0)
        stream_id = None
        for number in range(25):
            for index, call_sid in enumerate(calls):
                payload = bytes([index + 1, 0, number]) * 53 + b"x"
                fields = [string(call_sid), string(payload), string("PCMU"), struct.pack("<Q", number), b"\x00"]
                stream_id = client.send(frame(AUDIO, envelope(b"".join(fields))), stream_id, unidirectional=True)
            await asyncio.sleep(0.02)
        await client.until(calls, 2, 25)
        for call_sid in calls:
            client.send(request(TERMINATE, envelope(string(call_sid))))
        await client.until(calls, 3, 25)
    print(json.dumps([report(call_sid, calls.index(call_sid) + 1, client.frames) for call_sid in calls]))  # noqa: T201


def report(call_sid: str, mark: int, frames: list[tuple[int, bytes]]) -> dict[str, Any]:
    """Which events a call had, and whether its audio is its own."""
    events, packets, own = [], 0, True
    for method, body in frames:
        length = struct.unpack_from("<i", body, 6)[0]
        if body[10 : 10 + length] != call_sid.encode():
            continue
        rest = body[10 + length :]
        if method == STREAM_EVENTS:
            events.append(struct.unpack_from("<i", rest)[0])
        elif size := struct.unpack_from("<i", rest)[0]:
            packets += 1
            own = own and size == 160 and rest[4] == mark
    return {"events": events, "packets": packets, "own": own}


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
