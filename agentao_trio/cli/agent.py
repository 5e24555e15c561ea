"""``agentao-trio agent``: a voice agent that answers the phone, with a model of your own or a scripted one."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import attrs
import trio
from cyclopts import App, Parameter, validators

from agentao_trio.call import ActiveCall
from agentao_trio.cli.access import NOTHING_GIVEN, GatewayAccess
from agentao_trio.cli.running import FAILURE, UsageError, about, output, report_error, run, until_signalled
from agentao_trio.cli.screen import Screen
from agentao_trio.cli.transcript import Transcript
from agentao_trio.cli.workers import supervise, while_supervised
from agentao_trio.client import serve
from agentao_trio.config import ClientConfig
from agentao_trio.dialplan import is_destination
from agentao_trio.errors import AuthenticationError, CallAnswerFailed, ConnectError, ConnectionLost, RealtimeError
from agentao_trio.gateway import Gateway, open_gateway
from agentao_trio.hub import Hub
from agentao_trio.records import RecordKind
from agentao_trio.services import service_nursery
from agentao_trio.session import Session
from agentao_trio.store import open_store
from agentao_trio.testing import ScriptedCaller, Silence, Speech

__all__ = ["Agent", "AgentOptions", "agent_app", "embedded_gateway"]

log: logging.Logger = logging.getLogger("agentao_trio.cli.agent")

#: What names the scripted model, and where a key for another is found.
SIMULATED = "simulated"
KEYS = ("REALTIME_API_KEY", "OPENAI_API_KEY")
#: Seconds that the calls in progress have when the command is ended.
DRAIN = 10.0

agent_app: App = App(
    name="agent",
    help_epilogue="""\
**Examples**

- `agentao-trio agent --model simulated`
- `agentao-trio agent --model wss://api.openai.com/v1/realtime?model=gpt-realtime --gateway quic://gateway.example:9090`
- `agentao-trio agent --gateway quic://127.0.0.1:9090 --ca ca.pem --workers 4 --fleet redis://127.0.0.1`

**Exit status:** 0 when all simulated callers were served as they should be; 1 for a failure; 130 or 143 when it was
ended by Ctrl-C or SIGTERM""",
)

OptionalText = Annotated[str | None, Parameter(show_default=False)]


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class AgentOptions:
    """Whom to answer, with what, and what becomes of it."""

    model: str = SIMULATED
    """"simulated", or a Realtime model's WebSocket: wss://…; its key comes from REALTIME_API_KEY or OPENAI_API_KEY."""
    gateway: OptionalText = None
    """The gateway, as quic://HOST:PORT. Without one, the embedded one is started and simulated callers call in."""
    access: GatewayAccess = NOTHING_GIVEN
    """How it is reached, and as whom."""
    trunk: str = "main"
    """The line whose calls are answered."""
    instructions: OptionalText = None
    """What the model is told to do; a file's name after an @."""
    voice: OptionalText = None
    """One of the model's voices."""
    greet: bool = True
    """Have the model speak first."""
    transfer_to: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = ()
    """Whom the model may put callers through to, as NAME=NUMBER; may be given several times."""
    max_calls: Annotated[int | None, Parameter(show_default=False, validator=validators.Number(gte=1))] = None
    """Calls at a time, in each worker."""
    max_seconds: Annotated[float, Parameter(validator=validators.Number(gt=0))] = 1800
    """How long one conversation may take."""
    callers: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=1000))] = 2
    """Without a gateway: how many simulated callers call in, one after the other."""
    history: Annotated[Path | None, Parameter(show_default=False)] = None
    """File to record everything in; see agentao-trio history."""
    record: Annotated[Path | None, Parameter(show_default=False)] = None
    """Directory for recordings of the calls."""
    live: Annotated[int | None, Parameter(show_default=False, validator=validators.Number(gte=0, lte=65_535))] = None
    """Show the calls in the browser, on this port of loopback; 0 takes a free one."""
    workers: Annotated[int, Parameter(validator=validators.Number(gte=1, lte=256))] = 1
    """Processes, one a core, each with a session of its own. More than one need --fleet, to share the calls."""
    fleet: OptionalText = None
    """redis://…: share calls with other workers, here and on other machines, so that each is answered once."""
    client_id: OptionalText = None
    """What the gateway knows this program by; should be stable. Each worker adds its number."""
    supervised: Annotated[bool, Parameter(show=False, negative="")] = False
    """One of several workers, which ends when its standard input does: what the supervisor adds."""


