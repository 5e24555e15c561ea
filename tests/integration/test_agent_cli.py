"""``agentao-trio agent`` and ``demo --live`` as a stranger meets them: whole conversations, mistakes, and signals."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import wave
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from rich.console import Console
from trio.testing import MockClock

from agentao_trio import messages
from agentao_trio.cli import app
from agentao_trio.cli.agent import Agent, AgentOptions
from agentao_trio.cli.screen import Screen
from agentao_trio.config import ClientConfig
from agentao_trio.history import open_history
from agentao_trio.hub import Hub
from agentao_trio.messages import ErrorCode, MethodId
from agentao_trio.records import RecordKind
from agentao_trio.testing import MemoryNetwork
from tests.support.programs import said
from tests.support.scripted_gateway import CREATE, ScriptedGateway, serving

KEY, PASSWORD, QUERY = "sk-not-to-be-seen", "pass-not-to-be-seen", "query-not-to-be-seen"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-u", "-m", "agentao_trio", *arguments]


@attrs.frozen
class Ran:
    status: int
    out: str
    err: str
    directory: Path


def started(directory: Path, *line: str) -> subprocess.Popen[str]:
    """A program that runs in ``directory`` and whose lines are read."""
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=directory, env=ENVIRONMENT
    )


def agent(directory: Path, *arguments: str, **environment: str) -> Ran:
    """Run the command to its end."""
    done = subprocess.run(
        command("agent", *arguments),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=directory,
        env={**ENVIRONMENT, "COLUMNS": "40", **environment},
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return Ran(done.returncode, done.stdout, done.stderr, directory)


# -- a conversation -------------------------------------------------------------------------------------------------


FIRST = (
    "inbound call, +15550101701",
    "agent: Hello, this is the garden shop. How can I help you?",
    "caller: Where is my order, number 4711?",
    'tool: look_up_order {"number": "4711"}',
    "tool: look_up_order → Order 4711 has left the shop and arrives tomorrow.",
    "agent: Your order left us this morning. It arrives tomorrow. (interrupted)",
    "agent: Thank you for calling. Goodbye.",
    "over (hangup)",
)
SECOND = (
    "inbound call, +15550101702",
    "agent: Hello",
    "caller: Can I talk to somebody?",
    'tool: transfer {"to": "colleague"}',
    "agent: I put you through to a colleague.",
    "tool: transfer → done",
    "over (hangup)",
)
WITH_A_MODEL_OF_ITS_OWN = (
    "agent: Hello, this is the garden shop.",
    "caller: Where is my order, number 4711?",
    "tool: look_up_order failed there is no tool 'look_up_order'; there are hangup",
    "agent: Your order left us this morning.",
    "tool: hangup {}",
    "agent: Thank you for calling. Goodbye.",
)


def in_order(lines: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether lines that contain these stand there, in this order."""
    left = iter(lines)
    return all(any(each in line for line in left) for each in wanted)


def spoken(ran: Ran, caller: str) -> list[str]:
    return [line for line in ran.out.splitlines() if line.startswith(caller)]


