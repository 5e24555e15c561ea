"""Calls a list of people with a notice, again where the line is busy, until they have pressed 1.

Answering machines get the notice after their beep; only a person can confirm it.

In one terminal ``agentao-trio gateway``, in another ``python notification.py``.
"""

from pathlib import Path
from typing import Any

import trio

from agentao_trio import ActiveCall, ClientTLS, open_session
from agentao_trio.campaign import Campaign, CampaignRow, RetryPolicy, read_numbers
from agentao_trio.detect import Answered, Answerer, AnsweringMachineDetector, Beep, DtmfDetector

PROMPTS = Path(__file__).with_name("prompts")
NUMBERS = b"to,name\n+15550100001,Ada\n+15550100017,Bob\n"


async def somebody_listens(call: ActiveCall) -> bool:
    """Wait for the moment to speak; False where it is to a machine."""
    is_machine = False
    with trio.move_on_after(6) as patience:  # the line of somebody who says nothing may be silent, or dead
        async for event in call.detect(AnsweringMachineDetector()):
            match event:
                case Answered(by=Answerer.MACHINE):
                    is_machine = True
                    patience.deadline += 30  # until it beeps
                case Answered():
                    break
                case Beep():
                    return False
    return not is_machine


async def confirms(call: ActiveCall) -> bool:
    with trio.move_on_after(10):
        async for key in call.detect(DtmfDetector()):
            if key.digit == "1":
                return True
    return False


async def main(
    endpoint: str = "quic://127.0.0.1:9090", *, numbers: bytes = NUMBERS, pause: float = 60.0, **options: Any
) -> dict[str, str]:
    """Returns what became of each number: confirmed, or the campaign's own word for it."""
    confirmed: set[str] = set()

    async def notify(call: ActiveCall, row: CampaignRow) -> None:
        if await somebody_listens(call):
            async with call.play(PROMPTS / "notice.wav"):
                if not await confirms(call):
                    return
            confirmed.add(row.to)
            await call.play(PROMPTS / "thanks.wav")
        else:
            await call.play(PROMPTS / "notice.wav")
        await call.wait_played()

    async with open_session(endpoint, **options) as session:
        campaign = Campaign(
            session,
            read_numbers(numbers),
            notify,
            trunk_id="main",
            calls_per_second=2,
            max_concurrent=10,
            retry=RetryPolicy(attempts=3, pause=pause),
        )
        result = await campaign.run()
    outcomes = {each.row.to: "confirmed" if each.row.to in confirmed else str(each.outcome) for each in result.rows}
    for row in result.rows:
        print(row.row.data["name"], outcomes[row.row.to], "after", len(row.attempts), "calls")
    return outcomes


if __name__ == "__main__":
    trio.run(lambda: main(tls=ClientTLS(ca="ca.pem")))
