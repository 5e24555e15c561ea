"""Calls between two network namespaces with a lossy router in between, which loses its links; and a gateway that dies.

    sudo python -m tests.soak netns --calls 200 --minutes 10

Needs root on Linux, and ``ip`` and ``tc`` of iproute2. A client in one namespace, a gateway in another; between them a
third one, whose links carry so many bits a second, with a relay in it that loses datagrams and changes its port as a
NAT does. Now and then a link goes down, and twice the gateway is killed and started anew. Everything that is set up is
removed at the end, also on Ctrl-C and SIGTERM. Ends with status 1 when a goal was not reached.
"""

# ruff: noqa: T201 - printing is what it is for
from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio
import trustme

__all__ = ["main"]

ROUTER_TO_CLIENT, CLIENT = "10.203.1.1", "10.203.1.2"
ROUTER_TO_GATEWAY, GATEWAY, PORT = "10.203.2.1", "10.203.2.2", 9090
#: Seconds between outages, on average, and how long they are.
BETWEEN_OUTAGES, OUTAGES = 25.0, (0.5, 1.0, 3.0, 8.0)
#: When the gateway is killed, as shares of the whole time; the session waits for its calls for another such share.
KILLS, WINDOW, LONGEST_WINDOW = (0.2, 0.45), 0.3, 120.0
#: From when on the client's memory is looked at, as a share of the whole time: behind the last kill.
WARM = 0.5
#: Finished calls of which memory per thousand can be told.
ENOUGH = 1000
MEGABYTE = 1 << 20


class Unable(Exception):  # noqa: N818 - it says what is missing
    """This machine cannot do it; the message says why."""


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unable(f"{' '.join(command)}: {done.stderr.strip() or f'ended with status {done.returncode}'}")


@attrs.frozen(kw_only=True)
class Site:
    """The names of the three namespaces."""

    client: str
    router: str
    gateway: str

    def link(self, *, up: bool, side: str) -> None:
        """Pull the plug of one of the router's links, or put it back."""
        _run("ip", "-n", self.router, "link", "set", side, "up" if up else "down")


@contextlib.contextmanager
def _site(megabits: float) -> Iterator[Site]:
    """Three namespaces in a row. Raises :class:`Unable`, with nothing left behind."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise Unable("network namespaces are made by root, on Linux")
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            raise Unable(f"there is no {tool!r} here; it comes with iproute2")
    site = Site(**{part: f"agentao-{os.getpid()}-{part}" for part in ("client", "router", "gateway")})
    with contextlib.ExitStack() as undo:
        for name in (site.client, site.router, site.gateway):
            _run("ip", "netns", "add", name)
            undo.callback(_run, "ip", "netns", "del", name)  # and with it its links
            _run("ip", "-n", name, "link", "set", "lo", "up")
        for name, link, near, far in (
            (site.client, "client", CLIENT, ROUTER_TO_CLIENT),
            (site.gateway, "gateway", GATEWAY, ROUTER_TO_GATEWAY),
        ):
            _run("ip", "link", "add", link, "netns", site.router, "type", "veth", "peer", "name", "eth", "netns", name)
            for where, device, address in ((site.router, link, far), (name, "eth", near)):
                _run("ip", "-n", where, "addr", "add", f"{address}/24", "dev", device)
                _run("ip", "-n", where, "link", "set", device, "up")
                shape = f"qdisc add dev {device} root tbf rate {megabits:g}mbit burst 32kb latency 200ms"
                _run("tc", "-n", where, *shape.split())
        yield site


class _Part:
    """A program in a namespace. ``lines`` are what it has said so far."""

    def __init__(self, namespace: str, part: str, *arguments: object) -> None:
        self.lines: list[dict[str, Any]] = []
        self._part = part
        python = [sys.executable, "-m", "tests.soak.netns_parts", part, *map(str, arguments)]
        self._command = ["ip", "netns", "exec", namespace, *python]
        self._said = trio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[trio.Process]:
        """Until the block is left, if not by itself before. It is out of reach of the terminal's Ctrl-C."""
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(
                partial(trio.run_process, self._command, stdout=subprocess.PIPE, start_new_session=True, check=False)
            )
            nursery.start_soon(self._listen, process)
            try:
                yield process
            finally:
                process.kill()
                nursery.cancel_scope.cancel()

    async def first(self) -> dict[str, Any]:
        """Its first line. Raises :class:`Unable` when there is none within 20 s."""
        with trio.move_on_after(20):
            await self._said.wait()
        if not self.lines:
            raise Unable(f"the {self._part} does not start; what it said is above")
        return self.lines[0]

    async def _listen(self, process: trio.Process) -> None:
        assert process.stdout is not None
        pending = b""
        async for chunk in process.stdout:
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                self.lines.append(json.loads(line))
                self._said.set()
        self._said.set()


