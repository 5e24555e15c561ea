"""A receptionist that is a Realtime model: it greets, looks orders up, puts callers through and hangs up.

In one terminal ``agentao-trio gateway --inbound 10/minute``, in another ``python voice_agent.py``. The model is a
scripted one, unless REALTIME_URL and REALTIME_API_KEY in the environment name another.
"""

import os
from typing import Annotated, Any

import trio

from agentao_trio import ActiveCall, AgenTaoClient, ClientTLS, events
from agentao_trio.realtime.bridge import bridge
from agentao_trio.realtime.protocol import ServerVad, SessionConfig, Transcription
from agentao_trio.realtime.script import demo_script
from agentao_trio.realtime.session import open_realtime
from agentao_trio.realtime.simulator import simulated
from agentao_trio.realtime.tools import hangup, transfer

URL = os.environ.get("REALTIME_URL", "")
CONFIG = SessionConfig(
    instructions="You answer the telephone of a garden shop. Be brief. Say goodbye before you hang up.",
    turn_detection=ServerVad(),
    transcription=Transcription(model="whisper-1"),
)
SCRIPTED = simulated(demo_script())
COLLEAGUE = transfer({"colleague": "+15550100001"})


async def look_up_order(number: Annotated[str, "as it is printed on the receipt"]) -> str:
    """Tell where an order is."""
    await trio.sleep(0.3)  # a database, say
    return f"Order {number} has left the shop and arrives tomorrow."


async def main(endpoint: str = "quic://127.0.0.1:9090", **options: Any) -> None:
    client = AgenTaoClient(endpoint, trunks=["main"], **options)
    model_is: dict[str, Any] = {"api_key": os.environ["REALTIME_API_KEY"]} if URL else {"connect": SCRIPTED}

    @client.on(events.INCOMING_CALL)
    async def handle_call(call: ActiveCall) -> None:
        await call.answer()
        async with (
            call,
            open_realtime(URL or "ws://scripted", config=CONFIG, **model_is) as model,
            bridge(call, model, tools=[look_up_order, hangup(), COLLEAGUE], greet=True, max_seconds=600) as talk,
        ):
            ending = await talk.wait_ended()
        print(f"{call.caller}: {ending.reason} after {ending.seconds:.0f} s")

    await client.run_forever()


if __name__ == "__main__":
    trio.run(lambda: main(tls=ClientTLS(ca="ca.pem")))
