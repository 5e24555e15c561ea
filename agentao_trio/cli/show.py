"""``agentao-trio demo --live``: calls without end, for the page that shows them."""

from __future__ import annotations

import contextlib
import webbrowser
from functools import partial
from itertools import count
from pathlib import Path

import trio

from agentao_trio.cli.agent import Agent, AgentOptions, embedded_gateway
from agentao_trio.cli.demo import PLANS, Plan, speech
from agentao_trio.cli.running import about
from agentao_trio.cli.screen import Screen
from agentao_trio.config import ClientConfig
from agentao_trio.errors import AgentaoError
from agentao_trio.hub import Hub
from agentao_trio.live import serve as serve_live
from agentao_trio.session import Session, open_session

__all__ = ["Show"]

#: Seconds of speech in a call, and between two calls to the same far end.
TALK_SECONDS, PAUSE_SECONDS = 20.0, 3.0
#: Seconds between the first calls, so that they do not all look alike.
STAGGER = 0.7


class Show:
    """Ten calls at a time, two conversations with the scripted model, and a page that shows them all."""

    def __init__(self, *, port: int, directory: Path, calls: int, browser: bool, screen: Screen) -> None:
        self._port = port
        self._directory = directory
        self._calls = calls
        self._browser = browser
        self._screen = screen

    async def run(self) -> None:
        """Go on until cancelled."""
        with about("--record"):
            self._directory.mkdir(parents=True, exist_ok=True)
        hub = Hub()
        async with contextlib.AsyncExitStack() as stack:
            gateway = await stack.enter_async_context(embedded_gateway())
            page = await stack.enter_async_context(serve_live(hub, port=self._port))
            self._screen.say(f"Live calls: {page.url}")
            self._screen.say("Ctrl-C ends it.")
            if self._browser:
                await trio.to_thread.run_sync(webbrowser.open, page.url)
            config = ClientConfig(endpoint=gateway.endpoint, tls=gateway.tls)
            session = await stack.enter_async_context(open_session(config.endpoint, hub=hub, **config.options()))
            nursery = await stack.enter_async_context(trio.open_nursery())
            agent = Agent(AgentOptions(), self._screen, hub)
            await nursery.start(partial(agent.serve, config, drain=0.0))
            for line in range(2):
                nursery.start_soon(partial(agent.be_called, gateway, first=line))
            for number in range(self._calls):
                nursery.start_soon(self._call_again_and_again, session, PLANS[number % len(PLANS)], number)

    async def _call_again_and_again(self, session: Session, plan: Plan, line: int) -> None:
        said = speech(TALK_SECONDS)
        await trio.sleep(STAGGER * line)
        for number in count(1):
            path = self._directory / f"{line:02}-{number}.wav"
            try:
                async with await session.originate(plan.number, trunk_id="main", call_from="+15550100900") as call:
                    await call.wait_answered()
                    async with call.record(path):
                        await call.send_audio(said)
                        await call.wait_played()
            except AgentaoError:
                pass  # a call that ends otherwise is a thing to show, too
            finally:
                path.unlink(missing_ok=True)
            await trio.sleep(PAUSE_SECONDS)
