"""``agentao-trio campaign`` as a user meets it, against a gateway in another process."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import signal
import subprocess
import sys
import wave
from pathlib import Path

import pytest

from agentao_trio.campaign import RetryPolicy
from agentao_trio.cli import app
from agentao_trio.cli.campaign import retry_policy
from agentao_trio.cli.running import UsageError
from tests.integration.conftest import GatewayProcess, Run

ECHO, HANGS_UP, BUSY, INVALID_TRUNK = "+15550100001", "+15550100016", "+15550100017", "+15550100401"


@pytest.fixture
def campaign(run: Run, gateway_process: GatewayProcess, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Write a file of numbers and run ``agentao-trio campaign`` with it."""
    monkeypatch.setenv("COLUMNS", "100")

    def campaign(numbers: str | bytes, *arguments: str) -> tuple[int, str, str]:
        Path("numbers.csv").write_bytes(numbers.encode() if isinstance(numbers, str) else numbers)
        gateway = ("--gateway", gateway_process.endpoint, "--ca", str(gateway_process.ca))
        return run("campaign", "numbers.csv", "--calls-per-second", "50", *gateway, *arguments)

    return campaign


def table(out: str) -> set[tuple[str, ...]]:
    """The lines of the table of outcomes."""
    return {tuple(re.split(r"  +", line.strip())) for line in out.splitlines() if re.match(r" +\d+  ", line)}


def test_everybody_is_called_and_the_outcomes_are_told_by_cause(campaign: Run) -> None:
    status, out, err = campaign(f"to,name\n{HANGS_UP},Ada\n{BUSY},Bob\n", "--attempts", "2", "--retry-after", "0.2s")
    assert (status, err) == (0, "")
    assert table(out) == {
        ("1", "answered", "16", "Normal call clearing"),
        ("1", "not answered", "17", "User busy"),
    }
    assert re.search(rf"^ *\d\.\d\d s  \{BUSY}: not answered, 17 User busy; again in 0.2 s$", out, re.MULTILINE)
    assert re.search(rf"^ *\d\.\d\d s  \{BUSY}: not answered, 17 User busy after 2 attempts$", out, re.MULTILINE)
    assert re.search(r"^2 numbers, 3 calls, \d\.\d s$", out, re.MULTILINE)


def test_a_sound_is_played_to_whoever_answers(campaign: Run, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "beep.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", "NONE"))
        file.writeframes(bytes(6400))
    status, out, _ = campaign(f"to\n{ECHO}\n", "--play", "beep.wav", "--tail", "0.1")
    assert status == 0
    assert table(out) == {("1", "answered", "16", "Normal call clearing")}
    seconds = re.search(r"1 numbers, 1 calls, (\d\.\d) s", out)
    assert seconds is not None
    assert 0.8 <= float(seconds[1]) < 3  # 0.3 of ringing, 0.4 of sound, 0.1 of listening


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_the_report_tells_what_became_of_each_number(suffix: str, campaign: Run) -> None:
    file = f"name,to\nZoë,{HANGS_UP}\nBob,{INVALID_TRUNK}\nZoë again,{HANGS_UP}\n"
    status, out, _ = campaign(file, "--duplicates", "skip", "--report", f"outcomes.{suffix}")
    assert status == 1  # a refusal is something to look into
    assert f"what became of each number is in outcomes.{suffix}" in out
    text = Path(f"outcomes.{suffix}").read_text(encoding="utf-8-sig")
    if suffix == "csv":
        rows = list(csv.DictReader(text.splitlines()))
        assert [(row["line"], row["to"], row["outcome"], row["cause"], row["attempts"]) for row in rows] == [
            ("2", HANGS_UP, "answered", "16", "1"),
            ("3", INVALID_TRUNK, "refused", "", "1"),
            ("4", HANGS_UP, "duplicate", "", "0"),
        ]
        assert rows[1]["meaning"] == "ERR_INVALID_TRUNK"
        assert 0.2 < float(rows[0]["answered"]) < float(rows[0]["ended"])
    else:
        report = json.loads(text)
        assert [each["outcome"] for each in report["numbers"]] == ["answered", "refused", "duplicate"]
        assert report["numbers"][0]["data"] == {"name": "Zoë"}
        assert [attempt["cause"] for attempt in report["numbers"][0]["attempts"]] == [16]
        assert {line["outcome"]: line["numbers"] for line in report["outcomes"]} == {
            "answered": 1,
            "refused": 1,
            "duplicate": 1,
        }


def test_a_report_that_finds_no_room_is_named_and_the_table_is_shown(campaign: Run, tmp_path: Path) -> None:
    (tmp_path / "full.csv").symlink_to("/dev/full")
    status, out, err = campaign(f"to\n{BUSY}\n", "--attempts", "1", "--report", "full.csv")
    assert (status, err) == (1, "error: full.csv: No space left on device\n")
    assert "User busy" in out.rpartition("Numbers")[2]


def test_the_reference_page_knows_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    app(("campaign", "--help"))
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--live"}
    page = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text()
    section = page.partition("## `agentao-trio campaign")[2].partition("\n## ")[0]
    assert options - set(re.findall(r"--[a-z-]+", section)) == set()


# -- mistakes ---------------------------------------------------------------------------------------------------------


def test_one_mistake_in_the_file_is_told_in_one_line(campaign: Run) -> None:
    status, out, err = campaign(f"to\n{ECHO}\n5550100001\n")
    assert (status, out) == (2, "")
    assert err.startswith("error: numbers.csv: line 3: '5550100001' is not a destination; expected an E.164 number")
    assert err.count("\n") == 1