def undisturbed(wanted: Mapping[str, Sequence[str]], run: Callable[[], Ran]) -> Ran:
    """Run until each caller had the conversation that is wanted.

    They talk in real time, and a machine that stands still for half a second is a pause in what they say, or makes an
    interruption come too late: then another try.
    """
    for _ in range(3):
        ran = run()
        if all(in_order(spoken(ran, caller), lines) for caller, lines in wanted.items()):
            break
    return ran


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Both simulated callers, with everything kept."""

    def run() -> Ran:
        return agent(tmp_path_factory.mktemp("agent"), "--record", "recordings", "--history", "calls.db")

    return undisturbed({"1701": FIRST, "1702": SECOND}, run)


def test_two_callers_are_helped_offline(offline: Ran) -> None:
    assert (offline.status, offline.err) == (0, ""), offline.out
    lines = offline.out.splitlines()
    assert lines[0].startswith("answering calls on trunk main of quic://127.0.0.1:")
    first, second = spoken(offline, "1701"), spoken(offline, "1702")
    assert in_order(first, FIRST), offline.out
    assert in_order(first, ["(interrupted)", "caller: Great, that was all. Bye.", "agent: Thank you"])
    assert in_order(first, ["tool: hangup {}", "tool: hangup → done"])
    assert in_order(second, SECOND), offline.out
    assert len(lines) == 1 + len(first) + len(second)


def test_the_calls_are_recorded(offline: Ran) -> None:
    recordings = sorted((offline.directory / "recordings").iterdir())
    assert len(recordings) == 2
    for path in recordings:
        with wave.open(str(path)) as file:
            assert file.getnchannels() == 2, "caller and agent"
            assert 4 < file.getnframes() / file.getframerate() < 30
            assert len(set(file.readframes(file.getnframes()))) > 100, "somebody spoke"


def test_the_calls_are_history(offline: Ran) -> None:
    with open_history(offline.directory / "calls.db") as history:
        calls = list(history.calls())
        assert sorted((call.caller, call.direction, call.status) for call in calls) == [
            ("+15550101701", "inbound", "completed"),
            ("+15550101702", "inbound", "completed"),
        ]
        records = list(history.records())
    said = [record.data["text"] for record in records if record.data.get("phase") == "final"]
    assert "Where is my order, number 4711?" in said
    assert {RecordKind.TOOL, RecordKind.TURN, RecordKind.USAGE, RecordKind.RECORDING} <= {each.kind for each in records}
    commands = [record.data["method"] for record in records if record.data.get("phase") == "sent"]
    assert commands.count("ExecuteDialplan") == 1, "the second caller was put through, once"


SIMULATOR = """
import trio
from agentao_trio.realtime.script import demo_script
from agentao_trio.realtime.simulator import open_simulator

async def main():
    async with open_simulator(demo_script()) as simulator:
        print(simulator.url, flush=True)
        await trio.sleep(120)

