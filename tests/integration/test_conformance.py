"""``agentao-trio conformance`` against ``agentao-trio gateway``: two processes, real UDP on loopback."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: Checks of each kind that take a second or two: framing, replies, events, replay, audio, flow control.
ONLY = "FRM-01,FRM-04,SER-03,RPC-01,RPC-06,ERR-01,AUT-05,AUT-06,SUB-02,EVT-01,EVT-02,RPL-01,RPL-03,UPL-01,DWN-05,EOS-01"

PROFILE = """
[target]
ca = "ca.pem"
[destinations]
answer = "+15550100001"
busy = "+15550100017"
loopback = "+15550100001"
"""


@contextmanager
def gateway(directory: Path, *options: str) -> Iterator[str]:
    command = [sys.executable, "-m", "agentao_trio", "gateway", "--port", "0", *options]
    with subprocess.Popen(
        command, cwd=directory, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"quic://\S+:\d+", process.stdout.readline())
            assert found is not None
            yield found[0]
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=120)


def judged(directory: Path, endpoint: str, only: str) -> tuple[int, dict[str, str]]:
    (directory / "target.toml").write_text(PROFILE)
    options = "--profile target.toml --allow-dial --hostile --rate 0/s --max-calls 0 --examples 2 --json results.json"
    command = [sys.executable, "-m", "agentao_trio", "conformance", endpoint, "--only", only, *options.split()]
    status = subprocess.run(command, cwd=directory, capture_output=True, timeout=600, check=False).returncode
    results = json.loads((directory / "results.json").read_text())["results"]
    return status, {each["id"]: each["verdict"] for each in results}


def test_a_gateway_without_faults_passes(tmp_path: Path) -> None:
    with gateway(tmp_path) as endpoint:
        status, verdicts = judged(tmp_path, endpoint, ONLY)
    assert verdicts == dict.fromkeys(ONLY.split(","), "pass")
    assert status == 0


@pytest.mark.parametrize(("fault", "check"), [("two_hangups", "EVT-01"), ("certificate_of_another", "AUT-06")])
def test_a_gateway_with_a_fault_fails(fault: str, check: str, tmp_path: Path) -> None:
    with gateway(tmp_path, "--fault", fault) as endpoint:
        status, verdicts = judged(tmp_path, endpoint, check)
    assert (status, verdicts) == (1, {check: "fail"})
