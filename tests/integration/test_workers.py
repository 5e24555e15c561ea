"""Several processes of one command: what they are started with, when they die, and how they end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from agentao_trio.cli.workers import _of_one

#: A worker: writes down its number and its arguments, and stays, or dies as often as it is told to.
WORKER = """#!{python}
import os, sys, signal, time
directory, deaths = {directory!r}, {deaths}
def end(*_):
    with open(os.path.join(directory, "ended"), "a") as file:
        file.write("in order\\n")
    raise SystemExit(0)
signal.signal(signal.SIGTERM, {on_sigterm})
with open(os.path.join(directory, "started"), "a") as file:
    file.write(" ".join([str(os.getpid()), *sys.argv[1:]]) + "\\n")
with open(os.path.join(directory, "started")) as file:
    if len(file.readlines()) <= deaths:
        raise SystemExit(3)
time.sleep(600)
"""
SUPERVISOR = """
import sys, trio
from agentao_trio.cli import workers
workers.PATIENCE = float(sys.argv[1])
sys.executable = sys.argv[2]
raise SystemExit(trio.run(workers.supervise, int(sys.argv[3]), sys.argv[4:]))
"""


@attrs.frozen
class Supervised:
    process: subprocess.Popen[str]
    directory: Path

    def lines(self, name: str) -> list[list[str]]:
        path = self.directory / name
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def wait_for(self, name: str, count: int) -> list[list[str]]:
        deadline = time.monotonic() + 120
        while len(lines := self.lines(name)) < count:
            assert time.monotonic() < deadline, lines
            time.sleep(0.02)
        return lines

    def is_gone(self, pid: str) -> bool:
        return not Path("/proc", pid).exists()


@contextmanager
def supervised(
    directory: Path,
    workers: int,
    arguments: Sequence[str],
    *,
    deaths: int = 0,
    on_sigterm: str = "end",
    patience: float = 60,
) -> Iterator[Supervised]:
    worker = directory / "worker"
    worker.write_text(
        WORKER.format(python=sys.executable, directory=str(directory), deaths=deaths, on_sigterm=on_sigterm)
    )
    worker.chmod(0o755)
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(patience), str(worker), str(workers), *arguments],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Supervised(process, directory)
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["agent", "--workers", "3"], ["agent", "--client-id", "agent-2"]),
        (["agent", "--workers=3", "--trunk", "main"], ["agent", "--trunk", "main", "--client-id", "agent-2"]),
        (["agent", "--client-id", "shop", "--workers", "3"], ["agent", "--client-id", "shop-2"]),
        (["agent", "--client_id=shop", "--workers", "3"], ["agent", "--client-id", "shop-2"]),
        (["agent", "--voice", "workers"], ["agent", "--voice", "workers", "--client-id", "agent-2"]),
    ],
)
def test_a_worker_is_the_same_command_with_a_name_of_its_own(arguments: list[str], expected: list[str]) -> None:
    assert _of_one(arguments, 2) == expected


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_workers_are_started_and_ended_together(tmp_path: Path, number: signal.Signals, status: int) -> None:
    with supervised(tmp_path, 3, ["agent", "--workers", "3", "--trunk", "main"]) as run:
        started = run.wait_for("started", 3)
        assert sorted(line[1:] for line in started) == [
            ["-m", "agentao_trio", "agent", "--trunk", "main", "--client-id", f"agent-{each}"] for each in (1, 2, 3)
        ]
        run.process.send_signal(number)
        _, err = run.process.communicate(timeout=120)
        assert (run.process.returncode, err) == (status, "stopping 3 workers\n")
        assert len(run.lines("ended")) == 3
        assert all(run.is_gone(line[0]) for line in started)


def test_a_worker_that_dies_is_started_again_after_a_growing_pause(tmp_path: Path) -> None:
    with supervised(tmp_path, 1, ["agent"], deaths=2) as run:
        started = run.wait_for("started", 3)
        assert len({line[0] for line in started}) == 3
        run.process.terminate()
        _, err = run.process.communicate(timeout=120)
        assert err.splitlines() == [
            "worker 1 ended with status 3; starting it again in 0.5 s",
            "worker 1 ended with status 3; starting it again in 1 s",
            "stopping 1 workers",
        ]


def test_a_worker_that_does_not_end_is_killed(tmp_path: Path) -> None:
    with supervised(tmp_path, 1, ["agent"], on_sigterm="signal.SIG_IGN", patience=0.5) as run:
        [started] = run.wait_for("started", 1)
        run.process.terminate()
        run.process.communicate(timeout=120)
        assert run.process.returncode == 143
        assert run.is_gone(started[0])
        assert run.lines("ended") == []
