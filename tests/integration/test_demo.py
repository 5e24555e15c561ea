"""The demonstration: ten calls over real UDP and TLS, what it prints, what it leaves behind, and when it fails."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import wave
from pathlib import Path

import attrs
import pytest
import trio
from rich.console import Console
from trio.testing import MockClock

from agentao_trio.audio import Codec, from_pcm16, to_pcm16
from agentao_trio.cli import app, demo
from agentao_trio.cli.screen import LIVE, SUMMARY, CallRow, Screen, call_table, printable
from agentao_trio.cli.wav import SPEECH, read_wav
from tests.support.programs import said

DEMO = [sys.executable, "-u", "-m", "agentao_trio", "demo"]


def samples(path: Path) -> bytes:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (8000, 2, 1)
        frames: bytes = file.readframes(file.getnframes())
        return frames


def test_ten_calls_at_once(tmp_path: Path) -> None:
    done = subprocess.run([*DEMO, "--record", str(tmp_path)], capture_output=True, text=True, timeout=300, check=False)
    assert done.stderr == ""
    assert "Calls ended: 10 of 10." in done.stdout
    assert "Echoes bit-exact: 1 of 1, 42400 bytes of speech in each." in done.stdout
    assert "Packets lost where none may get lost: 0." in done.stdout
    assert "Everything is as it has to be." in done.stdout
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 120
    for cause in ("16 Normal call", "17 User busy", "18 No user resp", "19 No answer"):
        assert cause in done.stdout

    recordings = sorted(tmp_path.iterdir())
    assert [path.name for path in recordings] == [
        "01-echo.wav",
        "02-recording.wav",
        "03-tone.wav",
        "04-silence.wav",
        "05-hold.wav",
        "06-5-percent-loss.wav",
        "07-hangs-up.wav",
    ]
    said = to_pcm16(from_pcm16(read_wav(SPEECH), Codec.PCMU), Codec.PCMU)
    # On a busy machine audio comes late, and a recording is silent where it has not come yet.
    packets = [said[at : at + 320] for at in range(0, len(said), 320)]
    for recording in recordings[:2]:
        heard = samples(recording)
        assert sum(packet in heard for packet in packets) > len(packets) * 0.8
    assert not any(samples(recordings[3]))
    assert all(len(samples(path)) > 8000 for path in recordings[:-1])
    assert samples(recordings[-1]), (
        "its far end hangs up a second after it answers, most of which a busy machine may miss"
    )


def test_on_a_terminal_a_table_is_drawn_and_replaced_by_the_summary(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty", reason="needs a Unix terminal")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "30", "NO_COLOR": "1"}
    command = [*DEMO, "--calls", "1", "--seconds", "0.6", "--record", str(tmp_path)]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 65_536):
                shown += data
        except OSError:
            pass  # how Linux says that nobody holds the terminal any more
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert process.returncode == 0
    assert "p99 ms" in text, "the live table"
    assert "talking" in text
    assert "Ended with" in text, "the summary"
    assert "calling +1555" not in text, "progress lines are for where there is no terminal"
    assert text.rstrip().endswith("Everything is as it has to be.")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_hangs_up_every_call(number: signal.Signals, status: int, tmp_path: Path) -> None:
    command = [*DEMO, "--record", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said(process.stdout, "on hold")
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    assert process.returncode == status
    assert err == "stopping: hanging up and closing\n"
    summary = out.partition("Ended with")[2]
    assert len(re.findall(r"\b(16 Normal|17 User|18 No)", summary)) == 10
    assert "FAILED" not in summary
    assert samples(tmp_path / "01-echo.wav")


def test_more_calls_than_far_ends_are_echoes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "PLANS", demo.PLANS[:1])
    assert app(["demo", "--calls", "4", "--seconds", "0.2", "--record", str(tmp_path), "--no-table"]) == 0
    assert "Echoes bit-exact: 4 of 4, 1600 bytes of speech in each." in capsys.readouterr().out
    assert [len(samples(path)) for path in sorted(tmp_path.iterdir())] == [3200] * 4


FALSE_PLANS = {
    "another cause": (attrs.evolve(demo.ECHO, number="+15550100017", answers=False, cause=16), "instead of 16"),
    "no echo": (attrs.evolve(demo.ECHO, number="+15550100002"), "is not what was said"),
    "nothing heard": (attrs.evolve(demo.ECHO, number="+15550100005", echoes=False), "nothing came back"),
    "loss": (attrs.evolve(demo.ECHO, number="+15550100150", echoes=False), "packets were lost"),
    "no loss": (attrs.evolve(demo.ECHO, echoes=False, lossy=True), "no packet was lost"),
    "no hold": (attrs.evolve(demo.ECHO, holds=True), "was never on hold"),
    "refused": (attrs.evolve(demo.ECHO, number="+15550100402"), "ERR_INVALID_DESTINATION"),
}


@pytest.mark.parametrize(("plan", "complaint"), FALSE_PLANS.values(), ids=list(FALSE_PLANS))
def test_what_does_not_hold_is_told_and_fails(
    plan: demo.Plan,
    complaint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo, "PLANS", (plan,))
    monkeypatch.setattr(demo, "ECHO_SECONDS", 0.5)
    assert app(["demo", "--calls", "1", "--seconds", "0.6", "--record", str(tmp_path), "--no-table"]) == 1
    out = capsys.readouterr().out
    assert f"FAILED: echo ({plan.number}): " in out
    assert complaint in out
    assert "Everything is as it has to be." not in out


# -- what is shown ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Grüße, 你好", "Grüße, 你好"),
        ("red \x1b[31malert\x07", "red \\x1b[31malert\\x07"),
        ("two\r\nlines", "two\\r\\nlines"),
        ("right \u202e to left", "right \\u202e to left"),
        ("bytes \udcff", "bytes \\udcff"),
    ],
)
def test_text_from_afar_cannot_touch_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_both_tables_fit_80_columns() -> None:
    rows = [
        CallRow(to="+15550100018", title="no response", state="ended (18)", seconds=1.0, statistics=None, check="ok")
    ]
    for columns in (LIVE, SUMMARY):
        console = Console(file=io.StringIO(), width=80)
        console.print(call_table(rows, columns))
        assert isinstance(console.file, io.StringIO)
        text = console.file.getvalue()
        assert "no response" in text
        assert "18" in text


async def test_without_a_terminal_progress_is_a_line_every_two_seconds(autojump_clock: MockClock) -> None:
    console = Console(file=io.StringIO(), width=80)
    screen = Screen(console)
    row = CallRow(to="+1555", title="echo", state="ended (16)", seconds=0.0, statistics=None)
    with trio.move_on_after(4.5):
        await screen.watch(lambda: [row, attrs.evolve(row, state="talking")])
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        f"  {second}.00 s  1 ended, 1 talking; packets out 0, in 0, lost 0" for second in (2, 4)
    ]
