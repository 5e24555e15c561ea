"""The command line as a user meets it: what it prints, what it says about mistakes, and its exit status.

Most commands run in this process, by the function that the console script calls; signals need a process of their own.
"""

from __future__ import annotations

import errno
import re
import signal
import socket
import subprocess
import sys
import time
import wave
from pathlib import Path

import pytest

from agentao_trio import __version__, convert
from agentao_trio.audio import AudioFrame
from agentao_trio.cli import app
from agentao_trio.cli.history import history_app
from agentao_trio.cli.one_call import exit_status
from agentao_trio.cli.wav import SPEECH, WavRecorder, read_wav
from agentao_trio.wav import WavFile
from tests.integration.conftest import GatewayProcess, Run
from tests.support.ports import silent_port
from tests.support.programs import said

HANGS_UP, BUSY, NO_RESPONSE, REFUSED = "+15550100016", "+15550100017", "+15550100018", "+15550100403"
ENDS_WITH_38, FAILS_WITH_41 = "+15550100638", "+15550100741"


@pytest.fixture
def call(run: Run, gateway_process: GatewayProcess) -> Run:
    """``agentao-trio call`` against a gateway in another process."""
    ours = ("--gateway", gateway_process.endpoint, "--ca", str(gateway_process.ca))

    def call(*arguments: str) -> tuple[int, str, str]:
        return run("call", *arguments, *ours)

    return call