class _Soak:
    def __init__(self, site: Site, folder: str, *, calls: int, seconds: float, loss: float) -> None:
        self.kills: list[float] = []
        self.outages: list[float] = []
        #: What each of the gateways said; the last one is the present one.
        self.gateways: list[_Part] = []
        self._site = site
        self._folder = folder
        self._calls = calls
        self._seconds = seconds
        self._loss = loss
        self._window = min(LONGEST_WINDOW, WINDOW * seconds)
        self._dice = random.Random(1)
        self._gateway_up = trio.Event()

    async def run(self) -> int:
        relay = _Part(self._site.router, "relay", ROUTER_TO_CLIENT, GATEWAY, PORT, self._loss)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_a_gateway)
            await self._gateway_up.wait()
            async with relay.running():
                port = (await relay.first())["port"]
                limits = (self._calls, self._seconds, self._window)
                client = _Part(self._site.client, "client", ROUTER_TO_CLIENT, port, GATEWAY, self._folder, *limits)
                async with client.running() as process:
                    await client.first()
                    nursery.start_soon(self._make_trouble)
                    nursery.start_soon(self._show_progress, client)
                    await process.wait()
                nursery.cancel_scope.cancel()
        if process.returncode:
            raise Unable(f"the client ended with status {process.returncode}")
        return self._judge(client.lines, relay.lines)

    async def _keep_a_gateway(self) -> None:
        """One that is killed twice, and started anew."""
        began = trio.current_time()
        for end in (*(share * self._seconds for share in KILLS), math.inf):
            gateway = _Part(self._site.gateway, "gateway", GATEWAY, PORT, self._folder)
            self.gateways.append(gateway)
            async with gateway.running():
                await gateway.first()
                self._gateway_up.set()
                await trio.sleep_until(began + end)
                self.kills.append(time.time())

    async def _make_trouble(self) -> None:
        """Outages, with none in the last tenth of the time."""
        quiet = trio.current_time() + 0.9 * self._seconds
        while True:
            await trio.sleep(self._dice.expovariate(1 / BETWEEN_OUTAGES))
            dark, side = self._dice.choice(OUTAGES), self._dice.choice(("client", "gateway"))
            if trio.current_time() + dark > quiet:
                return
            self._site.link(up=False, side=side)
            self.outages.append(dark)
            await trio.sleep(dark)
            self._site.link(up=True, side=side)

    async def _show_progress(self, client: _Part) -> None:
        began = trio.current_time()
        while True:
            await trio.sleep(15)
            last, theirs = client.lines[-1], self.gateways[-1].lines
            print(
                f"{trio.current_time() - began:.0f} s: {last.get('calls_open', 0)} calls open, {last.get('ended', 0)} "
                f"ended, {last.get('connections', 0)} connections, {len(self.outages)} outages, {len(self.kills)} "
                f"kills; client {last.get('resident', 0) / MEGABYTE:.1f} MB, "
                f"gateway {theirs[-1]['resident'] / MEGABYTE if theirs else 0:.1f} MB",
                flush=True,
            )

    def _judge(self, client: list[dict[str, Any]], relay: list[dict[str, Any]]) -> int:
        reports = [line for line in client if "resident" in line]
        last, running, farewell = reports[-1], reports[:-1], client[-1]
        warm = [line for line in running if line["at"] >= running[0]["at"] + WARM * self._seconds]
        ended = [line["ended"] for line in warm]
        finished = ended[-1] - ended[0]
        # Single readings are off by what happens to be under way; a line through all of them is not.
        resident, blocks = (
            statistics.linear_regression(ended, [line[what] for line in warm]).slope for what in ("resident", "blocks")
        )
        unexplained = sum(not any(begin <= kill <= end for kill in self.kills) for begin, end in last["lost"])
        theirs = self.gateways[-1].lines
        path = next((line for line in reversed(relay) if "lost" in line), {"lost": 0, "carried": 1, "source_ports": 1})
        lost_share = path["lost"] / (path["lost"] + path["carried"])
        rows = [
            ("calls that ended", f"{last['ended']}: {last['endings']}", last["ended"] > self._calls),
            ("calls left open", f"{last['still_open']} here, {theirs[-1]['calls_open']} at the gateway "
             f"{' '.join(theirs[-1]['few'])}".strip(),
             last["still_open"] == theirs[-1]["calls_open"] == 0),
            ("calls lost", f"{len(last['lost'])}, of which {unexplained} did not span a kill", unexplained == 0),
            ("troubles", f"{len(self.outages)} outages of {sum(self.outages):.0f} s in all, {len(self.kills)} kills, "
             f"{path['source_ports'] - 1} changes of port, {lost_share:.1%} of the datagrams lost; "
             f"{last['connections']} connections", True),
            ("client's memory", f"{warm[0]['resident'] / MEGABYTE:.1f} MB after {WARM:.0%} of the time, "
             f"{warm[-1]['resident'] / MEGABYTE:.1f} MB at the end; in between {resident * 1000 / MEGABYTE:+.2f} MB "
             f"and {blocks * 1000:+,.0f} objects per 1000 of {finished} finished calls",
             resident * 1000 <= MEGABYTE or finished < ENOUGH),
            ("gateway's memory", f"{theirs[0]['resident'] / MEGABYTE:.1f} MB to {theirs[-1]['resident'] / MEGABYTE:.1f}"
             f" MB over {theirs[-1]['calls_placed']} calls since the last kill", True),
            ("left in the client", f"{farewell['descriptors_left']} descriptors", farewell["descriptors_left"] == 0),
        ]  # fmt: skip
        print("\n| | measured | as it should be |\n|---|---|---|")
        for what, measured, good in rows:
            print(f"| {what} | {measured} | {'yes' if good else '**no**'} |")
        return int(not all(good for _, _, good in rows))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak netns", description="Calls between two namespaces.")
    parser.add_argument("--calls", type=int, default=200, help="calls at any time (default: 200)")
    parser.add_argument("--minutes", type=float, default=10, help="how long (default: 10)")
    parser.add_argument("--loss", type=float, default=0.02, help="share of datagrams lost (default: 0.02)")
    parser.add_argument("--megabits", type=float, default=20, help="what a link carries in a second (default: 20)")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # leaves as Ctrl-C does
    status = 0
    try:
        with tempfile.TemporaryDirectory() as folder, _site(given.megabits) as site:
            authority = trustme.CA()
            authority.cert_pem.write_to_path(str(Path(folder, "ca.pem")))
            authority.private_key_pem.write_to_path(str(Path(folder, "ca.key")))
            print(f"namespaces {site.client}, {site.router}, {site.gateway}", flush=True)
            soak = _Soak(site, folder, calls=given.calls, seconds=given.minutes * 60, loss=given.loss)
            status = trio.run(soak.run)
    except* Unable as errors:
        why: BaseException = errors
        while isinstance(why, BaseExceptionGroup):
            why = why.exceptions[0]
        print(f"the soak over network namespaces cannot be run here: {why}", file=sys.stderr)
        status = 2
    except* KeyboardInterrupt:
        print("stopped; everything has been removed", file=sys.stderr)
        status = 130
    return status
