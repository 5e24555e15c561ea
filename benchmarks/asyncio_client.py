"""The client that one would write without the package: asyncio, aioquic's own asyncio layer, ``struct`` by hand.

    python -m benchmarks.asyncio_client PORT CA_FILE CALLS SECONDS

Does and prints the same as ``benchmarks.trio_client``. It is ordinary, and not bad: one protocol class, the audio of
all calls on one shared stream, a task per call that sleeps until its next packet is due on an absolute grid, a
``transmit`` after each packet, a queue per call for what comes back. It keeps no bound, sheds and checks nothing.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import uuid
from array import array
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import QuicEvent, StreamDataReceived

from benchmarks import naive
from benchmarks.talk import IN_TIME, PTIME, WARM_UP, Report, Stopwatch, quantile, speech, timed, times

ORIGINATE, STREAM_EVENTS, AUDIO = 1430677891, 959835745, 2991054320


def string(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<i", len(data)) + data


def request(method: int, fields: bytes) -> bytes:
    body = struct.pack("<BBi", 0, 0, len(fields)) + fields
    return struct.pack("<II", 4 + len(body), method) + body


class Client(QuicConnectionProtocol):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.unfinished: dict[int, bytes] = {}
        self.inboxes: dict[str, asyncio.Queue[naive.Audio]] = {}
        self.uplink: int | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, StreamDataReceived) and event.stream_id % 4 == 3:
            data = self.unfinished.get(event.stream_id, b"") + event.data
            end = 0
            while len(data) - end >= 4:
                following = end + 4 + struct.unpack_from("<I", data, end)[0]
                if following > len(data):
                    break
                if struct.unpack_from("<I", data, end + 4)[0] == AUDIO:
                    frame = naive.decode_audio(data[end + 8 : following])
                    self.inboxes[frame.call_sid].put_nowait(frame)
                end = following
            self.unfinished[event.stream_id] = data[end:]

    def ask(self, method: int, fields: bytes) -> None:
        stream_id = self._quic.get_next_available_stream_id()
        self._quic.send_stream_data(stream_id, request(method, fields), end_stream=True)
        self.transmit()

    def say(self, frame: naive.Audio) -> None:
        if self.uplink is None:
            self.uplink = self._quic.get_next_available_stream_id(is_unidirectional=True)
        self._quic.send_stream_data(self.uplink, naive.encode_audio(frame, AUDIO))
        self.transmit()


class Call:
    """One call: a task that speaks, a task that listens."""

    def __init__(self, client: Client, call_sid: str, *, is_timed: bool) -> None:
        self.client = client
        self.call_sid = call_sid
        self.inbox = client.inboxes[call_sid] = asyncio.Queue()
        self.is_timed = is_timed
        self.sent_at = times()
        self.sent = self.received = 0

    async def speak(self, offset: float, lateness: array[float]) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + offset
        for payload in speech(1):
            deadline += PTIME
            await asyncio.sleep(deadline - loop.time())
            if self.is_timed:
                now = loop.time()
                self.sent_at.append(now)
                lateness.append(now - deadline)
            self.client.say(naive.Audio(self.call_sid, payload, "PCMU", self.sent, False))
            self.sent += 1

    async def listen(self, echoes: array[float]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            frame = await self.inbox.get()
            self.received += 1
            if self.is_timed:
                echoes.append(loop.time() - self.sent_at[frame.sequence_number])


async def run(client: Client, calls: int, seconds: float) -> Report:
    client_id = str(uuid.uuid4())
    client.ask(STREAM_EVENTS, string(client_id))
    chosen = timed(calls)
    placed = [Call(client, str(uuid.uuid4()), is_timed=index in chosen) for index in range(calls)]
    for call in placed:
        texts = [string(text) for text in ("bench", "+15550100001", "", "", "", "")]
        numbers = struct.pack("<i", 0) + string(call.call_sid) + struct.pack("<i", 6) + string("")
        client.ask(ORIGINATE, b"".join(texts) + numbers + struct.pack("<?i", False, 250) + string(client_id))
    await asyncio.sleep(0.5)
    lateness = times()
    echoes = times()
    listening = [asyncio.create_task(call.listen(echoes)) for call in placed]
    speaking = [asyncio.create_task(call.speak(PTIME * index / calls, lateness)) for index, call in enumerate(placed)]

    def counts() -> tuple[int, int]:
        return sum(call.sent for call in placed), sum(call.received for call in placed)

    await asyncio.sleep(WARM_UP)
    del lateness[:], echoes[:]
    before, watch = counts(), Stopwatch()
    await asyncio.sleep(seconds)
    (cpu, wall), after = watch.read(), counts()
    late, heard = lateness[:], echoes[:]
    for task in speaking:
        task.cancel()
    await asyncio.sleep(IN_TIME)
    sent, received = counts()
    for task in listening:
        task.cancel()
    return Report(
        calls=calls,
        seconds=wall,
        cpu=cpu,
        sent=after[0] - before[0],
        received=after[1] - before[1],
        shed=0,
        missing=sent - received,
        lateness_p50=quantile(late, 0.50),
        lateness_p99=quantile(late, 0.99),
        echo_p50=quantile(heard, 0.50),
        echo_p99=quantile(heard, 0.99),
    )


async def main(port: str, ca_file: str, calls: str, seconds: str) -> None:
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name="localhost")
    configuration.load_verify_locations(ca_file)
    async with connect("127.0.0.1", int(port), configuration=configuration, create_protocol=Client) as client:
        assert isinstance(client, Client)
        print((await run(client, int(calls), float(seconds))).as_json())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
