"""``agentao-trio live``: the calls of a program that runs, or ran, in the browser."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import Annotated

import attrs
import trio
from cyclopts import App, Parameter, validators

from agentao_trio.cli.access import NOTHING_GIVEN, GatewayAccess
from agentao_trio.cli.running import UsageError, output, run, until_signalled
from agentao_trio.cli.screen import Screen
from agentao_trio.history import CallFilter, History, open_history
from agentao_trio.hub import Hub
from agentao_trio.records import Record
from agentao_trio.replay import Together
from agentao_trio.session import open_session

__all__ = ["live_app"]

#: Where the token for the page is found.
TOKEN = "AGENTAO_LIVE_TOKEN"  # noqa: S105 - the variable's name
#: Seconds between two looks for new records, and of the past that is shown at first.
TAIL_INTERVAL, PAST = 0.25, 900.0

live_app: App = App(
    name="live",
    help_epilogue="""\
**Examples**

- `agentao-trio live calls.db`
- `agentao-trio live quic://gateway.example:9090 --client-id agent-1 --port 8080`
- `AGENTAO_LIVE_TOKEN=… agentao-trio live calls.db --host 0.0.0.0`

**Exit status:** 0 when ended by Ctrl-C or SIGTERM, which is how it ends; 1 for a failure; 2 for wrong usage""",
)


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class LiveOptions:
    """Where the page is, and how a gateway is reached."""

    host: str = "127.0.0.1"
    """Address to serve the page on. Any but this machine's own needs a token in AGENTAO_LIVE_TOKEN."""
    port: Annotated[int, Parameter(validator=validators.Number(gte=0, lte=65_535))] = 8080
    """Port to serve the page on; 0 takes a free one."""
    client_id: Annotated[str | None, Parameter(show_default=False)] = None
    """For a gateway: whose calls. A program of that name that is connected already may then hear nothing more."""


@live_app.default
def live_command(source: str, /, *, options: LiveOptions = LiveOptions(), access: GatewayAccess = NOTHING_GIVEN) -> int:
    """Show calls in the browser as they happen, until Ctrl-C.

    Args:
        source: The history file that a program writes (agentao-trio agent --history FILE), or a gateway as
            quic://HOST:PORT, whose events for a client id are shown.
    """

    async def command() -> int:
        from agentao_trio.live import serve

        hub = Hub()
        screen = Screen(output, live=False)
        token = os.environ.get(TOKEN) or None

        async def work() -> None:
            async with contextlib.AsyncExitStack() as stack:
                history = None
                if source.startswith("quic:"):
                    config = access.config(source, "SOURCE")
                    await stack.enter_async_context(
                        open_session(config.endpoint, client_id=options.client_id, hub=hub, **config.options())
                    )
                else:
                    history = stack.enter_context(open_history(source))
                try:
                    page = await stack.enter_async_context(
                        serve(hub, host=options.host, port=options.port, token=token)
                    )
                except ValueError as error:
                    raise UsageError(f"{error} in the environment as {TOKEN}") from None
                screen.say(f"Live calls: {page.url}")
                if history is not None:
                    await _follow(history, hub)
                await trio.sleep_forever()

        await until_signalled(work)
        return 0  # ended as it has to be

    return run(command)


async def _follow(history: History, hub: Hub) -> None:
    """Hand on what was recorded lately, and from then on what is being recorded, by however many programs."""
    together = Together()

    def tell(records: Iterable[tuple[int, Record]]) -> None:
        for number, record in records:
            if (told := together.take(number, record)) is not None:
                hub.relay(told)

    position = history.position()
    recent = CallFilter(since=hub.unix(trio.current_time()) - PAST)
    past = await trio.to_thread.run_sync(lambda: list(history.with_runs(which=recent, by_time=True)))
    # What was written in between is told once.
    tell((run, record) for run, record in past if record.number <= position.get(run, 0))
    while True:
        tell(history.news(position))
        await trio.sleep(TAIL_INTERVAL)
