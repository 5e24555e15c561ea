"""Rings the front desk within opening hours. After hours callers leave a message, which is kept as a WAV file.

In one terminal ``agentao-trio gateway --inbound 10/minute``, in another ``python voicemail.py``.
"""

import functools
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import trio

from agentao_trio import ActiveCall, CallConnectFailed, ClientTLS, serve
from agentao_trio.detect import Digit, DtmfDetector, SpeechEnded, SpeechStarted, VoiceActivityDetector

PROMPTS = Path(__file__).with_name("prompts")
FRONT_DESK = "+15550100001"
#: Seconds: how long a message may be, and after which pause it is taken to be over.
LONGEST, PAUSE = 120.0, 3.0


def is_open(now: datetime) -> bool:
    return now.weekday() < 5 and 9 <= now.hour < 17


async def take_message(call: ActiveCall, path: Path) -> None:
    await call.play(PROMPTS / "closed.wav")
    await call.play(PROMPTS / "beep.wav")
    await call.wait_played()
    async with call.record(path) as recording:  # whole also where the caller just hangs up
        with trio.move_on_after(LONGEST) as message:
            message.deadline = trio.current_time() + PAUSE
            latest = trio.current_time() + LONGEST
            async for event in call.detect(VoiceActivityDetector(), DtmfDetector()):
                match event:
                    case SpeechStarted():
                        message.deadline = latest
                    case SpeechEnded():
                        message.deadline = min(latest, trio.current_time() + PAUSE)
                    case Digit(digit="#"):
                        break
    print(f"{call.caller} left {recording.seconds:.0f} s in {path}")


async def answer(call: ActiveCall, folder: Path, now: Callable[[], datetime]) -> None:
    if is_open(now()):
        try:
            await call.connect(FRONT_DESK, ring_time_seconds=20)  # answers the caller when the desk has answered
        except CallConnectFailed as error:
            print(f"{call.caller} did not reach the front desk: {error}")
        else:
            await call.close()  # the two of them go on without us
            return
    await call.answer()
    await take_message(call, folder / f"{now():%Y%m%d-%H%M%S-%f}.wav")
    await call.play(PROMPTS / "thanks.wav")
    await call.wait_played()


async def main(
    endpoint: str = "quic://127.0.0.1:9090",
    *,
    folder: Path = Path("messages"),
    now: Callable[[], datetime] = datetime.now,
    **options: Any,
) -> None:
    await trio.Path(folder).mkdir(exist_ok=True)
    await serve(functools.partial(answer, folder=folder, now=now), endpoint, trunks=["main"], **options)


if __name__ == "__main__":
    trio.run(lambda: main(tls=ClientTLS(ca="ca.pem")))
