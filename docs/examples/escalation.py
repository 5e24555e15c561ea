"""Greets callers, and hands those who press 0 over to a person. The agent leaves when the two of them can talk.

In one terminal ``agentao-trio gateway --inbound 10/minute``, in another ``python escalation.py``.
"""

import functools
from pathlib import Path
from typing import Any

import trio

from agentao_trio import ActiveCall, CallConnectFailed, ClientTLS, serve
from agentao_trio.detect import DtmfDetector

PROMPTS = Path(__file__).with_name("prompts")


async def wants_a_person(call: ActiveCall) -> bool:
    with trio.move_on_after(10):
        async for key in call.detect(DtmfDetector()):
            if key.digit == "0":
                return True
    return False


async def answer(call: ActiveCall, person: str) -> None:
    await call.answer()
    async with call.play(PROMPTS / "welcome.wav"):
        escalate = await wants_a_person(call)
    if escalate:
        try:
            await call.connect(person, ring_time_seconds=20)
        except CallConnectFailed as error:
            print(f"{person} could not be reached, cause {error.q850_cause}")
            await call.play(PROMPTS / "nobody-free.wav")
        else:
            await call.close()  # only for us: caller and person go on
            return
    await call.play(PROMPTS / "goodbye.wav")
    await call.wait_played()


async def main(endpoint: str = "quic://127.0.0.1:9090", *, person: str = "+15550100001", **options: Any) -> None:
    await serve(functools.partial(answer, person=person), endpoint, trunks=["main"], **options)


if __name__ == "__main__":
    trio.run(lambda: main(tls=ClientTLS(ca="ca.pem")))