@agent_app.default
def agent_command(*, options: AgentOptions = AgentOptions()) -> int:
    """Answer the phone with a voice agent that is a Realtime model.

    Without --gateway and with the simulated model everything is offline: two callers call in, one after the other, ask,
    interrupt, are helped and put through, and what is said is shown.
    """
    try:
        _check(options)
    except (ModuleNotFoundError, UsageError) as error:
        return report_error(error)
    if options.workers > 1:
        return run(partial(supervise, options.workers, sys.argv[1:]))

    async def command() -> int:
        agent = Agent(options, Screen(output, live=False), Hub())
        work = partial(while_supervised, agent.run) if options.supervised else agent.run
        return await until_signalled(work) or (FAILURE if agent.failures else 0)

    return run(command)


def _check(options: AgentOptions) -> None:
    """Raise :class:`UsageError`, or ModuleNotFoundError for an extra, for what can be known before anybody calls."""
    _check_model(options.model)
    _check_extras(options)
    _instructions(options.instructions)
    _destinations(options.transfer_to)
    if options.gateway is not None:
        options.access.config(options.gateway)
    elif options.workers > 1 or options.fleet is not None:
        raise UsageError("--workers and --fleet need a --gateway that calls come from")
    _check_fleet(options.fleet)
    if options.workers > 1 and options.fleet is None:
        raise UsageError("--workers needs --fleet redis://…, so that each call is answered by one of them")
    if options.workers > 1 and options.live is not None:
        raise UsageError("--live shows the calls of one process; leave it out, or --workers")
    if options.history is not None and not options.history.parent.is_dir():
        raise UsageError(f"--history: there is no directory {options.history.parent}")
    if options.record is not None:
        with about("--record"):
            options.record.mkdir(parents=True, exist_ok=True)


def _check_fleet(url: str | None) -> None:
    if url is None:
        return
    try:
        parts = urlsplit(url)
        is_redis = bool(parts.scheme in ("redis", "rediss") and parts.hostname and parts.port != 0)
    except ValueError:  # a port that is none
        is_redis = False
    if not is_redis:  # and not shown, as there may be a password in it
        raise UsageError("--fleet takes the address of a Redis: redis://HOST:PORT, or rediss://HOST:PORT for TLS")


def _check_extras(options: AgentOptions) -> None:
    if options.fleet is not None:
        import agentao_trio.fleet
    if options.live is not None:
        import agentao_trio.live  # noqa: F401


def _check_model(model: str) -> None:
    # Whatever model it is, the packages that talk to it have to be there.
    from agentao_trio.realtime.connection import address, websocket
    from agentao_trio.realtime.session import open_realtime as _  # noqa: F401

    if model == SIMULATED:
        return
    try:
        urlsplit(model).port  # noqa: B018 - raises ValueError for one that is none
        websocket(model, headers={"Authorization": ""} if _key() else {})
        where = address(model)  # without what may be secret in it
    except ValueError as error:
        raise UsageError(f"--model: {error}; or 'simulated'") from None
    if model.startswith("wss:") and _key() is None:
        raise UsageError(f"--model {where} needs a key: set {KEYS[0]} in the environment")


def _destinations(pairs: Iterable[str]) -> dict[str, str]:
    """``--transfer-to``: whom the model may put callers through to, by name."""
    found = {}
    for pair in pairs:
        name, equals, to = pair.partition("=")
        if not (name and equals and is_destination(to)):
            raise UsageError(
                f"--transfer-to {pair}: expected NAME=NUMBER, such as desk=+15550100001 or desk=sip:me@example"
            )
        found[name] = to
    return found


def _key() -> str | None:
    return next(filter(None, map(os.environ.get, KEYS)), None)


async def look_up_order(number: Annotated[str, "as it is printed on the receipt"]) -> str:
    """Tell where an order is."""
    await trio.sleep(0.2)
    return f"Order {number} has left the shop and arrives tomorrow."


@contextlib.asynccontextmanager
async def embedded_gateway() -> AsyncIterator[Gateway]:
    """A gateway on loopback that outlives the cancellation of the block: its calls are being hung up meanwhile."""

    async def keep(task_status: trio.TaskStatus[Gateway]) -> None:
        async with open_gateway() as gateway:
            task_status.started(gateway)
            await trio.sleep_forever()

    async with service_nursery() as services:
        yield await services.start(keep)


