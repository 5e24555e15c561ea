"""What people get wrong on the command line, and what a machine lacks: one line that says it, and no traceback."""

from __future__ import annotations

import socket
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import trio

from agentao_trio import cli
from agentao_trio.cli import app
from agentao_trio.cli.wav import SPEECH
from agentao_trio.history import open_history
from agentao_trio.store import open_store

NOWHERE = "quic://127.0.0.1:1"


@pytest.fixture
def taken() -> Iterator[str]:
    """A TCP port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield str(listener.getsockname()[1])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a file called text, a history of nothing called calls.db, and numbers, a sound and a blank."""
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("hello\n")
    Path("numbers.csv").write_text("to\n+15550100016\n")
    Path("sound.wav").write_bytes(SPEECH.read_bytes())
    Path("blank.db").touch()

    async def main() -> None:
        async with open_store("calls.db"):
            pass

    trio.run(main)
    return tmp_path


#: Command → its exit status, and a part of the one line.
WRONG = {
    "agent --model ws://127.0.0.1:1x": (2, "--model: Port could not be cast"),
    f"agent --fleet nonsense --gateway {NOWHERE}": (2, "--fleet takes the address of a Redis"),
    f"agent --fleet redis://:secret@host:port --gateway {NOWHERE}": (2, "--fleet takes the address of a Redis"),
    f"agent --fleet http://host --gateway {NOWHERE}": (2, "--fleet takes the address of a Redis"),
    f"call +15550100016 --gateway {NOWHERE} --server-name a..é": (1, "no certificate can be for the name 'a..é'"),
    f"call +15550100016 --gateway {NOWHERE} --server-name bücher.example": (1, "nobody listens on UDP port 1"),
    "conformance simulated --out text": (2, "--out: text: File exists"),
    "conformance simulated --json missing/results.json": (2, "--json: missing/results.json: No such file or directory"),
    "conformance simulated --html .": (2, "--html: .: Is a directory"),
    "demo --live --no-browser --port 0 --record text": (2, "--record: text: File exists"),
    "gateway --port 0 --ca-file /dev/full": (2, "--ca-file: /dev/full: No space left on device"),
    "gateway --port 0 --name a..b": (2, "no certificate can be made for that --name"),
    "history export calls.db --out .": (2, "--out: .: Is a directory"),
    "history export calls.db --format csv --what calls --out /dev/full": (
        2,
        "--out: /dev/full: No space left on device",
    ),
    "history prune blank.db --older-than 1d": (1, "blank.db is empty, and not a history file; it was not changed"),
    "history report calls.db --out /dev/full": (2, "--out: /dev/full: No space left on device"),
    "history list calls.db --limit 99999999999999999999": (2, "--limit. Must be <= 1000000000"),
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("line", WRONG)
def test_it_is_told_in_one_line(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, words = WRONG[line]
    try:
        told = app(line.split())
    except SystemExit as end:
        told = end.code
    _, err = capsys.readouterr()
    assert (told, err.count("\n")) == (status, 1)
    assert err.startswith("error: ")
    assert words in err
    assert "secret" not in err


#: Command that would write what it reads → the file.
OVER_ITSELF = {
    "history report calls.db --out calls.db": "calls.db",
    "history export calls.db --out ./calls.db": "calls.db",
    f"campaign numbers.csv --gateway {NOWHERE} --report numbers.csv": "numbers.csv",
    f"call +15550100016 --gateway {NOWHERE} --play sound.wav --record sound.wav": "sound.wav",
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("line", OVER_ITSELF)
def test_what_is_read_is_not_overwritten(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(OVER_ITSELF[line])
    before = file.read_bytes()
    assert app(line.split()) == 2
    assert "is what is read; give the name of another file" in capsys.readouterr().err
    assert file.read_bytes() == before


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "line", ["agent --live", "demo --live --no-browser --record recordings --port", "live calls.db --port"]
)
def test_a_port_that_is_taken_is_named(line: str, taken: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app([*line.split(), taken]) == 1
    _, err = capsys.readouterr()
    assert err == f"error: cannot listen on TCP port {taken} of 127.0.0.1: Address already in use\n"


def test_an_interruption_before_a_command_has_begun_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupted)
    monkeypatch.setattr(cli, "log_to_stderr", lambda: None)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 130


@pytest.mark.usefixtures("here")
def test_rows_that_are_given_up_may_outlive_the_file_of_history() -> None:
    with open_history("calls.db") as history:
        rows = history._rows("VALUES (1), (2)", [])
        next(rows)
    assert isinstance(rows, Generator)
    rows.close()
