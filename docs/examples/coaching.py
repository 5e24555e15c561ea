"""Puts callers through to a colleague, listens silently, and whispers a hint to the colleague when * is pressed.

The caller never hears the coach. What the coach hears is both of them together.

In one terminal ``agentao-trio gateway --inbound 10/minute``, in another ``python coaching.py``.
"""

import functools
from pathlib import Path
from typing import Any

import trio

from agentao_trio import ActiveCall, ClientTLS, serve
from agentao_trio.detect import Digit, DtmfDetector, SpeechEnded, VoiceActivityDetector

PROMPTS = Path(__file__).with_name("prompts")


async def coach(call: ActiveCall, spoken: list[float]) -> None:
    await call.spy()  # nobody hears us, we hear both
    async for event in call.detect(VoiceActivityDetector(), DtmfDetector()):
        match event:
            case SpeechEnded(seconds=seconds):
                spoken.append(seconds)
            case Digit(digit="*"):
                await call.whisper()  # only the colleague hears us
                await call.play(PROMPTS / "hint.wav")
                await call.wait_played()
                await call.spy()


async def answer(call: ActiveCall, number: str) -> None:
    await call.answer()
    colleague = await call.connect(number, ring_time_seconds=20)
    spoken: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(coach, call, spoken)
        await colleague.wait_ended()  # which happens when the caller hangs up, too
        nursery.cancel_scope.cancel()
    print(f"{call.caller} and {number}: {sum(spoken):.0f} s of talk in {len(spoken)} turns")


async def main(endpoint: str = "quic://127.0.0.1:9090", *, colleague: str = "+15550100001", **options: Any) -> None:
    await serve(functools.partial(answer, number=colleague), endpoint, trunks=["main"], **options)


if __name__ == "__main__":
    trio.run(lambda: main(tls=ClientTLS(ca="ca.pem")))
