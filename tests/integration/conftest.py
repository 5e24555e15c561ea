"""What the tests of the command line and of the documentation share: running it, and a gateway in another process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from agentao_trio.cli import app

#: Runs a command with arguments; returns exit status, standard output and standard error.
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in a directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = app(arguments) or 0
        except SystemExit as end:
            status = int(str(end.code or 0))
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return status, out, err

    return run


@attrs.frozen
class GatewayProcess:
    """A running ``agentao-trio gateway``: where it listens, and the file with its certificate authority."""

    endpoint: str
    ca: Path


@pytest.fixture(scope="session")
def gateway_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    ca = tmp_path_factory.mktemp("gateway") / "ca.pem"
    command = [sys.executable, "-u", "-m", "agentao_trio", "gateway", "--port", "0", "--ca-file", str(ca)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        endpoint = next(word.rstrip(";") for word in process.stdout.readline().split() if word.startswith("quic://"))
        yield GatewayProcess(endpoint, ca)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    assert process.returncode == 0, "SIGTERM is a gateway's regular end"
