"""The documentation is run: every Python block as a program, every command line through the parser.

Blocks are run as they stand, against a gateway in another process. What stands for something of the reader's own is
replaced: the address of the gateway and the file of its certificate authority.
"""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentao_trio
from agentao_trio import ClientTLS
from agentao_trio.cli import app
from tests.integration.conftest import GatewayProcess
from tests.support.accounts import write_account
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
#: Pages whose programs another test runs, with what they need.
ELSEWHERE = {"authenticate.md", "several-workers.md", "test-your-agent.md", "tutorial.md"}
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """(page and number, text) of all blocks in ``language``."""
    for page in PAGES:
        found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for number, text in enumerate(found, 1):
            yield f"{page.name} {number}", text


PROGRAMS = {name: text for name, text in blocks("python") if name.split()[0] not in ELSEWHERE}
COMMANDS = sorted({line for _, text in blocks("sh") for line in text.splitlines() if line.startswith("agentao-trio ")})
#: What some programs print. The others only have to run.
PRINTED = {
    "place-a-call.md 1": ["16 Normal call clearing"],
    "place-a-call.md 2": ["+15550100017 ended with cause 17", "+15550100403 was refused with code 3 - try again: True"],
    "place-a-call.md 3": ["+15550100017 did not answer: 17", "+15550100001 was greeted: 25 packets"],
    "place-a-call.md 4": ["CallState.ANSWERED"],
    "take-calls.md 1": ["answered +15550107", "over: 16 Normal call clearing"],
    "take-calls.md 2": ["greeted +1555010"],
    "take-calls.md 3": ["is over: Normal call clearing"],
    "take-calls.md 4": ["let in: None", "waiting: 1", "PLAY_AND_HANGUP needs an audio_url"],
    "control-a-call.md 1": ["on hold: True", "heard PCMU", "transferred: 16 Normal call clearing"],
    "control-a-call.md 2": ["the customer's side hears the expert"],
    "control-a-call.md 3": ["not brought in, cause 17 - still ANSWERED", "CONNECTED with +15550100002"],
    "control-a-call.md 4": ["the desk hears 160 bytes"],
    "control-a-call.md 5": [
        "the call is PENDING",
        "SEND_DTMF takes",
        "not on hold",
        "still ANSWERED",
        "too late: cause 16",
    ],
    "run-a-campaign.md 1": ["talking to Ada", "2 answered 16 Normal call clearing", "+15550100016 answered [16]"],
    "run-a-campaign.md 2": ["+15550100017 ended User busy", "to be called again at 60", "+15550100016 answered"],
    "run-a-campaign.md 3": ["20 numbers loaded", "spring has 19 numbers pending", "1 number skipped", "with cause 17"],
    "play-record-detect.md 1": ["interrupted: True - heard: 0.", "played 5.3 s"],
    "play-record-detect.md 2": ["recorded 0."],
    "talk-to-a-model.md 1": ["hangup - tools used: 2"],
    "talk-to-a-model.md 2": ["['book', 'hangup', 'transfer', 'send_dtmf']", "first and last"],
    "talk-to-a-model.md 3": ["assistant said: Good morning and goodbye.", "played: "],
    "watch-calls-live.md 1": ["look at http://127.0.0.1:", "events shown: True"],
    "add-a-check.md 1": ["the trace holds nothing that this rule applies to"],
    "secure.md 1": ["['…16']"],
    "plan-capacity.md 1": ["steps that blocked: "],
    "records.md 1": ["CHANNEL_CREATE in_order", "CHANNEL_HANGUP_COMPLETE in_order"],
    "keep-history.md 1": ["records in the file: True", "…16 completed 16"],
    "keep-history.md 2": ["busy: 17", "differences: 0 - causes: {17: ('User busy', 1)}"],
    "convert-audio.md 1": ["seconds of audio at 24000 samples a second"],
}


#: The file of numbers that the page about campaigns shows.
[NUMBERS] = [text for name, text in blocks("csv") if name == "run-a-campaign.md 1"]


def test_there_is_something_to_run() -> None:
    assert "README.md 1" in PROGRAMS
    assert len(COMMANDS) >= 3
    assert set(PRINTED) <= set(PROGRAMS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_of_the_documentation_runs(
    name: str,
    gateway_process: GatewayProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = PROGRAMS[name]
    monkeypatch.chdir(tmp_path)
    Path("numbers.csv").write_text(NUMBERS)
    write_account(Path("service-account.json"))
    for address in ("quic://127.0.0.1:9090", "quic://gateway.example:9090"):
        program = program.replace(address, gateway_process.endpoint)
    program = program.replace('"ca.pem"', repr(str(gateway_process.ca)))
    if name.startswith("README"):
        # The reader's gateway has a certificate that everybody trusts, and a far end that hangs up some day.
        trusting = functools.partial(agentao_trio.open_session, tls=ClientTLS(ca=gateway_process.ca))
        monkeypatch.setattr(agentao_trio, "open_session", trusting)
        program = program.replace("+15550100001", "+15550100016")
    exec(compile(program, name, "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out
    for expected in PRINTED.get(name, ()):
        assert expected in printed


def test_the_tutorial_works(tmp_path: Path) -> None:
    """Its agent takes calls from a gateway in another process; then its tests pass in a pytest of their own."""
    files = dict(
        re.findall(r"# (\w+\.py)\n(.*)", text, flags=re.DOTALL)[0]
        for name, text in blocks("python")
        if name.startswith("tutorial.md")
    )
    assert list(files) == ["agent.py", "test_agent.py"]
    port = str(free_port())
    for name, text in files.items():
        (tmp_path / name).write_text(text.replace("9090", port))
    python = functools.partial(subprocess.Popen, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    gateway = ["-m", "agentao_trio", "gateway", "--port", port, "--inbound", "5/second", "--inbound-from", "hangup"]
    with python([sys.executable, "-u", *gateway], stdin=subprocess.DEVNULL) as calling:
        assert calling.stdout is not None
        calling.stdout.readline()  # it listens
        with python([sys.executable, "-u", "agent.py"]) as agent:
            assert agent.stdout is not None
            said = ""
            while "goodbye" not in said and said.count("\n") < 200:  # those who have waited are greeted first
                said += agent.stdout.readline()
            agent.terminate()
            assert agent.wait(timeout=120) == 0
        calling.terminate()
    assert "hello, +1" in said
    assert "goodbye, +1" in said
    with python([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]) as tests:
        output, _ = tests.communicate(timeout=300)
    assert "2 passed" in output, output


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_documentation_is_one(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.pem").touch()
    for name in ("numbers.csv", "target.toml", "waivers.toml", "account.json", "calls.db", "results/EVT-01.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with wave.open("hello.wav", "wb") as hello:
        hello.setparams((1, 2, 8000, 0, "NONE", ""))
    app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