trio.run(main)
"""


def test_a_model_at_a_websocket_is_talked_to(tmp_path: Path) -> None:
    """It has other tools than the simulated one: it is told so, and goes on."""
    with subprocess.Popen([sys.executable, "-c", SIMULATOR], stdout=subprocess.PIPE, text=True) as simulator:
        assert simulator.stdout is not None
        try:
            url = simulator.stdout.readline().strip()
            ran = undisturbed(
                {"1701": WITH_A_MODEL_OF_ITS_OWN},
                lambda: agent(tmp_path, "--model", url, "--callers", "1", REALTIME_API_KEY=KEY),
            )
        finally:
            simulator.kill()
    assert (ran.status, ran.err) == (0, ""), ran.out
    assert in_order(ran.out.splitlines(), WITH_A_MODEL_OF_ITS_OWN), ran.out
    assert KEY not in ran.out


# -- mistakes -------------------------------------------------------------------------------------------------------

SOME_GATEWAY = ("--gateway", "quic://127.0.0.1:1")
MISTAKES = {
    "a model that is no WebSocket": (["--model", "http://models.example"], "expected|wss://"),
    "a model without a host": (["--model", "wss://"], "wss://"),
    "a model without a key": (["--model", "wss://models.example/v1"], "set REALTIME_API_KEY"),
    "workers without a gateway": (["--workers", "3"], "--gateway"),
    "workers without a fleet": (["--workers", "3", *SOME_GATEWAY], "--fleet"),
    "workers that cannot share a page": (
        ["--workers", "3", *SOME_GATEWAY, "--fleet", "redis://127.0.0.1:1", "--live", "0"],
        "--live",
    ),
    "a fleet without a gateway": (["--fleet", "redis://127.0.0.1:1"], "--gateway"),
    "a gateway that is none": (["--gateway", "https://gateway.example"], "quic://HOST:PORT"),
    "somebody without a number": (["--transfer-to", "desk"], "NAME=NUMBER"),
    "a number without a name": (["--transfer-to", "=+15550100001"], "NAME=NUMBER"),
    "a number that is none": (["--transfer-to", "desk=42"], "NAME=NUMBER"),
    "instructions that are not there": (["--instructions", "@missing.txt"], "No such file"),
    "instructions that are no text": (["--instructions", "@/bin/sh"], "not UTF-8"),
    "credentials that are not there": ([*SOME_GATEWAY, "--credentials", "missing.json"], "missing.json"),
    "a presenter of nothing": ([*SOME_GATEWAY, "--presenter", "first_stream"], "--credentials"),
    "a recording that cannot be": (["--record", "/dev/null/recordings"], "--record"),
    "history that cannot be": (["--history", "missing/calls.db"], "--history"),
    "no time at all": (["--max-seconds", "0"], "--max-seconds"),
    "no callers": (["--callers", "0"], "--callers"),
}


@pytest.mark.parametrize(("arguments", "hint"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_is_named_in_one_line_before_anybody_calls(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("REALTIME_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    try:
        status = app(["agent", *arguments])
    except SystemExit as end:
        status = end.code
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert re.search(hint, err)


@pytest.mark.parametrize(
    "model",
    [f"wss://me:{PASSWORD}@models.example/v1?key={QUERY}", f"https://me:{PASSWORD}@models.example/v1?key={QUERY}"],
)
def test_a_mistake_shows_nothing_secret(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REALTIME_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert app(["agent", "--model", model]) == 2
    err = capsys.readouterr().err
    assert "models.example" in err
    assert PASSWORD not in err
    assert QUERY not in err


def test_a_key_is_not_sent_in_the_clear(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REALTIME_API_KEY", KEY)
    assert app(["agent", "--model", "ws://models.example/v1"]) == 2
    err = capsys.readouterr().err
    assert "in the clear" in err
    assert KEY not in err


class _Unauthorised(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_error(401)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def unauthorised() -> Iterator[str]:
    """The address of a server that takes no key, as its clients write it."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Unauthorised) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://me:{PASSWORD}@127.0.0.1:{server.server_address[1]}/v1?key={QUERY}"
        server.shutdown()
        thread.join()


def test_a_model_that_refuses_the_key_is_told_in_the_call_it_was_for(unauthorised: str, tmp_path: Path) -> None:
    ran = agent(tmp_path, "--model", unauthorised, "--callers", "1", REALTIME_API_KEY=KEY)
    assert ran.status == 1
    told = ran.out.splitlines()
    assert in_order(told, ["1701  inbound call", "1701    error: ws://127.0.0.1", "FAILED: +15550101701"])
    assert "does not accept the key (HTTP 401)" in ran.out
    assert ran.err == ""
    for secret in (KEY, PASSWORD, QUERY):
        assert secret not in ran.out


