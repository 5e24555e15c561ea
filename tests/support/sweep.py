"""Interrupt a program at every step it takes, and look at what it leaves behind.

A *scenario* is an async function that uses the framework against an embedded gateway on an in-memory network. Run
number ``k`` cancels it, or presses Ctrl-C, before the ``k``-th step of its tasks; run number 0 lets it finish, and
counts the steps. After each run the world must be as it was before: no task more than there were, every connection
closed at the gateway's end, every call hung up there, and the next session on the same socket works.
"""

from __future__ import annotations

import contextvars
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

import attrs
import trio
from trio.testing import MockClock

from agentao_trio import Session, open_session
from agentao_trio.gateway import Gateway, GatewaySettings, open_gateway
from agentao_trio.testing import MemoryNetwork, MemorySocket

__all__ = ["ECHO", "HOST", "PORT", "TRUNK", "Finding", "Scenario", "World", "interrupt", "sweep"]

HOST, PORT, TRUNK = "gateway.test", 9090, "main"
ECHO = "+15550100001"

#: Seconds after which whatever an interrupted program left must be gone: longer than it takes to notice a silent peer.
SETTLE = 10.0

_SETTINGS = GatewaySettings(ring=0.06, talk=0.2, patience=3.0, hold_after=0.1, hold_for=0.1)

Kind = Literal["cancel", "sigint"]

_watched: contextvars.ContextVar[bool] = contextvars.ContextVar("watched", default=False)


@attrs.define(eq=False, kw_only=True)
class World:
    """What a scenario has to do with."""

    gateway: Gateway
    network: MemoryNetwork
    socket: MemorySocket
    #: The scenario has cut the path: hangups of now may not arrive.
    dark: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """For ``open_session``, beside the endpoint."""
        return {"tls": self.gateway.tls, "socket": self.socket, "trunks": [TRUNK], "poll_interval": 0.05}

    @property
    def endpoint(self) -> str:
        return f"quic://{HOST}:{PORT}"

    def session(self) -> AbstractAsyncContextManager[Session]:
        return open_session(self.endpoint, **self.options)


Scenario = Callable[[World], Awaitable[None]]


@attrs.frozen(kw_only=True)
class Finding:
    """What run ``step`` of a scenario left behind."""

    step: int
    complaints: tuple[str, ...]


class _Trap(trio.abc.Instrument):
    """Counts the steps of the watched tasks, and springs before one of them."""

    def __init__(self, step: int, spring: Callable[[], None]) -> None:
        self.steps = 0
        self._step = step
        self._spring = spring

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.context.get(_watched):
            self.steps += 1
            if self.steps == self._step:
                self._spring()


def _tasks() -> int:
    """How many tasks there are in this run."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    unvisited, count = [root], 0
    while unvisited:
        count += 1
        for nursery in unvisited.pop().child_nurseries:
            unvisited.extend(nursery.child_tasks)
    return count


async def _complaints(world: World, tasks_before: int) -> list[str]:
    found = []
    await trio.sleep(0.5)
    if not world.dark and world.gateway.statistics().listener.connections:
        found.append("half a second later the gateway has not seen the connection's end")
    await trio.sleep(SETTLE)
    tasks = _tasks()
    if tasks != tasks_before:
        found.append(f"{tasks} tasks, {tasks_before} before")
    statistics = world.gateway.statistics()
    if statistics.listener.connections:
        found.append(f"{statistics.listener.connections} connections are open at the gateway")
    if statistics.model.calls_open and not world.dark:
        found.append(f"{statistics.model.calls_open} calls are open at the gateway")
    try:
        with trio.fail_after(10):
            async with world.session() as session, await session.originate(ECHO, trunk_id=TRUNK) as call:
                await call.wait_answered()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        found.append(f"the next session does not work: {error!r}")
    return found


def interrupt(scenario: Scenario, step: int, kind: Kind = "cancel") -> tuple[int, tuple[str, ...]]:
    """Run ``scenario`` and interrupt it before its step number ``step`` (0: never).

    Returns how many steps it took and what is wrong with what it left.
    """

    if kind == "sigint" and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background by a shell that is not interactive: nothing would be interrupted.
        signal.signal(signal.SIGINT, signal.default_int_handler)

    async def main() -> tuple[int, tuple[str, ...]]:
        network = MemoryNetwork(delay=0.005)
        async with open_gateway(
            socket=network.socket((HOST, PORT)), names=[HOST], settings=_SETTINGS, seed=1
        ) as gateway:
            world = World(gateway=gateway, network=network, socket=network.socket())
            await trio.testing.wait_all_tasks_blocked()
            before = _tasks()
            scope = trio.CancelScope()
            trap = _Trap(step, scope.cancel if kind == "cancel" else lambda: signal.raise_signal(signal.SIGINT))
            trio.lowlevel.add_instrument(trap)
            token = _watched.set(True)
            try:
                with scope:
                    await scenario(world)
                await trio.lowlevel.checkpoint()  # where a late Ctrl-C comes out
            except* KeyboardInterrupt:
                pass
            finally:
                _watched.reset(token)
                trio.lowlevel.remove_instrument(trap)
            return trap.steps, tuple(await _complaints(world, before))

    random.seed(step)
    return trio.run(main, clock=MockClock(autojump_threshold=0))


def sweep(scenario: Scenario, kind: Kind = "cancel", *, points: int | None = None) -> tuple[int, list[Finding]]:
    """Interrupt ``scenario`` before each of its steps, or before ``points`` of them, evenly spread.

    Returns the number of runs and what was wrong with any of them.
    """
    steps, complaints = interrupt(scenario, 0, kind)
    findings = [Finding(step=0, complaints=complaints)] if complaints else []
    chosen = range(1, steps + 1)
    if points is not None and points < steps:
        chosen = sorted({1 + index * (steps - 1) // (points - 1) for index in range(points)})  # type: ignore[assignment]
    for step in chosen:
        _, complaints = interrupt(scenario, step, kind)
        if complaints:
            findings.append(Finding(step=step, complaints=complaints))
    return len(chosen) + 1, findings
