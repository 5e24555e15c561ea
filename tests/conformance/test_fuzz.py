"""Whatever is legal is taken, by the client and by the judge: a gateway that does everything in unusual ways."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from agentao_trio.gateway import GatewaySettings
from tests.conformance.judging import bad, judged
from tests.support.simulated import simulated

ECHO, BUSY = "+15550100001", "+15550100017"
CAUSES = {ECHO: 16, BUSY: 17}


@pytest.mark.parametrize("reply", ["framed", "bare", "none"])
@pytest.mark.parametrize("seed", range(8))
async def test_calls_live_and_end_at_an_unusual_gateway(seed: int, reply: str, autojump_clock: MockClock) -> None:
    settings = GatewaySettings(fuzz=seed, reply=reply)  # type: ignore[arg-type]
    causes: list[tuple[str, int]] = []
    async with simulated(settings) as (session, _):

        async def one(number: str) -> None:
            async with await session.originate(number, trunk_id="main") as call:
                if number == ECHO:
                    await call.wait_answered()
                    await trio.sleep(2)
                    await call.hangup()
                with trio.fail_after(20):
                    ended = await call.wait_ended()
                causes.append((number, ended.q850_cause))

        async with trio.open_nursery() as nursery:
            for number in (ECHO, BUSY, ECHO):
                nursery.start_soon(one, number)
    assert sorted(causes) == sorted((number, CAUSES[number]) for number in (ECHO, ECHO, BUSY))


@pytest.mark.parametrize(("seed", "reply"), [(2, "framed"), (3, "framed"), (7, "bare")])
def test_no_must_is_broken_by_an_unusual_gateway(seed: int, reply: str) -> None:
    settings = GatewaySettings(fuzz=seed, reply=reply)  # type: ignore[arg-type]
    report = judged(
        "EVT", "SUB", "RPC", "ERR", "ROB-02", "ROB-04", seed=seed, settings=settings, examples=2, slow=False
    )
    # It takes its time with replies, now and then and by dice, which it only should not.
    assert bad(report).keys() <= {"RPC-08", "ROB-02"}
