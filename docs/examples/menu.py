"""A menu by keys: 1 for the opening hours, 2 for the address, # to end. Whoever presses a key is not talked over.

In one terminal ``agentao-trio gateway --inbound 10/minute``, in another ``python menu.py``.
"""

import contextlib
from pathlib import Path
from typing import Any

import trio

from agentao_trio import ActiveCall, ClientTLS, serve
from agentao_trio.detect import DtmfDetector

PROMPTS = Path(__file__).with_name("prompts")
ANSWERS = {"1": "hours.wav", "2": "address.wav"}
#: Seconds to think, and how often the menu is said to somebody who presses nothing.
PATIENCE, TIMES = 5.0, 3


async def ask(call: ActiveCall, question: str) -> str:
    """Say the question until a key is pressed; an empty string for somebody who presses none."""
    with contextlib.closing(call.detect(DtmfDetector())) as keys:
        for _ in range(TIMES):
            with trio.move_on_after(PATIENCE):
                async with call.play(PROMPTS / question):  # leaving the block stops it
                    async for key in keys:
                        return key.digit
    return ""


async def answer(call: ActiveCall) -> None:
    await call.answer()
    while (key := await ask(call, "menu.wav")) not in ("", "#"):
        await call.play(PROMPTS / ANSWERS.get(key, "not-understood.wav"))
    await call.play(PROMPTS / "goodbye.wav")
    await call.wait_played()  # returning hangs up


async def main(endpoint: str = "quic://127.0.0.1:9090", **options: Any) -> None:
    await serve(answer, endpoint, trunks=["main"], **options)


if __name__ == "__main__":
    trio.run(lambda: main(tls=ClientTLS(ca="ca.pem")))
