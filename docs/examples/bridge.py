"""Calls two people and joins them: what is behind a "call me" button. When one hangs up, so does the other.

In one terminal ``agentao-trio gateway``, in another ``python bridge.py``.
"""

from typing import Any

import trio

from agentao_trio import ActiveCall, CallEnded, CallEnding, ClientTLS, DialplanAction, open_session


async def first_ending(*calls: ActiveCall) -> CallEnding:
    endings: list[CallEnding] = []

    async def wait(call: ActiveCall) -> None:
        endings.append(await call.wait_ended())
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(wait, call)
    return endings[0]


async def main(
    endpoint: str = "quic://127.0.0.1:9090",
    *,
    first: str = "+15550100001",
    second: str = "+15550100016",
    **options: Any,
) -> CallEnding | None:
    """Returns how the conversation ended; None where there was none."""
    async with open_session(endpoint, **options) as session:
        try:
            # Parked, they wait for each other; leaving the blocks hangs up whoever is left.
            async with await session.originate(first, trunk_id="main", default_app=DialplanAction.PARK) as one:
                await one.wait_answered()
                async with await session.originate(second, trunk_id="main", default_app=DialplanAction.PARK) as other:
                    await other.wait_answered()
                    await other.bridge(one)
                    return await first_ending(one, other)
        except CallEnded as error:
            print(f"no conversation: {error}")
            return None


if __name__ == "__main__":
    trio.run(lambda: main(tls=ClientTLS(ca="ca.pem")))
