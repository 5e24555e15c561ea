"""A gateway that costs as little as it can: it answers every call and sends every frame back, undecoded.

    python -m benchmarks.load_gateway DIRECTORY

Writes its CA to DIRECTORY/ca.pem, prints its port, and ends with its standard input. Frames come back on a few streams
that the calls of a connection share, as on real gateways (PROTOCOL section 3).
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import trio
import trustme

from agentao_trio import EventType, messages
from agentao_trio.errors import ConnectionLost, StreamReset
from agentao_trio.messages import MethodId
from agentao_trio.transport import (
    BidiStream,
    Connection,
    ReceiveStream,
    SendStream,
    ServerTLS,
    TransportSettings,
    open_listener,
)
from agentao_trio.wire import decode_request, encode_frame, encode_reply

SETTINGS = TransportSettings(max_inbound_streams=4000)
DOWNLINKS = 8
#: A stream whose client does not keep up is not written to any more: that would only make it worse.
MOST_UNSENT = 200_000


class Peer:
    """One connection and the streams to it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._downlinks: list[SendStream] = []
        self._uplinks = 0

    async def run(self) -> None:
        self._downlinks = [await self._connection.open_uni(paced=True) for _ in range(DOWNLINKS)]
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    stream = await self._connection.accept()
                    if isinstance(stream, BidiStream):
                        nursery.start_soon(self._serve, stream)
                    else:
                        nursery.start_soon(self._echo, stream)
        except* (ConnectionLost, StreamReset, trio.EndOfChannel, trio.ClosedResourceError):
            pass

    async def _echo(self, stream: ReceiveStream) -> None:
        downlink = self._downlinks[self._uplinks % DOWNLINKS]
        self._uplinks += 1
        unfinished = b""

        def echo(chunk: bytes) -> None:
            nonlocal unfinished
            data = unfinished + chunk
            end = whole_frames(data)
            unfinished = data[end:]
            if end and downlink.backlog < MOST_UNSENT:
                downlink.write(data[:end])

        await stream.receive_each(echo)

    async def _serve(self, stream: BidiStream) -> None:
        data = b""
        while chunk := await stream.receive_some():
            data += chunk
        number, body, _ = decode_request(data)
        method = MethodId(number)
        request: Any = messages.decode(messages.METHODS[method].request, body)
        if method is MethodId.Originate:
            self._tell(request.call_sid, EventType.CHANNEL_CREATE)
            self._tell(request.call_sid, EventType.CHANNEL_ANSWER)
        if method is MethodId.Terminate:
            self._tell(request.call_sid, EventType.CHANNEL_HANGUP_COMPLETE, q850_cause=16)
        if method is not MethodId.StreamEvents:
            # All replies begin alike, and what is left out takes its default: one for all.
            reply = messages.OriginateResponse(call_sid=getattr(request, "call_sid", ""), status="OK")
            known = messages.METHODS[method].reply
            written = messages.encode(reply if known is messages.OriginateResponse else known())
            stream.write(encode_reply(method, written, form="exclusive"))
        stream.finish()

    def _tell(self, call_sid: str, event_type: EventType, **fields: Any) -> None:
        event = messages.CallEvent(
            call_sid=call_sid, event_type=event_type, timestamp_ms=1_000 + 10 * event_type, codec="PCMU", **fields
        )
        self._downlinks[0].write(encode_frame(MethodId.StreamEvents, messages.encode(event)))


def whole_frames(data: bytes) -> int:
    """How many bytes of ``data`` are whole frames."""
    end, available = 0, len(data)
    while available - end >= 4 and (following := end + 4 + struct.unpack_from("<I", data, end)[0]) <= available:
        end = following
    return end


async def main(directory: str) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(Path(directory, "ca.pem")))
    tls = ServerTLS(
        certificate_chain_pem=b"".join(each.bytes() for each in leaf.cert_chain_pems),
        private_key_pem=leaf.private_key_pem.bytes(),
    )
    async with open_listener(("127.0.0.1", 0), tls=tls, settings=SETTINGS) as listener, trio.open_nursery() as nursery:

        async def accept() -> None:
            async for connection in listener:
                nursery.start_soon(Peer(connection).run)

        nursery.start_soon(accept)
        print(listener.address[1], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
