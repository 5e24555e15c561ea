"""Standard output that is full, gone, or lacks letters: nothing else is lost by it, and nobody sees a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from agentao_trio.hub import Hub
from agentao_trio.records import RecordKind
from agentao_trio.store import open_store
from tests.integration.conftest import GatewayProcess

FULL = "error: standard output: No space left on device\n"
ASCII = {"PYTHONIOENCODING": "ascii"}
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def command(line: str) -> list[str]:
    return [sys.executable, "-m", "agentao_trio", *line.split()]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a history of a call from Zoë, an hour long, in which somebody says something every minute."""
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        async with open_store("calls.db") as store:
            hub = Hub()
            store.attach(hub)
            hub.publish(RecordKind.CALL, "c1", phase="began", direction="inbound", caller="sip:zoë@a", callee="")
            for minute in range(60):
                at, text = trio.current_time() + 60 * minute, f"{minute} → Zoë"
                hub.publish(RecordKind.TRANSCRIPT, "c1", at=at, role="caller", text=text, phase="final")

    trio.run(main)
    return tmp_path


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("line", ["--help", "demo --help", "gateway --numbers", "history show calls.db c1 --json"])
def test_a_full_disk_is_told_in_one_line(line: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(command(line), stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, FULL)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("line", "environment"),
    [
        ("demo --help", C_LOCALE),
        ("demo --help", ASCII),
        ("gateway --numbers", ASCII),
        ("conformance --list", ASCII),
        ("history list calls.db", ASCII),
        ("history show calls.db c1", ASCII),
        ("history judge calls.db", ASCII),
        ("history replay calls.db --speed 0", ASCII),
    ],
)
def test_letters_that_the_encoding_lacks_are_replaced(line: str, environment: dict[str, str]) -> None:
    done = subprocess.run(command(line), env={**os.environ, **environment}, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()
    assert done.stdout


@pytest.mark.usefixtures("here")
def test_json_stays_whole_in_any_encoding() -> None:
    done = subprocess.run(command("history show calls.db c1 --json"), env={**os.environ, **ASCII}, capture_output=True)
    assert json.loads(done.stdout.splitlines()[-1])["data"]["text"] == "59 → Zoë"


@pytest.mark.usefixtures("here")
def test_the_results_of_judging_are_kept_where_the_table_cannot_be_shown() -> None:
    with open("/dev/full", "w") as full:
        line = "conformance simulated --only FRM-01 --examples 1 --out out --json results.json"
        done = subprocess.run(command(line), stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, FULL)
    assert Path("out", "report.json").read_text() == Path("results.json").read_text() != ""


@pytest.mark.usefixtures("here")
def test_a_file_that_finds_no_room_is_named_and_the_table_is_shown() -> None:
    line = "conformance simulated --only FRM-01 --examples 1 --json /dev/full"
    done = subprocess.run(command(line), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "error: /dev/full: No space left on device\n")
    assert "FRM-01" in done.stdout


def after_a_line(line: str) -> tuple[int, str]:
    """Run a command whose output is read for one line, as by ``head -1``; its exit status, and standard error."""
    with subprocess.Popen(command(line), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        return process.wait(timeout=120), process.stderr.read()


def test_a_campaign_goes_on_when_nobody_reads_of_it(here: Path, gateway_process: GatewayProcess) -> None:
    (here / "numbers.csv").write_text("to\n+15550100017\n+15550100016\n")
    ours = f"--gateway {gateway_process.endpoint} --ca {gateway_process.ca}"
    line = f"campaign numbers.csv {ours} --calls-per-second 20 --attempts 1 --report outcomes.csv"
    assert after_a_line(line) == (0, "")
    assert "User busy" in (here / "outcomes.csv").read_text()


@pytest.mark.usefixtures("here")
def test_a_call_goes_on_when_nobody_reads_of_it(gateway_process: GatewayProcess) -> None:
    ours = f"--gateway {gateway_process.endpoint} --ca {gateway_process.ca}"
    assert after_a_line(f"call +15550100017 {ours}") == (3, "")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "line",
    [
        "demo --calls 1 --seconds 0.2",
        "doctor {endpoint} --ca {ca}",
        "history replay calls.db",
        "history export calls.db",
    ],
)
def test_a_reader_who_goes_away_is_no_failure(line: str, gateway_process: GatewayProcess) -> None:
    line = line.format(endpoint=gateway_process.endpoint, ca=gateway_process.ca)
    assert after_a_line(line) == (0, "")


@pytest.mark.usefixtures("here")
def test_a_gateway_serves_on_when_nobody_reads_its_log() -> None:
    with subprocess.Popen(
        command("gateway --port 0"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert "Listening" in process.stdout.readline()
        process.stdout.close()
        process.stdin.write("help\ncalls\n")
        process.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=120)
    assert (process.returncode, told) == (0, "stopping: hanging up and closing\n")
