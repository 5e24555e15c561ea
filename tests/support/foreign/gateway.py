"""A gateway written the ordinary way: asyncio, aioquic's own asyncio layer, and struct by hand.

It takes liberties that the protocol leaves open: it names calls itself, answers with bare envelopes, never ends the
reply to StreamEvents, does not answer Terminate, puts each event on a stream of its own and the audio, an echo, on
another. It shares no line with the package. Run as a program, ``gateway.py CERTIFICATE_FILE KEY_FILE``, it prints its
port.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from typing import Any

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent, StreamDataReceived

ORIGINATE, TERMINATE, STREAM_EVENTS, AUDIO = 1430677891, 3834253405, 959835745, 2991054320
CREATE, ANSWER, HANGUP = 1, 2, 3


def string(value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<i", len(data)) + data


def envelope(body: bytes) -> bytes:
    return struct.pack("<BBi", 0, 0, len(body)) + body


def frame(method: int, body: bytes) -> bytes:
    return struct.pack("<II", 4 + len(body), method) + body


def call_event(call_sid: str, event_type: int, cause: int) -> bytes:
    now = int(time.time() * 1000)
    fields = [string(call_sid), struct.pack("<i", event_type), string("STATUS"), struct.pack("<qi", now, cause)]
    fields += [string(""), struct.pack("<iqqIIIQdd", 1, now, now, 1, 2, 3, 4, 0.5, 4.2)]
    fields += [string("main"), string("tenant"), string("PCMU"), struct.pack("<q", now), string("client")]
    return envelope(b"".join(fields))


class Gateway(QuicConnectionProtocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.buffers: dict[int, bytes] = {}
        self.calls = 0
        self.downlink: int | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if not isinstance(event, StreamDataReceived):
            return
        data = self.buffers.pop(event.stream_id, b"") + event.data
        if event.stream_id % 4 == 0:
            if event.end_stream:
                self.serve(event.stream_id, struct.unpack_from("<I", data, 4)[0], data[8:])
                return
        else:
            while len(data) >= 4 and len(data) >= 4 + (length := struct.unpack_from("<I", data)[0]):
                self.echo(data[: 4 + length])
                data = data[4 + length :]
        self.buffers[event.stream_id] = data

    def serve(self, stream_id: int, method: int, body: bytes) -> None:
        if method == ORIGINATE:
            self.calls += 1
            call_sid = f"call number {self.calls}"
            self.push(call_sid, CREATE)  # before the reply, on purpose
            reply = envelope(string(call_sid) + string("QUEUED") + string("") + struct.pack("<iq", 0, 1))
            self._quic.send_stream_data(stream_id, reply, end_stream=True)
            asyncio.get_running_loop().call_later(0.2, self.push, call_sid, ANSWER)
        elif method == TERMINATE:
            length = struct.unpack_from("<i", body, 6)[0]
            self.push(body[10 : 10 + length].decode(), HANGUP, 16)
        self.transmit()

    def push(self, call_sid: str, event_type: int, cause: int = 0) -> None:
        stream_id = self._quic.get_next_available_stream_id(is_unidirectional=True)
        data = frame(STREAM_EVENTS, call_event(call_sid, event_type, cause))
        self._quic.send_stream_data(stream_id, data, end_stream=True)
        self.transmit()

    def echo(self, data: bytes) -> None:
        if self.downlink is None:
            self.downlink = self._quic.get_next_available_stream_id(is_unidirectional=True)
        self._quic.send_stream_data(self.downlink, data)
        self.transmit()


async def main(certificate: str, key: str) -> None:
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["h3"])
    configuration.load_cert_chain(certificate, key)
    server = await serve("127.0.0.1", 0, configuration=configuration, create_protocol=Gateway)
    port = server._transport.get_extra_info("sockname")[1]  # type: ignore[union-attr]
    print(port, flush=True)  # noqa: T201
    await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