@attrs.frozen
class _Announced(trio.TaskStatus[Session]):
    """A task status for who waits for nothing but a line on the screen."""

    _screen: Screen
    _line: str

    def started(self, value: Session | None = None) -> None:
        self._screen.say(self._line)


class Agent:
    """One worker: answers calls, and tells ``hub`` of them."""

    def __init__(self, options: AgentOptions, screen: Screen, hub: Hub) -> None:
        self._options = options
        self._screen = screen
        self._hub = hub
        self._instructions = _instructions(options.instructions)
        #: Simulated callers that were not served as they should have been.
        self.failures: int = 0

    async def run(self) -> None:
        """Serve until cancelled, or until the simulated callers are through."""
        options = self._options
        self._hub.attach(Transcript(self._screen).read)
        async with contextlib.AsyncExitStack() as stack:
            gateway = None
            if options.gateway is None:
                gateway = await stack.enter_async_context(embedded_gateway())
                config = ClientConfig(endpoint=gateway.endpoint, tls=gateway.tls)
            else:
                config = options.access.config(options.gateway)
            if options.history is not None:
                store = await stack.enter_async_context(open_store(options.history))
                store.attach(self._hub, name=options.client_id or "agent")
            extra: dict[str, Any] = {}
            if options.fleet is not None:
                from agentao_trio.fleet import open_fleet

                fleet = await stack.enter_async_context(open_fleet(options.fleet))
                fleet.attach(self._hub)
                extra["claim"] = fleet.claim
            if options.live is not None:
                from agentao_trio.live import serve as serve_live

                page = await stack.enter_async_context(serve_live(self._hub, port=options.live))
                self._screen.say(f"live calls: {page.url}")
            ready = _Announced(self._screen, f"answering calls on trunk {options.trunk} of {config.endpoint}")
            if gateway is None:  # in the task of the command, where a second Ctrl-C cuts the draining short
                await self.serve(config, drain=DRAIN, task_status=ready, **extra)
                return
            nursery = await stack.enter_async_context(trio.open_nursery())
            # A simulated caller falls silent with the command: there is nothing to be waited for.
            ready.started(await nursery.start(partial(self.serve, config, drain=0.0, **extra)))
            for number in range(options.callers):
                await self._be_called_once(gateway, number)
            nursery.cancel_scope.cancel()

    async def serve(
        self,
        config: ClientConfig,
        *,
        drain: float,
        task_status: trio.TaskStatus[Session] = trio.TASK_STATUS_IGNORED,
        **extra: Any,
    ) -> None:
        """Answer the calls that come in, until cancelled. Those in progress then have ``drain`` seconds to end."""
        options = self._options
        await serve(
            self._answer,
            config,
            max_calls=options.max_calls,
            drain=drain,
            trunks=[options.trunk],
            client_id=options.client_id,
            hub=self._hub,
            task_status=task_status,
            **extra,
        )

    # -- one call ---------------------------------------------------------------------------------------------------

    async def _answer(self, call: ActiveCall) -> None:
        try:
            async with self._open_model(call) as model:  # while it rings: once answered, the caller wants to be greeted
                await call.answer()
                await self._talk(call, model)
        except CallAnswerFailed as failure:  # nobody's fault: others may answer the same trunk
            hint = "" if self._options.fleet else "; agents that answer the same trunk share its calls with --fleet"
            log.warning("call %s is left: %s%s", call.call_sid, failure, hint)
        except (AuthenticationError, ConnectError, ConnectionLost, RealtimeError, trio.TooSlowError) as error:
            # The model's, all of them. Its caller is hung up on; the next one may have more luck.
            call.publish(RecordKind.ERROR, source="realtime", message=str(error) or "the model is too slow", fatal=True)

    async def _talk(self, call: ActiveCall, model: Any) -> None:
        from agentao_trio.realtime.bridge import bridge
        from agentao_trio.realtime.tools import hangup

        options = self._options
        async with contextlib.AsyncExitStack() as stack:
            if options.record is not None:
                path = options.record / f"{call.call_sid}.wav"
                try:
                    await stack.enter_async_context(call.record(path))
                except OSError as error:  # a full disk: the caller is to be talked to all the same
                    log.error("%s cannot be written: %s", path, error.strerror)
            tools = [look_up_order] if options.model == SIMULATED else []
            talk = await stack.enter_async_context(
                bridge(
                    call,
                    model,
                    tools=[*tools, hangup(), *self._transfer()],
                    greet=options.greet,
                    max_seconds=options.max_seconds,
                )
            )
            await talk.wait_ended()

    def _transfer(self) -> list[Any]:
        from agentao_trio.realtime.tools import transfer

        pairs = _destinations(self._options.transfer_to)
        if self._options.model == SIMULATED:
            pairs.setdefault("colleague", "+15550100001")
        return [transfer(pairs)] if pairs else []

    @contextlib.asynccontextmanager
    async def _open_model(self, call: ActiveCall) -> AsyncIterator[Any]:
        from agentao_trio.realtime.protocol import UNSET, ServerVad, SessionConfig, Transcription
        from agentao_trio.realtime.session import open_realtime

        options = self._options
        config = SessionConfig(
            instructions=self._instructions,
            turn_detection=ServerVad(),
            transcription=Transcription(model="whisper-1"),
            voice=UNSET if options.voice is None else options.voice,
        )
        if options.model == SIMULATED:
            from agentao_trio.realtime.simulator import simulated

            connect = simulated(_script(call.caller))
            async with open_realtime("ws://scripted", config=config, connect=connect) as model:
                yield model
        else:
            async with open_realtime(options.model, config=config, api_key=_key()) as model:
                yield model

    # -- simulated callers --------------------------------------------------------------------------------------------

    async def be_called(self, gateway: Gateway, *, first: int = 0) -> None:
        """Have the simulated callers call in, one after the other, until cancelled."""
        for number in itertools.count(first):
            await self._be_called_once(gateway, number)
            await trio.sleep(2.0)

    async def _be_called_once(self, gateway: Gateway, number: int) -> None:
        script, phone = SIMULATED_CALLERS[number % len(SIMULATED_CALLERS)]
        caller = ScriptedCaller(gateway, phone)
        placed = gateway.place_inbound_call(trunk_id=self._options.trunk, call_from=phone, handset=caller)
        caller.call_sid = placed or ""
        try:
            await script(caller)
        except AssertionError as error:
            self.failures += 1
            self._screen.say(f"FAILED: {error}", style="bold red")