# -- what goes wrong elsewhere --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fleet", [None, "redis://127.0.0.1:1"])
async def test_a_call_that_is_not_to_be_had_is_one_line(
    fleet: str | None, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """Somebody else has answered it, for one."""

    async def refuse(method: MethodId, request: Any) -> Any:
        if method is MethodId.AnswerIncomingCall:
            return messages.AnswerIncomingCallResponse(
                call_sid=request.call_sid, error_code=ErrorCode.ERR_INTERNAL_ERROR
            )
        return messages.Empty()

    gateway, agent = ScriptedGateway(refuse), Agent(AgentOptions(fleet=fleet), Screen(Console(), live=False), Hub())
    async with serving(gateway, MemoryNetwork()) as where, trio.open_nursery() as nursery:
        config = ClientConfig(endpoint=where["endpoint"], tls=where["tls"])
        session = await nursery.start(partial(agent.serve, config, drain=0, socket=where["socket"]))
        await gateway.connected.wait()
        await gateway.event("in-1", CREATE)
        await trio.sleep(5)
        assert session.statistics().handler_failures == 0
        nursery.cancel_scope.cancel()
    [line] = [each for each in caplog.messages if "not answered" in each]
    assert "call in-1" in line
    assert ("--fleet" in line) == (fleet is None)


#: The command where no file can be longer than the header of a recording, as on a full disk.
FULL_DISK = """\
import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
from agentao_trio.cli import main; main()
"""


def test_callers_are_served_without_a_recording_when_the_disk_is_full(tmp_path: Path) -> None:
    line = (sys.executable, "-u", "-c", FULL_DISK, "agent", "--callers", "1", "--record", "recordings")
    with started(tmp_path, *line) as process:
        assert process.stdout is not None
        said(process.stdout, "agent: Hello")
        process.terminate()
        _, err = process.communicate(timeout=120)
    [recording] = (tmp_path / "recordings").iterdir()
    assert err.splitlines() == [
        f"error: recordings/{recording.name} cannot be written: File too large",
        "stopping: hanging up and closing",
    ]


# -- signals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_mid_call_hangs_up_and_ends(number: signal.Signals, status: int, tmp_path: Path) -> None:
    kept = ("--record", "recordings", "--history", "calls.db")
    with started(tmp_path, *command("agent", *kept)) as process:
        assert process.stdout is not None
        said(process.stdout, "agent: Hello")
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (status, "stopping: hanging up and closing\n")
    assert out.splitlines()[-1] == "1701  over (hangup)", "the gateway has confirmed it"
    [recording] = (tmp_path / "recordings").iterdir()
    with wave.open(str(recording)) as file:
        assert file.getnframes() > 8000, "a whole file"
    with open_history(tmp_path / "calls.db") as history:
        assert [call.status for call in history.calls()] == ["completed"]


#: The command as a script's shell starts it in the background, where SIGINT is ignored, and with more patience for
#: calls in progress than anybody has who presses Ctrl-C twice.
PATIENT = """\
import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)
from agentao_trio.cli import agent, main; agent.DRAIN = 600.0; main()
"""


def test_a_second_ctrl_c_does_not_wait_for_the_calls(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:

        def beside(*line: str) -> subprocess.Popen[str]:
            process = stack.enter_context(started(tmp_path, *line))
            stack.callback(process.kill)
            return process

        gateway = beside(*command("gateway", "--port", "0", "--inbound", "1/s", "--inbound-from", "echo"))
        assert gateway.stdout is not None
        endpoint = gateway.stdout.readline().partition("Listening on ")[2].partition(";")[0]
        options = ("--gateway", endpoint, "--ca", "ca.pem", "--max-calls", "1")
        agent = beside(sys.executable, "-u", "-c", PATIENT, "agent", *options)
        assert agent.stdout is not None
        assert agent.stderr is not None
        said(agent.stdout, "agent: Hello")  # to an echo, which stays
        agent.send_signal(signal.SIGINT)
        said(agent.stderr, "stopping: hanging up and closing")
        time.sleep(1)  # nobody is quicker
        agent.send_signal(signal.SIGINT)
        assert agent.wait(120) == 130


def test_the_demo_in_the_browser_ends_in_order(tmp_path: Path) -> None:
    line = command("demo", "--live", "--port", "0", "--no-browser", "--record", "recordings", "--calls", "3")
    with started(tmp_path, *line) as process:
        assert process.stdout is not None
        url = process.stdout.readline().partition("Live calls: ")[2].strip()
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=120) as page:
            assert page.status == 200
            assert b"<html" in page.read().lower()
        recordings = tmp_path / "recordings"
        deadline = time.monotonic() + 120
        while not any(recordings.iterdir()):  # a call is in progress
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.terminate()
        _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "stopping: hanging up and closing\n")
    assert list(recordings.iterdir()) == []
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=120)
