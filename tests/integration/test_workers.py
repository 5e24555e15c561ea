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

from agentao_trio.cli.workers import _command, _of_one

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
#: One with calls in progress: ends as ``agent`` does, and writes down when it is told to and when it has.
TALKING = """#!{python}
import os, trio
from functools import partial
from agentao_trio.cli import running, workers
def write(name, text):
    with open(os.path.join({directory!r}, name), "a") as file:
        file.write(text + "\\n")
async def talk():
    write("started", str(os.getpid()))
    try:
        await trio.sleep_forever()
    finally:
        write("stopping", "calls are in progress")
        with trio.CancelScope(shield=True):
            await trio.sleep({drain})
        write("ended", "in order")
raise SystemExit(running.run(partial(running.until_signalled, partial(workers.while_supervised, talk))))
"""
SUPERVISOR = """
import sys, trio
from agentao_trio.cli import workers
workers.PATIENCE = float(sys.argv[1])
sys.executable = sys.argv[2]
number = sys.argv[3]
sys.argv = ["agentao-trio", *sys.argv[4:]]
sys.orig_argv = ["python", "-m", "agentao_trio", *sys.argv[1:]]
raise SystemExit(trio.run(workers.supervise, int(number), sys.argv[1:]))
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
    program: str = WORKER,
    deaths: int = 0,
    on_sigterm: str = "end",
    drain: float = 0,
    patience: float = 60,
) -> Iterator[Supervised]:
    worker = directory / "worker"
    settings = {"deaths": deaths, "on_sigterm": on_sigterm, "drain": drain}
    worker.write_text(program.format(python=sys.executable, directory=str(directory), **settings))
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


@pytest.mark.parametrize(
    "started",
    [
        ["python", "/usr/bin/agentao-trio"],
        ["python", "-W", "error", "-m", "agentao_trio"],
        ["python", "-P", "-m", "agentao_trio"],
    ],
)
def test_a_worker_is_started_as_its_supervisor_was(started: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what it imports is found in the same places: in the current directory only where that was asked for."""
    arguments = ["agent", "--workers", "3"]
    monkeypatch.setattr(sys, "orig_argv", [*started, *arguments])
    monkeypatch.setattr(sys, "argv", ["agentao-trio", *arguments])
    assert _command() == [sys.executable, *started[1:]]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_workers_are_started_and_ended_together(tmp_path: Path, number: signal.Signals, status: int) -> None:
    with supervised(tmp_path, 3, ["agent", "--workers", "3", "--trunk", "main"]) as run:
        started = run.wait_for("started", 3)
        assert sorted(line[1:] for line in started) == [
            ["-m", "agentao_trio", "agent", "--trunk", "main", "--client-id", f"agent-{each}", "--supervised"]
            for each in (1, 2, 3)
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


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_reaches_the_workers_and_they_are_waited_for(tmp_path: Path, second: signal.Signals) -> None:
    with supervised(tmp_path, 2, ["agent"], program=TALKING, drain=600, patience=600) as run:
        started = run.wait_for("started", 2)
        run.process.terminate()
        run.wait_for("stopping", 2)
        assert run.process.poll() is None
        run.process.send_signal(second)
        run.process.communicate(timeout=120)
        assert run.process.returncode == 143
        assert all(run.is_gone(line[0]) for line in started)
        assert run.lines("ended") == []


def test_workers_whose_supervisor_was_killed_end_in_order(tmp_path: Path) -> None:
    with supervised(tmp_path, 2, ["agent"], program=TALKING, drain=0.5) as run:
        run.wait_for("started", 2)
        run.process.kill()
        run.wait_for("ended", 2)


def test_a_supervisor_that_is_killed_while_its_workers_end_does_not_cut_that_short(tmp_path: Path) -> None:
    with supervised(tmp_path, 1, ["agent"], program=TALKING, drain=1) as run:
        run.wait_for("started", 1)
        run.process.terminate()
        run.wait_for("stopping", 1)
        run.process.kill()
        run.wait_for("ended", 1)