def wav_file(path: Path, *, seconds: float = 0.4, rate: int = 8000, channels: int = 1, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(bytes(round(seconds * rate) * channels * width))
    return path


# -- help -------------------------------------------------------------------------------------------------------------


COMMANDS = sorted(name for name in app if not name.startswith("-"))
OF_HISTORY = sorted(name for name in history_app if not name.startswith("-"))


def test_the_version_is_the_package_s(run: Run) -> None:
    assert run("--version") == (0, f"agentao-trio {__version__}\n", "")


def test_no_command_at_all_shows_the_help(run: Run) -> None:
    assert run() == run("--help")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_examples_and_tells_the_exit_statuses(command: str, run: Run) -> None:
    status, out, err = run(*command.split(), "--help")
    assert (status, err) == (0, "")
    assert "Examples" in out
    assert "Exit status" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_reference_page_knows_every_option(command: str, run: Run) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text()
    texts = [run(command, *each, "--help")[1] for each in (zip(OF_HISTORY) if command == "history" else [()])]
    options = {option for text in texts for option in re.findall(r"(?<![\w-])--[a-z-]+", text)}
    # What is so unless it is switched off has no row for switching it on.
    options -= {f"--{option.removeprefix('--no-')}" for option in options if option.startswith("--no-")}
    section = page.partition(f"## `agentao-trio {command}")[2].partition("\n## ")[0]
    assert options - set(re.findall(r"--[a-z-]+", section)) == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_installed(shell: str, run: Run, tmp_path: Path) -> None:
    status, _, err = run("--install-completion", "--shell", shell, "--output", str(tmp_path / "completion"))
    assert (status, err) == (0, "")
    assert "agentao-trio" in (tmp_path / "completion").read_text()


def test_every_far_end_and_its_number_is_listed(run: Run) -> None:
    status, out, _ = run("gateway", "--numbers")
    assert status == 0
    assert all(number in out for number in ("+15550100001", HANGS_UP, BUSY, "+155501001rr"))


# -- mistakes ---------------------------------------------------------------------------------------------------------

MISTAKES = {
    "an unknown command": (["dmeo"], "demo"),
    "an unknown option": (["demo", "--cals", "3"], "--cals"),
    "a number out of range": (["demo", "--calls", "0"], "Must be >= 1"),
    "no number to call": (["call", "--gateway", "quic://127.0.0.1:1"], "TO"),
    "no gateway": (["call", "+1555"], "--gateway"),
    "another scheme": (["call", "+1555", "--gateway", "https://127.0.0.1:9090"], "expected quic://HOST:PORT"),
    "no port": (["call", "+1555", "--gateway", "quic://127.0.0.1"], "expected quic://HOST:PORT"),
    "not a number": (["call", "5550", "--gateway", "quic://127.0.0.1:1"], "E.164"),
    "no such WAV": (["call", "+1555", "--gateway", "quic://127.0.0.1:1", "--play", "no.wav"], "no.wav"),
    "no such CA": (["call", "+1555", "--gateway", "quic://127.0.0.1:1", "--ca", "no.pem"], "no.pem"),
    "an unknown convention": (["call", "+1", "--gateway", "quic://h:1", "--rpc-length", "both"], "inclusive"),
    "a directory that cannot be": (["demo", "--record", "/dev/null/recordings"], "--record"),
}


@pytest.mark.parametrize(("arguments", "hint"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_is_named_in_one_line_with_status_2(arguments: list[str], hint: str, run: Run) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert hint in err


@pytest.mark.parametrize(
    ("rate", "channels", "told"),
    [(4_000, 1, "a sample rate of 4000 Hz cannot be converted"), (8_000, 6, "6 channels of 16 bits at 8000 Hz")],
)
def test_a_wav_file_that_cannot_be_played_is_refused(
    rate: int, channels: int, told: str, run: Run, tmp_path: Path
) -> None:
    wav_file(tmp_path / "hello.wav", rate=rate, channels=channels)
    status, _, err = run("call", "+1555", "--gateway", "quic://127.0.0.1:1", "--play", "hello.wav")
    assert status == 2
    assert told in err
    assert "mono or stereo, 8000 to 48000 Hz" in err


def test_a_wav_file_at_another_rate_needs_an_extra(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("No module named 'soxr'")

    monkeypatch.setattr(convert, "load", missing)
    wav_file(tmp_path / "hello.wav", rate=16_000)
    status, _, err = run("call", "+1555", "--gateway", "quic://127.0.0.1:1", "--play", "hello.wav")
    assert status == 2
    assert err.startswith("error: hello.wav: converting audio from 16000 to 8000 Hz needs the extra 'audio'")


@pytest.mark.parametrize(("rate", "channels", "width"), [(44_100, 2, 2), (16_000, 1, 3), (8_000, 2, 1)])
def test_a_wav_file_of_any_usual_kind_is_converted(rate: int, channels: int, width: int, tmp_path: Path) -> None:
    samples = read_wav(wav_file(tmp_path / "hello.wav", seconds=0.5, rate=rate, channels=channels, width=width))
    assert len(samples) == pytest.approx(2 * 4000, abs=4)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"not a sound at all, whatever its name says" * 3])
def test_a_file_that_is_no_wav_is_refused(content: bytes, run: Run, tmp_path: Path) -> None:
    (tmp_path / "hello.wav").write_bytes(content)
    status, _, err = run("call", "+1555", "--gateway", "quic://127.0.0.1:1", "--play", "hello.wav")
    assert status == 2
    assert "hello.wav: not a PCM WAV file" in err


def test_a_wav_file_without_audio_is_refused(run: Run, tmp_path: Path) -> None:
    wav_file(tmp_path / "hello.wav", seconds=0)
    status, _, err = run("call", "+1555", "--gateway", "quic://127.0.0.1:1", "--play", "hello.wav")
    assert status == 2
    assert "contains no audio" in err


def test_a_recording_that_cannot_be_written_is_told_before_the_call(run: Run, gateway_process: GatewayProcess) -> None:
    status, out, err = run("call", HANGS_UP, "--gateway", gateway_process.endpoint, "--record", "/dev/null/reply.wav")
    assert (status, out) == (2, "")
    assert "cannot write /dev/null/reply.wav" in err


# -- failures ---------------------------------------------------------------------------------------------------------


def test_a_gateway_that_is_not_there(run: Run) -> None:
    with silent_port() as port:
        status, _, err = run("call", "+1555", "--gateway", f"quic://127.0.0.1:{port}")
    assert status == 1
    assert f"nobody listens on UDP port {port}" in err


def test_a_certificate_that_is_not_trusted(run: Run, gateway_process: GatewayProcess) -> None:
    status, _, err = run("call", HANGS_UP, "--gateway", gateway_process.endpoint)
    assert status == 1
    assert err.count("\n") == 1
    assert "give the gateway's CA with --ca" in err


def test_a_certificate_for_another_name(call: Run) -> None:
    status, _, err = call(HANGS_UP, "--server-name", "gateway.example")
    assert status == 1
    assert "is not for 'gateway.example'" in err


def test_a_ca_file_that_is_none(run: Run, gateway_process: GatewayProcess, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("-----BEGIN NOTHING-----")
    status, _, err = run("call", HANGS_UP, "--gateway", gateway_process.endpoint, "--ca", "ca.pem")
    assert status == 1
    assert "ca.pem" in err
    assert "PEM" in err


def test_a_call_that_the_gateway_refuses(call: Run) -> None:
    status, _, err = call(REFUSED)
    assert status == 1
    assert "ERR_RATE_LIMITED" in err


def test_a_port_that_is_taken(run: Run) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        status, _, err = run("gateway", "--port", str(port))
    assert status == 1
    assert f"cannot listen on UDP port {port} of 127.0.0.1" in err


# -- calls ------------------------------------------------------------------------------------------------------------


def test_a_call_that_plays_and_records(call: Run, tmp_path: Path) -> None:
    with wave.open(str(SPEECH), "rb") as speech:
        wav_file(tmp_path / "hello.wav", seconds=0)
        with wave.open(str(tmp_path / "hello.wav"), "wb") as hello:
            hello.setparams(speech.getparams())
            hello.writeframes(speech.readframes(4000))
    status, out, err = call("+15550100001", "--play", "hello.wav", "--record", "sub/reply.wav", "--tail", "2")
    assert (status, err) == (0, "")
    assert "answered; playing 0.5 s of audio" in out
    assert "ended: 16 Normal call clearing" in out
    assert "The gateway counted 25 packets from us, 25 to us, 0 lost" in out
    with wave.open(str(tmp_path / "sub" / "reply.wav")) as reply:
        assert (reply.getframerate(), reply.getsampwidth(), reply.getnchannels()) == (8000, 2, 1)
        assert reply.getnframes() == 4000
        assert any(reply.readframes(4000))


@pytest.mark.parametrize(
    ("number", "status", "ending"),
    [
        (HANGS_UP, 0, "16 Normal call clearing"),
        (BUSY, 3, "17 User busy"),
        (NO_RESPONSE, 4, "18 No user responding"),
        (FAILS_WITH_41, 5, "41 Temporary failure"),
        (ENDS_WITH_38, 6, "38 Network out of order"),
    ],
)
def test_the_exit_status_tells_how_the_call_ended(number: str, status: int, ending: str, call: Run) -> None:
    actual, out, err = call(number)
    assert (actual, err) == (status, "")
    assert f"ended: {ending}" in out


def test_a_call_that_nobody_answers_in_time_is_hung_up(call: Run) -> None:
    status, out, _ = call("+15550100019", "--timeout", "0.2")
    assert status == 4
    assert "nobody answered within 0.2 s" in out


def test_a_call_that_lasts_too_long_is_hung_up(call: Run) -> None:
    status, out, _ = call("+15550100002", "--max-duration", "0.4", "--record", "tone.wav")
    assert status == 0
    assert "ended: 16" in out
    assert "packets from us" in out
    assert "jitter 0.0 ms.\n" in out, "where the gateway has heard nothing, there is nothing to estimate"
    assert "Recorded" in out


@pytest.mark.parametrize("option", [("--rpc-length", "inclusive"), ("--insecure-no-verify",), ("--from", "+15550107")])
def test_options_that_change_how_the_gateway_is_spoken_to(option: tuple[str, ...], call: Run) -> None:
    assert call(BUSY, *option)[0] == 3


@pytest.mark.parametrize(
    ("cause", "answered", "status"),
    [(16, True, 0), (31, True, 0), (0, True, 0), (17, False, 3), (16, False, 4), (20, False, 4), (1, False, 5)],
)
def test_every_cause_has_its_exit_status(cause: int, answered: bool, status: int) -> None:
    assert exit_status(cause, answered=answered) == status


def test_a_recording_that_finds_no_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with WavRecorder(tmp_path / "reply.wav") as recorder:
        monkeypatch.setattr(WavFile, "append", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*reply\.wav'"):
            recorder.write(AudioFrame(bytes(160), "PCMU", 1, lost_before=0))


def test_a_recording_is_a_whole_file_after_each_packet(tmp_path: Path) -> None:
    with WavRecorder(tmp_path / "call.wav") as recorder:
        for number, (codec, size) in enumerate([("OPUS", 60), ("PCM16", 640), ("PCM16", 640), ("PCMU", 160)]):
            recorder.write(AudioFrame(b"\x01" * size, codec, number, lost_before=number == 2))
        with wave.open(str(recorder.path)) as file:
            assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16_000, 1, 3 * 320)
    assert (recorder.packets, recorder.unknown_codecs) == (2, {"OPUS", "PCMU"})


# -- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_hangs_up_and_leaves_a_whole_recording(
    number: signal.Signals, status: int, gateway_process: GatewayProcess, tmp_path: Path
) -> None:
    record = tmp_path / "tone.wav"
    ours = ["--gateway", gateway_process.endpoint, "--ca", str(gateway_process.ca), "--record", str(record)]
    command = [sys.executable, "-u", "-m", "agentao_trio", "call", "+15550100002", *ours]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said(process.stdout, "answered")
        give_up = time.monotonic() + 120
        while record.stat().st_size < 2000:  # the header, and more than 800 samples
            assert time.monotonic() < give_up
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    assert process.returncode == status
    assert "ended: 16 Normal call clearing" in out
    assert err == "stopping: hanging up and closing\n"
    with wave.open(str(record)) as tone:
        assert tone.getnframes() > 800