def _instructions(text: str | None) -> str:
    if text is None:
        return "You answer the telephone. Be brief and friendly. Say goodbye before you hang up."
    if text.startswith("@"):
        try:
            with about("--instructions"):
                return Path(text[1:]).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UsageError(f"--instructions: {text[1:]}: the file is not UTF-8 text") from None
    return text


#: Seconds that a simulated caller waits for a word: longer than it takes to find out that there is no model.
GREETED_WITHIN = 30.0
ASKS, WANTS_SOMEBODY = "+15550101701", "+15550101702"


def _script(caller: str) -> Any:
    """What the scripted model does for one of the simulated callers, or anybody else."""
    from agentao_trio.realtime.script import Script, demo_script

    script = demo_script()
    if caller == WANTS_SOMEBODY:
        return Script(turns=(script.turns[0], script.otherwise), otherwise=script.otherwise)
    return script


def _voice(name: str) -> Path:
    with resources.as_file(resources.files("agentao_trio.cli").joinpath("voices", f"{name}.wav")) as path:
        return path


async def _asks_and_interrupts(caller: ScriptedCaller) -> None:
    """Asks for an order, and has heard enough after a second of the answer."""
    await caller.hears(Speech(), within=GREETED_WITHIN)
    await caller.hears(Silence(0.6), within=20)
    await caller.says(_voice("where"))
    await caller.hears(Speech())
    await trio.sleep(2.5)  # into the middle of the answer
    await caller.says(_voice("great"))
    await caller.is_hung_up(within=30)


async def _wants_somebody(caller: ScriptedCaller) -> None:
    """Asks to be put through."""
    await caller.hears(Speech(), within=GREETED_WITHIN)
    await caller.hears(Silence(0.6), within=20)
    await caller.says(_voice("somebody"))
    await caller.hears(Speech())
    await caller.is_hung_up(within=30)


#: What the simulated callers do, and what they call from.
SIMULATED_CALLERS = ((_asks_and_interrupts, ASKS), (_wants_somebody, WANTS_SOMEBODY))
