"""The programs that ``python -m tests.soak netns`` runs, each in its own network namespace: gateway, relay and client.

Each prints a line of JSON now and then and ends when it is told to; the client ends by itself, after the last call.
"""

# ruff: noqa: T201 - printing is how they talk
from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import logging
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from unittest import mock

import trio
import trustme

from agentao_trio import AgentaoError, CallEnded, ClientTLS, ConnectionLost, Session, open_session
from agentao_trio.gateway import GatewaySettings, open_gateway
from tests.soak.figures import resident
from tests.support.relay import open_relay

#: Far ends that say nothing of their own accord, and one that repeats what it hears.
QUIET, ECHO = "+15550100005", "+15550100001"
#: Seconds between lines, and between the gateway's looks at its calls; the share of calls it hangs up at each.
REPORT, LOOK, HUNG_UP = 5.0, 0.5, 0.025
#: Seconds that a call lasts whose program leaves it, on average; the share of calls that talk, and for how long.
LASTS, TALKATIVE, TALKS = 20.0, 0.1, 2.0
#: Seconds between two source ports of the relay.
REBIND = 20.0


def give_back() -> None:
    """Return what is free to the machine, so that what is resident is in use, but for what lies between the used."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # it is glibc's
        ctypes.CDLL(None).malloc_trim(0)


def say(**figures: object) -> None:
    print(json.dumps(figures), flush=True)


def _authority(folder: str) -> trustme.CA:
    return trustme.CA.from_pem(Path(folder, "ca.pem").read_bytes(), Path(folder, "ca.key").read_bytes())


async def run_gateway(host: str, port: str, folder: str) -> None:
    """Hangs up calls at random. Whoever starts it anew gives it the same certificate authority."""
    authority = _authority(folder)
    dice = random.Random(os.getpid())
    with mock.patch.object(trustme, "CA", return_value=authority):
        async with open_gateway(host=host, port=int(port), settings=GatewaySettings(ring=0.2)) as gateway:
            reported = float("-inf")
            while True:
                for call_sid in tuple(gateway.model.calls):
                    if dice.random() < HUNG_UP:
                        gateway.hang_up(call_sid, 16)
                if trio.current_time() - reported >= REPORT:
                    reported = trio.current_time()
                    model = gateway.model.statistics()
                    few = list(gateway.model.calls)[:3]
                    say(resident=resident(), calls_open=model.calls_open, calls_placed=model.calls_placed, few=few)
                await trio.sleep(LOOK)


async def run_relay(host: str, server: str, port: str, loss: str) -> None:
    """Loses datagrams at random, and is seen by the gateway at another port every now and then."""
    async with open_relay((server, int(port)), host=host, loss=float(loss)) as relay:
        say(port=relay.port)
        while True:
            await trio.sleep(REBIND)
            await relay.rebind()
            say(carried=relay.carried, lost=relay.lost, source_ports=len(relay.source_ports))


class Client:
    """Keeps so many calls going for so many seconds, and notes how each of them ends."""

    def __init__(self, session: Session, seconds: float) -> None:
        self._session = session
        self._dice = random.Random(14)
        self._until = time.time() + seconds
        self._endings: dict[str, int] = {}
        #: From when to when the calls lasted that ended as lost, in Unix seconds.
        self._lost: list[tuple[float, float]] = []

    async def run(self, calls: int) -> None:
        # The last of them are left when the time is up, whatever they are doing: that hangs them up.
        with trio.CancelScope(deadline=trio.current_time() + self._until - time.time()):
            async with trio.open_nursery() as nursery:
                for _ in range(calls):
                    nursery.start_soon(self._one_after_the_other)
                while True:
                    await trio.sleep(REPORT)
                    self.report()
        with trio.move_on_after(15):
            while self._session.calls:
                await trio.sleep(0.1)

    async def _one_after_the_other(self) -> None:
        while True:
            await trio.sleep(self._dice.expovariate(1))
            began = time.time()
            try:
                how = await self._one()
            except CallEnded:
                how = "told"
            except ConnectionLost:
                how = "lost"
                self._lost.append((began, time.time()))
            except AgentaoError as error:
                how = type(error).__name__
            self._endings[how] = self._endings.get(how, 0) + 1

    async def _one(self) -> str:
        talks = self._dice.random() < TALKATIVE
        async with await self._session.originate(ECHO if talks else QUIET, trunk_id="main") as call:
            await call.wait_answered()
            if talks:
                await call.send_audio(b"\x55" * round(8000 * TALKS))
                return "left"
            with trio.move_on_after(self._dice.expovariate(1 / LASTS)):
                await call.wait_ended()
                return "told"
            return "left"

    def report(self, **more: object) -> None:
        statistics = self._session.statistics()
        give_back()
        say(
            at=time.time(),
            resident=resident(),
            blocks=sys.getallocatedblocks(),
            endings=self._endings,
            lost=self._lost,
            ended=sum(self._endings.values()),
            calls_open=statistics.calls_open,
            calls_lost=statistics.calls_lost,
            connections=statistics.connections,
            **more,
        )


async def run_client(host: str, port: str, gateway: str, folder: str, calls: str, seconds: str, window: str) -> None:
    logging.getLogger("agentao_trio").setLevel(logging.CRITICAL)
    endpoint, tls = f"quic://{host}:{port}", ClientTLS(ca=_authority(folder).cert_pem.bytes(), server_name=gateway)
    descriptors = len(os.listdir("/proc/self/fd"))
    async with open_session(endpoint, tls=tls, resume_window=float(window)) as session:
        client = Client(session, float(seconds))
        await client.run(int(calls))
        client.report(still_open=len(session.calls))
        # Calls that were given up while they were being placed are hung up when they come to life. After that the
        # gateway has the last word on how many are left there.
        await trio.sleep(5 + 2 * REPORT)
    left = len(os.listdir("/proc/self/fd")) - descriptors
    say(descriptors_left=left, tasks_left=trio.lowlevel.current_statistics().tasks_living)


def main(part: str, *arguments: str) -> None:
    parts: dict[str, Callable[..., Awaitable[None]]]
    parts = {"gateway": run_gateway, "relay": run_relay, "client": run_client}
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):  # nobody is listening any more
        trio.run(parts[part], *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
