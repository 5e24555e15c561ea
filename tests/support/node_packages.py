"""Node's own packages for tests: installed once into a temporary directory, by npm; a test without them is skipped."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

__all__ = ["SCRIPTS", "NodeProcess", "node_directory", "run_node"]

SCRIPTS = Path(__file__).with_name("node")
#: Pinned: what a test holds must not change by itself.
_PACKAGES = ("socket.io@4.8.4", "socket.io-client@4.8.4", "@socket.io/redis-adapter@8.3.0", "redis@5.8.0")
_INSTALL_SECONDS = 300


def node_directory() -> Path:
    """A directory with the packages. Skips the test, and says why, where they cannot be had."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    names = "-".join(package.replace("/", "-").replace("@", "_") for package in _PACKAGES)
    user = getattr(os, "getuid", int)()  # another's may not be readable
    directory = Path(tempfile.gettempdir()) / f"agentao-trio-node-{user}-{names}"
    if not directory.exists():
        # Into a place of its own first: another process may be at it at the same time.
        building = Path(tempfile.mkdtemp(prefix="agentao-trio-node-"))
        command = [
            "npm",
            "install",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--prefix",
            str(building),
            *_PACKAGES,
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm did not install within {_INSTALL_SECONDS} s")
        if done.returncode:
            pytest.skip(f"npm cannot install: {done.stderr.strip()[-200:]}")
        with contextlib.suppress(OSError):
            building.rename(directory)
    return directory


class NodeProcess:
    """A running script that speaks in lines of JSON."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._buffer = b""
        #: Every line that came so far.
        self.lines: list[Any] = []

    async def line(self, seconds: float = 120.0) -> Any:
        """The next line. Fails the test where none comes."""
        assert self._process.stdout is not None
        with trio.move_on_after(seconds):
            while b"\n" not in self._buffer:
                data = await self._process.stdout.receive_some()
                if not data:
                    break
                self._buffer += data
            line, found, self._buffer = self._buffer.partition(b"\n")
            if found:
                self.lines.append(json.loads(line))
                return self.lines[-1]
        raise AssertionError(f"no further line; so far {json.dumps(self.lines[-5:])[:2000]}")

    async def event(self, name: str, seconds: float = 120.0) -> Any:
        """The next line with this ``name``; those before it are passed over."""
        with trio.fail_after(seconds):
            while (line := await self.line(seconds))["name"] != name:
                pass
        return line

    async def say(self, value: Any) -> None:
        """Give the script a line."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps(value).encode() + b"\n")


@contextlib.asynccontextmanager
async def run_node(script: str, *arguments: str) -> AsyncIterator[NodeProcess]:
    """Run one of the scripts here for as long as the block runs."""
    directory = await trio.to_thread.run_sync(node_directory)
    command = ["node", str(SCRIPTS / script), *arguments]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(
                trio.run_process,
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=directory,
                check=False,
                deliver_cancel=_kill,
            )
        )
        yield NodeProcess(process)
        nursery.cancel_scope.cancel()


async def _kill(process: trio.Process) -> None:
    process.kill()
    await trio.lowlevel.checkpoint()
