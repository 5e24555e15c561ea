"""Repeats to every caller what they say, and reports how the calls were.

In one terminal ``agentao-trio gateway --inbound 10/minute``, in another ``python echo.py``.
"""

from typing import Any

import trio

from agentao_trio import ActiveCall, AgenTaoClient, CallStatistics, ClientTLS, events


async def main(endpoint: str = "quic://127.0.0.1:9090", **options: Any) -> None:
    client = AgenTaoClient(endpoint, trunks=["main"], **options)

    @client.on(events.INCOMING_CALL)
    async def handle_call(call: ActiveCall) -> None:
        @call.on(events.CALL_QUALITY)
        def on_quality(statistics: CallStatistics) -> None:
            print(f"{call.caller}: {statistics.packets_lost} packets lost, jitter {statistics.jitter_ms:.1f} ms")

        @call.on(events.CALL_TERMINATED)
        def on_terminated() -> None:
            print(f"{call.caller}: the end")

        await call.answer()
        async for chunk in call.audio_stream():
            await call.send_audio(chunk)

    await client.run_forever()


if __name__ == "__main__":
    trio.run(lambda: main(tls=ClientTLS(ca="ca.pem")))