def test_several_mistakes_are_all_told_and_nobody_is_called(campaign: Run) -> None:
    status, out, err = campaign(f"to\n{ECHO}\n1\n{ECHO}\n")
    assert (status, out) == (2, "")
    first, second, last = err.splitlines()
    assert first.startswith("numbers.csv: line 3: '1' is not a destination")
    assert second == f"numbers.csv: line 4: {ECHO} is in line 2 already"
    assert last == "error: numbers.csv: 2 mistakes; nobody was called"


@pytest.mark.parametrize(
    ("numbers", "arguments", "hint"),
    [
        (b"", [], "line 1: the file is empty"),
        (b"to\n\xff", [], "line 2: byte 0xff is not UTF-8"),
        (b"to,name\n1,\x1b[2J", [], "line 2: '1' is not a destination"),
        ("to\n+1555\n", ["--retry", "busy"], "--retry: 'busy' is no list of Q.850 causes, for example 17,18,19"),
        ("to\n+1555\n", ["--retry", "200"], "--retry: 200 is not a Q.850 cause"),
        ("to\n+1555\n", ["--retry-after", "soon"], "--retry-after: 'soon' is no pause, for example 90s, 5m or 19=10m"),
        ("to\n+1555\n", ["--retry-after", "20=5m"], "--retry: there is a pause after cause 20, which is not among"),
        ("to\n+1555\n", ["--report", "outcomes.xls"], "--report: outcomes.xls should end in .csv or .json"),
        ("to\n+1555\n", ["--report", "none/there.csv"], "--report: none/there.csv: No such file"),
        ("to\n+1555\n", ["--trunk", ""], "line 2: +1555 has no trunk"),
        ("to\n+1555\n", ["--max-concurrent", "0"], "Must be >= 1"),
        ("to\n+1555\n", ["--play", "numbers.csv"], "numbers.csv: not a PCM WAV file"),
    ],
)
def test_a_mistake_is_named_with_status_2(numbers: str | bytes, arguments: list[str], hint: str, campaign: Run) -> None:
    status, _, err = campaign(numbers, *arguments)
    assert status == 2
    assert err.startswith("error: ")
    assert hint in err
    assert err.isprintable() or err[:-1].isprintable()


def test_no_gateway_is_a_failure_in_one_line(campaign: Run) -> None:
    status, _, err = campaign(f"to\n{ECHO}\n", "--server-name", "somebody.else")
    assert status == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("causes", "after", "expected"),
    [
        ("17,18,19", "60s", RetryPolicy()),
        ("17", "90", RetryPolicy(causes=[17], pause=90)),
        (" 17, 19 ", "1.5m, 19=2h", RetryPolicy(causes=[17, 19], pause=90, pauses={19: 7200})),
        ("", "5m", RetryPolicy(causes=[], pause=300)),
        ("17", "1d", RetryPolicy(causes=[17], pause=86_400)),
    ],
)
def test_pauses_are_written_with_units_and_for_causes(causes: str, after: str, expected: RetryPolicy) -> None:
    assert retry_policy(causes, 3, after) == expected


@pytest.mark.parametrize("after", ["", "-5s", "5w", "17=", "17=5m=2", "1e3", "٣s"])
def test_pauses_that_are_none(after: str) -> None:
    with pytest.raises(UsageError):
        retry_policy("17", 3, after)


# -- a process of its own ---------------------------------------------------------------------------------------------


def command(gateway: GatewayProcess, *arguments: str) -> list[str]:
    ours = ["--gateway", gateway.endpoint, "--ca", str(gateway.ca)]
    return [sys.executable, "-u", "-m", "agentao_trio", "campaign", "numbers.csv", *ours, *arguments]


def test_ctrl_c_hangs_up_and_tells_who_was_not_called(tmp_path: Path, gateway_process: GatewayProcess) -> None:
    (tmp_path / "numbers.csv").write_text("to\n" + "".join(f"+1555020{index:04}\n" for index in range(50)))
    with subprocess.Popen(
        command(gateway_process, "--calls-per-second", "20", "--max-concurrent", "5", "--report", "outcomes.csv"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        answered = 0
        while answered < 5:
            line = process.stdout.readline()
            assert line, "it ended by itself"
            answered += "answered" in line
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err == "stopping: hanging up and closing\n"
    assert "not complete: 45 numbers were not called, 5 were cut short" in out
    report = (tmp_path / "outcomes.csv").read_text(encoding="utf-8-sig")
    outcomes = [row["outcome"] for row in csv.DictReader(report.splitlines())]
    assert outcomes == ["interrupted"] * 5 + ["not called"] * 45


def in_a_terminal(kind: str, tmp_path: Path, gateway_process: GatewayProcess) -> str:
    """What a campaign of two numbers shows at a terminal, without what moves the cursor."""
    (tmp_path / "numbers.csv").write_text(f"to\n{BUSY}\n{ECHO}\n")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": kind, "COLUMNS": "90", "LINES": "30"}
    with subprocess.Popen(
        command(gateway_process, "--attempts", "1", "--max-duration", "4"),
        cwd=tmp_path,
        env=environment,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65_536)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    assert process.returncode == 0
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


def test_a_terminal_gets_a_live_picture(tmp_path: Path, gateway_process: GatewayProcess) -> None:
    text = in_a_terminal("xterm", tmp_path, gateway_process)
    assert "1 of 2 numbers finished; 1 being called, 0 to be called again, 0 not called yet" in text
    assert "answered" in text.rpartition("Numbers")[2]


def test_a_terminal_that_cannot_draw_gets_lines(tmp_path: Path, gateway_process: GatewayProcess) -> None:
    text = in_a_terminal("dumb", tmp_path, gateway_process)
    assert re.search(rf" s  {re.escape(ECHO)}: answered\r\n", text)
