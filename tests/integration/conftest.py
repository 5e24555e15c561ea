"""What the tests of the command line and of the documentation share: a gateway in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest


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
